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

/// The time that was believed last, and what the steady clock says at that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub time: Timestamp,
    /// What it says when `time` is right, not when it was read: in all marks of one boot the two stay the same
    /// distance apart. Were it the reading, many small steps of the wall clock would each be forgiven as drift.
    pub steady: Option<Steady>,
}

impl Mark {
    /// The time that rolling caps count by, and what to remember for the next call.
    ///
    /// It never goes back: a clock set to yesterday does not empty the books of today. Within one boot it goes as the
    /// steady clock does: it doesn't stand still for a clock that was set back, and doesn't run ahead, in one step or
    /// in many, by more than [`MAX_DRIFT`]: a clock set to tomorrow doesn't end today's windows.
    pub fn advance(last: Option<&Self>, clock: &Clock) -> Self {
        let Some(last) = last else { return Self { time: clock.wall, steady: clock.steady.clone() } };
        if let (Some(then), Some(now)) = (&last.steady, &clock.steady)
            && then.boot == now.boot
        {
            let honest = last.time.plus(now.elapsed).minus(then.elapsed);
            let drifted = clock.wall <= honest.plus(MAX_DRIFT);
            let time = if drifted { clock.wall.max(honest) } else { honest }.max(last.time);
            let elapsed = then.elapsed + time.since(last.time);
            return Self { time, steady: Some(Steady { boot: now.boot.clone(), elapsed }) };
        }
        Self { time: clock.wall.max(last.time), steady: clock.steady.clone() }
    }
}
