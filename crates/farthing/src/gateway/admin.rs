//! Health, for those who run the gateway: on an address of its own.

use std::sync::Arc;
use std::time::Duration;

use farthing_engine::Engine;
use farthing_listener::{Inbound, Limits, Server};
use farthing_paywall::PaywallBody;
use farthing_primitives::PaymentId;
use http::{Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::Gateway;
use super::proxy::text;

/// Those who run the gateway are few; and somebody's mistake must not cost the gateway its files.
const LIMITS: Limits = Limits {
    max_connections: 64,
    max_per_peer: 64,
    max_head_bytes: 16 * 1024,
    head_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(60),
    stall_timeout: Duration::from_secs(10),
    min_rate: 1024,
    shutdown_timeout: Duration::ZERO,
    half_close: true,
};

/// Serves `/health` (the process runs), `/ready` (the store answers) and `/status` (numbers). Never returns.
pub async fn serve(listener: TcpListener, gateway: Gateway, engine: Engine) {
    let server = Server {
        handler: move |request: Request<Inbound>, _| {
            let (gateway, engine) = (gateway.clone(), engine.clone());
            async move { answer(&gateway, &engine, request.uri().path()).await }
        },
        limits: LIMITS,
        tls: None,
        stands_for_many: Arc::new(|_| false),
    };
    farthing_listener::serve(server, listener, std::future::pending()).await;
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
