//! One kept-alive connection to a server under test: as little as possible between us and it.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The most that an answer may say.
const MAX_ANSWER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0} is not an http:// URL with a host and a port")]
    Url(String),
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    #[error("no answer in time")]
    Timeout,
}

/// `http://host:port/path`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub authority: String,
    pub path: String,
}

impl Target {
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let wrong = || HttpError::Url(url.to_owned());
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if !authority.contains(':') {
            return Err(wrong());
        }
        Ok(Self { authority: authority.to_owned(), path: path.to_owned() })
    }

    pub fn request(&self, method: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(&self.path).header("host", &self.authority)
    }

    /// A `POST` of JSON.
    pub fn post(&self, body: Bytes) -> Result<Request<Full<Bytes>>, HttpError> {
        self.request("POST").header("content-type", "application/json").body(Full::new(body)).map_err(answer)
    }
}

fn answer(error: impl std::fmt::Display) -> HttpError {
    HttpError::Answer(error.to_string())
}

/// A connection; opened at the first exchange, and again after the server closed it.
#[derive(Debug)]
pub struct Connection {
    authority: String,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub fn new(target: &Target) -> Self {
        Self { authority: target.authority.clone(), open: None }
    }

    /// Opens it beforehand.
    pub async fn open(&mut self) -> Result<(), HttpError> {
        if self.open.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(&self.authority).await.map_err(HttpError::Connect)?;
            stream.set_nodelay(true).map_err(HttpError::Connect)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.open = Some(sender);
        }
        Ok(())
    }

    pub async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), HttpError> {
        self.open().await?;
        let Some(sender) = &mut self.open else { return Err(HttpError::Timeout) };
        let exchanged = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(answer)?.to_bytes();
            Ok((head.status, head.headers, body))
        }
        .await;
        if exchanged.is_err() {
            self.open = None;
        }
        exchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("http://127.0.0.1:80/verify?a=1").unwrap();
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("127.0.0.1:80", "/verify?a=1"));
        assert_eq!(Target::parse("http://localhost:1").unwrap().path, "/");
        for wrong in ["https://a:1/", "127.0.0.1:80", "http://nowhere/"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
