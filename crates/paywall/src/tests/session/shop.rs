//! A shop that sells by the unit, on the embedded chain: the real till, store, relayer and escrow; and a buyer with a key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use farthing_chain::{ChainConfig, LocalKey, RpcChain};
use farthing_channel::{ChannelId, Limits as Risk, Payee, Price, Unit};
use farthing_devnet::{BlockTime, DEV_ACCOUNTS, Devnet, DevnetConfig, payment_channel_escrow};
use farthing_engine::{
    BoxFuture, ChannelFilter, ChannelStore, Depths, Desk, Relayer, RelayerConfig, Store, Till, TillConfig,
    World,
};
use farthing_evm::voucher::{self, ChannelParts};
use farthing_evm::{B256, Domain, Key, TransferAuthorization, U256, from_alloy};
use farthing_primitives::{Address, Asset, Network, PullMethod, Registry, Timestamp};
use farthing_rails::offer::BindingKey;
use farthing_store::MemoryStore;
use farthing_wire::Uint256;
use farthing_wire::mpp::evm::{
    CredentialType, Funding, Open, Session as Asked, SessionPayload, TopUp, Voucher,
};
use farthing_wire::mpp::{
    Challenge, Challenges, Credential, Problem, ProblemType, Receipt, SessionReceipt, Source, Terms as Said,
};
use farthing_wire::x402::exact_evm::Authorization;
use http::{Request, Response};
use http_body_util::Full;

use crate::tests::support::{Backend, Got, Model, get, read, request, terms};
use crate::{
    Amount, Count, Limits, Paid, Paywall, PaywallBody, PaywallLayer, Price as Cost, Route, Session,
    SessionTerms, Way,
};
use tower::{Layer, ServiceExt};

/// Real time, with an offset that a test may add.
pub struct LiveWorld {
    start: Instant,
    ahead_ms: AtomicU64,
}

impl LiveWorld {
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl World for LiveWorld {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
            .plus(Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst)))
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed() + Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
    fn random(&self, into: &mut [u8]) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut state = NEXT.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in into {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[0];
        }
    }
}

pub fn network() -> Network {
    Network::eip155(84532)
}

pub fn usdc() -> Asset {
    Registry::builtin().dollar(&network()).unwrap().clone()
}

fn key(index: usize) -> Key {
    Key::from_bytes(DEV_ACCOUNTS[index].private_key.0).unwrap()
}

/// Also the relayer.
pub fn payee() -> Address {
    from_alloy(key(0).address())
}

pub fn escrow() -> Address {
    from_alloy(payment_channel_escrow().unwrap().deployment.unwrap().address)
}

/// What a unit costs in most of the tests, in atoms.
pub const UNIT: u128 = 100;

/// A hundred atoms a unit, paid for one request at a time.
pub fn by_request() -> SessionTerms {
    let way = Way::new(&Registry::builtin(), &usdc(), payee(), PullMethod::Eip3009).unwrap();
    SessionTerms {
        way: Arc::new(way),
        escrow: escrow(),
        price: Price::each(UNIT, Unit::Request),
        count: Count::Request,
        stream: false,
        most_units: 1,
        suggested_deposit: Some(10 * UNIT),
        limits: Risk {
            credit: 0,
            most_unsettled: None,
            min_deposit: UNIT,
            margin: Duration::from_secs(300),
            most_in_flight: 16,
            drain: Duration::from_millis(50),
            idle: None,
        },
        min_voucher_delta: 0,
        credential_types: vec![CredentialType::Authorization, CredentialType::Hash],
        holds: Duration::from_secs(600),
        patience: Duration::from_secs(5),
    }
}

/// The same for each event of a stream.
pub fn by_event() -> SessionTerms {
    SessionTerms { price: Price::each(UNIT, Unit::Token), count: Count::Events, stream: true, ..by_request() }
}

pub fn sold(terms: SessionTerms) -> Route {
    Route::paid(Paid::by_the_unit(Session::new(terms).unwrap()))
}

/// By the unit, and as a single payment.
pub fn sold_both_ways(terms: SessionTerms) -> Route {
    let offer = terms.way.offer(&Amount::Atoms(2000)).unwrap();
    let session = Some(Arc::new(Session::new(terms).unwrap()));
    Route::paid(Paid { session, ..Paid::new(Cost::Fixed(vec![offer])) })
}

pub struct Shop {
    pub world: Arc<LiveWorld>,
    pub store: Arc<MemoryStore>,
    pub paywall: Paywall,
    pub backend: Backend,
    http: reqwest::Client,
    devnet: Devnet,
}

impl Shop {
    pub async fn open(routes: Vec<(&str, Route)>, backend: Backend) -> Self {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let devnet =
            Devnet::start(DevnetConfig { block_time: BlockTime::Instant, ..DevnetConfig::default() })
                .await
                .unwrap();
        let world = Arc::new(LiveWorld { start: Instant::now(), ahead_ms: AtomicU64::new(0) });
        let store = Arc::new(MemoryStore::new());
        let paywall = paywall(&world, &store, &devnet, terms(routes)).await;
        Self { world, store, paywall, backend, http: reqwest::Client::new(), devnet }
    }

    /// Another process over what this one left.
    pub async fn restarted(self, routes: Vec<(&str, Route)>) -> Self {
        let Self { world, store, paywall: before, backend, http, devnet } = self;
        // Its till ends with the last of its owners: the keeper may be at a channel still.
        drop(before);
        for _ in 0..12_000 {
            if Arc::strong_count(&store) == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(Arc::strong_count(&store), 1, "the former process is gone");
        let paywall = paywall(&world, &store, &devnet, terms(routes)).await;
        Self { world, store, paywall, backend, http, devnet }
    }

    pub async fn raw(&self, request: Request<Full<Bytes>>) -> Response<PaywallBody> {
        PaywallLayer::new(self.paywall.clone()).layer(self.backend.clone()).oneshot(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Got {
        read(self.raw(request).await).await
    }

    /// Asks as long as it is told to come again: another transaction of the channel is on its way.
    pub async fn patiently(&self, request: impl Fn() -> Request<Full<Bytes>>) -> Got {
        for _ in 0..12_000 {
            let got = self.send(request()).await;
            if got.status != 503 {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it is not done");
    }

    /// What a session on this path asks for.
    pub async fn challenge(&self, path: &str) -> Challenge {
        let unpaid = self.send(get(path)).await;
        assert_eq!(unpaid.status, 402, "{}", unpaid.body);
        challenges(&unpaid).into_iter().find(|challenge| challenge.intent.as_str() == "session").unwrap()
    }

    pub async fn channel(&self, id: ChannelId) -> Payee {
        self.store.channel(id).await.unwrap().unwrap()
    }

    pub async fn balance(&self, of: &Address) -> u128 {
        let data = format!("0x70a08231{:0>64}", &of.as_str()[2..]);
        let to = usdc().id.address().to_string();
        let call = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "eth_call",
            "params": [{"to": to, "data": data}, "latest"]});
        let answer = self.http.post(self.devnet.rpc_url()).json(&call).send().await.unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        u128::from_str_radix(&answer["result"].as_str().unwrap()[2..], 16).unwrap()
    }

    pub async fn store_is_empty(&self) -> bool {
        self.store.channels(ChannelFilter::default()).await.unwrap().is_empty()
    }

    pub async fn books_balance(&self) {
        assert_eq!(self.store.check_books().await.unwrap().problems, Vec::<String>::new());
    }

    /// A buyer whose channel is open, with a deposit of so much; and a challenge for its next vouchers.
    pub async fn customer(&self, path: &str, deposit: u128) -> Buyer {
        let buyer = Buyer::new(self.challenge(path).await);
        let opened = self.send(buyer.manage(path, &buyer.open(deposit, 0))).await;
        assert_eq!((opened.status, self.backend.calls()), (204, 0), "{}", opened.body);
        buyer
    }
}

impl Shop {
    /// Another channel of the same buyer.
    pub async fn customer_again(&self, buyer: &Buyer, path: &str, deposit: u128) -> Buyer {
        let other = Buyer::new(self.challenge(path).await);
        assert_eq!(other.address(), buyer.address());
        let opened = self.patiently(|| other.manage(path, &other.open(deposit, 0))).await;
        assert_eq!(opened.status, 204, "{}", opened.body);
        other
    }
}

async fn paywall(
    world: &Arc<LiveWorld>,
    store: &Arc<MemoryStore>,
    devnet: &Devnet,
    terms: crate::Terms,
) -> Paywall {
    let mut config = ChainConfig::new(network(), vec![devnet.rpc_url().parse().unwrap()]);
    config.block_time = Some(Duration::from_millis(20));
    let chain = Arc::new(RpcChain::new(config).unwrap());
    let relayer = Relayer::start(
        chain,
        Arc::new(LocalKey::new(key(0))),
        store.clone(),
        world.clone(),
        RelayerConfig::default(),
    )
    .unwrap();
    let desk = Desk::new(relayer, Depths::default(), Vec::new()).unwrap();
    let code = payment_channel_escrow().unwrap().deployment.unwrap().runtime_code_hash;
    let config = TillConfig { escrow_code: vec![code.0], beyond_reorgs: 1, ..TillConfig::default() };
    let desks = HashMap::from([(network(), desk)]);
    let till = Till::start(store.clone(), world.clone(), desks, config).await.unwrap();
    let paywall = Paywall::new(
        terms,
        Arc::new(Model::default()),
        world.clone(),
        BindingKey::new([9; 32], None),
        Limits::default(),
    );
    paywall.with_till(till)
}

pub fn challenges(got: &Got) -> Vec<Challenge> {
    let lines = got.headers.get_all("www-authenticate").iter().map(http::HeaderValue::as_bytes);
    Challenges::parse(lines).unwrap().challenges
}

pub fn problem(got: &Got) -> ProblemType {
    Problem::parse(got.body.as_bytes()).unwrap().kind
}

pub fn receipt(got: &Got) -> SessionReceipt {
    Receipt::parse(got.headers["payment-receipt"].as_bytes()).unwrap().session().unwrap().unwrap()
}

pub fn asked(challenge: &Challenge) -> Asked {
    let Said::EvmSession(asked) = challenge.terms().unwrap() else { panic!("a session") };
    *asked
}

/// Somebody with a key who pays from a channel, and reads challenges by the draft alone.
pub struct Buyer {
    pub key: Key,
    pub challenge: Challenge,
    pub salt: [u8; 32],
}

impl Buyer {
    pub fn new(challenge: Challenge) -> Self {
        static SALT: AtomicU64 = AtomicU64::new(1);
        let mut salt = [7; 32];
        salt[..8].copy_from_slice(&SALT.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        Self { key: key(1), challenge, salt }
    }

    pub fn address(&self) -> Address {
        from_alloy(self.key.address())
    }

    pub fn parts(&self) -> ChannelParts {
        let asked = asked(&self.challenge);
        let evm = |address: &Address| farthing_evm::to_alloy(address).unwrap();
        ChannelParts {
            payer: self.key.address(),
            payee: evm(asked.recipient.address()),
            token: evm(asked.currency.address()),
            salt: B256::from(self.salt),
            authorized_signer: farthing_evm::Address::ZERO,
            escrow: evm(asked.escrow.address()),
            chain_id: asked.network.evm_chain_id().unwrap(),
        }
    }

    pub fn id(&self) -> ChannelId {
        ChannelId(self.parts().id().0)
    }

    pub fn sign(&self, cumulative: u128) -> Vec<u8> {
        let parts = self.parts();
        let domain = voucher::escrow_domain(parts.chain_id, parts.escrow);
        let digest = voucher::Voucher { channel: parts.id(), cumulative }.digest(&domain);
        self.key.sign(digest).to_bytes().to_vec()
    }

    fn pull(&self, value: u128, nonce: B256) -> Funding {
        let (parts, asset) = (self.parts(), usdc());
        let eip712 = asset.domain.unwrap();
        let domain = Domain::new(&eip712.name, &eip712.version, parts.chain_id, parts.token);
        let valid_before = u64::MAX;
        let signed = TransferAuthorization {
            from: parts.payer,
            to: parts.escrow,
            value: U256::from(value),
            valid_after: U256::ZERO,
            valid_before: U256::from(valid_before),
            nonce,
        };
        Funding::Authorization {
            authorization: Authorization {
                from: self.address(),
                to: from_alloy(parts.escrow),
                value,
                valid_after: Uint256::ZERO,
                valid_before: Uint256::from(valid_before),
                nonce: nonce.0,
            },
            signature: self.key.sign(signed.receive_digest(&domain)).to_bytes().to_vec(),
        }
    }

    pub fn open(&self, deposit: u128, cumulative: u128) -> SessionPayload {
        SessionPayload::Open(Open {
            channel_id: self.id().0,
            funding: self.pull(deposit, self.parts().open_nonce()),
            cumulative,
            voucher_signature: self.sign(cumulative),
            authorized_signer: None,
            salt: self.salt,
        })
    }

    pub fn top_up(&self, additional: u128) -> SessionPayload {
        let (parts, salt) = (self.parts(), [3; 32]);
        let nonce = voucher::top_up_nonce(parts.id(), additional, parts.payer, B256::from(salt));
        SessionPayload::TopUp(TopUp {
            channel_id: self.id().0,
            funding: self.pull(additional, nonce),
            additional_deposit: additional,
            salt: Some(salt),
        })
    }

    /// Our money, for somebody else's channel.
    pub fn top_up_of(&self, other: &Self, additional: u128) -> SessionPayload {
        let (parts, salt) = (other.parts(), [4; 32]);
        let nonce = voucher::top_up_nonce(parts.id(), additional, self.key.address(), B256::from(salt));
        SessionPayload::TopUp(TopUp {
            channel_id: other.id().0,
            funding: self.pull(additional, nonce),
            additional_deposit: additional,
            salt: Some(salt),
        })
    }

    pub fn voucher(&self, cumulative: u128) -> SessionPayload {
        SessionPayload::Voucher(Voucher {
            channel_id: self.id().0,
            cumulative,
            signature: self.sign(cumulative),
            deposit: None,
        })
    }

    pub fn close(&self, cumulative: u128) -> SessionPayload {
        SessionPayload::Close { channel_id: self.id().0, cumulative, signature: self.sign(cumulative) }
    }

    pub fn header(&self, payload: &SessionPayload) -> String {
        let source = Source::evm(network(), self.address());
        Credential::new(self.challenge.clone(), payload.to_object(), source).to_header().unwrap()
    }

    /// A request that only manages the channel.
    pub fn manage(&self, path: &str, payload: &SessionPayload) -> Request<Full<Bytes>> {
        self.shows(request("POST", path, ""), payload)
    }

    /// A request that buys.
    pub fn buy(&self, path: &str, cumulative: u128) -> Request<Full<Bytes>> {
        self.shows(get(path), &self.voucher(cumulative))
    }

    pub fn shows(&self, mut request: Request<Full<Bytes>>, payload: &SessionPayload) -> Request<Full<Bytes>> {
        request.headers_mut().insert("authorization", self.header(payload).parse().unwrap());
        request
    }
}

/// The same request with a key.
pub fn named(mut request: Request<Full<Bytes>>, key: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}
