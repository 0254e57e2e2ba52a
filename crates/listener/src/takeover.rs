use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::pulse::{Pulse, UnderWay};

/// The right to go on with a request's connection as something else than HTTP, e.g. as a WebSocket: in the extensions of
/// each request. Who upgrades a connection takes it, and keeps what it gets for as long as the connection lasts, which
/// keeps its place among the others meanwhile.
#[derive(Clone)]
pub struct Takeover {
    alive: mpsc::Sender<()>,
    pulse: Arc<Pulse>,
    stopped: watch::Receiver<bool>,
}

/// A connection that was taken over. Its place is given back when this is dropped.
pub struct Taken {
    _alive: mpsc::Sender<()>,
    under_way: UnderWay,
    stopped: watch::Receiver<bool>,
}

impl Takeover {
    pub(crate) fn new(pulse: Arc<Pulse>, stopped: watch::Receiver<bool>) -> (Self, mpsc::Receiver<()>) {
        let (alive, over) = mpsc::channel(1);
        (Self { alive, pulse, stopped }, over)
    }

    /// From now on the connection is not idle, whatever is asked on it.
    pub fn take(&self) -> Taken {
        Taken { _alive: self.alive.clone(), under_way: self.pulse.request(), stopped: self.stopped.clone() }
    }
}

impl Taken {
    /// Resolves when the service stops: the connection has to end in the time that the limits give.
    pub async fn stopped(&self) {
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }

    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        self.under_way.pulse()
    }

    pub(crate) fn stop_signal(&self) -> watch::Receiver<bool> {
        self.stopped.clone()
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Takeover")
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taken")
    }
}
