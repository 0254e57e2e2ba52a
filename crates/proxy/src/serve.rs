//! Serving programs: who is let in, what is opened, and what passes as it is.

use std::sync::Arc;
use std::time::Duration;

use farthing_listener::{Inbound, Limits, Peer, Server, Taken, Takeover, serve_taken};
use farthing_policy::Origin;
use farthing_primitives::Timestamp;
use farthing_wallet::system_clock;
use http::{Method, Request, Response, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::answer::{Body, empty};
use crate::call::{Calls, is_named, reach};
use crate::desk::unavailable;
use crate::{Authority, Credentials, Customer, Desk, Problem, target, tunnel};

/// Programs of one machine are one peer, and a thousand of them are no attack.
const MAX_CONNECTIONS: usize = 2048;
/// How long what is under way may take when the proxy stops.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// Where tunnels lead unless the owner says otherwise.
///
/// Spec: RFC 9110 section 9.3.6: a tunnel to any port makes the proxy a way to send mail, and worse.
pub(crate) const TUNNEL_PORT: u16 = 443;

/// How programs are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The most that one request may cost, in whole units of what is asked for; `$` in front for dollars only.
    pub max: Option<String>,
    /// Refuse hosts that the owner's rules do not allow, instead of passing on what goes to them.
    pub only_allowed: bool,
    /// Ports that tunnels may lead to, beside 443.
    pub tunnel_ports: Vec<u16>,
}

/// A forward proxy that pays.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    desk: Arc<dyn Desk>,
    authority: Authority,
    calls: Calls,
    settings: Settings,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Proxy {
    /// # Errors
    /// If the HTTP client cannot be set up; the text is for people.
    pub fn new(desk: Arc<dyn Desk>, authority: Authority, settings: Settings) -> Result<Self, String> {
        let calls = Calls::new(settings.max.clone(), settings.only_allowed)?;
        Ok(Self(Arc::new(Inner { desk, authority, calls, settings })))
    }

    /// Serves programs until `stop` resolves, and ends what is being bought.
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let this = self.clone();
        let handler = move |request: Request<Inbound>, peer: Peer| {
            let this = this.clone();
            async move { this.answer(request, peer).await.unwrap_or_else(|problem| problem.answer()) }
        };
        farthing_listener::serve(server(handler), listener, stop).await;
        if timeout(SHUTDOWN, self.0.calls.settle_down()).await.is_err() {
            tracing::warn!("purchases are left for the next start: they did not end in time");
        }
    }

    /// How many purchases nobody waits for.
    #[cfg(test)]
    pub(crate) fn left_behind(&self) -> usize {
        self.0.calls.left_behind()
    }

    async fn answer(&self, mut request: Request<Inbound>, peer: Peer) -> Result<Response<Body>, Problem> {
        let who = Credentials::read(request.headers(), peer.address.ip())?;
        let customer = self.0.desk.admit(&who).await?;
        if request.method() == Method::CONNECT {
            return self.connect(who, customer, &mut request, peer).await;
        }
        let url = target::absolute(request.uri())?;
        self.0.calls.answer(customer, url, request).await
    }

    async fn connect(
        &self,
        who: Credentials,
        customer: Customer,
        request: &mut Request<Inbound>,
        peer: Peer,
    ) -> Result<Response<Body>, Problem> {
        let origin = target::authority(request.uri())?;
        let takeover = request.extensions_mut().remove::<Takeover>().ok_or(Problem::ConnectNeedsHttp1)?;
        let hosts = customer.books.hosts().await.map_err(|denied| unavailable(&denied))?;
        let upgrade = hyper::upgrade::on(request);
        if is_named(&hosts, &origin) {
            let tls = self.0.authority.server_config(&origin.host, &hosts, now()).map_err(|error| {
                tracing::error!(%error, "a certificate could not be made");
                Problem::CertificateUnavailable
            })?;
            let opened = Opened { who, origin, tls };
            tokio::spawn(self.clone().converse(opened, upgrade, peer, takeover.take()));
        } else {
            if self.0.settings.only_allowed && !hosts.iter().any(|pattern| pattern.matches(&origin)) {
                return Err(Problem::HostNotAllowed(origin.host.to_string()));
            }
            if origin.port != TUNNEL_PORT && !self.0.settings.tunnel_ports.contains(&origin.port) {
                return Err(Problem::TunnelPort(origin.port));
            }
            let far = tunnel::connect(&origin, reach(&customer, &origin).await?).await?;
            let taken = takeover.take();
            tokio::spawn(async move {
                let Some(near) = upgraded(upgrade).await else { return };
                tokio::select! {
                    () = tunnel::carry(near, far) => {}
                    () = taken.stopped() => {}
                }
            });
        }
        Ok(Response::new(empty()))
    }

    /// Speaks TLS as the host that was named, and answers what is asked of it.
    async fn converse(self, opened: Opened, upgrade: OnUpgrade, peer: Peer, taken: Taken) {
        let Some(near) = upgraded(upgrade).await else { return };
        let acceptor = TlsAcceptor::from(opened.tls.clone());
        let stream = match timeout(limits().head_timeout, acceptor.accept(near)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                // Mostly a program that was not told of our authority.
                tracing::info!(host = %opened.origin.host, %error, "a program did not go on with TLS");
                return;
            }
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        };
        let opened = Arc::new(opened);
        let handler = move |request: Request<Inbound>, _: Peer| {
            let (this, opened) = (self.clone(), opened.clone());
            async move { this.within(&opened, request).await.unwrap_or_else(|problem| problem.answer()) }
        };
        serve_taken(server(handler), stream, Peer { tls: true, ..peer }, taken).await;
    }

    /// Answers a request within a CONNECT.
    async fn within(&self, opened: &Opened, request: Request<Inbound>) -> Result<Response<Body>, Problem> {
        // Each time anew: what was revoked is over.
        let customer = self.0.desk.admit(&opened.who).await?;
        if request.method() == Method::CONNECT {
            return Err(Problem::BadTarget("a tunnel within a tunnel is not opened"));
        }
        let mut named = request.headers().get_all(header::HOST).iter();
        // Spec: RFC 9112 section 3.2: exactly one.
        let (Some(host), None) = (named.next().and_then(|host| host.to_str().ok()), named.next()) else {
            return Err(Problem::BadTarget("a request names one host"));
        };
        if !target::names(&opened.origin, host) {
            return Err(Problem::Misdirected);
        }
        let url = target::within(&opened.origin, request.uri())?;
        self.0.calls.answer(customer, url, request).await
    }
}

/// A connection whose TLS ends here.
struct Opened {
    who: Credentials,
    origin: Origin,
    tls: Arc<ServerConfig>,
}

async fn upgraded(upgrade: OnUpgrade) -> Option<TokioIo<Upgraded>> {
    match upgrade.await {
        Ok(upgraded) => Some(TokioIo::new(upgraded)),
        Err(error) => {
            tracing::debug!(%error, "a program went before its tunnel was there");
            None
        }
    }
}

fn now() -> Timestamp {
    system_clock().wall
}

fn limits() -> Limits {
    Limits {
        max_connections: MAX_CONNECTIONS,
        max_per_peer: MAX_CONNECTIONS,
        shutdown_timeout: SHUTDOWN,
        // What it waited for is kept for when it asks again: so it has to be noticed.
        half_close: false,
        ..Limits::default()
    }
}

fn server<H>(handler: H) -> Server<H> {
    Server { handler, limits: limits(), tls: None, stands_for_many: Arc::new(|_| false) }
}
