//! The whole check of the books: what is stored against what follows from it.

use std::collections::BTreeMap;

use farthing_engine::{BookCheck, StoreError};
use farthing_ledger::{Account, Balance, Phase, Purpose};
use farthing_payment::{Payment, Role, State};
use farthing_primitives::{AssetId, TenantId};
use rusqlite::Connection;

use crate::read::{self, TransferRow};

/// How many problems are told; a broken file would have no end of them.
const MAX_PROBLEMS: usize = 100;

/// Checks that the file is whole, that every balance re-derives from its transfers, that every tenant's assets sum
/// to zero, and that each payment has in the books what its state says.
pub(crate) fn check_books(connection: &Connection) -> Result<BookCheck, StoreError> {
    read::in_one_view(connection, || {
        let mut check = Check::default();
        check.problems.extend(read::still_fine(connection)?);
        read::each_transfer(connection, |row| {
            check.transfer(&row);
            Ok(())
        })?;
        let mut named = 0u64;
        read::each_payment(connection, |payment| {
            let transfers = read::transfers_of(connection, payment.id)?;
            named += transfers.len() as u64;
            check.payment(&payment, &transfers);
            Ok(())
        })?;
        if named != check.transfers {
            check
                .problem(format!("{} transfers belong to no payment", check.transfers.saturating_sub(named)));
        }
        check.balances(read::balances(connection, None)?);
        Ok(BookCheck {
            payments: check.payments,
            transfers: check.transfers,
            accounts: check.accounts,
            problems: check.problems,
        })
    })
}

#[derive(Debug, Default)]
struct Check {
    payments: u64,
    transfers: u64,
    accounts: u64,
    derived: BTreeMap<Account, Balance>,
    problems: Vec<String>,
}

impl Check {
    fn problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    fn transfer(&mut self, row: &TransferRow) {
        self.transfers += 1;
        let atoms = row.money.atoms();
        let (posted, pending) = match row.phase {
            Phase::Posted => (atoms, 0),
            Phase::Pending => (0, atoms),
            Phase::Voided => (0, 0),
        };
        let (debit, credit) = row.id.purpose.accounts();
        let account = |kind| Account { tenant: row.tenant.clone(), kind, asset: row.money.asset().clone() };
        let side = self.derived.entry(account(debit)).or_default();
        let debited = add(&mut side.debits_posted, posted).and(add(&mut side.debits_pending, pending));
        let side = self.derived.entry(account(credit)).or_default();
        let credited = add(&mut side.credits_posted, posted).and(add(&mut side.credits_pending, pending));
        if debited.and(credited).is_none() {
            self.problem(format!("the accounts of {:?} do not fit 128 bits", row.id));
        }
    }

    /// The payment's state and its books must tell the same story.
    fn payment(&mut self, payment: &Payment, transfers: &[TransferRow]) {
        self.payments += 1;
        for (purpose, phase) in expected(payment) {
            let found = transfers.iter().find(|row| {
                row.id.purpose == purpose && row.id.round == payment.round && row.money == payment.terms.money
            });
            if found.map(|row| row.phase) != Some(phase) {
                self.problem(format!(
                    "{} is {}, but its {purpose} of round {} is {:?} in the books",
                    payment.id,
                    payment.state.name(),
                    payment.round,
                    found.map(|row| row.phase)
                ));
            }
        }
        if transfers.iter().any(|row| row.tenant != payment.tenant) {
            self.problem(format!("{} is in the books of another tenant", payment.id));
        }
    }

    fn balances(&mut self, stored: Vec<(Account, Balance)>) {
        let mut sums: BTreeMap<(TenantId, AssetId), (Balance, bool)> = BTreeMap::new();
        for (account, balance) in stored {
            self.accounts += 1;
            let derived = self.derived.remove(&account).unwrap_or_default();
            if derived != balance {
                self.problem(format!(
                    "the balance of {account:?} is {balance:?} but its transfers add up to {derived:?}"
                ));
            }
            let (sum, fits) =
                sums.entry((account.tenant, account.asset)).or_insert((Balance::default(), true));
            *fits &= add(&mut sum.debits_posted, balance.debits_posted)
                .and(add(&mut sum.credits_posted, balance.credits_posted))
                .and(add(&mut sum.debits_pending, balance.debits_pending))
                .and(add(&mut sum.credits_pending, balance.credits_pending))
                .is_some();
        }
        for (account, derived) in std::mem::take(&mut self.derived) {
            self.problem(format!("{account:?} has no balance, but its transfers add up to {derived:?}"));
        }
        for ((tenant, asset), (sum, fits)) in sums {
            let even = sum.debits_posted == sum.credits_posted && sum.debits_pending == sum.credits_pending;
            if !fits || !even {
                self.problem(format!("debits and credits of {asset} differ for {tenant}: {sum:?}"));
            }
        }
    }
}

fn add(sum: &mut u128, atoms: u128) -> Option<()> {
    *sum = sum.checked_add(atoms)?;
    Some(())
}

/// What the books must have of a payment in this state, in its own round and of its own amount.
fn expected(payment: &Payment) -> Vec<(Purpose, Phase)> {
    let settled = match payment.role {
        Role::Seller => vec![(Purpose::Sale, Phase::Posted), (Purpose::Settlement, Phase::Posted)],
        Role::Facilitator => vec![(Purpose::Relay, Phase::Posted)],
    };
    match (&payment.state, payment.role) {
        (State::Settled { .. } | State::Refunding { .. }, _) => settled,
        (State::Refunded { .. }, _) => [settled, vec![(Purpose::Refund, Phase::Posted)]].concat(),
        (State::Refused { .. }, Role::Seller) => vec![(Purpose::Sale, Phase::Voided)],
        // Void, or posted and written off: that depends on what was served when it failed.
        (State::Failed { .. }, _) | (_, Role::Facilitator) => Vec::new(),
        (_, Role::Seller) => vec![(Purpose::Sale, Phase::Pending)],
    }
}
