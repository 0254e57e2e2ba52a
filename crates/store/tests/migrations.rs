//! Every schema that ever was can be opened, and nothing is lost or changed on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::*;
use farthing_engine::{Claimed, PaymentFilter, Store, StoredResponse};
use farthing_faultdisk::{Crash, Disk, Fault};
use farthing_payment::Payment;
use farthing_store::{OpenError, SqliteStore};

/// Each schema before the present one, as a dump of a store that the code of its time wrote.
const RELEASED: [&str; 4] = [
    include_str!("fixtures/schema-1.sql"),
    include_str!("fixtures/schema-2.sql"),
    include_str!("fixtures/schema-3.sql"),
    include_str!("fixtures/schema-4.sql"),
];

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn make(dump: &str, path: &Path) {
    rusqlite::Connection::open(path).unwrap().execute_batch(dump).unwrap();
}

fn version(path: &Path) -> usize {
    let raw = rusqlite::Connection::open(path).unwrap();
    raw.pragma_query_value(None, "user_version", |row| row.get::<_, u16>(0)).unwrap().into()
}

/// What the fixtures hold, whatever the schema.
async fn verify(store: &SqliteStore) {
    let checked = store.check(|_, _| {}).await.unwrap();
    assert_eq!(checked.problems, Vec::<String>::new());
    assert_eq!((checked.payments, checked.transfers, checked.accounts), (10, 27, 11));
    assert_eq!((checked.credits, checked.slots, checked.responses), (4, 3, 4));
    let payments = store.payments(PaymentFilter::default()).await.unwrap();
    let names: Vec<&str> = payments.iter().map(|payment| payment.state.name()).collect();
    let expected = [
        "settled", "funded", "refused", "refunded", "settled", "claimed", "failed", "funded", "settled",
        "lapsing",
    ];
    assert_eq!(names, expected);
    for payment in &payments {
        let claimed = new_claim(&Like { key: 1, ..like(1) }, None).payment;
        assert_eq!(payment.binding, claimed.binding);
        assert_eq!(store.holder(&payment.key).await.unwrap().is_some(), !payment.releases_claim());
        let history = store.history(payment.id).await.unwrap();
        assert_eq!(
            history.last().map(|(version, _, at)| (*version, *at)),
            Some((payment.version, payment.updated))
        );
        let story = store.story(payment.id).await.unwrap().unwrap();
        assert_eq!(story.chapters.len() + 1, history.len());
    }
    assert!(payments[7].terms.money.atoms() >= 1_000_000_000_000_000_000_000);
    assert_eq!(payments[8].tenant.as_str(), "other");
    let answer: StoredResponse = response(b"sunny");
    assert_eq!(store.response(payments[0].id).await.unwrap(), Some(answer));
    assert_eq!(store.slots_of(payments[0].id).await.unwrap()[0].slot, slot(1, 0, &[1]));
}

#[test]
fn every_released_schema_opens_and_derives_again() {
    for (version_was, dump) in (1..).zip(RELEASED) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books.db");
        make(dump, &path);
        assert_eq!(version(&path), version_was);
        // A reader migrates nothing.
        assert!(matches!(SqliteStore::open_read_only(&path), Err(OpenError::Older { .. })));
        assert_eq!(version(&path), version_was);
        run(async {
            let store = SqliteStore::open(&path).unwrap();
            verify(&store).await;
            // Life goes on: old payments go their way, and new ones come.
            let funded = store.payment(payment_id(2)).await.unwrap().unwrap();
            let mut payment: Payment = funded;
            for (second, name) in (20..).zip(["attempt_started", "included_deep", "sent"]) {
                let commit = commit_of(&payment, name, 2, at(second));
                payment = commit.step.next.clone();
                store.commit(commit).await.unwrap();
            }
            assert_eq!(store.claim(new_claim(&like(11), None)).await, Ok(Claimed::New));
            let taken = store.claim(new_claim(&Like { key: 1, ..like(12) }, None)).await.unwrap();
            assert!(matches!(taken, Claimed::Taken(_)));
            let checked = store.check(|_, _| {}).await.unwrap();
            assert_eq!((checked.payments, checked.problems), (11, vec![]));
            let story = store.story(payment.id).await.unwrap().unwrap();
            // The first schema kept no causes.
            assert_eq!(story.whole, version_was > 1);
            assert_eq!(story.chapters.last().unwrap().events.len(), 1);
            // What was refused before anybody thought of forgetting is forgotten as well.
            assert_eq!(store.forget_refused(at(0)).await, Ok(0));
            assert_eq!(store.forget_refused(at(8 * 86_400)).await, Ok(1));
            let checked = store.check(|_, _| {}).await.unwrap();
            assert_eq!((checked.payments, checked.problems), (10, vec![]));
        });
        assert_eq!(version(&path), RELEASED.len() + 1);
        run(async {
            assert!(SqliteStore::open(&path).unwrap().check(|_, _| {}).await.unwrap().problems.is_empty())
        });
    }
}

#[test]
fn every_schema_but_the_present_one_has_a_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.db");
    drop(SqliteStore::open(&path).unwrap());
    assert_eq!(
        version(&path),
        RELEASED.len() + 1,
        "a schema that was released wants a dump in tests/fixtures"
    );
}

#[test]
fn a_migration_that_the_power_cuts_short_is_done_again() {
    let real = tempfile::tempdir().unwrap();
    let mut cuts = 0;
    for (version_was, dump) in RELEASED.iter().enumerate() {
        let path = real.path().join(format!("books-{version_was}.db"));
        make(dump, &path);
        let image = std::fs::read(&path).unwrap();
        for cut in 0..1000 {
            let disk = Disk::new(cut);
            disk.put("books.db", &image);
            disk.inject(Fault::power_cut().after(cut));
            let opened = SqliteStore::open(&disk.path("books.db"));
            let whole = opened.is_ok();
            drop(opened);
            if !disk.is_cut() {
                assert!(whole);
                break;
            }
            cuts += 1;
            disk.heal();
            disk.restart(Crash::Power);
            run(async { verify(&SqliteStore::open(&disk.path("books.db")).unwrap()).await });
        }
    }
    assert!(cuts > 10, "only {cuts} cuts");
}
