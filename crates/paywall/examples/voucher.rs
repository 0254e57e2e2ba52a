//! A payment method of one's own: codes that were bought at a counter, each good for one purchase.
//!
//! `cargo run -p farthing-paywall --example voucher`, then `curl -i http://127.0.0.1:4021/weather`: the 402 has a challenge
//! of method `voucher`. What a method needs is [`Vouchers`] (what it says and reads) and [`Drawer`] (what it does with
//! money); the rest is how any paywall is put together. `docs/selling/methods.md` explains each step.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use farthing_engine::{BoxFuture, Engine, EngineConfig, Fate, Funds, Processor, ProcessorRail, Rail, World};
use farthing_payment::{ConsumptionKey, Fault, Instruction, Payment, Reason, TxRef};
use farthing_paywall::{Limits, MethodOffer, Paid, Paywall, PaywallLayer, Price, Route, RouteTable, Terms};
use farthing_primitives::{Address, AssetId, Money, Network, PaymentId, Timestamp};
use farthing_rails::method::{Declined, Method, Presented};
use farthing_rails::offer::BindingKey;
use farthing_store::MemoryStore;
use farthing_wire::mpp::{ChargeRequest, Credential, MethodName};
use sha2::{Digest, Sha256};
use tower::Layer;

/// The longest code that is read, in bytes.
const MAX_CODE_BYTES: usize = 64;
const CURRENCY: &str = "usd";

// ---------------------------------------------------------------------------------------------------------------------
// What the method says and reads. It asks nobody, and knows no time.

#[derive(Debug)]
struct Vouchers {
    name: MethodName,
    network: Network,
    shop: Address,
    bearer: Address,
}

impl Vouchers {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        // Where the money is, for the books: not on any chain, but in this shop's drawer.
        let network: Network = "voucher:corner-shop".parse()?;
        let shop = Address::parse(&network, "corner-shop")?;
        let bearer = Address::parse(&network, "bearer")?;
        Ok(Self { name: "voucher".parse()?, network, shop, bearer })
    }

    fn cents(&self, cents: u128) -> Result<Money, Box<dyn std::error::Error>> {
        let currency = Address::parse(&self.network, CURRENCY)?;
        Ok(Money::new(AssetId::new(self.network.clone(), currency), cents))
    }
}

impl Method for Vouchers {
    fn name(&self) -> &MethodName {
        &self.name
    }

    fn network(&self) -> &Network {
        &self.network
    }

    fn request(&self, offer: &MethodOffer) -> Option<ChargeRequest> {
        (*offer.money.asset().network() == self.network)
            .then(|| ChargeRequest::new(offer.money.atoms(), CURRENCY))
    }

    fn read(&self, credential: &Credential) -> Result<Presented, Declined> {
        // The challenge is ours, to the last byte; what is in it need not be doubted, only read.
        let asked = ChargeRequest::from_object(credential.challenge.request.object());
        let asked = asked.map_err(|_| Declined::CHALLENGE)?;
        let money = self.cents(asked.amount).map_err(|_| Declined::CHALLENGE)?;
        // The payload is a stranger's.
        let code = credential.payload.get_str("code").ok_or(Declined::PAYLOAD)?;
        if code.is_empty() || code.len() > MAX_CODE_BYTES || !code.bytes().all(|b| b.is_ascii_alphanumeric())
        {
            return Err(Declined::PAYLOAD);
        }
        // A code is worth money, and keys are logged.
        let hash: String = Sha256::digest(code.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Presented {
            money,
            key: ConsumptionKey::new(format!("{}/code:{hash}", self.network)),
            payer: self.bearer.clone(),
            payee: self.shop.clone(),
            instruction: Instruction::new(code.as_bytes()),
            external_id: None,
        })
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What the method does with money.

/// The codes that were sold: what each is worth in cents, and which payment has it. A real one is a database.
struct Drawer(Mutex<HashMap<String, (u128, Option<PaymentId>)>>);

impl Drawer {
    fn codes(&self) -> MutexGuard<'_, HashMap<String, (u128, Option<PaymentId>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the code to this payment, unless another has it. Doing so twice is doing so once, which is why a payment of
    /// unknown outcome may simply do it again.
    fn spend(&self, payment: &Payment) -> Fate {
        let refused = |code| Fate::Never(Reason::new(code, Fault::Payer));
        let mut codes = self.codes();
        let code = String::from_utf8_lossy(payment.terms.instruction.as_bytes()).into_owned();
        match codes.get_mut(&code) {
            None => refused("voucher_unknown"),
            Some((_, Some(other))) if *other != payment.id => refused("voucher_spent"),
            Some((worth, _)) if *worth < payment.terms.money.atoms() => refused("voucher_worth_less"),
            Some((_, spent)) => {
                *spent = Some(payment.id);
                Fate::Paid(TxRef::new(format!("drawer-{}", payment.id)))
            }
        }
    }
}

#[async_trait]
impl Processor for Drawer {
    async fn check(&self, payment: &Payment) -> Funds {
        let code = String::from_utf8_lossy(payment.terms.instruction.as_bytes()).into_owned();
        match self.codes().get(&code) {
            Some((worth, None)) if *worth >= payment.terms.money.atoms() => Funds::Confirmed,
            _ => Funds::Refused(Reason::new("voucher_does_not_buy_this", Fault::Payer)),
        }
    }

    async fn charge(&self, payment: &Payment) -> Fate {
        self.spend(payment)
    }

    async fn find_out(&self, payment: &Payment, _: Timestamp) -> Fate {
        self.spend(payment)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A shop that takes them.

fn shop(codes: &[(&str, u128)]) -> Result<Router, Box<dyn std::error::Error>> {
    let vouchers = Arc::new(Vouchers::new()?);
    let codes = codes.iter().map(|(code, worth)| ((*code).to_owned(), (*worth, None)));
    let drawer = Arc::new(Drawer(Mutex::new(codes.collect())));
    let world: Arc<dyn World> = Arc::new(Clock(Instant::now()));
    let rail: Arc<dyn Rail> = Arc::new(ProcessorRail::new(drawer, world.clone()));
    let rails = HashMap::from([(vouchers.network().clone(), rail)]);
    // A real shop has a store that outlives it (`farthing_store::SqliteStore`), and calls `Engine::recover` at its start.
    let engine = Engine::new(Arc::new(MemoryStore::new()), world.clone(), rails, EngineConfig::default());

    // Twenty-five cents by voucher. An offer in a token could stand beside it.
    let mut weather = Paid::new(Price::Fixed(Vec::new()));
    let money = vouchers.cents(25)?;
    weather.methods = vec![MethodOffer { method: vouchers, money, external_id: None }];
    let routes = RouteTable::new(vec![("GET /weather".parse()?, Route::paid(weather))])?;
    // Whoever knows this secret can make offers in our name. Keep it, so that offers survive a restart.
    let secret = BindingKey::new([0x42; 32], None);
    let paywall = Paywall::new(Terms::new(routes), Arc::new(engine), world, secret, Limits::default());
    let app = Router::new().route("/weather", get(async || "sunny, 21 degrees"));
    Ok(Router::new().fallback_service(PaywallLayer::new(paywall).layer(app)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = shop(&[("SUMMER25", 25), ("WINTER50", 50)])?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:4021").await?;
    println!("http://{}/weather costs a voucher of 25 cents", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Time and tasks, on tokio.
struct Clock(Instant);

impl World for Clock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_secs(since.as_secs())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn random(&self, into: &mut [u8]) {
        // Different each time, and no secret: a service asks the operating system.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let seed = Sha256::digest([&self.0.elapsed().as_nanos().to_be_bytes()[..], &next].concat());
        into.iter_mut().zip(seed.iter().cycle()).for_each(|(byte, random)| *byte = *random);
    }
}

#[cfg(test)]
mod tests {
    // In a test a panic is the report.
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use axum::body::{Body, to_bytes};
    use axum::http::{HeaderValue, Request, Response};
    use farthing_wire::Object;
    use farthing_wire::mpp::{Challenge, Challenges, Receipt};
    use tower::ServiceExt;

    use super::*;

    async fn ask(shop: &Router, credential: Option<&str>) -> Response<Body> {
        let mut request =
            Request::get("/weather").header("host", "shop.example").body(Body::empty()).unwrap();
        if let Some(credential) = credential {
            request.headers_mut().insert("authorization", credential.parse().unwrap());
        }
        shop.clone().oneshot(request).await.unwrap()
    }

    async fn challenge(shop: &Router) -> Challenge {
        let unpaid = ask(shop, None).await;
        assert_eq!(unpaid.status(), 402);
        let lines = unpaid.headers().get_all("www-authenticate").iter().map(HeaderValue::as_bytes);
        Challenges::parse(lines).unwrap().challenges.remove(0)
    }

    fn credential(challenge: &Challenge, code: &str) -> String {
        let payload = Object::new().with("code", code);
        Credential::new(challenge.clone(), payload, None).to_header().unwrap()
    }

    async fn pay(shop: &Router, code: &str) -> Response<Body> {
        ask(shop, Some(&credential(&challenge(shop).await, code))).await
    }

    #[tokio::test]
    async fn a_code_buys_once() {
        let shop = shop(&[("SUMMER25", 25), ("TEN", 10)]).unwrap();
        let served = pay(&shop, "SUMMER25").await;
        assert_eq!(served.status(), 200);
        let receipt = Receipt::parse(served.headers()["payment-receipt"].as_bytes()).unwrap();
        assert_eq!(receipt.method, "voucher");
        assert!(receipt.reference.unwrap().starts_with("drawer-pay_"));
        assert_eq!(&to_bytes(served.into_body(), 1024).await.unwrap()[..], b"sunny, 21 degrees");
        for code in ["SUMMER25", "TEN", "NEVERSOLD", "", "a b"] {
            let refused = pay(&shop, code).await;
            assert_eq!(refused.status(), 402, "{code:?}");
            assert!(refused.headers().contains_key("www-authenticate"), "{code:?}");
        }
    }

    #[tokio::test]
    async fn copies_at_once_buy_once() {
        let shop = shop(&[("SUMMER25", 25)]).unwrap();
        let (one, other) = (challenge(&shop).await, challenge(&shop).await);
        let (one, other) = (credential(&one, "SUMMER25"), credential(&other, "SUMMER25"));
        let (one, other) = tokio::join!(ask(&shop, Some(&one)), ask(&shop, Some(&other)));
        let served = [one, other].iter().filter(|answer| answer.status() == 200).count();
        assert_eq!(served, 1);
    }
}
