use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farthing_channel::{
    BadSignature, ChannelId, Limits, Payee, PayeeError, PayeeEvent, PayeeState, PayeeStep, Problem, Proven,
    Receipt, Refusal, Shown, VerifiedVoucher,
};
use farthing_evm::Revert;
use farthing_payment::{Reason, Slot, TxRef};
use farthing_primitives::{Address, AssetId, AttemptId, Network, PaymentId, TenantId, Timestamp};
use futures_channel::{mpsc, oneshot};
use futures_util::future::select;
use futures_util::lock::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::desk::Desk;
use super::{ChannelCommit, ChannelFilter, ChannelStore, keeper};
use crate::clock::Clock;
use crate::live::lock;
use crate::{StoreError, StoredResponse, World};

/// How often a change is tried again that somebody else's came before: in one process that is a change whose caller
/// went away while it was being written.
const TRIES: usize = 4;
/// How many outcomes of transactions a channel's place remembers, for those who wait for them.
const OUTCOMES: usize = 8;

/// What a till may do and for how long.
#[derive(Debug, Clone)]
pub struct TillConfig {
    /// Keccak-256 of the code of the escrows that are trusted with deposits; any other is refused.
    pub escrow_code: Vec<[u8; 32]>,
    /// How long an open, a top-up or a close is kept waiting for the chain.
    pub answer_within: Duration,
    /// How long the answer of a charge is kept for whom it did not reach.
    pub answer_ttl: Duration,
    /// The longest answer that is kept, in bytes of its body; a call with a longer one is not charged.
    pub max_answer: usize,
    /// How many channels are kept in memory while nobody uses them.
    pub max_places: usize,
    /// How many channels are attended to at once.
    pub at_once: usize,
    /// From which depth on no reorganization is expected: until then our transactions are sent again if their blocks go
    /// away.
    pub beyond_reorgs: u64,
}

impl Default for TillConfig {
    fn default() -> Self {
        Self {
            escrow_code: Vec::new(),
            answer_within: Duration::from_secs(30),
            answer_ttl: Duration::from_secs(600),
            max_answer: 1 << 20,
            max_places: 10_000,
            at_once: 16,
            beyond_reorgs: 32,
        }
    }
}

/// Whose route a request is for. A channel pays for the routes of one tenant and payee, in one asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seller {
    pub tenant: TenantId,
    pub payee: Address,
    pub asset: AssetId,
}

/// Why the till did not do it. The channel is as it was, unless its store cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TillError {
    #[error(transparent)]
    Signature(#[from] BadSignature),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("the channel's id is not that of what it is said to be made of")]
    OtherChannel,
    #[error("the escrow is none that is trusted here")]
    UntrustedEscrow,
    #[error("the deposit is below {least}")]
    DepositTooSmall { least: u128 },
    #[error("the transaction does nothing for this channel")]
    OtherTransaction,
    #[error("the escrow has paid out of the channel by vouchers that are not known here")]
    UsedElsewhere,
    #[error("the escrow refuses: {0}")]
    Reverted(Revert),
    #[error("the transaction moved nothing: {0}")]
    NotDone(Reason),
    #[error("the request is under way as {0}")]
    UnderWay(PaymentId),
    #[error("the request was served and paid as {0}, and its answer is not kept any more")]
    AnswerGone(PaymentId),
    #[error("the answer is longer than what is kept")]
    AnswerTooLong,
    #[error("more units than the request could use")]
    TooManyUnits,
    #[error("there is no such charge under way")]
    NotRunning,
    /// Nothing is wrong with what was asked; ask again later.
    #[error("not now: {0}")]
    Unavailable(&'static str),
}

impl TillError {
    /// The problem type that a peer is told; `None` where none of the session's fits.
    ///
    /// Spec: draft-evm-session-00, "Error Responses".
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::Signature(why) => Some(why.problem()),
            Self::Refused(refusal) => refusal.problem(),
            Self::OtherChannel | Self::UntrustedEscrow | Self::UsedElsewhere => {
                Some(Problem::ChannelNotFound)
            }
            Self::DepositTooSmall { .. } => Some(Problem::InsufficientBalance),
            Self::Reverted(why) => Some(match why {
                Revert::Named("AmountExceedsDeposit") => Problem::AmountExceedsDeposit,
                Revert::Named("ChannelNotFound") => Problem::ChannelNotFound,
                Revert::Named("ChannelFinalized") => Problem::ChannelFinalized,
                Revert::Named("InvalidSignature") => Problem::InvalidSignature,
                Revert::Named("TransferFailed" | "InexactDeposit" | "ERC20InsufficientBalance") => {
                    Problem::InsufficientBalance
                }
                _ => Problem::TransactionReverted,
            }),
            Self::NotDone(_) | Self::OtherTransaction => Some(Problem::TransactionReverted),
            Self::Malformed(_)
            | Self::UnderWay(_)
            | Self::AnswerGone(_)
            | Self::AnswerTooLong
            | Self::TooManyUnits
            | Self::NotRunning
            | Self::Unavailable(_) => None,
        }
    }
}

impl From<PayeeError> for TillError {
    fn from(error: PayeeError) -> Self {
        match error {
            PayeeError::Refused(refusal) => Self::Refused(refusal),
            PayeeError::OtherChannel => Self::Signature(BadSignature::OtherChannel),
            PayeeError::UnderWay(charge) => Self::UnderWay(charge),
            PayeeError::NotRunning(_) => Self::NotRunning,
            PayeeError::TooManyUnits => Self::TooManyUnits,
            PayeeError::DoesNotFit { .. } => Self::Unavailable("channel_busy"),
            PayeeError::Unsound => Self::Unavailable("chain"),
            PayeeError::Meter(_) | PayeeError::Overflow => Self::Malformed("the amounts do not fit"),
            PayeeError::TooManyRounds => Self::Unavailable("channel_worn"),
        }
    }
}

impl From<StoreError> for TillError {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a channel's change could not be made durable, or not be read");
        Self::Unavailable("store")
    }
}

/// The seller's side of voucher channels: the only driver of [`Payee`]. Cheap to clone; all clones share one truth.
///
/// Each channel has one place in this process, where its changes wait for each other; beyond the process the version of
/// its record decides. What a call returns is durable. Work on the chain belongs to the till's own task, the keeper:
/// a caller may go away at any time.
#[derive(Clone)]
pub struct Till(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub store: Arc<dyn ChannelStore>,
    pub world: Arc<dyn World>,
    pub clock: Clock,
    pub desks: HashMap<Network, Desk>,
    pub config: TillConfig,
    places: Mutex<HashMap<ChannelId, Arc<Place>>>,
    pub agenda: Mutex<BTreeMap<ChannelId, Duration>>,
    pokes: Mutex<mpsc::Sender<()>>,
    /// When answers are erased next.
    pub erase_at: Mutex<Duration>,
}

impl std::fmt::Debug for Till {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Till({} chains)", self.0.desks.len())
    }
}

/// What became of a transaction of ours.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub attempt: AttemptId,
    pub tx: Option<TxRef>,
    pub failed: Option<Reason>,
}

/// The right to change one channel, and the channel as it is in the store, as far as this process knows.
pub(super) type Held = OwnedMutexGuard<Option<Payee>>;

/// Where the changes of one channel wait for each other.
#[derive(Default)]
pub(super) struct Place {
    payee: Arc<AsyncMutex<Option<Payee>>>,
    /// Charges that this process runs. Whatever else is running was left by a former one.
    pub mine: Mutex<HashSet<PaymentId>>,
    waiters: Mutex<Vec<oneshot::Sender<()>>>,
    outcomes: Mutex<Vec<Outcome>>,
    /// When the escrow was last looked at.
    pub looked: Mutex<Option<Duration>>,
    /// How often in a row a transaction could not be made, or did nothing, and until when to leave it alone.
    pub failures: Mutex<(u32, Duration)>,
}

/// One change: a step, and what belongs into the same commit.
pub(super) struct Change {
    pub step: PayeeStep,
    pub answer: Option<(PaymentId, StoredResponse)>,
    pub slots: Vec<(Option<u64>, Slot)>,
}

impl From<PayeeStep> for Change {
    fn from(step: PayeeStep) -> Self {
        Self { step, answer: None, slots: Vec::new() }
    }
}

impl Till {
    /// Takes up what a former process left, and begins to keep the channels. Once, before anything is served.
    ///
    /// # Errors
    /// If the store cannot say which channels there are. Nothing is kept then.
    pub async fn start(
        store: Arc<dyn ChannelStore>,
        world: Arc<dyn World>,
        desks: HashMap<Network, Desk>,
        config: TillConfig,
    ) -> Result<Self, StoreError> {
        let (pokes, poked) = mpsc::channel(1);
        let till = Self(Arc::new(Inner {
            clock: Clock::new(world.clone()),
            store,
            world: world.clone(),
            desks,
            config,
            places: Mutex::default(),
            agenda: Mutex::default(),
            pokes: Mutex::new(pokes),
            erase_at: Mutex::default(),
        }));
        till.take_up().await?;
        let keeper = Arc::downgrade(&till.0);
        world.spawn(Box::pin(keeper::keep(keeper, poked)));
        Ok(till)
    }

    /// Everything that something may be left to do for is attended to at once.
    async fn take_up(&self) -> Result<(), StoreError> {
        let mut filter = ChannelFilter { at_work: true, ..ChannelFilter::default() };
        loop {
            let page = self.0.store.channels(filter.clone()).await?;
            let Some(last) = page.last().map(|payee| payee.terms().id) else { break };
            let mut agenda = lock(&self.0.agenda);
            agenda.extend(page.iter().map(|payee| (payee.terms().id, Duration::ZERO)));
            drop(agenda);
            filter.after = Some(last);
        }
        // Channels that are over may still have transactions that a reorganization could undo.
        for (network, desk) in &self.0.desks {
            let relayer = desk.relayer().address();
            let mut from = 0;
            loop {
                let page = self.0.store.live_slots(network, &relayer, from, 0).await?;
                let Some(last) = page.last().map(|stored| stored.slot.nonce) else { break };
                for book in page.iter().filter_map(|stored| stored.slot.payments.first()) {
                    if let Some(payee) = self.0.store.channel_of_book(*book).await? {
                        lock(&self.0.agenda).insert(payee.terms().id, Duration::ZERO);
                    }
                }
                from = last.saturating_add(1);
            }
        }
        Ok(())
    }

    pub fn store(&self) -> &Arc<dyn ChannelStore> {
        &self.0.store
    }

    /// A channel of this seller, as it is. For our own pages: who asks from outside needs a [`Till::receipt`].
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is none.
    pub async fn channel(&self, seller: &Seller, id: ChannelId) -> Result<Payee, TillError> {
        let payee = self.snapshot(id).await?;
        seller.owns(&payee)?;
        Ok(payee)
    }

    /// Accepts a voucher.
    ///
    /// # Errors
    /// Everything that [`Payee`] refuses; without an amount, unless the signature was good.
    ///
    /// Spec: draft-evm-session-00, "Voucher Verification".
    pub async fn voucher(&self, seller: &Seller, shown: &Shown<'_>) -> Result<Receipt, TillError> {
        let voucher = self.verified(seller, shown).await?;
        let accept = |payee: &Payee, now| {
            let step = payee.step(PayeeEvent::Voucher(voucher.clone()), now)?;
            Ok((step.into(), ()))
        };
        let (payee, ()) = self.change(shown.channel, accept).await?;
        Ok(payee.receipt(&voucher.proven())?)
    }

    /// What the bearer of this voucher may know. The voucher is checked, and not accepted.
    ///
    /// # Errors
    /// As [`Till::voucher`], for what concerns the signature.
    pub async fn receipt(&self, seller: &Seller, shown: &Shown<'_>) -> Result<Receipt, TillError> {
        let proven = self.verified(seller, shown).await?.proven();
        self.receipt_of(shown.channel, &proven).await
    }

    pub(super) async fn receipt_of(&self, id: ChannelId, proven: &Proven) -> Result<Receipt, TillError> {
        Ok(self.snapshot(id).await?.receipt(proven)?)
    }

    /// The operator changed what is risked with a channel.
    pub async fn limit(&self, seller: &Seller, id: ChannelId, limits: Limits) -> Result<(), TillError> {
        self.channel(seller, id).await?;
        self.change(id, |payee, now| Ok((payee.step(PayeeEvent::Limited(limits), now)?.into(), ()))).await?;
        Ok(())
    }

    // ---- One place for each channel.

    /// Checks a voucher against the terms of its channel, whatever it is for.
    pub(super) async fn verified(
        &self,
        seller: &Seller,
        shown: &Shown<'_>,
    ) -> Result<VerifiedVoucher, TillError> {
        let payee = self.channel(seller, shown.channel).await?;
        let desk = self.desk(payee.terms().asset.network())?;
        Ok(VerifiedVoucher::check(shown, payee.terms(), desk)?)
    }

    pub(super) fn desk(&self, network: &Network) -> Result<&Desk, TillError> {
        self.0.desks.get(network).ok_or(TillError::Unavailable("network"))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.stamp()
    }

    pub(super) fn place(&self, id: ChannelId) -> Arc<Place> {
        let mut places = lock(&self.0.places);
        if places.len() >= self.0.config.max_places && !places.contains_key(&id) {
            // Who is in use stays: somebody holds it, or it has charges that only this process knows to be running.
            places.retain(|_, place| Arc::strong_count(place) > 1 || !lock(&place.mine).is_empty());
        }
        places.entry(id).or_default().clone()
    }

    /// The channel as it is in the store.
    pub(super) async fn snapshot(&self, id: ChannelId) -> Result<Payee, TillError> {
        let place = self.place(id);
        let mut held = place.hold().await;
        self.loaded(&place, &mut held, id).await
    }

    /// Reads it, if need be, and says that charges came to nothing which a former process had begun.
    async fn loaded(&self, place: &Place, held: &mut Held, id: ChannelId) -> Result<Payee, TillError> {
        if let Some(payee) = held.as_ref() {
            return Ok(payee.clone());
        }
        for _ in 0..TRIES {
            let payee = self.0.store.channel(id).await?.ok_or(Refusal::NotFound)?;
            let left: Vec<PaymentId> = {
                let mine = lock(&place.mine);
                payee.running().map(|charge| charge.id).filter(|id| !mine.contains(id)).collect()
            };
            let mut charges = left.into_iter();
            let Some(first) = charges.next() else {
                **held = Some(payee.clone());
                return Ok(payee);
            };
            let now = self.now();
            let begin = payee.step(PayeeEvent::Lost { charge: first }, now)?;
            let step = charges.try_fold(begin, |step, charge| step.and(PayeeEvent::Lost { charge }, now))?;
            let next = step.next.clone();
            match self.0.store.commit_channel(ChannelCommit::new(step)).await {
                Ok(()) => {
                    **held = Some(next.clone());
                    return Ok(next);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(TillError::Unavailable("store"))
    }

    /// Makes one change durable, and tells those who wait for any.
    ///
    /// What `decide` says is for the channel as it is; it may be asked again if somebody else's change came first.
    pub(super) async fn change<T>(
        &self,
        id: ChannelId,
        mut decide: impl FnMut(&Payee, Timestamp) -> Result<(Change, T), TillError>,
    ) -> Result<(Payee, T), TillError> {
        let place = self.place(id);
        let mut held = place.hold().await;
        for _ in 0..TRIES {
            let payee = self.loaded(&place, &mut held, id).await?;
            let now = self.now();
            let (change, told) = decide(&payee, now)?;
            if change.step.is_empty() && change.slots.is_empty() && change.answer.is_none() {
                return Ok((payee, told));
            }
            let (till, at) = (self.clone(), place.clone());
            let unwritten = cfg!(mutant = "voucher").then(|| change.step.next.clone());
            let write = async move {
                let made = till.commit(&at, &mut held, &payee, change).await;
                Ok((held, made))
            };
            if let Some(next) = unwritten {
                self.0.world.spawn(Box::pin(async move { drop(write.await) }));
                return Ok((next, told));
            }
            let (back, made) = self.apart(write).await?;
            match made? {
                Some(next) => return Ok((next, told)),
                None => held = back,
            }
        }
        Err(TillError::Unavailable("store"))
    }

    /// Does this to its end, whatever becomes of who asked for it: a caller that goes away must not leave a change
    /// half made, with a channel in memory that is older than the one in the store.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, TillError>> + Send + 'static,
    ) -> Result<T, TillError> {
        let (tell, told) = oneshot::channel();
        self.0.world.spawn(Box::pin(async move {
            // Nobody waits for it any more, then.
            let _ = tell.send(work.await);
        }));
        told.await.unwrap_or(Err(TillError::Unavailable("stopping")))
    }

    /// Returns the channel as it is durable then; `None` if somebody else's change came first.
    async fn commit(
        &self,
        place: &Place,
        held: &mut Held,
        before: &Payee,
        change: Change,
    ) -> Result<Option<Payee>, TillError> {
        let Change { step, answer, slots } = change;
        // Until it is known to be durable, nothing is known: whoever comes next reads the store.
        **held = None;
        let next = step.next.clone();
        match self.0.store.commit_channel(ChannelCommit { step, answer, slots }).await {
            Ok(()) => {}
            Err(StoreError::Conflict) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        **held = Some(next.clone());
        place.wake();
        let now = self.now();
        // What is to be done is another thing now, or may be done now.
        let (was, is) = (before.next(now), next.next(now));
        if std::mem::discriminant(&was) != std::mem::discriminant(&is)
            || next.running().count() < before.running().count() && !matches!(next.state(), PayeeState::Open)
        {
            self.attend_soon(next.terms().id);
        }
        Ok(Some(next))
    }

    /// Puts a new channel in its place, while nobody else can.
    pub(super) async fn occupy(
        &self,
        place: &Place,
        id: ChannelId,
    ) -> Result<(Held, Option<Payee>), TillError> {
        let mut held = place.hold().await;
        match self.loaded(place, &mut held, id).await {
            Ok(payee) => Ok((held, Some(payee))),
            Err(TillError::Refused(Refusal::NotFound)) => Ok((held, None)),
            Err(error) => Err(error),
        }
    }

    /// The keeper looks after this channel as soon as it can.
    pub(super) fn attend_soon(&self, id: ChannelId) {
        lock(&self.0.agenda).insert(id, Duration::ZERO);
        // A full channel holds a poke already.
        let _ = lock(&self.0.pokes).try_send(());
    }

    /// Waits until the channel is as wanted, or for so long; `None` then.
    pub(super) async fn until<T>(
        &self,
        id: ChannelId,
        patience: Duration,
        wanted: impl Fn(&Payee, &Place) -> Option<T>,
    ) -> Result<Option<T>, TillError> {
        let place = self.place(id);
        let end = self.0.world.monotonic().saturating_add(patience);
        loop {
            let woken = place.waiter();
            let payee = self.snapshot(id).await?;
            if let Some(found) = wanted(&payee, &place) {
                return Ok(Some(found));
            }
            let rest = end.saturating_sub(self.0.world.monotonic());
            if rest.is_zero() {
                return Ok(None);
            }
            let _ = select(woken, self.0.world.sleep(rest)).await;
        }
    }
}

impl Seller {
    /// Nobody learns of channels that pay somebody else.
    pub(super) fn owns(&self, payee: &Payee) -> Result<(), TillError> {
        let terms = payee.terms();
        let ours = *payee.tenant() == self.tenant && terms.payee == self.payee && terms.asset == self.asset;
        if ours { Ok(()) } else { Err(Refusal::NotFound.into()) }
    }
}

impl Place {
    async fn hold(&self) -> Held {
        self.payee.clone().lock_owned().await
    }

    fn waiter(&self) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        let mut waiters = lock(&self.waiters);
        waiters.retain(|waiter| !waiter.is_canceled());
        waiters.push(wake);
        woken
    }

    pub fn wake(&self) {
        for waiter in lock(&self.waiters).drain(..) {
            // Whoever does not wait any more needs no news.
            let _ = waiter.send(());
        }
    }

    pub fn remember(&self, outcome: Outcome) {
        let mut outcomes = lock(&self.outcomes);
        outcomes.retain(|known| known.attempt != outcome.attempt);
        let surplus = (outcomes.len() + 1).saturating_sub(OUTCOMES);
        outcomes.drain(..surplus);
        outcomes.push(outcome);
    }

    pub fn outcome(&self, attempt: AttemptId) -> Option<Outcome> {
        lock(&self.outcomes).iter().find(|outcome| outcome.attempt == attempt).cloned()
    }
}
