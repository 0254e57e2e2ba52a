//! Questions to the store, on any connection.

use farthing_engine::{PaymentFilter, StoreError, StoredResponse, StoredSlot};
use farthing_ledger::{Account, AccountKind, Balance, Phase, Purpose, TransferId};
use farthing_payment::{ConsumptionKey, Payment, Slot, SlotState};
use farthing_primitives::{
    Address, AssetId, AttemptId, Money, Network, PaymentId, SlotId, TenantId, Timestamp,
};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, ToSql, params};

use crate::apply::hash;
use crate::limits::{capped_rows, made_at};
use crate::record::{
    AddressColumn, OwnedAddress, OwnedTx, TermsColumns, asset, asset_column, check_slot, check_state,
    check_terms, decode_response, decode_slot, decode_state, decode_terms, delivery, int, uint,
};
use crate::replay::{After, HistoryRow};

pub(crate) mod channels;

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
        select_payments!("", $rest)
    };
    ($more:literal, $rest:literal) => {
        concat!(
            "SELECT id, tenant, version, round, state, delivery, created, updated, payer, payee, asset, atoms, \
             detail, terms",
            $more,
            " FROM payments ",
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
const LIVE_HOLDER: &str = select_payments!("WHERE key_hash = ?1 AND open = 1 AND released = 0");
const HOLDER: &str = select_payments!("WHERE key_hash = ?1 AND open = 0 AND released = 0");
/// Whether anybody holds a key.
const HELD: &str = "SELECT 1 FROM payments WHERE key_hash = ?1 AND open = 1 AND released = 0 \
     UNION ALL SELECT 1 FROM payments WHERE key_hash = ?1 AND open = 0 AND released = 0";
/// Each of the two indexes on keys has a key once; this finds those that both have.
const HELD_TWICE: &str = "SELECT live.id FROM payments AS live INDEXED BY payments_live_key \
     CROSS JOIN payments AS done INDEXED BY payments_key ON done.key_hash = live.key_hash \
     WHERE live.open = 1 AND live.released = 0 AND done.open = 0 AND done.released = 0 ORDER BY live.id";
const UNFINISHED: &str = select_payments!("WHERE open = 1 AND id > ?1 ORDER BY id LIMIT ?2");
const SETTLED_SINCE: &str = select_payments!(
    "WHERE state = 'settled' AND updated >= ?1 AND (updated, id) < (?2, ?3) \
     ORDER BY updated DESC, id DESC LIMIT ?4"
);
const EXPOSED_TO: &str =
    "SELECT payer, atoms FROM payments WHERE exposed = 1 AND tenant = ?1 AND payee = ?2 AND asset = ?3";
/// Left to itself, SQLite would read all slots that the relayer ever had.
const LIVE_SLOTS: &str = select_slots!(
    "INDEXED BY slots_live WHERE network = ?1 AND relayer = ?2 AND state IN ('open', 'included') \
     AND nonce >= ?3 ORDER BY nonce, id LIMIT ?4"
);
const OPEN_SLOTS: &str = select_slots!(
    "INDEXED BY slots_live WHERE network = ?1 AND relayer = ?2 AND state IN ('open', 'included') \
     AND state = 'open' ORDER BY nonce, id"
);
const SLOT_AT: &str = select_slots!("WHERE network = ?1 AND relayer = ?2 AND nonce = ?3 AND state <> 'lost'");
const LAST_NONCE: &str = "SELECT max(nonce) FROM slots WHERE network = ?1 AND relayer = ?2";
/// Payments whose stored answers expire (see `limits::answer_expires`).
pub(crate) const ERASABLE: &str = "SELECT seq, id FROM payments WHERE answered = 1 AND state IN ('settled', 'refused', 'failed', 'refunded') \
     AND updated < ?1 ORDER BY updated LIMIT ?2";

pub(crate) fn payment(connection: &Connection, id: PaymentId) -> Answer<Option<Payment>> {
    one_payment(connection, select_payments!("WHERE id = ?1"), &[&id.to_bytes()])
}

pub(crate) fn holder(connection: &Connection, key: &ConsumptionKey) -> Answer<Option<Payment>> {
    let key_hash = hash(key.as_str());
    match one_payment(connection, LIVE_HOLDER, &[&key_hash])? {
        Some(live) => Ok(Some(live)),
        None => one_payment(connection, HOLDER, &[&key_hash]),
    }
}

pub(crate) fn is_held(connection: &Connection, key_hash: &[u8; 32]) -> rusqlite::Result<bool> {
    connection.prepare_cached(HELD)?.exists([key_hash])
}

/// Payments that hold a key which a finished payment holds as well.
pub(crate) fn held_twice(connection: &Connection) -> Answer<Vec<PaymentId>> {
    collect(connection, HELD_TWICE, &[], |row| get(row, 0).map(PaymentId::from_bytes))
}

pub(crate) fn unfinished(
    connection: &Connection,
    after: Option<PaymentId>,
    limit: usize,
) -> Answer<Vec<Payment>> {
    some_payments(connection, UNFINISHED, &[&after_bytes(after), &capped_rows(limit)])
}

pub(crate) fn settled_since(
    connection: &Connection,
    since: Timestamp,
    after: Option<(Timestamp, PaymentId)>,
    limit: usize,
) -> Answer<Vec<Payment>> {
    let (updated, id) = match after {
        Some((updated, id)) => (int(updated.millis())?, id.to_bytes()),
        None => (i64::MAX, [u8::MAX; 16]),
    };
    some_payments(connection, SETTLED_SINCE, &[&int(since.millis())?, &updated, &id, &capped_rows(limit)])
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

/// Zero or one and nothing else: the conditions of the partial indexes say `= 1` and `= 0`.
fn flag(row: &Row<'_>, index: usize) -> Answer<bool> {
    match get::<i64>(row, index)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(StoreError::Corrupt(format!("neither yes nor no: {other}"))),
    }
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
    let (detail, fixed) = (blob(row, 12)?, blob(row, 13)?);
    let (key, role, flow, terms, binding) = decode_terms(fixed, columns)?;
    let state = decode_state(text(row, 4)?, detail, terms.money.asset().network())?;
    let payment = Payment {
        id: PaymentId::from_bytes(get(row, 0)?),
        tenant: tenant(row, 1)?,
        version: number(row, 2)?,
        round: get(row, 3)?,
        key,
        role,
        flow,
        terms,
        binding,
        state,
        delivery: delivery(text(row, 5)?)?,
        created: moment(row, 6)?,
        updated: moment(row, 7)?,
    };
    check_terms(&payment, fixed)?;
    check_state(&payment, detail)?;
    Ok(payment)
}

pub(crate) fn history(connection: &Connection, id: PaymentId) -> Answer<Vec<(u64, String, Timestamp)>> {
    // The claim's own line is the payment's row: one row less for each claim to write.
    let sql = "SELECT 0, 'claimed', created FROM payments WHERE id = ?1 UNION ALL \
               SELECT version, event, at FROM history WHERE payment = ?1 ORDER BY 1";
    collect(connection, sql, &[&id.to_bytes()], |row| Ok((number(row, 0)?, get(row, 1)?, moment(row, 2)?)))
}

pub(crate) fn response(connection: &Connection, id: PaymentId) -> Answer<Option<StoredResponse>> {
    let sql = "SELECT head, body FROM responses WHERE payment = ?1";
    let mut found = collect(connection, sql, &[&id.to_bytes()], |row| {
        Ok(decode_response(id, blob(row, 0)?, get(row, 1)?)?)
    })?;
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
    let (version, body) = (number(row, 1)?, blob(row, 7)?);
    let slot = decode_slot(slot, text(row, 5)?, body)?;
    check_slot(version, &slot, body)?;
    Ok(StoredSlot { version, slot })
}

pub(crate) fn slot(connection: &Connection, id: SlotId) -> Answer<Option<StoredSlot>> {
    Ok(collect(connection, select_slots!("WHERE id = ?1"), &[&id.to_bytes()], to_slot)?.pop())
}

pub(crate) fn live_slots(
    connection: &Connection,
    network: &Network,
    relayer: &Address,
    from: u64,
    limit: usize,
) -> Answer<Vec<StoredSlot>> {
    let of: [&dyn ToSql; 4] =
        [&network.as_str(), &AddressColumn::of(relayer), &int(from)?, &capped_rows(limit)];
    collect(connection, LIVE_SLOTS, &of, to_slot)
}

pub(crate) fn open_slots(
    connection: &Connection,
    network: &Network,
    relayer: &Address,
) -> Answer<Vec<StoredSlot>> {
    collect(connection, OPEN_SLOTS, &[&network.as_str(), &AddressColumn::of(relayer)], to_slot)
}

pub(crate) fn slot_at(
    connection: &Connection,
    network: &Network,
    relayer: &Address,
    nonce: u64,
) -> Answer<Option<StoredSlot>> {
    let of: [&dyn ToSql; 3] = [&network.as_str(), &AddressColumn::of(relayer), &int(nonce)?];
    Ok(collect(connection, SLOT_AT, &of, to_slot)?.pop())
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

/// All transfers; one that cannot be read does not hide the others.
pub(crate) fn each_transfer(
    connection: &Connection,
    mut with: impl FnMut(Answer<TransferRow>) -> Answer<()>,
) -> Answer<()> {
    each(connection, select_transfers!("ORDER BY payment, round, purpose"), &[], |row| with(to_transfer(row)))
}

/// The columns of a payment that follow from the rest.
#[derive(Debug)]
pub(crate) struct PaymentColumns {
    pub key_hash: [u8; 32],
    pub open: bool,
    pub exposed: bool,
    pub released: bool,
    pub answered: bool,
}

/// All payments; one that cannot be read does not hide the others.
pub(crate) fn each_payment_to_check(
    connection: &Connection,
    mut with: impl FnMut(PaymentId, Answer<(Payment, PaymentColumns)>) -> Answer<()>,
) -> Answer<()> {
    let sql = select_payments!(", key_hash, open, exposed, released, answered", "ORDER BY id");
    each(connection, sql, &[], |row| {
        let columns = || -> Answer<PaymentColumns> {
            Ok(PaymentColumns {
                key_hash: get(row, 14)?,
                open: flag(row, 15)?,
                exposed: flag(row, 16)?,
                released: flag(row, 17)?,
                answered: flag(row, 18)?,
            })
        };
        let id = get(row, 0).map_or(PaymentId::from_bytes([0; 16]), PaymentId::from_bytes);
        with(id, to_payment(row).and_then(|payment| Ok((payment, columns()?))))
    })
}

pub(crate) fn each_slot(
    connection: &Connection,
    mut with: impl FnMut(SlotId, Answer<Slot>) -> Answer<()>,
) -> Answer<()> {
    let sql =
        "SELECT id, version, network, relayer, nonce, state, updated, body, tenant FROM slots ORDER BY id";
    each(connection, sql, &[], |row| {
        let id = get(row, 0).map_or(SlotId::from_bytes([0; 16]), SlotId::from_bytes);
        let slot = to_slot(row).and_then(|stored| {
            operators(row, 8)?;
            Ok(stored.slot)
        });
        with(id, slot)
    })
}

/// Slots are the operator's, whoever's payments are in them.
fn operators(row: &Row<'_>, index: usize) -> Answer<()> {
    match text(row, index)? {
        "local" => Ok(()),
        other => Err(StoreError::Corrupt(format!("a slot of the tenant {other:?}"))),
    }
}

/// The payments that the table says a slot is for, in order.
pub(crate) fn payments_of_slot(connection: &Connection, id: SlotId) -> Answer<Vec<PaymentId>> {
    let sql = "SELECT payment, tenant FROM slot_payments WHERE slot = ?1 ORDER BY payment";
    collect(connection, sql, &[&id.to_bytes()], |row| {
        operators(row, 1)?;
        get(row, 0).map(PaymentId::from_bytes)
    })
}

/// One transfer log that paid for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreditRow {
    pub network: String,
    pub tx: String,
    pub log_index: u64,
    pub tenant: String,
}

pub(crate) fn credits_of(connection: &Connection, id: PaymentId) -> Answer<Vec<CreditRow>> {
    let sql = "SELECT network, tx, log_index, tenant FROM credits WHERE payment = ?1";
    collect(connection, sql, &[&id.to_bytes()], |row| {
        Ok(CreditRow {
            network: get(row, 0)?,
            tx: get::<OwnedTx>(row, 1)?.0,
            log_index: number(row, 2)?,
            tenant: get(row, 3)?,
        })
    })
}

/// The tenant of a payment's stored answer, if there is one.
pub(crate) fn has_response(connection: &Connection, id: PaymentId) -> Answer<Option<String>> {
    let sql = "SELECT tenant FROM responses WHERE payment = ?1";
    Ok(collect(connection, sql, &[&id.to_bytes()], |row| get(row, 0))?.pop())
}

pub(crate) fn history_rows(connection: &Connection, payment: &Payment) -> Answer<Vec<HistoryRow>> {
    let network = payment.terms.money.asset().network();
    let sql = "SELECT version, tenant, event, at, round, state, delivery, detail, follows FROM history \
               WHERE payment = ?1 ORDER BY version";
    collect(connection, sql, &[&payment.id.to_bytes()], |row| {
        let kept: [Option<Value>; 4] = [get(row, 4)?, get(row, 6)?, get(row, 7)?, get(row, 8)?];
        let after = match get::<Option<String>>(row, 5)? {
            None if kept.iter().all(Option::is_none) => None,
            None => return Err(StoreError::Corrupt("a change that leads to no state".to_owned())),
            Some(state) => {
                let detail = blob(row, 7)?;
                Some(After {
                    follows: number(row, 8)?,
                    round: get(row, 4)?,
                    state: decode_state(&state, detail, network)?,
                    delivery: delivery(text(row, 6)?)?,
                    detail: detail.to_vec(),
                })
            }
        };
        Ok(HistoryRow {
            version: number(row, 0)?,
            tenant: get(row, 1)?,
            event: get(row, 2)?,
            at: moment(row, 3)?,
            after,
        })
    })
}

/// How many rows a table of ours has.
pub(crate) fn count(connection: &Connection, table: &'static str) -> Answer<u64> {
    let rows = collect(connection, &format!("SELECT count(*) FROM {table}"), &[], |row| number(row, 0))?;
    Ok(rows.into_iter().sum())
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

const NEWEST_ID: &str = "SELECT max(id) FROM payments";
const LAST_SETTLED: &str = "SELECT max(updated) FROM payments WHERE state = 'settled'";

/// The later of when the newest payment was made and when one was last settled. Both are the last of an index.
pub(crate) fn mark(connection: &Connection) -> Answer<Timestamp> {
    let newest = collect(connection, NEWEST_ID, &[], |row| get::<Option<[u8; 16]>>(row, 0))?;
    let settled = collect(connection, LAST_SETTLED, &[], |row| get::<Option<i64>>(row, 0))?;
    let made = newest.into_iter().flatten().map(|id| made_at(PaymentId::from_bytes(id)));
    let settled = settled.into_iter().flatten().map(uint).collect::<Answer<Vec<_>>>()?;
    let settled = settled.into_iter().map(Timestamp::from_millis);
    Ok(made.chain(settled).max().unwrap_or(Timestamp::from_millis(0)))
}

/// What SQLite finds wrong with the file: its structure, its constraints, and its indexes against their tables.
pub(crate) fn integrity(connection: &Connection) -> Answer<Vec<String>> {
    let found = collect(connection, "PRAGMA integrity_check(20)", &[], |row| get::<String>(row, 0))?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listing that reads the whole table is a listing that fails when it is needed.
    #[test]
    fn listings_use_their_indexes() {
        let connection = Connection::open_in_memory().unwrap();
        crate::schema::MIGRATIONS.iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        let check = |sql: &str, index: &str| {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan: Vec<String> =
                explain.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect();
            assert!(plan.iter().any(|line| line.contains(index)), "{sql}: {plan:?}");
        };
        check(LIVE_HOLDER, "SEARCH payments USING INDEX payments_live_key");
        check(HOLDER, "SEARCH payments USING INDEX payments_key");
        check(HELD, "SEARCH payments USING COVERING INDEX payments_live_key");
        check(HELD, "SEARCH payments USING COVERING INDEX payments_key");
        check(HELD_TWICE, "SCAN live USING INDEX payments_live_key");
        check(HELD_TWICE, "SEARCH done USING COVERING INDEX payments_key");
        check(UNFINISHED, "SEARCH payments USING INDEX payments_open");
        check(SETTLED_SINCE, "SEARCH payments USING INDEX payments_settled");
        check(EXPOSED_TO, "SEARCH payments USING INDEX payments_exposed");
        check(ERASABLE, "SEARCH payments USING INDEX payments_answered");
        check(crate::prune::PRUNABLE, "SEARCH refused USING INDEX payments_forget");
        check(crate::names::HOLDER, "SEARCH payments USING INDEX payments_named");
        check(NEWEST_ID, "SEARCH payments USING COVERING INDEX payments_id");
        check(LAST_SETTLED, "SEARCH payments USING COVERING INDEX payments_settled");
        check(LIVE_SLOTS, "SEARCH slots USING INDEX slots_live");
        check(OPEN_SLOTS, "SEARCH slots USING INDEX slots_live");
        check(SLOT_AT, "SEARCH slots USING INDEX slots_nonce");
        check(LAST_NONCE, "SEARCH slots USING COVERING INDEX slots_relayer");
    }
}
