//! `farthing-bench`: the parts of `scripts/bench`, each usable by itself. Prints one line of JSON.

// Rates and ratios of a machine, never money.
#![allow(clippy::float_arithmetic, clippy::cast_precision_loss)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, ValueEnum};
use farthing_bench::stats::median;
use farthing_bench::{authorize, claims, delay, disk, functions, history, plot, session, start, writer};
use farthing_evm::Address;
use farthing_load::drive::{Pace, Plan, Script, drive};
use farthing_load::fund::Node;
use farthing_load::http::Target;
use farthing_load::judge::Kind;
use farthing_load::offer;
use farthing_load::payers::{Generation, Payers, Run, Terms};
use farthing_load::schedule::{Arrivals, Schedule};
use serde_json::json;

#[derive(Parser)]
#[command(about = "Load, delay and comparison, for development.", version)]
enum Command {
    /// Drive a facilitator or a gateway; every payment is used once.
    ///
    /// Example: farthing-bench load verify --url http://127.0.0.1:4021/verify --connections 32 --requests 10000
    Load(Load),
    /// Give the buyers a balance of real USDC, in the storage of an anvil.
    ///
    /// Example: farthing-bench fund --rpc http://127.0.0.1:8545 --payers 10000
    Fund(Fund),
    /// Requests that are paid from channels, a voucher each, in turns with the same requests free of charge.
    ///
    /// Example: farthing-bench session --url http://127.0.0.1:4021/unit --free http://127.0.0.1:4021/free --channels 32
    Session(Session),
    /// Stand before a chain node and let every call take longer. Prints its own URL.
    ///
    /// Example: farthing-bench delay --to 127.0.0.1:8545 --ms 25
    Delay(Delay),
    /// Functions of the hot path, each in turns with its limit.
    ///
    /// Example: farthing-bench functions --seconds 3
    Functions {
        /// How long to measure each.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
    /// Durable claims through the engine, in turns with raw SQLite.
    ///
    /// Example: farthing-bench claims --in-flight 256 --dir target
    Claims {
        #[arg(long, default_value_t = 40_960)]
        count: usize,
        #[arg(long, default_value_t = 256)]
        in_flight: usize,
        /// On which disk.
        #[arg(long)]
        dir: std::path::PathBuf,
    },
    /// What the store's writer takes for a payment, on each of some books in turns. Leaves the payments in them.
    ///
    /// Example: farthing-bench writer --books short.db --books long.db
    Writer {
        #[arg(long, required = true)]
        books: Vec<std::path::PathBuf>,
        /// How many claims are refused in each turn; a quarter as many more are settled.
        #[arg(long, default_value_t = 20_000)]
        claims: usize,
        #[arg(long, default_value_t = 64)]
        in_flight: usize,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// From an agent's wish to pay to a durable signature, at a rate that does not wait, over more or less of a past.
    ///
    /// Example: farthing-bench authorize --dir target --past 0,10000,100000 --rate 1000 --seconds 10
    Authorize {
        /// How many payments there are before, in the windows that count.
        #[arg(long, value_delimiter = ',', default_values_t = [0, 10_000, 100_000])]
        past: Vec<usize>,
        #[arg(long, default_value_t = 1_000.0)]
        rate: f64,
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// On which disk.
        #[arg(long)]
        dir: std::path::PathBuf,
    },
    /// What a claim takes in memory as long as it is open.
    ///
    /// Example: farthing-bench live --count 100000 --dir target
    Live {
        #[arg(long, default_value_t = 100_000)]
        count: usize,
        /// On which disk.
        #[arg(long)]
        dir: std::path::PathBuf,
    },
    /// What the disk itself syncs.
    ///
    /// Example: farthing-bench disk --dir target --seconds 3
    Disk {
        #[arg(long)]
        dir: std::path::PathBuf,
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
    /// Make books of settled payments hold millions of them; nothing else may have them open.
    ///
    /// Example: farthing-bench history --store books.db --payments 1000000
    History {
        /// The database of a facilitator or a gateway; all that it holds is settled.
        #[arg(long)]
        store: std::path::PathBuf,
        #[arg(long)]
        payments: u64,
        /// Check the books afterwards, which reads everything.
        #[arg(long)]
        check: bool,
    },
    /// Draw an SVG of the plot that standard input describes.
    ///
    /// Example: farthing-bench plot --out payers.svg < payers.json
    Plot {
        #[arg(long)]
        out: std::path::PathBuf,
    },
    /// How long a program takes until a URL answers 200, or, without a URL, until it ended.
    ///
    /// Example: farthing-bench start --times 10 -- target/release/farthing --version
    Start(Start),
}

#[derive(Args)]
struct Which {
    /// How many buyers there are.
    #[arg(long, default_value_t = 10_000)]
    payers: usize,
    /// The number of the first buyer.
    #[arg(long, default_value_t = 0)]
    first_payer: usize,
}

#[derive(Args)]
struct Load {
    kind: What,
    #[arg(long)]
    url: String,
    #[command(flatten)]
    which: Which,
    /// How many payments to sign beforehand; the run ends when they are used up.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// No request begins later than this.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// So many requests a second, whatever comes back; without it each connection waits for its answer.
    #[arg(long)]
    rate: Option<f64>,
    /// How many seconds an answer may take.
    #[arg(long, default_value_t = 60.0)]
    patience: f64,
    /// A refusal by this code counts as good.
    #[arg(long)]
    expect: Option<String>,
    /// The version of the protocol.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    x402: u8,
    #[arg(long, default_value = PAY_TO)]
    pay_to: Address,
    #[arg(long, default_value_t = 1000)]
    atoms: u128,
    /// Makes the payments unlike those of other runs; by default from the clock.
    #[arg(long)]
    salt: Option<u128>,
}

/// Somebody who is nobody's development account.
const PAY_TO: &str = "0x5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Verify,
    Settle,
    /// A priced resource behind a gateway, with a payment.
    Pay,
    /// A priced resource behind a gateway, without a payment.
    Challenge,
}

#[derive(Args)]
struct Session {
    /// A route whose session is paid by the request.
    #[arg(long)]
    url: String,
    /// The same without a price.
    #[arg(long)]
    free: String,
    /// How many channels, each with its own payer and connection.
    #[arg(long, default_value_t = 32)]
    channels: usize,
    #[arg(long, default_value_t = 0)]
    first_payer: usize,
    /// How long a turn lasts, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Credentials that somebody else has made, a line each: the first of every channel, the second of every channel, and
    /// so on. Nothing is opened then.
    #[arg(long)]
    headers: Option<std::path::PathBuf>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many vouchers are signed for each channel before each turn.
    #[arg(long, default_value_t = 2_000)]
    vouchers: usize,
}

#[derive(Args)]
struct Fund {
    #[arg(long)]
    rpc: String,
    #[command(flatten)]
    which: Which,
    #[arg(long, default_value_t = 1_000_000_000)]
    atoms: u128,
}

#[derive(Args)]
struct Delay {
    /// Host and port of the chain node.
    #[arg(long)]
    to: String,
    #[arg(long, default_value_t = 25)]
    ms: u64,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

#[derive(Args)]
struct Start {
    #[arg(long)]
    url: Option<String>,
    #[arg(long, default_value_t = 10)]
    times: usize,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    // One thread: the generator must leave the machine to those who are measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let line = match Command::parse() {
        Command::Load(options) => serde_json::to_value(runtime.block_on(load(options))?)?,
        Command::Fund(options) => runtime.block_on(fund(options))?,
        Command::Session(options) => serde_json::to_value(runtime.block_on(by_the_unit(options))?)?,
        Command::Delay(options) => return hold(&options),
        Command::Functions { seconds } => {
            serde_json::to_value(functions::compare(Duration::from_secs_f64(seconds)))?
        }
        Command::Claims { count, in_flight, dir } => {
            serde_json::to_value(claims::measure(&dir, count.max(1), in_flight.max(1))?)?
        }
        Command::Writer { books, claims, in_flight, rounds } => {
            let salt = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
            serde_json::to_value(writer::measure(&books, claims.max(1), in_flight, rounds, salt)?)?
        }
        Command::Authorize { past, rate, seconds, dir } => {
            // As a wallet runs: on all cores.
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let length = Duration::from_secs_f64(seconds);
            serde_json::to_value(runtime.block_on(authorize::measure(&dir, &past, rate, length))?)?
        }
        Command::Live { count, dir } => serde_json::to_value(claims::live(&dir, count)?)?,
        Command::Disk { dir, seconds } => {
            serde_json::to_value(disk::measure(&dir, Duration::from_secs_f64(seconds))?)?
        }
        Command::History { store, payments, check } => {
            serde_json::to_value(history::grow(&store, payments, check)?)?
        }
        Command::Plot { out } => {
            let plot = serde_json::from_reader(std::io::stdin())?;
            std::fs::write(&out, plot::draw(&plot)?)?;
            json!({ "drawn": out })
        }
        Command::Start(options) => time_start(&options)?,
    };
    println!("{line}");
    Ok(())
}

async fn load(options: Load) -> Result<farthing_load::stats::Report, Failure> {
    let target = Target::parse(&options.url)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let run = Run { salt: options.salt.unwrap_or(now.as_nanos()), now_secs: now.as_secs() };
    let terms = Terms { pay_to: options.pay_to, atoms: options.atoms, ..functions::terms() };
    let count = options.requests;
    let payers = || {
        Payers::new(functions::SEED, options.which.first_payer, options.which.payers.clamp(1, count.max(1)))
    };
    let script = match options.kind {
        What::Challenge => Script::Ask(count),
        What::Pay => Script::Signed(Kind::Paid, payers().headers(&offer::ask(&target).await?, run, count)),
        What::Verify | What::Settle => {
            let kind = if matches!(options.kind, What::Verify) { Kind::Verify } else { Kind::Settle };
            let generation = if options.x402 == 1 { Generation::V1 } else { Generation::V2 };
            Script::Signed(kind, payers().requests(&terms, generation, run, count))
        }
    };
    let length = Duration::from_secs_f64(options.seconds);
    let pace = match options.rate {
        None => Pace::Closed(length),
        Some(rate) => Pace::Open { schedule: Schedule::new(Arrivals::Constant, rate, length), rate, length },
    };
    let patience = Duration::from_secs_f64(options.patience);
    let connections = options.connections.max(1);
    let (expect, watch) = (options.expect, Arc::default());
    Ok(drive(Plan { target, script, connections, pace, patience, expect, watch }).await?)
}

async fn by_the_unit(options: Session) -> Result<session::Measured, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let (paid, free) = (Target::parse(&options.url)?, Target::parse(&options.free)?);
    let channels = options.channels.max(1);
    if let Some(file) = &options.headers {
        let mut credentials = vec![Vec::new(); channels];
        for (at, line) in std::fs::read_to_string(file)?.lines().enumerate() {
            if let Some(one) = credentials.get_mut(at % channels) {
                one.push(line.to_owned().into());
            }
        }
        let length = Duration::from_secs_f64(options.seconds);
        return Ok(session::present(&paid, &free, credentials, length).await?);
    }
    let plan = session::Plan {
        paid,
        free,
        channels,
        first_payer: options.first_payer,
        token: functions::terms(),
        turn: Duration::from_secs_f64(options.seconds),
        rounds: options.rounds,
        vouchers: options.vouchers,
        salt: now.as_nanos(),
    };
    Ok(session::measure(&plan).await?)
}

async fn fund(options: Fund) -> Result<serde_json::Value, Failure> {
    let owners: Vec<_> =
        Payers::new(functions::SEED, options.which.first_payer, options.which.payers).addresses().collect();
    Node::new(&options.rpc)?.fund(functions::terms().token, &owners, options.atoms).await?;
    Ok(json!({ "funded": owners.len() }))
}

fn hold(options: &Delay) -> Result<(), Failure> {
    let listener = std::net::TcpListener::bind(&options.listen)?;
    println!("{}", json!({ "url": format!("http://{}", listener.local_addr()?) }));
    Ok(delay::serve(&listener, &options.to, Duration::from_millis(options.ms))?)
}

fn time_start(options: &Start) -> Result<serde_json::Value, Failure> {
    let (program, args) = options.command.split_first().ok_or("no command")?;
    let mut ms = Vec::new();
    for _ in 0..options.times.max(1) {
        let took = match &options.url {
            Some(url) => start::until_ready(program, args, url)?,
            None => start::until_ended(program, args)?,
        };
        ms.push(took.as_secs_f64() * 1000.0);
    }
    let worst = ms.iter().copied().fold(0.0, f64::max);
    Ok(json!({ "median_ms": median(&mut ms), "max_ms": worst }))
}
