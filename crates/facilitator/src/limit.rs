//! Limits that are counted in memory, on monotonic time: requests, gas, and payers whose settlements fail.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farthing_primitives::{Address, Network};

use crate::GasBudget;

/// For how long a payer is not served after its first failing settlement; each further one doubles it.
pub(crate) const FIRST_COOLDOWN: Duration = Duration::from_secs(30);
pub(crate) const LONGEST_COOLDOWN: Duration = Duration::from_secs(3600);
/// How long after its end a cooldown is remembered, so that the next is longer.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How many payers are remembered, in each of two generations.
const MAX_COOLING: usize = 25_000;

/// A panic elsewhere must not stop the service: every guarded value is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many a second, after a burst of twice as many.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: u64,
    state: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    /// Millionths of a request.
    left: u64,
    at: Duration,
}

const WHOLE: u64 = 1_000_000;

impl Bucket {
    pub fn new(per_second: u32) -> Self {
        let rate = u64::from(per_second);
        Self { rate, state: Mutex::new(Level { left: Self::full(rate), at: Duration::ZERO }) }
    }

    fn full(rate: u64) -> u64 {
        // At least one, or nothing would ever pass.
        rate.max(1).saturating_mul(2 * WHOLE)
    }

    /// # Errors
    /// How long it takes until there is one.
    pub fn take(&self, now: Duration) -> Result<(), Duration> {
        let mut level = lock(&self.state);
        let elapsed = now.saturating_sub(level.at);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        level.left = level.left.saturating_add(micros.saturating_mul(self.rate)).min(Self::full(self.rate));
        level.at = level.at.max(now);
        if level.left >= WHOLE {
            level.left -= WHOLE;
            return Ok(());
        }
        let missing = WHOLE - level.left;
        Err(Duration::from_micros(missing.checked_div(self.rate).unwrap_or(u64::MAX)))
    }
}

/// A sum over the last while, in slots of a part of it.
#[derive(Debug)]
struct Rolling {
    slot_secs: u64,
    slots: u64,
    /// (slot counted from the start, sum), ascending.
    sums: VecDeque<(u64, u128)>,
}

impl Rolling {
    fn new(slot_secs: u64, slots: u64) -> Self {
        Self { slot_secs, slots, sums: VecDeque::new() }
    }

    fn slot(&self, now: Duration) -> u64 {
        now.saturating_add(BEFORE).as_secs() / self.slot_secs
    }

    /// The sum of the slots that are not over; saturates, which is more than any limit.
    fn sum(&mut self, now: Duration) -> u128 {
        let slot = self.slot(now);
        while self.sums.front().is_some_and(|(at, _)| at.saturating_add(self.slots) <= slot) {
            self.sums.pop_front();
        }
        self.sums.iter().fold(0, |sum, (_, wei)| sum.saturating_add(*wei))
    }

    fn add(&mut self, now: Duration, wei: u128) {
        self.add_to(self.slot(now), wei);
    }

    /// Adds what was spent so long ago. What comes out of its order counts as spent with what came before it.
    fn recall(&mut self, now: Duration, ago: Duration, wei: u128) {
        self.add_to(now.saturating_add(BEFORE).saturating_sub(ago).as_secs() / self.slot_secs, wei);
    }

    fn add_to(&mut self, slot: u64, wei: u128) {
        match self.sums.back_mut() {
            Some((at, sum)) if *at >= slot => *sum = sum.saturating_add(wei),
            _ => self.sums.push_back((slot, wei)),
        }
    }

    /// Takes back a part of what was added at `then`; nothing if that is over.
    fn give_back(&mut self, then: Duration, wei: u128) {
        let slot = self.slot(then);
        if let Some((_, sum)) = self.sums.iter_mut().find(|(at, _)| *at >= slot) {
            *sum = sum.saturating_sub(wei);
        }
    }
}

/// What may be spent on gas, and what was.
#[derive(Debug)]
pub(crate) struct Gas {
    budget: GasBudget,
    spent: Mutex<(Rolling, Rolling)>,
}

/// Added to monotonic time, which may begin with this process, so that what was spent before it has a time too.
const BEFORE: Duration = Duration::from_secs(2 * 86_400);

/// Counted as spent until it is known what it came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved {
    at: Duration,
    wei: u128,
}

impl Gas {
    pub fn new(budget: GasBudget) -> Self {
        // An hour in minutes, a day in quarters of an hour; both round in favour of the budget.
        Self { budget, spent: Mutex::new((Rolling::new(60, 61), Rolling::new(900, 97))) }
    }

    pub fn is_unlimited(&self) -> bool {
        self.budget.is_none()
    }

    /// Whether nothing is left at all: no settlement, however cheap, would be tried.
    pub fn is_spent(&self, now: Duration) -> bool {
        if self.is_unlimited() {
            return false;
        }
        let mut spent = lock(&self.spent);
        self.budget.per_hour.is_some_and(|most| spent.0.sum(now) >= most)
            || self.budget.per_day.is_some_and(|most| spent.1.sum(now) >= most)
    }

    /// Counts `wei` as spent, if that is within the budget.
    pub fn reserve(&self, now: Duration, wei: u128) -> Option<Reserved> {
        if self.budget.per_settlement.is_some_and(|most| wei > most) {
            return None;
        }
        let mut spent = lock(&self.spent);
        let fits = |rolling: &mut Rolling, most: Option<u128>| {
            most.is_none_or(|most| rolling.sum(now).checked_add(wei).is_some_and(|sum| sum <= most))
        };
        if !fits(&mut spent.0, self.budget.per_hour) || !fits(&mut spent.1, self.budget.per_day) {
            return None;
        }
        spent.0.add(now, wei);
        spent.1.add(now, wei);
        Some(Reserved { at: now, wei })
    }

    /// Counts what was spent so long ago, before this process began.
    pub fn recall(&self, now: Duration, ago: Duration, wei: u128) {
        let mut spent = lock(&self.spent);
        spent.0.recall(now, ago, wei);
        spent.1.recall(now, ago, wei);
    }

    /// It came to `actual`.
    pub fn spend(&self, reserved: Reserved, actual: u128) {
        let mut spent = lock(&self.spent);
        if actual <= reserved.wei {
            let rest = reserved.wei - actual;
            spent.0.give_back(reserved.at, rest);
            spent.1.give_back(reserved.at, rest);
        } else {
            let more = actual - reserved.wei;
            spent.0.add(reserved.at, more);
            spent.1.add(reserved.at, more);
        }
    }
}

/// Payers whose settlements failed are not served for a while, so that draining a balance between verification and
/// settlement, again and again, costs little of our gas.
///
/// Payers cost a stranger nothing, so there may be any number of them: who failed longest ago is forgotten first, and
/// none of it takes longer the more there are.
#[derive(Debug, Default)]
pub(crate) struct Cooling {
    payers: Mutex<Failed>,
}

/// A full young generation becomes the old one, and the old one is forgotten. Who fails again is young again.
#[derive(Debug, Default)]
struct Failed {
    young: HashMap<(Network, Address), Cooldown>,
    old: HashMap<(Network, Address), Cooldown>,
}

#[derive(Debug, Clone, Copy)]
struct Cooldown {
    until: Duration,
    failures: u32,
}

impl Failed {
    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    fn remove(&mut self, key: &(Network, Address)) -> Option<Cooldown> {
        let (young, old) = (self.young.remove(key), self.old.remove(key));
        young.or(old)
    }
}

impl Cooling {
    pub fn is_cooling(&self, network: &Network, payer: &Address, now: Duration) -> bool {
        let payers = lock(&self.payers);
        // Nobody's failure is the usual case, and costs nothing.
        if payers.is_empty() {
            return false;
        }
        let key = (network.clone(), payer.clone());
        let found = payers.young.get(&key).or_else(|| payers.old.get(&key));
        found.is_some_and(|cooldown| now < cooldown.until)
    }

    pub fn failed(&self, network: &Network, payer: &Address, now: Duration) {
        let mut payers = lock(&self.payers);
        let key = (network.clone(), payer.clone());
        let before = payers.remove(&key).filter(|cooldown| now < cooldown.until.saturating_add(REMEMBERED));
        let failures = before.map_or(0, |cooldown| cooldown.failures);
        let doubled = FIRST_COOLDOWN.saturating_mul(1 << failures.min(16));
        let until = now.saturating_add(doubled.min(LONGEST_COOLDOWN));
        if payers.young.len() >= MAX_COOLING {
            payers.old = std::mem::take(&mut payers.young);
        }
        payers.young.insert(key, Cooldown { until, failures: failures.saturating_add(1) });
    }

    pub fn settled(&self, network: &Network, payer: &Address) {
        let mut payers = lock(&self.payers);
        if !payers.is_empty() {
            payers.remove(&(network.clone(), payer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_lets_a_burst_pass_and_then_the_rate() {
        let bucket = Bucket::new(2);
        let now = 100 * SECOND;
        assert_eq!((0..10).filter(|_| bucket.take(now).is_ok()).count(), 4);
        assert_eq!(bucket.take(now), Err(SECOND / 2));
        assert_eq!(bucket.take(now + SECOND / 2), Ok(()));
        assert_eq!(bucket.take(now), Err(SECOND / 2), "a clock that goes back gives nothing");
        assert_eq!((0..10).filter(|_| bucket.take(now + 100 * SECOND).is_ok()).count(), 4);
    }

    #[test]
    fn gas_is_counted_over_the_last_hour_and_the_last_day() {
        let budget = GasBudget { per_settlement: Some(60), per_hour: Some(100), per_day: Some(150) };
        let gas = Gas::new(budget);
        let hour = 3600 * SECOND;
        assert!(gas.reserve(SECOND, 61).is_none(), "more than one may cost");
        let first = gas.reserve(SECOND, 60).expect("within");
        assert!(gas.reserve(SECOND, 41).is_none(), "more than an hour may cost");
        gas.spend(first, 50);
        assert!(gas.reserve(SECOND, 50).is_some());
        assert!(gas.is_spent(SECOND));
        let later = hour + 120 * SECOND;
        assert!(!gas.is_spent(later));
        assert!(gas.reserve(later, 50).is_some());
        assert!(gas.reserve(later, 1).is_none(), "more than a day may cost");
        assert!(gas.reserve(25 * hour, 1).is_some());
    }

    #[test]
    fn what_was_spent_before_the_process_began_counts_for_as_long() {
        let gas = Gas::new(GasBudget { per_hour: Some(100), per_day: Some(150), ..GasBudget::default() });
        let (began, hour) = (Duration::ZERO, 3600 * SECOND);
        gas.recall(began, 30 * hour, 1000);
        gas.recall(began, 20 * hour, 60);
        gas.recall(began, hour / 2, 40);
        assert!(gas.reserve(began, 51).is_none(), "of the day 50 are left");
        assert!(gas.reserve(began, 50).is_some());
        assert!(gas.reserve(5 * hour, 60).is_some(), "what is a day old is forgotten");
    }

    #[test]
    fn what_costs_more_than_was_reserved_is_counted_in_full() {
        let gas = Gas::new(GasBudget { per_hour: Some(100), ..GasBudget::default() });
        let reserved = gas.reserve(SECOND, 10).expect("within");
        gas.spend(reserved, 95);
        assert!(gas.reserve(SECOND, 6).is_none());
        assert!(gas.reserve(SECOND, 5).is_some());
    }

    #[test]
    fn each_failure_cools_a_payer_down_for_longer_and_a_settlement_forgives() {
        let cooling = Cooling::default();
        let (network, payer) = (Network::eip155(1), Address::from_evm_bytes([1; 20]));
        let is_cooling = |now| cooling.is_cooling(&network, &payer, now);
        assert!(!is_cooling(SECOND));
        cooling.failed(&network, &payer, SECOND);
        assert!(is_cooling(30 * SECOND) && !is_cooling(31 * SECOND));
        cooling.failed(&network, &payer, 31 * SECOND);
        assert!(is_cooling(90 * SECOND) && !is_cooling(91 * SECOND));
        assert!(!cooling.is_cooling(&network, &Address::from_evm_bytes([2; 20]), 40 * SECOND));
        cooling.settled(&network, &payer);
        assert!(!is_cooling(40 * SECOND));
    }

    #[test]
    fn any_number_of_failing_payers_is_bounded_and_the_latest_are_cooling() {
        let cooling = Cooling::default();
        let network = Network::eip155(1);
        let payer = |number: usize| {
            let mut bytes = [0; 20];
            bytes[12..].copy_from_slice(&(number as u64).to_be_bytes());
            Address::from_evm_bytes(bytes)
        };
        let many = 5 * MAX_COOLING / 2;
        for number in 0..many {
            cooling.failed(&network, &payer(number), SECOND);
            // One that goes on failing is never forgotten, however many others there are.
            if number % 1000 == 0 {
                cooling.failed(&network, &payer(0), SECOND);
            }
        }
        let is_cooling = |number| cooling.is_cooling(&network, &payer(number), 2 * SECOND);
        assert!((many - MAX_COOLING..many).all(is_cooling), "who is one too many cools down as well");
        assert!(is_cooling(0) && !is_cooling(1));
        let payers = lock(&cooling.payers);
        assert!(payers.young.len() + payers.old.len() <= 2 * MAX_COOLING);
    }
}
