//! A price before one route of an axum service.
//!
//! `cargo run -p farthing-paywall --example axum`, then `curl -i http://127.0.0.1:4021/weather`: the answer is 402 with
//! the offer in both versions of x402. `/` is free.
//!
//! What sells is a [`Seller`]. A real service builds the engine (`farthing_engine::Engine`) over its store and its
//! chains; to stay short, this one has a till that takes nothing, and says 503 to whoever pays.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use farthing_engine::{BoxFuture, Sale, SaleOutcome, StoreError, Upstream, World};
use farthing_payment::{ConsumptionKey, Payment};
use farthing_paywall::{
    Amount, Limits, Paid, Paywall, PaywallLayer, Price, Route, RouteTable, Seller, Terms, Way,
};
use farthing_primitives::{Address, Network, PaymentId, PullMethod, Registry, Timestamp};
use farthing_rails::offer::BindingKey;
use tower::Layer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In what to be paid: dollars on Base Sepolia, to this address.
    let registry = Registry::builtin();
    let network = Network::from_name("base-sepolia")?;
    let usdc = registry.dollar(&network).ok_or("no dollar")?;
    let pay_to = Address::evm("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")?;
    let way = Arc::new(Way::new(&registry, usdc, pay_to, PullMethod::Eip3009)?);

    // What costs what.
    let weather = Paid::new(Price::Fixed(vec![way.offer(&Amount::parse("$0.002")?)?]));
    let routes = RouteTable::new(vec![
        ("GET /weather".parse()?, Route::paid(weather)),
        ("GET /".parse()?, Route::Free),
    ])?;

    // Whoever knows this secret can make offers in our name. Keep it, so that offers survive a restart.
    let secret = BindingKey::new([0x42; 32], None);
    let world = Arc::new(Clock(Instant::now()));
    let paywall = Paywall::new(Terms::new(routes), Arc::new(EmptyTill), world, secret, Limits::default());

    // The paywall goes around the whole router, so that it sees every path that leads to a handler.
    let app =
        Router::new().route("/", get(async || "free")).route("/weather", get(async || "sunny, 21 degrees"));
    let app = Router::new().fallback_service(PaywallLayer::new(paywall).layer(app));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:4021").await?;
    println!("http://{}/weather costs $0.002", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Takes no money, and so gives nothing away.
struct EmptyTill;

#[async_trait]
impl Seller for EmptyTill {
    async fn sell(&self, _: Sale, _: Arc<dyn Upstream>) -> SaleOutcome {
        SaleOutcome::Unavailable { what: "no_till" }
    }

    async fn payment(&self, _: PaymentId) -> Result<Option<Payment>, StoreError> {
        Ok(None)
    }

    async fn holder(&self, _: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        Ok(None)
    }

    fn sent(&self, _: &Payment) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
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
        // Only the engine draws, and there is none here.
        into.fill(0);
    }
}
