//! What the embedded chain does as a node: pool, blocks, history, reorgs, and a stranger's input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use alloy_consensus::{TxEip1559, TxEip2930, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use alloy_rpc_types_eth::{Block, TransactionReceipt};
use alloy_sol_types::{SolCall, SolEvent};
use common::*;
use farthing_devnet::{
    BlockTime, CLIENT_VERSION, Devnet, DevnetConfig, DevnetError, MAX_BATCH, MAX_BODY_BYTES, MULTICALL3,
    STATE_HISTORY_BLOCKS, USDC, dev_account, is_dev_key,
};
use serde_json::{Value, json};

const GWEI: u128 = 1_000_000_000;

async fn manual() -> Chain {
    let chain = chain().await;
    chain.ok("evm_setAutomine", json!([false])).await;
    chain
}

fn message(result: Result<Value, Refusal>) -> String {
    let refusal = result.unwrap_err();
    assert_eq!(refusal.code, -32000);
    refusal.message
}

#[tokio::test]
async fn it_says_what_it_is_and_stays_at_home() {
    let public = DevnetConfig { listen: "0.0.0.0:0".parse().unwrap(), ..DevnetConfig::default() };
    assert!(matches!(Devnet::start(public.clone()).await, Err(DevnetError::NotLoopback(_))));
    let allowed = DevnetConfig { allow_non_loopback: true, ..public };
    Devnet::start(allowed).await.unwrap().shutdown().await;

    let chain = chain().await;
    assert_eq!(chain.ok("web3_clientVersion", json!([])).await, CLIENT_VERSION);
    assert!(CLIENT_VERSION.starts_with("farthing-devnet") && CLIENT_VERSION.contains("(development only)"));
    assert_eq!(chain.ok("eth_chainId", json!([])).await, "0x14a34");
    assert_eq!(chain.ok("net_version", json!([])).await, "84532");
    assert_eq!(chain.ok("eth_accounts", json!([])).await.as_array().unwrap().len(), 20);
    assert!(is_dev_key(dev(0).address) && !is_dev_key(Address::ZERO));
    assert_eq!(dev_account(20), None);
}

#[tokio::test]
async fn development_keys_belong_to_their_addresses() {
    let chain = manual().await;
    for account in farthing_devnet::DEV_ACCOUNTS {
        // A transaction signed with the key is taken as the address's own, or it would be refused for want of funds.
        chain.raw(&transfer(account, 0, 2 * GWEI)).await.unwrap();
        assert_eq!(chain.nonce(account.address, "pending").await, 1);
    }
}

#[tokio::test]
async fn all_transaction_types_are_mined() {
    let chain = chain().await;
    let to = TxKind::Call(dev(1).address);
    let legacy = TxLegacy {
        chain_id: Some(84_532),
        gas_price: 2 * GWEI,
        gas_limit: 21_000,
        to,
        value: U256::from(3),
        ..TxLegacy::default()
    };
    let access = TxEip2930 {
        chain_id: 84_532,
        nonce: 1,
        gas_price: 2 * GWEI,
        gas_limit: 21_000,
        to,
        ..TxEip2930::default()
    };
    for (index, tx) in
        [sealed(dev(0), legacy), sealed(dev(0), access), transfer(dev(0), 2, 2 * GWEI)].iter().enumerate()
    {
        let hash = chain.raw(tx).await.unwrap();
        assert_eq!(hash, json!(tx.hash()));
        let receipt = chain.ok("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(receipt["status"], "0x1");
        assert_eq!(receipt["type"], format!("0x{index}"));
        let receipt: TransactionReceipt = serde_json::from_value(receipt).unwrap();
        assert_eq!((receipt.gas_used, receipt.block_number), (21_000, Some(index as u64 + 1)));
        let back = chain.ok("eth_getTransactionByHash", json!([hash])).await;
        let back: alloy_rpc_types_eth::Transaction = serde_json::from_value(back).unwrap();
        assert_eq!(back.inner.inner(), tx);
        assert_eq!(back.inner.signer(), dev(0).address);
    }
}

#[tokio::test]
async fn the_pool_speaks_like_geth() {
    let chain = manual().await;
    let first = transfer(dev(0), 0, 2 * GWEI);
    chain.raw(&first).await.unwrap();
    assert_eq!(message(chain.raw(&first).await), "already known");
    let bump = |fee: u128| transfer_of(dev(0), 0, fee, U256::from(2));
    assert_eq!(
        message(chain.raw(&bump(2 * GWEI * 110 / 100 - 10)).await),
        "replacement transaction underpriced"
    );
    let replacement = bump(2 * GWEI * 110 / 100);
    chain.raw(&replacement).await.unwrap();
    assert_eq!(chain.ok("eth_getTransactionByHash", json!([first.hash()])).await, Value::Null);
    let waiting = chain.ok("eth_getTransactionByHash", json!([replacement.hash()])).await;
    assert_eq!(waiting["blockNumber"], Value::Null);

    chain.ok("evm_mine", json!([])).await;
    assert_eq!(chain.ok("eth_getTransactionReceipt", json!([replacement.hash()])).await["status"], "0x1");
    assert_eq!(message(chain.raw(&first).await), "nonce too low: next nonce 1, tx nonce 0");

    let ether = U256::from(10u64).pow(U256::from(18));
    let poor = message(chain.raw(&transfer_of(dev(1), 0, GWEI, ether * U256::from(10_000))).await);
    assert!(poor.starts_with("insufficient funds for gas * price + value: balance 10000000"), "{poor}");
    let base = TxEip1559 {
        chain_id: 84_532,
        gas_limit: 21_000,
        max_fee_per_gas: 2 * GWEI,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(dev(2).address),
        ..TxEip1559::default()
    };
    let attempt = async |tx: TxEip1559| message(chain.raw(&sealed(dev(1), tx)).await);
    assert_eq!(
        attempt(TxEip1559 { chain_id: 1, ..base.clone() }).await,
        "invalid chain id for signer: have 1 want 84532"
    );
    assert_eq!(
        attempt(TxEip1559 { gas_limit: 20_999, ..base.clone() }).await,
        "intrinsic gas too low: gas 20999, minimum needed 21000"
    );
    assert_eq!(attempt(TxEip1559 { gas_limit: 60_000_001, ..base.clone() }).await, "exceeds block gas limit");
    assert_eq!(
        attempt(TxEip1559 { max_priority_fee_per_gas: 3 * GWEI, ..base.clone() }).await,
        "max priority fee per gas higher than max fee per gas"
    );
    let long = TxEip1559 { input: vec![0; 200_000].into(), gas_limit: 30_000_000, ..base };
    assert!(attempt(long).await.starts_with("oversized data"));
    assert!(message(chain.rpc("eth_sendRawTransaction", json!(["0x02c0"])).await).starts_with("rlp: "));
}

#[tokio::test]
async fn a_gap_waits_until_it_is_filled() {
    let chain = chain().await;
    let sender = dev(0);
    for nonce in [2, 1] {
        chain.raw(&transfer(sender, nonce, 2 * GWEI)).await.unwrap();
    }
    assert_eq!(chain.block_number().await, 0);
    assert_eq!(chain.nonce(sender.address, "pending").await, 0);
    assert_eq!(chain.ok("txpool_status", json!([])).await, json!({ "pending": "0x0", "queued": "0x2" }));
    chain.raw(&transfer(sender, 0, 2 * GWEI)).await.unwrap();
    assert_eq!(chain.nonce(sender.address, "latest").await, 3);
    // Each has a block of its own.
    assert_eq!(chain.block_number().await, 3);
    assert_eq!(chain.ok("txpool_status", json!([])).await, json!({ "pending": "0x0", "queued": "0x0" }));
}

#[tokio::test]
async fn a_fee_below_the_base_fee_waits() {
    let chain = chain().await;
    let cheap = transfer(dev(0), 0, GWEI / 2);
    chain.raw(&cheap).await.unwrap();
    assert_eq!(chain.block_number().await, 0);
    // The base fee falls by an eighth with every empty block.
    chain.ok("anvil_mine", json!([10])).await;
    let receipt = chain.ok("eth_getTransactionReceipt", json!([cheap.hash()])).await;
    assert_eq!(receipt["status"], "0x1");
    assert!(u128::from(number(&receipt["effectiveGasPrice"])) <= GWEI / 2);
}

#[tokio::test]
async fn a_block_takes_the_best_tip_first_and_keeps_nonces_in_order() {
    let chain = manual().await;
    let mut sent = Vec::new();
    for (sender, nonce, fee) in [(0, 0, 2), (1, 0, 4), (0, 1, 9), (2, 0, 3)] {
        let tx = transfer(dev(sender), nonce, fee * GWEI);
        chain.raw(&tx).await.unwrap();
        sent.push(json!(tx.hash()));
    }
    chain.ok("evm_mine", json!([])).await;
    let block = chain.ok("eth_getBlockByNumber", json!(["latest", false])).await;
    // Tips are a tenth of the fee: 0.4, 0.3, then 0.2 which lets 0.9 follow.
    assert_eq!(block["transactions"], json!([sent[1], sent[3], sent[0], sent[2]]));
    let receipts = chain.ok("eth_getBlockReceipts", json!(["latest"])).await;
    let used: Vec<u64> =
        receipts.as_array().unwrap().iter().map(|one| number(&one["cumulativeGasUsed"])).collect();
    assert_eq!(used, [21_000, 42_000, 63_000, 84_000]);
}

#[tokio::test]
async fn twenty_copies_at_once_are_one_transaction() {
    let chain = chain().await;
    let tx = transfer(dev(0), 0, 2 * GWEI);
    let copies: Vec<_> = {
        let futures: Vec<_> = (0..20).map(|_| chain.raw(&tx)).collect();
        let mut answers = Vec::new();
        for answer in futures_join(futures).await {
            answers.push(answer);
        }
        answers
    };
    assert_eq!(copies.iter().filter(|copy| copy.is_ok()).count(), 1);
    for refusal in copies.into_iter().filter_map(Result::err) {
        assert!(
            ["already known", "nonce too low: next nonce 1, tx nonce 0"].contains(&refusal.message.as_str())
        );
    }
    assert_eq!(chain.block_number().await, 1);
}

/// Polls all together, in one task.
async fn futures_join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, answer) in &mut futures {
            if answer.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *answer = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, answer)| answer).collect()
}

#[tokio::test]
async fn blocks_hash_to_their_name_and_link_to_their_parent() {
    let chain = chain().await;
    for nonce in 0..3 {
        chain.raw(&transfer(dev(0), nonce, 2 * GWEI)).await.unwrap();
    }
    let mut parent = B256::ZERO;
    for number in 0..4u64 {
        let block = chain.ok("eth_getBlockByNumber", json!([format!("{number:#x}"), true])).await;
        let block: Block = serde_json::from_value(block).unwrap();
        assert_eq!(block.header.inner.hash_slow(), block.header.hash);
        assert_eq!(block.header.parent_hash, parent);
        let plain = block.clone().map_transactions(|tx| tx.into_inner());
        assert_eq!(plain.calculate_transactions_root(), Some(block.header.transactions_root));
        parent = block.header.hash;
        let by_hash = chain.ok("eth_getBlockByHash", json!([parent, true])).await;
        assert_eq!(serde_json::from_value::<Block>(by_hash).unwrap(), block);
    }
}

#[tokio::test]
async fn the_clock_of_the_chain_never_runs_ahead() {
    let chain = chain().await;
    let started = chain.now().await;
    for nonce in 0..50 {
        chain.raw(&transfer(dev(0), nonce, 2 * GWEI)).await.unwrap();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((started..=now).contains(&chain.now().await));

    chain.ok("evm_increaseTime", json!([3_600])).await;
    chain.ok("evm_mine", json!([])).await;
    let later = chain.now().await;
    assert!(later >= started + 3_600);
    chain.ok("evm_setNextBlockTimestamp", json!([later + 50])).await;
    chain.ok("evm_mine", json!([])).await;
    assert_eq!(chain.now().await, later + 50);
    let refusal = chain.rpc("evm_setNextBlockTimestamp", json!([later])).await.unwrap_err();
    assert_eq!(refusal.code, -32602);
    assert_eq!(chain.rpc("evm_increaseTime", json!([u64::MAX])).await.unwrap_err().code, -32602);
}

#[tokio::test]
async fn a_call_at_latest_sees_the_time_of_the_next_block() {
    let chain = chain().await;
    let seen = async |tag: &str| {
        let data = hex::encode_prefixed(Multi::getCurrentBlockTimestampCall {}.abi_encode());
        number(&chain.ok("eth_call", json!([{ "to": MULTICALL3, "data": data }, tag])).await)
    };
    let latest = chain.now().await;
    chain.ok("evm_increaseTime", json!([500])).await;
    assert!(seen("latest").await >= latest + 500);
    assert_eq!(seen("0x0").await, latest);
    // Where blocks come by the clock or by hand, the latest one has its own time, and the pending one is next.
    chain.ok("evm_setAutomine", json!([false])).await;
    assert_eq!(seen("latest").await, latest);
    assert!(seen("pending").await >= latest + 500);
}

#[tokio::test]
async fn answers_may_be_held_back() {
    let rpc_delay = Duration::from_millis(30);
    let chain = chain_with(DevnetConfig { rpc_delay, ..DevnetConfig::default() }).await;
    let started = Instant::now();
    chain.ok("eth_chainId", json!([])).await;
    assert!(started.elapsed() >= rpc_delay);
}

#[tokio::test]
async fn a_replacement_raises_both_fees() {
    let chain = manual().await;
    let tx = |max_fee_per_gas: u128, max_priority_fee_per_gas: u128| {
        sealed(
            dev(0),
            TxEip1559 {
                chain_id: 84_532,
                gas_limit: 21_000,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to: TxKind::Call(dev(1).address),
                ..TxEip1559::default()
            },
        )
    };
    chain.raw(&tx(1_000, 0)).await.unwrap();
    let underpriced = "replacement transaction underpriced";
    assert_eq!(message(chain.raw(&tx(2_000, 0)).await), underpriced);
    assert_eq!(message(chain.raw(&tx(1_099, 1)).await), underpriced);
    chain.raw(&tx(1_100, 100)).await.unwrap();
    assert_eq!(message(chain.raw(&tx(5_000, 109)).await), underpriced);
    chain.raw(&tx(5_000, 110)).await.unwrap();
}

#[tokio::test]
async fn recent_states_are_kept_and_old_ones_refused() {
    let chain = chain().await;
    let other = dev(18).address;
    let before = chain.ok("eth_getBalance", json!([other, "latest"])).await;
    chain.raw(&transfer(dev(0), 0, 2 * GWEI)).await.unwrap();
    assert_eq!(chain.ok("eth_getBalance", json!([other, "0x0"])).await, before);
    for tag in ["latest", "safe", "finalized", "pending", "0x1"] {
        assert_ne!(chain.ok("eth_getBalance", json!([other, tag])).await, before, "{tag}");
    }
    let head = chain.ok("eth_getBlockByNumber", json!(["latest", false])).await["hash"].clone();
    assert_ne!(chain.ok("eth_getBalance", json!([other, { "blockHash": head }])).await, before);
    assert_eq!(message(chain.rpc("eth_getBalance", json!([other, "0x5"])).await), "header not found");

    chain.ok("anvil_mine", json!([STATE_HISTORY_BLOCKS - 2])).await;
    assert_eq!(chain.ok("eth_getBalance", json!([other, "0x0"])).await, before);
    chain.ok("anvil_mine", json!([1])).await;
    assert_eq!(
        message(chain.rpc("eth_getBalance", json!([other, "0x0"])).await),
        "historical state 0 is not available"
    );
    // The block itself is still there.
    assert_eq!(chain.ok("eth_getBlockByNumber", json!(["earliest", false])).await["number"], "0x0");
}

#[tokio::test]
async fn finality_may_lag() {
    let chain = chain_with(DevnetConfig { finality_blocks: 2, ..DevnetConfig::default() }).await;
    chain.ok("anvil_mine", json!([5])).await;
    for (tag, expected) in [("latest", "0x5"), ("safe", "0x3"), ("finalized", "0x3"), ("earliest", "0x0")] {
        assert_eq!(chain.ok("eth_getBlockByNumber", json!([tag, false])).await["number"], expected);
    }
}

#[tokio::test]
async fn a_snapshot_brings_everything_back_once() {
    let chain = chain().await;
    chain.raw(&transfer(dev(0), 1, 2 * GWEI)).await.unwrap();
    let snapshot = chain.ok("evm_snapshot", json!([])).await;
    chain.raw(&transfer(dev(0), 0, 2 * GWEI)).await.unwrap();
    chain.ok("anvil_setBalance", json!([dev(1).address, "0x7"])).await;
    assert_eq!(chain.block_number().await, 2);
    assert_eq!(chain.ok("evm_revert", json!([snapshot])).await, json!(true));
    assert_eq!(chain.block_number().await, 0);
    assert_ne!(chain.ok("eth_getBalance", json!([dev(1).address, "latest"])).await, "0x7");
    assert_eq!(chain.ok("txpool_status", json!([])).await["queued"], "0x1");
    assert_eq!(chain.ok("evm_revert", json!([snapshot])).await, json!(false));
}

#[tokio::test]
async fn a_reorg_takes_back_what_it_is_told_to() {
    for (fate, mined_after, after_next_block) in
        [("drop", false, false), ("pool", false, true), ("remine", true, true)]
    {
        let chain = chain().await;
        chain.ok("anvil_mine", json!([3])).await;
        let tx = transfer(dev(0), 0, 2 * GWEI);
        chain.raw(&tx).await.unwrap();
        chain.ok("anvil_mine", json!([2])).await;
        let old = chain.ok("eth_getBlockByNumber", json!(["0x4", false])).await["hash"].clone();
        let kept = chain.ok("eth_getBlockByNumber", json!(["0x3", false])).await["hash"].clone();

        chain.ok("farthing_reorg", json!([{ "depth": 3, "blocks": 4, "transactions": fate }])).await;
        assert_eq!(chain.block_number().await, 7);
        assert_eq!(chain.ok("eth_getBlockByHash", json!([old, false])).await, Value::Null);
        let new = chain.ok("eth_getBlockByNumber", json!(["0x4", false])).await;
        assert_ne!(new["hash"], old);
        assert_eq!(new["parentHash"], kept);
        let mined = async || {
            !chain.ok("eth_getTransactionReceipt", json!([tx.hash()])).await.is_null()
                && chain.nonce(dev(0).address, "latest").await == 1
        };
        assert_eq!(mined().await, mined_after, "{fate}");
        chain.ok("evm_mine", json!([])).await;
        assert_eq!(mined().await, after_next_block, "{fate}");
    }
}

#[tokio::test]
async fn a_reorg_may_put_another_transaction_in_the_place() {
    let chain = chain().await;
    let paid = transfer(dev(0), 0, 2 * GWEI);
    let rival = transfer_of(dev(0), 0, 2 * GWEI, U256::from(99));
    chain.raw(&paid).await.unwrap();
    let raw = hex::encode_prefixed(rival.encoded_2718());
    chain.ok("anvil_reorg", json!([1, [[raw, 0]]])).await;
    assert_eq!(chain.ok("eth_getTransactionReceipt", json!([paid.hash()])).await, Value::Null);
    assert_eq!(chain.ok("eth_getTransactionReceipt", json!([rival.hash()])).await["status"], "0x1");
    assert_eq!(chain.rpc("anvil_reorg", json!([2, []])).await.unwrap_err().code, -32602);
    assert_eq!(chain.rpc("anvil_reorg", json!([1, [[raw, 1]]])).await.unwrap_err().code, -32602);
}

#[tokio::test]
async fn blocks_come_by_the_clock() {
    let interval = Duration::from_millis(20);
    let chain =
        chain_with(DevnetConfig { block_time: BlockTime::Interval(interval), ..Default::default() }).await;
    let tx = transfer(dev(0), 0, 2 * GWEI);
    chain.raw(&tx).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while chain.ok("eth_getTransactionReceipt", json!([tx.hash()])).await.is_null() {
        assert!(Instant::now() < deadline, "no block came");
    }
    // Automatic mining stops the clock.
    chain.ok("evm_setAutomine", json!([true])).await;
    let next = transfer(dev(0), 1, 2 * GWEI);
    chain.raw(&next).await.unwrap();
    assert_eq!(chain.ok("eth_getTransactionReceipt", json!([next.hash()])).await["status"], "0x1");
    let zero = DevnetConfig { block_time: BlockTime::Interval(Duration::ZERO), ..Default::default() };
    assert!(matches!(Devnet::start(zero).await, Err(DevnetError::ZeroInterval)));
}

#[tokio::test]
async fn an_estimate_is_enough_and_not_far_too_much() {
    let chain = chain().await;
    let calls = (1..=5u8)
        .map(|last| Multi::Call3 {
            target: USDC,
            allowFailure: true,
            callData: Token::approveCall { spender: Address::with_last_byte(last), value: U256::ONE }
                .abi_encode()
                .into(),
        })
        .collect();
    let data = hex::encode_prefixed(Multi::aggregate3Call { calls }.abi_encode());
    let request = json!({ "from": dev(0).address, "to": MULTICALL3, "data": data });
    let gas = number(&chain.ok("eth_estimateGas", json!([request])).await);
    let hash = chain.ok("eth_sendTransaction", json!([request])).await;
    let receipt = chain.ok("eth_getTransactionReceipt", json!([hash])).await;
    // All five went through, none ran out of gas inside.
    assert_eq!(receipt["logs"].as_array().unwrap().len(), 5);
    let used = number(&receipt["gasUsed"]);
    assert!((used..used + used / 10).contains(&gas), "estimated {gas}, used {used}");
    let plain = json!([{ "from": dev(0).address, "to": dev(1).address, "value": "0x1" }]);
    assert_eq!(chain.ok("eth_estimateGas", plain).await, "0x5208");
    let reverting = Token::mintCall { to: dev(0).address, value: U256::ONE }.abi_encode();
    let reverting = json!([{ "from": dev(0).address, "to": USDC, "data": hex::encode_prefixed(reverting) }]);
    let refusal = chain.rpc("eth_estimateGas", reverting).await.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (3, "execution reverted: FiatToken: caller is not a minter")
    );
    assert!(refusal.data.as_str().unwrap().starts_with("0x08c379a0"));
}

#[tokio::test]
async fn a_call_may_suppose_another_state() {
    let chain = chain().await;
    // Returns the word in slot 1: PUSH1 1 SLOAD PUSH0 MSTORE PUSH1 32 PUSH0 RETURN.
    let code = "0x6001545f5260205ff3";
    let to = Address::repeat_byte(0x77);
    let word = |byte: u8| B256::with_last_byte(byte);
    let call = |overrides: Value| json!([{ "to": to }, "latest", overrides]);
    let supposed =
        json!({ to.to_string(): { "code": code, "stateDiff": { word(1).to_string(): word(42) } } });
    assert_eq!(chain.ok("eth_call", call(supposed)).await, json!(word(42)));
    assert_eq!(chain.ok("eth_call", call(json!({}))).await, "0x");
    chain.ok("anvil_setCode", json!([to, code])).await;
    chain.ok("anvil_setStorageAt", json!([to, "0x1", word(7)])).await;
    assert_eq!(chain.ok("eth_call", call(json!({}))).await, json!(word(7)));
    assert_eq!(chain.ok("eth_getStorageAt", json!([to, "0x1", "latest"])).await, json!(word(7)));
    let emptied = json!({ to.to_string(): { "state": {} } });
    assert_eq!(chain.ok("eth_call", call(emptied)).await, json!(word(0)));
    assert_eq!(chain.ok("eth_call", call(json!({}))).await, json!(word(7)));
    // A call may send value only if the sender has it, and a suppositious balance is good enough.
    let rich = json!([{ "from": to, "to": dev(0).address, "value": "0x5" }, "latest", { to.to_string(): { "balance": "0x5" } }]);
    assert_eq!(chain.ok("eth_call", rich).await, "0x");
    let poor = json!([{ "from": to, "to": dev(0).address, "value": "0x5" }]);
    assert!(message(chain.rpc("eth_call", poor).await).starts_with("insufficient funds"));
}

#[tokio::test]
async fn logs_are_found_by_address_topic_and_block() {
    let chain = chain().await;
    for to in [1, 2] {
        chain.done(dev(0), USDC, Token::transferCall { to: dev(to).address, value: U256::from(to) }).await;
    }
    chain.raw(&transfer(dev(3), 0, 2 * GWEI)).await.unwrap();
    let count =
        async |filter: Value| chain.ok("eth_getLogs", json!([filter])).await.as_array().unwrap().len();
    let topic = Token::Transfer::SIGNATURE_HASH;
    assert_eq!(count(json!({ "fromBlock": "earliest", "address": USDC })).await, 2);
    assert_eq!(
        count(json!({ "fromBlock": "0x0", "topics": [topic, null, dev(2).address.into_word()] })).await,
        1
    );
    assert_eq!(
        count(json!({ "fromBlock": "0x1", "toBlock": "0x1", "topics": [[topic, B256::ZERO]] })).await,
        1
    );
    assert_eq!(count(json!({ "fromBlock": "0x0", "address": MULTICALL3 })).await, 0);
    assert_eq!(count(json!({ "address": USDC })).await, 0);
    let hash = chain.ok("eth_getBlockByNumber", json!(["0x2", false])).await["hash"].clone();
    let logs = chain.ok("eth_getLogs", json!([{ "blockHash": hash }])).await;
    assert_eq!(logs[0]["blockNumber"], "0x2");
    assert_eq!(logs[0]["logIndex"], "0x0");
    let backwards = chain.rpc("eth_getLogs", json!([{ "fromBlock": "0x2", "toBlock": "0x1" }])).await;
    assert_eq!(backwards.unwrap_err().code, -32602);
}

#[tokio::test]
async fn fees_have_a_history() {
    let chain = chain().await;
    chain.raw(&transfer(dev(0), 0, 2 * GWEI)).await.unwrap();
    let history = chain.ok("eth_feeHistory", json!(["0x5", "latest", [50]])).await;
    assert_eq!(history["oldestBlock"], "0x0");
    let fees: Vec<u64> = history["baseFeePerGas"].as_array().unwrap().iter().map(number).collect();
    assert_eq!(fees[..2], [1_000_000_000, 875_000_000]);
    assert_eq!(fees.len(), 3);
    assert_eq!(history["reward"], json!([["0x0"], ["0xbebc200"]]));
    let price = number(&chain.ok("eth_gasPrice", json!([])).await);
    assert_eq!(price, fees[2] + number(&chain.ok("eth_maxPriorityFeePerGas", json!([])).await));
    assert_eq!(chain.rpc("eth_feeHistory", json!([1, "latest", [101]])).await.unwrap_err().code, -32602);
}

#[tokio::test]
async fn configured_balances_hold() {
    let poor = Address::repeat_byte(0x55);
    let config = DevnetConfig {
        wei: vec![(poor, U256::from(5))],
        usdc: vec![(poor, 20_000), (dev(0).address, 0)],
        dev_usdc: 2,
        ..DevnetConfig::default()
    };
    let chain = chain_with(config).await;
    assert_eq!(chain.usdc(poor).await, 20_000);
    assert_eq!(chain.usdc(dev(0).address).await, 0);
    assert_eq!(chain.usdc(dev(1).address).await, 2_000_000);
    assert_eq!(chain.ok("eth_getBalance", json!([poor, "latest"])).await, "0x5");
    let stranger = json!([{ "from": poor, "to": dev(0).address }]);
    assert_eq!(message(chain.rpc("eth_sendTransaction", stranger).await), "unknown account");
}

#[tokio::test]
async fn bad_input_has_its_error_and_its_limit() {
    let chain = chain().await;
    let code = async |body: String| {
        let (status, text) = chain.post(body).await;
        assert_eq!(status, 200);
        serde_json::from_str::<Value>(&text).unwrap()["error"]["code"].as_i64()
    };
    for broken in ["", "{", "nonsense", "{\"id\":1,\"method\":", "[1,"] {
        assert_eq!(code(broken.to_owned()).await, Some(-32700), "{broken}");
    }
    for odd in ["{}", "7", "[]", r#"{"id":1,"method":7}"#] {
        assert_eq!(code(odd.to_owned()).await, Some(-32600), "{odd}");
    }
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"eth_nope"}"#.to_owned()).await, Some(-32601));
    for params in [json!([]), json!(["0x12"]), json!([7]), json!("x"), json!([dev(0).address, "later"])] {
        let refusal = chain.rpc("eth_getBalance", params.clone()).await.unwrap_err();
        assert_eq!(refusal.code, -32602, "{params}");
    }
    let deep =
        format!(r#"{{"id":1,"method":"eth_call","params":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(code(deep).await, Some(-32700));
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    assert_eq!(code(format!("[{}]", vec![one; MAX_BATCH + 1].join(","))).await, Some(-32600));
    let (_, text) = chain.post(format!("[{}]", vec![one; MAX_BATCH].join(","))).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&text).unwrap().len(), MAX_BATCH);
    assert_eq!(chain.post(vec![b' '; MAX_BODY_BYTES + 1]).await.0, 413);
    // A notification has no answer; in a batch the others have.
    assert_eq!(chain.post(r#"{"jsonrpc":"2.0","method":"eth_chainId"}"#).await.0, 204);
    let (_, text) = chain.post(format!(r#"[{{"method":"eth_chainId"}},{one},3]"#)).await;
    let answers: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (answers.len(), &answers[0]["result"], &answers[1]["error"]["code"]),
        (2, &json!("0x14a34"), &json!(-32600))
    );
    let many = chain.rpc("anvil_mine", json!([1_000_000])).await.unwrap_err();
    assert_eq!(many.code, -32602);
}

#[tokio::test]
async fn an_endless_call_ends() {
    let chain = chain().await;
    // JUMPDEST PUSH0 JUMP, with less gas than the cap so that the test is quick.
    chain.ok("anvil_setCode", json!([Address::repeat_byte(1), "0x5b5f56"])).await;
    let call = json!([{ "to": Address::repeat_byte(1), "gas": "0x30d40" }]);
    let refusal = message(chain.rpc("eth_call", call).await);
    assert_eq!(refusal, "out of gas: gas required exceeds allowance (200000)");
    let bad: Bytes = hex!("ef0100aa").to_vec().into();
    assert_eq!(chain.rpc("anvil_setCode", json!([dev(1).address, bad])).await.unwrap_err().code, -32602);
}

#[tokio::test]
async fn a_stopped_chain_no_longer_listens() {
    let chain = chain().await;
    let address = chain.devnet.address();
    chain.devnet.shutdown().await;
    assert!(std::net::TcpStream::connect(address).is_err());
}
