//! What one connection is doing just now, as far as it matters for ending it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Departures, Limits};

/// Shared by a connection's parts; times are counted in milliseconds since it began.
#[derive(Debug)]
pub(crate) struct Pulse {
    pub limits: Limits,
    /// Who waits for what was written to leave.
    pub departures: Departures,
    began: Instant,
    asked: AtomicBool,
    under_way: AtomicUsize,
    idle_since: AtomicU64,
    /// Since when the socket takes nothing more; [`NEVER`] while it does.
    blocked_since: AtomicU64,
    /// Answers of which a piece was handed out and no other asked for, and since when.
    untaken: Mutex<HashMap<u64, u64>>,
    next: AtomicU64,
    must_go: AtomicBool,
    evicted: Notify,
}

const NEVER: u64 = u64::MAX;

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// It asked for nothing yet.
    Silent,
    /// Nothing has been under way for a while.
    Idle,
    /// It does not take its answer.
    Stalled,
}

impl Pulse {
    pub fn new(limits: Limits) -> Arc<Self> {
        Self::with_departures(limits, Departures::default())
    }

    /// The pulse of what is spoken on a connection that was taken over: what leaves, leaves by the one below.
    pub fn above(below: &Self, limits: Limits) -> Arc<Self> {
        Self::with_departures(limits, below.departures.clone())
    }

    fn with_departures(limits: Limits, departures: Departures) -> Arc<Self> {
        Arc::new(Self {
            limits,
            departures,
            began: Instant::now(),
            asked: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(NEVER),
            untaken: Mutex::default(),
            next: AtomicU64::new(0),
            must_go: AtomicBool::new(false),
            evicted: Notify::new(),
        })
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// A request is there. It is under way until what this returns is dropped.
    pub fn request(self: &Arc<Self>) -> UnderWay {
        self.asked.store(true, Ordering::Release);
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(self.clone())
    }

    /// Whether there was any request.
    pub fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// For how long nothing has been under way; `None` while something is, and if it was asked to go already.
    pub fn idle_for(&self) -> Option<Duration> {
        if self.is_busy() || self.must_go.load(Ordering::Acquire) {
            return None;
        }
        Some(Duration::from_millis(self.now().saturating_sub(self.idle_since.load(Ordering::Acquire))))
    }

    /// The socket took this many bytes; `all`: everything that there was.
    pub fn wrote(&self, bytes: usize, all: bool) {
        if all {
            self.blocked_since.store(NEVER, Ordering::Release);
            return;
        }
        let bought = millis(self.limits.bought_by(bytes as u64));
        let (now, later) = (self.now(), |since: u64| since.saturating_add(bought));
        let move_on = |since: u64| (since != NEVER).then(|| later(since).min(now));
        let _ = self.blocked_since.fetch_update(Ordering::AcqRel, Ordering::Acquire, move_on);
    }

    /// The socket takes nothing just now.
    pub fn blocked(&self) {
        let now = self.now();
        let _ = self.blocked_since.compare_exchange(NEVER, now, Ordering::AcqRel, Ordering::Acquire);
    }

    /// A name for an answer, for [`Pulse::handed`] and [`Pulse::taken`].
    pub fn name(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A piece of this answer was handed out.
    pub fn handed(&self, answer: u64) {
        let now = self.now();
        self.untaken().insert(answer, now);
    }

    /// The next piece is asked for, or none will be.
    pub fn taken(&self, answer: u64) {
        self.untaken().remove(&answer);
    }

    /// A panic elsewhere must not stop the service: the map is whole between statements.
    fn untaken(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn judge(&self) -> Verdict {
        let now = self.now();
        let over = |since: u64, limit: Duration| since != NEVER && now.saturating_sub(since) >= millis(limit);
        let stall = self.limits.stall_timeout;
        if over(self.blocked_since.load(Ordering::Acquire), stall)
            || self.untaken().values().any(|since| over(*since, stall))
        {
            return Verdict::Stalled;
        }
        if self.is_busy() {
            return Verdict::Fine;
        }
        if !self.has_asked() {
            return if over(0, self.limits.head_timeout) { Verdict::Silent } else { Verdict::Fine };
        }
        let since = self.idle_since.load(Ordering::Acquire);
        if over(since, self.limits.idle_timeout) { Verdict::Idle } else { Verdict::Fine }
    }

    /// Asks the connection to make room for another.
    pub fn evict(&self) {
        self.must_go.store(true, Ordering::Release);
        self.evicted.notify_one();
    }

    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

/// A request that is not answered yet, or not to its end.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Pulse>);

impl UnderWay {
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // The time first: whoever sees that nothing is under way must not see an old one.
        self.0.idle_since.store(self.0.now(), Ordering::Release);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER - 1)
}
