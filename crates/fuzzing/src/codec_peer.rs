//! Our codec for a comparison with the published one: messages that are right or nearly right, from a seed, and what
//! we make of a message. `scripts/e2e/codec-differential.mjs` has the other side.

use farthing_wire::json::parse;
use farthing_wire::x402::exact_evm::Payload;
use farthing_wire::x402::facilitator::{PaymentRequest, SettleResponse, SupportedResponse, VerifyResponse};
use farthing_wire::x402::{Message, SettlementResponse, WireError, header, v1, v2};
use farthing_wire::{Json, Object};

use crate::edit::edit;
use crate::input::Input;
use crate::templates::templates;

/// The kinds of messages that are compared: headers, then bodies.
pub const KINDS: &[&str] = &[
    "payment2",
    "payment1",
    "challenge2",
    "receipt",
    "challenge1",
    "request",
    "verify",
    "settle",
    "supported",
];

/// What we make of a message: its JSON as we understand it, or why it is none.
///
/// # Panics
/// For a kind that is not one.
pub fn judge(kind: &str, bytes: &[u8]) -> Json {
    match kind {
        "payment2" => told(v2::PaymentPayload::from_header(bytes), |m| Some(&m.payload)),
        "payment1" => told(v1::PaymentPayload::from_header(bytes), |m| Some(&m.payload)),
        "challenge2" => told(v2::PaymentRequired::from_header(bytes), |_| None),
        "receipt" => told(SettlementResponse::from_header(bytes), |_| None),
        "challenge1" => told(v1::PaymentRequired::parse(bytes), |_| None),
        "request" => told(PaymentRequest::parse(bytes), |m| Some(m.scheme_payload())),
        "verify" => told(VerifyResponse::parse(bytes), |_| None),
        "settle" => told(SettleResponse::parse(bytes), |_| None),
        "supported" => told(SupportedResponse::parse(bytes), |_| None),
        other => panic!("no kind is named {other}"),
    }
}

fn told<T: Message>(read: Result<T, WireError>, payload: impl Fn(&T) -> Option<&Object>) -> Json {
    let error = |error: &WireError| Json::from(format!("{error:?}"));
    match read {
        Ok(message) => {
            let scheme = payload(&message).map(Payload::parse);
            Object::new()
                .with("ok", true)
                .with("json", message.to_json())
                .with_some(
                    "payload",
                    scheme.as_ref().and_then(|read| read.as_ref().ok()).map(Payload::to_object),
                )
                .with_some("payloadError", scheme.as_ref().and_then(|read| read.as_ref().err()).map(error))
                .into()
        }
        Err(refused) => Object::new()
            .with("ok", false)
            .with("error", error(&refused))
            .with("code", refused.code().as_str())
            .into(),
    }
}

/// The `n`th message that follows from `seed`.
pub fn message(kind: &str, seed: u64, n: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    let mut state = seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..8 {
        bytes.extend_from_slice(&mixed(&mut state).to_be_bytes());
    }
    let mut input = Input::new(&bytes);
    let t = templates();
    let template = match kind {
        "payment2" => input.pick(&t.payments[..t.payments.len() - 2]),
        "payment1" => input.pick(&t.payments[t.payments.len() - 2..]),
        "challenge2" => input.pick(&t.challenges[..t.challenges.len() - 1]),
        "challenge1" => &t.challenges[t.challenges.len() - 1],
        "receipt" | "settle" => input.pick(&t.receipts),
        "request" => input.pick(&t.requests),
        "verify" => input.pick(&t.answers[..3]),
        _ => &t.answers[3],
    };
    // A change takes up to a dozen bytes, so this is from none to three of them.
    let changes = usize::from(input.byte() % 4);
    let script = input.take(changes * 5);
    let json = edit(template.clone(), &mut Input::new(script)).to_string();
    let text = if input.byte().is_multiple_of(8) { misprinted(json, &mut input) } else { json.into_bytes() };
    let is_header = KINDS[..4].contains(&kind);
    if !is_header {
        return text;
    }
    let mut value = base64_of(&text);
    match input.byte() % 32 {
        0 => value.truncate(value.trim_end_matches('=').len()),
        1 => value.push('='),
        2 => value = value.replace('+', "-").replace('/', "_"),
        3 => value.truncate(value.len().saturating_sub(usize::from(input.byte() % 4))),
        4 => value.insert(value.len() / 2, ' '),
        _ => {}
    }
    value.into_bytes()
}

/// A text with a byte changed, taken out or put in.
fn misprinted(text: String, input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    let at = usize::from(input.u16()) % (bytes.len() + 1);
    let out = usize::from(input.byte() % 2).min(bytes.len() - at);
    let with =
        [&b"\""[..], b",", b"}", b"{", b"[", b"0", b" ", b"\\", b"\\u0041", b"\n", b"\xff", b"-", b".", b""];
    bytes.splice(at..at + out, input.pick(&with).iter().copied());
    bytes
}

fn base64_of(text: &[u8]) -> String {
    // A JSON text goes through our own printer of headers; what is none, around it.
    const ROOMY: farthing_wire::Limits = header::BODY_LIMITS;
    match parse(text, ROOMY) {
        Ok(json) if json.to_string().as_bytes() == text => header::encode(&json),
        _ => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(text)
        }
    }
}

/// SplitMix64.
fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
