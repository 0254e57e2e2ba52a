use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use farthing_primitives::{Address, Money, Registry, Timestamp};
use proptest::prelude::*;

use super::model::{
    MINUTE_IS, PRICE_IS, limit_key, meter_key, name, refusals_key, room_keys, screen_key, within_hours,
};
use super::*;
use crate::policy::{Limit, Per, Question, Screened, Screening, is_plain};
use crate::{
    Approval, Bucket, Caller, Charge, History, Mention, Movement, Named, Origin, Policy, Request, Source,
    secret_in,
};

/// Choices that a test shrinks to the first of each.
struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().unwrap_or(0)) % n
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// One time in so many.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}

const USDC: &str = "eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913";
const EURC: &str = "eip155:8453/erc20:0x60a3e35cc302bfa44cb288bc5a4f316fdb1adb42";
const AGENTS: [&str; 6] = ["acme", "acme/a", "acme/a/b", "acme/x", "other", "acmes"];
const PAYEES: [u8; 3] = [1, 2, 3];
/// A Tuesday, 22:13:20 UTC.
const NOW: u64 = 1_700_000_000;

fn payee(n: u8) -> Address {
    Address::from_evm_bytes([n; 20])
}

fn amount(c: &mut Choices, scale: usize) -> String {
    let dollars =
        [["$5", "$7.000001", "$20"], ["$1", "$2", "$0.999999"], ["$0.05", "$0.25", "$0.5000000001"]][scale];
    let atoms =
        [["5000000", "9000000", "20000000"], ["1000000", "999999", "2000000"], ["50000", "250000", "250001"]]
            [scale];
    match c.below(5) {
        0..3 => format!("\"{}\"", c.of(&dollars)),
        3 => format!("{{\"{EURC}\": \"{}\"}}", c.of(&atoms)),
        _ => format!("{{\"{USDC}\": \"{}\"}}", c.of(&atoms)),
    }
}

fn bound(c: &mut Choices, scale: usize, window: bool) -> String {
    if !c.once_in(6) {
        return amount(c, scale);
    }
    let ceiling = ["$5", "$1", "$0.25"][scale];
    let percent = c.of(&["100", "150", "300"]);
    let what = match (c.below(2), window) {
        (0, true) => "spend, last: 10d".to_owned(),
        (0, false) => format!("price, last: 10d, after: 1h, per: {}", c.of(&["host", "all", "payee"])),
        _ => "index, index: gpu".to_owned(),
    };
    format!("{{follow: {what}, percent: {percent}, floor: $0.05, ceiling: \"{ceiling}\"}}")
}

fn conditions(c: &mut Choices, allow: bool) -> String {
    let mut text = String::new();
    // Rules that allow and that nothing fits are many as it is.
    let rare = if allow { 9 } else { 4 };
    let mut put = |key: &str, value: &str| {
        let _ = writeln!(text, "    {key}: {value}");
    };
    if allow || c.once_in(3) {
        put(
            "hosts",
            c.of(&[
                "[\"*\"]",
                "[\"*\"]",
                "[\"*\"]",
                "[\"*.example\"]",
                "[api.example]",
                "[\"api.example:8443\", \"127.0.0.1\"]",
                "[localhost, \"*.api.example\"]",
            ]),
        );
    }
    if c.once_in(rare) {
        put("agents", c.of(&["[acme/a]", "[acme]", "[acme/a/b, other]"]));
    }
    if c.once_in(rare) {
        put("paths", c.of(&["[/v1/*]", "[/v1/now]", "[\"/*\"]", "[/v1/secret/*, /v2]"]));
    }
    if c.once_in(rare) {
        put("methods", c.of(&["[GET]", "[POST, PUT]"]));
    }
    if c.once_in(rare) {
        put("tools", c.of(&["[forecast]", "[buy, forecast]"]));
    }
    if c.once_in(rare) {
        put("networks", c.of(&["[\"eip155:8453\"]", "[\"eip155:84532\", \"eip155:1\"]"]));
    }
    if c.once_in(rare) {
        put("assets", &format!("[\"{}\"]", c.of(&[USDC, EURC])));
    }
    if c.once_in(rare) {
        put("schemes", c.of(&["[exact]", "[upto, session]"]));
    }
    if c.once_in(rare) {
        put("payees", &format!("[\"{}\"]", payee(1)));
    }
    if c.once_in(rare) {
        put(
            "hours",
            c.of(&[
                "{from: \"22:00\", to: \"24:00\"}",
                "{days: [tue, sun], from: \"08:00\", to: \"22:14\", offset: \"+02:00\"}",
                "{days: [mon], from: \"00:00\", to: \"24:00\", offset: \"-03:30\"}",
            ]),
        );
    }
    if c.once_in(rare) {
        put(
            "when",
            c.of(&[
                "'amount > 60000'",
                "'usd(\"0.05\") < amount'",
                "'weekday == \"tue\" || agent == \"acme\"'",
                "'path.startsWith(\"/v1\")'",
            ]),
        );
    }
    text
}

/// The text of a policy. Deeper budgets have smaller amounts, as they must.
fn policy_text(c: &mut Choices) -> String {
    let mut lines = vec!["version: 1\nindexes: {gpu: {least: $0.10, most: $4, stale_after: 24h}}".to_owned()];
    let places = [("acme", 0), ("acme/a", 1), ("acme/a/b", 2), ("other", 0)];
    let kept: Vec<_> = places.into_iter().filter(|(name, _)| *name == "acme" || !c.once_in(3)).collect();
    if c.once_in(3) {
        lines.push("owner: acme".to_owned());
    }
    if c.once_in(4) {
        lines.push(format!("taint: {}", c.of(&["deny", "off"])));
    }
    if c.once_in(5) {
        lines.push("secrets_in_url: allow".to_owned());
    }
    if c.once_in(4) {
        lines.push(format!("max_validity: {}", c.of(&["20s", "2m"])));
    }
    if c.once_in(3) {
        lines.push(format!(
            "breaker: {}",
            c.of(&[
                "{refusals: 3}",
                "{refusals: 1, within: 5m, price_jump: 5}",
                "{price_jump: 2, velocity_jump: 2}",
            ])
        ));
    }
    if c.once_in(5) {
        lines.push(format!(
            "screen: {{command: [/bin/{}], quorum: {}}}",
            c.of(&["ask", "look"]),
            c.of(&["1", "2"])
        ));
    }
    lines.push("budgets:".to_owned());
    for (name, depth) in kept {
        lines.push(format!("  {name}:\n    lifetime: {}", ["$1000", "$500", "$100"][depth]));
        if c.once_in(2) {
            lines.push(format!("    per_payment: {}", bound(c, depth, false)));
        }
        if c.once_in(2) {
            lines.push(format!("    rolling: {{1h: {}, 24h: {}}}", bound(c, depth, true), amount(c, depth)));
        }
        if c.once_in(4) {
            lines.push(format!(
                "    calendar: {{{}: {}}}",
                c.of(&["day", "hour", "month", "week"]),
                amount(c, depth)
            ));
        }
        if c.once_in(4) {
            let per = c.of(&["per_host", "per_payee", "per_tool"]);
            lines.push(format!("    {per}: {{24h: {}}}", bound(c, depth, true)));
        }
        if c.once_in(4) {
            lines.push(format!("    payments: {{{}: {}}}", c.of(&["1m", "24h"]), c.of(&["1", "2", "3"])));
        }
    }
    lines.push("allow:".to_owned());
    for n in 0..=c.below(3) {
        lines.push(format!("  - name: allow-{n}\n{}", conditions(c, true)));
        if c.once_in(3) {
            lines.push(format!("    max: {}", amount(c, 2)));
        }
        if c.once_in(3) {
            lines.push(format!("    pay_to: [\"{}\", \"{}\"]", payee(1), payee(2)));
        }
        if c.once_in(4) {
            lines.push("    max_validity: 10s".to_owned());
        }
        if c.once_in(3) {
            lines.push("    private: true".to_owned());
        }
        if c.once_in(3) {
            lines.push("    plaintext: true".to_owned());
        }
    }
    for kind in ["deny", "approve"] {
        if c.once_in(3) {
            lines.push(format!("{kind}:"));
            for n in 0..=c.below(2) {
                lines.push(format!("  - name: {kind}-{n}\n{}", conditions(c, false)));
                if c.once_in(2) {
                    lines.push(format!("    over: {}", amount(c, 2)));
                }
                if kind == "approve" {
                    lines.push(format!("    quorum: {}", c.of(&["1", "2"])));
                    if c.once_in(3) {
                        lines.push("    new_payee: true".to_owned());
                    }
                }
            }
        }
    }
    lines.join("\n")
}

fn request(c: &mut Choices) -> Request {
    let registry = Registry::builtin();
    let asset = c.of(&[USDC, USDC, EURC, "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e"]);
    let atoms = [
        1, 2, 60_000, 49_999, 50_000, 50_001, 250_000, 250_001, 500_001, 999_999, 1_000_000, 2_000_001,
        7_000_001,
    ];
    let money = Money::new(asset.parse().unwrap(), atoms[c.below(atoms.len())]);
    let hosts = [
        "api.example",
        "api.example:8443",
        "x.y.example",
        "example",
        "127.0.0.1",
        "localhost",
        "a.api.example",
        "else.test",
    ];
    let paths = ["/v1/now", "/v1/x", "/v1", "/v1/../x", "/", "/v1/secret/x", "/v2?api_key=secret", "/v1/%41"];
    let (host, path) = (c.of(&hosts), c.of(&paths));
    let url: url::Url = format!("{}://{host}", if c.once_in(7) { "http" } else { "https" }).parse().unwrap();
    let agent = AGENTS.get(c.below(AGENTS.len() + 1)).map(|name| name.parse().unwrap());
    let mut request = Request {
        scheme: c.of(&["exact", "upto"]).to_owned(),
        charge: Charge::of(&registry, money).unwrap(),
        price: c.once_in(4).then_some(100_000),
        payee: payee(PAYEES[c.below(3)]),
        origin: Origin::of(&url).unwrap(),
        private: c.once_in(9),
        max: None,
        only: None,
        validity: Duration::from_millis(
            [1, 9_000, 9_999, 10_000, 10_001, 20_000, 60_000, 120_001][c.below(8)],
        ),
        caller: Caller {
            agent,
            tool: c.once_in(2).then(|| c.of(&["forecast", "other"]).to_owned()),
            method: c.of(&["GET", "POST"]).to_owned(),
            url: format!("https://{host}{path}"),
            path: path.split('?').next().unwrap().to_owned(),
            ..Caller::default()
        },
        screened: None,
    };
    if c.once_in(3) {
        let said = [Screening::Allow, Screening::Hold, Screening::Deny][c.below(3)];
        let asks = Policy::parse("version: 1\nscreen: {command: [/bin/ask]}").unwrap().screen.unwrap().asks;
        request.screened = Some(Screened { asks, question: Question::of(&request), said, reason: None });
    }
    request
}

fn history(c: &mut Choices, request: &Request) -> History {
    let registry = Registry::builtin();
    let mut movements = Vec::new();
    for _ in 0..c.below(4) {
        let ago = [0, 50, 1800, 7200, 90_000, 86_400 * 9, 86_400 * 40][c.below(7)];
        let until = Timestamp::from_secs(NOW - ago);
        let asset = if c.once_in(3) { EURC } else { USDC };
        let micros = [50_000u128, 749_999, 950_000, 4_000_000][c.below(4)];
        let charge = Charge::of(&registry, Money::new(asset.parse().unwrap(), micros)).unwrap();
        let of = Arc::new(Source {
            agent: AGENTS.get(c.below(AGENTS.len() + 1)).map(|name| name.parse().unwrap()),
            authority: request.origin.authority(),
            payee: Some(payee(PAYEES[c.below(3)])),
            tool: request.caller.tool.clone().filter(|_| c.once_in(2)),
        });
        let bucket = Bucket::Asset(charge.money().asset().clone());
        movements.push(Movement { bucket, amount: micros, until, of: of.clone() });
        if let Some(dollars) = charge.dollars() {
            movements.push(Movement { bucket: Bucket::Dollar, amount: dollars.0, until, of });
        }
    }
    let by = "somebody".to_owned();
    let mut mentions = Vec::new();
    if c.once_in(8) {
        mentions.push(Mention { what: Named::Host(request.origin.host.clone()), by: by.clone() });
    }
    if c.once_in(8) {
        mentions.push(Mention { what: Named::Payee(request.payee.clone()), by });
    }
    let mut history = History {
        movements,
        pinned: (0..c.below(4)).map(|n| payee(PAYEES[n])).collect(),
        refusals: u32::try_from(c.below(5)).unwrap(),
        usual_price: c.once_in(3).then(|| [0, 10_000, 50_000][c.below(3)]),
        approval: c.once_in(2).then(|| Approval {
            id: "apr_1".to_owned(),
            voices: u32::try_from(c.below(3)).unwrap(),
            grant: c.once_in(3),
        }),
        mentions,
        ..History::default()
    };
    if c.once_in(2) {
        let value = crate::policy::IndexValue {
            bucket: Bucket::Dollar,
            value: 1_100_000_000_000_000_000,
            set: Timestamp::from_secs(NOW - [10, 90_000][c.below(2)]),
        };
        history.indexes.insert("gpu".to_owned(), value);
    }
    history
}

/// What the attributes are of a payment and a past, as one policy sees them.
fn observed(model: &Model<'_>, policy: &Policy, history: &History, request: &Request) -> Context {
    let now = Timestamp::from_secs(NOW);
    let mut context = Context::new();
    let mut flag = |key: &str, value: bool| context.insert(key.to_owned(), Value::Flag(value));
    flag(name::DOLLAR, request.charge.dollars().is_some());
    flag(name::LOCAL, request.private || request.origin.host.is_local());
    flag(name::SAFE, request.origin.tls || request.origin.is_loopback());
    flag(name::PLAIN, is_plain(&request.caller.path));
    flag(name::HAS_TOOL, request.caller.tool.is_some());
    flag(name::PINNED, !history.pinned.is_empty());
    flag(name::PINNED_HERE, history.pinned.contains(&request.payee));
    flag(name::SECRET, secret_in(&request.caller.url).is_some());
    flag(name::GRANT, history.approval.as_ref().is_some_and(|approval| approval.grant));
    flag(name::HOST_NAMED, history.mentions.iter().any(|one| matches!(one.what, Named::Host(_))));
    flag(name::PAYEE_NAMED, history.mentions.iter().any(|one| matches!(one.what, Named::Payee(_))));
    for times in [2u32, 5] {
        let asked = request.price.unwrap_or(request.charge.money().atoms());
        let jump = history.usual_price.is_some_and(|usual| usual > 0 && asked >= usual * u128::from(times));
        flag(&format!("{PRICE_IS} {times} times the usual"), jump);
        // One movement in the bucket of its asset for each payment.
        let minute = history.movements.iter().filter(|m| {
            matches!(m.bucket, Bucket::Asset(_))
                && m.of.agent == request.caller.agent
                && m.until >= Timestamp::from_millis(NOW * 1000 - 59_999)
        });
        let minute = u32::try_from(minute.count()).unwrap();
        flag(&format!("{MINUTE_IS} {times} times the usual"), minute >= times);
    }
    let rules = policy.allow.iter().map(|rule| &rule.matcher);
    let rules = rules.chain(policy.deny.iter().map(|rule| &rule.matcher));
    for matcher in rules.chain(policy.approve.iter().map(|rule| &rule.matcher)) {
        if let Some(when) = &matcher.when {
            let value = when.holds(request, now);
            flag(&format!("when: {when}"), value == Ok(true));
            flag(&format!("when without a value: {when}"), value.is_err());
        }
    }
    let mut text = |key: &str, value: &str| context.insert(key.to_owned(), Value::Text(value.to_owned()));
    text(name::AGENT, request.caller.agent.as_ref().map_or("", |agent| agent.as_str()));
    text(name::ASSET, &request.charge.money().asset().to_string());
    text(name::HOST, request.origin.host.as_str());
    text(name::PATH, &request.caller.path);
    text(name::METHOD, &request.caller.method);
    text(name::TOOL, request.caller.tool.as_deref().unwrap_or_default());
    text(name::SCHEME, &request.scheme);
    text(name::PAYEE, request.payee.as_str());
    let mut number = |key: &str, value: i64| context.insert(key.to_owned(), Value::Number(value));
    number(name::PORT, request.origin.port.into());
    number(name::VALIDITY, i64::try_from(request.validity.as_millis().div_ceil(1000)).unwrap());
    number(name::MINUTE, i64::try_from((NOW / 60 + 3 * 1440) % (7 * 1440)).unwrap());
    number(name::VOICES, history.approval.as_ref().map_or(0, |approval| approval.voices.into()));
    let eurc = Bucket::Asset(EURC.parse().unwrap());
    let euros = request.charge.amount_in(&eurc).unwrap_or(1);
    number(&model.amount_key(&eurc), model.scale(&eurc).number(Some(euros)));
    let dollars = request.charge.amount_in(&Bucket::Dollar).unwrap_or(1);
    number(name::USD, model.scale(&Bucket::Dollar).number(Some(dollars)));
    for within in [300, 600] {
        number(&refusals_key(Duration::from_secs(within)), history.refusals.into());
    }
    if let Some(screener) = &policy.screen {
        let said = request.screened.as_ref().filter(|one| one.answers(screener, &Question::of(request)));
        let said = said.map_or(0, |one| match one.said {
            Screening::Allow => 2,
            Screening::Hold => 1,
            Screening::Deny | Screening::Failed(_) => 0,
        });
        number(&screen_key(screener), said);
    }
    let mut rooms = Vec::new();
    for (budget, held) in &policy.budgets {
        for (n, limit) in held.numbered() {
            let asked = request.charge.amount_in(&limit.bucket);
            let before = policy.spent(budget, (n, limit), history, request, now);
            // Where the payment does not count, its sum is looked at by nobody.
            let after = before.and_then(|before| before.checked_add(asked.unwrap_or(1)));
            number(&limit_key(policy, budget, limit), model.scale(&limit.bucket).number(after));
            if let Some(follow) = &limit.follows {
                let follows = Some(crate::policy::Follow { floor: 0, ..follow.clone() });
                let free = Limit { most: u128::MAX, follows, ..limit.clone() };
                let told = policy.in_force(budget, (held, n, &free), history, request, now);
                let room = told.as_ref().is_some_and(|(most, _)| after.is_some_and(|after| after <= *most));
                let (key, unknown) = room_keys(policy, budget, limit, follow);
                rooms.extend([(key, room), (unknown, told.is_none())]);
            }
        }
        for (_, count) in held.numbered_counts() {
            let since = count.span.since(now).unwrap();
            let before = history.movements.iter().filter(|m| {
                matches!(m.bucket, Bucket::Asset(_))
                    && m.until >= since
                    && policy.counts_in(m.of.agent.as_ref(), budget)
            });
            let after = i64::try_from(before.count()).unwrap() + 1;
            number(&meter_key(policy, budget, Per::All, count.span, None), after);
        }
    }
    context.extend(rooms.into_iter().map(|(key, value)| (key, Value::Flag(value))));
    context
}

fn allows(clauses: &[Clause], context: &Context) -> bool {
    let held =
        |clause: &&Clause| clause.when.holds(context).unwrap_or_else(|| panic!("{clause:?} in {context:?}"));
    let (permits, forbids): (Vec<_>, Vec<_>) = clauses.iter().filter(held).partition(|clause| clause.permits);
    !permits.is_empty() && forbids.is_empty()
}

fn choices(bytes: Vec<u8>) -> Choices {
    Choices(bytes.into_iter())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 60..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What is proved is proved of these formulas: they are what a policy decides, and what is taken for granted is so.
    #[test]
    fn formulas_say_what_the_policy_decides(one in bytes(), other in bytes(), asked in bytes()) {
        let registry = Registry::builtin();
        let [one, other] = [one, other].map(|bytes| Policy::parse(&policy_text(&mut choices(bytes))).unwrap());
        let comparison = Comparison::of(&one, &other, &registry).unwrap();
        let mut c = choices(asked);
        let request = request(&mut c);
        let history = history(&mut c, &request);
        let mut context = Context::new();
        for (policy, clauses) in [(&one, &comparison.left), (&other, &comparison.right)] {
            let seen = observed(&comparison.model, policy, &history, &request);
            let decision = policy.decide(false, &history, &request, Timestamp::from_secs(NOW));
            prop_assert_eq!(allows(clauses, &seen), decision.is_allowed(), "{} {:?}", decision, seen);
            context.extend(seen);
        }
        for (name, premise) in comparison.premises(Asked::All, Search::Counterexample).unwrap() {
            let holds = premise.holds(&context).unwrap_or(true);
            prop_assert!(holds, "{}: {} in {:?}", name, premise, context);
        }
    }
}

#[test]
fn what_cedar_prints_is_read() {
    let text = r#"{agent: "B", "a \"b\"\\ \u{1f600}\n": true, usd: -1001, "in any 24h (dollar)": (-5)}"#;
    let context = read_context(text).unwrap();
    assert_eq!(context["agent"], Value::Text("B".to_owned()));
    assert_eq!(context["a \"b\"\\ \u{1f600}\n"], Value::Flag(true));
    assert_eq!(context["usd"], Value::Number(-1001));
    assert_eq!(context["in any 24h (dollar)"], Value::Number(-5));
    assert_eq!(read_context("{}").unwrap(), Context::new());
    for bad in [
        "",
        "{",
        "{a: 1} x",
        "{a: 1 b: 2}",
        "{a: 1.5}",
        "{a: [1]}",
        "{a: \"x}",
        "{: 1}",
        "{a}",
        r#"{a: "\u{110000}"}"#,
    ] {
        assert!(read_context(bad).is_err(), "{bad}");
    }
}

#[test]
fn texts_are_printed_as_cedar_reads_them() {
    for (cond, printed) in [
        (term::same("a b", "x\"y\\z*"), r#"context["a b"] == "x\"y\\z*""#),
        (Cond::Begins("p".to_owned(), "/é*\"/".to_owned()), r#"context["p"] like "/\u{e9}\*\"/*""#),
        (Cond::Ends("h".to_owned(), ".example".to_owned()), r#"context["h"] like "*.example""#),
        (
            term::not(all([term::flag("a"), term::at_least("n", 3)])),
            r#"!((context["a"] && !(context["n"] <= 2)))"#,
        ),
    ] {
        assert_eq!(cond.to_string(), printed);
    }
}

/// A small generator of bytes, the same each time.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..200).map(|_| next()).collect()
}

/// What is printed is what was meant: Cedar's own evaluator decides as the policy does, and Cedar's validator finds the
/// schema to fit.
#[test]
#[ignore = "scripts/test runs it with Cedar's program, as FARTHING_CEDAR"]
fn cedar_decides_as_the_policy_does() {
    let program = std::env::var("FARTHING_CEDAR").expect("FARTHING_CEDAR names Cedar's program");
    let dir = std::env::temp_dir().join(format!("farthing-cedar-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let run = |words: &[&str]| {
        let ended = std::process::Command::new(&program).args(words).current_dir(&dir).output().unwrap();
        let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        (ended.status.success(), said)
    };
    let registry = Registry::builtin();
    let (mut allowed, mut asked) = (0, 0);
    for seed in 1..60 {
        let policy = Policy::parse(&policy_text(&mut choices(noise(seed)))).unwrap();
        let comparison = Comparison::of(&policy, &policy, &registry).unwrap();
        let mut cases = Vec::new();
        for n in 0..60 {
            let mut c = choices(noise(seed * 1000 + n));
            let request = request(&mut c);
            let history = history(&mut c, &request);
            let decision = policy.decide(false, &history, &request, Timestamp::from_secs(NOW));
            let context = observed(&comparison.model, &policy, &history, &request);
            let context: serde_json::Map<_, _> = context
                .into_iter()
                .map(|(key, value)| {
                    let value = match value {
                        Value::Flag(flag) => serde_json::json!(flag),
                        Value::Number(number) => serde_json::json!(number),
                        Value::Text(text) => serde_json::json!(text),
                    };
                    (key, value)
                })
                .collect();
            asked += 1;
            allowed += usize::from(decision.is_allowed());
            cases.push(serde_json::json!({
                "request": {
                    "principal": "Agent::\"a\"", "action": ACTION, "resource": "Payee::\"p\"", "context": context,
                },
                "entities": [],
                "decision": if decision.is_allowed() { "allow" } else { "deny" },
                "reason": [],
                "num_errors": 0,
            }));
        }
        std::fs::write(dir.join("policy.cedar"), comparison.wider().unwrap()).unwrap();
        std::fs::write(dir.join("narrower.cedar"), comparison.narrower(Asked::All, Search::Plain).unwrap())
            .unwrap();
        std::fs::write(dir.join("schema.cedarschema"), comparison.schema().unwrap()).unwrap();
        std::fs::write(dir.join("tests.json"), serde_json::to_string(&cases).unwrap()).unwrap();
        let (done, said) = run(&["run-tests", "--policies", "policy.cedar", "--tests", "tests.json"]);
        assert!(done && said.contains("60 passed") && !said.contains("FAIL"), "{seed}: {said}");
        let (done, said) =
            run(&["validate", "--schema", "schema.cedarschema", "--policies", "narrower.cedar"]);
        assert!(done, "{seed}: {said}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
    // Otherwise little would have been asked.
    assert!(allowed * 30 > asked, "{allowed} of {asked}");
}

#[test]
fn hours_are_minutes_of_a_week() {
    for hours in [
        "{from: \"22:00\", to: \"24:00\"}",
        "{days: [tue, sun], from: \"08:00\", to: \"22:14\", offset: \"+02:00\"}",
        "{days: [mon], from: \"00:00\", to: \"24:00\", offset: \"-03:30\"}",
        "{days: [sun], from: \"23:59\", to: \"24:00\", offset: \"-12:00\"}",
        "{days: [mon, sat], from: \"00:00\", to: \"00:01\", offset: \"+14:00\"}",
    ] {
        let text = format!("version: 1\nallow:\n  - hosts: [\"*\"]\n    hours: {hours}");
        let policy = Policy::parse(&text).unwrap();
        let hours = policy.allow[0].matcher.hours.as_ref().unwrap();
        let cond = within_hours(hours);
        for minute in 0..7 * 1440u32 {
            // From the first Monday of 2024 on.
            let now = Timestamp::from_secs(1_704_067_200 + u64::from(minute) * 60 + 59);
            let context = Context::from([(name::MINUTE.to_owned(), Value::Number(minute.into()))]);
            assert_eq!(cond.holds(&context), Some(hours.contain(now)), "{hours:?} at {minute}");
        }
    }
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_stopped_by_every_rule_about_paths() {
    let registry = Registry::builtin();
    let text = "version: 1\nbudgets: {acme: {lifetime: $5}}\nallow:\n  - hosts: [\"*\"]\n";
    for (kind, paths) in [
        ("deny", [("/v1/now", true), ("/v1/secret/x", false), ("/v1/%41", false), ("/v1/../x", false)]),
        ("approve", [("/v1/now", true), ("/v1/secret", true), ("/v1/secret/x", false), ("/v1/%41", false)]),
    ] {
        let policy = Policy::parse(&format!("{text}{kind}:\n  - paths: [/v1/secret/*]")).unwrap();
        let comparison = Comparison::of(&policy, &policy, &registry).unwrap();
        for (path, allowed) in paths {
            let mut request = request(&mut choices(Vec::new()));
            path.clone_into(&mut request.caller.path);
            let history = History::default();
            let seen = observed(&comparison.model, &policy, &history, &request);
            let decision = policy.decide(false, &history, &request, Timestamp::from_secs(NOW));
            assert_eq!(decision.is_allowed(), allowed, "{kind} {path}: {decision}");
            assert_eq!(allows(&comparison.left, &seen), allowed, "{kind} {path}");
        }
    }
}

#[test]
fn screeners_with_other_words_are_others() {
    let key = |words: &str| {
        let text = format!("version: 1\nscreen: {{command: [{words}]}}");
        model::screen_key(&Policy::parse(&text).unwrap().screen.unwrap())
    };
    let keys: BTreeSet<_> =
        ["/bin/ask, --deny, a", "/bin/ask, '--deny a'", "'/bin/ask --deny', a", "/bin/ask, --deny, b"]
            .map(key)
            .into();
    assert_eq!(keys.len(), 4, "{keys:?}");
    assert_eq!(key("/bin/ask, a"), key("'/bin/ask', 'a'"));
}

/// What Cedar is asked never to fail is all that it is asked about.
#[test]
fn no_rule_of_either_policy_is_left_out_of_what_may_not_fail() {
    let policy = |text: &str| Policy::parse(&format!("version: 1\n{text}")).unwrap();
    let new = policy("allow:\n  - {hosts: [new.example]}");
    let old = policy("allow:\n  - {hosts: [old.example]}\ndeny:\n  - {hosts: [\"*\"], paths: [/secret/*]}");
    let registry = Registry::builtin();
    let together = Comparison::of(&new, &old, &registry).unwrap().together().unwrap();
    for part in ["new.example", "old.example", "/secret/"] {
        assert!(together.contains(part), "{part}: {together}");
    }
}
