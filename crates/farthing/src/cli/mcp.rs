//! `farthing mcp`: the wallet as tools for an agent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use farthing_mcp::{
    ApprovalPage, Finder, MAX_ANSWER_BYTES, MCP_PATH, More, Token, WalletServer, serve_http, serve_stdio,
};
use farthing_policy::Dollars;
use farthing_wallet::Home;
use farthing_wallet::client::Client;
use tokio::net::TcpListener;

use super::find::WalletFinder;
use super::mcp_proxy::{self, ProxyArgs, ReloadArgs, ScanArgs, StatusArgs, ValidateArgs};
use super::remote::{Buyer, RemoteArgs, Ways};
use super::wallet::home;
use super::{Failure, print_ready, until_stopped};

/// The file with what agents show over HTTP, in the wallet's home.
const TOKEN_FILE: &str = "mcp-token";

/// Give an agent a wallet: tools of the Model Context Protocol that ask prices and pay within limits
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing mcp serve                               over standard input and output, for an agent that starts it
  farthing mcp serve --http --max 0.05             over HTTP on this machine, at most 0.05 for each call
  farthing mcp token                               what agents show over HTTP
  farthing mcp scan -- node server.mjs             a first policy for another server's tools
  farthing mcp proxy -p policy.yaml -- node server.mjs    that server behind the policy, paid within it")]
pub struct McpArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Serve),
    Token(TokenArgs),
    Proxy(ProxyArgs),
    Scan(ScanArgs),
    Validate(ValidateArgs),
    Status(StatusArgs),
    Reload(ReloadArgs),
}

/// Serve the wallet's tools: find, quote, pay_and_fetch, balance, budget, history
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet new && farthing wallet allow api.weather.example
  farthing mcp serve --password-file passphrase
  farthing mcp serve --http 127.0.0.1:8403
  farthing mcp serve --approval-page http://localhost:8405

An agent's configuration, where it starts the server:
  {\"mcpServers\": {\"wallet\": {\"command\": \"farthing\", \"args\": [\"mcp\", \"serve\"],
    \"env\": {\"FARTHING_PASSPHRASE\": \"…\"}}}}

The owner's policy (farthing wallet limit, allow, freeze) holds for every call; --max is one more
bound. No tool can change it, and none returns a key or a signed payment. Over HTTP an agent sends
\"Authorization: Bearer TOKEN\" with the token from \"farthing mcp token\"; requests of web pages and
for other hosts are refused. docs/operating/mcp.md says more.

Exit codes: 0 the agent closed the connection, or stopped as asked; 1 failed; 2 called wrongly.")]
struct Serve {
    /// Serve streamable HTTP at this address instead of standard input and output
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8403")]
    http: Option<SocketAddr>,
    /// A host by which agents reach it, as they write it: tools.example:8403. Needed beyond this machine
    #[arg(long = "allow-host", value_name = "HOST", requires = "http")]
    hosts: Vec<String>,
    /// The most that one call may cost, in units of the token asked for: 0.02; $0.02 for dollars only
    #[arg(long, value_name = "AMOUNT")]
    max: Option<String>,
    /// The key that pays: a name, or env:NAME, file:PATH, keystore:NAME, kms:REGION/KEY_ID, pkcs11:…, dev:NUMBER
    #[arg(long, visible_alias = "key", value_name = "KEY", env = "FARTHING_PAY_WITH")]
    pay_with: Option<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where people approve ("farthing approval serve"), shown to the users of agents that are asked: http://localhost:8405
    #[arg(long, value_name = "URL")]
    approval_page: Option<ApprovalPage>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// A node to confirm payments by, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
}

/// Print what agents show over HTTP; it is made if there is none
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  farthing mcp token\n\nTo replace it, remove the file mcp-token in the wallet's home."
)]
struct TokenArgs {}

pub async fn run(args: McpArgs) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Serve(args) => serve(args).await,
        Command::Token(TokenArgs {}) => {
            println!("{}", token(&home()?)?.as_str());
            Ok(ExitCode::SUCCESS)
        }
        Command::Proxy(args) => mcp_proxy::proxy(args).await,
        Command::Scan(args) => mcp_proxy::scan(args).await,
        Command::Validate(args) => mcp_proxy::validate(&args),
        Command::Status(args) => mcp_proxy::status(&args),
        Command::Reload(args) => mcp_proxy::reload(&args),
    }
}

fn token(home: &Home) -> Result<Token, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", home.path().display()));
    home.make().map_err(failed)?;
    Token::load_or_make(&home.path().join(TOKEN_FILE)).map_err(|error| Failure::failed(error.to_string()))
}

async fn serve(args: Serve) -> Result<ExitCode, Failure> {
    if let Some(address) = args.http.filter(|address| !address.ip().is_loopback())
        && args.hosts.is_empty()
    {
        return Err(Failure::usage(format!(
            "{address} can be reached from other machines, who could spend with the token: name the host that they \
             use with --allow-host, and put TLS before it"
        )));
    }
    if let Some(max) = &args.max {
        Dollars::parse(max).map_err(|error| Failure::usage(format!("--max {max:?}: {error}")))?;
    }
    let server = wallet(&args).await?;
    let Some(address) = args.http else {
        return match serve_stdio(server, until_stopped()).await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(why) => Err(Failure::failed(format!("the agent could not be served: {why}"))),
        };
    };
    let home = home()?;
    let token = token(&home)?;
    let failed = |error: std::io::Error| Failure::failed(format!("{address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let file = home.path().join(TOKEN_FILE).display().to_string();
    print_ready("mcp", &format!("http://{address}{MCP_PATH}"), &[("token_file", &file)]);
    let served = serve_http(server, listener, token, args.hosts, until_stopped()).await;
    served.map_err(|error| Failure::failed(error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// The wallet's tools over its default key, the one that is named, or a guard.
async fn wallet(args: &Serve) -> Result<WalletServer, Failure> {
    let ways = Ways {
        remote: &args.remote,
        pay_with: args.pay_with.as_ref(),
        password_file: args.password_file.as_ref(),
        rpc: &args.rpc,
    };
    let Buyer { authorizer, books, views, local } = ways.buyer().await?;
    let mut builder = Client::builder().authorizer(authorizer).max_body(MAX_ANSWER_BYTES);
    for view in &views {
        builder = builder.chain(view.clone());
    }
    let client = builder.build().map_err(|error| Failure::failed(error.to_string()))?;
    // Whom the owner has indexed is in the wallet's home.
    let finder = match local {
        Some(local) => Some(Arc::new(WalletFinder::new(home()?, local.journal().clone())) as Arc<dyn Finder>),
        None => None,
    };
    let more = More { finder, approval_page: args.approval_page.clone() };
    Ok(WalletServer::with_more(client, books, views, args.max.clone(), more))
}
