use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use farthing_engine::StoreError;
use farthing_listener::{Inbound, Limits, Server};
use farthing_wire::Object;
use farthing_wire::x402::ErrorCode;
use futures_util::future::{Either, select};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::LengthLimitError;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::answer::{self, Answer, Question};
use crate::tenant::Account;
use crate::{Facilitator, MAX_REQUEST_BYTES};

/// How long a request's body may take to arrive.
const ARRIVE_WITHIN: Duration = Duration::from_secs(10);
/// A facilitator's clients are sellers, of which each has some connections; its answers are small.
const LIMITS: Limits = Limits {
    max_connections: 4096,
    max_per_peer: 1024,
    max_head_bytes: 64 * 1024,
    head_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(120),
    stall_timeout: Duration::from_secs(10),
    min_rate: 1024,
    // Longer than the engine lets a settlement wait.
    shutdown_timeout: Duration::from_secs(40),
    half_close: true,
};

/// Why the service does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody who can connect could spend our gas.
    #[error("without API keys only a loopback address may be listened on, and {0} is none")]
    Open(SocketAddr),
    #[error("the socket cannot be used: {0}")]
    Socket(#[from] std::io::Error),
    /// What is left of the gas budgets is not known.
    #[error("what was spent on gas cannot be read from the books: {0}")]
    Books(#[from] StoreError),
}

/// The facilitator as HTTP routes.
///
/// Behind a listener of one's own, see to it that a facilitator without keys ([`Facilitator::is_open`]) can be reached
/// from this machine only.
pub fn router(service: Facilitator) -> Router {
    Router::new()
        .route("/verify", post(verify))
        .route("/settle", post(settle))
        .route("/supported", get(supported))
        .route("/health", get(health))
        .route("/healthz", get(alive))
        .fallback(nowhere)
        .with_state(service)
}

/// Serves HTTP/1.1 and HTTP/2 until `shutdown`, and lets what is under way come to its end.
///
/// # Errors
/// [`ServeError::Open`] without keys off loopback.
pub async fn serve(
    listener: TcpListener,
    service: Facilitator,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    if service.is_open() && !address.ip().is_loopback() {
        return Err(ServeError::Open(address));
    }
    service.recall_spending().await?;
    let routes = router(service);
    let server = Server {
        handler: move |request: http::Request<Inbound>, _| {
            let routes = routes.clone();
            async move {
                match routes.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        },
        limits: LIMITS,
        tls: None,
        stands_for_many: Arc::new(|_| false),
    };
    farthing_listener::serve(server, listener, shutdown).await;
    Ok(())
}

async fn verify(State(service): State<Facilitator>, request: Request) -> Answer {
    match admit(&service, request, Question::Verify).await {
        Ok((tenant, body)) => service.verify(&tenant, &body).await,
        Err(refused) => refused,
    }
}

async fn settle(State(service): State<Facilitator>, request: Request) -> Answer {
    match admit(&service, request, Question::Settle).await {
        Ok((tenant, body)) => service.settle(&tenant, &body).await,
        Err(refused) => refused,
    }
}

async fn supported(State(service): State<Facilitator>) -> Answer {
    Answer { status: StatusCode::OK, body: service.0.supported.clone(), retry_after: None }
}

async fn health(State(service): State<Facilitator>) -> Answer {
    service.health().await
}

/// Whether the process answers at all, whatever the chains do.
async fn alive() -> Answer {
    Answer::json(StatusCode::OK, Object::new().with("status", "ok"))
}

async fn nowhere() -> Answer {
    Answer::json(StatusCode::NOT_FOUND, Object::new().with("error", "not_found"))
}

/// Who asks, whether they may, and what. Nothing of the request is looked into yet.
async fn admit(
    service: &Facilitator,
    request: Request,
    question: Question,
) -> Result<(Arc<Account>, Bytes), Answer> {
    let refuse = |status, code| Answer::refusal(question, status, ErrorCode::from(code));
    let (head, body) = request.into_parts();
    let key = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let tenant =
        service.0.tenants.find(key).ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, answer::UNAUTHORIZED))?;
    // Without keys, a page in a browser on this machine must not be able to ask: it cannot send this type to another
    // origin without being allowed to first.
    if service.is_open() && !says_json(&head.headers) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, answer::NOT_JSON));
    }
    if let Some(bucket) = &tenant.requests {
        let now = service.world().monotonic();
        bucket
            .take(now)
            .map_err(|wait| refuse(StatusCode::TOO_MANY_REQUESTS, answer::RATE_LIMITED).retry(wait))?;
    }
    let too_large = || refuse(StatusCode::PAYLOAD_TOO_LARGE, answer::TOO_LARGE);
    let length =
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_REQUEST_BYTES as u64) {
        return Err(too_large());
    }
    let arriving = pin!(to_bytes(body, MAX_REQUEST_BYTES));
    // By the engine's own clock, so that this needs no runtime but the one that the engine has.
    match select(arriving, service.world().sleep(ARRIVE_WITHIN)).await {
        Either::Left((Ok(body), _)) => Ok((tenant.clone(), body)),
        Either::Left((Err(error), _))
            if error.source().is_some_and(|cause| cause.is::<LengthLimitError>()) =>
        {
            Err(too_large())
        }
        Either::Left((Err(_), _)) => Err(refuse(StatusCode::BAD_REQUEST, ErrorCode::InvalidPayload.as_str())),
        Either::Right(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, answer::TOO_SLOW)),
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    let said = headers.get(CONTENT_TYPE).and_then(|said| said.to_str().ok()).unwrap_or_default();
    let essence = said.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: sooner would be too soon.
            let secs = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
