//! Does the real store answer like the obvious slow one? The same random operations go to both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use farthing_engine::{
    Claimed, Commit, Credit, ExposureLimit, PaymentFilter, Store, StoreError, StoredResponse,
};
use farthing_ledger::Entry;
use farthing_payment::{Flow, Payment, Role, Slot, SlotState, TxRef};
use farthing_primitives::TenantId;
use farthing_store::{MemoryStore, SqliteStore};
use proptest::prelude::*;

/// One thing to do. Numbers name payments, keys and slots from a small range, so that they meet often.
#[derive(Debug, Clone)]
enum Op {
    Claim {
        like: Like,
        limit: Option<(u128, u128)>,
    },
    /// Moves the payment as the store has it by whichever event fits, with whatever else the commit brings.
    Step {
        id: u64,
        pick: usize,
        credit: Option<u64>,
        free: bool,
        slot: Option<u64>,
        stale: bool,
        again: bool,
    },
    Slot {
        id: u64,
        nonce: u64,
        state: usize,
        payment: u64,
        stale: bool,
    },
    Erase {
        before: u64,
    },
    Forget {
        before: u64,
    },
}

const IDS: u64 = 12;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let flow = prop_oneof![Just(Flow::Authorization), Just(Flow::Upfront), Just(Flow::Background)];
    let role = prop_oneof![4 => Just(Role::Seller), 1 => Just(Role::Facilitator)];
    let tenant = prop_oneof![Just("local"), Just("other")];
    let atoms = prop_oneof![8 => 0u128..5000, 1 => Just(u128::MAX - 3)];
    let like = (0..IDS, 0..IDS, 1u8..4, atoms, flow, role, tenant).prop_map(
        |(id, key, payer, atoms, flow, role, tenant)| Like {
            id,
            key,
            payer,
            atoms,
            flow,
            role,
            tenant: tenant.parse().unwrap(),
        },
    );
    let limit = prop::option::of((0u128..9000, 0u128..20_000));
    let claim = (like, limit).prop_map(|(like, limit)| Op::Claim { like, limit });
    let step = (
        0..IDS,
        0..EVENTS.len(),
        prop::option::weighted(0.3, 0u64..4),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.2, 0u64..6),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(id, pick, credit, free, slot, stale, again)| Op::Step {
            id,
            pick,
            credit,
            free,
            slot,
            stale,
            again,
        });
    let slot = (0u64..6, 0u64..4, 0usize..4, 0..IDS, prop::bool::weighted(0.2))
        .prop_map(|(id, nonce, state, payment, stale)| Op::Slot { id, nonce, state, payment, stale });
    let erase = (0u64..40).prop_map(|before| Op::Erase { before });
    let forget = (0u64..80).prop_map(|before| Op::Forget { before });
    let op = prop_oneof![4 => claim, 20 => step, 3 => slot, 1 => erase, 1 => forget];
    prop::collection::vec(op, 1..150)
}

/// What an operation was answered.
#[derive(Debug, PartialEq)]
enum Answer {
    Claimed(Result<Claimed, StoreError>),
    Done(Result<(), StoreError>),
    Erased(Result<u64, StoreError>),
    Nothing,
}

async fn perform(store: &dyn Store, op: &Op, second: u64) -> Answer {
    match op {
        Op::Claim { like, limit } => {
            let limit = limit.map(|(per_payer, total)| ExposureLimit { per_payer, total });
            Answer::Claimed(store.claim(new_claim(like, limit)).await)
        }
        Op::Step { id, pick, credit, free, slot, stale, again } => {
            let Some(payment) = store.payment(payment_id(*id)).await.unwrap() else { return Answer::Nothing };
            // The first event that fits, from a random one on.
            let fits =
                (0..EVENTS.len()).map(|offset| EVENTS[(pick + offset) % EVENTS.len()]).find_map(|name| {
                    let event = event(name, *id);
                    let name = event.name();
                    payment.step(event, at(second)).ok().map(|step| Commit::new(step, name))
                });
            let Some(mut commit) = fits else { return Answer::Nothing };
            if commit.event == "call_stored" {
                commit.response = Some(response(&[u8::try_from(*id).unwrap(); 9000]));
            }
            commit.credit = match credit {
                Some(log_index) => {
                    Some(Credit::Take { network: network(), tx: "0x5".to_owned(), log_index: *log_index })
                }
                None => free.then_some(Credit::Free),
            };
            if let Some(slot) = slot {
                commit.slots.push(changed(store, *slot, slot % 4, 0, *id, *stale).await);
            }
            if *stale {
                commit.step.expected += 1;
            }
            if *again {
                // Something that cannot be booked, after something that was written.
                commit.step.entries.extend(new_claim(&like(*id), None).entries);
                commit.step.entries.push(Entry::Void { id: commit.step.entries[0].id() });
                commit.step.entries.push(Entry::Void { id: commit.step.entries[0].id() });
            }
            Answer::Done(store.commit(commit).await)
        }
        Op::Slot { id, nonce, state, payment, stale } => {
            let change = changed(store, *id, *nonce, *state, *payment, *stale).await;
            let second = changed(store, (*id + 1) % 6, nonce + 1, 0, *payment, false).await;
            Answer::Done(store.save_slots(vec![change, second]).await)
        }
        Op::Erase { before } => Answer::Erased(store.erase_responses(at(*before)).await),
        Op::Forget { before } => Answer::Erased(store.forget_refused(at(*before)).await),
    }
}

async fn changed(
    store: &dyn Store,
    id: u64,
    nonce: u64,
    state: usize,
    payment: u64,
    stale: bool,
) -> (Option<u64>, Slot) {
    let stored = store.slot(slot_id(id)).await.unwrap();
    let version = stored.map(|stored| stored.version);
    let state = match state {
        0 => SlotState::Open,
        1 => SlotState::Included { tx: TxRef::new("0x1"), block: 1, block_hash: [1; 32] },
        2 => SlotState::Final { tx: TxRef::new("0x1") },
        _ => SlotState::Lost,
    };
    let slot = Slot { state, ..slot(id, nonce, &[payment, payment + 1]) };
    (if stale { version.map(|v| v + 1) } else { version }, slot)
}

/// Everything that can be asked.
#[derive(Debug, PartialEq)]
struct World {
    payments: Vec<Payment>,
    unfinished: Vec<Payment>,
    settled: Vec<Payment>,
    holders: Vec<Option<Payment>>,
    details: Vec<Details>,
    slots: Vec<Option<farthing_engine::StoredSlot>>,
    live: Vec<farthing_engine::StoredSlot>,
    last_nonce: Option<u64>,
    owed: Vec<Result<(u128, u128), StoreError>>,
    balances: Vec<(farthing_ledger::Account, farthing_ledger::Balance)>,
    counts: (u64, u64, u64),
}

#[derive(Debug, PartialEq)]
struct Details {
    history: Vec<(u64, String, farthing_primitives::Timestamp)>,
    response: Option<StoredResponse>,
    transfers: Vec<(farthing_ledger::TransferId, farthing_primitives::Money, farthing_ledger::Phase)>,
    slots: Vec<farthing_engine::StoredSlot>,
}

async fn look(store: &dyn Store) -> World {
    let mut holders = Vec::new();
    let mut details = Vec::new();
    let mut slots = Vec::new();
    let mut owed = Vec::new();
    for id in 0..IDS {
        holders.push(store.holder(&key(id)).await.unwrap());
        slots.push(store.slot(slot_id(id)).await.unwrap());
        details.push(Details {
            history: store.history(payment_id(id)).await.unwrap(),
            response: store.response(payment_id(id)).await.unwrap(),
            transfers: store.transfers_of(payment_id(id)).await.unwrap(),
            slots: store.slots_of(payment_id(id)).await.unwrap(),
        });
    }
    for tenant in [TenantId::local(), "other".parse().unwrap()] {
        for payer in 0..4 {
            let sums = store.exposure(&tenant, &address(payer), &address(0xbb), &usdc()).await;
            owed.push(sums.map(|(of_payer, of_all)| (of_payer.atoms(), of_all.atoms())));
        }
    }
    let check = store.check_books().await.unwrap();
    World {
        payments: store.payments(PaymentFilter::default()).await.unwrap(),
        unfinished: store.unfinished(None, 1000).await.unwrap(),
        settled: store.settled_since(at(20), None, 1000).await.unwrap(),
        holders,
        details,
        slots,
        live: store.live_slots(&network(), &address(0xcc), 0, 1000).await.unwrap(),
        last_nonce: store.last_nonce(&network(), &address(0xcc)).await.unwrap(),
        owed,
        balances: store.balances(None).await.unwrap(),
        counts: (check.payments, check.transfers, check.accounts),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_answers_like_the_model(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("books.db");
            let model = MemoryStore::new();
            let mut sqlite = SqliteStore::open(&path).unwrap();
            for (second, op) in (1..).zip(&ops) {
                let expected = perform(&model, op, second).await;
                let answer = perform(&sqlite, op, second).await;
                prop_assert_eq!(answer, expected, "{:?}", op);
                if second % 50 == 0 {
                    // A restart changes no answer.
                    drop(sqlite);
                    sqlite = SqliteStore::open(&path).unwrap();
                }
            }
            prop_assert_eq!(look(&sqlite).await, look(&model).await);
            Ok(())
        })?;
    }
}
