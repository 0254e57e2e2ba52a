use std::collections::BTreeMap;

use farthing_primitives::{AssetId, Money, PaymentId, TenantId};

use crate::entry::accounts;
use crate::{Account, Entry, Phase, TransferId};

/// What an account has seen. `posted` is final, `pending` may still be posted or voided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    pub debits_posted: u128,
    pub credits_posted: u128,
    pub debits_pending: u128,
    pub credits_pending: u128,
}

/// A side of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Debit,
    Credit,
}

impl Balance {
    /// Moves `atoms` on one side from where a transfer was (`None`: it was not in the books) to where it is now.
    ///
    /// `None` if the sum does not fit 128 bits, or the balance never had what should leave it: then nothing is moved.
    #[must_use]
    pub fn shift(&mut self, side: Side, was: Option<Phase>, now: Phase, atoms: u128) -> Option<()> {
        let (pending, posted) = match side {
            Side::Debit => (&mut self.debits_pending, &mut self.debits_posted),
            Side::Credit => (&mut self.credits_pending, &mut self.credits_posted),
        };
        let left = if was == Some(Phase::Pending) { pending.checked_sub(atoms)? } else { *pending };
        match now {
            Phase::Pending => *pending = left.checked_add(atoms)?,
            Phase::Posted => {
                *posted = posted.checked_add(atoms)?;
                *pending = left;
            }
            Phase::Voided => *pending = left,
        }
        Some(())
    }
}

/// Why an entry does not go into the books.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error("the transfer {0:?} is in the books already")]
    Exists(TransferId),
    #[error("the transfer {0:?} is not in the books")]
    Missing(TransferId),
    #[error("the transfer {0:?} is no longer pending")]
    NotPending(TransferId),
    #[error("the account {0:?} would overflow")]
    Overflow(Account),
}

/// What is wrong with a set of books.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("debits and credits of {asset} differ for {tenant}: {debits} and {credits}")]
    NotZeroSum { tenant: TenantId, asset: AssetId, debits: u128, credits: u128 },
    #[error("the balance of {account:?} is {stored:?} but its transfers add up to {derived:?}")]
    Balance { account: Account, stored: Box<Balance>, derived: Box<Balance> },
    #[error("{0:?} does not fit 128 bits")]
    Overflow(Account),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Transfer {
    tenant: TenantId,
    money: Money,
    phase: Phase,
}

/// The books in memory: what every store must agree with.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    transfers: BTreeMap<TransferId, Transfer>,
    balances: BTreeMap<Account, Balance>,
}

impl Ledger {
    /// Applies all entries, or none of them.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        let mut next = self.clone_touched(entries);
        for entry in entries {
            next.apply_one(entry)?;
        }
        self.transfers.extend(next.transfers);
        self.balances.extend(next.balances);
        Ok(())
    }

    pub fn balance(&self, account: &Account) -> Balance {
        self.balances.get(account).copied().unwrap_or_default()
    }

    pub fn balances(&self) -> impl Iterator<Item = (&Account, &Balance)> {
        self.balances.iter()
    }

    pub fn phase(&self, id: TransferId) -> Option<Phase> {
        self.transfers.get(&id).map(|transfer| transfer.phase)
    }

    /// All transfers in the order of their names.
    pub fn transfers(&self) -> impl Iterator<Item = (TransferId, &TenantId, &Money, Phase)> {
        self.transfers.iter().map(|(id, t)| (*id, &t.tenant, &t.money, t.phase))
    }

    /// Forgets the transfers of a payment, if all of them are voided: such count in no balance. Returns whether it did.
    pub fn forget_voided(&mut self, payment: PaymentId) -> bool {
        let own = |id: &TransferId| id.payment == payment;
        let voided = self.transfers.iter().filter(|(id, _)| own(id)).all(|(_, t)| t.phase == Phase::Voided);
        if voided {
            self.transfers.retain(|id, _| !own(id));
        }
        voided
    }

    /// Re-derives every balance from the transfers and checks that each tenant's assets sum to zero.
    pub fn check(&self) -> Result<(), CheckError> {
        Self::check_rows(self.transfers(), self.balances.iter().map(|(a, b)| (a.clone(), *b)))
    }

    /// The same check over rows that a store read from its own tables.
    pub fn check_rows<'a>(
        transfers: impl Iterator<Item = (TransferId, &'a TenantId, &'a Money, Phase)>,
        balances: impl Iterator<Item = (Account, Balance)>,
    ) -> Result<(), CheckError> {
        let mut derived: BTreeMap<Account, Balance> = BTreeMap::new();
        for (id, tenant, money, phase) in transfers {
            let (debit, credit) = accounts(id, tenant, money);
            for (account, side) in [(debit, Side::Debit), (credit, Side::Credit)] {
                let balance = derived.entry(account.clone()).or_default();
                balance.shift(side, None, phase, money.atoms()).ok_or(CheckError::Overflow(account))?;
            }
        }
        let mut sums: BTreeMap<(TenantId, AssetId), (u128, u128)> = BTreeMap::new();
        for (account, stored) in balances {
            let expected = derived.remove(&account).unwrap_or_default();
            if stored != expected {
                return Err(CheckError::Balance {
                    account,
                    stored: Box::new(stored),
                    derived: Box::new(expected),
                });
            }
            let sum = sums.entry((account.tenant.clone(), account.asset.clone())).or_default();
            sum.0 = add(sum.0, stored.debits_posted, &account)?;
            sum.1 = add(sum.1, stored.credits_posted, &account)?;
        }
        // An account that has transfers but no stored balance has lost it.
        if let Some((account, expected)) = derived.into_iter().find(|(_, b)| *b != Balance::default()) {
            return Err(CheckError::Balance { account, stored: Box::default(), derived: Box::new(expected) });
        }
        for ((tenant, asset), (debits, credits)) in sums {
            if debits != credits {
                return Err(CheckError::NotZeroSum { tenant, asset, debits, credits });
            }
        }
        Ok(())
    }

    /// A ledger with just what `entries` touch, so that a refused batch leaves no trace.
    fn clone_touched(&self, entries: &[Entry]) -> Self {
        let mut touched = Self::default();
        for entry in entries {
            let id = entry.id();
            if let Some(transfer) = self.transfers.get(&id) {
                touched.copy_balances(self, id, &transfer.tenant, &transfer.money);
                touched.transfers.insert(id, transfer.clone());
            }
            if let Entry::Reserve { tenant, money, .. } | Entry::Transfer { tenant, money, .. } = entry {
                touched.copy_balances(self, id, tenant, money);
            }
        }
        touched
    }

    fn copy_balances(&mut self, from: &Self, id: TransferId, tenant: &TenantId, money: &Money) {
        let (debit, credit) = accounts(id, tenant, money);
        for account in [debit, credit] {
            let balance = from.balance(&account);
            self.balances.entry(account).or_insert(balance);
        }
    }

    fn apply_one(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let id = entry.id();
        let (tenant, money, was) = match entry {
            Entry::Reserve { tenant, money, .. } | Entry::Transfer { tenant, money, .. } => {
                if self.transfers.contains_key(&id) {
                    return Err(LedgerError::Exists(id));
                }
                (tenant.clone(), money.clone(), None)
            }
            Entry::Post { .. } | Entry::Void { .. } => {
                let transfer = self.transfers.get(&id).ok_or(LedgerError::Missing(id))?;
                if transfer.phase != Phase::Pending {
                    return Err(LedgerError::NotPending(id));
                }
                (transfer.tenant.clone(), transfer.money.clone(), Some(Phase::Pending))
            }
        };
        let phase = entry.phase();
        let atoms = money.atoms();
        let (debit, credit) = accounts(id, &tenant, &money);
        for (account, side) in [(debit, Side::Debit), (credit, Side::Credit)] {
            let balance = self.balances.entry(account.clone()).or_default();
            balance.shift(side, was, phase, atoms).ok_or(LedgerError::Overflow(account))?;
        }
        self.transfers.insert(id, Transfer { tenant, money, phase });
        Ok(())
    }
}

fn add(sum: u128, atoms: u128, account: &Account) -> Result<u128, CheckError> {
    sum.checked_add(atoms).ok_or_else(|| CheckError::Overflow(account.clone()))
}
