use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use crate::Timestamp;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("not an id of the form {expected}_…: {got:?}")]
    Malformed { expected: &'static str, got: String },
}

macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        ///
        /// A UUIDv7 that prints with its prefix, so that two kinds of id cannot be confused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id from the time and 10 random bytes, both supplied by the caller.
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(now.millis(), &random).into_uuid())
            }

            /// The time that it was made from.
            pub fn created(self) -> Timestamp {
                let millis = self.0.as_bytes().iter().take(6).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                Timestamp::from_millis(millis)
            }

            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            pub fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let refuse = || IdError::Malformed { expected: $prefix, got: text.chars().take(64).collect() };
                let digits = text.strip_prefix(concat!($prefix, "_")).ok_or_else(refuse)?;
                // One id has one spelling: 32 lower-case hex digits.
                if digits.len() != 32 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(refuse());
                }
                Uuid::try_parse(digits).map(Self).map_err(|_| refuse())
            }
        }
    };
}

prefixed_id!(
    /// One payment, as its payee's or its facilitator's books know it.
    PaymentId, "pay");
prefixed_id!(
    /// One try to make a payment final on a rail.
    AttemptId, "att");
prefixed_id!(
    /// One relayer slot: a nonce of a key on a chain.
    SlotId, "slot");
prefixed_id!(
    /// One refund of a payment.
    RefundId, "ref");
prefixed_id!(
    /// One purchase, as the buyer's journal knows it.
    PurchaseId, "buy");

/// Whose books a row belongs to. The default tenant is `local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// The longest tenant name, in bytes.
const MAX_TENANT_LEN: usize = 64;

impl TenantId {
    pub fn local() -> Self {
        Self("local".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=MAX_TENANT_LEN).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Malformed { expected: "tenant", got: text.chars().take(64).collect() })
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The SHA-256 of everything in a request that the seller's answer may depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestHash(pub [u8; 32]);

impl fmt::Display for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
