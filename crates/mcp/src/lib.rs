//! The Model Context Protocol, over `rmcp`: the wallet as tools for an agent ([`WalletServer`]), a price before a server's
//! tools ([`sell`]), and an owner's policy before them ([`proxy`]).
//!
//! Neither keys nor signed payments are within reach of a tool. What a counterparty wrote comes back as a piece of content
//! of its own, which says so ([`Untrusted`]).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod call;
mod elicit;
mod facts;
mod http;
pub mod proxy;
pub mod sell;
mod tools;
mod untrusted;
mod witness;

pub use call::{MAX_BODY_BYTES, MAX_CALL_ID_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES};
pub use elicit::{ApprovalPage, PageError};
pub use http::{MCP_PATH, ServeError, Token, TokenError, serve_http};
pub use tools::{
    Finder, Listing, MAX_ANSWER_BYTES, MAX_CALLS_AT_ONCE, MAX_FOUND, MAX_HISTORY_ROWS, More, WalletServer,
    serve_stdio,
};
pub use untrusted::{MAX_UNTRUSTED_BYTES, MAX_UNTRUSTED_NOTE_BYTES, UNTRUSTED, Untrusted};
pub use witness::Witness;
