//! Store on SQLite, and the in-memory model.
//!
//! [`SqliteStore`] is the durable truth of one machine; [`MemoryStore`] is the obvious slow one that says what the
//! right answers are. Both pass the same suite (`tests/suite.rs`) and answer the same to the same random
//! operations (`tests/model.rs`).

mod limits;
mod memory;

pub use limits::{MAX_LISTED, QUEUE_LEN};
pub use memory::MemoryStore;
