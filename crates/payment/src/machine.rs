use farthing_ledger::{Entry, Purpose};
use farthing_primitives::{Money, Timestamp};

use crate::{Delivery, Event, Fault, Flow, Payment, Proof, Reason, Role, State};

/// What one atomic store call makes durable: the next payment, and what its books gain.
///
/// The commit applies only over [`Step::expected`]; what others can see of it happens after it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The version that the payment must have in the store.
    pub expected: u64,
    pub next: Payment,
    pub entries: Vec<Entry>,
}

/// What is to be done with a payment in the state that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// Ask the chain whether it would settle.
    CheckFunds,
    /// Call the upstream.
    CallUpstream,
    /// The call is under way in this process; after a restart nobody knows how it went.
    AwaitUpstream,
    /// Start an attempt.
    Settle,
    /// Find out what became of the attempt.
    Watch,
    /// Wait for depth.
    Confirm,
    /// Find out what became of the refund.
    WatchRefund,
    /// Nothing, unless somebody asks.
    Rest,
}

/// Why an event does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    #[error("{event} does not fit a payment that is {state}, delivery {delivery}")]
    DoesNotFit { event: &'static str, state: &'static str, delivery: &'static str },
    #[error("this payment began anew too often")]
    TooManyRounds,
    #[error("this payment was for another request")]
    OtherRequest,
}

impl Step {
    /// Adds another event to the same commit.
    pub fn and(self, event: Event, now: Timestamp) -> Result<Self, StepError> {
        let more = self.next.step(event, now)?;
        let entries = [self.entries, more.entries].concat();
        Ok(Self { expected: self.expected, next: more.next, entries })
    }
}

impl Payment {
    /// How often a refused payment may be shown again for its request, and begin anew.
    pub const MOST_BEGINNINGS: u16 = 1000;

    /// What is to be done now: the answer of a process that comes here, and of one restarted here.
    pub fn next(&self) -> Next {
        match (&self.state, self.delivery) {
            (State::Claimed, _) => Next::CheckFunds,
            (State::Funded, Delivery::None) if self.role == Role::Seller && self.flow != Flow::Upfront => {
                Next::CallUpstream
            }
            (State::Funded, Delivery::None | Delivery::Stored | Delivery::Sent) => Next::Settle,
            (State::Funded, Delivery::Failed) if self.is_on_credit() => Next::Settle,
            (State::Funded, Delivery::Called) => Next::AwaitUpstream,
            (State::Settling { .. } | State::Unknown { .. } | State::Lapsing { .. }, _) => Next::Watch,
            (State::Confirming { .. }, _) => Next::Confirm,
            (State::Settled { .. }, Delivery::None | Delivery::Failed)
                if self.role == Role::Seller && self.flow == Flow::Upfront =>
            {
                Next::CallUpstream
            }
            (State::Settled { .. }, Delivery::Failed) if self.is_on_credit() => Next::CallUpstream,
            (State::Settled { .. }, Delivery::Called) => Next::AwaitUpstream,
            (State::Refunding { .. }, _) => Next::WatchRefund,
            // A call that failed turns a funded payment into a refused one; only one cut off on credit stays funded.
            (State::Funded, Delivery::Failed)
            | (
                State::Settled { .. } | State::Refused { .. } | State::Failed { .. } | State::Refunded { .. },
                _,
            ) => Next::Rest,
        }
    }

    /// Moves the payment by one event.
    ///
    /// # Errors
    /// [`StepError`] if the event does not fit the state. Nothing is changed then.
    pub fn step(&self, event: Event, now: Timestamp) -> Result<Step, StepError> {
        let mut next = self.clone();
        next.version += 1;
        next.updated = now;
        let entries = next.apply(event, now)?;
        Ok(Step { expected: self.version, next, entries })
    }

    fn apply(&mut self, event: Event, now: Timestamp) -> Result<Vec<Entry>, StepError> {
        use Delivery as D;
        use State as S;
        let misfit = StepError::DoesNotFit {
            event: event.name(),
            state: self.state.name(),
            delivery: self.delivery.name(),
        };
        match (event, &self.state, self.delivery) {
            (Event::FundsConfirmed, S::Claimed, _) => {
                self.state = S::Funded;
                Ok(Vec::new())
            }
            (Event::FundsRefused(reason), S::Claimed | S::Funded, D::None) => {
                self.state = S::Refused { reason };
                // In a former round the upstream was called: the claim is kept for the same request.
                if self.round > 0 {
                    self.delivery = D::Failed;
                }
                Ok(self.void_sale())
            }
            // The payer's money went elsewhere while the upstream worked. The answer was kept back, and is dropped.
            (Event::FundsRefused(reason), S::Funded, D::Stored) => {
                self.state = S::Refused { reason };
                self.delivery = D::Failed;
                Ok(self.void_sale())
            }
            (Event::CallStarted, S::Funded | S::Settled { .. }, D::None | D::Failed)
                if self.next() == Next::CallUpstream =>
            {
                self.delivery = D::Called;
                Ok(Vec::new())
            }
            (Event::CallStored, S::Funded | S::Settled { .. }, D::Called) => {
                self.delivery = D::Stored;
                Ok(Vec::new())
            }
            (Event::Sent, S::Funded | S::Settled { .. }, D::Called) if self.flow != Flow::Authorization => {
                self.delivery = D::Sent;
                Ok(Vec::new())
            }
            (Event::Sent, S::Settled { .. } | S::Refunding { .. } | S::Refunded { .. }, D::Stored) => {
                self.delivery = D::Sent;
                Ok(Vec::new())
            }
            // Its goods may have left. It is charged for them, and they are owed.
            (Event::CallLost(_), S::Funded, D::Called) if self.flow == Flow::Background => {
                self.delivery = D::Failed;
                Ok(Vec::new())
            }
            (Event::CallFailed(reason) | Event::CallLost(reason), S::Funded, D::Called) => {
                self.state = S::Refused { reason };
                self.delivery = D::Failed;
                Ok(self.void_sale())
            }
            // Paid and not delivered: an entitlement, free to be shown again until delivered or refunded.
            (Event::CallFailed(_) | Event::CallLost(_), S::Settled { .. }, D::Called) => {
                self.delivery = D::Failed;
                Ok(Vec::new())
            }
            // The block with the payment went away, or the money back, while the answer was on its way: how that ended
            // is no less true.
            (
                event @ (Event::Sent | Event::CallFailed(_) | Event::CallLost(_)),
                S::Settling { .. }
                | S::Confirming { .. }
                | S::Unknown { .. }
                | S::Lapsing { .. }
                | S::Refunding { .. }
                | S::Refunded { .. },
                D::Called,
            ) => {
                self.delivery = if event == Event::Sent { D::Sent } else { D::Failed };
                Ok(Vec::new())
            }
            (Event::Represented { request }, S::Refused { .. }, D::Failed) => {
                if request != self.binding.request {
                    return Err(StepError::OtherRequest);
                }
                // What is left of the rounds is for reorganizations, which have to be booked.
                if self.round >= Self::MOST_BEGINNINGS {
                    return Err(StepError::TooManyRounds);
                }
                self.round += 1;
                self.state = S::Claimed;
                self.delivery = D::None;
                Ok(self.reserve())
            }
            (Event::AttemptStarted { attempt, tx }, S::Funded, _) if self.next() == Next::Settle => {
                self.state = S::Settling { attempt, since: now, tx };
                Ok(Vec::new())
            }
            // A bumped or re-sent attempt has a new transaction.
            (Event::AttemptStarted { attempt, tx }, S::Settling { attempt: current, since, .. }, _)
                if attempt == *current =>
            {
                self.state = S::Settling { attempt, since: *since, tx };
                Ok(Vec::new())
            }
            (
                Event::AttemptReplaced { dropped, attempt, tx },
                S::Settling { attempt: current, .. } | S::Unknown { attempt: current, .. },
                _,
            ) if dropped == *current => {
                self.state = S::Settling { attempt, since: now, tx };
                Ok(Vec::new())
            }
            // Others have seen the authorization, and may submit it until it ends. So it is never a mere refusal, which
            // would give the claim back and ask the payer for another payment.
            (
                Event::AttemptDropped { attempt },
                S::Settling { attempt: current, tx, .. } | S::Unknown { attempt: current, tx, .. },
                _,
            ) if attempt == *current => {
                let reason = Reason::new("attempt_dropped", Fault::Us);
                self.state = S::Lapsing { attempt, reason, tx: tx.clone() };
                Ok(Vec::new())
            }
            (
                Event::Included { proof, deep },
                S::Settling { attempt, .. }
                | S::Unknown { attempt, .. }
                | S::Lapsing { attempt, .. }
                | S::Confirming { attempt, .. },
                _,
            ) => {
                let attempt = *attempt;
                if !deep {
                    self.state = S::Confirming { attempt, proof };
                    return Ok(Vec::new());
                }
                let entries = self.settle(&proof);
                self.state = S::Settled { attempt, proof };
                Ok(entries)
            }
            (Event::Reverted { reason, tx }, S::Settling { attempt, .. } | S::Unknown { attempt, .. }, _) => {
                self.state = S::Lapsing { attempt: *attempt, reason, tx };
                Ok(Vec::new())
            }
            (Event::Unclear { tx }, S::Settling { attempt, since, tx: known }, _) => {
                self.state =
                    S::Unknown { attempt: *attempt, since: *since, tx: tx.or_else(|| known.clone()) };
                Ok(Vec::new())
            }
            (Event::Reorged, S::Confirming { attempt, proof }, _) => {
                self.state = S::Settling { attempt: *attempt, since: now, tx: Some(proof.tx.clone()) };
                Ok(Vec::new())
            }
            (Event::Reorged, S::Settled { attempt, proof }, _) => {
                let (attempt, tx, fee) = (*attempt, proof.tx.clone(), proof.fee.clone());
                let entries = self.unsettle(fee)?;
                // A stored answer leaves as soon as its payment is settled, and that is recorded afterwards, if at all.
                if self.delivery == D::Stored {
                    self.delivery = D::Sent;
                }
                self.state = S::Settling { attempt, since: now, tx: Some(tx) };
                Ok(entries)
            }
            (Event::Dead(reason), S::Settling { .. } | S::Unknown { .. } | S::Lapsing { .. }, _)
            // Served on credit, and no attempt was possible until the authorization died.
            | (Event::Dead(reason), S::Funded, D::Sent | D::Failed) => {
                self.state = S::Failed { reason };
                // A call under way began when the payment was settled. How much of its answer left cannot be told, so
                // that it counts as all of it.
                if self.delivery == D::Called {
                    self.delivery = D::Sent;
                }
                Ok(self.write_off())
            }
            (Event::RefundStarted { refund, tx }, S::Settled { attempt, proof }, _)
                if self.role == Role::Seller =>
            {
                self.state = S::Refunding { attempt: *attempt, proof: proof.clone(), refund, tx };
                Ok(Vec::new())
            }
            (Event::RefundIncluded { proof: refund_proof }, S::Refunding { proof, refund, .. }, _) => {
                let entries = self.refund(&refund_proof);
                self.state = S::Refunded { proof: proof.clone(), refund: *refund, refund_proof };
                Ok(entries)
            }
            (Event::RefundReplaced { tx }, S::Refunding { attempt, proof, refund, .. }, _) => {
                self.state = S::Refunding { attempt: *attempt, proof: proof.clone(), refund: *refund, tx };
                Ok(Vec::new())
            }
            (Event::RefundDropped, S::Refunding { attempt, proof, .. }, _) => {
                self.state = S::Settled { attempt: *attempt, proof: proof.clone() };
                Ok(Vec::new())
            }
            _ => Err(misfit),
        }
    }

    fn void_sale(&self) -> Vec<Entry> {
        match self.role {
            Role::Seller => vec![Entry::Void { id: self.transfer(Purpose::Sale) }],
            Role::Facilitator => Vec::new(),
        }
    }

    /// The money is the payee's: the expected sale becomes real, and the treasury has it.
    fn settle(&self, proof: &Proof) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(3);
        match self.role {
            Role::Seller => {
                entries.push(Entry::Post { id: self.transfer(Purpose::Sale) });
                entries.push(self.final_transfer(Purpose::Settlement, self.terms.money.clone()));
            }
            Role::Facilitator => entries.push(self.final_transfer(Purpose::Relay, self.terms.money.clone())),
        }
        entries.extend(proof.fee.clone().map(|fee| self.final_transfer(Purpose::Gas, fee)));
        entries
    }

    /// The block is gone: the books take back what they said, and a new round begins.
    fn unsettle(&mut self, fee: Option<Money>) -> Result<Vec<Entry>, StepError> {
        let reversal = match self.role {
            Role::Seller => Purpose::Reversal,
            Role::Facilitator => Purpose::RelayReversal,
        };
        let mut entries = vec![self.final_transfer(reversal, self.terms.money.clone())];
        entries.extend(fee.map(|fee| self.final_transfer(Purpose::GasReversal, fee)));
        self.round = self.round.checked_add(1).ok_or(StepError::TooManyRounds)?;
        if self.role == Role::Seller {
            // The old round's sale is taken back and expected again, so that a round always ends in the same way.
            entries.push(Entry::Transfer {
                id: self.transfer(Purpose::SaleReversal),
                tenant: self.tenant.clone(),
                money: self.terms.money.clone(),
            });
            entries.extend(self.reserve());
        }
        Ok(entries)
    }

    /// No money will come. What was served is a loss that shows; what was not is simply undone.
    fn write_off(&self) -> Vec<Entry> {
        if self.role == Role::Facilitator {
            return Vec::new();
        }
        if self.is_on_credit() {
            vec![
                Entry::Post { id: self.transfer(Purpose::Sale) },
                self.final_transfer(Purpose::WriteOff, self.terms.money.clone()),
            ]
        } else {
            self.void_sale()
        }
    }

    fn refund(&self, proof: &Proof) -> Vec<Entry> {
        let mut entries = vec![self.final_transfer(Purpose::Refund, self.terms.money.clone())];
        entries.extend(proof.fee.clone().map(|fee| self.final_transfer(Purpose::RefundGas, fee)));
        entries
    }

    fn final_transfer(&self, purpose: Purpose, money: Money) -> Entry {
        Entry::Transfer { id: self.transfer(purpose), tenant: self.tenant.clone(), money }
    }

    /// The refusal's reason, where there is one.
    pub fn reason(&self) -> Option<&Reason> {
        match &self.state {
            State::Refused { reason } | State::Failed { reason } | State::Lapsing { reason, .. } => {
                Some(reason)
            }
            _ => None,
        }
    }
}
