use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_engine::{
    BoxFuture, ConflictKind, Permit, Sale, SaleOutcome, StoreError, StoredResponse, Upstream, UpstreamAnswer,
    World,
};
use farthing_evm::Key;
use farthing_payment::{
    ConsumptionKey, Delivery, Dialect, Event, Fault, Flow, NewPayment, Payment, Proof, Reason, Role, TxRef,
    Witness,
};
use farthing_primitives::{Address, AttemptId, Network, PaymentId, PullMethod, Registry, Timestamp};
use farthing_rails::exact_evm::{Requirement, Tokens, buy};
use farthing_rails::offer::BindingKey;
use farthing_rails::x402;
use farthing_wire::x402::{Message, SettlementResponse, v1, v2};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};

use crate::{
    Amount, Limits, Paid, Paywall, PaywallBody, PaywallLayer, Price, Rate, Route, RouteTable, Terms, Way,
};

pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
pub const PAYEE: &str = "0x209693bc6afc0c5328ba36faf03c514ef312287c";
pub const TX: &str = "0x00000000000000000000000000000000000000000000000000000000000000aa";

/// Time that stands still; sleeps that never end, unless `hurry` says that they end at once.
#[derive(Default)]
pub struct TestWorld {
    forward: AtomicU64,
    /// By how far the wall clock was set back, or forward if negative.
    pub set_back_secs: AtomicI64,
    pub hurry: AtomicBool,
}

impl TestWorld {
    pub fn advance(&self, by: Duration) {
        self.forward.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl World for TestWorld {
    fn now(&self) -> Timestamp {
        let back = self.set_back_secs.load(Ordering::SeqCst);
        let by = Duration::from_secs(back.unsigned_abs());
        let right = NOW.plus(self.monotonic());
        if back < 0 { right.plus(by) } else { right.minus(by) }
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.forward.load(Ordering::SeqCst))
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        if self.hurry.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(()));
        }
        Box::pin(std::future::pending())
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn random(&self, into: &mut [u8]) {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst).to_be_bytes();
        into.iter_mut().zip(next.iter().rev().cycle()).for_each(|(byte, next)| *byte = *next);
    }
}

/// A small model of the engine: claims by consumption key, one service for each, answers shown again.
#[derive(Default)]
pub struct Model {
    claims: tokio::sync::Mutex<HashMap<ConsumptionKey, (Payment, Option<StoredResponse>)>>,
    names: tokio::sync::Mutex<HashMap<PaymentId, String>>,
    /// What the next sales end with instead.
    pub forced: Mutex<VecDeque<Forced>>,
    pub sales: AtomicUsize,
    pub settlements: AtomicUsize,
    pub seen: Mutex<Vec<Sale>>,
    /// Whose answers are gone to whoever paid.
    pub sent: Mutex<HashSet<PaymentId>>,
    /// That they are is never written down.
    pub stuck: AtomicBool,
    pub delivered: Arc<Mutex<Vec<Result<(), String>>>>,
}

#[derive(Debug, Clone)]
pub enum Forced {
    Pending,
    SettlementFailed,
    Refused(&'static str, Fault),
    Unavailable,
    OverExposed,
}

impl Model {
    pub fn sales(&self) -> usize {
        self.sales.load(Ordering::SeqCst)
    }

    pub fn settlements(&self) -> usize {
        self.settlements.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl crate::Seller for Model {
    async fn sell(&self, sale: Sale, upstream: Arc<dyn Upstream>) -> SaleOutcome {
        let number = self.sales.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push(sale.clone());
        let forced = self.forced.lock().unwrap().pop_front();
        // One lock for all makes the claim atomic, and lets the second wait for the first.
        let mut claims = self.claims.lock().await;
        let mut names = self.names.lock().await;
        if let Some((payment, response)) = claims.get(&sale.key) {
            let mut payment = Box::new(payment.clone());
            if payment.binding.request != sale.binding.request {
                return SaleOutcome::Conflict { payment: payment.id, kind: ConflictKind::OtherRequest };
            }
            return match response {
                Some(response) => {
                    // In x402 whoever was first counts as having taken its answer.
                    if sale.terms.dialect != Dialect::Mpp || self.sent.lock().unwrap().contains(&payment.id) {
                        payment.delivery = Delivery::Sent;
                    }
                    SaleOutcome::Served { payment, response: response.clone() }
                }
                None => SaleOutcome::Pending { payment: payment.id, tx: None },
            };
        }
        let other = |(of, _): &&(Payment, Option<StoredResponse>)| names.get(&of.id) == sale.name.as_ref();
        if sale.name.is_some()
            && let Some((other, _)) = claims.values().find(other)
        {
            return SaleOutcome::Conflict { payment: other.id, kind: ConflictKind::NameTaken };
        }
        let payment = claimed(&sale, number);
        names.extend(sale.name.clone().map(|name| (payment.id, name)));
        match forced {
            Some(Forced::Pending) => {
                claims.insert(sale.key, (payment.clone(), None));
                return SaleOutcome::Pending { payment: payment.id, tx: Some(TxRef::new(TX)) };
            }
            Some(Forced::SettlementFailed) => {
                let reason = Reason::new("invalid_exact_evm_transaction_failed", Fault::Payer);
                return SaleOutcome::SettlementFailed { payment: Box::new(payment), reason, tx: None };
            }
            Some(Forced::Refused(code, fault)) => {
                return SaleOutcome::Refused { reason: Reason::new(code, fault) };
            }
            Some(Forced::Unavailable) => return SaleOutcome::Unavailable { what: "store" },
            Some(Forced::OverExposed) => return SaleOutcome::OverExposed,
            None => {}
        }
        if sale.flow != Flow::Authorization {
            let payment = if sale.flow == Flow::Upfront { settled(payment) } else { payment };
            claims.insert(sale.key, (payment.clone(), None));
            let delivered = self.delivered.clone();
            let permit = Permit::new(move |result| {
                delivered.lock().unwrap().push(result.map_err(|reason| reason.code().to_owned()));
            });
            return SaleOutcome::Deliver { payment: Box::new(payment), permit };
        }
        match upstream.call(&payment).await {
            UpstreamAnswer::Complete(response) => {
                self.settlements.fetch_add(1, Ordering::SeqCst);
                let payment = settled(payment);
                claims.insert(sale.key, (payment.clone(), Some(response.clone())));
                SaleOutcome::Served { payment: Box::new(payment), response }
            }
            UpstreamAnswer::Failed { reason, response } => {
                SaleOutcome::NotCharged { payment: Box::new(payment), reason, response }
            }
        }
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        let claims = self.claims.lock().await;
        let found = claims.values().map(|(payment, _)| payment).find(|payment| payment.id == id);
        let sent = self.sent.lock().unwrap().contains(&id);
        Ok(found.map(|payment| {
            let delivery = if sent { Delivery::Sent } else { payment.delivery };
            Payment { delivery, ..payment.clone() }
        }))
    }

    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        Ok(self.claims.lock().await.get(key).map(|(payment, _)| payment.clone()))
    }

    fn sent(&self, payment: &Payment) -> BoxFuture<'static, ()> {
        if self.stuck.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.sent.lock().unwrap().insert(payment.id);
        Box::pin(std::future::ready(()))
    }
}

fn claimed(sale: &Sale, number: usize) -> Payment {
    let new = NewPayment {
        id: PaymentId::new(NOW, [u8::try_from(number).unwrap(); 10]),
        tenant: sale.tenant.clone(),
        key: sale.key.clone(),
        role: Role::Seller,
        flow: sale.flow,
        terms: sale.terms.clone(),
        binding: sale.binding.clone(),
    };
    Payment::claim(new, NOW).0
}

fn settled(payment: Payment) -> Payment {
    let attempt = AttemptId::new(NOW, [1; 10]);
    let proof = Proof {
        tx: TxRef::new(TX),
        witness: Witness::Chain,
        block: 1,
        block_hash: [0; 32],
        log_index: 0,
        fee: None,
    };
    let mut events = vec![Event::FundsConfirmed];
    if payment.flow == Flow::Authorization {
        events.extend([Event::CallStarted, Event::CallStored]);
    }
    events.push(Event::AttemptStarted { attempt, tx: Some(TxRef::new(TX)) });
    events.push(Event::Included { proof, deep: true });
    events.into_iter().fold(payment, |payment, event| payment.step(event, NOW).unwrap().next)
}

/// Method, path and query, headers, body.
pub type Seen = (String, String, HeaderMap, Bytes);

/// What stands behind the paywall: counts its calls and answers what it is told to.
#[derive(Clone)]
pub struct Backend {
    pub calls: Arc<AtomicUsize>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<dyn Fn() -> Response<PaywallBody> + Send + Sync>,
}

impl Backend {
    pub fn new(answer: impl Fn() -> Response<PaywallBody> + Send + Sync + 'static) -> Self {
        Self { calls: Arc::default(), seen: Arc::default(), answer: Arc::new(answer) }
    }

    pub fn ok() -> Self {
        Self::new(|| Response::new(body("sunny")))
    }

    pub fn status(status: StatusCode) -> Self {
        Self::new(move || {
            let mut response = Response::new(body("said by the upstream"));
            *response.status_mut() = status;
            response
        })
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }
}

pub fn body(text: &'static str) -> PaywallBody {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}

impl Service<Request<Full<Bytes>>> for Backend {
    type Response = Response<PaywallBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.calls.fetch_add(1, Ordering::SeqCst);
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            this.seen.lock().unwrap().push((
                parts.method.to_string(),
                parts.uri.path_and_query().unwrap().to_string(),
                parts.headers,
                body,
            ));
            Ok((this.answer)())
        })
    }
}

/// A paywall with everything around it.
pub struct Rig {
    pub world: Arc<TestWorld>,
    pub model: Arc<Model>,
    pub backend: Backend,
    pub paywall: Paywall,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Rig {
    pub fn new(routes: Vec<(&str, Route)>, backend: Backend) -> Self {
        Self::with(terms(routes), backend, Limits::default())
    }

    pub fn with(terms: Terms, backend: Backend, limits: Limits) -> Self {
        let (world, model) = (Arc::new(TestWorld::default()), Arc::new(Model::default()));
        let key = BindingKey::new([9; 32], None);
        let paywall = Paywall::new(terms, model.clone(), world.clone(), key, limits);
        Self { world, model, backend, paywall }
    }

    /// `/weather` and `/other` at 2000 atoms each.
    pub fn weather() -> Self {
        Self::weather_with(Backend::ok())
    }

    pub fn weather_with(backend: Backend) -> Self {
        Self::new(vec![("GET|POST /weather", dollars("$0.002")), ("GET /other", dollars("$0.002"))], backend)
    }

    pub async fn raw(&self, request: Request<Full<Bytes>>) -> Response<PaywallBody> {
        let service = PaywallLayer::new(self.paywall.clone()).layer(self.backend.clone());
        service.oneshot(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Got {
        read(self.raw(request).await).await
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send(get(path)).await
    }

    /// Asks, and pays what the v2 challenge asks for.
    pub async fn challenge(&self, path: &str) -> v2::PaymentRequired {
        self.get(path).await.challenge()
    }

    pub async fn buy(&self, path: &str) -> Got {
        let header = pay_v2(&self.challenge(path).await, 1);
        self.send(paid(get(path), &header)).await
    }
}

pub async fn read(response: Response<PaywallBody>) -> Got {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8(collected.to_bytes().to_vec()).unwrap();
    // What is to be written down once an answer is gone is written down now.
    tokio::task::yield_now().await;
    Got { status: parts.status.as_u16(), headers: parts.headers, body, trailers }
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn challenge(&self) -> v2::PaymentRequired {
        let value = self.headers.get("payment-required").expect("a challenge");
        v2::PaymentRequired::from_header(value.as_bytes()).unwrap()
    }

    pub fn challenge_v1(&self) -> v1::PaymentRequired {
        v1::PaymentRequired::parse(self.body.as_bytes()).unwrap()
    }

    pub fn receipt(&self) -> SettlementResponse {
        let value = self.headers.get("payment-response").expect("a receipt");
        SettlementResponse::from_header(value.as_bytes()).unwrap()
    }

    /// The error's code, from our own body or from the challenge.
    pub fn code(&self) -> String {
        if self.headers.contains_key("payment-required") {
            return self.challenge().error.unwrap();
        }
        let json = farthing_wire::json::parse(
            self.body.as_bytes(),
            farthing_wire::Limits { bytes: 10_000, values: 100, members: 100 },
        );
        json.unwrap().as_object().unwrap().get_str("error").unwrap().to_owned()
    }

    /// Nobody is asked to pay, in any dialect.
    pub fn assert_no_challenge(&self) {
        assert!(!self.headers.contains_key("payment-required"));
        assert!(!self.body.contains("accepts"), "{}", self.body);
    }

    /// There are no goods in it.
    pub fn assert_no_goods(&self) {
        assert!(!self.body.contains("sunny"), "{}", self.body);
    }
}

pub fn terms(routes: Vec<(&str, Route)>) -> Terms {
    let routes = routes.into_iter().map(|(pattern, route)| (pattern.parse().unwrap(), route)).collect();
    Terms::new(RouteTable::new(routes).unwrap())
}

pub fn way(pull: PullMethod) -> Arc<Way> {
    let registry = Registry::builtin();
    let network = Network::eip155(84532);
    let asset = registry.dollar(&network).unwrap();
    let way = Way::new(&registry, asset, Address::evm(PAYEE).unwrap(), pull).unwrap();
    Arc::new(way.with_sponsored_approval(true))
}

pub fn fixed(price: &str) -> Paid {
    let offer = way(PullMethod::Eip3009).offer(&Amount::parse(price).unwrap()).unwrap();
    Paid::new(Price::Fixed(vec![offer]))
}

pub fn dollars(price: &str) -> Route {
    Route::paid(fixed(price))
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(path).header("host", "api.example").body(Full::new(Bytes::new())).unwrap()
}

pub fn request(method: &str, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let mut request = get(path);
    *request.method_mut() = method.parse().unwrap();
    *request.body_mut() = Full::new(Bytes::from_static(body.as_bytes()));
    request
}

pub fn paid(mut request: Request<Full<Bytes>>, header: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert("payment-signature", HeaderValue::from_str(header).unwrap());
    request
}

pub fn paid_v1(mut request: Request<Full<Bytes>>, header: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert("x-payment", HeaderValue::from_str(header).unwrap());
    request
}

pub fn payer() -> Key {
    Key::from_bytes([3; 32]).unwrap()
}

/// A v2 payment of the first offer.
pub fn pay_v2(challenge: &v2::PaymentRequired, nonce: u8) -> String {
    payment_v2(challenge, nonce).to_header()
}

pub fn payment_v2(challenge: &v2::PaymentRequired, nonce: u8) -> v2::PaymentPayload {
    let offer = &challenge.accepts[0];
    let asked = x402::requirement_v2(offer, &Tokens::new(&Registry::builtin())).unwrap();
    let presented = sign(&asked, nonce);
    x402::payment_v2(offer, &presented, Some(challenge.resource.clone()), challenge.extensions.clone())
        .unwrap()
}

/// A v1 payment of the first offer.
pub fn pay_v1(challenge: &v1::PaymentRequired, nonce: u8) -> String {
    let offer = &challenge.accepts[0];
    let asked = x402::requirement_v1(offer, &Tokens::new(&Registry::builtin())).unwrap();
    x402::payment_v1(offer, &sign(&asked, nonce)).unwrap().to_header()
}

fn sign(asked: &Requirement, nonce: u8) -> farthing_rails::exact_evm::Presented {
    let key = payer();
    let payer = farthing_evm::from_alloy(key.address());
    let unsigned =
        buy::authorize(asked, &payer, buy::Nonce([nonce; 32]), Duration::from_secs(60), NOW).unwrap();
    unsigned.signed(&key.sign(unsigned.digest()), None)
}

pub fn tight() -> Limits {
    Limits { payments: Rate { per_second: 1, burst: 2 }, ..Limits::default() }
}

/// A body of unknown length that ends with an error.
pub struct Broken(pub bool);

impl Body for Broken {
    type Data = Bytes;
    type Error = crate::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, crate::BoxError>>> {
        std::task::Poll::Ready(Some(if std::mem::replace(&mut self.0, true) {
            Err("cut off".into())
        } else {
            Ok(http_body::Frame::data(Bytes::from_static(b"sun")))
        }))
    }
}
