use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use farthing_primitives::Timestamp;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Time, chance and tasks: all that the engine needs from its surroundings. A simulation brings its own.
pub trait World: Send + Sync {
    /// Wall time: for deadlines that another party signed.
    fn now(&self) -> Timestamp;

    /// Time that never goes back, from an arbitrary start: for durations.
    fn monotonic(&self) -> Duration;

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs a task to its end, whatever becomes of the request that asked for it.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Unpredictable bytes.
    fn random(&self, into: &mut [u8]);
}

impl dyn World {
    /// Ten unpredictable bytes: the random part of an id.
    pub fn random10(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        self.random(&mut bytes);
        bytes
    }
}
