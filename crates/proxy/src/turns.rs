//! Purchases of one name one after the other, and purchases that nobody waits for any more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

/// One at a time of each key. Keys that nobody waits for take no room.
#[derive(Debug)]
pub(crate) struct Turns<K>(Arc<Mutex<HashMap<K, Weak<Lock<()>>>>>);

/// One's turn, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<K: Eq + Hash> {
    /// `None` while it is waited for.
    guard: Option<OwnedMutexGuard<()>>,
    key: K,
    turns: Arc<Mutex<HashMap<K, Weak<Lock<()>>>>>,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Waits for those who came before.
    pub async fn take(&self, key: K) -> Turn<K> {
        let lock = {
            let mut turns = open(&self.0);
            let known = turns.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(Lock::new(()));
                turns.insert(key.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        // Before the wait, so that whoever gives it up tidies up too.
        let mut turn = Turn { guard: None, key, turns: self.0.clone() };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        open(&self.0).len()
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut turns = open(&self.turns);
        self.guard = None;
        // Whoever waits holds it too.
        if turns.get(&self.key).is_some_and(|lock| lock.strong_count() == 0) {
            turns.remove(&self.key);
        }
    }
}

/// A panic elsewhere must not stop the proxy: what these guard is whole between statements.
pub(crate) fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_of_one_key_come_one_after_the_other() {
        let turns = Turns::new();
        let first = turns.take("a").await;
        let mut second = Box::pin(turns.take("a"));
        assert!(second.as_mut().now_or_never().is_none());
        // Another key waits for nobody.
        drop(turns.take("b").now_or_never().unwrap());
        assert_eq!(turns.len(), 1);
        drop(first);
        drop(second.now_or_never().unwrap());
        assert_eq!(turns.len(), 0);
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let turns = Turns::new();
        let first = turns.take(1).await;
        let mut second = Box::pin(turns.take(1));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        drop(second);
        assert_eq!(turns.len(), 0);
    }
}
