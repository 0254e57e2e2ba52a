//! A store that a process can lose: at the change that a test names, before it is made or after it, nothing ever returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::{
    BookCheck, Claim, Claimed, Commit, PaymentFilter, Store, StoreError, StoredResponse, StoredSlot,
};
use farthing_ledger::{Account, Balance, Entry, Phase, TransferId};
use farthing_payment::{ConsumptionKey, Payment, Slot};
use farthing_primitives::{Address, AssetId, Money, Network, PaymentId, SlotId, TenantId, Timestamp};
use farthing_store::MemoryStore;

pub struct MortalStore {
    inner: Arc<MemoryStore>,
    /// Twice the number of changes until the end, and one more if that is made; below zero, it never comes.
    left: AtomicI64,
}

impl MortalStore {
    pub fn new(inner: Arc<MemoryStore>) -> Self {
        Self { inner, left: AtomicI64::new(-1) }
    }

    /// The process stops at this point: 0 before its first change, 1 after it, 2 before the second.
    pub fn stop_at(&self, point: i64) {
        self.left.store(point + 1, Ordering::SeqCst);
    }

    /// Whether the end has come.
    pub fn stopped(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    async fn point(&self) {
        if self.left.load(Ordering::SeqCst) > 0 && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::future::pending::<()>().await;
        }
        if self.stopped() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Store for MortalStore {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.point().await;
        let done = self.inner.claim(claim).await;
        self.point().await;
        done
    }
    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.point().await;
        let done = self.inner.commit(commit).await;
        self.point().await;
        done
    }
    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        self.inner.payment(id).await
    }
    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        self.inner.holder(key).await
    }
    async fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<Payment>, StoreError> {
        self.inner.unfinished(after, limit).await
    }
    async fn settled_since(
        &self,
        since: Timestamp,
        after: Option<(Timestamp, PaymentId)>,
        limit: usize,
    ) -> Result<Vec<Payment>, StoreError> {
        self.inner.settled_since(since, after, limit).await
    }
    async fn payments(&self, filter: PaymentFilter) -> Result<Vec<Payment>, StoreError> {
        self.inner.payments(filter).await
    }
    async fn history(&self, id: PaymentId) -> Result<Vec<(u64, String, Timestamp)>, StoreError> {
        self.inner.history(id).await
    }
    async fn response(&self, id: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        self.inner.response(id).await
    }
    async fn erase_responses(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.erase_responses(before).await
    }
    async fn slot(&self, id: SlotId) -> Result<Option<StoredSlot>, StoreError> {
        self.inner.slot(id).await
    }
    async fn open_slots(&self, network: &Network, relayer: &Address) -> Result<Vec<StoredSlot>, StoreError> {
        self.inner.open_slots(network, relayer).await
    }
    async fn live_slots(
        &self,
        network: &Network,
        relayer: &Address,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredSlot>, StoreError> {
        self.inner.live_slots(network, relayer, from, limit).await
    }
    async fn slot_at(
        &self,
        network: &Network,
        relayer: &Address,
        nonce: u64,
    ) -> Result<Option<StoredSlot>, StoreError> {
        self.inner.slot_at(network, relayer, nonce).await
    }
    async fn slots_of(&self, id: PaymentId) -> Result<Vec<StoredSlot>, StoreError> {
        self.inner.slots_of(id).await
    }
    async fn save_slots(&self, slots: Vec<(Option<u64>, Slot)>) -> Result<(), StoreError> {
        self.inner.save_slots(slots).await
    }
    async fn close_slots(&self, slots: Vec<(Option<u64>, Slot)>, gas: Vec<Entry>) -> Result<(), StoreError> {
        self.inner.close_slots(slots, gas).await
    }
    async fn last_nonce(&self, network: &Network, relayer: &Address) -> Result<Option<u64>, StoreError> {
        self.inner.last_nonce(network, relayer).await
    }
    async fn exposure(
        &self,
        tenant: &TenantId,
        payer: &Address,
        payee: &Address,
        asset: &AssetId,
    ) -> Result<(Money, Money), StoreError> {
        self.inner.exposure(tenant, payer, payee, asset).await
    }
    async fn balances(&self, tenant: Option<&TenantId>) -> Result<Vec<(Account, Balance)>, StoreError> {
        self.inner.balances(tenant).await
    }
    async fn transfers_of(&self, id: PaymentId) -> Result<Vec<(TransferId, Money, Phase)>, StoreError> {
        self.inner.transfers_of(id).await
    }
    async fn check_books(&self) -> Result<BookCheck, StoreError> {
        self.inner.check_books().await
    }
    fn commit_latency(&self) -> Duration {
        self.inner.commit_latency()
    }
}
