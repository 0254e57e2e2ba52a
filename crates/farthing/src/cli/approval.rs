//! `farthing approval`: payments that wait for people.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_approval::{ApprovalId, ApproverKey, Ballot, Proof, Status, Verdict};
use farthing_primitives::Registry;
use farthing_wallet::client::printable;
use farthing_wallet::journal::approvals::{ApprovalError, KeptApproval};
use farthing_wallet::system_clock;
use serde_json::{Value, json};

use super::Failure;
use super::wallet::{Out, home};

mod desk;
mod serve;
#[cfg(test)]
mod tests;
mod webhook;

/// Answer machines that ask whether they may pay
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing approval list
  farthing approval show apr_1f…
  farthing approval approve apr_1f… --as ada --key ada.key
  farthing approval deny apr_1f… --as ada --key ada.key
  farthing approval serve                          a page on this machine, for people with passkeys

What exactly is approved is in docs/reference/approvals.md. No approval lifts a limit; silence is no.

Exit codes: 0 done; 1 it could not be done, e.g. it has expired; 2 called wrongly.")]
pub struct ApprovalArgs {
    #[command(subcommand)]
    command: Command,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Approve(Answer),
    Deny(Answer),
    Serve(serve::ServeArgs),
}

/// List what waits for people
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  farthing approval list\n  farthing approval list --all")]
struct List {
    /// Also what is decided, used or expired
    #[arg(long)]
    all: bool,
}

/// Show a request: what would be paid, to whom, for what
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing approval show apr_00112233445566778899aabbccddeeff")]
struct Show {
    id: ApprovalId,
}

/// Give your word, signed with your key
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  farthing approval approve apr_00112233445566778899aabbccddeeff --as ada --key ada.key"
)]
struct Answer {
    id: ApprovalId,
    /// Who you are, by the name that the wallet's owner gave you
    #[arg(long = "as", value_name = "NAME")]
    name: String,
    /// The file with your key, as \"farthing approver new\" made it
    #[arg(long, value_name = "FILE", required_unless_present = "signature")]
    key: Option<PathBuf>,
    /// Your signature, made elsewhere, in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with = "key")]
    signature: Option<String>,
}

pub async fn run(args: ApprovalArgs) -> Result<ExitCode, Failure> {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    match args.command {
        Command::List(List { all }) => list(all, &out),
        Command::Show(Show { id }) => show(&id, &out),
        Command::Approve(answer) => vote(&answer, Verdict::Approve, &out),
        Command::Deny(answer) => vote(&answer, Verdict::Deny, &out),
        Command::Serve(args) => serve::run(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

impl From<ApprovalError> for Failure {
    fn from(error: ApprovalError) -> Self {
        let code = match &error {
            ApprovalError::Name(_) | ApprovalError::NotFound(_) | ApprovalError::Unknown(_) => 2,
            _ => 1,
        };
        Self { message: error.to_string(), code }
    }
}

fn facts(kept: &KeptApproval) -> Value {
    let subject = &kept.request.subject;
    let (voices, quorum) = match kept.status {
        Status::Pending { voices, .. } | Status::Approved { voices } => (voices, kept.quorum),
        Status::Denied | Status::Expired => (0, kept.quorum),
    };
    json!({
        "id": kept.id.to_string(),
        "status": if kept.used { "used" } else { kept.status.name() },
        "voices": voices,
        "quorum": quorum,
        "rule": kept.rule,
        "agent": subject.agent.as_ref().map(ToString::to_string),
        "method": subject.method,
        "url": subject.url,
        "payee": subject.payee.to_string(),
        "payer": subject.payer.to_string(),
        "asset": subject.asset.to_string(),
        "max_atoms": kept.request.max.to_string(),
        "max": amount(kept),
        "expires_ms": kept.request.expires.millis(),
        "digest": kept.request.digest().to_string(),
        "text": kept.request.text(),
        "votes": kept.votes.iter().map(|vote| json!({ "by": vote.approver, "verdict": vote.verdict.name() })).collect::<Vec<_>>(),
    })
}

/// By our own registry's decimals, never a seller's.
fn amount(kept: &KeptApproval) -> String {
    let registry = Registry::builtin();
    let asset = &kept.request.subject.asset;
    match registry.get(asset) {
        Some(known) => format!("{} {}", known.format(kept.request.max), known.symbol),
        None => format!("{} atoms of {asset}", kept.request.max),
    }
}

fn text(kept: &KeptApproval) -> String {
    let subject = &kept.request.subject;
    let status = if kept.used { "used" } else { kept.status.name() };
    format!(
        "{}  {status}, {} of {} said yes; until {}\n  {} would pay at most {}\n  to {} on {}\n  for {} {}\n  because {} asks\n",
        kept.id,
        kept.votes.iter().filter(|vote| vote.verdict == Verdict::Approve).count(),
        kept.quorum,
        kept.request.expires,
        subject.agent.as_ref().map_or_else(|| "the owner".to_owned(), ToString::to_string),
        amount(kept),
        subject.payee,
        subject.asset.network(),
        subject.method,
        // What an agent asks for is its words, not ours.
        printable(&subject.url),
        kept.rule,
    )
}

fn list(all: bool, out: &Out) -> Result<(), Failure> {
    let kept = home()?.journal()?.approvals(!all, &system_clock())?;
    let json = Value::from(kept.iter().map(facts).collect::<Vec<_>>());
    let lines: String = kept.iter().map(text).collect();
    out.say(&json, if lines.is_empty() { "nothing waits for anybody" } else { &lines });
    Ok(())
}

fn show(id: &ApprovalId, out: &Out) -> Result<(), Failure> {
    let kept = home()?.journal()?.approval(id, &system_clock())?;
    out.say(&facts(&kept), &text(&kept));
    Ok(())
}

fn vote(answer: &Answer, verdict: Verdict, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let asked = journal.approval(&answer.id, &system_clock())?;
    let ballot = match (&answer.key, &answer.signature) {
        (Some(path), _) => Ballot::cast(&read_key(path)?, &asked.request, verdict),
        (None, signature) => {
            let signature = hex::decode(signature.as_deref().unwrap_or_default());
            let signature = signature.map_err(|_| Failure::usage("the signature is hexadecimal"))?;
            Ballot { verdict, proof: Proof::Signature(signature) }
        }
    };
    let kept = journal.vote(&answer.id, &answer.name, &ballot, &system_clock())?;
    out.say(&facts(&kept), &text(&kept));
    Ok(())
}

fn read_key(path: &Path) -> Result<ApproverKey, Failure> {
    let failed = |why: String| Failure::failed(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    ApproverKey::read(&text).map_err(|error| failed(error.to_string()))
}
