//! The rail of a seller who lets others settle: one or more remote facilitators.
//!
//! A facilitator's word is weaker than the chain's. Where we have a node of our own, a settlement counts once that
//! node shows the transfer, as deep as the amount asks for. Where we have none, only an unambiguous success counts;
//! everything else stays unknown, and is never called failed.
//!
//! An attempt belongs to the facilitator that it was given to, and remembers which that was: two facilitators with the
//! same authorization would race, and one would call failed what the other settled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_evm::Key;
use farthing_payment::{Dialect, Fault, Payment, Proof, Reason, State, TxRef, Witness};
use farthing_primitives::{Address, AttemptId, Network, Registry, parse_atoms};
use farthing_rails::exact_evm::{Checked, Requirement, Token};
use farthing_rails::x402;
use farthing_wire::x402::facilitator::{PaymentRequest, SettleResponse, SupportedResponse, VerifyResponse};
use farthing_wire::x402::{ErrorCode, Message, v2};
use futures_util::future::{Either, select};
use futures_util::lock::Mutex as AsyncMutex;

use crate::evidence::Evidence;
use crate::facilitator::{
    Ask, Facilitator, FacilitatorAnswer, FacilitatorCall, MAX_FACILITATOR_ANSWER, NoAnswer,
};
use crate::live::lock;
use crate::rail::{Funds, NotPrepared, Prepared, Progress, Rail};
use crate::relayer::parse_hash;
use crate::{Chain, Depths, World, reasons};

/// How long `/verify` and `/supported` may take.
const VERIFY_WITHIN: Duration = Duration::from_secs(10);
/// How long `/settle` may take. Facilitators wait for a block, and some for several.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// How soon an attempt of unknown outcome is asked for again, at first and in the end.
const ASK_AGAIN: Duration = Duration::from_secs(3);
const ASK_SELDOM: Duration = Duration::from_secs(60);
/// How long a facilitator that was not reached is asked after the others.
const DOWN_FOR: Duration = Duration::from_secs(30);
/// How long what a facilitator supports is remembered, and how long that it would not say.
const SUPPORTED_FOR: Duration = Duration::from_secs(600);
const SUPPORTED_AGAIN: Duration = Duration::from_secs(30);
/// What the requirements that we send name as time, where the offer's own is not known any more.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// What a remote rail is made of.
pub struct RemoteRailConfig {
    pub network: Network,
    /// In the order of preference.
    pub facilitators: Vec<Arc<dyn Facilitator>>,
    pub registry: Registry,
    /// How deep a settlement must be before it counts. Without a chain of our own nobody can tell.
    pub depths: Depths,
    /// The URL of a resource of ours, from its path and query.
    pub resource_url: Arc<dyn Fn(&str) -> String + Send + Sync>,
}

impl std::fmt::Debug for RemoteRailConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteRailConfig({}, {} facilitators)", self.network, self.facilitators.len())
    }
}

/// Why there is no such rail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteRailError {
    #[error("no facilitator is listed")]
    NoFacilitator,
    #[error("the facilitator {0} is listed twice")]
    Twice(String),
}

/// Settlement by remote facilitators, tried in their order.
pub struct RemoteRail {
    network: Network,
    nodes: Vec<Node>,
    registry: Registry,
    world: Arc<dyn World>,
    evidence: Option<Evidence>,
    resource_url: Arc<dyn Fn(&str) -> String + Send + Sync>,
    preferred: AtomicUsize,
}

struct Node {
    facilitator: Arc<dyn Facilitator>,
    mark: [u8; MARK],
    supported: AsyncMutex<Supported>,
    /// When it was last found not to be reached, by the clock that never goes back.
    down: Mutex<Option<Duration>>,
}

#[derive(Default)]
struct Supported {
    answer: Option<Arc<SupportedResponse>>,
    asked: Option<Duration>,
}

/// What a facilitator said to `/settle`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Settled(TxRef),
    /// It does not say whether it settled, or cannot know. The transaction is one that may have.
    Unclear(Option<TxRef>),
    /// It says that it did not even try.
    Refused(Reason),
    /// The question never left.
    NotSent,
}

/// How many bytes of an attempt's id name its facilitator.
const MARK: usize = 4;

/// FNV-1a: tells the few facilitators of one configuration apart, the same in every process.
fn mark_of(id: &str) -> [u8; MARK] {
    let hash =
        id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_be_bytes()
}

impl std::fmt::Debug for RemoteRail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteRail({}, {} facilitators)", self.network, self.nodes.len())
    }
}

impl RemoteRail {
    /// `chain` is a node of our own, where there is one: its word counts for more than a facilitator's.
    pub fn new(
        config: RemoteRailConfig,
        world: Arc<dyn World>,
        chain: Option<Arc<dyn Chain>>,
    ) -> Result<Self, RemoteRailError> {
        let mut nodes: Vec<Node> = Vec::with_capacity(config.facilitators.len());
        for facilitator in config.facilitators {
            let mark = mark_of(facilitator.id());
            if nodes.iter().any(|node| node.mark == mark) {
                return Err(RemoteRailError::Twice(facilitator.name().to_owned()));
            }
            nodes.push(Node { facilitator, mark, supported: AsyncMutex::default(), down: Mutex::default() });
        }
        if nodes.is_empty() {
            return Err(RemoteRailError::NoFacilitator);
        }
        Ok(Self {
            network: config.network,
            nodes,
            registry: config.registry,
            world,
            evidence: chain.map(|chain| Evidence::new(chain, config.depths)),
            resource_url: config.resource_url,
            preferred: AtomicUsize::new(0),
        })
    }

    /// The facilitators, the one that answered last first, and those that were just not reached at the end.
    fn in_order(&self) -> Vec<(usize, &Node)> {
        let count = self.nodes.len();
        let first = self.preferred.load(Ordering::Relaxed) % count;
        let order =
            (0..count).map(|at| (first + at) % count).filter_map(|at| Some((at, self.nodes.get(at)?)));
        let (down, mut up): (Vec<_>, Vec<_>) = order.partition(|(_, node)| self.is_down(node));
        up.extend(down);
        up
    }

    fn is_down(&self, node: &Node) -> bool {
        let now = self.world.monotonic();
        lock(&node.down).is_some_and(|since| now.saturating_sub(since) < DOWN_FOR)
    }

    /// The facilitator that an attempt was given to; `None` if it is not listed any more.
    fn asked(&self, attempt: AttemptId) -> Option<&Node> {
        let bytes = attempt.to_bytes();
        self.nodes.iter().find(|node| bytes.ends_with(&node.mark))
    }

    /// An id that remembers whom the attempt is given to.
    fn attempt_for(&self, node: &Node) -> AttemptId {
        let mut random = self.world.random10();
        // A UUIDv7 keeps the last of its random bytes as they are.
        if let Some(end) = random.last_chunk_mut::<MARK>() {
            *end = node.mark;
        }
        AttemptId::new(self.world.now(), random)
    }

    /// Asks, and takes nothing for an answer that may not be believed.
    async fn ask(
        &self,
        node: &Node,
        ask: Ask,
        body: String,
        within: Duration,
    ) -> Result<FacilitatorAnswer, NoAnswer> {
        let call = FacilitatorCall { ask, body: body.into() };
        let asked = node.facilitator.ask(call, within);
        let answer = match select(asked, self.world.sleep(within)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(NoAnswer::Lost),
        };
        let name = node.facilitator.name();
        match answer {
            Ok(answer) if answer.body.len() <= MAX_FACILITATOR_ANSWER => Ok(answer),
            Ok(_) => {
                tracing::warn!(facilitator = %name, "a longer answer than is read");
                Err(NoAnswer::Lost)
            }
            Err(error) => {
                if error == NoAnswer::NotSent {
                    *lock(&node.down) = Some(self.world.monotonic());
                }
                tracing::warn!(facilitator = %name, %error, "no answer");
                Err(error)
            }
        }
    }

    /// The body of an answer whose status is that of one.
    ///
    /// Spec: x402 v2 section 7: business failures are 200. Any other status means that something is wrong, and its
    /// body, whatever it says, is no evidence.
    fn believed(node: &Node, answer: FacilitatorAnswer, but: Option<u16>) -> Option<Bytes> {
        if answer.status == 200 || Some(answer.status) == but {
            return Some(answer.body);
        }
        tracing::warn!(facilitator = %node.facilitator.name(), status = answer.status, "not an answer");
        None
    }

    async fn supported(&self, node: &Node) -> Option<Arc<SupportedResponse>> {
        let mut known = node.supported.lock().await;
        let fresh_for = if known.answer.is_some() { SUPPORTED_FOR } else { SUPPORTED_AGAIN };
        let now = self.world.monotonic();
        if known.asked.is_some_and(|asked| now.saturating_sub(asked) < fresh_for) {
            return known.answer.clone();
        }
        let answer = self.ask(node, Ask::Supported, String::new(), VERIFY_WITHIN).await.ok();
        let answer = answer.and_then(|answer| Self::believed(node, answer, None));
        let answer = answer.and_then(|body| SupportedResponse::parse(&body).ok());
        known.asked = Some(self.world.monotonic());
        if let Some(answer) = answer {
            known.answer = Some(Arc::new(answer));
        }
        known.answer.clone()
    }

    /// The request in a form that this facilitator understands: the payment's own dialect if it can, else the other.
    /// The signature is the same in both.
    async fn request(&self, node: &Node, payment: &Payment, checked: &Checked) -> Option<PaymentRequest> {
        let native = match payment.terms.dialect {
            Dialect::X402V1 => 1,
            // A facilitator of x402 settles the same authorization, whoever asked for it.
            Dialect::X402V2 | Dialect::Mpp => 2,
        };
        let offers = |supported: &SupportedResponse, version: u64| {
            let name = match version {
                1 => self.network.v1_name(),
                _ => Some(self.network.as_str()),
            };
            supported.kinds.iter().any(|kind| {
                kind.x402_version == version && kind.scheme == x402::EXACT && Some(&*kind.network) == name
            })
        };
        let version = match self.supported(node).await {
            // A facilitator that does not say what it supports is taken at the payment's word.
            None => native,
            Some(supported) if offers(&supported, native) => native,
            Some(supported) if offers(&supported, 3 - native) => 3 - native,
            Some(_) => return None,
        };
        self.wire(payment, checked, version)
    }

    fn wire(&self, payment: &Payment, checked: &Checked, version: u64) -> Option<PaymentRequest> {
        let asset = self.registry.get(checked.money().asset())?;
        let token = Arc::new(Token::new(asset).ok()?);
        let asked =
            Requirement::new(token, checked.money(), &checked.pay_to(), checked.method(), MAX_TIMEOUT)
                .ok()?;
        let presented = checked.presented();
        // Spec: x402 v1 section 5.1: the resource is a URL. The payment knows its path.
        let resource = (self.resource_url)(&payment.binding.resource);
        let resource = resource.as_str();
        if version == 1 {
            let about = x402::Resource { url: resource, description: "", mime_type: "" };
            let requirements = x402::offer_v1(&asked, about)?;
            let payload = x402::payment_v1(&requirements, &presented)?;
            return Some(PaymentRequest::V1 { payload, requirements });
        }
        let requirements = x402::offer_v2(&asked, x402::Extras::default());
        let extensions = x402::sponsoring(&presented);
        let about = v2::ResourceInfo::new(resource);
        let payload = x402::payment_v2(&requirements, &presented, Some(about), extensions)?;
        Some(PaymentRequest::V2 { payload, requirements })
    }

    /// The settlement of this payment by the facilitator that its attempt belongs to.
    async fn settle(&self, payment: &Payment, checked: &Checked, node: &Node) -> Said {
        let Some(request) = self.request(node, payment, checked).await else { return Said::Unclear(None) };
        match self.ask(node, Ask::Settle, request.print(), SETTLE_WITHIN).await {
            Ok(answer) => match Self::believed(node, answer, None) {
                Some(body) => self.judge(payment, &body),
                None => Said::Unclear(None),
            },
            Err(NoAnswer::NotSent) => Said::NotSent,
            Err(NoAnswer::Lost) => Said::Unclear(None),
        }
    }

    /// What an answer to `/settle` means. In doubt, nothing.
    fn judge(&self, payment: &Payment, body: &[u8]) -> Said {
        let Ok(answer) = SettleResponse::parse(body) else { return Said::Unclear(None) };
        // In one spelling: a transfer counts once, however its transaction is written.
        let tx =
            parse_hash(&TxRef::new(answer.transaction.as_str())).map(|hash| TxRef::new(hash.to_string()));
        let reason = answer.error_reason.as_ref().filter(|reason| !reason.as_str().is_empty());
        if answer.success {
            // A success that is none for this payment, or that says of itself that it is none, is nobody's.
            let here = answer.parsed_network().is_some_and(|network| network == self.network);
            let payer = answer.payer.as_deref().and_then(|payer| Address::parse(&self.network, payer).ok());
            let amount = answer.amount.as_deref().filter(|amount| !amount.is_empty());
            let contradicts = reason.is_some()
                || payer.is_some_and(|payer| payer != payment.terms.payer)
                || amount.is_some_and(|amount| parse_atoms(amount) != Ok(payment.terms.money.atoms()));
            return match tx {
                Some(tx) if here && !contradicts => Said::Settled(tx),
                _ => {
                    tracing::error!(payment = %payment.id, "a facilitator's success contradicts itself");
                    Said::Unclear(None)
                }
            };
        }
        match reason {
            // Whoever names a transaction has sent one, whatever became of it, also where we cannot read its name.
            Some(code) if answer.transaction.is_empty() && was_never_sent(code) => {
                Said::Refused(Reason::new(code.as_str(), Fault::Payer))
            }
            _ => Said::Unclear(tx),
        }
    }

    /// The facilitator says that this transaction settled it. With a node of our own we look.
    async fn settled(&self, payment: &Payment, checked: &Checked, tx: TxRef) -> Progress {
        let Some(evidence) = &self.evidence else {
            let (block, block_hash, log_index) = (0, [0; 32], 0);
            let proof = Proof { tx, witness: Witness::Facilitator, block, block_hash, log_index, fee: None };
            return Progress::Included { proof, deep: true, slots: Vec::new() };
        };
        match evidence.among(payment, checked, std::slice::from_ref(&tx), |_| None).await {
            Some(found) => found,
            // Not in a block yet, or it moved something else.
            None => Progress::Unclear { tx: Some(tx) },
        }
    }

    /// What our own node says of a payment whose outcome is unknown. [`Progress::Open`]: nothing.
    async fn ask_chain(&self, evidence: &Evidence, payment: &Payment, checked: &Checked) -> Progress {
        // The transaction that the facilitator named, first: it tells also where a trace cannot.
        if let Some(tx) = payment.tx()
            && let Some(found) = evidence.among(payment, checked, std::slice::from_ref(tx), |_| None).await
        {
            return found;
        }
        match evidence.fate(payment, checked).await {
            Progress::Unclear { .. } => Progress::Open,
            found => found,
        }
    }

    /// Asks again, with the identical request: it is the same authorization, so it can settle at most once.
    async fn settle_again(&self, payment: &Payment, checked: &Checked, attempt: AttemptId) -> Progress {
        let Some(node) = self.asked(attempt) else {
            tracing::warn!(payment = %payment.id, "the facilitator that has this payment is not listed any more");
            return Progress::Open;
        };
        match self.settle(payment, checked, node).await {
            Said::Settled(tx) => self.settled(payment, checked, tx).await,
            Said::Unclear(tx) => Progress::Unclear { tx: tx.or_else(|| payment.tx().cloned()) },
            // Asked before, perhaps by a process that died: a refusal now may only mean that the first request settled
            // it.
            Said::Refused(_) => Progress::Unclear { tx: payment.tx().cloned() },
            Said::NotSent => Progress::Open,
        }
    }
}

/// Whether a facilitator that answers `/settle` so has certainly sent nothing: it looked at the payment, and refused.
///
/// A used nonce is no such refusal: it may be used by this very payment, whose first answer was lost.
fn was_never_sent(code: &ErrorCode) -> bool {
    !matches!(
        code,
        ErrorCode::SettlementPending
            | ErrorCode::InvalidTransactionState
            | ErrorCode::UnexpectedSettleError
            | ErrorCode::UnexpectedVerifyError
            | ErrorCode::DuplicateSettlement
            | ErrorCode::InvalidExactEvmNonceAlreadyUsed
            | ErrorCode::InvalidExactEvmTransactionFailed
            | ErrorCode::InvalidExactEvmTransferEventMismatch
            | ErrorCode::Permit2InvalidNonce
            | ErrorCode::Other(_)
    )
}

#[async_trait]
impl Rail for RemoteRail {
    async fn funds(&self, payment: &Payment) -> Funds {
        let Ok(checked) = Checked::recall(&payment.terms.instruction) else {
            return Funds::Unavailable("instruction");
        };
        // Nothing is at stake in asking a second facilitator: verification moves nothing.
        for (index, node) in self.in_order() {
            let Some(request) = self.request(node, payment, &checked).await else { continue };
            let Ok(answer) = self.ask(node, Ask::Verify, request.print(), VERIFY_WITHIN).await else {
                continue;
            };
            // Spec: x402 exact on EVM: a missing approval of Permit2 is told with status 412.
            let Some(body) = Self::believed(node, answer, Some(412)) else { continue };
            let Ok(answer) = VerifyResponse::parse(&body) else { continue };
            let reason = answer.invalid_reason.filter(|reason| !reason.as_str().is_empty());
            match (answer.is_valid, reason) {
                (true, None) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Funds::Confirmed;
                }
                // Valid, and why not: it cannot be told.
                (true, Some(_)) => continue,
                (false, reason) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    let code = reason.unwrap_or(ErrorCode::UnexpectedVerifyError);
                    return Funds::Refused(Reason::new(code.as_str(), Fault::Payer));
                }
            }
        }
        Funds::Unavailable("facilitator")
    }

    async fn prepare(&self, payment: &Payment) -> Result<Prepared, NotPrepared> {
        let checked = Checked::recall(&payment.terms.instruction)
            .map_err(|_| NotPrepared::Unavailable("instruction"))?;
        // What was served on credit is not given up because our clock says so: the facilitator has its own.
        if self.world.now() >= payment.terms.expires && !payment.is_on_credit() {
            return Err(NotPrepared::Refused(reasons::expired()));
        }
        for (_, node) in self.in_order() {
            if self.request(node, payment, &checked).await.is_some() {
                let attempt = self.attempt_for(node);
                return Ok(Prepared { attempt, tx: None, slots: Vec::new() });
            }
        }
        Err(NotPrepared::Unavailable("facilitator"))
    }

    fn abandon(&self, _: Prepared) {}

    async fn submit(&self, payment: &Payment, prepared: Prepared) -> Progress {
        let Ok(checked) = Checked::recall(&payment.terms.instruction) else {
            return Progress::Unclear { tx: None };
        };
        let Some(node) = self.asked(prepared.attempt) else { return Progress::Unclear { tx: None } };
        match self.settle(payment, &checked, node).await {
            Said::Settled(tx) => self.settled(payment, &checked, tx).await,
            Said::Unclear(tx) => Progress::Unclear { tx },
            Said::Refused(reason) => Progress::Reverted { reason, tx: None },
            // The first question of this attempt never left, so the next attempt may be another's, if there is another.
            Said::NotSent if self.nodes.iter().any(|node| !self.is_down(node)) => Progress::Lost,
            Said::NotSent => Progress::Open,
        }
    }

    async fn progress(&self, payment: &Payment, patience: Duration) -> Progress {
        let Ok(checked) = Checked::recall(&payment.terms.instruction) else {
            self.world.sleep(patience).await;
            return Progress::Open;
        };
        if let Some(evidence) = &self.evidence {
            if let State::Confirming { proof, .. } = &payment.state {
                return evidence.confirm(payment, proof, &*self.world, patience).await;
            }
            let found = self.ask_chain(evidence, payment, &checked).await;
            if found != Progress::Open {
                return found;
            }
        }
        // The longer it is unknown, the less another question will tell.
        let age = self.world.now().since(payment.updated);
        let pause = (age / 8).clamp(ASK_AGAIN, ASK_SELDOM);
        match &payment.state {
            State::Settling { attempt, .. } | State::Unknown { attempt, .. } => {
                self.world.sleep(patience.max(pause)).await;
                self.settle_again(payment, &checked, *attempt).await
            }
            // Nobody was asked yet: nothing is waited for.
            State::Funded => Progress::Open,
            // Refused by word of mouth: only a chain of our own can tell more.
            _ => {
                self.world.sleep(patience.max(pause)).await;
                Progress::Open
            }
        }
    }

    fn release(&self, _: &Payment) {}

    async fn still_included(&self, proof: &Proof) -> Option<bool> {
        match (&self.evidence, proof.witness) {
            (Some(evidence), Witness::Chain) => evidence.still_included(proof).await,
            _ => None,
        }
    }

    async fn unreplaceable(&self) -> Option<u64> {
        match &self.evidence {
            Some(evidence) => evidence.unreplaceable().await,
            None => Some(u64::MAX),
        }
    }

    async fn prepare_refund(&self, _: &Payment, _: &Key) -> Result<Prepared, NotPrepared> {
        // A refund needs a relayer of our own: a facilitator would have to be trusted to send it once.
        Err(NotPrepared::Unavailable("a relayer for refunds (set relayer_key for this network)"))
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

#[cfg(test)]
mod tests;
