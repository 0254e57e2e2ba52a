//! Method `stripe`, intent `charge`: shared payment tokens.
//!
//! Spec: draft-stripe-charge-00.

use super::{ChargeRequest, MppError};
use crate::x402::fields::Fields;
use crate::{Json, Object};

/// How many kinds of payment method one offer may name.
const MAX_METHOD_TYPES: usize = 64;
/// The longest token or reference, in bytes.
const MAX_TOKEN_BYTES: usize = 512;
const TOKEN_PREFIX: &str = "spt_";

/// What a charge by Stripe asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub charge: ChargeRequest,
    /// The seller's Business Network Profile.
    pub network_id: String,
    /// Never empty.
    pub payment_method_types: Vec<String>,
    pub metadata: Option<Object>,
}

/// The proof: a shared payment token, good for one charge.
#[derive(Clone, PartialEq, Eq)]
pub struct ChargePayload {
    pub token: String,
    /// The client's reference. Says nothing about the merchant's.
    pub external_id: Option<String>,
}

impl Charge {
    pub fn from_request(charge: ChargeRequest) -> Result<Self, MppError> {
        let mut fields = Fields::of(Json::Object(charge.details()?.clone()))?;
        let types = fields.array("paymentMethodTypes", MAX_METHOD_TYPES)?;
        let text = |json: Json| match json {
            Json::String(text) => Ok(text),
            _ => Err(MppError::wrong_type("paymentMethodTypes", "an array of strings")),
        };
        let payment_method_types = types.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        if payment_method_types.is_empty() {
            return Err(MppError::empty("paymentMethodTypes"));
        }
        Ok(Self {
            network_id: fields.nonempty_string("networkId")?,
            payment_method_types,
            metadata: fields.optional_object("metadata")?,
            charge,
        })
    }

    /// The request of a challenge, with the details in it.
    pub fn to_request(&self) -> ChargeRequest {
        let types: Vec<Json> =
            self.payment_method_types.iter().map(|kind| Json::from(kind.as_str())).collect();
        let details = Object::new()
            .with("networkId", self.network_id.as_str())
            .with("paymentMethodTypes", types)
            .with_some("metadata", self.metadata.clone());
        ChargeRequest { method_details: Some(details), ..self.charge.clone() }
    }
}

impl ChargePayload {
    pub fn from_object(payload: &Object) -> Result<Self, MppError> {
        let mut fields = Fields::of(Json::Object(payload.clone()))?;
        let token = fields.nonempty_string("spt")?;
        let external_id = fields.optional_string("externalId")?;
        for (field, text) in [("spt", Some(&token)), ("externalId", external_id.as_ref())] {
            if text.is_some_and(|text| text.len() > MAX_TOKEN_BYTES) {
                return Err(MppError::too_many(field, MAX_TOKEN_BYTES));
            }
        }
        // Spec: draft-stripe-charge-00, "Credential Schema".
        let tail = token.strip_prefix(TOKEN_PREFIX).ok_or(MppError::BadForm { field: "spt" })?;
        if tail.is_empty() || !tail.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(MppError::BadForm { field: "spt" });
        }
        Ok(Self { token, external_id })
    }

    pub fn to_object(&self) -> Object {
        Object::new().with_some("externalId", self.external_id.as_deref()).with("spt", self.token.as_str())
    }
}

/// Without the token, which is worth money.
impl std::fmt::Debug for ChargePayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChargePayload").field("external_id", &self.external_id).finish_non_exhaustive()
    }
}
