//! What crosses the socket: one JSON object a line, each way.
//!
//! An agent's line is `{"id":1,"do":"authorize","with":{…}}`, and the guard's `{"id":1,"ok":{…}}` or
//! `{"id":1,"error":{"code":"…","message":"…"}}`. Several requests may be under way on one connection, and answers come
//! in any order. The records are versioned types of their own; what is not known is an error on both sides.
//! `docs/reference/guard.md` says it for whoever writes a client in another language.

mod books;
mod records;
mod request;

use std::time::Duration;

use farthing_policy::{Decision, Fact};
use farthing_wallet::Denied;
use farthing_wallet::journal::JournalError;
use farthing_wallet::journal::approvals::ApprovalError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use books::*;
pub use records::*;
pub(crate) use request::parse;

/// The version of everything here.
pub const VERSION: u32 = 1;

/// The longest line, in bytes, either way.
pub const MAX_LINE_BYTES: usize = 512 * 1024;

/// How long a line may take from its first byte to its last.
pub const LINE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may be open before it says who it is.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// How many requests of one connection are worked on at once. What comes beyond that is not read yet.
pub const MAX_IN_FLIGHT: usize = 32;

/// How many connections one agent may have.
pub const MAX_CONNECTIONS_PER_AGENT: usize = 64;

/// How many wrong tokens one peer may show within [`WRONG_TOKENS_WITHIN`].
pub const MAX_WRONG_TOKENS: u32 = 8;
pub const WRONG_TOKENS_WITHIN: Duration = Duration::from_secs(60);

/// The longest text of an offer, in bytes.
pub const MAX_OFFER_BYTES: usize = 256 * 1024;

/// The longest URL of a purchase, in bytes.
pub const MAX_URL_BYTES: usize = 8 * 1024;

/// The longest receipt of a seller that is written down, in bytes.
pub const MAX_RECEIPT_BYTES: usize = 64 * 1024;

/// The longest note on a purchase that is written down, in characters.
pub const MAX_NOTE_CHARS: usize = 300;

/// How many purchases or channels one answer lists.
pub const MAX_LISTED: usize = 24;

/// How many purchases the latest ones go back.
pub const MAX_HISTORY_ROWS: u32 = 100;

/// The longest name of a call, in bytes.
pub const MAX_CALL_NAME_BYTES: usize = 128;

/// How many names of calls one agent may bind within [`CALL_NAMES_WITHIN`]: each is kept for a day.
pub const MAX_CALL_NAMES: u32 = 3_600;

/// How many hosts and payees one line says that somebody else named.
pub const MAX_NAMES_A_LINE: usize = 256;
pub const CALL_NAMES_WITHIN: Duration = Duration::from_secs(3_600);

/// How long an agent waits for an answer. Without one it is denied.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The longest name of a front.
pub const MAX_FRONT_LEN: usize = 64;

/// A request, as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked<'a> {
    pub id: u64,
    #[serde(rename = "do")]
    pub what: String,
    #[serde(borrow, default)]
    pub with: Option<&'a RawValue>,
}

/// A request, as it is written.
#[derive(Debug, Serialize)]
pub(crate) struct Asking<'a, T: ?Sized> {
    pub id: u64,
    #[serde(rename = "do")]
    pub what: &'a str,
    pub with: &'a T,
}

/// An answer, as it is written.
#[derive(Debug, Serialize)]
pub(crate) struct Answering<'a, T: ?Sized> {
    /// `None` where a request could not be read.
    pub id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<&'a T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a Refusal>,
}

/// An answer, as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answered {
    pub id: Option<u64>,
    #[serde(default)]
    pub ok: Option<Box<RawValue>>,
    #[serde(default)]
    pub error: Option<Refusal>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Refusal {
    /// A stable name for programs.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// What the rules found, where they decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<FindingRecord>>,
}

impl Refusal {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), findings: None }
    }

    /// What cannot be read, or must not be sent.
    pub fn malformed(what: impl std::fmt::Display) -> Self {
        Self::new("malformed", what.to_string())
    }

    pub fn not_found() -> Self {
        Self::new("not_found", "there is no such thing of yours")
    }

    pub fn unavailable() -> Self {
        Self::new("authorizer_unavailable", "the authorizer cannot be asked")
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Policy(decision) => Self {
                code: Denied::Policy(decision.clone()).code().to_owned(),
                message: decision.to_string(),
                findings: Some(DecisionRecord::of(&decision).findings),
            },
            Denied::Approval(ApprovalError::NotAsked(decision)) => Self {
                code: decision.denials().next().map_or("approval_not_needed", Fact::code).to_owned(),
                message: decision.to_string(),
                findings: (!decision.is_allowed()).then(|| DecisionRecord::of(&decision).findings),
            },
            // How the books are kept is no agent's business.
            Denied::Approval(ApprovalError::Journal(error)) => Self::from(Denied::Journal(error)),
            // What is another's is not told apart from what is nobody's.
            Denied::Journal(JournalError::NotFound(_) | JournalError::NoChannel(_)) => Self::not_found(),
            Denied::Journal(JournalError::Corrupt("attempt")) => Self::not_found(),
            Denied::Journal(JournalError::Transition { .. }) => Self::new("wrong_state", denied.to_string()),
            Denied::Journal(
                JournalError::Frozen
                | JournalError::Revoked(_)
                | JournalError::OverMax { .. }
                | JournalError::Channel(_)
                | JournalError::SessionKey(_),
            ) => Self::new(denied.code(), denied.to_string()),
            // How the books are kept is no agent's business.
            Denied::Journal(error) => {
                tracing::error!(%error, "the wallet's journal cannot be used");
                Self::unavailable()
            }
            other => Self::new(other.code(), other.to_string()),
        }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        match (refusal.code.as_str(), refusal.findings) {
            (_, Some(findings)) => {
                let decision = Decision::from_findings(findings.into_iter().map(Into::into).collect());
                // Whatever the findings say: it was refused.
                match decision.is_allowed() {
                    false => Self::Policy(Box::new(decision)),
                    true => Self::Told { code: refusal.code, text: refusal.message },
                }
            }
            ("authorizer_unavailable", None) => Self::Unavailable,
            (_, None) => Self::Told { code: refusal.code, text: refusal.message },
        }
    }
}
