//! Stripe's answers, as far as anything depends on them. What cannot be read is no answer.

use farthing_primitives::Timestamp;
use farthing_wire::json::parse;
use farthing_wire::{Json, Limits, Object};

use crate::api::MAX_ANSWER;

const LIMITS: Limits = Limits { bytes: MAX_ANSWER, values: 200_000, members: 512 };

/// Where a PaymentIntent is.
///
/// Source: Stripe API reference, "The PaymentIntent object", `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Succeeded,
    Canceled,
    /// The money may still come: a bank is at it.
    Processing,
    /// Somebody has to do something first; nothing moves unless they do.
    RequiresAction,
    /// It was declined, and could only be confirmed anew.
    RequiresPaymentMethod,
    /// A status that we do not know.
    Other,
}

/// A PaymentIntent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub id: String,
    pub status: Status,
    pub amount: Option<u64>,
    /// What came of it.
    pub received: Option<u64>,
    pub currency: String,
    pub metadata: Object,
}

/// An error.
///
/// Source: Stripe API reference, "Errors".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// `card_error`, `invalid_request_error`, `idempotency_error`, `api_error`.
    pub kind: String,
    pub code: String,
    pub decline_code: String,
    pub param: String,
    pub intent: Option<Intent>,
}

/// A shared payment token, as its seller sees it.
///
/// Source: Stripe API reference, "The Shared Payment Granted Token object".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Used up, expired, or taken back.
    pub deactivated: bool,
    pub currency: Option<String>,
    pub max_amount: Option<u64>,
    pub expires: Option<Timestamp>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub intents: Vec<Intent>,
    pub has_more: bool,
}

pub(crate) fn object(body: &[u8]) -> Option<Object> {
    match parse(body, LIMITS).ok()? {
        Json::Object(object) => Some(object),
        _ => None,
    }
}

fn text(object: &Object, key: &str) -> String {
    object.get_str(key).unwrap_or_default().to_owned()
}

impl Intent {
    pub fn read(body: &[u8]) -> Option<Self> {
        Self::of(&object(body)?)
    }

    fn of(object: &Object) -> Option<Self> {
        let status = match object.get_str("status")? {
            "succeeded" => Status::Succeeded,
            "canceled" => Status::Canceled,
            "processing" => Status::Processing,
            "requires_action" | "requires_confirmation" | "requires_capture" => Status::RequiresAction,
            "requires_payment_method" => Status::RequiresPaymentMethod,
            _ => Status::Other,
        };
        let id = object.get_str("id").filter(|id| is_intent_id(id))?.to_owned();
        let metadata = object.get("metadata").and_then(Json::as_object).cloned().unwrap_or_default();
        let number = |key| object.get(key).and_then(Json::as_u64);
        Some(Self {
            id,
            status,
            amount: number("amount"),
            received: number("amount_received"),
            currency: text(object, "currency"),
            metadata,
        })
    }

    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get_str(key)
    }
}

/// Whether a text is the id of a PaymentIntent, which goes into paths.
pub fn is_intent_id(id: &str) -> bool {
    id.len() <= 255
        && id.strip_prefix("pi_").is_some_and(|tail| {
            !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

impl Failure {
    /// `None` if the body is no error of Stripe's: a proxy's page, for one; or if it speaks of a charge that cannot be
    /// read, which may have been made.
    pub fn read(body: &[u8]) -> Option<Self> {
        let object = object(body)?;
        let error = object.get("error")?.as_object()?;
        let intent = match error.get("payment_intent") {
            None | Some(Json::Null) => None,
            Some(intent) => Some(Intent::of(intent.as_object()?)?),
        };
        Some(Self {
            kind: text(error, "type"),
            code: text(error, "code"),
            decline_code: text(error, "decline_code"),
            param: text(error, "param"),
            intent,
        })
    }
}

impl Granted {
    pub fn read(body: &[u8]) -> Option<Self> {
        let object = object(body)?;
        object.get_str("id")?;
        let limits = object.get("usage_limits").and_then(Json::as_object);
        let number = |key| limits?.get(key)?.as_u64();
        Some(Self {
            deactivated: object.get("deactivated_at").is_some_and(|at| !at.is_null()),
            currency: limits.and_then(|limits| limits.get_str("currency")).map(str::to_owned),
            max_amount: number("max_amount"),
            expires: number("expires_at").map(Timestamp::from_secs),
        })
    }
}

impl Page {
    pub fn read(body: &[u8]) -> Option<Self> {
        let object = object(body)?;
        let data = object.get("data")?.as_array()?;
        // One that cannot be read may be the very one that is looked for.
        let intents = data.iter().map(|json| Intent::of(json.as_object()?)).collect::<Option<Vec<_>>>()?;
        Some(Self { intents, has_more: object.get("has_more")?.as_bool()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a charge may be made, whatever else the error says.
    #[test]
    fn an_error_with_a_charge_that_cannot_be_read_is_no_answer() {
        let error = |intent: &str| {
            format!(r#"{{"error":{{"type":"card_error","code":"card_declined","payment_intent":{intent}}}}}"#)
        };
        let read =
            |intent: &str| Failure::read(error(intent).as_bytes()).map(|failure| failure.intent.is_some());
        assert_eq!(read(r#"{"id":"pi_1","status":"canceled"}"#), Some(true));
        assert_eq!(read("null"), Some(false));
        for odd in [r#"{"id":"pi_../x","status":"succeeded"}"#, r#"{"id":"pi_1"}"#, r#""pi_1""#, "[]"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
