//! Which status answers what, and which headers go with it.
//!
//! Spec: draft-httpauth-payment-00, "Status Codes" and "Caching".

use super::ProblemType;

pub use super::problem::CONTENT_TYPE as PROBLEM_CONTENT_TYPE;

/// `Cache-Control` of every 402: a challenge is for one client and one moment.
pub const CHALLENGE_CACHE_CONTROL: &str = "no-store";
/// `Cache-Control` of every answer with a receipt.
pub const RECEIPT_CACHE_CONTROL: &str = "private";

/// What a server finds out about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Whoever must log in first has not. Checked before the payment, and says nothing of it.
    NotAuthenticated,
    /// A payment is needed, and none was sent.
    NoCredential,
    /// A payment was sent and is not accepted, for this reason.
    Refused(ProblemType),
    /// The payment is good, and access is granted.
    Granted,
    /// The payment is good, and access is denied all the same; or its proof was used before, and a challenge would
    /// make the client pay a second time.
    PaidButDenied,
}

/// How a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 stands for whatever status the resource itself has.
    pub status: u16,
    /// What the body says, if it is a problem of the payment.
    pub problem: Option<ProblemType>,
    /// Whether fresh challenges go with it. A 402 always has them, and nothing but a 402 does.
    pub challenge: bool,
    /// Whether a receipt may go with it. Spec: on success alone.
    pub receipt: bool,
    pub cache_control: Option<&'static str>,
}

/// The answer that the draft demands.
///
/// 402 is for every failure of a payment, also for a credential that cannot be read; 401 for authentication that has
/// nothing to do with payment; 403 for a payment that was good. Problems with a status other than 402 (a method that is
/// not supported, a closed channel, a revert, a fault of ours) carry no challenge: paying again would not mend them.
pub fn answer(condition: &Condition) -> Answer {
    let plain =
        |status| Answer { status, problem: None, challenge: false, receipt: false, cache_control: None };
    match condition {
        Condition::NotAuthenticated => plain(401),
        Condition::NoCredential => refused(&ProblemType::PaymentRequired),
        Condition::Refused(kind) => refused(kind),
        Condition::Granted => {
            Answer { receipt: true, cache_control: Some(RECEIPT_CACHE_CONTROL), ..plain(200) }
        }
        Condition::PaidButDenied => plain(403),
    }
}

fn refused(kind: &ProblemType) -> Answer {
    let status = kind.status();
    Answer {
        status,
        problem: Some(kind.clone()),
        challenge: status == 402,
        receipt: false,
        cache_control: Some(CHALLENGE_CACHE_CONTROL),
    }
}

/// Whether a request with this status may carry a receipt.
///
/// Spec: draft-httpauth-payment-00, "Receipt Status Semantics".
pub fn allows_receipt(status: u16) -> bool {
    (200..300).contains(&status)
}
