//! The words of an answer, apart from how it was come by.

use std::time::Duration;

use bytes::Bytes;
use farthing_wire::Object;
use farthing_wire::x402::facilitator::{SettleResponse, VerifyResponse};
use farthing_wire::x402::{ErrorCode, Message};
use http::StatusCode;

/// What goes back over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    /// When the same request may be sent again.
    pub retry_after: Option<Duration>,
}

/// What was asked, for answers that come before anything was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Verify,
    Settle,
}

/// How long to wait before asking again, where nothing says how long.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// The code for a request that was too large.
pub(crate) const TOO_LARGE: &str = "request_too_large";
/// The code for a request without a key, or with a wrong one.
pub(crate) const UNAUTHORIZED: &str = "unauthorized";
/// The code for a request that does not say that it is JSON.
pub(crate) const NOT_JSON: &str = "unsupported_media_type";
pub(crate) const TOO_SLOW: &str = "request_timeout";
pub(crate) const RATE_LIMITED: &str = "rate_limited";
pub(crate) const TOO_MANY_SETTLEMENTS: &str = "too_many_settlements";
pub(crate) const GAS_BUDGET: &str = "gas_budget_exhausted";
pub(crate) const COOLING: &str = "payer_cooling_down";

impl Answer {
    fn new(status: StatusCode, message: &impl Message) -> Self {
        Self { status, body: message.print().into(), retry_after: None }
    }

    pub fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn json(status: StatusCode, object: Object) -> Self {
        Self { status, body: object.to_string().into(), retry_after: None }
    }

    pub fn valid(payer: &str) -> Self {
        Self::new(StatusCode::OK, &VerifyResponse::valid(payer))
    }

    pub fn invalid(status: StatusCode, code: ErrorCode, payer: Option<&str>) -> Self {
        Self::new(status, &VerifyResponse::invalid(code, payer))
    }

    pub fn settlement(status: StatusCode, response: &SettleResponse) -> Self {
        Self::new(status, response)
    }

    /// An answer in the form of the question, with nothing known of the payment.
    pub fn refusal(question: Question, status: StatusCode, code: ErrorCode) -> Self {
        match question {
            Question::Verify => Self::invalid(status, code, None),
            Question::Settle => Self::settlement(status, &SettleResponse::failed("", code, None)),
        }
    }
}
