//! Where the fuzzer starts: the golden vectors, in the form in which each target takes its input.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farthing_wire::{Json, Limits, json};

use crate::templates::templates;

/// The seeds of a target, each with a name.
///
/// `vectors` is the folder of the golden vectors.
///
/// # Panics
/// If a vector is not there.
pub fn seeds(target: &str, vectors: &Path) -> Vec<Vec<u8>> {
    let with = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
    let t = templates();
    let texts = |messages: &[Json]| messages.iter().map(ToString::to_string).collect::<Vec<_>>();
    let evm = |name: &str| read(&vectors.join("evm").join(name));
    // Each template with no change and with one, so that the fuzzer finds all of them.
    let templated = |mode: u8, count: usize| {
        let at = |n: usize| u8::try_from(n).expect("few templates");
        (0..count)
            .flat_map(|n| {
                [vec![mode, at(n)], vec![mode, at(n), 0, 9, 0, 3], vec![mode, at(n), 0, 12, 4, 1, 1, b'7']]
            })
            .collect::<Vec<_>>()
    };
    match target {
        "json" => {
            let all = [&t.payments[..], &t.challenges, &t.requests, &t.answers].concat();
            let own =
                [r#"[0,-0,1.5e-7,1E+2,"\u00e9\ud83d\udcb6\/\n",null,true,{"":[]}]"#, r#"{"a":1,"\u0061":2}"#];
            texts(&all)
                .into_iter()
                .map(String::into_bytes)
                .chain(own.map(|t| t.as_bytes().to_vec()))
                .collect()
        }
        "payment" => {
            let headers =
                texts(&t.payments).into_iter().map(|text| with(0, STANDARD.encode(text).as_bytes()));
            let malformed =
                t.malformed.iter().filter(|header| header.len() < 4096).map(|header| with(0, header));
            let plain = texts(&t.payments).into_iter().map(|text| with(1, text.as_bytes()));
            headers.chain(malformed).chain(plain).chain(templated(2, t.payments.len())).collect()
        }
        "challenge" => {
            let plain = texts(&t.challenges)
                .into_iter()
                .flat_map(|text| [with(1, text.as_bytes()), with(2, text.as_bytes())]);
            let receipts = texts(&t.receipts).into_iter().map(|text| with(4, text.as_bytes()));
            let templated = [templated(5, t.receipts.len()), templated(6, t.challenges.len())].concat();
            plain.chain(receipts).chain(templated).collect()
        }
        "facilitator" => {
            let plain = texts(&[&t.requests[..], &t.answers].concat())
                .into_iter()
                .map(|text| with(0, text.as_bytes()));
            let templated = [templated(1, t.answers.len()), templated(2, t.requests.len())].concat();
            plain.chain(templated).collect()
        }
        "mpp_challenge" | "mpp_credential" | "mpp_stream" => mpp(target, &vectors.join("mpp")),
        "names" => names(),
        "evm" => {
            let mut all = Vec::new();
            for case in rows(&evm("signatures.json"), "signatures") {
                let digest = bytes_of(&case, "digest");
                for form in ["canonical", "parity", "compact"] {
                    all.push(with(0, &[digest.clone(), bytes_of(&case, form)].concat()));
                }
            }
            all.extend(
                rows(&evm("erc6492.json"), "wrapped").iter().map(|case| with(1, &bytes_of(case, "wrapped"))),
            );
            all.push(with(
                3,
                &[&[7; 20][..], &[4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], &[0xef, 1, 0], &[8; 20]].concat(),
            ));
            all.extend(
                rows(&evm("reverts.json"), "reverts").iter().map(|case| with(4, &bytes_of(case, "data"))),
            );
            all.push(with(5, &[&[1][..], &two_results()].concat()));
            all.push(with(5, &[&[0][..], &[0; 31], &[1]].concat()));
            all.push(with(5, &[&[2][..], &shared_result()].concat()));
            all.push(with(6, &[&[0, 2][..], &[1; 32], &[1], &[2; 32], &[1], &[0; 32]].concat()));
            all.push(with(6, &[&[1, 2][..], &[1; 32], &[1], &[2; 32], &[1]].concat()));
            all.push(with(7, &[&[0; 28][..], &[4], b"USDC", &[1], b"2", &[9; 168]].concat()));
            all
        }
        "recall" => {
            let mut all = recalled();
            all.push(with(1, b"1.1795251323.AQIDBAUGBwgJ.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
            let facts =
                [&[1][..], &[3], b"/a*", &[0], &[3], b"GET", &[0; 15], &[5], &[6; 20], &[0], &[0; 7], &[60]]
                    .concat();
            all.push(with(2, &[&facts[..], &[1; 9], &[70, 1, b'A']].concat()));
            all.push(with(3, &[&facts[..], &facts, &[9]].concat()));
            all
        }
        "path" => paths(),
        "stored" => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            for mode in [1, 3, 5, 7, 9] {
                for which in 0..11 {
                    all.push([&[mode, which][..], &[which + 1; 300]].concat());
                }
            }
            for mode in [0, 2, 4, 6] {
                for which in 0..12 {
                    all.push([&[mode, which, 1][..], &[1; 120]].concat());
                }
            }
            all.push(with(
                8,
                &[&[2, 0xf8, 40, 1, 2, 3, 4, 5, 0x94][..], &[9; 20], &[0, 0x84, 1, 2, 3, 4, 0xc0, 1, 1, 1]]
                    .concat(),
            ));
            let rules = farthing_policy::Rules {
                hosts: vec![farthing_policy::HostRule::new("*.a.example".parse().expect("a pattern"))],
                ..farthing_policy::Rules::tight([farthing_primitives::Network::eip155(84532)])
            };
            all.push(with(10, crate::wallet_record::print_rules(&rules).as_bytes()));
            all.push(with(10, br#"{"time_ms":1,"boot":"a","elapsed_ms":2}"#));
            all.push(with(
                11,
                &[&[0; 8][..], &[1, 5], b"exact", &[9; 48], &[7; 20], &[1, 3], b"*.a", &[1, 0], &[9; 8]]
                    .concat(),
            ));
            all
        }
        "rpc" => rpc(),
        "documents" => documents(),
        "events" => events(&vectors.join("mpp")),
        "stripe" => stripe(),
        "policy" => policy(),
        "toolpolicy" => toolpolicy(),
        "approval" => approval(vectors),
        "audit" => audit(),
        "guard" => guard(),
        "ap2" => ap2(),
        "proxy" => proxy(),
        other => panic!("no target is named {other}"),
    }
}

fn names() -> Vec<Vec<u8>> {
    let lists: [&[&str]; 12] = [
        &["0", "1000", "340282366920938463463374607431768211455", "01", "+1"],
        &["0", "115792089237316195423570985008687907853269984665640564039457584007913129639935", "1e3"],
        &["\u{6}0.015", "\u{12}1.000000000000000001", "\u{0}7", "\u{6}1.0000000"],
        &["$0.02", "1", "0.000000000000000001", "$340282366920938463463.374607431768211455"],
        &[
            "eip155:8453",
            "base-sepolia",
            "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
            "eip155:8453/erc20:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
        ],
        &["0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"],
        &["pay_0199f3a1c1107abc8def0123456789ab", "local", "pay_7d5d747be160e280504c099d984bcfe0"],
        &[
            "api.example.com",
            "xn--bcher-kva.example",
            "b\u{fc}cher.example",
            "[::ffff:10.0.0.1]",
            "0x7f.1",
            "127.0.0.1",
            "localhost.",
        ],
        &["*", "*.example.com", "example.com:8443", "[::1]:80", "[::1]"],
        &[
            "https://api.example.com:8443/x",
            "http://127.0.0.1/",
            "https://user:p@x/",
            "https://\u{ff41}pi.example./",
            "https://[64:ff9b::a00:1]/",
        ],
        &["insufficient_funds", "settlement_pending", "rpc: out of gas"],
        &[
            "[gateway]\nlisten = \"127.0.0.1:4021\"\nnetwork = \"base-sepolia\"\n[[route]]\nmatch = \"GET /a\"\nprice = \"$0.01\"\n",
            "a = [1, 0x_f, 1979-05-27, 1.5, { b = true }]\n",
        ],
    ];
    let with = |(which, list): (usize, &&[&str])| {
        let which = u8::try_from(which).expect("few");
        list.iter().map(|text| [&[which], text.as_bytes()].concat()).collect::<Vec<_>>()
    };
    lists.iter().enumerate().flat_map(with).collect()
}

/// What the published MPP package wrote, and what it refuses.
fn mpp(target: &str, vectors: &Path) -> Vec<Vec<u8>> {
    let load = |name: &str| read(&vectors.join(name));
    let texts = |file: &Json, list: &str, key: &str| -> Vec<Vec<u8>> {
        let text =
            |row: &Json| row.as_object().and_then(|row| row.get_str(key)).expect(key).as_bytes().to_vec();
        rows(file, list).iter().map(text).collect()
    };
    let all = |mode: u8, texts: Vec<Vec<u8>>| texts.into_iter().map(move |text| [vec![mode], text].concat());
    let decoded = |headers: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        let decode = |header: Vec<u8>| {
            let token = header.strip_prefix(b"Payment ").unwrap_or(&header).to_vec();
            farthing_wire::mpp::encoding::decode(&token, 1 << 16, "a vector").ok()
        };
        headers.into_iter().filter_map(decode).collect()
    };
    match target {
        "mpp_challenge" => {
            let (file, asked) = (load("challenges.json"), load("preferences.json"));
            let lists = texts(&file, "lists", "header");
            all(0, texts(&file, "challenges", "header"))
                .chain(all(0, texts(&file, "malformed", "header")))
                .chain(all(1, lists.into_iter().map(|line| [&line[..], b"\nBasic\n"].concat()).collect()))
                .chain(all(2, texts(&asked, "preferences", "header")))
                .chain(all(2, texts(&asked, "malformed", "header")))
                .chain(all(3, vec![b"abc".to_vec(), b"\"a\\\"b\"".to_vec()]))
                .collect()
        }
        "mpp_credential" => {
            let (file, receipts) = (load("credentials.json"), load("receipts.json"));
            let credentials = texts(&file, "credentials", "header");
            let params = decoded(credentials.clone()).into_iter().map(|json| {
                let json = String::from_utf8(json).expect("JSON");
                let meta = format!(r#"{{"org.paymentauth/credential":{json}}}"#);
                format!(r#"{{"id":1,"params":{{"_meta":{meta}}}}}"#).into_bytes()
            });
            let error = rows(&load("challenges.json"), "challenges").into_iter().map(|row| {
                let challenge =
                    row.as_object().and_then(|row| row.get("json")).expect("a challenge").to_string();
                format!(
                    r#"{{"code":-32042,"message":"","data":{{"httpStatus":402,"challenges":[{challenge}]}}}}"#
                )
                .into_bytes()
            });
            let headers = texts(&receipts, "receipts", "header");
            all(0, texts(&file, "malformed", "header"))
                .chain(all(1, decoded(credentials)))
                .chain(all(2, texts(&receipts, "malformed", "header")))
                .chain(all(3, decoded(headers)))
                .chain(all(4, texts(&receipts, "problems", "text")))
                .chain(all(5, params.chain(error).collect()))
                .collect()
        }
        _ => {
            let file = load("streams.json");
            let events = texts(&file, "events", "text");
            all(0, events.into_iter().map(|text| [&[7], &text[..]].concat()).collect())
                .chain(all(1, vec![b"a\r\nb\rc\n\ndata: d".to_vec()]))
                .chain(all(2, texts(&file, "frames", "text")))
                .collect()
        }
    }
}

fn paths() -> Vec<Vec<u8>> {
    let raw = [
        "/paid/x",
        "/free/a%2Fb",
        "/paid%2Fx",
        "/paid/x;v=1",
        "/paid/%2578",
        "/%25252570aid%25252Fx",
        "/a//b/./c",
        "/a\\b",
        "/%2e%2e/paid",
        "/..;/paid",
        "/%E2%82%AC/",
        "/paid%3Fx",
        "/paid/x%23",
        "/free/%25zz%252F..%252Fpaid",
        "/A/B/c/",
        "/x/%zz",
    ];
    let mut all: Vec<Vec<u8>> = Vec::new();
    for table in 0..4 {
        all.extend(raw.iter().map(|path| [&[table, 0], path.as_bytes()].concat()));
    }
    let patterns =
        ["GET /weather/{city}", "POST|PUT /files/*", "/free", "* /*", "GET /a%2Fb/%20/{x}", "/caf\u{e9}"];
    // `connection: te, accept, host`, `te: trailers`, `host: a`, `accept: b`.
    let lines: [(u8, &[u8]); 4] = [(0, b"te, Accept ,host"), (2, b"trailers"), (6, b"a"), (7, b"b")];
    let lines = lines
        .map(|(name, value)| [&[name, u8::try_from(value.len()).expect("short")], value].concat())
        .concat();
    all.push([&[6], &lines[..]].concat());
    all.extend(patterns.iter().map(|pattern| [&[7], pattern.as_bytes()].concat()));
    all
}

fn rpc() -> Vec<Vec<u8>> {
    let hash = format!("\"0x{}\"", "11".repeat(32));
    let address = format!("\"0x{}\"", "22".repeat(20));
    let log = format!(
        r#"{{"address":{address},"topics":[{hash},{hash}],"data":"0x01","logIndex":"0x3","transactionHash":{hash},"removed":false}}"#
    );
    let receipt = format!(
        r#"{{"transactionHash":{hash},"status":"0x1","blockNumber":"0x10","blockHash":{hash},"gasUsed":"0x5208","effectiveGasPrice":"0x1","l1Fee":"0x7","logs":[{log}]}}"#
    );
    let head = format!(
        r#"{{"number":"0x10","hash":{hash},"parentHash":{hash},"timestamp":"0x6b0","baseFeePerGas":"0x7"}}"#
    );
    let history = r#"{"baseFeePerGas":["0x1","0x2"],"reward":[["0x1"],["0x2"]]}"#.to_owned();
    let error = r#"{"code":3,"message":"execution reverted: x","data":"0x08c379a0"}"#.to_owned();
    let limited =
        r#"{"code":-32005,"message":"Too Many Requests","data":{"data":"Reverted 0x01"}}"#.to_owned();
    let texts = ["\"0x1f\"".to_owned(), head, format!("[{log}]"), receipt, history, error];
    let mut all: Vec<Vec<u8>> =
        (0u8..).zip(texts).map(|(which, text)| [&[which], text.as_bytes()].concat()).collect();
    all.push([&[5], limited.as_bytes()].concat());
    all
}

/// Documents as they are, and with changes, read as each kind.
fn documents() -> Vec<Vec<u8>> {
    let page = "# Shop\n\n> Cheap\n\n[api](/docs/openapi.json) [b](https://b.example/openapi.json)";
    let mut all = vec![[&[3], page.as_bytes()].concat(), [&[4], "a\u{202e} b\n52.5,1".as_bytes()].concat()];
    for (at, text) in (0u8..).zip(crate::targets::documents::TEMPLATES) {
        for mode in [0, 2, 5, 6] {
            all.push([&[mode], text.as_bytes()].concat());
            all.push(vec![8 | mode, at, 0, 20, 1, 7]);
            all.push(vec![8 | mode, at, 0, 9, 4, 1, 1, b'7', 0, 14, 2, 3, b'/', b'{', b'a']);
        }
    }
    all
}

/// Streams of the published package, and what services make of the format.
fn events(vectors: &Path) -> Vec<Vec<u8>> {
    let published = rows(&read(&vectors.join("streams.json")), "events");
    let published = published
        .iter()
        .map(|row| row.as_object().and_then(|row| row.get_str("text")).expect("text").as_bytes().to_vec());
    let own = [
        "\u{feff}id: 1\ndata: a\n\nid: 2\rdata: b\rdata\r\rdata: c",
        ": ping\r\n\r\nid\r\ndata: a\r\n\r\nretry: 5\n\nevent: payment-receipt\ndata: {}\n\n",
        "id: \u{1}\ndata: a\n\n\u{feff}data: b\n\nid: farthing-1\n\nid:\n\ndata: x\n\r",
    ];
    let all = published.chain(own.map(|text| text.as_bytes().to_vec()));
    all.flat_map(|text| [[&[0, 200], &text[..]].concat(), [&[1, 3], &text[..]].concat()]).collect()
}

/// Scripts of answers: a charge that succeeds, and whatever else may become of one.
fn stripe() -> Vec<Vec<u8>> {
    let (ok, refused) = (0, 7);
    let intent = |status: u8| [5, ok, 0, status, 0];
    let mut all: Vec<Vec<u8>> = (0..7).map(|status| [&[1, 0, 0][..], &intent(status)].concat()).collect();
    all.extend((0..7).map(|status| [&[2, 0, 9][..], &[0], &intent(status), &intent(1)].concat()));
    // A card that is declined, at once and with what became of its charge; and somebody else's charge.
    all.push(vec![1, 0, 0, 2, refused, 0, 0, 0]);
    all.push([&[1, 0, 0, 2, refused, 1][..], &[0, 5, 0], &[0, 0]].concat());
    all.push(vec![1, 0, 0, 21, ok, 0, 0, 0x20]);
    // Looked for, long after, in two pages.
    all.push([&[2, 0xff, 0xff, 3, ok, 1][..], &[1, 0, 0x20], &[1], &[3, ok, 1], &[0, 0, 0], &[0]].concat());
    all.push(vec![2, 0xff, 0xff, 3, ok, 0, 0]);
    // A token that is looked at.
    all.push([&[0, 0, 0, 4, ok, 0, 50][..], &[0xff; 8], &[0]].concat());
    all.push([&[0, 0, 0, 4, ok, 1, 49][..], &[0; 8], &[1]].concat());
    all
}

fn policy() -> Vec<Vec<u8>> {
    let asked = [0, 0, 1, 1, 3, 0xe8, 0, 0, 60, 0, 0, 0];
    let file = r#"
version: 1
owner: acme
secrets_in_url: deny
max_validity: 2m
breaker: {refusals: 3, within: 10m, price_jump: 10, velocity_jump: 100}
screen: {url: "https://screen.example/", within: 2s, quorum: 2}
budgets:
  acme: {per_payment: $1, rolling: {24h: $5}, calendar: {month: $50}, lifetime: $500}
  acme/a: {per_payee: {24h: $1.50}, per_host: {1h: $1}, per_tool: {1h: $0.75}, payments: {1m: 30}}
allow:
  - name: weather
    hosts: [api.example, "*.data.example"]
    paths: [/v1/*]
    methods: [GET]
    networks: [eip155:84532]
    schemes: [exact]
    max: $0.25
    max_validity: 30s
    pay_to: ["0x0101010101010101010101010101010101010101"]
    when: 'amount > usd("0.0001") && !(host in ["a.example"])'
deny:
  - {name: night, over: $0.40, hours: {days: [mon, tue], from: "22:00", to: "24:00", offset: "+01:00"}}
approve:
  - {name: newcomer, agents: [acme/a], tools: [forecast], new_payee: true, quorum: 2}
"#;
    let when = [
        r#"amount > usd("0.05") && weekday in ["sat", "sun"]"#,
        "amount / (amount - 1000) > 1 || dollar",
        r#"host == "api.example" && path.startsWith("/v1/") && method != "POST""#,
        "hour >= 9 && hour * 60 + minute < 17 * 60 + 30 && port % 2 == 1",
        r#"!(agent.startsWith("acme/")) == (tool == "forecast")"#,
        "amount in [-1, 2 + 3, usd(\"0.001\")]",
        r#"network == "eip155:84532" && scheme == "exact""#,
    ];
    let mut all = vec![
        [&[0][..], &asked, file.as_bytes()].concat(),
        [
            &[0][..],
            &asked,
            br#"{"version":1,"budgets":{"acme":{"lifetime":"$1"}},"allow":[{"hosts":["*"]}]}"#,
        ]
        .concat(),
        b"\x04300s".to_vec(),
        b"\x047d".to_vec(),
        [&[3][..], &asked, &[0, 9, 0, 9, 0, 9, 60, 11], b"api.example", &[0, 1, b'*', 1]].concat(),
    ];
    all.extend(when.map(|text| [&[2][..], &asked, text.as_bytes()].concat()));
    for n in 0..16 {
        // Two files of all kinds of parts, the same and not.
        let part = [n, n, 2, n, n + 1, 2, n, n, n + 3, 1, 2, n, n, n + 5, n, 1, n, n, n];
        all.push([&[5][..], &asked, &part, &part].concat());
        let other = [n, n + 1, 2, n, n + 1, 2, n, n, n + 3, n, 1, n, n, 2, n, n, n, n + 2, n, n];
        all.push([&[5][..], &asked, &part, &other].concat());
        // What follows an index that is set, and what was paid; and what somebody else named.
        let [mut set, mut paid, mut named] = [asked; 3];
        set[11] = 1;
        paid[1] = 32;
        named[11] = 6;
        let numbers = [0, 100, 0, 15 * n, 3, 200];
        all.push([&[7][..], &set, &[0, 9, 10 * n, 0, n], &numbers].concat());
        let before = [10 * n, 0, 3, 0xe8, 0, 0, 0];
        all.push([&[7][..], &paid[..10], &before, &paid[10..], &[n], &numbers].concat());
        all.push([&[5][..], &named, &[1, n, 0], &part, &part].concat());
    }
    all
}

fn toolpolicy() -> Vec<Vec<u8>> {
    let file = r#"version: "1"
description: "All of it"
default: deny
hide: [secret]
tools:
  pay:
    rules:
      - name: small
        conditions:
          - {path: args.amount, op: lte, value: 10.50}
          - {path: args.to, op: in, value: [a, "2", true, 3]}
          - {path: args.to, op: regex, value: "^[a-z]+$"}
          - {path: state.pay.sum, op: lte, value: 100}
        on_deny: "Ask your owner."
        state: {counter: sum, window: day, increment_from: args.amount}
      - {name: cost, spend: {per_call: 0.50, daily: "$2"}}
  read: {rules: [{name: often, rate_limit: 5/hour}]}
  x.y:
    rules:
      - {name: ask, action: require_approval, approval_timeout: 5m, conditions: [{path: args.n, op: exists, value: true}]}
      - {name: never, action: deny}
  "*":
    rules: [{name: all, rate_limit: 60/minute}]
pins: {pay: sha256:0000000000000000000000000000000000000000000000000000000000000000}
"#;
    let call = |arguments: &str| {
        [&[0, 3, 1, 0, 200][..], &[u8::try_from(arguments.len()).expect("short")], arguments.as_bytes()]
            .concat()
    };
    let mut all = Vec::new();
    for arguments in [r#"{"amount":10.5,"to":"a"}"#, r#"{"amount":"7","to":"abc","n":null}"#, "{}", "1e3"] {
        all.push([&[0][..], &call(arguments), file.as_bytes()].concat());
        for n in 0..19 {
            let part = [0, 0, 3, n, n + 1, 2, n, 0, 2, n];
            all.push([&[4][..], &call(arguments), &part, &part].concat());
            let tighter = [0, 0, 4, n, n + 1, 0, 2, n, 0, 2, n];
            all.push([&[4][..], &call(arguments), &part, &tighter].concat());
        }
    }
    all.push([&[2, 4][..], b"10.5", b"10.49"].concat());
    all.push([&[2, 3][..], b"-10", b"-9.999"].concat());
    all.push([&[2, 20][..], b"0.000000000000000001", b"340282366920938463463"].concat());
    all.push(b"\x031795348800000;1795348800000=5;1795345200000=7".to_vec());
    all
}

fn approval(vectors: &Path) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = crate::targets::approval::texts()
        .iter()
        .map(|text| [&[0, 0][..], text.as_bytes()].concat())
        .collect();
    all.extend([1, 2].map(|which| vec![0, which]));
    all.extend([1, 2].map(|which| vec![0, which, 0, 40, 1, 1, b'b']));
    let names = [
        "apr_0123456789abcdef0123456789abcdef",
        "grt_0123456789abcdef0123456789abcdef",
        "http://localhost:8405",
        "https://pay.example",
        "ed25519:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
        "passkey-ed25519:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
        "ed25519-secret:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
    ];
    all.extend(names.map(|name| [&[2][..], name.as_bytes()].concat()));
    for words in
        ["n=10,total=1.00,until=24h", "n=2,each=0.10,until=1h,below=https://api.weather.example/v1/,body=any"]
    {
        all.push([&[3, 0x27, 0x10][..], words.as_bytes()].concat());
    }
    for kind in 0..8 {
        let [passkey, grant, verdict] = [kind & 1, kind >> 1 & 1, kind >> 2 & 1];
        all.push(vec![4, passkey, grant, verdict]);
        all.push(vec![4, passkey, grant, verdict, 3, kind, 9]);
        all.push(vec![4, passkey, grant, verdict, 4, kind, 0, kind, 1]);
    }
    all.push(vec![6, 5, 1, 1, 0, 3, 0]);
    all.push(vec![6, 0x85, 1, 1, 1, 0xa0, 3, 0]);
    let made = crate::targets::approval::credential_data();
    let len = u8::try_from(made.len()).expect("short");
    all.push([&[7, 1, 0x45, len][..], &made].concat());
    // What a browser made.
    let file = read(&vectors.join("passkeys/chromium.json"));
    for passkey in rows(&file, "passkeys") {
        let made = passkey
            .as_object()
            .and_then(|one| one.get("registration")?.as_object()?.get_str("attestation_object"));
        let bytes =
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(made.expect("made")).expect("base64");
        all.push([&[7, 0][..], &bytes].concat());
    }
    all
}

fn audit() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        r#"{"amount":"1","at_ms":"1700000000123","kind":"intent","rules":["not_frozen",true,{"a":[]}],"v":"1"}"#,
        "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\/\"",
        "[[[[[[\"\"]]]]]]",
    ]
    .map(|text| [&[0][..], text.as_bytes()].concat())
    .to_vec();
    all.extend(crate::targets::audit::notes().map(|note| [&[1][..], note.as_bytes()].concat()));
    all.extend(crate::targets::audit::written_keys().map(|key| [&[2][..], key.as_bytes()].concat()));
    for kind in 0..2 {
        all.push(vec![3, 0, 200, kind]);
        all.push(vec![3, 0, 200, kind, 0, 60, b'x']);
    }
    for n in 0..8u8 {
        all.push([&[4, 0, 30 * n, 0, 11 * n, 0, 7 * n, 0, n, n, n, 1, n, n % 4, n][..], &[n; 20]].concat());
        all.push([&[5, n & 1, 0, 12 * n, 0, 0, 0, 0, 0, 0, 0, 0, 0, n, 0][..], &[n; 4]].concat());
        all.push([&[6, n % 3][..], &[0; 7], &[n], &[0; 6], &[1, n], &[0, 30 * n, n], &[0; 8]].concat());
        for file in 0..6 {
            all.push(vec![7, 0, file, 0, 9 * n, n % 6, 2, n, 1, n & 1]);
        }
    }
    all
}

fn guard() -> Vec<Vec<u8>> {
    let asset = "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e";
    let payee = "0x209693bc6afc0c5328ba36faf03c514ef312287c";
    let id = farthing_primitives::PurchaseId::from_bytes([7; 16]);
    let attempt = farthing_primitives::AttemptId::from_bytes([7; 16]);
    let hash = "07".repeat(32);
    let money = format!(r#"{{"asset":"{asset}","atoms":"1000"}}"#);
    let finding = r#"{"code":"frozen","denies":true,"text":"it is frozen"}"#;
    let waits = r#"{"code":"approval_required","denies":true,"text":"t","waits":{"rule":"r","quorum":2}}"#;
    let decision = format!(r#"{{"allowed":false,"findings":[{finding},{waits}]}}"#);
    let challenge = templates()
        .challenges
        .iter()
        .map(ToString::to_string)
        .find(|text| text.contains("\"x402Version\":2"));
    let offer = Json::from(challenge.unwrap_or_default());
    let authorization = format!(
        r#"{{"id":"{id}","decision":{decision},"money":{money},"payee":"{payee}","payer":"{payee}","expires_ms":5}}"#
    );
    let records = [
        format!(
            r#"{{"offer":{{"dialect":"x402-v2","text":{offer}}},"method":"GET","url":"https://a.example/b","private":false,"request_hash":"{hash}","body":"{hash}","tool":"t","max":"0.01","only":"eip155:84532"}}"#
        ),
        format!(r#"{{"is":"settled","tx":"0x{hash}","goods":"in_hand","receipt":"{{}}","note":"n"}}"#),
        decision.clone(),
        authorization.clone(),
        format!(
            r#"{{"id":"{id}","state":"signed","created_ms":1,"updated_ms":2,"expires_ms":3,"authority":"a.example:443","method":"GET","url":"https://a.example/","request_hash":"{hash}","money":{money},"payee":"{payee}","payer":"{payee}","consumption":"k","header":{{"name":"X-PAYMENT","value":"v"}},"instruction":"0707","shown":1,"tx":null,"confirmed":false,"finalized":false,"delivered":false,"note":null}}"#
        ),
        format!(r#"{{"decision":{decision},"channel":"0x{hash}","deposit":{money}}}"#),
        format!(r#"{{"channel":"0x{hash}","attempt":"{attempt}","decision":null}}"#),
        format!(r#"{{"authorization":{authorization}}}"#),
        r#"{"voucher":{"name":"n","value":"v"}}"#.to_owned(),
        r#"{"required":"3","accepted":"2","deposit":"9","spent":"1"}"#.to_owned(),
        r#"{"accepted":"3","spent":"2","units":"1","deposit":"9","settled":"0","json":"{}"}"#.to_owned(),
        r#"{"outcome":{"is":"refused","note":"no"},"served":true,"streamed":false,"is_whole":true}"#.to_owned(),
        r#"{"missing":"5"}"#.to_owned(),
        r#"{"id":"apr_0123456789abcdef0123456789abcdef","status":"pending","voices":1,"quorum":2,"expires_ms":3,"used":false,"text":"t","left":{"payments":1,"atoms":"5"}}"#.to_owned(),
        r#"{"payments":3,"each":"0.1","total":"1","lasts_s":60,"below":"https://a.example/","any_body":true}"#.to_owned(),
        r#"{"frozen":false,"by_hand":{"caps":[{"of":"dollar","per_payment":"1","hour":{"limit":"1","spent":"0","left":"1"},"day":{"limit":"1","spent":"0","left":"1"}}],"networks":[],"hosts":["*"]}}"#.to_owned(),
        format!(r#"{{"code":"denied","message":"m","findings":[{finding}]}}"#),
    ];
    let mut all = Vec::new();
    for (which, record) in (0..).zip(&records) {
        all.push([&[1, which][..], record.as_bytes()].concat());
        all.push([&[0][..], format!(r#"{{"id":7,"do":"authorize","with":{record}}}"#).as_bytes()].concat());
        all.push([&[3][..], format!(r#"{{"id":7,"ok":{record}}}"#).as_bytes()].concat());
    }
    all.push([&[3][..], format!(r#"{{"id":null,"error":{}}}"#, records[16]).as_bytes()].concat());
    all.push([&[4, 3, 1, 2, 5][..], b"one\ntwo\n\nthree\n"].concat());
    all.push([&[4, 2, 30, 1][..], b"a line that is longer than it may be\n"].concat());
    all.push(b"\x05{\"agent\":\"acme/a\"}".to_vec());
    all.push(b"\x05{\"all\":true}".to_vec());
    for how in 0..=255 {
        if how & 24 == 0 || how % 7 == 0 {
            all.push(vec![6, how, 10, 0, 3, 0]);
        }
    }
    all.push([&[6, 16, 0, 45][..], br#"{"type":"wallet.freeze","data":{"all":true}} "#].concat());
    all
}

fn ap2() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> =
        crate::targets::ap2::chains().map(|chain| [&[0][..], chain.as_bytes()].concat()).to_vec();
    all.push(
        [&[1][..], br#"{"kty":"EC","crv":"P-256","x":"vxIBPL4N3Xghx0iqkf8L2esJ5_OldPSAK1zVOmG9s8o","y":"ZjcIzzkmC37FTqV5hXVQwL2cj5BdqxTNcUjqp8p_xbU","kid":"a","use":"sig","alg":"ES256","key_ops":["verify"]}"#]
            .concat(),
    );
    for n in 0..4 {
        all.push(vec![2, n]);
        all.push(vec![2, n, 3, 7 * n, 1, 1, b'A']);
        all.push(vec![4, n, 0, 0]);
    }
    for n in 0..24 {
        all.push(vec![4, n & 1, 0, 0, 0, n, 0, n]);
        all.push(vec![4, n & 1, 4, 0, n, 0, 3, 0]);
        all.push(vec![4, n & 1, 0, 4, 0, n % 4, 7, n]);
    }
    all
}

fn proxy() -> Vec<Vec<u8>> {
    let lists: [(u8, &[&str]); 4] = [
        (
            0,
            &[
                "http://a.example/b?c=%2F",
                "https://A.example:8443/",
                "http://[::1]:80/",
                "http://user@a.example/",
                "http://xn--nxasmq6b/",
                "http://127.1/",
                "/b",
                "*",
                "ftp://a.example/",
            ],
        ),
        (
            2,
            &[
                "a.example:443",
                "A.Example.:8443",
                "[::1]:443",
                "127.1:443",
                "user@a.example:443",
                "a.example",
            ],
        ),
        (6, &["Basic YWdlbnQ6YTpi", "basic YWdlbnQ6", "Basic YWdlbnQ", "Bearer x"]),
        (
            7,
            &[
                "\u{1}\u{0}\u{0}no\u{e0070}\u{202e}",
                "\u{0}\u{0}\u{1}\u{200b}text\r\n",
                "\u{1}\u{0}\u{0}----- end -----",
            ],
        ),
    ];
    let mut all: Vec<Vec<u8>> = lists
        .into_iter()
        .flat_map(|(mode, texts)| texts.iter().map(move |text| [&[mode][..], text.as_bytes()].concat()))
        .collect();
    for (host, path) in [
        ("a.example", "/b?c"),
        ("A.example:443", "//evil.example/b"),
        ("b.example", "https://b.example/"),
        ("", "*"),
    ] {
        let len = u8::try_from(host.len()).expect("short");
        all.push([&[3, 0, len][..], host.as_bytes(), path.as_bytes()].concat());
    }
    for n in 0..20 {
        all.push(vec![4, 1, 0, 1, 1, 1, n, 1, n % 7, 1, 15, 1, 2]);
    }
    all
}

/// Instructions of payments that were checked.
fn recalled() -> Vec<Vec<u8>> {
    use farthing_primitives::PullMethod;
    use farthing_rails::exact_evm::buy::{Nonce, authorize};
    use farthing_rails::exact_evm::check;

    let mut all = Vec::new();
    for method in [PullMethod::Eip3009, PullMethod::Permit2] {
        let asked = crate::money::asked(method);
        let validity = std::time::Duration::from_secs(60);
        let now = crate::money::NOW;
        let unsigned =
            authorize(&asked, &crate::money::account(), Nonce([7; 32]), validity, now).expect("payable");
        let shown = unsigned.signed(&crate::money::payer().sign(unsigned.digest()), None);
        for how in [&[4, 0][..], &[2, 3, 1, 2, 3, 0], &[4, 1, 0], &[3, 5, 1, 0]] {
            let shown = crate::money::signed(&asked, shown.clone(), &mut crate::input::Input::new(how));
            for policy in crate::money::policies() {
                if let Some(Ok(checked)) = shown.as_ref().map(|shown| check(&asked, shown, now, policy)) {
                    all.push([&[0, 1, 1, 1, 1, 1, 1, 1, 1], checked.instruction().as_bytes()].concat());
                }
            }
        }
    }
    all
}

/// What an `aggregate3` of one call returns.
fn two_results() -> Vec<u8> {
    let word = |n: u8| [&[0; 31][..], &[n]].concat();
    [word(32), word(1), word(32), word(1), word(64), word(32), word(5)].concat()
}

/// Two results that point at one place.
fn shared_result() -> Vec<u8> {
    let word = |n: u8| [&[0; 31][..], &[n]].concat();
    [word(32), word(2), word(64), word(64), word(1), word(64), word(250), vec![7; 256]].concat()
}

fn read(path: &Path) -> Json {
    const ROOMY: Limits = Limits { bytes: 1 << 22, values: 1 << 20, members: 1 << 12 };
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    json::parse(&text, ROOMY).expect("a vector")
}

fn rows(file: &Json, key: &str) -> Vec<Json> {
    file.as_object().and_then(|object| object.get(key)).and_then(Json::as_array).expect(key).to_vec()
}

fn bytes_of(case: &Json, key: &str) -> Vec<u8> {
    let text = case.as_object().and_then(|object| object.get_str(key)).expect(key);
    hex::decode(text.trim_start_matches("0x")).expect(key)
}
