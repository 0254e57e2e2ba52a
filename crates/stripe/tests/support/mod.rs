//! A shop that sells for money at Stripe: the real paywall, engine and client, over a store that outlives a process and
//! a stand-in that outlives both.

// Each test uses some of it. In a test a panic is the report.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod mortal;
pub mod stand_in;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_engine::{
    BoxFuture, Engine, EngineConfig, PaymentFilter, ProcessorRail, Rail, Recovered, Store, World,
};
use farthing_payment::Payment;
use farthing_paywall::{
    Limits, MethodOffer, Paid, Paywall, PaywallBody, PaywallLayer, Price, Route, RouteTable, Terms,
};
use farthing_primitives::{Network, Timestamp};
use farthing_rails::method::Method as _;
use farthing_rails::offer::BindingKey;
use farthing_store::MemoryStore;
use farthing_stripe::{Answer, Api, Call, Currency, Kind, NoAnswer, StripeCharge, StripeProcessor};
use farthing_wire::mpp::{Challenge, Challenges, Credential, Problem, ProblemType, Receipt, stripe};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};

pub use mortal::MortalStore;
pub use stand_in::{StandIn, Trouble};

pub const SECRET_KEY: &str = "sk_test_standin";
pub const PROFILE: &str = "profile_test_1";
pub const START: u64 = 1_800_000_000;
pub const VISA: &str = "pm_card_visa";

/// A wall clock over the runtime's own, which is paused; its tasks die with it.
pub struct HandWorld {
    started: tokio::time::Instant,
    ahead: AtomicU64,
    random: AtomicU64,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl HandWorld {
    fn at(secs: u64, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            started: tokio::time::Instant::now(),
            ahead: AtomicU64::new(secs),
            random: AtomicU64::new(seed << 32 | 1),
            tasks: Mutex::default(),
        })
    }

    pub fn secs(&self) -> u64 {
        self.ahead.load(Ordering::SeqCst) + self.started.elapsed().as_secs()
    }

    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    fn kill(&self) {
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

impl World for HandWorld {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.ahead.load(Ordering::SeqCst)).plus(self.started.elapsed())
    }
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.lock().unwrap().push(tokio::spawn(task));
    }
    fn random(&self, into: &mut [u8]) {
        let next = self.random.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        into.iter_mut().zip(next.iter().rev().cycle()).for_each(|(byte, next)| *byte = *next);
    }
}

/// The way to the stand-in, without a socket.
pub struct Direct {
    pub stand_in: Arc<StandIn>,
    pub world: Arc<HandWorld>,
}

#[async_trait]
impl Api for Direct {
    async fn call(&self, call: Call, within: Duration) -> Result<Answer, NoAnswer> {
        // As over a network: others get a turn.
        tokio::task::yield_now().await;
        self.stand_in.set_time(self.world.secs());
        let (verb, key) = match &call.kind {
            Kind::Get => ("GET", None),
            Kind::Post(key) => ("POST", key.as_deref()),
        };
        let fields = stand_in::fields_of(&call.form());
        match self.stand_in.answer(verb, &call.path, &fields, key, SECRET_KEY) {
            Some(reply) => {
                Ok(Answer { status: reply.status, replayed: reply.replayed, body: reply.body.into() })
            }
            None => {
                self.world.sleep(within).await;
                Err(NoAnswer)
            }
        }
    }
}

/// What is sold, and counted.
#[derive(Clone, Default)]
pub struct Goods(pub Arc<AtomicUsize>);

impl Service<Request<Full<Bytes>>> for Goods {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Response::new(Full::new(Bytes::from_static(b"a report")))))
    }
}

pub struct Shop {
    pub stand_in: Arc<StandIn>,
    pub books: Arc<MemoryStore>,
    pub store: Arc<MortalStore>,
    pub world: Arc<HandWorld>,
    pub engine: Engine,
    pub paywall: Paywall,
    pub goods: Goods,
    price: String,
    external_id: Option<String>,
    seed: u64,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Got {
    pub fn challenge(&self) -> Challenge {
        let lines = self.headers.get_all("www-authenticate").iter().map(http::HeaderValue::as_bytes);
        let all = Challenges::parse(lines).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let mut found = all.challenges.into_iter().filter(|challenge| challenge.method.as_str() == "stripe");
        let challenge = found.next().expect("a challenge of stripe");
        assert_eq!(found.next(), None);
        challenge
    }

    pub fn receipt(&self) -> Receipt {
        Receipt::parse(self.headers.get("payment-receipt").expect("a receipt").as_bytes()).unwrap()
    }

    pub fn problem(&self) -> ProblemType {
        Problem::parse(self.body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {self:?}")).kind
    }

    /// 402, of this problem, and with a fresh challenge.
    pub fn assert_refused(&self, problem: &ProblemType) {
        assert_eq!((self.status, self.problem()), (402, problem.clone()), "{self:?}");
        self.challenge();
    }
}

pub fn method() -> Arc<StripeCharge> {
    Arc::new(StripeCharge::new(PROFILE, vec!["card".to_owned(), "link".to_owned()]).unwrap())
}

pub fn credential(challenge: &Challenge, token: &str) -> Credential {
    credential_with(challenge, token, None)
}

pub fn credential_with(challenge: &Challenge, token: &str, external_id: Option<&str>) -> Credential {
    let payload =
        stripe::ChargePayload { token: token.to_owned(), external_id: external_id.map(str::to_owned) };
    Credential::new(challenge.clone(), payload.to_object(), None)
}

/// A key that is nobody's.
pub fn some_key() -> farthing_evm::Key {
    farthing_evm::Key::from_bytes([7; 32]).unwrap()
}

pub fn get() -> Request<Full<Bytes>> {
    Request::get("/report").header("host", "shop.example").body(Full::default()).unwrap()
}

pub fn shown(credential: &Credential) -> Request<Full<Bytes>> {
    let mut request = get();
    request.headers_mut().insert("authorization", credential.to_header().unwrap().parse().unwrap());
    request
}

impl Shop {
    pub async fn open() -> Self {
        Self::selling("0.50 USD", None).await
    }

    pub async fn selling(price: &str, external_id: Option<&str>) -> Self {
        let stand_in = Arc::new(StandIn::new(SECRET_KEY, START));
        let external_id = external_id.map(str::to_owned);
        Self::start(
            stand_in,
            Arc::new(MemoryStore::new()),
            START,
            1,
            Goods::default(),
            (price.to_owned(), external_id),
        )
        .await
    }

    /// Another shop with books of its own, which answers the same challenges: they share secrets and a Stripe account.
    pub async fn twin(&self) -> Self {
        let said = (self.price.clone(), self.external_id.clone());
        let books = Arc::new(MemoryStore::new());
        Self::start(self.stand_in.clone(), books, self.world.secs(), 77, Goods::default(), said).await
    }

    async fn start(
        stand_in: Arc<StandIn>,
        books: Arc<MemoryStore>,
        now: u64,
        seed: u64,
        goods: Goods,
        (price, external_id): (String, Option<String>),
    ) -> Self {
        let world = HandWorld::at(now, seed);
        let store = Arc::new(MortalStore::new(books.clone()));
        let api = Arc::new(Direct { stand_in: stand_in.clone(), world: world.clone() });
        let processor = Arc::new(StripeProcessor::new(api, world.clone(), true));
        let method = method();
        let rail: Arc<dyn Rail> = Arc::new(ProcessorRail::new(processor, world.clone()));
        let rails: HashMap<Network, Arc<dyn Rail>> = HashMap::from([(method.network().clone(), rail)]);
        let engine = Engine::new(store.clone(), world.clone(), rails, EngineConfig::default());
        let money = match Currency::price(&price, method.network()) {
            Ok(money) => money,
            // Below the least: as a derived price might be.
            Err(_) => Currency::named("usd").unwrap().asset(method.network()).unwrap().atoms(49),
        };
        let mut paid = Paid::new(Price::Fixed(Vec::new()));
        paid.methods = vec![MethodOffer { method, money, external_id: external_id.clone() }];
        let routes = RouteTable::new(vec![("GET /report".parse().unwrap(), Route::paid(paid))]).unwrap();
        let key = BindingKey::new([9; 32], None);
        let paywall =
            Paywall::new(Terms::new(routes), Arc::new(engine.clone()), world.clone(), key, Limits::default());
        Self { stand_in, books, store, world, engine, paywall, goods, price, external_id, seed }
    }

    /// The process dies, and another takes up what it left.
    pub async fn restart(self) -> (Self, Recovered) {
        self.world.kill();
        tokio::task::yield_now().await;
        let said = (self.price, self.external_id);
        let (now, seed) = (self.world.secs(), self.seed + 1);
        let next = Self::start(self.stand_in, self.books, now, seed, self.goods, said).await;
        let recovered = next.engine.recover().await.unwrap();
        (next, recovered)
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Got {
        let service = PaywallLayer::new(self.paywall.clone()).layer(self.goods.clone());
        let response: Response<PaywallBody> = service.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub async fn ask(&self) -> Challenge {
        let got = self.send(get()).await;
        assert_eq!(got.status, 402, "{got:?}");
        got.challenge()
    }

    /// Asks, and pays with a fresh token of this payment method.
    pub async fn buy(&self, payment_method: &str) -> Got {
        let challenge = self.ask().await;
        let token = self.stand_in.grant(payment_method, "usd", 50);
        self.send(shown(&credential(&challenge, &token))).await
    }

    pub fn served(&self) -> usize {
        self.goods.0.load(Ordering::SeqCst)
    }

    pub async fn payments(&self) -> Vec<Payment> {
        self.books.payments(PaymentFilter { limit: 1000, ..PaymentFilter::default() }).await.unwrap()
    }

    pub async fn states(&self) -> Vec<&'static str> {
        self.payments().await.iter().map(|payment| payment.state.name()).collect()
    }

    /// The books re-derive, and hold what Stripe has charged.
    pub async fn assert_books(&self, cents: u64) {
        let check = self.books.check_books().await.unwrap();
        assert_eq!(check.problems, Vec::<String>::new());
        let payments = self.payments().await;
        let settled = payments.iter().filter(|payment| payment.state.name() == "settled");
        let booked: u128 = settled.map(|payment| payment.terms.money.atoms()).sum();
        assert_eq!((booked, self.stand_in.charged().0), (u128::from(cents), cents));
    }

    /// The same for two shops with one account.
    pub async fn assert_books_with(&self, other: &Self, cents: u64) {
        let mut booked = 0;
        for shop in [self, other] {
            assert_eq!(shop.books.check_books().await.unwrap().problems, Vec::<String>::new());
            let settled =
                shop.payments().await.into_iter().filter(|payment| payment.state.name() == "settled");
            booked += settled.map(|payment| payment.terms.money.atoms()).sum::<u128>();
        }
        assert_eq!((booked, self.stand_in.charged().0), (u128::from(cents), cents));
    }

    /// Lets the shop work on alone until nothing is under way, or for so long.
    pub async fn settle_down(&self, within: Duration) {
        let until = tokio::time::Instant::now() + within;
        while self.engine.live() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
