use super::ProblemType;
use crate::x402::WireError;
use crate::{JsonError, Uint256Error};

/// Why a peer's message was not understood. Never ours, never the chain's; the same bytes fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MppError {
    #[error("longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the header has no Payment scheme")]
    NoPaymentScheme,
    #[error("more than one payment credential")]
    SeveralCredentials,
    #[error("more than {limit} challenges")]
    TooManyChallenges { limit: usize },
    #[error("more than {limit} parameters")]
    TooManyParams { limit: usize },
    #[error("more than {limit} ranges")]
    TooManyRanges { limit: usize },
    #[error("unexpected character at byte {at}")]
    Syntax { at: usize },
    #[error("a quoted string has no end")]
    UnterminatedString,
    #[error("a parameter occurs twice, the second time at byte {at}")]
    DuplicateParam { at: usize },
    #[error("{field} is not base64url without padding")]
    NotBase64Url { field: &'static str },
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A member is missing, of another type, too long, or no number, address or bytes.
    #[error(transparent)]
    Member(WireError),
    #[error("a number has no canonical form that every reader agrees on")]
    UnsafeNumber,
    #[error("{field} is not of the form that it must have")]
    BadForm { field: &'static str },
    #[error("{field} is none that we know")]
    Unknown { field: &'static str },
    #[error("the splits are not less than the amount, or overflow")]
    Splits,
    #[error("{field} contradicts {other}")]
    Contradiction { field: &'static str, other: &'static str },
    #[error("{field} has characters that cannot be printed there")]
    Unprintable { field: &'static str },
}

impl MppError {
    /// A name for this kind of error that does not change.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } | Self::Json(JsonError::TooLong { .. }) => "too_long",
            Self::NoPaymentScheme => "no_payment_scheme",
            Self::SeveralCredentials => "several_credentials",
            Self::TooManyChallenges { .. } => "too_many_challenges",
            Self::TooManyParams { .. } => "too_many_params",
            Self::TooManyRanges { .. } => "too_many_ranges",
            Self::Syntax { .. } => "syntax",
            Self::UnterminatedString => "unterminated_string",
            Self::DuplicateParam { .. } => "duplicate_param",
            Self::NotBase64Url { .. } => "not_base64url",
            Self::Json(JsonError::DuplicateKey { .. }) => "duplicate_key",
            Self::Json(
                JsonError::TooDeep | JsonError::TooManyValues { .. } | JsonError::TooManyMembers { .. },
            ) => "too_much_json",
            Self::Json(_) => "not_json",
            Self::Member(error) => member_code(error),
            Self::UnsafeNumber => "unsafe_number",
            Self::BadForm { .. } => "bad_form",
            Self::Unknown { .. } => "unknown",
            Self::Splits => "splits",
            Self::Contradiction { .. } => "contradiction",
            Self::Unprintable { .. } => "unprintable",
        }
    }

    /// What a server answers to a credential that it could not read.
    ///
    /// Spec: draft-httpauth-payment-00, "Status Codes": a malformed credential is 402 with a fresh challenge. More
    /// than one is a bad request, because nobody can say which was meant.
    pub fn credential_problem(&self) -> ProblemType {
        match self {
            Self::SeveralCredentials => ProblemType::BadRequest,
            _ => ProblemType::MalformedCredential,
        }
    }

    /// What a server answers to a credential whose `payload` it could not read.
    pub fn payload_problem(&self) -> ProblemType {
        ProblemType::InvalidPayload
    }

    pub(super) fn missing(field: &'static str) -> Self {
        Self::Member(WireError::Missing { field })
    }

    pub(super) fn empty(field: &'static str) -> Self {
        Self::Member(WireError::Empty { field })
    }

    pub(super) fn wrong_type(field: &'static str, expected: &'static str) -> Self {
        Self::Member(WireError::WrongType { field, expected })
    }

    pub(super) fn too_many(field: &'static str, limit: usize) -> Self {
        Self::Member(WireError::TooMany { field, limit })
    }

    /// Whether something is only too much of it.
    pub fn is_a_limit(&self) -> bool {
        match self {
            Self::TooLong { .. }
            | Self::TooManyChallenges { .. }
            | Self::TooManyParams { .. }
            | Self::TooManyRanges { .. } => true,
            Self::Json(error) => {
                matches!(
                    error,
                    JsonError::TooLong { .. }
                        | JsonError::TooManyValues { .. }
                        | JsonError::TooManyMembers { .. }
                        | JsonError::TooDeep
                )
            }
            Self::Member(WireError::TooMany { .. }) => true,
            _ => false,
        }
    }
}

impl From<WireError> for MppError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Json(error) => Self::Json(error),
            error => Self::Member(error),
        }
    }
}

fn member_code(error: &WireError) -> &'static str {
    match error {
        WireError::Missing { .. } => "missing_member",
        WireError::WrongType { .. } | WireError::NotAnObject => "wrong_type",
        WireError::Empty { .. } => "empty_member",
        WireError::TooMany { .. } => "too_many",
        WireError::Amount { .. } | WireError::Uint256 { error: Uint256Error::Empty, .. } => "bad_amount",
        WireError::Uint256 { .. } => "bad_number",
        WireError::BeyondU128 { .. } => "beyond_u128",
        WireError::Address { .. } => "bad_address",
        WireError::NotHex { .. } | WireError::WrongLength { .. } => "bad_hex",
        WireError::Network(_) => "bad_network",
        _ => "bad_member",
    }
}
