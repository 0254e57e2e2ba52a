//! The embedded chain for development: real EVM semantics behind a JSON-RPC face.
//!
//! It starts in milliseconds inside the process that needs it, with funded accounts whose keys everybody knows and
//! with the contracts of a payment at the addresses they have on Base Sepolia. Nothing on it is worth anything, and
//! nothing on it is kept.
//!
//! ```no_run
//! # async fn example() -> Result<(), farthing_devnet::DevnetError> {
//! let devnet = farthing_devnet::Devnet::start(farthing_devnet::DevnetConfig::default()).await?;
//! println!("{}", devnet.rpc_url());
//! devnet.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod accounts;
mod chain;
mod contracts;
mod exec;
mod pool;
mod rpc;
mod server;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use alloy_primitives::{Address, U256};
use thiserror::Error;

pub use accounts::{
    DEV_ACCOUNT_COUNT, DEV_ACCOUNTS, DEV_MNEMONIC, DevAccount, MINTER, dev_account, is_dev_key,
};
pub use chain::{BLOCK_GAS_LIMIT, INITIAL_BASE_FEE, STATE_HISTORY_BLOCKS};
pub use contracts::{
    Artifact, Deployment, MULTICALL3, PERMIT2, USDC, WALLET_FACTORY, X402_EXACT_PROXY,
    payment_channel_escrow, smart_wallet,
};
pub use server::Devnet;

/// What `web3_clientVersion` answers.
pub const CLIENT_VERSION: &str =
    concat!("farthing-devnet/", env!("CARGO_PKG_VERSION"), " (development only)");
/// The chain id of Base Sepolia, which the embedded chain has by default.
pub const DEFAULT_CHAIN_ID: u64 = 84_532;
/// Bytes of a request body at most.
pub const MAX_BODY_BYTES: usize = 5 * 1024 * 1024;
/// Requests in a batch at most.
pub const MAX_BATCH: usize = 1_000;
/// Ether that each development account starts with.
pub const DEV_ETHER: u64 = 10_000;
/// Whole dev USDC that each development account starts with.
pub const DEV_USDC: u64 = 1_000_000;

/// When blocks come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockTime {
    /// Each transaction has a block of its own, at once.
    Instant,
    /// A block each time this has passed, also when it is empty.
    Interval(Duration),
}

/// How the embedded chain is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevnetConfig {
    /// The chain id. That of Base Sepolia by default.
    pub chain_id: u64,
    /// Where JSON-RPC listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// When blocks come.
    pub block_time: BlockTime,
    /// Whether `listen` may be reachable from other machines. They could spend everything and rewrite the chain.
    pub allow_non_loopback: bool,
    /// Ether of each development account.
    pub dev_ether: u64,
    /// Whole dev USDC of each development account that `usdc` does not name.
    pub dev_usdc: u64,
    /// Balances in wei, beside and instead of those of the development accounts.
    pub wei: Vec<(Address, U256)>,
    /// Balances in atoms of dev USDC, beside and instead of those of the development accounts.
    pub usdc: Vec<(Address, u128)>,
    /// How many blocks `safe` and `finalized` are behind `latest`. None by default, since with instant blocks the
    /// next one may never come.
    pub finality_blocks: u64,
    /// How long every answer is held back, to feel like a node that is far away. Zero by default.
    pub rpc_delay: Duration,
}

impl Default for DevnetConfig {
    fn default() -> Self {
        Self {
            chain_id: DEFAULT_CHAIN_ID,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            block_time: BlockTime::Instant,
            allow_non_loopback: false,
            dev_ether: DEV_ETHER,
            dev_usdc: DEV_USDC,
            wei: Vec::new(),
            usdc: Vec::new(),
            finality_blocks: 0,
            rpc_delay: Duration::ZERO,
        }
    }
}

/// Why the embedded chain does not start.
#[derive(Debug, Error)]
pub enum DevnetError {
    /// Other machines could reach it, and nobody allowed that.
    #[error("{0} is not a loopback address: an embedded chain is for development on one machine")]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The first block cannot be built; the configured balances may be too large.
    #[error("{0}")]
    Genesis(String),
    /// An interval of zero would never stop mining.
    #[error("the block interval is zero")]
    ZeroInterval,
}
