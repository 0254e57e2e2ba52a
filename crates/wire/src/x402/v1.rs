//! Version 1: the challenge is a body, networks go by name, and a payment does not say which offer it takes.
//!
//! Spec: x402-specification-v1 section 5.

use farthing_primitives::{AssetId, Money, Network, NetworkError};

pub use super::SettlementResponse;
use super::fields::Fields;
use super::v2::{MAX_ACCEPTS, read_offers};
use super::{Message, WireAddress, WireError, header};
use crate::{Json, Limits, Object};

pub const VERSION: u64 = 1;

/// A network that version 1 has a name for, e.g. `base-sepolia`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedNetwork {
    network: Network,
    name: &'static str,
}

/// The challenge.
///
/// Spec: v1 section 5.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRequired {
    pub error: Option<String>,
    /// Never empty.
    pub accepts: Vec<PaymentRequirements>,
    /// Offers that we cannot read, each with the reason. A buyer passes over them; they are not printed.
    pub unreadable: Vec<WireError>,
    pub other: Object,
}

/// One way to pay.
///
/// Spec: v1 section 5.1.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRequirements {
    pub scheme: String,
    pub network: NamedNetwork,
    /// The price, in atoms of `asset`: paid exactly, whatever the name says.
    pub max_amount_required: u128,
    pub resource: String,
    pub description: String,
    pub mime_type: String,
    pub output_schema: Option<Object>,
    pub pay_to: WireAddress,
    /// Above zero.
    pub max_timeout_seconds: u64,
    pub asset: WireAddress,
    pub extra: Option<Object>,
    pub other: Object,
}

/// The payment.
///
/// Spec: v1 section 5.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentPayload {
    pub scheme: String,
    pub network: NamedNetwork,
    /// What the scheme defines, e.g. [`super::exact_evm::Payload`].
    pub payload: Object,
    pub other: Object,
}

impl NamedNetwork {
    /// `None` if version 1 has no name for this network: it cannot be offered to a v1 client.
    pub fn new(network: &Network) -> Option<Self> {
        network.v1_name().map(|name| Self { network: network.clone(), name })
    }

    /// Reads the name; the matching is exact.
    pub fn parse(name: &str) -> Result<Self, NetworkError> {
        let network = Network::from_v1_name(name)?;
        Self::new(&network).ok_or_else(|| NetworkError::UnknownV1Name(name.chars().take(64).collect()))
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl PaymentRequired {
    pub fn new(accepts: Vec<PaymentRequirements>) -> Self {
        Self { error: None, accepts, unreadable: Vec::new(), other: Object::new() }
    }
}

impl PaymentRequirements {
    /// The price, in the asset it is asked in.
    pub fn money(&self) -> Money {
        Money::new(self.asset_id(), self.max_amount_required)
    }

    pub fn asset_id(&self) -> AssetId {
        AssetId::new(self.network.network().clone(), self.asset.address().clone())
    }

    /// The text under `key` of `extra`.
    pub fn extra_str(&self, key: &str) -> Option<&str> {
        self.extra.as_ref().and_then(|extra| extra.get_str(key))
    }
}

impl PaymentPayload {
    pub fn new(scheme: impl Into<String>, network: NamedNetwork, payload: Object) -> Self {
        Self { scheme: scheme.into(), network, payload, other: Object::new() }
    }
}

fn named_network(fields: &mut Fields) -> Result<NamedNetwork, WireError> {
    Ok(NamedNetwork::parse(&fields.string("network")?)?)
}

impl Message for PaymentRequired {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        // Spec: v1 section 5.1.2.
        fields.version(VERSION)?;
        let error = fields.optional_string("error")?;
        let (accepts, unreadable) = read_offers(fields.array("accepts", MAX_ACCEPTS)?)?;
        Ok(Self { error, accepts, unreadable, other: fields.rest() })
    }

    fn to_json(&self) -> Json {
        let accepts: Vec<Json> = self.accepts.iter().map(PaymentRequirements::to_json).collect();
        let mut object = Object::new()
            .with("x402Version", VERSION)
            .with_some("error", self.error.as_deref())
            .with("accepts", accepts);
        object.append(&self.other);
        object.into()
    }
}

impl Message for PaymentRequirements {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        let scheme = fields.nonempty_string("scheme")?;
        let network = named_network(&mut fields)?;
        Ok(Self {
            scheme,
            max_amount_required: fields.atoms("maxAmountRequired")?,
            resource: fields.string("resource")?,
            // Spec: v1 section 5.1.2 requires a description; peers leave it out, and nothing depends on it.
            description: fields.optional_string("description")?.unwrap_or_default(),
            mime_type: fields.optional_string("mimeType")?.unwrap_or_default(),
            output_schema: fields.optional_object("outputSchema")?,
            pay_to: fields.address(network.network(), "payTo")?,
            max_timeout_seconds: fields.positive("maxTimeoutSeconds")?,
            asset: fields.address(network.network(), "asset")?,
            extra: fields.optional_object("extra")?,
            network,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let mut object = Object::new()
            .with("scheme", self.scheme.as_str())
            .with("network", self.network.name())
            .with("maxAmountRequired", self.max_amount_required.to_string())
            .with("resource", self.resource.as_str())
            .with("description", self.description.as_str())
            .with("mimeType", self.mime_type.as_str())
            .with("payTo", self.pay_to.as_str())
            .with("maxTimeoutSeconds", self.max_timeout_seconds)
            .with("asset", self.asset.as_str())
            .with_some("outputSchema", self.output_schema.clone())
            .with_some("extra", self.extra.clone());
        object.append(&self.other);
        object.into()
    }
}

impl Message for PaymentPayload {
    const HEADER_LIMITS: Limits = header::PAYMENT_LIMITS;

    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        fields.version(VERSION)?;
        Ok(Self {
            scheme: fields.nonempty_string("scheme")?,
            network: named_network(&mut fields)?,
            payload: fields.object("payload")?,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let mut object = Object::new()
            .with("x402Version", VERSION)
            .with("scheme", self.scheme.as_str())
            .with("network", self.network.name())
            .with("payload", self.payload.clone());
        object.append(&self.other);
        object.into()
    }
}
