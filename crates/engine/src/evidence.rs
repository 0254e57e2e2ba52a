//! What the chain itself says of a payment: the only evidence that a rail with a node of its own goes by.
//!
//! Every moment in here is the chain's own. Our clock may be wrong, and what it says of an authorization proves nothing.

use std::sync::Arc;
use std::time::Duration;

use farthing_payment::{Fault, Payment, Proof, Reason, TxRef, Witness};
use farthing_primitives::{Money, Timestamp};
use farthing_rails::exact_evm::Checked;

use crate::rail::Progress;
use crate::relayer::{at, parse_hash};
use crate::{Chain, Depths, Finality, Head, LogFilter, Receipt, Tag, World, reasons};

/// How long past its end an authorization must be, on the chain's own clock, before its absence is proof.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(2);
/// How deep the block must be, at the least, in which an expired authorization shows as unused.
const DEAD_DEPTH: u64 = 2;
/// How deep a block must be before no reorganization is expected to replace it.
pub(crate) const BEYOND_REORGS: u64 = 32;
/// How many blocks are searched at once for a transaction of somebody else that used an authorization.
const TRACE_BLOCKS: u64 = 5_000;
/// How many times so many blocks are searched, at most.
const TRACE_PAGES: u64 = 16;
/// How far our clock may have been ahead of the chain's when a payment was claimed, for where the search ends.
const TRACE_MARGIN: Duration = Duration::from_secs(3600);

/// One chain, and how deep is deep enough on it.
pub(crate) struct Evidence {
    chain: Arc<dyn Chain>,
    depths: Depths,
}

impl Evidence {
    pub fn new(chain: Arc<dyn Chain>, depths: Depths) -> Self {
        Self { chain, depths }
    }

    /// The chain's own clock: the newest block's.
    pub async fn now(&self) -> Option<Timestamp> {
        Some(self.tip().await?.timestamp)
    }

    /// The newest block, as all who ask share it.
    async fn tip(&self) -> Option<Head> {
        self.chain.next_head(None, self.chain.block_time() * 2).await.ok()
    }

    /// Whether a settlement of this payment in `block` is as deep as its amount asks for. Not, if it cannot be told.
    pub async fn is_deep(&self, payment: &Payment, block: u64, head: &Head) -> bool {
        match self.depths.of(payment.terms.money.atoms()) {
            Finality::Blocks(depth) => (head.number + 1).saturating_sub(block) >= depth,
            named => self.reached(named).await.is_some_and(|reached| reached.number >= block),
        }
    }

    /// The newest block that the chain gives this name to.
    async fn reached(&self, named: Finality) -> Option<Head> {
        self.chain.head(named.tag()?).await.ok()?
    }

    /// Whether the authorization was used, or cancelled.
    pub async fn consumed(&self, checked: &Checked, tag: Tag) -> Option<bool> {
        let results = self.chain.read_at(vec![checked.consumed_read()], tag).await.ok()?;
        checked.consumed(results.first()?)
    }

    /// Whether the authorization can never be used any more: it is unused, and past its end in a block that is as deep
    /// as its amount asks of a settlement. `None`: it cannot be told.
    pub async fn is_dead(&self, checked: &Checked) -> Option<bool> {
        let end = checked.expires().plus(DEAD_AFTER);
        if self.tip().await?.timestamp < end {
            return Some(false);
        }
        let head = self.chain.head(Tag::Latest).await.ok()??;
        let past = self.deep_block(checked.money(), &head).await?;
        if past.timestamp < end {
            return Some(false);
        }
        // Read in one named block, which a node that lags does not know: of the newest state, read at another moment
        // or from another node, nothing follows. Unused there is unused in every block before it.
        let read = at(head.number.checked_sub(DEAD_DEPTH)?.max(past.number));
        Some(!self.consumed(checked, read).await?)
    }

    /// The newest block that is as deep as this amount asks of a settlement, and deep enough to prove that there was none.
    pub async fn deep_block(&self, money: &Money, head: &Head) -> Option<Head> {
        match self.depths.of(money.atoms()) {
            Finality::Blocks(depth) => {
                let deep = head.number.checked_sub(DEAD_DEPTH.max(depth.saturating_sub(1)))?;
                self.chain.head(at(deep)).await.ok()?
            }
            named => self.reached(named).await,
        }
    }

    /// Whether the authorization was used or cancelled in a block that is deep enough to stay.
    pub async fn is_consumed_deep(&self, checked: &Checked) -> Option<bool> {
        let head = self.chain.head(Tag::Latest).await.ok()??;
        let deep = self.deep_block(checked.money(), &head).await?;
        self.consumed(checked, at(deep.number)).await
    }

    /// What a receipt proves, if it has this payment's transfer.
    pub async fn proven(
        &self,
        payment: &Payment,
        checked: &Checked,
        receipt: &Receipt,
        fee: Option<Money>,
    ) -> Option<Progress> {
        let found = checked.proof(&receipt.logs).ok()?;
        let proof = Proof {
            tx: TxRef::new(receipt.tx.to_string()),
            witness: Witness::Chain,
            block: receipt.block,
            block_hash: receipt.block_hash,
            log_index: found.log_index,
            fee,
        };
        let head = self.chain.head(Tag::Latest).await.ok()??;
        let deep = self.is_deep(payment, receipt.block, &head).await;
        Some(Progress::Included { proof, deep, slots: Vec::new() })
    }

    /// The receipts of transactions that may have settled a payment: the first that has its transfer.
    pub async fn among(
        &self,
        payment: &Payment,
        checked: &Checked,
        txs: &[TxRef],
        fee: impl Fn(&Receipt) -> Option<Money>,
    ) -> Option<Progress> {
        let hashes = txs.iter().filter_map(parse_hash).collect();
        for receipt in self.chain.receipts(hashes).await.ok()?.into_iter().flatten() {
            if let Some(found) = self.proven(payment, checked, &receipt, fee(&receipt)).await {
                return Some(found);
            }
        }
        None
    }

    /// What became of an authorization, whoever had it: settled, dead (expired unused or spent otherwise, deep enough),
    /// spent otherwise but not deep yet ([`Progress::Reverted`]), or open.
    pub async fn fate(&self, payment: &Payment, checked: &Checked) -> Progress {
        let reason = |found: Reason| payment.reason().cloned().unwrap_or(found);
        match self.consumed(checked, Tag::Latest).await {
            Some(true) => match self.trace(payment, checked).await {
                Progress::Reverted { reason: found, .. }
                    if self.is_consumed_deep(checked).await == Some(true) =>
                {
                    Progress::Dead(reason(found))
                }
                found => found,
            },
            Some(false) if self.is_dead(checked).await == Some(true) => {
                Progress::Dead(reason(reasons::expired()))
            }
            Some(false) | None => Progress::Open,
        }
    }

    /// The authorization was used, and not by a transaction that we know: finds the one that did.
    ///
    /// Absence proves nothing here: a node may have no logs of old blocks. So what is not found stays unclear.
    pub async fn trace(&self, payment: &Payment, checked: &Checked) -> Progress {
        let tx = payment.tx().cloned();
        let unclear = Progress::Unclear { tx: tx.clone() };
        if !checked.trace_is_unambiguous() {
            // Permit2 names no nonce in its logs: whether a transfer belongs to this payment is for a person to say.
            return unclear;
        }
        let Ok(Some(head)) = self.chain.head(Tag::Latest).await else { return Progress::Open };
        let oldest = payment.created.minus(TRACE_MARGIN);
        let mut to_block = head.number;
        for _ in 0..TRACE_PAGES {
            let from_block = to_block.saturating_sub(TRACE_BLOCKS);
            let trace = checked.trace();
            let filter = LogFilter { address: trace.address, topics: trace.topics, from_block, to_block };
            let Ok(found) = self.chain.logs(filter).await else { return Progress::Open };
            for (hash, _) in found {
                let Ok(receipts) = self.chain.receipts(vec![hash]).await else { return Progress::Open };
                let Some(Some(receipt)) = receipts.into_iter().next() else { continue };
                if let Some(found) = self.proven(payment, checked, &receipt, None).await {
                    return found;
                }
                match checked.spent_otherwise(&receipt.logs) {
                    // The payer cancelled it, or the token used it without moving the money: never ours.
                    Some(code) => return Progress::Reverted { reason: Reason::new(code, Fault::Payer), tx },
                    None => continue,
                }
            }
            if from_block == 0 {
                break;
            }
            match self.chain.head(at(from_block)).await {
                Ok(Some(block)) if block.timestamp >= oldest => to_block = from_block,
                Ok(_) => break,
                Err(_) => return Progress::Open,
            }
        }
        unclear
    }

    /// Whether the block that holds a settlement is still in the chain; `None` if it cannot be told.
    pub async fn still_included(&self, proof: &Proof) -> Option<bool> {
        match self.chain.head(at(proof.block)).await.ok()? {
            Some(block) if block.hash == proof.block_hash => Some(true),
            // A node that is behind knows nothing of that block yet.
            None if self.chain.head(Tag::Latest).await.ok()??.number < proof.block => None,
            // Another block has its place: is the transaction in one of the new ones?
            _ => {
                let receipts = self.chain.receipts(vec![parse_hash(&proof.tx)?]).await.ok()?;
                match receipts.into_iter().next()? {
                    Some(receipt) => Some(receipt.block_hash == proof.block_hash),
                    None => Some(false),
                }
            }
        }
    }

    /// The newest block that no reorganization is expected to replace; `None` if the chain does not answer.
    pub async fn unreplaceable(&self) -> Option<u64> {
        let head = self.chain.head(Tag::Latest).await.ok()??;
        Some(head.number.saturating_add(1).saturating_sub(BEYOND_REORGS))
    }

    /// Waits for a settlement that is in a block to be deep enough.
    pub async fn confirm(
        &self,
        payment: &Payment,
        proof: &Proof,
        world: &dyn World,
        patience: Duration,
    ) -> Progress {
        let Ok(seen) = self.chain.head(Tag::Latest).await else {
            world.sleep(patience).await;
            return Progress::Open;
        };
        let Ok(head) = self.chain.next_head(seen, patience).await else { return Progress::Open };
        match self.still_included(proof).await {
            Some(true) => {
                let deep = self.is_deep(payment, proof.block, &head).await;
                Progress::Included { proof: proof.clone(), deep, slots: Vec::new() }
            }
            Some(false) => Progress::Reorged,
            None => Progress::Open,
        }
    }
}
