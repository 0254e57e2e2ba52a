//! The whole check: what is stored against what follows from it.

use std::collections::BTreeMap;

use farthing_engine::{BookCheck, StoreError};
use farthing_ledger::{Account, Balance, Ledger, Phase, Purpose, Side, TransferId};
use farthing_payment::{Delivery, Next, Payment, Proof, Role, SlotState, State};
use farthing_primitives::{AssetId, TenantId, Timestamp};
use rusqlite::Connection;

use crate::apply::hash;
use crate::limits::answer_expires;
use crate::read::{self, CreditRow, PaymentColumns, TransferRow};
use crate::replay::{self, Story};

mod channels;

/// How many problems are told; a broken file would have no end of them.
const MAX_PROBLEMS: usize = 100;

/// After how many payments the progress is told.
const PROGRESS_EVERY: u64 = 500;

/// What a whole check went through, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    pub payments: u64,
    /// Payments whose state and entries were derived again from their history, event by event.
    pub replayed: u64,
    /// Changes of payments.
    pub changes: u64,
    pub transfers: u64,
    pub accounts: u64,
    /// Transfer logs that paid for something.
    pub credits: u64,
    pub responses: u64,
    pub slots: u64,
    pub channels: u64,
    /// What was asked for and paid from channels.
    pub charges: u64,
    /// The newest change of any payment.
    pub newest: Option<Timestamp>,
    /// Empty if all is well; at most a hundred.
    pub problems: Vec<String>,
}

impl From<Checked> for BookCheck {
    fn from(checked: Checked) -> Self {
        let Checked { payments, transfers, accounts, problems, .. } = checked;
        Self { payments, transfers, accounts, problems }
    }
}

/// How far a check has come: payments done, and payments in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Checks that the file is whole; that each payment's state follows from its history by the machine's own rules, and
/// its columns from its state; that its transfers are exactly those that its history books; that every balance
/// follows from its transfers and every tenant's assets sum to zero; that each credited log paid one payment, which
/// says so itself; that slots and payments name each other; and that every answer that is kept can be read.
///
/// What is wrong is a problem; an error is what kept us from looking.
pub(crate) fn check(connection: &Connection, progress: Progress<'_>) -> Result<Checked, StoreError> {
    read::in_one_view(connection, || {
        let mut check = Check::default();
        let sound = read::integrity(connection);
        let sound = check.readable("the file", sound)?;
        sound.unwrap_or_default().into_iter().for_each(|problem| check.problem(problem));
        let total = check.readable("the payments", read::count(connection, "payments"))?.unwrap_or(0);
        let done = read::each_payment_to_check(connection, |id, payment| {
            check.done.payments += 1;
            if check.done.payments % PROGRESS_EVERY == 0 {
                progress(check.done.payments, total);
            }
            let looked = payment.and_then(|(payment, columns)| check.payment(connection, &payment, &columns));
            check.readable(&format!("the payment {id}"), looked).map(|_| ())
        });
        check.readable("the payments", done)?;
        let done = read::each_transfer(connection, |row| {
            match row {
                Ok(row) => check.transfer(&row),
                Err(error) => check.problem(format!("a transfer cannot be read: {error}")),
            }
            Ok(())
        });
        check.readable("the transfers", done)?;
        check.channels(connection)?;
        let done = read::each_slot(connection, |id, slot| {
            check.done.slots += 1;
            let looked = slot.and_then(|slot| check.slot(connection, &slot));
            check.readable(&format!("the slot {id}"), looked).map(|_| ())
        });
        check.readable("the slots", done)?;
        for id in check.readable("the consumption keys", read::held_twice(connection))?.unwrap_or_default() {
            check.problem(format!("{id}: another payment holds its consumption key too"));
        }
        check.orphans(connection)?;
        if let Some(stored) = check.readable("the balances", read::balances(connection, None))? {
            check.balances(stored);
        }
        progress(check.done.payments, total);
        Ok(check.done)
    })
}

#[derive(Debug, Default)]
struct Check {
    done: Checked,
    derived: BTreeMap<Account, Balance>,
    /// Rows that belong to a payment, by table; more than these belong to none.
    owned: Owned,
}

#[derive(Debug, Default)]
struct Owned {
    history: u64,
    transfers: u64,
    responses: u64,
    credits: u64,
    slot_payments: u64,
    charges: u64,
    charge_answers: u64,
}

impl Check {
    fn problem(&mut self, problem: String) {
        if self.done.problems.len() < MAX_PROBLEMS {
            self.done.problems.push(problem);
        }
    }

    /// What cannot be read is a problem, and the rest is looked at all the same.
    fn readable<T>(&mut self, what: &str, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(StoreError::Corrupt(why)) => {
                self.problem(format!("{what} cannot be read: {why}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn payment(
        &mut self,
        connection: &Connection,
        payment: &Payment,
        columns: &PaymentColumns,
    ) -> Result<(), StoreError> {
        let id = payment.id;
        let rows = read::history_rows(connection, payment)?;
        let mut transfers = read::transfers_of(connection, id)?;
        transfers.retain(|row| row.id.purpose != Purpose::SlotGas);
        let credits = read::credits_of(connection, id)?;
        let answered = read::has_response(connection, id)?;
        self.owned.history += rows.len() as u64;
        self.owned.transfers += transfers.len() as u64;
        self.owned.credits += credits.len() as u64;
        self.owned.responses += u64::from(answered.is_some());
        self.done.changes += rows.len() as u64;
        self.done.responses += u64::from(answered.is_some());

        self.done.newest = self.done.newest.max(Some(payment.updated));
        self.columns(payment, columns);
        match replay::tell(payment, &rows) {
            Ok(story) if story.whole => {
                self.done.replayed += 1;
                self.books(&story, &transfers);
            }
            Ok(_) => self.books_by_state(payment, &transfers),
            Err(why) => self.problem(format!("{id}: {why}")),
        }
        self.credits(payment, &credits);
        if columns.answered != answered.is_some() {
            self.problem(format!("{id}: its row and its stored answer disagree about whether there is one"));
        }
        if answered.as_ref().is_some_and(|tenant| *tenant != payment.tenant.as_str()) {
            self.problem(format!("{id}: its stored answer is another tenant's"));
        }
        if payment.delivery == Delivery::Stored && !answer_expires(&payment.state) && answered.is_none() {
            self.problem(format!("{id}: its answer is to be sent once it is paid, and is gone"));
        }
        // Reading it checks its seal.
        read::response(connection, id).map(|_| ())
    }

    /// What is queried has a column, and each follows from the payment.
    fn columns(&mut self, payment: &Payment, columns: &PaymentColumns) {
        let id = payment.id;
        let derived = [
            ("open", columns.open, payment.next() != Next::Rest),
            ("exposed", columns.exposed, payment.is_exposed()),
            ("released", columns.released, payment.releases_claim()),
        ];
        for (name, stored, derived) in derived {
            if stored != derived {
                self.problem(format!("{id}: its column {name} is {stored}, but follows to be {derived}"));
            }
        }
        if columns.key_hash != hash(payment.key.as_str()) {
            self.problem(format!("{id}: its claim is not on its own consumption key"));
        }
    }

    /// The transfers must be exactly those that the story books.
    fn books(&mut self, story: &Story, transfers: &[TransferRow]) {
        let id = story.payment.id;
        let mut ledger = Ledger::default();
        let entries = story.chapters.iter().map(|chapter| &chapter.entries);
        for entries in std::iter::once(&story.claimed).chain(entries) {
            if let Err(error) = ledger.apply(entries) {
                self.problem(format!("{id}: its history does not fit the books: {error}"));
                return;
            }
        }
        let mut expected: Vec<TransferRow> = ledger
            .transfers()
            .map(|(id, tenant, money, phase)| TransferRow {
                id,
                tenant: tenant.clone(),
                money: money.clone(),
                phase,
            })
            .collect();
        expected.sort_by_key(|row| row.id);
        for row in expected.iter().filter(|row| !transfers.contains(row)) {
            self.problem(format!("{id}: the books miss its {}", tell(row)));
        }
        for row in transfers.iter().filter(|row| !expected.contains(row)) {
            self.problem(format!(
                "{id}: the books have a {}, which nothing in its history booked",
                tell(row)
            ));
        }
    }

    /// For payments whose history was begun by the first schema, which kept less.
    fn books_by_state(&mut self, payment: &Payment, transfers: &[TransferRow]) {
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

    /// A payment that says it was paid by a log has that log to itself, and no other.
    fn credits(&mut self, payment: &Payment, credits: &[CreditRow]) {
        self.done.credits += credits.len() as u64;
        let own = proof(&payment.state).map(|proof| CreditRow {
            network: payment.terms.money.asset().network().as_str().to_owned(),
            tx: proof.tx.as_str().to_owned(),
            log_index: proof.log_index,
            tenant: payment.tenant.as_str().to_owned(),
        });
        let id = payment.id;
        if let Some(own) = &own
            && !credits.contains(own)
        {
            self.problem(format!(
                "{id}: log {} of {} paid it, and is not credited to it",
                own.log_index, own.tx
            ));
        }
        for credit in credits.iter().filter(|credit| Some(*credit) != own.as_ref()) {
            let CreditRow { log_index, tx, .. } = credit;
            self.problem(format!("{id}: log {log_index} of {tx} is credited to it, and did not pay it"));
        }
    }

    fn transfer(&mut self, row: &TransferRow) {
        self.done.transfers += 1;
        let (debit, credit) = row.id.purpose.accounts();
        for (kind, side) in [(debit, Side::Debit), (credit, Side::Credit)] {
            let account = Account { tenant: row.tenant.clone(), kind, asset: row.money.asset().clone() };
            let balance = self.derived.entry(account).or_default();
            if balance.shift(side, None, row.phase, row.money.atoms()).is_none() {
                self.problem(format!("the accounts of {:?} do not fit 128 bits", row.id));
            }
        }
    }

    /// What belongs to no payment, and no slot.
    fn orphans(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let of = [
            ("history", self.owned.history, "changes"),
            ("transfers", self.owned.transfers, "transfers"),
            ("responses", self.owned.responses, "answers"),
            ("credits", self.owned.credits, "credited logs"),
            ("slot_payments", self.owned.slot_payments, "lines of slots"),
            ("charges", self.owned.charges, "charges"),
            ("charge_answers", self.owned.charge_answers, "answers of charges"),
        ];
        for (table, owned, what) in of {
            let rows = self.readable(what, read::count(connection, table))?.unwrap_or(owned);
            if rows != owned {
                let orphans = rows.abs_diff(owned);
                self.problem(format!("{orphans} {what} belong to nothing that can be read"));
            }
        }
        Ok(())
    }

    fn slot(&mut self, connection: &Connection, slot: &farthing_payment::Slot) -> Result<(), StoreError> {
        let id = slot.id;
        let mut named = slot.payments.clone();
        named.sort();
        named.dedup();
        let mut gas = read::transfers_of(connection, TransferId::of_slot(id).payment)?;
        gas.retain(|row| row.id.purpose == Purpose::SlotGas);
        self.slot_gas(slot, &gas);
        let stored = read::payments_of_slot(connection, id)?;
        self.owned.slot_payments += stored.len() as u64;
        if stored != named {
            self.problem(format!("{id}: it names {} payments, and {} name it", named.len(), stored.len()));
        }
        for payment in named {
            match read::payment(connection, payment) {
                Ok(None) => self.slot_of_channel(connection, slot, payment)?,
                Ok(Some(payment)) if *payment.terms.money.asset().network() != slot.network => {
                    self.problem(format!("{id}: its payment {} is on another network", payment.id));
                }
                // One that cannot be read was told already.
                Ok(Some(_)) | Err(StoreError::Corrupt(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if let SlotState::Included { tx, .. } | SlotState::Final { tx } = &slot.state
            && !slot.variants.iter().any(|variant| variant.tx == *tx)
        {
            self.problem(format!("{id}: it was filled by {tx}, which is none of its own transactions"));
        }
        Ok(())
    }

    /// What the transaction of a slot cost is booked once, and only of one that is done with.
    fn slot_gas(&mut self, slot: &farthing_payment::Slot, transfers: &[TransferRow]) {
        self.owned.transfers += transfers.len() as u64;
        let own = TransferId::of_slot(slot.id);
        for row in transfers {
            let done = matches!(slot.state, SlotState::Final { .. } | SlotState::Included { .. });
            if row.id != own || row.phase != Phase::Posted || !done {
                self.problem(format!(
                    "{}: it is {}, and the books have its {}",
                    slot.id,
                    slot.state.name(),
                    tell(row)
                ));
            }
        }
    }

    fn balances(&mut self, stored: Vec<(Account, Balance)>) {
        let mut sums: BTreeMap<(TenantId, AssetId), (Balance, bool)> = BTreeMap::new();
        for (account, balance) in stored {
            self.done.accounts += 1;
            let derived = self.derived.remove(&account).unwrap_or_default();
            if derived != balance {
                self.problem(format!(
                    "the balance of {} is {balance:?}, but its transfers add up to {derived:?}",
                    name(&account)
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
            self.problem(format!(
                "{} has no balance, but its transfers add up to {derived:?}",
                name(&account)
            ));
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

fn name(account: &Account) -> String {
    format!("{} {} {}", account.tenant, account.kind, account.asset)
}

fn tell(row: &TransferRow) -> String {
    let TransferRow { id, tenant, money, phase } = row;
    let (atoms, asset) = (money.atoms(), money.asset());
    let phase = read::phase_name(*phase);
    format!("{} of round {}: {atoms} atoms of {asset}, {phase}, for {tenant}", id.purpose, id.round)
}

fn proof(state: &State) -> Option<&Proof> {
    match state {
        State::Confirming { proof, .. }
        | State::Settled { proof, .. }
        | State::Refunding { proof, .. }
        | State::Refunded { proof, .. } => Some(proof),
        _ => None,
    }
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
