//! Request paths: what any server behind us takes for one resource has one price. And the headers of one connection.
//!
//! A gateway is bypassed where it reads a path otherwise than what stands behind it. So each path that the router lets
//! through is read in all the ways in which servers are known to read paths, by code that shares nothing with the
//! router, and each reading, asked for plainly, must lead to the same route.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use farthing_paywall::{MAX_PATH_LEN, MAX_SEGMENTS, Pattern, RequestPath, RouteTable, strip_hop_by_hop};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::is_short;
use crate::input::Input;

/// Tables in which a wrong reading leads to another price.
const TABLES: &[&[&str]] = &[
    &["GET /paid/x", "GET /free/*"],
    &["* /*", "GET /paid/{id}", "GET /paid/x/y", "POST /a/b/*", "/a"],
    &["GET /a/{x}/c", "GET /a/b/*", "GET|POST /\u{e9}/\u{df}", "/A%2Fb", "/x", "GET /x/{a}/*"],
    &["/paid/*", "/*"],
];

const HEADERS: &[&str] = &[
    "connection",
    "connection",
    "te",
    "upgrade",
    "transfer-encoding",
    "content-length",
    "host",
    "accept",
    "payment-signature",
    "proxy-authorization",
    "keep-alive",
    "",
];

const METHODS: &[&str] = &["GET", "POST", "HEAD", "PUT", "get", "M-SEARCH"];

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.byte();
    match which % 8 {
        7 => return pattern(&mut input),
        6 => return hop_by_hop(&mut input),
        _ => {}
    }
    let table = &tables()[usize::from(which) % TABLES.len()];
    let method: Method = input.pick(METHODS).parse().expect("a method");
    let Ok(raw) = std::str::from_utf8(input.rest()) else { return };
    canonical(raw);
    let found = match table.find(&method, raw) {
        Ok(found) => found,
        Err(error) => return is_short(&error),
    };
    let route = found.route.map(|(_, at)| *at);
    let sent = found.path.canonical();
    for segments in readings(&sent) {
        let spelled: String = segments
            .iter()
            .flat_map(|s| ["/".to_owned(), utf8_percent_encode(s, NON_ALPHANUMERIC).to_string()])
            .collect();
        let spelled = if spelled.is_empty() { "/".to_owned() } else { spelled };
        if let Ok(other) = table.find(&method, &spelled) {
            let other = other.route.map(|(_, at)| *at);
            assert_eq!(route, other, "{raw:?} is sent as {sent:?}, which somebody reads as {spelled:?}");
        }
    }
}

fn tables() -> &'static [RouteTable<usize>] {
    static PARSED: OnceLock<Vec<RouteTable<usize>>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let parse = |patterns: &&[&str]| {
            let routes = patterns.iter().enumerate().map(|(at, text)| (text.parse().expect(text), at));
            RouteTable::new(routes.collect()).expect("a table")
        };
        TABLES.iter().map(parse).collect()
    })
}

/// What is sent upstream is read there as it was read here.
fn canonical(raw: &str) {
    match RequestPath::parse(raw) {
        Ok(path) => {
            assert!(raw.len() <= MAX_PATH_LEN && path.segments().len() <= MAX_SEGMENTS);
            let sent = path.canonical();
            let printable = |b: u8| b.is_ascii_graphic() && !b"\"#<>?[\\]^`{|}".contains(&b);
            assert!(sent.starts_with('/') && sent.bytes().all(printable) && !sent.contains("//"), "{sent:?}");
            assert!(sent.len() <= 3 * raw.len());
            if sent.len() <= MAX_PATH_LEN {
                let again = RequestPath::parse(&sent).expect("our own");
                assert_eq!(again, path);
                assert_eq!(again.canonical(), sent);
            }
            if let Err(error) = path.readings() {
                is_short(&error);
            }
        }
        Err(error) => is_short(&error),
    }
}

/// A pattern's normal form, which names the route in seals, is read as the same pattern.
fn pattern(input: &mut Input<'_>) {
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    match text.parse::<Pattern>() {
        Ok(pattern) => {
            let named = pattern.to_string();
            let again = named.parse::<Pattern>().expect("our own pattern");
            assert_eq!(again.to_string(), named, "{text:?}");
            assert_eq!(again, pattern, "{text:?}");
            // And no table holds two routes of one name.
            assert!(RouteTable::new(vec![(pattern, 0), (again, 1)]).is_err());
        }
        Err(error) => is_short(&error),
    }
}

/// What belongs to one connection goes no further, whatever a stranger lists there; all else stays as it is.
///
/// Spec: RFC 9110 section 7.6.1.
fn hop_by_hop(input: &mut Input<'_>) {
    let mut headers = HeaderMap::new();
    while !input.is_empty() {
        let name = match *input.pick(HEADERS) {
            "" => HeaderName::from_bytes(input.blob()).ok(),
            known => Some(HeaderName::from_static(known)),
        };
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_bytes(input.blob())) {
            headers.append(name, value);
        }
    }
    let before = headers.clone();
    strip_hop_by_hop(&mut headers);
    for gone in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "proxy-authorization",
    ] {
        assert!(!headers.contains_key(gone), "{gone} goes on");
    }
    let named = |name: &HeaderName| {
        let values = before.get_all("connection").into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(name.as_str()))
    };
    for name in before.keys() {
        // Where a message ends and goes is not a stranger's to take out.
        if ["content-length", "host"].contains(&name.as_str()) {
            assert!(headers.get_all(name).iter().eq(before.get_all(name).iter()), "{name} is changed");
        } else if name != "te" && named(name) {
            assert!(!headers.contains_key(name), "{name} goes on although it is the connection's own");
        }
    }
    for name in headers.keys().filter(|name| *name != "te") {
        assert!(headers.get_all(name).iter().eq(before.get_all(name).iter()), "{name} is changed");
    }
    let once = headers.clone();
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers, once);
}

/// All the ways in which servers are known to read a path.
fn readings(sent: &str) -> BTreeSet<Vec<String>> {
    let mut all = BTreeSet::new();
    for choice in 0..1 << 7 {
        let on = |bit: u32| choice >> bit & 1 == 1;
        let decode_times = 1 + usize::from(on(0)) + usize::from(on(1));
        let mut path = sent.to_owned();
        if on(2) {
            path = path
                .split('/')
                .map(|segment| segment.split(';').next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join("/");
        }
        let mut segments: Vec<String> = if on(3) {
            // Takes the path apart first, then decodes.
            path.split('/').map(|segment| decoded(segment, decode_times)).collect()
        } else {
            decoded(&path, decode_times).split('/').map(str::to_owned).collect()
        };
        if on(4) {
            // A rewriting server looks for the query after it has decoded.
            let whole = segments.join("/");
            let cut = whole.split(['?', '#']).next().unwrap_or_default();
            segments = cut.split('/').map(str::to_owned).collect();
        }
        if on(5) {
            for segment in &mut segments {
                let bare = segment.split(';').next().unwrap_or_default();
                *segment = bare.replace('\\', "/");
            }
            segments = segments.join("/").split('/').map(str::to_owned).collect();
        }
        if on(6) {
            segments = resolved(segments);
        }
        segments.retain(|segment| !segment.is_empty());
        all.insert(segments);
    }
    all
}

fn decoded(text: &str, times: usize) -> String {
    (0..times).fold(text.to_owned(), |text, _| percent_decode_str(&text).decode_utf8_lossy().into_owned())
}

/// Spec: RFC 3986 section 5.2.4.
fn resolved(segments: Vec<String>) -> Vec<String> {
    let mut out = Vec::new();
    for segment in segments {
        match segment.as_str() {
            "." => {}
            ".." => {
                out.pop();
            }
            _ => out.push(segment),
        }
    }
    out
}
