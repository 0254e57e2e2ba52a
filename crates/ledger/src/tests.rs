use farthing_primitives::{Money, Network, PaymentId, Registry, TenantId, Timestamp};
use proptest::prelude::*;

use crate::*;

fn money(atoms: u128) -> Money {
    Registry::builtin().by_symbol(&Network::eip155(8453), "USDC").expect("listed").atoms(atoms)
}

fn id(n: u8, purpose: Purpose) -> TransferId {
    TransferId { payment: PaymentId::new(Timestamp::from_secs(1), [n; 10]), round: 0, purpose }
}

fn account(kind: AccountKind) -> Account {
    Account { tenant: TenantId::local(), kind, asset: money(0).asset().clone() }
}

fn reserve(n: u8, atoms: u128) -> Entry {
    Entry::Reserve { id: id(n, Purpose::Sale), tenant: TenantId::local(), money: money(atoms) }
}

fn transfer(n: u8, purpose: Purpose, atoms: u128) -> Entry {
    Entry::Transfer { id: id(n, purpose), tenant: TenantId::local(), money: money(atoms) }
}

#[test]
fn a_paid_sale_ends_as_treasury_and_revenue() {
    let mut ledger = Ledger::default();
    ledger.apply(&[reserve(1, 1000)]).expect("applies");
    assert_eq!(ledger.balance(&account(AccountKind::Receivable)).debits_pending, 1000);
    let sale = id(1, Purpose::Sale);
    ledger.apply(&[Entry::Post { id: sale }, transfer(1, Purpose::Settlement, 1000)]).expect("applies");
    let receivable = ledger.balance(&account(AccountKind::Receivable));
    assert_eq!(
        (receivable.debits_posted, receivable.credits_posted, receivable.debits_pending),
        (1000, 1000, 0)
    );
    assert_eq!(ledger.balance(&account(AccountKind::Treasury)).debits_posted, 1000);
    assert_eq!(ledger.balance(&account(AccountKind::Revenue)).credits_posted, 1000);
    assert_eq!(ledger.check(), Ok(()));
}

#[test]
fn nothing_is_posted_twice() {
    let mut ledger = Ledger::default();
    let sale = id(1, Purpose::Sale);
    ledger.apply(&[reserve(1, 5)]).expect("applies");
    assert_eq!(ledger.apply(&[reserve(1, 5)]), Err(LedgerError::Exists(sale)));
    ledger.apply(&[Entry::Post { id: sale }]).expect("applies");
    assert_eq!(ledger.apply(&[Entry::Post { id: sale }]), Err(LedgerError::NotPending(sale)));
    assert_eq!(ledger.apply(&[Entry::Void { id: sale }]), Err(LedgerError::NotPending(sale)));
    assert_eq!(
        ledger.apply(&[Entry::Void { id: id(2, Purpose::Sale) }]),
        Err(LedgerError::Missing(id(2, Purpose::Sale)))
    );
}

#[test]
fn a_refused_batch_leaves_no_trace() {
    let mut ledger = Ledger::default();
    ledger.apply(&[reserve(1, 5)]).expect("applies");
    let before = format!("{ledger:?}");
    let sale = id(1, Purpose::Sale);
    assert!(ledger.apply(&[Entry::Post { id: sale }, Entry::Post { id: sale }]).is_err());
    assert_eq!(format!("{ledger:?}"), before);
}

#[test]
fn overflow_is_refused() {
    let mut ledger = Ledger::default();
    ledger.apply(&[transfer(1, Purpose::Relay, u128::MAX)]).expect("applies");
    assert_eq!(
        ledger.apply(&[transfer(2, Purpose::Relay, 1)]),
        Err(LedgerError::Overflow(account(AccountKind::Payees)))
    );
}

#[test]
fn a_shift_moves_all_or_nothing() {
    let full = Balance { debits_pending: 5, debits_posted: u128::MAX - 4, ..Balance::default() };
    let mut balance = full;
    assert_eq!(balance.shift(Side::Debit, Some(Phase::Pending), Phase::Posted, 5), None);
    assert_eq!(balance.shift(Side::Debit, Some(Phase::Pending), Phase::Voided, 6), None);
    assert_eq!(balance.shift(Side::Credit, Some(Phase::Pending), Phase::Posted, 1), None);
    assert_eq!(balance, full);
    assert_eq!(balance.shift(Side::Debit, Some(Phase::Pending), Phase::Posted, 4), Some(()));
    assert_eq!((balance.debits_pending, balance.debits_posted), (1, u128::MAX));
    assert_eq!(balance.shift(Side::Credit, None, Phase::Pending, 7), Some(()));
    assert_eq!(balance.shift(Side::Credit, Some(Phase::Pending), Phase::Voided, 7), Some(()));
    assert_eq!(balance.shift(Side::Credit, None, Phase::Voided, 7), Some(()));
    assert_eq!((balance.credits_pending, balance.credits_posted), (0, 0));
}

#[test]
fn the_checker_sees_a_changed_balance_and_a_lost_one() {
    let mut ledger = Ledger::default();
    ledger.apply(&[transfer(1, Purpose::Relay, 7)]).expect("applies");
    let rows =
        |balances: Vec<(Account, Balance)>| Ledger::check_rows(ledger.transfers(), balances.into_iter());
    let good: Vec<_> = ledger.balances().map(|(a, b)| (a.clone(), *b)).collect();
    assert_eq!(rows(good.clone()), Ok(()));
    let mut changed = good.clone();
    changed[0].1.debits_posted += 1;
    assert!(matches!(rows(changed), Err(CheckError::Balance { .. })));
    assert!(matches!(rows(good[1..].to_vec()), Err(CheckError::Balance { .. })));
}

#[test]
fn names_are_stable() {
    for purpose in Purpose::ALL {
        assert_eq!(purpose.as_str().parse(), Ok(purpose));
    }
    for kind in AccountKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
}

proptest! {
    /// Whatever is tried in whatever order, refused or not: the books balance.
    #[test]
    fn the_books_always_balance(steps in prop::collection::vec((0u8..6, 0u8..8, any::<u64>()), 0..200)) {
        let mut ledger = Ledger::default();
        for (payment, action, atoms) in steps {
            let atoms = u128::from(atoms);
            let entry = match action {
                0 | 1 => reserve(payment, atoms),
                2 => Entry::Post { id: id(payment, Purpose::Sale) },
                3 => Entry::Void { id: id(payment, Purpose::Sale) },
                4 => transfer(payment, Purpose::Settlement, atoms),
                5 => transfer(payment, Purpose::WriteOff, atoms),
                6 => transfer(payment, Purpose::Refund, atoms),
                _ => transfer(payment, Purpose::Relay, atoms),
            };
            let _ = ledger.apply(&[entry]);
            prop_assert_eq!(ledger.check(), Ok(()));
        }
    }
}
