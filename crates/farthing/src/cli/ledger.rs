//! `farthing ledger`: the books of a store, read without touching them.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_engine::{PaymentFilter, Store};
use farthing_payment::{Bound, Payment};
use farthing_primitives::{PaymentId, Registry};
use farthing_store::SqliteStore;
use serde_json::{Value, json};

use super::Failure;

/// Look into the books: balances, payments, one payment's story, and a check that re-derives everything.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing ledger balances --store farthing.db
  farthing ledger payments --store farthing.db | jq .
  farthing ledger show pay_0192… --store farthing.db
  farthing ledger check --store farthing.db         exit code 0 only if the books balance")]
pub struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// What each account has seen
    #[command(after_help = "Example:\n  farthing ledger balances --store farthing.db")]
    Balances(StoreArgs),
    /// The payments, oldest first
    #[command(after_help = "Example:\n  farthing ledger payments --store farthing.db --limit 20 | jq .")]
    Payments {
        #[command(flatten)]
        store: StoreArgs,
        /// Start after this payment
        #[arg(long)]
        after: Option<PaymentId>,
        /// At most so many (1 to 1000)
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// The story of one payment: states, times, entries, transactions
    #[command(after_help = "Example:\n  farthing ledger show pay_0192… --store farthing.db")]
    Show {
        /// The payment
        payment: PaymentId,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Re-derive every balance from its transfers
    #[command(after_help = "Example:\n  farthing ledger check --store farthing.db && echo the books balance")]
    Check(StoreArgs),
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// The store's file
    #[arg(long, default_value = "farthing.db", value_name = "FILE")]
    store: PathBuf,
    /// Print JSON also on a terminal
    #[arg(long)]
    json: bool,
}

impl StoreArgs {
    fn open(&self) -> Result<SqliteStore, Failure> {
        SqliteStore::open_read_only(&self.store)
            .map_err(|error| Failure::failed(format!("{}: {error}", self.store.display())))
    }

    fn as_json(&self) -> bool {
        self.json || !std::io::stdout().is_terminal()
    }
}

pub async fn run(args: LedgerArgs) -> Result<ExitCode, Failure> {
    match args.command {
        LedgerCommand::Balances(store) => balances(store).await,
        LedgerCommand::Payments { store, after, limit } => payments(store, after, limit).await,
        LedgerCommand::Show { payment, store } => show(store, payment).await,
        LedgerCommand::Check(store) => check(store).await,
    }
}

async fn balances(args: StoreArgs) -> Result<ExitCode, Failure> {
    let store = args.open()?;
    let rows = store.balances(None).await.map_err(failed)?;
    let registry = Registry::builtin();
    if args.as_json() {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(account, balance)| {
                json!({
                    "tenant": account.tenant.as_str(),
                    "account": account.kind.as_str(),
                    "asset": account.asset.to_string(),
                    "debits_posted": balance.debits_posted.to_string(),
                    "credits_posted": balance.credits_posted.to_string(),
                    "debits_pending": balance.debits_pending.to_string(),
                    "credits_pending": balance.credits_pending.to_string(),
                })
            })
            .collect();
        println!("{}", Value::from(rows));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<12} {:<12} {:>18} {:>18}  asset", "tenant", "account", "debit", "credit");
    for (account, balance) in rows {
        let known = registry.get(&account.asset);
        let show = |atoms: u128| known.map_or_else(|| atoms.to_string(), |asset| asset.format(atoms));
        let name = known.map_or_else(|| account.asset.to_string(), |asset| asset.symbol.clone());
        println!(
            "{:<12} {:<12} {:>18} {:>18}  {name}",
            account.tenant.as_str(),
            account.kind.as_str(),
            show(balance.debits_posted),
            show(balance.credits_posted),
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn payments(args: StoreArgs, after: Option<PaymentId>, limit: usize) -> Result<ExitCode, Failure> {
    let store = args.open()?;
    let filter = PaymentFilter { after, limit: limit.clamp(1, 1000), ..PaymentFilter::default() };
    let rows = store.payments(filter).await.map_err(failed)?;
    if args.as_json() {
        println!("{}", Value::from(rows.iter().map(summary).collect::<Vec<_>>()));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<36} {:<11} {:<9} {:>12}  resource", "payment", "state", "delivery", "atoms");
    for payment in rows {
        println!(
            "{:<36} {:<11} {:<9} {:>12}  {} {}",
            payment.id.to_string(),
            payment.state.name(),
            payment.delivery.name(),
            payment.terms.money.atoms(),
            payment.binding.method,
            payment.binding.resource,
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(args: StoreArgs, id: PaymentId) -> Result<ExitCode, Failure> {
    let store = args.open()?;
    let payment =
        store.payment(id).await.map_err(failed)?.ok_or_else(|| {
            Failure::failed(format!("there is no payment {id} in {}", args.store.display()))
        })?;
    let history = store.history(id).await.map_err(failed)?;
    let transfers = store.transfers_of(id).await.map_err(failed)?;
    let slots = store.slots_of(id).await.map_err(failed)?;
    if args.as_json() {
        let mut value = summary(&payment);
        value["history"] = history
            .iter()
            .map(|(version, event, at)| json!({"version": version, "event": event, "at": at.to_string()}))
            .collect();
        value["transfers"] = transfers
            .iter()
            .map(|(id, money, phase)| {
                json!({
                    "purpose": id.purpose.as_str(),
                    "round": id.round,
                    "atoms": money.atoms().to_string(),
                    "asset": money.asset().to_string(),
                    "phase": format!("{phase:?}").to_lowercase(),
                })
            })
            .collect();
        value["attempts"] = slots
            .iter()
            .map(|stored| {
                json!({
                    "relayer": stored.slot.relayer.as_str(),
                    "nonce": stored.slot.nonce,
                    "state": stored.slot.state.name(),
                    "transactions": stored.slot.variants.iter().map(|v| v.tx.as_str()).collect::<Vec<_>>(),
                })
            })
            .collect();
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{id}  {}, delivery {}", payment.state.name(), payment.delivery.name());
    println!("  {} {}", payment.binding.method, payment.binding.resource);
    println!("  from {} to {}", payment.terms.payer, payment.terms.payee);
    println!("  {} atoms of {}", payment.terms.money.atoms(), payment.terms.money.asset());
    for (version, event, at) in history {
        println!("  {at}  v{version:<3} {event}");
    }
    for (transfer, money, phase) in transfers {
        let (debit, credit) = transfer.purpose.accounts();
        println!("  {:<14} {debit} <- {credit}  {}  {phase:?}", transfer.purpose.as_str(), money.atoms());
    }
    for stored in slots {
        for variant in &stored.slot.variants {
            println!("  nonce {} {}  {}", stored.slot.nonce, stored.slot.state.name(), variant.tx);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(args: StoreArgs) -> Result<ExitCode, Failure> {
    let store = args.open()?;
    let found = store.check_books().await.map_err(failed)?;
    if args.as_json() {
        println!(
            "{}",
            json!({
                "payments": found.payments,
                "transfers": found.transfers,
                "accounts": found.accounts,
                "problems": found.problems,
            })
        );
    } else {
        println!("{} payments, {} transfers, {} accounts", found.payments, found.transfers, found.accounts);
        found.problems.iter().for_each(|problem| println!("PROBLEM: {problem}"));
    }
    if found.problems.is_empty() {
        if !args.as_json() {
            println!("the books balance");
        }
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

fn summary(payment: &Payment) -> Value {
    json!({
        "payment": payment.id.to_string(),
        "tenant": payment.tenant.as_str(),
        "state": payment.state.name(),
        "delivery": payment.delivery.name(),
        "payer": payment.terms.payer.as_str(),
        "payee": payment.terms.payee.as_str(),
        "atoms": payment.terms.money.atoms().to_string(),
        "asset": payment.terms.money.asset().to_string(),
        "method": payment.binding.method,
        "resource": payment.binding.resource,
        "bound": match payment.binding.bound {
            Bound::ByOffer => "offer",
            Bound::ByFirstUse => "unbound",
        },
        "transaction": payment.tx().map(|tx| tx.as_str().to_owned()),
        "reason": payment.reason().map(|reason| reason.code().to_owned()),
        "key": payment.key.as_str(),
        "created": payment.created.to_string(),
        "updated": payment.updated.to_string(),
    })
}

fn failed(error: farthing_engine::StoreError) -> Failure {
    Failure::failed(error.to_string())
}
