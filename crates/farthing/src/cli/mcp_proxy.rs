//! `farthing mcp proxy`, `scan`, `validate`, `status`, `reload`: an owner's policy before an MCP server's tools.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use farthing_mcp::proxy::{
    Guard, Loaded, NobodyToAsk, Payer, Proxy, Reload, Settings, State, scan as scan_server, serve_stdio,
};
use farthing_mcp::sell::Source;
use farthing_mcp::{ApprovalPage, Witness};
use farthing_policy::Origin;
use farthing_primitives::Timestamp;
use farthing_toolguard::{
    Condition, Key, MAX_POLICY_BYTES, Path as At, Policy, Read, Spend, Tally, Test, keys_of, read, scaffold,
};
use farthing_wallet::{KeptMentions, Mentions, system_clock};
use serde_json::{Value, json};
use url::Url;

use super::remote::{Buyer, RemoteArgs, Ways};
use super::wallet::home;
use super::{Failure, until_stopped};

/// What is added to the name of a policy for the file of its counters.
const STATE_SUFFIX: &str = ".state.db";

/// Put a policy before an MCP server: limits on its tools, and payments within a budget
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing mcp scan -- npx -y @example/weather > weather.yaml
  farthing mcp proxy -p weather.yaml -- npx -y @example/weather
  farthing mcp proxy -p weather.yaml --pay --url https://tools.example/mcp

In an agent's configuration, before the server's own command:
  {\"mcpServers\": {\"weather\": {\"command\": \"farthing\",
    \"args\": [\"mcp\", \"proxy\", \"-p\", \"weather.yaml\", \"--\", \"npx\", \"-y\", \"@example/weather\"]}}}

A call that the policy does not let through is answered by the guard and never reaches the server. A
server that asks to be paid is paid with --pay, for tools whose rules have a spend, within that and
within the wallet's own rules: allow a program by its name, \"farthing wallet allow weather.mcp.invalid\",
and a server at a URL by its host. The policy's file may change meanwhile: a stricter one is taken at
once, a looser one after \"farthing mcp reload --accept\", a broken one never. Counters are in the file
POLICY.state.db beside it. docs/buying/mcp-proxy.md and docs/reference/mcp-policy.md say more.

Exit codes: 0 the agent closed the connection, or stopped as asked; 1 failed; 2 called wrongly.")]
pub struct ProxyArgs {
    #[command(flatten)]
    policy: PolicyArg,
    #[command(flatten)]
    server: ServerArgs,
    /// What the wallet's rules call the server; the policy's file name unless said otherwise
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Whether a policy that lets more through is taken when its file changes
    #[arg(long, value_enum, default_value_t = Loosen::Ask, value_name = "WHEN")]
    reload: Loosen,
    /// Accept what the server's tools say of themselves now, also where it is not what was seen first
    #[arg(long)]
    accept_changes: bool,
    /// Pay for calls from the wallet, and tell it which hosts and payees the server names
    #[arg(long)]
    pay: bool,
    /// Tell the wallet which hosts and payees the server names, also without --pay: its policy may want people to agree to
    /// payments there (taint: ask)
    #[arg(long)]
    taint: bool,
    /// The key that pays: a name, or env:NAME, file:PATH, keystore:NAME, kms:REGION/KEY_ID, pkcs11:…, dev:NUMBER
    #[arg(long, visible_alias = "key", value_name = "KEY", env = "FARTHING_PAY_WITH", requires = "pay")]
    pay_with: Option<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE", requires = "pay")]
    password_file: Option<PathBuf>,
    /// Where a rule of the wallet's wants people to approve a payment, ask them, and show this page ("farthing approval
    /// serve") to users of agents that can: http://localhost:8405
    #[arg(long, value_name = "URL", requires = "pay")]
    approval_page: Option<ApprovalPage>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// A node to confirm payments by, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Loosen {
    /// A stricter one at once, a looser one when it was accepted.
    Ask,
    /// Any that can be read.
    Loosen,
}

#[derive(Debug, Args)]
struct PolicyArg {
    /// The policy
    #[arg(short, long, value_name = "FILE", default_value = "policy.yaml")]
    policy: PathBuf,
    /// Where the counters are, instead of beside the policy
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

impl PolicyArg {
    fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| {
            let mut name = self.policy.clone().into_os_string();
            name.push(STATE_SUFFIX);
            name.into()
        })
    }

    fn open(&self) -> Result<State, Failure> {
        let path = self.state();
        State::open(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    }

    fn load(&self) -> Result<Loaded, Failure> {
        Loaded::read(&self.policy).map_err(|error| Failure::usage(error.to_string()))
    }
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// A server that is reached over streamable HTTP, instead of a command
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    url: Option<Url>,
    /// A header for each request to it, as NAME=env:VARIABLE
    #[arg(long = "header", value_name = "NAME=env:VARIABLE", requires = "url")]
    headers: Vec<String>,
    /// The program that is the server, and its arguments
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "url")]
    command: Vec<String>,
}

impl ServerArgs {
    fn source(&self) -> Result<Source, Failure> {
        let Some(url) = &self.url else {
            let (program, arguments) = self
                .command
                .split_first()
                .ok_or_else(|| Failure::usage("no server: a command after --, or --url"))?;
            return Ok(Source::Command { program: program.clone(), arguments: arguments.to_vec() });
        };
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err(Failure::usage("--url must begin with http:// or https://, without a user name"));
        }
        let headers = self.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Source::Http { url: url.to_string(), headers })
    }
}

/// `NAME=env:VARIABLE`: a secret on a command line is everybody's.
fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), Failure> {
    let wrong = || Failure::usage(format!("--header {text:?}: expected NAME=env:VARIABLE"));
    let (name, value) = text.split_once("=env:").ok_or_else(wrong)?;
    let value =
        std::env::var(value).map_err(|_| Failure::usage(format!("the variable {value} is not set")))?;
    let mut value: http::HeaderValue = value.parse().map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((name.parse().map_err(|_| wrong())?, value))
}

pub async fn proxy(args: ProxyArgs) -> Result<ExitCode, Failure> {
    let loaded = args.policy.load()?;
    warn(&args.policy.policy);
    let source = args.server.source()?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => stem(&args.policy.policy),
    };
    let host: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let server = match &args.server.url {
        Some(url) => url.clone(),
        // Spec: RFC 6761 section 6.4: no name below `invalid` is anybody's, so no host on the net gets what a program may.
        None => format!("https://{host}.mcp.invalid/")
            .parse()
            .map_err(|_| Failure::usage(format!("--name {name:?} cannot be a part of a host's name")))?,
    };
    let author = author(&server);
    let (payer, told) = if args.pay {
        let (payer, wallet) = payer(&args, server).await?;
        (Some(payer), Some(wallet))
    } else {
        (None, if args.taint { Some(mentions(&args).await?) } else { None })
    };
    let witness = told.map(|wallet| Witness::new(wallet, &author));
    let state = Arc::new(args.policy.open()?);
    let guard = Guard::new(args.policy.policy.clone(), loaded, state, args.reload == Loosen::Loosen);
    let settings = Settings {
        name,
        source,
        accept_changes: args.accept_changes,
        payer,
        approvals: Arc::new(NobodyToAsk),
        approval_page: args.approval_page.clone(),
        witness,
    };
    let proxy = Proxy::new(settings, guard);
    proxy.warm_up().await.map_err(|error| Failure::failed(format!("the server: {error}")))?;
    let file = args.policy.policy.display().to_string();
    let watched = proxy.clone();
    let watching = async move {
        watched.watch_policy(|reload| say(&file, reload)).await;
    };
    let served = tokio::select! {
        served = serve_stdio(proxy, until_stopped()) => served,
        () = watching => Ok(()),
    };
    served.map_err(|why| Failure::failed(format!("the agent could not be served: {why}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Whom the wallet's rules know the server by.
fn author(server: &Url) -> String {
    Origin::of(server).map_or_else(|_| "the server".to_owned(), |origin| origin.authority())
}

/// The wallet that is only told what the server names: it takes no key.
async fn mentions(args: &ProxyArgs) -> Result<Arc<dyn Mentions>, Failure> {
    if let Some(remote) = args.remote.connect().await? {
        return Ok(Arc::new(remote));
    }
    let journal = home()?.journal()?;
    Ok(Arc::new(KeptMentions(Arc::new(journal))))
}

async fn payer(args: &ProxyArgs, server: Url) -> Result<(Payer, Arc<dyn Mentions>), Failure> {
    let ways = Ways {
        remote: &args.remote,
        pay_with: args.pay_with.as_ref(),
        password_file: args.password_file.as_ref(),
        rpc: &args.rpc,
    };
    let Buyer { authorizer, views, .. } = ways.buyer().await?;
    let payer = Payer::new(authorizer.clone(), views, server);
    let payer = if args.approval_page.is_some() { payer.asking_people() } else { payer };
    let wallet: Arc<dyn Mentions> = authorizer;
    Ok((payer, wallet))
}

/// What the owner is told of a changed file. Standard output is the agent's.
fn say(file: &str, reload: &Reload) {
    match reload {
        Reload::Unchanged => {}
        Reload::Taken => eprintln!("farthing: {file} is in force"),
        Reload::Invalid(why) => eprintln!("farthing: the earlier policy stays in force:\n{why}"),
        Reload::Looser(what) => eprintln!(
            "farthing: {file} would let more through, so the earlier policy stays in force: {}. To accept it: farthing mcp \
             reload --accept -p {file}",
            what.join("; ")
        ),
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "server".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// Print a first policy for a server: what only reads permitted, what destroys denied until you decide
#[derive(Debug, Args)]
#[command(after_help = "Example:
  farthing mcp scan -- npx -y @example/weather > weather.yaml

The groups are what the server says of its tools, which are hints: look at them. What the tools say of
themselves is pinned by hash, so that a server cannot change it later without your knowing.")]
pub struct ScanArgs {
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn scan(args: ScanArgs) -> Result<ExitCode, Failure> {
    let source = args.server.source()?;
    let name = match (&args.server.url, args.server.command.first()) {
        (Some(url), _) => url.host_str().unwrap_or_default().to_owned(),
        (None, Some(program)) => stem(Path::new(program)),
        (None, None) => String::new(),
    };
    let tools = scan_server(source).await.map_err(|error| Failure::failed(format!("the server: {error}")))?;
    print!("{}", scaffold(&name, &tools));
    Ok(ExitCode::SUCCESS)
}

/// Say what is wrong with a policy, by line and column, and where Intercept would let more through
#[derive(Debug, Args)]
#[command(after_help = "Example:
  farthing mcp validate weather.yaml

Exit codes: 0 the policy is good; 1 it is not; 2 it cannot be read.")]
pub struct ValidateArgs {
    /// The policy
    #[arg(value_name = "FILE")]
    policy: PathBuf,
}

pub fn validate(args: &ValidateArgs) -> Result<ExitCode, Failure> {
    let file = args.policy.display();
    let Read { policy, problems, warnings } = read_file(&args.policy)?;
    for one in &problems {
        println!("{file}:{}:{}: error: {}", one.line, one.column, one.text);
    }
    for one in &warnings {
        println!("{file}:{}:{}: warning: {}", one.line, one.column, one.text);
    }
    Ok(match policy {
        Some(policy) => {
            println!("{file} is good: {} tools named, {} warnings", policy.tools.len(), warnings.len());
            ExitCode::SUCCESS
        }
        None => ExitCode::from(1),
    })
}

fn read_file(path: &Path) -> Result<Read, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_POLICY_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(read(&text))
}

fn warn(path: &Path) {
    for one in read_file(path).map(|read| read.warnings).unwrap_or_default() {
        eprintln!("farthing: {}:{one}", path.display());
    }
}

/// Accept a policy whose file lets more through than the one in force
#[derive(Debug, Args)]
#[command(after_help = "Example:
  farthing mcp reload --accept -p weather.yaml

Proxies that run with this policy take it within a second, as it is now: one that changes again is
asked about again.")]
pub struct ReloadArgs {
    #[command(flatten)]
    policy: PolicyArg,
    /// Yes, it may let more through
    #[arg(long)]
    accept: bool,
}

pub fn reload(args: &ReloadArgs) -> Result<ExitCode, Failure> {
    if !args.accept {
        return Err(Failure::usage("a looser policy is accepted with --accept"));
    }
    let loaded = args.policy.load()?;
    let failed = |error: farthing_mcp::proxy::StateError| Failure::failed(error.to_string());
    args.policy.open()?.accept(&loaded.hash).map_err(failed)?;
    println!("accepted sha256:{}", hex::encode(loaded.hash));
    Ok(ExitCode::SUCCESS)
}

/// Say what a policy's counters hold, what is left, and when they forget
#[derive(Debug, Args)]
#[command(after_help = "Example:
  farthing mcp status -p weather.yaml
  farthing mcp status -p weather.yaml | jq .counters

A sentence for each counter on a terminal, JSON otherwise.")]
pub struct StatusArgs {
    #[command(flatten)]
    policy: PolicyArg,
}

pub fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let loaded = args.policy.load()?;
    let policy = &loaded.policy;
    let scopes: BTreeSet<&str> = policy.tools.keys().map(String::as_str).chain(["*"]).collect();
    let mut keys: BTreeSet<Key> = scopes.iter().flat_map(|tool| keys_of(policy, tool)).collect();
    keys.extend(scopes.iter().flat_map(|tool| policy.spend_keys(tool)));
    let failed = |error: farthing_mcp::proxy::StateError| Failure::failed(error.to_string());
    let state = args.policy.open()?;
    let tallies = state.tallies(&keys).map_err(failed)?;
    let unseen = state.unseen().map_err(failed)?;
    let now = system_clock().wall;
    let rows: Vec<Value> = tallies.iter().map(|(key, tally)| row(policy, key, tally, now)).collect();
    if !std::io::stdout().is_terminal() {
        let shown = json!({
            "policy": args.policy.policy.display().to_string(),
            "sha256": hex::encode(loaded.hash),
            "enforced_by": "farthing mcp proxy",
            "counters": rows,
            "unseen_characters": unseen,
        });
        println!("{shown}");
        return Ok(ExitCode::SUCCESS);
    }
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap_or("–").to_owned();
        println!(
            "{}.{} ({}): {} used, {} left of {}, empty again {}",
            text("scope"),
            text("counter"),
            text("window"),
            text("used"),
            text("left"),
            text("limit"),
            text("ends")
        );
    }
    if rows.is_empty() {
        println!("the policy has no counters");
    }
    if unseen > 0 {
        println!("{unseen} characters that nobody sees were written out in what the server said");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(policy: &Policy, key: &Key, tally: &Tally, now: Timestamp) -> Value {
    let used = tally.value(key.window, now);
    let limit = limit(policy, key);
    let is_spend = policy.spend_keys(&key.scope).contains(key) || policy.spend_keys("*").contains(key);
    let shown = |amount: u128| {
        if is_spend { farthing_policy::Dollars(amount).plain() } else { amount.to_string() }
    };
    json!({
        "scope": key.scope,
        "counter": key.counter,
        "window": key.window.to_string(),
        "unit": if is_spend { "dollars" } else { "counts" },
        "used": shown(used),
        "limit": limit.map(shown),
        "left": limit.map(|limit| shown(limit.saturating_sub(used))),
        "ends": tally.ends(key.window, now).map(|at| at.to_string()),
    })
}

/// The strictest upper bound that the policy has for a counter.
fn limit(policy: &Policy, key: &Key) -> Option<u128> {
    let rules = || policy.tools.values().flatten().chain(&policy.all);
    let spends = rules().filter_map(|rule| rule.spend()).filter(|spend: &&Spend| spend.key == *key);
    let dollars = spends.filter_map(|spend| spend.daily);
    let bound = |condition: &Condition| match (&condition.path, &condition.test) {
        (At::State(of), Test::Lte(limit)) if of == key => limit.units(0),
        (At::State(of), Test::Lt(limit)) if of == key => limit.units(0)?.checked_sub(1),
        _ => None,
    };
    let counts = rules().flat_map(|rule| rule.conditions()).filter_map(bound);
    dollars.chain(counts).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_by_the_strictest_bound() {
        let text = "version: \"1\"\ndefault: deny\ntools: { t: { rules: [{ name: a, rate_limit: 5/hour }, { name: b, \
                    conditions: [{ path: state.t._rate_hour, op: lt, value: 4 }] }, { name: s, spend: { daily: 0.5 } }] } }";
        let policy = read(text).policy.unwrap();
        let now = Timestamp::from_secs(1_795_348_800);
        let key = keys_of(&policy, "t").into_iter().next().unwrap();
        let mut tally = Tally::default();
        tally.add(key.window, now, 2);
        let shown = row(&policy, &key, &tally, now);
        assert_eq!(
            (&shown["used"], &shown["limit"], &shown["left"]),
            (&json!("2"), &json!("3"), &json!("1"))
        );
        assert_eq!(shown["ends"], "2026-11-22T13:00:00.000Z");
        let spend = policy.spend_keys("t").into_iter().next().unwrap();
        let shown = row(&policy, &spend, &Tally::default(), now);
        assert_eq!((&shown["limit"], &shown["unit"]), (&json!("0.5"), &json!("dollars")));
    }

    #[test]
    fn a_header_comes_from_the_environment_only() {
        assert!(header("authorization=secret").is_err());
        assert!(header("authorization=env:FARTHING_NOBODY_SETS_THIS").is_err());
    }
}
