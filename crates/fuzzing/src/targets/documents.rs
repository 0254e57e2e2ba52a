//! What strangers publish of what they sell, and what we publish over a service's own words. Everything that is read has
//! a bound, says nothing that cannot be seen, and leads nowhere but to its own origin; and what our document says of a
//! price is what the router says.

use std::collections::HashSet;
use std::sync::OnceLock;

use farthing_discovery::rank::{self, MAX_PER_SELLER, Query, fill, search};
use farthing_discovery::read::{self, Operation, Page, Place, ReadError, Seller};
use farthing_discovery::{Described, Dialect, Documents, Route, Service, Template, Way, clean};
use farthing_paywall::RouteTable;
use farthing_wire::{Json, Limits, json};
use http::Method;
use url::Url;

use super::is_short;
use crate::edit::edit;
use crate::input::Input;

const ORIGIN: &str = "https://api.example";

/// Routes and what they cost. Which of them a path has is easily read in two ways.
const ROUTES: &[(&str, u128)] = &[
    ("GET /paid/{id}", 1),
    ("GET|POST /paid/x", 2),
    ("/free/*", 0),
    ("GET /a/{b}/c", 3),
    ("/a/b/*", 4),
    ("POST /\u{e9}/\u{df}", 5),
    ("/A%2Fb", 6),
    ("GET /", 7),
];

/// Documents near which others are tried.
pub(crate) const TEMPLATES: &[&str] = &[
    r##"{"openapi":"3.1.0","info":{"title":"T","description":"D"},"servers":[{"url":"/v1"}],"x-service-info":{"categories":["c"]},
      "components":{"p":{"name":"q","in":"query","required":true,"schema":{"$ref":"#/components/s"}},"s":{"type":["integer"],"enum":[5,6]}},
      "paths":{"/paid/{id}":{"summary":"S","parameters":[{"name":"id","in":"path","example":"x"},{"$ref":"#/components/p"}],
      "get":{"tags":["t"],"x-payment-info":{"offers":[{"intent":"charge","method":"evm","amount":"1","currency":"usd"}]},"responses":{"402":{}}},
      "post":{"servers":[{"url":"https://api.example/"}],"x-payment-info":{"price":"$0.1","protocols":["x402"]}}}}}"##,
    r#"{"openapi":"3.0.3","paths":{"/a/b/c":{"get":{"operationId":"o"},"head":{}},"/A%2fb":{"put":{"x-x402":{"accepts":[{"amount":"9","asset":"a"}]}}},
      "/a/{x}/c":{"get":{"parameters":[{"name":"lat","in":"query"},{"name":"lon","in":"query"}]}},"/paid/{x}y":{"get":{}},"/free/{x}/y":{"get":{"responses":{"402":{}}}},"/":{"get":{}}}}"#,
    r#"{"version":1,"resources":["https://api.example/a","GET /b",{"url":"/c?d"},{"resource":"//api.example/e"},"http://127.0.0.1/"]}"#,
];

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let bytes = match how & 8 {
        0 => input.rest().to_vec(),
        _ => edit(input.pick(templates()).clone(), &mut input).to_string().into_bytes(),
    };
    match how % 8 {
        0 | 1 => seller(read::openapi(&bytes, at())),
        2 => seller(read::well_known(&bytes, at())),
        3 => page(read::llms(&bytes, at())),
        4 => cleaned(&String::from_utf8_lossy(&bytes)),
        which => merged(&bytes, which % 2 == 0),
    }
}

fn templates() -> &'static [Json] {
    static PARSED: OnceLock<Vec<Json>> = OnceLock::new();
    const ROOMY: Limits = Limits { bytes: 1 << 16, values: 1 << 12, members: 1 << 8 };
    let parse = |text: &&str| json::parse(text.as_bytes(), ROOMY).expect("JSON");
    PARSED.get_or_init(|| TEMPLATES.iter().map(parse).collect())
}

fn at() -> &'static Url {
    static AT: OnceLock<Url> = OnceLock::new();
    AT.get_or_init(|| format!("{ORIGIN}/openapi.json").parse().expect("a URL"))
}

/// In one line, of what can be seen, and no longer than it may be, but for the mark of a cut.
fn is_shown(text: &str, most: usize) {
    assert!(text.chars().count() <= most + 1, "{text:?} is longer than {most}");
    assert_eq!(clean(text, most + 1), text);
    assert!(!text.contains(|c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)), "{text:?}");
}

fn cleaned(text: &str) {
    for most in [0, 1, 7, 500] {
        is_shown(&clean(text, most), most);
    }
    let query = Query::parse(text);
    assert!(query.words.len() <= rank::MAX_QUERY_WORDS && query.words.iter().all(|word| !word.is_empty()));
}

fn seller(read: Result<Seller, ReadError>) {
    let seller = match read {
        Ok(seller) => seller,
        Err(error) => return is_short(&error),
    };
    is_shown(&seller.title, read::MAX_TITLE);
    is_shown(&seller.description, read::MAX_DESCRIPTION);
    are_tags(&seller.categories);
    assert!(seller.operations.len() <= read::MAX_OPERATIONS);
    seller.operations.iter().for_each(operation);
    // As it is kept.
    let kept = serde_json::to_vec(&seller).expect("printable");
    assert_eq!(serde_json::from_slice::<Seller>(&kept).expect("our own"), seller);
    let mut twice = seller.clone();
    twice.merge(seller.clone());
    assert_eq!(twice.operations, seller.operations);
    let title = seller.operations.first().map_or("", |operation| operation.title.as_str());
    let hits = search(&[&seller, &twice], &Query::parse(&format!("52.5,-1 {title}")));
    assert!(hits.len() <= 2 * MAX_PER_SELLER);
    assert!(hits.windows(2).all(|two| two[0].score >= two[1].score));
}

fn are_tags(tags: &[String]) {
    assert!(tags.len() <= read::MAX_TAGS);
    tags.iter().for_each(|tag| is_shown(tag, read::MAX_TAG));
}

fn operation(operation: &Operation) {
    is_shown(&operation.title, read::MAX_TITLE);
    is_shown(&operation.description, read::MAX_DESCRIPTION);
    are_tags(&operation.tags);
    assert!(operation.path.len() <= read::MAX_PATH && operation.parameters.len() <= read::MAX_PARAMETERS);
    leads(&operation.path);
    let mut seen = HashSet::new();
    for parameter in &operation.parameters {
        assert!(seen.insert((&parameter.name, parameter.place)), "{} is there twice", parameter.name);
        assert!(!parameter.name.is_empty() && !parameter.name.contains(char::is_whitespace));
        is_shown(&parameter.name, read::MAX_NAME);
        is_shown(&parameter.description, read::MAX_VALUE);
        parameter.example.iter().for_each(|example| is_shown(example, read::MAX_VALUE));
    }
    assert!(operation.said.len() <= read::MAX_PRICES);
    for atoms in operation.said.iter().filter_map(|said| said.atoms.as_deref()) {
        assert!(atoms == "0" || !atoms.starts_with('0') && atoms.bytes().all(|b| b.is_ascii_digit()));
    }
    for query in [Query::default(), Query::parse("52.5,-1.25")] {
        let filled = fill(operation, &query);
        if rank::url(at(), &filled.asked).is_some() {
            leads(&filled.asked);
        }
        is_shown(&filled.shown, usize::MAX / 8 - 1);
        assert!(!filled.shown.contains(char::is_whitespace) && !filled.asked.contains(char::is_whitespace));
        if filled.took_pair {
            assert!(filled.asked.contains("52.5") && filled.asked.contains("-1.25"));
        }
        // What is asked differs from what is shown in what is open alone.
        assert_eq!(filled.open.is_empty(), filled.shown == filled.asked);
        let names: HashSet<(&str, Place)> =
            operation.parameters.iter().map(|p| (&*p.name, p.place)).collect();
        let named = |open: &String| {
            names.contains(&(open, Place::Query)) || operation.path.contains(&format!("{{{open}}}"))
        };
        assert!(filled.open.iter().all(named));
    }
}

/// A path is that path on its own origin, segment by segment, whoever joins it.
fn leads(path: &str) {
    let url = rank::url(at(), path).expect("an address");
    assert_eq!(url.origin().ascii_serialization(), ORIGIN, "{path:?}");
    let before = path.split('?').next().unwrap_or_default();
    assert_eq!(url.path().split('/').count(), before.split('/').count(), "{path:?} is {url}");
    assert!(url.fragment().is_none() && url.query().is_some() == path.contains('?'));
}

fn page(read: Result<Page, ReadError>) {
    match read {
        Ok(page) => {
            is_shown(&page.title, read::MAX_TITLE);
            is_shown(&page.description, read::MAX_DESCRIPTION);
            assert!(page.documents.len() <= read::MAX_LINKS);
            assert!(page.documents.iter().all(|url| read::same_origin(url, at())));
        }
        Err(error) => is_short(&error),
    }
}

/// A router, and its routes as they are described, in the order in which they are matched.
type Sold = (RouteTable<(String, u128)>, Vec<Route>);

fn sold() -> &'static Sold {
    static SOLD: OnceLock<Sold> = OnceLock::new();
    SOLD.get_or_init(|| {
        let listed = ROUTES
            .iter()
            .map(|(text, atoms)| (text.parse().expect("a pattern"), ((*text).to_owned(), *atoms)));
        let table = RouteTable::new(listed.collect()).expect("a table");
        let route = |(written, atoms): &(String, u128)| Route {
            template: Template::parse(written).expect("a template"),
            description: None,
            mime_type: None,
            ways: (*atoms > 0).then(|| way(*atoms)).into_iter().collect(),
            described: true,
        };
        let routes = table.iter().map(|(_, listed)| route(listed)).collect();
        (table, routes)
    })
}

fn way(atoms: u128) -> Way {
    Way {
        network: "eip155:84532".to_owned(),
        asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".to_owned(),
        atoms: Some(atoms),
        shown: format!("{atoms} atoms"),
        dollars: None,
        per: None,
        pay_to: None,
        max_timeout_secs: None,
        dialects: vec![Dialect::X402V2, Dialect::MppCharge],
    }
}

/// Whatever the service behind says of itself: our document over it is one that we read, and says of each operation what
/// its route costs.
fn merged(bytes: &[u8], unmatched_free: bool) {
    let described = match Described::parse(bytes, "/v1") {
        Ok(described) => described,
        Err(error) => return is_short(&error),
    };
    let (table, routes) = sold();
    let public_url = Some(ORIGIN.to_owned());
    let service = Service { routes: routes.clone(), public_url, unmatched_free, ..Service::default() };
    let made = Documents::make(&service, Some(&described));
    assert!(made.llms().chars().all(|c| c == '\n' || !c.is_control()));
    let listed = made.well_known("");
    assert_eq!(listed, made.well_known("https://other.example"));
    seller(read::well_known(listed.as_bytes(), at()));
    let document = made.openapi();
    let ours = read::openapi(document.as_bytes(), at()).expect("our own document");
    for operation in &ours.operations {
        let method: Method = operation.method.parse().expect("a method");
        // Whatever stands in a place.
        let (mut path, mut rest) = (String::new(), operation.path.as_str());
        while let Some((before, _, after)) = places(rest) {
            path.extend([before, "zzqq"]);
            rest = after;
        }
        path.push_str(rest);
        let Ok(found) = table.find(&method, &path) else { continue };
        let price = found.route.map(|(_, (_, atoms))| *atoms).filter(|atoms| *atoms > 0);
        assert!(found.route.is_some() || unmatched_free, "{path} is nobody's");
        let said: HashSet<Option<&str>> = operation.said.iter().map(|said| said.atoms.as_deref()).collect();
        let expected = price.map(|atoms| atoms.to_string());
        assert_eq!(
            said,
            expected.iter().map(|atoms| Some(atoms.as_str())).collect(),
            "{method} {path}: {document}"
        );
    }
    seller(Ok(ours));
}

/// What is before the next place of a path, what it is, and what is after it.
fn places(path: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = path.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}
