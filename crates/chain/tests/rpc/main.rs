//! [`farthing_chain::RpcChain`] against nodes that behave well and badly.

// Tests may unwrap, also in what they share: there, a panic is the report.
#![allow(clippy::unwrap_used, clippy::panic)]

mod devnet;
mod nodes;
mod reads;
mod support;
