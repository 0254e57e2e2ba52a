//! What every store must do. Each test runs against the model and against SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use farthing_engine::{
    Claim, Claimed, Commit, Credit, ExposureLimit, PaymentFilter, Store, StoreError, StoredSlot,
};
use farthing_ledger::{AccountKind, Entry, Phase, Purpose, TransferId};
use farthing_payment::{Flow, Next, Role, SlotState, TxRef};
use farthing_primitives::TenantId;
use farthing_store::{MemoryStore, SqliteStore};

/// Makes a test for each store out of one function.
macro_rules! for_each_store {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(std::sync::Arc::new(super::MemoryStore::new())).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                let store = super::SqliteStore::open(&dir.path().join("books.db")).unwrap();
                super::$name(std::sync::Arc::new(store)).await;
            })*
        }
    };
}

for_each_store! {
    a_claim_is_kept_whole
    a_key_belongs_to_one_payment
    a_hundred_copies_claim_once
    an_early_refusal_frees_the_key
    a_late_refusal_keeps_the_key
    an_id_is_used_once
    a_name_belongs_to_one_payment_of_a_payer
    a_hundred_payments_of_one_name_claim_once
    refused_payments_are_forgotten_and_nothing_else_is
    the_mark_never_goes_back
    a_change_names_the_version_it_follows
    a_change_of_nothing_is_a_conflict
    a_claim_stands_whatever_a_change_says
    a_refused_change_leaves_no_trace
    every_state_is_read_back_as_it_was
    a_transfer_log_counts_once
    a_freed_log_can_be_taken_again
    exposure_is_limited
    exposure_holds_under_concurrency
    exposure_is_counted_per_tenant
    zero_exposure_means_never
    a_taken_key_is_told_before_exposure
    slots_have_versions
    a_nonce_has_one_slot
    slots_are_found
    a_slot_is_closed_with_its_gas_or_not_at_all
    a_refused_slot_refuses_the_change
    history_tells_what_happened
    an_answer_is_kept_until_it_is_erased
    a_second_answer_replaces_the_first
    unfinished_is_what_has_something_left_to_do
    unfinished_is_paged
    settled_payments_are_listed_newest_first
    payments_are_filtered_and_paged
    books_follow_a_sale_and_its_refund
    a_transfer_is_in_the_books_once
    the_books_of_many_claims_add_up
    a_failing_change_spoils_nobody_elses
    amounts_are_not_cut_to_64_bits
    overflowing_books_refuse_the_claim
}

type Shared<S> = Arc<S>;

async fn a_claim_is_kept_whole<S: Store>(store: Shared<S>) {
    let claim = new_claim(&like(1), None);
    assert_eq!(store.claim(claim.clone()).await, Ok(Claimed::New));
    assert_eq!(store.payment(claim.payment.id).await, Ok(Some(claim.payment.clone())));
    assert_eq!(store.holder(&key(1)).await, Ok(Some(claim.payment)));
    assert_eq!(store.payment(payment_id(2)).await, Ok(None));
    assert_eq!(store.holder(&key(2)).await, Ok(None));
}

async fn a_key_belongs_to_one_payment<S: Store>(store: Shared<S>) {
    let first = new_claim(&like(1), None);
    store.claim(first.clone()).await.unwrap();
    let second = new_claim(&Like { key: 1, ..like(2) }, None);
    assert_eq!(store.claim(second).await, Ok(Claimed::Taken(Box::new(first.payment.clone()))));
    assert_eq!(store.payment(payment_id(2)).await, Ok(None));
    assert_eq!(store.transfers_of(payment_id(2)).await, Ok(vec![]));
    // Also for another tenant: the rail consumes it once, whoever asks.
    let third = new_claim(&Like { key: 1, tenant: "other".parse().unwrap(), ..like(3) }, None);
    assert_eq!(store.claim(third).await, Ok(Claimed::Taken(Box::new(first.payment))));
}

async fn a_hundred_copies_claim_once<S: Store + 'static>(store: Shared<S>) {
    let tasks: Vec<_> = (0..100)
        .map(|id| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.claim(new_claim(&Like { key: 7, ..like(id) }, None)).await })
        })
        .collect();
    let mut new = 0;
    let mut holders = Vec::new();
    for task in tasks {
        match task.await.unwrap().unwrap() {
            Claimed::New => new += 1,
            Claimed::Taken(holder) => holders.push(holder.id),
            Claimed::OverExposed | Claimed::Named(_) => panic!("no limit and no name was asked for"),
        }
    }
    holders.dedup();
    assert_eq!((new, holders.len()), (1, 1));
    assert_eq!(store.payments(PaymentFilter::default()).await.unwrap().len(), 1);
    assert_eq!(store.check_books().await.unwrap().transfers, 1);
}

async fn an_early_refusal_frees_the_key<S: Store>(store: Shared<S>) {
    let refused = walk(&*store, &like(1), &["funds_confirmed", "funds_refused"]).await;
    assert!(refused.releases_claim());
    assert_eq!(store.holder(&key(1)).await, Ok(None));
    let again = new_claim(&Like { key: 1, ..like(2) }, None);
    assert_eq!(store.claim(again.clone()).await, Ok(Claimed::New));
    assert_eq!(store.holder(&key(1)).await, Ok(Some(again.payment)));
    assert_eq!(store.payment(payment_id(1)).await, Ok(Some(refused)));
}

async fn a_late_refusal_keeps_the_key<S: Store>(store: Shared<S>) {
    let refused = walk(&*store, &like(1), &["funds_confirmed", "call_started", "call_failed"]).await;
    let again = new_claim(&Like { key: 1, ..like(2) }, None);
    assert_eq!(store.claim(again).await, Ok(Claimed::Taken(Box::new(refused))));
}

fn named(like: &Like, name: &str) -> Claim {
    Claim { name: Some(name.to_owned()), ..new_claim(like, None) }
}

async fn a_name_belongs_to_one_payment_of_a_payer<S: Store>(store: Shared<S>) {
    let first = named(&like(1), "pay_0123456789abcdef");
    assert_eq!(store.claim(first.clone()).await, Ok(Claimed::New));
    // The key says who it is, whatever it is called now.
    let taken = Ok(Claimed::Taken(Box::new(first.payment.clone())));
    assert_eq!(store.claim(named(&Like { key: 1, ..like(2) }, "pay_0123456789abcdef")).await, taken);
    assert_eq!(store.claim(named(&Like { key: 1, ..like(2) }, "pay_another_name_00")).await, taken);
    let other = named(&like(3), "pay_0123456789abcdef");
    assert_eq!(store.claim(other.clone()).await, Ok(Claimed::Named(Box::new(first.payment.clone()))));
    assert_eq!(store.payment(payment_id(3)).await, Ok(None));
    assert_eq!(store.check_books().await.unwrap().transfers, 1, "nothing was booked for it");
    // Other names, none at all, and other tenants are free.
    assert_eq!(store.claim(named(&like(4), "pay_0123456789abcdeg")).await, Ok(Claimed::New));
    assert_eq!(store.claim(new_claim(&like(5), None)).await, Ok(Claimed::New));
    assert_eq!(store.claim(new_claim(&like(6), None)).await, Ok(Claimed::New));
    let theirs = Like { tenant: "other".parse().unwrap(), ..like(7) };
    assert_eq!(store.claim(named(&theirs, "pay_0123456789abcdef")).await, Ok(Claimed::New));
    // Nor does another payer's name take this one, or tell what has it.
    let stranger = named(&Like { payer: 2, ..like(9) }, "pay_0123456789abcdef");
    assert_eq!(store.claim(stranger).await, Ok(Claimed::New));
    // A claim that is given back gives the name back.
    let refused = commit_of(&first.payment, "funds_refused", 1, at(1));
    store.commit(refused).await.unwrap();
    assert_eq!(store.claim(other).await, Ok(Claimed::New));
    let again = named(&Like { key: 1, ..like(8) }, "pay_0123456789abcdef");
    assert!(matches!(store.claim(again).await, Ok(Claimed::Named(holder)) if holder.id == payment_id(3)));
}

async fn a_hundred_payments_of_one_name_claim_once<S: Store + 'static>(store: Shared<S>) {
    let tasks: Vec<_> = (1..=100)
        .map(|id| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.claim(named(&like(id), "pay_0123456789abcdef")).await })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        match task.await.unwrap().unwrap() {
            Claimed::New => new += 1,
            Claimed::Named(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((new, store.payments(PaymentFilter::default()).await.unwrap().len()), (1, 1));
}

async fn refused_payments_are_forgotten_and_nothing_else_is<S: Store>(store: Shared<S>) {
    // Refused at once, at second 1, with nothing held; and after the upstream's failure, with its key held until the
    // authorization ends, at second 60.
    let early = walk(&*store, &like(1), &["funds_refused"]).await;
    let late = walk(&*store, &like(2), &["funds_confirmed", "call_started", "call_failed"]).await;
    assert!(early.releases_claim() && !late.releases_claim());
    // All others stay, however old.
    walk(&*store, &like(3), &[]).await;
    walk(&*store, &like(4), &["funds_confirmed", "call_started", "call_stored", "attempt_started"]).await;
    let served = ["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep"];
    walk(&*store, &like(5), &served).await;
    let again =
        walk(&*store, &like(6), &["funds_confirmed", "call_started", "call_failed", "represented"]).await;
    assert_eq!(again.state.name(), "claimed");
    let before = store.balances(None).await.unwrap();

    assert_eq!(store.forget_refused(at(1)).await, Ok(0));
    assert_eq!(store.forget_refused(at(2)).await, Ok(1));
    assert_eq!(store.payment(early.id).await, Ok(None));
    assert_eq!(store.history(early.id).await, Ok(Vec::new()));
    assert_eq!(store.transfers_of(early.id).await, Ok(Vec::new()));
    assert_eq!(store.forget_refused(at(60)).await, Ok(0));
    assert_eq!(store.holder(&key(2)).await, Ok(Some(late.clone())), "it can still be shown");
    assert_eq!(store.forget_refused(at(61)).await, Ok(1));
    assert_eq!((store.payment(late.id).await, store.holder(&key(2)).await), (Ok(None), Ok(None)));
    assert_eq!(store.forget_refused(at(1 << 30)).await, Ok(0));

    assert_eq!(store.balances(None).await.unwrap(), before);
    let checked = store.check_books().await.unwrap();
    assert_eq!((checked.payments, checked.problems), (4, Vec::new()));
    // A flood is forgotten in small commits.
    for id in 100..300 {
        walk(&*store, &like(id), &["funds_refused"]).await;
    }
    assert_eq!(store.forget_refused(at(2)).await, Ok(200));
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

async fn the_mark_never_goes_back<S: Store>(store: Shared<S>) {
    let id = |secs: u64| farthing_primitives::PaymentId::new(at(secs), [7; 10]);
    let nothing = farthing_primitives::Timestamp::from_millis(0);
    assert_eq!(store.mark().await, Ok(nothing));
    let of = new_claim(&like(1), None).payment;
    let new = farthing_payment::NewPayment {
        id: id(30),
        tenant: of.tenant,
        key: of.key,
        role: of.role,
        flow: of.flow,
        terms: of.terms,
        binding: of.binding,
    };
    let (payment, entries) = farthing_payment::Payment::claim(new, at(30));
    store.claim(Claim { payment, entries, exposure: None, name: None }).await.unwrap();
    assert_eq!(store.mark().await, Ok(at(30)), "the newest payment was made then");
    assert_eq!(settle_with(&*store, 2, None).await, Ok(()));
    let settled = store.payment(payment_id(2)).await.unwrap().unwrap().updated;
    assert_eq!(store.mark().await, Ok(settled.max(at(30))));
    let sent = commit_of(&store.payment(payment_id(2)).await.unwrap().unwrap(), "sent", 2, at(500));
    store.commit(sent).await.unwrap();
    assert_eq!(store.mark().await, Ok(at(500)), "a payment that is settled changed then");
}

async fn an_id_is_used_once<S: Store>(store: Shared<S>) {
    store.claim(new_claim(&like(1), None)).await.unwrap();
    let other_key = new_claim(&Like { key: 2, ..like(1) }, None);
    assert_eq!(store.claim(other_key).await, Err(StoreError::Conflict));
    let mut not_new = new_claim(&like(2), None);
    not_new.payment.version = 1;
    assert_eq!(store.claim(not_new).await, Err(StoreError::Conflict));
    assert_eq!(store.holder(&key(2)).await, Ok(None));
}

async fn a_change_names_the_version_it_follows<S: Store>(store: Shared<S>) {
    let claimed = walk(&*store, &like(1), &[]).await;
    let change = commit_of(&claimed, "funds_confirmed", 1, at(1));
    assert_eq!(store.commit(change.clone()).await, Ok(()));
    assert_eq!(store.commit(change.clone()).await, Err(StoreError::Conflict));
    let ahead = commit_of(&change.step.next, "call_started", 1, at(2));
    assert_eq!(store.commit(ahead.clone()).await, Ok(()));
    assert_eq!(store.payment(payment_id(1)).await, Ok(Some(ahead.step.next)));
}

async fn a_change_of_nothing_is_a_conflict<S: Store>(store: Shared<S>) {
    let never_claimed = new_claim(&like(1), None).payment;
    let change = commit_of(&never_claimed, "funds_confirmed", 1, at(1));
    assert_eq!(store.commit(change).await, Err(StoreError::Conflict));
}

async fn a_claim_stands_whatever_a_change_says<S: Store>(store: Shared<S>) {
    let claimed = walk(&*store, &like(1), &[]).await;
    let mut change = commit_of(&claimed, "funds_confirmed", 1, at(1));
    let honest = change.step.next.clone();
    change.step.next.terms.payee = address(0x66);
    change.step.next.binding.resource = "/dear".to_owned();
    change.step.next.key = key(2);
    change.step.next.created = at(9);
    assert_eq!(store.commit(change).await, Ok(()));
    assert_eq!(store.payment(payment_id(1)).await, Ok(Some(honest)));
}

async fn a_refused_change_leaves_no_trace<S: Store>(store: Shared<S>) {
    let claimed = walk(&*store, &like(1), &[]).await;
    let mut change = commit_of(&claimed, "funds_confirmed", 1, at(1));
    change.response = Some(response(b"sunny"));
    change.slots = vec![(None, slot(1, 0, &[1]))];
    change.credit = Some(Credit::Take { network: network(), tx: "0x01".to_owned(), log_index: 1 });
    let id = claimed_sale(&claimed);
    change.step.entries = vec![Entry::Void { id }, Entry::Post { id }];
    assert!(matches!(store.commit(change.clone()).await, Err(StoreError::Books(_))));
    assert_eq!(store.payment(payment_id(1)).await, Ok(Some(claimed.clone())));
    assert_eq!(store.response(payment_id(1)).await, Ok(None));
    assert_eq!(store.slot(slot_id(1)).await, Ok(None));
    assert_eq!(store.slots_of(payment_id(1)).await, Ok(vec![]));
    assert_eq!(store.history(payment_id(1)).await.unwrap().len(), 1);
    assert_eq!(store.transfers_of(payment_id(1)).await.unwrap()[0].2, Phase::Pending);
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
    // And the log is still free.
    change.step.entries.clear();
    assert_eq!(store.commit(change).await, Ok(()));
}

fn claimed_sale(payment: &farthing_payment::Payment) -> farthing_ledger::TransferId {
    farthing_ledger::TransferId { payment: payment.id, round: payment.round, purpose: Purpose::Sale }
}

async fn every_state_is_read_back_as_it_was<S: Store>(store: Shared<S>) {
    let served = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    let tails: [&[&str]; 12] = [
        &[],
        &["attempt_dropped"],
        &["included"],
        &["included", "reorged"],
        &["included_deep"],
        &["included_deep", "sent", "reorged"],
        &["reverted"],
        &["unclear"],
        &["unclear", "dead"],
        &["included_deep", "refund_started"],
        &["included_deep", "refund_started", "refund_dropped"],
        &["included_deep", "refund_started", "refund_included"],
    ];
    for (id, tail) in (1..).zip(tails) {
        let payment = walk(&*store, &like(id), &[&served[..], tail].concat()).await;
        assert_eq!(store.payment(payment.id).await, Ok(Some(payment)), "{tail:?}");
    }
    let early: [&[&str]; 4] = [
        &["funds_confirmed"],
        &["funds_refused"],
        &["funds_confirmed", "call_started", "call_lost"],
        &["funds_confirmed", "call_started", "call_failed", "represented"],
    ];
    for (id, names) in (100..).zip(early) {
        let payment = walk(&*store, &like(id), names).await;
        assert_eq!(store.payment(payment.id).await, Ok(Some(payment)), "{names:?}");
    }
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

fn take(log_index: u64) -> Option<Credit> {
    Some(Credit::Take { network: network(), tx: format!("0x{:064x}", 5), log_index })
}

async fn settle_with<S: Store>(store: &S, id: u64, credit: Option<Credit>) -> Result<(), StoreError> {
    let served = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    let payment = walk(store, &like(id), &served).await;
    store.commit(Commit { credit, ..commit_of(&payment, "included_deep", id, at(9)) }).await
}

async fn a_transfer_log_counts_once<S: Store>(store: Shared<S>) {
    assert_eq!(settle_with(&*store, 1, take(0)).await, Ok(()));
    assert_eq!(settle_with(&*store, 2, take(0)).await, Err(StoreError::AlreadyCredited));
    assert_eq!(store.payment(payment_id(2)).await.unwrap().unwrap().state.name(), "settling");
    assert_eq!(settle_with(&*store, 3, take(1)).await, Ok(()));
    // The same payment may say it again.
    let settled = store.payment(payment_id(1)).await.unwrap().unwrap();
    let sent = Commit { credit: take(0), ..commit_of(&settled, "sent", 1, at(10)) };
    assert_eq!(store.commit(sent).await, Ok(()));
}

async fn a_freed_log_can_be_taken_again<S: Store>(store: Shared<S>) {
    assert_eq!(settle_with(&*store, 1, take(0)).await, Ok(()));
    let settled = store.payment(payment_id(1)).await.unwrap().unwrap();
    let gone = Commit { credit: Some(Credit::Free), ..commit_of(&settled, "reorged", 1, at(10)) };
    assert_eq!(store.commit(gone).await, Ok(()));
    assert_eq!(settle_with(&*store, 2, take(0)).await, Ok(()));
}

fn limit(per_payer: u128, total: u128) -> Option<ExposureLimit> {
    Some(ExposureLimit { per_payer, total })
}

fn background(id: u64, payer: u8) -> Like {
    Like { payer, flow: Flow::Background, ..like(id) }
}

async fn exposure_is_limited<S: Store>(store: Shared<S>) {
    let limits = || limit(2000, 3000);
    let claim = |id, payer| store.claim(new_claim(&background(id, payer), limits()));
    assert_eq!(claim(1, 1).await, Ok(Claimed::New));
    assert_eq!(claim(2, 1).await, Ok(Claimed::New));
    assert_eq!(claim(3, 1).await, Ok(Claimed::OverExposed));
    assert_eq!(claim(4, 2).await, Ok(Claimed::New));
    assert_eq!(claim(5, 2).await, Ok(Claimed::OverExposed));
    assert_eq!(store.payment(payment_id(3)).await, Ok(None));
    let owed = store.exposure(&TenantId::local(), &address(1), &address(0xbb), &usdc()).await.unwrap();
    assert_eq!((owed.0.atoms(), owed.1.atoms()), (2000, 3000));
    // What is settled or refused is owed no more.
    let mut payment = store.payment(payment_id(1)).await.unwrap().unwrap();
    for name in ["funds_confirmed", "call_started", "sent", "attempt_started", "included_deep"] {
        let commit = commit_of(&payment, name, 1, at(1));
        payment = commit.step.next.clone();
        store.commit(commit).await.unwrap();
    }
    let other = store.payment(payment_id(4)).await.unwrap().unwrap();
    store.commit(commit_of(&other, "funds_refused", 4, at(1))).await.unwrap();
    let owed = store.exposure(&TenantId::local(), &address(1), &address(0xbb), &usdc()).await.unwrap();
    assert_eq!((owed.0.atoms(), owed.1.atoms()), (1000, 1000));
    assert_eq!(claim(5, 2).await, Ok(Claimed::New));
    assert_eq!(claim(6, 1).await, Ok(Claimed::New));
    assert_eq!(claim(7, 3).await, Ok(Claimed::OverExposed));
}

async fn exposure_holds_under_concurrency<S: Store + 'static>(store: Shared<S>) {
    let tasks: Vec<_> = (0..100u8)
        .map(|id| {
            let store = Arc::clone(&store);
            let claim = new_claim(&background(u64::from(id), id % 10), limit(3000, 25_000));
            tokio::spawn(async move { store.claim(claim).await })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += usize::from(task.await.unwrap().unwrap() == Claimed::New);
    }
    assert_eq!(new, 25);
    for payer in 0..10 {
        let owed =
            store.exposure(&TenantId::local(), &address(payer), &address(0xbb), &usdc()).await.unwrap();
        assert!(owed.0.atoms() <= 3000);
        assert_eq!(owed.1.atoms(), 25_000);
    }
}

async fn exposure_is_counted_per_tenant<S: Store>(store: Shared<S>) {
    let other = Like { tenant: "other".parse().unwrap(), ..background(2, 1) };
    assert_eq!(store.claim(new_claim(&background(1, 1), limit(1000, 1000))).await, Ok(Claimed::New));
    assert_eq!(store.claim(new_claim(&other, limit(1000, 1000))).await, Ok(Claimed::New));
}

async fn zero_exposure_means_never<S: Store>(store: Shared<S>) {
    for (id, limit) in [(1, limit(0, 5000)), (2, limit(5000, 0))] {
        let nothing = Like { atoms: 0, ..background(id, 1) };
        assert_eq!(store.claim(new_claim(&nothing, limit)).await, Ok(Claimed::OverExposed));
    }
}

async fn a_taken_key_is_told_before_exposure<S: Store>(store: Shared<S>) {
    let first = new_claim(&background(1, 1), limit(1000, 1000));
    store.claim(first.clone()).await.unwrap();
    let again = new_claim(&Like { key: 1, ..background(2, 1) }, limit(1000, 1000));
    assert_eq!(store.claim(again).await, Ok(Claimed::Taken(Box::new(first.payment))));
}

async fn slots_have_versions<S: Store>(store: Shared<S>) {
    let mut open = slot(1, 0, &[1, 2]);
    assert_eq!(store.save_slots(vec![(Some(0), open.clone())]).await, Err(StoreError::Conflict));
    assert_eq!(store.save_slots(vec![(None, open.clone())]).await, Ok(()));
    assert_eq!(store.save_slots(vec![(None, open.clone())]).await, Err(StoreError::Conflict));
    assert_eq!(store.slot(open.id).await, Ok(Some(StoredSlot { version: 0, slot: open.clone() })));
    open.state = SlotState::Included { tx: TxRef::new("0xab"), block: 7, block_hash: [4; 32] };
    open.variants.push(open.variants[0].clone());
    open.payments.remove(0);
    assert_eq!(store.save_slots(vec![(Some(0), open.clone())]).await, Ok(()));
    assert_eq!(store.save_slots(vec![(Some(0), open.clone())]).await, Err(StoreError::Conflict));
    assert_eq!(store.slot(open.id).await, Ok(Some(StoredSlot { version: 1, slot: open.clone() })));
    assert_eq!(store.slots_of(payment_id(1)).await, Ok(vec![]));
    // Several changes are made together or not at all.
    let both = vec![(None, slot(2, 1, &[])), (Some(0), open.clone())];
    assert_eq!(store.save_slots(both).await, Err(StoreError::Conflict));
    assert_eq!(store.slot(slot_id(2)).await, Ok(None));
    open.state = SlotState::Final { tx: TxRef::new("not hex") };
    assert_eq!(store.save_slots(vec![(Some(1), open.clone())]).await, Ok(()));
    assert_eq!(store.slot(open.id).await, Ok(Some(StoredSlot { version: 2, slot: open })));
}

async fn a_nonce_has_one_slot<S: Store>(store: Shared<S>) {
    store.save_slots(vec![(None, slot(1, 5, &[]))]).await.unwrap();
    assert_eq!(store.save_slots(vec![(None, slot(2, 5, &[]))]).await, Err(StoreError::Conflict));
    let elsewhere = farthing_payment::Slot { relayer: address(0xcd), ..slot(3, 5, &[]) };
    assert_eq!(store.save_slots(vec![(None, elsewhere)]).await, Ok(()));
    // A nonce that was lost to somebody else's transaction may come back with a reorganization.
    let lost = farthing_payment::Slot { state: SlotState::Lost, ..slot(1, 5, &[]) };
    store.save_slots(vec![(Some(0), lost)]).await.unwrap();
    assert_eq!(store.save_slots(vec![(None, slot(2, 5, &[]))]).await, Ok(()));
}

async fn slots_are_found<S: Store>(store: Shared<S>) {
    let relayer = address(0xcc);
    assert_eq!(store.last_nonce(&network(), &relayer).await, Ok(None));
    let done = |id, nonce, state| farthing_payment::Slot { state, ..slot(id, nonce, &[1]) };
    let included = SlotState::Included { tx: TxRef::new("0x01"), block: 1, block_hash: [1; 32] };
    let slots = vec![
        (None, slot(4, 0, &[1])),
        (None, done(3, 1, included)),
        (None, done(2, 2, SlotState::Final { tx: TxRef::new("0x02") })),
        (None, done(1, 3, SlotState::Lost)),
    ];
    store.save_slots(slots).await.unwrap();
    let nonces = |slots: Vec<farthing_engine::StoredSlot>| {
        slots.iter().map(|stored| stored.slot.nonce).collect::<Vec<_>>()
    };
    assert_eq!(nonces(store.live_slots(&network(), &relayer, 0, 9).await.unwrap()), [0, 1]);
    assert_eq!(nonces(store.live_slots(&network(), &relayer, 0, 1).await.unwrap()), [0]);
    assert_eq!(nonces(store.live_slots(&network(), &relayer, 1, 9).await.unwrap()), [1]);
    assert_eq!(store.live_slots(&network(), &address(1), 0, 9).await, Ok(vec![]));
    assert_eq!(nonces(store.open_slots(&network(), &relayer).await.unwrap()), [0]);
    assert_eq!(store.open_slots(&network(), &address(1)).await, Ok(vec![]));
    let at = async |nonce| {
        let found = store.slot_at(&network(), &relayer, nonce).await.unwrap();
        found.map(|stored| stored.slot.id)
    };
    assert_eq!(at(0).await, Some(slot_id(4)));
    assert_eq!(at(2).await, Some(slot_id(2)));
    assert_eq!(at(3).await, None, "lost to somebody else");
    assert_eq!(at(4).await, None);
    assert_eq!(store.last_nonce(&network(), &relayer).await, Ok(Some(3)));
    let of_payment = store.slots_of(payment_id(1)).await.unwrap();
    let ids = of_payment.iter().map(|s| s.slot.id).collect::<Vec<_>>();
    assert_eq!(ids, [1, 2, 3, 4].map(slot_id));
}

async fn a_slot_is_closed_with_its_gas_or_not_at_all<S: Store>(store: Shared<S>) {
    store.save_slots(vec![(None, slot(1, 0, &[])), (None, slot(2, 1, &[]))]).await.unwrap();
    let gas = |id| Entry::Transfer {
        id: TransferId::of_slot(slot_id(id)),
        tenant: TenantId::local(),
        money: farthing_primitives::Money::new(usdc(), 21_000 + u128::from(id)),
    };
    let done = |id, nonce, tx: &str| farthing_payment::Slot {
        state: SlotState::Final { tx: TxRef::new(tx) },
        ..slot(id, nonce, &[])
    };
    let booked = async || {
        let of = async |id| store.transfers_of(TransferId::of_slot(slot_id(id)).payment).await.unwrap().len();
        (of(1).await, of(2).await)
    };
    let tx = |id, nonce| slot(id, nonce, &[]).variants[0].tx.to_string();
    // One of them has another version: nothing is booked.
    let both = vec![(Some(0), done(1, 0, &tx(1, 0))), (Some(7), done(2, 1, &tx(2, 1)))];
    assert_eq!(store.close_slots(both, vec![gas(1), gas(2)]).await, Err(StoreError::Conflict));
    assert_eq!(booked().await, (0, 0));
    assert_eq!(store.open_slots(&network(), &address(0xcc)).await.unwrap().len(), 2);
    let both = vec![(Some(0), done(1, 0, &tx(1, 0))), (Some(0), done(2, 1, &tx(2, 1)))];
    assert_eq!(store.close_slots(both, vec![gas(1), gas(2)]).await, Ok(()));
    assert_eq!(booked().await, (1, 1));
    // It is booked once, and what books it again changes nothing.
    let again = vec![(Some(1), slot(1, 0, &[]))];
    assert!(matches!(store.close_slots(again, vec![gas(1)]).await, Err(StoreError::Books(_))));
    assert_eq!(store.live_slots(&network(), &address(0xcc), 0, 9).await, Ok(vec![]));
    let balances = store.balances(None).await.unwrap();
    let spent = balances.iter().find(|(account, _)| account.kind == AccountKind::Gas);
    assert_eq!(spent.map(|(_, balance)| balance.debits_posted), Some(42_003));
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

async fn a_refused_slot_refuses_the_change<S: Store>(store: Shared<S>) {
    let served = ["funds_confirmed", "call_started", "call_stored"];
    let payment = walk(&*store, &like(1), &served).await;
    store.save_slots(vec![(None, slot(1, 0, &[1]))]).await.unwrap();
    let start = |slots| Commit { slots, ..commit_of(&payment, "attempt_started", 1, at(9)) };
    assert_eq!(store.commit(start(vec![(None, slot(2, 0, &[1]))])).await, Err(StoreError::Conflict));
    assert_eq!(store.payment(payment.id).await, Ok(Some(payment.clone())));
    assert_eq!(store.commit(start(vec![(None, slot(2, 1, &[1]))])).await, Ok(()));
    assert_eq!(store.slots_of(payment.id).await.unwrap().len(), 2);
}

async fn history_tells_what_happened<S: Store>(store: Shared<S>) {
    walk(&*store, &like(1), &["funds_confirmed", "call_started", "call_failed"]).await;
    let told = store.history(payment_id(1)).await.unwrap();
    let expected = [
        (0, "claimed", START),
        (1, "funds_confirmed", at(1)),
        (2, "call_started", at(2)),
        (3, "call_failed", at(3)),
    ];
    assert_eq!(told, expected.map(|(version, event, at)| (version, event.to_owned(), at)));
    assert_eq!(store.history(payment_id(2)).await, Ok(vec![]));
}

async fn an_answer_is_kept_until_it_is_erased<S: Store>(store: Shared<S>) {
    let served = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    walk(&*store, &like(1), &[&served[..], &["included_deep"]].concat()).await;
    walk(&*store, &like(2), &served).await;
    assert_eq!(store.response(payment_id(1)).await, Ok(Some(response(b"sunny"))));
    // Settled in second 5: not before second 5. The other is not settled at all.
    assert_eq!(store.erase_responses(at(5)).await, Ok(0));
    assert_eq!(store.erase_responses(at(6)).await, Ok(1));
    assert_eq!(store.response(payment_id(1)).await, Ok(None));
    assert_eq!(store.response(payment_id(2)).await, Ok(Some(response(b"sunny"))));
    assert_eq!(store.erase_responses(at(600)).await, Ok(0));
    // More than one small commit's worth.
    for id in 10..160 {
        walk(&*store, &like(id), &["funds_confirmed", "call_started", "call_stored"]).await;
        let payment = store.payment(payment_id(id)).await.unwrap().unwrap();
        store.commit(commit_of(&payment, "attempt_started", id, at(4))).await.unwrap();
        let payment = store.payment(payment_id(id)).await.unwrap().unwrap();
        store.commit(commit_of(&payment, "dead", id, at(5))).await.unwrap();
    }
    assert_eq!(store.erase_responses(at(6)).await, Ok(150));
    assert_eq!(store.erase_responses(at(6)).await, Ok(0));
}

async fn a_second_answer_replaces_the_first<S: Store>(store: Shared<S>) {
    let payment = walk(&*store, &like(1), &["funds_confirmed", "call_started", "call_stored"]).await;
    let again = Commit { response: Some(response(b"")), ..commit_of(&payment, "attempt_started", 1, at(9)) };
    store.commit(again).await.unwrap();
    assert_eq!(store.response(payment_id(1)).await, Ok(Some(response(b""))));
}

async fn unfinished_is_what_has_something_left_to_do<S: Store>(store: Shared<S>) {
    let served = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    walk(&*store, &like(1), &[]).await;
    walk(&*store, &like(2), &["funds_refused"]).await;
    walk(&*store, &like(3), &served).await;
    walk(&*store, &like(4), &[&served[..], &["included_deep"]].concat()).await;
    let upfront = Like { flow: Flow::Upfront, ..like(5) };
    walk(&*store, &upfront, &["funds_confirmed", "attempt_started", "included_deep"]).await;
    let relayed = Like { role: Role::Facilitator, flow: Flow::Upfront, ..like(6) };
    walk(&*store, &relayed, &["funds_confirmed", "attempt_started", "included_deep"]).await;
    walk(&*store, &like(7), &["funds_confirmed", "call_started", "call_failed", "represented"]).await;
    let left = store.unfinished(None, 100).await.unwrap();
    assert_eq!(left.iter().map(|p| p.id).collect::<Vec<_>>(), [1, 3, 5, 7].map(payment_id));
    assert!(left.iter().all(|payment| payment.next() != Next::Rest));
}

async fn unfinished_is_paged<S: Store>(store: Shared<S>) {
    for id in [5, 3, 1, 4, 2] {
        walk(&*store, &like(id), &[]).await;
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.unfinished(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.iter().map(|payment| payment.id));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5].map(payment_id));
}

async fn settled_payments_are_listed_newest_first<S: Store>(store: Shared<S>) {
    for id in 1..=3 {
        assert_eq!(settle_with(&*store, id, None).await, Ok(()));
        let payment = store.payment(payment_id(id)).await.unwrap().unwrap();
        store.commit(commit_of(&payment, "sent", id, at(100 + id))).await.unwrap();
    }
    walk(&*store, &like(4), &["funds_confirmed"]).await;
    let ids = |listed: Vec<farthing_payment::Payment>| listed.iter().map(|p| p.id).collect::<Vec<_>>();
    assert_eq!(ids(store.settled_since(at(102), None, 9).await.unwrap()), [3, 2].map(payment_id));
    assert_eq!(ids(store.settled_since(at(0), None, 1).await.unwrap()), [3].map(payment_id));
    let newest = store.settled_since(at(0), None, 1).await.unwrap();
    let after = newest.first().map(|payment| (payment.updated, payment.id));
    let older = ids(store.settled_since(at(0), after, 9).await.unwrap());
    assert_eq!(older, ids(store.settled_since(at(0), None, 9).await.unwrap())[1..]);
    assert_eq!(older[..1], [2].map(payment_id));
}

async fn payments_are_filtered_and_paged<S: Store>(store: Shared<S>) {
    let other: TenantId = "other".parse().unwrap();
    for id in 1..=6 {
        let tenant = if id % 2 == 0 { other.clone() } else { TenantId::local() };
        let payer = if id > 3 { 2 } else { 1 };
        walk(&*store, &Like { tenant, payer, ..like(id) }, &[]).await;
    }
    let list = async |filter| {
        let found = store.payments(filter).await.unwrap();
        found.iter().map(|payment| payment.id).collect::<Vec<_>>()
    };
    let any = PaymentFilter::default;
    assert_eq!(list(any()).await, [1, 2, 3, 4, 5, 6].map(payment_id));
    assert_eq!(list(PaymentFilter { tenant: Some(other), ..any() }).await, [2, 4, 6].map(payment_id));
    assert_eq!(list(PaymentFilter { payer: Some(address(2)), ..any() }).await, [4, 5, 6].map(payment_id));
    let page = PaymentFilter { after: Some(payment_id(2)), limit: 2, ..any() };
    assert_eq!(list(page).await, [3, 4].map(payment_id));
}

async fn books_follow_a_sale_and_its_refund<S: Store>(store: Shared<S>) {
    let names = [
        "funds_confirmed",
        "call_started",
        "call_stored",
        "attempt_started",
        "included_deep",
        "refund_started",
        "refund_included",
    ];
    walk(&*store, &like(1), &names).await;
    let transfers = store.transfers_of(payment_id(1)).await.unwrap();
    let told: Vec<_> =
        transfers.iter().map(|(id, money, phase)| (id.purpose, money.atoms(), *phase)).collect();
    let expected = [
        (Purpose::Sale, 1000, Phase::Posted),
        (Purpose::Settlement, 1000, Phase::Posted),
        (Purpose::Refund, 1000, Phase::Posted),
        (Purpose::Gas, 21_000, Phase::Posted),
        (Purpose::RefundGas, 21_000, Phase::Posted),
    ];
    assert_eq!(told, expected);
    let balances = store.balances(Some(&TenantId::local())).await.unwrap();
    let treasury = balances.iter().find(|(account, _)| account.kind == AccountKind::Treasury).unwrap().1;
    assert_eq!((treasury.debits_posted, treasury.credits_posted), (1000, 1000));
    assert_eq!(store.balances(Some(&"other".parse().unwrap())).await, Ok(vec![]));
    assert_eq!(store.balances(None).await.unwrap(), balances);
    let check = store.check_books().await.unwrap();
    assert_eq!((check.payments, check.transfers, check.accounts), (1, 5, balances.len() as u64));
    assert_eq!(check.problems, Vec::<String>::new());
}

async fn a_transfer_is_in_the_books_once<S: Store>(store: Shared<S>) {
    let claimed = walk(&*store, &like(1), &[]).await;
    let mut change = commit_of(&claimed, "funds_confirmed", 1, at(1));
    change.step.entries = claimed_again();
    let Err(StoreError::Books(told)) = store.commit(change.clone()).await else { panic!("booked twice") };
    assert!(told.contains("in the books already"), "{told}");
    // A claim that brings such an entry claims nothing.
    let mut other = new_claim(&like(2), None);
    other.entries = claimed_again();
    assert!(matches!(store.claim(other).await, Err(StoreError::Books(_))));
    assert_eq!(store.payment(payment_id(2)).await, Ok(None));
    assert_eq!(store.holder(&key(2)).await, Ok(None));
    change.step.entries = vec![Entry::Post { id: claimed_sale(&new_claim(&like(9), None).payment) }];
    let Err(StoreError::Books(told)) = store.commit(change).await else { panic!("posted nothing") };
    assert!(told.contains("is not in the books"), "{told}");
}

fn claimed_again() -> Vec<Entry> {
    new_claim(&like(1), None).entries
}

async fn the_books_of_many_claims_add_up<S: Store + 'static>(store: Shared<S>) {
    let tasks: Vec<_> = (0..500)
        .map(|id| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.claim(new_claim(&like(id), None)).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(Claimed::New));
    }
    let balances = store.balances(None).await.unwrap();
    let pending: Vec<_> =
        balances.iter().map(|(a, b)| (a.kind, b.debits_pending, b.credits_pending)).collect();
    let expected = [(AccountKind::Receivable, 500_000, 0), (AccountKind::Revenue, 0, 500_000)];
    assert_eq!(pending, expected);
    let check = store.check_books().await.unwrap();
    assert_eq!((check.payments, check.problems.len()), (500, 0));
}

async fn a_failing_change_spoils_nobody_elses<S: Store + 'static>(store: Shared<S>) {
    let tasks: Vec<_> = (0..300)
        .map(|id| {
            let store = Arc::clone(&store);
            let mut claim = new_claim(&like(id), None);
            let fails = id % 7 == 3;
            if fails {
                // Booked twice: the second line is refused after the payment and the first were written.
                claim.entries.extend(claim.entries.clone());
            }
            tokio::spawn(async move { (id, fails, store.claim(claim).await) })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        let (id, fails, answer) = task.await.unwrap();
        if fails {
            assert!(matches!(answer, Err(StoreError::Books(_))), "{answer:?}");
            assert_eq!(store.payment(payment_id(id)).await, Ok(None));
        } else {
            assert_eq!(answer, Ok(Claimed::New));
            new += 1;
        }
    }
    assert_eq!(store.balances(None).await.unwrap()[0].1.debits_pending, new * 1000);
    let check = store.check_books().await.unwrap();
    assert_eq!((u128::from(check.payments), check.problems.len()), (new, 0));
}

async fn amounts_are_not_cut_to_64_bits<S: Store>(store: Shared<S>) {
    let large = u128::from(u64::MAX) + 1;
    for id in 1..=4 {
        walk(&*store, &Like { atoms: large, ..like(id) }, &[]).await;
    }
    assert_eq!(store.balances(None).await.unwrap()[0].1.debits_pending, large * 4);
    assert_eq!(store.payment(payment_id(1)).await.unwrap().unwrap().terms.money.atoms(), large);
}

async fn overflowing_books_refuse_the_claim<S: Store>(store: Shared<S>) {
    walk(&*store, &Like { atoms: u128::MAX, ..like(1) }, &[]).await;
    let more = new_claim(&Like { atoms: 1, ..like(2) }, None);
    let Err(StoreError::Books(told)) = store.claim(more).await else { panic!("the account overflowed") };
    assert!(told.contains("overflow"), "{told}");
    assert_eq!(store.payment(payment_id(2)).await, Ok(None));
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
    // Exposure that does not fit is over any limit.
    let owed = Like { atoms: u128::MAX, flow: Flow::Background, ..like(3) };
    assert_eq!(store.claim(new_claim(&owed, limit(u128::MAX, 1))).await, Ok(Claimed::OverExposed));
}
