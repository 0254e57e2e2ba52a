//! Balances for the buyers, on chains for development: a public chain has no such method.

use bytes::Bytes;
use farthing_evm::{Address, B256, U256};
use serde_json::{Value, json};

use crate::http::{Connection, Connector, HttpError, Target};

/// How many calls go into one request to the node.
const BATCH: usize = 500;

/// Where Circle's FiatTokenV2_2 keeps `balanceAndBlacklistStates`, and our development token its balances. The top bit of
/// a word says "blacklisted".
const USDC_BALANCES_SLOT: u8 = 9;

#[derive(Debug, thiserror::Error)]
pub enum FundError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the node refused {method}: {said}")]
    Refused { method: &'static str, said: String },
    #[error("the node has the chain {has}, and the payments are for {wanted}")]
    Chain { has: String, wanted: u64 },
    #[error("the token says that {who} has {has}, not {wanted}: its balances are kept elsewhere")]
    Balance { who: Address, has: String, wanted: u128 },
}

/// How much of a refusal is repeated.
const SAID_CHARS: usize = 300;

/// The JSON-RPC of a development chain.
#[derive(Debug)]
pub struct Node {
    target: Target,
    connection: Connection,
}

impl Node {
    pub fn new(url: &str) -> Result<Self, FundError> {
        let target = Target::parse(url)?;
        Ok(Self { connection: Connection::new(&Connector::new(&target)?, &target), target })
    }

    /// # Errors
    /// [`FundError::Chain`] if this is another chain.
    pub async fn expect_chain(&mut self, wanted: u64) -> Result<(), FundError> {
        let has = self.batch("eth_chainId", std::iter::once(json!([]))).await?;
        let has = has.first().and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = has.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if id == Some(wanted) { Ok(()) } else { Err(FundError::Chain { has, wanted }) }
    }

    /// Writes a balance for each of `owners` into the node's storage, and asks the token whether it sees them.
    ///
    /// # Errors
    /// [`FundError::Refused`] if the chain is not one for development; [`FundError::Balance`] if the token keeps its
    /// balances in another place.
    pub async fn fund(&mut self, token: Address, owners: &[Address], atoms: u128) -> Result<(), FundError> {
        let value = B256::from(U256::from(atoms));
        for some in owners.chunks(BATCH) {
            let calls = some.iter().map(|owner| json!([token, balance_slot(*owner), value]));
            self.batch("anvil_setStorageAt", calls).await?;
        }
        for some in owners.chunks(BATCH) {
            let calls = some.iter().map(|owner| {
                let data = format!("0x70a08231{:0>64}", hex::encode(owner));
                json!([{ "to": token, "data": data }, "latest"])
            });
            let wanted = json!(value);
            for (owner, has) in some.iter().zip(self.batch("eth_call", calls).await?) {
                if has != wanted {
                    return Err(FundError::Balance { who: *owner, has: has.to_string(), wanted: atoms });
                }
            }
        }
        Ok(())
    }

    /// One method many times. The results are in the order of `calls`.
    async fn batch(
        &mut self,
        method: &'static str,
        calls: impl Iterator<Item = Value>,
    ) -> Result<Vec<Value>, FundError> {
        let calls: Vec<_> = calls
            .enumerate()
            .map(|(id, params)| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .collect();
        let count = calls.len();
        let request = self.target.post(Bytes::from(Value::Array(calls).to_string()))?;
        let (_, _, body) = self.connection.exchange(request).await?;
        read_batch(&body, count)
            .map_err(|said| FundError::Refused { method, said: said.chars().take(SAID_CHARS).collect() })
    }
}

fn read_batch(body: &[u8], count: usize) -> Result<Vec<Value>, String> {
    let answers: Vec<Value> =
        serde_json::from_slice(body).map_err(|_| String::from_utf8_lossy(body).into_owned())?;
    let mut results = vec![None; count];
    for answer in &answers {
        let id = answer["id"].as_u64().and_then(|id| usize::try_from(id).ok());
        let (Some(result), Some(place)) = (answer.get("result"), id.and_then(|id| results.get_mut(id)))
        else {
            return Err(answer.to_string());
        };
        *place = Some(result.clone());
    }
    let answered = results.iter().flatten().count();
    let all: Option<Vec<Value>> = results.into_iter().collect();
    all.ok_or_else(|| format!("{answered} answers to {count} calls"))
}

/// Where a mapping at `USDC_BALANCES_SLOT` keeps the word of `owner`.
fn balance_slot(owner: Address) -> B256 {
    let mut place = [0u8; 64];
    place[12..32].copy_from_slice(owner.as_slice());
    place[63] = USDC_BALANCES_SLOT;
    alloy_primitives::keccak256(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_put_in_the_order_of_the_calls() {
        let body = br#"[{"id":1,"result":"b"},{"id":0,"result":"a"}]"#;
        assert_eq!(read_batch(body, 2), Ok(vec![json!("a"), json!("b")]));
    }

    #[test]
    fn an_answer_that_is_missing_or_refused_is_no_result() {
        let rows = [
            (r#"[{"id":0,"result":"a"}]"#, "1 answers to 2 calls"),
            (r#"[{"id":0,"result":"a"},{"id":0,"result":"a"}]"#, "1 answers to 2 calls"),
            (r#"[{"id":0,"error":{"code":-32601}}]"#, r#"{"error":{"code":-32601},"id":0}"#),
            (r#"[{"id":7,"result":"a"}]"#, r#"{"id":7,"result":"a"}"#),
            ("<html>", "<html>"),
        ];
        for (body, expected) in rows {
            assert_eq!(read_batch(body.as_bytes(), 2), Err(expected.to_owned()), "{body}");
        }
    }
}
