//! `farthing proxy`: programs that know nothing of payments, with a wallet on their way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use farthing_mcp::Token;
use farthing_policy::{Dollars, HostPattern};
use farthing_proxy::{Authority, Files, MAX_ANSWER_BYTES, Proxy, Settings, Wallet};
use farthing_wallet::client::{Client, Transport};
use farthing_wallet::{Authorizer, Books, Home, named_hosts, system_clock};
use tokio::net::TcpListener;

use super::remote::{Buyer, RemoteArgs, Ways};
use super::wallet::home;
use super::{Failure, print_ready, until_stopped};

/// The file with what programs show, in the wallet's home.
const TOKEN_FILE: &str = "proxy-token";
/// Where the proxy listens, unless it is told otherwise.
const LISTEN: &str = "127.0.0.1:8404";
/// The name under which programs show the token. One wallet needs none; a URL wants one.
const NAME: &str = "agent";

/// Pay for programs that know nothing of payments: an HTTP proxy that pays on the way, within limits
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  farthing wallet new && farthing wallet allow api.weather.example
  farthing proxy --max 0.02
  eval \"$(farthing proxy env)\" && python3 forecast.py

An agent's own token instead of the proxy's: its purchases are its own, within its budgets.

A program asks as always. What is free passes as it is; what has a price that the wallet's owner allows
is paid once, and the program gets what it asked for. What is not allowed, it sees as the seller's own
402, with the header Farthing-Denied that says why. Nothing tells what became of a payment: 503, and the
same request again pays nothing. With an Idempotency-Key a request is paid for once, however often it is
made. docs/buying/proxy.md says more.

TLS is ended here for hosts that \"farthing wallet allow\" names, by certificates of this wallet's own
authority, which is good for these hosts only. All others pass as opaque tunnels, unread and unpaid.

Exit codes: 0 stopped as asked; 1 failed; 2 called wrongly."
)]
pub struct ProxyArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    Env(Env),
}

#[derive(Debug, Args)]
struct Serve {
    /// Where programs connect to. Beyond this machine the token and what is asked go in the clear
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
    /// The most that one request may cost, in units of the token asked for: 0.02; $0.02 for dollars only
    #[arg(long, value_name = "AMOUNT")]
    max: Option<String>,
    /// Refuse hosts that the wallet does not allow, instead of passing on what goes to them
    #[arg(long)]
    only_allowed: bool,
    /// Another port that tunnels may lead to, beside 443
    #[arg(long = "tunnel-port", value_name = "PORT")]
    tunnel_ports: Vec<u16>,
    /// Let programs of this machine in that show no token: any user of it can spend then
    #[arg(long)]
    anonymous: bool,
    /// Write the authority's certificate here too
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// The key that pays: a name, or env:NAME, file:PATH, keystore:NAME, kms:REGION/KEY_ID, pkcs11:…, dev:NUMBER
    #[arg(long, visible_alias = "key", value_name = "KEY", env = "FARTHING_PAY_WITH")]
    pay_with: Option<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// A node to confirm payments by, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
}

/// Print what a program's environment needs, for a shell to evaluate
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  eval \"$(farthing proxy env)\"
  farthing proxy env --json

It holds the token: whoever reads it can spend what the wallet allows. Start the proxy itself in an
environment without it.")]
struct Env {
    /// Where the proxy is reached
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: String,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub async fn run(args: ProxyArgs) -> Result<ExitCode, Failure> {
    match args.command {
        Some(Command::Env(args)) => print_environment(&args).await,
        None => serve(args.serve).await,
    }
}

async fn serve(args: Serve) -> Result<ExitCode, Failure> {
    if args.anonymous && !args.listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "{} can be reached from other machines, and --anonymous is for programs of this one",
            args.listen
        )));
    }
    if let Some(max) = &args.max {
        Dollars::parse(max).map_err(|error| Failure::usage(format!("--max {max:?}: {error}")))?;
    }
    let home = home()?;
    let ways = Ways {
        remote: &args.remote,
        pay_with: args.pay_with.as_ref(),
        password_file: args.password_file.as_ref(),
        rpc: &args.rpc,
    };
    let buyer = ways.buyer().await?;
    let (token, authority) = (token(&home)?, authority(&home, &hosts(&*buyer.books).await?)?);
    let files = authority.files().clone();
    if let Some(path) = &args.ca_out {
        let copied = std::fs::copy(&files.certificate, path);
        copied.map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    let mut desk = desk(buyer, token.as_str()).await?;
    if args.anonymous {
        desk = desk.with_anonymous();
    }
    let settings =
        Settings { max: args.max, only_allowed: args.only_allowed, tunnel_ports: args.tunnel_ports };
    let proxy = Proxy::new(Arc::new(desk), authority, settings).map_err(Failure::failed)?;
    farthing_listener::raise_file_limit();
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", args.listen));
    let listener = TcpListener::bind(args.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let shown = |path: &Path| path.display().to_string();
    print_ready(
        "proxy",
        &format!("http://{address}"),
        &[
            ("ca", &shown(&files.certificate)),
            ("ca_bundle", &shown(&files.bundle)),
            ("token_file", &shown(&home.path().join(TOKEN_FILE))),
            ("environment", &format!("farthing proxy env --listen {address}")),
        ],
    );
    proxy.serve(listener, until_stopped()).await;
    Ok(ExitCode::SUCCESS)
}

fn token(home: &Home) -> Result<Token, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", home.path().display()));
    home.make().map_err(failed)?;
    Token::load_or_make(&home.path().join(TOKEN_FILE)).map_err(|error| Failure::failed(error.to_string()))
}

/// The wallet's authority, good for the hosts that its owner names now.
fn authority(home: &Home, hosts: &[HostPattern]) -> Result<Authority, Failure> {
    let authority = Authority::open(Files::within(home.path()), hosts, system_clock().wall);
    authority.map_err(|error| Failure::failed(error.to_string()))
}

async fn hosts(books: &dyn Books) -> Result<Vec<HostPattern>, Failure> {
    books.hosts().await.map_err(|denied| Failure::failed(denied.to_string()))
}

async fn desk(buyer: Buyer, token: &str) -> Result<Wallet, Failure> {
    let Buyer { authorizer, books, views, local } = buyer;
    // What processes that are gone left unsigned holds no budget.
    let recovered = authorizer.recover().await;
    recovered.map_err(|error| Failure::failed(error.to_string()))?;
    // One for all, so that their connections are shared.
    let transport = Arc::new(Transport::new(MAX_ANSWER_BYTES).map_err(Failure::failed)?);
    let make = move |authorizer: Arc<dyn Authorizer>| {
        let builder =
            Client::builder().authorizer(authorizer).exchange(transport.clone()).max_body(MAX_ANSWER_BYTES);
        views.iter().fold(builder, |builder, view| builder.chain(view.clone())).build()
    };
    let desk = match local {
        Some(local) => Wallet::new(local, Box::new(make), token),
        None => make(authorizer).map(|client| Wallet::elsewhere(client, books, token)),
    };
    desk.map_err(|error| Failure::failed(error.to_string()))
}

async fn print_environment(args: &Env) -> Result<ExitCode, Failure> {
    let home = home()?;
    let token = token(&home)?;
    let hosts = match args.remote.connect().await? {
        Some(remote) => hosts(&remote).await?,
        None => named_hosts(&home.journal()?.law()?),
    };
    let files = authority(&home, &hosts)?.files().clone();
    let environment = environment(&args.listen, token.as_str(), &files)?;
    if args.json {
        println!("{}", serde_json::json!(environment));
    } else {
        for (name, value) in environment {
            println!("export {name}={}", quoted(&value));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What programs read, in the spellings that they read it in.
fn environment(address: &str, token: &str, files: &Files) -> Result<BTreeMap<&'static str, String>, Failure> {
    let proxy = format!("http://{NAME}:{token}@{address}");
    let url: url::Url =
        proxy.parse().map_err(|error| Failure::usage(format!("--listen {address:?}: {error}")))?;
    if url.host_str().is_none() || url.port().is_none() || url.path() != "/" {
        return Err(Failure::usage(format!("--listen {address:?}: no host and port")));
    }
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| Failure::failed(format!("{} is no text", path.display())))
    };
    let mut environment = BTreeMap::new();
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
        environment.insert(name, proxy.clone());
    }
    // One file that replaces what the program believes.
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        environment.insert(name, text(&files.bundle)?);
    }
    // One more beside it.
    for name in ["NODE_EXTRA_CA_CERTS", "DENO_CERT"] {
        environment.insert(name, text(&files.certificate)?);
    }
    // Else node reads no proxy from its environment.
    environment.insert("NODE_USE_ENV_PROXY", "1".to_owned());
    Ok(environment)
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_what_a_shell_takes_as_it_is() {
        let files = Files::within(Path::new("/home/o'hara"));
        let environment = environment("127.0.0.1:8404", "ab", &files).unwrap();
        assert_eq!(environment["https_proxy"], "http://agent:ab@127.0.0.1:8404");
        let bundle = quoted(&environment["SSL_CERT_FILE"]);
        assert_eq!(bundle, "'/home/o'\\''hara/proxy-ca-bundle.pem'");
        for wrong in ["", "127.0.0.1", "a:b", "a:1/x"] {
            let refused = super::environment(wrong, "ab", &files);
            assert!(refused.is_err(), "{wrong:?}: {refused:?}");
        }
    }
}
