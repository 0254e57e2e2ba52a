//! Hooks, several ways to pay, and reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use farthing_primitives::{Address, PullMethod};

use super::support::*;
use crate::{Amount, HookError, Limits, Paid, Price, PriceHook, Quote, Route, price_fn};

fn quoted(hook: Arc<dyn PriceHook>) -> Route {
    Route::paid(Paid::new(Price::Quoted { hook, ways: vec![way(PullMethod::Eip3009)] }))
}

fn quote(atoms: u128) -> Quote {
    Quote { amount: Amount::Atoms(atoms), pay_to: None, valid_for: None }
}

#[tokio::test]
async fn a_quote_sets_price_payee_and_end_and_is_not_asked_for_twice() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let hook = price_fn(move |request| {
        counted.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.resource, "/kwh?slices=3");
        let pay_to = Some(Address::evm("0x00000000000000000000000000000000000000bb").unwrap());
        Ok(Quote { amount: Amount::Dollars("0.03".into()), pay_to, valid_for: Some(Duration::from_secs(30)) })
    });
    let rig = Rig::new(vec![("/kwh", quoted(hook))], Backend::ok());
    let challenge = rig.challenge("/kwh?slices=3").await;
    assert_eq!((challenge.accepts[0].amount, challenge.accepts[0].max_timeout_seconds), (30_000, 30));
    let header = pay_v2(&challenge, 1);
    assert_eq!(rig.send(paid(get("/kwh?slices=3"), &header)).await.status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the seal vouches for the quote");
    let seen = rig.model.seen.lock().unwrap();
    assert_eq!(seen[0].terms.money.atoms(), 30_000);
    assert!(seen[0].terms.payee.as_str().ends_with("bb"));
}

#[tokio::test]
async fn a_quote_buys_only_the_request_that_was_quoted() {
    let hook = price_fn(|request| Ok(quote(if request.resource.ends_with("=1") { 1 } else { 1000 })));
    let rig = Rig::new(vec![("/kwh", quoted(hook))], Backend::ok());
    let header = pay_v2(&rig.challenge("/kwh?slices=1").await, 1);
    let got = rig.send(paid(get("/kwh?slices=9"), &header)).await;
    assert_eq!((got.status, got.challenge().accepts[0].amount), (402, 1000));
    assert_eq!((rig.backend.calls(), rig.model.sales()), (0, 0));
}

#[tokio::test]
async fn a_quote_ends_when_it_says() {
    let hook = price_fn(|_| Ok(Quote { valid_for: Some(Duration::from_secs(20)), ..quote(5) }));
    for (after, status) in [(13, 200), (20, 402)] {
        let rig = Rig::new(vec![("/kwh", quoted(hook.clone()))], Backend::ok());
        let header = pay_v2(&rig.challenge("/kwh").await, 1);
        rig.world.advance(Duration::from_secs(after));
        assert_eq!(rig.send(paid(get("/kwh"), &header)).await.status, status, "after {after} s");
    }
}

#[tokio::test]
async fn v1_payments_must_meet_the_quote_of_now() {
    let price = Arc::new(AtomicU64::new(5));
    let current = price.clone();
    let hook = price_fn(move |_| Ok(quote(u128::from(current.load(Ordering::SeqCst)))));
    let rig = Rig::new(vec![("/kwh", quoted(hook))], Backend::ok());
    let header = pay_v1(&rig.get("/kwh").await.challenge_v1(), 1);
    price.store(6, Ordering::SeqCst);
    assert_eq!(rig.send(paid_v1(get("/kwh"), &header)).await.status, 402);
    price.store(5, Ordering::SeqCst);
    assert_eq!(rig.send(paid_v1(get("/kwh"), &header)).await.status, 200);
}

#[tokio::test]
async fn no_price_is_503_and_nothing_is_served() {
    let failing = price_fn(|_| Err(HookError("down".into())));
    let zero = price_fn(|_| Ok(quote(0)));
    for hook in [failing, zero] {
        let rig = Rig::new(vec![("/kwh", quoted(hook))], Backend::ok());
        let got = rig.get("/kwh").await;
        assert_eq!((got.status, got.code().as_str()), (503, "no_price"));
        assert_eq!(rig.backend.calls(), 0);
    }
}

#[tokio::test]
async fn an_echoed_offer_that_was_changed_is_refused() {
    let rig = Rig::weather();
    let challenge = rig.challenge("/weather").await;
    let changed = [0, 1, 2, 3].map(|which| {
        let mut challenge = challenge.clone();
        let offer = &mut challenge.accepts[0];
        match which {
            0 => offer.amount = 1,
            1 => offer.pay_to = Address::evm("0x00000000000000000000000000000000000000cc").unwrap().into(),
            2 => offer.max_timeout_seconds += 1,
            _ => {
                offer.extra.as_mut().unwrap().remove("farthing");
            }
        }
        challenge
    });
    for challenge in changed {
        let got = rig.send(paid(get("/weather"), &pay_v2(&challenge, 1))).await;
        assert_eq!((got.status, got.code().as_str()), (402, "invalid_payment_requirements"));
    }
    assert_eq!((rig.backend.calls(), rig.model.sales()), (0, 0));
}

#[tokio::test]
async fn offers_of_another_key_are_not_ours() {
    let (ours, theirs) = (Rig::weather(), Rig::weather());
    let header = pay_v2(&theirs.challenge("/weather").await, 1);
    assert_eq!(
        ours.send(paid(get("/weather"), &header)).await.status,
        200,
        "the same key makes the same offers"
    );
    let stranger = crate::Paywall::new(
        terms(vec![("/weather", dollars("$0.002"))]),
        ours.model.clone(),
        ours.world.clone(),
        farthing_rails::offer::BindingKey::new([1; 32], None),
        Limits::default(),
    );
    let rig = Rig { paywall: stranger, ..Rig::weather() };
    let header = pay_v2(&rig.challenge("/weather").await, 2);
    assert_eq!(ours.send(paid(get("/weather"), &header)).await.status, 402);
}

#[tokio::test]
async fn old_offers_hold_after_a_reload_for_as_long_as_they_were_made_for() {
    let rig = Rig::weather();
    let unpaid = rig.get("/weather").await;
    let (v2, v1) = (unpaid.challenge(), unpaid.challenge_v1());
    rig.paywall.reload(terms(vec![("GET|POST /weather", dollars("$5"))]));
    assert_eq!(rig.challenge("/weather").await.accepts[0].amount, 5_000_000, "new offers have the new price");
    assert_eq!(rig.send(paid(get("/weather"), &pay_v2(&v2, 1))).await.status, 200);
    assert_eq!(rig.send(paid_v1(get("/weather"), &pay_v1(&v1, 2))).await.status, 200);
    rig.world.advance(Duration::from_secs(121));
    assert_eq!(rig.send(paid(get("/weather"), &pay_v2(&v2, 3))).await.status, 402);
    assert_eq!(rig.send(paid_v1(get("/weather"), &pay_v1(&v1, 4))).await.status, 402);
}

/// A payment of an old offer, signed now by a clock that is right.
fn signed_late(rig: &Rig, challenge: &farthing_wire::x402::v2::PaymentRequired, nonce: u8) -> String {
    use farthing_rails::exact_evm::{Tokens, buy};
    let offer = &challenge.accepts[0];
    let tokens = Tokens::new(&farthing_primitives::Registry::builtin());
    let asked = farthing_rails::x402::requirement_v2(offer, &tokens).unwrap();
    let (key, now) = (payer(), farthing_engine::World::now(&*rig.world));
    let from = farthing_evm::from_alloy(key.address());
    let nonce = buy::Nonce([nonce; 32]);
    let unsigned = buy::authorize(&asked, &from, nonce, Duration::from_secs(60), now).unwrap();
    let presented = unsigned.signed(&key.sign(unsigned.digest()), None);
    let payment = farthing_rails::x402::payment_v2(offer, &presented, None, None).unwrap();
    farthing_wire::x402::Message::to_header(&payment)
}

#[tokio::test]
async fn a_clock_that_leaps_to_the_past_makes_no_ended_offer_valid_again() {
    let rig = Rig::weather();
    let cheap = rig.challenge("/weather").await;
    rig.paywall.reload(terms(vec![("GET|POST /weather", dollars("$5"))]));
    rig.world.advance(Duration::from_secs(119));
    assert_eq!(rig.send(paid(get("/weather"), &signed_late(&rig, &cheap, 1))).await.status, 200);
    rig.world.advance(Duration::from_secs(2));
    assert_eq!(rig.send(paid(get("/weather"), &signed_late(&rig, &cheap, 2))).await.status, 402);
    for back in [3, 120, 3_600, 86_400] {
        rig.world.set_back_secs.store(back, std::sync::atomic::Ordering::SeqCst);
        let got = rig.send(paid(get("/weather"), &signed_late(&rig, &cheap, 3))).await;
        assert_eq!(got.status, 402, "{back} s back");
        got.assert_no_goods();
    }
    // What is offered by such a clock ends when it ought to.
    let dear = rig.challenge("/weather").await;
    rig.world.advance(Duration::from_secs(119));
    assert_eq!(rig.send(paid(get("/weather"), &signed_late(&rig, &dear, 4))).await.status, 200);
    rig.paywall.reload(terms(vec![("GET|POST /weather", dollars("$7"))]));
    rig.world.advance(Duration::from_secs(2));
    assert_eq!(rig.send(paid(get("/weather"), &signed_late(&rig, &dear, 5))).await.status, 402);
}

#[tokio::test]
async fn an_offer_of_a_clock_that_ran_ahead_ends_with_its_time_and_not_a_day_later() {
    let rig = Rig::weather();
    rig.world.set_back_secs.store(-86_400, std::sync::atomic::Ordering::SeqCst);
    let cheap = rig.challenge("/weather").await;
    rig.world.set_back_secs.store(0, std::sync::atomic::Ordering::SeqCst);
    rig.paywall.reload(terms(vec![("GET|POST /weather", dollars("$5"))]));
    assert_eq!(rig.send(paid(get("/weather"), &signed_late(&rig, &cheap, 1))).await.status, 200);
    rig.world.advance(Duration::from_secs(121));
    assert_eq!(rig.send(paid(get("/weather"), &signed_late(&rig, &cheap, 2))).await.status, 402);
}

#[tokio::test]
async fn after_a_restart_with_a_clock_set_back_old_offers_stay_ended() {
    let before = Rig::weather();
    let cheap = before.challenge("/weather").await;
    before.world.advance(Duration::from_secs(121));
    // The new process knows how late it was, and asks for another price.
    for (mark, status) in [(None, 200), (Some(farthing_engine::World::now(&*before.world)), 402)] {
        let after = Rig::weather();
        if let Some(mark) = mark {
            after.paywall.not_before(mark);
        }
        after.paywall.reload(terms(vec![("GET|POST /weather", dollars("$5"))]));
        let got = after.send(paid(get("/weather"), &signed_late(&after, &cheap, 1))).await;
        assert_eq!(got.status, status, "{mark:?}");
    }
}

#[tokio::test]
async fn an_offer_that_ended_still_buys_what_is_asked_today() {
    let rig = Rig::weather();
    let challenge = rig.challenge("/weather").await;
    // Signed late: the authorization is fresh, the seal has ended, and the price is still the same.
    rig.world.advance(Duration::from_secs(121));
    let header = signed_late(&rig, &challenge, 8);
    assert_eq!(rig.send(paid(get("/weather"), &header)).await.status, 200);
}

#[tokio::test]
async fn permit2_routes_announce_the_sponsored_approval_and_v1_is_not_offered_what_it_cannot_say() {
    let offer = way(PullMethod::Permit2).offer(&Amount::parse("$0.001").unwrap()).unwrap();
    let rig = Rig::new(vec![("/p", Route::paid(Paid::new(Price::Fixed(vec![offer]))))], Backend::ok());
    let got = rig.get("/p").await;
    let challenge = got.challenge();
    assert_eq!(challenge.accepts[0].extra_str("assetTransferMethod"), Some("permit2"));
    assert!(challenge.extensions.as_ref().unwrap().get("eip2612GasSponsoring").is_some());
    assert!(!got.body.contains("x402Version"), "{}", got.body);
    assert!(got.header("www-authenticate").is_none(), "nor can MPP, which names no spender");
    assert_eq!(rig.send(paid(get("/p"), &pay_v2(&challenge, 1))).await.status, 200);
}
