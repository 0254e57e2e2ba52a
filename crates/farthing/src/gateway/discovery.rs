//! The documents by which machines find what is for sale: `/openapi.json`, `/llms.txt` and `/.well-known/x402`.
//!
//! They are made from the configuration, over what the upstream says of itself where it is asked, and kept until the
//! configuration changes. They cost nothing, and bind nobody: what a request costs is said by its 402.
//!
//! Spec: draft-payment-discovery-00.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farthing_discovery::{
    Described, Dialect, Documents, LLMS_PATH, MAX_DESCRIBED_BYTES, OPENAPI_PATH, Service, Template, Tool,
    Tools, WELL_KNOWN_PATH, Way,
};
use farthing_evm::{eip55, to_alloy};
use farthing_paywall::{ClientScheme, Cors, MethodOffer, Offer, PaywallBody, RouteTable, Session};
use farthing_primitives::{Address, Asset, PullMethod, Registry};
use farthing_stripe::Currency;
use farthing_wire::mpp::evm::CredentialType;
use farthing_wire::x402::v1::NamedNetwork;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use url::Url;

use super::GatewayError;
use crate::config::{GatewayConfig, OpenApiSource, PriceConfig, SaleConfig, UpstreamConfig};

/// How long the upstream may take to describe itself.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long its description is used before it is asked again. Spec: draft-payment-discovery-00, "Caching".
pub const DESCRIBED_FOR: Duration = Duration::from_secs(300);
/// The same after it did not answer, or with nothing that could be used.
pub const DESCRIBE_AGAIN: Duration = Duration::from_secs(30);

/// How long readers may keep a document, in seconds.
const MAX_AGE: u64 = 300;

/// The documents of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Discovery(Arc<RwLock<Arc<Current>>>);

/// What one configuration makes.
struct Current {
    service: Arc<Service>,
    /// Whether each document is served; a route of its very path goes before it.
    serve: [bool; 3],
    cors: Cors,
    upstream: Option<Describing>,
    made: RwLock<Arc<Made>>,
    /// One question at a time.
    asking: Mutex<()>,
}

/// Where the upstream describes itself.
struct Describing {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    /// What stands before the paths that go there.
    prefix: String,
}

/// The documents, as they are sent.
struct Made {
    documents: Documents,
    openapi: Page,
    llms: Page,
    /// What the upstream said when it was last understood.
    described: Option<Described>,
    /// Until when nobody asks the upstream again; `None` before the first question.
    until: Option<Instant>,
}

#[derive(Clone)]
struct Page {
    bytes: Bytes,
    tag: String,
}

impl Page {
    fn new(text: String) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        Self { bytes: text.into(), tag: format!("\"{}\"", hex::encode(&digest[..16])) }
    }
}

impl Made {
    fn new(service: &Service, described: Option<Described>, until: Option<Instant>) -> Self {
        let documents = Documents::make(service, described.as_ref());
        let (openapi, llms) = (Page::new(documents.openapi()), Page::new(documents.llms().to_owned()));
        Self { openapi, llms, documents, described, until }
    }
}

impl Discovery {
    /// Asks nobody yet. `by_the_unit` says whether sessions are sold at all.
    pub fn new(config: &GatewayConfig, by_the_unit: bool) -> Result<Self, GatewayError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(Current::new(config, by_the_unit)?)))))
    }

    /// Goes on with the documents of another configuration, made but not yet used.
    pub fn replace(&self, other: &Self) {
        let next = other.current();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    fn current(&self) -> Arc<Current> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer, if it is one of the documents that is asked for.
    pub async fn answer(&self, request: &http::request::Parts) -> Option<Response<PaywallBody>> {
        let paths = [OPENAPI_PATH, LLMS_PATH, WELL_KNOWN_PATH];
        let at = paths.iter().position(|path| *path == request.uri.path())?;
        if request.method != Method::GET && request.method != Method::HEAD {
            return None;
        }
        let current = self.current();
        if !current.serve.get(at).copied().unwrap_or_default() {
            return None;
        }
        let made = current.made().await;
        let page = match at {
            0 => made.openapi.clone(),
            1 => made.llms.clone(),
            _ => Page::new(made.documents.well_known(&host(request))),
        };
        let kind = if at == 1 { "text/plain; charset=utf-8" } else { "application/json" };
        Some(current.send(request, page, kind))
    }
}

/// By which address the reader found us.
fn host(request: &http::request::Parts) -> String {
    let named = request.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = named.and_then(|host| host.parse::<Authority>().ok());
    match authority.filter(|authority| !authority.as_str().contains('@')) {
        Some(authority) => {
            let scheme = request.extensions.get::<ClientScheme>().map_or("http", |scheme| scheme.0);
            format!("{scheme}://{authority}")
        }
        None => String::new(),
    }
}

impl Current {
    fn new(config: &GatewayConfig, by_the_unit: bool) -> Result<Self, GatewayError> {
        let service = describe(config, by_the_unit)?;
        let names = |path: &str| service.routes.iter().any(|route| route.template.is_exactly("GET", path));
        let paths = [OPENAPI_PATH, LLMS_PATH, WELL_KNOWN_PATH];
        let serve: [bool; 3] = std::array::from_fn(|at| config.service.serve[at] && !names(paths[at]));
        let mut service = service;
        if serve[1] && service.docs.llms.is_none() {
            let base = service.public_url.as_deref().unwrap_or_default();
            service.docs.llms = Some(format!("{base}{LLMS_PATH}"));
        }
        let upstream =
            config.service.openapi.as_ref().map(|source| Describing::new(source, config)).transpose()?;
        let made = RwLock::new(Arc::new(Made::new(&service, None, None)));
        let service = Arc::new(service);
        Ok(Self { service, serve, cors: config.cors.clone(), upstream, made, asking: Mutex::new(()) })
    }

    fn latest(&self) -> Arc<Made> {
        self.made.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The documents, with what the upstream says of itself where it says anything.
    ///
    /// Only before its first answer does anybody wait for it. Later, one reader asks, and the others get what there is.
    async fn made(&self) -> Arc<Made> {
        let latest = self.latest();
        let Some(upstream) = &self.upstream else { return latest };
        let fresh = |made: &Made| made.until.is_some_and(|until| Instant::now() < until);
        if fresh(&latest) {
            return latest;
        }
        let turn = match latest.until {
            Some(_) => self.asking.try_lock().ok(),
            None => Some(self.asking.lock().await),
        };
        // Somebody else asks, or has asked meanwhile.
        let Some(_turn) = turn else { return latest };
        let latest = self.latest();
        if fresh(&latest) {
            return latest;
        }
        let (asked, prefix) = (upstream.ask().await, upstream.prefix.clone());
        let (service, shown, before) = (self.service.clone(), upstream.shown(), latest.described.clone());
        // Both documents may be long.
        let making = tokio::task::spawn_blocking(move || {
            let read =
                asked.and_then(|bytes| Described::parse(&bytes, &prefix).map_err(|error| error.to_string()));
            let (described, again) = match read {
                Ok(described) => (Some(described), DESCRIBED_FOR),
                Err(why) => {
                    tracing::warn!(url = %shown, %why, "the upstream does not describe itself");
                    (before, DESCRIBE_AGAIN)
                }
            };
            Made::new(&service, described, Some(Instant::now() + again))
        });
        let Ok(made) = making.await.map(Arc::new) else { return latest };
        *self.made.write().unwrap_or_else(PoisonError::into_inner) = made.clone();
        made
    }

    fn send(&self, request: &http::request::Parts, page: Page, kind: &'static str) -> Response<PaywallBody> {
        let known =
            request.headers.get_all(header::IF_NONE_MATCH).iter().any(|value| is_named(value, &page.tag));
        let bytes = if known || request.method == Method::HEAD { Bytes::new() } else { page.bytes.clone() };
        let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        let mut answer = Response::new(body);
        let headers = answer.headers_mut();
        if let (Ok(age), Ok(tag)) =
            (HeaderValue::from_str(&format!("max-age={MAX_AGE}")), HeaderValue::from_str(&page.tag))
        {
            headers.insert(header::CACHE_CONTROL, age);
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.allow(request.headers.get(header::ORIGIN), headers);
        if known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return answer;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        // HEAD says how long the answer to GET is.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.bytes.len()));
        answer
    }

    /// Lets those pages read the documents that may read our other answers.
    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let allowed = match &self.cors {
            Cors::Upstream => return,
            Cors::Any => HeaderValue::from_static("*"),
            Cors::Only(origins) => {
                headers.insert(header::VARY, HeaderValue::from_static("Origin"));
                match origin.filter(|origin| origins.iter().any(|o| o.as_bytes() == origin.as_bytes())) {
                    Some(origin) => origin.clone(),
                    None => return,
                }
            }
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    }
}

/// Spec: RFC 9110 section 13.1.2: the comparison is weak.
fn is_named(value: &HeaderValue, tag: &str) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

impl Describing {
    fn new(source: &OpenApiSource, config: &GatewayConfig) -> Result<Self, GatewayError> {
        let upstream: Option<&UpstreamConfig> = config.default_upstream.as_deref();
        let prefix = upstream.map_or("/", |upstream| upstream.url.path()).to_owned();
        let mut headers = HeaderMap::new();
        let url = match (source, upstream) {
            (OpenApiSource::Url(url), _) => url.clone(),
            (OpenApiSource::Path(path), Some(upstream)) => {
                let fail = |why: String| GatewayError::Upstream { url: upstream.url.to_string(), why };
                for (name, reference) in &upstream.headers {
                    let secret =
                        reference.resolve().map_err(|error| fail(format!("header {name}: {error}")))?;
                    let mut value = HeaderValue::from_str(secret.expose())
                        .map_err(|_| fail(format!("header {name}: {reference} holds what no header can")))?;
                    value.set_sensitive(true);
                    headers.insert(HeaderName::clone(name), value);
                }
                let whole = format!("{}{path}", upstream.url.as_str().trim_end_matches('/'));
                whole.parse().map_err(|error: url::ParseError| fail(error.to_string()))?
            }
            (OpenApiSource::Path(path), None) => {
                return Err(GatewayError::Upstream { url: path.clone(), why: "has no upstream".to_owned() });
            }
        };
        let fail =
            |error: reqwest::Error| GatewayError::Upstream { url: url.to_string(), why: error.to_string() };
        let client = reqwest::Client::builder()
            .timeout(DESCRIBE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(fail)?;
        Ok(Self { client, url, headers, prefix })
    }

    /// A URL may hold a secret in its query.
    fn shown(&self) -> String {
        format!("{}{}", self.url.origin().ascii_serialization(), self.url.path())
    }

    async fn ask(&self) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let asking = self.client.get(self.url.clone()).headers(self.headers.clone());
        let mut answer = asking.header(header::ACCEPT, "application/json").send().await.map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("it answered {}", answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_DESCRIBED_BYTES {
                return Err(format!("it is longer than {MAX_DESCRIBED_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// From the configuration to the description of what is sold.

/// What the gateway sells, with every way to pay that its answers will name, and no other.
fn describe(config: &GatewayConfig, by_the_unit: bool) -> Result<Service, GatewayError> {
    let listed = config.routes.iter().map(|route| (route.pattern.clone(), route)).collect();
    let table = RouteTable::new(listed).map_err(|error| GatewayError::Routes(error.to_string()))?;
    let mut routes = Vec::with_capacity(config.routes.len());
    // The table has the most specific first.
    for (pattern, route) in table.iter() {
        let template = Template::parse(&route.written)
            .map_err(|error| GatewayError::Routes(format!("{pattern}: {error}")))?;
        let described = config.default_upstream.as_ref().is_none_or(|upstream| *upstream == route.upstream);
        routes.push(farthing_discovery::Route {
            template,
            description: route.sale.as_ref().and_then(|sale| sale.description.clone()),
            mime_type: route.sale.as_ref().and_then(|sale| sale.mime_type.clone()),
            ways: route.sale.as_ref().map(|sale| ways(config, sale, by_the_unit)).unwrap_or_default(),
            described,
        });
    }
    let tools = config.mcp.as_ref().map(|mcp| Tools {
        path: mcp.path.clone(),
        tools: mcp
            .tools
            .iter()
            .map(|tool| {
                let mut ways = tool.sale.as_ref().map(|sale| ways(config, sale, false)).unwrap_or_default();
                // Over MCP the dialects have other forms than over HTTP.
                ways.iter_mut().for_each(|way| way.dialects.clear());
                let description = tool.sale.as_ref().and_then(|sale| sale.description.clone());
                Tool { name: tool.name.clone(), description, ways }
            })
            .collect(),
    });
    let said = &config.service;
    Ok(Service {
        title: said.title.clone(),
        version: said.version.clone(),
        description: said.description.clone(),
        categories: said.categories.clone(),
        docs: said.docs.clone(),
        public_url: config.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
        unmatched_free: config.unmatched_free,
        routes,
        tools,
    })
}

/// Each way to pay of a route: those of one payment in the order of the configuration, then the session.
fn ways(config: &GatewayConfig, sale: &SaleConfig, by_the_unit: bool) -> Vec<Way> {
    let timeout = Some(sale.max_timeout.as_secs());
    let mut all: Vec<Way> = match &sale.price {
        PriceConfig::Fixed(offers) => offers
            .iter()
            .map(|Offer { way, atoms, pay_to }| Way {
                pay_to: Some(checksummed(pay_to)),
                max_timeout_secs: timeout,
                ..token(&config.registry, way.asset(), Some(*atoms), dialects(config, sale, way))
            })
            .collect(),
        // A quote may name another payee, and hold for a shorter time.
        PriceConfig::Hook { ways, .. } => ways
            .iter()
            .map(|way| token(&config.registry, way.asset(), None, dialects(config, sale, way)))
            .collect(),
    };
    if config.mpp.spoken {
        all.extend(sale.methods.iter().filter_map(|offer| by_card(offer, timeout)));
    }
    if let Some(session) = sale.session.as_deref().filter(|_| by_the_unit && config.mpp.spoken) {
        all.push(unit(&config.registry, session));
    }
    all
}

/// In which dialects one payment is asked for. What is pulled by Permit2, version 1 of x402 cannot say; nor can MPP,
/// where its payer may but send it.
fn dialects(config: &GatewayConfig, sale: &SaleConfig, way: &farthing_paywall::Way) -> Vec<Dialect> {
    let own = way.pull() == PullMethod::Eip3009;
    let mpp =
        config.mpp.spoken && sale.pay_by.iter().any(|kind| own || *kind != CredentialType::Authorization);
    let v1 = own && config.v1_body && NamedNetwork::new(way.asset().id.network()).is_some();
    let all = [(Dialect::X402V1, v1), (Dialect::X402V2, true), (Dialect::MppCharge, mpp)];
    all.into_iter().filter(|(_, spoken)| *spoken).map(|(dialect, _)| dialect).collect()
}

fn token(registry: &Registry, asset: &Asset, atoms: Option<u128>, dialects: Vec<Dialect>) -> Way {
    let amount = atoms.map(|atoms| asset.format(atoms));
    Way {
        network: asset.id.network().to_string(),
        asset: checksummed(asset.id.address()),
        atoms,
        shown: amount.as_ref().map_or_else(|| asset.symbol.clone(), |n| format!("{n} {}", asset.symbol)),
        dollars: amount.filter(|_| registry.is_dollar(&asset.id)),
        per: None,
        pay_to: None,
        max_timeout_secs: None,
        dialects,
    }
}

/// What is charged by Stripe, if it is offered at all.
fn by_card(offer: &MethodOffer, max_timeout_secs: Option<u64>) -> Option<Way> {
    offer.method.request(offer)?;
    let (network, atoms) = (offer.method.network(), offer.money.atoms());
    let currency = Currency::of(&offer.money)?;
    let asset = currency.asset(network)?;
    Some(Way {
        network: network.to_string(),
        asset: currency.code.to_owned(),
        atoms: Some(atoms),
        shown: format!("{} {}", asset.format(atoms), asset.symbol),
        dollars: None,
        per: None,
        pay_to: None,
        max_timeout_secs,
        dialects: vec![Dialect::StripeCharge],
    })
}

fn unit(registry: &Registry, session: &Session) -> Way {
    let terms = session.terms();
    let unit = terms.price.unit().as_str();
    let per = match terms.price.per().get() {
        1 => unit.to_owned(),
        many => format!("{many} {unit}"),
    };
    let atoms = Some(terms.price.atoms());
    Way { per: Some(per), ..token(registry, terms.way.asset(), atoms, vec![Dialect::MppSession]) }
}

/// Addresses as challenges write them.
fn checksummed(address: &Address) -> String {
    to_alloy(address).map_or_else(|| address.to_string(), eip55)
}
