//! Slots that are done with: they become final, and what their transactions cost gets into the books.
//!
//! The fee of a transaction that moved a payment's money is booked by that payment, in the commit that settles or
//! refunds it, and taken back with it. Every other transaction of ours costs as well: one that reverted, one that only
//! fills a nonce. Its fee is booked here, once, when it is beyond any reorganization and nothing is open about its
//! payment, so that nothing of it ever has to be taken back.

use farthing_ledger::{Entry, TransferId};
use farthing_payment::{Payment, Proof, Slot, SlotState, State, TxRef};
use farthing_primitives::TenantId;

use super::EvmRail;
use crate::live::lock;
use crate::relayer::parse_hash;
use crate::{Head, Receipt, StoreError, StoredSlot, Tag};

/// How many slots are looked at at once.
const PAGE: usize = 256;
/// How many times so many in one round: a store of a former version may hold all that it ever had.
const MOST_PAGES: usize = 16;

/// A slot that is done with, and the fee that nobody has booked.
type Closed = ((Option<u64>, Slot), Option<Entry>);

impl EvmRail {
    /// One round over the slots that are not final yet.
    pub(super) async fn close_slots(&self) {
        let Ok(Some(head)) = self.chain.head(Tag::Latest).await else { return };
        for _ in 0..MOST_PAGES {
            let from = *lock(&self.close_from);
            let (network, relayer) = (self.chain.network(), self.relayer.address());
            let page = match self.store.live_slots(network, &relayer, from, PAGE).await {
                Ok(page) => page,
                Err(error) => return tracing::warn!(%error, "could not look for slots that are done with"),
            };
            let last = page.last().filter(|_| page.len() >= PAGE);
            let next = last.map_or(0, |last| last.slot.nonce.saturating_add(1));
            if let Err(error) = self.close_page(page, &head).await {
                return tracing::warn!(%error, "could not close slots that are done with");
            }
            *lock(&self.close_from) = next;
            if next == 0 {
                return;
            }
        }
    }

    async fn close_page(&self, page: Vec<StoredSlot>, head: &Head) -> Result<(), StoreError> {
        let mut closed: Vec<Closed> = Vec::new();
        let mut asked: Vec<(StoredSlot, Vec<Payment>)> = Vec::new();
        for stored in page {
            let may_be_done = match &stored.slot.state {
                SlotState::Open => !self.relayer.is_open(stored.slot.nonce),
                SlotState::Included { block, .. } => self.is_beyond(*block, head),
                SlotState::Final { .. } | SlotState::Lost => false,
            };
            if !may_be_done {
                continue;
            }
            let mut payments = Vec::with_capacity(stored.slot.payments.len());
            for id in &stored.slot.payments {
                payments.extend(self.store.payment(*id).await?);
            }
            // What is no payment's is a channel's, whose own keeper closes it.
            if payments.len() != stored.slot.payments.len() {
                continue;
            }
            // Whoever is not done with it may book its fee yet.
            if payments.iter().any(|payment| !money_rests(payment)) {
                continue;
            }
            match &stored.slot.state {
                SlotState::Included { tx, .. } if payments.iter().any(|of| books_fee_of(of, tx)) => {
                    let tx = tx.clone();
                    closed.push((self.finally(stored, tx), None));
                }
                _ => asked.push((stored, payments)),
            }
        }
        for (stored, payments) in asked {
            let variants =
                stored.slot.variants.iter().filter_map(|variant| parse_hash(&variant.tx)).collect();
            let Ok(receipts) = self.chain.receipts(variants).await else { break };
            let Some(receipt) = receipts.into_iter().flatten().next() else { continue };
            if self.is_closed(&receipt, &payments, head).await {
                closed.push(self.close_by(stored, &payments, &receipt).await?);
            }
        }
        self.save_closed(closed).await
    }

    /// Whether what a transaction did stays so, whatever the amounts that it was for.
    async fn is_closed(&self, receipt: &Receipt, payments: &[Payment], head: &Head) -> bool {
        for payment in payments {
            if !self.evidence.is_deep(payment, receipt.block, head).await {
                return false;
            }
        }
        self.is_beyond(receipt.block, head)
    }

    async fn close_by(
        &self,
        stored: StoredSlot,
        payments: &[Payment],
        receipt: &Receipt,
    ) -> Result<Closed, StoreError> {
        let tx = TxRef::new(receipt.tx.to_string());
        let mut booked = false;
        for payment in payments {
            booked |= books_fee_of(payment, &tx) || self.inherited_fee(payment).await?;
        }
        let id = TransferId::of_slot(stored.slot.id);
        let tenant = payments.first().map_or_else(TenantId::local, |payment| payment.tenant.clone());
        let entry = match self.fee(receipt) {
            Some(money) if !booked && self.store.transfers_of(id.payment).await?.is_empty() => {
                Some(Entry::Transfer { id, tenant, money })
            }
            _ => None,
        };
        Ok((self.finally(stored, tx), entry))
    }

    /// Former versions booked the fee of a transaction that had reverted along with the settlement by somebody else's.
    async fn inherited_fee(&self, payment: &Payment) -> Result<bool, StoreError> {
        let Some(proof) = settlement(payment).filter(|proof| proof.fee.is_some()) else { return Ok(false) };
        let slots = self.store.slots_of(payment.id).await?;
        let own = slots.iter().flat_map(|stored| &stored.slot.variants).any(|variant| variant.tx == proof.tx);
        Ok(!own)
    }

    pub(super) fn finally(&self, stored: StoredSlot, tx: TxRef) -> (Option<u64>, Slot) {
        let mut slot = stored.slot;
        slot.state = SlotState::Final { tx };
        slot.updated = self.world.now();
        (Some(stored.version), slot)
    }

    async fn save_closed(&self, closed: Vec<Closed>) -> Result<(), StoreError> {
        if closed.is_empty() {
            return Ok(());
        }
        let (slots, gas): (Vec<_>, Vec<_>) = closed.iter().cloned().unzip();
        match self.store.close_slots(slots, gas.into_iter().flatten().collect()).await {
            // Somebody moved one of them: the others by themselves.
            Err(StoreError::Conflict | StoreError::Books(_)) => {}
            done => return done,
        }
        for (slot, gas) in closed {
            match self.store.close_slots(vec![slot], gas.into_iter().collect()).await {
                Err(error @ (StoreError::Conflict | StoreError::Books(_))) => {
                    tracing::debug!(%error, "a slot is not closed yet");
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Whether a block is so deep that no reorganization is expected to replace it.
    pub(super) fn is_beyond(&self, block: u64, head: &Head) -> bool {
        head.number.saturating_add(1).saturating_sub(block) >= self.beyond
    }
}

/// The transfer that settled it, where one did.
fn settlement(payment: &Payment) -> Option<&Proof> {
    match &payment.state {
        State::Settled { proof, .. } | State::Refunding { proof, .. } | State::Refunded { proof, .. } => {
            Some(proof)
        }
        _ => None,
    }
}

/// Whether no attempt of the payment is open, and no refund.
fn money_rests(payment: &Payment) -> bool {
    matches!(
        payment.state,
        State::Settled { .. } | State::Refunded { .. } | State::Refused { .. } | State::Failed { .. }
    )
}

/// Whether the payment's own entries have the fee of this transaction.
fn books_fee_of(payment: &Payment, tx: &TxRef) -> bool {
    let refund = match &payment.state {
        State::Refunded { refund_proof, .. } => Some(refund_proof),
        _ => None,
    };
    [settlement(payment), refund].into_iter().flatten().any(|proof| proof.tx == *tx && proof.fee.is_some())
}
