//! The rail of a seller who lets others settle: one or more remote facilitators.
//!
//! A facilitator's word is weaker than the chain's. Where we have a node of our own, a settlement counts once that
//! node shows the transfer. Where we have none, only an unambiguous success counts; everything else stays unknown,
//! and is never called failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::{Chain, Funds, LogFilter, NotPrepared, Prepared, Progress, Rail, Tag, TxHash, World};
use farthing_evm::Key;
use farthing_payment::{Dialect, Fault, Payment, Proof, Reason, State, TxRef, Witness};
use farthing_primitives::{AttemptId, Network, Registry};
use farthing_rails::exact_evm::{Checked, Requirement, Token};
use farthing_rails::x402;
use farthing_wire::x402::facilitator::{PaymentRequest, SettleResponse, SupportedResponse, VerifyResponse};
use farthing_wire::x402::{ErrorCode, Message, v2};
use url::Url;

/// The longest answer of a facilitator that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// How long `/verify` may take.
const VERIFY_WITHIN: Duration = Duration::from_secs(10);
/// How long `/settle` may take. Facilitators wait for a block, and some for several.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// How often an attempt of unknown outcome is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How long past its end, on the chain's clock, and how deep an authorization must show as unused to be dead.
const DEAD_AFTER: Duration = Duration::from_secs(2);
const DEAD_DEPTH: u64 = 2;
/// What the requirements that we send name as time, where the offer's own is not known any more.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// One remote facilitator.
pub struct Remote {
    pub url: Url,
    /// Sent as `Authorization: Bearer …`.
    pub api_key: Option<String>,
}

/// Settlement by remote facilitators, tried in their order.
pub struct RemoteRail {
    network: Network,
    remotes: Vec<Node>,
    http: reqwest::Client,
    registry: Registry,
    world: Arc<dyn World>,
    chain: Option<Arc<dyn Chain>>,
    public_url: Url,
    preferred: AtomicUsize,
}

struct Node {
    remote: Remote,
    supported: tokio::sync::OnceCell<SupportedResponse>,
}

/// What a facilitator said to `/settle`.
enum Said {
    Settled(TxRef),
    Pending(Option<TxRef>),
    /// It says that it did not settle.
    Refused(Reason, Option<TxRef>),
    /// No answer, or one that cannot be trusted to mean anything.
    Nothing,
}

impl RemoteRail {
    pub fn new(
        network: Network,
        remotes: Vec<Remote>,
        registry: Registry,
        world: Arc<dyn World>,
        chain: Option<Arc<dyn Chain>>,
        public_url: Url,
    ) -> Result<Self, String> {
        if remotes.is_empty() {
            return Err("no facilitator is listed".to_owned());
        }
        // A redirect would send a signed payment to somebody whom nobody chose.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| error.to_string())?;
        let nodes = remotes.into_iter().map(|remote| Node { remote, supported: Default::default() });
        Ok(Self {
            network,
            remotes: nodes.collect(),
            http,
            registry,
            world,
            chain,
            public_url,
            preferred: AtomicUsize::new(0),
        })
    }

    /// The facilitators, the one that answered last first.
    fn in_order(&self) -> impl Iterator<Item = (usize, &Node)> {
        let count = self.remotes.len();
        let first = self.preferred.load(Ordering::Relaxed) % count;
        (0..count).map(move |at| {
            let index = (first + at) % count;
            (index, &self.remotes[index])
        })
    }

    /// Posts a body and reads a bounded answer. `None`: nothing that may be believed came back.
    async fn post(&self, node: &Node, path: &str, body: String, within: Duration) -> Option<Vec<u8>> {
        let url = endpoint(&node.remote.url, path)?;
        let mut request = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .timeout(within)
            .body(body);
        if let Some(key) = &node.remote.api_key {
            request = request.bearer_auth(key);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(facilitator = %host(&node.remote.url), error = %error.without_url(), "no answer");
                return None;
            }
        };
        // Spec: x402 v2 section 7: business failures are 200. Any other status means that something is wrong, and
        // its body, whatever it says, is not evidence.
        if answer.status() != reqwest::StatusCode::OK {
            let status = answer.status().as_u16();
            tracing::warn!(facilitator = %host(&node.remote.url), status, "not an answer");
            return None;
        }
        read_bounded(answer).await
    }

    async fn supported<'a>(&self, node: &'a Node) -> Option<&'a SupportedResponse> {
        let fetch = async {
            let url = endpoint(&node.remote.url, "supported").ok_or(())?;
            let mut request = self.http.get(url).timeout(VERIFY_WITHIN);
            if let Some(key) = &node.remote.api_key {
                request = request.bearer_auth(key);
            }
            let answer = request.send().await.map_err(|_| ())?;
            let body = read_bounded(answer).await.ok_or(())?;
            SupportedResponse::parse(&body).map_err(|_| ())
        };
        node.supported.get_or_try_init(|| fetch).await.ok()
    }

    /// The request in a form that this facilitator understands: the payment's own dialect if it can, else the other.
    /// The signature is the same in both.
    async fn request(&self, node: &Node, payment: &Payment, checked: &Checked) -> Option<PaymentRequest> {
        let native = match payment.terms.dialect {
            Dialect::X402V1 => 1,
            Dialect::X402V2 => 2,
        };
        let offers = |version: u64| {
            let name = match version {
                1 => self.network.v1_name(),
                _ => Some(self.network.as_str()),
            };
            move |supported: &SupportedResponse| {
                supported.kinds.iter().any(|kind| {
                    kind.x402_version == version && kind.scheme == x402::EXACT && Some(&*kind.network) == name
                })
            }
        };
        let version = match self.supported(node).await {
            // A facilitator that does not say what it supports is taken at the payment's word.
            None => native,
            Some(supported) if offers(native)(supported) => native,
            Some(supported) if offers(3 - native)(supported) => 3 - native,
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
        // Spec: x402 v1 section 5.1: the resource is a URL. Ours knows its path.
        let resource = self
            .public_url
            .join(&payment.binding.resource)
            .map_or_else(|_| self.public_url.to_string(), String::from);
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

    async fn settle_with(&self, node: &Node, request: &PaymentRequest) -> Said {
        let Some(body) = self.post(node, "settle", request.print(), SETTLE_WITHIN).await else {
            return Said::Nothing;
        };
        let Ok(answer) = SettleResponse::parse(&body) else { return Said::Nothing };
        // In one spelling: a transfer counts once, however its transaction is written.
        let tx = parse_hash(&answer.transaction).map(|hash| TxRef::new(hash.to_string()));
        if answer.success {
            // A success must name its transaction and its network, or it is nobody's success.
            let here = answer.parsed_network().is_some_and(|network| network == self.network);
            return match tx {
                Some(tx) if here => Said::Settled(tx),
                _ => Said::Nothing,
            };
        }
        match answer.error_reason {
            Some(ErrorCode::SettlementPending) => Said::Pending(tx),
            Some(code) => Said::Refused(Reason::new(code.as_str(), Fault::Payer), tx),
            None => Said::Refused(Reason::new("unexpected_settle_error", Fault::Chain), tx),
        }
    }

    /// Asks for settlement. Only the facilitator that was asked first may be asked again: two of them would race.
    async fn settle(&self, payment: &Payment, checked: &Checked, first: bool) -> Progress {
        let Some((index, node)) = self.in_order().next() else { return Progress::Open };
        let Some(request) = self.request(node, payment, checked).await else {
            return Progress::Unclear { tx: None };
        };
        match self.settle_with(node, &request).await {
            Said::Settled(tx) => self.settled(payment, checked, tx).await,
            Said::Pending(tx) => Progress::Unclear { tx },
            Said::Refused(reason, tx) if first => Progress::Reverted { reason, tx },
            // Asked before, perhaps by a process that died: a refusal now may only mean that the first request
            // settled it.
            Said::Refused(..) => Progress::Unclear { tx: payment.tx().cloned() },
            Said::Nothing => {
                self.preferred.store(index, Ordering::Relaxed);
                Progress::Unclear { tx: None }
            }
        }
    }

    /// The facilitator says that this transaction settled it. With a node of our own we look.
    async fn settled(&self, payment: &Payment, checked: &Checked, tx: TxRef) -> Progress {
        let Some(chain) = &self.chain else {
            let proof = Proof {
                tx,
                witness: Witness::Facilitator,
                block: 0,
                block_hash: [0; 32],
                log_index: 0,
                fee: None,
            };
            return Progress::Included { proof, deep: true, slots: Vec::new() };
        };
        let Some(hash) = parse_hash(tx.as_str()) else { return Progress::Unclear { tx: None } };
        let Ok(receipts) = chain.receipts(vec![hash]).await else {
            return Progress::Unclear { tx: Some(tx) };
        };
        match receipts.into_iter().next().flatten() {
            Some(receipt) => match checked.proof(&receipt.logs) {
                Ok(found) => Progress::Included {
                    proof: Proof {
                        tx,
                        witness: Witness::Chain,
                        block: receipt.block,
                        block_hash: receipt.block_hash,
                        log_index: found.log_index,
                        fee: None,
                    },
                    deep: true,
                    slots: Vec::new(),
                },
                Err(error) => {
                    tracing::error!(payment = %payment.id, %tx, %error, "the facilitator's transaction moved nothing");
                    Progress::Unclear { tx: Some(tx) }
                }
            },
            None => Progress::Unclear { tx: Some(tx) },
        }
    }

    /// What our own node says of a payment whose outcome is unknown.
    async fn ask_chain(&self, checked: &Checked) -> Option<Progress> {
        let chain = self.chain.as_ref()?;
        let results = chain.read_at(vec![checked.consumed_read()], Tag::Latest).await.ok()?;
        let head = chain.head(Tag::Latest).await.ok()??;
        if !checked.consumed(results.first()?)? {
            // Unused in a block that is both past the end and deep: of the newest state, read at another moment or by
            // a node that lags, nothing follows.
            let deep = Tag::Number(head.number.checked_sub(DEAD_DEPTH)?);
            let block = chain.head(deep).await.ok()??;
            if block.timestamp < checked.expires().plus(DEAD_AFTER) {
                return Some(Progress::Open);
            }
            let results = chain.read_at(vec![checked.consumed_read()], deep).await.ok()?;
            let reason = Reason::new("authorization_expired", Fault::Us);
            let dead = !checked.consumed(results.first()?)?;
            return Some(if dead { Progress::Dead(reason) } else { Progress::Open });
        }
        if !checked.trace_is_unambiguous() {
            return Some(Progress::Open);
        }
        let trace = checked.trace();
        let filter = LogFilter {
            address: trace.address,
            topics: trace.topics,
            from_block: head.number.saturating_sub(5_000),
            to_block: head.number,
        };
        for (hash, _) in chain.logs(filter).await.ok()? {
            let receipt = chain.receipts(vec![hash]).await.ok()?.into_iter().next().flatten();
            let Some(receipt) = receipt else { continue };
            if let Ok(found) = checked.proof(&receipt.logs) {
                let proof = Proof {
                    tx: TxRef::new(hash.to_string()),
                    witness: Witness::Chain,
                    block: receipt.block,
                    block_hash: receipt.block_hash,
                    log_index: found.log_index,
                    fee: None,
                };
                return Some(Progress::Included { proof, deep: true, slots: Vec::new() });
            }
        }
        Some(Progress::Open)
    }
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
            let Some(body) = self.post(node, "verify", request.print(), VERIFY_WITHIN).await else {
                continue;
            };
            let Ok(answer) = VerifyResponse::parse(&body) else { continue };
            self.preferred.store(index, Ordering::Relaxed);
            if answer.is_valid {
                return Funds::Confirmed;
            }
            let code = answer.invalid_reason.unwrap_or(ErrorCode::UnexpectedVerifyError);
            return Funds::Refused(Reason::new(code.as_str(), Fault::Payer));
        }
        Funds::Unavailable("facilitator")
    }

    async fn prepare(&self, payment: &Payment) -> Result<Prepared, NotPrepared> {
        if self.world.now() >= payment.terms.expires {
            return Err(NotPrepared::Refused(Reason::new("authorization_expired", Fault::Us)));
        }
        let attempt = AttemptId::new(self.world.now(), self.world.random10());
        Ok(Prepared { attempt, tx: None, slots: Vec::new() })
    }

    fn abandon(&self, _: Prepared) {}

    async fn submit(&self, payment: &Payment, _: Prepared) -> Progress {
        match Checked::recall(&payment.terms.instruction) {
            Ok(checked) => self.settle(payment, &checked, true).await,
            Err(_) => Progress::Unclear { tx: None },
        }
    }

    async fn progress(&self, payment: &Payment, patience: Duration) -> Progress {
        let Ok(checked) = Checked::recall(&payment.terms.instruction) else {
            self.world.sleep(patience).await;
            return Progress::Open;
        };
        if let Some(found) = self.ask_chain(&checked).await
            && found != Progress::Open
        {
            return found;
        }
        self.world.sleep(patience.max(ASK_AGAIN)).await;
        match &payment.state {
            // Refused by word of mouth: only a chain of our own can tell more.
            State::Lapsing { .. } => Progress::Open,
            // The identical request again, which can settle it at most once: it is the same authorization.
            _ if self.world.now() < payment.terms.expires => self.settle(payment, &checked, false).await,
            _ => Progress::Open,
        }
    }

    fn release(&self, _: &Payment) {}

    async fn still_included(&self, proof: &Proof) -> Option<bool> {
        let chain = self.chain.as_ref()?;
        if proof.witness != Witness::Chain {
            return None;
        }
        let block = chain.head(Tag::Number(proof.block)).await.ok()?;
        Some(block.is_some_and(|block| block.hash == proof.block_hash))
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

async fn read_bounded(mut answer: reqwest::Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

fn endpoint(base: &Url, path: &str) -> Option<Url> {
    let mut url = base.clone();
    url.path_segments_mut().ok()?.pop_if_empty().push(path);
    Some(url)
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or("?")
}

fn parse_hash(text: &str) -> Option<TxHash> {
    let bytes = hex::decode(text.strip_prefix("0x")?).ok()?;
    bytes.try_into().ok().map(TxHash)
}

#[cfg(test)]
mod tests {
    // In a test a panic is the report.
    #![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

    use axum::routing::{get, post};
    use farthing_payment::{Binding, Bound, Event, Flow, NewPayment, Role, Terms};
    use farthing_primitives::{PaymentId, PullMethod, RequestHash, TenantId};
    use farthing_rails::exact_evm::buy::{Nonce, authorize};
    use farthing_rails::exact_evm::{Policy, check};

    use super::*;
    use crate::world::TokioWorld;

    const TX: &str = "0xABCDEF0000000000000000000000000000000000000000000000000000000001";

    /// A rail to a facilitator on this machine that gives this answer to every `/settle`.
    async fn rail(answer: String) -> RemoteRail {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let routes = axum::Router::new()
            .route("/settle", post(move || std::future::ready(answer)))
            .route("/supported", get(|| std::future::ready("no JSON")));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let remotes = vec![Remote { url: url.clone(), api_key: None }];
        let world = Arc::new(TokioWorld::default());
        RemoteRail::new(Network::eip155(84532), remotes, Registry::builtin(), world, None, url).unwrap()
    }

    /// A payment whose attempt is durable.
    fn settling(rail: &RemoteRail) -> Payment {
        let (now, key) = (rail.world.now(), Key::from_bytes([3; 32]).unwrap());
        let asset = rail.registry.dollar(&rail.network).unwrap();
        let payer = farthing_evm::from_alloy(key.address());
        let payee = farthing_primitives::Address::from_evm_bytes([2; 20]);
        let token = Arc::new(Token::new(asset).unwrap());
        let asked =
            Requirement::new(token, &asset.atoms(1000), &payee, PullMethod::Eip3009, MAX_TIMEOUT).unwrap();
        let unsigned = authorize(&asked, &payer, Nonce([1; 32]), MAX_TIMEOUT, now).unwrap();
        let presented = unsigned.signed(&key.sign(unsigned.digest()), None);
        let checked = check(&asked, &presented, now, &Policy::default()).unwrap();
        let new = NewPayment {
            id: PaymentId::new(now, [1; 10]),
            tenant: TenantId::local(),
            key: checked.key(),
            role: Role::Seller,
            flow: Flow::Upfront,
            terms: Terms {
                payer,
                payee,
                money: checked.money().clone(),
                expires: checked.expires(),
                dialect: Dialect::X402V2,
                instruction: checked.instruction(),
            },
            binding: Binding {
                method: "GET".to_owned(),
                resource: "/weather".to_owned(),
                request: RequestHash([7; 32]),
                bound: Bound::ByOffer,
                repeatable: true,
            },
        };
        let attempt = AttemptId::new(now, [1; 10]);
        let events = [Event::FundsConfirmed, Event::AttemptStarted { attempt, tx: None }];
        events
            .into_iter()
            .fold(Payment::claim(new, now).0, |payment, event| payment.step(event, now).unwrap().next)
    }

    #[tokio::test]
    async fn a_refusal_of_what_a_former_process_may_have_sent_is_not_called_a_failure() {
        let said = r#"{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":"","network":"eip155:84532"}"#;
        let rail = rail(said.to_owned()).await;
        let payment = settling(&rail);
        let prepared = rail.prepare(&payment).await.unwrap();
        let first = rail.submit(&payment, prepared).await;
        assert!(matches!(first, Progress::Reverted { .. }), "{first:?}");
        // After a restart nobody knows whether the request had left.
        let again = rail.settle(&payment, &Checked::recall(&payment.terms.instruction).unwrap(), false).await;
        assert_eq!(again, Progress::Unclear { tx: None });
    }

    #[tokio::test]
    async fn a_transaction_has_one_spelling_so_that_it_counts_once() {
        let said = format!(r#"{{"success":true,"transaction":"{TX}","network":"eip155:84532"}}"#);
        let rail = rail(said).await;
        let payment = settling(&rail);
        let prepared = rail.prepare(&payment).await.unwrap();
        let Progress::Included { proof, .. } = rail.submit(&payment, prepared).await else {
            panic!("not settled");
        };
        assert_eq!(proof.tx.as_str(), TX.to_lowercase());
    }
}
