//! `farthing approver`: the people whose word counts.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_approval::{ApproverKey, Credential, PublicKey, Site};
use farthing_policy::AgentName;
use farthing_wallet::journal::approvals::Approver;
use farthing_wallet::keystore::create_private_file;
use farthing_wallet::system_clock;
use serde_json::{Value, json};

use super::Failure;
use super::wallet::{Out, home};

mod register;

/// Name the people whose word counts
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing approver new ada.key                         a key, on ada's own machine
  farthing approver add ada ed25519:iojj3XQJ8ZX9…       her word counts from now on
  farthing approver add bob --passkey                   bob makes a passkey, on a page on this machine
  farthing approver list

Exit codes: 0 done; 1 it could not be done; 2 called wrongly.")]
pub struct ApproverArgs {
    #[command(subcommand)]
    command: ApproverCommand,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ApproverCommand {
    New(NewKey),
    Add(Add),
    List(ListApprovers),
    Remove(Remove),
}

/// Make a key for somebody who approves, and print its public half
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing approver new ada.key")]
struct NewKey {
    /// Where the secret half goes; readable by you alone
    file: PathBuf,
}

/// Let somebody's word count
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing approver add ada ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w
  farthing approver add bob ed25519:… --runs acme/research    not for what that agent asks for
  farthing approver add carol --passkey                       carol makes a passkey in her browser

A passkey answers on the page of \"farthing approval serve\", at the one address that --page names.")]
struct Add {
    /// What to call them
    name: String,
    /// Their public key
    #[arg(required_unless_present = "passkey", conflicts_with = "passkey")]
    key: Option<PublicKey>,
    /// Let them make a passkey instead, on a page that this command serves until it is made
    #[arg(long)]
    passkey: bool,
    /// Where that page is served: a loopback address, and a port, 0 for a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", requires = "passkey")]
    listen: SocketAddr,
    /// The page on which they will answer
    #[arg(long, value_name = "URL", default_value = super::local_page::ANSWERS_AT, requires = "passkey")]
    page: String,
    /// They run this agent, and what is part of it, and do not approve what it asks for
    #[arg(long, value_name = "AGENT")]
    runs: Option<AgentName>,
}

/// List whose word counts
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing approver list")]
struct ListApprovers {}

/// Let somebody's word count no longer, also in what is open
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing approver remove ada")]
struct Remove {
    name: String,
}

pub async fn run(args: ApproverArgs) -> Result<ExitCode, Failure> {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    match args.command {
        ApproverCommand::New(NewKey { file }) => new_key(&file, &out),
        ApproverCommand::Add(add) => add_approver(add, &out).await,
        ApproverCommand::List(ListApprovers {}) => list_approvers(&out),
        ApproverCommand::Remove(Remove { name }) => remove(&name, &out),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn new_key(file: &Path, out: &Out) -> Result<(), Failure> {
    use std::io::Write;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::failed(error.to_string()))?;
    let key = ApproverKey::from_seed(seed).map_err(|error| Failure::failed(error.to_string()))?;
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", file.display()));
    // Nothing that is there is written over.
    let mut made = create_private_file(file).map_err(failed)?;
    writeln!(made, "{}", key.secret()).and_then(|()| made.sync_all()).map_err(failed)?;
    let public = key.public().to_string();
    out.say(
        &json!({ "key": public, "file": file.display().to_string() }),
        &format!("{public}\nThe owner of the wallet lets its word count with: farthing approver add NAME {public}\n"),
    );
    Ok(())
}

async fn add_approver(add: Add, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let credential = match add.key {
        Some(key) => {
            journal.add_approver(&add.name, &key, add.runs.as_ref(), &system_clock())?;
            Credential::Key(key)
        }
        None => {
            let page = add.page.trim_end_matches('/');
            let site = Site::of(page).map_err(|error| Failure::usage(format!("--page {page}: {error}")))?;
            let passkey = register::run(journal, &add.name, add.runs.clone(), add.listen, site).await?;
            Credential::Passkey(passkey)
        }
    };
    out.say(&facts(&add.name, &credential, add.runs.as_ref()), &format!("the word of {} counts", add.name));
    Ok(())
}

fn facts(name: &str, credential: &Credential, runs: Option<&AgentName>) -> Value {
    let mut facts = json!({
        "name": name,
        "key": credential.key().to_string(),
        "runs": runs.map(ToString::to_string),
    });
    if let Credential::Passkey(passkey) = credential {
        facts["page"] = passkey.site.origin().into();
    }
    facts
}

fn list_approvers(out: &Out) -> Result<(), Failure> {
    let known = home()?.journal()?.approvers()?;
    let json: Vec<Value> =
        known.iter().map(|one| facts(&one.name, &one.credential, one.runs.as_ref())).collect();
    let line = |Approver { name, credential, runs, .. }: &Approver| {
        let runs = runs.as_ref().map(|agent| format!("  runs {agent}")).unwrap_or_default();
        let page = match credential {
            Credential::Key(_) => String::new(),
            Credential::Passkey(passkey) => format!("  answers at {}", passkey.site.origin()),
        };
        format!("{name:<24} {}{runs}{page}\n", credential.key())
    };
    let lines: String = known.iter().map(line).collect();
    out.say(&json.into(), if lines.is_empty() { "nobody: farthing approver new, then add" } else { &lines });
    Ok(())
}

fn remove(name: &str, out: &Out) -> Result<(), Failure> {
    home()?.journal()?.remove_approver(name)?;
    out.say(&json!({ "removed": name }), &format!("the word of {name} counts no longer"));
    Ok(())
}
