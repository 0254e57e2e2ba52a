//! What programs and sellers say to the forward proxy, and what sellers say to a model. A request goes where it says and
//! nowhere else, what belongs to one connection ends there, and what a counterparty wrote stays inside its fence.

use std::net::{IpAddr, Ipv4Addr};

use farthing_mcp::{MAX_UNTRUSTED_NOTE_BYTES, Untrusted};
use farthing_policy::{Host, MAX_NAMES, Names, Origin};
use farthing_primitives::{Address, Network};
use farthing_proxy::Credentials;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Uri};
use url::Url;

use super::is_short;
use crate::input::Input;
use crate::proxy_headers::{likeness, of_answer, of_request, pays_itself};
use crate::proxy_target::{absolute, authority, names, within};

const FENCE: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 8 {
        0 | 1 => whole(input.rest()),
        2 => connect(input.rest()),
        3 => inside(&mut input),
        4 | 5 => headers(&mut input),
        6 => credentials(input.rest()),
        _ => untrusted(&mut input),
    }
}

fn uri(bytes: &[u8]) -> Option<Uri> {
    Uri::try_from(bytes).ok()
}

/// A request for a whole address.
fn whole(bytes: &[u8]) {
    let Some(uri) = uri(bytes) else { return };
    let url = match absolute(&uri) {
        Ok(url) => url,
        Err(problem) => return is_short(&problem),
    };
    assert!(["http", "https"].contains(&url.scheme()));
    let again: Uri = url.as_str().parse().expect("a URL is an address");
    assert_eq!(absolute(&again).as_ref(), Ok(&url), "one address, read twice");
    if let Ok(origin) = Origin::of(&url) {
        // Two readers of the address see the same host and port.
        let named = uri.authority().expect("whole").clone();
        if !named.as_str().contains('@') {
            let host: Host = named.host().parse().unwrap_or_else(|e| panic!("{e}: {url} of {uri}"));
            assert_eq!(host, origin.host, "{url} of {uri}");
            let default = if origin.tls { 443 } else { 80 };
            assert_eq!(named.port_u16().unwrap_or(default), origin.port, "{url} of {uri}");
        }
        assert_eq!(origin.tls, uri.scheme_str() == Some("https"));
        assert!(names(&origin, &origin.authority()), "{origin} is not named by itself");
    }
}

/// Where a CONNECT leads.
fn connect(bytes: &[u8]) {
    let Some(uri) = uri(bytes) else { return };
    let origin = match authority(&uri) {
        Ok(origin) => origin,
        Err(problem) => return is_short(&problem),
    };
    assert!(origin.tls && origin.port != 0);
    let again: Uri = origin.authority().parse().expect("an authority");
    assert_eq!(authority(&again).as_ref(), Ok(&origin));
    assert!(names(&origin, &origin.authority()));
    let elsewhere = Origin { port: origin.port ^ 1, ..origin.clone() };
    assert!(!names(&elsewhere, &origin.authority()));
}

/// A request within a CONNECT, and the `Host` that it names.
fn inside(input: &mut Input<'_>) {
    let text: &&str = input.pick(&["a.example:443", "a.example:8443", "[::1]:443", "127.0.0.1:443"]);
    let origin = authority(&text.parse().expect("an authority")).expect("an origin");
    let host = input.text();
    if names(&origin, &host) {
        let url: Url = format!("https://{host}/").parse().expect("a URL");
        assert_eq!(Origin::of(&url).as_ref(), Ok(&origin));
        assert!(!host.contains(['/', '@', '?', '#', '\\']), "{host:?}");
    }
    let Some(uri) = uri(input.rest()) else { return };
    match within(&origin, &uri) {
        Ok(url) => {
            assert_eq!(Origin::of(&url).as_ref(), Ok(&origin), "{uri} leads to {url}");
            let again: Uri = url.as_str().parse().expect("a URL is an address");
            assert_eq!(within(&origin, &again).as_ref(), Ok(&url));
        }
        Err(problem) => is_short(&problem),
    }
}

const NAMES: &[&str] = &[
    "connection",
    "Connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
    "proxy-authenticate",
    "host",
    "content-length",
    "expect",
    "via",
    "farthing-purchase",
    "farthing-denied",
    "payment-signature",
    "x-payment",
    "authorization",
    "x-mine",
    "accept",
    "accept-encoding",
    "content-type",
];
const VALUES: &[&str] =
    &["close", "x-mine, payment-signature", "Payment id=1", "Bearer x", " , ,x-mine,\t accept", "host", "1"];

/// Headers as they cross, in both directions.
fn headers(input: &mut Input<'_>) {
    let mut sent = HeaderMap::new();
    while !input.is_empty() {
        let name = match input.byte() % 4 {
            0 => HeaderName::from_bytes(input.blob()).ok(),
            _ => HeaderName::from_bytes(input.pick(NAMES).as_bytes()).ok(),
        };
        let value = match input.byte() % 4 {
            0 => HeaderValue::from_bytes(input.blob()).ok(),
            _ => HeaderValue::from_str(input.pick::<&str>(VALUES)).ok(),
        };
        if let (Some(name), Some(value)) = (name, value) {
            sent.append(name, value);
        }
    }
    let named: Vec<HeaderName> = sent
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    alike(&sent);
    let pays = pays_itself(&sent);
    for (is_request, cross) in [(true, of_request as fn(&mut HeaderMap)), (false, of_answer)] {
        let mut crossed = sent.clone();
        cross(&mut crossed);
        for name in crossed.keys().filter(|name| **name != header::VIA) {
            assert!(!named.contains(name), "{name} belongs to the connection");
            let ended =
                ["connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade"];
            assert!(!ended.contains(&name.as_str()) && !name.as_str().starts_with("proxy-auth"), "{name}");
            assert!(!name.as_str().starts_with("farthing-"), "{name} is ours to say");
            assert!(!is_request || !["host", "content-length", "expect"].contains(&name.as_str()), "{name}");
        }
        // What crosses crosses whole, in its order, and nothing is added but that we were there.
        for name in crossed.keys().filter(|name| **name != header::VIA) {
            assert!(crossed.get_all(name).iter().eq(sent.get_all(name).iter()));
        }
        let vias = crossed.get_all(header::VIA).iter().count();
        let before = if named.contains(&header::VIA) { 0 } else { sent.get_all(header::VIA).iter().count() };
        assert_eq!(vias, before + 1);
        let mut twice = crossed.clone();
        cross(&mut twice);
        twice.remove(header::VIA);
        crossed.remove(header::VIA);
        assert_eq!(twice, crossed);
        assert!(pays || !pays_itself(&crossed), "a payment out of nothing");
    }
}

/// Programs share what was bought if they ask alike: whatever else they say, and in whatever order they say it.
fn alike(sent: &HeaderMap) {
    const DIFFER: [HeaderName; 6] = [
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::ACCEPT_LANGUAGE,
        header::AUTHORIZATION,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
    ];
    let like = likeness(sent);
    let mut less = HeaderMap::new();
    for name in DIFFER.iter().rev() {
        for value in sent.get_all(name) {
            less.append(name, value.clone());
        }
    }
    assert_eq!(likeness(&less), like, "{sent:?}");
    for (at, name) in DIFFER.iter().enumerate() {
        let mut more = less.clone();
        more.append(name, HeaderValue::from_static(""));
        assert_ne!(likeness(&more), like, "{name} of {sent:?}");
        let Some(value) = less.get(name).cloned() else { continue };
        let mut moved = less.clone();
        moved.remove(name);
        assert_ne!(likeness(&moved), like, "{name} of {sent:?}");
        moved.append(&DIFFER[(at + 1) % DIFFER.len()], value);
        assert_ne!(likeness(&moved), like, "{name} of {sent:?}");
    }
}

fn credentials(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut request = Request::new(());
    request.headers_mut().append(header::PROXY_AUTHORIZATION, value);
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match Credentials::read(request.headers(), peer) {
        Ok(who) => {
            let basic = who.basic.as_ref().expect("what is shown is read or refused");
            use base64::Engine;
            let engine = base64::engine::general_purpose::STANDARD;
            let again = format!("Basic {}", engine.encode(format!("{}:{}", basic.name, *basic.token)));
            let mut headers = HeaderMap::new();
            headers.append(header::PROXY_AUTHORIZATION, again.parse().expect("plain"));
            let again = Credentials::read(&headers, peer).expect("our own").basic.expect("shown");
            assert!(again.name == basic.name && *again.token == *basic.token && !basic.name.contains(':'));
            let shown = format!("{who:?}").contains(&format!("{:?}", *basic.token));
            assert!(basic.token.len() < 4 || *basic.token == basic.name || !shown, "a token is printed");
            let value = request.headers()[header::PROXY_AUTHORIZATION].clone();
            request.headers_mut().append(header::PROXY_AUTHORIZATION, value);
            assert!(Credentials::read(request.headers(), peer).is_err(), "two of them");
        }
        Err(refusal) => is_short(&refusal),
    }
}

/// What a counterparty wrote, as a model gets it.
fn untrusted(input: &mut Input<'_>) {
    let (note, from) = (input.flag(), usize::from(input.u16()));
    let bytes = input.rest();
    named(&String::from_utf8_lossy(bytes));
    let shown = match note {
        true => Untrusted::note("a.example:443", "reason", &String::from_utf8_lossy(bytes)),
        false => Untrusted::body("a.example:443", bytes.to_vec().into(), from),
    };
    let content = serde_json::to_value(shown.to_content(FENCE)).expect("printable");
    let text = content["text"].as_str().expect("text");
    let (head, rest) = text.split_once(&format!("\n----- begin {FENCE} -----\n")).expect("a fence");
    let inside = rest.strip_suffix(&format!("\n----- end {FENCE} -----")).expect("a fence");
    assert!(head.starts_with("UNTRUSTED DATA") && !head.contains('\n'));
    let is_hidden = |c: char| {
        (c.is_control() && !['\n', '\t', '\r'].contains(&c))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
    };
    assert!(!inside.contains(is_hidden), "{inside:?}");
    // Ten characters at most for one byte that is written out.
    assert!(inside.len() <= 10 * shown.bytes.len().max(1) + 4);
    assert!(!note || inside.len() <= 10 * MAX_UNTRUSTED_NOTE_BYTES);
    if let Some(next) = shown.next_offset() {
        assert!(next > from.min(shown.bytes.len()) && next < shown.bytes.len());
    }
    let meta = &content["_meta"];
    assert_eq!(meta["farthing/untrusted"], true);
    assert_eq!(meta["farthing/total_bytes"], shown.bytes.len());
}

/// Whom a text names: what stands in it is found, however it is written and whatever stands before it.
fn named(text: &str) {
    const HOST: &str = "shop.example";
    const PAYEE: &str = "0x0202020202020202020202020202020202020202";
    let plain = format!("{text} https://{HOST}/x {PAYEE} ");
    let unseen = plain.replace("shop", "sh\u{200b}op").replace("0x02", "0x02\u{feff}");
    let quoted = serde_json::to_string(&plain).expect("printable");
    let host: Host = HOST.parse().expect("a host");
    let payee = Address::parse(&Network::eip155(1), PAYEE).expect("an address");
    for written in [plain, unseen, quoted] {
        let names = Names::of(&written);
        assert_eq!(names, Names::of(&written));
        assert!(names.hosts.len() + names.payees.len() <= MAX_NAMES + 1);
        assert!(
            names.is_cut() || (names.hosts.contains(&host) && names.payees.contains(&payee)),
            "missed in {written:?}"
        );
    }
}
