//! What every store must do for channels. Each test runs against the model and against SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use farthing_channel::*;
use farthing_engine::*;
use farthing_payment::{Instruction, Slot};
use farthing_primitives::{PaymentId, RequestHash, TenantId};
use farthing_store::{MemoryStore, SqliteStore};

/// Makes a test for each store out of one function.
macro_rules! for_each_store {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(std::sync::Arc::new(super::MemoryStore::new())).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                let store = super::SqliteStore::open(&dir.path().join("books.db")).unwrap();
                super::$name(std::sync::Arc::new(store)).await;
            })*
        }
    };
}

for_each_store! {
    a_channel_is_begun_once_and_kept_whole
    a_change_names_the_version_it_follows
    a_request_is_charged_once
    a_stream_is_started_again_in_a_row_of_its_own
    an_answer_is_kept_until_it_is_erased
    a_channel_keeps_so_many_answers
    channels_are_listed_by_page_and_by_work
    a_refused_slot_refuses_the_change
    the_books_follow_a_channel_from_open_to_close
}

type Shared<S> = Arc<S>;

struct Willing;

impl Verifier for Willing {
    fn verify(&self, _: &Terms, shown: &Shown<'_>) -> Result<Vec<u8>, BadSignature> {
        Ok(shown.signature.to_vec())
    }
}

fn voucher(terms: &Terms, cumulative: u128) -> VerifiedVoucher {
    let shown = Shown { channel: terms.id, cumulative, signature: b"good", min_delta: 0 };
    VerifiedVoucher::check(&shown, terms, &Willing).unwrap()
}

fn channel(n: u8, tenant: &TenantId) -> Payee {
    let terms = Terms {
        id: ChannelId([n; 32]),
        payer: address(1),
        payee: address(0xbb),
        signer: address(1),
        asset: usdc(),
        escrow: address(0xcc),
        grace: Duration::from_secs(900),
        capture: Capture::Signed,
        instruction: Instruction::new(vec![7; 52]),
    };
    let limits = Limits {
        credit: 0,
        most_unsettled: None,
        min_deposit: 1,
        margin: Duration::from_secs(60),
        most_in_flight: 1000,
        drain: Duration::from_secs(5),
        idle: None,
    };
    let first = voucher(&terms, 500);
    let new = NewPayee { book: payment_id(1000 + u64::from(n)), tenant: tenant.clone(), terms, limits };
    Payee::begin(new, Some(&first), START).unwrap()
}

fn view(deposit: u128, settled: u128, finalized: bool) -> View {
    View { block: 9, deposit, settled, close_requested: None, finalized }
}

fn price() -> Price {
    Price::new(3, NonZeroU64::new(2).unwrap(), Unit::Token)
}

fn started(payee: &Payee, id: u64, request: u8, most_units: Option<u64>) -> PayeeEvent {
    let proven = voucher(payee.terms(), 500).proven();
    let request = RequestHash([request; 32]);
    PayeeEvent::Started(NewCharge { id: payment_id(id), request, price: price(), most_units, proven })
}

async fn begun(store: &impl ChannelStore, n: u8) -> Payee {
    let payee = channel(n, &TenantId::local());
    let begin = ChannelBegin { payee: payee.clone(), slots: Vec::new() };
    assert_eq!(store.begin_channel(begin).await, Ok(Begun::New));
    let seen = PayeeEvent::Seen { view: Some(view(1000, 0, false)), deep: true };
    commit(store, &payee, seen).await
}

async fn commit(store: &impl ChannelStore, payee: &Payee, event: PayeeEvent) -> Payee {
    let step = payee.step(event, at(1)).unwrap();
    let next = step.next.clone();
    assert_eq!(store.commit_channel(ChannelCommit::new(step)).await, Ok(()));
    assert_eq!(store.channel(payee.terms().id).await, Ok(Some(next.clone())));
    next
}

async fn served(
    store: &impl ChannelStore,
    payee: &Payee,
    id: u64,
    units: u64,
    body: &[u8],
    secs: u64,
) -> Payee {
    let step = payee.step(PayeeEvent::Served { charge: payment_id(id), units }, at(secs)).unwrap();
    let next = step.next.clone();
    let answer = Some((payment_id(id), response(body)));
    assert_eq!(store.commit_channel(ChannelCommit { answer, ..ChannelCommit::new(step) }).await, Ok(()));
    next
}

async fn a_channel_is_begun_once_and_kept_whole<S: ChannelStore>(store: Shared<S>) {
    let payee = channel(1, &TenantId::local());
    let id = payee.terms().id;
    assert_eq!(store.channel(id).await, Ok(None));
    let begin = |payee: &Payee, slots: Vec<(Option<u64>, Slot)>| ChannelBegin { payee: payee.clone(), slots };
    let own = slot(1, 0, &[1001]);
    assert_eq!(store.begin_channel(begin(&payee, vec![(None, own.clone())])).await, Ok(Begun::New));
    assert_eq!(store.channel(id).await, Ok(Some(payee.clone())));
    assert_eq!(store.channel_of_book(payee.book()).await, Ok(Some(payee.clone())));
    assert_eq!(store.slots_of(payee.book()).await.unwrap()[0].slot, own);
    // Also for another tenant: its id says which chain and escrow it is in.
    let other = channel(1, &"other".parse().unwrap());
    assert_eq!(store.begin_channel(begin(&other, vec![])).await, Ok(Begun::Known(Box::new(payee.clone()))));
    assert_eq!(store.channel(id).await, Ok(Some(payee)));
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

async fn a_change_names_the_version_it_follows<S: ChannelStore>(store: Shared<S>) {
    let payee = begun(&*store, 1).await;
    let raise = |to| payee.step(PayeeEvent::Voucher(voucher(payee.terms(), to)), at(2)).unwrap();
    assert_eq!(store.commit_channel(ChannelCommit::new(raise(600))).await, Ok(()));
    assert_eq!(store.commit_channel(ChannelCommit::new(raise(700))).await, Err(StoreError::Conflict));
    assert_eq!(store.channel(payee.terms().id).await.unwrap().unwrap().accepted(), 600);
    let unknown = channel(2, &TenantId::local());
    let step = unknown.step(PayeeEvent::Voucher(voucher(unknown.terms(), 500)), at(2));
    assert!(step.is_err());
    let step = unknown.step(PayeeEvent::Limited(Limits { credit: 1, ..*unknown.limits() }), at(2)).unwrap();
    assert_eq!(store.commit_channel(ChannelCommit::new(step)).await, Err(StoreError::Conflict));
}

async fn a_request_is_charged_once<S: ChannelStore>(store: Shared<S>) {
    let payee = begun(&*store, 1).await;
    let running = commit(&*store, &payee, started(&payee, 1, 7, Some(10))).await;
    let charge = store.charge(payee.terms().id, RequestHash([7; 32])).await.unwrap().unwrap();
    assert_eq!((charge.id, charge.again()), (payment_id(1), Again::Wait));
    let done = served(&*store, &running, 1, 10, b"sunny", 2).await;
    let charge = store.charge(payee.terms().id, RequestHash([7; 32])).await.unwrap().unwrap();
    assert_eq!((charge.atoms, charge.again()), (15, Again::GiveStored));
    assert_eq!(store.charge_answer(payment_id(1)).await, Ok(Some(response(b"sunny"))));
    // The machine forgot it, and the store has not.
    let twice = done.step(started(&done, 2, 7, Some(10)), at(3)).unwrap();
    assert_eq!(store.commit_channel(ChannelCommit::new(twice)).await, Err(StoreError::Conflict));
    assert_eq!(store.channel(payee.terms().id).await, Ok(Some(done)));
    assert_eq!(store.transfers_of(payment_id(2)).await, Ok(vec![]));
    assert_eq!(store.charge(payee.terms().id, RequestHash([8; 32])).await, Ok(None));
    assert_eq!(store.charge(ChannelId([2; 32]), RequestHash([7; 32])).await, Ok(None));
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

async fn a_stream_is_started_again_in_a_row_of_its_own<S: ChannelStore>(store: Shared<S>) {
    let mut payee = begun(&*store, 1).await;
    for id in 1..=2 {
        payee = commit(&*store, &payee, started(&payee, id, 7, None)).await;
        payee = commit(&*store, &payee, PayeeEvent::Metered { charge: payment_id(id), units: 5 }).await;
        payee = commit(&*store, &payee, PayeeEvent::Lost { charge: payment_id(id) }).await;
    }
    let id = payee.terms().id;
    assert_eq!(store.charge(id, RequestHash([7; 32])).await.unwrap().unwrap().id, payment_id(2));
    let all: Vec<PaymentId> =
        store.charges(id, None, 0).await.unwrap().iter().map(|charge| charge.id).collect();
    assert_eq!(all, [payment_id(1), payment_id(2)]);
    assert_eq!(store.charges(id, Some(payment_id(1)), 0).await.unwrap().len(), 1);
    assert_eq!(payee.spent(), 15);
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

async fn an_answer_is_kept_until_it_is_erased<S: ChannelStore>(store: Shared<S>) {
    let mut payee = begun(&*store, 1).await;
    for id in 1..=2 {
        payee = commit(&*store, &payee, started(&payee, id, u8::try_from(id).unwrap(), Some(1))).await;
        payee = served(&*store, &payee, id, 1, b"sunny", 10 * id).await;
    }
    assert_eq!(store.erase_charge_answers(at(10)).await, Ok(0));
    assert_eq!(store.erase_charge_answers(at(11)).await, Ok(1));
    assert_eq!(store.charge_answer(payment_id(1)).await, Ok(None));
    assert_eq!(store.charge_answer(payment_id(2)).await, Ok(Some(response(b"sunny"))));
    // An answer belongs to a charge of this very channel.
    let step = payee.step(PayeeEvent::Voucher(voucher(payee.terms(), 600)), at(30)).unwrap();
    let answer = Some((payment_id(9), response(b"rain")));
    let foreign = ChannelCommit { answer, ..ChannelCommit::new(step) };
    assert_eq!(store.commit_channel(foreign).await, Err(StoreError::Conflict));
    assert_eq!(store.channel(payee.terms().id).await, Ok(Some(payee)));
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

async fn a_channel_keeps_so_many_answers<S: ChannelStore>(store: Shared<S>) {
    let mut payee = begun(&*store, 1).await;
    let most = u64::try_from(MAX_KEPT_ANSWERS).unwrap();
    for id in 1..=most + 1 {
        let mut request = [0; 32];
        request[..8].copy_from_slice(&id.to_be_bytes());
        let PayeeEvent::Started(new) = started(&payee, id, 0, Some(1)) else { panic!("a start") };
        let new = NewCharge { request: RequestHash(request), ..new };
        payee = commit(&*store, &payee, PayeeEvent::Started(new)).await;
        payee = served(&*store, &payee, id, 0, b"sunny", 2).await;
    }
    assert_eq!(store.charge_answer(payment_id(1)).await, Ok(None));
    assert_eq!(store.charge_answer(payment_id(2)).await, Ok(Some(response(b"sunny"))));
    assert_eq!(store.charge_answer(payment_id(most + 1)).await, Ok(Some(response(b"sunny"))));
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

async fn channels_are_listed_by_page_and_by_work<S: ChannelStore>(store: Shared<S>) {
    let mut ids = Vec::new();
    for n in [3, 1, 2] {
        ids.push(begun(&*store, n).await.terms().id);
    }
    ids.sort();
    let over = store.channel(ids[1]).await.unwrap().unwrap();
    commit(&*store, &over, PayeeEvent::Seen { view: Some(view(1000, 400, true)), deep: true }).await;
    let list = async |filter: ChannelFilter| {
        let found = store.channels(filter).await.unwrap();
        found.iter().map(|payee| payee.terms().id).collect::<Vec<_>>()
    };
    let any = ChannelFilter::default();
    assert_eq!(list(any.clone()).await, ids);
    assert_eq!(list(ChannelFilter { limit: 2, ..any.clone() }).await, ids[..2]);
    assert_eq!(list(ChannelFilter { after: Some(ids[0]), ..any.clone() }).await, ids[1..]);
    assert_eq!(list(ChannelFilter { at_work: true, ..any.clone() }).await, [ids[0], ids[2]]);
    let other = Some("other".parse().unwrap());
    assert_eq!(list(ChannelFilter { tenant: other, ..any }).await, []);
}

async fn a_refused_slot_refuses_the_change<S: ChannelStore>(store: Shared<S>) {
    let payee = begun(&*store, 1).await;
    let step = payee.step(started(&payee, 1, 7, Some(10)), at(2)).unwrap();
    let slots = vec![(Some(3), slot(1, 0, &[1001]))];
    let change = ChannelCommit { slots, ..ChannelCommit::new(step) };
    assert_eq!(store.commit_channel(change).await, Err(StoreError::Conflict));
    assert_eq!(store.channel(payee.terms().id).await, Ok(Some(payee.clone())));
    assert_eq!(store.charge(payee.terms().id, RequestHash([7; 32])).await, Ok(None));
    assert_eq!(store.transfers_of(payment_id(1)).await, Ok(vec![]));
}

async fn the_books_follow_a_channel_from_open_to_close<S: ChannelStore>(store: Shared<S>) {
    let mut payee = begun(&*store, 1).await;
    payee = commit(&*store, &payee, started(&payee, 1, 1, Some(100))).await;
    payee = commit(&*store, &payee, started(&payee, 2, 2, Some(9))).await;
    payee = served(&*store, &payee, 1, 100, b"whole", 2).await;
    payee = served(&*store, &payee, 2, 4, b"part", 3).await;
    payee = commit(&*store, &payee, started(&payee, 3, 3, Some(9))).await;
    payee = commit(&*store, &payee, PayeeEvent::Lost { charge: payment_id(3) }).await;
    payee = commit(&*store, &payee, started(&payee, 4, 4, None)).await;
    payee = commit(&*store, &payee, PayeeEvent::Metered { charge: payment_id(4), units: 3 }).await;
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
    payee =
        commit(&*store, &payee, PayeeEvent::Seen { view: Some(view(1000, 100, false)), deep: true }).await;
    payee = commit(&*store, &payee, PayeeEvent::Seen { view: Some(view(1000, 140, true)), deep: true }).await;
    assert_eq!((payee.spent(), payee.settled()), (160, 140));
    let purpose =
        |wanted: farthing_ledger::Purpose,
         of: &[(farthing_ledger::TransferId, farthing_primitives::Money, farthing_ledger::Phase)]| {
            of.iter().filter(|(id, ..)| id.purpose == wanted).map(|(_, money, _)| money.atoms()).sum::<u128>()
        };
    let own = store.transfers_of(payee.book()).await.unwrap();
    assert_eq!(purpose(farthing_ledger::Purpose::Settlement, &own), 140);
    assert_eq!(purpose(farthing_ledger::Purpose::WriteOff, &own), 20);
    assert_eq!(purpose(farthing_ledger::Purpose::Release, &own), 860);
    assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
}

/// Whatever is changed behind the machine's back is told.
#[tokio::test]
async fn the_check_finds_what_was_tampered_with() {
    let tampers = [
        "UPDATE channels SET work = 0",
        "UPDATE channels SET state = 'closing'",
        "UPDATE channels SET version = version + 1",
        "UPDATE charges SET request = zeroblob(32) WHERE seq = 1",
        "DELETE FROM charges WHERE seq = 1",
        "UPDATE charge_answers SET body = x'00'",
        "UPDATE charge_answers SET channel = zeroblob(32)",
        "DELETE FROM channels",
        "UPDATE transfers SET phase = 'voided' WHERE purpose = 'sale'",
        "DELETE FROM transfers WHERE purpose = 'deposit'",
    ];
    for sql in tampers {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books.db");
        let store = SqliteStore::open(&path).unwrap();
        let payee = begun(&store, 1).await;
        let payee = commit(&store, &payee, started(&payee, 1, 1, Some(100))).await;
        served(&store, &payee, 1, 100, b"whole", 2).await;
        assert_eq!(store.check_books().await.unwrap().problems, Vec::<String>::new());
        drop(store);
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let store = SqliteStore::open(&path).unwrap();
        assert_ne!(store.check_books().await.unwrap().problems, Vec::<String>::new(), "{sql}");
    }
}
