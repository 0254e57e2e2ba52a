use std::fmt;
use std::time::Duration;

use farthing_evm::{Address, known};
use farthing_primitives::Network;
use url::Url;

/// How an [`RpcChain`](crate::RpcChain) talks to its nodes.
///
/// [`ChainConfig::new`] fills in what suits most nodes. Printing it shows no path, query or user of a URL, because
/// those hold API keys.
#[derive(Clone)]
pub struct ChainConfig {
    pub network: Network,
    /// In order of preference. The first that is healthy is asked; the others stand by.
    pub rpc_urls: Vec<Url>,
    /// How long a block takes; `None` learns it from the chain.
    pub block_time: Option<Duration>,
    /// After this time a request counts as lost. Default 5 s.
    pub request_timeout: Duration,
    /// How often the tip is asked for while somebody waits for it; `None` is an eighth of the block time, at most
    /// 250 ms, and more often while a block is due. Never below 20 ms. After a broadcast it is asked for at once.
    pub poll_interval: Option<Duration>,
    /// The Multicall3 contract. A node where it has no code, or `None`, gets JSON-RPC batches of `eth_call` instead.
    pub multicall: Option<Address>,
    /// How many reads share one `eth_call`. Default 48, which are sixteen payments. More saves calls; fewer uses more
    /// cores of the node, and lets it work while we read what came before.
    pub max_reads_per_call: usize,
    /// How many shared calls may be on their way at once. Default 32.
    pub max_calls_in_flight: usize,
    /// How many reads may wait; beyond it callers are told [`Busy`](farthing_engine::ChainError::Busy). Default 20,000.
    pub max_queued_reads: usize,
    /// How long a read waits for others to share its call while another call is on its way. Default 2 ms. A read that
    /// finds nothing on its way never waits.
    pub batch_window: Duration,
    /// How long the answer to a view read stays good for `read` (never for `read_at`, and never beyond a new tip that
    /// we hear of). Default zero: not at all.
    pub mirror: Duration,
    /// How many requests one JSON-RPC batch holds. Default 100, which is what the stricter providers accept.
    pub max_batch: usize,
    /// How many HTTP requests may be open at once. Default 128.
    pub max_connections: usize,
    /// The least tip, in wei for each unit of gas. Default 1,000,000 (0.001 gwei).
    pub min_priority_fee: u128,
    /// The greatest tip, in wei for each unit of gas, whatever the node suggests. Default 50 gwei.
    pub max_priority_fee: u128,
}

/// Why a configuration is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{0} is not an EVM network")]
    NotEvm(Network),
    #[error("no RPC URL for {0}")]
    NoUrl(Network),
    #[error("the RPC URL at {0} is neither http nor https")]
    Scheme(String),
    #[error("the HTTP client cannot be set up: {0}")]
    Http(String),
}

impl ChainConfig {
    pub fn new(network: Network, rpc_urls: Vec<Url>) -> Self {
        Self {
            network,
            rpc_urls,
            block_time: None,
            request_timeout: Duration::from_secs(5),
            poll_interval: None,
            multicall: Some(known::MULTICALL3),
            max_reads_per_call: 48,
            max_calls_in_flight: 32,
            max_queued_reads: 20_000,
            batch_window: Duration::from_millis(2),
            mirror: Duration::ZERO,
            max_batch: 100,
            max_connections: 128,
            min_priority_fee: 1_000_000,
            max_priority_fee: 50_000_000_000,
        }
    }
}

/// What of a URL may be shown: providers put API keys in user, path and query.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

impl fmt::Debug for ChainConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainConfig")
            .field("network", &self.network)
            .field("rpc_urls", &self.rpc_urls.iter().map(shown).collect::<Vec<_>>())
            .field("block_time", &self.block_time)
            .field("request_timeout", &self.request_timeout)
            .field("poll_interval", &self.poll_interval)
            .field("multicall", &self.multicall)
            .field("max_reads_per_call", &self.max_reads_per_call)
            .field("max_calls_in_flight", &self.max_calls_in_flight)
            .field("max_queued_reads", &self.max_queued_reads)
            .field("batch_window", &self.batch_window)
            .field("mirror", &self.mirror)
            .field("max_batch", &self.max_batch)
            .field("max_connections", &self.max_connections)
            .field("min_priority_fee", &self.min_priority_fee)
            .field("max_priority_fee", &self.max_priority_fee)
            .finish()
    }
}
