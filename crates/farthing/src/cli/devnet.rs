//! `farthing devnet`: the embedded chain as a process of its own.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use farthing_devnet::{BlockTime, DEV_ACCOUNTS, Devnet, DevnetConfig};

use super::{Failure, print_ready, until_stopped};

/// Run the embedded development chain: chain id 84532, dev USDC, funded accounts. Nothing on it is worth anything.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing devnet                                   instant blocks on 127.0.0.1:8545
  farthing devnet --listen 127.0.0.1:0 --block-time 2
  cast balance --rpc-url http://127.0.0.1:8545 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")]
pub struct DevnetArgs {
    /// Where JSON-RPC listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8545", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Seconds between blocks; without it each transaction has a block at once
    #[arg(long, value_name = "SECONDS")]
    block_time: Option<u64>,
    /// Chain id; 84532 is Base Sepolia's
    #[arg(long, default_value_t = farthing_devnet::DEFAULT_CHAIN_ID)]
    chain_id: u64,
    /// Dev USDC of an account, in atoms, instead of what it would have: 0x…=1000000
    #[arg(long = "usdc", value_name = "ADDRESS=ATOMS")]
    usdc: Vec<String>,
    /// Let other machines reach it: they can spend everything and rewrite the chain
    #[arg(long)]
    allow_non_loopback: bool,
}

pub async fn run(args: DevnetArgs) -> Result<ExitCode, Failure> {
    let mut usdc = Vec::new();
    for entry in &args.usdc {
        let (address, atoms) =
            entry.split_once('=').ok_or_else(|| Failure::usage(format!("not ADDRESS=ATOMS: {entry}")))?;
        let address = address.parse().map_err(|_| Failure::usage(format!("not an address: {address}")))?;
        let atoms = farthing_primitives::parse_atoms(atoms)
            .map_err(|error| Failure::usage(format!("{atoms}: {error}")))?;
        usdc.push((address, atoms));
    }
    let config = DevnetConfig {
        chain_id: args.chain_id,
        listen: args.listen,
        block_time: args
            .block_time
            .map_or(BlockTime::Instant, |secs| BlockTime::Interval(Duration::from_secs(secs))),
        allow_non_loopback: args.allow_non_loopback,
        usdc,
        ..DevnetConfig::default()
    };
    let devnet = Devnet::start(config).await.map_err(|error| Failure::usage(error.to_string()))?;
    print_ready(
        "devnet",
        &devnet.rpc_url(),
        &[
            ("chain", &format!("eip155:{}", args.chain_id)),
            ("usdc", &farthing_devnet::USDC.to_string()),
            ("accounts", &DEV_ACCOUNTS.len().to_string()),
        ],
    );
    until_stopped().await;
    devnet.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
