//! `farthing policy prove`: what a solver says of a policy, by Cedar's published program.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::{ErrorKind, IsTerminal, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use clap::Args;
use farthing_policy::cedar::{
    ACTION, Asked, Comparison, Context, PRINCIPAL, RESOURCE, Refutation, Search, Untold, read_context,
};
use farthing_policy::{AgentName, Fact, Policy};
use farthing_primitives::Registry;
use serde_json::{Value, json};

use super::parsed;
use crate::cli::Failure;
use crate::cli::wallet::Out;

/// How many agents are compared with those above them.
const MAX_AGENTS: usize = 100;
/// How much of what a program says is read, in bytes.
const MAX_SAID: u64 = 1024 * 1024;
/// How long a program may take that only says what it is.
const HELLO: Duration = Duration::from_secs(20);
/// How long the output of a program that is gone is waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long Cedar lets its solver think, whatever we would wait.
const MAX_TIMEOUT: u64 = 60;

const REFUTED: u8 = 5;
const UNKNOWN: u8 = 6;
const MISSING: u8 = 7;

/// Prove what a policy allows, with Cedar's symbolic analysis
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing policy prove policy.yaml
  farthing policy prove new.yaml --against old.yaml    nothing is allowed that was not?
  farthing policy prove policy.yaml --agent acme/research/scout
  farthing policy prove new.yaml --against old.yaml --export proof/   the files alone; needs no solver

It asks whether no rule ever fails, whether an agent may pay nothing that the one above it may not, and
whether a new policy allows nothing that an old one did not, alone and where people say yes. Each is
proved, refuted (by a payment that the policies themselves were asked about), or unknown.

It needs two programs:
  cedar   cargo install cedar-policy-cli --locked --features analyze
  cvc5    apt install cvc5

Exit codes: 0 all is proved; 1 it could not be done; 2 called wrongly, or a file is no policy;
5 something is refuted; 6 something is unknown, and nothing refuted; 7 a program is missing.")]
pub(super) struct ProveArgs {
    /// The file; - is standard input
    file: PathBuf,
    /// An older policy: prove that the file allows nothing that this one does not
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Compare this agent with the one above it, and no others; may be given more than once
    #[arg(long, value_name = "NAME")]
    agent: Vec<AgentName>,
    /// Only write what Cedar is asked into this directory
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Cedar's program, with the feature "analyze"
    #[arg(long, value_name = "PATH", default_value = "cedar")]
    cedar: PathBuf,
    /// The solver
    #[arg(long, value_name = "PATH", env = "CVC5", default_value = "cvc5")]
    cvc5: PathBuf,
    /// How long one claim may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=MAX_TIMEOUT))]
    timeout: u64,
}

/// Something to be proved.
struct Claim {
    code: &'static str,
    says: String,
    verdict: Verdict,
}

enum Verdict {
    Proved,
    Refuted(Box<Refutation>),
    /// A rule of Cedar fails, which ours do not.
    Fails,
    Unknown(String),
}

pub(super) fn run(args: &ProveArgs, out: &Out) -> Result<(), Failure> {
    let (_, new) = parsed(&args.file)?;
    let old = args.against.as_deref().map(parsed).transpose()?.map(|(_, old)| old);
    let registry = Registry::builtin();
    let (pairs, left_out) = agents(&new, &args.agent)?;
    if old.is_none() && pairs.is_empty() && args.export.is_none() {
        return Err(Failure::usage(
            "there is nothing to compare: the policy names no agent that is part of another. Name an older policy with --against",
        ));
    }
    let mut asked = vec![("policy".to_owned(), Comparison::of(&new, &new, &registry))];
    if let Some(old) = &old {
        asked.push(("against".to_owned(), Comparison::of(&new, old, &registry)));
    }
    for (child, parent) in &pairs {
        let name = format!("agent {}", child.as_str().replace('/', "+"));
        asked.push((name, Comparison::of_agents(&new, child, parent, &registry)));
    }
    if let Some(dir) = &args.export {
        let told = asked.into_iter().map(|(name, told)| Ok((name, told?)));
        let asked: Vec<_> = told.collect::<Result<_, Untold>>().map_err(|untold| {
            Failure::failed(format!("{}, or what it is compared with: {untold}", args.file.display()))
        })?;
        return export(dir, &asked, out)
            .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())));
    }
    let tools = Tools::find(args, out)?;
    let work = Work::new().map_err(|error| Failure::failed(format!("no place for files: {error}")))?;
    let prover = Prover { tools: &tools, dir: &work.0, timeout: Duration::from_secs(args.timeout) };
    let mut claims = Vec::new();
    let mut asked = asked.into_iter();
    if let Some((_, alone)) = asked.next() {
        let says = "no rule ever fails".to_owned();
        claims.push(Claim { code: "never_errors", says, verdict: prover.never_errors(&alone) });
    }
    let mut opaque = BTreeSet::new();
    if old.is_some()
        && let Some((_, both)) = asked.next()
    {
        let says = "the new policy never fails beside the old one".to_owned();
        claims.push(Claim { code: "never_errors", says, verdict: prover.never_errors(&both) });
        for (code, asked, when) in [
            ("allows_no_more", Asked::Nobody, "nothing is allowed without asking people that was not"),
            (
                "allows_no_more_approved",
                Asked::People,
                "nothing is allowed that people said yes to and that was not",
            ),
        ] {
            let verdict = prover.narrower(when, &both, asked);
            claims.push(Claim { code, says: when.to_owned(), verdict });
        }
        opaque.extend(both.iter().flat_map(Comparison::opaque).map(str::to_owned));
    }
    for ((child, parent), (_, comparison)) in pairs.iter().zip(asked) {
        let says = format!("{child} may pay nothing that {parent} may not");
        let verdict = prover.narrower(&says, &comparison, Asked::All);
        claims.push(Claim { code: "child_within_parent", says, verdict });
        opaque.extend(comparison.iter().flat_map(Comparison::opaque).map(str::to_owned));
    }
    if left_out > 0 {
        let why = format!("there are more than {MAX_AGENTS} agents: name some with --agent");
        let says = format!("{left_out} more agents may pay nothing that those above them may not");
        claims.push(Claim { code: "child_within_parent", says, verdict: Verdict::Unknown(why) });
    }
    say(&claims, &opaque, &tools, out)
}

/// An agent, and the one above it.
type Pair<'a> = (&'a AgentName, &'a AgentName);

/// Every agent that a policy names and that is part of another that it names, if it may spend at all; and how many more there are.
fn agents<'a>(policy: &'a Policy, only: &'a [AgentName]) -> Result<(Vec<Pair<'a>>, usize), Failure> {
    let allow = policy.allow.iter().map(|rule| &rule.matcher);
    let deny = policy.deny.iter().map(|rule| &rule.matcher);
    let rules = allow.chain(deny).chain(policy.approve.iter().map(|rule| &rule.matcher));
    let named: BTreeSet<&AgentName> = policy
        .budgets
        .keys()
        .chain(rules.filter_map(|matcher| matcher.agents.as_ref()).flatten())
        .filter(|name| policy.chain(Some(name)).is_some())
        .collect();
    let above = |child: &AgentName| child.lineage().skip(1).find_map(|above| named.get(&above).copied());
    if !only.is_empty() {
        let pair = |child: &'a AgentName| {
            let parent = above(child);
            Ok((
                child,
                parent.ok_or_else(|| Failure::usage(format!("the policy names nobody above {child}")))?,
            ))
        };
        return Ok((only.iter().map(pair).collect::<Result<_, Failure>>()?, 0));
    }
    let pairs: Vec<_> = named.iter().filter_map(|child| Some((*child, above(child)?))).collect();
    let left_out = pairs.len().saturating_sub(MAX_AGENTS);
    Ok((pairs.into_iter().take(MAX_AGENTS).collect(), left_out))
}

// ---------------------------------------------------------------------------------------------------------------------
// Files.

/// What one comparison is about, in files.
fn write_all(dir: &Path, comparison: &Comparison<'_>, asked: Asked) -> std::io::Result<()> {
    let put = |name: &str, text: Result<String, Untold>| {
        std::fs::write(dir.join(name), text.map_err(|untold| std::io::Error::other(untold.to_string()))?)
    };
    put("schema.cedarschema", comparison.schema())?;
    put("narrower.cedar", comparison.narrower(asked, Search::Proof))?;
    put("wider.cedar", comparison.wider())?;
    put("together.cedar", comparison.together())
}

fn export(dir: &Path, asked: &[(String, Comparison<'_>)], out: &Out) -> std::io::Result<()> {
    let mut written = Vec::new();
    for (name, comparison) in asked {
        let kinds: &[(&str, Asked)] = match name.as_str() {
            "against" => &[("unasked", Asked::Nobody), ("approved", Asked::People)],
            _ => &[("all", Asked::All)],
        };
        for (kind, asked) in kinds {
            let place = dir.join(name.replace(' ', "-")).join(kind);
            std::fs::create_dir_all(&place)?;
            write_all(&place, comparison, *asked)?;
            written.push(place.display().to_string());
        }
    }
    let how = format!(
        "cedar symcc --principal-type {PRINCIPAL} --resource-type {RESOURCE} --action '{ACTION}' \
         --schema schema.cedarschema implies --policies1 narrower.cedar --policies2 wider.cedar"
    );
    let text = format!("written:\n  {}\nin each:\n  {how}\n", written.join("\n  "));
    out.say(&json!({ "written": written, "ask": how }), &text);
    Ok(())
}

/// A directory that is nobody else's, and that goes with us.
struct Work(PathBuf);

impl Work {
    fn new() -> std::io::Result<Self> {
        let mut found = Err(std::io::Error::from(ErrorKind::AlreadyExists));
        for n in 0..100 {
            let dir = std::env::temp_dir().join(format!("farthing-prove-{}-{n}", std::process::id()));
            found = std::fs::DirBuilder::new().mode(0o700).create(&dir).map(|()| Self(dir));
            if !matches!(&found, Err(error) if error.kind() == ErrorKind::AlreadyExists) {
                break;
            }
        }
        found
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What is left there is no secret.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Programs.

struct Tools {
    cedar: PathBuf,
    cvc5: PathBuf,
    versions: [String; 2],
}

impl Tools {
    /// Both programs, or which is missing and how to get it.
    fn find(args: &ProveArgs, out: &Out) -> Result<Self, Failure> {
        // It is run elsewhere than it was named.
        let whole = |program: &PathBuf| match program.components().count() {
            1 => program.clone(),
            _ => std::path::absolute(program).unwrap_or_else(|_| program.clone()),
        };
        let (cedar_program, cvc5_program) = (whole(&args.cedar), whole(&args.cvc5));
        let mut missing = Vec::new();
        let mut version = |program: &Path, words: &[&str], name: &'static str, install: &'static str| {
            let mut command = Command::new(program);
            command.args(words);
            let ended = bounded(command, HELLO);
            match ended {
                Ok(Ended { success: true, stdout, .. }) => {
                    stdout.lines().next().unwrap_or_default().trim().to_owned()
                }
                Ok(_) | Err(_) => {
                    let why = match ended {
                        Err(error) if error.kind() == ErrorKind::NotFound => "is not there".to_owned(),
                        Err(error) => format!("cannot be run: {error}"),
                        Ok(_) => "has no symbolic analysis, or does not run".to_owned(),
                    };
                    missing.push((name, format!("{} {why}", program.display()), install));
                    String::new()
                }
            }
        };
        let install = "cargo install cedar-policy-cli --locked --features analyze";
        let analyses = version(&cedar_program, &["symcc", "--help"], "cedar", install);
        let cvc5 = version(&cvc5_program, &["--version"], "cvc5", "apt install cvc5");
        let cedar = match analyses.is_empty() {
            true => String::new(),
            false => version(&cedar_program, &["--version"], "cedar", install),
        };
        if missing.is_empty() {
            return Ok(Self { cedar: cedar_program, cvc5: cvc5_program, versions: [cedar, cvc5] });
        }
        let each: Vec<Value> = missing
            .iter()
            .map(|(name, why, install)| json!({ "program": name, "message": why, "install": install }))
            .collect();
        if out.json {
            out.say(&json!({ "verdict": "unknown", "code": "solver_missing", "missing": each }), "");
        }
        let lines: Vec<String> =
            missing.iter().map(|(_, why, install)| format!("  {why}: {install}")).collect();
        let message = format!(
            "solver_missing: nothing was proved, for what proves is not installed\n{}\n--export DIR writes what it would be asked",
            lines.join("\n")
        );
        Err(Failure { message, code: MISSING })
    }
}

struct Ended {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Ends a program with all that it started.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = i32::try_from(self.0).ok().and_then(rustix::process::Pid::from_raw) {
            // Gone already, most likely.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

/// Runs a program that may take so long and say so much.
fn bounded(mut command: Command, within: Duration) -> std::io::Result<Ended> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its solver is ended with it.
        .process_group(0)
        .spawn()?;
    let group = Group(child.id());
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || {
            let mut said = Vec::new();
            // Whoever says more than that is listened to no more, and is stopped by it or by the time.
            let read = pipe.map(|pipe| pipe.take(MAX_SAID).read_to_end(&mut said));
            let whole = matches!(read, Some(Ok(read)) if (read as u64) < MAX_SAID);
            // Whoever waited no longer does not hear it.
            let _ = tell.send((whole, String::from_utf8_lossy(&said).into_owned()));
        });
        told
    };
    let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let end = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= end {
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // Also what it left behind, which would keep its output open.
    drop(group);
    if status.is_none() {
        child.wait()?;
    }
    // Something that left the group may keep it open.
    let gone = |_| std::io::Error::from(ErrorKind::TimedOut);
    let heard =
        (stdout.recv_timeout(LAST_WORDS).map_err(gone)?, stderr.recv_timeout(LAST_WORDS).map_err(gone)?);
    let ((whole, stdout), (_, stderr)) = heard;
    match status {
        None => Err(std::io::Error::from(ErrorKind::TimedOut)),
        Some(_) if !whole => Err(std::io::Error::other("it said too much")),
        Some(status) => Ok(Ended { success: status.success(), stdout, stderr }),
    }
}

/// What Cedar says of a question.
enum Answer {
    Holds,
    /// With the context of the counterexample, if it can be read.
    DoesNot(Option<Context>),
    Unknown(String),
}

struct Prover<'a> {
    tools: &'a Tools,
    /// Where questions are written.
    dir: &'a Path,
    /// For one claim.
    timeout: Duration,
}

impl Prover<'_> {
    fn never_errors(&self, comparison: &Result<Comparison<'_>, Untold>) -> Verdict {
        let written = comparison.as_ref().map_err(ToString::to_string).and_then(|comparison| {
            write_all(self.dir, comparison, Asked::All).map_err(|error| error.to_string())
        });
        match written.map(|()| self.no_rule_fails(Instant::now() + self.timeout)) {
            Ok(Answer::Holds) => Verdict::Proved,
            Ok(Answer::DoesNot(_)) => Verdict::Fails,
            Ok(Answer::Unknown(why)) | Err(why) => Verdict::Unknown(why),
        }
    }

    /// Of what is written.
    fn no_rule_fails(&self, end: Instant) -> Answer {
        self.ask(end, &["never-errors", "--policies", "together.cedar"], "Policy never errors")
    }

    /// INVARIANT: proved is what Cedar verified with no more than what is always true taken for granted, where it verified
    /// that it skips no rule; and refuted is what our own decisions show.
    fn narrower(&self, says: &str, comparison: &Result<Comparison<'_>, Untold>, asked: Asked) -> Verdict {
        if std::io::stderr().is_terminal() {
            eprintln!("> is it so that {says}?");
        }
        let comparison = match comparison {
            Ok(comparison) => comparison,
            Err(untold) => return Verdict::Unknown(untold.to_string()),
        };
        if let Err(error) = write_all(self.dir, comparison, asked) {
            return Verdict::Unknown(error.to_string());
        }
        let end = Instant::now() + self.timeout;
        match self.no_rule_fails(end) {
            Answer::Holds => {}
            Answer::DoesNot(_) => return Verdict::Fails,
            Answer::Unknown(why) => return Verdict::Unknown(why),
        }
        let implies = || {
            let words = ["implies", "--policies1", "narrower.cedar", "--policies2", "wider.cedar"];
            self.ask(end, &words, "Policy set 1 implies policy set 2")
        };
        let found = match implies() {
            Answer::Holds => return Verdict::Proved,
            Answer::Unknown(why) => return Verdict::Unknown(why),
            Answer::DoesNot(found) => found,
        };
        let mut why = "only sums that are put together very coarsely could tell them apart".to_owned();
        let mut seen = vec![found];
        for search in [Search::Plain, Search::Counterexample] {
            let text = comparison.narrower(asked, search).map_err(|untold| untold.to_string());
            let text = text.and_then(|text| {
                std::fs::write(self.dir.join("narrower.cedar"), text).map_err(|error| error.to_string())
            });
            if let Err(error) = text {
                return Verdict::Unknown(error);
            }
            match implies() {
                Answer::Holds => {}
                Answer::Unknown(reason) => why = reason,
                Answer::DoesNot(found) => seen.insert(0, found),
            }
            match seen.first().and_then(Option::as_ref).map(|context| comparison.refuted(context)) {
                Some(Ok(refutation)) => return Verdict::Refuted(Box::new(refutation)),
                Some(Err(unconfirmed)) if seen.len() > 1 => {
                    why = format!(
                        "a counterexample was found that our own decisions do not confirm: {unconfirmed}"
                    );
                }
                Some(Err(_)) => {}
                None => why = "the counterexample cannot be read".to_owned(),
            }
        }
        let opaque = comparison.opaque();
        if !opaque.is_empty() {
            let parts: Vec<&str> = opaque.into_iter().collect();
            let _ = write!(why, "; not looked into: {}", parts.join(", "));
        }
        Verdict::Unknown(why)
    }

    fn ask(&self, end: Instant, words: &[&str], property: &str) -> Answer {
        let mut command = Command::new(&self.tools.cedar);
        command
            .current_dir(self.dir)
            .env("CVC5", &self.tools.cvc5)
            .args(["symcc", "--principal-type", PRINCIPAL, "--resource-type", RESOURCE, "--action", ACTION])
            .args(["--schema", "schema.cedarschema", "--cvc5-path"])
            .arg(&self.tools.cvc5)
            .args(words);
        let ended = match bounded(command, end.saturating_duration_since(Instant::now())) {
            Ok(ended) => ended,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return Answer::Unknown(format!(
                    "it took more than {} s (see --timeout)",
                    self.timeout.as_secs()
                ));
            }
            Err(error) => return Answer::Unknown(format!("cedar: {error}")),
        };
        let mut lines = ended.stdout.lines();
        let first = lines.next().unwrap_or_default();
        // Nothing but exactly this is a proof.
        if ended.success && first == format!("✓ {property}: VERIFIED") {
            return Answer::Holds;
        }
        if ended.success && first == format!("✗ {property}: DOES NOT HOLD") {
            let context = lines.find_map(|line| line.strip_prefix("context: "));
            return Answer::DoesNot(context.and_then(|text| read_context(text).ok()));
        }
        let said: Vec<&str> = ended.stderr.split_whitespace().collect();
        Answer::Unknown(format!("cedar: {}", said.join(" ").chars().take(400).collect::<String>()))
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What came of it.

impl Verdict {
    const fn name(&self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Refuted(_) | Self::Fails => "refuted",
            Self::Unknown(_) => "unknown",
        }
    }
}

fn say(claims: &[Claim], opaque: &BTreeSet<String>, tools: &Tools, out: &Out) -> Result<(), Failure> {
    let refuted = claims.iter().filter(|claim| claim.verdict.name() == "refuted").count();
    let unknown = claims.iter().filter(|claim| claim.verdict.name() == "unknown").count();
    let verdict = match (refuted, unknown) {
        (0, 0) => "proved",
        (0, _) => "unknown",
        _ => "refuted",
    };
    let [cedar, cvc5] = &tools.versions;
    let rows: Vec<Value> = claims.iter().map(row).collect();
    let json = json!({
        "verdict": verdict, "claims": rows, "not_looked_into": opaque, "cedar": cedar, "cvc5": cvc5,
    });
    let mut text = String::new();
    for claim in claims {
        text += &format!("{:<8} {}\n", claim.verdict.name(), claim.says);
        match &claim.verdict {
            Verdict::Proved => {}
            Verdict::Refuted(refutation) => text += &told(refutation),
            Verdict::Fails => text += "         a rule of Cedar fails: this is a fault of ours\n",
            Verdict::Unknown(why) => text += &format!("         {why}\n"),
        }
    }
    for part in opaque {
        text += &format!("not looked into: {part}\n");
    }
    out.say(&json, &text);
    match verdict {
        "proved" => Ok(()),
        "refuted" => {
            Err(Failure { message: format!("{refuted} of {} are refuted", claims.len()), code: REFUTED })
        }
        _ => Err(Failure { message: format!("{unknown} of {} are not proved", claims.len()), code: UNKNOWN }),
    }
}

fn row(claim: &Claim) -> Value {
    let mut row = json!({ "code": claim.code, "claim": claim.says, "verdict": claim.verdict.name() });
    match &claim.verdict {
        Verdict::Proved | Verdict::Fails => {}
        Verdict::Unknown(why) => row["reason"] = json!(why),
        Verdict::Refuted(refutation) => {
            let Refutation { request, now, voices, instead, allowed, denied } = &**refutation;
            let findings = |facts: Vec<&Fact>| -> Vec<Value> {
                facts.iter().map(|fact| json!({ "code": fact.code(), "text": fact.to_string() })).collect()
            };
            row["counterexample"] = json!({
                "url": request.caller.url,
                "method": request.caller.method,
                "tool": request.caller.tool,
                "agent": request.caller.agent.as_ref().map(ToString::to_string),
                "instead": instead.as_ref().map(ToString::to_string),
                "atoms": request.charge.money().atoms().to_string(),
                "usd": request.charge.dollars().map(farthing_policy::Dollars::plain),
                "asset": request.charge.money().asset().to_string(),
                "symbol": request.charge.symbol(),
                "payee": request.payee.to_string(),
                "scheme": request.scheme,
                "private": request.private,
                "valid_s": request.validity.as_secs(),
                "at": now.to_string(),
                "approvals": voices,
                "allowed": findings(allowed.findings.iter().collect()),
                "denied": findings(denied.denials().collect()),
            });
        }
    }
    row
}

fn told(refutation: &Refutation) -> String {
    let Refutation { request, now, voices, instead, allowed, denied } = refutation;
    let money = request.charge.money();
    let amount = match request.charge.dollars() {
        Some(dollars) => format!("{dollars} in {}", request.charge.symbol()),
        None => format!("{} atoms of {}", money.atoms(), request.charge.symbol()),
    };
    let agent = request.caller.agent.as_ref().map_or("nobody by name", |agent| agent.as_str());
    let tool = request.caller.tool.as_ref().map_or_else(String::new, |tool| format!(" for the tool {tool}"));
    let mut text = format!(
        "         {amount} on {} to {} ({}) for {} {}, by {agent}{tool}, valid for {} s, at {now}, to which {voices} people said yes\n",
        money.asset().network(),
        request.payee,
        request.scheme,
        request.caller.method,
        request.caller.url,
        request.validity.as_secs(),
    );
    text += &format!("         is allowed: {allowed}\n");
    let whom = instead.as_ref().map_or_else(String::new, |agent| format!(" to {agent}"));
    text += &format!("         is denied{whom}: {denied}\n");
    text
}
