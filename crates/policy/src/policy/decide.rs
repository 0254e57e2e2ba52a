use farthing_primitives::Timestamp;
use std::time::Duration;

use super::rule::is_over;
use super::{Allow, Budget, Limit, PayTo, Per, Policy, Question, Screened, Screening, Span};
use crate::decide::{breaker, payee, secret, validity_within};
use crate::meter::{Counted, Number, OWN_DAY, OWN_MINUTE, Whose};
use crate::{AgentName, Approval, Bucket, Decision, Fact, History, Request, Source};

/// Over how long an average minute is taken.
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);
const MINUTES_OF_A_DAY: u64 = 1440;

impl Policy {
    /// Decides whether `request` may be paid at `now`, given what went before.
    ///
    /// Everything is evaluated, so that whoever is refused sees all that stands in the way. [`crate::decide`] is the
    /// same for the rules that an owner sets by hand, and the law that both keep: one denial denies.
    pub fn decide(&self, frozen: bool, history: &History, request: &Request, now: Timestamp) -> Decision {
        let mut findings = vec![if frozen { Fact::Frozen } else { Fact::NotFrozen }];
        let asked = request.charge.money().atoms();
        if asked == 0 {
            findings.push(Fact::ZeroAmount);
        }
        if !self.secrets_in_url {
            findings.extend(secret(request));
        }
        if let Some(limit) = request.max {
            findings.push(if asked <= limit {
                Fact::WithinMax { limit, asked }
            } else {
                Fact::OverMax { limit, asked }
            });
        }
        self.only(request, &mut findings);
        for rule in self.deny.about(&request.origin) {
            if rule.matcher.stops(request, now) && is_over(&rule.over, request) {
                findings.extend(match rule.matcher.holds(request, now) {
                    Ok(true) => Some(Fact::DeniedByRule(rule.name.clone())),
                    Ok(false) => None,
                    // INVARIANT: what has no value denies. A rule that is passed over would allow what it is there for.
                    Err(why) => Some(Fact::ExpressionFailed { rule: rule.name.clone(), why }),
                });
            }
        }
        self.allowed(history, request, now, &mut findings);
        findings.extend(breaker(self.breaker, history, request));
        findings.extend(self.jumps(history, request, now));
        self.budgets(history, request, now, &mut findings);
        self.approvals(history, request, now, &mut findings);
        self.named_first(history, request, &mut findings);
        self.screening(history, request, &mut findings);
        Decision::from_findings(findings)
    }

    /// What the call itself says about networks.
    fn only(&self, request: &Request, findings: &mut Vec<Fact>) {
        let asked = request.charge.money().asset().network();
        if let Some(only) = request.only.as_ref().filter(|only| *only != asked) {
            findings.push(Fact::NetworkNotAllowed { asked: asked.clone(), allowed: vec![only.clone()] });
        }
    }

    /// The first rule that covers everything; or what the one that comes nearest lacks.
    fn allowed(&self, history: &History, request: &Request, now: Timestamp, findings: &mut Vec<Fact>) {
        let mut nearest: Option<(&Allow, Vec<&'static str>)> = None;
        for rule in self.allow.about(&request.origin) {
            let mut lacks = match rule.matcher.objection(request, now) {
                // A rule for other hosts or agents tells whoever is refused nothing.
                Some("hosts" | "agents") => continue,
                Some(objection) => vec![objection],
                None => rule.objections(request),
            };
            // Only what would be allowed otherwise is looked at by an expression.
            if lacks.is_empty() {
                match rule.matcher.holds(request, now) {
                    Ok(true) => {}
                    Ok(false) => lacks.push("when"),
                    Err(why) => {
                        findings.push(Fact::ExpressionFailed { rule: rule.name.clone(), why });
                        lacks.push("when");
                    }
                }
            }
            if lacks.is_empty() {
                findings.push(Fact::AllowedByRule(rule.name.clone()));
                findings.push(match &rule.pay_to {
                    PayTo::Pin => payee(history, request),
                    PayTo::Only(_) => {
                        Fact::PayeeNamed { payee: request.payee.clone(), rule: rule.name.clone() }
                    }
                });
                let limit = rule.max_validity.map_or(self.max_validity, |own| own.min(self.max_validity));
                findings.push(validity_within(limit, request));
                return;
            }
            if nearest.as_ref().is_none_or(|(_, fewest)| lacks.len() < fewest.len()) {
                nearest = Some((rule, lacks));
            }
        }
        findings.push(match nearest {
            Some((rule, lacks)) => Fact::NotAllowedBy {
                rule: rule.name.clone(),
                lacks: lacks.into_iter().map(str::to_owned).collect(),
            },
            None => Fact::HostNotAllowed(request.origin.authority()),
        });
    }

    fn jumps(&self, history: &History, request: &Request, now: Timestamp) -> Vec<Fact> {
        let mut found = Vec::new();
        let asked = request.price.unwrap_or_else(|| request.charge.money().atoms());
        if let (Some(times), Some(usual)) = (self.price_jump, history.usual_price) {
            // What cannot even be counted is no jump: it is more than any price.
            let jumps = usual > 0 && usual.checked_mul(times.into()).is_some_and(|most| asked >= most);
            found.push(if jumps {
                Fact::PriceJump { usual, asked, times }
            } else {
                Fact::UsualPrice { usual, asked }
            });
        }
        if let Some(times) = self.velocity_jump {
            let own = |number, length| {
                let span = Span::Rolling(length);
                let (since, agent) = (span.since(now), &request.caller.agent);
                history
                    .payments(number, |m| m.of.agent == *agent && since.is_some_and(|since| m.until >= since))
            };
            // Who has hardly paid yet is new, and not fast: the count of a budget is for that.
            let (minute, day) = (own(OWN_MINUTE, MINUTE), own(OWN_DAY, DAY));
            let usual = (day / MINUTES_OF_A_DAY).max(1);
            let most = usual.saturating_mul(times.into());
            found.push(if minute >= most {
                Fact::VelocityJump { minute, usual, times }
            } else {
                Fact::UsualVelocity { minute, usual }
            });
        }
        found
    }

    fn budgets(&self, history: &History, request: &Request, now: Timestamp, findings: &mut Vec<Fact>) {
        let Some(chain) = self.chain(request.caller.agent.as_ref()) else {
            findings.push(Fact::AgentUnknown(request.caller.agent.clone()));
            return;
        };
        let mut limited = false;
        for (name, budget) in &chain {
            limited |= self.budget(name, budget, history, request, now, findings);
        }
        // What no budget counts could be spent without end.
        if !limited {
            findings.push(Fact::NoCapFor(request.charge.clone()));
        }
    }

    /// Whether the budget limits what is asked for.
    fn budget(
        &self,
        name: &AgentName,
        budget: &Budget,
        history: &History,
        request: &Request,
        now: Timestamp,
        findings: &mut Vec<Fact>,
    ) -> bool {
        let mut limited = false;
        let own = |agent: Option<&AgentName>| self.counts_in(agent, name);
        for (number, limit) in budget.numbered() {
            let Some(asked) = request.charge.amount_in(&limit.bucket) else { continue };
            limited = true;
            let before = self.spent(name, (number, limit), history, request, now);
            let in_force = self.in_force(name, (budget, number, limit), history, request, now);
            let Some((most, basis)) = in_force else {
                findings.push(Fact::LimitUnknown { budget: name.clone(), limit: limit.clone() });
                continue;
            };
            let limit = Limit { most, ..limit.clone() };
            if let Some(basis) = basis {
                let (budget, limit) = (name.clone(), limit.clone());
                findings.push(Fact::LimitFollows { budget, limit, basis });
            }
            findings.push(weigh(name, limit, before, asked));
        }
        for (number, count) in budget.numbered_counts() {
            let since = count.span.since(now);
            let before = history.payments(number, |m| {
                own(m.of.agent.as_ref()) && since.is_some_and(|since| m.until >= since)
            });
            let (budget, span, most) = (name.clone(), count.span, count.most);
            findings.push(if before < most.into() {
                Fact::WithinCount { budget, span, most, before }
            } else {
                Fact::OverCount { budget, span, most, before }
            });
        }
        limited
    }

    /// What counts in a limit of the budget `name` already; `None` if it cannot be counted.
    pub(crate) fn spent(
        &self,
        name: &AgentName,
        (number, limit): (Number, &Limit),
        history: &History,
        request: &Request,
        now: Timestamp,
    ) -> Option<u128> {
        let Some(since) = limit.span.since(now) else { return Some(0) };
        history
            .movements
            .iter()
            .filter(|m| m.bucket == limit.bucket && m.until >= since)
            .filter(|m| self.counts_in(m.of.agent.as_ref(), name) && limit.per.covers(m, request))
            .try_fold(history.summed(number)?, |sum, m| sum.checked_add(m.amount))
    }

    /// Calls `each` with every limit that what comes from `source` counts in.
    pub(crate) fn counted<'a>(&'a self, source: &'a Source, mut each: impl FnMut(Counted<'a>)) {
        let mut of_budget = |budget: &'a Budget| {
            for (number, limit) in budget.numbered().filter(|(_, limit)| limit.span != Span::Payment) {
                let (of, bucket) = (Whose::new(limit.per, source), Some(&limit.bucket));
                each(Counted { limit: number, of, bucket, payments: false, span: limit.span });
            }
            for (number, count) in budget.numbered_counts() {
                let (of, span) = (Whose::All, count.span);
                each(Counted { limit: number, of, bucket: None, payments: false, span });
            }
            for (number, limit, past) in budget.followed() {
                for (place, length, payments) in past.parts() {
                    let (of, bucket) = (Whose::new(past.per, source), Some(&limit.bucket));
                    let (limit, span) = (number.saturating_add(place), Span::Rolling(length));
                    each(Counted { limit, of, bucket, payments, span });
                }
            }
        };
        match source.agent.as_ref().or(self.owner.as_ref()) {
            Some(agent) => self.above(agent).for_each(|(_, budget)| of_budget(budget)),
            // As in `counts_in`.
            None => {
                let roots = self.budgets.iter().filter(|(name, _)| name.parent().is_none());
                roots.for_each(|(_, budget)| of_budget(budget));
            }
        }
        if self.velocity_jump.is_some() {
            for (limit, length) in [(OWN_MINUTE, MINUTE), (OWN_DAY, DAY)] {
                let of = Whose::Agent(source.agent.clone());
                each(Counted { limit, of, bucket: None, payments: false, span: Span::Rolling(length) });
            }
        }
    }

    /// What is used of each limit that adds up everything in a budget; of those that `agent` is held to, or of all.
    pub fn standing(
        &self,
        agent: Option<&AgentName>,
        history: &History,
        now: Timestamp,
    ) -> Vec<(AgentName, Limit, Option<u128>)> {
        let used = |name: &AgentName, limit: &Limit| {
            let Some(since) = limit.span.since(now) else { return Some(0) };
            let moved = history.movements.iter().filter(|m| m.bucket == limit.bucket && m.until >= since);
            let own = moved.filter(|m| self.counts_in(m.of.agent.as_ref(), name));
            own.map(|m| m.amount).try_fold(0u128, u128::checked_add)
        };
        let held = self.budgets.iter().filter(|(name, _)| agent.is_none_or(|agent| agent.is_within(name)));
        let limits = held.flat_map(|(name, budget)| budget.numbered().map(move |held| (name, budget, held)));
        let all = limits.filter(|(_, _, (_, limit))| limit.per == Per::All);
        all.map(|(name, budget, (number, limit))| {
            let most = self.standing_most(name, (budget, number, limit), history, now);
            (name.clone(), Limit { most, ..limit.clone() }, used(name, limit))
        })
        .collect()
    }

    /// Whether what `agent` spends counts in the budget `name`.
    pub(crate) fn counts_in(&self, agent: Option<&AgentName>, name: &AgentName) -> bool {
        match agent.or(self.owner.as_ref()) {
            Some(agent) => agent.is_within(name),
            // Nobody's: in the only tree there is, and if there are several now, in all of them.
            None => name.parent().is_none(),
        }
    }

    fn approvals(&self, history: &History, request: &Request, now: Timestamp, findings: &mut Vec<Fact>) {
        for rule in self.approve.about(&request.origin) {
            let asks = rule.matcher.stops(request, now)
                && is_over(&rule.over, request)
                && (!rule.new_payee || history.pinned.is_empty());
            if !asks {
                continue;
            }
            findings.extend(match rule.matcher.holds(request, now) {
                Ok(true) => Some(people(&rule.name, rule.quorum, history.approval.as_ref(), history)),
                Ok(false) => None,
                Err(why) => Some(Fact::ExpressionFailed { rule: rule.name.clone(), why }),
            });
        }
    }

    /// What the screener's word comes to; without one it denies.
    fn screening(&self, history: &History, request: &Request, findings: &mut Vec<Fact>) {
        let Some(screener) = &self.screen else { return };
        let Some(screened) = &request.screened else {
            findings.push(Fact::Unscreened);
            return;
        };
        // INVARIANT: an answer counts for the payment that was asked about, by the screener that is in force.
        if !screened.answers(screener, &Question::of(request)) {
            findings.push(Fact::ScreenedOther);
            return;
        }
        let Screened { asks, said, reason, .. } = screened;
        let (by, reason) = (asks.to_string(), reason.clone());
        match *said {
            Screening::Allow => findings.push(Fact::ScreenAllowed { by, reason }),
            Screening::Deny => findings.push(Fact::ScreenDenied { by, reason }),
            Screening::Failed(fault) => findings.push(Fact::ScreenFailed { by, fault }),
            Screening::Hold => {
                findings.push(Fact::ScreenHeld { by, reason });
                // Who granted payments to come was asked before this was held.
                let asked = history.approval.as_ref().filter(|approval| !approval.grant);
                findings.push(people(SCREEN_RULE, screener.quorum, asked, history));
            }
        }
    }
}

/// What an approval that a screener asks for is called.
const SCREEN_RULE: &str = "screen";

/// What people said, or that they have to.
pub(super) fn people(rule: &str, quorum: u32, said: Option<&Approval>, history: &History) -> Fact {
    let rule = rule.to_owned();
    match said {
        Some(approval) if approval.voices >= quorum => {
            Fact::Approved { rule, quorum, by: approval.id.clone() }
        }
        _ => Fact::ApprovalRequired { rule, quorum, pending: history.pending.clone() },
    }
}

impl Allow {
    /// What a rule whose conditions are met does not permit all the same.
    fn objections(&self, request: &Request) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        let over = |(bucket, most): &(Bucket, u128)| {
            request.charge.amount_in(bucket).is_some_and(|asked| asked > *most)
        };
        if self.most.iter().any(over) {
            lacks.push("max");
        }
        if matches!(&self.pay_to, PayTo::Only(payees) if !payees.contains(&request.payee)) {
            lacks.push("pay_to");
        }
        let local = request.private || request.origin.host.is_local();
        if local && !self.private {
            lacks.push("private");
        }
        if !(self.plaintext || request.origin.tls || request.origin.is_loopback()) {
            lacks.push("plaintext");
        }
        lacks
    }
}

fn weigh(budget: &AgentName, limit: Limit, before: Option<u128>, asked: u128) -> Fact {
    let after = before.and_then(|before| before.checked_add(asked));
    let budget = budget.clone();
    match (before, after) {
        (Some(before), Some(after)) if after <= limit.most => {
            Fact::WithinBudget { budget, limit, before, after }
        }
        _ => Fact::OverBudget { budget, limit, before: before.unwrap_or(u128::MAX), after },
    }
}
