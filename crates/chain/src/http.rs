//! JSON-RPC packets over HTTP, with bounds, and with nothing of the URL in what is said about them.

use std::time::Duration;

use alloy_json_rpc::{RequestPacket, ResponsePacket};
use bytes::BytesMut;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::Semaphore;
use url::{Host, Url};

use crate::config::{ConfigError, shown};

/// The longest answer that is read. A hundred receipts or a full shared call take well below a megabyte.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Below the idle time-outs of common load balancers (60 s), so that they do not close what we are about to use.
const POOL_IDLE: Duration = Duration::from_secs(30);
const MAX_CONNECT: Duration = Duration::from_secs(2);

/// Why a request has no answer. The node may have acted on it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("timed out")]
    Timeout,
    #[error("cannot be reached")]
    Unreachable,
    #[error("answered HTTP status {0}")]
    Status(u16),
    #[error("limits our rate")]
    RateLimited,
    #[error("answered more than {MAX_BODY_BYTES} bytes")]
    Oversize,
    #[error("answered what is not JSON-RPC")]
    Unreadable,
    #[error("has too many requests of ours open")]
    Saturated,
}

/// The connections of one chain, kept alive and shared by those of its nodes that are reached in the same way.
pub(crate) struct Clients {
    timeout: Duration,
    max_connections: usize,
    made: Vec<(Way, reqwest::Client)>,
}

/// How a node is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// Never through a proxy.
    loopback: bool,
    /// The certificates of the system are read only where somebody is to show one: reading them takes longer than
    /// the rest of a start.
    tls: bool,
}

impl Clients {
    pub(crate) fn new(timeout: Duration, max_connections: usize) -> Self {
        Self { timeout, max_connections, made: Vec::new() }
    }

    fn client_for(&mut self, url: &Url) -> Result<reqwest::Client, ConfigError> {
        let way = Way { loopback: loopback(url), tls: url.scheme() == "https" };
        if let Some((_, client)) = self.made.iter().find(|(made, _)| *made == way) {
            return Ok(client.clone());
        }
        // The client needs some provider; if the process has chosen one already, that choice stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(self.max_connections)
            .pool_idle_timeout(POOL_IDLE)
            .connect_timeout(self.timeout.min(MAX_CONNECT))
            .timeout(self.timeout)
            .referer(false)
            // A redirect would carry signed transactions to a host that nobody configured.
            .redirect(reqwest::redirect::Policy::none());
        if way.loopback {
            builder = builder.no_proxy();
        }
        if !way.tls {
            builder = builder.https_only(false).tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| ConfigError::Http(error.without_url().to_string()))?;
        self.made.push((way, client.clone()));
        Ok(client)
    }
}

/// One URL.
pub(crate) struct Http {
    client: reqwest::Client,
    url: Url,
    timeout: Duration,
    open: Semaphore,
}

impl Http {
    pub(crate) fn new(url: Url, clients: &mut Clients) -> Result<Self, ConfigError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ConfigError::Scheme(shown(&url)));
        }
        let client = clients.client_for(&url)?;
        let open = Semaphore::new(clients.max_connections.max(1));
        Ok(Self { client, url, timeout: clients.timeout, open })
    }

    pub(crate) fn shown(&self) -> String {
        shown(&self.url)
    }

    pub(crate) async fn send(&self, packet: &RequestPacket) -> Result<ResponsePacket, Failure> {
        // INVARIANT: a packet is strings and numbers, which serialize always; the semaphore is never closed.
        let body = serde_json::to_vec(packet).map_err(|_| Failure::Unreadable)?;
        let _open = tokio::time::timeout(self.timeout, self.open.acquire())
            .await
            .map_err(|_| Failure::Saturated)?
            .map_err(|_| Failure::Saturated)?;
        let mut response = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body)
            .send()
            .await
            .map_err(|error| failure(&error))?;
        let status = response.status();
        if status.as_u16() == 429 {
            return Err(Failure::RateLimited);
        }
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > MAX_BODY_BYTES) {
            return Err(Failure::Oversize);
        }
        let mut body = BytesMut::with_capacity(announced.unwrap_or(0));
        while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(Failure::Oversize);
            }
            body.extend_from_slice(&chunk);
        }
        // Some nodes send a JSON-RPC error with an HTTP status of 4xx or 5xx: then the error says more.
        match serde_json::from_slice::<ResponsePacket>(&body) {
            Ok(packet) if status.is_success() || packet.is_error() => Ok(packet),
            _ if status.is_success() => Err(Failure::Unreadable),
            _ => Err(Failure::Status(status.as_u16())),
        }
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() { Failure::Timeout } else { Failure::Unreachable }
}

fn loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
