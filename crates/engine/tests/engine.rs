//! The engine against a scripted rail: claims, duplicates, crashes at each step, unknown outcomes, reorganizations.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::*;
use farthing_payment::*;
use farthing_primitives::*;
use farthing_store::MemoryStore;
use support::*;

#[derive(Default)]
struct Shop {
    calls: AtomicU32,
    fails: bool,
    /// The process dies here: the call never returns.
    hangs: bool,
}

#[async_trait]
impl Upstream for Shop {
    async fn call(&self, _: &Payment) -> UpstreamAnswer {
        self.calls.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if self.fails {
            let reason = Reason::new("upstream_status_500", Fault::Payee);
            return UpstreamAnswer::Failed { reason, response: None };
        }
        goods()
    }
}

fn sale(n: u8) -> Sale {
    sale_of(&format!("key-{n}"), [n; 32], Flow::Authorization)
}

struct Bench {
    engine: Engine,
    rail: Arc<ScriptedRail>,
    store: Arc<MemoryStore>,
    world: Arc<TestWorld>,
}

fn bench() -> Bench {
    restart(Arc::new(MemoryStore::default()), Arc::default())
}

/// A new process over what the former one left.
fn restart(store: Arc<MemoryStore>, rail: Arc<ScriptedRail>) -> Bench {
    restart_at(store, rail, 10_000)
}

/// The same, when the wall clock of the new process shows this many milliseconds.
fn restart_at(store: Arc<MemoryStore>, rail: Arc<ScriptedRail>, millis: u64) -> Bench {
    let seed = (1 << 32) + (u64::from(Arc::strong_count(&store) as u32) << 16);
    let world = TestWorld::at(millis, seed);
    let engine = engine_on(&store, &world, &rail, EngineConfig::default());
    Bench { engine, rail, store, world }
}

impl Bench {
    async fn only_payment(&self) -> Payment {
        let all =
            self.store.payments(PaymentFilter { limit: 10, ..PaymentFilter::default() }).await.expect("read");
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().expect("one")
    }

    async fn assert_books(&self) {
        let check = self.store.check_books().await.expect("checked");
        assert_eq!(check.problems, Vec::<String>::new());
    }
}

fn served(outcome: &SaleOutcome) -> bool {
    matches!(outcome, SaleOutcome::Served { .. })
}

#[tokio::test(start_paused = true)]
async fn a_paid_request_is_served_settled_and_booked() {
    let bench = bench();
    let shop = Arc::new(Shop::default());
    let outcome = bench.engine.sell(sale(1), shop.clone()).await;
    assert!(served(&outcome), "{outcome:?}");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let payment = bench.only_payment().await;
    assert_eq!((payment.state.name(), payment.delivery), ("settled", Delivery::Sent));
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn twenty_parallel_copies_of_one_payment_are_one_service() {
    let bench = bench();
    let shop = Arc::new(Shop::default());
    let copies = (0..20).map(|_| {
        let (engine, shop) = (bench.engine.clone(), shop.clone());
        tokio::spawn(async move { engine.sell(sale(1), shop).await })
    });
    for outcome in futures_util::future::join_all(copies).await {
        assert!(served(&outcome.expect("no panic")));
    }
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
    assert_eq!(bench.rail.submitted.load(Ordering::SeqCst), 1);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_payment_shown_for_another_request_is_a_conflict() {
    let bench = bench();
    let shop = Arc::new(Shop::default());
    assert!(served(&bench.engine.sell(sale(1), shop.clone()).await));
    let mut other = sale(1);
    other.binding.request = RequestHash([99; 32]);
    let outcome = bench.engine.sell(other, shop.clone()).await;
    assert!(matches!(outcome, SaleOutcome::Conflict { kind: ConflictKind::OtherRequest, .. }), "{outcome:?}");
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
}

/// Whoever shows it for something else is told so, and is then in nobody's way.
#[tokio::test(flavor = "multi_thread")]
async fn the_request_that_a_payment_is_for_is_answered_right_after_another_was_refused() {
    let bench = bench();
    let shop = Arc::new(Shop::default());
    assert!(served(&bench.engine.sell(sale(1), shop.clone()).await));
    for round in 0..50 {
        let mut other = sale(1);
        other.binding.request = RequestHash([99; 32]);
        let outcome = bench.engine.sell(other, shop.clone()).await;
        assert!(matches!(outcome, SaleOutcome::Conflict { .. }), "{outcome:?}");
        let again = bench.engine.sell(sale(1), shop.clone()).await;
        assert!(served(&again), "{round}: {again:?}");
    }
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_payment_shown_again_gets_the_stored_answer_and_after_the_replay_time_none() {
    let bench = bench();
    let shop = Arc::new(Shop::default());
    assert!(served(&bench.engine.sell(sale(1), shop.clone()).await));
    assert!(served(&bench.engine.sell(sale(1), shop.clone()).await));
    bench.world.clock.fetch_add(601_000, Ordering::SeqCst);
    bench.engine.tend_once().await.expect("tended");
    let outcome = bench.engine.sell(sale(1), shop.clone()).await;
    assert!(matches!(outcome, SaleOutcome::Conflict { kind: ConflictKind::UsedUp, .. }), "{outcome:?}");
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unfunded_payment_is_refused_and_its_claim_is_free_again() {
    let bench = bench();
    let reason = Reason::new("insufficient_funds", Fault::Payer);
    bench.rail.clone().with(|s| s.funds = Some(Funds::Refused(reason.clone())));
    let shop = Arc::new(Shop::default());
    let outcome = bench.engine.sell(sale(1), shop.clone()).await;
    assert!(matches!(&outcome, SaleOutcome::Refused { reason: r } if *r == reason), "{outcome:?}");
    assert_eq!(shop.calls.load(Ordering::SeqCst), 0);
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.rail.clone().with(|s| s.funds = None);
    assert!(served(&bench.engine.sell(sale(1), shop).await));
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_upstream_costs_nothing_and_a_repeatable_request_may_try_again() {
    let bench = bench();
    let broken = Arc::new(Shop { fails: true, ..Shop::default() });
    let outcome = bench.engine.sell(sale(1), broken).await;
    assert!(matches!(outcome, SaleOutcome::NotCharged { .. }), "{outcome:?}");
    assert_eq!(bench.rail.submitted.load(Ordering::SeqCst), 0);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(served(&bench.engine.sell(sale(1), Arc::new(Shop::default())).await));
    assert_eq!(bench.rail.submitted.load(Ordering::SeqCst), 1);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_upstream_that_may_not_be_repeated_is_a_conflict_afterwards() {
    let bench = bench();
    let mut post = sale(1);
    post.binding.repeatable = false;
    let broken = Arc::new(Shop { fails: true, ..Shop::default() });
    assert!(matches!(bench.engine.sell(post.clone(), broken).await, SaleOutcome::NotCharged { .. }));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let outcome = bench.engine.sell(post, Arc::new(Shop::default())).await;
    assert!(matches!(outcome, SaleOutcome::Conflict { kind: ConflictKind::UsedUp, .. }), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_the_upstream_works_releases_unsettled() {
    for repeatable in [true, false] {
        let before = bench();
        let mut one = sale(1);
        one.binding.repeatable = repeatable;
        let hanging = Arc::new(Shop { hangs: true, ..Shop::default() });
        let cut =
            tokio::time::timeout(Duration::from_secs(1), before.engine.sell(one.clone(), hanging)).await;
        assert!(cut.is_err());
        assert_eq!(before.only_payment().await.delivery, Delivery::Called);
        let after = restart(before.store.clone(), before.rail.clone());
        let found = after.engine.recover().await.expect("recovered");
        assert_eq!(found.cut_off, 1);
        let shop = Arc::new(Shop::default());
        let outcome = after.engine.sell(one, shop.clone()).await;
        if repeatable {
            assert!(served(&outcome), "{outcome:?}");
            assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
        } else {
            let interrupted =
                matches!(outcome, SaleOutcome::Conflict { kind: ConflictKind::Interrupted, .. });
            assert!(interrupted, "{outcome:?}");
            assert_eq!(shop.calls.load(Ordering::SeqCst), 0);
            assert_eq!(after.rail.submitted.load(Ordering::SeqCst), 0);
        }
        after.assert_books().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_answer_was_stored_settles_and_serves_it() {
    let before = bench();
    before.rail.clone().with(|s| {
        s.submit = Some(Progress::Open);
        s.progress = Some(Progress::Open);
    });
    let shop = Arc::new(Shop::default());
    let outcome = before.engine.sell(sale(1), shop.clone()).await;
    assert!(matches!(outcome, SaleOutcome::Pending { .. }), "{outcome:?}");
    let rail = Arc::new(ScriptedRail::default());
    let after = restart(before.store.clone(), rail);
    assert_eq!(after.engine.recover().await.expect("recovered").driven, 1);
    let outcome = after.engine.sell(sale(1), shop.clone()).await;
    assert!(served(&outcome), "{outcome:?}");
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
    assert_eq!(after.rail.submitted.load(Ordering::SeqCst), 0, "never submitted a second time");
    after.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_settlement_is_pending_then_served_and_never_tried_twice() {
    let bench = bench();
    bench.rail.clone().with(|s| {
        s.submit = Some(Progress::Open);
        s.progress = Some(Progress::Open);
    });
    let shop = Arc::new(Shop::default());
    let outcome = bench.engine.sell(sale(1), shop.clone()).await;
    let SaleOutcome::Pending { tx, .. } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(tx.as_ref().map(TxRef::as_str), Some("0xabc"));
    bench.rail.clone().with(|s| s.progress = None);
    let outcome = bench.engine.sell(sale(1), shop.clone()).await;
    assert!(served(&outcome), "{outcome:?}");
    assert_eq!(bench.rail.submitted.load(Ordering::SeqCst), 1);
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn funds_that_vanish_while_the_upstream_works_leave_the_answer_unsent() {
    let bench = bench();
    let reason = Reason::new("insufficient_funds", Fault::Payer);
    bench.rail.clone().with(|s| s.prepare = Some(NotPrepared::Refused(reason)));
    let outcome = bench.engine.sell(sale(1), Arc::new(Shop::default())).await;
    assert!(matches!(outcome, SaleOutcome::Refused { .. }), "{outcome:?}");
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_reverted_attempt_is_told_and_watched_until_the_authorization_is_dead() {
    let bench = bench();
    let reason = Reason::new("transaction_failed", Fault::Chain);
    bench.rail.clone().with(|s| {
        s.submit = Some(Progress::Reverted { reason: reason.clone(), tx: None });
        s.progress = Some(Progress::Open);
    });
    let outcome = bench.engine.sell(sale(1), Arc::new(Shop::default())).await;
    assert!(matches!(outcome, SaleOutcome::SettlementFailed { .. }), "{outcome:?}");
    assert_eq!(bench.only_payment().await.state.name(), "lapsing");
    bench.rail.clone().with(|s| s.progress = Some(Progress::Dead(reason.clone())));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.only_payment().await.state.name(), "failed");
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_reorganized_away_is_noticed_and_settled_again() {
    let bench = bench();
    assert!(served(&bench.engine.sell(sale(1), Arc::new(Shop::default())).await));
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.rail.clone().with(|s| {
        s.canonical = Some(false);
        s.progress = Some(Progress::Open);
    });
    bench.engine.tend_once().await.expect("tended");
    assert_eq!(bench.only_payment().await.state.name(), "settling");
    bench.assert_books().await;
    bench.rail.clone().with(|s| s.progress = None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.only_payment().await.state.name(), "settled");
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_cannot_be_asked_serves_nothing_and_keeps_no_claim() {
    let bench = bench();
    bench.rail.clone().with(|s| s.funds = Some(Funds::Unavailable("chain")));
    let shop = Arc::new(Shop::default());
    let outcome = bench.engine.sell(sale(1), shop.clone()).await;
    assert!(matches!(outcome, SaleOutcome::Unavailable { .. }), "{outcome:?}");
    assert_eq!(shop.calls.load(Ordering::SeqCst), 0);
    bench.rail.clone().with(|s| s.funds = None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(served(&bench.engine.sell(sale(1), shop).await));
}

#[tokio::test(start_paused = true)]
async fn upfront_settles_first_and_what_is_not_delivered_stays_an_entitlement() {
    let bench = bench();
    let mut upfront = sale(1);
    upfront.flow = Flow::Upfront;
    let shop = Arc::new(Shop::default());
    let outcome = bench.engine.sell(upfront.clone(), shop.clone()).await;
    let SaleOutcome::Deliver { payment, permit } = outcome else { panic!("{outcome:?}") };
    assert_eq!(payment.state.name(), "settled");
    permit.failed(Reason::new("upstream_status_500", Fault::Payee));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let outcome = bench.engine.sell(upfront.clone(), shop.clone()).await;
    let SaleOutcome::Deliver { permit, .. } = outcome else { panic!("{outcome:?}") };
    permit.delivered();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let outcome = bench.engine.sell(upfront, shop).await;
    assert!(matches!(outcome, SaleOutcome::Conflict { kind: ConflictKind::UsedUp, .. }), "{outcome:?}");
    assert_eq!(bench.rail.submitted.load(Ordering::SeqCst), 1);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn background_serves_first_within_the_exposure_and_settles_behind_it() {
    let bench = bench();
    let background = |n| {
        let mut sale = sale(n);
        sale.flow = Flow::Background;
        sale.exposure = Some(ExposureLimit { per_payer: 1000, total: 1000 });
        sale
    };
    bench.rail.clone().with(|s| {
        s.submit = Some(Progress::Open);
        s.progress = Some(Progress::Open);
    });
    let shop = Arc::new(Shop::default());
    let SaleOutcome::Deliver { permit, .. } = bench.engine.sell(background(1), shop.clone()).await else {
        panic!("not delivered")
    };
    permit.delivered();
    tokio::time::sleep(Duration::from_millis(10)).await;
    // The first is served and not settled: a second would be more than the payee allows.
    assert!(matches!(bench.engine.sell(background(2), shop.clone()).await, SaleOutcome::OverExposed));
    bench.rail.clone().with(|s| s.progress = None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(matches!(bench.engine.sell(background(2), shop).await, SaleOutcome::Deliver { .. }));
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn what_failed_and_is_shown_again_counts_towards_the_exposure_once_more() {
    let bench = bench();
    let background = |n| {
        let mut sale = sale(n);
        sale.flow = Flow::Background;
        sale.exposure = Some(ExposureLimit { per_payer: 1000, total: 1000 });
        sale
    };
    let shop = Arc::new(Shop::default());
    for n in [1, 2] {
        let SaleOutcome::Deliver { permit, .. } = bench.engine.sell(background(n), shop.clone()).await else {
            panic!("not delivered")
        };
        permit.failed(Reason::new("upstream_failed", Fault::Us));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.rail.clone().with(|s| {
        s.submit = Some(Progress::Open);
        s.progress = Some(Progress::Open);
    });
    let SaleOutcome::Deliver { permit, .. } = bench.engine.sell(background(1), shop.clone()).await else {
        panic!("not delivered")
    };
    assert!(matches!(bench.engine.sell(background(2), shop.clone()).await, SaleOutcome::OverExposed));
    permit.delivered();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(matches!(bench.engine.sell(background(2), shop.clone()).await, SaleOutcome::OverExposed));
    bench.rail.clone().with(|s| s.progress = None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(matches!(bench.engine.sell(background(2), shop).await, SaleOutcome::Deliver { .. }));
    bench.assert_books().await;
}

/// A chain that stood still for longer than settlements are watched, and goes on without its last blocks.
#[tokio::test(start_paused = true)]
async fn a_settlement_whose_block_may_still_go_is_watched_however_long_ago_it_was() {
    let bench = bench();
    assert!(served(&bench.engine.sell(sale(1), Arc::new(Shop::default())).await));
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.rail.clone().with(|s| {
        s.canonical = Some(true);
        s.replaceable = Some(7);
    });
    for _ in 0..3 {
        bench.engine.tend_once().await.expect("tended");
        tokio::time::sleep(EngineConfig::default().reorg_horizon).await;
    }
    assert_eq!(bench.only_payment().await.state.name(), "settled");
    bench.rail.clone().with(|s| {
        s.gone = vec![7];
        s.progress = Some(Progress::Open);
    });
    bench.engine.tend_once().await.expect("tended");
    assert_eq!(bench.only_payment().await.state.name(), "settling");
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_buyer_that_hangs_up_cancels_nothing() {
    let bench = bench();
    let shop = Arc::new(Shop::default());
    let gone = tokio::time::timeout(Duration::from_millis(5), bench.engine.sell(sale(1), shop.clone())).await;
    assert!(gone.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.only_payment().await.state.name(), "settled");
    assert!(served(&bench.engine.sell(sale(1), shop.clone()).await));
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_facilitator_gives_the_original_outcome_to_a_repeated_settle() {
    let bench = bench();
    let mut relayed = sale(1);
    relayed.flow = Flow::Upfront;
    let SaleOutcome::Settled { payment: first } = bench.engine.relay(relayed.clone()).await else {
        panic!("not settled")
    };
    let SaleOutcome::Settled { payment: again } = bench.engine.relay(relayed).await else {
        panic!("not settled again")
    };
    assert_eq!(first.id, again.id);
    assert_eq!(bench.rail.submitted.load(Ordering::SeqCst), 1);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_refund_is_sent_once_and_booked() {
    let bench = bench();
    let key = farthing_evm::Key::from_bytes([7; 32]).expect("a key");
    let mut paid = sale(1);
    paid.terms.payee = farthing_evm::from_alloy(key.address());
    assert!(served(&bench.engine.sell(paid, Arc::new(Shop::default())).await));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let id = bench.only_payment().await.id;
    let stranger = farthing_evm::Key::from_bytes([8; 32]).expect("a key");
    assert!(matches!(bench.engine.refund(id, &stranger).await, Err(RefundError::WrongKey { .. })));
    let first = bench.engine.refund(id, &key).await.expect("refunded");
    let again = bench.engine.refund(id, &key).await.expect("refunded");
    assert_eq!(first, again);
    assert_eq!(bench.rail.submitted.load(Ordering::SeqCst), 2, "the sale and one refund");
    assert_eq!(bench.only_payment().await.state.name(), "refunded");
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_stays_unclear_is_looked_at_in_measure_and_in_the_end_left_to_a_person() {
    let bench = bench();
    bench.rail.clone().with(|s| {
        s.submit = Some(Progress::Unclear { tx: None });
        s.progress = Some(Progress::Unclear { tx: None });
    });
    let outcome = bench.engine.sell(sale(1), Arc::new(Shop::default())).await;
    assert!(matches!(outcome, SaleOutcome::Pending { .. }), "{outcome:?}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let looks = bench.rail.script.lock().expect("whole").looks;
    assert!(looks < 200, "{looks} looks in 40 s keep a node busy");
    bench.world.clock.fetch_add(1_000_000_000 + 2 * 3_600_000, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.engine.live(), 0);
    assert_eq!(bench.only_payment().await.state.name(), "unknown", "never called failed");
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_was_reorganized_away_is_noticed_behind_a_newer_one_that_stands() {
    let bench = bench();
    for (n, block) in [(1u8, 7u64), (2, 9)] {
        bench.rail.clone().with(|s| {
            s.submit = Some(Progress::Included {
                proof: Proof {
                    tx: TxRef::new(format!("0x{n}")),
                    witness: Witness::Chain,
                    block,
                    block_hash: [n; 32],
                    log_index: 0,
                    fee: None,
                },
                deep: true,
                slots: Vec::new(),
            });
        });
        assert!(served(&bench.engine.sell(sale(n), Arc::new(Shop::default())).await));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The chain that holds the newer settlement does not hold the block of the older one.
    bench.rail.clone().with(|s| {
        s.canonical = Some(true);
        s.gone = vec![7];
        s.progress = Some(Progress::Open);
    });
    bench.engine.tend_once().await.expect("tended");
    let all =
        bench.store.payments(PaymentFilter { limit: 10, ..PaymentFilter::default() }).await.expect("read");
    let mut states: Vec<_> = all.iter().map(|payment| payment.state.name()).collect();
    states.sort_unstable();
    assert_eq!(states, ["settled", "settling"]);
    bench.assert_books().await;
}

const DAY_MS: i64 = 86_400_000;

impl Bench {
    /// Time passes, for every clock.
    async fn pass(&self, duration: Duration) {
        self.world.clock.fetch_add(u64::try_from(duration.as_millis()).expect("short"), Ordering::SeqCst);
        self.settle_down().await;
    }

    /// The wall clock is set ahead of what it was at first, or back.
    async fn leap(&self, millis: i64) {
        self.world.wall_ahead.store(millis, Ordering::SeqCst);
        self.settle_down().await;
    }

    /// All that has something to do does it.
    async fn settle_down(&self) {
        tokio::time::sleep(Duration::from_secs(40)).await;
    }

    async fn events(&self, id: PaymentId) -> Vec<String> {
        let history = self.store.history(id).await.expect("read");
        history.into_iter().map(|(_, event, _)| event).collect()
    }

    /// The postings of a payment by their purpose.
    async fn posted(&self, id: PaymentId, purpose: farthing_ledger::Purpose) -> Vec<farthing_ledger::Phase> {
        let transfers = self.store.transfers_of(id).await.expect("read");
        transfers.into_iter().filter(|(id, ..)| id.purpose == purpose).map(|(.., phase)| phase).collect()
    }
}

/// In MPP a payment buys one answer, so that it is sent is said by whoever sees it leave.
#[tokio::test(start_paused = true)]
async fn an_answer_of_mpp_is_sent_when_that_is_said_and_not_when_somebody_waits_for_it() {
    let bench = bench();
    let mut sale = sale(1);
    sale.terms.dialect = farthing_payment::Dialect::Mpp;
    for _ in 0..2 {
        let outcome = bench.engine.sell(sale.clone(), Arc::new(Shop::default())).await;
        let SaleOutcome::Served { payment, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(payment.delivery, Delivery::Stored);
        bench.settle_down().await;
        assert_eq!(bench.only_payment().await.delivery, Delivery::Stored);
    }
    let payment = bench.only_payment().await;
    bench.engine.sent(&payment).await;
    // Said twice, it is no other.
    bench.engine.sent(&payment).await;
    assert_eq!(bench.only_payment().await.delivery, Delivery::Sent);
    let outcome = bench.engine.sell(sale, Arc::new(Shop::default())).await;
    assert!(matches!(outcome, SaleOutcome::Served { payment, .. } if payment.delivery == Delivery::Sent));
}

fn background(n: u8) -> Sale {
    let mut sale = sale(n);
    sale.flow = Flow::Background;
    sale.exposure = Some(ExposureLimit { per_payer: 1_000_000, total: 1_000_000 });
    sale
}

/// A payment that was served on credit, and for which no attempt can be made.
async fn served_on_credit(bench: &Bench) -> PaymentId {
    bench.rail.clone().with(|s| {
        s.prepare = Some(NotPrepared::Unavailable("chain"));
        s.progress = Some(Progress::Open);
    });
    let outcome = bench.engine.sell(background(1), Arc::new(Shop::default())).await;
    let SaleOutcome::Deliver { permit, payment } = outcome else { panic!("{outcome:?}") };
    permit.delivered();
    bench.settle_down().await;
    assert_eq!(bench.only_payment().await.delivery, Delivery::Sent);
    payment.id
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_leaps_ahead_forgets_no_answer() {
    let bench = bench();
    let shop = Arc::new(Shop::default());
    assert!(served(&bench.engine.sell(sale(1), shop.clone()).await));
    bench.pass(Duration::from_secs(590)).await;
    bench.leap(10 * DAY_MS).await;
    bench.engine.tend_once().await.expect("tended");
    assert!(served(&bench.engine.sell(sale(1), shop.clone()).await), "shown again");
    // Set right again, and back: what was stored meanwhile is no older for it.
    assert!(served(&bench.engine.sell(sale(2), shop.clone()).await));
    bench.leap(-10 * DAY_MS).await;
    assert!(served(&bench.engine.sell(sale(3), shop.clone()).await));
    bench.leap(0).await;
    bench.pass(Duration::from_secs(100)).await;
    bench.engine.tend_once().await.expect("tended");
    let outcome = bench.engine.sell(sale(1), shop.clone()).await;
    assert!(matches!(outcome, SaleOutcome::Conflict { kind: ConflictKind::UsedUp, .. }), "{outcome:?}");
    assert!(served(&bench.engine.sell(sale(2), shop.clone()).await));
    assert!(served(&bench.engine.sell(sale(3), shop.clone()).await));
    assert_eq!(shop.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_ahead_while_nothing_ran_forgets_no_answer() {
    let before = bench();
    let shop = Arc::new(Shop::default());
    assert!(served(&before.engine.sell(sale(1), shop.clone()).await));
    before.settle_down().await;
    let after = restart_at(before.store.clone(), before.rail.clone(), 10 * DAY_MS as u64);
    after.engine.recover().await.expect("recovered");
    after.engine.tend_once().await.expect("tended");
    let id = after.only_payment().await.id;
    assert!(
        after.store.response(id).await.expect("read").is_some(),
        "kept until this process has run for so long"
    );
    after.pass(Duration::from_secs(601)).await;
    after.engine.tend_once().await.expect("tended");
    assert!(after.store.response(id).await.expect("read").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_back_keeps_no_attempt_from_becoming_unknown() {
    let bench = bench();
    bench.rail.clone().with(|s| {
        s.submit = Some(Progress::Open);
        s.progress = Some(Progress::Open);
    });
    let engine = bench.engine.clone();
    let selling = tokio::spawn(async move { engine.sell(sale(1), Arc::new(Shop::default())).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.only_payment().await.state.name(), "settling");
    bench.leap(-DAY_MS).await;
    bench.pass(Duration::from_secs(31)).await;
    assert_eq!(bench.only_payment().await.state.name(), "unknown");
    assert!(matches!(selling.await.expect("no panic"), SaleOutcome::Pending { .. }));
}

#[tokio::test(start_paused = true)]
async fn nor_does_one_that_was_set_back_while_nothing_ran() {
    let before = restart_at(Arc::default(), Arc::default(), 10 * DAY_MS as u64);
    before.rail.clone().with(|s| {
        s.submit = Some(Progress::Open);
        s.progress = Some(Progress::Open);
    });
    let cut = before.engine.sell(sale(1), Arc::new(Shop::default()));
    assert!(tokio::time::timeout(Duration::from_secs(1), cut).await.is_err());
    assert_eq!(before.only_payment().await.state.name(), "settling");
    // What the former process does after this instant is a dead process's, and finds the version moved.
    let after = restart(before.store.clone(), before.rail.clone());
    after.engine.recover().await.expect("recovered");
    after.settle_down().await;
    assert_eq!(after.only_payment().await.state.name(), "settling");
    after.pass(Duration::from_secs(31)).await;
    assert_eq!(after.only_payment().await.state.name(), "unknown");
}

#[tokio::test(start_paused = true)]
async fn what_was_served_on_credit_is_no_loss_because_our_clock_says_so() {
    let bench = bench();
    let id = served_on_credit(&bench).await;
    bench.leap(2_000_000_000).await;
    bench.pass(Duration::from_secs(7200)).await;
    let payment = bench.only_payment().await;
    assert_eq!(payment.state.name(), "funded", "held, and not guessed");
    assert_eq!(bench.posted(id, farthing_ledger::Purpose::WriteOff).await, []);
    // The chain's clock was right: it settles.
    bench.rail.clone().with(|s| {
        s.prepare = None;
        s.progress = None;
    });
    bench.settle_down().await;
    assert_eq!(bench.only_payment().await.state.name(), "settled");
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_served_on_credit_is_a_posted_loss_by_the_chains_proof() {
    let bench = bench();
    let id = served_on_credit(&bench).await;
    let reason = Reason::new("authorization_expired", Fault::Us);
    bench.rail.clone().with(|s| s.progress = Some(Progress::Dead(reason)));
    bench.settle_down().await;
    assert_eq!(bench.only_payment().await.state.name(), "failed");
    assert_eq!(bench.posted(id, farthing_ledger::Purpose::WriteOff).await, [farthing_ledger::Phase::Posted]);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_served_on_credit_is_paid_if_somebody_else_submitted_it() {
    let bench = bench();
    let id = served_on_credit(&bench).await;
    bench.rail.clone().with(|s| s.progress = None);
    bench.settle_down().await;
    assert_eq!(bench.only_payment().await.state.name(), "settled");
    assert_eq!(bench.rail.submitted.load(Ordering::SeqCst), 0);
    assert_eq!(bench.posted(id, farthing_ledger::Purpose::WriteOff).await, []);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_leap_ahead_ends_no_watch() {
    let bench = bench();
    bench.rail.clone().with(|s| {
        s.submit = Some(Progress::Unclear { tx: None });
        s.progress = Some(Progress::Unclear { tx: None });
    });
    bench.engine.sell(sale(1), Arc::new(Shop::default())).await;
    bench.leap(1_000_000_000_000).await;
    assert_eq!(bench.engine.live(), 1, "still watched");
    bench.rail.clone().with(|s| s.progress = None);
    bench.settle_down().await;
    assert_eq!(bench.only_payment().await.state.name(), "settled");
}

#[tokio::test(start_paused = true)]
async fn what_a_person_was_called_for_is_looked_at_again() {
    let bench = bench();
    bench.rail.clone().with(|s| {
        s.submit = Some(Progress::Unclear { tx: None });
        s.progress = Some(Progress::Unclear { tx: None });
    });
    bench.engine.sell(sale(1), Arc::new(Shop::default())).await;
    bench.pass(Duration::from_secs(1_000_000 + 2 * 3600)).await;
    assert_eq!(bench.engine.live(), 0);
    assert_eq!(bench.only_payment().await.state.name(), "unknown");
    // The node is back, and shows it.
    bench.rail.clone().with(|s| s.progress = None);
    bench.engine.tend_once().await.expect("tended");
    bench.settle_down().await;
    assert_eq!(bench.only_payment().await.state.name(), "settled");
}

#[tokio::test(start_paused = true)]
async fn a_leap_of_the_clock_hides_no_reorganization() {
    for leap in [10 * DAY_MS, -9_000] {
        let bench = bench();
        assert!(served(&bench.engine.sell(sale(1), Arc::new(Shop::default())).await));
        bench.leap(leap).await;
        bench.rail.clone().with(|s| {
            s.canonical = Some(false);
            s.progress = Some(Progress::Open);
        });
        bench.engine.tend_once().await.expect("tended");
        assert_eq!(bench.only_payment().await.state.name(), "settling", "{leap}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reorganization_while_nothing_ran_is_noticed_however_long_that_was() {
    let before = bench();
    for n in 1..=3 {
        assert!(served(&before.engine.sell(sale(n), Arc::new(Shop::default())).await));
    }
    before.settle_down().await;
    before.rail.clone().with(|s| {
        s.canonical = Some(false);
        s.progress = Some(Progress::Open);
    });
    let after = restart_at(before.store.clone(), before.rail.clone(), 10 * DAY_MS as u64);
    after.engine.recover().await.expect("recovered");
    after.engine.tend_once().await.expect("tended");
    let all = after.store.payments(PaymentFilter { limit: 10, ..Default::default() }).await.expect("read");
    assert!(all.iter().all(|payment| payment.state.name() == "settling"), "{all:?}");
    after.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn two_payments_of_one_lost_block_are_both_taken_back_and_their_logs_are_free_again() {
    let bench = bench();
    let in_block = |log_index| Progress::Included {
        proof: Proof {
            tx: TxRef::new("0xbatch"),
            witness: Witness::Chain,
            block: 7,
            block_hash: [7; 32],
            log_index,
            fee: None,
        },
        deep: true,
        slots: Vec::new(),
    };
    for n in [1u8, 2] {
        bench.rail.clone().with(|s| s.submit = Some(in_block(u64::from(n))));
        assert!(served(&bench.engine.sell(sale(n), Arc::new(Shop::default())).await));
    }
    bench.settle_down().await;
    bench.rail.clone().with(|s| {
        s.canonical = Some(false);
        s.progress = Some(Progress::Open);
    });
    bench.engine.tend_once().await.expect("tended");
    let states = |all: &[Payment]| -> Vec<&'static str> { all.iter().map(|p| p.state.name()).collect() };
    let all = bench.store.payments(PaymentFilter { limit: 10, ..Default::default() }).await.expect("read");
    assert_eq!(states(&all), ["settling", "settling"]);
    bench.assert_books().await;
    // The logs are free: what comes back first takes one, whoever had it before, and nobody else does.
    bench.rail.clone().with(|s| {
        s.canonical = None;
        s.progress = Some(in_block(1));
    });
    bench.settle_down().await;
    let all = bench.store.payments(PaymentFilter { limit: 10, ..Default::default() }).await.expect("read");
    let mut named = states(&all);
    named.sort_unstable();
    assert_eq!(named, ["lapsing", "settled"]);
    let settled = all.iter().find(|payment| payment.state.name() == "settled").expect("one");
    let events = bench.events(settled.id).await;
    assert_eq!(events[events.len() - 2..], ["reorged", "included_deep"], "{events:?}");
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_served_payment_that_a_reorganization_took_away_for_good_is_a_posted_loss() {
    let bench = bench();
    assert!(served(&bench.engine.sell(sale(1), Arc::new(Shop::default())).await));
    bench.settle_down().await;
    let reason = Reason::new("authorization_expired", Fault::Us);
    bench.rail.clone().with(|s| {
        s.canonical = Some(false);
        s.progress = Some(Progress::Dead(reason));
    });
    bench.engine.tend_once().await.expect("tended");
    bench.settle_down().await;
    let payment = bench.only_payment().await;
    assert_eq!((payment.state.name(), payment.delivery), ("failed", Delivery::Sent));
    let events = bench.events(payment.id).await;
    assert_eq!(events[events.len() - 2..], ["reorged", "dead"], "{events:?}");
    assert_eq!(
        bench.posted(payment.id, farthing_ledger::Purpose::WriteOff).await,
        [farthing_ledger::Phase::Posted]
    );
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn one_lost_settlement_that_cannot_be_taken_back_keeps_none_of_the_others() {
    let bench = bench();
    let key = farthing_evm::Key::from_bytes([7; 32]).expect("a key");
    for n in [1u8, 2] {
        let mut paid = sale(n);
        paid.terms.payee = farthing_evm::from_alloy(key.address());
        assert!(served(&bench.engine.sell(paid, Arc::new(Shop::default())).await));
    }
    bench.settle_down().await;
    let all = bench.store.payments(PaymentFilter { limit: 10, ..Default::default() }).await.expect("read");
    bench.rail.clone().with(|s| {
        s.canonical = Some(false);
        s.progress = Some(Progress::Open);
    });
    // A refund of one is under way.
    let (engine, id) = (bench.engine.clone(), all[1].id);
    tokio::spawn(async move { engine.refund(id, &key).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.engine.tend_once().await.expect("tended");
    let state = |id| {
        let store = bench.store.clone();
        async move { store.payment(id).await.expect("read").expect("there").state.name() }
    };
    assert_eq!((state(all[0].id).await, state(all[1].id).await), ("settling", "refunding"));
}

/// A payment to the holder of this key.
async fn paid_to(bench: &Bench, key: &farthing_evm::Key) -> PaymentId {
    let mut paid = sale(1);
    paid.terms.payee = farthing_evm::from_alloy(key.address());
    assert!(served(&bench.engine.sell(paid, Arc::new(Shop::default())).await));
    bench.settle_down().await;
    bench.only_payment().await.id
}

#[tokio::test(start_paused = true)]
async fn a_refund_whose_transaction_moved_nothing_is_tried_again_and_done_once() {
    let bench = bench();
    let key = farthing_evm::Key::from_bytes([7; 32]).expect("a key");
    let id = paid_to(&bench, &key).await;
    bench.rail.clone().with(|s| {
        let reason = Reason::new("transaction_failed", Fault::Chain);
        // A first word that it reverted ends nothing: its authorization lives.
        s.refund = [Progress::Reverted { reason, tx: None }, Progress::Lost, Progress::Open].into();
    });
    let done = bench.engine.refund(id, &key).await.expect("refunded");
    assert!(matches!(done, Refunded::Done { .. }), "{done:?}");
    let events = bench.events(id).await;
    assert_eq!(
        events[events.len() - 3..],
        ["refund_started", "refund_replaced", "refund_included"],
        "{events:?}"
    );
    assert_eq!(bench.posted(id, farthing_ledger::Purpose::Refund).await, [farthing_ledger::Phase::Posted]);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_refund_is_given_up_with_proof_only_and_may_then_be_made_anew() {
    let bench = bench();
    let key = farthing_evm::Key::from_bytes([7; 32]).expect("a key");
    let id = paid_to(&bench, &key).await;
    let open = || vec![Progress::Open; 9];
    bench.rail.clone().with(|s| {
        s.prepare = None;
        s.refund = open().into_iter().chain([Progress::Dead(Reason::new("expired", Fault::Us))]).collect();
    });
    let refused = bench.engine.refund(id, &key).await;
    assert!(matches!(refused, Err(RefundError::Refused(_))), "{refused:?}");
    assert_eq!(bench.only_payment().await.state.name(), "settled");
    let done = bench.engine.refund(id, &key).await.expect("refunded");
    assert!(matches!(done, Refunded::Done { .. }), "{done:?}");
    assert_eq!(bench.posted(id, farthing_ledger::Purpose::Refund).await, [farthing_ledger::Phase::Posted]);
    bench.assert_books().await;
}

#[tokio::test(start_paused = true)]
async fn a_refund_that_was_asked_for_and_left_at_any_moment_is_done_or_was_never_begun() {
    let key = farthing_evm::Key::from_bytes([7; 32]).expect("a key");
    let mut ends = std::collections::BTreeSet::new();
    for polls in 0..24 {
        let bench = bench();
        let id = paid_to(&bench, &key).await;
        {
            let mut asking = std::pin::pin!(bench.engine.refund(id, &key));
            for _ in 0..polls {
                if futures_util::FutureExt::now_or_never(asking.as_mut()).is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        bench.settle_down().await;
        ends.insert(bench.only_payment().await.state.name());
        bench.assert_books().await;
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), ["refunded", "settled"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_a_refund_and_goes_leaves_one_that_is_followed_to_its_end() {
    let bench = bench();
    let key = farthing_evm::Key::from_bytes([7; 32]).expect("a key");
    let id = paid_to(&bench, &key).await;
    bench.rail.clone().with(|s| s.refund = vec![Progress::Open; 500].into());
    let engine = bench.engine.clone();
    let asking = tokio::spawn(async move { engine.refund(id, &key).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    asking.abort();
    bench.settle_down().await;
    bench.settle_down().await;
    assert_eq!(bench.only_payment().await.state.name(), "refunded");
    assert_eq!(bench.events(id).await.iter().filter(|event| *event == "refund_started").count(), 1);
    bench.assert_books().await;
}

/// The newest settlements are all in blocks that nobody has seen yet, so that they say nothing of the lost one behind
/// them, however many they are.
#[tokio::test(start_paused = true)]
async fn a_lost_settlement_is_noticed_behind_any_number_of_newer_ones() {
    let mut bench = bench();
    // All of them are watched, however long it takes to sell so many.
    let config = EngineConfig { reorg_horizon: Duration::from_secs(1_000_000), ..EngineConfig::default() };
    bench.engine = engine_on(&bench.store, &bench.world, &bench.rail, config);
    let settled_in = |block: u64, n: u32| Progress::Included {
        proof: Proof {
            tx: TxRef::new(format!("0x{n}")),
            witness: Witness::Chain,
            block,
            block_hash: [7; 32],
            log_index: 0,
            fee: None,
        },
        deep: true,
        slots: Vec::new(),
    };
    for n in 0..1500u32 {
        bench
            .rail
            .clone()
            .with(|s| s.submit = Some(settled_in(if n == 0 { 7 } else { 100 + u64::from(n) }, n)));
        let sale = sale_of(&format!("key-{n}"), [7; 32], Flow::Authorization);
        assert!(served(&bench.engine.sell(sale, Arc::new(Shop::default())).await));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.rail.clone().with(|s| {
        s.canonical = Some(true);
        s.gone = vec![7];
        s.progress = Some(Progress::Open);
    });
    let engine = bench.engine.clone();
    tokio::spawn(async move { engine.tend().await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let first =
        bench.store.payments(PaymentFilter { limit: 1, ..PaymentFilter::default() }).await.expect("read");
    assert_eq!(first[0].key.as_str(), "key-0");
    assert_eq!(first[0].state.name(), "settling");
    bench.assert_books().await;
}
