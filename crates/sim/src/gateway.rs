//! A machine that runs the gateway: the production paywall, engine, rail and relayer, over a disk that outlives it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farthing_chain::LocalKey;
use farthing_engine::RelayerKey as _;
use farthing_engine::{
    ChannelFilter, ChannelStore, Depths, Desk, Engine, EngineConfig, EvmRail, ExposureLimit, Rail, Relayer,
    RelayerConfig, Store, Till, TillConfig, World,
};
use farthing_evm::Key;
use farthing_faultdisk::Crash;
use farthing_payment::{Delivery, Flow, State};
use farthing_paywall::{
    Amount, Limits, Paid, Paywall, PaywallBody, PaywallLayer, Price, Route, RouteTable, Terms, Way,
    X_FARTHING_PAYMENT,
};
use farthing_primitives::{Address, Network, PaymentId, PullMethod, Registry};
use farthing_rails::offer::BindingKey;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};

use crate::chain::Tx;
use crate::disk::{self, Disk};
use crate::exec::{Exec, ProcessId, WORLD, lock};
use crate::facilitators::Facilitators;
use crate::facts::{self, Ledger};
use crate::meters::{self, METERS};
use crate::net::Listener;
use crate::node::{self, Node, Tip};
use crate::platter::Platter;
use crate::refunds::settlement;
use crate::rng::Rng;
use crate::wait;
use crate::world::{ProcessWorld, Skew};

pub const NETWORK: u64 = 84_532;
pub const BLOCK_TIME: Duration = Duration::from_secs(2);
/// Twice as deep as the deepest reorganization that is played.
pub const BEYOND_REORGS: u64 = 8;
/// What the routes cost, in atoms.
pub const PRICE: u128 = 1000;
/// Until how much is served on credit.
pub const EXPOSURE: ExposureLimit = ExposureLimit { per_payer: 3000, total: 6000 };
/// How long a payer has to pay.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// What a route of the shop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shelf {
    pub method: &'static str,
    pub path: &'static str,
    pub flow: Flow,
    pub repeatable: bool,
}

pub const SHELVES: [Shelf; 5] = [
    Shelf { method: "GET", path: "/weather", flow: Flow::Authorization, repeatable: true },
    Shelf { method: "GET", path: "/other", flow: Flow::Authorization, repeatable: true },
    Shelf { method: "POST", path: "/order", flow: Flow::Authorization, repeatable: false },
    Shelf { method: "GET", path: "/upfront", flow: Flow::Upfront, repeatable: true },
    Shelf { method: "GET", path: "/credit", flow: Flow::Background, repeatable: true },
];

/// How the upstream behaves. Chances in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mood {
    pub latency: u64,
    pub fails: u64,
    pub breaks_off: u64,
    pub hangs: u64,
}

pub struct Machine {
    pub exec: Exec,
    pub seed: u64,
    pub ledger: Arc<Ledger>,
    pub tip: Arc<Tip>,
    /// The books, as checkers read them.
    pub platter: Arc<dyn ChannelStore>,
    /// Where the processes have them, if that is SQLite; else in `platter` itself.
    pub sqlite: Option<Arc<Platter>>,
    pub operator: Mutex<Operator>,
    pub skew: Skew,
    pub disk: Arc<Mutex<disk::Ailments>>,
    pub node: Arc<Mutex<node::Ailments>>,
    pub mood: Arc<Mutex<Mood>>,
    pub payee: Address,
    pub relayer: Arc<LocalKey>,
    /// The key of whoever is paid, with which the till collects by the relayer's transactions.
    pub payee_secret: [u8; 32],
    /// What is sold by the unit, if anything is.
    pub sessions: Option<meters::Sessions>,
    /// When the gateway listened, in microseconds: from, and up to, which is not there while it does.
    pub up: Mutex<Vec<(u64, Option<u64>)>>,
    /// Something was written that the checkers of channels have not looked at.
    pub touched: Arc<AtomicBool>,
    /// Who settles, if not this machine itself.
    pub remotes: Option<Arc<Facilitators>>,
    pub depth: u64,
    /// Whether the shop takes money through Permit2, too.
    pub permit2: bool,
    pub lives: AtomicU64,
    pub process: Mutex<Option<ProcessId>>,
    pub listener: Arc<Mutex<Option<Listener>>>,
    pub engine: Arc<Mutex<Option<Engine>>>,
}

/// Who looks after the gateway's store.
#[derive(Debug)]
pub struct Operator {
    is_called: bool,
    rng: Rng,
}

impl Operator {
    pub fn new(seed: u64) -> Self {
        Self { is_called: false, rng: Rng::stream(seed, "operator") }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

impl Machine {
    /// Starts the process. It listens once it has taken up what the former one left.
    pub fn boot(self: &Arc<Self>) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let process = self.exec.new_process();
        *lock(&self.process) = Some(process);
        self.ledger.note(|| format!("gateway starts, life {life}"));
        let rng = |name: &str| Rng::stream(self.seed, &format!("gateway-{life}-{name}"));
        let world: Arc<dyn World> =
            Arc::new(ProcessWorld::new(self.exec.clone(), process, self.skew.clone(), rng("world")));
        let platter: Arc<dyn ChannelStore> = match self.sqlite.clone() {
            Some(sqlite) => sqlite,
            None => self.platter.clone(),
        };
        let disk = Disk::new(self.exec.clone(), process, platter, self.disk.clone(), rng("disk"));
        let store: Arc<dyn ChannelStore> = Arc::new(disk.saying(self.touched.clone()));
        let network = Network::eip155(NETWORK);
        let (this, watched) = (self.clone(), self.clone());
        let chain = Arc::new(Node::new(
            self.exec.clone(),
            self.tip.clone(),
            self.node.clone(),
            rng("node"),
            Arc::new(move |tx| watched.broadcasts(tx)),
        ));
        let task = async move {
            // As a process that cannot open its store: it ends, and its supervisor tries again.
            while let Some(Err(why)) = this.sqlite.as_ref().map(|platter| platter.open()) {
                this.ledger.note(|| format!("the store cannot be opened yet: {why}"));
                world.sleep(Duration::from_secs(1)).await;
            }
            let mut relayer = None;
            let rail = match &this.remotes {
                Some(remotes) => remotes.rail(chain, world.clone(), this.depth, &format!("gateway-{life}")),
                None => {
                    relayer = this.own_relayer(chain, store.clone(), world.clone());
                    relayer.clone().map(|relayer| this.own_rail(relayer, store.clone(), world.clone()))
                }
            };
            let Some(rail) = rail else { return };
            let rails = HashMap::from([(network, rail)]);
            let config = EngineConfig {
                answer_within: Duration::from_secs(20),
                unclear_after: Duration::from_secs(10),
                // Whoever has paid may come back as late as this world ends.
                replay_ttl: Duration::from_secs(3600),
                ..EngineConfig::default()
            };
            let engine = Engine::new(store.clone(), world.clone(), rails, config);
            // A process that cannot take up what was left ends; its supervisor tries again.
            while let Err(error) = engine.recover().await {
                this.ledger.note(|| format!("gateway cannot recover yet: {error}"));
                world.sleep(Duration::from_secs(1)).await;
            }
            let tending = engine.clone();
            world.spawn(Box::pin(async move { tending.tend().await }));
            let key = BindingKey::new([9; 32], None);
            let seller = Arc::new(engine.clone());
            let mut paywall = Paywall::new(this.terms(), seller, world.clone(), key, Limits::default());
            if let (Some(relayer), Some(_)) = (relayer, &this.sessions) {
                let Some(till) = this.till(&relayer, &store, &world).await else { return };
                paywall = paywall.with_till(till);
            }
            let service = PaywallLayer::new(paywall).layer(Upstream(this.clone()));
            let machine = this.clone();
            let handler = Arc::new(move |request: Request<Full<Bytes>>| -> BoxFuture<'static, _> {
                let (service, machine) = (service.clone(), machine.clone());
                Box::pin(async move {
                    let path = request.uri().path().to_owned();
                    match service.oneshot(request).await {
                        Ok(response) => meters::leaves(&machine, &path, response),
                        Err(never) => match never {},
                    }
                })
            });
            this.ledger.note(|| "gateway listens".to_owned());
            lock(&this.up).push((this.exec.micros(), None));
            *lock(&this.engine) = Some(engine);
            *lock(&this.listener) = Some(Listener { process, handler });
        };
        self.exec.spawn(process, Box::pin(task));
    }

    fn own_relayer(
        &self,
        chain: Arc<Node>,
        store: Arc<dyn Store>,
        world: Arc<dyn World>,
    ) -> Option<Arc<Relayer>> {
        let config = RelayerConfig { bump_after: Duration::from_secs(6), ..RelayerConfig::default() };
        Relayer::start(chain, self.relayer.clone(), store, world, config)
    }

    fn own_rail(&self, relayer: Arc<Relayer>, store: Arc<dyn Store>, world: Arc<dyn World>) -> Arc<dyn Rail> {
        let depths = Depths::blocks(self.depth);
        let rail = EvmRail::new(relayer, store, world, depths, Registry::builtin());
        Arc::new(rail.beyond_reorgs(BEYOND_REORGS))
    }

    /// The till of this process, once the store says what a former one left.
    async fn till(
        &self,
        relayer: &Arc<Relayer>,
        store: &Arc<dyn ChannelStore>,
        world: &Arc<dyn World>,
    ) -> Option<Till> {
        loop {
            let payees = Key::from_bytes(self.payee_secret).into_iter().collect();
            let desk = Desk::new(relayer.clone(), Depths::blocks(self.depth), payees)?;
            let desks = HashMap::from([(Network::eip155(NETWORK), desk)]);
            let config = TillConfig {
                escrow_code: vec![farthing_wallet::escrows::ESCROW_CODE],
                answer_within: Duration::from_secs(20),
                beyond_reorgs: BEYOND_REORGS,
                ..TillConfig::default()
            };
            match Till::start(store.clone(), world.clone(), desks, config).await {
                Ok(till) => return Some(till),
                Err(error) => {
                    self.ledger.note(|| format!("the till cannot begin yet: {error}"));
                    world.sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Whether it sees for itself what is on the chain.
    pub fn sees(&self) -> bool {
        self.remotes.as_ref().is_none_or(|remotes| remotes.chain_read)
    }

    pub fn kill(&self) {
        self.stop(Crash::Process);
    }

    /// Looks after the SQLite store: a power cut takes the machine down, and a store that refuses until it is opened
    /// again makes an operator come and start the process anew.
    pub fn look_after(self: &Arc<Self>) {
        let Some(platter) = &self.sqlite else { return };
        let Some(process) = *lock(&self.process) else { return };
        let this = self.clone();
        if platter.is_cut() {
            self.ledger.note(|| "the power is off".to_owned());
            self.stop(Crash::Power);
            let dark = Duration::from_millis(platter.dark_for.load(Ordering::Relaxed));
            let back = async move {
                this.exec.sleep(dark).await;
                if lock(&this.process).is_none() {
                    this.boot();
                }
            };
            return self.exec.spawn(WORLD, Box::pin(back));
        }
        let mut operator = lock(&self.operator);
        if !platter.begins_to_refuse() || operator.is_called {
            return;
        }
        operator.is_called = true;
        let comes = Duration::from_millis(operator.rng.between(500, 15_000));
        let looks = async move {
            this.exec.sleep(comes).await;
            lock(&this.operator).is_called = false;
            let answers = this.sqlite.as_ref().is_none_or(|platter| platter.answers());
            if *lock(&this.process) != Some(process) || answers {
                return;
            }
            this.ledger.note(|| "an operator starts the gateway anew".to_owned());
            this.kill();
            this.exec.sleep(Duration::from_secs(1)).await;
            if lock(&this.process).is_none() {
                this.boot();
            }
        };
        self.exec.spawn(WORLD, Box::pin(looks));
    }

    fn stop(&self, how: Crash) {
        self.ledger.note(|| "gateway is killed".to_owned());
        if let Some((_, until)) = lock(&self.up).last_mut() {
            until.get_or_insert(self.exec.micros());
        }
        self.let_go();
        if let Some(process) = lock(&self.process).take() {
            self.exec.kill(process);
        }
        if let Some(platter) = &self.sqlite {
            platter.crash(how);
        }
        lock(&self.ledger.facts).restarts += 1;
    }

    /// Nothing of a process is left in the machine's memory.
    pub fn let_go(&self) {
        *lock(&self.listener) = None;
        *lock(&self.engine) = None;
    }

    fn terms(&self) -> Terms {
        let registry = Registry::builtin();
        let network = Network::eip155(NETWORK);
        let mut routes = Vec::new();
        for shelf in SHELVES {
            let Some(asset) = registry.dollar(&network) else { continue };
            let pulls = [PullMethod::Eip3009, PullMethod::Permit2];
            let offers = pulls[..1 + usize::from(self.permit2)].iter().filter_map(|pull| {
                let way = Way::new(&registry, asset, self.payee.clone(), *pull).ok()?;
                Arc::new(way).offer(&Amount::Atoms(PRICE)).ok()
            });
            let mut paid = Paid::new(Price::Fixed(offers.collect()));
            paid.flow = shelf.flow;
            paid.max_timeout = MAX_TIMEOUT;
            paid.upstream_timeout = Duration::from_secs(10);
            if shelf.flow == Flow::Background {
                paid.exposure = Some(EXPOSURE);
            }
            let Ok(pattern) = format!("{} {}", shelf.method, shelf.path).parse() else { continue };
            routes.push((pattern, Route::paid(paid)));
        }
        if let Some(sessions) = &self.sessions {
            let payee = if sessions.by_relayer { self.relayer.address() } else { self.payee.clone() };
            routes.extend(METERS.iter().filter_map(|meter| meter.route(sessions, payee.clone())));
        }
        // INVARIANT: the shelves are distinct.
        #[allow(clippy::expect_used)]
        Terms::new(RouteTable::new(routes).expect("distinct shelves"))
    }

    /// Checker: what leaves must be durable first.
    fn broadcasts(&self, tx: &Tx) {
        sent(&*self.platter, &self.ledger, "gateway", tx);
    }
}

/// Checker: what `who` sends is durable in its own store.
pub fn sent(store: &dyn ChannelStore, ledger: &Ledger, who: &str, tx: &Tx) {
    let relayer = farthing_evm::from_alloy(tx.from);
    let hash = farthing_evm::B256::new(tx.hash).to_string();
    let network = Network::eip155(NETWORK);
    let slot = tx.nonce.and_then(|nonce| wait(store.slot_at(&network, &relayer, nonce)).ok().flatten());
    let durable = slot.is_some_and(|stored| stored.slot.variants.iter().any(|v| v.tx.as_str() == hash));
    ledger.note(|| format!("{who} sends {} nonce {:?}", short(&hash), tx.nonce));
    if !durable && !was_durable(store, tx, &hash) {
        ledger.broken(format!("the transaction {hash} was sent before it was durable"));
    }
}

/// A slot that is final or lost is no live one, and may be sent again by a task that has not heard of it.
fn was_durable(store: &dyn ChannelStore, tx: &Tx, hash: &str) -> bool {
    let named = |book| {
        let slots = wait(store.slots_of(book)).unwrap_or_default();
        slots.iter().flat_map(|stored| &stored.slot.variants).any(|variant| variant.tx.as_str() == hash)
    };
    if tx.to == crate::escrow::ESCROW {
        let all = ChannelFilter { limit: 1000, ..ChannelFilter::default() };
        return wait(store.channels(all)).unwrap_or_default().iter().any(|payee| named(payee.book()));
    }
    let Some(nonce) = crate::chain::nonce_in(&tx.data) else { return false };
    let filter = farthing_engine::PaymentFilter { limit: 1000, ..Default::default() };
    let all = wait(store.payments(filter)).unwrap_or_default();
    all.iter().filter(|payment| crate::check::is_of(payment, &nonce)).any(|payment| named(payment.id))
}

pub fn short(hash: &str) -> &str {
    hash.get(..10).unwrap_or(hash)
}

/// What stands behind the paywall.
#[derive(Clone)]
struct Upstream(Arc<Machine>);

impl Upstream {
    /// Checker: nothing is served without a claim, nor to more than the exposure allows.
    fn called(&self, id: PaymentId) {
        let machine = &self.0;
        let payment = wait(machine.platter.payment(id)).ok().flatten();
        let Some(payment) = payment else {
            return machine.ledger.broken(format!("the upstream was called for {id}, which nobody claimed"));
        };
        machine.ledger.note(|| format!("upstream is called for {id} ({})", payment.state.name()));
        if payment.delivery != Delivery::Called {
            let delivery = payment.delivery.name();
            machine.ledger.broken(format!("the upstream was called for {id}, whose delivery is {delivery}"));
        }
        let fits = match payment.flow {
            Flow::Authorization => matches!(payment.state, State::Funded),
            // Settled: it was cut off on credit, was charged for, and is owed.
            Flow::Background => matches!(payment.state, State::Funded) || settlement(&payment).is_some(),
            // The call was durable before its refund was.
            Flow::Upfront => settlement(&payment).is_some(),
        };
        if !fits {
            let state = payment.state.name();
            machine.ledger.broken(format!("the upstream was called for {id}, which is {state}"));
        }
        if payment.flow == Flow::Background && payment.state == State::Funded {
            let terms = &payment.terms;
            let owed = wait(machine.platter.exposure(
                &payment.tenant,
                &terms.payer,
                &terms.payee,
                terms.money.asset(),
            ));
            if let Ok((of_payer, of_all)) = owed
                && (of_payer.atoms() > EXPOSURE.per_payer || of_all.atoms() > EXPOSURE.total)
            {
                machine
                    .ledger
                    .broken(format!("{id} is served beyond the exposure: {of_payer:?}, {of_all:?}"));
            }
        }
        let mut facts = lock(&machine.ledger.facts);
        // One authorization buys once, whatever it is called in the books.
        let same_key = wait(
            machine.platter.payments(farthing_engine::PaymentFilter { limit: 1000, ..Default::default() }),
        );
        let same_key = same_key.unwrap_or_default();
        let mut twins = same_key.iter().filter(|twin| twin.key == payment.key && twin.id != id);
        if let Some(twin) =
            twins.find(|twin| facts.services.iter().any(|s| s.payment == twin.id && s.complete))
        {
            machine.ledger.broken(format!("{id} is served for what {} was served for", twin.id));
        }
        let before = facts.services.iter().filter(|service| service.payment == id).count();
        facts.services.push(facts::Service { payment: id, at: machine.exec.micros(), complete: false });
        drop(facts);
        if before > 0 && !payment.binding.repeatable && payment.flow == Flow::Authorization {
            machine.ledger.broken(format!("the upstream was called twice for {id}, which is not repeatable"));
        }
    }
}

impl Service<Request<Full<Bytes>>> for Upstream {
    type Response = Response<PaywallBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let machine = &this.0;
            let id = request.headers().get(X_FARTHING_PAYMENT).and_then(|id| id.to_str().ok()?.parse().ok());
            let Some(id) = id else {
                machine.ledger.broken("the upstream was called for no payment".to_owned());
                return Ok(answer(StatusCode::OK, Bytes::new()));
            };
            if let Some(meter) = METERS.iter().find(|meter| meter.path == request.uri().path()) {
                return Ok(meters::serve(machine, meter, id, request.uri()).await);
            }
            this.called(id);
            let (latency, fails, breaks_off, hangs) = {
                let mood = *lock(&machine.mood);
                let mut rng = Rng::stream(machine.seed, &format!("upstream-{id}-{}", machine.exec.micros()));
                let latency = Duration::from_micros(rng.below(mood.latency * 1000 + 500));
                let mut chance = |of| rng.per_mille(of);
                (latency, chance(mood.fails), chance(mood.breaks_off), chance(mood.hangs))
            };
            machine.exec.sleep(latency).await;
            if hangs {
                machine.exec.sleep(Duration::from_secs(3600)).await;
            }
            if fails {
                return Ok(answer(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from_static(b"sorry")));
            }
            let goods = Bytes::from(format!("goods for {id}"));
            if breaks_off {
                let frames = [Ok(http_body::Frame::data(goods)), Err("broken off".into())];
                let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
                return Ok(Response::new(body.boxed_unsync()));
            }
            let mut facts = lock(&machine.ledger.facts);
            if let Some(service) = facts.services.iter_mut().rev().find(|service| service.payment == id) {
                service.complete = true;
            }
            drop(facts);
            Ok(answer(StatusCode::OK, goods))
        })
    }
}

pub fn answer(status: StatusCode, body: Bytes) -> Response<PaywallBody> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}
