use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Told whether everything that was written before left for the client.
type Told = Box<dyn FnOnce(bool) + Send>;

/// A connection's way out, for whoever must know whether an answer left. In the extensions of each request.
#[derive(Clone, Default)]
pub struct Departures(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: Vec<Told>,
    over: bool,
}

impl Departures {
    /// Calls `told` once it is known of all that was handed to the connection before: with `true` if the operating
    /// system took it while the client had not hung up, with `false` if the connection ended before.
    ///
    /// What the operating system took may still be lost on its way: nobody but the client knows. Over HTTP/2 the last
    /// piece of a body, [`crate::MAX_FRAME_OF_ANSWER`] bytes at most, may wait for its window when this says `true`.
    pub fn when_gone(&self, told: impl FnOnce(bool) + Send + 'static) {
        let mut state = self.state();
        if !state.over {
            state.waiting.push(Box::new(told));
            return;
        }
        drop(state);
        told(false);
    }

    pub(crate) fn is_awaited(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Everything that was handed over has left.
    pub(crate) fn gone(&self) {
        self.tell(true);
    }

    /// Nothing leaves any more.
    pub(crate) fn over(&self) {
        self.state().over = true;
        self.tell(false);
    }

    fn tell(&self, left: bool) {
        let waiting = std::mem::take(&mut self.state().waiting);
        waiting.into_iter().for_each(|told| told(left));
    }

    /// A panic elsewhere must not stop the service: the list is whole between statements.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Departures")
    }
}
