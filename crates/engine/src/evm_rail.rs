use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_evm::{Key, from_alloy};
use farthing_payment::{Fault, Next, Payment, Proof, Reason, Slot, SlotState, State, TxRef, Witness};
use farthing_primitives::{Address, AssetId, AttemptId, Money, Network, PaymentId, Registry};
use farthing_rails::exact_evm::{Checked, Settlement};
use farthing_rails::pushed_evm::Pushed;

use crate::evidence::{BEYOND_REORGS, DEAD_AFTER, Evidence};
use crate::live::lock;
use crate::rail::{Funds, NotPrepared, Prepared, Progress, Rail};
use crate::relayer::{Relayer, SlotNews, parse_hash};
use crate::{Chain, Depths, Receipt, SlotCall, Store, StoredSlot, Tag, World, reasons};

/// How far our clock may be ahead of the chain's, before it is the chain's that says whether an authorization is over.
const MAX_SKEW: Duration = Duration::from_secs(60);
/// How much more gas than estimated a call is given, in quarters of the estimate.
const GAS_QUARTERS: u64 = 5;
/// Settlements remembered between the check of funds and the attempt.
const MAX_READY: usize = 20_000;

mod close;
mod pushed;
mod refund;

pub(crate) use refund::SETTLEMENT_DEPTH;

/// Settlement by our own relayer on a chain that we read ourselves.
pub struct EvmRail {
    chain: Arc<dyn Chain>,
    relayer: Arc<Relayer>,
    store: Arc<dyn Store>,
    world: Arc<dyn World>,
    evidence: Evidence,
    native: AssetId,
    registry: Registry,
    ready: Mutex<HashMap<PaymentId, Settlement>>,
    /// See [`EvmRail::beyond_reorgs`].
    beyond: u64,
    /// The nonce from which the next look for slots that are done with goes on.
    close_from: Mutex<u64>,
}

impl std::fmt::Debug for EvmRail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EvmRail({:?})", self.relayer)
    }
}

/// The name that the native asset of an EVM chain has in our books.
pub fn native_asset(network: &Network) -> AssetId {
    AssetId::new(network.clone(), Address::from_evm_bytes([0xee; 20]))
}

impl EvmRail {
    pub fn new(
        relayer: Arc<Relayer>,
        store: Arc<dyn Store>,
        world: Arc<dyn World>,
        depths: Depths,
        registry: Registry,
    ) -> Self {
        let chain = relayer.chain().clone();
        let native = native_asset(chain.network());
        let evidence = Evidence::new(chain.clone(), depths);
        Self {
            chain,
            relayer,
            store,
            world,
            evidence,
            native,
            registry,
            ready: Mutex::default(),
            beyond: BEYOND_REORGS,
            close_from: Mutex::default(),
        }
    }

    /// With another depth from which on no reorganization is expected: a settlement is refunded, a refund is done, and
    /// the fee of a transaction that moved nothing is booked, once its block has so many from there to the tip, itself
    /// included. 32 by default.
    #[must_use]
    pub fn beyond_reorgs(self, blocks: u64) -> Self {
        Self { beyond: blocks.max(1), ..self }
    }

    /// Reads the chain for a payment and says how it would be settled.
    async fn ask(&self, checked: &Checked, fresh: bool) -> Result<Settlement, Funds> {
        let reads = checked.reads();
        let results =
            if fresh { self.chain.read_at(reads, Tag::Latest).await } else { self.chain.read(reads).await };
        let results = results.map_err(|error| {
            tracing::warn!(%error, "the chain cannot be read");
            Funds::Unavailable("chain")
        })?;
        let refused = |refusal: farthing_rails::exact_evm::Refusal| match refusal.fault() {
            // An answer that did not come is no refusal.
            Fault::Chain if refusal.may_be_sent_again() => Funds::Unavailable("chain"),
            _ => Funds::Refused(refusal.reason()),
        };
        checked.judge(&results).map(|funded| funded.settlement().clone()).map_err(refused)
    }

    /// The receipt of our own transaction: what does it prove?
    async fn judge_receipt(
        &self,
        payment: &Payment,
        checked: &Checked,
        receipt: &Receipt,
        stored: StoredSlot,
    ) -> Progress {
        let tx = TxRef::new(receipt.tx.to_string());
        let fee = self.fee(receipt);
        if let Ok(found) = checked.proof(&receipt.logs) {
            let proof = Proof {
                tx: tx.clone(),
                witness: Witness::Chain,
                block: receipt.block,
                block_hash: receipt.block_hash,
                log_index: found.log_index,
                fee,
            };
            let Ok(Some(head)) = self.chain.head(Tag::Latest).await else { return Progress::Open };
            let deep = self.evidence.is_deep(payment, receipt.block, &head).await;
            // Waiting for depth, the slot is recorded once only.
            let known = matches!(&payment.state, State::Confirming { proof: known, .. } if *known == proof);
            let slots = if known && !deep { Vec::new() } else { self.recorded(stored, receipt, deep) };
            return Progress::Included { proof, deep, slots };
        }
        // It moved nothing by our hand. Perhaps somebody else submitted the same authorization before us.
        match self.evidence.consumed(checked, Tag::Latest).await {
            Some(true) => {
                let found = self.evidence.trace(payment, checked).await;
                if matches!(found, Progress::Unclear { .. }) {
                    // Nobody can say yet by what. Our own transaction is done with, whatever it was.
                    self.record_reverted(stored, receipt).await;
                }
                found
            }
            Some(false) => {
                self.record_reverted(stored, receipt).await;
                Progress::Reverted {
                    reason: Reason::new("invalid_exact_evm_transaction_failed", Fault::Chain),
                    tx: Some(tx),
                }
            }
            None => Progress::Open,
        }
    }

    /// Nothing is left to do for the slot: a restart need not take it up. If this is not recorded, it does so in vain.
    async fn record_reverted(&self, stored: StoredSlot, receipt: &Receipt) {
        if stored.slot.state != SlotState::Open {
            return;
        }
        if let Err(error) = self.store.save_slots(self.recorded(stored, receipt, false)).await {
            tracing::debug!(%error, "a reverted transaction is not recorded");
        }
    }

    /// The slot as it is once this transaction of it is in a block; nothing, if that is known.
    fn recorded(&self, stored: StoredSlot, receipt: &Receipt, deep: bool) -> Vec<(Option<u64>, Slot)> {
        let tx = TxRef::new(receipt.tx.to_string());
        if deep {
            return match &stored.slot.state {
                SlotState::Final { tx: known } if *known == tx => Vec::new(),
                _ => vec![self.finally(stored, tx)],
            };
        }
        let included = SlotState::Included { tx, block: receipt.block, block_hash: receipt.block_hash };
        if stored.slot.state == included {
            return Vec::new();
        }
        let mut slot = stored.slot;
        slot.state = included;
        slot.updated = self.world.now();
        vec![(Some(stored.version), slot)]
    }

    async fn watch_attempt(&self, payment: &Payment, attempt: AttemptId, patience: Duration) -> Progress {
        let checked = match Checked::recall(&payment.terms.instruction) {
            Ok(checked) => checked,
            Err(error) => {
                tracing::error!(payment = %payment.id, %error, "an instruction cannot be read");
                self.world.sleep(patience).await;
                return Progress::Open;
            }
        };
        // A payment that lapses waits for its end; everything else waits for its slot.
        if matches!(payment.state, State::Lapsing { .. }) {
            self.relayer.release(attempt);
            return self.watch_lapsing(payment, &checked, patience).await;
        }
        match self.relayer.look(attempt, patience).await {
            SlotNews::Included { receipt, stored } => {
                self.judge_receipt(payment, &checked, &receipt, *stored).await
            }
            SlotNews::Lost => match self.evidence.consumed(&checked, Tag::Latest).await {
                Some(true) => self.evidence.trace(payment, &checked).await,
                Some(false) => {
                    self.relayer.release(attempt);
                    Progress::Lost
                }
                None => Progress::Open,
            },
            SlotNews::Untracked => {
                self.retrack(payment).await;
                self.if_over(payment, &checked, patience).await
            }
            SlotNews::Open => self.if_over(payment, &checked, Duration::ZERO).await,
        }
    }

    /// Past the end of the authorization, on the chain's clock, silence becomes proof.
    async fn if_over(&self, payment: &Payment, checked: &Checked, patience: Duration) -> Progress {
        match self.evidence.is_dead(checked).await {
            Some(true) => {
                // Its transactions can move nothing any more, and nobody will ask for news of them.
                self.release(payment);
                Progress::Dead(reasons::expired())
            }
            Some(false) if !self.is_over(checked).await => {
                if !patience.is_zero() {
                    self.world.sleep(patience.min(Duration::from_millis(200))).await;
                }
                Progress::Open
            }
            Some(false) | None => match self.evidence.consumed(checked, Tag::Latest).await {
                Some(true) => match self.evidence.trace(payment, checked).await {
                    // Our own transaction may be the one: its receipt tells more than a trace does.
                    Progress::Included { proof, deep, slots } => Progress::Included { proof, deep, slots },
                    _ => Progress::Open,
                },
                Some(false) | None => Progress::Open,
            },
        }
    }

    /// Whether the authorization is over on the chain's own clock.
    async fn is_over(&self, checked: &Checked) -> bool {
        self.evidence.now().await.is_some_and(|now| now >= checked.expires().plus(DEAD_AFTER))
    }

    /// What became of an authorization that no attempt of ours has shown to anybody: somebody else may have used it.
    async fn watch_unattempted(&self, payment: &Payment, checked: &Checked) -> Progress {
        let found = self.evidence.fate(payment, checked).await;
        match self.or_ours(payment, checked, found).await {
            // Spent otherwise, but not deep enough to be certain.
            Progress::Reverted { .. } => Progress::Open,
            found => found,
        }
    }

    /// What used an authorization no log may name; but a transaction of our own has a receipt, also if it came into the
    /// chain by a reorganization, after nobody waited for it any more.
    async fn or_ours(&self, payment: &Payment, checked: &Checked, found: Progress) -> Progress {
        if !matches!(found, Progress::Unclear { .. }) {
            return found;
        }
        let Ok(slots) = self.store.slots_of(payment.id).await else { return Progress::Open };
        let variants = slots.iter().flat_map(|stored| &stored.slot.variants);
        let txs: Vec<TxRef> = variants.map(|variant| variant.tx.clone()).collect();
        self.evidence.among(payment, checked, &txs, |_| None).await.unwrap_or(found)
    }

    /// A settlement that was found by its trace may be our own: then its fee is ours, and its slot is included.
    async fn owned(&self, payment: &Payment, found: Progress) -> Progress {
        let Progress::Included { proof, deep, slots } = found else { return found };
        if proof.fee.is_some() && (!deep || !slots.is_empty()) {
            return Progress::Included { proof, deep, slots };
        }
        let Ok(stored) = self.store.slots_of(payment.id).await else { return Progress::Open };
        let ours = |stored: &StoredSlot| stored.slot.variants.iter().any(|variant| variant.tx == proof.tx);
        let Some(own) = stored.into_iter().find(ours) else {
            return Progress::Included { proof, deep, slots };
        };
        if proof.fee.is_some() {
            // Its slot was included, and is as deep now as it has to be.
            let done = matches!(own.slot.state, SlotState::Final { .. });
            let slots = if done { Vec::new() } else { vec![self.finally(own, proof.tx.clone())] };
            return Progress::Included { proof, deep, slots };
        }
        let Some(hash) = parse_hash(&proof.tx) else { return Progress::Open };
        let receipt =
            self.chain.receipts(vec![hash]).await.ok().and_then(|found| found.into_iter().next()?);
        // Booked without its fee, it would never be booked with it.
        let Some(receipt) = receipt.filter(|receipt| receipt.block_hash == proof.block_hash) else {
            return Progress::Open;
        };
        let slots = self.recorded(own, &receipt, deep);
        Progress::Included { proof: Proof { fee: self.fee(&receipt), ..proof }, deep, slots }
    }

    async fn watch_lapsing(&self, payment: &Payment, checked: &Checked, patience: Duration) -> Progress {
        let found = self.evidence.fate(payment, checked).await;
        let found = self.or_ours(payment, checked, found).await;
        if matches!(found, Progress::Included { .. } | Progress::Dead(_)) {
            return found;
        }
        self.world.sleep(patience.max(self.chain.block_time())).await;
        Progress::Open
    }

    async fn confirm(&self, payment: &Payment, proof: &Proof, patience: Duration) -> Progress {
        let found = self.evidence.confirm(payment, proof, &*self.world, patience).await;
        if found == Progress::Reorged {
            self.retrack(payment).await;
        }
        found
    }

    fn fee(&self, receipt: &Receipt) -> Option<Money> {
        let wei = receipt.gas_price.checked_mul(u128::from(receipt.gas_used))?;
        Some(Money::new(self.native.clone(), wei))
    }

    /// Takes up the slots of a payment that this process does not watch.
    async fn retrack(&self, payment: &Payment) {
        let Ok(slots) = self.store.slots_of(payment.id).await else { return };
        for stored in slots {
            if stored.slot.relayer == self.relayer.address() && stored.slot.state != SlotState::Lost {
                self.relayer.retrack(stored);
            }
        }
    }
}

#[async_trait]
impl Rail for EvmRail {
    async fn funds(&self, payment: &Payment) -> Funds {
        if let Some(pushed) = pushed_of(payment) {
            return self.pushed_funds(&pushed).await;
        }
        let Ok(checked) = Checked::recall(&payment.terms.instruction) else {
            return Funds::Unavailable("instruction");
        };
        match self.ask(&checked, false).await {
            Ok(settlement) => {
                let mut ready = lock(&self.ready);
                if ready.len() < MAX_READY {
                    ready.insert(payment.id, settlement);
                }
                Funds::Confirmed
            }
            Err(answer) => answer,
        }
    }

    async fn prepare(&self, payment: &Payment) -> Result<Prepared, NotPrepared> {
        if let Some(pushed) = pushed_of(payment) {
            return self.pushed_prepared(&pushed).await;
        }
        let checked = Checked::recall(&payment.terms.instruction)
            .map_err(|_| NotPrepared::Unavailable("instruction"))?;
        // Our clock may be wrong, and where the chain's is far from it, the chain decides: the estimate below runs the
        // call on it.
        if self.world.now() >= checked.expires()
            && self.evidence.now().await.is_none_or(|now| now.plus(MAX_SKEW) >= checked.expires())
        {
            return Err(NotPrepared::Refused(reasons::expired()));
        }
        let ready = lock(&self.ready).remove(&payment.id);
        let settlement = match ready {
            Some(settlement) => settlement,
            None => self.ask(&checked, true).await.map_err(|answer| match answer {
                Funds::Refused(reason) => NotPrepared::Refused(reason),
                Funds::Confirmed | Funds::Unavailable(_) => NotPrepared::Unavailable("chain"),
            })?,
        };
        // Settlement never trusts what was read before: the estimate runs the call on the newest state.
        let to = from_alloy(settlement.to);
        let estimate =
            self.chain.estimate_gas(&self.relayer.address(), &to, settlement.data.clone().into()).await;
        let gas = match estimate {
            Ok(Ok(gas)) => gas,
            Ok(Err(revert)) => return Err(NotPrepared::Refused(checked.reverted(&revert).reason())),
            Err(error) => {
                tracing::warn!(%error, "no estimate");
                return Err(NotPrepared::Unavailable("chain"));
            }
        };
        if gas > settlement.gas_cap {
            let reason = Reason::new("settlement_exceeds_gas_cap", Fault::Payer);
            return Err(NotPrepared::Refused(reason));
        }
        let given = gas.saturating_mul(GAS_QUARTERS) / 4;
        self.relayer.prepare(vec![payment.id], call_of(&settlement, given.min(settlement.gas_cap))).await
    }

    fn abandon(&self, prepared: Prepared) {
        self.relayer.abandon(&prepared);
    }

    async fn submit(&self, payment: &Payment, prepared: Prepared) -> Progress {
        if let Some(pushed) = pushed_of(payment) {
            return self.pushed_submit(payment, &pushed).await;
        }
        self.relayer.submit(&prepared).await;
        let found = self.watch_attempt(payment, prepared.attempt, self.chain.block_time() * 2).await;
        self.owned(payment, found).await
    }

    async fn progress(&self, payment: &Payment, patience: Duration) -> Progress {
        // A block is as deep as it is, whoever made the transfer in it.
        if !matches!(payment.state, State::Confirming { .. })
            && let Some(pushed) = pushed_of(payment)
        {
            return self.pushed_progress(payment, &pushed, patience).await;
        }
        let found = match &payment.state {
            State::Settling { attempt, .. }
            | State::Unknown { attempt, .. }
            | State::Lapsing { attempt, .. } => self.watch_attempt(payment, *attempt, patience).await,
            State::Confirming { proof, .. } => self.confirm(payment, proof, patience).await,
            State::Funded => match Checked::recall(&payment.terms.instruction) {
                Ok(checked) => self.watch_unattempted(payment, &checked).await,
                Err(_) => Progress::Open,
            },
            _ => Progress::Open,
        };
        self.owned(payment, found).await
    }

    fn release(&self, payment: &Payment) {
        lock(&self.ready).remove(&payment.id);
        if let State::Settled { attempt, .. }
        | State::Lapsing { attempt, .. }
        | State::Settling { attempt, .. }
        | State::Unknown { attempt, .. } = &payment.state
        {
            self.relayer.release(*attempt);
        }
    }

    async fn still_included(&self, proof: &Proof) -> Option<bool> {
        self.evidence.still_included(proof).await
    }

    async fn unreplaceable(&self) -> Option<u64> {
        let head = self.chain.head(Tag::Latest).await.ok()??;
        // None yet, on a chain that is younger than that: then any of its blocks may still go.
        Some(head.number.saturating_add(1).saturating_sub(self.beyond))
    }

    async fn retake(&self, payment: &Payment) {
        self.retrack(payment).await;
    }

    async fn prepare_refund(&self, payment: &Payment, key: &Key) -> Result<Prepared, NotPrepared> {
        self.refund_prepared(payment, key).await
    }

    async fn prepare_refund_again(&self, payment: &Payment) -> Result<Prepared, NotPrepared> {
        self.refund_again(payment).await
    }

    async fn submit_refund(&self, prepared: Prepared) {
        self.relayer.submit(&prepared).await;
    }

    async fn refund_progress(&self, payment: &Payment, patience: Duration) -> Progress {
        self.look_at_refund(payment, patience).await
    }

    async fn tend(&self) {
        self.close_slots().await;
    }

    async fn resume(&self) -> Result<(), String> {
        let network = self.chain.network().clone();
        let slots = self
            .store
            .open_slots(&network, &self.relayer.address())
            .await
            .map_err(|error| error.to_string())?;
        for stored in slots {
            let attempt = stored.slot.attempt;
            let payment = match stored.slot.payments.first() {
                Some(id) => self.store.payment(*id).await.map_err(|error| error.to_string())?,
                None => None,
            };
            self.relayer.retrack(stored);
            // Whatever became of its payment, the nonce must be used; but nobody asks for news of it.
            if payment.is_none_or(|payment| payment.next() == Next::Rest) {
                self.relayer.release(attempt);
            }
        }
        Ok(())
    }
}

/// The transfer by its payer that this is a payment by, if it is.
fn pushed_of(payment: &Payment) -> Option<Pushed> {
    Pushed::recall(&payment.terms.instruction)
}

fn call_of(settlement: &Settlement, gas: u64) -> SlotCall {
    SlotCall { to: from_alloy(settlement.to), data: settlement.data.clone().into(), gas }
}
