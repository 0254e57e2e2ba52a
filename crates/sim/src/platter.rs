//! The SQLite store over a disk that fails, fills up and loses power; and beside it all that it answered, as the model
//! has it. Whatever the one says, the other must say too.
//!
//! The store has threads of its own. Each call waits for its answer on the world's thread, and there is one reader, so
//! that the disk is asked for the same things in the same order in each run.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_channel::{ChannelId, Charge, Payee};
use farthing_engine::{
    Begun, BookCheck, ChannelBegin, ChannelCommit, ChannelFilter, ChannelStore, Claim, Claimed, Commit,
    PaymentFilter, Store, StoreError, StoredResponse, StoredSlot,
};
use farthing_faultdisk::{Crash, Disk, Fault, Kind};
use farthing_ledger::{Account, Balance, Entry, Phase, TransferId};
use farthing_payment::{ConsumptionKey, Payment, Slot};
use farthing_primitives::{
    Address, AssetId, Money, Network, PaymentId, RequestHash, SlotId, TenantId, Timestamp,
};
use farthing_store::{OpenError, SqliteStore};

use crate::exec::lock;
use crate::facts::Ledger;
use crate::rng::Rng;
use crate::wait;

const FILE: &str = "books.db";
/// From how many writes on, since the file was opened, the log may be long enough to be shortened behind an answer.
/// Below half of what the store allows its log.
const LONG_LOG: u64 = 4000;
/// How much of an answer a violation shows.
const SHOWN: usize = 600;

/// What goes wrong with the disk below the SQLite store, after so many operations of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// One write fails.
    Write { after: u64 },
    /// One sync fails, and what it should have made durable may be lost.
    Sync { after: u64 },
    /// The same, and reading goes on to show what is lost until the power goes.
    SyncUnseen { after: u64 },
    /// So many reads fail.
    Read { after: u64, times: u64 },
    /// One read of the log ends early. In the midst of the database none does: SQLite asks an operating system again
    /// until all is there, and what is missing still it takes for zeros. That would be rot, of which the store's own
    /// check tells.
    ShortRead { after: u64 },
    /// After so many more bytes the disk is full.
    Full { after: u64 },
    /// The power goes, in the midst of a change.
    Power { after: u64 },
}

impl Trouble {
    /// From a stream of its own.
    pub fn draw(rng: &mut Rng, unseen: bool) -> Self {
        let after = rng.below(120);
        match rng.below(8) {
            0 => Self::Write { after },
            1 if unseen => Self::SyncUnseen { after: after / 4 },
            1 | 2 => Self::Sync { after: after / 4 },
            3 => Self::Read { after: after / 2, times: rng.between(1, 20) },
            4 => Self::ShortRead { after: after / 2 },
            5 => Self::Full { after: rng.below(200_000) },
            // What a sync lost unseen is made good by the next start, which a power cut in its midst would prevent;
            // the disk does not show the store's way to write its log once more, so the two are not drawn together.
            6 | 7 if unseen => Self::Sync { after: after / 4 },
            _ => Self::Power { after },
        }
    }
}

/// A change, kept until it is known whether the store has it.
#[derive(Debug, Clone)]
enum Change {
    Claim(Box<Claim>),
    Commit(Box<Commit>),
    /// With what their transactions cost.
    Slots(Vec<(Option<u64>, Slot)>, Vec<Entry>),
    Begin(Box<ChannelBegin>),
    Channel(Box<ChannelCommit>),
}

/// What the store says to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Claimed(Claimed),
    Begun(Begun),
    Done,
}

impl Change {
    fn make(&self, store: &dyn ChannelStore) -> Result<Said, StoreError> {
        let done = |done: Result<(), StoreError>| done.map(|()| Said::Done);
        match self.clone() {
            Self::Claim(claim) => wait(store.claim(*claim)).map(Said::Claimed),
            Self::Commit(commit) => done(wait(store.commit(*commit))),
            Self::Slots(slots, gas) if gas.is_empty() => done(wait(store.save_slots(slots))),
            Self::Slots(slots, gas) => done(wait(store.close_slots(slots, gas))),
            Self::Begin(begin) => wait(store.begin_channel(*begin)).map(Said::Begun),
            Self::Channel(commit) => done(wait(store.commit_channel(*commit))),
        }
    }

    /// Whether a store that has all changes before this one has this one, too.
    fn is_in(&self, store: &dyn ChannelStore) -> Result<bool, StoreError> {
        match self {
            Self::Begin(begin) => {
                let there = wait(store.channel(begin.payee.terms().id))?;
                Ok(there.is_some_and(|payee| payee.book() == begin.payee.book()))
            }
            Self::Channel(commit) => {
                let next = &commit.step.next;
                Ok(wait(store.channel(next.terms().id))?.is_some_and(|p| p.version() >= next.version()))
            }
            Self::Claim(claim) => Ok(wait(store.payment(claim.payment.id))?.is_some()),
            Self::Commit(commit) => {
                let next = &commit.step.next;
                Ok(wait(store.payment(next.id))?.is_some_and(|payment| payment.version >= next.version))
            }
            Self::Slots(slots, _) => {
                let Some((expected, slot)) = slots.first() else { return Ok(true) };
                let version = expected.map_or(0, |version| version + 1);
                Ok(wait(store.slot(slot.id))?.is_some_and(|stored| stored.version >= version))
            }
        }
    }
}

/// The disk of the gateway's machine, with the store that the process of now has open.
pub struct Platter {
    ledger: Arc<Ledger>,
    disk: Disk,
    store: Mutex<Option<SqliteStore>>,
    /// Every change that was answered, and nothing else: what all checkers look at.
    told: Arc<dyn ChannelStore>,
    /// The change of which the store could not say whether it was made. Nothing is answered before that is known.
    maybe: Mutex<Option<Change>>,
    /// The last call was refused.
    refused: AtomicBool,
    /// How many writes the disk had seen when the file was opened.
    opened_at: AtomicU64,
    /// How many milliseconds the next power cut lasts.
    pub dark_for: AtomicU64,
}

impl std::fmt::Debug for Platter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Platter")
    }
}

impl Platter {
    /// `told` is empty, and nobody else changes it.
    pub fn new(seed: u64, ledger: Arc<Ledger>, told: Arc<dyn ChannelStore>) -> Self {
        Self {
            ledger,
            disk: Disk::new(seed),
            store: Mutex::default(),
            told,
            maybe: Mutex::default(),
            refused: AtomicBool::new(false),
            opened_at: AtomicU64::new(0),
            dark_for: AtomicU64::new(1000),
        }
    }

    /// Something begins to go wrong. Until [`Platter::heal`].
    pub fn suffer(&self, trouble: Trouble) {
        let fault = match trouble {
            Trouble::Write { after } => Fault::write_fails().after(after),
            Trouble::Sync { after } => Fault::sync_fails().after(after),
            Trouble::SyncUnseen { after } => Fault::sync_fails_unseen().after(after),
            Trouble::Read { after, times } => Fault::read_fails().after(after).times(times),
            Trouble::ShortRead { after } => Fault::short_read().on(Kind::Log).after(after),
            Trouble::Full { after } => return self.disk.fill_after(after),
            Trouble::Power { after } => Fault::power_cut().after(after),
        };
        self.disk.inject(fault);
    }

    pub fn heal(&self) {
        self.disk.heal();
    }

    /// The power is off, and nobody has noticed yet.
    pub fn is_cut(&self) -> bool {
        self.disk.is_cut()
    }

    /// The last call was refused; asked once for each time that this begins.
    pub fn begins_to_refuse(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }

    /// An operator's question: does it answer at all?
    pub fn answers(&self) -> bool {
        let nobody = PaymentId::from_bytes([0; 16]);
        self.ask(|store| wait(store.payment(nobody))).is_ok()
    }

    /// The process, or the machine, goes down with what it had open.
    pub fn crash(&self, how: Crash) {
        self.disk.cut();
        drop(lock(&self.store).take());
        self.disk.restart(how);
    }

    /// Opens the file for a new process, and looks whether all is there that was answered, and nothing else.
    ///
    /// # Errors
    /// Why it could not be opened, in words that are the same in each run.
    pub fn open(&self) -> Result<(), &'static str> {
        drop(lock(&self.store).take());
        let store =
            SqliteStore::open_with_readers(&self.disk.path(FILE), 1).map_err(|error| match error {
                OpenError::InUse(_) => "in use",
                OpenError::Newer { .. } => "newer",
                OpenError::Older { .. } => "older",
                OpenError::Foreign(_) => "foreign",
                OpenError::Lock { .. } => "no lock",
                OpenError::Log { .. } => "no log",
                OpenError::Thread(_) => "no thread",
                OpenError::Sqlite { .. } => "sqlite",
            })?;
        *lock(&self.store) = Some(store);
        self.opened_at.store(self.disk.counts().writes, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
        self.resolve();
        if lock(&self.maybe).is_none() {
            // What cannot be read now is looked at in the end.
            let _ = self.compare();
        }
        Ok(())
    }

    /// The last word, when the power has gone once more: all is there, and all of it can be derived again.
    pub fn last_look(&self) {
        self.crash(Crash::Power);
        self.disk.heal();
        if let Err(why) = self.open() {
            return self.ledger.broken(format!("the healed file cannot be opened: {why}"));
        }
        if lock(&self.maybe).is_some() {
            return self.ledger.broken("the healed store does not tell what it has".to_owned());
        }
        if let Err(error) = self.compare() {
            self.ledger.broken(format!("the healed store does not answer: {error}"));
        }
        match self.ask(|store| wait(store.check(|_, _| {}))) {
            Ok(checked) if checked.problems.is_empty() => {}
            Ok(checked) => self.ledger.broken(format!("the file is not in order: {:?}", checked.problems)),
            Err(error) => self.ledger.broken(format!("the file cannot be checked: {error}")),
        }
        let counts = self.disk.counts();
        self.ledger
            .note(|| format!("the file was written {} times and synced {}", counts.writes, counts.syncs));
        drop(lock(&self.store).take());
    }

    fn ask<T>(&self, question: impl FnOnce(&SqliteStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let open = lock(&self.store);
        let store = open.as_ref().ok_or_else(|| StoreError::Down("it is not open".to_owned()))?;
        let said = question(store);
        let failed =
            matches!(said, Err(StoreError::Down(_) | StoreError::Unknown(_) | StoreError::Corrupt(_)));
        self.refused.store(failed, Ordering::Relaxed);
        said
    }

    /// Learns what became of the change that is in doubt, if the store answers at all.
    fn resolve(&self) {
        let Some(change) = lock(&self.maybe).clone() else { return };
        let Ok(there) = self.ask(|store| change.is_in(store)) else { return };
        *lock(&self.maybe) = None;
        self.ledger
            .note(|| format!("the store {} the change in doubt", if there { "has" } else { "has not" }));
        if there && let Err(error) = change.make(&*self.told) {
            self.ledger.broken(format!("the store has a change that cannot be made: {error}: {change:?}"));
        }
    }

    async fn change(&self, change: Change) -> Result<Said, StoreError> {
        self.resolve();
        let said = self.ask(|store| change.make(store));
        match &said {
            Err(StoreError::Unknown(_)) => {
                self.ledger.note(|| "the store is in doubt".to_owned());
                *lock(&self.maybe) = Some(change);
            }
            Err(StoreError::Down(_) | StoreError::Corrupt(_) | StoreError::Busy) => {}
            _ => {
                // A writer that takes a change has made sure before that the one in doubt is none.
                *lock(&self.maybe) = None;
                let told = change.make(&*self.told);
                self.agree("a change", &said, &told);
            }
        }
        self.rest_of_writer();
        self.alive().await;
        said
    }

    /// Behind its answer the writer may shorten a long log. The next call comes after that.
    fn rest_of_writer(&self) {
        if self.disk.counts().writes - self.opened_at.load(Ordering::Relaxed) > LONG_LOG {
            let _ = self.ask(|store| wait(store.erase_responses(Timestamp::from_millis(0))));
        }
    }

    /// With the power off nobody hears an answer.
    async fn alive(&self) {
        if self.disk.is_cut() {
            pending::<()>().await;
        }
    }

    async fn read<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        of: impl Fn(&dyn ChannelStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.resolve();
        let said = self.ask(|store| of(store));
        self.alive().await;
        if said.is_ok() {
            self.agree(what, &said, &of(&*self.told));
        }
        said
    }

    fn agree<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        said: &Result<T, StoreError>,
        told: &Result<T, StoreError>,
    ) {
        if said != told {
            let short = |text: String| text.chars().take(SHOWN).collect::<String>();
            let (said, told) = (short(format!("{said:?}")), short(format!("{told:?}")));
            self.ledger.broken(format!("of {what} the store says {said}; it was told {told}"));
        }
    }

    /// Everything that can be asked, against all that was told.
    fn compare(&self) -> Result<(), StoreError> {
        let filter = || PaymentFilter { limit: 1000, ..PaymentFilter::default() };
        self.same("all payments", |store| wait(store.payments(filter())))?;
        self.same("all balances", |store| wait(store.balances(None)))?;
        for payment in wait(self.told.payments(filter()))? {
            let id = payment.id;
            self.same("a history", |store| wait(store.history(id)))?;
            self.same("transfers", |store| wait(store.transfers_of(id)))?;
            self.same("slots", |store| wait(store.slots_of(id)))?;
            self.same("an answer", |store| wait(store.response(id)))?;
        }
        let filter = || ChannelFilter { limit: 1000, ..ChannelFilter::default() };
        self.same("all channels", |store| wait(store.channels(filter())))?;
        for payee in wait(self.told.channels(filter()))? {
            let id = payee.terms().id;
            self.same("charges", |store| wait(store.charges(id, None, 1000)))?;
            self.same("a channel's slots", |store| wait(store.slots_of(payee.book())))?;
            self.same("a channel's transfers", |store| wait(store.transfers_of(payee.book())))?;
            for charge in wait(self.told.charges(id, None, 1000))? {
                self.same("a charge's answer", |store| wait(store.charge_answer(charge.id)))?;
                self.same("a charge's transfers", |store| wait(store.transfers_of(charge.id)))?;
            }
        }
        Ok(())
    }

    fn same<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        of: impl Fn(&dyn ChannelStore) -> Result<T, StoreError>,
    ) -> Result<(), StoreError> {
        let said = self.ask(|store| of(store))?;
        self.agree(what, &Ok(said), &of(&*self.told));
        Ok(())
    }
}

#[async_trait]
impl Store for Platter {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        match self.change(Change::Claim(Box::new(claim))).await? {
            Said::Claimed(claimed) => Ok(claimed),
            _ => Err(StoreError::Unknown("another question was answered".to_owned())),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.change(Change::Commit(Box::new(commit))).await.map(|_| ())
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        self.read("a payment", |store| wait(store.payment(id))).await
    }

    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        self.read("a holder", |store| wait(store.holder(key))).await
    }

    async fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<Payment>, StoreError> {
        self.read("what is unfinished", |store| wait(store.unfinished(after, limit))).await
    }

    async fn settled_since(
        &self,
        since: Timestamp,
        after: Option<(Timestamp, PaymentId)>,
        limit: usize,
    ) -> Result<Vec<Payment>, StoreError> {
        self.read("what is settled", |store| wait(store.settled_since(since, after, limit))).await
    }

    async fn payments(&self, filter: PaymentFilter) -> Result<Vec<Payment>, StoreError> {
        self.read("payments", |store| wait(store.payments(filter.clone()))).await
    }

    async fn history(&self, id: PaymentId) -> Result<Vec<(u64, String, Timestamp)>, StoreError> {
        self.read("a history", |store| wait(store.history(id))).await
    }

    async fn response(&self, id: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        self.read("an answer", |store| wait(store.response(id))).await
    }

    async fn erase_responses(&self, before: Timestamp) -> Result<u64, StoreError> {
        let said = self.ask(|store| wait(store.erase_responses(before)));
        if said.is_ok() {
            self.agree("what is erased", &said, &wait(self.told.erase_responses(before)));
        }
        self.alive().await;
        said
    }

    async fn slot(&self, id: SlotId) -> Result<Option<StoredSlot>, StoreError> {
        self.read("a slot", |store| wait(store.slot(id))).await
    }

    async fn open_slots(&self, network: &Network, relayer: &Address) -> Result<Vec<StoredSlot>, StoreError> {
        self.read("open slots", |store| wait(store.open_slots(network, relayer))).await
    }

    async fn live_slots(
        &self,
        network: &Network,
        relayer: &Address,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredSlot>, StoreError> {
        self.read("live slots", |store| wait(store.live_slots(network, relayer, from, limit))).await
    }

    async fn slot_at(
        &self,
        network: &Network,
        relayer: &Address,
        nonce: u64,
    ) -> Result<Option<StoredSlot>, StoreError> {
        self.read("a slot by its nonce", |store| wait(store.slot_at(network, relayer, nonce))).await
    }

    async fn slots_of(&self, id: PaymentId) -> Result<Vec<StoredSlot>, StoreError> {
        self.read("slots", |store| wait(store.slots_of(id))).await
    }

    async fn save_slots(&self, slots: Vec<(Option<u64>, Slot)>) -> Result<(), StoreError> {
        self.change(Change::Slots(slots, Vec::new())).await.map(|_| ())
    }

    async fn close_slots(&self, slots: Vec<(Option<u64>, Slot)>, gas: Vec<Entry>) -> Result<(), StoreError> {
        self.change(Change::Slots(slots, gas)).await.map(|_| ())
    }

    async fn last_nonce(&self, network: &Network, relayer: &Address) -> Result<Option<u64>, StoreError> {
        self.read("the last nonce", |store| wait(store.last_nonce(network, relayer))).await
    }

    async fn exposure(
        &self,
        tenant: &TenantId,
        payer: &Address,
        payee: &Address,
        asset: &AssetId,
    ) -> Result<(Money, Money), StoreError> {
        self.read("exposure", |store| wait(store.exposure(tenant, payer, payee, asset))).await
    }

    async fn balances(&self, tenant: Option<&TenantId>) -> Result<Vec<(Account, Balance)>, StoreError> {
        self.read("balances", |store| wait(store.balances(tenant))).await
    }

    async fn transfers_of(&self, id: PaymentId) -> Result<Vec<(TransferId, Money, Phase)>, StoreError> {
        self.read("transfers", |store| wait(store.transfers_of(id))).await
    }

    async fn check_books(&self) -> Result<BookCheck, StoreError> {
        self.ask(|store| wait(store.check_books()))
    }

    /// What a clock of this machine measured is not of the world.
    fn commit_latency(&self) -> Duration {
        Duration::ZERO
    }
}

#[async_trait]
impl ChannelStore for Platter {
    async fn begin_channel(&self, begin: ChannelBegin) -> Result<Begun, StoreError> {
        match self.change(Change::Begin(Box::new(begin))).await? {
            Said::Begun(begun) => Ok(begun),
            _ => Err(StoreError::Unknown("another question was answered".to_owned())),
        }
    }

    async fn commit_channel(&self, commit: ChannelCommit) -> Result<(), StoreError> {
        self.change(Change::Channel(Box::new(commit))).await.map(|_| ())
    }

    async fn channel(&self, id: ChannelId) -> Result<Option<Payee>, StoreError> {
        self.read("a channel", |store| wait(store.channel(id))).await
    }

    async fn channel_of_book(&self, book: PaymentId) -> Result<Option<Payee>, StoreError> {
        self.read("a book's channel", |store| wait(store.channel_of_book(book))).await
    }

    async fn channels(&self, filter: ChannelFilter) -> Result<Vec<Payee>, StoreError> {
        self.read("channels", |store| wait(store.channels(filter.clone()))).await
    }

    async fn charge(&self, channel: ChannelId, request: RequestHash) -> Result<Option<Charge>, StoreError> {
        self.read("a charge", |store| wait(store.charge(channel, request))).await
    }

    async fn charges(
        &self,
        channel: ChannelId,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<Vec<Charge>, StoreError> {
        self.read("charges", |store| wait(store.charges(channel, after, limit))).await
    }

    async fn charge_answer(&self, charge: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        self.read("a charge's answer", |store| wait(store.charge_answer(charge))).await
    }

    async fn erase_charge_answers(&self, before: Timestamp) -> Result<u64, StoreError> {
        let said = self.ask(|store| wait(store.erase_charge_answers(before)));
        if said.is_ok() {
            self.agree("what is erased", &said, &wait(self.told.erase_charge_answers(before)));
        }
        self.alive().await;
        said
    }
}
