//! Sockets: connections in, bounded in number, size and time; and an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farthing_paywall::{PaywallBody, PaywallService};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::body::RequestBody;
use super::proxy::{Proxy, see_client, text};
use crate::config::{Cidr, LimitsConfig};

/// The most headers of a request.
pub const MAX_HEADERS: usize = 128;
/// How many requests one HTTP/2 connection may have under way.
pub const MAX_STREAMS: u32 = 256;
/// How often a silent HTTP/2 connection is asked whether it lives, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(20);
/// How long to wait after the system refused a connection, e.g. for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Where load balancers may ask whether we are there. Says nothing else.
pub const HEALTH_PATH: &str = "/.well-known/farthing/health";

/// All that a connection needs.
#[derive(Clone)]
pub struct Server {
    pub service: PaywallService<Proxy>,
    pub limits: LimitsConfig,
    pub trusted: Arc<Vec<Cidr>>,
    pub tls: Option<TlsAcceptor>,
}

/// Accepts until `stop` resolves, then lets what is under way end, for at most the time that the limits give.
pub async fn accept(server: Server, listener: TcpListener, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(server.limits.max_connections));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = next(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (server, watcher) = (server.clone(), graceful.watcher());
        tokio::spawn(async move {
            serve(server, stream, peer, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(server.limits.shutdown_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were cut off: they did not end in time");
    }
}

/// Waits for a place before it takes a connection: more than the limit wait in the system's queue.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn serve(server: Server, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
    let _ = stream.set_nodelay(true);
    match server.tls.clone() {
        None => connection(server, stream, peer, false, watcher).await,
        Some(acceptor) => {
            let handshake = tokio::time::timeout(server.limits.header_timeout, acceptor.accept(stream));
            match handshake.await {
                Ok(Ok(stream)) => connection(server, stream, peer, true, watcher).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    }
}

async fn connection<S>(server: Server, stream: S, peer: SocketAddr, tls: bool, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = server.limits;
    let handler = service_fn(move |request: Request<Incoming>| {
        let (service, trusted) = (server.service.clone(), server.trusted.clone());
        async move { handle(service, &trusted, request, peer, tls).await }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Also bounds how long a connection may idle between two requests.
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes)
        .max_headers(MAX_HEADERS)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN);
    let serving = builder.serve_connection(TokioIo::new(stream), handler);
    if let Err(error) = watcher.watch(serving).await {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

async fn handle(
    service: PaywallService<Proxy>,
    trusted: &[Cidr],
    request: Request<Incoming>,
    peer: SocketAddr,
    tls: bool,
) -> Result<Response<PaywallBody>, std::convert::Infallible> {
    if request.uri().path() == HEALTH_PATH {
        return Ok(text(StatusCode::OK, "{\"status\":\"ok\"}"));
    }
    // A tunnel through us would lead past every price; a trace would tell credentials to whoever asks.
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "{\"error\":\"method_not_allowed\"}"));
    }
    let (mut parts, body) = request.into_parts();
    let is_trusted = |address| trusted.iter().any(|range| range.contains(address));
    let (client, scheme) = see_client(&mut parts.headers, peer.ip(), tls, is_trusted);
    // HTTP/2 names the host in the target.
    if !parts.headers.contains_key(http::header::HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(value) = authority.as_str().parse()
    {
        parts.headers.insert(http::header::HOST, value);
    }
    parts.extensions.insert(client);
    parts.extensions.insert(scheme);
    service.oneshot(Request::from_parts(parts, RequestBody::from(body))).await
}
