//! `farthing wallet`: keys, and what their owner allows.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use farthing_chain::{ChainConfig, RpcChain};
use farthing_engine::Chain;
use farthing_evm::{Key, eip55, from_alloy, to_alloy};
use farthing_guard::Whom;
use farthing_policy::{Bucket, Caps, Dollars, HostPattern, HostRule, Rules, Window};
use farthing_primitives::{Address, Network, Registry};
use farthing_wallet::client::{Client, printable};
use farthing_wallet::journal::law::Standing;
use farthing_wallet::journal::{Journal, JournalError, Purchase, State};
use farthing_wallet::keyring::Keyring;
use farthing_wallet::keystore::{self, Cost, KeyRef, Keystore, KeystoreError, Passphrase};
use farthing_wallet::{ChainView, EngineView, Home, LocalAuthorizer, system_clock};
use serde_json::{Value, json};

use super::Failure;
use super::agent::freeze_here;
use super::payer::signer;

/// Where the passphrase is if nobody is asked for it.
pub(super) const PASSWORD_VARIABLE: &str = "FARTHING_PASSPHRASE";

/// How long a node may take to say who it is.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// What an embedded chain's client version starts with.
const DEVNET_CLIENT: &str = "farthing-devnet";

/// Keep a wallet for a machine: keys, limits, allowed hosts, and what was bought
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet new                              a key, tight limits, Base Sepolia only
  farthing wallet allow api.weather.example        let this host be paid
  farthing wallet limit --per-payment 0.05 --hour 1 --day 5
  farthing wallet history

The wallet is in $FARTHING_HOME, else $XDG_DATA_HOME/farthing, else ~/.local/share/farthing. Its
limits hold for all of its keys together. Passphrases come from --password-file, from
$FARTHING_PASSPHRASE, from the system's keyring (farthing wallet keyring), or from a prompt.

Exit codes: 0 done; 1 it could not be done; 2 called wrongly.")]
pub struct WalletArgs {
    #[command(subcommand)]
    command: Command,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
    Import(Import),
    Use(Use),
    List(List),
    Show(Show),
    Balance(Balance),
    Limit(Limit),
    Allow(Allow),
    Freeze(Freeze),
    Unfreeze(Unfreeze),
    History(History),
    Session(super::session_key::SessionArgs),
    Keyring(super::keyring::KeyringArgs),
    Serve(super::wallet_serve::ServeArgs),
}

/// Make a key
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet new agent
  farthing wallet new --devnet 0        use a built-in development key; nothing is stored")]
struct New {
    /// What to call the key
    #[arg(default_value = "default")]
    name: String,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Use a built-in development key, by its number, and let no other key sign with this wallet
    #[arg(long, value_name = "NUMBER", num_args = 0..=1, default_missing_value = "0")]
    devnet: Option<usize>,
}

/// Take over a key, or a key file of geth's or foundry's
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet import agent --from env:AGENT_KEY
  farthing wallet import agent --from file:$HOME/.foundry/keystores/agent")]
struct Import {
    /// What to call the key
    name: String,
    /// Where it is: env:NAME (hex), or file:PATH (hex, or a version 3 keystore with the same passphrase)
    #[arg(long, value_name = "REFERENCE")]
    from: String,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Pay with this key if none is named: one of the wallet's own, or one that is somewhere else
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet use agent
  farthing wallet use kms:eu-central-1/1234abcd-12ab-34cd-56ef-1234567890ab
  farthing wallet use kms:eu-central-1/alias/agent
  farthing wallet use 'pkcs11:token=farthing;object=agent?module-path=/usr/lib/softhsm/libsofthsm2.so'

A key in AWS KMS or in a device that speaks PKCS #11 never leaves it: each payment is signed there. KMS is
asked with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; a device's PIN is the
passphrase. docs/operating/keys.md says which kind of key it has to be.")]
struct Use {
    /// A name, or env:NAME, file:PATH, keystore:NAME, kms:REGION/KEY_ID, pkcs11:…
    key: String,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// List the keys
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing wallet list")]
struct List {}

/// Show what is allowed and what is spent
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing wallet show")]
struct Show {}

/// Ask the chains what the keys hold
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing wallet balance --rpc https://sepolia.base.org")]
struct Balance {
    /// One key only, by its name or reference
    name: Option<String>,
    /// A node to ask, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
}

/// Set the most that may be spent. Windows roll: an hour is any 60 minutes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet limit --per-payment 0.05 --hour 1 --day 5
  farthing wallet limit --asset EURC --network base --per-payment 0.05 --hour 1 --day 5

Limits are in dollars and hold for all dollar tokens on all networks together, unless --asset names
another token.")]
struct Limit {
    /// For one payment
    #[arg(long, value_name = "AMOUNT")]
    per_payment: Option<String>,
    /// In any hour
    #[arg(long, value_name = "AMOUNT")]
    hour: Option<String>,
    /// In any 24 hours
    #[arg(long, value_name = "AMOUNT")]
    day: Option<String>,
    /// Limits of this token, in its own units, instead of dollars: EURC, or eip155:…/erc20:0x…
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
    /// The network of --asset, if that is a symbol
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Allow no payment in it any more
    #[arg(long, conflicts_with_all = ["per_payment", "hour", "day"])]
    none: bool,
}

/// Say who may be paid, and on which networks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet allow api.weather.example
  farthing wallet allow '*.example.com' 127.0.0.1:4021
  farthing wallet allow --network base --rpc https://mainnet.base.org
  farthing wallet allow --scheme session      pay by the unit, through channels
  farthing wallet allow api.weather.example --payee 0x209693Bc6afc0C5328bA36FaF03C514EF312287C
  farthing wallet allow api.weather.example --remove

A host is paid where it was paid first; --payee adds another address, --forget-payees starts anew.")]
struct Allow {
    /// HOST, HOST:PORT, *.HOST, or * for every public host
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// A network to pay on: base, base-sepolia, eip155:8453 …
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// The node by which the networks given are asked
    #[arg(long, value_name = "URL", requires = "networks")]
    rpc: Option<String>,
    /// A way to pay: exact, or session for channels, which lock a deposit
    #[arg(long = "scheme", value_name = "SCHEME", value_parser = ["exact", "session"])]
    schemes: Vec<String>,
    /// One more address at which the hosts may be paid
    #[arg(long, value_name = "ADDRESS", requires = "hosts")]
    payee: Option<String>,
    /// Forget where the hosts were paid
    #[arg(long, requires = "hosts")]
    forget_payees: bool,
    /// The hosts may be on this machine or its network. Goes without saying for addresses spelled out
    #[arg(long, requires = "hosts")]
    private: bool,
    /// The hosts may be paid without TLS. Goes without saying on this machine
    #[arg(long, requires = "hosts")]
    plaintext: bool,
    /// Take back instead
    #[arg(long, conflicts_with_all = ["payee", "private", "plaintext"])]
    remove: bool,
}

/// Stop at once: nothing new is signed or shown
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing wallet freeze")]
struct Freeze {}

/// Allow payments again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing wallet unfreeze")]
struct Unfreeze {}

/// List what was bought
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet history --limit 5
  farthing wallet history --check       ask the chains, and free what is proven unused")]
struct History {
    /// How many, latest first
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    limit: u32,
    /// Ask the chains about purchases whose outcome is open
    #[arg(long)]
    check: bool,
    /// A node to ask, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
}

pub async fn run(args: WalletArgs) -> ExitCode {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    let done = match args.command {
        Command::New(new) => make(&new, &out),
        Command::Import(import) => take_over(&import, &out),
        Command::Use(chosen) => choose(&chosen, &out).await,
        Command::List(List {}) => list(&out),
        Command::Show(Show {}) => show(&out),
        Command::Balance(balance) => balances(&balance, &out).await,
        Command::Limit(limit) => set_limit(&limit, &out),
        Command::Allow(allow) => set_allowed(&allow, &out),
        Command::Freeze(Freeze {}) => freeze(&out).await,
        Command::Unfreeze(Unfreeze {}) => unfreeze(&out),
        Command::History(history) => past(&history, &out).await,
        Command::Session(session) => super::session_key::run(session, &out).await,
        Command::Keyring(keyring) => super::keyring::run(keyring, &out),
        Command::Serve(serve) => super::wallet_serve::run(serve).await.map(drop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("farthing: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// A table for a person, JSON for a program.
pub(super) struct Out {
    pub(super) json: bool,
}

impl Out {
    pub(super) fn say(&self, json: &Value, text: &str) {
        let mut out = std::io::stdout();
        // A closed standard output is nobody's error.
        let _ = if self.json { writeln!(out, "{json}") } else { writeln!(out, "{}", text.trim_end()) };
        let _ = out.flush();
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Rules(why) => Self::usage(why),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<KeystoreError> for Failure {
    fn from(error: KeystoreError) -> Self {
        match error {
            KeystoreError::Name(_) | KeystoreError::NameLooksLikeKey | KeystoreError::Reference => {
                Self::usage(error.to_string())
            }
            error => Self::failed(error.to_string()),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What `farthing fetch` needs as well.

pub(super) fn home() -> Result<Home, Failure> {
    Home::from_env().map_err(|error| Failure::usage(error.to_string()))
}

/// The passphrase from the file, else from the environment.
fn passphrase_given(file: Option<&PathBuf>) -> Result<Passphrase, KeystoreError> {
    if let Some(path) = file {
        return Passphrase::from_file(path).map_err(|error| KeystoreError::Io { path: path.clone(), error });
    }
    std::env::var(PASSWORD_VARIABLE).map(Passphrase::new).map_err(|_| KeystoreError::NoPassphrase)
}

/// The same, else from the system's keyring.
pub(super) fn passphrase_unasked(file: Option<&PathBuf>) -> Result<Passphrase, KeystoreError> {
    passphrase_given(file).or_else(|error| match (error, home()) {
        (KeystoreError::NoPassphrase, Ok(home)) => {
            Keyring::of(home.path()).load().map_err(|_| KeystoreError::NoPassphrase)
        }
        (error, _) => Err(error),
    })
}

/// The same, else from whoever sits at the terminal.
pub(super) fn passphrase(file: Option<&PathBuf>, prompt: &str) -> Result<Passphrase, KeystoreError> {
    match passphrase_unasked(file) {
        Err(KeystoreError::NoPassphrase) => passphrase_typed(prompt),
        found => found,
    }
}

/// The same, whatever the keyring has.
pub(super) fn passphrase_but_for_keyring(
    file: Option<&PathBuf>,
    prompt: &str,
) -> Result<Passphrase, KeystoreError> {
    match passphrase_given(file) {
        Err(KeystoreError::NoPassphrase) => passphrase_typed(prompt),
        found => found,
    }
}

fn passphrase_typed(prompt: &str) -> Result<Passphrase, KeystoreError> {
    if !std::io::stdin().is_terminal() {
        return Err(KeystoreError::NoPassphrase);
    }
    let terminal = PathBuf::from("the terminal");
    rpassword::prompt_password(prompt)
        .map(Passphrase::new)
        .map_err(|error| KeystoreError::Io { path: terminal, error })
}

/// Whether an address is one of the built-in development keys'.
pub(super) fn is_dev_key(address: &Address) -> bool {
    to_alloy(address).is_some_and(farthing_devnet::is_dev_key)
}

/// A key by name or reference: `NAME`, `keystore:NAME`, `env:NAME`, `file:PATH`, `dev:NUMBER`.
pub(super) fn load_key(
    keystore: &Keystore,
    reference: &str,
    password_file: Option<&PathBuf>,
) -> Result<Key, Failure> {
    match reference.strip_prefix("dev:") {
        Some(number) => dev_key(number),
        None => Ok(key_ref(reference)?.load(keystore, || passphrase(password_file, "Passphrase: "))?),
    }
}

/// A reference as it is written on a command line, where a name alone is one in the keystore.
pub(super) fn key_ref(reference: &str) -> Result<KeyRef, KeystoreError> {
    if reference.contains(':') { reference.parse() } else { Ok(KeyRef::Keystore(reference.to_owned())) }
}

/// A development key by its number.
pub(super) fn dev_key(number: &str) -> Result<Key, Failure> {
    let account = number.parse().ok().and_then(farthing_devnet::dev_account).ok_or_else(|| {
        let last = farthing_devnet::DEV_ACCOUNT_COUNT - 1;
        Failure::usage(format!("development keys have the numbers 0 to {last}"))
    })?;
    Key::from_bytes(account.private_key.0).map_err(|error| Failure::failed(error.to_string()))
}

/// The key that pays if none is named: the one that the wallet was made with, or its only one.
pub(super) fn default_key(home: &Home, journal: &Journal) -> Result<String, Failure> {
    if let Some(reference) = journal.default_key()? {
        return Ok(reference);
    }
    match home.keystore().list()?.as_slice() {
        [only] => Ok(only.name.clone()),
        [] => Err(Failure::usage("the wallet has no key: make one with \"farthing wallet new\"")),
        several => {
            let names: Vec<_> = several.iter().map(|key| key.name.as_str()).collect();
            Err(Failure::usage(format!("name a key with --pay-with: {}", names.join(", "))))
        }
    }
}

/// Views of chains by the nodes at `urls` alone.
pub(super) async fn views_by(urls: &[String]) -> Result<Vec<Arc<dyn ChainView>>, Failure> {
    let mut views: Vec<Arc<dyn ChainView>> = Vec::new();
    for url in urls.iter().filter(|url| !url.is_empty()) {
        let (chain, devnet) = node(url, None).await?;
        views.push(Arc::new(EngineView::new(chain, devnet)));
    }
    Ok(views)
}

/// Views of chains by the nodes at `urls`, and by those that the wallet knows for other networks.
pub(super) async fn views(journal: &Journal, urls: &[String]) -> Result<Vec<Arc<dyn ChainView>>, Failure> {
    let nodes = nodes(journal, urls).await?.into_iter();
    Ok(nodes.map(|(chain, devnet)| Arc::new(EngineView::new(chain, devnet)) as Arc<dyn ChainView>).collect())
}

/// The same as chains, and whether each is one for development.
pub(super) async fn nodes(
    journal: &Journal,
    urls: &[String],
) -> Result<Vec<(Arc<dyn Chain>, bool)>, Failure> {
    let mut nodes: Vec<(Arc<dyn Chain>, bool)> = Vec::new();
    for url in urls.iter().filter(|url| !url.is_empty()) {
        nodes.push(node(url, None).await?);
    }
    for (network, url) in journal.rpc_urls()? {
        if !nodes.iter().any(|(chain, _)| *chain.network() == network) {
            nodes.push(node(&url, Some(&network)).await?);
        }
    }
    Ok(nodes)
}

/// The same for one network, or for all, and why others are not among them.
pub(super) async fn nodes_up(
    journal: &Journal,
    urls: &[String],
    wanted: Option<&Network>,
) -> Result<(Vec<(Arc<dyn Chain>, bool)>, Vec<Failure>), Failure> {
    let (mut up, mut down) = (Vec::<(Arc<dyn Chain>, bool)>::new(), Vec::new());
    let is_wanted = |network: &Network| wanted.is_none_or(|wanted| network == wanted);
    for url in urls.iter().filter(|url| !url.is_empty()) {
        match node(url, None).await {
            Ok(node) if is_wanted(node.0.network()) => up.push(node),
            Ok(_) => (),
            Err(failure) => down.push(failure),
        }
    }
    for (network, url) in journal.rpc_urls()? {
        if is_wanted(&network) && !up.iter().any(|(chain, _)| *chain.network() == network) {
            match node(&url, Some(&network)).await {
                Ok(node) => up.push(node),
                Err(failure) => down.push(failure),
            }
        }
    }
    Ok((up, down))
}

/// A chain by one node, which is asked for its id and whether it is one for development.
pub(super) async fn node(url: &str, expected: Option<&Network>) -> Result<(Arc<dyn Chain>, bool), Failure> {
    let parsed: url::Url = url.parse().map_err(|_| Failure::usage("the RPC address is no URL"))?;
    let shown = farthing_wallet::client::shown(&parsed);
    let http = reqwest::Client::builder()
        .timeout(NODE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| Failure::failed(error.to_string()))?;
    let ask = async |method: &str| -> Result<String, Failure> {
        let failed = |why: &str| Failure { message: format!("the node at {shown} {why}"), code: NODE_DOWN };
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [] });
        let answer =
            http.post(parsed.clone()).json(&body).send().await.map_err(|_| failed("does not answer"))?;
        let answer: Value = answer.json().await.map_err(|_| failed("does not speak JSON-RPC"))?;
        answer["result"].as_str().map(str::to_owned).ok_or_else(|| failed(&format!("refuses {method}")))
    };
    let chain = ask("eth_chainId").await?;
    let chain = chain.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let network = chain
        .map(Network::eip155)
        .ok_or_else(|| Failure::failed(format!("the node at {shown} has no chain id")))?;
    if expected.is_some_and(|expected| *expected != network) {
        return Err(Failure::failed(format!("the node at {shown} is of {network}")));
    }
    // A node that keeps its version to itself is none of ours.
    let devnet = ask("web3_clientVersion").await.is_ok_and(|version| version.starts_with(DEVNET_CLIENT));
    let chain = RpcChain::new(ChainConfig::new(network, vec![parsed.clone()]))
        .map_err(|error| Failure::failed(error.to_string()))?;
    Ok((Arc::new(chain), devnet))
}

/// The exit code for a node that does not answer.
pub(super) const NODE_DOWN: u8 = 6;

/// An address as people compare it.
pub(super) fn shown_address(address: &Address) -> String {
    to_alloy(address).map_or_else(|| address.to_string(), eip55)
}

/// A network by the name that people use, if it has one.
pub(super) fn shown_network(network: &Network) -> String {
    network.v1_name().map_or_else(|| network.to_string(), str::to_owned)
}

/// `0.01 USDC`, by the registry.
pub(super) fn shown_money(registry: &Registry, money: &farthing_primitives::Money) -> String {
    match registry.get(money.asset()) {
        Some(asset) => format!("{} {}", asset.format(money.atoms()), asset.symbol),
        None => format!("{} atoms of {}", money.atoms(), money.asset()),
    }
}

pub(super) fn money_json(registry: &Registry, money: &farthing_primitives::Money) -> Value {
    let asset = registry.get(money.asset());
    json!({
        "atoms": money.atoms().to_string(),
        "amount": asset.map(|asset| asset.format(money.atoms())),
        "symbol": asset.map(|asset| asset.symbol.as_str()),
        "asset": money.asset().to_string(),
        "network": money.asset().network().to_string(),
    })
}

// ---------------------------------------------------------------------------------------------------------------------
// The commands.

fn make(new: &New, out: &Out) -> Result<(), Failure> {
    let home = home()?;
    let journal = home.journal()?;
    let (reference, address) = if let Some(number) = new.devnet {
        let key = dev_key(&number.to_string())?;
        if !home.keystore().list()?.is_empty() {
            return Err(Failure::usage(
                "this wallet has keys of its own; give the development key another $FARTHING_HOME",
            ));
        }
        journal.set_devnet(true)?;
        (format!("dev:{number}"), from_alloy(key.address()))
    } else {
        if journal.is_devnet()? {
            return Err(Failure::usage(
                "this wallet is for development keys; give other keys another $FARTHING_HOME",
            ));
        }
        // Whoever is asked twice for a passphrase should not learn afterwards that the name is taken.
        if home.keystore().info(&new.name).is_ok() {
            return Err(KeystoreError::Exists(new.name.clone()).into());
        }
        let passphrase = new_passphrase(new.password_file.as_ref())?;
        let key = keystore::generate()?;
        let info = home.keystore().create(&new.name, &key, &passphrase, Cost::STANDARD)?;
        (info.name, from_alloy(key.address()))
    };
    if journal.default_key()?.is_none() || new.devnet.is_some() {
        journal.set_default_key(&reference)?;
    }
    made(&reference, &address, &home, &journal, out)
}

fn take_over(import: &Import, out: &Out) -> Result<(), Failure> {
    let home = home()?;
    let journal = home.journal()?;
    if journal.is_devnet()? {
        return Err(Failure::usage(
            "this wallet is for development keys; give other keys another $FARTHING_HOME",
        ));
    }
    let key = load_key(&home.keystore(), &import.from, import.password_file.as_ref())?;
    let passphrase = new_passphrase(import.password_file.as_ref())?;
    let info = home.keystore().create(&import.name, &key, &passphrase, Cost::STANDARD)?;
    if journal.default_key()?.is_none() {
        journal.set_default_key(&info.name)?;
    }
    made(&info.name, &from_alloy(key.address()), &home, &journal, out)
}

async fn choose(chosen: &Use, out: &Out) -> Result<(), Failure> {
    let home = home()?;
    let journal = home.journal()?;
    let key = chosen.key.strip_prefix("keystore:").unwrap_or(&chosen.key);
    if key.starts_with(super::session_key::PREFIX) {
        return Err(Failure::usage(
            "a session key ends, and is no wallet's own: name it with --pay-with, or make it for an agent",
        ));
    }
    let signer = signer(&home, key, chosen.password_file.as_ref()).await?;
    let address = signer.address();
    if journal.is_devnet()? != key.starts_with("dev:") {
        return Err(Failure::usage(
            "a wallet for development keys is made by \"farthing wallet new --devnet\", and has no others",
        ));
    }
    journal.set_default_key(key)?;
    made(key, &address, &home, &journal, out)
}

pub(super) fn new_passphrase(file: Option<&PathBuf>) -> Result<Passphrase, Failure> {
    let (passphrase, typed) = match passphrase_unasked(file) {
        Err(KeystoreError::NoPassphrase) => (passphrase_typed("New passphrase: ")?, true),
        found => (found?, false),
    };
    if passphrase.is_empty() {
        return Err(Failure::usage("the passphrase is empty"));
    }
    if typed && passphrase_typed("Again: ")? != passphrase {
        return Err(Failure::usage("the passphrases differ"));
    }
    Ok(passphrase)
}

fn made(
    reference: &str,
    address: &Address,
    home: &Home,
    journal: &Journal,
    out: &Out,
) -> Result<(), Failure> {
    let rules = journal.rules()?;
    let networks: Vec<_> = rules.networks.iter().map(shown_network).collect();
    let json = json!({
        "key": reference,
        "address": address.to_string(),
        "home": home.path().display().to_string(),
        "devnet": journal.is_devnet()?,
        "rules": rules_json(&rules),
    });
    let text = format!(
        "{reference}  {}\nin {}\n\n{}\nNext: let somebody be paid, e.g. farthing wallet allow api.weather.example\n",
        shown_address(address),
        home.path().display(),
        caps_text(&rules, journal, &networks)?,
    );
    out.say(&json, &text);
    Ok(())
}

fn list(out: &Out) -> Result<(), Failure> {
    let home = home()?;
    let journal = home.journal()?;
    let default = journal.default_key()?;
    let mut keys: Vec<(String, Option<Address>)> =
        home.keystore().list()?.into_iter().map(|key| (key.name, key.address)).collect();
    if let Some(reference) = default.as_deref().filter(|key| key.contains(':')) {
        let number = reference.strip_prefix("dev:");
        let address = number.map(|number| Ok::<_, Failure>(from_alloy(dev_key(number)?.address())));
        keys.push((reference.to_owned(), address.transpose()?));
    }
    let is_default = |name: &str| default.as_deref() == Some(name);
    let json: Vec<Value> = keys
        .iter()
        .map(|(name, address)| {
            json!({
                "key": name,
                "address": address.as_ref().map(ToString::to_string),
                "default": is_default(name),
            })
        })
        .collect();
    let rows = keys.iter().map(|(name, address)| {
        let address = address.as_ref().map_or_else(|| "(known when it is opened)".to_owned(), shown_address);
        format!("{} {name:<20} {address}\n", if is_default(name) { "*" } else { " " })
    });
    let text: String = rows.collect();
    out.say(&json.into(), if text.is_empty() { "no keys yet: farthing wallet new" } else { &text });
    Ok(())
}

fn rules_json(rules: &Rules) -> Value {
    let caps: Vec<Value> = rules
        .caps
        .iter()
        .map(|(bucket, caps)| {
            json!({
                "of": bucket.to_string(),
                "per_payment": amount(bucket, caps.per_payment),
                "hour": amount(bucket, caps.hour),
                "day": amount(bucket, caps.day),
            })
        })
        .collect();
    let hosts: Vec<Value> = rules
        .hosts
        .iter()
        .map(|rule| json!({ "host": rule.pattern.to_string(), "private": rule.private, "plaintext": rule.plaintext }))
        .collect();
    json!({
        "frozen": rules.frozen,
        "caps": caps,
        "hosts": hosts,
        "networks": rules.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "schemes": rules.schemes,
        "max_validity_seconds": rules.max_validity.as_secs(),
    })
}

/// A quantity of a bucket in whole units, as a text.
fn amount(bucket: &Bucket, n: u128) -> String {
    match bucket {
        Bucket::Dollar => Dollars(n).plain(),
        Bucket::Asset(id) => {
            Registry::builtin().get(id).map_or_else(|| n.to_string(), |asset| asset.format(n))
        }
    }
}

fn bucket_name(bucket: &Bucket) -> String {
    match bucket {
        Bucket::Dollar => "dollars".to_owned(),
        Bucket::Asset(id) => Registry::builtin().get(id).map_or_else(
            || id.to_string(),
            |asset| format!("{} on {}", asset.symbol, shown_network(id.network())),
        ),
    }
}

fn caps_text(rules: &Rules, journal: &Journal, networks: &[String]) -> Result<String, Failure> {
    let mut text = format!("{:<24} {:>12} {:>22} {:>22}\n", "limits", "a payment", "any hour", "any day");
    let clock = system_clock();
    for (bucket, caps) in &rules.caps {
        let spent = journal.spent(bucket, &clock)?;
        let of = |window: Window, cap: u128| {
            let spent = spent.iter().find(|(w, _)| *w == window).map_or(0, |(_, spent)| *spent);
            format!("{} of {}", amount(bucket, spent), amount(bucket, cap))
        };
        text += &format!(
            "{:<24} {:>12} {:>22} {:>22}\n",
            bucket_name(bucket),
            amount(bucket, caps.per_payment),
            of(Window::Hour, caps.hour),
            of(Window::Day, caps.day),
        );
    }
    let or_none = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    text += &format!("networks  {}\n", or_none(networks.to_vec()));
    text += &format!("hosts     {}\n", or_none(rules.hosts.iter().map(|r| r.pattern.to_string()).collect()));
    Ok(text)
}

fn standing_json(one: &Standing) -> Value {
    json!({
        "budget": one.budget.to_string(),
        "of": one.limit.bucket.to_string(),
        "within": one.limit.span.to_string(),
        "limit": amount(&one.limit.bucket, one.limit.most),
        "spent": one.spent.map(|spent| amount(&one.limit.bucket, spent)),
    })
}

fn show(out: &Out) -> Result<(), Failure> {
    let home = home()?;
    let journal = home.journal()?;
    let rules = journal.rules()?;
    let clock = system_clock();
    let mut spent = Vec::new();
    for bucket in rules.caps.keys() {
        for (window, atoms) in journal.spent(bucket, &clock)? {
            spent.push(
                json!({ "of": bucket.to_string(), "window": window.name(), "spent": amount(bucket, atoms) }),
            );
        }
    }
    let open = journal.open_purchases()?;
    let unsettled = open.iter().filter(|purchase| purchase.state != State::Settled).count();
    let standing = journal.standing(&clock)?;
    let mut json = json!({
        "home": home.path().display().to_string(),
        "key": journal.default_key()?,
        "devnet": journal.is_devnet()?,
        "rules": rules_json(&rules),
        "spent": spent,
        "open": unsettled,
    });
    if let Some(standing) = &standing {
        json["budgets"] = standing.iter().map(standing_json).collect::<Vec<_>>().into();
    }
    let networks: Vec<_> = rules.networks.iter().map(shown_network).collect();
    let mut text = String::new();
    if rules.frozen {
        text += "FROZEN: nothing is paid until \"farthing wallet unfreeze\"\n";
    }
    if journal.is_devnet()? {
        text += "for development: only built-in keys sign\n";
    }
    match &standing {
        Some(standing) => {
            text += "a policy is in force (farthing policy show), and not what was set by hand\n";
            text += &format!("{:<24} {:<24} {:>14} {:>14}\n", "budget", "within", "spent", "limit");
            for one in standing {
                let of = |n| amount(&one.limit.bucket, n);
                let spent = one.spent.map_or_else(|| "too much".to_owned(), of);
                let (budget, span, limit) =
                    (one.budget.as_str(), one.limit.span.to_string(), of(one.limit.most));
                text += &format!("{budget:<24} {span:<24} {spent:>14} {limit:>14}\n");
            }
        }
        None => text += &caps_text(&rules, &journal, &networks)?,
    }
    if unsettled > 0 {
        text += &format!("{unsettled} purchases are open: farthing wallet history --check\n");
    }
    out.say(&json, &text);
    Ok(())
}

async fn balances(balance: &Balance, out: &Out) -> Result<(), Failure> {
    let home = home()?;
    let journal = home.journal()?;
    let views = views(&journal, &balance.rpc).await?;
    if views.is_empty() {
        return Err(Failure::usage(
            "name a node: --rpc URL, or once and for all \"farthing wallet allow --network base-sepolia --rpc URL\"",
        ));
    }
    let owners: Vec<(String, Address)> = match &balance.name {
        Some(name) => vec![(name.clone(), address_of(&home, name).await?)],
        None => {
            let mut owners = Vec::new();
            for key in home.keystore().list()? {
                owners.extend(key.address.map(|address| (key.name, address)));
            }
            if let Some(elsewhere) = journal.default_key()?.filter(|key| key.contains(':')) {
                owners.push((elsewhere.clone(), address_of(&home, &elsewhere).await?));
            }
            owners
        }
    };
    if owners.is_empty() {
        return Err(Failure::usage("the wallet has no key: make one with \"farthing wallet new\""));
    }
    let registry = Registry::builtin();
    let mut rows = Vec::new();
    let mut text = String::new();
    for (name, owner) in &owners {
        for view in &views {
            for asset in registry.iter().filter(|asset| asset.id.network() == view.network()) {
                // What the wallet may not spend is of no interest unless there is some.
                let atoms = view.balance(&asset.id, owner).await;
                if atoms.is_none_or(|atoms| atoms == 0) && !registry.is_dollar(&asset.id) {
                    continue;
                }
                let money = atoms.map(|atoms| asset.atoms(atoms));
                rows.push(json!({
                    "key": name,
                    "address": owner.to_string(),
                    "symbol": asset.symbol,
                    "asset": asset.id.to_string(),
                    "network": view.network().to_string(),
                    "atoms": atoms.map(|atoms| atoms.to_string()),
                    "amount": atoms.map(|atoms| asset.format(atoms)),
                }));
                let amount =
                    money.map_or_else(|| "not known".to_owned(), |money| shown_money(&registry, &money));
                text += &format!("{name:<20} {:<16} {amount:>20}\n", shown_network(view.network()));
            }
        }
    }
    out.say(&rows.into(), &text);
    Ok(())
}

/// The address of a key, without opening it where the file says it.
pub(super) async fn address_of(home: &Home, reference: &str) -> Result<Address, Failure> {
    let name = reference.strip_prefix("keystore:").unwrap_or(reference);
    if !name.contains(':')
        && let Some(address) = home.keystore().info(name)?.address
    {
        return Ok(address);
    }
    if let Some(name) = reference.strip_prefix(super::session_key::PREFIX) {
        return Ok(home.journal()?.session_key(name)?.terms.address);
    }
    Ok(signer(home, reference, None).await?.address())
}

pub(super) fn network(text: &str) -> Result<Network, Failure> {
    Network::from_name(text).map_err(|error| Failure::usage(error.to_string()))
}

fn set_limit(limit: &Limit, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let registry = Registry::builtin();
    let asset = match &limit.asset {
        None => None,
        Some(text) => {
            let found = match (&limit.network, text.contains('/')) {
                (_, true) => text.parse().ok().and_then(|id| registry.get(&id)),
                (Some(name), false) => registry.by_symbol(&network(name)?, text),
                (None, false) => {
                    return Err(Failure::usage("--asset needs --network, or the form eip155:…/erc20:0x…"));
                }
            };
            Some(
                found
                    .ok_or_else(|| Failure::usage(format!("{text:?} is no token that the registry lists")))?,
            )
        }
    };
    let bucket = asset.map_or(Bucket::Dollar, |asset| Bucket::Asset(asset.id.clone()));
    let parse = |text: &Option<String>| -> Result<Option<u128>, Failure> {
        let Some(text) = text else { return Ok(None) };
        let parsed = match asset {
            Some(asset) => asset.parse(text).map(|money| money.atoms()),
            None => Dollars::parse(text).map(|dollars| dollars.0),
        };
        parsed.map(Some).map_err(|error| Failure::usage(format!("{text:?}: {error}")))
    };
    let (per_payment, hour, day) = (parse(&limit.per_payment)?, parse(&limit.hour)?, parse(&limit.day)?);
    if !limit.none && per_payment.is_none() && hour.is_none() && day.is_none() {
        return show(out);
    }
    journal.note_time(&system_clock())?;
    journal.change_rules(|rules| {
        if limit.none {
            rules.caps.remove(&bucket);
            return Ok(());
        }
        // A token that had no limits gets what is not said as nothing: silence allows nothing.
        let caps = rules.caps.entry(bucket).or_insert(Caps { per_payment: 0, hour: 0, day: 0 });
        caps.per_payment = per_payment.unwrap_or(caps.per_payment);
        caps.hour = hour.unwrap_or(caps.hour);
        caps.day = day.unwrap_or(caps.day);
        Ok(())
    })?;
    show(out)
}

fn set_allowed(allow: &Allow, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let mut patterns: Vec<HostPattern> = Vec::new();
    for host in &allow.hosts {
        // Whoever pastes a URL means its host and port.
        let plain = match host.split_once("://") {
            None => host.clone(),
            Some(_) => {
                let url: url::Url =
                    host.parse().map_err(|_| Failure::usage(format!("{host:?} is no host")))?;
                let name = url.host_str().unwrap_or_default();
                url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
            }
        };
        patterns.push(plain.parse().map_err(|_| Failure::usage(format!("{host:?} is no host")))?);
    }
    let networks: Vec<Network> = allow.networks.iter().map(|name| network(name)).collect::<Result<_, _>>()?;
    if patterns.is_empty() && networks.is_empty() && allow.schemes.is_empty() {
        return show(out);
    }
    for authority in authorities(&patterns, allow.payee.is_some() || allow.forget_payees)? {
        if allow.forget_payees {
            journal.unpin(&authority)?;
        }
        if let Some(payee) = &allow.payee {
            let text = payee;
            let payee = Address::evm(text).map_err(|error| Failure::usage(error.to_string()))?;
            if !crate::config::checksum_holds(text, &payee) {
                return Err(Failure::usage(format!("{text}: the checksum in its capitals is wrong")));
            }
            let on = if networks.is_empty() {
                journal.rules()?.networks.into_iter().collect()
            } else {
                networks.clone()
            };
            for network in on {
                journal.pin(&authority, &network, &payee, &system_clock())?;
            }
        }
    }
    journal.note_time(&system_clock())?;
    journal.change_rules(|rules| {
        for pattern in patterns {
            let known = rules.hosts.iter().position(|rule| rule.pattern == pattern);
            if allow.remove {
                let at = known.ok_or_else(|| format!("{pattern} is not among the allowed hosts"))?;
                rules.hosts.remove(at);
                continue;
            }
            let mut rule = HostRule::new(pattern);
            rule.private |= allow.private;
            rule.plaintext |= allow.plaintext;
            match known {
                Some(at) => rules.hosts[at] = rule,
                None => rules.hosts.push(rule),
            }
        }
        for scheme in &allow.schemes {
            if allow.remove {
                rules.schemes.remove(scheme);
            } else {
                rules.schemes.insert(scheme.clone());
            }
        }
        for network in &networks {
            if allow.remove {
                rules.networks.remove(network);
            } else {
                rules.networks.insert(network.clone());
            }
        }
        Ok(())
    })?;
    for network in &networks {
        if allow.remove || allow.rpc.is_some() {
            journal.set_rpc_url(network, allow.rpc.as_deref().filter(|_| !allow.remove))?;
        }
    }
    show(out)
}

/// The keys under which payees of these hosts are pinned. Without a port, the one of https.
fn authorities(patterns: &[HostPattern], wanted: bool) -> Result<Vec<String>, Failure> {
    if !wanted {
        return Ok(Vec::new());
    }
    let authority = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host, port) => Ok(format!("{host}:{}", port.unwrap_or(443))),
        other => Err(Failure::usage(format!("payees belong to one host, and {other} is several"))),
    };
    patterns.iter().map(authority).collect()
}

async fn freeze(out: &Out) -> Result<(), Failure> {
    freeze_here(&Whom::All).await?;
    out.say(&json!({ "frozen": true }), "frozen: nothing new is signed or shown");
    Ok(())
}

pub(super) fn unfreeze(out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    journal.note_time(&system_clock())?;
    journal.change_rules(|rules| {
        rules.frozen = false;
        Ok(())
    })?;
    out.say(&json!({ "frozen": false }), "not frozen");
    Ok(())
}

async fn past(history: &History, out: &Out) -> Result<(), Failure> {
    let journal = Arc::new(home()?.journal()?);
    if history.check {
        check_open(&journal, &history.rpc).await?;
    }
    let registry = Registry::builtin();
    let purchases = journal.history(history.limit)?;
    let rows: Vec<Value> = purchases.iter().map(|purchase| purchase_json(&registry, purchase)).collect();
    let mut text = String::new();
    for purchase in &purchases {
        let sure = match (purchase.state, purchase.confirmed) {
            (State::Settled, true) => "confirmed",
            (State::Settled, false) => "claimed",
            (state, _) => state.name(),
        };
        // A seller may have written it.
        let about = printable(purchase.note.as_deref().or(purchase.tx.as_deref()).unwrap_or_default());
        text += &format!(
            "{}  {}  {sure:<10} {:>16}  {:<28} {about}\n",
            purchase.created,
            purchase.id,
            shown_money(&registry, &purchase.money),
            purchase.authority,
        );
    }
    out.say(&rows.into(), if text.is_empty() { "nothing was bought yet" } else { &text });
    Ok(())
}

/// Asks the chains about every open purchase. No key is needed: nothing is signed.
async fn check_open(journal: &Arc<Journal>, rpc: &[String]) -> Result<(), Failure> {
    journal.recover(&system_clock())?;
    let views = views(journal, rpc).await?;
    if views.is_empty() {
        return Err(Failure::usage("name a node to ask: --rpc URL"));
    }
    // A key that pays nothing: this client only reads.
    let reader = LocalAuthorizer::new(keystore::generate()?, journal.clone(), Registry::builtin());
    let mut builder = Client::builder().wallet(reader);
    for view in views {
        builder = builder.chain(view);
    }
    let client = builder.build().map_err(|error| Failure::failed(error.to_string()))?;
    for (_, sight) in client.reconcile_all().await.map_err(|error| Failure::failed(error.to_string()))? {
        sight.map_err(|error| Failure::failed(error.to_string()))?;
    }
    Ok(())
}

fn purchase_json(registry: &Registry, purchase: &Purchase) -> Value {
    let url = purchase
        .url
        .parse()
        .map_or_else(|_| purchase.authority.clone(), |url| farthing_wallet::client::shown(&url));
    let receipt: Option<Value> = purchase.receipt.as_deref().and_then(|text| serde_json::from_str(text).ok());
    json!({
        "id": purchase.id.to_string(),
        "state": purchase.state.name(),
        "confirmed": purchase.confirmed,
        "delivered": purchase.delivered,
        "created": purchase.created.to_string(),
        "updated": purchase.updated.to_string(),
        "expires": purchase.expires.to_string(),
        "host": purchase.authority,
        "method": purchase.method,
        "url": url,
        "money": money_json(registry, &purchase.money),
        "payee": purchase.payee.to_string(),
        "payer": purchase.payer.to_string(),
        "shown": purchase.shown,
        "transaction": purchase.tx,
        "receipt": receipt,
        "note": purchase.note,
    })
}
