//! The binary: configuration, commands and wiring. No rules live here.

#[cfg(any(
    mutant = "claim",
    mutant = "broadcast",
    mutant = "unknown",
    mutant = "reorg",
    mutant = "budget",
    mutant = "voucher",
    mutant = "answer",
    mutant = "mark"
))]
compile_error!(
    "a guard is broken on purpose: this is for the simulator only, never for a program that is run"
);

mod cli;
mod config;
mod demo;
mod facilitator;
mod gateway;
mod remote;
mod wiring;
mod world;

use std::process::ExitCode;

/// What is logged unless `FARTHING_LOG` says otherwise. The libraries of HTTP/2 and MCP warn of what strangers do, as often
/// as they do it.
const LOGGED: &str = "warn,h2=error,rmcp=error";

fn main() -> ExitCode {
    // Both fail only if something was installed before, which nothing does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = tracing_subscriber::EnvFilter::try_from_env("FARTHING_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOGGED));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = logs.try_init();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli::main());
            // Whatever is still running has had its time; what is durable goes on at the next start.
            runtime.shutdown_timeout(std::time::Duration::from_millis(100));
            code
        }
        Err(error) => {
            eprintln!("farthing: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
