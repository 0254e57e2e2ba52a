//! Who is connected, and who must go when there is no room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::Limits;
use crate::pulse::Pulse;

/// How many connections are looked at for one that can go: enough to find one, and few enough to do it for each newcomer.
const LOOK_AT: usize = 64;

/// All open connections of a listener.
#[derive(Debug)]
pub(crate) struct Table {
    open: Mutex<Open>,
    max_connections: usize,
    max_per_peer: usize,
    left: Notify,
}

#[derive(Debug, Default)]
struct Open {
    /// By number; numbers are used again.
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// The numbers of each peer's connections.
    peers: HashMap<IpAddr, Vec<usize>>,
    /// Where the last look ended.
    cursor: usize,
}

#[derive(Debug)]
struct Entry {
    pulse: Arc<Pulse>,
    /// And where its number stands among its peer's. `None`: whoever stands for many is not counted as one.
    peer: Option<(IpAddr, usize)>,
}

/// A connection's place in the table, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    table: Arc<Table>,
    number: usize,
}

impl Table {
    pub fn new(limits: &Limits, max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            max_connections,
            max_per_peer: limits.max_per_peer.max(1),
            left: Notify::new(),
        })
    }

    /// A place for a newcomer, for which another may have to go; `None` if none can.
    ///
    /// `peer` is `None` for a proxy, which stands for many.
    pub fn enter(self: &Arc<Self>, peer: Option<IpAddr>, pulse: &Arc<Pulse>) -> Option<Place> {
        let peer = peer.map(network_of);
        let mut open = self.open();
        let of_peer = peer.and_then(|peer| open.peers.get(&peer)).map_or(0, Vec::len);
        if of_peer >= self.max_per_peer {
            open.longest_idle_of(peer?)?.evict();
        } else if open.count() >= self.max_connections {
            open.least_missed()?.evict();
        }
        let number = open.insert(peer, pulse.clone());
        Some(Place { table: self.clone(), number })
    }

    /// Waits until nobody is connected.
    pub async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.open().count() == 0 {
                return;
            }
            left.await;
        }
    }

    /// A panic elsewhere must not stop the service: the table is whole between calls of its methods.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.open().remove(self.number);
        self.table.left.notify_waiters();
    }
}

impl Open {
    fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    fn insert(&mut self, peer: Option<IpAddr>, pulse: Arc<Pulse>) -> usize {
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let peer = peer.map(|peer| {
            let numbers = self.peers.entry(peer).or_default();
            numbers.push(number);
            (peer, numbers.len() - 1)
        });
        if let Some(entry) = self.entries.get_mut(number) {
            *entry = Some(Entry { pulse, peer });
        }
        number
    }

    fn remove(&mut self, number: usize) {
        let Some(entry) = self.entries.get_mut(number).and_then(Option::take) else { return };
        self.free.push(number);
        let Some((peer, at)) = entry.peer else { return };
        let Some(numbers) = self.peers.get_mut(&peer) else { return };
        if at < numbers.len() {
            numbers.swap_remove(at);
        }
        // The last of them stands here now.
        let moved = numbers.get(at).copied();
        if numbers.is_empty() {
            self.peers.remove(&peer);
        }
        if let Some(Some(Entry { peer: Some((_, place)), .. })) = moved.and_then(|n| self.entries.get_mut(n))
        {
            *place = at;
        }
    }

    /// That one of some connections of this peer that has asked for nothing for the longest time.
    fn longest_idle_of(&mut self, peer: IpAddr) -> Option<Arc<Pulse>> {
        self.cursor = self.cursor.wrapping_add(LOOK_AT);
        let numbers = self.peers.get(&peer)?;
        let start = self.cursor.checked_rem(numbers.len())?;
        let some = numbers.iter().cycle().skip(start).take(numbers.len().min(LOOK_AT));
        let entries = some.filter_map(|number| self.entries.get(*number)?.as_ref());
        let idle = entries.filter_map(|entry| Some((entry.pulse.idle_for()?, &entry.pulse)));
        idle.max_by_key(|(idle, _)| *idle).map(|(_, pulse)| pulse.clone())
    }

    /// That one of some idle connections that never asked for anything; whose peer has the most of them; and that is idle
    /// for the longest time: in this order.
    fn least_missed(&mut self) -> Option<Arc<Pulse>> {
        self.cursor = self.cursor.wrapping_add(LOOK_AT);
        let start = self.cursor.checked_rem(self.entries.len())?;
        let some = self.entries.iter().cycle().skip(start).take(self.entries.len().min(LOOK_AT)).flatten();
        let idle = some.filter_map(|entry| Some((self.rank(entry)?, &entry.pulse)));
        idle.max_by_key(|(rank, _)| *rank).map(|(_, pulse)| pulse.clone())
    }

    fn rank(&self, entry: &Entry) -> Option<(bool, usize, Duration)> {
        let idle = entry.pulse.idle_for()?;
        let many = entry.peer.and_then(|(peer, _)| self.peers.get(&peer)).map_or(1, Vec::len);
        Some((!entry.pulse.has_asked(), many, idle))
    }
}

/// What counts as one peer: an IPv4 address, or a /64, since one home has a whole one of addresses.
pub fn network_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        },
    }
}
