//! `farthing ledger` as an operator calls it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../store/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::process::Command;

use common::*;
use farthing_engine::{Commit, Store};
use farthing_store::SqliteStore;
use serde_json::Value;

const SOLD: [&str; 6] =
    ["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep", "sent"];

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

fn ledger(args: &[&str], store: &Path) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farthing"));
    let said = command.arg("ledger").args(args).arg("--store").arg(store).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: said.status.code().unwrap(), out: text(said.stdout), err: text(said.stderr) }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

async fn fill(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).unwrap();
    let paid = walk(&store, &like(1), &SOLD[..4]).await;
    let mut commit: Commit = commit_of(&paid, "included_deep", 1, at(5));
    commit.slots = vec![(None, slot(1, 0, &[1]))];
    store.commit(commit).await.unwrap();
    walk(&store, &like(5), &[&SOLD[..5], &["reorged", "included", "included_deep"]].concat()).await;
    walk(&store, &like(4), &[&SOLD[..], &["refund_started", "refund_included"]].concat()).await;
    store
}

#[test]
fn a_store_in_use_is_checked_backed_up_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("books.db"), dir.path().join("copy.db"));
    let copy_name = copy.to_str().unwrap();
    run(async {
        let store = fill(&path).await;
        let checked = ledger(&["check"], &path);
        assert_eq!(checked.code, 0, "{}", checked.err);
        let checked = checked.json();
        assert_eq!((&checked["sound"], &checked["payments"]), (&Value::from(true), &Value::from(3)));
        assert_eq!(checked["replayed"], 3);

        let backed_up = ledger(&["backup", copy_name], &path);
        assert_eq!((backed_up.code, &backed_up.json()["checked"]["sound"]), (0, &Value::from(true)));
        let again = ledger(&["backup", copy_name], &path);
        assert!(again.code == 1 && again.err.contains("is there already"), "{}", again.err);
        assert_eq!(ledger(&["check"], &copy).json()["payments"], 3);

        walk(&store, &like(7), &SOLD[..1]).await;
        let in_use = ledger(&["restore", copy_name, "--replace"], &path);
        assert!(in_use.code == 1 && in_use.err.contains("open for writing"), "{}", in_use.err);
        drop(store);
        let unasked = ledger(&["restore", copy_name], &path);
        assert!(unasked.code == 2 && unasked.err.contains("--replace"), "{}", unasked.err);
        assert_eq!(ledger(&["check"], &path).json()["payments"], 4);
        let restored = ledger(&["restore", copy_name, "--replace"], &path);
        assert_eq!(restored.code, 0, "{}", restored.err);
        let aside = restored.json()["replaced"].as_str().unwrap().to_owned();
        assert_eq!(ledger(&["check"], &path).json()["payments"], 3);
        assert_eq!(ledger(&["check"], Path::new(&aside)).json()["payments"], 4);
    });
}

#[test]
fn a_tampered_store_fails_the_check_and_has_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("books.db"), dir.path().join("copy.db"));
    run(async { drop(fill(&path).await) });
    // What the payments bought, as text in their rows.
    let mut bytes = std::fs::read(&path).unwrap();
    let mut damaged = 0;
    while let Some(at) = bytes.windows(6).position(|window| window == b"Lisbon") {
        bytes[at] = b'l';
        damaged += 1;
    }
    assert!(damaged >= 3);
    std::fs::write(&path, bytes).unwrap();
    let checked = ledger(&["check"], &path);
    let problems = checked.json()["problems"].as_array().unwrap().len();
    assert!(checked.code == 1 && problems > 0, "{}{}", checked.out, checked.err);
    let backed_up = ledger(&["backup", copy.to_str().unwrap()], &path);
    assert!(backed_up.code == 1 && backed_up.err.contains("PROBLEM"), "{}", backed_up.err);
    assert!(!copy.exists());
    let missing = ledger(&["check"], &dir.path().join("nothing.db"));
    assert!(missing.code == 1 && missing.err.contains("cannot be opened"), "{}", missing.err);
}

#[test]
fn the_story_of_a_payment_has_times_causes_transactions_and_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    run(async { drop(fill(&path).await) });
    let show = |n| ledger(&["show", &payment_id(n).to_string()], &path);
    let sold = show(1);
    assert_eq!(sold.code, 0, "{}", sold.err);
    let sold = sold.json();
    assert_eq!(sold["state"], "settled");
    assert_eq!(sold["answer"]["status"], 200);
    assert_eq!(sold["attempts"][0]["variants"][0]["max_fee_wei"], "18446744073709551620");
    let history = sold["history"].as_array().unwrap();
    let events: Vec<&str> = history.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(
        events,
        ["claimed", "funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep"]
    );
    assert_eq!(history[5]["at"], "2023-11-14T22:13:25.000Z");
    assert_eq!(history[5]["told"][0]["who"], "chain");
    let settled = history[5]["told"][0]["what"].as_str().unwrap();
    assert!(settled.contains("block 101") && settled.contains("21000 wei"), "{settled}");
    let entries: Vec<&str> =
        history[5]["entries"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(entries.len(), 3, "{entries:?}");
    assert!(entries[0].starts_with("sale posted: receivable ← revenue 1000 atoms of eip155:84532/erc20:"));
    assert!(entries[2].starts_with("gas posted: gas ← relayer 21000 wei"), "{entries:?}");

    let reorged = show(5).json();
    let line = reorged["history"].as_array().unwrap().iter().find(|line| line["event"] == "reorged").unwrap();
    assert_eq!((&line["told"][0]["who"], &line["round"]), (&Value::from("chain"), &Value::from(1)));
    assert!(
        line["entries"]
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry.as_str().unwrap().starts_with("reversal"))
    );
    let refunded = show(4).json();
    let told: Vec<&str> =
        refunded["history"].as_array().unwrap().iter().filter_map(|l| l["told"][0]["who"].as_str()).collect();
    assert!(told.contains(&"operator"), "{told:?}");

    let unknown = show(99);
    assert!(unknown.code == 1 && unknown.err.contains("there is no payment"), "{}", unknown.err);
}
