use std::sync::Arc;
use std::time::Duration;

use farthing_primitives::Timestamp;

use crate::World;

/// The engine's own clock: the wall clock of the start, carried on by the clock that never goes back.
///
/// The wall clock may be set at any time, forwards and back. What others signed is compared with it, since they used
/// such a clock too; but what we remember, forget and wait for must not depend on its leaps.
pub(crate) struct Clock {
    world: Arc<dyn World>,
    wall: Timestamp,
    started: Duration,
}

impl Clock {
    pub fn new(world: Arc<dyn World>) -> Self {
        let (wall, started) = (world.now(), world.monotonic());
        Self { world, wall, started }
    }

    /// How long this process has run.
    pub fn running(&self) -> Duration {
        self.world.monotonic().saturating_sub(self.started)
    }

    fn steady(&self) -> Timestamp {
        self.wall.plus(self.running())
    }

    /// For our records, and for waiting: goes on while the wall clock is set back.
    pub fn stamp(&self) -> Timestamp {
        self.world.now().max(self.steady())
    }

    /// For forgetting: stays behind while the wall clock leaps ahead.
    pub fn surely(&self) -> Timestamp {
        self.world.now().min(self.steady())
    }
}
