//! A payment's story: what happened, told by the machine that made it happen.
//!
//! The history keeps the name of an event and what the payment was afterwards. Walking the same steps again with
//! [`Payment::step`] gives the events back with their causes, and the entries that the books must have.

use farthing_ledger::Entry;
use farthing_payment::{Delivery, Event, Fault, NewPayment, Payment, Proof, Reason, State, TxRef};
use farthing_primitives::Timestamp;

use crate::codec::Malformed;
use crate::record::check_state;

/// The most events that one commit holds.
const MAX_EVENTS: u64 = 4;

/// One line of the history as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct HistoryRow {
    pub version: u64,
    pub tenant: String,
    pub event: String,
    pub at: Timestamp,
    /// What the change led to; version 1 of the schema did not say.
    pub after: Option<After>,
}

#[derive(Debug, Clone)]
pub(crate) struct After {
    pub follows: u64,
    pub round: u16,
    pub state: State,
    pub delivery: Delivery,
    pub detail: Vec<u8>,
}

/// A payment from its claim to where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    pub payment: Payment,
    /// What the claim booked.
    pub claimed: Vec<Entry>,
    pub chapters: Vec<Chapter>,
    /// Every change is known with its cause, so that the chapters' entries are all that the books may have.
    pub whole: bool,
}

/// One commit of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    pub version: u64,
    pub at: Timestamp,
    /// The name that the commit was given.
    pub name: String,
    /// What happened, in order. Empty if it was written before the history kept enough to tell.
    pub events: Vec<Event>,
    pub entries: Vec<Entry>,
    /// What the payment was then.
    pub after: Option<Payment>,
}

/// Tells the story of a payment, or what in its history cannot be true.
pub(crate) fn tell(payment: &Payment, rows: &[HistoryRow]) -> Result<Story, String> {
    let (start, claimed) = Payment::claim(beginning(payment), payment.created);
    let mut before = Some(start);
    let mut version = 0;
    let mut chapters = Vec::with_capacity(rows.len());
    let mut whole = true;
    for row in rows {
        if row.tenant != payment.tenant.as_str() {
            return Err(format!("change {} is another tenant's", row.version));
        }
        if row.version <= version {
            return Err(format!("change {} does not come after {version}", row.version));
        }
        if let Some(after) = row.after.as_ref().filter(|after| after.follows != version) {
            return Err(format!("the change before {} is missing: {}", row.version, after.follows));
        }
        let after = row.after.as_ref().map(|after| checked(payment, row, after)).transpose();
        let after = after.map_err(|error| format!("change {}: {error}", row.version))?;
        let told = match (&before, &after) {
            (Some(before), Some(after)) => {
                let told = path(before, after, &row.event).ok_or_else(|| {
                    format!(
                        "no {} leads from {} (delivery {}) to {} (delivery {}) in change {}",
                        row.event,
                        before.state.name(),
                        before.delivery.name(),
                        after.state.name(),
                        after.delivery.name(),
                        row.version
                    )
                })?;
                Some(told)
            }
            _ => None,
        };
        whole &= told.is_some();
        let Path { events, entries } = told.unwrap_or_default();
        let (version_now, at, name) = (row.version, row.at, row.event.clone());
        chapters.push(Chapter { version: version_now, at, name, events, entries, after: after.clone() });
        version = row.version;
        before = after;
    }
    if version != payment.version {
        return Err(format!("its history ends at change {version} of {}", payment.version));
    }
    if before.is_some_and(|last| last != *payment) {
        return Err("its history ends elsewhere".to_owned());
    }
    Ok(Story { payment: payment.clone(), claimed, chapters, whole })
}

fn beginning(payment: &Payment) -> NewPayment {
    NewPayment {
        id: payment.id,
        tenant: payment.tenant.clone(),
        key: payment.key.clone(),
        role: payment.role,
        flow: payment.flow,
        terms: payment.terms.clone(),
        binding: payment.binding.clone(),
    }
}

/// The payment as it was after this change, if the line is what was written.
fn checked(payment: &Payment, row: &HistoryRow, after: &After) -> Result<Payment, Malformed> {
    let then = Payment {
        version: row.version,
        round: after.round,
        state: after.state.clone(),
        delivery: after.delivery,
        updated: row.at,
        ..payment.clone()
    };
    check_state(&then, &after.detail)?;
    Ok(then)
}

#[derive(Debug, Default)]
struct Path {
    events: Vec<Event>,
    entries: Vec<Entry>,
}

/// The events that lead from one state to the other, one of them by this name.
fn path(before: &Payment, after: &Payment, name: &str) -> Option<Path> {
    let events = after.version.checked_sub(before.version).filter(|gap| (1..=MAX_EVENTS).contains(gap))?;
    let mut path = Path::default();
    walk(before, after, name, events, &mut path).then_some(path)
}

fn walk(from: &Payment, to: &Payment, name: &str, left: u64, path: &mut Path) -> bool {
    if left == 0 {
        let arrived = Payment { updated: to.updated, ..from.clone() } == *to;
        return arrived && path.events.iter().any(|event| event.name() == name);
    }
    let now = since(&to.state).unwrap_or(to.updated);
    for event in candidates(from, to, name) {
        let Ok(step) = from.step(event.clone(), now) else { continue };
        let entries = path.entries.len();
        path.events.push(event);
        path.entries.extend(step.entries);
        if walk(&step.next, to, name, left - 1, path) {
            return true;
        }
        path.events.pop();
        path.entries.truncate(entries);
    }
    false
}

fn since(state: &State) -> Option<Timestamp> {
    match state {
        State::Settling { since, .. } | State::Unknown { since, .. } => Some(*since),
        _ => None,
    }
}

/// Every event that may lead to `to`, with the causes that `to` holds; those of this name first.
fn candidates(from: &Payment, to: &Payment, name: &str) -> Vec<Event> {
    let request = to.binding.request;
    let mut events = vec![
        Event::FundsConfirmed,
        Event::CallStarted,
        Event::CallStored,
        Event::Sent,
        Event::Reorged,
        Event::RefundDropped,
        Event::Represented { request },
    ];
    let cause = match &to.state {
        State::Refused { reason } | State::Failed { reason } | State::Lapsing { reason, .. } => {
            reason.clone()
        }
        // A paid call that failed: the state is the money's, and keeps no reason.
        _ => Reason::new("not_kept", Fault::Payee),
    };
    let tx: Option<TxRef> = match &to.state {
        State::Settling { tx, .. }
        | State::Unknown { tx, .. }
        | State::Lapsing { tx, .. }
        | State::Refunding { tx, .. } => tx.clone(),
        _ => None,
    };
    events.extend([
        Event::FundsRefused(cause.clone()),
        Event::CallFailed(cause.clone()),
        Event::CallLost(cause.clone()),
        Event::Dead(cause.clone()),
        Event::Reverted { reason: cause, tx: tx.clone() },
        Event::Unclear { tx: tx.clone() },
    ]);
    match &to.state {
        State::Settling { attempt, .. } => {
            events.push(Event::AttemptStarted { attempt: *attempt, tx: tx.clone() });
            if let State::Settling { attempt: dropped, .. } | State::Unknown { attempt: dropped, .. } =
                &from.state
            {
                events.push(Event::AttemptReplaced { dropped: *dropped, attempt: *attempt, tx });
            }
        }
        State::Lapsing { attempt, .. } => events.push(Event::AttemptDropped { attempt: *attempt }),
        State::Confirming { proof, .. } => events.push(included(proof, false)),
        State::Settled { proof, .. } => events.push(included(proof, true)),
        State::Refunding { refund, .. } => {
            events.push(Event::RefundStarted { refund: *refund, tx: tx.clone() });
            events.push(Event::RefundReplaced { tx });
        }
        State::Refunded { refund_proof, .. } => {
            events.push(Event::RefundIncluded { proof: refund_proof.clone() });
        }
        _ => {}
    }
    // The search is short when it begins with what was said.
    events.sort_by_key(|event| event.name() != name);
    events
}

fn included(proof: &Proof, deep: bool) -> Event {
    Event::Included { proof: proof.clone(), deep }
}
