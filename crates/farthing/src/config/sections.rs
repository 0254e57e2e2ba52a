//! The sections of a file, each into its type.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farthing_engine::{Depths, EngineConfig, Finality};
use farthing_paywall::{Cors, Limits, Mpp, Rate};
use farthing_primitives::{Address, Asset, AssetId, Eip712Domain, Network, PullMethod, Registry};
use farthing_rails::exact_evm::Policy;
use farthing_wire::mpp::evm::CredentialType;
use url::Url;

use super::document::{Node, Problem, Value};
use super::mcp;
use super::reader::{Problems, Reader, nearest};
use super::routes::{self, Defaults};
use super::service;
use super::session::sessions;
use super::stripe::stripe;
use super::{
    ApiKey, Cidr, Config, FacilitatorServer, GatewayConfig, LimitsConfig, NetworkConfig, RemoteFacilitator,
    RpcUrl, SecretRef, SessionsConfig, Settlement, StripeConfig, TlsConfig, UpstreamConfig,
};

pub const DEFAULT_LISTEN: &str = "127.0.0.1:4021";
pub const DEFAULT_FACILITATOR_LISTEN: &str = "127.0.0.1:4022";
pub const DEFAULT_STORE: &str = "farthing.db";
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub const DEFAULT_RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// The deepest confirmation that may be asked for.
pub const MAX_CONFIRMATIONS: u64 = 10_000;

/// The longest realm of a challenge, in bytes: it is in every 402.
const MAX_REALM_BYTES: usize = 256;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads a whole document.
pub fn read(root: Node, folder: &Path) -> Result<Config, Vec<Problem>> {
    let problems = Problems::default();
    let config = read_all(root, folder, &problems);
    if problems.is_empty() { Ok(config) } else { Err(problems.into_vec()) }
}

fn read_all(root: Node, folder: &Path, problems: &Problems) -> Config {
    let mut root = Reader::root(root, problems);
    let registry = assets(&mut root);
    let networks = networks(&mut root, &registry);
    let store = store(&mut root, folder);
    let (policy, engine) = payments(&mut root);
    let (settlement, facilitator) = facilitator(&mut root, &registry);
    let limits = limits(&mut root);
    let sessions = sessions(&mut root);
    let stripe = stripe(&mut root);
    let gateway = gateway(&mut root, &registry, &policy, limits, (folder, &sessions, stripe.as_ref()));
    root.finish();
    Config { gateway, facilitator, store, networks, registry, settlement, policy, engine, sessions, stripe }
}

fn assets(root: &mut Reader<'_>) -> Registry {
    let mut registry = Registry::builtin();
    for mut entry in root.tables("asset") {
        let network = network_key(&mut entry, "network");
        let address = entry.text("address");
        let symbol = entry.text("symbol").map(|(text, _)| text);
        let decimals = u8::try_from(entry.number("decimals", 6, 0, 36)).unwrap_or(6);
        let pull = pull_method(&mut entry, "method");
        let name = entry.text("eip712_name").map(|(text, _)| text);
        let version = entry.text("eip712_version").map(|(text, _)| text);
        let dollar = entry.bool("dollar", false);
        let domain = match (name, version) {
            (Some(name), Some(version)) => Some(Eip712Domain { name, version }),
            (None, None) => None,
            _ => {
                entry.problem("eip712_name", "eip712_name and eip712_version go together");
                None
            }
        };
        let (Some(network), Some((address, place)), Some(symbol)) = (network, address, symbol) else {
            entry.problem("", "an asset needs network, address and symbol");
            entry.finish();
            continue;
        };
        let default_pull = if domain.is_some() { PullMethod::Eip3009 } else { PullMethod::Permit2 };
        match Address::parse(&network, &address) {
            Err(error) => entry.problem_at(&place, "address", error.to_string()),
            Ok(address) => {
                let id = AssetId::new(network, address);
                let asset =
                    Asset { id: id.clone(), symbol, decimals, pull: pull.unwrap_or(default_pull), domain };
                let added = registry
                    .insert(asset)
                    .and_then(|()| if dollar { registry.set_dollar(&id) } else { Ok(()) });
                if let Err(error) = added {
                    entry.problem("", error.to_string());
                }
            }
        }
        entry.finish();
    }
    registry
}

fn networks(root: &mut Reader<'_>, registry: &Registry) -> BTreeMap<Network, NetworkConfig> {
    let mut networks = BTreeMap::new();
    for (name, node, path) in root.entries("networks") {
        let place = node.place.clone();
        let mut entry = Reader::new(node, path, root.problems());
        let network = match network_named(&name) {
            Ok(network) => network,
            Err(error) => {
                entry.problem("", error);
                continue;
            }
        };
        let rpc = entry.list_of("rpc", rpc_url).unwrap_or_default();
        if rpc.is_empty() {
            entry.problem("rpc", "a network needs at least one RPC URL");
        }
        let config = NetworkConfig {
            rpc,
            relayer_key: entry.parsed::<SecretRef>("relayer_key"),
            depths: depths(&mut entry, &network, registry),
            block_time: entry.optional_duration("block_time"),
            request_timeout: entry.duration(
                "request_timeout",
                DEFAULT_RPC_TIMEOUT,
                Duration::from_millis(100),
                Duration::from_secs(120),
            ),
            max_fee: entry.take("max_fee_gwei").and_then(|node| match node.value {
                Value::Integer(gwei) => {
                    u128::try_from(gwei).ok().and_then(|gwei| gwei.checked_mul(1_000_000_000))
                }
                _ => {
                    entry.problem_at(&node.place, "max_fee_gwei", "expected a whole number");
                    None
                }
            }),
        };
        entry.finish();
        if networks.insert(network.clone(), config).is_some() {
            root.problems().add(Some(&place), &name, format!("{network} is there twice"));
        }
    }
    networks
}

/// `confirmations = "finalized"`, and for smaller amounts
/// `confirm = [{ up_to = "$1", blocks = 1 }, { up_to = "$100", blocks = "safe" }]`.
fn depths(entry: &mut Reader<'_>, network: &Network, registry: &Registry) -> Depths {
    let most = finality(entry, "confirmations").unwrap_or(Finality::Blocks(1));
    let mut steps: Vec<(u128, Finality)> = Vec::new();
    for mut step in entry.tables("confirm") {
        let named = step.has("up_to");
        let up_to = step.text_as("up_to", |text| {
            registry
                .parse_dollars(network, text)
                .map(|money| money.atoms())
                .map_err(|error| error.to_string())
        });
        if !step.has("blocks") {
            step.problem("blocks", format!("a step needs blocks: {FINALITY}"));
        }
        let depth = finality(&mut step, "blocks").unwrap_or(Finality::Blocks(1));
        match up_to {
            Some(up_to) if steps.last().is_some_and(|(before, _)| *before >= up_to) => {
                step.problem("up_to", "steps must ascend");
            }
            Some(up_to) => steps.push((up_to, depth)),
            None if named => {}
            None => step.problem("up_to", "a step needs an amount such as \"$1\""),
        }
        step.finish();
    }
    // Less for more money is a slip of the pen, where the two can be compared.
    let all: Vec<Finality> = steps.iter().map(|(_, depth)| *depth).chain([most]).collect();
    for pair in all.windows(2) {
        if let [smaller, larger] = pair
            && rank(*smaller) > rank(*larger)
        {
            entry.problem(
                "confirm",
                format!("a larger amount must not count sooner: \"{larger}\" comes after \"{smaller}\""),
            );
        }
    }
    Depths { most, steps }
}

/// Blocks compare with one another, and a name with a name: `finalized` is never before `safe`, nor that before a block.
fn rank(depth: Finality) -> (u8, u64) {
    match depth {
        Finality::Blocks(blocks) => (0, blocks),
        Finality::Safe => (1, 0),
        Finality::Finalized => (2, 0),
    }
}

/// What a depth may be.
const FINALITY: &str = "a count of blocks such as 3, \"safe\" or \"finalized\"";

fn finality(entry: &mut Reader<'_>, key: &'static str) -> Option<Finality> {
    let node = entry.take(key)?;
    let read = match &node.value {
        Value::Integer(0) => Err("0 would count what no block holds: to serve before the settlement, set \
                                  flow = \"background\" and an exposure on the route"
            .to_owned()),
        Value::Integer(blocks) => match u64::try_from(*blocks) {
            Ok(blocks) if blocks <= MAX_CONFIRMATIONS => Ok(Finality::Blocks(blocks)),
            _ => Err(format!("must be from 1 to {MAX_CONFIRMATIONS} blocks, \"safe\" or \"finalized\"")),
        },
        Value::Text(text) => match text.as_str() {
            "safe" => Ok(Finality::Safe),
            "finalized" => Ok(Finality::Finalized),
            _ => Err(format!("expected {FINALITY}, found {text:?}")),
        },
        other => Err(format!("expected {FINALITY}, found {}", other.kind())),
    };
    read.map_err(|message| entry.problem_at(&node.place, key, message)).ok()
}

fn rpc_url(text: &str) -> Result<RpcUrl, String> {
    if let Ok(reference) = text.parse::<SecretRef>() {
        return Ok(RpcUrl::Secret(reference));
    }
    web_url(text).map(RpcUrl::Plain)
}

/// An http or https URL with a host and nothing secret in it.
pub(super) fn web_url(text: &str) -> Result<Url, String> {
    if !text.contains("://") {
        return Err(needs_scheme(text));
    }
    let url: Url = text.parse().map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must be an http or https URL".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold credentials: use a reference".to_owned());
    }
    Ok(url)
}

fn needs_scheme(text: &str) -> String {
    let text: String = text.chars().take(64).collect();
    format!("a URL begins with http:// or https://, e.g. \"http://{text}\"")
}

fn store(root: &mut Reader<'_>, folder: &Path) -> std::path::PathBuf {
    let path = root.table("store").and_then(|mut store| {
        let path = store.text("path").map(|(path, _)| path);
        store.finish();
        path
    });
    folder.join(path.as_deref().unwrap_or(DEFAULT_STORE))
}

fn payments(root: &mut Reader<'_>) -> (Policy, EngineConfig) {
    let (mut policy, mut engine) = (Policy::default(), EngineConfig::default());
    let Some(mut section) = root.table("payments") else { return (policy, engine) };
    policy.contract_wallets = section.bool("contract_wallets", policy.contract_wallets);
    let factories = section.list_of("factories", |text| {
        let address = Address::evm(text).map_err(|error| error.to_string())?;
        farthing_evm::to_alloy(&address).ok_or_else(|| "not an EVM address".to_owned())
    });
    policy.factories = factories.unwrap_or_default();
    policy.max_validity = section.optional_duration("max_validity").or(policy.max_validity);
    let e = &mut engine;
    e.answer_within = section.duration("answer_within", e.answer_within, SECOND, HOUR);
    e.unclear_after = section.duration("unclear_after", e.unclear_after, SECOND, HOUR);
    e.replay_ttl = section.duration("replay_ttl", e.replay_ttl, Duration::ZERO, DAY * 30);
    e.reorg_horizon = section.duration("reorg_horizon", e.reorg_horizon, SECOND, DAY);
    e.delivery_within = section.duration("delivery_within", e.delivery_within, SECOND, DAY);
    let live = section.number("max_live", e.max_live as u64, 1, 1_000_000);
    e.max_live = usize::try_from(live).unwrap_or(e.max_live);
    section.finish();
    (policy, engine)
}

fn facilitator(root: &mut Reader<'_>, registry: &Registry) -> (Settlement, Option<FacilitatorServer>) {
    let Some(mut section) = root.table("facilitator") else { return (Settlement::Own, None) };
    let mode = section.text("mode");
    let mut remote = Vec::new();
    for mut entry in section.tables_or_texts("remote", "url") {
        let url = entry.text_as("url", web_url);
        let api_key = entry.parsed::<SecretRef>("api_key");
        match url {
            Some(url) => remote.push(RemoteFacilitator { url, api_key }),
            None => entry.problem("url", "a remote facilitator needs a url"),
        }
        entry.finish();
    }
    let settlement = match mode.as_ref().map(|(mode, _)| mode.as_str()) {
        None if remote.is_empty() => Settlement::Own,
        Some("self") if remote.is_empty() => Settlement::Own,
        Some("self") => {
            section.problem("mode", "\"self\" settles here, so remote must be absent");
            Settlement::Own
        }
        None | Some("remote") if !remote.is_empty() => Settlement::Remote(remote),
        Some("remote") => {
            section.problem("remote", "mode \"remote\" needs at least one [[facilitator.remote]]");
            Settlement::Own
        }
        _ => {
            section.problem("mode", "must be \"self\" or \"remote\"");
            Settlement::Own
        }
    };
    let server = section.table("server").map(|server| facilitator_server(server, registry));
    section.finish();
    (settlement, server)
}

fn facilitator_server(mut section: Reader<'_>, registry: &Registry) -> FacilitatorServer {
    let listen = listen_address(&mut section, "listen", DEFAULT_FACILITATOR_LISTEN);
    let networks = section.list_of("networks", network_named);
    let assets = section.list_of("assets", |text| {
        let id: AssetId =
            text.parse().map_err(|error: farthing_primitives::AssetIdError| error.to_string())?;
        if registry.get(&id).is_some() {
            Ok(id)
        } else {
            Err(format!("{id} is not listed: add an [[asset]]"))
        }
    });
    let max_gas_wei_per_day = section.atoms("max_gas_wei_per_day");
    let mut api_keys = Vec::new();
    for mut entry in section.tables("api_key") {
        let (tenant, key) = (entry.parsed("tenant"), entry.parsed::<SecretRef>("key"));
        match (tenant, key) {
            (Some(tenant), Some(key)) => api_keys.push(ApiKey { tenant, key }),
            _ => entry.problem("", "an API key needs tenant and key"),
        }
        entry.finish();
    }
    if api_keys.is_empty() && !listen.ip().is_loopback() {
        section.problem("listen", "off loopback, API keys are required ([[facilitator.server.api_key]])");
    }
    section.finish();
    FacilitatorServer { listen, networks, assets, api_keys, max_gas_wei_per_day }
}

fn limits(root: &mut Reader<'_>) -> LimitsConfig {
    let connections = farthing_listener::Limits::default();
    let mut limits = LimitsConfig {
        max_connections: connections.max_connections,
        max_connections_per_client: connections.max_per_peer,
        max_header_bytes: connections.max_head_bytes,
        header_timeout: connections.head_timeout,
        idle_timeout: connections.idle_timeout,
        stall_timeout: connections.stall_timeout,
        min_rate: connections.min_rate,
        shutdown_timeout: connections.shutdown_timeout,
        paywall: Limits::default(),
    };
    let Some(mut section) = root.table("limits") else { return limits };
    let count = |section: &mut Reader<'_>, key, default: usize| {
        usize::try_from(section.number(key, default as u64, 1, 1_000_000)).unwrap_or(default)
    };
    let l = &mut limits;
    l.max_connections = count(&mut section, "max_connections", l.max_connections);
    l.max_connections_per_client =
        count(&mut section, "max_connections_per_client", l.max_connections_per_client);
    // hyper takes no less than 8 KiB for a whole head.
    l.max_header_bytes = section.size("max_header_bytes", l.max_header_bytes, 8 * 1024, 1024 * 1024);
    l.header_timeout = section.duration("header_timeout", l.header_timeout, SECOND, HOUR);
    l.idle_timeout = section.duration("idle_timeout", l.idle_timeout, SECOND, HOUR);
    l.stall_timeout = section.duration("stall_timeout", l.stall_timeout, SECOND, HOUR);
    let min_rate = section.number("min_rate", u64::from(l.min_rate), 0, 1024 * 1024);
    l.min_rate = u32::try_from(min_rate).unwrap_or(l.min_rate);
    l.shutdown_timeout = section.duration("shutdown_timeout", l.shutdown_timeout, SECOND, HOUR);
    let p = &mut l.paywall;
    p.request_timeout = section.duration("request_timeout", p.request_timeout, SECOND, HOUR);
    p.in_flight = count(&mut section, "in_flight", p.in_flight);
    p.in_flight_per_client = count(&mut section, "in_flight_per_client", p.in_flight_per_client);
    p.body_memory = section.size("body_memory", p.body_memory, 1024 * 1024, 1 << 40);
    p.calls = count(&mut section, "calls", p.calls);
    p.calls_per_client = count(&mut section, "calls_per_client", p.calls_per_client);
    p.payments = rate(&mut section, "payments_per_second", p.payments);
    p.refused_payments = rate(&mut section, "refused_payments_per_second", p.refused_payments);
    p.contract_payments = rate(&mut section, "contract_payments_per_second", p.contract_payments);
    p.questions = rate(&mut section, "questions_per_second", p.questions);
    section.finish();
    limits
}

/// A rate for each client; twice of it may be used at once.
fn rate(section: &mut Reader<'_>, key: &'static str, default: Rate) -> Rate {
    let per_second = section.number(key, u64::from(default.per_second), 1, 1_000_000);
    let per_second = u32::try_from(per_second).unwrap_or(default.per_second);
    Rate { per_second, burst: per_second.saturating_mul(2) }
}

fn gateway(
    root: &mut Reader<'_>,
    registry: &Registry,
    policy: &Policy,
    limits: LimitsConfig,
    (folder, sessions, stripe): (&Path, &SessionsConfig, Option<&StripeConfig>),
) -> Option<GatewayConfig> {
    let upstreams = upstreams(root);
    let section = root.table("gateway");
    let routes = root.tables("route");
    let (mcp, tools) = (root.table("mcp"), root.tables("tool"));
    let service = root.table("service");
    let Some(mut section) = section else {
        if let Some(route) = routes.first() {
            route.problem("", "routes need a [gateway] section");
        }
        if let Some(mcp) = mcp.as_ref().or(tools.first()) {
            mcp.problem("", "tools need a [gateway] section");
        }
        if let Some(service) = &service {
            service.problem("", "documents need a [gateway] section");
        }
        // They are not looked into, so they must not count as unknown.
        return None;
    };
    let listen = listen_address(&mut section, "listen", DEFAULT_LISTEN);
    let admin_listen = section.parsed::<SocketAddr>("admin_listen");
    let public_url = section.text_as("public_url", |text| {
        let url = web_url(text)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not have a query or a fragment".to_owned());
        }
        Ok(url)
    });
    let public = !listen.ip().is_loopback();
    if public && public_url.is_none() {
        section.problem("public_url", "off loopback, buyers must be told where they are: set public_url");
    }
    if let Some(admin) = admin_listen
        && admin == listen
    {
        section.problem("admin_listen", "must be another address than listen");
    }
    let trusted_proxies = section.list_of("trusted_proxies", |text| text.parse::<Cidr>()).unwrap_or_default();
    let tls = section.table("tls").and_then(|mut tls| {
        let (cert, key) = (tls.text("cert"), tls.text("key"));
        if cert.is_none() || key.is_none() {
            tls.problem("", "TLS needs cert and key");
        }
        tls.finish();
        Some(TlsConfig { cert: folder.join(cert?.0), key: folder.join(key?.0) })
    });
    let cors = cors(&mut section);
    let unmatched_free = section
        .text_as("unmatched", |text| match text {
            "refuse" => Ok(false),
            "free" => Ok(true),
            _ => Err("must be \"refuse\" or \"free\"".to_owned()),
        })
        .unwrap_or(false);
    let v1_body = section.bool("v1_body", true);
    let mpp = Mpp {
        spoken: section.bool("mpp", true),
        realm: section.text_as("realm", |text| match text {
            "" => Err("must not be empty".to_owned()),
            // The id binds it between such signs.
            _ if text.len() > MAX_REALM_BYTES || text.contains('|') || text.chars().any(char::is_control) => {
                Err("must be short and printable, without \"|\"".to_owned())
            }
            _ => Ok(text.to_owned()),
        }),
    };
    let pay_by = routes::pay_by(&mut section).unwrap_or_else(|| vec![CredentialType::Authorization]);
    let offer_key = section.parsed::<SecretRef>("offer_key");
    let default_upstream = section.text("upstream").and_then(|(text, place)| {
        find_upstream(&text, &upstreams).map_err(|error| section.problem_at(&place, "upstream", error)).ok()
    });
    if unmatched_free && default_upstream.is_none() {
        section.problem("unmatched", "\"free\" needs an upstream in [gateway]");
    }
    let network = network_key(&mut section, "network");
    let pay_to = section.text("pay_to");
    let defaults = Defaults {
        registry,
        policy,
        upstreams: &upstreams,
        upstream: default_upstream.clone(),
        network,
        pay_to,
        escrow: sessions.escrow.clone(),
        mpp: mpp.spoken,
        pay_by,
        stripe,
    };
    section.finish();
    let routes = routes::read(routes, &defaults, root.problems());
    let mcp = mcp::read(mcp, tools, &routes, &defaults, root.problems());
    let service = service::read(service, default_upstream.is_some());
    Some(GatewayConfig {
        listen,
        admin_listen,
        public_url,
        trusted_proxies,
        tls,
        cors,
        unmatched_free,
        mpp,
        v1_body,
        offer_key,
        default_upstream,
        routes,
        mcp,
        service,
        limits,
        registry: registry.clone(),
    })
}

fn cors(section: &mut Reader<'_>) -> Cors {
    let Some(origins) = section.list_of("cors", |text| Ok(text.to_owned())) else { return Cors::Upstream };
    match origins.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["upstream"] | [] => Cors::Upstream,
        ["*"] => Cors::Any,
        _ => {
            if let Some(odd) =
                origins.iter().find(|o| !o.starts_with("http") || o.ends_with('/') || *o == "*")
            {
                section.problem(
                    "cors",
                    format!("not an origin: {odd:?} (expected e.g. \"https://shop.example\")"),
                );
            }
            Cors::Only(origins)
        }
    }
}

fn upstreams(root: &mut Reader<'_>) -> BTreeMap<String, Arc<UpstreamConfig>> {
    let mut upstreams = BTreeMap::new();
    for mut entry in root.tables("upstream") {
        let name = entry.text("name");
        let url = entry.text_as("url", upstream_url);
        let connect_timeout =
            entry.duration("connect_timeout", DEFAULT_CONNECT_TIMEOUT, Duration::from_millis(10), HOUR);
        let headers = secret_headers(&mut entry, "headers");
        let preserve_host = entry.bool("preserve_host", false);
        let http2 = entry.bool("http2", false);
        match (name, url) {
            (Some((name, place)), Some(url)) => {
                let config = UpstreamConfig { url, connect_timeout, headers, preserve_host, http2 };
                if upstreams.insert(name.clone(), Arc::new(config)).is_some() {
                    entry.problem_at(&place, "name", format!("{name:?} is there twice"));
                }
            }
            _ => entry.problem("", "an upstream needs name and url"),
        }
        entry.finish();
    }
    upstreams
}

/// Headers whose values are references to secrets.
pub(super) fn secret_headers(
    entry: &mut Reader<'_>,
    key: &'static str,
) -> Vec<(http::HeaderName, SecretRef)> {
    let mut headers = Vec::new();
    for (name, node, path) in entry.entries(key) {
        let problems = entry.problems();
        let header = name.parse::<http::HeaderName>();
        match (header, node.value) {
            (Ok(header), Value::Text(text)) => match text.parse::<SecretRef>() {
                Ok(reference) => headers.push((header, reference)),
                Err(error) => problems.add(Some(&node.place), &path, error.to_string()),
            },
            (Err(_), _) => problems.add(Some(&node.place), &path, "not a header's name"),
            (_, other) => {
                problems.add(Some(&node.place), &path, format!("expected a text, found {}", other.kind()));
            }
        }
    }
    headers
}

fn upstream_url(text: &str) -> Result<Url, String> {
    // One that speaks WebSocket is asked by HTTP first, at the same address.
    let text = match text.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        _ => text.to_owned(),
    };
    let url = web_url(&text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment".to_owned());
    }
    Ok(url)
}

/// An upstream by its name, or by a URL.
pub(super) fn find_upstream(
    text: &str,
    known: &BTreeMap<String, Arc<UpstreamConfig>>,
) -> Result<Arc<UpstreamConfig>, String> {
    if let Some(upstream) = known.get(text) {
        return Ok(upstream.clone());
    }
    if !text.contains("://") {
        // A name has no port and no path.
        return Err(match text.contains([':', '/']) {
            true => needs_scheme(text),
            false => {
                format!("there is no [[upstream]] named {text:?} (a URL begins with http:// or https://)")
            }
        });
    }
    Ok(Arc::new(UpstreamConfig {
        url: upstream_url(text)?,
        connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        headers: Vec::new(),
        preserve_host: false,
        http2: false,
    }))
}

pub(super) fn network_key(entry: &mut Reader<'_>, key: &'static str) -> Option<Network> {
    entry.text_as(key, network_named)
}

/// A network as a person writes it. The error names those that have a name.
pub(super) fn network_named(name: &str) -> Result<Network, String> {
    Network::from_name(name).map_err(|error| {
        if name.contains(':') {
            return error.to_string();
        }
        let evm = |known: &&str| Network::from_v1_name(known).is_ok_and(|n| n.evm_chain_id().is_some());
        let known: Vec<&'static str> = Network::v1_names().filter(evm).collect();
        let meant = nearest(name, &known).map(|known| format!("did you mean \"{known}\"? "));
        let name: String = name.chars().take(64).collect();
        format!(
            "there is no network called {name:?} ({}known by name: {}; any other by its chain id, e.g. \"eip155:8453\")",
            meant.unwrap_or_default(),
            known.join(", ")
        )
    })
}

pub(super) fn pull_method(entry: &mut Reader<'_>, key: &'static str) -> Option<PullMethod> {
    entry.text_as(key, |text| match text {
        "eip3009" => Ok(PullMethod::Eip3009),
        "permit2" => Ok(PullMethod::Permit2),
        _ => Err("must be \"eip3009\" or \"permit2\"".to_owned()),
    })
}

fn listen_address(section: &mut Reader<'_>, key: &'static str, default: &str) -> SocketAddr {
    // INVARIANT: the defaults above are addresses; the tests read them.
    let otherwise = default.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
    section.parsed(key).unwrap_or(otherwise)
}
