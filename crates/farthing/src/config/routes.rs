//! `[[route]]`: what is matched, where it goes, and what it costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farthing_engine::ExposureLimit;
use farthing_payment::Flow;
use farthing_paywall::{
    Amount, DEFAULT_MAX_REQUEST, DEFAULT_MAX_RESPONSE, DEFAULT_MAX_TIMEOUT, DEFAULT_UPSTREAM_TIMEOUT,
    MAX_WAYS, Offer, Pattern, TableError, Way,
};
use farthing_primitives::{Address, Asset, Network, PullMethod, Registry};
use farthing_rails::exact_evm::Policy;
use farthing_wire::mpp::evm::CredentialType;

use super::document::{Node, Place, Value};
use super::reader::{Problems, Reader};
use super::sections::{find_upstream, network_key, network_named, pull_method, secret_headers, web_url};
use super::session::{Around, session};
use super::stripe::offer as stripe_offer;
use super::{Asked, PriceConfig, RouteConfig, SaleConfig, StripeConfig, UpstreamConfig};

/// The largest request or response that a paid route may be told to hold in memory.
pub const MAX_STORED_BYTES: usize = 256 * 1024 * 1024;
pub const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// What `[gateway]` says for all routes.
pub struct Defaults<'a> {
    pub registry: &'a Registry,
    pub policy: &'a Policy,
    pub upstreams: &'a BTreeMap<String, Arc<UpstreamConfig>>,
    pub upstream: Option<Arc<UpstreamConfig>>,
    pub network: Option<Network>,
    pub pay_to: Option<(String, Place)>,
    /// The escrow of sessions that name none.
    pub escrow: Address,
    /// Whether MPP is spoken.
    pub mpp: bool,
    /// By which types of credentials its charges may be paid.
    pub pay_by: Vec<CredentialType>,
    /// `[stripe]`.
    pub stripe: Option<&'a StripeConfig>,
}

pub fn read(routes: Vec<Reader<'_>>, defaults: &Defaults<'_>, problems: &Problems) -> Vec<RouteConfig> {
    let mut all: Vec<RouteConfig> = Vec::with_capacity(routes.len());
    let mut places = Vec::with_capacity(routes.len());
    for mut route in routes {
        let place = (route.place().clone(), route.key("match"));
        if let Some(config) = one(&mut route, defaults) {
            all.push(config);
            places.push(place);
        }
        route.finish();
    }
    let patterns = all.iter().map(|route| (route.pattern.clone(), ())).collect();
    if let Err(error) = farthing_paywall::RouteTable::new(patterns) {
        // Which two is in the message; the line is that of the later one.
        let later = match &error {
            TableError::Overlap(a, b) => all.iter().rposition(|r| r.pattern == *a || r.pattern == *b),
            TableError::TooMany => None,
        };
        let (place, key) = later.and_then(|at| places.get(at)).cloned().unzip();
        problems.add(place.as_ref(), key.as_deref().unwrap_or("route"), error.to_string());
    }
    all
}

fn one(route: &mut Reader<'_>, defaults: &Defaults<'_>) -> Option<RouteConfig> {
    if !route.has("match") {
        route.problem("match", "a route needs match, e.g. \"GET /weather\"");
    }
    let matched = route.text_as("match", |text| {
        let pattern = text.parse::<Pattern>().map_err(|error| error.to_string())?;
        Ok((pattern, text.to_owned()))
    });
    let upstream = match route.text("upstream") {
        Some((text, place)) => find_upstream(&text, defaults.upstreams)
            .map_err(|error| route.problem_at(&place, "upstream", error))
            .ok(),
        None => {
            if defaults.upstream.is_none() {
                route.problem("upstream", "needs an upstream, here or in [gateway]");
            }
            defaults.upstream.clone()
        }
    };
    let free = route.bool("free", false);
    let sale = sale(route, defaults, free);
    let (pattern, written) = matched?;
    Some(RouteConfig { pattern, written, upstream: upstream?, sale })
}

pub(super) fn sale(route: &mut Reader<'_>, defaults: &Defaults<'_>, free: bool) -> Option<SaleConfig> {
    // Whoever got it wrong need not be told that it is missing.
    let has_price = ["price", "atoms", "price_hook"].iter().any(|key| route.has(key));
    let asked = Asked { amount: amount(route), pay_to: None };
    let hook = route.text_as("price_hook", web_url);
    let hook_timeout = route.duration(
        "price_hook_timeout",
        DEFAULT_HOOK_TIMEOUT,
        Duration::from_millis(10),
        Duration::from_secs(60),
    );
    let hook_headers = secret_headers(route, "price_hook_headers");
    let sponsor = route.bool("sponsor_approval", true);
    let accept = route.take("accept");
    let priced = has_price || accept.is_some();
    let wrong_price = has_price && asked.amount.is_none() && hook.is_none();
    let flow = flow(route);
    let exposure = exposure(route);
    if exposure.is_some() != (flow == Flow::Background) {
        route.problem("exposure", "goes with flow = \"background\", and only with that");
    }
    let hour = Duration::from_secs(3600);
    let config = SaleTerms {
        flow,
        exposure,
        // Below 10 s an authorization would lapse before it could be settled.
        max_timeout: route.duration("max_timeout", DEFAULT_MAX_TIMEOUT, Duration::from_secs(10), hour * 24),
        upstream_timeout: route.duration(
            "upstream_timeout",
            DEFAULT_UPSTREAM_TIMEOUT,
            Duration::from_millis(10),
            hour,
        ),
        max_request: route.size("max_request", DEFAULT_MAX_REQUEST, 0, MAX_STORED_BYTES),
        max_response: route.size("max_response", DEFAULT_MAX_RESPONSE, 1, MAX_STORED_BYTES),
        repeatable: route.optional_bool("repeatable"),
        digest: route.bool("digest", true),
        description: route.text("description").map(|(text, _)| text),
        mime_type: route.text("mime_type").map(|(text, _)| text),
    };
    if route.has("pay_by") && !defaults.mpp {
        route.problem("pay_by", "goes with MPP, and [gateway] says mpp = false");
    }
    let pay_by = pay_by(route).unwrap_or_else(|| defaults.pay_by.clone());
    let around = Around { upstream_timeout: config.upstream_timeout, max_response: config.max_response };
    let has_session = route.has("session");
    let session = session(route, defaults, around);
    let has_stripe = route.has("stripe");
    let stripe = stripe_offer(route, defaults, asked.amount.as_ref().map(|(amount, _)| amount));
    if free {
        if priced || has_session || has_stripe {
            route.problem("free", "a free route has no price");
        }
        return None;
    }
    if !priced && !has_session && !has_stripe {
        route.problem(
            "price",
            "a route needs a price (or price_hook, or accept, or session, or stripe), or free = true",
        );
        return None;
    }
    // Sold by the unit alone.
    let by_the_unit = has_session && !priced && !has_stripe;
    if by_the_unit && (hook.is_some() || config.flow != Flow::Authorization) {
        route.problem("flow", "goes with a price of the request, and the session is all that this route has");
    }
    // Nothing of it is paid in a token at once.
    let no_token = !priced;
    let lines = if no_token { Vec::new() } else { accept_lines(route, accept, defaults) };
    let mut ways = Vec::new();
    let mut offers = Vec::new();
    for line in lines {
        let Some(way) = way(route, &line, defaults, sponsor) else { continue };
        if hook.is_some() {
            if line.asked.amount.is_some() || asked.amount.is_some() {
                route.problem_at(&line.place, "price_hook", "sets the price, so nothing else may");
            }
            ways.push(way);
            continue;
        }
        match line.asked.amount.as_ref().or(asked.amount.as_ref()) {
            Some((amount, place)) => match way.offer(amount) {
                Ok(offer) => offers.push(offer),
                Err(error) => route.problem_at(place, "price", error.to_string()),
            },
            None if wrong_price || line.wrong_price => {}
            None => route.problem_at(&line.place, "price", "no price, neither here nor on the route"),
        }
    }
    if ways.len().max(offers.len()) > MAX_WAYS {
        route.problem("accept", format!("at most {MAX_WAYS} ways to pay"));
    }
    let price = if no_token {
        // What is wrong with them was reported.
        if session.is_none() && stripe.is_none() {
            return None;
        }
        PriceConfig::Fixed(Vec::new())
    } else {
        price(hook, hook_timeout, hook_headers, ways, offers)?
    };
    Some(SaleConfig {
        price,
        session,
        pay_by,
        methods: stripe.into_iter().collect(),
        flow: config.flow,
        exposure: config.exposure,
        max_timeout: config.max_timeout,
        upstream_timeout: config.upstream_timeout,
        max_request: config.max_request,
        max_response: config.max_response,
        repeatable: config.repeatable,
        digest: config.digest,
        description: config.description,
        mime_type: config.mime_type,
        policy: Arc::new(defaults.policy.clone()),
    })
}

struct SaleTerms {
    flow: Flow,
    exposure: Option<ExposureLimit>,
    max_timeout: Duration,
    upstream_timeout: Duration,
    max_request: usize,
    max_response: usize,
    repeatable: Option<bool>,
    digest: bool,
    description: Option<String>,
    mime_type: Option<String>,
}

fn price(
    hook: Option<url::Url>,
    timeout: Duration,
    headers: Vec<(http::HeaderName, super::SecretRef)>,
    ways: Vec<Arc<Way>>,
    offers: Vec<Offer>,
) -> Option<PriceConfig> {
    match hook {
        Some(url) if !ways.is_empty() => Some(PriceConfig::Hook { url, timeout, headers, ways }),
        None if !offers.is_empty() => Some(PriceConfig::Fixed(offers)),
        // The reason was reported where it arose.
        _ => None,
    }
}

fn flow(route: &mut Reader<'_>) -> Flow {
    let read = |text: &str| match text {
        "authorization" => Ok(Flow::Authorization),
        "upfront" => Ok(Flow::Upfront),
        "background" => Ok(Flow::Background),
        _ => Err("must be \"authorization\", \"upfront\" or \"background\"".to_owned()),
    };
    route.text_as("flow", read).unwrap_or(Flow::Authorization)
}

/// By which types of credentials a charge of MPP may be paid, the most welcome first.
///
/// Spec: draft-evm-charge-00, "Credential Type Negotiation".
pub(super) fn pay_by(section: &mut Reader<'_>) -> Option<Vec<CredentialType>> {
    let types = section.list_of("pay_by", |text| match CredentialType::named(text) {
        Some(CredentialType::Permit2) => {
            Err("\"permit2\" cannot be signed: MPP names no spender (x402 sells by it)".to_owned())
        }
        Some(kind) => Ok(kind),
        None => Err("must be \"authorization\", \"transaction\" or \"hash\"".to_owned()),
    })?;
    let twice = types.iter().enumerate().any(|(at, kind)| types[..at].contains(kind));
    if types.is_empty() || twice {
        section.problem("pay_by", "must name at least one way, and each once");
    }
    Some(types)
}

fn exposure(route: &mut Reader<'_>) -> Option<ExposureLimit> {
    let mut section = route.table("exposure")?;
    let limit = ExposureLimit {
        per_payer: section.atoms("per_payer").unwrap_or(0),
        total: section.atoms("total").unwrap_or(0),
    };
    section.finish();
    Some(limit)
}

/// `price = "$0.002"`, or `atoms = "2000"`, and where it says so.
fn amount(entry: &mut Reader<'_>) -> Option<(Amount, Place)> {
    let place = entry.place_of("price").or_else(|| entry.place_of("atoms"));
    let price = entry.text_as("price", |text| match text.strip_prefix('$') {
        Some(_) => Amount::parse(text).map_err(|error| error.to_string()),
        None => Err("expected dollars such as \"$0.002\" (for other assets use atoms)".to_owned()),
    });
    let atoms = entry.atoms("atoms");
    if price.is_some() && atoms.is_some() {
        entry.problem("atoms", "either price or atoms");
    }
    price.or(atoms.map(Amount::Atoms)).zip(place)
}

/// One way to be paid, as far as its own line says it.
pub(super) struct Line {
    pub place: Place,
    pub asked: Asked,
    pub network: Option<Network>,
    pub asset: Option<String>,
    pub method: Option<PullMethod>,
    /// There is a price, and it was reported as wrong.
    pub wrong_price: bool,
}

fn accept_lines(route: &Reader<'_>, accept: Option<Node>, defaults: &Defaults<'_>) -> Vec<Line> {
    let Some(node) = accept else {
        let asked = Asked { amount: None, pay_to: None };
        let network = defaults.network.clone();
        let place = route.place().clone();
        return vec![Line { place, asked, network, asset: None, method: None, wrong_price: false }];
    };
    let items = match node.value {
        Value::List(items) => items,
        Value::Table(_) | Value::Text(_) => vec![node],
        other => {
            route.problem_at(&node.place, "accept", format!("expected a list, found {}", other.kind()));
            return Vec::new();
        }
    };
    let mut lines = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let place = item.place.clone();
        // A network's name alone is enough where `[gateway]` says the rest.
        if let Value::Text(name) = &item.value {
            match network_named(name) {
                Ok(network) => lines.push(Line {
                    place,
                    asked: Asked { amount: None, pay_to: None },
                    network: Some(network),
                    asset: None,
                    method: None,
                    wrong_price: false,
                }),
                Err(error) => route.problem_at(&place, "accept", error),
            }
            continue;
        }
        let mut entry = Reader::new(item, route.key(&format!("accept[{at}]")), route.problems());
        let network = network_key(&mut entry, "network").or_else(|| defaults.network.clone());
        let asset = entry.text("asset").map(|(text, _)| text);
        let method = pull_method(&mut entry, "method");
        let has_price = entry.has("price") || entry.has("atoms");
        let amount = amount(&mut entry);
        let wrong_price = has_price && amount.is_none();
        let pay_to =
            entry.text("pay_to").and_then(|(text, at)| address(&entry, network.as_ref(), &text, &at));
        entry.finish();
        lines.push(Line { place, asked: Asked { amount, pay_to }, network, asset, method, wrong_price });
    }
    lines
}

pub(super) fn address(
    entry: &Reader<'_>,
    network: Option<&Network>,
    text: &str,
    place: &Place,
) -> Option<Address> {
    let parsed = match network {
        Some(network) => Address::parse(network, text),
        None => Address::evm(text),
    };
    let address = parsed.map_err(|error| entry.problem_at(place, "pay_to", error.to_string())).ok()?;
    if !checksum_holds(text, &address) {
        entry.problem_at(
            place,
            "pay_to",
            "the checksum in its capitals is wrong: is there a typing error?".to_owned(),
        );
        return None;
    }
    Some(address)
}

/// Whether an address as a person wrote it agrees with its checksum. One case throughout carries none.
///
/// Spec: EIP-55.
pub(crate) fn checksum_holds(text: &str, address: &Address) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mixed =
        digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
    !mixed || farthing_evm::to_alloy(address).is_none_or(|raw| farthing_evm::eip55(raw) == text)
}

pub(super) fn way(
    route: &Reader<'_>,
    line: &Line,
    defaults: &Defaults<'_>,
    sponsor: bool,
) -> Option<Arc<Way>> {
    let Some(network) = &line.network else {
        route.problem_at(&line.place, "network", "needs a network, here or in [gateway]");
        return None;
    };
    let asset = match asset(line, network, defaults.registry) {
        Ok(asset) => asset,
        Err(message) => {
            route.problem_at(&line.place, "asset", message);
            return None;
        }
    };
    let pay_to = match (&line.asked.pay_to, &defaults.pay_to) {
        (Some(pay_to), _) => pay_to.clone(),
        (None, Some((text, place))) => address(route, Some(network), text, place)?,
        (None, None) => {
            route.problem_at(&line.place, "pay_to", "needs pay_to, here or in [gateway]");
            return None;
        }
    };
    let method = line.method.unwrap_or(asset.pull);
    match Way::new(defaults.registry, asset, pay_to, method) {
        Ok(way) => Some(Arc::new(way.with_sponsored_approval(sponsor))),
        Err(error) => {
            route.problem_at(&line.place, "accept", error.to_string());
            None
        }
    }
}

fn asset<'a>(line: &Line, network: &Network, registry: &'a Registry) -> Result<&'a Asset, String> {
    match &line.asset {
        None => registry
            .dollar(network)
            .ok_or_else(|| format!("no asset on {network} stands for dollars: name one")),
        Some(text) if text.starts_with("0x") => {
            let address = Address::parse(network, text).map_err(|error| error.to_string())?;
            let id = farthing_primitives::AssetId::new(network.clone(), address);
            registry.get(&id).ok_or_else(|| format!("{id} is not listed: add an [[asset]]"))
        }
        Some(symbol) => registry
            .by_symbol(network, symbol)
            .ok_or_else(|| format!("no asset called {symbol:?} on {network}: add an [[asset]]")),
    }
}
