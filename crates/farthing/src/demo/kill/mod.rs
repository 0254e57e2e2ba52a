//! `farthing demo --kill`: processes are killed in the middle of payments, and started again. Whoever had paid gets the
//! goods for the payment that was made, and everybody's books agree.

mod line;
mod shop;
mod timeline;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use farthing_wallet::Home;
use farthing_wallet::journal::{Purchase, State};
use serde::Serialize;
use serde_json::{Value, json};

use super::books::{Books, EVERYTHING};
use super::refusals::http;
use super::stage::{Stage, short, short_hash, usdc};
use crate::cli::Failure;
use line::Hold;
use shop::{PRICE_ATOMS, Shop};
use timeline::{Moment, Timeline, Who, shortened};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Gateway,
    Buyer,
}

/// One kill: at which request of the gateway to the chain, and of whom.
struct Act {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    city: &'static str,
    method: &'static str,
    hold: Hold,
    /// What has happened when it strikes.
    moment: &'static str,
    victim: Victim,
}

const ACTS: [Act; 3] = [
    Act {
        name: "claim",
        title: "after the claim",
        about: "the gateway is killed when the payment is its own, and nothing else is known of it",
        city: "Lisbon",
        method: "eth_call",
        hold: Hold::Request,
        moment: "is asked whether the payer has the money; the question is held up",
        victim: Victim::Gateway,
    },
    Act {
        name: "broadcast",
        title: "after the broadcast",
        about: "the gateway is killed when the chain has its transaction, and it does not know that",
        city: "Porto",
        method: "eth_sendRawTransaction",
        hold: Hold::Answer,
        moment: "has the transaction TX; the answer to the gateway is held up",
        victim: Victim::Gateway,
    },
    Act {
        name: "buyer",
        title: "the buyer",
        about: "the buyer is killed while it waits for what it paid for, and runs the same command again",
        city: "Faro",
        method: "eth_call",
        hold: Hold::Request,
        moment: "is asked whether the payer has the money; the question is held up",
        victim: Victim::Buyer,
    },
];

/// What came of a kill.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    /// It cost once, brought the goods, and everybody says so.
    held: bool,
    problems: Vec<String>,
    purchase: Option<String>,
    payments: Vec<String>,
    transaction: Option<String>,
    /// How often the one payment was shown.
    shown: u32,
    /// What the payer has less, in atoms, by the token's own word.
    debited: String,
    timeline: Vec<Moment>,
}

/// The whole show.
pub async fn show(rpc: Option<&str>, silent: bool) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let mut stage = Stage::new(silent);
    let mut shop = Shop::open(http()?, rpc).await?;
    let books = Books::open(shop.node.clone(), &shop.program, shop.parties()?, vec![shop.settler()?]).await?;
    stage.call(&shop.url, "seller");
    let chain = if shop.embedded { "an embedded chain" } else { "the chain" };
    stage.say(&format!(
        "{chain} at {}, a seller behind its gateway, a buyer with a wallet: up in {} ms",
        shop.rpc_url,
        began.elapsed().as_millis()
    ));
    let mut outcomes = Vec::new();
    for act in &ACTS {
        stage.title(act.title, act.about);
        let outcome = play(&mut shop, act).await?;
        tell(&stage, &outcome);
        outcomes.push(outcome);
    }
    stage.title("books", "wallet, seller's ledger and chain, to the atom");
    let summary = books.close().await?;
    stage.summary(&summary);
    let took = began.elapsed();
    stage.say("");
    stage.say(&format!("  {}.{} s in all", took.as_secs(), took.subsec_millis() / 100));
    let failures: Vec<String> = outcomes
        .iter()
        .flat_map(|outcome| outcome.problems.iter().map(move |why| format!("{}: {why}", outcome.name)))
        .collect();
    if silent {
        println!(
            "{}",
            json!({
                "reconciles": summary.reconciles(),
                "summary": summary,
                "kills": outcomes,
                "failures": failures,
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            })
        );
    } else {
        failures.iter().for_each(|failure| eprintln!("farthing demo: {failure}"));
    }
    let good = failures.is_empty() && summary.reconciles() && summary.payments == ACTS.len() as u64;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lets the buyer buy, strikes at the moment, and lets everybody go on.
async fn play(shop: &mut Shop, act: &Act) -> Result<Outcome, Failure> {
    let resource = format!("/tomorrow?city={}", act.city);
    let url = format!("{}{resource}", shop.url);
    let payer = Shop::buyer()?;
    let (had, served) = (shop.node.usdc(&payer).await?, shop.service.served("nimbus"));
    let timeline = Arc::new(Timeline::begin());
    let mut held = shop.line.hold(act.method, act.hold);
    let mut buyer = shop.buy(&url, &timeline)?;
    let tx = held.caught().await?;
    timeline.note(Who::Chain, act.moment.replace("TX", tx.as_deref().unwrap_or("?")));
    let (report, code) = match act.victim {
        Victim::Gateway => {
            timeline.note(Who::Kill, format!("to process {}, the gateway", shop.gateway_pid()));
            shop.kill_gateway().await?;
            drop(held);
            shop.start_gateway().await?;
            timeline.note(Who::Gateway, format!("is started again, as process {}", shop.gateway_pid()));
            buyer.end().await?
        }
        Victim::Buyer => {
            timeline.note(Who::Kill, format!("to process {}, the buyer", buyer.pid()));
            buyer.kill().await?;
            drop(held);
            buyer = shop.buy(&url, &timeline)?;
            buyer.end().await?
        }
    };
    if let Some(body) = report.get("body") {
        timeline.note(Who::Buyer, format!("has its goods: {}", short(&body.to_string(), 90)));
    }
    let stories = shop.payments_for(&resource).await?;
    stories.iter().for_each(|story| timeline.add_story(story));
    let purchases = purchases_of(shop, &url)?;
    let debited = had.abs_diff(shop.node.usdc(&payer).await?);
    let mut outcome = Outcome {
        name: act.name,
        held: false,
        problems: Vec::new(),
        purchase: purchases.first().map(|purchase| purchase.id.to_string()),
        payments: stories.iter().filter_map(|story| story["payment"].as_str().map(str::to_owned)).collect(),
        transaction: purchases.first().and_then(|purchase| purchase.tx.clone()),
        shown: purchases.iter().map(|purchase| purchase.shown).sum(),
        debited: debited.to_string(),
        timeline: timeline.told(),
    };
    let delivered =
        code == 0 && report["outcome"] == "paid" && super::stage::body_of(&report)["city"] == act.city;
    let settled: Vec<&Value> = stories.iter().filter(|story| story["state"] == "settled").collect();
    let times = shop.service.served("nimbus").saturating_sub(served);
    let mut expect = |holds: bool, why: String| {
        if !holds {
            outcome.problems.push(why);
        }
    };
    expect(delivered, format!("the buyer has no goods: exit code {code}, {report}"));
    expect(
        debited == PRICE_ATOMS,
        format!("the payer has {debited} atoms less, and the price is {PRICE_ATOMS}"),
    );
    expect(times == 1, format!("the service was asked {times} times"));
    let [purchase] = purchases.as_slice() else {
        outcome.problems.push(format!("the journal has {} purchases", purchases.len()));
        return Ok(outcome);
    };
    let confirmed = purchase.state == State::Settled && purchase.confirmed;
    expect(confirmed, format!("the journal has the purchase as {}", purchase.state));
    expect(purchase.shown > 1, "the payment was not shown again".to_owned());
    let agree =
        settled.len() == 1 && settled.iter().all(|p| p["transaction"].as_str() == purchase.tx.as_deref());
    expect(agree, format!("the ledger has {} settled payments for it", settled.len()));
    expect(
        tx.is_none() || tx == purchase.tx,
        "it was settled by another transaction than the one sent".to_owned(),
    );
    outcome.held = outcome.problems.is_empty();
    Ok(outcome)
}

/// What the buyer's journal says of this URL. The commands leave the query out, which may hold secrets.
fn purchases_of(shop: &Shop, url: &str) -> Result<Vec<Purchase>, Failure> {
    let failed = |error: farthing_wallet::journal::JournalError| Failure::failed(error.to_string());
    let journal = Home::new(shop.home()).journal().map_err(failed)?;
    let all = journal.history(EVERYTHING).map_err(failed)?;
    Ok(all.into_iter().filter(|purchase| purchase.url == url).collect())
}

fn tell(stage: &Stage, outcome: &Outcome) {
    for Moment { ms, who, what } in &outcome.timeline {
        stage.moment(*ms, who.name(), &stage.named(&shortened(what)), *who == Who::Kill);
    }
    if outcome.held {
        let tx = short_hash(outcome.transaction.as_deref().unwrap_or_default());
        stage.verdict(
            true,
            &format!(
                "debited once, {} USDC by {tx}; served once; one payment, shown {} times",
                usdc(&outcome.debited),
                outcome.shown
            ),
        );
    }
    outcome.problems.iter().for_each(|why| stage.verdict(false, why));
}
