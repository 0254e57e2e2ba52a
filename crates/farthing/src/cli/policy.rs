//! `farthing policy`: what machines may spend, from a file.

mod index;
mod prove;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_policy::policy::{MAX_FILE_BYTES, Mode, length_of};
use farthing_policy::{Host, Policy};
use farthing_primitives::{PurchaseId, Registry};
use farthing_wallet::journal::law::{ApplyError, Recalled, Replayed, policy_id};
use farthing_wallet::system_clock;
use serde_json::{Value, json};

use super::Failure;
use super::wallet::{Out, home};
use index::IndexArgs;
use prove::ProveArgs;

/// How many changed decisions are shown to a person.
const SHOWN: usize = 20;

/// Say in a file what machines may spend: budgets in a tree, rules that allow, deny and ask people
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing policy check policy.yaml              is it one? nothing changes
  farthing policy test policy.yaml --replay 30d  what of the last 30 days would it have denied?
  farthing policy apply policy.yaml              from the next payment on
  farthing policy explain buy_01h…               why was this paid?
  farthing policy named                          whom did something that agents read name first?
  farthing policy index set gpu-hour '$2.10'     what limits follow that say so
  farthing policy prove new.yaml --against old.yaml   by a solver: nothing more is allowed

A policy takes the place of the limits and hosts of \"farthing wallet\", all but the freeze. A file
that is wrong, or that might allow more than the one in force, changes nothing.

Exit codes: 0 done; 1 it could not be done; 2 called wrongly, or the file is no policy; 3 it might
allow more than now (see --accept-looser); 4 the test found payments that it would not allow; of
\"prove\", 5 refuted, 6 not proved, 7 a program that it needs is missing.")]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: Command,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
    Schema(Schema),
    Apply(Apply),
    Show(Show),
    Clear(Clear),
    Test(Test),
    Explain(Explain),
    Named(Named),
    Index(IndexArgs),
    Prove(ProveArgs),
}

/// Read a file, and say whether it is a policy and how it compares with the one in force
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  farthing policy check policy.yaml\n  farthing policy check - < policy.yaml"
)]
struct Check {
    /// The file; - is standard input
    file: PathBuf,
}

/// Print the JSON Schema of policies, for editors
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing policy schema > policy.schema.json")]
struct Schema {}

/// Put a policy into force
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing policy apply policy.yaml
  farthing policy apply policy.yaml --accept-looser    it may allow what the one before did not")]
struct Apply {
    /// The file; - is standard input
    file: PathBuf,
    /// Accept that it might allow what is not allowed now
    #[arg(long)]
    accept_looser: bool,
}

/// Print the policy in force
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing policy show")]
struct Show {}

/// Go back to the limits and hosts of \"farthing wallet\"
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing policy clear --accept-looser")]
struct Clear {
    /// Accept that those might allow what is not allowed now
    #[arg(long)]
    accept_looser: bool,
}

/// Decide again about what was paid, by a policy that is not in force
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing policy test policy.yaml --replay 30d
  farthing policy test policy.yaml --replay 24h --json | jq '.changed[].code'

What was denied at the time is not in the journal, so it is not tried again; nor are purchases by
voucher, whose deposits are. No screener is asked: what it said at the time counts again; where it was
not asked, or another was, its word is not known, is taken for a yes, and is counted as unknown.")]
struct Test {
    /// The file; - is standard input
    file: PathBuf,
    /// How far back, such as 24h or 30d
    #[arg(long, value_name = "LENGTH", default_value = "30d")]
    replay: String,
}

/// Say why a purchase was allowed, rule by rule
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing policy explain buy_01980000000070008000000000000000")]
struct Explain {
    /// The purchase, as \"farthing wallet history\" names it
    id: PurchaseId,
}

pub fn run(args: PolicyArgs) -> Result<ExitCode, Failure> {
    use std::io::IsTerminal;
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    match args.command {
        Command::Check(check) => check_file(&check, &out),
        Command::Schema(Schema {}) => {
            println!("{:#}", farthing_policy::policy::schema());
            Ok(())
        }
        Command::Apply(apply) => put_into_force(&apply, &out),
        Command::Show(Show {}) => show(&out),
        Command::Clear(clear) => take_away(&clear, &out),
        Command::Test(test) => replay(&test, &out),
        Command::Explain(explain) => why(&explain, &out),
        Command::Named(named) => named_by_others(&named, &out),
        Command::Index(index) => index::run(index, &out),
        Command::Prove(prove) => prove::run(&prove, &out),
    }?;
    Ok(ExitCode::SUCCESS)
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        let code = match &error {
            ApplyError::Policy(_) | ApplyError::Observes | ApplyError::None => 2,
            ApplyError::Looser(_) | ApplyError::Unbound => 3,
            ApplyError::Journal(_) => 1,
        };
        let hint = if code == 3 { "\nNothing was changed. If you mean it: --accept-looser" } else { "" };
        Self { message: format!("{error}{hint}"), code }
    }
}

/// The text of a policy, up to a byte more than a policy may be long.
fn read(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", file.display()));
    let limit = MAX_FILE_BYTES as u64 + 1;
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(file).map_err(failed)?.take(limit).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

fn parsed(file: &Path) -> Result<(String, Policy), Failure> {
    let text = read(file)?;
    let policy =
        Policy::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    Ok((text, policy))
}

fn summary(text: &str, policy: &Policy) -> Value {
    json!({
        "policy": policy_id(text),
        "mode": match policy.mode { Mode::Enforce => "enforce", Mode::Observe => "observe" },
        "budgets": policy.budgets.keys().map(ToString::to_string).collect::<Vec<_>>(),
        "allow": policy.allow.len(),
        "deny": policy.deny.len(),
        "approve": policy.approve.len(),
        "screen": policy.screen.as_ref().map(|screener| screener.asks.to_string()),
    })
}

fn line(policy: &Policy) -> String {
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    format!(
        "{}; {} that allow, {} that deny, {} that ask people",
        count(policy.budgets.len(), "budget", "budgets"),
        count(policy.allow.len(), "rule", "rules"),
        policy.deny.len(),
        policy.approve.len(),
    ) + &policy
        .screen
        .as_ref()
        .map_or_else(String::new, |screener| format!("; screened by {}", screener.asks))
}

fn check_file(check: &Check, out: &Out) -> Result<(), Failure> {
    let (text, policy) = parsed(&check.file)?;
    let mut json = summary(&text, &policy);
    let mut said = format!("a policy: {}\n", line(&policy));
    if let Some(now) = home()?.journal()?.policy()? {
        let looser: Vec<String> = policy.loosens(&now.policy).iter().map(ToString::to_string).collect();
        said += &match looser.as_slice() {
            [] => "allows nothing that the one in force does not\n".to_owned(),
            looser => format!("might allow more than the one in force:\n  {}\n", looser.join("\n  ")),
        };
        json["looser"] = json!(looser);
    }
    out.say(&json, &said);
    Ok(())
}

fn put_into_force(apply: &Apply, out: &Out) -> Result<(), Failure> {
    let text = read(&apply.file)?;
    let journal = home()?.journal()?;
    journal.note_time(&system_clock())?;
    let kept = journal.apply_policy(&text, apply.accept_looser)?;
    out.say(&summary(&kept.text, &kept.policy), &format!("in force: {}\n{}\n", line(&kept.policy), kept.id));
    Ok(())
}

fn show(out: &Out) -> Result<(), Failure> {
    match home()?.journal()?.policy()? {
        Some(kept) => {
            let mut json = summary(&kept.text, &kept.policy);
            json["text"] = json!(kept.text);
            json["enforced_by"] = json!("process");
            out.say(&json, &kept.text);
        }
        None => out.say(
            &json!({ "policy": null }),
            "no policy: the limits and hosts of \"farthing wallet show\" are in force",
        ),
    }
    Ok(())
}

/// Say which hosts and payees agents read of in what others wrote, and who wrote it; payments there wait for people
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing policy named
  farthing policy named --forget shop.example    it may be paid like any other, until it is named again
  farthing policy named --forget-all

What reaches agents through \"farthing mcp serve\" and \"farthing mcp proxy\" is read for names as long as a
policy is in force that does not say \"taint: off\". A host that a rule under allow names exactly, that was
paid before, or that people let be paid once, is known, whoever names it.")]
struct Named {
    /// Forget that this host was named, with all below it
    #[arg(long, value_name = "HOST", conflicts_with = "forget_all")]
    forget: Option<Host>,
    /// Forget all names, also that there were more than are kept
    #[arg(long)]
    forget_all: bool,
}

fn named_by_others(named: &Named, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    if named.forget.is_some() || named.forget_all {
        journal.note_time(&system_clock())?;
        let gone = journal.forget_mentions(named.forget.as_ref())?;
        out.say(&json!({ "forgotten": gone }), &format!("{gone} names are forgotten"));
        return Ok(());
    }
    let all = journal.mentions()?;
    let rows: Vec<Value> = all
        .iter()
        .map(|one| {
            json!({
                "agent": one.agent,
                "kind": one.kind,
                "name": one.name,
                "since": one.since.to_string(),
                "by": one.by,
            })
        })
        .collect();
    let mut text = String::new();
    for one in &all {
        let agent = one.agent.as_deref().unwrap_or("the owner");
        let name = if one.kind == "more" { "more than are kept" } else { &one.name };
        text += &format!("{}  {name}  to {agent}, by {}\n", one.since, one.by);
    }
    if all.is_empty() {
        "nobody named anything".clone_into(&mut text);
    }
    out.say(&Value::Array(rows), &text);
    Ok(())
}

fn take_away(clear: &Clear, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    journal.note_time(&system_clock())?;
    journal.clear_policy(clear.accept_looser)?;
    out.say(
        &json!({ "policy": null }),
        "the limits and hosts of \"farthing wallet show\" are in force again",
    );
    Ok(())
}

fn replay(test: &Test, out: &Out) -> Result<(), Failure> {
    let (_, policy) = parsed(&test.file)?;
    let length = length_of(&test.replay).ok_or_else(|| {
        Failure::usage(format!("{:?} is no length of time like \"24h\" or \"30d\"", test.replay))
    })?;
    let journal = home()?.journal()?;
    let since = system_clock().wall.minus(length);
    let replayed = journal.replay(&policy, &Registry::builtin(), since)?;
    let changed: Vec<&Replayed> = replayed.iter().filter(|one| !one.decision.is_allowed()).collect();
    let waiting = changed.iter().filter(|one| one.decision.asks_for_approval().is_some()).count();
    let screened = |how| replayed.iter().filter(|one| one.screening == how).count();
    let shown = |one: &Replayed| {
        json!({
            "purchase": one.purchase.id.to_string(),
            "url": one.purchase.url,
            "atoms": one.purchase.money.atoms().to_string(),
            "asset": one.purchase.money.asset().to_string(),
            "agent": one.purchase.agent.as_ref().map(ToString::to_string),
            "code": one.decision.denials().next().map(|fact| fact.code().to_owned()),
            "reasons": one.decision.denials().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    let json = json!({
        "replayed": replayed.len(),
        "allowed": replayed.len() - changed.len(),
        "denied": changed.len() - waiting,
        "approval": waiting,
        "screening": { "recorded": screened(Recalled::Recorded), "unknown": screened(Recalled::Unknown) },
        "changed": changed.iter().map(|one| shown(one)).collect::<Vec<_>>(),
    });
    let mut text = format!(
        "{} payments: {} allowed again, {} denied, {} would wait for people\n",
        replayed.len(),
        replayed.len() - changed.len(),
        changed.len() - waiting,
        waiting,
    );
    if policy.screen.is_some() {
        text += &format!(
            "its screener is not asked: of {} its word of then counts; of {} it is not known, and taken for a yes\n",
            screened(Recalled::Recorded),
            screened(Recalled::Unknown),
        );
    }
    for one in changed.iter().take(SHOWN) {
        text += &format!("  {}  {}\n    {}\n", one.purchase.id, one.purchase.url, one.decision);
    }
    if changed.len() > SHOWN {
        text += &format!("  and {} more: --json has all\n", changed.len() - SHOWN);
    }
    out.say(&json, &text);
    if changed.is_empty() {
        return Ok(());
    }
    Err(Failure {
        message: format!("{} payments would not have been made as they were", changed.len()),
        code: 4,
    })
}

fn why(explain: &Explain, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let purchase = journal.get(&explain.id)?;
    let findings = journal.findings(&explain.id)?.ok_or_else(|| {
        Failure::failed(format!("{} was decided about by a version that kept no reasons", explain.id))
    })?;
    let screening = findings.iter().find(|finding| finding.screener.is_some());
    let json = json!({
        "purchase": purchase.id.to_string(),
        "url": purchase.url,
        "agent": purchase.agent.as_ref().map(ToString::to_string),
        "state": purchase.state.name(),
        "enforced_by": "process",
        // What the screener said then; it is not asked again.
        "screening": screening.map(|finding| json!({ "code": finding.code, "by": finding.screener })),
        "findings": findings
            .iter()
            .map(|finding| json!({ "code": finding.code, "denies": finding.denies, "text": finding.text }))
            .collect::<Vec<_>>(),
    });
    let mut text = format!("{}  {} {}\n", purchase.id, purchase.method, purchase.url);
    for finding in &findings {
        text += &format!("  {:<24} {}\n", finding.code, finding.text);
    }
    if screening.is_none() {
        text += "  no screener was asked\n";
    }
    out.say(&json, &text);
    Ok(())
}
