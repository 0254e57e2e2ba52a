use std::time::Duration;

use farthing_payment::{Reason, TxRef};
use farthing_primitives::{AttemptId, Timestamp};

use crate::{Attempt, Exact, MeterError, Need, Price, Receipt, Terms, VerifiedVoucher, View};

/// What a payer allows a channel. The owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// What may be deposited all in all, in atoms.
    pub most_deposit: u128,
    /// The most for a unit.
    pub most_price: Price,
    /// How far vouchers may run ahead of what was received, in atoms: lost if the payee stops serving. Also how much
    /// more than we counted the payee may say that it served, since some of it is still on its way.
    pub ahead: u128,
    /// After our memory was lost: the most beyond what was settled that the payee's bare word is believed for, in
    /// atoms. Above, the channel is left.
    pub trust: u128,
    /// How long the payee may take to close before the escrow is asked.
    pub patience: Duration,
    /// How long after the grace period to wait: clocks and blocks differ.
    pub slack: Duration,
}

/// Where a payer's channel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayerState {
    /// Meant to be opened, durably, and not as deep in the chain as we ask for.
    Opening,
    Open,
    /// We want the rest back. `asked`: when the payee was told.
    Leaving {
        since: Timestamp,
        asked: Option<Timestamp>,
    },
    /// The escrow was asked, and the payee's time to answer runs.
    Requested {
        at: Timestamp,
        block: u64,
    },
    /// The escrow paid out, in a block that is not deep yet.
    Over {
        block: u64,
    },
    /// And deep. It stays so whatever comes.
    Finalized,
    /// It never came to be.
    Void {
        reason: Reason,
    },
}

/// What a transaction of ours does, or one that the payee submits with our signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayerAction {
    Open {
        deposit: u128,
    },
    /// `reaches`: the deposit with it.
    TopUp {
        amount: u128,
        reaches: u128,
    },
    RequestClose,
    Withdraw,
}

/// What the payee says that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overclaim {
    /// It has a voucher that we never signed.
    Accepted { said: u128, signed: u128 },
    /// It served more than we got.
    Spent { said: u128, ours: u128 },
    /// It took more from the escrow than we signed.
    Taken { settled: u128, signed: u128 },
}

/// One channel, as its payer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    pub(crate) version: u64,
    pub(crate) terms: Terms,
    pub(crate) budget: Budget,
    pub(crate) state: PayerState,
    /// Both as deep in the chain as we ask for. They only grow.
    pub(crate) deposit: u128,
    pub(crate) settled: u128,
    /// The high-water mark: nothing above it was ever signed. Durable before the signature exists.
    pub(crate) signed: u128,
    /// Whether what we signed may be more than we remember.
    pub(crate) forgot: bool,
    /// What we got, by our own count.
    pub(crate) used: Exact,
    pub(crate) units: u128,
    /// The most that the payee said it charged.
    pub(crate) told: u128,
    pub(crate) overclaim: Option<Overclaim>,
    pub(crate) pending: Option<Attempt<PayerAction>>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// Something that happened to a payer's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayerEvent {
    /// The escrow was read: at the newest block, or (`deep`) at one that is as deep as we ask for. `None`: it has no
    /// such channel.
    Seen { view: Option<View>, deep: bool },
    /// Proof that the channel does not come to be.
    OpenFailed(Reason),
    /// A voucher for this amount will be signed and sent after this commit.
    Raised { to: u128 },
    /// So many units arrived, at this price.
    Received { price: Price, units: u64 },
    /// A receipt of the payee.
    Told(Receipt),
    /// The owner looked at an overclaim, and lets it pass.
    Forgiven,
    /// A transaction, or a signature that allows one, will be visible to others after this commit.
    Intended { attempt: AttemptId, action: PayerAction },
    /// Its name, or its new one.
    Named { attempt: AttemptId, tx: TxRef },
    /// It changed nothing and never will.
    Failed { attempt: AttemptId, reason: Reason },
    /// We want the rest back.
    LeaveDecided,
    /// The payee will be asked to close after this commit, with a voucher for [`Payer::closing_amount`].
    CloseAsked,
}

/// Why a payer does not do it. Nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayerError {
    #[error("{event} does not fit a channel that is {state}")]
    DoesNotFit { event: &'static str, state: &'static str },
    #[error("the deposit is not as deep in the chain as we ask for: no voucher yet")]
    NotConfirmed,
    #[error("the voucher asked for is {} above the deposit: it needs a top-up first", .0)]
    AboveDeposit(u128),
    #[error("the voucher asked for runs too far ahead of what arrived: at most {most}")]
    TooFarAhead { most: u128 },
    #[error("a unit costs more than the budget allows")]
    TooDear,
    #[error("the deposit would be more than the budget of {most}")]
    OverBudget { most: u128 },
    #[error("the payee claimed what cannot be: {0:?}")]
    Disputed(Overclaim),
    #[error("another transaction of this channel is on its way: {0}")]
    Pending(AttemptId),
    #[error("the escrow says that it paid out more than it got")]
    Unsound,
    #[error(transparent)]
    Meter(#[from] MeterError),
}

/// What is to be done with a payer's channel: the answer of a process that comes here, and of one restarted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayerNext {
    /// Find out what became of our transaction, and send it again if it may never have left.
    Watch { attempt: AttemptId },
    /// Look at the escrow until what it says is deep.
    Look,
    /// Commit [`PayerEvent::LeaveDecided`]: the payee cannot be trusted.
    BeginLeave,
    /// Commit [`PayerEvent::CloseAsked`], then ask the payee to close with a voucher for this amount.
    AskClose { amount: u128 },
    /// Ask the escrow to close.
    RequestClose,
    /// Take the rest back.
    Withdraw,
    /// Nothing, unless somebody asks, or it is that late.
    Rest { wake: Option<Timestamp> },
}

/// What one atomic store call makes durable. What others can see of it happens after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayerStep {
    /// The version that the channel must have in the store.
    pub expected: u64,
    pub next: Payer,
}

impl PayerStep {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.next.version == self.expected
    }

    /// Adds another event to the same commit.
    pub fn and(self, event: PayerEvent, now: Timestamp) -> Result<Self, PayerError> {
        Ok(Self { expected: self.expected, next: self.next.step(event, now)?.next })
    }
}

impl Payer {
    /// Means to open a channel: durable before the deposit is signed or sent.
    ///
    /// # Errors
    /// [`PayerError::OverBudget`].
    pub fn open(
        terms: Terms,
        budget: Budget,
        attempt: AttemptId,
        deposit: u128,
        now: Timestamp,
    ) -> Result<Self, PayerError> {
        let mut payer = Self::new(terms, budget, PayerState::Opening, now);
        payer.may_deposit(deposit)?;
        let action = PayerAction::Open { deposit };
        payer.pending = Some(Attempt { id: attempt, action, since: now, tx: None });
        Ok(payer)
    }

    /// Takes up a channel whose record was lost, from what the escrow says (deep) and what the payee says.
    ///
    /// What we signed may be more than anybody tells us, so that [`Payer::most_taken`] is the whole deposit from now
    /// on. A voucher of ours is proof of what the payee holds at least. Its bare word is believed up to
    /// [`Budget::trust`] beyond what was settled; if it says more, or nothing, the channel is left.
    ///
    /// # Errors
    /// [`PayerError::Unsound`].
    pub fn recover(
        terms: Terms,
        budget: Budget,
        view: &View,
        told: Option<&Receipt>,
        shown: Option<&VerifiedVoucher>,
        now: Timestamp,
    ) -> Result<Self, PayerError> {
        if !view.is_sound() {
            return Err(PayerError::Unsound);
        }
        let shown = shown.filter(|voucher| voucher.is_of(&terms)).map(VerifiedVoucher::cumulative);
        let said = told.map(|receipt| receipt.accepted);
        let believed = said.filter(|said| {
            shown.is_some_and(|shown| *said <= shown) || *said <= view.settled.saturating_add(budget.trust)
        });
        let mut payer = Self::new(terms, budget, PayerState::Opening, now);
        payer.forgot = true;
        payer.signed = view.settled.max(shown.unwrap_or(0)).max(believed.unwrap_or(0));
        // What was got is forgotten too; it was not more than was signed.
        payer.told = told.map_or(view.settled, |receipt| receipt.spent).min(payer.signed);
        payer.used = Exact::atoms(payer.told);
        payer.see(view, true, now)?;
        if payer.state == PayerState::Open && believed.is_none() {
            payer.state = PayerState::Leaving { since: now, asked: None };
        }
        Ok(payer)
    }

    fn new(terms: Terms, budget: Budget, state: PayerState, now: Timestamp) -> Self {
        Self {
            version: 0,
            terms,
            budget,
            state,
            deposit: 0,
            settled: 0,
            signed: 0,
            forgot: false,
            used: Exact::ZERO,
            units: 0,
            told: 0,
            overclaim: None,
            pending: None,
            created: now,
            updated: now,
        }
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    pub fn state(&self) -> &PayerState {
        &self.state
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn created(&self) -> Timestamp {
        self.created
    }

    pub fn updated(&self) -> Timestamp {
        self.updated
    }

    /// The deposit, as deep as we ask for, in atoms.
    pub fn deposit(&self) -> u128 {
        self.deposit
    }

    /// What the payee took, as deep as we ask for, in atoms.
    pub fn settled(&self) -> u128 {
        self.settled
    }

    /// The highest amount that may be signed again without another commit: the high-water mark.
    pub fn signed(&self) -> u128 {
        self.signed
    }

    /// What we got by our own count, in whole atoms.
    pub fn used(&self) -> u128 {
        self.used.floor()
    }

    pub fn units(&self) -> u128 {
        self.units
    }

    pub fn overclaim(&self) -> Option<Overclaim> {
        self.overclaim
    }

    pub fn pending(&self) -> Option<&Attempt<PayerAction>> {
        self.pending.as_ref()
    }

    /// What is, or may already be, in the escrow, and is not the payee's yet, in atoms: what the channel ties up.
    pub fn locked(&self) -> u128 {
        let meant = match self.pending.as_ref().map(|p| p.action) {
            Some(PayerAction::Open { deposit }) => deposit,
            Some(PayerAction::TopUp { reaches, .. }) => reaches,
            _ => 0,
        };
        match self.state {
            PayerState::Finalized | PayerState::Void { .. } => 0,
            _ => self.deposit.max(meant).saturating_sub(self.settled),
        }
    }

    /// What the payee can ever take by what we signed, in atoms; all that there is, if we may have forgotten some.
    pub fn most_taken(&self) -> u128 {
        if self.forgot { self.deposit } else { self.signed }
    }

    /// What can be lost at most if the payee takes all that it can and serves no more, in atoms.
    pub fn most_lost(&self) -> u128 {
        match self.state {
            PayerState::Finalized => self.settled.saturating_sub(self.used()),
            _ => self.most_taken().saturating_sub(self.used()),
        }
    }

    /// The voucher to sign for what the payee needs, if it may be signed: the mark to commit by [`PayerEvent::Raised`].
    ///
    /// # Errors
    /// [`PayerError`]: [`PayerError::AboveDeposit`] asks for a top-up.
    pub fn answer(&self, need: &Need) -> Result<u128, PayerError> {
        let to = need.required.max(self.signed);
        self.may_sign(to)?;
        Ok(to)
    }

    /// The amount of the voucher that goes with a close: what the payee says that it served, if that can be, so that
    /// it need not take what we signed ahead.
    pub fn closing_amount(&self) -> u128 {
        let fair = if self.overclaim.is_some() { self.used() } else { self.told.max(self.used()) };
        fair.max(self.settled).min(self.signed)
    }

    /// What is to be done at `now`: the answer of a process that comes here, and of one restarted here.
    pub fn next(&self, now: Timestamp) -> PayerNext {
        if let Some(pending) = &self.pending {
            return PayerNext::Watch { attempt: pending.id };
        }
        let rest = PayerNext::Rest { wake: None };
        let until = |at: Timestamp, then| if now < at { PayerNext::Rest { wake: Some(at) } } else { then };
        match &self.state {
            PayerState::Opening | PayerState::Over { .. } => PayerNext::Look,
            PayerState::Open if self.overclaim.is_some() => PayerNext::BeginLeave,
            PayerState::Open | PayerState::Finalized | PayerState::Void { .. } => rest,
            // Nothing is left that could come back.
            PayerState::Leaving { .. } | PayerState::Requested { .. } if self.deposit == self.settled => rest,
            PayerState::Leaving { asked: None, .. } => PayerNext::AskClose { amount: self.closing_amount() },
            PayerState::Leaving { asked: Some(at), .. } => {
                until(at.plus(self.budget.patience), PayerNext::RequestClose)
            }
            PayerState::Requested { at, .. } => {
                until(at.plus(self.terms.grace).plus(self.budget.slack), PayerNext::Withdraw)
            }
        }
    }

    /// Moves the channel by one event.
    ///
    /// # Errors
    /// [`PayerError`] if it does not fit or is not allowed. Nothing is changed then.
    pub fn step(&self, event: PayerEvent, now: Timestamp) -> Result<PayerStep, PayerError> {
        let mut next = self.clone();
        next.apply(event, now)?;
        if next != *self {
            next.version += 1;
            next.updated = now;
        }
        Ok(PayerStep { expected: self.version, next })
    }

    fn apply(&mut self, event: PayerEvent, now: Timestamp) -> Result<(), PayerError> {
        use PayerState as S;
        let misfit = PayerError::DoesNotFit { event: event.name(), state: self.state.name() };
        match event {
            PayerEvent::Seen { view: Some(view), deep } => self.see(&view, deep, now),
            PayerEvent::Seen { view: None, deep } => {
                if !deep && matches!(self.state, S::Open | S::Leaving { .. } | S::Requested { .. }) {
                    self.state = S::Opening;
                }
                Ok(())
            }
            PayerEvent::OpenFailed(reason) if self.state == S::Opening && self.deposit == 0 => {
                self.pending = None;
                self.state = S::Void { reason };
                Ok(())
            }
            PayerEvent::Raised { to } => {
                // What was signed may be sent again. Only more is a decision.
                if to > self.signed {
                    self.may_sign(to)?;
                    self.signed = to;
                }
                Ok(())
            }
            PayerEvent::Received { price, units } => {
                if price.exceeds(&self.budget.most_price) {
                    return Err(PayerError::TooDear);
                }
                let units_now = self.units.checked_add(u128::from(units)).ok_or(MeterError::Overflow)?;
                self.used = self.used.plus(&price, units)?;
                self.units = units_now;
                Ok(())
            }
            PayerEvent::Told(receipt) => {
                self.told(&receipt);
                Ok(())
            }
            PayerEvent::Forgiven => {
                self.overclaim = None;
                Ok(())
            }
            PayerEvent::Intended { attempt, action } => {
                if let Some(pending) = &self.pending {
                    return Err(PayerError::Pending(pending.id));
                }
                let action = match (action, &self.state) {
                    // Spec: draft-evm-session-00, `topUp`: it also takes a forced close back.
                    (PayerAction::TopUp { amount, .. }, S::Open | S::Requested { .. }) => {
                        let most = self.budget.most_deposit;
                        let reaches =
                            self.deposit.checked_add(amount).ok_or(PayerError::OverBudget { most })?;
                        self.may_deposit(reaches)?;
                        PayerAction::TopUp { amount, reaches }
                    }
                    (PayerAction::RequestClose, S::Open | S::Leaving { .. }) => action,
                    (PayerAction::Withdraw, S::Requested { .. }) => action,
                    _ => return Err(misfit),
                };
                self.pending = Some(Attempt { id: attempt, action, since: now, tx: None });
                Ok(())
            }
            PayerEvent::Named { attempt, tx } => {
                let pending = self.pending.as_mut().filter(|p| p.id == attempt).ok_or(misfit)?;
                pending.tx = Some(tx);
                Ok(())
            }
            PayerEvent::Failed { attempt, reason } => {
                let failed = self.pending.take_if(|p| p.id == attempt).ok_or(misfit)?;
                let opens = matches!(failed.action, PayerAction::Open { .. });
                if opens && self.state == S::Opening && self.deposit == 0 {
                    self.state = S::Void { reason };
                }
                Ok(())
            }
            PayerEvent::LeaveDecided if self.state == S::Open => {
                self.state = S::Leaving { since: now, asked: None };
                Ok(())
            }
            PayerEvent::CloseAsked => match &self.state {
                S::Leaving { since, asked: None } => {
                    self.state = S::Leaving { since: *since, asked: Some(now) };
                    Ok(())
                }
                _ => Err(misfit),
            },
            PayerEvent::OpenFailed(_) | PayerEvent::LeaveDecided => Err(misfit),
        }
    }

    fn may_deposit(&self, deposit: u128) -> Result<(), PayerError> {
        let most = self.budget.most_deposit;
        if deposit > most { Err(PayerError::OverBudget { most }) } else { Ok(()) }
    }

    fn may_sign(&self, to: u128) -> Result<(), PayerError> {
        match &self.state {
            PayerState::Open => {}
            PayerState::Opening => return Err(PayerError::NotConfirmed),
            state => return Err(PayerError::DoesNotFit { event: "raised", state: state.name() }),
        }
        if let Some(overclaim) = self.overclaim {
            return Err(PayerError::Disputed(overclaim));
        }
        let most = self.used().saturating_add(self.budget.ahead);
        if to > most {
            return Err(PayerError::TooFarAhead { most });
        }
        if to > self.deposit {
            return Err(PayerError::AboveDeposit(to - self.deposit));
        }
        Ok(())
    }

    fn told(&mut self, receipt: &Receipt) {
        let ours = self.used().saturating_add(self.budget.ahead);
        if receipt.accepted > self.signed {
            self.overclaim = Some(Overclaim::Accepted { said: receipt.accepted, signed: self.signed });
        } else if receipt.spent > ours {
            self.overclaim = Some(Overclaim::Spent { said: receipt.spent, ours: self.used() });
        } else {
            // Receipts may overtake each other.
            self.told = self.told.max(receipt.spent);
        }
    }

    // ---- What the chain says.

    fn see(&mut self, view: &View, deep: bool, now: Timestamp) -> Result<(), PayerError> {
        if !view.is_sound() {
            return Err(PayerError::Unsound);
        }
        if self.state == PayerState::Finalized {
            return Ok(());
        }
        let topped_up = view.deposit > self.deposit;
        if deep {
            // A node that lags behind what we know tells nothing.
            if view.deposit < self.deposit || view.settled < self.settled {
                return Ok(());
            }
            self.deposit = view.deposit;
            self.settled = view.settled;
            if view.settled > self.most_taken() {
                self.overclaim = Some(Overclaim::Taken { settled: view.settled, signed: self.signed });
            }
            self.pending.take_if(|pending| pending.action.shows_in(view));
            if view.finalized {
                self.pending = None;
                self.state = PayerState::Finalized;
                return Ok(());
            }
            if matches!(self.state, PayerState::Opening | PayerState::Void { .. }) {
                self.state = PayerState::Open;
            }
        }
        self.look(view, topped_up, now);
        Ok(())
    }

    fn look(&mut self, view: &View, topped_up: bool, now: Timestamp) {
        use PayerState as S;
        let noticed = match &self.state {
            S::Open | S::Leaving { .. } => None,
            S::Requested { block, .. } | S::Over { block } => Some(*block),
            S::Opening | S::Finalized | S::Void { .. } => return,
        };
        if noticed.is_some_and(|block| view.block < block) {
            return;
        }
        if view.finalized {
            self.state = S::Over { block: view.block };
        } else if let Some(at) = view.close_requested {
            self.state = S::Requested { at, block: view.block };
        } else if noticed.is_some() {
            let tops_up = matches!(self.pending.as_ref().map(|p| p.action), Some(PayerAction::TopUp { .. }));
            // A top-up of ours took it back; or a reorganization, and then the escrow is asked again.
            self.state = if topped_up || tops_up {
                S::Open
            } else {
                S::Leaving { since: now, asked: Some(Timestamp::from_millis(0)) }
            };
        }
    }
}

impl PayerAction {
    /// Whether the escrow's word, deep in the chain, shows that it was done.
    fn shows_in(self, view: &View) -> bool {
        match self {
            Self::Open { .. } => true,
            Self::TopUp { reaches, .. } => view.deposit >= reaches,
            Self::RequestClose => view.close_requested.is_some() || view.finalized,
            Self::Withdraw => view.finalized,
        }
    }
}

impl PayerState {
    /// The stable name that is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Leaving { .. } => "leaving",
            Self::Requested { .. } => "requested",
            Self::Over { .. } => "over",
            Self::Finalized => "finalized",
            Self::Void { .. } => "void",
        }
    }
}

impl PayerEvent {
    /// The stable name that is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Seen { deep: false, .. } => "seen",
            Self::Seen { deep: true, .. } => "seen_deep",
            Self::OpenFailed(_) => "open_failed",
            Self::Raised { .. } => "raised",
            Self::Received { .. } => "received",
            Self::Told(_) => "told",
            Self::Forgiven => "forgiven",
            Self::Intended { .. } => "intended",
            Self::Named { .. } => "named",
            Self::Failed { .. } => "failed",
            Self::LeaveDecided => "leave_decided",
            Self::CloseAsked => "close_asked",
        }
    }
}
