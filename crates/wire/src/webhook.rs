//! Messages that are signed once and sent to whoever listens: what is signed, what with, and what a receiver looks at.
//!
//! Spec: Standard Webhooks 1.0.0.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farthing_primitives::Timestamp;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The headers of a message.
pub const ID: &str = "webhook-id";
pub const TIMESTAMP: &str = "webhook-timestamp";
pub const SIGNATURE: &str = "webhook-signature";

/// How far a message's time may be from ours, both ways. Spec: "Verifying webhook authenticity".
pub const WINDOW: Duration = Duration::from_secs(300);

/// Spec: "Signature scheme": a secret has 24 to 64 bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const SECRET_PREFIX: &str = "whsec_";
/// The longest id of a message, in bytes.
pub const MAX_ID_BYTES: usize = 256;
/// The longest header with signatures, in bytes, and how many of them are looked at.
pub const MAX_SIGNATURES_BYTES: usize = 4 * 1024;
pub const MAX_SIGNATURES: usize = 16;

/// Why a text is no secret. It is not said what is wrong with it, since that would say something of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is \"whsec_\" and 24 to 64 bytes in base64")]
pub struct SecretError;

/// What both sides of a webhook know. Wiped from memory when it goes.
pub struct Secret(Zeroizing<Vec<u8>>);

/// Shows nothing of it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Spec: "Signature scheme": `whsec_` and base64.
    ///
    /// # Errors
    /// [`SecretError`], also where it is too short or too long.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = text.trim().strip_prefix(SECRET_PREFIX).and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.map(Zeroizing::new).filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
        bytes.map(Self).ok_or(SecretError)
    }

    /// The header that says that we signed this.
    ///
    /// Spec: "Signature scheme": `v1` is HMAC-SHA256.
    pub fn sign(&self, id: &str, secs: u64, body: &[u8]) -> String {
        // INVARIANT: HMAC takes keys of any length; were it not so, the message would have no signature, and be refused.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(&signed(id, &secs.to_string(), body));
        shown("v1", &mac.finalize().into_bytes())
    }

    /// Whether this secret signed it, in constant time.
    fn has_signed(&self, content: &[u8], mac: &[u8]) -> bool {
        Hmac::<Sha256>::new_from_slice(&self.0).is_ok_and(|mut own| {
            own.update(content);
            own.verify_slice(mac).is_ok()
        })
    }
}

/// What is signed: id, time and body, with full stops between them. Spec: "Signature scheme".
pub fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    let mut content = format!("{id}.{timestamp}.").into_bytes();
    content.extend_from_slice(body);
    content
}

/// A signature as its header has it: `v1` for HMAC-SHA256, `v1a` for Ed25519.
pub fn shown(version: &str, signature: &[u8]) -> String {
    format!("{version},{}", STANDARD.encode(signature))
}

/// Why a message is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("a message has one webhook-id, one webhook-timestamp and one webhook-signature")]
    Malformed,
    #[error("the message is from another time")]
    Time,
}

/// What a message shows of itself before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    id: String,
    timestamp: String,
    signatures: String,
}

impl Headers {
    /// The three headers, each of which is there once.
    ///
    /// # Errors
    /// [`HeaderError`], also if the message is further away than [`WINDOW`].
    pub fn read(id: &str, timestamp: &str, signatures: &str, now: Timestamp) -> Result<Self, HeaderError> {
        // A full stop ends it in what is signed: with one in it, two messages could be signed alike.
        let plain = |b: u8| b.is_ascii_graphic() && b != b'.';
        if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(plain) {
            return Err(HeaderError::Malformed);
        }
        let is_number = (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
        let sent: u64 = timestamp.parse().ok().filter(|_| is_number).ok_or(HeaderError::Malformed)?;
        if signatures.len() > MAX_SIGNATURES_BYTES {
            return Err(HeaderError::Malformed);
        }
        if now.secs().abs_diff(sent) > WINDOW.as_secs() {
            return Err(HeaderError::Time);
        }
        let [id, timestamp, signatures] = [id, timestamp, signatures].map(str::to_owned);
        Ok(Self { id, timestamp, signatures })
    }

    /// The same for each time that a message is sent again.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether one of the signatures is the secret's, or one that `is_owners` knows: of what is signed, by Ed25519.
    ///
    /// Spec: "Signature scheme": `v1` is HMAC-SHA256, `v1a` Ed25519; others are for others.
    pub fn is_signed(
        &self,
        body: &[u8],
        secret: Option<&Secret>,
        is_owners: impl Fn(&[u8], &[u8]) -> bool,
    ) -> bool {
        let content = signed(&self.id, &self.timestamp, body);
        self.signatures.split(' ').take(MAX_SIGNATURES).any(|one| {
            let Some((version, encoded)) = one.split_once(',') else { return false };
            let Ok(signature) = STANDARD.decode(encoded) else { return false };
            match version {
                "v1" => secret.is_some_and(|secret| secret.has_signed(&content, &signature)),
                "v1a" => is_owners(&content, &signature),
                _ => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn secret() -> Secret {
        Secret::parse(SECRET).unwrap()
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// The example that the specification's libraries test themselves with.
    #[test]
    fn signatures_are_the_published_ones() {
        let (id, secs, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let published = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(secret().sign(id, secs, body), published);
        let nobody = |_: &[u8], _: &[u8]| false;
        let headers = Headers::read(id, "1614265330", published, at(secs)).unwrap();
        assert!(headers.is_signed(body, Some(&secret()), nobody));
        assert!(!headers.is_signed(body, None, nobody));
        assert!(!headers.is_signed(br#"{"test": 2432232315}"#, Some(&secret()), nobody));
        // Of the same tests: one signature among others of other kinds, and none that is whole.
        let among = format!(
            "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,Ceo5qEr07ixe2NLpvHk3FH9bwy {published}"
        );
        let headers = Headers::read(id, "1614265330", &among, at(secs)).unwrap();
        assert!(headers.is_signed(body, Some(&secret()), nobody));
        for partial in ["v1,", "v1", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] {
            let headers = Headers::read(id, "1614265330", partial, at(secs)).unwrap();
            assert!(!headers.is_signed(body, Some(&secret()), nobody), "{partial}");
        }
    }

    #[test]
    fn what_is_signed_has_one_reading() {
        let read = |id: &str, timestamp: &str, secs| Headers::read(id, timestamp, "v1,AA==", at(secs)).err();
        assert_eq!(read("a", "1000", 1000), None);
        assert_eq!(read("a", "1000", 700), None);
        assert_eq!(read("a", "1000", 1301), Some(HeaderError::Time));
        assert_eq!(read("a", "1000", 699), Some(HeaderError::Time));
        for id in ["", "a.b", "a b", "\u{e9}", &"x".repeat(MAX_ID_BYTES + 1)] {
            assert_eq!(read(id, "1000", 1000), Some(HeaderError::Malformed), "{id}");
        }
        for timestamp in ["", "-1", "+1000", "1e3", " 1000", "1000.5", "1000000000000000"] {
            assert_eq!(read("a", timestamp, 1000), Some(HeaderError::Malformed), "{timestamp}");
        }
        let long = "x".repeat(MAX_SIGNATURES_BYTES + 1);
        assert_eq!(Headers::read("a", "1000", &long, at(1000)), Err(HeaderError::Malformed));
    }

    #[test]
    fn a_secret_is_one() {
        let of = |n: u8, len| format!("whsec_{}", STANDARD.encode(vec![n; len]));
        for good in [SECRET, &format!("{SECRET}\n"), &of(1, 24), &of(1, 64)] {
            assert!(Secret::parse(good).is_ok(), "{good}");
        }
        for wrong in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!", &of(1, 23), &of(1, 65)] {
            assert_eq!(Secret::parse(wrong).err(), Some(SecretError), "{wrong}");
        }
        assert!(!format!("{:?}", secret()).contains("MfKQ"));
    }
}
