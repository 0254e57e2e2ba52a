//! Streaming flows, the status resource, and what the upstream is told.

use bytes::Bytes;
use farthing_engine::ExposureLimit;
use farthing_payment::Flow;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::support::*;
use crate::{Paid, Route};

fn with_flow(flow: Flow) -> Paid {
    let exposure = (flow == Flow::Background).then_some(ExposureLimit { per_payer: 10_000, total: 50_000 });
    Paid { flow, exposure, ..fixed("$0.002") }
}

fn rig(flow: Flow, backend: Backend) -> Rig {
    Rig::new(vec![("/weather", Route::paid(with_flow(flow)))], backend)
}

fn delivered(rig: &Rig) -> Vec<Result<(), String>> {
    rig.model.delivered.lock().unwrap().clone()
}

#[tokio::test]
async fn upfront_answers_with_its_receipt_and_reports_the_delivery() {
    let rig = rig(Flow::Upfront, Backend::ok());
    let challenge = rig.challenge("/weather").await;
    assert_eq!(challenge.accepts[0].extra_str("paymentFlow"), Some("upfront"));
    let got = rig.send(paid(get("/weather"), &pay_v2(&challenge, 1))).await;
    assert_eq!((got.status, got.body.as_str()), (200, "sunny"));
    assert!(got.receipt().success);
    assert_eq!(delivered(&rig), [Ok(())]);
}

#[tokio::test]
async fn background_answers_without_a_receipt_but_says_where_to_ask() {
    let rig = rig(Flow::Background, Backend::ok());
    let got = rig.buy("/weather").await;
    assert_eq!((got.status, got.body.as_str()), (200, "sunny"));
    assert!(!got.headers.contains_key("payment-response"), "nothing is settled yet");
    let url = got.header("x-farthing-status").unwrap().to_owned();
    let status = rig.get(url.strip_prefix("http://api.example").unwrap()).await;
    assert_eq!(status.status, 200);
    assert!(status.body.contains("\"state\":\"claimed\"") && status.body.contains("\"amount\":\"2000\""));
    assert!(!status.body.contains("payer"), "public facts only: {}", status.body);
    assert_eq!(rig.model.seen.lock().unwrap()[0].exposure.as_ref().unwrap().total, 50_000);
}

#[tokio::test]
async fn over_exposed_is_402_without_goods() {
    let rig = rig(Flow::Background, Backend::ok());
    rig.model.forced.lock().unwrap().push_back(Forced::OverExposed);
    let got = rig.buy("/weather").await;
    assert_eq!((got.status, got.code().as_str()), (402, "exposure_limit_reached"));
    got.assert_no_goods();
    assert_eq!(rig.backend.calls(), 0);
}

#[tokio::test]
async fn upfront_upstream_failure_is_reported_and_shows_the_receipt() {
    let rig = rig(Flow::Upfront, Backend::status(StatusCode::INTERNAL_SERVER_ERROR));
    let got = rig.buy("/weather").await;
    assert_eq!(got.status, 500);
    assert!(got.receipt().success, "the payer paid, and must be able to show it");
    assert_eq!(delivered(&rig), [Err("upstream_not_ok".to_owned())]);
}

#[tokio::test]
async fn broken_streams_and_lost_clients_are_reported_as_not_delivered() {
    let broken = rig(Flow::Upfront, Backend::new(|| Response::new(Broken(false).boxed_unsync())));
    let header = pay_v2(&broken.challenge("/weather").await, 1);
    let answer = broken.raw(paid(get("/weather"), &header)).await;
    assert!(answer.into_body().collect().await.is_err());
    assert_eq!(delivered(&broken), [Err("upstream_truncated".to_owned())]);

    let lost = rig(Flow::Upfront, Backend::ok());
    let header = pay_v2(&lost.challenge("/weather").await, 1);
    drop(lost.raw(paid(get("/weather"), &header)).await);
    assert_eq!(delivered(&lost), [Err("delivery_interrupted".to_owned())]);
}

#[tokio::test]
async fn upfront_head_is_delivered_although_nobody_reads_its_body() {
    let rig = rig(Flow::Upfront, Backend::ok());
    let header = pay_v2(&rig.challenge("/weather").await, 1);
    drop(rig.raw(paid(request("HEAD", "/weather", ""), &header)).await);
    assert_eq!(delivered(&rig), [Ok(())]);
}

#[tokio::test]
async fn the_upstream_is_told_who_paid_and_forged_headers_are_gone() {
    let rig = Rig::weather();
    let header = pay_v2(&rig.challenge("/weather").await, 1);
    let mut request = paid(get("/weather"), &header);
    for (name, value) in [
        ("x-farthing-payer", "0xevil"),
        ("x-farthing-amount", "1000000"),
        ("x-farthing-admin", "yes"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"x\""),
        ("if-modified-since", "now"),
        ("if-range", "x"),
        ("connection", "x-drop"),
        ("x-drop", "1"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let got = rig.send(request).await;
    assert_eq!(got.status, 200);
    let (_, _, headers, _) = rig.backend.last();
    let payer = farthing_evm::from_alloy(payer().address());
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(text("x-farthing-payer"), Some(payer.as_str()));
    assert_eq!(text("x-farthing-amount"), Some("2000"));
    assert_eq!(text("x-farthing-network"), Some("eip155:84532"));
    assert_eq!(text("x-farthing-payment"), got.header("x-farthing-payment"));
    assert_eq!(text("idempotency-key"), got.header("x-farthing-payment"));
    for gone in [
        "x-farthing-admin",
        "range",
        "if-none-match",
        "if-modified-since",
        "if-range",
        "connection",
        "x-drop",
        "payment-signature",
        "x-payment",
    ] {
        assert_eq!(text(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn forged_headers_are_gone_on_free_routes_too() {
    let rig = Rig::new(vec![("/free", Route::Free)], Backend::ok());
    let mut request = get("/free");
    request.headers_mut().insert("x-farthing-payer", HeaderValue::from_static("0xevil"));
    assert_eq!(rig.send(request).await.status, 200);
    assert!(!rig.backend.last().2.contains_key("x-farthing-payer"));
}

#[tokio::test]
async fn a_clients_own_idempotency_key_is_kept() {
    let rig = Rig::weather();
    let header = pay_v2(&rig.challenge("/weather").await, 1);
    let mut request = paid(get("/weather"), &header);
    request.headers_mut().insert("idempotency-key", HeaderValue::from_static("mine"));
    assert_eq!(rig.send(request).await.status, 200);
    assert_eq!(rig.backend.last().2["idempotency-key"], "mine");
}

#[tokio::test]
async fn an_upstream_cannot_forge_receipts_or_challenges() {
    let rig = Rig::weather_with(Backend::new(|| {
        let mut response = Response::new(body("sunny"));
        for name in [
            "payment-response",
            "payment-required",
            "x-payment-response",
            "settlement-overrides",
            "extension-responses",
            "x-farthing-payment",
            "connection",
            "keep-alive",
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static("forged"));
        }
        response
    }));
    let got = rig.buy("/weather").await;
    assert_eq!(got.status, 200);
    assert!(got.receipt().success);
    assert!(got.headers.values().all(|value| value != "forged"), "{:?}", got.headers);
}

#[tokio::test]
async fn stored_answers_keep_their_headers_and_trailers() {
    let rig = Rig::weather_with(Backend::new(|| {
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let body = body("sunny").with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().append("set-cookie", HeaderValue::from_static("a=1"));
        response.headers_mut().append("set-cookie", HeaderValue::from_static("b=2"));
        response
    }));
    let header = pay_v2(&rig.challenge("/weather").await, 1);
    for _ in 0..2 {
        let got = rig.send(paid(get("/weather"), &header)).await;
        assert_eq!((got.status, got.body.as_str()), (201, "sunny"));
        assert_eq!(got.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(got.trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!(rig.backend.calls(), 1);
}

#[tokio::test]
async fn unknown_payments_have_no_status() {
    let rig = Rig::weather();
    for id in ["pay_0193b4c0a1b27c3d8e4f5a6b7c8d9e0f", "pay_x", "", "../../etc"] {
        let got = rig.get(&format!("/.well-known/farthing/payments/{id}")).await;
        assert!(matches!(got.status, 400 | 404), "{id}: {}", got.status);
    }
    assert_eq!(rig.backend.calls(), 0);
}

#[tokio::test]
async fn hanging_up_before_the_last_byte_of_a_stream_is_not_free() {
    let endless = || {
        let first = Frame::data(Bytes::from_static(b"nearly all"));
        let stream = futures_util::stream::iter([Ok::<_, crate::BoxError>(first)]);
        Response::new(StreamBody::new(stream.chain(futures_util::stream::pending())).boxed_unsync())
    };
    let interrupted = Err("delivery_interrupted".to_owned());
    // Who has paid before is owed the whole; who has not has had what there was.
    for (flow, told) in [(Flow::Background, Ok(())), (Flow::Upfront, interrupted)] {
        let rig = rig(flow, Backend::new(endless));
        let header = pay_v2(&rig.challenge("/weather").await, 1);
        let mut answer = rig.raw(paid(get("/weather"), &header)).await;
        assert!(answer.body_mut().frame().await.unwrap().is_ok());
        drop(answer);
        assert_eq!(delivered(&rig), [told], "{flow:?}");
    }
}

/// The payment with this name in `payment-identifier`.
fn named(header: &str, name: &str) -> String {
    use farthing_wire::Object;
    use farthing_wire::x402::{Message, extensions::PAYMENT_IDENTIFIER, v2};
    let mut payment = v2::PaymentPayload::from_header(header.as_bytes()).unwrap();
    let mut extensions = farthing_wire::x402::Extensions::new();
    extensions.announce_payment_identifier(false);
    extensions.answer(PAYMENT_IDENTIFIER, Object::new().with("id", name)).unwrap();
    payment.extensions = Some(extensions);
    payment.to_header()
}

/// Spec: extensions/payment_identifier, "Idempotency Behavior".
#[tokio::test]
async fn a_payment_identifier_is_announced_and_names_one_payment() {
    const NAME: &str = "pay_7d5d747be160e280504c099d984bcfe0";
    let rig = Rig::weather();
    let challenge = rig.challenge("/weather").await;
    let announced = challenge.extensions.as_ref().unwrap().payment_identifier().unwrap().unwrap();
    assert_eq!((announced.required, announced.id), (false, None));
    let first = named(&pay_v2(&challenge, 1), NAME);
    let served = rig.send(paid(get("/weather"), &first)).await;
    assert_eq!((served.status, served.body.as_str()), (200, "sunny"));
    // The same payload again: the same answer.
    let again = rig.send(paid(get("/weather"), &first)).await;
    assert_eq!((again.status, again.body.as_str(), rig.backend.calls()), (200, "sunny", 1));
    assert_eq!(again.header("x-farthing-payment"), served.header("x-farthing-payment"));
    // Another payload by the same name, for the same request.
    let other = rig.send(paid(get("/weather"), &named(&pay_v2(&challenge, 2), NAME))).await;
    assert_eq!((other.status, other.code().as_str()), (409, "payment_identifier_taken"), "{other:?}");
    other.assert_no_goods();
    assert_eq!(rig.backend.calls(), 1);
    assert_eq!(other.header("x-farthing-payment"), served.header("x-farthing-payment"));
    // Whose signature only a contract could vouch for is told of no payment: it may be anybody.
    let mut unproven = payment_v2(&challenge, 5);
    unproven.payload.insert("signature", format!("0x{}", "11".repeat(65)));
    let stranger = rig
        .send(paid(get("/weather"), &named(&farthing_wire::x402::Message::to_header(&unproven), NAME)))
        .await;
    assert_eq!((stranger.status, stranger.code().as_str()), (409, "payment_identifier_taken"));
    assert!(stranger.header("x-farthing-payment").is_none() && !stranger.body.contains("pay_"));
    // And the same payload for another request.
    let elsewhere = rig.send(paid(get("/weather?in=Porto"), &first)).await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (409, "payment_for_other_request"));
    // Another name is another payment; no name is none.
    for (nonce, name) in [(3, Some("pay_another_name_0000")), (4, None)] {
        let header = pay_v2(&challenge, nonce);
        let header = name.map_or(header.clone(), |name| named(&header, name));
        assert_eq!(rig.send(paid(get("/weather"), &header)).await.status, 200);
    }
}

#[tokio::test]
async fn a_payment_identifier_that_is_none_is_refused_before_anything_is_sold() {
    let rig = Rig::weather();
    let challenge = rig.challenge("/weather").await;
    for wrong in ["short", "sixteen chars ok", &"a".repeat(129), "pay_7d5d747be160e280504c099d98é"] {
        let got = rig.send(paid(get("/weather"), &named(&pay_v2(&challenge, 1), wrong))).await;
        assert_eq!(got.status, 400, "{wrong}");
        got.assert_no_goods();
    }
    assert_eq!(rig.model.sales(), 0);
}
