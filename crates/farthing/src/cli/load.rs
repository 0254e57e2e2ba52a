//! `farthing load`: how much a facilitator or a gateway takes, measured by payments of many buyers.

// Rates and latencies of machines; amounts of money stay whole numbers of atoms.
#![allow(clippy::float_arithmetic, clippy::cast_precision_loss)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use farthing_evm::eip55;
use farthing_load::drive::{Buyer, Pace, Plan, Script, Watch, drive};
use farthing_load::fund::Node;
use farthing_load::http::{HttpError, Target};
use farthing_load::judge::Kind;
use farthing_load::offer::{self, Offer};
use farthing_load::payers::{Generation, Payers, Run, Terms};
use farthing_load::saturation::{self, Fault, Limits, Saturation};
use farthing_load::schedule::{Arrivals, Schedule};
use farthing_load::stats::Report;
use farthing_primitives::{Address, AssetId, Network, Registry};
use http::{HeaderName, HeaderValue};
use serde_json::json;

use super::Failure;
use crate::config::SecretRef;

/// Measure how much load a facilitator or a gateway takes: requests arrive by a schedule, whatever the answers do
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing load verify http://127.0.0.1:4022 --fund http://127.0.0.1:8545 --rate 500 --seconds 30
  farthing load paid http://127.0.0.1:4021/weather --fund http://127.0.0.1:8545 --find-saturation
  farthing load payers --payers 3        the addresses that would pay

Requests are due at the times of a schedule, and each latency counts from the moment its request was due: a server
that stalls cannot hide it by slowing down who asks. Only a plain yes counts as good. Payments are signed before the
clock starts (with --ask-each: between the two requests), by keys derived from the seed, and each is used once.

It prints text on a terminal and one line of JSON elsewhere.
Exit codes: 0 measured; 1 it could not be done; 2 called wrongly; 3 not one answer was good.")]
pub struct LoadArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// POST /verify of a facilitator
    #[command(after_help = "Examples:
  farthing load verify http://127.0.0.1:4022 --fund http://127.0.0.1:8545 --rate 1000
  farthing load verify http://127.0.0.1:4022 --fund http://127.0.0.1:8545 --find-saturation --payers 10000")]
    Verify(FacilitatorLoad),
    /// POST /settle of a facilitator: each good answer moves tokens
    #[command(after_help = "Example:
  farthing load settle http://127.0.0.1:4022 --fund http://127.0.0.1:8545 --rate 50 --seconds 60")]
    Settle(FacilitatorLoad),
    /// GET of a paid resource behind a gateway: each good answer moves tokens
    #[command(after_help = "Examples:
  farthing load paid http://127.0.0.1:4021/weather --fund http://127.0.0.1:8545 --rate 20
  farthing load paid http://127.0.0.1:4021/weather --fund http://127.0.0.1:8545 --ask-each --find-saturation")]
    Paid(PaidLoad),
    /// Print the addresses of the payers, one a line: on a network that is not for development they need tokens
    #[command(after_help = "Example:
  farthing load payers --payers 100 --seed env:LOAD_SEED")]
    Payers(Who),
}

#[derive(Debug, Args)]
struct FacilitatorLoad {
    /// The facilitator; its path is added unless the URL ends with it
    url: String,
    #[command(flatten)]
    how: How,
    /// What the payments are on, e.g. base-sepolia or eip155:84532
    #[arg(long, value_name = "NETWORK", default_value = "base-sepolia", value_parser = Network::from_name)]
    network: Network,
    /// The token by its symbol or address; what stands for dollars on the network if absent
    #[arg(long, value_name = "TOKEN")]
    asset: Option<String>,
    /// Who is paid; by default nobody
    #[arg(long, value_name = "ADDRESS", default_value = NOBODY)]
    pay_to: farthing_evm::Address,
    /// What each payment is worth, in the token's atoms
    #[arg(long, value_name = "ATOMS", default_value_t = 1000)]
    atoms: u128,
    /// The version of the protocol
    #[arg(long, value_name = "VERSION", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    x402: u8,
}

/// Holds nobody's key that we know of.
const NOBODY: &str = "0x5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";

#[derive(Debug, Args)]
struct PaidLoad {
    /// The paid resource
    url: String,
    #[command(flatten)]
    how: How,
    /// Ask for the price before every payment, as a buyer does who comes once; else it is asked for once
    #[arg(long)]
    ask_each: bool,
}

#[derive(Debug, Args)]
struct Who {
    /// How many payers take turns
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = count)]
    payers: usize,
    /// What their keys are derived from: any text, env:NAME or file:PATH. Whoever knows it can spend what they hold
    #[arg(long, value_name = "SEED", default_value = DEFAULT_SEED)]
    seed: Seed,
}

/// Anybody can compute these keys.
const DEFAULT_SEED: &str = "farthing-load";

#[derive(Debug, Args)]
struct How {
    #[command(flatten)]
    who: Who,
    /// Requests a second; with --find-saturation, where the search begins
    #[arg(long, value_name = "RATE", value_parser = positive)]
    rate: Option<f64>,
    /// Search for the highest rate that is kept up with, then measure at half and at four fifths of it
    #[arg(long)]
    find_saturation: bool,
    /// With --find-saturation: the most milliseconds that the 99th percentile may take
    #[arg(long, value_name = "MS", requires = "find_saturation", value_parser = positive)]
    p99: Option<f64>,
    /// How long requests arrive, in seconds; also in each step of a search. Longer than ten answers take
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = positive)]
    seconds: f64,
    /// How requests arrive
    #[arg(long, value_enum, default_value_t = Arrive::Poisson)]
    arrivals: Arrive,
    /// How many requests may be on their way at once
    #[arg(long, value_name = "COUNT", default_value_t = 128, value_parser = count)]
    connections: usize,
    /// How many seconds an answer may take, and a request may wait for a connection
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = positive)]
    patience: f64,
    /// A header for every request, as "Name: value"
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<HeaderLine>,
    /// The node of a development chain (farthing dev, farthing devnet, anvil): the payers' balances are written there
    #[arg(long, value_name = "URL")]
    fund: Option<String>,
    /// Load a host that is neither this machine nor in a private network: only with its owner's leave
    #[arg(long)]
    remote: bool,
    /// Sign for a network where tokens are worth something, up to this sum in units of the token: 2.50
    #[arg(long, value_name = "AMOUNT")]
    spend_at_most: Option<String>,
    /// Print one line of JSON also on a terminal
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arrive {
    /// Evenly
    Constant,
    /// By chance, as strangers come
    Poisson,
}

/// What keys are derived from. Never printed.
#[derive(Clone)]
struct Seed {
    reference: Option<SecretRef>,
    text: String,
}

impl FromStr for Seed {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reference = text.parse().ok().filter(|found| !matches!(found, SecretRef::Keystore(_)));
        Ok(Self { reference, text: text.to_owned() })
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[seed]")
    }
}

/// `Name: value`.
#[derive(Clone)]
struct HeaderLine(HeaderName, HeaderValue);

impl FromStr for HeaderLine {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        // The line may hold a credential, so it is not repeated.
        let wrong = || "not a header; write \"Name: value\"".to_owned();
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let mut value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok(Self(name.trim().parse().map_err(|_| wrong())?, value))
    }
}

impl std::fmt::Debug for HeaderLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: …", self.0)
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 && number <= MOST => Ok(number),
        _ => Err(format!("not a number above zero and at most {MOST}")),
    }
}

/// A rate, or a time in seconds or milliseconds, that nobody means to exceed.
const MOST: f64 = 1e6;

fn count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number @ 1..=MOST_COUNT) => Ok(number),
        _ => Err(format!("not a number from 1 to {MOST_COUNT}")),
    }
}

const MOST_COUNT: usize = 1_000_000;

/// How many payments are signed for one run at most: about a gigabyte of them.
const MOST_PAYMENTS: usize = 1_000_000;

pub async fn run(args: LoadArgs) -> Result<ExitCode, Failure> {
    // One thread of its own: the load leaves the machine to those who are measured, and nothing else delays it.
    let done = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| Failure::failed(error.to_string()))?.block_on(measure(args))
    });
    done.await.map_err(|_| Failure::failed("the load ended by itself"))?
}

async fn measure(args: LoadArgs) -> Result<ExitCode, Failure> {
    let stage = match args.what {
        What::Payers(who) => {
            let payers = Payers::new(&who.seed.resolve()?, 0, who.payers);
            let mut out = std::io::stdout().lock();
            for address in payers.addresses() {
                // Whoever reads may have enough.
                if writeln!(out, "{}", eip55(address)).is_err() {
                    break;
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        What::Verify(load) => facilitator(load, Kind::Verify, "verify")?,
        What::Settle(load) => facilitator(load, Kind::Settle, "settle")?,
        What::Paid(load) => {
            let target = load.how.target(&load.url)?;
            let offer = offer::ask(&target).await;
            let offer = offer.map_err(|error| Failure::failed(format!("{}: {error}", load.url)))?;
            let task = if load.ask_each { Task::AskEach(offer) } else { Task::Paid(offer) };
            Stage::new("paid", load.url, target, load.how, task)?
        }
    };
    stage.perform().await
}

fn facilitator(load: FacilitatorLoad, kind: Kind, path: &'static str) -> Result<Stage, Failure> {
    let base = load.url.trim_end_matches('/');
    let url = match base.ends_with(&format!("/{path}")) {
        true => base.to_owned(),
        false => format!("{base}/{path}"),
    };
    let target = load.how.target(&url)?;
    let token = load.asset.as_deref();
    let terms = Terms::listed(&Registry::builtin(), &load.network, token, load.pay_to, load.atoms);
    let terms = terms.ok_or_else(|| {
        let token = token.unwrap_or("a token that stands for dollars");
        Failure::usage(format!("{token} is not listed on {}, or payers cannot sign for it", load.network))
    })?;
    let generation = if load.x402 == 1 { Generation::V1 } else { Generation::V2 };
    Stage::new(path, url, target, load.how, Task::Facilitator(kind, generation, terms))
}

impl Seed {
    fn resolve(&self) -> Result<String, Failure> {
        let Some(reference) = &self.reference else { return Ok(self.text.clone()) };
        let secret = reference.resolve().map_err(|error| Failure::usage(error.to_string()))?;
        Ok(secret.expose().to_owned())
    }
}

impl How {
    fn target(&self, url: &str) -> Result<Target, Failure> {
        let target = Target::parse(url).map_err(|error| Failure::usage(error.to_string()))?;
        if !target.is_private() && !self.remote {
            return Err(Failure::usage(format!(
                "{url} is neither this machine nor in a private network: with its owner's leave, say --remote"
            )));
        }
        let with = |target: Target, HeaderLine(name, value): &HeaderLine| {
            target.with_header(name.clone(), value.clone())
        };
        Ok(self.headers.iter().fold(target, with))
    }
}

/// What is asked of whom.
enum Task {
    Facilitator(Kind, Generation, Terms),
    /// The offer was asked for once.
    Paid(Offer),
    AskEach(Offer),
}

impl Task {
    fn terms(&self) -> &Terms {
        match self {
            Self::Facilitator(_, _, terms) => terms,
            Self::Paid(offer) | Self::AskEach(offer) => offer.terms(),
        }
    }

    fn signed(&self) -> &'static str {
        match self {
            Self::AskEach(_) => "between the two requests",
            _ => "before the clock starts",
        }
    }
}

struct Stage {
    name: &'static str,
    url: String,
    target: Target,
    how: How,
    task: Task,
    seed: String,
    /// What may still be signed away, in atoms; none where nothing is worth anything.
    allowance: Option<u128>,
    runs: u128,
    salt: u128,
}

impl Stage {
    fn new(name: &'static str, url: String, target: Target, how: How, task: Task) -> Result<Self, Failure> {
        let seed = how.who.seed.resolve()?;
        let allowance = allowance(task.terms(), &how, &seed)?;
        let salt = since_epoch()?.as_nanos();
        Ok(Self { name, url, target, how, task, seed, allowance, runs: 0, salt })
    }

    async fn perform(mut self) -> Result<ExitCode, Failure> {
        let json_wanted = self.how.json || !std::io::stdout().is_terminal();
        if let Some(node) = self.how.fund.clone() {
            self.fund(&node).await?;
        }
        if !self.how.find_saturation {
            let rate = self.how.rate.unwrap_or(DEFAULT_RATE);
            let report = self.at(rate).await?;
            if json_wanted {
                self.print(&json!({ "report": report }));
            } else {
                println!("{}", self.heading());
                print_report(&report);
            }
            return Ok(verdict(report.good));
        }
        let found = self.search().await?;
        let mut shares = Vec::new();
        if found.rate > 0.0 {
            for share in SHARES {
                shares.push((share, self.at(found.rate * share).await?));
            }
        }
        if json_wanted {
            let at: Vec<_> =
                shares.iter().map(|(share, report)| json!({ "share": share, "report": report })).collect();
            self.print(&json!({ "saturation": found, "at": at }));
        } else {
            println!("{}", self.heading());
            print_search(&found);
            for (share, report) in &shares {
                println!("at {:.0} % of it:", share * 100.0);
                print_report(report);
            }
        }
        Ok(verdict(if found.rate > 0.0 { 1 } else { 0 }))
    }

    async fn fund(&self, url: &str) -> Result<(), Failure> {
        let terms = self.task.terms();
        let owners: Vec<_> = Payers::new(&self.seed, 0, self.how.who.payers).addresses().collect();
        let failed = |error: farthing_load::fund::FundError| {
            Failure::failed(format!("the payers cannot be funded (it takes a development chain): {error}"))
        };
        let mut node = Node::new(url).map_err(failed)?;
        node.expect_chain(terms.chain_id).await.map_err(failed)?;
        node.fund(terms.token, &owners, FUNDS).await.map_err(failed)
    }

    /// The highest rate that is kept up with.
    async fn search(&mut self) -> Result<Saturation, Failure> {
        let guess = match self.how.rate {
            Some(rate) => rate,
            None => {
                let probe = Pace::Closed(Duration::from_secs_f64(self.how.seconds.min(PROBE_SECONDS)));
                let report = self.go(probe, PROBE_PAYMENTS, "probe").await?;
                if report.good == 0 {
                    return Ok(Saturation { rate: 0.0, steps: Vec::new() });
                }
                report.rate
            }
        };
        let limits = Limits { p99_ms: self.how.p99 };
        saturation::search(guess, limits, async |rate| self.at(rate).await).await
    }

    /// One run at a rate.
    async fn at(&mut self, rate: f64) -> Result<Report, Failure> {
        let length = Duration::from_secs_f64(self.how.seconds);
        let arrivals = match self.how.arrivals {
            Arrive::Constant => Arrivals::Constant,
            Arrive::Poisson => Arrivals::Poisson { seed: rate.to_bits() },
        };
        if rate * self.how.seconds > MOST_PAYMENTS as f64 {
            return Err(Failure::usage(format!(
                "{rate:.0} a second for {} s are more than {MOST_PAYMENTS} payments: take fewer --seconds",
                self.how.seconds
            )));
        }
        let schedule = Schedule::new(arrivals, rate, length);
        let count = schedule.len();
        let title = format!("{rate:.0}/s");
        self.go(Pace::Open { schedule, rate, length }, count, &title).await
    }

    async fn go(&mut self, pace: Pace, count: usize, title: &str) -> Result<Report, Failure> {
        self.spend(count)?;
        self.runs += 1;
        let run = Run { salt: self.salt.wrapping_add(self.runs), now_secs: since_epoch()?.as_secs() };
        let payers = Payers::new(&self.seed, 0, self.how.who.payers.min(count.max(1)));
        let script = match &self.task {
            Task::Facilitator(kind, generation, terms) => {
                Script::Signed(*kind, payers.requests(terms, *generation, run, count))
            }
            Task::Paid(offer) => Script::Signed(Kind::Paid, payers.headers(offer, run, count)),
            Task::AskEach(offer) => {
                Script::Buy(Arc::new(Buyer { payers, run, most: offer.terms().atoms }), count)
            }
        };
        let watch = Arc::new(Watch::default());
        let plan = Plan {
            target: self.target.clone(),
            script,
            connections: self.how.connections,
            pace,
            patience: Duration::from_secs_f64(self.how.patience),
            expect: None,
            watch: Arc::clone(&watch),
        };
        let shown = std::io::stderr().is_terminal().then(|| tokio::spawn(show(watch, title.to_owned())));
        let report = drive(plan).await;
        if let Some(shown) = shown {
            shown.abort();
            eprint!("\r\x1b[K");
        }
        report.map_err(|error: HttpError| Failure::failed(format!("{}: {error}", self.url)))
    }

    /// Takes what `count` payments are worth from what may be signed away.
    fn spend(&mut self, count: usize) -> Result<(), Failure> {
        let Some(left) = self.allowance else { return Ok(()) };
        let sum = self.task.terms().atoms.checked_mul(count as u128);
        let after = sum.and_then(|sum| left.checked_sub(sum)).ok_or_else(|| {
            Failure::usage(format!(
                "{count} payments of {} atoms are more than is left of --spend-at-most ({left} atoms)",
                self.task.terms().atoms
            ))
        })?;
        self.allowance = Some(after);
        Ok(())
    }

    fn heading(&self) -> String {
        format!(
            "{} {}, {} payers, {} connections; payments are signed {}",
            self.name,
            self.url,
            self.how.who.payers,
            self.how.connections,
            self.task.signed()
        )
    }

    fn print(&self, found: &serde_json::Value) {
        let terms = self.task.terms();
        let mut line = json!({
            "load": self.name,
            "url": self.url,
            "network": terms.network.as_str(),
            "asset": eip55(terms.token),
            "atoms": terms.atoms.to_string(),
            "payers": self.how.who.payers,
            "connections": self.how.connections,
            "seconds": self.how.seconds,
            "arrivals": match self.how.arrivals { Arrive::Constant => "constant", Arrive::Poisson => "poisson" },
            "signed": self.task.signed(),
        });
        for (name, value) in found.as_object().into_iter().flatten() {
            line[name] = value.clone();
        }
        println!("{line}");
    }
}

/// Where no rate is asked for.
const DEFAULT_RATE: f64 = 10.0;
/// Shares of the saturation at which is measured.
const SHARES: [f64; 2] = [0.5, 0.8];
/// What every payer is given on a development chain: a million dollars.
const FUNDS: u128 = 1_000_000_000_000;
/// From how much a search takes its first guess.
const PROBE_PAYMENTS: usize = 4_000;
const PROBE_SECONDS: f64 = 3.0;

/// What may be signed away: `None` where tokens are worth nothing.
fn allowance(terms: &Terms, how: &How, seed: &str) -> Result<Option<u128>, Failure> {
    if terms.network.is_testnet() {
        return Ok(None);
    }
    let Some(most) = &how.spend_at_most else {
        return Err(Failure::usage(format!(
            "{} is no network for development: its tokens are spent. If that is meant, say --spend-at-most AMOUNT",
            terms.network
        )));
    };
    if seed == DEFAULT_SEED {
        return Err(Failure::usage(
            "anybody can compute the keys of the default seed and spend what they hold: give a secret --seed env:NAME",
        ));
    }
    let registry = Registry::builtin();
    let token = Address::evm(&terms.token.to_string()).ok();
    let asset = token.and_then(|token| registry.get(&AssetId::new(terms.network.clone(), token)).cloned());
    let asset = asset.ok_or_else(|| {
        Failure::usage(format!("the token {} is not listed: no amount of it is known", eip55(terms.token)))
    })?;
    let most = asset.parse(most).map_err(|error| Failure::usage(format!("--spend-at-most: {error}")))?;
    Ok(Some(most.atoms()))
}

fn since_epoch() -> Result<Duration, Failure> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| Failure::failed("the clock stands before the year 1970"))
}

fn verdict(good: u64) -> ExitCode {
    ExitCode::from(if good > 0 { 0 } else { NOT_ONE })
}

/// The exit code when not one answer was good.
const NOT_ONE: u8 = 3;

/// How far a run is, on a terminal, until it is aborted.
async fn show(watch: Arc<Watch>, title: String) {
    let began = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        eprint!(
            "\r\x1b[K{title}: {:.0} s, {} good, {} wrong, {} on their way",
            began.elapsed().as_secs_f64(),
            count(&watch.good),
            count(&watch.wrong),
            count(&watch.in_flight)
        );
    }
}

fn print_report(report: &Report) {
    let offered = report.offered.map(|rate| format!(" of {rate:.0} due")).unwrap_or_default();
    println!("  {:.0} good a second{offered}; {} good, {} wrong", report.rate, report.good, report.wrongs());
    println!(
        "  from when due   p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        ms(report.p50_ms),
        ms(report.p90_ms),
        ms(report.p99_ms),
        ms(report.p999_ms),
        ms(report.max_ms)
    );
    let service = &report.service;
    println!(
        "  from when sent  p50 {}  p99 {}  p99.9 {}  max {}",
        ms(service.p50_ms),
        ms(service.p99_ms),
        ms(service.p999_ms),
        ms(service.max_ms)
    );
    for (code, count) in &report.wrong {
        println!("  {count} × {code}");
    }
    if report.wrong.keys().any(|code| code.contains("insufficient")) {
        println!("  payers without tokens: --fund URL gives them some on a development chain");
    }
    if saturation::fault(report, Limits::default()) == Some(Fault::FallsBehind) {
        println!("  falls behind: {:.0} ms more in each second", report.growth * 1000.0);
    }
}

fn print_search(found: &Saturation) {
    for step in &found.steps {
        let said = match step.why {
            None => "kept up",
            Some(Fault::Wrong) => "wrong answers",
            Some(Fault::FallsBehind) => "falls behind",
            Some(Fault::TooSlow) => "too slow",
            Some(Fault::LoadItself) => "the load itself is too slow",
        };
        let (p50, p99) = (ms(step.p50_ms), ms(step.p99_ms));
        println!("  {:>7.0}/s  p50 {p50:>8}  p99 {p99:>8}  {} wrong  {said}", step.rate, step.wrong);
    }
    if found.rate > 0.0 {
        println!("keeps up with {:.0} a second", found.rate);
    } else {
        println!("keeps up with no rate that was tried");
    }
}

fn ms(number: f64) -> String {
    if number < 10.0 { format!("{number:.2} ms") } else { format!("{number:.0} ms") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: LoadArgs,
    }

    fn staged(words: &str) -> Result<Stage, String> {
        let words = std::iter::once("load").chain(words.split_whitespace());
        let load = match Cli::try_parse_from(words).map_err(|error| error.to_string())?.args.what {
            What::Verify(load) => facilitator(load, Kind::Verify, "verify"),
            What::Settle(load) => facilitator(load, Kind::Settle, "settle"),
            other => panic!("not here: {other:?}"),
        };
        load.map_err(|failure| failure.message)
    }

    fn refused(words: &str) -> String {
        match staged(words) {
            Ok(stage) => panic!("{words} is taken: {}", stage.url),
            Err(why) => why,
        }
    }

    #[test]
    fn the_path_is_added_once() {
        for url in ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/verify"] {
            assert_eq!(staged(&format!("verify {url}")).unwrap().url, "http://127.0.0.1:1/verify");
        }
        assert_eq!(staged("settle http://a/x402").unwrap().url, "http://a/x402/settle");
    }

    #[test]
    fn a_strangers_host_is_not_loaded_without_a_word() {
        assert!(refused("verify https://facilitator.example.com").contains("--remote"));
        assert!(staged("verify https://facilitator.example.com --remote").is_ok());
    }

    #[test]
    fn nothing_is_signed_for_money_without_a_limit_and_a_secret() {
        let base = "verify http://127.0.0.1:1 --network base";
        assert!(refused(base).contains("--spend-at-most"));
        assert!(refused(&format!("{base} --spend-at-most 1")).contains("anybody can compute"));
        let seeded = format!("{base} --seed of-my-own");
        assert!(refused(&seeded).contains("--spend-at-most"));
        assert!(refused(&format!("{seeded} --spend-at-most 1.0000001")).contains("--spend-at-most"));
        let mut stage = staged(&format!("{seeded} --spend-at-most 1 --atoms 400000")).unwrap();
        assert_eq!(stage.allowance, Some(1_000_000));
        assert!(stage.spend(2).is_ok());
        assert!(stage.spend(1).is_err());
        assert_eq!(stage.allowance, Some(200_000));
        // On a network for development there is nothing to limit.
        assert_eq!(staged("verify http://127.0.0.1:1").unwrap().allowance, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            "verify http://127.0.0.1:1 --rate 0",
            "verify http://127.0.0.1:1 --rate -1",
            "verify http://127.0.0.1:1 --rate NaN",
            "verify http://127.0.0.1:1 --seconds 0",
            "verify http://127.0.0.1:1 --payers 0",
            "verify http://127.0.0.1:1 --connections 0",
            "verify http://127.0.0.1:1 --p99 5",
            "verify http://127.0.0.1:1 --asset USDT --network base",
            "verify http://127.0.0.1:1 --asset NONE",
            "verify http://127.0.0.1:1 -H nonsense",
            "verify ftp://127.0.0.1:1",
        ] {
            refused(words);
        }
    }

    #[test]
    fn a_seed_and_a_header_are_not_printed() {
        let words = "load verify http://a -H Authorization:Bearer-abc --seed mysecret".split_whitespace();
        let shown = format!("{:?}", Cli::try_parse_from(words).unwrap());
        assert!(!shown.contains("abc") && !shown.contains("mysecret"), "{shown}");
    }

    #[test]
    fn a_seed_may_be_kept_elsewhere() {
        assert_eq!(Seed::from_str("of-my-own").unwrap().resolve().unwrap(), "of-my-own");
        assert!(Seed::from_str("env:SURELY_NOT_SET_ANYWHERE").unwrap().resolve().is_err());
    }
}
