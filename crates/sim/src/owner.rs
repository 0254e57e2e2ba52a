//! A machine that buys by the production wallet: its journal, authorizer and paying client, over a disk that outlives
//! its processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::World;
use farthing_evm::{B256, Key};
use farthing_policy::{Bucket, Caps, HostRule};
use farthing_primitives::{Network, Registry};
use farthing_wallet::client::{
    Answer, Body, Client, Exchange, HttpRequest, Options, Outcome, Patience, Reach, SendError,
};
use farthing_wallet::journal::{Header, Journal};
use farthing_wallet::{EngineView, LocalAuthorizer};
use farthing_wire::mpp::evm::ChargePayload;
use farthing_wire::mpp::{self, Credential};
use farthing_wire::x402::exact_evm::{Authorization, Payload};
use farthing_wire::x402::{Message as _, v2};
use http::{HeaderValue, Method, Version};

use crate::exec::{Exec, ProcessId, lock};
use crate::facts::{Ledger, Signed};
use crate::gateway::{BLOCK_TIME, Machine, NETWORK, Shelf, short};
use crate::net::{Message, Net, NoAnswer};
use crate::node::{self, Node, Tip};
use crate::rng::Rng;
use crate::world::{ProcessWorld, Skew};

/// What an owner allows in a day and in an hour, in atoms: about half of what it wants.
pub const BUDGET: u128 = 4000;
/// A dollar has so many units in the policy's books for each atom of the token.
const UNITS: u128 = 1_000_000_000_000;
/// Where owners' numbers begin, beside the other buyers'.
pub const FIRST: usize = 100;
/// How often a wallet's keeper asks the chain about what is open.
const ROUND: Duration = Duration::from_secs(15);

pub struct Owner {
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
    /// What is wanted and not had.
    pub wants: Mutex<Vec<(u64, Shelf)>>,
    pub process: Mutex<ProcessId>,
    pub client: Mutex<Option<Client>>,
    pub lives: Arc<AtomicU64>,
    pub wanted: AtomicU64,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Owner {}", self.number)
    }
}

/// A journal with the owner's rules in it.
///
/// # Panics
/// If SQLite has no memory to give.
#[allow(clippy::expect_used)]
pub fn journal() -> Journal {
    let journal = Journal::in_memory().expect("memory");
    let rules = journal.change_rules(|rules| {
        rules.networks.insert(Network::eip155(NETWORK));
        rules.hosts.push(HostRule::new("api.example".parse().map_err(|_| "a host".to_owned())?));
        let caps = Caps { per_payment: BUDGET * UNITS, hour: BUDGET * UNITS, day: BUDGET * UNITS };
        rules.caps.insert(Bucket::Dollar, caps);
        Ok(())
    });
    rules.expect("rules");
    journal
}

impl Owner {
    pub fn kill(&self) {
        self.ledger.note(|| format!("wallet {} is killed", self.number));
        self.let_go();
        self.exec.kill(*lock(&self.process));
        lock(&self.ledger.facts).restarts += 1;
    }

    /// Nothing of a process is left in the machine's memory.
    pub fn let_go(&self) {
        *lock(&self.client) = None;
    }

    pub fn boot(self: &Arc<Self>) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let process = self.exec.new_process();
        *lock(&self.process) = process;
        let rng = |name: &str| Rng::stream(self.seed, &format!("wallet-{}-{life}-{name}", self.number));
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
        let exchange = Arc::new(ToGateway { owner: self.clone() });
        let patience = Patience { answer: Duration::from_secs(25), ..Patience::default() };
        let view = Arc::new(EngineView::new(chain, false));
        let builder = Client::builder().wallet(wallet).exchange(exchange).world(world.clone());
        let Ok(client) = builder.chain(view).patience(patience).build() else { return };
        *lock(&self.client) = Some(client.clone());
        let owner = self.clone();
        let keeper = async move {
            loop {
                match client.recover(&Options::default()).await {
                    Ok(recovered) => {
                        for (_, shown) in recovered.shown {
                            owner.came(&shown.map_err(|error| error.to_string()));
                        }
                        break;
                    }
                    Err(error) => {
                        owner.ledger.note(|| format!("wallet {} cannot recover yet: {error}", owner.number));
                        world.sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            loop {
                world.sleep(ROUND).await;
                // What cannot be asked now is asked in the next round.
                let _ = client.reconcile_all().await;
            }
        };
        self.exec.spawn(process, Box::pin(keeper));
        let open = lock(&self.wants).clone();
        open.into_iter().for_each(|(n, shelf)| self.pursue(n, shelf));
    }

    pub fn want(self: &Arc<Self>, shelf: Shelf) {
        let n = self.wanted.fetch_add(1, Ordering::Relaxed);
        lock(&self.wants).push((n, shelf));
        self.ledger.note(|| format!("wallet {} wants {} #{n}", self.number, shelf.path));
        self.pursue(n, shelf);
    }

    fn request(&self, n: u64, shelf: Shelf) -> Option<HttpRequest> {
        let url = format!("https://api.example{}?n={}-{n}", shelf.path, self.number).parse().ok()?;
        let method = if shelf.method == "POST" { Method::POST } else { Method::GET };
        Some(HttpRequest { method, ..HttpRequest::get(url) })
    }

    /// Asks until there is an outcome: as a person would who gives the same command again.
    fn pursue(self: &Arc<Self>, n: u64, shelf: Shelf) {
        let Some(client) = lock(&self.client).clone() else { return };
        let Some(request) = self.request(n, shelf) else { return };
        let owner = self.clone();
        let task = async move {
            for _ in 0..4 {
                let outcome = client.fetch_once(request.clone(), &Options::default()).await;
                let outcome = outcome.map_err(|error| error.to_string());
                owner.came(&outcome);
                match outcome {
                    Ok(Outcome::Unknown { .. }) | Err(_) => owner.exec.sleep(Duration::from_secs(10)).await,
                    Ok(Outcome::Free(answer)) if !answer.status.is_success() => {
                        owner.exec.sleep(Duration::from_secs(10)).await;
                    }
                    Ok(_) => break,
                }
            }
            lock(&owner.wants).retain(|(wanted, _)| *wanted != n);
        };
        self.exec.spawn(*lock(&self.process), Box::pin(task));
    }

    /// The last word, when all is well: what is open is looked at, and asked for, once more.
    pub fn look_again(self: &Arc<Self>) {
        let Some(client) = lock(&self.client).clone() else { return };
        let owner = self.clone();
        let task = async move {
            if let Ok(recovered) = client.recover(&Options::default()).await {
                for (_, shown) in recovered.shown {
                    owner.came(&shown.map_err(|error| error.to_string()));
                }
            }
        };
        self.exec.spawn(*lock(&self.process), Box::pin(task));
    }

    /// Takes down what a call brought.
    fn came(&self, outcome: &Result<Outcome, String>) {
        let say = |what: String| self.ledger.note(|| format!("wallet {}: {what}", self.number));
        match outcome {
            Ok(Outcome::Paid { answer, payment }) => {
                let body = answer.body.complete().cloned().unwrap_or_default();
                let body = String::from_utf8_lossy(&body).into_owned();
                say(format!("{} is paid, {}: {body}", payment.id, payment.settlement.name()));
                if let Some(id) = body.strip_prefix("goods for ").and_then(|id| id.parse().ok()) {
                    *lock(&self.ledger.facts).received.entry(id).or_default() += 1;
                }
            }
            Ok(Outcome::Free(answer)) => {
                if answer.status.is_success() {
                    self.ledger.broken(format!("wallet {} was served for nothing", self.number));
                }
                say(format!("told {}", answer.status));
            }
            Ok(Outcome::Refused { payment, reason, .. }) => {
                say(format!("{} is refused: {reason}", payment.id))
            }
            Ok(Outcome::Unknown { payment, why, .. }) => say(format!("{} is unknown: {why}", payment.id)),
            Ok(Outcome::Denied { denied, .. }) => {
                say(format!("denied: {}", denied.as_ref().map_or("no offer", |denied| denied.code())));
            }
            Ok(Outcome::Planned(_)) => {}
            Err(error) => say(format!("failed: {error}")),
        }
    }

    fn was_refused(&self, nonce: &B256) -> bool {
        let nonce = nonce.to_string();
        let all = self.journal.history(1000).unwrap_or_default();
        let of_it = all.iter().find(|purchase| purchase.consumption.as_str().contains(&nonce));
        of_it.is_some_and(|purchase| purchase.state == farthing_wallet::journal::State::Refused)
    }

    /// Checker: what leaves the wallet was signed for the gateway, in the budget, and once for each request.
    fn shows(&self, request: &HttpRequest, payment: &Header) {
        let Some(authorization) = shown(payment) else {
            return self.ledger.broken(format!("wallet {} shows no payment", self.number));
        };
        let nonce = B256::new(authorization.nonce);
        let address = |text: String| text.parse().unwrap_or_default();
        let value = authorization.value.to_string().parse().unwrap_or(u128::MAX);
        let shelf = crate::gateway::SHELVES.into_iter().find(|shelf| shelf.path == request.url.path());
        let signed = Signed {
            buyer: self.number,
            intent: 0,
            path: shelf.map_or("", |shelf| shelf.path),
            url: request.url.to_string(),
            from: address(authorization.from.to_string()),
            to: address(authorization.to.to_string()),
            value,
            expires_secs: authorization.valid_before.to_string().parse().unwrap_or(u64::MAX),
            at: self.exec.micros(),
        };
        let mut facts = lock(&self.ledger.facts);
        if facts.signed.contains_key(&nonce) {
            return;
        }
        self.ledger.note(|| {
            let (nonce, url) = (nonce.to_string(), request.url.as_str());
            format!("wallet {} shows {} for {url}", self.number, short(&nonce))
        });
        facts.signed.insert(nonce, signed);
        // Against what the chain says, not against what the journal does.
        let chain = lock(&self.tip.chain);
        let (used, time) = (&chain.tip().state.used, chain.tip().time);
        let mine = facts.signed.iter().filter(|(_, signed)| signed.buyer == self.number);
        let live = mine.filter(|(nonce, signed): &(&B256, &Signed)| {
            signed.expires_secs > time || used.contains_key(&(signed.from, **nonce))
        });
        let (mut exposed, mut for_this) = (0, 0);
        for (nonce, signed) in live {
            exposed += signed.value;
            // A seller's clear no leaves the buyer free to try again; what was reserved stays so.
            let refused = self.was_refused(nonce);
            for_this += u64::from(signed.url == request.url.as_str() && !refused);
        }
        if exposed > BUDGET {
            self.ledger.broken(format!("wallet {} may spend {exposed} atoms of {BUDGET}", self.number));
        }
        if for_this > 1 {
            self.ledger.broken(format!("wallet {} pays twice for {}", self.number, request.url));
        }
    }
}

/// The transfer that a payment authorizes, in whatever dialect the wallet chose.
fn shown(payment: &Header) -> Option<Authorization> {
    if let Ok(credential) = Credential::parse(payment.value.as_bytes()) {
        return match credential.payload() {
            Ok(mpp::Payload::EvmCharge(ChargePayload::Authorization { authorization, .. })) => {
                Some(authorization)
            }
            _ => None,
        };
    }
    let payment = v2::PaymentPayload::from_header(payment.value.as_bytes()).ok()?;
    match Payload::parse(&payment.payload) {
        Ok(Payload::Eip3009 { authorization, .. }) => Some(authorization),
        _ => None,
    }
}

/// The wallet's way to the gateway.
struct ToGateway {
    owner: Arc<Owner>,
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
        let owner = &self.owner;
        let mut headers = request.headers.clone();
        headers.insert("host", HeaderValue::from_static("api.example"));
        if let Some(payment) = payment {
            owner.shows(request, payment);
            let name = http::HeaderName::try_from(payment.name.as_str());
            let value = HeaderValue::from_str(&payment.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.insert(name, value);
            }
        }
        let path = request
            .url
            .query()
            .map_or_else(|| request.url.path().to_owned(), |query| format!("{}?{query}", request.url.path()));
        let message = Message { method: request.method.clone(), path, headers, body: request.body.clone() };
        let listener = owner.gateway.listener.clone();
        let answer = owner.net.ask(move || lock(&listener).clone(), message, within).await;
        match answer {
            Ok(answer) => Ok(Answer {
                status: answer.status,
                version: Version::HTTP_11,
                headers: answer.headers,
                body: Body::Complete(answer.body),
                url: request.url.clone(),
                private: false,
            }),
            Err(NoAnswer::Timeout) => Err(SendError::Timeout),
            Err(NoAnswer::Refused) => {
                Err(SendError::Connect { host: "api.example".to_owned(), cause: "refused".to_owned() })
            }
            Err(NoAnswer::Cut) => Err(SendError::Broken("it broke off".to_owned())),
        }
    }
}
