//! The wallet in a process of its own. It holds the keys and what was spent; agents, each with a token that can be
//! revoked, ask it over a socket for payments, and get signatures for what the owner allows and for nothing else.
//!
//! [`Guard`] is the border: whatever an agent says about the chain, about time or about other people's purchases is not
//! taken from it. [`serve`] carries the protocol over any stream, and [`RemoteAuthorizer`] is its other end.

mod agent;
mod client;
mod front;
mod guard;
mod lines;
pub mod protocol;
mod serve;
pub mod socket;
mod token;

#[cfg(test)]
mod tests;

pub use client::{ConnectError, Dial, RemoteAuthorizer, Stream, UnixDial};
pub use guard::Guard;
pub use serve::{Peer, serve};
pub use token::{Token, TokenError};
