//! A seller's documents: `/openapi.json`, `/llms.txt` and `/.well-known/x402`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::describe::{Dialect, Route, Service, Way};
use crate::read::MAX_PATH;
use crate::template::{METHODS, Segment, segments, shape, spell};
use crate::text::clean;

pub const OPENAPI_PATH: &str = "/openapi.json";
pub const LLMS_PATH: &str = "/llms.txt";
pub const WELL_KNOWN_PATH: &str = "/.well-known/x402";

/// The longest document of a service behind that is read, in bytes.
pub const MAX_DESCRIBED_BYTES: usize = 2 * 1024 * 1024;
/// How many operations `/llms.txt` lists.
const MAX_LLMS_OPERATIONS: usize = 200;
/// The longest text that it takes over, in characters.
const MAX_LLMS_TEXT: usize = 300;

/// What the price of an operation is said by. Whatever the service behind says of these is left out.
const PAYMENT_INFO: &str = "x-payment-info";
/// The same for x402, whose offers the draft's `x-payment-info` has no place for.
const X402_INFO: &str = "x-x402";
const SERVICE_INFO: &str = "x-service-info";

/// What a service behind says of itself.
#[derive(Debug, Clone)]
pub struct Described {
    document: Map<String, Value>,
    /// What stands before the path of each request that goes there; no slash at its end.
    prefix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescribedError {
    #[error("it is longer than {MAX_DESCRIBED_BYTES} bytes")]
    TooLong,
    #[error("it is not a JSON object")]
    NotJson,
    #[error("it is not OpenAPI 3")]
    NotOpenApi3,
}

impl Described {
    /// Reads an OpenAPI document. `prefix` is the path of the service's own URL.
    ///
    /// # Errors
    /// [`DescribedError`]; JSON that is nested beyond what our reader takes counts as none.
    pub fn parse(bytes: &[u8], prefix: &str) -> Result<Self, DescribedError> {
        if bytes.len() > MAX_DESCRIBED_BYTES {
            return Err(DescribedError::TooLong);
        }
        let Ok(Value::Object(document)) = serde_json::from_slice(bytes) else {
            return Err(DescribedError::NotJson);
        };
        match document.get("openapi") {
            Some(Value::String(version)) if version.starts_with("3.") => {}
            _ => return Err(DescribedError::NotOpenApi3),
        }
        Ok(Self { document, prefix: prefix.trim_end_matches('/').to_owned() })
    }

    /// Each path item, by the path that it has before the gateway.
    fn items(&self) -> impl Iterator<Item = (Vec<Segment>, &Map<String, Value>)> {
        let base = server_path(self.document.get("servers"));
        let paths = self.document.get("paths").and_then(Value::as_object);
        paths.into_iter().flatten().filter_map(move |(path, item)| {
            let item = item.as_object()?;
            let whole = format!("{base}{path}");
            let own = whole.strip_prefix(&self.prefix)?;
            // `/api` is not before `/apis`. A document elsewhere cannot be looked into.
            (own.starts_with('/') && !item.contains_key("$ref")).then(|| (segments(own), item))
        })
    }
}

/// The path of the first server that a document names.
fn server_path(servers: Option<&Value>) -> String {
    let url = servers.and_then(|all| all.get(0)).and_then(|server| server.get("url")).and_then(Value::as_str);
    let url = url.unwrap_or_default();
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => url,
    };
    // What depends on a server's variables is not known; and each operation has it before its own path.
    if path.starts_with('/') && path.len() <= MAX_PATH && !path.contains('{') {
        path.trim_end_matches('/').to_owned()
    } else {
        String::new()
    }
}

/// All that a seller publishes, made at once so that its parts agree.
#[derive(Debug, Clone)]
pub struct Documents {
    openapi: Value,
    llms: String,
    /// Paths of what x402 pays for, without those that have places in them.
    resources: Vec<String>,
    public_url: Option<String>,
}

/// An operation of the document.
struct Listed {
    method: String,
    path: String,
    summary: Option<String>,
    /// Its route, by number.
    route: Option<usize>,
}

impl Documents {
    /// Makes the documents of `service`, over what the service behind says of itself if that is known.
    ///
    /// Of the latter, what no route lets through is left out, and so are its servers, which would lead past the
    /// gateway, and whatever it says of prices.
    pub fn make(service: &Service, described: Option<&Described>) -> Self {
        let mut made = Making::new(service);
        if let Some(described) = described {
            made.merge(described);
        }
        made.add_routes();
        let (paths, listed) = made.finish();
        let openapi = root(service, described, paths);
        let resources = listed
            .iter()
            .filter(|op| !op.path.contains('{'))
            .filter(|op| op.route.and_then(|at| service.routes.get(at)).is_some_and(by_x402))
            .map(|op| op.path.clone());
        let mut resources: Vec<String> = resources.collect();
        resources.sort_unstable();
        resources.dedup();
        let title = openapi.pointer("/info/title").and_then(Value::as_str).unwrap_or_default();
        let llms = llms(service, title, &listed);
        Self { llms, resources, public_url: service.public_url.clone(), openapi }
    }

    /// `/openapi.json`.
    pub fn openapi(&self) -> String {
        self.openapi.to_string()
    }

    /// `/llms.txt`.
    pub fn llms(&self) -> &str {
        &self.llms
    }

    /// `/.well-known/x402`. `host` is where the reader found us, used where the seller named no public URL.
    pub fn well_known(&self, host: &str) -> String {
        let base = self.public_url.as_deref().unwrap_or(host);
        let resources: Vec<String> = self.resources.iter().map(|path| format!("{base}{path}")).collect();
        json!({
            "version": 1,
            "x402Version": 2,
            "kind": "resource-server",
            "resources": resources,
            "openapi": format!("{base}{OPENAPI_PATH}"),
        })
        .to_string()
    }
}

fn by_x402(route: &Route) -> bool {
    route.ways.iter().any(|way| way.dialects.iter().any(|dialect| dialect.x402().is_some()))
}

/// The paths of a document while they are put together.
struct Making<'a> {
    service: &'a Service,
    /// By shape, with the spelling of whoever was first.
    items: BTreeMap<String, (Vec<Segment>, Map<String, Value>)>,
    listed: Vec<Listed>,
    /// Of which routes the service behind describes something.
    seen: Vec<bool>,
}

impl<'a> Making<'a> {
    fn new(service: &'a Service) -> Self {
        Self { service, items: BTreeMap::new(), listed: Vec::new(), seen: vec![false; service.routes.len()] }
    }

    /// The route of an operation. Where a place in the path may also stand for another route's literal, that route has a
    /// path of its own, which readers try first.
    ///
    /// Spec: OpenAPI 3.1, "Path Templating Matching": concrete definitions are matched first.
    fn route_of(&self, method: &str, path: &[Segment]) -> Option<usize> {
        self.service
            .routes
            .iter()
            .position(|route| route.template.takes(method) && route.template.covers(path))
    }

    fn merge(&mut self, described: &Described) {
        for (path, item) in described.items() {
            for method in METHODS {
                let Some(operation) = item.get(method).and_then(Value::as_object) else { continue };
                let route = self.route_of(method, &path);
                match route.and_then(|at| self.service.routes.get(at)) {
                    Some(route) if !route.described => continue,
                    None if !self.service.unmatched_free => continue,
                    _ => {}
                }
                if let Some(seen) = route.and_then(|at| self.seen.get_mut(at)) {
                    *seen = true;
                }
                self.put(&path, method, operation.clone(), route);
                let kept = item
                    .iter()
                    .filter(|(key, _)| matches!(key.as_str(), "parameters" | "summary" | "description"));
                if let Some((_, item)) = self.items.get_mut(&shape(&path)) {
                    kept.for_each(|(key, value)| drop(item.insert(key.clone(), value.clone())));
                }
            }
        }
    }

    /// What no document of the service behind speaks of.
    fn add_routes(&mut self) {
        for (at, route) in self.service.routes.iter().enumerate() {
            let (template, free) = (&route.template, route.ways.is_empty());
            let seen = self.seen.get(at).copied().unwrap_or_default();
            // A star stands for what was described, where something was; and of what is free nobody has to be told more
            // than its name.
            if template.rest && (seen || free) {
                continue;
            }
            let path = template.path();
            if template.is_any_method() && seen && self.items.contains_key(&shape(&path)) {
                continue;
            }
            let listed = template.listed();
            let most = if free && template.is_any_method() { 1 } else { listed.len() };
            for method in listed.into_iter().take(most) {
                // Nothing more specific covers a path of its own by a method of its own. What is left open another route
                // may have.
                let own = !template.rest && !template.is_any_method();
                if self.has(&path, method) || (!own && self.route_of(method, &path) != Some(at)) {
                    continue;
                }
                self.put(&path, method, own_operation(route), Some(at));
                self.add_places(&path, method, template.rest);
            }
        }
    }

    fn has(&self, path: &[Segment], method: &str) -> bool {
        self.items.get(&shape(path)).is_some_and(|(_, item)| item.contains_key(method))
    }

    fn put(
        &mut self,
        path: &[Segment],
        method: &str,
        mut operation: Map<String, Value>,
        route: Option<usize>,
    ) {
        for key in [PAYMENT_INFO, X402_INFO, SERVICE_INFO, "servers"] {
            operation.remove(key);
        }
        let summary = ["summary", "description", "operationId"]
            .iter()
            .find_map(|key| operation.get(*key).and_then(Value::as_str))
            .map(|text| clean(text, MAX_LLMS_TEXT));
        if let Some(route) = route.and_then(|at| self.service.routes.get(at))
            && !route.ways.is_empty()
        {
            priced(&mut operation, route);
        }
        // Spec: OpenAPI 3.1: "responses" has at least one.
        let responses = operation.entry("responses").or_insert_with(|| json!({}));
        if responses.as_object().is_none_or(Map::is_empty) {
            *responses = json!({ "200": { "description": "Success" } });
        }
        let (spelling, item) = self.items.entry(shape(path)).or_insert_with(|| (path.to_vec(), Map::new()));
        let spelled = spell(spelling);
        if item.insert(method.to_owned(), Value::Object(operation)).is_none() {
            self.listed.push(Listed { method: method.to_ascii_uppercase(), path: spelled, summary, route });
        }
    }

    /// Says of each place in a path that it is one, by the name that it has there.
    fn add_places(&mut self, path: &[Segment], method: &str, rest: bool) {
        let Some((spelling, item)) = self.items.get_mut(&shape(path)) else { return };
        let own = |key: &str| item.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let known: Vec<Value> = own("parameters");
        let last = spelling.len().saturating_sub(1);
        let mut places = Vec::new();
        for (at, segment) in spelling.iter().enumerate() {
            let Segment::Place(name) = segment else { continue };
            if known.iter().any(|known| known["name"] == json!(name) && known["in"] == json!("path")) {
                continue;
            }
            let mut place =
                json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
            if rest && at == last {
                place["description"] = json!("Everything below; further segments may follow.");
            }
            places.push(place);
        }
        if !places.is_empty()
            && let Some(operation) = item.get_mut(method).and_then(Value::as_object_mut)
        {
            operation.insert("parameters".to_owned(), Value::Array(places));
        }
    }

    fn finish(self) -> (Map<String, Value>, Vec<Listed>) {
        let item = |(path, item): (Vec<Segment>, Map<String, Value>)| (spell(&path), Value::Object(item));
        (self.items.into_values().map(item).collect(), self.listed)
    }
}

/// An operation of which we know nothing but its price.
fn own_operation(route: &Route) -> Map<String, Value> {
    let mut operation = Map::new();
    if let Some(description) = &route.description {
        operation.insert("summary".to_owned(), json!(description));
    }
    let mut success = json!({ "description": "Success" });
    if let Some(mime) = &route.mime_type {
        success["content"] = json!({ mime.as_str(): {} });
    }
    operation.insert("responses".to_owned(), json!({ "200": success }));
    operation
}

/// Puts the price of its route onto an operation.
fn priced(operation: &mut Map<String, Value>, route: &Route) {
    if let Some(info) = payment_info(route) {
        operation.insert(PAYMENT_INFO.to_owned(), info);
    }
    let accepts: Vec<Value> = route.ways.iter().filter_map(x402_offer).collect();
    if !accepts.is_empty() {
        operation.insert(X402_INFO.to_owned(), json!({ "accepts": accepts }));
    }
    // Spec: draft-payment-discovery-00, "402 Response Declaration".
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if !responses.is_object() {
        *responses = json!({});
    }
    if let Some(responses) = responses.as_object_mut() {
        let description = "Payment Required: this answer says what it costs, whatever a document says";
        responses.insert("402".to_owned(), json!({ "description": description }));
    }
}

/// The price as the draft says it: an offer for each challenge of MPP. Where there is none but x402, the form that its
/// catalogues read.
///
/// Spec: draft-payment-discovery-00, "Payment Extension: x-payment-info".
fn payment_info(route: &Route) -> Option<Value> {
    let offers: Vec<Value> = route.ways.iter().flat_map(mpp_offers).collect();
    if !offers.is_empty() {
        return Some(json!({ "offers": offers }));
    }
    let way = route.ways.iter().find(|way| way.dollars.is_some() || way.atoms.is_none())?;
    Some(match &way.dollars {
        Some(dollars) => json!({ "protocols": ["x402"], "pricingMode": "fixed", "price": dollars }),
        None => json!({ "protocols": ["x402"], "pricingMode": "quote" }),
    })
}

fn mpp_offers(way: &Way) -> impl Iterator<Item = Value> {
    way.dialects.iter().filter_map(|dialect| dialect.intent().zip(dialect.method())).map(
        |(intent, method)| {
            json!({
                "intent": intent,
                "method": method,
                // Spec: `null` is a price that depends on the request.
                "amount": way.atoms.map(|atoms| atoms.to_string()),
                "currency": way.asset,
                "description": said(way),
            })
        },
    )
}

fn x402_offer(way: &Way) -> Option<Value> {
    let versions: Vec<u64> = way.dialects.iter().filter_map(|dialect| dialect.x402()).collect();
    if versions.is_empty() {
        return None;
    }
    let mut offer = json!({
        "x402Version": versions,
        "scheme": "exact",
        "network": way.network,
        "amount": way.atoms.map(|atoms| atoms.to_string()),
        "asset": way.asset,
    });
    if let Some(pay_to) = &way.pay_to {
        offer["payTo"] = json!(pay_to);
    }
    if let Some(secs) = way.max_timeout_secs {
        offer["maxTimeoutSeconds"] = json!(secs);
    }
    Some(offer)
}

/// `0.002 USDC on eip155:84532`, `0.0001 USDC per token on …`, `USDC on …; each request has its own price`.
fn said(way: &Way) -> String {
    let mut text = way.shown.clone();
    if let Some(per) = &way.per {
        text += &format!(" per {per}");
    }
    text += &format!(" on {}", way.network);
    if way.atoms.is_none() {
        text += "; each request has its own price";
    }
    text
}

/// The document around its paths.
fn root(service: &Service, described: Option<&Described>, paths: Map<String, Value>) -> Value {
    let mut root = described.map(|described| described.document.clone()).unwrap_or_default();
    for key in [PAYMENT_INFO, X402_INFO, SERVICE_INFO, "servers", "webhooks"] {
        root.remove(key);
    }
    root.entry("openapi").or_insert_with(|| json!("3.1.0"));
    let mut info = match root.remove("info") {
        Some(Value::Object(info)) => info,
        _ => Map::new(),
    };
    let host = || service.public_url.as_deref().and_then(|url| url.split_once("://")).map(|(_, host)| host);
    match &service.title {
        Some(title) => drop(info.insert("title".to_owned(), json!(title))),
        None if info.get("title").is_some_and(Value::is_string) => {}
        None => drop(info.insert("title".to_owned(), json!(host().unwrap_or("Priced API")))),
    }
    match &service.version {
        Some(version) => drop(info.insert("version".to_owned(), json!(version))),
        None if info.get("version").is_some_and(Value::is_string) => {}
        None => drop(info.insert("version".to_owned(), json!("1.0.0"))),
    }
    if let Some(description) = &service.description {
        info.insert("description".to_owned(), json!(description));
    }
    root.insert("info".to_owned(), Value::Object(info));
    if let Some(url) = &service.public_url {
        root.insert("servers".to_owned(), json!([{ "url": url }]));
    }
    root.insert(SERVICE_INFO.to_owned(), service_info(service));
    root.insert("paths".to_owned(), Value::Object(paths));
    Value::Object(root)
}

/// Spec: draft-payment-discovery-00, "Service Extension: x-service-info".
fn service_info(service: &Service) -> Value {
    let mut docs = Map::new();
    let links = [
        ("homepage", &service.docs.homepage),
        ("apiReference", &service.docs.api_reference),
        ("llms", &service.docs.llms),
    ];
    for (name, link) in links {
        if let Some(link) = link {
            docs.insert(name.to_owned(), json!(link));
        }
    }
    let mut info = Map::new();
    if !service.categories.is_empty() {
        info.insert("categories".to_owned(), json!(service.categories));
    }
    if !docs.is_empty() {
        info.insert("docs".to_owned(), Value::Object(docs));
    }
    Value::Object(info)
}

/// The page for models: what is here, what it costs, and how to pay.
fn llms(service: &Service, title: &str, listed: &[Listed]) -> String {
    let line = |text: &str| clean(text, MAX_LLMS_TEXT);
    let mut page = format!("# {}\n", line(title));
    if let Some(description) = &service.description {
        let _ = write!(page, "\n> {}\n", line(description));
    }
    page += "\nPaid by the request, without an account. An unpaid request is answered with 402, which says what it costs \
             and how to pay; that answer counts, and this page is only a hint.\n";
    if !listed.is_empty() {
        page += "\n## Operations\n\n";
    }
    for op in listed.iter().take(MAX_LLMS_OPERATIONS) {
        let ways = op.route.and_then(|at| service.routes.get(at)).map_or(&[][..], |route| &route.ways);
        let summary = op.summary.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        let _ = writeln!(page, "- `{} {}`{summary} ({})", op.method, op.path, prices(ways));
    }
    if let Some(more) = listed.len().checked_sub(MAX_LLMS_OPERATIONS).filter(|more| *more > 0) {
        let _ = writeln!(page, "- and {more} more in {OPENAPI_PATH}");
    }
    if let Some(tools) = &service.tools {
        let _ = write!(page, "\n## Tools\n\nOver the Model Context Protocol at `{}`.\n\n", tools.path);
        for tool in tools.tools.iter().take(MAX_LLMS_OPERATIONS) {
            let about = tool.description.as_ref().map(|text| format!(": {}", line(text))).unwrap_or_default();
            let _ = writeln!(page, "- `{}`{about} ({})", line(&tool.name), prices(&tool.ways));
        }
    }
    page += "\n## Links\n\n";
    let _ = writeln!(page, "- [OpenAPI]({OPENAPI_PATH}): every operation with its schema and its price");
    for (name, link) in [("Homepage", &service.docs.homepage), ("Reference", &service.docs.api_reference)] {
        if let Some(link) = link {
            let _ = writeln!(page, "- [{name}]({link})");
        }
    }
    page
}

fn prices(ways: &[Way]) -> String {
    if ways.is_empty() {
        return "free".to_owned();
    }
    let one = |way: &Way| {
        let dialects: Vec<&str> = way.dialects.iter().map(|dialect| Dialect::name(*dialect)).collect();
        match dialects.is_empty() {
            true => said(way),
            false => format!("{}, by {}", said(way), dialects.join(", ")),
        }
    };
    ways.iter().map(one).collect::<Vec<_>>().join(" or ")
}
