//! What we read of a node's answers. Fields that decide nothing here are not looked at, so that a chain with fields or
//! transaction types of its own is read as well.

use alloy_json_rpc::ErrorPayload;
use std::borrow::Cow;

use alloy_primitives::{Address, B256, Bytes, hex};
use farthing_engine::{Head, Receipt, TxHash};
use farthing_evm::Log;
use farthing_primitives::Timestamp;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
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

/// A number of a node: `0x` and at least one hex digit. Looser readers take `0x` for zero, and a nonce or a balance that
/// is not there is not zero.
///
/// Spec: Ethereum JSON-RPC, "quantity". Leading zeros are let pass.
struct Quantity(u128);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok());
        number.map(Self).ok_or_else(|| D::Error::custom("not a quantity"))
    }
}

impl Quantity {
    fn narrow(&self) -> Result<u64, Unreadable> {
        self.0.try_into().map_err(|_| Unreadable)
    }
}

/// Reads a hex quantity of at most 64 bits.
pub(crate) fn quantity(raw: &RawValue) -> Result<u64, Unreadable> {
    read::<Quantity>(raw)?.narrow()
}

/// Reads a hex quantity of at most 128 bits: a balance in wei fits, and what does not is refused.
pub(crate) fn wide(raw: &RawValue) -> Result<u128, Unreadable> {
    read::<Quantity>(raw).map(|number| number.0)
}

/// What may be repeated of a node's text in our log.
pub(crate) fn text(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockWire {
    number: Quantity,
    hash: B256,
    parent_hash: B256,
    timestamp: Quantity,
    base_fee_per_gas: Option<Quantity>,
}

pub(crate) fn head(raw: &RawValue) -> Result<Option<Head>, Unreadable> {
    let Some(block) = read::<Option<BlockWire>>(raw)? else { return Ok(None) };
    Ok(Some(Head {
        number: block.number.narrow()?,
        hash: block.hash.0,
        parent: block.parent_hash.0,
        timestamp: Timestamp::from_secs(block.timestamp.narrow()?),
        base_fee: block.base_fee_per_gas.map_or(0, |fee| fee.0),
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogWire {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
    log_index: Quantity,
    transaction_hash: B256,
    #[serde(default)]
    removed: bool,
}

impl LogWire {
    fn into_log(self) -> Result<(TxHash, Log), Unreadable> {
        let index = self.log_index.narrow()?;
        let log = Log { address: self.address, topics: self.topics, data: self.data, index };
        Ok((TxHash(self.transaction_hash.0), log))
    }
}

/// Logs that are in a block now; those that a reorg removed are left out.
pub(crate) fn logs(raw: &RawValue) -> Result<Vec<(TxHash, Log)>, Unreadable> {
    let logs = read::<Vec<LogWire>>(raw)?;
    logs.into_iter().filter(|log| !log.removed).map(LogWire::into_log).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptWire {
    transaction_hash: B256,
    status: Quantity,
    block_number: Option<Quantity>,
    block_hash: Option<B256>,
    gas_used: Quantity,
    effective_gas_price: Option<Quantity>,
    gas_price: Option<Quantity>,
    /// What the transaction pays besides for being posted to L1, on chains of the OP stack.
    l1_fee: Option<Quantity>,
    logs: Vec<LogWire>,
}

/// The receipt of `tx`, or `None` if it is in no block.
pub(crate) fn receipt(raw: &RawValue, tx: TxHash) -> Result<Option<Receipt>, Unreadable> {
    let Some(wire) = read::<Option<ReceiptWire>>(raw)? else { return Ok(None) };
    let (Some(block), Some(block_hash)) = (wire.block_number, wire.block_hash) else { return Ok(None) };
    if wire.transaction_hash.0 != tx.0 {
        return Err(Unreadable);
    }
    let success = match wire.status.0 {
        0 => false,
        1 => true,
        _ => return Err(Unreadable),
    };
    let gas_used = wire.gas_used.narrow()?;
    let price = wire.effective_gas_price.or(wire.gas_price).map_or(0, |price| price.0);
    let l1_fee = wire.l1_fee.map_or(0, |fee| fee.0);
    // Rounded up, so that price times gas is never less than what was paid.
    let l1_share = if gas_used == 0 { 0 } else { l1_fee.div_ceil(u128::from(gas_used)) };
    let mut logs = Vec::with_capacity(wire.logs.len());
    for log in wire.logs {
        let (of, log) = log.into_log()?;
        if of != tx {
            return Err(Unreadable);
        }
        logs.push(log);
    }
    Ok(Some(Receipt {
        tx,
        success,
        block: block.narrow()?,
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
    base_fee_per_gas: Vec<Quantity>,
    reward: Option<Vec<Vec<Quantity>>>,
}

/// The base fee of the next block, and what the median transaction of each recent block tipped.
pub(crate) fn fee_history(raw: &RawValue) -> Result<(Option<u128>, Vec<u128>), Unreadable> {
    let history = read::<FeeHistoryWire>(raw)?;
    let next = history.base_fee_per_gas.last().map(|fee| fee.0);
    let rewards = history.reward.unwrap_or_default();
    Ok((next, rewards.iter().filter_map(|block| block.first().map(|tip| tip.0)).collect()))
}

/// Whether the node, or the provider before it, only wants us to be slower.
///
/// Providers agree on no code, and some use one of these codes for other limits as well, so their words decide.
pub(crate) fn rate_limited(error: &ErrorPayload) -> bool {
    const SAYS: &[&str] = &[
        "rate limit",
        "rate exceeded",
        "too many requests",
        "request limit",
        "request count exceeded",
        "limit exceeded",
        "capacity exceeded",
        "compute units",
        "credits",
    ];
    let message = error.message.to_ascii_lowercase();
    error.code == 429 || SAYS.iter().any(|says| message.contains(says))
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
    let data: Value = serde_json::from_str(raw.get()).ok()?;
    let text = data.as_str().or_else(|| data.get("data")?.as_str())?;
    let digits = text.rsplit(' ').next()?;
    hex::decode(digits.strip_prefix("0x")?).ok().map(Bytes::from)
}
