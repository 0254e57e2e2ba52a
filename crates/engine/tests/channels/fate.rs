//! A process that dies: when it is told to, at a commit or a broadcast that was counted out, or between any two steps.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use farthing_channel::{ChannelId, Charge, Payee};
use farthing_engine::*;
use farthing_evm::{Log, Read, ReadResult};
use farthing_ledger::{Account, Balance, Entry, Phase, TransferId};
use farthing_payment::{ConsumptionKey, Payment, Slot};
use farthing_primitives::*;
use tokio::task::AbortHandle;

/// When a process dies. Once it is dead, nothing that it does is done, and nothing that it waits for comes.
pub struct Fate {
    /// How many more points it passes.
    left: AtomicI64,
    dead: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
    died: Mutex<Option<tokio::sync::oneshot::Sender<()>>>,
    /// Changes that the store has been given and has not answered: those of a process that died are made or not before
    /// the next one starts.
    given: AtomicI64,
    /// Where it died.
    at: Mutex<Option<&'static str>>,
    /// Whether no node answers.
    pub chain_down: AtomicBool,
}

impl Fate {
    /// Dies at the point with this number, counted from zero; never, if there are not so many.
    pub fn at_point(point: Option<i64>) -> (Arc<Self>, tokio::sync::oneshot::Receiver<()>) {
        let (died, news) = tokio::sync::oneshot::channel();
        let fate = Arc::new(Self {
            left: AtomicI64::new(point.unwrap_or(i64::MAX)),
            dead: AtomicBool::new(false),
            tasks: Mutex::default(),
            died: Mutex::new(Some(died)),
            given: AtomicI64::new(0),
            at: Mutex::default(),
            chain_down: AtomicBool::new(false),
        });
        (fate, news)
    }

    pub fn die(&self, at: &'static str) {
        if self.dead.swap(true, Ordering::SeqCst) {
            return;
        }
        *self.at.lock().unwrap() = Some(at);
        if let Some(died) = self.died.lock().unwrap().take() {
            let _ = died.send(());
        }
    }

    /// Ends what is left of its tasks. Whoever waits for one of them would see that, as nobody sees a process die.
    pub fn bury(&self) {
        self.die("the end of the test");
        self.tasks.lock().unwrap().iter().for_each(AbortHandle::abort);
    }

    pub fn died_at(&self) -> Option<&'static str> {
        *self.at.lock().unwrap()
    }

    /// It is over, and the store has done with what it was given.
    pub async fn end(&self) {
        self.die("the end of the test");
        while self.given.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
        self.bury();
    }

    /// Never returns in a dead process.
    async fn alive(&self) {
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    async fn point(&self, name: &'static str) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.die(name);
        }
        self.alive().await;
    }
}

/// Real time with an offset that a test may add, and tasks that end with their process.
pub struct Process {
    pub fate: Arc<Fate>,
    start: Instant,
    pub ahead_ms: Arc<AtomicU64>,
}

impl Process {
    pub fn new(fate: Arc<Fate>, ahead_ms: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { fate, start: Instant::now(), ahead_ms })
    }
}

impl World for Process {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let millis = u64::try_from(since.as_millis()).expect("small");
        Timestamp::from_millis(millis + self.ahead_ms.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        // A fresh process knows nothing of the one before it.
        self.start.elapsed() + Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut tasks = self.fate.tasks.lock().unwrap();
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(task).abort_handle());
    }
    fn random(&self, into: &mut [u8]) {
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let mut state = COUNTER.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in into {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[0];
        }
    }
}

/// A store that is lost to a process that died, with a point before and after each change.
pub struct MortalStore {
    pub inner: Arc<dyn ChannelStore>,
    pub fate: Arc<Fate>,
    /// Changes whose answer is that it cannot be told, though they are made.
    pub doubtful: AtomicI64,
}

impl MortalStore {
    fn doubt(&self, done: Result<(), StoreError>) -> Result<(), StoreError> {
        if self.doubtful.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(StoreError::Unknown("the disk said nothing".to_owned()));
        }
        done
    }
}

/// A change that the store has been given.
struct Given(Arc<Fate>);

impl Given {
    fn to(fate: &Arc<Fate>) -> Self {
        fate.given.fetch_add(1, Ordering::SeqCst);
        Self(fate.clone())
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.0.given.fetch_sub(1, Ordering::SeqCst);
    }
}

macro_rules! read {
    ($self:ident, $call:expr) => {{
        $self.fate.alive().await;
        let read = $call.await;
        $self.fate.alive().await;
        read
    }};
}

macro_rules! change {
    ($self:ident, $before:literal, $after:literal, $call:expr) => {{
        $self.fate.point($before).await;
        let given = Given::to(&$self.fate);
        $self.fate.alive().await;
        let done = $call.await;
        drop(given);
        $self.fate.point($after).await;
        done
    }};
}

#[async_trait]
impl Store for MortalStore {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        read!(self, self.inner.claim(claim))
    }
    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        read!(self, self.inner.commit(commit))
    }
    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        read!(self, self.inner.payment(id))
    }
    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        read!(self, self.inner.holder(key))
    }
    async fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<Payment>, StoreError> {
        read!(self, self.inner.unfinished(after, limit))
    }
    async fn settled_since(
        &self,
        since: Timestamp,
        after: Option<(Timestamp, PaymentId)>,
        limit: usize,
    ) -> Result<Vec<Payment>, StoreError> {
        read!(self, self.inner.settled_since(since, after, limit))
    }
    async fn payments(&self, filter: PaymentFilter) -> Result<Vec<Payment>, StoreError> {
        read!(self, self.inner.payments(filter))
    }
    async fn history(&self, id: PaymentId) -> Result<Vec<(u64, String, Timestamp)>, StoreError> {
        read!(self, self.inner.history(id))
    }
    async fn response(&self, id: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        read!(self, self.inner.response(id))
    }
    async fn erase_responses(&self, before: Timestamp) -> Result<u64, StoreError> {
        read!(self, self.inner.erase_responses(before))
    }
    async fn slot(&self, id: SlotId) -> Result<Option<StoredSlot>, StoreError> {
        read!(self, self.inner.slot(id))
    }
    async fn open_slots(&self, network: &Network, relayer: &Address) -> Result<Vec<StoredSlot>, StoreError> {
        read!(self, self.inner.open_slots(network, relayer))
    }
    async fn live_slots(
        &self,
        network: &Network,
        relayer: &Address,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredSlot>, StoreError> {
        read!(self, self.inner.live_slots(network, relayer, from, limit))
    }
    async fn slot_at(
        &self,
        network: &Network,
        relayer: &Address,
        nonce: u64,
    ) -> Result<Option<StoredSlot>, StoreError> {
        read!(self, self.inner.slot_at(network, relayer, nonce))
    }
    async fn slots_of(&self, id: PaymentId) -> Result<Vec<StoredSlot>, StoreError> {
        read!(self, self.inner.slots_of(id))
    }
    async fn save_slots(&self, slots: Vec<(Option<u64>, Slot)>) -> Result<(), StoreError> {
        change!(self, "before slots are saved", "after slots are saved", self.inner.save_slots(slots))
    }
    async fn close_slots(&self, slots: Vec<(Option<u64>, Slot)>, gas: Vec<Entry>) -> Result<(), StoreError> {
        change!(self, "before slots are closed", "after slots are closed", self.inner.close_slots(slots, gas))
    }
    async fn last_nonce(&self, network: &Network, relayer: &Address) -> Result<Option<u64>, StoreError> {
        read!(self, self.inner.last_nonce(network, relayer))
    }
    async fn exposure(
        &self,
        tenant: &TenantId,
        payer: &Address,
        payee: &Address,
        asset: &AssetId,
    ) -> Result<(Money, Money), StoreError> {
        read!(self, self.inner.exposure(tenant, payer, payee, asset))
    }
    async fn balances(&self, tenant: Option<&TenantId>) -> Result<Vec<(Account, Balance)>, StoreError> {
        read!(self, self.inner.balances(tenant))
    }
    async fn transfers_of(&self, id: PaymentId) -> Result<Vec<(TransferId, Money, Phase)>, StoreError> {
        read!(self, self.inner.transfers_of(id))
    }
    async fn check_books(&self) -> Result<BookCheck, StoreError> {
        read!(self, self.inner.check_books())
    }
    fn commit_latency(&self) -> Duration {
        self.inner.commit_latency()
    }
}

#[async_trait]
impl ChannelStore for MortalStore {
    async fn begin_channel(&self, begin: ChannelBegin) -> Result<Begun, StoreError> {
        let begun = change!(
            self,
            "before a channel is begun",
            "after a channel is begun",
            self.inner.begin_channel(begin)
        )?;
        self.doubt(Ok(())).map(|()| begun)
    }
    async fn commit_channel(&self, commit: ChannelCommit) -> Result<(), StoreError> {
        let done = change!(
            self,
            "before a change of a channel",
            "after a change of a channel",
            self.inner.commit_channel(commit)
        );
        self.doubt(done)
    }
    async fn channel(&self, id: ChannelId) -> Result<Option<Payee>, StoreError> {
        read!(self, self.inner.channel(id))
    }
    async fn channel_of_book(&self, book: PaymentId) -> Result<Option<Payee>, StoreError> {
        read!(self, self.inner.channel_of_book(book))
    }
    async fn channels(&self, filter: ChannelFilter) -> Result<Vec<Payee>, StoreError> {
        read!(self, self.inner.channels(filter))
    }
    async fn charge(&self, channel: ChannelId, request: RequestHash) -> Result<Option<Charge>, StoreError> {
        read!(self, self.inner.charge(channel, request))
    }
    async fn charges(
        &self,
        channel: ChannelId,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<Vec<Charge>, StoreError> {
        read!(self, self.inner.charges(channel, after, limit))
    }
    async fn charge_answer(&self, charge: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        read!(self, self.inner.charge_answer(charge))
    }
    async fn erase_charge_answers(&self, before: Timestamp) -> Result<u64, StoreError> {
        read!(self, self.inner.erase_charge_answers(before))
    }
}

/// A chain that a dead process does not reach, with a point before and after each broadcast.
pub struct MortalChain {
    pub inner: Arc<dyn Chain>,
    pub fate: Arc<Fate>,
}

impl MortalChain {
    async fn up(&self) -> Result<(), ChainError> {
        self.fate.alive().await;
        match self.fate.chain_down.load(Ordering::SeqCst) {
            true => Err(ChainError::Down(self.inner.network().clone())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Chain for MortalChain {
    fn network(&self) -> &Network {
        self.inner.network()
    }
    fn block_time(&self) -> Duration {
        self.inner.block_time()
    }
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<ReadResult>, ChainError> {
        self.up().await?;
        self.inner.read(reads).await
    }
    async fn read_at(&self, reads: Vec<Read>, at: Tag) -> Result<Vec<ReadResult>, ChainError> {
        self.up().await?;
        self.inner.read_at(reads, at).await
    }
    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError> {
        self.up().await?;
        self.inner.head(at).await
    }
    async fn next_head(&self, seen: Option<Head>, patience: Duration) -> Result<Head, ChainError> {
        self.up().await?;
        self.inner.next_head(seen, patience).await
    }
    async fn receipts(&self, txs: Vec<TxHash>) -> Result<Vec<Option<Receipt>>, ChainError> {
        self.up().await?;
        self.inner.receipts(txs).await
    }
    async fn nonce(&self, account: &Address, pending: bool) -> Result<u64, ChainError> {
        self.up().await?;
        self.inner.nonce(account, pending).await
    }
    async fn native_balance(&self, account: &Address) -> Result<u128, ChainError> {
        self.up().await?;
        self.inner.native_balance(account).await
    }
    async fn fees(&self) -> Result<Fees, ChainError> {
        self.up().await?;
        self.inner.fees().await
    }
    async fn code(&self, account: &Address) -> Result<Bytes, ChainError> {
        self.up().await?;
        self.inner.code(account).await
    }
    async fn estimate_gas(
        &self,
        from: &Address,
        to: &Address,
        data: Bytes,
    ) -> Result<Result<u64, Bytes>, ChainError> {
        self.up().await?;
        self.inner.estimate_gas(from, to, data).await
    }
    async fn broadcast(&self, tx: &SignedTx) -> Broadcast {
        if let Err(error) = self.up().await {
            return Broadcast::Ambiguous(error.to_string());
        }
        self.fate.point("before a broadcast").await;
        let said = self.inner.broadcast(tx).await;
        self.fate.point("after a broadcast").await;
        said
    }
    async fn logs(&self, filter: LogFilter) -> Result<Vec<(TxHash, Log)>, ChainError> {
        self.up().await?;
        self.inner.logs(filter).await
    }
}
