use std::time::Duration;

use async_trait::async_trait;
use farthing_ledger::{Account, Balance, Entry, Phase, TransferId};
use farthing_payment::{ConsumptionKey, Payment, Slot, Step};
use farthing_primitives::{Address, AssetId, Money, Network, PaymentId, SlotId, TenantId, Timestamp};

use crate::StoredResponse;

/// A slot as the store knows it, with the version that the next change must name: a new slot has version 0, and every
/// change adds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSlot {
    pub version: u64,
    pub slot: Slot,
}

/// Until how much a payee may be owed for what was served and is not settled, in atoms. Zero means never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposureLimit {
    /// For one payer, in this asset, to this payee.
    pub per_payer: u128,
    /// For all payers together, in this asset, to this payee.
    pub total: u128,
}

/// The beginning of a payment: one atomic insert of the payment, its claim and its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub payment: Payment,
    pub entries: Vec<Entry>,
    /// Checked in the same commit, over all payments of the tenant that are exposed
    /// ([`Payment::is_exposed`]), this one included.
    pub exposure: Option<ExposureLimit>,
    /// What the buyer calls it. Unique in the tenant among payments that hold their key, in the same commit.
    pub name: Option<String>,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is durable, and ours.
    New,
    /// The consumption key belongs to this payment already.
    Taken(Box<Payment>),
    /// The key is free, and this payment has the name already.
    Named(Box<Payment>),
    /// It would expose the payee to more than the limit.
    OverExposed,
}

/// One atomic change. All of it is durable when the call returns, or none of it ever will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub step: Step,
    /// What happened, for the payment's history.
    pub event: &'static str,
    /// The upstream's answer, if this commit stores it.
    pub response: Option<StoredResponse>,
    /// Slots that this change makes or moves: the version that each must have in the store (`None`: it is new).
    pub slots: Vec<(Option<u64>, Slot)>,
    /// What this commit does to the transfer log that paid.
    pub credit: Option<Credit>,
    /// Checked where this change exposes the payee and the one before did not, as a claim is.
    pub exposure: Option<ExposureLimit>,
}

/// Each credited transfer log counts once, across all payments, tenants and dialects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credit {
    /// This payment was paid by this log.
    Take { network: Network, tx: String, log_index: u64 },
    /// The block is gone: whatever log this payment had been paid by is free again.
    Free,
}

impl Commit {
    /// A change of the payment and its books alone.
    pub fn new(step: Step, event: &'static str) -> Self {
        Self { step, event, response: None, slots: Vec::new(), credit: None, exposure: None }
    }
}

/// Which payments to list; `None` and empty mean any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentFilter {
    pub tenant: Option<TenantId>,
    pub payer: Option<Address>,
    /// Only those that came after this one in the order of ids.
    pub after: Option<PaymentId>,
    /// At most so many; the store caps it at 1000.
    pub limit: usize,
}

/// What a whole check of the books found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookCheck {
    pub payments: u64,
    pub transfers: u64,
    pub accounts: u64,
    /// Empty if the books balance and every balance re-derives from its transfers.
    pub problems: Vec<String>,
}

/// Why the store did not do it. Whatever it is: nothing was changed, except after [`StoreError::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the payment is at another version")]
    Conflict,
    #[error("this transfer log was credited to another payment")]
    AlreadyCredited,
    #[error("the entries do not fit the books: {0}")]
    Books(String),
    /// It would expose the payee to more than the limit.
    #[error("the payee would be exposed to more than the limit")]
    OverExposed,
    #[error("the store cannot be used: {0}")]
    Down(String),
    /// The change may or may not be durable. Read it back.
    #[error("it cannot be told whether the store has the change: {0}")]
    Unknown(String),
    #[error("the store has too much to do")]
    Busy,
    #[error("the store holds what this version cannot read: {0}")]
    Corrupt(String),
}

/// The durable truth. One call is one atomic commit.
#[async_trait]
pub trait Store: Send + Sync {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError>;

    async fn commit(&self, commit: Commit) -> Result<(), StoreError>;

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError>;

    /// The payment that holds this key now.
    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError>;

    /// Payments with something left to do ([`Payment::next`] is not `Rest`, or settled within the depth that
    /// `settled_after` asks for), in the order of their ids.
    async fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<Payment>, StoreError>;

    /// Settled payments whose last change is not older than `since`: those that a reorganization may still undo. The
    /// newest first, and only those that come after `after` in this order: the last change and id of one.
    async fn settled_since(
        &self,
        since: Timestamp,
        after: Option<(Timestamp, PaymentId)>,
        limit: usize,
    ) -> Result<Vec<Payment>, StoreError>;

    async fn payments(&self, filter: PaymentFilter) -> Result<Vec<Payment>, StoreError>;

    /// The history of a payment: version, what happened, when.
    async fn history(&self, id: PaymentId) -> Result<Vec<(u64, String, Timestamp)>, StoreError>;

    async fn response(&self, id: PaymentId) -> Result<Option<StoredResponse>, StoreError>;

    /// Erases the stored answers of payments that were settled, refused or failed before `before`, in small
    /// commits; returns how many.
    async fn erase_responses(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Forgets some payments that were refused, have moved no money, and of which nothing has depended since `before`:
    /// their last change is older, and so is the end of the authorization where they hold its key. In small commits;
    /// returns how many.
    async fn forget_refused(&self, before: Timestamp) -> Result<u64, StoreError> {
        let _ = before;
        Ok(0)
    }

    /// A moment that has certainly been, by the clock of whoever wrote what is here: the latest that costs nothing to
    /// know.
    async fn mark(&self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::from_millis(0))
    }

    async fn slot(&self, id: SlotId) -> Result<Option<StoredSlot>, StoreError>;

    /// Slots of this relayer that are open, by nonce: what a start takes up.
    async fn open_slots(&self, network: &Network, relayer: &Address) -> Result<Vec<StoredSlot>, StoreError>;

    /// Slots of this relayer that are open or included but not final, by nonce, from this one on.
    async fn live_slots(
        &self,
        network: &Network,
        relayer: &Address,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredSlot>, StoreError>;

    /// The slot of this relayer that has this nonce, if it was not lost.
    async fn slot_at(
        &self,
        network: &Network,
        relayer: &Address,
        nonce: u64,
    ) -> Result<Option<StoredSlot>, StoreError>;

    /// The slots of one payment's attempts, newest last.
    async fn slots_of(&self, id: PaymentId) -> Result<Vec<StoredSlot>, StoreError>;

    /// Changes slots without any payment: marks them included or lost, adds variants.
    async fn save_slots(&self, slots: Vec<(Option<u64>, Slot)>) -> Result<(), StoreError>;

    /// Changes slots, and books what their transactions cost: all of it, or nothing.
    async fn close_slots(&self, slots: Vec<(Option<u64>, Slot)>, gas: Vec<Entry>) -> Result<(), StoreError>;

    /// The highest nonce that any slot of this relayer ever had.
    async fn last_nonce(&self, network: &Network, relayer: &Address) -> Result<Option<u64>, StoreError>;

    /// What `payer` and everybody owes `payee` for what was served and is not settled.
    async fn exposure(
        &self,
        tenant: &TenantId,
        payer: &Address,
        payee: &Address,
        asset: &AssetId,
    ) -> Result<(Money, Money), StoreError>;

    async fn balances(&self, tenant: Option<&TenantId>) -> Result<Vec<(Account, Balance)>, StoreError>;

    async fn transfers_of(&self, id: PaymentId) -> Result<Vec<(TransferId, Money, Phase)>, StoreError>;

    /// Reads every payment and transfer and re-derives every balance.
    async fn check_books(&self) -> Result<BookCheck, StoreError>;

    /// How long a commit took lately, for health pages.
    fn commit_latency(&self) -> Duration;
}
