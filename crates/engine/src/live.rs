use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farthing_payment::{ConsumptionKey, Payment, Reason, TxRef};
use farthing_primitives::{RequestHash, TenantId};
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Shared;

use crate::{ConflictKind, Permit, StoredResponse};

/// How a payment's task ended, as all who wait for it may know it.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Served {
        payment: Box<Payment>,
        response: StoredResponse,
    },
    /// The one who takes the permit from the live entry delivers; the others have come too late.
    Deliver {
        payment: Box<Payment>,
    },
    /// Settled for somebody else (a facilitator's payment), or before, with nothing to deliver.
    Settled {
        payment: Box<Payment>,
    },
    NotCharged {
        payment: Box<Payment>,
        reason: Reason,
        response: Option<StoredResponse>,
    },
    Refused {
        reason: Reason,
    },
    SettlementFailed {
        payment: Box<Payment>,
        reason: Reason,
        tx: Option<TxRef>,
    },
    Conflict {
        payment: Box<Payment>,
        kind: ConflictKind,
    },
    OverExposed,
    Unavailable {
        what: &'static str,
    },
}

/// Resolves with the outcome; with an error if the task died.
pub(crate) type Waiter = Shared<oneshot::Receiver<Outcome>>;

/// A payment that a task of this process works on now.
pub(crate) struct Live {
    pub request: RequestHash,
    pub tenant: TenantId,
    pub waiter: Waiter,
    state: Mutex<LiveState>,
    /// How many of the set's payments somebody may still wait for.
    waited_for: Arc<AtomicUsize>,
}

#[derive(Default)]
struct LiveState {
    payment: Option<Payment>,
    publish: Option<oneshot::Sender<Outcome>>,
    /// It no longer counts among those that somebody waits for.
    alone: bool,
    permit: Option<Permit>,
}

impl Live {
    /// The payment as it was at its last commit; `None` before the claim.
    pub fn payment(&self) -> Option<Payment> {
        lock(&self.state).payment.clone()
    }

    pub fn set_payment(&self, payment: &Payment) {
        lock(&self.state).payment = Some(payment.clone());
    }

    /// Tells all who wait. Only the first outcome counts.
    pub fn publish(&self, outcome: Outcome) {
        if let Some(publish) = self.take_publisher() {
            // Nobody waiting is no error: the payment goes on for its own sake.
            let _ = publish.send(outcome);
        }
    }

    /// Whether those who wait have not been told anything yet.
    pub fn is_awaited(&self) -> bool {
        lock(&self.state).publish.is_some()
    }

    fn take_publisher(&self) -> Option<oneshot::Sender<Outcome>> {
        let mut state = lock(&self.state);
        let publisher = state.publish.take();
        if publisher.is_some() && !std::mem::replace(&mut state.alone, true) {
            self.waited_for.fetch_sub(1, Ordering::Relaxed);
        }
        publisher
    }

    /// What became of it may take very long to know: it keeps no others out meanwhile. Whoever waits, waits on.
    pub fn goes_on_alone(&self) {
        let mut state = lock(&self.state);
        if state.publish.is_some() && !std::mem::replace(&mut state.alone, true) {
            self.waited_for.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn put_permit(&self, permit: Permit) {
        lock(&self.state).permit = Some(permit);
    }

    pub fn take_permit(&self) -> Option<Permit> {
        lock(&self.state).permit.take()
    }
}

/// All payments that tasks of this process work on, by consumption key.
#[derive(Default)]
pub(crate) struct LiveSet {
    entries: Mutex<HashMap<ConsumptionKey, Arc<Live>>>,
    waited_for: Arc<AtomicUsize>,
}

pub(crate) enum Joined {
    /// This caller is the first: it must drive the payment, and remove the entry at its end.
    Owner(Arc<Live>),
    /// Somebody drives it already.
    Other(Arc<Live>),
    /// There are as many as we can bear.
    Full,
}

impl LiveSet {
    pub fn join(&self, key: &ConsumptionKey, tenant: &TenantId, request: RequestHash, most: usize) -> Joined {
        let mut entries = lock(&self.entries);
        // What only waits for an authorization to expire costs little, and must not keep others out.
        let count = self.waited_for.load(Ordering::Relaxed);
        match entries.entry(key.clone()) {
            Entry::Occupied(entry) => Joined::Other(entry.get().clone()),
            Entry::Vacant(_) if count >= most => Joined::Full,
            Entry::Vacant(entry) => {
                let (publish, waiter) = oneshot::channel();
                let state = LiveState { publish: Some(publish), ..LiveState::default() };
                let live = Arc::new(Live {
                    request,
                    tenant: tenant.clone(),
                    waiter: waiter.shared(),
                    state: Mutex::new(state),
                    waited_for: self.waited_for.clone(),
                });
                self.waited_for.fetch_add(1, Ordering::Relaxed);
                entry.insert(live.clone());
                Joined::Owner(live)
            }
        }
    }

    /// Removes this very entry; whoever waits for an outcome that never came learns that.
    pub fn leave(&self, key: &ConsumptionKey, live: &Arc<Live>) {
        self.remove(key, live);
        drop(live.take_publisher());
    }

    /// Removes this very entry, whose outcome is still to be told.
    pub fn remove(&self, key: &ConsumptionKey, live: &Arc<Live>) {
        let mut entries = lock(&self.entries);
        if entries.get(key).is_some_and(|current| Arc::ptr_eq(current, live)) {
            entries.remove(key);
        }
    }

    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }
}

/// A panic elsewhere must not take the payments down with it: every guarded value is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
