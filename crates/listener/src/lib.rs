//! Connections from strangers: bounded in number, size and time, by peer and in all.
//!
//! [`serve`] accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and hands requests to a handler. It ends
//! connections that hold on to something without using it: those that never ask, that dribble a request or a body, that
//! do not read their answer, and those that idle while others wait for a place. `docs/reference/limits.md` has the table.

mod departure;
mod files;
mod inbound;
mod limits;
mod outbound;
mod paced;
mod pulse;
mod serve;
mod table;
mod takeover;

#[cfg(test)]
mod tests;

pub use departure::Departures;
pub use files::{RESERVED_FILES, raise_file_limit};
pub use inbound::Inbound;
pub use limits::{
    Limits, MAX_FRAME_OF_ANSWER, MAX_HEADERS, MAX_PENDING_RESETS, MAX_SEND_BUFFER, MAX_STREAMS, PING_EVERY,
    PING_WITHIN, STREAM_WINDOW, WINDOW,
};
pub use outbound::Outbound;
pub use serve::{Peer, Server, serve, serve_taken};
pub use table::network_of;
pub use takeover::{Taken, Takeover};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
