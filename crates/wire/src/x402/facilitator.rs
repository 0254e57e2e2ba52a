//! What a server and a facilitator say to each other: `/verify`, `/settle` and `/supported`.
//!
//! Spec: x402 v1 section 7, v2 section 7.

pub use super::SettlementResponse as SettleResponse;
use super::fields::Fields;
use super::{ErrorCode, Message, WireError, v1, v2};
use crate::{Json, Object};

/// How many kinds, extensions and signers of one network a facilitator may list.
pub const MAX_KINDS: usize = 2048;
pub const MAX_LISTED: usize = 256;

/// A payment and the requirements it shall meet: the body of `/verify` and of `/settle`.
///
/// The requirements are the server's own. What the client says it accepted is in the payload and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentRequest {
    V1 { payload: v1::PaymentPayload, requirements: v1::PaymentRequirements },
    V2 { payload: v2::PaymentPayload, requirements: v2::PaymentRequirements },
}

pub type VerifyRequest = PaymentRequest;
pub type SettleRequest = PaymentRequest;

/// Spec: v2 section 5.4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyResponse {
    pub is_valid: bool,
    /// Absent if valid.
    pub invalid_reason: Option<ErrorCode>,
    /// For people. Decides nothing.
    pub invalid_message: Option<String>,
    pub payer: Option<String>,
    pub extensions: Option<Object>,
    pub extra: Option<Object>,
    pub other: Object,
}

/// Spec: v2 section 7.3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SupportedResponse {
    pub kinds: Vec<SupportedKind>,
    pub extensions: Vec<String>,
    /// From a pattern such as `eip155:*` to the facilitator's addresses there.
    pub signers: Vec<(String, Vec<String>)>,
    pub other: Object,
}

/// Spec: v2 section 7.3.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportedKind {
    pub x402_version: u64,
    pub scheme: String,
    /// A v1 name or CAIP-2, by the version.
    pub network: String,
    pub extra: Option<Object>,
    pub other: Object,
}

impl PaymentRequest {
    pub fn version(&self) -> u64 {
        match self {
            Self::V1 { .. } => v1::VERSION,
            Self::V2 { .. } => v2::VERSION,
        }
    }

    /// The scheme's own part of the payment.
    pub fn scheme_payload(&self) -> &Object {
        match self {
            Self::V1 { payload, .. } => &payload.payload,
            Self::V2 { payload, .. } => &payload.payload,
        }
    }
}

impl Message for PaymentRequest {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        let payload = fields.require("paymentPayload")?;
        let inner = payload.as_object().and_then(|object| object.get("x402Version")).and_then(Json::as_u64);
        // The envelope's version is absent in the v1 schema and present in practice: where both are, they agree.
        let version = match fields.take("x402Version").map(|version| version.as_u64()) {
            None => inner,
            Some(outer) if outer == inner => outer,
            Some(outer) => return Err(WireError::Version(outer)),
        };
        let requirements = fields.require("paymentRequirements").map_err(in_requirements)?;
        match version {
            Some(v1::VERSION) => Ok(Self::V1 {
                payload: v1::PaymentPayload::from_json(payload)?,
                requirements: v1::PaymentRequirements::from_json(requirements).map_err(in_requirements)?,
            }),
            Some(v2::VERSION) => Ok(Self::V2 {
                payload: v2::PaymentPayload::from_json(payload)?,
                requirements: v2::PaymentRequirements::from_json(requirements).map_err(in_requirements)?,
            }),
            other => Err(WireError::Version(other)),
        }
    }

    fn to_json(&self) -> Json {
        let (payload, requirements) = match self {
            Self::V1 { payload, requirements } => (payload.to_json(), requirements.to_json()),
            Self::V2 { payload, requirements } => (payload.to_json(), requirements.to_json()),
        };
        Object::new()
            .with("x402Version", self.version())
            .with("paymentPayload", payload)
            .with("paymentRequirements", requirements)
            .into()
    }
}

fn in_requirements(error: WireError) -> WireError {
    WireError::Requirements(Box::new(error))
}

impl VerifyResponse {
    pub fn valid(payer: &str) -> Self {
        Self {
            is_valid: true,
            invalid_reason: None,
            invalid_message: None,
            payer: Some(payer.to_owned()),
            extensions: None,
            extra: None,
            other: Object::new(),
        }
    }

    pub fn invalid(reason: ErrorCode, payer: Option<&str>) -> Self {
        Self {
            is_valid: false,
            invalid_reason: Some(reason),
            payer: payer.map(str::to_owned),
            ..Self::valid("")
        }
    }
}

impl Message for VerifyResponse {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        Ok(Self {
            is_valid: fields.boolean("isValid")?,
            invalid_reason: fields.optional_string("invalidReason")?.map(ErrorCode::from),
            invalid_message: fields.optional_string("invalidMessage")?,
            payer: fields.optional_string("payer")?,
            extensions: fields.optional_object("extensions")?,
            extra: fields.optional_object("extra")?,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let mut object = Object::new()
            .with("isValid", self.is_valid)
            .with_some("invalidReason", self.invalid_reason.as_ref().map(ErrorCode::as_str))
            .with_some("invalidMessage", self.invalid_message.as_deref())
            .with_some("payer", self.payer.as_deref())
            .with_some("extensions", self.extensions.clone())
            .with_some("extra", self.extra.clone());
        object.append(&self.other);
        object.into()
    }
}

impl Message for SupportedKind {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        Ok(Self {
            x402_version: fields.positive("x402Version")?,
            scheme: fields.nonempty_string("scheme")?,
            network: fields.nonempty_string("network")?,
            extra: fields.optional_object("extra")?,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let mut object = Object::new()
            .with("x402Version", self.x402_version)
            .with("scheme", self.scheme.as_str())
            .with("network", self.network.as_str())
            .with_some("extra", self.extra.clone());
        object.append(&self.other);
        object.into()
    }
}

impl Message for SupportedResponse {
    fn from_json(json: Json) -> Result<Self, WireError> {
        let mut fields = Fields::of(json)?;
        let kinds = fields.array("kinds", MAX_KINDS)?;
        // Spec: v1 section 7.3 has kinds alone.
        let extensions = fields.optional_array("extensions", MAX_LISTED)?.unwrap_or_default();
        let signers = fields.optional_object("signers")?.unwrap_or_default();
        Ok(Self {
            kinds: kinds.into_iter().map(SupportedKind::from_json).collect::<Result<_, _>>()?,
            extensions: strings(extensions, "extensions")?,
            signers: signers
                .iter()
                .map(|(pattern, addresses)| {
                    let wrong = WireError::WrongType { field: "signers", expected: "lists of addresses" };
                    let addresses = addresses.as_array().ok_or(wrong)?;
                    if addresses.len() > MAX_LISTED {
                        return Err(WireError::TooMany { field: "signers", limit: MAX_LISTED });
                    }
                    Ok((pattern.to_owned(), strings(addresses.to_vec(), "signers")?))
                })
                .collect::<Result<_, _>>()?,
            other: fields.rest(),
        })
    }

    fn to_json(&self) -> Json {
        let texts = |items: &[String]| items.iter().map(|item| Json::from(item.as_str())).collect::<Vec<_>>();
        let signers: Object =
            self.signers.iter().map(|(pattern, list)| (pattern.as_str(), texts(list))).collect();
        let mut object = Object::new()
            .with("kinds", self.kinds.iter().map(SupportedKind::to_json).collect::<Vec<_>>())
            .with("extensions", texts(&self.extensions))
            .with("signers", signers);
        object.append(&self.other);
        object.into()
    }
}

fn strings(items: Vec<Json>, field: &'static str) -> Result<Vec<String>, WireError> {
    let text = |item| match item {
        Json::String(text) => Ok(text),
        _ => Err(WireError::WrongType { field, expected: "a list of strings" }),
    };
    items.into_iter().map(text).collect()
}
