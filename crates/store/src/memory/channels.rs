use std::collections::BTreeMap;

use async_trait::async_trait;
use farthing_channel::{Again, ChannelId, Charge, Payee};
use farthing_engine::{
    Begun, ChannelBegin, ChannelCommit, ChannelFilter, ChannelStore, MAX_KEPT_ANSWERS, StoreError,
    StoredResponse, is_at_work,
};
use farthing_primitives::{PaymentId, RequestHash, Timestamp};

use super::{Inner, MemoryStore};
use crate::limits::capped;

#[derive(Debug, Default)]
pub(super) struct Channels {
    payees: BTreeMap<ChannelId, Payee>,
    charges: BTreeMap<PaymentId, OfChannel>,
    answers: BTreeMap<PaymentId, Kept>,
    kept: u64,
}

#[derive(Debug, Clone)]
struct OfChannel {
    channel: ChannelId,
    charge: Charge,
    current: bool,
}

#[derive(Debug)]
struct Kept {
    /// Counts the answers that ever were stored.
    order: u64,
    channel: ChannelId,
    stored: Timestamp,
    response: StoredResponse,
}

#[async_trait]
impl ChannelStore for MemoryStore {
    async fn begin_channel(&self, begin: ChannelBegin) -> Result<Begun, StoreError> {
        let mut inner = self.inner();
        let ChannelBegin { payee, slots } = begin;
        if let Some(known) = inner.channels.payees.get(&payee.terms().id) {
            return Ok(Begun::Known(Box::new(known.clone())));
        }
        if inner.channels.payees.values().any(|other| other.book() == payee.book()) {
            return Err(StoreError::Conflict);
        }
        let staged = inner.stage_slots(slots)?;
        inner.slots.extend(staged);
        inner.channels.payees.insert(payee.terms().id, payee);
        Ok(Begun::New)
    }

    async fn commit_channel(&self, commit: ChannelCommit) -> Result<(), StoreError> {
        self.inner().commit_channel(commit)
    }

    async fn channel(&self, id: ChannelId) -> Result<Option<Payee>, StoreError> {
        Ok(self.inner().channels.payees.get(&id).cloned())
    }

    async fn channel_of_book(&self, book: PaymentId) -> Result<Option<Payee>, StoreError> {
        Ok(self.inner().channels.payees.values().find(|payee| payee.book() == book).cloned())
    }

    async fn channels(&self, filter: ChannelFilter) -> Result<Vec<Payee>, StoreError> {
        let inner = self.inner();
        let found = inner
            .channels
            .payees
            .values()
            .filter(|payee| filter.after.is_none_or(|after| payee.terms().id > after))
            .filter(|payee| filter.tenant.as_ref().is_none_or(|tenant| payee.tenant() == tenant))
            .filter(|payee| !filter.at_work || is_at_work(payee));
        Ok(found.take(capped(filter.limit)).cloned().collect())
    }

    async fn charge(&self, channel: ChannelId, request: RequestHash) -> Result<Option<Charge>, StoreError> {
        Ok(self.inner().channels.current(channel, request).map(|of| of.charge.clone()))
    }

    async fn charges(
        &self,
        channel: ChannelId,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<Vec<Charge>, StoreError> {
        let inner = self.inner();
        let all = inner.channels.charges.values().filter(|of| of.channel == channel);
        let after = all.filter(|of| after.is_none_or(|after| of.charge.id > after));
        Ok(after.take(capped(limit)).map(|of| of.charge.clone()).collect())
    }

    async fn charge_answer(&self, charge: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        Ok(self.inner().channels.answers.get(&charge).map(|kept| kept.response.clone()))
    }

    async fn erase_charge_answers(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut inner = self.inner();
        let answers = &mut inner.channels.answers;
        let were = answers.len();
        answers.retain(|_, kept| kept.stored >= before);
        Ok((were - answers.len()) as u64)
    }
}

impl Inner {
    fn commit_channel(&mut self, commit: ChannelCommit) -> Result<(), StoreError> {
        let ChannelCommit { step, answer, slots } = commit;
        let next = step.next;
        let id = next.terms().id;
        let stored = self.channels.payees.get(&id).ok_or(StoreError::Conflict)?;
        let same = stored.book() == next.book()
            && stored.tenant() == next.tenant()
            && stored.version() == step.expected;
        if !same {
            return Err(StoreError::Conflict);
        }
        let charges = self.channels.stage(id, step.charges)?;
        if let Some((charge, _)) = &answer
            && charges
                .get(charge)
                .or_else(|| self.channels.charges.get(charge))
                .is_none_or(|of| of.channel != id)
        {
            return Err(StoreError::Conflict);
        }
        let staged = self.stage_slots(slots)?;
        self.book(&step.entries)?;

        // From here on nothing can fail.
        self.slots.extend(staged);
        self.channels.charges.extend(charges);
        if let Some((charge, response)) = answer {
            self.channels.keep(id, charge, response, next.updated());
        }
        self.channels.payees.insert(id, next);
        Ok(())
    }
}

impl Channels {
    fn current(&self, channel: ChannelId, request: RequestHash) -> Option<&OfChannel> {
        self.charges.values().find(|of| of.current && of.channel == channel && of.charge.request == request)
    }

    /// The charges as they would be after these changes.
    fn stage(
        &self,
        channel: ChannelId,
        changes: Vec<Charge>,
    ) -> Result<BTreeMap<PaymentId, OfChannel>, StoreError> {
        let mut staged: BTreeMap<PaymentId, OfChannel> = BTreeMap::new();
        for charge in changes {
            if let Some(known) = staged.get(&charge.id).or_else(|| self.charges.get(&charge.id)) {
                if known.channel != channel || known.charge.request != charge.request {
                    return Err(StoreError::Conflict);
                }
                let current = known.current;
                staged.insert(charge.id, OfChannel { channel, charge, current });
                continue;
            }
            let same =
                |of: &&OfChannel| of.current && of.channel == channel && of.charge.request == charge.request;
            let unchanged = self.charges.values().filter(|of| !staged.contains_key(&of.charge.id));
            let former = staged.values().chain(unchanged).find(same).cloned();
            if let Some(former) = former {
                if former.charge.again() != Again::Start {
                    return Err(StoreError::Conflict);
                }
                staged.insert(former.charge.id, OfChannel { current: false, ..former });
            }
            staged.insert(charge.id, OfChannel { channel, charge, current: true });
        }
        Ok(staged)
    }

    fn keep(&mut self, channel: ChannelId, charge: PaymentId, response: StoredResponse, stored: Timestamp) {
        self.kept += 1;
        self.answers.insert(charge, Kept { order: self.kept, channel, stored, response });
        let mut of_channel: Vec<(u64, PaymentId)> = self
            .answers
            .iter()
            .filter(|(_, kept)| kept.channel == channel)
            .map(|(id, kept)| (kept.order, *id))
            .collect();
        of_channel.sort_unstable();
        let surplus = of_channel.len().saturating_sub(MAX_KEPT_ANSWERS);
        for (_, id) in of_channel.into_iter().take(surplus) {
            self.answers.remove(&id);
        }
    }
}
