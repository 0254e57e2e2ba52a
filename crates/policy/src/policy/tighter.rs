//! Whether a new policy could let through what an old one would not. It errs towards yes: whoever means it says so.

use std::fmt;

use super::{Allow, Approve, Deny, Index, Limit, Matcher, PayTo, Policy};
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
    Secrets,
    Taint,
    Named(String),
    Index(String),
    Screen,
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
            Self::Secrets => f.write_str("addresses that seem to hold secrets are paid for"),
            Self::Taint => f.write_str("what a tool's output named first is paid more easily"),
            Self::Named(name) => {
                write!(f, "{name} is named now, and paid also where a tool's output named it first")
            }
            Self::Index(name) => write!(f, "the index {name} may be more, or other, or count for longer"),
            Self::Screen => f.write_str("the screener is gone, is another, or has longer to answer"),
            Self::Owner => f.write_str("whoever pays without a name has another budget"),
        }
    }
}

impl Policy {
    /// What `self` might allow that `old` does not. Empty only if everything that it allows was allowed before.
    pub fn loosens(&self, old: &Self) -> Vec<Loosening> {
        let mut found = Vec::new();
        self.budgets_loosen(old, &mut found);
        for (place, rule) in self.allow.iter().enumerate() {
            let mut earlier = old.allow.iter().enumerate().filter(|(_, earlier)| rule.is_within(earlier));
            if !earlier.any(|(at, _)| self.still_yields(place, old, at)) {
                found.push(Loosening::Allow(rule.name.clone()));
            }
        }
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
        if self.secrets_in_url && !old.secrets_in_url {
            found.push(Loosening::Secrets);
        }
        if self.taint < old.taint {
            found.push(Loosening::Taint);
        }
        found.extend(self.knows_more(old).map(Loosening::Named));
        for (name, index) in &self.indexes {
            // A value that was out of its bounds counts once they are wider.
            let wider = |old: &Index| {
                index.bucket != old.bucket
                    || index.least < old.least
                    || index.most > old.most
                    || index.stale_after > old.stale_after
            };
            if old.indexes.get(name).is_some_and(wider) {
                found.push(Loosening::Index(name.clone()));
            }
        }
        let screens_less = match (&self.screen, &old.screen) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(new), Some(old)) => {
                new.asks != old.asks || new.within > old.within || new.quorum < old.quorum
            }
        };
        if screens_less {
            found.push(Loosening::Screen);
        }
        // Of several trees one may go, and whoever has no name then has the one that is left.
        if self.owner != old.owner || (self.chain(None).is_some() && old.chain(None).is_none()) {
            found.push(Loosening::Owner);
        }
        found
    }

    /// Whether the rule at `place` decides nothing that in `old` a rule before the one at `at` did more strictly: the first
    /// that covers a payment says for how long it may be valid, and whether its payee is pinned.
    fn still_yields(&self, place: usize, old: &Self, at: usize) -> bool {
        let new = &self.allow[place];
        let limit = |policy: &Self, rule: &Allow| {
            rule.max_validity.map_or(policy.max_validity, |own| own.min(policy.max_validity))
        };
        old.allow[..at].iter().all(|first| {
            let pins = first.pay_to == PayTo::Pin && new.pay_to != PayTo::Pin;
            // Where its expression has no value it denied, whatever came after it.
            let errs = first.matcher.when.is_some();
            let stricter = pins || errs || limit(old, first) < limit(self, new);
            !stricter
                || first.matcher.is_apart(&new.matcher)
                || self.allow[..place].iter().any(|before| first.covers_within(before))
        })
    }

    fn budgets_loosen(&self, old: &Self, found: &mut Vec<Loosening>) {
        for (name, budget) in &self.budgets {
            // What is part of a budget that there was, is bound by it.
            if !name.lineage().any(|above| old.budgets.contains_key(&above)) {
                found.push(Loosening::NewTree(name.clone()));
                continue;
            }
            // What no budget counts is not paid with, so that a limit lets in what nothing limited before.
            let above: Vec<_> = old.above(name).collect();
            let counted =
                |limit: &&Limit| above.iter().any(|(_, b)| b.limits.iter().any(|l| l.bucket == limit.bucket));
            if let Some(limit) = budget.limits.iter().find(|limit| !counted(limit)) {
                let what = format!("{} was not counted, and so not paid", limit.bucket);
                found.push(Loosening::Budget { name: name.clone(), what });
            }
        }
        for (name, earlier) in &old.budgets {
            let Some(new) = self.budgets.get(name) else {
                // Whoever spent from it has none now, or one above it, which is wider, or one that it held together.
                if self.budgets.keys().any(|other| name.is_within(other) || other.is_within(name)) {
                    found.push(Loosening::Budget { name: name.clone(), what: "it is gone".to_owned() });
                }
                continue;
            };
            for limit in &earlier.limits {
                if !new.limits.iter().any(|other| other.is_held_by(limit)) {
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
        pay_to && validity && self.covers_within(other)
    }

    /// Whether `other` covers whatever this rule covers, which is before either says for how long and if it is pinned.
    fn covers_within(&self, other: &Self) -> bool {
        let payees = match (&self.pay_to, &other.pay_to) {
            (_, PayTo::Pin) => true,
            (PayTo::Pin, PayTo::Only(_)) => false,
            (PayTo::Only(new), PayTo::Only(old)) => new.iter().all(|payee| old.contains(payee)),
        };
        let most =
            other.most.iter().all(|(bucket, old)| least(&self.most, bucket).is_some_and(|new| new <= *old));
        self.matcher.is_within(&other.matcher)
            && payees
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
            // One whose expression has no value denies, where people could say yes to one without.
            && self.matcher.when == other.matcher.when
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
    /// Whether nothing fits both, which their hosts or agents tell: of two that overlap one covers the other.
    fn is_apart(&self, other: &Self) -> bool {
        fn apart<T>(one: Option<&[T]>, other: Option<&[T]>, meet: impl Fn(&T, &T) -> bool) -> bool {
            let (Some(one), Some(other)) = (one, other) else { return false };
            !one.iter().any(|a| other.iter().any(|b| meet(a, b)))
        }
        apart(self.hosts.as_deref(), other.hosts.as_deref(), |a, b| a.covers(b) || b.covers(a))
            || apart(self.agents.as_deref(), other.agents.as_deref(), |a, b| a.is_within(b) || b.is_within(a))
    }

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
            // Whether one expression implies another is not told.
            && (other.when.is_none() || self.when == other.when)
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
