//! What scheme `exact` puts into `payload` on EVM chains.
//!
//! Spec: schemes/exact/scheme_exact_evm. ERC-7710 is in the specification and in no published package; its payloads
//! are [`WireError::UnsupportedPayload`].

use farthing_primitives::Address;

use super::extra::TransferMethod;
use super::{WireError, fields};
use crate::{Object, Uint256};

/// The longest signature, in bytes. A plain one has 65; one for a wallet not deployed yet (ERC-6492) wraps a
/// factory's calldata, usually 700 to 1 500.
pub const MAX_SIGNATURE_BYTES: usize = 4096;

/// A payment by one of the transfer methods that a signature alone can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// `transferWithAuthorization` on the token.
    Eip3009 { signature: Vec<u8>, authorization: Authorization },
    /// `permitWitnessTransferFrom` on Permit2, through the x402 proxy.
    Permit2 { signature: Vec<u8>, authorization: Permit2Authorization },
}

/// What an EIP-3009 signature covers.
///
/// Spec: x402 v2 section 5.2.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    pub from: Address,
    pub to: Address,
    pub value: u128,
    pub valid_after: Uint256,
    pub valid_before: Uint256,
    pub nonce: [u8; 32],
}

/// What a Permit2 signature covers. The spender is the x402 proxy, which pays `witness_to` and nobody else.
///
/// Spec: schemes/exact/scheme_exact_evm section 2, phase 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit2Authorization {
    pub from: Address,
    pub token: Address,
    pub amount: u128,
    pub spender: Address,
    pub nonce: Uint256,
    pub deadline: Uint256,
    pub witness_to: Address,
    pub witness_valid_after: Uint256,
}

impl Payload {
    /// Reads the `payload` of a v1 or v2 payment.
    ///
    /// # Errors
    /// [`WireError`]. [`WireError::BeyondU128`] names a `value` or `amount` that our books cannot hold.
    pub fn parse(payload: &Object) -> Result<Self, WireError> {
        let there = |field| payload.get(field).is_some_and(|value| !value.is_null());
        match (there("authorization"), there("permit2Authorization")) {
            (true, true) => Err(WireError::AmbiguousPayload),
            (false, false) => Err(WireError::UnsupportedPayload),
            (true, false) => Ok(Self::Eip3009 {
                signature: read_signature(fields::text(payload, "signature")?)?,
                authorization: Authorization::parse(fields::object(payload, "authorization")?)?,
            }),
            (false, true) => Ok(Self::Permit2 {
                signature: read_signature(fields::text(payload, "signature")?)?,
                authorization: Permit2Authorization::parse(fields::object(payload, "permit2Authorization")?)?,
            }),
        }
    }

    pub fn to_object(&self) -> Object {
        let (key, authorization, signature) = match self {
            Self::Eip3009 { signature, authorization } => {
                ("authorization", authorization.to_object(), signature)
            }
            Self::Permit2 { signature, authorization } => {
                ("permit2Authorization", authorization.to_object(), signature)
            }
        };
        Object::new().with("signature", signature_text(signature)).with(key, authorization)
    }

    pub fn method(&self) -> TransferMethod {
        match self {
            Self::Eip3009 { .. } => TransferMethod::Eip3009,
            Self::Permit2 { .. } => TransferMethod::Permit2,
        }
    }

    /// Whose money it is.
    pub fn payer(&self) -> &Address {
        match self {
            Self::Eip3009 { authorization, .. } => &authorization.from,
            Self::Permit2 { authorization, .. } => &authorization.from,
        }
    }

    pub fn signature(&self) -> &[u8] {
        match self {
            Self::Eip3009 { signature, .. } | Self::Permit2 { signature, .. } => signature,
        }
    }
}

impl Authorization {
    pub(crate) fn parse(object: &Object) -> Result<Self, WireError> {
        Ok(Self {
            from: address(object, "from")?,
            to: address(object, "to")?,
            value: fields::atoms(fields::text(object, "value")?, "value")?,
            valid_after: number(object, "validAfter")?,
            valid_before: number(object, "validBefore")?,
            nonce: bytes32(object, "nonce")?,
        })
    }

    pub(crate) fn to_object(&self) -> Object {
        Object::new()
            .with("from", self.from.as_str())
            .with("to", self.to.as_str())
            .with("value", self.value.to_string())
            .with("validAfter", self.valid_after.to_string())
            .with("validBefore", self.valid_before.to_string())
            .with("nonce", format!("0x{}", hex::encode(self.nonce)))
    }
}

impl Permit2Authorization {
    fn parse(object: &Object) -> Result<Self, WireError> {
        let permitted = fields::object(object, "permitted")?;
        let witness = fields::object(object, "witness")?;
        Ok(Self {
            from: address(object, "from")?,
            token: address(permitted, "token")?,
            amount: fields::atoms(fields::text(permitted, "amount")?, "amount")?,
            spender: address(object, "spender")?,
            nonce: number(object, "nonce")?,
            deadline: number(object, "deadline")?,
            witness_to: address(witness, "to")?,
            witness_valid_after: number(witness, "validAfter")?,
        })
    }

    fn to_object(&self) -> Object {
        let permitted =
            Object::new().with("token", self.token.as_str()).with("amount", self.amount.to_string());
        let witness = Object::new()
            .with("to", self.witness_to.as_str())
            .with("validAfter", self.witness_valid_after.to_string());
        Object::new()
            .with("from", self.from.as_str())
            .with("permitted", permitted)
            .with("spender", self.spender.as_str())
            .with("nonce", self.nonce.to_string())
            .with("deadline", self.deadline.to_string())
            .with("witness", witness)
    }
}

pub(crate) fn address(object: &Object, field: &'static str) -> Result<Address, WireError> {
    Address::evm(fields::text(object, field)?).map_err(|error| WireError::Address { field, error })
}

pub(crate) fn number(object: &Object, field: &'static str) -> Result<Uint256, WireError> {
    fields::text(object, field)?.parse().map_err(|error| WireError::Uint256 { field, error })
}

pub(crate) fn bytes32(object: &Object, field: &'static str) -> Result<[u8; 32], WireError> {
    let digits = hex_digits(fields::text(object, field)?, field)?;
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return Err(WireError::WrongLength { field, bytes: bytes.len() });
    }
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| WireError::NotHex { field })?;
    Ok(bytes)
}

pub(crate) fn read_signature(text: &str) -> Result<Vec<u8>, WireError> {
    let field = "signature";
    let digits = hex_digits(text, field)?;
    if digits.is_empty() {
        return Err(WireError::Empty { field });
    }
    if digits.len() > 2 * MAX_SIGNATURE_BYTES {
        return Err(WireError::TooMany { field, limit: MAX_SIGNATURE_BYTES });
    }
    hex::decode(digits).map_err(|_| WireError::NotHex { field })
}

pub(crate) fn signature_text(signature: &[u8]) -> String {
    format!("0x{}", hex::encode(signature))
}

pub(crate) fn hex_digits<'a>(text: &'a str, field: &'static str) -> Result<&'a str, WireError> {
    text.strip_prefix("0x").ok_or(WireError::NotHex { field })
}
