//! Exchanges over sockets, bounded in bytes, time and reach. It follows no redirect and knows no payment.

use std::error::Error as _;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use farthing_policy::{Origin, is_public};
use farthing_wire::mpp::ws::{MAX_FRAME_BYTES, MAX_UNREAD_BYTES};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::exchange::{
    Answer, Body, Conversation, Exchange, Heard, HttpRequest, Opened, Pieces, Reach, SendError, SocketOpened,
};
use crate::journal::Header;

/// What is read ahead of a socket, and what is gathered before it is written, in bytes. Each socket has both.
const SOCKET_BUFFER: usize = 16 * 1024;
/// How many header fields an answer may have.
pub const MAX_HEADERS: usize = 100;
/// The most bytes of header fields over HTTP/2. Challenges with discovery schemas are long.
pub const MAX_HEADER_LIST_BYTES: u32 = 128 * 1024;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a socket may take to make room for one message.
const SAY_WITHIN: Duration = Duration::from_secs(30);
/// How long the other side of a socket may take to say goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// Exchanges over sockets: the one production [`Exchange`]. It needs a tokio runtime.
pub struct Transport {
    /// Resolves names to public addresses only: the address that was looked at is the one that is connected to.
    public: reqwest::Client,
    any: reqwest::Client,
    /// The same two for what becomes a WebSocket, which HTTP/2 has no upgrade to.
    public_socket: reqwest::Client,
    any_socket: reqwest::Client,
    max_body: usize,
}

impl Transport {
    /// Reads bodies of at most `max_body` bytes.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up; the text is for people.
    pub fn new(max_body: usize) -> Result<Self, String> {
        let lookup: Lookup =
            |host| Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) });
        Self::with_lookup(max_body, lookup).map_err(|error| error.to_string())
    }

    fn with_lookup(max_body: usize, lookup: Lookup) -> Result<Self, reqwest::Error> {
        // Fails only if there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                // A proxy would look names up in our place.
                .no_proxy()
                .connect_timeout(CONNECT_TIMEOUT)
                .http1_max_headers(MAX_HEADERS)
                .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
                .user_agent(concat!("farthing/", env!("CARGO_PKG_VERSION")))
        };
        let resolver = |public_only| Resolver { lookup, public_only };
        Ok(Self {
            public: base().dns_resolver(resolver(true)).build()?,
            any: base().dns_resolver(resolver(false)).build()?,
            public_socket: base().http1_only().dns_resolver(resolver(true)).build()?,
            any_socket: base().http1_only().dns_resolver(resolver(false)).build()?,
            max_body,
        })
    }

    async fn read(&self, mut response: reqwest::Response, deadline: tokio::time::Instant) -> Body {
        let mut read = BytesMut::new();
        loop {
            match tokio::time::timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    if read.len().saturating_add(chunk.len()) > self.max_body {
                        return Body::TooLarge { limit: self.max_body };
                    }
                    read.extend_from_slice(&chunk);
                }
                Ok(Ok(None)) => return Body::Complete(read.freeze()),
                Ok(Err(_)) | Err(_) => return Body::Truncated(read.freeze()),
            }
        }
    }
}

impl Transport {
    /// The head of an answer, and the response whose body is still to be read.
    async fn head(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        (reach, upgrade): (Reach, Option<&str>),
        deadline: tokio::time::Instant,
    ) -> Result<(Answer, reqwest::Response), SendError> {
        let host = || request.url.host_str().unwrap_or_default().to_owned();
        let client = match reach {
            // A host that is an address is not looked up, so no resolver would stop it.
            Reach::Public if Origin::of(&request.url).is_ok_and(|origin| origin.host.is_local()) => {
                return Err(SendError::Private(host()));
            }
            Reach::Public if upgrade.is_some() => &self.public_socket,
            Reach::Public => &self.public,
            Reach::Anywhere if upgrade.is_some() => &self.any_socket,
            Reach::Anywhere => &self.any,
        };
        let mut headers = request.headers.clone();
        if let Some(key) = upgrade {
            let key = HeaderValue::from_str(key).map_err(|e| SendError::Broken(e.to_string()))?;
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        if let Some(Header { name, value }) = payment {
            let name = header::HeaderName::try_from(name).map_err(|e| SendError::Broken(e.to_string()))?;
            let mut value = HeaderValue::from_str(value).map_err(|e| SendError::Broken(e.to_string()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let sent = client
            .request(request.method.clone(), request.url.clone())
            .headers(headers)
            .body(request.body.clone())
            .send();
        let response = match tokio::time::timeout_at(deadline, sent).await {
            Err(_) => return Err(SendError::Timeout),
            Ok(Err(error)) => return Err(explain(&error, host())),
            Ok(Ok(response)) => response,
        };
        let remote: Option<SocketAddr> = response.remote_addr();
        let answer = Answer {
            status: response.status(),
            version: response.version(),
            headers: response.headers().clone(),
            body: Body::Complete(Bytes::new()),
            url: request.url.clone(),
            // An address that nobody can tell counts as the worse kind.
            private: remote.is_none_or(|remote| !is_public(remote.ip())),
        };
        Ok((answer, response))
    }
}

#[async_trait]
impl Exchange for Transport {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        reach: Reach,
        within: Duration,
    ) -> Result<Answer, SendError> {
        let deadline = tokio::time::Instant::now() + within;
        let (mut answer, response) = self.head(request, payment, (reach, None), deadline).await?;
        answer.body = self.read(response, deadline).await;
        Ok(answer)
    }

    async fn open(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        reach: Reach,
        within: Duration,
    ) -> Result<Opened, SendError> {
        let deadline = tokio::time::Instant::now() + within;
        let (answer, response) = self.head(request, payment, (reach, None), deadline).await?;
        Ok(Opened { answer, rest: Some(Box::new(Rest(response))) })
    }

    async fn socket(
        &self,
        request: &HttpRequest,
        reach: Reach,
        within: Duration,
    ) -> Result<SocketOpened, SendError> {
        let deadline = tokio::time::Instant::now() + within;
        let key = generate_key();
        let (mut answer, response) = self.head(request, None, (reach, Some(&key)), deadline).await?;
        let accepted = answer.headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        // Spec: RFC 6455 section 4.1: what does not answer our key is no server of this protocol.
        if answer.status != StatusCode::SWITCHING_PROTOCOLS
            || accepted != Some(derive_accept_key(key.as_bytes()).as_bytes())
        {
            answer.body = self.read(response, deadline).await;
            return Ok(SocketOpened::Answered(Box::new(answer)));
        }
        let io =
            response.upgrade().await.map_err(|error| SendError::Broken(error.without_url().to_string()))?;
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(socket_config())).await;
        Ok(SocketOpened::Open { socket: Box::new(Socket(socket)), private: answer.private })
    }
}

/// How WebSockets are read and written, the buyer's and the seller's: within bounds, whatever the other side sends and
/// does not read.
pub fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(SOCKET_BUFFER)
        .write_buffer_size(SOCKET_BUFFER)
        .max_write_buffer_size(MAX_UNREAD_BYTES)
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
}

/// A WebSocket. Pings are answered while it is read.
struct Socket(WebSocketStream<reqwest::Upgraded>);

#[async_trait]
impl Conversation for Socket {
    async fn next(&mut self, within: Duration) -> Result<Option<Heard>, SendError> {
        let read = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(Some(Heard::Text(text.as_str().to_owned()))),
                    Some(Ok(Message::Binary(bytes))) => return Ok(Some(Heard::Binary(bytes))),
                    Some(Ok(Message::Close(_))) | None => return Ok(None),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Err(error)) => return Err(SendError::Broken(error.to_string())),
                }
            }
        };
        tokio::time::timeout(within, read).await.unwrap_or(Err(SendError::Timeout))
    }

    async fn say(&mut self, text: String) -> Result<(), SendError> {
        match tokio::time::timeout(SAY_WITHIN, self.0.send(Message::text(text))).await {
            Err(_) => Err(SendError::Timeout),
            Ok(sent) => sent.map_err(|error| SendError::Broken(error.to_string())),
        }
    }

    async fn end(&mut self) {
        // Whoever does not hear it will notice.
        let _ = tokio::time::timeout(GOODBYE_WITHIN, async {
            self.0.close(None).await?;
            while let Some(Ok(_)) = self.0.next().await {}
            Ok::<_, tokio_tungstenite::tungstenite::Error>(())
        })
        .await;
    }
}

/// What is still to come of a response.
struct Rest(reqwest::Response);

#[async_trait]
impl Pieces for Rest {
    async fn next(&mut self, within: Duration) -> Result<Option<Bytes>, SendError> {
        match tokio::time::timeout(within, self.0.chunk()).await {
            Err(_) => Err(SendError::Timeout),
            Ok(Err(_)) => Err(SendError::Broken("it broke off".to_owned())),
            Ok(Ok(piece)) => Ok(piece),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

fn explain(error: &reqwest::Error, host: String) -> SendError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    let mut last = None;
    while let Some(inner) = cause {
        if inner.downcast_ref::<OnlyPrivate>().is_some() {
            return SendError::Private(host);
        }
        last = Some(inner.to_string());
        cause = inner.source();
    }
    if error.is_timeout() {
        return SendError::Timeout;
    }
    // The error's own text holds the URL, and the URL may hold secrets.
    let cause = last.unwrap_or_else(|| "no reason is given".to_owned());
    if error.is_connect() { SendError::Connect { host, cause } } else { SendError::Broken(cause) }
}

/// Finds the addresses of a name.
type Lookup = fn(String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

/// A resolver whose answers are what is connected to, so that a second look cannot tell another story.
#[derive(Debug, Clone, Copy)]
struct Resolver {
    lookup: Lookup,
    public_only: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the name leads to addresses of this machine or its network only")]
struct OnlyPrivate;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { lookup, public_only } = *self;
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let found = lookup(host).await?;
            let allowed = if public_only { only_public(found)? } else { found };
            let allowed: Addrs = Box::new(allowed.into_iter());
            Ok(allowed)
        })
    }
}

fn only_public(found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, OnlyPrivate> {
    let public: Vec<_> = found.into_iter().filter(|address| is_public(address.ip())).collect();
    if public.is_empty() { Err(OnlyPrivate) } else { Ok(public) }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio_tungstenite::tungstenite::{Error, WebSocket};

    use super::*;

    /// Known attack 31: a name that leads to this machine's own network, at once or at the second look.
    #[test]
    fn attack_31_a_rebound_name_is_never_connected_to() {
        let at = |text: &str| -> Vec<SocketAddr> { text.split(' ').map(|a| a.parse().unwrap()).collect() };
        assert!(only_public(at("127.0.0.1:0 10.0.0.1:0 [::1]:0 169.254.169.254:0")).is_err());
        assert_eq!(only_public(at("10.0.0.1:0 1.1.1.1:0")).unwrap(), at("1.1.1.1:0"));
        assert!(only_public(Vec::new()).is_err());
    }

    /// Known attack 31: a public name whose owner lets it lead here.
    #[tokio::test]
    async fn attack_31_a_name_that_leads_here_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = axum::Router::new().fallback(|| async { "here" });
        tokio::spawn(async move { axum::serve(listener, app).await });
        let lookup: Lookup = |_| Box::pin(async { Ok(vec!["127.0.0.1:0".parse().unwrap()]) });
        let transport = Transport::with_lookup(1000, lookup).unwrap();
        let request = HttpRequest::get(format!("http://rebound.example:{port}/").parse().unwrap());
        let limit = Duration::from_secs(10);
        let refused = transport.send(&request, None, Reach::Public, limit).await;
        assert!(matches!(refused, Err(SendError::Private(_))), "{refused:?}");
        // With the owner's word it is reached, and known for what it is.
        let answer = transport.send(&request, None, Reach::Anywhere, limit).await.unwrap();
        assert!(answer.private);
    }

    /// One ping after the other, and nothing is ever read.
    struct Deaf;

    impl io::Read for Deaf {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            // Spec: RFC 6455 section 5.1: a client's frames are masked, by zeros here.
            let ping: &[u8] = &[&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[7; 100]].concat();
            let most = (into.len() / ping.len()) * ping.len();
            into.iter_mut().zip(ping.iter().cycle()).take(most).for_each(|(byte, of)| *byte = *of);
            Ok(most)
        }
    }

    impl io::Write for Deaf {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn answers_to_pings_do_not_pile_up_for_who_does_not_read() {
        let mut socket = WebSocket::from_raw_socket(Deaf, Role::Server, Some(socket_config()));
        for _ in 0..2 * MAX_UNREAD_BYTES / 100 {
            assert!(matches!(socket.read(), Ok(Message::Ping(_))));
        }
        let more = socket.write(Message::binary(vec![0; MAX_FRAME_BYTES]));
        assert!(matches!(more, Err(Error::WriteBufferFull(_))), "{more:?}");
    }
}
