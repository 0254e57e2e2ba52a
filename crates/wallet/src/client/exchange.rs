//! One HTTP exchange, as the client sees it. Who performs it is a choice: a socket, or a script.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_wire::mpp::ws::Framing;
use http::{HeaderMap, Method, StatusCode, Version};
use url::Url;

use crate::journal::Header;

/// Which machines a request may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Neither this machine nor its network, whatever a name or a redirect leads to.
    Public,
    Anywhere,
}

/// Whoever carries a request to a seller and brings the answer back: [`super::Transport`] over sockets, and scripts
/// and simulated networks in tests.
#[async_trait]
pub trait Exchange: Send + Sync {
    /// Sends `request`, with `payment` beside its headers, follows no redirect, and reads at most as much as allowed.
    ///
    /// Returns within the time given. What is cut off is [`Body::Truncated`], never an answer that seems whole.
    ///
    /// # Errors
    /// [`SendError`] says nothing about whether the seller got the request.
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        reach: Reach,
        within: Duration,
    ) -> Result<Answer, SendError>;

    /// The same, but the body comes piece by piece as it is sent, for a stream that is paid as it goes on. `within` is
    /// for the head.
    ///
    /// Whoever cannot do that returns the whole answer.
    async fn open(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        reach: Reach,
        within: Duration,
    ) -> Result<Opened, SendError> {
        let answer = self.send(request, payment, reach, within).await?;
        Ok(Opened { answer, rest: None })
    }

    /// Opens a WebSocket at the request's address. `within` is for its handshake.
    async fn socket(
        &self,
        request: &HttpRequest,
        reach: Reach,
        within: Duration,
    ) -> Result<SocketOpened, SendError> {
        let _ = (request, reach, within);
        Err(SendError::Broken("there are no sockets here".to_owned()))
    }
}

/// What came of the handshake of a WebSocket.
pub enum SocketOpened {
    Open {
        socket: Box<dyn Conversation>,
        /// The other end is this machine or its network.
        private: bool,
    },
    /// It was answered as a request is.
    Answered(Box<Answer>),
}

impl fmt::Debug for SocketOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { private, .. } => {
                f.debug_struct("Open").field("private", private).finish_non_exhaustive()
            }
            Self::Answered(answer) => f.debug_tuple("Answered").field(answer).finish(),
        }
    }
}

/// A message of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    Binary(Bytes),
}

/// A socket that is open. Dropping it breaks it off.
#[async_trait]
pub trait Conversation: Send {
    /// Waits for the next message; `None` once the other side closed it.
    ///
    /// # Errors
    /// [`SendError`] if it breaks off, or nothing comes within the time given.
    async fn next(&mut self, within: Duration) -> Result<Option<Heard>, SendError>;

    async fn say(&mut self, text: String) -> Result<(), SendError>;

    /// Closes it, as far as that is still possible.
    async fn end(&mut self);
}

/// An answer whose body may still come.
pub struct Opened {
    /// With an empty body if there is a rest.
    pub answer: Answer,
    pub rest: Option<Box<dyn Pieces>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("answer", &self.answer).finish_non_exhaustive()
    }
}

/// A body as it comes. Dropping it ends the exchange.
#[async_trait]
pub trait Pieces: Send {
    /// Waits for the next piece; `None` is the body's end.
    ///
    /// # Errors
    /// [`SendError`] if it breaks off, or nothing comes within the time given.
    async fn next(&mut self, within: Duration) -> Result<Option<Bytes>, SendError>;
}

/// What is asked for.
#[derive(Clone)]
pub struct HttpRequest {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What is bought comes over a WebSocket, in frames of this kind. Its price is asked for as for any request.
    pub socket: Option<Framing>,
}

impl HttpRequest {
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new(), socket: None }
    }
}

/// Shows no value of a header, no query and no body: they may hold secrets.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method, shown(&self.url), self.body.len())
    }
}

/// A URL without what may be secret in it.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails on a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let hidden = url.query().is_some();
    url.set_query(None);
    url.set_fragment(None);
    if hidden { format!("{url}?…") } else { url.to_string() }
}

/// What somebody else wrote, as a terminal may be given it: without control characters, which could move its cursor or
/// repaint what was said before, and without those that turn the direction of the text around.
pub fn printable(text: &str) -> String {
    let plain = |c: char| {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}') {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(plain).collect()
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Body,
    /// Who answered.
    pub url: Url,
    /// The answer came from this machine or its network.
    pub private: bool,
}

#[derive(Debug, Clone)]
pub enum Body {
    Complete(Bytes),
    /// It ended before its end, or its time was over.
    Truncated(Bytes),
    /// It has more bytes than we read.
    TooLarge {
        limit: usize,
    },
}

impl Body {
    /// The whole body, if there is one.
    pub fn complete(&self) -> Option<&Bytes> {
        if let Self::Complete(bytes) = self { Some(bytes) } else { None }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("{0} is on this machine or its network, which the owner did not allow")]
    Private(String),
    #[error("there was no answer in time")]
    Timeout,
    #[error("{host} cannot be reached: {cause}")]
    Connect { host: String, cause: String },
    #[error("the answer cannot be read: {0}")]
    Broken(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_urls_hold_no_secrets() {
        let url = "https://user:pw@x.example/a?key=secret#f".parse().unwrap();
        assert_eq!(shown(&url), "https://x.example/a?…");
    }
}
