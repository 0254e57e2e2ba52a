use async_trait::async_trait;
use farthing_channel::{ChannelId, Charge, Payee};
use farthing_engine::{
    Begun, ChannelBegin, ChannelCommit, ChannelFilter, ChannelStore, StoreError, StoredResponse,
};
use farthing_primitives::{PaymentId, RequestHash, Timestamp};

use super::SqliteStore;
use crate::apply::{Answer, Request};
use crate::limits::ERASE_BATCH;
use crate::read::channels as read;

#[async_trait]
impl ChannelStore for SqliteStore {
    async fn begin_channel(&self, begin: ChannelBegin) -> Result<Begun, StoreError> {
        match self.write(Request::begin_channel(begin)).await? {
            Answer::Begun(begun) => Ok(begun),
            _ => Err(StoreError::Unknown("the writer answered another question".to_owned())),
        }
    }

    async fn commit_channel(&self, commit: ChannelCommit) -> Result<(), StoreError> {
        self.write(Request::commit_channel(commit)).await.map(|_| ())
    }

    async fn channel(&self, id: ChannelId) -> Result<Option<Payee>, StoreError> {
        self.read(move |connection| read::channel(connection, id)).await
    }

    async fn channel_of_book(&self, book: PaymentId) -> Result<Option<Payee>, StoreError> {
        self.read(move |connection| read::channel_of_book(connection, book)).await
    }

    async fn channels(&self, filter: ChannelFilter) -> Result<Vec<Payee>, StoreError> {
        self.read(move |connection| read::channels(connection, &filter)).await
    }

    async fn charge(&self, channel: ChannelId, request: RequestHash) -> Result<Option<Charge>, StoreError> {
        self.read(move |connection| read::charge(connection, channel, request)).await
    }

    async fn charges(
        &self,
        channel: ChannelId,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<Vec<Charge>, StoreError> {
        self.read(move |connection| read::charges(connection, channel, after, limit)).await
    }

    async fn charge_answer(&self, charge: PaymentId) -> Result<Option<StoredResponse>, StoreError> {
        self.read(move |connection| read::charge_answer(connection, charge)).await
    }

    async fn erase_charge_answers(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut erased = 0;
        loop {
            let request = Request::erase_charge_answers(before);
            let Answer::Erased(batch) = self.write(Ok(request)).await? else { break };
            erased += batch;
            if batch < u64::from(ERASE_BATCH) {
                break;
            }
        }
        if erased > 0 {
            // As for other answers: the bodies are also in the log, until it is emptied.
            if let Err(error) = self.writer()?.empty_log().await {
                tracing::warn!(%error, "erased answers stay in the log for now");
            }
        }
        Ok(erased)
    }
}
