//! The way to Stripe. It carries forms there and answers back, and judges nothing.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

/// Where Stripe is.
pub const DEFAULT_API: &str = "https://api.stripe.com";
/// The version of the API that shared payment tokens need: they are in preview. The one that the published mppx names.
pub const API_VERSION: &str = "2026-07-29.preview";
/// The longest answer that is read, in bytes. A page of a hundred PaymentIntents is about 300 KB.
pub const MAX_ANSWER: usize = 2 * 1024 * 1024;
/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// One question.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Without a slash at the beginning, e.g. `v1/payment_intents`. No part of it is a stranger's.
    pub path: String,
    /// A form for a POST, the query for a GET.
    pub fields: Vec<(String, String)>,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Get,
    /// With the idempotency key, where there is one.
    Post(Option<String>),
}

/// Without its fields, and without the token that is looked at: whoever has it may be paid with it.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.kind == Kind::Get { "GET" } else { "POST" };
        let path = self.path.split_once("/spt_").map_or(self.path.as_str(), |(before, _)| before);
        write!(f, "{verb} {path}")
    }
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self { path: path.into(), fields: Vec::new(), kind: Kind::Get }
    }

    pub fn post(path: impl Into<String>, key: Option<String>) -> Self {
        Self { path: path.into(), fields: Vec::new(), kind: Kind::Post(key) }
    }

    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// The fields as a form writes them.
    pub fn form(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.fields).finish()
    }
}

/// What came back, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Whether it says of itself that it is what was answered before under the same idempotency key.
    pub replayed: bool,
    /// The whole body, never a part of it.
    pub body: Bytes,
}

/// Why there is no answer: nobody was reached, or no whole answer came back. In neither case anything is concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no whole answer came back from Stripe")]
pub struct NoAnswer;

/// A way to Stripe, or to what stands in for it in tests.
#[async_trait]
pub trait Api: Send + Sync {
    /// Asks once: it follows no redirect, sends nothing a second time, and reads no more than [`MAX_ANSWER`].
    async fn call(&self, call: Call, within: Duration) -> Result<Answer, NoAnswer>;
}

/// Stripe over HTTP.
pub struct HttpApi {
    http: reqwest::Client,
    base: Url,
    /// `Basic …`, with the secret key as the user.
    authorization: Zeroizing<String>,
}

impl fmt::Debug for HttpApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpApi({})", self.base.host_str().unwrap_or("?"))
    }
}

impl HttpApi {
    /// `base` is [`DEFAULT_API`], or where a stand-in is.
    pub fn new(base: Url, secret_key: &str) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            // A redirect would carry a token, and our key, to somebody whom nobody chose.
            .redirect(reqwest::redirect::Policy::none())
            // Whether to ask again is decided where it is known what the first request may have done.
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_WITHIN)
            .build()?;
        let user = Zeroizing::new(format!("{secret_key}:"));
        let authorization = Zeroizing::new(format!("Basic {}", STANDARD.encode(user.as_bytes())));
        Ok(Self { http, base, authorization })
    }

    fn endpoint(&self, path: &str) -> Option<Url> {
        let mut url = self.base.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(path.split('/'));
        Some(url)
    }
}

#[async_trait]
impl Api for HttpApi {
    async fn call(&self, call: Call, within: Duration) -> Result<Answer, NoAnswer> {
        let mut url = self.endpoint(&call.path).ok_or(NoAnswer)?;
        let request = match &call.kind {
            Kind::Get => {
                if !call.fields.is_empty() {
                    url.set_query(Some(&call.form()));
                }
                self.http.get(url)
            }
            Kind::Post(key) => {
                let post = self
                    .http
                    .post(url)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(call.form());
                match key {
                    Some(key) => post.header("idempotency-key", key),
                    None => post,
                }
            }
        };
        let request = request
            .header("authorization", self.authorization.as_str())
            .header("stripe-version", API_VERSION)
            .timeout(within);
        let answer = request.send().await.map_err(|error| {
            // Without the URL, which may have a token in it.
            tracing::warn!(call = ?call, error = %error.without_url(), "no answer");
            NoAnswer
        })?;
        let status = answer.status().as_u16();
        let replayed = answer.headers().get("idempotent-replayed").is_some_and(|value| value == "true");
        let body = read_bounded(answer).await.ok_or(NoAnswer)?;
        Ok(Answer { status, replayed, body })
    }
}

async fn read_bounded(mut answer: reqwest::Response) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body.freeze())
}
