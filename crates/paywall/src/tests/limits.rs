//! What one stranger may take of what is there for all.

use std::time::Duration;

use farthing_payment::Fault;
use http_body_util::{BodyExt, Full};

use super::support::*;
use crate::limit::{MAX_CLIENTS, RateLimiter};
use crate::{Amount, ClientAddr, Limits, Paid, Price, Quote, Rate, Route, price_fn, price_fn_of};

const FEW: Rate = Rate { per_second: 1, burst: 2 };

fn rig(limits: Limits) -> Rig {
    Rig::with(terms(vec![("/weather", dollars("$0.002")), ("/free", Route::Free)]), Backend::ok(), limits)
}

fn by(n: u8, mut request: http::Request<Full<bytes::Bytes>>) -> http::Request<Full<bytes::Bytes>> {
    request.extensions_mut().insert(ClientAddr([192, 0, 2, n].into()));
    request
}

fn malformed(n: u8) -> http::Request<Full<bytes::Bytes>> {
    by(n, paid(get("/weather"), "bm90IEpTT04="))
}

#[tokio::test]
async fn attack_50_whoever_shows_what_comes_to_nothing_is_not_listened_to_for_a_while() {
    let rig = rig(Limits { refused_payments: FEW, ..Limits::default() });
    let good = pay_v2(&rig.challenge("/weather").await, 1);
    let show = |n| rig.send(by(n, paid(get("/weather"), &good)));
    assert_eq!(rig.send(malformed(1)).await.status, 400);
    assert_eq!(rig.send(malformed(1)).await.status, 400);
    let got = rig.send(malformed(1)).await;
    assert_eq!(
        (got.status, got.code().as_str(), got.header("retry-after")),
        (429, "too_many_requests", Some("1"))
    );
    got.assert_no_challenge();
    assert_eq!(show(1).await.status, 429, "nothing of it is looked at");
    assert_eq!(rig.model.sales(), 0);
    assert_eq!(show(2).await.status, 200, "another client is heard");
    rig.world.advance(Duration::from_secs(1));
    assert_eq!(show(1).await.status, 200, "it is heard again");
}

#[tokio::test]
async fn attack_50_unfunded_payers_are_limited_before_a_sale_can_cost_a_read() {
    let rig = rig(Limits { refused_payments: FEW, ..Limits::default() });
    let challenge = rig.challenge("/weather").await;
    let mut statuses = Vec::new();
    for nonce in 0..6 {
        let refused = Forced::Refused("invalid_exact_evm_insufficient_balance", Fault::Payer);
        rig.model.forced.lock().unwrap().push_back(refused);
        statuses.push(rig.send(by(1, paid(get("/weather"), &pay_v2(&challenge, nonce)))).await.status);
    }
    assert_eq!(statuses, [402, 402, 429, 429, 429, 429]);
    assert_eq!(rig.model.sales(), 2);
}

#[tokio::test]
async fn attack_50_wrong_signatures_are_limited_before_they_are_checked_again() {
    let limits = Limits {
        contract_payments: Rate { per_second: 1, burst: 100 },
        refused_payments: FEW,
        ..Limits::default()
    };
    let rig = rig(limits);
    let challenge = rig.challenge("/weather").await;
    let mut codes = Vec::new();
    for nonce in 0..4 {
        // Signed for one price, shown for another.
        let mut payment = payment_v2(&challenge, nonce);
        payment.accepted.amount += 1;
        let header = farthing_wire::x402::Message::to_header(&payment);
        let got = rig.send(by(1, paid(get("/weather"), &header))).await;
        codes.push((got.status, got.code()));
    }
    let refused = (402, "invalid_payment_requirements".to_owned());
    let unheard = (429, "too_many_requests".to_owned());
    assert_eq!(codes, [refused.clone(), refused, unheard.clone(), unheard]);
}

#[tokio::test]
async fn what_is_our_fault_is_not_counted_against_a_payer() {
    let rig = rig(Limits { refused_payments: FEW, ..Limits::default() });
    let challenge = rig.challenge("/weather").await;
    for nonce in 0..5 {
        rig.model.forced.lock().unwrap().push_back(Forced::Unavailable);
        assert_eq!(rig.send(by(1, paid(get("/weather"), &pay_v2(&challenge, nonce)))).await.status, 503);
    }
    assert_eq!(rig.send(by(1, paid(get("/weather"), &pay_v2(&challenge, 9)))).await.status, 200);
}

#[tokio::test]
async fn one_client_does_not_take_the_places_of_all() {
    let rig = rig(Limits { in_flight_per_client: 1, calls_per_client: 1, ..Limits::default() });
    let challenge = rig.challenge("/weather").await;
    let first = rig.raw(by(1, paid(get("/weather"), &pay_v2(&challenge, 1)))).await;
    assert_eq!(first.status(), 200);
    // Its answer is not read yet, so it is still under way.
    let got = rig.send(by(1, paid(get("/weather"), &pay_v2(&challenge, 2)))).await;
    assert_eq!((got.status, got.code().as_str()), (503, "too_many_requests"));
    got.assert_no_challenge();
    assert_eq!(rig.send(by(2, paid(get("/weather"), &pay_v2(&challenge, 2)))).await.status, 200);
    first.into_body().collect().await.unwrap();
    assert_eq!(rig.send(by(1, paid(get("/weather"), &pay_v2(&challenge, 3)))).await.status, 200);

    let passing = rig.raw(by(1, get("/free"))).await;
    let got = rig.send(by(1, get("/free"))).await;
    assert_eq!((got.status, got.code().as_str()), (429, "too_many_requests"));
    assert_eq!(rig.send(by(2, get("/free"))).await.status, 200);
    drop(passing);
    assert_eq!(rig.send(by(1, get("/free"))).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_held_share_one_budget() {
    // One answer is "sunny".
    let rig = rig(Limits { body_memory: 8, ..Limits::default() });
    let challenge = rig.challenge("/weather").await;
    let header = pay_v2(&challenge, 1);
    let unread = rig.raw(paid(get("/weather"), &header)).await;
    assert_eq!(unread.status(), 200);
    // It is shown again from the store, and there is no room for it twice.
    let got = rig.send(paid(get("/weather"), &header)).await;
    assert_eq!((got.status, got.code().as_str()), (503, "no_room"));
    got.assert_no_challenge();
    got.assert_no_goods();
    // Nor to read another's answer: that costs nothing.
    let got = rig.send(paid(get("/weather"), &pay_v2(&challenge, 2))).await;
    assert_eq!((got.status, got.code().as_str()), (503, "no_room"));
    assert_eq!(rig.model.settlements(), 1);
    drop(unread);
    assert_eq!(rig.send(paid(get("/weather"), &header)).await.body, "sunny");
}

#[test]
fn one_client_leaves_room_for_others() {
    let client = |n: u8| Some(std::net::IpAddr::from([192, 0, 2, n]));
    let share = 2 * crate::limit::MIN_CLIENT_SHARE;
    let memory = crate::limit::Memory::new(crate::limit::CLIENT_SHARE * share);
    let (mut first, mut second) = (memory.hold(client(1)), memory.hold(client(1)));
    assert!(first.grow(share - 1) && second.grow(1) && !second.grow(1));
    let mut other = memory.hold(client(2));
    assert!(other.grow(share) && !other.grow(1));
    // Whom we do not know has the rest, and no more than that.
    let mut unknown = memory.hold(None);
    assert!(unknown.grow(2 * share) && !unknown.grow(1));
    drop(first);
    assert!(second.grow(share - 1) && !second.grow(1));
    // A small memory has one share.
    let memory = crate::limit::Memory::new(8);
    assert!(memory.hold(client(1)).grow(8));
}

#[tokio::test]
async fn a_request_body_is_counted_before_it_is_kept() {
    let rig = rig(Limits { body_memory: 8, ..Limits::default() });
    let unpaid = rig.send(request("POST", "/weather", "")).await;
    let header = pay_v2(&unpaid.challenge(), 1);
    let got = rig.send(paid(request("POST", "/weather", "ten bytes."), &header)).await;
    assert_eq!((got.status, got.code().as_str()), (503, "no_room"));
    assert_eq!(rig.model.sales(), 0);
}

#[tokio::test]
async fn questions_that_cost_work_have_a_rate() {
    let hook = price_fn(|_| Ok(Quote { amount: Amount::Atoms(5), pay_to: None, valid_for: None }));
    let route = Route::paid(Paid::new(Price::Quoted {
        hook,
        ways: vec![way(farthing_primitives::PullMethod::Eip3009)],
    }));
    let limits = Limits { questions: FEW, ..Limits::default() };
    let rig = Rig::with(terms(vec![("/kwh", route)]), Backend::ok(), limits);
    let price = |n| rig.send(by(n, get("/kwh")));
    assert_eq!((price(1).await.status, price(1).await.status), (402, 402));
    let got = price(1).await;
    assert_eq!((got.status, got.code().as_str()), (429, "too_many_requests"));
    assert_eq!(price(2).await.status, 402);
    let id = farthing_primitives::PaymentId::from_bytes([7; 16]);
    let state = |n| rig.send(by(n, get(&format!("{}{id}", crate::STATUS_PATH))));
    assert_eq!(state(1).await.status, 429, "of one kind or another");
    assert_eq!(state(2).await.status, 404);
}

#[tokio::test]
async fn attack_38_a_quote_is_bound_to_all_that_its_hook_was_told() {
    // Cheap for one language, dear for the other.
    let hook = price_fn_of(vec![http::header::ACCEPT_LANGUAGE], |request| {
        assert!(request.headers.get("user-agent").is_none(), "it is told nothing else");
        let dear = request.headers.get("accept-language").is_some_and(|language| language == "la");
        Ok(Quote { amount: Amount::Atoms(if dear { 1000 } else { 1 }), pay_to: None, valid_for: None })
    });
    let route = Route::paid(Paid::new(Price::Quoted {
        hook,
        ways: vec![way(farthing_primitives::PullMethod::Eip3009)],
    }));
    let rig = Rig::new(vec![("/text", route)], Backend::ok());
    let asking = |language: &'static str, agent: &'static str| {
        let mut request = get("/text");
        request.headers_mut().insert("accept-language", language.parse().unwrap());
        request.headers_mut().insert("user-agent", agent.parse().unwrap());
        request
    };
    let cheap = rig.send(asking("en", "a")).await.challenge();
    assert_eq!(cheap.accepts[0].amount, 1);
    let got = rig.send(paid(asking("la", "a"), &pay_v2(&cheap, 1))).await;
    assert_eq!((got.status, got.challenge().accepts[0].amount), (402, 1000));
    assert_eq!((rig.backend.calls(), rig.model.sales()), (0, 0));
    let got = rig.send(paid(asking("en", "another"), &pay_v2(&cheap, 1))).await;
    assert_eq!(got.status, 200, "what the hook was not told does not matter");
}

#[test]
fn very_many_clients_are_told_apart_up_to_a_bound_and_forgotten_when_they_rest() {
    let limiter = RateLimiter::new(Rate { per_second: 1, burst: 1 });
    let client = |n: u32| Some(std::net::IpAddr::from(n.to_be_bytes()));
    let now = Duration::from_secs(100);
    let many = u32::try_from(MAX_CLIENTS).unwrap();
    assert!((0..many).all(|n| limiter.admit(client(n), now)));
    assert!((0..many).all(|n| !limiter.has(client(n), now)));
    // The table is full: newcomers share one bucket, and cost no search each.
    assert!(limiter.admit(client(many), now));
    assert!(!limiter.admit(client(many + 1), now) && !limiter.has(client(many + 2), now));
    let later = now + Duration::from_secs(1);
    assert!(limiter.has(client(5), later));
    assert!(limiter.admit(client(many + 3), later) && limiter.admit(client(many + 4), later));
}

#[tokio::test]
async fn a_target_that_would_be_stored_has_a_length() {
    let rig = rig(Limits::default());
    let of = |length: usize, path: &str| format!("{path}?{}", "q".repeat(length - path.len() - 1));
    assert_eq!(rig.get(&of(crate::MAX_PAID_TARGET, "/weather")).await.status, 402);
    let got = rig.get(&of(crate::MAX_PAID_TARGET + 1, "/weather")).await;
    assert_eq!((got.status, got.code().as_str()), (414, "target_too_long"));
    got.assert_no_challenge();
    assert_eq!(
        rig.get(&of(crate::MAX_PAID_TARGET + 1, "/free")).await.status,
        200,
        "it is nobody's but the service's"
    );
}
