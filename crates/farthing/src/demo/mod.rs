//! `farthing demo` and `farthing dev`: a small economy of machines, on a chain of its own.
//!
//! The commands only start what a person could start by hand, run the stories of `examples/`, and count afterwards.

mod books;
mod child;
mod kill;
mod node;
mod refusals;
mod sellers;
mod stage;
mod tour;
mod world;

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use clap::{Args, ValueEnum};
use farthing_wallet::Home;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc::unbounded_channel;

use crate::cli::{Failure, until_stopped};
use books::{Books, Summary};
use refusals::{Attacker, Attempt};
use sellers::CodingAgent;
use stage::Stage;
use world::World;

/// The exit code of a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// See machines pay machines: a chain, sellers, a facilitator and wallets, three stories, attacks, and the books.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing demo                              everything, in under 20 seconds
  farthing demo --story charger              one story, and its books
  farthing demo --kill                       kill -9 in the middle of payments, and the books after it
  farthing demo --json | jq .summary         for programs
  node interop/support/world.mjs --port 8545 & farthing demo --rpc http://127.0.0.1:8545
                                             the same on anvil, with the real bytecode of USDC

The stories are the files of examples/: short, and made of public commands only.
Exit codes: 0 all went as it must and the books agree to the atom, 1 not so, 2 wrong call.")]
pub struct DemoArgs {
    /// Play on this development chain instead of the embedded one; development accounts must hold USDC there
    #[arg(long, value_name = "URL")]
    rpc: Option<String>,
    /// Only this story
    #[arg(long, value_name = "NAME")]
    story: Option<StoryName>,
    /// Kill the seller's gateway, and then the buyer, in the middle of payments; start them again, and look at the books
    #[arg(long, conflicts_with = "story")]
    kill: bool,
    /// Print nothing but the summary, as JSON
    #[arg(long)]
    json: bool,
}

/// Keep the demonstration's world running, to play with.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing dev                               prints what to try, and runs until Ctrl-C
  farthing dev --rpc http://127.0.0.1:8545   the same on a chain of yours (anvil, id 84532)")]
pub struct DevArgs {
    /// Use this development chain instead of the embedded one; development accounts must hold USDC there
    #[arg(long, value_name = "URL")]
    rpc: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoryName {
    /// An agent compares three sellers and buys the cheapest that is permitted
    Weather,
    /// A car buys electricity by the watt-hour, while it flows
    Charger,
    /// An agent pays an agent, which pays a service from what it earned
    Hire,
}

struct Story {
    name: StoryName,
    title: &'static str,
    about: &'static str,
    buyer: &'static str,
    script: &'static str,
}

const STORIES: [Story; 3] = [
    Story {
        name: StoryName::Weather,
        title: "weather",
        about: "an agent compares three sellers and buys the cheapest that its owner permits",
        buyer: "agent",
        script: include_str!("../../../../examples/weather.sh"),
    },
    Story {
        name: StoryName::Charger,
        title: "charger",
        about: "a car buys electricity by the watt-hour: one deposit, vouchers while it flows, one settlement",
        buyer: "car",
        script: include_str!("../../../../examples/charger.sh"),
    },
    Story {
        name: StoryName::Hire,
        title: "hire",
        about: "a research agent pays a coding agent, which pays a compute service from what it earned",
        buyer: "researcher",
        script: include_str!("../../../../examples/hire.sh"),
    },
];

/// `farthing demo`.
pub async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let show =
        async { if args.kill { kill::show(args.rpc.as_deref(), args.json).await } else { demo(args).await } };
    tokio::select! {
        done = show => done,
        () = until_stopped() => Ok(ExitCode::from(INTERRUPTED)),
    }
}

async fn demo(args: DemoArgs) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let mut stage = Stage::new(args.json);
    let http = refusals::http()?;
    let world = World::start(http.clone(), args.rpc.as_deref()).await?;
    let books = open_books(&world).await?;
    introduce(&mut stage, &world, began);
    let mut failures: Vec<String> = Vec::new();
    for story in STORIES.iter().filter(|story| args.story.is_none_or(|only| only == story.name)) {
        stage.title(story.title, story.about);
        if let Err(failure) = tell(&stage, &world, story).await {
            stage.say(&format!("  {}", failure.message));
            failures.push(format!("{}: {}", story.title, failure.message));
        }
    }
    let mut attempts = Vec::new();
    if args.story.is_none() {
        stage.title("refusals", "what must not work, tried for real");
        attempts = refuse(&stage, &world, http).await?;
        let broken = attempts.iter().filter(|attempt| !attempt.held);
        failures.extend(broken.map(|attempt| format!("{}: it was not refused", attempt.name)));
    }
    stage.title("books", "wallets, sellers, ledgers and chain, to the atom");
    let summary = books.close().await?;
    stage.summary(&summary);
    let took = began.elapsed();
    stage.say("");
    stage.say(&format!("  {}.{} s in all", took.as_secs(), took.subsec_millis() / 100));
    if args.json {
        println!("{}", as_json(&summary, &attempts, &failures, took.as_millis()));
    } else {
        failures.iter().for_each(|failure| eprintln!("farthing demo: {failure}"));
    }
    let good = failures.is_empty() && summary.reconciles() && summary.payments > 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(summary: &Summary, attempts: &[Attempt], failures: &[String], took_ms: u128) -> Value {
    json!({
        "reconciles": summary.reconciles(),
        "summary": summary,
        "refusals": attempts,
        "failures": failures,
        "took_ms": u64::try_from(took_ms).unwrap_or(u64::MAX),
    })
}

async fn open_books(world: &World) -> Result<Books, Failure> {
    world.empty_broke_wallets().await?;
    Books::open(world.node.clone(), &world.program, world.parties()?, world.settlers()?).await
}

fn introduce(stage: &mut Stage, world: &World, began: Instant) {
    for (name, url) in &world.urls {
        stage.call(url, name);
    }
    let chain = if world.embedded { "an embedded chain" } else { "the chain" };
    stage.say(&format!(
        "{chain} at {}, a facilitator, {} gateways before {} sellers, 4 wallets: up in {} ms",
        world.rpc_url,
        world.urls.len(),
        world.urls.len(),
        began.elapsed().as_millis()
    ));
}

/// Runs a story, and shows what it says line by line.
async fn tell(stage: &Stage, world: &World, story: &Story) -> Result<(), Failure> {
    let failed = |why: String| Failure::failed(format!("the story cannot be told: {why}"));
    let (bought, mut purchases) = unbounded_channel();
    if story.name == StoryName::Hire {
        let agent = CodingAgent {
            program: world.program.clone(),
            compute: format!("{}/run", world.url("compute")),
            env: world.environment("coder"),
        };
        world.sellers.hire(agent, bought);
    }
    let mut shell = child::command(Path::new("sh"), ["-c", story.script, story.title]);
    shell.env("PATH", world.path()).envs(world.environment(story.buyer));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().map_err(|error| failed(error.to_string()))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("its output cannot be read".to_owned()));
    };
    let (mut said, mut wailed) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
    let (mut quiet, mut calm) = (false, false);
    while !(quiet && calm) {
        tokio::select! {
            biased;
            Some(report) = purchases.recv() => stage.report("coder", &report),
            line = said.next_line(), if !quiet => match line {
                Ok(Some(line)) => stage.line(story.buyer, &line),
                _ => quiet = true,
            },
            line = wailed.next_line(), if !calm => match line {
                Ok(Some(line)) => stage.say(&format!("  {line}")),
                _ => calm = true,
            },
        }
    }
    let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(Failure::failed(format!("the story ended with {status}"))) }
}

/// Everybody's USDC, and how often anybody was served: what a refusal must leave as it is.
async fn standing(world: &World) -> Result<Vec<u128>, Failure> {
    let mut all = Vec::new();
    for party in world.parties()? {
        all.push(world.node.usdc(&party.address).await?);
        all.push(u128::from(world.sellers.served(party.name)));
    }
    Ok(all)
}

async fn refuse(stage: &Stage, world: &World, http: reqwest::Client) -> Result<Vec<Attempt>, Failure> {
    let attacker = Attacker::new(http, refusals::dev_key(&world.attacker()?)?);
    let before = standing(world).await?;
    let mut attempts = Vec::new();
    let mut note = |attempt: Attempt| {
        stage.attempt(&attempt);
        attempts.push(attempt);
    };
    note(over_budget(world).await?);
    for attempt in replays(world, &attacker).await? {
        note(attempt);
    }
    for attempt in forgeries(world, &attacker).await? {
        note(attempt);
    }
    if standing(world).await? != before {
        note(Attempt {
            name: "afterwards",
            tried: "what everybody has, and how often anybody was served".to_owned(),
            status: 0,
            answer: "not as before".to_owned(),
            held: false,
        });
    }
    Ok(attempts)
}

/// The agent asks for an archive at $2.50; its owner allows 10 cents. Nothing may even be signed.
async fn over_budget(world: &World) -> Result<Attempt, Failure> {
    let home = world.home("agent");
    let purchases = || {
        let journal = Home::new(&home).journal().map_err(|error| Failure::failed(error.to_string()))?;
        journal.history(books::EVERYTHING).map_err(|error| Failure::failed(error.to_string()))
    };
    let before = purchases()?.len();
    let mut fetch = child::command(&world.program, ["fetch", &format!("{}/archive", world.url("nimbus"))]);
    fetch.envs(world.environment("agent"));
    let said = child::output(fetch).await?;
    let objection = stage::objection(&said.json().unwrap_or_default());
    let reason = objection.split(';').next().unwrap_or_default();
    Ok(Attempt {
        name: "over budget",
        tried: "an archive for $2.50, where the owner allows $0.10 a payment".to_owned(),
        status: 0,
        answer: format!("{reason}; not signed"),
        held: said.code == stage::EXIT_DENIED && purchases()?.len() == before,
    })
}

/// The agent's own payment, seen by somebody on its way and shown again.
async fn replays(world: &World, attacker: &Attacker) -> Result<Vec<Attempt>, Failure> {
    let journal =
        Home::new(world.home("agent")).journal().map_err(|error| Failure::failed(error.to_string()))?;
    let settled = journal.history(books::EVERYTHING).map_err(|error| Failure::failed(error.to_string()))?;
    let settled = settled.into_iter().find_map(|purchase| Some((purchase.url, purchase.header?)));
    let Some((url, header)) = settled else {
        return Err(Failure::failed("the agent bought nothing whose payment could be shown again"));
    };
    let base = url.split('?').next().unwrap_or(&url);
    let elsewhere = attacker.show_header(&format!("{base}?city=Porto"), &header.name, &header.value).await?;
    Ok(vec![Attempt {
        name: "replay",
        tried: "a payment that bought Lisbon's weather, shown for Porto's".to_owned(),
        status: elsewhere.status,
        answer: elsewhere.code,
        held: elsewhere.status == 409 && !elsewhere.goods,
    }])
}

async fn forgeries(world: &World, attacker: &Attacker) -> Result<Vec<Attempt>, Failure> {
    let stratus = world.url("stratus");
    let (today, tomorrow) = (format!("{stratus}/today"), format!("{stratus}/tomorrow"));
    let honest = attacker.sign(&today, |_| {}).await?;
    let cheap = attacker.sign(&today, |offer| offer.amount = 1).await?;
    let tries = [
        ("tampered", "the amount lowered after it was signed", &today, honest.clone().lowered()),
        (
            "tampered",
            "the payee altered after it was signed",
            &today,
            honest.clone().redirected(attacker.address()),
        ),
        ("tampered", "one atom offered and signed, where the seller asks 2500", &today, cheap),
        ("wrong route", "a payment for /today shown at /tomorrow, which costs the same", &tomorrow, honest),
    ];
    let mut attempts = Vec::new();
    for (name, tried, url, forged) in tries {
        let answer = attacker.show(url, &forged).await?;
        attempts.push(Attempt {
            name,
            tried: tried.to_owned(),
            status: answer.status,
            answer: answer.code,
            held: answer.status == 402 && !answer.goods,
        });
    }
    Ok(attempts)
}

/// `farthing dev`.
pub async fn run_dev(args: DevArgs) -> Result<ExitCode, Failure> {
    let http = refusals::http()?;
    let world = tokio::select! {
        world = World::start(http, args.rpc.as_deref()) => world?,
        () = until_stopped() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    world.empty_broke_wallets().await?;
    let (bought, _nobody) = unbounded_channel();
    world.sellers.hire(
        CodingAgent {
            program: world.program.clone(),
            compute: format!("{}/run", world.url("compute")),
            env: world.environment("coder"),
        },
        bought,
    );
    tour::show(&world)?;
    until_stopped().await;
    Ok(ExitCode::SUCCESS)
}
