//! What we read of a node's answers. Fields that decide nothing here are not looked at, so that a chain with fields or
//! transaction types of its own is read as well.

use alloy_json_rpc::ErrorPayload;
use alloy_primitives::{Address, B256, Bytes, U64, U256, hex};
use farthing_engine::{Head, Receipt, TxHash};
use farthing_evm::Log;
use farthing_primitives::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The longest text of a node that we repeat, in characters.
const MAX_TEXT: usize = 200;

/// The answer is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Reads one answer; JSON `null` is `None` where `T` is an option.
pub(crate) fn read<T: DeserializeOwned>(raw: &RawValue) -> Result<T, Unreadable> {
    serde_json::from_str(raw.get()).map_err(|_| Unreadable)
}

/// Reads a hex quantity of at most 64 bits.
pub(crate) fn quantity(raw: &RawValue) -> Result<u64, Unreadable> {
    read::<U64>(raw).map(|number| number.to())
}

/// Reads a hex quantity of at most 128 bits: a balance in wei fits, and what does not is refused.
pub(crate) fn wide(raw: &RawValue) -> Result<u128, Unreadable> {
    read::<U256>(raw).and_then(narrow)
}

fn narrow(number: U256) -> Result<u128, Unreadable> {
    number.try_into().map_err(|_| Unreadable)
}

/// What may be repeated of a node's text in our log.
pub(crate) fn text(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockWire {
    number: U64,
    hash: B256,
    parent_hash: B256,
    timestamp: U64,
    base_fee_per_gas: Option<U256>,
}

pub(crate) fn head(raw: &RawValue) -> Result<Option<Head>, Unreadable> {
    let Some(block) = read::<Option<BlockWire>>(raw)? else { return Ok(None) };
    Ok(Some(Head {
        number: block.number.to(),
        hash: block.hash.0,
        parent: block.parent_hash.0,
        timestamp: Timestamp::from_secs(block.timestamp.to()),
        base_fee: block.base_fee_per_gas.map_or(Ok(0), narrow)?,
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogWire {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
    log_index: U64,
    transaction_hash: B256,
    #[serde(default)]
    removed: bool,
}

impl LogWire {
    fn into_log(self) -> (TxHash, Log) {
        let index = self.log_index.to();
        (
            TxHash(self.transaction_hash.0),
            Log { address: self.address, topics: self.topics, data: self.data, index },
        )
    }
}

/// Logs that are in a block now; those that a reorg removed are left out.
pub(crate) fn logs(raw: &RawValue) -> Result<Vec<(TxHash, Log)>, Unreadable> {
    let logs = read::<Vec<LogWire>>(raw)?;
    Ok(logs.into_iter().filter(|log| !log.removed).map(LogWire::into_log).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptWire {
    transaction_hash: B256,
    status: U64,
    block_number: Option<U64>,
    block_hash: Option<B256>,
    gas_used: U64,
    effective_gas_price: Option<U256>,
    gas_price: Option<U256>,
    /// What the transaction pays besides for being posted to L1, on chains of the OP stack.
    l1_fee: Option<U256>,
    logs: Vec<LogWire>,
}

/// The receipt of `tx`, or `None` if it is in no block.
pub(crate) fn receipt(raw: &RawValue, tx: TxHash) -> Result<Option<Receipt>, Unreadable> {
    let Some(wire) = read::<Option<ReceiptWire>>(raw)? else { return Ok(None) };
    let (Some(block), Some(block_hash)) = (wire.block_number, wire.block_hash) else { return Ok(None) };
    if wire.transaction_hash.0 != tx.0 {
        return Err(Unreadable);
    }
    let success = match wire.status.to::<u64>() {
        0 => false,
        1 => true,
        _ => return Err(Unreadable),
    };
    let gas_used: u64 = wire.gas_used.to();
    let price = narrow(wire.effective_gas_price.or(wire.gas_price).unwrap_or(U256::ZERO))?;
    let l1_fee = narrow(wire.l1_fee.unwrap_or(U256::ZERO))?;
    // Rounded up, so that price times gas is never less than what was paid.
    let l1_share = if gas_used == 0 { 0 } else { l1_fee.div_ceil(u128::from(gas_used)) };
    let mut logs = Vec::with_capacity(wire.logs.len());
    for log in wire.logs {
        let (of, log) = log.into_log();
        if of != tx {
            return Err(Unreadable);
        }
        logs.push(log);
    }
    Ok(Some(Receipt {
        tx,
        success,
        block: block.to(),
        block_hash: block_hash.0,
        gas_used,
        gas_price: price.checked_add(l1_share).ok_or(Unreadable)?,
        logs,
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FeeHistoryWire {
    #[serde(default)]
    base_fee_per_gas: Vec<U256>,
    reward: Option<Vec<Vec<U256>>>,
}

/// The base fee of the next block, and what the median transaction of each recent block tipped.
pub(crate) fn fee_history(raw: &RawValue) -> Result<(Option<u128>, Vec<u128>), Unreadable> {
    let history = read::<FeeHistoryWire>(raw)?;
    let next = history.base_fee_per_gas.last().copied().map(narrow).transpose()?;
    let rewards = history.reward.unwrap_or_default();
    let tips = rewards.into_iter().filter_map(|block| block.first().copied());
    Ok((next, tips.map(narrow).collect::<Result<_, _>>()?))
}

/// The revert data, if the error says that the call itself failed and not the node.
///
/// Nodes agree on no form: geth has code 3 and the data, others put it in an object or after a word, or leave it out.
pub(crate) fn revert(error: &ErrorPayload) -> Option<Bytes> {
    const SAYS: &[&str] = &[
        "revert",
        "out of gas",
        "outofgas",
        "gas required exceeds allowance",
        "invalid opcode",
        "opcodenotfound",
        "invalidfeopcode",
        "bad jump",
        "invalid jump",
        "stack underflow",
        "stack overflow",
        "vm execution error",
    ];
    let message = error.message.to_ascii_lowercase();
    let failed = matches!(error.code, 3 | -32015) || SAYS.iter().any(|says| message.contains(says));
    failed.then(|| error.data.as_deref().and_then(revert_data).unwrap_or_default())
}

fn revert_data(raw: &RawValue) -> Option<Bytes> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Data {
        Text(String),
        Object { data: Box<RawValue> },
    }
    let text = match serde_json::from_str(raw.get()).ok()? {
        Data::Text(text) => text,
        Data::Object { data } => serde_json::from_str::<String>(data.get()).ok()?,
    };
    let digits = text.trim().rsplit(' ').next()?;
    hex::decode(digits.strip_prefix("0x")?).ok().map(Bytes::from)
}
