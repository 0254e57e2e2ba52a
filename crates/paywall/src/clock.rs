//! The time that offers are made and judged by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farthing_engine::World;
use farthing_primitives::Timestamp;

/// A clock that never goes back: the latest that the wall clock ever said, carried on by the monotonic one.
///
/// Offers are made and judged by us alone, so no other clock needs to agree with this one. Were they judged by the wall
/// clock, setting that back would make offers of old prices valid again; and those that were made while it ran ahead
/// would stay valid for as long as it did. What others signed is not judged by this clock: they used a wall clock too.
pub(crate) struct OfferClock {
    world: Arc<dyn World>,
    /// By how many milliseconds the mark is ahead of the monotonic clock. Only ever grows.
    ahead: AtomicU64,
}

impl OfferClock {
    pub fn new(world: Arc<dyn World>) -> Self {
        Self { world, ahead: AtomicU64::new(0) }
    }

    /// It is at least this late, e.g. because an earlier process wrote down that it was.
    pub fn not_before(&self, mark: Timestamp) -> Timestamp {
        // A process has not run for so long that its milliseconds need more than 64 bits.
        let running = u64::try_from(self.world.monotonic().as_millis()).unwrap_or(u64::MAX);
        let ahead = mark.millis().saturating_sub(running);
        let before = self.ahead.fetch_max(ahead, Ordering::AcqRel);
        Timestamp::from_millis(ahead.max(before)).plus(Duration::from_millis(running))
    }

    pub fn now(&self) -> Timestamp {
        self.not_before(self.world.now())
    }
}
