use async_trait::async_trait;
use farthing_channel::{ChannelId, Charge, Payee, PayeeState, PayeeStep};
use farthing_payment::Slot;
use farthing_primitives::{PaymentId, RequestHash, TenantId, Timestamp};

use crate::{Store, StoreError, StoredResponse};

/// How many answers are kept for one channel. The oldest make room, and what they answered is paid all the same.
pub const MAX_KEPT_ANSWERS: usize = 256;

/// The beginning of a channel: one atomic insert, with the transaction of ours that brings the deposit if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelBegin {
    pub payee: Payee,
    pub slots: Vec<(Option<u64>, Slot)>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is durable, and ours.
    New,
    /// There is such a channel, of whichever tenant: a channel's id says its chain and escrow, so there is one.
    Known(Box<Payee>),
}

/// One atomic change of a channel. All of it is durable when the call returns, or none of it ever will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelCommit {
    pub step: PayeeStep,
    /// The answer of a charge that this commit ends.
    pub answer: Option<(PaymentId, StoredResponse)>,
    /// Slots that this change makes or moves, as in [`crate::Commit::slots`].
    pub slots: Vec<(Option<u64>, Slot)>,
}

impl ChannelCommit {
    /// A change of the channel, its charges and its books alone.
    pub fn new(step: PayeeStep) -> Self {
        Self { step, answer: None, slots: Vec::new() }
    }
}

/// Which channels to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelFilter {
    pub tenant: Option<TenantId>,
    /// Only those that something may be left to do for ([`is_at_work`]).
    pub at_work: bool,
    /// Only those that come after this one in the order of ids.
    pub after: Option<ChannelId>,
    /// At most so many; the store caps it at 1000.
    pub limit: usize,
}

/// The durable truth of channels, beside that of payments: one ledger, one set of slots.
#[async_trait]
pub trait ChannelStore: Store {
    async fn begin_channel(&self, begin: ChannelBegin) -> Result<Begun, StoreError>;

    /// Makes one step durable, if the channel is at the version that the step names.
    ///
    /// A charge is inserted by its id, or overwritten. A new one takes the place of another of the same request only if
    /// that one may be started again ([`Charge::again`]).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the channel, a charge or a slot is not as the step has it.
    async fn commit_channel(&self, commit: ChannelCommit) -> Result<(), StoreError>;

    async fn channel(&self, id: ChannelId) -> Result<Option<Payee>, StoreError>;

    /// The channel whose books have this name: what a slot names that was not made for a payment.
    async fn channel_of_book(&self, book: PaymentId) -> Result<Option<Payee>, StoreError>;

    /// In the order of their ids.
    async fn channels(&self, filter: ChannelFilter) -> Result<Vec<Payee>, StoreError>;

    /// The charge that stands for this request now.
    async fn charge(&self, channel: ChannelId, request: RequestHash) -> Result<Option<Charge>, StoreError>;

    /// All charges of a channel, also those whose request was started again, in the order of their ids.
    async fn charges(
        &self,
        channel: ChannelId,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<Vec<Charge>, StoreError>;

    /// The answer of a charge, as long as it is kept.
    async fn charge_answer(&self, charge: PaymentId) -> Result<Option<StoredResponse>, StoreError>;

    /// Erases the answers that were stored before `before`, in small commits; returns how many.
    async fn erase_charge_answers(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// Whether something may be left to do for a channel by itself. A void one may come to be after all, but somebody has to
/// say so.
pub fn is_at_work(payee: &Payee) -> bool {
    let over = matches!(payee.state(), PayeeState::Finalized | PayeeState::Void { .. });
    !over || payee.attempts().next().is_some()
}
