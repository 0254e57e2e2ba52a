use std::collections::HashMap;
use std::ops::Deref;

use super::{Allow, Approve, Deny, Matcher};
use crate::{HostPattern, Origin};

/// Rules in their order, found by the host that a request is for: of thousands of rules a decision looks at those that could
/// be about it.
#[derive(Debug, Clone, Default)]
pub struct Listed<R> {
    rules: Vec<R>,
    /// By the hosts that they name, and by the names that they are below.
    exact: HashMap<String, Vec<usize>>,
    below: HashMap<String, Vec<usize>>,
    /// About all hosts.
    any: Vec<usize>,
}

/// What has conditions.
pub trait Rule {
    fn matcher(&self) -> &Matcher;
}

impl Rule for Allow {
    fn matcher(&self) -> &Matcher {
        &self.matcher
    }
}

impl Rule for Deny {
    fn matcher(&self) -> &Matcher {
        &self.matcher
    }
}

impl Rule for Approve {
    fn matcher(&self) -> &Matcher {
        &self.matcher
    }
}

impl<R: Rule> From<Vec<R>> for Listed<R> {
    fn from(rules: Vec<R>) -> Self {
        let (mut exact, mut below, mut any) =
            (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new(), Vec::new());
        for (at, rule) in rules.iter().enumerate() {
            let Some(hosts) = &rule.matcher().hosts else {
                any.push(at);
                continue;
            };
            for host in hosts {
                match host {
                    HostPattern::Any => any.push(at),
                    HostPattern::Exact(host, _) => {
                        exact.entry(host.as_str().to_owned()).or_default().push(at)
                    }
                    HostPattern::Below(name) => below.entry(name.as_str().to_owned()).or_default().push(at),
                }
            }
        }
        Self { rules, exact, below, any }
    }
}

impl<R> Listed<R> {
    /// Every rule that could be about `origin`, in their order. What is left out is about other hosts.
    pub fn about(&self, origin: &Origin) -> impl Iterator<Item = &R> {
        let host = origin.host.as_str();
        let mut found = self.any.clone();
        found.extend(self.exact.get(host).into_iter().flatten());
        if !self.below.is_empty() {
            let dots = host.match_indices('.').filter_map(|(at, _)| host.get(at + 1..));
            dots.filter_map(|name| self.below.get(name)).for_each(|all| found.extend(all));
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(|at| self.rules.get(at))
    }
}

impl<R> Deref for Listed<R> {
    type Target = [R];

    fn deref(&self) -> &[R] {
        &self.rules
    }
}

/// The rest follows from the rules.
impl<R: PartialEq> PartialEq for Listed<R> {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl<R: Eq> Eq for Listed<R> {}

impl<'a, R> IntoIterator for &'a Listed<R> {
    type Item = &'a R;
    type IntoIter = std::slice::Iter<'a, R>;

    fn into_iter(self) -> Self::IntoIter {
        self.rules.iter()
    }
}
