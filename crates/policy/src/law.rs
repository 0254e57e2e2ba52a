use std::sync::Arc;
use std::time::Duration;

use farthing_primitives::Timestamp;

use crate::policy::{Allow, Matcher, PayTo, Span};
use crate::{
    Breaker, Bucket, Decision, History, Origin, Policy, Request, Rules, Screener, Taint, Window, decide,
};

/// What is in force: the rules that an owner sets by hand, or a policy from a file, which takes the place of all of them
/// but the freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Law {
    Rules(Rules),
    Policy { frozen: bool, policy: Arc<Policy> },
}

impl Law {
    pub fn is_frozen(&self) -> bool {
        match self {
            Self::Rules(rules) => rules.frozen,
            Self::Policy { frozen, .. } => *frozen,
        }
    }

    /// The longest time that a signed payment may stay valid, whatever pays.
    pub fn max_validity(&self) -> Duration {
        match self {
            Self::Rules(rules) => rules.max_validity,
            Self::Policy { policy, .. } => policy.max_validity,
        }
    }

    pub fn breaker(&self) -> Option<Breaker> {
        match self {
            Self::Rules(rules) => rules.breaker,
            Self::Policy { policy, .. } => policy.breaker,
        }
    }

    /// Who has to be asked about a payment before it is signed.
    pub fn screener(&self) -> Option<&Screener> {
        match self {
            Self::Rules(_) => None,
            Self::Policy { policy, .. } => policy.screen.as_ref(),
        }
    }

    /// How far back [`History::movements`] has to go; `None` is for ever.
    pub fn memory(&self) -> Option<Duration> {
        match self {
            Self::Rules(_) => Some(Window::Day.length()),
            Self::Policy { policy, .. } => policy.memory(),
        }
    }

    /// Whether [`History::mentions`] matters, and so whether what others name is kept.
    pub fn minds_mentions(&self) -> bool {
        matches!(self, Self::Policy { policy, .. } if policy.taint != Taint::Off)
    }

    /// Whether [`History::usual_price`] matters.
    pub fn minds_prices(&self) -> bool {
        matches!(self, Self::Policy { policy, .. } if policy.price_jump.is_some())
    }

    pub fn decide(&self, history: &History, request: &Request, now: Timestamp) -> Decision {
        match self {
            Self::Rules(rules) => decide(rules, history, request, now),
            Self::Policy { frozen, policy } => policy.decide(*frozen, history, request, now),
        }
    }

    /// Whether this machine's own network may be reached at `origin`.
    pub fn may_reach_private(&self, origin: &Origin) -> bool {
        match self {
            Self::Rules(rules) => rules.hosts.iter().any(|rule| rule.private && rule.pattern.matches(origin)),
            Self::Policy { policy, .. } => policy.allow.iter().any(|rule| {
                let hosts = rule.matcher.hosts.iter().flatten();
                rule.private && hosts.into_iter().any(|pattern| pattern.matches(origin))
            }),
        }
    }

    /// How many times the amount of `request` one payment may be that is otherwise the same; `history` counts if it is
    /// given. What comes of it is asked for, and decided about, all the same.
    pub fn room(&self, history: Option<&History>, request: &Request, now: Timestamp) -> u128 {
        let mut room: Option<u128> = None;
        let mut narrow = |bucket: &Bucket, most: u128| {
            if let Some(each) = request.charge.amount_in(bucket).filter(|each| *each > 0) {
                room = Some(room.map_or(most / each, |room| room.min(most / each)));
            }
        };
        match self {
            Self::Rules(rules) => {
                for (bucket, caps) in &rules.caps {
                    narrow(bucket, caps.per_payment);
                    for window in Window::ALL {
                        let cap = match window {
                            Window::Hour => caps.hour,
                            Window::Day => caps.day,
                        };
                        if let Some(history) = history {
                            let spent = history.spent_by(rules, bucket, window, now).unwrap_or(u128::MAX);
                            narrow(bucket, cap.saturating_sub(spent));
                        }
                    }
                }
            }
            // A payment that goes on is not decided about again: what nothing allows any more has no room.
            Self::Policy { policy, .. } if policy.forbids(request, now) => return 0,
            Self::Policy { policy, .. } => policy.narrow(history, request, now, &mut narrow),
        }
        room.unwrap_or(0)
    }

    /// Whether a payment like `request` could be decided about otherwise if it became more, by an expression. Then one that
    /// goes on has no room that can be told.
    pub fn minds_growth(&self, request: &Request, now: Timestamp) -> bool {
        let Self::Policy { policy, .. } = self else { return false };
        let grows = |matcher: &Matcher| matcher.names_amount() && matcher.stops(request, now);
        let origin = &request.origin;
        policy.allow.about(origin).any(|rule| grows(&rule.matcher))
            || policy.deny.about(origin).any(|rule| grows(&rule.matcher))
            || policy.approve.about(origin).any(|rule| grows(&rule.matcher))
    }
}

impl Policy {
    /// Whether a payment like `request` is denied however small it is.
    fn forbids(&self, request: &Request, now: Timestamp) -> bool {
        self.chain(request.caller.agent.as_ref()).is_none()
            || !self.allow.about(&request.origin).any(|rule| rule.may_cover(request, now))
            || self
                .deny
                .about(&request.origin)
                .filter(|rule| rule.over.is_empty() && rule.matcher.stops(request, now))
                // Of those that depend on the amount, each payment is told by itself.
                .any(|rule| !rule.matcher.names_amount() && rule.matcher.holds(request, now) != Ok(false))
    }

    /// Calls `narrow` with everything that bounds a payment that is otherwise like `request`.
    fn narrow(
        &self,
        history: Option<&History>,
        request: &Request,
        now: Timestamp,
        narrow: &mut impl FnMut(&Bucket, u128),
    ) {
        for (name, budget) in self.chain(request.caller.agent.as_ref()).unwrap_or_default() {
            for (number, limit) in budget.numbered() {
                let most = match history {
                    // What it follows is not known here, so that it is what it is at least.
                    None => limit.floor(),
                    Some(history) => self
                        .in_force(name, (budget, number, limit), history, request, now)
                        .map_or(0, |(most, _)| most),
                };
                match (limit.span, history) {
                    (Span::Payment, _) => narrow(&limit.bucket, most),
                    (_, Some(history)) => {
                        let spent =
                            self.spent(name, (number, limit), history, request, now).unwrap_or(u128::MAX);
                        narrow(&limit.bucket, most.saturating_sub(spent));
                    }
                    (_, None) => {}
                }
            }
        }
        let allow = self.allow.about(&request.origin).find(|rule| rule.may_cover(request, now));
        let allow = allow.into_iter().flat_map(|rule| &rule.most);
        let deny = self
            .deny
            .about(&request.origin)
            .filter(|rule| rule.matcher.stops(request, now) && rule.matcher.may_hold(request, now))
            .flat_map(|rule| &rule.over);
        let ask = self
            .approve
            .about(&request.origin)
            .filter(|rule| rule.matcher.stops(request, now) && rule.matcher.may_hold(request, now))
            .flat_map(|rule| &rule.over);
        for (bucket, most) in allow.chain(deny).chain(ask) {
            narrow(bucket, *most);
        }
    }
}

impl Allow {
    /// Whether this rule is about a payment like `request`, whatever its amount.
    fn may_cover(&self, request: &Request, now: Timestamp) -> bool {
        let named = !matches!(&self.pay_to, PayTo::Only(payees) if !payees.contains(&request.payee));
        named
            && self.matcher.objection(request, now).is_none()
            && (self.matcher.names_amount() || self.matcher.holds(request, now) == Ok(true))
    }
}
