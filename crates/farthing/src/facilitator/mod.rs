//! `farthing facilitator`: verifies and settles payments between others, over HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use farthing_chain::ChainConfig;
use farthing_engine::{Depths, EngineConfig, RelayerConfig};
use farthing_evm::to_alloy;
use farthing_facilitator::{
    Facilitator, FacilitatorConfig, GasBudget, KeyDigest, ServedNetwork, Tenant, TenantLimits, serve,
};
use farthing_primitives::{Address, AssetId, Network, Registry, TenantId};
use farthing_rails::exact_evm::Policy;
use tokio::net::TcpListener;

use crate::cli::{Failure, print_ready, until_stopped};
use crate::config::{Config, RpcUrl, SecretRef, read_key};
use crate::wiring::{self, NetworkParts, Parts, Rig};

/// Verify and settle x402 payments for sellers: POST /verify, POST /settle, GET /supported, GET /health.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing facilitator --network base-sepolia --rpc https://sepolia.base.org --relayer-key env:RELAYER_KEY
  farthing facilitator --listen 0.0.0.0:4022 --network base --rpc env:BASE_RPC_URL \\
      --relayer-key file:/run/secrets/relayer --api-key acme=env:ACME_KEY
  farthing facilitator -c farthing.toml

The relayer key pays for gas; it never holds what is paid. API keys are required off loopback, and sellers send one
as \"Authorization: Bearer KEY\". docs/reference/facilitator-api.md describes the API.
Exit codes: 0 stopped, 1 could not run, 2 wrong call or configuration.")]
pub struct FacilitatorArgs {
    /// A configuration with [networks] and [facilitator.server], in place of all the options below
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:4022]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    listen: Option<SocketAddr>,
    /// The network to settle on, e.g. eip155:84532 or base-sepolia
    #[arg(long, required_unless_present = "config", conflicts_with = "config", value_parser = Network::from_name)]
    network: Option<Network>,
    /// A node of that network: a URL, env:NAME or file:PATH; more of them stand by
    #[arg(long, value_name = "URL", required_unless_present = "config", conflicts_with = "config")]
    rpc: Vec<RpcArg>,
    /// The key that pays for gas: env:NAME, file:PATH or keystore:NAME
    #[arg(long, value_name = "REFERENCE", required_unless_present = "config", conflicts_with = "config")]
    relayer_key: Option<String>,
    /// The database; a second facilitator needs another
    #[arg(long, value_name = "PATH", default_value = "farthing-facilitator.db", conflicts_with = "config")]
    store: PathBuf,
    /// An ERC-6492 factory that may be called to deploy a payer's wallet; none by default
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config", value_parser = parse_factory)]
    wallet_factory: Vec<Address>,
    /// A seller's API key: env:NAME or file:PATH, or TENANT=env:NAME to keep its books apart
    #[arg(long, value_name = "REFERENCE", conflicts_with = "config")]
    api_key: Vec<KeyArg>,
    /// How many blocks deep a settlement must be before it is answered; 1 is: in a block
    #[arg(long, value_name = "BLOCKS", default_value_t = 1, conflicts_with = "config",
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    confirmations: u64,
    /// The most gas, in wei, that one seller's settlements may cost in 24 hours
    #[arg(long, value_name = "WEI", conflicts_with = "config")]
    max_gas_wei_per_day: Option<u128>,
}

/// A node, as it is written on the command line.
#[derive(Debug, Clone)]
struct RpcArg(RpcUrl);

/// A seller's key, as it is written on the command line.
#[derive(Debug, Clone)]
struct KeyArg {
    tenant: TenantId,
    key: SecretRef,
}

impl FromStr for RpcArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(reference) = text.parse::<SecretRef>() {
            return Ok(Self(RpcUrl::Secret(reference)));
        }
        // What does not parse is not repeated: it may hold a key.
        text.parse().map(|url| Self(RpcUrl::Plain(url))).map_err(|error: url::ParseError| error.to_string())
    }
}

impl FromStr for KeyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tenant, key) = match text.split_once('=') {
            Some((tenant, key)) => (tenant.parse().map_err(|_| "not a tenant's name".to_owned())?, key),
            None => (TenantId::local(), text),
        };
        let key = SecretRef::from_str(key).map_err(|error| error.to_string())?;
        Ok(Self { tenant, key })
    }
}

fn parse_factory(text: &str) -> Result<Address, String> {
    Address::evm(text).map_err(|error| error.to_string())
}

/// What is to be served, from the command line or from a file.
struct Plan {
    listen: SocketAddr,
    /// Those to serve; all that there are if absent.
    networks: Option<Vec<Network>>,
    /// The tokens to serve; all that are listed if absent.
    assets: Option<Vec<AssetId>>,
    registry: Registry,
    policy: Policy,
    keys: Vec<KeyArg>,
    max_gas_wei_per_day: Option<u128>,
}

/// Runs until the process is asked to stop.
pub async fn run(args: FacilitatorArgs) -> Result<ExitCode, Failure> {
    farthing_listener::raise_file_limit();
    let (plan, rig) = match &args.config {
        Some(path) => {
            let config = crate::config::load(path).map_err(|error| Failure::usage(error.to_string()))?;
            let plan = from_file(&config)?;
            let rig = wiring::from_config(&config, None)
                .await
                .map_err(|error| Failure::failed(error.to_string()))?;
            (plan, rig)
        }
        None => {
            let (plan, parts) = from_flags(args)?;
            let rig = wiring::rig(parts).await.map_err(|error| Failure::failed(error.to_string()))?;
            (plan, rig)
        }
    };
    let listen = plan.listen;
    let service = facilitator(plan, &rig)?;
    let cannot =
        |error: &dyn std::fmt::Display| Failure::failed(format!("cannot listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(|error| cannot(&error))?;
    let address = listener.local_addr().map_err(|error| cannot(&error))?;
    if service.is_open() && !address.ip().is_loopback() {
        return Err(Failure::usage("off loopback, API keys are required (--api-key env:NAME)"));
    }
    let relayers: Vec<String> =
        rig.relayers.iter().map(|(network, relayer)| format!("{relayer} on {network}")).collect();
    print_ready("facilitator", &format!("http://{address}"), &[("relayer", &relayers.join(", "))]);
    serve(listener, service, until_stopped()).await.map_err(|error| Failure::failed(error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

fn from_file(config: &Config) -> Result<Plan, Failure> {
    let server = config
        .facilitator
        .as_ref()
        .ok_or_else(|| Failure::usage("the configuration has no [facilitator.server]"))?;
    let key = |key: &crate::config::ApiKey| KeyArg { tenant: key.tenant.clone(), key: key.key.clone() };
    Ok(Plan {
        listen: server.listen,
        networks: server.networks.clone(),
        assets: server.assets.clone(),
        registry: config.registry.clone(),
        policy: config.policy.clone(),
        keys: server.api_keys.iter().map(key).collect(),
        max_gas_wei_per_day: server.max_gas_wei_per_day,
    })
}

fn from_flags(args: FacilitatorArgs) -> Result<(Plan, Parts), Failure> {
    // INVARIANT: clap asks for both where there is no file.
    let (Some(network), Some(relayer_key)) = (args.network, args.relayer_key) else {
        return Err(Failure::usage("--network and --relayer-key are required without -c"));
    };
    let rpc_urls = args.rpc.iter().map(|rpc| rpc.0.resolve()).collect::<Result<Vec<_>, _>>();
    let rpc_urls = rpc_urls.map_err(|error| Failure::usage(format!("--rpc: {error}")))?;
    let relayer =
        read_key(&relayer_key).map_err(|error| Failure::usage(format!("--relayer-key: {error}")))?;
    let policy =
        Policy { factories: args.wallet_factory.iter().filter_map(to_alloy).collect(), ..Policy::default() };
    let registry = Registry::builtin();
    let parts = Parts {
        store: args.store,
        networks: vec![NetworkParts {
            chain: ChainConfig::new(network, rpc_urls),
            relayer: Some(relayer),
            relayer_config: RelayerConfig::default(),
            depths: Depths::blocks(args.confirmations),
        }],
        registry: registry.clone(),
        engine: EngineConfig { answer_within: ANSWER_WITHIN, ..EngineConfig::default() },
        remote: Vec::new(),
        public_url: None,
        stripe: None,
    };
    let plan = Plan {
        listen: args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))),
        networks: None,
        assets: None,
        registry,
        policy,
        keys: args.api_key,
        max_gas_wei_per_day: args.max_gas_wei_per_day,
    };
    Ok((plan, parts))
}

const DEFAULT_PORT: u16 = 4022;

/// Shorter than a gateway waits by default, so that its buyers are told the transaction of a settlement that is late.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Requests to `/verify` and `/settle` in a second, for a seller with a key: far above what an honest one needs, and
/// below what would keep others from being served.
const REQUESTS_PER_SECOND: u32 = 5_000;

fn facilitator(plan: Plan, rig: &Rig) -> Result<Facilitator, Failure> {
    let mut networks: Vec<Network> = match plan.networks {
        Some(networks) => networks,
        None => rig.relayers.keys().cloned().collect(),
    };
    networks.sort();
    let served = networks.iter().map(|network| {
        let chain = rig.chains.get(network).cloned();
        let chain =
            chain.ok_or_else(|| Failure::usage(format!("the network {network} is not configured")))?;
        let relayers: Vec<Address> = rig.relayers.get(network).cloned().into_iter().collect();
        if relayers.is_empty() {
            return Err(Failure::usage(format!("the network {network} has no relayer_key")));
        }
        let here = |assets: &Vec<AssetId>| {
            assets.iter().filter(|asset| asset.network() == network).cloned().collect()
        };
        Ok(ServedNetwork { chain, relayers, tokens: plan.assets.as_ref().map(here) })
    });
    let served = served.collect::<Result<Vec<_>, Failure>>()?;
    let gas = GasBudget { per_day: plan.max_gas_wei_per_day, ..GasBudget::default() };
    let open = TenantLimits { gas, ..TenantLimits::default() };
    let limits = TenantLimits { requests_per_second: Some(REQUESTS_PER_SECOND), ..open.clone() };
    let config = FacilitatorConfig {
        policy: plan.policy,
        tenants: tenants(&plan.keys, &limits)?,
        open,
        ..FacilitatorConfig::default()
    };
    Facilitator::new(rig.engine.clone(), served, &plan.registry, config)
        .map_err(|error| Failure::usage(error.to_string()))
}

/// Keys of one tenant belong together.
fn tenants(keys: &[KeyArg], limits: &TenantLimits) -> Result<Vec<Tenant>, Failure> {
    let mut tenants: BTreeMap<&TenantId, Vec<KeyDigest>> = BTreeMap::new();
    for KeyArg { tenant, key } in keys {
        let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("API key {key}: {error}"));
        let secret = key.resolve().map_err(|error| wrong(&error))?;
        let digest = KeyDigest::of(secret.expose()).map_err(|error| wrong(&error))?;
        tenants.entry(tenant).or_default().push(digest);
    }
    let tenant = |(id, keys): (&TenantId, _)| Tenant { id: id.clone(), keys, limits: limits.clone() };
    Ok(tenants.into_iter().map(tenant).collect())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_name_their_tenant_and_never_stand_on_the_command_line() {
        let key: KeyArg = "env:ACME_KEY".parse().expect("a reference");
        assert_eq!((key.tenant, key.key.to_string().as_str()), (TenantId::local(), "env:ACME_KEY"));
        let key: KeyArg = "acme=file:/run/key".parse().expect("a reference");
        assert_eq!((key.tenant.as_str(), key.key.to_string().as_str()), ("acme", "file:/run/key"));
        for wrong in ["s3cret-s3cret-s3cret", "acme=s3cret-s3cret-s3cret", "a b=env:KEY"] {
            let error = wrong.parse::<KeyArg>().expect_err(wrong);
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_node_is_a_url_or_where_to_find_one() {
        assert!(matches!("http://127.0.0.1:8545".parse(), Ok(RpcArg(RpcUrl::Plain(_)))));
        assert!(matches!("env:BASE_RPC".parse(), Ok(RpcArg(RpcUrl::Secret(_)))));
        assert!("node".parse::<RpcArg>().is_err());
    }
}
