use farthing_primitives::{AttemptId, RefundId, RequestHash};

use crate::{Proof, Reason, TxRef};

/// Something that happened to a payment. Events report; they never ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The chain says that the payment would settle now.
    FundsConfirmed,
    /// It would not; or nobody may ask for it any more.
    FundsRefused(Reason),
    /// The upstream is about to be called.
    CallStarted,
    /// The upstream's complete, chargeable answer is part of this commit.
    CallStored,
    /// The answer was streamed to the payer, or a stored one left.
    Sent,
    /// The upstream gave nothing worth charging for.
    CallFailed(Reason),
    /// We cannot know what the upstream did, and may not call it again.
    CallLost(Reason),
    /// The same payment was shown again for the same request after a refusal that kept the claim.
    Represented { request: RequestHash },
    /// An attempt is part of this commit and will be visible to others after it.
    AttemptStarted { attempt: AttemptId, tx: Option<TxRef> },
    /// The attempt can certainly move no money any more, another transaction fills its slot; and this one, which is
    /// part of this commit, takes its place.
    AttemptReplaced { dropped: AttemptId, attempt: AttemptId, tx: Option<TxRef> },
    /// The same, and no other takes its place.
    AttemptDropped { attempt: AttemptId },
    /// The transfer is in a block; `deep` tells whether as deep as the amount asks for.
    Included { proof: Proof, deep: bool },
    /// The attempt was included and moved nothing, or the facilitator refused it.
    Reverted { reason: Reason, tx: Option<TxRef> },
    /// It took too long, or the answer was ambiguous.
    Unclear { tx: Option<TxRef> },
    /// The block with the transfer is gone.
    Reorged,
    /// The authorization has expired unused, deep enough: no money moved and none will.
    Dead(Reason),
    /// A refund is part of this commit and will be visible after it.
    RefundStarted { refund: RefundId, tx: Option<TxRef> },
    /// The refund's transfer is in a block, too deep to be reorganized.
    RefundIncluded { proof: Proof },
    /// The refund's transaction moved nothing, and its authorization lives: another one for the same authorization is
    /// part of this commit.
    RefundReplaced { tx: Option<TxRef> },
    /// The refund's authorization has ended unused, deep enough: it moved nothing and cannot any more.
    RefundDropped,
}

impl Event {
    /// The stable name that is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FundsConfirmed => "funds_confirmed",
            Self::FundsRefused(_) => "funds_refused",
            Self::CallStarted => "call_started",
            Self::CallStored => "call_stored",
            Self::Sent => "sent",
            Self::CallFailed(_) => "call_failed",
            Self::CallLost(_) => "call_lost",
            Self::Represented { .. } => "represented",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::AttemptReplaced { .. } => "attempt_replaced",
            Self::AttemptDropped { .. } => "attempt_dropped",
            Self::Included { deep: false, .. } => "included",
            Self::Included { deep: true, .. } => "included_deep",
            Self::Reverted { .. } => "reverted",
            Self::Unclear { .. } => "unclear",
            Self::Reorged => "reorged",
            Self::Dead(_) => "dead",
            Self::RefundStarted { .. } => "refund_started",
            Self::RefundIncluded { .. } => "refund_included",
            Self::RefundReplaced { .. } => "refund_replaced",
            Self::RefundDropped => "refund_dropped",
        }
    }
}
