//! From the paywall to the upstream: one request, one call, headers as they should be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farthing_paywall::{
    BoxError, ClientAddr, ClientScheme, MatchedRoute, PaywallBody, Unframed, strip_hop_by_hop,
};
use futures_util::future::BoxFuture;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use super::GatewayError;
use super::body::RequestBody;
use crate::config::{GatewayConfig, UpstreamConfig};

/// How long an idle connection to an upstream is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How many idle connections to one upstream are kept.
const MAX_IDLE: usize = 256;
/// The longest head of an upstream's answer, in bytes.
const MAX_UPSTREAM_HEAD: usize = 256 * 1024;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The service behind the paywall.
#[derive(Clone)]
pub struct Proxy {
    table: Arc<RwLock<Arc<Table>>>,
}

/// Where each route goes. Replaced as a whole on reload.
pub struct Table {
    routes: HashMap<String, Arc<Upstream>>,
    otherwise: Option<Arc<Upstream>>,
}

struct Upstream {
    client: HttpClient,
    /// For what becomes a WebSocket, which HTTP/2 has no upgrade to.
    sockets: HttpClient,
    scheme: Scheme,
    authority: Authority,
    /// Put before the request's path; no slash at its end.
    prefix: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    preserve_host: bool,
    host: HeaderValue,
}

type HttpClient = Client<HttpsConnector<HttpConnector>, RequestBody>;

impl Table {
    /// Connects to nothing yet, but fetches the upstreams' secrets.
    pub fn new(config: &GatewayConfig) -> Result<Self, GatewayError> {
        // One pool for each distinct upstream, however many routes lead to it.
        let mut known: Vec<(Arc<UpstreamConfig>, Arc<Upstream>)> = Vec::new();
        let mut upstream = |config: &Arc<UpstreamConfig>| -> Result<Arc<Upstream>, GatewayError> {
            if let Some((_, upstream)) = known.iter().find(|(seen, _)| seen == config) {
                return Ok(upstream.clone());
            }
            let upstream = Arc::new(Upstream::new(config)?);
            known.push((config.clone(), upstream.clone()));
            Ok(upstream)
        };
        let mut routes = HashMap::new();
        for route in &config.routes {
            routes.insert(route.pattern.to_string(), upstream(&route.upstream)?);
        }
        let otherwise = config.default_upstream.as_ref().map(upstream).transpose()?;
        Ok(Self { routes, otherwise })
    }
}

impl Upstream {
    fn new(config: &UpstreamConfig) -> Result<Self, GatewayError> {
        let fail = |why: String| GatewayError::Upstream { url: config.url.to_string(), why };
        let uri: Uri =
            config.url.as_str().parse().map_err(|error: http::uri::InvalidUri| fail(error.to_string()))?;
        let authority = uri.authority().cloned().ok_or_else(|| fail("has no host".to_owned()))?;
        let mut headers = Vec::with_capacity(config.headers.len());
        for (name, reference) in &config.headers {
            let secret = reference.resolve().map_err(|error| fail(format!("header {name}: {error}")))?;
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| fail(format!("header {name}: {reference} holds what no header can")))?;
            value.set_sensitive(true);
            headers.push((name.clone(), value));
        }
        Ok(Self {
            client: client(config, false).map_err(|error| fail(error.to_string()))?,
            sockets: client(config, true).map_err(|error| fail(error.to_string()))?,
            scheme: uri.scheme().cloned().unwrap_or(Scheme::HTTP),
            host: HeaderValue::from_str(authority.as_str()).map_err(|error| fail(error.to_string()))?,
            authority,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            headers,
            preserve_host: config.preserve_host,
        })
    }

    /// The request as the upstream gets it.
    fn address(&self, request: &mut Request<RequestBody>) -> Option<()> {
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.prefix))
            .build()
            .ok()?;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        strip_hop_by_hop(headers);
        if !self.preserve_host {
            headers.insert(header::HOST, self.host.clone());
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        Some(())
    }
}

fn client(config: &UpstreamConfig, upgrades: bool) -> std::io::Result<HttpClient> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(config.connect_timeout));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let https = HttpsConnectorBuilder::new().with_provider_and_platform_verifier(provider)?.https_or_http();
    let https = match upgrades {
        true => https.enable_http1().wrap_connector(http),
        false => https.enable_all_versions().wrap_connector(http),
    };
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .http1_max_buf_size(MAX_UPSTREAM_HEAD)
        .http2_only(config.http2 && !upgrades);
    Ok(builder.build(https))
}

impl Proxy {
    pub fn new(table: Table) -> Self {
        Self { table: Arc::new(RwLock::new(Arc::new(table))) }
    }

    /// Goes on with another table. Requests under way keep the upstream that they have.
    pub fn reload(&self, mut table: Table) {
        let mut current = self.table.write().unwrap_or_else(PoisonError::into_inner);
        // A request that was matched a moment ago must still find its way.
        for (pattern, upstream) in &current.routes {
            table.routes.entry(pattern.clone()).or_insert_with(|| upstream.clone());
        }
        *current = Arc::new(table);
    }

    /// Asks the upstream of a request's route to go on as a WebSocket, with this key. Its answer may be any.
    pub async fn upgrade(
        &self,
        mut request: Request<RequestBody>,
        key: &str,
    ) -> Result<Response<hyper::body::Incoming>, BoxError> {
        let upstream = self.find(&request).ok_or("no upstream is configured")?;
        forwarded(&mut request);
        upstream.address(&mut request).ok_or("the upstream's address cannot be built")?;
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(key)?);
        Ok(upstream.sockets.request(request).await?)
    }

    fn find(&self, request: &Request<RequestBody>) -> Option<Arc<Upstream>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner).clone();
        match request.extensions().get::<MatchedRoute>() {
            Some(route) => table.routes.get(&*route.0).cloned(),
            None => table.otherwise.clone(),
        }
    }
}

impl Service<Request<RequestBody>> for Proxy {
    type Response = Response<PaywallBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let upstream = self.find(&request);
        Box::pin(async move { forward(upstream, request).await })
    }
}

async fn forward(
    upstream: Option<Arc<Upstream>>,
    mut request: Request<RequestBody>,
) -> Result<Response<PaywallBody>, BoxError> {
    let Some(upstream) = upstream else { return Err("no upstream is configured".into()) };
    forwarded(&mut request);
    upstream.address(&mut request).ok_or("the upstream's address cannot be built")?;
    let response = upstream.client.request(request).await?;
    let (mut parts, body) = response.into_parts();
    // Spec: RFC 9112 section 6.3: with neither, the end of the connection is the end of the body, cut off or not.
    let framed = parts.version == Version::HTTP_2
        || parts.headers.contains_key(header::CONTENT_LENGTH)
        || parts.headers.contains_key(header::TRANSFER_ENCODING);
    if !framed && !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        parts.extensions.insert(Unframed);
    }
    strip_hop_by_hop(&mut parts.headers);
    Ok(Response::from_parts(parts, body.map_err(Into::into).boxed_unsync()))
}

/// Tells the upstream who asked whom by what, as we know it and not as the client says.
fn forwarded(request: &mut Request<RequestBody>) {
    let client = request.extensions().get::<ClientAddr>().map(|client| client.0);
    let scheme = request.extensions().get::<ClientScheme>().map_or("http", |scheme| scheme.0);
    let host = request.headers().get(header::HOST).cloned();
    let headers = request.headers_mut();
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if let Some(client) = client {
        let before = headers.get(&X_FORWARDED_FOR).and_then(|value| value.to_str().ok());
        let all = before.map_or_else(|| client.to_string(), str::to_owned);
        if let Ok(value) = HeaderValue::from_str(&all) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
}

/// Who the client is, seen through the proxies that we trust. Leaves in the headers only what these said.
///
/// The last address in `X-Forwarded-For` that is not a trusted proxy's is the client's: what stands before it is the
/// client's own tale.
pub fn see_client(
    headers: &mut HeaderMap,
    peer: IpAddr,
    tls: bool,
    trusted: impl Fn(IpAddr) -> bool,
) -> (ClientAddr, ClientScheme) {
    let own = if tls { "https" } else { "http" };
    headers.remove(header::FORWARDED);
    if !trusted(peer) {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
            headers.remove(name);
        }
        return (ClientAddr(peer), ClientScheme(own));
    }
    let chain: Vec<IpAddr> = headers
        .get_all(&X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // An entry that is no address ends what we believe: everything before it came through it.
        .map(|entry| entry.trim().parse::<IpAddr>().ok())
        .rev()
        .map_while(|entry| entry)
        .collect();
    let client =
        chain.iter().copied().find(|entry| !trusted(*entry)).or(chain.last().copied()).unwrap_or(peer);
    let mut believed: Vec<String> = vec![peer.to_string()];
    for entry in &chain {
        believed.push(entry.to_string());
        if *entry == client {
            break;
        }
    }
    believed.reverse();
    if let Ok(value) = HeaderValue::from_str(&believed.join(", ")) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    let said = headers.get(&X_FORWARDED_PROTO).map(HeaderValue::as_bytes);
    let scheme = match said {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ => own,
    };
    if let Some(host) = headers.remove(X_FORWARDED_HOST) {
        headers.insert(header::HOST, host);
    }
    (ClientAddr(client), ClientScheme(scheme))
}

/// A plain answer of the gateway itself.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<PaywallBody> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
