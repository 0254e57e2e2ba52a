//! Prices from a URL: the request goes there as JSON, and the price comes back.

use std::time::Duration;

use async_trait::async_trait;
use farthing_paywall::{Amount, HookError, PriceHook, Quote, QuoteRequest};
use farthing_primitives::Address;
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::Url;

use super::GatewayError;
use crate::config::SecretRef;

/// The longest answer of a hook that is read, in bytes.
pub const MAX_HOOK_ANSWER: usize = 16 * 1024;

/// How many requests may wait for one hook at once; more are 503.
pub const MAX_QUESTIONS: usize = 256;

/// The request's headers that a hook is told, and offers are bound to. No cookies and no credentials.
const TOLD: [HeaderName; 6] = [ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, CONTENT_LENGTH, HOST, USER_AGENT];

/// A hook behind a URL.
pub struct HttpHook {
    client: reqwest::Client,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    places: Semaphore,
}

impl HttpHook {
    pub fn new(
        url: Url,
        timeout: Duration,
        secrets: &[(HeaderName, SecretRef)],
    ) -> Result<Self, GatewayError> {
        let fail = |why: String| GatewayError::Hook { url: url.to_string(), why };
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| fail(error.to_string()))?;
        let mut headers = Vec::with_capacity(secrets.len());
        for (name, reference) in secrets {
            let secret = reference.resolve().map_err(|error| fail(format!("header {name}: {error}")))?;
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| fail(format!("header {name}: {reference} holds what no header can")))?;
            value.set_sensitive(true);
            headers.push((name.clone(), value));
        }
        Ok(Self { client, headers, url, places: Semaphore::new(MAX_QUESTIONS) })
    }
}

#[async_trait]
impl PriceHook for HttpHook {
    fn depends_on(&self) -> &[HeaderName] {
        &TOLD
    }

    async fn quote(&self, request: &QuoteRequest) -> Result<Quote, HookError> {
        let fail = |error: reqwest::Error| HookError(error.without_url().to_string());
        let Ok(_place) = self.places.try_acquire() else {
            return Err(HookError(format!("{MAX_QUESTIONS} requests wait for it already")));
        };
        let mut asking = self.client.post(self.url.clone()).json(&question(request));
        for (name, value) in &self.headers {
            asking = asking.header(name.clone(), value.clone());
        }
        let mut answer = asking.send().await.map_err(fail)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(HookError(format!("it answered {}", answer.status().as_u16())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(fail)? {
            if body.len() + chunk.len() > MAX_HOOK_ANSWER {
                return Err(HookError(format!("its answer is longer than {MAX_HOOK_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        read(&body)
    }
}

fn question(request: &QuoteRequest) -> Value {
    let (path, query) = request.resource.split_once('?').unwrap_or((&request.resource, ""));
    let told = request.headers.iter();
    let headers: serde_json::Map<String, Value> = told
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), Value::from(value.to_str().ok()?))))
        .collect();
    json!({ "method": request.method.as_str(), "path": path, "query": query, "headers": headers })
}

/// Reads `{"price": "$0.01"}` or `{"atoms": "10000"}`, with `pay_to` and `valid_for_seconds` if they are there.
/// Unknown members are refused: a misspelt price must not become another one.
pub fn read(body: &[u8]) -> Result<Quote, HookError> {
    let refuse = |why: &str| HookError(why.to_owned());
    let value: Value = serde_json::from_slice(body).map_err(|_| refuse("its answer is not JSON"))?;
    let object = value.as_object().ok_or_else(|| refuse("its answer is not an object"))?;
    const KNOWN: &[&str] = &["price", "atoms", "pay_to", "valid_for_seconds"];
    if let Some(odd) = object.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let odd: String = odd.chars().take(32).collect();
        return Err(HookError(format!("its answer has an unknown member {odd:?}")));
    }
    let text = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(HookError(format!("{key} is not a text"))),
    };
    let amount = match (text("price")?, text("atoms")?) {
        (Some(price), None) if price.starts_with('$') => Amount::parse(price),
        (None, Some(atoms)) if !atoms.starts_with('$') => Amount::parse(atoms),
        _ => return Err(refuse("needs either price (\"$0.01\") or atoms (\"10000\")")),
    };
    let pay_to =
        text("pay_to")?.map(Address::evm).transpose().map_err(|error| HookError(error.to_string()))?;
    let valid_for = match object.get("valid_for_seconds") {
        None | Some(Value::Null) => None,
        Some(secs) => match secs.as_u64() {
            Some(secs) if secs > 0 => Some(Duration::from_secs(secs)),
            _ => return Err(refuse("valid_for_seconds is not a positive whole number")),
        },
    };
    Ok(Quote { amount: amount.map_err(|error| HookError(error.to_string()))?, pay_to, valid_for })
}
