use std::time::Duration;

use farthing_evm::Key;
use farthing_payment::{Event, Payment, Proof, Role, State};
use farthing_primitives::{Network, PaymentId, RefundId};
use futures_channel::oneshot;

use crate::evm_rail::SETTLEMENT_DEPTH;
use crate::live::lock;
use crate::rail::{NotPrepared, Prepared, Progress, Rail};
use crate::{Commit, Engine, StoreError};

/// How long one look at a refund may wait for news.
const LOOK_FOR: Duration = Duration::from_secs(2);
/// The least time between two looks without news.
const AT_LEAST: Duration = Duration::from_millis(100);
/// How long a store that cannot be used is left alone, and a refund that moved nothing before it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a caller of [`Engine::refund`] waits for depth before it is told to ask again.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How often such a caller looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What became of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refunded {
    /// The money is back with its payer, too deep to be reorganized.
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
    /// Not supported: what a processor holds, only it can send back.
    #[error("{id} is held on {network}, which nobody's key can send back: refund it where it is held")]
    Elsewhere { id: PaymentId, network: Network },
    /// What a reorganization may still take away is not sent back.
    #[error("the settlement of {0} is not deep enough yet to be sent back; ask again later")]
    TooEarly(PaymentId),
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
    ///
    /// It is sent once its settlement is too deep to be reorganized, and done once it is so itself. Until then it is
    /// followed by this process and the next ones: sent again if it moved nothing, or if its block is gone, and given
    /// up with proof only that it can move nothing any more.
    pub async fn refund(&self, id: PaymentId, key: &Key) -> Result<Refunded, RefundError> {
        let payment = self.0.store.payment(id).await?.ok_or(RefundError::NoPayment(id))?;
        let not_refundable = RefundError::NotRefundable { id, state: payment.state.name() };
        if payment.role != Role::Seller {
            return Err(not_refundable);
        }
        let refund = match &payment.state {
            State::Refunded { refund, refund_proof, .. } => {
                return Ok(Refunded::Done { refund: *refund, proof: refund_proof.clone() });
            }
            State::Refunding { refund, .. } => *refund,
            State::Settled { .. } => self.start_refund(payment, key).await?,
            _ => return Err(not_refundable),
        };
        self.drive_refund(id);
        self.await_refund(id, refund).await
    }

    async fn start_refund(&self, payment: Payment, key: &Key) -> Result<RefundId, RefundError> {
        let network = payment.terms.money.asset().network();
        if payment.terms.payee.evm_bytes().is_none() {
            return Err(RefundError::Elsewhere { id: payment.id, network: network.clone() });
        }
        let signer = farthing_evm::from_alloy(key.address());
        if signer != payment.terms.payee {
            let (key, payee) = (signer.to_string(), payment.terms.payee.to_string());
            return Err(RefundError::WrongKey { key, payee });
        }
        let rail = self.0.rails.get(network).cloned().ok_or(RefundError::Unavailable("network"))?;
        let prepared = rail.prepare_refund(&payment, key).await.map_err(|why| match why {
            NotPrepared::Refused(reason) => RefundError::Refused(reason.code().to_owned()),
            NotPrepared::Unavailable(SETTLEMENT_DEPTH) => RefundError::TooEarly(payment.id),
            NotPrepared::Unavailable(what) => RefundError::Unavailable(what),
        })?;
        let refund = RefundId::new(self.0.world.now(), self.0.world.random10());
        let event = Event::RefundStarted { refund, tx: prepared.tx.clone() };
        // Done to its end whatever becomes of who asked for it: what is durable goes out, and is followed.
        let (engine, (tell, told)) = (self.clone(), oneshot::channel());
        self.0.world.spawn(Box::pin(async move {
            let sent = engine.send_refund(&*rail, &payment, event, prepared).await;
            if sent.is_ok() {
                engine.drive_refund(payment.id);
            }
            // Nobody waits for it any more, then.
            let _ = tell.send(sent);
        }));
        told.await.unwrap_or_else(|_| Err(StoreError::Unknown("stopping".to_owned())))?;
        Ok(refund)
    }

    /// Makes a transaction of the refund durable, and then visible.
    async fn send_refund(
        &self,
        rail: &dyn Rail,
        payment: &Payment,
        event: Event,
        prepared: Prepared,
    ) -> Result<(), StoreError> {
        let name = event.name();
        let step = match payment.step(event, self.0.clock.stamp()) {
            Ok(step) => step,
            Err(error) => {
                rail.abandon(prepared);
                return Err(StoreError::Books(error.to_string()));
            }
        };
        let mut commit = Commit::new(step, name);
        commit.slots.clone_from(&prepared.slots);
        if let Err(error) = self.0.store.commit(commit).await {
            if matches!(error, StoreError::Unknown(_)) {
                // If it is durable, it goes out, and has to be followed.
                self.drive_refund(payment.id);
            } else {
                rail.abandon(prepared);
            }
            return Err(error);
        }
        rail.submit_refund(prepared).await;
        Ok(())
    }

    /// Waits until somebody has followed the refund to its end, or patience is out.
    async fn await_refund(&self, id: PaymentId, refund: RefundId) -> Result<Refunded, RefundError> {
        let started = self.0.world.monotonic();
        loop {
            match self.0.store.payment(id).await {
                Ok(Some(Payment { state: State::Refunded { refund, refund_proof, .. }, .. })) => {
                    return Ok(Refunded::Done { refund, proof: refund_proof });
                }
                Ok(Some(Payment { state: State::Refunding { .. }, .. })) | Err(_) => {}
                Ok(_) => return Err(RefundError::Refused("refund_moved_nothing".to_owned())),
            }
            if self.0.world.monotonic().saturating_sub(started) >= ANSWER_WITHIN {
                return Ok(Refunded::Pending { refund });
            }
            self.0.world.sleep(LOOK_EVERY).await;
        }
    }

    /// Follows a refund to its end in a task of its own, if none does.
    pub(crate) fn drive_refund(&self, id: PaymentId) {
        if !lock(&self.0.refunds).insert(id) {
            return;
        }
        let engine = self.clone();
        self.0.world.spawn(Box::pin(async move {
            engine.follow_refund(id).await;
            lock(&engine.0.refunds).remove(&id);
        }));
    }

    async fn follow_refund(&self, id: PaymentId) {
        loop {
            let payment = match self.0.store.payment(id).await {
                Ok(Some(payment)) if matches!(payment.state, State::Refunding { .. }) => payment,
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(payment = %id, %error, "a refund cannot be read");
                    self.0.world.sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            let network = payment.terms.money.asset().network();
            let Some(rail) = self.0.rails.get(network).cloned() else {
                return tracing::error!(payment = %id, %network, "no rail is configured for a refund");
            };
            let looked = self.0.world.monotonic();
            let pause = match self.look_at_refund(&*rail, &payment).await {
                // A look that came back at once found something out of order: not again at once.
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(payment = %id, %error, "a change of a refund could not be made durable");
                    RETRY_AFTER
                }
            };
            let took = self.0.world.monotonic().saturating_sub(looked);
            self.0.world.sleep(pause.saturating_sub(took)).await;
        }
    }

    /// Takes in what became of a refund. Returns the least time before the next look.
    async fn look_at_refund(&self, rail: &dyn Rail, payment: &Payment) -> Result<Duration, StoreError> {
        match rail.refund_progress(payment, LOOK_FOR).await {
            Progress::Included { proof, deep: true, slots } => {
                let event = Event::RefundIncluded { proof };
                let name = event.name();
                let step = payment
                    .step(event, self.0.clock.stamp())
                    .map_err(|error| StoreError::Books(error.to_string()))?;
                let mut commit = Commit::new(step, name);
                commit.slots = slots;
                self.0.store.commit(commit).await?;
            }
            Progress::Dead(reason) => {
                self.commit(payment, Event::RefundDropped).await?;
                tracing::warn!(payment = %payment.id, %reason, "a refund moved nothing, and never will");
            }
            // Its authorization lives, and the token takes it once: trying anew can never pay twice.
            Progress::Lost => match rail.prepare_refund_again(payment).await {
                Ok(prepared) => {
                    let event = Event::RefundReplaced { tx: prepared.tx.clone() };
                    self.send_refund(rail, payment, event, prepared).await?;
                }
                Err(why) => {
                    tracing::warn!(payment = %payment.id, ?why, "a refund cannot be sent again yet");
                    return Ok(RETRY_AFTER);
                }
            },
            _ => {}
        }
        Ok(AT_LEAST)
    }
}
