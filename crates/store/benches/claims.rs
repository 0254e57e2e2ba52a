//! How many claims a second become durable, beside what raw SQLite makes of the same rows in groups of the same
//! size, and beside what the disk itself syncs. Prints ratios, since the numbers are the machine's.
//!
//! `cargo bench -p farthing-store --bench claims`; `FARTHING_BENCH_DIR` names the disk to measure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use farthing_engine::{Claim, Claimed, Store};
use farthing_store::SqliteStore;
use rusqlite::{Connection, params};
use tokio::runtime::Runtime;

/// Callers that wait at the same time.
const CALLERS: [u64; 3] = [64, 256, 1024];
const ROUNDS: usize = 3;
const CLAIMS: u64 = 40_960;
const SYNCS: u64 = 500;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    println!("disk: {} fdatasync/s of 4 KiB", disk());
    for callers in CALLERS {
        // Alternating, so that a slow minute of the machine is everybody's.
        let mut rounds: Vec<Round> = (0..ROUNDS).map(|_| round(&runtime, callers)).collect();
        rounds.sort_by_key(|round| round.percent);
        let Round { ours, group, raw, percent } = rounds[ROUNDS / 2];
        println!(
            "{callers:>5} callers: {ours:>7} claims/s durable, {group:>4} a group; raw SQLite {raw:>7}/s in \
             groups of that size; {percent}% of it (best and worst round {}%, {}%)",
            rounds[ROUNDS - 1].percent,
            rounds[0].percent
        );
    }
}

#[derive(Clone, Copy)]
struct Round {
    ours: u64,
    group: u64,
    raw: u64,
    percent: u64,
}

fn round(runtime: &Runtime, callers: u64) -> Round {
    let (ours, group) = ours(runtime, callers);
    let raw = raw(group);
    Round { ours, group, raw, percent: ours * 100 / raw.max(1) }
}

fn directory() -> tempfile::TempDir {
    let base = std::env::var_os("FARTHING_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).expect("a directory to write into")
}

fn rate(count: u64, took: Duration) -> u64 {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    count * 1_000_000 / micros
}

fn disk() -> u64 {
    let dir = directory();
    let mut file =
        OpenOptions::new().create_new(true).append(true).open(dir.path().join("sync")).expect("a file");
    let started = Instant::now();
    for _ in 0..SYNCS {
        file.write_all(&[1; 4096]).expect("written");
        file.sync_data().expect("synced");
    }
    rate(SYNCS, started.elapsed())
}

fn claims() -> Vec<Claim> {
    (0..CLAIMS).map(|id| new_claim(&like(id), None)).collect()
}

/// The store, with so many tasks that each claim one after the other: claims a second, and claims a group.
fn ours(runtime: &Runtime, callers: u64) -> (u64, u64) {
    let dir = directory();
    let store = Arc::new(SqliteStore::open(&dir.path().join("books.db")).expect("opens"));
    // Ids come in the order of time, so callers take turns.
    let mut shares: Vec<Vec<Claim>> = (0..callers).map(|_| Vec::new()).collect();
    let turns = 0..shares.len();
    for (claim, turn) in claims().into_iter().zip(turns.cycle()) {
        shares[turn].push(claim);
    }
    let started = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = shares
            .into_iter()
            .map(|share| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for claim in share {
                        assert_eq!(store.claim(claim).await, Ok(Claimed::New));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no claim failed");
        }
    });
    let rate = rate(CLAIMS, started.elapsed());
    let group = CLAIMS / store.groups().max(1);
    let check = runtime.block_on(store.check_books()).expect("can be checked");
    assert_eq!((check.payments, check.problems), (CLAIMS, Vec::new()));
    (rate, group)
}

/// The same rows into the same tables and indexes by one thread that does nothing else.
fn raw(group: u64) -> u64 {
    let dir = directory();
    let path = dir.path().join("raw.db");
    drop(SqliteStore::open(&path).expect("opens"));
    let connection = set_up(&path);
    let rows: Vec<(Vec<u8>, Vec<u8>)> = (0..CLAIMS)
        .map(|id| {
            let mut key = [0; 32];
            // Keys are hashes: spread them like those.
            key[..8].copy_from_slice(&id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            (payment_id(id).to_bytes().to_vec(), key.to_vec())
        })
        .collect();
    let (address, atoms, terms) = ([1u8; 20], 1000u128.to_be_bytes(), [7u8; 440]);
    let asset = format!("{}/{}", network(), common::address(0xaa));
    let started = Instant::now();
    {
        let mut payment = connection
            .prepare(
                "INSERT INTO payments (id, tenant, key_hash, version, round, state, delivery, created, updated, \
                 open, exposed, released, answered, payer, payee, asset, atoms, detail, terms) VALUES \
                 (?1, 'local', ?2, 0, 0, 'claimed', 'none', ?3, ?3, 1, 0, 0, 0, ?4, ?4, ?5, ?6, x'01', ?7)",
            )
            .expect("prepared");
        let mut transfer = connection
            .prepare("INSERT INTO transfers VALUES (?1, 0, 'sale', 'local', 'pending', ?2, ?3)")
            .expect("prepared");
        for group in rows.chunks(usize::try_from(group).expect("small")) {
            connection.execute_batch("BEGIN IMMEDIATE").expect("begun");
            for (id, key) in group {
                payment
                    .execute(params![id, key, 1_700_000_000_000i64, address, asset, atoms, terms])
                    .expect("inserted");
                transfer.execute(params![id, asset, atoms]).expect("inserted");
            }
            connection.execute_batch("COMMIT").expect("committed");
        }
    }
    rate(CLAIMS, started.elapsed())
}

/// With the settings of the store's own writer.
fn set_up(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("opens");
    for (name, value) in [
        ("synchronous", "FULL"),
        ("secure_delete", "ON"),
        ("wal_autocheckpoint", "8192"),
        ("temp_store", "MEMORY"),
    ] {
        connection.pragma_update(None, name, value).expect("set");
    }
    connection.pragma_update(None, "cache_size", -65_536).expect("set");
    connection
}
