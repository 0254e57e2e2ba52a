//! The edges of the books: where a sum leaves 128 bits, and what their words are.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use farthing_ledger::{AccountKind, CheckError, Entry, Ledger, Purpose, TransferId};
use farthing_primitives::{Money, Network, PaymentId, Registry, TenantId, Timestamp};

fn money(atoms: u128) -> Money {
    Registry::builtin().by_symbol(&Network::eip155(84532), "USDC").expect("listed").atoms(atoms)
}

fn transfer(purpose: Purpose, atoms: u128) -> Entry {
    let id = TransferId { payment: PaymentId::new(Timestamp::from_secs(1), [1; 10]), round: 0, purpose };
    Entry::Transfer { id, tenant: TenantId::local(), money: money(atoms) }
}

/// Each account fits, and what all of them have seen does not: the check says so, and adds up no wrong number.
#[test]
fn a_total_that_leaves_128_bits_is_no_balance() {
    let mut ledger = Ledger::default();
    ledger.apply(&[transfer(Purpose::Relay, u128::MAX)]).expect("fits");
    assert_eq!(ledger.check(), Ok(()));
    ledger.apply(&[transfer(Purpose::Gas, 1)]).expect("fits accounts of its own");
    let Err(CheckError::Overflow(account)) = ledger.check() else { panic!("{:?}", ledger.check()) };
    assert!([AccountKind::Payees, AccountKind::Payers].contains(&account.kind), "{account:?}");
}

/// Stored rows, reports and metrics are read by these words.
#[test]
fn accounts_and_purposes_print_as_they_are_stored() {
    for kind in AccountKind::ALL {
        assert_eq!(kind.to_string(), kind.as_str());
    }
    for purpose in Purpose::ALL {
        assert_eq!(purpose.to_string(), purpose.as_str());
    }
}
