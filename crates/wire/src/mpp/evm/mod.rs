//! Method `evm`: charges and sessions, what is asked and what is shown.
//!
//! Spec: draft-evm-charge-00, draft-evm-session-00.

mod charge;
mod session;

pub use charge::{Charge, ChargePayload, MAX_MEMO_CHARS, MAX_SPLITS, Split, TokenAmount, TransferDetail};
pub(super) use charge::{read_splits, splits_json};
pub use session::{
    ChannelPermit, ChannelWitness, Deposit, DepositFor, Funding, Open, Session, SessionPayload, TopUp,
    Voucher,
};

use farthing_primitives::Network;

use super::MppError;
use crate::x402::exact_evm::hex_digits;
use crate::x402::fields::{self, Fields};
use crate::x402::{WireAddress, WireError};
use crate::{Json, Object};

/// Where Permit2 is on most chains, and where it is taken to be if a challenge does not say.
pub const PERMIT2: &str = "0x000000000022D473030F116dDEE9F6B43aC78BA3";

/// The longest signed transaction that we read, in bytes.
pub const MAX_TRANSACTION_BYTES: usize = 16 * 1024;
/// How many credential types one offer may name.
const MAX_CREDENTIAL_TYPES: usize = 16;

/// How a payment is proven or authorized.
///
/// Spec: draft-evm-charge-00, "Credential Type Negotiation".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialType {
    /// A signature for Permit2, which the server sends.
    Permit2,
    /// An EIP-3009 signature, which the server sends.
    Authorization,
    /// A signed transaction, which the server sends.
    Transaction,
    /// The hash of a transaction that the client sent.
    Hash,
}

impl CredentialType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permit2 => "permit2",
            Self::Authorization => "authorization",
            Self::Transaction => "transaction",
            Self::Hash => "hash",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        [Self::Permit2, Self::Authorization, Self::Transaction, Self::Hash]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// The types that an offer names, in the server's order, without those that we do not know; `default` if it names none.
///
/// # Errors
/// [`MppError::Unknown`] if we know none of them: a buyer passes over the offer.
fn credential_types(
    fields: &mut Fields,
    default: &[CredentialType],
) -> Result<Vec<CredentialType>, MppError> {
    let field = "credentialTypes";
    let Some(named) = fields.optional_array(field, MAX_CREDENTIAL_TYPES)? else {
        return Ok(default.to_vec());
    };
    let mut types = Vec::new();
    for name in &named {
        let name = name.as_str().ok_or(MppError::wrong_type(field, "an array of strings"))?;
        if let Some(kind) = CredentialType::named(name).filter(|kind| !types.contains(kind)) {
            types.push(kind);
        }
    }
    if types.is_empty() { Err(MppError::Unknown { field }) } else { Ok(types) }
}

fn credential_types_json(types: &[CredentialType]) -> Vec<Json> {
    types.iter().map(|kind| Json::from(kind.as_str())).collect()
}

fn chain(fields: &mut Fields) -> Result<Network, MppError> {
    Ok(Network::eip155(fields.positive("chainId")?))
}

/// INVARIANT: networks in these requests are built from a chain's number.
fn chain_id(network: &Network) -> u64 {
    network.evm_chain_id().unwrap_or_default()
}

fn flag(fields: &mut Fields, field: &'static str) -> Result<bool, MppError> {
    match fields.take(field) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or(MppError::wrong_type(field, "true or false")),
    }
}

fn wire_address(network: &Network, text: &str, field: &'static str) -> Result<WireAddress, MppError> {
    Ok(WireAddress::parse(network, text).map_err(|error| WireError::Address { field, error })?)
}

fn optional_address(
    fields: &mut Fields,
    network: &Network,
    field: &'static str,
) -> Result<Option<WireAddress>, MppError> {
    fields.optional_string(field)?.map(|text| wire_address(network, &text, field)).transpose()
}

/// The bytes of a text of `0x` and digits: at least one, at most `limit`.
pub(super) fn hex_bytes(object: &Object, field: &'static str, limit: usize) -> Result<Vec<u8>, MppError> {
    let digits = hex_digits(fields::text(object, field)?, field)?;
    if digits.is_empty() {
        return Err(MppError::empty(field));
    }
    if digits.len() > 2 * limit {
        return Err(MppError::too_many(field, limit));
    }
    Ok(hex::decode(digits).map_err(|_| WireError::NotHex { field })?)
}

fn hex_text(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}
