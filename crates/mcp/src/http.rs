//! The wallet's tools over streamable HTTP: for this machine only, and for whoever has the token.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farthing_listener::{Inbound, Limits, Peer, Server};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::WalletServer;

/// Where the tools are.
pub const MCP_PATH: &str = "/mcp";

/// The longest message, in bytes: a call with the longest body, in base64, and what goes with it.
const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;
const MAX_CONNECTIONS: usize = 64;
const SHUTDOWN: Duration = Duration::from_secs(5);
const TOKEN_BYTES: usize = 32;
/// What a file's mode grants to anybody but its owner.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// What an agent shows to be let in.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
    #[error("{0} does not hold a token: remove it, and a new one is made")]
    NotAToken(String),
    /// Whoever read it may spend with it, so a narrower mode alone does not mend it.
    #[error(
        "others on this machine can read {0}, so they may have the token: remove it, and a new one is made"
    )]
    Open(String),
    #[error("the operating system gives no random bytes")]
    Random,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServeError(String);

impl Token {
    /// The token in a file, which is made if it is not there, for its owner alone.
    pub fn load_or_make(path: &Path) -> Result<Self, TokenError> {
        let failed = |error| TokenError::Io { path: path.display().to_string(), error };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(mut file) => {
                let mut bytes = [0u8; TOKEN_BYTES];
                getrandom::fill(&mut bytes).map_err(|_| TokenError::Random)?;
                let token = hex::encode(bytes);
                writeln!(file, "{token}").and_then(|()| file.sync_all()).map_err(failed)?;
                Ok(Self(token))
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let mut text = String::new();
                let file = std::fs::File::open(path).map_err(failed)?;
                // Asked of what is open, and not of the name, which may be another file's by now.
                #[cfg(unix)]
                {
                    use std::os::unix::fs::PermissionsExt;
                    if file.metadata().map_err(failed)?.permissions().mode() & OTHERS != 0 {
                        return Err(TokenError::Open(path.display().to_string()));
                    }
                }
                file.take(1024).read_to_string(&mut text).map_err(failed)?;
                let token = text.trim();
                if token.len() != 2 * TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(TokenError::NotAToken(path.display().to_string()));
                }
                Ok(Self(token.to_owned()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request shows it. Compared by hash, so that the time says nothing of how much was right.
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Ok(value) = value.to_str() else { return false };
        let Some((scheme, shown)) = value.split_once(' ') else { return false };
        let hash = |text: &str| Sha256::digest(text.trim().as_bytes());
        scheme.eq_ignore_ascii_case("bearer") && bool::from(hash(shown).ct_eq(&hash(&self.0)))
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

fn refusal(status: StatusCode, code: &str) -> Answer {
    let body = Full::new(Bytes::from(format!("{{\"error\":\"{code}\"}}"))).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    }
    answer
}

/// Who is let in: whoever names an allowed host, comes from no web page, and shows the token.
fn admit(
    headers: &HeaderMap,
    path: &str,
    token: &Token,
    hosts: &[String],
) -> Result<(), (StatusCode, &'static str)> {
    // Spec: MCP, "Streamable HTTP", security warning: servers must validate `Origin` against DNS rebinding. No agent is
    // a web page, so none is allowed.
    if headers.contains_key(header::ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "origin_not_allowed"));
    }
    let mut named = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (named.next().and_then(|host| host.to_str().ok()), named.next()) else {
        return Err((StatusCode::BAD_REQUEST, "no_host"));
    };
    if !hosts.iter().any(|allowed| host.eq_ignore_ascii_case(allowed)) {
        return Err((StatusCode::FORBIDDEN, "host_not_allowed"));
    }
    if !token.is_shown(headers) {
        return Err((StatusCode::UNAUTHORIZED, "token_required"));
    }
    if path != MCP_PATH {
        return Err((StatusCode::NOT_FOUND, "not_found"));
    }
    Ok(())
}

/// Serves agents over HTTP until `stop` resolves.
///
/// `hosts` are the values of `Host` that are let in, beside the loopback's names with this port.
///
/// # Errors
/// [`ServeError`] if the listener has no address.
pub async fn serve_http(
    server: WalletServer,
    listener: TcpListener,
    token: Token,
    hosts: Vec<String>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let port = listener.local_addr().map_err(|error| ServeError(error.to_string()))?.port();
    let mut allowed = hosts;
    allowed.extend(["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}")));
    let config = StreamableHttpServerConfig::default()
        // Checked above all else, in `admit`.
        .disable_allowed_hosts()
        .enforce_origin_validation()
        // Nothing is kept between two calls, so that nothing grows with whoever calls; every tool is one answer.
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_MESSAGE_BYTES);
    let each = server.clone();
    let service = StreamableHttpService::new(
        move || Ok(each.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    let (token, allowed) = (Arc::new(token), Arc::new(allowed));
    let handler = move |request: Request<Inbound>, _: Peer| {
        let (service, token, allowed) = (service.clone(), token.clone(), allowed.clone());
        async move {
            if let Err((status, code)) = admit(request.headers(), request.uri().path(), &token, &allowed) {
                return refusal(status, code);
            }
            match service.oneshot(request).await {
                Ok(answer) => answer.map(BodyExt::boxed_unsync),
                Err(never) => match never {},
            }
        }
    };
    let limits = Limits {
        max_connections: MAX_CONNECTIONS,
        max_per_peer: MAX_CONNECTIONS,
        shutdown_timeout: SHUTDOWN,
        ..Limits::default()
    };
    let serving = Server { handler, limits, tls: None, stands_for_many: Arc::new(|_| false) };
    farthing_listener::serve(serving, listener, stop).await;
    server.settle_down().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mcp-token");
        let made = Token::load_or_make(&path).unwrap();
        assert_eq!(Token::load_or_make(&path).unwrap().as_str(), made.as_str());
        assert_eq!(made.as_str().len(), 64);
        assert!(!format!("{made:?}").contains(made.as_str()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            for (given, taken) in
                [(0o400, true), (0o640, false), (0o604, false), (0o620, false), (0o644, false), (0o600, true)]
            {
                mode(given);
                let loaded = Token::load_or_make(&path);
                assert_eq!(loaded.is_ok(), taken, "{given:o}");
                let open = matches!(&loaded, Err(TokenError::Open(shown)) if shown.contains("mcp-token"));
                assert_eq!(open, !taken, "{given:o}");
            }
        }
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(Token::load_or_make(&path), Err(TokenError::NotAToken(_))));
    }

    #[test]
    fn only_this_machines_agents_with_the_token_are_let_in() {
        let token = Token("ab".repeat(32));
        let hosts = ["127.0.0.1:8403".to_owned()];
        let check = |pairs: &[(&str, &str)], path: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                let name: http::HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            admit(&headers, path, &token, &hosts).map_err(|(status, code)| (status.as_u16(), code))
        };
        let good = format!("Bearer {}", token.as_str());
        let host = ("host", "127.0.0.1:8403");
        let auth = ("authorization", good.as_str());
        assert_eq!(check(&[host, auth], "/mcp"), Ok(()));
        assert_eq!(check(&[host, auth], "/"), Err((404, "not_found")));
        assert_eq!(check(&[host], "/mcp"), Err((401, "token_required")));
        assert_eq!(check(&[host, ("authorization", "Bearer ab")], "/mcp"), Err((401, "token_required")));
        assert_eq!(check(&[host, auth, auth], "/mcp"), Err((401, "token_required")));
        // DNS rebinding: the browser names the attacker's host, and its origin.
        assert_eq!(check(&[("host", "evil.example:8403"), auth], "/mcp"), Err((403, "host_not_allowed")));
        assert_eq!(
            check(&[host, auth, ("origin", "https://evil.example")], "/mcp"),
            Err((403, "origin_not_allowed"))
        );
        assert_eq!(check(&[auth], "/mcp"), Err((400, "no_host")));
        assert_eq!(check(&[host, host, auth], "/mcp"), Err((400, "no_host")));
    }
}
