//! The embedded chain, seen as the engine sees a chain.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farthing_chain::{ChainConfig, LocalKey, RpcChain};
use farthing_devnet::{DEV_ACCOUNTS, Devnet, DevnetConfig, USDC};
use farthing_engine::{
    Broadcast, Chain, Fees, Head, LogFilter, Receipt, RelayerKey, SignedTx, Tag, TxHash, UnsignedTx,
};
use farthing_evm::{
    Address, B256, Domain, Key, Read, ReadKind, ReadResult, Revert, Transfer, TransferAuthorization, U256,
    abi, from_alloy,
};
use farthing_primitives::{Address as Account, Network};
use serde_json::{Value, json};

/// More than any test takes: a block comes as soon as there is a transaction.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    devnet: Devnet,
    chain: RpcChain,
    relayer: LocalKey,
}

impl World {
    async fn start() -> Self {
        let devnet = Devnet::start(DevnetConfig::default()).await.unwrap();
        let url = devnet.rpc_url().parse().unwrap();
        let mut config = ChainConfig::new(Network::eip155(84_532), vec![url]);
        config.block_time = Some(Duration::from_millis(100));
        Self { devnet, chain: RpcChain::new(config).unwrap(), relayer: key(0) }
    }

    async fn tx(&self, nonce: u64, data: Bytes, fees: Fees) -> SignedTx {
        let to = from_alloy(USDC);
        self.relayer.sign(&UnsignedTx { chain_id: 84_532, nonce, to, data, gas: 200_000, fees })
    }

    async fn balance(&self, account: Address, at: Option<Tag>) -> U256 {
        let read = Read { to: USDC, data: abi::balance_of(account), kind: ReadKind::View };
        let answers = match at {
            Some(at) => self.chain.read_at(vec![read], at).await.unwrap(),
            None => self.chain.read(vec![read]).await.unwrap(),
        };
        abi::as_uint(answers[0].returned().unwrap()).unwrap()
    }

    async fn receipt(&self, tx: TxHash, mut seen: Option<Head>) -> Receipt {
        loop {
            if let Some(receipt) = self.chain.receipts(vec![tx]).await.unwrap().remove(0) {
                return receipt;
            }
            seen = Some(self.chain.next_head(seen, PATIENCE).await.unwrap());
        }
    }

    async fn control(&self, method: &str, params: Value) {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        // The chain under test has set up TLS for the process; this client has no use for it.
        let sent = reqwest::Client::new()
            .post(self.devnet.rpc_url())
            .header("content-type", "application/json")
            .body(body);
        let answer = sent.send().await.unwrap().text().await.unwrap();
        assert!(!answer.contains("\"error\""), "{answer}");
    }
}

fn key(index: usize) -> LocalKey {
    LocalKey::new(Key::from_bytes(DEV_ACCOUNTS[index].private_key.0).unwrap())
}

fn transfer(to: Address, atoms: u64) -> Bytes {
    abi::transfer(to, U256::from(atoms)).0
}

#[tokio::test]
async fn a_transfer_from_nonce_to_receipt() {
    let world = World::start().await;
    let chain = &world.chain;
    let (from, to) = (DEV_ACCOUNTS[0].address, DEV_ACCOUNTS[1].address);
    let start = chain.head(Tag::Latest).await.unwrap().unwrap();
    let before = world.balance(to, None).await;
    let nonce = chain.nonce(&world.relayer.address(), true).await.unwrap();
    let fees = chain.fees().await.unwrap();
    assert!(fees.max_fee >= 2 * start.base_fee && fees.priority_fee > 0);
    let data = transfer(to, 1000);
    let gas = chain.estimate_gas(&world.relayer.address(), &from_alloy(USDC), data.clone()).await;
    assert!((21_000..200_000).contains(&gas.unwrap().unwrap()));

    let tx = world.tx(nonce, data, fees).await;
    assert_eq!(chain.broadcast(&tx).await, Broadcast::Accepted);
    // Once more is no second transaction, neither in the pool nor in a block.
    assert_eq!(chain.broadcast(&tx).await, Broadcast::Accepted);
    let receipt = world.receipt(tx.hash, Some(start)).await;
    assert!(receipt.success);
    assert_eq!(chain.broadcast(&tx).await, Broadcast::Accepted);
    let moved = Transfer { from, to, value: U256::from(1000) };
    assert_eq!(receipt.logs.iter().find_map(Transfer::decode), Some(moved));
    let block = chain.head(Tag::Number(receipt.block)).await.unwrap().unwrap();
    assert_eq!(block.hash, receipt.block_hash);
    assert!(receipt.gas_price > block.base_fee && receipt.gas_price <= fees.max_fee);

    assert_eq!(world.balance(to, None).await, before + U256::from(1000));
    assert_eq!(world.balance(to, Some(Tag::Number(receipt.block))).await, before + U256::from(1000));
    assert_eq!(world.balance(to, Some(Tag::Number(receipt.block - 1))).await, before);
    assert_eq!(chain.nonce(&world.relayer.address(), false).await.unwrap(), nonce + 1);
    let filter = LogFilter {
        address: from_alloy(USDC),
        topics: vec![Some(Transfer::TOPIC.0), None, Some(to.into_word().0)],
        from_block: start.number + 1,
        to_block: receipt.block,
    };
    let logs = chain.logs(filter).await.unwrap();
    assert_eq!(logs.iter().map(|(of, _)| *of).collect::<Vec<_>>(), [tx.hash]);
    assert_eq!(logs[0].1, receipt.logs[0]);

    let other = world.tx(nonce, transfer(to, 2000), fees).await;
    assert_eq!(chain.broadcast(&other).await, Broadcast::NonceTooLow);
    assert_eq!(chain.receipts(vec![other.hash]).await.unwrap(), [None]);
    let balance = chain.native_balance(&world.relayer.address()).await.unwrap();
    assert!(balance > 9_000 * 10u128.pow(18) && balance < 10_000 * 10u128.pow(18));
    world.devnet.shutdown().await;
}

#[tokio::test]
async fn a_transaction_of_anybody_is_known_from_the_pool_on_and_what_used_its_nonce_is_told_by_one_node() {
    let world = World::start().await;
    let (chain, from) = (&world.chain, world.relayer.address());
    let fees = chain.fees().await.unwrap();
    let to = key(5).address();
    let data = transfer(farthing_evm::to_alloy(&to).unwrap(), 7);
    let tx = world.tx(0, data.clone(), fees).await;
    assert_eq!(chain.transaction(tx.hash).await, Ok(None));
    world.control("evm_setAutomine", json!([false])).await;
    assert_eq!(chain.broadcast(&tx).await, Broadcast::Accepted);
    let known = chain.transaction(tx.hash).await.unwrap().unwrap();
    assert_eq!((&known.from, known.to, known.data), (&from, Some(from_alloy(USDC)), data));
    let standing = chain.standing(&from, Tag::Latest, tx.hash).await.unwrap();
    assert_eq!((standing.nonce, standing.receipt), (0, None));
    world.control("evm_mine", json!([])).await;
    let receipt = world.receipt(tx.hash, None).await;
    let standing = chain.standing(&from, Tag::Number(receipt.block), tx.hash).await.unwrap();
    assert_eq!((standing.nonce, standing.receipt), (1, Some(receipt.clone())));
    let before = chain.standing(&from, Tag::Number(receipt.block - 1), tx.hash).await.unwrap();
    assert_eq!(before.nonce, 0);
    // A block that the node does not have yet says nothing.
    assert!(chain.standing(&from, Tag::Number(receipt.block + 1), tx.hash).await.is_err());
}

#[tokio::test]
async fn a_slot_is_replaced_by_a_variant_that_offers_more() {
    let world = World::start().await;
    let chain = &world.chain;
    let to = DEV_ACCOUNTS[1].address;
    world.control("evm_setAutomine", json!([false])).await;
    let fees = chain.fees().await.unwrap();
    let nonce = chain.nonce(&world.relayer.address(), true).await.unwrap();
    let first = world.tx(nonce, transfer(to, 1), fees).await;
    assert_eq!(chain.broadcast(&first).await, Broadcast::Accepted);
    assert_eq!(chain.nonce(&world.relayer.address(), true).await.unwrap(), nonce + 1);
    assert_eq!(chain.nonce(&world.relayer.address(), false).await.unwrap(), nonce);
    let same = Fees { max_fee: fees.max_fee + 1, priority_fee: fees.priority_fee };
    let timid = world.tx(nonce, transfer(to, 2), same).await;
    assert_eq!(chain.broadcast(&timid).await, Broadcast::Underpriced);
    let more = Fees { max_fee: fees.max_fee * 2, priority_fee: fees.priority_fee * 2 };
    let bumped = world.tx(nonce, transfer(to, 1), more).await;
    assert_eq!(chain.broadcast(&bumped).await, Broadcast::Accepted);
    assert_eq!(chain.receipts(vec![first.hash, bumped.hash]).await.unwrap(), [None, None]);
    let poor = LocalKey::new(Key::from_bytes([0x77; 32]).unwrap());
    let broke = poor.sign(&UnsignedTx {
        chain_id: 84_532,
        nonce: 0,
        to: from_alloy(USDC),
        data: transfer(to, 1),
        gas: 200_000,
        fees,
    });
    assert_eq!(chain.broadcast(&broke).await, Broadcast::NoGas);
    let elsewhere = world.relayer.sign(&UnsignedTx {
        chain_id: 1,
        nonce: nonce + 1,
        to: from_alloy(USDC),
        data: transfer(to, 1),
        gas: 200_000,
        fees,
    });
    assert!(matches!(chain.broadcast(&elsewhere).await, Broadcast::Rejected(_)));
    world.devnet.shutdown().await;
}

/// An authorization that the second development account signed, as a call that simulates it.
fn simulated(nonce: u8, atoms: u64) -> Read {
    let payer = Key::from_bytes(DEV_ACCOUNTS[1].private_key.0).unwrap();
    let auth = TransferAuthorization {
        from: payer.address(),
        to: DEV_ACCOUNTS[2].address,
        value: U256::from(atoms),
        valid_after: U256::ZERO,
        valid_before: U256::from(u64::MAX),
        nonce: B256::repeat_byte(nonce),
    };
    let signature = payer.sign(auth.transfer_digest(&Domain::new("USDC", "2", 84_532, USDC)));
    Read {
        to: USDC,
        data: abi::transfer_with_authorization(&auth, &signature),
        kind: ReadKind::Simulation { contends: B256::repeat_byte(nonce) },
    }
}

#[tokio::test]
async fn simulations_of_many_callers_do_not_see_each_other() {
    let world = World::start().await;
    let chain = Arc::new(world.chain);
    // Each authorization twenty times at once, and each time it would succeed.
    let callers = (0..100u8).map(|n| {
        let chain = Arc::clone(&chain);
        async move { chain.read(vec![simulated(n % 5, 10)]).await }
    });
    for answer in futures_util::future::join_all(callers).await {
        assert!(matches!(answer.unwrap().as_slice(), [ReadResult::Returned(_)]));
    }
    let too_much = chain.read(vec![simulated(9, u64::MAX)]).await.unwrap();
    let [ReadResult::Reverted(data)] = too_much.as_slice() else { panic!("{too_much:?}") };
    assert!(!data.is_empty());
    let (from, to) = (from_alloy(DEV_ACCOUNTS[5].address), from_alloy(USDC));
    let estimate = chain.estimate_gas(&from, &to, transfer(DEV_ACCOUNTS[1].address, u64::MAX)).await;
    let Ok(Err(data)) = estimate else { panic!("{estimate:?}") };
    assert!(format!("{:?}", Revert::decode(&data)).contains("exceeds balance"), "{data:?}");
    let nobody: Account = from_alloy(Address::repeat_byte(0x99));
    assert_eq!(chain.native_balance(&nobody).await, Ok(0));
    world.devnet.shutdown().await;
}

#[tokio::test]
async fn a_reorg_takes_a_receipt_back() {
    let world = World::start().await;
    let chain = &world.chain;
    let fees = chain.fees().await.unwrap();
    let tx = world.tx(0, transfer(DEV_ACCOUNTS[1].address, 1), fees).await;
    assert_eq!(chain.broadcast(&tx).await, Broadcast::Accepted);
    let receipt = world.receipt(tx.hash, None).await;
    let seen = chain.next_head(None, PATIENCE).await.unwrap();
    assert_eq!(seen.hash, receipt.block_hash);
    let waits = chain.next_head(Some(seen), PATIENCE);
    let reorg = world.control("farthing_reorg", json!([{"depth": 1, "transactions": "drop"}]));
    let (replaced, ()) = tokio::join!(waits, reorg);
    let replaced = replaced.unwrap();
    assert_eq!(replaced.number, seen.number);
    assert_ne!(replaced.hash, seen.hash);
    assert_eq!(chain.receipts(vec![tx.hash]).await.unwrap(), [None]);
    world.devnet.shutdown().await;
}
