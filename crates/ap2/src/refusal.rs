use farthing_primitives::Timestamp;
use farthing_wire::JsonError;

use crate::chain::Family;

/// A refusal, and where in what was presented its reason is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    pub family: Family,
    /// Which signature of the chain, counted from 0; none if it is about the whole of it.
    pub hop: Option<usize>,
    pub why: Refusal,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = self.family.word();
        match self.hop {
            Some(hop) => write!(f, "{family} mandate, hop {hop}: {}", self.why),
            None => write!(f, "{family} mandate: {}", self.why),
        }
    }
}

/// Why a mandate does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("no chain of SD-JWTs: each ends in ~, and ~~ is between them")]
    Form,
    #[error("more than {limit} hops")]
    TooManyHops { limit: usize },
    #[error("more than {limit} disclosures in one hop")]
    TooManyDisclosures { limit: usize },
    #[error("nested deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("no JSON that two readers read alike: {0}")]
    Json(JsonError),
    #[error("no base64url without padding")]
    Base64,
    #[error("the header's {0} is not as it has to be")]
    Header(&'static str),
    #[error("not signed with ES256")]
    Algorithm,
    #[error("the header's typ is not the one of this place in the chain")]
    Typ,
    #[error("signed by nobody who is trusted here")]
    UntrustedRoot,
    #[error("the signature does not fit the key")]
    Signature,
    #[error("the key in cnf is no public key of P-256 for ES256")]
    Key,
    #[error("names no key that may go on from here (cnf)")]
    NoCnf,
    #[error("names a key (cnf) where nothing may go on")]
    UnexpectedCnf,
    #[error("has to have exactly one of sd_hash and issuer_jwt_hash")]
    BindingClaim,
    #[error("was signed for another mandate than the one before it")]
    Binding,
    #[error("is for another audience")]
    Audience,
    #[error("answers another nonce")]
    Nonce,
    #[error("the claim {0} is missing or is not what it has to be")]
    Claim(&'static str),
    #[error("_sd_alg is none of sha-256, sha-384 and sha-512")]
    HashAlgorithm,
    #[error("a disclosure, or the place of one, is malformed")]
    Disclosure,
    #[error("a disclosure that nothing signed refers to")]
    UnusedDisclosure,
    #[error("a digest occurs twice")]
    RepeatedDigest,
    #[error("delegate_payload has to show exactly one mandate")]
    DelegatePayload,
    #[error("withholds something that decides")]
    Withheld,
    #[error("is valid from {at}")]
    NotYetValid { at: Timestamp },
    #[error("ended at {at}")]
    Expired { at: Timestamp },
    #[error("was signed at {at}, which is too long ago for an answer to a nonce")]
    TooOld { at: Timestamp },
    #[error("can be revoked (status), and nobody here can ask whether it was")]
    StatusUnchecked,
    #[error("vct is not that of a mandate of this kind and version")]
    Vct,
    #[error("a chain is open mandates and then one closed one")]
    Order,
    #[error("is signed for no audience and no nonce; it counts only where direct mandates are asked for")]
    Unbound,
    #[error("the member {0} is missing or is not what it has to be")]
    Member(&'static str),
    #[error("{0} is no whole number of minor units, zero or more, with a currency")]
    Amount(&'static str),
    #[error("{0} is no RFC 3339 date and time")]
    Date(&'static str),
    #[error("a constraint without a type")]
    ConstraintType,
    #[error("a constraint that nobody here can judge: {0}")]
    UnknownConstraint(String),
    #[error("{constraint}: {member} is missing, unknown, or not what it has to be")]
    ConstraintForm { constraint: &'static str, member: String },
    #[error("has no {0}, and has to")]
    RequiredConstraint(&'static str),
    #[error("{0} shows none of what it allows, so it allows nothing")]
    NothingDisclosed(&'static str),
    #[error("the merchant is none of those allowed")]
    Merchant,
    #[error("what is in the checkout is not, to the piece, what was asked for")]
    LineItems,
    #[error("the amount is outside what is allowed, or in another currency")]
    AmountRange,
    #[error("the payee is none of those allowed")]
    Payee,
    #[error("the payment instrument is none of those allowed")]
    Instrument,
    #[error("the payment initiation service is none of those allowed")]
    Pisp,
    #[error("the payment is for another open checkout mandate")]
    Reference,
    #[error("the payment is for one open checkout mandate, and it is not said which one this checkout has")]
    ReferenceUnresolved,
    #[error("is to be executed outside its time")]
    ExecutionDate,
    #[error("comes too soon after the one before, or once too often")]
    Recurrence,
    #[error("is more than is left of the budget, or in another currency")]
    Budget,
    #[error("{0} is not what the open mandate says")]
    PresetChanged(String),
    #[error("checkout_hash is not the hash of this checkout")]
    CheckoutHash,
    #[error("the checkout's signature is not the merchant's")]
    CheckoutSignature,
    #[error("the checkout's {0} is missing or is not what it has to be")]
    CheckoutForm(&'static str),
    #[error("no key is known of the checkout's merchant")]
    MerchantUnknown,
    #[error("transaction_id is not the hash of this checkout")]
    TransactionId,
    #[error("the payee is not the checkout's merchant")]
    PayeeDiffers,
    #[error("the amount is not the checkout's total")]
    TotalDiffers,
    #[error("was presented before")]
    Replayed,
    #[error("an open mandate that may be used once was used before")]
    OpenUsed,
    #[error("this checkout was paid by the same open mandate before")]
    TransactionUsed,
}

impl Refusal {
    /// A stable name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "ap2_too_long",
            Self::Form => "ap2_form",
            Self::TooManyHops { .. } => "ap2_too_many_hops",
            Self::TooManyDisclosures { .. } => "ap2_too_many_disclosures",
            Self::TooDeep { .. } => "ap2_too_deep",
            Self::Json(_) => "ap2_json",
            Self::Base64 => "ap2_base64",
            Self::Header(_) => "ap2_header",
            Self::Algorithm => "ap2_algorithm",
            Self::Typ => "ap2_typ",
            Self::UntrustedRoot => "ap2_untrusted_root",
            Self::Signature => "ap2_signature",
            Self::Key => "ap2_key",
            Self::NoCnf => "ap2_cnf_missing",
            Self::UnexpectedCnf => "ap2_cnf_unexpected",
            Self::BindingClaim => "ap2_binding_claim",
            Self::Binding => "ap2_binding",
            Self::Audience => "ap2_audience",
            Self::Nonce => "ap2_nonce",
            Self::Claim(_) => "ap2_claim",
            Self::HashAlgorithm => "ap2_hash_algorithm",
            Self::Disclosure => "ap2_disclosure",
            Self::UnusedDisclosure => "ap2_unused_disclosure",
            Self::RepeatedDigest => "ap2_repeated_digest",
            Self::DelegatePayload => "ap2_delegate_payload",
            Self::Withheld => "ap2_withheld",
            Self::NotYetValid { .. } => "ap2_not_yet_valid",
            Self::Expired { .. } => "ap2_expired",
            Self::TooOld { .. } => "ap2_too_old",
            Self::StatusUnchecked => "ap2_status_unchecked",
            Self::Vct => "ap2_vct",
            Self::Order => "ap2_mandate_order",
            Self::Unbound => "ap2_unbound",
            Self::Member(_) => "ap2_member",
            Self::Amount(_) => "ap2_amount",
            Self::Date(_) => "ap2_date",
            Self::ConstraintType => "ap2_constraint_type",
            Self::UnknownConstraint(_) => "ap2_unknown_constraint",
            Self::ConstraintForm { .. } => "ap2_constraint_form",
            Self::RequiredConstraint(_) => "ap2_required_constraint",
            Self::NothingDisclosed(_) => "ap2_nothing_disclosed",
            Self::Merchant => "ap2_merchant",
            Self::LineItems => "ap2_line_items",
            Self::AmountRange => "ap2_amount_range",
            Self::Payee => "ap2_payee",
            Self::Instrument => "ap2_instrument",
            Self::Pisp => "ap2_pisp",
            Self::Reference => "ap2_reference",
            Self::ReferenceUnresolved => "ap2_reference_unresolved",
            Self::ExecutionDate => "ap2_execution_date",
            Self::Recurrence => "ap2_recurrence",
            Self::Budget => "ap2_budget",
            Self::PresetChanged(_) => "ap2_preset_changed",
            Self::CheckoutHash => "ap2_checkout_hash",
            Self::CheckoutSignature => "ap2_checkout_signature",
            Self::CheckoutForm(_) => "ap2_checkout_form",
            Self::MerchantUnknown => "ap2_merchant_unknown",
            Self::TransactionId => "ap2_transaction_id",
            Self::PayeeDiffers => "ap2_payee_differs",
            Self::TotalDiffers => "ap2_total_differs",
            Self::Replayed => "ap2_replayed",
            Self::OpenUsed => "ap2_open_used",
            Self::TransactionUsed => "ap2_transaction_used",
        }
    }

    /// The error of AP2 that a receipt says.
    ///
    /// Spec: AP2 agent_authorization.md, "Errors".
    pub const fn ap2_error(&self) -> &'static str {
        match self {
            // "... an unknown constraint, or the Verifier is unable to verify that the closed Mandate conforms".
            Self::ConstraintType
            | Self::UnknownConstraint(_)
            | Self::ConstraintForm { .. }
            | Self::RequiredConstraint(_)
            | Self::NothingDisclosed(_)
            | Self::Withheld
            | Self::ReferenceUnresolved => "unresolved_constraint",
            // "... fails to approve the requested action".
            Self::Merchant
            | Self::LineItems
            | Self::AmountRange
            | Self::Payee
            | Self::Instrument
            | Self::Pisp
            | Self::Reference
            | Self::ExecutionDate
            | Self::Recurrence
            | Self::Budget
            | Self::PresetChanged(_)
            | Self::CheckoutHash
            | Self::CheckoutSignature
            | Self::CheckoutForm(_)
            | Self::MerchantUnknown
            | Self::TransactionId
            | Self::PayeeDiffers
            | Self::TotalDiffers
            | Self::Replayed
            | Self::OpenUsed
            | Self::TransactionUsed => "invalid_mandate",
            // "... fails verification".
            _ => "invalid_credential",
        }
    }
}

/// A stranger's word, short and plain enough to be said again.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}
