//! What a process knows of its surroundings: time, chance and tasks, all of them the simulation's.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farthing_engine::{BoxFuture, World};
use farthing_primitives::Timestamp;

use crate::exec::{Exec, ProcessId, lock};
use crate::rng::Rng;

/// When every world begins, in seconds since 1970.
pub const EPOCH_SECS: u64 = 1_800_000_000;

/// A machine's wall clock, in milliseconds before or after the right time. Processes on it share it.
pub type Skew = Arc<AtomicI64>;

pub struct ProcessWorld {
    exec: Exec,
    process: ProcessId,
    skew: Skew,
    rng: Mutex<Rng>,
}

impl ProcessWorld {
    pub fn new(exec: Exec, process: ProcessId, skew: Skew, rng: Rng) -> Self {
        Self { exec, process, skew, rng: Mutex::new(rng) }
    }
}

/// The right time.
pub fn true_time(exec: &Exec) -> Timestamp {
    Timestamp::from_millis(EPOCH_SECS * 1000 + exec.micros() / 1000)
}

impl World for ProcessWorld {
    fn now(&self) -> Timestamp {
        let right = true_time(&self.exec).millis();
        Timestamp::from_millis(right.saturating_add_signed(self.skew.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Duration {
        self.exec.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.exec.sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.exec.spawn(self.process, task);
    }

    fn random(&self, into: &mut [u8]) {
        lock(&self.rng).fill(into);
    }
}
