//! What we read of a node's answers. Fields that decide nothing here are not looked at, so that a chain with fields or
//! transaction types of its own is read as well.

use alloy_json_rpc::ErrorPayload;
use std::borrow::Cow;

use alloy_primitives::{Address, B256, Bytes, hex};
use farthing_engine::{Head, KnownTx, Receipt, TxHash};
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

/// Reads hex data of any length.
pub(crate) fn bytes(raw: &RawValue) -> Result<bytes::Bytes, Unreadable> {
    read::<Bytes>(raw).map(|bytes| bytes.0)
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
struct TransactionWire {
    hash: B256,
    from: Address,
    to: Option<Address>,
    input: Bytes,
}

/// The transaction `tx`, or `None` if the node knows none.
pub(crate) fn transaction(raw: &RawValue, tx: TxHash) -> Result<Option<KnownTx>, Unreadable> {
    let Some(wire) = read::<Option<TransactionWire>>(raw)? else { return Ok(None) };
    if wire.hash.0 != tx.0 {
        return Err(Unreadable);
    }
    let account = |address: Address| farthing_evm::from_alloy(address);
    Ok(Some(KnownTx { from: account(wire.from), to: wire.to.map(account), data: wire.input.0 }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn raw(value: Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(&value).unwrap()
    }

    #[test]
    fn a_quantity_has_digits_and_fits() {
        let check = |value: Value, expected| assert_eq!(quantity(&raw(value.clone())), expected, "{value}");
        check(json!("0x0"), Ok(0));
        check(json!("0x010"), Ok(16));
        check(json!("0xffffffffffffffff"), Ok(u64::MAX));
        let wrong = [
            json!("0x10000000000000000"),
            json!("0x"),
            json!("0x+1"),
            json!("0x-1"),
            json!("0x1_0"),
            json!("10"),
            json!(""),
            json!("0X1"),
            json!(" 0x1"),
            json!(16),
            json!(null),
            json!(["0x1"]),
        ];
        for value in wrong {
            check(value, Err(Unreadable));
        }
        assert_eq!(wide(&raw(json!("0xffffffffffffffffffffffffffffffff"))), Ok(u128::MAX));
        assert_eq!(wide(&raw(json!("0x100000000000000000000000000000000"))), Err(Unreadable));
    }

    fn word(byte: u8) -> String {
        hex::encode_prefixed([byte; 32])
    }

    fn receipt_json() -> Value {
        json!({
            "transactionHash": word(1), "status": "0x1", "blockNumber": "0x10", "blockHash": word(2),
            "gasUsed": "0x5208", "effectiveGasPrice": "0x3", "logs": [{
                "address": hex::encode_prefixed([9; 20]), "topics": [word(3)], "data": "0x",
                "logIndex": "0x0", "transactionHash": word(1),
            }],
        })
    }

    #[test]
    fn a_receipt_is_whole_or_none() {
        let with = |key: &str, value: Value| {
            let mut json = receipt_json();
            json[key] = value;
            receipt(&raw(json), TxHash([1; 32])).map(|found| found.is_some())
        };
        assert_eq!(with("type", json!("0x2")), Ok(true));
        // Some nodes show a transaction of the pool like this: it is in no block.
        assert_eq!(with("blockNumber", json!(null)), Ok(false));
        assert_eq!(with("blockHash", json!(null)), Ok(false));
        assert_eq!(receipt(&raw(json!(null)), TxHash([1; 32])), Ok(None));
        let wrong = [
            ("status", json!(null)),
            ("status", json!("0x2")),
            ("status", json!("0x")),
            ("transactionHash", json!(word(8))),
            ("gasUsed", json!("0x10000000000000000")),
            ("effectiveGasPrice", json!("0x100000000000000000000000000000000")),
            ("logs", json!(null)),
            ("logs", json!([{"address": "0x01"}])),
            ("blockHash", json!("0x12")),
        ];
        for (key, value) in wrong {
            assert_eq!(with(key, value.clone()), Err(Unreadable), "{key} {value}");
        }
        // A log of another transaction would credit somebody else's transfer.
        let mut json = receipt_json();
        json["logs"][0]["transactionHash"] = json!(word(8));
        assert_eq!(receipt(&raw(json), TxHash([1; 32])), Err(Unreadable));
    }

    #[test]
    fn logs_that_a_reorg_removed_are_left_out() {
        let mut log = receipt_json()["logs"][0].clone();
        let kept = log.clone();
        log["removed"] = json!(true);
        let found = logs(&raw(json!([log, kept]))).unwrap();
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn limits_of_rate_are_told_from_other_limits() {
        let check = |code, message: &'static str, expected| {
            let error = ErrorPayload { code, message: message.into(), data: None };
            assert_eq!(rate_limited(&error), expected, "{message}");
        };
        check(429, "", true);
        check(-32005, "daily request count exceeded, request rate limited", true);
        check(-32007, "100/second request limit reached", true);
        check(-32000, "Too Many Requests", true);
        check(-32005, "query returned more than 10000 results", false);
        check(-32000, "header not found", false);
        check(3, "execution reverted: limit", false);
    }
}
