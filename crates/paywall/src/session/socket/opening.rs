//! A socket on which nothing is bought yet: it waits for the credential that buys.

use farthing_engine::Till;
use farthing_wire::mpp::Credential;
use farthing_wire::mpp::ws::{Frame, Framing, MAX_QUEUED_FRAMES};
use futures_util::StreamExt;
use http::Response;

use super::paying::{Authorized, Running};
use super::saying::{Kind, Said, is_for_later, read_frame, within};
use super::{SOCKET_HANDSHAKE, SOCKET_SILENCE, Talk, code};
use crate::body;
use crate::service::Answer;
use crate::session::credential::is_session;
use crate::socket::{SocketMessage, SocketRead, SocketWrite};

impl Talk {
    /// Waits for the credential that buys. `None` if there is none: the client was told why.
    pub(super) async fn wait_for_payment(
        &mut self,
        till: &Till,
        read: &mut SocketRead,
        write: &mut SocketWrite,
    ) -> Option<Running> {
        let world = self.world().clone();
        let began = world.monotonic();
        let mut told = false;
        loop {
            let gone = world.monotonic().saturating_sub(began);
            let until = if told { SOCKET_HANDSHAKE } else { SOCKET_SILENCE };
            let message = within(&*world, until.saturating_sub(gone), read.next()).await;
            let said = match message {
                None if !told => {
                    told = true;
                    let challenge = self.challenge(None).await?;
                    self.send(write, challenge.print(Framing::MppRs)?).await.ok()?;
                    continue;
                }
                None => {
                    self.close(write, code::POLICY, "no authorization in time").await;
                    return None;
                }
                Some(Some(Ok(SocketMessage::Text(text)))) => read_frame(text),
                Some(Some(Ok(SocketMessage::Ping | SocketMessage::Pong))) => continue,
                Some(Some(Ok(SocketMessage::Binary(_)))) => Said::Garbage,
                Some(Some(Ok(SocketMessage::Close(_))) | None) => return None,
                Some(Some(Err(error))) => {
                    self.unreadable(write, error).await;
                    return None;
                }
            };
            self.frames += 1;
            if self.frames > MAX_QUEUED_FRAMES {
                self.wrong(write, 429, "too many frames").await;
                return None;
            }
            match said {
                Said::Frame(framing, Frame::Credential(value)) => {
                    self.framing = Some(framing);
                    if let Some(running) = self.shown_first(till, &value, write).await? {
                        return Some(running);
                    }
                }
                // Whoever asks before it pays is told the price, where its framing has a word for it.
                Said::Frame(Framing::MppRs, Frame::Message(_)) => {
                    self.framing = Some(Framing::MppRs);
                    told = true;
                    let challenge = self.challenge(None).await?;
                    self.send(write, challenge.print(Framing::MppRs)?).await.ok()?;
                }
                Said::Frame(_, Frame::CloseRequest) => {
                    self.close(write, code::NORMAL, "closed").await;
                    return None;
                }
                Said::Frame(framing, _) => {
                    self.framing = Some(framing);
                    self.wrong(write, 402, "the first frame must be an authorization").await;
                    return None;
                }
                Said::Garbage | Said::Text(_) => {
                    self.wrong(write, 402, "the first frame must be an authorization").await;
                    return None;
                }
            }
        }
    }

    /// A credential before a stream: `None` ends the socket, `Some(None)` goes on waiting.
    async fn shown_first(
        &mut self,
        till: &Till,
        value: &str,
        write: &mut SocketWrite,
    ) -> Option<Option<Running>> {
        let credential = match Credential::parse(value.as_bytes()) {
            Ok(credential) if is_session(&credential) => credential,
            _ => {
                self.visit.refused(self.visit.client);
                self.wrong(write, 402, "the authorization is no credential of a session").await;
                return None;
            }
        };
        match self.authorize(till, &credential).await {
            Ok(Authorized::Done { answer, closes }) => {
                let kind = self.tell(write, answer).await?;
                if closes && kind == Kind::Receipt {
                    self.close(write, code::NORMAL, "the channel is closed").await;
                    return None;
                }
                Some(None)
            }
            Ok(Authorized::Buys(account, voucher)) => match self.begin(till, account, &voucher).await {
                Ok(running) => {
                    let paying = running.account.paying(&self.visit, till);
                    let mut answer = Response::new(body::empty());
                    self.visit.put_state(answer.headers_mut(), &paying, &running.state, Some(0), None);
                    self.tell(write, answer).await?;
                    Some(Some(running))
                }
                Err(answer) => self.turned_away(write, answer).await.then_some(None),
            },
            Err(answer) => self.turned_away(write, answer).await.then_some(None),
        }
    }

    /// Says why not. Returns whether the client may try again on this socket.
    async fn turned_away(&mut self, write: &mut SocketWrite, answer: Answer) -> bool {
        let status = answer.status();
        match self.tell(write, answer).await {
            None => false,
            Some(Kind::Challenge) => true,
            Some(_) if is_for_later(status) => true,
            Some(_) => {
                self.close(write, code::POLICY, "the payment was refused").await;
                false
            }
        }
    }
}
