//! Extensions: what a server announces beside the price, and what a client must echo of it.
//!
//! Spec: x402 v2 section 5.1.2 (`Extensions`) and specs/extensions.

use farthing_primitives::Address;

use super::exact_evm::{read_signature, signature_text};
use super::{WireError, fields};
use crate::{Json, Object, Uint256};

pub const PAYMENT_IDENTIFIER: &str = "payment-identifier";
pub const EIP2612_GAS_SPONSORING: &str = "eip2612GasSponsoring";
pub const ERC20_APPROVAL_GAS_SPONSORING: &str = "erc20ApprovalGasSponsoring";
pub const BAZAAR: &str = "bazaar";
pub const SIGN_IN_WITH_X: &str = "sign-in-with-x";
pub const OFFER_RECEIPT: &str = "offer-receipt";
pub const BUILDER_CODE: &str = "builder-code";

/// How many extensions one message may carry.
pub const MAX_EXTENSIONS: usize = 32;
/// Spec: payment-identifier, "`id` format".
pub const MIN_PAYMENT_ID_CHARS: usize = 16;
pub const MAX_PAYMENT_ID_CHARS: usize = 128;

/// Extensions by their name, each `{info, schema}`. Those without a type of their own are carried as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions(Object);

/// The client changed what the server announced. Its code on the wire is `extension_echo_mismatch`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("extension {extension:?} does not come back as it was announced")]
pub struct EchoMismatch {
    pub extension: String,
}

/// Spec: extensions/payment_identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentIdentifier {
    /// Whether the server insists on an id.
    pub required: bool,
    /// The client's idempotency key.
    pub id: Option<String>,
}

/// A signed EIP-2612 permit that lets Permit2 pull the token, for the facilitator to submit.
///
/// Spec: extensions/eip2612_gas_sponsoring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eip2612GasSponsoring {
    pub from: Address,
    pub asset: Address,
    pub spender: Address,
    /// An allowance, not a payment: usually all that 256 bits hold.
    pub amount: Uint256,
    pub nonce: Uint256,
    pub deadline: Uint256,
    pub signature: Vec<u8>,
    pub version: String,
}

impl Extensions {
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn from_object(object: Object) -> Result<Self, WireError> {
        if object.len() > MAX_EXTENSIONS {
            return Err(WireError::TooMany { field: "extensions", limit: MAX_EXTENSIONS });
        }
        Ok(Self(object))
    }

    pub fn to_json(&self) -> Json {
        self.0.clone().into()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter()
    }

    /// Announces an extension, or replaces it.
    pub fn insert(&mut self, name: impl Into<String>, info: Object, schema: Object) {
        self.0.insert(name, Object::new().with("info", info).with("schema", schema));
    }

    /// Announces that a client may, or must, name its payment: a server's idempotency key.
    ///
    /// Spec: extensions/payment_identifier.
    pub fn announce_payment_identifier(&mut self, required: bool) {
        let id = schema_of("string")
            .with("minLength", count(MIN_PAYMENT_ID_CHARS))
            .with("maxLength", count(MAX_PAYMENT_ID_CHARS))
            .with("pattern", "^[a-zA-Z0-9_-]+$");
        let properties = Object::new().with("required", schema_of("boolean")).with("id", id);
        let schema = object_schema(properties, &["required"]);
        self.insert(PAYMENT_IDENTIFIER, Object::new().with("required", required), schema);
    }

    /// Announces that the facilitator submits an EIP-2612 permit for Permit2, so that the payer needs no gas.
    ///
    /// Spec: extensions/eip2612_gas_sponsoring.
    pub fn announce_eip2612_gas_sponsoring(&mut self) {
        const FIELDS: [(&str, &str); 8] = [
            ("from", "^0x[a-fA-F0-9]{40}$"),
            ("asset", "^0x[a-fA-F0-9]{40}$"),
            ("spender", "^0x[a-fA-F0-9]{40}$"),
            ("amount", "^[0-9]+$"),
            ("nonce", "^[0-9]+$"),
            ("deadline", "^[0-9]+$"),
            ("signature", "^0x[a-fA-F0-9]+$"),
            ("version", "^[0-9]+(\\.[0-9]+)*$"),
        ];
        let text = |pattern| schema_of("string").with("pattern", pattern);
        let properties = FIELDS.into_iter().map(|(name, pattern)| (name, text(pattern))).collect();
        self.insert(
            EIP2612_GAS_SPONSORING,
            Eip2612GasSponsoring::announcement(),
            object_schema(properties, &FIELDS.map(|(name, _)| name)),
        );
    }

    /// The `info` of an extension; the whole value where it has no such member.
    pub fn info(&self, name: &str) -> Option<&Json> {
        self.0.get(name).map(info_of)
    }

    /// Adds to the `info` of an extension that the server announced, as a client may.
    ///
    /// # Errors
    /// [`EchoMismatch`] if the server did not announce it, or wrote something else under one of these keys.
    pub fn answer(&mut self, name: &str, additions: Object) -> Result<(), EchoMismatch> {
        let refuse = || EchoMismatch { extension: name.to_owned() };
        let mut extension = self.0.get(name).and_then(Json::as_object).ok_or_else(refuse)?.clone();
        let mut info = match extension.get("info") {
            None => Object::new(),
            Some(info) => info.as_object().ok_or_else(refuse)?.clone(),
        };
        for (key, value) in additions.iter() {
            if info.get(key).is_some_and(|announced| announced != value) {
                return Err(refuse());
            }
            info.insert(key, value.clone());
        }
        extension.insert("info", info);
        self.0.insert(name, extension);
        Ok(())
    }

    /// Checks what a client sent back: it may leave extensions out and add to their `info`, but what it echoes must
    /// hold all that `self` announced. Extensions that we did not announce are none of our business, except for
    /// what only a server may say.
    ///
    /// Spec: v2 section 5.1.2: the client "cannot delete or overwrite existing info".
    pub fn check_echo(&self, echoed: &Self) -> Result<(), EchoMismatch> {
        for (name, theirs) in echoed.0.iter() {
            let (ours, theirs) = (self.info(name), info_of(theirs));
            let kept = match name {
                BUILDER_CODE => builder_code_kept(ours, theirs),
                _ => ours.is_none_or(|ours| ours.is_subset_of(theirs)),
            };
            if !kept {
                return Err(EchoMismatch { extension: name.to_owned() });
            }
        }
        Ok(())
    }

    /// The `payment-identifier` extension, if it is there.
    ///
    /// # Errors
    /// [`WireError`] if it is there and not of its form.
    pub fn payment_identifier(&self) -> Result<Option<PaymentIdentifier>, WireError> {
        let Some(info) = self.info(PAYMENT_IDENTIFIER) else { return Ok(None) };
        let wrong = WireError::WrongType { field: PAYMENT_IDENTIFIER, expected: "an object" };
        let info = info.as_object().ok_or(wrong)?;
        let required = match info.get("required") {
            // Spec: payment-identifier, "`required` field": false by default.
            None | Some(Json::Null) => false,
            Some(Json::Bool(required)) => *required,
            Some(_) => return Err(WireError::WrongType { field: "required", expected: "true or false" }),
        };
        let id = match info.get("id") {
            None | Some(Json::Null) => None,
            Some(_) => Some(payment_id(fields::text(info, "id")?)?.to_owned()),
        };
        Ok(Some(PaymentIdentifier { required, id }))
    }

    /// The signed permit of the `eip2612GasSponsoring` extension; `None` if the extension is absent or only
    /// announced.
    pub fn eip2612_gas_sponsoring(&self) -> Result<Option<Eip2612GasSponsoring>, WireError> {
        let Some(info) = self.info(EIP2612_GAS_SPONSORING) else { return Ok(None) };
        let wrong = WireError::WrongType { field: EIP2612_GAS_SPONSORING, expected: "an object" };
        let info = info.as_object().ok_or(wrong)?;
        if !info.contains_key("signature") && !info.contains_key("from") {
            return Ok(None);
        }
        Eip2612GasSponsoring::from_info(info).map(Some)
    }
}

/// Checks the client's idempotency key.
///
/// Spec: payment-identifier, "`id` format".
pub fn payment_id(id: &str) -> Result<&str, WireError> {
    if id.len() > MAX_PAYMENT_ID_CHARS {
        return Err(WireError::TooMany { field: "id", limit: MAX_PAYMENT_ID_CHARS });
    }
    if id.len() < MIN_PAYMENT_ID_CHARS {
        return Err(WireError::WrongLength { field: "id", bytes: MIN_PAYMENT_ID_CHARS });
    }
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(WireError::BadCharacters { field: "id" });
    }
    Ok(id)
}

impl Eip2612GasSponsoring {
    fn from_info(info: &Object) -> Result<Self, WireError> {
        let address = |field| super::exact_evm::address(info, field);
        let number = |field| super::exact_evm::number(info, field);
        Ok(Self {
            from: address("from")?,
            asset: address("asset")?,
            spender: address("spender")?,
            amount: number("amount")?,
            nonce: number("nonce")?,
            deadline: number("deadline")?,
            signature: read_signature(fields::text(info, "signature")?)?,
            version: fields::text(info, "version")?.to_owned(),
        })
    }

    /// What a client adds to the `info` that the server announced.
    pub fn to_info(&self) -> Object {
        Object::new()
            .with("from", self.from.as_str())
            .with("asset", self.asset.as_str())
            .with("spender", self.spender.as_str())
            .with("amount", self.amount.to_string())
            .with("nonce", self.nonce.to_string())
            .with("deadline", self.deadline.to_string())
            .with("signature", signature_text(&self.signature))
            .with("version", self.version.as_str())
    }

    /// The `info` with which a server announces the extension; see
    /// [`Extensions::announce_eip2612_gas_sponsoring`] for the whole.
    pub fn announcement() -> Object {
        Object::new()
            .with(
                "description",
                "A permit that lets Permit2 pull the token is submitted on the payer's behalf.",
            )
            .with("version", "1")
    }
}

fn schema_of(kind: &str) -> Object {
    Object::new().with("type", kind)
}

fn object_schema(properties: Object, required: &[&str]) -> Object {
    Object::new()
        .with("$schema", "https://json-schema.org/draft/2020-12/schema")
        .with("type", "object")
        .with("properties", properties)
        .with("required", required.iter().map(|name| Json::from(*name)).collect::<Vec<_>>())
}

fn count(count: usize) -> Json {
    Json::from(u64::try_from(count).unwrap_or(u64::MAX))
}

fn info_of(extension: &Json) -> &Json {
    extension.as_object().and_then(|object| object.get("info")).unwrap_or(extension)
}

/// `builder-code` alone has a list that the client may add to (`s`, at most ten) and a member that only a server may
/// write (`a`).
fn builder_code_kept(ours: Option<&Json>, theirs: &Json) -> bool {
    const ADDITIVE: &str = "s";
    const SERVERS_OWN: &str = "a";
    const MAX_SERVICES: usize = 10;
    let announced = |key| ours.and_then(Json::as_object).and_then(|ours| ours.get(key));
    let forged =
        |theirs: &Object| theirs.get(SERVERS_OWN).is_some_and(|app| announced(SERVERS_OWN) != Some(app));
    match (ours, theirs) {
        (_, Json::Object(theirs)) if forged(theirs) => false,
        (None, _) => true,
        (Some(Json::Object(ours)), Json::Object(theirs)) => {
            ours.iter().all(|(key, mine)| match theirs.get(key) {
                Some(other) if key == ADDITIVE => {
                    let (mine, other) = (as_list(mine), as_list(other));
                    other.len() <= MAX_SERVICES && mine.iter().all(|item| other.contains(item))
                }
                Some(other) => mine.is_subset_of(other),
                None => false,
            })
        }
        (Some(ours), theirs) => ours.is_subset_of(theirs),
    }
}

fn as_list(value: &Json) -> &[Json] {
    if let Json::Array(items) = value { items } else { std::slice::from_ref(value) }
}
