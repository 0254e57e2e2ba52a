//! Method `tempo`, intent `charge`, as far as a codec goes. Its sessions stay raw.
//!
//! Spec: draft-tempo-charge-00.

use super::evm::{MAX_SPLITS, MAX_TRANSACTION_BYTES, Split, read_splits, splits_json};
use super::{ChargeRequest, MppError};
use crate::x402::exact_evm::{MAX_SIGNATURE_BYTES, bytes32};
use crate::x402::fields::{self, Fields};
use crate::{Json, Object};

/// What a charge on Tempo asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub charge: ChargeRequest,
    /// The drafts contradict each other on the default, so there is none here.
    pub chain_id: Option<u64>,
    pub fee_payer: bool,
    pub splits: Vec<Split>,
    /// `pull`, `push`; empty if the server says nothing.
    pub supported_modes: Vec<String>,
}

/// The proof of a charge on Tempo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargePayload {
    /// A signed transaction to send.
    Transaction(Vec<u8>),
    /// The hash of one that was sent.
    Hash([u8; 32]),
    /// The signature of a zero amount.
    Proof(Vec<u8>),
}

impl Charge {
    pub fn from_request(charge: ChargeRequest) -> Result<Self, MppError> {
        let details = charge.method_details.clone().unwrap_or_default();
        let mut fields = Fields::of(Json::Object(details))?;
        let chain_id = fields.take("chainId").is_some().then_some(());
        let chain_id = match (chain_id, &charge.method_details) {
            (Some(()), Some(details)) => {
                let id = details.get("chainId").and_then(Json::as_u64).filter(|id| *id > 0);
                Some(id.ok_or(MppError::wrong_type("chainId", "a whole number above zero"))?)
            }
            _ => None,
        };
        let fee_payer = match fields.take("feePayer") {
            None => false,
            Some(value) => value.as_bool().ok_or(MppError::wrong_type("feePayer", "true or false"))?,
        };
        let splits = read_splits(fields.optional_array("splits", MAX_SPLITS)?, charge.amount, None)?;
        let modes = fields.optional_array("supportedModes", MAX_SPLITS)?.unwrap_or_default();
        let text = |mode: Json| match mode {
            Json::String(text) => Ok(text),
            _ => Err(MppError::wrong_type("supportedModes", "an array of strings")),
        };
        let supported_modes = modes.into_iter().map(text).collect::<Result<_, _>>()?;
        Ok(Self { charge, chain_id, fee_payer, splits, supported_modes })
    }

    pub fn to_request(&self) -> ChargeRequest {
        let modes: Vec<Json> = self.supported_modes.iter().map(|mode| Json::from(mode.as_str())).collect();
        let details = Object::new()
            .with_some("chainId", self.chain_id)
            .with_some("feePayer", self.fee_payer.then_some(true))
            .with_some("splits", (!self.splits.is_empty()).then(|| splits_json(&self.splits)))
            .with_some("supportedModes", (!modes.is_empty()).then_some(modes));
        let details = (!details.is_empty()).then_some(details);
        ChargeRequest { method_details: details, ..self.charge.clone() }
    }
}

impl ChargePayload {
    pub fn from_object(payload: &Object) -> Result<Self, MppError> {
        let bytes = |limit| super::evm::hex_bytes(payload, "signature", limit);
        match fields::text(payload, "type")? {
            "transaction" => Ok(Self::Transaction(bytes(MAX_TRANSACTION_BYTES)?)),
            "hash" => Ok(Self::Hash(bytes32(payload, "hash")?)),
            "proof" => Ok(Self::Proof(bytes(MAX_SIGNATURE_BYTES)?)),
            _ => Err(MppError::Unknown { field: "type" }),
        }
    }

    pub fn to_object(&self) -> Object {
        let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
        match self {
            Self::Transaction(bytes) => {
                Object::new().with("signature", hex(bytes)).with("type", "transaction")
            }
            Self::Hash(hash) => Object::new().with("hash", hex(hash)).with("type", "hash"),
            Self::Proof(bytes) => Object::new().with("signature", hex(bytes)).with("type", "proof"),
        }
    }
}
