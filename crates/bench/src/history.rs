//! Books with millions of payments, and whether they are right.

use std::path::Path;

use farthing_engine::Store;
use farthing_store::{SqliteStore, bulk};
use serde::Serialize;

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Bulk(#[from] bulk::BulkError),
    #[error("the store cannot be opened: {0}")]
    Open(#[from] farthing_store::OpenError),
    #[error("the books do not balance: {0:?}")]
    Books(Vec<String>),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What the books hold afterwards.
#[derive(Debug, Serialize)]
pub struct Grown {
    pub payments: u64,
    pub bytes: u64,
    pub bytes_each: u64,
}

/// Makes the books at `path` hold at least `wanted` payments. `checked` runs the store's own check at the end.
pub fn grow(path: &Path, wanted: u64, checked: bool) -> Result<Grown, HistoryError> {
    let payments = bulk::multiply(path, wanted, |_, _| {})?;
    if checked {
        check(path, payments)?;
    }
    let bytes = std::fs::metadata(path)?.len();
    Ok(Grown { payments, bytes, bytes_each: bytes / payments.max(1) })
}

fn check(path: &Path, payments: u64) -> Result<(), HistoryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let store = SqliteStore::open(path)?;
    let found = runtime.block_on(store.check_books());
    match found {
        Ok(found) if found.payments == payments && found.problems.is_empty() => Ok(()),
        Ok(found) => Err(HistoryError::Books(found.problems)),
        Err(error) => Err(HistoryError::Books(vec![error.to_string()])),
    }
}

#[cfg(test)]
#[path = "../../store/tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_settled_payment_are_payments_to_the_stores_own_check() {
        use super::common::*;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books.db");
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let store = SqliteStore::open(&path).unwrap();
            let names = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
            let paid = walk(&store, &Like { key: 77, ..like(1) }, &names).await;
            let commit = farthing_engine::Commit {
                slots: vec![(None, slot(1, 0, &[1]))],
                ..commit_of(&paid, "included_deep", 1, at(5))
            };
            store.commit(commit).await.unwrap();
        });
        let grown = grow(&path, 2500, true).unwrap();
        assert!(grown.payments == 2500 && grown.bytes_each > 500, "{grown:?}");
    }

    #[test]
    fn books_with_nothing_settled_cannot_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books.db");
        assert!(matches!(grow(&path, 10, true), Err(HistoryError::Bulk(bulk::BulkError::Unfit(_)))));
    }
}
