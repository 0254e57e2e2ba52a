use std::time::Duration;

use farthing_primitives::Timestamp;

/// How much further than the steady clock wall time may run before we believe that somebody moved it.
///
/// Five minutes: network time corrects by less, and no cap's window is that short.
pub const MAX_DRIFT: Duration = Duration::from_secs(300);

/// A clock that nobody can set, and the boot that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steady {
    pub boot: String,
    pub elapsed: Duration,
}

/// What the clocks say now. `steady` is absent where the system has none that several processes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    pub wall: Timestamp,
    pub steady: Option<Steady>,
}

/// The time that was believed last, and what the steady clock said then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub time: Timestamp,
    pub steady: Option<Steady>,
}

impl Mark {
    /// The time that rolling caps count by, and what to remember for the next call.
    ///
    /// It never goes back: a clock set to yesterday does not empty the books of today. Within one boot it doesn't run
    /// ahead of the steady clock either, by more than [`MAX_DRIFT`]: a clock set to tomorrow doesn't end today's
    /// windows.
    pub fn advance(last: Option<&Self>, clock: &Clock) -> Self {
        let Some(last) = last else { return Self { time: clock.wall, steady: clock.steady.clone() } };
        let mut time = clock.wall.max(last.time);
        if let (Some(then), Some(now)) = (&last.steady, &clock.steady)
            && then.boot == now.boot
        {
            let elapsed = now.elapsed.saturating_sub(then.elapsed);
            let honest = last.time.plus(elapsed);
            if time > honest.plus(MAX_DRIFT) {
                time = honest;
            }
        }
        Self { time, steady: clock.steady.clone() }
    }
}
