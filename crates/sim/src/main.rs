//! `sim`: runs seeds, replays one, and shrinks what breaks.
// A development tool: it may stop at what cannot be.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::float_arithmetic)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use farthing_sim::{Plan, run, shrink};

/// Runs seeded worlds over the production code, and checks that money is neither lost nor made.
#[derive(Debug, Parser)]
#[command(
    name = "sim",
    after_help = "Examples:\n  sim 10000            ten thousand worlds\n  sim --seed 77        one world, with its timeline\n  sim --seed 77 --shrink   and what of it is needed to break"
)]
struct Options {
    /// How many seeds to run.
    #[arg(default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Run this one only, and show its timeline.
    #[arg(long)]
    seed: Option<u64>,
    /// Take away what a violation does not need.
    #[arg(long)]
    shrink: bool,
    /// With `--seed`: show what the production code logs, too.
    #[arg(long)]
    log: bool,
    /// How many threads.
    #[arg(long)]
    threads: Option<usize>,
    /// Go on after a violation, and name all seeds that break something.
    #[arg(long)]
    all: bool,
    /// Run each seed twice, and compare.
    #[arg(long)]
    twice: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.seed {
        Some(seed) => one(seed, &options),
        None => many(&options),
    }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let mut plan = Plan::from_seed(seed);
    if options.shrink && run(&plan, false).violation.is_some() {
        plan = shrink(&plan);
    }
    println!("seed {seed}: {} buyers, {} wallets, depth {}", plan.buyers, plan.owners, plan.depth);
    if let Some(remotes) = &plan.remotes {
        let sight = if remotes.chain_read { "with" } else { "without" };
        println!("  settles {sight} a node of its own through {:?}", remotes.who);
    }
    if let Some(sessions) = &plan.sessions {
        println!("  sells by the unit: {sessions:?}");
    }
    for line in &plan.lines {
        println!("  {:>8.3} {:?}", line.at as f64 / 1000.0, line.act);
    }
    if options.log {
        // Beside the timeline: what the production code says of itself, as it says it.
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .without_time()
            .init();
    }
    let outcome = run(&plan, true);
    println!();
    for (at, text) in &outcome.timeline {
        println!("  {:>10.6} {text}", *at as f64 / 1e6);
    }
    println!("\n{:?}", outcome.counts);
    match outcome.violation {
        Some((at, what)) => {
            println!("\nVIOLATION at {:.6} s: {what}", at as f64 / 1e6);
            ExitCode::FAILURE
        }
        None => {
            println!("\nnothing wrong");
            ExitCode::SUCCESS
        }
    }
}

fn many(options: &Options) -> ExitCode {
    let threads =
        options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicU64::new(options.first);
    let end = options.first + options.seeds;
    let broken = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let totals = Mutex::new([0u64; 15]);
    let began = Instant::now();
    let tty = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let plan = Plan::from_seed(seed);
                    let outcome = run(&plan, false);
                    let mut violation = outcome.violation;
                    if options.twice
                        && violation.is_none()
                        && run(&plan, false).fingerprint != outcome.fingerprint
                    {
                        violation = Some((0, "two runs differ".to_owned()));
                    }
                    let c = outcome.counts;
                    if let Ok(mut totals) = totals.lock() {
                        let more = [
                            c.payments,
                            c.settled,
                            c.failed,
                            c.goods,
                            c.services,
                            c.restarts,
                            c.reorganized,
                            c.losses,
                            c.virtual_secs,
                            c.channels,
                            c.vouchers,
                            c.by_the_unit,
                            c.forced,
                            c.answered,
                            c.channels_reorganized,
                        ];
                        totals.iter_mut().zip(more).for_each(|(total, more)| *total += more);
                    }
                    if let Some((_, what)) = violation {
                        eprintln!("seed {seed}: {what}");
                        if let Ok(mut broken) = broken.lock() {
                            broken.push(seed);
                        }
                        if !options.all {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    if tty && seed.is_multiple_of(50) {
                        eprint!("\r{} of {} ", seed - options.first, options.seeds);
                        let _ = std::io::stderr().flush();
                    }
                }
            });
        }
    });
    let done = next.load(Ordering::Relaxed).min(end) - options.first;
    let broken = broken.into_inner().unwrap_or_default();
    let [payments, settled, failed, goods, services, restarts, reorganized, losses, secs, channels @ ..] =
        totals.into_inner().unwrap_or_default();
    let [opened, vouchers, by_the_unit, forced, answered, taken_back] = channels;
    println!(
        "{done} worlds, {} hours of their time, in {:.1} s: {payments} payments ({settled} settled, {failed} failed), \
         {services} calls of upstreams, {goods} times goods, {restarts} kills, {reorganized} blocks reorganized away, \
         {losses} losses shown; {opened} channels with {vouchers} vouchers for {by_the_unit} calls, {forced} closes \
         forced and {answered} of them answered, {taken_back} of their transactions reorganized away",
        secs / 3600,
        began.elapsed().as_secs_f64(),
    );
    if broken.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("broken: {broken:?}\nsee one with: sim --seed {} --shrink", broken[0]);
    ExitCode::FAILURE
}
