//! The members of `extra` that the protocol itself reserves.
//!
//! Spec: schemes/exact/scheme_exact_evm (`assetTransferMethod`); `paymentFlow` as the published packages have it.

use super::WireError;
use crate::{Json, Object};

pub const ASSET_TRANSFER_METHOD: &str = "assetTransferMethod";
pub const PAYMENT_FLOW: &str = "paymentFlow";
/// The token's EIP-712 name, as the server says it. What is signed comes from the asset registry.
pub const NAME: &str = "name";
/// The token's EIP-712 version, as the server says it.
pub const VERSION: &str = "version";

/// How the token is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransferMethod {
    Eip3009,
    Permit2,
}

/// When the money moves, seen from the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaymentFlow {
    /// Verify, handle, settle.
    Authorization,
    /// Settle, handle.
    Upfront,
    /// Settle before and after.
    Escrow,
}

impl TransferMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eip3009 => "eip3009",
            Self::Permit2 => "permit2",
        }
    }

    /// The method that an offer asks for; EIP-3009 where it says nothing.
    ///
    /// # Errors
    /// [`WireError::UnsupportedPayload`] for a method that we do not have: a buyer passes over the offer.
    pub fn of(extra: Option<&Object>) -> Result<Self, WireError> {
        match reserved(extra, ASSET_TRANSFER_METHOD)? {
            None | Some("eip3009") => Ok(Self::Eip3009),
            Some("permit2") => Ok(Self::Permit2),
            Some(_) => Err(WireError::UnsupportedPayload),
        }
    }
}

impl PaymentFlow {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Upfront => "upfront",
            Self::Escrow => "escrow",
        }
    }

    /// The flow that an offer asks for; `authorization` where it says nothing.
    ///
    /// # Errors
    /// [`WireError::UnsupportedFlow`] for a flow that we do not know: a buyer passes over the offer.
    pub fn of(extra: Option<&Object>) -> Result<Self, WireError> {
        match reserved(extra, PAYMENT_FLOW)? {
            None | Some("authorization") => Ok(Self::Authorization),
            Some("upfront") => Ok(Self::Upfront),
            Some("escrow") => Ok(Self::Escrow),
            Some(_) => Err(WireError::UnsupportedFlow),
        }
    }
}

fn reserved<'a>(extra: Option<&'a Object>, field: &'static str) -> Result<Option<&'a str>, WireError> {
    match extra.and_then(|extra| extra.get(field)) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(WireError::WrongType { field, expected: "a string" }),
    }
}
