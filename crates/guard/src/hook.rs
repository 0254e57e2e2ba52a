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

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farthing_approval::{ApproverKey, PublicKey};
use farthing_listener::{Inbound, Server};
use farthing_primitives::Timestamp;
use farthing_wallet::keystore::create_private_file;
use farthing_wallet::system_clock;
use farthing_wire::Limits;
use hmac::{Hmac, Mac};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::guard::Guard;
use crate::stop::{Whom, WhomRecord};

/// Where messages are sent to.
pub const HOOK_PATH: &str = "/freeze";
/// What a message says that it is.
pub const HOOK_EVENT: &str = "wallet.freeze";

/// Spec: Standard Webhooks, "Signature scheme": a secret has 24 to 64 bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How far a message's time may be from ours, both ways. Spec: Standard Webhooks, "Verifying webhook authenticity".
pub const HOOK_WINDOW: Duration = Duration::from_secs(300);
/// How long the id of a message is remembered: it may come from the window's later end, and then wait for its earlier.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many ids are remembered. Beyond that a message is obeyed all the same: it can only stop.
const MAX_REMEMBERED: usize = 10_000;

/// The longest message, in bytes, and what it may cost to read.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
const LIMITS: Limits = Limits { bytes: MAX_MESSAGE_BYTES, values: 16, members: 8 };
/// The longest id of a message, in bytes.
const MAX_ID_BYTES: usize = 256;
/// The longest header with signatures, in bytes, and how many of them are looked at.
const MAX_SIGNATURES_BYTES: usize = 4 * 1024;
const MAX_SIGNATURES: usize = 16;
/// How many connections there are at once, and of one address: a stranger that holds all of its own shuts nobody else out.
const MAX_CONNECTIONS: usize = 1024;
const MAX_PER_PEER: usize = 8;

/// A message that asks for a freeze, signed by the owner's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub headers: [(&'static str, String); 3],
    pub body: String,
}

impl Signed {
    /// `id` is another for each message, and the same where one is sent again.
    pub fn by(owner: &ApproverKey, id: &str, whom: &Whom, now: Timestamp) -> Self {
        let body = json!({ "type": HOOK_EVENT, "data": WhomRecord::of(whom) }).to_string();
        let timestamp = (now.millis() / 1000).to_string();
        let signature = owner.sign(format!("{id}.{timestamp}.{body}").as_bytes());
        let signature = format!("v1a,{}", STANDARD.encode(signature));
        let headers = [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signature),
        ];
        Self { headers, body }
    }
}

/// Why a message is not obeyed. [`HookError::code`] is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    #[error("a message has one webhook-id, one webhook-timestamp and one webhook-signature")]
    Headers,
    #[error("the message is from another time")]
    Time,
    #[error("no signature of the message is good")]
    Signature,
    #[error("the message asks for nothing that can be done here")]
    Message,
}

impl HookError {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Headers => "headers_malformed",
            Self::Time => "timestamp_refused",
            Self::Signature => "signature_wrong",
            Self::Message => "message_malformed",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Headers | Self::Message => StatusCode::BAD_REQUEST,
            Self::Time | Self::Signature => StatusCode::UNAUTHORIZED,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HookSetupError {
    #[error("a secret is \"whsec_\" and 24 to 64 bytes in base64")]
    Secret,
    #[error("nobody could sign a message: name a secret, or the owner's key")]
    Nobody,
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// Who may freeze from elsewhere, and which messages were obeyed.
pub struct Hook {
    secret: Option<Zeroizing<Vec<u8>>>,
    owner: Option<PublicKey>,
    seen: Mutex<Seen>,
    /// One message is obeyed at a time, so that one that comes twice is obeyed once.
    turn: tokio::sync::Mutex<()>,
}

/// Shows no secret.
impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// What a message says, once its signature was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    id: String,
    whom: Whom,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    r#type: String,
    /// When what it tells of happened. Spec: Standard Webhooks, "Payload structure".
    #[serde(default, rename = "timestamp")]
    _timestamp: Option<String>,
    data: WhomRecord,
}

impl Hook {
    /// `secret` is what messages are signed with by HMAC-SHA256, `owner` a key that signs them by Ed25519. What was obeyed
    /// is remembered in the file `seen`, so that a new start does not obey it anew.
    ///
    /// # Errors
    /// [`HookSetupError`] if nobody could sign, or the file cannot be used.
    pub fn open(secret: Option<&str>, owner: Option<PublicKey>, seen: &Path) -> Result<Self, HookSetupError> {
        let secret = secret.map(read_secret).transpose()?;
        if secret.is_none() && owner.is_none() {
            return Err(HookSetupError::Nobody);
        }
        let failed = |error| HookSetupError::Io { path: seen.to_owned(), error };
        let seen = Seen::open(seen, system_clock().wall).map_err(failed)?;
        Ok(Self { secret, owner, seen: Mutex::new(seen), turn: tokio::sync::Mutex::default() })
    }

    /// Reads a message, if somebody signed it who may freeze.
    fn hear(&self, shown: &Shown, body: &[u8]) -> Result<Heard, HookError> {
        let Shown { id, timestamp, signatures } = shown;
        let mut signed = format!("{id}.{timestamp}.").into_bytes();
        signed.extend_from_slice(body);
        let mut signatures = signatures.split(' ').take(MAX_SIGNATURES);
        if !signatures.any(|one| self.is_good(one, &signed)) {
            return Err(HookError::Signature);
        }
        // Twice: for what it may cost and for names that come twice, and for what it says.
        farthing_wire::json::parse(body, LIMITS).map_err(|_| HookError::Message)?;
        let message: Message = serde_json::from_slice(body).map_err(|_| HookError::Message)?;
        let whom = message.data.read().filter(|_| message.r#type == HOOK_EVENT).ok_or(HookError::Message)?;
        Ok(Heard { id: id.clone(), whom })
    }

    /// Spec: Standard Webhooks, "Signature scheme": `v1` is HMAC-SHA256, `v1a` Ed25519; others are for others.
    fn is_good(&self, shown: &str, signed: &[u8]) -> bool {
        let Some((version, encoded)) = shown.split_once(',') else { return false };
        let Ok(signature) = STANDARD.decode(encoded) else { return false };
        match (version, &self.secret, &self.owner) {
            ("v1", Some(secret), _) => {
                Hmac::<Sha256>::new_from_slice(secret).is_ok_and(|mut mac| {
                    mac.update(signed);
                    // In constant time.
                    mac.verify_slice(&signature).is_ok()
                })
            }
            ("v1a", _, Some(owner)) => owner.verifies(signed, &signature),
            _ => false,
        }
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
        let shown = match Shown::read(&parts.headers, system_clock().wall) {
            Ok(shown) => shown,
            Err(error) => return unheard(&error),
        };
        let Ok(body) = Limited::new(body, MAX_MESSAGE_BYTES).collect().await else {
            let why = "a message has so many bytes at most, and comes in time";
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "message_too_large", why);
        };
        let heard = match self.hear(&shown, &body.to_bytes()) {
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
struct Shown {
    id: String,
    timestamp: String,
    signatures: String,
}

impl Shown {
    fn read(headers: &HeaderMap, now: Timestamp) -> Result<Self, HookError> {
        let id = one(headers, "webhook-id")?;
        // A full stop ends it in what is signed: with one in it, two messages could be signed alike.
        let plain = |b: u8| b.is_ascii_graphic() && b != b'.';
        if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(plain) {
            return Err(HookError::Headers);
        }
        let timestamp = one(headers, "webhook-timestamp")?;
        let is_number = (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
        let sent: u64 = timestamp.parse().ok().filter(|_| is_number).ok_or(HookError::Headers)?;
        let signatures = one(headers, "webhook-signature")?;
        if signatures.len() > MAX_SIGNATURES_BYTES {
            return Err(HookError::Headers);
        }
        if (now.millis() / 1000).abs_diff(sent) > HOOK_WINDOW.as_secs() {
            return Err(HookError::Time);
        }
        let [id, timestamp, signatures] = [id, timestamp, signatures].map(str::to_owned);
        Ok(Self { id, timestamp, signatures })
    }
}

fn unheard(error: &HookError) -> Response<Full<Bytes>> {
    tracing::info!(code = error.code(), "a message is not obeyed");
    refused(error.status(), error.code(), &error.to_string())
}

/// Spec: Standard Webhooks, "Signature scheme": "whsec_" and base64.
fn read_secret(text: &str) -> Result<Zeroizing<Vec<u8>>, HookSetupError> {
    let bytes = text.trim().strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    let bytes = bytes.map(Zeroizing::new).filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
    bytes.ok_or(HookSetupError::Secret)
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
