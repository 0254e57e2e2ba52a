use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::{
    BookCheck, Claim, Claimed, Commit, Credit, ExposureLimit, PaymentFilter, Store, StoreError,
    StoredResponse, StoredSlot,
};
use farthing_ledger::{Account, Balance, Entry, Ledger, Phase, TransferId};
use farthing_payment::{ConsumptionKey, Next, Payment, Slot, SlotState, State};
use farthing_primitives::{Address, AssetId, Money, Network, PaymentId, SlotId, TenantId, Timestamp};

use crate::limits::{answer_expires, capped, forget_from, made_at, over_exposed, sum_too_large};

mod channels;

/// The obvious slow store: what [`crate::SqliteStore`] must agree with, and what simulations run on.
///
/// Deterministic; forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

type Log = (Network, String, u64);
type Name = (TenantId, String, String);

#[derive(Debug, Default)]
struct Inner {
    payments: BTreeMap<PaymentId, Payment>,
    holders: BTreeMap<ConsumptionKey, PaymentId>,
    /// What buyers call their payments, and who has each name now.
    names: BTreeMap<PaymentId, Name>,
    named: BTreeMap<Name, PaymentId>,
    history: BTreeMap<PaymentId, Vec<(u64, String, Timestamp)>>,
    responses: BTreeMap<PaymentId, StoredResponse>,
    credits: BTreeMap<Log, PaymentId>,
    slots: BTreeMap<SlotId, StoredSlot>,
    channels: channels::Channels,
    ledger: Ledger,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is checked whole before any of it is made, so a panic elsewhere left nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.inner().claim(claim)
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.inner().commit(commit)
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        Ok(self.inner().payments.get(&id).cloned())
    }

    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        Ok(self.inner().holder(key).cloned())
    }

    async fn unfinished(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<Payment>, StoreError> {
        let inner = self.inner();
        let open = inner.after(after).filter(|payment| payment.next() != Next::Rest);
        Ok(open.take(capped(limit)).cloned().collect())
    }

    async fn settled_since(
        &self,
        since: Timestamp,
        after: Option<(Timestamp, PaymentId)>,
        limit: usize,
    ) -> Result<Vec<Payment>, StoreError> {
        let inner = self.inner();
        let settled = |payment: &&Payment| matches!(payment.state, State::Settled { .. });
        let mut found: Vec<Payment> =
            inner.payments.values().filter(settled).filter(|p| p.updated >= since).cloned().collect();
        found.retain(|p| after.is_none_or(|after| (p.updated, p.id) < after));
        found.sort_by(|a, b| b.updated.cmp(&a.updated).then(b.id.cmp(&a.id)));
        found.truncate(capped(limit));
        Ok(found)
    }

    async fn payments(&self, filter: PaymentFilter) -> Result<Vec<Payment>, StoreError> {
        let inner = self.inner();
        let found = inner
            .after(filter.after)
            .filter(|p| filter.tenant.as_ref().is_none_or(|tenant| p.tenant == *tenant))
            .filter(|p| filter.payer.as_ref().is_none_or(|payer| p.terms.payer == *payer));
        Ok(found.take(capped(filter.limit)).cloned().collect())
    }

    async fn history(&self, id: PaymentId) -> Result<Vec<(u64, String, Timestamp)>, StoreError> {
        Ok(self.inner().history.get(&id).cloned().unwrap_or_default())
    }

    async fn response(&self, id: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        Ok(self.inner().responses.get(&id).cloned())
    }

    async fn erase_responses(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut inner = self.inner();
        let Inner { responses, payments, .. } = &mut *inner;
        let kept = responses.len();
        responses.retain(|id, _| {
            !payments.get(id).is_some_and(|p| answer_expires(&p.state) && p.updated < before)
        });
        Ok((kept - responses.len()) as u64)
    }

    async fn forget_refused(&self, before: Timestamp) -> Result<u64, StoreError> {
        Ok(self.inner().forget_refused(before))
    }

    async fn mark(&self) -> Result<Timestamp, StoreError> {
        let inner = self.inner();
        let made = inner.payments.last_key_value().map(|(id, _)| made_at(*id));
        let settled = inner.payments.values().filter(|p| matches!(p.state, State::Settled { .. }));
        Ok(settled.map(|p| p.updated).chain(made).max().unwrap_or(Timestamp::from_millis(0)))
    }

    async fn slot(&self, id: SlotId) -> Result<Option<StoredSlot>, StoreError> {
        Ok(self.inner().slots.get(&id).cloned())
    }

    async fn open_slots(&self, network: &Network, relayer: &Address) -> Result<Vec<StoredSlot>, StoreError> {
        let inner = self.inner();
        let of_relayer = inner.slots_of_relayer(network, relayer);
        let mut open: Vec<_> = of_relayer.filter(|s| s.slot.state == SlotState::Open).cloned().collect();
        open.sort_by_key(|stored| (stored.slot.nonce, stored.slot.id));
        Ok(open)
    }

    async fn slot_at(
        &self,
        network: &Network,
        relayer: &Address,
        nonce: u64,
    ) -> Result<Option<StoredSlot>, StoreError> {
        let inner = self.inner();
        let mut of_relayer = inner.slots_of_relayer(network, relayer);
        Ok(of_relayer.find(|s| s.slot.nonce == nonce && s.slot.state != SlotState::Lost).cloned())
    }

    async fn live_slots(
        &self,
        network: &Network,
        relayer: &Address,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredSlot>, StoreError> {
        let inner = self.inner();
        let mut live: Vec<StoredSlot> = inner
            .slots_of_relayer(network, relayer)
            .filter(|s| matches!(s.slot.state, SlotState::Open | SlotState::Included { .. }))
            .filter(|s| s.slot.nonce >= from)
            .cloned()
            .collect();
        live.sort_by_key(|stored| (stored.slot.nonce, stored.slot.id));
        live.truncate(capped(limit));
        Ok(live)
    }

    async fn slots_of(&self, id: PaymentId) -> Result<Vec<StoredSlot>, StoreError> {
        Ok(self.inner().slots.values().filter(|s| s.slot.payments.contains(&id)).cloned().collect())
    }

    async fn save_slots(&self, slots: Vec<(Option<u64>, Slot)>) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let staged = inner.stage_slots(slots)?;
        inner.slots.extend(staged);
        Ok(())
    }

    async fn close_slots(&self, slots: Vec<(Option<u64>, Slot)>, gas: Vec<Entry>) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let staged = inner.stage_slots(slots)?;
        inner.book(&gas)?;
        inner.slots.extend(staged);
        Ok(())
    }

    async fn last_nonce(&self, network: &Network, relayer: &Address) -> Result<Option<u64>, StoreError> {
        Ok(self.inner().slots_of_relayer(network, relayer).map(|s| s.slot.nonce).max())
    }

    async fn exposure(
        &self,
        tenant: &TenantId,
        payer: &Address,
        payee: &Address,
        asset: &AssetId,
    ) -> Result<(Money, Money), StoreError> {
        let (of_payer, of_all) = self.inner().exposure(tenant, payer, payee, asset);
        let money = |atoms: Option<u128>| {
            atoms.map(|atoms| Money::new(asset.clone(), atoms)).ok_or_else(sum_too_large)
        };
        Ok((money(of_payer)?, money(of_all)?))
    }

    async fn balances(&self, tenant: Option<&TenantId>) -> Result<Vec<(Account, Balance)>, StoreError> {
        let inner = self.inner();
        let of_tenant = |account: &Account| tenant.is_none_or(|tenant| account.tenant == *tenant);
        Ok(inner.ledger.balances().filter(|(a, _)| of_tenant(a)).map(|(a, b)| (a.clone(), *b)).collect())
    }

    async fn transfers_of(&self, id: PaymentId) -> Result<Vec<(TransferId, Money, Phase)>, StoreError> {
        let inner = self.inner();
        let own = inner.ledger.transfers().filter(|(transfer, ..)| transfer.payment == id);
        Ok(own.map(|(transfer, _, money, phase)| (transfer, money.clone(), phase)).collect())
    }

    async fn check_books(&self) -> Result<BookCheck, StoreError> {
        let inner = self.inner();
        Ok(BookCheck {
            payments: inner.payments.len() as u64,
            transfers: inner.ledger.transfers().count() as u64,
            accounts: inner.ledger.balances().count() as u64,
            problems: inner.ledger.check().err().map(|error| error.to_string()).into_iter().collect(),
        })
    }

    fn commit_latency(&self) -> Duration {
        Duration::ZERO
    }
}

impl Inner {
    fn claim(&mut self, claim: Claim) -> Result<Claimed, StoreError> {
        let Claim { payment, entries, exposure, name } = claim;
        let name = name.map(|name| (payment.tenant.clone(), payment.terms.payer.to_string(), name));
        if let Some(holder) = self.holder(&payment.key)
            && !cfg!(mutant = "claim")
        {
            return Ok(Claimed::Taken(Box::new(holder.clone())));
        }
        if let Some(other) = name.as_ref().and_then(|name| self.named(name)) {
            return Ok(Claimed::Named(Box::new(other.clone())));
        }
        if payment.version != 0 || self.payments.contains_key(&payment.id) {
            return Err(StoreError::Conflict);
        }
        if exposure.is_some_and(|limit| payment.is_exposed() && self.exceeds(&limit, &payment)) {
            return Ok(Claimed::OverExposed);
        }
        self.book(&entries)?;
        self.names.extend(name.map(|name| (payment.id, name)));
        self.history.insert(payment.id, vec![(0, "claimed".to_owned(), payment.created)]);
        self.put(payment);
        Ok(Claimed::New)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        let Commit { step, event, response, slots, credit, exposure } = commit;
        let stored = self.payments.get(&step.next.id).ok_or(StoreError::Conflict)?;
        if stored.version != step.expected {
            return Err(StoreError::Conflict);
        }
        // What a claim fixed never changes, whatever the commit says of it.
        let next = Payment {
            version: step.next.version,
            round: step.next.round,
            state: step.next.state,
            delivery: step.next.delivery,
            updated: step.next.updated,
            ..stored.clone()
        };
        if !next.releases_claim() && self.holder(&next.key).is_some_and(|holder| holder.id != next.id) {
            return Err(StoreError::Conflict);
        }
        if exposure
            .is_some_and(|limit| next.is_exposed() && !stored.is_exposed() && self.exceeds(&limit, &next))
        {
            return Err(StoreError::OverExposed);
        }
        if let Some(Credit::Take { network, tx, log_index }) = &credit {
            let log = (network.clone(), tx.clone(), *log_index);
            if self.credits.get(&log).is_some_and(|holder| *holder != next.id) {
                return Err(StoreError::AlreadyCredited);
            }
        }
        let staged = self.stage_slots(slots)?;
        self.book(&step.entries)?;

        // From here on nothing can fail.
        self.slots.extend(staged);
        match credit {
            None => {}
            Some(Credit::Take { network, tx, log_index }) => {
                self.credits.insert((network, tx, log_index), next.id);
            }
            Some(Credit::Free) => self.credits.retain(|_, holder| *holder != next.id),
        }
        self.history.entry(next.id).or_default().push((next.version, event.to_owned(), next.updated));
        if let Some(response) = response {
            self.responses.insert(next.id, response);
        }
        self.put(next);
        Ok(())
    }

    /// Whether this payment, which is not among them yet, would make too much of what is exposed.
    fn exceeds(&self, limit: &ExposureLimit, payment: &Payment) -> bool {
        let terms = &payment.terms;
        let (of_payer, of_all) =
            self.exposure(&payment.tenant, &terms.payer, &terms.payee, terms.money.asset());
        let with_this = |sum: Option<u128>| sum?.checked_add(terms.money.atoms());
        over_exposed(limit, with_this(of_payer), with_this(of_all))
    }

    fn put(&mut self, payment: Payment) {
        if let Some(name) = self.names.get(&payment.id) {
            if !payment.releases_claim() {
                self.named.insert(name.clone(), payment.id);
            } else if self.named.get(name) == Some(&payment.id) {
                self.named.remove(name);
            }
        }
        if !payment.releases_claim() {
            self.holders.insert(payment.key.clone(), payment.id);
        } else if self.holders.get(&payment.key) == Some(&payment.id) {
            self.holders.remove(&payment.key);
        }
        self.payments.insert(payment.id, payment);
    }

    fn book(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.ledger.apply(entries).map_err(|error| StoreError::Books(error.to_string()))
    }

    fn named(&self, name: &Name) -> Option<&Payment> {
        self.payments.get(self.named.get(name)?)
    }

    fn forget_refused(&mut self, before: Timestamp) -> u64 {
        let due = |payment: &&Payment| forget_from(payment).is_some_and(|from| from < before);
        let due: Vec<Payment> = self.payments.values().filter(due).cloned().collect();
        let mut forgotten = 0;
        for payment in due {
            let slots = self.slots.values().any(|stored| stored.slot.payments.contains(&payment.id));
            let credited = self.credits.values().any(|holder| *holder == payment.id);
            if slots || credited || !self.ledger.forget_voided(payment.id) {
                continue;
            }
            self.payments.remove(&payment.id);
            self.history.remove(&payment.id);
            self.responses.remove(&payment.id);
            self.holders.retain(|_, holder| *holder != payment.id);
            if let Some(name) = self.names.remove(&payment.id)
                && self.named.get(&name) == Some(&payment.id)
            {
                self.named.remove(&name);
            }
            forgotten += 1;
        }
        forgotten
    }

    fn holder(&self, key: &ConsumptionKey) -> Option<&Payment> {
        self.payments.get(self.holders.get(key)?)
    }

    fn after(&self, after: Option<PaymentId>) -> impl Iterator<Item = &Payment> {
        self.payments.values().filter(move |payment| after.is_none_or(|after| payment.id > after))
    }

    fn exposure(
        &self,
        tenant: &TenantId,
        payer: &Address,
        payee: &Address,
        asset: &AssetId,
    ) -> (Option<u128>, Option<u128>) {
        let (mut of_payer, mut of_all) = (Some(0u128), Some(0u128));
        for payment in self.payments.values().filter(|payment| payment.is_exposed()) {
            let terms = &payment.terms;
            if payment.tenant != *tenant || terms.payee != *payee || terms.money.asset() != asset {
                continue;
            }
            of_all = of_all.and_then(|sum| sum.checked_add(terms.money.atoms()));
            if terms.payer == *payer {
                of_payer = of_payer.and_then(|sum| sum.checked_add(terms.money.atoms()));
            }
        }
        (of_payer, of_all)
    }

    fn slots_of_relayer(&self, network: &Network, relayer: &Address) -> impl Iterator<Item = &StoredSlot> {
        self.slots.values().filter(move |s| s.slot.network == *network && s.slot.relayer == *relayer)
    }

    /// The slots as they would be after these changes.
    fn stage_slots(
        &self,
        changes: Vec<(Option<u64>, Slot)>,
    ) -> Result<BTreeMap<SlotId, StoredSlot>, StoreError> {
        let mut staged: BTreeMap<SlotId, StoredSlot> = BTreeMap::new();
        for (expected, slot) in changes {
            let stored = staged.get(&slot.id).or_else(|| self.slots.get(&slot.id));
            if stored.map(|stored| stored.version) != expected {
                return Err(StoreError::Conflict);
            }
            // A nonce is filled once, so it has one slot, unless a transaction that is not ours took it.
            let same_nonce = |other: &Slot| {
                other.id != slot.id
                    && other.state != SlotState::Lost
                    && (other.nonce, &other.relayer, &other.network)
                        == (slot.nonce, &slot.relayer, &slot.network)
            };
            let unchanged = self.slots.values().filter(|stored| !staged.contains_key(&stored.slot.id));
            if slot.state != SlotState::Lost
                && staged.values().chain(unchanged).any(|stored| same_nonce(&stored.slot))
            {
                return Err(StoreError::Conflict);
            }
            let version = expected.map_or(0, |version| version + 1);
            staged.insert(slot.id, StoredSlot { version, slot });
        }
        Ok(staged)
    }
}
