//! The way to Stripe over HTTP: what it sends, and what it takes for an answer.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use bytes::Bytes;
use farthing_stripe::{API_VERSION, Api, Call, HttpApi, NoAnswer};

const SECOND: Duration = Duration::from_secs(1);

async fn stripe(routes: axum::Router) -> HttpApi {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    HttpApi::new(base, "sk_test_1").unwrap()
}

#[tokio::test]
async fn a_charge_is_a_form_with_a_key_under_basic_authentication() {
    let echo = |request: Request| async move {
        let (parts, body) = request.into_parts();
        let mut said = String::new();
        for name in ["authorization", "stripe-version", "idempotency-key"] {
            said.push_str(parts.headers[name].to_str().unwrap());
            said.push(' ');
        }
        let body = axum::body::to_bytes(body, 1024).await.unwrap();
        said.push_str(std::str::from_utf8(&body).unwrap());
        (StatusCode::PAYMENT_REQUIRED, [("idempotent-replayed", "true")], said).into_response()
    };
    let api = stripe(axum::Router::new().route("/v1/payment_intents", post(echo))).await;
    let call = Call::post("v1/payment_intents", Some("mpp_a_b".to_owned()))
        .with("amount", "50")
        .with("metadata[a]", "b&c=d");
    let answer = api.call(call, SECOND).await.unwrap();
    assert_eq!((answer.status, answer.replayed), (402, true));
    // `sk_test_1:` in base64.
    let expected =
        format!("Basic c2tfdGVzdF8xOg== {API_VERSION} mpp_a_b amount=50&metadata%5Ba%5D=b%26c%3Dd");
    assert_eq!(answer.body, Bytes::from(expected));
}

#[tokio::test]
async fn a_question_has_its_fields_in_the_query() {
    let echo = |request: Request| async move { request.uri().to_string() };
    let api = stripe(axum::Router::new().route("/v1/payment_intents", get(echo))).await;
    let answer = api.call(Call::get("v1/payment_intents").with("created[gte]", "1"), SECOND).await.unwrap();
    assert_eq!(
        (answer.replayed, answer.body),
        (false, Bytes::from_static(b"/v1/payment_intents?created%5Bgte%5D=1"))
    );
}

#[test]
fn no_token_is_in_what_is_logged() {
    let look = Call::get("v1/shared_payment/granted_tokens/spt_secret");
    let charge = Call::post("v1/payment_intents", Some("mpp_a_spt_secret".to_owned()))
        .with("shared_payment_granted_token", "spt_secret");
    assert_eq!(
        format!("{look:?} {charge:?}"),
        "GET v1/shared_payment/granted_tokens POST v1/payment_intents"
    );
}

#[tokio::test]
async fn redirects_endless_bodies_and_silence_are_no_answers() {
    let away = || async { Redirect::temporary("/elsewhere") };
    let hangs = || async { std::future::pending::<String>().await };
    let endless = || async {
        let chunk = Bytes::from(vec![b' '; 64 * 1024]);
        Body::from_stream(futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone())))
    };
    let routes = axum::Router::new()
        .route("/away", get(away))
        .route("/elsewhere", get(|| async { "never" }))
        .route("/hangs", get(hangs))
        .route("/endless", get(endless));
    let api = stripe(routes).await;
    assert_eq!(api.call(Call::get("away"), SECOND).await.unwrap().status, 307);
    assert_eq!(api.call(Call::get("hangs"), Duration::from_millis(50)).await, Err(NoAnswer));
    assert_eq!(api.call(Call::get("endless"), 10 * SECOND).await, Err(NoAnswer));
}
