//! Policies for the tools of MCP servers: whatever the YAML says, reading it ends and points at what is wrong; and whatever
//! a call brings, the decision is the same twice, counts all of it or nothing, and is no looser where nothing was loosened.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use farthing_primitives::Timestamp;
use farthing_toolguard::{
    Call, Decimal, Decision, Key, MAX_DIGITS, Policy, Tally, decide, decide_spend, is_hidden, keys_of,
    loosened, never_permits, read,
};
use serde_json::{Map, Value};

use super::is_short;
use crate::input::Input;

const NOON: Timestamp = Timestamp::from_secs(1_795_348_800);
const TOOLS: &[&str] = &["pay", "read", "x.y"];

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 6 {
        0 | 1 => {
            let call = called(&mut input);
            let text = String::from_utf8_lossy(input.rest()).into_owned();
            if let Some(policy) = reads(&text) {
                judged(&policy, &call);
            }
        }
        2 => decimals(&mut input),
        3 => {
            let text = String::from_utf8_lossy(input.rest()).into_owned();
            if let Some(tally) = Tally::decode(&text) {
                assert_eq!(Tally::decode(&tally.encode()).as_ref(), Some(&tally));
            }
        }
        _ => two(&mut input),
    }
}

/// A call, and what was counted before it.
struct Called {
    tool: &'static str,
    arguments: Map<String, Value>,
    before: u64,
    dollars: Option<u128>,
}

fn called(input: &mut Input<'_>) -> Called {
    let tool = *input.pick(TOOLS);
    let before = input.byte().into();
    let dollars = (input.byte() > 0).then(|| u128::from(input.u16()) * 10u128.pow(15));
    let read = serde_json::from_slice::<Value>(input.blob());
    let arguments = match read {
        Ok(Value::Object(map)) => map,
        Ok(value) => Map::from_iter([("amount".to_owned(), value)]),
        Err(_) => Map::new(),
    };
    Called { tool, arguments, before, dollars }
}

fn reads(text: &str) -> Option<Policy> {
    let done = read(text);
    assert_eq!(done.policy.is_none(), !done.problems.is_empty(), "{:?}", done.problems);
    // The end of the text is a place behind its last line.
    let lines = u64::try_from(text.split(['\n', '\r']).count()).expect("few") + 1;
    for finding in done.problems.iter().chain(&done.warnings) {
        is_short(finding);
        assert!((1..=lines).contains(&finding.line) && finding.column >= 1, "{finding} of {text:?}");
    }
    done.policy
}

/// What holds of every policy that was read.
fn judged(policy: &Policy, call: &Called) {
    let looser = loosened(policy, policy);
    assert!(looser.is_empty(), "looser than itself: {looser:?}");
    let named = Call { tool: call.tool, arguments: &call.arguments };
    let keys = keys_of(policy, call.tool);
    let mut before: BTreeMap<Key, Tally> = BTreeMap::new();
    for key in &keys {
        let mut tally = Tally::default();
        tally.add(key.window, NOON.minus(Duration::from_secs(1)), call.before.into()).expect("few");
        before.insert(key.clone(), tally);
    }
    let mut decisions = Vec::new();
    for approved in [false, true] {
        let (mut one, mut other) = (before.clone(), before.clone());
        let decision = decide(policy, &named, &mut one, NOON, approved);
        assert_eq!(decision, decide(policy, &named, &mut other, NOON, approved));
        assert_eq!(one, other);
        match &decision {
            Decision::Allowed(reservation) => {
                assert!(!is_hidden(policy, call.tool) && !never_permits(policy, call.tool));
                assert!(reservation.0.iter().all(|taken| keys.contains(&taken.key)));
                for taken in &reservation.0 {
                    let value = |tallies: &BTreeMap<Key, Tally>| {
                        tallies.get(&taken.key).map_or(0, |tally| tally.value(taken.key.window, NOON))
                    };
                    assert_eq!(value(&before) + taken.amount, value(&one));
                }
                reservation.give_back(&mut one);
                for (key, tally) in &before {
                    let back = one.get(key).map_or(0, |tally| tally.value(key.window, NOON));
                    assert_eq!(back, tally.value(key.window, NOON), "{key} is not given back");
                }
            }
            Decision::Denied(reasons) => {
                assert_eq!(one, before, "a denied call counts");
                assert!(!reasons.is_empty());
                reasons.iter().for_each(|reason| is_short(&reason.text));
                if is_hidden(policy, call.tool) {
                    assert_eq!(reasons[0].code, "tool_unknown");
                }
            }
            Decision::NeedsApproval { .. } => {
                assert_eq!(one, before, "a call that waits counts");
                assert!(!approved, "who agreed is asked again");
            }
        }
        decisions.push(decision);
    }
    // Who agrees changes nothing but that somebody was to agree.
    if !matches!(decisions[0], Decision::NeedsApproval { .. }) {
        assert_eq!(decisions[0], decisions[1]);
    }
    let mut spent = BTreeMap::new();
    match decide_spend(policy, call.tool, call.dollars, &mut spent, NOON) {
        Decision::Allowed(_) => {
            let dollars = call.dollars.expect("a price in dollars");
            assert!(policy.most_per_call(call.tool).is_none_or(|most| dollars <= most));
            assert!(!policy.spend_keys(call.tool).is_empty());
        }
        _ => assert!(spent.is_empty()),
    }
}

const RULES: &[&str] = &[
    "{name: a, action: deny}",
    "{name: b, rate_limit: 5/hour}",
    "{name: c, rate_limit: 50/minute}",
    "{name: d, conditions: [{path: args.amount, op: lte, value: 10}]}",
    "{name: e, conditions: [{path: args.amount, op: lt, value: 10.5}]}",
    "{name: f, conditions: [{path: args.amount, op: in, value: [1, \"2\", true]}]}",
    "{name: g, conditions: [{path: args.amount, op: in, value: [1]}]}",
    "{name: h, conditions: [{path: args.to, op: not_in, value: [a, b]}]}",
    "{name: i, conditions: [{path: args.to, op: not_in, value: [a]}]}",
    "{name: j, conditions: [{path: args.to, op: regex, value: \"^a+$\"}]}",
    "{name: k, conditions: [{path: args.to, op: contains, value: a}]}",
    "{name: l, conditions: [{path: args.to, op: exists, value: false}]}",
    "{name: m, conditions: [{path: args.amount, op: gte, value: -1}, {path: args.amount, op: neq, value: 5}]}",
    "{name: n, action: require_approval}",
    "{name: o, action: require_approval, conditions: [{path: args.amount, op: gt, value: 3}]}",
    "{name: p, conditions: [{path: state.TOOL.sum, op: lte, value: 100}], state: {counter: sum, window: day, increment_from: args.amount}}",
    "{name: q, conditions: [{path: state.TOOL.n, op: lt, value: 30}], state: {counter: n, rolling: 1h, increment: 2}}",
    "{name: r, spend: {per_call: 0.50, daily: 2}}",
    "{name: s, spend: {per_call: 0.25}}",
];

fn made(input: &mut Input<'_>) -> String {
    let default = input.pick(&["deny", "allow"]);
    let hide = input.pick(&["[]", "[read]", "[\"*\"]"]);
    let mut tools = String::new();
    for tool in ["pay", "read", "\"*\""] {
        let count = input.byte() % 4;
        if count == 0 {
            continue;
        }
        let scope = if tool == "\"*\"" { "_global" } else { tool };
        let rules: Vec<String> = (1..count).map(|_| input.pick(RULES).replace("TOOL", scope)).collect();
        tools += &format!("  {tool}: {{rules: [{}]}}\n", rules.join(", "));
    }
    let tools = if tools.is_empty() { " {}".to_owned() } else { format!("\n{tools}") };
    format!("version: \"1\"\ndefault: {default}\nhide: {hide}\ntools:{tools}")
}

/// Two policies: if nothing was loosened, nothing is allowed that was not.
fn two(input: &mut Input<'_>) {
    let call = called(input);
    let (first, second) = (made(input), made(input));
    let [Some(old), Some(new)] = [&first, &second].map(|text| reads(text)) else { return };
    if loosened(&old, &new).is_empty() {
        let named = Call { tool: call.tool, arguments: &call.arguments };
        let allows = |policy: &Policy| {
            let decision = decide(policy, &named, &mut BTreeMap::new(), NOON, false);
            matches!(decision, Decision::Allowed(_))
        };
        assert!(allows(&old) || !allows(&new), "nothing loosened, and allowed:\n{first}\n{second}");
        let pays = |policy: &Policy| {
            let decision = decide_spend(policy, call.tool, call.dollars, &mut BTreeMap::new(), NOON);
            matches!(decision, Decision::Allowed(_)) && allows(policy)
        };
        assert!(pays(&old) || !pays(&new), "nothing loosened, and paid:\n{first}\n{second}");
    }
    judged(&old, &call);
    judged(&new, &call);
}

/// Decimals compare as numbers do, however long they are.
fn decimals(input: &mut Input<'_>) {
    let (first, second) = (input.text(), String::from_utf8_lossy(input.rest()).into_owned());
    let [Some(a), Some(b)] = [&first, &second].map(|text| Decimal::parse(text)) else { return };
    for (number, text) in [(&a, &first), (&b, &second)] {
        assert!(text.len() <= 2 * MAX_DIGITS + 2);
        assert_eq!(Decimal::parse(&number.to_string()).as_ref(), Some(number));
        for decimals in [0, 6, 18] {
            if let Some(units) = number.units(decimals) {
                assert!(number.cmp(&Decimal::from(0)).is_ge());
                // So many units, one more, and one less: the number is where it should be.
                let scaled = |units: u128| {
                    let digits = format!("{units:0>width$}", width = usize::from(decimals) + 1);
                    let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
                    let text =
                        if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") };
                    Decimal::parse(&text).expect("a decimal")
                };
                assert_eq!(scaled(units).cmp(number), Ordering::Equal);
                assert!(units.checked_add(1).is_none_or(|more| scaled(more) > *number));
            }
        }
    }
    assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
    // By another way: everything in units of the same size, if they fit.
    if let (Some(left), Some(right)) = (a.units(18), b.units(18)) {
        assert_eq!(a.cmp(&b), left.cmp(&right), "{a} and {b}");
    }
    assert!(a.clone().max(b.clone()) >= a.clone().min(b));
}
