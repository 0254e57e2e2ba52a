//! A chain behind JSON-RPC nodes: reads, nonces, fees, inclusion, reorgs.
//!
//! [`RpcChain`] is the engine's [`Chain`](farthing_engine::Chain) over one or more nodes of one EVM network. Reads of
//! many payments share calls, nodes that fail are skipped for a while, a node of another chain is never used, and an
//! answer that cannot be read is an error and not a guess. This is the only crate with an RPC stack.

mod broadcast;
mod config;
mod fees;
mod head;
mod http;
mod key;
mod node;
mod nodes;
mod reader;
mod rpc;
mod wire;

pub use config::{ChainConfig, ConfigError};
pub use key::LocalKey;
pub use rpc::RpcChain;
