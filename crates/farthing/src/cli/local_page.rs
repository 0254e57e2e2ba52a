//! Pages that people open on their own machine: served on loopback, by a link that works once, to scripts of our own.
//!
//! Other pages in the same browser, and other programs on the same machine, can send requests here; none of them has what
//! the link was changed for, and no cookie carries it for them, since all ports of a host share cookies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_approval::Site;
use farthing_listener::{Inbound, Limits, Server};
use serde::{Deserialize, Deserializer, de};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;

use super::Failure;

#[cfg(test)]
mod tests;

/// Where people answer, if nobody says otherwise. Passkeys are for one address.
pub const ANSWERS_AT: &str = "http://localhost:8405";
pub const LISTENS_AT: &str = "127.0.0.1:8405";

/// The longest request body, in bytes: what a passkey says, in base64url.
pub const MAX_BODY: usize = 64 * 1024;
/// How often a free port is looked for that is free in both families of addresses.
const PORT_TRIES: u32 = 16;

/// A few tabs of one person.
const LIMITS: Limits = Limits {
    max_connections: 64,
    max_per_peer: 64,
    max_head_bytes: 16 * 1024,
    head_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(60),
    stall_timeout: Duration::from_secs(30),
    min_rate: 1024,
    half_close: false,
    shutdown_timeout: Duration::from_secs(2),
};

/// Nothing but our own files, from nowhere else, and in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const ALWAYS: &[(&str, &str)] = &[
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// A page: its address, and who may use it.
#[derive(Debug)]
pub struct LocalPage {
    site: Site,
    /// As browsers write it in `Host`.
    authority: String,
    /// What the link has; gone once it was used.
    login: Mutex<Option<Token>>,
    session: Token,
}

/// 32 bytes that nobody can foretell.
struct Token(String);

impl Token {
    fn new() -> Result<Self, Failure> {
        Ok(Self(URL_SAFE_NO_PAD.encode(unguessable()?)))
    }

    /// Takes as long for any other text.
    fn is(&self, text: &str) -> bool {
        Sha256::digest(&self.0) == Sha256::digest(text)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// 32 bytes of the system's.
pub fn unguessable() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(bytes)
}

/// Why a request of the page's is not answered as it wants.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
}

impl Refused {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "code": self.code, "message": self.message }))).into_response()
    }
}

/// A byte string of a request's, in base64url without padding.
pub fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| de::Error::custom("no base64url"))
}

/// A file of ours.
pub fn file(kind: &'static str, text: &'static str) -> impl IntoResponse + Clone {
    ([(header::CONTENT_TYPE, kind)], text)
}

pub const HTML: &str = "text/html; charset=utf-8";
pub const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// A page with its sockets, not served yet.
#[derive(Debug)]
pub struct Opened {
    pub page: Arc<LocalPage>,
    listeners: Vec<TcpListener>,
}

/// Takes a port on this machine. Browsers may look for `localhost` in either family of addresses: who else had the port
/// in the other one would get our links.
pub async fn open(listen: SocketAddr) -> Result<Opened, Failure> {
    if !listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "{listen} can be reached from other machines: this page is for one"
        )));
    }
    let mut tries = 0;
    let listeners = loop {
        tries += 1;
        match take_port(listen).await {
            Ok(listeners) => break listeners,
            Err(_) if listen.port() == 0 && tries < PORT_TRIES => {}
            Err(error) => return Err(Failure::failed(format!("{listen}: {error}"))),
        }
    };
    let port = match listeners.first().map(TcpListener::local_addr) {
        Some(Ok(address)) => address.port(),
        _ => return Err(Failure::failed(format!("{listen}: no address"))),
    };
    let page = LocalPage::new(port)?;
    Ok(Opened { page: Arc::new(page), listeners })
}

async fn take_port(listen: SocketAddr) -> std::io::Result<Vec<TcpListener>> {
    let first = TcpListener::bind(listen).await?;
    let port = first.local_addr()?.port();
    let other: IpAddr = match listen.ip() {
        IpAddr::V4(_) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv4Addr::LOCALHOST.into(),
    };
    match TcpListener::bind((other, port)).await {
        Ok(second) => Ok(vec![first, second]),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        // There is no such family of addresses here, and so nobody else there.
        Err(_) => Ok(vec![first]),
    }
}

impl Opened {
    /// Serves `routes` to whoever came by the link, and `open_files` to everybody, until `stop`.
    pub async fn serve(self, open_files: Router, routes: Router, stop: impl Future<Output = ()>) {
        let app = self.page.app(open_files, routes);
        let (stopping, stopped) = watch::channel(false);
        let served = self.listeners.into_iter().map(|listener| {
            let (app, mut stopped) = (app.clone(), stopped.clone());
            let server = Server {
                handler: move |request: http::Request<Inbound>, _| {
                    let app = app.clone();
                    async move {
                        match app.oneshot(request).await {
                            Ok(response) => response,
                            Err(never) => match never {},
                        }
                    }
                },
                limits: LIMITS,
                tls: None,
                stands_for_many: Arc::new(|_| true),
            };
            let told = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            farthing_listener::serve(server, listener, told)
        });
        let served = futures_util::future::join_all(served);
        let stop = async {
            stop.await;
            let _ = stopping.send(true);
        };
        tokio::join!(served, stop);
    }
}

impl LocalPage {
    fn new(port: u16) -> Result<Self, Failure> {
        // Passkeys are for names, never for addresses. Browsers leave the default port out.
        let authority = if port == 80 { "localhost".to_owned() } else { format!("localhost:{port}") };
        let site = Site::of(&format!("http://{authority}"));
        let site = site.map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Self { site, authority, login: Mutex::new(Some(Token::new()?)), session: Token::new()? })
    }

    pub fn site(&self) -> &Site {
        &self.site
    }

    /// What a person opens, once. What is behind `#` is in no request and in no log.
    pub fn link(&self) -> String {
        let login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{}/#{}", self.site.origin(), login.as_ref().map_or("", |token| token.0.as_str()))
    }

    fn app(self: &Arc<Self>, open_files: Router, routes: Router) -> Router {
        let known = routes.layer(from_fn_with_state(self.clone(), came_by_the_link));
        open_files
            .route("/page.css", get(file(STYLE, include_str!("local_page/page.css"))))
            .route("/common.js", get(file(SCRIPT, include_str!("local_page/common.js"))))
            .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
            .route("/login", post(login).with_state(self.clone()))
            .merge(known)
            .fallback(|| async { Refused::new(StatusCode::NOT_FOUND, "not_found", "there is no such page") })
            .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(self.clone(), addressed_to_us))
    }

    /// That a request is for this page by its own name, and, if it may change anything, from this page.
    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        let one = |name: HeaderName| {
            let mut values = headers.get_all(name).iter();
            let first = values.next().map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
            if values.next().is_some() { Some("?".to_owned()) } else { first }
        };
        // A name of somebody else's may point at this machine: DNS rebinding.
        if one(header::HOST).as_deref() != Some(&self.authority) {
            let message = format!("this page is at {}", self.site.origin());
            return Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", message));
        }
        let fetch_site = one(HeaderName::from_static("sec-fetch-site"));
        if matches!(fetch_site.as_deref(), Some("cross-site" | "same-site")) && *method != Method::GET {
            return Err(Refused::new(StatusCode::FORBIDDEN, "wrong_origin", "another page asks"));
        }
        if *method == Method::GET {
            return Ok(());
        }
        if one(header::ORIGIN).as_deref() != Some(self.site.origin()) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "wrong_origin", "another page asks"));
        }
        // A page elsewhere can send other types without asking; this one it cannot.
        if one(header::CONTENT_TYPE).as_deref() != Some("application/json") {
            return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "JSON is asked for"));
        }
        Ok(())
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let said = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        said.and_then(|text| text.strip_prefix("Bearer ")).is_some_and(|token| self.session.is(token))
    }
}

async fn addressed_to_us(State(page): State<Arc<LocalPage>>, request: Request, next: Next) -> Response {
    let mut response = match page.check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    for (name, value) in ALWAYS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

async fn came_by_the_link(State(page): State<Arc<LocalPage>>, request: Request, next: Next) -> Response {
    if page.knows(request.headers()) {
        return next.run(request).await;
    }
    let message = "open the link that was printed at the start; it works once";
    Refused::new(StatusCode::UNAUTHORIZED, "not_logged_in", message).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    link: String,
}

async fn login(State(page): State<Arc<LocalPage>>, Json(said): Json<Login>) -> Response {
    let mut login = page.login.lock().unwrap_or_else(PoisonError::into_inner);
    if login.take_if(|token| token.is(&said.link)).is_some() {
        return Json(json!({ "session": page.session.0 })).into_response();
    }
    let message = "the link was used already, or is of another run";
    Refused::new(StatusCode::FORBIDDEN, "link_used", message).into_response()
}
