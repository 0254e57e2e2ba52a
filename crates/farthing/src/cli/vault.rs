//! `farthing vault`: a cap on the chain that stolen software cannot exceed.

mod show;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use farthing_chain::LocalKey;
use farthing_engine::{Chain, Receipt, RelayerKey};
use farthing_evm::vault::{self, Announcement, Change, Limits, Parts, Refilled, Topic};
use farthing_evm::{Bytes, Revert, abi, from_alloy, to_alloy};
use farthing_primitives::{Address, Asset, AssetId, Network, Registry};
use farthing_wallet::TokioWorld;
use farthing_wallet::outbox::{Desk, Outbox, OutboxError, Urgency};
use farthing_wallet::transact::{ContractCall, Sender};
use farthing_wallet::vault::{LookError, VaultSight, look};
use serde_json::json;

use super::Failure;
use super::wallet::{
    Out, address_of, home, is_dev_key, load_key, network, node, shown_address, shown_network,
};
use show::{announcement_json, announcement_text, money_json, shown_atoms, sight_json, sight_text};

/// How long a transaction is waited for.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(60);
/// The exit code for a transaction that is sent and in no block yet.
const ON_ITS_WAY: u8 = 5;

/// Keep a float on the chain, out of which a hot wallet is topped up within caps that no software can exceed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing vault deploy --key owner --hot agent --per-hour 20 --per-day 100 --target 10
  farthing vault fund 0xVAULT --key owner --amount 500
  farthing vault status 0xVAULT
  farthing vault refill 0xVAULT --key agent        anybody may; run it by a timer
  farthing vault freeze 0xVAULT --key owner        at once; the guardian may, too

Whoever steals the hot wallet's key gets what that wallet holds and what is refilled before the freeze,
and nothing else: the contract sees to it. Keep the owner's key on another machine than the hot one.

Each command that changes something sends a transaction of the key that is named, which pays for it
with the chain's own coin. Amounts are in units of the token. Passphrases come from --password-file,
from $FARTHING_PASSPHRASE, or from a prompt.

Exit codes: 0 done; 1 it could not be done; 2 called wrongly; 5 sent, and in no block yet: run the
same command again, which sends no second one; 6 the node does not answer.")]
pub struct VaultArgs {
    #[command(subcommand)]
    command: Command,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
    /// The key that sends: a name, or env:NAME, file:PATH, keystore:NAME, dev:NUMBER
    #[arg(long, value_name = "KEY", global = true)]
    key: Option<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE", global = true)]
    password_file: Option<PathBuf>,
    /// The network, if nodes of several are known
    #[arg(long, value_name = "NETWORK", global = true)]
    network: Option<String>,
    /// A node to ask, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',', global = true)]
    rpc: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Deploy(Deploy),
    Fund(Fund),
    Status(Status),
    Refill(Refill),
    /// Stop refills at once, and void all that is announced. The owner or the guardian
    Freeze(Named),
    /// Announce the end of a freeze
    Unfreeze(Named),
    Tighten(Tighten),
    Loosen(Loosen),
    Cancel(Cancel),
    Apply(Apply),
    Withdraw(Withdraw),
    Offer(Offer),
    /// Become the owner of a vault that was offered
    Accept(Named),
}

/// Make a vault. Its owner is the key that is named
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing vault deploy --key owner --hot agent --per-hour 20 --per-day 100 --target 10
  farthing vault deploy --key owner --hot 0x2096… --guardian 0x7099… --delay 2d \\
    --per-hour 20 --per-day 100 --target 10 --network base --rpc https://mainnet.base.org

The same parts make the same vault, at one address: a second run finds it there.")]
struct Deploy {
    /// The wallet that is topped up: an address, or the name of its key
    #[arg(long, value_name = "WALLET")]
    hot: String,
    /// Who else may freeze and tighten, and nothing more
    #[arg(long, value_name = "ADDRESS")]
    guardian: Option<String>,
    /// How long loosening waits, from 1h to 30d
    #[arg(long, value_name = "TIME", default_value = "1d")]
    delay: String,
    #[command(flatten)]
    caps: Caps,
    /// The token: a symbol, or eip155:…/erc20:0x…; otherwise the network's dollar
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
}

#[derive(Debug, Args)]
struct Caps {
    /// The most that refills move within any hour
    #[arg(long, value_name = "AMOUNT")]
    per_hour: Option<String>,
    /// The most that refills move within any 24 hours
    #[arg(long, value_name = "AMOUNT")]
    per_day: Option<String>,
    /// What a refill brings the hot wallet up to, and never above
    #[arg(long, value_name = "AMOUNT")]
    target: Option<String>,
}

/// Send tokens of the key to a vault
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing vault fund 0xVAULT --key owner --amount 500")]
struct Fund {
    /// The vault's address
    vault: String,
    /// How much
    #[arg(long, value_name = "AMOUNT")]
    amount: String,
    /// The token, if it is not the network's dollar
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
}

/// Show what a vault holds, allows and waits for
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing vault status 0xVAULT --rpc https://sepolia.base.org")]
struct Status {
    /// The vault's address
    vault: String,
}

/// Top up the hot wallet as far as the caps allow now. Anybody may
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing vault refill 0xVAULT --key agent")]
struct Refill {
    /// The vault's address
    vault: String,
    /// The token, if it is not the network's dollar
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
}

// What these three do is said at their names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing vault freeze 0xVAULT --key owner        no refill from its block on; all announcements are void
  farthing vault unfreeze 0xVAULT --key owner      announces it; \"farthing vault apply\" after the delay
  farthing vault accept 0xVAULT --key heir         become the owner, if the owner offered it")]
struct Named {
    /// The vault's address
    vault: String,
}

/// Lower limits or lengthen the delay, at once
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing vault tighten 0xVAULT --key guardian --per-hour 5
  farthing vault tighten 0xVAULT --key owner --delay 7d")]
struct Tighten {
    /// The vault's address
    vault: String,
    #[command(flatten)]
    caps: Caps,
    /// The token, if it is not the network's dollar
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
    /// How long loosening waits. Only the owner
    #[arg(long, value_name = "TIME", conflicts_with_all = ["per_hour", "per_day", "target"])]
    delay: Option<String>,
}

/// Announce higher limits, another hot wallet or guardian, or a shorter delay
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing vault loosen 0xVAULT --key owner --per-hour 50
  farthing vault loosen 0xVAULT --key owner --hot agent-2
  farthing vault loosen 0xVAULT --key owner --guardian none
  farthing vault apply 0xVAULT --key owner         once the vault's delay is over")]
struct Loosen {
    /// The vault's address
    vault: String,
    #[command(flatten)]
    caps: Caps,
    /// The token, if it is not the network's dollar
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
    /// Another wallet to top up: an address, or the name of its key
    #[arg(long, value_name = "WALLET", conflicts_with_all = ["per_hour", "per_day", "target"])]
    hot: Option<String>,
    /// Another guardian, or none
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["per_hour", "per_day", "target", "hot"])]
    guardian: Option<String>,
    /// How long loosening waits
    #[arg(long, value_name = "TIME", conflicts_with_all = ["per_hour", "per_day", "target", "hot", "guardian"])]
    delay: Option<String>,
}

/// What may be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Limits,
    Hot,
    Guardian,
    Delay,
    Unfreeze,
}

/// Take back what is announced, at once
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing vault cancel 0xVAULT limits --key guardian")]
struct Cancel {
    /// The vault's address
    vault: String,
    /// What is announced
    what: What,
    /// The token of limits, if it is not the network's dollar
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
}

/// Put in force what was announced, once the delay is over
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing vault apply 0xVAULT --key owner               everything that is ready
  farthing vault apply 0xVAULT unfreeze --key owner")]
struct Apply {
    /// The vault's address
    vault: String,
    /// Only this
    what: Option<What>,
}

/// Move tokens out of a vault. Only the owner; no cap holds, nor a freeze
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing vault withdraw 0xVAULT --key owner --amount 100
  farthing vault withdraw 0xVAULT --key owner --all --to 0x2096…")]
struct Withdraw {
    /// The vault's address
    vault: String,
    /// How much
    #[arg(long, value_name = "AMOUNT", required_unless_present = "all")]
    amount: Option<String>,
    /// Everything
    #[arg(long, conflicts_with = "amount")]
    all: bool,
    /// To whom; otherwise the owner
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// The token, if it is not the network's dollar
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
}

/// Offer the vault to another owner, who has to accept it; or to none, to take the offer back
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing vault offer 0xVAULT --key owner --to 0x2096…")]
struct Offer {
    /// The vault's address
    vault: String,
    /// Who may accept it, or none
    #[arg(long, value_name = "ADDRESS")]
    to: String,
}

pub async fn run(args: VaultArgs) -> ExitCode {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    let done = match &args.command {
        Command::Deploy(deploy) => make(&args, deploy, &out).await,
        Command::Fund(fund) => pay_in(&args, fund, &out).await,
        Command::Status(status) => show(&args, status, &out).await,
        Command::Refill(refill) => top_up(&args, refill, &out).await,
        Command::Freeze(named) => stop(&args, named, &out).await,
        Command::Unfreeze(named) => announce(&args, &named.vault, Change::Unfreeze, &out).await,
        Command::Tighten(tighten) => allow_less(&args, tighten, &out).await,
        Command::Loosen(loosen) => allow_more(&args, loosen, &out).await,
        Command::Cancel(cancel) => take_back(&args, cancel, &out).await,
        Command::Apply(apply) => put_in_force(&args, apply, &out).await,
        Command::Withdraw(withdraw) => pay_out(&args, withdraw, &out).await,
        Command::Offer(offer) => hand_over(&args, offer, &out).await,
        Command::Accept(named) => take_over(&args, named, &out).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("farthing: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

impl From<OutboxError> for Failure {
    fn from(error: OutboxError) -> Self {
        let code = if matches!(error, OutboxError::Pending { .. }) { ON_ITS_WAY } else { 1 };
        Self { message: error.to_string(), code }
    }
}

impl From<LookError> for Failure {
    fn from(error: LookError) -> Self {
        Self::failed(error.to_string())
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Who sends, and where.

/// The chain that is meant, and whether it is one for development.
struct Place {
    chain: Arc<dyn Chain>,
    devnet: bool,
    registry: Registry,
}

impl Place {
    async fn of(args: &VaultArgs) -> Result<Self, Failure> {
        let wanted = args.network.as_deref().map(network).transpose()?;
        let named: Vec<&String> = args.rpc.iter().filter(|url| !url.is_empty()).collect();
        let mut nodes = Vec::new();
        // Only nodes that are meant are asked: a freeze must not fail because another network's node is down.
        for url in &named {
            nodes.push(node(url, None).await?);
        }
        if named.is_empty() {
            for (of, url) in home()?.journal()?.rpc_urls()? {
                if wanted.as_ref().is_none_or(|wanted| *wanted == of) {
                    nodes.push(node(&url, Some(&of)).await?);
                }
            }
        }
        nodes.retain(|(chain, _)| wanted.as_ref().is_none_or(|wanted| chain.network() == wanted));
        nodes.dedup_by(|a, b| a.0.network() == b.0.network());
        match nodes.as_slice() {
            [(chain, devnet)] => {
                Ok(Self { chain: chain.clone(), devnet: *devnet, registry: Registry::builtin() })
            }
            [] => Err(Failure::usage("name a node of the vault's network: --rpc URL")),
            several => {
                let names: Vec<String> =
                    several.iter().map(|(chain, _)| shown_network(chain.network())).collect();
                Err(Failure::usage(format!("name the network with --network: {}", names.join(", "))))
            }
        }
    }

    fn network(&self) -> &Network {
        self.chain.network()
    }

    /// The token that is named, or the network's dollar.
    fn asset(&self, name: Option<&String>) -> Result<&Asset, Failure> {
        let found = match name {
            None => self.registry.dollar(self.network()),
            Some(text) => match text.parse::<AssetId>() {
                Ok(id) => self.registry.get(&id).filter(|asset| asset.id.network() == self.network()),
                Err(_) => self.registry.by_symbol(self.network(), text),
            },
        };
        found.ok_or_else(|| {
            let name = name.map_or("a dollar", String::as_str);
            Failure::usage(format!(
                "the registry lists no {name} of {}: name a token with --asset",
                shown_network(self.network())
            ))
        })
    }

    async fn sight(&self, vault: &str) -> Result<VaultSight, Failure> {
        Ok(look(self.chain.as_ref(), &address(vault)?).await?)
    }
}

/// The key that sends, in its place.
struct Rig {
    place: Place,
    key: LocalKey,
    outbox: Outbox,
}

impl Rig {
    async fn of(args: &VaultArgs) -> Result<Self, Failure> {
        let reference = args.key.as_ref().ok_or_else(|| {
            Failure::usage(
                "name the key that sends the transaction: --key NAME (the owner's, not the hot wallet's)",
            )
        })?;
        let home = home()?;
        let place = Place::of(args).await?;
        let key = LocalKey::new(load_key(&home.keystore(), reference, args.password_file.as_ref())?);
        if is_dev_key(&key.address()) && !place.devnet {
            return Err(Failure::usage(format!(
                "everybody knows the key of {}: it may send on embedded chains only",
                shown_address(&key.address())
            )));
        }
        Ok(Self { place, key, outbox: Outbox::new(home.path().join("transactions")) })
    }

    fn me(&self) -> Address {
        self.key.address()
    }

    async fn send(&self, what: &str, call: &ContractCall, urgency: Urgency) -> Result<Receipt, Failure> {
        let world = TokioWorld::new();
        let desk = Desk {
            outbox: &self.outbox,
            sender: Sender { chain: self.place.chain.as_ref(), key: &self.key },
            world: &world,
            patience: TRANSACTION_PATIENCE,
        };
        Ok(desk.send(what, call, urgency).await?)
    }

    /// Calls a vault as its owner, who must not be the hot wallet.
    async fn as_owner(
        &self,
        sight: &VaultSight,
        what: &str,
        data: Bytes,
        urgency: Urgency,
    ) -> Result<Receipt, Failure> {
        let owner = from_alloy(sight.state.owner);
        if self.me() != owner {
            return Err(self.wrong_key(sight, &format!("{} is its owner", shown_address(&owner))));
        }
        self.send(what, &vault_call(&sight.vault, data), urgency).await
    }

    /// The same for what the guardian may do as well.
    async fn as_owner_or_guardian(
        &self,
        sight: &VaultSight,
        what: &str,
        data: Bytes,
    ) -> Result<Receipt, Failure> {
        let (owner, guardian) = (from_alloy(sight.state.owner), from_alloy(sight.state.guardian));
        if self.me() != owner && self.me() != guardian {
            let guardian = match sight.state.guardian.is_zero() {
                true => "nobody".to_owned(),
                false => shown_address(&guardian),
            };
            let who = format!("{} is its owner, {guardian} its guardian", shown_address(&owner));
            return Err(self.wrong_key(sight, &who));
        }
        // What allows less is never kept waiting by what else was sent.
        self.send(what, &vault_call(&sight.vault, data), Urgency::Now).await
    }

    fn wrong_key(&self, sight: &VaultSight, who: &str) -> Failure {
        let me = shown_address(&self.me());
        Failure::usage(if self.me() == from_alloy(sight.state.hot_wallet) {
            format!("{me} is the vault's hot wallet, whose key may do nothing but refill: {who}")
        } else {
            format!("{me} has no say in this vault: {who}")
        })
    }
}

fn vault_call(vault: &Address, data: Bytes) -> ContractCall {
    ContractCall { to: vault.clone(), data, revert: vault::revert }
}

/// An address as a person wrote it.
fn address(text: &str) -> Result<Address, Failure> {
    let parsed = Address::evm(text).map_err(|error| Failure::usage(error.to_string()))?;
    if !crate::config::checksum_holds(text, &parsed) {
        return Err(Failure::usage(format!("{text}: the checksum in its capitals is wrong")));
    }
    Ok(parsed)
}

/// A wallet by its address, or by the name of its key, which is not opened.
async fn wallet(text: &str) -> Result<Address, Failure> {
    if text.starts_with("0x") { address(text) } else { address_of(&home()?, text).await }
}

fn alloy(address: &Address) -> Result<farthing_evm::Address, Failure> {
    to_alloy(address).ok_or_else(|| Failure::usage(format!("{address} is no EVM address")))
}

/// Somebody, or nobody.
fn somebody(text: &str) -> Result<farthing_evm::Address, Failure> {
    if text == "none" { Ok(farthing_evm::Address::ZERO) } else { alloy(&address(text)?) }
}

fn delay(text: &str) -> Result<u32, Failure> {
    let asked = crate::config::parse_duration(text).map_err(Failure::usage)?;
    u32::try_from(asked.as_secs())
        .ok()
        .filter(|seconds| vault::DELAY_BOUNDS.contains(seconds))
        .ok_or_else(|| Failure::usage(format!("a delay of {text}: it has to be from 1h to 30d")))
}

fn atoms(asset: &Asset, text: &str) -> Result<u128, Failure> {
    let parsed = asset.parse(text).map(|money| money.atoms());
    parsed.map_err(|error| Failure::usage(format!("{text:?}: {error}")))
}

impl Caps {
    fn are_none(&self) -> bool {
        self.per_hour.is_none() && self.per_day.is_none() && self.target.is_none()
    }

    /// What is not said stays as it is.
    fn over(&self, asset: &Asset, now: Limits) -> Result<Limits, Failure> {
        let one = |text: &Option<String>, now| text.as_ref().map_or(Ok(now), |text| atoms(asset, text));
        Ok(Limits {
            per_hour: one(&self.per_hour, now.per_hour)?,
            per_day: one(&self.per_day, now.per_day)?,
            target: one(&self.target, now.target)?,
        })
    }
}

impl What {
    fn topic(self, token: farthing_evm::Address) -> Topic {
        match self {
            Self::Limits => Topic::Limits(token),
            Self::Hot => Topic::HotWallet,
            Self::Guardian => Topic::Guardian,
            Self::Delay => Topic::Delay,
            Self::Unfreeze => Topic::Unfreeze,
        }
    }

    fn is_of(self, change: &Change) -> bool {
        matches!(
            (self, change),
            (Self::Limits, Change::Limits { .. })
                | (Self::Hot, Change::HotWallet(_))
                | (Self::Guardian, Change::Guardian(_))
                | (Self::Delay, Change::Delay(_))
                | (Self::Unfreeze, Change::Unfreeze)
        )
    }
}

/// Everything that is announced in a vault.
fn announced(sight: &VaultSight) -> impl Iterator<Item = &Announcement> {
    let of_tokens = sight.tokens.iter().filter_map(|token| token.state.announced.as_ref());
    sight.state.announced.iter().chain(of_tokens)
}

// ---------------------------------------------------------------------------------------------------------------------
// The commands.

async fn make(args: &VaultArgs, deploy: &Deploy, out: &Out) -> Result<(), Failure> {
    let hot = wallet(&deploy.hot).await?;
    let rig = Rig::of(args).await?;
    if hot == rig.me() {
        return Err(Failure::usage(
            "the owner's key and the hot wallet's are the same: whoever stole it would have the float as well",
        ));
    }
    let asset = rig.place.asset(deploy.asset.as_ref())?;
    let limits = deploy.caps.over(asset, Limits::default())?;
    if limits.per_hour == 0 || limits.per_day == 0 || limits.target == 0 {
        return Err(Failure::usage("a vault needs --per-hour, --per-day and --target"));
    }
    let parts = Parts {
        owner: alloy(&rig.me())?,
        guardian: somebody(deploy.guardian.as_deref().unwrap_or("none"))?,
        hot_wallet: alloy(&hot)?,
        delay: delay(&deploy.delay)?,
        limits: vec![(alloy(asset.id.address())?, limits)],
    };
    let at = from_alloy(parts.address());
    let chain = rig.place.chain.as_ref();
    let code_at = async |address: &Address| {
        chain.code(address).await.map_err(|error| Failure::failed(error.to_string()))
    };
    let mut transaction = None;
    if code_at(&at).await?.is_empty() {
        let deployer = from_alloy(vault::CREATE2_DEPLOYER);
        // A call of nobody would succeed, and make nothing.
        if code_at(&deployer).await?.is_empty() {
            return Err(Failure::failed(format!(
                "{} has no CREATE2 deployer at {deployer}",
                shown_network(rig.place.network())
            )));
        }
        let call = ContractCall { to: deployer, data: parts.deployment(), revert: Revert::decode };
        transaction = Some(rig.send("deploy", &call, Urgency::Patient).await?.tx.to_string());
    }
    let sight = look(chain, &at).await?;
    let mut json = sight_json(&rig.place, &sight);
    json["transaction"] = json!(transaction);
    let made = if transaction.is_some() { "made" } else { "there already" };
    let text = format!("{made}\n{}", sight_text(&rig.place, &sight));
    out.say(&json, &text);
    Ok(())
}

async fn show(args: &VaultArgs, status: &Status, out: &Out) -> Result<(), Failure> {
    let place = Place::of(args).await?;
    let sight = place.sight(&status.vault).await?;
    out.say(&sight_json(&place, &sight), &sight_text(&place, &sight));
    Ok(())
}

async fn pay_in(args: &VaultArgs, fund: &Fund, out: &Out) -> Result<(), Failure> {
    let rig = Rig::of(args).await?;
    // Money goes to nothing that is no vault.
    let sight = rig.place.sight(&fund.vault).await?;
    let asset = rig.place.asset(fund.asset.as_ref())?;
    let amount = atoms(asset, &fund.amount)?;
    let data = abi::transfer(alloy(&sight.vault)?, farthing_evm::U256::from(amount));
    let call = ContractCall { to: asset.id.address().clone(), data, revert: Revert::decode };
    let receipt =
        rig.send(&format!("fund with {} {}", fund.amount, asset.symbol), &call, Urgency::Patient).await?;
    moved(&rig.place, "funded", &asset.id, amount, &receipt, out);
    Ok(())
}

/// Says what moved.
fn moved(place: &Place, what: &str, asset: &AssetId, amount: u128, receipt: &Receipt, out: &Out) {
    let mut json = json!({ "done": what, "transaction": receipt.tx.to_string() });
    json["money"] = money_json(place, asset.address(), amount);
    out.say(&json, &format!("{what}: {} ({})", shown_atoms(place, asset.address(), amount), receipt.tx));
}

async fn top_up(args: &VaultArgs, refill: &Refill, out: &Out) -> Result<(), Failure> {
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(&refill.vault).await?;
    let asset = rig.place.asset(refill.asset.as_ref())?;
    let token = asset.id.address();
    let Some(now) = sight.token(token).filter(|now| now.state.refillable > 0) else {
        let why = why_nothing(&sight, token);
        let json = json!({ "done": "nothing", "reason": why.0, "money": money_json(&rig.place, token, 0) });
        out.say(&json, &format!("nothing to refill: {}", why.1));
        return Ok(());
    };
    let most = now.state.refillable;
    let call = vault_call(&sight.vault, vault::refill(alloy(token)?));
    let receipt = rig.send("refill", &call, Urgency::Patient).await?;
    let vault = alloy(&sight.vault)?;
    let said = receipt.logs.iter().filter(|log| log.address == vault).find_map(Refilled::decode);
    let amount = said.map_or(most, |said| said.amount);
    moved(&rig.place, "refilled", &asset.id, amount, &receipt, out);
    Ok(())
}

/// Why a refill would move nothing: a code and a sentence.
fn why_nothing(sight: &VaultSight, token: &Address) -> (&'static str, &'static str) {
    let Some(now) = sight.token(token) else { return ("no_limits", "the vault has no limits for the token") };
    let limits = now.state.limits;
    if sight.state.frozen {
        ("frozen", "the vault is frozen")
    } else if now.hot >= limits.target {
        ("at_target", "the hot wallet is at its target")
    } else if now.float == 0 {
        ("empty", "the vault is empty")
    } else if now.state.used_hour >= limits.per_hour {
        ("hourly_cap", "the hourly cap is used up")
    } else {
        ("daily_cap", "the daily cap is used up")
    }
}

async fn stop(args: &VaultArgs, named: &Named, out: &Out) -> Result<(), Failure> {
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(&named.vault).await?;
    let receipt = rig.as_owner_or_guardian(&sight, "freeze", vault::freeze()).await?;
    let json = json!({ "done": "frozen", "transaction": receipt.tx.to_string(), "block": receipt.block });
    out.say(&json, &format!("frozen, from block {} on ({})", receipt.block, receipt.tx));
    Ok(())
}

async fn allow_less(args: &VaultArgs, tighten: &Tighten, out: &Out) -> Result<(), Failure> {
    if tighten.delay.is_none() && tighten.caps.are_none() {
        return Err(Failure::usage("say what to tighten: --per-hour, --per-day, --target or --delay"));
    }
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(&tighten.vault).await?;
    let receipt = if let Some(text) = &tighten.delay {
        let data = vault::lengthen_delay(delay(text)?);
        rig.as_owner(&sight, "lengthen the delay", data, Urgency::Now).await?
    } else {
        let asset = rig.place.asset(tighten.asset.as_ref())?;
        let now = sight.limits(asset.id.address());
        let limits = tighten.caps.over(asset, now)?;
        if !limits.are_within(&now) {
            return Err(Failure::usage("a limit would rise, which waits: farthing vault loosen"));
        }
        let data = vault::tighten(alloy(asset.id.address())?, limits);
        rig.as_owner_or_guardian(&sight, "tighten", data).await?
    };
    after(&rig, &sight, "tightened", &receipt, out).await
}

/// Shows the vault as it is after a change.
async fn after(
    rig: &Rig,
    before: &VaultSight,
    what: &str,
    receipt: &Receipt,
    out: &Out,
) -> Result<(), Failure> {
    let sight = look(rig.place.chain.as_ref(), &before.vault).await?;
    let mut json = sight_json(&rig.place, &sight);
    json["done"] = json!(what);
    json["transaction"] = json!(receipt.tx.to_string());
    out.say(&json, &format!("{what} ({})\n{}", receipt.tx, sight_text(&rig.place, &sight)));
    Ok(())
}

async fn allow_more(args: &VaultArgs, loosen: &Loosen, out: &Out) -> Result<(), Failure> {
    let change = if let Some(text) = &loosen.hot {
        Change::HotWallet(alloy(&wallet(text).await?)?)
    } else if let Some(text) = &loosen.guardian {
        Change::Guardian(somebody(text)?)
    } else if let Some(text) = &loosen.delay {
        Change::Delay(delay(text)?)
    } else if loosen.caps.are_none() {
        return Err(Failure::usage(
            "say what to loosen: --per-hour, --per-day, --target, --hot, --guardian or --delay",
        ));
    } else {
        let place = Place::of(args).await?;
        let sight = place.sight(&loosen.vault).await?;
        let asset = place.asset(loosen.asset.as_ref())?;
        let now = sight.limits(asset.id.address());
        let limits = loosen.caps.over(asset, now)?;
        if limits.are_within(&now) {
            return Err(Failure::usage("no limit would rise: farthing vault tighten does it at once"));
        }
        Change::Limits { token: alloy(asset.id.address())?, limits }
    };
    announce(args, &loosen.vault, change, out).await
}

async fn announce(args: &VaultArgs, vault: &str, change: Change, out: &Out) -> Result<(), Failure> {
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(vault).await?;
    if matches!(change, Change::HotWallet(who) if from_alloy(who) == rig.me()) {
        return Err(Failure::usage("the owner's key must not be the hot wallet's"));
    }
    let receipt = rig.as_owner(&sight, "announce", vault::announce(change), Urgency::Patient).await?;
    let at = alloy(&sight.vault)?;
    let said = receipt.logs.iter().filter(|log| log.address == at).find_map(Announcement::decode);
    let said = said.ok_or_else(|| Failure::failed(format!("{} announced nothing", receipt.tx)))?;
    let mut json = announcement_json(&rig.place, &said, sight.time);
    json["done"] = json!("announced");
    json["transaction"] = json!(receipt.tx.to_string());
    let text = announcement_text(&rig.place, &said, sight.time);
    out.say(&json, &format!("announced ({}): {text}", receipt.tx));
    Ok(())
}

async fn take_back(args: &VaultArgs, cancel: &Cancel, out: &Out) -> Result<(), Failure> {
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(&cancel.vault).await?;
    let token = match cancel.what {
        What::Limits => alloy(rig.place.asset(cancel.asset.as_ref())?.id.address())?,
        _ => farthing_evm::Address::ZERO,
    };
    let data = vault::cancel(cancel.what.topic(token));
    let receipt = rig.as_owner_or_guardian(&sight, "cancel", data).await?;
    after(&rig, &sight, "cancelled", &receipt, out).await
}

async fn put_in_force(args: &VaultArgs, apply: &Apply, out: &Out) -> Result<(), Failure> {
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(&apply.vault).await?;
    let wanted: Vec<Announcement> = announced(&sight)
        .filter(|one| apply.what.is_none_or(|what| what.is_of(&one.change)))
        .copied()
        .collect();
    let ready: Vec<&Announcement> =
        wanted.iter().filter(|one| show::phase(one, sight.time) == show::Phase::Ready).collect();
    if ready.is_empty() {
        let waiting: Vec<String> =
            wanted.iter().map(|one| announcement_text(&rig.place, one, sight.time)).collect();
        let why = if waiting.is_empty() { "nothing is announced".to_owned() } else { waiting.join("; ") };
        return Err(Failure::failed(format!("nothing is ready to be applied: {why}")));
    }
    let mut last = None;
    for one in ready {
        let data = vault::apply(one.change.topic());
        last = Some(rig.as_owner(&sight, "apply", data, Urgency::Patient).await?);
    }
    match last {
        Some(receipt) => after(&rig, &sight, "applied", &receipt, out).await,
        None => Ok(()),
    }
}

async fn pay_out(args: &VaultArgs, withdraw: &Withdraw, out: &Out) -> Result<(), Failure> {
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(&withdraw.vault).await?;
    let asset = rig.place.asset(withdraw.asset.as_ref())?;
    let token = asset.id.address();
    let amount = match &withdraw.amount {
        Some(text) => atoms(asset, text)?,
        None => sight.token(token).map_or(0, |now| now.float),
    };
    if amount == 0 {
        return Err(Failure::failed("the vault holds none of it"));
    }
    let to = withdraw.to.as_deref().map_or_else(|| Ok(rig.me()), address)?;
    let data = vault::withdraw(alloy(token)?, alloy(&to)?, amount);
    let receipt = rig.as_owner(&sight, "withdraw", data, Urgency::Patient).await?;
    moved(&rig.place, "withdrawn", &asset.id, amount, &receipt, out);
    Ok(())
}

async fn hand_over(args: &VaultArgs, offer: &Offer, out: &Out) -> Result<(), Failure> {
    let to = somebody(&offer.to)?;
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(&offer.vault).await?;
    let receipt = rig.as_owner(&sight, "offer", vault::offer_ownership(to), Urgency::Patient).await?;
    after(&rig, &sight, "offered", &receipt, out).await
}

async fn take_over(args: &VaultArgs, named: &Named, out: &Out) -> Result<(), Failure> {
    let rig = Rig::of(args).await?;
    let sight = rig.place.sight(&named.vault).await?;
    if from_alloy(sight.state.offered_to) != rig.me() {
        return Err(rig.wrong_key(&sight, "its owner has not offered it to this key"));
    }
    let call = vault_call(&sight.vault, vault::accept_ownership());
    let receipt = rig.send("accept", &call, Urgency::Patient).await?;
    after(&rig, &sight, "accepted", &receipt, out).await
}
