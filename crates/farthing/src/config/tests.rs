use std::time::Duration;

use farthing_engine::{Depths, Finality};
use farthing_payment::Flow;
use farthing_paywall::Cors;

use farthing_primitives::Address;

use super::{Cidr, Config, PriceConfig, SecretRef, Settlement};

const PAYEE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

/// What a newcomer writes.
const SIMPLE: &str = r#"[gateway]
upstream = "http://127.0.0.1:8080"
network = "base-sepolia"
pay_to = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

[networks.base-sepolia]
rpc = ["https://sepolia.base.org"]
relayer_key = "env:RELAYER_KEY"

[[route]]
match = "GET /weather"
price = "$0.002"
"#;

fn read(text: &str) -> Result<Config, String> {
    read_with(text, &[])
}

fn read_with(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse("farthing.toml", text, env).map_err(|error| error.to_string())
}

/// What is said of a text with this line added.
fn wrong(text: &str) -> String {
    read(text).expect_err("something is wrong with it")
}

fn with(section: &str, line: &str) -> String {
    SIMPLE.replacen(section, &format!("{section}\n{line}"), 1)
}

#[test]
fn ten_lines_are_enough() {
    let config = read(SIMPLE).unwrap();
    let gateway = config.gateway.unwrap();
    assert_eq!(gateway.listen.to_string(), "127.0.0.1:4021");
    assert_eq!(gateway.routes.len(), 1);
    let sale = gateway.routes[0].sale.as_ref().unwrap();
    let PriceConfig::Fixed(offers) = &sale.price else { panic!("a fixed price") };
    assert_eq!((offers[0].atoms, offers[0].pay_to.as_str()), (2000, PAYEE.to_lowercase().as_str()));
    assert_eq!(sale.flow, Flow::Authorization);
    assert_eq!(config.settlement, Settlement::Own);
    let network = config.networks.values().next().unwrap();
    assert_eq!(network.relayer_key, Some(SecretRef::Env("RELAYER_KEY".into())));
    assert_eq!(config.store.to_str(), Some("farthing.db"));
}

#[test]
fn unknown_keys_are_named_with_file_line_key_and_a_guess() {
    assert_eq!(
        wrong(&SIMPLE.replace("price =", "pirce =")),
        "farthing.toml:10: route[0].price: a route needs a price (or price_hook, or accept, or session, or stripe), or free = true\n\
         farthing.toml:12: route[0].pirce: unknown key (did you mean \"price\"?)"
    );
    assert_eq!(
        wrong(&with("[gateway]", "lisen = \"127.0.0.1:1\"")),
        "farthing.toml:2: gateway.lisen: unknown key (did you mean \"listen\"?)"
    );
    assert_eq!(wrong(&format!("{SIMPLE}\n[zebra]\n")), "farthing.toml:14: zebra: unknown key");
}

#[test]
fn every_mistake_is_said_at_once_and_at_its_line() {
    let said = wrong(
        "[gateway]\nlisten = \"nowhere\"\nupstream = \"ftp://x\"\n\n[[route]]\nmatch = \"HEAD /x\"\nprice = \"0.1\"\n",
    );
    let places: Vec<&str> = said.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert!(places.contains(&"farthing.toml:2"), "{said}");
    assert!(places.contains(&"farthing.toml:3"), "{said}");
    assert!(places.contains(&"farthing.toml:6"), "{said}");
    assert!(places.contains(&"farthing.toml:7"), "{said}");
}

#[test]
fn what_is_wrong_is_refused_at_its_key() {
    for (text, key) in [
        (with("[gateway]", "listen = \"0.0.0.0:80\""), "gateway.public_url: off loopback"),
        (with("[gateway]", "listen = 5"), "gateway.listen: expected a text, found a whole number"),
        (with("[gateway]", "upstream = \"api\""), "duplicate key"),
        (with("[gateway]", "trusted_proxies = [\"10.0.0.0/33\"]"), "gateway.trusted_proxies: not a range"),
        (with("[gateway]", "cors = [\"shop\"]"), "gateway.cors: not an origin"),
        (with("[gateway]", "unmatched = \"pass\""), "gateway.unmatched: must be"),
        (with("[gateway]", "tls = { cert = \"a.pem\" }"), "gateway.tls: TLS needs cert and key"),
        (with("[[route]]", "free = true"), "route[0].free: a free route has no price"),
        (with("[[route]]", "flow = \"later\""), "route[0].flow: must be"),
        (with("[[route]]", "flow = \"background\""), "route[0].exposure: goes with flow"),
        (with("[[route]]", "max_timeout = \"1s\""), "route[0].max_timeout: must be from 10s"),
        (with("[[route]]", "max_request = \"1 MiB\""), "route[0].max_request: not a size"),
        (with("[[route]]", "upstream = \"nobody\""), "route[0].upstream: there is no [[upstream]]"),
        (with("[[route]]", "price_hook = \"http://127.0.0.1:1/\""), "price_hook: sets the price"),
        (with("[[route]]", "atoms = \"5\""), "route[0].atoms: either price or atoms"),
        (with("[[route]]", "accept = [{ asset = \"EURC\" }]"), "does not stand for dollars"),
        (with("[[route]]", "accept = [{ asset = \"DOGE\" }]"), "no asset called \"DOGE\""),
        (
            with("[[route]]", "accept = [{ network = \"moon\" }]"),
            "there is no network called \"moon\" (known by name: ethereum, ",
        ),
        (with("[[route]]", "accept = [{ pay_to = \"0x12\" }]"), "accept[0].pay_to: not an EVM address"),
        (
            with("[[route]]", "accept = [{ asset = \"USDC\", methd = \"permit2\" }]"),
            "did you mean \"method\"",
        ),
        (SIMPLE.replace("$0.002", "$0.0000001"), "route[0].price: the amount has more decimal digits"),
        (SIMPLE.replace("$0.002", "$0"), "route[0].price: the price is zero"),
        (SIMPLE.replace("$0.002", "$-1"), "route[0].price: the amount is not a plain decimal"),
        (SIMPLE.replace("https://sepolia.base.org", "https://u:p@x.org"), "rpc: must not hold credentials"),
        (SIMPLE.replace("env:RELAYER_KEY", "0x1234"), "relayer_key: not a reference to a secret"),
        (
            SIMPLE.replace("[[route]]", "[limits]\nin_flight = 0\n[[route]]"),
            "limits.in_flight: must be from 1",
        ),
        (
            format!("{SIMPLE}\n[[route]]\nmatch = \"GET /WEATHER/\"\nprice = \"$1\"\n"),
            "match the same requests",
        ),
        (format!("{SIMPLE}\n[facilitator]\nmode = \"remote\"\n"), "needs at least one"),
        (format!("{SIMPLE}\n[facilitator.server]\nlisten = \"0.0.0.0:1\"\n"), "API keys are required"),
        (SIMPLE.replace("network = \"base-sepolia\"\n", ""), "needs a network"),
        (SIMPLE.replacen("pay_to", "payto", 1), "needs pay_to"),
    ] {
        let said = wrong(&text);
        assert!(said.contains(key), "expected {key:?} in:\n{said}");
        assert!(said.lines().all(|line| line.starts_with("farthing.toml:")), "each has a line: {said}");
    }
}

#[test]
fn a_pasted_secret_is_not_repeated() {
    let secret = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    let said = wrong(&SIMPLE.replace("env:RELAYER_KEY", secret));
    assert!(!said.contains("ac0974"), "{said}");
    let said =
        format!("{:?}", read(&SIMPLE.replace("sepolia.base.org", "rpc.example/v2/topsecret")).unwrap());
    assert!(!said.contains("topsecret"), "{said}");
}

#[test]
fn secrets_cannot_be_printed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "  hunter2\n").unwrap();
    let reference: SecretRef = format!("file:{}", file.path().display()).parse().unwrap();
    let secret = reference.resolve().unwrap();
    assert_eq!(secret.expose(), "hunter2");
    assert_eq!(format!("{secret:?}"), "[secret]");
}

#[test]
fn the_environment_overrides_the_file() {
    let config = read_with(
        SIMPLE,
        &[
            ("FARTHING__GATEWAY__LISTEN", "127.0.0.1:9999"),
            ("FARTHING__ROUTE__0__PRICE", "$3"),
            ("FARTHING__NETWORKS__BASE_SEPOLIA__RPC", "[\"http://127.0.0.1:8545\"]"),
            ("FARTHING__NETWORKS__BASE_SEPOLIA__CONFIRMATIONS", "4"),
            ("FARTHING__STORE__PATH", "/tmp/x.db"),
            ("FARTHING_LOG", "debug"),
        ],
    )
    .unwrap();
    let gateway = config.gateway.unwrap();
    assert_eq!(gateway.listen.port(), 9999);
    let PriceConfig::Fixed(offers) = &gateway.routes[0].sale.as_ref().unwrap().price else { panic!() };
    assert_eq!(offers[0].atoms, 3_000_000);
    let network = config.networks.values().next().unwrap();
    assert_eq!((network.depths.most, network.rpc.len()), (Finality::Blocks(4), 1));
    assert_eq!(config.store.to_str(), Some("/tmp/x.db"));
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    for (name, value, expected) in [
        (
            "FARTHING__GATEWAY__LISEN",
            "x",
            "environment variable FARTHING__GATEWAY__LISEN: gateway.lisen: unknown key",
        ),
        ("FARTHING__GATEWAY__LISTEN", "x", "environment variable FARTHING__GATEWAY__LISTEN: gateway.listen:"),
        ("FARTHING__ROUTE__7__PRICE", "$1", "there is no such entry in the list"),
        ("FARTHING__GATEWAY__LISTEN__X", "1", "no table"),
        ("FARTHING__", "1", "does not point at a key"),
    ] {
        let said = read_with(&with("[gateway]", "listen = \"127.0.0.1:1\""), &[(name, value)]).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn everything_can_be_said() {
    let config = read(
        r#"
[gateway]
listen = "0.0.0.0:443"
admin_listen = "127.0.0.1:9000"
public_url = "https://api.example.com"
trusted_proxies = ["10.0.0.0/8", "::1"]
tls = { cert = "cert.pem", key = "key.pem" }
cors = ["https://shop.example"]
unmatched = "free"
upstream = "api"
network = "base"
pay_to = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
offer_key = "file:/run/secrets/offer"

[store]
path = "/var/lib/farthing/gateway.db"

[networks.base]
rpc = ["env:BASE_RPC", "https://mainnet.base.org"]
relayer_key = "keystore:relayer"
confirmations = "finalized"
confirm = [{ up_to = "$1", blocks = 1 }, { up_to = "$100", blocks = 5 }, { up_to = "$1000", blocks = "safe" }]
block_time = "2s"
max_fee_gwei = 5

[[asset]]
network = "base"
address = "0x00000000000000000000000000000000000000aa"
symbol = "TEST"
decimals = 18
eip712_name = "Test"
eip712_version = "1"

[facilitator]
remote = ["https://one.example", { url = "https://two.example", api_key = "env:TWO" }]

[facilitator.server]
listen = "127.0.0.1:4022"
networks = ["base"]
api_key = [{ tenant = "acme", key = "env:ACME" }]

[payments]
contract_wallets = false
factories = ["0x00000000000000000000000000000000000000bb"]
max_validity = "1h"
replay_ttl = "20m"

[limits]
payments_per_second = 7
max_header_bytes = "16KiB"

[[upstream]]
name = "api"
url = "https://internal.example/v1"
headers = { authorization = "env:TOKEN" }
preserve_host = true

[[route]]
match = "POST /generate"
price = "$0.05"
accept = ["base", { asset = "TEST", atoms = "1000", method = "permit2" }]
flow = "background"
exposure = { per_payer = "100000", total = "1000000" }
max_timeout = "5m"
max_request = "4MiB"
repeatable = true
description = "A picture"

[[route]]
match = "GET /kwh"
price_hook = "http://127.0.0.1:9001/price"
flow = "upfront"

[[route]]
match = "GET /health"
free = true
"#,
    )
    .unwrap();
    assert!(matches!(&config.settlement, Settlement::Remote(remotes) if remotes.len() == 2));
    assert_eq!(config.engine.replay_ttl, Duration::from_secs(1200));
    assert!(!config.policy.contract_wallets && config.policy.factories.len() == 1);
    let network = config.networks.values().next().unwrap();
    let steps = [
        (1_000_000, Finality::Blocks(1)),
        (100_000_000, Finality::Blocks(5)),
        (1_000_000_000, Finality::Safe),
    ];
    assert_eq!(network.depths, Depths { most: Finality::Finalized, steps: steps.to_vec() });
    assert_eq!(network.max_fee, Some(5_000_000_000));
    let gateway = config.gateway.unwrap();
    assert_eq!(gateway.cors, Cors::Only(vec!["https://shop.example".into()]));
    assert_eq!((gateway.limits.paywall.payments.per_second, gateway.limits.max_header_bytes), (7, 16 * 1024));
    let sale = gateway.routes[0].sale.as_ref().unwrap();
    let PriceConfig::Fixed(offers) = &sale.price else { panic!() };
    assert_eq!((offers[0].atoms, offers[1].atoms), (50_000, 1000));
    assert_eq!((sale.flow, sale.exposure.as_ref().unwrap().total), (Flow::Background, 1_000_000));
    assert!(matches!(gateway.routes[1].sale.as_ref().unwrap().price, PriceConfig::Hook { .. }));
    assert!(gateway.routes[2].sale.is_none());
    assert_eq!(config.facilitator.unwrap().api_keys.len(), 1);
}

#[test]
fn a_facilitators_file_needs_no_gateway() {
    let config = read("[networks.base]\nrpc = [\"https://x.org\"]\n[facilitator.server]\n").unwrap();
    assert!(config.gateway.is_none());
    assert_eq!(config.facilitator.unwrap().listen.to_string(), "127.0.0.1:4022");
}

#[test]
fn text_that_is_no_toml_names_its_line() {
    assert!(wrong("[gateway]\nlisten = \n").starts_with("farthing.toml:2: "));
}

#[test]
fn ranges_contain_what_they_should() {
    for (range, address, expected) in [
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("0.0.0.0/0", "1.2.3.4", true),
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("::1", "::1", true),
        ("::/0", "2001:db8::1", true),
        ("2001:db8::/32", "2001:db9::1", false),
        ("::/0", "1.2.3.4", false),
    ] {
        let range_read: Cidr = range.parse().unwrap();
        assert_eq!(range_read.contains(address.parse().unwrap()), expected, "{range} {address}");
    }
}

#[test]
fn a_depth_that_makes_no_sense_is_refused_with_what_would() {
    let said = |lines: &str| {
        wrong(&format!("[networks.base]\nrpc = [\"https://x.org\"]\n{lines}\n[facilitator.server]\n"))
    };
    for (lines, expected) in [
        (
            "confirmations = 0",
            "farthing.toml:3: networks.base.confirmations: 0 would count what no block holds",
        ),
        ("confirmations = 0", "flow = \"background\""),
        ("confirmations = -1", "must be from 1 to 10000 blocks, \"safe\" or \"finalized\""),
        ("confirmations = 10001", "must be from 1 to 10000 blocks"),
        (
            "confirmations = \"final\"",
            "expected a count of blocks such as 3, \"safe\" or \"finalized\", found \"final\"",
        ),
        ("confirmations = true", "found true or false"),
        ("confirm = [{ up_to = \"$1\" }]", "confirm[0].blocks: a step needs blocks"),
        ("confirm = [{ blocks = 1 }]", "confirm[0].up_to: a step needs an amount"),
        ("confirm = [{ up_to = \"$1\", blocks = 0 }]", "confirm[0].blocks: 0 would count"),
        (
            "confirm = [{ up_to = \"$5\", blocks = 1 }, { up_to = \"$5\", blocks = 2 }]\nconfirmations = 3",
            "steps must ascend",
        ),
        (
            "confirm = [{ up_to = \"$1\", blocks = 5 }]",
            "a larger amount must not count sooner: \"1\" comes after \"5\"",
        ),
        (
            "confirmations = \"safe\"\nconfirm = [{ up_to = \"$1\", blocks = \"finalized\" }]",
            "must not count sooner",
        ),
    ] {
        let said = said(lines);
        assert!(said.contains(expected), "{lines}: {said}");
    }
    let wrong_once = said("confirm = [{ up_to = \"one\", blocks = 1 }]");
    assert_eq!(wrong_once.lines().count(), 1, "{wrong_once}");
}

#[test]
fn a_name_that_nobody_knows_is_answered_with_those_that_are_known() {
    let said = wrong(&SIMPLE.replace("base-sepolia", "base-seplia"));
    assert!(said.contains("did you mean \"base-sepolia\"?"), "{said}");
    assert!(said.contains("known by name: ethereum, ") && said.contains("eip155:8453"), "{said}");
    assert!(!said.contains("solana"), "{said}");
}

#[test]
fn an_address_without_a_scheme_is_told_of_http() {
    for upstream in ["127.0.0.1:8080", "localhost:8080", "api.example.com/v1"] {
        let said = wrong(&with("[gateway]", "").replace("http://127.0.0.1:8080", upstream));
        let expected = format!("upstream: a URL begins with http:// or https://, e.g. \"http://{upstream}\"");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn a_wrong_price_is_reported_once() {
    for price in ["0.002", "$x", "$0"] {
        let said = wrong(&SIMPLE.replace("$0.002", price));
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = wrong(&SIMPLE.replace("price = \"$0.002\"", "accept = [{ price = \"2\" }]"));
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = wrong(&SIMPLE.replace("price = \"$0.002\"", "price_hook = \"nowhere\""));
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_payee_with_a_typing_error_is_refused_by_its_checksum() {
    let good = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
    let address = Address::evm(good).unwrap();
    assert!(super::checksum_holds(good, &address));
    assert!(super::checksum_holds(&good.to_ascii_lowercase(), &address));
    let typo = good.replace("2096", "2097");
    assert!(!super::checksum_holds(&typo, &Address::evm(&typo).unwrap()));
}

/// Whatever stands where: a text is read or refused, each complaint is about a line that is there, and nothing panics.
#[test]
fn a_changed_document_is_read_or_refused() {
    const REFERENCE: &str = include_str!("../../../../docs/reference/config.md");
    const ODD: &[&str] = &[
        "",
        "\"\"",
        "0",
        "-1",
        "9223372036854775807",
        "9223372036854775808",
        "1.5",
        "true",
        "[]",
        "{}",
        "[[]]",
        "\"$\"",
        "\"$0\"",
        "\"$-1\"",
        "\"$1e9\"",
        "\"$340282366920938463463374607431768211455\"",
        "\"0x\"",
        "\"*\"",
        "\"eip155:0\"",
        "\"env:\"",
        "\"file:\"",
        "\"http://[::1\"",
        "\"GET /{\"",
        "\"/\\u0000\"",
        "\"255.255.255.255:0\"",
        "\"10.0.0.0/33\"",
        "[\"10.0.0.0/8\", 1]",
        "{ a = 1 }",
        "1979-05-27",
        "'''\n'''",
        "\"\u{202e}\"",
        "nan",
    ];
    const KEYS: [&str; 5] = ["network", "price", "\"\"", "a.b", "\u{e9}"];
    const CHARACTERS: [char; 10] = ['"', '[', ']', '=', '.', '#', '\\', '0', '\u{1F4B6}', '\t'];
    let shown = REFERENCE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks: Vec<&str> = shown.chain([SIMPLE]).collect();
    assert!(blocks.len() > 1, "the reference shows no configuration");
    // A fixed sequence: what fails once fails again.
    let mut state = 7u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..2000 {
        let mut lines: Vec<String> = blocks[draw(blocks.len())].lines().map(str::to_owned).collect();
        for _ in 0..=draw(3) {
            let at = draw(lines.len());
            let line = lines[at].clone();
            lines[at] = match (draw(4), line.split_once('=')) {
                (0, Some((key, _))) => format!("{key}= {}", ODD[draw(ODD.len())]),
                (1, Some((_, value))) => format!("{} ={value}", KEYS[draw(KEYS.len())]),
                (2, _) => {
                    let mut characters: Vec<char> = line.chars().collect();
                    let place = draw(characters.len() + 1);
                    characters.insert(place, CHARACTERS[draw(CHARACTERS.len())]);
                    characters.into_iter().collect()
                }
                _ => lines[draw(lines.len())].clone(),
            };
        }
        let text = lines.join("\n");
        let there = text.split('\n').count();
        match Config::parse("farthing.toml", &text, std::iter::empty()) {
            Ok(_) => taken += 1,
            Err(error) => {
                refused += 1;
                assert!(!error.problems.is_empty(), "{text}");
                for problem in &error.problems {
                    if let Some(super::document::Place::Line(line)) = problem.place {
                        assert!((1..=there).contains(&line), "line {line} of {there}:\n{text}");
                    }
                }
            }
        }
    }
    assert!(taken > 20 && refused > 1000, "{taken} taken, {refused} refused");
}

mod by_the_unit {
    use std::time::Duration;

    use farthing_channel::Unit;
    use farthing_paywall::{Count, Session};
    use farthing_wire::mpp::evm::CredentialType;

    use super::super::session::{ESCROW, ESCROW_CODE};
    use super::{PAYEE, SIMPLE, read};

    /// The simple file, with this session in place of the price.
    fn file(session: &str) -> String {
        SIMPLE.replace("price = \"$0.002\"", &format!("session = {{ {session} }}"))
    }

    fn session(text: &str) -> Session {
        let config = read(&file(text)).unwrap();
        let sale = config.gateway.unwrap().routes.remove(0).sale.unwrap();
        assert!(sale.price.networks().is_empty(), "nothing is sold at once");
        (**sale.session.as_ref().unwrap()).clone()
    }

    fn wrong(text: &str) -> String {
        read(&file(text)).expect_err("something is wrong with it")
    }

    #[test]
    fn a_price_is_enough() {
        let session = session("price = \"$0.002\"");
        let terms = session.terms();
        assert_eq!(
            (terms.price.atoms(), terms.price.per().get(), terms.price.unit()),
            (2000, 1, &Unit::Request)
        );
        assert_eq!((&terms.count, terms.stream, terms.most_units), (&Count::Request, false, 1));
        assert_eq!((terms.limits.credit, terms.limits.min_deposit, terms.min_voucher_delta), (0, 2000, 0));
        assert_eq!(terms.escrow.to_string(), ESCROW.to_lowercase());
        assert_eq!(session.payee().to_string(), PAYEE.to_lowercase());
        assert_eq!(terms.credential_types, [CredentialType::Authorization, CredentialType::Hash]);
        assert_eq!(terms.limits.idle, Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn our_escrow_is_the_one_that_is_built() {
        let built = farthing_devnet::payment_channel_escrow().unwrap().deployment.unwrap();
        assert_eq!(farthing_evm::eip55(built.address), ESCROW);
        assert_eq!(built.runtime_code_hash.to_string(), ESCROW_CODE);
        let config = read(SIMPLE).unwrap();
        assert_eq!(config.sessions.escrow_code, [built.runtime_code_hash.0]);
        assert_eq!(farthing_evm::to_alloy(&config.sessions.escrow), Some(built.address));
    }

    #[test]
    fn prices_finer_than_an_atom_are_for_more_units() {
        for (text, atoms, per) in [
            ("price = \"$0.0000025\"", 25, 10),
            ("price = \"$0.0000025\", per = 4", 25, 40),
            ("price = \"$0.0001\", per = 1000", 100, 1000),
            ("price = \"$3\"", 3_000_000, 1),
            ("price = \"$0.0000100\"", 10, 1),
            ("atoms = \"3\", per = 1000", 3, 1000),
            ("atoms = 7", 7, 1),
        ] {
            let session = session(text);
            let price = &session.terms().price;
            assert_eq!((price.atoms(), price.per().get()), (atoms, per), "{text}");
        }
    }

    #[test]
    fn everything_can_be_said() {
        let session = session(
            "price = \"$0.0000025\", unit = \"token\", meter = \"json:usage.tokens\", most_units = 4000, \
             suggested_deposit = \"$5\", min_deposit = \"$0.5\", min_voucher_delta = \"1000\", exposure = \"$0.01\", \
             settle_at = \"$2\", idle = \"2h\", patience = \"5s\", holds = \"2h\", in_flight = 4, margin = \"2m\", \
             drain = \"1s\", deposit_by = [\"hash\", \"authorization\"], network = \"base-sepolia\", asset = \"USDC\", \
             pay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\", \
             escrow = \"0x00000000000000000000000000000000000000aa\"",
        );
        let (terms, limits) = (session.terms(), session.terms().limits);
        assert_eq!((terms.count.to_string().as_str(), terms.most_units), ("json:usage.tokens", 4000));
        assert_eq!(
            (terms.suggested_deposit, limits.min_deposit, terms.min_voucher_delta),
            (Some(5_000_000), 500_000, 1000)
        );
        assert_eq!(
            (limits.credit, limits.most_unsettled, limits.most_in_flight),
            (10_000, Some(2_000_000), 4)
        );
        assert_eq!((terms.patience, terms.holds), (Duration::from_secs(5), Duration::from_secs(7200)));
        assert_eq!(terms.credential_types, [CredentialType::Hash, CredentialType::Authorization]);
        assert!(terms.escrow.to_string().ends_with("aa"));
    }

    #[test]
    fn streams_and_answers_have_their_own_bounds() {
        let most = |text: &str| session(text).terms().most_units;
        assert_eq!(most("atoms = 1, meter = \"bytes\", min_deposit = \"100000000\""), 8 * 1024 * 1024);
        assert_eq!(most("atoms = 1, meter = \"elapsed\""), 30_000);
        assert!(session("atoms = 1, meter = \"event\"").terms().stream);
        assert!(session("atoms = 1, meter = \"elapsed\", stream = true").terms().stream);
    }

    #[test]
    fn contradictions_are_explained() {
        for (text, expected) in [
            ("unit = \"token\"", "needs either price (dollars) or atoms"),
            ("price = \"$1\", atoms = 5", "needs either price (dollars) or atoms"),
            ("price = \"$0\"", "a price of nothing sells nothing"),
            ("atoms = 0", "a price of nothing sells nothing"),
            ("price = \"1\"", "expected dollars such as"),
            ("price = \"$0.0000000000000000000000000000001\"", "too fine"),
            ("price = \"$1\", meter = \"tokens\"", "route[0].session.meter: must be \"request\""),
            ("price = \"$1\", meter = \"event\", stream = false", "counting events needs a stream"),
            ("price = \"$1\", meter = \"json:tokens\"", "meter = \"json:tokens\" needs most_units"),
            ("price = \"$1\", meter = \"event\", most_units = 5", "a stream is paid as it goes"),
            ("price = \"$1\", most_units = 5", "a request is one unit"),
            (
                "price = \"$1\", min_deposit = \"$0.5\"",
                "does not pay for one request, which may cost 1000000 atoms",
            ),
            (
                "price = \"$1\", suggested_deposit = \"$2\", min_deposit = \"$3\"",
                "more than the suggested one",
            ),
            (
                "price = \"$1\", suggested_deposit = \"$2\", min_voucher_delta = \"$3\"",
                "no voucher could add",
            ),
            ("price = \"$1\", unit = \"two words\"", "without blanks"),
            (
                "price = \"$1\", deposit_by = [\"transaction\"]",
                "must be \"authorization\", \"permit2\" or \"hash\"",
            ),
            ("price = \"$1\", deposit_by = [\"hash\", \"hash\"]", "each once"),
            ("price = \"$1\", margin = \"15m\"", "must be from 60s to 540s"),
            ("price = \"$1\", escrow = \"0x1\"", "route[0].session.escrow"),
            ("price = \"$1\", suggested_depost = \"$2\"", "did you mean \"suggested_deposit\"?"),
        ] {
            let error = wrong(text);
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.starts_with("farthing.toml:"), "{text}: {error}");
        }
        let free = file("price = \"$1\"").replace("session =", "free = true\nsession =");
        assert!(read(&free).unwrap_err().contains("a free route has no price"));
        let silent = file("price = \"$1\"").replacen("[gateway]", "[gateway]\nmpp = false", 1);
        assert!(read(&silent).unwrap_err().contains("[gateway] says mpp = false"));
        let upfront = file("price = \"$1\"").replace("session =", "flow = \"upfront\"\nsession =");
        assert!(read(&upfront).unwrap_err().contains("the session is all that this route has"));
    }

    #[test]
    fn a_route_may_have_both() {
        let both =
            SIMPLE.replace("price = \"$0.002\"", "price = \"$0.002\"\nsession = { price = \"$0.001\" }");
        let sale = read(&both).unwrap().gateway.unwrap().routes.remove(0).sale.unwrap();
        assert!(sale.session.is_some());
        assert_eq!(sale.price.networks().len(), 1);
    }
}

mod stripe {
    use farthing_wire::mpp::{Terms, stripe::Charge};

    use super::super::{Config, PriceConfig, SaleConfig};
    use super::{SIMPLE, read};

    const STRIPE: &str = "\n[stripe]\nsecret_key = \"env:STRIPE_KEY\"\nnetwork_id = \"profile_1\"\n";

    fn file(line: &str) -> String {
        format!("{}{STRIPE}", SIMPLE.replace("price = \"$0.002\"", line))
    }

    fn sale(line: &str) -> SaleConfig {
        read(&file(line)).unwrap().gateway.unwrap().routes.remove(0).sale.unwrap()
    }

    fn wrong(text: &str) -> String {
        read(text).expect_err("something is wrong with it")
    }

    fn cents(sale: &SaleConfig) -> u128 {
        assert_eq!(sale.methods.len(), 1);
        sale.methods[0].money.atoms()
    }

    #[test]
    fn a_card_may_pay_beside_a_token_or_alone() {
        let both = sale("price = \"$0.75\"\nstripe = \"0.50 USD\"");
        assert!(matches!(&both.price, PriceConfig::Fixed(offers) if offers.len() == 1));
        assert_eq!(cents(&both), 50);
        let alone = sale("stripe = \"0.50 usd\"");
        assert!(alone.price.networks().is_empty());
        assert_eq!(cents(&alone), 50);
        assert_eq!(cents(&sale("stripe = \"50 JPY\"")), 50);
        assert_eq!(cents(&sale("price = \"$1.25\"\nstripe = true")), 125);
        assert!(sale("price = \"$1.25\"\nstripe = false").methods.is_empty());
        let named = sale("stripe = { price = \"12 EUR\", external_id = \"order_1\" }");
        let offer = &named.methods[0];
        let asked = Charge::from_request(offer.method.request(offer).unwrap()).unwrap();
        assert_eq!((asked.charge.amount, asked.charge.currency.as_str()), (1_200, "eur"));
        assert_eq!(
            (asked.charge.external_id.as_deref(), asked.network_id.as_str()),
            (Some("order_1"), "profile_1")
        );
        assert_eq!(asked.payment_method_types, ["card"]);
        assert!(matches!(Terms::StripeCharge(asked), Terms::StripeCharge(_)));
    }

    #[test]
    fn a_derived_price_below_the_least_charge_is_no_offer() {
        let cheap = sale("price = \"$0.49\"\nstripe = true");
        let offer = &cheap.methods[0];
        assert_eq!((offer.money.atoms(), offer.method.request(offer)), (49, None));
    }

    #[test]
    fn what_stripe_does_not_charge_is_said_at_once() {
        for (line, said) in [
            ("stripe = \"0.49 USD\"", "no less than 0.5 USD"),
            ("stripe = \"0.505 USD\"", "more decimal digits"),
            ("stripe = \"1000000 USD\"", "eight digits"),
            ("stripe = \"50.5 JPY\"", "more decimal digits"),
            ("stripe = \"5 XYZ\"", "XYZ"),
            ("stripe = \"0.50\"", "expected e.g."),
            ("stripe = true", "in dollars"),
            ("price = \"$0.5001\"\nstripe = true", "no exact amount"),
            ("stripe = { price = \"1 USD\", external_id = \"\" }", "short and printable"),
            ("stripe = { external_id = \"a\" }", "price"),
        ] {
            let problems = wrong(&file(line));
            assert!(problems.contains(said), "{line}: {problems}");
        }
        let without = SIMPLE.replace("price = \"$0.002\"", "stripe = \"1 USD\"");
        assert!(wrong(&without).contains("[stripe]"));
        let silent = file("stripe = \"1 USD\"").replace("[gateway]", "[gateway]\nmpp = false");
        assert!(wrong(&silent).contains("mpp = false"));
    }

    #[test]
    fn the_secret_key_is_a_reference_and_leaves_this_machine_by_tls_alone() {
        let with = |line: &str| format!("{}{line}\n", file("stripe = \"1 USD\""));
        let base = |text: &str| {
            let config: Config = read(&with(&format!("api_base = \"{text}\""))).unwrap();
            config.stripe.unwrap().api_base.to_string()
        };
        assert_eq!(
            read(&file("stripe = \"1 USD\"")).unwrap().stripe.unwrap().api_base.as_str(),
            "https://api.stripe.com/"
        );
        assert_eq!(base("http://127.0.0.1:4025"), "http://127.0.0.1:4025/");
        assert_eq!(base("https://stripe.example/"), "https://stripe.example/");
        assert!(wrong(&with("api_base = \"http://stripe.example\"")).contains("https"));
        let pasted = wrong(&file("stripe = \"1 USD\"").replace("env:STRIPE_KEY", "sk_live_1"));
        assert!(pasted.contains("not a reference") && !pasted.contains("sk_live_1"), "{pasted}");
        assert!(wrong(&file("stripe = \"1 USD\"").replace("profile_1", "a b")).contains("profile"));
        assert!(wrong(&with("payment_method_types = []")).contains("payment method type"));
    }
}

#[test]
fn transfers_of_the_buyer_are_taken_only_where_that_is_said() {
    use farthing_wire::mpp::evm::CredentialType::{self, Authorization, Hash, Transaction};
    let types = |text: &str| -> Vec<CredentialType> {
        let gateway = read(text).unwrap().gateway.unwrap();
        gateway.routes[0].sale.as_ref().unwrap().pay_by.clone()
    };
    assert_eq!(types(SIMPLE), [Authorization]);
    let all = with("[gateway]", r#"pay_by = ["authorization", "transaction"]"#);
    assert_eq!(types(&all), [Authorization, Transaction]);
    let route = all.replacen("[[route]]", "[[route]]\npay_by = [\"hash\"]", 1);
    assert_eq!(types(&route), [Hash]);
    let said = |line: &str| wrong(&with("[[route]]", line));
    assert!(said(r#"pay_by = ["permit2"]"#).contains("MPP names no spender"));
    assert!(said(r#"pay_by = ["cash"]"#).contains("must be \"authorization\", \"transaction\" or \"hash\""));
    for line in ["pay_by = []", r#"pay_by = ["hash", "hash"]"#] {
        assert!(said(line).contains("at least one way, and each once"));
    }
    let silent = with("[[route]]", r#"pay_by = ["hash"]"#).replacen("[gateway]", "[gateway]\nmpp = false", 1);
    assert!(wrong(&silent).contains("mpp = false"));
}
