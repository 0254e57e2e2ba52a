//! `farthing audit`: the log that proves what a wallet did, for its owner and for strangers.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_audit::{Check, Fault, LogDir, MAX_CHECKPOINT_BYTES, Report, VerifierKey, verify as verify_log};
use farthing_primitives::{PurchaseId, Timestamp};
use farthing_wallet::client::printable;
use farthing_wallet::journal::Journal;
use farthing_wallet::journal::audit::{EraseError, KeptLeaf, Parties};
use farthing_wallet::{AuditError, Home, system_clock};
use serde_json::{Value, json};

use super::Failure;
use super::wallet::{Out, home};

mod bundle;
mod export;
mod witness;

/// How many leaves are read at once.
const PAGE: usize = 500;

/// Prove what a wallet did: a log that shows when somebody edits, deletes, cuts or forks it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing audit publish                          bring the log up to date, and sign it
  farthing audit verify                           hold it against its key, the journal and what was signed last
  farthing audit verify --dir copy/ --key 'farthing-wallet/…+…+…' --since kept-checkpoint
  farthing audit prove buy_0192… > proof.json
  farthing audit check proof.json --key 'farthing-wallet/…+…+…'

Whoever keeps a checkpoint, or a copy, can tell later whether the log was changed since. The log
is in $FARTHING_HOME/audit; its key is no key that pays. See docs/reference/audit.md.

Exit codes: 0 done, and what was checked holds; 1 it does not hold, or could not be done; 2 called wrongly.")]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Command,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
    Publish(Publish),
    Key(Key),
    Show(Show),
    Prove(Prove),
    Bundle(Bundle),
    Check(CheckArgs),
    Export(Export),
    Erase(Erase),
    Parties(PartiesArgs),
    Witness(witness::WitnessArgs),
    Attach(witness::Attach),
}

/// Read a whole log, and say whether it is what its key signed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing audit verify
  farthing audit verify --dir copy/ --key 'farthing-wallet/…+…+…' --since kept-checkpoint

Without --dir the wallet's own log is also held against its journal and what was signed last.
Needs no network.")]
struct Verify {
    /// The log's directory, if it is not the wallet's own
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The log's public key, if it is not the wallet's own
    #[arg(long, value_name = "VKEY")]
    key: Option<VerifierKey>,
    /// A checkpoint that was kept: the log has to begin with it. May be given several times
    #[arg(long, value_name = "FILE")]
    since: Vec<PathBuf>,
    /// The public key of a witness that has to have cosigned. May be given several times
    #[arg(long, value_name = "VKEY")]
    witness: Vec<VerifierKey>,
}

/// Bring the published log up to what the journal holds, and sign it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing audit publish
  farthing audit publish --dir /srv/log && rsync -a /srv/log/ auditor:log/

What is published is never changed: it grows.")]
struct Publish {
    /// Where to, if not to the wallet's own directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Print the log's public key
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing audit key > log.vkey")]
struct Key {}

/// List what the log says
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing audit show
  farthing audit show --from 0 --limit 1000 --json | jq .leaf")]
struct Show {
    /// Start at this leaf; otherwise the latest are listed
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// How many at most (1 to 1000)
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
}

/// Prove what the log says about one purchase, and reveal what it committed to
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing audit prove buy_0192… > proof.json")]
struct Prove {
    /// The purchase, or the attempt that was denied
    purchase: PurchaseId,
    /// Do not reveal what the log only commits to
    #[arg(long)]
    hide: bool,
}

/// All about one purchase for a dispute: its leaves and their proofs, the receipt, and what was asked
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing audit bundle buy_0192… > dispute.json")]
struct Bundle {
    /// The purchase
    purchase: PurchaseId,
}

/// Check a proof or a bundle that somebody gave you
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing audit check proof.json --key 'farthing-wallet/…+…+…'

The key has to come from elsewhere than the proof.")]
struct CheckArgs {
    /// The proof
    file: PathBuf,
    /// The log's public key
    #[arg(long, value_name = "VKEY")]
    key: VerifierKey,
}

/// Write the log for bookkeeping (csv: a line for each purchase) or for other programs (jsonl: one for each leaf)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing audit export --format csv > november.csv
  farthing audit export --format jsonl | jq 'select(.leaf.kind == \"denied\")'")]
struct Export {
    /// csv or jsonl
    #[arg(long, value_parser = ["csv", "jsonl"], default_value = "csv")]
    format: String,
}

/// Forget the personal data of a purchase that is over: the log still verifies
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing audit erase buy_0192…

The query, what identifies the request, the receipt and the signed payment are gone from the
wallet; the amount, the payee and the URL without its query stay in the log.")]
struct Erase {
    /// The purchase, or the attempt that was denied
    purchase: PurchaseId,
}

/// Say whose money it is, who runs the machine, and under which law, in each leaf from now on
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  farthing audit parties --principal 'Example Ltd' --operator 'Ops team' --jurisdiction DE

Principal and operator are committed to and not shown. What is not given is left out from now on."
)]
struct PartiesArgs {
    /// Whose money it is
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Who runs the machine
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Under which law
    #[arg(long, value_name = "CODE")]
    jurisdiction: Option<String>,
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Publish(error) => Self::failed(format!("{error} ({})", error.code())),
            error => Self::failed(error.to_string()),
        }
    }
}

pub fn run(args: AuditArgs) -> Result<ExitCode, Failure> {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    match args.command {
        Command::Verify(verify) => return check_log(&verify, &out),
        Command::Publish(publish) => bring_up(&publish, &out)?,
        Command::Key(Key {}) => {
            let key = opened()?.0.audit().key()?.verifier().to_string();
            out.say(&json!({ "key": key }), &key);
        }
        Command::Show(show) => list(&show, &out)?,
        Command::Prove(prove) => bundle::print(&opened()?, &prove.purchase, !prove.hide, false)?,
        Command::Bundle(wanted) => bundle::print(&opened()?, &wanted.purchase, true, true)?,
        Command::Check(check) => return bundle::check(&check.file, &check.key, &out),
        Command::Export(export) if export.format == "csv" => export::csv(&opened()?.1)?,
        Command::Export(_) => export::jsonl(&opened()?.1)?,
        Command::Erase(erase) => forget(&erase.purchase, &out)?,
        Command::Parties(parties) => name(parties, &out)?,
        Command::Witness(args) => return witness::run(&args, &out),
        Command::Attach(args) => witness::attach(&args, &out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The wallet and its journal. A wallet is not made by looking for one.
fn opened() -> Result<(Home, Journal), Failure> {
    let home = home()?;
    if !home.has_journal() {
        return Err(Failure::failed(format!("there is no wallet in {}", home.path().display())));
    }
    let journal = home.journal()?;
    Ok((home, journal))
}

fn check_log(args: &Verify, out: &Out) -> Result<ExitCode, Failure> {
    let mut known = Vec::new();
    for path in &args.since {
        known.push(read_bounded(path, MAX_CHECKPOINT_BYTES)?);
    }
    let (dir, own) = match &args.dir {
        Some(dir) => (LogDir::new(dir), None),
        None => {
            let (home, journal) = opened()?;
            known.extend(home.audit().last_signed()?);
            (home.audit().dir(), Some(journal))
        }
    };
    let key = match &args.key {
        Some(key) => key.clone(),
        None => opened()?.0.audit().key()?.verifier().clone(),
    };
    let leaves = own.as_ref().map(|journal| journal as &dyn farthing_audit::Leaves);
    let report = verify_log(&dir, &Check { key: &key, witnesses: &args.witness, known: &known, leaves });
    out.say(&report_json(&report), &report_text(&report, &dir));
    Ok(ExitCode::from(u8::from(!report.holds())))
}

fn report_json(report: &Report) -> Value {
    let fault = |fault: &Fault| json!({ "code": fault.code(), "message": fault.to_string() });
    json!({
        "holds": report.holds(),
        "size": report.checkpoint.as_ref().map(|checkpoint| checkpoint.size),
        "root": report.checkpoint.as_ref().map(|checkpoint| hex::encode(checkpoint.root)),
        "origin": report.checkpoint.as_ref().map(|checkpoint| checkpoint.origin.clone()),
        "unpublished": report.unpublished,
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

fn report_text(report: &Report, dir: &LogDir) -> String {
    let mut text = String::new();
    for fault in &report.faults {
        text += &format!("PROBLEM  {}: {}\n", fault.code(), printable(&fault.to_string()));
    }
    if let Some(checkpoint) = report.checkpoint.as_ref().filter(|_| report.holds()) {
        text += &format!("the log in {} holds: {} leaves\n", dir.path().display(), checkpoint.size);
    }
    if report.unpublished > 0 {
        text += &format!("{} leaves are not published yet: farthing audit publish\n", report.unpublished);
    }
    text
}

fn bring_up(args: &Publish, out: &Out) -> Result<(), Failure> {
    let (home, journal) = opened()?;
    let log = home.audit();
    let dir = args.dir.as_ref().map_or_else(|| log.dir(), LogDir::new);
    journal.flush_denied(&system_clock())?;
    let published = log.publish(&journal, &dir)?;
    let (size, new) = (published.checkpoint.size, published.checkpoint.size - published.before);
    let key = log.key()?.verifier().to_string();
    let at = dir.path().display().to_string();
    out.say(
        &json!({
            "dir": at,
            "size": size,
            "new": new,
            "root": hex::encode(published.checkpoint.root),
            "key": key,
            "checkpoint": published.note,
        }),
        &format!(
            "{size} leaves are published in {at}, {new} of them new\nkey  {key}\nGive {at}/checkpoint to somebody \
             who keeps it."
        ),
    );
    Ok(())
}

fn list(args: &Show, out: &Out) -> Result<(), Failure> {
    let (_, journal) = opened()?;
    let limit = args.limit.clamp(1, 1_000);
    let count = journal.audit_count()?;
    let from = args.from.unwrap_or_else(|| count.saturating_sub(limit as u64));
    let leaves = journal.audit_leaves(from, limit)?;
    if out.json {
        for kept in &leaves {
            print_line(&export::leaf_json(kept))?;
        }
        return Ok(());
    }
    let mut text = String::new();
    for kept in &leaves {
        text += &leaf_line(kept);
    }
    out.say(&Value::Null, if text.is_empty() { "the log is empty" } else { &text });
    Ok(())
}

fn leaf_line(kept: &KeptLeaf) -> String {
    let leaf = &kept.leaf;
    let about = leaf.text("purchase").or(leaf.text("channel")).unwrap_or_default();
    let mut facts = Vec::new();
    for name in ["change", "state", "proof", "amount", "asset", "host", "url", "repeats", "tx"] {
        facts.extend(leaf.text(name).map(|value| format!("{name} {}", printable(value))));
    }
    if let Some(farthing_audit::Value::List(codes)) = leaf.fields.get("denied") {
        let codes: Vec<&str> = codes.iter().filter_map(farthing_audit::Value::as_text).collect();
        facts.push(format!("denied {}", printable(&codes.join(", "))));
    }
    let at = Timestamp::from_millis(leaf.at_ms);
    format!("{:>7}  {at}  {:<14} {about}  {}\n", kept.index, leaf.kind.name(), facts.join("  "))
}

fn forget(purchase: &PurchaseId, out: &Out) -> Result<(), Failure> {
    let (_, journal) = opened()?;
    let erased = journal.erase(purchase, &system_clock()).map_err(|error| match error {
        EraseError::Open(_) => Failure::failed(error.to_string()),
        EraseError::Journal(error) => error.into(),
    })?;
    out.say(
        &json!({ "purchase": purchase.to_string(), "erased": erased }),
        &format!("{erased} values are erased; the log still verifies"),
    );
    Ok(())
}

fn name(args: PartiesArgs, out: &Out) -> Result<(), Failure> {
    let (_, journal) = opened()?;
    let parties =
        Parties { principal: args.principal, operator: args.operator, jurisdiction: args.jurisdiction };
    journal.name_parties(&parties, &system_clock())?;
    out.say(&json!({ "named": true }), "each leaf names them from now on");
    Ok(())
}

fn print_line(line: &str) -> Result<(), Failure> {
    let written = writeln!(std::io::stdout(), "{line}");
    written.map_err(|error| Failure::failed(format!("the output cannot be written: {error}")))
}

fn read_bounded(path: &Path, most: usize) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::failed(format!("{} cannot be read: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > most {
        return Err(Failure::failed(format!("{} is longer than {most} bytes", path.display())));
    }
    Ok(bytes)
}

/// Goes through the whole log, page by page.
fn each_leaf(
    journal: &Journal,
    mut work: impl FnMut(&KeptLeaf) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut from = 0;
    loop {
        let page = journal.audit_leaves(from, PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        from = last.index + 1;
        page.iter().try_for_each(&mut work)?;
    }
}
