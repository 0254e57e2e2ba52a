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

/// Every transfer of the token, summed up by address (in lower case).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// Between parties. What went through the escrow counts as sent by whoever deposited it, and received by whom it was
    /// paid to; what came back to a depositor was never sent.
    pub flows: BTreeMap<String, Flows>,
    /// What the escrow has more than before; `None` if it paid out more than it took.
    pub escrowed: Option<u128>,
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

    /// Lets so many blocks pass, as nodes for development can.
    pub async fn mine(&self, blocks: u64) -> Result<(), Failure> {
        self.call("anvil_mine", json!([format!("{blocks:#x}")])).await.map(|_| ())
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

    /// How many transactions an account has sent.
    pub async fn sent_by(&self, address: &str) -> Result<u128, Failure> {
        self.quantity("eth_getTransactionCount", json!([address, "latest"])).await
    }

    /// Every transfer of USDC from this block on.
    pub async fn moves_since(&self, block: u128, escrow: &str) -> Result<Moves, Failure> {
        let filter = json!([{
            "address": USDC.to_string(), "topics": [TRANSFER_TOPIC],
            "fromBlock": format!("{block:#x}"), "toBlock": "latest",
        }]);
        let logs = self.call("eth_getLogs", filter).await?;
        let mut transfers = Vec::new();
        for log in logs.as_array().into_iter().flatten() {
            let read = transfer(log);
            transfers.push(
                read.ok_or_else(|| Failure::failed(format!("a Transfer event that cannot be read: {log}")))?,
            );
        }
        moves(&transfers, &escrow.to_lowercase()).ok_or_else(|| Failure::failed("an amount beyond 128 bits"))
    }

    async fn quantity(&self, method: &str, params: Value) -> Result<u128, Failure> {
        let value = self.call(method, params).await?;
        let odd = || Failure::failed(format!("{} answers {method} with {value}", self.url));
        value.as_str().and_then(parse_hex).ok_or_else(odd)
    }
}

/// From, to, and how much.
type Transfer = (String, String, u128);

fn transfer(log: &Value) -> Option<Transfer> {
    let party = |at: usize| {
        let topic = log["topics"][at].as_str()?;
        Some(format!("0x{}", topic.get(26..)?.to_lowercase()))
    };
    Some((party(1)?, party(2)?, log["data"].as_str().and_then(parse_hex)?))
}

/// A party either deposits or is paid: nobody here does both with one token.
fn moves(transfers: &[Transfer], escrow: &str) -> Option<Moves> {
    let mut all = Moves { escrowed: Some(0), ..Moves::default() };
    let (mut deposited, mut came_back) = (BTreeMap::<String, u128>::new(), BTreeMap::<String, u128>::new());
    for (from, to, atoms) in transfers {
        let add = |sum: &mut u128| {
            *sum = sum.checked_add(*atoms)?;
            Some(())
        };
        let depositor = deposited.contains_key(to);
        if to == escrow {
            add(deposited.entry(from.clone()).or_default())?;
            all.escrowed = all.escrowed.and_then(|held| held.checked_add(*atoms));
            continue;
        }
        if from == escrow {
            all.escrowed = all.escrowed.and_then(|held| held.checked_sub(*atoms));
            if depositor {
                add(came_back.entry(to.clone()).or_default())?;
                continue;
            }
        } else {
            add(&mut all.flows.entry(from.clone()).or_default().sent)?;
        }
        add(&mut all.flows.entry(to.clone()).or_default().received)?;
    }
    for (party, atoms) in deposited {
        let kept = atoms.checked_sub(came_back.get(&party).copied().unwrap_or(0))?;
        let sent = &mut all.flows.entry(party).or_default().sent;
        *sent = sent.checked_add(kept)?;
    }
    Some(all)
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
    fn what_goes_through_the_escrow_is_sent_by_who_deposited_it() {
        let transfer = |from: &str, to: &str, atoms| (from.to_owned(), to.to_owned(), atoms);
        let all = moves(
            &[
                transfer("car", "escrow", 200),
                transfer("agent", "volt", 5),
                transfer("escrow", "volt", 140),
                transfer("escrow", "car", 60),
            ],
            "escrow",
        )
        .unwrap();
        assert_eq!(all.escrowed, Some(0));
        assert_eq!(all.flows["car"], Flows { received: 0, sent: 140 });
        assert_eq!(all.flows["volt"], Flows { received: 145, sent: 0 });
        assert_eq!(all.flows["agent"], Flows { received: 0, sent: 5 });
        assert!(!all.flows.contains_key("escrow"));
        // What is still there, and what never was.
        let held =
            moves(&[transfer("car", "escrow", 200), transfer("escrow", "volt", 140)], "escrow").unwrap();
        assert_eq!(held.escrowed, Some(60));
        assert_eq!(moves(&[transfer("escrow", "volt", 1)], "escrow").unwrap().escrowed, None);
        assert_eq!(moves(&[transfer("a", "b", u128::MAX), transfer("a", "b", 1)], "escrow"), None);
    }

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
