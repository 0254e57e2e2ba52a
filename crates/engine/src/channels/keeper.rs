//! The till's own task: it does for each channel what the channel's state asks for.

use std::sync::Weak;
use std::time::Duration;

use farthing_channel::{Payee, PayeeAction, PayeeEvent, PayeeNext, Refusal, Taking};
use farthing_ledger::{Entry, TransferId};
use farthing_payment::{Fault, Reason, Slot, SlotState, TxRef};
use farthing_primitives::AttemptId;
use futures_channel::mpsc;
use futures_util::StreamExt;
use futures_util::future::{join_all, select};

use super::desk::{Desk, Sight};
use super::store::is_at_work;
use super::till::{Change, Inner, Outcome, Place, Till, TillError};
use crate::live::lock;
use crate::relayer::SlotNews;
use crate::{Receipt, StoredSlot};

/// The longest that the keeper sleeps, so that a clock that leaps costs no more than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long a failing chain or store is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest between two tries of a transaction that the escrow refuses, in powers of two of [`RETRY_AFTER`].
const MOST_DOUBLINGS: u32 = 6;
/// How often expired answers are erased.
const ERASE_EVERY: Duration = Duration::from_secs(60);
/// Of a transaction that the escrow did not execute.
const REVERTED: &str = "transaction_reverted";
/// Of a transaction whose nonce somebody else's used.
const LOST: &str = "transaction_lost";

/// Keeps the channels until the last of the till's owners is gone.
pub(super) async fn keep(till: Weak<Inner>, mut pokes: mpsc::Receiver<()>) {
    loop {
        let Some(inner) = till.upgrade() else { return };
        let till = Till(inner);
        till.erase_old().await;
        let due = till.take_due();
        if due.is_empty() {
            let (world, wait) = (till.0.world.clone(), till.until_due());
            drop(till);
            select(world.sleep(wait), pokes.next()).await;
            continue;
        }
        join_all(due.into_iter().map(|id| till.attend(id))).await;
    }
}

impl Till {
    fn take_due(&self) -> Vec<farthing_channel::ChannelId> {
        let now = self.0.world.monotonic();
        let mut agenda = lock(&self.0.agenda);
        let mut due: Vec<_> =
            agenda.iter().filter(|(_, at)| **at <= now).map(|(id, at)| (*at, *id)).collect();
        // Who waits longest comes first: channels that always have something to do must not keep the others out.
        due.sort_unstable();
        due.truncate(self.0.config.at_once.max(1));
        due.into_iter().map(|(_, id)| agenda.remove(&id).map_or(id, |_| id)).collect()
    }

    fn until_due(&self) -> Duration {
        let now = self.0.world.monotonic();
        let next = lock(&self.0.agenda).values().min().copied();
        next.map_or(LONGEST_SLEEP, |at| at.saturating_sub(now).min(LONGEST_SLEEP))
    }

    async fn erase_old(&self) {
        let now = self.0.world.monotonic();
        {
            let mut at = lock(&self.0.erase_at);
            if now < *at {
                return;
            }
            *at = now.saturating_add(ERASE_EVERY);
        }
        // What is kept longer harms less than what is forgotten too early.
        let before = self.0.clock.surely().minus(self.0.config.answer_ttl);
        if let Err(error) = self.0.store.erase_charge_answers(before).await {
            tracing::debug!(%error, "expired answers are not erased yet");
        }
    }

    /// Does what is to be done for one channel, and notes when to come again.
    async fn attend(&self, id: farthing_channel::ChannelId) {
        let again = match self.work(id).await {
            Ok(again) => again,
            // Its beginning was not made durable.
            Err(TillError::Refused(Refusal::NotFound)) => None,
            Err(error) => {
                tracing::debug!(channel = %id, %error, "a channel is attended to again");
                Some(RETRY_AFTER)
            }
        };
        if let Some(again) = again {
            let at = self.0.world.monotonic().saturating_add(again);
            // Somebody may have asked for it meanwhile: the earlier counts.
            lock(&self.0.agenda).entry(id).and_modify(|due| *due = (*due).min(at)).or_insert(at);
        }
    }

    /// After how long to come again; `None` if there is nothing left to do.
    async fn work(&self, id: farthing_channel::ChannelId) -> Result<Option<Duration>, TillError> {
        let payee = self.snapshot(id).await?;
        let desk = self.desk(payee.terms().asset.network())?;
        let place = self.place(id);
        let soon = desk.chain().block_time();
        let every = payee.limits().look_every(payee.terms());
        let since = |place: &Place| lock(&place.looked).map(|at| self.0.world.monotonic().saturating_sub(at));
        let mut looked = None;
        let payee = if since(&place).is_none_or(|since| since >= every) {
            looked = Some(self.look_round(desk, &payee).await?);
            self.snapshot(id).await?
        } else {
            payee
        };
        let again = match payee.next(self.now()) {
            PayeeNext::WatchOpen | PayeeNext::Look => {
                // Its transaction may be what a reorganization took away.
                self.look_round(desk, &payee).await?;
                soon
            }
            PayeeNext::Watch { attempt } => self.follow(desk, &place, &payee, attempt).await?.unwrap_or(soon),
            PayeeNext::Settle(claim) => self.take(desk, &place, &payee, Taking::Settle(claim)).await?,
            PayeeNext::Close { by: Some(_), .. } if cfg!(mutant = "answer") => soon,
            PayeeNext::Close { claim, .. } => self.take(desk, &place, &payee, Taking::Close(claim)).await?,
            PayeeNext::BeginClose => {
                let decided =
                    |payee: &Payee, now| Ok((Change::from(payee.step(PayeeEvent::CloseDecided, now)?), ()));
                self.change(id, decided).await?;
                Duration::ZERO
            }
            PayeeNext::Drain { until } => until.since(self.now()),
            PayeeNext::Rest { wake } => {
                let missing = match looked {
                    Some(missing) => missing,
                    None if self.has_live_slots(&payee).await? => self.look_round(desk, &payee).await?,
                    None => None,
                };
                // A channel that is over is looked at for its transactions only.
                if missing.is_none() && !is_at_work(&payee) {
                    return Ok(None);
                }
                let look_in = every.saturating_sub(since(&place).unwrap_or_default());
                // What a transaction cost is to be in the books once nothing can undo it, and not a round later.
                let deep_in = missing.map_or(look_in, |blocks| soon.saturating_mul(blocks));
                let look_in = look_in.min(deep_in);
                wake.map_or(look_in, |wake| wake.since(self.now()).min(look_in)).max(soon)
            }
        };
        Ok(Some(again))
    }

    /// Looks at the escrow and at our transactions. Returns how many blocks more some of them may still change.
    async fn look_round(&self, desk: &Desk, payee: &Payee) -> Result<Option<u32>, TillError> {
        let sight = self.look(desk, payee).await?;
        self.follow_slots(desk, payee, &sight).await
    }

    /// Looks at the escrow, and commits what it says.
    pub(super) async fn look(&self, desk: &Desk, payee: &Payee) -> Result<Sight, TillError> {
        let id = payee.terms().id;
        let sight = desk.look(payee.terms()).await?;
        let seen = |payee: &Payee, now| {
            let deep = payee.step(PayeeEvent::Seen { view: sight.deep, deep: true }, now)?;
            let step = deep.and(PayeeEvent::Seen { view: sight.latest, deep: false }, now)?;
            Ok((Change::from(step), ()))
        };
        self.change(id, seen).await?;
        *lock(&self.place(id).looked) = Some(self.0.world.monotonic());
        Ok(sight)
    }

    /// Sends a transaction that takes from the escrow. What is claimed follows from a fresh look.
    async fn take(
        &self,
        desk: &Desk,
        place: &Place,
        payee: &Payee,
        taking: Taking,
    ) -> Result<Duration, TillError> {
        let wait = lock(&place.failures).1.saturating_sub(self.0.world.monotonic());
        if !wait.is_zero() {
            return Ok(wait);
        }
        let id = payee.terms().id;
        // With it goes a look at our transactions, which would wait for ever where this fails again and again.
        self.look_round(desk, payee).await?;
        let payee = self.snapshot(id).await?;
        let still = match payee.next(self.now()) {
            PayeeNext::Settle(claim) => Taking::Settle(claim),
            PayeeNext::Close { claim, .. } => Taking::Close(claim),
            _ => return Ok(Duration::ZERO),
        };
        if std::mem::discriminant(&still) != std::mem::discriminant(&taking) {
            return Ok(Duration::ZERO);
        }
        let made = match desk.prepare_taking(&payee, &still, &*self.0.world).await {
            Ok(prepared) => self.attempt(desk, id, prepared, PayeeAction::Take(still)).await.map(|_| ()),
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => Ok(Duration::ZERO),
            Err(error) => {
                tracing::warn!(channel = %id, %error, "what is owed cannot be collected yet");
                Ok(self.failed_again(place))
            }
        }
    }

    /// Follows a transaction of ours. Returns when to go on, once it is done with.
    async fn follow(
        &self,
        desk: &Desk,
        place: &Place,
        payee: &Payee,
        attempt: AttemptId,
    ) -> Result<Option<Duration>, TillError> {
        match desk.relayer().look(attempt, Duration::ZERO).await {
            SlotNews::Open => Ok(None),
            SlotNews::Included { receipt, stored } => {
                self.included(desk, place, payee, attempt, &receipt, *stored).await
            }
            SlotNews::Lost => {
                // Whatever took its nonce: what the escrow says counts.
                self.look(desk, payee).await?;
                let mut slots = self.0.store.slots_of(payee.book()).await?;
                slots.retain(|stored| stored.slot.attempt == attempt && stored.slot.state == SlotState::Open);
                let lost = slots.into_iter().map(|stored| moved(stored, SlotState::Lost)).collect();
                let again = self.failed(place, payee, attempt, LOST, lost, None).await?;
                desk.relayer().release(attempt);
                Ok(Some(again))
            }
            SlotNews::Untracked => {
                let slots = self.0.store.slots_of(payee.book()).await?;
                match slots.into_iter().find(|stored| stored.slot.attempt == attempt) {
                    Some(stored) if stored.slot.state != SlotState::Lost => {
                        desk.relayer().retrack(stored);
                        Ok(None)
                    }
                    _ => Ok(Some(self.failed(place, payee, attempt, LOST, Vec::new(), None).await?)),
                }
            }
        }
    }

    /// Our transaction is in a block: once that is deep enough, what it did is believed.
    async fn included(
        &self,
        desk: &Desk,
        place: &Place,
        payee: &Payee,
        attempt: AttemptId,
        receipt: &Receipt,
        stored: StoredSlot,
    ) -> Result<Option<Duration>, TillError> {
        let head = desk.head().await?;
        match desk.is_canonical(receipt.block, receipt.block_hash, &head).await {
            Some(true) => {}
            Some(false) => {
                // A reorganization took it away: it is given again, and its receipt is another.
                desk.relayer().retrack(stored);
                return Ok(None);
            }
            None => return Ok(None),
        }
        let now = desk.view(payee.terms(), head.number).await?;
        let deposit = now.map_or(payee.deposit(), |view| view.deposit);
        let Some(deep) = desk.deep_block(deposit, &head).await?.filter(|deep| *deep >= receipt.block) else {
            return Ok(None);
        };
        let tx = TxRef::new(receipt.tx.to_string());
        // The relayer's memory of it may be older than the store.
        let slots = self.0.store.slots_of(payee.book()).await?.into_iter();
        let slots: Vec<_> = slots
            .filter(|kept| kept.slot.attempt == attempt && kept.slot.state == SlotState::Open)
            .map(|kept| moved(kept, in_block(receipt)))
            .collect();
        let again = if receipt.success {
            // A node that does not see what the receipt says has not come so far, and proves nothing.
            let Some(view) = desk.view(payee.terms(), deep).await? else { return Ok(None) };
            let proof = desk.proof(payee.terms(), receipt);
            let worked = |payee: &Payee, now| {
                let event = PayeeEvent::Worked { attempt, proof: proof.clone(), view };
                Ok((Change { slots: slots.clone(), ..Change::from(payee.step(event, now)?) }, ()))
            };
            self.change(payee.terms().id, worked).await?;
            *lock(&place.failures) = (0, Duration::ZERO);
            place.remember(Outcome { attempt, tx: Some(tx), failed: None });
            place.wake();
            Duration::ZERO
        } else {
            // Somebody else's may have done what ours could not: what the escrow says counts.
            self.look(desk, payee).await?;
            self.failed(place, payee, attempt, REVERTED, slots, Some(tx)).await?
        };
        desk.relayer().release(attempt);
        Ok(Some(again))
    }

    /// A transaction of ours changed nothing and never will. Returns when to go on: each costs gas.
    async fn failed(
        &self,
        place: &Place,
        payee: &Payee,
        attempt: AttemptId,
        code: &'static str,
        slots: Vec<(Option<u64>, Slot)>,
        tx: Option<TxRef>,
    ) -> Result<Duration, TillError> {
        let reason = Reason::new(code, Fault::Chain);
        let failed = |payee: &Payee, now| {
            let event = PayeeEvent::Failed { attempt, reason: reason.clone(), fee: None };
            Ok((Change { slots: slots.clone(), ..Change::from(payee.step(event, now)?) }, ()))
        };
        self.change(payee.terms().id, failed).await?;
        place.remember(Outcome { attempt, tx, failed: Some(reason.clone()) });
        place.wake();
        Ok(self.failed_again(place))
    }

    /// Counts a failure, and returns how long to leave the chain alone after it.
    fn failed_again(&self, place: &Place) -> Duration {
        let mut failures = lock(&place.failures);
        let count = (failures.0 + 1).min(MOST_DOUBLINGS);
        let wait = RETRY_AFTER.saturating_mul(1 << count);
        *failures = (count, self.0.world.monotonic().saturating_add(wait));
        wait
    }

    /// Whether any transaction of the channel's may still change.
    async fn has_live_slots(&self, payee: &Payee) -> Result<bool, TillError> {
        let slots = self.0.store.slots_of(payee.book()).await?;
        Ok(slots
            .iter()
            .any(|stored| matches!(stored.slot.state, SlotState::Open | SlotState::Included { .. })))
    }

    /// Transactions that nobody waits for any more are watched until no reorganization is expected to undo them, and
    /// sent again if one does. Then their gas is booked, once. Returns how many blocks more some may still change.
    async fn follow_slots(
        &self,
        desk: &Desk,
        payee: &Payee,
        sight: &Sight,
    ) -> Result<Option<u32>, TillError> {
        let mut missing: Option<u32> = None;
        let mut wait = |blocks: u64| {
            let blocks = u32::try_from(blocks).unwrap_or(u32::MAX).max(1);
            missing = Some(missing.map_or(blocks, |least| least.min(blocks)));
        };
        let slots = self.0.store.slots_of(payee.book()).await?;
        // An attempt and its slot are one commit: what is read after the slots knows of every attempt that they are for.
        // By what was read before, a transaction that was just made would be one that nobody waits for.
        let payee = &self.snapshot(payee.terms().id).await?;
        for stored in slots {
            let state = match &stored.slot.state {
                SlotState::Final { .. } | SlotState::Lost => continue,
                // The channel waits for it, and follows it.
                SlotState::Open if payee.attempts().any(|(id, ..)| id == stored.slot.attempt) => None,
                SlotState::Open => self.found_again(desk, payee, &stored).await?,
                SlotState::Included { tx, block, block_hash } => {
                    let beyond = sight.head.number.saturating_add(1).saturating_sub(*block);
                    match desk.is_canonical(*block, *block_hash, &sight.head).await {
                        Some(true) if beyond >= self.0.config.beyond_reorgs => {
                            Some(SlotState::Final { tx: tx.clone() })
                        }
                        Some(false) => self.found_again(desk, payee, &stored).await?,
                        _ => {
                            wait(self.0.config.beyond_reorgs.saturating_sub(beyond));
                            continue;
                        }
                    }
                }
            };
            match state {
                Some(SlotState::Final { tx }) => self.close_slot(desk, payee, stored, tx).await?,
                Some(state) => {
                    wait(1);
                    self.0.store.save_slots(vec![moved(stored, state)]).await?;
                }
                None => wait(1),
            }
        }
        Ok(missing)
    }

    /// Where a transaction is now, whose block went away or of whose end nobody took note. One that is nowhere is given
    /// again: it only has to be in a block.
    async fn found_again(
        &self,
        desk: &Desk,
        payee: &Payee,
        stored: &StoredSlot,
    ) -> Result<Option<SlotState>, TillError> {
        if let Some(receipt) = desk.receipt_of(&stored.slot).await? {
            return Ok(Some(in_block(&receipt)));
        }
        if !desk.relayer().is_open(stored.slot.nonce) {
            tracing::warn!(channel = %payee.terms().id, nonce = stored.slot.nonce, "a transaction is given again");
            desk.relayer().retrack(stored.clone());
            desk.relayer().release(stored.slot.attempt);
        }
        Ok(None)
    }

    /// Nothing can change any more about a transaction: what it cost goes into the books.
    async fn close_slot(
        &self,
        desk: &Desk,
        payee: &Payee,
        stored: StoredSlot,
        tx: TxRef,
    ) -> Result<(), TillError> {
        let receipt = desk.receipt_of(&stored.slot).await?.ok_or(TillError::Unavailable("chain"))?;
        let (id, tenant) = (TransferId::of_slot(stored.slot.id), payee.tenant().clone());
        let gas = desk.fee(&receipt).map(|money| Entry::Transfer { id, tenant, money });
        self.0
            .store
            .close_slots(vec![moved(stored, SlotState::Final { tx })], gas.into_iter().collect())
            .await?;
        Ok(())
    }
}

/// A slot's state after this receipt of one of its transactions.
fn in_block(receipt: &Receipt) -> SlotState {
    let tx = TxRef::new(receipt.tx.to_string());
    SlotState::Included { tx, block: receipt.block, block_hash: receipt.block_hash }
}

fn moved(stored: StoredSlot, state: SlotState) -> (Option<u64>, Slot) {
    let mut slot = stored.slot;
    slot.state = state;
    (Some(stored.version), slot)
}
