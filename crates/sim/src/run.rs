//! Lets a plan happen.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farthing_chain::LocalKey;
use farthing_evm::{Address, Domain, Key, U256, abi, from_alloy, known};
use farthing_primitives::{Network, Registry};
use farthing_store::MemoryStore;

use crate::chain::{Chain, State, Tx, Weather, cancel_call};
use crate::escrow::ESCROW;
use crate::exec::{Ended, Exec, WORLD, lock};
use crate::facilitators::{FAIR_WAY, Facilitators, Lies, Remote, Surroundings};
use crate::facts::Ledger;
use crate::gateway::{BLOCK_TIME, Machine, Mood, NETWORK, SHELVES};
use crate::home::Home;
use crate::meters::METERS;
use crate::net::Net;
use crate::node::Tip;
use crate::owner::{self, Owner};
use crate::patron::Patron;
use crate::payer::{Buyer, End, Pays, Style};
use crate::plan::{Act, Line, Plan};
use crate::platter::{Platter, Trouble};
use crate::rng::Rng;
use crate::world::EPOCH_SECS;
use crate::{channels, check, disk, gateway, node, patron};

/// How much each payer has, in atoms.
const FUNDS: u128 = 1_000_000;
/// How much the relayer has for gas, in wei.
pub(crate) const GAS: u128 = 1_000_000_000_000_000_000;

/// How a world went.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub seed: u64,
    /// The first thing that was wrong: when (microseconds since the beginning), and what.
    pub violation: Option<(u64, String)>,
    pub timeline: Vec<(u64, String)>,
    /// The same for each run of one plan.
    pub fingerprint: u64,
    pub counts: Counts,
}

/// What happened in a world, so that it shows that something did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub payments: u64,
    pub settled: u64,
    pub failed: u64,
    pub goods: u64,
    pub services: u64,
    pub restarts: u64,
    pub reorganized: u64,
    pub losses: u64,
    /// Settlements that facilitators were asked for, payments that wait for a person in the end, and payments that the
    /// gateway takes for settled, by a facilitator's word alone, and that the chain does not show.
    pub remote: u64,
    pub held: u64,
    pub believed: u64,
    pub polls: u64,
    pub virtual_secs: u64,
    /// Channels in the escrow, the vouchers that each were higher than those before, and calls that these paid for.
    pub channels: u64,
    pub vouchers: u64,
    pub by_the_unit: u64,
    /// Channels whose payer asked the escrow to close, those of them that the seller answered, and transactions with
    /// the escrow that a reorganization took back.
    pub forced: u64,
    pub answered: u64,
    pub channels_reorganized: u64,
}

/// Everything in a world that the checkers look at.
pub(crate) struct Stage {
    pub exec: Exec,
    pub plan: Plan,
    pub ledger: Arc<Ledger>,
    pub tip: Arc<Tip>,
    pub gateway: Arc<Machine>,
    pub buyers: Vec<Arc<Buyer>>,
    pub owners: Vec<Arc<Owner>>,
    pub patrons: Vec<Arc<Patron>>,
    pub net: Net,
    pub safe: Address,
    pub token_total: u128,
    pub wei_total: u128,
}

/// Lets a plan happen and checks what came of it. `record`: keep the timeline.
pub fn run(plan: &Plan, record: bool) -> Outcome {
    play(&build(plan, record))
}

fn play(stage: &Stage) -> Outcome {
    let plan = &stage.plan;
    let heals = plan.heals_at * 1000;
    let violation = || stage.ledger.violation().is_some();
    let until_broken = || {
        stage.gateway.look_after();
        if stage.plan.sessions.is_some() && stage.gateway.touched.swap(false, Ordering::Relaxed) {
            channels::step(&stage.gateway, &stage.patrons);
        }
        if violation() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut ended = stage.exec.run(heals, until_broken);
    if !violation() && ended != Ended::Spinning {
        stage.heal();
        ended = stage.exec.run(heals + plan.peace() * 1000, until_broken);
    }
    if !violation() && ended != Ended::Spinning {
        // Whoever was refused in doubt looks once more, as the last word.
        stage.look_again();
        ended = stage.exec.run(heals + (plan.peace() + 60_000) * 1000, until_broken);
    }
    if ended == Ended::Spinning {
        stage.ledger.broken("some tasks run on and on while no time passes".to_owned());
    }
    let counts = check::all(stage);
    Outcome {
        seed: plan.seed,
        violation: stage.ledger.violation(),
        timeline: stage.ledger.timeline(),
        fingerprint: stage.ledger.fingerprint(),
        counts,
    }
}

pub(crate) fn key(seed: u64, name: &str) -> Key {
    let mut rng = Rng::stream(seed, name);
    loop {
        let mut bytes = [0; 32];
        rng.fill(&mut bytes);
        if let Ok(key) = Key::from_bytes(bytes) {
            return key;
        }
    }
}

fn build(plan: &Plan, record: bool) -> Stage {
    let seed = plan.seed;
    let exec = Exec::new(seed);
    let ledger = Arc::new(Ledger::new(exec.clone(), record));
    let registry = Registry::builtin();
    // INVARIANT: the registry lists the dollar of the network that everything here is played on.
    #[allow(clippy::expect_used)]
    let asset = registry.dollar(&Network::eip155(NETWORK)).expect("listed");
    let token = farthing_evm::to_alloy(asset.id.address()).unwrap_or_default();
    let named = asset.domain.as_ref();
    let domain = Domain::new(
        named.map_or("", |domain| &domain.name),
        named.map_or("", |domain| &domain.version),
        NETWORK,
        token,
    );
    let relayer = key(seed, "relayer");
    let payee = key(seed, "payee");
    let keys: Vec<Key> = (0..plan.buyers).map(|n| key(seed, &format!("payer-{n}"))).collect();
    let mut genesis = State::default();
    let wallets: Vec<Key> = (0..plan.owners).map(|n| key(seed, &format!("wallet-{n}"))).collect();
    let by_the_unit = plan.sessions.as_ref().map_or(0, |sessions| sessions.patrons);
    let purses: Vec<Key> = (0..by_the_unit).map(|n| key(seed, &format!("patron-{n}"))).collect();
    for key in keys.iter().chain(&wallets).chain(&purses) {
        genesis.token.insert(key.address(), FUNDS);
    }
    for key in &purses {
        genesis.wei.insert(key.address(), GAS);
    }
    for (key, pays) in keys.iter().zip(&plan.pays) {
        if *pays == Pays::Permit2 {
            genesis.allowed.insert(key.address(), U256::from(FUNDS));
        }
    }
    genesis.wei.insert(relayer.address(), GAS);
    let strangers = plan.remotes.as_ref().map_or(0, |remotes| remotes.who.len());
    let facilitators: Vec<Key> = (0..strangers).map(|n| key(seed, &format!("facilitator-{n}"))).collect();
    for key in &facilitators {
        genesis.wei.insert(key.address(), GAS);
    }
    let chain = Chain::new(token, domain, genesis, EPOCH_SECS, seed);
    let tip = Arc::new(Tip::new(chain));
    let net = Net::new(exec.clone(), Rng::stream(seed, "net"));
    let books = Arc::new(MemoryStore::new());
    let sqlite = plan.sqlite.then(|| Arc::new(Platter::new(seed, ledger.clone(), books.clone())));
    let around = Surroundings {
        exec: exec.clone(),
        seed,
        ledger: ledger.clone(),
        tip: tip.clone(),
        claims: books.clone(),
        depth: plan.depth,
        fair_node: FAIR_NODE,
        fair_disk: FAIR_DISK,
    };
    let remotes = plan.remotes.as_ref().map(|plan| {
        Arc::new(Facilitators::new(plan, facilitators.into_iter().map(LocalKey::new).collect(), &around))
    });
    let gateway = Arc::new(Machine {
        exec: exec.clone(),
        seed,
        ledger: ledger.clone(),
        tip: tip.clone(),
        platter: books,
        sqlite,
        operator: Mutex::new(gateway::Operator::new(seed)),
        skew: Arc::default(),
        disk: Arc::new(Mutex::new(FAIR_DISK)),
        node: Arc::new(Mutex::new(FAIR_NODE)),
        mood: Arc::new(Mutex::new(FAIR_MOOD)),
        payee: from_alloy(payee.address()),
        payee_secret: payee.expose_secret(),
        sessions: plan.sessions.clone(),
        up: Mutex::default(),
        touched: Arc::default(),
        relayer: Arc::new(LocalKey::new(relayer)),
        remotes: remotes.clone(),
        depth: plan.depth,
        permit2: plan.takes_permit2(),
        lives: AtomicU64::new(0),
        process: Mutex::default(),
        listener: Arc::default(),
        engine: Arc::default(),
    });
    *lock(&net.ailments) = FAIR_NET;
    let buyers = keys.into_iter().enumerate().map(|(number, key)| {
        Arc::new(Buyer {
            number,
            exec: exec.clone(),
            seed,
            ledger: ledger.clone(),
            net: net.clone(),
            gateway: gateway.clone(),
            key,
            pays: plan.pays.get(number).copied().unwrap_or_default(),
            skew: Arc::default(),
            intents: Mutex::default(),
            process: Mutex::new(exec.new_process()),
            lives: AtomicU64::new(0),
        })
    });
    let buyers = buyers.collect();
    let home = |kind, number, key: &Key, journal| Home {
        kind,
        number,
        exec: exec.clone(),
        seed,
        ledger: ledger.clone(),
        net: net.clone(),
        tip: tip.clone(),
        gateway: gateway.clone(),
        key: key.expose_secret(),
        skew: Arc::default(),
        node: Arc::new(Mutex::new(FAIR_NODE)),
        journal,
        process: Mutex::new(exec.new_process()),
        rig: Mutex::default(),
        lives: Arc::default(),
        wanted: AtomicU64::new(0),
    };
    let owners = wallets.iter().enumerate().map(|(n, key)| {
        let home = home("wallet", owner::FIRST + n, key, owner::journal());
        Arc::new(Owner { home, wants: Mutex::default() })
    });
    let owners: Vec<_> = owners.collect();
    let patrons = purses.iter().enumerate().map(|(n, key)| {
        Arc::new(Patron {
            home: home("patron", patron::FIRST + n, key, patron::journal()),
            wants: Mutex::default(),
            forcing: Mutex::default(),
            newest_deposit: Mutex::default(),
            gone: AtomicBool::new(false),
        })
    });
    let patrons: Vec<_> = patrons.collect();
    let stage = Stage {
        exec: exec.clone(),
        plan: plan.clone(),
        ledger: ledger.clone(),
        tip: tip.clone(),
        gateway: gateway.clone(),
        buyers,
        owners,
        patrons,
        net,
        safe: Address::repeat_byte(0x5a),
        token_total: FUNDS * (plan.buyers + plan.owners + by_the_unit) as u128,
        wei_total: GAS * (1 + strangers + by_the_unit) as u128,
    };
    gateway.remotes.iter().flat_map(|remotes| &remotes.all).for_each(Remote::boot);
    gateway.boot();
    stage.owners.iter().for_each(Owner::boot);
    stage.patrons.iter().for_each(Patron::boot);
    stage.mine_blocks();
    for line in &plan.lines {
        stage.schedule(*line);
    }
    stage
}

const FAIR_DISK: disk::Ailments = disk::Ailments { latency: 4, refused: 0, in_doubt: 0 };
const FAIR_NODE: node::Ailments =
    node::Ailments { latency: 20, down: false, lost: 0, behind: 0, behind_by: 0, swallowed: 0 };
const FAIR_NET: crate::net::Ailments = crate::net::Ailments {
    latency: 20,
    request_lost: 0,
    answer_lost: 0,
    cut: 0,
    duplicated: 0,
    partitioned: false,
};
const FAIR_MOOD: Mood = Mood { latency: 300, fails: 0, breaks_off: 0, hangs: 0 };

/// Machines hold what their processes have, which holds them; and tasks hold both.
impl Drop for Stage {
    fn drop(&mut self) {
        self.exec.end();
        self.gateway.let_go();
        self.gateway.remotes.iter().flat_map(|remotes| &remotes.all).for_each(|remote| remote.let_go());
        self.owners.iter().for_each(|owner| owner.let_go());
        self.patrons.iter().for_each(|patron| patron.let_go());
    }
}

impl Stage {
    /// A block every so often, for ever; and the checker that looks at each.
    fn mine_blocks(&self) {
        let (exec, tip, ledger) = (self.exec.clone(), self.tip.clone(), self.ledger.clone());
        let (token_total, wei_total) = (self.token_total, self.wei_total);
        let task = async move {
            loop {
                exec.sleep(BLOCK_TIME).await;
                {
                    let mut chain = lock(&tip.chain);
                    chain.mine(EPOCH_SECS + exec.micros() / 1_000_000);
                    check::block(&chain, token_total, wei_total, &ledger);
                }
                tip.moved();
            }
        };
        self.exec.spawn(WORLD, Box::pin(task));
    }

    fn schedule(&self, line: Line) {
        let exec = self.exec.clone();
        let scene = self.scene();
        let task = async move {
            exec.sleep(Duration::from_millis(line.at)).await;
            scene.perform(line.act).await;
        };
        self.exec.spawn(WORLD, Box::pin(task));
    }

    fn scene(&self) -> Scene {
        Scene {
            exec: self.exec.clone(),
            ledger: self.ledger.clone(),
            tip: self.tip.clone(),
            gateway: self.gateway.clone(),
            buyers: self.buyers.clone(),
            owners: self.owners.clone(),
            patrons: self.patrons.clone(),
            net: self.net.clone(),
            safe: self.safe,
        }
    }

    /// All troubles are over.
    fn heal(&self) {
        self.ledger.note(|| "all troubles are over".to_owned());
        *lock(&self.gateway.disk) = FAIR_DISK;
        *lock(&self.gateway.node) = FAIR_NODE;
        *lock(&self.gateway.mood) = FAIR_MOOD;
        *lock(&self.net.ailments) = FAIR_NET;
        lock(&self.tip.chain).weather = Weather::FAIR;
        self.gateway.skew.store(0, Ordering::Relaxed);
        if let Some(platter) = &self.gateway.sqlite {
            platter.heal();
        }
        for remote in self.gateway.remotes.iter().flat_map(|remotes| &remotes.all) {
            *lock(&remote.way) = FAIR_WAY;
            *lock(&remote.lies) = Lies::default();
            *lock(&remote.node) = FAIR_NODE;
            *lock(&remote.disk) = FAIR_DISK;
            if !remote.is_up() {
                remote.boot();
            }
        }
        if lock(&self.gateway.process).is_none() {
            self.gateway.boot();
        }
        for owner in &self.owners {
            owner.skew.store(0, Ordering::Relaxed);
            *lock(&owner.node) = FAIR_NODE;
            if !owner.is_up() {
                owner.boot();
            }
        }
        for patron in &self.patrons {
            patron.skew.store(0, Ordering::Relaxed);
            *lock(&patron.node) = FAIR_NODE;
            if !patron.is_up() && !patron.gone.load(Ordering::Relaxed) {
                patron.boot();
            }
        }
        for buyer in &self.buyers {
            buyer.skew.store(0, Ordering::Relaxed);
            if !self.exec.is_alive(*lock(&buyer.process)) {
                buyer.boot();
            }
        }
    }

    /// Every buyer that was refused, or in conflict, after it had signed, shows its payment once more.
    fn look_again(&self) {
        self.owners.iter().for_each(Owner::look_again);
        self.patrons.iter().for_each(Patron::look_again);
        for buyer in &self.buyers {
            let intents = lock(&buyer.intents).clone();
            for (n, intent) in intents.into_iter().enumerate() {
                let Some(header) = intent.header.clone() else { continue };
                if intent.end == Some(End::Goods) {
                    continue;
                }
                let buyer = buyer.clone();
                let process = *lock(&buyer.process);
                let task = async move {
                    let mut elsewhere = false;
                    for _ in 0..3 {
                        let shelf = if elsewhere { intent.elsewhere() } else { intent.shelf };
                        let answer = buyer.ask(shelf, Some(&header)).await;
                        let Ok(answer) = answer else { continue };
                        let end = buyer.look(n, &answer);
                        // What a v1 payment is for, is said by where it was shown first.
                        if buyer.pays == Pays::V1 && intent.style == Style::Elsewhere && !elsewhere {
                            elsewhere = !matches!(end, Some(End::Goods));
                        } else if end.is_some() {
                            break;
                        }
                        buyer.exec.sleep(Duration::from_secs(5)).await;
                    }
                };
                self.exec.spawn(process, Box::pin(task));
            }
        }
    }
}

/// What acts have to do with.
struct Scene {
    exec: Exec,
    ledger: Arc<Ledger>,
    tip: Arc<Tip>,
    gateway: Arc<Machine>,
    buyers: Vec<Arc<Buyer>>,
    owners: Vec<Arc<Owner>>,
    patrons: Vec<Arc<Patron>>,
    net: Net,
    safe: Address,
}

impl Scene {
    async fn perform(self, act: Act) {
        if !matches!(act, Act::Buy { .. } | Act::Want { .. } | Act::Meter { .. }) {
            lock(&self.ledger.facts).faults += 1;
            self.ledger.note(|| format!("{act:?}"));
        }
        let millis = Duration::from_millis;
        match act {
            Act::Buy { buyer, shelf, style } => {
                if let (Some(buyer), Some(shelf)) = (self.buyers.get(buyer), SHELVES.get(shelf)) {
                    buyer.want(*shelf, style);
                }
            }
            Act::KillGateway { down_for } => {
                if lock(&self.gateway.process).is_none() {
                    return;
                }
                self.gateway.kill();
                self.exec.sleep(millis(down_for)).await;
                if lock(&self.gateway.process).is_none() {
                    self.gateway.boot();
                }
            }
            Act::Refund { which, at_once } => crate::refunds::want(&self.gateway, which, at_once).await,
            Act::KillBuyer { buyer, down_for } => {
                let Some(buyer) = self.buyers.get(buyer).cloned() else { return };
                if !self.exec.is_alive(*lock(&buyer.process)) {
                    return;
                }
                buyer.kill();
                self.exec.sleep(millis(down_for)).await;
                if !self.exec.is_alive(*lock(&buyer.process)) {
                    buyer.boot();
                }
            }
            Act::Node { gateway, ailments, lasts } => {
                let ways: Vec<_> = if gateway {
                    vec![self.gateway.node.clone()]
                } else {
                    let patrons = self.patrons.iter().map(|patron| patron.node.clone());
                    self.owners.iter().map(|owner| owner.node.clone()).chain(patrons).collect()
                };
                ways.iter().for_each(|way| *lock(way) = ailments);
                self.exec.sleep(millis(lasts)).await;
                ways.iter().for_each(|way| *lock(way) = FAIR_NODE);
            }
            Act::Want { owner, shelf } => {
                if let (Some(owner), Some(shelf)) = (self.owners.get(owner), SHELVES.get(shelf)) {
                    owner.want(*shelf);
                }
            }
            Act::KillWallet { owner, down_for } => {
                let Some(owner) = self.owners.get(owner).cloned() else { return };
                if !owner.is_up() {
                    return;
                }
                owner.kill();
                self.exec.sleep(millis(down_for)).await;
                if !owner.is_up() {
                    owner.boot();
                }
            }
            Act::Disk { ailments, lasts } => {
                *lock(&self.gateway.disk) = ailments;
                self.exec.sleep(millis(lasts)).await;
                *lock(&self.gateway.disk) = FAIR_DISK;
            }
            Act::Storage { trouble, lasts } => {
                let Some(platter) = &self.gateway.sqlite else { return };
                if matches!(trouble, Trouble::Power { .. }) {
                    platter.dark_for.store(lasts, Ordering::Relaxed);
                    return platter.suffer(trouble);
                }
                platter.suffer(trouble);
                self.exec.sleep(millis(lasts)).await;
                platter.heal();
            }
            Act::Net { ailments, lasts } => {
                *lock(&self.net.ailments) = ailments;
                self.exec.sleep(millis(lasts)).await;
                *lock(&self.net.ailments) = FAIR_NET;
            }
            Act::Mood { mood, lasts } => {
                *lock(&self.gateway.mood) = mood;
                self.exec.sleep(millis(lasts)).await;
                *lock(&self.gateway.mood) = FAIR_MOOD;
            }
            Act::Weather { passed_over, forgotten, gas_times, lasts } => {
                let base_fee = Weather::FAIR.base_fee * gas_times;
                lock(&self.tip.chain).weather = Weather { passed_over, forgotten, base_fee };
                self.exec.sleep(millis(lasts)).await;
                lock(&self.tip.chain).weather = Weather::FAIR;
            }
            Act::Reorg { depth, kept } => {
                lock(&self.tip.chain).reorganize(depth, kept);
                self.tip.moved();
            }
            Act::FrontRun => {
                let mut chain = lock(&self.tip.chain);
                // Who used a nonce of Permit2, if it was not we, no log tells: that is for a person to find out.
                let named = |tx: &&Tx| tx.nonce.is_some() && tx.to == chain.token && !tx.data.is_empty();
                let seen = chain.pool.iter().find(named).cloned();
                if let Some(seen) = seen {
                    chain.offer(Tx::of_owner(Address::repeat_byte(0xfe), seen.to, seen.data, self.salt()));
                }
            }
            Act::Drain { buyer, lasts } => {
                let Some(buyer) = self.buyers.get(buyer) else { return };
                let (from, safe) = (buyer.key.address(), self.safe);
                self.transfer(from, safe);
                self.exec.sleep(millis(lasts)).await;
                self.transfer(safe, from);
            }
            Act::Cancel { buyer } => {
                let facts = lock(&self.ledger.facts);
                let newest = facts.signed.iter().filter(|(_, signed)| signed.buyer == buyer);
                let Some((nonce, signed)) = newest.max_by_key(|(_, signed)| signed.at) else { return };
                let mut chain = lock(&self.tip.chain);
                let (from, token) = (signed.from, chain.token);
                let permit2 = self.buyers.get(buyer).is_some_and(|buyer| buyer.pays == Pays::Permit2);
                // There, what a payer can take back without leaving a riddle is its allowance.
                let call = if permit2 {
                    abi::approve(known::PERMIT2, U256::ZERO).0
                } else {
                    cancel_call(from, *nonce)
                };
                chain.offer(Tx::of_owner(from, token, call, self.salt()));
            }
            Act::Meter { patron, meter, units, at_once } => {
                let Some((patron, meter)) = self.patron(patron).zip(METERS.get(meter)) else { return };
                (0..at_once).for_each(|_| patron.want(*meter, units));
            }
            Act::TopUp { patron } => self.patron(patron).iter().for_each(Patron::top_up),
            Act::Leave { patron } => self.patron(patron).iter().for_each(Patron::leave),
            Act::Force { patron } => self.patron(patron).iter().for_each(Patron::force),
            Act::Cheat { patron } => self.patrons.get(patron).iter().for_each(|patron| patron.cheat()),
            Act::CloseStale { patron } => self.patron(patron).iter().for_each(Patron::close_stale),
            Act::KillPatron { patron, down_for } => {
                let Some(patron) = self.patron(patron) else { return };
                patron.kill();
                self.exec.sleep(millis(down_for)).await;
                if !patron.is_up() && !patron.gone.load(Ordering::Relaxed) {
                    patron.boot();
                }
            }
            Act::Vanish { patron } => {
                let Some(patron) = self.patrons.get(patron) else { return };
                patron.gone.store(true, Ordering::Relaxed);
                if patron.is_up() {
                    patron.kill();
                }
            }
            Act::FrontRunEscrow => {
                let mut chain = lock(&self.tip.chain);
                let seen = chain.pool.iter().find(|tx| tx.nonce.is_some() && tx.to == ESCROW).cloned();
                if let Some(seen) = seen {
                    chain.offer(Tx::of_owner(Address::repeat_byte(0xfe), seen.to, seen.data, self.salt()));
                }
            }
            Act::CancelDeposit { patron } => {
                let Some(patron) = self.patrons.get(patron) else { return };
                let Some(nonce) = *lock(&patron.newest_deposit) else { return };
                let from = patron.address();
                let mut chain = lock(&self.tip.chain);
                let token = chain.token;
                chain.offer(Tx::of_owner(from, token, cancel_call(from, nonce), self.salt()));
            }
            Act::KillFacilitator { which, down_for, forgets } => {
                let Some(remote) = self.remote(which).filter(|remote| remote.is_up()) else { return };
                remote.kill(forgets);
                self.exec.sleep(millis(down_for)).await;
                if !remote.is_up() {
                    remote.boot();
                }
            }
            Act::Way { which, way, lasts } => {
                let Some(remote) = self.remote(which) else { return };
                *lock(&remote.way) = way;
                self.exec.sleep(millis(lasts)).await;
                *lock(&remote.way) = FAIR_WAY;
            }
            Act::Facilitator { which, node, disk, lasts } => {
                let Some(remote) = self.remote(which) else { return };
                (*lock(&remote.node), *lock(&remote.disk)) = (node, disk);
                self.exec.sleep(millis(lasts)).await;
                (*lock(&remote.node), *lock(&remote.disk)) = (FAIR_NODE, FAIR_DISK);
            }
            Act::Lies { which, lies, lasts } => {
                let Some(remote) = self.remote(which) else { return };
                *lock(&remote.lies) = lies;
                self.exec.sleep(millis(lasts)).await;
                *lock(&remote.lies) = Lies::default();
            }
            Act::Clock { gateway, by, lasts } => {
                let skews: Vec<_> = if gateway {
                    vec![self.gateway.skew.clone()]
                } else {
                    let wallets = self.owners.iter().map(|owner| owner.skew.clone());
                    let patrons = self.patrons.iter().map(|patron| patron.skew.clone());
                    self.buyers.iter().map(|buyer| buyer.skew.clone()).chain(wallets).chain(patrons).collect()
                };
                skews.iter().for_each(|skew| skew.store(by, Ordering::Relaxed));
                self.exec.sleep(millis(lasts)).await;
                skews.iter().for_each(|skew| skew.store(0, Ordering::Relaxed));
            }
        }
    }

    /// One that is up.
    fn patron(&self, which: usize) -> Option<Arc<Patron>> {
        self.patrons.get(which).filter(|patron| patron.is_up()).cloned()
    }

    fn remote(&self, which: usize) -> Option<Arc<Remote>> {
        self.gateway.remotes.as_ref()?.all.get(which).cloned()
    }

    /// Two transactions of one owner are never the same.
    fn salt(&self) -> u64 {
        self.exec.micros()
    }

    fn transfer(&self, from: Address, to: Address) {
        let mut chain = lock(&self.tip.chain);
        let balance = chain.tip().state.token.get(&from).copied().unwrap_or_default();
        let token = chain.token;
        let salt = self.salt();
        chain.offer(Tx::of_owner(from, token, abi::transfer(to, U256::from(balance)).0, salt));
    }
}

#[cfg(test)]
mod tests;
