//! How often a stranger may make us work: token buckets, for each client and for all together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many clients are told apart. More share one bucket.
pub const MAX_CLIENTS: usize = 16_384;

/// A rate, and how much of it may be used at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

/// One bucket for each client. Counted in millionths, without floats.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    rate: Rate,
    buckets: Mutex<HashMap<Option<IpAddr>, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In millionths of one permit.
    level: u64,
    at: Duration,
}

const ONE: u64 = 1_000_000;

impl RateLimiter {
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::new(HashMap::new()) }
    }

    /// Whether this client may go on now. `now` is monotonic.
    pub fn admit(&self, client: Option<IpAddr>, now: Duration) -> bool {
        let full = u64::from(self.rate.burst) * ONE;
        let client = client.map(network_of);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(&client) {
            // A bucket that is full again is as good as none.
            let rate = self.rate;
            buckets.retain(|_, bucket| bucket.refilled(rate, now).level < full);
        }
        // When all the places are taken, newcomers share one.
        let known = buckets.len() < MAX_CLIENTS || buckets.contains_key(&client);
        let client = client.filter(|_| known);
        let bucket = buckets.entry(client).or_insert(Bucket { level: full, at: now });
        *bucket = bucket.refilled(self.rate, now);
        match bucket.level.checked_sub(ONE) {
            Some(level) => {
                bucket.level = level;
                true
            }
            None => false,
        }
    }
}

impl Bucket {
    fn refilled(self, rate: Rate, now: Duration) -> Self {
        let elapsed = u64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        let level = self.level.saturating_add(elapsed.saturating_mul(u64::from(rate.per_second)));
        Self { level: level.min(u64::from(rate.burst) * ONE), at: now }
    }
}

/// One home has a whole /64 of addresses.
fn network_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        },
    }
}
