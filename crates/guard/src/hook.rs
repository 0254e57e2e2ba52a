//! A freeze that comes over the network, signed: by a secret that a monitoring service has, or by the owner's own key.
//! It can stop and nothing else.
//!
//! Spec: Standard Webhooks 1.0.0.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farthing_approval::PublicKey;
use farthing_listener::{Inbound, Server};
use farthing_primitives::Timestamp;
use farthing_wallet::keystore::create_private_file;
use farthing_wallet::system_clock;
use farthing_wire::webhook::{Headers, ID, SIGNATURE, Secret, SecretError, TIMESTAMP, WINDOW};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::json;
use tokio::net::TcpListener;

use crate::guard::Guard;
use crate::whom::WhomRecord;

mod message;

pub use message::{HOOK_EVENT, HookError, Signed};
use message::{Heard, MAX_MESSAGE_BYTES, Signers};

/// Where messages are sent to.
pub const HOOK_PATH: &str = "/freeze";
/// How far a message's time may be from ours, both ways.
pub const HOOK_WINDOW: Duration = WINDOW;
/// How long the id of a message is remembered: it may come from the window's later end, and then wait for its earlier.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many ids are remembered. Beyond that a message is obeyed all the same: it can only stop.
const MAX_REMEMBERED: usize = 10_000;

/// How many connections there are at once, and of one address: a stranger that holds all of its own shuts nobody else out.
const MAX_CONNECTIONS: usize = 1024;
const MAX_PER_PEER: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum HookSetupError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("nobody could sign a message: name a secret, or the owner's key")]
    Nobody,
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// Who may freeze from elsewhere, and which messages were obeyed.
pub struct Hook {
    signers: Signers,
    seen: Mutex<Seen>,
    /// One message is obeyed at a time, so that one that comes twice is obeyed once.
    turn: tokio::sync::Mutex<()>,
}

/// Shows no secret.
impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("owner", &self.signers.owner).finish_non_exhaustive()
    }
}

impl Hook {
    /// `secret` is what messages are signed with by HMAC-SHA256, `owner` a key that signs them by Ed25519. What was obeyed
    /// is remembered in the file `seen`, so that a new start does not obey it anew.
    ///
    /// # Errors
    /// [`HookSetupError`] if nobody could sign, or the file cannot be used.
    pub fn open(secret: Option<&str>, owner: Option<PublicKey>, seen: &Path) -> Result<Self, HookSetupError> {
        let secret = secret.map(Secret::parse).transpose()?;
        if secret.is_none() && owner.is_none() {
            return Err(HookSetupError::Nobody);
        }
        let failed = |error| HookSetupError::Io { path: seen.to_owned(), error };
        let seen = Seen::open(seen, system_clock().wall).map_err(failed)?;
        Ok(Self {
            signers: Signers { secret, owner },
            seen: Mutex::new(seen),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Does what a message asks for, unless it was done before.
    async fn obey(&self, guard: &Guard, heard: Heard) -> Result<bool, String> {
        let _turn = self.turn.lock().await;
        if self.seen().knows(&heard.id) {
            return Ok(false);
        }
        guard.freeze(heard.whom).await.map_err(|error| error.to_string())?;
        // It is done. That it was written down matters less: what comes again stops again.
        if let Err(error) = self.seen().remember(&heard.id, system_clock().wall) {
            tracing::warn!(%error, "a message that was obeyed cannot be written down");
        }
        Ok(true)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, guard: &Guard, request: Request<Inbound>) -> Response<Full<Bytes>> {
        if request.uri().path() != HOOK_PATH {
            return refused(StatusCode::NOT_FOUND, "not_found", "there is nothing here");
        }
        if request.method() != Method::POST {
            return refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "a message is sent by POST",
            );
        }
        let (parts, body) = request.into_parts();
        // Before the body is waited for: a stranger's takes as long as it likes.
        let shown = match headers(&parts.headers, system_clock().wall) {
            Ok(shown) => shown,
            Err(error) => return unheard(&error),
        };
        let Ok(body) = Limited::new(body, MAX_MESSAGE_BYTES).collect().await else {
            let why = "a message has so many bytes at most, and comes in time";
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "message_too_large", why);
        };
        let heard = match self.signers.hear(&shown, &body.to_bytes()) {
            Ok(heard) => heard,
            Err(error) => return unheard(&error),
        };
        let whom = WhomRecord::of(&heard.whom);
        match self.obey(guard, heard).await {
            Ok(now) => answered(StatusCode::OK, &json!({ "frozen": whom, "already": !now })),
            Err(error) => {
                tracing::error!(%error, "the wallet cannot be frozen");
                refused(StatusCode::SERVICE_UNAVAILABLE, "wallet_unavailable", "the books cannot be written")
            }
        }
    }
}

/// What a message shows of itself before it is read.
fn headers(all: &HeaderMap, now: Timestamp) -> Result<Headers, HookError> {
    let [id, timestamp, signatures] = [ID, TIMESTAMP, SIGNATURE].map(|name| one(all, name));
    Ok(Headers::read(id?, timestamp?, signatures?, now)?)
}

const fn status(error: HookError) -> StatusCode {
    match error {
        HookError::Headers | HookError::Message => StatusCode::BAD_REQUEST,
        HookError::Time | HookError::Signature => StatusCode::UNAUTHORIZED,
    }
}

fn unheard(error: &HookError) -> Response<Full<Bytes>> {
    tracing::info!(code = error.code(), "a message is not obeyed");
    refused(status(*error), error.code(), &error.to_string())
}

/// A header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, HookError> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().map_err(|_| HookError::Headers),
        _ => Err(HookError::Headers),
    }
}

fn answered(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    answered(status, &json!({ "error": { "code": code, "message": message } }))
}

/// Takes messages until `stop` is done.
pub async fn serve_hook(guard: Guard, hook: Hook, listener: TcpListener, stop: impl Future<Output = ()>) {
    let hook = Arc::new(hook);
    let handler = move |request: Request<Inbound>, _| {
        let (guard, hook) = (guard.clone(), hook.clone());
        async move { hook.answer(&guard, request).await }
    };
    let limits = farthing_listener::Limits {
        max_connections: MAX_CONNECTIONS,
        max_per_peer: MAX_PER_PEER,
        shutdown_timeout: Duration::from_secs(1),
        ..farthing_listener::Limits::default()
    };
    let server = Server { handler, limits, tls: None, stands_for_many: Arc::new(|_| false) };
    farthing_listener::serve(server, listener, stop).await;
}

/// The ids of messages that were obeyed, in memory and in a file: one on each line, after its time.
#[derive(Debug)]
struct Seen {
    file: std::fs::File,
    times: HashMap<String, Timestamp>,
    order: VecDeque<String>,
}

impl Seen {
    fn open(path: &Path, now: Timestamp) -> io::Result<Self> {
        let kept = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // Written anew, so that it does not grow for ever; in one step, so that nothing is lost.
        let fresh = path.with_extension("new");
        let _ = std::fs::remove_file(&fresh);
        let mut seen =
            Self { file: create_private_file(&fresh)?, times: HashMap::new(), order: VecDeque::new() };
        for line in kept.lines() {
            // A line that was cut by a crash is none.
            let Some((ms, id)) = line.split_once(' ') else { continue };
            let Ok(at) = ms.parse().map(Timestamp::from_millis) else { continue };
            if at.plus(REMEMBERED) > now {
                seen.remember(id, at)?;
            }
        }
        seen.file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        Ok(seen)
    }

    fn knows(&self, id: &str) -> bool {
        self.times.contains_key(id)
    }

    fn remember(&mut self, id: &str, now: Timestamp) -> io::Result<()> {
        while let Some(oldest) = self.order.front()
            && self.times.get(oldest).is_none_or(|at| at.plus(REMEMBERED) <= now)
        {
            self.times.remove(oldest);
            self.order.pop_front();
        }
        if self.order.len() < MAX_REMEMBERED && self.times.insert(id.to_owned(), now).is_none() {
            self.order.push_back(id.to_owned());
        }
        writeln!(self.file, "{} {id}", now.millis())?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests;
