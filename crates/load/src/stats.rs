//! What a run counted. Latencies go into a histogram (HDR: three significant digits over the whole range), so that a
//! long run takes no more memory than a short one.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::judge::Wrong;

/// How many answers that were not right are kept to be looked at.
const SAMPLES: usize = 3;
/// How much of each.
const SAMPLE_CHARS: usize = 300;
/// How many different faults are told apart; more count together.
const MAX_CODES: usize = 64;
/// An hour. What takes longer counts as that.
const MOST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;
/// Into how many parts a run is cut to see whether its latencies grow.
const PARTS: usize = 4;

/// Microseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MOST_US, DIGITS);
        Self(histogram.unwrap_or_else(|_| unreachable!("the bounds are constants, and good")))
    }

    pub fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(MOST_US));
    }

    fn ms(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1000.0 }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// The running count of one run.
#[derive(Debug, Default)]
pub struct Tally {
    latency: Latencies,
    service: Latencies,
    lag: Latencies,
    wrong: BTreeMap<String, u64>,
    samples: Vec<String>,
    parts: [(f64, u64); PARTS],
}

/// When a request was due, when it was sent, and when its answer was there.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub latency: Duration,
    pub service: Duration,
    /// In which part of the run it was due, from 0 to 1.
    pub at: f64,
}

/// The result of a run. Latencies are those of good answers, in milliseconds.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Report {
    /// How many requests a second were due; absent where each connection waited for its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered: Option<f64>,
    pub good: u64,
    /// Answers that were not what a valid payment deserves, and requests without an answer, by their codes.
    pub wrong: BTreeMap<String, u64>,
    pub samples: Vec<String>,
    /// From the beginning to the last answer.
    pub seconds: f64,
    /// Good answers in a second, up to the last answer.
    pub rate: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    pub mean_ms: f64,
    /// The same from the moment each was sent, not from when it was due: without the time that it waited for a
    /// connection.
    pub service: Percentiles,
    /// How late a request was sent for which a connection was free: the load's own fault, not the server's.
    pub own_lag_p99_ms: f64,
    /// By how much latency grows for each second of the run; above zero, the server falls behind by that share.
    pub growth: f64,
    /// The mean latency towards the end of the run in units of that near its beginning.
    pub late_to_early: f64,
}

#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Tally {
    pub fn good(&mut self, times: Times) {
        self.latency.add(times.latency);
        self.service.add(times.service);
        if let Some((sum, count)) = self.parts.get_mut(part(times.at)) {
            *sum += times.latency.as_secs_f64();
            *count += 1;
        }
    }

    pub fn wrong(&mut self, wrong: Wrong) {
        let full = self.wrong.len() >= MAX_CODES && !self.wrong.contains_key(&wrong.code);
        let code = if full { "others".to_owned() } else { wrong.code };
        *self.wrong.entry(code).or_default() += 1;
        if self.samples.len() < SAMPLES {
            self.samples.push(wrong.sample.chars().take(SAMPLE_CHARS).collect());
        }
    }

    /// A request was sent so much later than it was due, although a connection was free.
    pub fn lag(&mut self, lag: Duration) {
        self.lag.add(lag);
    }

    pub fn report(self, offered: Option<f64>, length: Duration, elapsed: Duration) -> Report {
        let seconds = elapsed.as_secs_f64();
        let good = self.latency.0.len();
        Report {
            offered,
            good,
            rate: good as f64 / seconds.max(f64::MIN_POSITIVE),
            seconds,
            p50_ms: self.latency.ms(0.5),
            p90_ms: self.latency.ms(0.9),
            p99_ms: self.latency.ms(0.99),
            p999_ms: self.latency.ms(0.999),
            max_ms: self.latency.ms(1.0),
            mean_ms: self.latency.0.mean() / 1000.0,
            service: Percentiles {
                p50_ms: self.service.ms(0.5),
                p99_ms: self.service.ms(0.99),
                p999_ms: self.service.ms(0.999),
                max_ms: self.service.ms(1.0),
            },
            own_lag_p99_ms: self.lag.ms(0.99),
            growth: growth(&self.parts, length),
            late_to_early: ends(&self.parts)
                .map_or(1.0, |(early, late)| if early > 0.0 { late / early } else { 1.0 }),
            wrong: self.wrong,
            samples: self.samples,
        }
    }
}

impl Report {
    pub fn wrongs(&self) -> u64 {
        self.wrong.values().sum()
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn part(at: f64) -> usize {
    ((at.clamp(0.0, 1.0) * PARTS as f64) as usize).min(PARTS - 1)
}

/// The mean latencies, in seconds, of the second part and of the last: the first warms up.
fn ends(parts: &[(f64, u64); PARTS]) -> Option<(f64, f64)> {
    let mean = |part: usize| parts.get(part).filter(|(_, count)| *count > 0).map(|(sum, n)| sum / *n as f64);
    mean(1).zip(mean(PARTS - 1))
}

fn growth(parts: &[(f64, u64); PARTS], length: Duration) -> f64 {
    let apart = length.as_secs_f64() * (PARTS - 2) as f64 / PARTS as f64;
    match ends(parts) {
        Some((early, late)) if apart > 0.0 => (late - early) / apart,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(latency_ms: u64, at: f64) -> Times {
        let latency = Duration::from_millis(latency_ms);
        Times { latency, service: latency, at }
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut tally = Tally::default();
        for ms in 1..=1000 {
            tally.good(times(ms, 0.0));
        }
        let report = tally.report(None, Duration::ZERO, Duration::from_secs(1));
        let rows = [
            (report.p50_ms, 500.0),
            (report.p90_ms, 900.0),
            (report.p99_ms, 990.0),
            (report.p999_ms, 999.0),
            (report.max_ms, 1000.0),
            (report.service.p99_ms, 990.0),
        ];
        for (found, expected) in rows {
            assert!((found - expected).abs() <= expected / 1000.0, "{found} for {expected}");
        }
    }

    #[test]
    fn only_good_answers_make_the_rate() {
        let mut tally = Tally::default();
        tally.good(times(2, 0.1));
        tally.good(times(4, 0.9));
        for _ in 0..5 {
            tally.wrong(Wrong::new("refused", "body"));
        }
        let report = tally.report(Some(3.5), Duration::from_secs(2), Duration::from_secs(2));
        assert_eq!((report.good, report.wrong["refused"], report.samples.len()), (2, 5, 3));
        assert!((report.rate - 1.0).abs() < 1e-9 && report.wrongs() == 5);
    }

    #[test]
    fn a_server_that_falls_behind_by_a_tenth_is_seen_by_that() {
        // Of ten seconds: each answer comes later by a tenth of the time at which it was due.
        let mut tally = Tally::default();
        for i in 0..1000u32 {
            let at = f64::from(i) / 1000.0;
            let latency = Duration::from_secs_f64(0.01 + at);
            tally.good(Times { latency, service: latency, at });
        }
        let report = tally.report(None, Duration::from_secs(10), Duration::from_secs(10));
        assert!((report.growth - 0.1).abs() < 0.001, "{}", report.growth);
        assert_eq!(Tally::default().report(None, Duration::ZERO, Duration::ZERO).growth, 0.0);
    }

    #[test]
    fn a_server_that_invents_codes_fills_no_memory() {
        let mut tally = Tally::default();
        for i in 0..1000 {
            tally.wrong(Wrong::new(format!("code-{i}"), "x".repeat(10_000)));
        }
        let report = tally.report(None, Duration::ZERO, Duration::from_secs(1));
        assert_eq!((report.wrong.len(), report.wrongs()), (MAX_CODES + 1, 1000));
        assert!(report.samples.iter().all(|sample| sample.len() == SAMPLE_CHARS));
    }
}
