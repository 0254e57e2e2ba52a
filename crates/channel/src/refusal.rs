use crate::BadSignature;

/// The problem types of a session, apart from any wire.
///
/// Spec: draft-evm-session-00, "Error Responses".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    InvalidSignature,
    SignerMismatch,
    AmountExceedsDeposit,
    DeltaTooSmall,
    ChannelNotFound,
    ChannelFinalized,
    InsufficientBalance,
    TransactionReverted,
}

impl Problem {
    /// The last part of the problem type's URI, below `session/`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSignature => "invalid-signature",
            Self::SignerMismatch => "signer-mismatch",
            Self::AmountExceedsDeposit => "amount-exceeds-deposit",
            Self::DeltaTooSmall => "delta-too-small",
            Self::ChannelNotFound => "channel-not-found",
            Self::ChannelFinalized => "channel-finalized",
            Self::InsufficientBalance => "insufficient-balance",
            Self::TransactionReverted => "transaction-reverted",
        }
    }
}

impl BadSignature {
    /// What a peer is told.
    pub fn problem(self) -> Problem {
        match self {
            Self::Malformed | Self::NotCanonical => Problem::InvalidSignature,
            Self::OtherSigner => Problem::SignerMismatch,
            Self::OtherChannel => Problem::ChannelNotFound,
        }
    }
}

/// Why a payee does not do what a proven request asks for. The state is as it was.
///
/// It may hold amounts, since only events that carry a proof lead to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the deposit is not as deep in the chain as we ask for")]
    NotConfirmed,
    #[error("there is no such channel")]
    NotFound,
    #[error("the channel is being closed")]
    Closing,
    #[error("the channel is closed")]
    Finalized,
    #[error("the voucher is for less than the {accepted} that were accepted")]
    Decreasing { accepted: u128 },
    #[error("the voucher is for more than the deposit of {deposit}")]
    ExceedsDeposit { deposit: u128 },
    #[error("a voucher adds at least {least} to the {accepted} that were accepted")]
    DeltaTooSmall { accepted: u128, least: u128 },
    #[error("a voucher for {} is needed", .0.required)]
    NeedsVoucher(Need),
    #[error("{0} requests are under way")]
    TooManyInFlight(u16),
    #[error("another stream took the place of this one")]
    StreamEnded,
}

/// What it takes to go on.
///
/// Spec: draft-evm-session-00, "Insufficient Balance During Streaming", the data of `payment-need-voucher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Need {
    /// The least voucher that lets it go on. Beyond the deposit, a top-up has to come first.
    pub required: u128,
    pub accepted: u128,
    pub deposit: u128,
    /// What is spent of it; `None` where the payee does not say.
    pub spent: Option<u128>,
}

impl Need {
    /// The same, where a voucher has to add so much at least, or all that there is: what is asked for is one that would
    /// be accepted.
    ///
    /// Spec: draft-evm-session-00, "Voucher Verification" 7.
    pub fn by_steps(self, min_delta: u128) -> Self {
        let least = self.accepted.saturating_add(min_delta).min(self.deposit);
        Self { required: self.required.max(least), ..self }
    }
}

impl Refusal {
    /// What a peer is told; `None` where no problem of the draft fits: the caller says that it is busy, or ends a stream.
    ///
    /// A decreasing voucher has no type of its own. The draft's letter would answer it as if it were fine and change
    /// nothing; it adds less than it must, and its sender has lost count, so it is told.
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::NotConfirmed | Self::NeedsVoucher(_) => Some(Problem::InsufficientBalance),
            Self::NotFound => Some(Problem::ChannelNotFound),
            Self::Closing | Self::Finalized => Some(Problem::ChannelFinalized),
            Self::Decreasing { .. } | Self::DeltaTooSmall { .. } => Some(Problem::DeltaTooSmall),
            Self::ExceedsDeposit { .. } => Some(Problem::AmountExceedsDeposit),
            Self::TooManyInFlight(_) | Self::StreamEnded => None,
        }
    }
}
