use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farthing_channel::ChannelId;
use farthing_engine::{Chain, LogFilter, Tag, TxHash};
use farthing_evm::escrow::{self, OnChain};
use farthing_evm::{B256, Read, ReadKind, ReadResult, U256, abi, keccak256, known, to_alloy};
use farthing_primitives::{Address, AssetId, Network, Timestamp};
use farthing_rails::exact_evm::Checked;

/// How much later than the end of an authorization a block must be before its unused nonce counts as proof: a
/// reorganisation may bring back a block that is somewhat older than the one we saw.
pub const REORG_MARGIN: Duration = Duration::from_secs(60);

/// How many blocks must be on top of the one whose time is a proof. After a pause a chain's next block is late enough
/// at once, and is as easily replaced as any other.
const DEPTH: u64 = 2;

/// How far back the transaction that used an authorization is looked for, in blocks. Nodes refuse more.
const TRACE_BLOCKS: u64 = 5_000;

/// How many transactions are looked at that may have used an authorization.
const MAX_TRACED: usize = 8;

/// What a buyer may ask of a chain. Without one, a receipt stays a claim of the seller's.
#[async_trait]
pub trait ChainView: Send + Sync + fmt::Debug {
    fn network(&self) -> &Network;

    /// Whether the node says that it is an embedded chain for development.
    fn is_devnet(&self) -> bool;

    /// When the latest block was made; `None` if it cannot be told.
    async fn time(&self) -> Option<Timestamp>;

    /// When the latest block was made that no reorganization should replace any more; `None` if it cannot be told.
    async fn settled_time(&self) -> Option<Timestamp>;

    /// `None` if it cannot be told.
    async fn balance(&self, asset: &AssetId, owner: &Address) -> Option<u128>;

    /// What Permit2 may take of `owner`, and the token's next EIP-2612 nonce (`None` if it has none).
    async fn permit2(&self, asset: &AssetId, owner: &Address) -> Option<Permit2State>;

    /// What is at an address that a seller calls an escrow; `None` if it cannot be told.
    async fn escrow(&self, _escrow: &Address) -> Option<EscrowFacts> {
        None
    }

    /// What an escrow says of a channel; `None` if it cannot be told.
    async fn channel(&self, _escrow: &Address, _channel: &ChannelId) -> Option<ChannelSight> {
        None
    }

    /// What the chain knows of a payment; `tx` is what the seller says settled it.
    async fn sight(&self, payment: &Checked, tx: Option<TxHash>) -> Sight;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit2State {
    pub allowance: U256,
    pub nonce: Option<U256>,
}

/// What is at the address of an escrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscrowFacts {
    /// Keccak-256 of the code there.
    pub code_hash: [u8; 32],
    /// How long the payee has to answer a request to close.
    pub grace: Duration,
}

/// What an escrow says of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSight {
    /// At the newest block; `None` if it has no such channel.
    pub latest: Option<OnChain>,
    pub block: u64,
    /// At a block that no reorganization should replace any more, which is the newest on a chain for development.
    pub deep: Option<OnChain>,
    pub deep_block: u64,
    /// When that one was made.
    pub deep_time: Timestamp,
}

/// What a chain says of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// This transaction moved exactly this payment's money.
    Settled { tx: TxHash },
    /// The authorization was used or cancelled; by which transaction is not known.
    Used,
    /// It was not used up to a block of this time, which has others on top of it.
    Unused { as_of: Timestamp },
    /// The chain cannot be asked. Nothing may be concluded.
    Unavailable,
}

impl Sight {
    /// Whether no money moved, nor ever can, by an authorization that ends at `expires`.
    pub fn proves_unused(&self, expires: Timestamp) -> bool {
        matches!(self, Self::Unused { as_of } if *as_of >= expires.plus(REORG_MARGIN))
    }
}

/// A view through the engine's client of a chain.
pub struct EngineView {
    chain: Arc<dyn Chain>,
    devnet: bool,
}

impl EngineView {
    /// `devnet` is whether the node's client version says `farthing-devnet`.
    pub fn new(chain: Arc<dyn Chain>, devnet: bool) -> Self {
        Self { chain, devnet }
    }

    async fn view(&self, asset: &AssetId, questions: &[farthing_evm::Bytes]) -> Option<Vec<ReadResult>> {
        let to = to_alloy(asset.address())?;
        let read = |data: &farthing_evm::Bytes| Read { to, data: data.clone(), kind: ReadKind::View };
        let reads: Vec<Read> = questions.iter().map(read).collect();
        let answers = self.chain.read_at(reads, Tag::Latest).await.ok()?;
        (answers.len() == questions.len()).then_some(answers)
    }

    /// What a contract answers to one question.
    async fn ask(
        &self,
        contract: &Address,
        data: farthing_evm::Bytes,
        at: Tag,
    ) -> Option<farthing_evm::Bytes> {
        let read = Read { to: to_alloy(contract)?, data, kind: ReadKind::View };
        self.chain.read_at(vec![read], at).await.ok()?.first()?.returned().cloned()
    }

    /// When the block was made that has [`DEPTH`] others on top of it, up to `head`.
    async fn below(&self, head: u64) -> Option<Timestamp> {
        let deep = self.chain.head(Tag::Number(head.saturating_sub(DEPTH))).await.ok()??;
        Some(deep.timestamp)
    }

    /// Whether this transaction moved exactly this payment's money.
    async fn settled_by(&self, payment: &Checked, tx: TxHash) -> bool {
        let Ok(receipts) = self.chain.receipts(vec![tx]).await else { return false };
        let Some(Some(receipt)) = receipts.first() else { return false };
        receipt.success && payment.proof(&receipt.logs).is_ok()
    }

    /// Finds the transaction that used the authorization, whoever sent it.
    async fn trace(&self, payment: &Checked, head: u64) -> Option<TxHash> {
        // Where a log does not name the authorization, another purchase of the same amount may be found.
        if !payment.trace_is_unambiguous() {
            return None;
        }
        let trace = payment.trace();
        let filter = LogFilter {
            address: trace.address,
            topics: trace.topics,
            from_block: head.saturating_sub(TRACE_BLOCKS),
            to_block: head,
        };
        let found = self.chain.logs(filter).await.ok()?;
        for (tx, _) in found.into_iter().take(MAX_TRACED) {
            if self.settled_by(payment, tx).await {
                return Some(tx);
            }
        }
        None
    }
}

impl fmt::Debug for EngineView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineView of {}", self.chain.network())
    }
}

#[async_trait]
impl ChainView for EngineView {
    fn network(&self) -> &Network {
        self.chain.network()
    }

    fn is_devnet(&self) -> bool {
        self.devnet
    }

    async fn time(&self) -> Option<Timestamp> {
        Some(self.chain.head(Tag::Latest).await.ok()??.timestamp)
    }

    async fn settled_time(&self) -> Option<Timestamp> {
        let head = self.chain.head(Tag::Latest).await.ok()??;
        self.below(head.number).await
    }

    async fn balance(&self, asset: &AssetId, owner: &Address) -> Option<u128> {
        let answers = self.view(asset, &[abi::balance_of(to_alloy(owner)?)]).await?;
        let balance = answers.first()?.returned().and_then(|data| abi::as_uint(data))?;
        // More than 128 bits hold is enough for anything.
        Some(u128::try_from(balance).unwrap_or(u128::MAX))
    }

    async fn permit2(&self, asset: &AssetId, owner: &Address) -> Option<Permit2State> {
        let owner = to_alloy(owner)?;
        let answers = self.view(asset, &[abi::allowance(owner, known::PERMIT2), abi::nonces(owner)]).await?;
        let word =
            |i: usize| answers.get(i).and_then(ReadResult::returned).and_then(|data| abi::as_uint(data));
        Some(Permit2State { allowance: word(0)?, nonce: word(1) })
    }

    async fn escrow(&self, escrow: &Address) -> Option<EscrowFacts> {
        let code = self.chain.code(escrow).await.ok()?;
        let answers = self.ask(escrow, escrow::grace_period(), Tag::Latest).await?;
        let grace = escrow::as_grace_period(&answers)?;
        Some(EscrowFacts { code_hash: keccak256(&code).0, grace: Duration::from_secs(grace) })
    }

    async fn channel(&self, escrow: &Address, channel: &ChannelId) -> Option<ChannelSight> {
        let head = self.chain.head(Tag::Latest).await.ok()??;
        // A chain for development makes its blocks when it likes, and takes none back.
        let depth = if self.devnet { 0 } else { DEPTH };
        let deep_block = head.number.saturating_sub(depth);
        let read = async |at: u64| -> Option<Option<OnChain>> {
            let data = escrow::get_channel(B256::from(channel.0));
            let found = escrow::as_channel(&self.ask(escrow, data, Tag::Number(at)).await?)?;
            Some(Some(found).filter(OnChain::exists))
        };
        let latest = read(head.number).await?;
        let (deep, deep_time) = match depth {
            0 => (latest, head.timestamp),
            _ => {
                let deep = self.chain.head(Tag::Number(deep_block)).await.ok()??;
                (read(deep_block).await?, deep.timestamp)
            }
        };
        Some(ChannelSight { latest, block: head.number, deep, deep_block, deep_time })
    }

    async fn sight(&self, payment: &Checked, tx: Option<TxHash>) -> Sight {
        if let Some(tx) = tx
            && self.settled_by(payment, tx).await
        {
            return Sight::Settled { tx };
        }
        // The head first: what is unused in a later state was unused at this block too.
        let Ok(Some(head)) = self.chain.head(Tag::Latest).await else { return Sight::Unavailable };
        let at = Tag::Number(head.number);
        let Ok(answers) = self.chain.read_at(vec![payment.consumed_read()], at).await else {
            return Sight::Unavailable;
        };
        match answers.first().and_then(|answer| payment.consumed(answer)) {
            Some(true) => {
                self.trace(payment, head.number).await.map_or(Sight::Used, |tx| Sight::Settled { tx })
            }
            Some(false) => {
                self.below(head.number).await.map_or(Sight::Unavailable, |as_of| Sight::Unused { as_of })
            }
            None => Sight::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests;
