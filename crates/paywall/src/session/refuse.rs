//! What a session's client is told when something is not done.

use farthing_channel::{ChannelId, Need, Problem as Found, Refusal};
use farthing_engine::TillError;
use farthing_wire::Object;
use farthing_wire::mpp::ProblemType;
use farthing_wire::mpp::sse::NeedVoucher;
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};

use crate::answer::{self, RETRY_PENDING_SECS};
use crate::body::PaywallBody;

/// How a refusal is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// A problem of the session. With status 402 it carries fresh challenges.
    Problem { kind: ProblemType, code: String, also: Object },
    /// Everything else is a whole answer by itself.
    Plain { status: StatusCode, code: &'static str, message: &'static str, retry_secs: Option<u64> },
}

/// Spec: draft-evm-session-00, "Error Responses". Amounts are told only where the error comes after the signature.
pub(super) fn told(error: &TillError, channel: ChannelId) -> Told {
    let plain = |status, code, message, retry_secs| Told::Plain { status, code, message, retry_secs };
    let busy = StatusCode::TOO_MANY_REQUESTS;
    match error {
        // The money is there, or on its way: to ask for more of it would be to have it paid twice.
        TillError::Refused(Refusal::NotConfirmed) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "deposit_not_confirmed",
            "the deposit is not deep enough in the chain yet: show the same again, and deposit no other",
            Some(RETRY_PENDING_SECS),
        ),
        TillError::Refused(Refusal::TooManyInFlight(_)) => {
            plain(busy, "too_many_in_flight", "too many requests of this channel are under way", Some(1))
        }
        TillError::UnderWay(_) => plain(
            StatusCode::CONFLICT,
            "in_progress",
            "this request is being served already: ask again with the same voucher",
            Some(1),
        ),
        TillError::AnswerGone(_) => plain(
            StatusCode::CONFLICT,
            "answer_gone",
            "this request was served and paid, and its answer is not kept any more",
            None,
        ),
        TillError::Unavailable(_) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "session_unavailable",
            "not available now: show the same again",
            Some(answer::RETRY_UNAVAILABLE_SECS),
        ),
        TillError::AnswerTooLong => plain(
            StatusCode::BAD_GATEWAY,
            "upstream_response_too_large",
            "the service's answer is longer than what is kept; nothing was charged",
            None,
        ),
        TillError::NotRunning | TillError::Refused(Refusal::StreamEnded) => plain(
            StatusCode::CONFLICT,
            "interrupted",
            "the channel was closed, or the service was interrupted; nothing was charged",
            None,
        ),
        TillError::TooManyUnits => plain(
            StatusCode::BAD_GATEWAY,
            "upstream_units_unknown",
            "the service counted more units than a request may take; nothing was charged",
            None,
        ),
        TillError::Malformed(_) => Told::Problem {
            kind: ProblemType::BadRequest,
            code: "invalid_payload".to_owned(),
            also: named(channel),
        },
        error => match error.problem() {
            Some(found) => Told::Problem {
                kind: kind(found),
                code: found.as_str().replace('-', "_"),
                also: amounts(error, channel),
            },
            None => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "session_unavailable",
                "not available now: show the same again",
                Some(answer::RETRY_UNAVAILABLE_SECS),
            ),
        },
    }
}

/// Whether the payer brought it about, and more of the same is to be slowed down.
pub(super) fn is_payers(error: &TillError) -> bool {
    !matches!(
        error,
        TillError::Refused(Refusal::NeedsVoucher(_) | Refusal::NotConfirmed | Refusal::TooManyInFlight(_))
            | TillError::UnderWay(_)
            | TillError::AnswerGone(_)
            | TillError::AnswerTooLong
            | TillError::TooManyUnits
            | TillError::NotRunning
            | TillError::Unavailable(_)
    )
}

impl Told {
    /// The answer, where no challenge goes with it; `None` for a 402.
    pub fn answer(&self) -> Option<Response<PaywallBody>> {
        match self {
            Self::Problem { kind, .. } if kind.status() == StatusCode::PAYMENT_REQUIRED.as_u16() => None,
            Self::Problem { kind, code, also } => {
                let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::BAD_REQUEST);
                Some(answer::problem_with(status, kind.clone(), code, kind.title(), also))
            }
            Self::Plain { status, code, message, retry_secs } => {
                let mut answer = answer::error(*status, code, message);
                if let Some(secs) = retry_secs {
                    answer.headers_mut().insert(RETRY_AFTER, (*secs).into());
                }
                Some(answer)
            }
        }
    }
}

fn kind(found: Found) -> ProblemType {
    match found {
        Found::InvalidSignature => ProblemType::InvalidSignature,
        Found::SignerMismatch => ProblemType::SignerMismatch,
        Found::AmountExceedsDeposit => ProblemType::AmountExceedsDeposit,
        Found::DeltaTooSmall => ProblemType::DeltaTooSmall,
        Found::ChannelNotFound => ProblemType::ChannelNotFound,
        Found::ChannelFinalized => ProblemType::ChannelFinalized,
        Found::InsufficientBalance => ProblemType::InsufficientBalance,
        Found::TransactionReverted => ProblemType::TransactionReverted,
    }
}

fn named(channel: ChannelId) -> Object {
    Object::new().with("channelId", channel.to_string())
}

/// What a voucher has to cover, in the draft's words.
pub(super) fn needs(channel: ChannelId, need: &Need) -> NeedVoucher {
    NeedVoucher {
        channel_id: channel.0,
        required_cumulative: need.required,
        accepted_cumulative: need.accepted,
        deposit: need.deposit,
        spent: need.spent,
    }
}

/// What the bearer of a good voucher may know: [`Refusal`] comes after its signature alone.
fn amounts(error: &TillError, channel: ChannelId) -> Object {
    let object = named(channel);
    match error {
        TillError::Refused(Refusal::NeedsVoucher(need)) => needs(channel, need).to_object(),
        TillError::Refused(Refusal::Decreasing { accepted }) => {
            object.with("acceptedCumulative", accepted.to_string())
        }
        TillError::Refused(Refusal::DeltaTooSmall { accepted, least }) => {
            object.with("acceptedCumulative", accepted.to_string()).with("minVoucherDelta", least.to_string())
        }
        TillError::Refused(Refusal::ExceedsDeposit { deposit }) => {
            object.with("deposit", deposit.to_string())
        }
        _ => object,
    }
}
