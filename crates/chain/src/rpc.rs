use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use alloy_primitives::hex;
use async_trait::async_trait;
use bytes::Bytes;
use farthing_engine::{
    Broadcast, Chain, ChainError, Fees, Head, KnownTx, LogFilter, Receipt, SignedTx, Standing, Tag, TxHash,
};
use farthing_evm::{Log, Read, ReadResult};
use farthing_primitives::{Address, Network};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::broadcast::classify;
use crate::config::{ChainConfig, ConfigError};
use crate::fees::{Signs, offer};
use crate::head::{BlockTime, MIN_POLL, News, Seen, Tip, pause, poll_interval};
use crate::node::{Answer, Ask, Node};
use crate::nodes::{Blame, Nodes, Trouble, hex_param, result, single};
use crate::reader::Reader;
use crate::wire;

/// How often the nodes are asked how far they are, at most.
const SURVEY_EVERY: Duration = Duration::from_secs(1);
/// An offer of fees is good for one block, and on slow chains for this long.
const FEES_FOR: Duration = Duration::from_secs(6);
const MAX_TOPICS: usize = 4;

/// The engine's view of one EVM chain, over one or more JSON-RPC nodes.
///
/// Must be used within a tokio runtime. Dropping it stops its poller.
pub struct RpcChain {
    inner: Arc<Inner>,
    poller: OnceLock<AbortHandle>,
}

struct Inner {
    nodes: Arc<Nodes>,
    reader: Arc<Reader>,
    block_time: Arc<BlockTime>,
    poll_told: Option<Duration>,
    tip: Tip,
    wake: Notify,
    /// A transaction was sent: on chains with instant blocks the next one is there already.
    sent: Notify,
    surveyed_at: Mutex<Option<Instant>>,
    /// What was last asked about fees, and when.
    fees: tokio::sync::Mutex<Option<(Result<Fees, ChainError>, Instant)>>,
    min_tip: u128,
    max_tip: u128,
}

impl RpcChain {
    /// Sets up the client; nothing is asked of any node before the first use.
    pub fn new(config: ChainConfig) -> Result<Self, ConfigError> {
        let nodes = Arc::new(Nodes::new(&config)?);
        let block_time = Arc::new(BlockTime::new(config.block_time));
        let reader = Arc::new(Reader::new(Arc::clone(&nodes), &config, Arc::clone(&block_time)));
        let inner = Inner {
            nodes,
            reader,
            block_time,
            poll_told: config.poll_interval,
            tip: Tip::new(),
            wake: Notify::new(),
            sent: Notify::new(),
            surveyed_at: Mutex::new(None),
            fees: tokio::sync::Mutex::new(None),
            min_tip: config.min_priority_fee,
            max_tip: config.max_priority_fee,
        };
        Ok(Self { inner: Arc::new(inner), poller: OnceLock::new() })
    }

    /// Makes sure that somebody asks for the tip.
    fn poll(&self) {
        self.poller.get_or_init(|| {
            let inner = Arc::downgrade(&self.inner);
            tokio::spawn(poll(inner)).abort_handle()
        });
        self.inner.wake.notify_one();
    }

    /// With several nodes, reads need to know which of them lag.
    fn used(&self) {
        if self.inner.nodes.are_many() {
            self.inner.survey();
        }
    }
}

impl Drop for RpcChain {
    fn drop(&mut self) {
        if let Some(poller) = self.poller.get() {
            poller.abort();
        }
    }
}

impl fmt::Debug for RpcChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RpcChain({})", self.inner.nodes.network())
    }
}

/// Asks for the tip while somebody waits for it: requests cost money.
async fn poll(chain: Weak<Inner>) {
    loop {
        let Some(inner) = chain.upgrade() else { return };
        if inner.tip.awaited() {
            inner.hear_tip().await;
            if inner.nodes.are_many() {
                inner.survey();
            }
            let since = inner.tip.since_change(Instant::now());
            let pause = pause(inner.poll_told, inner.block_time.get(), since);
            // The least pause holds also when much is sent.
            tokio::time::sleep(MIN_POLL).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(MIN_POLL)) => {}
                () = inner.sent.notified() => {}
            }
        } else {
            inner.wake.notified().await;
        }
    }
}

impl Inner {
    async fn hear_tip(&self) {
        // Failing nodes are noted where they are asked; those who wait have their own patience.
        if let Ok(Some(head)) = self.head(Tag::Latest).await {
            self.learn_block_time(&head).await;
        }
    }

    async fn learn_block_time(&self, head: &Head) {
        let Some(from) = self.block_time.wants(head.number) else { return };
        if let Ok(Some(earlier)) = self.head(Tag::Number(from)).await {
            self.block_time.learn(&earlier, head);
        }
    }

    /// Starts to ask all nodes how far they are, if that was not done lately.
    fn survey(&self) {
        {
            let mut surveyed = self.surveyed_at.lock().unwrap_or_else(PoisonError::into_inner);
            if surveyed.is_some_and(|at| at.elapsed() < SURVEY_EVERY) {
                return;
            }
            *surveyed = Some(Instant::now());
        }
        let nodes = Arc::clone(&self.nodes);
        tokio::spawn(async move { nodes.survey().await });
    }

    async fn query<T>(
        &self,
        asks: &[Ask],
        read: impl Fn(&Node, Vec<Answer>) -> Result<T, Trouble> + Send + Sync,
    ) -> Result<T, ChainError> {
        self.nodes.query(Blame::Node, self.block_time.get(), |_| asks.to_vec(), read).await
    }

    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError> {
        let asked = Instant::now();
        let asks = [ask_block(at)];
        let head = self
            .query(&asks, |node, answers| {
                let head = match answers.into_iter().next().ok_or(Trouble::Unreadable)? {
                    Err(error) if unknown_block(&error.message) => None,
                    answer => wire::head(&result(answer)?)?,
                };
                if let (Tag::Latest, Some(head)) = (at, &head) {
                    node.reached(head.number);
                }
                Ok(head)
            })
            .await?;
        if let (Tag::Latest, Some(head)) = (at, head) {
            match self.tip.hear(head, asked) {
                News::Same | News::Lower => {}
                News::Next => self.reader.new_tip(),
                News::Reorg => {
                    self.reader.new_tip();
                    tracing::info!(network = %self.nodes.network(), block = head.number, "the tip was replaced");
                }
            }
        }
        Ok(head)
    }

    async fn ask_fees(&self) -> Result<Fees, ChainError> {
        let asks = [
            ask_block(Tag::Latest),
            Ask::new("eth_maxPriorityFeePerGas", "[]".to_owned()),
            Ask::new("eth_feeHistory", "[\"0x5\",\"latest\",[50]]".to_owned()),
        ];
        let signs = self
            .query(&asks, |_, answers| {
                let mut answers = answers.into_iter().map(result);
                let mut next = || answers.next().unwrap_or(Err(Trouble::Unreadable));
                let head = wire::head(&next()?)?.ok_or(Trouble::Unreadable)?;
                // Neither of the other two is known to every node; both only refine the offer.
                let suggested_tip = next().ok().and_then(|raw| wire::wide(&raw).ok());
                let history = next().ok().and_then(|raw| wire::fee_history(&raw).ok());
                let (next_base_fee, recent_tips) = history.unwrap_or_default();
                let base_fee = head.base_fee.max(next_base_fee.unwrap_or(0));
                Ok(Signs { base_fee, suggested_tip, recent_tips })
            })
            .await?;
        Ok(offer(&signs, self.min_tip, self.max_tip))
    }
}

#[async_trait]
impl Chain for RpcChain {
    fn network(&self) -> &Network {
        self.inner.nodes.network()
    }

    fn block_time(&self) -> Duration {
        self.inner.block_time.get()
    }

    async fn read(&self, reads: Vec<Read>) -> Result<Vec<ReadResult>, ChainError> {
        self.used();
        self.inner.reader.read(reads).await
    }

    async fn read_at(&self, reads: Vec<Read>, at: Tag) -> Result<Vec<ReadResult>, ChainError> {
        self.used();
        self.inner.reader.read_at(reads, &block_param(at)).await
    }

    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError> {
        self.used();
        self.inner.head(at).await
    }

    async fn next_head(&self, seen: Option<Head>, patience: Duration) -> Result<Head, ChainError> {
        let began = Instant::now();
        let mut tips = self.inner.tip.subscribe();
        self.poll();
        let patience = tokio::time::sleep(patience);
        tokio::pin!(patience);
        // What was heard up to two polls ago is as good as what is heard now.
        let slack = 2 * poll_interval(self.inner.poll_told, self.inner.block_time.get());
        let fresh = |tip: &Seen| tip.at + slack >= began;
        loop {
            let tip = tips.borrow_and_update().filter(fresh);
            if let Some(tip) = tip
                && seen.is_none_or(|seen| seen.hash != tip.head.hash)
            {
                return Ok(tip.head);
            }
            tokio::select! {
                // INVARIANT: the sender lives in `self`.
                _ = tips.changed() => {}
                () = &mut patience => {
                    let network = self.network().clone();
                    return tip.map(|tip| tip.head).ok_or(ChainError::Down(network));
                }
            }
        }
    }

    async fn receipts(&self, txs: Vec<TxHash>) -> Result<Vec<Option<Receipt>>, ChainError> {
        if txs.is_empty() {
            return Ok(Vec::new());
        }
        let asks: Vec<Ask> =
            txs.iter().map(|tx| Ask::new("eth_getTransactionReceipt", hex_param(&tx.0))).collect();
        self.inner
            .query(&asks, |_, answers| {
                let pairs = answers.into_iter().zip(&txs);
                pairs.map(|(answer, tx)| Ok(wire::receipt(&result(answer)?, *tx)?)).collect()
            })
            .await
    }

    async fn nonce(&self, account: &Address, pending: bool) -> Result<u64, ChainError> {
        let block = if pending { "pending" } else { "latest" };
        let asks = [Ask::new("eth_getTransactionCount", account_param(self.evm(account)?, block))];
        self.inner.query(&asks, |_, answers| Ok(wire::quantity(&single(answers)?)?)).await
    }

    async fn transaction(&self, tx: TxHash) -> Result<Option<KnownTx>, ChainError> {
        let asks = [Ask::new("eth_getTransactionByHash", hex_param(&tx.0))];
        self.inner.query(&asks, |_, answers| Ok(wire::transaction(&single(answers)?, tx)?)).await
    }

    async fn standing(&self, account: &Address, at: Tag, tx: TxHash) -> Result<Standing, ChainError> {
        let asks = [
            Ask::new("eth_getTransactionCount", account_param(self.evm(account)?, &block_param(at))),
            Ask::new("eth_getTransactionReceipt", hex_param(&tx.0)),
        ];
        self.inner
            .query(&asks, |_, answers| {
                let mut answers = answers.into_iter().map(result);
                let mut next = || answers.next().unwrap_or(Err(Trouble::Unreadable));
                let nonce = wire::quantity(&next()?)?;
                Ok(Standing { nonce, receipt: wire::receipt(&next()?, tx)? })
            })
            .await
    }

    async fn native_balance(&self, account: &Address) -> Result<u128, ChainError> {
        let asks = [Ask::new("eth_getBalance", account_param(self.evm(account)?, "latest"))];
        self.inner.query(&asks, |_, answers| Ok(wire::wide(&single(answers)?)?)).await
    }

    async fn code(&self, account: &Address) -> Result<Bytes, ChainError> {
        let asks = [Ask::new("eth_getCode", account_param(self.evm(account)?, "latest"))];
        self.inner.query(&asks, |_, answers| Ok(wire::bytes(&single(answers)?)?)).await
    }

    async fn fees(&self) -> Result<Fees, ChainError> {
        let keep = self.block_time().min(FEES_FOR);
        let arrived = Instant::now();
        let mut last = self.inner.fees.lock().await;
        match &*last {
            Some((Ok(fees), at)) if at.elapsed() < keep => return Ok(*fees),
            // One question serves all who waited for it, also when it fails: else each would wait for its own time-out.
            Some((answer, at)) if *at >= arrived => return answer.clone(),
            _ => {}
        }
        let at = Instant::now();
        let answer = self.inner.ask_fees().await;
        *last = Some((answer.clone(), at));
        answer
    }

    async fn estimate_gas(
        &self,
        from: &Address,
        to: &Address,
        data: Bytes,
    ) -> Result<Result<u64, Bytes>, ChainError> {
        let (from, to) = (hex::encode_prefixed(self.evm(from)?), hex::encode_prefixed(self.evm(to)?));
        let data = hex::encode_prefixed(&data);
        let params = format!("[{{\"from\":\"{from}\",\"to\":\"{to}\",\"data\":\"{data}\"}}]");
        let asks = [Ask::new("eth_estimateGas", params)];
        self.inner
            .query(&asks, |_, answers| {
                if let [Err(error)] = answers.as_slice()
                    && let Some(data) = wire::revert(error)
                {
                    return Ok(Err(data.0));
                }
                Ok(Ok(wire::quantity(&single(answers)?)?))
            })
            .await
    }

    /// Tries the nodes in order, and goes on to the next only while it cannot be told whether one has it. Giving the
    /// same bytes to several nodes is harmless: they are one transaction.
    async fn broadcast(&self, tx: &SignedTx) -> Broadcast {
        let nodes = &self.inner.nodes;
        let asks = [Ask::new("eth_sendRawTransaction", hex_param(&tx.raw))];
        let mut doubt: Option<String> = None;
        for node in nodes.candidates() {
            if let Err(trouble) = nodes.check(&node).await {
                doubt.get_or_insert(trouble.text());
                continue;
            }
            let said = match nodes.ask(&node, Blame::Node, &asks).await {
                Ok(answers) => answers.first().map_or_else(
                    || Broadcast::Ambiguous("no answer".to_owned()),
                    |answer| classify(answer, tx.hash),
                ),
                Err(failure) => Broadcast::Ambiguous(failure.to_string()),
            };
            match said {
                Broadcast::Accepted => {
                    self.inner.sent.notify_one();
                    return Broadcast::Accepted;
                }
                // Its nonce is used also if it is in a block itself.
                Broadcast::NonceTooLow => match self.knows(&node, tx.hash).await {
                    Some(true) => return Broadcast::Accepted,
                    Some(false) => return Broadcast::NonceTooLow,
                    None => {
                        doubt.get_or_insert("the nonce is used, perhaps by this transaction".to_owned());
                    }
                },
                Broadcast::Ambiguous(text) => {
                    tracing::warn!(network = %self.network(), node = node.shown(), tx = %tx.hash, text, "sent, perhaps");
                    doubt.get_or_insert(text);
                }
                // What one node refuses, another that was asked before may have.
                refused if doubt.is_none() => return refused,
                _ => {}
            }
        }
        Broadcast::Ambiguous(doubt.unwrap_or_else(|| "no node answers".to_owned()))
    }

    async fn logs(&self, filter: LogFilter) -> Result<Vec<(TxHash, Log)>, ChainError> {
        let asks = [Ask::new("eth_getLogs", self.logs_params(&filter)?)];
        self.inner.query(&asks, |_, answers| Ok(wire::logs(&single(answers)?)?)).await
    }
}

impl RpcChain {
    /// Whether the node has the transaction, in its pool or in a block; `None` if it can't be told.
    async fn knows(&self, node: &Node, tx: TxHash) -> Option<bool> {
        let asks = [Ask::new("eth_getTransactionByHash", hex_param(&tx.0))];
        let answers = self.inner.nodes.ask(node, Blame::Node, &asks).await.ok()?;
        let raw: Box<RawValue> = single(answers).ok()?;
        wire::read::<Option<serde::de::IgnoredAny>>(&raw).ok().map(|found| found.is_some())
    }

    fn evm(&self, address: &Address) -> Result<[u8; 20], ChainError> {
        address.evm_bytes().ok_or_else(|| self.refused(format!("not an EVM address: {address}")))
    }

    fn refused(&self, message: String) -> ChainError {
        ChainError::Node { network: self.network().clone(), message }
    }

    fn logs_params(&self, filter: &LogFilter) -> Result<String, ChainError> {
        if filter.topics.len() > MAX_TOPICS {
            return Err(self.refused(format!("a log has at most {MAX_TOPICS} topics")));
        }
        let address = hex::encode_prefixed(self.evm(&filter.address)?);
        let topics: Vec<String> = filter
            .topics
            .iter()
            .map(|topic| {
                topic.map_or("null".to_owned(), |topic| format!("\"{}\"", hex::encode_prefixed(topic)))
            })
            .collect();
        Ok(format!(
            "[{{\"address\":\"{address}\",\"fromBlock\":\"{:#x}\",\"toBlock\":\"{:#x}\",\"topics\":[{}]}}]",
            filter.from_block,
            filter.to_block,
            topics.join(",")
        ))
    }
}

fn block_param(at: Tag) -> String {
    match at {
        Tag::Latest => "latest".to_owned(),
        Tag::Safe => "safe".to_owned(),
        Tag::Finalized => "finalized".to_owned(),
        Tag::Number(number) => format!("{number:#x}"),
    }
}

fn ask_block(at: Tag) -> Ask {
    Ask::new("eth_getBlockByNumber", format!("[\"{}\",false]", block_param(at)))
}

fn account_param(account: [u8; 20], block: &str) -> String {
    format!("[\"{}\",\"{block}\"]", hex::encode_prefixed(account))
}

/// Nodes answer `null` for a block that is not there, or one of these: geth, erigon, Nethermind.
fn unknown_block(message: &str) -> bool {
    const SAYS: &[&str] = &["unknown block", "block not found", "finalized block is not available"];
    let message = message.to_ascii_lowercase();
    SAYS.iter().any(|says| message.contains(says))
}
