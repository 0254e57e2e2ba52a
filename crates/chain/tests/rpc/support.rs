//! A JSON-RPC node that says what a test tells it to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_sol_types::SolCall;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use farthing_chain::{ChainConfig, RpcChain};
use farthing_evm::abi::multicall::{Result as CallResult, aggregate3Call};
use farthing_evm::{Address, Bytes, Read, ReadKind, known};
use farthing_primitives::Network;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

pub const CHAIN_ID: u64 = 84_532;

/// What the node does with one request.
pub enum Act {
    Result(Value),
    Error(i64, String, Option<Value>),
    /// The whole HTTP answer, whatever else was asked along.
    Http(u16, String),
    /// No answer at all.
    Hang,
}

type Script = dyn Fn(&str, &Value) -> Act + Send + Sync;

pub struct Scripted {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Arc<Script>>,
    /// The methods of each HTTP request, in order of arrival.
    requests: watch::Sender<Vec<Vec<String>>>,
    /// Permits to answer requests that hold the gated method.
    gate: Semaphore,
    gated: Mutex<Option<String>>,
}

pub fn result(value: Value) -> Act {
    Act::Result(value)
}

pub fn error(code: i64, message: &str) -> Act {
    Act::Error(code, message.to_owned(), None)
}

/// What a healthy node says, so that scripts name only what they are about.
pub fn healthy(method: &str, params: &Value) -> Act {
    match method {
        "eth_chainId" => result(json!(format!("{CHAIN_ID:#x}"))),
        "eth_blockNumber" => result(json!("0x10")),
        "eth_getCode" => result(json!("0x6001")),
        "eth_call" => result(echo(params)),
        "eth_getBlockByNumber" => result(block(16, 16)),
        _ => error(-32601, "the method does not exist"),
    }
}

pub fn block(number: u64, hash: u8) -> Value {
    let word = |byte: u8| format!("0x{}", format!("{byte:02x}").repeat(32));
    json!({
        "number": format!("{number:#x}"),
        "hash": word(hash),
        "parentHash": word(hash.wrapping_sub(1)),
        "timestamp": format!("{:#x}", 1_700_000_000 + number * 2),
        "baseFeePerGas": "0x3e8",
        "somethingNew": {"of": ["another", "chain"]},
    })
}

/// Answers an `eth_call` with the data of the call, or each call of an `aggregate3` with its own.
pub fn echo(params: &Value) -> Value {
    each(params, |_, data| (true, data.clone()))
}

/// Answers an `eth_call`, also through Multicall3, as `answer` says for each call. Outside of Multicall3 the answer
/// counts as returned.
pub fn each(params: &Value, answer: impl Fn(Address, &Bytes) -> (bool, Bytes)) -> Value {
    let (to, data) = called(params);
    if to != known::MULTICALL3 {
        return json!(answer(to, &data).1.to_string());
    }
    let calls = aggregate3Call::abi_decode(&data).unwrap().calls;
    let results: Vec<CallResult> = calls
        .iter()
        .map(|call| answer(call.target, &call.callData))
        .map(|(success, data)| CallResult { success, returnData: data })
        .collect();
    json!(Bytes::from(aggregate3Call::abi_encode_returns(&results)).to_string())
}

pub fn called(params: &Value) -> (Address, Bytes) {
    let call = &params[0];
    (call["to"].as_str().unwrap().parse().unwrap(), call["data"].as_str().unwrap().parse().unwrap())
}

/// How many calls the `eth_call` holds.
pub fn calls_in(params: &Value) -> usize {
    let (to, data) = called(params);
    if to == known::MULTICALL3 { aggregate3Call::abi_decode(&data).unwrap().calls.len() } else { 1 }
}

impl Scripted {
    pub async fn start(script: impl Fn(&str, &Value) -> Act + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            requests: watch::Sender::new(Vec::new()),
            gate: Semaphore::new(0),
            gated: Mutex::new(None),
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/secret-api-key", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared }
    }

    pub fn script(&self, script: impl Fn(&str, &Value) -> Act + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// From now on requests with this method are answered only as [`Scripted::open`] says.
    pub fn gate(&self, method: &str) {
        *self.shared.gated.lock().unwrap() = Some(method.to_owned());
    }

    pub fn open(&self, requests: usize) {
        self.shared.gate.add_permits(requests);
    }

    /// How many HTTP requests held this method.
    pub fn count(&self, method: &str) -> usize {
        holding(&self.shared.requests.borrow(), method)
    }

    /// Waits until so many HTTP requests with this method have come.
    pub async fn arrived(&self, method: &str, count: usize) {
        let mut requests = self.shared.requests.subscribe();
        requests.wait_for(|requests| holding(requests, method) >= count).await.unwrap();
    }

    pub fn requests(&self) -> Vec<Vec<String>> {
        self.shared.requests.borrow().clone()
    }
}

fn holding(requests: &[Vec<String>], method: &str) -> usize {
    requests.iter().filter(|methods| methods.iter().any(|m| m == method)).count()
}

async fn answer(State(shared): State<Arc<Shared>>, body: Body) -> Response {
    let packet: Value = serde_json::from_slice(&body).unwrap();
    let asks: Vec<Value> = packet.as_array().cloned().unwrap_or_else(|| vec![packet.clone()]);
    let methods: Vec<String> = asks.iter().map(|ask| ask["method"].as_str().unwrap().to_owned()).collect();
    shared.requests.send_modify(|requests| requests.push(methods.clone()));
    let gated = shared.gated.lock().unwrap().clone();
    if gated.is_some_and(|gated| methods.contains(&gated)) {
        shared.gate.acquire().await.unwrap().forget();
    }
    let script = Arc::clone(&*shared.script.lock().unwrap());
    let mut answers = Vec::new();
    for ask in &asks {
        let id = ask["id"].clone();
        answers.push(match script(ask["method"].as_str().unwrap(), &ask["params"]) {
            Act::Result(value) => json!({"jsonrpc": "2.0", "id": id, "result": value}),
            Act::Error(code, message, data) => {
                let mut error = json!({"code": code, "message": message});
                if let Some(data) = data {
                    error["data"] = data;
                }
                json!({"jsonrpc": "2.0", "id": id, "error": error})
            }
            Act::Http(status, text) => {
                let text = text.replace("$ID", &id.to_string());
                return (StatusCode::from_u16(status).unwrap(), text).into_response();
            }
            Act::Hang => std::future::pending().await,
        });
    }
    // Answers of a batch may come in any order.
    answers.reverse();
    let text = if packet.is_array() { Value::Array(answers) } else { answers.remove(0) }.to_string();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

pub fn config(nodes: &[&Scripted]) -> ChainConfig {
    let urls = nodes.iter().map(|node| node.url.parse().unwrap()).collect();
    let mut config = ChainConfig::new(Network::eip155(CHAIN_ID), urls);
    // Long enough that only a test that is about it meets it.
    config.request_timeout = Duration::from_secs(60);
    config.block_time = Some(Duration::from_secs(2));
    config
}

pub fn chain(nodes: &[&Scripted]) -> RpcChain {
    RpcChain::new(config(nodes)).unwrap()
}

pub fn view(to: u8, data: &[u8]) -> Read {
    Read { to: Address::repeat_byte(to), data: Bytes::copy_from_slice(data), kind: ReadKind::View }
}
