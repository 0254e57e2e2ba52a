//! The chain of the world: blocks, a pool, forks, one token with EIP-3009, Permit2 and the x402 proxy. The truth; what
//! nodes say of it is another matter ([`crate::node`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{Transaction, TxEnvelope};
use alloy_eips::Decodable2718;
use alloy_primitives::keccak256;
use bytes::Bytes;
use farthing_engine::{Broadcast, Receipt, TxHash};
use farthing_evm::{
    Address, AuthorizationCanceled, AuthorizationUsed, B256, Domain, Log, Signature, Transfer,
    TransferAuthorization, U256, WitnessTransfer, abi, known,
};

use crate::escrow::{ESCROW, Escrow};
use crate::rng::Rng;

/// What a plain transaction costs, and what a settlement does: about what the real ones cost.
const GAS_PLAIN: u64 = 21_000;
const GAS_SETTLED: u64 = 67_000;
const GAS_REVERTED: u64 = 31_000;
/// How many transactions one block holds.
const BLOCK_TXS: usize = 200;
/// A replacement must offer so much more, in percent, as geth has it.
const REPLACE_PERCENT: u128 = 110;

/// The accounts after a block.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub token: BTreeMap<Address, u128>,
    /// What Permit2 may take of whom.
    pub allowed: BTreeMap<Address, U256>,
    /// Which of Permit2's nonces are used: of whom, and where in the bitmap.
    pub bitmap: BTreeMap<(Address, U256), U256>,
    /// Authorizations that were used or cancelled: by whom, and its nonce.
    pub used: BTreeMap<(Address, B256), Used>,
    /// The escrow of payment channels.
    pub escrow: Escrow,
    pub nonces: BTreeMap<Address, u64>,
    pub wei: BTreeMap<Address, u128>,
    /// What was burnt or given to the producers of blocks, so that the whole stays the whole.
    pub spent_wei: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    Paid { to: Address, value: u128, tx: B256 },
    Cancelled,
}

#[derive(Debug, Clone)]
pub struct Block {
    pub number: u64,
    pub hash: [u8; 32],
    pub parent: [u8; 32],
    /// Seconds.
    pub time: u64,
    pub base_fee: u128,
    pub receipts: Vec<Receipt>,
    pub txs: Vec<Tx>,
    pub state: Arc<State>,
}

/// A transaction whose sender is known to be its sender.
#[derive(Debug, Clone)]
pub struct Tx {
    pub hash: [u8; 32],
    pub from: Address,
    /// `None`: of an owner whose nonces do not matter here.
    pub nonce: Option<u64>,
    pub to: Address,
    pub data: Bytes,
    pub max_fee: u128,
    pub tip: u128,
}

impl Tx {
    /// Reads what a relayer signed.
    pub fn decode(raw: &[u8]) -> Option<Self> {
        let envelope = TxEnvelope::decode_2718(&mut &*raw).ok()?;
        let from = envelope.recover_signer().ok()?;
        Some(Self {
            hash: envelope.tx_hash().0,
            from,
            nonce: Some(envelope.nonce()),
            to: envelope.to()?,
            data: Bytes::copy_from_slice(envelope.input()),
            max_fee: envelope.max_fee_per_gas(),
            tip: envelope.max_priority_fee_per_gas().unwrap_or_default(),
        })
    }

    /// A transaction of somebody whom we know.
    pub fn of_owner(from: Address, to: Address, data: Bytes, salt: u64) -> Self {
        let mut preimage = data.to_vec();
        preimage.extend_from_slice(from.as_slice());
        preimage.extend_from_slice(&salt.to_be_bytes());
        let hash = keccak256(&preimage).0;
        Self { hash, from, nonce: None, to, data, max_fee: u128::MAX, tip: u128::MAX }
    }
}

/// The weather on the chain.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// How often, in a thousand, a transaction that could be in the next block is passed over.
    pub passed_over: u64,
    /// How often, in a thousand, the pool forgets a transaction at a block.
    pub forgotten: u64,
    /// Wei for each unit of gas.
    pub base_fee: u128,
}

impl Weather {
    pub const FAIR: Self = Self { passed_over: 0, forgotten: 0, base_fee: 1_000_000_000 };
}

#[derive(Debug)]
pub struct Chain {
    pub token: Address,
    domain: Domain,
    /// The canonical chain from its beginning.
    pub blocks: Vec<Block>,
    pub pool: Vec<Tx>,
    pub weather: Weather,
    rng: Rng,
    fork: u64,
    /// Blocks that were replaced.
    pub reorganized: u64,
    /// How deep the deepest reorganization was.
    pub deepest: u64,
    /// Transactions that were in a block which was replaced.
    pub uprooted: BTreeSet<[u8; 32]>,
    /// How many of them had called the escrow.
    pub uprooted_from_escrow: u64,
}

impl Chain {
    pub fn new(token: Address, domain: Domain, genesis: State, time: u64, seed: u64) -> Self {
        let first = Block {
            number: 0,
            hash: keccak256(b"genesis").0,
            parent: [0; 32],
            time,
            base_fee: Weather::FAIR.base_fee,
            receipts: Vec::new(),
            txs: Vec::new(),
            state: Arc::new(genesis),
        };
        Self {
            token,
            domain,
            blocks: vec![first],
            pool: Vec::new(),
            weather: Weather::FAIR,
            rng: Rng::stream(seed, "chain"),
            fork: 0,
            reorganized: 0,
            deepest: 0,
            uprooted: BTreeSet::new(),
            uprooted_from_escrow: 0,
        }
    }

    /// INVARIANT: the first block is never replaced, so there is a tip.
    #[allow(clippy::expect_used)]
    pub fn tip(&self) -> &Block {
        self.blocks.last().expect("a chain has a first block")
    }

    pub fn receipt(&self, tx: &[u8; 32], up_to: usize) -> Option<&Receipt> {
        self.blocks.get(..=up_to)?.iter().rev().flat_map(|b| &b.receipts).find(|r| r.tx.0 == *tx)
    }

    /// Takes a transaction into the pool, as a node would.
    pub fn offer(&mut self, tx: Tx) -> Broadcast {
        if self.pool.iter().any(|known| known.hash == tx.hash) {
            return Broadcast::Accepted;
        }
        if let Some(nonce) = tx.nonce {
            let next = self.tip().state.nonces.get(&tx.from).copied().unwrap_or_default();
            if nonce < next {
                let known = self.receipt(&tx.hash, self.blocks.len() - 1).is_some();
                return if known { Broadcast::Accepted } else { Broadcast::NonceTooLow };
            }
            let rival = self.pool.iter().position(|known| known.from == tx.from && known.nonce == tx.nonce);
            if let Some(at) = rival {
                let rival = &self.pool[at];
                let enough =
                    |new: u128, old: u128| new.saturating_mul(100) >= old.saturating_mul(REPLACE_PERCENT);
                if !enough(tx.max_fee, rival.max_fee) || !enough(tx.tip, rival.tip) {
                    return Broadcast::Underpriced;
                }
                self.pool.remove(at);
            }
        }
        self.pool.push(tx);
        Broadcast::Accepted
    }

    /// Adds a block.
    pub fn mine(&mut self, time: u64) {
        let time = time.max(self.tip().time + 1);
        let parent = self.tip().clone();
        let number = parent.number + 1;
        let mut preimage = parent.hash.to_vec();
        preimage.extend_from_slice(&self.fork.to_be_bytes());
        preimage.extend_from_slice(&time.to_be_bytes());
        let hash = keccak256(&preimage).0;
        let mut state = (*parent.state).clone();
        let (mut receipts, mut txs, mut log_index) = (Vec::new(), Vec::new(), 0);
        let weather = self.weather;
        let rng = &mut self.rng;
        self.pool.retain(|tx| tx.nonce.is_none() || !rng.per_mille(weather.forgotten));
        // Owners first: their fee is the highest there is. Then relayers, each in the order of its nonces.
        let mut waiting: Vec<Tx> = self.pool.clone();
        waiting.sort_by_key(|tx| (std::cmp::Reverse(tx.tip == u128::MAX), tx.from, tx.nonce));
        for tx in waiting {
            if txs.len() >= BLOCK_TXS {
                break;
            }
            let next = state.nonces.get(&tx.from).copied().unwrap_or_default();
            if tx.nonce.is_some_and(|nonce| nonce != next) {
                continue;
            }
            if tx.max_fee < weather.base_fee || self.rng.per_mille(weather.passed_over) {
                continue;
            }
            let price = match tx.nonce {
                Some(_) => tx.max_fee.min(weather.base_fee.saturating_add(tx.tip)),
                None => 0,
            };
            let before = state.clone();
            let mut logs = Vec::new();
            let done = self.execute(&mut state, &tx, time, &mut logs);
            let gas_used = match (&done, tx.data.is_empty()) {
                (_, true) => GAS_PLAIN,
                (Ok(()), false) => GAS_SETTLED,
                (Err(_), false) => GAS_REVERTED,
            };
            if done.is_err() {
                state = before;
                logs.clear();
            }
            let fee = price.saturating_mul(u128::from(gas_used));
            let wei = state.wei.entry(tx.from).or_default();
            let Some(left) = wei.checked_sub(fee) else { continue };
            *wei = left;
            state.spent_wei += fee;
            if let Some(nonce) = tx.nonce {
                state.nonces.insert(tx.from, nonce + 1);
            }
            for log in &mut logs {
                log.index = log_index;
                log_index += 1;
            }
            receipts.push(Receipt {
                tx: TxHash(tx.hash),
                success: done.is_ok(),
                block: number,
                block_hash: hash,
                gas_used,
                gas_price: price,
                logs,
            });
            txs.push(tx);
        }
        self.pool.retain(|waiting| !txs.iter().any(|tx| tx.hash == waiting.hash));
        // What can never be taken any more is forgotten.
        let nonces = &state.nonces;
        self.pool
            .retain(|tx| tx.nonce.is_none_or(|n| n >= nonces.get(&tx.from).copied().unwrap_or_default()));
        let (parent, base_fee) = (parent.hash, weather.base_fee);
        self.blocks.push(Block {
            number,
            hash,
            parent,
            time,
            base_fee,
            receipts,
            txs,
            state: Arc::new(state),
        });
    }

    /// Replaces the newest `depth` blocks by one more. `kept`: how many in a thousand of their transactions find their
    /// way back to the pool.
    pub fn reorganize(&mut self, depth: usize, kept: u64) {
        let depth = depth.min(self.blocks.len() - 1);
        if depth == 0 {
            return;
        }
        let gone = self.blocks.split_off(self.blocks.len() - depth);
        self.fork += 1;
        self.reorganized += depth as u64;
        self.deepest = self.deepest.max(depth as u64);
        for tx in gone.iter().flat_map(|block| &block.txs) {
            self.uprooted.insert(tx.hash);
            self.uprooted_from_escrow += u64::from(tx.to == ESCROW);
            if self.rng.per_mille(kept) {
                self.pool.push(tx.clone());
            }
        }
        for block in &gone {
            self.mine(block.time);
        }
        self.mine(gone.last().map_or(0, |block| block.time) + 1);
    }

    /// Runs a call on a state. `Err` holds the revert data.
    pub fn execute(&self, state: &mut State, tx: &Tx, time: u64, logs: &mut Vec<Log>) -> Result<(), Bytes> {
        if tx.data.is_empty() {
            return Ok(());
        }
        if tx.to == known::X402_EXACT_PROXY {
            let call = Permitted::read(&tx.data).ok_or_else(Bytes::new)?;
            return self.permitted(state, &call, tx, time, logs);
        }
        if tx.to == ESCROW {
            return self.call_escrow(state, tx, time, logs);
        }
        if tx.to != self.token {
            return Err(Bytes::new());
        }
        match TokenCall::read(&tx.data) {
            Some(TokenCall::Approve { spender, value }) => {
                if spender == known::PERMIT2 {
                    state.allowed.insert(tx.from, value);
                }
                if spender == ESCROW {
                    state.escrow.allowed.insert(tx.from, value);
                }
                Ok(())
            }
            Some(TokenCall::Transfer { to, value }) => self.pay(state, tx.from, to, value, logs),
            Some(TokenCall::Pay { auth, signature }) => {
                let key = (auth.from, auth.nonce);
                if U256::from(time) <= auth.valid_after {
                    return Err(revert("FiatTokenV2: authorization is not yet valid"));
                }
                if U256::from(time) >= auth.valid_before {
                    return Err(revert("FiatTokenV2: authorization is expired"));
                }
                if state.used.contains_key(&key) {
                    return Err(revert("FiatTokenV2: authorization is used or canceled"));
                }
                let signer = signature.recover(auth.transfer_digest(&self.domain)).ok();
                if signer != Some(auth.from) {
                    return Err(revert("FiatTokenV2: invalid signature"));
                }
                let value = u128::try_from(auth.value)
                    .map_err(|_| revert("ERC20: transfer amount exceeds balance"))?;
                let used = Used::Paid { to: auth.to, value, tx: B256::new(tx.hash) };
                state.used.insert(key, used);
                logs.push(Log {
                    address: self.token,
                    topics: vec![AuthorizationUsed::TOPIC, auth.from.into_word(), auth.nonce],
                    data: Default::default(),
                    index: 0,
                });
                self.pay(state, auth.from, auth.to, auth.value, logs)
            }
            Some(TokenCall::Cancel { authorizer, nonce }) => {
                if authorizer != tx.from {
                    return Err(revert("FiatTokenV2: invalid signature"));
                }
                match state.used.entry((authorizer, nonce)) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(Used::Cancelled);
                        logs.push(Log {
                            address: self.token,
                            topics: vec![AuthorizationCanceled::TOPIC, authorizer.into_word(), nonce],
                            data: Default::default(),
                            index: 0,
                        });
                        Ok(())
                    }
                    std::collections::btree_map::Entry::Occupied(_) => {
                        Err(revert("FiatTokenV2: authorization is used or canceled"))
                    }
                }
            }
            _ => Err(Bytes::new()),
        }
    }

    /// The x402 proxy's `settle`, Permit2's `permitWitnessTransferFrom`, and the token's `transferFrom`, in the order
    /// in which they look.
    fn permitted(
        &self,
        state: &mut State,
        call: &Permitted,
        tx: &Tx,
        time: u64,
        logs: &mut Vec<Log>,
    ) -> Result<(), Bytes> {
        let Permitted { owner, transfer, signature } = call;
        if U256::from(time) < transfer.valid_after {
            return Err(error("PaymentTooEarly()"));
        }
        if U256::from(time) > transfer.deadline {
            let mut data = error("SignatureExpired(uint256)").to_vec();
            data.extend_from_slice(&transfer.deadline.to_be_bytes::<32>());
            return Err(data.into());
        }
        let (word, bit) = abi::nonce_place(transfer.nonce);
        let bits = state.bitmap.entry((*owner, word)).or_default();
        if bits.bit(usize::from(bit)) {
            return Err(error("InvalidNonce()"));
        }
        bits.set_bit(usize::from(bit), true);
        if signature.recover(transfer.digest(&Domain::permit2(crate::gateway::NETWORK))).ok() != Some(*owner)
        {
            return Err(error("InvalidSigner()"));
        }
        let failed = || revert("TRANSFER_FROM_FAILED");
        let allowed = state.allowed.get(owner).copied().unwrap_or_default();
        let left = allowed.checked_sub(transfer.amount).ok_or_else(failed)?;
        if transfer.token != self.token {
            return Err(failed());
        }
        self.pay(state, *owner, transfer.to, transfer.amount, logs).map_err(|_| failed())?;
        state.allowed.insert(*owner, left);
        let value = u128::try_from(transfer.amount).map_err(|_| failed())?;
        let nonce = B256::from(transfer.nonce);
        state.used.insert((*owner, nonce), Used::Paid { to: transfer.to, value, tx: B256::new(tx.hash) });
        Ok(())
    }

    /// The token's domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    pub fn pay(
        &self,
        state: &mut State,
        from: Address,
        to: Address,
        value: U256,
        logs: &mut Vec<Log>,
    ) -> Result<(), Bytes> {
        let short = || revert("ERC20: transfer amount exceeds balance");
        let atoms = u128::try_from(value).map_err(|_| short())?;
        let balance = state.token.get(&from).copied().unwrap_or_default();
        let left = balance.checked_sub(atoms).ok_or_else(short)?;
        state.token.insert(from, left);
        *state.token.entry(to).or_default() += atoms;
        logs.push(Log {
            address: self.token,
            topics: vec![Transfer::TOPIC, from.into_word(), to.into_word()],
            data: value.to_be_bytes::<32>().to_vec().into(),
            index: 0,
        });
        Ok(())
    }

    /// Answers a read on the state after a block.
    pub fn call(&self, block: &Block, from: Address, to: Address, data: &Bytes) -> Result<Bytes, Bytes> {
        let word = |value: U256| Bytes::copy_from_slice(&value.to_be_bytes::<32>());
        let begins = |sample: farthing_evm::Bytes| data.get(..4) == sample.get(..4);
        let argument = |n: usize| data.get(4 + n * 32..36 + n * 32).map(B256::from_slice).unwrap_or_default();
        if to == known::PERMIT2 && begins(abi::nonce_bitmap(Address::ZERO, U256::ZERO)) {
            let place = (Address::from_word(argument(0)), U256::from_be_bytes(argument(1).0));
            return Ok(word(block.state.bitmap.get(&place).copied().unwrap_or_default()));
        }
        if to == known::X402_EXACT_PROXY && begins(abi::proxy_permit2()) {
            return Ok(word(U256::from_be_slice(known::PERMIT2.as_slice())));
        }
        if to == self.token && begins(abi::allowance(Address::ZERO, Address::ZERO)) {
            let allowed = block.state.allowed.get(&Address::from_word(argument(0))).copied();
            let to_permit2 = Address::from_word(argument(1)) == known::PERMIT2;
            return Ok(word(allowed.filter(|_| to_permit2).unwrap_or_default()));
        }
        if to == ESCROW
            && let Some(answer) = self.ask_escrow(&block.state, data)
        {
            return Ok(answer);
        }
        if to != self.token && to != known::X402_EXACT_PROXY && to != ESCROW {
            return Err(Bytes::new());
        }
        match TokenCall::read(data).filter(|_| to == self.token) {
            Some(TokenCall::BalanceOf(account)) => {
                Ok(word(U256::from(block.state.token.get(&account).copied().unwrap_or_default())))
            }
            Some(TokenCall::State { authorizer, nonce }) => {
                Ok(word(U256::from(u8::from(block.state.used.contains_key(&(authorizer, nonce))))))
            }
            _ => {
                let mut state = (*block.state).clone();
                let tx = Tx::of_owner(from, to, data.clone(), 0);
                // A simulation runs in the block that would come next; nodes give it the newest block's time.
                self.execute(&mut state, &tx, block.time, &mut Vec::new()).map(|()| Bytes::new())
            }
        }
    }
}

/// What the token understands.
enum TokenCall {
    Transfer { to: Address, value: U256 },
    Approve { spender: Address, value: U256 },
    Pay { auth: TransferAuthorization, signature: Signature },
    Cancel { authorizer: Address, nonce: B256 },
    BalanceOf(Address),
    State { authorizer: Address, nonce: B256 },
}

impl TokenCall {
    fn read(data: &Bytes) -> Option<Self> {
        let (selector, arguments) = data.split_first_chunk::<4>()?;
        let word = |n: usize| arguments.get(n * 32..(n + 1) * 32).map(B256::from_slice);
        let address = |n: usize| word(n).map(Address::from_word);
        let number = |n: usize| word(n).map(|word| U256::from_be_bytes(word.0));
        let is = |sample: farthing_evm::Bytes| sample.get(..4) == Some(selector.as_slice());
        if is(abi::balance_of(Address::ZERO)) {
            return Some(Self::BalanceOf(address(0)?));
        }
        if is(abi::authorization_state(Address::ZERO, B256::ZERO)) {
            return Some(Self::State { authorizer: address(0)?, nonce: word(1)? });
        }
        if is(abi::transfer(Address::ZERO, U256::ZERO)) {
            return Some(Self::Transfer { to: address(0)?, value: number(1)? });
        }
        if is(abi::approve(Address::ZERO, U256::ZERO)) {
            return Some(Self::Approve { spender: address(0)?, value: number(1)? });
        }
        // `transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)`
        if *selector == [0xe3, 0xee, 0x16, 0x0e] {
            let auth = TransferAuthorization {
                from: address(0)?,
                to: address(1)?,
                value: number(2)?,
                valid_after: number(3)?,
                valid_before: number(4)?,
                nonce: word(5)?,
            };
            let mut bytes = [0u8; 65];
            bytes[..32].copy_from_slice(word(7)?.as_slice());
            bytes[32..64].copy_from_slice(word(8)?.as_slice());
            bytes[64] = word(6)?.0[31];
            return Some(Self::Pay { auth, signature: Signature::parse(&bytes).ok()? });
        }
        // `cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)`
        if *selector == [0x5a, 0x04, 0x9a, 0x70] {
            return Some(Self::Cancel { authorizer: address(0)?, nonce: word(1)? });
        }
        None
    }
}

/// `cancelAuthorization` of its own owner, who needs no signature to send it here.
pub fn cancel_call(authorizer: Address, nonce: B256) -> Bytes {
    let mut data = vec![0x5a, 0x04, 0x9a, 0x70];
    data.extend_from_slice(authorizer.into_word().as_slice());
    data.extend_from_slice(nonce.as_slice());
    data.extend_from_slice(&[0; 96]);
    data.into()
}

/// The x402 proxy's `settle`.
struct Permitted {
    owner: Address,
    transfer: WitnessTransfer,
    signature: Signature,
}

impl Permitted {
    fn read(data: &Bytes) -> Option<Self> {
        let (selector, arguments) = data.split_first_chunk::<4>()?;
        let word = |n: usize| arguments.get(n * 32..(n + 1) * 32).map(B256::from_slice);
        let address = |n: usize| word(n).map(Address::from_word);
        let number = |n: usize| word(n).map(|word| U256::from_be_bytes(word.0));
        // Token, amount, nonce and deadline; the owner; the witness; then where the signature is.
        let transfer = WitnessTransfer {
            token: address(0)?,
            amount: number(1)?,
            spender: known::X402_EXACT_PROXY,
            nonce: number(2)?,
            deadline: number(3)?,
            to: address(5)?,
            valid_after: number(6)?,
        };
        let at = usize::try_from(number(7)?).ok()?;
        let signature = Signature::parse(arguments.get(at.checked_add(32)?..at.checked_add(97)?)?).ok()?;
        let settles = abi::settle(Address::ZERO, &transfer, &[]).get(..4) == Some(selector.as_slice());
        settles.then_some(Self { owner: address(4)?, transfer, signature })
    }
}

/// The nonce of the authorization that a settlement's calldata holds.
pub fn nonce_in(data: &Bytes) -> Option<B256> {
    match TokenCall::read(data) {
        Some(TokenCall::Pay { auth, .. }) => Some(auth.nonce),
        Some(_) => None,
        None => Permitted::read(data).map(|permitted| B256::from(permitted.transfer.nonce)),
    }
}

/// An error of Solidity with no arguments, or the beginning of one that has some.
pub fn error(signature: &str) -> Bytes {
    Bytes::copy_from_slice(&keccak256(signature.as_bytes())[..4])
}

/// `Error(string)`.
pub fn revert(why: &str) -> Bytes {
    let mut data = vec![0x08, 0xc3, 0x79, 0xa0];
    data.extend_from_slice(&U256::from(32).to_be_bytes::<32>());
    data.extend_from_slice(&U256::from(why.len()).to_be_bytes::<32>());
    data.extend_from_slice(why.as_bytes());
    data.resize(4 + 64 + why.len().next_multiple_of(32), 0);
    data.into()
}
