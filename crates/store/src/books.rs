//! Balances and exposure as the writer keeps them between groups, so that a group writes each account once.

use std::collections::HashMap;

use farthing_ledger::{Account, Balance, Entry, LedgerError, Phase, Side, TransferId};
use farthing_payment::Payment;
use farthing_primitives::{Address, AssetId, Money, TenantId};
use rusqlite::{Connection, OptionalExtension, params};

use crate::apply::Fail;
use crate::read::{self, TransferRow};
use crate::record::asset_column;

/// What one change does to the balances, apart until all of the change has succeeded.
pub(crate) type Touched = Vec<(Account, Balance)>;

/// Every balance that was touched since the file was opened. Only this process writes (see `schema::lock`).
#[derive(Debug, Default)]
pub(crate) struct Books {
    balances: HashMap<Account, Kept>,
    /// Accounts that changed in this group.
    changed: Vec<Account>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    balance: Balance,
    changed: bool,
}

impl Books {
    /// Writes the transfers of `entries` and says what they do to the balances.
    pub(crate) fn apply(&mut self, connection: &Connection, entries: &[Entry]) -> Result<Touched, Fail> {
        let mut touched = Touched::with_capacity(entries.len() * 2);
        for entry in entries {
            self.apply_one(connection, entry, &mut touched)?;
        }
        Ok(touched)
    }

    /// The change has succeeded.
    pub(crate) fn keep(&mut self, touched: Touched) {
        for (account, balance) in touched {
            match self.balances.get_mut(&account) {
                Some(kept) if kept.changed => kept.balance = balance,
                Some(kept) => {
                    *kept = Kept { balance, changed: true };
                    self.changed.push(account);
                }
                None => {
                    self.changed.push(account.clone());
                    self.balances.insert(account, Kept { balance, changed: true });
                }
            }
        }
    }

    /// Writes what the group changed.
    pub(crate) fn flush(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut write = connection.prepare_cached(
            "INSERT INTO balances (tenant, kind, asset, debits_posted, credits_posted, debits_pending, \
             credits_pending) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, kind, asset) DO UPDATE \
             SET debits_posted = ?4, credits_posted = ?5, debits_pending = ?6, credits_pending = ?7",
        )?;
        for account in self.changed.drain(..) {
            let Some(kept) = self.balances.get_mut(&account) else { continue };
            kept.changed = false;
            let balance = kept.balance;
            write.execute(params![
                account.tenant.as_str(),
                account.kind.as_str(),
                asset_column(&account.asset),
                balance.debits_posted.to_be_bytes(),
                balance.credits_posted.to_be_bytes(),
                balance.debits_pending.to_be_bytes(),
                balance.credits_pending.to_be_bytes(),
            ])?;
        }
        Ok(())
    }

    /// The group was rolled back: what is kept here may say more than the file.
    pub(crate) fn forget(&mut self) {
        self.balances.clear();
        self.changed.clear();
    }

    fn apply_one(&self, connection: &Connection, entry: &Entry, touched: &mut Touched) -> Result<(), Fail> {
        let id = entry.id();
        match entry {
            Entry::Reserve { tenant, money, .. } | Entry::Transfer { tenant, money, .. } => {
                let row =
                    TransferRow { id, tenant: tenant.clone(), money: money.clone(), phase: entry.phase() };
                if !insert_transfer(connection, &row)? {
                    return Err(books(&LedgerError::Exists(id)));
                }
                self.shift(connection, &row, None, touched)
            }
            Entry::Post { .. } | Entry::Void { .. } => {
                let row = read::transfer(connection, id)?.ok_or_else(|| books(&LedgerError::Missing(id)))?;
                if row.phase != Phase::Pending {
                    return Err(books(&LedgerError::NotPending(id)));
                }
                let row = TransferRow { phase: entry.phase(), ..row };
                update_phase(connection, id, row.phase)?;
                self.shift(connection, &row, Some(Phase::Pending), touched)
            }
        }
    }

    /// Moves the transfer's atoms on its two accounts from where they were to where they are now.
    fn shift(
        &self,
        connection: &Connection,
        row: &TransferRow,
        was: Option<Phase>,
        touched: &mut Touched,
    ) -> Result<(), Fail> {
        let (debit, credit) = row.id.purpose.accounts();
        let atoms = row.money.atoms();
        for (kind, side) in [(debit, Side::Debit), (credit, Side::Credit)] {
            let account = Account { tenant: row.tenant.clone(), kind, asset: row.money.asset().clone() };
            let index = match touched.iter().position(|(other, _)| *other == account) {
                Some(index) => index,
                None => {
                    let balance = self.balance(connection, &account)?;
                    touched.push((account.clone(), balance));
                    touched.len() - 1
                }
            };
            let Some((_, balance)) = touched.get_mut(index) else { continue };
            balance
                .shift(side, was, row.phase, atoms)
                .ok_or_else(|| books(&LedgerError::Overflow(account)))?;
        }
        Ok(())
    }

    fn balance(&self, connection: &Connection, account: &Account) -> Result<Balance, Fail> {
        if let Some(kept) = self.balances.get(account) {
            return Ok(kept.balance);
        }
        let mut select = connection.prepare_cached(
            "SELECT debits_posted, credits_posted, debits_pending, credits_pending FROM balances \
             WHERE tenant = ?1 AND kind = ?2 AND asset = ?3",
        )?;
        let keys = params![account.tenant.as_str(), account.kind.as_str(), asset_column(&account.asset)];
        Ok(select.query_row(keys, |row| read::balance(row, 0)).optional()?.unwrap_or_default())
    }
}

/// Whether it was not there yet.
fn insert_transfer(connection: &Connection, row: &TransferRow) -> rusqlite::Result<bool> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO transfers (payment, round, purpose, tenant, phase, asset, atoms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?;
    let changed = insert.execute(params![
        row.id.payment.to_bytes(),
        row.id.round,
        row.id.purpose.as_str(),
        row.tenant.as_str(),
        read::phase_name(row.phase),
        asset_column(row.money.asset()),
        row.money.atoms().to_be_bytes(),
    ])?;
    Ok(changed == 1)
}

fn update_phase(connection: &Connection, id: TransferId, phase: Phase) -> rusqlite::Result<usize> {
    let mut update = connection.prepare_cached(
        "UPDATE transfers SET phase = ?4 WHERE payment = ?1 AND round = ?2 AND purpose = ?3",
    )?;
    update.execute(params![id.payment.to_bytes(), id.round, id.purpose.as_str(), read::phase_name(phase)])
}

fn books(error: &LedgerError) -> Fail {
    Fail::Refused(farthing_engine::StoreError::Books(error.to_string()))
}

/// By tenant, payee and asset: what all payers owe, and what each does. `None` is a sum beyond 128 bits.
type Owed = HashMap<(TenantId, Address, AssetId), Debts>;

#[derive(Debug)]
struct Debts {
    total: Option<u128>,
    of_payer: HashMap<Address, Option<u128>>,
}

/// What each payee is owed for what was served and is not settled. Read from the file when first needed.
#[derive(Debug, Default)]
pub(crate) struct Exposure {
    owed: Option<Owed>,
}

impl Exposure {
    /// What the payer of `payment` and everybody owes its payee, besides `payment` itself.
    pub(crate) fn of(
        &mut self,
        connection: &Connection,
        payment: &Payment,
    ) -> Result<(Option<u128>, Option<u128>), Fail> {
        let owed = match self.owed.take() {
            Some(owed) => owed,
            None => load(connection)?,
        };
        let owed = self.owed.insert(owed);
        let Some(debts) = owed.get(&key(payment)) else { return Ok((Some(0), Some(0))) };
        Ok((debts.of_payer.get(&payment.terms.payer).copied().unwrap_or(Some(0)), debts.total))
    }

    /// The change has succeeded: the payment was exposed or not, and is so now or not.
    pub(crate) fn keep(&mut self, payment: &Payment, was: bool, is: bool) {
        let Some(owed) = &mut self.owed else { return };
        let (payer, money) = (&payment.terms.payer, &payment.terms.money);
        match (was, is) {
            (false, true) => add(owed, key(payment), payer.clone(), money),
            // A sum that was beyond 128 bits can only be taken anew.
            (true, false) if remove(owed, payment).is_none() => self.owed = None,
            _ => {}
        }
    }

    pub(crate) fn forget(&mut self) {
        self.owed = None;
    }
}

fn load(connection: &Connection) -> Result<Owed, Fail> {
    let mut owed = Owed::new();
    read::each_exposed(connection, |tenant, payer, payee, money| {
        let key = (tenant, payee, money.asset().clone());
        add(&mut owed, key, payer, &money);
    })?;
    Ok(owed)
}

fn key(payment: &Payment) -> (TenantId, Address, AssetId) {
    (payment.tenant.clone(), payment.terms.payee.clone(), payment.terms.money.asset().clone())
}

fn add(owed: &mut Owed, key: (TenantId, Address, AssetId), payer: Address, money: &Money) {
    let plus = |sum: Option<u128>| sum.and_then(|sum| sum.checked_add(money.atoms()));
    let debts = owed.entry(key).or_insert_with(|| Debts { total: Some(0), of_payer: HashMap::new() });
    debts.total = plus(debts.total);
    let of_payer = debts.of_payer.entry(payer).or_insert(Some(0));
    *of_payer = plus(*of_payer);
}

/// `None` if it cannot be told any more what is owed.
fn remove(owed: &mut Owed, payment: &Payment) -> Option<()> {
    let key = key(payment);
    let debts = owed.get_mut(&key)?;
    let atoms = payment.terms.money.atoms();
    let total = debts.total?.checked_sub(atoms)?;
    let of_payer = (*debts.of_payer.get(&payment.terms.payer)?)?.checked_sub(atoms)?;
    debts.total = Some(total);
    if of_payer == 0 {
        debts.of_payer.remove(&payment.terms.payer);
    } else {
        debts.of_payer.insert(payment.terms.payer.clone(), Some(of_payer));
    }
    if debts.of_payer.is_empty() {
        owed.remove(&key);
    }
    Some(())
}
