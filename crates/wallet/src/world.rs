use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farthing_engine::{BoxFuture, World};
use farthing_primitives::Timestamp;

/// The surroundings of a real process, on tokio.
#[derive(Debug)]
pub struct TokioWorld {
    start: Instant,
}

impl TokioWorld {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for TokioWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl World for TokioWorld {
    fn now(&self) -> Timestamp {
        // A clock before 1970 would make every authorization look unexpired: it counts as the end of time instead.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::MAX);
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn random(&self, into: &mut [u8]) {
        // INVARIANT: without randomness no id and no nonce is safe; going on would be worse than stopping.
        #[allow(clippy::expect_used)]
        getrandom::fill(into).expect("the operating system gives random bytes");
    }
}
