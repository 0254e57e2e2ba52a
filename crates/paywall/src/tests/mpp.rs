//! The HTTP `Payment` scheme: what a credential opens, and all that it does not.

use farthing_engine::World;
use farthing_payment::{Dialect, Flow};
use farthing_primitives::{Registry, Timestamp};
use farthing_rails::exact_evm::{Tokens, buy};
use farthing_rails::mpp;
use farthing_wire::mpp::{Challenge, Challenges, Credential, Problem, ProblemType, Receipt};
use farthing_wire::{Json, Object};
use std::time::Duration;

use super::support::*;
use crate::{Limits, Mpp, Paywall, Route, Terms};

pub fn challenges(got: &Got) -> Vec<Challenge> {
    let lines = got.headers.get_all("www-authenticate").iter().map(http::HeaderValue::as_bytes);
    Challenges::parse(lines).unwrap().challenges
}

pub fn problem(got: &Got) -> ProblemType {
    Problem::parse(got.body.as_bytes()).unwrap().kind
}

/// The credential of a payer who does as it is told.
fn credential(challenge: &Challenge) -> Credential {
    signed(challenge, challenge.expires.as_ref().unwrap().at().since(NOW), NOW)
}

/// The same, signed now by the rig's wall clock, whatever the challenge says of its end.
fn signed_late(rig: &Rig, challenge: &Challenge) -> Credential {
    signed(challenge, Duration::from_secs(60), World::now(&*rig.world))
}

fn signed(challenge: &Challenge, left: Duration, now: Timestamp) -> Credential {
    let key = payer();
    let from = farthing_evm::from_alloy(key.address());
    let tokens = Tokens::new(&Registry::builtin());
    let asked = mpp::requirement(challenge, &tokens, left).unwrap();
    let unsigned = buy::authorize(&asked, &from, mpp::nonce(challenge), left, now).unwrap();
    let presented = unsigned.signed(&key.sign(unsigned.digest()), None);
    mpp::credential(challenge, &presented, asked.network()).unwrap()
}

pub fn with(
    mut request: http::Request<http_body_util::Full<bytes::Bytes>>,
    header: &str,
    value: &str,
) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    request.headers_mut().insert(header.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    request
}

pub fn shown(path: &str, credential: &Credential) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    with(get(path), "authorization", &credential.to_header().unwrap())
}

/// Refused as MPP wants it: 402, the problem, a fresh challenge, no receipt, nothing sold.
pub fn assert_refused(got: &Got, kind: &ProblemType) {
    assert_eq!((got.status, &problem(got)), (402, kind), "{}", got.body);
    assert_eq!(challenges(got).len(), 1);
    assert!(got.header("payment-receipt").is_none());
    got.assert_no_goods();
}

#[tokio::test]
async fn a_credential_buys_once_and_has_its_receipt() {
    let rig = Rig::weather();
    let unpaid = rig.get("/weather").await;
    assert_eq!((unpaid.status, problem(&unpaid)), (402, ProblemType::PaymentRequired));
    let challenge = challenges(&unpaid).remove(0);
    assert_eq!((challenge.realm.as_str(), challenge.digest.as_deref()), ("api.example", None));
    let credential = credential(&challenge);
    let got = rig.send(shown("/weather", &credential)).await;
    assert_eq!((got.status, rig.model.settlements()), (200, 1), "{}", got.body);
    assert!(got.header("cache-control").unwrap().contains("private"));
    let receipt = Receipt::parse(got.headers["payment-receipt"].as_bytes()).unwrap();
    assert_eq!(receipt.challenge_id.as_deref(), Some(challenge.id.as_str()));
    assert_eq!(receipt.reference.as_deref(), Some(TX));
    assert!(got.header("payment-response").is_none(), "x402 was not spoken");
    assert_eq!(rig.model.seen.lock().unwrap()[0].terms.dialect, Dialect::Mpp);
    // The service never sees what pays.
    assert!(!rig.backend.last().2.contains_key("authorization"));

    let again = rig.send(shown("/weather", &credential)).await;
    assert_refused(&again, &ProblemType::InvalidChallenge);
    assert_eq!((rig.model.settlements(), rig.backend.calls()), (1, 1));
}

/// Paid for, and never given: the same credential is no replay before its answer is gone.
#[tokio::test]
async fn an_answer_that_did_not_leave_is_given_again_and_nobody_is_told_to_pay_for_it_anew() {
    let rig = Rig::weather();
    let mine = credential(&challenges(&rig.get("/weather").await)[0]);
    // The connection dies before the answer is written.
    drop(rig.raw(shown("/weather", &mine)).await);
    // Another copy, named afterwards, is another request; but what it wants is paid for.
    let named = with(shown("/weather", &mine), "idempotency-key", "one");
    let got = rig.send(named).await;
    assert_eq!((got.status, got.code().as_str()), (409, "payment_for_other_request"));
    assert!(!got.headers.contains_key("www-authenticate"));
    // While one copy is being answered, no other is.
    let on_its_way = rig.raw(shown("/weather", &mine)).await;
    let got = rig.send(shown("/weather", &mine)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "payment_in_progress"));
    drop(on_its_way);
    let got = rig.send(shown("/weather", &mine)).await;
    assert_eq!((got.status, got.body.as_str()), (200, "sunny"));
    assert!(got.headers.contains_key("payment-receipt"));
    assert_refused(&rig.send(shown("/weather", &mine)).await, &ProblemType::InvalidChallenge);
    assert_eq!((rig.model.settlements(), rig.backend.calls()), (1, 1));
}

/// Whoever has the answer and shows its credential again at once is not told to wait.
#[tokio::test]
async fn what_is_gone_is_not_given_again_while_that_is_written_down() {
    let rig = Rig::weather();
    let mine = credential(&challenges(&rig.get("/weather").await)[0]);
    rig.model.stuck.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(rig.send(shown("/weather", &mine)).await.status, 200);
    assert_refused(&rig.send(shown("/weather", &mine)).await, &ProblemType::InvalidChallenge);
}

#[tokio::test]
async fn an_answer_that_finds_no_room_is_not_the_one_that_was_paid_for() {
    let limits = Limits { body_memory: 64, ..Limits::default() };
    let rig = Rig::with(terms(vec![("POST /order", dollars("$0.002"))]), Backend::ok(), limits);
    let unpaid = rig.send(request("POST", "/order", "two")).await;
    let value = credential(&challenges(&unpaid)[0]).to_header().unwrap();
    let paid = || with(request("POST", "/order", "two"), "authorization", &value);
    drop(rig.raw(paid()).await);
    // There is room for the request, and not for the answer.
    let mut others = rig.paywall.0.memory.hold(None);
    assert!(others.grow(64 - "two".len() - 1));
    let got = rig.send(paid()).await;
    assert_eq!((got.status, got.code().as_str()), (503, "no_room"), "{}", got.body);
    drop(others);
    let got = rig.send(paid()).await;
    assert_eq!((got.status, got.body.as_str(), rig.backend.calls()), (200, "sunny", 1));
}

#[tokio::test]
async fn what_leaves_is_said_by_the_connection_where_it_can_tell() {
    for left in [false, true] {
        let rig = Rig::weather();
        let mine = credential(&challenges(&rig.get("/weather").await)[0]);
        let mut first = shown("/weather", &mine);
        first.extensions_mut().insert(crate::ClientExit::new(move |call| call(left)));
        assert_eq!(rig.send(first).await.status, 200);
        let again = rig.send(shown("/weather", &mine)).await;
        assert_eq!(again.status, if left { 402 } else { 200 }, "{}", again.body);
        assert_eq!(rig.model.settlements(), 1);
    }
}

#[tokio::test]
async fn whoever_names_the_request_is_given_the_same_answer_again() {
    let rig = Rig::weather();
    let credential = credential(&challenges(&rig.get("/weather").await)[0]);
    let named = |name: &str| with(shown("/weather", &credential), "idempotency-key", name);
    for _ in 0..3 {
        let got = rig.send(named("one")).await;
        assert_eq!(got.status, 200, "{}", got.body);
        assert!(got.header("payment-receipt").is_some());
    }
    assert_eq!((rig.model.settlements(), rig.backend.calls()), (1, 1));
    assert_refused(&rig.send(named("two")).await, &ProblemType::InvalidChallenge);
}

#[tokio::test]
async fn attack_64_a_challenge_opens_only_what_it_was_made_for() {
    let rig = Rig::new(
        vec![("GET /a", dollars("$0.002")), ("GET /b", dollars("$0.002")), ("POST /a", dollars("$0.002"))],
        Backend::ok(),
    );
    let mine = credential(&challenges(&rig.get("/a").await)[0]);
    assert_refused(&rig.send(shown("/b", &mine)).await, &ProblemType::InvalidChallenge);
    let post = with(request("POST", "/a", ""), "authorization", &mine.to_header().unwrap());
    assert_refused(&rig.send(post).await, &ProblemType::InvalidChallenge);
    let elsewhere = with(shown("/a", &mine), "host", "other.example");
    assert_refused(&rig.send(elsewhere).await, &ProblemType::InvalidChallenge);
    assert_eq!(rig.model.sales(), 0);
    assert_eq!(rig.send(shown("/a", &mine)).await.status, 200);
}

#[tokio::test]
async fn attack_64_a_body_is_what_it_was_when_its_price_was_asked() {
    let rig = Rig::new(vec![("POST /order", dollars("$0.002"))], Backend::ok());
    let unpaid = rig.send(request("POST", "/order", "two")).await;
    let challenge = challenges(&unpaid).remove(0);
    assert!(challenge.digest.is_some());
    let value = credential(&challenge).to_header().unwrap();
    let paid = |body| with(request("POST", "/order", body), "authorization", &value);
    assert_refused(&rig.send(paid("ten")).await, &ProblemType::InvalidChallenge);
    assert_refused(&rig.send(paid("")).await, &ProblemType::InvalidChallenge);
    assert_eq!((rig.model.sales(), rig.send(paid("two")).await.status), (0, 200));
    // A challenge that was made for no body opens none with one.
    let empty = challenges(&rig.send(request("POST", "/order", "")).await).remove(0);
    let value = credential(&empty).to_header().unwrap();
    let filled = with(request("POST", "/order", "ten"), "authorization", &value);
    assert_refused(&rig.send(filled).await, &ProblemType::InvalidChallenge);
}

#[tokio::test]
async fn a_route_that_binds_no_bodies_answers_before_they_come() {
    let route = Route::paid(crate::Paid { digest: false, ..fixed("$0.002") });
    let rig = Rig::new(vec![("POST /order", route)], Backend::ok());
    let challenge = challenges(&rig.send(request("POST", "/order", "two")).await).remove(0);
    assert_eq!(challenge.digest, None);
    let value = credential(&challenge).to_header().unwrap();
    let got = rig.send(with(request("POST", "/order", "two"), "authorization", &value)).await;
    assert_eq!(got.status, 200, "{}", got.body);
}

/// Whoever pays nothing has nothing held: many slow bodies leave room for those who pay.
#[tokio::test]
async fn an_unpaid_body_is_hashed_as_it_comes_and_nothing_of_it_is_held() {
    let limits = Limits { body_memory: 24, ..Limits::default() };
    let rig = Rig::with(terms(vec![("POST /order", dollars("$0.002"))]), Backend::ok(), limits);
    let text = "longer than all that may be held at once";
    let challenge = challenges(&rig.send(request("POST", "/order", text)).await).remove(0);
    let digest = farthing_wire::mpp::BodyDigest::of(text.as_bytes());
    assert_eq!(challenge.body_digest(), Ok(Some(digest)));
    // Nor of one that comes with what cannot be read as a credential.
    let odd = with(request("POST", "/order", text), "authorization", "Payment ???");
    let got = rig.send(odd).await;
    assert_refused(&got, &ProblemType::MalformedCredential);
    assert_eq!(challenges(&got)[0].body_digest(), Ok(Some(digest)));
    // Whoever pays has it held, and finds no room here.
    let value = credential(&challenge).to_header().unwrap();
    let got = rig.send(with(request("POST", "/order", text), "authorization", &value)).await;
    assert_eq!((got.status, got.code().as_str()), (503, "no_room"));
}

#[tokio::test]
async fn attack_64_whatever_is_changed_in_a_challenge_it_is_no_longer_ours() {
    let rig = Rig::weather();
    let mine = credential(&challenges(&rig.get("/weather").await)[0]);
    let changes: [fn(&mut Challenge); 5] = [
        |challenge| challenge.id = "A".repeat(43),
        |challenge| challenge.realm = "other.example".to_owned(),
        |challenge| challenge.expires = Some("2099-01-01T00:00:00Z".parse().unwrap()),
        |challenge| challenge.opaque = None,
        |challenge| challenge.header = Some("Payment-Authorization".to_owned()),
    ];
    for change in changes {
        let mut changed = mine.challenge.clone();
        change(&mut changed);
        let forged = Credential::new(changed, mine.payload.clone(), mine.source.clone());
        assert_refused(&rig.send(shown("/weather", &forged)).await, &ProblemType::InvalidChallenge);
    }
    assert_eq!((rig.model.sales(), rig.send(shown("/weather", &mine)).await.status), (0, 200));
}

#[tokio::test]
async fn attack_64_a_proof_is_of_this_challenge_this_payer_and_this_price() {
    let rig = Rig::weather();
    let challenge = challenges(&rig.get("/weather").await).remove(0);
    let other = credential(&challenges(&rig.get("/weather").await)[0]);
    let mine = credential(&challenge);
    let failed = ProblemType::VerificationFailed;
    // The authorization of another challenge: its nonce says so.
    let borrowed = Credential::new(challenge.clone(), other.payload, mine.source.clone());
    assert_refused(&rig.send(shown("/weather", &borrowed)).await, &failed);
    let with_member = |name: &str, value: &str| {
        let mut payload = mine.payload.clone();
        payload.insert(name, value);
        Credential::new(challenge.clone(), payload, mine.source.clone())
    };
    for (name, value) in [("value", "1"), ("to", "0x00000000000000000000000000000000000000bb")] {
        assert_refused(&rig.send(shown("/weather", &with_member(name, value))).await, &failed);
    }
    let late = with_member("validBefore", "1");
    assert_refused(&rig.send(shown("/weather", &late)).await, &ProblemType::PaymentExpired);
    let odd = with_member("type", "hash");
    assert_refused(&rig.send(shown("/weather", &odd)).await, &ProblemType::InvalidPayload);
    assert_eq!(rig.model.sales(), 0);
}

#[tokio::test]
async fn attack_64_an_expired_challenge_buys_nothing_and_what_it_bought_before_comes_again() {
    let rig = Rig::weather();
    let late = credential(&challenges(&rig.get("/weather").await)[0]);
    let bought = with(
        shown("/weather", &credential(&challenges(&rig.get("/weather").await)[0])),
        "idempotency-key",
        "one",
    );
    let copy = || {
        let mut again = get("/weather");
        *again.headers_mut() = bought.headers().clone();
        again
    };
    assert_eq!(rig.send(copy()).await.status, 200);
    rig.world.advance(Duration::from_secs(3600));
    assert_refused(&rig.send(shown("/weather", &late)).await, &ProblemType::PaymentExpired);
    assert_eq!((rig.send(copy()).await.status, rig.model.settlements()), (200, 1));
}

/// A buyer who paid, and one who only signed, in front of the same seller without the secret of their challenges.
#[tokio::test]
async fn what_was_bought_is_given_again_when_its_challenge_is_no_longer_known() {
    let rig = Rig::weather();
    let bought = credential(&challenges(&rig.get("/weather").await)[0]).to_header().unwrap();
    let bought = || with(with(get("/weather"), "authorization", &bought), "idempotency-key", "one");
    let unused = credential(&challenges(&rig.get("/weather").await)[0]);
    assert_eq!(rig.send(bought()).await.status, 200);
    let key = farthing_rails::offer::BindingKey::new([1; 32], None);
    let table = || terms(vec![("GET|POST /weather", dollars("$0.002"))]);
    let other = Paywall::new(table(), rig.model.clone(), rig.world.clone(), key, Limits::default());
    let rig = Rig { paywall: other, ..rig };
    let got = rig.send(bought()).await;
    assert_eq!((got.status, got.body.as_str()), (200, "sunny"));
    assert_refused(&rig.send(shown("/weather", &unused)).await, &ProblemType::InvalidChallenge);

    // Nor does it matter whether MPP is spoken any more.
    rig.paywall.reload(Terms { mpp: Mpp { spoken: false, realm: None }, ..table() });
    assert_eq!((rig.send(bought()).await.status, rig.model.settlements()), (200, 1));
    let got = rig.send(shown("/weather", &unused)).await;
    assert_eq!((got.status, got.code().as_str()), (402, "unsupported_scheme"));
    assert!(!got.headers.contains_key("www-authenticate"));
    assert_eq!((rig.model.settlements(), rig.backend.calls()), (1, 1));
}

#[tokio::test]
async fn a_clock_that_leaps_to_the_past_makes_no_ended_challenge_valid_again() {
    let rig = Rig::weather();
    let mut cheap = Vec::new();
    for _ in 0..6 {
        cheap.push(challenges(&rig.get("/weather").await).remove(0));
    }
    let mut sell = async |back: i64| {
        rig.world.set_back_secs.store(back, std::sync::atomic::Ordering::SeqCst);
        rig.send(shown("/weather", &signed_late(&rig, &cheap.pop().unwrap()))).await
    };
    rig.paywall.reload(terms(vec![("GET|POST /weather", dollars("$5"))]));
    rig.world.advance(Duration::from_secs(119));
    assert_eq!(sell(0).await.status, 200);
    rig.world.advance(Duration::from_secs(2));
    for back in [0, 3, 120, 3_600, 86_400] {
        assert_refused(&sell(back).await, &ProblemType::PaymentExpired);
    }
    assert_eq!(rig.model.settlements(), 1);
}

#[tokio::test]
async fn a_challenge_of_a_clock_that_ran_ahead_ends_with_its_time_and_not_a_day_later() {
    let rig = Rig::weather();
    rig.world.set_back_secs.store(-86_400, std::sync::atomic::Ordering::SeqCst);
    let (first, second) = (rig.get("/weather").await, rig.get("/weather").await);
    rig.world.set_back_secs.store(0, std::sync::atomic::Ordering::SeqCst);
    rig.paywall.reload(terms(vec![("GET|POST /weather", dollars("$5"))]));
    let in_time = signed_late(&rig, &challenges(&first)[0]);
    assert_eq!(rig.send(shown("/weather", &in_time)).await.status, 200);
    rig.world.advance(Duration::from_secs(121));
    let late = signed_late(&rig, &challenges(&second)[0]);
    assert_refused(&rig.send(shown("/weather", &late)).await, &ProblemType::PaymentExpired);
}

#[tokio::test]
async fn challenges_hold_for_their_time_when_the_realm_is_another_after_a_reload() {
    let of = |realm: Option<&str>, url: Option<&str>, price: &str| Terms {
        mpp: Mpp { spoken: true, realm: realm.map(str::to_owned) },
        public_url: url.map(str::to_owned),
        ..terms(vec![("GET|POST /weather", dollars(price))])
    };
    let names = [(Some("shop"), None), (None, Some("https://old.example")), (None, None)];
    for (realm, url) in names {
        let rig = Rig::with(of(realm, url, "$0.002"), Backend::ok(), Limits::default());
        let (first, second) = (rig.get("/weather").await, rig.get("/weather").await);
        rig.paywall.reload(of(Some("new"), Some("https://new.example"), "$5"));
        assert_eq!(challenges(&rig.get("/weather").await)[0].realm, "new");
        let got = rig.send(shown("/weather", &credential(&challenges(&first)[0]))).await;
        assert_eq!(got.status, 200, "{realm:?} {url:?}: {}", got.body);
        rig.world.advance(Duration::from_secs(121));
        let late = signed_late(&rig, &challenges(&second)[0]);
        assert_eq!(rig.send(shown("/weather", &late)).await.status, 402, "{realm:?} {url:?}");
    }
}

/// Paid before it is served, and not served.
#[tokio::test]
async fn an_error_carries_no_receipt() {
    for status in [500, 504] {
        let route = Route::paid(crate::Paid { flow: Flow::Upfront, ..fixed("$0.002") });
        let backend = Backend::status(http::StatusCode::from_u16(status).unwrap());
        let rig = Rig::new(vec![("/weather", route)], backend);
        let unpaid = rig.get("/weather").await;
        let got = rig.send(shown("/weather", &credential(&challenges(&unpaid)[0]))).await;
        assert_eq!(got.status, status);
        assert!(
            !got.headers.contains_key("payment-receipt") && got.headers.contains_key("x-farthing-payment")
        );
        // Readers of x402 are told that they have paid.
        let got = rig.send(paid(get("/weather"), &pay_v2(&unpaid.challenge(), 1))).await;
        assert_eq!((got.status, got.receipt().success), (status, true));
    }
    let route = Route::paid(crate::Paid { flow: Flow::Upfront, ..fixed("$0.002") });
    let rig = Rig::new(vec![("/weather", route)], Backend::status(http::StatusCode::PAYMENT_REQUIRED));
    let mine = credential(&challenges(&rig.get("/weather").await)[0]);
    let got = rig.send(shown("/weather", &mine)).await;
    assert_eq!((got.status, got.headers.contains_key("payment-receipt")), (502, false));
}

#[tokio::test]
async fn a_description_of_several_lines_is_told_in_one() {
    let paid = crate::Paid {
        description: Some("Tomorrow's\r\n  weather,\tby\u{7f} city".to_owned()),
        ..fixed("$0.002")
    };
    let rig = Rig::new(vec![("/weather", Route::paid(paid))], Backend::ok());
    let challenge = challenges(&rig.get("/weather").await).remove(0);
    assert_eq!(challenge.description.as_deref(), Some("Tomorrow's weather, by city"));
    assert_eq!(rig.send(shown("/weather", &credential(&challenge))).await.status, 200);
}

#[tokio::test]
async fn malformed_credentials_are_asked_again_and_two_are_one_too_many() {
    let rig = Rig::weather();
    for value in ["Payment", "Payment ???", "Payment e30", "payment eyJhIjoxfQ"] {
        let got = rig.send(with(get("/weather"), "authorization", value)).await;
        assert_refused(&got, &ProblemType::MalformedCredential);
    }
    let mine = credential(&challenges(&rig.get("/weather").await)[0]).to_header().unwrap();
    let two = with(with(get("/weather"), "authorization", &mine), "payment-authorization", &mine);
    let got = rig.send(two).await;
    assert_eq!((got.status, problem(&got)), (400, ProblemType::BadRequest));
    let x402 = pay_v2(&rig.get("/weather").await.challenge(), 1);
    let both = with(paid(get("/weather"), &x402), "authorization", &mine);
    assert_eq!((rig.send(both).await.status, rig.model.sales()), (400, 0));
}

#[tokio::test]
async fn who_logs_in_by_authorization_pays_by_the_other_header() {
    let rig = Rig::weather();
    let unpaid = rig.send(with(get("/weather"), "authorization", "Bearer t0ken")).await;
    let challenge = challenges(&unpaid).remove(0);
    assert_eq!(challenge.credential_header(), "Payment-Authorization");
    let mine = credential(&challenge).to_header().unwrap();
    let request =
        with(with(get("/weather"), "authorization", "Bearer t0ken"), "payment-authorization", &mine);
    assert_eq!(rig.send(request).await.status, 200);
    let seen = rig.backend.last();
    assert_eq!(seen.2["authorization"], "Bearer t0ken");
    assert!(!seen.2.contains_key("payment-authorization"));
}

#[tokio::test]
async fn nobody_is_asked_to_pay_for_what_may_be_paid_already() {
    let rig = Rig::weather();
    let mine = credential(&challenges(&rig.get("/weather").await)[0]);
    rig.model.forced.lock().unwrap().push_back(Forced::Pending);
    for _ in 0..2 {
        let got = rig.send(shown("/weather", &mine)).await;
        assert_eq!(got.status, 503, "{}", got.body);
        assert!(got.headers.contains_key("retry-after"));
        assert!(
            !got.headers.contains_key("www-authenticate") && !got.headers.contains_key("payment-receipt")
        );
    }
    // Named otherwise it is another request, for a payment that is under way.
    let got = rig.send(with(shown("/weather", &mine), "idempotency-key", "one")).await;
    assert_eq!(got.status, 409, "{}", got.body);
    assert!(!got.headers.contains_key("www-authenticate"));

    let failing = credential(&challenges(&rig.get("/weather").await)[0]);
    rig.model.forced.lock().unwrap().push_back(Forced::SettlementFailed);
    let got = rig.send(shown("/weather", &failing)).await;
    assert_eq!((got.status, problem(&got)), (409, ProblemType::VerificationFailed));
    assert!(!got.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn a_seller_may_speak_x402_alone_or_leave_out_version_1() {
    let silent =
        Terms { mpp: Mpp { spoken: false, realm: None }, ..terms(vec![("/weather", dollars("$0.002"))]) };
    let rig = Rig::with(silent, Backend::ok(), Limits::default());
    let got = rig.get("/weather").await;
    assert!(got.header("www-authenticate").is_none());
    let other = Rig::weather();
    let mine = credential(&challenges(&other.get("/weather").await)[0]);
    let got = rig.send(shown("/weather", &mine)).await;
    assert_eq!((got.status, rig.model.sales()), (402, 0), "{}", got.body);

    let named = Terms {
        v1_body: false,
        mpp: Mpp { spoken: true, realm: Some("shop".to_owned()) },
        ..terms(vec![("/weather", dollars("$0.002"))])
    };
    let rig = Rig::with(named, Backend::ok(), Limits::default());
    let got = rig.get("/weather").await;
    assert!(!got.body.contains("x402Version"), "{}", got.body);
    assert_eq!(challenges(&got)[0].realm, "shop");
}

#[tokio::test]
async fn what_a_client_cannot_pay_is_not_put_first() {
    let rig = Rig::weather();
    for said in ["evm/charge;q=0, tempo/charge", "evm/*", "nonsense", "*/*;q=0.1"] {
        let got = rig.send(with(get("/weather"), "accept-payment", said)).await;
        assert_eq!(challenges(&got).len(), 1, "{said}");
    }
    let body: Object = match farthing_wire::json::parse(
        rig.get("/weather").await.body.as_bytes(),
        farthing_wire::mpp::BODY_LIMITS,
    ) {
        Ok(Json::Object(object)) => object,
        other => panic!("{other:?}"),
    };
    assert_eq!(body.get_str("title"), Some("Payment Required"));
    assert!(body.contains_key("accepts") && body.contains_key("challengeId"));
}
