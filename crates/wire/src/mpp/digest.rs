use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use super::MppError;

/// What both spellings of a digest start with.
pub(super) const PREFIX: &str = "sha-256=";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The SHA-256 of a request's body, to which a challenge may be bound.
///
/// Spec: draft-httpauth-payment-00, "Request Body Digest Binding", writes it as RFC 9530 does, `sha-256=:…:`; the
/// published package writes and compares `sha-256=…`. Both are read, with and without padding, and the latter is
/// written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyDigest([u8; 32]);

impl BodyDigest {
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    /// For whoever hashes a body as it streams by.
    pub const fn from_bytes(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl FromStr for BodyDigest {
    type Err = MppError;

    fn from_str(text: &str) -> Result<Self, MppError> {
        let bad = MppError::BadForm { field: "digest" };
        let value = text.strip_prefix(PREFIX).ok_or(bad.clone())?;
        let value = match value.strip_prefix(':') {
            Some(rest) => rest.strip_suffix(':').ok_or(bad.clone())?,
            None => value,
        };
        let bytes = BASE64.decode(value).map_err(|_| bad.clone())?;
        Ok(Self(bytes.try_into().map_err(|_| bad)?))
    }
}

impl fmt::Display for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
