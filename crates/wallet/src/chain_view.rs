use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::{Chain, Tag, TxHash};
use farthing_evm::{Read, ReadKind, ReadResult, U256, abi, known, to_alloy};
use farthing_primitives::{Address, AssetId, Network, Timestamp};
use farthing_rails::exact_evm::Checked;

/// How much later than the end of an authorization a block must be before its unused nonce counts as proof: a
/// reorganisation may bring back a block that is somewhat older than the one we saw.
pub const REORG_MARGIN: Duration = Duration::from_secs(60);

/// What a buyer may ask of a chain. Without one, a receipt stays a claim of the seller's.
#[async_trait]
pub trait ChainView: Send + Sync + fmt::Debug {
    fn network(&self) -> &Network;

    /// Whether the node says that it is an embedded chain for development.
    fn is_devnet(&self) -> bool;

    /// `None` if it cannot be told.
    async fn balance(&self, asset: &AssetId, owner: &Address) -> Option<u128>;

    /// What Permit2 may take of `owner`, and the token's next EIP-2612 nonce (`None` if it has none).
    async fn permit2(&self, asset: &AssetId, owner: &Address) -> Option<Permit2State>;

    /// What the chain knows of a payment; `tx` is what the seller says settled it.
    async fn sight(&self, payment: &Checked, tx: Option<TxHash>) -> Sight;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit2State {
    pub allowance: U256,
    pub nonce: Option<U256>,
}

/// What a chain says of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// This transaction moved exactly this payment's money.
    Settled { tx: TxHash },
    /// The authorization was used or cancelled; by which transaction is not known.
    Used,
    /// It was not used up to a block of this time.
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

    async fn sight(&self, payment: &Checked, tx: Option<TxHash>) -> Sight {
        if let Some(tx) = tx
            && let Ok(receipts) = self.chain.receipts(vec![tx]).await
            && let Some(Some(receipt)) = receipts.first()
            && receipt.success
            && payment.proof(&receipt.logs).is_ok()
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
            Some(true) => Sight::Used,
            Some(false) => Sight::Unused { as_of: head.timestamp },
            None => Sight::Unavailable,
        }
    }
}
