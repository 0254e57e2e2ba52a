//! ECDSA on secp256k1: recovering who signed, and signing.

use std::fmt;

use alloy_primitives::{Address, B256, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};
use zeroize::{Zeroize, Zeroizing};

/// Half the order of the curve, rounded down. Of the two values of `s` that sign one message, tokens accept the lower.
///
/// Spec: EIP-2, and OpenZeppelin's and Circle's `ECRecover`.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d,
    0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// Why bytes are not the signature of an account's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigError {
    #[error("a signature has 65 bytes, or 64 in its compact form, not {0}")]
    Length(usize),
    #[error("the recovery byte of a signature is 0, 1, 27 or 28, not {0}")]
    RecoveryByte(u8),
    #[error("the signature has the higher of the two values of s")]
    HighS,
    #[error("no key makes this signature")]
    Unrecoverable,
}

/// A signature of an account's key in canonical form: low `s`, and a recovery bit.
///
/// One signature has one form here, however it was spelled; [`Signature::to_bytes`] is what contracts accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
    y_is_odd: bool,
}

impl Signature {
    /// Reads `r ‖ s ‖ v` with `v` in {0, 1, 27, 28}, or the 64 bytes of EIP-2098.
    ///
    /// Tokens take `v` as 27 or 28 only and many know no compact form, so neither is passed on as it came: what
    /// goes into calldata is always [`Signature::to_bytes`]. The digest and the signer stay the same.
    ///
    /// # Errors
    /// [`SigError`]; a high `s` is refused because tokens refuse it.
    pub fn parse(bytes: &[u8]) -> Result<Self, SigError> {
        let (y_is_odd, compact) = match bytes.len() {
            65 => match bytes[64] {
                0 | 27 => (false, false),
                1 | 28 => (true, false),
                other => return Err(SigError::RecoveryByte(other)),
            },
            // Spec: EIP-2098: the top bit of `s` carries the parity.
            64 => (bytes[32] & 0x80 != 0, true),
            other => return Err(SigError::Length(other)),
        };
        let mut r = [0u8; 32];
        let mut s = [0u8; 32];
        r.copy_from_slice(&bytes[..32]);
        s.copy_from_slice(&bytes[32..64]);
        if compact {
            s[0] &= 0x7f;
        }
        if s > HALF_ORDER {
            return Err(SigError::HighS);
        }
        Ok(Self { r, s, y_is_odd })
    }

    /// Whose key made this signature over `digest`.
    pub fn recover(&self, digest: B256) -> Result<Address, SigError> {
        let mut rs = [0u8; 64];
        rs[..32].copy_from_slice(&self.r);
        rs[32..].copy_from_slice(&self.s);
        let id = if self.y_is_odd { RecoveryId::One } else { RecoveryId::Zero };
        let signature = RecoverableSignature::from_compact(&rs, id).map_err(|_| SigError::Unrecoverable)?;
        let key = SECP256K1
            .recover_ecdsa(Message::from_digest(digest.0), &signature)
            .map_err(|_| SigError::Unrecoverable)?;
        Ok(address_of(&key))
    }

    pub fn r(&self) -> B256 {
        self.r.into()
    }

    pub fn s(&self) -> B256 {
        self.s.into()
    }

    /// 27 or 28.
    pub fn v(&self) -> u8 {
        27 + u8::from(self.y_is_odd)
    }

    pub fn y_is_odd(&self) -> bool {
        self.y_is_odd
    }

    /// `r ‖ s ‖ v` with `v` 27 or 28.
    pub fn to_bytes(&self) -> [u8; 65] {
        let mut bytes = [0u8; 65];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..64].copy_from_slice(&self.s);
        bytes[64] = self.v();
        bytes
    }
}

/// Whose key signed `digest`, for a signature in any of the forms that [`Signature::parse`] reads.
pub fn recover(digest: B256, signature: &[u8]) -> Result<Address, SigError> {
    Signature::parse(signature)?.recover(digest)
}

/// Why bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key is 32 bytes, in hex with or without 0x")]
    Malformed,
    #[error("the number is not a key: it is zero, or not below the order of the curve")]
    OutOfRange,
}

/// A signing key. It cannot be printed, compared, copied or serialized, and is erased when dropped.
pub struct Key {
    secret: SecretKey,
    address: Address,
}

impl Key {
    /// Takes the 32 bytes of a key; our copy of them is erased.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Result<Self, KeyError> {
        let secret = SecretKey::from_byte_array(bytes).map_err(|_| KeyError::OutOfRange);
        bytes.zeroize();
        let secret = secret?;
        let address = address_of(&secret.public_key(SECP256K1));
        Ok(Self { secret, address })
    }

    /// Reads 64 hex digits, with or without `0x`. The error says nothing of what was read.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(KeyError::Malformed);
        }
        let mut bytes = Zeroizing::new([0u8; 32]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| char::from(d).to_digit(16).and_then(|n| u8::try_from(n).ok());
            *byte = digit(pair[0])
                .zip(digit(pair[1]))
                .map(|(high, low)| high << 4 | low)
                .ok_or(KeyError::Malformed)?;
        }
        Self::from_bytes(*bytes)
    }

    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a digest. The same key and digest give the same signature, with a low `s`.
    ///
    /// Spec: RFC 6979.
    pub fn sign(&self, digest: B256) -> Signature {
        let signature = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), &self.secret);
        let (id, rs) = signature.serialize_compact();
        let mut r = [0u8; 32];
        let mut s = [0u8; 32];
        r.copy_from_slice(&rs[..32]);
        s.copy_from_slice(&rs[32..]);
        Signature { r, s, y_is_odd: matches!(id, RecoveryId::One | RecoveryId::Three) }
    }

    /// The secret itself, for a keystore to encrypt and for nothing else; the caller erases it.
    pub fn expose_secret(&self) -> [u8; 32] {
        self.secret.secret_bytes()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key of {}", self.address)
    }
}

pub(crate) fn address_of(key: &PublicKey) -> Address {
    let uncompressed = key.serialize_uncompressed();
    let hash = keccak256(&uncompressed[1..]);
    Address::from_slice(&hash[12..])
}
