//! `farthing approval`: payments that wait for people.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_approval::{
    ApprovalId, ApproverKey, Ballot, Body, GrantAsk, GrantError, GrantRequest, Place, Proof, Status, Verdict,
    VoteError,
};
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
  farthing approval approve apr_1f… --grant n=10,total=1.00,until=24h --as ada --key ada.key
                                                   a grant: ten such payments, together at most 1.00, within a day
  farthing approval revoke grt_1f…                 the owner ends a grant at once
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
    Grant(Offer),
    Revoke(Revoke),
    Serve(serve::ServeArgs),
}

/// List what waits for people, and the grants that are good for more
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
#[command(after_help = "Examples:
  farthing approval approve apr_00112233445566778899aabbccddeeff --as ada --key ada.key
  farthing approval approve apr_00112233445566778899aabbccddeeff --as ada --key ada.key --grant n=10,total=1.00,until=24h
  farthing approval deny grt_00112233445566778899aabbccddeeff --as ada --key ada.key      ends a grant at once")]
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
    /// Approve a grant instead: n=PAYMENTS,until=LENGTH, and total=AMOUNT, each=AMOUNT, below=URL, body=any as wanted
    #[arg(long, value_name = "BOUNDS", requires = "key")]
    grant: Option<GrantAsk>,
}

/// Put a grant in the place of a request, for people to answer: so many payments like it, not only one
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing approval grant apr_00112233445566778899aabbccddeeff n=10,total=1.00,until=24h
  farthing approval grant apr_00112233445566778899aabbccddeeff n=10,each=0.05,until=7d,below=https://api.example/v1/,body=any

It says nothing for anybody: they approve the grt_… that it prints, on the page or by command. Without \"total\" it is as much
as so many payments can be, without \"each\" what the request asks for, without \"below\" its one URL, and without \"body\" its
one body. A grant lasts 30 days at most and is for 1000 payments at most.")]
struct Offer {
    id: ApprovalId,
    /// n=PAYMENTS,until=LENGTH, and total=AMOUNT, each=AMOUNT, below=URL, body=any as wanted
    bounds: GrantAsk,
}

/// Take back a request or a grant, as the owner of the wallet: at once, and for good
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing approval revoke grt_00112233445566778899aabbccddeeff

What is reserved or signed by it already stays so; \"farthing wallet freeze\" stops that, too. An approver who is not the owner
ends a grant with \"farthing approval deny\", signed.")]
struct Revoke {
    id: ApprovalId,
}

pub async fn run(args: ApprovalArgs) -> Result<ExitCode, Failure> {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    match args.command {
        Command::List(List { all }) => list(all, &out),
        Command::Show(Show { id }) => show(&id, &out),
        Command::Approve(answer) => vote(&answer, Verdict::Approve, &out),
        Command::Deny(Answer { grant: Some(_), .. }) => {
            Err(Failure::usage("a grant is approved in the place of a request, or denied by its own name"))
        }
        Command::Deny(answer) => vote(&answer, Verdict::Deny, &out),
        Command::Grant(Offer { id, bounds }) => offer(&id, &bounds, &out),
        Command::Revoke(Revoke { id }) => revoke(&id, &out),
        Command::Serve(args) => serve::run(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

impl From<ApprovalError> for Failure {
    fn from(error: ApprovalError) -> Self {
        let code = match &error {
            ApprovalError::Name(_)
            | ApprovalError::NotFound(_)
            | ApprovalError::Unknown(_)
            | ApprovalError::Grant(_) => 2,
            _ => 1,
        };
        Self { message: error.to_string(), code }
    }
}

fn facts(kept: &KeptApproval) -> Value {
    let asked = &kept.request;
    let (voices, quorum) = match kept.status {
        Status::Pending { voices, .. } | Status::Approved { voices } => (voices, kept.quorum),
        Status::Denied | Status::Expired => (0, kept.quorum),
    };
    let mut facts = json!({
        "id": kept.id.to_string(),
        "kind": if kept.id.is_grant() { "grant" } else { "payment" },
        "status": kept.state(),
        "voices": voices,
        "quorum": quorum,
        "rule": kept.rule,
        "agent": asked.agent().map(ToString::to_string),
        "method": asked.method(),
        "url": asked.url(),
        "payee": asked.payee().to_string(),
        "payer": asked.payer().to_string(),
        "asset": asked.asset().to_string(),
        "max_atoms": asked.max().to_string(),
        "max": amount(kept, asked.max()),
        "expires_ms": asked.expires().millis(),
        "digest": asked.digest().to_string(),
        "text": asked.text(),
        "votes": kept.votes.iter().map(|vote| json!({ "by": vote.approver, "verdict": vote.verdict.name() })).collect::<Vec<_>>(),
    });
    if let Some(grant) = asked.grant() {
        let left = grant.left(&kept.uses);
        facts["grant"] = json!({
            "payments": grant.payments,
            "total_atoms": grant.total.to_string(),
            "total": amount(kept, grant.total),
            "below": matches!(grant.place, Place::Below(_)),
            "any_body": grant.body == Body::Any,
            "used_payments": kept.uses.payments,
            "used_atoms": kept.uses.atoms.to_string(),
            "used": amount(kept, kept.uses.atoms),
            "left_payments": left.payments,
            "left_atoms": left.atoms.to_string(),
            "left": amount(kept, left.atoms),
        });
    }
    facts
}

/// By our own registry's decimals, never a seller's.
fn amount(kept: &KeptApproval, atoms: u128) -> String {
    let registry = Registry::builtin();
    let asset = kept.request.asset();
    match registry.get(asset) {
        Some(known) => format!("{} {}", known.format(atoms), known.symbol),
        None => format!("{atoms} atoms of {asset}"),
    }
}

fn text(kept: &KeptApproval) -> String {
    let asked = &kept.request;
    let how_much = match asked.grant() {
        None => format!("would pay at most {}", amount(kept, asked.max())),
        Some(grant) => format!(
            "would pay up to {} times, at most {} each and {} together",
            grant.payments,
            amount(kept, grant.max),
            amount(kept, grant.total),
        ),
    };
    let (place, body) = match asked.grant() {
        None => ("", ""),
        Some(grant) => (
            if matches!(grant.place, Place::Below(_)) { "whatever is below " } else { "" },
            if grant.body == Body::Any { ", with any body" } else { ", with one body" },
        ),
    };
    let left = kept.left().map(|left| {
        let payments = if left.payments == 1 { "payment" } else { "payments" };
        format!("  left of it: {} {payments}, {}\n", left.payments, amount(kept, left.atoms))
    });
    format!(
        "{}  {}, {} of {} said yes; until {}\n  {} {how_much}\n  to {} on {}\n  for {} {place}{}{body}\n  because {} asks\n{}",
        kept.id,
        kept.state(),
        kept.votes.iter().filter(|vote| vote.verdict == Verdict::Approve).count(),
        kept.quorum,
        asked.expires(),
        asked.agent().map_or_else(|| "the owner".to_owned(), ToString::to_string),
        asked.payee(),
        asked.asset().network(),
        asked.method(),
        // What an agent asks for is its words, not ours.
        printable(asked.url()),
        kept.rule,
        left.unwrap_or_default(),
    )
}

fn list(all: bool, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let mut kept = journal.approvals(!all, &system_clock())?;
    if !all {
        kept.extend(journal.open_grants(&system_clock())?);
    }
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
    if let (Some(bounds), Some(path)) = (&answer.grant, &answer.key) {
        let grant = widened(&asked, bounds)?;
        let ballot = Ballot::cast(&read_key(path)?, &grant, verdict);
        let word = Some((answer.name.as_str(), &ballot));
        let kept = journal.offer_grant(&answer.id, &grant, word, &system_clock())?;
        out.say(&facts(&kept), &text(&kept));
        return Ok(());
    }
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

fn offer(id: &ApprovalId, bounds: &GrantAsk, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let asked = journal.approval(id, &system_clock())?;
    let kept = journal.offer_grant(id, &widened(&asked, bounds)?, None, &system_clock())?;
    out.say(&facts(&kept), &text(&kept));
    Ok(())
}

/// The grant in the place of a request for one payment, by our own registry's decimals.
fn widened(asked: &KeptApproval, bounds: &GrantAsk) -> Result<GrantRequest, ApprovalError> {
    let Some(request) = asked.request.payment() else { return Err(GrantError::Other.into()) };
    // What is over by now would be answered with an error about its amounts, or its place.
    if asked.used || !matches!(asked.status, Status::Pending { .. } | Status::Approved { .. }) {
        return Err(VoteError::Decided.into());
    }
    let registry = Registry::builtin();
    let asset = registry.get(&request.subject.asset).ok_or(GrantError::Amount(String::new()))?;
    let now = system_clock().wall;
    Ok(GrantRequest::new(&request.subject, request.max, &bounds.terms(asset)?, now)?)
}

fn revoke(id: &ApprovalId, out: &Out) -> Result<(), Failure> {
    let kept = home()?.journal()?.revoke_approval(id, &system_clock())?;
    out.say(&facts(&kept), &text(&kept));
    Ok(())
}

fn read_key(path: &Path) -> Result<ApproverKey, Failure> {
    let failed = |why: String| Failure::failed(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    ApproverKey::read(&text).map_err(|error| failed(error.to_string()))
}
