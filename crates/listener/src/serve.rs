use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::files::most_connections;
use crate::limits::{
    MAX_HEADERS, MAX_PENDING_RESETS, MAX_SEND_BUFFER, MAX_STREAMS, PING_EVERY, PING_WITHIN, STREAM_WINDOW,
    WINDOW,
};
use crate::paced::Paced;
use crate::pulse::{Pulse, Verdict};
use crate::table::{Place, Table};
use crate::{BoxError, Inbound, Limits, Outbound, Taken, Takeover};

/// How long to wait after the system refused a connection, e.g. for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// The longest time between two looks at a connection.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// All that connections need.
#[derive(Clone)]
pub struct Server<H> {
    /// Answers one request.
    pub handler: H,
    pub limits: Limits,
    pub tls: Option<TlsAcceptor>,
    /// Whether this address stands for many clients, as a proxy does: it may have any number of connections.
    pub stands_for_many: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl<H> std::fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Accepts until `stop` resolves, then lets what is under way end, for at most the time that the limits give.
pub async fn serve<H, F, B>(server: Server<H>, listener: TcpListener, stop: impl Future<Output = ()>)
where
    H: Fn(Request<Inbound>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let table = Table::new(&server.limits, most_connections(server.limits.max_connections));
    let (stopping, stopped) = watch::channel(false);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let peer = (!(server.stands_for_many)(address.ip())).then_some(address.ip());
        let pulse = Pulse::new(server.limits);
        // Closed at once: whoever asks again later may find a place.
        let Some(place) = table.enter(peer, &pulse) else { continue };
        tokio::spawn(connection(
            server.clone(),
            stream,
            address,
            Seat { pulse, place: Some(place), stopped: stopped.clone() },
        ));
    }
    drop(listener);
    // Connections that are gone do not listen.
    let _ = stopping.send(true);
    if tokio::time::timeout(server.limits.shutdown_timeout, table.empty()).await.is_err() {
        tracing::warn!("connections were cut off: they did not end in time");
    }
}

/// What belongs to one connection.
struct Seat {
    pulse: Arc<Pulse>,
    /// `None` where the connection below keeps one.
    place: Option<Place>,
    stopped: watch::Receiver<bool>,
}

/// Speaks HTTP with whoever is at the other end of a connection that was taken over, within the same limits: after the
/// TLS inside of a CONNECT. Returns when that has ended.
///
/// `server.tls` is not used. What left is known by the connection below: see [`crate::Departures`].
pub async fn serve_taken<H, F, B, S>(server: Server<H>, stream: S, peer: Peer, taken: Taken)
where
    H: Fn(Request<Inbound>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pulse = Pulse::above(taken.pulse(), server.limits);
    let stopped = taken.stop_signal();
    speak(server, stream, peer, Seat { pulse, place: None, stopped }).await;
    // Until here the connection below was busy.
    drop(taken);
}

async fn connection<H, F, B>(server: Server<H>, stream: TcpStream, address: SocketAddr, seat: Seat)
where
    H: Fn(Request<Inbound>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // An answer is one small write: waiting to send more with it would only delay it.
    let _ = stream.set_nodelay(true);
    let pulse = seat.pulse.clone();
    let stream = Paced::new(stream, pulse.clone());
    match server.tls.clone() {
        None => speak(server, stream, Peer { address, tls: false }, seat).await,
        Some(acceptor) => {
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(server.limits.head_timeout, acceptor.accept(stream)) => shaken,
                () = pulse.evicted() => return,
            };
            match shaken {
                Ok(Ok(stream)) => speak(server, stream, Peer { address, tls: true }, seat).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    }
}

async fn speak<H, F, B, S>(server: Server<H>, stream: S, peer: Peer, seat: Seat)
where
    H: Fn(Request<Inbound>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Seat { pulse, place, mut stopped } = seat;
    let limits = server.limits;
    let (handler, counted) = (server.handler, pulse.clone());
    let (takeover, mut over) = Takeover::new(pulse.clone(), stopped.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(counted.departures.clone());
        // Spec: RFC 9113 section 8.6: HTTP/2 has no upgrades. A CONNECT there takes one stream, not the connection.
        // Spec: RFC 9110 section 7.8: nor has HTTP/1.0; but programs in use ask for tunnels in it.
        let takes_over = match request.version() {
            Version::HTTP_10 => request.method() == Method::CONNECT,
            Version::HTTP_11 => {
                request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE)
            }
            _ => false,
        };
        if takes_over {
            request.extensions_mut().insert(takeover.clone());
        }
        let under_way = counted.request();
        let answered = Arc::new(AtomicBool::new(false));
        let answer = handler(request.map(|body| Inbound::new(body, limits, answered.clone())), peer);
        async move {
            let answer = answer.await;
            answered.store(true, Ordering::Release);
            Ok::<_, Infallible>(answer.map(|body| Outbound::new(body, under_way)))
        }
    });
    let builder = builder(&limits);
    let mut serving = Box::pin(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let shortest = limits.head_timeout.min(limits.idle_timeout).min(limits.stall_timeout);
    let every = (shortest / 2).clamp(Duration::from_millis(10), LOOK_EVERY);
    let mut look = std::pin::pin!(sleep_until(Instant::now() + every));
    let mut leaving = false;
    loop {
        tokio::select! {
            biased;
            served = serving.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(error, "a connection ended with an error");
                }
                break;
            }
            () = pulse.evicted() => {
                tracing::debug!("an idle connection makes room for another");
                // Whoever never asked has nothing to lose; a request of the others may be on its way just now.
                if leaving || !pulse.has_asked() {
                    break;
                }
                serving.as_mut().graceful_shutdown();
                leaving = true;
            }
            () = told(&mut stopped), if !leaving => {
                serving.as_mut().graceful_shutdown();
                leaving = true;
            }
            () = look.as_mut() => {
                match pulse.judge() {
                    Verdict::Fine if leaving && !pulse.is_busy() => break,
                    Verdict::Fine => {}
                    // First it is asked to go, so that a request that is on its way just now is not lost.
                    Verdict::Idle if !leaving => {
                        serving.as_mut().graceful_shutdown();
                        leaving = true;
                    }
                    verdict => {
                        tracing::debug!(?verdict, "a connection was ended");
                        break;
                    }
                }
                look.as_mut().reset(Instant::now() + every);
            }
        }
    }
    drop(serving);
    // Whoever took the connection over still has it: what is left of it here has no sender any more.
    let _ = over.recv().await;
    // Only now is there room for another.
    drop(place);
}

/// Resolves when the service stops, or is gone.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Also bounds how long a connection may idle between two requests.
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_head_bytes)
        .max_headers(MAX_HEADERS)
        .half_close(limits.half_close);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN);
    builder
}
