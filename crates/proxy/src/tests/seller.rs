//! A seller of this machine: what it is asked, and what it says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use farthing_listener::{BoxError, Inbound, Limits, Server};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::answer::Body;

/// A cent, in atoms.
pub const PRICE: u64 = 10_000;

/// Asks a cent for `/paid`, and serves whoever pays.
pub struct Seller {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Path, payment and body of each request.
    seen: Mutex<Vec<(String, Option<String>, String)>>,
    failing: AtomicBool,
    refusing: AtomicBool,
    held: watch::Sender<bool>,
    shown: Notify,
    more: Arc<Notify>,
}

impl Seller {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner::default());
        let answering = inner.clone();
        let handler = move |request: Request<Inbound>, _| {
            let inner = answering.clone();
            async move { inner.answer(request).await }
        };
        let server =
            Server { handler, limits: Limits::default(), tls: None, stands_for_many: Arc::new(|_| true) };
        tokio::spawn(farthing_listener::serve(server, listener, std::future::pending()));
        Self { address, inner }
    }

    /// The different payments that it was shown.
    pub fn payments(&self) -> Vec<String> {
        let seen = self.inner.seen.lock().unwrap();
        let mut all: Vec<String> = seen.iter().filter_map(|(_, payment, _)| payment.clone()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// How often it was asked for a path without a payment.
    pub fn asked(&self, path: &str) -> usize {
        let seen = self.inner.seen.lock().unwrap();
        seen.iter().filter(|(asked, payment, _)| asked == path && payment.is_none()).count()
    }

    pub fn bodies(&self, path: &str) -> Vec<String> {
        let seen = self.inner.seen.lock().unwrap();
        seen.iter().filter(|(asked, ..)| asked == path).map(|(.., body)| body.clone()).collect()
    }

    /// From now on payments are shown to no avail, and nobody says what became of them.
    pub fn fail(&self, failing: bool) {
        self.inner.failing.store(failing, Ordering::SeqCst);
    }

    /// From now on no payment is taken.
    pub fn refuse(&self, refusing: bool) {
        self.inner.refusing.store(refusing, Ordering::SeqCst);
    }

    /// From now on whoever pays waits.
    pub fn hold(&self, held: bool) {
        self.inner.held.send_replace(held);
    }

    /// Waits until a payment is shown.
    pub async fn shown(&self) {
        self.inner.shown.notified().await;
    }

    /// Sends the rest of a stream.
    pub fn go_on(&self) {
        self.inner.more.notify_one();
    }
}

fn say(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

fn price(url: &str) -> Response<Body> {
    let price = json!({
        "x402Version": 1,
        "error": "X-PAYMENT header is required",
        "accepts": [{
            "scheme": "exact", "network": "base-sepolia", "maxAmountRequired": PRICE.to_string(),
            "resource": url, "description": "goods", "mimeType": "text/plain",
            "payTo": "0x0101010101010101010101010101010101010101", "maxTimeoutSeconds": 60,
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "extra": { "name": "USDC", "version": "2" },
        }],
    });
    say(StatusCode::PAYMENT_REQUIRED, price.to_string())
}

impl Inner {
    async fn answer(&self, request: Request<Inbound>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        let path = parts.uri.path().to_owned();
        let payment = parts.headers.get("x-payment").map(|value| value.to_str().unwrap().to_owned());
        self.seen.lock().unwrap().push((path.clone(), payment.clone(), body.clone()));
        match (&*path, payment) {
            ("/echo", _) => echo(&parts, &body),
            ("/stream", _) => self.stream(Ok("two")),
            ("/broken", _) => self.stream(Err("it broke off")),
            ("/odd-price", _) => say(StatusCode::PAYMENT_REQUIRED, "pay me"),
            ("/paid", None) => price(&format!("http://seller{path}")),
            ("/paid", Some(_)) => self.serve().await,
            _ => say(StatusCode::NOT_FOUND, "nothing here"),
        }
    }

    async fn serve(&self) -> Response<Body> {
        self.shown.notify_one();
        // Nobody drops the sender while it serves.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        if self.failing.load(Ordering::SeqCst) {
            return say(StatusCode::SERVICE_UNAVAILABLE, "later");
        }
        if self.refusing.load(Ordering::SeqCst) {
            return say(StatusCode::FORBIDDEN, "not yours");
        }
        say(StatusCode::OK, "goods")
    }

    /// One piece, and another when it is told to go on.
    fn stream(&self, second: Result<&'static str, &'static str>) -> Response<Body> {
        let mut answer = say(StatusCode::OK, "");
        let (to, pieces) = tokio::sync::mpsc::unbounded_channel();
        to.send(Ok("one ")).unwrap();
        let more = self.more.clone();
        tokio::spawn(async move {
            more.notified().await;
            // Nobody may be there any more.
            let _ = to.send(second);
        });
        let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
            let piece = pieces.recv().await?;
            Some((piece.map(|piece| Frame::data(Bytes::from(piece))).map_err(BoxError::from), pieces))
        });
        *answer.body_mut() = StreamBody::new(pieces).boxed_unsync();
        answer
    }
}

fn echo(parts: &http::request::Parts, body: &str) -> Response<Body> {
    let headers = |headers: &HeaderMap| -> serde_json::Value {
        let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().into())
        };
        serde_json::Value::Object(headers.iter().map(pair).collect())
    };
    let said = json!({
        "method": parts.method.as_str(), "target": parts.uri.to_string(), "body": body,
        "headers": headers(&parts.headers),
    });
    let mut answer = say(StatusCode::OK, said.to_string());
    answer.headers_mut().insert("farthing-purchase", "buy_forged".parse().unwrap());
    answer
}
