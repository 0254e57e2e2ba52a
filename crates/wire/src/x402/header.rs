//! The headers of the HTTP transport: their names, their base64 and their bounds.
//!
//! Spec: x402 v1 and v2, transports/http.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::WireError;
use crate::json::{self, Json, Limits};

/// v1, client to server: the payment.
pub const X_PAYMENT: &str = "x-payment";
/// v1, server to client: the receipt.
pub const X_PAYMENT_RESPONSE: &str = "x-payment-response";
/// v2, server to client: the challenge.
pub const PAYMENT_REQUIRED: &str = "payment-required";
/// v2, client to server: the payment.
pub const PAYMENT_SIGNATURE: &str = "payment-signature";
/// v2, server to client: the receipt.
pub const PAYMENT_RESPONSE: &str = "payment-response";
/// v2, facilitator to server: what extensions have to say. Never passed on to the buyer.
pub const EXTENSION_RESPONSES: &str = "extension-responses";
/// v2, handler to gateway: the amount to settle. Never passed on to the buyer.
pub const SETTLEMENT_OVERRIDES: &str = "settlement-overrides";
/// v2 extension `sign-in-with-x`, client to server: a signed login.
pub const SIGN_IN_WITH_X: &str = "sign-in-with-x";

/// The longest payment header that we read, in bytes. An EIP-3009 payment takes about 1 200; one for a smart wallet
/// that is not deployed yet about 4 000.
pub const MAX_PAYMENT_HEADER_BYTES: usize = 16 * 1024;
/// The longest challenge or receipt header that we read, in bytes. Discovery extensions carry whole JSON schemas.
pub const MAX_ANSWER_HEADER_BYTES: usize = 64 * 1024;
/// The longest body of a message (a v1 challenge, a facilitator's request or answer), in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// What reading a payment header may cost.
pub const PAYMENT_LIMITS: Limits = Limits { bytes: MAX_PAYMENT_HEADER_BYTES, values: 1024, members: 64 };
/// What reading a challenge or receipt header may cost.
pub const ANSWER_LIMITS: Limits = Limits { bytes: MAX_ANSWER_HEADER_BYTES, values: 8192, members: 256 };
/// What reading a body may cost.
pub const BODY_LIMITS: Limits = Limits { bytes: MAX_BODY_BYTES, values: 16_384, members: 256 };

/// The standard alphabet; padding is written, and optional when read. Bits that no byte uses must be zero, so that
/// one text has at most two spellings.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a header's base64 JSON; `limits.bytes` bounds the header itself, hence also the text in it.
///
/// # Errors
/// [`WireError::HeaderTooLong`], [`WireError::NotBase64`] (also for base64url, blanks and partial padding) or
/// [`WireError::Json`].
pub fn decode(value: &[u8], limits: Limits) -> Result<Json, WireError> {
    if value.len() > limits.bytes {
        return Err(WireError::HeaderTooLong { limit: limits.bytes });
    }
    // The published packages refuse a header that is padded in part; the library would take it.
    if value.ends_with(b"=") && !value.len().is_multiple_of(4) {
        return Err(WireError::NotBase64);
    }
    let text = BASE64.decode(value).map_err(|_| WireError::NotBase64)?;
    Ok(json::parse(&text, limits)?)
}

/// Prints JSON as a header's value.
pub fn encode(json: &Json) -> String {
    BASE64.encode(json.to_string())
}
