//! Limits that follow what was paid before, or a number that the owner sets. A rule makes them more or less, and never less
//! than a floor nor more than a ceiling, which are the owner's own words.
//!
//! What is not old enough counts in no limit's history, nor does what may still be taken back: what is bought to raise a
//! limit raises it only later, and by no more than the rule's part each time.

use std::fmt;
use std::time::Duration;

use farthing_primitives::Timestamp;

use super::budget::spell;
use super::{Budget, Limit, Per, Policy, Span};
use crate::meter::Number;
use crate::rules::amount;
use crate::{AgentName, Bucket, History, Movement, Request};

/// The most percent of what it follows that a limit may be.
pub const MAX_PERCENT: u32 = 10_000;
/// How old a price has to be to count if a policy does not say.
pub(super) const PRICE_AFTER: Duration = Duration::from_secs(86_400);
/// The shortest time that a policy may say there.
pub(super) const LEAST_AFTER: Duration = Duration::from_secs(3600);

/// What a limit follows, and how far. Its ceiling is [`Limit::most`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    pub what: Followed,
    /// So many percent of it, rounded down.
    pub percent: u32,
    /// What the limit is where there is nothing to follow, and never less.
    pub floor: u128,
}

/// Where a limit comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The mean of what payments cost in the time `last` that ended `after` ago, of those that `per` covers.
    Price { per: Per, last: Duration, after: Duration },
    /// What was spent on average in a window like the limit's own, in the time `last` before that window.
    Spend { last: Duration },
    /// A number that the owner sets.
    Index(String),
}

/// A number that the owner sets, and that limits may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub bucket: Bucket,
    /// What it may be set to.
    pub least: u128,
    pub most: u128,
    /// From this age on it is not followed any more.
    pub stale_after: Duration,
}

impl Index {
    /// Whether it may be this.
    pub fn permits(&self, bucket: &Bucket, value: u128) -> bool {
        *bucket == self.bucket && (self.least..=self.most).contains(&value)
    }

    /// Whether a limit follows `known` at `now`.
    pub fn counts(&self, known: &IndexValue, now: Timestamp) -> bool {
        self.permits(&known.bucket, known.value) && self.is_fresh(known, now)
    }

    /// One that was set later than now was set by a clock that is not ours.
    fn is_fresh(&self, known: &IndexValue, now: Timestamp) -> bool {
        known.set <= now && now.since(known.set) < self.stale_after
    }
}

/// What an index was set to, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexValue {
    pub bucket: Bucket,
    pub value: u128,
    pub set: Timestamp,
}

/// What a limit in force was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    Price {
        sum: u128,
        payments: u128,
    },
    Spend {
        sum: u128,
        last: Duration,
    },
    Index {
        name: String,
        value: u128,
    },
    /// Nothing was paid that is old enough.
    NoHistory,
    Unset(String),
    Stale(String),
    /// It was set under another policy, to what this one does not let it be.
    Outside(String),
}

impl Basis {
    /// For a person, in the unit of `bucket`.
    pub(crate) fn print(&self, bucket: &Bucket, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Price { sum, payments } => {
                write!(f, "{payments} payments that cost {} together", amount(bucket, *sum))
            }
            Self::Spend { sum, last } => {
                write!(f, "{} that were spent in the {} before", amount(bucket, *sum), spell(*last))
            }
            Self::Index { name, value } => write!(f, "the index {name} at {}", amount(bucket, *value)),
            Self::NoHistory => f.write_str("its floor: nothing was paid that is old enough"),
            Self::Unset(name) => write!(f, "its floor: the index {name} is not set"),
            Self::Stale(name) => write!(f, "its floor: the index {name} is too old"),
            Self::Outside(name) => write!(f, "its floor: the index {name} is not within its bounds"),
        }
    }
}

/// Which sums a limit is made from: of a whole time, and of its end, which does not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    pub per: Per,
    whole: Duration,
    late: Duration,
    payments: bool,
}

/// How many numbers of sums each limit that follows has.
pub(super) const PARTS: Number = 4;

impl Past {
    /// Each sum by its place: how long it is, and whether it counts payments.
    pub fn parts(self) -> impl Iterator<Item = (Number, Duration, bool)> {
        let parts =
            [(0, self.whole, false), (1, self.late, false), (2, self.whole, true), (3, self.late, true)];
        parts.into_iter().take(if self.payments { 4 } else { 2 })
    }

    /// How far back it looks.
    pub const fn reach(self) -> Duration {
        self.whole
    }
}

impl Limit {
    pub(crate) fn past(&self) -> Option<Past> {
        match (&self.follows.as_ref()?.what, self.span) {
            (Followed::Price { per, last, after }, _) => {
                Some(Past { per: *per, whole: last.saturating_add(*after), late: *after, payments: true })
            }
            (Followed::Spend { last }, Span::Rolling(own)) => {
                Some(Past { per: self.per, whole: last.saturating_add(own), late: own, payments: false })
            }
            (Followed::Spend { .. } | Followed::Index(_), _) => None,
        }
    }

    /// The least that it ever is.
    pub(crate) fn floor(&self) -> u128 {
        self.follows.as_ref().map_or(self.most, |follow| follow.floor)
    }

    /// Whether it never allows more than `other`, whatever was paid and whatever an index says.
    pub(super) fn is_held_by(&self, other: &Self) -> bool {
        let same = (self.per, self.span, &self.bucket) == (other.per, other.span, &other.bucket);
        let like = match (&self.follows, &other.follows) {
            (Some(new), Some(old)) => {
                new.what == old.what && new.percent <= old.percent && new.floor <= old.floor
            }
            (None, None) => true,
            _ => false,
        };
        // What follows something else is held by what the other is at least.
        same && (self.most <= other.floor() || (like && self.most <= other.most))
    }
}

impl Budget {
    /// Limits that follow the past, with the number of their first sum.
    pub(crate) fn followed(&self) -> impl Iterator<Item = (Number, &Limit, Past)> {
        self.numbered().filter_map(|(number, limit)| Some((self.past_number(number), limit, limit.past()?)))
    }

    fn past_number(&self, limit: Number) -> Number {
        let held = Number::try_from(self.limits.len() + self.counts.len()).unwrap_or(Number::MAX);
        let place = limit.saturating_sub(self.first).saturating_mul(PARTS);
        self.first.saturating_add(held).saturating_add(place)
    }
}

impl Policy {
    /// Whether any limit is made from what was paid before.
    pub fn follows_past(&self) -> bool {
        self.budgets.values().any(|budget| budget.limits.iter().any(|limit| limit.past().is_some()))
    }

    /// What a limit of the budget `name` is for `request`, and where that comes from. `None` if it cannot be told, which
    /// denies.
    pub(crate) fn in_force(
        &self,
        name: &AgentName,
        (budget, number, limit): (&Budget, Number, &Limit),
        history: &History,
        request: &Request,
        now: Timestamp,
    ) -> Option<(u128, Option<Basis>)> {
        let Some(follow) = &limit.follows else { return Some((limit.most, None)) };
        let covers = |per: Per, movement: &Movement| per.covers(movement, request);
        let (most, basis) = self.derived(name, (budget, number, limit), follow, history, now, covers)?;
        Some((most, Some(basis)))
    }

    /// What a limit is that depends on no request; otherwise its floor, which it is at least.
    pub(super) fn standing_most(
        &self,
        name: &AgentName,
        (budget, number, limit): (&Budget, Number, &Limit),
        history: &History,
        now: Timestamp,
    ) -> u128 {
        let Some(follow) = &limit.follows else { return limit.most };
        if limit.past().is_some_and(|past| past.per != Per::All) {
            return follow.floor;
        }
        let derived = self.derived(name, (budget, number, limit), follow, history, now, |_, _| true);
        derived.map_or(0, |(most, _)| most)
    }

    fn derived(
        &self,
        name: &AgentName,
        (budget, number, limit): (&Budget, Number, &Limit),
        follow: &Follow,
        history: &History,
        now: Timestamp,
        covers: impl Fn(Per, &Movement) -> bool,
    ) -> Option<(u128, Basis)> {
        let number = budget.past_number(number);
        let sum = |place: Number, past: Past, payments: bool| -> Option<u128> {
            let summed = match history.past.as_ref().or(history.sums.as_ref()) {
                Some(sums) => {
                    let part = |place| sums.of(number.checked_add(place)?);
                    part(place)?.checked_sub(part(place.checked_add(1)?)?)?
                }
                None => 0,
            };
            // Beside sums there are only deposits of channels: they are spent, and are no price of anything.
            if follow.is_of_prices() && (history.past.is_some() || history.sums.is_some()) {
                return Some(summed);
            }
            let (from, to) = (Span::Rolling(past.whole).since(now)?, Span::Rolling(past.late).since(now)?);
            history
                .movements
                .iter()
                .filter(|m| m.bucket == limit.bucket && m.until >= from && m.until < to)
                .filter(|m| self.counts_in(m.of.agent.as_ref(), name) && covers(past.per, m))
                .try_fold(summed, |sum, m| sum.checked_add(if payments { 1 } else { m.amount }))
        };
        // INVARIANT: one division, rounded down, after everything was multiplied exactly.
        let scaled = |value: u128, by: u128, parts: u128| {
            // Denied by any percent alike, so that less of it never allows more.
            value.checked_mul(MAX_PERCENT.into())?.checked_mul(by)?;
            let value = value.checked_mul(follow.percent.into())?.checked_mul(by)?;
            Some(value.checked_div(parts.checked_mul(100)?)?.max(follow.floor).min(limit.most))
        };
        let floor = |basis| Some((follow.floor, basis));
        match (&follow.what, limit.past()) {
            (Followed::Price { .. }, Some(past)) => {
                let (sum, payments) = (sum(0, past, false)?, sum(2, past, true)?);
                if payments == 0 {
                    return floor(Basis::NoHistory);
                }
                Some((scaled(sum, 1, payments)?, Basis::Price { sum, payments }))
            }
            (Followed::Spend { last }, Some(past)) => {
                let sum = sum(0, past, false)?;
                if sum == 0 {
                    return floor(Basis::NoHistory);
                }
                // Whole windows, as the file is read.
                let windows = last.as_secs().checked_div(past.late.as_secs())?;
                let most = scaled(sum, 1, windows.into())?;
                Some((most, Basis::Spend { sum, last: *last }))
            }
            (Followed::Index(name), _) => {
                let index = self.indexes.get(name)?;
                let Some(known) = history.indexes.get(name) else { return floor(Basis::Unset(name.clone())) };
                if !index.permits(&known.bucket, known.value) || index.bucket != limit.bucket {
                    return floor(Basis::Outside(name.clone()));
                }
                if !index.is_fresh(known, now) {
                    return floor(Basis::Stale(name.clone()));
                }
                let basis = Basis::Index { name: name.clone(), value: known.value };
                Some((scaled(known.value, 1, 1)?, basis))
            }
            (Followed::Price { .. } | Followed::Spend { .. }, None) => None,
        }
    }
}

impl Follow {
    const fn is_of_prices(&self) -> bool {
        matches!(self.what, Followed::Price { .. })
    }
}
