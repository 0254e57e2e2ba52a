//! Runs an embedded chain: `cargo run -p farthing-devnet --example serve -- [PORT] [BLOCK_SECONDS]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use farthing_devnet::{BlockTime, Devnet, DevnetConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().map_or(Ok(8545), |port| port.parse())?;
    let block_time = match args.next() {
        Some(seconds) => BlockTime::Interval(Duration::from_secs(seconds.parse()?)),
        None => BlockTime::Instant,
    };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let devnet = Devnet::start(DevnetConfig { listen, block_time, ..DevnetConfig::default() }).await?;
    println!("{} (development only)", devnet.rpc_url());
    tokio::signal::ctrl_c().await?;
    devnet.shutdown().await;
    Ok(())
}
