//! How fast farthing is beside its peers and beside what the machine can do at all.
//!
//! - [`farthing_load`]: the load, its buyers and what it counts, which `farthing load` uses too.
//! - [`delay`]: a proxy that adds time to every call, for a chain node that is far away.
//! - [`functions`]: rates of functions, each measured in turns with its peer.
//! - [`authorize`]: from a wish to pay to a durable signature, over more or less of a past.
//! - [`claims`]: durable claims through the engine, in turns with raw SQLite.
//! - [`disk`]: what the disk itself syncs.
//! - [`history`]: books with millions of payments.
//! - [`plot`]: pictures of what was measured.
//! - [`writer`]: what the thread that writes takes for a payment, on short and on long books.
//! - [`start`]: how long a program takes until it answers.
//!
//! Development only. Nothing that is shipped depends on this crate.

// Rates and ratios of a machine, never money.
#![allow(clippy::float_arithmetic, clippy::cast_precision_loss)]

pub mod authorize;
pub mod claims;
pub mod delay;
pub mod disk;
pub mod functions;
pub mod history;
pub mod plot;
pub mod session;
pub mod start;
pub mod stats;
pub mod writer;
