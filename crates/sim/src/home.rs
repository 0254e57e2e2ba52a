//! A machine that buys by the production wallet: what outlives its processes, what each of these has, and its way to the
//! gateway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farthing_engine::World;
use farthing_evm::Key;
use farthing_policy::{Bucket, Caps, HostRule, Rules};
use farthing_primitives::{Network, Registry};
use farthing_wallet::client::{
    Answer, Body, Client, Exchange, HttpRequest, Options, Outcome, Patience, SendError,
};
use farthing_wallet::journal::{Header, Journal};
use farthing_wallet::{EngineView, LocalAuthorizer};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use crate::exec::{Exec, ProcessId, lock};
use crate::facts::Ledger;
use crate::gateway::{Machine, NETWORK};
use crate::net::{Coming, Message, Net, NoAnswer};
use crate::node::{self, Node, Tip};
use crate::rng::Rng;
use crate::world::{ProcessWorld, Skew};

/// A dollar has so many units in the policy's books for each atom of the token.
const UNITS: u128 = 1_000_000_000_000;
/// How long a wallet waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(25);
/// Where the gateway is, by its name.
const HOST: &str = "api.example";

pub struct Home {
    /// What it is called in the timeline, with its number.
    pub kind: &'static str,
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
    pub process: Mutex<ProcessId>,
    pub rig: Mutex<Option<Rig>>,
    pub lives: Arc<AtomicU64>,
    pub wanted: AtomicU64,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.number)
    }
}

/// What a process has.
#[derive(Clone)]
pub struct Rig {
    pub client: Client,
    pub wallet: LocalAuthorizer,
    pub chain: Arc<Node>,
    pub view: Arc<EngineView>,
    pub world: Arc<dyn World>,
}

/// A journal with rules for buying at the gateway: so much at once, and so much in an hour and in a day, in atoms.
///
/// # Panics
/// If SQLite has no memory to give.
#[allow(clippy::expect_used)]
pub fn journal(at_once: u128, budget: u128, more: impl FnOnce(&mut Rules)) -> Journal {
    let journal = Journal::in_memory().expect("memory");
    let rules = journal.change_rules(|rules| {
        rules.networks.insert(Network::eip155(NETWORK));
        rules.hosts.push(HostRule::new(HOST.parse().map_err(|_| "a host".to_owned())?));
        let caps = Caps { per_payment: at_once * UNITS, hour: budget * UNITS, day: budget * UNITS };
        rules.caps.insert(Bucket::Dollar, caps);
        more(rules);
        Ok(())
    });
    rules.expect("rules");
    journal
}

impl Home {
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.ledger.note(|| format!("{} {}: {}", self.kind, self.number, what()));
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

    pub fn rig(&self) -> Option<Rig> {
        lock(&self.rig).clone()
    }

    /// A task of the process that is there now.
    pub fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.exec.spawn(*lock(&self.process), Box::pin(task));
    }

    /// Starts a process over the journal that former ones left.
    pub fn start(&self, exchange: Arc<dyn Exchange>) -> Option<Rig> {
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let process = self.exec.new_process();
        *lock(&self.process) = process;
        let rng =
            |name: &str| Rng::stream(self.seed, &format!("{}-{}-{life}-{name}", self.kind, self.number));
        let world: Arc<dyn World> =
            Arc::new(ProcessWorld::new(self.exec.clone(), process, self.skew.clone(), rng("world")));
        let unseen = Arc::new(|_: &_| {});
        let chain = Node::new(self.exec.clone(), self.tip.clone(), self.node.clone(), rng("node"), unseen);
        let chain = Arc::new(chain);
        let (this, lives) = (format!("life {life}"), self.lives.clone());
        let gone = move |other: &str| other != format!("life {}", lives.load(Ordering::Relaxed));
        let journal = Arc::new(self.journal.as_process(&this, gone));
        let key = Key::from_bytes(self.key).ok()?;
        let wallet = LocalAuthorizer::new(key, journal, Registry::builtin()).in_world(world.clone());
        let patience = Patience { answer: PATIENCE, ..Patience::default() };
        let view = Arc::new(EngineView::new(chain.clone(), false));
        let builder = Client::builder().wallet(wallet.clone()).exchange(exchange).world(world.clone());
        let client = builder.chain(view.clone()).patience(patience).build().ok()?;
        let rig = Rig { client, wallet, chain, view, world };
        *lock(&self.rig) = Some(rig.clone());
        Some(rig)
    }

    /// Takes up what former processes left. Returns what came of showing once more what brought nothing yet.
    ///
    /// # Errors
    /// Why it cannot be taken up now.
    pub async fn recover(
        &self,
        rig: &Rig,
        options: &Options,
    ) -> Result<Vec<Result<Outcome, String>>, String> {
        let recovered = rig.client.recover(options).await.map_err(|error| error.to_string())?;
        let shown = recovered.shown.into_iter();
        Ok(shown.map(|(_, outcome)| outcome.map_err(|error| error.to_string())).collect())
    }

    /// The same, until it can be done.
    pub async fn recover_in_the_end(&self, rig: &Rig, options: &Options) -> Vec<Result<Outcome, String>> {
        loop {
            match self.recover(rig, options).await {
                Ok(shown) => return shown,
                Err(error) => {
                    self.note(|| format!("cannot recover yet: {error}"));
                    rig.world.sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    // ---- The way to the gateway.

    fn message(&self, request: &HttpRequest, payment: Option<&Header>) -> Message {
        let mut headers: HeaderMap = request.headers.clone();
        headers.insert("host", HeaderValue::from_static(HOST));
        if let Some(payment) = payment {
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

    /// One exchange with the gateway.
    pub async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        within: Duration,
    ) -> Result<Answer, SendError> {
        let (message, listener) = (self.message(request, payment), self.gateway.listener.clone());
        let answer = self.net.ask(move || lock(&listener).clone(), message, within).await.map_err(failed)?;
        Ok(answered(request, answer.status, answer.headers, answer.body))
    }

    /// The same, with a body that still comes.
    pub async fn open(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        within: Duration,
    ) -> Result<Coming, SendError> {
        let (message, listener) = (self.message(request, payment), self.gateway.listener.clone());
        self.net.open(move || lock(&listener).clone(), message, within).await.map_err(failed)
    }
}

/// An answer, as the wallet takes it.
pub fn answered(request: &HttpRequest, status: StatusCode, headers: HeaderMap, body: bytes::Bytes) -> Answer {
    let (version, url) = (Version::HTTP_11, request.url.clone());
    Answer { status, version, headers, body: Body::Complete(body), url, private: false }
}

/// What the wallet makes of it that no answer came.
pub fn failed(why: NoAnswer) -> SendError {
    match why {
        NoAnswer::Timeout => SendError::Timeout,
        NoAnswer::Refused => SendError::Connect { host: HOST.to_owned(), cause: "refused".to_owned() },
        NoAnswer::Cut => SendError::Broken("it broke off".to_owned()),
    }
}
