use std::fmt;
use std::sync::Arc;

use farthing_ledger::{Entry, Purpose, TransferId};
use farthing_primitives::{Address, AttemptId, Money, PaymentId, RefundId, RequestHash, TenantId, Timestamp};

use crate::Reason;

/// What the rail consumes once, in canonical form and without a trace of the dialect that showed it.
///
/// One authorization has one key, so it can be claimed once, whichever protocol carries it and however often.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumptionKey(Arc<str>);

impl ConsumptionKey {
    pub fn new(canonical: impl Into<Arc<str>>) -> Self {
        Self(canonical.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConsumptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ConsumptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a transaction on its network, e.g. `0x…`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxRef(Arc<str>);

impl TxRef {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the rail needs to settle this payment, also after a restart. Opaque to everybody but the rail.
#[derive(Clone, PartialEq, Eq)]
pub struct Instruction(Arc<[u8]>);

impl Instruction {
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instruction({} bytes)", self.0.len())
    }
}

/// The protocol that carried the payment. It decides how we answer, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    X402V1,
    X402V2,
    /// The HTTP `Payment` scheme.
    Mpp,
}

/// In which order service and settlement happen.
///
/// Spec: x402 v2 `extra.paymentFlow`; `Background` is ours and is an `authorization` flow to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Check, claim, serve, settle, answer.
    Authorization,
    /// Settle, then serve.
    Upfront,
    /// Serve as soon as claimed and funded; settle behind it, within an exposure cap.
    Background,
}

/// For whom this process handles the payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We sell: the money becomes our tenant's.
    Seller,
    /// We settle between others.
    Facilitator,
}

/// The verified, canonical values of a payment. What the payer agreed to, not what anybody says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub payer: Address,
    pub payee: Address,
    pub money: Money,
    /// From here on the authorization can move no money.
    pub expires: Timestamp,
    pub dialect: Dialect,
    pub instruction: Instruction,
}

/// How the payment is tied to what it buys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// By an offer of ours that the payer echoed.
    ByOffer,
    /// By the first request that showed it: the dialect carries nothing better, and the record says so.
    ByFirstUse,
}

/// What the payment buys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub method: String,
    /// The path and query of the request, or the resource that a facilitator was told.
    pub resource: String,
    pub request: RequestHash,
    pub bound: Bound,
    /// Whether the upstream may be called again with the same idempotency key after a crash.
    pub repeatable: bool,
}

/// Who says that the money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Witness {
    /// We read the transfer from the chain ourselves.
    Chain,
    /// A remote facilitator says so, or whoever else holds the money: a processor of cards.
    Facilitator,
}

/// Proof that the money moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub tx: TxRef,
    pub witness: Witness,
    pub block: u64,
    pub block_hash: [u8; 32],
    /// The index of the transfer's log within its block: each log pays for one thing.
    pub log_index: u64,
    /// What the chain charged our relayer, in its native asset; `None` if somebody else paid.
    pub fee: Option<Money>,
}

/// Where the money is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The authorization is ours alone; nothing was read from the chain yet.
    Claimed,
    /// The chain says that it would settle now.
    Funded,
    /// An attempt is durable, and others may see it.
    Settling { attempt: AttemptId, since: Timestamp, tx: Option<TxRef> },
    /// Included in a block, but not yet as deep as the amount asks for.
    Confirming { attempt: AttemptId, proof: Proof },
    /// As deep as the amount asks for: the money is the payee's.
    Settled { attempt: AttemptId, proof: Proof },
    /// We stopped before any attempt. No money moved, and we shall not try.
    Refused { reason: Reason },
    /// An attempt came to nothing, and we shall make no other; but the authorization lives until it expires, and
    /// whoever has seen it may still submit it.
    Lapsing { attempt: AttemptId, reason: Reason, tx: Option<TxRef> },
    /// It cannot be told yet whether the attempt moved money. Ask the chain; never pay again.
    Unknown { attempt: AttemptId, since: Timestamp, tx: Option<TxRef> },
    /// Proof that no money moved and none will.
    Failed { reason: Reason },
    /// A refund is on its way.
    Refunding { attempt: AttemptId, proof: Proof, refund: RefundId, tx: Option<TxRef> },
    /// The money went back.
    Refunded { proof: Proof, refund: RefundId, refund_proof: Proof },
}

/// Where the goods are. Apart from the money: either may fail alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    None,
    /// The upstream was called; its answer is not durable.
    Called,
    /// The upstream's complete answer is durable.
    Stored,
    /// The answer left, or was streamed.
    Sent,
    /// The upstream gave nothing worth charging for.
    Failed,
}

/// One payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub id: PaymentId,
    pub tenant: TenantId,
    /// Counts commits; a commit names the one that it follows.
    pub version: u64,
    /// Counts beginnings anew; see [`TransferId`].
    pub round: u16,
    pub key: ConsumptionKey,
    pub role: Role,
    pub flow: Flow,
    pub terms: Terms,
    pub binding: Binding,
    pub state: State,
    pub delivery: Delivery,
    pub created: Timestamp,
    pub updated: Timestamp,
}

/// What a claim needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayment {
    pub id: PaymentId,
    pub tenant: TenantId,
    pub key: ConsumptionKey,
    pub role: Role,
    pub flow: Flow,
    pub terms: Terms,
    pub binding: Binding,
}

impl Payment {
    /// Begins a payment. The entries belong into the same atomic commit as the claim.
    pub fn claim(new: NewPayment, now: Timestamp) -> (Self, Vec<Entry>) {
        let payment = Self {
            id: new.id,
            tenant: new.tenant,
            version: 0,
            round: 0,
            key: new.key,
            role: new.role,
            flow: new.flow,
            terms: new.terms,
            binding: new.binding,
            state: State::Claimed,
            delivery: Delivery::None,
            created: now,
            updated: now,
        };
        let entries = payment.reserve();
        (payment, entries)
    }

    /// A seller's books expect the price from the claim on; a facilitator's know a payment once it is settled.
    pub(crate) fn reserve(&self) -> Vec<Entry> {
        match self.role {
            Role::Seller => vec![Entry::Reserve {
                id: self.transfer(Purpose::Sale),
                tenant: self.tenant.clone(),
                money: self.terms.money.clone(),
            }],
            Role::Facilitator => Vec::new(),
        }
    }

    pub(crate) fn transfer(&self, purpose: Purpose) -> TransferId {
        TransferId { payment: self.id, round: self.round, purpose }
    }

    /// Whether the consumption key is free again: only a refusal before the upstream was called frees it.
    pub fn releases_claim(&self) -> bool {
        matches!(self.state, State::Refused { .. }) && self.delivery == Delivery::None
    }

    /// The transaction that may have moved or has moved the money.
    pub fn tx(&self) -> Option<&TxRef> {
        match &self.state {
            State::Settling { tx, .. } | State::Unknown { tx, .. } | State::Lapsing { tx, .. } => tx.as_ref(),
            State::Confirming { proof, .. }
            | State::Settled { proof, .. }
            | State::Refunding { proof, .. }
            | State::Refunded { proof, .. } => Some(&proof.tx),
            State::Claimed | State::Funded | State::Refused { .. } | State::Failed { .. } => None,
        }
    }

    /// Whether its goods left, or may have, before it was settled: then it is settled if that can be, and shows as a
    /// loss if not.
    ///
    /// A streamed delivery that a crash cut off counts as well: nobody knows how much of it left. Its buyer is charged,
    /// and may show the payment again to be served in full.
    pub fn is_on_credit(&self) -> bool {
        match self.delivery {
            Delivery::Sent => true,
            Delivery::Failed => self.flow == Flow::Background,
            Delivery::None | Delivery::Called | Delivery::Stored => false,
        }
    }

    /// What the payee may lose if the payer turns out not to pay: served, and not settled.
    pub fn is_exposed(&self) -> bool {
        let served = matches!(self.delivery, Delivery::Called | Delivery::Sent | Delivery::Failed);
        self.flow == Flow::Background
            && (served || self.delivery == Delivery::None)
            && matches!(
                self.state,
                State::Claimed
                    | State::Funded
                    | State::Settling { .. }
                    | State::Confirming { .. }
                    | State::Lapsing { .. }
                    | State::Unknown { .. }
            )
    }
}

impl State {
    /// The stable name that is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Funded => "funded",
            Self::Settling { .. } => "settling",
            Self::Confirming { .. } => "confirming",
            Self::Settled { .. } => "settled",
            Self::Refused { .. } => "refused",
            Self::Lapsing { .. } => "lapsing",
            Self::Unknown { .. } => "unknown",
            Self::Failed { .. } => "failed",
            Self::Refunding { .. } => "refunding",
            Self::Refunded { .. } => "refunded",
        }
    }
}

impl Delivery {
    /// The stable name that is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Called => "called",
            Self::Stored => "stored",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }
}
