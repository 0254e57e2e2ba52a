//! What a run counted. Every latency is kept, four bytes each, so percentiles are exact.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// How many answers that were not right are kept to be looked at.
const SAMPLES: usize = 3;
/// How much of each.
const SAMPLE_CHARS: usize = 300;

/// The running count of one run.
#[derive(Debug, Default)]
pub struct Tally {
    good_us: Vec<u32>,
    wrong: BTreeMap<String, u64>,
    samples: Vec<String>,
}

/// The result of a run. Latencies are those of good answers, in milliseconds.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Report {
    pub good: usize,
    /// Answers that were not what a valid payment deserves, and requests without an answer, by what they said.
    pub wrong: BTreeMap<String, u64>,
    pub samples: Vec<String>,
    pub seconds: f64,
    /// Good answers in a second.
    pub rate: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Tally {
    pub fn good(&mut self, took: Duration) {
        self.good_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn wrong(&mut self, why: String, sample: impl FnOnce() -> String) {
        *self.wrong.entry(why).or_default() += 1;
        if self.samples.len() < SAMPLES {
            self.samples.push(sample().chars().take(SAMPLE_CHARS).collect());
        }
    }

    pub fn report(mut self, elapsed: Duration) -> Report {
        self.good_us.sort_unstable();
        let at = |per_mille| f64::from(percentile(&self.good_us, per_mille)) / 1000.0;
        let seconds = elapsed.as_secs_f64();
        Report {
            good: self.good_us.len(),
            rate: self.good_us.len() as f64 / seconds.max(f64::MIN_POSITIVE),
            seconds,
            p50_ms: at(500),
            p90_ms: at(900),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1000),
            wrong: self.wrong,
            samples: self.samples,
        }
    }
}

/// The smallest of `sorted` that at least `per_mille` thousandths do not exceed; zero if there is none.
fn percentile(sorted: &[u32], per_mille: usize) -> u32 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The middle of some measurements; zero if there are none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let sorted: Vec<u32> = (1..=1000).collect();
        let rows = [(500, 500), (990, 990), (999, 999), (1000, 1000), (1, 1)];
        for (per_mille, expected) in rows {
            assert_eq!(percentile(&sorted, per_mille), expected);
        }
        assert_eq!(percentile(&[], 500), 0);
        assert_eq!(percentile(&[7], 1), 7);
    }

    #[test]
    fn only_good_answers_make_the_rate() {
        let mut tally = Tally::default();
        tally.good(Duration::from_millis(2));
        tally.good(Duration::from_millis(4));
        for _ in 0..5 {
            tally.wrong("refused".to_owned(), || "body".to_owned());
        }
        let report = tally.report(Duration::from_secs(2));
        assert_eq!((report.good, report.wrong["refused"], report.samples.len()), (2, 5, 3));
        assert!((report.rate - 1.0).abs() < 1e-9 && (report.p50_ms - 2.0).abs() < 1e-9);
    }
}
