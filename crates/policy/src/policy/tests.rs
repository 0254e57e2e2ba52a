use std::sync::Arc;
use std::time::Duration;

use farthing_primitives::{Address, Network, Registry, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{
    AgentName, Approval, Bucket, Caller, Charge, Decision, Fact, History, HostPattern, Law, Mention, Meters,
    Movement, Named, Origin, Request, Source, Sums,
};

mod asked;
mod follow;
mod taint;

/// A Tuesday, 22:13:20 UTC.
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
/// A millionth of a dollar, in units of 10^-18.
const MICRO: u128 = 1_000_000_000_000;

const ACME: &str = r#"
version: 1
owner: acme
secrets_in_url: deny
max_validity: 2m
breaker: {refusals: 3, within: 10m, price_jump: 10, velocity_jump: 100}
budgets:
  acme:
    per_payment: $1
    rolling: {24h: $5}
    calendar: {month: $50}
    lifetime: $500
  acme/research:
    rolling: {1h: $2, 24h: $4}
    per_payee: {24h: $1.50}
    payments: {1m: 30}
  acme/research/scout:
    per_payment: $0.50
    per_tool: {1h: $0.75}
  acme/sales:
    rolling: {24h: $4}
allow:
  - name: weather
    hosts: [api.weather.example]
    paths: [/v1/*]
    methods: [GET]
    networks: [eip155:8453]
    schemes: [exact]
  - name: data
    agents: [acme/research]
    hosts: ["*.data.example"]
    max: $0.25
    max_validity: 30s
    pay_to: ["0x0101010101010101010101010101010101010101"]
deny:
  - name: no-secrets
    paths: [/v1/secret/*]
  - name: nothing-large-at-night
    over: $0.40
    hours: {from: "22:00", to: "24:00"}
approve:
  - name: dear
    over: $0.30
    quorum: 2
  - name: newcomer
    agents: [acme/sales]
    new_payee: true
"#;

fn acme() -> Policy {
    Policy::parse(ACME).unwrap()
}

fn agent(name: &str) -> Option<AgentName> {
    Some(name.parse().unwrap())
}

fn payee(n: u8) -> Address {
    Address::from_evm_bytes([n; 20])
}

fn request(agent_name: &str, url: &str, micros: u128) -> Request {
    let registry = Registry::builtin();
    let money = registry.dollar(&Network::eip155(8453)).unwrap().atoms(micros);
    let url: url::Url = url.parse().unwrap();
    Request {
        scheme: "exact".to_owned(),
        charge: Charge::of(&registry, money).unwrap(),
        price: None,
        payee: payee(1),
        origin: Origin::of(&url).unwrap(),
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(20),
        screened: None,
        caller: Caller {
            agent: agent(agent_name),
            tool: Some("forecast".to_owned()),
            method: "GET".to_owned(),
            url: url.to_string(),
            path: url.path().to_owned(),
            ..Caller::default()
        },
    }
}

const WEATHER: &str = "https://api.weather.example/v1/now";

/// The same to somebody else.
fn paid_elsewhere(agent_name: &str, micros: u128, ago: u64) -> Vec<Movement> {
    let mut moved = paid(agent_name, micros, ago);
    for movement in &mut moved {
        Arc::make_mut(&mut movement.of).payee = Some(payee(2));
    }
    moved
}

/// Both movements of a payment, as the books have them.
fn paid(agent_name: &str, micros: u128, ago: u64) -> Vec<Movement> {
    let registry = Registry::builtin();
    let asset = registry.dollar(&Network::eip155(8453)).unwrap().id.clone();
    let of = Arc::new(Source {
        agent: agent(agent_name),
        authority: "api.weather.example:443".to_owned(),
        payee: Some(payee(1)),
        tool: Some("forecast".to_owned()),
    });
    let until = NOW.minus(Duration::from_secs(ago));
    vec![
        Movement { bucket: Bucket::Asset(asset), amount: micros, until, of: of.clone() },
        Movement { bucket: Bucket::Dollar, amount: micros * MICRO, until, of },
    ]
}

fn known(movements: Vec<Movement>) -> History {
    History { movements, pinned: vec![payee(1)], ..History::default() }
}

fn denials(decision: &Decision) -> Vec<&str> {
    decision.denials().map(Fact::code).collect()
}

#[track_caller]
fn check(history: &History, request: &Request, expected: &[&str]) {
    let decision = acme().decide(false, history, request, NOW);
    assert_eq!(denials(&decision), expected, "{decision}");
    assert_eq!(decision.is_allowed(), expected.is_empty());
}

#[test]
fn attack_33_an_address_with_a_secret_is_not_paid_for_unless_the_owner_says_so() {
    let history = known(Vec::new());
    let asked = request("acme", "https://api.weather.example/v1/now?api_key=hunter2", 1);
    check(&history, &asked, &["secret_in_url"]);
    assert!(!acme().decide(false, &history, &asked, NOW).to_string().contains("hunter2"));
    let lenient = Policy::parse(&ACME.replace("secrets_in_url: deny", "secrets_in_url: allow")).unwrap();
    assert!(lenient.decide(false, &history, &asked, NOW).is_allowed());
    assert_eq!(lenient.loosens(&acme()), [Loosening::Secrets]);
    assert!(acme().loosens(&lenient).is_empty());
}

#[test]
fn a_payment_takes_a_rule_that_covers_all_of_it() {
    let history = known(Vec::new());
    check(&history, &request("acme/research/scout", WEATHER, 100_000), &[]);
    check(&history, &request("acme", WEATHER, 100_000), &[]);
    for (url, code) in [
        ("https://api.weather.example/v2/now", "not_allowed"),
        ("https://api.weather.example/v1", "not_allowed"),
        ("https://api.weather.example/v1x/now", "not_allowed"),
        ("https://api.weather.example/v1/%2e%2e/v2", "not_allowed"),
        ("https://other.example/v1/now", "host_not_allowed"),
    ] {
        check(&history, &request("acme", url, 1), &[code]);
    }
    let asked = request("acme", WEATHER, 1);
    let caller = Caller { method: "POST".to_owned(), ..asked.caller.clone() };
    check(&history, &Request { caller, ..asked.clone() }, &["not_allowed"]);
    check(&history, &Request { scheme: "session".to_owned(), ..asked.clone() }, &["not_allowed"]);
    check(&history, &Request { private: true, ..asked.clone() }, &["not_allowed"]);
    check(&history, &Request { validity: Duration::from_secs(121), ..asked.clone() }, &["validity_too_long"]);
    check(&history, &Request { payee: payee(2), ..asked.clone() }, &["payee_changed"]);
    check(
        &history,
        &Request { only: Some(Network::eip155(84532)), ..asked.clone() },
        &["network_not_allowed"],
    );
    check(&history, &Request { max: Some(0), ..asked }, &["over_max"]);
    let plain = request("acme", "http://api.weather.example/v1/now", 1);
    check(&history, &plain, &["not_allowed"]);
    let frozen = acme().decide(true, &history, &request("acme", WEATHER, 1), NOW);
    assert_eq!(denials(&frozen), ["frozen"]);
}

#[test]
fn a_rule_names_payees_ports_and_its_own_limits() {
    let history = History::default();
    let data = |micros| request("acme/research/scout", "https://eu.data.example/x", micros);
    assert!(Policy::parse(ACME).is_ok());
    check(&history, &data(250_000), &[]);
    check(&history, &data(250_001), &["not_allowed"]);
    check(&history, &Request { payee: payee(2), ..data(1) }, &["not_allowed"]);
    check(&history, &Request { validity: Duration::from_secs(31), ..data(1) }, &["validity_too_long"]);
    let stranger = Caller { agent: agent("acme/sales"), ..data(1).caller };
    check(&history, &Request { caller: stranger, ..data(1) }, &["host_not_allowed", "approval_required"]);
}

#[test]
fn one_rule_that_denies_outweighs_all_that_allow() {
    let history = known(Vec::new());
    check(&history, &request("acme", "https://api.weather.example/v1/secret/keys", 1), &["denied_by_rule"]);
    let approved = History {
        approval: Some(Approval { id: "apr_1".to_owned(), voices: 9, grant: false }),
        ..known(Vec::new())
    };
    check(&approved, &request("acme", WEATHER, 400_001), &["denied_by_rule"]);
    check(&approved, &request("acme", WEATHER, 400_000), &[]);
    // The night begins at 22:00 and not a minute before.
    let evening = NOW.minus(Duration::from_secs(14 * 60));
    let decision = acme().decide(false, &approved, &request("acme", WEATHER, 400_001), evening);
    assert!(decision.is_allowed(), "{decision}");
}

#[test]
fn attack_24_a_child_counts_in_every_budget_above_it() {
    // The team has spent 3.90 of 4 in a day, by a sibling.
    let history = known(paid_elsewhere("acme/research/other", 3_900_000, 7200));
    let scout = |micros| request("acme/research/scout", WEATHER, micros);
    check(&history, &scout(100_000), &[]);
    check(&history, &scout(100_001), &["over_budget"]);
    // Sales has its own 4, and both share 5.
    let both = known(
        [paid_elsewhere("acme/research/other", 3_000_000, 7200), paid("acme/sales", 1_900_000, 7200)]
            .concat(),
    );
    check(&both, &scout(100_000), &[]);
    check(&both, &scout(100_001), &["over_budget"]);
    // What is not below does not count.
    let acme2 =
        Policy::parse(&ACME.replace("  acme/sales:", "  acme2: {lifetime: $1}\n  acme/sales:")).unwrap();
    let other = known(paid("acme2", 4_000_000, 7200));
    assert!(acme2.decide(false, &other, &scout(100_000), NOW).is_allowed());
    for nobody in ["acme2", "other"] {
        assert!(
            denials(&acme().decide(false, &history, &request(nobody, WEATHER, 1), NOW))
                .contains(&"agent_unknown")
        );
    }
}

#[test]
fn windows_roll_and_the_calendar_turns() {
    let scout = |micros| request("acme/research/scout", WEATHER, micros);
    // $2 in any hour for the team; the tool alone may take $0.75.
    let at = |ago| known(paid_elsewhere("acme/research", 2_000_000, ago));
    check(&at(3599), &scout(1), &["over_budget"]);
    check(&at(3600), &scout(1), &[]);
    let month = |ago| known(paid("acme", 50_000_000, ago));
    // The first of November was 13 days and 22:13:20 before.
    let since_first = 13 * 86_400 + 22 * 3600 + 13 * 60 + 20;
    check(&month(since_first), &request("acme", WEATHER, 1), &["over_budget"]);
    check(&month(since_first + 1), &request("acme", WEATHER, 1), &[]);
    check(&known(paid("acme", 500_000_000, 90 * 86_400)), &request("acme", WEATHER, 1), &["over_budget"]);
    assert_eq!(acme().memory(), None, "a limit for all time needs all of it");
}

#[test]
fn the_calendar_is_that_of_the_world() {
    for (now, day, week, month) in [
        // 2023-11-14 is a Tuesday.
        (1_700_000_000, 1_699_920_000, 1_699_833_600, 1_698_796_800),
        // 2024-02-29 is a Thursday.
        (1_709_251_199, 1_709_164_800, 1_708_905_600, 1_706_745_600),
        // 2024-03-01.
        (1_709_251_200, 1_709_251_200, 1_708_905_600, 1_709_251_200),
        // 2100-02-28 is followed by March.
        (4_107_542_399, 4_107_456_000, 4_106_937_600, 4_105_123_200),
        (4_107_542_400, 4_107_542_400, 4_107_542_400, 4_107_542_400),
        // 1970-01-01 is a Thursday: its week began before time.
        (5, 0, 0, 0),
    ] {
        let now = Timestamp::from_secs(now);
        assert_eq!(Calendar::Day.begin(now), Timestamp::from_secs(day));
        assert_eq!(Calendar::Week.begin(now), Timestamp::from_secs(week), "{now}");
        assert_eq!(Calendar::Month.begin(now), Timestamp::from_secs(month), "{now}");
    }
}

#[test]
fn payments_are_counted() {
    let scout = request("acme/research/scout", WEATHER, 1);
    let many = |n: usize| known((0..n).flat_map(|_| paid("acme/research/scout", 1, 30)).collect());
    check(&many(29), &scout, &[]);
    check(&many(30), &scout, &["over_count"]);
    // By itself, a hundred times the usual speed stops.
    let sales = request("acme/sales", WEATHER, 1);
    let fast = |n: usize| known((0..n).flat_map(|_| paid("acme/sales", 1, 30)).collect());
    check(&fast(99), &sales, &[]);
    check(&fast(100), &sales, &["velocity_jump"]);
    // Who made two a minute all day may make 199 in this one.
    let steady = (0..2 * 1440).flat_map(|i| paid("acme/sales", 1, 60 + i % 86_000));
    let busy = known(steady.chain((0..199).flat_map(|_| paid("acme/sales", 1, 30))).collect());
    check(&busy, &sales, &[]);
}

#[test]
fn a_price_that_jumps_stops() {
    let asked = request("acme", WEATHER, 10_000);
    let usual = |usual| History { usual_price: Some(usual), ..known(Vec::new()) };
    check(&usual(1_001), &asked, &[]);
    check(&usual(1_000), &asked, &["price_jump"]);
    check(&usual(0), &asked, &[]);
}

#[test]
fn what_waits_for_people_is_told_apart_from_what_is_denied() {
    let asked = request("acme", WEATHER, 350_000);
    let with = |voices| History {
        approval: Some(Approval { id: "apr_1".to_owned(), voices, grant: false }),
        ..known(Vec::new())
    };
    let decide = |history: &History| acme().decide(false, history, &asked, NOW);
    assert_eq!(decide(&known(Vec::new())).asks_for_approval(), Some(2));
    assert_eq!(decide(&with(1)).asks_for_approval(), Some(2));
    let approved = decide(&with(2));
    assert!(approved.is_allowed(), "{approved}");
    assert_eq!(approved.asks_for_approval(), None);
    // No approval lifts a cap.
    let history = History { movements: paid("acme", 5_000_000, 60), ..with(2) };
    let decision = decide(&history);
    assert_eq!((denials(&decision), decision.asks_for_approval()), (vec!["over_budget"], None));
    let newcomer = request("acme/sales", WEATHER, 1);
    check(&History::default(), &newcomer, &["approval_required"]);
    check(&known(Vec::new()), &newcomer, &[]);
}

#[test]
fn an_asset_that_no_budget_counts_is_not_paid_with() {
    let registry = Registry::builtin();
    let euro = registry.by_symbol(&Network::eip155(8453), "EURC").unwrap().atoms(1);
    let asked = Request { charge: Charge::of(&registry, euro).unwrap(), ..request("acme", WEATHER, 1) };
    check(&known(Vec::new()), &asked, &["asset_not_allowed"]);
}

#[test]
fn whoever_has_no_name_has_the_owners_budget_or_the_only_one() {
    let asked = request("acme", WEATHER, 1);
    let nameless = Request { caller: Caller { agent: None, ..asked.caller.clone() }, ..asked };
    check(&known(Vec::new()), &nameless, &[]);
    let without = |text: &str| Policy::parse(&text.replace("owner: acme\n", "")).unwrap();
    assert!(without(ACME).decide(false, &known(Vec::new()), &nameless, NOW).is_allowed());
    let two = without(&ACME.replace("  acme/sales:", "  other: {lifetime: $1}\n  acme/sales:"));
    assert_eq!(denials(&two.decide(false, &known(Vec::new()), &nameless, NOW)), ["agent_unknown"]);
}

#[test]
fn what_is_not_exactly_a_policy_is_none() {
    let bad = |from: &str, to: &str| {
        assert!(ACME.contains(from), "{from}");
        let error = Policy::parse(&ACME.replacen(from, to, 1)).expect_err(to);
        error.to_string()
    };
    for (from, to, said) in [
        ("version: 1", "version: 2", "version 2"),
        ("version: 1", "versionn: 1", "versionn"),
        ("version: 1", "version: 1\ndefault: allow", "default"),
        ("per_payment: $1", "per_payment: 1", "expected an amount"),
        ("per_payment: $1", "per_payment: 0.5", "expected an amount"),
        ("per_payment: $1", "per_payment: \"1\"", "of what"),
        ("per_payment: $1", "per_payment: $1e6", "$1e6"),
        ("per_payment: $1", "per_payment: $-1", "$-1"),
        ("per_payment: $1", "per_payment: $+1", "$+1"),
        ("per_payment: $1", "per_payment: $01", "$01"),
        ("per_payment: $1", "per_payment: $1.0000000000000000001", "$1.0000000000000000001"),
        ("per_payment: $1", "per_payment: $340282366920938463463374607431768211456", "$340"),
        ("per_payment: $1", "per_payment: {USDC: 1}", "USDC"),
        ("per_payment: $1", "per_payment: {}", "nothing"),
        ("rolling: {24h: $5}", "rolling: {24: $5}", "24"),
        ("rolling: {24h: $5}", "rolling: {0h: $5}", "0h"),
        ("rolling: {24h: $5}", "rolling: {99999d: $5}", "99999d"),
        ("calendar: {month: $50}", "calendar: {year: $50}", "year"),
        ("  acme/sales:", "  Acme/sales:", "Acme"),
        ("  acme/sales:", "  acme/research:", "acme/research"),
        ("owner: acme", "owner: nobody", "nobody"),
        ("    rolling: {1h: $2, 24h: $4}", "    rolling: {1h: $2, 24h: $6}", "acme/research"),
        ("paths: [/v1/*]", "paths: [v1]", "v1"),
        ("paths: [/v1/*]", "paths: [/v*/now]", "/v*/now"),
        ("methods: [GET]", "methods: [get]", "get"),
        ("networks: [eip155:8453]", "networks: [base]", "base"),
        ("pay_to: [\"0x0101010101010101010101010101010101010101\"]", "pay_to: anyone", "anyone"),
        ("pay_to: [\"0x0101010101010101010101010101010101010101\"]", "pay_to: [\"0x01\"]", "0x01"),
        ("hours: {from: \"22:00\", to: \"24:00\"}", "hours: {from: \"22:00\", to: \"02:00\"}", "midnight"),
        ("hours: {from: \"22:00\", to: \"24:00\"}", "hours: {from: \"2:00\", to: \"24:00\"}", "2:00"),
        ("quorum: 2", "quorum: 0", "quorum"),
        ("price_jump: 10", "price_jump: 1", "price_jump"),
        ("- name: weather", "- name: \"a\\e[2J\"", "allow[0].name"),
        ("hosts: [api.weather.example]\n", "agents: [acme]\n", "hosts"),
    ] {
        let error = bad(from, to);
        assert!(error.contains(said), "{to}: {error}");
    }
    assert!(bad("per_payment: $1", "per_payment: 1").contains("line 9"), "a place in the text is named");
    assert_eq!(Policy::parse(&" ".repeat(MAX_FILE_BYTES + 1)), Err(PolicyError::TooLong));
    assert!(matches!(Policy::parse(""), Err(PolicyError::Text(_))));
    let bomb = format!("version: 1\nallow: {}", "[".repeat(100_000));
    assert!(matches!(Policy::parse(&bomb), Err(PolicyError::Text(_))));
    let aliases =
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n";
    assert!(matches!(Policy::parse(aliases), Err(PolicyError::Text(_))));
    // JSON is YAML.
    assert!(Policy::parse(r#"{"version": 1, "budgets": {"a": {"lifetime": "$1"}}}"#).is_ok());
}

#[test]
fn an_error_is_short_whatever_the_file_says() {
    let (long, hard) = ("\u{1}".repeat(50_000), "x".repeat(100_000));
    for file in [
        format!("version: 1\n{hard}: 1\n"),
        format!("{{\"version\": 1,\"bud\u{1b}gets\u{85}\": {{ {hard}"),
        format!("version: 1\nmax_validity: {hard}\n"),
        format!("version: 1\nowner: {hard}\n"),
        format!("version: 1\nbudgets:\n  {hard}: {{lifetime: $1}}\n"),
        format!("version: 1\nbudgets: {{a: {{lifetime: {hard}}}}}\n"),
        format!("version: 1\nbudgets: {{a: {{rolling: {{{hard}: $1}}}}}}\n"),
        format!("version: 1\nallow:\n  - {{hosts: [{hard}]}}\n"),
        format!("version: 1\nallow:\n  - {{name: {hard}, hosts: [a.example]}}\n"),
        format!("version: 1\nallow:\n  - {{hosts: [a.example], when: \"{hard}\"}}\n"),
        format!("version: 1\nbudgets: {{a: {{lifetime: \"{}\"}}}}\n", long.escape_default()),
    ] {
        let error = Policy::parse(&file).unwrap_err().to_string();
        let start: String = file.chars().take(60).collect();
        assert!((1..=2048).contains(&error.len()), "{} bytes for {start}", error.len());
        assert!(!error.contains(|c: char| c.is_control() && c != '\n'), "{error:?} for {start}");
    }
}

#[test]
fn the_published_schema_is_that_of_the_reader() {
    let published: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/reference/policy.schema.json")).unwrap();
    assert_eq!(published, schema(), "farthing policy schema > docs/reference/policy.schema.json");
}

#[test]
fn attack_26_what_is_looser_is_seen() {
    let old = acme();
    assert_eq!(old.loosens(&old), []);
    let tighter = [
        ("per_payment: $1", "per_payment: $0.99"),
        ("rolling: {24h: $5}", "rolling: {24h: $5, 2h: $1}"),
        ("paths: [/v1/*]", "paths: [/v1/now, /v1/a/*]"),
        ("hosts: [\"*.data.example\"]", "hosts: [\"*.eu.data.example\"]"),
        ("max: $0.25", "max: $0.20"),
        ("over: $0.30", "over: $0.20"),
        ("quorum: 2", "quorum: 3"),
        ("over: $0.40", "over: $0.10"),
        ("max_validity: 2m", "max_validity: 1m"),
        ("refusals: 3", "refusals: 2"),
        ("  acme/sales:\n", "  acme/sales/inner: {lifetime: $1}\n  acme/sales:\n"),
        ("deny:\n", "deny:\n  - {hosts: [evil.example]}\n"),
    ];
    let looser = [
        ("per_payment: $1", "per_payment: $1.01"),
        ("    per_payment: $1\n", ""),
        ("rolling: {24h: $5}", "rolling: {25h: $5}"),
        ("paths: [/v1/*]", "paths: [/v1/*, /v2]"),
        ("    paths: [/v1/*]\n", ""),
        ("hosts: [\"*.data.example\"]", "hosts: [\"*.example\"]"),
        // Fewer hosts, of which one is named now, and so paid where people were asked.
        ("hosts: [\"*.data.example\"]", "hosts: [\"eu.data.example\"]"),
        ("max: $0.25", "max: $0.26"),
        ("    max: $0.25\n", ""),
        ("max_validity: 30s", "max_validity: 31s"),
        ("methods: [GET]", "methods: [GET, POST]"),
        ("agents: [acme/research]\n    hosts", "agents: [acme]\n    hosts"),
        ("over: $0.30", "over: $0.31"),
        ("quorum: 2", "quorum: 1"),
        ("over: $0.40", "over: $0.41"),
        ("to: \"24:00\"", "to: \"23:59\""),
        ("max_validity: 2m", "max_validity: 3m"),
        ("refusals: 3", "refusals: 4"),
        ("within: 10m", "within: 9m"),
        ("price_jump: 10", "price_jump: 11"),
        (", velocity_jump: 100", ""),
        ("payments: {1m: 30}", "payments: {1m: 31}"),
        ("  acme/sales:\n", "  other: {lifetime: $1}\n  acme/sales:\n"),
        ("  acme/sales:\n    rolling: {24h: $4}\n", ""),
        ("owner: acme\n", ""),
        ("    agents: [acme/sales]\n    new_payee: true", "    agents: [acme/sales/x]\n    new_payee: true"),
        ("  - name: no-secrets\n    paths: [/v1/secret/*]\n", ""),
        ("allow:\n", "allow:\n  - {hosts: [x.example]}\n"),
    ];
    for (from, to) in tighter {
        let new = Policy::parse(&ACME.replacen(from, to, 1)).unwrap();
        assert_ne!(new, old, "{to}");
        assert_eq!(new.loosens(&old), [], "{from} -> {to}");
    }
    for (from, to) in looser {
        let new = Policy::parse(&ACME.replacen(from, to, 1)).unwrap();
        assert_ne!(new, old, "{to}");
        assert_ne!(new.loosens(&old), [], "{from} -> {to}");
    }
}

#[test]
fn a_key_whose_value_was_forgotten_is_no_policy() {
    for (from, to) in [
        ("max: $0.25", "max:"),
        ("paths: [/v1/*]", "paths:"),
        ("paths: [/v1/*]", "paths: ~"),
        ("networks: [eip155:8453]", "networks: null"),
        ("per_payment: $1", "per_payment:"),
        ("lifetime: $500", "lifetime:"),
        ("    quorum: 2", "    quorum:"),
        ("over: $0.40", "over:"),
        ("max_validity: 2m", "max_validity:"),
        ("rolling: {24h: $5}", "rolling:"),
        ("rolling: {24h: $5}", "rolling: ~"),
        ("refusals: 3", "refusals: "),
        ("paths: [/v1/secret/*]", "paths: []"),
        ("agents: [acme/sales]", "agents: []"),
    ] {
        let text = ACME.replacen(from, to, 1);
        assert_ne!(text, ACME, "{from}");
        assert!(Policy::parse(&text).is_err(), "{to}");
    }
}

/// `from` is in force, and `to` is said to loosen nothing or something.
fn loosens(from: &str, to: &str) -> bool {
    let (old, new) = (Policy::parse(from).unwrap(), Policy::parse(to).unwrap());
    assert_eq!(old.loosens(&old), []);
    !new.loosens(&old).is_empty()
}

#[test]
fn attack_26_budgets_cannot_be_cut_loose_from_the_one_that_held_them() {
    let tree = "version: 1\nbudgets:\n  acme: {rolling: {24h: $5}}\nallow: [{hosts: ['*']}]\n";
    // Its part is held by nothing any more.
    assert!(loosens(tree, &tree.replace("acme: {rolling: {24h: $5}}", "acme/a: {rolling: {24h: $500}}")));
    assert!(!loosens(tree, &tree.replace("  acme: {", "  acme/a: {lifetime: $1}\n  acme: {")));
    // Of two trees one goes, and whoever has no name may spend from the other.
    let two = tree.replace("  acme: {", "  other: {lifetime: $1}\n  acme: {");
    assert!(loosens(&two, tree));
    assert!(!loosens(
        &two.replace("budgets:", "owner: acme\nbudgets:"),
        &tree.replace("budgets:", "owner: acme\nbudgets:")
    ));
}

#[test]
fn attack_26_a_limit_for_what_nothing_counted_lets_it_in() {
    let atoms = "version: 1\nbudgets:\n  acme:\n    rolling: {24h: {\"eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913\": 5}}\nallow: [{hosts: ['*']}]\n";
    assert!(loosens(atoms, &atoms.replace("acme:\n", "acme:\n    per_payment: $1000\n")));
    assert!(loosens(atoms, &atoms.replace("allow:", "  acme/a: {per_payment: $1000}\nallow:")));
}

#[test]
fn attack_26_a_rule_that_came_first_is_missed() {
    let rules = "version: 1
budgets: {acme: {rolling: {24h: $5}}}
allow:
  - {name: brief, hosts: [api.weather.example], max_validity: 10s}
  - {name: named, hosts: ['*.weather.example'], pay_to: ['0x0101010101010101010101010101010101010101']}
  - {name: rest, hosts: ['*']}
";
    let brief = "  - {name: brief, hosts: [api.weather.example], max_validity: 10s}\n";
    assert!(loosens(rules, &rules.replace(brief, "")));
    assert!(loosens(rules, &format!("{}{brief}", rules.replace(brief, ""))));
    assert!(loosens(rules, &rules.replace("max_validity: 10s", "paths: [/a], max_validity: 10s")));
    assert!(!loosens(rules, &rules.replace("max_validity: 10s", "max_validity: 9s")));
    assert!(!loosens(rules, &rules.replace("  - {name: rest, hosts: ['*']}\n", "")));
}

#[test]
fn a_path_in_disguise_escapes_no_rule_that_stops() {
    let text = ACME
        .replace("paths: [/v1/*]\n    methods", "methods")
        .replace("    quorum: 2", "    quorum: 2\n    paths: [/v1/dear/*]");
    let policy = Policy::parse(&text).unwrap();
    for path in ["/v1/secret/x", "/v1/%73ecret/x", "/v1//secret/x", "/v1;a/secret/x", "/v1/./secret/x"] {
        let mut asked = request("acme/research", WEATHER, 1000);
        asked.caller.path = path.to_owned();
        let decision = policy.decide(false, &known(Vec::new()), &asked, NOW);
        assert_eq!(denials(&decision), ["denied_by_rule"], "{path}");
        assert_eq!(
            Law::Policy { frozen: false, policy: Arc::new(policy.clone()) }.room(None, &asked, NOW),
            0
        );
    }
    let mut dear = request("acme/research", WEATHER, 350_000);
    dear.caller.path = "/v1/de%61r/x".to_owned();
    let without = Policy { deny: Vec::new().into(), ..policy };
    assert_eq!(denials(&without.decide(false, &known(Vec::new()), &dear, NOW)), ["approval_required"]);
    assert!(Policy::parse(&ACME.replace("/v1/secret/*", "/v1/../secret/*")).is_err());
}

fn any_request() -> impl Strategy<Value = Request> {
    let agents = ["acme", "acme/research", "acme/research/scout", "acme/sales", "acme/sales/inner", "other"];
    let urls = [
        WEATHER,
        "https://api.weather.example/v1/secret/x",
        "https://api.weather.example/v2",
        "https://eu.data.example/x",
        "https://x.data.example/x",
        "https://x.example/",
        "http://api.weather.example/v1/now",
        "https://api.weather.example/v1/now?api_key=x",
    ];
    (
        prop::sample::select(agents.to_vec()),
        prop::sample::select(urls.to_vec()),
        prop_oneof![1u128..1000, 200_000u128..450_000, 900_000u128..1_100_000],
        1u8..3,
        prop::sample::select(vec!["GET", "POST"]),
        1u64..200,
    )
        .prop_map(|(agent, url, micros, to, method, validity)| {
            let mut request = request(agent, url, micros);
            request.payee = payee(to);
            request.caller.method = method.to_owned();
            request.validity = Duration::from_secs(validity);
            request
        })
}

fn any_pattern() -> impl Strategy<Value = HostPattern> {
    let patterns = [
        "*",
        "api.weather.example",
        "*.weather.example",
        "*.example",
        "eu.data.example",
        "eu.data.example:443",
        "eu.data.example:8443",
        "*.data.example",
        "x.example",
        "weather.example",
        "127.0.0.1",
    ];
    prop::sample::select(patterns.to_vec()).prop_map(|text| text.parse().unwrap())
}

fn any_history() -> impl Strategy<Value = History> {
    let spent = (
        prop::sample::select(vec!["acme", "acme/research/scout", "acme/sales"]),
        1u128..3_000_000,
        0u64..100_000,
    )
        .prop_map(|(agent, micros, ago)| paid(agent, micros, ago));
    let mentions = prop::collection::vec(
        prop::sample::select(vec![
            Named::Host("eu.data.example".parse().unwrap()),
            Named::Host("x.data.example".parse().unwrap()),
            Named::Payee(payee(2)),
        ])
        .prop_map(|what| Mention { what, by: "tools.example:443 search".to_owned() }),
        0..2,
    );
    (prop::collection::vec(spent, 0..5), 0u8..2, 0u32..5, prop::option::of(0u32..4), mentions).prop_map(
        |(movements, pinned, refusals, voices, mentions)| History {
            mentions,
            movements: movements.concat(),
            pinned: (0..pinned).map(|n| payee(n + 1)).collect(),
            refusals,
            usual_price: None,
            approval: voices.map(|voices| Approval { id: "apr_1".to_owned(), voices, grant: false }),
            ..History::default()
        },
    )
}

/// Edits of the policy above: some tighter, some looser, some neither.
const EDITS: [(&str, &str); 26] = [
    ("over: $0.40\n", "over: $0.40\n    when: 'amount < 450000'\n"),
    ("    max: $0.25", "    when: 'amount != 7'\n    max: $0.25"),
    (
        "    paths: [/v1/secret/*]",
        "    when: 'method == \"GET\" && 1 / (amount - 1) > 0'\n    paths: [/v1/secret/*]",
    ),
    ("    methods: [GET]", "    when: '100 / (amount % 7) > 20'\n    methods: [GET]"),
    ("    over: $0.30", "    when: '1 / (amount % 5) >= 0'\n    over: $0.30"),
    ("owner: acme\n", "owner: acme\nscreen: {command: [/bin/true]}\n"),
    ("secrets_in_url: deny", "secrets_in_url: allow"),
    ("secrets_in_url: deny", "secrets_in_url: deny\ntaint: deny"),
    ("secrets_in_url: deny", "secrets_in_url: deny\ntaint: off"),
    ("hosts: [\"*.data.example\"]", "hosts: [\"*.data.example\", x.data.example]"),
    ("per_payment: $1", "per_payment: $0.50"),
    ("per_payment: $1", "per_payment: $2"),
    ("rolling: {24h: $5}", "rolling: {24h: $6}"),
    ("lifetime: $500", "lifetime: $5"),
    ("paths: [/v1/*]", "paths: [/v2, /v1/*]"),
    ("paths: [/v1/*]", "paths: [/v1/now]"),
    ("methods: [GET]", "methods: [GET, POST]"),
    ("agents: [acme/research]\n    hosts", "agents: [acme]\n    hosts"),
    ("agents: [acme/research]\n    hosts", "agents: [acme/research/scout]\n    hosts"),
    ("max: $0.25", "max: $0.50"),
    ("quorum: 2", "quorum: 1"),
    ("over: $0.30", "over: $0.20"),
    ("  - name: no-secrets\n    paths: [/v1/secret/*]\n", ""),
    ("refusals: 3", "refusals: 4"),
    ("max_validity: 2m", "max_validity: 1m"),
    ("owner: acme\n", "owner: acme/research\n"),
];

proptest! {
    /// The law behind reloading: what is said to loosen nothing allows nothing that was not allowed.
    #[test]
    fn a_policy_that_loosens_nothing_allows_nothing_new(
        before in prop::collection::vec(prop::sample::select(EDITS.to_vec()), 0..3),
        edits in prop::collection::vec(prop::sample::select(EDITS.to_vec()), 1..4),
        request in any_request(),
        history in any_history(),
    ) {
        // The new one is edited from the first, or from the old one.
        let edit = |edits: &[(&str, &str)], text: &str| {
            edits.iter().fold(text.to_owned(), |text, (from, to)| text.replacen(from, to, 1))
        };
        let texts = [ACME.to_owned(), edit(&before, ACME), edit(&edits, ACME), edit(&edits, &edit(&before, ACME))];
        // An edit that meets its own trace writes a key twice.
        let read: Vec<Policy> = texts.iter().filter_map(|text| Policy::parse(text).ok()).collect();
        for (old, new) in read.iter().flat_map(|old| read.iter().map(move |new| (old, new))) {
        if new.loosens(old).is_empty() && new.decide(false, &history, &request, NOW).is_allowed() {
            let decision = old.decide(false, &history, &request, NOW);
            prop_assert!(decision.is_allowed(), "{decision}");
        }
        }
    }

    #[test]
    fn more_spending_never_allows_more_in_a_tree(
        request in any_request(), history in any_history(), micros in 1u128..3_000_000, ago in 0u64..100_000,
    ) {
        let mut more = history.clone();
        more.movements.extend(paid("acme/research", micros, ago));
        // An average that rises lets the machine pay faster, which is what it is there for.
        let policy = Policy { velocity_jump: None, ..acme() };
        if policy.decide(false, &more, &request, NOW).is_allowed() {
            prop_assert!(policy.decide(false, &history, &request, NOW).is_allowed());
        }
    }

    /// The rules that are looked at are all that are about a host, in their order.
    #[test]
    fn no_rule_about_a_host_is_left_out(
        lists in prop::collection::vec(prop::collection::vec(any_pattern(), 0..4), 0..12), request in any_request(),
    ) {
        let rules: Vec<Deny> = lists.into_iter().enumerate().map(|(n, hosts)| {
            let hosts = (!hosts.is_empty()).then_some(hosts);
            Deny { name: n.to_string(), matcher: Matcher { hosts, ..Matcher::default() }, over: Vec::new() }
        }).collect();
        let about = |rule: &&Deny| rule.matcher.objection(&request, NOW).is_none();
        let listed = Listed::from(rules.clone());
        let found: Vec<_> = listed.about(&request.origin).filter(about).collect();
        prop_assert_eq!(found, rules.iter().filter(about).collect::<Vec<_>>());
    }

    /// A decision by sums is the decision by everything that they are of.
    #[test]
    fn sums_decide_as_everything_they_are_of_does(
        request in any_request(), history in any_history(), others in any_history(),
    ) {
        let law = Law::Policy { frozen: false, policy: Arc::new(acme()) };
        let history = History { movements: [history.movements, others.movements].concat(), ..others };
        let mut meters = Meters::default();
        for movement in &history.movements {
            meters.add(&law, movement);
        }
        let sums = meters.read(&law, &Source::of(&request), NOW);
        prop_assert!(sums.is_some());
        let summed = History { movements: Vec::new(), sums, ..history.clone() };
        prop_assert_eq!(law.decide(&summed, &request, NOW), law.decide(&history, &request, NOW));
        // Taken back, nothing is left of it.
        for movement in &history.movements {
            meters.take_back(&law, movement);
        }
        let none = History { sums: meters.read(&law, &Source::of(&request), NOW), ..summed };
        let never = History { sums: None, ..none.clone() };
        prop_assert_eq!(law.decide(&none, &request, NOW), law.decide(&never, &request, NOW));
        // A sum that is needed and not there cannot be counted.
        let lost = History { sums: Some(Sums::default()), ..never };
        prop_assert!(!law.decide(&lost, &request, NOW).is_allowed());
    }

    /// What is allowed leaves every budget above within its limits, by a sum that is made another way.
    #[test]
    fn no_budget_of_the_tree_is_ever_exceeded(requests in prop::collection::vec(any_request(), 1..40)) {
        let policy = acme();
        let mut history = known(Vec::new());
        for request in requests {
            if policy.decide(false, &history, &request, NOW).is_allowed() {
                let agent = request.caller.agent.clone().unwrap();
                let mut moved = paid(agent.as_str(), request.charge.money().atoms(), 0);
                for movement in &mut moved {
                    let of = Arc::make_mut(&mut movement.of);
                    of.authority = request.origin.authority();
                    of.payee = Some(request.payee.clone());
                }
                history.movements.extend(moved);
            }
        }
        for (name, micros) in [("acme", 5_000_000), ("acme/research", 2_000_000), ("acme/sales", 4_000_000)] {
            let prefix = format!("{name}/");
            let sum: u128 = history
                .movements
                .iter()
                .filter(|m| m.bucket == Bucket::Dollar)
                .filter(|m| m.of.agent.as_ref().is_some_and(|a| a.as_str() == name || a.as_str().starts_with(&prefix)))
                .map(|m| m.amount)
                .sum();
            prop_assert!(sum <= micros * MICRO, "{name}: {sum}");
        }
    }

    #[test]
    fn whatever_is_read_does_not_panic(text in "\\PC{0,200}", cut in 0usize..2000) {
        let _ = Policy::parse(&text);
        if let Some(start) = ACME.get(..cut) {
            let _ = Policy::parse(start);
        }
    }
}
