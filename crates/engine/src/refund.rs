use std::time::Duration;

use farthing_evm::Key;
use farthing_payment::{Event, Payment, Proof, Role, State};
use farthing_primitives::{PaymentId, RefundId};

use crate::rail::{NotPrepared, Progress};
use crate::{Commit, Engine, StoreError};

/// How long one look at a refund may wait for news.
const LOOK_FOR: Duration = Duration::from_secs(2);
/// The least time between two looks without news.
const AT_LEAST: Duration = Duration::from_millis(100);
/// How long a caller of [`Engine::refund`] waits for depth before it is told to ask again.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What became of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refunded {
    /// The money is back with its payer.
    Done { refund: RefundId, proof: Proof },
    /// It is on its way. Asking again never sends a second one.
    Pending { refund: RefundId },
}

/// Why there is no refund.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefundError {
    #[error("there is no payment {0}")]
    NoPayment(PaymentId),
    #[error("the payment {id} is {state}: only a settled sale of ours can be refunded")]
    NotRefundable { id: PaymentId, state: &'static str },
    #[error("the key is of {key}, but the money went to {payee}")]
    WrongKey { key: String, payee: String },
    #[error("the refund would not settle: {0}")]
    Refused(String),
    #[error("{0} cannot be asked now; nothing was sent")]
    Unavailable(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Sends a settled payment back to its payer, once, however often this is called.
    ///
    /// The payee's key signs an authorization whose nonce is derived from the payment's id, so the token itself
    /// refuses a second one, also after a crash between signing and storing.
    pub async fn refund(&self, id: PaymentId, key: &Key) -> Result<Refunded, RefundError> {
        let payment = self.0.store.payment(id).await?.ok_or(RefundError::NoPayment(id))?;
        let state = payment.state.name();
        let not_refundable = RefundError::NotRefundable { id, state };
        if payment.role != Role::Seller {
            return Err(not_refundable);
        }
        let payment = match &payment.state {
            State::Refunded { refund, refund_proof, .. } => {
                return Ok(Refunded::Done { refund: *refund, proof: refund_proof.clone() });
            }
            State::Refunding { .. } => payment,
            State::Settled { .. } => self.start_refund(payment, key).await?,
            _ => return Err(not_refundable),
        };
        self.follow_refund(payment, ANSWER_WITHIN).await
    }

    async fn start_refund(&self, payment: Payment, key: &Key) -> Result<Payment, RefundError> {
        let signer = farthing_evm::from_alloy(key.address());
        if signer != payment.terms.payee {
            let (key, payee) = (signer.to_string(), payment.terms.payee.to_string());
            return Err(RefundError::WrongKey { key, payee });
        }
        let network = payment.terms.money.asset().network();
        let rail = self.0.rails.get(network).ok_or(RefundError::Unavailable("network"))?;
        let prepared = rail.prepare_refund(&payment, key).await.map_err(|why| match why {
            NotPrepared::Refused(reason) => RefundError::Refused(reason.code().to_owned()),
            NotPrepared::Unavailable(what) => RefundError::Unavailable(what),
        })?;
        let refund = RefundId::new(self.0.world.now(), self.0.world.random10());
        let event = Event::RefundStarted { refund, tx: prepared.tx.clone() };
        let step = payment
            .step(event, self.0.clock.stamp())
            .map_err(|error| StoreError::Books(error.to_string()))?;
        let next = step.next.clone();
        let mut commit = Commit::new(step, "refund_started");
        commit.slots.clone_from(&prepared.slots);
        if let Err(error) = self.0.store.commit(commit).await {
            if !matches!(error, StoreError::Unknown(_)) {
                rail.abandon(prepared);
            }
            return Err(error.into());
        }
        rail.submit_refund(prepared).await;
        Ok(next)
    }

    /// Watches a refund until it is deep enough, or patience is out.
    pub(crate) async fn follow_refund(
        &self,
        mut payment: Payment,
        patience: Duration,
    ) -> Result<Refunded, RefundError> {
        let network = payment.terms.money.asset().network();
        let rail = self.0.rails.get(network).ok_or(RefundError::Unavailable("network"))?.clone();
        let started = self.0.world.monotonic();
        loop {
            let State::Refunding { refund, .. } = payment.state else {
                let state = payment.state.name();
                return Err(RefundError::NotRefundable { id: payment.id, state });
            };
            let looked = self.0.world.monotonic();
            match rail.refund_progress(&payment, LOOK_FOR).await {
                Progress::Included { proof, deep: true, .. } => {
                    self.commit(&payment, Event::RefundIncluded { proof: proof.clone() }).await?;
                    return Ok(Refunded::Done { refund, proof });
                }
                Progress::Reverted { reason, .. } => {
                    payment = self.commit(&payment, Event::RefundDropped).await?;
                    tracing::warn!(payment = %payment.id, %reason, "a refund moved nothing");
                    return Err(RefundError::Refused(reason.code().to_owned()));
                }
                _ if self.0.world.monotonic().saturating_sub(started) >= patience => {
                    return Ok(Refunded::Pending { refund });
                }
                // A look that came back at once found something out of order: not again at once.
                _ => {
                    let took = self.0.world.monotonic().saturating_sub(looked);
                    self.0.world.sleep(AT_LEAST.saturating_sub(took)).await;
                }
            }
        }
    }

    /// Follows a refund that a former process began, in a task of its own.
    pub(crate) fn drive_refund(&self, payment: Payment) {
        let engine = self.clone();
        self.0.world.spawn(Box::pin(async move {
            let id = payment.id;
            if let Err(error) = engine.follow_refund(payment, Duration::MAX).await {
                tracing::error!(payment = %id, %error, "a refund cannot be followed");
            }
        }));
    }
}
