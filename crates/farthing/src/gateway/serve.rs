//! From a connection's request to the paywall: who the client is, and what no client may ask.

use std::sync::Arc;

use farthing_listener::{Departures, Inbound, Limits, Peer};
use farthing_paywall::{ClientExit, PaywallBody, PaywallService};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use tower::ServiceExt;

use super::body::RequestBody;
use super::discovery::Discovery;
use super::mcp::McpTill;
use super::proxy::{Proxy, see_client, text};
use crate::config::{Cidr, LimitsConfig};

/// Where load balancers may ask whether we are there. Says nothing else.
pub const HEALTH_PATH: &str = "/.well-known/farthing/health";

/// The bounds on connections that a configuration asks for.
pub fn limits(config: &LimitsConfig) -> Limits {
    Limits {
        max_connections: config.max_connections,
        max_per_peer: config.max_connections_per_client,
        max_head_bytes: config.max_header_bytes,
        head_timeout: config.header_timeout,
        idle_timeout: config.idle_timeout,
        stall_timeout: config.stall_timeout,
        min_rate: config.min_rate,
        shutdown_timeout: config.shutdown_timeout,
        half_close: true,
    }
}

/// Whether `address` is in one of these ranges.
pub fn is_trusted(trusted: &[Cidr], address: std::net::IpAddr) -> bool {
    trusted.iter().any(|range| range.contains(address))
}

/// What is answered before the paywall is asked.
#[derive(Clone)]
pub struct Front {
    pub mcp: Option<McpTill>,
    pub discovery: Discovery,
}

/// Answers one request.
pub async fn handle(
    service: PaywallService<Proxy>,
    front: Front,
    trusted: Arc<Vec<Cidr>>,
    request: Request<Inbound>,
    peer: Peer,
) -> Response<PaywallBody> {
    // A load balancer's question, in whatever shape.
    if request.uri().path() == HEALTH_PATH {
        return text(StatusCode::OK, "{\"status\":\"ok\"}");
    }
    // A tunnel through us would lead past every price; a trace would tell credentials to whoever asks.
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "{\"error\":\"method_not_allowed\"}");
    }
    let (mut parts, body) = request.into_parts();
    if let Err(code) = name_the_host(&mut parts) {
        return text(StatusCode::BAD_REQUEST, format!("{{\"error\":\"{code}\"}}"));
    }
    let (client, scheme) =
        see_client(&mut parts.headers, peer.address.ip(), peer.tls, |address| is_trusted(&trusted, address));
    if let Some(departures) = parts.extensions.remove::<Departures>() {
        parts.extensions.insert(ClientExit::new(move |told| departures.when_gone(told)));
    }
    parts.extensions.insert(client);
    parts.extensions.insert(scheme);
    if let Some(mcp) = front.mcp.filter(|mcp| mcp.is_at(parts.uri.path())) {
        // A call's answer is a message among others: when it has left is no matter of the paywall's.
        parts.extensions.remove::<ClientExit>();
        return mcp.handle(Request::from_parts(parts, body)).await;
    }
    if let Some(document) = front.discovery.answer(&parts).await {
        return document;
    }
    match service.oneshot(Request::from_parts(parts, RequestBody::from(body))).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Leaves one name of the host, in `Host`, whatever the protocol and the form of the target.
///
/// # Errors
/// The code of a request that names no host or several: two readers might take two different ones from it.
fn name_the_host(parts: &mut http::request::Parts) -> Result<(), &'static str> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    // Spec: RFC 9112 section 3.2: "MUST respond with a 400 (Bad Request)" to several, and to none in HTTP/1.1.
    if second.is_some() {
        return Err("several_hosts");
    }
    if first.is_none() && parts.version == Version::HTTP_11 {
        return Err("no_host");
    }
    // Spec: RFC 9112 section 3.2.2: the host of an absolute target goes before `Host`. HTTP/2 names it there too.
    if let Some(authority) = parts.uri.authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(host).map_err(|_| "invalid_host")?;
        parts.headers.insert(header::HOST, host);
    }
    Ok(())
}
