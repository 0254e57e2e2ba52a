//! Whether a new policy could let through what an old one would not. It errs towards yes: whoever means it says so.

use std::fmt;

use super::{Allow, Approve, Deny, Matcher, PayTo, Policy};
use crate::{AgentName, Bucket, HostPattern};

/// A place where a new policy allows more than the old one, or might.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loosening {
    Budget { name: AgentName, what: String },
    NewTree(AgentName),
    Allow(String),
    Deny(String),
    Approve(String),
    Breaker,
    Validity,
    Owner,
}

impl fmt::Display for Loosening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget { name, what } => write!(f, "the budget {name} is wider: {what}"),
            Self::NewTree(name) => write!(f, "the budget {name} is part of none that there was"),
            Self::Allow(rule) => write!(f, "{rule} allows what no earlier rule did"),
            Self::Deny(rule) => write!(f, "{rule} denied what is not denied any more"),
            Self::Approve(rule) => write!(f, "{rule} asked for an approval that is not asked for any more"),
            Self::Breaker => f.write_str("the breaker opens later"),
            Self::Validity => f.write_str("signed payments stay valid for longer"),
            Self::Owner => f.write_str("whoever pays without a name has another budget"),
        }
    }
}

impl Policy {
    /// What `self` might allow that `old` does not. Empty only if everything that it allows was allowed before.
    pub fn loosens(&self, old: &Self) -> Vec<Loosening> {
        let mut found = Vec::new();
        self.budgets_loosen(old, &mut found);
        let wider = |new: &&Allow| !old.allow.iter().any(|earlier| new.is_within(earlier));
        found.extend(self.allow.iter().filter(wider).map(|rule| Loosening::Allow(rule.name.clone())));
        let gone = |earlier: &&Deny| !self.deny.iter().any(|new| new.covers(earlier));
        found.extend(old.deny.iter().filter(gone).map(|rule| Loosening::Deny(rule.name.clone())));
        let gone = |earlier: &&Approve| !self.approve.iter().any(|new| new.covers(earlier));
        found.extend(old.approve.iter().filter(gone).map(|rule| Loosening::Approve(rule.name.clone())));
        let later = |new: Option<u32>, old: Option<u32>| match (new, old) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(new), Some(old)) => new > old,
        };
        let breaker = match (&self.breaker, &old.breaker) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(new), Some(old)) => new.refusals > old.refusals || new.within < old.within,
        };
        if breaker || later(self.price_jump, old.price_jump) || later(self.velocity_jump, old.velocity_jump) {
            found.push(Loosening::Breaker);
        }
        if self.max_validity > old.max_validity {
            found.push(Loosening::Validity);
        }
        if self.owner != old.owner {
            found.push(Loosening::Owner);
        }
        found
    }

    fn budgets_loosen(&self, old: &Self, found: &mut Vec<Loosening>) {
        for name in self.budgets.keys() {
            // What is part of a budget that there was, is bound by it.
            if !name.lineage().any(|above| old.budgets.contains_key(&above)) {
                found.push(Loosening::NewTree(name.clone()));
            }
        }
        for (name, earlier) in &old.budgets {
            let Some(new) = self.budgets.get(name) else {
                // Whoever spent from it has none now, or one above it, which is wider.
                if name.lineage().any(|above| self.budgets.contains_key(&above)) {
                    found.push(Loosening::Budget { name: name.clone(), what: "it is gone".to_owned() });
                }
                continue;
            };
            for limit in &earlier.limits {
                let held = new.limits.iter().any(|other| {
                    (other.per, other.span, &other.bucket) == (limit.per, limit.span, &limit.bucket)
                        && other.most <= limit.most
                });
                if !held {
                    found.push(Loosening::Budget { name: name.clone(), what: limit.to_string() });
                }
            }
            for count in &earlier.counts {
                if !new.counts.iter().any(|other| other.span == count.span && other.most <= count.most) {
                    let what = format!("payments in {}", count.span);
                    found.push(Loosening::Budget { name: name.clone(), what });
                }
            }
        }
    }
}

impl Allow {
    /// Whether everything that this rule allows, `other` allows, too.
    fn is_within(&self, other: &Self) -> bool {
        let pay_to = match (&self.pay_to, &other.pay_to) {
            (PayTo::Only(new), PayTo::Only(old)) => new.iter().all(|payee| old.contains(payee)),
            (PayTo::Pin, PayTo::Pin) => true,
            // Who is pinned is nobody who is named, or not surely.
            (PayTo::Only(_), PayTo::Pin) | (PayTo::Pin, PayTo::Only(_)) => false,
        };
        let validity = match (self.max_validity, other.max_validity) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(new), Some(old)) => new <= old,
        };
        let most =
            other.most.iter().all(|(bucket, old)| least(&self.most, bucket).is_some_and(|new| new <= *old));
        self.matcher.is_within(&other.matcher)
            && pay_to
            && validity
            && most
            && (other.private || !self.private)
            && (other.plaintext || !self.plaintext)
    }
}

impl Deny {
    fn covers(&self, other: &Self) -> bool {
        other.matcher.is_within(&self.matcher) && over_covers(&self.over, &other.over)
    }
}

impl Approve {
    fn covers(&self, other: &Self) -> bool {
        other.matcher.is_within(&self.matcher)
            && over_covers(&self.over, &other.over)
            && (!self.new_payee || other.new_payee)
            && self.quorum >= other.quorum
    }
}

fn least(amounts: &[(Bucket, u128)], bucket: &Bucket) -> Option<u128> {
    amounts.iter().filter(|(other, _)| other == bucket).map(|(_, amount)| *amount).min()
}

/// Whether whatever is over one of `inner` is over one of `outer`.
fn over_covers(outer: &[(Bucket, u128)], inner: &[(Bucket, u128)]) -> bool {
    outer.is_empty()
        || (!inner.is_empty()
            && inner
                .iter()
                .all(|(bucket, amount)| least(outer, bucket).is_some_and(|least| least <= *amount)))
}

impl Matcher {
    /// Whether everything that this fits, `other` fits, too.
    fn is_within(&self, other: &Self) -> bool {
        fn subset<T>(new: Option<&[T]>, old: Option<&[T]>, covers: impl Fn(&T, &T) -> bool) -> bool {
            match (new, old) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(new), Some(old)) => new.iter().all(|one| old.iter().any(|other| covers(other, one))),
            }
        }
        fn part<T: Ord>(
            new: Option<&std::collections::BTreeSet<T>>,
            old: Option<&std::collections::BTreeSet<T>>,
        ) -> bool {
            match (new, old) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(new), Some(old)) => new.is_subset(old),
            }
        }
        subset(self.agents.as_deref(), other.agents.as_deref(), |old, new| new.is_within(old))
            && subset(self.hosts.as_deref(), other.hosts.as_deref(), HostPattern::covers)
            && subset(self.paths.as_deref(), other.paths.as_deref(), |old, new| path_covers(old, new))
            && part(self.methods.as_ref(), other.methods.as_ref())
            && part(self.tools.as_ref(), other.tools.as_ref())
            && part(self.networks.as_ref(), other.networks.as_ref())
            && part(self.assets.as_ref(), other.assets.as_ref())
            && part(self.schemes.as_ref(), other.schemes.as_ref())
            && subset(self.payees.as_deref(), other.payees.as_deref(), |old, new| old == new)
            && match (&self.hours, &other.hours) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(new), Some(old)) => {
                    new.offset == old.offset
                        && new.days.is_subset(&old.days)
                        && new.from >= old.from
                        && new.to <= old.to
                }
            }
    }
}

fn path_covers(old: &str, new: &str) -> bool {
    old == new
        || old
            .strip_suffix("/*")
            .is_some_and(|above| new.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')))
}
