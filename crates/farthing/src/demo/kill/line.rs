//! A line to the chain that can hold one request, so that a process can be killed at exactly that moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::cli::Failure;

/// How long a moment is waited for.
const CAUGHT_WITHIN: Duration = Duration::from_secs(10);

/// What is held of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The chain does not get it yet.
    Request,
    /// The chain has it and has answered; who asked does not hear of that.
    Answer,
}

/// Stands between one process and a node, and passes everything on.
#[derive(Debug)]
pub struct Line {
    pub url: String,
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    node: String,
    trap: Mutex<Option<Trap>>,
}

#[derive(Debug)]
struct Trap {
    method: &'static str,
    hold: Hold,
    caught: oneshot::Sender<Option<String>>,
    released: oneshot::Receiver<()>,
}

/// A request that is, or will be, held until this is dropped.
#[derive(Debug)]
pub struct Held {
    caught: oneshot::Receiver<Option<String>>,
    _release: oneshot::Sender<()>,
}

impl Held {
    /// Waits for the moment. Returns the result that the chain gave, where the answer is held: the hash of a
    /// transaction.
    pub async fn caught(&mut self) -> Result<Option<String>, Failure> {
        match tokio::time::timeout(CAUGHT_WITHIN, &mut self.caught).await {
            Ok(Ok(result)) => Ok(result),
            _ => Err(Failure::failed("the moment to kill at never came")),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    pub async fn to(node: &str, http: reqwest::Client) -> std::io::Result<Self> {
        let inner = Arc::new(Inner { http, node: node.to_owned(), trap: Mutex::default() });
        let routes = Router::new().route("/", post(pass)).with_state(inner.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            // It ends with the demonstration.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { url, inner, task })
    }

    /// Holds the next request of this method.
    pub fn hold(&self, method: &'static str, hold: Hold) -> Held {
        let (caught, on_caught) = oneshot::channel();
        let (release, released) = oneshot::channel();
        *lock(&self.inner.trap) = Some(Trap { method, hold, caught, released });
        Held { caught: on_caught, _release: release }
    }
}

async fn pass(State(inner): State<Arc<Inner>>, body: Bytes) -> Response {
    let trap = {
        let mut trap = lock(&inner.trap);
        let fits = |trap: &mut Trap| is_for(&body, trap.method);
        trap.take_if(fits)
    };
    let Some(trap) = trap else { return ask(&inner, body).await };
    let early = match trap.hold {
        Hold::Answer => Some(ask_text(&inner, body.clone()).await),
        Hold::Request => None,
    };
    let result = early.as_ref().and_then(|answer| answer.as_deref().ok()).and_then(result_of);
    // Who waits for the moment may have given up; then nothing is held.
    let _ = trap.caught.send(result);
    let _ = trap.released.await;
    match early {
        Some(answer) => respond(answer),
        None => ask(&inner, body).await,
    }
}

async fn ask(inner: &Inner, body: Bytes) -> Response {
    respond(ask_text(inner, body).await)
}

async fn ask_text(inner: &Inner, body: Bytes) -> Result<String, reqwest::Error> {
    let request = inner.http.post(&inner.node).header(header::CONTENT_TYPE, "application/json").body(body);
    request.send().await?.text().await
}

fn respond(answer: Result<String, reqwest::Error>) -> Response {
    match answer {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// Whether a request, or one of a batch, is for this method.
fn is_for(body: &[u8], method: &str) -> bool {
    let calls: Value = serde_json::from_slice(body).unwrap_or_default();
    match &calls {
        Value::Array(calls) => calls.iter().any(|call| call["method"] == method),
        call => call["method"] == method,
    }
}

/// The result in an answer, or the first of several, if it is a text.
fn result_of(answer: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let first = answer.as_array().map_or(&answer, |answers| answers.first().unwrap_or(&Value::Null));
    first["result"].as_str().map(str::to_owned)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_read_alone_and_in_batches() {
        let call = br#"{"method":"eth_call","params":[]}"#;
        assert!(is_for(call, "eth_call") && !is_for(call, "eth_callMany"));
        assert!(is_for(br#"[{"method":"eth_chainId"},{"method":"eth_call"}]"#, "eth_call"));
        assert!(!is_for(b"no JSON", "eth_call"));
        assert_eq!(result_of(r#"{"result":"0x1"}"#).as_deref(), Some("0x1"));
        assert_eq!(result_of(r#"[{"result":"0x2"}]"#).as_deref(), Some("0x2"));
        assert_eq!(result_of(r#"{"error":{}}"#), None);
        assert_eq!(result_of("[]"), None);
    }
}
