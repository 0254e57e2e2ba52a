//! What an owner allows, as a file says it: budgets in a tree, and rules that allow, deny and ask for approval.
//!
//! Nothing is paid that no rule under `allow` covers; one rule under `deny` outweighs all of them; and every budget from
//! the agent's own up to the root of its tree has to have room. What cannot be told denies.

mod budget;
mod decide;
mod document;
mod expression;
mod follow;
mod listed;
mod rule;
mod screen;
mod taint;
mod tighter;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use budget::{Budget, Calendar, Limit, Per, Span};
pub(crate) use document::MAX_QUORUM;
pub use document::{MAX_DEPTH, MAX_FILE_BYTES, MAX_RULES, PolicyError, length_of, schema};
pub use expression::{
    Expression, ExpressionError, MAX_EXPRESSION_BYTES, MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_PARTS, Unfit,
};
pub use follow::{Basis, Follow, Followed, Index, IndexValue, MAX_PERCENT};
pub use listed::{Listed, Rule};
pub(crate) use rule::is_plain;
pub use rule::{Allow, Approve, Deny, Hours, Matcher, PayTo, Weekday};
pub use screen::{
    Asks, MAX_REASON_CHARS, MAX_SCREEN_WITHIN, Question, SCREEN_WITHIN, ScreenFault, Screened, Screener,
    Screening,
};
pub use tighter::Loosening;

use crate::{AgentName, Breaker, Taint};

/// A policy as it is decided by: read with [`Policy::parse`], and never half read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    /// The budget of whoever pays without a name: the owner at the terminal.
    pub owner: Option<AgentName>,
    /// The longest time that a signed payment may stay valid.
    pub max_validity: Duration,
    /// An address that seems to hold a secret may be paid for all the same.
    pub secrets_in_url: bool,
    /// What becomes of payments to whom something else named first.
    pub taint: Taint,
    pub breaker: Option<Breaker>,
    /// A price is refused from this many times the last price of the same thing on.
    pub price_jump: Option<u32>,
    /// Payments stop if the last minute has this many times as many of them as a minute of the last day has on average.
    pub velocity_jump: Option<u32>,
    pub budgets: BTreeMap<AgentName, Budget>,
    /// Numbers that the owner sets, by name.
    pub indexes: BTreeMap<String, Index>,
    pub allow: Listed<Allow>,
    pub deny: Listed<Deny>,
    pub approve: Listed<Approve>,
    /// Who is asked about a payment before it is signed.
    pub screen: Option<Screener>,
}

/// Whether a policy decides, or is only looked at beside the one that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    Observe,
}

impl Policy {
    /// How far back the past has to be known; `None` is for ever.
    pub fn memory(&self) -> Option<Duration> {
        let day = Duration::from_secs(86_400);
        self.budgets
            .values()
            .flat_map(|budget| {
                budget
                    .limits
                    .iter()
                    .map(|limit| limit.span)
                    .chain(budget.counts.iter().map(|count| count.span))
            })
            .try_fold(day, |longest, span| Some(longest.max(span.reach()?)))
            .map(|longest| {
                let limits = self.budgets.values().flat_map(|budget| &budget.limits);
                let pasts = limits.filter_map(|limit| Some(limit.past()?.reach()));
                pasts.fold(longest, Duration::max)
            })
    }

    /// The budgets that a payment of `agent` counts in, its own first and the root last. `None` if it has none.
    pub fn chain<'a>(&'a self, agent: Option<&'a AgentName>) -> Option<Vec<(&'a AgentName, &'a Budget)>> {
        let agent = match (agent, &self.owner) {
            (Some(agent), _) | (None, Some(agent)) => agent,
            // Whoever has one tree need not say which.
            (None, None) => {
                let mut roots = self.budgets.keys().filter(|name| name.parent().is_none());
                let only = roots.next()?;
                return roots.next().is_none().then(|| self.above(only).collect());
            }
        };
        let found: Vec<_> = self.above(agent).collect();
        (!found.is_empty()).then_some(found)
    }

    /// The budgets on the way from an agent's own up to the root.
    pub(crate) fn above<'a>(
        &'a self,
        agent: &'a AgentName,
    ) -> impl Iterator<Item = (&'a AgentName, &'a Budget)> {
        let line = std::iter::successors(Some(agent.as_str()), |name| Some(name.rsplit_once('/')?.0));
        line.filter_map(|name| self.budgets.get_key_value(name))
    }
}
