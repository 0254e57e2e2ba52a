//! Questions to the store, on any connection.

use farthing_engine::{PaymentFilter, StoreError, StoredResponse, StoredSlot};
use farthing_ledger::{Account, AccountKind, Balance, Phase, Purpose, TransferId};
use farthing_payment::{ConsumptionKey, Payment, Slot, SlotState};
use farthing_primitives::{
    Address, AssetId, AttemptId, Money, Network, PaymentId, SlotId, TenantId, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::apply::hash;
use crate::limits::capped_rows;
use crate::record::{
    AddressColumn, OwnedAddress, TermsColumns, asset, asset_column, decode_response, decode_slot,
    decode_state, decode_terms, delivery, int, uint,
};

/// What SQLite's errors mean to the caller.
pub(crate) fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::{Error, ErrorCode};
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::InvalidColumnType(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..) => StoreError::Corrupt(error.to_string()),
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Corrupt(error.to_string())
            }
            _ => StoreError::Down(error.to_string()),
        },
    }
}

type Answer<T> = Result<T, StoreError>;

/// The columns that [`to_payment`] takes, in its order.
macro_rules! select_payments {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, version, round, state, delivery, created, updated, payer, payee, asset, atoms, \
             detail, terms FROM payments ",
            $rest
        )
    };
}

macro_rules! select_slots {
    ($rest:literal) => {
        concat!("SELECT id, version, network, relayer, nonce, state, updated, body FROM slots ", $rest)
    };
}

// Conditions are word for word those of the partial indexes, or SQLite would not use them.
const HOLDER: &str = select_payments!("WHERE key_hash = ?1 AND released = 0");
const UNFINISHED: &str = select_payments!("WHERE open = 1 AND id > ?1 ORDER BY id LIMIT ?2");
const SETTLED_SINCE: &str =
    select_payments!("WHERE state = 'settled' AND updated >= ?1 ORDER BY updated DESC, id DESC LIMIT ?2");
const EXPOSED_TO: &str =
    "SELECT payer, atoms FROM payments WHERE exposed = 1 AND tenant = ?1 AND payee = ?2 AND asset = ?3";
/// Left to itself, SQLite would read all slots that the relayer ever had.
const LIVE_SLOTS: &str = select_slots!(
    "INDEXED BY slots_live WHERE network = ?1 AND relayer = ?2 AND state IN ('open', 'included') \
     ORDER BY nonce, id"
);
const LAST_NONCE: &str = "SELECT max(nonce) FROM slots WHERE network = ?1 AND relayer = ?2";
/// Payments whose stored answers expire (see `limits::answer_expires`).
pub(crate) const ERASABLE: &str = "SELECT seq, id FROM payments WHERE answered = 1 AND state IN ('settled', 'refused', 'failed', 'refunded') \
     AND updated < ?1 ORDER BY updated LIMIT ?2";

pub(crate) fn payment(connection: &Connection, id: PaymentId) -> Answer<Option<Payment>> {
    one_payment(connection, select_payments!("WHERE id = ?1"), &[&id.to_bytes()])
}

pub(crate) fn holder(connection: &Connection, key: &ConsumptionKey) -> Answer<Option<Payment>> {
    one_payment(connection, HOLDER, &[&hash(key.as_str())])
}

pub(crate) fn unfinished(
    connection: &Connection,
    after: Option<PaymentId>,
    limit: usize,
) -> Answer<Vec<Payment>> {
    some_payments(connection, UNFINISHED, &[&after_bytes(after), &capped_rows(limit)])
}

pub(crate) fn settled_since(connection: &Connection, since: Timestamp, limit: usize) -> Answer<Vec<Payment>> {
    some_payments(connection, SETTLED_SINCE, &[&int(since.millis())?, &capped_rows(limit)])
}

pub(crate) fn payments(connection: &Connection, filter: &PaymentFilter) -> Answer<Vec<Payment>> {
    let sql = select_payments!(
        "WHERE id > ?1 AND (?2 IS NULL OR tenant = ?2) AND (?3 IS NULL OR payer = ?3) ORDER BY id LIMIT ?4"
    );
    let tenant = filter.tenant.as_ref().map(TenantId::as_str);
    let payer = filter.payer.as_ref().map(AddressColumn::of);
    some_payments(connection, sql, &[&after_bytes(filter.after), &tenant, &payer, &capped_rows(filter.limit)])
}

/// Every id is more than no bytes.
fn after_bytes(after: Option<PaymentId>) -> Vec<u8> {
    after.map(|id| id.to_bytes().to_vec()).unwrap_or_default()
}

fn one_payment(connection: &Connection, sql: &str, params: &[&dyn ToSql]) -> Answer<Option<Payment>> {
    Ok(some_payments(connection, sql, params)?.pop())
}

fn some_payments(connection: &Connection, sql: &str, params: &[&dyn ToSql]) -> Answer<Vec<Payment>> {
    collect(connection, sql, params, to_payment)
}

fn collect<T>(
    connection: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
    to: impl Fn(&Row<'_>) -> Answer<T>,
) -> Answer<Vec<T>> {
    let mut found = Vec::new();
    each(connection, sql, params, |row| {
        found.push(to(row)?);
        Ok(())
    })?;
    Ok(found)
}

fn each(
    connection: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
    mut with: impl FnMut(&Row<'_>) -> Answer<()>,
) -> Answer<()> {
    let mut select = connection.prepare_cached(sql).map_err(|error| store_error(&error))?;
    let mut rows = select.query(params).map_err(|error| store_error(&error))?;
    while let Some(row) = rows.next().map_err(|error| store_error(&error))? {
        with(row)?;
    }
    Ok(())
}

fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, index: usize) -> Answer<T> {
    row.get(index).map_err(|error| store_error(&error))
}

fn blob<'a>(row: &'a Row<'_>, index: usize) -> Answer<&'a [u8]> {
    let value = row.get_ref(index).map_err(|error| store_error(&error))?;
    value.as_blob().map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn text<'a>(row: &'a Row<'_>, index: usize) -> Answer<&'a str> {
    let value = row.get_ref(index).map_err(|error| store_error(&error))?;
    value.as_str().map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn tenant(row: &Row<'_>, index: usize) -> Answer<TenantId> {
    let name = text(row, index)?;
    if name == "local" {
        return Ok(TenantId::local());
    }
    name.parse().map_err(|error: farthing_primitives::IdError| StoreError::Corrupt(error.to_string()))
}

fn number(row: &Row<'_>, index: usize) -> Answer<u64> {
    uint(get(row, index)?)
}

fn moment(row: &Row<'_>, index: usize) -> Answer<Timestamp> {
    number(row, index).map(Timestamp::from_millis)
}

fn address(row: &Row<'_>, index: usize) -> Answer<Address> {
    get::<OwnedAddress>(row, index).map(|OwnedAddress(address)| address)
}

fn money(row: &Row<'_>, asset_index: usize, atoms_index: usize) -> Answer<Money> {
    let atoms = u128::from_be_bytes(get(row, atoms_index)?);
    Ok(Money::new(asset(text(row, asset_index)?)?, atoms))
}

fn to_payment(row: &Row<'_>) -> Answer<Payment> {
    let columns =
        TermsColumns { payer: address(row, 8)?, payee: address(row, 9)?, money: money(row, 10, 11)? };
    let (key, role, flow, terms, binding) = decode_terms(blob(row, 13)?, columns)?;
    Ok(Payment {
        id: PaymentId::from_bytes(get(row, 0)?),
        tenant: tenant(row, 1)?,
        version: number(row, 2)?,
        round: get(row, 3)?,
        key,
        role,
        flow,
        terms,
        binding,
        state: decode_state(text(row, 4)?, blob(row, 12)?)?,
        delivery: delivery(text(row, 5)?)?,
        created: moment(row, 6)?,
        updated: moment(row, 7)?,
    })
}

pub(crate) fn history(connection: &Connection, id: PaymentId) -> Answer<Vec<(u64, String, Timestamp)>> {
    // The claim's own line is the payment's row: one row less for each claim to write.
    let sql = "SELECT 0, 'claimed', created FROM payments WHERE id = ?1 UNION ALL \
               SELECT version, event, at FROM history WHERE payment = ?1 ORDER BY 1";
    collect(connection, sql, &[&id.to_bytes()], |row| Ok((number(row, 0)?, get(row, 1)?, moment(row, 2)?)))
}

pub(crate) fn response(connection: &Connection, id: PaymentId) -> Answer<Option<StoredResponse>> {
    let sql = "SELECT head, body FROM responses WHERE payment = ?1";
    let mut found =
        collect(connection, sql, &[&id.to_bytes()], |row| Ok(decode_response(blob(row, 0)?, get(row, 1)?)?))?;
    Ok(found.pop())
}

fn to_slot(row: &Row<'_>) -> Answer<StoredSlot> {
    let network: Network = text(row, 2)?
        .parse()
        .map_err(|error: farthing_primitives::NetworkError| StoreError::Corrupt(error.to_string()))?;
    let slot = Slot {
        id: SlotId::from_bytes(get(row, 0)?),
        network,
        relayer: address(row, 3)?,
        nonce: number(row, 4)?,
        updated: moment(row, 6)?,
        // The rest is in the body.
        attempt: AttemptId::from_bytes([0; 16]),
        payments: Vec::new(),
        variants: Vec::new(),
        state: SlotState::Open,
    };
    Ok(StoredSlot { version: number(row, 1)?, slot: decode_slot(slot, text(row, 5)?, blob(row, 7)?)? })
}

pub(crate) fn slot(connection: &Connection, id: SlotId) -> Answer<Option<StoredSlot>> {
    Ok(collect(connection, select_slots!("WHERE id = ?1"), &[&id.to_bytes()], to_slot)?.pop())
}

pub(crate) fn live_slots(
    connection: &Connection,
    network: &Network,
    relayer: &Address,
) -> Answer<Vec<StoredSlot>> {
    collect(connection, LIVE_SLOTS, &[&network.as_str(), &AddressColumn::of(relayer)], to_slot)
}

pub(crate) fn slots_of(connection: &Connection, id: PaymentId) -> Answer<Vec<StoredSlot>> {
    let sql = select_slots!("WHERE id IN (SELECT slot FROM slot_payments WHERE payment = ?1) ORDER BY id");
    collect(connection, sql, &[&id.to_bytes()], to_slot)
}

pub(crate) fn last_nonce(
    connection: &Connection,
    network: &Network,
    relayer: &Address,
) -> Answer<Option<u64>> {
    let found = collect(connection, LAST_NONCE, &[&network.as_str(), &AddressColumn::of(relayer)], |row| {
        get::<Option<i64>>(row, 0)?.map(uint).transpose()
    })?;
    Ok(found.into_iter().flatten().next())
}

/// What `payer` and everybody owes; `None` is a sum beyond 128 bits.
pub(crate) fn exposure(
    connection: &Connection,
    of: (&TenantId, &Address, &AssetId),
    payer: &Address,
) -> Answer<(Option<u128>, Option<u128>)> {
    let (tenant, payee, asset) = of;
    let (mut of_payer, mut of_all) = (Some(0u128), Some(0u128));
    let keys: [&dyn ToSql; 3] = [&tenant.as_str(), &AddressColumn::of(payee), &asset_column(asset)];
    each(connection, EXPOSED_TO, &keys, |row| {
        let atoms = u128::from_be_bytes(get(row, 1)?);
        of_all = of_all.and_then(|sum| sum.checked_add(atoms));
        if address(row, 0)? == *payer {
            of_payer = of_payer.and_then(|sum| sum.checked_add(atoms));
        }
        Ok(())
    })?;
    Ok((of_payer, of_all))
}

pub(crate) fn each_exposed(
    connection: &Connection,
    mut with: impl FnMut(TenantId, Address, Address, Money),
) -> Answer<()> {
    let sql = "SELECT tenant, payer, payee, asset, atoms FROM payments WHERE exposed = 1";
    each(connection, sql, &[], |row| {
        with(tenant(row, 0)?, address(row, 1)?, address(row, 2)?, money(row, 3, 4)?);
        Ok(())
    })
}

/// One row of the transfers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransferRow {
    pub id: TransferId,
    pub tenant: TenantId,
    pub money: Money,
    pub phase: Phase,
}

pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Posted => "posted",
        Phase::Voided => "voided",
    }
}

fn to_transfer(row: &Row<'_>) -> Answer<TransferRow> {
    let purpose: Purpose = text(row, 2)?
        .parse()
        .map_err(|error: farthing_ledger::UnknownPurpose| StoreError::Corrupt(error.to_string()))?;
    let phase = match text(row, 4)? {
        "pending" => Phase::Pending,
        "posted" => Phase::Posted,
        "voided" => Phase::Voided,
        other => return Err(StoreError::Corrupt(format!("no phase of a transfer: {other:?}"))),
    };
    let id = TransferId { payment: PaymentId::from_bytes(get(row, 0)?), round: get(row, 1)?, purpose };
    Ok(TransferRow { id, tenant: tenant(row, 3)?, money: money(row, 5, 6)?, phase })
}

macro_rules! select_transfers {
    ($rest:literal) => {
        concat!("SELECT payment, round, purpose, tenant, phase, asset, atoms FROM transfers ", $rest)
    };
}

pub(crate) fn transfer(connection: &Connection, id: TransferId) -> Answer<Option<TransferRow>> {
    let sql = select_transfers!("WHERE payment = ?1 AND round = ?2 AND purpose = ?3");
    let keys: [&dyn ToSql; 3] = [&id.payment.to_bytes(), &id.round, &id.purpose.as_str()];
    Ok(collect(connection, sql, &keys, to_transfer)?.pop())
}

pub(crate) fn transfers_of(connection: &Connection, id: PaymentId) -> Answer<Vec<TransferRow>> {
    let mut found =
        collect(connection, select_transfers!("WHERE payment = ?1"), &[&id.to_bytes()], to_transfer)?;
    found.sort_by_key(|row| row.id);
    Ok(found)
}

pub(crate) fn each_transfer(
    connection: &Connection,
    mut with: impl FnMut(TransferRow) -> Answer<()>,
) -> Answer<()> {
    each(connection, select_transfers!("ORDER BY payment, round, purpose"), &[], |row| {
        with(to_transfer(row)?)
    })
}

pub(crate) fn each_payment(
    connection: &Connection,
    mut with: impl FnMut(Payment) -> Answer<()>,
) -> Answer<()> {
    each(connection, select_payments!("ORDER BY id"), &[], |row| with(to_payment(row)?))
}

pub(crate) fn balances(
    connection: &Connection,
    of_tenant: Option<&TenantId>,
) -> Answer<Vec<(Account, Balance)>> {
    let sql = "SELECT tenant, kind, asset, debits_posted, credits_posted, debits_pending, credits_pending \
               FROM balances WHERE ?1 IS NULL OR tenant = ?1";
    let mut found = collect(connection, sql, params![of_tenant.map(TenantId::as_str)], |row| {
        let kind: AccountKind = text(row, 1)?
            .parse()
            .map_err(|error: farthing_ledger::UnknownKind| StoreError::Corrupt(error.to_string()))?;
        let account = Account { tenant: tenant(row, 0)?, kind, asset: asset(text(row, 2)?)? };
        Ok((account, balance(row, 3).map_err(|error| store_error(&error))?))
    })?;
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// The four amounts that start at column `first`.
pub(crate) fn balance(row: &Row<'_>, first: usize) -> rusqlite::Result<Balance> {
    let atoms = |index| row.get(index).map(u128::from_be_bytes);
    Ok(Balance {
        debits_posted: atoms(first)?,
        credits_posted: atoms(first + 1)?,
        debits_pending: atoms(first + 2)?,
        credits_pending: atoms(first + 3)?,
    })
}

/// Runs `questions` on one state of the store, whatever is written meanwhile.
pub(crate) fn in_one_view<T>(connection: &Connection, questions: impl FnOnce() -> Answer<T>) -> Answer<T> {
    connection.execute_batch("BEGIN").map_err(|error| store_error(&error))?;
    let answer = questions();
    let ended = connection.execute_batch("COMMIT").map_err(|error| store_error(&error));
    let answer = answer?;
    ended.map(|()| answer)
}

pub(crate) fn still_fine(connection: &Connection) -> Answer<Vec<String>> {
    connection
        .query_row("PRAGMA quick_check(10)", [], |row| row.get::<_, String>(0))
        .optional()
        .map_err(|error| store_error(&error))
        .map(|found| found.into_iter().filter(|line| line != "ok").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listing that reads the whole table is a listing that fails when it is needed.
    #[test]
    fn listings_use_their_indexes() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema/1.sql")).unwrap();
        let check = |sql: &str, index: &str| {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan: Vec<String> =
                explain.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect();
            assert!(plan.iter().any(|line| line.contains(index)), "{sql}: {plan:?}");
        };
        check(HOLDER, "SEARCH payments USING INDEX payments_key");
        check(UNFINISHED, "SEARCH payments USING INDEX payments_open");
        check(SETTLED_SINCE, "SEARCH payments USING INDEX payments_settled");
        check(EXPOSED_TO, "SEARCH payments USING INDEX payments_exposed");
        check(ERASABLE, "SEARCH payments USING INDEX payments_answered");
        check(LIVE_SLOTS, "SEARCH slots USING INDEX slots_live");
        check(LAST_NONCE, "SEARCH slots USING COVERING INDEX slots_relayer");
    }
}
