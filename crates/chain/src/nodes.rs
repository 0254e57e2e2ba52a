//! The nodes of one chain: which of them is asked, and who is next when it fails.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Bytes, hex};
use farthing_engine::ChainError;
use farthing_evm::Address;
use farthing_primitives::Network;
use tokio::time::Instant;

use crate::config::{ChainConfig, ConfigError};
use crate::http::{Clients, Failure, Http};
use crate::node::{Answer, Ask, Multicall, Node};
use crate::wire;

/// A node this many blocks behind another gives no reads. Nodes of one provider differ by one or two.
const MAX_LAG_BLOCKS: u64 = 3;
/// On a chain with short blocks a lag is counted in time instead.
const MAX_LAG: Duration = Duration::from_secs(3);

pub(crate) struct Nodes {
    network: Network,
    chain_id: u64,
    multicall: Option<Address>,
    nodes: Vec<Arc<Node>>,
}

/// What a question may do to the standing of the node that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Failing to answer is the node's fault.
    Node,
    /// It may be the fault of code that a payer chose: such a failure must not take a node out of service.
    Payer,
}

/// Why one node's answers don't serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    Failed(Failure),
    Said(String),
    Unreadable,
}

impl From<wire::Unreadable> for Trouble {
    fn from(_: wire::Unreadable) -> Self {
        Self::Unreadable
    }
}

impl Trouble {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Failed(failure) => failure.to_string(),
            Self::Said(text) => text.clone(),
            Self::Unreadable => Failure::Unreadable.to_string(),
        }
    }
}

/// The result in an answer, or what the node said instead.
pub(crate) fn result(answer: Answer) -> Result<Box<serde_json::value::RawValue>, Trouble> {
    answer.map_err(|error| Trouble::Said(wire::text(&format!("{} (code {})", error.message, error.code))))
}

/// The result of the only request.
pub(crate) fn single(answers: Vec<Answer>) -> Result<Box<serde_json::value::RawValue>, Trouble> {
    answers.into_iter().next().ok_or(Trouble::Unreadable).and_then(result)
}

impl Nodes {
    pub(crate) fn new(config: &ChainConfig) -> Result<Self, ConfigError> {
        let network = config.network.clone();
        let chain_id = network.evm_chain_id().ok_or_else(|| ConfigError::NotEvm(network.clone()))?;
        if config.rpc_urls.is_empty() {
            return Err(ConfigError::NoUrl(network));
        }
        let mut clients = Clients::new(config.request_timeout, config.max_connections);
        let mut node = |url: &url::Url| {
            let http = Http::new(url.clone(), &mut clients)?;
            Ok(Arc::new(Node::new(http, config.max_batch)))
        };
        let nodes = config.rpc_urls.iter().map(&mut node).collect::<Result<_, _>>()?;
        Ok(Self { network, chain_id, multicall: config.multicall, nodes })
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn multicall(&self) -> Option<Address> {
        self.multicall
    }

    pub(crate) fn are_many(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Asks one node after the other until the answers of one can be used.
    ///
    /// `build` makes the questions, which may depend on the node; `read` makes sense of the answers.
    pub(crate) async fn query<T>(
        self: &Arc<Self>,
        blame: Blame,
        block_time: Duration,
        build: impl Fn(&Node) -> Vec<Ask> + Send + Sync,
        read: impl Fn(&Node, Vec<Answer>) -> Result<T, Trouble> + Send + Sync,
    ) -> Result<T, ChainError> {
        let mut last = None;
        for node in self.candidates() {
            if self.lags(&node, block_time) {
                continue;
            }
            match self.query_node(&node, blame, &build, &read).await {
                Ok(value) => return Ok(value),
                Err(trouble) => {
                    tracing::debug!(network = %self.network, node = node.shown(), trouble = trouble.text(), "no answer");
                    last = Some(trouble);
                }
            }
        }
        Err(self.error(last))
    }

    async fn query_node<T>(
        &self,
        node: &Node,
        blame: Blame,
        build: impl Fn(&Node) -> Vec<Ask> + Send + Sync,
        read: impl Fn(&Node, Vec<Answer>) -> Result<T, Trouble> + Send + Sync,
    ) -> Result<T, Trouble> {
        self.check(node).await?;
        let asks = build(node);
        let answers = self.ask(node, blame, &asks).await.map_err(Trouble::Failed)?;
        drop(asks);
        read(node, answers).inspect_err(|trouble| {
            if *trouble == Trouble::Unreadable && blame == Blame::Node {
                node.doubt();
            }
        })
    }

    /// Asks one node, and takes note of how it went.
    pub(crate) async fn ask(&self, node: &Node, blame: Blame, asks: &[Ask]) -> Result<Vec<Answer>, Failure> {
        let began = Instant::now();
        let answers = node.ask(asks).await;
        match &answers {
            Ok(_) => node.worked(),
            // An answer of any length can be the doing of a payer's contract, and the queue is our own.
            Err(Failure::Oversize | Failure::Saturated) => {}
            Err(failure) if blame == Blame::Node => {
                node.failed(began, Instant::now());
                tracing::warn!(network = %self.network, node = node.shown(), %failure, "a node fails");
            }
            Err(_) => {}
        }
        answers
    }

    /// Makes sure that the node is of our chain: once before its first use, and again after each failure.
    pub(crate) async fn check(&self, node: &Node) -> Result<(), Trouble> {
        if node.checked(Instant::now()) {
            return Ok(());
        }
        let arrived = Instant::now();
        let _one = node.checking.lock().await;
        if node.checked(Instant::now()) {
            return Ok(());
        }
        // Whoever held the lock may have found it dead: then nobody else waits for the same time-out.
        if node.failed_since(arrived) || node.backs_off(Instant::now()) {
            return Err(Trouble::Failed(Failure::Unreachable));
        }
        let mut asks =
            vec![Ask::new("eth_chainId", "[]".to_owned()), Ask::new("eth_blockNumber", "[]".to_owned())];
        if let Some(contract) = self.multicall {
            asks.push(Ask::new("eth_getCode", format!("[\"{contract:#x}\",\"latest\"]")));
        }
        let mut answers =
            self.ask(node, Blame::Node, &asks).await.map_err(Trouble::Failed)?.into_iter().map(result);
        let mut next = || answers.next().unwrap_or(Err(Trouble::Unreadable));
        let chain_id = wire::quantity(&next()?)?;
        if chain_id != self.chain_id {
            node.refuse(Instant::now());
            tracing::error!(network = %self.network, node = node.shown(), chain_id, "refused: a node of another chain");
            return Err(Trouble::Said(format!("it is a node of eip155:{chain_id}")));
        }
        node.reached(wire::quantity(&next()?)?);
        let multicall = match self.multicall {
            Some(_) if wire::read::<Bytes>(&next()?)?.is_empty() => Multicall::Missing,
            Some(_) => Multicall::Present,
            None => Multicall::NotWanted,
        };
        node.passed_check(multicall, Instant::now());
        Ok(())
    }

    /// The nodes to try, best first: those in use, then those that must be checked first. None that backs off.
    pub(crate) fn candidates(self: &Arc<Self>) -> Vec<Arc<Node>> {
        let now = Instant::now();
        let able = self.nodes.iter().filter(|node| !node.backs_off(now)).cloned();
        let (mut ready, unready): (Vec<_>, Vec<_>) = able.partition(|node| node.checked(now));
        if !ready.is_empty() {
            // Nobody waits for a node to come back while another serves.
            for node in &unready {
                self.check_later(Arc::clone(node));
            }
        }
        ready.extend(unready);
        ready
    }

    fn check_later(self: &Arc<Self>, node: Arc<Node>) {
        if node.checking.try_lock().is_err() {
            return;
        }
        let nodes = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(trouble) = nodes.check(&node).await {
                tracing::debug!(network = %nodes.network, node = node.shown(), trouble = trouble.text(), "still away");
            }
        });
    }

    /// Whether the node is too far behind the furthest one that we know of.
    fn lags(&self, node: &Node, block_time: Duration) -> bool {
        let height = node.height();
        let furthest = self.nodes.iter().map(|node| node.height()).max().unwrap_or(0);
        let by_time = MAX_LAG.as_millis() / block_time.as_millis().max(1);
        let allowed = MAX_LAG_BLOCKS.max(u64::try_from(by_time).unwrap_or(u64::MAX));
        height != 0 && furthest.saturating_sub(height) > allowed
    }

    /// Learns how far each node is, for [`Nodes::lags`].
    pub(crate) async fn survey(self: &Arc<Self>) {
        let each = self.candidates().into_iter().map(|node| async move {
            if !node.checked(Instant::now()) {
                return;
            }
            let asks = [Ask::new("eth_blockNumber", "[]".to_owned())];
            let Ok(answers) = self.ask(&node, Blame::Node, &asks).await else { return };
            if let Ok(height) = single(answers).and_then(|raw| Ok(wire::quantity(&raw)?)) {
                node.reached(height);
            }
        });
        futures_util::future::join_all(each).await;
    }

    pub(crate) fn error(&self, trouble: Option<Trouble>) -> ChainError {
        let network = self.network.clone();
        match trouble {
            None => ChainError::Down(network),
            Some(Trouble::Failed(Failure::Saturated)) => ChainError::Busy(network),
            Some(Trouble::Failed(Failure::Unreadable | Failure::Oversize) | Trouble::Unreadable) => {
                ChainError::Unreadable(network)
            }
            Some(Trouble::Failed(_)) => ChainError::Down(network),
            Some(Trouble::Said(message)) => ChainError::Node { network, message },
        }
    }
}

/// `["0x…"]`, and whatever else goes between the brackets.
pub(crate) fn hex_param(bytes: &[u8]) -> String {
    format!("[\"{}\"]", hex::encode_prefixed(bytes))
}
