//! Store on SQLite, and the in-memory model.
//!
//! [`SqliteStore`] is the durable truth of one machine; [`MemoryStore`] is the obvious slow one that says what the
//! right answers are. Both pass the same suite (`tests/suite.rs`) and answer the same to the same random
//! operations (`tests/model.rs`).
//!
//! The way of a change: the caller encodes it ([`record`]) and queues it; the one writer thread ([`writer`]) takes
//! whatever is queued, applies each change ([`apply`]) inside one transaction, and answers all of them once COMMIT
//! has returned. Reads ([`read`]) have connections and threads of their own.
//!
//! Spec: none outside; `docs/decisions/0004-sqlite.md` says why it is so.

mod apply;
mod backup;
mod books;
#[cfg(feature = "bulk")]
pub mod bulk;
mod check;
mod codec;
mod limits;
mod mandates;
mod memory;
mod names;
mod pack;
mod prune;
mod read;
mod record;
mod replay;
mod schema;
mod sqlite;
mod writer;

pub use backup::{BackupError, Restored, Stage, back_up, restore};
pub use check::Checked;
pub use limits::{MAX_LISTED, QUEUE_LEN};
pub use mandates::{MandateBook, MandateBookError};
pub use memory::MemoryStore;
pub use replay::{Chapter, Story};
pub use schema::OpenError;
pub use sqlite::SqliteStore;
