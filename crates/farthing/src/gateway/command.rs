use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use farthing_wire::mpp::evm::CredentialType;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Gateway, GatewayError, admin, bind, offer_key, reload, settle_down};
use crate::cli::{Failure, print_ready, until_stopped};
use crate::config::{Config, GatewayConfig, Settlement};

/// Put a price before an API that you have: a reverse proxy that is paid by the request.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing gateway -c farthing.toml
  farthing gateway -c farthing.toml --check         say what is wrong with the file, and stop
  FARTHING__GATEWAY__LISTEN=127.0.0.1:8402 farthing gateway -c farthing.toml

A whole file:
  [gateway]
  upstream = \"http://127.0.0.1:8080\"
  network  = \"base-sepolia\"
  pay_to   = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"

  [networks.base-sepolia]
  rpc = [\"https://sepolia.base.org\"]
  relayer_key = \"env:RELAYER_KEY\"

  [[route]]
  match = \"GET /weather\"
  price = \"$0.002\"

Tools of an MCP server, at /mcp (docs/operating/mcp.md):
  [mcp]
  command = [\"node\", \"server.mjs\"]      # or: upstream = \"http://127.0.0.1:9000/mcp\"
  [[tool]]
  name  = \"forecast\"
  price = \"$0.01\"

The file and the certificates are read again when they change, and on SIGHUP. docs/reference/config.md lists every key.
Exit codes: 0 stopped as asked, 1 failed, 2 wrong call or configuration.")]
pub struct GatewayArgs {
    /// The configuration
    #[arg(short, long, default_value = "farthing.toml", value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and stop
    #[arg(long)]
    check: bool,
}

pub async fn run_command(args: GatewayArgs) -> Result<ExitCode, Failure> {
    let mut config = crate::config::load(&args.config).map_err(|error| Failure::usage(error.to_string()))?;
    let Some(gateway) = config.gateway.take() else {
        return Err(Failure::usage(format!("{}: there is no [gateway] section", args.config.display())));
    };
    settleable(&config, &gateway)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.config.display())))?;
    if args.check {
        check(&gateway).map_err(|error| Failure::usage(error.to_string()))?;
        let routes = gateway.routes.len();
        println!(
            "{}: good, {routes} {}",
            args.config.display(),
            if routes == 1 { "route" } else { "routes" }
        );
        return Ok(ExitCode::SUCCESS);
    }
    serve(args.config, config, gateway).await
}

/// Whoever sells must be able to settle: a buyer would sign for nothing otherwise.
fn settleable(config: &Config, gateway: &GatewayConfig) -> Result<(), String> {
    let relays = |network: &farthing_primitives::Network| {
        config.networks.get(network).is_some_and(|known| known.relayer_key.is_some())
    };
    let routes = gateway.routes.iter().map(|route| (&route.pattern, route.sale.as_ref()));
    let tools = gateway.mcp.iter().flat_map(|mcp| &mcp.tools);
    let tools = tools.map(|tool| (&tool.pattern, tool.sale.as_ref()));
    for (pattern, sale) in routes.chain(tools) {
        let Some(sale) = sale else { continue };
        // A channel is opened, settled and closed by a relayer of ours; no facilitator does that.
        if let Some(session) = &sale.session
            && !relays(session.network())
        {
            let network = session.network();
            return Err(format!(
                "route {}: nobody settles its session on {network}: give [networks.\"{network}\"] rpc and relayer_key",
                pattern
            ));
        }
        // No facilitator looks for a transfer that it did not make.
        let pushed = |kind: &CredentialType| {
            matches!(kind, CredentialType::Transaction | CredentialType::Hash) && gateway.mpp.spoken
        };
        if sale.pay_by.iter().any(pushed)
            && let Some(network) = sale.price.networks().iter().find(|network| !relays(network))
        {
            return Err(format!(
                "route {pattern}: pay_by has buyers send transfers, and nobody looks for them on {network}: give \
                 [networks.\"{network}\"] rpc and relayer_key",
            ));
        }
        if matches!(config.settlement, Settlement::Remote(_)) {
            continue;
        }
        for network in sale.price.networks() {
            if !relays(&network) {
                return Err(format!(
                    "route {}: nobody settles on {network}: give [networks.\"{network}\"] rpc and relayer_key, or \
                     name a facilitator ([facilitator] remote)",
                    pattern
                ));
            }
        }
    }
    Ok(())
}

/// What can be found wrong without a socket or a chain, beyond what the file itself shows.
fn check(config: &GatewayConfig) -> Result<(), GatewayError> {
    super::terms::terms(config)?;
    if let Some(mcp) = &config.mcp {
        super::terms::tool_terms(config, mcp)?;
    }
    super::proxy::Table::new(config)?;
    super::discovery::Discovery::new(config, true)?;
    if let Some(tls) = &config.tls {
        super::tls::Certificate::load(tls)?;
    }
    Ok(())
}

async fn serve(file: PathBuf, config: Config, gateway_config: GatewayConfig) -> Result<ExitCode, Failure> {
    let failed = |error: GatewayError| Failure::failed(error.to_string());
    farthing_listener::raise_file_limit();
    let key = offer_key(gateway_config.offer_key.as_ref(), &config.store).map_err(failed)?;
    let rig = crate::wiring::from_config(&config, gateway_config.public_url.as_ref())
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let engine = rig.engine.clone();
    let (till, collectors) = crate::wiring::till(&config, &rig, &gateway_config)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let gateway =
        Gateway::build(&gateway_config, std::sync::Arc::new(engine.clone()), rig.world.clone(), key)
            .map_err(failed)?
            .with_till(till, collectors);
    // Offers that ended before a restart stay ended, also where the clock was set back meanwhile.
    let mark = engine.store().mark().await;
    gateway.not_before(mark.map_err(|error| Failure::failed(format!("the store cannot be read: {error}")))?);
    let listener = bind(gateway_config.listen).await.map_err(failed)?;
    let address = listener.local_addr().unwrap_or(gateway_config.listen);
    let admin = match gateway_config.admin_listen {
        Some(address) => {
            let listener = bind(address).await.map_err(failed)?;
            Some(tokio::spawn(admin::serve(listener, gateway.clone(), engine.clone())))
        }
        None => None,
    };
    let watching = tokio::spawn(reload::watch(gateway.clone(), file, hangups()));
    let scheme = if gateway_config.tls.is_some() { "https" } else { "http" };
    let routes = gateway_config.routes.len().to_string();
    let url = format!("{scheme}://{address}");
    let mcp = gateway.mcp().map(|mcp| format!("{url}{}", mcp.path()));
    if let Some(till) = gateway.mcp().cloned() {
        tokio::spawn(async move { till.warm_up().await });
    }
    let mut facts = vec![("routes", routes.as_str())];
    facts.extend(mcp.as_deref().map(|mcp| ("mcp", mcp)));
    print_ready("gateway", &url, &facts);
    let served = gateway.serve_on(listener, until_stopped()).await;
    watching.abort();
    settle_down(&engine, gateway_config.limits.shutdown_timeout).await;
    if let Some(admin) = admin {
        admin.abort();
    }
    served.map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// A message for each SIGHUP.
fn hangups() -> mpsc::Receiver<()> {
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let Ok(mut signals) = signal(SignalKind::hangup()) else { return };
        while signals.recv().await.is_some() {
            // One that waits already says it all.
            let _ = send.try_send(());
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A facilitator settles what is signed; a transfer that the buyer makes itself is looked for by our own node.
    #[test]
    fn transfers_of_the_buyer_need_a_chain_of_ours() {
        let said = |more: &str| {
            let text = format!(
                "[gateway]\nupstream = \"http://127.0.0.1:8080\"\nnetwork = \"base-sepolia\"\n\
                 pay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\n[[route]]\nmatch = \"GET /a\"\n\
                 price = \"$0.002\"\n{more}"
            );
            let config = Config::parse("farthing.toml", &text, std::iter::empty()).unwrap();
            let gateway = config.gateway.as_ref().unwrap();
            settleable(&config, gateway)
        };
        let remote = "[facilitator]\nremote = [\"https://facilitator.example\"]\n";
        let own = "[networks.base-sepolia]\nrpc = [\"https://a.example\"]\nrelayer_key = \"env:KEY\"\n";
        assert_eq!(said(remote), Ok(()));
        for kind in ["transaction", "hash"] {
            let pay_by = format!("pay_by = [\"{kind}\"]\n");
            let error = said(&format!("{pay_by}{remote}")).unwrap_err();
            assert!(error.contains("nobody looks for them on eip155:84532"), "{error}");
            assert_eq!(said(&format!("{pay_by}{own}")), Ok(()));
        }
    }
}
