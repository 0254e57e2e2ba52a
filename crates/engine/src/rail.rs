use std::time::Duration;

use async_trait::async_trait;
use farthing_evm::Key;
use farthing_payment::{Payment, Proof, Reason, Slot, TxRef};
use farthing_primitives::AttemptId;

/// What the rail says of a payment that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Funds {
    /// It would settle now.
    Confirmed,
    /// It would not.
    Refused(Reason),
    /// The rail cannot be asked. Nothing is concluded.
    Unavailable(&'static str),
}

/// An attempt that is ready to be made durable, and after that visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub attempt: AttemptId,
    pub tx: Option<TxRef>,
    pub slots: Vec<(Option<u64>, Slot)>,
}

/// Why no attempt can be prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPrepared {
    /// It would move no money now.
    Refused(Reason),
    /// Not now: try again later.
    Unavailable(&'static str),
}

/// What is known of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing new.
    Open,
    /// The transfer is in a block; `deep` tells whether as deep as the amount asks for. `slots` records it.
    Included { proof: Proof, deep: bool, slots: Vec<(Option<u64>, Slot)> },
    /// The attempt was included, or answered, and moved nothing.
    Reverted { reason: Reason, tx: Option<TxRef> },
    /// The answer was ambiguous.
    Unclear { tx: Option<TxRef> },
    /// The attempt can never be included.
    Lost,
    /// The authorization expired unused, deep enough.
    Dead(Reason),
    /// What was included is not in the chain any more.
    Reorged,
}

/// A way to make payments final. An attempt is opaque to the engine: a relayer's slot, a facilitator's request.
#[async_trait]
pub trait Rail: Send + Sync {
    /// Whether the payment would settle now.
    async fn funds(&self, payment: &Payment) -> Funds;

    /// Makes an attempt ready. Nothing of it is visible to anybody yet.
    async fn prepare(&self, payment: &Payment) -> Result<Prepared, NotPrepared>;

    /// The commit of this attempt was refused: it was never made.
    fn abandon(&self, prepared: Prepared);

    /// The attempt is durable: makes it visible.
    async fn submit(&self, payment: &Payment, prepared: Prepared) -> Progress;

    /// What is known of the payment's attempt: at once if there is news, else after about `patience`.
    async fn progress(&self, payment: &Payment, patience: Duration) -> Progress;

    /// The payment's attempt needs no more watching.
    fn release(&self, payment: &Payment);

    /// Whether the block that holds the payment's settlement is still in the chain; `None` if it cannot be told.
    async fn still_included(&self, proof: &Proof) -> Option<bool>;

    /// The newest block that no reorganization is expected to replace; `None` if it cannot be told. Where the chain is
    /// none of ours to look at, any.
    async fn unreplaceable(&self) -> Option<u64> {
        Some(u64::MAX)
    }

    /// The block that held the payment's settlement is gone: takes the attempt up again at once.
    async fn retake(&self, _payment: &Payment) {}

    /// Makes a transfer back to the payer ready, signed by the payee's key. At most one per payment can ever settle.
    async fn prepare_refund(&self, payment: &Payment, key: &Key) -> Result<Prepared, NotPrepared>;

    /// Makes the same refund ready once more, after its transactions moved nothing. Whatever there is of it already, at
    /// most one can ever settle.
    async fn prepare_refund_again(&self, _payment: &Payment) -> Result<Prepared, NotPrepared> {
        Err(NotPrepared::Unavailable("refund"))
    }

    /// The refund is durable: makes it visible.
    async fn submit_refund(&self, prepared: Prepared);

    /// What is known of the payment's refund: at once if there is news, else after about `patience`.
    ///
    /// Deep means here: too deep to be reorganized. [`Progress::Lost`]: it moved nothing so far, and may be made ready
    /// again. [`Progress::Dead`]: it moved nothing, and never will.
    async fn refund_progress(&self, payment: &Payment, patience: Duration) -> Progress;

    /// What is to be done now and then, whatever the payments do.
    async fn tend(&self) {}

    /// Takes up what a former process left. Called once, before anything else.
    async fn resume(&self) -> Result<(), String>;
}
