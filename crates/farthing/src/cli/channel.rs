//! `farthing channel`: the channels that the wallet pays through.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use farthing_chain::LocalKey;
use farthing_channel::{ChannelId, PayerState};
use farthing_engine::Chain;
use farthing_policy::{Dollars, Origin};
use farthing_primitives::{Money, Registry, Timestamp};
use farthing_wallet::client::{Client, FetchError, HttpRequest, Options, Patience};
use farthing_wallet::force::{Force, ForceError, Forced};
use farthing_wallet::journal::Journal;
use farthing_wallet::journal::channels::{KeptChannel, is_over};
use farthing_wallet::{ChainView, EngineView, LocalAuthorizer, TokioWorld};
use serde_json::{Value, json};
use url::Url;

use super::Failure;
use super::payer::authorizer;
use super::wallet::{
    Out, default_key, home, load_key, money_json, nodes, shown_address, shown_money, shown_network,
};

/// How long a transaction of the wallet's own is waited for.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(60);

/// See and end the channels that the wallet pays through
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing channel ls
  farthing channel open https://api.llm.example/complete --deposit 1
  farthing channel close 0x6d0f4f
  farthing channel recover 0x6d0f4f       when the seller does not answer

A channel is opened by \"farthing fetch\" by itself, where the wallet allows it (\"farthing wallet allow
--scheme session\"). Its deposit counts against the wallet's limits until it is back. A channel may be
named by the beginning of its id, or by the URL of the seller that it pays.

Exit codes: 0 done, or on its way; 1 it could not be done; 2 called wrongly; 3 the policy denies it;
5 a deposit was shown, and is not on the chain yet: run the same command again; 6 nobody answered.")]
pub struct ChannelArgs {
    #[command(subcommand)]
    command: Command,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
    /// The key that pays: a name, or env:NAME, file:PATH, keystore:NAME, kms:REGION/KEY_ID, pkcs11:…, dev:NUMBER
    #[arg(long, visible_alias = "key", value_name = "KEY", env = "FARTHING_PAY_WITH", global = true)]
    pay_with: Option<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE", global = true)]
    password_file: Option<PathBuf>,
    /// A node to ask, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',', global = true)]
    rpc: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(Ls),
    Show(Show),
    Open(Open),
    Topup(TopUp),
    Close(Close),
    Recover(Recover),
}

/// List channels, the newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing channel ls
  farthing channel ls --all --json")]
struct Ls {
    /// Also those that are over
    #[arg(long)]
    all: bool,
}

/// Show what is known of a channel, after a look at the chain where one can be asked
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing channel show 0x6d0f4f")]
struct Show {
    /// The channel's id, its beginning, or the seller's URL
    channel: String,
}

/// Open a channel to a seller, and buy nothing yet
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing channel open https://api.llm.example/complete --deposit 1")]
struct Open {
    /// What the channel is to pay for
    url: String,
    /// The deposit, in units of the token; otherwise what the seller suggests, within the wallet's limits
    #[arg(long, value_name = "AMOUNT")]
    deposit: Option<String>,
}

/// Put more money into a channel
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing channel topup 0x6d0f4f --deposit 0.5")]
struct TopUp {
    /// The channel's id, its beginning, or the seller's URL
    channel: String,
    /// How much more, in units of the token; otherwise what the seller suggests, within the wallet's limits
    #[arg(long, value_name = "AMOUNT")]
    deposit: Option<String>,
}

/// Ask the seller to close a channel for what was used; the rest comes back at once
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing channel close 0x6d0f4f")]
struct Close {
    /// The channel's id, its beginning, or the seller's URL
    channel: String,
}

/// Get a deposit back without the seller, by transactions of the wallet's own; or find lost channels
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing channel recover 0x6d0f4f       ask the escrow to close; later, withdraw
  farthing channel recover --from https://api.llm.example/complete

The first run asks the escrow to close, which leaves the seller a quarter of an hour to claim what was
vouched; the same command withdraws the rest after that. The key pays for both transactions, and needs
a little of the chain's own coin.

--from finds the channels to a seller that are on the chain and that the wallet's journal has lost.
What was signed on them is not known any more, so that they can only be ended.")]
struct Recover {
    /// The channel's id, its beginning, or the seller's URL
    #[arg(required_unless_present = "from")]
    channel: Option<String>,
    /// A seller's URL
    #[arg(long, value_name = "URL", conflicts_with = "channel")]
    from: Option<String>,
}

pub async fn run(args: ChannelArgs) -> ExitCode {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    let done = match &args.command {
        Command::Ls(ls) => list(ls, &out),
        Command::Show(show) => detail(&args, show, &out).await,
        Command::Open(open) => make(&args, open, &out).await,
        Command::Topup(more) => add(&args, more, &out).await,
        Command::Close(close) => end(&args, close, &out).await,
        Command::Recover(recover) => force(&args, recover, &out).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("farthing: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let code = match &error {
            FetchError::Denied(_) => 3,
            FetchError::Deposit { .. } => 5,
            FetchError::Send(_) => 6,
            _ => 1,
        };
        Self { message: error.to_string(), code }
    }
}

impl From<ForceError> for Failure {
    fn from(error: ForceError) -> Self {
        Self::failed(error.to_string())
    }
}

/// Everything that a command needs which does more than look at the journal.
struct Rig {
    wallet: LocalAuthorizer,
    client: Client,
    chains: Vec<(Arc<dyn Chain>, Arc<dyn ChainView>)>,
}

async fn rig(args: &ChannelArgs, journal: Arc<Journal>) -> Result<Rig, Failure> {
    let home = home()?;
    let wallet = authorizer(&home, &journal, args.pay_with.as_ref(), args.password_file.as_ref()).await?;
    let mut builder = Client::builder().wallet(wallet.clone()).patience(Patience::default());
    let mut chains = Vec::new();
    for (chain, devnet) in nodes(&journal, &args.rpc).await? {
        let view: Arc<dyn ChainView> = Arc::new(EngineView::new(chain.clone(), devnet));
        builder = builder.chain(view.clone());
        chains.push((chain, view));
    }
    let client = builder.build().map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Rig { wallet, client, chains })
}

fn journal() -> Result<Arc<Journal>, Failure> {
    Ok(Arc::new(home()?.journal()?))
}

/// The channel whose id begins like this; or that pays the seller at this URL, and is not over.
fn named(journal: &Journal, text: &str) -> Result<ChannelId, Failure> {
    if let Ok(id) = text.parse::<ChannelId>() {
        return Ok(id);
    }
    if let Ok(url) = text.parse::<Url>()
        && let Ok(origin) = Origin::of(&url)
    {
        let found = journal.channels()?.into_iter();
        let found: Vec<ChannelId> = found
            .filter(|kept| kept.authority == origin.authority() && !is_over(kept.payer.state()))
            .map(|kept| kept.id())
            .collect();
        return match found.as_slice() {
            [only] => Ok(*only),
            [] => Err(Failure::usage(format!("no channel pays {}: farthing channel ls", origin.authority()))),
            _ => Err(Failure::usage(format!(
                "{} channels pay {}: name one by its id",
                found.len(),
                origin.authority()
            ))),
        };
    }
    let text = text.strip_prefix("0x").unwrap_or(text);
    let found = journal.channels()?.into_iter().map(|kept| kept.id());
    let found: Vec<ChannelId> =
        found.filter(|id| !text.is_empty() && id.to_string()[2..].starts_with(text)).collect();
    match found.as_slice() {
        [only] => Ok(*only),
        [] => Err(Failure::usage(format!("no channel begins with {text:?}: farthing channel ls --all"))),
        _ => Err(Failure::usage(format!("{} channels begin with {text:?}", found.len()))),
    }
}

fn request(text: &str) -> Result<HttpRequest, Failure> {
    let url: Url = match text.contains("://") {
        true => text.parse(),
        false => format!("https://{text}").parse(),
    }
    .map_err(|error| Failure::usage(format!("not a URL: {error}")))?;
    Ok(HttpRequest::get(url))
}

fn options(deposit: Option<&String>) -> Result<Options, Failure> {
    if let Some(text) = deposit {
        Dollars::parse(text).map_err(|error| Failure::usage(format!("--deposit {text:?}: {error}")))?;
    }
    Ok(Options { deposit: deposit.cloned(), ..Options::default() })
}

// ---------------------------------------------------------------------------------------------------------------------
// The commands.

fn list(ls: &Ls, out: &Out) -> Result<(), Failure> {
    let channels = journal()?.channels()?;
    let shown = || channels.iter().filter(|kept| ls.all || !is_over(kept.payer.state()));
    let json: Vec<Value> = shown().map(channel_json).collect();
    let text: String = shown().map(line).collect();
    let none = if ls.all { "no channels" } else { "no channels that are not over: --all shows the others" };
    out.say(&json.into(), if text.is_empty() { none } else { &text });
    Ok(())
}

async fn detail(args: &ChannelArgs, show: &Show, out: &Out) -> Result<(), Failure> {
    let journal = journal()?;
    let id = named(&journal, &show.channel)?;
    let mut kept = journal.channel(&id)?;
    // Without a node it is what the journal knows.
    if !args.rpc.is_empty() || !journal.rpc_urls()?.is_empty() {
        let rig = rig(args, journal).await?;
        if let Ok(seen) = rig.client.look_at_channel(&id).await {
            kept = seen;
        }
    }
    say(&kept, out);
    Ok(())
}

async fn make(args: &ChannelArgs, open: &Open, out: &Out) -> Result<(), Failure> {
    let options = options(open.deposit.as_ref())?;
    let rig = rig(args, journal()?).await?;
    let intent = rig.client.session_offer(request(&open.url)?, &options).await?;
    let kept = rig.client.open_channel(&intent, &options).await?;
    say(&kept, out);
    Ok(())
}

async fn add(args: &ChannelArgs, more: &TopUp, out: &Out) -> Result<(), Failure> {
    let journal = journal()?;
    let id = named(&journal, &more.channel)?;
    let options = options(more.deposit.as_ref())?;
    let kept = journal.channel(&id)?;
    let rig = rig(args, journal).await?;
    let method = kept.method.parse().map_err(|_| Failure::failed("the journal holds no method"))?;
    let asked = HttpRequest { method, ..request(&kept.url)? };
    let intent = rig.client.session_offer(asked, &options).await?;
    let kept = rig.client.top_up_channel(&intent, &id, &options).await?;
    say(&kept, out);
    Ok(())
}

async fn end(args: &ChannelArgs, close: &Close, out: &Out) -> Result<(), Failure> {
    let journal = journal()?;
    let id = named(&journal, &close.channel)?;
    let rig = rig(args, journal).await?;
    let closed = rig.client.close_channel(&id, &Options::default()).await;
    let kept = closed.map_err(|error| {
        let failure = Failure::from(error);
        let message = format!("{}\nwithout the seller: farthing channel recover {id}", failure.message);
        Failure { message, ..failure }
    })?;
    say(&kept, out);
    Ok(())
}

async fn force(args: &ChannelArgs, recover: &Recover, out: &Out) -> Result<(), Failure> {
    let journal = journal()?;
    let Some(text) = &recover.channel else {
        let url = recover.from.as_deref().unwrap_or_default();
        let rig = rig(args, journal.clone()).await?;
        let intent = rig.client.session_offer(request(url)?, &Options::default()).await?;
        let found = rig.client.rebuild_channels(&intent).await?;
        let json = json!({ "found": found });
        out.say(
            &json,
            &format!("{found} channels were found that the journal had lost: farthing channel ls"),
        );
        return Ok(());
    };
    let id = named(&journal, text)?;
    let rig = rig(args, journal.clone()).await?;
    let network = journal.channel(&id)?.payer.terms().asset.network().clone();
    let (chain, view) =
        rig.chains.iter().find(|(chain, _)| *chain.network() == network).ok_or_else(|| {
            Failure::usage(format!("name a node of {}: --rpc URL", shown_network(&network)))
        })?;
    // What the chain takes for it is paid by the key itself.
    let home = home()?;
    let reference = args.pay_with.clone().map_or_else(|| default_key(&home, &journal), Ok)?;
    let key = LocalKey::new(load_key(&home.keystore(), &reference, args.password_file.as_ref())?);
    let world = TokioWorld::new();
    let force = Force {
        wallet: &rig.wallet,
        chain: chain.as_ref(),
        view: view.as_ref(),
        key: &key,
        world: &world,
        patience: TRANSACTION_PATIENCE,
    };
    let forced = force.step(&id).await?;
    let (code, tx, until, text) = told(&forced);
    let json = json!({
        "step": code,
        "transaction": tx,
        "until": until.map(|at| at.to_string()),
        "channel": channel_json(&journal.channel(&id)?),
    });
    out.say(&json, &text);
    Ok(())
}

/// A stable name, and a sentence.
fn told(forced: &Forced) -> (&'static str, Option<String>, Option<Timestamp>, String) {
    match forced {
        Forced::Requested { tx, until } => (
            "requested",
            Some(tx.to_string()),
            Some(*until),
            format!(
                "the escrow was asked to close ({tx}); the seller may answer until {until}. After that, the same \
                 command withdraws the rest"
            ),
        ),
        Forced::Withdrawn { tx } => {
            ("withdrawn", Some(tx.to_string()), None, format!("the rest is back ({tx})"))
        }
        Forced::Sent { tx } => (
            "sent",
            Some(tx.to_string()),
            None,
            format!("{tx} is sent, and in no block yet: run the same command again"),
        ),
        Forced::Waiting { until } => (
            "waiting",
            None,
            Some(*until),
            format!("the seller may answer until {until}: run the same command after that"),
        ),
        Forced::Over => ("over", None, None, "the channel is over".to_owned()),
        Forced::NotOpen => (
            "not_open",
            None,
            None,
            "the deposit is not in the escrow; one that was signed and not used lapses".to_owned(),
        ),
        Forced::NothingLeft => {
            ("nothing_left", None, None, "the seller took all of it: nothing can come back".to_owned())
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What is shown.

fn say(kept: &KeptChannel, out: &Out) {
    let registry = Registry::builtin();
    let payer = &kept.payer;
    let terms = payer.terms();
    let money = |atoms| shown_money(&registry, &Money::new(terms.asset.clone(), atoms));
    let mut text = format!(
        "{}  {}\nseller    {} at {}\nnetwork   {}\ndeposit   {}\nvouched   {}\nused      {}\ntaken     {}\n\
         at risk   {} if the seller stops serving\nlocked    {}\n",
        kept.id(),
        payer.state().name(),
        kept.authority,
        shown_address(&terms.payee),
        shown_network(terms.asset.network()),
        money(payer.deposit()),
        money(payer.signed()),
        money(payer.used()),
        money(payer.settled()),
        money(payer.most_lost()),
        money(payer.locked()),
    );
    if let Some(overclaim) = payer.overclaim() {
        text += &format!("THE SELLER CLAIMS TOO MUCH: {overclaim:?}; no voucher is signed for it any more\n");
    }
    if let PayerState::Requested { at, .. } = payer.state() {
        let until = at.plus(terms.grace).plus(payer.budget().slack);
        text += &format!("closing: the seller may answer until {until}\n");
    }
    out.say(&channel_json(kept), &text);
}

fn line(kept: &KeptChannel) -> String {
    let registry = Registry::builtin();
    let payer = &kept.payer;
    let asset = &payer.terms().asset;
    let money = |atoms| shown_money(&registry, &Money::new(asset.clone(), atoms));
    format!(
        "{}  {:<10} {:<30} {:>18} of {:>18}\n",
        &kept.id().to_string()[..14],
        payer.state().name(),
        kept.authority,
        money(payer.used()),
        money(payer.deposit()),
    )
}

fn channel_json(kept: &KeptChannel) -> Value {
    let registry = Registry::builtin();
    let payer = &kept.payer;
    let terms = payer.terms();
    let money = |atoms| money_json(&registry, &Money::new(terms.asset.clone(), atoms));
    let receipt: Option<Value> =
        kept.receipt.as_deref().and_then(|receipt| serde_json::from_str(receipt).ok());
    let closes = match payer.state() {
        PayerState::Requested { at, .. } => Some(at.plus(terms.grace).plus(payer.budget().slack)),
        _ => None,
    };
    json!({
        "id": kept.id().to_string(),
        "state": payer.state().name(),
        "seller": kept.authority,
        "url": kept.url.parse().map(|url| farthing_wallet::client::shown(&url)).unwrap_or_default(),
        "payee": terms.payee.to_string(),
        "payer": terms.payer.to_string(),
        "escrow": terms.escrow.to_string(),
        "network": terms.asset.network().to_string(),
        "deposit": money(payer.deposit()),
        "vouched": money(payer.signed()),
        "used": money(payer.used()),
        "taken": money(payer.settled()),
        "locked": money(payer.locked()),
        "at_risk": money(payer.most_lost()),
        "overclaim": payer.overclaim().map(|overclaim| format!("{overclaim:?}")),
        "withdraw_after": closes.map(|at| at.to_string()),
        "receipt": receipt,
        "created": kept.created.to_string(),
        "updated": kept.updated.to_string(),
    })
}
