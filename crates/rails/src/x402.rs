//! x402, v1 and v2, to and from the schemes: what a server asks for as an offer on the wire, and what a client sends as a
//! payment that a scheme can check.
//!
//! Nothing here decides about money. What a payment is compared against is a [`Requirement`] of ours; of a peer's words
//! only the [`Presented`] part is used, and that is signed.

#[cfg(test)]
mod tests;

use std::time::Duration;

use farthing_evm::{
    Address, B256, TransferAuthorization, U256, WitnessTransfer, eip55, from_alloy, to_alloy,
};
use farthing_payment::Flow;
use farthing_primitives::{Address as Account, AssetId, Money, Network, PullMethod, TenantId, Timestamp};
use farthing_wire::x402::exact_evm::{Authorization, Payload, Permit2Authorization};
use farthing_wire::x402::extensions::{EIP2612_GAS_SPONSORING, Eip2612GasSponsoring};
use farthing_wire::x402::{ErrorCode, Extensions, WireAddress, WireError, v1, v2};
use farthing_wire::{Object, Uint256};

use crate::exact_evm::{Approval, Presented, Refusal, Requirement, RequirementError, Tokens};
use crate::offer::{self, BindingKey, BoundOffer, SEAL_KEY, SealError};

/// Spec: x402 v2 section 6.
pub const EXACT: &str = "exact";

/// Reserved keys of `extra`.
///
/// Spec: x402 exact on EVM, and the payment flows of the published packages.
const TRANSFER_METHOD: &str = "assetTransferMethod";
const PAYMENT_FLOW: &str = "paymentFlow";

/// The version of the `eip2612GasSponsoring` extension that we write.
const SPONSORING_VERSION: &str = "1";

/// Why an offer of somebody else's cannot be taken, or be settled by us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    #[error("the scheme {0:?} is not one of ours")]
    Scheme(String),
    #[error("the asset {0} is not one that we know")]
    UnknownAsset(AssetId),
    #[error("the transfer method {0:?} is not one of ours")]
    TransferMethod(String),
    #[error("the payment flow {0:?} is not one of ours")]
    Flow(String),
    /// A payer would sign for a domain that the token does not have.
    #[error("the offer gives the token another name than it has on its chain")]
    TokenName,
    #[error("the offer gives the token another version than it has on its chain")]
    TokenVersion,
    #[error(transparent)]
    Requirement(#[from] RequirementError),
}

impl OfferError {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Scheme(_) => ErrorCode::UnsupportedScheme,
            Self::TransferMethod(_) => ErrorCode::UnsupportedAssetTransferMethod,
            Self::Flow(_) => ErrorCode::UnsupportedPaymentFlow,
            Self::TokenName => ErrorCode::InvalidExactEvmTokenNameMismatch,
            Self::TokenVersion => ErrorCode::InvalidExactEvmTokenVersionMismatch,
            Self::Requirement(RequirementError::NoDomain(_)) => ErrorCode::InvalidExactEvmMissingEip712Domain,
            Self::UnknownAsset(_) | Self::Requirement(_) => ErrorCode::InvalidPaymentRequirements,
        }
    }
}

/// Why a payment does not even pay in the way that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    #[error("the payment is of another scheme")]
    Scheme,
    #[error("the payment is on another network")]
    Network,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the sponsored approval cannot be read: {0}")]
    Approval(WireError),
}

impl PaymentError {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Scheme => ErrorCode::InvalidExactEvmScheme,
            Self::Network => ErrorCode::InvalidExactEvmNetworkMismatch,
            Self::Wire(error) => error.code(),
            Self::Approval(_) => ErrorCode::InvalidEip2612ExtensionFormat,
        }
    }
}

/// The code of a refusal on the wire.
pub fn refusal_code(refusal: &Refusal) -> ErrorCode {
    ErrorCode::from(refusal.code())
}

// ---------------------------------------------------------------------------------------------------------------------
// Our offers, on the wire.

/// What is said of an offer beside what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extras<'a> {
    /// From [`seal`]; v2 only.
    pub seal: Option<&'a str>,
    /// Whether the payment is settled before the service.
    pub upfront: bool,
}

/// Our offer as v2 has it.
///
/// Spec: x402 v2 section 5.1.2; x402 exact on EVM for `extra`.
pub fn offer_v2(asked: &Requirement, extras: Extras<'_>) -> v2::PaymentRequirements {
    let mut extra = domain_of(asked);
    // EIP-3009 goes without saying, as from the published server, unless the token's own way is another.
    match asked.method() {
        PullMethod::Permit2 => extra.insert(TRANSFER_METHOD, "permit2"),
        PullMethod::Eip3009 if asked.token().asset().pull != PullMethod::Eip3009 => {
            extra.insert(TRANSFER_METHOD, "eip3009");
        }
        PullMethod::Eip3009 => {}
    }
    if extras.upfront {
        extra.insert(PAYMENT_FLOW, "upfront");
    }
    if let Some(seal) = extras.seal {
        extra.insert(SEAL_KEY, seal);
    }
    let asset = &asked.token().asset().id;
    v2::PaymentRequirements {
        scheme: EXACT.to_owned(),
        network: asked.network().clone(),
        amount: asked.price().atoms(),
        asset: checksummed(asset.network(), asset.address()),
        pay_to: checksummed(asset.network(), &asked.pay_to()),
        max_timeout_seconds: asked.max_timeout().as_secs(),
        extra: Some(extra),
        other: Object::new(),
    }
}

/// What v1 says of a resource inside of each offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'a> {
    pub url: &'a str,
    pub description: &'a str,
    pub mime_type: &'a str,
}

/// Our offer as v1 has it; `None` where v1 cannot say it: it has names for some networks, and one transfer method.
///
/// Spec: x402 v1 section 5.1.2.
pub fn offer_v1(asked: &Requirement, resource: Resource<'_>) -> Option<v1::PaymentRequirements> {
    if asked.method() != PullMethod::Eip3009 {
        return None;
    }
    let asset = &asked.token().asset().id;
    Some(v1::PaymentRequirements {
        scheme: EXACT.to_owned(),
        network: v1::NamedNetwork::new(asked.network())?,
        max_amount_required: asked.price().atoms(),
        resource: resource.url.to_owned(),
        description: resource.description.to_owned(),
        mime_type: resource.mime_type.to_owned(),
        output_schema: None,
        pay_to: checksummed(asset.network(), &asked.pay_to()),
        max_timeout_seconds: asked.max_timeout().as_secs(),
        asset: checksummed(asset.network(), asset.address()),
        extra: Some(domain_of(asked)),
        other: Object::new(),
    })
}

/// The token's EIP-712 domain, which a payer signs for. A token that signs nothing has none, and Permit2 needs none.
fn domain_of(asked: &Requirement) -> Object {
    let domain = asked.token().asset().domain.as_ref();
    Object::new()
        .with_some("name", domain.map(|domain| domain.name.as_str()))
        .with_some("version", domain.map(|domain| domain.version.as_str()))
}

/// The form in which the published packages write addresses, so that a client that compares texts finds its own.
pub(crate) fn checksummed(network: &Network, address: &Account) -> WireAddress {
    let written = to_alloy(address).and_then(|raw| WireAddress::parse(network, &eip55(raw)).ok());
    written.unwrap_or_else(|| WireAddress::from(address.clone()))
}

/// What a seal covers of a requirement of ours.
pub fn bound<'a>(
    asked: &Requirement,
    tenant: &'a TenantId,
    route: &'a str,
    context: &'a [u8],
    http_method: &'a str,
) -> BoundOffer<'a> {
    BoundOffer {
        tenant,
        route,
        context,
        method: http_method,
        price: asked.price(),
        pay_to: asked.pay_to(),
        pull: asked.method(),
        max_timeout_secs: asked.max_timeout().as_secs(),
    }
}

/// Checks the seal that a v2 payment echoes, against the offer that it would have to be; says until when the offer holds.
///
/// # Errors
/// [`SealError::Malformed`] if there is none.
pub fn verify_seal(
    key: &BindingKey,
    offer: &BoundOffer<'_>,
    accepted: &v2::PaymentRequirements,
    now: Timestamp,
) -> Result<Timestamp, SealError> {
    let seal =
        accepted.extra.as_ref().and_then(|extra| extra.get_str(SEAL_KEY)).ok_or(SealError::Malformed)?;
    offer::verify(key, offer, seal, now)
}

// ---------------------------------------------------------------------------------------------------------------------
// Offers of others: what a facilitator is asked to settle, and what a buyer is asked to pay.

/// Reads a v2 offer with what *we* know of its token.
pub fn requirement_v2(offer: &v2::PaymentRequirements, tokens: &Tokens) -> Result<Requirement, OfferError> {
    requirement(Words {
        scheme: &offer.scheme,
        price: offer.money(),
        pay_to: offer.pay_to.address(),
        max_timeout_secs: offer.max_timeout_seconds,
        extra: offer.extra.as_ref(),
        tokens,
    })
}

/// Reads a v1 offer with what *we* know of its token.
pub fn requirement_v1(offer: &v1::PaymentRequirements, tokens: &Tokens) -> Result<Requirement, OfferError> {
    requirement(Words {
        scheme: &offer.scheme,
        price: offer.money(),
        pay_to: offer.pay_to.address(),
        max_timeout_secs: offer.max_timeout_seconds,
        extra: offer.extra.as_ref(),
        tokens,
    })
}

/// In which order the seller of an offer wants service and settlement.
///
/// # Errors
/// [`OfferError::Flow`] for one that we do not know: a client passes over such an offer.
pub fn flow(extra: Option<&Object>) -> Result<Flow, OfferError> {
    match said(extra, PAYMENT_FLOW) {
        None | Some("authorization") => Ok(Flow::Authorization),
        Some("upfront") => Ok(Flow::Upfront),
        Some(other) => Err(OfferError::Flow(short(other))),
    }
}

struct Words<'a> {
    scheme: &'a str,
    price: Money,
    pay_to: &'a Account,
    max_timeout_secs: u64,
    extra: Option<&'a Object>,
    tokens: &'a Tokens,
}

fn requirement(words: Words<'_>) -> Result<Requirement, OfferError> {
    if words.scheme != EXACT {
        return Err(OfferError::Scheme(short(words.scheme)));
    }
    let asset = words.price.asset();
    let token = words.tokens.get(asset).ok_or_else(|| OfferError::UnknownAsset(asset.clone()))?;
    let method = match said(words.extra, TRANSFER_METHOD) {
        Some("eip3009") => PullMethod::Eip3009,
        Some("permit2") => PullMethod::Permit2,
        Some(other) => return Err(OfferError::TransferMethod(short(other))),
        // Spec: x402 exact on EVM: where nothing is said, EIP-3009 if the token can, else Permit2.
        None => token.asset().pull,
    };
    if let Some(domain) = &token.asset().domain {
        if said(words.extra, "name").is_some_and(|name| name != domain.name) {
            return Err(OfferError::TokenName);
        }
        if said(words.extra, "version").is_some_and(|version| version != domain.version) {
            return Err(OfferError::TokenVersion);
        }
    }
    let max_timeout = Duration::from_secs(words.max_timeout_secs);
    Ok(Requirement::new(token.clone(), &words.price, words.pay_to, method, max_timeout)?)
}

fn said<'a>(extra: Option<&'a Object>, key: &str) -> Option<&'a str> {
    extra.and_then(|extra| extra.get_str(key))
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

// ---------------------------------------------------------------------------------------------------------------------
// Payments.

/// Reads what a v2 payment presents for `asked`. What it says it accepted is looked at for scheme and network alone.
pub fn presented_v2(asked: &Requirement, payment: &v2::PaymentPayload) -> Result<Presented, PaymentError> {
    if payment.accepted.scheme != EXACT {
        return Err(PaymentError::Scheme);
    }
    if payment.accepted.network != *asked.network() {
        return Err(PaymentError::Network);
    }
    // An approval means something beside a Permit2 payment alone; beside another, whatever stands there is ignored.
    let approval = match &payment.extensions {
        Some(extensions) if asked.method() == PullMethod::Permit2 => {
            extensions.eip2612_gas_sponsoring().map_err(PaymentError::Approval)?
        }
        _ => None,
    };
    Ok(presented(Payload::parse(&payment.payload)?, approval)?)
}

/// Reads what a v1 payment presents for `asked`.
pub fn presented_v1(asked: &Requirement, payment: &v1::PaymentPayload) -> Result<Presented, PaymentError> {
    if payment.scheme != EXACT {
        return Err(PaymentError::Scheme);
    }
    if payment.network.network() != asked.network() {
        return Err(PaymentError::Network);
    }
    Ok(presented(Payload::parse(&payment.payload)?, None)?)
}

pub(crate) fn presented(
    payload: Payload,
    approval: Option<Eip2612GasSponsoring>,
) -> Result<Presented, WireError> {
    Ok(match payload {
        Payload::Eip3009 { signature, authorization: said } => Presented::Eip3009 {
            authorization: TransferAuthorization {
                from: evm(&said.from)?,
                to: evm(&said.to)?,
                value: U256::from(said.value),
                valid_after: number(said.valid_after),
                valid_before: number(said.valid_before),
                nonce: B256::new(said.nonce),
            },
            signature: signature.into(),
        },
        Payload::Permit2 { signature, authorization: said } => Presented::Permit2 {
            owner: evm(&said.from)?,
            transfer: WitnessTransfer {
                token: evm(&said.token)?,
                amount: U256::from(said.amount),
                spender: evm(&said.spender)?,
                nonce: number(said.nonce),
                deadline: number(said.deadline),
                to: evm(&said.witness_to)?,
                valid_after: number(said.witness_valid_after),
            },
            signature: signature.into(),
            approval: approval.map(read_approval).transpose()?.map(Box::new),
        },
    })
}

fn read_approval(said: Eip2612GasSponsoring) -> Result<Approval, WireError> {
    Ok(Approval {
        from: evm(&said.from)?,
        asset: evm(&said.asset)?,
        spender: evm(&said.spender)?,
        amount: number(said.amount),
        nonce: number(said.nonce),
        deadline: number(said.deadline),
        signature: said.signature.into(),
    })
}

/// What goes into `payload` of a v1 or v2 payment.
///
/// `None` if an amount does not fit 128 bits, which nothing that [`crate::exact_evm::buy`] made does.
pub fn payload(presented: &Presented) -> Option<Object> {
    Some(exact_payload(presented)?.to_object())
}

pub(crate) fn exact_payload(presented: &Presented) -> Option<Payload> {
    Some(match presented {
        Presented::Eip3009 { authorization: auth, signature } => Payload::Eip3009 {
            signature: signature.to_vec(),
            authorization: Authorization {
                from: from_alloy(auth.from),
                to: from_alloy(auth.to),
                value: u128::try_from(auth.value).ok()?,
                valid_after: uint(auth.valid_after),
                valid_before: uint(auth.valid_before),
                nonce: auth.nonce.0,
            },
        },
        Presented::Permit2 { owner, transfer, signature, .. } => Payload::Permit2 {
            signature: signature.to_vec(),
            authorization: Permit2Authorization {
                from: from_alloy(*owner),
                token: from_alloy(transfer.token),
                amount: u128::try_from(transfer.amount).ok()?,
                spender: from_alloy(transfer.spender),
                nonce: uint(transfer.nonce),
                deadline: uint(transfer.deadline),
                witness_to: from_alloy(transfer.to),
                witness_valid_after: uint(transfer.valid_after),
            },
        },
    })
}

/// What a client adds to the `eip2612GasSponsoring` extension that a server announced.
pub fn approval_info(approval: &Approval) -> Object {
    Eip2612GasSponsoring {
        from: from_alloy(approval.from),
        asset: from_alloy(approval.asset),
        spender: from_alloy(approval.spender),
        amount: uint(approval.amount),
        nonce: uint(approval.nonce),
        deadline: uint(approval.deadline),
        signature: approval.signature.to_vec(),
        version: SPONSORING_VERSION.to_owned(),
    }
    .to_info()
}

/// The extensions that carry a payment's sponsored approval, where it has one.
pub fn sponsoring(presented: &Presented) -> Option<Extensions> {
    let Presented::Permit2 { approval: Some(approval), .. } = presented else { return None };
    let mut extensions = Extensions::default();
    extensions.announce_eip2612_gas_sponsoring();
    extensions.answer(EIP2612_GAS_SPONSORING, approval_info(approval)).ok()?;
    Some(extensions)
}

/// A v2 payment of an offer, which it repeats as it came.
///
/// `extensions` are those that the server announced, with the client's answers in them. `None` as for [`payload`].
pub fn payment_v2(
    offer: &v2::PaymentRequirements,
    presented: &Presented,
    resource: Option<v2::ResourceInfo>,
    extensions: Option<Extensions>,
) -> Option<v2::PaymentPayload> {
    Some(v2::PaymentPayload {
        resource,
        accepted: offer.clone(),
        payload: payload(presented)?,
        extensions,
        other: Object::new(),
    })
}

/// A v1 payment of an offer. `None` as for [`payload`].
pub fn payment_v1(offer: &v1::PaymentRequirements, presented: &Presented) -> Option<v1::PaymentPayload> {
    Some(v1::PaymentPayload::new(EXACT, offer.network.clone(), payload(presented)?))
}

fn evm(address: &Account) -> Result<Address, WireError> {
    let not_evm = || farthing_primitives::AddressError::NotEvm(short(address.as_str()));
    to_alloy(address).ok_or_else(|| WireError::Address { field: "address", error: not_evm() })
}

fn number(number: Uint256) -> U256 {
    U256::from_be_bytes(number.to_be_bytes())
}

fn uint(number: U256) -> Uint256 {
    Uint256::from_be_bytes(number.to_be_bytes())
}
