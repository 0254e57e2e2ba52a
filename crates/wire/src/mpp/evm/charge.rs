use farthing_primitives::{Address, AssetId, Money, Network};

use super::{
    CredentialType, MAX_TRANSACTION_BYTES, PERMIT2, chain, chain_id, credential_types, credential_types_json,
    hex_bytes, hex_text, optional_address, wire_address,
};
use crate::mpp::{ChargeRequest, MppError};
use crate::x402::exact_evm::{Authorization, MAX_SIGNATURE_BYTES, address, bytes32, number};
use crate::x402::fields::{self, Fields};
use crate::x402::{WireAddress, WireError};
use crate::{Json, Object, Uint256};

/// How many recipients a payment may be split among, besides the first.
pub const MAX_SPLITS: usize = 10;
/// The longest memo of a split, in characters.
pub const MAX_MEMO_CHARS: usize = 256;

/// What a charge on an EVM chain asks for.
///
/// Spec: draft-evm-charge-00, "Request Schema".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub network: Network,
    /// All that the client pays, splits included, in atoms of `currency`.
    pub amount: u128,
    pub currency: WireAddress,
    /// Gets what the splits leave.
    pub recipient: WireAddress,
    pub description: Option<String>,
    pub external_id: Option<String>,
    /// What the server takes, the most welcome first. Never empty.
    pub credential_types: Vec<CredentialType>,
    /// The canonical place if the server does not say.
    pub permit2: Option<WireAddress>,
    /// For display. What is signed comes from the asset registry.
    pub decimals: Option<u8>,
    pub splits: Vec<Split>,
}

/// A part of a payment that goes to somebody else.
///
/// Spec: draft-evm-charge-00, "Payment Splits".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// As it was written; on EVM an address.
    pub recipient: String,
    pub amount: u128,
    pub memo: Option<String>,
}

/// The proof of a charge.
///
/// Spec: draft-evm-charge-00, "Credential Schema".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargePayload {
    Permit2 {
        /// One entry for the recipient and one for each split, as in `transfers`. Never empty.
        permitted: Vec<TokenAmount>,
        nonce: Uint256,
        deadline: Uint256,
        transfers: Vec<TransferDetail>,
        /// keccak256 of the challenge's id and realm.
        challenge_hash: [u8; 32],
        /// What the witness says of the merchant's reference; absent and empty mean the same.
        external_id: Option<String>,
        signature: Vec<u8>,
    },
    /// Its nonce is keccak256 of the challenge's id and realm.
    Authorization {
        authorization: Authorization,
        signature: Vec<u8>,
    },
    /// A signed transaction, not yet sent.
    Transaction(Vec<u8>),
    Hash([u8; 32]),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAmount {
    pub token: Address,
    pub amount: u128,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferDetail {
    pub to: Address,
    pub requested_amount: u128,
}

impl Charge {
    pub fn from_request(charge: &ChargeRequest) -> Result<Self, MppError> {
        let mut fields = Fields::of(Json::Object(charge.details()?.clone()))?;
        let network = chain(&mut fields)?;
        // Spec: draft-evm-charge-00: without a list the server takes transactions, and should take hashes.
        let default = [CredentialType::Transaction, CredentialType::Hash];
        let decimals = fields.take("decimals").map(|value| {
            let value = value.as_u64().and_then(|value| u8::try_from(value).ok());
            value.ok_or(MppError::wrong_type("decimals", "a whole number below 256"))
        });
        let recipient = charge.recipient.as_deref().ok_or(MppError::missing("recipient"))?;
        Ok(Self {
            amount: charge.amount,
            currency: wire_address(&network, &charge.currency, "currency")?,
            recipient: wire_address(&network, recipient, "recipient")?,
            description: charge.description.clone(),
            external_id: charge.external_id.clone(),
            credential_types: credential_types(&mut fields, &default)?,
            permit2: optional_address(&mut fields, &network, "permit2Address")?,
            decimals: decimals.transpose()?,
            splits: read_splits(fields.optional_array("splits", MAX_SPLITS)?, charge.amount, Some(&network))?,
            network,
        })
    }

    pub fn to_request(&self) -> ChargeRequest {
        let details = Object::new()
            .with("chainId", chain_id(&self.network))
            .with("credentialTypes", credential_types_json(&self.credential_types))
            .with_some("decimals", self.decimals.map(u64::from))
            .with_some("permit2Address", self.permit2.as_ref().map(WireAddress::as_str))
            .with_some("splits", (!self.splits.is_empty()).then(|| splits_json(&self.splits)));
        ChargeRequest {
            recipient: Some(self.recipient.as_str().to_owned()),
            description: self.description.clone(),
            external_id: self.external_id.clone(),
            method_details: Some(details),
            ..ChargeRequest::new(self.amount, self.currency.as_str())
        }
    }

    /// What the client pays in all.
    pub fn money(&self) -> Money {
        Money::new(AssetId::new(self.network.clone(), self.currency.address().clone()), self.amount)
    }

    /// Where Permit2 is to be called.
    pub fn permit2_address(&self) -> &str {
        self.permit2.as_ref().map_or(PERMIT2, WireAddress::as_str)
    }

    /// What the first recipient gets.
    pub fn primary_amount(&self) -> u128 {
        // INVARIANT: the splits were seen to be less than the amount; a charge that breaks this pays nobody.
        self.splits.iter().try_fold(self.amount, |rest, split| rest.checked_sub(split.amount)).unwrap_or(0)
    }
}

/// Reads splits, whose recipients are addresses of `network` if there is one.
pub(in crate::mpp) fn read_splits(
    splits: Option<Vec<Json>>,
    amount: u128,
    network: Option<&Network>,
) -> Result<Vec<Split>, MppError> {
    let Some(splits) = splits else { return Ok(Vec::new()) };
    if splits.is_empty() {
        return Err(MppError::empty("splits"));
    }
    let read = |json: Json| {
        let mut fields = Fields::of(json)?;
        let split = Split {
            recipient: fields.nonempty_string("recipient")?,
            amount: fields.atoms("amount")?,
            memo: fields.optional_string("memo")?,
        };
        if let Some(network) = network {
            wire_address(network, &split.recipient, "recipient")?;
        }
        if split.memo.as_ref().is_some_and(|memo| memo.chars().count() > MAX_MEMO_CHARS) {
            return Err(MppError::too_many("memo", MAX_MEMO_CHARS));
        }
        Ok(split)
    };
    let splits = splits.into_iter().map(read).collect::<Result<Vec<_>, MppError>>()?;
    // Spec: draft-evm-charge-00, "Payment Splits": their sum is strictly less than the amount.
    let sum = splits.iter().try_fold(0u128, |sum, split| sum.checked_add(split.amount));
    if sum.is_some_and(|sum| sum < amount) { Ok(splits) } else { Err(MppError::Splits) }
}

pub(in crate::mpp) fn splits_json(splits: &[Split]) -> Vec<Json> {
    let print = |split: &Split| {
        Json::from(
            Object::new()
                .with("recipient", split.recipient.as_str())
                .with("amount", split.amount.to_string())
                .with_some("memo", split.memo.as_deref()),
        )
    };
    splits.iter().map(print).collect()
}

impl ChargePayload {
    /// # Errors
    /// [`MppError::Unknown`] for a type that we do not have; else what is wrong with it.
    pub fn from_object(payload: &Object) -> Result<Self, MppError> {
        let signature = || hex_bytes(payload, "signature", MAX_SIGNATURE_BYTES);
        match CredentialType::named(fields::text(payload, "type")?) {
            Some(CredentialType::Permit2) => permit2(payload, signature()?),
            Some(CredentialType::Authorization) => Ok(Self::Authorization {
                authorization: Authorization::parse(payload)?,
                signature: signature()?,
            }),
            Some(CredentialType::Transaction) => {
                Ok(Self::Transaction(hex_bytes(payload, "signature", MAX_TRANSACTION_BYTES)?))
            }
            Some(CredentialType::Hash) => Ok(Self::Hash(bytes32(payload, "hash")?)),
            None => Err(MppError::Unknown { field: "type" }),
        }
    }

    pub fn credential_type(&self) -> CredentialType {
        match self {
            Self::Permit2 { .. } => CredentialType::Permit2,
            Self::Authorization { .. } => CredentialType::Authorization,
            Self::Transaction(_) => CredentialType::Transaction,
            Self::Hash(_) => CredentialType::Hash,
        }
    }

    pub fn to_object(&self) -> Object {
        let kind = self.credential_type().as_str();
        match self {
            Self::Permit2 {
                permitted,
                nonce,
                deadline,
                transfers,
                challenge_hash,
                external_id,
                signature,
            } => {
                let token = |entry: &TokenAmount| Json::from(entry.to_object());
                let permit = Object::new()
                    .with("permitted", permitted.iter().map(token).collect::<Vec<_>>())
                    .with("nonce", nonce.to_string())
                    .with("deadline", deadline.to_string());
                let detail = |transfer: &TransferDetail| {
                    let amount = transfer.requested_amount.to_string();
                    Json::from(Object::new().with("to", transfer.to.as_str()).with("requestedAmount", amount))
                };
                let witness = Object::new()
                    .with("challengeHash", hex_text(challenge_hash))
                    .with_some("externalId", external_id.as_deref());
                Object::new()
                    .with("type", kind)
                    .with("permit", permit)
                    .with("transferDetails", transfers.iter().map(detail).collect::<Vec<_>>())
                    .with("witness", witness)
                    .with("signature", hex_text(signature))
            }
            Self::Authorization { authorization, signature } => {
                let mut object = Object::new().with("type", kind);
                object.append(&authorization.to_object());
                object.with("signature", hex_text(signature))
            }
            Self::Transaction(bytes) => Object::new().with("signature", hex_text(bytes)).with("type", kind),
            Self::Hash(hash) => Object::new().with("hash", hex_text(hash)).with("type", kind),
        }
    }
}

impl TokenAmount {
    pub(super) fn from_object(object: &Object) -> Result<Self, MppError> {
        Ok(Self {
            token: address(object, "token")?,
            amount: fields::atoms(fields::text(object, "amount")?, "amount")?,
        })
    }

    pub(super) fn to_object(&self) -> Object {
        Object::new().with("token", self.token.as_str()).with("amount", self.amount.to_string())
    }
}

fn permit2(payload: &Object, signature: Vec<u8>) -> Result<ChargePayload, MppError> {
    let permit = fields::object(payload, "permit")?;
    let witness = fields::object(payload, "witness")?;
    let permitted = objects(permit, "permitted")?
        .into_iter()
        .map(TokenAmount::from_object)
        .collect::<Result<Vec<_>, MppError>>()?;
    let detail = |object: &Object| {
        let amount = fields::text(object, "requestedAmount")?;
        let requested_amount = fields::atoms(amount, "requestedAmount")?;
        Ok::<_, MppError>(TransferDetail { to: address(object, "to")?, requested_amount })
    };
    let transfers =
        objects(payload, "transferDetails")?.into_iter().map(detail).collect::<Result<Vec<_>, _>>()?;
    // Spec: draft-evm-charge-00, "Transfer Details": as many as there are permissions.
    if transfers.len() != permitted.len() {
        return Err(MppError::Contradiction { field: "transferDetails", other: "permitted" });
    }
    let external_id = match witness.get("externalId") {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) => Some(text.clone()),
        Some(_) => return Err(MppError::wrong_type("externalId", "a string")),
    };
    Ok(ChargePayload::Permit2 {
        permitted,
        nonce: number(permit, "nonce")?,
        deadline: number(permit, "deadline")?,
        transfers,
        challenge_hash: bytes32(witness, "challengeHash")?,
        external_id,
        signature,
    })
}

/// The objects of an array: at least one, at most one for the recipient and one for each split.
fn objects<'a>(object: &'a Object, field: &'static str) -> Result<Vec<&'a Object>, MppError> {
    let items = match object.get(field) {
        None | Some(Json::Null) => return Err(MppError::missing(field)),
        Some(value) => value.as_array().ok_or(MppError::wrong_type(field, "an array"))?,
    };
    if items.is_empty() {
        return Err(MppError::empty(field));
    }
    if items.len() > MAX_SPLITS + 1 {
        return Err(MppError::too_many(field, MAX_SPLITS + 1));
    }
    let all: Option<Vec<&Object>> = items.iter().map(Json::as_object).collect();
    all.ok_or(MppError::from(WireError::WrongType { field, expected: "an array of objects" }))
}
