//! Short texts with a meaning: amounts, addresses, networks, ids, hosts, origins, and the configuration's TOML.
//! The first byte chooses which.

use std::net::IpAddr;
use std::str::FromStr;

use alloy_primitives::U256;
use farthing_policy::{Dollars, Host, HostPattern, Origin, is_public};
use farthing_primitives::{
    Address, Asset, AssetId, AttemptId, Network, PaymentId, PullMethod, PurchaseId, RefundId, SlotId,
    TenantId, parse_atoms,
};
use farthing_wire::Uint256;
use farthing_wire::x402::error_code::MAX_CODE_BYTES;
use farthing_wire::x402::extensions::payment_id;
use farthing_wire::x402::{ErrorCode, WireAddress};
use url::Url;

use super::is_short;
use crate::document::{self, Node, Place, Value};
use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.byte();
    let more = if which % 12 == 2 { input.byte() } else { 0 };
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    match which % 12 {
        0 => atoms(text),
        1 => uint256(text),
        2 => decimals(text, more % 37),
        3 => dollars(text),
        4 => networks(text),
        5 => addresses(text),
        6 => ids(text),
        7 => host(text),
        8 => pattern(text),
        9 => origin(text),
        10 => codes(text),
        _ => toml(text),
    }
}

/// One number has one spelling.
fn atoms(text: &str) {
    let read = parse_atoms(text);
    let expected = text.parse::<u128>().ok().filter(|n| n.to_string() == text);
    assert_eq!(read.ok(), expected, "{text:?}");
}

fn uint256(text: &str) {
    let read = text.parse::<Uint256>();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let theirs =
        digits.then(|| U256::from_str_radix(text, 10).ok()).flatten().filter(|n| n.to_string() == text);
    assert_eq!(read.ok().map(Uint256::to_be_bytes), theirs.map(|n| n.to_be_bytes::<32>()), "{text:?}");
    if let Ok(number) = read {
        assert_eq!(number.to_string(), text);
        assert_eq!(number.to_u128(), text.parse().ok());
        assert_eq!(number.saturating_secs(), text.parse().unwrap_or(u64::MAX));
    }
}

fn asset(decimals: u8) -> Asset {
    let id = AssetId::new(Network::eip155(1), Address::from_evm_bytes([1; 20]));
    Asset { id, symbol: "X".into(), decimals, pull: PullMethod::Permit2, domain: None }
}

/// Nothing is rounded: an amount prints as it was read, zeros behind the last digit aside.
fn decimals(text: &str, decimals: u8) {
    let asset = asset(decimals);
    match asset.parse(text) {
        Ok(money) => {
            let printed = asset.format(money.atoms());
            assert_eq!(asset.parse(&printed).map(|m| m.atoms()), Ok(money.atoms()));
            assert_eq!(printed, plain(text), "{text:?} with {decimals} decimals");
        }
        Err(error) => is_short(&error),
    }
}

fn plain(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn dollars(text: &str) {
    match Dollars::parse(text) {
        Ok(read) => {
            assert_eq!(Dollars::parse(&read.to_string()), Ok(read));
            assert_eq!(read.plain(), plain(text.strip_prefix('$').unwrap_or(text)));
        }
        Err(error) => is_short(&error),
    }
    // The same digits mean the same through an asset of as many decimals.
    let bare = text.strip_prefix('$').unwrap_or(text);
    let (ours, same) = (Dollars::parse(text).ok(), asset(18).parse(bare).ok());
    assert_eq!(ours.map(|dollars| dollars.0), same.map(|money| money.atoms()), "{text:?}");
}

fn networks(text: &str) {
    match text.parse::<Network>() {
        Ok(network) => {
            assert_eq!(network.as_str(), text);
            assert_eq!(format!("{}:{}", network.namespace(), network.reference()), text);
            assert_eq!(Network::from_name(text).as_ref(), Ok(&network));
            if let Some(id) = network.evm_chain_id() {
                assert_eq!(Network::eip155(id), network);
            }
            if let Some(name) = network.v1_name() {
                assert_eq!(Network::from_v1_name(name), Ok(network));
            }
        }
        Err(error) => is_short(&error),
    }
    if let Ok(network) = Network::from_v1_name(text) {
        assert_eq!(network.v1_name(), Some(text));
    }
    match text.parse::<AssetId>() {
        Ok(asset) => {
            assert_eq!(asset.to_string().parse().as_ref(), Ok(&asset));
            assert!(asset.to_string().eq_ignore_ascii_case(text), "{asset} of {text:?}");
        }
        Err(error) => is_short(&error),
    }
}

fn addresses(text: &str) {
    for network in [Network::eip155(1), "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp".parse().expect("a network")]
    {
        match Address::parse(&network, text) {
            Ok(address) => {
                assert_eq!(Address::parse(&network, address.as_str()).as_ref(), Ok(&address));
                if network.namespace() == "eip155" {
                    let bytes = address.evm_bytes().expect("an EVM address");
                    assert_eq!(Address::from_evm_bytes(bytes), address);
                    let theirs = alloy_primitives::Address::from_str(text).expect("others read it too");
                    assert_eq!(theirs.into_array(), bytes);
                    let checksummed = farthing_evm::eip55(theirs);
                    assert_eq!(Address::evm(&checksummed).as_ref(), Ok(&address));
                } else {
                    assert_eq!(address.as_str(), text);
                }
                let wire = WireAddress::parse(&network, text).expect("the same rules");
                assert_eq!((wire.as_str(), wire.address()), (text, &address));
            }
            Err(error) => is_short(&error),
        }
    }
}

fn ids(text: &str) {
    // One id has one spelling, and one kind.
    let mut kinds = 0;
    macro_rules! id {
        ($($kind:ty),*) => {$(
            match text.parse::<$kind>() {
                Ok(id) => {
                    assert_eq!(id.to_string(), text);
                    assert_eq!(<$kind>::from_bytes(id.to_bytes()), id);
                    kinds += 1;
                }
                Err(error) => is_short(&error),
            }
        )*};
    }
    id!(PaymentId, AttemptId, SlotId, RefundId, PurchaseId);
    assert!(kinds <= 1);
    match text.parse::<TenantId>() {
        Ok(tenant) => assert_eq!(tenant.as_str(), text),
        Err(error) => is_short(&error),
    }
    match payment_id(text) {
        Ok(id) => assert!(id == text && (16..=128).contains(&id.len())),
        Err(error) => is_short(&error),
    }
}

/// One host has one spelling, and it holds nothing that a reader of URLs takes for something else.
fn host(text: &str) {
    let host = match text.parse::<Host>() {
        Ok(host) => host,
        Err(error) => return is_short(&error),
    };
    assert_eq!(host.to_string().parse::<Host>().as_ref(), Ok(&host));
    let odd = |c: char| c.is_ascii_uppercase() || !c.is_ascii_graphic() || "/\\@?#%".contains(c);
    assert!(!host.as_str().contains(odd), "{host}");
    if let Ok(ip) = text.parse::<IpAddr>() {
        // A bare IPv6 address has no brackets, and then is none here.
        assert_eq!(host.ip(), Some(ip));
        assert_eq!(host.is_local(), !is_public(ip));
    }
    // A URL with this host goes where the host says.
    let url = Url::parse(&format!("https://{host}/")).expect("a URL of our host");
    let origin = Origin::of(&url).expect("an origin");
    assert_eq!((&origin.host, origin.port, origin.tls), (&host, 443, true));
}

fn pattern(text: &str) {
    let pattern = match text.parse::<HostPattern>() {
        Ok(pattern) => pattern,
        Err(error) => return is_short(&error),
    };
    assert_eq!(pattern.to_string().parse::<HostPattern>().as_ref(), Ok(&pattern));
    match &pattern {
        HostPattern::Any => {}
        HostPattern::Below(host) => {
            // The name itself is not below itself, and nothing else that only ends alike is.
            let origin =
                |host: &str| Url::parse(&format!("https://{host}/")).ok().and_then(|u| Origin::of(&u).ok());
            assert!(origin(host.as_str()).is_some_and(|o| !pattern.matches(&o)));
            assert!(origin(&format!("x{host}")).is_none_or(|o| !pattern.matches(&o)));
            assert!(
                origin(&format!("x.{host}")).is_none_or(|o| o.host.ip().is_some() || pattern.matches(&o))
            );
        }
        HostPattern::Exact(host, port) => {
            let port = port.unwrap_or(8443);
            let origin = Origin { host: host.clone(), port, tls: true };
            assert!(pattern.matches(&origin));
            let elsewhere = Origin { port: port ^ 1, ..origin };
            let any_port = !pattern.to_string().ends_with(&format!(":{port}"));
            assert_eq!(pattern.matches(&elsewhere), any_port);
        }
    }
}

/// Who is asked is one thing, however the URL is spelled.
fn origin(text: &str) {
    let Ok(url) = Url::parse(text) else { return };
    match Origin::of(&url) {
        Ok(origin) => {
            let again = Origin::of(&Url::parse(&origin.to_string()).expect("our own URL"));
            assert_eq!(again.as_ref(), Ok(&origin));
            let exact = HostPattern::Exact(origin.host.clone(), Some(origin.port));
            assert!(exact.matches(&origin));
            let authority = origin.authority();
            assert_eq!(authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()), Some(origin.port));
            // What the HTTP client connects to is what the policy saw.
            let host = url.host_str().expect("a host");
            assert_eq!(host.parse::<Host>().as_ref(), Ok(&origin.host));
            if let Some(url::Host::Ipv4(ip)) = url.host() {
                assert_eq!(origin.host.ip(), Some(IpAddr::V4(ip)));
            }
            if let Some(url::Host::Ipv6(ip)) = url.host() {
                assert_eq!(origin.host.ip(), Some(IpAddr::V6(ip)));
            }
        }
        Err(error) => is_short(&error),
    }
}

fn codes(text: &str) {
    let code = ErrorCode::from(text);
    assert!(code.as_str().len() <= MAX_CODE_BYTES && text.starts_with(code.as_str()));
    assert_eq!(ErrorCode::from(code.as_str()), code);
    let named = ErrorCode::ALL.iter().any(|known| known.as_str() == text);
    assert_eq!(named, !matches!(code, ErrorCode::Other(_)));
    let reason = farthing_payment::Reason::new(text, farthing_payment::Fault::Payer);
    assert_eq!(farthing_payment::Reason::new(reason.code(), reason.fault()), reason);
}

/// Whatever is said about a line is said about one that is there.
fn toml(text: &str) {
    let lines = text.split('\n').count();
    let env = [("FARTHING__GATEWAY__LISTEN".to_owned(), text.lines().next().unwrap_or_default().to_owned())];
    for env in [&env[..0], &env[..]] {
        match document::parse("farthing.toml", text, env.iter().cloned()) {
            Ok(node) => places(&node, lines),
            Err(error) => {
                assert!(!error.problems.is_empty());
                for problem in &error.problems {
                    if let Some(Place::Line(line)) = problem.place {
                        assert!((1..=lines).contains(&line), "line {line} of {lines}");
                    }
                }
            }
        }
    }
}

fn places(node: &Node, lines: usize) {
    if let Place::Line(line) = node.place {
        assert!((1..=lines).contains(&line), "line {line} of {lines}");
    }
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| places(item, lines)),
        Value::Table(table) => table.values().for_each(|item| places(item, lines)),
        _ => {}
    }
}
