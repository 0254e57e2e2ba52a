//! What is changed behind the store's back, by a hand or by a bit that rots, must be found, and never be told as true.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::*;
use farthing_engine::{Commit, Store, StoreError, StoredResponse};
use farthing_faultdisk::{Disk, Fault, Kind, Rng};
use farthing_payment::{Flow, Payment, Role, SlotState, TxRef};
use farthing_store::{Checked, SqliteStore};
use rusqlite::types::Value;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

const SOLD: [&str; 6] =
    ["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep", "sent"];

/// A store with something in every table and of every kind of end.
async fn fill(store: &SqliteStore) {
    let paid = walk(store, &like(1), &SOLD[..4]).await;
    let mut commit: Commit = commit_of(&paid, "included_deep", 1, at(5));
    commit.slots = vec![(None, slot(1, 0, &[1]))];
    store.commit(commit).await.unwrap();
    walk(store, &like(2), &SOLD[..3]).await;
    walk(store, &like(3), &["funds_refused"]).await;
    walk(store, &like(4), &[&SOLD[..], &["refund_started", "refund_included"]].concat()).await;
    walk(store, &like(5), &[&SOLD[..5], &["reorged", "included", "included_deep"]].concat()).await;
    walk(store, &like(6), &["funds_confirmed", "call_started", "call_failed", "represented"]).await;
    let lent = Like { flow: Flow::Background, ..like(7) };
    walk(store, &lent, &["funds_confirmed", "call_started", "sent", "attempt_started", "unclear", "dead"])
        .await;
    walk(store, &Like { flow: Flow::Background, atoms: 1 << 70, ..like(8) }, &SOLD[..2]).await;
    let relayed = Like { role: Role::Facilitator, tenant: "other".parse().unwrap(), ..like(9) };
    walk(store, &relayed, &["funds_confirmed", "attempt_started", "included_deep"]).await;
    let upfront = Like { flow: Flow::Upfront, ..like(10) };
    walk(store, &upfront, &["funds_confirmed", "attempt_started", "reverted"]).await;
    let included =
        SlotState::Included { tx: TxRef::new(format!("0x{:064x}", 2)), block: 7, block_hash: [4; 32] };
    let slots = vec![(None, slot(2, 1, &[10])), (None, slot(3, 2, &[9, 10]))];
    store.save_slots(slots).await.unwrap();
    let moved = farthing_payment::Slot { state: included, ..slot(2, 1, &[10]) };
    store.save_slots(vec![(Some(0), moved)]).await.unwrap();
}

async fn check(store: &SqliteStore) -> Result<Checked, StoreError> {
    store.check(|_, _| {}).await
}

async fn check_file(path: &Path) -> Vec<String> {
    match SqliteStore::open_read_only(path) {
        Ok(store) => match check(&store).await {
            Ok(checked) => checked.problems,
            Err(error) => vec![error.to_string()],
        },
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn a_whole_store_derives_again_and_says_what_was_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = SqliteStore::open(&dir.path().join("books.db")).unwrap();
        fill(&store).await;
        let (tell, told) = std::sync::mpsc::channel();
        let checked = store.check(move |done, total| tell.send((done, total)).unwrap()).await.unwrap();
        assert_eq!(checked.problems, Vec::<String>::new());
        assert_eq!((checked.payments, checked.replayed), (10, 10));
        assert_eq!((checked.responses, checked.slots, checked.credits), (4, 3, 4));
        assert!(checked.changes > 35 && checked.transfers > 20 && checked.accounts > 8, "{checked:?}");
        assert_eq!(told.iter().last(), Some((10, 10)));
    });
}

/// What a column may be turned into: every value is of the column's kind, so that nothing but meaning is wrong.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Integer(n) => vec![Value::Integer(n + 1), Value::Integer(if *n == 0 { 1 } else { 0 })],
        Value::Real(_) => panic!("there are no floats in here"),
        Value::Text(text) => {
            let mut last = text.clone();
            let end = last.pop().unwrap_or('a');
            last.push(if end == '1' { '2' } else { '1' });
            let mut all = vec![Value::Text(last), Value::Text(format!("{text}1"))];
            // Words that other rows have there.
            for words in [
                &["claimed", "funded", "settled", "refused", "failed", "settling"][..],
                &["none", "called", "stored", "sent", "failed"],
                &["pending", "posted", "voided"],
                &["sale", "settlement", "write-off", "refund"],
                &["receivable", "revenue", "treasury"],
                &["local", "other"],
                &["open", "included", "final", "lost"],
                &["funds_confirmed", "call_started", "call_stored", "sent", "included_deep"],
            ] {
                if words.contains(&text.as_str()) {
                    all.extend(
                        words
                            .iter()
                            .filter(|word| **word != text)
                            .map(|word| Value::Text((*word).to_owned())),
                    );
                }
            }
            all
        }
        Value::Blob(bytes) => {
            let flipped = |at: usize| {
                let mut other = bytes.clone();
                if let Some(byte) = other.get_mut(at) {
                    *byte ^= 1;
                }
                Value::Blob(other)
            };
            let mut all = vec![flipped(0), flipped(bytes.len() / 2), flipped(bytes.len().saturating_sub(1))];
            all.push(Value::Blob(bytes[..bytes.len().saturating_sub(1)].to_vec()));
            all
        }
    }
}

#[test]
fn every_value_of_every_table_that_is_tampered_with_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, path) = (dir.path().join("whole.db"), dir.path().join("books.db"));
    run(async {
        let store = SqliteStore::open(&whole).unwrap();
        fill(&store).await;
        drop(store);
        assert_eq!(check_file(&whole).await, Vec::<String>::new());
        // One file without a log, so that a copy is all of it.
        let raw = rusqlite::Connection::open(&whole).unwrap();
        raw.pragma_update(None, "journal_mode", "DELETE").unwrap();
        let names = |sql: &str| -> Vec<String> {
            raw.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let mut tried = 0;
        let mut missed = Vec::new();
        // Whether the check finds it; `None` if SQLite did not let it happen.
        let found = async |sql: &str, params: &[&dyn rusqlite::ToSql]| {
            std::fs::copy(&whole, &path).unwrap();
            let changed = rusqlite::Connection::open(&path).unwrap().execute(sql, params);
            match changed {
                Ok(rows) => {
                    assert_eq!(rows, 1, "{sql}");
                    Some(!check_file(&path).await.is_empty())
                }
                Err(_) => None,
            }
        };
        for table in names("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
            // Payments have none of these; `tests/channels.rs` fills them and tampers with them.
            if ["channels", "charges", "charge_answers"].contains(&table.as_str()) {
                continue;
            }
            // The order of insertion means nothing.
            let info = format!("SELECT name FROM pragma_table_info('{table}')");
            let columns = names(&format!("{info} WHERE name <> 'seq'"));
            let key = names(&format!("{info} WHERE pk > 0")).join(", ");
            let rows: u32 =
                raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
            let nth =
                |row| format!("({key}) = (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {row})");
            for row in [0, rows / 2, rows - 1] {
                for column in &columns {
                    let select = format!("SELECT {column} FROM {table} WHERE {}", nth(row));
                    let was: Value = raw.query_row(&select, [], |row| row.get(0)).unwrap();
                    for other in others(&was).into_iter().filter(|other| *other != was) {
                        let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {}", nth(row));
                        let found = found(&sql, &[&other]).await;
                        tried += u32::from(found.is_some());
                        if found == Some(false) {
                            missed.push(format!("{table}.{column}: {was:?} as {other:?}"));
                        }
                    }
                }
                if found(&format!("DELETE FROM {table} WHERE {}", nth(row)), &[]).await == Some(false) {
                    missed.push(format!("{table}: a row less"));
                }
            }
        }
        assert!(missed.is_empty(), "{} of {tried}: {missed:#?}", missed.len());
        assert!(tried > 400, "only {tried} were tried");
    });
}

/// Each of the indexes on consumption keys keeps out a second of its own kind only, so a key that a live payment and a
/// finished one hold is the check's to find.
#[test]
fn a_key_that_a_live_and_a_finished_payment_hold_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        fill(&store).await;
        drop(store);
        let raw = rusqlite::Connection::open(&path).unwrap();
        let finished = payment_id(1).to_bytes();
        let hash: Vec<u8> = raw
            .query_row("SELECT key_hash FROM payments WHERE id = ?1", [finished], |row| row.get(0))
            .unwrap();
        let set = |hash: &[u8]| {
            raw.execute("UPDATE payments SET key_hash = ?2 WHERE id = ?1", (finished, hash)).unwrap()
        };
        set(&[0; 32]);
        let store = SqliteStore::open(&path).unwrap();
        store.claim(new_claim(&Like { key: 1, ..like(11) }, None)).await.unwrap();
        drop(store);
        set(&hash);
        let problems = check_file(&path).await;
        let of_both = format!("{}: another payment holds its consumption key too", payment_id(11));
        assert_eq!(problems, [of_both]);
    });
}

/// Everything that a store says of its payments.
async fn everything(store: &SqliteStore) -> Result<Vec<Said>, StoreError> {
    let mut said = Vec::new();
    for n in 1..=10 {
        let id = payment_id(n);
        said.push(Said {
            payment: store.payment(id).await?,
            holder: store.holder(&key(n)).await?,
            response: store.response(id).await?,
            slots: store.slots_of(id).await?,
        });
    }
    Ok(said)
}

#[derive(Debug, PartialEq)]
struct Said {
    payment: Option<Payment>,
    holder: Option<Payment>,
    response: Option<StoredResponse>,
    slots: Vec<farthing_engine::StoredSlot>,
}

/// A bit rots somewhere in the file: whatever is told of a payment is what was written, and the check finds all that
/// makes a difference.
#[test]
fn a_bit_that_rots_is_never_told_as_true() {
    let disk = Disk::new(1);
    let path = disk.path("books.db");
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        fill(&store).await;
        let truth = everything(&store).await.unwrap();
        drop(store);
        let len = disk.image("books.db").unwrap().len() as u64;
        let (mut refused, mut missing, mut found) = (0, 0, 0);
        for seed in 0..600 {
            let mut rng = Rng::new(seed);
            let (at, bit) = (usize::try_from(rng.below(len)).unwrap(), u8::try_from(rng.below(8)).unwrap());
            assert!(disk.flip("books.db", at, bit));
            let context = format!("seed {seed}: bit {bit} of byte {at}");
            let problems = check_file(&path).await;
            match SqliteStore::open_read_only(&path) {
                Err(_) => refused += 1,
                Ok(store) => match everything(&store).await {
                    Err(StoreError::Corrupt(_) | StoreError::Down(_)) => refused += 1,
                    Err(other) => panic!("{context}: {other:?}"),
                    Ok(said) => {
                        for (said, truth) in said.iter().zip(&truth) {
                            // What an index lost is not found by asking for it; the check below finds that.
                            assert!(said.payment.is_none() || said.payment == truth.payment, "{context}");
                            assert!(said.holder.is_none() || said.holder == truth.holder, "{context}");
                            assert!(said.response.is_none() || said.response == truth.response, "{context}");
                            assert!(said.slots.iter().all(|slot| truth.slots.contains(slot)), "{context}");
                        }
                        if said != truth {
                            missing += 1;
                            assert!(!problems.is_empty(), "{context}: the check has missed it");
                        }
                    }
                },
            }
            found += u32::from(!problems.is_empty());
            assert!(disk.flip("books.db", at, bit));
        }
        assert!(
            refused > 20 && found > 50 && found > refused,
            "{refused} refused, {missing} missing, {found} found"
        );
        assert_eq!(check_file(&path).await, Vec::<String>::new());
    });
}

/// The same for a bit that is wrong in what is read, while the store runs.
#[test]
fn what_is_read_wrongly_is_refused_and_nothing_is_lost() {
    let mut refused = 0;
    for seed in 0..120 {
        let disk = Disk::new(seed);
        let path = disk.path("books.db");
        run(async {
            let store = SqliteStore::open(&path).unwrap();
            fill(&store).await;
            let truth = everything(&store).await.unwrap();
            drop(store);
            let fault = match seed % 3 {
                0 => Fault::bit_flips(),
                1 => Fault::short_read(),
                _ => Fault::read_fails(),
            };
            disk.inject(fault.on(Kind::Database).after(2 + seed % 11).times(1 + seed % 4));
            match SqliteStore::open_read_only(&path) {
                Err(_) => refused += 1,
                Ok(store) => match everything(&store).await {
                    Err(StoreError::Corrupt(_) | StoreError::Down(_)) => refused += 1,
                    Err(other) => panic!("seed {seed}: {other:?}"),
                    Ok(said) => {
                        for (said, truth) in said.iter().zip(&truth) {
                            assert!(said.payment.is_none() || said.payment == truth.payment, "seed {seed}");
                            assert!(
                                said.response.is_none() || said.response == truth.response,
                                "seed {seed}"
                            );
                        }
                    }
                },
            }
            disk.heal();
            let store = SqliteStore::open(&path).unwrap();
            assert_eq!(everything(&store).await.unwrap(), truth, "seed {seed}");
            assert_eq!(check(&store).await.unwrap().problems, Vec::<String>::new(), "seed {seed}");
        });
    }
    assert!(refused > 20, "{refused} refused");
}
