use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_evm::{Log, Read, ReadResult};
use farthing_primitives::{Address, Network, Timestamp};

/// The Keccak-256 of a signed transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxHash(pub [u8; 32]);

impl std::fmt::Display for TxHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for TxHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A block at the tip, or one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub number: u64,
    pub hash: [u8; 32],
    pub parent: [u8; 32],
    pub timestamp: Timestamp,
    /// Wei for each unit of gas.
    pub base_fee: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    Latest,
    Safe,
    Finalized,
    Number(u64),
}

/// What a transaction should offer now, in wei for each unit of gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    pub max_fee: u128,
    pub priority_fee: u128,
}

/// A transaction of a relayer, ready to be signed. Type 2 (EIP-1559).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedTx {
    pub chain_id: u64,
    pub nonce: u64,
    pub to: Address,
    pub data: Bytes,
    pub gas: u64,
    pub fees: Fees,
}

#[derive(Clone, PartialEq, Eq)]
pub struct SignedTx {
    pub hash: TxHash,
    pub raw: Bytes,
}

/// A key that pays for gas. It signs transactions of its own account only.
pub trait RelayerKey: Send + Sync {
    fn address(&self) -> Address;

    fn sign(&self, tx: &UnsignedTx) -> SignedTx;
}

/// What became of a transaction that is in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub tx: TxHash,
    pub success: bool,
    pub block: u64,
    pub block_hash: [u8; 32],
    pub gas_used: u64,
    /// Wei for each unit of gas, all in.
    pub gas_price: u128,
    pub logs: Vec<Log>,
}

/// A transaction of anybody's, as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTx {
    pub from: Address,
    /// `None`: it creates a contract.
    pub to: Option<Address>,
    pub data: Bytes,
}

/// How far an account is, and what became of one transaction of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How many of the account's transactions are in blocks up to the one asked for.
    pub nonce: u64,
    /// Of the transaction, if it is in a block.
    pub receipt: Option<Receipt>,
}

/// What a node said of a transaction that it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broadcast {
    /// It has it, now or already.
    Accepted,
    /// The nonce was used by another transaction.
    NonceTooLow,
    /// A variant of the same nonce is in the pool and offers about as much.
    Underpriced,
    /// The relayer cannot pay for the gas.
    NoGas,
    /// It will not have it. The text is for the log only.
    Rejected(String),
    /// It cannot be told whether the node has it.
    Ambiguous(String),
}

/// Which logs to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    pub address: Address,
    /// At most four topics; `None` matches any.
    pub topics: Vec<Option<[u8; 32]>>,
    pub from_block: u64,
    pub to_block: u64,
}

/// Why the chain could not be asked. Nothing may be concluded about money from any of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("no node of {0} answers")]
    Down(Network),
    #[error("a node of {network} answered with an error: {message}")]
    Node { network: Network, message: String },
    #[error("a node of {0} answered what cannot be read")]
    Unreadable(Network),
    #[error("too many reads of {0} are waiting")]
    Busy(Network),
}

/// One chain, as the engine sees it. Implementations share and batch reads, and fail over between nodes.
#[async_trait]
pub trait Chain: Send + Sync {
    fn network(&self) -> &Network;

    /// About how long a block takes.
    fn block_time(&self) -> Duration;

    /// Performs one payment's reads on one recent state. The answers are in the order of the reads.
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<ReadResult>, ChainError>;

    /// Performs the reads after a given block, for decisions that must not rest on a stale mirror.
    async fn read_at(&self, reads: Vec<Read>, at: Tag) -> Result<Vec<ReadResult>, ChainError>;

    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError>;

    /// Returns as soon as the tip is another block than `seen`, or after about `patience`.
    async fn next_head(&self, seen: Option<Head>, patience: Duration) -> Result<Head, ChainError>;

    async fn receipts(&self, txs: Vec<TxHash>) -> Result<Vec<Option<Receipt>>, ChainError>;

    /// How many transactions of `account` are in blocks (and, if `pending`, in the node's pool).
    async fn nonce(&self, account: &Address, pending: bool) -> Result<u64, ChainError>;

    /// The transaction with this hash, in a block or in the node's pool. A chain that does not tell shows none.
    async fn transaction(&self, _tx: TxHash) -> Result<Option<KnownTx>, ChainError> {
        Err(ChainError::Unreadable(self.network().clone()))
    }

    /// Both from one node: if the account's nonce is used in a block that this node has, and the transaction is in none
    /// that it has, then another one used the nonce.
    async fn standing(&self, _account: &Address, _at: Tag, _tx: TxHash) -> Result<Standing, ChainError> {
        Err(ChainError::Unreadable(self.network().clone()))
    }

    /// The native balance of `account`, in wei.
    async fn native_balance(&self, account: &Address) -> Result<u128, ChainError>;

    async fn fees(&self) -> Result<Fees, ChainError>;

    /// The code at `account` now; empty if there is none. A chain that does not tell vouches for no contract.
    async fn code(&self, _account: &Address) -> Result<Bytes, ChainError> {
        Err(ChainError::Unreadable(self.network().clone()))
    }

    /// The gas that this call would use now.
    ///
    /// # Errors
    /// `Ok(Err(revert data))` if it would revert.
    async fn estimate_gas(
        &self,
        from: &Address,
        to: &Address,
        data: Bytes,
    ) -> Result<Result<u64, Bytes>, ChainError>;

    /// Hands a signed transaction to the node, or to several.
    async fn broadcast(&self, tx: &SignedTx) -> Broadcast;

    async fn logs(&self, filter: LogFilter) -> Result<Vec<(TxHash, Log)>, ChainError>;
}

impl std::fmt::Debug for SignedTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignedTx({})", self.hash)
    }
}
