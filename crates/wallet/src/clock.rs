use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farthing_policy::{Clock, Steady};
use farthing_primitives::Timestamp;

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
