//! Who may see a payment, who gets its goods, and who is told that it belongs to somebody else.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::*;
use farthing_payment::*;
use farthing_primitives::*;
use farthing_store::MemoryStore;
use support::*;

/// Answers once it is let.
struct Shop {
    calls: AtomicU32,
    open: tokio::sync::Semaphore,
}

impl Shop {
    fn new(open: usize) -> Arc<Self> {
        Arc::new(Self { calls: AtomicU32::new(0), open: tokio::sync::Semaphore::new(open) })
    }
}

#[async_trait]
impl Upstream for Shop {
    async fn call(&self, _: &Payment) -> UpstreamAnswer {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.open.acquire().await.expect("open").forget();
        goods()
    }
}

fn sale(flow: Flow) -> Sale {
    sale_of("key", [1; 32], flow)
}

fn of_acme(sale: Sale) -> Sale {
    Sale { tenant: acme(), ..sale }
}

fn acme() -> TenantId {
    "acme".parse().expect("a tenant")
}

fn engine() -> (Engine, Arc<TestWorld>) {
    engine_over(Arc::new(MemoryStore::default()))
}

/// A process over what a former one left.
fn engine_over(store: Arc<MemoryStore>) -> (Engine, Arc<TestWorld>) {
    let world = TestWorld::standing();
    (engine_on(&store, &world, &Arc::default(), EngineConfig::default()), world)
}

/// Until every task has done what it can.
async fn settle_down() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn is_of_another_request(outcome: &SaleOutcome) -> bool {
    matches!(outcome, SaleOutcome::Conflict { kind: ConflictKind::OtherRequest, .. })
}

#[tokio::test(start_paused = true)]
async fn a_payment_under_way_is_shown_to_its_own_tenant_and_request_only() {
    let (engine, _) = engine();
    let shop = Shop::new(0);
    assert_eq!(engine.live(), 0);
    let outcome = Arc::new(Mutex::new(None));
    let (seller, sells, told) = (engine.clone(), shop.clone(), outcome.clone());
    tokio::spawn(async move {
        let outcome = seller.sell(sale(Flow::Authorization), sells).await;
        *told.lock().expect("whole") = Some(outcome);
    });
    settle_down().await;
    assert_eq!(engine.live(), 1);
    // The same authorization and request, in another tenant's name; and the same tenant with another request.
    let theirs = engine.sell(of_acme(sale(Flow::Authorization)), shop.clone()).await;
    assert!(is_of_another_request(&theirs), "{theirs:?}");
    let mut other = sale(Flow::Authorization);
    other.binding.request = RequestHash([2; 32]);
    let other = engine.sell(other, shop.clone()).await;
    assert!(is_of_another_request(&other), "{other:?}");
    shop.open.add_permits(1);
    settle_down().await;
    assert!(matches!(&*outcome.lock().expect("whole"), Some(SaleOutcome::Served { .. })));
    assert_eq!((shop.calls.load(Ordering::SeqCst), engine.live()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_finished_payment_is_shown_to_its_own_tenant_and_role_only() {
    let (engine, _) = engine();
    let shop = Shop::new(9);
    let SaleOutcome::Served { payment, .. } = engine.sell(sale(Flow::Authorization), shop.clone()).await
    else {
        panic!("not served");
    };
    settle_down().await;
    let theirs = engine.sell(of_acme(sale(Flow::Authorization)), shop.clone()).await;
    assert!(is_of_another_request(&theirs), "{theirs:?}");
    settle_down().await;
    // What was sold is nobody's to settle as a facilitator.
    let relayed = engine.relay(sale(Flow::Upfront)).await;
    assert!(is_of_another_request(&relayed), "{relayed:?}");
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);

    let found = engine.status(payment.id).await.expect("read").expect("known");
    assert_eq!((found.id, found.state.name()), (payment.id, "settled"));
    let nobodys = PaymentId::new(payment.created, [0xff; 10]);
    assert_eq!(engine.status(nobodys).await, Ok(None));
    let shown = engine.public_status(&TenantId::local(), payment.id).await.expect("read");
    assert_eq!(shown.map(|payment| payment.id), Some(payment.id));
    assert_eq!(engine.public_status(&acme(), payment.id).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn what_was_paid_and_not_delivered_is_delivered_to_who_comes_again() {
    let (engine, _) = engine();
    let shop = Shop::new(9);
    for _ in 0..2 {
        let outcome = engine.sell(sale(Flow::Upfront), shop.clone()).await;
        let SaleOutcome::Deliver { permit, .. } = outcome else { panic!("{outcome:?}") };
        permit.failed(Reason::new("broke_off", Fault::Us));
        settle_down().await;
    }
    let outcome = engine.sell(sale(Flow::Upfront), shop.clone()).await;
    let SaleOutcome::Deliver { permit, payment } = outcome else { panic!("{outcome:?}") };
    permit.delivered();
    settle_down().await;
    let delivered = engine.status(payment.id).await.expect("read").expect("known");
    assert_eq!((delivered.state.name(), delivered.delivery), ("settled", Delivery::Sent));
    // And then no more.
    let outcome = engine.sell(sale(Flow::Upfront), shop.clone()).await;
    assert!(matches!(outcome, SaleOutcome::Conflict { kind: ConflictKind::UsedUp, .. }), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_crash_cut_off_while_its_block_was_gone_is_owed_once_it_is_settled_again() {
    let store = Arc::new(MemoryStore::default());
    let (former, _) = engine_over(store.clone());
    let shop = Shop::new(9);
    let outcome = former.sell(sale(Flow::Upfront), shop.clone()).await;
    let SaleOutcome::Deliver { payment, permit } = outcome else { panic!("{outcome:?}") };
    settle_down().await;
    let called = former.status(payment.id).await.expect("read").expect("known");
    assert_eq!((called.state.name(), called.delivery), ("settled", Delivery::Called));
    let reorged = called.step(Event::Reorged, Timestamp::from_secs(11)).expect("fits");
    store.commit(Commit::new(reorged, "reorged")).await.expect("durable");

    let (engine, _) = engine_over(store);
    assert_eq!(engine.recover().await, Ok(Recovered { driven: 1, released: 0, cut_off: 1 }));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let settled = engine.status(payment.id).await.expect("read").expect("known");
    assert_eq!((settled.state.name(), settled.delivery), ("settled", Delivery::Failed));
    assert!(matches!(engine.sell(sale(Flow::Upfront), shop).await, SaleOutcome::Deliver { .. }));
    drop(permit);
}

/// The buyer was told that it failed, and is gone. It is owed what it turned out to have paid for; nobody delivers it
/// into the void.
#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_to_who_was_told_that_it_failed_until_it_comes_again() {
    let rail = Arc::<ScriptedRail>::default().with(|s| {
        s.submit = Some(Progress::Reverted { reason: Reason::new("reverted", Fault::Chain), tx: None });
    });
    let store = Arc::new(MemoryStore::default());
    let engine = engine_on(&store, &TestWorld::standing(), &rail, EngineConfig::default());
    let outcome = engine.sell(sale(Flow::Upfront), Shop::new(9)).await;
    let SaleOutcome::SettlementFailed { payment, .. } = outcome else { panic!("{outcome:?}") };
    tokio::time::sleep(Duration::from_secs(60)).await;
    let settled = engine.status(payment.id).await.expect("read").expect("known");
    assert_eq!((settled.state.name(), settled.delivery), ("settled", Delivery::None));
    let events = store.history(payment.id).await.expect("read");
    assert!(events.iter().all(|(_, event, _)| event != "call_started"), "{events:?}");
    assert!(matches!(engine.sell(sale(Flow::Upfront), Shop::new(9)).await, SaleOutcome::Deliver { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_still_stored_is_not_shown_after_its_time() {
    let (engine, world) = engine();
    let shop = Shop::new(9);
    assert!(matches!(engine.sell(sale(Flow::Authorization), shop.clone()).await, SaleOutcome::Served { .. }));
    settle_down().await;
    let replay = EngineConfig::default().replay_ttl;
    world.clock.fetch_add(u64::try_from(replay.as_millis()).expect("short"), Ordering::SeqCst);
    let in_time = engine.sell(sale(Flow::Authorization), shop.clone()).await;
    assert!(matches!(in_time, SaleOutcome::Served { .. }), "{in_time:?}");
    settle_down().await;
    world.clock.fetch_add(1, Ordering::SeqCst);
    let late = engine.sell(sale(Flow::Authorization), shop.clone()).await;
    assert!(matches!(late, SaleOutcome::Conflict { kind: ConflictKind::UsedUp, .. }), "{late:?}");
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_payments_are_under_way_than_we_can_bear() {
    let config = EngineConfig { max_live: 2, ..EngineConfig::default() };
    let engine = engine_on(&Arc::default(), &TestWorld::standing(), &Arc::default(), config);
    let numbered = |n: u8| Sale {
        key: ConsumptionKey::new([b'0' + n].escape_ascii().to_string()),
        ..sale(Flow::Authorization)
    };
    let shop = Shop::new(0);
    for n in 0..2 {
        let (engine, shop) = (engine.clone(), shop.clone());
        tokio::spawn(async move { engine.sell(numbered(n), shop).await });
        settle_down().await;
    }
    let refused = engine.sell(numbered(2), shop.clone()).await;
    assert!(matches!(refused, SaleOutcome::Unavailable { what: "too_many_payments" }), "{refused:?}");
    // One that is under way already is no more than that.
    let (again, sells) = (engine.clone(), shop.clone());
    let waits = tokio::spawn(async move { again.sell(numbered(0), sells).await });
    shop.open.add_permits(9);
    assert!(matches!(waits.await.expect("no panic"), SaleOutcome::Served { .. }));
    settle_down().await;
    assert!(matches!(engine.sell(numbered(2), shop.clone()).await, SaleOutcome::Served { .. }));
    assert_eq!(shop.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rail_is_known_by_its_network() {
    let (engine, _) = engine();
    assert!(engine.rail(&network()).is_some());
    assert!(engine.rail(&Network::eip155(1)).is_none());
    let mut elsewhere = sale(Flow::Authorization);
    elsewhere.terms.money = Registry::builtin().dollar(&Network::eip155(1)).expect("listed").atoms(1);
    let outcome = engine.sell(elsewhere, Shop::new(9)).await;
    assert!(matches!(outcome, SaleOutcome::Unavailable { what: "network" }), "{outcome:?}");
}
