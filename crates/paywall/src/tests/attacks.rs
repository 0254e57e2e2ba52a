//! One test for each server case of the known attacks, named after it.

use farthing_payment::Fault;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};

use super::support::*;
use crate::{Limits, Rate, Route};

#[tokio::test]
async fn attack_35_same_payment_sequentially_is_served_once() {
    let rig = Rig::weather();
    let header = pay_v2(&rig.challenge("/weather").await, 1);
    let first = rig.send(paid(get("/weather"), &header)).await;
    let second = rig.send(paid(get("/weather"), &header)).await;
    assert_eq!((first.status, first.body.as_str()), (200, "sunny"));
    assert_eq!((second.status, second.body.as_str()), (200, "sunny"));
    assert_eq!((rig.backend.calls(), rig.model.settlements()), (1, 1));
}

#[tokio::test]
async fn attack_36_twenty_parallel_copies_are_one_settlement_and_one_call() {
    let rig = Rig::weather();
    let header = pay_v2(&rig.challenge("/weather").await, 1);
    let copies = (0..20).map(|_| rig.send(paid(get("/weather"), &header)));
    let answers = futures_util::future::join_all(copies).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((rig.backend.calls(), rig.model.settlements()), (1, 1));
}

#[tokio::test]
async fn attack_36_one_authorization_in_two_dialects_is_one_service() {
    let rig = Rig::weather();
    let unpaid = rig.get("/weather").await;
    // The same authorization, nonce and all: only its clothes differ.
    let v2 = pay_v2(&unpaid.challenge(), 1);
    let v1 = pay_v1(&unpaid.challenge_v1(), 1);
    let (a, b) = tokio::join!(rig.send(paid(get("/weather"), &v2)), rig.send(paid_v1(get("/weather"), &v1)));
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!((rig.backend.calls(), rig.model.settlements()), (1, 1));
}

#[tokio::test]
async fn attack_35_what_the_chain_shows_of_a_payment_gets_nobody_its_goods() {
    let rig = Rig::weather();
    let challenge = rig.challenge("/weather").await;
    let header = pay_v2(&challenge, 1);
    assert_eq!(rig.send(paid(get("/weather"), &header)).await.status, 200);
    // Authorization and signature are public now. A stranger shows them with an offer that was made to it.
    let other = rig.challenge("/weather").await;
    let copied = pay_v2(&other, 1);
    assert_ne!(copied, header, "the seal differs");
    let got = rig.send(paid(get("/weather"), &copied)).await;
    assert_eq!(got.status, 409);
    got.assert_no_goods();
    // In v1 nothing is secret, so there the answer is repeated to the same address only.
    let header = pay_v1(&rig.get("/weather").await.challenge_v1(), 2);
    let from = |address: &str| {
        let mut request = paid_v1(get("/weather"), &header);
        request.extensions_mut().insert(crate::ClientAddr(address.parse().unwrap()));
        request
    };
    assert_eq!(rig.send(from("192.0.2.1")).await.status, 200);
    assert_eq!(rig.send(from("192.0.2.1")).await.status, 200);
    let got = rig.send(from("192.0.2.2")).await;
    assert_eq!(got.status, 409);
    got.assert_no_goods();
    assert_eq!((rig.backend.calls(), rig.model.settlements()), (2, 2));
}

#[tokio::test]
async fn attack_37_v2_payment_for_one_route_is_refused_on_another_at_the_same_price() {
    let rig = Rig::weather();
    let header = pay_v2(&rig.challenge("/other").await, 1);
    let got = rig.send(paid(get("/weather"), &header)).await;
    assert_eq!((got.status, got.code().as_str()), (402, "invalid_payment_requirements"));
    assert_eq!((rig.backend.calls(), rig.model.sales()), (0, 0));
}

#[tokio::test]
async fn attack_37_v1_payment_binds_to_its_first_use_and_never_buys_twice() {
    let rig = Rig::weather();
    let header = pay_v1(&rig.get("/weather").await.challenge_v1(), 1);
    let first = rig.send(paid_v1(get("/other"), &header)).await;
    let second = rig.send(paid_v1(get("/weather"), &header)).await;
    assert_eq!(first.status, 200);
    assert_eq!((second.status, second.code().as_str()), (409, "payment_for_other_request"));
    assert_eq!(rig.backend.calls(), 1);
    let seen = rig.model.seen.lock().unwrap();
    assert_eq!(
        seen[0].binding.bound,
        farthing_payment::Bound::ByFirstUse,
        "the record says that it is unbound"
    );
}

#[tokio::test]
async fn attack_38_cheap_payment_on_a_dear_route_is_402() {
    let rig = Rig::new(vec![("/cheap", dollars("$0.001")), ("/dear", dollars("$1"))], Backend::ok());
    let challenge = rig.get("/cheap").await;
    let by_v2 = rig.send(paid(get("/dear"), &pay_v2(&challenge.challenge(), 1))).await;
    let by_v1 = rig.send(paid_v1(get("/dear"), &pay_v1(&challenge.challenge_v1(), 2))).await;
    assert_eq!((by_v2.status, by_v1.status), (402, 402));
    assert_eq!(by_v1.code(), "invalid_exact_evm_payload_authorization_value_mismatch");
    assert_eq!((rig.backend.calls(), rig.model.sales()), (0, 0));
}

#[tokio::test]
async fn attack_38_payment_for_a_cheap_method_or_query_does_not_buy_another() {
    let rig = Rig::new(vec![("GET /w", dollars("$0.001")), ("POST /w", dollars("$0.001"))], Backend::ok());
    let header = pay_v2(&rig.challenge("/w").await, 1);
    let got = rig.send(paid(request("POST", "/w", "x"), &header)).await;
    assert_eq!(got.status, 402, "the seal names the method");
    assert_eq!(rig.send(paid(get("/w?size=1"), &header)).await.status, 200);
    let got = rig.send(paid(get("/w?size=1000"), &header)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "payment_for_other_request"));
    assert_eq!(rig.backend.calls(), 1);
}

#[tokio::test]
async fn attack_39_no_spelling_of_a_paid_path_gets_unpaid_content() {
    let routes = || vec![("GET /paid/report", dollars("$1")), ("* /*", Route::Free)];
    let spellings = [
        "/paid/report",
        "/PAID/Report",
        "/paid/report/",
        "//paid///report",
        "/paid//report",
        "/%70aid/report",
        "/paid%2Freport",
        "/paid%2freport",
        "/paid%252Freport",
        "/paid%25252freport",
        "/./paid/report",
        "/x/../paid/report",
        "/x/%2e%2e/paid/report",
        "/x/.%2E/paid/report",
        "/x/..%2fpaid/report",
        "/paid\\report",
        "/paid%5creport",
        "/paid/report;x=1",
        "/paid;v=2/report",
        "/paid/report%3Bx",
        "/paid/%72eport",
        "/paid/report%00",
        "/paid/report%0a",
        "/paid/..;/paid/report",
        "/paid/report%",
        "/paid/report%zz",
        "/%2570aid/report",
        "/paid/repor%C5%BF%2F..%2Freport",
    ];
    for spelling in spellings {
        let rig = Rig::new(routes(), Backend::ok());
        // Some of these are no URI at all, and never become a request.
        let Ok(request) = http::Request::builder().uri(spelling).body(Full::default()) else { continue };
        let got = rig.send(request).await;
        assert!(matches!(got.status, 400 | 402), "{spelling}: {}", got.status);
        assert_eq!(rig.backend.calls(), 0, "{spelling}");
    }
}

#[tokio::test]
async fn attack_39_no_method_gets_unpaid_content() {
    let rig = Rig::new(vec![("GET /paid", dollars("$1")), ("* /*", Route::Free)], Backend::ok());
    let head = rig.send(request("HEAD", "/paid", "")).await;
    assert_eq!((head.status, head.body.as_str()), (402, ""));
    assert!(head.headers.contains_key("payment-required"), "HEAD shows the price of its GET");
    assert_eq!(rig.backend.calls(), 0);
    let options = rig.send(request("OPTIONS", "/paid", "")).await;
    assert_eq!((options.status, options.body.as_str()), (200, ""), "headers are free, bodies are not");
    for method in ["get", "Get", "gEt"] {
        let got = rig.send(request(method, "/paid", "")).await;
        assert_eq!((got.status, got.code().as_str()), (400, "invalid_method"));
    }
    assert_eq!(rig.backend.calls(), 1, "only OPTIONS went through");
}

#[tokio::test]
async fn attack_39_headers_cannot_change_method_or_path_behind_our_back() {
    let rig = Rig::new(vec![("GET /paid", dollars("$1")), ("* /*", Route::Free)], Backend::ok());
    let mut request = get("/free");
    for name in ["x-http-method-override", "x-original-url", "x-rewrite-url", "x-method-override"] {
        request.headers_mut().insert(name, HeaderValue::from_static("/paid"));
    }
    assert_eq!(rig.send(request).await.status, 200);
    let (_, path, headers, _) = rig.backend.last();
    assert_eq!(path, "/free");
    assert!(headers.keys().all(|name| !name.as_str().starts_with("x-")), "{headers:?}");
}

#[tokio::test]
async fn attack_39_what_is_matched_is_what_is_sent_upstream() {
    let rig = Rig::new(vec![("GET /paid/{id}", dollars("$1")), ("* /*", Route::Free)], Backend::ok());
    assert_eq!(rig.get("//open///%61%20b/?q=%2F..//x").await.status, 200);
    assert_eq!(rig.backend.last().1, "/open/a%20b/?q=%2F..//x");
}

#[tokio::test]
async fn attack_40_pending_settlement_is_503_without_content_or_challenge() {
    let rig = Rig::weather();
    rig.model.forced.lock().unwrap().push_back(Forced::Pending);
    let got = rig.buy("/weather").await;
    assert_eq!((got.status, got.code().as_str()), (503, "settlement_pending"));
    assert!(got.header("retry-after").is_some());
    let receipt = got.receipt();
    assert!(receipt.is_pending());
    assert_eq!(receipt.transaction, TX);
    assert!(got.header("x-farthing-payment").unwrap().starts_with("pay_"));
    got.assert_no_challenge();
    got.assert_no_goods();
    assert_eq!(rig.backend.calls(), 0);
}

#[tokio::test]
async fn attack_40_pending_is_said_to_v1_clients_in_their_header() {
    let rig = Rig::weather();
    rig.model.forced.lock().unwrap().push_back(Forced::Pending);
    let header = pay_v1(&rig.get("/weather").await.challenge_v1(), 1);
    let got = rig.send(paid_v1(get("/weather"), &header)).await;
    assert_eq!(got.status, 503);
    assert!(got.headers.contains_key("x-payment-response"));
    got.assert_no_challenge();
}

#[tokio::test]
async fn attack_40_what_we_need_is_down_is_503_without_content_or_challenge() {
    for forced in [Forced::Unavailable, Forced::Refused("unexpected_verify_error", Fault::Chain)] {
        let rig = Rig::weather();
        rig.model.forced.lock().unwrap().push_back(forced);
        let got = rig.buy("/weather").await;
        assert_eq!(got.status, 503);
        got.assert_no_challenge();
        assert_eq!(rig.backend.calls(), 0);
    }
}

#[tokio::test]
async fn attack_41_failed_settlement_is_402_with_its_receipt_and_no_challenge() {
    let rig = Rig::weather();
    rig.model.forced.lock().unwrap().push_back(Forced::SettlementFailed);
    let got = rig.buy("/weather").await;
    assert_eq!((got.status, got.body.as_str()), (402, "{}"));
    assert!(!got.receipt().success);
    got.assert_no_challenge();
}

#[tokio::test]
async fn attack_42_upstream_errors_and_redirects_cost_nothing() {
    for status in [301, 302, 304, 400, 404, 410, 500, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        let rig = Rig::weather_with(Backend::status(status));
        let got = rig.buy("/weather").await;
        assert_eq!(got.status, status.as_u16(), "the upstream's own answer is shown");
        assert_eq!(rig.model.settlements(), 0);
        assert!(!got.receipt().success, "the receipt says that nothing was charged");
    }
}

#[tokio::test]
async fn attack_42_partial_and_paywalled_answers_cost_nothing_and_are_not_shown() {
    for status in [206, 402] {
        let status = StatusCode::from_u16(status).unwrap();
        let rig = Rig::weather_with(Backend::status(status));
        let got = rig.buy("/weather").await;
        assert_eq!(got.status, 502);
        assert!(!got.body.contains("said by the upstream"));
        assert_eq!(rig.model.settlements(), 0);
    }
}

#[tokio::test]
async fn attack_42_truncated_answers_cost_nothing_and_are_not_shown() {
    let cut = Rig::weather_with(Backend::new(|| http::Response::new(Broken(false).boxed_unsync())));
    let short = Rig::weather_with(Backend::new(|| {
        let mut response = http::Response::new(body("sunny"));
        response.headers_mut().insert("content-length", HeaderValue::from_static("50"));
        response
    }));
    for rig in [cut, short] {
        let got = rig.buy("/weather").await;
        assert_eq!((got.status, got.code().as_str()), (502, "upstream_truncated"));
        got.assert_no_goods();
        assert_eq!(rig.model.settlements(), 0);
    }
}

#[tokio::test]
async fn attack_42_answer_whose_end_cannot_be_told_costs_nothing() {
    let rig = Rig::weather_with(Backend::new(|| {
        let mut response = http::Response::new(body("sunny"));
        response.extensions_mut().insert(crate::Unframed);
        response
    }));
    let got = rig.buy("/weather").await;
    assert_eq!((got.status, got.code().as_str()), (502, "upstream_end_unknown"));
    assert_eq!(rig.model.settlements(), 0);
    let receipt = got.receipt();
    assert_eq!((receipt.success, receipt.is_pending()), (false, false), "a buyer need not wonder");
}

#[tokio::test]
async fn attack_42_time_out_costs_nothing_and_is_504() {
    use std::sync::atomic::Ordering;
    // The upstream begins to answer and never ends.
    let rig = Rig::weather_with(Backend::new(|| http::Response::new(Endless.boxed_unsync())));
    let header = pay_v2(&rig.challenge("/weather").await, 1);
    rig.world.hurry.store(true, Ordering::SeqCst);
    let got = rig.send(paid(get("/weather"), &header)).await;
    assert_eq!((got.status, got.code().as_str()), (504, "upstream_timeout"));
    assert_eq!(rig.model.settlements(), 0);
}

struct Endless;

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = crate::BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, crate::BoxError>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn attack_43_paid_before_is_answered_even_after_offer_and_authorization_ended() {
    let rig = Rig::weather();
    let header = pay_v2(&rig.challenge("/weather").await, 1);
    assert_eq!(rig.send(paid(get("/weather"), &header)).await.status, 200);
    rig.world.advance(std::time::Duration::from_secs(3600));
    let again = rig.send(paid(get("/weather"), &header)).await;
    assert_eq!(
        (again.status, again.body.as_str()),
        (200, "sunny"),
        "to challenge here would be to charge twice"
    );
    assert_eq!(rig.backend.calls(), 1);
    // One that was never taken is refused, and may be signed anew.
    let other = pay_v2(&rig.challenge("/weather").await, 2);
    let got = rig.send(paid(get("/weather"), &other)).await;
    assert_eq!(got.status, 402);
    assert_eq!(got.code(), "invalid_exact_evm_payload_authorization_valid_before");
}

#[tokio::test]
async fn attack_44_same_payment_with_another_body_is_409() {
    let rig = Rig::weather();
    let unpaid = rig.send(request("POST", "/weather", "a")).await;
    let header = pay_v2(&unpaid.challenge(), 1);
    assert_eq!(rig.send(paid(request("POST", "/weather", "a"), &header)).await.status, 200);
    let got = rig.send(paid(request("POST", "/weather", "b"), &header)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "payment_for_other_request"));
    got.assert_no_challenge();
    assert_eq!(rig.backend.calls(), 1);
}

#[tokio::test]
async fn attack_45_shared_caches_get_nothing_of_a_paid_answer() {
    let rig = Rig::weather_with(Backend::new(|| {
        let mut response = http::Response::new(body("sunny"));
        let headers = response.headers_mut();
        headers.append("cache-control", HeaderValue::from_static("public, max-age=600, s-maxage=900"));
        headers.append("cdn-cache-control", HeaderValue::from_static("max-age=600"));
        headers.append("surrogate-control", HeaderValue::from_static("max-age=600"));
        response
    }));
    assert_eq!(rig.get("/weather").await.header("cache-control"), Some("no-store"));
    let got = rig.buy("/weather").await;
    assert_eq!(got.header("cache-control"), Some("private, max-age=600"));
    assert!(!got.headers.contains_key("cdn-cache-control") && !got.headers.contains_key("surrogate-control"));
    assert!(got.header("vary").unwrap().contains("PAYMENT-SIGNATURE"));
}

#[tokio::test]
async fn attack_46_duplicate_mixed_or_folded_payment_headers_are_400() {
    let rig = Rig::weather();
    let unpaid = rig.get("/weather").await;
    let (v2, v1) = (pay_v2(&unpaid.challenge(), 1), pay_v1(&unpaid.challenge_v1(), 2));
    let mut twice = paid(get("/weather"), &v2);
    twice.headers_mut().append("payment-signature", HeaderValue::from_str(&v2).unwrap());
    let folded = paid(get("/weather"), &format!("{v2}, {v2}"));
    let mixed = paid_v1(paid(get("/weather"), &v2), &v1);
    for request in [twice, folded, mixed] {
        let got = rig.send(request).await;
        assert_eq!((got.status, got.code().as_str()), (400, "ambiguous_payment"));
    }
    assert_eq!((rig.backend.calls(), rig.model.sales()), (0, 0));
}

#[tokio::test]
async fn attack_47_malformed_payments_are_400_or_402_and_never_5xx() {
    use base64ish as b64;
    let rig = Rig::weather();
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let good = pay_v2(&rig.challenge("/weather").await, 1);
    let cases = [
        "".to_owned(),
        "%%%".to_owned(),
        "e30".to_owned(),
        b64("null"),
        b64("[]"),
        b64("{}"),
        b64("\u{0}"),
        b64(&deep),
        b64("{\"x402Version\":2}"),
        b64("{\"x402Version\":9}"),
        b64("{\"x402Version\":2,\"x402Version\":2}"),
        b64("{\"x402Version\":2,\"accepted\":{},\"payload\":{}}"),
        "A".repeat(20_000),
        good.replace('A', "_"),
        good[..good.len() / 2].to_owned(),
    ];
    for case in &cases {
        for name in ["payment-signature", "x-payment"] {
            let mut request = get("/weather");
            request.headers_mut().insert(name, HeaderValue::from_str(case).unwrap());
            let got = rig.send(request).await;
            assert!(matches!(got.status, 400 | 402), "{case}: {}", got.status);
        }
    }
    assert_eq!((rig.backend.calls(), rig.model.sales()), (0, 0));
}

fn base64ish(text: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = usize::try_from(word >> (18 - 6 * at) & 63).unwrap();
            out.push(if at <= chunk.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    out
}

#[tokio::test]
async fn attack_48_credentials_in_the_url_are_refused() {
    let rig = Rig::weather();
    let got = rig.get("http://user:secret@api.example/weather").await;
    assert_eq!((got.status, got.code().as_str()), (400, "credentials_in_url"));
    assert!(!got.body.contains("secret"));
}

#[tokio::test]
async fn attack_49_a_facilitator_named_by_the_client_is_ignored() {
    let rig = Rig::weather();
    let mut challenge = rig.challenge("/weather").await;
    let mut extra = challenge.accepts[0].extra.clone().unwrap();
    extra.insert("facilitator", "https://evil.example");
    challenge.accepts[0].extra = Some(extra);
    let mut request = paid(get("/weather"), &pay_v2(&challenge, 1));
    request.headers_mut().insert("x-facilitator-url", HeaderValue::from_static("https://evil.example"));
    assert_eq!(rig.send(request).await.status, 200);
    // What is settled is our own requirement: the client's words are nowhere in the sale.
    let seen = rig.model.seen.lock().unwrap();
    assert_eq!(seen[0].terms.payee.as_str(), PAYEE);
    assert!(!String::from_utf8_lossy(seen[0].terms.instruction.as_bytes()).contains("evil"));
}

#[tokio::test]
async fn attack_50_garbage_signatures_are_limited_before_anything_is_asked() {
    let limits = Limits { contract_payments: Rate { per_second: 1, burst: 3 }, ..Limits::default() };
    let rig = Rig::with(terms(vec![("/weather", dollars("$0.002"))]), Backend::ok(), limits);
    let challenge = rig.challenge("/weather").await;
    let mut statuses = Vec::new();
    for nonce in 0..10 {
        let mut payment = payment_v2(&challenge, nonce);
        payment.payload.insert("signature", format!("0x{}", "11".repeat(65)));
        let header = farthing_wire::x402::Message::to_header(&payment);
        statuses.push(rig.send(paid(get("/weather"), &header)).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 7);
    assert_eq!(rig.model.sales(), 3, "only these could cost a read");
}

#[tokio::test]
async fn attack_50_a_flood_of_payments_from_one_client_is_limited() {
    let rig = Rig::with(terms(vec![("/weather", dollars("$0.002"))]), Backend::ok(), tight());
    let challenge = rig.challenge("/weather").await;
    let mut statuses = Vec::new();
    for nonce in 0..4 {
        statuses.push(rig.send(paid(get("/weather"), &pay_v2(&challenge, nonce))).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
    rig.world.advance(std::time::Duration::from_secs(1));
    assert_eq!(rig.send(paid(get("/weather"), &pay_v2(&challenge, 9))).await.status, 200);
}

#[tokio::test]
async fn attack_38_words_that_were_never_accepted_buy_nothing_while_their_key_is_held() {
    let rig = Rig::weather();
    let challenge = rig.get("/weather").await.challenge_v1();
    let header = pay_v1(&challenge, 1);
    assert_eq!(rig.send(paid_v1(get("/weather"), &header)).await.status, 200);
    // The same nonce, signed for one atom to the payer's friend: recognised by its key, and no more than that. If the
    // claim is given back meanwhile, the sale claims it anew, on the terms that it names.
    let mut own = challenge.clone();
    for offer in &mut own.accepts {
        offer.pay_to = farthing_primitives::Address::from_evm_bytes([0xf1; 20]).into();
    }
    rig.send(paid_v1(get("/weather"), &pay_v1(&own, 1))).await;
    let seen = rig.model.seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].terms, seen[0].terms);
}
