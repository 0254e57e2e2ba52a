//! A copy that was taken while the store ran is the store of one moment, or is not called a backup.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use farthing_engine::{Claimed, PaymentFilter, Store};
use farthing_store::{BackupError, OpenError, SqliteStore, Stage, back_up, restore};

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(work)
}

const SOLD: [&str; 6] =
    ["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep", "sent"];

fn quiet(_: Stage) {}

async fn ids(path: &Path) -> BTreeSet<String> {
    let store = SqliteStore::open_read_only(path).unwrap();
    let mut ids = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.payments(PaymentFilter { after, ..PaymentFilter::default() }).await.unwrap();
        let Some(last) = page.last() else { return ids };
        after = Some(last.id);
        ids.extend(page.iter().map(|payment| payment.id.to_string()));
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_backup_under_load_has_what_was_answered_before_it_began_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("books.db"), dir.path().join("copy.db"));
    run(async {
        let store = Arc::new(SqliteStore::open(&path).unwrap());
        // Enough that the copy takes several steps, wherever its log was when it began.
        for id in 0..600 {
            walk(&*store, &like(id), &SOLD).await;
        }
        let (next, stop) = (Arc::new(AtomicU64::new(10_000)), Arc::new(AtomicU64::new(0)));
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let (store, next, stop) = (Arc::clone(&store), Arc::clone(&next), Arc::clone(&stop));
                tokio::spawn(async move {
                    while stop.load(Ordering::Relaxed) == 0 {
                        let id = next.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(store.claim(new_claim(&like(id), None)).await, Ok(Claimed::New));
                    }
                })
            })
            .collect();
        while next.load(Ordering::Relaxed) < 10_100 {
            tokio::task::yield_now().await;
        }
        let before = ids(&path).await;
        let (from, to) = (path.clone(), copy.clone());
        let counter = Arc::clone(&next);
        let (checked, during) = tokio::task::spawn_blocking(move || {
            let mut during = 0;
            let began = counter.load(Ordering::Relaxed);
            let checked = back_up(&from, &to, &mut |stage| {
                if let Stage::Copying { pages, of } = stage {
                    assert!(pages <= of);
                    // The writers go on in the middle of the copy.
                    let from = counter.load(Ordering::Relaxed);
                    while counter.load(Ordering::Relaxed) < from + 20 {
                        std::thread::yield_now();
                    }
                    during = counter.load(Ordering::Relaxed) - began;
                }
            });
            (checked.unwrap(), during)
        })
        .await
        .unwrap();
        stop.store(1, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(during >= 40, "{during} claims while it was copied");
        let copied = ids(&copy).await;
        assert!(before.is_subset(&copied) && copied.is_subset(&ids(&path).await));
        assert_eq!((checked.payments, checked.problems.len()), (copied.len() as u64, 0));
        assert!(copied.len() < ids(&path).await.len(), "the copy is of one moment");
        assert!(store.check_books().await.unwrap().problems.is_empty());
    });
    let files = names(dir.path());
    assert!(files.contains("copy.db") && !files.iter().any(|name| name.starts_with("copy.db.")), "{files:?}");
}

#[test]
fn a_backup_overwrites_nothing_and_a_broken_store_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("books.db"), dir.path().join("copy.db"));
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        walk(&store, &like(1), &SOLD).await;
        std::fs::write(&copy, b"somebody's file").unwrap();
        assert!(matches!(back_up(&path, &copy, &mut quiet), Err(BackupError::Exists(_))));
        assert_eq!(std::fs::read(&copy).unwrap(), b"somebody's file");
        std::fs::remove_file(&copy).unwrap();
        let part = dir.path().join("copy.db.part");
        std::fs::write(&part, b"another backup").unwrap();
        assert!(matches!(back_up(&path, &copy, &mut quiet), Err(BackupError::InTheWay(_))));
        assert_eq!(std::fs::read(&part).unwrap(), b"another backup");
        std::fs::remove_file(&part).unwrap();

        let raw = rusqlite::Connection::open(&path).unwrap();
        raw.execute("UPDATE balances SET debits_posted = zeroblob(16) WHERE kind = 'treasury'", []).unwrap();
        let error = back_up(&path, &copy, &mut quiet).unwrap_err();
        assert!(matches!(&error, BackupError::Wrong(problems) if !problems.is_empty()), "{error}");
        let missing = back_up(&dir.path().join("nothing.db"), &copy, &mut quiet);
        assert!(matches!(missing, Err(BackupError::Open(_))));
    });
    assert!(!names(dir.path()).iter().any(|name| name.starts_with("copy")), "{:?}", names(dir.path()));
}

#[test]
fn a_restored_store_is_the_one_that_was_backed_up_and_the_replaced_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("books.db"), dir.path().join("copy.db"));
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        let sold = walk(&store, &like(1), &SOLD).await;
        back_up(&path, &copy, &mut quiet).unwrap();
        walk(&store, &like(2), &SOLD[..2]).await;

        // Nobody's store is replaced under them, and none without being told to.
        assert!(matches!(
            restore(&copy, &path, true, &mut quiet),
            Err(BackupError::Open(OpenError::InUse(_)))
        ));
        drop(store);
        assert!(matches!(restore(&copy, &path, false, &mut quiet), Err(BackupError::Exists(_))));
        assert_eq!(ids(&path).await.len(), 2);

        let restored = restore(&copy, &path, true, &mut quiet).unwrap();
        assert_eq!((restored.checked.payments, restored.checked.newest), (1, Some(sold.updated)));
        let aside = restored.replaced.unwrap();
        assert_eq!((ids(&path).await.len(), ids(&aside).await.len()), (1, 2));
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.payment(sold.id).await, Ok(Some(sold)));
        assert_eq!(store.claim(new_claim(&like(3), None)).await, Ok(Claimed::New));
        assert!(store.check_books().await.unwrap().problems.is_empty());
        drop(store);

        // Where nothing was, nothing is put aside.
        let new = dir.path().join("new.db");
        assert_eq!(restore(&copy, &new, false, &mut quiet).unwrap().replaced, None);
        assert_eq!(ids(&new).await.len(), 1);
    });
}

#[test]
fn a_backup_that_is_not_good_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("books.db"), dir.path().join("copy.db"));
    run(async {
        let store = SqliteStore::open(&path).unwrap();
        walk(&store, &like(1), &SOLD).await;
        back_up(&path, &copy, &mut quiet).unwrap();
        drop(store);
        let refused = |expected: &str| {
            let error = restore(&copy, &path, true, &mut quiet).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let raw = || rusqlite::Connection::open(&copy).unwrap();
        raw().execute("UPDATE transfers SET phase = 'voided' WHERE purpose = 'sale'", []).unwrap();
        refused("the copy is not good");
        raw().pragma_update(None, "user_version", 99).unwrap();
        refused("has schema 99");
        std::fs::write(&copy, b"not a store").unwrap();
        refused("cannot be opened");
        std::fs::remove_file(&copy).unwrap();
        refused("cannot be opened");
        assert!(!copy.exists());
        assert_eq!(ids(&path).await.len(), 1);
    });
    let left = names(dir.path());
    assert!(!left.iter().any(|name| name.contains("restoring") || name.contains("replaced")), "{left:?}");
}

#[test]
fn a_broken_store_is_replaced_with_its_log_and_a_backup_of_an_older_schema_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("books.db"), dir.path().join("copy.db"));
    rusqlite::Connection::open(&copy).unwrap().execute_batch(include_str!("fixtures/schema-1.sql")).unwrap();
    std::fs::write(&path, b"what a broken disk left of it").unwrap();
    let log = dir.path().join("books.db-wal");
    std::fs::write(&log, b"and of its log").unwrap();
    let restored = restore(&copy, &path, true, &mut quiet).unwrap();
    assert_eq!(restored.checked.payments, 10);
    let aside = restored.replaced.unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), b"what a broken disk left of it");
    let mut aside_log = aside.into_os_string();
    aside_log.push("-wal");
    assert!(Path::new(&aside_log).exists() && !log.exists());
    run(async { assert_eq!(ids(&path).await.len(), 10) });
}
