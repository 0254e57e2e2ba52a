//! `farthing ledger`: the books of a store, read without touching them, and copies of them.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_engine::{PaymentFilter, Store};
use farthing_payment::{Bound, Payment};
use farthing_primitives::PaymentId;
use farthing_store::{Checked, SqliteStore};
use farthing_wallet::client::printable;
use serde_json::{Value, json};

use super::Failure;

mod amounts;
mod copies;
mod progress;
mod story;

use amounts::Amounts;
use progress::Line;

/// Look into the books: balances, payments, one payment's story, and a check that re-derives everything; back them up.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing ledger balances --store farthing.db
  farthing ledger payments --store farthing.db | jq .
  farthing ledger show pay_0192… --store farthing.db
  farthing ledger check --store farthing.db         exit code 0 only if everything derives again
  farthing ledger backup monday.db --store farthing.db
  farthing ledger restore monday.db --store farthing.db --replace")]
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
    /// The story of one payment: what happened, when, why and by whom; transactions and entries
    #[command(after_help = "Example:\n  farthing ledger show pay_0192… --store farthing.db")]
    Show {
        /// The payment
        payment: PaymentId,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Derive every payment, transfer, balance, credit and slot again, and compare
    #[command(
        after_help = "Example:\n  farthing ledger check --store farthing.db && echo the books balance\n\n\
                      Exit code 1 if anything is wrong, with a line for each thing."
    )]
    Check(StoreArgs),
    /// Copy the store to a new file while it is in use, and check the copy
    #[command(after_help = "Example:\n  farthing ledger backup backups/monday.db --store farthing.db\n\n\
                            The file has its name only once it is whole, checked and synced.")]
    Backup {
        /// The new file
        file: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Put a copy in the store's place, after checking it; nobody may have the store open
    #[command(
        after_help = "Example:\n  farthing ledger restore backups/monday.db --store farthing.db --replace\n\n\
                      An older store forgets what happened since. Read docs/operating/backup.md before."
    )]
    Restore {
        /// The copy
        file: PathBuf,
        /// Replace a store that is there; it is kept beside it
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
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
        SqliteStore::open_read_only(&self.store).map_err(|error| Failure::failed(error.to_string()))
    }

    fn as_json(&self) -> bool {
        self.json || !std::io::stdout().is_terminal()
    }
}

pub async fn run(args: LedgerArgs) -> Result<ExitCode, Failure> {
    match args.command {
        LedgerCommand::Balances(store) => balances(store).await,
        LedgerCommand::Payments { store, after, limit } => payments(store, after, limit).await,
        LedgerCommand::Show { payment, store } => story::show(store, payment).await,
        LedgerCommand::Check(store) => check(store).await,
        LedgerCommand::Backup { file, store } => copies::back_up(&file, &store),
        LedgerCommand::Restore { file, replace, store } => copies::restore(&file, &store, replace),
    }
}

async fn balances(args: StoreArgs) -> Result<ExitCode, Failure> {
    let store = args.open()?;
    let rows = store.balances(None).await.map_err(failed)?;
    let amounts = Amounts::new();
    if args.as_json() {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(account, balance)| {
                json!({
                    "tenant": account.tenant.as_str(),
                    "account": account.kind.as_str(),
                    "asset": account.asset.to_string(),
                    "unit": amounts.unit(&account.asset),
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
    println!("{:<12} {:<12} {:>24} {:>24}  unit", "tenant", "account", "debit", "credit");
    for (account, balance) in rows {
        println!(
            "{:<12} {:<12} {:>24} {:>24}  {}",
            account.tenant.as_str(),
            account.kind.as_str(),
            amounts.plain(&account.asset, balance.debits_posted),
            amounts.plain(&account.asset, balance.credits_posted),
            amounts.unit(&account.asset),
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
    let amounts = Amounts::new();
    println!("{:<36} {:<11} {:<9} {:>18}  resource", "payment", "state", "delivery", "amount");
    for payment in rows {
        println!(
            "{:<36} {:<11} {:<9} {:>18}  {} {}",
            payment.id.to_string(),
            payment.state.name(),
            payment.delivery.name(),
            amounts.brief(&payment.terms.money),
            payment.binding.method,
            // What a buyer asked for, as it wrote it.
            printable(&payment.binding.resource),
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(args: StoreArgs) -> Result<ExitCode, Failure> {
    let store = args.open()?;
    let line = Line::new();
    let found = store
        .check(move |done, of| line.show(&format!("{done} of {of} payments checked")))
        .await
        .map_err(failed)?;
    Line::new().clear();
    if args.as_json() {
        println!("{}", checked_json(&found));
    } else {
        print_checked(&found);
    }
    Ok(if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn checked_json(found: &Checked) -> Value {
    json!({
        "sound": found.problems.is_empty(),
        "payments": found.payments,
        "replayed": found.replayed,
        "changes": found.changes,
        "transfers": found.transfers,
        "accounts": found.accounts,
        "credits": found.credits,
        "responses": found.responses,
        "slots": found.slots,
        "newest": found.newest.map(|at| at.to_string()),
        "problems": found.problems,
    })
}

/// What was looked at; only if nothing is wrong was it proved.
fn print_checked(found: &Checked) {
    let Checked { payments, replayed, changes, transfers, accounts, credits, responses, slots, .. } = found;
    if !found.problems.is_empty() {
        println!("looked at {payments} payments, {transfers} transfers, {accounts} accounts, {slots} slots");
        found.problems.iter().for_each(|problem| println!("PROBLEM: {problem}"));
        println!("{} problems: do not trust these books before they are explained", found.problems.len());
        return;
    }
    println!("the file, its constraints and its indexes are whole");
    println!("{payments:>10} payments are what their {changes} changes made of them");
    println!(
        "{replayed:>10} of them were made again, event by event, by the machine's own rules: the books have"
    );
    println!("{:>10} exactly the transfers that this gives", "");
    if replayed < payments {
        let older = payments - replayed;
        println!(
            "{older:>10} began under an older schema: the books have the transfers that their states ask for"
        );
    }
    println!("{transfers:>10} transfers belong to them");
    println!("{accounts:>10} balances are the sums of their transfers, and every asset sums to zero");
    println!("{credits:>10} logs of the chain paid one payment each, which says so too");
    println!("{slots:>10} relayer slots and their payments name each other");
    println!("{responses:>10} stored answers can be read");
    println!("the books balance");
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
        "amount": Amounts::new().short(&payment.terms.money),
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
