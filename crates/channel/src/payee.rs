use std::collections::BTreeMap;
use std::time::Duration;

use farthing_payment::{Proof, Reason, TxRef};
use farthing_primitives::{AttemptId, Money, PaymentId, RequestHash, TenantId, Timestamp};

use crate::{
    Attempt, BadSignature, Capture, Exact, MeterError, Price, Proven, Refusal, Terms, VerifiedVoucher, View,
    Voucher,
};

/// How much a payee risks, and when it acts by itself. The operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What may be served beyond what vouchers cover, in atoms. It is lost if the payer stops paying.
    pub credit: u128,
    /// Settle once that much is owed and not settled, in atoms; `None`: only when the channel is closed.
    pub most_unsettled: Option<u128>,
    /// The least deposit that a channel is opened for, in atoms.
    pub min_deposit: u128,
    /// How long before the end of the grace period an answer to a forced close is late.
    pub margin: Duration,
    /// How many requests may be under way at once.
    pub most_in_flight: u16,
    /// How long requests under way may still take once the channel is being closed.
    pub drain: Duration,
    /// Close a channel that nobody used for so long, if there is something to collect; `None`: leave it open.
    pub idle: Option<Duration>,
}

impl Limits {
    /// The shortest grace period of an escrow that may be trusted with vouchers.
    ///
    /// Spec: draft-evm-session-00, "Forced Close".
    pub const MIN_GRACE: Duration = Duration::from_secs(600);

    /// How often the channel has to be looked at so that a forced close is seen with time to answer it, however the
    /// looks fall: a third of what there is, so that two of them may fail.
    pub fn look_every(&self, terms: &Terms) -> Duration {
        terms.grace.saturating_sub(self.margin) / 3
    }
}

/// A request that is paid from the channel, or was. Each is a row of its own in the store, unique by its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Names its sale in the books.
    pub id: PaymentId,
    /// What was asked for, or the key that its client gave it. It is charged once, however often it is asked.
    pub request: RequestHash,
    pub price: Price,
    /// What it may use at most; `None` is a stream, which is paid as it goes.
    pub most_units: Option<u64>,
    pub units: u128,
    /// What it was charged, in atoms. All charges together are what the channel spent.
    pub atoms: u128,
    pub state: ChargeState,
    pub started: Timestamp,
}

/// Where a charge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChargeState {
    Running,
    /// Charged, and its answer durable, or streamed.
    Served,
    /// A call whose answer never was durable. Nothing was charged, and nothing may be delivered.
    Lost,
    /// A stream that was cut off: by another, by a close, or by a crash. What left of it is charged.
    Ended,
}

/// What to do with a request that was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Wait for the outcome, or say that it is under way.
    Wait,
    /// Give the stored answer: it is paid.
    GiveStored,
    /// Start it again, with a new charge in the place of this one: nothing was charged for it, or it was a stream.
    Start,
}

impl Charge {
    /// What to do with its request if it comes again.
    pub fn again(&self) -> Again {
        match (self.state, self.most_units) {
            (ChargeState::Running, _) => Again::Wait,
            (ChargeState::Served, Some(_)) => Again::GiveStored,
            (ChargeState::Served, None) | (ChargeState::Lost | ChargeState::Ended, _) => Again::Start,
        }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.most_units.is_none()
    }
}

/// A request that asks to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCharge {
    pub id: PaymentId,
    pub request: RequestHash,
    pub price: Price,
    /// What it may use at most; `None` is a stream, which is paid as it goes.
    pub most_units: Option<u64>,
    /// Who asks may use the channel.
    pub proven: Proven,
}

/// Where a payee's channel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayeeState {
    /// The deposit is not as deep in the chain as we ask for, or went away with its block.
    Opening,
    /// Vouchers are taken and requests served.
    Open,
    /// No voucher is taken and no request begun.
    Closing { why: Why, since: Timestamp },
    /// The escrow paid out, deep in the chain. It stays so whatever comes.
    Finalized,
    /// It never came to be.
    Void { reason: Reason },
}

/// Why a channel is being closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The payer asked us to.
    Asked,
    /// We think that it is time.
    Decided,
    /// The payer asked the escrow. What we do not claim before the grace period ends is gone.
    Forced { requested: Timestamp, block: u64 },
    /// The escrow paid out, in a block that is not deep yet.
    Over { block: u64 },
}

/// An amount to take from the escrow, and the voucher that allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Counted from the beginning of the channel, in atoms.
    pub amount: u128,
    /// `None`: nothing more than what was settled, for which the escrow asks no signature.
    pub voucher: Option<Voucher>,
}

/// A transaction that takes from the escrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taking {
    Settle(Claim),
    Close(Claim),
}

/// A transaction that brings a payer's deposit into the escrow, where we pay the chain's fee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Funding {
    Open,
    TopUp { amount: u128 },
}

/// What a transaction of ours does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayeeAction {
    Fund(Funding),
    Take(Taking),
}

/// One channel, as its payee knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payee {
    pub(crate) book: PaymentId,
    pub(crate) tenant: TenantId,
    pub(crate) version: u64,
    pub(crate) terms: Terms,
    pub(crate) limits: Limits,
    pub(crate) state: PayeeState,
    /// Both as deep in the chain as we ask for. They only grow.
    pub(crate) deposit: u128,
    pub(crate) settled: u128,
    /// The highest that was accepted.
    pub(crate) best: Option<Voucher>,
    /// What the payer signed for closing. It may be lower, if it signed ahead of what it used.
    pub(crate) last: Option<Voucher>,
    pub(crate) spent: Exact,
    pub(crate) units: u128,
    /// Those that are running.
    pub(crate) charges: BTreeMap<PaymentId, Charge>,
    pub(crate) stream: Option<PaymentId>,
    /// What the payer was told that it takes to go on; told once for each time that its vouchers are used up.
    pub(crate) need: Option<u128>,
    pub(crate) funding: Option<Attempt<Funding>>,
    pub(crate) taking: Option<Attempt<Taking>>,
    /// Counts what the chain did to the books; see [`farthing_ledger::TransferId`].
    pub(crate) round: u16,
    /// When it was last used.
    pub(crate) active: Timestamp,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// What a payee's channel begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayee {
    /// Names what the chain does to the books.
    pub book: PaymentId,
    pub tenant: TenantId,
    pub terms: Terms,
    pub limits: Limits,
}

/// Why a channel is not taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    #[error("the escrow's grace period of {grace:?} leaves too little time to answer a forced close")]
    GraceTooShort { grace: Duration },
    #[error("the voucher is for another channel")]
    OtherChannel,
}

/// Something that happened to a payee's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayeeEvent {
    /// The escrow was read: at the newest block, or (`deep`) at one that is as deep as we ask for. `None`: it has no
    /// such channel. Deposits, top-ups, settlements, forced closes and withdrawals all show like this.
    Seen { view: Option<View>, deep: bool },
    /// Proof that the channel does not come to be, e.g. a reverted transaction.
    OpenFailed(Reason),
    /// A voucher came.
    Voucher(VerifiedVoucher),
    /// A request is about to be served.
    Started(NewCharge),
    /// So many units of a stream are about to leave.
    Metered { charge: PaymentId, units: u64 },
    /// They may not: the vouchers are used up.
    Paused { charge: PaymentId, units: u64 },
    /// The complete answer of a call is part of this commit, and took so many units; or a stream came to its end.
    Served { charge: PaymentId, units: u64 },
    /// There will be no answer.
    Lost { charge: PaymentId },
    /// The payer asks us to close.
    CloseAsked(VerifiedVoucher),
    /// We think that it is time.
    CloseDecided,
    /// A transaction is part of this commit and will be visible to others after it.
    Attempted { attempt: AttemptId, action: PayeeAction },
    /// Its name, or its new one.
    Named { attempt: AttemptId, tx: TxRef },
    /// It did what it should, deep enough; and what the escrow says since.
    Worked { attempt: AttemptId, proof: Proof, view: View },
    /// It changed nothing and never will.
    Failed { attempt: AttemptId, reason: Reason, fee: Option<Money> },
    /// The operator changed the limits.
    Limited(Limits),
}

/// Why an event does not fit, or is refused. Nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayeeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{event} does not fit a channel that is {state}")]
    DoesNotFit { event: &'static str, state: &'static str },
    #[error("the proof is for another channel")]
    OtherChannel,
    #[error("this request is under way as {0}")]
    UnderWay(PaymentId),
    #[error("no running charge is named {0}")]
    NotRunning(PaymentId),
    #[error("more units than the request could use")]
    TooManyUnits,
    #[error("the escrow says that it paid out more than it got")]
    Unsound,
    #[error(transparent)]
    Meter(#[from] MeterError),
    #[error("the amounts of this channel do not fit 128 bits")]
    Overflow,
    #[error("the chain changed this channel too often for its books")]
    TooManyRounds,
}

/// What is to be done with a payee's channel: the answer of a process that comes here, and of one restarted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayeeNext {
    /// Find out whether the channel came to be: look at the escrow, and at the payer's transaction.
    WatchOpen,
    /// Find out what became of our transaction.
    Watch { attempt: AttemptId },
    /// Take what is owed.
    Settle(Claim),
    /// Commit [`PayeeEvent::CloseDecided`].
    BeginClose,
    /// Let what is running come to an end, until then.
    Drain { until: Timestamp },
    /// Close; in a block not later than `by`.
    Close { claim: Claim, by: Option<Timestamp> },
    /// Look at the escrow until what it says is deep.
    Look,
    /// Nothing, unless somebody asks, or it is that late. An open channel is looked at every [`Limits::look_every`].
    Rest { wake: Option<Timestamp> },
}

/// What the bearer of a proof is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub accepted: u128,
    pub spent: u128,
    pub units: u128,
    pub deposit: u128,
    pub settled: u128,
}

impl Payee {
    /// Takes up a channel that somebody says to have opened, or that we are about to open with the payer's signature.
    ///
    /// `initial` is the voucher that comes along. Nothing is served before the deposit is deep.
    ///
    /// # Errors
    /// [`BeginError`]. The escrow's word for its grace period is in the terms.
    pub fn begin(
        new: NewPayee,
        initial: Option<&VerifiedVoucher>,
        now: Timestamp,
    ) -> Result<Self, BeginError> {
        let NewPayee { book, tenant, terms, limits } = new;
        // Spec: draft-evm-session-00, "Forced Close": checked before a channel is accepted.
        if terms.grace < Limits::MIN_GRACE || limits.look_every(&terms).is_zero() {
            return Err(BeginError::GraceTooShort { grace: terms.grace });
        }
        if initial.is_some_and(|voucher| !voucher.is_of(&terms)) {
            return Err(BeginError::OtherChannel);
        }
        Ok(Self {
            book,
            tenant,
            version: 0,
            terms,
            limits,
            state: PayeeState::Opening,
            deposit: 0,
            settled: 0,
            best: initial.map(|voucher| voucher.voucher().clone()),
            last: None,
            spent: Exact::ZERO,
            units: 0,
            charges: BTreeMap::new(),
            stream: None,
            need: None,
            funding: None,
            taking: None,
            round: 0,
            active: now,
            created: now,
            updated: now,
        })
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn state(&self) -> &PayeeState {
        &self.state
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Names what the chain does to the books of this channel.
    pub fn book(&self) -> PaymentId {
        self.book
    }

    /// Counts commits; a commit names the one that it follows.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn created(&self) -> Timestamp {
        self.created
    }

    pub fn updated(&self) -> Timestamp {
        self.updated
    }

    /// The deposit, as deep as we ask for, in atoms. For our own books; who asks from outside needs a [`Receipt`].
    pub fn deposit(&self) -> u128 {
        self.deposit
    }

    /// What we took from the escrow, as deep as we ask for, in atoms.
    pub fn settled(&self) -> u128 {
        self.settled
    }

    /// What was charged, in whole atoms.
    pub fn spent(&self) -> u128 {
        self.spent.floor()
    }

    /// The same, to the fraction.
    pub fn spent_exactly(&self) -> Exact {
        self.spent
    }

    pub fn units(&self) -> u128 {
        self.units
    }

    /// The highest voucher that was accepted.
    pub fn best(&self) -> Option<&Voucher> {
        self.best.as_ref()
    }

    /// The voucher with which the payer asked to close, if it did.
    pub fn last(&self) -> Option<&Voucher> {
        self.last.as_ref()
    }

    /// What vouchers cover, in atoms.
    pub fn accepted(&self) -> u128 {
        self.best.as_ref().map_or(0, Voucher::cumulative)
    }

    /// The charges that are running. A process that starts does not know what became of them: it commits
    /// [`PayeeEvent::Lost`] for each, or [`PayeeEvent::Served`] if the answer is durable after all.
    pub fn running(&self) -> impl Iterator<Item = &Charge> {
        self.charges.values()
    }

    /// The stream that may go on.
    pub fn stream(&self) -> Option<PaymentId> {
        self.stream
    }

    /// Whether so many more units of a running stream are covered, with everything else that is set aside.
    pub fn covers_more(&self, stream: PaymentId, units: u64) -> bool {
        self.running_stream(stream).is_ok_and(|charge| self.covers(Some((&charge.price, units))).is_ok())
    }

    /// Our transactions on their way.
    pub fn attempts(&self) -> impl Iterator<Item = (AttemptId, PayeeAction, Option<&TxRef>)> {
        let funding = self.funding.iter().map(|a| (a.id, PayeeAction::Fund(a.action), a.tx.as_ref()));
        let taking = self.taking.iter().map(|a| (a.id, PayeeAction::Take(a.action.clone()), a.tx.as_ref()));
        funding.chain(taking)
    }

    /// What was served and no voucher covers, in atoms: lost if the payer stops here. Never above [`Limits::credit`].
    pub fn exposure(&self) -> u128 {
        self.spent().saturating_sub(self.accepted().max(self.settled))
    }

    /// What was taken beyond what was served, in atoms: owed back. It happens where an escrow pays out only what was
    /// signed, and the payer signed ahead and went away.
    pub fn owed_back(&self) -> u128 {
        self.settled.saturating_sub(self.spent())
    }

    /// What the bearer of a proof may know.
    ///
    /// # Errors
    /// [`BadSignature::OtherChannel`] if the proof is for another channel.
    pub fn receipt(&self, proven: &Proven) -> Result<Receipt, BadSignature> {
        if !proven.is_of(&self.terms) {
            return Err(BadSignature::OtherChannel);
        }
        Ok(Receipt {
            accepted: self.accepted(),
            spent: self.spent(),
            units: self.units,
            deposit: self.deposit,
            settled: self.settled,
        })
    }

    /// What to take when the channel is closed: max(spent, settled), if a voucher allows it.
    ///
    /// Where the escrow pays out only what was signed, it is the lowest voucher that covers that; if none does, the
    /// highest. Where nothing is owed it takes nothing, whatever was signed ahead.
    pub fn closing_claim(&self) -> Claim {
        let due = self.spent().max(self.settled);
        if due == self.settled {
            return self.claim(self.settled, None);
        }
        let usable = || self.best.iter().chain(&self.last).filter(|v| v.cumulative() <= self.deposit);
        let highest = usable().max_by_key(|v| v.cumulative());
        let (amount, voucher) = match self.terms.capture {
            Capture::UpTo => (highest.map_or(0, |v| v.cumulative().min(due)), highest),
            Capture::Signed => {
                let covering = usable().filter(|v| v.cumulative() >= due).min_by_key(|v| v.cumulative());
                let chosen = covering.or(highest);
                (chosen.map_or(0, Voucher::cumulative), chosen)
            }
        };
        self.claim(amount, voucher)
    }

    /// What to take while the channel stays open.
    pub fn settling_claim(&self) -> Claim {
        let best = self.best.as_ref().filter(|v| v.cumulative() <= self.deposit);
        let amount = best.map_or(0, |v| match self.terms.capture {
            Capture::UpTo => v.cumulative().min(self.spent()),
            Capture::Signed => v.cumulative(),
        });
        self.claim(amount, best)
    }

    fn claim(&self, amount: u128, voucher: Option<&Voucher>) -> Claim {
        // Spec: draft-evm-session-00, `close`: what is not above what was settled needs no signature.
        if amount <= self.settled {
            Claim { amount: self.settled, voucher: None }
        } else {
            Claim { amount, voucher: voucher.cloned() }
        }
    }

    /// Until when a forced close has to be answered by a block, if there is one.
    pub fn answer_by(&self) -> Option<Timestamp> {
        match &self.state {
            PayeeState::Closing { why: Why::Forced { requested, .. }, .. } => {
                Some(requested.plus(self.terms.grace).minus(self.limits.margin))
            }
            _ => None,
        }
    }

    /// What is to be done at `now`: the answer of a process that comes here, and of one restarted here.
    pub fn next(&self, now: Timestamp) -> PayeeNext {
        let watch = |attempt| PayeeNext::Watch { attempt };
        let taking = self.taking.as_ref().map(|a| a.id);
        let pending = self.pending();
        match &self.state {
            PayeeState::Opening => pending.map_or(PayeeNext::WatchOpen, watch),
            PayeeState::Finalized | PayeeState::Void { .. } => {
                pending.map_or(PayeeNext::Rest { wake: None }, watch)
            }
            PayeeState::Open => pending.map_or_else(|| self.next_open(now), watch),
            PayeeState::Closing { why, since } => {
                // A close that is on its way is what is to be done. A settlement holds it up, except a forced one.
                let forced = matches!(why, Why::Forced { .. });
                match taking.filter(|_| self.closes() || !forced) {
                    Some(attempt) => watch(attempt),
                    None if matches!(why, Why::Over { .. }) => PayeeNext::Look,
                    None => self.next_closing(*since, now),
                }
            }
        }
    }

    fn next_open(&self, now: Timestamp) -> PayeeNext {
        let owed = self.spent().saturating_sub(self.settled);
        let settling = self.settling_claim();
        let pays = settling.voucher.is_some();
        if pays && owed > 0 && self.limits.most_unsettled.is_some_and(|most| owed >= most) {
            return PayeeNext::Settle(settling);
        }
        // A channel whose changes hardly fit the books any more is not worth keeping.
        let worn = self.round >= Self::MOST_ROUNDS;
        let idle = self.limits.idle.filter(|_| owed > 0 && pays && self.charges.is_empty());
        let idle_at = idle.map(|idle| self.active.plus(idle));
        if worn || idle_at.is_some_and(|at| now >= at) {
            return PayeeNext::BeginClose;
        }
        PayeeNext::Rest { wake: idle_at }
    }

    fn next_closing(&self, since: Timestamp, now: Timestamp) -> PayeeNext {
        let by = self.answer_by();
        let drained = since.plus(self.limits.drain);
        let until = by.map_or(drained, |by| drained.min(by));
        if !self.charges.is_empty() && now < until {
            return PayeeNext::Drain { until };
        }
        let claim = self.closing_claim();
        match &self.state {
            // Nothing to lose by it: the payer withdraws what is its own anyway. But whatever we sent before is followed
            // to its end, a settlement as well as a deposit: else nobody would ever book what it cost.
            PayeeState::Closing { why: Why::Forced { requested, .. }, .. } if claim.voucher.is_none() => {
                let wake = Some(requested.plus(self.terms.grace)).filter(|at| *at > now);
                self.pending().map_or(PayeeNext::Rest { wake }, |attempt| PayeeNext::Watch { attempt })
            }
            _ => PayeeNext::Close { claim, by },
        }
    }

    /// The transaction of ours that is to be followed first: one that takes before one that brings.
    fn pending(&self) -> Option<AttemptId> {
        let taking = self.taking.as_ref().map(|a| a.id);
        taking.or(self.funding.as_ref().map(|a| a.id))
    }

    /// Whether a close of ours is on its way.
    pub(crate) fn closes(&self) -> bool {
        self.taking.as_ref().is_some_and(|a| matches!(a.action, Taking::Close(_)))
    }
}

impl PayeeState {
    /// The stable name that is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing { .. } => "closing",
            Self::Finalized => "finalized",
            Self::Void { .. } => "void",
        }
    }
}

impl PayeeEvent {
    /// The stable name that is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Seen { deep: false, .. } => "seen",
            Self::Seen { deep: true, .. } => "seen_deep",
            Self::OpenFailed(_) => "open_failed",
            Self::Voucher(_) => "voucher",
            Self::Started(_) => "started",
            Self::Metered { .. } => "metered",
            Self::Paused { .. } => "paused",
            Self::Served { .. } => "served",
            Self::Lost { .. } => "lost",
            Self::CloseAsked(_) => "close_asked",
            Self::CloseDecided => "close_decided",
            Self::Attempted { .. } => "attempted",
            Self::Named { .. } => "named",
            Self::Worked { .. } => "worked",
            Self::Failed { .. } => "failed",
            Self::Limited(_) => "limited",
        }
    }
}
