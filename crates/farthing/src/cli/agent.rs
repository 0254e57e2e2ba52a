//! `farthing agent`, `farthing freeze` and `farthing unfreeze`: which machines may spend, and how they are stopped.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use farthing_approval::ApproverKey;
use farthing_guard::{Revocation, Signed, Whom, freeze_at, revoke_at};
use farthing_policy::AgentName;
use farthing_wallet::journal::Journal;
use farthing_wallet::journal::agents::{AgentError, CredentialKind, KeptAgent};
use farthing_wallet::{AgentToken, system_clock};
use serde_json::{Value, json};
use url::Url;

use super::remote::first_line;
use super::wallet::{self, Out, home};
use super::wallet_serve::OWNER_SOCKET;
use super::{Failure, is_kept_private};

/// The longest file with a key, in bytes.
const MAX_KEY_BYTES: usize = 4 * 1024;
/// How long a guard elsewhere may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Say which machines may spend through "farthing wallet serve", and give each a token
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing agent add acme/research/buyer
  farthing agent list
  farthing agent rotate acme/research/buyer
  farthing agent revoke acme/research/buyer

A name is a place in a tree, at most 8 levels deep: budgets and freezes of acme/research hold for all
that are part of it. A token is shown once and kept as a hash.

Exit codes: 0 done; 1 it could not be done; 2 called wrongly.")]
pub struct AgentArgs {
    #[command(subcommand)]
    command: Command,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Named),
    List(List),
    Revoke(Revoke),
    Rotate(Rotate),
}

/// Make an agent known, and print its token: it is shown this once
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing agent add buyer
  farthing agent add acme/buyer > /run/farthing/buyer.token && chmod 600 /run/farthing/buyer.token")]
struct Named {
    name: AgentName,
}

/// List the agents, and which of them are frozen
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing agent list --json")]
struct List {}

/// Take an agent's token from it, also on connections that are open
///
/// A guard that runs does it itself, and waits for no other process to leave the books; without one, they are written
/// here. Which of the two it was is said.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing agent revoke acme/buyer")]
struct Revoke {
    name: AgentName,
}

/// Give an agent another token: the old one is worth nothing from now on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing agent rotate acme/buyer")]
struct Rotate {
    name: AgentName,
}

/// Let nothing be signed any more, for one agent and all that are part of it, or for all
///
/// It holds once this command returns, also on open connections and for requests that are under way. What was shown
/// before may be shown again: its money may be gone already, and the goods are owed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing freeze acme/research
  farthing freeze --all
  farthing freeze --all --at https://guard.example/freeze --by owner.key    from another machine

Exit codes: 0 done; 1 it could not be done; 2 called wrongly.")]
pub struct FreezeArgs {
    #[command(flatten)]
    whom: WhomArgs,
    /// The webhook of a guard elsewhere (farthing wallet serve --freeze-webhook), instead of the wallet in its home
    #[arg(long, value_name = "URL", requires = "by")]
    at: Option<Url>,
    /// The file with the owner's key that the guard knows, as \"farthing approver new\" made it
    #[arg(long, value_name = "FILE", requires = "at")]
    by: Option<PathBuf>,
}

/// Let payments be signed again
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing unfreeze acme/research
  farthing unfreeze --all             the wallet; agents that are frozen by name stay frozen

Only who can write the wallet's files can do this: no agent can, over no socket.

Exit codes: 0 done; 1 it could not be done; 2 called wrongly.")]
pub struct UnfreezeArgs {
    #[command(flatten)]
    whom: WhomArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhomArgs {
    /// The agent
    agent: Option<AgentName>,
    /// The whole wallet
    #[arg(long)]
    all: bool,
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Journal(error) => error.into(),
            error => Self::failed(error.to_string()),
        }
    }
}

pub async fn run(args: AgentArgs) -> Result<ExitCode, Failure> {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    match args.command {
        Command::Add(Named { name }) => give(&name, false, args.json),
        Command::Rotate(Rotate { name }) => give(&name, true, args.json),
        Command::Revoke(Revoke { name }) => revoke(&name, &out).await,
        Command::List(List {}) => list(&out),
    }
}

async fn revoke(name: &AgentName, out: &Out) -> Result<ExitCode, Failure> {
    let home = home()?;
    let by = match revoke_at(&home.path().join(OWNER_SOCKET), name).await {
        Revocation::Done => "guard",
        Revocation::Unknown => return Err(AgentError::Unknown(name.clone()).into()),
        Revocation::NotDone => {
            let journal = home.journal()?;
            match journal.revoke_agent(name, &system_clock()) {
                // A guard that was late did it meanwhile.
                Err(AgentError::Unknown(_)) if is_revoked(&journal, name)? => {}
                done => done?,
            }
            "books"
        }
    };
    let how = match by {
        "guard" => "the guard that runs has forgotten its tokens",
        _ => "no guard answered, so the books say it, which whoever signs asks first",
    };
    let json = json!({ "agent": name.as_str(), "revoked": true, "enforced_by": by });
    out.say(&json, &format!("{name} is revoked: {how}"));
    Ok(ExitCode::SUCCESS)
}

fn is_revoked(journal: &Journal, name: &AgentName) -> Result<bool, Failure> {
    Ok(journal.agents()?.iter().any(|agent| agent.name == *name && agent.revoked.is_some()))
}

/// Prints a new token, alone on its line unless JSON is asked for: it goes into a file, or into the environment.
fn give(name: &AgentName, is_known: bool, as_json: bool) -> Result<ExitCode, Failure> {
    let journal = home()?.journal()?;
    let token = AgentToken::random(name.clone()).map_err(|error| Failure::failed(error.to_string()))?;
    let (kind, credential, clock) = (CredentialKind::Token, token.credential(), system_clock());
    match is_known {
        true => journal.rotate_agent(name, kind, &credential, &clock)?,
        false => journal.add_agent(name, kind, &credential, &clock)?,
    }
    let text = token.reveal();
    Out { json: as_json }.say(&json!({ "agent": name.as_str(), "token": text.as_str() }), &text);
    Ok(ExitCode::SUCCESS)
}

fn list(out: &Out) -> Result<ExitCode, Failure> {
    let journal = home()?.journal()?;
    let (agents, frozen) = (journal.agents()?, journal.frozen_agents()?);
    let rows: Vec<Value> = agents
        .iter()
        .map(|agent| {
            json!({
                "agent": agent.name.as_str(),
                "created": agent.created.to_string(),
                "revoked": agent.revoked.map(|at| at.to_string()),
                "frozen": agent.frozen,
            })
        })
        .collect();
    let line = |agent: &KeptAgent| {
        let state = match (agent.revoked, agent.frozen) {
            (Some(at), _) => format!("revoked {at}"),
            (None, true) => "FROZEN".to_owned(),
            (None, false) => "may spend".to_owned(),
        };
        format!("{:<40} {state}\n", agent.name.as_str())
    };
    let mut text: String = agents.iter().map(line).collect();
    if !frozen.is_empty() {
        let names: Vec<_> = frozen.iter().map(AgentName::as_str).collect();
        text += &format!("frozen by name: {}\n", names.join(", "));
    }
    if text.is_empty() {
        text += "no agents yet: farthing agent add NAME";
    }
    let frozen: Vec<_> = frozen.iter().map(AgentName::as_str).collect();
    out.say(&json!({ "agents": rows, "frozen": frozen }), &text);
    Ok(ExitCode::SUCCESS)
}

impl From<WhomArgs> for Whom {
    fn from(args: WhomArgs) -> Self {
        args.agent.map_or(Self::All, Self::Agent)
    }
}

pub async fn freeze(args: FreezeArgs) -> Result<ExitCode, Failure> {
    let whom = Whom::from(args.whom);
    match (&args.at, &args.by) {
        (Some(at), Some(by)) => freeze_elsewhere(at, by, &whom).await?,
        _ => freeze_here(&whom).await?,
    }
    match whom {
        Whom::Agent(agent) => {
            let mut text = format!("{agent} is frozen, with all that are part of it");
            let mut said = json!({ "agent": agent.as_str(), "frozen": true });
            // Whoever errs in the name of a machine that runs wild has to see it at once.
            if args.at.is_none() {
                let known = is_known(&agent)?;
                said["known"] = known.into();
                if !known {
                    text += "; no agent of this name was added, so look at `farthing agent list`";
                }
            }
            out().say(&said, &text);
        }
        Whom::All => out().say(&json!({ "frozen": true }), "the wallet is frozen"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether an agent was added by this name or as a part of it.
fn is_known(name: &AgentName) -> Result<bool, Failure> {
    let agents = home()?.journal()?.agents()?;
    Ok(agents.iter().any(|agent| agent.name.is_within(name)))
}

pub(super) async fn freeze_here(whom: &Whom) -> Result<(), Failure> {
    let home = home()?;
    // A guard that runs has the books in hand, and waits for nobody.
    if freeze_at(&home.path().join(OWNER_SOCKET), whom).await {
        return Ok(());
    }
    let journal = home.journal()?;
    match whom {
        Whom::Agent(agent) => journal.freeze_agent(agent, &system_clock())?,
        Whom::All => {
            journal.change_rules(|rules| {
                rules.frozen = true;
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Has a guard on another machine freeze, by a message that the owner's key signed.
async fn freeze_elsewhere(at: &Url, by: &Path, whom: &Whom) -> Result<(), Failure> {
    // Whoever is on the way could keep the message, and answer that it was obeyed.
    if !is_kept_private(at) {
        return Err(Failure::usage(format!("--at {at}: https, or http on this machine")));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("{at}: {error}"));
    let key = ApproverKey::read(&first_line(by, MAX_KEY_BYTES)?)
        .map_err(|error| Failure::usage(format!("{}: {error}", by.display())))?;
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).map_err(|_| Failure::failed("the operating system gives no random bytes"))?;
    let id = format!("msg_{}", hex::encode(id));
    let message = Signed::by(&key, &id, whom, system_clock().wall);
    let http = reqwest::Client::builder()
        // Whom it tells to freeze is the guard that was named, and nobody else.
        .redirect(reqwest::redirect::Policy::none())
        // A proxy of the environment may be the one that is to be stopped.
        .no_proxy()
        .timeout(ANSWER_WITHIN)
        .build()
        .map_err(|error| failed(&error))?;
    let mut request = http.post(at.clone()).header("content-type", "application/json");
    for (name, value) in message.headers {
        request = request.header(name, value);
    }
    let answer = request.body(message.body).send().await.map_err(|error| failed(&error))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(failed(&format!("the guard did not freeze: {status}"))),
    }
}

pub fn unfreeze(args: UnfreezeArgs) -> Result<ExitCode, Failure> {
    match args.whom.agent {
        Some(agent) if home()?.journal()?.unfreeze_agent(&agent)? => {
            out().say(
                &json!({ "agent": agent.as_str(), "frozen": false }),
                &format!("{agent} is frozen no more"),
            );
        }
        Some(agent) => return Err(Failure::failed(format!("{agent} is not frozen by its name"))),
        None => wallet::unfreeze(&out())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A sentence for a person, JSON for a program.
fn out() -> Out {
    Out { json: !std::io::stdout().is_terminal() }
}
