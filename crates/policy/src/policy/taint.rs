//! What becomes of payments to whom something else named first.

use super::decide::people;
use super::{PayTo, Policy};
use crate::{Fact, History, HostPattern, Named, Request, Taint};

/// What the approval is called that people give to whom something else named first.
const TAINT_RULE: &str = "taint";

impl Policy {
    /// What was named by somebody else first, and by this policy not at all, waits for people, or is not paid.
    ///
    /// Also a grant lifts it: it names one host and one payee, which people saw.
    pub(super) fn named_first(&self, history: &History, request: &Request, findings: &mut Vec<Fact>) {
        if self.taint == Taint::Off {
            return;
        }
        let denies = self.taint == Taint::Deny;
        let before = findings.len();
        let news = history.mentions.iter().filter(|mention| !self.names(&mention.what, request));
        findings.extend(news.map(|mention| Fact::NamedFirst {
            what: mention.what.clone(),
            by: mention.by.clone(),
            denies,
        }));
        if findings.len() > before && !denies {
            findings.push(people(TAINT_RULE, 1, history.approval.as_ref(), history));
        }
    }

    /// Whether the owner wrote exactly this into a rule that allows. All names below another are strangers' to take.
    fn names(&self, what: &Named, request: &Request) -> bool {
        match what {
            Named::Host(_) => self.exact_hosts().any(|pattern| pattern.matches(&request.origin)),
            Named::Payee(payee) => self.allow.iter().any(|rule| {
                let only = matches!(&rule.pay_to, PayTo::Only(payees) if payees.contains(payee));
                only || rule.matcher.payees.as_ref().is_some_and(|payees| payees.contains(payee))
            }),
        }
    }

    fn exact_hosts(&self) -> impl Iterator<Item = &HostPattern> {
        let hosts = self.allow.iter().filter_map(|rule| rule.matcher.hosts.as_ref()).flatten();
        hosts.filter(|pattern| matches!(pattern, HostPattern::Exact(..)))
    }

    /// What this policy names, and `old` did not, where that matters.
    pub(super) fn knows_more(&self, old: &Self) -> impl Iterator<Item = String> {
        let known = |pattern: &HostPattern| old.exact_hosts().any(|earlier| earlier.covers(pattern));
        let minds = old.taint != Taint::Off && old.allow.iter().next().is_some();
        let hosts = self.exact_hosts().filter(move |pattern| minds && !known(pattern));
        let hosts = hosts.map(ToString::to_string).collect::<Vec<_>>();
        let payees = |policy: &Self| {
            let of_rule = |rule: &super::Allow| {
                let only = match &rule.pay_to {
                    PayTo::Only(payees) => payees.clone(),
                    PayTo::Pin => Vec::new(),
                };
                let named = rule.matcher.payees.clone().unwrap_or_default();
                only.into_iter().chain(named).collect::<Vec<_>>()
            };
            policy.allow.iter().flat_map(of_rule).collect::<std::collections::BTreeSet<_>>()
        };
        let more = if minds { &payees(self) - &payees(old) } else { std::collections::BTreeSet::new() };
        hosts.into_iter().chain(more.into_iter().map(|payee| payee.to_string()))
    }
}
