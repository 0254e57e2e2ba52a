//! Blocks, the pool, and what moves them on: mining, snapshots and reorgs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_consensus::transaction::{Recovered, Transaction};
use alloy_consensus::{Eip658Value, Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, TxEnvelope, proofs};
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::{BlockId, BlockNumberOrTag, RpcBlockHash};
use alloy_primitives::map::HashMap;
use alloy_primitives::{Address, B256, Bloom, Bytes, U256, address, keccak256};
use alloy_sol_types::SolCall;
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use thiserror::Error;

use crate::accounts::{DEV_ACCOUNTS, MINTER};
use crate::contracts::{self, USDC};
use crate::exec::{self, Env, Rules};
use crate::pool::{Limits, Pool, PoolError, Waiting};
use crate::state::State;
use crate::{BlockTime, DevnetConfig};

/// Blocks whose state is kept, so that calls at a recent block work.
pub const STATE_HISTORY_BLOCKS: usize = 256;
/// Blocks whose headers, transactions and receipts are kept.
pub const BLOCK_HISTORY_BLOCKS: usize = 65_536;
/// Snapshots kept; taking more forgets the oldest.
pub const MAX_SNAPSHOTS: usize = 64;
/// Gas limit of every block.
pub const BLOCK_GAS_LIMIT: u64 = 60_000_000;
/// Base fee of the first block: 1 gwei. EIP-1559 moves it from there.
pub const INITIAL_BASE_FEE: u64 = 1_000_000_000;
/// The tip that `eth_maxPriorityFeePerGas` names: 0.001 gwei.
pub const SUGGESTED_TIP: u64 = 1_000_000;
/// Blocks that one request may mine at most.
pub const MAX_BLOCKS_PER_REQUEST: u64 = 4_096;

const COINBASE: Address = address!("0xfa27000000000000000000000000000000000000");
const ETHER: u128 = 1_000_000_000_000_000_000;

/// Why a control or a look-up cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    #[error("header not found")]
    NoSuchBlock,
    #[error("historical state {0} is not available")]
    StatePruned(u64),
    #[error("timestamp error: {wanted} is lower than the previous block's timestamp {latest}")]
    TimestampBack { wanted: u64, latest: u64 },
    #[error("at most {MAX_BLOCKS_PER_REQUEST} blocks a request")]
    TooManyBlocks,
    #[error("reorg depth {depth} exceeds the {available} blocks with kept state")]
    ReorgTooDeep { depth: u64, available: u64 },
    #[error("transaction for block {0} of {1} of the reorg")]
    ReorgBlockOutOfRange(u64, u64),
    #[error("malformed EIP-7702 delegation designator")]
    BadCode,
    #[error("time is out of range")]
    TimeRange,
    #[error("the first block cannot be built: {0}")]
    Genesis(String),
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// A mined block with its receipts.
#[derive(Debug)]
pub struct Block {
    pub hash: B256,
    pub header: Header,
    pub txs: Vec<Arc<Recovered<TxEnvelope>>>,
    pub receipts: Vec<MinedReceipt>,
    /// Size of the header and the transactions in bytes.
    pub size: usize,
}

/// What a transaction did.
#[derive(Debug)]
pub struct MinedReceipt {
    pub envelope: ReceiptEnvelope,
    pub gas_used: u64,
    pub effective_gas_price: u128,
    pub contract_address: Option<Address>,
    /// Index of its first log within the block.
    pub first_log: u64,
}

/// What becomes of the transactions of the blocks a reorg takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReorgedTxs {
    /// They are gone, as if they had never been sent.
    Drop,
    /// They wait in the pool for the next block that is mined after the reorg.
    Pool,
    /// The first of the new blocks takes them in again.
    Remine,
}

#[derive(Debug, Clone)]
struct Snapshot {
    id: u64,
    number: u64,
    hash: B256,
    state: State,
    pool: Pool,
    time_offset: i64,
}

/// When blocks come by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mining {
    /// As soon as there is a transaction for one.
    Automatic,
    /// By the clock, or by request only.
    Elsewhere,
}

/// The chain. Whoever holds it decides about locking.
#[derive(Debug)]
pub struct Chain {
    pub chain_id: u64,
    pub mining: Mining,
    finality_blocks: u64,
    blocks: VecDeque<Arc<Block>>,
    /// States after the last blocks; the last one belongs to the last block.
    states: VecDeque<State>,
    numbers: HashMap<B256, u64>,
    txs: HashMap<B256, (u64, usize)>,
    pool: Pool,
    snapshots: VecDeque<Snapshot>,
    next_snapshot: u64,
    /// Makes the blocks of a reorg differ from those they replace, even at the same second.
    fork: u64,
    time_offset: i64,
    next_timestamp: Option<u64>,
}

/// What a call needs: taken under the lock, used without it.
#[derive(Debug, Clone)]
pub struct View {
    pub state: State,
    pub env: Env,
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Chain {
    pub fn new(config: &DevnetConfig) -> Result<Self, ChainError> {
        let genesis = |problem: &dyn std::fmt::Display| ChainError::Genesis(problem.to_string());
        let mut state = State::default();
        for account in DEV_ACCOUNTS {
            state.set_balance(account.address, U256::from(config.dev_ether) * U256::from(ETHER));
        }
        for (address, wei) in &config.wei {
            state.set_balance(*address, *wei);
        }
        let placed = contracts::placed().map_err(|error| genesis(&error))?.into_iter();
        let placed = placed.map(|(address, artifact)| (address, artifact.deployed_bytecode));
        let deployer = (contracts::CREATE2_DEPLOYER, contracts::CREATE2_DEPLOYER_CODE);
        for (address, code) in placed.chain([deployer]) {
            if !state.set_code(address, code) {
                return Err(ChainError::BadCode);
            }
            // A contract account starts with nonce 1 (EIP-161).
            state.set_nonce(address, 1);
        }
        let timestamp = wall_clock();
        let env = Env {
            chain_id: config.chain_id,
            number: 0,
            timestamp,
            base_fee: INITIAL_BASE_FEE,
            gas_limit: BLOCK_GAS_LIMIT,
            beneficiary: COINBASE,
            prevrandao: B256::ZERO,
        };
        let dev =
            DEV_ACCOUNTS.iter().map(|account| (account.address, u128::from(config.dev_usdc) * 1_000_000));
        let named = config.usdc.iter().copied();
        let overridden = |address: &Address| config.usdc.iter().any(|(other, _)| other == address);
        let mints: Vec<_> = dev.filter(|(address, _)| !overridden(address)).chain(named).collect();
        for (to, amount) in mints.into_iter().filter(|(_, atoms)| *atoms > 0) {
            let data = contracts::mintCall { to, amount: U256::from(amount) }.abi_encode();
            let call = exec::system_call(MINTER.address, USDC, data.into());
            let nonce = state.nonce(MINTER.address);
            let (result, changes) =
                exec::run(&state, &env, call, Rules::Call).map_err(|error| genesis(&error))?;
            if !result.is_success() {
                return Err(ChainError::Genesis(format!("minting {amount} to {to} failed")));
            }
            state.apply(changes);
            state.set_nonce(MINTER.address, nonce);
        }
        let header = Header {
            beneficiary: COINBASE,
            gas_limit: BLOCK_GAS_LIMIT,
            timestamp,
            base_fee_per_gas: Some(INITIAL_BASE_FEE),
            ..empty_header()
        };
        let mut chain = Self {
            chain_id: config.chain_id,
            mining: match config.block_time {
                BlockTime::Instant => Mining::Automatic,
                BlockTime::Interval(_) => Mining::Elsewhere,
            },
            finality_blocks: config.finality_blocks,
            blocks: VecDeque::new(),
            states: VecDeque::new(),
            numbers: HashMap::default(),
            txs: HashMap::default(),
            pool: Pool::default(),
            snapshots: VecDeque::new(),
            next_snapshot: 1,
            fork: 0,
            time_offset: 0,
            next_timestamp: None,
        };
        chain.push(header, Vec::new(), Vec::new(), state);
        Ok(chain)
    }

    // ---- Looking ----

    pub fn head(&self) -> &Arc<Block> {
        // INVARIANT: the first block is pushed by `new`, and nothing pops the last one left.
        &self.blocks[self.blocks.len() - 1]
    }

    pub fn state(&self) -> &State {
        // INVARIANT: as many states as blocks, up to the bound, so at least one.
        &self.states[self.states.len() - 1]
    }

    fn state_mut(&mut self) -> &mut State {
        let last = self.states.len() - 1;
        &mut self.states[last]
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    fn oldest(&self) -> u64 {
        self.blocks.front().map_or(0, |block| block.header.number)
    }

    pub fn block(&self, number: u64) -> Option<&Arc<Block>> {
        self.blocks.get(usize::try_from(number.checked_sub(self.oldest())?).ok()?)
    }

    pub fn block_by_hash(&self, hash: &B256) -> Option<&Arc<Block>> {
        self.block(*self.numbers.get(hash)?)
    }

    pub fn mined(&self, tx: &B256) -> Option<(&Arc<Block>, usize)> {
        let (number, index) = self.txs.get(tx)?;
        Some((self.block(*number)?, *index))
    }

    /// Returns the number a tag stands for. `pending` is the block after the latest.
    pub fn number(&self, tag: BlockNumberOrTag) -> u64 {
        let latest = self.head().header.number;
        match tag {
            BlockNumberOrTag::Latest => latest,
            BlockNumberOrTag::Pending => latest + 1,
            BlockNumberOrTag::Safe | BlockNumberOrTag::Finalized => {
                latest.saturating_sub(self.finality_blocks)
            }
            BlockNumberOrTag::Earliest => 0,
            BlockNumberOrTag::Number(number) => number,
        }
    }

    fn number_of(&self, id: BlockId) -> Result<u64, ChainError> {
        match id {
            BlockId::Number(tag) => Ok(self.number(tag)),
            BlockId::Hash(RpcBlockHash { block_hash, .. }) => {
                self.numbers.get(&block_hash).copied().ok_or(ChainError::NoSuchBlock)
            }
        }
    }

    pub fn state_at(&self, id: BlockId) -> Result<&State, ChainError> {
        let latest = self.head().header.number;
        let number = self.number_of(id)?;
        if id.is_pending() {
            return Ok(self.state());
        }
        let back = latest.checked_sub(number).ok_or(ChainError::NoSuchBlock)?;
        usize::try_from(back)
            .ok()
            .and_then(|back| self.states.len().checked_sub(back + 1))
            .and_then(|index| self.states.get(index))
            .ok_or(ChainError::StatePruned(number))
    }

    /// Returns what a call at this block sees.
    ///
    /// `latest` is the state after the latest block, with its number. With automatic mining there may be no block for
    /// hours, so there the clock goes on: a call sees the time at which its transaction would be mined.
    pub fn view(&self, id: BlockId) -> Result<View, ChainError> {
        let state = self.state_at(id)?.clone();
        let env = if id.is_pending() {
            self.next_env(self.next_time())
        } else {
            let number = self.number_of(id)?;
            let header = &self.block(number).ok_or(ChainError::NoSuchBlock)?.header;
            let mut env = Env {
                chain_id: self.chain_id,
                number,
                timestamp: header.timestamp,
                base_fee: header.base_fee_per_gas.unwrap_or_default(),
                gas_limit: header.gas_limit,
                beneficiary: header.beneficiary,
                prevrandao: header.mix_hash,
            };
            if id.is_latest() && self.mining == Mining::Automatic {
                env.timestamp = self.next_time();
            }
            env
        };
        Ok(View { state, env })
    }

    pub fn next_base_fee(&self) -> u64 {
        let head = &self.head().header;
        calc_next_block_base_fee(
            head.gas_used,
            head.gas_limit,
            head.base_fee_per_gas.unwrap_or_default(),
            BaseFeeParams::ethereum(),
        )
    }

    pub fn next_nonce(&self, sender: Address) -> u64 {
        self.pool.next_nonce(self.state(), sender)
    }

    // ---- Time ----

    fn now(&self) -> u64 {
        wall_clock().saturating_add_signed(self.time_offset)
    }

    /// Returns the timestamp of a block mined now.
    ///
    /// Never before its parent's, and never ahead of the clock: many blocks within one second share their timestamp.
    /// Were each a second later than the one before, a thousand payments would carry the chain so far into the future
    /// that every signed authorization is expired.
    fn next_time(&self) -> u64 {
        let latest = self.head().header.timestamp;
        self.next_timestamp.unwrap_or_else(|| self.now()).max(latest)
    }

    /// Moves the clock forward and returns by how much it is off altogether.
    pub fn increase_time(&mut self, seconds: u64) -> Result<i64, ChainError> {
        let seconds = i64::try_from(seconds).map_err(|_| ChainError::TimeRange)?;
        let offset = self.time_offset.checked_add(seconds).ok_or(ChainError::TimeRange)?;
        // Far enough for every test, and never near an overflow.
        if offset > i64::from(u32::MAX) * 1_000 {
            return Err(ChainError::TimeRange);
        }
        self.time_offset = offset;
        Ok(offset)
    }

    /// The next block has this timestamp, and the clock goes on from there.
    pub fn set_next_timestamp(&mut self, wanted: u64) -> Result<(), ChainError> {
        let latest = self.head().header.timestamp;
        if wanted < latest {
            return Err(ChainError::TimestampBack { wanted, latest });
        }
        if wanted > wall_clock().saturating_add(u64::from(u32::MAX) * 1_000) {
            return Err(ChainError::TimeRange);
        }
        self.next_timestamp = Some(wanted);
        Ok(())
    }

    // ---- Sending and mining ----

    /// Puts a transaction into the pool, and mines if blocks come automatically.
    pub fn submit(&mut self, tx: Recovered<TxEnvelope>) -> Result<B256, PoolError> {
        let limits = Limits { chain_id: self.chain_id, block_gas: BLOCK_GAS_LIMIT };
        let hash = self.pool.add(Arc::new(tx), &self.states[self.states.len() - 1], limits)?;
        self.mine_if_automatic();
        Ok(hash)
    }

    /// With automatic mining, gives every transaction that can be mined a block of its own.
    pub fn mine_if_automatic(&mut self) {
        if self.mining == Mining::Automatic {
            while self.mine_some(1, false).is_some() {}
        }
    }

    /// Mines one block with all that fits in, or an empty one.
    pub fn mine(&mut self) -> Arc<Block> {
        self.mine_some(usize::MAX, true);
        Arc::clone(self.head())
    }

    /// Mines blocks, `interval` seconds apart if given.
    pub fn mine_many(&mut self, count: u64, interval: Option<u64>) -> Result<(), ChainError> {
        if count > MAX_BLOCKS_PER_REQUEST {
            return Err(ChainError::TooManyBlocks);
        }
        for index in 0..count {
            if let Some(interval) = interval.filter(|_| index > 0) {
                let next = self.head().header.timestamp.checked_add(interval).ok_or(ChainError::TimeRange)?;
                self.set_next_timestamp(next)?;
            }
            self.mine();
        }
        Ok(())
    }

    pub fn drop_transaction(&mut self, hash: &B256) -> Option<B256> {
        self.pool.remove(hash).map(|waiting| *waiting.tx.hash())
    }

    pub fn clear_pool(&mut self) {
        self.pool.clear();
    }

    fn next_env(&self, timestamp: u64) -> Env {
        let head = self.head();
        let number = head.header.number + 1;
        Env {
            chain_id: self.chain_id,
            number,
            timestamp,
            base_fee: self.next_base_fee(),
            gas_limit: BLOCK_GAS_LIMIT,
            beneficiary: COINBASE,
            prevrandao: keccak256(
                [head.hash.as_slice(), &number.to_be_bytes(), &self.fork.to_be_bytes()].concat(),
            ),
        }
    }

    fn mine_some(&mut self, max_txs: usize, even_if_empty: bool) -> Option<()> {
        let timestamp = self.next_time();
        let env = self.next_env(timestamp);
        let mut state = self.state().clone();
        let mut builder = Builder::default();
        let mut dead: Vec<B256> = Vec::new();
        let mut ordering = self.pool.ordering(&state, env.base_fee);
        while builder.txs.len() < max_txs {
            let Some(Waiting { tx, .. }) = ordering.pop() else { break };
            match builder.include(&mut state, &env, &tx) {
                Included::Yes => ordering.next_of(&tx),
                Included::NoRoom => {}
                Included::Never(reason) => {
                    tracing::debug!(hash = %tx.hash(), %reason, "transaction dropped");
                    dead.push(*tx.hash());
                }
            }
        }
        drop(ordering);
        for hash in &dead {
            self.pool.remove(hash);
        }
        if builder.txs.is_empty() && !even_if_empty {
            return None;
        }
        self.seal(builder, env, state);
        Some(())
    }

    fn seal(&mut self, builder: Builder, env: Env, state: State) {
        let Builder { txs, receipts, gas_used, bloom, .. } = builder;
        let envelopes: Vec<&ReceiptEnvelope> = receipts.iter().map(|receipt| &receipt.envelope).collect();
        let plain: Vec<&TxEnvelope> = txs.iter().map(|tx| tx.inner()).collect();
        let header = Header {
            parent_hash: self.head().hash,
            beneficiary: env.beneficiary,
            number: env.number,
            gas_limit: env.gas_limit,
            gas_used,
            timestamp: env.timestamp,
            base_fee_per_gas: Some(env.base_fee),
            mix_hash: env.prevrandao,
            logs_bloom: bloom,
            transactions_root: proofs::calculate_transaction_root(&plain),
            receipts_root: proofs::calculate_receipt_root(&envelopes),
            ..empty_header()
        };
        if let Some(timestamp) = self.next_timestamp.take() {
            self.time_offset = i64::try_from(timestamp)
                .ok()
                .and_then(|timestamp| timestamp.checked_sub(i64::try_from(wall_clock()).ok()?))
                .unwrap_or(self.time_offset);
        }
        for tx in &txs {
            self.pool.remove(tx.hash());
        }
        // Only these accounts' nonces moved; a delegation (EIP-7702) moves its authority's nonce as well.
        for tx in &txs {
            self.pool.drop_stale(&state, tx.signer());
            for authority in tx.authorization_list().into_iter().flatten() {
                if let Ok(authority) = recover_authority(authority) {
                    self.pool.drop_stale(&state, authority);
                }
            }
        }
        self.push(header, txs, receipts, state);
    }

    fn push(
        &mut self,
        header: Header,
        txs: Vec<Arc<Recovered<TxEnvelope>>>,
        receipts: Vec<MinedReceipt>,
        mut state: State,
    ) {
        let hash = header.hash_slow();
        let number = header.number;
        state.set_block_hash(number, hash);
        self.numbers.insert(hash, number);
        for (index, tx) in txs.iter().enumerate() {
            self.txs.insert(*tx.hash(), (number, index));
        }
        let size = header.size() + txs.iter().map(|tx| tx.encode_2718_len()).sum::<usize>();
        self.blocks.push_back(Arc::new(Block { hash, header, txs, receipts, size }));
        self.states.push_back(state);
        if self.states.len() > STATE_HISTORY_BLOCKS {
            self.states.pop_front();
        }
        if self.blocks.len() > BLOCK_HISTORY_BLOCKS
            && let Some(old) = self.blocks.pop_front()
        {
            self.forget(&old);
        }
    }

    fn forget(&mut self, block: &Block) {
        self.numbers.remove(&block.hash);
        for tx in &block.txs {
            self.txs.remove(tx.hash());
        }
    }

    fn pop(&mut self) -> Option<Arc<Block>> {
        if self.blocks.len() < 2 || self.states.len() < 2 {
            return None;
        }
        let block = self.blocks.pop_back()?;
        self.states.pop_back();
        self.forget(&block);
        Some(block)
    }

    // ---- Snapshots and reorgs ----

    pub fn snapshot(&mut self) -> u64 {
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        let head = self.head();
        let snapshot = Snapshot {
            id,
            number: head.header.number,
            hash: head.hash,
            state: self.state().clone(),
            pool: self.pool.clone(),
            time_offset: self.time_offset,
        };
        self.snapshots.push_back(snapshot);
        if self.snapshots.len() > MAX_SNAPSHOTS {
            self.snapshots.pop_front();
        }
        id
    }

    /// Goes back to a snapshot, which is used up with all that came after it. False if there is none such, or if its
    /// block is no longer part of the chain or too far back.
    pub fn revert(&mut self, id: u64) -> bool {
        let Some(position) = self.snapshots.iter().position(|snapshot| snapshot.id == id) else {
            return false;
        };
        let back = self.head().header.number.saturating_sub(self.snapshots[position].number);
        let reachable = usize::try_from(back).is_ok_and(|back| back < self.states.len());
        let canonical = self.numbers.contains_key(&self.snapshots[position].hash);
        let rest = self.snapshots.split_off(position);
        let Some(snapshot) = rest.into_iter().next() else { return false };
        if !reachable || !canonical {
            return false;
        }
        for _ in 0..back {
            self.pop();
        }
        *self.state_mut() = snapshot.state;
        self.pool = snapshot.pool;
        self.time_offset = snapshot.time_offset;
        self.next_timestamp = None;
        self.fork += 1;
        true
    }

    /// Takes the last `depth` blocks away and puts `blocks` new ones in their place.
    ///
    /// `extra` names transactions for certain new blocks, counted from 0. What waited in the pool before is not taken
    /// into the new blocks.
    pub fn reorg(
        &mut self,
        depth: u64,
        blocks: u64,
        reorged: ReorgedTxs,
        extra: Vec<(Recovered<TxEnvelope>, u64)>,
    ) -> Result<(), ChainError> {
        let available = (self.states.len().min(self.blocks.len()) as u64).saturating_sub(1);
        if depth > available {
            return Err(ChainError::ReorgTooDeep { depth, available });
        }
        if blocks > MAX_BLOCKS_PER_REQUEST {
            return Err(ChainError::TooManyBlocks);
        }
        if let Some((_, block)) = extra.iter().find(|(_, block)| *block >= blocks) {
            return Err(ChainError::ReorgBlockOutOfRange(*block, blocks));
        }
        let mut replaced = Vec::new();
        let mut gone = Vec::new();
        for _ in 0..depth {
            if let Some(block) = self.pop() {
                replaced.push(block.header.timestamp);
                gone.splice(0..0, block.txs.iter().cloned());
            }
        }
        replaced.reverse();
        self.fork += 1;
        let waiting = std::mem::take(&mut self.pool);
        for index in 0..blocks {
            // The new chain is built where the old one was in time, so that windows signed for it still hold.
            let parent = self.head().header.timestamp;
            let timestamp = usize::try_from(index)
                .ok()
                .and_then(|index| replaced.get(index).copied())
                .unwrap_or_else(|| self.now())
                .max(parent);
            let env = self.next_env(timestamp);
            let mut state = self.state().clone();
            let mut builder = Builder::default();
            let mut include = |tx: &Arc<Recovered<TxEnvelope>>| {
                if let Included::Never(reason) = builder.include(&mut state, &env, tx) {
                    tracing::debug!(hash = %tx.hash(), %reason, "not in the reorganized chain");
                }
            };
            if index == 0 && reorged == ReorgedTxs::Remine {
                gone.iter().for_each(&mut include);
            }
            for (tx, _) in extra.iter().filter(|(_, block)| *block == index) {
                include(&Arc::new(tx.clone()));
            }
            self.seal(builder, env, state);
        }
        self.pool = waiting;
        if reorged == ReorgedTxs::Pool {
            let limits = Limits { chain_id: self.chain_id, block_gas: BLOCK_GAS_LIMIT };
            for tx in gone {
                // One that no longer fits (nonce used, funds gone) has lost its place, as on a real node.
                if let Err(reason) = self.pool.add(tx, &self.states[self.states.len() - 1], limits) {
                    tracing::debug!(%reason, "not back in the pool");
                }
            }
        }
        let state = self.state().clone();
        self.pool.drop_stale_all(&state);
        Ok(())
    }

    // ---- Writing state directly ----

    pub fn set_balance(&mut self, address: Address, balance: U256) {
        self.state_mut().set_balance(address, balance);
    }

    pub fn set_nonce(&mut self, address: Address, nonce: u64) {
        self.state_mut().set_nonce(address, nonce);
        let state = self.state().clone();
        self.pool.drop_stale(&state, address);
    }

    pub fn set_code(&mut self, address: Address, code: Bytes) -> Result<(), ChainError> {
        if self.state_mut().set_code(address, code) { Ok(()) } else { Err(ChainError::BadCode) }
    }

    pub fn set_slot(&mut self, address: Address, slot: U256, value: U256) {
        self.state_mut().set_slot(address, slot, value);
    }
}

fn recover_authority(signed: &alloy_eips::eip7702::SignedAuthorization) -> Result<Address, ()> {
    let signature = signed.signature().map_err(|_| ())?;
    alloy_consensus::crypto::secp256k1::recover_signer(&signature, signed.signature_hash()).map_err(|_| ())
}

fn empty_header() -> Header {
    Header {
        // The state is not kept as a Merkle tree, so there is no root to name.
        state_root: B256::ZERO,
        withdrawals_root: Some(alloy_consensus::EMPTY_ROOT_HASH),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(alloy_eips::eip7685::EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}

enum Included {
    Yes,
    /// It may fit into another block.
    NoRoom,
    Never(String),
}

#[derive(Default)]
struct Builder {
    txs: Vec<Arc<Recovered<TxEnvelope>>>,
    receipts: Vec<MinedReceipt>,
    gas_used: u64,
    logs: u64,
    bloom: Bloom,
}

impl Builder {
    fn include(&mut self, state: &mut State, env: &Env, tx: &Arc<Recovered<TxEnvelope>>) -> Included {
        if tx.gas_limit() > env.gas_limit.saturating_sub(self.gas_used) {
            return Included::NoRoom;
        }
        let (result, changes) = match exec::run(state, env, exec::signed(tx), Rules::Signed) {
            Ok(done) => done,
            Err(EVMError::Transaction(
                InvalidTransaction::GasPriceLessThanBasefee | InvalidTransaction::NonceTooHigh { .. },
            )) => return Included::NoRoom,
            Err(error) => return Included::Never(error.to_string()),
        };
        state.apply(changes);
        let gas_used = result.tx_gas_used();
        self.gas_used += gas_used;
        let success = result.is_success();
        let contract_address = result.created_address().filter(|_| success);
        let logs = match result {
            ExecutionResult::Success { logs, .. } => logs,
            // A failed transaction leaves no log.
            ExecutionResult::Revert { .. } | ExecutionResult::Halt { .. } => Vec::new(),
        };
        let first_log = self.logs;
        self.logs += logs.len() as u64;
        let receipt: ReceiptWithBloom<Receipt> =
            Receipt { status: Eip658Value::Eip658(success), cumulative_gas_used: self.gas_used, logs }
                .with_bloom();
        self.bloom |= receipt.logs_bloom;
        self.receipts.push(MinedReceipt {
            envelope: ReceiptEnvelope::from_typed(tx.tx_type(), receipt),
            gas_used,
            effective_gas_price: tx.effective_gas_price(Some(env.base_fee)),
            contract_address,
            first_log,
        });
        self.txs.push(Arc::clone(tx));
        Included::Yes
    }
}
