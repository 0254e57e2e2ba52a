//! What the store's one writer takes for a payment, on books with a short history and on books with a long one.
//!
//! All books are measured in turns, so that whatever else the machine does meets all of them alike, and processor time
//! is that of the thread that writes, in nanoseconds as Linux counts them: what waits for the disk costs nothing here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farthing_engine::{Claim, Claimed, Commit, Credit, Sale, Store, StoreError};
use farthing_load::payers::Run;
use farthing_payment::{
    Event, Fault, NewPayment, Payment, Proof, Reason, Role, Slot, SlotState, Step, TxRef, Variant, Witness,
};
use farthing_primitives::{Address, AssetId, AttemptId, Money, PaymentId, SlotId, Timestamp};
use farthing_store::{OpenError, SqliteStore};
use serde::Serialize;

use crate::claims::sales;
use crate::functions::NOW_SECS;
use crate::stats::median;

/// Of so many claims one is settled, after the others were refused and counted.
const REFUSED_OF_EACH_SETTLED: usize = 4;
/// What is done before anything is counted, in parts of the whole: it fills the caches.
const WARM_UP: usize = 8;
/// A transfer by EIP-3009 as a signed transaction of type 2 has so many bytes.
const RAW_LEN: usize = 412;
/// Nobody's relayer: the one that runs keeps its nonces.
const RELAYER: [u8; 20] = [0x4d; 20];

/// What one thing costs the writer.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Processor time of the thread that writes, for each.
    pub writer_us: f64,
    pub rate: f64,
    /// How many changes shared a commit.
    pub group: f64,
    /// Pages of 4 KiB that were written to the log and from it to the file, for each.
    pub pages: f64,
}

/// The middle of the turns on one file.
#[derive(Debug, Clone, Serialize)]
pub struct Writer {
    pub books: PathBuf,
    pub payments: u64,
    pub bytes: u64,
    /// A claim and its refusal.
    pub refused: Cost,
    /// A claim, its attempt with its slot, and its settlement.
    pub settled: Cost,
}

#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Other(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Measures all `books` in `rounds` turns of `count` refused claims. Leaves the payments in them.
pub fn measure(
    books: &[PathBuf],
    count: usize,
    in_flight: usize,
    rounds: usize,
    salt: u128,
) -> Result<Vec<Writer>, WriterError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let mut turns: Vec<Vec<(Cost, Cost)>> = books.iter().map(|_| Vec::new()).collect();
    let mut next = 0;
    for _ in 0..rounds.max(1) {
        for (path, turns) in books.iter().zip(&mut turns) {
            let run = Run { salt, now_secs: NOW_SECS };
            let settled = count.div_ceil(REFUSED_OF_EACH_SETTLED);
            let warm_up = count.div_ceil(WARM_UP);
            let all = sales(run, next, warm_up + count + settled);
            next += all.len();
            let (warm_up_sales, rest) = all.split_at(warm_up);
            let (to_refuse, to_settle) = rest.split_at(count);
            let store = Arc::new(SqliteStore::open(path)?);
            let part = |sales: &[Sale], end| {
                let sales = sales.to_vec();
                runtime.block_on(work(Arc::clone(&store), sales, in_flight, end))
            };
            part(warm_up_sales, End::Refused)?;
            let refused = part(to_refuse, End::Refused)?;
            let settled = part(to_settle, End::Settled)?;
            turns.push((refused, settled));
        }
    }
    let middle = |turns: &[(Cost, Cost)], of: fn(&(Cost, Cost)) -> &Cost| {
        let number = |number: fn(&Cost) -> f64| {
            median(&mut turns.iter().map(|turn| number(of(turn))).collect::<Vec<_>>())
        };
        Cost {
            writer_us: number(|cost| cost.writer_us),
            rate: number(|cost| cost.rate),
            group: number(|cost| cost.group),
            pages: number(|cost| cost.pages),
        }
    };
    books
        .iter()
        .zip(&turns)
        .map(|(path, turns)| {
            Ok(Writer {
                books: path.clone(),
                payments: count_of(path)?,
                bytes: std::fs::metadata(path)?.len(),
                refused: middle(turns, |turn| &turn.0),
                settled: middle(turns, |turn| &turn.1),
            })
        })
        .collect()
}

/// The number of the newest payment is how many there are: nobody deletes one.
fn count_of(path: &Path) -> Result<u64, WriterError> {
    let other = |error: rusqlite::Error| WriterError::Other(error.to_string());
    let connection = rusqlite::Connection::open(path).map_err(other)?;
    let newest: Option<i64> =
        connection.query_row("SELECT max(seq) FROM payments", [], |row| row.get(0)).map_err(other)?;
    Ok(newest.and_then(|newest| u64::try_from(newest).ok()).unwrap_or(0))
}

#[derive(Clone, Copy)]
enum End {
    Refused,
    Settled,
}

async fn work(
    store: Arc<SqliteStore>,
    sales: Vec<Sale>,
    in_flight: usize,
    end: End,
) -> Result<Cost, WriterError> {
    let count = sales.len();
    let claims: Vec<(Payment, Claim)> = sales.into_iter().map(claim).collect();
    let claims = Arc::new(claims);
    let next = Arc::new(AtomicUsize::new(0));
    let before = written()?;
    let (groups, spent, began) = (store.groups(), writer_time()?, Instant::now());
    let tasks: Vec<_> = (0..in_flight.max(1))
        .map(|_| {
            let (store, claims, next) = (Arc::clone(&store), Arc::clone(&claims), Arc::clone(&next));
            tokio::spawn(async move {
                while let Some((payment, claim)) = claims.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one(&store, payment, claim.clone(), end).await?;
                }
                Ok::<_, WriterError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|error| WriterError::Other(error.to_string()))??;
    }
    let took = began.elapsed();
    let changes = count as f64 * if matches!(end, End::Refused) { 2.0 } else { 3.0 };
    Ok(Cost {
        writer_us: (writer_time()? - spent).as_secs_f64() * 1e6 / count as f64,
        rate: count as f64 / took.as_secs_f64(),
        group: changes / (store.groups() - groups).max(1) as f64,
        pages: (written()? - before) as f64 / 4096.0 / count as f64,
    })
}

/// Bytes that this process has handed to write calls: nearly all of them go to the log, or from it to the file.
fn written() -> std::io::Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    Ok(io.lines().find_map(|line| line.strip_prefix("wchar: ")?.trim().parse().ok()).unwrap_or(0))
}

/// Processor time of this process' threads that write to a store.
fn writer_time() -> std::io::Result<Duration> {
    let mut spent = 0u64;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // A thread may end at any time.
        let Ok(name) = std::fs::read_to_string(task.join("comm")) else { continue };
        if name.starts_with("store-writer") {
            let said = std::fs::read_to_string(task.join("schedstat"))?;
            spent += said.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(spent))
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    crate::functions::must(getrandom::fill(&mut bytes));
    bytes
}

fn claim(sale: Sale) -> (Payment, Claim) {
    let Sale { tenant, key, terms, binding, flow, .. } = sale;
    let id = PaymentId::new(now(), random());
    let new = NewPayment { id, tenant, key, role: Role::Facilitator, flow, terms, binding };
    let (payment, entries) = Payment::claim(new, now());
    (payment.clone(), Claim { payment, entries, exposure: None, name: None })
}

/// One payment from its claim to its end, as a facilitator takes it there.
async fn one(store: &SqliteStore, payment: &Payment, claim: Claim, end: End) -> Result<(), WriterError> {
    match store.claim(claim).await? {
        Claimed::New => {}
        other => return Err(WriterError::Other(format!("a new claim is {other:?}"))),
    }
    match end {
        End::Refused => {
            let reason = Reason::new("invalid_exact_evm_insufficient_balance", Fault::Payer);
            let step = step(payment, Event::FundsRefused(reason))?;
            store.commit(Commit::new(step, "funds_refused")).await?;
        }
        End::Settled => settle(store, payment).await?,
    }
    Ok(())
}

async fn settle(store: &SqliteStore, payment: &Payment) -> Result<(), WriterError> {
    let (attempt, hash) = (AttemptId::new(now(), random()), random::<32>());
    let tx = TxRef::new(format!("0x{}", hex::encode(hash)));
    let network = payment.terms.money.asset().network().clone();
    let funded = step(payment, Event::FundsConfirmed)?;
    let started = step(&funded.next, Event::AttemptStarted { attempt, tx: Some(tx.clone()) })?;
    let both = Step {
        expected: funded.expected,
        next: started.next,
        entries: [funded.entries, started.entries].concat(),
    };
    let slot = Slot {
        id: SlotId::new(now(), random()),
        network: network.clone(),
        relayer: Address::from_evm_bytes(RELAYER),
        // After those of earlier turns, and in order, as a relayer has them.
        nonce: (payment.created.millis() << 16) + NEXT_NONCE.fetch_add(1, Ordering::Relaxed),
        attempt,
        payments: vec![payment.id],
        variants: vec![Variant {
            tx: tx.clone(),
            raw: [payment.terms.instruction.as_bytes(), &[0xab; RAW_LEN]].concat()[..RAW_LEN].into(),
            max_fee: 1_000_000_000,
            priority_fee: 1_000_000_000,
            signed: now(),
        }],
        state: SlotState::Open,
        updated: now(),
    };
    let after = both.next.clone();
    let commit = Commit { slots: vec![(None, slot.clone())], ..Commit::new(both, "attempt_started") };
    store.commit(commit).await?;
    let block_hash = random();
    let fee = Money::new(AssetId::new(network.clone(), Address::from_evm_bytes([0xee; 20])), 21_000 << 28);
    let proof =
        Proof { tx: tx.clone(), witness: Witness::Chain, block: 1, block_hash, log_index: 1, fee: Some(fee) };
    let paid = step(&after, Event::Included { proof, deep: true })?;
    let slot = Slot { state: SlotState::Included { tx: tx.clone(), block: 1, block_hash }, ..slot };
    let commit = Commit {
        slots: vec![(Some(0), slot)],
        credit: Some(Credit::Take { network, tx: tx.as_str().to_owned(), log_index: 1 }),
        ..Commit::new(paid, "included_deep")
    };
    Ok(store.commit(commit).await?)
}

static NEXT_NONCE: AtomicU64 = AtomicU64::new(0);

fn step(payment: &Payment, event: Event) -> Result<Step, WriterError> {
    payment.step(event, now()).map_err(|error| WriterError::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_leaves_books_that_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let books = [dir.path().join("a.db"), dir.path().join("b.db")];
        let found = measure(&books, 40, 4, 1, 7).unwrap();
        for found in found {
            assert_eq!(found.payments, 40 + 5 + 10);
            assert!(found.refused.writer_us > 0.0 && found.settled.pages > 0.0, "{found:?}");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let store = SqliteStore::open(&found.books).unwrap();
            let checked = runtime.block_on(store.check_books()).unwrap();
            assert_eq!((checked.payments, checked.problems), (found.payments, vec![]));
        }
    }
}
