//! Facilitators that a gateway settles through: strangers, played here, who settle honestly and answer as their seed has
//! it; and our own, which is the production service over an engine, a store and a relayer of its own.
//!
//! A stranger has its own view of the chain, and its own memory. What it says of a settlement and what it did are two
//! things; both are written down in the [`Book`], which nobody inside the world can read.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_chain::LocalKey;
use farthing_engine::{
    Ask, Chain as _, Depths, Engine, EngineConfig, EvmRail, Facilitator, FacilitatorAnswer, FacilitatorCall,
    NoAnswer, PaymentFilter, Rail, Relayer, RelayerConfig, RelayerKey as _, RemoteRail, RemoteRailConfig,
    Store, TxHash, World,
};
use farthing_evm::{B256, to_alloy};
use farthing_facilitator::{FacilitatorConfig, ServedNetwork};
use farthing_payment::{Next, Payment, State, Witness};
use farthing_primitives::{Network, Registry};
use farthing_rails::exact_evm::{Checked, Policy, Tokens, check};
use farthing_rails::x402;
use farthing_store::MemoryStore;
use farthing_wire::Object;
use farthing_wire::x402::facilitator::{
    PaymentRequest, SettleResponse, SupportedKind, SupportedResponse, VerifyResponse,
};
use farthing_wire::x402::{ErrorCode, Message as _};
use futures_channel::oneshot;
use futures_util::future::{BoxFuture, Either, select};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;

use crate::chain::{Tx, Used};
use crate::check::is_of;
use crate::disk::{self, Disk};
use crate::exec::{Exec, ProcessId, WORLD, lock};
use crate::facts::Ledger;
use crate::gateway::{BEYOND_REORGS, NETWORK, sent, short};
use crate::node::{self, Node, Tip};
use crate::plan::{Act, Line};
use crate::rng::Rng;
use crate::run::Stage;
use crate::wait;
use crate::world::ProcessWorld;

/// Through whom a gateway settles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remotes {
    /// Whether the gateway has a node of its own, whose word counts for more than a facilitator's.
    pub chain_read: bool,
    /// In the order of preference.
    pub who: Vec<Who>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Stranger(Habits),
    /// The production facilitator, over its own engine, store, relayer and node.
    Ours,
}

/// What a stranger is like, all its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Whether it knows a payment again that it has sent. Else it says that its nonce is used.
    pub remembers: bool,
    /// The versions of x402 that it says it speaks; none: it doesn't say.
    pub versions: &'static [u64],
    /// How long it waits for a block, in milliseconds, before it calls a settlement pending.
    pub patience: u64,
}

/// How often a stranger does not say what is so. Chances in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lies {
    /// `/verify` says the contrary.
    pub verdict: u64,
    /// It says that it sent nothing, and has settled.
    pub denies: u64,
    /// It says that it sent nothing, and settles afterwards.
    pub repents: u64,
    /// It says that it settled, by a transaction that never was, that reverts, or that did something else.
    pub invents: u64,
    /// It says so before its transaction is in a block, whatever becomes of it.
    pub hastes: u64,
    /// It settles, and names another transaction.
    pub misnames: u64,
    /// Its success is for another payer, amount or network, or comes with a reason why it is none.
    pub contradicts: u64,
    /// It sends everything twice.
    pub twice: u64,
    /// It dies between sending and answering, and is back after a second.
    pub dies: u64,
}

/// What ails the way to a facilitator. Chances in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// The most milliseconds that one direction takes.
    pub latency: u64,
    /// Nobody is reached.
    pub refused: u64,
    pub request_lost: u64,
    pub answer_lost: u64,
    /// The question arrives twice.
    pub duplicated: u64,
    /// The answer takes longer than anybody waits.
    pub stalls: u64,
    /// The answer comes with another status.
    pub restated: u64,
    /// Of the answer's body comes a part, or something else.
    pub garbled: u64,
}

pub const FAIR_WAY: Way = Way {
    latency: 20,
    refused: 0,
    request_lost: 0,
    answer_lost: 0,
    duplicated: 0,
    stalls: 0,
    restated: 0,
    garbled: 0,
};

const BOTH: &[u64] = &[1, 2];

impl Remotes {
    /// Draws who settles, and what goes wrong with them, from a stream of its own: whatever else a seed holds stays as it
    /// is. `None` for four seeds of five.
    pub fn draw(seed: u64, fair: bool, troubles: u64) -> Option<(Self, Vec<Line>)> {
        let mut rng = Rng::stream(seed, "who settles");
        if !rng.per_mille(200) {
            return None;
        }
        let mut who = Vec::new();
        for _ in 0..[1, 1, 2, 3][rng.below(4) as usize] {
            who.push(if rng.per_mille(300) {
                Who::Ours
            } else {
                Who::Stranger(Habits {
                    remembers: rng.per_mille(600),
                    versions: [BOTH, BOTH, &[2], &[1], &[]][rng.below(5) as usize],
                    patience: rng.between(10_000, 40_000),
                })
            });
        }
        let remotes = Self { chain_read: rng.per_mille(500), who };
        let mut lines = Vec::new();
        let calm = fair && rng.per_mille(700);
        for _ in 0..if calm { 0 } else { rng.between(1, 8) } {
            let which = rng.below(remotes.who.len() as u64) as usize;
            let lasts = rng.between(500, 30_000);
            let act = match (rng.below(10), remotes.who[which]) {
                (0 | 1, _) => {
                    let (down_for, forgets) = (rng.between(50, 20_000), rng.per_mille(500));
                    Act::KillFacilitator { which, down_for, forgets }
                }
                (2 | 3, _) | (4 | 5, Who::Ours) => Act::Way { which, way: Way::draw(&mut rng), lasts },
                (4, _) | (6.., Who::Ours) => {
                    let node = node::Ailments {
                        latency: rng.below(2500),
                        down: rng.per_mille(100),
                        lost: rng.below(400),
                        behind: rng.below(500),
                        behind_by: rng.between(1, 3),
                        swallowed: rng.below(300),
                    };
                    let disk = disk::Ailments {
                        latency: rng.below(1000),
                        refused: rng.below(200),
                        in_doubt: rng.below(100),
                    };
                    Act::Facilitator { which, node, disk, lasts }
                }
                _ => Act::Lies { which, lies: Lies::draw(&mut rng), lasts },
            };
            lines.push(Line { at: rng.below(troubles), act });
        }
        Some((remotes, lines))
    }
}

/// Three of ten chances are a chance at all, so that worlds differ in kind.
fn some(rng: &mut Rng, most: u64) -> u64 {
    if rng.per_mille(300) { rng.below(most) } else { 0 }
}

impl Lies {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            verdict: some(rng, 600),
            denies: some(rng, 800),
            repents: some(rng, 800),
            invents: some(rng, 800),
            hastes: some(rng, 800),
            misnames: some(rng, 800),
            contradicts: some(rng, 800),
            twice: some(rng, 1000),
            dies: some(rng, 500),
        }
    }
}

impl Way {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            latency: rng.below(4000),
            refused: some(rng, 800),
            request_lost: some(rng, 500),
            answer_lost: some(rng, 700),
            duplicated: some(rng, 700),
            stalls: some(rng, 500),
            restated: some(rng, 700),
            garbled: some(rng, 700),
        }
    }
}

/// What an answer to `/settle` means to whoever believes every answer that is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Settled, by this transaction, and nothing speaks against it.
    Settled { tx: String, truly: bool },
    /// Nothing was sent.
    Denied,
    /// Anything else.
    Noise,
}

/// What was asked about an authorization, and what was said.
#[derive(Debug, Default)]
pub struct Told {
    /// Whom the settlement was given to: nobody else may have it.
    pub given_to: Option<usize>,
    pub last_asked: u64,
    pub asked: u64,
    /// When, what, and whether the gateway heard it.
    pub said: Vec<(u64, Word, bool)>,
}

/// By the authorization's consumption key.
pub type Book = Arc<Mutex<BTreeMap<String, Told>>>;

/// All facilitators of a world.
#[derive(Debug)]
pub struct Facilitators {
    pub chain_read: bool,
    pub all: Vec<Arc<Remote>>,
    pub book: Book,
}

/// What a process answers, and what it means.
struct Reply {
    status: u16,
    body: Bytes,
    word: Word,
}

impl Reply {
    fn new(status: u16, body: String, word: Word) -> Self {
        Self { status, body: body.into(), word }
    }
}

type Service = Arc<dyn Fn(FacilitatorCall) -> BoxFuture<'static, Reply> + Send + Sync>;

/// A facilitator's machine, which outlives its processes.
pub struct Remote {
    pub number: usize,
    pub who: Who,
    id: String,
    exec: Exec,
    seed: u64,
    ledger: Arc<Ledger>,
    tip: Arc<Tip>,
    book: Book,
    /// The gateway's, for the checkers.
    claims: Arc<dyn Store>,
    pub key: Arc<LocalKey>,
    /// Ours: what is on its disk.
    pub platter: Arc<MemoryStore>,
    depth: u64,
    pub way: Mutex<Way>,
    pub lies: Mutex<Lies>,
    pub node: Arc<Mutex<node::Ailments>>,
    pub disk: Arc<Mutex<disk::Ailments>>,
    /// A stranger's: what it sent for which authorization.
    memory: Mutex<BTreeMap<String, Tx>>,
    pub process: Mutex<Option<ProcessId>>,
    service: Mutex<Option<Service>>,
    lives: AtomicU64,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Facilitator {}", self.number)
    }
}

/// What all machines of a world share.
pub struct Surroundings {
    pub exec: Exec,
    pub seed: u64,
    pub ledger: Arc<Ledger>,
    pub tip: Arc<Tip>,
    pub claims: Arc<dyn Store>,
    pub depth: u64,
    pub fair_node: node::Ailments,
    pub fair_disk: disk::Ailments,
}

impl Facilitators {
    pub fn new(plan: &Remotes, keys: Vec<LocalKey>, around: &Surroundings) -> Self {
        let book = Book::default();
        let all = plan.who.iter().zip(keys).enumerate();
        let all = all.map(|(number, (who, key))| {
            Arc::new(Remote {
                number,
                who: *who,
                id: format!("https://facilitator-{number}.example/"),
                exec: around.exec.clone(),
                seed: around.seed,
                ledger: around.ledger.clone(),
                tip: around.tip.clone(),
                book: book.clone(),
                claims: around.claims.clone(),
                key: Arc::new(key),
                platter: Arc::new(MemoryStore::new()),
                depth: around.depth,
                way: Mutex::new(FAIR_WAY),
                lies: Mutex::default(),
                node: Arc::new(Mutex::new(around.fair_node)),
                disk: Arc::new(Mutex::new(around.fair_disk)),
                memory: Mutex::default(),
                process: Mutex::default(),
                service: Mutex::default(),
                lives: AtomicU64::new(0),
            })
        });
        Self { chain_read: plan.chain_read, all: all.collect(), book }
    }

    /// How often any of them was asked to settle.
    pub fn settlements(&self) -> u64 {
        lock(&self.book).values().map(|told| told.asked).sum()
    }

    /// The rail of a gateway's process in one of its lives.
    pub fn rail(
        &self,
        chain: Arc<Node>,
        world: Arc<dyn World>,
        depth: u64,
        seed: &str,
    ) -> Option<Arc<dyn Rail>> {
        let facilitators = self.all.iter().map(|remote| {
            let rng = Mutex::new(Rng::stream(remote.seed, &format!("{seed}-way-{}", remote.number)));
            Arc::new(ToRemote { remote: remote.clone(), rng }) as Arc<dyn Facilitator>
        });
        let config = RemoteRailConfig {
            network: Network::eip155(NETWORK),
            facilitators: facilitators.collect(),
            registry: Registry::builtin(),
            depths: Depths::blocks(depth),
            resource_url: Arc::new(|path| format!("https://api.example{path}")),
        };
        let chain = self.chain_read.then_some(chain as Arc<dyn farthing_engine::Chain>);
        Some(Arc::new(RemoteRail::new(config, world, chain).ok()?))
    }
}

impl Remote {
    pub fn address(&self) -> farthing_evm::Address {
        to_alloy(&self.key.address()).unwrap_or_default()
    }

    pub fn is_up(&self) -> bool {
        lock(&self.process).is_some()
    }

    pub fn kill(&self, forgets: bool) {
        self.ledger.note(|| format!("facilitator {} is killed", self.number));
        self.let_go();
        if forgets {
            lock(&self.memory).clear();
        }
        lock(&self.ledger.facts).restarts += 1;
        if let Some(process) = lock(&self.process).take() {
            self.exec.kill(process);
        }
    }

    /// Nothing of a process is left in the machine's memory.
    pub fn let_go(&self) {
        *lock(&self.service) = None;
    }

    pub fn boot(self: &Arc<Self>) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let process = self.exec.new_process();
        *lock(&self.process) = Some(process);
        self.ledger.note(|| format!("facilitator {} starts, life {life}", self.number));
        let rng = |name: &str| Rng::stream(self.seed, &format!("facilitator-{}-{life}-{name}", self.number));
        let watched = self.clone();
        let node = Arc::new(Node::new(
            self.exec.clone(),
            self.tip.clone(),
            self.node.clone(),
            rng("node"),
            Arc::new(move |tx| {
                sent(&*watched.platter, &watched.ledger, &format!("facilitator {}", watched.number), tx);
            }),
        ));
        match self.who {
            Who::Stranger(habits) => {
                let this = self.clone();
                let service = move |call: FacilitatorCall| -> BoxFuture<'static, Reply> {
                    let stranger = Stranger { remote: this.clone(), habits, node: node.clone(), process };
                    Box::pin(async move { stranger.answer(call).await })
                };
                *lock(&self.service) = Some(Arc::new(service));
            }
            Who::Ours => {
                let world: Arc<dyn World> =
                    Arc::new(ProcessWorld::new(self.exec.clone(), process, Arc::default(), rng("world")));
                let store: Arc<dyn Store> = Arc::new(Disk::new(
                    self.exec.clone(),
                    process,
                    self.platter.clone(),
                    self.disk.clone(),
                    rng("disk"),
                ));
                let this = self.clone();
                self.exec.spawn(process, Box::pin(async move { this.serve(world, store, node).await }));
            }
        }
    }

    /// The production facilitator, from its engine up. It listens once it has taken up what the former process left.
    async fn serve(self: Arc<Self>, world: Arc<dyn World>, store: Arc<dyn Store>, node: Arc<Node>) {
        let network = Network::eip155(NETWORK);
        let config = RelayerConfig { bump_after: Duration::from_secs(6), ..RelayerConfig::default() };
        let key = self.key.clone();
        let Some(relayer) = Relayer::start(node.clone(), key, store.clone(), world.clone(), config) else {
            return;
        };
        let relayers = vec![relayer.address()];
        let depths = Depths::blocks(self.depth);
        let rail = EvmRail::new(relayer, store.clone(), world.clone(), depths, Registry::builtin())
            .beyond_reorgs(BEYOND_REORGS);
        let rails = HashMap::from([(network, Arc::new(rail) as Arc<dyn Rail>)]);
        let config = EngineConfig {
            answer_within: Duration::from_secs(20),
            unclear_after: Duration::from_secs(10),
            ..EngineConfig::default()
        };
        let engine = Engine::new(store, world.clone(), rails, config);
        while let Err(error) = engine.recover().await {
            self.ledger.note(|| format!("facilitator {} cannot recover yet: {error}", self.number));
            world.sleep(Duration::from_secs(1)).await;
        }
        let tending = engine.clone();
        world.spawn(Box::pin(async move { tending.tend().await }));
        let served = ServedNetwork { chain: node, relayers, tokens: None };
        let config = FacilitatorConfig::default();
        let made = farthing_facilitator::Facilitator::new(engine, vec![served], &Registry::builtin(), config);
        let Ok(facilitator) = made else {
            return self.ledger.broken("our facilitator cannot be made".to_owned());
        };
        let routes = farthing_facilitator::router(facilitator);
        let service = move |call: FacilitatorCall| -> BoxFuture<'static, Reply> {
            let routes = routes.clone();
            Box::pin(async move {
                let mut request = Request::new(Full::new(call.body));
                *request.uri_mut() = format!("/{}", call.ask.path()).parse().unwrap_or_default();
                if call.ask != Ask::Supported {
                    *request.method_mut() = http::Method::POST;
                }
                request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
                let response = match routes.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.map(|body| body.to_bytes());
                let body = body.unwrap_or_default();
                let word = meant(call.ask, status, &body);
                Reply { status, body, word }
            })
        };
        self.ledger.note(|| format!("facilitator {} listens", self.number));
        *lock(&self.service) = Some(Arc::new(service));
    }

    /// Checker: what a facilitator is asked is claimed, and durable; a settlement is given to one of them and no other.
    fn asked(&self, call: &FacilitatorCall) -> Option<String> {
        if call.ask == Ask::Supported {
            return None;
        }
        let broken = |what: String| self.ledger.broken(format!("facilitator {} {what}", self.number));
        let Some(read) = Read::of(&call.body) else {
            broken(format!("cannot read what it is asked: {}", String::from_utf8_lossy(&call.body)));
            return None;
        };
        let key = read.key.clone();
        let filter = PaymentFilter { limit: 1000, ..PaymentFilter::default() };
        let payments = wait(self.claims.payments(filter)).unwrap_or_default();
        // A refusal gave the claim back, and another payment may have it.
        let of_it = payments.iter().filter(|payment| payment.key.as_str() == key);
        let Some(payment) = of_it.max_by_key(|payment| !matches!(payment.state, State::Refused { .. }))
        else {
            broken(format!("is asked about {key}, which nobody claimed"));
            return None;
        };
        let (id, state) = (payment.id, payment.state.name());
        self.ledger.note(|| format!("facilitator {} is asked to {} {id}", self.number, call.ask.path()));
        if call.ask == Ask::Verify {
            return Some(key);
        }
        if !matches!(payment.state, State::Settling { .. } | State::Unknown { .. }) {
            broken(format!("is asked to settle {id}, which is {state}"));
        }
        let mut book = lock(&self.book);
        let told = book.entry(key.clone()).or_default();
        told.last_asked = self.exec.micros();
        told.asked += 1;
        if let Some(other) = told.given_to.replace(self.number).filter(|other| *other != self.number) {
            broken(format!("is given {id}, which facilitator {other} has"));
        }
        Some(key)
    }
}

/// A question, as far as it can be read without the chain.
struct Read {
    key: String,
    /// The network as the question's own version names it.
    network: String,
    payer: String,
    atoms: u128,
    checked: Result<Checked, ErrorCode>,
}

impl Read {
    /// `None` if it cannot be read at all.
    fn at(body: &[u8], now: farthing_primitives::Timestamp) -> Option<Self> {
        let request = PaymentRequest::parse(body).ok()?;
        let tokens = Tokens::new(&Registry::builtin());
        let (requirement, presented, network) = match &request {
            PaymentRequest::V1 { payload, requirements } => {
                let requirement = x402::requirement_v1(requirements, &tokens).ok()?;
                let presented = x402::presented_v1(&requirement, payload).ok()?;
                (requirement, presented, requirements.network.name().to_owned())
            }
            PaymentRequest::V2 { payload, requirements } => {
                let requirement = x402::requirement_v2(requirements, &tokens).ok()?;
                let presented = x402::presented_v2(&requirement, payload).ok()?;
                (requirement, presented, requirements.network.as_str().to_owned())
            }
        };
        let checked = check(&requirement, &presented, now, &Policy::default());
        // What is over or not begun yet is the same authorization.
        let any = match &checked {
            Ok(checked) => checked.key(),
            Err(_) => {
                let policy = Policy { max_validity: None, ..Policy::default() };
                let begins = match &presented {
                    farthing_rails::exact_evm::Presented::Eip3009 { authorization, .. } => {
                        authorization.valid_after
                    }
                    farthing_rails::exact_evm::Presented::Permit2 { transfer, .. } => transfer.valid_after,
                };
                let then = farthing_primitives::Timestamp::from_secs(u64::try_from(begins).ok()? + 1);
                check(&requirement, &presented, then, &policy).ok()?.key()
            }
        };
        Some(Self {
            key: any.as_str().to_owned(),
            network,
            payer: presented.claimed_payer().as_str().to_owned(),
            atoms: requirement.price().atoms(),
            checked: checked.map_err(|refusal| x402::refusal_code(&refusal)),
        })
    }

    fn of(body: &[u8]) -> Option<Self> {
        Self::at(body, farthing_primitives::Timestamp::from_secs(crate::world::EPOCH_SECS))
    }
}

/// What an answer of our own facilitator means.
fn meant(ask: Ask, status: u16, body: &[u8]) -> Word {
    match SettleResponse::parse(body) {
        Ok(answer) if ask == Ask::Settle && status == 200 => {
            match (answer.success, answer.transaction.as_str()) {
                (true, tx) => Word::Settled { tx: tx.to_owned(), truly: true },
                (false, "") => Word::Denied,
                (false, _) => Word::Noise,
            }
        }
        _ => Word::Noise,
    }
}

/// The gateway's way to one facilitator.
struct ToRemote {
    remote: Arc<Remote>,
    rng: Mutex<Rng>,
}

#[async_trait]
impl Facilitator for ToRemote {
    fn id(&self) -> &str {
        &self.remote.id
    }

    fn name(&self) -> &str {
        &self.remote.id
    }

    async fn ask(&self, call: FacilitatorCall, within: Duration) -> Result<FacilitatorAnswer, NoAnswer> {
        let (remote, way) = (&self.remote, *lock(&self.remote.way));
        let mut dice = {
            let mut rng = lock(&self.rng);
            Rng::stream(rng.next(), "exchange")
        };
        let mut direction = || Duration::from_micros(dice.below(way.latency * 1000 + 300));
        let (there, back) = (direction(), direction());
        let exec = &remote.exec;
        exec.sleep(there).await;
        let listens = (*lock(&remote.process), lock(&remote.service).clone());
        let (Some(process), Some(service), false) = (listens.0, listens.1, dice.per_mille(way.refused))
        else {
            return Err(NoAnswer::NotSent);
        };
        // From here on it may have arrived.
        let key = remote.asked(&call);
        if dice.per_mille(way.request_lost) {
            exec.sleep(within).await;
            return Err(NoAnswer::Lost);
        }
        if dice.per_mille(way.duplicated) {
            let copy = service(call.clone());
            exec.spawn(process, Box::pin(async move { drop(copy.await) }));
        }
        let (tell, told) = oneshot::channel();
        let (answer, ask) = (service(call.clone()), call.ask);
        let (book, at, known) = (remote.book.clone(), exec.clone(), key.clone());
        let task = async move {
            let reply = answer.await;
            let mut place = None;
            if let (Ask::Settle, Some(key)) = (ask, known) {
                let mut book = lock(&book);
                let said = &mut book.entry(key).or_default().said;
                place = Some(said.len());
                said.push((at.micros(), reply.word.clone(), false));
            }
            // Whoever asked may be gone.
            drop(tell.send((reply, place)));
        };
        exec.spawn(process, Box::pin(task));
        let (mut reply, place) = match select(told, exec.sleep(within)).await {
            Either::Left((Ok(reply), _)) => reply,
            // It died.
            Either::Left((Err(_), _)) | Either::Right(_) => return Err(NoAnswer::Lost),
        };
        if dice.per_mille(way.stalls) {
            // Longer than the trait's own time-out, which the rail does not rely on.
            exec.sleep(within * 2).await;
            return Err(NoAnswer::Lost);
        }
        if dice.per_mille(way.answer_lost) {
            return Err(NoAnswer::Lost);
        }
        exec.sleep(back).await;
        let mut whole = true;
        if dice.per_mille(way.restated) {
            let others = [201, 204, 302, 400, 402, 404, 429, 500, 502, 503];
            reply.status = others[dice.below(others.len() as u64) as usize];
            whole = false;
        }
        if dice.per_mille(way.garbled) {
            reply.body = garbled(&reply.body, &mut dice);
            whole = false;
        }
        if let (Some(key), Some(place), true) = (&key, place, whole)
            && let Some(said) = lock(&remote.book).get_mut(key).and_then(|told| told.said.get_mut(place))
        {
            said.2 = true;
        }
        remote.ledger.note(|| {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            format!(
                "facilitator {} says {} {}",
                remote.number,
                reply.status,
                body.get(..300).unwrap_or(&body)
            )
        });
        Ok(FacilitatorAnswer { status: reply.status, body: reply.body })
    }
}

/// A part of an answer, or something else altogether: never one that can be read.
fn garbled(body: &Bytes, dice: &mut Rng) -> Bytes {
    match dice.below(6) {
        0 => Bytes::from_static(b"<html><body><h1>502 Bad Gateway</h1></body></html>"),
        1 => Bytes::new(),
        2 => Bytes::from_static(b"null"),
        3 => [&body[..], &body[..]].concat().into(),
        4 => [b"[", &body[..], b"]"].concat().into(),
        _ => body.slice(..dice.below(body.len() as u64) as usize),
    }
}

/// A stranger's process.
struct Stranger {
    remote: Arc<Remote>,
    habits: Habits,
    node: Arc<Node>,
    process: ProcessId,
}

impl Stranger {
    async fn answer(&self, call: FacilitatorCall) -> Reply {
        match call.ask {
            Ask::Supported => self.supported(),
            Ask::Verify => self.verify(&call.body).await,
            Ask::Settle => self.settle(&call.body).await,
        }
    }

    fn dice(&self, what: &str) -> Rng {
        let (number, at) = (self.remote.number, self.remote.exec.micros());
        Rng::stream(self.remote.seed, &format!("stranger-{number}-{what}-{at}"))
    }

    fn supported(&self) -> Reply {
        if self.habits.versions.is_empty() {
            return Reply::new(404, "not here".to_owned(), Word::Noise);
        }
        let network = Network::eip155(NETWORK);
        let kinds = self.habits.versions.iter().map(|version| SupportedKind {
            x402_version: *version,
            scheme: x402::EXACT.to_owned(),
            network: match version {
                1 => network.v1_name().unwrap_or_default().to_owned(),
                _ => network.as_str().to_owned(),
            },
            extra: None,
            other: Object::new(),
        });
        let answer = SupportedResponse { kinds: kinds.collect(), ..SupportedResponse::default() };
        Reply::new(200, answer.print(), Word::Noise)
    }

    /// What its node says of a payment: the call that would settle it, or why there is none. `None`: it cannot tell.
    async fn judge(&self, body: &[u8]) -> Option<(Read, Result<Tx, ErrorCode>)> {
        let head = self.node.head(farthing_engine::Tag::Latest).await.ok()??;
        let read = Read::at(body, head.timestamp)?;
        let checked = match &read.checked {
            Ok(checked) => checked.clone(),
            Err(code) => {
                let code = code.clone();
                return Some((read, Err(code)));
            }
        };
        let results = self.node.read(checked.reads()).await.ok()?;
        let call = checked.judge(&results).map_err(|refusal| x402::refusal_code(&refusal));
        let tx = call.map(|funded| {
            let (to, data) = (funded.settlement().to, funded.settlement().data.to_vec().into());
            Tx::of_owner(self.remote.address(), to, data, self.remote.exec.micros())
        });
        Some((read, tx))
    }

    async fn verify(&self, body: &[u8]) -> Reply {
        let lies = *lock(&self.remote.lies);
        let mut dice = self.dice("verify");
        let Some((read, judged)) = self.judge(body).await else {
            let answer = VerifyResponse::invalid(ErrorCode::UnexpectedVerifyError, None);
            return Reply::new(500, answer.print(), Word::Noise);
        };
        let mut answer = match judged {
            Ok(_) => VerifyResponse::valid(&read.payer),
            Err(code) => VerifyResponse::invalid(code, Some(&read.payer)),
        };
        if dice.per_mille(lies.verdict) {
            answer = match answer.is_valid {
                true => VerifyResponse::invalid(ErrorCode::InsufficientFunds, Some(&read.payer)),
                false => VerifyResponse::valid(&read.payer),
            };
        }
        if dice.per_mille(lies.contradicts) {
            answer.is_valid = true;
            answer.invalid_reason = Some(ErrorCode::InvalidExactEvmSignature);
        }
        Reply::new(200, answer.print(), Word::Noise)
    }

    /// Hands a transaction to the chain, now and whatever comes.
    fn send(&self, key: &str, tx: &Tx) {
        let hash = B256::new(tx.hash).to_string();
        self.remote.ledger.note(|| format!("facilitator {} sends {}", self.remote.number, short(&hash)));
        lock(&self.remote.memory).insert(key.to_owned(), tx.clone());
        lock(&self.remote.tip.chain).offer(tx.clone());
    }

    async fn settle(&self, body: &[u8]) -> Reply {
        let lies = *lock(&self.remote.lies);
        let mut dice = self.dice("settle");
        let known = Read::of(body).map(|read| read.key).unwrap_or_default();
        let known = lock(&self.remote.memory).get(&known).cloned().filter(|_| self.habits.remembers);
        if let Some(tx) = known {
            let Some(read) = Read::of(body) else { return unsure() };
            // What it sent may be gone, with a block or from the pool.
            self.send_again(&tx);
            return self.outcome(&read, &tx, lies, &mut dice).await;
        }
        let Some((read, judged)) = self.judge(body).await else { return unsure() };
        let network = read.network.clone();
        let fails = |code: ErrorCode| SettleResponse::failed(&network, code, Some(&read.payer)).print();
        let tx = match judged {
            Ok(tx) => tx,
            Err(code) => return Reply::new(200, fails(code), Word::Denied),
        };
        if dice.per_mille(lies.repents) {
            let (after, this) = (Duration::from_millis(dice.below(8_000)), self.clone_for_later());
            let key = read.key.clone();
            self.remote.exec.spawn(
                self.process,
                Box::pin(async move {
                    this.remote.exec.sleep(after).await;
                    this.send(&key, &tx);
                }),
            );
            return Reply::new(200, fails(never_sent(&mut dice)), Word::Denied);
        }
        if dice.per_mille(lies.invents) {
            return self.invented(&read, &tx, &mut dice);
        }
        self.send(&read.key, &tx);
        if dice.per_mille(lies.twice) {
            let again = Tx::of_owner(tx.from, tx.to, tx.data.clone(), !self.remote.exec.micros());
            lock(&self.remote.tip.chain).offer(again);
        }
        if dice.per_mille(lies.dies) {
            let remote = self.remote.clone();
            let back = async move {
                // Not from within its own task.
                remote.exec.sleep(Duration::from_millis(1)).await;
                if remote.is_up() {
                    remote.kill(false);
                    remote.exec.sleep(Duration::from_secs(1)).await;
                    if !remote.is_up() {
                        remote.boot();
                    }
                }
            };
            self.remote.exec.spawn(WORLD, Box::pin(back));
        }
        self.outcome(&read, &tx, lies, &mut dice).await
    }

    fn clone_for_later(&self) -> Self {
        let (remote, habits, node) = (self.remote.clone(), self.habits, self.node.clone());
        Self { remote, habits, node, process: self.process }
    }

    fn send_again(&self, tx: &Tx) {
        let mut chain = lock(&self.remote.tip.chain);
        if chain.receipt(&tx.hash, chain.blocks.len() - 1).is_none() {
            chain.offer(tx.clone());
        }
    }

    /// A success for which nothing was done.
    fn invented(&self, read: &Read, tx: &Tx, dice: &mut Rng) -> Reply {
        let mut chain = lock(&self.remote.tip.chain);
        let hash = match dice.below(3) {
            // Of nothing.
            0 => {
                let mut hash = [0; 32];
                dice.fill(&mut hash);
                hash
            }
            // Of something else: the newest there is.
            1 => {
                let newest = chain.blocks.iter().rev().flat_map(|block| block.txs.last()).next();
                newest.map_or(tx.hash, |tx| tx.hash)
            }
            // Of a call that reverts: the same without a signature.
            _ => {
                let mut data = tx.data.to_vec();
                let end = data.len();
                data[end.saturating_sub(64)..].fill(7);
                let reverts = Tx::of_owner(tx.from, tx.to, data.into(), dice.next());
                chain.offer(reverts.clone());
                reverts.hash
            }
        };
        let hash = B256::new(hash).to_string();
        let answer = SettleResponse::settled(&read.network, &hash, Some(&read.payer));
        Reply::new(200, answer.print(), Word::Settled { tx: hash, truly: false })
    }

    /// Waits for a transaction to be in a block, and says so in its own way.
    async fn outcome(&self, read: &Read, tx: &Tx, lies: Lies, dice: &mut Rng) -> Reply {
        let hash = B256::new(tx.hash).to_string();
        let hastes = dice.per_mille(lies.hastes);
        let until = self.remote.exec.elapsed() + Duration::from_millis(self.habits.patience);
        let receipt = loop {
            if hastes {
                break None;
            }
            let found = self.node.receipts(vec![TxHash(tx.hash)]).await.ok();
            match found.and_then(|found| found.into_iter().next().flatten()) {
                Some(receipt) => break Some(receipt),
                None if self.remote.exec.elapsed() >= until => break None,
                None => self.remote.exec.sleep(Duration::from_millis(700)).await,
            }
        };
        let (network, payer) = (read.network.as_str(), Some(read.payer.as_str()));
        let mut answer = match &receipt {
            Some(receipt) if receipt.success => SettleResponse::settled(network, &hash, payer),
            Some(_) => SettleResponse {
                transaction: hash.clone(),
                ..SettleResponse::failed(network, ErrorCode::InvalidExactEvmTransactionFailed, payer)
            },
            None if hastes => SettleResponse::settled(network, &hash, payer),
            None => SettleResponse::pending(network, &hash, payer),
        };
        if dice.per_mille(500) {
            answer.amount = Some(read.atoms.to_string());
        }
        if dice.per_mille(lies.denies) {
            let denied = SettleResponse::failed(network, never_sent(dice), payer);
            return Reply::new(200, denied.print(), Word::Denied);
        }
        if !answer.success {
            return Reply::new(200, answer.print(), Word::Noise);
        }
        let mut word = Word::Settled { tx: hash, truly: !hastes };
        if dice.per_mille(lies.misnames) {
            let mut other = [0; 32];
            dice.fill(&mut other);
            let other = B256::new(other).to_string();
            answer.transaction = other.clone();
            word = Word::Settled { tx: other, truly: false };
        }
        if dice.per_mille(lies.contradicts) {
            match dice.below(4) {
                0 => answer.error_reason = Some(ErrorCode::UnexpectedSettleError),
                1 => answer.payer = Some(format!("0x{}", "9".repeat(40))),
                2 => answer.amount = Some((read.atoms - 1).to_string()),
                _ => answer.network = Network::eip155(8453).as_str().to_owned(),
            }
            word = Word::Noise;
        }
        Reply::new(200, answer.print(), word)
    }
}

fn unsure() -> Reply {
    let answer = SettleResponse::failed("", ErrorCode::UnexpectedSettleError, None);
    Reply::new(500, answer.print(), Word::Noise)
}

/// A reason that says that nothing was sent.
fn never_sent(dice: &mut Rng) -> ErrorCode {
    let codes = [
        ErrorCode::InsufficientFunds,
        ErrorCode::InvalidExactEvmInsufficientBalance,
        ErrorCode::InvalidExactEvmSignature,
        ErrorCode::InvalidExactEvmTransactionSimulationFailed,
    ];
    codes[dice.below(codes.len() as u64) as usize].clone()
}

/// What a gateway promises that takes others' word: it believes an unambiguous success of the facilitator that has the
/// payment, and nothing else; and whatever else it is told, it never calls the payment failed.
pub(crate) fn taken_at_their_word(stage: &Stage, remotes: &Facilitators, payments: &[Payment]) {
    let broken = |what: String| stage.ledger.broken(what);
    let chain = lock(&stage.tip.chain);
    let signed = lock(&stage.ledger.facts).signed.clone();
    let book = lock(&remotes.book);
    let paid: BTreeMap<String, String> = {
        let used = &chain.tip().state.used;
        let of = |nonce: &B256| {
            payments.iter().find(|payment| is_of(payment, nonce)).map(|payment| payment.key.as_str())
        };
        let paid = used.iter().filter_map(|((_, nonce), used)| match used {
            Used::Paid { tx, .. } => Some((of(nonce)?.to_owned(), tx.to_string())),
            Used::Cancelled => None,
        });
        paid.collect()
    };
    for (from, nonce) in chain.tip().state.used.keys() {
        if !signed.contains_key(nonce) {
            broken(format!("{from} used {nonce}, which nobody signed"));
        }
    }
    let mut named = BTreeMap::new();
    for payment in payments {
        let (id, state) = (payment.id, payment.state.name());
        let none = Told::default();
        let told = book.get(payment.key.as_str()).unwrap_or(&none);
        match &payment.state {
            State::Settled { proof, .. } => {
                let tx = proof.tx.as_str();
                if proof.witness != Witness::Facilitator {
                    broken(format!("{id} is settled by what the gateway cannot have seen"));
                }
                if let Some(other) = named.insert(tx.to_owned(), id) {
                    broken(format!("{id} and {other} are settled by the same {tx}"));
                }
                let words = told.said.iter().filter_map(|(_, word, _)| match word {
                    Word::Settled { tx: said, truly } if said == tx => Some(*truly),
                    _ => None,
                });
                let words: Vec<bool> = words.collect();
                if words.is_empty() {
                    broken(format!("{id} is settled by {tx}, which nobody said"));
                }
                // An honest word is so, unless its block is gone.
                let gone = B256::from_str(tx).is_ok_and(|tx| chain.uprooted.contains(&tx.0));
                let so = paid.get(payment.key.as_str()).is_some_and(|paid| paid == tx);
                if !so && !gone && words.iter().all(|truly| *truly) {
                    broken(format!("{id} is settled by {tx}, and the chain does not show it"));
                }
            }
            State::Settling { .. } | State::Unknown { .. } | State::Lapsing { .. } => {
                let heals = stage.plan.heals_at * 1000;
                // Its transaction may have been named for another payment, by a lie; a transfer counts once.
                let credited = |tx: &str| {
                    payments.iter().any(|other| {
                        other.id != id
                            && matches!(&other.state, State::Settled { proof, .. } if proof.tx.as_str() == tx)
                    })
                };
                if matches!(payment.state, State::Lapsing { .. }) {
                    let denied = told.said.iter().any(|(_, word, _)| match word {
                        Word::Denied => true,
                        Word::Settled { tx, .. } => credited(tx),
                        Word::Noise => false,
                    });
                    if !denied && told.given_to.is_some() {
                        broken(format!("{id} is {state}, and nobody said that nothing was sent"));
                    }
                    continue;
                }
                if told.last_asked < heals {
                    broken(format!("{id} is {state}, and was not asked about when all was well"));
                }
                let last = told.said.iter().rev().find(|(at, _, heard)| *heard && *at > heals);
                if let Some((_, Word::Settled { tx, .. }, _)) = last
                    && !credited(tx)
                {
                    broken(format!("{id} is {state}, and its facilitator says that {tx} settled it"));
                }
            }
            State::Refused { .. } => {
                // Its claim was given back, and another payment may have it.
                let alone = !payments.iter().any(|other| other.id != id && other.key == payment.key);
                if told.given_to.is_some() && alone {
                    broken(format!("{id} is refused, and was given to a facilitator"));
                }
            }
            _ => broken(format!("{id} is {state}, for which nobody's word is enough")),
        }
    }
    // Whatever the books say, everybody is told of what was paid: it is in them, and not as a failure.
    for (key, tx) in &paid {
        let mut known = payments.iter().filter(|payment| payment.key.as_str() == key);
        if known.all(|payment| matches!(payment.state, State::Refused { .. } | State::Failed { .. })) {
            broken(format!("{key} was paid by {tx}, and the books call it over"));
        }
    }
}

/// Our own facilitators' books: at rest, in order, and as the chain has it.
pub(crate) fn houses(stage: &Stage, remotes: &Facilitators) {
    let chain = lock(&stage.tip.chain);
    let tip = chain.tip();
    for remote in remotes.all.iter().filter(|remote| remote.who == Who::Ours) {
        let broken = |what: String| stage.ledger.broken(format!("facilitator {}: {what}", remote.number));
        match wait(remote.platter.check_books()) {
            Ok(books) if books.problems.is_empty() => {}
            other => broken(format!("the books are not in order: {other:?}")),
        }
        let filter = PaymentFilter { limit: 1000, ..PaymentFilter::default() };
        for payment in wait(remote.platter.payments(filter)).unwrap_or_default() {
            let (id, state) = (payment.id, payment.state.name());
            if payment.next() != Next::Rest {
                broken(format!("{id} never came to rest: {state}"));
            }
            let used = tip.state.used.iter().find(|((_, nonce), _)| is_of(&payment, nonce));
            match (&payment.state, used) {
                (State::Settled { proof, .. }, Some((_, Used::Paid { tx, .. }))) => {
                    if proof.tx.as_str() != tx.to_string() {
                        broken(format!("{id} is settled by {}, but the chain says {tx}", proof.tx));
                    }
                    let ours = chain.blocks.iter().flat_map(|block| &block.txs);
                    let ours = ours.filter(|tx| tx.from == remote.address());
                    if ours.map(|tx| B256::new(tx.hash).to_string()).any(|tx| tx == proof.tx.as_str())
                        && proof.fee.is_none()
                    {
                        broken(format!("{id} is settled by our own transaction, whose gas is not booked"));
                    }
                }
                (State::Settled { .. }, _) => {
                    broken(format!("{id} is settled, and the chain does not show it"));
                }
                // Another facilitator may have had it, or nobody: this one was only asked.
                (State::Refused { .. }, _) => {}
                (_, Some((_, Used::Paid { tx, .. }))) => {
                    broken(format!("{id} is {state}, and was paid by {tx}"));
                }
                _ => {}
            }
        }
    }
}
