//! How often, how much and how many at once a stranger may make us work: for each client and for all together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farthing_payment::ConsumptionKey;

/// How many clients are told apart. More share one bucket.
pub const MAX_CLIENTS: usize = 16_384;
/// How often the table of clients is searched for those that can be forgotten: not for each stranger who comes to a
/// full one.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// A rate, and how much of it may be used at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

/// One bucket for each client. Counted in millionths, without floats.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    rate: Rate,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    of: HashMap<Option<IpAddr>, Bucket>,
    /// When the table was searched last.
    swept: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In millionths of one permit.
    level: u64,
    at: Duration,
}

const ONE: u64 = 1_000_000;

impl RateLimiter {
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Whether this client may go on now. `now` is monotonic.
    pub fn admit(&self, client: Option<IpAddr>, now: Duration) -> bool {
        self.with(client, now, |bucket| match bucket.level.checked_sub(ONE) {
            Some(level) => {
                bucket.level = level;
                true
            }
            None => false,
        })
    }

    /// Whether [`RateLimiter::admit`] would say yes, for what is counted only if it ends badly.
    pub fn has(&self, client: Option<IpAddr>, now: Duration) -> bool {
        let buckets = lock(&self.buckets);
        // Whoever is not in the table has used nothing, unless it is full: then newcomers share one bucket.
        let client = client.map(network_of);
        let known = buckets
            .of
            .get(&client)
            .or_else(|| if buckets.of.len() < MAX_CLIENTS { None } else { buckets.of.get(&None) });
        known.is_none_or(|bucket| bucket.refilled(self.rate, now).level >= ONE)
    }

    fn with<T>(&self, client: Option<IpAddr>, now: Duration, act: impl FnOnce(&mut Bucket) -> T) -> T {
        let full = u64::from(self.rate.burst) * ONE;
        let client = client.map(network_of);
        let mut buckets = lock(&self.buckets);
        let Buckets { of, swept } = &mut *buckets;
        if of.len() >= MAX_CLIENTS
            && !of.contains_key(&client)
            && swept.is_none_or(|swept| now.saturating_sub(swept) >= SWEEP_EVERY)
        {
            // A bucket that is full again is as good as none.
            let rate = self.rate;
            of.retain(|_, bucket| bucket.refilled(rate, now).level < full);
            *swept = Some(now);
        }
        // When all the places are taken, newcomers share one.
        let known = of.len() < MAX_CLIENTS || of.contains_key(&client);
        let client = client.filter(|_| known);
        let bucket = of.entry(client).or_insert(Bucket { level: full, at: now });
        *bucket = bucket.refilled(self.rate, now);
        act(bucket)
    }
}

impl Bucket {
    fn refilled(self, rate: Rate, now: Duration) -> Self {
        let elapsed = u64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        let level = self.level.saturating_add(elapsed.saturating_mul(u64::from(rate.per_second)));
        Self { level: level.min(u64::from(rate.burst) * ONE), at: now }
    }
}

/// So many at once, of all clients and of each.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    per_client: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Never more than `all`.
    of: HashMap<IpAddr, usize>,
}

/// Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    client: Option<IpAddr>,
}

impl Places {
    pub fn new(most: usize, per_client: usize) -> Arc<Self> {
        Arc::new(Self { most, per_client, taken: Mutex::default() })
    }

    /// A place for a client, if neither it nor all together have too many. Unknown clients count in all only.
    pub fn take(self: &Arc<Self>, client: Option<IpAddr>) -> Option<Place> {
        let client = client.map(network_of);
        let mut taken = lock(&self.taken);
        if taken.all >= self.most {
            return None;
        }
        if let Some(client) = client {
            let mine = taken.of.get(&client).copied().unwrap_or_default();
            if mine >= self.per_client {
                return None;
            }
            taken.of.insert(client, mine + 1);
        }
        taken.all += 1;
        drop(taken);
        Some(Place { places: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.all = taken.all.saturating_sub(1);
        let Some(client) = self.client else { return };
        if let Some(mine) = taken.of.get_mut(&client) {
            *mine = mine.saturating_sub(1);
            if *mine == 0 {
                taken.of.remove(&client);
            }
        }
    }
}

/// One client may hold this part of the memory for bodies, and leaves the rest to others.
pub const CLIENT_SHARE: usize = 4;
/// But no less than this many bytes, so that one exchange of the usual size fits: its request, its answer as it comes,
/// and the same as it goes.
pub const MIN_CLIENT_SHARE: usize = 32 * 1024 * 1024;

/// How many bytes of bodies may be held at once, of all clients and of each.
#[derive(Debug)]
pub(crate) struct Memory {
    all: usize,
    per_client: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Never more than `all`; only who holds something is in it.
    of: HashMap<IpAddr, usize>,
}

/// Some of those bytes, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    memory: Arc<Memory>,
    client: Option<IpAddr>,
    bytes: usize,
}

impl Memory {
    pub fn new(bytes: usize) -> Arc<Self> {
        let per_client = (bytes / CLIENT_SHARE).max(MIN_CLIENT_SHARE);
        Arc::new(Self { all: bytes, per_client, held: Mutex::default() })
    }

    /// Nothing yet, for this client. Unknown clients count in all only.
    pub fn hold(self: &Arc<Self>, client: Option<IpAddr>) -> Hold {
        Hold { memory: self.clone(), client: client.map(network_of), bytes: 0 }
    }
}

impl Hold {
    /// Whether there is room for so many more.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let mut held = lock(&self.memory.held);
        let Some(all) = held.all.checked_add(bytes).filter(|all| *all <= self.memory.all) else {
            return false;
        };
        // Nothing is remembered of who holds nothing.
        if let Some(client) = self.client.filter(|_| bytes > 0) {
            // INVARIANT: never more than `all`, so this cannot overflow.
            let mine = held.of.get(&client).copied().unwrap_or_default() + bytes;
            if mine > self.memory.per_client {
                return false;
            }
            held.of.insert(client, mine);
        }
        held.all = all;
        self.bytes += bytes;
        true
    }
}

impl Hold {
    /// Gives so many back, and never more than there are.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        if bytes == 0 {
            return;
        }
        self.bytes -= bytes;
        let mut held = lock(&self.memory.held);
        held.all = held.all.saturating_sub(bytes);
        let Some(client) = self.client else { return };
        if let Some(mine) = held.of.get_mut(&client) {
            *mine = mine.saturating_sub(bytes);
            if *mine == 0 {
                held.of.remove(&client);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

/// A panic elsewhere must not stop the service: every guarded value is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One home has a whole /64 of addresses.
fn network_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        },
    }
}

/// The payments that buy one answer and are being answered: a copy of one waits for its turn, and has none then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answering(Arc<Mutex<HashMap<ConsumptionKey, Turn>>>);

/// How far a payment is with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is on its way.
    Answered,
    /// It is gone, and that is being written down.
    Gone,
}

/// Held until the answer is sent, and that is written down. Without a key it stands for nothing.
#[derive(Debug)]
pub(crate) struct Alone {
    all: Answering,
    key: Option<ConsumptionKey>,
}

impl Answering {
    /// How far a payment with this key is, if it has its turn already.
    pub fn enter(&self, key: Option<&ConsumptionKey>) -> Result<Alone, Turn> {
        if let Some(key) = key {
            let mut all = lock(&self.0);
            if let Some(turn) = all.get(key) {
                return Err(*turn);
            }
            all.insert(key.clone(), Turn::Answered);
        }
        Ok(Alone { all: self.clone(), key: key.cloned() })
    }
}

impl Alone {
    /// The answer is gone: whoever comes now has come too late.
    pub fn gone(&self) {
        if let Some(key) = &self.key {
            lock(&self.all.0).insert(key.clone(), Turn::Gone);
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            lock(&self.all.0).remove(key);
        }
    }
}
