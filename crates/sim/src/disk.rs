//! A store on a disk that a process can die over: each change is applied whole or not at all, and whoever asked may
//! never hear which.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_channel::{ChannelId, Charge, Payee};
use farthing_engine::{
    Begun, BookCheck, ChannelBegin, ChannelCommit, ChannelFilter, ChannelStore, Claim, Claimed, Commit,
    PaymentFilter, Store, StoreError, StoredResponse, StoredSlot,
};
use farthing_ledger::{Account, Balance, Entry, Phase, TransferId};
use farthing_payment::{ConsumptionKey, Payment, Slot};
use farthing_primitives::{
    Address, AssetId, Money, Network, PaymentId, RequestHash, SlotId, TenantId, Timestamp,
};
use futures_channel::oneshot;

use crate::exec::{Exec, ProcessId, lock};
use crate::rng::Rng;

/// What ails a disk. All chances are in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ailments {
    /// The most milliseconds that a sync takes.
    pub latency: u64,
    /// The store refuses: too much to do, or out of order.
    pub refused: u64,
    /// It cannot be told whether a change was made.
    pub in_doubt: u64,
}

/// A process's store over a disk that outlives it.
pub struct Disk {
    exec: Exec,
    process: ProcessId,
    platter: Arc<dyn ChannelStore>,
    ailments: Arc<Mutex<Ailments>>,
    rng: Arc<Mutex<Rng>>,
    /// Until when the store answers nothing, as it does not know what it holds.
    doubt_until: Arc<Mutex<Duration>>,
    /// Is set whenever something was written.
    touched: Arc<AtomicBool>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

enum Fate {
    Done,
    Refused(StoreError),
    DoubtfulAndDone,
    DoubtfulAndNot,
}

impl Disk {
    pub fn new(
        exec: Exec,
        process: ProcessId,
        platter: Arc<dyn ChannelStore>,
        ailments: Arc<Mutex<Ailments>>,
        rng: Rng,
    ) -> Self {
        let rng = Arc::new(Mutex::new(rng));
        let (doubt_until, touched) = (Arc::default(), Arc::default());
        Self { exec, process, platter, ailments, rng, doubt_until, touched }
    }

    /// Says in `touched` whenever something was written.
    pub fn saying(mut self, touched: Arc<AtomicBool>) -> Self {
        self.touched = touched;
        self
    }

    /// Hands a change to the writer, which finishes it whoever waits, as long as the process lives.
    async fn write<T, F>(
        &self,
        change: impl FnOnce(Arc<dyn ChannelStore>) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.in_doubt()?;
        let (fate, before, after) = {
            let ailments = *lock(&self.ailments);
            let mut rng = lock(&self.rng);
            let fate = if rng.per_mille(ailments.refused) {
                let down = || StoreError::Down("the disk is full".to_owned());
                Fate::Refused(if rng.per_mille(500) { StoreError::Busy } else { down() })
            } else if rng.per_mille(ailments.in_doubt) {
                if rng.per_mille(500) { Fate::DoubtfulAndDone } else { Fate::DoubtfulAndNot }
            } else {
                Fate::Done
            };
            let mut part = || Duration::from_micros(rng.below(ailments.latency * 500 + 50));
            (fate, part(), part())
        };
        let (tell, told) = oneshot::channel();
        let (exec, platter) = (self.exec.clone(), self.platter.clone());
        let (doubt, touched) = (self.doubt_until.clone(), self.touched.clone());
        self.exec.spawn(
            self.process,
            Box::pin(async move {
                exec.sleep(before).await;
                let unknown = || {
                    *lock(&doubt) = exec.elapsed() + Duration::from_secs(2);
                    Err(StoreError::Unknown("the sync did not answer".to_owned()))
                };
                let said = match fate {
                    Fate::Refused(error) => Err(error),
                    Fate::DoubtfulAndNot => unknown(),
                    Fate::DoubtfulAndDone => {
                        // What came of it nobody hears.
                        let _ = change(platter).await;
                        unknown()
                    }
                    Fate::Done => change(platter).await,
                };
                touched.store(true, Ordering::Relaxed);
                // Durable, and not yet told: the moment to die at.
                exec.sleep(after).await;
                let _ = tell.send(said);
            }),
        );
        told.await.unwrap_or_else(|_| Err(StoreError::Unknown("the writer is gone".to_owned())))
    }

    async fn read<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let (wait, refused) = {
            let ailments = *lock(&self.ailments);
            let mut rng = lock(&self.rng);
            (Duration::from_micros(rng.below(ailments.latency * 100 + 20)), rng.per_mille(ailments.refused))
        };
        self.exec.sleep(wait).await;
        self.in_doubt()?;
        if refused { Err(StoreError::Down("the disk does not answer".to_owned())) } else { answer.await }
    }

    fn in_doubt(&self) -> Result<(), StoreError> {
        if self.exec.elapsed() < *lock(&self.doubt_until) {
            return Err(StoreError::Down("an earlier commit is in doubt".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Disk {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.write(|platter| async move { platter.claim(claim).await }).await
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.write(|platter| async move { platter.commit(commit).await }).await
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        self.read(self.platter.payment(id)).await
    }

    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        self.read(self.platter.holder(key)).await
    }

    async fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<Payment>, StoreError> {
        self.read(self.platter.unfinished(after, limit)).await
    }

    async fn settled_since(
        &self,
        since: Timestamp,
        after: Option<(Timestamp, PaymentId)>,
        limit: usize,
    ) -> Result<Vec<Payment>, StoreError> {
        self.read(self.platter.settled_since(since, after, limit)).await
    }

    async fn payments(&self, filter: PaymentFilter) -> Result<Vec<Payment>, StoreError> {
        self.read(self.platter.payments(filter)).await
    }

    async fn history(&self, id: PaymentId) -> Result<Vec<(u64, String, Timestamp)>, StoreError> {
        self.read(self.platter.history(id)).await
    }

    async fn response(&self, id: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        self.read(self.platter.response(id)).await
    }

    async fn erase_responses(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write(move |platter| async move { platter.erase_responses(before).await }).await
    }

    async fn slot(&self, id: SlotId) -> Result<Option<StoredSlot>, StoreError> {
        self.read(self.platter.slot(id)).await
    }

    async fn open_slots(&self, network: &Network, relayer: &Address) -> Result<Vec<StoredSlot>, StoreError> {
        self.read(self.platter.open_slots(network, relayer)).await
    }

    async fn live_slots(
        &self,
        network: &Network,
        relayer: &Address,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredSlot>, StoreError> {
        self.read(self.platter.live_slots(network, relayer, from, limit)).await
    }

    async fn slot_at(
        &self,
        network: &Network,
        relayer: &Address,
        nonce: u64,
    ) -> Result<Option<StoredSlot>, StoreError> {
        self.read(self.platter.slot_at(network, relayer, nonce)).await
    }

    async fn slots_of(&self, id: PaymentId) -> Result<Vec<StoredSlot>, StoreError> {
        self.read(self.platter.slots_of(id)).await
    }

    async fn save_slots(&self, slots: Vec<(Option<u64>, Slot)>) -> Result<(), StoreError> {
        self.write(|platter| async move { platter.save_slots(slots).await }).await
    }

    async fn close_slots(&self, slots: Vec<(Option<u64>, Slot)>, gas: Vec<Entry>) -> Result<(), StoreError> {
        self.write(|platter| async move { platter.close_slots(slots, gas).await }).await
    }

    async fn last_nonce(&self, network: &Network, relayer: &Address) -> Result<Option<u64>, StoreError> {
        self.read(self.platter.last_nonce(network, relayer)).await
    }

    async fn exposure(
        &self,
        tenant: &TenantId,
        payer: &Address,
        payee: &Address,
        asset: &AssetId,
    ) -> Result<(Money, Money), StoreError> {
        self.read(self.platter.exposure(tenant, payer, payee, asset)).await
    }

    async fn balances(&self, tenant: Option<&TenantId>) -> Result<Vec<(Account, Balance)>, StoreError> {
        self.read(self.platter.balances(tenant)).await
    }

    async fn transfers_of(&self, id: PaymentId) -> Result<Vec<(TransferId, Money, Phase)>, StoreError> {
        self.read(self.platter.transfers_of(id)).await
    }

    async fn check_books(&self) -> Result<BookCheck, StoreError> {
        self.read(self.platter.check_books()).await
    }

    fn commit_latency(&self) -> Duration {
        self.platter.commit_latency()
    }
}

#[async_trait]
impl ChannelStore for Disk {
    async fn begin_channel(&self, begin: ChannelBegin) -> Result<Begun, StoreError> {
        self.write(|platter| async move { platter.begin_channel(begin).await }).await
    }

    async fn commit_channel(&self, commit: ChannelCommit) -> Result<(), StoreError> {
        self.write(|platter| async move { platter.commit_channel(commit).await }).await
    }

    async fn channel(&self, id: ChannelId) -> Result<Option<Payee>, StoreError> {
        self.read(self.platter.channel(id)).await
    }

    async fn channel_of_book(&self, book: PaymentId) -> Result<Option<Payee>, StoreError> {
        self.read(self.platter.channel_of_book(book)).await
    }

    async fn channels(&self, filter: ChannelFilter) -> Result<Vec<Payee>, StoreError> {
        self.read(self.platter.channels(filter)).await
    }

    async fn charge(&self, channel: ChannelId, request: RequestHash) -> Result<Option<Charge>, StoreError> {
        self.read(self.platter.charge(channel, request)).await
    }

    async fn charges(
        &self,
        channel: ChannelId,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<Vec<Charge>, StoreError> {
        self.read(self.platter.charges(channel, after, limit)).await
    }

    async fn charge_answer(&self, charge: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        self.read(self.platter.charge_answer(charge)).await
    }

    async fn erase_charge_answers(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write(move |platter| async move { platter.erase_charge_answers(before).await }).await
    }
}
