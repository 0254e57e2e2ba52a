//! The till's own task: it does for each channel what the channel's state asks for.

use std::sync::Weak;
use std::time::Duration;

use farthing_channel::{Payee, PayeeAction, PayeeEvent, PayeeNext, Taking};
use farthing_payment::{Fault, Reason, Slot, SlotState, TxRef};
use farthing_primitives::AttemptId;
use futures_channel::mpsc;
use futures_util::StreamExt;
use futures_util::future::{join_all, select};

use super::desk::{Desk, Sight};
use super::store::is_at_work;
use super::till::{Change, Inner, Outcome, Place, Till, TillError};
use crate::live::lock;
use crate::relayer::{SlotNews, parse_hash};
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
        let due = agenda.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id);
        let due: Vec<_> = due.take(self.0.config.at_once.max(1)).collect();
        for id in &due {
            agenda.remove(id);
        }
        due
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
        let mut open_slots = false;
        let payee = if since(&place).is_none_or(|since| since >= every) {
            let sight = self.look(desk, &payee).await?;
            open_slots = self.follow_slots(desk, &payee, &sight).await?;
            self.snapshot(id).await?
        } else {
            payee
        };
        let again = match payee.next(self.now()) {
            PayeeNext::WatchOpen | PayeeNext::Look => {
                self.look(desk, &payee).await?;
                soon
            }
            PayeeNext::Watch { attempt } => {
                if self.follow(desk, &place, &payee, attempt).await? {
                    Duration::ZERO
                } else {
                    soon
                }
            }
            PayeeNext::Settle(claim) => self.take(desk, &place, &payee, Taking::Settle(claim)).await?,
            PayeeNext::Close { claim, .. } => self.take(desk, &place, &payee, Taking::Close(claim)).await?,
            PayeeNext::BeginClose => {
                let decided =
                    |payee: &Payee, now| Ok((Change::from(payee.step(PayeeEvent::CloseDecided, now)?), ()));
                self.change(id, decided).await?;
                Duration::ZERO
            }
            PayeeNext::Drain { until } => until.since(self.now()),
            PayeeNext::Rest { wake } => {
                if !is_at_work(&payee) && !open_slots && !self.has_live_slots(&payee).await? {
                    return Ok(None);
                }
                let look_in = every.saturating_sub(since(&place).unwrap_or_default());
                // A channel that is over is looked at for its transactions only.
                wake.map_or(look_in, |wake| wake.since(self.now()).min(look_in)).max(soon)
            }
        };
        Ok(Some(again))
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
        let id = payee.terms().id;
        self.look(desk, payee).await?;
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
        let mut failures = lock(&place.failures);
        match made {
            Ok(()) => {
                *failures = 0;
                Ok(Duration::ZERO)
            }
            Err(error) => {
                tracing::warn!(channel = %id, %error, "what is owed cannot be collected yet");
                *failures = (*failures + 1).min(MOST_DOUBLINGS);
                Ok(RETRY_AFTER.saturating_mul(1 << *failures))
            }
        }
    }

    /// Follows a transaction of ours. Returns whether it is done with.
    async fn follow(
        &self,
        desk: &Desk,
        place: &Place,
        payee: &Payee,
        attempt: AttemptId,
    ) -> Result<bool, TillError> {
        match desk.relayer().look(attempt, Duration::ZERO).await {
            SlotNews::Open => Ok(false),
            SlotNews::Included { receipt, stored } => {
                self.included(desk, place, payee, attempt, &receipt, *stored).await
            }
            SlotNews::Lost => {
                // Whatever took its nonce: what the escrow says counts.
                self.look(desk, payee).await?;
                let mut slots = self.0.store.slots_of(payee.book()).await?;
                slots.retain(|stored| stored.slot.attempt == attempt && stored.slot.state == SlotState::Open);
                let lost = slots.into_iter().map(|stored| moved(stored, SlotState::Lost)).collect();
                self.failed(place, payee, attempt, LOST, None, lost, None).await?;
                desk.relayer().release(attempt);
                Ok(true)
            }
            SlotNews::Untracked => {
                let slots = self.0.store.slots_of(payee.book()).await?;
                match slots.into_iter().find(|stored| stored.slot.attempt == attempt) {
                    Some(stored) if stored.slot.state != SlotState::Lost => {
                        desk.relayer().retrack(stored);
                        Ok(false)
                    }
                    _ => {
                        self.failed(place, payee, attempt, LOST, None, Vec::new(), None).await?;
                        Ok(true)
                    }
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
    ) -> Result<bool, TillError> {
        let head = desk.head().await?;
        match desk.is_canonical(receipt.block, receipt.block_hash, &head).await {
            Some(true) => {}
            Some(false) => {
                // A reorganization took it away: it is given again, and its receipt is another.
                desk.relayer().retrack(stored);
                return Ok(false);
            }
            None => return Ok(false),
        }
        let now = desk.view(payee.terms(), head.number).await?;
        let deposit = now.map_or(payee.deposit(), |view| view.deposit);
        let Some(deep) = desk.deep_block(deposit, &head).await?.filter(|deep| *deep >= receipt.block) else {
            return Ok(false);
        };
        let tx = TxRef::new(receipt.tx.to_string());
        let (block, block_hash) = (receipt.block, receipt.block_hash);
        let slots = vec![moved(stored, SlotState::Included { tx: tx.clone(), block, block_hash })];
        let view = desk.view(payee.terms(), deep).await?;
        match view.filter(|_| receipt.success) {
            Some(view) => {
                let proof = desk.proof(payee.terms(), receipt);
                let worked = |payee: &Payee, now| {
                    let event = PayeeEvent::Worked { attempt, proof: proof.clone(), view };
                    Ok((Change { slots: slots.clone(), ..Change::from(payee.step(event, now)?) }, ()))
                };
                self.change(payee.terms().id, worked).await?;
                place.remember(Outcome { attempt, tx: Some(tx), failed: None });
                place.wake();
            }
            None => {
                let fee = desk.fee(receipt);
                self.failed(place, payee, attempt, REVERTED, fee, slots, Some(tx)).await?;
            }
        }
        desk.relayer().release(attempt);
        Ok(true)
    }

    #[allow(clippy::too_many_arguments)]
    async fn failed(
        &self,
        place: &Place,
        payee: &Payee,
        attempt: AttemptId,
        code: &'static str,
        fee: Option<farthing_primitives::Money>,
        slots: Vec<(Option<u64>, Slot)>,
        tx: Option<TxRef>,
    ) -> Result<(), TillError> {
        let reason = Reason::new(code, Fault::Chain);
        let failed = |payee: &Payee, now| {
            let event = PayeeEvent::Failed { attempt, reason: reason.clone(), fee: fee.clone() };
            Ok((Change { slots: slots.clone(), ..Change::from(payee.step(event, now)?) }, ()))
        };
        self.change(payee.terms().id, failed).await?;
        let mut failures = lock(&place.failures);
        *failures = (*failures + 1).min(MOST_DOUBLINGS);
        drop(failures);
        place.remember(Outcome { attempt, tx, failed: Some(reason.clone()) });
        place.wake();
        Ok(())
    }

    /// Whether a reorganization could still undo a transaction of the channel's.
    async fn has_live_slots(&self, payee: &Payee) -> Result<bool, TillError> {
        let slots = self.0.store.slots_of(payee.book()).await?;
        Ok(slots.iter().any(|stored| matches!(stored.slot.state, SlotState::Included { .. })))
    }

    /// Transactions whose effects are booked are watched until no reorganization is expected to undo them, and sent
    /// again if one does. Returns whether there are any.
    async fn follow_slots(&self, desk: &Desk, payee: &Payee, sight: &Sight) -> Result<bool, TillError> {
        let mut open = false;
        let mut moves = Vec::new();
        for stored in self.0.store.slots_of(payee.book()).await? {
            let SlotState::Included { tx, block, block_hash } = stored.slot.state.clone() else { continue };
            match desk.is_canonical(block, block_hash, &sight.head).await {
                Some(true)
                    if sight.head.number.saturating_add(1).saturating_sub(block)
                        >= self.0.config.beyond_reorgs =>
                {
                    moves.push(moved(stored, SlotState::Final { tx }));
                }
                Some(false) => {
                    open = true;
                    let variants =
                        stored.slot.variants.iter().filter_map(|variant| parse_hash(&variant.tx)).collect();
                    let found = desk.chain().receipts(variants).await.map_err(super::desk::chain_error)?;
                    match found.into_iter().flatten().next() {
                        Some(receipt) => {
                            let tx = TxRef::new(receipt.tx.to_string());
                            let (block, block_hash) = (receipt.block, receipt.block_hash);
                            moves.push(moved(stored, SlotState::Included { tx, block, block_hash }));
                        }
                        None => {
                            let attempt = stored.slot.attempt;
                            tracing::warn!(channel = %payee.terms().id, %tx, "a reorganization took a transaction away");
                            desk.relayer().retrack(stored);
                            // It only has to be in a block again.
                            desk.relayer().release(attempt);
                        }
                    }
                }
                _ => open = true,
            }
        }
        if !moves.is_empty() {
            self.0.store.save_slots(moves).await?;
        }
        Ok(open)
    }
}

fn moved(stored: StoredSlot, state: SlotState) -> (Option<u64>, Slot) {
    let mut slot = stored.slot;
    slot.state = state;
    (Some(stored.version), slot)
}
