//! Channels, as far as their records say what the books must have.
//!
//! A record holds what a channel came to, and not how. So the transfers of its charges are derived one by one, and of
//! what the chain did only the sums.

use farthing_channel::{ChannelId, Charge, ChargeState, Payee, PayeeState};
use farthing_engine::{MAX_KEPT_ANSWERS, StoreError, is_at_work};
use farthing_ledger::{Phase, Purpose, TransferId};
use farthing_payment::Slot;
use farthing_primitives::{Money, PaymentId};
use rusqlite::Connection;

use super::{Check, tell};
use crate::read::channels::{self as read, ChannelColumns, ChargeRow};
use crate::read::{TransferRow, transfers_of};

impl Check {
    /// Each channel with its charges, their answers, and the transfers of both.
    pub(super) fn channels(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let done = read::each_channel_to_check(connection, |id, channel| {
            self.done.channels += 1;
            let looked = channel.and_then(|(payee, columns)| self.channel(connection, &payee, columns));
            self.readable(&format!("the channel {id}"), looked).map(|_| ())
        });
        self.readable("the channels", done).map(|_| ())
    }

    fn channel(
        &mut self,
        connection: &Connection,
        payee: &Payee,
        columns: ChannelColumns,
    ) -> Result<(), StoreError> {
        let id = payee.terms().id;
        self.done.newest = self.done.newest.max(Some(payee.updated()));
        if columns.work != is_at_work(payee) {
            self.problem(format!(
                "{id}: its row and its record disagree about whether something is left to do"
            ));
        }
        let mut atoms = Some(0u128);
        let mut running = 0;
        let mut kept = 0;
        let done = read::each_charge_to_check(connection, id, |charge, row| {
            self.done.charges += 1;
            self.owned.charges += 1;
            let looked = row.and_then(|row| {
                atoms = atoms.and_then(|sum| sum.checked_add(row.charge.atoms));
                running += usize::from(row.charge.state == ChargeState::Running);
                kept += self.charge(connection, payee, &row)?;
                Ok(())
            });
            self.readable(&format!("the charge {charge}"), looked).map(|_| ())
        });
        self.readable("the charges", done)?;
        if atoms != Some(payee.spent()) {
            self.problem(format!("{id}: it spent {}, and its charges add up to {atoms:?}", payee.spent()));
        }
        if running != payee.running().count() {
            self.problem(format!(
                "{id}: {running} charges are running that it does not know of, or the other way"
            ));
        }
        if kept > MAX_KEPT_ANSWERS {
            self.problem(format!("{id}: it keeps {kept} answers"));
        }
        self.what_the_chain_did(connection, payee)
    }

    /// The transfers of a charge are exactly those that its end books. Returns how many answers are kept of it.
    fn charge(
        &mut self,
        connection: &Connection,
        payee: &Payee,
        row: &ChargeRow,
    ) -> Result<usize, StoreError> {
        let ChargeRow { tenant, charge, .. } = row;
        let id = charge.id;
        if tenant != payee.tenant() {
            self.problem(format!("{id}: it is another tenant's than its channel"));
        }
        if charge.state == ChargeState::Running && payee.running().all(|running| running != charge) {
            self.problem(format!("{id}: it is running, and its channel does not know it so"));
        }
        let found = transfers_of(connection, id)?;
        self.owned.transfers += found.len() as u64;
        let expected = booked(payee, charge);
        for row in expected.iter().filter(|row| !found.contains(row)) {
            self.problem(format!("{id}: the books miss its {}", tell(row)));
        }
        for row in found.iter().filter(|row| !expected.contains(row)) {
            self.problem(format!("{id}: the books have a {}, which it did not book", tell(row)));
        }
        let Some((of, channel)) = read::answer_of(connection, id)? else { return Ok(0) };
        self.owned.charge_answers += 1;
        if of != payee.tenant().as_str() || channel != payee.terms().id {
            self.problem(format!("{id}: its answer is another channel's, or another tenant's"));
        }
        if charge.state != ChargeState::Served {
            self.problem(format!("{id}: its answer is kept, and it was not served"));
        }
        // Reading it checks its seal.
        read::charge_answer(connection, id).map(|_| 1)
    }

    /// Deposits, settlements and what was released or written off: each adds up to what the record says.
    fn what_the_chain_did(&mut self, connection: &Connection, payee: &Payee) -> Result<(), StoreError> {
        let id = payee.terms().id;
        let mut found = transfers_of(connection, payee.book())?;
        found.retain(|row| row.id.purpose != Purpose::SlotGas);
        self.owned.transfers += found.len() as u64;
        let over = *payee.state() == PayeeState::Finalized;
        let at_end = |atoms: u128| if over { atoms } else { 0 };
        let sums = [
            (Purpose::Deposit, payee.deposit()),
            (Purpose::Settlement, payee.settled()),
            (Purpose::Claim, payee.settled()),
            (Purpose::Release, at_end(payee.deposit().saturating_sub(payee.settled()))),
            (Purpose::WriteOff, at_end(payee.spent().saturating_sub(payee.settled()))),
        ];
        for (purpose, expected) in sums {
            let of_purpose = found.iter().filter(|row| row.id.purpose == purpose);
            let sum = of_purpose.map(|row| row.money.atoms()).try_fold(0u128, u128::checked_add);
            if sum != Some(expected) {
                self.problem(format!("{id}: {purpose} adds up to {sum:?}, and its record says {expected}"));
            }
        }
        for row in &found {
            let known = sums.iter().any(|(purpose, _)| *purpose == row.id.purpose);
            let asset = !known || row.money.asset() == &payee.terms().asset;
            let sound = (known || row.id.purpose == Purpose::Gas) && asset;
            if !sound || row.phase != Phase::Posted || row.tenant != *payee.tenant() {
                self.problem(format!("{id}: the books have a {}, which no channel books", tell(row)));
            }
        }
        Ok(())
    }

    /// A slot that names no payment names a channel, by its books.
    pub(super) fn slot_of_channel(
        &mut self,
        connection: &Connection,
        slot: &Slot,
        book: PaymentId,
    ) -> Result<(), StoreError> {
        let id = slot.id;
        match read::channel_of_book(connection, book) {
            Ok(None) => self.problem(format!("{id}: its payment {book} is missing")),
            Ok(Some(payee)) if *payee.terms().asset.network() != slot.network => {
                let channel: ChannelId = payee.terms().id;
                self.problem(format!("{id}: its channel {channel} is on another network"));
            }
            // One that cannot be read was told already.
            Ok(Some(_)) | Err(StoreError::Corrupt(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// What a charge has in the books: what was set aside for it, and what it came to.
fn booked(payee: &Payee, charge: &Charge) -> Vec<TransferRow> {
    let asset = &payee.terms().asset;
    let sale = |round, atoms, phase| TransferRow {
        id: TransferId { payment: charge.id, round, purpose: Purpose::Sale },
        tenant: payee.tenant().clone(),
        money: Money::new(asset.clone(), atoms),
        phase,
    };
    let most = charge.most_units.and_then(|units| charge.price.most(units).ok()).unwrap_or(0);
    let mut rows = Vec::with_capacity(2);
    if charge.state == ChargeState::Running {
        if most > 0 {
            rows.push(sale(0, most, Phase::Pending));
        }
        return rows;
    }
    if most > 0 && charge.atoms == most {
        return vec![sale(0, most, Phase::Posted)];
    }
    if most > 0 {
        rows.push(sale(0, most, Phase::Voided));
    }
    if charge.atoms > 0 {
        rows.push(sale(u16::from(most > 0), charge.atoms, Phase::Posted));
    }
    rows
}
