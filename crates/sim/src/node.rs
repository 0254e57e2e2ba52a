//! A process's way to the chain: a node behind a network, late, forgetful, and silent at the worst moment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_engine::{
    Broadcast, Chain as ChainFace, ChainError, Fees, Head, LogFilter, Receipt, SignedTx, Tag, TxHash,
};
use farthing_evm::{B256, Log, Read, ReadResult};
use farthing_primitives::{Address, Network, Timestamp};
use futures_channel::oneshot;
use futures_util::future::select;

use crate::chain::{Block, Chain, Tx};
use crate::escrow::{self, ESCROW};
use crate::exec::{Exec, lock};
use crate::gateway::{BLOCK_TIME, NETWORK};
use crate::rng::Rng;

/// How deep a block is `safe` and `finalized` here.
const SAFE: usize = 4;
const FINAL: usize = 8;

/// What ails the way to the chain. All chances are in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ailments {
    /// The most milliseconds that an exchange takes.
    pub latency: u64,
    /// Nothing is asked: the node cannot be reached.
    pub down: bool,
    /// The question or the answer is lost.
    pub lost: u64,
    /// The node answers from blocks ago.
    pub behind: u64,
    /// How many blocks it is behind then, at most.
    pub behind_by: u64,
    /// A transaction that the node said it took is nowhere.
    pub swallowed: u64,
}

/// The one chain, and who waits for its next block.
#[derive(Debug)]
pub struct Tip {
    pub chain: Mutex<Chain>,
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Tip {
    pub fn new(chain: Chain) -> Self {
        Self { chain: Mutex::new(chain), waiting: Mutex::default() }
    }

    /// A block was added or replaced.
    pub fn moved(&self) {
        for waiting in lock(&self.waiting).drain(..) {
            // Whoever gave up needs no news.
            let _ = waiting.send(());
        }
    }
}

/// Told of each transaction that leaves a process, before anybody can see it.
pub type OnBroadcast = Arc<dyn Fn(&Tx) + Send + Sync>;

pub struct Node {
    exec: Exec,
    tip: Arc<Tip>,
    network: Network,
    ailments: Arc<Mutex<Ailments>>,
    rng: Mutex<Rng>,
    on_broadcast: OnBroadcast,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node of {}", self.network)
    }
}

/// How one exchange goes.
enum Fate {
    Answered { behind: usize },
    QuestionLost,
    AnswerLost,
}

impl Node {
    pub fn new(
        exec: Exec,
        tip: Arc<Tip>,
        ailments: Arc<Mutex<Ailments>>,
        rng: Rng,
        on_broadcast: OnBroadcast,
    ) -> Self {
        let network = Network::eip155(NETWORK);
        Self { exec, tip, network, ailments, rng: Mutex::new(rng), on_broadcast }
    }

    async fn exchange(&self) -> Fate {
        let (fate, wait) = {
            let ailments = *lock(&self.ailments);
            let mut rng = lock(&self.rng);
            let wait = Duration::from_micros(rng.below(ailments.latency * 1000 + 500));
            let fate = if ailments.down {
                Fate::QuestionLost
            } else if rng.per_mille(ailments.lost) {
                if rng.per_mille(500) { Fate::QuestionLost } else { Fate::AnswerLost }
            } else if rng.per_mille(ailments.behind) {
                Fate::Answered {
                    behind: usize::try_from(rng.between(1, ailments.behind_by.max(1))).unwrap_or(1),
                }
            } else {
                Fate::Answered { behind: 0 }
            };
            // Whoever hears nothing notices late.
            let wait = match fate {
                Fate::Answered { .. } => wait,
                _ => wait + Duration::from_millis(rng.below(3_000)),
            };
            (fate, wait)
        };
        self.exec.sleep(wait).await;
        fate
    }

    /// Asks about the chain as this node sees it: the index of its newest block.
    async fn ask<T>(&self, answer: impl FnOnce(&Chain, usize) -> T) -> Result<T, ChainError> {
        match self.exchange().await {
            Fate::Answered { behind } => {
                let chain = lock(&self.tip.chain);
                let newest = chain.blocks.len() - 1;
                Ok(answer(&chain, newest.saturating_sub(behind)))
            }
            Fate::QuestionLost | Fate::AnswerLost => Err(ChainError::Down(self.network.clone())),
        }
    }

    fn tagged(chain: &Chain, newest: usize, tag: Tag) -> Option<&Block> {
        let at = match tag {
            Tag::Latest => newest,
            Tag::Safe => newest.saturating_sub(SAFE),
            Tag::Finalized => newest.saturating_sub(FINAL),
            Tag::Number(number) => usize::try_from(number).ok()?,
        };
        chain.blocks.get(at).filter(|_| at <= newest)
    }
}

/// A block's time as our processes name times.
fn head_of(block: &Block) -> Head {
    Head {
        number: block.number,
        hash: block.hash,
        parent: block.parent,
        timestamp: Timestamp::from_secs(block.time),
        base_fee: block.base_fee,
    }
}

fn account(address: &Address) -> farthing_evm::Address {
    farthing_evm::to_alloy(address).unwrap_or_default()
}

#[async_trait]
impl ChainFace for Node {
    fn network(&self) -> &Network {
        &self.network
    }

    fn block_time(&self) -> Duration {
        BLOCK_TIME
    }

    async fn read(&self, reads: Vec<Read>) -> Result<Vec<ReadResult>, ChainError> {
        self.read_at(reads, Tag::Latest).await
    }

    async fn read_at(&self, reads: Vec<Read>, at: Tag) -> Result<Vec<ReadResult>, ChainError> {
        let results = self.ask(|chain, newest| {
            let block = Self::tagged(chain, newest, at)?;
            let answer =
                |read: &Read| match chain.call(block, farthing_evm::Address::ZERO, read.to, &read.data.0) {
                    Ok(data) => ReadResult::Returned(data.into()),
                    Err(data) => ReadResult::Reverted(data.into()),
                };
            Some(reads.iter().map(answer).collect())
        });
        let unknown =
            || ChainError::Node { network: self.network.clone(), message: "unknown block".to_owned() };
        results.await?.ok_or_else(unknown)
    }

    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError> {
        self.ask(|chain, newest| Self::tagged(chain, newest, at).map(head_of)).await
    }

    async fn next_head(&self, seen: Option<Head>, patience: Duration) -> Result<Head, ChainError> {
        let until = self.exec.elapsed() + patience;
        loop {
            let head =
                self.ask(|chain, newest| Self::tagged(chain, newest, Tag::Latest).map(head_of)).await?;
            let left = until.saturating_sub(self.exec.elapsed());
            match head {
                Some(head) if Some(head) != seen || left.is_zero() => return Ok(head),
                _ => {}
            }
            let (tell, told) = oneshot::channel();
            lock(&self.tip.waiting).push(tell);
            select(told, self.exec.sleep(left)).await;
        }
    }

    async fn receipts(&self, txs: Vec<TxHash>) -> Result<Vec<Option<Receipt>>, ChainError> {
        self.ask(|chain, newest| txs.iter().map(|tx| chain.receipt(&tx.0, newest).cloned()).collect()).await
    }

    async fn nonce(&self, of: &Address, pending: bool) -> Result<u64, ChainError> {
        self.ask(|chain, newest| {
            let of = account(of);
            let mut next = chain.blocks[newest].state.nonces.get(&of).copied().unwrap_or_default();
            while pending && chain.pool.iter().any(|tx| tx.from == of && tx.nonce == Some(next)) {
                next += 1;
            }
            next
        })
        .await
    }

    async fn native_balance(&self, of: &Address) -> Result<u128, ChainError> {
        self.ask(|chain, newest| {
            chain.blocks[newest].state.wei.get(&account(of)).copied().unwrap_or_default()
        })
        .await
    }

    async fn fees(&self) -> Result<Fees, ChainError> {
        self.ask(|chain, newest| {
            let base = chain.blocks[newest].base_fee;
            Fees { max_fee: base * 2 + 1_000_000, priority_fee: 1_000_000 }
        })
        .await
    }

    async fn code(&self, of: &Address) -> Result<Bytes, ChainError> {
        let code = if account(of) == ESCROW { escrow::code() } else { &[] };
        self.ask(|_, _| Bytes::from_static(code)).await
    }

    async fn estimate_gas(
        &self,
        from: &Address,
        to: &Address,
        data: Bytes,
    ) -> Result<Result<u64, Bytes>, ChainError> {
        let (from, to) = (account(from), account(to));
        self.ask(|chain, newest| chain.call(&chain.blocks[newest], from, to, &data).map(|_| 67_000)).await
    }

    async fn broadcast(&self, tx: &SignedTx) -> Broadcast {
        let Some(decoded) = Tx::decode(&tx.raw) else {
            return Broadcast::Rejected("cannot be read".to_owned());
        };
        // From here on anybody may have seen it.
        (self.on_broadcast)(&decoded);
        match self.exchange().await {
            Fate::Answered { .. } => {
                if lock(&self.rng).per_mille(lock(&self.ailments).swallowed) {
                    return Broadcast::Accepted;
                }
                lock(&self.tip.chain).offer(decoded)
            }
            Fate::QuestionLost => Broadcast::Ambiguous("no answer".to_owned()),
            Fate::AnswerLost => {
                lock(&self.tip.chain).offer(decoded);
                Broadcast::Ambiguous("no answer".to_owned())
            }
        }
    }

    async fn logs(&self, filter: LogFilter) -> Result<Vec<(TxHash, Log)>, ChainError> {
        let address = account(&filter.address);
        let wanted: Vec<Option<B256>> = filter.topics.iter().map(|topic| topic.map(B256::new)).collect();
        let fits = |log: &Log| {
            log.address == address
                && wanted
                    .iter()
                    .enumerate()
                    .all(|(n, topic)| topic.is_none_or(|t| log.topics.get(n) == Some(&t)))
        };
        self.ask(|chain, newest| {
            let blocks = chain.blocks.iter().take(newest + 1);
            blocks
                .filter(|block| (filter.from_block..=filter.to_block).contains(&block.number))
                .flat_map(|block| &block.receipts)
                .flat_map(|receipt| receipt.logs.iter().map(|log| (receipt.tx, log.clone())))
                .filter(|(_, log)| fits(log))
                .collect()
        })
        .await
    }
}
