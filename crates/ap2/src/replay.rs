//! A closed mandate is used once; an open one once, or as often as it says.
//!
//! Nothing here keeps anything: [`Seen`] does, in one durable step, and asks [`Reservation::decide`] within it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use farthing_primitives::Timestamp;
use farthing_wire::mpp::WireTime;

use crate::MAX_USES;
use crate::chain::{Family, MandateId};
use crate::mandate::Amount;
use crate::refusal::{Refusal, Refused};

/// How often an agent may use an open payment mandate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frequency {
    OnDemand,
    Daily,
    Weekly,
    Biweekly,
    Monthly,
    Quarterly,
    Annually,
}

impl Frequency {
    const ALL: [Self; 7] = [
        Self::OnDemand,
        Self::Daily,
        Self::Weekly,
        Self::Biweekly,
        Self::Monthly,
        Self::Quarterly,
        Self::Annually,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "ON_DEMAND",
            Self::Daily => "DAILY",
            Self::Weekly => "WEEKLY",
            Self::Biweekly => "BIWEEKLY",
            Self::Monthly => "MONTHLY",
            Self::Quarterly => "QUARTERLY",
            Self::Annually => "ANNUALLY",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|frequency| frequency.name() == name)
    }

    /// When the next use may be, if the last one was at `last`. Months are those of the calendar in UTC; what was used on
    /// the 31st may be used again on the last day of a shorter month.
    ///
    /// Spec: payment_mandate.md, "Agent Recurrence": "sufficiently separated in time from the previous presentation".
    fn next(self, last: Timestamp) -> Option<Timestamp> {
        let days = |days: u64| Some(last.plus(Duration::from_secs(days * 86_400)));
        match self {
            Self::OnDemand => Some(last),
            Self::Daily => days(1),
            Self::Weekly => days(7),
            Self::Biweekly => days(14),
            Self::Monthly => months_later(last, 1),
            Self::Quarterly => months_later(last, 3),
            Self::Annually => months_later(last, 12),
        }
    }
}

/// The same day and time of day some months later, by its text: that is where a calendar is already.
fn months_later(from: Timestamp, months: u32) -> Option<Timestamp> {
    let text = from.to_string();
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok();
    let (year, month, day): (u32, u32, u32) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let all = year * 12 + (month - 1) + months;
    let rest = text.get(10..)?;
    let on = |day: u32| format!("{:04}-{:02}-{day:02}{rest}", all / 12, all % 12 + 1).parse::<WireTime>();
    (28..=day.max(28)).rev().map(|latest| latest.min(day)).find_map(|day| on(day).ok()).map(|time| time.at())
}

/// Spec: AP2 payment_mandate.md, "Agent Recurrence".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    pub frequency: Frequency,
    pub max_occurrences: Option<u64>,
}

/// What one open mandate says of its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUse {
    pub id: MandateId,
    /// All of them have to be kept; without one the mandate is used once.
    pub recurrence: Vec<Recurrence>,
    /// What all uses together may come to.
    pub budgets: Vec<Amount>,
}

impl OpenUse {
    pub(crate) fn once(id: MandateId) -> Self {
        Self { id, recurrence: Vec::new(), budgets: Vec::new() }
    }

    /// Spec: AP2 security_and_privacy_considerations.md, "Double Spend": overlapping mandates may be rejected, and here are.
    fn decide(&self, new: &Reservation, past: &[PastUse], now: Timestamp) -> Result<(), Refusal> {
        if past.iter().any(|past| past.transaction == new.transaction) {
            return Err(Refusal::TransactionUsed);
        }
        if self.recurrence.is_empty() && !past.is_empty() {
            return Err(Refusal::OpenUsed);
        }
        let last = past.iter().map(|past| past.at).max();
        for recurrence in &self.recurrence {
            let too_often = recurrence.max_occurrences.is_some_and(|most| past.len() as u64 >= most);
            let too_soon = match last {
                None => false,
                // A time that is not in the calendar never comes.
                Some(last) => recurrence.frequency.next(last).is_none_or(|next| now < next),
            };
            if too_often || too_soon || past.len() >= MAX_USES {
                return Err(Refusal::Recurrence);
            }
        }
        for budget in &self.budgets {
            // Another currency's uses count as nothing in this one: they were refused when they came.
            let uses = past.iter().map(|past| &past.amount).chain([&new.amount]).flatten();
            let spent = uses
                .filter(|amount| amount.currency == budget.currency)
                .try_fold(0_u128, |sum, amount| sum.checked_add(amount.minor.into()));
            if spent.is_none_or(|spent| spent > budget.minor.into()) {
                return Err(Refusal::Budget);
            }
        }
        Ok(())
    }
}

/// What has to be written down before a mandate counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub family: Family,
    pub closed: MandateId,
    /// The hash of the checkout.
    pub transaction: String,
    /// What is paid; none for a checkout.
    pub amount: Option<Amount>,
    pub opens: Vec<OpenUse>,
}

/// An earlier use of an open mandate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastUse {
    pub at: Timestamp,
    pub transaction: String,
    pub amount: Option<Amount>,
}

/// What was written down before, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The closed mandate was.
    pub is_seen: bool,
    /// The uses of each open mandate of the reservation; the latest [`MAX_USES`] of it are enough.
    pub opens: BTreeMap<MandateId, Vec<PastUse>>,
}

impl Reservation {
    /// Whether it may be written down beside what is there.
    ///
    /// # Errors
    /// [`Refusal::Replayed`], [`Refusal::OpenUsed`], [`Refusal::TransactionUsed`], [`Refusal::Recurrence`] or
    /// [`Refusal::Budget`].
    pub fn decide(&self, history: &History, now: Timestamp) -> Result<(), Refusal> {
        if history.is_seen {
            return Err(Refusal::Replayed);
        }
        self.opens.iter().try_for_each(|open| {
            let past = history.opens.get(&open.id).map(Vec::as_slice).unwrap_or_default();
            open.decide(self, past, now)
        })
    }
}

/// Where uses are kept.
pub trait Seen {
    type Error;

    /// Reads the history of the reservation, asks [`Reservation::decide`], and writes it down if the answer is yes: one
    /// atomic step among all processes, durable when it returns. The inner result is the decision.
    ///
    /// # Errors
    /// If it cannot be known or kept; the mandate does not count then.
    fn reserve(&self, reservation: &Reservation, now: Timestamp) -> Result<Result<(), Refusal>, Self::Error>;
}

/// For tests, and for what lives as long as its process.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Vec<(Reservation, Timestamp)>>);

impl Seen for Memory {
    type Error = Infallible;

    fn reserve(&self, reservation: &Reservation, now: Timestamp) -> Result<Result<(), Refusal>, Infallible> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut history = History {
            is_seen: all.iter().any(|(past, _)| past.closed == reservation.closed),
            ..History::default()
        };
        for (past, at) in all.iter() {
            for open in &past.opens {
                history.opens.entry(open.id).or_default().push(PastUse {
                    at: *at,
                    transaction: past.transaction.clone(),
                    amount: past.amount.clone(),
                });
            }
        }
        let decided = reservation.decide(&history, now);
        if decided.is_ok() {
            all.push((reservation.clone(), now));
        }
        Ok(decided)
    }
}

/// A mandate that is right in itself, and that may have been used before.
#[derive(Debug)]
#[must_use = "a mandate counts once it is reserved"]
pub struct Unreserved<T> {
    mandate: T,
    reservation: Reservation,
}

/// A mandate that counts, now and never again.
#[derive(Debug)]
pub struct Authorized<T>(T);

#[derive(Debug, thiserror::Error)]
pub enum ReserveError<E> {
    #[error("{0}")]
    Refused(Refused),
    /// It cannot be told whether it was used before, so it does not count.
    #[error("{0}")]
    Unknown(E),
}

impl<T> Unreserved<T> {
    pub(crate) fn new(mandate: T, reservation: Reservation) -> Self {
        Self { mandate, reservation }
    }

    /// What it would authorize. To look at, as in a dispute; not to act on.
    pub fn look(&self) -> &T {
        &self.mandate
    }

    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Uses it up.
    ///
    /// # Errors
    /// [`ReserveError`]: it does not count.
    pub fn reserve<S: Seen>(self, seen: &S, now: Timestamp) -> Result<Authorized<T>, ReserveError<S::Error>> {
        match seen.reserve(&self.reservation, now) {
            Ok(Ok(())) => Ok(Authorized(self.mandate)),
            Ok(Err(why)) => Err(ReserveError::Refused(self.reservation.family.at(None, why))),
            Err(error) => Err(ReserveError::Unknown(error)),
        }
    }
}

impl<T> Authorized<T> {
    pub fn mandate(&self) -> &T {
        &self.0
    }
}
