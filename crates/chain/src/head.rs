//! The tip, as all who wait for it share it, and how long a block takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farthing_engine::Head;
use tokio::sync::watch;
use tokio::time::Instant;

/// What is assumed until the chain has told.
const DEFAULT_BLOCK_TIME: Duration = Duration::from_secs(2);
const MIN_BLOCK_TIME: Duration = Duration::from_millis(50);
const MAX_BLOCK_TIME: Duration = Duration::from_secs(30);
/// Timestamps are whole seconds, so short blocks are measured over many.
const MEASURED_BLOCKS: u64 = 64;
/// The first blocks of a new chain say little: the very first may be as old as its software.
const LEAST_MEASURED_BLOCKS: u64 = 8;
/// Block times change.
const MEASURE_EVERY_BLOCKS: u64 = 32;
pub(crate) const MIN_POLL: Duration = Duration::from_millis(20);
const MAX_POLL: Duration = Duration::from_millis(250);
/// A lower tip from whichever node answered is a reorg only if it stays for this many polls: a node that was failed
/// over to may just be a little behind.
const BELIEVE_LOWER_AFTER: u32 = 8;

/// About how long a block takes: told by the configuration, or learned.
pub(crate) struct BlockTime {
    told: Option<Duration>,
    /// Zero until learned.
    learned_ms: AtomicU64,
    /// The tip when it was last learned.
    learned_at: AtomicU64,
}

impl BlockTime {
    pub(crate) fn new(told: Option<Duration>) -> Self {
        Self { told, learned_ms: AtomicU64::new(0), learned_at: AtomicU64::new(0) }
    }

    pub(crate) fn get(&self) -> Duration {
        if let Some(told) = self.told {
            return told.max(Duration::from_millis(1));
        }
        match self.learned_ms.load(Ordering::Relaxed) {
            0 => DEFAULT_BLOCK_TIME,
            learned => Duration::from_millis(learned),
        }
    }

    /// The block to compare the tip `at` with, if there is something to learn.
    pub(crate) fn wants(&self, at: u64) -> Option<u64> {
        let first = self.learned_ms.load(Ordering::Relaxed) == 0;
        let grown = at.abs_diff(self.learned_at.load(Ordering::Relaxed));
        (self.told.is_none() && (first || grown >= MEASURE_EVERY_BLOCKS))
            .then(|| at.saturating_sub(MEASURED_BLOCKS))
            .filter(|from| *from + LEAST_MEASURED_BLOCKS <= at)
    }

    /// Learns from two blocks of one chain.
    pub(crate) fn learn(&self, earlier: &Head, later: &Head) {
        let blocks = u128::from(later.number.saturating_sub(earlier.number));
        if blocks == 0 || self.told.is_some() {
            return;
        }
        let took = later.timestamp.since(earlier.timestamp).as_millis() / blocks;
        let took = took.clamp(MIN_BLOCK_TIME.as_millis(), MAX_BLOCK_TIME.as_millis());
        self.learned_ms.store(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.learned_at.store(later.number, Ordering::Relaxed);
    }
}

/// How often to ask for the tip while somebody waits for it.
pub(crate) fn poll_interval(told: Option<Duration>, block_time: Duration) -> Duration {
    told.unwrap_or_else(|| (block_time / 8).min(MAX_POLL)).max(MIN_POLL)
}

/// How long to leave the tip alone, after it was last heard to change `since` ago.
///
/// In the last quarter of a block's time, and for a while when the block is late, the tip is asked for four times as
/// often: a receipt is worth most while somebody waits for an answer.
pub(crate) fn pause(told: Option<Duration>, block_time: Duration, since: Duration) -> Duration {
    let usual = poll_interval(told, block_time);
    let due = (block_time * 3 / 4..block_time * 4).contains(&since);
    if due && told.is_none() { usual.min(block_time / 32).max(MIN_POLL) } else { usual }
}

/// A tip, and when a node last said that it is the tip.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub head: Head,
    pub at: Instant,
    /// When it was first heard.
    pub first: Instant,
}

/// The shared tip.
pub(crate) struct Tip {
    seen: watch::Sender<Option<Seen>>,
    lower: AtomicU64,
}

/// What a newly heard tip changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Same,
    /// It follows the one before, as far as can be told.
    Next,
    /// The one before is not among its ancestors. Information only: receipts and hashes decide.
    Reorg,
    /// It is lower than one that we had, and not believed yet.
    Lower,
}

impl Tip {
    pub(crate) fn new() -> Self {
        Self { seen: watch::Sender::new(None), lower: AtomicU64::new(0) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.subscribe()
    }

    /// How long ago the tip was first heard.
    pub(crate) fn since_change(&self, now: Instant) -> Duration {
        self.seen.borrow().map_or(Duration::ZERO, |seen| now.saturating_duration_since(seen.first))
    }

    pub(crate) fn awaited(&self) -> bool {
        self.seen.receiver_count() > 0
    }

    pub(crate) fn hear(&self, head: Head, at: Instant) -> News {
        let before = *self.seen.borrow();
        let news = compare(before.as_ref().map(|seen| &seen.head), &head);
        if news == News::Lower && self.lower.fetch_add(1, Ordering::Relaxed) < u64::from(BELIEVE_LOWER_AFTER)
        {
            return News::Lower;
        }
        self.lower.store(0, Ordering::Relaxed);
        let first = before.filter(|_| news == News::Same).map_or(at, |seen| seen.first);
        self.seen.send_replace(Some(Seen { head, at, first }));
        if news == News::Lower { News::Reorg } else { news }
    }
}

fn compare(before: Option<&Head>, now: &Head) -> News {
    let Some(before) = before else { return News::Next };
    if before.hash == now.hash {
        News::Same
    } else if now.number < before.number {
        News::Lower
    } else if now.number == before.number || (now.number == before.number + 1 && now.parent != before.hash) {
        News::Reorg
    } else {
        News::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farthing_primitives::Timestamp;

    fn head(number: u64, hash: u8, parent: u8) -> Head {
        Head {
            number,
            hash: [hash; 32],
            parent: [parent; 32],
            timestamp: Timestamp::from_secs(100 + number * 2),
            base_fee: 0,
        }
    }

    #[tokio::test]
    async fn a_tip_that_does_not_follow_is_a_reorg() {
        let tip = Tip::new();
        let hear = |head| tip.hear(head, Instant::now());
        assert_eq!(hear(head(5, 5, 4)), News::Next);
        assert_eq!(hear(head(5, 5, 4)), News::Same);
        assert_eq!(hear(head(6, 6, 5)), News::Next);
        assert_eq!(hear(head(7, 70, 60)), News::Reorg);
        assert_eq!(hear(head(7, 7, 6)), News::Reorg);
        assert_eq!(hear(head(9, 9, 8)), News::Next);
    }

    #[tokio::test]
    async fn a_lower_tip_is_believed_when_it_stays() {
        let tip = Tip::new();
        let seen = tip.subscribe();
        tip.hear(head(9, 9, 8), Instant::now());
        for _ in 0..BELIEVE_LOWER_AFTER {
            assert_eq!(tip.hear(head(8, 8, 7), Instant::now()), News::Lower);
            assert_eq!(seen.borrow().unwrap().head.number, 9);
        }
        assert_eq!(tip.hear(head(8, 8, 7), Instant::now()), News::Reorg);
        assert_eq!(seen.borrow().unwrap().head.number, 8);
    }

    #[test]
    fn the_time_of_a_block_is_learned_unless_told() {
        let learned = BlockTime::new(None);
        assert_eq!(learned.get(), DEFAULT_BLOCK_TIME);
        assert_eq!(learned.wants(100), Some(36));
        assert_eq!(learned.wants(8), Some(0));
        assert_eq!(learned.wants(7), None);
        learned.learn(&head(40, 1, 1), &head(40, 1, 1));
        assert_eq!(learned.wants(100), Some(36));
        let (mut quick, mut stopped) = (head(104, 1, 1), head(101, 1, 1));
        quick.timestamp = Timestamp::from_secs(301);
        learned.learn(&head(100, 1, 1), &quick);
        assert_eq!(learned.get(), Duration::from_millis(250));
        assert_eq!((learned.wants(104), learned.wants(135)), (None, None));
        assert_eq!(learned.wants(136), Some(72));
        stopped.timestamp = Timestamp::from_secs(999_999);
        learned.learn(&head(100, 1, 1), &stopped);
        assert_eq!(learned.get(), MAX_BLOCK_TIME);
        let told = BlockTime::new(Some(Duration::from_millis(200)));
        told.learn(&head(1, 1, 1), &head(9, 1, 1));
        assert_eq!(told.get(), Duration::from_millis(200));
    }

    #[test]
    fn a_block_that_is_due_is_watched_for() {
        let ms = Duration::from_millis;
        let check = |told: Option<u64>, block_ms, since_ms, expected| {
            assert_eq!(
                pause(told.map(ms), ms(block_ms), ms(since_ms)),
                ms(expected),
                "{block_ms} {since_ms}"
            );
        };
        check(None, 1920, 0, 240);
        check(None, 1920, 1439, 240);
        check(None, 1920, 1440, 60);
        check(None, 1920, 7679, 60);
        check(None, 1920, 7680, 240);
        check(None, 12_000, 10_000, 250);
        check(None, 200, 190, 20);
        check(Some(500), 2000, 1900, 500);
    }

    #[test]
    fn the_poll_has_edges() {
        let check = |told: Option<u64>, block_ms, expected| {
            let told = told.map(Duration::from_millis);
            assert_eq!(poll_interval(told, Duration::from_millis(block_ms)), Duration::from_millis(expected));
        };
        check(None, 2000, 250);
        check(None, 1000, 125);
        check(None, 12_000, 250);
        check(None, 100, 20);
        check(Some(5), 2000, 20);
        check(Some(1000), 2000, 1000);
    }
}
