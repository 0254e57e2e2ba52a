//! Where each rule of the guard begins and ends, one step to each side, and the words that it uses.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use farthing_policy::{
    Bucket, Charge, Dollars, Fact, History, Host, HostPattern, HostRule, Origin, Request, Rules, Window,
    decide, is_public,
};
use farthing_primitives::{Address, AmountError, Network, Registry, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn origin(url: &str) -> Origin {
    Origin::of(&url.parse().unwrap()).unwrap()
}

fn charge(symbol: &str, atoms: u128) -> Charge {
    let registry = Registry::builtin();
    Charge::of(&registry, registry.by_symbol(&Network::eip155(8453), symbol).unwrap().atoms(atoms)).unwrap()
}

fn request(url: &str) -> Request {
    Request {
        scheme: "exact".to_owned(),
        charge: charge("USDC", 1),
        price: None,
        payee: Address::from_evm_bytes([1; 20]),
        origin: origin(url),
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(60),
        screened: None,
        caller: farthing_policy::Caller::default(),
    }
}

fn denials(rules: &Rules, request: &Request) -> Vec<Fact> {
    decide(rules, &History::default(), request, NOW).denials().cloned().collect()
}

#[test]
fn special_ranges_of_v4_end_where_they_end() {
    // (the last public address before, the first special, the last special, the first public after)
    let ranges = [
        ("", "0.0.0.0", "0.255.255.255", "1.0.0.0"),
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
        ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
        ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
        ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
        ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
        ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
        ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
        ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
        ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
        ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
        ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
        ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
        ("223.255.255.255", "224.0.0.0", "255.255.255.255", ""),
    ];
    for (before, first, last, after) in ranges {
        for public in [before, after].into_iter().filter(|ip| !ip.is_empty()) {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [first, last] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }
    // Half of a special address is none.
    for public in [
        "99.64.0.1",
        "168.254.0.1",
        "171.16.0.1",
        "191.0.0.1",
        "192.1.0.1",
        "192.1.2.1",
        "191.0.2.1",
        "191.88.99.1",
        "192.87.99.1",
        "191.168.0.1",
        "197.18.0.1",
        "197.51.100.1",
        "198.50.100.1",
        "202.0.113.1",
        "203.1.113.1",
    ] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
}

#[test]
fn special_ranges_of_v6_end_where_they_end_and_hide_no_v4_address() {
    for public in [
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "64:ff9b::808:a00",
        "2002:808:a00::",
        "2000::",
        "2001:200::",
        "2001:db7:ffff::",
        "2001:db9::",
        "2003::1",
        "2003:db8::1",
        "3ffe:fff::1",
        "3fff:1000::",
        "3fff:ffff::",
    ] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
    for special in [
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a08:808",
        "64:ff9b:1::808:808",
        "2002:a08:808::",
        "1fff:ffff::",
        "2001::",
        "2001:1ff:ffff::",
        "2001:db8::",
        "2001:db8:ffff::",
        "3fff::",
        "3fff:fff:ffff::",
        "4000::",
        "fc00::1",
        "fe80::1",
        "ff02::1",
    ] {
        assert!(!is_public(special.parse().unwrap()), "{special}");
    }
}

#[test]
fn names_are_as_long_as_dns_carries_and_no_longer() {
    let name = |len: usize| ["a.".repeat(len / 2), "a".repeat(len % 2 + 2)].concat()[..len].to_owned();
    for (len, is_host) in [(252, true), (253, true), (254, false), (1000, false)] {
        let text = name(len);
        let text = text.strip_suffix('.').map_or(text.clone(), |head| format!("{head}a"));
        assert_eq!((text.len(), text.parse::<Host>().is_ok()), (len, is_host), "{text}");
    }
    // Percent signs and full-width letters take more room than what they stand for: but not without end.
    let wide = |letters: usize, plain: usize| ["%EF%BD%81".repeat(letters), "b".repeat(plain)].concat();
    for (text, is_host) in [(wide(112, 4), true), (wide(112, 5), false), (wide(28, 0), true)] {
        assert_eq!(text.parse::<Host>().is_ok(), is_host, "{} bytes", text.len());
    }
    for text in ["", ".", "a..b"] {
        assert!(text.parse::<Host>().is_err(), "{text:?}");
    }
}

#[test]
fn a_name_below_ends_in_a_dot_and_the_name() {
    let below: HostPattern = "*.example.com".parse().unwrap();
    for (url, matches) in [
        ("https://a.example.com/", true),
        ("https://example.com/", false),
        ("https://aexample.com/", false),
        ("https://abexample.com/", false),
    ] {
        assert_eq!(below.matches(&origin(url)), matches, "{url}");
    }
}

#[test]
fn a_port_is_digits_and_not_zero() {
    for (text, port) in [("a.example:1", 1), ("a.example:65535", 65535), ("[::1]:80", 80)] {
        let pattern: HostPattern = text.parse().unwrap();
        assert!(matches!(pattern, HostPattern::Exact(_, Some(found)) if found == port), "{pattern}");
    }
    for text in
        ["a.example:", "a.example:0", "a.example:+80", "a.example:-1", "a.example:8a", "a.example:65536"]
    {
        assert!(text.parse::<HostPattern>().is_err(), "{text}");
    }
}

#[test]
fn only_loopback_goes_without_tls_uninvited() {
    let rule =
        |pattern: &str| HostRule { pattern: pattern.parse().unwrap(), private: true, plaintext: false };
    let mut rules = Rules::tight([Network::eip155(8453)]);
    rules.hosts = vec![rule("*")];
    for (url, safe) in [
        ("http://127.0.0.1/", true),
        ("http://127.8.8.8/", true),
        ("http://[::1]/", true),
        ("http://[::ffff:127.0.0.1]/", true),
        ("http://localhost/", true),
        ("http://a.localhost/", true),
        ("http://10.0.0.1/", false),
        ("http://192.168.1.1/", false),
        ("http://8.8.8.8/", false),
        ("http://a.example/", false),
        ("https://a.example/", true),
    ] {
        let asked = request(url);
        let expected = if safe { vec![] } else { vec![Fact::PlaintextNotAllowed(asked.origin.authority())] };
        assert_eq!(denials(&rules, &asked), expected, "{url}");
    }
    assert_eq!(origin("https://a.example/").authority(), "a.example:443");
    assert_eq!(origin("http://[::1]:4021/").authority(), "[::1]:4021");
}

#[test]
fn a_refused_network_names_what_is_left_of_the_allowed_ones() {
    let networks = BTreeSet::from([1, 10, 84532].map(Network::eip155));
    let mut rules = Rules::tight(networks.clone());
    rules.hosts = vec![HostRule::new("*".parse().unwrap())];
    let asked = Network::eip155(8453);
    let mut of_base = request("https://a.example/");
    let allowed = networks.into_iter().collect();
    assert_eq!(denials(&rules, &of_base), [Fact::NetworkNotAllowed { asked: asked.clone(), allowed }]);
    of_base.only = Some(Network::eip155(10));
    let allowed = vec![Network::eip155(10)];
    assert_eq!(denials(&rules, &of_base), [Fact::NetworkNotAllowed { asked, allowed }]);
}

#[test]
fn dollars_have_eighteen_digits_and_no_more() {
    assert_eq!(Dollars::parse("0.000000000000000001"), Ok(Dollars(1)));
    assert_eq!(Dollars::parse("0.0000000000000000010"), Err(AmountError::TooPrecise { decimals: 18 }));
}

#[test]
fn charges_and_buckets_say_what_they_are() {
    let usdc = charge("USDC", 5);
    assert_eq!((usdc.symbol(), usdc.decimals()), ("USDC", 6));
    assert_eq!(usdc.dollars(), Some(Dollars(5_000_000_000_000)));
    assert_eq!(charge("EURC", 5).dollars(), None);
    let id = usdc.money().asset().clone();
    assert_eq!(Bucket::Dollar.to_string(), "dollar");
    assert_eq!(Bucket::Asset(id.clone()).to_string(), id.to_string());
    assert_eq!(Window::ALL.map(|window| window.to_string()), ["hour", "day"]);
}
