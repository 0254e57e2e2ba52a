//! When requests are due.

use std::time::Duration;

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Evenly.
    Constant,
    /// As independent strangers come: the times between them are exponentially distributed. The same seed gives the
    /// same times.
    Poisson { seed: u64 },
}

/// The moments of a run, counted from its beginning, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    due_ns: Vec<u64>,
}

impl Schedule {
    /// At `rate` a second for `length`; none if the rate is not positive.
    pub fn new(arrivals: Arrivals, rate: f64, length: Duration) -> Self {
        let mut due_ns = Vec::new();
        if !(rate.is_finite() && rate > 0.0) {
            return Self { due_ns };
        }
        let mut chance = match arrivals {
            Arrivals::Constant => None,
            Arrivals::Poisson { seed } => Some(Chance(seed)),
        };
        let end = length.as_secs_f64();
        let mut at = 0.0;
        while at < end {
            due_ns.push(nanoseconds(at));
            at = match &mut chance {
                // Computed from the count, so that no error adds up.
                None => due_ns.len() as f64 / rate,
                Some(chance) => at + chance.exponential() / rate,
            };
        }
        Self { due_ns }
    }

    /// How many requests are due.
    pub fn len(&self) -> usize {
        self.due_ns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.due_ns.is_empty()
    }

    /// When request number `i` is due.
    pub fn due(&self, i: usize) -> Option<Duration> {
        self.due_ns.get(i).map(|ns| Duration::from_nanos(*ns))
    }
}

// A run of five centuries would saturate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// SplitMix64: small, and good enough for arrivals. Nothing secret comes of it.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Of mean one.
    fn exponential(&mut self) -> f64 {
        // Above zero and at most one, so that the logarithm is finite.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    #[test]
    fn constant_arrivals_are_even_and_as_many_as_were_asked_for() {
        let schedule = Schedule::new(Arrivals::Constant, 1000.0, LENGTH);
        assert_eq!(schedule.len(), 10_000);
        assert_eq!(schedule.due(0), Some(Duration::ZERO));
        assert_eq!(schedule.due(2500), Some(Duration::from_millis(2500)));
        assert_eq!(schedule.due(10_000), None);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_chance() {
        let schedule = Schedule::new(Arrivals::Poisson { seed: 7 }, 1000.0, LENGTH);
        // Within five standard deviations of the count of a Poisson process.
        assert!(schedule.len().abs_diff(10_000) < 500, "{}", schedule.len());
        let gaps: Vec<f64> = (1..schedule.len())
            .map(|i| (schedule.due(i).unwrap() - schedule.due(i - 1).unwrap()).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of exponential gaps the standard deviation is the mean; of even ones it is zero.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.1, "{}", variance.sqrt() / mean);
    }

    #[test]
    fn a_seed_gives_the_same_arrivals_again() {
        let make = |seed| Schedule::new(Arrivals::Poisson { seed }, 100.0, LENGTH);
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn a_rate_that_is_none_has_no_arrivals() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Schedule::new(Arrivals::Constant, rate, LENGTH).is_empty());
        }
    }
}
