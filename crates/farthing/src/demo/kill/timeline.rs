//! Who did what, and when, as told by everybody who was there.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::demo::stage::short_hash;

const DAY_MS: u64 = 86_400_000;

/// In the order in which one leads to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    Buyer,
    Gateway,
    Chain,
    Kill,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Buyer => "buyer",
            Self::Gateway => "gateway",
            Self::Chain => "chain",
            Self::Kill => "SIGKILL",
        }
    }
}

/// One thing that happened, in milliseconds since the beginning.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    pub ms: u64,
    pub who: Who,
    pub what: String,
}

#[derive(Debug)]
pub struct Timeline {
    /// By the wall's clock, which the ledger goes by as well.
    began_ms: u64,
    moments: Mutex<Vec<Moment>>,
}

impl Timeline {
    pub fn begin() -> Self {
        Self { began_ms: now_ms(), moments: Mutex::default() }
    }

    /// Something happens now.
    pub fn note(&self, who: Who, what: impl Into<String>) {
        let ms = now_ms().saturating_sub(self.began_ms);
        lock(&self.moments).push(Moment { ms, who, what: what.into() });
    }

    /// Adds what `farthing ledger show` tells of a payment.
    pub fn add_story(&self, story: &Value) {
        let id = story["payment"].as_str().unwrap_or_default();
        for (i, row) in story["history"].as_array().into_iter().flatten().enumerate() {
            let (Some(at), Some(event)) = (row["at"].as_str().and_then(ms_of_day), row["event"].as_str())
            else {
                continue;
            };
            let name = if i == 0 { format!("{id}: ") } else { String::new() };
            let ms = (at + DAY_MS - self.began_ms % DAY_MS) % DAY_MS;
            let what = format!("{name}{}", meaning(event));
            lock(&self.moments).push(Moment { ms, who: Who::Gateway, what });
        }
    }

    /// Everything, in its order.
    pub fn told(&self) -> Vec<Moment> {
        let mut moments = lock(&self.moments).clone();
        // Within a millisecond one thing leads to the next: a buyer shows, a gateway claims, the chain is asked, and only
        // what is asked is held up and killed.
        moments.sort_by_key(|moment| (moment.ms, moment.who));
        let mut shown = HashSet::new();
        for moment in moments.iter_mut().filter(|moment| moment.what.starts_with("shows ")) {
            if !shown.insert(moment.what.clone()) {
                moment.what += " again: the same payment";
            }
        }
        moments
    }
}

/// What a change of a payment means, for people.
fn meaning(event: &str) -> &str {
    match event {
        "claimed" => "claimed, and on disk: this payment can buy nothing else any more",
        "funds_refused" => "the claim is given back: nothing was served, and nothing sent",
        "call_started" => "the payer has the money; the seller's service is asked",
        "call_lost" => "cut off while the service worked: nothing is charged for that",
        "attempt_started" => "goods and signed transaction are on disk; only now it is sent",
        "included" => "the transfer is in a block",
        "included_deep" => "the transfer is in a block, deep enough: settled, and in the books",
        "sent" => "the goods are free to go to the buyer",
        "represented" => "shown again: it begins anew",
        other => other,
    }
}

/// Shortens ids and hashes, so that a line fits a terminal.
pub fn shortened(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let core = word.trim_end_matches([',', ';', ':', '.']);
        let rest = word.get(core.len()..).unwrap_or_default();
        let is_id = core.len() == 36 && (core.starts_with("pay_") || core.starts_with("buy_"));
        if is_id || (core.len() == 66 && core.starts_with("0x")) {
            format!("{}{rest}", short_hash(core))
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The milliseconds since midnight of `2026-11-21T12:20:12.984Z`.
fn ms_of_day(text: &str) -> Option<u64> {
    let time = text.split_once('T')?.1.strip_suffix('Z')?;
    let (clock, ms) = time.split_once('.')?;
    let mut parts = clock.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, secs) = (parts.next()??, parts.next()??, parts.next()??);
    let ms: u64 = ms.parse().ok()?;
    (hours < 24 && minutes < 60 && secs < 61 && ms < 1000)
        .then(|| ((hours * 60 + minutes) * 60 + secs) * 1000 + ms)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_of_the_ledger_are_read() {
        assert_eq!(ms_of_day("2026-11-21T12:20:12.984Z"), Some(44_412_984));
        for odd in ["", "2026-11-21", "2026-11-21T12:20:12Z", "2026-11-21T25:20:12.984Z"] {
            assert_eq!(ms_of_day(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_story_is_put_in_order_also_over_midnight() {
        let began_ms = DAY_MS - 5;
        let timeline = Timeline { began_ms, moments: Mutex::default() };
        timeline.add_story(&json!({ "payment": "pay_1", "history": [
            { "at": "2026-11-21T23:59:59.999Z", "event": "claimed" },
            { "at": "2026-11-22T00:00:00.010Z", "event": "odd" },
        ]}));
        let told: Vec<_> = timeline.told().into_iter().map(|moment| (moment.ms, moment.what)).collect();
        assert_eq!(told[0].0, 4);
        assert!(told[0].1.starts_with("pay_1: claimed"));
        assert_eq!(told[1], (15, "odd".to_owned()));
    }

    #[test]
    fn ids_are_cut_and_words_are_not() {
        let id = format!("buy_{}", "ab".repeat(16));
        assert_eq!(
            shortened(&format!("shows {id}, for the first time")),
            "shows buy_abab…abab, for the first time"
        );
        assert_eq!(shortened(&format!("tx 0x{}", "cd".repeat(32))), "tx 0xcdcdcd…cdcd");
        assert_eq!(shortened("buy_short"), "buy_short");
    }
}
