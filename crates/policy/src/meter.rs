//! What a law adds up, one sum for each limit and whoever it is a limit of: a decision need not look at every payment
//! that there ever was.

use std::collections::{BTreeMap, HashMap};

use farthing_primitives::{Address, Timestamp};

use crate::policy::{Per, Span};
use crate::{AgentName, Bucket, Law, Movement, Request, Source, Window};

/// How many moments one sum keeps apart. Beyond that, moments that are closer to each other than this part of the span
/// are taken for the last of them: an amount may count for that much longer, and never for less.
pub const MAX_MOMENTS: usize = 4096;

/// One sum that a law holds something to: of which of its limits, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Meter {
    limit: Number,
    of: Whose,
}

/// The number of a limit in its law.
pub(crate) type Number = u32;

/// The count of an agent's own payments in the last minute, and in the last day.
pub(crate) const OWN_MINUTE: Number = Number::MAX;
pub(crate) const OWN_DAY: Number = Number::MAX - 1;

/// Whom a limit is about, beside the budget that it is a limit of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    All,
    Payee(Option<Address>),
    Host(String),
    Tool(Option<String>),
    Agent(Option<AgentName>),
}

impl Whose {
    pub fn new(per: Per, source: &Source) -> Self {
        match per {
            Per::All => Self::All,
            Per::Payee => Self::Payee(source.payee.clone()),
            Per::Host => Self::Host(source.authority.clone()),
            Per::Tool => Self::Tool(source.tool.clone()),
        }
    }
}

/// A limit that something of a source counts in.
#[derive(Debug)]
pub(crate) struct Counted<'a> {
    pub limit: Number,
    pub of: Whose,
    /// What it adds up; `None` if it counts payments in whatever they are paid.
    pub bucket: Option<&'a Bucket>,
    /// It counts the payments of its bucket.
    pub payments: bool,
    pub span: Span,
}

impl Counted<'_> {
    /// How much of a movement it adds, if it is about that bucket at all.
    fn adds(&self, movement: &Movement) -> Option<u128> {
        match self.bucket {
            Some(own) => (*own == movement.bucket).then_some(if self.payments { 1 } else { movement.amount }),
            // Each payment is in the bucket of its asset once.
            None => matches!(movement.bucket, Bucket::Asset(_)).then_some(1),
        }
    }
}

impl Source {
    /// Where `request` would count.
    pub fn of(request: &Request) -> Self {
        Self {
            agent: request.caller.agent.clone(),
            authority: request.origin.authority(),
            payee: Some(request.payee.clone()),
            tool: request.caller.tool.clone(),
        }
    }
}

impl Law {
    /// Calls `each` with every limit that what comes from `source` counts in.
    fn counted<'a>(&'a self, source: &'a Source, mut each: impl FnMut(Counted<'a>)) {
        match self {
            Self::Rules(rules) => {
                for bucket in rules.caps.keys() {
                    for window in Window::ALL {
                        let Some(limit) = rules.number(bucket, window) else { continue };
                        let span = Span::Rolling(window.length());
                        each(Counted { limit, of: Whose::All, bucket: Some(bucket), payments: false, span });
                    }
                }
            }
            Self::Policy { policy, .. } => policy.counted(source, each),
        }
    }
}

/// What counts in the limits that one request would be held to, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sums(Vec<(Number, u128)>);

impl Sums {
    /// Of a past that somebody thought up.
    pub(crate) fn imagined(sums: Vec<(Number, u128)>) -> Self {
        Self(sums)
    }

    pub(crate) fn of(&self, limit: Number) -> Option<u128> {
        self.0.iter().find(|(number, _)| *number == limit).map(|(_, sum)| *sum)
    }
}

/// Sums of everything that moved or may move, kept up while it does.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    sums: HashMap<Meter, Rolling>,
    /// How many there were when empty ones were looked for.
    swept: usize,
}

/// So many sums are kept before empty ones are looked for.
const LEAST_SWEPT: usize = 1024;

impl Meters {
    /// Adds what moved or may move.
    pub fn add(&mut self, law: &Law, movement: &Movement) {
        law.counted(&movement.of, |counted| {
            if let Some(amount) = counted.adds(movement) {
                let meter = Meter { limit: counted.limit, of: counted.of };
                let sum = self.sums.entry(meter).or_insert_with(|| Rolling::new(counted.span));
                sum.add(movement.until, amount);
            }
        });
    }

    /// Takes back what was added and is proven not to have moved.
    pub fn take_back(&mut self, law: &Law, movement: &Movement) {
        law.counted(&movement.of, |counted| {
            if let Some(amount) = counted.adds(movement)
                && let Some(sum) = self.sums.get_mut(&Meter { limit: counted.limit, of: counted.of })
            {
                sum.take_back(movement.until, amount);
            }
        });
    }

    /// What counts at `now` in each sum that something of `source` would be held to. `None` if something cannot be counted.
    ///
    /// `now` never goes back.
    pub fn read(&mut self, law: &Law, source: &Source, now: Timestamp) -> Option<Sums> {
        if self.sums.len() > LEAST_SWEPT.max(self.swept.saturating_mul(2)) {
            self.sums.retain(|_, sum| sum.sum(now) != Some(0));
            self.swept = self.sums.len();
        }
        let mut sums = Some(Vec::with_capacity(32));
        law.counted(source, |counted| {
            let sum = match self.sums.get_mut(&Meter { limit: counted.limit, of: counted.of }) {
                Some(sum) => sum.sum(now),
                None => Some(0),
            };
            match (&mut sums, sum) {
                (Some(sums), Some(sum)) => sums.push((counted.limit, sum)),
                _ => sums = None,
            }
        });
        sums.map(Sums)
    }
}

/// A sum that forgets what is too old for its span.
#[derive(Debug, Clone)]
struct Rolling {
    span: Span,
    /// By the moment until which it may have moved.
    moments: BTreeMap<u64, u128>,
    /// `None` once it cannot be counted.
    total: Option<u128>,
    /// What is older was forgotten.
    floor: u64,
}

impl Rolling {
    const fn new(span: Span) -> Self {
        Self { span, moments: BTreeMap::new(), total: Some(0), floor: 0 }
    }

    /// The last moment of the part of the span that `moment` is in. Parts of the calendar have whole numbers of them.
    fn last_of_part(&self, moment: u64) -> u64 {
        let part = match self.span {
            Span::Payment | Span::Lifetime => return u64::MAX,
            Span::Rolling(length) => {
                u64::try_from(length.as_millis()).unwrap_or(u64::MAX).div_ceil(MAX_MOMENTS as u64).max(1)
            }
            Span::Calendar(part) => part.grain_ms(),
        };
        (moment - moment % part).saturating_add(part - 1)
    }

    fn add(&mut self, until: Timestamp, amount: u128) {
        let until = until.millis();
        if until < self.floor {
            return;
        }
        self.total = self.total.and_then(|total| total.checked_add(amount));
        let apart = self.moments.len() < MAX_MOMENTS || self.moments.contains_key(&until);
        let at = if apart && self.span != Span::Lifetime { until } else { self.last_of_part(until) };
        let held = self.moments.entry(at).or_default();
        *held = held.saturating_add(amount);
    }

    fn take_back(&mut self, until: Timestamp, amount: u128) {
        let (until, mut rest) = (until.millis(), amount);
        // What was kept apart and is forgotten is in nothing that is left; what was merged counts a little longer.
        if until < self.floor {
            return;
        }
        for at in [until, self.last_of_part(until)] {
            let Some(held) = self.moments.get_mut(&at) else { continue };
            let taken = rest.min(*held);
            *held -= taken;
            rest -= taken;
            self.total = self.total.and_then(|total| total.checked_sub(taken));
        }
        // What was never added cannot be taken back: then nothing here is true.
        if rest > 0 {
            self.total = None;
        }
    }

    fn sum(&mut self, now: Timestamp) -> Option<u128> {
        let since = self.span.since(now).map_or(u64::MAX, Timestamp::millis);
        while let Some(oldest) = self.moments.first_entry()
            && *oldest.key() < since
        {
            let gone = oldest.remove();
            self.total = self.total.and_then(|total| total.checked_sub(gone));
        }
        self.floor = self.floor.max(since);
        self.total
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::Calendar;

    /// What counts, by looking at everything.
    fn counted(span: Span, moved: &[(u64, u128)], now: u64) -> u128 {
        let since = span.since(Timestamp::from_millis(now)).unwrap().millis();
        moved.iter().filter(|(until, _)| *until >= since).map(|(_, amount)| amount).sum()
    }

    fn spans() -> impl Strategy<Value = Span> {
        prop_oneof![
            (1u64..200_000).prop_map(|ms| Span::Rolling(Duration::from_millis(ms))),
            proptest::sample::select(Calendar::ALL.to_vec()).prop_map(Span::Calendar),
            Just(Span::Lifetime),
        ]
    }

    proptest! {
        /// With few moments a sum is what looking at everything gives.
        #[test]
        fn a_sum_is_what_looking_at_everything_gives(
            span in spans(),
            steps in proptest::collection::vec((0u64..60_000, 0u64..90_000, 0u128..1000, any::<bool>()), 1..200),
        ) {
            let mut rolling = Rolling::new(span);
            let mut moved = Vec::new();
            let mut now = 1_700_000_000_000;
            for (pause, ahead, amount, back) in steps {
                now += pause;
                rolling.add(Timestamp::from_millis(now + ahead), amount);
                moved.push((now + ahead, amount));
                if back {
                    let (until, amount) = moved.swap_remove(moved.len() / 2);
                    rolling.take_back(Timestamp::from_millis(until), amount);
                }
                prop_assert_eq!(rolling.sum(Timestamp::from_millis(now)), Some(counted(span, &moved, now)));
            }
        }
    }

    #[test]
    fn very_many_moments_take_no_more_room_and_count_no_shorter() {
        for span in [
            Span::Rolling(Duration::from_secs(3600)),
            Span::Calendar(Calendar::Hour),
            Span::Calendar(Calendar::Day),
            Span::Lifetime,
        ] {
            let mut rolling = Rolling::new(span);
            let mut moved = Vec::new();
            let mut now = 1_700_000_000_000;
            for step in 0..60_000u64 {
                now += 131;
                rolling.add(Timestamp::from_millis(now), 3);
                moved.push((now, 3));
                if step % 7 == 0 {
                    let (until, amount) = moved.swap_remove(moved.len() - 5.min(moved.len()));
                    rolling.take_back(Timestamp::from_millis(until), amount);
                }
                if step % 500 == 0 {
                    let sum = rolling.sum(Timestamp::from_millis(now)).unwrap();
                    let (least, slack) = (counted(span, &moved, now), 3600 * 1000 / MAX_MOMENTS as u64 + 1);
                    assert!(sum >= least, "{span}: {sum} < {least}");
                    // Nor much longer.
                    let most = match span {
                        Span::Rolling(length) => {
                            counted(Span::Rolling(length + Duration::from_millis(slack)), &moved, now)
                        }
                        _ => least,
                    };
                    assert!(sum <= most, "{span}: {sum} > {most}");
                    assert!(
                        rolling.moments.len() <= 2 * MAX_MOMENTS + 1,
                        "{span}: {}",
                        rolling.moments.len()
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_forgotten_takes_nothing_from_others() {
        let (base, at) = (1_700_000_000_000, Timestamp::from_millis);
        let mut rolling = Rolling::new(Span::Rolling(Duration::from_secs(4096)));
        rolling.add(at(base + 1), 7);
        for n in 0..4106 {
            rolling.add(at(base + 2000 + n), 1);
        }
        // Merged into the part of the span that the first one is in, too.
        rolling.add(at(base + 500), 9);
        let now = at(base + 4_096_100);
        assert_eq!(rolling.sum(now), Some(4115));
        rolling.take_back(at(base + 1), 7);
        assert_eq!(rolling.sum(now), Some(4115));
    }

    #[test]
    fn what_was_never_added_cannot_be_taken_back() {
        let mut rolling = Rolling::new(Span::Lifetime);
        rolling.add(Timestamp::from_secs(10), 5);
        rolling.take_back(Timestamp::from_secs(10), 6);
        assert_eq!(rolling.sum(Timestamp::from_secs(11)), None);
        let mut rolling = Rolling::new(Span::Rolling(Duration::from_secs(1)));
        rolling.add(Timestamp::from_secs(10), u128::MAX);
        rolling.add(Timestamp::from_secs(10), 1);
        assert_eq!(rolling.sum(Timestamp::from_secs(10)), None);
    }
}
