//! The rail of a payment that no chain settles: a processor is asked to charge, and says what became of it.
//!
//! A [`Processor`] has three calls to write. What is common to all of them is here: an attempt is durable before the
//! processor hears of it, whatever is not certain is asked for again with growing pauses, and a word of *never* ends a
//! payment for good. It is the same [`Rail`] as every other, so that the payment's states, its books and its recovery
//! are those of a payment on a chain.
//!
//! A processor's word is a [`Witness::Facilitator`]: there is no block to look at and none to be reorganized.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farthing_evm::Key;
use farthing_payment::{Payment, Proof, Reason, State, TxRef, Witness};
use farthing_primitives::{AttemptId, Timestamp};

use crate::rail::{Funds, NotPrepared, Prepared, Progress, Rail};
use crate::{World, reasons};

/// How soon a charge of unknown outcome is asked for again, at first and in the end.
const ASK_AGAIN: Duration = Duration::from_secs(3);
const ASK_SELDOM: Duration = Duration::from_secs(60);

/// What became of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The money is the payee's. The processor's name for the charge, in one spelling: it pays for one payment only.
    Paid(TxRef),
    /// Certain: this charge moved no money, and none that bears this payment's name ever will.
    Never(Reason),
    /// It cannot be told. What the processor calls the charge, where it has said.
    Unclear(Option<TxRef>),
}

/// Whoever moves the money of a method.
///
/// The payment's [`Instruction`](farthing_payment::Instruction) is what its method wrote, and all that there is after a
/// restart. Each call bounds its own time.
#[async_trait]
pub trait Processor: Send + Sync {
    /// Whether the charge would be made now, without making it. Called before the upstream is: whoever shows what
    /// buys nothing has the upstream do no work.
    async fn check(&self, payment: &Payment) -> Funds;

    /// Makes the charge. Called at most once for a payment, in the very process that has just made the attempt
    /// durable: so whatever was done in this payment's name before, was not done by us.
    async fn charge(&self, payment: &Payment) -> Fate;

    /// Finds out what became of a charge that began at `since`, perhaps by a process that died before it said a word
    /// to the processor. It may make the charge anew, if that can never move money twice.
    async fn find_out(&self, payment: &Payment, since: Timestamp) -> Fate;
}

/// A rail over a processor.
pub struct ProcessorRail {
    processor: Arc<dyn Processor>,
    world: Arc<dyn World>,
}

impl std::fmt::Debug for ProcessorRail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProcessorRail")
    }
}

impl ProcessorRail {
    pub fn new(processor: Arc<dyn Processor>, world: Arc<dyn World>) -> Self {
        Self { processor, world }
    }
}

fn progress_of(fate: Fate) -> Progress {
    match fate {
        Fate::Paid(tx) => {
            let (block, block_hash, log_index) = (0, [0; 32], 0);
            let proof = Proof { tx, witness: Witness::Facilitator, block, block_hash, log_index, fee: None };
            Progress::Included { proof, deep: true, slots: Vec::new() }
        }
        Fate::Never(reason) => Progress::Dead(reason),
        Fate::Unclear(tx) => Progress::Unclear { tx },
    }
}

#[async_trait]
impl Rail for ProcessorRail {
    async fn funds(&self, payment: &Payment) -> Funds {
        self.processor.check(payment).await
    }

    async fn prepare(&self, payment: &Payment) -> Result<Prepared, NotPrepared> {
        let now = self.world.now();
        // What was served on credit is not given up because our clock says so: the processor has its own.
        if now >= payment.terms.expires && !payment.is_on_credit() {
            return Err(NotPrepared::Refused(reasons::expired()));
        }
        Ok(Prepared { attempt: AttemptId::new(now, self.world.random10()), tx: None, slots: Vec::new() })
    }

    fn abandon(&self, _: Prepared) {}

    async fn submit(&self, payment: &Payment, _: Prepared) -> Progress {
        progress_of(self.processor.charge(payment).await)
    }

    async fn progress(&self, payment: &Payment, patience: Duration) -> Progress {
        // The longer it is unknown, the less another question will tell.
        let age = self.world.now().since(payment.updated);
        let pause = (age / 8).clamp(ASK_AGAIN, ASK_SELDOM);
        match &payment.state {
            State::Settling { since, .. } | State::Unknown { since, .. } => {
                let since = *since;
                self.world.sleep(patience.max(pause)).await;
                match progress_of(self.processor.find_out(payment, since).await) {
                    // Nothing new; and whoever waits may be told that it takes longer.
                    Progress::Unclear { .. } if matches!(payment.state, State::Unknown { .. }) => {
                        Progress::Open
                    }
                    found => found,
                }
            }
            // Nobody was asked to charge yet: nothing is waited for.
            State::Funded => Progress::Open,
            _ => {
                self.world.sleep(patience.max(pause)).await;
                Progress::Open
            }
        }
    }

    fn release(&self, _: &Payment) {}

    async fn still_included(&self, _: &Proof) -> Option<bool> {
        None
    }

    async fn prepare_refund(&self, _: &Payment, _: &Key) -> Result<Prepared, NotPrepared> {
        // A refund is signed by the payee's key, and a processor knows no such thing: the engine has refused it before.
        Err(NotPrepared::Unavailable("a refund by this method"))
    }

    async fn submit_refund(&self, _: Prepared) {}

    async fn refund_progress(&self, _: &Payment, patience: Duration) -> Progress {
        self.world.sleep(patience).await;
        Progress::Open
    }

    async fn resume(&self) -> Result<(), String> {
        Ok(())
    }
}
