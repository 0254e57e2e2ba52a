//! A seeded world with faults and checkers. It drives the production paywall, engine, rail, relayer and store logic on a
//! single thread with a virtual clock: one seed, one history.
//!
//! [`Plan::from_seed`] says what goes wrong, [`run`] lets it happen, the checkers say what must not be, and
//! [`shrink`] takes away what a violation does not need.

// A development tool: it may stop at what cannot be.
#![allow(clippy::cast_possible_truncation, clippy::missing_panics_doc)]

mod chain;
mod channels;
mod check;
mod disk;
mod escrow;
mod exec;
mod facilitators;
mod facts;
mod gateway;
mod home;
mod meters;
mod net;
mod node;
mod owner;
mod patron;
mod payer;
mod plan;
mod platter;
mod refunds;
mod rng;
mod run;
mod shrink;
mod world;

pub use disk::Ailments as DiskAilments;
pub use facilitators::{Habits, Lies, Remotes, Way, Who};
pub use gateway::Mood;
pub use meters::Sessions;
pub use net::Ailments as NetAilments;
pub use node::Ailments as NodeAilments;
pub use payer::{Pays, Style};
pub use plan::{Act, Line, Plan};
pub use platter::Trouble;
pub use run::{Counts, Outcome, run};
pub use shrink::shrink;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Waits on this very thread for a future that others' threads, or nobody, work on.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
