//! The wallet in a process of its own. It holds the keys and what was spent; agents, each with a token that can be
//! revoked, ask it over a socket for payments, and get signatures for what the owner allows and for nothing else.
//!
//! [`Guard`] is the border: whatever an agent says about the chain, about time or about other people's purchases is not
//! taken from it. [`serve`] carries the protocol over any stream, and [`RemoteAuthorizer`] is its other end.

mod agent;
mod client;
mod front;
mod guard;
mod hook;
mod lines;
mod owner;
pub mod protocol;
mod serve;
pub mod socket;
mod stop;
mod tls;
mod whom;

#[cfg(test)]
mod tests;

pub use client::{ConnectError, Dial, RemoteAuthorizer, Stream, UnixDial};
pub use guard::{Guard, OpenSessionKey};
pub use hook::{HOOK_EVENT, HOOK_PATH, HOOK_WINDOW, Hook, HookError, HookSetupError, Signed, serve_hook};
pub use owner::{OwnerSocket, Revocation, freeze_at, revoke_at};
pub use serve::{Peer, serve};
pub use stop::Whom;
pub use tls::{TlsDial, TlsError, TlsFiles, TlsSocket};
