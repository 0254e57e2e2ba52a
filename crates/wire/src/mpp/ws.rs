//! Frames of a metered stream over WebSocket, in both framings that are in use. No draft defines one.
//!
//! The published TypeScript package tells frames apart by `mpp`, the published Rust package by `type`; a reader finds
//! out which it is spoken to in.

use super::sse::NeedVoucher;
use super::{Challenge, MAX_CREDENTIAL_BYTES, MppError, Receipt};
use crate::json::{self, Limits};
use crate::x402::fields::{self, Fields};
use crate::{Json, Object};

/// The longest frame that we read, in bytes: a credential, or a piece of what was bought.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;
/// How many bytes may wait for the other side to read them, answers to its pings among them: who sends pings and reads
/// nothing would else fill our memory. A whole frame always fits behind what is gathered for one write.
pub const MAX_UNREAD_BYTES: usize = 2 * MAX_FRAME_BYTES;
/// How many frames of a client may wait to be looked at: the published package's limit.
pub const MAX_QUEUED_FRAMES: usize = 32;

const LIMITS: Limits = Limits { bytes: MAX_FRAME_BYTES, values: 8192, members: 256 };

/// Whose frames they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// `{"mpp": …}`, as mppx speaks after a 402 over HTTP.
    Mppx,
    /// `{"type": …}`, as the crate `mpp` speaks.
    MppRs,
}

/// What a frame says, in either framing.
#[derive(Clone, PartialEq)]
pub enum Frame {
    /// Client to server: the value of an `Authorization` header.
    Credential(String),
    /// Server to client; only in [`Framing::MppRs`].
    Challenge {
        challenge: Box<Challenge>,
        error: Option<String>,
    },
    /// What was bought, or what the application says. Text in all but the client's frames of [`Framing::MppRs`].
    Message(Json),
    NeedVoucher(NeedVoucher),
    Receipt(Box<Receipt>),
    /// Client to server: let us end; only in [`Framing::Mppx`].
    CloseRequest,
    /// Server to client: what a close must cover; only in [`Framing::Mppx`].
    CloseReady(Box<Receipt>),
    /// `status` is there in [`Framing::Mppx`].
    Error {
        status: Option<u16>,
        message: String,
    },
}

impl Frame {
    /// Reads a frame, and says which framing it is in.
    ///
    /// # Errors
    /// [`MppError::Unknown`] for what is a frame of neither: the application may know it.
    pub fn parse(text: &[u8]) -> Result<(Framing, Self), MppError> {
        let Json::Object(object) = json::parse(text, LIMITS)? else {
            return Err(MppError::wrong_type("frame", "an object"));
        };
        match (object.get("mpp"), object.get("type")) {
            (Some(Json::String(kind)), _) => Ok((Framing::Mppx, Self::mppx(&kind.clone(), object)?)),
            (None, Some(Json::String(kind))) => Ok((Framing::MppRs, Self::mpp_rs(&kind.clone(), object)?)),
            _ => Err(MppError::Unknown { field: "frame" }),
        }
    }

    fn mppx(kind: &str, object: Object) -> Result<Self, MppError> {
        let receipt = || {
            let data = fields::object(&object, "data")?.clone();
            Ok::<_, MppError>(Box::new(Receipt::from_json(Json::Object(data))?))
        };
        match kind {
            "authorization" => Ok(Self::Credential(credential(&object, "authorization")?)),
            "message" => Ok(Self::Message(fields::text(&object, "data")?.into())),
            "payment-need-voucher" => {
                Ok(Self::NeedVoucher(NeedVoucher::from_object(fields::object(&object, "data")?)?))
            }
            "payment-receipt" => Ok(Self::Receipt(receipt()?)),
            "payment-close-request" => Ok(Self::CloseRequest),
            "payment-close-ready" => Ok(Self::CloseReady(receipt()?)),
            "payment-error" => {
                let status = object.get("status").and_then(Json::as_u64);
                let status = status.and_then(|status| u16::try_from(status).ok());
                Ok(Self::Error {
                    status: Some(status.ok_or(MppError::wrong_type("status", "an HTTP status"))?),
                    message: fields::text(&object, "message")?.to_owned(),
                })
            }
            _ => Err(MppError::Unknown { field: "frame" }),
        }
    }

    fn mpp_rs(kind: &str, object: Object) -> Result<Self, MppError> {
        let mut fields = Fields::of(Json::Object(object))?;
        match kind {
            "credential" => Ok(Self::Credential(credential(&fields.rest(), "credential")?)),
            "challenge" => Ok(Self::Challenge {
                challenge: Box::new(Challenge::from_json(fields.require("challenge")?)?),
                error: fields.optional_string("error")?,
            }),
            // Null is a message, too.
            "message" => {
                let data = fields.rest().remove("data");
                Ok(Self::Message(data.ok_or(MppError::missing("data"))?))
            }
            "needVoucher" => Ok(Self::NeedVoucher(NeedVoucher::from_object(&fields.rest())?)),
            "receipt" => Ok(Self::Receipt(Box::new(Receipt::from_json(fields.require("receipt")?)?))),
            "error" => Ok(Self::Error { status: None, message: fields.string("error")? }),
            _ => Err(MppError::Unknown { field: "frame" }),
        }
    }

    /// Prints the frame; `None` if the framing has no such frame.
    pub fn print(&self, framing: Framing) -> Option<String> {
        let object = match framing {
            Framing::Mppx => self.to_mppx()?,
            Framing::MppRs => self.to_mpp_rs()?,
        };
        Some(object.to_string())
    }

    fn to_mppx(&self) -> Option<Object> {
        let kind = |kind: &str| Object::new().with("mpp", kind);
        Some(match self {
            Self::Credential(value) => kind("authorization").with("authorization", value.as_str()),
            Self::Challenge { .. } => return None,
            Self::Message(data) => kind("message").with("data", data.as_str()?),
            Self::NeedVoucher(need) => kind("payment-need-voucher").with("data", need.to_object()),
            Self::Receipt(receipt) => kind("payment-receipt").with("data", receipt.to_object()),
            Self::CloseRequest => kind("payment-close-request"),
            Self::CloseReady(receipt) => kind("payment-close-ready").with("data", receipt.to_object()),
            // A status that nobody gave is a server's own fault.
            Self::Error { status, message } => kind("payment-error")
                .with("message", message.as_str())
                .with("status", u64::from(status.unwrap_or(500))),
        })
    }

    fn to_mpp_rs(&self) -> Option<Object> {
        let kind = |kind: &str| Object::new().with("type", kind);
        Some(match self {
            Self::Credential(value) => kind("credential").with("credential", value.as_str()),
            Self::Challenge { challenge, error } => {
                kind("challenge").with("challenge", challenge.to_echo()).with_some("error", error.as_deref())
            }
            Self::Message(data) => kind("message").with("data", data.clone()),
            Self::NeedVoucher(need) => {
                let mut object = kind("needVoucher");
                object.append(&need.to_object());
                object
            }
            Self::Receipt(receipt) => kind("receipt").with("receipt", receipt.to_object()),
            Self::CloseRequest | Self::CloseReady(_) => return None,
            Self::Error { message, .. } => kind("error").with("error", message.as_str()),
        })
    }
}

/// Without credentials, which are worth money.
impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Credential(_) => f.write_str("Credential(..)"),
            Self::Challenge { challenge, error } => {
                f.debug_struct("Challenge").field("challenge", challenge).field("error", error).finish()
            }
            Self::Message(data) => f.debug_tuple("Message").field(data).finish(),
            Self::NeedVoucher(need) => f.debug_tuple("NeedVoucher").field(need).finish(),
            Self::Receipt(receipt) => f.debug_tuple("Receipt").field(receipt).finish(),
            Self::CloseRequest => f.write_str("CloseRequest"),
            Self::CloseReady(receipt) => f.debug_tuple("CloseReady").field(receipt).finish(),
            Self::Error { status, message } => {
                f.debug_struct("Error").field("status", status).field("message", message).finish()
            }
        }
    }
}

fn credential(object: &Object, field: &'static str) -> Result<String, MppError> {
    let text = fields::text(object, field)?;
    if text.len() > MAX_CREDENTIAL_BYTES {
        return Err(MppError::TooLong { limit: MAX_CREDENTIAL_BYTES });
    }
    Ok(text.to_owned())
}
