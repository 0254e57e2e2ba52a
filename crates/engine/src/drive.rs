use std::sync::{Arc, Mutex};
use std::time::Duration;

use farthing_payment::{Delivery, Event, Flow, Next, Payment, Proof, Reason, Role, State, Step};
use farthing_primitives::{AttemptId, Timestamp};
use futures_channel::oneshot;
use futures_util::future::{Either, select};

use crate::live::{Live, Outcome, lock};
use crate::rail::{Funds, NotPrepared, Prepared, Progress, Rail};
use crate::{Commit, Credit, Engine, Permit, StoreError, StoredResponse, Upstream, UpstreamAnswer, reasons};

/// How often a rail or a store that cannot be asked is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long one look at an attempt may wait for news before the clock is looked at.
const LOOK_FOR: Duration = Duration::from_secs(2);
/// How long a permit may lie before its buyer counts as gone.
const PERMIT_WITHIN: Duration = Duration::from_secs(5);
/// How long past its end an authorization is watched where nobody can prove that it is dead.
const WATCH_PAST_END: Duration = Duration::from_secs(3600);
/// How seldom, in the end, what was served on credit is tried again.
const CHASE_SELDOM: Duration = Duration::from_secs(30);
/// How often a claimed payment asks a rail that does not answer, before its claim is given back.
const FUNDS_TRIES: u32 = 3;

/// Drives one payment, from wherever it is to wherever it rests.
pub(crate) struct Driver {
    engine: Engine,
    rail: Arc<dyn Rail>,
    live: Arc<Live>,
    /// Absent for a facilitator's payments, and after a restart: nobody waits for the goods then.
    upstream: Option<Arc<dyn Upstream>>,
    /// How the call of the upstream went, until that is durable: the store may refuse it a few times.
    learned: Mutex<Option<Learned>>,
    /// The attempt that is watched, and since when by the clock that never goes back.
    watched: Mutex<Option<(AttemptId, Duration)>>,
}

/// What only this task knows of a call.
#[derive(Clone)]
enum Learned {
    Answer(UpstreamAnswer),
    /// How the delivery ended.
    Delivery(Event),
}

/// What the loop does after a turn.
enum Turn {
    /// Go on with this payment.
    On(Box<Payment>),
    /// It rests; the outcome has been published.
    Rest,
}

impl Driver {
    pub fn new(
        engine: Engine,
        rail: Arc<dyn Rail>,
        live: Arc<Live>,
        upstream: Option<Arc<dyn Upstream>>,
    ) -> Self {
        Self { engine, rail, live, upstream, learned: Mutex::default(), watched: Mutex::default() }
    }

    pub async fn run(self, mut payment: Payment) {
        loop {
            self.live.set_payment(&payment);
            let (id, version) = (payment.id, payment.version);
            let left = payment.clone();
            let turn = match payment.next() {
                Next::CheckFunds => self.check_funds(payment).await,
                Next::CallUpstream => self.call_upstream(payment).await,
                Next::Settle => self.settle(payment, None).await,
                Next::Watch | Next::Confirm => self.watch(payment).await,
                // The call is over, and the store has not taken in how it went.
                Next::AwaitUpstream if lock(&self.learned).is_some() => self.take_in_call(payment).await,
                // Its money is on its way back, or is back: how the call ended is no less true.
                Next::WatchRefund | Next::Rest
                    if payment.delivery == Delivery::Called && lock(&self.learned).is_some() =>
                {
                    self.take_in_call(payment).await
                }
                // Only another task of this process awaits an upstream, and a live payment has one task. Refunds
                // have a driver of their own.
                Next::AwaitUpstream | Next::WatchRefund | Next::Rest => return self.rest(payment).await,
            };
            match turn {
                Ok(Turn::On(next)) => payment = *next,
                // Whoever takes it up again asks anew for what the rail knows of it.
                Ok(Turn::Rest) => return self.rail.release(&left),
                Err(error) => match self.reload(id, &error).await {
                    Some(current) => {
                        // Somebody moved the payment or its slot, and the rail may hold the slot as it was.
                        if matches!(error, StoreError::Conflict) {
                            self.rail.retake(&current).await;
                        }
                        // Nobody else moved it, so what was tried would be tried again at once.
                        if current.version == version {
                            self.sleep(RETRY_AFTER).await;
                        }
                        payment = current;
                    }
                    None => return,
                },
            }
        }
    }

    /// After a change that was not, or may not have been made: the store says what is true.
    async fn reload(&self, id: farthing_primitives::PaymentId, error: &StoreError) -> Option<Payment> {
        tracing::warn!(payment = %id, %error, "a change could not be made durable; reading back");
        loop {
            match self.engine.0.store.payment(id).await {
                Ok(Some(payment)) => return Some(payment),
                Ok(None) => return None,
                Err(error) => {
                    // Fail closed: whoever waits is told to ask again, and the truth is read once there is one.
                    tracing::error!(payment = %id, %error, "the store cannot be read");
                    self.live.publish(Outcome::Unavailable { what: "store" });
                    self.sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn check_funds(&self, payment: Payment) -> Result<Turn, StoreError> {
        for attempt in 1..=FUNDS_TRIES {
            match self.rail.funds(&payment).await {
                Funds::Confirmed => {
                    let step = self.step(&payment, Event::FundsConfirmed)?;
                    return self.funded(step).await;
                }
                Funds::Refused(reason) => {
                    self.live.publish(Outcome::Refused { reason: reason.clone() });
                    let payment = self.engine.commit(&payment, Event::FundsRefused(reason)).await?;
                    return Ok(Turn::On(Box::new(payment)));
                }
                Funds::Unavailable(what) => {
                    tracing::warn!(payment = %payment.id, what, attempt, "the rail cannot be asked");
                    if attempt == FUNDS_TRIES {
                        // Nothing was served and nothing tried: the claim is given back.
                        let reason = Reason::new(what, farthing_payment::Fault::Chain);
                        self.engine.commit(&payment, Event::FundsRefused(reason)).await?;
                        self.live.publish(Outcome::Unavailable { what });
                        return Ok(Turn::Rest);
                    }
                    self.sleep(RETRY_AFTER).await;
                }
            }
        }
        Ok(Turn::Rest)
    }

    /// The funds are there. Saves a sync by making that durable along with whatever comes next.
    async fn funded(&self, step: Step) -> Result<Turn, StoreError> {
        match step.next.next() {
            Next::Settle => {
                let payment = step.next.clone();
                self.settle(payment, Some(step)).await
            }
            Next::CallUpstream if self.may_call(&step.next) => {
                let step = self.and(step, Event::CallStarted)?;
                let payment = step.next.clone();
                self.engine.0.store.commit(Commit::new(step, "call_started")).await?;
                self.live.set_payment(&payment);
                self.serve(payment).await
            }
            _ => {
                let payment = step.next.clone();
                self.engine.0.store.commit(Commit::new(step, "funds_confirmed")).await?;
                Ok(Turn::On(Box::new(payment)))
            }
        }
    }

    async fn call_upstream(&self, payment: Payment) -> Result<Turn, StoreError> {
        if !self.may_call(&payment) {
            if payment.delivery == Delivery::None && matches!(payment.state, State::Funded) {
                // Nothing was served and nobody is there any more: the claim is given back.
                let refused = Event::FundsRefused(reasons::interrupted());
                self.live.publish(Outcome::Unavailable { what: reasons::INTERRUPTED });
                self.engine.commit(&payment, refused).await?;
            }
            // A settled one is an entitlement, until its buyer comes back.
            return Ok(Turn::Rest);
        }
        let payment = self.engine.commit(&payment, Event::CallStarted).await?;
        self.live.set_payment(&payment);
        self.serve(payment).await
    }

    /// Whether there is an upstream, and somebody who would take what it streams.
    fn may_call(&self, payment: &Payment) -> bool {
        self.upstream.is_some() && (payment.flow == Flow::Authorization || self.live.is_awaited())
    }

    /// The call is durable: makes it.
    async fn serve(&self, payment: Payment) -> Result<Turn, StoreError> {
        *lock(&self.learned) = None;
        match payment.flow {
            Flow::Authorization => self.serve_whole(payment).await,
            Flow::Upfront | Flow::Background => self.serve_stream(payment).await,
        }
    }

    async fn serve_whole(&self, payment: Payment) -> Result<Turn, StoreError> {
        let Some(upstream) = &self.upstream else { return Ok(Turn::Rest) };
        let answer = upstream.call(&payment).await;
        *lock(&self.learned) = Some(Learned::Answer(answer));
        self.take_in_call(payment).await
    }

    /// Makes durable how the call went. What was learned is kept for another try.
    async fn take_in_call(&self, payment: Payment) -> Result<Turn, StoreError> {
        let learned = lock(&self.learned).clone();
        match learned {
            Some(Learned::Answer(UpstreamAnswer::Complete(response))) => {
                self.settle_stored(payment, response).await
            }
            Some(Learned::Answer(UpstreamAnswer::Failed { reason, response })) => {
                let payment = self.engine.commit(&payment, Event::CallFailed(reason.clone())).await?;
                self.live.publish(Outcome::NotCharged { payment: Box::new(payment), reason, response });
                Ok(Turn::Rest)
            }
            Some(Learned::Delivery(event)) => {
                let payment = self.engine.commit(&payment, event).await?;
                // Paid and not delivered: it is owed to its buyer, who has to come for it. Calling again with nobody
                // there would go on for ever.
                let owed = payment.next() == Next::CallUpstream;
                Ok(if owed { Turn::Rest } else { Turn::On(Box::new(payment)) })
            }
            None => Ok(Turn::Rest),
        }
    }

    async fn serve_stream(&self, payment: Payment) -> Result<Turn, StoreError> {
        let (tell, told) = oneshot::channel();
        // If nobody listens any more, the delivery was given up already.
        self.live.put_permit(Permit::new(move |result| drop(tell.send(result))));
        self.live.publish(Outcome::Deliver { payment: Box::new(payment.clone()) });
        let told = match select(told, self.sleep(PERMIT_WITHIN)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), told)) => {
                // A buyer that is gone never took its permit; taking it back reports the failure.
                let taken = self.live.take_permit().is_none();
                match select(told, self.sleep(self.engine.0.config.delivery_within)).await {
                    Either::Left((result, _)) => result,
                    // Who streams for so long without an end has had what there was; it is owed one only if it paid.
                    Either::Right(_) if taken && payment.flow == Flow::Background => Ok(Ok(())),
                    Either::Right(_) => Ok(Err(reasons::interrupted())),
                }
            }
        };
        let event = match told {
            Ok(Ok(())) => Event::Sent,
            Ok(Err(reason)) => Event::CallFailed(reason),
            Err(_) => Event::CallLost(reasons::interrupted()),
        };
        *lock(&self.learned) = Some(Learned::Delivery(event));
        self.take_in_call(payment).await
    }

    /// The upstream's answer and the attempt become durable in one commit, if the rail is ready at once.
    async fn settle_stored(&self, payment: Payment, response: StoredResponse) -> Result<Turn, StoreError> {
        let step = self.step(&payment, Event::CallStored)?;
        let stored = step.next.clone();
        match self.rail.prepare(&stored).await {
            Ok(prepared) => {
                let started = Event::AttemptStarted { attempt: prepared.attempt, tx: prepared.tx.clone() };
                let name = started.name();
                let step = self.and(step, started)?;
                self.submit(name, step, prepared, Some(response)).await
            }
            Err(NotPrepared::Refused(reason)) => self.refuse(step, reason).await,
            Err(NotPrepared::Unavailable(what)) => {
                tracing::warn!(payment = %stored.id, what, "no attempt can be prepared yet");
                let mut commit = Commit::new(step, "call_stored");
                commit.response = Some(response);
                self.engine.0.store.commit(commit).await?;
                self.sleep(RETRY_AFTER).await;
                Ok(Turn::On(Box::new(stored)))
            }
        }
    }

    /// Starts an attempt. `pending` is a step that is not durable yet, and becomes so along with it.
    async fn settle(&self, payment: Payment, pending: Option<Step>) -> Result<Turn, StoreError> {
        match self.rail.prepare(&payment).await {
            Ok(prepared) => {
                let started = Event::AttemptStarted { attempt: prepared.attempt, tx: prepared.tx.clone() };
                let name = started.name();
                let step = match pending {
                    Some(step) => self.and(step, started)?,
                    None => self.step(&payment, started)?,
                };
                self.submit(name, step, prepared, None).await
            }
            Err(NotPrepared::Refused(reason)) if !payment.is_on_credit() => {
                let step = match pending {
                    Some(step) => self.and(step, Event::FundsRefused(reason.clone()))?,
                    None => self.step(&payment, Event::FundsRefused(reason.clone()))?,
                };
                self.engine.0.store.commit(Commit::new(step, "funds_refused")).await?;
                self.live.publish(Outcome::Refused { reason });
                Ok(Turn::Rest)
            }
            Err(why) => {
                // Served on credit, or not able to try now: again later, until the authorization is dead.
                tracing::warn!(payment = %payment.id, ?why, "no attempt can be prepared yet");
                if let Some(step) = pending {
                    self.engine.0.store.commit(Commit::new(step, "funds_confirmed")).await?;
                }
                if payment.is_on_credit() {
                    return self.chase(payment).await;
                }
                if payment.terms.expires <= self.engine.0.clock.stamp() {
                    return self.give_up(payment).await;
                }
                self.sleep(RETRY_AFTER).await;
                Ok(Turn::On(Box::new(payment)))
            }
        }
    }

    /// Nothing was served, and no attempt of ours was made or will be: by our clock there is no time left for one.
    async fn give_up(&self, payment: Payment) -> Result<Turn, StoreError> {
        let reason = reasons::expired();
        self.engine.commit(&payment, Event::FundsRefused(reason.clone())).await?;
        self.live.publish(Outcome::Refused { reason });
        Ok(Turn::Rest)
    }

    /// Served on credit, and no attempt can be made now. Perhaps somebody else has submitted the authorization; and a
    /// loss is posted only with proof that nobody can any more: our clock, which may be wrong, is none.
    async fn chase(&self, payment: Payment) -> Result<Turn, StoreError> {
        match self.rail.progress(&payment, Duration::ZERO).await {
            Progress::Included { proof, deep, slots } => {
                let attempt = AttemptId::new(self.engine.0.clock.stamp(), self.engine.0.world.random10());
                let started = Event::AttemptStarted { attempt, tx: Some(proof.tx.clone()) };
                let credit = credit_of(&payment, &proof);
                let event = Event::Included { proof, deep };
                let name = event.name();
                let step = self.and(self.step(&payment, started)?, event)?;
                let next = step.next.clone();
                let mut commit = Commit::new(step, name);
                commit.slots = slots;
                commit.credit = Some(credit);
                self.engine.0.store.commit(commit).await?;
                Ok(Turn::On(Box::new(next)))
            }
            Progress::Dead(reason) => self.dead(payment, reason).await,
            _ => {
                // The longer it goes on, the less another try will change.
                let age = self.engine.0.clock.stamp().since(payment.updated);
                self.sleep((age / 8).clamp(RETRY_AFTER, CHASE_SELDOM)).await;
                Ok(Turn::On(Box::new(payment)))
            }
        }
    }

    /// There is proof that no money moved and none will.
    async fn dead(&self, payment: Payment, reason: Reason) -> Result<Turn, StoreError> {
        let payment = self.engine.commit(&payment, Event::Dead(reason)).await?;
        if payment.is_on_credit() {
            tracing::error!(payment = %payment.id, amount = ?payment.terms.money, "served and never paid: a loss");
        }
        Ok(Turn::On(Box::new(payment)))
    }

    async fn refuse(&self, stored: Step, reason: Reason) -> Result<Turn, StoreError> {
        let step = self.and(stored, Event::FundsRefused(reason.clone()))?;
        self.engine.0.store.commit(Commit::new(step, "funds_refused")).await?;
        self.live.publish(Outcome::Refused { reason });
        Ok(Turn::Rest)
    }

    /// Makes the attempt durable, and then visible.
    async fn submit(
        &self,
        event: &'static str,
        step: Step,
        prepared: Prepared,
        response: Option<StoredResponse>,
    ) -> Result<Turn, StoreError> {
        let payment = step.next.clone();
        if cfg!(mutant = "broadcast") {
            self.rail.submit(&payment, prepared.clone()).await;
        }
        let mut commit = Commit::new(step, event);
        commit.slots.clone_from(&prepared.slots);
        commit.response = response;
        match self.engine.0.store.commit(commit).await {
            Ok(()) => {}
            // It may be durable: the slot is kept, and reading back tells whether to watch it.
            Err(error @ StoreError::Unknown(_)) => return Err(error),
            Err(error) => {
                self.rail.abandon(prepared);
                return Err(error);
            }
        }
        self.live.set_payment(&payment);
        let progress = self.rail.submit(&payment, prepared).await;
        self.take_in(payment, progress).await
    }

    async fn watch(&self, payment: Payment) -> Result<Turn, StoreError> {
        let looked = self.engine.0.world.monotonic();
        let progress = self.rail.progress(&payment, LOOK_FOR).await;
        let now = self.engine.0.clock.surely();
        if is_no_news(&payment, &progress) {
            if now > payment.terms.expires.plus(WATCH_PAST_END) {
                // It stays what it is, never failed, and is looked at again now and then.
                lock(&self.engine.0.given_up).insert(payment.id);
                tracing::error!(payment = %payment.id, state = payment.state.name(), "a person must look at this payment");
                return Ok(Turn::Rest);
            }
            // A look that came back at once found something out of order: not again at once, or one payment that its
            // payer meddled with would keep us and our node busy for ever.
            let took = self.engine.0.world.monotonic().saturating_sub(looked);
            self.sleep(RETRY_AFTER.saturating_sub(took)).await;
        }
        self.take_in(payment, progress).await
    }

    /// Turns what the rail found into an event.
    async fn take_in(&self, payment: Payment, progress: Progress) -> Result<Turn, StoreError> {
        let on = |payment| Ok(Turn::On(Box::new(payment)));
        match progress {
            Progress::Open => match &payment.state {
                State::Settling { attempt, since, tx } if self.is_overdue(*attempt, *since) => {
                    let event = match cfg!(mutant = "unknown") {
                        true => Event::Dead(reasons::expired()),
                        false => Event::Unclear { tx: tx.clone() },
                    };
                    on(self.engine.commit(&payment, event).await?)
                }
                State::Unknown { .. } => {
                    self.live.goes_on_alone();
                    on(payment)
                }
                _ => on(payment),
            },
            Progress::Included { proof, deep, slots } => {
                if !deep
                    && matches!(&payment.state, State::Confirming { proof: known, .. } if *known == proof)
                {
                    return on(payment);
                }
                let credit = credit_of(&payment, &proof);
                let event = Event::Included { proof, deep };
                let name = event.name();
                let step = self.step(&payment, event)?;
                let next = step.next.clone();
                let mut commit = Commit::new(step, name);
                commit.slots = slots;
                commit.credit = Some(credit);
                match self.engine.0.store.commit(commit).await {
                    Ok(()) => on(next),
                    // The one transfer that we saw paid for something else: this payment was not paid by it.
                    Err(StoreError::AlreadyCredited)
                        if matches!(&payment.state, State::Settling { .. } | State::Unknown { .. }) =>
                    {
                        let reason = reasons::already_credited();
                        let tx = payment.tx().cloned();
                        on(self.engine.commit(&payment, Event::Reverted { reason, tx }).await?)
                    }
                    Err(error) => Err(error),
                }
            }
            Progress::Reverted { reason, tx } => match &payment.state {
                State::Lapsing { .. } => on(payment),
                _ => on(self.engine.commit(&payment, Event::Reverted { reason, tx }).await?),
            },
            Progress::Unclear { tx } => match &payment.state {
                State::Settling { .. } => on(self.engine.commit(&payment, Event::Unclear { tx }).await?),
                _ => on(payment),
            },
            Progress::Lost => match &payment.state {
                State::Settling { attempt, .. } | State::Unknown { attempt, .. } => {
                    let dropped = *attempt;
                    self.replace(payment, dropped).await
                }
                _ => on(payment),
            },
            Progress::Dead(reason) => self.dead(payment, reason).await,
            Progress::Reorged => {
                let step = self.step(&payment, Event::Reorged)?;
                let next = step.next.clone();
                let mut commit = Commit::new(step, "reorged");
                commit.credit = Some(Credit::Free);
                self.engine.0.store.commit(commit).await?;
                on(next)
            }
        }
        .inspect(|turn| self.tell_lapsing(turn))
    }

    /// An attempt can never move money: another takes its place, or none if none would.
    async fn replace(&self, payment: Payment, dropped: AttemptId) -> Result<Turn, StoreError> {
        match self.rail.prepare(&payment).await {
            Ok(prepared) => {
                let (attempt, tx) = (prepared.attempt, prepared.tx.clone());
                let replaced = Event::AttemptReplaced { dropped, attempt, tx };
                let name = replaced.name();
                let step = self.step(&payment, replaced)?;
                // Boxed, as what comes of it may be lost again.
                Box::pin(self.submit(name, step, prepared, None)).await
            }
            Err(NotPrepared::Refused(_)) => {
                let event = Event::AttemptDropped { attempt: dropped };
                Ok(Turn::On(Box::new(self.engine.commit(&payment, event).await?)))
            }
            Err(NotPrepared::Unavailable(what)) => {
                tracing::warn!(payment = %payment.id, what, "a lost attempt cannot be replaced yet");
                self.sleep(RETRY_AFTER).await;
                Ok(Turn::On(Box::new(payment)))
            }
        }
    }

    /// Whoever waits for an attempt that came to nothing is told so; the watch goes on without them.
    fn tell_lapsing(&self, turn: &Turn) {
        let Turn::On(payment) = turn else { return };
        if let State::Lapsing { reason, tx, .. } = &payment.state {
            self.live.publish(Outcome::SettlementFailed {
                payment: payment.clone(),
                reason: reason.clone(),
                tx: tx.clone(),
            });
        }
    }

    /// Says what became of a payment that rests.
    async fn rest(&self, payment: Payment) {
        self.rail.release(&payment);
        let boxed = Box::new(payment.clone());
        match (&payment.state, payment.delivery) {
            (State::Settled { .. }, Delivery::Stored | Delivery::Sent)
                if payment.flow == Flow::Authorization =>
            {
                match self.engine.0.store.response(payment.id).await {
                    Ok(Some(response)) => {
                        self.live.publish(Outcome::Served { payment: boxed, response });
                    }
                    Ok(None) | Err(_) => self.live.publish(Outcome::Unavailable { what: "store" }),
                }
            }
            (State::Settled { .. }, _) => self.live.publish(Outcome::Settled { payment: boxed }),
            (State::Failed { reason } | State::Lapsing { reason, .. }, _) => {
                let (reason, tx) = (reason.clone(), payment.tx().cloned());
                self.live.publish(Outcome::SettlementFailed { payment: boxed, reason, tx });
            }
            (State::Refused { reason }, _) => self.live.publish(Outcome::Refused { reason: reason.clone() }),
            _ => {}
        }
        if matches!(payment.state, State::Settled { .. }) && payment.role == Role::Seller {
            tracing::info!(payment = %payment.id, amount = ?payment.terms.money, "settled");
        }
    }

    /// Whether an attempt has been without news for too long: by its record, or by this driver's own watch, since the
    /// record may be of a clock that was ahead.
    fn is_overdue(&self, attempt: AttemptId, since: Timestamp) -> bool {
        let now = self.engine.0.world.monotonic();
        let mut watched = lock(&self.watched);
        let from = match *watched {
            Some((known, from)) if known == attempt => from,
            _ => {
                *watched = Some((attempt, now));
                now
            }
        };
        let limit = self.engine.0.config.unclear_after;
        now.saturating_sub(from) >= limit || self.engine.0.clock.stamp().since(since) >= limit
    }

    fn step(&self, payment: &Payment, event: Event) -> Result<Step, StoreError> {
        payment.step(event, self.engine.0.clock.stamp()).map_err(|error| StoreError::Books(error.to_string()))
    }

    fn and(&self, step: Step, event: Event) -> Result<Step, StoreError> {
        step.and(event, self.engine.0.clock.stamp()).map_err(|error| StoreError::Books(error.to_string()))
    }

    fn sleep(&self, duration: Duration) -> crate::BoxFuture<'static, ()> {
        self.engine.0.world.sleep(duration)
    }
}

/// The log that paid, which pays for nothing else.
fn credit_of(payment: &Payment, proof: &Proof) -> Credit {
    Credit::Take {
        network: payment.terms.money.asset().network().clone(),
        tx: proof.tx.as_str().to_owned(),
        log_index: proof.log_index,
    }
}

/// Whether a look at an attempt leaves the payment as it is.
fn is_no_news(payment: &Payment, progress: &Progress) -> bool {
    match (progress, &payment.state) {
        (Progress::Open, _) | (Progress::Reverted { .. }, State::Lapsing { .. }) => true,
        (Progress::Unclear { .. }, state) => !matches!(state, State::Settling { .. }),
        (Progress::Lost, state) => !matches!(state, State::Settling { .. } | State::Unknown { .. }),
        _ => false,
    }
}
