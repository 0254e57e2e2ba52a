//! Whether a policy could let through what another does not. Whatever cannot be shown to be as strict counts as looser.

use std::fmt;

use crate::policy::{Action, Condition, Policy, Posture, Rule, Spend, Test};

/// What a new policy might let through that the old one does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loosening {
    /// Tools that no entry names are allowed now.
    Default,
    /// A tool is no longer hidden.
    Unhidden(String),
    /// A tool is permitted that was not.
    Permitted(String),
    /// A rule is gone or says less. The scope is a tool or `"*"`.
    Rule { scope: String, rule: String },
    /// A definition that was accepted is another one now, or any.
    Pin(String),
}

impl fmt::Display for Loosening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("tools that no entry names are allowed"),
            Self::Unhidden(tool) => write!(f, "{tool} is not hidden any more"),
            Self::Permitted(tool) => write!(f, "{tool} is permitted"),
            Self::Rule { scope, rule } => write!(f, "of {scope} the rule {rule:?} is gone or says less"),
            Self::Pin(tool) => write!(f, "of {tool} another definition is accepted"),
        }
    }
}

/// What the new policy might let through that the old one does not; empty if it is at least as strict.
pub fn loosened(old: &Policy, new: &Policy) -> Vec<Loosening> {
    let mut found = Vec::new();
    if old.default == Posture::Deny && new.default == Posture::Allow {
        found.push(Loosening::Default);
    }
    if !new.hide_all {
        if old.hide_all {
            found.push(Loosening::Unhidden("every tool".to_owned()));
        }
        let gone = old.hide.iter().filter(|tool| !new.hide.contains(*tool));
        found.extend(gone.cloned().map(Loosening::Unhidden));
    }
    if old.default == Posture::Deny {
        let more = new.tools.keys().filter(|tool| !old.tools.contains_key(*tool));
        found.extend(more.cloned().map(Loosening::Permitted));
    }
    for (tool, rules) in &old.tools {
        let now = new.tools.get(tool);
        // What is not named any more is denied, if that is what becomes of it.
        if now.is_none() && new.default == Posture::Deny {
            continue;
        }
        less(tool, rules, now.map_or(&[], Vec::as_slice), &mut found);
    }
    // Every tool was permitted; now one may cost something.
    for (tool, rules) in new.tools.iter().filter(|(tool, _)| !old.tools.contains_key(*tool)) {
        if old.default == Posture::Allow {
            less(tool, &[], rules, &mut found);
        }
    }
    less("*", &old.all, &new.all, &mut found);
    let pins = old.pins.iter().filter(|(tool, hash)| new.pins.get(*tool) != Some(hash));
    found.extend(pins.map(|(tool, _)| Loosening::Pin(tool.clone())));
    found
}

fn less(scope: &str, old: &[Rule], new: &[Rule], found: &mut Vec<Loosening>) {
    let spends_more = |rule: &Rule| {
        // To a tool that had no spend, one that has it gives leave to pay.
        rule.spend().is_some() && !old.iter().any(|one| one.spend().is_some())
    };
    let denied = new.iter().any(|rule| rule.action == Action::Deny);
    if denied {
        return;
    }
    let gone = old.iter().filter(|rule| !new.iter().any(|other| covers(other, rule)));
    let more = new.iter().filter(|rule| spends_more(rule));
    let name = |rule: &Rule| Loosening::Rule { scope: scope.to_owned(), rule: rule.name.clone() };
    found.extend(gone.chain(more).map(name));
}

/// Whether `new` lets nothing through that `old` does not.
fn covers(new: &Rule, old: &Rule) -> bool {
    match (&new.action, &old.action) {
        (Action::Deny, _) => true,
        (
            Action::Evaluate { conditions: now, count, spend },
            Action::Evaluate { conditions: then, count: counted, spend: spent },
        ) => {
            let counts = counted.is_none() || count == counted;
            let spends = match (spend, spent) {
                (_, None) => true,
                (Some(now), Some(then)) => no_more(now, then),
                (None, Some(_)) => false,
            };
            counts && spends && then.iter().all(|then| now.iter().any(|now| implies(now, then)))
        }
        // The fewer conditions, the more often somebody is asked.
        (Action::Approve { conditions: now, .. }, Action::Approve { conditions: then, .. }) => {
            now.iter().all(|now| then.contains(now))
        }
        _ => false,
    }
}

fn no_more(now: &Spend, then: &Spend) -> bool {
    let at_most = |now: Option<u128>, then: Option<u128>| match (now, then) {
        (_, None) => true,
        (Some(now), Some(then)) => now <= then,
        (None, Some(_)) => false,
    };
    at_most(now.per_call, then.per_call) && at_most(now.daily, then.daily)
}

/// Whether what fulfils `now` fulfils `then`.
fn implies(now: &Condition, then: &Condition) -> bool {
    if now.path != then.path {
        return false;
    }
    match (&now.test, &then.test) {
        (Test::Lt(a) | Test::Lte(a), Test::Lte(b)) | (Test::Lt(a), Test::Lt(b)) => a <= b,
        (Test::Lte(a), Test::Lt(b)) => a < b,
        (Test::Gt(a) | Test::Gte(a), Test::Gte(b)) | (Test::Gt(a), Test::Gt(b)) => a >= b,
        (Test::Gte(a), Test::Gt(b)) => a > b,
        (Test::In(a), Test::In(b)) => a.iter().all(|one| b.contains(one)),
        (Test::NotIn(a), Test::NotIn(b)) => b.iter().all(|one| a.contains(one)),
        (a, b) => a == b,
    }
}
