//! A metered stream over WebSocket: what the upstream says leaves once it is charged, and vouchers come in band.
//!
//! No draft says how. Both framings in use are spoken: the client's first frame tells which. A client that can set
//! headers shows its first voucher with the upgrade itself.

mod ending;
mod opening;
mod paying;
mod saying;
mod streaming;

use std::sync::Arc;
use std::time::Duration;

use farthing_engine::{Till, World};
use farthing_wire::mpp::Credential;
use farthing_wire::mpp::ws::Framing;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};

use super::Session;
use super::credential::is_session;
use crate::admit::Shown;
use crate::answer;
use crate::body;
use crate::headers::make_private;
use crate::limit::Place;
use crate::service::{Answer, Visit, client_of};
use crate::socket::{AcceptedSocket, OpenSocket, Sockets, WebSocket};
use ending::Ending;
use paying::{Authorized, Running};
use saying::{farewell, within};

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

impl Talk {
    fn world(&self) -> &Arc<dyn World> {
        &self.visit.shared.world
    }

    fn framing(&self) -> Framing {
        self.framing.unwrap_or(Framing::Mppx)
    }

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
}
