//! base64url without padding, and nothing looser.
//!
//! Spec: RFC 4648 section 5; draft-httpauth-payment-00: "padding characters MUST NOT be included".

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::MppError;
use crate::Object;
use crate::json::{self, Json, Limits};

/// Reads base64url. Padding, the standard alphabet's `+` and `/`, blanks and bits that no byte uses are refused, so
/// that one value has one spelling.
///
/// # Errors
/// [`MppError::TooLong`] beyond `limit` bytes of text, else [`MppError::NotBase64Url`] with the name `field`.
pub fn decode(text: &[u8], limit: usize, field: &'static str) -> Result<Vec<u8>, MppError> {
    if text.len() > limit {
        return Err(MppError::TooLong { limit });
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| MppError::NotBase64Url { field })
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url of a JSON object.
pub(super) fn decode_object(text: &[u8], limits: Limits, field: &'static str) -> Result<Object, MppError> {
    let bytes = decode(text, limits.bytes, field)?;
    match json::parse(&bytes, limits)? {
        Json::Object(object) => Ok(object),
        _ => Err(MppError::wrong_type(field, "an object")),
    }
}
