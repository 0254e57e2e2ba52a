//! Transfers that the payer makes itself, on EVM chains: shown as a signed transaction that we send, or as the hash of
//! one that was sent. The scheme `exact` is pulled by a signature that names what it pays for; these are pushed, and
//! name nothing.
//!
//! So what is accepted is narrow: a call of the token's own `transfer`, by the payer, of exactly the price, to the payee,
//! and nothing else in the transaction. What a log alone shows could be the settlement of somebody's authorization, and
//! pay for two things; a transaction whose whole call is a transfer cannot. The hash of the transaction is what is
//! consumed, so that each buys once, however and wherever it is shown.
//!
//! In the order of use: [`Pushed::signed`] or [`Pushed::sent`] looks at what is shown and reads nothing; [`Pushed::key`]
//! is what it consumes; [`Pushed::is_made_by`] tells whether a transaction that a node knows is the one that was asked
//! for; [`Pushed::proof`] finds in its logs that the money moved.
//!
//! Spec: draft-evm-charge-00, "Transaction Payload", "Hash Payload".

use farthing_evm::{
    Address, B256, Bytes, Log, Read, ReadKind, SignedTransaction, TransactionError, Transfer, U256, abi,
    from_alloy, to_alloy,
};
use farthing_payment::{ConsumptionKey, Fault, Instruction, Reason};
use farthing_primitives::{Address as Account, AssetId, Money, Network, Timestamp};

use crate::exact_evm::{ProofError, Requirement, TransferProof};
use crate::packed::{Reader, Writer};

/// The first byte of an instruction, above those of the scheme `exact`, so that neither reads the other's.
const VERSION: u8 = 0x81;

/// The most gas that a transfer may ask for: one that could fill a block would wait for one to be empty.
pub const MAX_GAS: u64 = 1_000_000;

/// A transfer by its payer, as far as it can be judged without the chain.
///
/// INVARIANT: only [`Pushed::signed`] and [`Pushed::sent`] make one, and [`Pushed::recall`] from the bytes of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    money: Money,
    chain_id: u64,
    payer: Address,
    payee: Address,
    hash: B256,
    by: By,
}

/// Who sends the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    Us(Unsent),
    /// The payer has.
    Payer {
        not_before: Timestamp,
    },
}

/// A signed transaction that is ours to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    pub raw: Bytes,
    pub nonce: u64,
    pub gas: u64,
    /// Wei for each unit of gas.
    pub max_fee: u128,
    /// In wei, what its payer must have to have it executed.
    pub most_cost: u128,
}

/// Why a transfer is not the one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the transaction cannot be read: {0}")]
    Transaction(#[from] TransactionError),
    #[error("the transaction is for another chain")]
    Chain,
    #[error("the transaction calls another contract than the token")]
    Token,
    #[error("the transaction does something else than a plain transfer")]
    Call,
    #[error("the transfer is to another payee")]
    Recipient,
    #[error("the transfer is not of exactly the price")]
    Amount,
    #[error("the payee pays itself")]
    ToItself,
    #[error("the transaction's gas or fees are out of bounds")]
    Gas,
    #[error("the transfer is by another account than the one that is said to pay")]
    Payer,
}

impl Unfit {
    pub fn code(self) -> &'static str {
        match self {
            Self::Transaction(_) => "transaction_malformed",
            Self::Chain => "transaction_for_other_chain",
            Self::Token => "transaction_of_other_token",
            Self::Call => "transaction_not_a_transfer",
            Self::Recipient => "transaction_recipient_mismatch",
            Self::Amount => "transaction_amount_mismatch",
            Self::ToItself => "transaction_to_its_payer",
            Self::Gas => "transaction_gas_out_of_bounds",
            Self::Payer => "source_mismatch",
        }
    }

    pub fn reason(self) -> Reason {
        Reason::new(self.code(), Fault::Payer)
    }
}

/// What a call does, as its transaction says.
#[derive(Debug, Clone, Copy)]
pub struct Called<'a> {
    pub from: &'a Account,
    /// `None`: it creates a contract.
    pub to: Option<&'a Account>,
    pub data: &'a [u8],
}

impl Pushed {
    /// A signed transaction that is shown instead of being sent. How `asked` is pulled does not matter.
    ///
    /// # Errors
    /// [`Unfit`] for whatever is not exactly the transfer that was asked for.
    ///
    /// Spec: draft-evm-charge-00, "Transaction Verification", steps 1 to 5. An access list, native value, or more
    /// calldata have no part in a transfer, and are refused as well.
    pub fn signed(asked: &Requirement, raw: &[u8]) -> Result<Self, Unfit> {
        let tx = SignedTransaction::parse(raw)?;
        if tx.chain_id != asked.token().chain_id() {
            return Err(Unfit::Chain);
        }
        if tx.has_access_list || !tx.value.is_zero() {
            return Err(Unfit::Call);
        }
        // Spec: EIP-1559: a priority fee above the maximum is invalid.
        if tx.gas > MAX_GAS || tx.max_priority_fee > tx.max_fee {
            return Err(Unfit::Gas);
        }
        let most_cost = tx.most_cost().ok_or(Unfit::Gas)?;
        let (nonce, gas, max_fee) = (tx.nonce, tx.gas, tx.max_fee);
        let raw = Bytes::copy_from_slice(raw);
        let pushed = Self {
            money: asked.price(),
            chain_id: tx.chain_id,
            payer: tx.from,
            payee: asked.payee(),
            hash: tx.hash,
            by: By::Us(Unsent { raw, nonce, gas, max_fee, most_cost }),
        };
        pushed.does(tx.to, &tx.data)?;
        Ok(pushed)
    }

    /// The hash of a transaction that `payer` says it has sent. Whether it is the one that was asked for, only the chain
    /// can tell: [`Pushed::is_made_by`].
    ///
    /// `not_before` is when it was asked for: an older transfer paid for something else.
    pub fn sent(
        asked: &Requirement,
        hash: [u8; 32],
        payer: &Account,
        not_before: Timestamp,
    ) -> Result<Self, Unfit> {
        let pushed = Self {
            money: asked.price(),
            chain_id: asked.token().chain_id(),
            payer: to_alloy(payer).ok_or(Unfit::Payer)?,
            payee: asked.payee(),
            hash: hash.into(),
            by: By::Payer { not_before },
        };
        pushed.moves_something()?;
        Ok(pushed)
    }

    /// What the rail consumes once: the transaction, however it was shown.
    ///
    /// Spec: draft-evm-charge-00, "Replay Protection".
    pub fn key(&self) -> ConsumptionKey {
        ConsumptionKey::new(format!("tx:eip155:{}:{:#x}", self.chain_id, self.hash))
    }

    pub fn payer(&self) -> Account {
        from_alloy(self.payer)
    }

    pub fn pay_to(&self) -> Account {
        from_alloy(self.payee)
    }

    pub fn money(&self) -> &Money {
        &self.money
    }

    pub fn hash(&self) -> [u8; 32] {
        self.hash.0
    }

    /// The transaction, where it is ours to send.
    pub fn unsent(&self) -> Option<&Unsent> {
        match &self.by {
            By::Us(unsent) => Some(unsent),
            By::Payer { .. } => None,
        }
    }

    /// When the transfer was asked for, where it can have been made before.
    pub fn not_before(&self) -> Option<Timestamp> {
        match self.by {
            By::Us(_) => None,
            By::Payer { not_before } => Some(not_before),
        }
    }

    /// The token and what is called of it.
    pub fn call(&self) -> (Account, Bytes) {
        (self.money.asset().address().clone(), abi::transfer(self.payee, self.amount()))
    }

    /// What the payer has of the token. [`Pushed::has_enough`] reads the answer.
    pub fn balance_read(&self) -> Read {
        Read { to: self.token(), data: abi::balance_of(self.payer), kind: ReadKind::View }
    }

    /// Whether an answer to [`Pushed::balance_read`] is enough; `None` if there is no token there.
    pub fn has_enough(&self, answer: &[u8]) -> Option<bool> {
        Some(abi::as_uint(answer)? >= self.amount())
    }

    /// Whether the transaction that a node knows by this hash is the transfer that was asked for.
    ///
    /// A settlement of our own, or of anybody's authorization, is a call of something else: what it moves is paid for
    /// by its own payment, and counts for no other.
    pub fn is_made_by(&self, called: Called<'_>) -> Result<(), Unfit> {
        if to_alloy(called.from) != Some(self.payer) {
            return Err(Unfit::Payer);
        }
        self.does(called.to.and_then(to_alloy).ok_or(Unfit::Call)?, called.data)
    }

    fn does(&self, to: Address, data: &[u8]) -> Result<(), Unfit> {
        if to != self.token() {
            return Err(Unfit::Token);
        }
        let Some((recipient, amount)) = abi::as_transfer(data) else { return Err(Unfit::Call) };
        if recipient != self.payee {
            return Err(Unfit::Recipient);
        }
        if amount != self.amount() {
            return Err(Unfit::Amount);
        }
        self.moves_something()
    }

    fn moves_something(&self) -> Result<(), Unfit> {
        if self.payer == self.payee { Err(Unfit::ToItself) } else { Ok(()) }
    }

    /// Finds in the transaction's logs that the money moved.
    ///
    /// Its success is no proof: a token may return where others revert, or move less than it was told to. What counts is
    /// that the token itself says that it moved exactly the price from the payer to the payee.
    pub fn proof(&self, logs: &[Log]) -> Result<TransferProof, ProofError> {
        let wanted = Transfer { from: self.payer, to: self.payee, value: self.amount() };
        let token = self.token();
        let ours = |log: &&Log| log.address == token && Transfer::decode(log) == Some(wanted);
        let found = logs.iter().find(ours).ok_or(ProofError::NoTransfer)?;
        Ok(TransferProof { log_index: found.index })
    }

    /// All that is needed to settle this payment, also after a restart.
    pub fn instruction(&self) -> Instruction {
        let mut out = Writer(vec![VERSION]);
        out.bytes(&self.chain_id.to_be_bytes());
        out.bytes(self.token().as_slice());
        out.bytes(&self.money.atoms().to_be_bytes());
        out.bytes(self.payer.as_slice());
        out.bytes(self.payee.as_slice());
        match &self.by {
            By::Us(unsent) => {
                out.bytes(&[0]);
                out.blob(&unsent.raw);
            }
            By::Payer { not_before } => {
                out.bytes(&[1]);
                out.bytes(self.hash.as_slice());
                out.bytes(&not_before.millis().to_be_bytes());
            }
        }
        Instruction::new(out.0)
    }

    /// A transfer that was checked before, from what [`Pushed::instruction`] made of it; `None` if the instruction is
    /// of another kind, or damaged.
    pub fn recall(instruction: &Instruction) -> Option<Self> {
        let (version, rest) = instruction.as_bytes().split_first()?;
        (*version == VERSION).then_some(())?;
        Reader(rest).pushed()
    }

    fn token(&self) -> Address {
        // INVARIANT: `money` is of a token of an EVM chain.
        to_alloy(self.money.asset().address()).unwrap_or_default()
    }

    fn amount(&self) -> U256 {
        U256::from(self.money.atoms())
    }
}

impl Reader<'_> {
    fn pushed(&mut self) -> Option<Pushed> {
        let chain_id = u64::from_be_bytes(self.array()?);
        let token = self.address()?;
        let atoms = u128::from_be_bytes(self.array()?);
        let (payer, payee) = (self.address()?, self.address()?);
        let (hash, by) = match self.byte()? {
            0 => {
                let raw = self.blob()?;
                let tx = SignedTransaction::parse(&raw).ok()?;
                let most_cost = tx.most_cost()?;
                let (nonce, gas, max_fee) = (tx.nonce, tx.gas, tx.max_fee);
                (tx.hash, By::Us(Unsent { raw, nonce, gas, max_fee, most_cost }))
            }
            1 => {
                let hash = self.hash()?;
                let not_before = Timestamp::from_millis(u64::from_be_bytes(self.array()?));
                (hash, By::Payer { not_before })
            }
            _ => return None,
        };
        if !self.0.is_empty() {
            return None;
        }
        let asset = AssetId::new(Network::eip155(chain_id), from_alloy(token));
        Some(Pushed { money: Money::new(asset, atoms), chain_id, payer, payee, hash, by })
    }
}
