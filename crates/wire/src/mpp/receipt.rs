use super::encoding::{decode_object, encode};
use super::{Challenge, MppError, RECEIPT_LIMITS, WireTime};
use crate::x402::exact_evm::bytes32;
use crate::x402::fields::{self, Fields};
use crate::{Json, Object};

/// What a server says of a payment that it took. It proves nothing by itself.
///
/// Spec: draft-httpauth-payment-00, "Payment-Receipt Header".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub method: String,
    /// A transaction's hash, a channel, a processor's id. Over HTTP always there.
    pub reference: Option<String>,
    pub external_id: Option<String>,
    pub subscription_id: Option<String>,
    pub timestamp: WireTime,
    /// Over JSON-RPC always there.
    pub challenge_id: Option<String>,
    /// Members that methods add. Kept, and printed as they were.
    pub other: Object,
}

/// The receipt of a session: [`Receipt`] with the state of the channel.
///
/// Spec: draft-evm-session-00, "Receipt Generation".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReceipt {
    pub method: String,
    pub timestamp: WireTime,
    pub challenge_id: String,
    pub channel_id: [u8; 32],
    /// The draft demands it on EVM; the published package does not write it.
    pub chain_id: Option<u64>,
    /// The highest voucher that was accepted, in atoms.
    pub accepted_cumulative: u128,
    /// What was charged in all, in atoms.
    pub spent: u128,
    /// The published package counts all units of the channel, the draft those of this request.
    pub units: Option<u64>,
    /// The transaction that settled or closed, if this receipt is about one.
    pub tx_hash: Option<[u8; 32]>,
}

impl Receipt {
    pub fn new(method: impl Into<String>, reference: impl Into<String>, timestamp: WireTime) -> Self {
        Self {
            method: method.into(),
            reference: Some(reference.into()),
            external_id: None,
            subscription_id: None,
            timestamp,
            challenge_id: None,
            other: Object::new(),
        }
    }

    /// Reads the value of `Payment-Receipt`.
    pub fn parse(value: &[u8]) -> Result<Self, MppError> {
        let object = decode_object(value.trim_ascii(), RECEIPT_LIMITS, "receipt")?;
        let receipt = Self::from_json(Json::Object(object))?;
        if receipt.reference.is_none() {
            return Err(MppError::missing("reference"));
        }
        Ok(receipt)
    }

    /// Reads a receipt as JSON-RPC and events carry it, where `reference` may be absent.
    pub fn from_json(json: Json) -> Result<Self, MppError> {
        let mut fields = Fields::of(json)?;
        // Spec: draft-httpauth-payment-00, "Receipt Status Semantics": there are no receipts of failures.
        if fields.string("status")? != "success" {
            return Err(MppError::BadForm { field: "status" });
        }
        Ok(Self {
            method: fields.string("method")?,
            reference: fields.optional_string("reference")?,
            external_id: fields.optional_string("externalId")?,
            subscription_id: fields.optional_string("subscriptionId")?,
            timestamp: WireTime::read(&fields.string("timestamp")?, "timestamp")?,
            challenge_id: fields.optional_string("challengeId")?,
            other: fields.rest(),
        })
    }

    /// The members, in the order of the published package.
    pub fn to_object(&self) -> Object {
        let mut object = Object::new()
            .with("method", self.method.as_str())
            .with_some("reference", self.reference.as_deref())
            .with_some("externalId", self.external_id.as_deref())
            .with_some("subscriptionId", self.subscription_id.as_deref())
            .with("status", "success")
            .with("timestamp", self.timestamp.as_str());
        object.append(&self.other);
        object.with_some("challengeId", self.challenge_id.as_deref())
    }

    /// Prints the value of `Payment-Receipt`.
    pub fn to_header(&self) -> String {
        encode(self.to_object().to_string())
    }

    /// The same, saying which challenge it is about, as JSON-RPC wants it.
    #[must_use]
    pub fn about(mut self, challenge: &Challenge) -> Self {
        self.challenge_id = Some(challenge.id.clone());
        self
    }

    /// The state of the channel, if this is the receipt of a session.
    ///
    /// # Errors
    /// [`MppError`] if it says that it is one and lacks what such a receipt has.
    pub fn session(&self) -> Result<Option<SessionReceipt>, MppError> {
        if self.other.get_str("intent") != Some("session") {
            return Ok(None);
        }
        let atoms = |field| Ok::<_, MppError>(fields::atoms(fields::text(&self.other, field)?, field)?);
        let whole = |field: &'static str| match self.other.get(field) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or(MppError::wrong_type(field, "a whole number")),
        };
        let tx_hash =
            self.other.contains_key("txHash").then(|| bytes32(&self.other, "txHash")).transpose()?;
        Ok(Some(SessionReceipt {
            method: self.method.clone(),
            timestamp: self.timestamp.clone(),
            challenge_id: self.challenge_id.clone().ok_or(MppError::missing("challengeId"))?,
            channel_id: bytes32(&self.other, "channelId")?,
            chain_id: whole("chainId")?,
            accepted_cumulative: atoms("acceptedCumulative")?,
            spent: atoms("spent")?,
            units: whole("units")?,
            tx_hash,
        }))
    }
}

impl SessionReceipt {
    /// Spec: draft-evm-session-00: the reference of a session's receipt is its channel.
    pub fn to_receipt(&self) -> Receipt {
        let channel = hex32(&self.channel_id);
        let other = Object::new()
            .with("intent", "session")
            .with("channelId", channel.as_str())
            .with_some("chainId", self.chain_id)
            .with("acceptedCumulative", self.accepted_cumulative.to_string())
            .with("spent", self.spent.to_string())
            .with_some("units", self.units)
            .with_some("txHash", self.tx_hash.as_ref().map(hex32));
        Receipt {
            challenge_id: Some(self.challenge_id.clone()),
            other,
            ..Receipt::new(self.method.as_str(), channel, self.timestamp.clone())
        }
    }
}

pub(super) fn hex32(bytes: &[u8; 32]) -> String {
    format!("0x{}", hex::encode(bytes))
}
