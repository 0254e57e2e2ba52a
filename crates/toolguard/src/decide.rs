//! The decision on one call, and what it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farthing_primitives::Timestamp;
use serde_json::{Map, Value};

use crate::compare::{self, Truth};
use crate::decimal::Decimal;
use crate::policy::{Action, Condition, Increment, Path, Policy, Posture, Rule, Spend, Test};
use crate::tally::{Key, Tally};

/// How an agent calls a tool.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub tool: &'a str,
    pub arguments: &'a Map<String, Value>,
}

/// Why a call is not sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Stable.
    pub code: &'static str,
    /// The rule that says so.
    pub rule: Option<String>,
    /// In the owner's words if there are any, else in ours. Never in those of a server.
    pub text: String,
    /// When the same call may fare better, if time alone helps.
    pub retry_after: Option<Duration>,
}

/// What a call counted, so that it can be taken back if it never left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservation(pub Vec<Taken>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub key: Key,
    /// The part of the counter's window.
    pub part: u64,
    pub amount: u128,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The counters have it.
    Allowed(Reservation),
    /// Nothing was counted. The rule that the owner sees first comes first.
    Denied(Vec<Reason>),
    /// Somebody must agree first; nothing was counted.
    NeedsApproval { rule: String, text: Option<String>, timeout: Option<Duration> },
}

/// Whether a tool is out of the agent's sight, so that it can neither be found nor called.
pub fn is_hidden(policy: &Policy, tool: &str) -> bool {
    policy.hide_all || policy.hide.contains(tool)
}

/// Whether the policy permits no call of a tool, whatever its arguments are, whoever agrees and however long one waits: it
/// is hidden, it is named by no entry where that denies, or a rule without conditions denies it.
pub fn never_permits(policy: &Policy, tool: &str) -> bool {
    let unnamed = policy.default == Posture::Deny && !policy.tools.contains_key(tool);
    is_hidden(policy, tool) || unnamed || policy.rules(tool).any(|(_, rule)| rule.action == Action::Deny)
}

/// The counters that the decision on a call of this tool reads or adds to, without those of what it costs.
pub fn keys_of(policy: &Policy, tool: &str) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    for (_, rule) in policy.rules(tool) {
        keys.extend(rule.count().map(|count| count.key.clone()));
        keys.extend(rule.conditions().iter().filter_map(|condition| match &condition.path {
            Path::State(key) => Some(key.clone()),
            Path::Args(_) => None,
        }));
    }
    keys
}

fn denied(code: &'static str, rule: Option<&Rule>, text: String) -> Reason {
    let text = rule.and_then(|rule| rule.on_deny.clone()).unwrap_or(text);
    Reason { code, rule: rule.map(|rule| rule.name.clone()), text, retry_after: None }
}

/// Decides on a call, and counts it if it is allowed.
///
/// `tallies` has the counters of [`keys_of`]; one that was never counted may be missing. They change only if the call is
/// allowed, all of them or none. `approved`: somebody agreed to exactly this call.
///
/// Hidden tools first, then those that no entry names where that denies, then every rule: of the tool, then of all tools.
/// One that denies is enough, and all are looked at, so that the agent hears every reason at once.
pub fn decide(
    policy: &Policy,
    call: &Call<'_>,
    tallies: &mut BTreeMap<Key, Tally>,
    now: Timestamp,
    approved: bool,
) -> Decision {
    let name = call.tool;
    if is_hidden(policy, name) {
        // As for a name that nobody has: what is hidden is not confirmed to be there.
        return Decision::Denied(vec![denied("tool_unknown", None, "no tool has this name".to_owned())]);
    }
    if policy.default == Posture::Deny && !policy.tools.contains_key(name) {
        let text = "the policy does not permit this tool".to_owned();
        return Decision::Denied(vec![denied("tool_not_permitted", None, text)]);
    }
    let mut reasons = Vec::new();
    let mut approval = None;
    let mut taken: BTreeMap<Key, u128> = BTreeMap::new();
    for (_, rule) in policy.rules(name) {
        let Some(count) = rule.count() else { continue };
        match increment(&count.increment, call.arguments) {
            Ok(amount) => {
                taken.insert(count.key.clone(), amount);
            }
            Err(text) => reasons.push(denied("increment_invalid", Some(rule), text)),
        }
    }
    for (_, rule) in policy.rules(name) {
        match &rule.action {
            Action::Deny => {
                reasons.push(denied("rule_denies", Some(rule), "the policy denies this tool".to_owned()));
            }
            Action::Evaluate { conditions, .. } => {
                for condition in conditions {
                    let state = State { tallies, taken: &taken, now };
                    reasons.extend(objection(rule, condition, call.arguments, &state));
                }
            }
            Action::Approve { conditions, timeout } => {
                let state = State { tallies, taken: &taken, now };
                let exempt = conditions.iter().any(|one| holds(one, call.arguments, &state) == Truth::No);
                if !exempt && approval.is_none() {
                    approval = Some((rule, *timeout));
                }
            }
        }
    }
    if !reasons.is_empty() {
        return Decision::Denied(reasons);
    }
    if let Some((rule, timeout)) = approval.filter(|_| !approved) {
        let (rule, text) = (rule.name.clone(), rule.on_deny.clone());
        return Decision::NeedsApproval { rule, text, timeout };
    }
    match take(tallies, taken, now) {
        Some(reservation) => Decision::Allowed(reservation),
        None => {
            let text = "a counter of the policy is as high as it can count".to_owned();
            Decision::Denied(vec![denied("counter_limit", None, text)])
        }
    }
}

/// Decides on what a call of this tool costs, in 10^-18 dollars, and counts it if that is allowed; `tallies` has the
/// counters of the tool's spend. `dollars` is `None` if the price is in no dollars.
pub fn decide_spend(
    policy: &Policy,
    tool: &str,
    dollars: Option<u128>,
    tallies: &mut BTreeMap<Key, Tally>,
    now: Timestamp,
) -> Decision {
    let rules: Vec<(&Rule, &Spend)> =
        policy.rules(tool).filter_map(|(_, rule)| Some((rule, rule.spend()?))).collect();
    if rules.is_empty() {
        let text = "the tool asks to be paid, and the policy has no spend for it".to_owned();
        return Decision::Denied(vec![denied("spend_not_allowed", None, text)]);
    }
    let Some(dollars) = dollars else {
        let text = "the price is in no dollars, and the policy's spend is".to_owned();
        return Decision::Denied(vec![denied("spend_not_dollars", None, text)]);
    };
    let mut reasons = Vec::new();
    let mut taken = BTreeMap::new();
    for (rule, spend) in rules {
        if spend.per_call.is_some_and(|most| dollars > most) {
            let text = "this call costs more than the policy lets one call cost".to_owned();
            reasons.push(denied("spend_per_call", Some(rule), text));
        }
        let tally = tallies.get(&spend.key).cloned().unwrap_or_default();
        let spent = tally.value(spend.key.window, now);
        if let Some(most) = spend.daily
            && spent.checked_add(dollars).is_none_or(|after| after > most)
        {
            let text = "the policy's dollars of the day are spent, or too few for this call".to_owned();
            let mut reason = denied("spend_daily", Some(rule), text);
            reason.retry_after = most
                .checked_sub(dollars)
                .and_then(|target| tally.falls_to(spend.key.window, now, target).map(|at| at.since(now)));
            reasons.push(reason);
        }
        taken.insert(spend.key.clone(), dollars);
    }
    if !reasons.is_empty() {
        return Decision::Denied(reasons);
    }
    match take(tallies, taken, now) {
        Some(reservation) => Decision::Allowed(reservation),
        None => {
            let text = "the policy's dollars of the day are more than can be counted".to_owned();
            Decision::Denied(vec![denied("spend_daily", None, text)])
        }
    }
}

impl Policy {
    /// The counters of what a tool may cost; empty if it may cost nothing.
    pub fn spend_keys(&self, tool: &str) -> BTreeSet<Key> {
        self.rules(tool).filter_map(|(_, rule)| Some(rule.spend()?.key.clone())).collect()
    }

    /// The most that one call of a tool may cost, in 10^-18 dollars.
    pub fn most_per_call(&self, tool: &str) -> Option<u128> {
        self.rules(tool).filter_map(|(_, rule)| rule.spend()?.per_call).min()
    }
}

impl Reservation {
    /// Takes everything back: the call never left.
    pub fn give_back(&self, tallies: &mut BTreeMap<Key, Tally>) {
        for Taken { key, part, amount } in &self.0 {
            if let Some(tally) = tallies.get_mut(key) {
                tally.give_back(*part, *amount);
            }
        }
    }
}

/// Counts all of it, or nothing if one counter cannot.
fn take(
    tallies: &mut BTreeMap<Key, Tally>,
    amounts: BTreeMap<Key, u128>,
    now: Timestamp,
) -> Option<Reservation> {
    let (mut after, mut taken) = (Vec::new(), Vec::new());
    for (key, amount) in amounts {
        let mut tally = tallies.get(&key).cloned().unwrap_or_default();
        let part = tally.add(key.window, now, amount)?;
        after.push((key.clone(), tally));
        taken.push(Taken { key, part, amount });
    }
    tallies.extend(after);
    Some(Reservation(taken))
}

fn increment(increment: &Increment, arguments: &Map<String, Value>) -> Result<u128, String> {
    match increment {
        Increment::Fixed(amount) => Ok(*amount),
        Increment::From(path) => {
            let shown = path.join(".");
            let value = compare::at(arguments, path)
                .ok_or_else(|| format!("the policy counts args.{shown}, and it is missing"))?;
            compare::increment(value).ok_or_else(|| {
                format!(
                    "the policy counts args.{shown}, which must be a whole number that is not negative, in plain digits"
                )
            })
        }
    }
}

/// The counters as a rule sees them.
struct State<'a> {
    tallies: &'a BTreeMap<Key, Tally>,
    /// What this call adds, if it is allowed.
    taken: &'a BTreeMap<Key, u128>,
    now: Timestamp,
}

impl State<'_> {
    fn before(&self, key: &Key) -> u128 {
        self.tallies.get(key).map_or(0, |tally| tally.value(key.window, self.now))
    }

    /// What the counter would be with this call; as much as there is if that cannot be counted, which no limit permits.
    fn after(&self, key: &Key) -> u128 {
        let added = self.taken.get(key).copied().unwrap_or(0);
        self.before(key).saturating_add(added)
    }

    /// What a condition compares with: an upper bound is one for what the counter is after the call.
    fn seen(&self, key: &Key, test: &Test) -> u128 {
        match test {
            Test::Lt(_) | Test::Lte(_) => self.after(key),
            _ => self.before(key),
        }
    }
}

fn holds(condition: &Condition, arguments: &Map<String, Value>, state: &State<'_>) -> Truth {
    match &condition.path {
        Path::Args(path) => compare::test(&condition.test, compare::at(arguments, path)),
        Path::State(key) => compare::test_count(&condition.test, state.seen(key, &condition.test)),
    }
}

/// Why a rule's condition denies, if it does not hold beyond doubt.
fn objection(
    rule: &Rule,
    condition: &Condition,
    arguments: &Map<String, Value>,
    state: &State<'_>,
) -> Option<Reason> {
    let truth = holds(condition, arguments, state);
    let shown = condition.path.to_string();
    match (truth, &condition.path) {
        (Truth::Yes, _) => None,
        (Truth::Missing, _) => Some(denied(
            "argument_missing",
            Some(rule),
            format!("{shown} is missing, and the policy asks for it"),
        )),
        (Truth::Unlike, _) => {
            let text = format!("{shown} is nothing that compares with what the policy says");
            Some(denied("argument_not_comparable", Some(rule), text))
        }
        (Truth::No, Path::Args(_)) => {
            let text = format!("{shown} is not what the policy permits");
            Some(denied("condition_not_met", Some(rule), text))
        }
        (Truth::No, Path::State(key)) => {
            let code = if key.counter.starts_with("_rate_") { "rate_limited" } else { "counter_limit" };
            let mut reason = denied(code, Some(rule), format!("{shown} has reached the policy's limit"));
            reason.retry_after = retry_after(key, &condition.test, state);
            Some(reason)
        }
    }
}

/// When the counter will have forgotten enough for this call.
fn retry_after(key: &Key, test: &Test, state: &State<'_>) -> Option<Duration> {
    let highest = match test {
        Test::Lte(limit) => floor(limit)?,
        Test::Lt(limit) => floor(limit)
            .filter(|whole| Decimal::from(*whole) < *limit)
            .or_else(|| floor(limit).and_then(|whole| whole.checked_sub(1)))?,
        _ => return None,
    };
    let added = state.taken.get(key).copied().unwrap_or(0);
    let target = highest.checked_sub(added)?;
    let at = state.tallies.get(key)?.falls_to(key.window, state.now, target)?;
    Some(at.since(state.now))
}

/// The whole number below a limit that is not negative.
fn floor(limit: &Decimal) -> Option<u128> {
    let text = limit.to_string();
    text.split('.').next()?.parse().ok()
}
