//! What the guard decides, by example, beside what Intercept does (commit 77f0429 of its repository), and by law.

use std::collections::BTreeMap;
use std::time::Duration;

use farthing_primitives::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOON: Timestamp = Timestamp::from_secs(1_795_348_800); // 2026-11-22T12:00:00Z

fn policy(text: &str) -> Policy {
    let read = read(text);
    read.policy.unwrap_or_else(|| panic!("{text}\n{:?}", read.problems))
}

/// A policy for the tool `t` with these rules, each a line of YAML in flow style.
fn rules(rules: &[&str]) -> Policy {
    policy(&format!("version: \"1\"\ndefault: deny\ntools: {{ t: {{ rules: [{}] }} }}", rules.join(", ")))
}

#[derive(Default)]
struct Books(BTreeMap<Key, Tally>);

impl Books {
    fn call(&mut self, policy: &Policy, tool: &str, arguments: Value, now: Timestamp) -> Decision {
        let Value::Object(arguments) = arguments else { panic!("{arguments}") };
        decide(policy, &Call { tool, arguments: &arguments }, &mut self.0, now, false)
    }

    /// `ok`, `ask`, or the codes of the denial.
    fn says(&mut self, policy: &Policy, arguments: Value) -> String {
        said(&self.call(policy, "t", arguments, NOON))
    }
}

fn said(decision: &Decision) -> String {
    match decision {
        Decision::Allowed(_) => "ok".to_owned(),
        Decision::NeedsApproval { .. } => "ask".to_owned(),
        Decision::Denied(reasons) => reasons.iter().map(|reason| reason.code).collect::<Vec<_>>().join(" "),
    }
}

#[test]
fn what_is_wrong_is_said_at_its_line_and_column() {
    let head = "version: \"1\"\ndefault: deny\n";
    let rule = |text: &str| format!("{head}tools:\n  t:\n    rules:\n      - {text}\n");
    let mut wrong = Vec::new();
    for (text, place, why) in [
        (String::new(), (1, 1), ""),
        ("version: 1\ntools: {}".to_owned(), (1, 10), "as a text"),
        ("version: \"2\"\ntools: {}".to_owned(), (1, 10), "must be \"1\""),
        ("tools: {}".to_owned(), (1, 1), "version is missing"),
        ("version: \"1\"".to_owned(), (1, 1), "tools is missing"),
        (format!("{head}toools: {{}}\ntools: {{}}"), (3, 1), "unknown key \"toools\""),
        (format!("{head}tools: {{}}\ntools: {{}}"), (4, 1), ""),
        ("version: \"1\"\ndefault: maybe\ntools: {}".to_owned(), (2, 10), "\"allow\" or \"deny\""),
        (format!("{head}hide: [a, a]\ntools: {{}}"), (3, 11), "twice"),
        (format!("{head}hide: [\"a b\"]\ntools: {{}}"), (3, 8), "not the name of a tool"),
        (format!("{head}hide: a\ntools: {{}}"), (3, 7), "expected a list"),
        (format!("{head}tools:\n  t: {{}}"), (4, 6), "rules is missing"),
        (format!("{head}tools:\n  _global: {{ rules: [] }}"), (4, 3), "not the name of a tool"),
        (format!("{head}pins: {{ t: sha256:12 }}\ntools: {{}}"), (3, 12), "64 hex digits"),
        (rule("{ rate_limit: 5/hour }"), (6, 9), "needs a name"),
        (rule("{ name: n }"), (6, 9), "needs a condition"),
        (rule("{ name: n, action: deny, rate_limit: 5/hour }"), (6, 46), "does not go with"),
        (rule("{ name: n, action: allow }"), (6, 28), "action must be"),
        (rule("{ name: n, rate_limit: 0/hour }"), (6, 32), "rate_limit must be"),
        (rule("{ name: n, rate_limit: 05/hour }"), (6, 32), "rate_limit must be"),
        (rule("{ name: n, rate_limit: -5/hour }"), (6, 32), "rate_limit must be"),
        (rule("{ name: n, rate_limit: 5/week }"), (6, 32), "rate_limit must be"),
        (
            rule("{ name: n, rate_limit: 5/hour }\n      - { name: m, rate_limit: 6/hour }"),
            (7, 32),
            "two rules",
        ),
        (rule("{ name: n, conditions: [{ path: args.a, op: lt }] }"), (6, 33), "a path, an op and a value"),
        (rule("{ name: n, conditions: [{ path: arg.a, op: lt, value: 1 }] }"), (6, 41), "a path is args"),
        (rule("{ name: n, conditions: [{ path: args.a, op: less, value: 1 }] }"), (6, 53), "unknown op"),
        (rule("{ name: n, conditions: [{ path: args.a, op: lt, value: x }] }"), (6, 64), "expected a number"),
        (
            rule("{ name: n, conditions: [{ path: args.a, op: lt, value: 1e3 }] }"),
            (6, 64),
            "no plain decimal",
        ),
        (
            rule("{ name: n, conditions: [{ path: args.a, op: lt, value: 0x10 }] }"),
            (6, 64),
            "no plain decimal",
        ),
        (rule("{ name: n, conditions: [{ path: args.a, op: in, value: x }] }"), (6, 64), "expected a list"),
        (
            rule("{ name: n, conditions: [{ path: args.a, op: eq, value: null }] }"),
            (6, 64),
            "expected a text",
        ),
        (rule("{ name: n, conditions: [{ path: args.a, op: exists, value: 1 }] }"), (6, 68), "true or false"),
        (
            rule("{ name: n, conditions: [{ path: args.a, op: regex, value: \"(\" }] }"),
            (6, 67),
            "cannot be used",
        ),
        (
            rule("{ name: n, conditions: [{ path: args.a, op: regex, value: \"(a{999}){999}\" }] }"),
            (6, 67),
            "cannot be",
        ),
        (rule("{ name: n, conditions: [{ path: state.t.x, op: lt, value: 1 }] }"), (6, 41), "no rule counts"),
        (
            rule("{ name: n, conditions: [{ path: args.a, op: lt, value: 1 }], state: { counter: c } }"),
            (6, 77),
            "a window",
        ),
        (
            rule(
                "{ name: n, conditions: [{ path: args.a, op: lt, value: 1 }], state: { counter: c, window: week } }",
            ),
            (6, 99),
            "window must be",
        ),
        (
            rule(
                "{ name: n, conditions: [{ path: args.a, op: lt, value: 1 }], state: { counter: c, rolling: 1w } }",
            ),
            (6, 100),
            "a time",
        ),
        (
            rule(
                "{ name: n, conditions: [{ path: args.a, op: lt, value: 1 }], state: { counter: c, window: day, increment: 0 } }",
            ),
            (6, 115),
            "from 1",
        ),
        (
            rule(
                "{ name: n, conditions: [{ path: args.a, op: lt, value: 1 }], state: { counter: c, window: day, increment: -1 } }",
            ),
            (6, 115),
            "from 1",
        ),
        (rule("{ name: n, spend: {} }"), (6, 27), "per_call, daily"),
        (rule("{ name: n, spend: { per_call: -1 } }"), (6, 39), "plain decimal"),
        (rule("{ name: n, spend: { per_call: 1e-3 } }"), (6, 39), "plain decimal"),
        (rule("{ name: n, spend: { weekly: 1 } }"), (6, 29), "unknown key"),
    ] {
        let read = read(&text);
        assert!(read.policy.is_none(), "{text}");
        let found = read.problems.iter().any(|one| (one.line, one.column) == place && one.text.contains(why));
        if !found {
            wrong.push(format!("{text}\nwanted {place:?} {why}\n{:?}", read.problems));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_document_is_bounded() {
    let deep = format!("version: \"1\"\ntools: {}{}", "[".repeat(100), "]".repeat(100));
    let bomb = "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    let long = format!("version: \"1\"\ndescription: \"{}\"\ntools: {{}}", "x".repeat(MAX_POLICY_BYTES));
    for text in [deep, bomb.to_owned(), long, "---\n---\n".to_owned(), "\u{0}".to_owned()] {
        let read = read(&text);
        assert!(read.policy.is_none() && !read.problems.is_empty());
    }
}

#[test]
fn where_intercept_would_allow_more_is_warned_of() {
    let warned =
        |text: &str| read(text).warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(warned("version: \"1\"\ntools: {}").contains("default is missing"));
    let unlimited = "version: \"1\"\ndefault: deny\ntools: { t: { rules: [{ name: n, conditions: \
                     [{ path: args.a, op: lt, value: 1 }], state: { counter: c, window: day } }] } }";
    assert!(warned(unlimited).contains("never counts it"));
    assert_eq!(warned("version: \"1\"\ndefault: deny\ntools: {}"), "");
}

/// Each row: an op and a value, an argument, what Intercept says (by its source; `true` passes), what we say.
#[test]
fn comparisons_mean_what_intercepts_do_or_are_stricter() {
    for (test, argument, intercept, ours) in [
        ("op: lte, value: 500", json!(500), true, "ok"),
        ("op: lte, value: 500", json!(501), false, "condition_not_met"),
        ("op: lt, value: 0.3", json!(0.3), false, "condition_not_met"),
        ("op: lte, value: 500", json!(-5), true, "ok"),
        ("op: lte, value: 500", Value::Null, false, "argument_missing"),
        ("op: lte, value: 500", json!("abc"), false, "argument_not_comparable"),
        ("op: lte, value: 500", json!([1]), false, "argument_not_comparable"),
        // Digits as x402 and MPP write them: Intercept compares none of them.
        ("op: lte, value: 500", json!("500"), false, "ok"),
        ("op: lte, value: 500", json!("0500"), false, "argument_not_comparable"),
        ("op: lte, value: 500", json!("5e1"), false, "argument_not_comparable"),
        ("op: lte, value: 500", json!(" 5"), false, "argument_not_comparable"),
        ("op: lte, value: 500", json!("+5"), false, "argument_not_comparable"),
        (
            "op: gt, value: 340282366920938463463374607431768211456",
            json!("340282366920938463463374607431768211457"),
            false,
            "ok",
        ),
        // A float has no room for these: Intercept takes them for equal.
        ("op: lte, value: 9007199254740992", json!(9_007_199_254_740_993u64), true, "condition_not_met"),
        ("op: lte, value: 100000000000000000000000", json!(1e22), true, "argument_not_comparable"),
        ("op: eq, value: main", json!("main"), true, "ok"),
        ("op: eq, value: main", json!("Main"), false, "condition_not_met"),
        ("op: eq, value: 5", json!(5.0), true, "ok"),
        ("op: eq, value: 5", json!("5"), true, "ok"),
        ("op: eq, value: 5", json!("5.0"), false, "argument_not_comparable"),
        ("op: eq, value: true", json!(true), true, "ok"),
        ("op: eq, value: true", json!("true"), true, "ok"),
        ("op: neq, value: admin", json!("user"), true, "ok"),
        ("op: neq, value: admin", json!("admin"), false, "condition_not_met"),
        ("op: neq, value: admin", Value::Null, true, "argument_missing"),
        // In a list, in an object, or in another spelling: not what was meant to pass.
        ("op: neq, value: admin", json!(["admin"]), true, "argument_not_comparable"),
        ("op: neq, value: 5", json!("5.0"), true, "argument_not_comparable"),
        ("op: not_in, value: [root, admin]", json!(["root"]), true, "argument_not_comparable"),
        ("op: not_in, value: [root, admin]", json!({ "is": "root" }), true, "argument_not_comparable"),
        ("op: not_in, value: [root, admin]", json!("user"), true, "ok"),
        ("op: in, value: [usd, eur]", json!("usd"), true, "ok"),
        ("op: in, value: [usd, eur]", json!("gbp"), false, "condition_not_met"),
        ("op: in, value: [1, 2]", json!(2), true, "ok"),
        ("op: regex, value: \"^feat/\"", json!("feat/x"), true, "ok"),
        ("op: regex, value: \"^feat/\"", json!("fix/x"), false, "condition_not_met"),
        ("op: regex, value: \"^feat/\"", json!(7), false, "argument_not_comparable"),
        ("op: contains, value: test", json!("a test"), true, "ok"),
        ("op: contains, value: test", json!(["test"]), true, "ok"),
        ("op: contains, value: test", json!(["other"]), false, "condition_not_met"),
        ("op: contains, value: 5", json!("15"), false, "argument_not_comparable"),
        ("op: exists, value: true", json!(0), true, "ok"),
        ("op: exists, value: true", Value::Null, false, "condition_not_met"),
        ("op: exists, value: false", Value::Null, true, "ok"),
        ("op: exists, value: false", json!("x"), false, "condition_not_met"),
    ] {
        let policy = rules(&[&format!("{{ name: n, conditions: [{{ path: args.a, {test} }}] }}")]);
        let said = Books::default().says(&policy, json!({ "a": argument }));
        assert_eq!(said, ours, "{test} {argument}");
        // What passes here and not there is digits in a text, and nothing else.
        assert!(said != "ok" || intercept || argument.is_string(), "{test} {argument}");
        if argument.is_null() && !test.contains("exists") {
            assert_eq!(Books::default().says(&policy, json!({})), ours, "{test}, missing");
        }
    }
}

#[test]
fn what_is_not_named_is_denied_and_what_is_hidden_is_not_there() {
    let deny =
        policy("version: \"1\"\ndefault: deny\nhide: [h]\ntools: { t: { rules: [] }, h: { rules: [] } }");
    let allow = policy("version: \"1\"\ndefault: allow\nhide: [h]\ntools: {}");
    let missing = policy("version: \"1\"\ntools: {}");
    let all = policy("version: \"1\"\ndefault: allow\nhide: [\"*\"]\ntools: { t: { rules: [] } }");
    for (policy, tool, expected) in [
        (&deny, "t", "ok"),
        (&deny, "u", "tool_not_permitted"),
        (&deny, "h", "tool_unknown"),
        (&allow, "u", "ok"),
        (&allow, "h", "tool_unknown"),
        (&missing, "t", "tool_not_permitted"),
        (&all, "t", "tool_unknown"),
    ] {
        assert_eq!(said(&Books::default().call(policy, tool, json!({}), NOON)), expected, "{tool}");
    }
}

/// Whether a tool is shown at all goes by what could ever come of a call, and not by what comes of this one.
#[test]
fn what_no_call_can_ever_do_is_told_from_what_this_one_may_not() {
    let head = "version: \"1\"\ndefault: deny\nhide: [h]\ntools:\n  h: { rules: [] }\n";
    for (rules, tool, never) in [
        ("  t: { rules: [] }", "t", false),
        ("  t: { rules: [] }", "u", true),
        ("  t: { rules: [] }", "h", true),
        ("  t: { rules: [{ name: r, action: deny }] }", "t", true),
        ("  t: { rules: [{ name: a, rate_limit: 1/day }, { name: r, action: deny }] }", "t", true),
        ("  t: { rules: [] }\n  \"*\": { rules: [{ name: r, action: deny }] }", "t", true),
        ("  \"*\": { rules: [] }", "t", true),
        ("  t: { rules: [{ name: r, action: require_approval }] }", "t", false),
        ("  t: { rules: [{ name: r, conditions: [{ path: args.a, op: eq, value: 1 }] }] }", "t", false),
    ] {
        let policy = policy(&format!("{head}{rules}"));
        assert_eq!(never_permits(&policy, tool), never, "{rules} {tool}");
        // Nobody's word and no waiting helps where it says never.
        let call = |approved| {
            let arguments = serde_json::Map::new();
            decide(&policy, &Call { tool, arguments: &arguments }, &mut BTreeMap::new(), NOON, approved)
        };
        assert!(!never || matches!(call(true), Decision::Denied(_)), "{rules} {tool}");
    }
    let open = policy("version: \"1\"\ndefault: allow\ntools: { t: { rules: [{ name: r, action: deny }] } }");
    assert!(never_permits(&open, "t") && !never_permits(&open, "u"));
}

#[test]
fn rules_of_all_tools_bind_named_tools_and_rescue_none() {
    let text = "version: \"1\"\ndefault: deny\ntools:\n  a: { rules: [] }\n  b: { rules: [] }\n  \
                \"*\": { rules: [{ name: all, rate_limit: 2/minute, on_deny: enough }] }";
    let policy = policy(text);
    let mut books = Books::default();
    assert_eq!(said(&books.call(&policy, "c", json!({}), NOON)), "tool_not_permitted");
    assert_eq!(said(&books.call(&policy, "a", json!({}), NOON)), "ok");
    assert_eq!(said(&books.call(&policy, "b", json!({}), NOON)), "ok");
    let Decision::Denied(reasons) = books.call(&policy, "a", json!({}), NOON.plus(Duration::from_secs(10)))
    else {
        panic!("a third");
    };
    assert_eq!((reasons[0].code, reasons[0].text.as_str()), ("rate_limited", "enough"));
    assert_eq!(reasons[0].retry_after, Some(Duration::from_secs(50)));
    assert_eq!(said(&books.call(&policy, "a", json!({}), NOON.plus(Duration::from_secs(60)))), "ok");
}

#[test]
fn every_reason_is_told_at_once() {
    let policy = rules(&[
        "{ name: a, conditions: [{ path: args.x, op: lt, value: 1 }] }",
        "{ name: b, action: deny, on_deny: never }",
    ]);
    assert_eq!(Books::default().says(&policy, json!({ "x": 5 })), "condition_not_met rule_denies");
}

const SUM: &str = "{ name: sum, conditions: [{ path: state.t.sum, op: lte, value: 100 }], \
                   state: { counter: sum, window: day, increment_from: args.amount } }";

#[test]
fn sums_are_exact_and_only_plain_amounts_count() {
    let policy = rules(&[SUM]);
    let mut books = Books::default();
    for (amount, expected) in [
        (json!(60), "ok"),
        // Intercept takes these, and the first two lower its counter.
        (json!(-50), "increment_invalid"),
        (json!("-50"), "increment_invalid"),
        (json!(-0.0), "increment_invalid"),
        (json!(1.5), "increment_invalid"),
        (json!(1.0), "increment_invalid"),
        (json!("1e1"), "increment_invalid"),
        (json!("007"), "increment_invalid"),
        (json!(" 7"), "increment_invalid"),
        (json!(null), "increment_invalid"),
        (json!([1]), "increment_invalid"),
        (json!("340282366920938463463374607431768211456"), "increment_invalid"),
        (json!("340282366920938463463374607431768211455"), "counter_limit"),
        (json!(41), "counter_limit"),
        (json!("40"), "ok"),
        (json!(1), "counter_limit"),
        (json!(0), "ok"),
    ] {
        assert_eq!(books.says(&policy, json!({ "amount": amount })), expected, "{amount}");
    }
    assert_eq!(books.says(&policy, json!({})), "increment_invalid");
}

/// In Intercept such a counter stays at nothing, and its limit elsewhere never holds.
#[test]
fn a_counter_without_its_own_limit_counts_all_the_same() {
    let policy = rules(&[
        "{ name: count, conditions: [{ path: args.a, op: exists, value: true }], state: { counter: n, window: day } }",
        "{ name: limit, conditions: [{ path: state.t.n, op: lte, value: 2 }] }",
    ]);
    let mut books = Books::default();
    let all: Vec<String> = (0..3).map(|_| books.says(&policy, json!({ "a": 1 }))).collect();
    assert_eq!(all, ["ok", "ok", "counter_limit"]);
}

#[test]
fn who_must_be_asked_is_asked_where_it_cannot_be_told() {
    let policy = rules(&[
        "{ name: big, action: require_approval, approval_timeout: 30m, conditions: [{ path: args.amount, op: gt, value: 100 }] }",
    ]);
    for (arguments, expected) in [
        (json!({ "amount": 100 }), "ok"),
        (json!({ "amount": "100" }), "ok"),
        (json!({ "amount": 101 }), "ask"),
        (json!({ "amount": "1e9" }), "ask"),
        (json!({ "amount": [1000] }), "ask"),
        (json!({}), "ask"),
    ] {
        assert_eq!(Books::default().says(&policy, arguments.clone()), expected, "{arguments}");
    }
    let always = rules(&["{ name: always, action: require_approval }"]);
    assert_eq!(Books::default().says(&always, json!({})), "ask");
    let call = serde_json::Map::new();
    let decided = decide(&always, &Call { tool: "t", arguments: &call }, &mut BTreeMap::new(), NOON, true);
    assert_eq!(said(&decided), "ok");
    // What is denied anyway is nothing to ask about.
    let both = rules(&["{ name: always, action: require_approval }", "{ name: no, action: deny }"]);
    assert_eq!(Books::default().says(&both, json!({})), "rule_denies");
}

#[test]
fn windows_of_the_calendar_end_with_it_and_rolling_ones_when_their_time_has_passed() {
    let hour = rules(&["{ name: n, rate_limit: 1/hour }"]);
    let rolling = rules(&[
        "{ name: n, conditions: [{ path: state.t.c, op: lte, value: 1 }], state: { counter: c, rolling: 1h } }",
    ]);
    let at = |minutes: i64| {
        let off = Duration::from_secs(minutes.unsigned_abs() * 60);
        if minutes < 0 { NOON.minus(off) } else { NOON.plus(off) }
    };
    for (policy, minutes, expected) in [
        (&hour, vec![-1, 0, 1, 59, 60], vec!["ok", "ok", "rate_limited", "rate_limited", "ok"]),
        (
            &rolling,
            vec![-1, 0, 58, 59, 60, 61],
            vec!["ok", "counter_limit", "counter_limit", "counter_limit", "ok", "counter_limit"],
        ),
    ] {
        let mut books = Books::default();
        let all: Vec<String> =
            minutes.iter().map(|m| said(&books.call(policy, "t", json!({}), at(*m)))).collect();
        assert_eq!(all, expected);
    }
}

#[test]
fn a_clock_that_is_set_back_resets_nothing() {
    for rule in [
        "{ name: n, rate_limit: 1/hour }",
        "{ name: n, conditions: [{ path: state.t.c, op: lte, value: 1 }], state: { counter: c, rolling: 1h } }",
    ] {
        let (policy, mut books) = (rules(&[rule]), Books::default());
        assert_eq!(said(&books.call(&policy, "t", json!({}), NOON)), "ok");
        for hours in [1, 2, 24, 1000] {
            let earlier = NOON.minus(Duration::from_secs(hours * 3600));
            assert_ne!(said(&books.call(&policy, "t", json!({}), earlier)), "ok", "{hours} hours back");
        }
    }
}

#[test]
fn what_never_left_is_taken_back_from_where_it_was_counted() {
    let (policy, mut books) = (rules(&["{ name: n, rate_limit: 1/minute }"]), Books::default());
    let Decision::Allowed(first) = books.call(&policy, "t", json!({}), NOON) else { panic!("the first") };
    first.give_back(&mut books.0);
    let Decision::Allowed(_) = books.call(&policy, "t", json!({}), NOON) else { panic!("again") };
    // A late give-back of an earlier window does not lower the present one.
    let next = NOON.plus(Duration::from_secs(60));
    let Decision::Allowed(_) = books.call(&policy, "t", json!({}), next) else { panic!("a minute later") };
    first.give_back(&mut books.0);
    assert_eq!(said(&books.call(&policy, "t", json!({}), next)), "rate_limited");
}

#[test]
fn a_tool_costs_what_its_spend_permits_and_without_one_nothing() {
    const DOLLAR: u128 = 1_000_000_000_000_000_000;
    let policy = rules(&["{ name: s, spend: { per_call: 0.50, daily: $1 } }"]);
    let mut books = Books::default();
    let mut pay = |policy: &Policy, dollars: Option<u128>| {
        said(&decide_spend(policy, "t", dollars, &mut books.0, NOON))
    };
    for (dollars, expected) in [
        (Some(DOLLAR / 2 + 1), "spend_per_call"),
        (Some(DOLLAR / 2), "ok"),
        (None, "spend_not_dollars"),
        (Some(DOLLAR / 2), "ok"),
        (Some(1), "spend_daily"),
        (Some(u128::MAX), "spend_per_call spend_daily"),
    ] {
        assert_eq!(pay(&policy, dollars), expected);
    }
    assert_eq!(pay(&rules(&["{ name: r, rate_limit: 5/hour }"]), Some(1)), "spend_not_allowed");
    assert_eq!(policy.most_per_call("t"), Some(DOLLAR / 2));
}

#[test]
fn a_scaffold_reads_back_and_permits_what_only_reads() {
    let listed = |name: &str, effect| Listed {
        name: name.to_owned(),
        effect,
        hash: [7; 32],
        arguments: vec!["city".to_owned(), "evil\n  x: {}".to_owned()],
    };
    let tools =
        [listed("get", Effect::Reads), listed("put", Effect::Writes), listed("true", Effect::Destroys)];
    let text = scaffold("node \"x\"\nevil: 1", &tools);
    let policy = policy(&text);
    assert!(read(&text).warnings.is_empty());
    assert_eq!(policy.pins["true"], [7; 32]);
    for (tool, expected) in
        [("get", "ok"), ("put", "ok"), ("true", "rule_denies"), ("new", "tool_not_permitted")]
    {
        assert_eq!(said(&Books::default().call(&policy, tool, json!({}), NOON)), expected, "{tool}\n{text}");
    }
    assert!(read(&scaffold("empty", &[])).policy.is_some());
    assert_eq!(Effect::of(None, None), Effect::Destroys);
}

#[test]
fn a_definition_has_one_hash_however_it_is_written() {
    let one: Value = serde_json::from_str(r#"{"a":1,"b":{"c":[1,2]}}"#).unwrap();
    let other: Value = serde_json::from_str(r#"{ "b": {"c": [1, 2]}, "a": 1 }"#).unwrap();
    assert_eq!(Listed::hash(&one), Listed::hash(&other));
    let changed = json!({ "a": 1, "b": { "c": [2, 1] } });
    assert_ne!(Listed::hash(&one), Listed::hash(&changed));
}

#[test]
fn the_published_schema_names_the_keys_that_are_read() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../docs/reference/mcp-policy.schema.json")).unwrap();
    let keys = |at: &Value| {
        assert_eq!(at["additionalProperties"], json!(false));
        at["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    for (at, expected) in [
        (&schema, &crate::read::POLICY_KEYS[..]),
        (&schema["$defs"]["tool"], &crate::read::TOOL_KEYS),
        (&schema["$defs"]["rule"], &crate::read::RULE_KEYS),
        (&schema["$defs"]["condition"], &crate::read::CONDITION_KEYS),
        (&schema["$defs"]["state"], &crate::read::STATE_KEYS),
        (&schema["$defs"]["spend"], &crate::read::SPEND_KEYS),
    ] {
        let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(keys(at), expected);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Laws.

/// A rule of the tool `t` as YAML, of few kinds and small numbers, so that two of them often meet.
fn rule() -> impl Strategy<Value = String> {
    let limit = 0..4u32;
    prop_oneof![
        (1..4u32, prop::sample::select(vec!["minute", "hour", "day"]))
            .prop_map(|(n, unit)| format!("{{ name: r, rate_limit: {n}/{unit} }}")),
        (prop::sample::select(vec!["lt", "lte", "gt", "gte", "eq", "neq"]), limit.clone())
            .prop_map(|(op, n)| format!("{{ name: c, conditions: [{{ path: args.a, op: {op}, value: {n} }}] }}")),
        prop::collection::vec(0..4u32, 0..3)
            .prop_map(|list| format!("{{ name: n, conditions: [{{ path: args.a, op: not_in, value: {list:?} }}] }}")),
        limit.clone().prop_map(|n| format!(
            "{{ name: p, action: require_approval, conditions: [{{ path: args.a, op: gt, value: {n} }}] }}"
        )),
        Just("{ name: d, action: deny }".to_owned()),
        (limit, prop::bool::ANY).prop_map(|(n, from)| {
            let by = if from { "increment_from: args.a" } else { "increment: 2" };
            format!(
                "{{ name: s, conditions: [{{ path: state.t.c, op: lte, value: {n} }}], state: {{ counter: c, window: hour, {by} }} }}"
            )
        }),
        (0..3u32, 0..3u32).prop_map(|(call, day)| format!("{{ name: m, spend: {{ per_call: {call}, daily: {day} }} }}")),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let posture = prop::sample::select(vec!["allow", "deny"]);
    let parts = (
        posture,
        prop::bool::weighted(0.1),
        prop::option::weighted(0.8, prop::collection::vec(rule(), 0..4)),
    );
    parts.prop_filter_map("two rules count one counter", |(default, hidden, rules)| {
        let hide = if hidden { "t" } else { "other" };
        let tools =
            rules.map_or("{}".to_owned(), |rules| format!("{{ t: {{ rules: [{}] }} }}", rules.join(", ")));
        read(&format!("version: \"1\"\ndefault: {default}\nhide: [{hide}]\ntools: {tools}")).policy
    })
}

fn argument() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-2..5i32).prop_map(Value::from),
        (0..5u32).prop_map(|n| Value::from(n.to_string())),
        Just(json!({})),
        Just(json!([1])),
        Just(json!(1.5)),
        Just(Value::Null),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 10_000, ..ProptestConfig::default() })]

    /// Whatever was counted before, a policy that is told to be as strict permits no call that the other does not.
    #[test]
    fn tightening_never_allows_more(
        old in any_policy(), new in any_policy(),
        past in prop::collection::vec((argument(), 0..90u64), 0..6), last in argument(), dollars in 0..3u128,
    ) {
        prop_assume!(loosened(&old, &new).is_empty());
        let mut books = Books::default();
        for (argument, minutes) in past {
            books.call(&old, "t", json!({ "a": argument }), NOON.plus(Duration::from_secs(60 * minutes)));
        }
        let mut copy = Books(books.0.clone());
        let stricter = copy.call(&new, "t", json!({ "a": last.clone() }), NOON);
        let before = books.call(&old, "t", json!({ "a": last }), NOON);
        prop_assert!(said(&stricter) != "ok" || said(&before) == "ok", "{old:?}\n{new:?}");
        // What is asked about was asked about, or let through, before.
        prop_assert!(said(&stricter) != "ask" || ["ok", "ask"].contains(&said(&before).as_str()));
        let dollars = Some(dollars * 1_000_000_000_000_000_000);
        let paid = decide_spend(&new, "t", dollars, &mut copy.0.clone(), NOON);
        let paid_before = decide_spend(&old, "t", dollars, &mut books.0.clone(), NOON);
        prop_assert!(said(&paid) != "ok" || said(&paid_before) == "ok" || said(&stricter) != "ok");
    }

    #[test]
    fn nothing_is_looser_than_itself(policy in any_policy()) {
        prop_assert_eq!(loosened(&policy, &policy), vec![]);
    }

    /// However calls and times are mixed, no window has more than its limit.
    #[test]
    fn a_limit_holds_in_every_window(
        calls in prop::collection::vec((0..7200u64, 0..40u128), 1..80), rolling in prop::bool::ANY,
    ) {
        let window = if rolling { "rolling: 10m" } else { "window: hour" };
        let policy = rules(&[&format!(
            "{{ name: s, conditions: [{{ path: state.t.c, op: lte, value: 100 }}], \
             state: {{ counter: c, {window}, increment_from: args.a }} }}"
        )]);
        let (mut books, mut latest, mut counted) = (Books::default(), 0, Vec::new());
        for (at, amount) in calls {
            let now = NOON.plus(Duration::from_secs(at));
            if said(&books.call(&policy, "t", json!({ "a": amount.to_string() }), now)) == "ok" {
                // A clock that goes back stands still.
                latest = latest.max(at);
                counted.push((latest, amount));
            }
        }
        for (from, _) in &counted {
            let within = |at: u64| if rolling { at >= *from && at < from + 600 } else { at / 3600 == from / 3600 };
            let sum: u128 = counted.iter().filter(|(at, _)| within(*at)).map(|(_, amount)| amount).sum();
            prop_assert!(sum <= 100, "{counted:?}");
        }
    }

    #[test]
    fn a_tally_is_read_as_it_was_written(steps in prop::collection::vec((0..100_000u64, any::<u64>()), 0..20)) {
        let (mut tally, window) = (Tally::default(), Window::Rolling(Duration::from_secs(60)));
        for (at, amount) in steps {
            tally.add(window, Timestamp::from_millis(at), amount.into());
        }
        prop_assert_eq!(Tally::decode(&tally.encode()), Some(tally));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}") {
        let read = read(&text);
        prop_assert_eq!(read.policy.is_some(), read.problems.is_empty());
    }

    #[test]
    fn decimals_compare_as_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        let print = |n: i64| {
            let sign = if n < 0 { "-" } else { "" };
            format!("{sign}{}.{:03}", n.unsigned_abs() / 1000, n.unsigned_abs() % 1000)
        };
        let (x, y) = (Decimal::parse(&print(a)).unwrap(), Decimal::parse(&print(b)).unwrap());
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(Decimal::parse(&x.to_string()), Some(x));
    }
}
