//! A machine that buys by the unit with the production wallet: its purse, journal and paying client, over a disk that
//! outlives its processes. Sometimes its owner cheats behind the wallet's back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_chain::LocalKey;
use farthing_channel::{ChannelId, PayerState};
use farthing_engine::World;
use farthing_evm::{B256, Key, escrow, voucher};
use farthing_policy::{Bucket, Caps, HostRule};
use farthing_primitives::{Network, PurchaseId, Registry};
use farthing_wallet::client::{
    Answer, Body, Client, Exchange, HttpRequest, Opened, Options, Outcome, Patience, Pieces, Reach,
    SendError, Sessions,
};
use farthing_wallet::force::{Force, Forced};
use farthing_wallet::journal::channels::KeptChannel;
use farthing_wallet::journal::{Header, Journal};
use farthing_wallet::{EngineView, LocalAuthorizer, Offer, Purse};
use farthing_wire::mpp::evm::{Funding, SessionPayload};
use farthing_wire::mpp::{Credential, Payload};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::chain::Tx;
use crate::escrow::{ESCROW, GRACE};
use crate::exec::{Exec, ProcessId, WORLD, lock};
use crate::facts::Ledger;
use crate::gateway::{BLOCK_TIME, Machine, NETWORK, short};
use crate::meters::{Kind, Meter};
use crate::net::{Message, Net, NoAnswer};
use crate::node::{self, Node, Tip};
use crate::rng::Rng;
use crate::world::{ProcessWorld, Skew};

/// Where patrons' numbers begin, beside those of other buyers.
pub const FIRST: usize = 200;
/// What one deposit may be, and all of an hour, in atoms.
const DEPOSIT: u128 = 5_000;
const BUDGET: u128 = 200_000;
/// A dollar has so many units in the policy's books for each atom of the token.
const UNITS: u128 = 1_000_000_000_000;
/// How often a patron looks at its channels.
const ROUND: Duration = Duration::from_secs(30);
/// How long it waits before it tries again.
const AGAIN: Duration = Duration::from_secs(10);
/// How often it tries to buy one thing.
const TRIES: u32 = 4;
/// For how many blocks a cheat tries to withdraw.
const STUBBORN: u32 = 40;

pub struct Patron {
    pub number: usize,
    pub exec: Exec,
    pub seed: u64,
    pub ledger: Arc<Ledger>,
    pub net: Net,
    pub tip: Arc<Tip>,
    pub gateway: Arc<Machine>,
    pub key: [u8; 32],
    pub skew: Skew,
    pub node: Arc<Mutex<node::Ailments>>,
    pub journal: Journal,
    /// What is wanted and not had: its number, where, and how many units.
    pub wants: Mutex<Vec<(u64, Meter, u64)>>,
    /// Channels that the escrow was, or shall be, asked to close.
    pub forcing: Mutex<BTreeSet<ChannelId>>,
    pub process: Mutex<ProcessId>,
    pub rig: Mutex<Option<Rig>>,
    pub lives: Arc<AtomicU64>,
    pub wanted: AtomicU64,
    /// The nonce of what it signed for a deposit last.
    pub newest_deposit: Mutex<Option<B256>>,
    /// It went away for good.
    pub gone: AtomicBool,
}

/// What a process of a patron's has.
#[derive(Clone)]
pub struct Rig {
    client: Client,
    wallet: LocalAuthorizer,
    chain: Arc<Node>,
    view: Arc<EngineView>,
    world: Arc<dyn World>,
}

impl std::fmt::Debug for Patron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Patron {}", self.number)
    }
}

/// A journal with rules for sessions.
///
/// # Panics
/// If SQLite has no memory to give.
#[allow(clippy::expect_used)]
pub fn journal() -> Journal {
    let journal = Journal::in_memory().expect("memory");
    let rules = journal.change_rules(|rules| {
        rules.networks.insert(Network::eip155(NETWORK));
        rules.schemes.insert(farthing_wallet::SESSION.to_owned());
        rules.hosts.push(HostRule::new("api.example".parse().map_err(|_| "a host".to_owned())?));
        let caps = Caps { per_payment: DEPOSIT * UNITS, hour: BUDGET * UNITS, day: BUDGET * UNITS };
        rules.caps.insert(Bucket::Dollar, caps);
        rules.breaker = None;
        Ok(())
    });
    rules.expect("rules");
    journal
}

fn options() -> Options {
    Options { sessions: Sessions::Only, ..Options::default() }
}

impl Patron {
    pub fn address(&self) -> farthing_evm::Address {
        Key::from_bytes(self.key).map(|key| key.address()).unwrap_or_default()
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.ledger.note(|| format!("patron {}: {}", self.number, what()));
    }

    pub fn is_up(&self) -> bool {
        self.exec.is_alive(*lock(&self.process))
    }

    pub fn kill(&self) {
        self.note(|| "is killed".to_owned());
        self.let_go();
        self.exec.kill(*lock(&self.process));
        lock(&self.ledger.facts).restarts += 1;
    }

    /// Nothing of a process is left in the machine's memory.
    pub fn let_go(&self) {
        *lock(&self.rig) = None;
    }

    pub fn boot(self: &Arc<Self>) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let process = self.exec.new_process();
        *lock(&self.process) = process;
        let rng = |name: &str| Rng::stream(self.seed, &format!("patron-{}-{life}-{name}", self.number));
        let world: Arc<dyn World> =
            Arc::new(ProcessWorld::new(self.exec.clone(), process, self.skew.clone(), rng("world")));
        let chain = Arc::new(Node::new(
            self.exec.clone(),
            self.tip.clone(),
            Network::eip155(NETWORK),
            BLOCK_TIME,
            self.node.clone(),
            rng("node"),
            Arc::new(|_| {}),
        ));
        let (this, lives) = (format!("life {life}"), self.lives.clone());
        let gone = move |other: &str| other != format!("life {}", lives.load(Ordering::Relaxed));
        let journal = Arc::new(self.journal.as_process(&this, gone));
        let Ok(key) = Key::from_bytes(self.key) else { return };
        let wallet = LocalAuthorizer::new(key, journal, Registry::builtin()).in_world(world.clone());
        let exchange = Arc::new(ToGateway { patron: self.clone() });
        let patience = Patience { answer: Duration::from_secs(25), ..Patience::default() };
        let view = Arc::new(EngineView::new(chain.clone(), false));
        let builder = Client::builder().wallet(wallet.clone()).exchange(exchange).world(world.clone());
        let Ok(client) = builder.chain(view.clone()).patience(patience).build() else { return };
        let rig = Rig { client, wallet, chain, view, world };
        *lock(&self.rig) = Some(rig.clone());
        let patron = self.clone();
        let keeper = async move {
            while let Err(error) = patron.recover(&rig).await {
                patron.note(|| format!("cannot recover yet: {error}"));
                rig.world.sleep(Duration::from_secs(1)).await;
            }
            loop {
                rig.world.sleep(ROUND).await;
                patron.look_around(&rig).await;
            }
        };
        self.exec.spawn(process, Box::pin(keeper));
        let open = lock(&self.wants).clone();
        open.into_iter().for_each(|(n, meter, units)| self.pursue(n, meter, units));
        let forcing = lock(&self.forcing).clone();
        forcing.into_iter().for_each(|id| self.pursue_force(id));
    }

    async fn recover(&self, rig: &Rig) -> Result<(), String> {
        let recovered = rig.client.recover(&options()).await.map_err(|error| error.to_string())?;
        for (_, shown) in recovered.shown {
            self.came(&shown.map_err(|error| error.to_string()));
        }
        Ok(())
    }

    /// What is open is asked about; what cannot be asked now is asked in the next round.
    async fn look_around(&self, rig: &Rig) {
        let _ = rig.client.reconcile_all().await;
        for kept in rig.wallet.channels().await.unwrap_or_default() {
            if !matches!(kept.payer.state(), PayerState::Finalized | PayerState::Void { .. }) {
                let _ = rig.client.look_at_channel(&kept.id()).await;
            }
        }
    }

    pub fn want(self: &Arc<Self>, meter: Meter, units: u64) {
        let n = self.wanted.fetch_add(1, Ordering::Relaxed);
        lock(&self.wants).push((n, meter, units));
        self.note(|| format!("wants {units} of {} #{n}", meter.path));
        self.pursue(n, meter, units);
    }

    fn request(&self, n: u64, meter: Meter, units: u64) -> Option<HttpRequest> {
        let url = format!("https://api.example{}?n={}-{n}&u={units}", meter.path, self.number);
        let method = if meter.method == "POST" { Method::POST } else { Method::GET };
        let body = if meter.method == "POST" { Bytes::from_static(b"{}") } else { Bytes::new() };
        Some(HttpRequest { method, body, ..HttpRequest::get(url.parse().ok()?) })
    }

    fn run(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.exec.spawn(*lock(&self.process), Box::pin(task));
    }

    fn pursue(self: &Arc<Self>, n: u64, meter: Meter, units: u64) {
        let Some(rig) = lock(&self.rig).clone() else { return };
        let Some(request) = self.request(n, meter, units) else { return };
        let patron = self.clone();
        self.run(async move {
            for _ in 0..TRIES {
                let outcome = rig.client.fetch_once(request.clone(), &options()).await;
                let outcome = outcome.map_err(|error| error.to_string());
                patron.came(&outcome);
                match outcome {
                    Ok(Outcome::Unknown { .. }) | Err(_) => rig.world.sleep(AGAIN).await,
                    Ok(Outcome::Free(answer)) if !answer.status.is_success() => rig.world.sleep(AGAIN).await,
                    // What was streamed is not streamed twice for one payment.
                    Ok(Outcome::Refused { .. }) if meter.kind != Kind::Stream => rig.world.sleep(AGAIN).await,
                    Ok(_) => break,
                }
            }
            lock(&patron.wants).retain(|(wanted, ..)| *wanted != n);
        });
    }

    /// The newest channel that is not over.
    async fn newest(&self, rig: &Rig) -> Option<KeptChannel> {
        let mut all = rig.wallet.channels().await.ok()?;
        all.retain(|kept| {
            matches!(
                kept.payer.state(),
                PayerState::Open | PayerState::Leaving { .. } | PayerState::Requested { .. }
            )
        });
        all.into_iter().max_by_key(|kept| kept.number)
    }

    pub fn top_up(self: &Arc<Self>) {
        let Some(rig) = lock(&self.rig).clone() else { return };
        let patron = self.clone();
        self.run(async move {
            let Some(kept) = patron.newest(&rig).await else { return };
            let Ok(url) = kept.url.parse() else { return };
            let offer = rig.client.session_offer(HttpRequest::get(url), &options()).await;
            let done = match offer {
                Ok(intent) => rig.client.top_up_channel(&intent, &kept.id(), &options()).await,
                Err(error) => Err(error),
            };
            patron.note(|| match done {
                Ok(kept) => format!("topped up to {}", kept.payer.deposit()),
                Err(error) => format!("no top-up: {error}"),
            });
        });
    }

    /// Asks the seller to close.
    pub fn leave(self: &Arc<Self>) {
        let Some(rig) = lock(&self.rig).clone() else { return };
        let patron = self.clone();
        self.run(async move {
            let Some(kept) = patron.newest(&rig).await else { return };
            let closed = rig.client.close_channel(&kept.id(), &options()).await;
            patron.note(|| match closed {
                Ok(kept) => format!("leaves: {}", kept.payer.state().name()),
                Err(error) => format!("cannot leave: {error}"),
            });
        });
    }

    /// Gets the deposit back without the seller.
    pub fn force(self: &Arc<Self>) {
        let Some(rig) = lock(&self.rig).clone() else { return };
        let patron = self.clone();
        self.run(async move {
            let Some(kept) = patron.newest(&rig).await else { return };
            if lock(&patron.forcing).insert(kept.id()) {
                patron.pursue_force(kept.id());
            }
        });
    }

    fn pursue_force(self: &Arc<Self>, id: ChannelId) {
        let Some(rig) = lock(&self.rig).clone() else { return };
        let Ok(key) = Key::from_bytes(self.key) else { return };
        let patron = self.clone();
        self.run(async move {
            let key = LocalKey::new(key);
            let force = Force {
                wallet: &rig.wallet,
                chain: rig.chain.as_ref(),
                view: rig.view.as_ref(),
                key: &key,
                world: rig.world.as_ref(),
                patience: Duration::from_secs(30),
            };
            let mut tries = 0;
            loop {
                let step = force.step(&id).await;
                patron.note(|| format!("forces {}: {step:?}", short(&id.to_string())));
                match step {
                    Ok(Forced::Requested { until, .. } | Forced::Waiting { until }) => {
                        let wait = until.since(rig.world.now());
                        rig.world.sleep(wait.max(Duration::from_secs(1))).await;
                    }
                    Ok(Forced::Sent { .. }) => rig.world.sleep(Duration::from_secs(5)).await,
                    Ok(_) => break,
                    Err(_) => {
                        tries += 1;
                        if tries > 60 {
                            break;
                        }
                        rig.world.sleep(AGAIN).await;
                    }
                }
            }
            lock(&patron.forcing).remove(&id);
        });
    }

    /// Its owner asks the escrow behind the wallet's back, and takes all that it can get as early as it can.
    pub fn cheat(self: &Arc<Self>) {
        let mine = {
            let chain = lock(&self.tip.chain);
            let records = &chain.tip().state.escrow.records;
            let mine =
                records.iter().filter(|(_, record)| record.payer == self.address() && !record.finalized);
            mine.max_by_key(|(_, record)| record.deposit).map(|(id, _)| *id)
        };
        let Some(id) = mine else { return };
        let patron = self.clone();
        let send = move |data: farthing_evm::Bytes| {
            let tx = Tx::of_owner(patron.address(), ESCROW, data.0, patron.exec.micros());
            lock(&patron.tip.chain).offer(tx);
        };
        send(escrow::request_close(id));
        let patron = self.clone();
        let task = async move {
            let mut tries = 0;
            loop {
                patron.exec.sleep(BLOCK_TIME).await;
                let (record, time) = {
                    let chain = lock(&patron.tip.chain);
                    let tip = chain.tip();
                    (tip.state.escrow.records.get(&id).copied(), tip.time)
                };
                let Some(record) = record.filter(|record| !record.finalized) else { break };
                if record.close_requested_at == 0 || time + 2 < record.close_requested_at + GRACE {
                    // Its own wallet may have taken the request back.
                    tries += u32::from(record.close_requested_at == 0);
                } else {
                    send(escrow::withdraw(id));
                    tries += 1;
                }
                if tries > STUBBORN {
                    break;
                }
            }
        };
        self.exec.spawn(WORLD, Box::pin(task));
    }

    /// Shows the seller a voucher for less than what was used, to close with.
    pub fn close_stale(self: &Arc<Self>) {
        let Some(rig) = lock(&self.rig).clone() else { return };
        let Ok(key) = Key::from_bytes(self.key) else { return };
        let patron = self.clone();
        self.run(async move {
            let Some(kept) = patron.newest(&rig).await else { return };
            let Ok(url) = kept.url.parse() else { return };
            let Ok(intent) = rig.client.session_offer(HttpRequest::get(url), &options()).await else {
                return;
            };
            let Offer::Session(offer) = &intent.offer else { return };
            let cumulative = kept.payer.signed() / 2;
            let word = voucher::Voucher { channel: B256::from(kept.id().0), cumulative };
            let signature = key.sign(word.digest(&voucher::escrow_domain(NETWORK, ESCROW))).to_bytes();
            let close =
                SessionPayload::Close { channel_id: kept.id().0, cumulative, signature: signature.to_vec() };
            let credential = Credential::new(offer.challenge().clone(), close.to_object(), None);
            let Ok(value) = credential.to_header() else { return };
            let header = Header { name: offer.credential_header().to_ascii_lowercase(), value };
            let Ok(url) = intent.url.parse() else { return };
            let request = HttpRequest { method: Method::HEAD, ..HttpRequest::get(url) };
            let exchange = ToGateway { patron: patron.clone() };
            let within = Duration::from_secs(25);
            let said = exchange.send(&request, Some(&header), Reach::Public, within).await;
            patron
                .note(|| format!("asks to close with {cumulative}: {:?}", said.map(|answer| answer.status)));
        });
    }

    /// The last word, when all is well.
    pub fn look_again(self: &Arc<Self>) {
        let Some(rig) = lock(&self.rig).clone() else { return };
        let patron = self.clone();
        self.run(async move {
            let _ = patron.recover(&rig).await;
            patron.look_around(&rig).await;
        });
    }

    /// Takes down what a call brought.
    fn came(&self, outcome: &Result<Outcome, String>) {
        match outcome {
            Ok(Outcome::Paid { answer, payment }) => {
                let body = match &answer.body {
                    Body::Complete(body) | Body::Truncated(body) => body.clone(),
                    Body::TooLarge { .. } => Bytes::new(),
                };
                self.got(payment.id, &String::from_utf8_lossy(&body));
                self.note(|| {
                    let (id, how) = (payment.id, payment.settlement.name());
                    format!("{id} is paid with {} atoms, {how}, {:?}", payment.money.atoms(), payment.note)
                });
            }
            Ok(Outcome::Free(answer)) => {
                if answer.status.is_success() {
                    self.ledger.broken(format!("patron {} was served for nothing", self.number));
                }
                self.note(|| format!("told {}", answer.status));
            }
            Ok(Outcome::Refused { payment, reason, .. }) => {
                self.note(|| format!("{} is refused: {reason}", payment.id));
            }
            Ok(Outcome::Unknown { payment, why, .. }) => {
                self.note(|| format!("{} is unknown: {why}", payment.id));
            }
            Ok(Outcome::Denied { denied, plan }) => self.note(|| {
                let objections = plan.considered.iter().map(|c| format!("{:?}", c.objection));
                let objections = objections.collect::<Vec<_>>().join(", ");
                format!(
                    "denied: {}, {objections}",
                    denied.as_ref().map_or("no offer", |denied| denied.code())
                )
            }),
            Ok(Outcome::Planned(_)) => {}
            Err(error) => self.note(|| format!("failed: {error}")),
        }
    }

    /// Checker: what was charged once is not delivered for two purchases.
    fn got(&self, purchase: PurchaseId, body: &str) {
        let charges: BTreeSet<_> =
            body.lines().filter_map(|line| line.split_once(" of ")?.1.trim().parse().ok()).collect();
        let mut facts = lock(&self.ledger.facts);
        for charge in charges {
            let mine = (self.number, purchase);
            let whose = *facts.channels.goods.entry(charge).or_insert(mine);
            if whose != mine {
                drop(facts);
                return self.ledger.broken(format!("{charge} was delivered for {whose:?} and for {mine:?}"));
            }
        }
    }

    /// Checker: a voucher leaves the wallet once its mark is durable, and never above the deposit.
    fn shows(&self, payment: &Header) {
        let Ok(credential) = Credential::parse(payment.value.as_bytes()) else {
            return self.ledger.broken(format!("patron {} shows no credential", self.number));
        };
        let Ok(Payload::EvmSession(payload)) = credential.payload() else {
            return self.ledger.broken(format!("patron {} shows no session", self.number));
        };
        let channel = ChannelId(*payload.channel_id());
        let (cumulative, funding) = match *payload {
            SessionPayload::Open(open) => (open.cumulative, Some(open.funding)),
            SessionPayload::TopUp(more) => (0, Some(more.funding)),
            SessionPayload::Voucher(voucher) => (voucher.cumulative, None),
            SessionPayload::Close { cumulative, .. } => (cumulative, None),
        };
        let Ok(kept) = self.journal.channel(&channel) else {
            return self.ledger.broken(format!("{channel} is shown, and the journal does not know it"));
        };
        let signed = kept.payer.signed();
        if cumulative > signed {
            self.ledger.broken(format!("a voucher for {cumulative} leaves, and the mark is {signed}"));
        }
        let mut facts = lock(&self.ledger.facts);
        if let Some(Funding::Authorization { authorization, .. }) = funding {
            facts.channels.deposits.insert(B256::new(authorization.nonce));
            *lock(&self.newest_deposit) = Some(B256::new(authorization.nonce));
        }
        let known = facts.channels.vouchers.entry(B256::from(channel.0)).or_default();
        let new = cumulative > *known;
        *known = cumulative.max(*known);
        facts.channels.signed += u64::from(new);
        drop(facts);
        self.note(|| format!("shows {cumulative} on {}", short(&channel.to_string())));
    }

    fn message(&self, request: &HttpRequest, payment: Option<&Header>) -> Message {
        let mut headers: HeaderMap = request.headers.clone();
        headers.insert("host", HeaderValue::from_static("api.example"));
        if let Some(payment) = payment {
            self.shows(payment);
            let name = HeaderName::try_from(payment.name.as_str());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&payment.value)) {
                headers.insert(name, value);
            }
        }
        let path = request
            .url
            .query()
            .map_or_else(|| request.url.path().to_owned(), |query| format!("{}?{query}", request.url.path()));
        Message { method: request.method.clone(), path, headers, body: request.body.clone() }
    }
}

/// The wallet's way to the gateway.
struct ToGateway {
    patron: Arc<Patron>,
}

fn failed(why: NoAnswer) -> SendError {
    match why {
        NoAnswer::Timeout => SendError::Timeout,
        NoAnswer::Refused => {
            SendError::Connect { host: "api.example".to_owned(), cause: "refused".to_owned() }
        }
        NoAnswer::Cut => SendError::Broken("it broke off".to_owned()),
    }
}

#[async_trait]
impl Exchange for ToGateway {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        _: Reach,
        within: Duration,
    ) -> Result<Answer, SendError> {
        let message = self.patron.message(request, payment);
        let listener = self.patron.gateway.listener.clone();
        let answer = self.patron.net.ask(move || lock(&listener).clone(), message, within).await;
        let answer = answer.map_err(failed)?;
        Ok(Answer {
            status: answer.status,
            version: Version::HTTP_11,
            headers: answer.headers,
            body: Body::Complete(answer.body),
            url: request.url.clone(),
            private: false,
        })
    }

    async fn open(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        _: Reach,
        within: Duration,
    ) -> Result<Opened, SendError> {
        let message = self.patron.message(request, payment);
        let listener = self.patron.gateway.listener.clone();
        let coming = self.patron.net.open(move || lock(&listener).clone(), message, within).await;
        let coming = coming.map_err(failed)?;
        let answer = Answer {
            status: coming.status,
            version: Version::HTTP_11,
            headers: coming.headers,
            body: Body::Complete(Bytes::new()),
            url: request.url.clone(),
            private: false,
        };
        Ok(Opened { answer, rest: Some(Box::new(Rest(coming.pieces))) })
    }
}

struct Rest(crate::net::Pieces);

#[async_trait]
impl Pieces for Rest {
    async fn next(&mut self, within: Duration) -> Result<Option<Bytes>, SendError> {
        self.0.next(within).await.map_err(failed)
    }
}
