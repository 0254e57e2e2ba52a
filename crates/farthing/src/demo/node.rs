//! What the demonstration asks the chain itself, so that its summary rests on nobody's word.

use std::collections::BTreeMap;

use farthing_devnet::USDC;
use serde_json::{Value, json};

use crate::cli::Failure;

/// `balanceOf(address)`.
const BALANCE_OF: &str = "70a08231";
/// `transfer(address,uint256)`.
const TRANSFER: &str = "a9059cbb";
/// `Transfer(address,address,uint256)`.
const TRANSFER_TOPIC: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// A node, asked by JSON-RPC.
#[derive(Debug, Clone)]
pub struct Node {
    http: reqwest::Client,
    url: String,
}

/// What went in and out of an address, in atoms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flows {
    pub received: u128,
    pub sent: u128,
}

impl Node {
    pub fn new(http: reqwest::Client, url: impl Into<String>) -> Self {
        Self { http, url: url.into() }
    }

    pub async fn call(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let failed = |why: String| Failure::failed(format!("{} answers {method} with {why}", self.url));
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.http.post(&self.url).json(&body).send().await;
        let answer: Value = match answer {
            Ok(answer) => answer.json().await.map_err(|error| failed(error.to_string()))?,
            Err(error) => return Err(failed(error.to_string())),
        };
        match answer.get("result") {
            Some(result) if answer.get("error").is_none_or(Value::is_null) => Ok(result.clone()),
            _ => Err(failed(answer["error"].to_string())),
        }
    }

    pub async fn chain_id(&self) -> Result<u128, Failure> {
        self.quantity("eth_chainId", json!([])).await
    }

    /// Whether the node itself holds the key of this account, as nodes for development do.
    pub async fn signs_for(&self, address: &str) -> Result<bool, Failure> {
        let accounts = self.call("eth_accounts", json!([])).await?;
        let mut held = accounts.as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(held.any(|account| account.eq_ignore_ascii_case(address)))
    }

    pub async fn block_number(&self) -> Result<u128, Failure> {
        self.quantity("eth_blockNumber", json!([])).await
    }

    /// Wei of an account.
    pub async fn wei(&self, address: &str) -> Result<u128, Failure> {
        self.quantity("eth_getBalance", json!([address, "latest"])).await
    }

    /// Atoms of USDC of an account.
    pub async fn usdc(&self, address: &str) -> Result<u128, Failure> {
        self.quantity("eth_call", balance_of(address)).await
    }

    /// Moves USDC of an account that the node itself can sign for, and waits for the block.
    pub async fn move_usdc(&self, from: &str, to: &str, atoms: u128) -> Result<(), Failure> {
        let data = format!("0x{TRANSFER}{}{atoms:064x}", word(to));
        let sent = json!([{ "from": from, "to": USDC.to_string(), "data": data }]);
        let hash = self.call("eth_sendTransaction", sent).await?;
        for _ in 0..100 {
            let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await?;
            match receipt["status"].as_str() {
                Some("0x1") => return Ok(()),
                Some(_) => return Err(Failure::failed(format!("moving USDC of {from} failed"))),
                None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
        Err(Failure::failed(format!("moving USDC of {from} came into no block")))
    }

    /// Every transfer of USDC from this block on, summed up by address (in lower case).
    pub async fn flows_since(&self, block: u128) -> Result<BTreeMap<String, Flows>, Failure> {
        let filter = json!([{
            "address": USDC.to_string(), "topics": [TRANSFER_TOPIC],
            "fromBlock": format!("{block:#x}"), "toBlock": "latest",
        }]);
        let logs = self.call("eth_getLogs", filter).await?;
        let mut flows: BTreeMap<String, Flows> = BTreeMap::new();
        for log in logs.as_array().into_iter().flatten() {
            let odd = || Failure::failed(format!("a Transfer event that cannot be read: {log}"));
            let party = |at: usize| {
                log["topics"][at]
                    .as_str()
                    .and_then(|topic| topic.get(26..))
                    .map(|hex| format!("0x{}", hex.to_lowercase()))
            };
            let (from, to) = (party(1).ok_or_else(odd)?, party(2).ok_or_else(odd)?);
            let atoms = log["data"].as_str().and_then(parse_hex).ok_or_else(odd)?;
            let sent = &mut flows.entry(from).or_default().sent;
            *sent = sent.checked_add(atoms).ok_or_else(odd)?;
            let received = &mut flows.entry(to).or_default().received;
            *received = received.checked_add(atoms).ok_or_else(odd)?;
        }
        Ok(flows)
    }

    async fn quantity(&self, method: &str, params: Value) -> Result<u128, Failure> {
        let value = self.call(method, params).await?;
        let odd = || Failure::failed(format!("{} answers {method} with {value}", self.url));
        value.as_str().and_then(parse_hex).ok_or_else(odd)
    }
}

/// The same question for people, as the body of a request.
pub fn balance_request(address: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": balance_of(address) }).to_string()
}

fn balance_of(address: &str) -> Value {
    let data = format!("0x{BALANCE_OF}{}", word(address));
    json!([{ "to": USDC.to_string(), "data": data }, "latest"])
}

/// An address as an ABI word.
fn word(address: &str) -> String {
    format!("{:0>64}", address.trim_start_matches("0x").to_lowercase())
}

/// A quantity that fits 128 bits, with or without leading zeros.
fn parse_hex(text: &str) -> Option<u128> {
    let digits = text.strip_prefix("0x")?.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { u128::from_str_radix(digits, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quantities() {
        assert_eq!(word("0xAb").len(), 64);
        assert!(word("0xAb").ends_with("00ab"));
        assert_eq!(parse_hex("0x0"), Some(0));
        assert_eq!(parse_hex(&format!("0x{:064x}", 77)), Some(77));
        assert_eq!(parse_hex(&format!("0x1{}", "0".repeat(33))), None);
        assert_eq!(parse_hex("77"), None);
    }
}
