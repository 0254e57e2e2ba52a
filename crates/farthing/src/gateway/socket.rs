//! WebSockets on the wire: the client's, which its request becomes, and the upstream's.

use std::sync::Mutex;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farthing_listener::{Inbound, Taken, Takeover};
use farthing_paywall::{
    AcceptedSocket, ConnectError, ConnectedSocket, OpenSocket, SocketClose, SocketError, SocketMessage,
    Sockets,
};
use farthing_wallet::client::socket_config;
use futures_util::{SinkExt, StreamExt, future};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Version, request};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::body::RequestBody;
use super::proxy::Proxy;

/// The version of the protocol, which is the only one there ever was.
const VERSION: &str = "13";
/// How many bytes a handshake's key has.
///
/// Spec: RFC 6455 section 4.1, item 7.
const KEY_BYTES: usize = 16;

/// The two ends of one request's sockets.
struct Ends {
    client: Mutex<Option<OnUpgrade>>,
    accept: HeaderValue,
    taken: Arc<Taken>,
    proxy: Proxy,
}

/// Whether a request asks to become a WebSocket, and can: by HTTP/1.1, and with a handshake that is sound.
///
/// Spec: RFC 6455 section 4.2.1.
pub fn offered(request: &mut Request<Inbound>, proxy: &Proxy) -> Option<farthing_paywall::WebSocket> {
    let takeover = request.extensions_mut().remove::<Takeover>()?;
    let headers = request.headers();
    let says = |name: HeaderName, what: &str| {
        let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|token| token.trim().eq_ignore_ascii_case(what))
    };
    let sound = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && says(header::UPGRADE, "websocket")
        && says(header::CONNECTION, "upgrade")
        && headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == VERSION);
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes();
    if !sound || STANDARD.decode(key).ok()?.len() != KEY_BYTES {
        return None;
    }
    let accept = HeaderValue::from_str(&derive_accept_key(key)).ok()?;
    let ends = Ends {
        client: Mutex::new(Some(hyper::upgrade::on(request))),
        accept,
        taken: Arc::new(takeover.take()),
        proxy: proxy.clone(),
    };
    Some(farthing_paywall::WebSocket(Arc::new(ends)))
}

#[async_trait]
impl Sockets for Ends {
    fn accept(&self) -> Option<AcceptedSocket> {
        let upgrade = self.client.lock().ok()?.take()?;
        let taken = self.taken.clone();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        let socket = Box::pin(async move {
            let io = upgrade.await.map_err(|_| SocketError::Broken)?;
            Ok(open(io, Role::Server, Some(taken)).await)
        });
        Some(AcceptedSocket { headers, socket })
    }

    async fn connect(&self, head: request::Parts) -> Result<ConnectedSocket, ConnectError> {
        let mut request = Request::from_parts(head, RequestBody::from(Bytes::new()));
        let own: Vec<HeaderName> = request
            .headers()
            .keys()
            .filter(|name| name.as_str().starts_with("sec-websocket-"))
            .cloned()
            .collect();
        for name in own {
            request.headers_mut().remove(name);
        }
        let key = generate_key();
        let response = self.proxy.upgrade(request, &key).await.map_err(|error| {
            tracing::warn!(%error, "the upstream cannot be reached");
            ConnectError::Unreachable
        })?;
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        // Spec: RFC 6455 section 4.1: what does not answer our key is no server of this protocol.
        let is_ours =
            accepted.is_some_and(|value| value.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS || !is_ours {
            return Err(ConnectError::Answered(response.status()));
        }
        let headers = response.headers().clone();
        let io = hyper::upgrade::on(response).await.map_err(|_| ConnectError::Unreachable)?;
        Ok(ConnectedSocket { headers, socket: open(io, Role::Client, None).await })
    }

    async fn leaving(&self) {
        self.taken.stopped().await;
    }
}

async fn open(io: Upgraded, role: Role, taken: Option<Arc<Taken>>) -> OpenSocket {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(io), role, Some(socket_config())).await;
    let (write, read) = socket.split();
    let read = read.filter_map(move |message| {
        // The connection has its place for as long as it is read.
        let _ = &taken;
        future::ready(match message {
            Ok(Message::Text(text)) => Some(Ok(SocketMessage::Text(text.as_str().to_owned()))),
            Ok(Message::Binary(bytes)) => Some(Ok(SocketMessage::Binary(bytes))),
            Ok(Message::Ping(_)) => Some(Ok(SocketMessage::Ping)),
            Ok(Message::Pong(_)) => Some(Ok(SocketMessage::Pong)),
            Ok(Message::Close(frame)) => {
                let close = frame.map_or((1005, String::new()), |frame| {
                    (frame.code.into(), frame.reason.as_str().to_owned())
                });
                Some(Ok(SocketMessage::Close(SocketClose { code: close.0, reason: close.1 })))
            }
            Ok(Message::Frame(_)) => None,
            Err(error) => Some(Err(why(&error))),
        })
    });
    let write = write.sink_map_err(|error| why(&error)).with(|message| {
        future::ready(Ok::<_, SocketError>(match message {
            SocketMessage::Text(text) => Message::text(text),
            SocketMessage::Binary(bytes) => Message::Binary(bytes),
            SocketMessage::Ping => Message::Ping(Bytes::new()),
            SocketMessage::Pong => Message::Pong(Bytes::new()),
            SocketMessage::Close(SocketClose { code, reason }) => {
                Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
            }
        }))
    });
    OpenSocket { read: Box::pin(read), write: Box::pin(write) }
}

fn why(error: &Error) -> SocketError {
    match error {
        Error::Capacity(_) => SocketError::TooLong,
        Error::Utf8(_) => SocketError::NotUtf8,
        _ => SocketError::Broken,
    }
}
