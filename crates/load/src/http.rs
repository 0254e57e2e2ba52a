//! One kept-alive connection to a server under test: as little as possible between us and it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tower::Service;
use url::{Host, Url};

/// The most that an answer may say.
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0} is no http or https URL with a host")]
    Url(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    #[error("no answer in time")]
    Timeout,
    #[error("not sent in time: every connection was waiting for an answer")]
    NotSent,
}

impl HttpError {
    /// What a report calls it: the same word for the same fault.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url(_) => "bad_url",
            Self::Connect(_) => "no_connection",
            Self::Exchange(_) => "connection_broke",
            Self::Answer(_) => "unreadable_answer",
            Self::Timeout => "no_answer_in_time",
            Self::NotSent => "not_sent_in_time",
        }
    }
}

/// A URL, taken apart, and what is said in every request to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    base: Uri,
    host: HeaderValue,
    path: Uri,
    private: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Target {
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let wrong = || HttpError::Url(url.chars().take(200).collect());
        let parsed: Url = url.parse().map_err(|_| wrong())?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong());
        }
        let host = parsed.host().ok_or_else(wrong)?;
        let authority = match parsed.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let path = match parsed.query() {
            Some(query) => format!("{}?{query}", parsed.path()),
            None => parsed.path().to_owned(),
        };
        Ok(Self {
            base: format!("{}://{authority}", parsed.scheme()).parse().map_err(|_| wrong())?,
            host: authority.parse().map_err(|_| wrong())?,
            path: path.parse().map_err(|_| wrong())?,
            private: is_private(&host),
            headers: Vec::new(),
        })
    }

    /// Says this in every request too.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Whether the host is this machine or in a private network, by its name alone: nothing is resolved.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Host, and the port if the URL has one.
    pub fn authority(&self) -> &str {
        self.base.authority().map_or("", hyper::http::uri::Authority::as_str)
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        self.path.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str)
    }

    pub fn request(&self, method: &str) -> hyper::http::request::Builder {
        let mut builder =
            Request::builder().method(method).uri(self.path.clone()).header("host", self.host.clone());
        for (name, value) in &self.headers {
            builder = builder.header(name.clone(), value.clone());
        }
        builder
    }

    /// A `GET`, with one more header if there is one.
    pub fn get(&self, header: Option<(&str, Bytes)>) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut builder = self.request("GET");
        if let Some((name, value)) = header {
            builder = builder.header(name, HeaderValue::from_maybe_shared(value).map_err(answer)?);
        }
        builder.body(Full::default()).map_err(answer)
    }

    /// A `POST` of JSON.
    pub fn post(&self, body: Bytes) -> Result<Request<Full<Bytes>>, HttpError> {
        self.request("POST").header("content-type", "application/json").body(Full::new(body)).map_err(answer)
    }
}

/// Names that no public resolver knows count as private.
fn is_private(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Host::Ipv6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            let last = name.rsplit('.').next().unwrap_or_default();
            !name.contains('.') || ["localhost", "local", "internal", "test", "lan"].contains(&last)
        }
    }
}

fn answer(error: impl std::fmt::Display) -> HttpError {
    HttpError::Answer(error.to_string())
}

/// Makes connections, by TLS where the URL says so.
#[derive(Debug, Clone)]
pub struct Connector(HttpsConnector<HttpConnector>);

impl Connector {
    /// # Errors
    /// [`HttpError::Connect`] if the system's certificates cannot be read, which is tried where they are needed only.
    pub fn new(target: &Target) -> Result<Self, HttpError> {
        let failed = |error: &dyn std::fmt::Display| HttpError::Connect(error.to_string());
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let builder = if target.base.scheme_str() == Some("https") {
            builder.with_provider_and_platform_verifier(provider).map_err(|error| failed(&error))?
        } else {
            let config =
                rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.map_err(|error| failed(&error))?;
            builder.with_tls_config(
                config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
            )
        };
        Ok(Self(builder.https_or_http().enable_http1().wrap_connector(http)))
    }
}

/// A connection; opened at the first exchange, and again after the server closed it.
#[derive(Debug)]
pub struct Connection {
    connector: Connector,
    base: Uri,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub fn new(connector: &Connector, target: &Target) -> Self {
        Self { connector: connector.clone(), base: target.base.clone(), open: None }
    }

    /// Opens it beforehand.
    pub async fn open(&mut self) -> Result<(), HttpError> {
        if self.open.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = self.connector.0.call(self.base.clone()).await;
            let stream = stream.map_err(|error| HttpError::Connect(error.to_string()))?;
            let (sender, connection) = handshake(stream).await?;
            tokio::spawn(connection);
            self.open = Some(sender);
        }
        Ok(())
    }

    /// Forgets the connection: an answer that comes late must not be taken for that of the next request.
    pub fn close(&mut self) {
        self.open = None;
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
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(answer)?.to_bytes();
            Ok((head.status, head.headers, body))
        }
        .await;
        if exchanged.is_err() {
            self.close();
        }
        exchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("http://127.0.0.1:4021/verify?a=1").unwrap();
        let request = target.get(None).unwrap();
        assert_eq!(request.uri(), "/verify?a=1");
        assert_eq!(request.headers()["host"], "127.0.0.1:4021");
        assert_eq!(target.base, "http://127.0.0.1:4021");
        assert_eq!((target.authority(), target.path()), ("127.0.0.1:4021", "/verify?a=1"));
        assert_eq!(Target::parse("https://localhost").unwrap().get(None).unwrap().uri(), "/");
        for wrong in ["ftp://a:1/", "127.0.0.1:80", "nowhere", "http://"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_names_and_addresses_of_ones_own_are_private() {
        let rows = [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://10.1.2.3", true),
            ("http://192.168.0.9", true),
            ("http://localhost:80", true),
            ("http://gateway", true),
            ("https://pay.internal", true),
            ("https://facilitator.example.com", false),
            ("http://8.8.8.8", false),
            ("http://172.32.0.1", false),
            ("https://localhost.example.com", false),
        ];
        for (url, expected) in rows {
            assert_eq!(Target::parse(url).unwrap().is_private(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_always_said_is_in_every_request() {
        let target = Target::parse("http://127.0.0.1:1/a").unwrap();
        let target = target.with_header("authorization".parse().unwrap(), "Bearer x".parse().unwrap());
        assert_eq!(target.get(None).unwrap().headers()["authorization"], "Bearer x");
        assert_eq!(target.post(Bytes::new()).unwrap().headers()["authorization"], "Bearer x");
        let paid = target.get(Some(("payment-signature", Bytes::from_static(b"abc")))).unwrap();
        assert_eq!(paid.headers()["payment-signature"], "abc");
    }
}
