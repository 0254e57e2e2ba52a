use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::{
    BookCheck, Claim, Claimed, Commit, PaymentFilter, Store, StoreError, StoredResponse, StoredSlot,
};
use farthing_ledger::{Account, Balance, Entry, Phase, TransferId};
use farthing_payment::{ConsumptionKey, Payment, Slot};
use farthing_primitives::{Address, AssetId, Money, Network, PaymentId, SlotId, TenantId, Timestamp};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::apply::{Answer, Request};
use crate::check::{Checked, check};
use crate::limits::{ERASE_BATCH, PRUNE_BATCH, PRUNE_BATCHES, QUEUE_LEN, sum_too_large};
use crate::read;
use crate::replay::{self, Story};
use crate::schema::{self, OpenError};
use crate::writer::{Health, Writer};

mod channels;

/// How many connections read. Reads are short, and two cores do not do more at a time.
const READERS: usize = 2;

/// The store in one SQLite file (with its `-wal`, `-shm` and `-lock` beside it).
///
/// What is answered is durable: it was synced to the disk before. Calls come from any async runtime or none; the
/// work is done by threads of the store's own, which end when it is dropped.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order: readers first, so that the writer closes the file last and leaves no log behind.
    readers: Readers,
    writer: Option<Writer>,
    health: Arc<Health>,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens or makes the file, brings its schema up to date, and keeps every other writer out.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if another process, or this one, has it open for writing; [`OpenError::Newer`] if a
    /// later version wrote it; [`OpenError::Foreign`] if another program did.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with_readers(path, READERS)
    }

    /// The same with so many connections that read (one at least). With one, and one call at a time, the disk is asked
    /// for the same in each run, as who tests what the disk does needs it.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_with_readers(path: &Path, readers: usize) -> Result<Self, OpenError> {
        let lock = schema::lock(path)?;
        let connection = schema::open_writer(path)?;
        let health = Arc::new(Health::default());
        let readers = Readers::start(path, readers)?;
        let writer = Writer::start(connection, path, lock, Arc::clone(&health))?;
        Ok(Self { readers, writer: Some(writer), health, path: path.to_owned() })
    }

    /// Opens the file to look at it, also while another process writes it. Every change is refused as
    /// [`StoreError::Down`].
    ///
    /// # Errors
    /// As [`SqliteStore::open`], but for [`OpenError::InUse`]; and [`OpenError::Older`], as nothing is migrated.
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        let readers = Readers::start(path, READERS)?;
        Ok(Self { readers, writer: None, health: Arc::default(), path: path.to_owned() })
    }

    /// How many groups of changes were written since the file was opened, for health pages: each is one
    /// transaction and one sync, however many callers share it.
    pub fn groups(&self) -> u64 {
        self.health.groups()
    }

    /// Derives everything again that can be derived, and tells how far it is: payments done, and payments in all.
    ///
    /// # Errors
    /// Only what kept it from looking; what it found is in [`Checked::problems`].
    pub async fn check(
        &self,
        mut progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Checked, StoreError> {
        if let Some(refusal) = self.health.refusal() {
            return Err(refusal);
        }
        // It reads everything, and must not keep others waiting for a reader.
        let (reply, answer) = oneshot::channel();
        let path = self.path.clone();
        let work = move || {
            let opened = schema::open_reader(&path).map_err(|error| StoreError::Down(error.to_string()));
            let _ = reply.send(opened.and_then(|connection| check(&connection, &mut progress)));
        };
        std::thread::Builder::new()
            .name("store-check".to_owned())
            .spawn(work)
            .map_err(|error| StoreError::Down(error.to_string()))?;
        answer.await.map_err(|_| StoreError::Down("the check has stopped".to_owned()))?
    }

    /// The story of a payment from its claim to where it is, with the causes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if its history cannot be true.
    pub async fn story(&self, id: PaymentId) -> Result<Option<Story>, StoreError> {
        self.read(move |connection| {
            read::in_one_view(connection, || {
                let Some(payment) = read::payment(connection, id)? else { return Ok(None) };
                let rows = read::history_rows(connection, &payment)?;
                replay::tell(&payment, &rows).map(Some).map_err(StoreError::Corrupt)
            })
        })
        .await
    }

    async fn write(&self, request: Result<Request, StoreError>) -> Result<Answer, StoreError> {
        self.writer()?.change(request?).await
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::Down("opened to be read only".to_owned()))
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if let Some(refusal) = self.health.refusal() {
            return Err(refusal);
        }
        self.readers.ask(question).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        match self.write(Request::claim(claim)).await? {
            Answer::Claimed(claimed) => Ok(claimed),
            _ => Err(StoreError::Unknown("the writer answered another question".to_owned())),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.write(Request::commit(commit)).await.map(|_| ())
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        self.read(move |connection| read::payment(connection, id)).await
    }

    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        let key = key.clone();
        self.read(move |connection| read::holder(connection, &key)).await
    }

    async fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<Payment>, StoreError> {
        self.read(move |connection| read::unfinished(connection, after, limit)).await
    }

    async fn settled_since(
        &self,
        since: Timestamp,
        after: Option<(Timestamp, PaymentId)>,
        limit: usize,
    ) -> Result<Vec<Payment>, StoreError> {
        self.read(move |connection| read::settled_since(connection, since, after, limit)).await
    }

    async fn payments(&self, filter: PaymentFilter) -> Result<Vec<Payment>, StoreError> {
        self.read(move |connection| read::payments(connection, &filter)).await
    }

    async fn history(&self, id: PaymentId) -> Result<Vec<(u64, String, Timestamp)>, StoreError> {
        self.read(move |connection| read::history(connection, id)).await
    }

    async fn response(&self, id: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        self.read(move |connection| read::response(connection, id)).await
    }

    async fn erase_responses(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut erased = 0;
        loop {
            let Answer::Erased(batch) = self.write(Ok(Request::erase(before))).await? else { break };
            erased += batch;
            if batch < u64::from(ERASE_BATCH) {
                break;
            }
        }
        if erased > 0 {
            // The bodies are also in the log, until it is emptied. If somebody is reading it just now, the next
            // checkpoint overwrites it.
            if let Err(error) = self.writer()?.empty_log().await {
                tracing::warn!(%error, "erased answers stay in the log for now");
            }
        }
        Ok(erased)
    }

    async fn forget_refused(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        for _ in 0..PRUNE_BATCHES {
            let Answer::Erased(batch) = self.write(Ok(Request::forget(before))).await? else { break };
            forgotten += batch;
            if batch < u64::from(PRUNE_BATCH) {
                break;
            }
        }
        Ok(forgotten)
    }

    async fn mark(&self) -> Result<Timestamp, StoreError> {
        self.read(read::mark).await
    }

    async fn slot(&self, id: SlotId) -> Result<Option<StoredSlot>, StoreError> {
        self.read(move |connection| read::slot(connection, id)).await
    }

    async fn open_slots(&self, network: &Network, relayer: &Address) -> Result<Vec<StoredSlot>, StoreError> {
        let (network, relayer) = (network.clone(), relayer.clone());
        self.read(move |connection| read::open_slots(connection, &network, &relayer)).await
    }

    async fn live_slots(
        &self,
        network: &Network,
        relayer: &Address,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredSlot>, StoreError> {
        let (network, relayer) = (network.clone(), relayer.clone());
        self.read(move |connection| read::live_slots(connection, &network, &relayer, from, limit)).await
    }

    async fn slot_at(
        &self,
        network: &Network,
        relayer: &Address,
        nonce: u64,
    ) -> Result<Option<StoredSlot>, StoreError> {
        let (network, relayer) = (network.clone(), relayer.clone());
        self.read(move |connection| read::slot_at(connection, &network, &relayer, nonce)).await
    }

    async fn slots_of(&self, id: PaymentId) -> Result<Vec<StoredSlot>, StoreError> {
        self.read(move |connection| read::slots_of(connection, id)).await
    }

    async fn save_slots(&self, slots: Vec<(Option<u64>, Slot)>) -> Result<(), StoreError> {
        self.write(Request::slots(slots)).await.map(|_| ())
    }

    async fn close_slots(&self, slots: Vec<(Option<u64>, Slot)>, gas: Vec<Entry>) -> Result<(), StoreError> {
        self.write(Request::close_slots(slots, gas)).await.map(|_| ())
    }

    async fn last_nonce(&self, network: &Network, relayer: &Address) -> Result<Option<u64>, StoreError> {
        let (network, relayer) = (network.clone(), relayer.clone());
        self.read(move |connection| read::last_nonce(connection, &network, &relayer)).await
    }

    async fn exposure(
        &self,
        tenant: &TenantId,
        payer: &Address,
        payee: &Address,
        asset: &AssetId,
    ) -> Result<(Money, Money), StoreError> {
        let (tenant, payer, payee) = (tenant.clone(), payer.clone(), payee.clone());
        let of_asset = asset.clone();
        let (of_payer, of_all) = self
            .read(move |connection| read::exposure(connection, (&tenant, &payee, &of_asset), &payer))
            .await?;
        let money = |atoms: Option<u128>| {
            atoms.map(|atoms| Money::new(asset.clone(), atoms)).ok_or_else(sum_too_large)
        };
        Ok((money(of_payer)?, money(of_all)?))
    }

    async fn balances(&self, tenant: Option<&TenantId>) -> Result<Vec<(Account, Balance)>, StoreError> {
        let tenant = tenant.cloned();
        self.read(move |connection| read::balances(connection, tenant.as_ref())).await
    }

    async fn transfers_of(&self, id: PaymentId) -> Result<Vec<(TransferId, Money, Phase)>, StoreError> {
        let rows = self.read(move |connection| read::transfers_of(connection, id)).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.money, row.phase)).collect())
    }

    async fn check_books(&self) -> Result<BookCheck, StoreError> {
        self.check(|_, _| {}).await.map(BookCheck::from)
    }

    fn commit_latency(&self) -> Duration {
        self.health.latency()
    }
}

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// A few threads with a connection each. Dropping them waits for what is being read.
struct Readers {
    queue: Option<SyncSender<Question>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Readers({})", self.threads.len())
    }
}

impl Readers {
    fn start(path: &Path, count: usize) -> Result<Self, OpenError> {
        let (queue, questions) = sync_channel::<Question>(QUEUE_LEN);
        let questions = Arc::new(Mutex::new(questions));
        let mut readers = Self { queue: Some(queue), threads: Vec::with_capacity(count) };
        for index in 0..count.max(1) {
            let connection = schema::open_reader(path)?;
            let questions = Arc::clone(&questions);
            let thread = std::thread::Builder::new()
                .name(format!("store-reader-{index}"))
                .spawn(move || answer_all(&connection, &questions))
                .map_err(OpenError::Thread)?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Down("the readers have stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        let question: Question = Box::new(move |connection| {
            let _ = reply.send(question(connection));
        });
        queue.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }
}

fn answer_all(connection: &Connection, questions: &Mutex<Receiver<Question>>) {
    loop {
        // The lock is held while waiting, and given on before answering.
        let next = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(question) => question(connection),
            Err(_) => return,
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
