use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use farthing_payment::{Delivery, Event, Next, Payment, Slot, SlotState, State, Witness};
use farthing_primitives::{Network, PaymentId, Timestamp};

use crate::drive::Driver;
use crate::live::{Joined, lock};
use crate::{Commit, Credit, Engine, StoreError, StoredSlot, reasons};

/// How long a refused payment is remembered, from when nothing depends on it any more: so long its buyer, and whoever
/// looks into the books, is told what became of it.
pub const REFUSED_KEPT: Duration = Duration::from_secs(24 * 3600);

/// How many payments are read from the store at a time.
const PAGE: usize = 500;
/// How often settled payments are looked at again, and old answers erased.
const ROUND: Duration = Duration::from_secs(2);

/// How many settled payments a round looks at, and how many every so many rounds.
const GLANCE: usize = 256;
/// As many as the store lists at once.
const LISTED: usize = 1000;
const FULL_EVERY: u64 = 15;
/// How often payments that a person was called for are looked at again.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(600);

/// What a start found of a former process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Payments whose settlement is being watched or made.
    pub driven: u64,
    /// Payments whose claim was given back: nothing had been served or tried.
    pub released: u64,
    /// Payments whose upstream call was cut off: nothing will be charged for it.
    pub cut_off: u64,
}

impl Engine {
    /// Takes up everything that a former process left unfinished. Call once, before the first sale.
    ///
    /// After a crash with a stored answer the payment is settled; before it, it is released unsettled.
    pub async fn recover(&self) -> Result<Recovered, StoreError> {
        for rail in self.0.rails.values() {
            rail.resume().await.map_err(StoreError::Down)?;
        }
        // Before anything is settled anew: from then on the newest settlement is another.
        let newest = self.0.store.settled_since(Timestamp::from_millis(0), None, 1).await?;
        let from_before = newest.first().map(|newest| newest.updated.minus(self.0.config.reorg_horizon));
        *lock(&self.0.watched_since) = from_before;
        let mut found = Recovered::default();
        let mut after = None;
        loop {
            let page = self.0.store.unfinished(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.id);
            for payment in page {
                self.recover_one(payment, &mut found).await?;
            }
        }
    }

    async fn recover_one(&self, mut payment: Payment, found: &mut Recovered) -> Result<(), StoreError> {
        if payment.delivery == Delivery::Called && payment.next() != Next::AwaitUpstream {
            // The block with its payment went away, or the money back, during the call, which nobody awaits any more:
            // else it would be owed, once it is settled again, and nobody could come for it.
            payment = self.commit(&payment, Event::CallLost(reasons::interrupted())).await?;
            found.cut_off += 1;
        }
        match payment.next() {
            Next::CheckFunds => {
                self.commit(&payment, Event::FundsRefused(reasons::interrupted())).await?;
                found.released += 1;
            }
            Next::CallUpstream if matches!(payment.state, State::Funded) => {
                self.commit(&payment, Event::FundsRefused(reasons::interrupted())).await?;
                found.released += 1;
            }
            Next::AwaitUpstream => {
                let payment = self.commit(&payment, Event::CallLost(reasons::interrupted())).await?;
                found.cut_off += 1;
                // What was served on credit may have left: it is charged for, and owed to its buyer in turn.
                if payment.next() == Next::Settle {
                    self.drive(payment);
                }
            }
            Next::Settle if payment.delivery == Delivery::None => {
                // Nothing was served and no attempt was made: whoever wants it will show it again.
                self.commit(&payment, Event::FundsRefused(reasons::interrupted())).await?;
                found.released += 1;
            }
            Next::Settle | Next::Watch | Next::Confirm => {
                self.drive(payment);
                found.driven += 1;
            }
            Next::WatchRefund => {
                self.drive_refund(payment.id);
                found.driven += 1;
            }
            Next::CallUpstream | Next::Rest => {}
        }
        Ok(())
    }

    /// Drives a payment on in a task of its own, with nobody waiting.
    pub(crate) fn drive(&self, payment: Payment) {
        let network = payment.terms.money.asset().network();
        let Some(rail) = self.0.rails.get(network).cloned() else {
            tracing::error!(payment = %payment.id, %network, "no rail is configured for an unfinished payment");
            return;
        };
        let key = payment.key.clone();
        let joined = self.0.live.join(&key, &payment.tenant, payment.binding.request, usize::MAX);
        let engine = self.clone();
        let Joined::Owner(live) = joined else {
            // Whoever has it may be about to leave it, and have seen it as it was.
            return self.look_later(payment);
        };
        self.0.world.spawn(Box::pin(async move {
            Driver::new(engine.clone(), rail, Arc::clone(&live), None).run(payment).await;
            engine.0.live.leave(&key, &live);
        }));
    }

    /// Looks at a payment again a little later, and drives it if there is something to do.
    fn look_later(&self, payment: Payment) {
        let engine = self.clone();
        self.0.world.spawn(Box::pin(async move {
            engine.0.world.sleep(ROUND).await;
            match engine.0.store.payment(payment.id).await {
                Ok(Some(now)) if matches!(now.next(), Next::Settle | Next::Watch | Next::Confirm) => {
                    if let Some(rail) = engine.0.rails.get(now.terms.money.asset().network()) {
                        rail.retake(&now).await;
                    }
                    engine.drive(now);
                }
                Ok(_) => {}
                Err(_) => engine.look_later(payment),
            }
        }));
    }

    /// Watches settled payments for reorganizations and erases answers whose replay time is over. Runs for ever:
    /// spawn it once.
    pub async fn tend(&self) {
        let mut looked_again = self.0.world.monotonic();
        for round in 0u64.. {
            self.0.world.sleep(ROUND).await;
            // The newest settlements tell of a reorganization of the chains that have any; now and then all are read,
            // for the chains that have few.
            let all = round % FULL_EVERY == 0;
            if let Err(error) = self.tend_recent(all).await {
                tracing::warn!(%error, "could not tend the settled payments");
            }
            if all {
                self.tend_rails().await;
            }
            if self.0.world.monotonic().saturating_sub(looked_again) >= LOOK_AGAIN_EVERY {
                looked_again = self.0.world.monotonic();
                if let Err(error) = self.look_again().await {
                    tracing::warn!(%error, "could not look again at what was given up");
                }
            }
        }
    }

    /// One whole round of [`Engine::tend`].
    pub async fn tend_once(&self) -> Result<(), StoreError> {
        self.tend_recent(true).await?;
        self.tend_rails().await;
        self.look_again().await
    }

    async fn tend_rails(&self) {
        for rail in self.0.rails.values() {
            rail.tend().await;
        }
    }

    /// Takes up what a person was called for: a node or a facilitator may tell more by now.
    async fn look_again(&self) -> Result<(), StoreError> {
        let given_up = std::mem::take(&mut *lock(&self.0.given_up));
        for id in &given_up {
            match self.0.store.payment(*id).await {
                Ok(Some(payment)) => self.drive(payment),
                Ok(None) => {}
                Err(error) => {
                    lock(&self.0.given_up).extend(given_up.range(id..));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// From when on settlements are watched.
    ///
    /// What a former process settled is watched for as long as what this one does, however long nothing ran meanwhile
    /// and whatever was done to the clock: so it goes by the newest settlement, until this process has run for long
    /// enough.
    fn watched_since(&self) -> Timestamp {
        let horizon = self.0.config.reorg_horizon;
        let since = self.0.clock.surely().minus(horizon);
        let from_before = lock(&self.0.watched_since).filter(|_| self.0.clock.running() <= horizon);
        from_before.map_or(since, |from_before| since.min(from_before))
    }

    /// `all`: also those that settlements which stand tell nothing of.
    async fn tend_recent(&self, all: bool) -> Result<(), StoreError> {
        let since = self.watched_since();
        let mut chains: HashMap<Network, Vouched> = HashMap::new();
        let mut shallow = Shallow { known: lock(&self.0.shallow).clone(), found: BTreeSet::new() };
        let (mut after, mut most) = (None, if all { LISTED } else { GLANCE });
        loop {
            let page = self.0.store.settled_since(since, after, most).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.updated, last.id));
            let may_be_more = page.len() >= most;
            let mut look_further = all;
            for (network, payments) in by_network(page) {
                if all {
                    self.note_shallow(&network, &payments, &mut shallow).await;
                }
                let chain = chains.entry(network).or_default();
                look_further |= self.check_canonical(payments, chain).await?;
            }
            if !may_be_more || !look_further {
                break;
            }
            most = LISTED;
        }
        if all {
            self.tend_shallow(shallow, &mut chains).await?;
        }
        lock(&self.0.standing).retain(|_, settled| *settled >= since);
        // Nothing is forgotten before this process has run for as long as it is to be remembered: the clock may have
        // been set while nothing ran.
        if self.0.clock.running() > self.0.config.replay_ttl {
            let before = self.0.clock.surely().minus(self.0.config.replay_ttl);
            self.0.store.erase_responses(before).await?;
            self.0.store.forget_refused(self.0.clock.surely().minus(REFUSED_KEPT)).await?;
        }
        Ok(())
    }

    /// Takes down which of these settlements a reorganization may still take away.
    async fn note_shallow(&self, network: &Network, payments: &[Payment], shallow: &mut Shallow) {
        let Some(rail) = self.0.rails.get(network) else { return };
        let unreplaceable = rail.unreplaceable().await;
        for payment in payments {
            shallow.known.remove(&payment.id);
            let State::Settled { proof, .. } = &payment.state else { continue };
            if proof.witness != Witness::Facilitator
                && unreplaceable.is_none_or(|newest| proof.block > newest)
            {
                shallow.found.insert(payment.id);
            }
        }
    }

    /// Time alone ends no watch: where a chain stood still, or its node was away, for as long as settlements are watched,
    /// the last blocks before may still be replaced. They are no more than what settles in so many blocks.
    async fn tend_shallow(
        &self,
        mut shallow: Shallow,
        chains: &mut HashMap<Network, Vouched>,
    ) -> Result<(), StoreError> {
        let mut older = Vec::new();
        for id in &shallow.known {
            older.extend(self.0.store.payment(*id).await?);
        }
        for (network, payments) in by_network(older) {
            self.note_shallow(&network, &payments, &mut shallow).await;
            self.check_canonical(payments, chains.entry(network).or_default()).await?;
        }
        *lock(&self.0.shallow) = shallow.found;
        Ok(())
    }

    /// A reorganization replaces a suffix of the chain: if a block that was seen before is still there, so are the
    /// older ones that were seen beside it. A block that is new says nothing of those: it may be in the very chain
    /// that replaced them.
    ///
    /// Returns whether older settlements may be lost as well: something was lost, or all that stand are in blocks that
    /// were not seen before.
    async fn check_canonical(
        &self,
        mut payments: Vec<Payment>,
        chain: &mut Vouched,
    ) -> Result<bool, StoreError> {
        payments.sort_by_key(|payment| std::cmp::Reverse(block_of(payment)));
        let (mut lost, mut last) = (false, None);
        for payment in payments {
            let State::Settled { proof, .. } = &payment.state else { continue };
            // Where a facilitator's word is all there is, there is no block to look at.
            if proof.witness == Witness::Facilitator {
                continue;
            }
            // It could not be told of a newer one: nothing older is taken as seen either.
            if chain.silent {
                return Ok(false);
            }
            let network = payment.terms.money.asset().network();
            let Some(rail) = self.0.rails.get(network) else { continue };
            let block = (proof.block, proof.block_hash);
            let seen = lock(&self.0.standing).contains_key(&block);
            let vouched = seen && chain.by.is_some_and(|by| proof.block <= by);
            if last == Some(block) || vouched {
                self.stands(block, &payment);
                continue;
            }
            match rail.still_included(proof).await {
                None => {
                    chain.silent = true;
                    return Ok(lost);
                }
                Some(true) => {
                    if seen {
                        chain.by = chain.by.max(Some(proof.block));
                    }
                    last = Some(block);
                    self.stands(block, &payment);
                }
                Some(false) if cfg!(mutant = "reorg") => {}
                Some(false) => {
                    lock(&self.0.standing).remove(&block);
                    tracing::error!(payment = %payment.id, tx = %proof.tx, "a settled payment was reorganized away");
                    match self.unsettle(&payment).await {
                        Ok(next) => {
                            lost = true;
                            rail.retake(&next).await;
                            self.drive(next);
                        }
                        // Somebody moved it, or its books do not take it: the others are lost all the same.
                        Err(error @ (StoreError::Conflict | StoreError::Books(_))) => {
                            tracing::error!(payment = %payment.id, %error, "could not take back a lost settlement");
                        }
                        Err(error) => {
                            // It may be durable, and then no round sees it any more.
                            self.look_later(payment);
                            return Err(error);
                        }
                    }
                }
            }
        }
        Ok(lost || chain.by.is_none() && last.is_some())
    }

    fn stands(&self, block: (u64, [u8; 32]), payment: &Payment) {
        let mut standing = lock(&self.0.standing);
        let settled = standing.entry(block).or_insert(payment.updated);
        *settled = (*settled).max(payment.updated);
    }

    /// The block is gone: the books take back what they said, and the log that paid is free.
    ///
    /// A payment that was just settled may still be recorded as sent: the newer version of it is as lost.
    async fn unsettle(&self, payment: &Payment) -> Result<Payment, StoreError> {
        match self.unsettle_as_read(payment).await {
            Err(StoreError::Conflict) => match self.0.store.payment(payment.id).await? {
                Some(current) if current.state == payment.state => self.unsettle_as_read(&current).await,
                _ => Err(StoreError::Conflict),
            },
            done => done,
        }
    }

    async fn unsettle_as_read(&self, payment: &Payment) -> Result<Payment, StoreError> {
        let step = payment
            .step(Event::Reorged, self.0.clock.stamp())
            .map_err(|error| StoreError::Books(error.to_string()))?;
        let next = step.next.clone();
        let mut commit = Commit::new(step, "reorged");
        commit.credit = Some(Credit::Free);
        commit.slots = self.reopened(payment).await?;
        self.0.store.commit(commit).await?;
        Ok(next)
    }

    /// The slots that were done with are so no more: whatever their transactions do now costs as well.
    async fn reopened(&self, payment: &Payment) -> Result<Vec<(Option<u64>, Slot)>, StoreError> {
        let slots = self.0.store.slots_of(payment.id).await?;
        let done = slots.into_iter().filter(|stored| matches!(stored.slot.state, SlotState::Final { .. }));
        let updated = self.0.clock.stamp();
        let open = |stored: StoredSlot| {
            (Some(stored.version), Slot { state: SlotState::Open, updated, ..stored.slot })
        };
        Ok(done.map(open).collect())
    }
}

/// What one round knows of one chain.
#[derive(Default)]
struct Vouched {
    /// The newest block that was seen before, and still stands.
    by: Option<u64>,
    /// It does not answer.
    silent: bool,
}

/// Settlements whose blocks may still be replaced.
struct Shallow {
    /// By the last round, and not seen in this one yet.
    known: BTreeSet<PaymentId>,
    found: BTreeSet<PaymentId>,
}

fn place_of(payment: &Payment) -> Option<(u64, [u8; 32])> {
    match &payment.state {
        State::Settled { proof, .. } => Some((proof.block, proof.block_hash)),
        _ => None,
    }
}

fn block_of(payment: &Payment) -> u64 {
    place_of(payment).map_or(0, |(block, _)| block)
}

fn by_network(payments: Vec<Payment>) -> BTreeMap<Network, Vec<Payment>> {
    let mut groups: BTreeMap<Network, Vec<Payment>> = BTreeMap::new();
    for payment in payments {
        groups.entry(payment.terms.money.asset().network().clone()).or_default().push(payment);
    }
    groups
}
