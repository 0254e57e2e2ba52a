use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farthing_policy::AgentName;
use farthing_primitives::{Address, Network, Timestamp};
use farthing_wallet::client::Client;
use farthing_wallet::journal::agents::Credential;
use farthing_wallet::journal::channels::is_over;
use farthing_wallet::journal::session_keys::SessionTerms;
use farthing_wallet::signer::Signer;
use farthing_wallet::{
    AgentToken, Authorizer, Books, ChainView, Denied, LocalAuthorizer, Purse, system_clock,
};
use tokio::sync::Notify;

use crate::agent::Agent;
use crate::front::{Fronts, Present};
use crate::protocol::{
    CALL_NAMES_WITHIN, Hello, MAX_CALL_NAMES, MAX_CONNECTIONS_PER_AGENT, MAX_FRONT_LEN, MAX_WRONG_TOKENS,
    Refusal, VERSION, WRONG_TOKENS_WITHIN,
};
use crate::serve::Peer;

/// How long a chain may take to answer while an agent waits.
const CHAIN_PATIENCE: Duration = Duration::from_secs(3);

/// For how long a chain's time is taken for what it was when it was asked.
const TIME_KEPT: Duration = Duration::from_secs(1);

/// How many peers are remembered that showed a wrong token.
const MAX_SUSPECTS: usize = 4_096;

/// How often what is open is looked at, and how soon at most after somebody asks for it.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The shortest name of a front: nobody takes another's by accident.
const MIN_FRONT_LEN: usize = 8;

/// How long a session key that could not be opened is not tried again.
const CLOSED_FOR: Duration = Duration::from_secs(10);

/// Opens a session key, wherever the owner keeps it, or says why it cannot. Nobody is there to be asked for a passphrase.
pub type OpenSessionKey = Arc<dyn Fn(&SessionTerms) -> Result<Arc<dyn Signer>, String> + Send + Sync>;

/// Keys and spend state, and what is believed of whoever asks for them: who it is, and nothing else.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    owner: LocalAuthorizer,
    views: Vec<Arc<dyn ChainView>>,
    /// Asks the chain about what is open.
    client: Client,
    fronts: Fronts,
    times: tokio::sync::Mutex<HashMap<Network, (Instant, Option<Timestamp>)>>,
    suspects: Mutex<HashMap<String, (Instant, u32)>>,
    /// How many calls each agent named, and since when they are counted.
    named: Mutex<HashMap<AgentName, (Instant, u32)>>,
    nudge: Notify,
    stopped: AtomicBool,
    open_session_key: Option<OpenSessionKey>,
    /// Those that were opened.
    session_keys: Mutex<HashMap<Address, Arc<dyn Signer>>>,
    /// Whoever opens one holds it: to derive a key from a passphrase takes much memory. Since when which could not be opened.
    opening: Mutex<HashMap<Address, Instant>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard of {}", self.0.owner.payer())
    }
}

impl Guard {
    /// A guard over the owner's own authorizer. `views` are the chains that it asks; what it cannot ask stays held.
    ///
    /// # Errors
    /// If no client can be put together.
    pub fn new(
        owner: &LocalAuthorizer,
        views: Vec<Arc<dyn ChainView>>,
    ) -> Result<Self, farthing_wallet::client::BuildError> {
        Self::with_session_keys(owner, views, None)
    }

    /// The same, for agents that pay with keys of their own, which are opened when they first come.
    ///
    /// # Errors
    /// If no client can be put together.
    pub fn with_session_keys(
        owner: &LocalAuthorizer,
        views: Vec<Arc<dyn ChainView>>,
        open_session_key: Option<OpenSessionKey>,
    ) -> Result<Self, farthing_wallet::client::BuildError> {
        let fronts = Fronts::default();
        let alive = fronts.clone();
        // As a process that knows which fronts are there.
        let owner = owner.over(Arc::new(owner.journal().as_front("", move |name| alive.is_there(name))));
        let mut builder = Client::builder().wallet(owner.clone());
        for view in &views {
            builder = builder.chain(view.clone());
        }
        Ok(Self(Arc::new(Inner {
            client: builder.build()?,
            owner,
            views,
            fronts,
            times: tokio::sync::Mutex::default(),
            suspects: Mutex::default(),
            named: Mutex::default(),
            nudge: Notify::new(),
            stopped: AtomicBool::new(false),
            open_session_key,
            session_keys: Mutex::default(),
            opening: Mutex::default(),
        })))
    }

    pub(crate) fn owner(&self) -> &LocalAuthorizer {
        &self.0.owner
    }

    /// Asks the chain about one purchase, and writes down what it proves.
    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    // -----------------------------------------------------------------------------------------------------------------
    // Who asks.

    /// Lets a front in that says who it is, if it is.
    pub(crate) async fn admit(&self, hello: &Hello, peer: &Peer) -> Result<(Agent, Present), Refusal> {
        if hello.version != VERSION {
            return Err(Refusal::new("version_unknown", format!("this guard speaks version {VERSION}")));
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !(MIN_FRONT_LEN..=MAX_FRONT_LEN).contains(&hello.front.len()) || !hello.front.bytes().all(plain) {
            return Err(Refusal::malformed("the name of the front cannot be read"));
        }
        self.spare(&peer.key)?;
        let wrong = || {
            self.suspect(&peer.key);
            Refusal::new("token_wrong", "the token is none that this guard knows")
        };
        let (name, credential) = match (&hello.token, peer.certificate) {
            (Some(text), _) => {
                let token: AgentToken = text.parse().map_err(|_| wrong())?;
                let (name, credential) = (token.agent().clone(), token.credential());
                if !self.knows(name.clone(), credential).await? {
                    return Err(wrong());
                }
                (name, credential)
            }
            (None, Some(credential)) => {
                (self.by_certificate(credential).await?.ok_or_else(wrong)?, credential)
            }
            (None, None) => return Err(wrong()),
        };
        let present =
            self.0.fronts.enter(&name, &hello.front, MAX_CONNECTIONS_PER_AGENT).ok_or_else(|| {
                let why = format!("{name} has {MAX_CONNECTIONS_PER_AGENT} connections already");
                Refusal::new("too_many_connections", why)
            })?;
        let alive = self.0.fronts.clone();
        let journal = self.0.owner.journal().as_front(present.name(), move |name| alive.is_there(name));
        let wallet = self.wallet_of(&name).await?;
        let wallet = wallet.over(Arc::new(journal.for_agent(name.clone(), Some(credential))));
        Ok((Agent::new(self.clone(), name, credential, wallet), present))
    }

    /// The key that an agent pays with: one of its own, if the owner made it one; else the wallet's.
    async fn wallet_of(&self, name: &AgentName) -> Result<LocalAuthorizer, Refusal> {
        let (guard, name) = (self.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || -> Result<LocalAuthorizer, Refusal> {
            let owner = &guard.0.owner;
            let journal = owner.journal();
            let Some(key) = journal.session_key_of(&name).map_err(Denied::from)? else {
                return Ok(owner.clone());
            };
            let signer = guard.session_signer(&key.terms)?;
            let wallet = owner.with_signer(signer);
            // One that was made in a wallet for development is for nothing else.
            let devnet = journal.is_devnet().map_err(Denied::from)?;
            Ok(if devnet { wallet.with_dev_keys(|_| true) } else { wallet })
        });
        found.await.map_err(|_| Refusal::unavailable())?
    }

    fn session_signer(&self, terms: &SessionTerms) -> Result<Arc<dyn Signer>, Refusal> {
        let lock = || self.0.session_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = lock().get(&terms.address) {
            return Ok(signer.clone());
        }
        let closed = |why: &str| {
            tracing::error!(name = terms.name, why, "a session key cannot be opened");
            let why =
                format!("the guard cannot open the session key {} that this agent pays with", terms.name);
            Refusal::new("session_key_closed", why)
        };
        let open = self.0.open_session_key.as_ref().ok_or_else(|| closed("this guard opens none"))?;
        let mut failed = self.0.opening.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have opened it, or tried to, meanwhile.
        if let Some(signer) = lock().get(&terms.address) {
            return Ok(signer.clone());
        }
        failed.retain(|_, since| since.elapsed() < CLOSED_FOR);
        if failed.contains_key(&terms.address) {
            return Err(closed("it could not be opened a moment ago"));
        }
        let opened = open(terms).and_then(|signer| match signer.address() == terms.address {
            true => Ok(signer),
            false => Err("it is another key than the one that was made".to_owned()),
        });
        let signer = opened.map_err(|why| {
            failed.insert(terms.address.clone(), Instant::now());
            closed(&why)
        })?;
        lock().insert(terms.address.clone(), signer.clone());
        Ok(signer)
    }

    /// Whether an agent still shows what it was let in by.
    pub(crate) async fn knows(&self, name: AgentName, credential: Credential) -> Result<bool, Refusal> {
        let journal = self.0.owner.journal().clone();
        let asked = tokio::task::spawn_blocking(move || journal.knows_agent(&name, &credential));
        asked.await.map_err(|_| Refusal::unavailable())?.map_err(|error| Denied::from(error).into())
    }

    async fn by_certificate(&self, credential: Credential) -> Result<Option<AgentName>, Refusal> {
        let journal = self.0.owner.journal().clone();
        let asked = tokio::task::spawn_blocking(move || journal.agent_by(&credential));
        asked.await.map_err(|_| Refusal::unavailable())?.map_err(|error| Denied::from(error).into())
    }

    /// Whoever guesses is not listened to for a while, whatever it shows then.
    fn spare(&self, peer: &str) -> Result<(), Refusal> {
        let suspects = self.0.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        match suspects.get(peer) {
            Some((since, wrong)) if since.elapsed() < WRONG_TOKENS_WITHIN && *wrong >= MAX_WRONG_TOKENS => {
                Err(Refusal::new("too_many_attempts", "too many wrong tokens: try again later"))
            }
            _ => Ok(()),
        }
    }

    fn suspect(&self, peer: &str) {
        let mut suspects = self.0.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() >= MAX_SUSPECTS {
            suspects.retain(|_, (since, _)| since.elapsed() < WRONG_TOKENS_WITHIN);
        }
        if suspects.len() >= MAX_SUSPECTS && !suspects.contains_key(peer) {
            return;
        }
        let (since, wrong) = suspects.entry(peer.to_owned()).or_insert((Instant::now(), 0));
        if since.elapsed() >= WRONG_TOKENS_WITHIN {
            (*since, *wrong) = (Instant::now(), 0);
        }
        *wrong = wrong.saturating_add(1);
    }

    /// Whether an agent may name one more call now. Names take room in the books, which is not an agent's to fill.
    pub(crate) fn may_name(&self, agent: &AgentName) -> bool {
        let mut named = self.0.named.lock().unwrap_or_else(PoisonError::into_inner);
        // INVARIANT: one row for each known agent at most, and the books know no more than so many.
        let (since, count) = named.entry(agent.clone()).or_insert((Instant::now(), 0));
        if since.elapsed() >= CALL_NAMES_WITHIN {
            (*since, *count) = (Instant::now(), 0);
        }
        *count = count.saturating_add(1);
        *count <= MAX_CALL_NAMES
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What the chain says.

    pub(crate) fn view(&self, network: &Network) -> Option<&Arc<dyn ChainView>> {
        self.0.views.iter().find(|view| view.network() == network)
    }

    /// When the chain's latest block was made, as of a moment ago.
    pub(crate) async fn chain_time(&self, network: &Network) -> Option<Timestamp> {
        let view = self.view(network)?;
        // One asks, and the others wait for what it hears.
        let mut times = self.0.times.lock().await;
        if let Some((asked, time)) = times.get(network)
            && asked.elapsed() < TIME_KEPT
        {
            return *time;
        }
        let time = in_time(view.time()).await;
        times.insert(network.clone(), (Instant::now(), time));
        time
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What is done unasked.

    /// Looks at everything that is open, as a wallet does that starts again: what fronts that are gone left unsigned is
    /// given up, and what the chain proves is written down. Returns how many purchases were given up.
    ///
    /// # Errors
    /// [`Denied`] if the books cannot be used.
    pub async fn sweep(&self) -> Result<usize, Denied> {
        let owner = &self.0.owner;
        let given_up = owner.recover().await? + owner.lapse().await?;
        owner.forget_calls().await?;
        for (id, sight) in self.0.client.reconcile_all().await? {
            if let Err(error) = sight {
                tracing::warn!(%id, %error, "a purchase cannot be looked at");
            }
        }
        for kept in owner.channels().await? {
            let state = kept.payer.state();
            if !is_over(state)
                && let Err(error) = self.0.client.look_at_channel(&kept.id()).await
            {
                tracing::debug!(channel = %kept.id(), %error, "a channel cannot be looked at");
            }
        }
        Ok(given_up)
    }

    /// Sweeps soon.
    pub(crate) fn nudge(&self) {
        self.0.nudge.notify_one();
    }

    /// Sweeps again and again, until [`Guard::stop`].
    pub async fn keep_sweeping(&self) {
        while !self.0.stopped.load(Ordering::Relaxed) {
            if let Err(error) = self.sweep().await {
                tracing::error!(%error, "what is open cannot be looked at");
            }
            tokio::time::sleep(SWEEP_PAUSE).await;
            // Nobody may have asked: then it is time when it is time.
            let _ = tokio::time::timeout(SWEEP_EVERY, self.0.nudge.notified()).await;
        }
    }

    /// Ends [`Guard::keep_sweeping`].
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
        self.nudge();
    }
}

/// What a chain says, if it says so in time.
pub(crate) async fn in_time<T>(asked: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(CHAIN_PATIENCE, asked).await.ok().flatten()
}

/// The time that offers are read by.
pub(crate) fn wall() -> Timestamp {
    system_clock().wall
}
