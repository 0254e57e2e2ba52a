use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::MppError;

/// The longest name of a method or intent, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// The name of a payment method, e.g. `evm`.
///
/// Spec: draft-httpauth-payment-00, "Method Identifier Format": lower-case letters. The published packages also write
/// digits and `:`, `_`, `-` after the first letter; so do we read.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodName(Cow<'static, str>);

/// The name of an intent, e.g. `charge`.
///
/// Spec: draft-httpauth-payment-00, "Intent Identifiers".
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntentName(Cow<'static, str>);

impl MethodName {
    pub const EVM: &'static str = "evm";
    pub const STRIPE: &'static str = "stripe";
    pub const TEMPO: &'static str = "tempo";

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub const fn evm() -> Self {
        Self(Cow::Borrowed(Self::EVM))
    }

    pub const fn stripe() -> Self {
        Self(Cow::Borrowed(Self::STRIPE))
    }
}

impl IntentName {
    pub const CHARGE: &'static str = "charge";
    pub const SESSION: &'static str = "session";
    pub const SUBSCRIPTION: &'static str = "subscription";

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub const fn charge() -> Self {
        Self(Cow::Borrowed(Self::CHARGE))
    }

    pub const fn session() -> Self {
        Self(Cow::Borrowed(Self::SESSION))
    }
}

impl FromStr for MethodName {
    type Err = MppError;

    fn from_str(text: &str) -> Result<Self, MppError> {
        let tail = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b":_-".contains(&b);
        let first = text.bytes().next().ok_or(MppError::empty("method"))?;
        if text.len() > MAX_NAME_BYTES || !first.is_ascii_lowercase() || !text.bytes().all(tail) {
            return Err(MppError::BadForm { field: "method" });
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

impl FromStr for IntentName {
    type Err = MppError;

    fn from_str(text: &str) -> Result<Self, MppError> {
        if text.is_empty() {
            return Err(MppError::empty("intent"));
        }
        if text.len() > MAX_NAME_BYTES || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(MppError::BadForm { field: "intent" });
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

macro_rules! shown_as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
    };
}

shown_as_text!(MethodName);
shown_as_text!(IntentName);
