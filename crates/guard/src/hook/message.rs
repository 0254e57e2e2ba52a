//! What a message that asks for a freeze says, and whether somebody signed it who may.

use farthing_approval::{ApproverKey, PublicKey};
use farthing_primitives::Timestamp;
use farthing_wire::webhook::{HeaderError, Headers, ID, SIGNATURE, Secret, TIMESTAMP, shown, signed};
use farthing_wire::{Json, Limits};
use serde::Deserialize;
use serde_json::json;

use crate::whom::{Whom, WhomRecord};

/// What a message says that it is.
pub const HOOK_EVENT: &str = "wallet.freeze";

/// The longest message, in bytes, and what it may cost to read.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024;
const LIMITS: Limits = Limits { bytes: MAX_MESSAGE_BYTES, values: 16, members: 8 };

/// A message that asks for a freeze, signed by the owner's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub headers: [(&'static str, String); 3],
    pub body: String,
}

impl Signed {
    /// `id` is another for each message, and the same where one is sent again.
    pub fn by(owner: &ApproverKey, id: &str, whom: &Whom, now: Timestamp) -> Self {
        let body = json!({ "type": HOOK_EVENT, "data": WhomRecord::of(whom) }).to_string();
        let timestamp = now.secs().to_string();
        let signature = shown("v1a", &owner.sign(&signed(id, &timestamp, body.as_bytes())));
        let headers = [(ID, id.to_owned()), (TIMESTAMP, timestamp), (SIGNATURE, signature)];
        Self { headers, body }
    }
}

/// Why a message is not obeyed. [`HookError::code`] is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    #[error("a message has one webhook-id, one webhook-timestamp and one webhook-signature")]
    Headers,
    #[error("the message is from another time")]
    Time,
    #[error("no signature of the message is good")]
    Signature,
    #[error("the message asks for nothing that can be done here")]
    Message,
}

impl HookError {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Headers => "headers_malformed",
            Self::Time => "timestamp_refused",
            Self::Signature => "signature_wrong",
            Self::Message => "message_malformed",
        }
    }
}

impl From<HeaderError> for HookError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Malformed => Self::Headers,
            HeaderError::Time => Self::Time,
        }
    }
}

/// Who may freeze by a message.
#[derive(Debug)]
pub(crate) struct Signers {
    pub secret: Option<Secret>,
    pub owner: Option<PublicKey>,
}

/// What a message says, once its signature was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub id: String,
    pub whom: Whom,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    r#type: String,
    /// When what it tells of happened. Spec: Standard Webhooks, "Payload structure".
    #[serde(default, rename = "timestamp")]
    _timestamp: Option<String>,
    data: WhomRecord,
}

impl Signers {
    /// Reads a message, if one of these signed it.
    pub fn hear(&self, shown: &Headers, body: &[u8]) -> Result<Heard, HookError> {
        let is_owners = |content: &[u8], signature: &[u8]| {
            self.owner.as_ref().is_some_and(|owner| owner.verifies(content, signature))
        };
        if !shown.is_signed(body, self.secret.as_ref(), is_owners) {
            return Err(HookError::Signature);
        }
        // Twice: for what it may cost and for names that come twice, and for what it says.
        let shape = farthing_wire::json::parse(body, LIMITS).map_err(|_| HookError::Message)?;
        // Of a list serde takes the values by their order, as no other reader does.
        let data = shape.as_object().and_then(|message| message.get("data"));
        data.and_then(Json::as_object).ok_or(HookError::Message)?;
        let message: Message = serde_json::from_slice(body).map_err(|_| HookError::Message)?;
        let whom = message.data.read().filter(|_| message.r#type == HOOK_EVENT).ok_or(HookError::Message)?;
        Ok(Heard { id: shown.id().to_owned(), whom })
    }
}
