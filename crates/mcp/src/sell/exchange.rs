//! Between an agent's JSON and the paywall's HTTP: payments and arguments one way, challenges and receipts the other.
//!
//! Spec: draft-payment-transport-mcp-00, and x402's transport for MCP.

use bytes::Bytes;
use farthing_wire::json::{self, Limits};
use farthing_wire::mpp::header::{AUTHORIZATION, IDEMPOTENCY_KEY, PAYMENT_RECEIPT};
use farthing_wire::mpp::rpc::{self, CREDENTIAL, Failure, PAYMENT_REQUIRED_META, PaymentRequired, RECEIPT};
use farthing_wire::mpp::{
    CREDENTIAL_LIMITS, Challenges, Credential, MppError, Problem, ProblemType, Receipt,
};
use farthing_wire::x402::header::{
    ANSWER_LIMITS, PAYMENT_LIMITS, PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, X_PAYMENT,
    X_PAYMENT_RESPONSE, decode, encode,
};
use farthing_wire::{Json, Object};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, ErrorCode, MetaObject};
use serde_json::{Map, Value, json};

/// Keys of `_meta`, by x402.
pub const X402_PAYMENT: &str = "x402/payment";
pub const X402_RESPONSE: &str = "x402/payment-response";
/// The key by which a client names a call, so that the same payment brings the same answer a second time: what
/// `Idempotency-Key` is over HTTP. Neither specification has one.
pub const IDEMPOTENCY_KEY_META: &str = "farthing/idempotency-key";
/// In an error that asks for payment: what x402 reads, beside the challenges.
const X402_REQUIRED: &str = "x402/payment-required";

/// The longest arguments of a call, in bytes of their canonical form.
pub const MAX_ARGUMENT_BYTES: usize = 1024 * 1024;
/// The longest name of a call, in bytes.
const MAX_KEY_BYTES: usize = 256;
/// How much of an answer of the paywall's own is read as JSON.
const OWN_ANSWER: Limits = Limits { bytes: 256 * 1024, values: 16_384, members: 256 };

/// The members of the bodies that [`super::ToolService`] answers with. The paywall's own have neither.
pub(super) const RESULT: &str = "result";
pub(super) const RPC_ERROR: &str = "rpc_error";

/// How a call without a payment is asked for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unpaid {
    /// By a result that is an error: x402's form, with the challenges of MPP in its `_meta`, which mppx reads there. A
    /// client whose call says that it pays by MPP (since the protocol's revision 2026-07-28 each call can) gets the
    /// error all the same.
    #[default]
    Result,
    /// By the error −32042 of MPP's draft, with x402's offers in its data.
    Error,
}

/// The dialect that a call's payment is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    Mpp,
    X402,
}

/// What a call shows, as headers.
#[derive(Debug)]
pub(super) struct Payment {
    pub headers: HeaderMap,
    pub shown: Shown,
}

fn bad_params(detail: impl Into<String>) -> ErrorData {
    ErrorData::new(code(rpc::INVALID_PARAMS), "Invalid params", Some(json!({ "detail": detail.into() })))
}

fn code(code: i64) -> ErrorCode {
    // INVARIANT: every number that we give fits.
    ErrorCode(i32::try_from(code).unwrap_or(-32603))
}

/// The same JSON, as the wire reads it.
pub(crate) fn to_wire(value: &Value, limits: Limits) -> Result<Json, MppError> {
    Ok(json::parse(value.to_string().as_bytes(), limits)?)
}

pub(crate) fn to_object(value: &Value) -> Option<Object> {
    match to_wire(value, OWN_ANSWER) {
        Ok(Json::Object(object)) => Some(object),
        _ => None,
    }
}

pub(crate) fn from_wire(json: impl Into<Json>) -> Value {
    // INVARIANT: what the wire prints is JSON.
    serde_json::from_str(&json.into().to_string()).unwrap_or(Value::Null)
}

/// Arguments in one form, however they were written: keys in the order of their UTF-16 code units, no blanks. A payment
/// is bound to these bytes.
pub(crate) fn canonical(arguments: &Map<String, Value>) -> Result<Bytes, ErrorData> {
    fn print(out: &mut String, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut members: Vec<(&String, &Value)> = map.iter().collect();
                members.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
                out.push('{');
                for (at, (key, value)) in members.into_iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    out.push_str(&Value::from(key.as_str()).to_string());
                    out.push(':');
                    print(out, value);
                }
                out.push('}');
            }
            Value::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    print(out, item);
                }
                out.push(']');
            }
            plain => out.push_str(&plain.to_string()),
        }
    }
    let mut out = String::with_capacity(256);
    print(&mut out, &Value::Object(arguments.clone()));
    if out.len() > MAX_ARGUMENT_BYTES {
        return Err(bad_params(format!("the arguments have more than {MAX_ARGUMENT_BYTES} bytes")));
    }
    Ok(out.into())
}

/// Moves a credential that stands beside a message's `params` into them, where MCP has it.
///
/// Spec: draft-payment-transport-mcp-00, "Metadata Placement": servers look in both places.
pub(super) fn lowered(message: Bytes) -> Bytes {
    // Few messages have one anywhere.
    if !message.windows(CREDENTIAL.len()).any(|window| window == CREDENTIAL.as_bytes()) {
        return message;
    }
    let Ok(Value::Object(mut object)) = serde_json::from_slice(&message) else { return message };
    let beside =
        object.get_mut("_meta").and_then(Value::as_object_mut).and_then(|meta| meta.remove(CREDENTIAL));
    let (Some(beside), Some(Value::Object(params))) = (beside, object.get_mut("params")) else {
        return message;
    };
    let Value::Object(meta) = params.entry("_meta").or_insert_with(|| json!({})) else { return message };
    // Two are too many, also where they are in two places: what stands for both cannot be read.
    let one = match meta.remove(CREDENTIAL) {
        Some(within) => json!([within, beside]),
        None => beside,
    };
    meta.insert(CREDENTIAL.to_owned(), one);
    Value::Object(object).to_string().into()
}

/// Reads what a call pays with.
///
/// # Errors
/// −32602 for what cannot be read. Spec: "Error Code Mapping".
pub(super) fn payment(meta: &Map<String, Value>) -> Result<Payment, ErrorData> {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: String| match HeaderValue::try_from(value) {
        Ok(mut value) => {
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok(())
        }
        Err(_) => Err(bad_params("the payment cannot be read")),
    };
    let there = |key: &str| meta.get(key).filter(|value| !value.is_null());
    let mut shown = Shown::Nothing;
    if let Some(value) = there(CREDENTIAL) {
        let credential = to_wire(value, CREDENTIAL_LIMITS)
            .and_then(Credential::from_json)
            .and_then(|credential| credential.to_header());
        put(AUTHORIZATION, credential.map_err(|error| bad_params(error.to_string()))?)?;
        shown = Shown::Mpp;
    }
    if let Some(value) = there(X402_PAYMENT) {
        // Spec: draft-httpauth-payment-00: one credential a request.
        if shown == Shown::Mpp {
            return Err(bad_params("a call has one payment, and this one has two"));
        }
        let payload = to_wire(value, PAYMENT_LIMITS).map_err(|error| bad_params(error.to_string()))?;
        let first_version = payload.as_object().and_then(|object| object.get("x402Version"));
        let name = match first_version.and_then(Json::as_u64) {
            Some(1) => X_PAYMENT,
            _ => PAYMENT_SIGNATURE,
        };
        put(name, encode(&payload))?;
        shown = Shown::X402;
    }
    match there(IDEMPOTENCY_KEY_META) {
        None => {}
        Some(Value::String(key)) if key.len() <= MAX_KEY_BYTES => put(IDEMPOTENCY_KEY, key.clone())?,
        Some(_) => return Err(bad_params(format!("{IDEMPOTENCY_KEY_META} is not a short text"))),
    }
    Ok(Payment { headers, shown })
}

/// Turns the paywall's answer into a tool's.
pub(super) fn answer(
    (status, headers, body): (StatusCode, &HeaderMap, &Bytes),
    shown: Shown,
    unpaid: Unpaid,
) -> Result<CallToolResult, ErrorData> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(result) = body.get(RESULT) {
        let Ok(mut result) = serde_json::from_value::<CallToolResult>(result.clone()) else {
            return Err(ErrorData::internal_error("the tool's result cannot be read", None));
        };
        put_receipts(&mut result, headers);
        return Ok(result);
    }
    if let Some(error) = body.get(RPC_ERROR) {
        return Err(serde_json::from_value(error.clone())
            .unwrap_or_else(|_| ErrorData::internal_error("the tool's error cannot be read", None)));
    }
    if matches!(status, StatusCode::PAYMENT_REQUIRED | StatusCode::PRECONDITION_FAILED) {
        return challenge(headers, &body, shown, unpaid);
    }
    Err(refusal(status, headers, &body))
}

/// What was paid is told in the words of who paid.
fn put_receipts(result: &mut CallToolResult, headers: &HeaderMap) {
    if let Some(receipt) =
        headers.get(PAYMENT_RECEIPT).and_then(|value| Receipt::parse(value.as_bytes()).ok())
    {
        put_meta(result, RECEIPT, from_wire(receipt.to_object()));
    }
    if let Some(said) = x402_response(headers) {
        put_meta(result, X402_RESPONSE, said);
    }
}

fn x402_response(headers: &HeaderMap) -> Option<Value> {
    let value = headers.get(PAYMENT_RESPONSE).or_else(|| headers.get(X_PAYMENT_RESPONSE))?;
    decode(value.as_bytes(), ANSWER_LIMITS).ok().map(from_wire)
}

fn put_meta(result: &mut CallToolResult, key: &str, value: Value) {
    result.meta.get_or_insert_with(MetaObject::new).0.insert(key.to_owned(), value);
}

/// Asks for payment, in the form that the client reads.
fn challenge(
    headers: &HeaderMap,
    body: &Value,
    shown: Shown,
    unpaid: Unpaid,
) -> Result<CallToolResult, ErrorData> {
    let x402 = headers
        .get(PAYMENT_REQUIRED)
        .and_then(|value| decode(value.as_bytes(), ANSWER_LIMITS).ok())
        .map(from_wire);
    let required = required(headers, body);
    match (required, x402) {
        (Some(required), x402) if by_error(shown, unpaid) || x402.is_none() => {
            let error = required.to_error();
            let mut data = error.get("data").cloned().map_or(Value::Null, from_wire);
            if let (Some(x402), Value::Object(data)) = (x402, &mut data) {
                data.insert(X402_REQUIRED.to_owned(), x402);
            }
            let message = error.get_str("message").unwrap_or("Payment Required").to_owned();
            Err(ErrorData::new(code(required.code()), message, Some(data)))
        }
        (required, Some(x402)) => {
            // Spec: x402, transport for MCP, "Server Requirements": the text is the same, printed.
            let mut result = CallToolResult::error(vec![ContentBlock::text(x402.to_string())]);
            result.structured_content = Some(x402);
            if let Some(required) = required {
                put_meta(&mut result, PAYMENT_REQUIRED_META, from_wire(required.to_object()));
            }
            put_receipts(&mut result, headers);
            Ok(result)
        }
        // A settlement that failed: no offer beside it, for another payment might be the second.
        (None, None) => match x402_response(headers) {
            Some(said) => {
                let mut result = CallToolResult::error(vec![ContentBlock::text(said.to_string())]);
                result.structured_content = Some(said.clone());
                put_meta(&mut result, X402_RESPONSE, said);
                Ok(result)
            }
            None => Err(refusal(StatusCode::PAYMENT_REQUIRED, headers, body)),
        },
        (Some(_), None) => Err(refusal(StatusCode::PAYMENT_REQUIRED, headers, body)),
    }
}

fn by_error(shown: Shown, unpaid: Unpaid) -> bool {
    match shown {
        Shown::Mpp => true,
        Shown::X402 => false,
        Shown::Nothing => unpaid == Unpaid::Error,
    }
}

/// The challenges of MPP, with why an earlier one was not met.
fn required(headers: &HeaderMap, body: &Value) -> Option<PaymentRequired> {
    let lines = headers.get_all(header::WWW_AUTHENTICATE);
    let challenges = Challenges::parse(lines.iter().map(HeaderValue::as_bytes)).ok()?.challenges;
    let mut problem = to_object(body).and_then(|object| Problem::from_json(Json::Object(object)).ok());
    if let Some(problem) = &mut problem {
        // What version 1 of x402 reads in this body over HTTP.
        problem.other = Object::new();
    }
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let failed = problem.as_ref().is_some_and(|problem| problem.kind != ProblemType::PaymentRequired);
    let mut required = PaymentRequired::new(challenges, problem);
    required.failure = failed.then(|| Failure { reason: text("error"), detail: text("detail") });
    Some(required)
}

/// Everything else that a paywall says. What it is about is in the data: a stable code, and whether to ask again.
///
/// Spec: "Error Code Mapping".
fn refusal(status: StatusCode, headers: &HeaderMap, body: &Value) -> ErrorData {
    let (number, message) = match status.as_u16() {
        400 | 404 | 405 | 413 | 414 => (rpc::INVALID_PARAMS, "Invalid params"),
        402 | 409 | 410 | 412 => (rpc::VERIFICATION_FAILED, "Payment Verification Failed"),
        _ => (rpc::INTERNAL_ERROR, "Internal error"),
    };
    let mut data = Map::new();
    data.insert("httpStatus".to_owned(), status.as_u16().into());
    for key in ["error", "message", "payment", "transaction", "status"] {
        if let Some(Value::String(text)) = body.get(key) {
            data.insert(key.to_owned(), text.as_str().into());
        }
    }
    let wait = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(wait) = wait {
        data.insert("retryAfter".to_owned(), wait.into());
    }
    if let Some(said) = x402_response(headers) {
        data.insert(X402_RESPONSE.to_owned(), said);
    }
    ErrorData::new(code(number), message, Some(Value::Object(data)))
}

/// Whether a tool's own result wants to be paid, in any form that a client of ours would act on.
pub(super) fn asks_for_payment(result: &CallToolResult) -> bool {
    let meta = result.meta.as_ref().is_some_and(|meta| meta.0.contains_key(PAYMENT_REQUIRED_META));
    let offers = |value: &Value| value.get("x402Version").is_some() && value.get("accepts").is_some();
    let structured = result.structured_content.as_ref().is_some_and(offers);
    // Spec: x402, transport for MCP, "Client Requirements": the first text, where nothing is structured.
    let said = result.is_error == Some(true)
        && matches!(result.content.first(), Some(ContentBlock::Text(text))
            if serde_json::from_str::<Value>(&text.text).is_ok_and(|value| offers(&value)));
    meta || structured || said
}

/// Receipts are ours to give.
pub(super) fn remove_payment_meta(result: &mut CallToolResult) {
    if let Some(meta) = &mut result.meta {
        meta.0.retain(|key, _| !key.starts_with("org.paymentauth/") && !key.starts_with("x402/"));
    }
}

#[cfg(test)]
mod tests;
