//! What the load needs of a development node: balances for ten thousand buyers in a second.

use bytes::Bytes;
use farthing_evm::{Address, B256, U256};
use serde_json::{Value, json};

use crate::http::{Connection, HttpError, Target};

/// How many calls go into one request to the node.
const BATCH: usize = 500;

/// Where Circle's FiatTokenV2_2 keeps `balanceAndBlacklistStates`. The top bit of a word says "blacklisted".
const USDC_BALANCES_SLOT: u8 = 9;

#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the node refused {method}: {said}")]
    Refused { method: &'static str, said: String },
    #[error("the token says that {who} has {has}, not {wanted}: its balances are kept elsewhere")]
    Balance { who: Address, has: String, wanted: u128 },
}

#[derive(Debug)]
pub struct Node {
    target: Target,
    connection: Connection,
}

impl Node {
    pub fn new(url: &str) -> Result<Self, ChainError> {
        let target = Target::parse(url)?;
        Ok(Self { connection: Connection::new(&target), target })
    }

    /// Writes a balance of real USDC for each of `owners` into the node's storage, and asks the token whether it
    /// sees them.
    ///
    /// # Errors
    /// [`ChainError::Balance`] if the token keeps its balances in another place.
    pub async fn fund(&mut self, token: Address, owners: &[Address], atoms: u128) -> Result<(), ChainError> {
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
                    return Err(ChainError::Balance { who: *owner, has: has.to_string(), wanted: atoms });
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
    ) -> Result<Vec<Value>, ChainError> {
        let calls: Vec<_> = calls
            .enumerate()
            .map(|(id, params)| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .collect();
        let count = calls.len();
        let request = self.target.post(Bytes::from(Value::Array(calls).to_string()))?;
        let (_, _, body) = self.connection.exchange(request).await?;
        let refused = |said: String| ChainError::Refused { method, said };
        let answers: Vec<Value> = serde_json::from_slice(&body)
            .map_err(|_| refused(String::from_utf8_lossy(&body).into_owned()))?;
        let mut results = vec![Value::Null; count];
        let mut answered = 0;
        for answer in answers {
            let id = answer["id"].as_u64().and_then(|id| usize::try_from(id).ok());
            let (Some(result), Some(place)) = (answer.get("result"), id.and_then(|id| results.get_mut(id)))
            else {
                return Err(refused(answer.to_string()));
            };
            *place = result.clone();
            answered += 1;
        }
        if answered != count {
            return Err(refused(format!("{answered} answers to {count} calls")));
        }
        Ok(results)
    }
}

/// Where a mapping at `USDC_BALANCES_SLOT` keeps the word of `owner`.
fn balance_slot(owner: Address) -> B256 {
    let mut place = [0u8; 64];
    place[12..32].copy_from_slice(owner.as_slice());
    place[63] = USDC_BALANCES_SLOT;
    alloy_primitives::keccak256(place)
}
