use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// The longest name of an approver, in characters.
pub const MAX_NAME_LEN: usize = 64;

/// Whether a name is one that an approver may have: plain lower-case letters, so that no two look alike.
pub fn is_name(text: &str) -> bool {
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-' | b'@');
    (1..=MAX_NAME_LEN).contains(&text.len()) && text.bytes().all(plain)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("an approver's public key is written \"ed25519:\" and 43 characters of base64url")]
    Public,
    #[error("an approver's secret key is written \"ed25519-secret:\" and 43 characters of base64url")]
    Secret,
}

/// Whose word counts. Ed25519 (RFC 8032).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

const PUBLIC: &str = "ed25519:";
const SECRET: &str = "ed25519-secret:";

impl PublicKey {
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = text.strip_prefix(PUBLIC).and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(KeyError::Public)
    }
}

/// The key of somebody who approves. It is theirs, and the wallet never needs it.
pub struct ApproverKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for ApproverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApproverKey of {}", self.public())
    }
}

impl ApproverKey {
    /// From 32 bytes that nobody can foretell.
    ///
    /// # Errors
    /// [`KeyError::Secret`]; none is known for 32 bytes.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Secret)?;
        Ok(Self { seed, pair })
    }

    /// Reads what [`ApproverKey::secret`] gives out.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let bytes = text.trim().strip_prefix(SECRET).and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok());
        Self::from_seed(bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(KeyError::Secret)?)
    }

    /// For a file of its owner alone.
    pub fn secret(&self) -> String {
        format!("{SECRET}{}", URL_SAFE_NO_PAD.encode(self.seed))
    }

    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}
