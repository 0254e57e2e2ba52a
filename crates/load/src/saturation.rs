//! The highest rate that a server keeps up with.
//!
//! A server keeps up with a rate if it answers nearly everything rightly and its latencies do not grow over the run.
//! From a first guess the rate goes up or down until one step keeps up and the next does not; then the two are brought
//! together.

use serde::Serialize;

use crate::stats::Report;

/// Of a thousand answers so many may be wrong.
const MOST_WRONG_PER_MILLE: f64 = 1.0;
/// A queue that grows by more than this share of a second in each second grows without end.
const MOST_GROWTH: f64 = 0.03;
/// Where answers wait for blocks, a mean varies by which blocks it saw: less than this is no growth.
const LEAST_LATE_TO_EARLY: f64 = 1.25;
/// Where the load itself is later than this, it has met its own limit and not the server's.
const MOST_OWN_LAG_MS: f64 = 50.0;
/// How the rate changes while only one side is known.
const STRIDE: f64 = 1.4;
/// When the two sides are this near, the search is over.
const NEAR: f64 = 1.05;
/// However it goes, so many steps are enough.
const MAX_STEPS: usize = 24;

/// One step of the search.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Step {
    pub rate: f64,
    pub kept_up: bool,
    pub why: Option<Fault>,
    pub good: u64,
    pub wrong: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub growth: f64,
}

/// Why a server did not keep up.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    Wrong,
    FallsBehind,
    TooSlow,
    /// The load could not send as fast: what was found is the least that the server does.
    LoadItself,
}

/// What a search found.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Saturation {
    /// The highest rate, in requests a second, that the server kept up with; zero if none was found.
    pub rate: f64,
    pub steps: Vec<Step>,
}

/// What is still called keeping up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// The 99th percentile of the latency may not be above this, in milliseconds.
    pub p99_ms: Option<f64>,
}

/// Why `report` shows that the server does not keep up, if it does.
pub fn fault(report: &Report, limits: Limits) -> Option<Fault> {
    let (good, wrong) = (report.good as f64, report.wrongs() as f64);
    if report.own_lag_p99_ms > MOST_OWN_LAG_MS {
        return Some(Fault::LoadItself);
    }
    if wrong * 1000.0 > (good + wrong) * MOST_WRONG_PER_MILLE || report.good == 0 {
        return Some(Fault::Wrong);
    }
    if report.growth > MOST_GROWTH && report.late_to_early > LEAST_LATE_TO_EARLY {
        return Some(Fault::FallsBehind);
    }
    limits.p99_ms.is_some_and(|most| report.p99_ms > most).then_some(Fault::TooSlow)
}

/// Searches from `guess`. `step` loads the server at a rate.
///
/// # Errors
/// Whatever `step` fails with.
pub async fn search<E>(
    guess: f64,
    limits: Limits,
    mut step: impl AsyncFnMut(f64) -> Result<Report, E>,
) -> Result<Saturation, E> {
    let (mut kept, mut lost) = (None::<f64>, None::<f64>);
    let mut steps = Vec::new();
    let mut rate = guess.max(1.0);
    while steps.len() < MAX_STEPS {
        let report = step(rate).await?;
        let why = fault(&report, limits);
        steps.push(Step {
            rate,
            kept_up: why.is_none(),
            why,
            good: report.good,
            wrong: report.wrongs(),
            p50_ms: report.p50_ms,
            p99_ms: report.p99_ms,
            growth: report.growth,
        });
        if why.is_none() {
            kept = Some(rate)
        } else {
            lost = Some(rate)
        }
        rate = match (kept, lost) {
            (Some(kept), None) => kept * STRIDE,
            (None, Some(lost)) if lost > 1.0 => (lost / STRIDE).max(1.0),
            (Some(kept), Some(lost)) if lost / kept > NEAR => (kept * lost).sqrt(),
            _ => break,
        };
    }
    Ok(Saturation { rate: kept.unwrap_or(0.0), steps })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;
    use crate::judge::Wrong;
    use crate::stats::{Tally, Times};

    const LENGTH: Duration = Duration::from_secs(4);

    /// What a server of this capacity, in requests a second, makes of a rate.
    fn served(capacity: f64, rate: f64) -> Report {
        let mut tally = Tally::default();
        for i in 0..100u32 {
            let at = f64::from(i) / 100.0;
            let behind = (rate / capacity - 1.0).max(0.0) * at * LENGTH.as_secs_f64();
            let latency = Duration::from_secs_f64(0.001 + behind);
            tally.good(Times { latency, service: latency, at });
        }
        tally.report(Some(rate), LENGTH, LENGTH)
    }

    async fn found(capacity: f64, guess: f64) -> Saturation {
        let step = async |rate| Ok::<_, Infallible>(served(capacity, rate));
        search(guess, Limits::default(), step).await.unwrap()
    }

    #[tokio::test]
    async fn the_capacity_is_found_from_below_and_above() {
        for guess in [10.0, 900.0, 1000.0, 1100.0, 20_000.0] {
            let found = found(1000.0, guess).await;
            assert!((found.rate / 1000.0 - 1.0).abs() < 0.09, "from {guess}: {found:?}");
            assert!(found.steps.len() < MAX_STEPS);
        }
    }

    #[tokio::test]
    async fn a_server_that_does_nothing_right_has_no_rate() {
        let step = async |rate| {
            let mut tally = Tally::default();
            tally.wrong(Wrong::new("no", ""));
            Ok::<_, Infallible>(tally.report(Some(rate), LENGTH, LENGTH))
        };
        let found = search(100.0, Limits::default(), step).await.unwrap();
        assert_eq!(found.rate.to_bits(), 0f64.to_bits());
        assert!(found.steps.iter().all(|step| step.why == Some(Fault::Wrong)));
    }

    #[test]
    fn each_way_to_fail_has_its_name() {
        let good = served(1000.0, 500.0);
        let limits = |p99_ms| Limits { p99_ms };
        assert_eq!(fault(&good, limits(None)), None);
        assert_eq!(fault(&good, limits(Some(5.0))), None);
        assert_eq!(fault(&good, limits(Some(0.5))), Some(Fault::TooSlow));
        assert_eq!(fault(&served(1000.0, 1100.0), limits(None)), Some(Fault::FallsBehind));
        let blocks = Report { growth: 0.04, late_to_early: 1.2, ..good.clone() };
        assert_eq!(fault(&blocks, limits(None)), None);
        let late = Report { own_lag_p99_ms: 80.0, ..good.clone() };
        assert_eq!(fault(&late, limits(None)), Some(Fault::LoadItself));
        let mut one_in_a_hundred = good;
        one_in_a_hundred.wrong.insert("no".to_owned(), 1);
        assert_eq!(fault(&one_in_a_hundred, limits(None)), Some(Fault::Wrong));
    }
}
