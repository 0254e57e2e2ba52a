//! The end of a stream on a socket: the last receipt, room for a close of the channel in band, and the goodbye.

use farthing_engine::Till;
use farthing_wire::mpp::ws::{Frame, Framing, MAX_QUEUED_FRAMES};
use farthing_wire::mpp::{Credential, Receipt};
use futures_util::StreamExt;

use super::paying::Authorized;
use super::saying::{Kind, Said, farewell, read_frame, send, within};
use super::{SOCKET_LINGER, Talk, code};
use crate::session::credential::is_session;
use crate::socket::{SocketClose, SocketMessage, SocketRead, SocketWrite};

/// How a stream comes to its end.
pub(super) struct Ending {
    /// The upstream has nothing more.
    pub(super) whole: bool,
    pub(super) code: u16,
    pub(super) reason: &'static str,
    /// Whether the client is told what was wrong, and by which status.
    pub(super) error: Option<(u16, &'static str)>,
    /// Whether anybody is there to be told anything.
    pub(super) there: bool,
    /// Whether the last receipt was told already.
    pub(super) told: bool,
}

impl Ending {
    pub(super) fn clean(reason: &'static str) -> Self {
        Self { whole: false, code: code::NORMAL, reason, error: None, there: true, told: false }
    }

    pub(super) fn wrong(code: u16, status: u16, reason: &'static str) -> Self {
        Self { code, error: Some((status, reason)), ..Self::clean(reason) }
    }

    pub(super) fn gone() -> Self {
        Self { there: false, ..Self::clean("") }
    }
}

impl Talk {
    /// The last receipt, room for a close of the channel in band, and the end.
    pub(super) async fn end(
        &mut self,
        till: &Till,
        ending: &Ending,
        receipt: Box<Receipt>,
        read: &mut SocketRead,
        write: &mut SocketWrite,
    ) {
        let world = self.world().clone();
        if let Some((status, message)) = ending.error {
            let frame = Frame::Error { status: Some(status), message: message.to_owned() };
            if self.say(write, &frame).await.is_err() {
                return;
            }
        }
        let last = match self.framing() {
            Framing::Mppx => Frame::CloseReady(receipt),
            Framing::MppRs => Frame::Receipt(receipt),
        };
        if !ending.told && self.say(write, &last).await.is_err() {
            return;
        }
        if ending.code == code::NORMAL && !ending.told && self.framing() == Framing::Mppx {
            self.linger(till, read, write).await;
        }
        let close = SocketClose { code: ending.code, reason: ending.reason.to_owned() };
        if send(&*world, write, SocketMessage::Close(close)).await.is_ok() {
            farewell(&*world, read).await;
        }
    }

    /// A client may close its channel now, on the same socket.
    async fn linger(&mut self, till: &Till, read: &mut SocketRead, write: &mut SocketWrite) {
        let world = self.world().clone();
        let until = world.monotonic().saturating_add(SOCKET_LINGER);
        loop {
            let left = until.saturating_sub(world.monotonic());
            let text = match within(&*world, left, read.next()).await {
                Some(Some(Ok(SocketMessage::Text(text)))) => text,
                Some(Some(Ok(SocketMessage::Close(_)) | Err(_)) | None) | None => return,
                Some(Some(Ok(_))) => continue,
            };
            self.frames += 1;
            let Said::Frame(_, Frame::Credential(value)) = read_frame(text) else { continue };
            let Ok(credential) = Credential::parse(value.as_bytes()) else { return };
            if self.frames > MAX_QUEUED_FRAMES || !is_session(&credential) {
                return;
            }
            let (answer, closes) = match self.authorize(till, &credential).await {
                Ok(Authorized::Done { answer, closes }) => (answer, closes),
                // What is vouched now pays for nothing on this socket.
                Ok(Authorized::Buys(..)) => return,
                Err(answer) => (answer, false),
            };
            match self.tell(write, answer).await {
                None => return,
                Some(Kind::Receipt) if closes => return,
                Some(_) => {}
            }
        }
    }
}
