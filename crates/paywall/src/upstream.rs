//! Calling what stands behind the paywall for a payment, and judging whether its answer is worth charging for.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use farthing_engine::{StoredResponse, Upstream, UpstreamAnswer, World};
use farthing_payment::{Fault, Payment, Reason};
use futures_util::future::{Either, select};
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request};
use http_body::Body;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

use crate::body::BoxError;
use crate::headers::{announce_payment, clean_upstream_response};
use crate::limit::{Hold, Memory};
use crate::paywall::Shared;

/// The most headers, and trailers, of an answer that is stored.
pub const MAX_RESPONSE_HEADERS: usize = 256;

/// An inner service marks an answer with this when nothing tells its end from its being cut off (HTTP/1.0 style,
/// neither `Content-Length` nor chunks). Such an answer is never charged for.
#[derive(Debug, Clone, Copy)]
pub struct Unframed;

/// Why an answer is not charged for. The codes are stable; a buyer and the seller's log see them.
pub(crate) mod reasons {
    pub const TIMEOUT: &str = "upstream_timeout";
    pub const UNREACHABLE: &str = "upstream_unreachable";
    pub const TRUNCATED: &str = "upstream_truncated";
    pub const UNFRAMED: &str = "upstream_end_unknown";
    pub const TOO_LARGE: &str = "upstream_response_too_large";
    pub const NOT_OK: &str = "upstream_not_ok";
    pub const PARTIAL: &str = "upstream_partial";
    pub const WANTS_PAYMENT: &str = "upstream_wants_payment";
    /// We hold as many bodies as we may.
    pub const NO_ROOM: &str = "no_room";
    /// A stream whose events cannot be told apart, since it is compressed.
    pub const PACKED: &str = "upstream_packed";
    /// The answer does not say how many units it took, which is what it is sold by.
    pub const UNITS_UNKNOWN: &str = "upstream_units_unknown";
}

/// A paid request, complete, so that it can be sent without its sender.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub parts: request::Parts,
    pub body: Bytes,
    /// For the body, as long as anybody has it.
    pub _hold: Arc<Hold>,
}

impl Template {
    /// The request as the upstream gets it for this payment.
    pub fn request<B: From<Bytes>>(&self, payment: &Payment) -> Request<B> {
        self.prepared(|headers| announce_payment(headers, payment))
    }

    /// The request as the upstream gets it, with what it is told of the payment.
    pub fn prepared<B: From<Bytes>>(&self, announce: impl FnOnce(&mut HeaderMap)) -> Request<B> {
        let mut parts = self.parts.clone();
        announce(&mut parts.headers);
        let has_body = !self.body.is_empty();
        parts.headers.remove(header::CONTENT_LENGTH);
        if has_body || parts.method == Method::POST || parts.method == Method::PUT {
            parts.headers.insert(header::CONTENT_LENGTH, self.body.len().into());
        }
        Request::from_parts(parts, B::from(self.body.clone()))
    }
}

/// One call of the upstream whose complete answer is read, and how long and how large it may be.
#[derive(Clone)]
pub(crate) struct Call {
    timeout: Duration,
    max_response: usize,
    memory: Arc<Memory>,
    /// Whose share of it the answer takes.
    client: Option<IpAddr>,
    world: Arc<dyn World>,
}

impl Call {
    pub fn new(paid: &crate::price::Paid, shared: &Shared, client: Option<IpAddr>) -> Self {
        Self {
            timeout: paid.upstream_timeout,
            max_response: paid.max_response,
            memory: shared.memory.clone(),
            client,
            world: shared.world.clone(),
        }
    }

    /// Calls it, and judges its answer.
    pub async fn complete<S, B, R>(self, inner: S, request: Request<B>) -> UpstreamAnswer
    where
        S: Service<Request<B>, Response = Response<R>> + Send,
        S::Future: Send,
        S::Error: Into<BoxError>,
        R: Body<Data = Bytes> + Send,
        R::Error: Into<BoxError>,
    {
        let method = request.method().clone();
        let timeout = self.world.sleep(self.timeout);
        let answer = async {
            match inner.oneshot(request).await.map_err(Into::<BoxError>::into) {
                Ok(response) => self.read(response, &method).await,
                Err(error) => {
                    tracing::warn!(%error, "the upstream cannot be reached");
                    failed(reasons::UNREACHABLE)
                }
            }
        };
        match select(std::pin::pin!(answer), timeout).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => failed(reasons::TIMEOUT),
        }
    }

    /// Reads an answer that has begun to its end, and judges it.
    pub async fn read<R>(&self, response: Response<R>, method: &Method) -> UpstreamAnswer
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<BoxError>,
    {
        read(response, method, self.max_response, self.memory.hold(self.client)).await
    }

    /// The same, in no more than the time that a whole call has.
    pub async fn read_in_time<R>(&self, response: Response<R>, method: &Method) -> UpstreamAnswer
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<BoxError>,
    {
        let timeout = self.world.sleep(self.timeout);
        match select(std::pin::pin!(self.read(response, method)), timeout).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => failed(reasons::TIMEOUT),
        }
    }
}

/// The `authorization` flow: one call, whose complete answer is read before anything is settled.
pub(crate) struct Buffered<S, B> {
    /// Behind a lock so that a service need not be `Sync`; it is held to clone only.
    inner: Mutex<S>,
    template: Template,
    call: Call,
    body: std::marker::PhantomData<fn() -> B>,
}

impl<S, B> Buffered<S, B> {
    pub fn new(
        inner: S,
        template: Template,
        paid: &crate::price::Paid,
        shared: &Shared,
        client: Option<IpAddr>,
    ) -> Self {
        Self {
            inner: Mutex::new(inner),
            template,
            call: Call::new(paid, shared, client),
            body: std::marker::PhantomData,
        }
    }
}

#[async_trait]
impl<S, B, R> Upstream for Buffered<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: From<Bytes> + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    async fn call(&self, payment: &Payment) -> UpstreamAnswer {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.call.clone().complete(inner, self.template.request(payment)).await
    }
}

/// Reads an answer to its end and judges it. Only a complete answer of status 200 to 299 is charged for.
///
/// `hold` is for as long as it is read: then the store has it, and the engine drops it.
async fn read<R>(
    response: Response<R>,
    method: &Method,
    max_response: usize,
    mut hold: Hold,
) -> UpstreamAnswer
where
    R: Body<Data = Bytes> + Send,
    R::Error: Into<BoxError>,
{
    let (mut parts, body) = response.into_parts();
    let unframed = parts.extensions.get::<Unframed>().is_some();
    let announced = content_length(&parts.headers);
    let complete = match collect(body, max_response, &mut hold).await {
        Ok(complete) => complete,
        Err(reason) => return failed(reason),
    };
    clean_upstream_response(&mut parts.headers);
    let stored = StoredResponse {
        status: parts.status.as_u16(),
        headers: pairs(&parts.headers),
        body: complete.0.clone(),
        trailers: pairs(&complete.1),
    };
    let bodiless = *method == Method::HEAD || parts.status == StatusCode::NO_CONTENT;
    if !bodiless && announced.is_some_and(|length| length != complete.0.len() as u64) {
        return failed(reasons::TRUNCATED);
    }
    match judge(parts.status) {
        Ok(()) if unframed && !bodiless => failed(reasons::UNFRAMED),
        Ok(()) => UpstreamAnswer::Complete(stored),
        Err(reason) => {
            // What is shown uncharged must not be goods: neither a part of them nor somebody else's bill.
            let shown = (reason == reasons::NOT_OK).then_some(stored);
            UpstreamAnswer::Failed { reason: Reason::new(reason, Fault::Payee), response: shown }
        }
    }
}

/// Whether a complete answer of this status is charged for.
pub(crate) fn judge(status: StatusCode) -> Result<(), &'static str> {
    match status {
        // We ask for no ranges, so a part is not what was paid for.
        StatusCode::PARTIAL_CONTENT => Err(reasons::PARTIAL),
        // A buyer must never pay us and then be asked to pay whom we buy from.
        StatusCode::PAYMENT_REQUIRED => Err(reasons::WANTS_PAYMENT),
        status if status.is_success() => Ok(()),
        _ => Err(reasons::NOT_OK),
    }
}

async fn collect<R>(body: R, max: usize, hold: &mut Hold) -> Result<(Bytes, HeaderMap), &'static str>
where
    R: Body<Data = Bytes> + Send,
    R::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| reasons::TRUNCATED)?;
        match frame.into_data() {
            Ok(data) if data.len() > max - bytes.len() => return Err(reasons::TOO_LARGE),
            Ok(data) if !hold.grow(data.len()) => return Err(reasons::NO_ROOM),
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => {
                if let Ok(more) = frame.into_trailers() {
                    trailers.extend(more);
                }
            }
        }
    }
    if trailers.len() > MAX_RESPONSE_HEADERS {
        return Err(reasons::TOO_LARGE);
    }
    Ok((bytes.freeze(), trailers))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn pairs(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    // The length is counted anew when the answer is sent.
    headers.iter().filter(|(name, _)| **name != header::CONTENT_LENGTH).map(pair).collect()
}

fn failed(reason: &str) -> UpstreamAnswer {
    UpstreamAnswer::Failed { reason: Reason::new(reason, Fault::Payee), response: None }
}
