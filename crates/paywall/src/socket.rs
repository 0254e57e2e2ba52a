//! WebSockets, as far as a paywall sees them: who speaks the protocol on the wire is the server's choice.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{Sink, Stream};
use http::{HeaderMap, StatusCode, request};

/// One message. Pings are answered where the protocol is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMessage {
    Text(String),
    Binary(Bytes),
    Ping,
    Pong,
    /// The other side ends it, or we do.
    Close(SocketClose),
}

/// Why a socket was closed.
///
/// Spec: RFC 6455 section 7.4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketClose {
    pub code: u16,
    /// At most 123 bytes.
    pub reason: String,
}

/// Why nothing more comes, or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    #[error("a message is too long")]
    TooLong,
    #[error("a text is not UTF-8")]
    NotUtf8,
    #[error("it broke off")]
    Broken,
}

/// What comes in.
pub type SocketRead = BoxStream<'static, Result<SocketMessage, SocketError>>;
/// What goes out.
pub type SocketWrite = Pin<Box<dyn Sink<SocketMessage, Error = SocketError> + Send>>;

/// A socket that is open.
pub struct OpenSocket {
    pub read: SocketRead,
    pub write: SocketWrite,
}

impl OpenSocket {
    pub fn new<S>(socket: S) -> Self
    where
        S: Stream<Item = Result<SocketMessage, SocketError>>
            + Sink<SocketMessage, Error = SocketError>
            + Send
            + 'static,
    {
        let (write, read) = futures_util::StreamExt::split(socket);
        Self { read: Box::pin(read), write: Box::pin(write) }
    }
}

impl fmt::Debug for OpenSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenSocket")
    }
}

/// A client's socket that will be open once its answer, with status 101 and these headers, has left.
pub struct AcceptedSocket {
    pub headers: HeaderMap,
    pub socket: BoxFuture<'static, Result<OpenSocket, SocketError>>,
}

impl fmt::Debug for AcceptedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedSocket").field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// An upstream's socket, with the headers of its answer.
#[derive(Debug)]
pub struct ConnectedSocket {
    pub headers: HeaderMap,
    pub socket: OpenSocket,
}

/// Why there is no socket to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("the upstream cannot be reached")]
    Unreachable,
    #[error("the upstream answered with {0}")]
    Answered(StatusCode),
}

/// Opens the two sockets of one request.
#[async_trait]
pub trait Sockets: Send + Sync {
    /// Takes the client's connection over; `None` if that was done before.
    fn accept(&self) -> Option<AcceptedSocket>;

    /// Opens a socket to the upstream that stands behind the request's route, for a request with this head.
    async fn connect(&self, head: request::Parts) -> Result<ConnectedSocket, ConnectError>;

    /// Resolves when the server is about to end its connections.
    async fn leaving(&self);
}

/// In the extensions of a request that may become a WebSocket: its handshake is sound, and the server can speak it.
#[derive(Clone)]
pub struct WebSocket(pub Arc<dyn Sockets>);

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebSocket")
    }
}
