use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use farthing_payment::{Delivery, Event, Next, Payment, State, Witness};

use crate::drive::Driver;
use crate::live::{Joined, lock};
use crate::{Commit, Credit, Engine, StoreError, reasons};

/// How many payments are read from the store at a time.
const PAGE: usize = 500;
/// How often settled payments are looked at again, and old answers erased.
const ROUND: Duration = Duration::from_secs(2);

/// How many settled payments a round looks at, and how many every so many rounds.
const GLANCE: usize = 256;
const MOST_RECENT: usize = 10_000;
const FULL_EVERY: u64 = 15;

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

    async fn recover_one(&self, payment: Payment, found: &mut Recovered) -> Result<(), StoreError> {
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
                self.commit(&payment, Event::CallLost(reasons::interrupted())).await?;
                found.cut_off += 1;
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
                self.drive_refund(payment);
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
        let Joined::Owner(live) = joined else { return };
        let engine = self.clone();
        self.0.world.spawn(Box::pin(async move {
            Driver::new(engine.clone(), rail, Arc::clone(&live), None).run(payment).await;
            engine.0.live.leave(&key, &live);
        }));
    }

    /// Watches settled payments for reorganizations and erases answers whose replay time is over. Runs for ever:
    /// spawn it once.
    pub async fn tend(&self) {
        for round in 0u64.. {
            self.0.world.sleep(ROUND).await;
            // The newest settlements tell of a reorganization of the chains that have any; now and then all are read,
            // for the chains that have few.
            let most = if round % FULL_EVERY == 0 { MOST_RECENT } else { GLANCE };
            if let Err(error) = self.tend_recent(most).await {
                tracing::warn!(%error, "could not tend the settled payments");
            }
        }
    }

    /// One whole round of [`Engine::tend`].
    pub async fn tend_once(&self) -> Result<(), StoreError> {
        self.tend_recent(MOST_RECENT).await
    }

    async fn tend_recent(&self, most: usize) -> Result<(), StoreError> {
        let now = self.0.world.now();
        let recent = self.0.store.settled_since(now.minus(self.0.config.reorg_horizon), most).await?;
        if most == MOST_RECENT {
            // All that are still watched are among these.
            let watched: HashSet<_> = recent.iter().filter_map(place_of).collect();
            lock(&self.0.standing).retain(|block| watched.contains(block));
        }
        for rail_payments in by_network(recent) {
            self.check_canonical(rail_payments).await?;
        }
        self.0.store.erase_responses(now.minus(self.0.config.replay_ttl)).await?;
        Ok(())
    }

    /// A reorganization replaces a suffix of the chain: if the newest settlement's block is still there, so are
    /// those that were seen beside it before. One that was not may have been in a block that a newer settlement's
    /// chain replaced, and is looked at by itself.
    async fn check_canonical(&self, mut payments: Vec<Payment>) -> Result<(), StoreError> {
        payments.sort_by_key(|payment| std::cmp::Reverse(block_of(payment)));
        let mut newest_stands = false;
        let mut last = None;
        for payment in payments {
            let State::Settled { proof, .. } = &payment.state else { continue };
            // Where a facilitator's word is all there is, there is no block to look at.
            if proof.witness == Witness::Facilitator {
                continue;
            }
            let network = payment.terms.money.asset().network();
            let Some(rail) = self.0.rails.get(network) else { continue };
            let block = (proof.block, proof.block_hash);
            if last == Some(block) || newest_stands && lock(&self.0.standing).contains(&block) {
                continue;
            }
            match rail.still_included(proof).await {
                // It cannot be told: nothing older is taken as seen either.
                None => return Ok(()),
                Some(true) => {
                    newest_stands = true;
                    last = Some(block);
                    lock(&self.0.standing).insert(block);
                }
                Some(false) => {
                    lock(&self.0.standing).remove(&block);
                    tracing::error!(payment = %payment.id, tx = %proof.tx, "a settled payment was reorganized away");
                    let now = self.0.world.now();
                    let step = payment
                        .step(Event::Reorged, now)
                        .map_err(|error| StoreError::Books(error.to_string()))?;
                    let next = step.next.clone();
                    let mut commit = Commit::new(step, "reorged");
                    commit.credit = Some(Credit::Free);
                    self.0.store.commit(commit).await?;
                    self.drive(next);
                }
            }
        }
        Ok(())
    }
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

fn by_network(payments: Vec<Payment>) -> Vec<Vec<Payment>> {
    let mut groups: std::collections::BTreeMap<String, Vec<Payment>> = std::collections::BTreeMap::new();
    for payment in payments {
        groups.entry(payment.terms.money.asset().network().to_string()).or_default().push(payment);
    }
    groups.into_values().collect()
}
