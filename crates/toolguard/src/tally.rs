//! What a counter has counted, and until when it counts.

use std::fmt;
use std::time::Duration;

use farthing_primitives::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    Minute,
    Hour,
    Day,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Minute, Self::Hour, Self::Day].into_iter().find(|unit| unit.name() == text)
    }

    const fn millis(self) -> u64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

/// The shortest and the longest rolling window.
pub const MIN_ROLLING: Duration = Duration::from_secs(1);
pub const MAX_ROLLING: Duration = Duration::from_secs(366 * 86_400);

/// How many parts a rolling window is counted in. What was counted is forgotten with its part: never early, and late by
/// at most this fraction of the window.
const PARTS: u64 = 60;

/// Over what a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// The minute, hour or day of UTC that it is.
    Calendar(Unit),
    /// The time that just passed.
    Rolling(Duration),
}

impl Window {
    /// In which part a moment is.
    fn part(self, at: Timestamp) -> u64 {
        let length = match self {
            Self::Calendar(unit) => unit.millis(),
            Self::Rolling(duration) => Self::part_millis(duration),
        };
        at.millis() - at.millis() % length
    }

    fn part_millis(duration: Duration) -> u64 {
        (u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) / PARTS).max(1)
    }

    /// When what was counted in a part counts no more.
    fn ends(self, part: u64) -> Timestamp {
        match self {
            Self::Calendar(unit) => Timestamp::from_millis(part.saturating_add(unit.millis())),
            Self::Rolling(duration) => {
                Timestamp::from_millis(part.saturating_add(Self::part_millis(duration))).plus(duration)
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calendar(unit) => f.write_str(unit.name()),
            Self::Rolling(duration) => write!(f, "rolling {}s", duration.as_secs()),
        }
    }
}

/// Which counter. One whose window changes is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The tool, or [`crate::GLOBAL`].
    pub scope: String,
    pub counter: String,
    pub window: Window,
}

/// `scope.counter/window`. No two keys print alike: neither a counter nor a window has a point or a slash.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{}", self.scope, self.counter, self.window)
    }
}

/// What was counted, in the parts of its window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The latest moment that was seen.
    latest: u64,
    /// Where each part begins, and what was counted in it; the earliest first.
    parts: Vec<(u64, u128)>,
}

impl Tally {
    /// INVARIANT: time never goes back here. With a clock that was set back, everything counts on as if it were still the
    /// latest moment that was ever seen.
    fn time(&self, now: Timestamp) -> Timestamp {
        now.max(Timestamp::from_millis(self.latest))
    }

    /// What counts now.
    pub fn value(&self, window: Window, now: Timestamp) -> u128 {
        let now = self.time(now);
        let counting = self.parts.iter().filter(|(part, _)| window.ends(*part) > now);
        counting.fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    /// Counts `amount`, and says in which part. `None` if that is more than can be counted: nothing is counted then.
    pub fn add(&mut self, window: Window, now: Timestamp, amount: u128) -> Option<u64> {
        let now = self.time(now);
        self.value(window, now).checked_add(amount)?;
        self.latest = now.millis();
        self.parts.retain(|(part, _)| window.ends(*part) > now);
        let part = window.part(now);
        match self.parts.iter_mut().find(|(start, _)| *start == part) {
            Some((_, sum)) => *sum = sum.checked_add(amount)?,
            None => {
                self.parts.push((part, amount));
                self.parts.sort_unstable_by_key(|(start, _)| *start);
            }
        }
        Some(part)
    }

    /// Takes back what [`Tally::add`] counted in a part. Of a part that is over, or was never there, nothing.
    pub fn give_back(&mut self, part: u64, amount: u128) {
        if let Some((_, sum)) = self.parts.iter_mut().find(|(start, _)| *start == part) {
            *sum = sum.saturating_sub(amount);
        }
        self.parts.retain(|(_, sum)| *sum > 0);
    }

    /// When so much will be forgotten that at most `target` is left; `None` if that is now.
    pub fn falls_to(&self, window: Window, now: Timestamp, target: u128) -> Option<Timestamp> {
        let now = self.time(now);
        let mut left = self.value(window, now);
        for (part, amount) in self.parts.iter().filter(|(part, _)| window.ends(*part) > now) {
            if left <= target {
                break;
            }
            left = left.saturating_sub(*amount);
            if left <= target {
                return Some(window.ends(*part));
            }
        }
        None
    }

    /// When all of it is forgotten; `None` if nothing counts.
    pub fn ends(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        self.falls_to(window, now, 0)
    }

    /// As [`Tally::decode`] reads it: `latest;part=amount;…`.
    pub fn encode(&self) -> String {
        let parts = self.parts.iter().map(|(part, amount)| format!(";{part}={amount}"));
        std::iter::once(self.latest.to_string()).chain(parts).collect()
    }

    /// `None` if it is not what [`Tally::encode`] writes.
    pub fn decode(text: &str) -> Option<Self> {
        let mut fields = text.split(';');
        let latest = fields.next()?.parse().ok()?;
        let part = |field: &str| {
            let (part, amount) = field.split_once('=')?;
            Some((part.parse().ok()?, amount.parse().ok()?))
        };
        let parts = fields.map(part).collect::<Option<Vec<_>>>()?;
        Some(Self { latest, parts })
    }
}
