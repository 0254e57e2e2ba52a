use farthing_primitives::{AddressError, AmountError, NetworkError};

use super::ErrorCode;
use crate::{JsonError, Uint256Error};

/// Why a peer's message was not understood. Never ours, never the chain's; the same bytes fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the header is longer than {limit} bytes")]
    HeaderTooLong { limit: usize },
    #[error("the header is not base64 of the standard alphabet")]
    NotBase64,
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("the message is not a JSON object")]
    NotAnObject,
    #[error("unsupported x402Version {0:?}")]
    Version(Option<u64>),
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} is not {expected}")]
    WrongType { field: &'static str, expected: &'static str },
    #[error("{field} is empty")]
    Empty { field: &'static str },
    #[error("{field} is longer or more than {limit}")]
    TooMany { field: &'static str, limit: usize },
    #[error("{field}: {error}")]
    Amount { field: &'static str, error: AmountError },
    #[error("{field} is above the 128 bits in which we count")]
    BeyondU128 { field: &'static str },
    #[error("{field}: {error}")]
    Uint256 { field: &'static str, error: Uint256Error },
    #[error("{field}: {error}")]
    Address { field: &'static str, error: AddressError },
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("{field} is not 0x and an even number of hex digits")]
    NotHex { field: &'static str },
    #[error("{field} is not {bytes} bytes")]
    WrongLength { field: &'static str, bytes: usize },
    #[error("{field} has characters that it must not have")]
    BadCharacters { field: &'static str },
    #[error("the payload is of no transfer method that we know")]
    UnsupportedPayload,
    #[error("the payment flow is none that we know")]
    UnsupportedFlow,
    #[error("the payload is of two transfer methods at once")]
    AmbiguousPayload,
    #[error("none of the payment requirements can be read")]
    NoReadableRequirements,
    #[error("payment requirements: {0}")]
    Requirements(Box<WireError>),
}

impl WireError {
    /// What the peer is told.
    ///
    /// Spec: x402 v2 section 9.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Version(_) => ErrorCode::InvalidX402Version,
            Self::Network(_) => ErrorCode::InvalidNetwork,
            Self::UnsupportedPayload => ErrorCode::UnsupportedPayloadType,
            Self::UnsupportedFlow => ErrorCode::UnsupportedPaymentFlow,
            Self::Requirements(inner) => match **inner {
                Self::Network(_) => ErrorCode::InvalidNetwork,
                _ => ErrorCode::InvalidPaymentRequirements,
            },
            Self::NoReadableRequirements => ErrorCode::InvalidPaymentRequirements,
            _ => ErrorCode::InvalidPayload,
        }
    }
}
