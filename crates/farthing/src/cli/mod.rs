//! The commands. Each module is one command; none holds a rule.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod agent;
mod ap2;
mod approval;
mod approver;
mod audit;
mod channel;
mod devnet;
pub mod fetch;
mod find;
mod guard;
mod keyring;
mod ledger;
mod load;
mod local_page;
mod mcp;
mod mcp_proxy;
mod payer;
mod policy;
mod proxy;
mod refund;
mod remote;
mod session_key;
mod vault;
pub mod wallet;
mod wallet_serve;

/// Machines that pay machines: sell any API by the request, buy with a budget, settle on EVM chains.
#[derive(Debug, Parser)]
#[command(
    name = "farthing",
    version,
    propagate_version = true,
    after_help = "Start here:
  farthing demo                          see machines pay machines, on an embedded chain
  farthing dev                           keep that world running and play with it
  farthing gateway -c farthing.toml      put a price before an API you have
  farthing wallet new && farthing fetch https://api.example.com/paid --max 0.01

Exit codes are listed in the help of each command. Documentation: docs/ in the source."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(crate::demo::DemoArgs),
    Dev(crate::demo::DevArgs),
    Fetch(fetch::FetchArgs),
    Find(find::FindArgs),
    Wallet(wallet::WalletArgs),
    Policy(policy::PolicyArgs),
    Approval(approval::ApprovalArgs),
    Approver(approver::ApproverArgs),
    Guard(guard::GuardArgs),
    Agent(agent::AgentArgs),
    Freeze(agent::FreezeArgs),
    Unfreeze(agent::UnfreezeArgs),
    Channel(channel::ChannelArgs),
    Audit(audit::AuditArgs),
    Vault(vault::VaultArgs),
    Ap2(ap2::Ap2Args),
    Mcp(mcp::McpArgs),
    Proxy(proxy::ProxyArgs),
    Gateway(crate::gateway::GatewayArgs),
    Facilitator(crate::facilitator::FacilitatorArgs),
    Refund(refund::RefundArgs),
    Ledger(ledger::LedgerArgs),
    Load(load::LoadArgs),
    Devnet(devnet::DevnetArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  farthing completions bash > ~/.local/share/bash-completion/completions/farthing"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Why a command ends without having done its work: what to say, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub code: u8,
}

impl Failure {
    /// The command was called, or configured, wrongly. Exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// The work could not be done. Exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }
}

/// Runs the command that the process was called with.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Demo(args) => crate::demo::run(args).await,
        Command::Dev(args) => crate::demo::run_dev(args).await,
        Command::Fetch(args) => Ok(fetch::run(args).await),
        Command::Find(args) => Ok(find::run(args).await),
        Command::Wallet(args) => Ok(wallet::run(args).await),
        Command::Policy(args) => policy::run(args),
        Command::Approval(args) => approval::run(args).await,
        Command::Approver(args) => approver::run(args).await,
        Command::Guard(args) => guard::run(args).await,
        Command::Agent(args) => agent::run(args).await,
        Command::Freeze(args) => agent::freeze(args).await,
        Command::Unfreeze(args) => agent::unfreeze(args),
        Command::Channel(args) => Ok(channel::run(args).await),
        Command::Audit(args) => audit::run(args),
        Command::Vault(args) => Ok(vault::run(args).await),
        Command::Ap2(args) => ap2::run(args),
        Command::Mcp(args) => mcp::run(args).await,
        Command::Proxy(args) => proxy::run(args).await,
        Command::Gateway(args) => crate::gateway::run_command(args).await,
        Command::Facilitator(args) => crate::facilitator::run(args).await,
        Command::Refund(args) => refund::run(args).await,
        Command::Ledger(args) => ledger::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Devnet(args) => devnet::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "farthing", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|failure| {
        eprintln!("farthing: {}", failure.message);
        ExitCode::from(failure.code)
    })
}

/// Says that a service listens: a sentence for a person, one JSON line for a program.
pub fn print_ready(service: &str, url: &str, facts: &[(&str, &str)]) {
    let mut out = std::io::stdout();
    // A closed standard output is no reason for a service to stop.
    let _ = if out.is_terminal() {
        writeln!(out, "{service} listens on {url}")
            .and_then(|()| facts.iter().try_for_each(|(name, value)| writeln!(out, "  {name:<12} {value}")))
    } else {
        let mut line = serde_json::json!({ "service": service, "url": url });
        for (name, value) in facts {
            line[*name] = serde_json::Value::from(*value);
        }
        writeln!(out, "{line}")
    };
    let _ = out.flush();
}

/// Returns when the process is asked to stop (SIGINT or SIGTERM).
pub async fn until_stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = async {
        // Without a handler the default action ends the process, which is what was asked for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending::<()>().await,
        }
    };
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}

/// Whether nobody on the way reads or writes what is sent there.
fn is_kept_private(url: &url::Url) -> bool {
    let is_local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || url.scheme() == "http" && is_local
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_help_of_every_command_has_an_example() {
        let mut without = Vec::new();
        let mut open = vec![("farthing".to_owned(), super::Cli::command())];
        let mut seen = 0;
        while let Some((name, command)) = open.pop() {
            seen += 1;
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !after.contains("farthing ") {
                without.push(name.clone());
            }
            for sub in command.get_subcommands() {
                open.push((format!("{name} {}", sub.get_name()), sub.clone()));
            }
        }
        assert!(without.is_empty(), "no example in the help of: {}", without.join(", "));
        assert!(seen > 20, "only {seen} commands");
    }
}
