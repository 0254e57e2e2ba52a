use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farthing_primitives::{Address, Network, Timestamp};

use crate::mention::Mention;
use crate::meter::{Number, Sums};
use crate::policy::{IndexValue, Screened};
use crate::rules::{Breaker, Fact, Rules, Window};
use crate::secrets::secret_in;
use crate::{AgentName, Bucket, Charge, Origin};

/// A payment that somebody wants to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub scheme: String,
    pub charge: Charge,
    /// What the request costs in atoms, if that is not the charge: a deposit is more than the price of one thing.
    pub price: Option<u128>,
    pub payee: Address,
    /// Who is really asked: the host of the last redirect, not what the seller says of itself.
    pub origin: Origin,
    /// The connection goes to an address of this machine or its network.
    pub private: bool,
    /// The most that this one call may cost, in atoms of the charge's asset.
    pub max: Option<u128>,
    /// This one call may be paid on this network only.
    pub only: Option<Network>,
    /// How long the signed payment would stay valid.
    pub validity: Duration,
    pub caller: Caller,
    /// What the policy's screener said of it. What was not asked is not answered, and denied where one has to be asked.
    pub screened: Option<Screened>,
}

/// On whose behalf a payment is to be made, and for what request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// `None` is the wallet's owner.
    pub agent: Option<AgentName>,
    /// The tool that an agent calls, by the name that its server gives it.
    pub tool: Option<String>,
    /// Whose money it is.
    pub payer: Option<Address>,
    pub method: String,
    /// The URL that is really asked for.
    pub url: String,
    /// Its path, without its query.
    pub path: String,
    /// The SHA-256 of the request's body, where it is known.
    pub body: Option<[u8; 32]>,
}

/// Money that went or may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    pub bucket: Bucket,
    pub amount: u128,
    /// When it moved at the latest; for what is not settled, the last moment in which it can still move.
    pub until: Timestamp,
    pub of: Arc<Source>,
}

/// Where a movement counts besides its bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    pub agent: Option<AgentName>,
    pub authority: String,
    pub payee: Option<Address>,
    pub tool: Option<String>,
}

/// What people said to a payment that has to wait for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub id: String,
    /// How many of them said yes.
    pub voices: u32,
    /// It is for several payments, and was given before anybody asked about this one.
    pub grant: bool,
}

/// What the rules need to know of the past.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Everything that moved or may move, from at least the longest window, and is in no sum.
    pub movements: Vec<Movement>,
    /// What else moved or may move, added up by [`crate::Meters`]. A sum that is needed and not there cannot be counted.
    pub sums: Option<Sums>,
    /// What limits that follow the past are made from, where the windows themselves are not to count.
    pub past: Option<Sums>,
    /// What the owner set, of the policy's indexes.
    pub indexes: BTreeMap<String, IndexValue>,
    /// The payees that are pinned for the request's authority and network.
    pub pinned: Vec<Address>,
    /// How many payments this authority took without handing over the goods, within the breaker's time.
    pub refusals: u32,
    /// What the same request cost last, in atoms of the same asset.
    pub usual_price: Option<u128>,
    /// The approval of exactly this payment, if there is one that holds.
    pub approval: Option<Approval>,
    /// The request for such an approval that people have not answered yet.
    pub pending: Option<String>,
    /// What the request goes by that somebody else wrote down before it was known otherwise.
    pub mentions: Vec<Mention>,
}

impl History {
    /// How many payments count of those that `which` chooses, and in a limit's sum. Each is in the bucket of its asset
    /// once.
    pub(crate) fn payments(&self, limit: Number, which: impl Fn(&Movement) -> bool) -> u64 {
        let listed =
            self.movements.iter().filter(|m| matches!(m.bucket, Bucket::Asset(_)) && which(m)).count();
        let summed = self.summed(limit).and_then(|sum| u64::try_from(sum).ok()).unwrap_or(u64::MAX);
        u64::try_from(listed).unwrap_or(u64::MAX).saturating_add(summed)
    }

    /// What the sums have of a limit; `None` if they should have it.
    pub(crate) fn summed(&self, limit: Number) -> Option<u128> {
        self.sums.as_ref().map_or(Some(0), |sums| sums.of(limit))
    }

    /// What counts against a cap that is set by hand.
    pub(crate) fn spent_by(
        &self,
        rules: &Rules,
        bucket: &Bucket,
        window: Window,
        now: Timestamp,
    ) -> Option<u128> {
        let summed = self.summed(rules.number(bucket, window)?)?;
        self.spent(bucket, window, now)?.checked_add(summed)
    }

    /// What the listed movements count against a cap at `now`; `None` if it cannot be counted.
    ///
    /// A window is `(now - length, now]`; what may still move is in every window.
    pub fn spent(&self, bucket: &Bucket, window: Window, now: Timestamp) -> Option<u128> {
        self.movements
            .iter()
            .filter(|m| m.bucket == *bucket && now.since(m.until) < window.length())
            .try_fold(0u128, |sum, m| sum.checked_add(m.amount))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

/// What one rule found.
pub type Finding = Fact;

/// The verdict and everything that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    pub findings: Vec<Finding>,
}

impl Decision {
    /// Allows only if there are findings and none denies.
    pub fn from_findings(findings: Vec<Finding>) -> Self {
        let allow = !findings.is_empty() && !findings.iter().any(Fact::denies);
        Self { verdict: if allow { Verdict::Allow } else { Verdict::Deny }, findings }
    }

    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// How many people have to agree, if that is all that stands in the way.
    pub fn asks_for_approval(&self) -> Option<u32> {
        self.denials()
            .try_fold(0, |most, fact| match fact {
                Fact::ApprovalRequired { quorum, .. } => Some(most.max(*quorum)),
                _ => None,
            })
            .filter(|quorum| *quorum > 0)
    }

    /// Whether a screener's word is missing, and nothing but it and that of people.
    pub fn asks_for_screening(&self) -> bool {
        let missing = |fact: &Fact| matches!(fact, Fact::Unscreened);
        self.denials().any(missing)
            && self.denials().all(|fact| missing(fact) || matches!(fact, Fact::ApprovalRequired { .. }))
    }

    pub fn denials(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.denies())
    }
}

/// The denials, or all findings if there are none.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = if self.is_allowed() {
            self.findings.iter().map(ToString::to_string).collect()
        } else {
            self.denials().map(ToString::to_string).collect()
        };
        f.write_str(&shown.join("; "))
    }
}

/// Decides whether `request` may be paid, given `rules` and `history`, at `now`.
///
/// Evaluates every rule. One denial denies; and what no rule allows is denied.
pub fn decide(rules: &Rules, history: &History, request: &Request, now: Timestamp) -> Decision {
    let mut findings = vec![if rules.frozen { Fact::Frozen } else { Fact::NotFrozen }];
    findings.push(scheme(rules, request));
    findings.push(network(rules, request));
    findings.push(host(rules, request));
    findings.push(payee(history, request));
    findings.push(validity_within(rules.max_validity, request));
    findings.extend(secret(request));
    findings.extend(breaker(rules.breaker, history, request));
    amounts(rules, history, request, now, &mut findings);
    Decision::from_findings(findings)
}

fn scheme(rules: &Rules, request: &Request) -> Fact {
    let scheme = request.scheme.clone();
    if rules.schemes.contains(&scheme) { Fact::SchemeAllowed(scheme) } else { Fact::SchemeNotAllowed(scheme) }
}

fn network(rules: &Rules, request: &Request) -> Fact {
    let asked = request.charge.money().asset().network();
    let in_call = request.only.as_ref().is_none_or(|only| only == asked);
    if rules.networks.contains(asked) && in_call {
        return Fact::NetworkAllowed(asked.clone());
    }
    let allowed = rules.networks.iter().filter(|n| request.only.as_ref().is_none_or(|only| only == *n));
    Fact::NetworkNotAllowed { asked: asked.clone(), allowed: allowed.cloned().collect() }
}

fn host(rules: &Rules, request: &Request) -> Fact {
    let host = request.origin.authority();
    let private = request.private || request.origin.host.is_local();
    let named: Vec<_> = rules.hosts.iter().filter(|rule| rule.pattern.matches(&request.origin)).collect();
    if named.is_empty() {
        return Fact::HostNotAllowed(host);
    }
    let reachable: Vec<_> = named.into_iter().filter(|rule| rule.private || !private).collect();
    if reachable.is_empty() {
        return Fact::PrivateNotAllowed(host);
    }
    let safe = request.origin.tls || request.origin.is_loopback();
    match reachable.into_iter().find(|rule| rule.plaintext || safe) {
        Some(rule) => Fact::HostAllowed { host, by: rule.pattern.clone() },
        None => Fact::PlaintextNotAllowed(host),
    }
}

pub(crate) fn payee(history: &History, request: &Request) -> Fact {
    let authority = request.origin.authority();
    let payee = request.payee.clone();
    if history.pinned.is_empty() {
        Fact::PayeeFirstUse { authority, payee }
    } else if history.pinned.contains(&payee) {
        Fact::PayeePinned { authority, payee }
    } else {
        Fact::PayeeChanged { authority, pinned: history.pinned.clone(), asked: payee }
    }
}

pub(crate) fn validity_within(limit: Duration, request: &Request) -> Fact {
    if request.validity.is_zero() || request.validity > limit {
        Fact::ValidityTooLong { asked: request.validity, limit }
    } else {
        Fact::ValidityAllowed(request.validity)
    }
}

/// What the address that is asked for must not hold.
pub(crate) fn secret(request: &Request) -> Option<Fact> {
    secret_in(&request.caller.url).map(Fact::SecretInUrl)
}

pub(crate) fn breaker(breaker: Option<Breaker>, history: &History, request: &Request) -> Option<Fact> {
    let breaker = breaker?;
    let refusals = history.refusals;
    Some(if refusals >= breaker.refusals {
        Fact::BreakerOpen { authority: request.origin.authority(), refusals, limit: breaker.refusals }
    } else {
        Fact::BreakerClosed { refusals }
    })
}

fn amounts(rules: &Rules, history: &History, request: &Request, now: Timestamp, findings: &mut Vec<Fact>) {
    let charge = &request.charge;
    let asked = charge.money().atoms();
    if asked == 0 {
        findings.push(Fact::ZeroAmount);
    }
    if let Some(limit) = request.max {
        let fact =
            if asked <= limit { Fact::WithinMax { limit, asked } } else { Fact::OverMax { limit, asked } };
        findings.push(fact);
    }
    let mut counted = BTreeMap::new();
    for (bucket, caps) in &rules.caps {
        if let Some(amount) = charge.amount_in(bucket) {
            counted.insert(bucket, (caps, amount));
        }
    }
    if counted.is_empty() {
        findings.push(Fact::NoCapFor(charge.clone()));
    }
    for (bucket, (caps, asked)) in counted {
        let (limit, bucket) = (caps.per_payment, bucket.clone());
        findings.push(if asked <= limit {
            Fact::WithinPayment { bucket: bucket.clone(), limit, asked }
        } else {
            Fact::OverPayment { bucket: bucket.clone(), limit, asked }
        });
        for window in Window::ALL {
            let limit = match window {
                Window::Hour => caps.hour,
                Window::Day => caps.day,
            };
            let before = history.spent_by(rules, &bucket, window, now);
            let after = before.and_then(|before| before.checked_add(asked));
            let bucket = bucket.clone();
            findings.push(match (before, after) {
                (Some(before), Some(after)) if after <= limit => {
                    Fact::WithinWindow { window, bucket, limit, before, after }
                }
                _ => Fact::OverWindow { window, bucket, limit, before: before.unwrap_or(u128::MAX), after },
            });
        }
    }
}
