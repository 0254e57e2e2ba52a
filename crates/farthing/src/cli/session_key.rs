//! `farthing wallet session`: keys that are made for a while, and what is left on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use farthing_chain::LocalKey;
use farthing_engine::{Chain, Receipt, RelayerKey, World};
use farthing_evm::{AuthorizationUsed, Read, ReadKind, ReadResult, Revert, U256, abi, to_alloy};
use farthing_policy::AgentName;
use farthing_primitives::{Address, Asset, PullMethod, Registry};
use farthing_wallet::journal::Journal;
use farthing_wallet::journal::session_keys::{SessionKey, SessionKeyError, Standing, Sweep};
use farthing_wallet::keystore::{self, Cost, KeystoreError};
use farthing_wallet::outbox::{Desk, Outbox, Urgency};
use farthing_wallet::transact::{ContractCall, Sender};
use farthing_wallet::way_home::{WayHomeError, call_home};
use farthing_wallet::{Home, TokioWorld, system_clock};
use serde_json::{Value, json};

use super::Failure;
use super::payer::signer;
use super::wallet::{
    NODE_DOWN, Out, default_key, home, is_dev_key, load_key, money_json, network, new_passphrase, nodes,
    nodes_up, passphrase, shown_address, shown_money, shown_network,
};

/// How a session key is named where a key is named.
pub const PREFIX: &str = "session:";
/// How long a transaction is waited for.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(60);

/// Keep keys that end: each with an address of its own, for a while, and for one agent if you like
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet session new scout --for 8h --agent acme/scout
  farthing wallet session fund scout --amount 5
  farthing wallet session list
  farthing wallet session end scout        sends what is left back to the wallet's own key

A session key signs until its end, for payments that end no later, and then nothing but the way home of what
is left on it. It pays through no channel. Enforced by: process. Whoever steals the key's file and its
passphrase is bound by what is on it, and by nothing else: put as much on it as may be lost. A cap that
stolen keys cannot exceed either is \"farthing vault\".

Passphrases come from --password-file, from $FARTHING_PASSPHRASE, from the system's keyring (farthing wallet
keyring), or from a prompt.

Exit codes: 0 done; 1 it could not be done; 2 called wrongly; 5 sent, and in no block yet: run the same
command again, which sends no second one; 6 a node does not answer. If \"end\" meets several of these it goes on with the
other tokens and networks, says what moved, what stays and what failed, and exits with the highest.")]
pub struct SessionArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
    List(List),
    Fund(Fund),
    End(End),
}

/// Make a key that ends
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet session new --for 8h
  farthing wallet session new scout --for 2d --agent acme/scout
  farthing fetch --pay-with session:scout https://api.weather.example/tomorrow

With --agent that agent pays with this key and no other, and nobody else does; a guard that runs opens it when
the agent connects next. Once the key has ended the agent pays nothing, until it gets another or is let go
(farthing wallet session end NAME --let-go). What is left goes to the address that is the wallet's own now.")]
struct New {
    /// What to call it
    #[arg(default_value = "session")]
    name: String,
    /// For how long it signs: 30m, 8h, 2d; 10s at least and 30d at most
    #[arg(long = "for", value_name = "TIME")]
    length: String,
    /// The one agent that pays with it
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// List them, ended ones too, and what is on them
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing wallet session list --rpc https://sepolia.base.org")]
struct List {
    /// A node to ask, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
}

#[derive(Debug, Args)]
struct Sending {
    /// The key that sends the transaction, and pays for it with the chain's own coin; otherwise the wallet's own
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// One network only
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// A node to ask, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
}

/// Send tokens of the wallet's own key to one of them
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing wallet session fund scout --amount 5")]
struct Fund {
    /// Which
    name: String,
    /// How much, in the network's dollar
    #[arg(long, value_name = "AMOUNT")]
    amount: String,
    #[command(flatten)]
    sending: Sending,
}

/// End one now, and send what is left on it back to where it was made. Also for those that have ended
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet session end scout
  farthing wallet session end scout --let-go      its agent may pay with the wallet's own key again

What payments that were shown may still take stays until they lapse: run the same command again then. Tokens
that move by EIP-3009 are sent; others are listed, and stay.")]
struct End {
    /// Which
    name: String,
    /// Let the agent pay with the wallet's own key again
    #[arg(long)]
    let_go: bool,
    #[command(flatten)]
    sending: Sending,
}

impl From<SessionKeyError> for Failure {
    fn from(error: SessionKeyError) -> Self {
        match error {
            SessionKeyError::Journal(error) => error.into(),
            SessionKeyError::Length => Self::usage(error.to_string()),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<WayHomeError> for Failure {
    fn from(error: WayHomeError) -> Self {
        Self::failed(error.to_string())
    }
}

pub async fn run(args: SessionArgs, out: &Out) -> Result<(), Failure> {
    match args.command {
        Command::New(new) => make(&new, out).await,
        Command::List(List { rpc }) => list(&rpc, out).await,
        Command::Fund(fund) => pay_in(&fund, out).await,
        Command::End(end) => bring_home(&end, out).await,
    }
}

async fn make(new: &New, out: &Out) -> Result<(), Failure> {
    let length = crate::config::parse_duration(&new.length).map_err(Failure::usage)?;
    let home = home()?;
    let journal = home.journal()?;
    // Whoever is asked for a passphrase should not learn afterwards that it cannot be.
    journal.may_add_session_key(&new.name, new.agent.as_ref(), length, &system_clock())?;
    if home.session_keys().info(&new.name).is_ok() {
        return Err(SessionKeyError::Exists(new.name.clone()).into());
    }
    // The address that a key's file names is anybody's word; the key's own is not.
    let reference = default_key(&home, &journal)?;
    let to = signer(&home, &reference, new.password_file.as_ref()).await?.address();
    let passphrase = new_passphrase(new.password_file.as_ref())?;
    let key = keystore::generate()?;
    home.session_keys().create(&new.name, &key, &passphrase, Cost::STANDARD)?;
    let made = journal.add_session_key(&key, &new.name, new.agent.as_ref(), &to, length, &system_clock());
    let made = match made {
        // The books may have it all the same.
        Err(SessionKeyError::Journal(error)) => return Err(error.into()),
        Err(refused) => {
            home.session_keys().remove(&new.name)?;
            return Err(refused.into());
        }
        Ok(made) => made,
    };
    let standing = Standing { left: length, key: made };
    let json = key_json(&standing, None);
    let text = format!(
        "{}Next: put on it what it may spend, e.g. farthing wallet session fund {} --amount 1\n",
        key_text(&standing),
        new.name
    );
    out.say(&json, &text);
    Ok(())
}

/// What a key says of itself, for programs.
fn key_json(standing: &Standing, holds: Option<Vec<Value>>) -> Value {
    let Standing { key: SessionKey { terms, ended, binds }, left } = standing;
    json!({
        "key": format!("{PREFIX}{}", terms.name),
        "address": terms.address.to_string(),
        "agent": terms.agent.as_ref().map(AgentName::as_str),
        "binds": binds,
        "made": terms.made.to_string(),
        "ends": terms.ends.to_string(),
        "ended": ended.map(|at| at.to_string()),
        "state": if left.is_zero() { "ended" } else { "signs" },
        "home": terms.home.to_string(),
        "enforced_by": "process",
        "holds": holds,
    })
}

fn key_text(standing: &Standing) -> String {
    let Standing { key, left } = standing;
    let state = if left.is_zero() { "ended" } else { "signs until" };
    let agent = key.terms.agent.as_ref().map_or_else(String::new, |agent| format!("  for {agent}"));
    format!(
        "{PREFIX}{}  {}  {state} {}{agent}\n  what is left goes to {}  enforced by: process\n",
        key.terms.name,
        shown_address(&key.terms.address),
        key.ends(),
        shown_address(&key.terms.home),
    )
}

async fn list(rpc: &[String], out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let nodes = nodes(&journal, rpc).await?;
    let registry = Registry::builtin();
    let (mut rows, mut text) = (Vec::new(), String::new());
    for standing in journal.session_keys(&system_clock())? {
        text += &key_text(&standing);
        let mut holds = Vec::new();
        for (chain, _) in &nodes {
            for asset in registry.iter().filter(|asset| asset.id.network() == chain.network()) {
                let network = shown_network(asset.id.network());
                match look(chain.as_ref(), asset, &standing.key.terms.address, None).await {
                    Ok(Some(Seen { atoms: 0, .. }) | None) => (),
                    Ok(Some(Seen { atoms, .. })) => {
                        let money = asset.atoms(atoms);
                        text += &format!("  {network:<16} {:>20}\n", shown_money(&registry, &money));
                        holds.push(money_json(&registry, &money));
                    }
                    Err(failure) => {
                        text += &format!("  {network:<16} {:>20}  {}\n", "unknown", failure.message);
                        let mut row = money_json(&registry, &asset.atoms(0));
                        (row["atoms"], row["amount"]) = (Value::Null, Value::Null);
                        holds.push(row);
                    }
                }
            }
        }
        rows.push(key_json(&standing, (!nodes.is_empty()).then_some(holds)));
    }
    let none = "no session keys: farthing wallet session new --for 8h";
    out.say(&rows.into(), if text.is_empty() { none } else { &text });
    Ok(())
}

/// What a token says of a key, on one state of the chain.
struct Seen {
    atoms: u128,
    /// Whether the transfer that was asked for has moved.
    is_used: bool,
}

/// Asks a token what is on a key, and whether a transfer has moved. `None` where no contract is: a token of the registry
/// need not be on a chain for development. Whatever else keeps the token from answering is an error, and no zero.
async fn look(
    chain: &dyn Chain,
    asset: &Asset,
    owner: &Address,
    nonce: Option<&[u8; 32]>,
) -> Result<Option<Seen>, Failure> {
    let unread = |why: &str| Failure {
        message: format!("{} of {}: {why}", asset.symbol, shown_network(asset.id.network())),
        code: NODE_DOWN,
    };
    let to =
        to_alloy(asset.id.address()).ok_or_else(|| Failure::usage("the token is none of an EVM chain"))?;
    let owner = to_alloy(owner).ok_or_else(|| Failure::usage(format!("{owner} is no EVM address")))?;
    let used = nonce.map(|nonce| abi::authorization_state(owner, (*nonce).into()));
    let reads = [abi::balance_of(owner)].into_iter().chain(used);
    let reads = reads.map(|data| Read { to, data, kind: ReadKind::View }).collect();
    let answers = chain.read(reads).await.map_err(|error| unread(&error.to_string()))?;
    let mut said = Vec::new();
    for answer in &answers {
        said.push(match answer {
            ReadResult::Returned(data) => data,
            ReadResult::Reverted(_) => return Err(unread("the token does not say what is on the key")),
            ReadResult::Unavailable => return Err(unread("the node does not say what is on the key")),
        });
    }
    let balance = said.first().ok_or_else(|| unread("the node answers nothing"))?;
    if balance.is_empty() {
        return Ok(None);
    }
    let garbled = || Failure::failed(unread("the token answered what cannot be read").message);
    let atoms = abi::as_uint(balance).and_then(|n| u128::try_from(n).ok()).ok_or_else(garbled)?;
    let is_used = match nonce {
        Some(_) => said.get(1).and_then(|data| abi::as_bool(data)).ok_or_else(garbled)?,
        None => false,
    };
    Ok(Some(Seen { atoms, is_used }))
}

/// Who sends, and where.
struct Rig {
    key: LocalKey,
    outbox: Outbox,
    nodes: Vec<(Arc<dyn Chain>, bool)>,
    /// Why others are not among them.
    down: Vec<Failure>,
}

impl Rig {
    async fn of(home: &Home, journal: &Journal, sending: &Sending) -> Result<Self, Failure> {
        let wanted = sending.network.as_deref().map(network).transpose()?;
        let (mut nodes, mut down) = nodes_up(journal, &sending.rpc, wanted.as_ref()).await?;
        if nodes.is_empty() {
            return Err(down.pop().unwrap_or_else(|| Failure::usage("name a node: --rpc URL")));
        }
        let reference =
            sending.key.as_ref().map_or_else(|| default_key(home, journal), |key| Ok(key.clone()))?;
        let key = LocalKey::new(load_key(&home.keystore(), &reference, sending.password_file.as_ref())?);
        if is_dev_key(&key.address()) {
            nodes.retain(|(_, devnet)| *devnet);
            if nodes.is_empty() {
                return Err(Failure::usage(format!(
                    "everybody knows the key of {}: it may send on embedded chains only",
                    shown_address(&key.address())
                )));
            }
        }
        Ok(Self { key, outbox: Outbox::new(home.path().join("transactions")), nodes, down })
    }

    async fn send(&self, chain: &dyn Chain, what: &str, call: &ContractCall) -> Result<Receipt, Failure> {
        let world = TokioWorld::new();
        let desk = Desk {
            outbox: &self.outbox,
            sender: Sender { chain, key: &self.key },
            world: &world as &dyn World,
            patience: TRANSACTION_PATIENCE,
        };
        Ok(desk.send(what, call, Urgency::Patient).await?)
    }
}

async fn pay_in(fund: &Fund, out: &Out) -> Result<(), Failure> {
    let home = home()?;
    let journal = home.journal()?;
    // Money goes to no key that could not spend it.
    let keys = journal.session_keys(&system_clock())?;
    let standing = keys.into_iter().find(|one| one.key.terms.name == fund.name);
    let standing = standing.ok_or_else(|| SessionKeyError::Unknown(fund.name.clone()))?;
    if standing.left.is_zero() {
        return Err(Failure::failed(format!("the session key {} has ended", fund.name)));
    }
    let file = fund.sending.password_file.as_ref();
    // The row says by its own signature that nobody edited it, and not that it is the one which the wallet made.
    let key = open(&home, &journal, &fund.name, || passphrase(file, "Passphrase: "))?;
    let mut rig = Rig::of(&home, &journal, &fund.sending).await?;
    if let Some(failure) = rig.down.pop() {
        return Err(failure);
    }
    let [(chain, _)] = rig.nodes.as_slice() else {
        return Err(Failure::usage("name the network with --network"));
    };
    let registry = Registry::builtin();
    let asset = registry.dollar(chain.network()).ok_or_else(|| {
        Failure::usage(format!("the registry lists no dollar of {}", shown_network(chain.network())))
    })?;
    let money =
        asset.parse(&fund.amount).map_err(|error| Failure::usage(format!("{:?}: {error}", fund.amount)))?;
    let data = abi::transfer(key.address(), U256::from(money.atoms()));
    let call = ContractCall { to: asset.id.address().clone(), data, revert: Revert::decode };
    let what = format!("fund session key {} with {}", fund.name, fund.amount);
    let receipt = rig.send(chain.as_ref(), &what, &call).await?;
    let json = json!({
        "done": "funded",
        "key": format!("{PREFIX}{}", fund.name),
        "money": money_json(&registry, &money),
        "transaction": receipt.tx.to_string(),
    });
    out.say(&json, &format!("funded: {} ({})", shown_money(&registry, &money), receipt.tx));
    Ok(())
}

async fn bring_home(end: &End, out: &Out) -> Result<(), Failure> {
    let home = home()?;
    let journal = home.journal()?;
    // It holds from here on, whatever the chain says.
    let ended = journal.end_session_key(&end.name, end.let_go, &system_clock())?;
    let mut rig = Rig::of(&home, &journal, &end.sending).await.map_err(|failure| Failure {
        message: format!("{} has ended, and what is on it was not sent: {}", end.name, failure.message),
        ..failure
    })?;
    let file = end.sending.password_file.as_ref();
    let key = open(&home, &journal, &end.name, || passphrase(file, "Passphrase: "))?;
    let registry = Registry::builtin();
    let (mut moved, mut stays, mut text) = (Vec::new(), Vec::new(), String::new());
    let mut failed = std::mem::take(&mut rig.down);
    for (chain, _) in &rig.nodes {
        for asset in registry.iter().filter(|asset| asset.id.network() == chain.network()) {
            let (journal, chain) = (&journal, chain.as_ref());
            let way = Way { sent: Vec::new(), left: 0, until: None };
            let mut trip = Trip { journal, rig: &rig, chain, ended: &ended, key: &key, asset, way };
            let done = trip.send_home().await;
            let way = trip.way;
            for (money, tx) in way.sent {
                text += &format!("sent home: {} ({tx})\n", shown_money(&registry, &money));
                let mut row = money_json(&registry, &money);
                row["transaction"] = json!(tx);
                moved.push(row);
            }
            if way.left > 0 {
                let money = asset.atoms(way.left);
                let why = match way.until {
                    Some(until) => {
                        format!("payments that were shown may take it until {until}: run this again then")
                    }
                    None => "the token does not move by a signature alone".to_owned(),
                };
                text += &format!("stays: {}: {why}\n", shown_money(&registry, &money));
                let mut row = money_json(&registry, &money);
                row["until"] = json!(way.until.map(|until| until.to_string()));
                stays.push(row);
            }
            failed.extend(done.err());
        }
    }
    for failure in &failed {
        text += &format!("failed: {}\n", failure.message);
    }
    let rows = failed.iter().map(|one| json!({ "why": one.message, "exit_code": one.code }));
    let json = json!({
        "done": "ended",
        "key": format!("{PREFIX}{}", end.name),
        "home": ended.terms.home.to_string(),
        "moved": moved,
        "stays": stays,
        "failed": rows.collect::<Vec<_>>(),
    });
    out.say(&json, &format!("{} has ended, and signs nothing more\n{text}", end.name));
    match failed.into_iter().max_by_key(|failure| failure.code) {
        Some(Failure { message, code }) => {
            Err(Failure { message: format!("not all of it was sent home: {message}"), code })
        }
        None => Ok(()),
    }
}

/// What went home of one token, and what stays for now.
struct Way {
    sent: Vec<(farthing_primitives::Money, String)>,
    left: u128,
    until: Option<farthing_primitives::Timestamp>,
}

/// The way home of what is on a key of one token.
struct Trip<'a> {
    journal: &'a Journal,
    rig: &'a Rig,
    chain: &'a dyn Chain,
    ended: &'a SessionKey,
    key: &'a farthing_evm::Key,
    asset: &'a Asset,
    way: Way,
}

impl Trip<'_> {
    /// Sends home what was on its way first, and then the rest, once. What is left is reckoned and not asked again: a
    /// node that is behind would say what was there before.
    async fn send_home(&mut self) -> Result<(), Failure> {
        let Self { journal, chain, ended, asset, .. } = *self;
        let before = journal.open_sweep(ended, &asset.id)?;
        let nonce = before.as_ref().map(|sweep| &sweep.nonce);
        let Some(Seen { atoms, is_used }) = look(chain, asset, &ended.terms.address, nonce).await? else {
            return match before {
                // Money of it was on its way: the token is there, and the node does not know.
                Some(_) => Err(Failure {
                    message: format!(
                        "the node of {} knows no {}",
                        shown_network(chain.network()),
                        asset.symbol
                    ),
                    code: NODE_DOWN,
                }),
                None => Ok(()),
            };
        };
        let mut has = atoms;
        if let Some(sweep) = before {
            if is_used {
                journal.end_sweep(&sweep.nonce, true, None)?;
            } else if sweep.expires <= system_clock().wall || sweep.atoms > has {
                // Were it to come all the same, it would bring the same money to the same place.
                journal.end_sweep(&sweep.nonce, false, None)?;
            } else {
                self.submit(&sweep).await?;
                has -= sweep.atoms;
            }
        }
        if asset.pull != PullMethod::Eip3009 {
            self.way.left = has;
            return Ok(());
        }
        let clock = system_clock();
        let (held, until) = journal.may_still_move(&ended.terms.address, &asset.id, &clock)?;
        let free = has.saturating_sub(held);
        (self.way.left, self.way.until) = (has - free, until);
        if free == 0 {
            return Ok(());
        }
        let mut nonce = [0u8; 32];
        getrandom::fill(&mut nonce)
            .map_err(|_| Failure::failed("the operating system gives no random bytes"))?;
        let sweep = journal.begin_sweep(ended, &asset.id, free, nonce, &clock)?;
        self.submit(&sweep).await
    }

    /// Signs a transfer that is written down, has it sent, and writes down that it moved.
    async fn submit(&mut self, sweep: &Sweep) -> Result<(), Failure> {
        let Self { asset, .. } = *self;
        // INVARIANT: it is on the disk.
        let data = call_home(self.key, &self.ended.terms, sweep, asset)?;
        let call = ContractCall { to: asset.id.address().clone(), data, revert: Revert::decode };
        let what = format!("send home what is on session key {}", self.ended.terms.name);
        let receipt = self.rig.send(self.chain, &what, &call).await?;
        // A transaction that succeeded proves nothing; the token's own word does.
        let nonce = farthing_evm::B256::from(sweep.nonce);
        let used = receipt.logs.iter().filter(|log| Some(log.address) == to_alloy(asset.id.address()));
        if !used.filter_map(AuthorizationUsed::decode).any(|used| used.nonce == nonce) {
            return Err(Failure::failed(format!("{} moved nothing", receipt.tx)));
        }
        let tx = receipt.tx.to_string();
        self.way.sent.push((asset.atoms(sweep.atoms), tx.clone()));
        Ok(self.journal.end_sweep(&sweep.nonce, true, Some(&tx))?)
    }
}

/// The key of this name, as the wallet made it.
pub(super) fn open(
    home: &Home,
    journal: &Journal,
    name: &str,
    passphrase: impl FnOnce() -> Result<keystore::Passphrase, KeystoreError>,
) -> Result<farthing_evm::Key, Failure> {
    let known = journal.session_key(name)?;
    let key = home.session_keys().load(name, &passphrase()?)?;
    match farthing_evm::from_alloy(key.address()) == known.terms.address {
        true => Ok(key),
        false => Err(WayHomeError::OtherKey.into()),
    }
}
