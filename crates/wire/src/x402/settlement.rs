use farthing_primitives::Network;

use super::fields::Fields;
use super::{ErrorCode, Extensions, Message, WireError};
use crate::{Json, Object};

/// What became of a payment: the receipt header of both versions and the facilitator's answer to `/settle`.
///
/// The network is text, v1 name or CAIP-2: a receipt is read also from peers that name networks we do not know, and
/// a receipt proves nothing by itself.
///
/// Spec: x402 v1 section 5.3, v2 section 5.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementResponse {
    pub success: bool,
    /// Absent if successful.
    pub error_reason: Option<ErrorCode>,
    /// For people. Decides nothing.
    pub error_message: Option<String>,
    pub payer: Option<String>,
    /// The transaction's hash; empty if there is none. A failure may have one: see [`Self::pending`].
    pub transaction: String,
    pub network: String,
    /// What was settled, in atoms, where it may differ from what was asked. Some schemes write an empty text.
    pub amount: Option<String>,
    pub extensions: Option<Object>,
    pub extra: Option<Object>,
    /// Members that this version of ours does not know.
    pub other: Object,
}

impl SettlementResponse {
    /// `network` is the name that the message's version uses.
    pub fn settled(network: &str, transaction: &str, payer: Option<&str>) -> Self {
        Self {
            success: true,
            error_reason: None,
            error_message: None,
            payer: payer.map(str::to_owned),
            transaction: transaction.to_owned(),
            network: network.to_owned(),
            amount: None,
            extensions: None,
            extra: None,
            other: Object::new(),
        }
    }

    /// No money moved.
    pub fn failed(network: &str, reason: ErrorCode, payer: Option<&str>) -> Self {
        Self { success: false, error_reason: Some(reason), ..Self::settled(network, "", payer) }
    }

    /// Sent, and not known to be included: whoever reads this asks again with the same payment and never signs a
    /// second one.
    pub fn pending(network: &str, transaction: &str, payer: Option<&str>) -> Self {
        let reason = Some(ErrorCode::SettlementPending);
        Self { success: false, error_reason: reason, ..Self::settled(network, transaction, payer) }
    }

    /// Whether the money may still move: not a success, and not a failure either.
    pub fn is_pending(&self) -> bool {
        !self.success && self.error_reason == Some(ErrorCode::SettlementPending)
    }

    /// The network, if we know what the text names.
    pub fn parsed_network(&self) -> Option<Network> {
        Network::from_name(&self.network).ok()
    }

    /// The extensions with which a server's receipt answers the buyer, if they have the usual form.
    pub fn typed_extensions(&self) -> Option<Extensions> {
        self.extensions.clone().and_then(|object| Extensions::from_object(object).ok())
    }
}

impl Message for SettlementResponse {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        Ok(Self {
            success: fields.boolean("success")?,
            error_reason: fields.optional_string("errorReason")?.map(ErrorCode::from),
            error_message: fields.optional_string("errorMessage")?,
            payer: fields.optional_string("payer")?,
            // Spec: v2 section 5.3.2 requires it, empty if there is none. Old peers leave it out or write null.
            transaction: fields.optional_string("transaction")?.unwrap_or_default(),
            network: fields.optional_string("network")?.unwrap_or_default(),
            amount: fields.optional_string("amount")?,
            extensions: fields.optional_object("extensions")?,
            extra: fields.optional_object("extra")?,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let mut object = Object::new()
            .with("success", self.success)
            .with_some("errorReason", self.error_reason.as_ref().map(ErrorCode::as_str))
            .with_some("errorMessage", self.error_message.as_deref())
            .with_some("payer", self.payer.as_deref())
            .with("transaction", self.transaction.as_str())
            .with("network", self.network.as_str())
            .with_some("amount", self.amount.as_deref())
            .with_some("extensions", self.extensions.clone())
            .with_some("extra", self.extra.clone());
        object.append(&self.other);
        object.into()
    }
}
