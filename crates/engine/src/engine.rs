use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farthing_payment::{Delivery, Dialect, Event, NewPayment, Next, Payment, Role, State};
use farthing_primitives::{Network, PaymentId, TenantId, Timestamp};
use futures_util::future::{Either, select};

use crate::clock::Clock;
use crate::drive::Driver;
use crate::live::{Joined, Live, LiveSet, Outcome};
use crate::{
    BoxFuture, Claim, Claimed, Commit, ConflictKind, ExposureLimit, Rail, Sale, SaleOutcome, Store,
    StoreError, Upstream, World,
};

/// What the engine may do and for how long.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// How long a buyer is kept waiting before the answer is `settlement_pending`.
    pub answer_within: Duration,
    /// After how long an attempt without news counts as unknown. Watching goes on.
    pub unclear_after: Duration,
    /// How long after settlement the stored answer is shown again to the same request.
    pub replay_ttl: Duration,
    /// How many payments may be under way at once; more are refused before anything is claimed.
    pub max_live: usize,
    /// How long a settled payment is watched for a reorganization.
    pub reorg_horizon: Duration,
    /// How long a streamed delivery may take.
    pub delivery_within: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_secs(30),
            unclear_after: Duration::from_secs(30),
            replay_ttl: Duration::from_secs(600),
            max_live: 10_000,
            reorg_horizon: Duration::from_secs(900),
            delivery_within: Duration::from_secs(3600),
        }
    }
}

/// The only driver of payments. Cheap to clone; all clones share one truth.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub store: Arc<dyn Store>,
    pub world: Arc<dyn World>,
    pub rails: HashMap<Network, Arc<dyn Rail>>,
    pub config: EngineConfig,
    pub live: LiveSet,
    /// The blocks of recent settlements that were seen in the chain, and when the last of each was settled.
    pub standing: Mutex<HashMap<(u64, [u8; 32]), Timestamp>>,
    pub clock: Clock,
    /// What a person was called for, to be looked at again now and then.
    pub given_up: Mutex<BTreeSet<PaymentId>>,
    /// Refunds that a task of this process follows.
    pub refunds: Mutex<HashSet<PaymentId>>,
    /// Since when settlements of former processes are watched, until this one has run for long enough.
    pub watched_since: Mutex<Option<Timestamp>>,
    /// Settlements whose blocks may still be replaced, however long ago they were.
    pub shallow: Mutex<BTreeSet<PaymentId>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} live)", self.0.live.len())
    }
}

impl Engine {
    pub fn new(
        store: Arc<dyn Store>,
        world: Arc<dyn World>,
        rails: HashMap<Network, Arc<dyn Rail>>,
        config: EngineConfig,
    ) -> Self {
        Self(Arc::new(Inner {
            clock: Clock::new(world.clone()),
            store,
            world,
            rails,
            config,
            live: LiveSet::default(),
            standing: Mutex::default(),
            given_up: Mutex::default(),
            refunds: Mutex::default(),
            watched_since: Mutex::default(),
            shallow: Mutex::default(),
        }))
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    pub fn world(&self) -> &Arc<dyn World> {
        &self.0.world
    }

    pub fn rail(&self, network: &Network) -> Option<&Arc<dyn Rail>> {
        self.0.rails.get(network)
    }

    /// How many payments this process works on now.
    pub fn live(&self) -> usize {
        self.0.live.len()
    }

    /// Sells: claims the payment, serves by its flow, settles, and says what became of it.
    ///
    /// At most one service and one settlement come of a consumption key, however often and wherever it is shown.
    pub async fn sell(&self, sale: Sale, upstream: Arc<dyn Upstream>) -> SaleOutcome {
        self.present(sale, Role::Seller, Some(upstream)).await
    }

    /// Settles a payment between others. Showing it again gives the original outcome.
    pub async fn relay(&self, sale: Sale) -> SaleOutcome {
        self.present(sale, Role::Facilitator, None).await
    }

    pub async fn status(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        self.0.store.payment(id).await
    }

    async fn present(&self, sale: Sale, role: Role, upstream: Option<Arc<dyn Upstream>>) -> SaleOutcome {
        let request = sale.binding.request;
        let (live, owner) = match self.0.live.join(&sale.key, &sale.tenant, request, self.0.config.max_live) {
            Joined::Full => return SaleOutcome::Unavailable { what: "too_many_payments" },
            Joined::Owner(live) => (live, true),
            Joined::Other(live) => (live, false),
        };
        if owner {
            // The work belongs to a task: a buyer that hangs up cancels nothing.
            let engine = self.clone();
            let task_live = live.clone();
            self.0.world.spawn(Box::pin(async move {
                let key = sale.key.clone();
                engine.own(sale, role, upstream, &task_live).await;
                engine.0.live.leave(&key, &task_live);
            }));
        } else if live.request != request || live.tenant != sale.tenant {
            return match live.payment() {
                Some(payment) => {
                    SaleOutcome::Conflict { payment: payment.id, kind: ConflictKind::OtherRequest }
                }
                None => SaleOutcome::Unavailable { what: "payment_in_progress" },
            };
        }
        let outcome = self.wait(&live).await;
        self.taken(&outcome);
        outcome
    }

    /// The answer is on its way to somebody who waited for it.
    fn taken(&self, outcome: &SaleOutcome) {
        let SaleOutcome::Served { payment, .. } = outcome else { return };
        // Of an answer in MPP it counts whether it got there, which is seen at the connection alone.
        if payment.terms.dialect != Dialect::Mpp {
            self.0.world.spawn(self.sent(payment));
        }
    }

    /// Says that the answer is gone to whoever paid, all of it. If this is lost, the payment shows as stored: no harm.
    ///
    /// A payment of MPP buys one answer, which is not given again once it was sent. So whoever gives it calls this, and
    /// not before its end has left.
    pub fn sent(&self, payment: &Payment) -> BoxFuture<'static, ()> {
        // As of now, whenever the task gets to it.
        let step = payment.step(Event::Sent, self.0.clock.stamp());
        let store = self.0.store.clone();
        Box::pin(async move {
            if let Ok(step) = step {
                let _ = store.commit(Commit::new(step, Event::Sent.name())).await;
            }
        })
    }

    async fn wait(&self, live: &Arc<Live>) -> SaleOutcome {
        let patience = self.0.world.sleep(self.0.config.answer_within);
        let outcome = match select(live.waiter.clone(), patience).await {
            Either::Left((Ok(outcome), _)) => outcome,
            // The task is gone without a word, or still at it: the truth is in the store, and money may move.
            Either::Left((Err(_), _)) | Either::Right(_) => {
                return match live.payment() {
                    Some(payment) => SaleOutcome::Pending { payment: payment.id, tx: payment.tx().cloned() },
                    None => SaleOutcome::Unavailable { what: "store" },
                };
            }
        };
        match outcome {
            Outcome::Served { payment, response } => SaleOutcome::Served { payment, response },
            Outcome::Settled { payment } => SaleOutcome::Settled { payment },
            Outcome::Deliver { payment } => match live.take_permit() {
                Some(permit) => SaleOutcome::Deliver { payment, permit },
                None => SaleOutcome::Conflict { payment: payment.id, kind: ConflictKind::InProgress },
            },
            Outcome::NotCharged { payment, reason, response } => {
                SaleOutcome::NotCharged { payment, reason, response }
            }
            Outcome::Refused { reason } => SaleOutcome::Refused { reason },
            Outcome::SettlementFailed { payment, reason, tx } => {
                SaleOutcome::SettlementFailed { payment, reason, tx }
            }
            Outcome::Conflict { payment, kind } => SaleOutcome::Conflict { payment: payment.id, kind },
            Outcome::OverExposed => SaleOutcome::OverExposed,
            Outcome::Unavailable { what } => SaleOutcome::Unavailable { what },
        }
    }

    /// The task of the first to show this payment to this process.
    async fn own(&self, sale: Sale, role: Role, upstream: Option<Arc<dyn Upstream>>, live: &Arc<Live>) {
        let network = sale.terms.money.asset().network().clone();
        let Some(rail) = self.0.rails.get(&network).cloned() else {
            return live.publish(Outcome::Unavailable { what: "network" });
        };
        let now = self.0.clock.stamp();
        let request = sale.binding.request;
        let (tenant, exposure) = (sale.tenant.clone(), sale.exposure.clone());
        let key = sale.key.clone();
        let new = NewPayment {
            id: PaymentId::new(now, self.0.world.random10()),
            tenant: sale.tenant,
            key: sale.key,
            role,
            flow: sale.flow,
            terms: sale.terms,
            binding: sale.binding,
        };
        let (payment, entries) = Payment::claim(new, now);
        let claim = Claim { payment: payment.clone(), entries, exposure: sale.exposure, name: sale.name };
        let payment = match self.0.store.claim(claim).await {
            Ok(Claimed::New) => payment,
            Ok(Claimed::OverExposed) => return live.publish(Outcome::OverExposed),
            Ok(Claimed::Named(other)) => {
                return live.publish(Outcome::Conflict { payment: other, kind: ConflictKind::NameTaken });
            }
            Ok(Claimed::Taken(held)) => {
                if held.binding.request != request || held.tenant != tenant || held.role != role {
                    // Out of the way first: whoever it is for may come as soon as this is told.
                    self.0.live.remove(&key, live);
                    live.set_payment(&held);
                    let kind = ConflictKind::OtherRequest;
                    return live.publish(Outcome::Conflict { payment: held, kind });
                }
                match self.resume_held(*held, exposure, live).await {
                    Some(payment) => payment,
                    None => return,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a claim could not be made durable");
                return live.publish(Outcome::Unavailable { what: "store" });
            }
        };
        Driver::new(self.clone(), rail, live.clone(), upstream).run(payment).await;
    }

    /// The same payment for the same request, and nobody in this process is at it: what was it left at?
    ///
    /// Returns the payment if it has to be driven on; publishes the outcome otherwise.
    async fn resume_held(
        &self,
        mut payment: Payment,
        exposure: Option<ExposureLimit>,
        live: &Arc<Live>,
    ) -> Option<Payment> {
        live.set_payment(&payment);
        // A call that nobody in this process awaits was cut off by a crash: how it went is not known.
        if payment.delivery == Delivery::Called {
            let lost = Event::CallLost(crate::reasons::interrupted());
            payment = self.commit_or_publish(&payment, lost, live).await?;
        }
        // Claimed, and left before the upstream was called: the claim is taken up where it was left.
        match (&payment.state, payment.delivery) {
            (State::Refused { reason }, Delivery::Failed) => {
                let interrupted = reason.code() == crate::reasons::INTERRUPTED;
                if payment.binding.repeatable {
                    let request = payment.binding.request;
                    let again = Event::Represented { request };
                    // It exposes its payee anew, as a claim does.
                    return self.commit_within(&payment, again, exposure, live).await;
                }
                let kind = if interrupted { ConflictKind::Interrupted } else { ConflictKind::UsedUp };
                live.publish(Outcome::Conflict { payment: Box::new(payment), kind });
                None
            }
            (State::Settled { .. }, Delivery::Stored | Delivery::Sent) => {
                let fresh = self.0.clock.surely().since(payment.updated) <= self.0.config.replay_ttl;
                match self.0.store.response(payment.id).await {
                    Ok(Some(response)) if fresh => {
                        live.publish(Outcome::Served { payment: Box::new(payment), response });
                    }
                    Ok(_) => {
                        let kind = ConflictKind::UsedUp;
                        live.publish(Outcome::Conflict { payment: Box::new(payment), kind });
                    }
                    Err(_) => live.publish(Outcome::Unavailable { what: "store" }),
                }
                None
            }
            (State::Settled { .. }, _) if payment.next() == Next::CallUpstream => Some(payment),
            (State::Settled { .. }, _) => {
                live.publish(Outcome::Settled { payment: Box::new(payment) });
                None
            }
            (State::Refunding { .. } | State::Refunded { .. }, _) => {
                let kind = ConflictKind::UsedUp;
                live.publish(Outcome::Conflict { payment: Box::new(payment), kind });
                None
            }
            (State::Refused { reason } | State::Failed { reason }, _) => {
                let (reason, tx) = (reason.clone(), None);
                live.publish(Outcome::SettlementFailed { payment: Box::new(payment), reason, tx });
                None
            }
            (
                State::Claimed
                | State::Funded
                | State::Settling { .. }
                | State::Confirming { .. }
                | State::Lapsing { .. }
                | State::Unknown { .. },
                _,
            ) => Some(payment),
        }
    }

    async fn commit_or_publish(&self, payment: &Payment, event: Event, live: &Arc<Live>) -> Option<Payment> {
        self.commit_within(payment, event, None, live).await
    }

    async fn commit_within(
        &self,
        payment: &Payment,
        event: Event,
        exposure: Option<ExposureLimit>,
        live: &Arc<Live>,
    ) -> Option<Payment> {
        match self.commit_exposing(payment, event, exposure).await {
            Ok(next) => {
                live.set_payment(&next);
                Some(next)
            }
            Err(StoreError::OverExposed) => {
                live.publish(Outcome::OverExposed);
                None
            }
            Err(error) => {
                tracing::warn!(payment = %payment.id, %error, "a change could not be made durable");
                live.publish(Outcome::Unavailable { what: "store" });
                None
            }
        }
    }

    /// Commits one event of a payment by itself.
    pub(crate) async fn commit(&self, payment: &Payment, event: Event) -> Result<Payment, StoreError> {
        self.commit_exposing(payment, event, None).await
    }

    async fn commit_exposing(
        &self,
        payment: &Payment,
        event: Event,
        exposure: Option<ExposureLimit>,
    ) -> Result<Payment, StoreError> {
        let name = event.name();
        let step = payment
            .step(event, self.0.clock.stamp())
            .map_err(|error| StoreError::Books(error.to_string()))?;
        let next = step.next.clone();
        let commit = Commit { exposure, ..Commit::new(step, name) };
        self.0.store.commit(commit).await?;
        Ok(next)
    }

    /// The tenant's payments are its own: this is for pages that show one to whoever knows its id.
    pub async fn public_status(
        &self,
        tenant: &TenantId,
        id: PaymentId,
    ) -> Result<Option<Payment>, StoreError> {
        Ok(self.status(id).await?.filter(|payment| payment.tenant == *tenant))
    }
}
