//! The seller's till on the embedded chain with the real escrow, the real stores, and a payer's own state machine as the
//! buyer: what is sold is paid, to the atom, whoever dies, disappears, cheats or comes first.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[path = "channels/fate.rs"]
mod fate;
#[path = "channels/yard.rs"]
mod yard;

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use farthing_channel::*;
use farthing_engine::*;
use farthing_evm::B256;
use farthing_evm::escrow;
use farthing_ledger::AccountKind;
use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::json;

use yard::*;

macro_rules! on_each_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::yard(super::Kind::Memory).await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::yard(super::Kind::Sqlite).await).await;
            })*
        }
    };
}

on_each_store! {
    ten_thousand_units_touch_the_chain_twice,
    a_channel_that_is_topped_up_and_settled_pays_to_the_atom,
    a_payee_that_is_its_own_relayer_needs_no_word_for_it,
    a_hundred_requests_at_once_share_no_increment,
    copies_of_one_request_are_served_and_charged_once,
    what_died_at_any_point_is_taken_up_with_nothing_lost_or_charged_twice,
    a_caller_that_goes_away_at_any_moment_leaves_nothing_half_made,
    a_commit_that_nobody_confirms_is_found_out_about,
    a_forced_close_is_answered_in_time_also_after_a_restart,
}

// ---- Open, pay, close.

/// A stream of so many units, paid as it goes, between one transaction that opens and one that closes.
async fn ten_thousand_units_touch_the_chain_twice(yard: Yard) {
    let house = yard.house(Setup::default()).await;
    let (payer, payee, wei) =
        (yard.balance_of(PAYER).await, yard.balance_of(PAYEE).await, yard.wei(RELAYER).await);
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 20_000);
    let receipt = buyer.open(&yard, &house, 20_000).await.expect("opened");
    assert_eq!((receipt.deposit, receipt.accepted, receipt.spent), (20_000, 0, 0));
    assert_eq!((yard.escrowed().await, yard.balance_of(PAYER).await), (20_000, payer - 20_000));

    // Three atoms for two units, so that every other unit costs one and the next two.
    let price = Price::decimal(15, 1, Unit::Token).unwrap();
    let first = buyer.raise(&yard, 1_000);
    let asked = buyer.asked(&house, buyer.shown(1_000, &first), 1, price.clone(), None);
    let Started::Serve(ticket) = house.till.start_charge(&asked).await.expect("begun") else {
        panic!("served before")
    };
    let step = 20;
    let mut left = 10_000 / step;
    let mut vouchers = 1;
    while left > 0 {
        match ticket.meter(step).await {
            Ok(receipt) => {
                // What leaves is durable.
                assert_eq!(yard.payee(buyer.id()).await.spent(), receipt.spent);
                buyer.step(&yard, PayerEvent::Received { price: price.clone(), units: step });
                left -= 1;
            }
            Err(TillError::Refused(Refusal::NeedsVoucher(need))) => {
                assert!(buyer.payer.answer(&need).is_ok(), "{need:?}");
                let to = (need.required + 970).min(20_000);
                buyer.voucher(&yard, &house, to).await.expect("accepted");
                assert_eq!(ticket.wait(Some(step), Duration::from_secs(5)).await, Ok(Woken::Covered));
                vouchers += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let receipt = ticket.end(0).await.expect("ended");
    assert_eq!((receipt.spent, receipt.units), (15_000, 10_000));
    assert_eq!(buyer.payer.used(), 15_000);
    assert!(vouchers > 10 && receipt.accepted > 15_000, "{vouchers} {receipt:?}");
    buyer.step(&yard, PayerEvent::Told(receipt));
    assert_eq!(buyer.payer.overclaim(), None);

    // It closes with what it used, and not with what it had signed ahead.
    let closed = buyer.close(&house).await.expect("closed");
    assert!(closed.finalized);
    assert_eq!((closed.receipt.settled, closed.receipt.spent), (15_000, 15_000));
    assert_eq!(yard.balance_of(PAYEE).await, payee + 15_000);
    assert_eq!(yard.balance_of(PAYER).await, payer - 15_000);
    assert_eq!(yard.escrowed().await, 0);
    assert_eq!(yard.sent_by(RELAYER).await, 2);
    assert_eq!(yard.rpc("eth_blockNumber", json!([])).await, json!("0x2"));
    let tx = closed.tx.expect("a transaction");
    let receipt = yard.rpc("eth_getTransactionReceipt", json!([tx.as_str()])).await;
    assert_eq!(receipt["blockNumber"], json!("0x2"));
    buyer.look(&yard).await;
    assert_eq!(*buyer.payer.state(), PayerState::Finalized);
    assert_eq!(buyer.payer.most_lost(), 0);

    assert_eq!(yard.book(AccountKind::Revenue).await, (0, 15_000));
    assert_eq!(yard.book(AccountKind::Receivable).await, (15_000, 15_000));
    assert_eq!(yard.book(AccountKind::Treasury).await, (15_000, 0));
    assert_eq!(yard.book(AccountKind::Escrow).await, (20_000, 20_000));
    assert_eq!(yard.book(AccountKind::Deposits).await, (20_000, 20_000));
    assert_eq!(yard.book(AccountKind::Loss).await, (0, 0));
    yard.nothing_pends().await;
    yard.gas_is_booked(wei).await;
    yard.sound().await;
}

async fn a_channel_that_is_topped_up_and_settled_pays_to_the_atom(yard: Yard) {
    let house = yard.house(Setup::default()).await;
    let (payer, payee, wei) =
        (yard.balance_of(PAYER).await, yard.balance_of(PAYEE).await, yard.wei(RELAYER).await);
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 3_000);
    // What is owed is collected in between, too.
    let limits = Limits { most_unsettled: Some(2_500), ..limits() };
    buyer.open_with(&yard, &house, 3_000, limits).await.expect("opened");
    buyer.voucher(&yard, &house, 3_000).await.expect("accepted");
    for n in 1..=3 {
        let (_, receipt) = buyer.buy(&yard, &house, n, 1_000).await.expect("served");
        assert_eq!(receipt.spent, u128::from(n) * 1_000);
    }
    yard.until(buyer.id(), "settled", |payee| payee.settled() == 3_000).await;
    assert_eq!(yard.balance_of(PAYEE).await, payee + 3_000);
    let more = buyer.buy(&yard, &house, 4, 1_000).await;
    let Err(TillError::Refused(Refusal::NeedsVoucher(need))) = more else { panic!("{more:?}") };
    assert_eq!((need.required, need.accepted, need.deposit), (4_000, 3_000, 3_000));

    let done = house.till.top_up(&buyer.top_up(&house, 2_000)).await.expect("topped up");
    assert!(done.tx.is_some());
    // The answer was lost: the same again gives the same, and moves nothing.
    assert_eq!(house.till.top_up(&buyer.top_up(&house, 2_000)).await, Ok(done));
    assert_eq!(yard.escrowed().await, 2_000);
    let used = PayerEvent::Received { price: price(1_000), units: 3 };
    buyer.step(&yard, used);
    buyer.look(&yard).await;
    buyer.voucher(&yard, &house, 4_500).await.expect("accepted");
    buyer.buy(&yard, &house, 4, 1_000).await.expect("served");
    buyer.step(&yard, PayerEvent::Received { price: price(1_000), units: 1 });
    let closed = buyer.close(&house).await.expect("closed");
    assert_eq!((closed.finalized, closed.receipt.settled), (true, 4_000));
    // Open, settle, top up, close.
    assert_eq!(yard.sent_by(RELAYER).await, 4);
    assert_eq!(yard.balance_of(PAYEE).await, payee + 4_000);
    assert_eq!(yard.balance_of(PAYER).await, payer - 4_000);
    assert_eq!(yard.escrowed().await, 0);
    assert_eq!(yard.book(AccountKind::Treasury).await, (4_000, 0));
    assert_eq!(yard.book(AccountKind::Receivable).await, (4_000, 4_000));
    assert_eq!(yard.book(AccountKind::Escrow).await, (5_000, 5_000));
    yard.gas_is_booked(wei).await;
    yard.sound().await;
}

async fn a_payee_that_is_its_own_relayer_needs_no_word_for_it(yard: Yard) {
    let house = yard.house(Setup { payee: RELAYER, ..Setup::default() }).await;
    let mine = yard.balance_of(RELAYER).await;
    let mut buyer = Buyer::new(&yard, RELAYER, 1, 3_000);
    let limits = Limits { most_unsettled: Some(500), ..limits() };
    buyer.open_with(&yard, &house, 3_000, limits).await.expect("opened");
    buyer.voucher(&yard, &house, 1_000).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 700).await.expect("served");
    yard.until(buyer.id(), "settled", |payee| payee.settled() == 1_000).await;
    buyer.step(&yard, PayerEvent::Received { price: price(700), units: 1 });
    buyer.look(&yard).await;
    let closed = buyer.close(&house).await.expect("closed");
    assert_eq!((closed.finalized, closed.receipt.settled, closed.receipt.spent), (true, 1_000, 700));
    assert_eq!(yard.balance_of(RELAYER).await, mine + 1_000);
    assert_eq!(yard.payee(buyer.id()).await.owed_back(), 300);
    yard.sound().await;
}

// ---- Many at once.

async fn a_hundred_requests_at_once_share_no_increment(yard: Yard) {
    let house = yard.house(Setup::default()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    buyer.open(&yard, &house, 5_000).await.expect("opened");
    // It covers sixty of them.
    let signature = buyer.raise(&yard, 600);
    let shown = buyer.shown(600, &signature);
    let price = price(10);
    let begin = |n| {
        let asked = buyer.asked(&house, shown, n, price.clone(), Some(1));
        let till = house.till.clone();
        async move {
            match till.start_charge(&asked).await {
                Ok(Started::Serve(ticket)) => {
                    let charge = ticket.id();
                    tokio::task::yield_now().await;
                    Ok((charge, ticket.finish(1, answer("goods")).await.expect("charged")))
                }
                Ok(Started::Again { .. }) => panic!("served before"),
                Err(why) => Err(why),
            }
        }
    };
    let outcomes = join_all((0..100).map(begin)).await;
    let (served, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((served.len(), refused.len()), (60, 40));
    for why in refused {
        let Err(TillError::Refused(Refusal::NeedsVoucher(need))) = why else { panic!("{why:?}") };
        assert!(need.required > 600, "{need:?}");
    }
    let mut charges: Vec<_> = served.into_iter().map(|outcome| outcome.unwrap().0).collect();
    charges.sort();
    charges.dedup();
    assert_eq!(charges.len(), 60);
    let payee = yard.payee(buyer.id()).await;
    assert_eq!((payee.spent(), payee.accepted(), payee.running().count()), (600, 600, 0));
    let all = yard.store.charges(buyer.id(), None, 0).await.unwrap();
    assert_eq!(all.iter().map(|charge| charge.atoms).sum::<u128>(), 600);
    assert_eq!(yard.book(AccountKind::Revenue).await, (0, 600));
    yard.nothing_pends().await;
    yard.sound().await;
}

async fn copies_of_one_request_are_served_and_charged_once(yard: Yard) {
    let house = yard.house(Setup::default()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    buyer.open(&yard, &house, 5_000).await.expect("opened");
    let signature = buyer.raise(&yard, 1_000);
    let shown = buyer.shown(1_000, &signature);
    let asked = buyer.asked(&house, shown, 1, price(10), Some(1));
    let served = std::sync::atomic::AtomicU32::new(0);
    let copy = || async {
        match house.till.start_charge(&asked).await {
            Ok(Started::Serve(ticket)) => {
                served.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                ticket.finish(1, answer("goods")).await.expect("charged");
                true
            }
            Ok(Started::Again { answer: again, .. }) => {
                assert_eq!(again, answer("goods"));
                true
            }
            Err(TillError::UnderWay(_)) => false,
            Err(other) => panic!("{other:?}"),
        }
    };
    let got = join_all((0..30).map(|_| copy())).await;
    assert!(got.contains(&true));
    assert!(copy().await);
    assert_eq!(served.load(Ordering::SeqCst), 1);
    assert_eq!(yard.payee(buyer.id()).await.spent(), 10);
    // One that is under way is dropped: it was not charged, and is served anew.
    let other = buyer.asked(&house, shown, 2, price(10), Some(1));
    let Ok(Started::Serve(ticket)) = house.till.start_charge(&other).await else { panic!("not begun") };
    drop(ticket);
    yard.until(buyer.id(), "dropped", |payee| payee.running().count() == 0).await;
    assert!(matches!(house.till.start_charge(&other).await, Ok(Started::Serve(_))));
    assert_eq!(yard.payee(buyer.id()).await.spent(), 10);
    yard.sound().await;
}

// ---- Death.

/// What a buyer did and got, whatever its seller died of in between.
#[derive(Default)]
struct Basket {
    opened: bool,
    topped_up: bool,
    goods: u64,
    closed: bool,
}

/// Opens, buys three things, tops up, buys two more, and closes; or goes on with whatever it has not got yet.
async fn shop(yard: &Yard, house: &House, buyer: &mut Buyer, basket: &mut Basket) {
    if !basket.opened {
        buyer.open(yard, house, 2_000).await.expect("opened");
        basket.opened = true;
    }
    while basket.goods < 5 {
        if basket.goods == 3 && !basket.topped_up {
            house.till.top_up(&buyer.top_up(house, 1_000)).await.expect("topped up");
            buyer.look(yard).await;
            basket.topped_up = true;
        }
        let n = basket.goods + 1;
        let to = u128::from(n) * 500;
        if buyer.payer.signed() < to {
            buyer.step(yard, PayerEvent::Raised { to });
        }
        let (_, receipt) = buyer.buy(yard, house, n, 500).await.expect("served");
        assert_eq!(receipt.spent, to);
        basket.goods = n;
        buyer.step(yard, PayerEvent::Received { price: price(500), units: 1 });
        buyer.step(yard, PayerEvent::Told(receipt));
    }
    let closed = buyer.close(house).await.expect("closed");
    assert!(closed.finalized);
    basket.closed = true;
}

async fn what_died_at_any_point_is_taken_up_with_nothing_lost_or_charged_twice(yard: Yard) {
    let (payer, payee, wei) =
        (yard.balance_of(PAYER).await, yard.balance_of(PAYEE).await, yard.wei(RELAYER).await);
    let mut names = std::collections::BTreeSet::new();
    let mut deaths = 0;
    // A channel for each point, until one comes to its end before it. The store, chain and keys are the same.
    for point in 0.. {
        let salt = u8::try_from(point + 1).expect("fewer points");
        let mut buyer = Buyer::new(&yard, PAYEE, salt, 2_000);
        let mut basket = Basket::default();
        let mut house = yard.house(Setup { dies_at: Some(point), ..Setup::default() }).await;
        let news = house.died.take().expect("not asked for yet");
        let died = tokio::select! {
            biased;
            _ = news => true,
            () = async { shop(&yard, &house, &mut buyer, &mut basket).await; } => false,
        };
        if died {
            deaths += 1;
            names.extend(house.fate.died_at());
            house.stop().await;
            // The next one lives on.
            let house = yard.house(Setup::default()).await;
            shop(&yard, &house, &mut buyer, &mut basket).await;
        }
        assert!(basket.closed);
        let seller = yard.payee(buyer.id()).await;
        assert_eq!((seller.spent(), seller.settled(), seller.deposit()), (2_500, 2_500, 3_000), "{point}");
        buyer.look(&yard).await;
        assert_eq!((buyer.payer.used(), buyer.payer.settled()), (2_500, 2_500));
        assert_eq!(buyer.payer.overclaim(), None);
        let channels = u128::try_from(point + 1).unwrap();
        assert_eq!(yard.balance_of(PAYEE).await, payee + 2_500 * channels, "{point}");
        assert_eq!(yard.balance_of(PAYER).await, payer - 2_500 * channels, "{point}");
        assert_eq!(yard.escrowed().await, 0);
        assert_eq!(u128::from(yard.sent_by(RELAYER).await), 3 * channels, "{point}: open, top up, close");
        yard.nothing_pends().await;
        yard.sound().await;
        if !died {
            break;
        }
    }
    // Before and after three broadcasts, the beginning, and more changes than there are requests.
    assert!(deaths > 30, "{deaths}");
    assert!(names.contains("before a broadcast") && names.contains("after a broadcast"), "{names:?}");
    assert!(names.contains("before a channel is begun") && names.contains("after a change of a channel"));
    let _last = yard.house(Setup::default()).await;
    yard.gas_is_booked(wei).await;
    yard.sound().await;
}

/// Polls so often, and goes away.
async fn for_a_while<T>(polls: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    for _ in 0..polls {
        if let Some(done) = work.as_mut().now_or_never() {
            return Some(done);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    None
}

async fn a_caller_that_goes_away_at_any_moment_leaves_nothing_half_made(yard: Yard) {
    let house = yard.house(Setup::default()).await;
    let (payer, payee) = (yard.balance_of(PAYER).await, yard.balance_of(PAYEE).await);
    let mut ended_early = 0;
    for polls in 1..14_u8 {
        let mut buyer = Buyer::new(&yard, PAYEE, polls, 2_000);
        let first = buyer.sign(0);
        let opening = buyer.opening(&house, buyer.by_pull(2_000), &first);
        ended_early += usize::from(for_a_while(polls.into(), house.till.open(&opening)).await.is_none());
        buyer.open(&yard, &house, 2_000).await.expect("opened");
        let signature = buyer.raise(&yard, 1_000);
        let shown = buyer.shown(1_000, &signature);
        let asked = buyer.asked(&house, shown, 1, price(1_000), Some(1));
        drop(for_a_while(polls.into(), house.till.start_charge(&asked)).await);
        let sold = async {
            loop {
                match house.till.start_charge(&asked).await {
                    Ok(Started::Serve(ticket)) => return ticket,
                    // What was left of the former one is being given up.
                    Err(TillError::UnderWay(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(TillError::Refused(Refusal::NeedsVoucher(_))) => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let ticket = tokio::time::timeout(Duration::from_secs(60), sold).await.expect("given up");
        ended_early +=
            usize::from(for_a_while(polls.into(), ticket.finish(1, answer("goods"))).await.is_none());
        // Whether it was charged or not, it is served and charged once now.
        let (_, receipt) = loop {
            match buyer.buy(&yard, &house, 1, 1_000).await {
                Err(TillError::UnderWay(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(TillError::Refused(Refusal::NeedsVoucher(_))) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                sold => break sold.expect("served"),
            }
        };
        assert_eq!(receipt.spent, 1_000);
        buyer.step(&yard, PayerEvent::Received { price: price(1_000), units: 1 });
        let signature = buyer.sign(1_000);
        let shown = buyer.shown(1_000, &signature);
        let closing = house.till.close(&house.seller, &shown);
        ended_early += usize::from(for_a_while(polls.into(), closing).await.is_none());
        // Nobody asks again: it is closed all the same, if it was asked for; if not, it is asked for now.
        let closed = house.till.close(&house.seller, &shown).await.expect("closed");
        assert!(closed.finalized);
        let channels = u128::from(polls);
        assert_eq!(yard.balance_of(PAYEE).await, payee + 1_000 * channels);
        assert_eq!(yard.balance_of(PAYER).await, payer - 1_000 * channels);
        assert_eq!(u128::from(yard.sent_by(RELAYER).await), 2 * channels);
    }
    assert!(ended_early > 10, "{ended_early}");
    yard.nothing_pends().await;
    yard.sound().await;
}

async fn a_commit_that_nobody_confirms_is_found_out_about(yard: Yard) {
    let house = yard.house(Setup::default()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 2_000);
    let wei = yard.wei(RELAYER).await;
    house.store.doubtful.store(1, Ordering::SeqCst);
    let doubtful = buyer.open(&yard, &house, 2_000).await;
    assert_eq!(doubtful, Err(TillError::Unavailable("store")));
    // It is durable, and goes its way.
    buyer.open(&yard, &house, 2_000).await.expect("opened");
    assert_eq!(yard.sent_by(RELAYER).await, 1);
    let signature = buyer.raise(&yard, 1_000);
    let asked = buyer.asked(&house, buyer.shown(1_000, &signature), 1, price(600), Some(1));
    house.store.doubtful.store(1, Ordering::SeqCst);
    assert!(matches!(house.till.start_charge(&asked).await, Err(TillError::Unavailable("store"))));
    let sold = async {
        while let Err(error) = buyer.buy(&yard, &house, 1, 600).await {
            assert!(
                matches!(error, TillError::UnderWay(_) | TillError::Refused(Refusal::NeedsVoucher(_))),
                "{error}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sold).await.expect("served");
    assert_eq!(yard.payee(buyer.id()).await.spent(), 600);
    buyer.step(&yard, PayerEvent::Received { price: price(600), units: 1 });
    house.store.doubtful.store(1, Ordering::SeqCst);
    let unsure = buyer.close(&house).await;
    assert_eq!(unsure, Err(TillError::Unavailable("store")));
    let closed = buyer.close(&house).await.expect("closed");
    assert_eq!((closed.finalized, closed.receipt.settled), (true, 600));
    assert_eq!(yard.sent_by(RELAYER).await, 2);
    yard.gas_is_booked(wei).await;
    yard.sound().await;
}

// ---- Forced closes.

/// The payer asks the escrow to close, with vouchers out that were not settled, and then takes back what is left.
async fn a_forced_close_is_answered_in_time_also_after_a_restart(yard: Yard) {
    for (salt, away, topped_up) in [(1, false, false), (2, true, false), (3, true, true)] {
        let house = yard.house(Setup::default()).await;
        let (payer, payee) = (yard.balance_of(PAYER).await, yard.balance_of(PAYEE).await);
        let mut buyer = Buyer::new(&yard, PAYEE, salt, 3_000);
        buyer.open(&yard, &house, 3_000).await.expect("opened");
        for (n, to) in [(1, 800), (2, 1_700)] {
            buyer.voucher(&yard, &house, to).await.expect("accepted");
            buyer.buy(&yard, &house, n, 800).await.expect("served");
        }
        let house = if away {
            house.stop().await;
            None
        } else {
            Some(house)
        };
        let id = B256::from(buyer.id().0);
        yard.send(PAYER, escrow_address(), escrow::request_close(id).to_vec()).await;
        assert!(yard.on_chain(buyer.id()).await.unwrap().close_requested_at > 0);
        if topped_up {
            // A stranger's top-up does not take it back, and must not keep the seller from answering.
            let (stranger, salt) = (key(STRANGER), B256::ZERO);
            let from = stranger.address();
            let nonce = farthing_evm::voucher::top_up_nonce(id, 1_000, from, salt);
            let pull = buyer.pull_of(&stranger, 1_000, nonce);
            let data = escrow::top_up_with(id, 1_000, from, salt, &pull);
            yard.send(STRANGER, escrow_address(), data.to_vec()).await;
            assert_eq!(yard.on_chain(buyer.id()).await.unwrap().deposit, 4_000);
        }
        let house = match house {
            Some(house) => house,
            None => {
                // Two thirds of the payer's patience are over when the next process starts.
                yard.pass(Duration::from_secs(600)).await;
                yard.house(Setup::default()).await
            }
        };
        let over = yard.until(buyer.id(), "answered", |p| *p.state() == PayeeState::Finalized).await;
        assert_eq!((over.settled(), over.spent()), (1_700, 1_600), "the highest voucher that there is");
        let on_chain = yard.on_chain(buyer.id()).await.unwrap();
        assert!(on_chain.finalized);
        assert_eq!(yard.balance_of(PAYEE).await, payee + 1_700);
        let griefed = if topped_up { 1_000 } else { 0 };
        assert_eq!(yard.balance_of(PAYER).await, payer - 1_700 + griefed);
        assert_eq!(yard.escrowed().await, 0);
        let late = buyer.voucher(&yard, &house, 2_000).await;
        assert_eq!(late, Err(Refusal::Finalized.into()));
        yard.nothing_pends().await;
        yard.sound().await;
    }
}
