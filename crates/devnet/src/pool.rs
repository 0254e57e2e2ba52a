//! Transactions that wait for a block, by the rules of go-ethereum's pool and with its words: peers match on them.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use alloy_consensus::TxEnvelope;
use alloy_consensus::transaction::{Recovered, Transaction};
use alloy_eips::eip2718::Typed2718;
use alloy_primitives::map::HashMap;
use alloy_primitives::{Address, B256, U256};
use thiserror::Error;

use crate::state::State;

/// Transactions the pool holds at most.
pub const MAX_POOL: usize = 10_000;
/// Transactions of one sender the pool holds at most.
pub const MAX_POOL_PER_SENDER: usize = 4_096;
/// By how many percent both fees must rise for a replacement.
pub const REPLACEMENT_BUMP_PERCENT: u128 = 10;
/// Calldata of one transaction, in bytes (as in go-ethereum, 128 KiB with all fields).
pub const MAX_TX_BYTES: usize = 128 * 1024;

/// Why the pool takes a transaction not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolError {
    #[error("already known")]
    AlreadyKnown,
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow { next: u64, nonce: u64 },
    #[error("nonce has max value: address {0}, nonce: 18446744073709551615")]
    NonceMax(Address),
    #[error("replacement transaction underpriced")]
    Underpriced,
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {overshot}"
    )]
    InsufficientFunds { balance: U256, cost: U256, overshot: U256 },
    #[error("intrinsic gas too low: gas {gas}, minimum needed {needed}")]
    IntrinsicGas { gas: u64, needed: u64 },
    #[error("exceeds block gas limit")]
    GasLimit,
    #[error("max priority fee per gas higher than max fee per gas")]
    TipAboveFeeCap,
    #[error("invalid chain id for signer: have {have} want {want}")]
    ChainId { have: u64, want: u64 },
    #[error("transaction type not supported")]
    Type,
    #[error("oversized data: transaction size {size}, limit {limit}")]
    Oversized { size: usize, limit: usize },
    #[error("max initcode size exceeded: code size {size}, limit {limit}")]
    InitCode { size: usize, limit: usize },
    #[error("EIP-7702 transaction with empty auth list")]
    EmptyAuthorizations,
    #[error("sender not an eoa: address {0}")]
    SenderIsContract(Address),
    #[error("txpool is full")]
    Full,
}

/// A transaction with its place in the order of arrival.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub tx: Arc<Recovered<TxEnvelope>>,
    pub arrival: u64,
}

/// What waits. Copying it copies pointers only.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    senders: HashMap<Address, BTreeMap<u64, Waiting>>,
    by_hash: HashMap<B256, (Address, u64)>,
    arrivals: u64,
}

/// What the chain says about a transaction's surroundings.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub chain_id: u64,
    pub block_gas: u64,
}

/// Returns what the transaction may cost its sender at most.
fn cost(tx: &Recovered<TxEnvelope>) -> U256 {
    U256::from(tx.gas_limit()).saturating_mul(U256::from(tx.max_fee_per_gas())).saturating_add(tx.value())
}

fn tip(tx: &Recovered<TxEnvelope>) -> u128 {
    tx.max_priority_fee_per_gas().unwrap_or_else(|| tx.max_fee_per_gas())
}

/// Returns the gas a transaction uses before its first instruction (EIP-2028, 2930, 3860, 7702) or, if more, the
/// floor of EIP-7623.
pub fn intrinsic_gas(tx: &impl Transaction) -> u64 {
    let zeros = tx.input().iter().filter(|byte| **byte == 0).count() as u64;
    let others = tx.input().len() as u64 - zeros;
    let tokens = zeros + 4 * others;
    let mut gas = 21_000 + 4 * tokens;
    if tx.kind().is_create() {
        gas += 32_000 + 2 * (tx.input().len() as u64).div_ceil(32);
    }
    if let Some(list) = tx.access_list() {
        gas += 2_400 * list.0.len() as u64 + 1_900 * list.storage_keys_count() as u64;
    }
    gas += 25_000 * tx.authorization_list().map_or(0, |list| list.len() as u64);
    gas.max(21_000 + 10 * tokens)
}

impl Pool {
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub fn get(&self, hash: &B256) -> Option<&Waiting> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        self.senders.get(sender)?.get(nonce)
    }

    /// Returns how many of the waiting transactions could be mined one after the other.
    pub fn pending_len(&self, state: &State) -> usize {
        self.senders.iter().map(|(sender, queue)| contiguous(queue, state.nonce(*sender))).sum()
    }

    /// Returns the sender's next nonce, counting those transactions that wait without a gap.
    pub fn next_nonce(&self, state: &State, sender: Address) -> u64 {
        let nonce = state.nonce(sender);
        nonce + self.senders.get(&sender).map_or(0, |queue| contiguous(queue, nonce)) as u64
    }

    /// Takes a transaction, or says why not.
    pub fn add(
        &mut self,
        tx: Arc<Recovered<TxEnvelope>>,
        state: &State,
        limits: Limits,
    ) -> Result<B256, PoolError> {
        let hash = *tx.hash();
        let sender = tx.signer();
        let nonce = tx.nonce();
        if self.by_hash.contains_key(&hash) {
            return Err(PoolError::AlreadyKnown);
        }
        check_alone(&tx, limits)?;
        if state.is_contract(sender) {
            return Err(PoolError::SenderIsContract(sender));
        }
        let next = state.nonce(sender);
        if nonce < next {
            return Err(PoolError::NonceTooLow { next, nonce });
        }
        if nonce == u64::MAX {
            return Err(PoolError::NonceMax(sender));
        }
        let queue = self.senders.get(&sender);
        let replaced = queue.and_then(|queue| queue.get(&nonce));
        // The sender must be able to pay for all that waits, not only for this one.
        let balance = state.balance(sender);
        let waiting: U256 = queue
            .into_iter()
            .flatten()
            .filter(|(other, _)| **other < nonce)
            .fold(U256::ZERO, |sum, (_, waiting)| sum.saturating_add(cost(&waiting.tx)));
        let cost = cost(&tx).saturating_add(waiting);
        if cost > balance {
            return Err(PoolError::InsufficientFunds { balance, cost, overshot: cost - balance });
        }
        if let Some(old) = replaced {
            let replaces = |new: u128, old: u128| {
                new > old && new >= old.saturating_mul(100 + REPLACEMENT_BUMP_PERCENT) / 100
            };
            let old_tx = &old.tx;
            if !replaces(tx.max_fee_per_gas(), old_tx.max_fee_per_gas()) || !replaces(tip(&tx), tip(old_tx)) {
                return Err(PoolError::Underpriced);
            }
            let old_hash = *old_tx.hash();
            self.by_hash.remove(&old_hash);
        } else if self.len() >= MAX_POOL || queue.is_some_and(|queue| queue.len() >= MAX_POOL_PER_SENDER) {
            return Err(PoolError::Full);
        }
        self.arrivals += 1;
        let waiting = Waiting { tx, arrival: self.arrivals };
        self.senders.entry(sender).or_default().insert(nonce, waiting);
        self.by_hash.insert(hash, (sender, nonce));
        Ok(hash)
    }

    pub fn remove(&mut self, hash: &B256) -> Option<Waiting> {
        let (sender, nonce) = self.by_hash.remove(hash)?;
        let queue = self.senders.get_mut(&sender)?;
        let waiting = queue.remove(&nonce);
        if queue.is_empty() {
            self.senders.remove(&sender);
        }
        waiting
    }

    pub fn clear(&mut self) {
        self.senders.clear();
        self.by_hash.clear();
    }

    /// Forgets what can never be mined after the state: nonces already used.
    pub fn drop_stale(&mut self, state: &State, sender: Address) {
        let Some(queue) = self.senders.get_mut(&sender) else { return };
        let live = queue.split_off(&state.nonce(sender));
        for waiting in std::mem::replace(queue, live).into_values() {
            self.by_hash.remove(waiting.tx.hash());
        }
        if queue.is_empty() {
            self.senders.remove(&sender);
        }
    }

    pub fn drop_stale_all(&mut self, state: &State) {
        let senders: Vec<Address> = self.senders.keys().copied().collect();
        for sender in senders {
            self.drop_stale(state, sender);
        }
    }

    /// Returns the order in which a block takes transactions: the best tip first, then the oldest, each sender's
    /// nonces in order.
    pub fn ordering(&self, state: &State, base_fee: u64) -> Ordering<'_> {
        let mut ordering = Ordering { pool: self, base_fee, heads: BinaryHeap::new() };
        for sender in self.senders.keys() {
            ordering.offer(*sender, state.nonce(*sender));
        }
        ordering
    }
}

fn contiguous(queue: &BTreeMap<u64, Waiting>, from: u64) -> usize {
    queue.range(from..).zip(from..).take_while(|((nonce, _), expected)| *nonce == expected).count()
}

/// Checks that need the transaction alone.
fn check_alone(tx: &Recovered<TxEnvelope>, limits: Limits) -> Result<(), PoolError> {
    use revm::primitives::eip3860::MAX_INITCODE_SIZE;
    if tx.ty() == 3 || tx.ty() > 4 {
        return Err(PoolError::Type);
    }
    if let Some(have) = tx.chain_id()
        && have != limits.chain_id
    {
        return Err(PoolError::ChainId { have, want: limits.chain_id });
    }
    let size = tx.input().len();
    if size > MAX_TX_BYTES {
        return Err(PoolError::Oversized { size, limit: MAX_TX_BYTES });
    }
    if tx.kind().is_create() && size > MAX_INITCODE_SIZE {
        return Err(PoolError::InitCode { size, limit: MAX_INITCODE_SIZE });
    }
    if tx.ty() == 4 && tx.authorization_list().is_none_or(<[_]>::is_empty) {
        return Err(PoolError::EmptyAuthorizations);
    }
    if tx.gas_limit() > limits.block_gas {
        return Err(PoolError::GasLimit);
    }
    if tip(tx) > tx.max_fee_per_gas() {
        return Err(PoolError::TipAboveFeeCap);
    }
    let needed = intrinsic_gas(tx.inner());
    if tx.gas_limit() < needed {
        return Err(PoolError::IntrinsicGas { gas: tx.gas_limit(), needed });
    }
    Ok(())
}

/// Yields waiting transactions, best first. Say [`Ordering::next_of`] after each that was included.
#[derive(Debug)]
pub struct Ordering<'a> {
    pool: &'a Pool,
    base_fee: u64,
    heads: BinaryHeap<(u128, std::cmp::Reverse<u64>, Address, u64)>,
}

impl Ordering<'_> {
    fn offer(&mut self, sender: Address, nonce: u64) {
        if let Some(waiting) = self.pool.senders.get(&sender).and_then(|queue| queue.get(&nonce))
            && let Some(tip) = waiting.tx.effective_tip_per_gas(self.base_fee)
        {
            self.heads.push((tip, std::cmp::Reverse(waiting.arrival), sender, nonce));
        }
    }

    pub fn pop(&mut self) -> Option<Waiting> {
        let (_, _, sender, nonce) = self.heads.pop()?;
        self.pool.senders.get(&sender)?.get(&nonce).cloned()
    }

    /// The sender's next transaction may follow now.
    pub fn next_of(&mut self, tx: &Recovered<TxEnvelope>) {
        self.offer(tx.signer(), tx.nonce().saturating_add(1));
    }
}
