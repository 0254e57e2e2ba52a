//! What the chain said of a payment a moment ago, and who is asking it just now.
//!
//! For `/verify` alone: settlement never looks here. A verdict is forgotten after a block, or as soon as the payment is
//! being settled.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use farthing_engine::BoxFuture;
use farthing_payment::Instruction;
use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};

use crate::limit::lock;

/// How many verdicts are kept, in each of two generations.
const MAX_KEPT: usize = 32_768;
/// The longest that any verdict is kept, however slow the chain.
pub(crate) const LONGEST: Duration = Duration::from_secs(2);

/// What a reading of the chain says of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Valid,
    /// With the code that a peer is told.
    Refused(&'static str),
    /// Nothing is known.
    Unavailable,
}

pub(crate) type Reading = Shared<BoxFuture<'static, Verdict>>;

enum Entry {
    /// Somebody waits for the answer; gone when nobody does any more.
    Asking(WeakShared<BoxFuture<'static, Verdict>>),
    Told {
        verdict: Verdict,
        until: Duration,
    },
}

/// By the whole instruction, so that nothing but the very same payment finds a verdict.
#[derive(Default)]
struct Generations {
    young: HashMap<Box<[u8]>, Entry>,
    old: HashMap<Box<[u8]>, Entry>,
    turned: Duration,
}

#[derive(Default)]
pub(crate) struct Mirror {
    generations: Mutex<Generations>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mirror")
    }
}

/// What the mirror has.
pub(crate) enum Seen {
    Verdict(Verdict),
    Asking(Reading),
}

impl Mirror {
    /// The verdict, or the reading that will give it, which `ask` begins if nobody has.
    ///
    /// # Errors
    /// Those of `ask`.
    pub fn see<E>(
        &self,
        instruction: &Instruction,
        now: Duration,
        ask: impl FnOnce() -> Result<BoxFuture<'static, Verdict>, E>,
    ) -> Result<Seen, E> {
        let mut generations = lock(&self.generations);
        generations.turn(now);
        let key = instruction.as_bytes();
        match generations.young.get(key).or_else(|| generations.old.get(key)) {
            Some(Entry::Told { verdict, until }) if now < *until => return Ok(Seen::Verdict(*verdict)),
            Some(Entry::Asking(weak)) => {
                if let Some(reading) = weak.upgrade() {
                    return Ok(Seen::Asking(reading));
                }
            }
            _ => {}
        }
        let reading = ask()?.shared();
        if generations.young.len() < MAX_KEPT
            && let Some(weak) = reading.downgrade()
        {
            generations.young.insert(key.into(), Entry::Asking(weak));
        }
        Ok(Seen::Asking(reading))
    }

    /// Keeps a verdict until `until`, unless it was forgotten meanwhile.
    pub fn tell(&self, instruction: &Instruction, verdict: Verdict, until: Duration) {
        let mut generations = lock(&self.generations);
        let key = instruction.as_bytes();
        let Generations { young, old, .. } = &mut *generations;
        if let Some(entry) = young.get_mut(key).or_else(|| old.get_mut(key))
            && matches!(entry, Entry::Asking(_))
        {
            *entry = Entry::Told { verdict, until };
        }
    }

    /// What was said of this payment counts no more.
    pub fn forget(&self, instruction: &Instruction) {
        let mut generations = lock(&self.generations);
        generations.young.remove(instruction.as_bytes());
        generations.old.remove(instruction.as_bytes());
    }
}

impl Generations {
    fn turn(&mut self, now: Duration) {
        if now.saturating_sub(self.turned) >= LONGEST {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(n: u8) -> Instruction {
        Instruction::new(vec![n; 100])
    }

    fn ask(mirror: &Mirror, n: u8, now: u64) -> Seen {
        let pending = || Ok::<_, ()>(futures_util::future::pending().boxed());
        mirror.see(&payment(n), Duration::from_millis(now), pending).expect("asked")
    }

    #[test]
    fn one_reading_answers_all_who_ask_and_its_verdict_those_of_the_same_block() {
        let mirror = Mirror::default();
        let ready = || Ok::<_, ()>(futures_util::future::ready(Verdict::Valid).boxed());
        let Ok(Seen::Asking(first)) = mirror.see(&payment(1), Duration::ZERO, ready) else { panic!("new") };
        let Seen::Asking(second) = ask(&mirror, 1, 1) else { panic!("asked by the first") };
        assert!(first.ptr_eq(&second));
        assert!(matches!(ask(&mirror, 2, 1), Seen::Asking(other) if !other.ptr_eq(&first)));
        assert_eq!(first.now_or_never(), Some(Verdict::Valid));
        mirror.tell(&payment(1), Verdict::Valid, Duration::from_millis(1000));
        assert!(matches!(ask(&mirror, 1, 999), Seen::Verdict(Verdict::Valid)));
        assert!(matches!(ask(&mirror, 1, 1000), Seen::Asking(_)));
    }

    #[test]
    fn a_reading_that_nobody_waits_for_is_begun_anew() {
        let mirror = Mirror::default();
        drop(ask(&mirror, 1, 0));
        let ready = || Ok::<_, ()>(futures_util::future::ready(Verdict::Valid).boxed());
        let Ok(Seen::Asking(again)) = mirror.see(&payment(1), Duration::ZERO, ready) else { panic!("new") };
        assert_eq!(again.now_or_never(), Some(Verdict::Valid));
    }

    #[test]
    fn a_forgotten_payment_is_read_again_also_if_a_reading_was_under_way() {
        let mirror = Mirror::default();
        let first = ask(&mirror, 1, 0);
        mirror.forget(&payment(1));
        mirror.tell(&payment(1), Verdict::Valid, Duration::from_secs(1));
        assert!(matches!((ask(&mirror, 1, 1), first), (Seen::Asking(a), Seen::Asking(b)) if !a.ptr_eq(&b)));
    }

    #[test]
    fn verdicts_do_not_pile_up() {
        let mirror = Mirror::default();
        let waiting: Vec<_> = (0..10).map(|n| ask(&mirror, n, 0)).collect();
        drop(waiting);
        ask(&mirror, 100, 2000);
        ask(&mirror, 101, 4000);
        let generations = lock(&mirror.generations);
        assert_eq!((generations.young.len(), generations.old.len()), (1, 1));
    }
}
