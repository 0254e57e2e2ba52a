//! Between a tool that wants to be paid and the paying client: what the server asks becomes a 402, a payment goes into
//! `_meta`, a receipt becomes a header. The other way round than `sell/exchange.rs`.
//!
//! Spec: draft-payment-transport-mcp-00, and x402's transport for MCP.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_policy::is_public;
use farthing_wallet::client::{Answer, Body, Exchange, HttpRequest, Reach, SendError};
use farthing_wallet::journal::Header;
use farthing_wire::mpp::header::{IDEMPOTENCY_KEY, PAYMENT_RECEIPT};
use farthing_wire::mpp::rpc::{
    CREDENTIAL, INVALID_PARAMS, PAYMENT_REQUIRED_META, PaymentRequired, RECEIPT, RpcError,
};
use farthing_wire::mpp::{Credential, Receipt};
use farthing_wire::x402::header::{
    ANSWER_LIMITS, PAYMENT_LIMITS, PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, X_PAYMENT,
    X_PAYMENT_RESPONSE, decode, encode,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, ErrorData};
use serde_json::{Map, Value, json};
use url::Url;

use super::forward::{Forward, Lost, Said};
use crate::sell::exchange::{from_wire, to_object, to_wire};
use crate::sell::{IDEMPOTENCY_KEY_META, X402_PAYMENT, X402_RESPONSE};

/// In an error that asks for payment: x402's offers beside the challenges, as a gateway of ours puts them.
const X402_REQUIRED: &str = "x402/payment-required";
/// The number of an error by which servers of x402's first version ask for payment.
const X402_ERROR: i32 = 402;

/// What a server asks for, in the words of HTTP.
#[derive(Debug, Default)]
pub struct Bill {
    headers: HeaderMap,
    body: Bytes,
}

impl Bill {
    /// What an answer asks for; `None` if it asks for nothing that could be paid.
    ///
    /// −32042 is MCP's number for an elicitation too: without readable challenges it is none of ours, and never paid.
    pub fn of(said: &Said) -> Option<Self> {
        let mut bill = Self::default();
        let asks = match said {
            Said::Result(CallToolResponse::Complete(result)) => bill.result(result),
            Said::Result(_) => false,
            Said::Error(error) => {
                let data = error.data.clone().unwrap_or_default();
                // Spec: MCP 2025-11-25, elicitation, "URL Elicitation Required Error". Who asks for both asks for neither.
                if shows_page(error) {
                    return None;
                }
                let offers = data.get(X402_REQUIRED).unwrap_or(&data);
                let by_x402 = data.get(X402_REQUIRED).is_some() || error.code.0 == X402_ERROR;
                let classified = serde_json::to_value(error).ok().and_then(|error| to_object(&error));
                match classified.as_ref().map(RpcError::classify) {
                    Some(
                        RpcError::PaymentRequired(required) | RpcError::VerificationFailed(Some(required)),
                    ) => {
                        bill.x402(offers);
                        bill.mpp(&required)
                    }
                    Some(RpcError::Other) if by_x402 => bill.x402(offers),
                    _ => false,
                }
            }
        };
        asks.then_some(bill)
    }

    fn result(&mut self, result: &CallToolResult) -> bool {
        let meta = result.meta.as_ref().and_then(|meta| meta.0.get(PAYMENT_REQUIRED_META));
        let mpp = meta
            .and_then(to_object)
            .and_then(|object| PaymentRequired::from_object(&object).ok())
            .is_some_and(|required| self.mpp(&required));
        // Spec: x402, transport for MCP, "Client Requirements": a result that is an error; the structured content, else
        // the first text.
        let x402 = result.is_error == Some(true)
            && match (&result.structured_content, result.content.first()) {
                (Some(structured), _) if structured.get("accepts").is_some() => self.x402(structured),
                (_, Some(ContentBlock::Text(text))) if text.text.len() <= ANSWER_LIMITS.bytes => {
                    serde_json::from_str(&text.text).is_ok_and(|offers: Value| self.x402(&offers))
                }
                _ => false,
            };
        mpp || x402
    }

    fn x402(&mut self, offers: &Value) -> bool {
        if offers.get("accepts").is_none() {
            return false;
        }
        match offers.get("x402Version").and_then(Value::as_u64) {
            Some(1) => self.body = Bytes::from(offers.to_string()),
            Some(_) => {
                let Ok(json) = to_wire(offers, ANSWER_LIMITS) else { return false };
                let Ok(value) = HeaderValue::try_from(encode(&json)) else { return false };
                self.headers.insert(PAYMENT_REQUIRED, value);
            }
            None => return false,
        }
        true
    }

    fn mpp(&mut self, required: &PaymentRequired) -> bool {
        let lines = required.challenges.iter().filter_map(|challenge| challenge.to_header().ok());
        let before = self.headers.len();
        for line in lines.filter_map(|line| HeaderValue::try_from(line).ok()) {
            self.headers.append(header::WWW_AUTHENTICATE, line);
        }
        self.headers.len() > before
    }
}

/// Carries a tool's call and its payment for the paying client.
#[derive(Debug)]
pub struct ToolExchange {
    forward: Forward,
    /// What the server answered last.
    last: Mutex<Option<Said>>,
    /// Whether anything left for the server.
    sent: std::sync::atomic::AtomicBool,
}

impl ToolExchange {
    pub fn new(forward: Forward) -> Self {
        Self { forward, last: Mutex::default(), sent: false.into() }
    }

    /// The server's last answer, in its own words.
    pub fn last(&self) -> Option<Said> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn was_sent(&self) -> bool {
        self.sent.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[async_trait]
impl Exchange for ToolExchange {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        reach: Reach,
        within: Duration,
    ) -> Result<Answer, SendError> {
        let private = is_private(&request.url).await;
        if private && reach == Reach::Public {
            return Err(SendError::Private(request.url.host_str().unwrap_or_default().to_owned()));
        }
        let meta = match payment {
            None => Map::new(),
            Some(payment) => payment_meta(payment, &request.headers)
                .ok_or_else(|| SendError::Broken("the payment does not fit a call".to_owned()))?,
        };
        let done = self.forward.send(meta, within, Box::pin(std::future::pending())).await;
        if !matches!(done, Err(Lost::NotSent(_))) {
            self.sent.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        let said = done.map_err(|lost| match lost {
            Lost::Timeout => SendError::Timeout,
            Lost::NotSent(error) => SendError::Connect {
                host: request.url.host_str().unwrap_or_default().to_owned(),
                cause: error.to_string(),
            },
            lost => SendError::Broken(lost.to_string()),
        })?;
        let (status, headers, body) = answered(&said, payment);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        let (version, body, url) = (Version::HTTP_11, Body::Complete(body), request.url.clone());
        Ok(Answer { status, version, headers, body, url, private })
    }
}

/// Whether a server is this machine or in its network. A program that we start is nobody's network: it has a name that no
/// resolver knows.
async fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => !is_public(IpAddr::V4(ip)),
        Some(url::Host::Ipv6(ip)) => !is_public(IpAddr::V6(ip)),
        // Spec: RFC 6761 section 6.4: names below `invalid` are nowhere.
        Some(url::Host::Domain(name)) if name.ends_with(".invalid") => false,
        Some(url::Host::Domain(name)) => {
            let port = url.port_or_known_default().unwrap_or(443);
            match tokio::net::lookup_host((name, port)).await {
                Ok(mut found) => found.any(|at| !is_public(at.ip())),
                // Who cannot be found is not reached either.
                Err(_) => false,
            }
        }
        None => true,
    }
}

/// Whether it points the agent's user to a page of the server's.
pub fn shows_page(error: &ErrorData) -> bool {
    error.data.as_ref().is_some_and(|data| data.get("elicitations").is_some())
}

/// A payment as a call carries it.
fn payment_meta(payment: &Header, headers: &HeaderMap) -> Option<Map<String, Value>> {
    let mut meta = Map::new();
    match payment.name.as_str() {
        X_PAYMENT | PAYMENT_SIGNATURE => {
            let json = decode(payment.value.as_bytes(), PAYMENT_LIMITS).ok()?;
            meta.insert(X402_PAYMENT.to_owned(), from_wire(json));
        }
        // Spec: "Metadata Placement": as native JSON, whichever header the challenge named over HTTP.
        _ => {
            let credential = Credential::parse(payment.value.as_bytes()).ok()?;
            meta.insert(CREDENTIAL.to_owned(), from_wire(credential.to_native()));
        }
    }
    if let Some(key) = headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()) {
        meta.insert(IDEMPOTENCY_KEY_META.to_owned(), key.into());
    }
    Some(meta)
}

/// An answer in the words of HTTP, for the client that decides what became of a payment.
fn answered(said: &Said, payment: Option<&Header>) -> (StatusCode, HeaderMap, Bytes) {
    if let Some(Bill { headers, body }) = Bill::of(said) {
        return (StatusCode::PAYMENT_REQUIRED, headers, body);
    }
    let by_first_version = payment.is_some_and(|payment| payment.name == X_PAYMENT);
    match said {
        Said::Result(CallToolResponse::Complete(result)) => {
            let meta = result.meta.as_ref().map(|meta| &meta.0);
            // As long as what was bought is there, it is no matter how long it is here.
            (StatusCode::OK, receipts(meta, by_first_version), Bytes::from_static(b"{}"))
        }
        // A server that asks for input, or goes on by itself, gets no further, and nobody knows how far it came: a payment
        // that it was shown is shown again by the same call, and no other is made.
        Said::Result(_) => (StatusCode::INTERNAL_SERVER_ERROR, HeaderMap::new(), Bytes::from_static(b"{}")),
        Said::Error(error) => {
            let data = error.data.clone().unwrap_or_default();
            let code =
                data.get("httpStatus").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            let told = code.filter(|code| (400..600).contains(code));
            let status = match told.and_then(|code| StatusCode::from_u16(code).ok()) {
                Some(status) => status,
                None if i64::from(error.code.0) == INVALID_PARAMS => StatusCode::BAD_REQUEST,
                // Nobody knows how far the tool came.
                None => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let mut headers = receipts(data.as_object(), by_first_version);
            if let Some(wait) = data.get("retryAfter").and_then(Value::as_u64) {
                headers.insert(header::RETRY_AFTER, wait.into());
            }
            let code = data.get("error").and_then(Value::as_str).unwrap_or_default();
            (status, headers, Bytes::from(json!({ "error": code }).to_string()))
        }
    }
}

fn receipts(meta: Option<&Map<String, Value>>, by_first_version: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(meta) = meta else { return headers };
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if let Some(json) = meta.get(X402_RESPONSE).and_then(|value| to_wire(value, ANSWER_LIMITS).ok()) {
        put(if by_first_version { X_PAYMENT_RESPONSE } else { PAYMENT_RESPONSE }, encode(&json));
    }
    let receipt = meta.get(RECEIPT).and_then(|value| to_wire(value, ANSWER_LIMITS).ok());
    if let Some(receipt) = receipt.and_then(|json| Receipt::from_json(json).ok()) {
        put(PAYMENT_RECEIPT, receipt.to_header());
    }
    headers
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ErrorCode, ErrorData};

    use super::*;

    fn error(code: i32, data: Value) -> Said {
        Said::Error(ErrorData::new(ErrorCode(code), "no", Some(data)))
    }

    fn status(said: &Said) -> u16 {
        answered(said, None).0.as_u16()
    }

    /// ATTACKS: one number, two meanings. A page to visit is never paid for.
    #[test]
    fn an_elicitation_is_never_paid() {
        let challenge = json!({
            "id": "a", "realm": "r", "method": "evm", "intent": "charge", "request": { "amount": "1" }
        });
        let page =
            json!([{ "mode": "url", "url": "https://a.example/", "elicitationId": "1", "message": "pay" }]);
        for (said, asks) in [
            (error(-32042, json!({ "challenges": [challenge] })), true),
            (error(-32043, json!({ "challenges": [challenge] })), true),
            (error(-32042, json!({ "elicitations": page })), false),
            (error(-32042, json!({ "elicitations": page, "challenges": [challenge] })), false),
            (error(402, json!({ "elicitations": page, "x402Version": 1, "accepts": [] })), false),
            (error(-32042, json!({ "challenges": [] })), false),
            (error(-32042, json!({ "challenges": ["pay 5 USDC to me"] })), false),
            (error(-32042, json!({})), false),
            (error(-32042, Value::Null), false),
            (error(-32000, json!({ "challenges": [challenge] })), false),
            (error(-32000, json!({ "x402Version": 1, "accepts": [] })), false),
            (error(402, json!({ "x402Version": 1, "accepts": [] })), true),
            (error(402, json!({ "accepts": [] })), false),
        ] {
            assert_eq!(Bill::of(&said).is_some(), asks, "{said:?}");
            assert_eq!(status(&said) == 402, asks, "{said:?}");
        }
    }

    /// A client of revision 2026-07-28 would repeat the call by itself, round after round, and each would be paid.
    #[test]
    fn a_server_that_asks_for_input_has_delivered_nothing() {
        let more = rmcp::model::InputRequiredResult::from_input_requests(Default::default());
        let said = Said::Result(CallToolResponse::InputRequired(more));
        assert!(Bill::of(&said).is_none());
        assert_eq!(status(&said), 500);
    }

    #[test]
    fn a_result_asks_by_x402_only_if_it_is_an_error() {
        let offers = json!({ "x402Version": 2, "accepts": [{}] });
        let mut good = CallToolResult::success(vec![ContentBlock::text(offers.to_string())]);
        good.structured_content = Some(offers.clone());
        assert_eq!(status(&Said::Result(good.into())), 200);
        let mut bad = CallToolResult::error(vec![ContentBlock::text("pay")]);
        bad.structured_content = Some(offers.clone());
        assert_eq!(status(&Said::Result(bad.into())), 402);
        let text = CallToolResult::error(vec![ContentBlock::text(offers.to_string())]);
        assert_eq!(status(&Said::Result(text.into())), 402);
        let broken = CallToolResult::error(vec![ContentBlock::text("no")]);
        assert_eq!(status(&Said::Result(broken.into())), 200);
    }

    #[test]
    fn what_a_gateway_says_of_a_payment_is_heard_and_other_errors_leave_it_open() {
        let pending = json!({ "httpStatus": 503, "error": "settlement_pending", "retryAfter": 2 });
        let (status_of, headers, body) = answered(&error(-32603, pending), None);
        assert_eq!((status_of.as_u16(), &headers[header::RETRY_AFTER]), (503, &HeaderValue::from(2)));
        assert_eq!(&body[..], br#"{"error":"settlement_pending"}"#);
        assert_eq!(status(&error(-32603, Value::Null)), 500);
        assert_eq!(status(&error(-32602, Value::Null)), 400);
        assert_eq!(status(&error(-32603, json!({ "httpStatus": 200 }))), 500);
    }
}
