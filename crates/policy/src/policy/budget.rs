use std::fmt;
use std::time::Duration;

use farthing_primitives::Timestamp;

use super::follow::{Follow, PARTS};
use crate::meter::Number;
use crate::{Bucket, Movement, Request};

/// What one node of the tree may spend, with everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Budget {
    pub limits: Vec<Limit>,
    pub counts: Vec<Count>,
    /// The number of its first limit in the policy; the others follow, and then its counts.
    pub(crate) first: Number,
}

impl Budget {
    /// How many numbers it takes: of its limits, its counts, and the sums that limits are made from.
    pub(super) fn held(&self) -> Number {
        let held = Number::try_from(self.limits.len() + self.counts.len()).unwrap_or(Number::MAX);
        if self.limits.iter().all(|limit| limit.follows.is_none()) {
            return held;
        }
        let past = Number::try_from(self.limits.len()).unwrap_or(Number::MAX).saturating_mul(PARTS);
        held.saturating_add(past)
    }

    pub(crate) fn numbered(&self) -> impl Iterator<Item = (Number, &Limit)> {
        (self.first..).zip(&self.limits)
    }

    pub(crate) fn numbered_counts(&self) -> impl Iterator<Item = (Number, &Count)> {
        let first = self.first.saturating_add(Number::try_from(self.limits.len()).unwrap_or(Number::MAX));
        (first..).zip(&self.counts)
    }
}

/// At most `most` of `bucket` in `span`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub per: Per,
    pub span: Span,
    pub bucket: Bucket,
    /// Of a limit that follows something, its ceiling.
    pub most: u128,
    pub follows: Option<Follow>,
}

/// At most `most` payments in `span`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub span: Span,
    pub most: u32,
}

/// What a limit adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// Everything in the budget.
    All,
    /// What goes to one payee.
    Payee,
    /// What one host and port asks for.
    Host,
    /// What is paid on behalf of one tool.
    Tool,
}

/// The time that a limit adds up over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    Payment,
    /// The window `(now - length, now]`.
    Rolling(Duration),
    /// From the beginning of the calendar's hour, day, week or month, in UTC.
    Calendar(Calendar),
    Lifetime,
}

/// Parts of the calendar, in UTC. A week begins on Monday (ISO 8601).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Calendar {
    Hour,
    Day,
    Week,
    Month,
}

const DAY_MS: u64 = 86_400_000;

impl Calendar {
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// When the part of the calendar began that `now` is in.
    pub fn begin(self, now: Timestamp) -> Timestamp {
        let ms = now.millis();
        Timestamp::from_millis(match self {
            Self::Hour => ms - ms % 3_600_000,
            Self::Day => ms - ms % DAY_MS,
            // The first day of 1970 was a Thursday, three days after its Monday.
            Self::Week => {
                (ms + 3 * DAY_MS).saturating_sub((ms + 3 * DAY_MS) % (7 * DAY_MS)).saturating_sub(3 * DAY_MS)
            }
            Self::Month => (ms / DAY_MS - day_of_month(ms / DAY_MS)) * DAY_MS,
        })
    }

    /// Into what parts it is divided where moments are not kept apart: none of them is in two hours, days, weeks or months.
    pub(crate) const fn grain_ms(self) -> u64 {
        match self {
            Self::Hour => 1_000,
            Self::Day => 60_000,
            Self::Week => 300_000,
            Self::Month => 900_000,
        }
    }

    const fn longest(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hour => 3600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 31 * 86_400,
        })
    }
}

/// How many days of its month are over when the day begins that is so many days after the first of 1970.
fn day_of_month(days: u64) -> u64 {
    // Years are counted from March, so that the leap day is their last; 719,468 days lie between that and 1970.
    let day_of_era = (days + 719_468) % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    day_of_year - (153 * month + 2) / 5
}

impl Span {
    /// From when on it counts; what may still move counts always.
    pub fn since(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Payment => None,
            // A window is open at its beginning.
            Self::Rolling(length) => Some(now.minus(length).plus(Duration::from_millis(1))),
            Self::Calendar(part) => Some(part.begin(now)),
            Self::Lifetime => Some(Timestamp::from_millis(0)),
        }
    }

    /// How far back it looks at most; `None` is for ever.
    pub(super) const fn reach(self) -> Option<Duration> {
        match self {
            Self::Payment => Some(Duration::ZERO),
            Self::Rolling(length) => Some(length),
            Self::Calendar(part) => Some(part.longest()),
            Self::Lifetime => None,
        }
    }
}

/// `a payment`, `any 24h`, `a calendar month`, `all time`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payment => f.write_str("a payment"),
            Self::Rolling(length) => write!(f, "any {}", spell(*length)),
            Self::Calendar(part) => write!(f, "a calendar {}", part.name()),
            Self::Lifetime => f.write_str("all time"),
        }
    }
}

/// As a policy writes a duration, in the largest unit that divides it.
pub(super) fn spell(length: Duration) -> String {
    let secs = length.as_secs();
    match secs {
        _ if secs > 86_400 && secs.is_multiple_of(86_400) => format!("{}d", secs / 86_400),
        _ if secs.is_multiple_of(3600) => format!("{}h", secs / 3600),
        _ if secs.is_multiple_of(60) => format!("{}m", secs / 60),
        _ => format!("{secs}s"),
    }
}

impl Per {
    /// Whether an earlier movement counts where `request` does.
    pub(super) fn covers(self, movement: &Movement, request: &Request) -> bool {
        match self {
            Self::All => true,
            Self::Payee => movement.of.payee.as_ref() == Some(&request.payee),
            Self::Host => movement.of.authority == request.origin.authority(),
            Self::Tool => movement.of.tool == request.caller.tool,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Payee => "payee",
            Self::Host => "host",
            Self::Tool => "tool",
        }
    }
}

/// `in any 24h`, `to one payee in any 24h`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per {
            Per::All => {}
            Per::Payee => f.write_str("to one payee ")?,
            Per::Host => f.write_str("at one host ")?,
            Per::Tool => f.write_str("for one tool ")?,
        }
        write!(f, "in {}", self.span)
    }
}
