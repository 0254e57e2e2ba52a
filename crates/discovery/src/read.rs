//! Reading what strangers publish. Everything has a bound, texts lose what cannot be seen, and nobody speaks for another
//! origin than the one that the document came from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::text::clean;

/// The longest document that is read, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// How many operations of one seller are kept.
pub const MAX_OPERATIONS: usize = 500;
/// The longest name of a seller or an operation, in characters.
pub const MAX_TITLE: usize = 120;
/// The longest description, in characters.
pub const MAX_DESCRIPTION: usize = 500;
pub const MAX_TAGS: usize = 10;
pub const MAX_TAG: usize = 40;
/// How many parameters of one operation are kept.
pub const MAX_PARAMETERS: usize = 32;
/// The longest name of a parameter, in characters.
pub const MAX_NAME: usize = 64;
/// The longest example or enumerated value of a parameter, in characters.
pub const MAX_VALUE: usize = 200;
/// How many prices of one operation are kept.
pub const MAX_PRICES: usize = 16;
/// The longest path, in bytes.
pub const MAX_PATH: usize = 512;
/// How many links of an `llms.txt` are looked at.
pub const MAX_LINKS: usize = 200;
/// How many references a parameter may be away.
const MAX_HOPS: usize = 4;
/// The longest reference that is followed, in bytes: many parameters may go through one.
const MAX_REFERENCE: usize = 512;

/// A seller, as its documents describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seller {
    pub title: String,
    pub description: String,
    pub categories: Vec<String>,
    pub operations: Vec<Operation>,
    /// How much was left out, and why.
    pub left_out: LeftOut,
}

/// What of a document was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Operations beyond [`MAX_OPERATIONS`].
    pub too_many: usize,
    /// Operations and resources on other origins, for which nobody can speak but these.
    pub other_origin: usize,
    /// Operations that cannot be read.
    pub unreadable: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// In capitals.
    pub method: String,
    /// A path on the seller's own origin, with places as `{name}`.
    pub path: String,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub parameters: Vec<Parameter>,
    /// Whether the document says that it costs something.
    pub paid: bool,
    /// What the document says that it costs. A 402 may say something else, and is right.
    pub said: Vec<Said>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: String,
    pub place: Place,
    pub required: bool,
    pub number: bool,
    pub description: String,
    /// A value that the document itself names: an example, a default, or the first of an enumeration.
    pub example: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Path,
    Query,
}

/// A price in a document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// `mpp`, `x402`, or empty where the document names none.
    pub protocol: String,
    /// `charge` or `session`.
    pub intent: Option<String>,
    pub method: Option<String>,
    /// Digits, in the currency's smallest unit; absent where each request has its own price.
    pub atoms: Option<String>,
    pub currency: Option<String>,
    /// Plain decimals, where the document counts in dollars.
    pub dollars: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the document is longer than {MAX_DOCUMENT_BYTES} bytes")]
    TooLong,
    #[error("the document is not a JSON object, or nested too deeply")]
    NotJson,
    #[error("the document is not OpenAPI 3")]
    NotOpenApi3,
    #[error("the document names no resources")]
    NoResources,
    #[error("the page is not UTF-8")]
    NotUtf8,
    #[error("all that the document lists is on another origin: add that one")]
    OtherOrigin,
}

impl ReadError {
    /// A stable name for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "document_too_long",
            Self::NotJson => "not_json",
            Self::NotOpenApi3 => "not_openapi_3",
            Self::NoResources => "no_resources",
            Self::NotUtf8 => "not_utf8",
            Self::OtherOrigin => "other_origin",
        }
    }
}

fn json(bytes: &[u8]) -> Result<Map<String, Value>, ReadError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(ReadError::TooLong);
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(ReadError::NotJson),
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

const METHODS: [&str; 6] = ["get", "put", "post", "delete", "patch", "head"];

/// Reads an OpenAPI document that came from `at`.
///
/// Spec: draft-payment-discovery-00. Servers on other origins are not believed: a document speaks for its own.
///
/// # Errors
/// [`ReadError`].
pub fn openapi(bytes: &[u8], at: &Url) -> Result<Seller, ReadError> {
    let document = json(bytes)?;
    if !text(&document, "openapi").starts_with("3.") {
        return Err(ReadError::NotOpenApi3);
    }
    let none = Map::new();
    let info = document.get("info").and_then(Value::as_object).unwrap_or(&none);
    let mut seller = Seller {
        title: clean(text(info, "title"), MAX_TITLE),
        description: clean(text(info, "description"), MAX_DESCRIPTION),
        categories: document.get("x-service-info").map(|i| texts(i.get("categories"))).unwrap_or_default(),
        ..Seller::default()
    };
    let base = base_path(document.get("servers"), at);
    let paths = document.get("paths").and_then(Value::as_object).unwrap_or(&none);
    for (path, item) in paths {
        let Some(item) = item.as_object() else { continue };
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let server = operation.get("servers").or_else(|| item.get("servers"));
            let base = if server.is_some() { base_path(server, at) } else { base.clone() };
            let Some(base) = base else {
                seller.left_out.other_origin += 1;
                continue;
            };
            let read = operation.as_object().and_then(|operation| {
                let path = checked_path(&format!("{base}{path}"), at)?;
                Some(read_operation(&document, item, operation, method, path))
            });
            match read {
                Some(_) if seller.operations.len() == MAX_OPERATIONS => seller.left_out.too_many += 1,
                Some(read) => seller.operations.push(read),
                None => seller.left_out.unreadable += 1,
            }
        }
    }
    if seller.operations.is_empty() && seller.left_out.other_origin > 0 {
        return Err(ReadError::OtherOrigin);
    }
    Ok(seller)
}

/// The path that the first server puts before each operation's; `None` if it is on another origin, or too long for one.
fn base_path(servers: Option<&Value>, at: &Url) -> Option<String> {
    let url = servers.and_then(|all| all.get(0)).and_then(|server| server.get("url")).and_then(Value::as_str);
    let Some(url) = url else { return Some(String::new()) };
    // Each operation has it before its own.
    if url.len() > MAX_PATH {
        return None;
    }
    let url = at.join(url).ok()?;
    same_origin(&url, at).then(|| url.path().trim_end_matches('/').to_owned())
}

/// Whether two addresses are of one scheme, host and port.
pub fn same_origin(a: &Url, b: &Url) -> bool {
    a.host().is_some() && a.origin() == b.origin()
}

/// A path that leads to the document's own origin, whatever it is joined to, and holds no query.
fn checked_path(path: &str, at: &Url) -> Option<String> {
    let plain = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= MAX_PATH
        && !path.contains(['?', '#', '\\'])
        && path.chars().all(|c| !c.is_control() && !c.is_whitespace())
        && !has_dots(path);
    if !plain {
        return None;
    }
    let joined = at.join(path).ok()?;
    (same_origin(&joined, at) && clean(path, MAX_PATH) == path).then(|| path.to_owned())
}

/// Whether a path has a segment that every reader of URLs resolves, in whichever spelling.
///
/// Spec: WHATWG URL, "single-dot URL path segment" and "double-dot URL path segment".
pub(crate) fn has_dots(path: &str) -> bool {
    let is_dots = |segment: &str| {
        segment.len() <= "%2e%2e".len()
            && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
    };
    path.split(['/', '\\']).any(is_dots)
}

fn read_operation(
    document: &Map<String, Value>,
    item: &Map<String, Value>,
    operation: &Map<String, Value>,
    method: &str,
    path: String,
) -> Operation {
    let title = [text(operation, "summary"), text(item, "summary"), text(operation, "operationId")];
    let title = title.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let description = [text(operation, "description"), text(item, "description")];
    let description = description.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let mut parameters: Vec<Parameter> = Vec::new();
    // An operation's own parameters go before those of its path.
    for source in [operation, item] {
        let listed = source.get("parameters").and_then(Value::as_array);
        for listed in listed.into_iter().flatten().take(MAX_PARAMETERS) {
            let Some(read) = resolve(document, listed).and_then(|found| parameter(document, found)) else {
                continue;
            };
            let known = parameters.iter().any(|known| known.name == read.name && known.place == read.place);
            if !known && parameters.len() < MAX_PARAMETERS {
                parameters.push(read);
            }
        }
    }
    let said = prices(operation);
    let declared = operation.get("responses").is_some_and(|responses| responses.get("402").is_some());
    let priced = ["x-payment-info", "x-x402"].iter().any(|key| operation.contains_key(*key));
    Operation {
        method: method.to_ascii_uppercase(),
        path,
        title: clean(title, MAX_TITLE),
        description: clean(description, MAX_DESCRIPTION),
        tags: texts(operation.get("tags")),
        parameters,
        paid: priced || declared,
        said,
    }
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let all = list.and_then(Value::as_array);
    let texts = all.into_iter().flatten().filter_map(Value::as_str).map(|text| clean(text, MAX_TAG));
    texts.filter(|text| !text.is_empty()).take(MAX_TAGS).collect()
}

/// What a value says, or what it refers to within the same document. Another document is never asked for.
fn resolve<'a>(document: &'a Map<String, Value>, value: &'a Value) -> Option<&'a Map<String, Value>> {
    let mut found = value.as_object()?;
    for _ in 0..MAX_HOPS {
        let Some(reference) = found.get("$ref").and_then(Value::as_str) else { return Some(found) };
        if reference.len() > MAX_REFERENCE {
            return None;
        }
        let mut parts = reference.strip_prefix("#/")?.split('/');
        let unescaped = |part: &str| part.replace("~1", "/").replace("~0", "~");
        let mut at = document.get(&unescaped(parts.next()?))?;
        for part in parts {
            at = at.get(unescaped(part))?;
        }
        found = at.as_object()?;
    }
    None
}

fn parameter<'a>(document: &'a Map<String, Value>, found: &'a Map<String, Value>) -> Option<Parameter> {
    let place = match text(found, "in") {
        "path" => Place::Path,
        "query" => Place::Query,
        _ => return None,
    };
    let name = text(found, "name");
    // It stands in addresses, beside what we say ourselves: one word, and no sentence.
    let is_word = !name.is_empty() && is_short(name, MAX_NAME) && !name.contains(char::is_whitespace);
    if !is_word || clean(name, MAX_NAME) != name {
        return None;
    }
    let schema = found.get("schema").and_then(|schema| resolve(document, schema));
    let of_schema = |key: &str| schema.and_then(|schema| schema.get(key));
    let first = |value: &'a Value| value.as_array().and_then(|all| all.first());
    let named = |value: &'a Value| value.as_object()?.values().next()?.get("value");
    let example = found
        .get("example")
        .or_else(|| found.get("examples").and_then(named))
        .or_else(|| of_schema("example"))
        .or_else(|| of_schema("examples").and_then(first))
        .or_else(|| of_schema("default"))
        .or_else(|| of_schema("enum").and_then(first));
    let kind = of_schema("type");
    let is_number = |kind: &Value| kind == "number" || kind == "integer";
    Some(Parameter {
        name: name.to_owned(),
        place,
        required: place == Place::Path || found.get("required") == Some(&Value::Bool(true)),
        number: kind.is_some_and(|kind| {
            is_number(kind) || kind.as_array().is_some_and(|all| all.iter().any(is_number))
        }),
        description: clean(text(found, "description"), MAX_VALUE),
        example: example.and_then(scalar),
    })
}

/// Whether a text has at most so many characters; one that is far longer is not looked through.
fn is_short(text: &str, most: usize) -> bool {
    text.len() <= most * 4 && text.chars().count() <= most
}

/// A value as a URL could hold it.
fn scalar(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) if is_short(text, MAX_VALUE) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let fits = !text.is_empty() && is_short(&text, MAX_VALUE) && clean(&text, MAX_VALUE) == text;
    fits.then_some(text)
}

/// The prices of an operation, in the forms that are in use: the draft's `offers` and its flat shorthand, x402scan's
/// `protocols` with a price in dollars, and our own list of x402's offers.
fn prices(operation: &Map<String, Value>) -> Vec<Said> {
    let mut all = Vec::new();
    if let Some(info) = operation.get("x-payment-info").and_then(Value::as_object) {
        match info.get("offers") {
            // Spec: draft-payment-discovery-00: both forms MUST be accepted.
            Some(Value::Array(offers)) => {
                all.extend(offers.iter().filter_map(Value::as_object).filter_map(offer));
            }
            _ if info.contains_key("amount") || info.contains_key("intent") => all.extend(offer(info)),
            _ => all.extend(in_dollars(info)),
        }
    }
    let accepts = operation.get("x-x402").and_then(|info| info.get("accepts")).and_then(Value::as_array);
    for accept in accepts.into_iter().flatten().filter_map(Value::as_object) {
        all.push(Said {
            protocol: "x402".to_owned(),
            atoms: digits(accept.get("amount")),
            currency: short(accept.get("asset")),
            ..Said::default()
        });
    }
    all.truncate(MAX_PRICES);
    all
}

fn offer(info: &Map<String, Value>) -> Option<Said> {
    // An amount that is no amount is no price, and not a free one.
    if info.get("amount").is_some_and(|amount| !amount.is_null() && digits(Some(amount)).is_none()) {
        return None;
    }
    Some(Said {
        protocol: "mpp".to_owned(),
        intent: short(info.get("intent")),
        method: short(info.get("method")),
        atoms: digits(info.get("amount")),
        currency: short(info.get("currency")),
        dollars: None,
    })
}

/// x402scan's form, older (`price` and `pricingMode`) and newer (`price` with a mode and a currency).
fn in_dollars(info: &Map<String, Value>) -> Option<Said> {
    let (mode, price) = match info.get("price") {
        Some(Value::Object(price)) => {
            if !matches!(text(price, "currency"), "" | "USD" | "usd") {
                return None;
            }
            (price.get("mode"), price.get("amount"))
        }
        price => (info.get("pricingMode"), price),
    };
    let fixed = mode.and_then(Value::as_str).is_none_or(|mode| mode == "fixed");
    Some(Said {
        protocol: "x402".to_owned(),
        dollars: price.filter(|_| fixed).and_then(decimal),
        ..Said::default()
    })
}

/// Spec: draft-payment-discovery-00, "Payment Offer Object": digits without a leading zero.
fn digits(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?;
    let plain = text == "0" || !text.starts_with('0');
    let good = plain && (1..=78).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.to_owned())
}

fn decimal(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim_start_matches('$').to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let number = |part: &str| (1..=18).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    (number(whole) && number(fraction)).then_some(text.clone())
}

fn short(value: Option<&Value>) -> Option<String> {
    let text = clean(value?.as_str()?, MAX_TAG * 2);
    (!text.is_empty()).then_some(text)
}

/// Reads `/.well-known/x402`: the resources that a seller lists, each a GET of which nothing else is known.
///
/// # Errors
/// [`ReadError`].
pub fn well_known(bytes: &[u8], at: &Url) -> Result<Seller, ReadError> {
    let document = json(bytes)?;
    let Some(resources) = document.get("resources").and_then(Value::as_array) else {
        return Err(ReadError::NoResources);
    };
    let mut seller = Seller::default();
    for resource in resources {
        let url = match resource {
            Value::String(url) => Some(url.as_str()),
            Value::Object(map) => ["url", "resource"].iter().find_map(|key| map.get(*key)?.as_str()),
            _ => None,
        };
        // Some write the method before it.
        let url = url.map(|url| url.strip_prefix("GET ").unwrap_or(url));
        let Some(url) = url.filter(|url| url.len() <= MAX_PATH * 2).and_then(|url| at.join(url).ok()) else {
            seller.left_out.unreadable += 1;
            continue;
        };
        if !same_origin(&url, at) {
            seller.left_out.other_origin += 1;
            continue;
        }
        match checked_path(url.path(), at) {
            None => seller.left_out.unreadable += 1,
            Some(_) if seller.operations.len() == MAX_OPERATIONS => seller.left_out.too_many += 1,
            Some(path) => seller.operations.push(Operation {
                method: "GET".to_owned(),
                path,
                paid: true,
                ..Operation::default()
            }),
        }
    }
    if seller.operations.is_empty() {
        return Err(if seller.left_out.other_origin > 0 {
            ReadError::OtherOrigin
        } else {
            ReadError::NoResources
        });
    }
    Ok(seller)
}

/// What an `llms.txt` says of its site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub title: String,
    pub description: String,
    /// Links that may be OpenAPI documents, on the page's own origin.
    pub documents: Vec<Url>,
}

/// Reads an `llms.txt`: its heading, its quoted summary, and its links to OpenAPI documents.
///
/// # Errors
/// [`ReadError`].
pub fn llms(bytes: &[u8], at: &Url) -> Result<Page, ReadError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(ReadError::TooLong);
    }
    let all = std::str::from_utf8(bytes).map_err(|_| ReadError::NotUtf8)?;
    let heading = all.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    let quoted = all.lines().find_map(|line| line.strip_prefix("> ")).unwrap_or_default();
    let mut page = Page {
        title: clean(heading, MAX_TITLE),
        description: clean(quoted, MAX_DESCRIPTION),
        documents: Vec::new(),
    };
    for link in all.split("](").skip(1).take(MAX_LINKS) {
        let Some(target) = link.split(')').next().filter(|target| target.len() <= MAX_PATH) else { continue };
        let Ok(url) = at.join(target.trim()) else { continue };
        let names = url.path().to_ascii_lowercase();
        let is_document =
            names.ends_with(".json") && (names.contains("openapi") || names.contains("swagger"));
        if is_document && same_origin(&url, at) && !page.documents.contains(&url) {
            page.documents.push(url);
        }
    }
    Ok(page)
}

impl Seller {
    /// Adds what another document of the same seller says, where this one says nothing of it.
    pub fn merge(&mut self, other: Self) {
        for operation in other.operations {
            let known = |one: &Operation| one.method == operation.method && one.path == operation.path;
            if self.operations.iter().any(known) {
                continue;
            }
            if self.operations.len() == MAX_OPERATIONS {
                self.left_out.too_many += 1;
            } else {
                self.operations.push(operation);
            }
        }
        self.left_out.too_many += other.left_out.too_many;
        self.left_out.other_origin += other.left_out.other_origin;
        self.left_out.unreadable += other.left_out.unreadable;
    }
}
