//! The embedded chain with the escrow, a store, processes over both, and a buyer with a payer's own state machine.

// Each test uses some of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farthing_chain::{ChainConfig, LocalKey, RpcChain};
use farthing_channel::record::{decode_payer, encode_payer};
use farthing_channel::*;
use farthing_devnet::{BlockTime, DEV_ACCOUNTS, Devnet, DevnetConfig};
use farthing_engine::{
    Asked, Broadcast, Chain as _, ChannelStore, Closed, Depths, Desk, Fees, OpenBy, Opening, Relayer,
    RelayerConfig, RelayerKey as _, Seller, Started, StoredResponse, Till, TillConfig, TillError, TopUp,
    TopUpBy, TxHash, UnsignedTx, World as _,
};
use farthing_evm::escrow::{self, OnChain, Pull};
use farthing_evm::voucher::{ChannelParts, escrow_domain, top_up_nonce};
use farthing_evm::{B256, Domain, Key, TransferAuthorization, U256, from_alloy, to_alloy};
use farthing_ledger::AccountKind;
use farthing_payment::Instruction;
use farthing_primitives::*;
use farthing_store::{MemoryStore, SqliteStore};
use serde_json::{Value, json};

use super::fate::{Fate, MortalChain, MortalStore, Process};

pub const RELAYER: usize = 0;
pub const PAYER: usize = 1;
pub const PAYEE: usize = 2;
pub const STRANGER: usize = 5;

const CHAIN_ID: u64 = 84_532;
/// How often the till looks at a channel in these tests.
pub const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How long anything may take that is waited for.
const LONG: Duration = Duration::from_secs(20);

pub fn key(index: usize) -> Key {
    Key::from_bytes(DEV_ACCOUNTS[index].private_key.0).expect("a key")
}

pub fn account(index: usize) -> Address {
    from_alloy(key(index).address())
}

pub fn network() -> Network {
    Network::eip155(CHAIN_ID)
}

pub fn usdc() -> AssetId {
    Registry::builtin().dollar(&network()).expect("listed").id.clone()
}

pub fn escrow_address() -> farthing_evm::Address {
    deployment().address
}

fn deployment() -> farthing_devnet::Deployment {
    let artifact = farthing_devnet::payment_channel_escrow().expect("an artifact");
    artifact.deployment.expect("it can be deployed by anybody")
}

/// Nothing is given on credit, and a forced close is seen within [`LOOK_EVERY`].
pub fn limits() -> Limits {
    Limits {
        credit: 0,
        most_unsettled: None,
        min_deposit: 1000,
        margin: Duration::from_secs(900) - 3 * LOOK_EVERY,
        most_in_flight: 500,
        drain: Duration::from_millis(100),
        idle: None,
    }
}

pub fn price(atoms: u128) -> Price {
    Price::each(atoms, Unit::Request)
}

pub fn answer(body: &'static str) -> StoredResponse {
    StoredResponse {
        status: 200,
        headers: Vec::new(),
        body: Bytes::from_static(body.as_bytes()),
        trailers: Vec::new(),
    }
}

pub fn request(n: u64) -> RequestHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    RequestHash(bytes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Sqlite,
}

/// What outlives a process.
pub struct Yard {
    pub devnet: Devnet,
    pub store: Arc<dyn ChannelStore>,
    pub ahead_ms: Arc<AtomicU64>,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

/// How a process is set up.
pub struct Setup {
    pub payee: usize,
    pub depths: u64,
    pub beyond_reorgs: u64,
    pub trusted: [u8; 32],
    pub answer_within: Duration,
    pub answer_ttl: Duration,
    /// At which point it dies.
    pub dies_at: Option<i64>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            payee: PAYEE,
            depths: 1,
            beyond_reorgs: 1,
            trusted: deployment().runtime_code_hash.0,
            answer_within: LONG,
            answer_ttl: Duration::from_secs(600),
            dies_at: None,
        }
    }
}

/// One process of the seller's.
pub struct House {
    pub till: Till,
    pub seller: Seller,
    pub fate: Arc<Fate>,
    pub store: Arc<MortalStore>,
    pub died: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl House {
    /// Kills it.
    pub async fn stop(self) {
        self.fate.end().await;
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.fate.bury();
    }
}

pub async fn yard(kind: Kind) -> Yard {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = DevnetConfig { block_time: BlockTime::Instant, ..DevnetConfig::default() };
    let devnet = Devnet::start(config).await.expect("a devnet");
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn ChannelStore> = match kind {
        Kind::Memory => Arc::new(MemoryStore::new()),
        Kind::Sqlite => Arc::new(SqliteStore::open(&folder.path().join("farthing.db")).expect("a store")),
    };
    Yard { devnet, store, ahead_ms: Arc::default(), http: reqwest::Client::new(), _folder: folder }
}

impl Yard {
    /// The same chain, with what another store holds.
    pub fn with_store_of(self, other: &Self) -> Self {
        Self { store: other.store.clone(), ..self }
    }

    /// Starts a process over what former ones left.
    pub async fn house(&self, setup: Setup) -> House {
        let (fate, died) = Fate::at_point(setup.dies_at);
        let world = Process::new(fate.clone(), self.ahead_ms.clone());
        let chain = Arc::new(MortalChain { inner: self.rpc_chain(), fate: fate.clone() });
        let store = Arc::new(MortalStore {
            inner: self.store.clone(),
            fate: fate.clone(),
            doubtful: AtomicI64::new(0),
        });
        let relayer = Relayer::start(
            chain.clone(),
            Arc::new(LocalKey::new(key(RELAYER))),
            store.clone(),
            world.clone(),
            RelayerConfig { bump_after: Duration::from_millis(300), ..RelayerConfig::default() },
        )
        .expect("an EVM chain");
        let payees = if setup.payee == RELAYER { Vec::new() } else { vec![key(setup.payee)] };
        let desk = Desk::new(relayer, Depths::blocks(setup.depths), payees).expect("an EVM chain");
        let config = TillConfig {
            escrow_code: vec![setup.trusted],
            answer_within: setup.answer_within,
            answer_ttl: setup.answer_ttl,
            beyond_reorgs: setup.beyond_reorgs,
            ..TillConfig::default()
        };
        let till = Till::start(store.clone(), world, HashMap::from([(network(), desk)]), config);
        let till = till.await.expect("started");
        let seller = Seller { tenant: TenantId::local(), payee: account(setup.payee), asset: usdc() };
        House { till, seller, fate, store, died: Some(died) }
    }

    pub fn rpc_chain(&self) -> Arc<RpcChain> {
        let mut config = ChainConfig::new(network(), vec![self.devnet.rpc_url().parse().expect("a URL")]);
        config.block_time = Some(Duration::from_millis(20));
        config.poll_interval = Some(Duration::from_millis(20));
        Arc::new(RpcChain::new(config).expect("a chain"))
    }

    pub async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self.http.post(self.devnet.rpc_url()).json(&body).send().await.expect("sent");
        let answer: Value = answer.json().await.expect("JSON");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    pub async fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")])).await;
    }

    pub async fn reorg(&self, depth: u64, transactions: &str) {
        self.rpc("farthing_reorg", json!([{"depth": depth, "transactions": transactions}])).await;
    }

    /// Moves the clocks of the chain and of all processes.
    pub async fn pass(&self, time: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(time.as_millis()).expect("short"), Ordering::SeqCst);
        self.rpc("evm_increaseTime", json!([time.as_secs()])).await;
        self.mine(1).await;
    }

    async fn call(&self, to: &str, data: &[u8]) -> Vec<u8> {
        let data = farthing_evm::Bytes::copy_from_slice(data).to_string();
        let result = self.rpc("eth_call", json!([{"to": to, "data": data}, "latest"])).await;
        result.as_str().expect("text").parse::<farthing_evm::Bytes>().expect("hex").to_vec()
    }

    pub async fn balance(&self, address: &str) -> u128 {
        let data: farthing_evm::Bytes =
            format!("0x70a08231{:0>64}", &address.to_lowercase()[2..]).parse().expect("hex");
        let word = self.call(usdc().address().as_str(), &data).await;
        u128::try_from(U256::from_be_slice(&word)).expect("small")
    }

    pub async fn balance_of(&self, index: usize) -> u128 {
        self.balance(account(index).as_str()).await
    }

    pub async fn escrowed(&self) -> u128 {
        self.balance(&escrow_address().to_string()).await
    }

    pub async fn on_chain(&self, id: ChannelId) -> Option<OnChain> {
        let data = escrow::get_channel(B256::from(id.0));
        let found = escrow::as_channel(&self.call(&escrow_address().to_string(), &data).await);
        Some(found.expect("a channel")).filter(OnChain::exists)
    }

    /// How many transactions of this account are in blocks.
    pub async fn sent_by(&self, index: usize) -> u64 {
        let count = self.rpc("eth_getTransactionCount", json!([account(index).as_str(), "latest"])).await;
        u64::from_str_radix(&count.as_str().expect("text")[2..], 16).expect("a number")
    }

    pub async fn wei(&self, index: usize) -> u128 {
        let wei = self.rpc("eth_getBalance", json!([account(index).as_str(), "latest"])).await;
        u128::from_str_radix(&wei.as_str().expect("text")[2..], 16).expect("a number")
    }

    /// Somebody's own call of the escrow or the token, in a block or in the pool.
    pub async fn send(&self, from: usize, to: farthing_evm::Address, data: Vec<u8>) -> TxHash {
        let max_fee = 90_000_000_000;
        let nonce = self.sent_by(from).await;
        let tx = LocalKey::new(key(from)).sign(&UnsignedTx {
            chain_id: CHAIN_ID,
            nonce,
            to: from_alloy(to),
            data: data.into(),
            gas: 400_000,
            fees: Fees { max_fee, priority_fee: max_fee / 2 },
        });
        assert_eq!(self.rpc_chain().broadcast(&tx).await, Broadcast::Accepted);
        tx.hash
    }

    pub async fn sound(&self) {
        assert_eq!(self.store.check_books().await.expect("checked").problems, Vec::<String>::new());
    }

    pub async fn payee(&self, id: ChannelId) -> Payee {
        self.store.channel(id).await.expect("read").expect("there")
    }

    /// (debits, credits) posted to this account.
    pub async fn book(&self, kind: AccountKind) -> (u128, u128) {
        let balances = self.store.balances(None).await.expect("read");
        let of = balances.iter().filter(|(account, _)| account.kind == kind);
        of.fold((0, 0), |(d, c), (_, b)| (d + b.debits_posted, c + b.credits_posted))
    }

    /// Nothing is set aside for anything that is not running.
    pub async fn nothing_pends(&self) {
        for (account, balance) in self.store.balances(None).await.expect("read") {
            assert_eq!((balance.debits_pending, balance.credits_pending), (0, 0), "{account:?}");
        }
    }

    /// Waits until a channel is as wanted.
    pub async fn until(&self, id: ChannelId, what: &str, wanted: impl Fn(&Payee) -> bool) -> Payee {
        for _ in 0..LONG.as_millis() / 10 {
            let payee = self.store.channel(id).await.expect("read");
            if let Some(payee) = payee.as_ref().filter(|payee| wanted(payee)) {
                return payee.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", self.store.channel(id).await);
    }

    /// Waits until all that our transactions cost is in the books, and compares.
    pub async fn gas_is_booked(&self, before: u128) {
        let mut seen = Vec::new();
        for _ in 0..LONG.as_millis() / 10 {
            let spent = before - self.wei(RELAYER).await;
            let (debit, credit) = self.book(AccountKind::Gas).await;
            if debit - credit == spent {
                return;
            }
            seen = vec![debit, credit, spent];
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("booked and taken back, spent: {seen:?}");
    }
}

/// A buyer with one channel. Its state is what it last wrote to its disk.
pub struct Buyer {
    pub parts: ChannelParts,
    pub payer: Payer,
    disk: Vec<u8>,
    key: Key,
}

impl Buyer {
    pub fn new(yard: &Yard, payee: usize, salt: u8, deposit: u128) -> Self {
        let key = key(PAYER);
        let parts = ChannelParts {
            payer: key.address(),
            payee: self::key(payee).address(),
            token: to_alloy(usdc().address()).expect("an address"),
            salt: B256::repeat_byte(salt),
            authorized_signer: farthing_evm::Address::ZERO,
            escrow: escrow_address(),
            chain_id: CHAIN_ID,
        };
        let terms = Terms {
            id: ChannelId(parts.id().0),
            payer: from_alloy(parts.payer),
            payee: from_alloy(parts.payee),
            signer: from_alloy(parts.voucher_signer()),
            asset: usdc(),
            escrow: from_alloy(parts.escrow),
            grace: Duration::from_secs(900),
            capture: Capture::Signed,
            instruction: Instruction::new(Vec::new()),
        };
        let budget = Budget {
            most_deposit: 1_000_000,
            most_price: Price::new(5_000, NonZeroU64::MIN, Unit::Request),
            ahead: 6_000,
            trust: 0,
            patience: Duration::from_secs(60),
            slack: Duration::from_secs(60),
        };
        let attempt = AttemptId::new(now(yard), [salt; 10]);
        let payer = Payer::open(terms, budget, attempt, deposit, now(yard)).expect("within the budget");
        Self { parts, disk: encode_payer(&payer), payer, key }
    }

    pub fn id(&self) -> ChannelId {
        ChannelId(self.parts.id().0)
    }

    /// Durable first, as everything that the payer decides.
    pub fn step(&mut self, yard: &Yard, event: PayerEvent) {
        let next = self.payer.step(event, now(yard)).expect("allowed").next;
        self.disk = encode_payer(&next);
        self.payer = decode_payer(&self.disk).expect("what was written");
    }

    /// The buyer looks at the escrow.
    pub async fn look(&mut self, yard: &Yard) {
        let found = yard.on_chain(self.id()).await;
        let view = found.map(|found| View {
            block: 0,
            deposit: found.deposit,
            settled: found.settled,
            close_requested: (found.close_requested_at > 0)
                .then(|| Timestamp::from_secs(found.close_requested_at)),
            finalized: found.finalized,
        });
        self.step(yard, PayerEvent::Seen { view, deep: true });
    }

    /// Signs what was never signed before only once that is durable.
    pub fn raise(&mut self, yard: &Yard, to: u128) -> Vec<u8> {
        self.step(yard, PayerEvent::Raised { to });
        self.sign(to)
    }

    /// Signs whatever it is, as a key does that nobody watches.
    pub fn sign(&self, cumulative: u128) -> Vec<u8> {
        self.sign_as(&self.key, self.parts.id(), cumulative, self.parts.escrow)
    }

    pub fn sign_as(
        &self,
        key: &Key,
        channel: B256,
        cumulative: u128,
        escrow: farthing_evm::Address,
    ) -> Vec<u8> {
        let voucher = farthing_evm::voucher::Voucher { channel, cumulative };
        key.sign(voucher.digest(&escrow_domain(CHAIN_ID, escrow))).to_bytes().to_vec()
    }

    pub fn shown<'a>(&self, cumulative: u128, signature: &'a [u8]) -> Shown<'a> {
        Shown { channel: self.id(), cumulative, signature, min_delta: 0 }
    }

    /// What lets the escrow, and nobody else, take this from the payer.
    pub fn pull(&self, atoms: u128, nonce: B256) -> Pull {
        self.pull_of(&self.key, atoms, nonce)
    }

    pub fn pull_of(&self, from: &Key, atoms: u128, nonce: B256) -> Pull {
        let valid_before = U256::from(u64::MAX);
        let allowed = TransferAuthorization {
            from: from.address(),
            to: self.parts.escrow,
            value: U256::from(atoms),
            valid_after: U256::ZERO,
            valid_before,
            nonce,
        };
        let domain = Domain::new("USDC", "2", CHAIN_ID, self.parts.token);
        let signature = from.sign(allowed.receive_digest(&domain)).to_bytes().to_vec().into();
        Pull::Authorization { valid_after: U256::ZERO, valid_before, nonce, signature }
    }

    pub fn by_pull(&self, deposit: u128) -> OpenBy {
        OpenBy::Pull { deposit, pull: self.pull(deposit, self.parts.open_nonce()) }
    }

    /// The same opening, however often it is asked for. The voucher that comes along is for nothing.
    pub fn opening<'a>(&self, house: &'a House, by: OpenBy, first: &'a [u8]) -> Opening<'a> {
        Opening {
            seller: &house.seller,
            escrow: from_alloy(self.parts.escrow),
            limits: limits(),
            payer: from_alloy(self.parts.payer),
            salt: self.parts.salt.0,
            authorized_signer: None,
            shown: self.shown(0, first),
            by,
        }
    }

    pub async fn open(&mut self, yard: &Yard, house: &House, deposit: u128) -> Result<Receipt, TillError> {
        self.open_with(yard, house, deposit, limits()).await
    }

    pub async fn open_with(
        &mut self,
        yard: &Yard,
        house: &House,
        deposit: u128,
        limits: Limits,
    ) -> Result<Receipt, TillError> {
        let first = self.sign(0);
        let opening = Opening { limits, ..self.opening(house, self.by_pull(deposit), &first) };
        let receipt = house.till.open(&opening).await?;
        self.look(yard).await;
        self.step(yard, PayerEvent::Told(receipt));
        Ok(receipt)
    }

    /// What tops the channel up, with what was signed for it: the same each time.
    pub fn top_up<'a>(&self, house: &'a House, additional: u128) -> TopUp<'a> {
        let (salt, from) = ([0; 32], self.parts.payer);
        let nonce = top_up_nonce(self.parts.id(), additional, from, B256::from(salt));
        let by = TopUpBy::Pull { from: from_alloy(from), salt, pull: self.pull(additional, nonce) };
        TopUp { seller: &house.seller, channel: self.id(), additional, by }
    }

    pub async fn voucher(&mut self, yard: &Yard, house: &House, to: u128) -> Result<Receipt, TillError> {
        let signature = self.raise(yard, to);
        house.till.voucher(&house.seller, &self.shown(to, &signature)).await
    }

    pub fn asked<'a>(
        &self,
        house: &'a House,
        shown: Shown<'a>,
        n: u64,
        price: Price,
        most_units: Option<u64>,
    ) -> Asked<'a> {
        Asked { seller: &house.seller, shown, request: request(n), price, most_units }
    }

    /// One request, served at once for `atoms`. Returns the answer and the receipt.
    pub async fn buy(
        &mut self,
        yard: &Yard,
        house: &House,
        n: u64,
        atoms: u128,
    ) -> Result<(StoredResponse, Receipt), TillError> {
        let signature = self.sign(self.payer.signed());
        let shown = self.shown(self.payer.signed(), &signature);
        match house.till.start_charge(&self.asked(house, shown, n, price(atoms), Some(1))).await? {
            Started::Serve(ticket) => {
                let receipt = ticket.finish(1, answer("goods")).await?;
                // It is durable before it is delivered.
                assert!(yard.payee(self.id()).await.spent() >= receipt.spent);
                Ok((answer("goods"), receipt))
            }
            Started::Again { answer, receipt, .. } => Ok((answer, receipt)),
        }
    }

    pub async fn close(&mut self, house: &House) -> Result<Closed, TillError> {
        let amount = self.payer.closing_amount();
        let signature = self.sign(amount);
        house.till.close(&house.seller, &self.shown(amount, &signature)).await
    }
}

pub fn now(yard: &Yard) -> Timestamp {
    Process::new(Fate::at_point(None).0, yard.ahead_ms.clone()).now()
}
