use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farthing_payment::{Slot, SlotState, TxRef, Variant};
use farthing_primitives::{Address, AttemptId, Network, PaymentId, SlotId};
use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::lock::Mutex as AsyncMutex;

use crate::live::lock;
use crate::slot_call::call_in;
use crate::{
    Broadcast, Chain, Fees, Head, NotPrepared, Prepared, Receipt, RelayerKey, SlotCall, Store, StoredSlot,
    Tag, TxHash, UnsignedTx, World,
};

/// What a relayer key may spend and how patient it is.
#[derive(Debug, Clone)]
pub struct RelayerConfig {
    /// The most wei for each unit of gas that any transaction may offer. Above it nothing is sent.
    pub max_fee: u128,
    /// After how long without inclusion a transaction is given again, or a better offer.
    pub bump_after: Duration,
    /// How often a slot's offer may be raised.
    pub max_variants: usize,
    /// How many slots may be open at once; more wait.
    pub max_open: usize,
}

impl Default for RelayerConfig {
    fn default() -> Self {
        Self {
            // 200 gwei: many times what the cheap chains ask for, and a bound on what a mistake can cost.
            max_fee: 200_000_000_000,
            bump_after: Duration::from_secs(12),
            max_variants: 8,
            max_open: 2_000,
        }
    }
}

/// The smallest raise that nodes accept of a replacement, in eighths: geth asks for 10 %, we give 12.5 %.
const RAISE_EIGHTHS: u128 = 9;
/// Receipts asked for at once.
const RECEIPTS_AT_ONCE: usize = 256;
/// On how many heads in a row a used nonce must show no receipt of ours, before the slot counts as lost.
const LOST_AFTER_HEADS: u32 = 5;
/// After how long a transaction of which nobody knows whether the chain has it is given again, as it is.
const SEND_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a failing node is left alone.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// What is known of a slot.
#[derive(Debug, Clone)]
pub(crate) enum SlotNews {
    Open,
    Included {
        receipt: Box<Receipt>,
        stored: Box<StoredSlot>,
    },
    Lost,
    /// This relayer does not know it.
    Untracked,
}

/// A key with its nonces: everything between a call that should happen and a receipt.
pub struct Relayer {
    chain: Arc<dyn Chain>,
    key: Arc<dyn RelayerKey>,
    store: Arc<dyn Store>,
    world: Arc<dyn World>,
    config: RelayerConfig,
    chain_id: u64,
    nonces: AsyncMutex<Option<u64>>,
    open: Mutex<Open>,
    ticks: Mutex<mpsc::Sender<()>>,
}

#[derive(Default)]
struct Open {
    slots: BTreeMap<u64, Tracked>,
    /// Nonces that were taken for attempts that never were.
    freed: BTreeSet<u64>,
    /// Nonces that nobody holds, below some that are held, and since when that was seen.
    missing: BTreeMap<u64, Duration>,
}

struct Tracked {
    stored: StoredSlot,
    call: SlotCall,
    /// Whether the store is known to have it. What is not durable is never sent.
    durable: bool,
    /// Its payment needs no more news: it is forgotten as soon as its nonce is used.
    released: bool,
    receipt: Option<Receipt>,
    lost_heads: u32,
    lost: bool,
    last_sent: Duration,
    /// When it is to be given again as it is: a former process may have died before it sent it, or no node said that it
    /// has it. Later nonces wait behind it.
    again_at: Option<Duration>,
    waiters: Vec<oneshot::Sender<()>>,
}

/// Why the watch looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// There is something new to watch.
    Tick,
    Head,
    /// No new block came for some time.
    SameHead,
}

/// Since when the store has a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    NotYet,
    Now,
    /// By a former process, or from before a reorganization.
    FromBefore,
}

impl std::fmt::Debug for Relayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relayer({} on {})", self.key.address(), self.chain.network())
    }
}

impl Relayer {
    /// Starts the relayer's watch, which ends with the last of its owners.
    ///
    /// Returns `None` if the chain's network is no EVM chain.
    pub fn start(
        chain: Arc<dyn Chain>,
        key: Arc<dyn RelayerKey>,
        store: Arc<dyn Store>,
        world: Arc<dyn World>,
        config: RelayerConfig,
    ) -> Option<Arc<Self>> {
        let chain_id = chain.network().evm_chain_id()?;
        let (ticks, ticked) = mpsc::channel(1);
        let relayer = Arc::new(Self {
            chain,
            key,
            store,
            world: world.clone(),
            config,
            chain_id,
            nonces: AsyncMutex::new(None),
            open: Mutex::default(),
            ticks: Mutex::new(ticks),
        });
        let watch = Arc::downgrade(&relayer);
        world.spawn(Box::pin(async move { watch_all(watch, ticked).await }));
        Some(relayer)
    }

    pub fn address(&self) -> Address {
        self.key.address()
    }

    fn network(&self) -> &Network {
        self.chain.network()
    }

    /// Signs a call into the next slot. Nothing of it is visible or durable yet.
    pub(crate) async fn prepare(
        &self,
        payments: Vec<PaymentId>,
        call: SlotCall,
    ) -> Result<Prepared, NotPrepared> {
        if lock(&self.open).unresolved() >= self.config.max_open {
            return Err(NotPrepared::Unavailable("relayer_busy"));
        }
        let fees = self.chain.fees().await.map_err(|error| {
            tracing::warn!(%error, "no fees");
            NotPrepared::Unavailable("chain")
        })?;
        let fees = self.capped(fees).ok_or(NotPrepared::Unavailable("gas_price"))?;
        let nonce = self.next_nonce().await.ok_or(NotPrepared::Unavailable("chain"))?;
        let now = self.world.now();
        let attempt = AttemptId::new(now, self.world.random10());
        let variant = self.sign(nonce, &call, fees);
        let slot = Slot {
            id: SlotId::new(now, self.world.random10()),
            network: self.network().clone(),
            relayer: self.key.address(),
            nonce,
            attempt,
            payments,
            variants: vec![variant.clone()],
            state: SlotState::Open,
            updated: now,
        };
        // Tracked from now on, so that nobody may free its nonce; sent only once it is durable.
        self.track(StoredSlot { version: 0, slot: slot.clone() }, call, Durable::NotYet);
        Ok(Prepared { attempt, tx: Some(variant.tx), slots: vec![(None, slot)] })
    }

    /// The commit was refused: the nonce is free for the next attempt.
    pub(crate) fn abandon(&self, prepared: &Prepared) {
        let mut open = lock(&self.open);
        for (_, slot) in &prepared.slots {
            // Only its own place: another may have been given the nonce meanwhile.
            if open.slots.get(&slot.nonce).is_some_and(|tracked| tracked.stored.slot.id == slot.id) {
                open.slots.remove(&slot.nonce);
                open.freed.insert(slot.nonce);
            }
        }
    }

    /// Hands a durable slot to the chain.
    pub(crate) async fn submit(&self, prepared: &Prepared) {
        for (_, slot) in &prepared.slots {
            if let Some(tracked) = lock(&self.open).place_of(slot.nonce, slot.id) {
                tracked.durable = true;
            }
            if let Some(variant) = slot.variants.last() {
                self.send(slot.nonce, slot.id, variant).await;
            }
        }
        self.tick();
    }

    /// What is known of an attempt: at once if there is news, else after about `patience`.
    pub(crate) async fn look(&self, attempt: AttemptId, patience: Duration) -> SlotNews {
        // Whoever asks has read of the attempt in the store: where its commit was in doubt, it is not any more.
        let doubted = lock(&self.open).find(attempt).filter(|tracked| !tracked.durable).map(|tracked| {
            let slot = &tracked.stored.slot;
            (slot.nonce, slot.id)
        });
        if let Some((nonce, id)) = doubted {
            self.resolve(nonce, id).await;
        }
        let woken = {
            let mut open = lock(&self.open);
            let Some(tracked) = open.find(attempt) else { return SlotNews::Untracked };
            match tracked.news() {
                SlotNews::Open => {
                    let (wake, woken) = oneshot::channel();
                    tracked.waiters.push(wake);
                    woken
                }
                news => return news,
            }
        };
        // Woken, dropped or out of patience: in each case look once more.
        let _ = select(woken, self.world.sleep(patience)).await;
        lock(&self.open).find(attempt).map_or(SlotNews::Untracked, |tracked| tracked.news())
    }

    /// The slot's payment needs no more news of it.
    pub(crate) fn release(&self, attempt: AttemptId) {
        let mut open = lock(&self.open);
        // A slot that is still open must be filled, whatever became of its payment: later ones wait behind it.
        if let Some(tracked) = open.find(attempt) {
            tracked.released = true;
        }
        open.drop_done();
    }

    /// Watches a slot that the store knows: after a restart, or after a reorganization.
    pub(crate) fn retrack(&self, mut stored: StoredSlot) {
        let last = stored.slot.variants.last();
        let Some(call) = last.and_then(|variant| call_in(&variant.raw)) else {
            tracing::error!(nonce = stored.slot.nonce, "a stored transaction cannot be read");
            return;
        };
        stored.slot.state = SlotState::Open;
        self.track(stored, call, Durable::FromBefore);
        self.tick();
    }

    fn track(&self, stored: StoredSlot, call: SlotCall, durable: Durable) {
        let now = self.world.monotonic();
        let tracked = Tracked {
            // Fillers have nobody who releases them.
            released: stored.slot.payments.is_empty(),
            stored,
            call,
            durable: durable != Durable::NotYet,
            receipt: None,
            lost_heads: 0,
            lost: false,
            // Sent just now, or about to be.
            last_sent: now,
            again_at: (durable == Durable::FromBefore).then_some(now),
            waiters: Vec::new(),
        };
        lock(&self.open).slots.insert(tracked.stored.slot.nonce, tracked);
    }

    /// Makes the watch look at once instead of at the next block.
    fn tick(&self) {
        // A full channel holds a tick already.
        let _ = lock(&self.ticks).try_send(());
    }

    async fn next_nonce(&self) -> Option<u64> {
        let mut next = self.nonces.lock().await;
        let freed = lock(&self.open).freed.clone();
        for nonce in freed {
            if self.take_freed(nonce).await? {
                return Some(nonce);
            }
        }
        let nonce = match *next {
            Some(nonce) => nonce,
            None => {
                let address = self.key.address();
                let on_chain = self.chain.nonce(&address, true).await.ok()?;
                let stored = self.store.last_nonce(self.network(), &address).await.ok()?;
                // A slot of ours that the node has forgotten is still ours: it is sent again, not reused.
                stored.map_or(on_chain, |last| on_chain.max(last.saturating_add(1)))
            }
        };
        *next = Some(nonce.checked_add(1)?);
        Some(nonce)
    }

    /// Takes a nonce that was given back, if it is nobody's: a commit that seemed lost may have landed since. `None` if
    /// the store cannot tell.
    async fn take_freed(&self, nonce: u64) -> Option<bool> {
        let stored = self.store.slot_at(self.network(), &self.key.address(), nonce).await.ok()?;
        let ours = {
            let mut open = lock(&self.open);
            let free = open.freed.remove(&nonce);
            if stored.is_none() {
                return Some(free && !open.slots.contains_key(&nonce));
            }
            open.slots.contains_key(&nonce)
        };
        if let Some(stored) = stored.filter(|_| !ours) {
            let attempt = stored.slot.attempt;
            self.retrack(stored);
            // It has to be in a block; whoever has a use for its receipt takes it up by itself.
            self.release(attempt);
        }
        Some(false)
    }

    fn capped(&self, fees: Fees) -> Option<Fees> {
        let max_fee = fees.max_fee.min(self.config.max_fee);
        // Less than the chain's own price now would only be stuck.
        let least = fees.max_fee / 2;
        (max_fee >= least).then_some(Fees { max_fee, priority_fee: fees.priority_fee.min(max_fee) })
    }

    fn sign(&self, nonce: u64, call: &SlotCall, fees: Fees) -> Variant {
        let signed = self.key.sign(&UnsignedTx {
            chain_id: self.chain_id,
            nonce,
            to: call.to.clone(),
            data: call.data.clone(),
            gas: call.gas,
            fees,
        });
        Variant {
            tx: TxRef::new(signed.hash.to_string()),
            raw: signed.raw.to_vec().into(),
            max_fee: fees.max_fee,
            priority_fee: fees.priority_fee,
            signed: self.world.now(),
        }
    }

    async fn send(&self, nonce: u64, id: SlotId, variant: &Variant) {
        let Some(hash) = parse_hash(&variant.tx) else { return };
        let signed = crate::SignedTx { hash, raw: Bytes::copy_from_slice(&variant.raw) };
        let said = self.chain.broadcast(&signed).await;
        if let Some(tracked) = lock(&self.open).place_of(nonce, id) {
            let now = self.world.monotonic();
            tracked.last_sent = now;
            tracked.again_at =
                matches!(said, Broadcast::Ambiguous(_)).then(|| now.saturating_add(SEND_AGAIN_AFTER));
        }
        match said {
            Broadcast::Accepted | Broadcast::Ambiguous(_) => {}
            // Either it is in a block already, or somebody else used the key: the watch finds out which.
            Broadcast::NonceTooLow => tracing::debug!(nonce, tx = %variant.tx, "the nonce is used"),
            Broadcast::Underpriced => {
                tracing::debug!(nonce, tx = %variant.tx, "another offer is in the pool")
            }
            Broadcast::NoGas => {
                tracing::error!(relayer = %self.key.address(), "the relayer cannot pay for gas: fund it");
            }
            Broadcast::Rejected(why) => {
                tracing::warn!(nonce, tx = %variant.tx, why, "not accepted by the node")
            }
        }
    }

    /// One look at everything that is open. Returns whether the chain answered.
    async fn look_at_all(&self, seen: Seen) -> bool {
        let wanted: Vec<(u64, TxHash)> = {
            let open = lock(&self.open);
            let unresolved = open.slots.iter().filter(|(_, t)| t.receipt.is_none() && !t.lost);
            unresolved
                .flat_map(|(nonce, t)| {
                    t.stored.slot.variants.iter().filter_map(|v| Some((*nonce, parse_hash(&v.tx)?)))
                })
                .collect()
        };
        for chunk in wanted.chunks(RECEIPTS_AT_ONCE) {
            let hashes = chunk.iter().map(|(_, hash)| *hash).collect();
            match self.chain.receipts(hashes).await {
                Ok(receipts) => self.take_in(chunk, receipts),
                Err(error) => {
                    tracing::warn!(%error, "no receipts");
                    return false;
                }
            }
        }
        self.send_doubted().await;
        match seen {
            Seen::Tick => true,
            Seen::Head => self.tend_stuck(true).await,
            Seen::SameHead => self.tend_stuck(false).await,
        }
    }

    /// Gives the chain again, as it is, what it may never have got. Not only at a new block: where every transaction
    /// makes one, there is none before.
    async fn send_doubted(&self) {
        let now = self.world.monotonic();
        let doubted: Vec<(u64, SlotId, Variant)> = {
            let open = lock(&self.open);
            let due = open.slots.iter().filter(|(_, tracked)| {
                tracked.durable
                    && tracked.receipt.is_none()
                    && !tracked.lost
                    && tracked.again_at.is_some_and(|at| at <= now)
            });
            due.filter_map(|(nonce, tracked)| {
                let slot = &tracked.stored.slot;
                Some((*nonce, slot.id, slot.variants.last()?.clone()))
            })
            .collect()
        };
        // In the order of their nonces: some nodes refuse one whose predecessors they do not have.
        for (nonce, id, variant) in doubted {
            self.send(nonce, id, &variant).await;
        }
    }

    fn take_in(&self, asked: &[(u64, TxHash)], receipts: Vec<Option<Receipt>>) {
        let mut open = lock(&self.open);
        for ((nonce, _), receipt) in asked.iter().zip(receipts) {
            let (Some(receipt), Some(tracked)) = (receipt, open.slots.get_mut(nonce)) else { continue };
            tracked.receipt = Some(receipt);
            tracked.wake();
        }
    }

    /// Gives again what the chain may have forgotten, raises what it passes over, and notices what it cannot take.
    ///
    /// Also while no block comes: where every transaction makes one, none may come before what is stuck has moved.
    async fn tend_stuck(&self, new_head: bool) -> bool {
        let now = self.world.monotonic();
        let waiting = |tracked: &Tracked| {
            tracked.receipt.is_none()
                && !tracked.lost
                && now.saturating_sub(tracked.last_sent) >= self.config.bump_after
        };
        if !lock(&self.open).slots.values().any(waiting) {
            return true;
        }
        let Ok(on_chain) = self.chain.nonce(&self.key.address(), false).await else { return false };
        let (mut resend, mut doubtful) = (Vec::new(), Vec::new());
        {
            let mut open = lock(&self.open);
            for (nonce, tracked) in &mut open.slots {
                if !waiting(tracked) {
                    continue;
                }
                if !tracked.durable {
                    tracked.last_sent = now;
                    doubtful.push((*nonce, tracked.stored.slot.id));
                    continue;
                }
                if *nonce >= on_chain {
                    resend.push((*nonce, tracked.stored.clone(), tracked.call.clone()));
                    continue;
                }
                tracked.lost_heads += u32::from(new_head);
                if tracked.lost_heads >= LOST_AFTER_HEADS {
                    tracing::error!(nonce, relayer = %self.key.address(), "another transaction used this nonce");
                    tracked.lost = true;
                    tracked.wake();
                }
            }
        }
        for (nonce, stored, call) in resend {
            self.send_again(nonce, stored, call).await;
        }
        for (nonce, id) in doubtful {
            self.resolve(nonce, id).await;
        }
        self.fill_gaps(on_chain).await;
        true
    }

    /// Nobody said whether this slot's commit was made: the store does, in the end.
    async fn resolve(&self, nonce: u64, id: SlotId) {
        let Ok(stored) = self.store.slot(id).await else { return };
        let mut open = lock(&self.open);
        let Some(tracked) = open.slots.get_mut(&nonce).filter(|tracked| tracked.stored.slot.id == id) else {
            return;
        };
        if let Some(stored) = stored {
            tracked.stored = stored;
            tracked.durable = true;
            tracked.again_at = Some(self.world.monotonic());
            drop(open);
            return self.tick();
        }
        // It may be on its way still. After so long it is not, and later nonces must not wait behind it for ever.
        tracked.lost_heads += 1;
        if tracked.lost_heads >= LOST_AFTER_HEADS {
            open.slots.remove(&nonce);
            open.freed.insert(nonce);
        }
    }

    async fn send_again(&self, nonce: u64, stored: StoredSlot, call: SlotCall) {
        let Some(last) = stored.slot.variants.last().cloned() else { return };
        let raised =
            self.raised(&last).await.filter(|_| stored.slot.variants.len() < self.config.max_variants);
        let Some(fees) = raised else { return self.send(nonce, stored.slot.id, &last).await };
        let variant = self.sign(nonce, &call, fees);
        let mut next = stored.clone();
        next.slot.variants.push(variant.clone());
        next.slot.updated = self.world.now();
        next.version += 1;
        // Durable before visible: a transaction that we do not know of could pay without our seeing it.
        match self.store.save_slots(vec![(Some(stored.version), next.slot.clone())]).await {
            Ok(()) => {
                if let Some(tracked) = lock(&self.open).place_of(nonce, stored.slot.id) {
                    tracked.stored = next;
                }
                self.send(nonce, stored.slot.id, &variant).await;
            }
            Err(error) => {
                tracing::warn!(%error, nonce, "a raised offer could not be made durable");
                if let Ok(Some(current)) = self.store.slot(stored.slot.id).await
                    && let Some(tracked) = lock(&self.open).place_of(nonce, stored.slot.id)
                {
                    tracked.stored = current;
                }
            }
        }
    }

    /// A better offer than `last`, where the chain's price asks for one and the cap allows it.
    async fn raised(&self, last: &Variant) -> Option<Fees> {
        let now = self.chain.fees().await.ok()?;
        let raise = |fee: u128| fee.checked_mul(RAISE_EIGHTHS).map(|nine| nine / 8 + 1);
        let fees = Fees {
            max_fee: now.max_fee.max(raise(last.max_fee)?),
            priority_fee: now.priority_fee.max(raise(last.priority_fee)?),
        };
        (fees.max_fee <= self.config.max_fee).then_some(fees)
    }

    /// A nonce that was given back, with open ones behind it, must be filled: a call of nothing to ourselves.
    ///
    /// So must one that nobody holds: a former process had given it to an attempt that never became durable, or its
    /// transaction came to nothing and a reorganization has taken away its block. But not at once: after a
    /// reorganization the payments take their transactions up again one by one.
    async fn fill_gaps(&self, on_chain: u64) {
        let missing = self.missing_too_long(on_chain);
        if !missing.is_empty() && !self.retake(&missing).await {
            return;
        }
        loop {
            let gap = {
                let mut open = lock(&self.open);
                open.freed.retain(|nonce| *nonce >= on_chain);
                let highest = open.slots.keys().next_back().copied();
                match open.freed.first().copied() {
                    Some(nonce) if highest.is_some_and(|highest| nonce < highest) => Some(nonce),
                    _ => None,
                }
            };
            let Some(nonce) = gap else { return };
            match self.take_freed(nonce).await {
                Some(true) => {}
                Some(false) => continue,
                None => return,
            }
            let call = SlotCall { to: self.key.address(), data: Bytes::new(), gas: 21_000 };
            let Some(fees) = self.chain.fees().await.ok().and_then(|fees| self.capped(fees)) else {
                lock(&self.open).freed.insert(nonce);
                return;
            };
            let now = self.world.now();
            let slot = Slot {
                id: SlotId::new(now, self.world.random10()),
                network: self.network().clone(),
                relayer: self.key.address(),
                nonce,
                attempt: AttemptId::new(now, self.world.random10()),
                payments: Vec::new(),
                variants: vec![self.sign(nonce, &call, fees)],
                state: SlotState::Open,
                updated: now,
            };
            // Also where it cannot be told whether this was made durable: the nonce is asked after before it is used.
            if self.store.save_slots(vec![(None, slot.clone())]).await.is_err() {
                lock(&self.open).freed.insert(nonce);
                return;
            }
            self.track(StoredSlot { version: 0, slot: slot.clone() }, call, Durable::Now);
            if let Some(variant) = slot.variants.last() {
                self.send(nonce, slot.id, variant).await;
            }
        }
    }

    /// The nonces that nobody has held for long, below one that is held.
    fn missing_too_long(&self, on_chain: u64) -> Vec<u64> {
        let now = self.world.monotonic();
        let mut open = lock(&self.open);
        let highest = open.slots.keys().next_back().copied().unwrap_or(on_chain);
        // No more than may be open at once can be missing below one that is.
        let end = highest.min(on_chain.saturating_add(self.config.max_open as u64));
        let seen = std::mem::take(&mut open.missing);
        for nonce in on_chain..end {
            if !open.slots.contains_key(&nonce) && !open.freed.contains(&nonce) {
                open.missing.insert(nonce, seen.get(&nonce).copied().unwrap_or(now));
            }
        }
        let long = |(_, since): &(&u64, &Duration)| now.saturating_sub(**since) >= self.config.bump_after;
        open.missing.iter().filter(long).map(|(nonce, _)| *nonce).collect()
    }

    /// Gives the transactions again that once had these nonces, and frees the nonces that none had. Returns whether the
    /// store could tell which.
    async fn retake(&self, missing: &[u64]) -> bool {
        for nonce in missing {
            let Ok(stored) = self.store.slot_at(self.network(), &self.key.address(), *nonce).await else {
                return false;
            };
            lock(&self.open).missing.remove(nonce);
            let Some(stored) = stored else {
                lock(&self.open).freed.insert(*nonce);
                continue;
            };
            let attempt = stored.slot.attempt;
            self.retrack(stored);
            // It only has to be in a block again: whoever has a use for its receipt takes it up by itself.
            self.release(attempt);
        }
        true
    }

    /// Whether this nonce is watched, and nothing is known yet of what has become of it.
    pub(crate) fn is_open(&self, nonce: u64) -> bool {
        let open = lock(&self.open);
        open.slots.get(&nonce).is_some_and(|tracked| tracked.receipt.is_none() && !tracked.lost)
    }

    /// Whether any slot is open.
    fn is_idle(&self) -> bool {
        lock(&self.open).slots.values().all(|t| t.receipt.is_some() || t.lost)
    }

    pub(crate) fn chain(&self) -> &Arc<dyn Chain> {
        &self.chain
    }
}

impl Open {
    /// Forgets what nobody asks for any more and whose nonce is used.
    fn drop_done(&mut self) {
        self.slots.retain(|_, t| !t.released || t.receipt.is_none() && !t.lost);
    }

    /// How many slots nothing is known of yet. What has a receipt only waits for somebody to take it, and must keep
    /// nobody out.
    fn unresolved(&self) -> usize {
        self.slots.values().filter(|tracked| tracked.receipt.is_none() && !tracked.lost).count()
    }

    /// This very slot, if it still has its nonce.
    fn place_of(&mut self, nonce: u64, id: SlotId) -> Option<&mut Tracked> {
        self.slots.get_mut(&nonce).filter(|tracked| tracked.stored.slot.id == id)
    }

    fn find(&mut self, attempt: AttemptId) -> Option<&mut Tracked> {
        self.slots.values_mut().find(|tracked| tracked.stored.slot.attempt == attempt)
    }
}

impl Tracked {
    fn news(&self) -> SlotNews {
        match &self.receipt {
            Some(receipt) => SlotNews::Included {
                receipt: Box::new(receipt.clone()),
                stored: Box::new(self.stored.clone()),
            },
            None if self.lost => SlotNews::Lost,
            None => SlotNews::Open,
        }
    }

    fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            // Whoever does not wait any more needs no news.
            let _ = waiter.send(());
        }
    }
}

async fn watch_all(relayer: std::sync::Weak<Relayer>, mut ticks: mpsc::Receiver<()>) {
    let mut head: Option<Head> = None;
    loop {
        let Some(relayer) = relayer.upgrade() else { return };
        lock(&relayer.open).drop_done();
        let mut seen = Seen::Tick;
        if relayer.is_idle() {
            // The relayer must be able to go while nothing is open.
            drop(relayer);
            if ticks.next().await.is_none() {
                return;
            }
        } else {
            let patience = relayer.chain.block_time() * 4;
            let chain = relayer.chain.clone();
            match select(chain.next_head(head, patience), ticks.next()).await {
                Either::Left((Ok(found), _)) => {
                    seen = if head == Some(found) { Seen::SameHead } else { Seen::Head };
                    head = Some(found);
                }
                Either::Left((Err(_), _)) => relayer.world.sleep(RETRY_AFTER).await,
                Either::Right((Some(()), _)) => {}
                Either::Right((None, _)) => return,
            }
            if !relayer.look_at_all(seen).await {
                relayer.world.sleep(RETRY_AFTER).await;
            }
        }
    }
}

pub(crate) fn parse_hash(tx: &TxRef) -> Option<TxHash> {
    let digits = tx.as_str().strip_prefix("0x")?;
    let mut bytes = [0u8; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(TxHash(bytes))
}

/// The tag of the block with this number.
pub(crate) fn at(block: u64) -> Tag {
    Tag::Number(block)
}
