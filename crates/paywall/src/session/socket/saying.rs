//! What is said on a socket, in the client's framing, and what its client says.

use std::time::Duration;

use farthing_engine::World;
use farthing_wire::mpp::ws::{Frame, Framing, MAX_FRAME_BYTES};
use farthing_wire::mpp::{Challenges, Receipt, header as mpp_header};
use farthing_wire::{Json, Limits as JsonLimits, json};
use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;

use super::{SOCKET_FAREWELL, SOCKET_STALL, Talk, code};
use crate::offer::Why;
use crate::service::Answer;
use crate::socket::{SocketClose, SocketError, SocketMessage, SocketRead, SocketWrite};

/// What reading a client's message for a payment's frame may cost.
const FRAME_LIMITS: JsonLimits = JsonLimits { bytes: MAX_FRAME_BYTES, values: 8192, members: 256 };

/// What a client's text is.
pub(super) enum Said {
    Frame(Framing, Frame),
    /// It calls itself a payment's frame, and is none.
    Garbage,
    /// The application's own.
    Text(String),
}

impl Talk {
    /// Tells an answer in the client's framing. `None` if nobody is there.
    pub(super) async fn tell(&mut self, write: &mut SocketWrite, answer: Answer) -> Option<Kind> {
        let (parts, body) = answer.into_parts();
        if parts.status.is_success() {
            let line = parts.headers.get(mpp_header::PAYMENT_RECEIPT);
            let receipt = line.and_then(|line| Receipt::parse(line.as_bytes()).ok())?;
            self.say(write, &Frame::Receipt(Box::new(receipt))).await.ok()?;
            return Some(Kind::Receipt);
        }
        // An answer of our own, which is short.
        let message = body.collect().await.ok()?.to_bytes();
        let message = String::from_utf8_lossy(&message).into_owned();
        if self.framing() == Framing::MppRs && parts.status == StatusCode::PAYMENT_REQUIRED {
            let lines = parts.headers.get_all(header::WWW_AUTHENTICATE);
            if let Some(challenge) = challenge_of(lines, Some(message.clone())) {
                self.say(write, &challenge).await.ok()?;
                return Some(Kind::Challenge);
            }
        }
        let frame = Frame::Error { status: Some(parts.status.as_u16()), message };
        self.say(write, &frame).await.ok()?;
        Some(Kind::Error)
    }

    /// What a session here asks for.
    pub(super) async fn challenge(&self, error: Option<String>) -> Option<Frame> {
        let kind = farthing_wire::mpp::ProblemType::PaymentRequired;
        let answer =
            self.visit.challenge_for(&self.parts, None, Why { code: None, problem: &kind, also: None }).await;
        challenge_of(answer.headers().get_all(header::WWW_AUTHENTICATE), error)
    }

    pub(super) async fn say(&self, write: &mut SocketWrite, frame: &Frame) -> Result<(), SocketError> {
        match frame.print(self.framing()) {
            Some(text) => self.send(write, text).await,
            None => Ok(()),
        }
    }

    pub(super) async fn send(&self, write: &mut SocketWrite, text: String) -> Result<(), SocketError> {
        send(&**self.world(), write, SocketMessage::Text(text)).await
    }

    /// Says what is wrong, and ends.
    pub(super) async fn wrong(&self, write: &mut SocketWrite, status: u16, message: &'static str) {
        let frame = Frame::Error { status: Some(status), message: message.to_owned() };
        if self.say(write, &frame).await.is_ok() {
            self.close(write, code::POLICY, message).await;
        }
    }

    pub(super) async fn unreadable(&self, write: &mut SocketWrite, error: SocketError) {
        match error {
            SocketError::TooLong => self.close(write, code::TOO_BIG, "a message is too long").await,
            SocketError::NotUtf8 => self.close(write, code::NOT_UTF8, "a text is not UTF-8").await,
            SocketError::Broken => {}
        }
    }

    pub(super) async fn close(&self, write: &mut SocketWrite, code: u16, reason: &str) {
        let close = SocketClose { code, reason: reason.to_owned() };
        let _ = send(&**self.world(), write, SocketMessage::Close(close)).await;
    }
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Receipt,
    Challenge,
    Error,
}

/// Whether the same may be shown again in a moment.
pub(super) fn is_for_later(status: StatusCode) -> bool {
    matches!(status.as_u16(), 409 | 429 | 500..=599)
}

pub(super) fn length(message: &SocketMessage) -> usize {
    match message {
        SocketMessage::Text(text) => text.len(),
        SocketMessage::Binary(bytes) => bytes.len(),
        SocketMessage::Ping | SocketMessage::Pong | SocketMessage::Close(_) => 0,
    }
}

/// Tells a payment's frames from what the application says.
pub(super) fn read_frame(text: String) -> Said {
    if let Ok((framing, frame)) = Frame::parse(text.as_bytes()) {
        return Said::Frame(framing, frame);
    }
    let claims = match json::parse(text.as_bytes(), FRAME_LIMITS) {
        Ok(Json::Object(object)) => {
            object.get("mpp").is_some() || object.get_str("type") == Some("credential")
        }
        _ => false,
    };
    if claims { Said::Garbage } else { Said::Text(text) }
}

/// The first session among the challenges of an answer.
fn challenge_of<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
    error: Option<String>,
) -> Option<Frame> {
    let challenges = Challenges::parse(lines.into_iter().map(HeaderValue::as_bytes)).ok()?.challenges;
    let session = challenges
        .into_iter()
        .find(|challenge| challenge.intent.as_str() == farthing_wire::mpp::IntentName::SESSION)?;
    Some(Frame::Challenge { challenge: Box::new(session), error })
}

pub(super) async fn send_all(
    world: &dyn World,
    write: &mut SocketWrite,
    messages: Vec<SocketMessage>,
) -> Result<(), SocketError> {
    let sending = async {
        for message in messages {
            write.feed(message).await?;
        }
        write.flush().await
    };
    within(world, SOCKET_STALL, sending).await.unwrap_or(Err(SocketError::Broken))
}

pub(super) async fn send(
    world: &dyn World,
    write: &mut SocketWrite,
    message: SocketMessage,
) -> Result<(), SocketError> {
    within(world, SOCKET_STALL, write.send(message)).await.unwrap_or(Err(SocketError::Broken))
}

/// Reads to the end, so that the other side's goodbye is heard.
pub(super) async fn farewell(world: &dyn World, read: &mut SocketRead) {
    let end = async { while let Some(Ok(_)) = read.next().await {} };
    let _ = within(world, SOCKET_FAREWELL, end).await;
}

/// What a future gives within this time.
pub(super) async fn within<F: Future>(world: &dyn World, time: Duration, future: F) -> Option<F::Output> {
    let future = std::pin::pin!(future);
    match select(future, world.sleep(time)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
