//! The configuration: TOML, read once into validated types. `docs/reference/config.md` lists every key.
//!
//! Unknown keys are errors, everything that is wrong is said at once with file, line and key, and secrets are
//! references. `FARTHING__SECTION__KEY` in the environment overrides the file.

mod document;
mod key;
mod mcp;
mod reader;
mod routes;
mod secret;
mod sections;
mod service;
pub mod session;
mod stripe;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farthing_engine::{Depths, EngineConfig, ExposureLimit};
use farthing_payment::Flow;
use farthing_paywall::{Amount, Cors, Limits, MethodOffer, Mpp, Offer, Pattern, Session, Way};
use farthing_primitives::{Address, Network, Registry};
use farthing_rails::exact_evm::Policy;
use farthing_wire::mpp::evm::CredentialType;
use url::Url;

pub use document::ConfigError;
pub use key::read_key;
pub use mcp::{McpConfig, McpSource};
pub(crate) use reader::parse_duration;
pub use routes::MAX_STORED_BYTES;
pub(crate) use routes::checksum_holds;
pub use secret::SecretRef;
pub use service::{OpenApiSource, ServiceConfig};
pub use session::SessionsConfig;
pub use stripe::StripeConfig;

/// Everything that a file says. Which sections must be there depends on the command.
#[derive(Debug)]
pub struct Config {
    /// `[gateway]` with its routes; absent in a facilitator's file.
    pub gateway: Option<GatewayConfig>,
    /// `[facilitator.server]`; absent in a gateway's file.
    pub facilitator: Option<FacilitatorServer>,
    pub store: PathBuf,
    pub networks: BTreeMap<Network, NetworkConfig>,
    /// The built-in assets and those of `[[asset]]`.
    pub registry: Registry,
    /// `[facilitator]`: who settles.
    pub settlement: Settlement,
    /// `[payments]`.
    pub policy: Policy,
    pub engine: EngineConfig,
    /// `[sessions]`.
    pub sessions: SessionsConfig,
    /// `[stripe]`.
    pub stripe: Option<StripeConfig>,
}

/// Who settles what the gateway sells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Settlement {
    /// This process, with a relayer key on each network.
    #[default]
    Own,
    /// Remote facilitators, in order of preference.
    Remote(Vec<RemoteFacilitator>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFacilitator {
    pub url: Url,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<SecretRef>,
}

/// One `[networks.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// In order of preference. A URL may itself be a secret.
    pub rpc: Vec<RpcUrl>,
    pub relayer_key: Option<SecretRef>,
    /// When a settlement counts, by amount.
    pub depths: Depths,
    /// How long a block takes; learned from the chain if absent.
    pub block_time: Option<Duration>,
    pub request_timeout: Duration,
    /// The most wei for each unit of gas that a transaction may offer.
    pub max_fee: Option<u128>,
}

#[derive(Clone, PartialEq, Eq)]
pub enum RpcUrl {
    Plain(Url),
    Secret(SecretRef),
}

/// `[facilitator.server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FacilitatorServer {
    pub listen: SocketAddr,
    /// The networks served; all configured ones if absent.
    pub networks: Option<Vec<Network>>,
    /// The assets served, by contract; all listed ones if absent.
    pub assets: Option<Vec<farthing_primitives::AssetId>>,
    /// Required off loopback.
    pub api_keys: Vec<ApiKey>,
    /// The most gas, in wei, that one tenant may cost in 24 hours.
    pub max_gas_wei_per_day: Option<u128>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub tenant: farthing_primitives::TenantId,
    pub key: SecretRef,
}

/// `[gateway]`, with everything that its routes need resolved.
#[derive(Debug)]
pub struct GatewayConfig {
    pub listen: SocketAddr,
    /// Where health is told; nowhere if absent. Not for the public.
    pub admin_listen: Option<SocketAddr>,
    pub public_url: Option<Url>,
    pub trusted_proxies: Vec<Cidr>,
    pub tls: Option<TlsConfig>,
    pub cors: Cors,
    /// Whether requests that no route matches pass unpaid to the default upstream.
    pub unmatched_free: bool,
    pub mpp: Mpp,
    /// Whether a 402 serves buyers of version 1 in its body.
    pub v1_body: bool,
    /// The secret behind offers; a file beside the store if absent.
    pub offer_key: Option<SecretRef>,
    pub default_upstream: Option<Arc<UpstreamConfig>>,
    pub routes: Vec<RouteConfig>,
    /// `[mcp]`: an MCP server whose tools are sold.
    pub mcp: Option<McpConfig>,
    /// `[service]`: what the documents say by which machines find it.
    pub service: ServiceConfig,
    pub limits: LimitsConfig,
    /// Assets as in [`Config::registry`], for the paywall's own use.
    pub registry: Registry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What stands behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Scheme, host, port, and a path that is put before the request's.
    pub url: Url,
    pub connect_timeout: Duration,
    /// Sent with each request; in place of what the client sent.
    pub headers: Vec<(http::HeaderName, SecretRef)>,
    /// Whether the upstream is told the `Host` that the client asked for, rather than its own.
    pub preserve_host: bool,
    /// Whether to speak HTTP/2 without TLS.
    pub http2: bool,
}

/// One `[[route]]`.
#[derive(Debug)]
pub struct RouteConfig {
    pub pattern: Pattern,
    /// The pattern as its owner spelled it: the service behind may mind capitals.
    pub written: String,
    pub upstream: Arc<UpstreamConfig>,
    pub sale: Option<SaleConfig>,
}

/// What a priced route asks for.
#[derive(Debug)]
pub struct SaleConfig {
    pub price: PriceConfig,
    pub flow: Flow,
    pub exposure: Option<ExposureLimit>,
    pub max_timeout: Duration,
    pub upstream_timeout: Duration,
    pub max_request: usize,
    pub max_response: usize,
    pub repeatable: Option<bool>,
    pub digest: bool,
    pub description: Option<String>,
    pub mime_type: Option<String>,
    pub policy: Arc<Policy>,
    /// What is sold by the unit. Such a route may have no other price.
    pub session: Option<Arc<Session>>,
    /// By which types of credentials a charge of MPP in a token may be paid.
    pub pay_by: Vec<CredentialType>,
    /// What it costs by methods of MPP that are plug-ins.
    pub methods: Vec<MethodOffer>,
}

#[derive(Debug)]
pub enum PriceConfig {
    Fixed(Vec<Offer>),
    Hook { url: Url, timeout: Duration, headers: Vec<(http::HeaderName, SecretRef)>, ways: Vec<Arc<Way>> },
}

impl PriceConfig {
    /// The networks that this can be paid on.
    pub fn networks(&self) -> std::collections::BTreeSet<Network> {
        match self {
            Self::Fixed(offers) => {
                offers.iter().map(|offer| offer.money().asset().network().clone()).collect()
            }
            Self::Hook { ways, .. } => ways.iter().map(|way| way.asset().id.network().clone()).collect(),
        }
    }
}

/// `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    pub max_connections: usize,
    pub max_connections_per_client: usize,
    pub max_header_bytes: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub stall_timeout: Duration,
    /// Bytes a second; 0 for none.
    pub min_rate: u32,
    pub shutdown_timeout: Duration,
    /// What the paywall bounds.
    pub paywall: Limits,
}

/// A range of addresses, e.g. `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: std::net::IpAddr,
    bits: u8,
}

/// Reads a file, with the process's environment over it. See [`Config::load`].
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    Config::load(path)
}

impl Config {
    /// Reads a file, with the process's environment over it.
    ///
    /// # Errors
    /// [`ConfigError`] with all that is wrong; each line names file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, std::env::vars())
    }

    pub fn load_with(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let node = document::load(path, env)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        sections::read(node, folder)
            .map_err(|problems| ConfigError { file: path.display().to_string(), problems })
    }

    /// Reads a text. `file` is only for messages; relative paths stay as they are.
    #[cfg(test)]
    pub fn parse(
        file: &str,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let node = document::parse(file, text, env)?;
        sections::read(node, Path::new(""))
            .map_err(|problems| ConfigError { file: file.to_owned(), problems })
    }
}

impl Cidr {
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr;
        let (base, address, width) = match (self.base, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
            // An IPv4 client on an IPv6 socket.
            (IpAddr::V4(_), IpAddr::V6(b)) => {
                return b.to_ipv4_mapped().is_some_and(|b| self.contains(IpAddr::V4(b)));
            }
            (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let shift = width - u32::from(self.bits);
        // A shift by the whole width is no shift that there is.
        base.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("not a range of addresses: {text:?} (expected e.g. \"10.0.0.0/8\")");
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits.parse::<u8>().map_err(|_| refuse())?)),
            None => (text, None),
        };
        let base: std::net::IpAddr = base.parse().map_err(|_| refuse())?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        if bits > width { Err(refuse()) } else { Ok(Self { base, bits }) }
    }
}

/// RPC providers put keys into their URLs, so no more than the host is shown.
impl std::fmt::Debug for RpcUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(url) => write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
            Self::Secret(reference) => write!(f, "{reference}"),
        }
    }
}

impl RpcUrl {
    /// The URL, fetched if it is a secret.
    pub fn resolve(&self) -> Result<Url, String> {
        match self {
            Self::Plain(url) => Ok(url.clone()),
            Self::Secret(reference) => {
                let secret = reference.resolve().map_err(|error| error.to_string())?;
                // What does not parse is not repeated: it may hold a key.
                secret.expose().parse().map_err(|_| format!("{reference} does not hold a URL"))
            }
        }
    }
}

/// What an `accept` line or its route says of a price.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub amount: Option<(Amount, document::Place)>,
    pub pay_to: Option<Address>,
}
