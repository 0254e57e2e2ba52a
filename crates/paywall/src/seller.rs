use std::sync::Arc;

use async_trait::async_trait;
use farthing_engine::{BoxFuture, Engine, Sale, SaleOutcome, StoreError, Upstream};
use farthing_payment::{ConsumptionKey, Payment};
use farthing_primitives::PaymentId;

/// What sells: the engine, or a stand-in for it in tests.
#[async_trait]
pub trait Seller: Send + Sync {
    async fn sell(&self, sale: Sale, upstream: Arc<dyn Upstream>) -> SaleOutcome;

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError>;

    /// The payment that holds this key. A payer who asks again for what was paid must be recognised even after the
    /// offer or the authorization has lapsed; to challenge it then would be to have it pay twice.
    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError>;

    /// The stored answer of a payment of MPP is gone to whoever paid, all of it: it is not given again.
    fn sent(&self, payment: &Payment) -> BoxFuture<'static, ()>;
}

#[async_trait]
impl Seller for Engine {
    async fn sell(&self, sale: Sale, upstream: Arc<dyn Upstream>) -> SaleOutcome {
        Engine::sell(self, sale, upstream).await
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        self.status(id).await
    }

    async fn holder(&self, key: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        self.store().holder(key).await
    }

    fn sent(&self, payment: &Payment) -> BoxFuture<'static, ()> {
        Engine::sent(self, payment)
    }
}
