//! Health, for those who run the gateway: on an address of its own.

use std::convert::Infallible;

use farthing_engine::Engine;
use farthing_paywall::PaywallBody;
use farthing_primitives::PaymentId;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;

use super::Gateway;
use super::proxy::text;

/// How long a connection to the admin address may take to ask.
const ASK_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Serves `/health` (the process runs), `/ready` (the store answers) and `/status` (numbers). Never returns.
pub async fn serve(listener: TcpListener, gateway: Gateway, engine: Engine) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (gateway, engine) = (gateway.clone(), engine.clone());
        tokio::spawn(async move {
            let handler = service_fn(|request: Request<Incoming>| {
                let (gateway, engine) = (gateway.clone(), engine.clone());
                async move { Ok::<_, Infallible>(answer(&gateway, &engine, request.uri().path()).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(ASK_WITHIN)
                .serve_connection(TokioIo::new(stream), handler);
            if let Err(error) = serving.await {
                tracing::debug!(%error, "an admin connection ended with an error");
            }
        });
    }
}

async fn answer(gateway: &Gateway, engine: &Engine, path: &str) -> Response<PaywallBody> {
    match path {
        "/health" => text(StatusCode::OK, "{\"status\":\"ok\"}"),
        "/ready" => match gateway.seller().payment(PaymentId::from_bytes([0; 16])).await {
            Ok(_) => text(StatusCode::OK, "{\"status\":\"ready\"}"),
            Err(error) => {
                tracing::warn!(%error, "not ready");
                text(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"store_unavailable\"}")
            }
        },
        "/status" => {
            let latency = engine.store().commit_latency().as_micros();
            let object = json!({
                "payments_under_way": engine.live(),
                "commit_latency_us": u64::try_from(latency).unwrap_or(u64::MAX),
            });
            text(StatusCode::OK, object.to_string())
        }
        _ => text(StatusCode::NOT_FOUND, "{\"error\":\"no_such_page\"}"),
    }
}
