//! Reads of many callers share calls, and no caller suffers from another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::*;
use farthing_engine::{Chain, ChainError, Tag};
use farthing_evm::{Address, Bytes, Read, ReadKind, ReadResult};
use futures_util::future::join_all;
use serde_json::json;

fn returned(data: &[u8]) -> ReadResult {
    ReadResult::Returned(Bytes::copy_from_slice(data))
}

#[tokio::test]
async fn a_hundred_callers_share_a_few_requests() {
    let node = Scripted::start(healthy).await;
    let chain = chain(&[&node]);
    let callers = (0..100u8).map(|n| chain.read(vec![view(n, &[n]), view(n, &[n, 1]), view(n, &[n, 2])]));
    for (n, answers) in (0..100u8).zip(join_all(callers).await) {
        assert_eq!(answers.unwrap(), [returned(&[n]), returned(&[n, 1]), returned(&[n, 2])]);
    }
    // One for whoever came first, and the other 297 reads by 48.
    assert!(node.count("eth_call") <= 10, "{:?}", node.requests());
    assert_eq!(node.count("eth_chainId"), 1);
}

#[tokio::test]
async fn the_first_read_waits_for_nobody_and_the_next_go_when_it_is_back() {
    let node = Scripted::start(healthy).await;
    let mut config = config(&[&node]);
    // Only an answer can let the others go.
    config.batch_window = Duration::from_secs(3600);
    let chain = farthing_chain::RpcChain::new(config).unwrap();
    node.gate("eth_call");
    let first = chain.read(vec![view(1, &[1])]);
    let others = async {
        node.arrived("eth_call", 1).await;
        let second = join_all((2..5).map(|n| chain.read(vec![view(n, &[n])])));
        let opened = async {
            tokio::task::yield_now().await;
            assert_eq!(node.count("eth_call"), 1);
            node.open(2);
        };
        tokio::join!(second, opened).0
    };
    let (first, others) = tokio::join!(first, others);
    assert_eq!(first.unwrap(), [returned(&[1])]);
    assert!(others.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(node.count("eth_call"), 2);
}

#[tokio::test]
async fn later_reads_do_not_queue_behind_a_slow_call() {
    let node = Scripted::start(healthy).await;
    let chain = chain(&[&node]);
    node.gate("eth_call");
    let reads = join_all((0..3u8).map(|n| chain.read(vec![view(n, &[n])])));
    let opened = async {
        // The first is not answered, and still the window lets the others go.
        node.arrived("eth_call", 2).await;
        node.open(2);
    };
    let (reads, ()) = tokio::join!(reads, opened);
    assert!(reads.into_iter().all(|answer| answer.is_ok()));
}

#[tokio::test]
async fn whoever_is_one_too_many_is_told_so() {
    let node = Scripted::start(healthy).await;
    let mut config = config(&[&node]);
    config.max_queued_reads = 2;
    config.max_calls_in_flight = 1;
    let chain = farthing_chain::RpcChain::new(config).unwrap();
    node.gate("eth_call");
    let first = chain.read(vec![view(1, &[1])]);
    let rest = async {
        node.arrived("eth_call", 1).await;
        let waits = chain.read(vec![view(2, &[2]), view(2, &[3])]);
        let refused = async {
            tokio::task::yield_now().await;
            let refused = chain.read(vec![view(3, &[3])]).await;
            node.open(2);
            refused
        };
        tokio::join!(waits, refused)
    };
    let (first, (waits, refused)) = tokio::join!(first, rest);
    assert!(first.is_ok() && waits.is_ok());
    assert_eq!(refused, Err(ChainError::Busy(chain.network().clone())));
}

/// Reads at `0xee…` burn the gas of the call that they share.
fn with_a_burner(asked_alone: Arc<AtomicUsize>) -> impl Fn(&str, &serde_json::Value) -> Act + Send + Sync {
    move |method, params| {
        if method != "eth_call" {
            return healthy(method, params);
        }
        let count = calls_in(params);
        if count == 1 {
            asked_alone.fetch_add(1, Ordering::Relaxed);
        }
        result(each(params, |to, data| {
            let starved = count > 1 && (to == Address::repeat_byte(0xee) || to == Address::repeat_byte(0xed));
            if starved { (false, Bytes::new()) } else { (true, data.clone()) }
        }))
    }
}

#[tokio::test]
async fn a_starved_read_is_asked_for_again_alone() {
    let alone = Arc::new(AtomicUsize::new(0));
    let node = Scripted::start(with_a_burner(Arc::clone(&alone))).await;
    let chain = chain(&[&node]);
    let to = [1, 0xee, 0xed, 2];
    // The first goes by itself, so it takes no part.
    chain.read(vec![view(9, &[9])]).await.unwrap();
    alone.store(0, Ordering::Relaxed);
    node.gate("eth_call");
    let first = chain.read(vec![view(9, &[9])]);
    let rest = async {
        node.arrived("eth_call", 2).await;
        let reads = join_all(to.map(|n| chain.read(vec![view(n, &[n])])));
        let open = async { node.open(10) };
        tokio::join!(reads, open).0
    };
    let (_, answers) = tokio::join!(first, rest);
    for (n, answer) in to.iter().zip(answers) {
        assert_eq!(answer.unwrap(), [returned(&[*n])]);
    }
    // The one that kept the line busy, and the two that were starved.
    assert_eq!(alone.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_call_that_fails_as_a_whole_is_split_by_payment() {
    let node = Scripted::start(|method, params| match method {
        "eth_call" if calls_in(params) > 2 => error(-32000, "out of gas"),
        _ => healthy(method, params),
    })
    .await;
    let chain = chain(&[&node]);
    let answers = join_all((0..9u8).map(|n| chain.read(vec![view(n, &[n]), view(n, &[n, n])]))).await;
    for (n, answer) in (0..9u8).zip(answers) {
        assert_eq!(answer.unwrap(), [returned(&[n]), returned(&[n, n])]);
    }
}

#[tokio::test]
async fn what_a_payer_s_code_does_stays_with_the_payer() {
    let node = Scripted::start(|method, params| match method {
        "eth_call" if params.to_string().contains("baadc0de") => error(-32000, "execution timeout"),
        _ => healthy(method, params),
    })
    .await;
    let chain = chain(&[&node]);
    let mut untrusted = view(7, &[0xba, 0xad, 0xc0, 0xde]);
    untrusted.kind = ReadKind::Untrusted;
    let (theirs, ours) =
        tokio::join!(chain.read(vec![view(7, &[1]), untrusted]), chain.read(vec![view(8, &[8])]));
    assert_eq!(theirs.unwrap(), [returned(&[1]), ReadResult::Unavailable]);
    assert_eq!(ours.unwrap(), [returned(&[8])]);
}

#[tokio::test]
async fn code_that_never_ends_holds_up_its_payer_only() {
    let node = Scripted::start(|method, params| match method {
        "eth_call" if params.to_string().contains("baadc0de") => Act::Hang,
        _ => healthy(method, params),
    })
    .await;
    let mut config = config(&[&node]);
    config.max_calls_in_flight = 1;
    config.request_timeout = Duration::from_millis(300);
    let chain = farthing_chain::RpcChain::new(config).unwrap();
    let mut untrusted = view(7, &[0xba, 0xad, 0xc0, 0xde]);
    untrusted.kind = ReadKind::Untrusted;
    let ours = async {
        node.arrived("eth_call", 1).await;
        join_all((0..9u8).map(|n| chain.read(vec![view(8, &[n])]))).await
    };
    let (theirs, ours) = tokio::join!(chain.read(vec![untrusted]), ours);
    assert_eq!(theirs, Err(ChainError::Down(chain.network().clone())));
    assert!(ours.iter().all(Result::is_ok));
    // Nor does it cast doubt on the node.
    assert!(chain.read(vec![view(8, &[8])]).await.is_ok());
    assert_eq!(node.count("eth_chainId"), 1);
}

#[tokio::test]
async fn a_chain_without_multicall_is_asked_in_batches() {
    let node = Scripted::start(|method, params| match method {
        "eth_getCode" => result(json!("0x")),
        "eth_call" if called(params).0 == Address::repeat_byte(5) => {
            Act::Error(3, "execution reverted: no".to_owned(), Some(json!("0x08c379a0")))
        }
        "eth_call" if called(params).0 == Address::repeat_byte(6) => error(-32015, "VM execution error"),
        _ => healthy(method, params),
    })
    .await;
    let chain = chain(&[&node]);
    let answers = chain.read(vec![view(4, &[4]), view(5, &[5]), view(6, &[6])]).await.unwrap();
    let reverted = |data: &[u8]| ReadResult::Reverted(Bytes::copy_from_slice(data));
    assert_eq!(answers, [returned(&[4]), reverted(&[8, 0xc3, 0x79, 0xa0]), reverted(&[])]);
    assert_eq!(node.requests().last().unwrap(), &["eth_call", "eth_call", "eth_call"]);
}

#[tokio::test]
async fn a_node_that_takes_no_batches_is_asked_one_by_one() {
    let node = Scripted::start(|method, params| match method {
        "eth_getCode" => result(json!("0x")),
        _ => healthy(method, params),
    })
    .await;
    let refusing = Scripted::start({
        let batch = AtomicUsize::new(0);
        move |method, params| {
            // The first request is the check of the chain, a batch.
            if batch.fetch_add(1, Ordering::Relaxed) == 0 {
                return Act::Http(
                    200,
                    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no batches"}}"#
                        .to_owned(),
                );
            }
            healthy(method, params)
        }
    })
    .await;
    for node in [&node, &refusing] {
        let answers = chain(&[node]).read(vec![view(4, &[4]), view(5, &[5])]).await;
        assert_eq!(answers.unwrap(), [returned(&[4]), returned(&[5])]);
    }
    assert!(refusing.requests().iter().skip(1).all(|methods| methods.len() == 1));
}

#[tokio::test]
async fn reads_at_a_block_share_with_nobody_and_say_which_block() {
    let node = Scripted::start(|method, params| {
        if method == "eth_call" {
            let block = params[1].as_str().unwrap().to_owned();
            return result(each(params, |_, _| (true, Bytes::from(block.clone().into_bytes()))));
        }
        healthy(method, params)
    })
    .await;
    let mut config = config(&[&node]);
    config.mirror = Duration::from_secs(3600);
    let chain = farthing_chain::RpcChain::new(config).unwrap();
    for (tag, expected) in [
        (Tag::Latest, "latest"),
        (Tag::Safe, "safe"),
        (Tag::Finalized, "finalized"),
        (Tag::Number(255), "0xff"),
    ] {
        let reads = join_all((0..3).map(|_| chain.read_at(vec![view(1, &[1]), view(1, &[1])], tag))).await;
        for answers in reads {
            assert_eq!(answers.unwrap(), [returned(expected.as_bytes()), returned(expected.as_bytes())]);
        }
    }
    assert_eq!(node.count("eth_call"), 12);
    assert_eq!(chain.read(Vec::new()).await, Ok(Vec::new()));
    assert_eq!(chain.read_at(Vec::new(), Tag::Latest).await, Ok(Vec::new()));
}

#[tokio::test]
async fn the_mirror_answers_views_until_there_is_a_new_tip() {
    let tip = Arc::new(AtomicUsize::new(16));
    let node = Scripted::start({
        let tip = Arc::clone(&tip);
        move |method, params| match method {
            "eth_getBlockByNumber" => {
                let tip = tip.load(Ordering::Relaxed);
                result(block(tip.try_into().unwrap(), tip.try_into().unwrap()))
            }
            _ => healthy(method, params),
        }
    })
    .await;
    let mut config = config(&[&node]);
    config.mirror = Duration::from_secs(3600);
    let chain = farthing_chain::RpcChain::new(config).unwrap();
    let read = || async { chain.read(vec![view(1, &[1])]).await.unwrap() };
    chain.head(Tag::Latest).await.unwrap();
    assert_eq!(read().await, read().await);
    assert_eq!(node.count("eth_call"), 1);
    chain.head(Tag::Latest).await.unwrap();
    read().await;
    assert_eq!(node.count("eth_call"), 1);
    tip.store(17, Ordering::Relaxed);
    chain.head(Tag::Latest).await.unwrap();
    read().await;
    assert_eq!(node.count("eth_call"), 2);
    // What was asked before a new tip is not kept after it.
    node.gate("eth_call");
    let turned = async {
        node.arrived("eth_call", 3).await;
        tip.store(18, Ordering::Relaxed);
        chain.head(Tag::Latest).await.unwrap();
        node.open(100);
    };
    tokio::join!(chain.read(vec![view(2, &[2])]), turned).0.unwrap();
    chain.read(vec![view(2, &[2])]).await.unwrap();
    assert_eq!(node.count("eth_call"), 4);
    // A simulation is never answered from memory, nor are the views that come with it.
    let simulation = Read { kind: ReadKind::Simulation { contends: [1; 32].into() }, ..view(1, &[2]) };
    for expected in [5, 6] {
        chain.read(vec![view(1, &[1]), simulation.clone()]).await.unwrap();
        assert_eq!(node.count("eth_call"), expected);
    }
}
