//! Puts store, chains, relayers and engine together. The only place that knows all of them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farthing_chain::{ChainConfig, LocalKey, RpcChain};
use farthing_engine::{
    Chain, Depths, Desk, Engine, EngineConfig, EvmRail, Facilitator, ProcessorRail, Rail, Recovered, Relayer,
    RelayerConfig, RemoteRail, RemoteRailConfig, Tag, Till, TillConfig, World,
};
use farthing_evm::Key;
use farthing_primitives::{Address, Network, Registry};
use farthing_rails::method::Method as _;
use farthing_store::SqliteStore;
use farthing_stripe::{HttpApi, StripeProcessor};

use crate::config::{Config, GatewayConfig, MAX_STORED_BYTES, RemoteFacilitator, Settlement, StripeConfig};
use crate::remote::HttpFacilitator;
use crate::world::TokioWorld;
use url::Url;

/// One chain and how we settle on it.
pub struct NetworkParts {
    pub chain: ChainConfig,
    /// Pays for gas. Without it the chain is only read.
    pub relayer: Option<Key>,
    pub relayer_config: RelayerConfig,
    pub depths: Depths,
}

/// What an engine is made of.
pub struct Parts {
    pub store: PathBuf,
    pub networks: Vec<NetworkParts>,
    pub registry: Registry,
    pub engine: EngineConfig,
    /// Who settles on networks without a relayer of ours.
    pub remote: Vec<RemoteFacilitator>,
    /// Where buyers find us; this machine, if nobody says.
    pub public_url: Option<Url>,
    /// Who charges cards.
    pub stripe: Option<StripeConfig>,
}

/// An engine with everything that stands behind it.
pub struct Rig {
    pub engine: Engine,
    pub world: Arc<dyn World>,
    pub chains: HashMap<Network, Arc<dyn Chain>>,
    pub relayers: HashMap<Network, Address>,
    /// The same relayers, for whatever else is sent by them.
    pub senders: HashMap<Network, Arc<Relayer>>,
    pub depths: HashMap<Network, Depths>,
    pub store: Arc<SqliteStore>,
}

#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    #[error("the store at {path} cannot be opened: {why}")]
    Store { path: PathBuf, why: String },
    #[error("network {network}: {why}")]
    Network { network: Network, why: String },
    #[error("{0}")]
    Secret(String),
    #[error("no facilitator can be used: {0}")]
    Remote(String),
    #[error("what a former process left cannot be taken up: {0}")]
    Recover(String),
    #[error(
        "the session of route {route} pays {payee}, whom nobody here can collect for: it is neither the relayer on \
         {network}, nor is its key among [sessions] payee_keys"
    )]
    Payee { route: String, payee: Address, network: Network },
}

/// Makes the engine that a configuration describes.
///
/// `public_url` is where buyers find us: remote facilitators are told it.
pub async fn from_config(config: &Config, public_url: Option<&Url>) -> Result<Rig, WiringError> {
    let mut networks = Vec::new();
    for (name, network) in &config.networks {
        let mut urls = Vec::new();
        for rpc in &network.rpc {
            urls.push(rpc.resolve().map_err(WiringError::Secret)?);
        }
        let mut chain = ChainConfig::new(name.clone(), urls);
        chain.block_time = network.block_time;
        chain.request_timeout = network.request_timeout;
        let relayer = match &network.relayer_key {
            Some(reference) => {
                Some(reference.read_key().map_err(|error| WiringError::Secret(error.to_string()))?)
            }
            None => None,
        };
        let mut relayer_config = RelayerConfig::default();
        if let Some(max_fee) = network.max_fee {
            relayer_config.max_fee = max_fee;
        }
        let depths = network.depths.clone();
        networks.push(NetworkParts { chain, relayer, relayer_config, depths });
    }
    let remote = match &config.settlement {
        Settlement::Own => Vec::new(),
        Settlement::Remote(remotes) => remotes.clone(),
    };
    rig(Parts {
        store: config.store.clone(),
        networks,
        registry: config.registry.clone(),
        engine: config.engine.clone(),
        remote,
        public_url: public_url.cloned(),
        stripe: config.stripe.clone(),
    })
    .await
}

/// Opens the store, connects the chains, takes up what a former process left, and starts the tending.
pub async fn rig(parts: Parts) -> Result<Rig, WiringError> {
    let store = open_store(&parts.store)?;
    let world: Arc<dyn World> = Arc::new(TokioWorld::new());
    let mut chains: HashMap<Network, Arc<dyn Chain>> = HashMap::new();
    let mut depths: HashMap<Network, Depths> = HashMap::new();
    let mut relayers = HashMap::new();
    let mut senders = HashMap::new();
    let mut rails: HashMap<Network, Arc<dyn Rail>> = HashMap::new();
    for network in parts.networks {
        let name = network.chain.network.clone();
        let chain: Arc<dyn Chain> = Arc::new(
            RpcChain::new(network.chain)
                .map_err(|error| WiringError::Network { network: name.clone(), why: error.to_string() })?,
        );
        chains.insert(name.clone(), chain.clone());
        depths.insert(name.clone(), network.depths.clone());
        let Some(key) = network.relayer else { continue };
        let key = Arc::new(LocalKey::new(key));
        let relayer =
            Relayer::start(chain, key, store.clone(), world.clone(), network.relayer_config).ok_or_else(
                || WiringError::Network { network: name.clone(), why: "is not an EVM network".to_owned() },
            )?;
        relayers.insert(name.clone(), relayer.address());
        senders.insert(name.clone(), relayer.clone());
        let rail =
            EvmRail::new(relayer, store.clone(), world.clone(), network.depths, parts.registry.clone());
        rails.insert(name, Arc::new(rail));
    }
    if !parts.remote.is_empty() {
        let url = match parts.public_url {
            Some(url) => url,
            None => {
                Url::parse("http://localhost/").map_err(|error| WiringError::Remote(error.to_string()))?
            }
        };
        let facilitators = facilitators(&parts.remote)?;
        // A network that is settled remotely needs no node of ours, so it need not be configured.
        let listed = parts.registry.iter().map(|asset| asset.id.network().clone());
        let wanted: BTreeSet<Network> = listed.filter(|network| !rails.contains_key(network)).collect();
        for network in wanted {
            let public_url = url.clone();
            let config = RemoteRailConfig {
                network: network.clone(),
                facilitators: facilitators.clone(),
                registry: parts.registry.clone(),
                depths: depths.get(&network).cloned().unwrap_or_default(),
                resource_url: Arc::new(move |path| {
                    public_url.join(path).map_or_else(|_| public_url.to_string(), String::from)
                }),
            };
            let rail = RemoteRail::new(config, world.clone(), chains.get(&network).cloned())
                .map_err(|error| WiringError::Remote(error.to_string()))?;
            rails.insert(network, Arc::new(rail));
        }
    }
    if let Some(stripe) = &parts.stripe {
        let (network, rail) = stripe_rail(stripe, world.clone())?;
        rails.insert(network, rail);
    }
    for chain in chains.values() {
        let chain = chain.clone();
        // A node may come up after us: nothing waits for it.
        tokio::spawn(async move { warn_of_silence(&*chain).await });
    }
    let engine = Engine::new(store.clone(), world.clone(), rails, parts.engine);
    let recovered = engine.recover().await.map_err(|error| WiringError::Recover(error.to_string()))?;
    let Recovered { driven, released, cut_off } = recovered;
    if driven + released + cut_off > 0 {
        tracing::warn!(driven, released, cut_off, "took up what a former process left");
    }
    let tending = engine.clone();
    tokio::spawn(async move { tending.tend().await });
    Ok(Rig { engine, world, chains, relayers, senders, depths, store })
}

/// Whom this process can collect for, and where.
#[derive(Debug, Clone, Default)]
pub struct Collectors(BTreeSet<(Network, Address)>);

impl Collectors {
    /// # Errors
    /// [`WiringError::Payee`] for a session that nobody here could ever collect for.
    pub fn check(&self, gateway: &GatewayConfig) -> Result<(), WiringError> {
        for route in &gateway.routes {
            let Some(session) = route.sale.as_ref().and_then(|sale| sale.session.as_ref()) else { continue };
            let place = (session.network().clone(), session.payee().clone());
            if !self.0.contains(&place) {
                let (network, payee) = place;
                return Err(WiringError::Payee { route: route.pattern.to_string(), payee, network });
            }
        }
        Ok(())
    }
}

/// The till of a gateway: it takes up the channels that a former process left, and keeps those that are to come.
///
/// # Errors
/// As [`Collectors::check`]; and if a key or the store cannot be read.
pub async fn till(
    config: &Config,
    rig: &Rig,
    gateway: &GatewayConfig,
) -> Result<(Till, Collectors), WiringError> {
    let mut desks = HashMap::new();
    let mut collectors = Collectors::default();
    for (network, relayer) in &rig.senders {
        // A key cannot be copied, so each chain's desk reads its own.
        let mut keys = Vec::new();
        for reference in &config.sessions.payee_keys {
            keys.push(reference.read_key().map_err(|error| WiringError::Secret(error.to_string()))?);
        }
        let payees = keys.iter().map(|key| farthing_evm::from_alloy(key.address()));
        collectors.0.extend(payees.chain([relayer.address()]).map(|payee| (network.clone(), payee)));
        let depths = rig.depths.get(network).cloned().unwrap_or_default();
        if let Some(desk) = Desk::new(relayer.clone(), depths, keys) {
            desks.insert(network.clone(), desk);
        }
    }
    collectors.check(gateway)?;
    let till = TillConfig {
        escrow_code: config.sessions.escrow_code.clone(),
        answer_within: config.sessions.answer_within,
        answer_ttl: config.sessions.replay_ttl,
        // A route keeps what it lets through, also one that a reload brings.
        max_answer: MAX_STORED_BYTES,
        ..TillConfig::default()
    };
    let till = Till::start(rig.store.clone(), rig.world.clone(), desks, till).await;
    Ok((till.map_err(|error| WiringError::Recover(error.to_string()))?, collectors))
}

/// Says so at once if a network cannot be read; returns whether it can.
async fn warn_of_silence(chain: &dyn Chain) -> bool {
    match chain.head(Tag::Latest).await {
        Ok(Some(_)) => true,
        Ok(None) => {
            tracing::warn!(network = %chain.network(), "the chain has no block: nothing can be paid there yet");
            false
        }
        Err(error) => {
            tracing::warn!(
                network = %chain.network(), %error,
                "the chain cannot be read: payments there are answered with 503 until it can"
            );
            false
        }
    }
}

fn facilitators(listed: &[RemoteFacilitator]) -> Result<Vec<Arc<dyn Facilitator>>, WiringError> {
    let http = HttpFacilitator::client().map_err(|error| WiringError::Remote(error.to_string()))?;
    let mut all: Vec<Arc<dyn Facilitator>> = Vec::with_capacity(listed.len());
    for remote in listed {
        let api_key = match &remote.api_key {
            Some(key) => {
                let secret = key.resolve().map_err(|error| WiringError::Secret(error.to_string()))?;
                Some(secret.expose().to_owned())
            }
            None => None,
        };
        all.push(Arc::new(HttpFacilitator::new(http.clone(), remote.url.clone(), api_key)));
    }
    Ok(all)
}

fn stripe_rail(
    config: &StripeConfig,
    world: Arc<dyn World>,
) -> Result<(Network, Arc<dyn Rail>), WiringError> {
    let secret = config.secret_key.resolve().map_err(|error| WiringError::Secret(error.to_string()))?;
    let api = HttpApi::new(config.api_base.clone(), secret.expose())
        .map_err(|error| WiringError::Remote(error.to_string()))?;
    let processor = StripeProcessor::new(Arc::new(api), world.clone(), config.check_tokens);
    let rail = ProcessorRail::new(Arc::new(processor), world);
    Ok((config.method.network().clone(), Arc::new(rail)))
}

fn open_store(path: &Path) -> Result<Arc<SqliteStore>, WiringError> {
    let failed = |why: String| WiringError::Store { path: path.to_owned(), why };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    }
    Ok(Arc::new(SqliteStore::open(path).map_err(|error| failed(error.to_string()))?))
}
