//! What one entry of the log says.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::canonical::{NotCanonical, Value};

/// How long a leaf may be. An entry bundle of the tiles counts in 16 bits, and this keeps 256 of them within 4 MiB.
pub const MAX_LEAF_BYTES: usize = 16 * 1024;
/// How long a salt is.
pub const SALT_BYTES: usize = 32;
/// The version of the form of leaves.
const VERSION: &str = "1";
/// What a commitment begins with in a leaf.
const COMMITMENT_PREFIX: &str = "salted-sha256:";
/// So that no other hash of this program is one of these.
const COMMITMENT_DOMAIN: &[u8] = b"farthing audit commitment v1\n";

/// What a leaf is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Something is about to be signed. Durable before the signature exists.
    Intent,
    /// What became of it.
    Outcome,
    /// An attempt that was not allowed.
    Denied,
    /// Proven to have moved no money, and to be unable to.
    Released,
    /// What the owner allows is another.
    RulesChanged,
    Frozen,
    Unfrozen,
    ApprovalRequested,
    ApprovalGranted,
    ApprovalDenied,
    ApprovalUsed,
    /// The owner took it back.
    ApprovalRevoked,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Intent,
        Self::Outcome,
        Self::Denied,
        Self::Released,
        Self::RulesChanged,
        Self::Frozen,
        Self::Unfrozen,
        Self::ApprovalRequested,
        Self::ApprovalGranted,
        Self::ApprovalDenied,
        Self::ApprovalUsed,
        Self::ApprovalRevoked,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Denied => "denied",
            Self::Released => "released",
            Self::RulesChanged => "rules_changed",
            Self::Frozen => "frozen",
            Self::Unfrozen => "unfrozen",
            Self::ApprovalRequested => "approval_requested",
            Self::ApprovalGranted => "approval_granted",
            Self::ApprovalDenied => "approval_denied",
            Self::ApprovalUsed => "approval_used",
            Self::ApprovalRevoked => "approval_revoked",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub kind: Kind,
    /// The time that the books go by, in milliseconds since 1970.
    pub at_ms: u64,
    /// Everything else that it says, by name.
    pub fields: BTreeMap<String, Value>,
}

/// Why bytes are no leaf, or a leaf cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("the leaf is not canonical: {0}")]
    NotCanonical(#[from] NotCanonical),
    #[error("the leaf is longer than {MAX_LEAF_BYTES} bytes")]
    TooLong,
    #[error("the leaf lacks its version, kind or time, or they are none that are known")]
    Head,
}

impl Leaf {
    pub fn new(kind: Kind, at_ms: u64) -> Self {
        Self { kind, at_ms, fields: BTreeMap::new() }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// The same, if there is a value.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_text()
    }

    /// The bytes that go into the log.
    ///
    /// # Errors
    /// [`LeafError::TooLong`]; [`LeafError::Head`] and [`LeafError::NotCanonical`] for names that nobody could read
    /// back.
    pub fn encode(&self) -> Result<Vec<u8>, LeafError> {
        let mut all = self.fields.clone();
        for (name, value) in [
            ("v", Value::text(VERSION)),
            ("kind", Value::text(self.kind.name())),
            ("at_ms", Value::number(self.at_ms)),
        ] {
            if all.insert(name.to_owned(), value).is_some() {
                return Err(LeafError::Head);
            }
        }
        if all.keys().any(|name| !name.bytes().all(|b| (0x20..0x7f).contains(&b)) || name.is_empty()) {
            return Err(NotCanonical::Name.into());
        }
        let bytes = Value::Object(all).print().into_bytes();
        if bytes.len() > MAX_LEAF_BYTES { Err(LeafError::TooLong) } else { Ok(bytes) }
    }

    /// # Errors
    /// [`LeafError`]: whatever reads prints as exactly these bytes again.
    pub fn read(bytes: &[u8]) -> Result<Self, LeafError> {
        if bytes.len() > MAX_LEAF_BYTES {
            return Err(LeafError::TooLong);
        }
        let Value::Object(mut fields) = Value::read(bytes)? else { return Err(LeafError::Head) };
        let mut take = |name: &str| match fields.remove(name) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(LeafError::Head),
        };
        if take("v")? != VERSION {
            return Err(LeafError::Head);
        }
        let kind = Kind::parse(&take("kind")?).ok_or(LeafError::Head)?;
        let at = take("at_ms")?;
        let at_ms: u64 = at.parse().map_err(|_| LeafError::Head)?;
        if at_ms.to_string() != at {
            return Err(LeafError::Head);
        }
        Ok(Self { kind, at_ms, fields })
    }
}

/// Stands in a leaf for a value that may have to be forgotten: a hash of it with a salt that is kept apart. Who has both
/// can show what was meant; once they are erased nobody can find out by trying, and the log still verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commitment([u8; 32]);

impl Commitment {
    /// SHA-256 over a domain, the name of the field, the salt and the value. The name ends with a zero byte and the salt
    /// has one length, so that no two of these run into each other.
    pub fn to(field: &str, salt: &[u8; SALT_BYTES], value: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(COMMITMENT_DOMAIN);
        hash.update(field.as_bytes());
        hash.update([0]);
        hash.update(salt);
        hash.update(value);
        Self(hash.finalize().into())
    }

    pub fn value(&self) -> Value {
        Value::Text(format!("{COMMITMENT_PREFIX}{}", hex::encode(self.0)))
    }
}

/// What a commitment stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub field: String,
    pub salt: [u8; SALT_BYTES],
    pub value: Vec<u8>,
}

impl Secret {
    pub fn commitment(&self) -> Commitment {
        Commitment::to(&self.field, &self.salt, &self.value)
    }

    /// Whether `leaf` committed to exactly this.
    pub fn opens(&self, leaf: &Leaf) -> bool {
        leaf.fields.get(&self.field) == Some(&self.commitment().value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_reads_back_and_nothing_else_reads_as_it() {
        let leaf = Leaf::new(Kind::Intent, 1_700_000_000_123)
            .with("purchase", Value::text("pur_1"))
            .with("rules", Value::list(["not_frozen"]))
            .with("amount", Value::number(u128::MAX));
        let bytes = leaf.encode().unwrap();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "{\"amount\":\"340282366920938463463374607431768211455\",\"at_ms\":\"1700000000123\",\
             \"kind\":\"intent\",\"purchase\":\"pur_1\",\"rules\":[\"not_frozen\"],\"v\":\"1\"}"
        );
        assert_eq!(Leaf::read(&bytes), Ok(leaf.clone()));
        for (from, to) in [
            ("\"v\":\"1\"", "\"v\":\"2\""),
            ("intent", "intend"),
            ("1700000000123", "01700000000123"),
            ("1700000000123", "+1700000000123"),
            ("1700000000123", "99999999999999999999"),
            ("\"kind\":\"intent\",", ""),
        ] {
            let changed = String::from_utf8(bytes.clone()).unwrap().replace(from, to);
            assert_eq!(Leaf::read(changed.as_bytes()), Err(LeafError::Head), "{to}");
        }
        assert_eq!(leaf.clone().with("kind", Value::text("x")).encode(), Err(LeafError::Head));
        assert_eq!(leaf.clone().with("\u{e9}", Value::text("x")).encode(), Err(NotCanonical::Name.into()));
        let long = leaf.with("url", Value::text("x".repeat(MAX_LEAF_BYTES)));
        assert_eq!(long.encode(), Err(LeafError::TooLong));
        for kind in Kind::ALL {
            assert_eq!(Leaf::read(&Leaf::new(kind, 0).encode().unwrap()).unwrap().kind, kind);
        }
    }

    #[test]
    fn a_commitment_opens_to_one_field_salt_and_value() {
        let secret = Secret { field: "query".to_owned(), salt: [7; SALT_BYTES], value: b"q=1".to_vec() };
        let leaf = Leaf::new(Kind::Intent, 1).with("query", secret.commitment().value());
        assert!(secret.opens(&leaf));
        assert!(!Secret { value: b"q=2".to_vec(), ..secret.clone() }.opens(&leaf));
        assert!(!Secret { salt: [8; SALT_BYTES], ..secret.clone() }.opens(&leaf));
        let moved = Leaf::new(Kind::Intent, 1).with("other", secret.commitment().value());
        assert!(!Secret { field: "other".to_owned(), ..secret }.opens(&moved));
    }
}
