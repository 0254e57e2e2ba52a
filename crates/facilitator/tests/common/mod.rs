//! A facilitator over the real engine, rail and relayer, on a chain that does what the test says.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use farthing_engine::*;
use farthing_evm::{
    Address as Raw, AuthorizationUsed, B256, Key, Log, Read, ReadResult, Transfer, U256, from_alloy, to_alloy,
};
use farthing_facilitator::Facilitator;
use farthing_facilitator::*;
use farthing_primitives::{Address, Money, Network, PullMethod, Registry, Timestamp};
use farthing_rails::exact_evm::{Presented, Requirement, Token, buy};
use farthing_rails::x402::{self, Extras, Resource};
use farthing_store::MemoryStore;
use farthing_wire::x402::Message;
use farthing_wire::x402::facilitator::PaymentRequest;
use farthing_wire::{Json, json};
use http::{Request, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tower::ServiceExt;

pub const START: u64 = 1_800_000_000;
pub const PRICE: u128 = 1000;
/// How long a payment is valid.
pub const VALID: Duration = Duration::from_secs(300);
pub const BLOCK: Duration = Duration::from_secs(2);

/// The runtime's clock, which is paused.
pub struct TestWorld {
    began: Instant,
    seed: AtomicU64,
}

impl World for TestWorld {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(START).plus(self.began.elapsed())
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(100) + self.began.elapsed()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
    fn random(&self, into: &mut [u8]) {
        let digest = Sha256::digest(self.seed.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        into.iter_mut().zip(digest.iter().cycle()).for_each(|(byte, d)| *byte = *d);
    }
}

/// What the chain does.
#[derive(Default)]
pub struct Script {
    pub balances: HashMap<Raw, u128>,
    pub used: HashSet<(Raw, B256)>,
    pub wallets: HashSet<Raw>,
    pub down: bool,
    /// Transactions stay in the pool.
    pub stuck: bool,
    /// The token returns where it should revert, and moves nothing.
    pub silent: bool,
    pub gas: Option<u64>,
    /// The payer's balance is gone by the time a transaction runs.
    pub drain: bool,
    /// Somebody else submits the same authorization first.
    pub front_run: bool,
    pub reads: usize,
    pub broadcasts: Vec<TxHash>,
    pool: Vec<SignedTx>,
    receipts: HashMap<TxHash, Receipt>,
    head: u64,
    /// Transfers that happened.
    pub transfers: usize,
}

pub struct FakeChain {
    network: Network,
    began: Instant,
    script: Mutex<Script>,
}

impl FakeChain {
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("whole")
    }

    fn up(&self) -> Result<MutexGuard<'_, Script>, ChainError> {
        let script = self.script();
        if script.down { Err(ChainError::Down(self.network.clone())) } else { Ok(script) }
    }

    pub fn unstick(&self) {
        let mut script = self.script();
        script.stuck = false;
        for tx in std::mem::take(&mut script.pool) {
            script.mine(&tx);
        }
    }
}

fn word(data: &[u8], at: usize) -> U256 {
    U256::from_be_slice(&data[4 + 32 * at..4 + 32 * (at + 1)])
}

fn account(data: &[u8], at: usize) -> Raw {
    Raw::from_slice(&data[4 + 32 * at + 12..4 + 32 * (at + 1)])
}

fn uint(value: U256) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes::<32>())
}

const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];
const AUTHORIZATION_STATE: [u8; 4] = [0xe9, 0x4a, 0x01, 0x02];
const IS_VALID_SIGNATURE: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];

impl Script {
    fn read(&self, read: &Read) -> ReadResult {
        let data = &read.data[..];
        match data[..4].try_into().expect("a selector") {
            BALANCE_OF => {
                let balance = self.balances.get(&account(data, 0)).copied().unwrap_or(0);
                ReadResult::Returned(uint(U256::from(balance)).into())
            }
            AUTHORIZATION_STATE => {
                let used = self.used.contains(&(account(data, 0), word(data, 1).into()));
                ReadResult::Returned(uint(U256::from(u8::from(used))).into())
            }
            IS_VALID_SIGNATURE if self.wallets.contains(&read.to) => {
                let mut magic = [0u8; 32];
                magic[..4].copy_from_slice(&IS_VALID_SIGNATURE);
                ReadResult::Returned(Bytes::copy_from_slice(&magic).into())
            }
            IS_VALID_SIGNATURE => ReadResult::Returned(Bytes::new().into()),
            _ if self.would_revert(data) => ReadResult::Reverted(Bytes::new().into()),
            _ => ReadResult::Returned(Bytes::new().into()),
        }
    }

    /// Whether `transferWithAuthorization` would fail now.
    fn would_revert(&self, data: &[u8]) -> bool {
        let (from, value, nonce) = (account(data, 0), word(data, 2), word(data, 5));
        let balance = self.balances.get(&from).copied().unwrap_or(0);
        self.used.contains(&(from, nonce.into())) || U256::from(balance) < value
    }

    fn mine(&mut self, tx: &SignedTx) {
        // As the test's key writes it: nonce, receiver, call.
        let data = tx.raw.slice(28..);
        let token = Raw::from_slice(&tx.raw[8..28]);
        if data.is_empty() {
            return self.include(tx.hash, true, Vec::new());
        }
        if self.drain {
            self.balances.insert(account(&data, 0), 0);
        }
        if self.front_run {
            self.front_run = false;
            let theirs = TxHash([0xfe; 32]);
            let logs = self.transfer(token, &data);
            self.include(theirs, true, logs);
        }
        if self.would_revert(&data) {
            return self.include(tx.hash, false, Vec::new());
        }
        let logs = if self.silent { Vec::new() } else { self.transfer(token, &data) };
        self.include(tx.hash, true, logs);
    }

    fn transfer(&mut self, token: Raw, data: &[u8]) -> Vec<Log> {
        let (from, to, value, nonce) = (account(data, 0), account(data, 1), word(data, 2), word(data, 5));
        let atoms = u128::try_from(value).expect("small");
        *self.balances.entry(from).or_default() -= atoms;
        *self.balances.entry(to).or_default() += atoms;
        self.used.insert((from, nonce.into()));
        self.transfers += 1;
        let log = |topics, data: Bytes, index| Log { address: token, topics, data: data.into(), index };
        vec![
            log(vec![AuthorizationUsed::TOPIC, from.into_word(), nonce.into()], Bytes::new(), 0),
            log(vec![Transfer::TOPIC, from.into_word(), to.into_word()], uint(value), 1),
        ]
    }

    fn include(&mut self, tx: TxHash, success: bool, logs: Vec<Log>) {
        self.head += 1;
        let block_hash = block_hash(self.head);
        let receipt =
            Receipt { tx, success, block: self.head, block_hash, gas_used: 80_000, gas_price: 10, logs };
        self.receipts.insert(tx, receipt);
    }
}

fn block_hash(number: u64) -> [u8; 32] {
    Sha256::digest(number.to_be_bytes()).into()
}

#[async_trait]
impl Chain for FakeChain {
    fn network(&self) -> &Network {
        &self.network
    }
    fn block_time(&self) -> Duration {
        BLOCK
    }
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<ReadResult>, ChainError> {
        tokio::task::yield_now().await;
        let mut script = self.up()?;
        script.reads += 1;
        Ok(reads.iter().map(|read| script.read(read)).collect())
    }
    async fn read_at(&self, reads: Vec<Read>, _: Tag) -> Result<Vec<ReadResult>, ChainError> {
        self.read(reads).await
    }
    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError> {
        let head = self.up()?.head;
        let number = if let Tag::Number(number) = at { number } else { head };
        let timestamp = Timestamp::from_secs(START).plus(self.began.elapsed());
        let parent = block_hash(number.saturating_sub(1));
        let found = Head { number, hash: block_hash(number), parent, timestamp, base_fee: 5 };
        Ok((number <= head).then_some(found))
    }
    async fn next_head(&self, seen: Option<Head>, patience: Duration) -> Result<Head, ChainError> {
        let head = self.head(Tag::Latest).await?.expect("a head");
        if seen == Some(head) || seen.is_some_and(|seen| seen.number == head.number) {
            tokio::time::sleep(patience).await;
        }
        Ok(self.head(Tag::Latest).await?.expect("a head"))
    }
    async fn receipts(&self, txs: Vec<TxHash>) -> Result<Vec<Option<Receipt>>, ChainError> {
        let script = self.up()?;
        Ok(txs.iter().map(|tx| script.receipts.get(tx).cloned()).collect())
    }
    async fn nonce(&self, _: &Address, _: bool) -> Result<u64, ChainError> {
        Ok(self.up()?.receipts.len() as u64)
    }
    async fn native_balance(&self, _: &Address) -> Result<u128, ChainError> {
        self.up().map(|_| 7_000)
    }
    async fn fees(&self) -> Result<Fees, ChainError> {
        self.up().map(|_| Fees { max_fee: 10, priority_fee: 1 })
    }
    async fn estimate_gas(
        &self,
        _: &Address,
        _: &Address,
        data: Bytes,
    ) -> Result<Result<u64, Bytes>, ChainError> {
        let script = self.up()?;
        if script.would_revert(&data) {
            return Ok(Err(Bytes::new()));
        }
        Ok(Ok(script.gas.unwrap_or(90_000)))
    }
    async fn broadcast(&self, tx: &SignedTx) -> Broadcast {
        let Ok(mut script) = self.up() else { return Broadcast::Ambiguous("down".to_owned()) };
        if script.broadcasts.contains(&tx.hash) {
            return Broadcast::Accepted;
        }
        script.broadcasts.push(tx.hash);
        if script.stuck {
            script.pool.push(tx.clone())
        } else {
            script.mine(tx)
        }
        Broadcast::Accepted
    }
    async fn logs(&self, filter: LogFilter) -> Result<Vec<(TxHash, Log)>, ChainError> {
        let script = self.up()?;
        let matches = |log: &Log| {
            let topics = filter.topics.iter().zip(&log.topics);
            topics.into_iter().all(|(wanted, topic)| wanted.is_none_or(|wanted| wanted == topic.0))
        };
        let all = script.receipts.values().flat_map(|r| r.logs.iter().map(move |log| (r.tx, log.clone())));
        Ok(all.filter(|(_, log)| matches(log)).collect())
    }
}

struct TestKey;

impl RelayerKey for TestKey {
    fn address(&self) -> Address {
        Address::from_evm_bytes([0xaa; 20])
    }
    fn sign(&self, tx: &UnsignedTx) -> SignedTx {
        let to = to_alloy(&tx.to).expect("evm");
        let raw = [&tx.nonce.to_be_bytes()[..], to.as_slice(), &tx.data[..]].concat();
        let hash = Sha256::new().chain_update(&raw).chain_update(tx.fees.max_fee.to_be_bytes()).finalize();
        SignedTx { hash: TxHash(hash.into()), raw: raw.into() }
    }
}

pub fn network() -> Network {
    Network::eip155(84532)
}

pub struct Bench {
    pub chain: Arc<FakeChain>,
    pub store: Arc<MemoryStore>,
    pub service: Facilitator,
}

pub fn bench() -> Bench {
    bench_with(FacilitatorConfig::default())
}

pub fn bench_with(config: FacilitatorConfig) -> Bench {
    let began = Instant::now();
    let script = Script { head: 1, ..Script::default() };
    let chain = Arc::new(FakeChain { network: network(), began, script: Mutex::new(script) });
    bench_on(chain, Arc::new(MemoryStore::new()), 1, config)
}

impl Bench {
    /// Another process, on the same chain and the same books.
    pub async fn restarted(&self, config: FacilitatorConfig) -> Self {
        let bench = bench_on(self.chain.clone(), self.store.clone(), OTHER_SEED, config);
        bench.service.engine().recover().await.expect("the store answers");
        bench.service.recall_spending().await.expect("the store answers");
        bench
    }
}

/// Far enough from 1 that two processes give nothing the same name.
const OTHER_SEED: u64 = 1 << 32;

fn bench_on(chain: Arc<FakeChain>, store: Arc<MemoryStore>, seed: u64, config: FacilitatorConfig) -> Bench {
    let world: Arc<dyn World> = Arc::new(TestWorld { began: chain.began, seed: AtomicU64::new(seed) });
    let relayer = Relayer::start(
        chain.clone(),
        Arc::new(TestKey),
        store.clone(),
        world.clone(),
        RelayerConfig::default(),
    )
    .expect("an EVM chain");
    let registry = Registry::builtin();
    let rail = EvmRail::new(relayer, store.clone(), world.clone(), Depths::default(), registry.clone());
    let rails: HashMap<_, Arc<dyn Rail>> = HashMap::from([(network(), Arc::new(rail) as Arc<dyn Rail>)]);
    let engine = Engine::new(store.clone(), world, rails, EngineConfig::default());
    let served = ServedNetwork { chain: chain.clone(), relayers: vec![TestKey.address()], tokens: None };
    let service = Facilitator::new(engine, vec![served], &registry, config).expect("set up");
    Bench { chain, store, service }
}

/// What a seller asks for, and a payment of it.
pub struct Shop {
    pub requirement: Requirement,
    pub key: Key,
}

pub fn shop() -> Shop {
    let registry = Registry::builtin();
    let usdc = registry.dollar(&network()).expect("listed");
    Shop { requirement: requirement(usdc.atoms(PRICE), PAYEE), key: Key::from_bytes([7; 32]).expect("a key") }
}

pub const PAYEE: [u8; 20] = [0xbb; 20];

pub fn requirement(price: Money, payee: [u8; 20]) -> Requirement {
    let registry = Registry::builtin();
    let token = Arc::new(Token::new(registry.get(price.asset()).expect("listed")).expect("a token"));
    let payee = Address::from_evm_bytes(payee);
    Requirement::new(token, &price, &payee, PullMethod::Eip3009, VALID).expect("fits")
}

impl Shop {
    pub fn payer(&self) -> Raw {
        self.key.address()
    }

    pub fn present(&self, nonce: u8) -> Presented {
        let now = Timestamp::from_secs(START);
        let payer = from_alloy(self.payer());
        let nonce = buy::Nonce([nonce; 32]);
        let unsigned = buy::authorize(&self.requirement, &payer, nonce, VALID, now).expect("valid");
        unsigned.signed(&self.key.sign(unsigned.digest()), None)
    }

    pub fn v2(&self, nonce: u8) -> String {
        self.v2_of(&self.present(nonce))
    }

    pub fn v2_of(&self, presented: &Presented) -> String {
        let requirements = x402::offer_v2(&self.requirement, Extras::default());
        let payload = x402::payment_v2(&requirements, presented, None, None).expect("fits");
        PaymentRequest::V2 { payload, requirements }.print()
    }

    pub fn v1(&self, nonce: u8) -> String {
        let resource = Resource { url: "https://a.example/w?secret=1", description: "", mime_type: "" };
        let requirements = x402::offer_v1(&self.requirement, resource).expect("has a name");
        let payload = x402::payment_v1(&requirements, &self.present(nonce)).expect("fits");
        PaymentRequest::V1 { payload, requirements }.print()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub status: StatusCode,
    pub retry_after: Option<u64>,
    pub text: String,
}

impl Said {
    pub fn get(&self, key: &str) -> Option<Json> {
        let parsed =
            json::parse(self.text.as_bytes(), farthing_wire::x402::header::BODY_LIMITS).expect("JSON");
        parsed.as_object().expect("an object").get(key).cloned()
    }

    pub fn text_of(&self, key: &str) -> String {
        self.get(key)
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_else(|| "(none)".to_owned())
    }

    pub fn is(&self, key: &str) -> bool {
        self.get(key).and_then(|value| value.as_bool()).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }
}

impl Bench {
    pub fn fund(&self, shop: &Shop, atoms: u128) {
        self.chain.script().balances.insert(shop.payer(), atoms);
    }

    pub async fn ask(&self, path: &str, body: impl Into<Body>) -> Said {
        self.ask_with(path, body, None).await
    }

    pub async fn ask_with(&self, path: &str, body: impl Into<Body>, key: Option<&str>) -> Said {
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.send(request.body(body.into()).expect("a request")).await
    }

    pub async fn get(&self, path: &str) -> Said {
        self.send(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub async fn send(&self, request: Request<Body>) -> Said {
        let response = router(self.service.clone()).oneshot(request).await.expect("answers");
        let status = response.status();
        let retry_after = response
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().expect("text").parse().expect("seconds"));
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        Said { status, retry_after, text: String::from_utf8(body.to_vec()).expect("text") }
    }

    pub async fn payments(&self) -> usize {
        let filter = PaymentFilter { limit: 1000, ..PaymentFilter::default() };
        self.store.payments(filter).await.expect("read").len()
    }
}
