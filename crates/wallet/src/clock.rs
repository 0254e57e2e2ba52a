use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farthing_policy::{Clock, MAX_DRIFT, Steady};
use farthing_primitives::Timestamp;
use farthing_rails::exact_evm::MIN_REMAINING;

/// No clock that is right says less: 2020-01-01. Machines without a battery begin in 1970.
const EARLIEST: Timestamp = Timestamp::from_secs(1_577_836_800);
/// No clock that is right says more: 2100-01-01. What is signed by a later one would hold for a lifetime.
const LATEST: Timestamp = Timestamp::from_secs(4_102_444_800);
/// How old a chain's latest block may be by our clock. Less than the shortest of the caps' windows; more than what a
/// chain takes that makes blocks only where there is something to put into them.
pub const MAX_CHAIN_LAG: Duration = Duration::from_secs(3600);

/// Why nothing is signed by this machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockFault {
    #[error("this machine's clock says {0}, which cannot be")]
    Absurd(Timestamp),
    #[error(
        "this machine's clock was set forward, to {wall}, and no chain can be asked whether it is right: \
         name a node, or start the machine again"
    )]
    SetForward { wall: Timestamp },
    #[error(
        "this machine's clock is behind: it says {wall}, and the chain {chain}, when what is signed now has lapsed"
    )]
    Behind { wall: Timestamp, chain: Timestamp },
    #[error(
        "this machine's clock says {wall}, and the chain's latest block {chain}: the clock is ahead, or the chain or \
         its node stands still"
    )]
    Ahead { wall: Timestamp, chain: Timestamp },
}

impl ClockFault {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Absurd(_) => "clock_absurd",
            Self::SetForward { .. } => "clock_set_forward",
            Self::Behind { .. } => "clock_behind_chain",
            Self::Ahead { .. } => "clock_ahead_of_chain",
        }
    }
}

/// What time it is by several witnesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witnesses {
    pub wall: Timestamp,
    /// The time that the books go by.
    pub books: Timestamp,
    /// That of the chain's latest block, where a chain can be asked.
    pub chain: Option<Timestamp>,
    /// The chain makes its blocks when it likes, so that an old one says nothing.
    pub devnet: bool,
}

impl Witnesses {
    /// Whether something may be signed now that is to hold for `validity`; and by how much the chain's clock may be
    /// behind ours, which is how much longer it holds there.
    ///
    /// Where two clocks contradict each other nobody guesses: an authorization by a wrong clock is dead at once, or
    /// alive for longer than the owner allows.
    pub fn agree(&self, validity: Duration) -> Result<Duration, ClockFault> {
        let wall = self.wall;
        if is_absurd(wall) {
            return Err(ClockFault::Absurd(wall));
        }
        let Some(chain) = self.chain else {
            return match wall > self.books.plus(MAX_DRIFT) {
                true => Err(ClockFault::SetForward { wall }),
                false => Ok(Duration::ZERO),
            };
        };
        if chain > wall && wall.plus(validity) <= chain.plus(MIN_REMAINING) {
            return Err(ClockFault::Behind { wall, chain });
        }
        let lag = wall.since(chain);
        if lag > MAX_CHAIN_LAG && !self.devnet {
            return Err(ClockFault::Ahead { wall, chain });
        }
        Ok(lag)
    }
}

fn is_absurd(wall: Timestamp) -> bool {
    !(EARLIEST..LATEST).contains(&wall)
}

/// The clock, without a wall time that cannot be: the beginning of time moves no books and lets nothing lapse.
pub(crate) fn believable(clock: &Clock) -> Clock {
    let wall = if is_absurd(clock.wall) { Timestamp::from_millis(0) } else { clock.wall };
    Clock { wall, steady: clock.steady.clone() }
}

/// What the system's clocks say now.
pub fn system_clock() -> Clock {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    Clock { wall: Timestamp::from_millis(millis), steady: steady() }
}

/// Linux counts the time since boot, sleep included, for all processes alike. Elsewhere there is nothing to compare
/// wall time with, and it is only kept from going back.
fn steady() -> Option<Steady> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let (secs, hundredths) = uptime.split_whitespace().next()?.split_once('.')?;
    let elapsed = Duration::from_secs(secs.parse().ok()?)
        + Duration::from_millis(hundredths.parse::<u64>().ok()?.checked_mul(10)?);
    Some(Steady { boot: boot.trim().to_owned(), elapsed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn agree(wall: Timestamp, books: Timestamp, chain: Option<Timestamp>) -> Result<Duration, ClockFault> {
        Witnesses { wall, books, chain, devnet: false }.agree(MINUTE)
    }

    #[test]
    fn a_clock_that_cannot_be_right_signs_nothing() {
        let second = secs(1);
        for wall in
            [Timestamp::from_millis(0), EARLIEST.minus(second), LATEST, Timestamp::from_millis(u64::MAX)]
        {
            assert_eq!(agree(wall, wall, None), Err(ClockFault::Absurd(wall)));
            assert_eq!(agree(wall, wall, Some(wall)), Err(ClockFault::Absurd(wall)));
        }
        for wall in [EARLIEST, LATEST.minus(second)] {
            assert_eq!(agree(wall, wall, None), Ok(Duration::ZERO));
        }
    }

    #[test]
    fn a_clock_behind_the_chain_signs_nothing_that_is_dead_already() {
        // Signed for a minute, and facilitators want more than six seconds of it to be left.
        for (behind, fine) in [(0, true), (53, true), (54, false), (3_600, false)] {
            let chain = NOW.plus(secs(behind));
            let expected =
                if fine { Ok(Duration::ZERO) } else { Err(ClockFault::Behind { wall: NOW, chain }) };
            assert_eq!(agree(NOW, NOW, Some(chain)), expected, "{behind} s");
        }
    }

    #[test]
    fn a_clock_ahead_of_the_chain_signs_nothing_that_outlives_the_owners_limit() {
        for (ahead, fine) in [(12, true), (3_600, true), (3_601, false), (86_400, false)] {
            let chain = NOW.minus(secs(ahead));
            let expected = if fine { Ok(secs(ahead)) } else { Err(ClockFault::Ahead { wall: NOW, chain }) };
            assert_eq!(agree(NOW, NOW, Some(chain)), expected, "{ahead} s");
        }
        let idle = Witnesses { wall: NOW, books: NOW, chain: Some(NOW.minus(secs(86_400))), devnet: true };
        assert_eq!(idle.agree(MINUTE), Ok(secs(86_400)), "a devnet has no blocks while nothing happens");
    }

    #[test]
    fn a_clock_set_forward_is_believed_only_with_a_witness() {
        for (forward, fine) in [(0, true), (300, true), (301, false)] {
            let wall = NOW.plus(secs(forward));
            let expected = if fine { Ok(Duration::ZERO) } else { Err(ClockFault::SetForward { wall }) };
            assert_eq!(agree(wall, NOW, None), expected, "{forward} s");
            assert_eq!(agree(wall, NOW, Some(wall)), Ok(Duration::ZERO), "the chain says so too");
        }
        assert_eq!(agree(NOW, NOW.plus(secs(86_400)), None), Ok(Duration::ZERO), "set back, or put right");
    }
}
