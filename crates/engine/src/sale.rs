use async_trait::async_trait;
use farthing_payment::{Binding, ConsumptionKey, Fault, Flow, Payment, Reason, Terms, TxRef};
use farthing_primitives::{PaymentId, TenantId};

use crate::{ExposureLimit, StoredResponse};

/// A payment that a buyer showed for a request, with all that was checked without reading the chain.
#[derive(Debug, Clone)]
pub struct Sale {
    pub tenant: TenantId,
    pub key: ConsumptionKey,
    pub terms: Terms,
    pub binding: Binding,
    pub flow: Flow,
    /// For [`Flow::Background`] only; `None` there means no exposure at all.
    pub exposure: Option<ExposureLimit>,
    /// What the buyer calls the payment, if it does: its idempotency key.
    pub name: Option<String>,
}

/// What stands behind the paywall. Called by the engine's own task, never by a request's.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Calls the upstream once and reads its whole answer. Cancelling the returned future must be safe.
    async fn call(&self, payment: &Payment) -> UpstreamAnswer;
}

/// What the upstream said.
#[derive(Debug, Clone)]
pub enum UpstreamAnswer {
    /// A complete answer worth charging for: status 200 to 299, not truncated, within the limits.
    Complete(StoredResponse),
    /// Anything else. `response` is what the payer is shown, uncharged.
    Failed { reason: Reason, response: Option<StoredResponse> },
}

/// What became of a sale. Every variant has one HTTP form, and only the first three carry goods.
#[derive(Debug)]
pub enum SaleOutcome {
    /// Paid and served; or paid and served before, and shown again within the replay time.
    Served { payment: Box<Payment>, response: StoredResponse },
    /// Paid (upfront) or claimed and funded (background): the caller now calls the upstream itself, streams the
    /// answer, and tells the permit how it went.
    Deliver { payment: Box<Payment>, permit: Permit },
    /// Settled, with nothing of ours to deliver: the outcome of [`Engine::relay`](crate::Engine::relay).
    Settled { payment: Box<Payment> },
    /// The upstream's answer was not worth charging for; nothing was charged.
    NotCharged { payment: Box<Payment>, reason: Reason, response: Option<StoredResponse> },
    /// No money moved, and we shall not try: the payer may be challenged again.
    Refused { reason: Reason },
    /// The attempt came to nothing. The payer must not be challenged to sign again before the authorization
    /// lapses, but is told what happened.
    SettlementFailed { payment: Box<Payment>, reason: Reason, tx: Option<TxRef> },
    /// It cannot be told yet. 503 with `settlement_pending`: ask again with the same payment.
    Pending { payment: PaymentId, tx: Option<TxRef> },
    /// The same authorization is for another request, or was used up. 409.
    Conflict { payment: PaymentId, kind: ConflictKind },
    /// The payee would be exposed to more than the limit. 402 without goods; nothing was claimed.
    OverExposed,
    /// The store, the chain or the facilitator cannot be asked. 503; nothing was served.
    Unavailable { what: &'static str },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConflictKind {
    /// The payment was made for another request.
    OtherRequest,
    /// It was served, and the time for showing the answer again is over.
    UsedUp,
    /// It was interrupted while the upstream worked, and calling that again is not safe.
    Interrupted,
    /// Somebody else is being served with it right now.
    InProgress,
    /// The buyer gave its name to another payment before.
    NameTaken,
}

impl ConflictKind {
    /// The stable code that a peer sees.
    pub const fn code(self) -> &'static str {
        match self {
            Self::OtherRequest => "payment_for_other_request",
            Self::UsedUp => "payment_already_used",
            Self::Interrupted => "payment_interrupted",
            Self::InProgress => "payment_in_progress",
            Self::NameTaken => "payment_identifier_taken",
        }
    }
}

/// Tells how a delivery went.
type Report = Box<dyn FnOnce(Result<(), Reason>) + Send>;

/// The right and the duty to deliver. Dropping it unreported counts as a failed delivery.
pub struct Permit {
    report: Option<Report>,
}

impl Permit {
    pub fn new(report: impl FnOnce(Result<(), Reason>) + Send + 'static) -> Self {
        Self { report: Some(Box::new(report)) }
    }

    /// The whole answer was handed to the payer.
    pub fn delivered(mut self) {
        if let Some(report) = self.report.take() {
            report(Ok(()));
        }
    }

    /// The upstream gave nothing worth charging for, or the stream broke.
    pub fn failed(mut self, reason: Reason) {
        if let Some(report) = self.report.take() {
            report(Err(reason));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            report(Err(Reason::new("delivery_interrupted", Fault::Us)));
        }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permit")
    }
}
