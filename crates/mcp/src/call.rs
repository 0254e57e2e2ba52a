//! A tool's arguments, and the request that they ask for.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farthing_approval::GrantAsk;
use farthing_policy::Dollars;
use farthing_wallet::client::HttpRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 8 * 1024;
/// The longest name of a call, in bytes.
pub const MAX_CALL_ID_BYTES: usize = 128;
/// How many headers a call may have, and their bytes together.
pub const MAX_HEADERS: usize = 32;
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The longest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Headers that the wallet or the connection writes.
const OURS: [&str; 10] = [
    "x-payment",
    "payment-signature",
    "payment-authorization",
    "idempotency-key",
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
];

/// Why a call is not made. The code is stable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("the arguments are not what the tool takes: {0}")]
    Arguments(String),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{0} is a header that the wallet or the connection writes")]
    Header(String),
    #[error("call_id was used for another request before: choose a new one")]
    OtherRequest,
    #[error("a purchase of this call_id is under way in another process: ask again in a moment")]
    InProgress,
    #[error("too many purchases are under way: ask again when one has ended")]
    Busy,
}

impl CallError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Arguments(_) | Self::Invalid(_) | Self::Header(_) => "invalid_arguments",
            Self::OtherRequest => "call_id_conflict",
            Self::InProgress => "in_progress",
            Self::Busy => "busy",
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteArgs {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    body_base64: Option<String>,
    pub max: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayArgs {
    pub call_id: String,
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    body_base64: Option<String>,
    pub max: Option<String>,
    /// Where a rule wants people to approve, they are asked.
    #[serde(default)]
    pub ask_approval: bool,
    /// They are asked for a grant, and not for one payment.
    pub ask_grant: Option<GrantArgs>,
    #[serde(default)]
    pub offset: usize,
}

/// The bounds of a grant that is asked for. What comes of it is for people to say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantArgs {
    payments: u32,
    each: Option<String>,
    total: Option<String>,
    hours: u32,
    below: Option<String>,
    #[serde(default)]
    any_body: bool,
}

impl GrantArgs {
    pub fn ask(&self) -> GrantAsk {
        let Self { payments, each, total, hours, below, any_body } = self.clone();
        let lasts = Duration::from_secs(u64::from(hours) * 60 * 60);
        GrantAsk { payments, each, total, lasts, below, any_body }
    }
}

impl QuoteArgs {
    pub fn request(&self) -> Result<HttpRequest, CallError> {
        request(
            &self.url,
            self.method.as_deref(),
            &self.headers,
            self.body.as_deref(),
            self.body_base64.as_deref(),
        )
    }
}

impl PayArgs {
    /// The request, once everything that the call says was checked.
    pub fn check(&self) -> Result<HttpRequest, CallError> {
        let id = self.call_id.as_bytes();
        if id.is_empty() || id.len() > MAX_CALL_ID_BYTES || !id.iter().all(u8::is_ascii_graphic) {
            return Err(CallError::Invalid("call_id must be 1 to 128 visible ASCII characters"));
        }
        request(
            &self.url,
            self.method.as_deref(),
            &self.headers,
            self.body.as_deref(),
            self.body_base64.as_deref(),
        )
    }

    /// The call's name in the journal: of one length, whatever it was called.
    pub fn name(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"farthing mcp call v1");
        hash.update(self.call_id.as_bytes());
        hex::encode(hash.finalize())
    }
}

fn request(
    url: &str,
    method: Option<&str>,
    headers: &BTreeMap<String, String>,
    body: Option<&str>,
    base64: Option<&str>,
) -> Result<HttpRequest, CallError> {
    if url.len() > MAX_URL_BYTES {
        return Err(CallError::Invalid("the URL is too long"));
    }
    let url: url::Url = url.parse().map_err(|_| CallError::Invalid("url is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(CallError::Invalid("url must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CallError::Invalid("url must not hold credentials"));
    }
    let body = match (body, base64) {
        (Some(_), Some(_)) => return Err(CallError::Invalid("give body or body_base64, not both")),
        (Some(text), None) => Bytes::copy_from_slice(text.as_bytes()),
        (None, Some(text)) => {
            STANDARD.decode(text).map_err(|_| CallError::Invalid("body_base64 is not base64"))?.into()
        }
        (None, None) => Bytes::new(),
    };
    if body.len() > MAX_BODY_BYTES {
        return Err(CallError::Invalid("the body is too long"));
    }
    let method: Method = match method {
        Some(method) => method.parse().map_err(|_| CallError::Invalid("method is not a method"))?,
        None if body.is_empty() => Method::GET,
        None => Method::POST,
    };
    if matches!(method, Method::CONNECT | Method::TRACE) {
        return Err(CallError::Invalid("this method is not for buying"));
    }
    Ok(HttpRequest { method, url, headers: header_map(headers)?, body, socket: None })
}

fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, CallError> {
    if headers.len() > MAX_HEADERS {
        return Err(CallError::Invalid("too many headers"));
    }
    if headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_HEADER_BYTES {
        return Err(CallError::Invalid("the headers are too long"));
    }
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(|_| CallError::Invalid("a header's name is none"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| CallError::Invalid("a header's value is none"))?;
        let scheme = value.as_bytes().get(..8).unwrap_or_default();
        let pays = name == header::AUTHORIZATION && scheme.eq_ignore_ascii_case(b"payment ");
        if pays || OURS.contains(&name.as_str()) {
            return Err(CallError::Header(name.to_string()));
        }
        if map.insert(name, value).is_some() {
            return Err(CallError::Invalid("a header is named twice"));
        }
    }
    Ok(map)
}

/// The stricter of what the owner set for all calls and what the call says.
///
/// Both are amounts in whole units; if either says that they are dollars (`$`), so does the result, which permits less.
pub fn strictest(owner: Option<&str>, call: Option<&str>) -> Result<Option<String>, CallError> {
    let read =
        |text: &str| Dollars::parse(text).map_err(|_| CallError::Invalid("max is not an amount, e.g. 0.02"));
    let (owner, call) = match (owner, call) {
        (None, None) => return Ok(None),
        (Some(one), None) | (None, Some(one)) => {
            read(one)?;
            return Ok(Some(one.to_owned()));
        }
        (Some(owner), Some(call)) => (owner, call),
    };
    let least = read(owner)?.min(read(call)?).plain();
    let dollars = owner.starts_with('$') || call.starts_with('$');
    Ok(Some(if dollars { format!("${least}") } else { least }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pay(json: serde_json::Value) -> Result<HttpRequest, CallError> {
        serde_json::from_value::<PayArgs>(json).map_err(|e| CallError::Arguments(e.to_string()))?.check()
    }

    #[test]
    fn a_calls_arguments_become_a_request() {
        let one = pay(json!({ "call_id": "a", "url": "https://a.example/x", "body": "{}" })).unwrap();
        assert_eq!(one.method, Method::POST);
        assert_eq!(&one.body[..], b"{}");
    }

    #[test]
    fn bad_arguments_are_refused_by_code() {
        let url = "https://a.example/";
        let long = "x".repeat(MAX_CALL_ID_BYTES + 1);
        for wrong in [
            json!({ "url": url }),
            json!({ "call_id": "", "url": url }),
            json!({ "call_id": "a b", "url": url }),
            json!({ "call_id": long, "url": url }),
            json!({ "call_id": "a", "url": "file:///etc/passwd" }),
            json!({ "call_id": "a", "url": "https://me:secret@a.example/" }),
            json!({ "call_id": "a", "url": url, "method": "TRACE" }),
            json!({ "call_id": "a", "url": url, "body": "a", "body_base64": "YQ==" }),
            json!({ "call_id": "a", "url": url, "body_base64": "?" }),
            json!({ "call_id": "a", "url": url, "body": "x".repeat(MAX_BODY_BYTES + 1) }),
            json!({ "call_id": "a", "url": url, "headers": { "X-PAYMENT": "e30=" } }),
            json!({ "call_id": "a", "url": url, "headers": { "Idempotency-Key": "1" } }),
            json!({ "call_id": "a", "url": url, "headers": { "Authorization": "payment abc" } }),
            json!({ "call_id": "a", "url": url, "headers": { "a\nb": "c" } }),
            json!({ "call_id": "a", "url": url, "surprise": 1 }),
        ] {
            assert_eq!(pay(wrong.clone()).unwrap_err().code(), "invalid_arguments", "{wrong}");
        }
        let bearer = json!({ "call_id": "a", "url": url, "headers": { "Authorization": "Bearer x" } });
        assert!(pay(bearer).is_ok());
    }

    #[test]
    fn the_stricter_maximum_counts() {
        for (owner, call, expected) in [
            (None, None, None),
            (Some("1"), None, Some("1")),
            (None, Some("$0.5"), Some("$0.5")),
            (Some("1"), Some("0.5"), Some("0.5")),
            (Some("0.5"), Some("1000"), Some("0.5")),
            (Some("$1"), Some("0.5"), Some("$0.5")),
        ] {
            assert_eq!(strictest(owner, call).unwrap().as_deref(), expected);
        }
        assert!(strictest(Some("1"), Some("-1")).is_err());
    }
}
