//! What no caller of ours does, and no caller ever shall get away with. Against the model and against SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use farthing_engine::{Claimed, Commit, Store, StoreError};
use farthing_payment::{Flow, Payment, State, Step};
use farthing_primitives::Money;
use farthing_store::{MemoryStore, SqliteStore};

fn stores(dir: &tempfile::TempDir) -> [Box<dyn Store>; 2] {
    let sqlite = SqliteStore::open(&dir.path().join("books.db")).unwrap();
    [Box::new(MemoryStore::new()), Box::new(sqlite)]
}

/// A change that no step makes: a released payment goes on as if it still held its key.
fn taken_back(refused: &Payment) -> Commit {
    let next = Payment { state: State::Claimed, version: refused.version + 1, ..refused.clone() };
    let step = Step { expected: refused.version, next, entries: Vec::new() };
    Commit::new(step, "taken_back")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_key_is_not_taken_back_from_whom_it_belongs_to_now() {
    let dir = tempfile::tempdir().unwrap();
    for store in stores(&dir) {
        let refused = walk(&*store, &like(1), &["funds_refused"]).await;
        let second = new_claim(&Like { key: 1, ..like(2) }, None);
        assert_eq!(store.claim(second.clone()).await, Ok(Claimed::New));
        assert_eq!(store.commit(taken_back(&refused)).await, Err(StoreError::Conflict));
        assert_eq!(store.payment(refused.id).await, Ok(Some(refused)));
        assert_eq!(store.holder(&key(1)).await, Ok(Some(second.payment)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_key_that_nobody_took_may_be_taken_back_and_is_held_then() {
    let dir = tempfile::tempdir().unwrap();
    for store in stores(&dir) {
        let refused = walk(&*store, &like(1), &["funds_refused"]).await;
        let change = taken_back(&refused);
        let next = change.step.next.clone();
        assert_eq!(store.commit(change).await, Ok(()));
        assert_eq!(store.holder(&key(1)).await, Ok(Some(next.clone())));
        let second = new_claim(&Like { key: 1, ..like(2) }, None);
        assert_eq!(store.claim(second).await, Ok(Claimed::Taken(Box::new(next))));
    }
}

/// Many a caller changes what it released: that is no concern of whoever holds the key now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_payment_may_change_whoever_holds_its_key() {
    let dir = tempfile::tempdir().unwrap();
    for store in stores(&dir) {
        let refused = walk(&*store, &like(1), &["funds_refused"]).await;
        let second = new_claim(&Like { key: 1, ..like(2) }, None);
        assert_eq!(store.claim(second.clone()).await, Ok(Claimed::New));
        let mut change = taken_back(&refused);
        change.step.next.state = refused.state.clone();
        assert_eq!(store.commit(change).await, Ok(()));
        assert_eq!(store.holder(&key(1)).await, Ok(Some(second.payment)));
    }
}

/// What one payee is owed in one asset is no other's limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposure_is_counted_per_payee_and_asset() {
    let dir = tempfile::tempdir().unwrap();
    for store in stores(&dir) {
        let owed = new_claim(&Like { flow: Flow::Background, ..like(1) }, None);
        let (tenant, terms) = (owed.payment.tenant.clone(), owed.payment.terms.clone());
        assert_eq!(store.claim(owed).await, Ok(Claimed::New));
        let (asset, elsewhere) = (terms.money.asset(), gas());
        for (payer, payee, asset, of_payer, of_all) in [
            (&terms.payer, &terms.payee, asset, 1000, 1000),
            (&address(0x77), &terms.payee, asset, 0, 1000),
            (&terms.payer, &address(0x66), asset, 0, 0),
            (&terms.payer, &terms.payee, &elsewhere, 0, 0),
        ] {
            let expected = (Money::new(asset.clone(), of_payer), Money::new(asset.clone(), of_all));
            assert_eq!(store.exposure(&tenant, payer, payee, asset).await, Ok(expected));
        }
    }
}
