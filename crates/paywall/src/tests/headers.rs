//! The challenge as both generations read it, and what browsers are told.

use http::HeaderValue;

use super::support::*;
use crate::{Cors, Limits};

#[tokio::test]
async fn one_402_speaks_to_all() {
    let rig = Rig::weather();
    let got = rig.get("/weather?city=Bern").await;
    assert_eq!(got.status, 402);
    assert_eq!(got.header("content-type"), Some("application/problem+json"));
    assert_eq!(got.header("cache-control"), Some("no-store"));
    let (v2, v1) = (got.challenge(), got.challenge_v1());
    assert_eq!(v2.resource.url, "http://api.example/weather?city=Bern");
    assert_eq!((v2.accepts.len(), v1.accepts.len()), (1, 1));
    assert_eq!((v2.accepts[0].amount, v1.accepts[0].max_amount_required), (2000, 2000));
    assert_eq!(v1.accepts[0].network.name(), "base-sepolia");
    assert_eq!(v1.accepts[0].resource, v2.resource.url);
    assert!(v2.accepts[0].extra_str("farthing").is_some() && v1.accepts[0].extra_str("farthing").is_none());
    // Spec: intermediaries cut headers at 8 KiB or less.
    assert!(got.header("payment-required").unwrap().len() < 2048);
}

#[tokio::test]
async fn receipts_go_out_in_the_dialect_that_the_payment_came_in() {
    let rig = Rig::weather();
    let unpaid = rig.get("/weather").await;
    let v2 = rig.send(paid(get("/weather"), &pay_v2(&unpaid.challenge(), 1))).await;
    let v1 = rig.send(paid_v1(get("/weather"), &pay_v1(&unpaid.challenge_v1(), 2))).await;
    assert!(v2.headers.contains_key("payment-response") && !v2.headers.contains_key("x-payment-response"));
    assert!(v1.headers.contains_key("x-payment-response") && !v1.headers.contains_key("payment-response"));
    let receipt = v2.receipt();
    assert!(receipt.success);
    assert_eq!((receipt.network.as_str(), receipt.transaction.as_str()), ("eip155:84532", TX));
    let value = v1.headers["x-payment-response"].as_bytes();
    let receipt: farthing_wire::x402::SettlementResponse =
        farthing_wire::x402::Message::from_header(value).unwrap();
    assert_eq!(receipt.network, "base-sepolia");
}

#[tokio::test]
async fn a_host_that_is_none_is_not_repeated() {
    let rig = Rig::weather();
    let mut request = get("/weather");
    request.headers_mut().insert("host", HeaderValue::from_static("evil.example/\"x"));
    assert_eq!(rig.send(request).await.challenge().resource.url, "http://localhost/weather");
}

#[tokio::test]
async fn the_public_url_goes_before_what_the_client_says() {
    let mut terms = terms(vec![("/weather", dollars("$0.002"))]);
    terms.public_url = Some("https://api.example.com/".to_owned());
    let rig = Rig::with(terms, Backend::ok(), Limits::default());
    assert_eq!(rig.challenge("/weather").await.resource.url, "https://api.example.com/weather");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_and_pay() {
    let mut terms = terms(vec![("GET /weather", dollars("$0.002"))]);
    terms.cors = Cors::Only(vec!["https://shop.example".to_owned()]);
    let rig = Rig::with(terms, Backend::ok(), Limits::default());
    for (origin, allowed) in [("https://shop.example", true), ("https://evil.example", false)] {
        let mut preflight = request("OPTIONS", "/weather", "");
        preflight.headers_mut().insert("origin", HeaderValue::from_static(origin));
        preflight.headers_mut().insert("access-control-request-method", HeaderValue::from_static("GET"));
        let got = rig.send(preflight).await;
        assert_eq!(got.status, 204);
        let headers = got.header("access-control-allow-headers").unwrap_or_default();
        assert_eq!(headers.contains("PAYMENT-SIGNATURE"), allowed);
        let mut unpaid = get("/weather");
        unpaid.headers_mut().insert("origin", HeaderValue::from_static(origin));
        let got = rig.send(unpaid).await;
        assert_eq!(got.header("access-control-allow-origin"), allowed.then_some(origin));
        let exposed = got.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("PAYMENT-REQUIRED") && exposed.contains("PAYMENT-RESPONSE"));
    }
    assert_eq!(rig.backend.calls(), 0, "preflight is free and answered here");
}

#[tokio::test]
async fn where_the_upstream_decides_its_preflight_is_extended() {
    let rig = Rig::weather_with(Backend::new(|| {
        let mut response = http::Response::new(body("sunny"));
        response.headers_mut().insert("access-control-allow-origin", HeaderValue::from_static("*"));
        response
    }));
    let mut preflight = request("OPTIONS", "/weather", "");
    preflight.headers_mut().insert("origin", HeaderValue::from_static("https://shop.example"));
    preflight.headers_mut().insert("access-control-request-method", HeaderValue::from_static("GET"));
    let got = rig.send(preflight).await;
    assert!(got.header("access-control-allow-headers").unwrap().contains("PAYMENT-SIGNATURE"));
    assert_eq!(got.body, "", "preflight is free, what it stands before is not");
}
