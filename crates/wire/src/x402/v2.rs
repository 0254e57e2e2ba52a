//! Version 2: everything in headers, networks by CAIP-2, the chosen offer echoed in the payment.
//!
//! Spec: x402-specification-v2 section 5.

use farthing_primitives::{AssetId, Money, Network};

pub use super::SettlementResponse;
use super::fields::Fields;
use super::{Extensions, Message, WireAddress, WireError, header};
use crate::{Json, Limits, Object};

pub const VERSION: u64 = 2;

/// How many offers a challenge may make.
pub const MAX_ACCEPTS: usize = 64;
/// Spec: v2 core types of the published packages: `serviceName` and each tag, in characters of printable ASCII.
pub const MAX_LABEL_CHARS: usize = 32;
pub const MAX_TAGS: usize = 5;
pub const MAX_ICON_URL_BYTES: usize = 2048;

/// The challenge: what a resource costs and how it may be paid.
///
/// Spec: v2 section 5.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRequired {
    pub error: Option<String>,
    pub resource: ResourceInfo,
    /// Never empty.
    pub accepts: Vec<PaymentRequirements>,
    pub extensions: Option<Extensions>,
    /// Offers that we cannot read (another kind of network, an amount beyond 128 bits), each with the reason. A
    /// buyer passes over them; they are not printed.
    pub unreadable: Vec<WireError>,
    /// Members that this version of ours does not know.
    pub other: Object,
}

/// What is being sold.
///
/// Spec: v2 section 5.1.2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceInfo {
    pub url: String,
    pub description: Option<String>,
    pub mime_type: Option<String>,
    pub service_name: Option<String>,
    pub tags: Option<Vec<String>>,
    pub icon_url: Option<String>,
    pub other: Object,
}

/// One way to pay.
///
/// Spec: v2 section 5.1.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRequirements {
    pub scheme: String,
    pub network: Network,
    /// In atoms of `asset`.
    pub amount: u128,
    pub asset: WireAddress,
    pub pay_to: WireAddress,
    /// Above zero.
    pub max_timeout_seconds: u64,
    /// What the scheme needs, as the server wrote it.
    pub extra: Option<Object>,
    /// Members that this version of ours does not know. They are echoed, and they count in a comparison.
    pub other: Object,
}

/// The payment.
///
/// Spec: v2 section 5.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentPayload {
    pub resource: Option<ResourceInfo>,
    /// The offer that the client says it takes. The server settles by its own, never by this one.
    pub accepted: PaymentRequirements,
    /// What the scheme defines, e.g. [`super::exact_evm::Payload`].
    pub payload: Object,
    pub extensions: Option<Extensions>,
    pub other: Object,
}

impl ResourceInfo {
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}

impl PaymentRequired {
    pub fn new(resource: ResourceInfo, accepts: Vec<PaymentRequirements>) -> Self {
        Self {
            error: None,
            resource,
            accepts,
            extensions: None,
            unreadable: Vec::new(),
            other: Object::new(),
        }
    }
}

impl PaymentRequirements {
    /// The price, in the asset it is asked in.
    pub fn money(&self) -> Money {
        Money::new(self.asset_id(), self.amount)
    }

    pub fn asset_id(&self) -> AssetId {
        AssetId::new(self.network.clone(), self.asset.address().clone())
    }

    /// The text under `key` of `extra`.
    pub fn extra_str(&self, key: &str) -> Option<&str> {
        self.extra.as_ref().and_then(|extra| extra.get_str(key))
    }
}

impl PaymentPayload {
    /// A payment for one of the offers of a challenge, with `extensions` as the client echoes them.
    pub fn new(accepted: PaymentRequirements, payload: Object) -> Self {
        Self { resource: None, accepted, payload, extensions: None, other: Object::new() }
    }
}

impl Message for PaymentRequired {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        // Spec: v2 section 5.1.2, "must be 2".
        fields.version(VERSION)?;
        let error = fields.optional_string("error")?;
        let resource = ResourceInfo::from_json(fields.require("resource")?)?;
        let (accepts, unreadable) = read_offers(fields.array("accepts", MAX_ACCEPTS)?)?;
        let extensions = fields.extensions()?;
        Ok(Self { error, resource, accepts, extensions, unreadable, other: fields.rest() })
    }

    fn to_json(&self) -> Json {
        let accepts: Vec<Json> = self.accepts.iter().map(PaymentRequirements::to_json).collect();
        let mut object = Object::new()
            .with("x402Version", VERSION)
            .with_some("error", self.error.as_deref())
            .with("resource", self.resource.to_json())
            .with("accepts", accepts)
            .with_some("extensions", self.extensions.as_ref().map(Extensions::to_json));
        object.append(&self.other);
        object.into()
    }
}

/// Reads the offers that can be read. One that cannot must not hide the others from a buyer.
pub(super) fn read_offers<T: Message>(items: Vec<Json>) -> Result<(Vec<T>, Vec<WireError>), WireError> {
    if items.is_empty() {
        return Err(WireError::Empty { field: "accepts" });
    }
    let (mut accepts, mut unreadable) = (Vec::with_capacity(items.len()), Vec::new());
    for item in items {
        match T::from_json(item) {
            Ok(offer) => accepts.push(offer),
            Err(error) => unreadable.push(error),
        }
    }
    if accepts.is_empty() { Err(WireError::NoReadableRequirements) } else { Ok((accepts, unreadable)) }
}

impl Message for ResourceInfo {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        Ok(Self {
            url: fields.nonempty_string("url")?,
            description: fields.optional_string("description")?,
            mime_type: fields.optional_string("mimeType")?,
            service_name: fields
                .optional_string("serviceName")?
                .map(|name| label(name, "serviceName"))
                .transpose()?,
            tags: fields.optional_array("tags", MAX_TAGS)?.map(read_tags).transpose()?,
            icon_url: fields.optional_string("iconUrl")?.map(icon_url).transpose()?,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let tags = self
            .tags
            .as_ref()
            .map(|tags| tags.iter().map(|tag| Json::from(tag.as_str())).collect::<Vec<_>>());
        let mut object = Object::new()
            .with("url", self.url.as_str())
            .with_some("description", self.description.as_deref())
            .with_some("mimeType", self.mime_type.as_deref())
            .with_some("serviceName", self.service_name.as_deref())
            .with_some("tags", tags)
            .with_some("iconUrl", self.icon_url.as_deref());
        object.append(&self.other);
        object.into()
    }
}

fn read_tags(items: Vec<Json>) -> Result<Vec<String>, WireError> {
    let wrong = WireError::WrongType { field: "tags", expected: "an array of strings" };
    let tag = |item| if let Json::String(tag) = item { label(tag, "tags") } else { Err(wrong.clone()) };
    items.into_iter().map(tag).collect()
}

fn label(text: String, field: &'static str) -> Result<String, WireError> {
    if text.is_empty() {
        return Err(WireError::Empty { field });
    }
    if text.chars().count() > MAX_LABEL_CHARS {
        return Err(WireError::TooMany { field, limit: MAX_LABEL_CHARS });
    }
    if !text.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        return Err(WireError::BadCharacters { field });
    }
    Ok(text)
}

fn icon_url(text: String) -> Result<String, WireError> {
    if text.len() > MAX_ICON_URL_BYTES {
        return Err(WireError::TooMany { field: "iconUrl", limit: MAX_ICON_URL_BYTES });
    }
    Ok(text)
}

impl Message for PaymentRequirements {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        let scheme = fields.nonempty_string("scheme")?;
        let network = fields.caip2("network")?;
        Ok(Self {
            scheme,
            amount: fields.atoms("amount")?,
            asset: fields.address(&network, "asset")?,
            pay_to: fields.address(&network, "payTo")?,
            max_timeout_seconds: fields.positive("maxTimeoutSeconds")?,
            extra: fields.optional_object("extra")?,
            network,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let mut object = Object::new()
            .with("scheme", self.scheme.as_str())
            .with("network", self.network.as_str())
            .with("amount", self.amount.to_string())
            .with("asset", self.asset.as_str())
            .with("payTo", self.pay_to.as_str())
            .with("maxTimeoutSeconds", self.max_timeout_seconds)
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
            resource: fields.take("resource").map(ResourceInfo::from_json).transpose()?,
            accepted: PaymentRequirements::from_json(fields.require("accepted")?)
                .map_err(|error| WireError::Requirements(Box::new(error)))?,
            payload: fields.object("payload")?,
            extensions: fields.extensions()?,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let mut object = Object::new()
            .with("x402Version", VERSION)
            .with("payload", self.payload.clone())
            .with_some("extensions", self.extensions.as_ref().map(Extensions::to_json))
            .with_some("resource", self.resource.as_ref().map(ResourceInfo::to_json))
            .with("accepted", self.accepted.to_json());
        object.append(&self.other);
        object.into()
    }
}
