//! The stand-in for Stripe of the tests, over HTTP. **It is not Stripe**, and knows what `stripe/charge` needs alone.
//!
//! `cargo run -p farthing-stripe --example stand-in -- 127.0.0.1:4025`, then `api_base = "http://127.0.0.1:4025"` and
//! the secret key `sk_test_standin` in the gateway's `[stripe]`. Beside Stripe's own paths it has `GET /health`, `GET
//! /charged` (what was charged in all, and how often) and `POST /trouble/lose_answer` (the next charge is made, and its
//! answer lost).

// A tool for tests: a panic is its report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/stand_in.rs"]
#[allow(dead_code)]
mod stand_in;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use stand_in::{Reply, StandIn, Trouble, fields_of};

const SECRET_KEY: &str = "sk_test_standin";
const MAX_BODY: usize = 64 * 1024;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4025".to_owned());
    let stand_in = Arc::new(StandIn::new(SECRET_KEY, now()));
    let (counts, troubled, asked) = (stand_in.clone(), stand_in.clone(), stand_in);
    let charged = async move || {
        let (amount, count) = counts.charged();
        serde_json::json!({"amount": amount, "count": count}).to_string()
    };
    let trouble = async move || {
        troubled.trouble([Trouble::LoseAnswer]);
        "the next answer to a charge is lost"
    };
    let app = Router::new()
        .route("/health", get(async || "ok"))
        .route("/charged", get(charged))
        .route("/trouble/lose_answer", post(trouble))
        .fallback(move |request: Request| answer(asked.clone(), request));
    let listener = tokio::net::TcpListener::bind(&address).await.expect("the address can be listened on");
    println!("a stand-in for Stripe (not Stripe) at http://{}", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}

async fn answer(stand_in: Arc<StandIn>, request: Request) -> Response {
    stand_in.set_time(now());
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let secret = header("authorization").and_then(|value| value.strip_prefix("Basic "));
    let secret = secret.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    let secret = String::from_utf8(secret).unwrap_or_default();
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let text = match parts.method.as_str() {
        "GET" => parts.uri.query().unwrap_or_default().to_owned(),
        _ => String::from_utf8(body.to_vec()).unwrap_or_default(),
    };
    let path = parts.uri.path().trim_start_matches('/');
    let secret = secret.trim_end_matches(':');
    let reply =
        stand_in.answer(parts.method.as_str(), path, &fields_of(&text), header("idempotency-key"), secret);
    let Some(Reply { status, replayed, body }) = reply else {
        // It never answers; the client's patience ends first.
        return std::future::pending().await;
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    let response = if replayed { response.header("idempotent-replayed", "true") } else { response };
    response.body(Body::from(body)).unwrap()
}
