//! The gateway over real sockets on loopback: what only a connection can show. What is sold and to whom is the
//! paywall's own tests' business; here a till sells to anybody once.

mod connections;
mod discovery;
mod forwarding;
mod reloading;
mod sessions;
mod support;
