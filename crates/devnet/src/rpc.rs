//! JSON-RPC: from text to a method and back.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use alloy_consensus::transaction::{Recovered, SignerRecoverable, Transaction, TransactionInfo};
use alloy_consensus::{SignableTransaction, TxEnvelope, TypedTransaction};
use alloy_eips::eip2718::Decodable2718;
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U64, U256, keccak256};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{
    Block as RpcBlock, BlockOverrides, BlockTransactions, Filter, FilterBlockOption, Header as RpcHeader,
    Log, Transaction as RpcTransaction, TransactionReceipt, TransactionRequest,
};
use alloy_sol_types::SolCall;
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::accounts::{DEV_ACCOUNTS, DevAccount, MINTER};
use crate::chain::{Block, Chain, ChainError, Mining, ReorgedTxs, SUGGESTED_TIP, View};
use crate::contracts::{USDC, mintCall};
use crate::exec::{self, CALL_GAS_CAP, NoEstimate, Rules};
use crate::pool::PoolError;
use crate::state::State;
use crate::{CLIENT_VERSION, MAX_BATCH};

/// Logs that one `eth_getLogs` answers at most.
pub const MAX_LOGS: usize = 10_000;
/// Blocks that one `eth_feeHistory` answers at most.
pub const MAX_FEE_HISTORY: u64 = 1_024;
/// Percentiles that one `eth_feeHistory` takes at most.
pub const MAX_PERCENTILES: usize = 100;

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const SERVER_ERROR: i64 = -32000;
const LIMIT_EXCEEDED: i64 = -32005;
/// The code that go-ethereum gives an execution that reverted; its data is what the contract returned.
const REVERTED: i64 = 3;

#[derive(Debug)]
struct RpcError {
    code: i64,
    message: String,
    data: Option<Value>,
}

impl RpcError {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    fn params(message: impl std::fmt::Display) -> Self {
        Self::new(INVALID_PARAMS, format!("invalid params: {message}"))
    }

    fn json(&self) -> Value {
        match &self.data {
            Some(data) => json!({ "code": self.code, "message": self.message, "data": data }),
            None => json!({ "code": self.code, "message": self.message }),
        }
    }
}

impl From<PoolError> for RpcError {
    fn from(error: PoolError) -> Self {
        Self::new(SERVER_ERROR, error.to_string())
    }
}

impl From<ChainError> for RpcError {
    fn from(error: ChainError) -> Self {
        let code = match error {
            ChainError::NoSuchBlock | ChainError::StatePruned(_) | ChainError::Pool(_) => SERVER_ERROR,
            _ => INVALID_PARAMS,
        };
        Self::new(code, error.to_string())
    }
}

type Answer = Result<Value, RpcError>;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
    method: String,
    #[serde(default)]
    params: Option<Value>,
}

/// The chain with a lock around it, and the methods.
#[derive(Debug)]
pub struct Node {
    chain: RwLock<Chain>,
    /// Seconds between blocks; `None` is no clock.
    pub interval: watch::Sender<Option<Duration>>,
}

/// Returns whether a body asks for something that runs the EVM or takes the lock for writing.
///
/// Wrong guesses cost time, not correctness.
pub fn is_heavy(body: &[u8]) -> bool {
    const LIGHT_BODY_BYTES: usize = 512;
    body.len() > LIGHT_BODY_BYTES
        || body.first() == Some(&b'[')
        || ["eth_call", "eth_estimateGas", "eth_send", "eth_getLogs", "mine", "anvil_", "farthing_", "evm_"]
            .iter()
            .any(|name| body.windows(name.len()).any(|window| window == name.as_bytes()))
}

fn failure(id: &str, error: &RpcError) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, error.json())
}

impl Node {
    pub fn new(chain: Chain, interval: Option<Duration>) -> Self {
        Self { chain: RwLock::new(chain), interval: watch::Sender::new(interval) }
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Chain> {
        self.chain.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request or a batch. `None` if there is nothing to answer (notifications only).
    pub fn handle(&self, body: &[u8]) -> Option<String> {
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        if first != Some(&b'[') {
            return self.one(body);
        }
        let Ok(batch) = serde_json::from_slice::<Vec<&RawValue>>(body) else {
            return Some(failure("null", &RpcError::new(PARSE_ERROR, "parse error")));
        };
        if batch.is_empty() {
            return Some(failure("null", &RpcError::new(INVALID_REQUEST, "empty batch")));
        }
        if batch.len() > MAX_BATCH {
            let error = RpcError::new(INVALID_REQUEST, format!("batch of more than {MAX_BATCH} requests"));
            return Some(failure("null", &error));
        }
        let answers: Vec<String> = batch.iter().filter_map(|one| self.one(one.get().as_bytes())).collect();
        if answers.is_empty() { None } else { Some(format!("[{}]", answers.join(","))) }
    }

    fn one(&self, text: &[u8]) -> Option<String> {
        let request: Request<'_> = match serde_json::from_slice(text) {
            Ok(request) => request,
            Err(error) => {
                let (code, message) = match error.classify() {
                    serde_json::error::Category::Data => (INVALID_REQUEST, "invalid request"),
                    _ => (PARSE_ERROR, "parse error"),
                };
                return Some(failure("null", &RpcError::new(code, message)));
            }
        };
        let id = request.id.map(RawValue::get);
        let answer = match request.params {
            None | Some(Value::Null) => self.call(&request.method, Params::default()),
            Some(Value::Array(list)) => self.call(&request.method, Params(list)),
            Some(other @ Value::Object(_)) => self.call(&request.method, Params(vec![other])),
            Some(_) => Err(RpcError::params("neither a list nor an object")),
        };
        let id = id?;
        Some(match answer {
            Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
            Err(error) => failure(id, &error),
        })
    }

    fn call(&self, method: &str, params: Params) -> Answer {
        match method {
            "web3_clientVersion" => Ok(json!(CLIENT_VERSION)),
            "web3_sha3" => Ok(json!(keccak256(params.get::<Bytes>(0)?))),
            "net_version" => Ok(json!(self.read().chain_id.to_string())),
            "net_listening" => Ok(json!(true)),
            "net_peerCount" => Ok(quantity(0)),
            "eth_chainId" => Ok(quantity(self.read().chain_id)),
            "eth_syncing" | "eth_mining" => Ok(json!(false)),
            "eth_accounts" | "eth_requestAccounts" => {
                Ok(json!(DEV_ACCOUNTS.iter().map(|account| account.address).collect::<Vec<_>>()))
            }
            "eth_blockNumber" => Ok(quantity(self.read().head().header.number)),
            "eth_gasPrice" => Ok(quantity(self.read().next_base_fee().saturating_add(SUGGESTED_TIP))),
            "eth_maxPriorityFeePerGas" => Ok(quantity(SUGGESTED_TIP)),
            "eth_blobBaseFee" => Ok(quantity(1)),
            "eth_feeHistory" => self.fee_history(&params),
            "eth_getBalance" => self.at(&params, 1, |state| Ok(json!(state.balance(params.get(0)?)))),
            "eth_getCode" => self.at(&params, 1, |state| Ok(json!(state.code(params.get(0)?)))),
            "eth_getStorageAt" => self.at(&params, 2, |state| {
                Ok(json!(B256::from(state.slot(params.get(0)?, params.get::<U256>(1)?))))
            }),
            "eth_getTransactionCount" => {
                let address = params.get(0)?;
                let block = params.block(1)?;
                let chain = self.read();
                Ok(quantity(match block {
                    BlockId::Number(BlockNumberOrTag::Pending) => chain.next_nonce(address),
                    other => chain.state_at(other)?.nonce(address),
                }))
            }
            "eth_getBlockByNumber" => {
                let tag: BlockNumberOrTag = params.get(0)?;
                let full = params.optional(1)?.unwrap_or(false);
                let chain = self.read();
                let tag = if tag.is_pending() { BlockNumberOrTag::Latest } else { tag };
                Ok(chain.block(chain.number(tag)).map_or(Value::Null, |block| rpc_block(block, full)))
            }
            "eth_getBlockByHash" => {
                let full = params.optional(1)?.unwrap_or(false);
                Ok(self
                    .read()
                    .block_by_hash(&params.get(0)?)
                    .map_or(Value::Null, |block| rpc_block(block, full)))
            }
            "eth_getBlockTransactionCountByNumber" => {
                let chain = self.read();
                let block = chain.block(chain.number(params.get(0)?));
                Ok(block.map_or(Value::Null, |block| quantity(block.txs.len() as u64)))
            }
            "eth_getBlockTransactionCountByHash" => {
                let chain = self.read();
                let block = chain.block_by_hash(&params.get(0)?);
                Ok(block.map_or(Value::Null, |block| quantity(block.txs.len() as u64)))
            }
            "eth_getBlockReceipts" => {
                let chain = self.read();
                let block = match params.get::<BlockId>(0)? {
                    BlockId::Hash(hash) => chain.block_by_hash(&hash.block_hash),
                    BlockId::Number(tag) => chain.block(chain.number(tag)),
                };
                Ok(block.map_or(Value::Null, |block| {
                    Value::Array((0..block.txs.len()).map(|index| rpc_receipt(block, index)).collect())
                }))
            }
            "eth_getTransactionByHash" => self.transaction(&params.get(0)?),
            "eth_getTransactionByBlockNumberAndIndex" => {
                let chain = self.read();
                let block = chain.block(chain.number(params.get(0)?));
                Ok(at_index(block.map(|block| &**block), params.get::<U64>(1)?))
            }
            "eth_getTransactionByBlockHashAndIndex" => {
                let chain = self.read();
                let block = chain.block_by_hash(&params.get(0)?);
                Ok(at_index(block.map(|block| &**block), params.get::<U64>(1)?))
            }
            "eth_getTransactionReceipt" => {
                let chain = self.read();
                Ok(chain
                    .mined(&params.get(0)?)
                    .map_or(Value::Null, |(block, index)| rpc_receipt(block, index)))
            }
            "eth_getLogs" => self.logs(&params.get(0)?),
            "eth_call" => self.eth_call(&params),
            "eth_estimateGas" => self.estimate_gas(&params),
            "eth_sendRawTransaction" => self.send_raw(&params.get(0)?),
            "eth_sendTransaction" => self.send_transaction(params.get(0)?),
            "txpool_status" => {
                let chain = self.read();
                let pending = chain.pool().pending_len(chain.state());
                Ok(json!({
                    "pending": quantity(pending as u64),
                    "queued": quantity((chain.pool().len() - pending) as u64),
                }))
            }
            _ => self.control(method, &params),
        }
    }

    /// What no public chain offers. Each goes by the name that other development chains gave it.
    fn control(&self, method: &str, params: &Params) -> Answer {
        match method {
            "evm_mine" => {
                let timestamp = match params.0.first() {
                    Some(Value::Object(options)) => options.get("timestamp").map(number).transpose()?,
                    Some(Value::Null) | None => None,
                    Some(other) => Some(number(other)?),
                };
                let mut chain = self.write();
                if let Some(timestamp) = timestamp {
                    chain.set_next_timestamp(timestamp)?;
                }
                chain.mine();
                Ok(json!("0x0"))
            }
            "anvil_mine" | "hardhat_mine" => {
                let count = params.optional_number(0)?.unwrap_or(1);
                let interval = params.optional_number(1)?;
                self.write().mine_many(count, interval)?;
                Ok(Value::Null)
            }
            "evm_setAutomine" | "anvil_setAutomine" => {
                let on: bool = params.get(0)?;
                let mut chain = self.write();
                chain.mining = if on { Mining::Automatic } else { Mining::Elsewhere };
                if on {
                    self.interval.send_replace(None);
                }
                chain.mine_if_automatic();
                Ok(if method == "evm_setAutomine" { json!(true) } else { Value::Null })
            }
            "anvil_getAutomine" | "hardhat_getAutomine" => Ok(json!(self.read().mining == Mining::Automatic)),
            "evm_setIntervalMining" | "anvil_setIntervalMining" => {
                let seconds = params.number(0)?;
                self.write().mining = Mining::Elsewhere;
                self.interval.send_replace((seconds > 0).then(|| Duration::from_secs(seconds)));
                Ok(Value::Null)
            }
            "evm_increaseTime" | "anvil_increaseTime" => {
                Ok(json!(self.write().increase_time(params.number(0)?)?))
            }
            "evm_setNextBlockTimestamp" | "anvil_setNextBlockTimestamp" => {
                self.write().set_next_timestamp(params.number(0)?)?;
                Ok(Value::Null)
            }
            "evm_snapshot" | "anvil_snapshot" => Ok(quantity(self.write().snapshot())),
            "evm_revert" | "anvil_revert" => Ok(json!(self.write().revert(params.number(0)?))),
            "anvil_reorg" => {
                // As anvil has it: `depth`, then pairs of a transaction and the new block it goes into. What was in
                // the old blocks is gone.
                let (depth, pairs): (u64, Vec<(Bytes, u64)>) = match params.0.first() {
                    Some(Value::Object(options)) => (
                        options.get("depth").map(number).transpose()?.unwrap_or(0),
                        options
                            .get("txBlockPairs")
                            .or(options.get("tx_block_pairs"))
                            .map_or(Ok(Vec::new()), from)?,
                    ),
                    _ => (params.number(0)?, params.optional(1)?.unwrap_or_default()),
                };
                let mut extra = Vec::with_capacity(pairs.len());
                for (raw, block) in pairs {
                    extra.push((decode(&raw)?, block));
                }
                self.write().reorg(depth, depth, ReorgedTxs::Drop, extra)?;
                Ok(Value::Null)
            }
            "farthing_reorg" => {
                let options: ReorgOptions = params.get(0)?;
                let reorged = match options.transactions.as_deref() {
                    None | Some("drop") => ReorgedTxs::Drop,
                    Some("pool") => ReorgedTxs::Pool,
                    Some("remine") => ReorgedTxs::Remine,
                    Some(other) => return Err(RpcError::params(format!("transactions: {other}"))),
                };
                self.write().reorg(
                    options.depth,
                    options.blocks.unwrap_or(options.depth),
                    reorged,
                    Vec::new(),
                )?;
                Ok(Value::Null)
            }
            "farthing_mintUsdc" => {
                let to: Address = params.get(0)?;
                let amount = params.quantity(1)?;
                let data = mintCall { to, amount }.abi_encode();
                let request = TransactionRequest {
                    from: Some(MINTER.address),
                    to: Some(TxKind::Call(USDC)),
                    input: Bytes::from(data).into(),
                    ..TransactionRequest::default()
                };
                self.send_transaction(request)
            }
            "anvil_dropTransaction" => {
                Ok(self.write().drop_transaction(&params.get(0)?).map_or(Value::Null, |hash| json!(hash)))
            }
            "anvil_dropAllTransactions" => {
                self.write().clear_pool();
                Ok(Value::Null)
            }
            "anvil_setBalance" | "hardhat_setBalance" => {
                self.write().set_balance(params.get(0)?, params.quantity(1)?);
                Ok(Value::Null)
            }
            "anvil_setNonce" | "hardhat_setNonce" => {
                self.write().set_nonce(params.get(0)?, params.number(1)?);
                Ok(Value::Null)
            }
            "anvil_setCode" | "hardhat_setCode" => {
                self.write().set_code(params.get(0)?, params.get(1)?)?;
                Ok(Value::Null)
            }
            "anvil_setStorageAt" | "hardhat_setStorageAt" => {
                let value: U256 = params.get(2)?;
                self.write().set_slot(params.get(0)?, params.get(1)?, value);
                Ok(json!(true))
            }
            _ => Err(RpcError::new(METHOD_NOT_FOUND, format!("the method {} does not exist", clip(method)))),
        }
    }

    fn at(&self, params: &Params, block: usize, read: impl FnOnce(&State) -> Answer) -> Answer {
        let id = params.block(block)?;
        read(self.read().state_at(id)?)
    }

    fn view(&self, params: &Params) -> Result<View, RpcError> {
        let id = params.block(1)?;
        let mut view = self.read().view(id)?;
        for (address, account) in params.optional::<StateOverride>(2)?.unwrap_or_default() {
            let state = &mut view.state;
            if let Some(balance) = account.balance {
                state.set_balance(address, balance);
            }
            if let Some(nonce) = account.nonce {
                state.set_nonce(address, nonce);
            }
            if let Some(code) = account.code
                && !state.set_code(address, code)
            {
                return Err(ChainError::BadCode.into());
            }
            if let Some(slots) = &account.state {
                state.clear_storage(address);
                slots
                    .iter()
                    .for_each(|(slot, value)| state.set_slot(address, (*slot).into(), (*value).into()));
            }
            for (slot, value) in account.state_diff.iter().flatten() {
                state.set_slot(address, (*slot).into(), (*value).into());
            }
        }
        if let Some(overrides) = params.optional::<BlockOverrides>(3)? {
            view.env = view.env.overridden(&overrides);
        }
        Ok(view)
    }

    fn eth_call(&self, params: &Params) -> Answer {
        let request: TransactionRequest = params.get(0)?;
        let View { state, env } = self.view(params)?;
        let mut tx = exec::call(&request);
        exec::set_gas(&mut tx, &state, request.gas, CALL_GAS_CAP);
        let gas = tx.gas_limit;
        let (result, _) = exec::run(&state, &env, tx, Rules::Call).map_err(invalid)?;
        Ok(json!(succeeded(result, gas)?))
    }

    fn estimate_gas(&self, params: &Params) -> Answer {
        let request: TransactionRequest = params.get(0)?;
        let View { state, env } = self.view(params)?;
        let mut tx = exec::call(&request);
        exec::set_gas(&mut tx, &state, request.gas, env.gas_limit);
        let gas = tx.gas_limit;
        estimate(&state, &env, tx, gas).map(quantity)
    }

    fn send_raw(&self, raw: &Bytes) -> Answer {
        // The signature is checked before the lock is taken.
        let tx = decode(raw)?;
        Ok(json!(self.write().submit(tx)?))
    }

    fn send_transaction(&self, mut request: TransactionRequest) -> Answer {
        let from = request.from.ok_or_else(|| RpcError::params("no sender"))?;
        let Some(account) = DEV_ACCOUNTS.iter().find(|account| account.address == from) else {
            return Err(RpcError::new(SERVER_ERROR, "unknown account"));
        };
        if request.gas.is_none() {
            let View { state, env } = self.read().view(BlockId::pending())?;
            let mut tx = exec::call(&request);
            exec::set_gas(&mut tx, &state, None, env.gas_limit);
            let gas = tx.gas_limit;
            request.gas = Some(estimate(&state, &env, tx, gas)?);
        }
        let mut chain = self.write();
        if request.gas_price.is_none() {
            let tip = request.max_priority_fee_per_gas.unwrap_or_else(|| u128::from(SUGGESTED_TIP));
            request.max_priority_fee_per_gas = Some(tip);
            // Twice the base fee holds for the next blocks, also when they are full.
            request.max_fee_per_gas.get_or_insert(2 * u128::from(chain.next_base_fee()) + tip);
        }
        request.nonce = Some(request.nonce.unwrap_or_else(|| chain.next_nonce(from)));
        request.chain_id = Some(chain.chain_id);
        request.to.get_or_insert(TxKind::Create);
        request.normalize_input();
        let unsigned = request.build_typed_tx().map_err(|_| RpcError::params("incomplete transaction"))?;
        let tx = sign(account, unsigned)?;
        Ok(json!(chain.submit(tx)?))
    }

    fn transaction(&self, hash: &B256) -> Answer {
        let chain = self.read();
        if let Some((block, index)) = chain.mined(hash) {
            return Ok(rpc_transaction(block, index));
        }
        Ok(chain.pool().get(hash).map_or(Value::Null, |waiting| {
            json!(RpcTransaction::from_transaction((*waiting.tx).clone(), TransactionInfo::default()))
        }))
    }

    fn logs(&self, filter: &Filter) -> Answer {
        let chain = self.read();
        let blocks: Vec<&Block> = match filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => {
                vec![&**chain.block_by_hash(&hash).ok_or(ChainError::NoSuchBlock)?]
            }
            FilterBlockOption::Range { from_block, to_block } => {
                let latest = chain.head().header.number;
                let from = chain.number(from_block.unwrap_or_default());
                let to = chain.number(to_block.unwrap_or_default());
                if from > to {
                    return Err(RpcError::params("block range: from is greater than to"));
                }
                (from.min(latest + 1)..=to.min(latest))
                    .filter_map(|number| chain.block(number))
                    .map(|block| &**block)
                    .collect()
            }
        };
        let mut found = Vec::new();
        for block in blocks {
            if !filter.matches_bloom(block.header.logs_bloom) {
                continue;
            }
            for index in 0..block.txs.len() {
                for log in rpc_logs(block, index) {
                    if filter.matches_address(log.inner.address) && filter.matches_topics(log.inner.topics())
                    {
                        if found.len() == MAX_LOGS {
                            let message = format!("query returned more than {MAX_LOGS} results");
                            return Err(RpcError::new(LIMIT_EXCEEDED, message));
                        }
                        found.push(json!(log));
                    }
                }
            }
        }
        Ok(Value::Array(found))
    }

    fn fee_history(&self, params: &Params) -> Answer {
        let count = params.number(0)?.min(MAX_FEE_HISTORY);
        let newest: BlockNumberOrTag = params.get(1)?;
        let percentiles = percentiles(params.0.get(2))?;
        let chain = self.read();
        let newest = chain.number(newest).min(chain.head().header.number);
        let blocks: Vec<_> = (newest.saturating_sub(count.saturating_sub(1))..=newest)
            .filter_map(|number| chain.block(number))
            .collect();
        let Some((oldest, last)) = blocks.first().zip(blocks.last()).filter(|_| count > 0) else {
            return Ok(json!({ "oldestBlock": "0x0", "gasUsedRatio": [] }));
        };
        let mut base_fees: Vec<Value> =
            blocks.iter().map(|block| quantity(block.header.base_fee_per_gas.unwrap_or_default())).collect();
        let after = chain.block(last.header.number + 1);
        base_fees.push(quantity(after.map_or_else(
            || chain.next_base_fee(),
            |block| block.header.base_fee_per_gas.unwrap_or_default(),
        )));
        let rewards: Vec<Value> = blocks.iter().map(|block| json!(rewards(block, &percentiles))).collect();
        let mut answer = json!({
            "oldestBlock": quantity(oldest.header.number),
            "baseFeePerGas": base_fees,
            "gasUsedRatio": blocks.iter().map(|block| ratio(&block.header)).collect::<Vec<_>>(),
            "baseFeePerBlobGas": vec!["0x1"; blocks.len() + 1],
            "blobGasUsedRatio": vec![0; blocks.len()],
        });
        if !percentiles.is_empty() {
            answer["reward"] = Value::Array(rewards);
        }
        Ok(answer)
    }
}

#[derive(Deserialize)]
struct ReorgOptions {
    depth: u64,
    blocks: Option<u64>,
    transactions: Option<String>,
}

#[derive(Debug, Default)]
struct Params(Vec<Value>);

fn from<T: DeserializeOwned>(value: &Value) -> Result<T, RpcError> {
    T::deserialize(value).map_err(|error| RpcError::params(clip(&error.to_string())))
}

/// Reads a number written as a JSON number, a decimal string or a hexadecimal one.
fn number(value: &Value) -> Result<u64, RpcError> {
    big_number(value)?.try_into().map_err(|_| RpcError::params("number out of range"))
}

fn big_number(value: &Value) -> Result<U256, RpcError> {
    match value {
        Value::Number(number) => number.as_u64().map(U256::from),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| RpcError::params("not a whole number"))
}

impl Params {
    fn value(&self, index: usize) -> Option<&Value> {
        self.0.get(index).filter(|value| !value.is_null())
    }

    fn missing(index: usize) -> RpcError {
        RpcError::params(format!("missing value for required argument {index}"))
    }

    fn get<T: DeserializeOwned>(&self, index: usize) -> Result<T, RpcError> {
        from(self.value(index).ok_or_else(|| Self::missing(index))?)
    }

    fn optional<T: DeserializeOwned>(&self, index: usize) -> Result<Option<T>, RpcError> {
        self.value(index).map(from).transpose()
    }

    fn number(&self, index: usize) -> Result<u64, RpcError> {
        number(self.value(index).ok_or_else(|| Self::missing(index))?)
    }

    fn optional_number(&self, index: usize) -> Result<Option<u64>, RpcError> {
        self.value(index).map(number).transpose()
    }

    fn quantity(&self, index: usize) -> Result<U256, RpcError> {
        big_number(self.value(index).ok_or_else(|| Self::missing(index))?)
    }

    fn block(&self, index: usize) -> Result<BlockId, RpcError> {
        Ok(self.optional(index)?.unwrap_or_default())
    }
}

fn quantity(value: u64) -> Value {
    json!(U64::from(value))
}

/// Cuts what a stranger sent before it is echoed.
fn clip(text: &str) -> &str {
    const ECHO_CHARS: usize = 80;
    text.char_indices().nth(ECHO_CHARS).map_or(text, |(end, _)| &text[..end])
}

fn decode(raw: &Bytes) -> Result<Recovered<TxEnvelope>, RpcError> {
    let mut rest = raw.as_ref();
    let tx = TxEnvelope::decode_2718(&mut rest)
        .map_err(|error| RpcError::new(SERVER_ERROR, format!("rlp: {error}")))?;
    if !rest.is_empty() {
        return Err(RpcError::new(SERVER_ERROR, "rlp: input contains more than one value"));
    }
    // High-s signatures are refused here (EIP-2).
    let signer = tx.recover_signer().map_err(|_| RpcError::new(SERVER_ERROR, "invalid sender"))?;
    Ok(Recovered::new_unchecked(tx, signer))
}

fn sign(account: &DevAccount, unsigned: TypedTransaction) -> Result<Recovered<TxEnvelope>, RpcError> {
    let failed = || RpcError::new(SERVER_ERROR, "transaction cannot be signed");
    let hash = unsigned.signature_hash();
    let signature: Signature =
        alloy_consensus::crypto::secp256k1::sign_message(account.private_key, hash).map_err(|_| failed())?;
    let tx = TxEnvelope::from(unsigned.into_signed(signature));
    Ok(Recovered::new_unchecked(tx, account.address))
}

fn invalid(error: exec::Failure) -> RpcError {
    let message = match error {
        EVMError::Transaction(InvalidTransaction::LackOfFundForMaxFee { fee, balance }) => {
            format!(
                "insufficient funds for gas * price + value: balance {balance}, tx cost {fee}, overshot {}",
                fee.saturating_sub(*balance)
            )
        }
        EVMError::Transaction(InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit }) => {
            format!("intrinsic gas too low: gas {gas_limit}, minimum needed {initial_gas}")
        }
        other => other.to_string(),
    };
    RpcError::new(SERVER_ERROR, message)
}

/// Returns the output, or the error that go-ethereum answers.
fn succeeded(result: ExecutionResult, gas: u64) -> Result<Bytes, RpcError> {
    match result {
        ExecutionResult::Success { output, .. } => Ok(output.into_data()),
        ExecutionResult::Revert { output, .. } => {
            let reason = alloy_sol_types::decode_revert_reason(&output)
                .map(|reason| reason.strip_prefix("revert: ").map_or(reason.clone(), str::to_owned));
            Err(RpcError {
                code: REVERTED,
                message: reason.map_or("execution reverted".to_owned(), |reason| {
                    format!("execution reverted: {reason}")
                }),
                data: Some(json!(output)),
            })
        }
        ExecutionResult::Halt { reason, .. } if exec::out_of_gas(&reason) => {
            Err(RpcError::new(SERVER_ERROR, format!("out of gas: gas required exceeds allowance ({gas})")))
        }
        ExecutionResult::Halt { reason, .. } => {
            Err(RpcError::new(SERVER_ERROR, format!("execution halted: {reason:?}")))
        }
    }
}

fn estimate(state: &State, env: &exec::Env, tx: revm::context::TxEnv, gas: u64) -> Result<u64, RpcError> {
    match exec::estimate(state, env, tx) {
        Ok(gas) => Ok(gas),
        Err(NoEstimate::Invalid(error)) => Err(invalid(error)),
        Err(NoEstimate::Failed(ExecutionResult::Halt { reason, .. })) if exec::out_of_gas(&reason) => {
            Err(RpcError::new(SERVER_ERROR, format!("gas required exceeds allowance ({gas})")))
        }
        Err(NoEstimate::Failed(result)) => match succeeded(result, gas) {
            Err(error) => Err(error),
            Ok(_) => Err(RpcError::new(SERVER_ERROR, "no estimate")),
        },
    }
}

fn tx_info(block: &Block, index: usize) -> TransactionInfo {
    TransactionInfo {
        hash: block.txs.get(index).map(|tx| *tx.hash()),
        index: Some(index as u64),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        base_fee: block.header.base_fee_per_gas,
        block_timestamp: Some(block.header.timestamp),
    }
}

fn rpc_transaction(block: &Block, index: usize) -> Value {
    block.txs.get(index).map_or(Value::Null, |tx| {
        json!(RpcTransaction::from_transaction((**tx).clone(), tx_info(block, index)))
    })
}

fn at_index(block: Option<&Block>, index: U64) -> Value {
    block.map_or(Value::Null, |block| rpc_transaction(block, index.saturating_to()))
}

fn rpc_block(block: &Block, full: bool) -> Value {
    let header = RpcHeader {
        hash: block.hash,
        inner: block.header.clone(),
        total_difficulty: Some(U256::ZERO),
        size: Some(U256::from(block.size)),
    };
    let transactions = if full {
        BlockTransactions::Full(
            block
                .txs
                .iter()
                .enumerate()
                .map(|(index, tx)| RpcTransaction::from_transaction((**tx).clone(), tx_info(block, index)))
                .collect(),
        )
    } else {
        BlockTransactions::Hashes(block.txs.iter().map(|tx| *tx.hash()).collect())
    };
    json!(RpcBlock::new(header, transactions).with_withdrawals(Some(Default::default())))
}

fn rpc_logs(block: &Block, index: usize) -> impl Iterator<Item = Log> {
    let receipt = block.receipts.get(index);
    let first = receipt.map_or(0, |receipt| receipt.first_log);
    let hash = block.txs.get(index).map(|tx| *tx.hash());
    receipt.into_iter().flat_map(|receipt| receipt.envelope.logs()).zip(first..).map(
        move |(log, log_index)| Log {
            inner: log.clone(),
            block_hash: Some(block.hash),
            block_number: Some(block.header.number),
            block_timestamp: Some(block.header.timestamp),
            transaction_hash: hash,
            transaction_index: Some(index as u64),
            log_index: Some(log_index),
            removed: false,
        },
    )
}

fn rpc_receipt(block: &Block, index: usize) -> Value {
    let Some((tx, receipt)) = block.txs.get(index).zip(block.receipts.get(index)) else { return Value::Null };
    let mut logs = rpc_logs(block, index);
    json!(TransactionReceipt {
        // INVARIANT: `rpc_logs` yields as many logs as the receipt has; a missing one would be an empty one.
        inner: receipt.envelope.clone().map_logs(|_| logs.next().unwrap_or_default()),
        transaction_hash: *tx.hash(),
        transaction_index: Some(index as u64),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        gas_used: receipt.gas_used,
        effective_gas_price: receipt.effective_gas_price,
        blob_gas_used: None,
        blob_gas_price: None,
        from: tx.signer(),
        to: tx.to(),
        contract_address: receipt.contract_address,
    })
}

/// The protocol wants this as a fraction; it is for display only.
#[allow(clippy::float_arithmetic, clippy::cast_precision_loss)]
fn ratio(header: &alloy_consensus::Header) -> f64 {
    header.gas_used as f64 / header.gas_limit as f64
}

/// Reads percentiles as thousandths of a percent.
#[allow(clippy::float_arithmetic, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percentiles(value: Option<&Value>) -> Result<Vec<u128>, RpcError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let list: Vec<f64> = from(value)?;
    if list.len() > MAX_PERCENTILES || list.iter().any(|one| !(0.0..=100.0).contains(one)) {
        return Err(RpcError::params("percentiles"));
    }
    Ok(list.into_iter().map(|one| (one * 1_000.0) as u128).collect())
}

/// Returns the tips at these percentiles of the block's gas.
fn rewards(block: &Block, percentiles: &[u128]) -> Vec<Value> {
    let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
    let mut tips: Vec<(u128, u64)> = block
        .txs
        .iter()
        .zip(&block.receipts)
        .map(|(tx, receipt)| (tx.effective_tip_per_gas(base_fee).unwrap_or_default(), receipt.gas_used))
        .collect();
    tips.sort_unstable();
    percentiles
        .iter()
        .map(|percentile| {
            let threshold = u128::from(block.header.gas_used) * percentile / 100_000;
            let mut sum = 0;
            let tip = tips
                .iter()
                .find(|(_, gas)| {
                    sum += u128::from(*gas);
                    sum >= threshold
                })
                .map_or(0, |(tip, _)| *tip);
            json!(U256::from(tip))
        })
        .collect()
}
