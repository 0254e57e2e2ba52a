//! The engine on the embedded chain, through the real chain client and the real store: what a relayer must survive.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use farthing_chain::{ChainConfig, LocalKey, RpcChain};
use farthing_devnet::{BlockTime, DEV_ACCOUNTS, Devnet, DevnetConfig};
use farthing_engine::*;
use farthing_evm::{Key, from_alloy};
use farthing_payment::*;
use farthing_primitives::*;
use farthing_rails::exact_evm::buy::{Nonce, authorize};
use farthing_rails::exact_evm::{Checked, Policy, Requirement, Token, check};
use farthing_store::SqliteStore;
use serde_json::{Value, json};

/// Real time, with an offset that a test may add.
struct RealWorld {
    start: Instant,
    ahead_ms: AtomicU64,
}

impl World for RealWorld {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let millis = u64::try_from(since.as_millis()).expect("small");
        Timestamp::from_millis(millis + self.ahead_ms.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
    fn random(&self, into: &mut [u8]) {
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let mut state = COUNTER.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in into {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[0];
        }
    }
}

struct House {
    devnet: Devnet,
    engine: Engine,
    store: Arc<SqliteStore>,
    world: Arc<RealWorld>,
    chain: Arc<RpcChain>,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

const RELAYER: usize = 0;
const PAYER: usize = 1;
const PAYEE: usize = 2;

fn key(index: usize) -> Key {
    Key::from_bytes(DEV_ACCOUNTS[index].private_key.0).expect("a key")
}

fn account(index: usize) -> Address {
    from_alloy(key(index).address())
}

fn network() -> Network {
    Network::eip155(84532)
}

fn usdc() -> Asset {
    Registry::builtin().dollar(&network()).expect("listed").clone()
}

async fn house(
    block_time: BlockTime,
    tune: impl FnOnce(&mut RelayerConfig, &mut EngineConfig, &mut Depths),
) -> House {
    house_on(DevnetConfig { block_time, ..DevnetConfig::default() }, tune).await
}

/// A chain on which only what is so deep counts as beyond any reorganization.
async fn house_beyond(beyond: u64) -> House {
    let config = DevnetConfig { block_time: BlockTime::Instant, ..DevnetConfig::default() };
    house_with(config, beyond, |_, _, _| {}).await
}

async fn house_on(
    config: DevnetConfig,
    tune: impl FnOnce(&mut RelayerConfig, &mut EngineConfig, &mut Depths),
) -> House {
    house_with(config, 1, tune).await
}

async fn house_with(
    config: DevnetConfig,
    beyond: u64,
    tune: impl FnOnce(&mut RelayerConfig, &mut EngineConfig, &mut Depths),
) -> House {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let devnet = Devnet::start(config).await.expect("a devnet");
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(SqliteStore::open(&folder.path().join("farthing.db")).expect("a store"));
    let world = Arc::new(RealWorld { start: Instant::now(), ahead_ms: AtomicU64::new(0) });
    let mut config = ChainConfig::new(network(), vec![devnet.rpc_url().parse().expect("a URL")]);
    config.block_time = Some(Duration::from_millis(100));
    let chain = Arc::new(RpcChain::new(config).expect("a chain"));
    let mut relayer_config =
        RelayerConfig { bump_after: Duration::from_millis(300), ..RelayerConfig::default() };
    let mut engine_config = EngineConfig::default();
    let mut depths = Depths::default();
    tune(&mut relayer_config, &mut engine_config, &mut depths);
    let relayer = Relayer::start(
        chain.clone(),
        Arc::new(LocalKey::new(key(RELAYER))),
        store.clone(),
        world.clone(),
        relayer_config,
    )
    .expect("an EVM chain");
    let rail = EvmRail::new(relayer, store.clone(), world.clone(), depths, Registry::builtin());
    let rail = rail.beyond_reorgs(beyond);
    let rails: HashMap<_, Arc<dyn Rail>> = HashMap::from([(network(), Arc::new(rail) as Arc<dyn Rail>)]);
    let engine = Engine::new(store.clone(), world.clone(), rails, engine_config);
    engine.recover().await.expect("recovered");
    House { devnet, engine, store, world, chain, http: reqwest::Client::new(), _folder: folder }
}

impl House {
    async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self.http.post(self.devnet.rpc_url()).json(&body).send().await.expect("sent");
        let answer: Value = answer.json().await.expect("JSON");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    async fn balance(&self, address: &Address) -> u128 {
        let to = usdc().id.address().to_string();
        let data = format!("0x70a08231{:0>64}", &address.as_str()[2..]);
        let result = self.rpc("eth_call", json!([{"to": to, "data": data}, "latest"])).await;
        u128::from_str_radix(&result.as_str().expect("text")[2..], 16).expect("a number")
    }

    /// A block that takes nothing of what waits.
    async fn pass_over(&self) {
        self.rpc("farthing_reorg", json!([{"depth": 0, "blocks": 1}])).await;
    }

    async fn books_balance(&self) {
        let check = self.store.check_books().await.expect("checked");
        assert_eq!(check.problems, Vec::<String>::new());
    }

    async fn payment(&self, id: PaymentId) -> Payment {
        self.store.payment(id).await.expect("read").expect("there")
    }

    /// Waits until the payment is as wanted, for at most a minute: machines that test are slow at times.
    async fn until(&self, id: PaymentId, wanted: &str) -> Payment {
        for _ in 0..3_000 {
            let payment = self.payment(id).await;
            if payment.state.name() == wanted {
                return payment;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?} did not become {wanted}", self.payment(id).await);
    }

    fn sale(&self, n: u64, validity: Duration) -> (Sale, Checked) {
        let now = self.world.now();
        let token = Arc::new(Token::new(&usdc()).expect("an EVM token"));
        let asked =
            Requirement::new(token, &usdc().atoms(1000), &account(PAYEE), PullMethod::Eip3009, validity)
                .expect("a requirement");
        let mut nonce = [0u8; 32];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        let unsigned = authorize(&asked, &account(PAYER), Nonce(nonce), validity, now).expect("to sign");
        let presented = unsigned.signed(&key(PAYER).sign(unsigned.digest()), None);
        let checked = check(&asked, &presented, now, &Policy::default()).expect("good");
        let sale = Sale {
            tenant: TenantId::local(),
            key: checked.key(),
            terms: Terms {
                payer: checked.payer(),
                payee: checked.pay_to(),
                money: checked.money().clone(),
                expires: checked.expires(),
                dialect: Dialect::X402V2,
                instruction: checked.instruction(),
            },
            binding: Binding {
                method: "GET".to_owned(),
                resource: "/weather".to_owned(),
                request: RequestHash([7; 32]),
                bound: Bound::ByOffer,
                repeatable: true,
            },
            flow: Flow::Authorization,
            exposure: None,
            name: None,
        };
        (sale, checked)
    }
}

#[derive(Default)]
struct Shop(AtomicU32);

#[async_trait]
impl Upstream for Shop {
    async fn call(&self, _: &Payment) -> UpstreamAnswer {
        self.0.fetch_add(1, Ordering::SeqCst);
        UpstreamAnswer::Complete(StoredResponse {
            status: 200,
            headers: Vec::new(),
            body: Bytes::from_static(b"goods"),
            trailers: Vec::new(),
        })
    }
}

const LONG: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_moves_exactly_its_price_and_books_its_gas() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let (payer, payee) = (house.balance(&account(PAYER)).await, house.balance(&account(PAYEE)).await);
    let outcome = house.engine.sell(house.sale(1, LONG).0, Arc::new(Shop::default())).await;
    let SaleOutcome::Served { payment, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(house.balance(&account(PAYER)).await, payer - 1000);
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 1000);
    let transfers = house.store.transfers_of(payment.id).await.expect("read");
    let gas =
        transfers.iter().find(|(id, ..)| id.purpose == farthing_ledger::Purpose::Gas).expect("gas is booked");
    assert!(gas.1.atoms() > 0);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_settlements_in_flight_on_one_key_leave_no_nonce_stuck() {
    let house = house(BlockTime::Interval(Duration::from_secs(1)), |_, _, _| {}).await;
    let payee = house.balance(&account(PAYEE)).await;
    let shop = Arc::new(Shop::default());
    let sales = (0..200).map(|n| {
        let (engine, shop, sale) = (house.engine.clone(), shop.clone(), house.sale(n, LONG).0);
        tokio::spawn(async move { engine.sell(sale, shop).await })
    });
    for outcome in futures_util::future::join_all(sales).await {
        let outcome = outcome.expect("no panic");
        assert!(matches!(outcome, SaleOutcome::Served { .. }), "{outcome:?}");
    }
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 200 * 1000);
    assert_eq!(shop.0.load(Ordering::SeqCst), 200);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_somebody_else_submitted_first_is_found_and_counts_once() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let (sale, checked) = house.sale(1, LONG);
    let selling = {
        let engine = house.engine.clone();
        tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
    };
    // Our transaction waits in the pool; a stranger's with a better offer takes the same authorization first.
    loop {
        let pool = house.rpc("eth_getTransactionCount", json!([account(RELAYER).as_str(), "pending"])).await;
        if pool != json!("0x0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stranger = LocalKey::new(key(5));
    let reads = checked.reads();
    let results = house.chain.read(reads).await.expect("read");
    let settlement = checked.judge(&results).expect("funded").settlement().clone();
    let tx = stranger.sign(&UnsignedTx {
        chain_id: 84532,
        nonce: 0,
        to: from_alloy(settlement.to),
        data: settlement.data.to_vec().into(),
        gas: 200_000,
        fees: Fees { max_fee: 100_000_000_000, priority_fee: 90_000_000_000 },
    });
    assert_eq!(house.chain.broadcast(&tx).await, Broadcast::Accepted);
    let payee = house.balance(&account(PAYEE)).await;
    house.rpc("evm_mine", json!([])).await;
    let outcome = selling.await.expect("no panic");
    let SaleOutcome::Served { payment, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(payment.tx().map(|tx| tx.as_str().to_owned()), Some(tx.hash.to_string()));
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 1000);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_comes_late_is_pending_first_and_the_goods_afterwards() {
    let house = house(BlockTime::Instant, |_, engine, _| {
        engine.answer_within = Duration::from_millis(500);
        engine.unclear_after = Duration::from_millis(300);
    })
    .await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let payer = house.balance(&account(PAYER)).await;
    let (sale, _) = house.sale(1, LONG);
    let shop = Arc::new(Shop::default());
    let outcome = house.engine.sell(sale.clone(), shop.clone()).await;
    let SaleOutcome::Pending { payment, tx } = outcome else { panic!("{outcome:?}") };
    assert!(tx.is_some());
    house.until(payment, "unknown").await;
    house.rpc("evm_setAutomine", json!([true])).await;
    house.rpc("evm_mine", json!([])).await;
    house.until(payment, "settled").await;
    let outcome = house.engine.sell(sale, shop.clone()).await;
    assert!(matches!(outcome, SaleOutcome::Served { .. }), "{outcome:?}");
    assert_eq!(house.balance(&account(PAYER)).await, payer - 1000);
    assert_eq!(shop.0.load(Ordering::SeqCst), 1);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_chain_passes_over_is_offered_more_for_and_pays_once() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let payee = house.balance(&account(PAYEE)).await;
    let (sale, _) = house.sale(1, LONG);
    let selling = {
        let engine = house.engine.clone();
        tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
    };
    // The node forgets it again and again; empty blocks go by, so that the relayer looks at what it has.
    let mut variants = 0;
    for _ in 0..1_200 {
        let payments =
            house.store.payments(PaymentFilter { limit: 1, ..Default::default() }).await.expect("read");
        if let Some(payment) = payments.first() {
            let slots = house.store.slots_of(payment.id).await.expect("read");
            for variant in slots.iter().flat_map(|stored| &stored.slot.variants) {
                house.rpc("anvil_dropTransaction", json!([variant.tx.as_str()])).await;
            }
            variants = slots.iter().map(|stored| stored.slot.variants.len()).sum();
            if variants >= 3 {
                break;
            }
        }
        house.pass_over().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(variants >= 3, "{variants} variants");
    house.rpc("evm_setAutomine", json!([true])).await;
    for _ in 0..1_200 {
        if selling.is_finished() {
            break;
        }
        house.rpc("evm_mine", json!([])).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let outcome = selling.await.expect("no panic");
    assert!(matches!(outcome, SaleOutcome::Served { .. }), "{outcome:?}");
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 1000);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_expires_unused_is_proof_that_no_money_moved() {
    let house = house(BlockTime::Instant, |relayer, engine, _| {
        engine.answer_within = Duration::from_millis(200);
        engine.unclear_after = Duration::from_millis(100);
        // Nothing is given a second time in this test.
        relayer.bump_after = Duration::from_secs(3600);
    })
    .await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let payer = house.balance(&account(PAYER)).await;
    let (sale, _) = house.sale(1, Duration::from_secs(20));
    let outcome = house.engine.sell(sale, Arc::new(Shop::default())).await;
    let SaleOutcome::Pending { payment, .. } = outcome else { panic!("{outcome:?}") };
    let slots = house.store.slots_of(payment).await.expect("read");
    for variant in &slots[0].slot.variants {
        house.rpc("anvil_dropTransaction", json!([variant.tx.as_str()])).await;
    }
    house.until(payment, "unknown").await;
    house.world.ahead_ms.store(40_000, Ordering::SeqCst);
    house.rpc("evm_increaseTime", json!([60])).await;
    for _ in 0..4 {
        house.rpc("evm_mine", json!([])).await;
    }
    house.until(payment, "failed").await;
    assert_eq!(house.balance(&account(PAYER)).await, payer);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_payment_that_is_reorganized_away_is_noticed_and_settled_again() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let payee = house.balance(&account(PAYEE)).await;
    let outcome = house.engine.sell(house.sale(1, LONG).0, Arc::new(Shop::default())).await;
    let SaleOutcome::Served { payment, .. } = outcome else { panic!("{outcome:?}") };
    house.rpc("farthing_reorg", json!([{"depth": 1, "transactions": "drop"}])).await;
    assert_eq!(house.balance(&account(PAYEE)).await, payee);
    house.engine.tend_once().await.expect("tended");
    for _ in 0..600 {
        house.rpc("evm_mine", json!([])).await;
        if house.payment(payment.id).await.state.name() == "settled" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    house.until(payment.id, "settled").await;
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 1000);
    let history = house.store.history(payment.id).await.expect("read");
    assert!(history.iter().any(|(_, event, _)| event == "reorged"), "{history:?}");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_amounts_wait_for_depth() {
    let house = house(BlockTime::Instant, |_, engine, depths| {
        depths.most = Finality::Blocks(3);
        engine.answer_within = Duration::from_millis(500);
    })
    .await;
    let (sale, _) = house.sale(1, LONG);
    let outcome = house.engine.sell(sale.clone(), Arc::new(Shop::default())).await;
    let SaleOutcome::Pending { payment, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(house.payment(payment).await.state.name(), "confirming");
    house.rpc("evm_mine", json!([])).await;
    house.rpc("evm_mine", json!([])).await;
    house.until(payment, "settled").await;
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_payer_is_refused_before_anything_is_sent() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    // The balance goes between two sales.
    let all = house.balance(&account(PAYER)).await;
    let drain = LocalKey::new(key(PAYER));
    let mut data = hex_bytes("a9059cbb");
    data.extend([0; 12]);
    data.extend(account(9).evm_bytes().expect("evm"));
    data.extend([0; 16]);
    data.extend(all.to_be_bytes());
    let tx = drain.sign(&UnsignedTx {
        chain_id: 84532,
        nonce: 0,
        to: usdc().id.address().clone(),
        data: data.into(),
        gas: 100_000,
        fees: Fees { max_fee: 100_000_000_000, priority_fee: 1_000_000_000 },
    });
    assert_eq!(house.chain.broadcast(&tx).await, Broadcast::Accepted);
    let shop = Arc::new(Shop::default());
    let outcome = house.engine.sell(house.sale(1, LONG).0, shop.clone()).await;
    let SaleOutcome::Refused { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.code().contains("insufficient"), "{reason}");
    assert_eq!(shop.0.load(Ordering::SeqCst), 0);
    assert_eq!(house.chain.nonce(&account(RELAYER), true).await, Ok(0), "no gas was spent");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_goes_back_once_on_chain() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let payer = house.balance(&account(PAYER)).await;
    let outcome = house.engine.sell(house.sale(1, LONG).0, Arc::new(Shop::default())).await;
    let SaleOutcome::Served { payment, .. } = outcome else { panic!("{outcome:?}") };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let first = house.engine.refund(payment.id, &key(PAYEE)).await.expect("refunded");
    assert!(matches!(first, Refunded::Done { .. }), "{first:?}");
    assert_eq!(house.engine.refund(payment.id, &key(PAYEE)).await.expect("refunded"), first);
    assert_eq!(house.balance(&account(PAYER)).await, payer);
    house.books_balance().await;
}

/// Sends this many atoms of the payer's to somebody else, offering the chain a lot for it.
async fn drain(house: &House, atoms: u128) {
    drain_of(house, PAYER, atoms).await;
}

async fn drain_of(house: &House, of: usize, atoms: u128) {
    let mut data = hex_bytes("a9059cbb");
    data.extend([0; 12]);
    data.extend(account(9).evm_bytes().expect("evm"));
    data.extend([0; 16]);
    data.extend(atoms.to_be_bytes());
    let tx = LocalKey::new(key(of)).sign(&UnsignedTx {
        chain_id: 84532,
        nonce: 0,
        to: usdc().id.address().clone(),
        data: data.into(),
        gas: 100_000,
        fees: Fees { max_fee: 100_000_000_000, priority_fee: 90_000_000_000 },
    });
    assert_eq!(house.chain.broadcast(&tx).await, Broadcast::Accepted);
}

async fn until_in_pool(house: &House, nonce: &str) {
    for _ in 0..6_000 {
        let count = house.rpc("eth_getTransactionCount", json!([account(RELAYER).as_str(), "pending"])).await;
        if count == json!(nonce) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing came into the pool");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reverted_settlement_leaves_its_place_to_the_next() {
    let house = house(BlockTime::Instant, |relayer, _, _| relayer.max_open = 1).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let selling = {
        let (engine, sale) = (house.engine.clone(), house.sale(1, LONG).0);
        tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
    };
    until_in_pool(&house, "0x1").await;
    let all = house.balance(&account(PAYER)).await;
    drain(&house, all - 1000 + 1).await;
    house.rpc("evm_mine", json!([])).await;
    let outcome = selling.await.expect("no panic");
    let SaleOutcome::SettlementFailed { payment, .. } = outcome else { panic!("{outcome:?}") };
    house.rpc("evm_setAutomine", json!([true])).await;
    let mut poor = house.sale(2, LONG).0;
    poor.terms.instruction = {
        // 999 atoms are left.
        let now = house.world.now();
        let token = Arc::new(Token::new(&usdc()).expect("an EVM token"));
        let asked = Requirement::new(token, &usdc().atoms(900), &account(PAYEE), PullMethod::Eip3009, LONG)
            .expect("a requirement");
        let unsigned = authorize(&asked, &account(PAYER), Nonce([9; 32]), LONG, now).expect("to sign");
        let presented = unsigned.signed(&key(PAYER).sign(unsigned.digest()), None);
        let checked = check(&asked, &presented, now, &Policy::default()).expect("good");
        (poor.key, poor.terms.money) = (checked.key(), checked.money().clone());
        checked.instruction()
    };
    let sold =
        tokio::time::timeout(Duration::from_secs(60), house.engine.sell(poor, Arc::new(Shop::default())));
    let outcome = sold.await.expect("the relayer has a place");
    assert!(matches!(outcome, SaleOutcome::Served { .. }), "{outcome:?}");
    let slots = house.store.slots_of(payment.id).await.expect("read");
    assert_eq!(slots[0].slot.state.name(), "included", "a restart has nothing to take up");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_is_offered_more_for_after_a_restart_is_still_the_refund() {
    // The chain must pass over what it was sent. Where it was quicker than we are, there is nothing to see: once more.
    for _ in 0..5 {
        if a_refund_is_offered_more_for().await {
            return;
        }
    }
    panic!("the chain took the first offer each time");
}

async fn a_refund_is_offered_more_for() -> bool {
    let house =
        house(BlockTime::Instant, |relayer, _, _| relayer.bump_after = Duration::from_secs(3600)).await;
    let payer = house.balance(&account(PAYER)).await;
    let outcome = house.engine.sell(house.sale(1, LONG).0, Arc::new(Shop::default())).await;
    let SaleOutcome::Served { payment, .. } = outcome else { panic!("{outcome:?}") };
    tokio::time::sleep(Duration::from_millis(50)).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let refunding = {
        let (engine, id) = (house.engine.clone(), payment.id);
        tokio::spawn(async move { engine.refund(id, &key(PAYEE)).await })
    };
    until_in_pool(&house, "0x2").await;
    refunding.abort();
    // The next process finds a chain that passes over what the first one sent.
    let relayer = Relayer::start(
        house.chain.clone(),
        Arc::new(LocalKey::new(key(RELAYER))),
        house.store.clone(),
        house.world.clone(),
        RelayerConfig { bump_after: Duration::from_millis(100), ..RelayerConfig::default() },
    )
    .expect("an EVM chain");
    let rail = EvmRail::new(
        relayer,
        house.store.clone(),
        house.world.clone(),
        Depths::default(),
        Registry::builtin(),
    )
    .beyond_reorgs(1);
    let rails: HashMap<_, Arc<dyn Rail>> = HashMap::from([(network(), Arc::new(rail) as Arc<dyn Rail>)]);
    let next = Engine::new(house.store.clone(), house.world.clone(), rails, EngineConfig::default());
    next.recover().await.expect("recovered");
    let mut raised = false;
    for _ in 0..1_200 {
        let slots = house.store.slots_of(payment.id).await.expect("read");
        let refund = slots.last().expect("a slot");
        for variant in &refund.slot.variants {
            house.rpc("anvil_dropTransaction", json!([variant.tx.as_str()])).await;
        }
        raised = refund.slot.variants.len() >= 3;
        if raised || house.payment(payment.id).await.state.name() != "refunding" {
            break;
        }
        house.pass_over().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if !raised {
        return false;
    }
    house.rpc("evm_setAutomine", json!([true])).await;
    for _ in 0..1_200 {
        house.rpc("evm_mine", json!([])).await;
        if house.payment(payment.id).await.state.name() == "refunded" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    house.until(payment.id, "refunded").await;
    assert_eq!(house.balance(&account(PAYER)).await, payer);
    let transfers = house.store.transfers_of(payment.id).await.expect("read");
    assert!(
        transfers.iter().any(|(id, ..)| id.purpose == farthing_ledger::Purpose::RefundGas),
        "what it cost is booked"
    );
    house.books_balance().await;
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_never_sent_is_sent_by_the_next_at_once() {
    // Nothing is given again for being passed over: what the next process sends, it sends since it starts.
    let house =
        house(BlockTime::Instant, |relayer, _, _| relayer.bump_after = Duration::from_secs(3600)).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let sold: Vec<_> = (1..=3)
        .map(|n| {
            let (engine, sale) = (house.engine.clone(), house.sale(n, LONG).0);
            tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
        })
        .collect();
    until_in_pool(&house, "0x3").await;
    let payments = house.store.unfinished(None, 10).await.expect("read");
    assert_eq!(payments.len(), 3);
    // As if it had been killed between each commit and its sending.
    for payment in &payments {
        let tx = payment.tx().expect("signed").as_str();
        house.rpc("anvil_dropTransaction", json!([tx])).await;
    }
    sold.iter().for_each(tokio::task::JoinHandle::abort);
    let relayer = Relayer::start(
        house.chain.clone(),
        Arc::new(LocalKey::new(key(RELAYER))),
        house.store.clone(),
        house.world.clone(),
        RelayerConfig { bump_after: Duration::from_secs(3600), ..RelayerConfig::default() },
    )
    .expect("an EVM chain");
    let (store, world) = (house.store.clone(), house.world.clone());
    let rail = EvmRail::new(relayer, store.clone(), world.clone(), Depths::default(), Registry::builtin());
    let rails: HashMap<_, Arc<dyn Rail>> = HashMap::from([(network(), Arc::new(rail) as Arc<dyn Rail>)]);
    let next = Engine::new(store, world, rails, EngineConfig::default());
    next.recover().await.expect("recovered");
    until_in_pool(&house, "0x3").await;
    house.rpc("evm_setAutomine", json!([true])).await;
    house.rpc("evm_mine", json!([])).await;
    for payment in &payments {
        house.until(payment.id, "settled").await;
        let slots = house.store.slots_of(payment.id).await.expect("read");
        assert_eq!(slots[0].slot.variants.len(), 1, "the same transaction, and no other");
    }
    house.books_balance().await;
}

impl House {
    async fn reorg(&self, depth: u64, transactions: &str) {
        self.rpc("farthing_reorg", json!([{"depth": depth, "transactions": transactions}])).await;
    }

    async fn mine(&self, blocks: u64) {
        for _ in 0..blocks {
            self.rpc("evm_mine", json!([])).await;
        }
    }

    /// Blocks go by until the payment is as wanted.
    async fn mine_until(&self, id: PaymentId, wanted: &str) -> Payment {
        for _ in 0..1_200 {
            if self.payment(id).await.state.name() == wanted {
                break;
            }
            self.mine(1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.until(id, wanted).await
    }

    async fn events(&self, id: PaymentId) -> Vec<String> {
        let history = self.store.history(id).await.expect("read");
        history.into_iter().map(|(_, event, _)| event).collect()
    }

    async fn variants(&self, id: PaymentId) -> usize {
        let slots = self.store.slots_of(id).await.expect("read");
        slots.iter().map(|stored| stored.slot.variants.len()).sum()
    }

    /// A new process over what this one left. What runs of the old one is that of a process that is not dead yet.
    async fn next_process(&self) -> Engine {
        let relayer = Relayer::start(
            self.chain.clone(),
            Arc::new(LocalKey::new(key(RELAYER))),
            self.store.clone(),
            self.world.clone(),
            RelayerConfig { bump_after: Duration::from_millis(300), ..RelayerConfig::default() },
        )
        .expect("an EVM chain");
        let (store, world) = (self.store.clone(), self.world.clone());
        let rail =
            EvmRail::new(relayer, store.clone(), world.clone(), Depths::default(), Registry::builtin())
                .beyond_reorgs(1);
        let rails: HashMap<_, Arc<dyn Rail>> = HashMap::from([(network(), Arc::new(rail) as Arc<dyn Rail>)]);
        let engine = Engine::new(store, world, rails, EngineConfig::default());
        engine.recover().await.expect("recovered");
        engine
    }

    /// Sells and waits until nothing of it is under way.
    async fn sold(&self, n: u64, validity: Duration) -> PaymentId {
        let outcome = self.engine.sell(self.sale(n, validity).0, Arc::new(Shop::default())).await;
        let SaleOutcome::Served { payment, .. } = outcome else { panic!("{outcome:?}") };
        for _ in 0..6_000 {
            if self.payment(payment.id).await.delivery == Delivery::Sent {
                return payment.id;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_its_transaction_a_lost_settlement_pays_once_in_the_end() {
    for (depth, transactions) in [(1, "remine"), (3, "remine"), (1, "pool"), (3, "pool"), (3, "drop")] {
        let house = house(BlockTime::Instant, |_, _, _| {}).await;
        let payee = house.balance(&account(PAYEE)).await;
        let id = house.sold(1, LONG).await;
        let first = house.payment(id).await;
        house.mine(depth - 1).await;
        house.engine.tend_once().await.expect("tended");
        assert_eq!(house.events(id).await.iter().filter(|event| *event == "reorged").count(), 0);
        house.reorg(depth, transactions).await;
        house.engine.tend_once().await.expect("tended");
        let payment = house.mine_until(id, "settled").await;
        let events = house.events(id).await;
        assert!(events.contains(&"reorged".to_owned()), "{depth} {transactions} {events:?}");
        assert_eq!(house.balance(&account(PAYEE)).await, payee + 1000, "{depth} {transactions}");
        let (State::Settled { proof: old, .. }, State::Settled { proof: new, .. }) =
            (&first.state, &payment.state)
        else {
            panic!("not settled");
        };
        assert_ne!(old.block_hash, new.block_hash);
        house.books_balance().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_of_one_lost_block_are_all_settled_again_with_the_transactions_they_had() {
    let house =
        house(BlockTime::Instant, |relayer, _, _| relayer.bump_after = Duration::from_secs(3600)).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let payee = house.balance(&account(PAYEE)).await;
    let sold: Vec<_> = (1..=3)
        .map(|n| {
            let (engine, sale) = (house.engine.clone(), house.sale(n, LONG).0);
            tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
        })
        .collect();
    until_in_pool(&house, "0x3").await;
    house.mine(1).await;
    let mut ids = Vec::new();
    for outcome in futures_util::future::join_all(sold).await {
        let SaleOutcome::Served { payment, .. } = outcome.expect("no panic") else { panic!("not served") };
        ids.push(payment.id);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    house.reorg(1, "drop").await;
    assert_eq!(house.balance(&account(PAYEE)).await, payee);
    house.engine.tend_once().await.expect("tended");
    until_in_pool(&house, "0x3").await;
    for id in &ids {
        house.mine_until(*id, "settled").await;
        assert_eq!(house.variants(*id).await, 1, "the same transaction, and no other");
    }
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 3000);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_settlement_whose_authorization_ended_meanwhile_is_a_loss_that_shows() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let payer = house.balance(&account(PAYER)).await;
    let id = house.sold(1, Duration::from_secs(30)).await;
    house.reorg(1, "drop").await;
    // Only the chain's clock passes the end: ours stays where it was.
    house.rpc("evm_increaseTime", json!([60])).await;
    house.mine(4).await;
    house.engine.tend_once().await.expect("tended");
    house.mine_until(id, "failed").await;
    assert_eq!(house.balance(&account(PAYER)).await, payer);
    let transfers = house.store.transfers_of(id).await.expect("read");
    let lost = transfers.iter().find(|(id, ..)| id.purpose == farthing_ledger::Purpose::WriteOff);
    assert_eq!(
        lost.map(|(_, money, phase)| (money.atoms(), *phase)),
        Some((1000, farthing_ledger::Phase::Posted))
    );
    let events = house.events(id).await;
    assert_eq!(events.last().map(String::as_str), Some("dead"), "{events:?}");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganization_while_nothing_ran_is_noticed_by_the_next_process() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let payee = house.balance(&account(PAYEE)).await;
    let id = house.sold(1, LONG).await;
    house.reorg(1, "drop").await;
    let next = house.next_process().await;
    next.tend_once().await.expect("tended");
    house.mine_until(id, "settled").await;
    assert!(house.events(id).await.contains(&"reorged".to_owned()));
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 1000);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_block_with_a_transaction_that_nobody_waits_for_holds_up_none_of_the_others() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    // The first reverts: its payer's money goes elsewhere before it.
    let failing = {
        let (engine, sale) = (house.engine.clone(), house.sale(1, LONG).0);
        tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
    };
    until_in_pool(&house, "0x1").await;
    let all = house.balance(&account(PAYER)).await;
    drain(&house, all).await;
    house.mine(1).await;
    let outcome = failing.await.expect("no panic");
    let SaleOutcome::SettlementFailed { payment: failed, .. } = outcome else { panic!("{outcome:?}") };
    house.rpc("evm_setAutomine", json!([true])).await;
    house.rpc("farthing_mintUsdc", json!([account(PAYER).as_str(), "0x2710"])).await;
    let payee = house.balance(&account(PAYEE)).await;
    let id = house.sold(2, LONG).await;
    // Both of our transactions are gone, the minted money with them.
    house.reorg(3, "drop").await;
    house.rpc("farthing_mintUsdc", json!([account(PAYER).as_str(), "0x2710"])).await;
    house.engine.tend_once().await.expect("tended");
    house.mine_until(id, "settled").await;
    // The payer's money never went elsewhere, now: what had failed pays as well, and is in the books.
    house.mine_until(failed.id, "settled").await;
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 2000);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_final_waits_for_the_chain_to_call_it_so() {
    for finality in [Finality::Safe, Finality::Finalized] {
        let config =
            DevnetConfig { block_time: BlockTime::Instant, finality_blocks: 4, ..DevnetConfig::default() };
        let house = house_on(config, |_, engine, depths| {
            depths.most = finality;
            engine.answer_within = Duration::from_millis(500);
        })
        .await;
        let (sale, _) = house.sale(1, LONG);
        let shop = Arc::new(Shop::default());
        let outcome = house.engine.sell(sale.clone(), shop.clone()).await;
        let SaleOutcome::Pending { payment, .. } = outcome else { panic!("{outcome:?}") };
        house.mine(3).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(house.payment(payment).await.state.name(), "confirming", "{finality}");
        // Taken away before it was final: nothing was served for it.
        house.reorg(4, "drop").await;
        house.mine_until(payment, "settled").await;
        let events = house.events(payment).await;
        assert!(events.contains(&"reorged".to_owned()), "{events:?}");
        let outcome = house.engine.sell(sale, shop.clone()).await;
        assert!(matches!(outcome, SaleOutcome::Served { .. }), "{outcome:?}");
        assert_eq!(shop.0.load(Ordering::SeqCst), 1);
        house.books_balance().await;
    }
}

/// An upstream that does something to the world before it answers.
struct Meddling<F>(F);

#[async_trait]
impl<F, T> Upstream for Meddling<F>
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = ()> + Send,
{
    async fn call(&self, payment: &Payment) -> UpstreamAnswer {
        (self.0)().await;
        Shop::default().call(payment).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_ends_between_claim_and_broadcast_is_refused_and_costs_no_gas() {
    let house = Arc::new(house(BlockTime::Instant, |_, _, _| {}).await);
    let payer = house.balance(&account(PAYER)).await;
    let meddling = {
        let house = house.clone();
        // Only the chain's clock passes the end: ours stays where it was.
        Meddling(move || {
            let house = house.clone();
            async move {
                house.rpc("evm_increaseTime", json!([60])).await;
                house.mine(1).await;
            }
        })
    };
    let outcome = house.engine.sell(house.sale(1, Duration::from_secs(30)).0, Arc::new(meddling)).await;
    assert!(matches!(outcome, SaleOutcome::Refused { .. }), "{outcome:?}");
    assert_eq!(house.chain.nonce(&account(RELAYER), true).await, Ok(0), "no gas was spent");
    assert_eq!(house.balance(&account(PAYER)).await, payer);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_clock_alone_ends_no_authorization_that_lives_on_the_chain() {
    let house = Arc::new(house(BlockTime::Instant, |_, _, _| {}).await);
    let payee = house.balance(&account(PAYEE)).await;
    let meddling = {
        let house = house.clone();
        Meddling(move || {
            house.world.ahead_ms.store(86_400_000, Ordering::SeqCst);
            std::future::ready(())
        })
    };
    let outcome = house.engine.sell(house.sale(1, LONG).0, Arc::new(meddling)).await;
    assert!(matches!(outcome, SaleOutcome::Served { .. }), "{outcome:?}");
    assert_eq!(house.balance(&account(PAYEE)).await, payee + 1000);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_ends_between_broadcast_and_inclusion_is_dead_by_the_chains_clock() {
    let house = house(BlockTime::Instant, |_, engine, _| {
        engine.answer_within = Duration::from_millis(200);
        engine.unclear_after = Duration::from_millis(100);
    })
    .await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let payer = house.balance(&account(PAYER)).await;
    let selling = {
        let (engine, sale) = (house.engine.clone(), house.sale(1, Duration::from_secs(30)).0);
        tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
    };
    until_in_pool(&house, "0x1").await;
    let SaleOutcome::Pending { payment, .. } = selling.await.expect("no panic") else {
        panic!("not pending")
    };
    // It comes into a block a moment too late, and reverts there. Our clock stays where it was.
    house.rpc("evm_increaseTime", json!([60])).await;
    house.mine(4).await;
    house.mine_until(payment, "failed").await;
    assert_eq!(house.balance(&account(PAYER)).await, payer);
    house.books_balance().await;
}

fn hex_bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

impl House {
    /// What the books have of gas, and what the relayer has spent.
    async fn gas(&self) -> (u128, u128) {
        let balances = self.store.balances(None).await.expect("read");
        let of_gas = balances.iter().filter(|(account, _)| account.kind == farthing_ledger::AccountKind::Gas);
        let booked = of_gas.map(|(_, balance)| balance.debits_posted - balance.credits_posted).sum();
        let left = self.chain.native_balance(&account(RELAYER)).await.expect("read");
        (booked, u128::from(farthing_devnet::DEV_ETHER) * 1_000_000_000_000_000_000 - left)
    }

    /// A sale whose transaction reverts, as its payer's money goes elsewhere before it.
    async fn reverted(&self, n: u64, validity: Duration) -> PaymentId {
        self.rpc("evm_setAutomine", json!([false])).await;
        let before = self.rpc("eth_getTransactionCount", json!([account(RELAYER).as_str(), "latest"])).await;
        let before = u64::from_str_radix(&before.as_str().expect("text")[2..], 16).expect("a number");
        let failing = {
            let (engine, sale) = (self.engine.clone(), self.sale(n, validity).0);
            tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
        };
        until_in_pool(self, &format!("{:#x}", before + 1)).await;
        let all = self.balance(&account(PAYER)).await;
        drain(self, all).await;
        self.mine(1).await;
        let outcome = failing.await.expect("no panic");
        let SaleOutcome::SettlementFailed { payment, .. } = outcome else { panic!("{outcome:?}") };
        self.rpc("evm_setAutomine", json!([true])).await;
        payment.id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gas_of_a_transaction_that_reverted_is_booked_once_when_it_is_deep_and_its_payment_failed() {
    let house = house_beyond(4).await;
    let id = house.reverted(1, Duration::from_secs(20)).await;
    house.engine.tend_once().await.expect("tended");
    assert_eq!(house.gas().await.0, 0, "neither deep, nor at its end");
    house.rpc("evm_increaseTime", json!([60])).await;
    house.mine_until(id, "failed").await;
    house.mine(4).await;
    for _ in 0..2 {
        house.engine.tend_once().await.expect("tended");
        let (booked, spent) = house.gas().await;
        assert!(spent > 0);
        assert_eq!(booked, spent);
    }
    let slots = house.store.slots_of(id).await.expect("read");
    assert_eq!(slots[0].slot.state.name(), "final");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gas_of_a_transaction_that_reverted_in_a_lost_block_is_that_of_the_block_that_took_its_place() {
    let house = house_beyond(4).await;
    let id = house.reverted(1, LONG).await;
    house.rpc("farthing_mintUsdc", json!([account(PAYER).as_str(), "0x2710"])).await;
    let sold = house.sold(2, LONG).await;
    // In the chain that takes the place of the lost blocks nothing keeps the payment from settling.
    house.reorg(3, "drop").await;
    house.rpc("farthing_mintUsdc", json!([account(PAYER).as_str(), "0x2710"])).await;
    house.engine.tend_once().await.expect("tended");
    house.mine_until(id, "settled").await;
    house.mine_until(sold, "settled").await;
    house.mine(4).await;
    house.engine.tend_once().await.expect("tended");
    let (booked, spent) = house.gas().await;
    assert_eq!(booked, spent);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_waits_until_no_reorganization_can_take_its_settlement_away() {
    let house = house_beyond(6).await;
    let payer = house.balance(&account(PAYER)).await;
    let id = house.sold(1, LONG).await;
    let early = house.engine.refund(id, &key(PAYEE)).await;
    assert_eq!(early, Err(RefundError::TooEarly(id)));
    assert_eq!(house.payment(id).await.state.name(), "settled");
    house.mine(5).await;
    let refunding = {
        let engine = house.engine.clone();
        tokio::spawn(async move { engine.refund(id, &key(PAYEE)).await })
    };
    house.until(id, "refunding").await;
    house.mine_until(id, "refunded").await;
    assert!(matches!(refunding.await.expect("no panic"), Ok(Refunded::Done { .. })));
    assert_eq!(house.balance(&account(PAYER)).await, payer);
    let (booked, spent) = house.gas().await;
    assert_eq!(booked, spent);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_is_reorganized_away_is_sent_again_and_pays_once() {
    for transactions in ["drop", "pool"] {
        let house = house_beyond(6).await;
        let payer = house.balance(&account(PAYER)).await;
        let id = house.sold(1, LONG).await;
        house.mine(5).await;
        let engine = house.engine.clone();
        tokio::spawn(async move { engine.refund(id, &key(PAYEE)).await });
        house.until(id, "refunding").await;
        until_balance(&house, payer).await;
        house.mine(1).await;
        // Seen in a block, and then not.
        tokio::time::sleep(Duration::from_millis(300)).await;
        house.reorg(2, transactions).await;
        if transactions == "drop" {
            assert_eq!(house.balance(&account(PAYER)).await, payer - 1000);
        }
        house.mine_until(id, "refunded").await;
        assert_eq!(house.balance(&account(PAYER)).await, payer);
        let State::Refunded { refund_proof, .. } = house.payment(id).await.state else { panic!("refunded") };
        let block = house.chain.head(Tag::Number(refund_proof.block)).await.expect("read").expect("there");
        assert_eq!(block.hash, refund_proof.block_hash);
        house.books_balance().await;
    }
}

async fn until_balance(house: &House, wanted: u128) {
    for _ in 0..6_000 {
        if house.balance(&account(PAYER)).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the payer does not have {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_reverted_is_sent_again_once_the_payee_can_pay() {
    let house = house_beyond(2).await;
    let payer = house.balance(&account(PAYER)).await;
    let id = house.sold(1, LONG).await;
    house.mine(2).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let engine = house.engine.clone();
    tokio::spawn(async move { engine.refund(id, &key(PAYEE)).await });
    until_in_pool(&house, "0x2").await;
    // All that the payee has goes elsewhere first.
    let all = house.balance(&account(PAYEE)).await;
    drain_of(&house, PAYEE, all).await;
    house.mine(4).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(house.payment(id).await.state.name(), "refunding", "its authorization lives");
    assert_eq!(house.balance(&account(PAYER)).await, payer - 1000);
    house.rpc("farthing_mintUsdc", json!([account(PAYEE).as_str(), "0x3e8"])).await;
    house.rpc("evm_setAutomine", json!([true])).await;
    house.mine_until(id, "refunded").await;
    assert_eq!(house.balance(&account(PAYER)).await, payer);
    assert!(house.events(id).await.contains(&"refund_replaced".to_owned()));
    house.mine(2).await;
    house.engine.tend_once().await.expect("tended");
    let (booked, spent) = house.gas().await;
    assert_eq!(booked, spent, "also what reverted");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_takes_up_the_slots_of_what_is_unfinished_and_no_others() {
    let house = house_beyond(2).await;
    for n in 0..5 {
        house.sold(n, LONG).await;
    }
    let (network, relayer) = (network(), account(RELAYER));
    let live = async || house.store.live_slots(&network, &relayer, 0, 99).await.expect("read").len();
    assert_eq!(live().await, 0, "settled by the commit that closes the slot");
    house.rpc("evm_setAutomine", json!([false])).await;
    let engine = house.engine.clone();
    let sale = house.sale(9, LONG).0;
    tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await });
    until_in_pool(&house, "0x6").await;
    let open = house.store.open_slots(&network, &relayer).await.expect("read");
    assert_eq!(open.iter().map(|stored| stored.slot.nonce).collect::<Vec<_>>(), [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_a_former_version_left_included_become_final_and_their_gas_is_booked_as_it_was() {
    let house = house_beyond(2).await;
    let id = house.sold(1, LONG).await;
    house.mine(2).await;
    let (booked, spent) = house.gas().await;
    assert_eq!(booked, spent);
    // As it was written before slots became final.
    let stored = house.store.slots_of(id).await.expect("read").remove(0);
    let State::Settled { proof, .. } = house.payment(id).await.state else { panic!("settled") };
    let (tx, block, block_hash) = (proof.tx, proof.block, proof.block_hash);
    let before = Slot { state: SlotState::Included { tx, block, block_hash }, ..stored.slot };
    house.store.save_slots(vec![(Some(stored.version), before)]).await.expect("saved");
    house.engine.tend_once().await.expect("tended");
    assert_eq!(house.store.slots_of(id).await.expect("read")[0].slot.state.name(), "final");
    assert_eq!(house.gas().await, (booked, spent));
    house.books_balance().await;
}

#[path = "on_chain/pushed.rs"]
mod pushed;
