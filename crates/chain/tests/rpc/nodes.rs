//! Nodes that fail, lag, lie or belong to another chain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::*;
use bytes::Bytes;
use farthing_chain::{ChainConfig, ConfigError, RpcChain};
use farthing_engine::{Broadcast, Chain, ChainError, Fees, LogFilter, SignedTx, Tag, TxHash};
use farthing_primitives::{Address, Network, Timestamp};
use serde_json::{Value, json};

fn html(method: &str, params: &Value) -> Act {
    match method {
        "eth_chainId" => healthy(method, params),
        _ => Act::Http(502, "<html>bad gateway</html>".to_owned()),
    }
}

fn account() -> Address {
    Address::from_evm_bytes([0xaa; 20])
}

#[tokio::test]
async fn when_one_node_fails_the_next_answers() {
    let (first, second) = (Scripted::start(html).await, Scripted::start(healthy).await);
    let chain = chain(&[&first, &second]);
    for _ in 0..5 {
        assert!(chain.read(vec![view(1, &[1])]).await.is_ok());
    }
    assert_eq!(second.count("eth_call"), 5);
    first.script(healthy);
    second.script(html);
    // The first comes back when its pause is over.
    while chain.read(vec![view(1, &[1])]).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(first.count("eth_call") > 0);
}

#[tokio::test]
async fn a_node_of_another_chain_is_never_used() {
    let other = Scripted::start(|method, params| match method {
        "eth_chainId" => result(json!("0x1")),
        _ => healthy(method, params),
    })
    .await;
    let ours = Scripted::start(healthy).await;
    let alone = chain(&[&other]);
    let error = alone.read(vec![view(1, &[1])]).await.unwrap_err();
    assert_eq!(
        error,
        ChainError::Node {
            network: Network::eip155(CHAIN_ID),
            message: "it is a node of eip155:1".to_owned()
        }
    );
    assert_eq!(alone.nonce(&account(), true).await, Err(ChainError::Down(Network::eip155(CHAIN_ID))));
    let tx = SignedTx { hash: TxHash([1; 32]), raw: Bytes::from_static(&[2]) };
    assert!(matches!(alone.broadcast(&tx).await, Broadcast::Ambiguous(_)));

    let both = chain(&[&other, &ours]);
    assert!(both.read(vec![view(1, &[1])]).await.is_ok());
    assert!(both.read_at(vec![view(1, &[1])], Tag::Latest).await.is_ok());
    assert_eq!(ours.count("eth_call"), 2);
    let asked = other.requests();
    assert!(asked.iter().flatten().all(|method| !method.contains("eth_call") && !method.contains("send")));
}

#[tokio::test]
async fn after_a_failure_the_chain_is_checked_again() {
    let node = Scripted::start(healthy).await;
    let chain = chain(&[&node]);
    chain.read(vec![view(1, &[1])]).await.unwrap();
    node.script(html);
    assert_eq!(chain.read(vec![view(1, &[1])]).await, Err(ChainError::Down(Network::eip155(CHAIN_ID))));
    // The URL now leads to another chain.
    node.script(|method, params| match method {
        "eth_chainId" => result(json!("0x2105")),
        _ => healthy(method, params),
    });
    assert!(matches!(chain.read(vec![view(1, &[1])]).await, Err(ChainError::Node { .. })));
    assert_eq!(node.count("eth_call"), 2);
}

#[tokio::test]
async fn a_node_that_lags_gives_no_reads() {
    let at = |height: u64| {
        move |method: &str, params: &Value| match method {
            "eth_blockNumber" => result(json!(format!("{height:#x}"))),
            _ => healthy(method, params),
        }
    };
    let (behind, ahead) = (Scripted::start(at(100)).await, Scripted::start(at(104)).await);
    let chain = chain(&[&behind, &ahead]);
    // The second node is looked at while the first serves.
    while ahead.count("eth_call") == 0 {
        chain.read(vec![view(1, &[1])]).await.unwrap();
    }
    let before = behind.count("eth_call");
    for _ in 0..3 {
        chain.read(vec![view(1, &[1])]).await.unwrap();
    }
    assert_eq!(behind.count("eth_call"), before);
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error() {
    let network = || Network::eip155(CHAIN_ID);
    let rows: &[(u16, &str, ChainError)] = &[
        (200, "<html>welcome</html>", ChainError::Unreadable(network())),
        (200, "", ChainError::Unreadable(network())),
        (200, "null", ChainError::Unreadable(network())),
        (200, "[]", ChainError::Unreadable(network())),
        (200, "{}", ChainError::Unreadable(network())),
        (200, r#"{"jsonrpc":"2.0","id":$ID,"result":"0x1"#, ChainError::Unreadable(network())),
        (200, r#"{"jsonrpc":"2.0","id":$ID}"#, ChainError::Unreadable(network())),
        (200, r#"{"jsonrpc":"2.0","id":99999999,"result":"0x1"}"#, ChainError::Unreadable(network())),
        (200, r#"{"jsonrpc":"2.0","id":"$ID","result":"0x1"}"#, ChainError::Unreadable(network())),
        (200, r#"{"jsonrpc":"2.0","id":null,"result":"0x1"}"#, ChainError::Unreadable(network())),
        (200, r#"[{"jsonrpc":"2.0","id":$ID,"result":"0x1"}]"#, ChainError::Unreadable(network())),
        (200, r#"{"jsonrpc":"2.0","id":$ID,"result":null}"#, ChainError::Unreadable(network())),
        (200, r#"{"jsonrpc":"2.0","id":$ID,"result":"0x"}"#, ChainError::Unreadable(network())),
        (200, r#"{"jsonrpc":"2.0","id":$ID,"result":{"a":1}}"#, ChainError::Unreadable(network())),
        (
            200,
            r#"{"jsonrpc":"2.0","id":$ID,"result":"0x100000000000000000"}"#,
            ChainError::Unreadable(network()),
        ),
        (502, "<html>bad gateway</html>", ChainError::Down(network())),
        (503, r#"{"jsonrpc":"2.0","id":$ID,"result":"0x1"}"#, ChainError::Down(network())),
        (401, r#"{"error":"bad key"}"#, ChainError::Down(network())),
        (302, "", ChainError::Down(network())),
        (429, "slow down", ChainError::Down(network())),
        (
            200,
            r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32005,"message":"limit exceeded"}}"#,
            ChainError::Down(network()),
        ),
        (
            500,
            r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32000,"message":"missing trie node"}}"#,
            ChainError::Node { network: network(), message: "missing trie node (code -32000)".to_owned() },
        ),
    ];
    for (status, body, expected) in rows {
        let (status, body) = (*status, (*body).to_owned());
        let node = Scripted::start(move |method, params| match method {
            "eth_getTransactionCount" => Act::Http(status, body.clone()),
            _ => healthy(method, params),
        })
        .await;
        let got = chain(&[&node]).nonce(&account(), false).await;
        assert_eq!(got.as_ref().unwrap_err(), expected, "{status} {:?}", rows);
    }
}

#[tokio::test]
async fn a_batch_must_answer_each_request_once() {
    let receipts = |body: &'static str| async move {
        let node = Scripted::start(move |method, params| match method {
            "eth_getTransactionReceipt" => Act::Http(200, body.to_owned()),
            _ => healthy(method, params),
        })
        .await;
        chain(&[&node]).receipts(vec![TxHash([1; 32]), TxHash([2; 32])]).await
    };
    let unreadable = Err(ChainError::Unreadable(Network::eip155(CHAIN_ID)));
    // `$ID` is the id of the first request of the batch.
    assert_eq!(receipts(r#"[{"jsonrpc":"2.0","id":$ID,"result":null}]"#).await, unreadable);
    let twice = r#"[{"jsonrpc":"2.0","id":$ID,"result":null},{"jsonrpc":"2.0","id":$ID,"result":null}]"#;
    assert_eq!(receipts(twice).await, unreadable);
    let other = r#"[{"jsonrpc":"2.0","id":$ID,"result":null},{"jsonrpc":"2.0","id":1,"result":null}]"#;
    assert_eq!(receipts(other).await, unreadable);
    assert_eq!(receipts("[").await, unreadable);
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let node = Scripted::start(|method, params| match method {
        "eth_getLogs" => Act::Http(200, " ".repeat(17 << 20)),
        _ => healthy(method, params),
    })
    .await;
    let filter = LogFilter { address: account(), topics: vec![], from_block: 1, to_block: 2 };
    assert_eq!(chain(&[&node]).logs(filter).await, Err(ChainError::Unreadable(Network::eip155(CHAIN_ID))));
}

fn receipt(tx: u8, status: &str) -> Value {
    let word = |byte: u8| format!("0x{}", format!("{byte:02x}").repeat(32));
    json!({
        "transactionHash": word(tx), "status": status, "type": "0x7e",
        "blockNumber": "0x10", "blockHash": word(16), "gasUsed": "0xa",
        "effectiveGasPrice": "0x64", "l1Fee": "0x5", "logs": [{
            "address": "0x036cbd53842c5426634e7929541ec2318f3dcf7e", "topics": [word(9)], "data": "0x01",
            "logIndex": "0x3", "transactionHash": word(tx), "blockNumber": "0x10", "removed": false,
        }],
    })
}

#[tokio::test]
async fn receipts_come_in_one_request() {
    let node = Scripted::start(|method, params| match method {
        "eth_getTransactionReceipt" => match params[0].as_str().unwrap().get(..4).unwrap() {
            "0x01" => result(receipt(1, "0x1")),
            "0x02" => result(Value::Null),
            "0x03" => result(receipt(3, "0x0")),
            _ => result(receipt(1, "0x1")),
        },
        _ => healthy(method, params),
    })
    .await;
    let chain = chain(&[&node]);
    let got = chain.receipts(vec![TxHash([1; 32]), TxHash([2; 32]), TxHash([3; 32])]).await.unwrap();
    let [Some(paid), None, Some(failed)] = got.as_slice() else { panic!("{got:?}") };
    assert!(paid.success && !failed.success);
    assert_eq!((paid.tx, paid.block, paid.block_hash), (TxHash([1; 32]), 16, [16; 32]));
    // 100 wei for each of 10 units, and 5 wei to be posted: 101, rounded up.
    assert_eq!((paid.gas_used, paid.gas_price), (10, 101));
    assert_eq!((paid.logs.len(), paid.logs[0].index), (1, 3));
    assert_eq!(node.count("eth_getTransactionReceipt"), 1);
    // A receipt of another transaction proves nothing about this one.
    let other = chain.receipts(vec![TxHash([4; 32])]).await;
    assert_eq!(other, Err(ChainError::Unreadable(Network::eip155(CHAIN_ID))));
    assert_eq!(chain.receipts(vec![]).await, Ok(vec![]));
}

#[tokio::test]
async fn a_new_tip_wakes_all_who_wait() {
    let tip = Arc::new(AtomicU64::new(16));
    let node = Scripted::start({
        let tip = Arc::clone(&tip);
        move |method, params| match method {
            "eth_getBlockByNumber" => {
                let tip = tip.load(Ordering::Relaxed);
                result(block(tip, tip.try_into().unwrap()))
            }
            _ => healthy(method, params),
        }
    })
    .await;
    let chain = chain(&[&node]);
    let forever = Duration::from_secs(3600);
    let first = chain.next_head(None, forever).await.unwrap();
    assert_eq!((first.number, first.base_fee), (16, 1000));
    assert_eq!(first.timestamp, Timestamp::from_secs(1_700_000_032));
    let waiting = futures_util::future::join_all((0..50).map(|_| chain.next_head(Some(first), forever)));
    let mined = async {
        let polled = node.count("eth_getBlockByNumber");
        node.arrived("eth_getBlockByNumber", polled + 2).await;
        tip.store(17, Ordering::Relaxed);
        polled
    };
    let (heads, polled) = tokio::join!(waiting, mined);
    assert!(heads.into_iter().all(|head| head.unwrap().number == 17));
    // Fifty wait, one asks.
    assert!(node.count("eth_getBlockByNumber") <= polled + 4);
    // Patience ends with what there is.
    let second = chain.next_head(None, forever).await.unwrap();
    let same = chain.next_head(Some(second), Duration::from_millis(1)).await.unwrap();
    assert_eq!(same, second);
}

#[tokio::test]
async fn the_tip_is_asked_for_as_soon_as_something_was_sent() {
    let tip = Arc::new(AtomicU64::new(16));
    let node = Scripted::start({
        let tip = Arc::clone(&tip);
        move |method, params| match method {
            "eth_getBlockByNumber" => {
                let tip = tip.load(Ordering::Relaxed);
                result(block(tip, tip.try_into().unwrap()))
            }
            "eth_sendRawTransaction" => {
                tip.store(17, Ordering::Relaxed);
                result(json!(format!("0x{}", "07".repeat(32))))
            }
            _ => healthy(method, params),
        }
    })
    .await;
    let mut config = config(&[&node]);
    let forever = Duration::from_secs(3600);
    config.poll_interval = Some(forever);
    let chain = RpcChain::new(config).unwrap();
    let seen = chain.next_head(None, forever).await.unwrap();
    let tx = SignedTx { hash: TxHash([7; 32]), raw: Bytes::from_static(&[2, 3]) };
    let (next, said) = tokio::join!(chain.next_head(Some(seen), forever), chain.broadcast(&tx));
    assert_eq!((next.unwrap().number, said), (17, Broadcast::Accepted));
}

#[tokio::test]
async fn fees_that_cannot_be_told_fail_for_all_who_wait_at_once() {
    let node = Scripted::start(healthy).await;
    let chain = chain(&[&node]);
    chain.nonce(&account(), true).await.unwrap_err();
    node.gate("eth_feeHistory");
    node.script(html);
    let opened = async {
        node.arrived("eth_feeHistory", 1).await;
        node.open(1);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all((0..9).map(|_| chain.fees())), opened);
    assert!(answers.iter().all(|answer| *answer == Err(ChainError::Down(Network::eip155(CHAIN_ID)))));
    assert_eq!(node.count("eth_feeHistory"), 1);
}

#[tokio::test]
async fn without_a_node_waiting_for_a_tip_ends_in_an_error() {
    let node = Scripted::start(html).await;
    let got = chain(&[&node]).next_head(None, Duration::from_millis(30)).await;
    assert_eq!(got, Err(ChainError::Down(Network::eip155(CHAIN_ID))));
}

#[tokio::test]
async fn blocks_that_are_not_there_are_none() {
    let node = Scripted::start(|method, params| match method {
        "eth_getBlockByNumber" => match params[0].as_str().unwrap() {
            "safe" => error(-32000, "safe block not found"),
            "finalized" => error(-39001, "Unknown block"),
            "0x63" => result(Value::Null),
            _ => healthy(method, params),
        },
        _ => healthy(method, params),
    })
    .await;
    let chain = chain(&[&node]);
    for tag in [Tag::Safe, Tag::Finalized, Tag::Number(99)] {
        assert_eq!(chain.head(tag).await, Ok(None));
    }
    assert_eq!(chain.head(Tag::Number(16)).await.unwrap().unwrap().hash, [16; 32]);
}

#[tokio::test]
async fn fees_are_asked_for_once_a_block_and_need_no_rare_methods() {
    let plain = Scripted::start(healthy).await;
    let chain_of = chain(&[&plain]);
    let expected = Fees { max_fee: 1_002_000, priority_fee: 1_000_000 };
    assert_eq!(chain_of.fees().await, Ok(expected));
    assert_eq!(chain_of.fees().await, Ok(expected));
    assert_eq!(plain.count("eth_getBlockByNumber"), 1);
    let full = Scripted::start(|method, params| match method {
        "eth_maxPriorityFeePerGas" => result(json!("0x1e8480")),
        "eth_feeHistory" => result(json!({"oldestBlock": "0x1", "baseFeePerGas": ["0x1", "0x7d0"],
            "gasUsedRatio": [0.5], "reward": [["0x1"]]})),
        _ => healthy(method, params),
    })
    .await;
    let fees = chain(&[&full]).fees().await;
    assert_eq!(fees, Ok(Fees { max_fee: 2_004_000, priority_fee: 2_000_000 }));
}

#[tokio::test]
async fn an_estimate_tells_a_revert_from_a_fault() {
    let estimate = |answer: fn() -> Act| async move {
        let node = Scripted::start(move |method, params| match method {
            "eth_estimateGas" => answer(),
            _ => healthy(method, params),
        })
        .await;
        chain(&[&node]).estimate_gas(&account(), &account(), Bytes::from_static(&[1])).await
    };
    let data = Bytes::from_static(&[8, 0xc3]);
    assert_eq!(estimate(|| result(json!("0x5208"))).await, Ok(Ok(21_000)));
    let geth = || Act::Error(3, "execution reverted: no".to_owned(), Some(json!("0x08c3")));
    assert_eq!(estimate(geth).await, Ok(Err(data.clone())));
    let nested = || Act::Error(-32000, "VM Exception: revert".to_owned(), Some(json!({"data": "0x08c3"})));
    assert_eq!(estimate(nested).await, Ok(Err(data.clone())));
    let worded = || Act::Error(-32015, "VM execution error".to_owned(), Some(json!("Reverted 0x08c3")));
    assert_eq!(estimate(worded).await, Ok(Err(data)));
    let bare = || error(-32000, "execution reverted");
    assert_eq!(estimate(bare).await, Ok(Err(Bytes::new())));
    let gas = || error(-32000, "gas required exceeds allowance (30000000)");
    assert_eq!(estimate(gas).await, Ok(Err(Bytes::new())));
    assert!(matches!(estimate(|| error(-32000, "header not found")).await, Err(ChainError::Node { .. })));
}

/// Nodes that answer a transaction as told, and know transactions as told.
async fn broadcast_to(nodes: Vec<(fn() -> Act, bool)>) -> (Broadcast, Vec<usize>) {
    let silent = nodes.iter().any(|(answer, _)| matches!(answer(), Act::Hang));
    let mut running = Vec::new();
    for (answer, known) in nodes {
        let script = move |method: &str, params: &Value| match method {
            "eth_sendRawTransaction" => answer(),
            "eth_getTransactionByHash" if known => result(json!({"nonce": "0x1"})),
            "eth_getTransactionByHash" => result(Value::Null),
            _ => healthy(method, params),
        };
        running.push(Scripted::start(script).await);
    }
    let mut config = config(&running.iter().collect::<Vec<_>>());
    if silent {
        config.request_timeout = Duration::from_millis(300);
    }
    let chain = RpcChain::new(config).unwrap();
    let tx = SignedTx { hash: TxHash([7; 32]), raw: Bytes::from_static(&[2, 3]) };
    let said = chain.broadcast(&tx).await;
    (said, running.iter().map(|node| node.count("eth_sendRawTransaction")).collect())
}

#[tokio::test]
async fn doubt_is_never_called_refusal() {
    fn accepts() -> Act {
        result(json!(format!("0x{}", "07".repeat(32))))
    }
    fn gateway() -> Act {
        Act::Http(502, "<html>bad gateway</html>".to_owned())
    }
    fn underpriced() -> Act {
        error(-32000, "replacement transaction underpriced")
    }
    fn broke() -> Act {
        error(-32000, "insufficient funds for gas * price + value")
    }
    fn low() -> Act {
        error(-32000, "nonce too low")
    }
    let ambiguous = |said: &Broadcast| matches!(said, Broadcast::Ambiguous(_));

    assert_eq!(
        broadcast_to(vec![(accepts, false), (accepts, false)]).await,
        (Broadcast::Accepted, vec![1, 0])
    );
    assert_eq!(broadcast_to(vec![(broke, false), (accepts, false)]).await, (Broadcast::NoGas, vec![1, 0]));
    assert_eq!(broadcast_to(vec![(underpriced, false)]).await.0, Broadcast::Underpriced);
    assert_eq!(broadcast_to(vec![(low, false)]).await.0, Broadcast::NonceTooLow);
    // Its own inclusion uses its nonce.
    assert_eq!(broadcast_to(vec![(low, true)]).await.0, Broadcast::Accepted);
    assert_eq!(
        broadcast_to(vec![(gateway, false), (accepts, false)]).await,
        (Broadcast::Accepted, vec![1, 1])
    );
    // The first may have it, whatever the second says.
    for second in [broke, underpriced, gateway] {
        let (said, sent) = broadcast_to(vec![(gateway, false), (second, false)]).await;
        assert!(ambiguous(&said), "{said:?}");
        assert_eq!(sent, [1, 1]);
    }
    let silent: fn() -> Act = || Act::Hang;
    let unreadable: fn() -> Act = || Act::Http(200, "<html>ok</html>".to_owned());
    let half: fn() -> Act = || Act::Http(200, r#"{"jsonrpc":"2.0","id":$ID,"res"#.to_owned());
    let limited: fn() -> Act = || Act::Http(429, "slow down".to_owned());
    let empty: fn() -> Act = || result(Value::Null);
    for doubtful in [silent, unreadable, half, limited, empty] {
        let (said, _) = broadcast_to(vec![(doubtful, false)]).await;
        assert!(ambiguous(&said), "{said:?}");
    }
}

#[tokio::test]
async fn nothing_listens() {
    let network = Network::eip155(CHAIN_ID);
    // Bound and dropped, so that nobody else has it.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    let chain = RpcChain::new(ChainConfig::new(network.clone(), vec![url])).unwrap();
    for _ in 0..5 {
        assert_eq!(chain.fees().await, Err(ChainError::Down(network.clone())));
        assert_eq!(chain.read(vec![view(1, &[1])]).await, Err(ChainError::Down(network.clone())));
    }
}

#[test]
fn urls_stay_secret_and_configurations_are_checked() {
    let network = Network::eip155(CHAIN_ID);
    let config = |url: &str| ChainConfig::new(network.clone(), vec![url.parse().unwrap()]);
    let shown = format!("{:?}", config("https://user:pass@rpc.example:8443/v2/topsecret?key=hidden"));
    assert!(shown.contains("https://rpc.example:8443"), "{shown}");
    for secret in ["user", "pass@", "topsecret", "hidden"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let refused = |config| RpcChain::new(config).map(|_| ()).unwrap_err();
    assert_eq!(
        refused(config("ws://rpc.example/secret")),
        ConfigError::Scheme("ws://rpc.example".to_owned())
    );
    assert_eq!(refused(ChainConfig::new(network.clone(), vec![])), ConfigError::NoUrl(network.clone()));
    let solana: Network = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1".parse().unwrap();
    let elsewhere = ChainConfig::new(solana.clone(), vec!["https://rpc.example".parse().unwrap()]);
    assert_eq!(refused(elsewhere), ConfigError::NotEvm(solana));
}
