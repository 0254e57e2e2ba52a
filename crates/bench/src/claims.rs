//! How many payments a second the engine claims durably, beside what raw SQLite makes of the very same rows.
//!
//! A claim counts when the engine goes on to ask its rail for the funds, which it does after the claim is durable and
//! not before; the rail here never answers. Then one connection that does nothing else writes the rows that were
//! stored, in the same tables with the same indexes, in transactions of the same size with the same sync.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use farthing_engine::{
    BoxFuture, Engine, EngineConfig, Funds, NotPrepared, Prepared, Progress, Rail, Sale, Store, World,
};
use farthing_evm::Key;
use farthing_load::payers::{Generation, Payers, Run};
use farthing_payment::{Binding, Bound, Dialect, Flow, Payment, Proof, Terms};
use farthing_primitives::{Network, RequestHash, TenantId, Timestamp};
use farthing_rails::exact_evm::{Policy, check};
use farthing_store::SqliteStore;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};

use crate::functions::{NOW_SECS, RUN, SEED, must, read, terms, tokens};
use crate::stats::median;

const ROUNDS: usize = 3;
/// Nobody waits here for what a payment becomes.
const FOREVER: Duration = Duration::from_secs(86_400);

/// Claims a second with so many in flight.
#[derive(Debug, Clone, Serialize)]
pub struct Claims {
    pub in_flight: usize,
    pub engine: f64,
    /// How many claims shared a commit.
    pub group: f64,
    pub sqlite: f64,
    pub ratio: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    #[error("the store cannot be opened: {0}")]
    Open(String),
    #[error("the books do not hold what was claimed: {0}")]
    Books(String),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Measures `count` claims, some rounds in turns; the middle of the ratios counts. Writes below `dir`.
pub fn measure(dir: &Path, count: usize, in_flight: usize) -> Result<Claims, ClaimsError> {
    let sales = sales(RUN, 0, count);
    let (mut ours, mut groups, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let scratch = tempfile::tempdir_in(dir)?;
        let books = scratch.path().join("books.db");
        let (engine, group) = through_engine(&books, sales.clone(), in_flight)?;
        let sqlite = raw(&books, &scratch.path().join("raw.db"), count, group)?;
        ours.push(engine);
        groups.push(group as f64);
        theirs.push(sqlite);
        ratios.push(engine / sqlite);
    }
    Ok(Claims {
        in_flight,
        engine: median(&mut ours),
        group: median(&mut groups),
        sqlite: median(&mut theirs),
        ratio: median(&mut ratios),
    })
}

/// What a claim takes in memory as long as nobody knows what becomes of it.
#[derive(Debug, Clone, Serialize)]
pub struct Live {
    pub claims: usize,
    /// Resident memory after the first tenth, and after all.
    pub first_tenth_mib: f64,
    pub all_mib: f64,
    pub kib_each: f64,
}

/// Makes `count` claims that all stay open, with their task, their payment and whoever waits for it. The first tenth is
/// not counted: what is allocated once is there by then, such as the store's page cache.
pub fn live(dir: &Path, count: usize) -> Result<Live, ClaimsError> {
    let scratch = tempfile::tempdir_in(dir)?;
    let path = scratch.path().join("books.db");
    let store = Arc::new(SqliteStore::open(&path).map_err(|error| ClaimsError::Open(error.to_string()))?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let tenth = count.div_ceil(TENTHS).max(1);
    let rail = Arc::new(Counting {
        claimed: AtomicUsize::new(0),
        goal: usize::MAX,
        free: Semaphore::new(0),
        done: Notify::new(),
    });
    let rails: HashMap<_, Arc<dyn Rail>> =
        HashMap::from([(Network::eip155(terms().chain_id), Arc::clone(&rail) as Arc<dyn Rail>)]);
    let config = EngineConfig { answer_within: FOREVER, max_live: tenth * TENTHS, ..EngineConfig::default() };
    let world = Arc::new(Wall { began: Instant::now() });
    let mut mib = Vec::new();
    runtime.block_on(async {
        let engine = Engine::new(store, world, rails, config);
        for part in 0..TENTHS {
            for sale in sales(RUN, part * tenth, tenth) {
                let engine = engine.clone();
                tokio::spawn(async move { engine.relay(sale).await });
            }
            while rail.claimed.load(Ordering::Acquire) < (part + 1) * tenth {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            mib.push(resident_mib()?);
        }
        Ok::<_, std::io::Error>(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(10));
    let (first_tenth_mib, all_mib) =
        (mib.first().copied().unwrap_or(0.0), mib.last().copied().unwrap_or(0.0));
    let counted = (tenth * (TENTHS - 1)) as f64;
    Ok(Live {
        claims: tenth * TENTHS,
        first_tenth_mib,
        all_mib,
        kib_each: (all_mib - first_tenth_mib) * 1024.0 / counted,
    })
}

const TENTHS: usize = 10;

/// Resident memory of this process.
fn resident_mib() -> std::io::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok())
        .ok_or_else(|| std::io::Error::other("/proc/self/status without VmRSS"))?;
    Ok(kib / 1024.0)
}

/// Payments as a facilitator has them after all checks: with real instructions of the real size.
/// From number `from` on.
pub(crate) fn sales(run: Run, from: usize, count: usize) -> Vec<Sale> {
    let (tokens, policy, now) = (tokens(), Policy::default(), Timestamp::from_secs(NOW_SECS));
    let bodies = Payers::new(SEED, from, count).requests(&terms(), Generation::V2, run, count);
    let sale = |(i, body): (usize, &bytes::Bytes)| {
        let (asked, shown) = read(body, &tokens);
        let checked = must(check(&asked, &shown, now, &policy));
        let mut request = [0; 32];
        request[..8].copy_from_slice(&(from + i).to_be_bytes());
        Sale {
            tenant: TenantId::local(),
            key: checked.key(),
            terms: Terms {
                payer: checked.payer(),
                payee: checked.pay_to(),
                money: checked.money().clone(),
                expires: checked.expires(),
                dialect: Dialect::X402V2,
                instruction: checked.instruction(),
            },
            binding: Binding {
                method: "POST".to_owned(),
                resource: "/settle".to_owned(),
                request: RequestHash(request),
                bound: Bound::ByOffer,
                repeatable: true,
            },
            flow: Flow::Upfront,
            exposure: None,
            name: None,
        }
    };
    bodies.iter().enumerate().map(sale).collect()
}

/// The rate, and how many claims shared a commit.
fn through_engine(path: &Path, sales: Vec<Sale>, in_flight: usize) -> Result<(f64, usize), ClaimsError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let store = Arc::new(SqliteStore::open(path).map_err(|error| ClaimsError::Open(error.to_string()))?);
    let rail = Arc::new(Counting {
        claimed: AtomicUsize::new(0),
        goal: sales.len(),
        free: Semaphore::new(in_flight),
        done: Notify::new(),
    });
    let rails: HashMap<_, Arc<dyn Rail>> =
        HashMap::from([(Network::eip155(terms().chain_id), Arc::clone(&rail) as Arc<dyn Rail>)]);
    let config = EngineConfig { answer_within: FOREVER, max_live: sales.len(), ..EngineConfig::default() };
    let (count, books) = (sales.len(), Arc::clone(&store) as Arc<dyn Store>);
    let groups_before = store.groups();
    let took = runtime.block_on(async {
        let world = Arc::new(Wall { began: Instant::now() });
        let engine = Engine::new(Arc::clone(&books), world, rails, config);
        let began = Instant::now();
        for sale in sales {
            // The semaphore is never closed.
            let Ok(place) = rail.free.acquire().await else { break };
            place.forget();
            let engine = engine.clone();
            tokio::spawn(async move { engine.relay(sale).await });
        }
        rail.done.notified().await;
        began.elapsed()
    });
    let group = count / usize::try_from(store.groups() - groups_before).unwrap_or(1).max(1);
    let check =
        runtime.block_on(books.check_books()).map_err(|error| ClaimsError::Books(error.to_string()))?;
    if check.payments != count as u64 || !check.problems.is_empty() {
        return Err(ClaimsError::Books(format!("{check:?}")));
    }
    // The tasks wait for a rail that never answers; the store closes when they are gone.
    runtime.shutdown_timeout(Duration::from_secs(10));
    Ok((count as f64 / took.as_secs_f64(), group.max(1)))
}

/// What SQLite makes of the rows of `books`, by itself.
fn raw(books: &Path, path: &Path, count: usize, group: usize) -> Result<f64, ClaimsError> {
    let tables = rows(&Connection::open(books)?)?;
    drop(SqliteStore::open(path).map_err(|error| ClaimsError::Open(error.to_string()))?);
    let connection = Connection::open(path)?;
    // As the store's own writer has it.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 8192;
         PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536;",
    )?;
    let began = Instant::now();
    {
        let mut inserts = Vec::new();
        for (name, rows) in &tables {
            let places = vec!["?"; rows.first().map_or(0, Vec::len)].join(",");
            inserts.push((
                connection.prepare(&format!("INSERT OR REPLACE INTO {name} VALUES ({places})"))?,
                rows,
            ));
        }
        let mut from = 0;
        while from < count {
            let to = count.min(from + group);
            connection.execute_batch("BEGIN IMMEDIATE")?;
            for (insert, rows) in &mut inserts {
                for row in &rows[rows.len() * from / count..rows.len() * to / count] {
                    insert.execute(params_from_iter(row))?;
                }
            }
            connection.execute_batch("COMMIT")?;
            from = to;
        }
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let stored: i64 = connection.query_row("SELECT count(*) FROM payments", [], |row| row.get(0))?;
    if usize::try_from(stored) != Ok(count) {
        return Err(ClaimsError::Books(format!("{stored} rows of {count}")));
    }
    Ok(rate)
}

type Rows = Vec<Vec<Value>>;

/// Every row of every table that has some.
fn rows(connection: &Connection) -> Result<Vec<(String, Rows)>, rusqlite::Error> {
    let mut names = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut tables = Vec::new();
    for name in names {
        let mut all = connection.prepare(&format!("SELECT * FROM {name}"))?;
        let width = all.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..width).map(|at| row.get(at)).collect();
        let rows: Rows = all.query_map([], row)?.collect::<Result<_, _>>()?;
        if !rows.is_empty() {
            tables.push((name, rows));
        }
    }
    Ok(tables)
}

/// Counts the payments that come to be asked for their funds, and tells nobody about them.
struct Counting {
    claimed: AtomicUsize,
    goal: usize,
    /// Each claim that is durable lets another begin.
    free: Semaphore,
    done: Notify,
}

#[async_trait]
impl Rail for Counting {
    async fn funds(&self, _: &Payment) -> Funds {
        if self.claimed.fetch_add(1, Ordering::AcqRel) + 1 == self.goal {
            self.done.notify_one();
        }
        self.free.add_permits(1);
        std::future::pending().await
    }

    async fn prepare(&self, _: &Payment) -> Result<Prepared, NotPrepared> {
        Err(NotPrepared::Unavailable("bench"))
    }

    fn abandon(&self, _: Prepared) {}

    async fn submit(&self, _: &Payment, _: Prepared) -> Progress {
        Progress::Open
    }

    async fn progress(&self, _: &Payment, _: Duration) -> Progress {
        std::future::pending().await
    }

    fn release(&self, _: &Payment) {}

    async fn still_included(&self, _: &Proof) -> Option<bool> {
        None
    }

    async fn prepare_refund(&self, _: &Payment, _: &Key) -> Result<Prepared, NotPrepared> {
        Err(NotPrepared::Unavailable("bench"))
    }

    async fn submit_refund(&self, _: Prepared) {}

    async fn refund_progress(&self, _: &Payment, _: Duration) -> Progress {
        std::future::pending().await
    }

    async fn resume(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The real world, as the program has it.
struct Wall {
    began: Instant,
}

impl World for Wall {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn random(&self, into: &mut [u8]) {
        must(getrandom::fill(into));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_claims_are_counted_with_their_memory() {
        let dir = tempfile::tempdir().unwrap();
        let live = live(dir.path(), 200).unwrap();
        assert!(live.claims == 200 && live.all_mib > 0.0, "{live:?}");
    }

    #[test]
    fn both_sides_store_every_claim() {
        let dir = tempfile::tempdir().unwrap();
        let claims = measure(dir.path(), 64, 8).unwrap();
        assert!(claims.engine > 0.0 && claims.sqlite > 0.0 && claims.group >= 1.0);
    }
}
