//! A socket on which a stream is bought: what the service says leaves once it is charged.

use std::collections::VecDeque;
use std::time::Duration;

use farthing_channel::Refusal;
use farthing_engine::{BoxFuture, Till, TillError, Woken};
use farthing_wire::Json;
use farthing_wire::mpp::Credential;
use farthing_wire::mpp::ws::{Frame, MAX_FRAME_BYTES, MAX_QUEUED_FRAMES};
use futures_util::future::poll_immediate;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::Response;

use super::ending::Ending;
use super::paying::{Account, Authorized};
use super::saying::{Kind, Said, is_for_later, length, read_frame, send, send_all};
use super::{MAX_QUEUED_BYTES, SOCKET_IDLE, SOCKET_PING_EVERY, SOCKET_PING_WITHIN, Talk, code};
use crate::body;
use crate::limit::Hold;
use crate::session::credential::is_session;
use crate::session::meter::{Charged, LOOK, Meter, TICK};
use crate::socket::{OpenSocket, SocketError, SocketMessage, SocketRead, SocketWrite};

/// A client's message that waits for the upstream, and the room that it takes.
struct Queued {
    message: SocketMessage,
    bytes: usize,
    _hold: Hold,
}

/// What happened while a stream went on.
enum News {
    Client(Option<Result<SocketMessage, SocketError>>),
    Upstream(Option<Result<SocketMessage, SocketError>>),
    /// The upstream took a message, or takes none any more.
    Taken(Option<SocketWrite>),
    Woken(Option<Woken>),
    Time,
    Leaving,
}

impl Talk {
    /// Passes on what is paid, both ways, until one side ends it.
    pub(super) async fn stream(
        &mut self,
        till: &Till,
        account: &Account,
        meter: &mut Meter<Option<SocketMessage>>,
        upstream: OpenSocket,
        (read, write): (&mut SocketRead, &mut SocketWrite),
    ) -> Ending {
        let world = self.world().clone();
        let sockets = self.sockets.clone();
        let OpenSocket { read: mut source, write: sink } = upstream;
        let mut sink = Some(sink);
        let mut taking: Option<BoxFuture<'static, Option<SocketWrite>>> = None;
        let (mut queue, mut queued_bytes) = (VecDeque::<Queued>::new(), 0usize);
        let mut waiting: Option<Duration> = None;
        let mut drained = false;
        let (mut heard, mut active) = (world.monotonic(), world.monotonic());
        let mut pinged: Option<Duration> = None;
        // For what was read of the upstream and did not leave yet.
        let mut held = None;
        loop {
            if waiting.is_none() && !meter.is_empty() {
                match meter.pay().await {
                    Charged::Leave(together) => {
                        active = world.monotonic();
                        let leaving: Vec<_> = meter.leaving(together).flatten().collect();
                        if send_all(&*world, write, leaving).await.is_err() {
                            return Ending::gone();
                        }
                    }
                    Charged::Narrower => {}
                    Charged::Need(need) => {
                        waiting = Some(world.monotonic().saturating_add(meter.patience()));
                        let frame = Frame::NeedVoucher(meter.need(&need));
                        if self.say(write, &frame).await.is_err() {
                            return Ending::gone();
                        }
                    }
                    Charged::Over => return Ending::clean("another stream of the channel, or its close"),
                    Charged::Failed(error) => {
                        tracing::warn!(error, "a paid socket cannot be charged");
                        return Ending::wrong(code::TRY_LATER, 503, "the payment cannot be looked at now");
                    }
                }
                continue;
            }
            if meter.is_empty() {
                meter.widen();
                held = None;
                if drained {
                    return Ending { whole: true, ..Ending::clean("the stream is over") };
                }
            }
            if taking.is_none()
                && let Some(to) = sink.take()
            {
                match queue.pop_front() {
                    None => sink = Some(to),
                    Some(queued) => {
                        queued_bytes = queued_bytes.saturating_sub(queued.bytes);
                        taking = Some(Box::pin(async move {
                            let mut to = to;
                            to.send(queued.message).await.ok().map(|()| to)
                        }));
                    }
                }
            }
            let now = world.monotonic();
            let timed = meter.is_timed() && waiting.is_none();
            let live = match pinged {
                Some(at) => at.saturating_add(SOCKET_PING_WITHIN),
                None => heard.saturating_add(SOCKET_PING_EVERY),
            };
            let mut next = live.min(active.saturating_add(SOCKET_IDLE)).saturating_sub(now);
            if timed {
                next = next.min(TICK);
            }
            let news = {
                let from_client = read.next().fuse();
                let from_upstream = async {
                    match meter.is_empty() && waiting.is_none() && !drained {
                        true => source.next().await,
                        false => std::future::pending().await,
                    }
                };
                let taken = async {
                    match taking.as_mut() {
                        Some(taking) => taking.await,
                        None => std::future::pending().await,
                    }
                };
                let woken = async {
                    let patience = waiting.map_or(LOOK, |until| until.saturating_sub(now));
                    meter.wait(patience).await.ok()
                };
                let (from_upstream, taken, woken) = (from_upstream.fuse(), taken.fuse(), woken.fuse());
                let (time, leaving) = (world.sleep(next).fuse(), sockets.leaving().fuse());
                futures_util::pin_mut!(from_client, from_upstream, taken, woken, time, leaving);
                futures_util::select_biased! {
                    message = from_client => News::Client(message),
                    () = leaving => News::Leaving,
                    to = taken => News::Taken(to),
                    why = woken => News::Woken(why),
                    message = from_upstream => News::Upstream(message),
                    () = time => News::Time,
                }
            };
            match news {
                News::Client(None | Some(Ok(SocketMessage::Close(_)))) => return Ending::gone(),
                News::Client(Some(Err(SocketError::TooLong))) => {
                    return Ending::wrong(code::TOO_BIG, 413, "a message is too long");
                }
                News::Client(Some(Err(SocketError::NotUtf8))) => {
                    return Ending::wrong(code::NOT_UTF8, 400, "a text is not UTF-8");
                }
                News::Client(Some(Err(SocketError::Broken))) => return Ending::gone(),
                News::Client(Some(Ok(message))) => {
                    (heard, pinged) = (world.monotonic(), None);
                    let message = match message {
                        SocketMessage::Text(text) => match read_frame(text) {
                            Said::Frame(framing, frame) => {
                                self.framing.get_or_insert(framing);
                                match self.frame(till, account, frame, write).await {
                                    Ok(message) => message,
                                    Err(ending) => return ending,
                                }
                            }
                            Said::Garbage => {
                                return Ending::wrong(code::POLICY, 400, "a frame cannot be read");
                            }
                            Said::Text(text) => Some(SocketMessage::Text(text)),
                        },
                        SocketMessage::Binary(bytes) => Some(SocketMessage::Binary(bytes)),
                        SocketMessage::Ping | SocketMessage::Pong | SocketMessage::Close(_) => None,
                    };
                    let Some(message) = message else { continue };
                    active = heard;
                    let bytes = length(&message);
                    let mut hold = self.visit.shared.memory.hold(self.visit.client);
                    queued_bytes = queued_bytes.saturating_add(bytes);
                    if queue.len() >= MAX_QUEUED_FRAMES
                        || queued_bytes > MAX_QUEUED_BYTES
                        || !hold.grow(bytes)
                    {
                        return Ending::wrong(code::POLICY, 429, "too many queued messages");
                    }
                    queue.push_back(Queued { message, bytes, _hold: hold });
                }
                News::Upstream(first) => {
                    let mut hold = self.visit.shared.memory.hold(self.visit.client);
                    let (mut came, mut bytes) = (Some(first), 0);
                    // What came together is charged together.
                    while let Some(message) = came {
                        match self.take_in(meter, message, &mut hold) {
                            Ok(Some(taken)) => bytes += taken,
                            Ok(None) => {
                                drained = true;
                                break;
                            }
                            Err(ending) => return ending,
                        }
                        came = match bytes < MAX_FRAME_BYTES && meter.has_room() {
                            true => poll_immediate(source.next()).await,
                            false => None,
                        };
                    }
                    held = Some(hold);
                }
                News::Taken(to) => {
                    taking = None;
                    // One that takes nothing more may still have something to say.
                    sink = to;
                    if sink.is_none() {
                        queue.clear();
                        queued_bytes = 0;
                    }
                }
                News::Woken(Some(Woken::Covered)) => {
                    if waiting.take().is_some() {
                        meter.covered();
                    }
                }
                News::Woken(Some(Woken::Over)) => {
                    return Ending::clean("another stream of the channel, or its close");
                }
                News::Woken(Some(Woken::TimedOut)) => {
                    if waiting.is_some_and(|until| world.monotonic() >= until) {
                        return Ending::clean("no voucher came");
                    }
                }
                News::Woken(None) => {
                    return Ending::wrong(code::TRY_LATER, 503, "the payment cannot be looked at now");
                }
                News::Time => {
                    let now = world.monotonic();
                    if now.saturating_sub(active) >= SOCKET_IDLE && waiting.is_none() {
                        return Ending::clean("nobody said anything");
                    }
                    match pinged {
                        Some(at) if now.saturating_sub(at) >= SOCKET_PING_WITHIN => return Ending::gone(),
                        None if now.saturating_sub(heard) >= SOCKET_PING_EVERY => {
                            pinged = Some(now);
                            if send(&*world, write, SocketMessage::Ping).await.is_err() {
                                return Ending::gone();
                            }
                        }
                        _ => {}
                    }
                    if timed {
                        meter.tick(None);
                    }
                }
                News::Leaving => {
                    return Ending { code: code::GOING_AWAY, ..Ending::clean("the service stops") };
                }
            }
            drop(held.take_if(|_| meter.is_empty()));
        }
    }

    /// What the upstream said, with its price. Returns its length; `None` if it has nothing more to say.
    fn take_in(
        &self,
        meter: &mut Meter<Option<SocketMessage>>,
        message: Option<Result<SocketMessage, SocketError>>,
        hold: &mut Hold,
    ) -> Result<Option<usize>, Ending> {
        let broken = |reason| Ending::wrong(code::INTERNAL, 502, reason);
        let message = match message {
            None | Some(Ok(SocketMessage::Close(_))) => return Ok(None),
            Some(Ok(message)) => message,
            Some(Err(SocketError::TooLong)) => return Err(broken("a message of the service is too long")),
            Some(Err(_)) => return Err(broken("the service broke off")),
        };
        let bytes = length(&message);
        if !hold.grow(bytes) {
            return Err(broken("there is no room for another message"));
        }
        match message {
            SocketMessage::Text(text) => {
                let printed = Frame::Message(Json::from(text.as_str())).print(self.framing());
                let frame = printed.filter(|frame| frame.len() <= MAX_FRAME_BYTES);
                let Some(frame) = frame else { return Err(broken("a message of the service is too long")) };
                meter.put(Some(SocketMessage::Text(frame)), Some(text.as_bytes()), bytes);
            }
            // Only we say what is paid, and clients read our frames in bytes as well.
            SocketMessage::Binary(data) if Frame::parse(&data).is_ok() => {
                tracing::debug!("a message of the upstream is a frame of the payment, and is left out");
            }
            SocketMessage::Binary(data) => {
                let copy = data.clone();
                meter.put(Some(SocketMessage::Binary(data)), Some(&copy), bytes);
            }
            SocketMessage::Ping | SocketMessage::Pong | SocketMessage::Close(_) => {}
        }
        Ok(Some(bytes))
    }

    /// A frame of the payment while a stream goes on; what it says to the upstream, if anything.
    async fn frame(
        &mut self,
        till: &Till,
        account: &Account,
        frame: Frame,
        write: &mut SocketWrite,
    ) -> Result<Option<SocketMessage>, Ending> {
        let value = match frame {
            Frame::Message(Json::String(text)) => return Ok(Some(SocketMessage::Text(text))),
            Frame::Message(json) => return Ok(Some(SocketMessage::Text(json.to_string()))),
            Frame::Credential(value) => value,
            Frame::CloseRequest => return Err(Ending::clean("the client asked for the end")),
            // What only we say.
            _ => return Err(Ending::wrong(code::POLICY, 400, "this frame is not the client's to send")),
        };
        let credential = match Credential::parse(value.as_bytes()) {
            Ok(credential) if is_session(&credential) => credential,
            _ => {
                self.visit.refused(self.visit.client);
                return Err(Ending::wrong(
                    code::POLICY,
                    402,
                    "the authorization is no credential of a session",
                ));
            }
        };
        let answer = match self.authorize(till, &credential).await {
            Ok(Authorized::Done { answer, closes }) => {
                let kind = self.tell(write, answer).await.ok_or_else(Ending::gone)?;
                return match closes && kind == Kind::Receipt {
                    true => Err(Ending { told: true, ..Ending::clean("the channel is closed") }),
                    false => Ok(None),
                };
            }
            Ok(Authorized::Buys(other, _)) if other.channel != account.channel => {
                return Err(Ending::wrong(code::POLICY, 402, "the voucher is for another channel"));
            }
            Ok(Authorized::Buys(other, voucher)) => {
                let paying = other.paying(&self.visit, till);
                let shown = paying.shown(&voucher);
                let state = match till.voucher(&other.seller, &shown).await {
                    // Another purchase of the channel's overtook it. It changes nothing, and ends nothing.
                    Err(TillError::Refused(Refusal::Decreasing { .. })) => {
                        till.receipt(&other.seller, &shown).await
                    }
                    state => state,
                };
                match state {
                    Ok(state) => {
                        let mut answer = Response::new(body::empty());
                        self.visit.put_state(answer.headers_mut(), &paying, &state, None, None);
                        answer
                    }
                    Err(error) => self.refused(error, other.channel).await,
                }
            }
            Err(answer) => answer,
        };
        let status = answer.status();
        match self.tell(write, answer).await {
            None => Err(Ending::gone()),
            Some(Kind::Receipt) => Ok(None),
            Some(_) if is_for_later(status) => Ok(None),
            Some(_) => Err(Ending { code: code::POLICY, ..Ending::clean("the payment was refused") }),
        }
    }
}
