//! A metered stream over WebSocket: what the upstream says leaves once it is charged, and vouchers come in band.
//!
//! No draft says how. Both framings in use are spoken: the client's first frame tells which. A client that can set
//! headers shows its first voucher with the upgrade itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farthing_channel::{ChannelId, Receipt as State, Refusal};
use farthing_engine::{Asked, BoxFuture, Seller, Started, Till, TillError, Woken, World};
use farthing_primitives::RequestHash;
use farthing_wire::mpp::ws::{Frame, Framing, MAX_FRAME_BYTES, MAX_QUEUED_FRAMES};
use farthing_wire::mpp::{Challenges, Credential, Receipt, header as mpp_header};
use farthing_wire::{Json, Limits as JsonLimits, json};
use futures_util::future::{Either, poll_immediate, select};
use futures_util::{FutureExt, SinkExt, StreamExt};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;

use super::Session;
use super::call::{Told, announce};
use super::credential::{Acted, Paying, Refused, Signed, Words, is_session, payload};
use super::meter::{Charged, LOOK, Meter, Rules, TICK};
use crate::admit::Shown;
use crate::answer;
use crate::body;
use crate::headers::{clean_paid_request, make_private};
use crate::limit::{Hold, Place};
use crate::offer::Why;
use crate::service::{Answer, Visit, client_of};
use crate::socket::{
    AcceptedSocket, ConnectError, OpenSocket, SocketClose, SocketError, SocketMessage, SocketRead,
    SocketWrite, Sockets, WebSocket,
};
use crate::upstream::reasons;

/// How long a socket may be open before it shows what pays for it.
pub const SOCKET_HANDSHAKE: Duration = Duration::from_secs(10);
/// For how long a silent client is taken for one that speaks first. Then it is told the price: clients of the one
/// framing wait for that, and those of the other do not get so far.
pub const SOCKET_SILENCE: Duration = Duration::from_secs(1);
/// How often a silent client is asked whether it lives, and how long it may take to answer.
pub const SOCKET_PING_EVERY: Duration = Duration::from_secs(30);
pub const SOCKET_PING_WITHIN: Duration = Duration::from_secs(20);
/// How long a socket stays open on which neither side says anything.
pub const SOCKET_IDLE: Duration = Duration::from_secs(600);
/// How long a client may take to make room for one message.
pub const SOCKET_STALL: Duration = Duration::from_secs(30);
/// How long a client may take, after the last receipt, to close its channel in band.
pub const SOCKET_LINGER: Duration = Duration::from_secs(10);
/// How long the other side may take to say goodbye.
pub const SOCKET_FAREWELL: Duration = Duration::from_secs(5);
/// The most bytes of a client's messages that wait for the upstream to take them.
pub const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// Spec: RFC 6455 section 7.4.1.
mod code {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const NOT_UTF8: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const INTERNAL: u16 = 1011;
    pub const TRY_LATER: u16 = 1013;
}

/// What reading a client's message for a payment's frame may cost.
const FRAME_LIMITS: JsonLimits = JsonLimits { bytes: MAX_FRAME_BYTES, values: 8192, members: 256 };

/// A request that becomes a socket, and what pays for it, if it says so already.
pub(crate) struct Upgrade {
    sockets: Arc<dyn Sockets>,
    credential: Option<Box<Credential>>,
}

/// Whether a request is to become a socket that a session pays for. Whatever else is asked of the route is answered as
/// if it were no upgrade, so that a 402 can be had for it.
pub(crate) fn wanted<B>(visit: &Visit, request: &Request<B>) -> Option<Upgrade> {
    let streams = visit.paid.session.as_ref().is_some_and(|session| session.terms().stream);
    let can = visit.own_method && visit.current.terms.mpp.spoken && visit.shared.till.get().is_some();
    if !streams || !can || request.method() != Method::GET {
        return None;
    }
    let WebSocket(sockets) = request.extensions().get::<WebSocket>()?.clone();
    let credential = match Shown::read(request.headers()) {
        Ok(None) => None,
        Ok(Some(Shown::Mpp(credential))) if is_session(&credential) => Some(credential),
        Ok(Some(_)) | Err(_) => return None,
    };
    Some(Upgrade { sockets, credential })
}

/// Answers the upgrade, and goes on with the socket in a task of its own.
pub(crate) async fn open<B>(visit: Visit, request: Request<B>, upgrade: Upgrade) -> Answer {
    let (parts, _) = request.into_parts();
    let Upgrade { sockets, credential } = upgrade;
    let client = client_of(&parts.extensions);
    let talk = Talk { visit, parts, sockets, framing: None, frames: 0 };
    let Some(till) = talk.visit.shared.till.get().cloned() else {
        return answer::unavailable("session_unavailable");
    };
    let (running, place) = match credential {
        None => {
            let Some(place) = talk.visit.shared.calls.take(client) else {
                return answer::too_many("too many requests from here are under way");
            };
            (None, place)
        }
        Some(credential) => {
            let Some(place) = talk.visit.shared.in_flight.take(client) else {
                return answer::unavailable("too_many_requests");
            };
            let begun = match talk.authorize(&till, &credential).await {
                Ok(Authorized::Buys(account, voucher)) => talk.begin(&till, account, &voucher).await,
                Ok(Authorized::Done { answer, .. }) | Err(answer) => Err(answer),
            };
            match begun {
                Ok(running) => (Some(running), place),
                Err(answer) => return answer,
            }
        }
    };
    let Some(AcceptedSocket { headers, socket }) = talk.sockets.accept() else {
        return answer::unavailable("no_socket");
    };
    let mut answer = Response::new(body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers;
    if let Some(running) = &running {
        make_private(answer.headers_mut());
        let paying = running.account.paying(&talk.visit, &till);
        talk.visit.put_state(answer.headers_mut(), &paying, &running.state, Some(0), None);
    }
    let world = talk.visit.shared.world.clone();
    world.clone().spawn(Box::pin(async move {
        // The answer leaves first. Whoever hangs up before has a ticket that comes to nothing.
        let opened = within(&*world, SOCKET_HANDSHAKE, socket).await;
        if let Some(Ok(client)) = opened {
            talk.hold(&till, client, running, place).await;
        }
    }));
    answer
}

/// What a credential opened, for as long as the socket lasts.
struct Account {
    session: Arc<Session>,
    seller: Seller,
    channel: ChannelId,
    challenge: String,
}

impl Account {
    fn paying<'a>(&'a self, visit: &Visit, till: &'a Till) -> Paying<'a> {
        Paying {
            till,
            session: &self.session,
            seller: self.seller.clone(),
            channel: self.channel,
            challenge: &self.challenge,
            client: visit.client,
        }
    }
}

/// What a credential does.
enum Authorized {
    /// It only manages its channel; `closes` if there is none any more.
    Done {
        answer: Answer,
        closes: bool,
    },
    Buys(Account, Signed),
}

/// A stream that is paid for.
struct Running {
    account: Account,
    state: State,
    meter: Meter<Option<SocketMessage>>,
    upstream: OpenSocket,
}

/// How a stream comes to its end.
struct Ending {
    /// The upstream has nothing more.
    whole: bool,
    code: u16,
    reason: &'static str,
    /// Whether the client is told what was wrong, and by which status.
    error: Option<(u16, &'static str)>,
    /// Whether anybody is there to be told anything.
    there: bool,
    /// Whether the last receipt was told already.
    told: bool,
}

impl Ending {
    fn clean(reason: &'static str) -> Self {
        Self { whole: false, code: code::NORMAL, reason, error: None, there: true, told: false }
    }

    fn wrong(code: u16, status: u16, reason: &'static str) -> Self {
        Self { code, error: Some((status, reason)), ..Self::clean(reason) }
    }

    fn gone() -> Self {
        Self { there: false, ..Self::clean("") }
    }
}

/// A client's message that waits for the upstream, and the room that it takes.
struct Queued {
    message: SocketMessage,
    bytes: usize,
    _hold: Hold,
}

/// What a client's text is.
enum Said {
    Frame(Framing, Frame),
    /// It calls itself a payment's frame, and is none.
    Garbage,
    /// The application's own.
    Text(String),
}

/// One client's socket.
struct Talk {
    visit: Visit,
    /// The upgrade's head.
    parts: Parts,
    sockets: Arc<dyn Sockets>,
    /// What the client speaks, once it spoke.
    framing: Option<Framing>,
    /// How many frames of the payment came outside of a stream.
    frames: usize,
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
    fn world(&self) -> &Arc<dyn World> {
        &self.visit.shared.world
    }

    fn framing(&self) -> Framing {
        self.framing.unwrap_or(Framing::Mppx)
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What pays.

    /// Looks at a credential, and does what it says, but for what it buys.
    async fn authorize(&self, till: &Till, credential: &Credential) -> Result<Authorized, Answer> {
        let (visit, client) = (&self.visit, self.visit.client);
        let now = visit.shared.world.monotonic();
        if !visit.shared.payments.admit(client, now) || !visit.shared.refused_payments.has(client, now) {
            return Err(answer::too_many("too many payments from here"));
        }
        let empty = Bytes::new();
        let opened = visit.opened(credential, &self.parts);
        let (session, payload) = match opened.and_then(|session| Ok((session, payload(credential)?))) {
            Ok(read) => read,
            Err(refused) => return Err(visit.turned_away(&self.parts, &empty, refused, None, client).await),
        };
        let closes = matches!(payload, farthing_wire::mpp::evm::SessionPayload::Close { .. });
        let account = Account {
            seller: Seller {
                tenant: visit.shared.tenant.clone(),
                payee: session.payee().clone(),
                asset: session.asset().clone(),
            },
            session,
            channel: ChannelId(*payload.channel_id()),
            challenge: credential.challenge.id.clone(),
        };
        let paying = account.paying(visit, till);
        let acted = visit.act(&paying, credential, payload, (&self.parts, &empty)).await;
        match acted {
            Ok(Acted::Buys(voucher)) => Ok(Authorized::Buys(account, voucher)),
            Ok(Acted::Answer(answer)) => Ok(Authorized::Done { answer, closes }),
            Err(refused) => {
                Err(visit.turned_away(&self.parts, &empty, refused, Some(account.channel), client).await)
            }
        }
    }

    async fn refused(&self, refused: impl Into<Refused>, channel: ChannelId) -> Answer {
        self.visit.turned_away(&self.parts, &[], refused.into(), Some(channel), self.visit.client).await
    }

    /// Begins a stream, which ends the one before it, and opens the socket that it comes from.
    async fn begin(&self, till: &Till, account: Account, voucher: &Signed) -> Result<Running, Answer> {
        let visit = &self.visit;
        let terms = account.session.terms();
        // A socket is nobody's copy: each is a purchase of its own.
        let mut name = [0; 32];
        visit.shared.world.random(&mut name);
        let request = RequestHash(name);
        let asked = Asked {
            seller: &account.seller,
            shown: account.paying(visit, till).shown(voucher),
            request,
            price: terms.price.clone(),
            most_units: None,
        };
        let ticket = match till.start_charge(&asked).await {
            Ok(Started::Serve(ticket)) => ticket,
            // Nobody else has this name.
            Ok(Started::Again { .. }) => return Err(answer::unavailable("session_unavailable")),
            Err(error) => return Err(self.refused(error, account.channel).await),
        };
        let payer = match till.channel(&account.seller, account.channel).await {
            Ok(payee) => payee.terms().payer.clone(),
            Err(error) => return Err(self.refused(error, account.channel).await),
        };
        let mut head = self.parts.clone();
        clean_paid_request(&mut head.headers);
        let told = Told { payer, charge: ticket.id(), request };
        announce(&mut head.headers, &account.paying(visit, till), &told);
        let connecting = self.sockets.connect(head);
        let connected = within(&**self.world(), visit.paid.upstream_timeout, connecting).await;
        let failed = match connected {
            None => Err(reasons::TIMEOUT),
            Some(Err(ConnectError::Unreachable)) => Err(reasons::UNREACHABLE),
            Some(Err(ConnectError::Answered(status))) => {
                tracing::warn!(%status, "the upstream opened no WebSocket");
                Err(reasons::NOT_OK)
            }
            Some(Ok(connected)) => terms
                .count
                .of_head(&connected.headers)
                .map(|worth| (connected.socket, worth))
                .ok_or(reasons::UNITS_UNKNOWN),
        };
        let (upstream, worth) = match failed {
            Ok(connected) => connected,
            Err(reason) => {
                drop(ticket.fail().await);
                return Err(visit.unsold(reason, None));
            }
        };
        let state = match ticket.receipt().await {
            Ok(state) => state,
            Err(error) => return Err(self.refused(error, account.channel).await),
        };
        let rules = Rules {
            count: terms.count.clone(),
            worth,
            patience: terms.patience,
            words: Words::of(&account.paying(visit, till), None),
        };
        let meter = Meter::new(ticket, state, rules, visit.shared.world.clone());
        Ok(Running { account, state, meter, upstream })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // The socket from its first frame to its last.

    async fn hold(mut self, till: &Till, client: OpenSocket, running: Option<Running>, place: Place) {
        let OpenSocket { mut read, mut write } = client;
        let mut place = Some(place);
        let running = match running {
            Some(running) => running,
            None => {
                let Some(running) = self.wait_for_payment(till, &mut read, &mut write).await else {
                    farewell(&**self.world(), &mut read).await;
                    return;
                };
                // Until now it was a stranger's; from now on it is a buyer's.
                place = self.visit.shared.in_flight.take(self.visit.client);
                running
            }
        };
        let Running { account, mut meter, upstream, .. } = running;
        let ending = match place {
            Some(_) => self.stream(till, &account, &mut meter, upstream, (&mut read, &mut write)).await,
            None => Ending::wrong(code::TRY_LATER, 503, "too many requests are under way"),
        };
        let receipt = Box::new(meter.finish(ending.whole).await);
        if ending.there {
            self.end(till, &ending, receipt, &mut read, &mut write).await;
        }
        drop(place);
    }

    /// Waits for the credential that buys. `None` if there is none: the client was told why.
    async fn wait_for_payment(
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

    /// Passes on what is paid, both ways, until one side ends it.
    async fn stream(
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

    /// The last receipt, room for a close of the channel in band, and the end.
    async fn end(
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

    // -----------------------------------------------------------------------------------------------------------------
    // What is said.

    /// Tells an answer in the client's framing. `None` if nobody is there.
    async fn tell(&mut self, write: &mut SocketWrite, answer: Answer) -> Option<Kind> {
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
    async fn challenge(&self, error: Option<String>) -> Option<Frame> {
        let kind = farthing_wire::mpp::ProblemType::PaymentRequired;
        let answer =
            self.visit.challenge_for(&self.parts, None, Why { code: None, problem: &kind, also: None }).await;
        challenge_of(answer.headers().get_all(header::WWW_AUTHENTICATE), error)
    }

    async fn say(&self, write: &mut SocketWrite, frame: &Frame) -> Result<(), SocketError> {
        match frame.print(self.framing()) {
            Some(text) => self.send(write, text).await,
            None => Ok(()),
        }
    }

    async fn send(&self, write: &mut SocketWrite, text: String) -> Result<(), SocketError> {
        send(&**self.world(), write, SocketMessage::Text(text)).await
    }

    /// Says what is wrong, and ends.
    async fn wrong(&self, write: &mut SocketWrite, status: u16, message: &'static str) {
        let frame = Frame::Error { status: Some(status), message: message.to_owned() };
        if self.say(write, &frame).await.is_ok() {
            self.close(write, code::POLICY, message).await;
        }
    }

    async fn unreadable(&self, write: &mut SocketWrite, error: SocketError) {
        match error {
            SocketError::TooLong => self.close(write, code::TOO_BIG, "a message is too long").await,
            SocketError::NotUtf8 => self.close(write, code::NOT_UTF8, "a text is not UTF-8").await,
            SocketError::Broken => {}
        }
    }

    async fn close(&self, write: &mut SocketWrite, code: u16, reason: &str) {
        let close = SocketClose { code, reason: reason.to_owned() };
        let _ = send(&**self.world(), write, SocketMessage::Close(close)).await;
    }
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Receipt,
    Challenge,
    Error,
}

/// Whether the same may be shown again in a moment.
fn is_for_later(status: StatusCode) -> bool {
    matches!(status.as_u16(), 409 | 429 | 500..=599)
}

fn length(message: &SocketMessage) -> usize {
    match message {
        SocketMessage::Text(text) => text.len(),
        SocketMessage::Binary(bytes) => bytes.len(),
        SocketMessage::Ping | SocketMessage::Pong | SocketMessage::Close(_) => 0,
    }
}

/// Tells a payment's frames from what the application says.
fn read_frame(text: String) -> Said {
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

async fn send_all(
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

async fn send(world: &dyn World, write: &mut SocketWrite, message: SocketMessage) -> Result<(), SocketError> {
    within(world, SOCKET_STALL, write.send(message)).await.unwrap_or(Err(SocketError::Broken))
}

/// Reads to the end, so that the other side's goodbye is heard.
async fn farewell(world: &dyn World, read: &mut SocketRead) {
    let end = async { while let Some(Ok(_)) = read.next().await {} };
    let _ = within(world, SOCKET_FAREWELL, end).await;
}

/// What a future gives within this time.
async fn within<F: Future>(world: &dyn World, time: Duration, future: F) -> Option<F::Output> {
    let future = std::pin::pin!(future);
    match select(future, world.sleep(time)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
