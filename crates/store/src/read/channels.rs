//! Questions about channels and their charges.

use farthing_channel::record::{RecordError, decode_charge, decode_payee};
use farthing_channel::{ChannelId, Charge, Payee};
use farthing_engine::{ChannelFilter, StoreError, StoredResponse};
use farthing_primitives::{PaymentId, RequestHash, TenantId};
use rusqlite::{Connection, Row, ToSql};

use super::{Answer, blob, collect, each, flag, get, number, tenant, text};
use crate::limits::capped_rows;
use crate::record::{decode_response, seal_channels, unseal_channels};

/// The columns that [`to_payee`] takes, in its order.
macro_rules! select_channels {
    ($rest:literal) => {
        concat!("SELECT tenant, channel, book, version, state, record FROM channels ", $rest)
    };
}

/// The columns that [`to_charge`] takes, in its order.
macro_rules! select_charges {
    ($rest:literal) => {
        concat!("SELECT tenant, channel, id, request, record FROM charges ", $rest)
    };
}

// Conditions are word for word those of the partial indexes, or SQLite would not use them.
pub(super) const CHANNEL: &str = select_channels!("WHERE channel = ?1");
pub(super) const BOOK: &str = select_channels!("WHERE book = ?1");
pub(super) const AT_WORK: &str = select_channels!(
    "WHERE work = 1 AND channel > ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY channel LIMIT ?3"
);
const ANY: &str =
    select_channels!("WHERE channel > ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY channel LIMIT ?3");
pub(super) const CHARGE: &str = select_charges!("WHERE channel = ?1 AND request = ?2 AND current = 1");
pub(super) const CHARGES: &str = select_charges!("WHERE channel = ?1 AND id > ?2 ORDER BY id LIMIT ?3");

fn corrupt(error: RecordError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

pub(crate) fn seal_payee(payee: &Payee, record: Vec<u8>) -> Vec<u8> {
    let (tenant, version) = (payee.tenant().as_str(), payee.version().to_be_bytes());
    seal_channels(&[b"channel", tenant.as_bytes(), &payee.terms().id.0, &version], record)
}

pub(crate) fn seal_charge(
    tenant: &TenantId,
    channel: ChannelId,
    charge: &Charge,
    record: Vec<u8>,
) -> Vec<u8> {
    seal_channels(&[b"charge", tenant.as_str().as_bytes(), &channel.0, &charge.id.to_bytes()], record)
}

fn to_payee(row: &Row<'_>) -> Answer<Payee> {
    let (of, channel, version) = (text(row, 0)?, get::<[u8; 32]>(row, 1)?, number(row, 3)?);
    let sealed = [b"channel".as_slice(), of.as_bytes(), &channel, &version.to_be_bytes()];
    let payee = decode_payee(unseal_channels(&sealed, blob(row, 5)?)?).map_err(corrupt)?;
    let same = payee.tenant().as_str() == of
        && payee.terms().id.0 == channel
        && payee.book().to_bytes() == get::<[u8; 16]>(row, 2)?
        && payee.version() == version
        && payee.state().name() == text(row, 4)?;
    if same {
        Ok(payee)
    } else {
        Err(StoreError::Corrupt("a channel that is not what its row says".to_owned()))
    }
}

fn to_charge(row: &Row<'_>) -> Answer<Charge> {
    let (of, channel, id) = (tenant(row, 0)?, get::<[u8; 32]>(row, 1)?, get::<[u8; 16]>(row, 2)?);
    let sealed = [b"charge".as_slice(), of.as_str().as_bytes(), &channel, &id];
    let charge = decode_charge(unseal_channels(&sealed, blob(row, 4)?)?).map_err(corrupt)?;
    let same = charge.id.to_bytes() == id && charge.request.0 == get::<[u8; 32]>(row, 3)?;
    if same {
        Ok(charge)
    } else {
        Err(StoreError::Corrupt("a charge that is not what its row says".to_owned()))
    }
}

pub(crate) fn channel(connection: &Connection, id: ChannelId) -> Answer<Option<Payee>> {
    Ok(collect(connection, CHANNEL, &[&id.0], to_payee)?.pop())
}

pub(crate) fn channel_of_book(connection: &Connection, book: PaymentId) -> Answer<Option<Payee>> {
    Ok(collect(connection, BOOK, &[&book.to_bytes()], to_payee)?.pop())
}

pub(crate) fn channels(connection: &Connection, filter: &ChannelFilter) -> Answer<Vec<Payee>> {
    let after = filter.after.map(|id| id.0.to_vec()).unwrap_or_default();
    let tenant = filter.tenant.as_ref().map(TenantId::as_str);
    let of: [&dyn ToSql; 3] = [&after, &tenant, &capped_rows(filter.limit)];
    collect(connection, if filter.at_work { AT_WORK } else { ANY }, &of, to_payee)
}

pub(crate) fn charge(
    connection: &Connection,
    channel: ChannelId,
    request: RequestHash,
) -> Answer<Option<Charge>> {
    Ok(collect(connection, CHARGE, &[&channel.0, &request.0], to_charge)?.pop())
}

pub(crate) fn charges(
    connection: &Connection,
    channel: ChannelId,
    after: Option<PaymentId>,
    limit: usize,
) -> Answer<Vec<Charge>> {
    let after = after.map(|id| id.to_bytes().to_vec()).unwrap_or_default();
    collect(connection, CHARGES, &[&channel.0, &after, &capped_rows(limit)], to_charge)
}

pub(crate) fn charge_answer(connection: &Connection, charge: PaymentId) -> Answer<Option<StoredResponse>> {
    let sql = "SELECT head, body FROM charge_answers WHERE charge = ?1";
    let mut found = collect(connection, sql, &[&charge.to_bytes()], |row| {
        Ok(decode_response(charge, blob(row, 0)?, get(row, 1)?)?)
    })?;
    Ok(found.pop())
}

/// The columns of a channel that follow from its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelColumns {
    pub work: bool,
}

/// All channels; one that cannot be read does not hide the others.
pub(crate) fn each_channel_to_check(
    connection: &Connection,
    mut with: impl FnMut(ChannelId, Answer<(Payee, ChannelColumns)>) -> Answer<()>,
) -> Answer<()> {
    let sql = "SELECT tenant, channel, book, version, state, record, work FROM channels ORDER BY channel";
    each(connection, sql, &[], |row| {
        let id = ChannelId(get(row, 1).unwrap_or_default());
        with(id, to_payee(row).and_then(|payee| Ok((payee, ChannelColumns { work: flag(row, 6)? }))))
    })
}

/// A charge as it is stored, and whether it is the current one of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChargeRow {
    pub tenant: TenantId,
    pub charge: Charge,
    pub current: bool,
}

/// All charges of a channel; one that cannot be read does not hide the others.
pub(crate) fn each_charge_to_check(
    connection: &Connection,
    channel: ChannelId,
    mut with: impl FnMut(PaymentId, Answer<ChargeRow>) -> Answer<()>,
) -> Answer<()> {
    let sql =
        "SELECT tenant, channel, id, request, record, current FROM charges WHERE channel = ?1 ORDER BY id";
    each(connection, sql, &[&channel.0], |row| {
        let id = get(row, 2).map_or(PaymentId::from_bytes([0; 16]), PaymentId::from_bytes);
        let read = to_charge(row)
            .and_then(|charge| Ok(ChargeRow { tenant: tenant(row, 0)?, charge, current: flag(row, 5)? }));
        with(id, read)
    })
}

/// Who has a charge's answer, by the row that keeps it: its tenant and channel.
pub(crate) fn answer_of(connection: &Connection, charge: PaymentId) -> Answer<Option<(String, ChannelId)>> {
    let sql = "SELECT tenant, channel FROM charge_answers WHERE charge = ?1";
    Ok(collect(connection, sql, &[&charge.to_bytes()], |row| Ok((get(row, 0)?, ChannelId(get(row, 1)?))))?
        .pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_channels_use_their_indexes() {
        let connection = Connection::open_in_memory().unwrap();
        crate::schema::MIGRATIONS.iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        let check = |sql: &str, index: &str| {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan: Vec<String> =
                explain.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect();
            assert!(plan.iter().any(|line| line.contains(index)), "{sql}: {plan:?}");
        };
        check(CHANNEL, "SEARCH channels USING INDEX channels_channel");
        check(BOOK, "SEARCH channels USING INDEX channels_book");
        check(AT_WORK, "SEARCH channels USING INDEX channels_work");
        check(CHARGE, "SEARCH charges USING INDEX charges_request");
        check(CHARGES, "SEARCH charges USING INDEX charges_channel");
    }
}
