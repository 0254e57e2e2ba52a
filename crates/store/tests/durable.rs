//! What SQLite's store must do beyond the model: survive, refuse, and find what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::*;
use farthing_engine::{Claimed, Commit, PaymentFilter, Store, StoreError};
use farthing_primitives::PaymentId;
use farthing_store::{OpenError, SqliteStore};

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(work)
}

#[test]
fn a_restart_finds_everything_and_what_is_left_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    run(async {
        let served = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
        let store = SqliteStore::open(&path).unwrap();
        let watched = walk(&store, &like(1), &served).await;
        walk(&store, &like(2), &[&served[..], &["included_deep", "sent"]].concat()).await;
        store.save_slots(vec![(None, slot(1, 0, &[1]))]).await.unwrap();
        drop(store);

        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.unfinished(None, 10).await, Ok(vec![watched.clone()]));
        assert_eq!(store.response(watched.id).await, Ok(Some(response(b"sunny"))));
        assert_eq!(store.slots_of(watched.id).await.unwrap()[0].slot, slot(1, 0, &[1]));
        let again = new_claim(&Like { key: 1, ..like(3) }, None);
        assert_eq!(store.claim(again).await, Ok(Claimed::Taken(Box::new(watched.clone()))));
        // Balances go on from where they were.
        store.commit(commit_of(&watched, "included_deep", 1, at(9))).await.unwrap();
        let check = store.check_books().await.unwrap();
        assert_eq!((check.payments, check.problems), (2, vec![]));
    });
}

#[test]
fn exposure_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    run(async {
        let owed = |id| Like { flow: farthing_payment::Flow::Background, ..like(id) };
        let limit = || Some(farthing_engine::ExposureLimit { per_payer: 1500, total: 1500 });
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.claim(new_claim(&owed(1), limit())).await, Ok(Claimed::New));
        drop(store);
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.claim(new_claim(&owed(2), limit())).await, Ok(Claimed::OverExposed));
    });
}

#[test]
fn an_unreadable_row_is_corrupt_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        walk(&store, &like(1), &[]).await;
        let raw = rusqlite::Connection::open(&path).unwrap();
        let good: Vec<u8> = raw.query_row("SELECT terms FROM payments", [], |row| row.get(0)).unwrap();
        let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
        bad.push([&good[..], &[0]].concat());
        bad.push([&[9], &good[1..]].concat());
        for terms in bad {
            raw.execute("UPDATE payments SET terms = ?1", [&terms]).unwrap();
            let answer = store.payment(payment_id(1)).await;
            assert!(matches!(answer, Err(StoreError::Corrupt(_))), "{} bytes: {answer:?}", terms.len());
        }
        raw.execute("UPDATE payments SET terms = ?1, atoms = x'00'", [&good]).unwrap();
        assert!(matches!(store.payment(payment_id(1)).await, Err(StoreError::Corrupt(_))));
    });
}

#[test]
fn one_process_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    let store = SqliteStore::open(&path).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(OpenError::InUse(_))));
    drop(store);
    SqliteStore::open(&path).unwrap();
}

#[test]
fn a_reader_sees_what_the_writer_commits_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    assert!(SqliteStore::open_read_only(&path).is_err(), "there is nothing to read");
    assert!(!path.exists());
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        let reader = SqliteStore::open_read_only(&path).unwrap();
        let claimed = walk(&store, &like(1), &[]).await;
        assert_eq!(reader.payment(claimed.id).await, Ok(Some(claimed.clone())));
        assert!(matches!(reader.claim(new_claim(&like(2), None)).await, Err(StoreError::Down(_))));
        assert!(matches!(reader.erase_responses(at(0)).await, Err(StoreError::Down(_))));
        drop(store);
        assert_eq!(reader.payment(claimed.id).await, Ok(Some(claimed.clone())));
        drop(reader);
        let reader = SqliteStore::open_read_only(&path).unwrap();
        assert_eq!(reader.payment(claimed.id).await, Ok(Some(claimed)));
    });
}

#[test]
fn a_newer_schema_and_a_foreign_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let newer = dir.path().join("newer.db");
    drop(SqliteStore::open(&newer).unwrap());
    let raw = rusqlite::Connection::open(&newer).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    assert!(matches!(SqliteStore::open(&newer), Err(OpenError::Newer { found: 99, .. })));
    assert!(matches!(SqliteStore::open_read_only(&newer), Err(OpenError::Newer { found: 99, .. })));

    let foreign = dir.path().join("foreign.db");
    let raw = rusqlite::Connection::open(&foreign).unwrap();
    raw.execute_batch("CREATE TABLE payments (id)").unwrap();
    drop(raw);
    assert!(matches!(SqliteStore::open(&foreign), Err(OpenError::Foreign(_))));

    let text = dir.path().join("text.db");
    std::fs::write(&text, "this is no database, but long enough to be read as one".repeat(100)).unwrap();
    assert!(matches!(SqliteStore::open(&text), Err(OpenError::Sqlite { .. })));
    assert!(matches!(SqliteStore::open(dir.path()), Err(OpenError::Sqlite { .. })));
}

#[test]
fn an_erased_body_is_gone_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    let secret = b"a secret answer that nobody may find again".repeat(300);
    let found = |path: &Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(42).any(|window| window == &secret[..42])
    };
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        let payment = walk(&store, &like(1), &["funds_confirmed", "call_started"]).await;
        let stored =
            Commit { response: Some(response(&secret)), ..commit_of(&payment, "call_stored", 1, at(3)) };
        let mut payment = stored.step.next.clone();
        store.commit(stored).await.unwrap();
        for name in ["attempt_started", "included_deep"] {
            let commit = commit_of(&payment, name, 1, at(4));
            payment = commit.step.next.clone();
            store.commit(commit).await.unwrap();
        }
        let log = dir.path().join("books.db-wal");
        assert!(found(&path) || found(&log), "the test looks in the wrong place");
        assert_eq!(store.erase_responses(at(5)).await, Ok(1));
        assert!(!found(&path) && !found(&log));
    });
    assert!(!found(&path));
}

#[test]
fn a_full_queue_is_busy_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    run(async {
        let store = Arc::new(SqliteStore::open(&path).unwrap());
        // The writer cannot go on while somebody else holds SQLite's own lock.
        let raw = rusqlite::Connection::open(&path).unwrap();
        raw.execute_batch("BEGIN IMMEDIATE").unwrap();
        let claims: u64 = farthing_store::QUEUE_LEN as u64 + 2000;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for id in 0..claims {
            let (store, tell) = (Arc::clone(&store), tell.clone());
            tokio::spawn(async move {
                tell.send(store.claim(new_claim(&like(id), None)).await).unwrap();
            });
        }
        drop(tell);
        let mut held = Some(raw);
        let (mut new, mut busy, mut down) = (0u64, 0u64, 0u64);
        while let Some(answer) = told.recv().await {
            match answer {
                Ok(claimed) => {
                    assert_eq!(claimed, Claimed::New);
                    new += 1;
                }
                Err(StoreError::Busy) => {
                    busy += 1;
                    drop(held.take());
                }
                Err(StoreError::Down(_)) => down += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(new + busy + down, claims);
        assert!(busy > 0 && new > 0);
        let check = store.check_books().await.unwrap();
        assert_eq!((check.payments, check.problems), (new, vec![]));
    });
}

#[test]
fn a_disk_that_is_full_is_down_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    let told = with_child("claims_until_refused", &path, Some(2000), |child, lines| {
        let told: Vec<String> = lines.collect();
        assert!(child.wait().unwrap().success(), "{told:?}");
        told
    });
    let acknowledged: BTreeSet<String> =
        told.iter().filter_map(|line| line.strip_prefix("claimed ")).map(str::to_owned).collect();
    let refused: BTreeSet<String> =
        told.iter().filter_map(|line| line.strip_prefix("down ")).map(str::to_owned).collect();
    assert!(!acknowledged.is_empty() && !refused.is_empty(), "{told:?}");
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        let kept = all_ids(&store).await;
        assert!(acknowledged.is_subset(&kept));
        // `Down` says that nothing was changed, and that must be the last word.
        assert_eq!(kept.intersection(&refused).next(), None);
        assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    let mut acknowledged = BTreeSet::new();
    for round in 1..=3 {
        let told = with_child("claims_for_ever", &path, None, |child, lines| {
            let mut told = BTreeSet::new();
            for line in lines {
                if let Some(id) = line.strip_prefix("claimed ") {
                    told.insert(id.to_owned());
                }
                if told.len() == 400 * round {
                    // SIGKILL: whatever it is doing now is half done. What it said before is still in the pipe.
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
            told
        });
        assert!(told.len() >= 400 * round);
        acknowledged.extend(told);
        run(async {
            let store = SqliteStore::open(&path).unwrap();
            let kept = all_ids(&store).await;
            assert_eq!(acknowledged.difference(&kept).next(), None);
            let check = store.check_books().await.unwrap();
            assert_eq!((check.payments, check.problems), (kept.len() as u64, vec![]));
        });
    }
}

async fn all_ids(store: &SqliteStore) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.payments(PaymentFilter { after, ..PaymentFilter::default() }).await.unwrap();
        let Some(last) = page.last() else { return ids };
        after = Some(last.id);
        ids.extend(page.iter().map(|payment| payment.id.to_string()));
    }
}

/// Runs one of the tests below as a process of its own, with at most so many KiB in any file it writes.
fn with_child<T>(
    name: &str,
    path: &Path,
    file_kib: Option<u32>,
    with: impl FnOnce(&mut Child, &mut dyn Iterator<Item = String>) -> T,
) -> T {
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    // A write beyond the limit fails like one on a full disk, if the signal is ignored. The unit is 512 bytes.
    let limit = file_kib.map(|kib| format!("trap '' XFSZ; ulimit -f {};", kib * 2)).unwrap_or_default();
    command
        .args(["-c", &format!("{limit} exec \"$0\" --ignored --exact \"$1\" --nocapture --test-threads 1")])
        .arg(test)
        .arg(name)
        .env("FARTHING_TEST_STORE", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let answer = with(&mut child, &mut lines);
    let _ = child.kill();
    let _ = child.wait();
    answer
}

fn child_path() -> std::path::PathBuf {
    std::env::var_os("FARTHING_TEST_STORE").expect("started by another test").into()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

fn new_id() -> u64 {
    // Across rounds no id comes again.
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[test]
#[ignore = "what_was_acknowledged_survives_a_kill runs it as its child"]
fn claims_for_ever() {
    run(async {
        let store = Arc::new(SqliteStore::open(&child_path()).unwrap());
        for _ in 0..32 {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                while let Ok(id) = claim_one(&store, new_id()).await {
                    say(&format!("claimed {id}"));
                }
                std::process::exit(1);
            });
        }
        std::future::pending::<()>().await;
    });
}

#[test]
#[ignore = "a_disk_that_is_full_is_down_and_recovers runs it as its child"]
fn claims_until_refused() {
    run(async {
        let store = SqliteStore::open(&child_path()).unwrap();
        let mut refused = 0;
        while refused < 5 {
            let id = new_id();
            match claim_one(&store, id).await {
                Ok(id) => say(&format!("claimed {id}")),
                Err(StoreError::Down(_)) => {
                    say(&format!("down {}", payment_id(id)));
                    refused += 1;
                }
                Err(StoreError::Unknown(_)) => {
                    say(&format!("unknown {}", payment_id(id)));
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    });
}

async fn claim_one(store: &SqliteStore, id: u64) -> Result<PaymentId, StoreError> {
    assert_eq!(store.claim(new_claim(&like(id), None)).await?, Claimed::New);
    Ok(payment_id(id))
}
