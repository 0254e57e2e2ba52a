//! Laws of the books that hold for whatever is tried, in whatever order.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use farthing_ledger::{Account, Balance, Entry, Ledger, LedgerError, Phase, Purpose, TransferId};
use farthing_primitives::{Money, Network, PaymentId, Registry, TenantId, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

/// One of a few tokens.
fn money(token: u8, atoms: u128) -> Money {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let registry = REGISTRY.get_or_init(Registry::builtin);
    let (chain, symbol) = [(8453, "USDC"), (8453, "EURC"), (1, "USDC")][usize::from(token % 3)];
    registry.by_symbol(&Network::eip155(chain), symbol).expect("listed").atoms(atoms)
}

fn tenant(n: u8) -> TenantId {
    ["local", "acme"][usize::from(n % 2)].parse().expect("a tenant")
}

fn id(payment: u8, round: u16, purpose: Purpose) -> TransferId {
    TransferId { payment: PaymentId::new(Timestamp::from_secs(1), [payment; 10]), round, purpose }
}

/// Amounts of every size, those that overflow a balance among them.
fn atoms() -> impl Strategy<Value = u128> {
    prop_oneof![0u128..10_000, any::<u64>().prop_map(u128::from), any::<u128>(), Just(u128::MAX)]
}

fn any_id() -> impl Strategy<Value = TransferId> {
    (0u8..5, 0u16..2, prop::sample::select(Purpose::ALL.to_vec()))
        .prop_map(|(p, r, purpose)| id(p, r, purpose))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (0u8..4, any_id(), any::<u8>(), any::<u8>(), atoms()).prop_map(|(kind, id, whose, token, atoms)| {
        let (tenant, money) = (tenant(whose), money(token, atoms));
        match kind {
            0 => Entry::Reserve { id, tenant, money },
            1 => Entry::Transfer { id, tenant, money },
            2 => Entry::Post { id },
            _ => Entry::Void { id },
        }
    })
}

/// Books after whatever of these entries they took.
fn books(entries: &[Entry]) -> Ledger {
    let mut ledger = Ledger::default();
    for entry in entries {
        let _ = ledger.apply(std::slice::from_ref(entry));
    }
    ledger
}

/// All balances but those that are empty: an account that was touched and left is no other account.
fn balances(ledger: &Ledger) -> BTreeMap<Account, Balance> {
    ledger.balances().filter(|(_, b)| **b != Balance::default()).map(|(a, b)| (a.clone(), *b)).collect()
}

/// What was posted and what is pending, by tenant and asset, on either side; `None` beyond 128 bits.
fn sides(ledger: &Ledger) -> BTreeMap<String, [Option<u128>; 4]> {
    let mut sums: BTreeMap<String, [Option<u128>; 4]> = BTreeMap::new();
    for (account, b) in ledger.balances() {
        let sum = sums.entry(format!("{} {}", account.tenant, account.asset)).or_insert([Some(0); 4]);
        let add = [b.debits_posted, b.credits_posted, b.debits_pending, b.credits_pending];
        for (sum, more) in sum.iter_mut().zip(add) {
            *sum = sum.and_then(|sum| sum.checked_add(more));
        }
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Debits are credits, for each tenant and asset, for what is final and for what is not yet.
    #[test]
    fn both_sides_are_always_equal(entries in vec(any_entry(), 0..60)) {
        let mut ledger = Ledger::default();
        for entry in &entries {
            let before = balances(&ledger);
            if ledger.apply(std::slice::from_ref(entry)).is_err() {
                prop_assert_eq!(balances(&ledger), before);
            }
            for (whose, [debits, credits, owed, due]) in sides(&ledger) {
                prop_assert_eq!(debits, credits, "{}", whose);
                prop_assert_eq!(owed, due, "{}", whose);
            }
        }
    }

    /// A reservation that is voided was never there, whatever else is in the books.
    #[test]
    fn voiding_undoes_reserving(before in vec(any_entry(), 0..30), id in any_id(), atoms in atoms(), whose: u8, token: u8) {
        let mut ledger = books(&before);
        let was = balances(&ledger);
        let reserve = Entry::Reserve { id, tenant: tenant(whose), money: money(token, atoms) };
        if ledger.apply(&[reserve]).is_ok() {
            ledger.apply(&[Entry::Void { id }]).expect("a reservation can be voided");
            prop_assert_eq!(balances(&ledger), was);
            prop_assert_eq!(ledger.phase(id), Some(Phase::Voided));
            // And its name is used up.
            prop_assert_eq!(ledger.apply(&[Entry::Post { id }]), Err(LedgerError::NotPending(id)));
        }
    }

    /// Reserving and posting is transferring at once.
    #[test]
    fn posting_completes_a_reservation(before in vec(any_entry(), 0..30), id in any_id(), atoms in atoms(), whose: u8, token: u8) {
        let (mut slow, mut fast) = (books(&before), books(&before));
        let (tenant, money) = (tenant(whose), money(token, atoms));
        let at_once = fast.apply(&[Entry::Transfer { id, tenant: tenant.clone(), money: money.clone() }]);
        let reserved = slow.apply(&[Entry::Reserve { id, tenant, money }]);
        let posted = reserved.and_then(|()| slow.apply(&[Entry::Post { id }]));
        // What is pending takes room of its own, so the slow way may be refused where the fast one is not.
        match posted {
            Ok(()) => {
                prop_assert_eq!(at_once, Ok(()));
                prop_assert_eq!(balances(&slow), balances(&fast));
            }
            Err(error) => prop_assert!(at_once.is_err() || matches!(error, LedgerError::Overflow(_))),
        }
    }

    /// One commit of many entries is those entries one by one, or nothing.
    #[test]
    fn a_batch_is_all_or_nothing(before in vec(any_entry(), 0..30), batch in vec(any_entry(), 0..12)) {
        let mut whole = books(&before);
        let was = format!("{whole:?}");
        let mut single = books(&before);
        let one_by_one = batch.iter().try_for_each(|entry| single.apply(std::slice::from_ref(entry)));
        let at_once = whole.apply(&batch);
        prop_assert_eq!(at_once.is_ok(), one_by_one.is_ok());
        if at_once.is_ok() {
            prop_assert_eq!(balances(&whole), balances(&single));
        } else {
            prop_assert_eq!(format!("{whole:?}"), was);
        }
        prop_assert!(whole.check().is_ok() || has_overflow(&whole));
    }

    /// Transfers that are not the same leave the same balances in whatever order they come.
    #[test]
    fn order_does_not_matter(mut entries in vec((any_id(), any::<u64>()), 0..20), turn: prop::sample::Index) {
        entries.sort_by_key(|(id, _)| *id);
        entries.dedup_by_key(|(id, _)| *id);
        let apply = |entries: &[(TransferId, u64)]| {
            let mut ledger = Ledger::default();
            for (id, atoms) in entries {
                let entry = Entry::Transfer { id: *id, tenant: tenant(0), money: money(0, u128::from(*atoms)) };
                ledger.apply(&[entry]).expect("small amounts of different names");
            }
            balances(&ledger)
        };
        let forward = apply(&entries);
        if !entries.is_empty() {
            let middle = turn.index(entries.len());
            entries.rotate_left(middle);
        }
        prop_assert_eq!(apply(&entries), forward);
    }
}

/// Whether the checker's own sums leave 128 bits: each account fits, and their total does not.
fn has_overflow(ledger: &Ledger) -> bool {
    sides(ledger).values().flatten().any(Option::is_none)
}
