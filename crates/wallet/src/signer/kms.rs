//! Keys in AWS KMS, which signs and never gives them out.
//!
//! Spec: AWS Key Management Service API Reference, `GetPublicKey` and `Sign`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc as answers;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use farthing_evm::der::{self, DerError};
use farthing_evm::{B256, Signature, from_alloy};
use farthing_primitives::Address;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::sigv4::{Credentials, Post, amz_date};
use super::{SignError, Signer, ToSign};
use crate::system_clock;

/// How long an answer may take in all, however often it is asked for. A payment whose signature takes longer is denied.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often one signature is asked for. Signing again is harmless: no signature but the last leaves this process.
pub const MAX_TRIES: u32 = 3;
/// Before it is asked for again, and twice as long the next time.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How many requests are under way at once.
pub const MAX_AT_ONCE: usize = 32;
/// How many may wait for that; more are refused. Each has a thread that waits, and the books need some of tokio's 512 too.
pub const MAX_WAITING: usize = 256;
/// The longest answer that is read. Real ones have less than 1 kB.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// The longest name of a region. Real ones have up to 14 letters.
pub const MAX_REGION_CHARS: usize = 32;
/// The longest name of a key.
///
/// Spec: `Sign`, `KeyId`: at most 2048.
pub const MAX_KEY_CHARS: usize = 2048;
/// The longest name of an error that is repeated to people.
const MAX_ERROR_CHARS: usize = 64;

const SERVICE: &str = "kms";
/// Spec: AWS JSON protocol 1.1.
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// Which key it is: `REGION/KEY`, where the key is an id or `alias/NAME`; or the ARN of a key or alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsRef {
    region: String,
    key: String,
}

/// A text is no [`KmsRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key in AWS KMS is named REGION/KEY_ID, REGION/alias/NAME, or by its ARN")]
pub struct NotAKmsRef;

impl FromStr for KmsRef {
    type Err = NotAKmsRef;

    fn from_str(text: &str) -> Result<Self, NotAKmsRef> {
        let (region, key) = if text.starts_with("arn:") {
            // arn:PARTITION:kms:REGION:ACCOUNT:key/ID
            let parts: Vec<&str> = text.splitn(6, ':').collect();
            let [_, _, SERVICE, region, _, name] = parts.as_slice() else { return Err(NotAKmsRef) };
            if !name.starts_with("key/") && !name.starts_with("alias/") {
                return Err(NotAKmsRef);
            }
            (*region, text)
        } else {
            text.split_once('/').ok_or(NotAKmsRef)?
        };
        let is_region = (1..=MAX_REGION_CHARS).contains(&region.len())
            && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let is_key = (1..=MAX_KEY_CHARS).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/:".contains(&b));
        if is_region && is_key {
            Ok(Self { region: region.to_owned(), key: key.to_owned() })
        } else {
            Err(NotAKmsRef)
        }
    }
}

impl fmt::Display for KmsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.starts_with("arn:") {
            write!(f, "kms:{}", self.key)
        } else {
            write!(f, "kms:{}/{}", self.region, self.key)
        }
    }
}

impl KmsRef {
    /// Spec: AWS General Reference, "AWS Key Management Service endpoints".
    fn endpoint(&self) -> String {
        let domain = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("https://kms.{}.{domain}/", self.region)
    }
}

/// Why a key in AWS KMS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    #[error("AWS credentials are needed: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")]
    NoCredentials,
    #[error("AWS credentials have a character that they cannot have")]
    Credentials,
    #[error("{0} is no address of AWS KMS: https, or http to this machine, and nothing after the host")]
    Endpoint(String),
    #[error("the key {0} is none to pay with: it has to be of the kind ECC_SECG_P256K1, for SIGN_VERIFY")]
    Unfit(KmsRef),
    #[error("the HTTP client cannot be set up: {0}")]
    Http(String),
    #[error("no thread for AWS KMS: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Who asks, and where.
pub struct Access {
    credentials: Credentials,
    /// In place of the region's own.
    endpoint: Option<String>,
    within: Duration,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access by {}", self.credentials.access_key)
    }
}

impl Access {
    /// From the variables that AWS's own tools read.
    ///
    /// # Errors
    /// [`KmsError::NoCredentials`], and [`KmsError::Credentials`] for what no header can hold.
    ///
    /// Spec: AWS SDKs and Tools Reference Guide, "Environment variables" and "Service-specific endpoints".
    pub fn from_env() -> Result<Self, KmsError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, KmsError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let secret = |name: &str| set(name).map(Zeroizing::new);
        let credentials = Credentials {
            access_key: set("AWS_ACCESS_KEY_ID").ok_or(KmsError::NoCredentials)?,
            secret: secret("AWS_SECRET_ACCESS_KEY").ok_or(KmsError::NoCredentials)?,
            token: secret("AWS_SESSION_TOKEN"),
        };
        let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        let token = credentials.token.as_ref().map_or("", |token| token.as_str());
        if !is_word(&credentials.access_key) || !is_word(token) {
            return Err(KmsError::Credentials);
        }
        let endpoint = set("AWS_ENDPOINT_URL_KMS").or_else(|| set("AWS_ENDPOINT_URL"));
        Ok(Self { credentials, endpoint, within: ANSWER_WITHIN })
    }

    /// Gives up sooner, or later, than after [`ANSWER_WITHIN`].
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }
}

/// A key in AWS KMS.
///
/// Requests are sent by a thread of its own, so that whoever wants a signature may wait for it on any thread.
pub struct KmsKey {
    name: KmsRef,
    account: farthing_evm::Address,
    line: Line,
}

impl fmt::Debug for KmsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsKey {} of {}", self.name, self.account)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AskKey<'a> {
    key_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SaidKey {
    public_key: String,
    key_usage: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AskSignature<'a> {
    key_id: &'a str,
    message: String,
    message_type: &'a str,
    signing_algorithm: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SaidSignature {
    signature: String,
}

impl KmsKey {
    /// Asks whose key it is. The calling thread waits.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsError::Unfit`] for a key of another kind.
    pub fn connect(name: KmsRef, access: Access) -> Result<Self, KmsError> {
        let line = Line::open(&name, access)?;
        let answer = line.ask("GetPublicKey", &AskKey { key_id: &name.key })?;
        let said: SaidKey = line.read(&answer)?;
        let spki = line.bytes(&said.public_key)?;
        // Spec: `GetPublicKey`, `KeyUsage`: SIGN_VERIFY, ENCRYPT_DECRYPT or KEY_AGREEMENT.
        if said.key_usage != "SIGN_VERIFY" {
            return Err(KmsError::Unfit(name));
        }
        // Spec: `GetPublicKey`, `PublicKey`: a SubjectPublicKeyInfo in DER.
        match der::account_of(&spki) {
            Ok(account) => Ok(Self { name, account, line }),
            Err(_) => Err(KmsError::Unfit(name)),
        }
    }

    pub fn name(&self) -> &KmsRef {
        &self.name
    }
}

impl Signer for KmsKey {
    fn address(&self) -> Address {
        from_alloy(self.account)
    }

    fn sign(&self, what: &ToSign) -> Result<Signature, SignError> {
        let ask = AskSignature {
            key_id: &self.name.key,
            message: BASE64_STANDARD.encode(what.digest()),
            // Spec: `Sign`, `MessageType`: of a DIGEST the service makes no other hash. The name of the algorithm says
            // how long it is; Keccak-256 is as long as SHA-256.
            message_type: "DIGEST",
            signing_algorithm: "ECDSA_SHA_256",
        };
        let answer = self.line.ask("Sign", &ask)?;
        let said: SaidSignature = self.line.read(&answer)?;
        let signed = self.line.bytes(&said.signature)?;
        der::signature_of(&signed, what.digest(), self.account).map_err(|error| match error {
            DerError::OfSomethingElse => {
                SignError::OfSomethingElse { signer: self.line.name(), address: self.address() }
            }
            DerError::NotAKey | DerError::NotASignature => self.line.malformed("no signature in DER"),
        })
    }

    /// None: KMS signs one message in another way each time.
    fn secret(&self, _: &[u8]) -> Option<B256> {
        None
    }
}

/// What is asked, and where the answer goes.
struct Job {
    operation: &'static str,
    body: Bytes,
    deadline: Instant,
    answer: answers::SyncSender<Result<Bytes, SignError>>,
}

/// The way to the thread that asks.
struct Line {
    jobs: mpsc::Sender<Job>,
    region: String,
    within: Duration,
}

impl Line {
    fn open(name: &KmsRef, access: Access) -> Result<Self, KmsError> {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (within, region) = (access.within, name.region.clone());
        let clerk = Arc::new(Clerk::new(name, access)?);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(KmsError::Thread)?;
        let serve = move || runtime.block_on(clerk.serve(waiting));
        thread::Builder::new().name("kms".to_owned()).spawn(serve).map_err(KmsError::Thread)?;
        Ok(Self { jobs, region, within })
    }

    fn name(&self) -> String {
        named(&self.region)
    }

    fn malformed(&self, why: &'static str) -> SignError {
        SignError::Malformed { signer: self.name(), why }
    }

    fn ask(&self, operation: &'static str, ask: &impl Serialize) -> Result<Bytes, SignError> {
        let body = serde_json::to_vec(ask).map_err(|_| self.malformed("nothing to ask"))?.into();
        let (answer, answered) = answers::sync_channel(1);
        let busy = |_| SignError::Busy { signer: self.name() };
        let deadline = Instant::now() + self.within;
        self.jobs.try_send(Job { operation, body, deadline, answer }).map_err(busy)?;
        let late = |_| SignError::Late { signer: self.name(), within: self.within };
        answered.recv_timeout(self.within).map_err(late)?
    }

    fn read<'a, T: Deserialize<'a>>(&self, answer: &'a Bytes) -> Result<T, SignError> {
        serde_json::from_slice(answer).map_err(|_| self.malformed("not the JSON of this answer"))
    }

    fn bytes(&self, text: &str) -> Result<Vec<u8>, SignError> {
        BASE64_STANDARD.decode(text).map_err(|_| self.malformed("not base64"))
    }
}

fn named(region: &str) -> String {
    format!("AWS KMS in {region}")
}

/// Sends requests, on its thread.
struct Clerk {
    http: reqwest::Client,
    url: Url,
    host: String,
    region: String,
    access: Access,
    at_once: Arc<Semaphore>,
}

/// What came of one try.
enum Tried {
    Answered(Bytes),
    /// Another try may bring more.
    Again(SignError),
    Refused(SignError),
}

impl Clerk {
    fn new(name: &KmsRef, access: Access) -> Result<Self, KmsError> {
        let text = access.endpoint.clone().unwrap_or_else(|| name.endpoint());
        let wrong = || KmsError::Endpoint(text.clone());
        let url: Url = text.parse().map_err(|_| wrong())?;
        let is_root = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        if !is_root || !is_safe || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong());
        }
        let host = url.host_str().ok_or_else(wrong)?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // Fails only if there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            // What is signed is for one host alone.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // The proxy of a machine that pays may be one that pays, and would ask this key.
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(MAX_AT_ONCE)
            .build()
            .map_err(|error| KmsError::Http(error.to_string()))?;
        let at_once = Arc::new(Semaphore::new(MAX_AT_ONCE));
        Ok(Self { http, url, host, region: name.region.clone(), access, at_once })
    }

    /// Until nobody can ask any more.
    async fn serve(self: Arc<Self>, mut waiting: mpsc::Receiver<Job>) {
        while let Some(job) = waiting.recv().await {
            // A semaphore that nobody closes gives a permit.
            let permit = self.at_once.clone().acquire_owned().await;
            let clerk = self.clone();
            tokio::spawn(async move {
                let _permit = permit;
                // Whoever asked may have gone, and gives up by itself.
                if let Ok(done) = tokio::time::timeout_at(job.deadline, clerk.ask(&job)).await {
                    let _ = job.answer.send(done);
                }
            });
        }
    }

    async fn ask(&self, job: &Job) -> Result<Bytes, SignError> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            match self.try_once(job).await {
                Tried::Answered(answer) => return Ok(answer),
                Tried::Again(error) if tries >= MAX_TRIES => return Err(error),
                Tried::Refused(error) => return Err(error),
                Tried::Again(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn try_once(&self, job: &Job) -> Tried {
        let signer = || named(&self.region);
        let date = amz_date(system_clock().wall);
        let target = format!("TrentService.{}", job.operation);
        let credentials = &self.access.credentials;
        let mut headers = vec![
            ("content-type", CONTENT_TYPE),
            ("host", self.host.as_str()),
            ("x-amz-date", date.as_str()),
            ("x-amz-target", target.as_str()),
        ];
        if let Some(token) = &credentials.token {
            // Before the target, by its name.
            headers.insert(3, ("x-amz-security-token", token.as_str()));
        }
        let post = Post { region: &self.region, service: SERVICE, headers: &headers, body: &job.body };
        let Some(authorization) = post.authorization(credentials, &date) else {
            let why = "the request cannot be signed with this secret".to_owned();
            return Tried::Refused(SignError::Refused { signer: signer(), why });
        };
        let mut request = self.http.post(self.url.clone()).header("authorization", authorization);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, *value);
        }
        let answer = match request.body(job.body.clone()).send().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(operation = job.operation, error = %error.without_url(), "AWS KMS cannot be reached");
                return Tried::Again(SignError::Unreachable { signer: signer() });
            }
        };
        let status = answer.status();
        let body = match read_bounded(answer).await {
            Ok(Some(body)) => body,
            Ok(None) => {
                return Tried::Refused(SignError::Malformed { signer: signer(), why: "it is too long" });
            }
            Err(error) => {
                tracing::warn!(operation = job.operation, error = %error.without_url(), "AWS KMS broke off");
                return Tried::Again(SignError::Unreachable { signer: signer() });
            }
        };
        if status.is_success() {
            return Tried::Answered(body);
        }
        let why = error_of(&body).unwrap_or_else(|| status.as_u16().to_string());
        tracing::warn!(
            operation = job.operation,
            status = status.as_u16(),
            answer = %String::from_utf8_lossy(&body).escape_debug(),
            "AWS KMS refuses"
        );
        // Spec: AWS KMS API Reference, "Common Errors", and Developer Guide, "Throttling": of what may pass.
        let passes = status.is_server_error() || why == "ThrottlingException";
        let refused = SignError::Refused { signer: signer(), why };
        if passes { Tried::Again(refused) } else { Tried::Refused(refused) }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The whole answer; `None` if it is longer than any can be.
async fn read_bounded(mut answer: reqwest::Response) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// The name of an error, without what it says of accounts and roles.
///
/// Spec: AWS JSON protocol 1.1, "Operation error serialization": `__type`, with a namespace before a `#` or an address
/// after a `:`.
fn error_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "__type")]
        kind: String,
    }
    let said: Said = serde_json::from_slice(body).ok()?;
    let name = said.kind.rsplit('#').next()?.split(':').next()?;
    let is_name =
        (1..=MAX_ERROR_CHARS).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
