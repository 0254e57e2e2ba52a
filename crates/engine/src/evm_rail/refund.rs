//! Transfers back to the payer.
//!
//! The payee signs an authorization whose nonce is derived from the payment's id, so that the token takes it once,
//! whatever we do. All that is left to see to is that we know what became of it.

use std::sync::Arc;
use std::time::Duration;

use farthing_evm::Key;
use farthing_payment::{Fault, Payment, Reason, State, TxRef};
use farthing_primitives::{AttemptId, PullMethod, Timestamp};
use farthing_rails::exact_evm::buy::{Nonce, authorize};
use farthing_rails::exact_evm::{Checked, Policy, Requirement, Token, check};

use super::{EvmRail, call_of};
use crate::evidence::DEAD_AFTER;
use crate::rail::{Funds, NotPrepared, Prepared, Progress};
use crate::relayer::{SlotNews, at, parse_hash};
use crate::slot_call::call_in;
use crate::{Head, Receipt, StoredSlot, Tag, reasons};

/// How long the payee's authorization of a refund lives.
const REFUND_VALIDITY: Duration = Duration::from_secs(86_400);
/// The name of what [`NotPrepared::Unavailable`] waits for.
pub(crate) const SETTLEMENT_DEPTH: &str = "settlement_depth";

impl EvmRail {
    pub(super) async fn refund_prepared(
        &self,
        payment: &Payment,
        key: &Key,
    ) -> Result<Prepared, NotPrepared> {
        self.settlement_stays(payment).await?;
        let checked = self.refund_order(payment, Some(key), self.world.now())?;
        match self.evidence.consumed(&checked, Tag::Latest).await {
            // Sent by a former try whose record was lost: nothing more may be sent, and the watch will find it.
            Some(true) => {
                let attempt = AttemptId::new(self.world.now(), self.world.random10());
                return Ok(Prepared { attempt, tx: None, slots: Vec::new() });
            }
            Some(false) => {}
            None => return Err(NotPrepared::Unavailable("chain")),
        }
        let settlement = self.ask(&checked, true).await.map_err(|answer| match answer {
            Funds::Refused(reason) => NotPrepared::Refused(reason),
            Funds::Confirmed | Funds::Unavailable(_) => NotPrepared::Unavailable("chain"),
        })?;
        self.relayer.prepare(vec![payment.id], call_of(&settlement, settlement.gas_cap)).await
    }

    /// Money goes back only for money that stays: else a reorganization could take the payer's payment away, and leave
    /// it our refund.
    async fn settlement_stays(&self, payment: &Payment) -> Result<(), NotPrepared> {
        let unavailable = || NotPrepared::Unavailable("chain");
        let State::Settled { proof, .. } = &payment.state else {
            return Err(NotPrepared::Unavailable(SETTLEMENT_DEPTH));
        };
        let head = self.chain.head(Tag::Latest).await.ok().flatten().ok_or_else(unavailable)?;
        let beyond =
            self.is_beyond(proof.block, &head) && self.evidence.is_deep(payment, proof.block, &head).await;
        match self.evidence.still_included(proof).await {
            Some(true) if beyond => Ok(()),
            Some(_) => Err(NotPrepared::Unavailable(SETTLEMENT_DEPTH)),
            None => Err(unavailable()),
        }
    }

    /// The same authorization in another transaction, as the former ones moved nothing.
    pub(super) async fn refund_again(&self, payment: &Payment) -> Result<Prepared, NotPrepared> {
        let slots = self.store.slots_of(payment.id).await.map_err(|_| NotPrepared::Unavailable("store"))?;
        let nonce = refund_nonce(payment);
        let call = slots
            .iter()
            .rev()
            .filter_map(|stored| call_in(&stored.slot.variants.last()?.raw))
            .find(|call| end_of_authorization(&call.data, &nonce).is_some())
            .ok_or(NotPrepared::Unavailable("refund"))?;
        let estimate = self.chain.estimate_gas(&self.relayer.address(), &call.to, call.data.clone()).await;
        match estimate {
            Ok(Ok(_)) => self.relayer.prepare(vec![payment.id], call).await,
            Ok(Err(_)) => Err(NotPrepared::Refused(Reason::new("refund_would_revert", Fault::Payee))),
            Err(_) => Err(NotPrepared::Unavailable("chain")),
        }
    }

    /// What is known of a refund. [`Progress::Lost`]: none of its transactions moved anything, and another one may.
    /// [`Progress::Dead`]: none ever will.
    pub(super) async fn look_at_refund(&self, payment: &Payment, patience: Duration) -> Progress {
        let State::Refunding { refund, .. } = &payment.state else { return Progress::Open };
        let Ok(mut slots) = self.store.slots_of(payment.id).await else { return self.wait(patience).await };
        let nonce = refund_nonce(payment);
        let ends: Vec<Timestamp> = slots.iter().filter_map(|stored| end_in(stored, &nonce)).collect();
        // Where the record of what was sent is lost, the refund's id was made after its authorization.
        let end = ends.into_iter().max().unwrap_or_else(|| refund.created().plus(REFUND_VALIDITY));
        let Ok(checked) = self.refund_order(payment, None, end.minus(REFUND_VALIDITY)) else {
            return self.wait(patience).await;
        };
        slots.retain(|stored| end_in(stored, &nonce).is_some());
        let Ok(Some(head)) = self.chain.head(Tag::Latest).await else { return self.wait(patience).await };
        match self.evidence.consumed(&checked, Tag::Latest).await {
            Some(true) => self.refund_used(payment, &checked, &slots, head, patience).await,
            Some(false) if self.refund_is_dead(&checked, end, &head).await => {
                self.release_all(&slots);
                Progress::Dead(reasons::expired())
            }
            Some(false) => self.refund_unused(&slots, patience).await,
            None => self.wait(patience).await,
        }
    }

    pub(super) async fn wait(&self, patience: Duration) -> Progress {
        self.world.sleep(patience).await;
        Progress::Open
    }

    /// Its authorization was used, as far as the newest block goes.
    async fn refund_used(
        &self,
        payment: &Payment,
        checked: &Checked,
        slots: &[StoredSlot],
        head: Head,
        patience: Duration,
    ) -> Progress {
        let variants = slots.iter().flat_map(|stored| &stored.slot.variants);
        let txs: Vec<TxRef> = variants.map(|variant| variant.tx.clone()).collect();
        let found = match self.evidence.among(payment, checked, &txs, |receipt| self.fee(receipt)).await {
            Some(found) => found,
            None => self.evidence.trace(payment, checked).await,
        };
        match found {
            Progress::Included { proof, deep, .. } if deep && self.is_beyond(proof.block, &head) => {
                let own = slots.iter().find(|stored| stored.slot.variants.iter().any(|v| v.tx == proof.tx));
                if own.is_some() && proof.fee.is_none() {
                    // Found by its trace, as its receipt did not come. Booked without its fee, it would never be booked
                    // with it.
                    return self.wait(patience).await;
                }
                self.release_all(slots);
                let slots = own.map(|own| self.finally(own.clone(), proof.tx.clone()));
                Progress::Included { proof, deep: true, slots: slots.into_iter().collect() }
            }
            // Spent, and not for a transfer: the payee has cancelled it.
            Progress::Reverted { reason, .. } if self.was_used_beyond(checked, &head).await => {
                self.release_all(slots);
                Progress::Dead(reason)
            }
            // Not deep enough, or not to be found where we look: whatever it is, no other could be sent.
            _ => {
                let _ = self.chain.next_head(Some(head), patience).await;
                Progress::Open
            }
        }
    }

    /// Its authorization is unused and alive: what do its transactions do?
    async fn refund_unused(&self, slots: &[StoredSlot], patience: Duration) -> Progress {
        // Sent by a former try whose record was lost, and then taken away by a reorganization.
        let Some(newest) = slots.last() else { return self.wait(patience).await };
        match self.relayer.look(newest.slot.attempt, patience).await {
            SlotNews::Included { receipt, .. } => match self.still_there(&receipt).await {
                Some(true) if receipt.success => self.wait(patience).await,
                Some(true) => Progress::Lost,
                Some(false) => {
                    // The block is gone: the same transactions are given again.
                    slots.iter().for_each(|stored| self.relayer.retrack(stored.clone()));
                    Progress::Open
                }
                None => self.wait(patience).await,
            },
            SlotNews::Lost => Progress::Lost,
            SlotNews::Untracked => {
                slots.iter().for_each(|stored| self.relayer.retrack(stored.clone()));
                Progress::Open
            }
            SlotNews::Open => Progress::Open,
        }
    }

    async fn still_there(&self, receipt: &Receipt) -> Option<bool> {
        let hash = parse_hash(&TxRef::new(receipt.tx.to_string()))?;
        let now = self.chain.receipts(vec![hash]).await.ok()?.into_iter().next()?;
        Some(now.is_some_and(|now| now.block_hash == receipt.block_hash))
    }

    /// Past its end and unused in a block that no reorganization is expected to replace.
    async fn refund_is_dead(&self, checked: &Checked, end: Timestamp, head: &Head) -> bool {
        let end = end.plus(DEAD_AFTER);
        if head.timestamp < end {
            return false;
        }
        let Some(deep) = self.deep_block(head).await else { return false };
        deep.timestamp >= end && self.evidence.consumed(checked, at(deep.number)).await == Some(false)
    }

    async fn was_used_beyond(&self, checked: &Checked, head: &Head) -> bool {
        let Some(deep) = self.deep_block(head).await else { return false };
        self.evidence.consumed(checked, at(deep.number)).await == Some(true)
    }

    async fn deep_block(&self, head: &Head) -> Option<Head> {
        let number = head.number.checked_sub(self.beyond.saturating_sub(1))?;
        self.chain.head(at(number)).await.ok()?
    }

    fn release_all(&self, slots: &[StoredSlot]) {
        slots.iter().for_each(|stored| self.relayer.release(stored.slot.attempt));
    }

    /// The transfer back, whose nonce is the payment's own: the token takes it once.
    ///
    /// Without the key it can only be looked for: its signature is none.
    fn refund_order(
        &self,
        payment: &Payment,
        key: Option<&Key>,
        now: Timestamp,
    ) -> Result<Checked, NotPrepared> {
        let refused = |code: &str| NotPrepared::Refused(Reason::new(code, Fault::Us));
        let asset = self.registry.get(payment.terms.money.asset()).ok_or_else(|| refused("unknown_asset"))?;
        let token = Token::new(asset).map_err(|_| refused("unknown_asset"))?;
        let (payee, payer) = (&payment.terms.payee, &payment.terms.payer);
        let asked = Requirement::new(
            Arc::new(token),
            &payment.terms.money,
            payer,
            PullMethod::Eip3009,
            REFUND_VALIDITY,
        )
        .map_err(|_| refused("refund_needs_eip3009"))?;
        let nonce = Nonce(refund_nonce(payment));
        let unsigned = authorize(&asked, payee, nonce, REFUND_VALIDITY, now)
            .map_err(|_| refused("refund_not_possible"))?;
        // Any other key stands for no signature at all: the order is then good for reading only.
        let signature = match key {
            Some(key) => key.sign(unsigned.digest()),
            None => Key::from_bytes([1; 32]).map_err(|_| refused("key"))?.sign(unsigned.digest()),
        };
        check(&asked, &unsigned.signed(&signature, None), now, &Policy::default())
            .map_err(|refusal| NotPrepared::Refused(refusal.reason()))
    }
}

/// The nonce of the one authorization that refunds this payment.
fn refund_nonce(payment: &Payment) -> [u8; 32] {
    let mut nonce = [0u8; 32];
    nonce[..16].copy_from_slice(b"farthing refund\0");
    nonce[16..].copy_from_slice(&payment.id.to_bytes());
    nonce
}

/// When the authorization of the refund ends that this slot's transaction holds, if it holds it.
fn end_in(stored: &StoredSlot, nonce: &[u8; 32]) -> Option<Timestamp> {
    end_of_authorization(&call_in(&stored.slot.variants.last()?.raw)?.data, nonce)
}

/// Spec: EIP-3009: `transferWithAuthorization(from, to, value, validAfter, validBefore, nonce, …)`.
fn end_of_authorization(call: &[u8], nonce: &[u8; 32]) -> Option<Timestamp> {
    let words = call.get(4..)?;
    if words.get(5 * 32..6 * 32)? != nonce {
        return None;
    }
    let (high, low) = words.get(4 * 32..5 * 32)?.split_last_chunk::<8>()?;
    high.iter().all(|byte| *byte == 0).then(|| Timestamp::from_secs(u64::from_be_bytes(*low)))
}
