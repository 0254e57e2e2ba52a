//! Purchases whose program hung up before it had what was bought. Whoever asks for the same next gets that, and nothing
//! is paid a second time.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::turns::open;

/// How many are remembered. What is forgotten is in the journal; a new process of ours would find it there.
const MAX_LEFT: usize = 4096;

/// What was left behind, by what was asked.
#[derive(Debug)]
pub(crate) struct Left<K, B: Bought>(Arc<Mutex<Shelf<K, B>>>);

impl<K, B: Bought> Clone for Left<K, B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What a purchase came to.
pub(crate) trait Bought: Send + 'static {
    type Id: Copy + Send + std::fmt::Debug;

    /// What can be asked for again, if there is anything.
    fn id(&self) -> Option<Self::Id>;
}

#[derive(Debug)]
struct Shelf<K, B: Bought> {
    entries: VecDeque<(K, Orphan<B>)>,
    next: u64,
}

/// Something that was left behind.
#[derive(Debug)]
enum Orphan<B: Bought> {
    UnderWay(u64, oneshot::Receiver<B>),
    Done(B::Id),
}

/// What there is for somebody who asks for the same.
#[derive(Debug)]
pub(crate) enum Found<K: Clone + Eq + Hash, B: Bought> {
    UnderWay(Wait<K, B>),
    Done(B::Id),
}

/// Somebody's wait for a purchase. Given up, the purchase goes on, and waits for whoever asks for the same.
#[derive(Debug)]
pub(crate) struct Wait<K: Clone + Eq + Hash, B: Bought> {
    number: u64,
    /// `None` where nobody takes up what is left behind.
    key: Option<K>,
    /// `None` once it came to an end.
    coming: Option<oneshot::Receiver<B>>,
    left: Left<K, B>,
}

/// The other end of a [`Wait`].
#[derive(Debug)]
pub(crate) struct Promise<K: Clone + Eq + Hash, B: Bought> {
    number: u64,
    to: oneshot::Sender<B>,
    left: Left<K, B>,
}

impl<K: Clone + Eq + Hash, B: Bought> Left<K, B> {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Shelf { entries: VecDeque::new(), next: 0 })))
    }

    /// A purchase that begins. Without a key it is not remembered.
    pub fn begin(&self, key: Option<K>) -> (Promise<K, B>, Wait<K, B>) {
        let (to, coming) = oneshot::channel();
        let mut shelf = open(&self.0);
        shelf.next = shelf.next.wrapping_add(1);
        let number = shelf.next;
        let promise = Promise { number, to, left: self.clone() };
        (promise, Wait { number, key, coming: Some(coming), left: self.clone() })
    }

    /// Takes the oldest that was left behind of the same.
    pub fn adopt(&self, key: &K) -> Option<Found<K, B>> {
        let mut shelf = open(&self.0);
        let at = shelf.entries.iter().position(|(known, _)| known == key)?;
        let (key, orphan) = shelf.entries.remove(at)?;
        Some(match orphan {
            Orphan::Done(id) => Found::Done(id),
            Orphan::UnderWay(number, coming) => {
                Found::UnderWay(Wait { number, key: Some(key), coming: Some(coming), left: self.clone() })
            }
        })
    }

    /// Something that was bought and reached nobody.
    pub fn leave(&self, key: K, id: B::Id) {
        open(&self.0).push(key, Orphan::Done(id));
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        open(&self.0).entries.len()
    }
}

impl<K, B: Bought> Shelf<K, B> {
    fn push(&mut self, key: K, orphan: Orphan<B>) {
        self.entries.push_back((key, orphan));
        if self.entries.len() > MAX_LEFT {
            self.entries.pop_front();
        }
    }
}

impl<K: Clone + Eq + Hash, B: Bought> Wait<K, B> {
    /// What it came to; `None` if whoever was at it is gone.
    pub async fn end(mut self) -> Option<B> {
        // In place, so that giving up this wait leaves the receiver where `drop` finds it.
        let done = self.coming.as_mut()?.await.ok();
        self.coming = None;
        done
    }
}

impl<K: Clone + Eq + Hash, B: Bought> Drop for Wait<K, B> {
    fn drop(&mut self) {
        let (Some(mut coming), Some(key)) = (self.coming.take(), self.key.take()) else { return };
        let mut shelf = open(&self.left.0);
        let orphan = match coming.try_recv() {
            Ok(done) => done.id().map(Orphan::Done),
            Err(oneshot::error::TryRecvError::Empty) => Some(Orphan::UnderWay(self.number, coming)),
            Err(oneshot::error::TryRecvError::Closed) => None,
        };
        if let Some(orphan) = orphan {
            shelf.push(key, orphan);
        }
    }
}

impl<K: Clone + Eq + Hash, B: Bought> Promise<K, B> {
    /// Hands over what it came to; or remembers it, without its answer, for whoever asks for the same.
    pub fn keep(self, done: B) {
        let mut shelf = open(&self.left.0);
        let mine =
            |(_, orphan): &(K, Orphan<B>)| matches!(orphan, Orphan::UnderWay(n, _) if *n == self.number);
        let Some(at) = shelf.entries.iter().position(mine) else {
            // Under the lock: a wait that is given up just now finds it.
            let _ = self.to.send(done);
            return;
        };
        match (done.id(), shelf.entries.get_mut(at)) {
            (Some(id), Some((_, orphan))) => *orphan = Orphan::Done(id),
            _ => {
                shelf.entries.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Goods(Option<u32>);

    impl Bought for Goods {
        type Id = u32;
        fn id(&self) -> Option<u32> {
            self.0
        }
    }

    #[tokio::test]
    async fn what_is_waited_for_is_handed_over_and_not_kept() {
        let left = Left::new();
        let (promise, wait) = left.begin(Some("a"));
        promise.keep(Goods(Some(1)));
        assert_eq!(wait.end().await, Some(Goods(Some(1))));
        assert_eq!(left.len(), 0);
        // Whoever is at it may be gone too.
        let (promise, wait) = left.begin(Some("a"));
        drop(promise);
        assert_eq!(wait.end().await, None::<Goods>);
        assert_eq!(left.len(), 0);
    }

    #[tokio::test]
    async fn who_hangs_up_leaves_it_to_who_asks_for_the_same() {
        let left = Left::new();
        // Before the end.
        let (promise, wait) = left.begin(Some("a"));
        let mut ending = Box::pin(wait.end());
        assert!(ending.as_mut().now_or_never().is_none());
        drop(ending);
        assert!(left.adopt(&"b").is_none());
        let Some(Found::UnderWay(wait)) = left.adopt(&"a") else { panic!("it is under way") };
        // And that one hangs up as well.
        drop(wait);
        promise.keep(Goods(Some(1)));
        assert!(matches!(left.adopt(&"a"), Some(Found::Done(1))));
        assert!(left.adopt(&"a").is_none());
        // When it was there already.
        let (promise, wait) = left.begin(Some("a"));
        promise.keep(Goods(Some(2)));
        drop(wait);
        assert!(matches!(left.adopt(&"a"), Some(Found::Done(2))));
        // Nor is what has no key.
        let (promise, wait) = left.begin(None);
        drop(wait);
        promise.keep(Goods(Some(3)));
        assert_eq!(left.len(), 0);
        // Where nothing was bought, nothing is kept.
        let (promise, wait) = left.begin(Some("a"));
        drop(wait);
        promise.keep(Goods(None));
        assert!(left.adopt(&"a").is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let left = Left::<usize, Goods>::new();
        for n in 0..MAX_LEFT + 10 {
            left.leave(n, 1);
        }
        assert_eq!(left.len(), MAX_LEFT);
        assert!(left.adopt(&9).is_none());
        assert!(left.adopt(&10).is_some());
    }
}
