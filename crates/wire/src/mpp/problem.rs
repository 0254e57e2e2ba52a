use super::{BODY_LIMITS, MppError};
use crate::Object;
use crate::json::{self, Json};
use crate::x402::fields::Fields;

/// The media type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

const BASE: &str = "https://paymentauth.org/problems/";

/// The longest `type` of somebody else's that we keep, in bytes.
const MAX_TYPE_BYTES: usize = 256;

macro_rules! problem_types {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $title:literal, $status:literal;)*) => {
        /// What went wrong, by the name that the peer is told.
        ///
        /// Spec: draft-httpauth-payment-00, "Error Codes"; draft-evm-session-00, "Error Responses". Titles and statuses
        /// are those of the published package, where it knows the type.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum ProblemType {
            $($(#[$doc])* $name,)*
            /// A type of somebody else's, as a URI.
            Other(Box<str>),
        }

        impl ProblemType {
            /// All types that have a name here.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What follows the base of the URI.
            pub fn slug(&self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($slug),)*
                    Self::Other(_) => None,
                }
            }

            pub fn title(&self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                    Self::Other(_) => "Problem",
                }
            }

            /// The status that goes with it; 402 for a type that we do not know.
            pub fn status(&self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Other(_) => 402,
                }
            }

            fn named(slug: &str) -> Option<Self> {
                match slug {
                    $($slug => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

problem_types! {
    PaymentRequired = "payment-required", "Payment Required", 402;
    PaymentInsufficient = "payment-insufficient", "Payment Insufficient", 402;
    PaymentExpired = "payment-expired", "Payment Expired", 402;
    VerificationFailed = "verification-failed", "Verification Failed", 402;
    MalformedCredential = "malformed-credential", "Malformed Credential", 402;
    InvalidChallenge = "invalid-challenge", "Invalid Challenge", 402;
    InvalidPayload = "invalid-payload", "Invalid Payload", 402;
    PaymentActionRequired = "payment-action-required", "Payment Action Required", 402;
    MethodUnsupported = "method-unsupported", "Method Unsupported", 400;
    BadRequest = "bad-request", "Bad Request", 400;
    InternalPaymentError = "internal-payment-error", "Internal Payment Error", 500;
    InsufficientBalance = "session/insufficient-balance", "Insufficient Balance", 402;
    InvalidSignature = "session/invalid-signature", "Invalid Signature", 402;
    SignerMismatch = "session/signer-mismatch", "Signer Mismatch", 402;
    AmountExceedsDeposit = "session/amount-exceeds-deposit", "Amount Exceeds Deposit", 402;
    DeltaTooSmall = "session/delta-too-small", "Delta Too Small", 402;
    ChannelNotFound = "session/channel-not-found", "Channel Not Found", 410;
    ChannelFinalized = "session/channel-finalized", "Channel Closed", 410;
    ChallengeNotFound = "session/challenge-not-found", "Challenge Not Found", 402;
    /// Spec: draft-evm-session-00, "Transaction Outcome Checks".
    TransactionReverted = "session/transaction-reverted", "Transaction Reverted", 409;
}

impl ProblemType {
    pub fn uri(&self) -> String {
        match self {
            Self::Other(uri) => uri.to_string(),
            known => format!("{BASE}{}", known.slug().unwrap_or_default()),
        }
    }

    /// Reads a `type`; what we do not know is kept, cut to a bounded length.
    pub fn from_uri(uri: &str) -> Self {
        uri.strip_prefix(BASE).and_then(Self::named).unwrap_or_else(|| {
            let mut end = uri.len().min(MAX_TYPE_BYTES);
            while !uri.is_char_boundary(end) {
                end -= 1;
            }
            Self::Other(uri[..end].into())
        })
    }

    /// What a buyer's server of sessions answers to a revert of its escrow, by the recommended name of the error.
    ///
    /// Spec: draft-evm-session-00, "Error Responses", the recommended mapping.
    pub fn of_revert(error: &str) -> Self {
        match error {
            "AmountExceedsDeposit" => Self::AmountExceedsDeposit,
            "ChannelNotFound" => Self::ChannelNotFound,
            "ChannelFinalized" => Self::ChannelFinalized,
            "InvalidSignature" => Self::InvalidSignature,
            _ => Self::TransactionReverted,
        }
    }
}

/// A problem as a body says it.
///
/// Spec: RFC 9457; draft-httpauth-payment-00, "Error Response Format".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemType,
    pub title: String,
    pub status: u16,
    /// For people.
    pub detail: String,
    /// What a method adds, for diagnosis.
    pub details: Option<Object>,
    /// What the reader could do, for people and agents.
    pub hint: Option<String>,
    /// The challenge that it is about.
    pub challenge_id: Option<String>,
    /// Members that this version of ours does not know.
    pub other: Object,
}

impl Problem {
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            title: kind.title().to_owned(),
            status: kind.status(),
            kind,
            detail: detail.into(),
            details: None,
            hint: None,
            challenge_id: None,
            other: Object::new(),
        }
    }

    #[must_use]
    pub fn with_challenge(mut self, id: impl Into<String>) -> Self {
        self.challenge_id = Some(id.into());
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn with_details(mut self, details: Object) -> Self {
        self.details = Some(details);
        self
    }

    /// Reads a body of type [`CONTENT_TYPE`].
    pub fn parse(body: &[u8]) -> Result<Self, MppError> {
        Self::from_json(json::parse(body, BODY_LIMITS)?)
    }

    /// Spec: RFC 9457 section 3: every member may be absent, and `type` is then `about:blank`.
    pub fn from_json(json: Json) -> Result<Self, MppError> {
        let mut fields = Fields::of(json)?;
        let uri = fields.optional_string("type")?;
        let kind = ProblemType::from_uri(uri.as_deref().unwrap_or("about:blank"));
        let status = fields.take("status").and_then(|status| status.as_u64());
        Ok(Self {
            title: fields.optional_string("title")?.unwrap_or_else(|| kind.title().to_owned()),
            status: status.and_then(|status| u16::try_from(status).ok()).unwrap_or(kind.status()),
            kind,
            detail: fields.optional_string("detail")?.unwrap_or_default(),
            details: fields.optional_object("details")?,
            hint: fields.optional_string("hint")?,
            challenge_id: fields.optional_string("challengeId")?,
            other: fields.rest(),
        })
    }

    /// The members, in the order of the published package.
    pub fn to_object(&self) -> Object {
        let mut object = Object::new()
            .with("type", self.kind.uri())
            .with("title", self.title.as_str())
            .with("status", u64::from(self.status))
            .with("detail", self.detail.as_str())
            .with_some("details", self.details.clone())
            .with_some("hint", self.hint.as_deref())
            .with_some("challengeId", self.challenge_id.as_deref());
        object.append(&self.other);
        object
    }

    /// Prints a body of type [`CONTENT_TYPE`].
    pub fn print(&self) -> String {
        self.to_object().to_string()
    }
}
