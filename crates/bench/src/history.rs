//! A long history in little time: the rows of payments that were really settled, many times over.
//!
//! The books at the start hold some payments that a running facilitator or gateway settled, and nothing else. Each is
//! copied as often as it takes, table by table, with an id, a consumption key, a transaction and a relayer's slot of its
//! own wherever those stand in a row or in a stored record; the balances grow by the same factor. So sizes, indexes
//! and invariants are those of true payments, and the store's own check of its books finds nothing wrong. Three things
//! differ: signatures are those of the original; records have no seal, as those of the first schema, and are eight bytes
//! shorter; and the slots belong to a relayer that nobody runs, so that the one that does run keeps its nonces.
//!
//! Only this may write with the journal and the syncs off: what is made here can be made again.

use std::path::Path;

use farthing_engine::Store;
use farthing_store::SqliteStore;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Nobody's address.
const RELAYER: [u8; 20] = [0x4e; 20];
/// The first copy was made on 9 September 2025; each is a little younger than the one before.
const FIRST_MS: u64 = 1_757_400_000_000;
const APART_MS: u64 = 2;
/// How much memory the indexes may take while they grow.
const CACHE_KIB: i64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("the store cannot be opened: {0}")]
    Open(#[from] farthing_store::OpenError),
    #[error("{0}")]
    Unfit(&'static str),
    #[error("the books do not balance: {0:?}")]
    Books(Vec<String>),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What the books hold afterwards.
#[derive(Debug, Serialize)]
pub struct Grown {
    pub payments: u64,
    pub bytes: u64,
    pub bytes_each: u64,
}

/// Makes the books at `path` hold at least `wanted` payments. `checked` runs the store's own check at the end.
pub fn grow(path: &Path, wanted: u64, checked: bool) -> Result<Grown, HistoryError> {
    // Brings the schema up to date and empties the log.
    drop(SqliteStore::open(path)?);
    let mut connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA temp_store = MEMORY; PRAGMA locking_mode = EXCLUSIVE;"
    ))?;
    let originals = originals(&connection)?;
    let count = originals.len() as u64;
    let copies = wanted.saturating_sub(count).div_ceil(count.max(1));
    let transaction = connection.transaction()?;
    let indexes = take_indexes(&transaction)?;
    for copy in 0..copies {
        for (number, original) in originals.iter().enumerate() {
            original.copy(&transaction, copy * count + number as u64)?;
        }
    }
    multiply_balances(&transaction, u128::from(copies) + 1)?;
    for index in indexes {
        transaction.execute_batch(&index)?;
    }
    transaction.commit()?;
    connection.execute_batch("PRAGMA locking_mode = NORMAL; PRAGMA journal_mode = WAL;")?;
    drop(connection);
    let payments = count * (copies + 1);
    if checked {
        check(path, payments)?;
    }
    let bytes = std::fs::metadata(path)?.len();
    Ok(Grown { payments, bytes, bytes_each: bytes / payments.max(1) })
}

fn check(path: &Path, payments: u64) -> Result<(), HistoryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let store = SqliteStore::open(path)?;
    let found = runtime.block_on(store.check_books());
    match found {
        Ok(found) if found.payments == payments && found.problems.is_empty() => Ok(()),
        Ok(found) => Err(HistoryError::Books(found.problems)),
        Err(error) => Err(HistoryError::Books(vec![error.to_string()])),
    }
}

/// Drops the indexes, and returns how each is made again: sorted at once they are ready sooner.
fn take_indexes(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut found = connection.prepare(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name",
    )?;
    let found: Vec<(String, String)> =
        found.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (name, _) in &found {
        connection.execute_batch(&format!("DROP INDEX {name}"))?;
    }
    Ok(found.into_iter().map(|(_, sql)| sql).collect())
}

/// Which column of which table says whose row it is. All else that names a payment is found by its bytes.
const TABLES: [(&str, &str); 6] = [
    ("payments", "id"),
    ("history", "payment"),
    ("responses", "payment"),
    ("transfers", "payment"),
    ("credits", "payment"),
    ("slot_payments", "payment"),
];

/// The records that end with a seal over what they say and over their row.
const SEALED: [(&str, &str); 4] =
    [("payments", "detail"), ("payments", "terms"), ("responses", "head"), ("slots", "body")];
/// The version of a record, its first byte, with a seal of so many bytes at its end; and the version without.
const WITH_SEAL: u8 = 2;
const SEAL_LEN: usize = 8;
const WITHOUT_SEAL: u8 = 1;

/// The rows of one settled payment, and the bytes in them that are its own.
struct Original {
    rows: Vec<Row>,
    own: Vec<Own>,
}

struct Row {
    insert: String,
    /// Where a row has a number that counts rows.
    seq: Option<usize>,
    /// The columns that hold the time, the relayer and its nonce.
    times: Vec<usize>,
    key_hash: Option<usize>,
    relayer: Option<(usize, usize)>,
    values: Vec<Value>,
    /// Where bytes of the payment's own stand.
    places: Vec<Place>,
}

/// Number `own` stands in column `column` at byte `at`, as itself or as hex digits.
struct Place {
    column: usize,
    at: usize,
    own: usize,
    hex: bool,
}

/// Bytes that no other payment has.
struct Own {
    bytes: Vec<u8>,
    /// Also as hex digits, in texts.
    hex: bool,
    /// An id begins with its time.
    dated: bool,
}

fn originals(connection: &Connection) -> Result<Vec<Original>, HistoryError> {
    let unsettled: i64 =
        connection
            .query_row("SELECT count(*) FROM payments WHERE state <> 'settled'", [], |row| row.get(0))?;
    if unsettled > 0 {
        return Err(HistoryError::Unfit("the books hold payments that are not settled"));
    }
    let mut ids = connection.prepare("SELECT id, detail, terms FROM payments ORDER BY id")?;
    let ids: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> =
        ids.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<Result<_, _>>()?;
    if ids.is_empty() {
        return Err(HistoryError::Unfit("the books hold no payment to copy"));
    }
    ids.into_iter().map(|(id, detail, terms)| original(connection, id, &detail, &terms)).collect()
}

fn original(
    connection: &Connection,
    id: Vec<u8>,
    detail: &[u8],
    terms: &[u8],
) -> Result<Original, HistoryError> {
    let mut rows = Vec::new();
    for (table, owner) in TABLES {
        rows.extend(rows_of(connection, table, owner, &id)?);
    }
    let slot: Option<Vec<u8>> = connection
        .query_row("SELECT slot FROM slot_payments WHERE payment = ?1", [&id], |row| row.get(0))
        .optional()?;
    let tx: String =
        connection.query_row("SELECT tx FROM credits WHERE payment = ?1", [&id], |row| row.get(0))?;
    let tx = hex::decode(tx.trim_start_matches("0x"))
        .map_err(|_| HistoryError::Unfit("a transaction is no hash"))?;
    // The encoding's version, and then the attempt.
    let attempt =
        detail.get(1..17).ok_or(HistoryError::Unfit("a settled payment without an attempt"))?.to_vec();
    let nonce = nonce_of(terms).ok_or(HistoryError::Unfit("a payment that is not keyed by a nonce"))?;
    if let Some(slot) = &slot {
        let mut of_slot = rows_of(connection, "slots", "id", slot)?;
        for row in &mut of_slot {
            finish_slot(row, &tx);
        }
        rows.extend(of_slot);
    }
    let dated = |bytes: Vec<u8>| Own { bytes, hex: false, dated: true };
    let random = |bytes: Vec<u8>| Own { bytes, hex: true, dated: false };
    let mut own = vec![dated(id), random(tx), random(nonce)];
    if let Some(slot) = slot.filter(|slot| *slot != attempt) {
        own.push(dated(slot));
    }
    own.push(dated(attempt));
    for row in &mut rows {
        row.places = places(&row.values, &own);
    }
    Ok(Original { rows, own })
}

/// The nonce of an EIP-3009 authorization, of which the consumption key ends with the hex digits.
fn nonce_of(terms: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: usize = 64;
    let last = terms.windows(DIGITS).rposition(|window| window.iter().all(u8::is_ascii_hexdigit))?;
    hex::decode(&terms[last..last + DIGITS]).ok()
}

/// The slots of long ago are final: the record ends with the transaction, and nobody looks at it again.
fn finish_slot(row: &mut Row, tx: &[u8]) {
    let state = row.values.iter().position(|value| *value == Value::Text("included".to_owned()));
    let Some(state) = state else { return };
    row.values[state] = Value::Text("final".to_owned());
    if let Some(Value::Blob(body)) = row.values.last_mut()
        && let Some(at) = body.windows(tx.len()).rposition(|window| window == tx)
    {
        body.truncate(at + tx.len());
    }
}

fn rows_of(
    connection: &Connection,
    table: &str,
    owner: &str,
    id: &[u8],
) -> Result<Vec<Row>, rusqlite::Error> {
    let mut select = connection.prepare(&format!("SELECT * FROM {table} WHERE {owner} = ?1"))?;
    let names: Vec<String> = select.column_names().map(str::to_owned).collect();
    let at = |name: &str| names.iter().position(|column| column == name);
    let insert = format!("INSERT INTO {table} VALUES ({})", vec!["?"; names.len()].join(","));
    let sealed: Vec<usize> =
        SEALED.iter().filter(|(of, _)| *of == table).filter_map(|(_, column)| at(column)).collect();
    let row = |row: &rusqlite::Row<'_>| {
        let mut values: Vec<Value> =
            (0..names.len()).map(|column| row.get(column)).collect::<Result<_, _>>()?;
        sealed.iter().for_each(|column| unseal(&mut values[*column]));
        Ok(Row {
            insert: insert.clone(),
            seq: at("seq"),
            times: ["created", "updated", "at"].iter().filter_map(|name| at(name)).collect(),
            key_hash: at("key_hash"),
            relayer: at("relayer").zip(at("nonce")),
            values: (0..names.len())
                .map(|column| Ok(unsealed(table, &names[column], row.get(column)?)))
                .collect::<Result<_, rusqlite::Error>>()?,
            places: Vec::new(),
        })
    };
    select.query_map([id], row)?.collect()
}

/// Records in the encoding that has no seal at its end: a copy's own bytes would break it.
fn unsealed(table: &str, column: &str, value: Value) -> Value {
    const SEALED: u8 = 2;
    const SEAL_LEN: usize = 8;
    let record = [
        ("payments", "detail"),
        ("payments", "terms"),
        ("history", "detail"),
        ("slots", "body"),
        ("responses", "head"),
    ];
    match value {
        Value::Blob(mut bytes)
            if record.contains(&(table, column))
                && bytes.first() == Some(&SEALED)
                && bytes.len() > SEAL_LEN =>
        {
            bytes[0] = 1;
            bytes.truncate(bytes.len() - SEAL_LEN);
            Value::Blob(bytes)
        }
        other => other,
    }
}

/// A copy's record is one of the version before seals, which the store reads as well: it has no way to seal for us.
fn unseal(record: &mut Value) {
    if let Value::Blob(bytes) = record
        && bytes.first() == Some(&WITH_SEAL)
    {
        bytes[0] = WITHOUT_SEAL;
        bytes.truncate(bytes.len().saturating_sub(SEAL_LEN));
    }
}

impl Original {
    /// Writes copy number `number`.
    fn copy(&self, connection: &Connection, number: u64) -> Result<(), rusqlite::Error> {
        let at = FIRST_MS + number * APART_MS;
        let fresh = |(i, own): (usize, &Own)| {
            let fresh = own.fresh(number, i, at);
            let digits = hex::encode(&fresh);
            (fresh, digits)
        };
        let fresh: Vec<(Vec<u8>, String)> = self.own.iter().enumerate().map(fresh).collect();
        let mut key = None;
        for row in &self.rows {
            let mut values = row.values.clone();
            for place in &row.places {
                let (plain, digits) = &fresh[place.own];
                let new = if place.hex { digits.as_bytes() } else { plain };
                put(&mut values[place.column], place.at, new);
            }
            if let Some(hash) = row.key_hash {
                // The key is in the terms, which are the last column: it ends with the nonce.
                key = key.or_else(|| values.last().and_then(key_of));
                let key = key.clone().unwrap_or_default();
                values[hash] = Value::Blob(Sha256::digest(key).to_vec());
            }
            if let Some(seq) = row.seq {
                values[seq] = Value::Null;
            }
            for time in &row.times {
                values[*time] = Value::Integer(i64::try_from(at).unwrap_or(i64::MAX));
            }
            if let Some((relayer, nonce)) = row.relayer {
                values[relayer] = Value::Blob(RELAYER.to_vec());
                values[nonce] = Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
            }
            connection.prepare_cached(&row.insert)?.execute(params_from_iter(values))?;
        }
        Ok(())
    }
}

/// The consumption key in a record of terms: the text with its length before it that ends with the nonce.
fn key_of(terms: &Value) -> Option<Vec<u8>> {
    let Value::Blob(terms) = terms else { return None };
    let nonce = nonce_of(terms)?;
    let end = terms.windows(64).position(|window| window == hex::encode(&nonce).as_bytes())? + 64;
    // A length below 128 or of two bytes; keys are longer than a hundred characters and shorter than three hundred.
    (64..=300usize).rev().find_map(|length| {
        let from = end.checked_sub(length)?;
        let said = match length {
            0..=127 => vec![u8::try_from(length).ok()?],
            _ => vec![u8::try_from(length & 0x7f).ok()? | 0x80, u8::try_from(length >> 7).ok()?],
        };
        let text = &terms[from..end];
        (terms[..from].ends_with(&said) && text.is_ascii()).then(|| text.to_vec())
    })
}

impl Own {
    fn fresh(&self, number: u64, place: usize, at: u64) -> Vec<u8> {
        let mut hasher = Sha256::new();
        hasher.update(number.to_be_bytes());
        hasher.update(place.to_be_bytes());
        let mut bytes: Vec<u8> = hasher.finalize()[..self.bytes.len().min(32)].to_vec();
        if self.dated && bytes.len() == 16 {
            // RFC 9562, version 7: 48 bits of milliseconds, then version and variant as they were.
            bytes[..6].copy_from_slice(&at.to_be_bytes()[2..]);
            bytes[6] = bytes[6] & 0x0f | 0x70;
            bytes[8] = bytes[8] & 0x3f | 0x80;
        }
        bytes
    }
}

fn places(values: &[Value], own: &[Own]) -> Vec<Place> {
    let mut places = Vec::new();
    for (column, value) in values.iter().enumerate() {
        let within = match value {
            Value::Blob(blob) => blob.as_slice(),
            Value::Text(text) => text.as_bytes(),
            _ => continue,
        };
        for (number, own_bytes) in own.iter().enumerate() {
            let digits = hex::encode(&own_bytes.bytes);
            let forms = [(own_bytes.bytes.as_slice(), false), (digits.as_bytes(), true)];
            for (form, hex) in forms.into_iter().filter(|(_, hex)| own_bytes.hex || !hex) {
                let found = within.windows(form.len()).enumerate().filter(|(_, window)| *window == form);
                places.extend(found.map(|(at, _)| Place { column, at, own: number, hex }));
            }
        }
    }
    places
}

/// Writes `new` over what stands at `at`.
fn put(value: &mut Value, at: usize, new: &[u8]) {
    match value {
        Value::Blob(blob) => blob[at..at + new.len()].copy_from_slice(new),
        // Only hex digits are put into texts, over hex digits.
        Value::Text(text) => {
            if let Ok(new) = std::str::from_utf8(new) {
                text.replace_range(at..at + new.len(), new);
            }
        }
        _ => {}
    }
}

fn multiply_balances(connection: &Connection, factor: u128) -> Result<(), HistoryError> {
    const SUMS: [&str; 4] = ["debits_posted", "credits_posted", "debits_pending", "credits_pending"];
    let mut all = connection
        .prepare("SELECT tenant, kind, asset, debits_posted, credits_posted, debits_pending, credits_pending FROM balances")?;
    type Sums = Vec<Vec<u8>>;
    let all: Vec<((String, String, String), Sums)> = all
        .query_map([], |row| {
            let sums = (3..7).map(|at| row.get(at)).collect::<Result<_, _>>()?;
            Ok(((row.get(0)?, row.get(1)?, row.get(2)?), sums))
        })?
        .collect::<Result<_, _>>()?;
    for ((tenant, kind, asset), sums) in all {
        for (name, sum) in SUMS.iter().zip(sums) {
            let sum: [u8; 16] = sum.try_into().map_err(|_| HistoryError::Unfit("a sum of another width"))?;
            let grown = u128::from_be_bytes(sum).checked_mul(factor);
            let grown = grown.ok_or(HistoryError::Unfit("a sum beyond 128 bits"))?;
            connection.execute(
                &format!("UPDATE balances SET {name} = ?1 WHERE tenant = ?2 AND kind = ?3 AND asset = ?4"),
                (grown.to_be_bytes(), &tenant, &kind, &asset),
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../store/tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 32] = [0xab; 32];

    fn terms() -> Vec<u8> {
        let key = format!("eip3009:84532:0x{}:0x{}:0x{}", "b".repeat(40), "c".repeat(40), hex::encode(NONCE));
        let length = u8::try_from(key.len() & 0x7f).unwrap() | 0x80;
        [b"\x01request".as_slice(), &[length, 1], key.as_bytes(), &NONCE].concat()
    }

    #[test]
    fn a_copy_has_a_key_of_its_own_and_of_the_same_form() {
        assert_eq!(nonce_of(&terms()), Some(NONCE.to_vec()));
        let own = Own { bytes: NONCE.to_vec(), hex: true, dated: false };
        let fresh = own.fresh(7, 0, FIRST_MS);
        let other_fresh = own.fresh(8, 0, FIRST_MS);
        let mut copy = Value::Blob(terms());
        let found = places(std::slice::from_ref(&copy), &[own]);
        assert_eq!(found.iter().map(|place| place.hex).collect::<Vec<_>>(), [false, true]);
        for Place { at, hex, .. } in found {
            let digits = hex::encode(&fresh);
            put(&mut copy, at, if hex { digits.as_bytes() } else { &fresh });
        }
        let key = String::from_utf8(key_of(&copy).unwrap()).unwrap();
        assert!(key.starts_with("eip3009:84532:0xbbbb") && key.ends_with(&hex::encode(&fresh)), "{key}");
        let Value::Blob(copy) = copy else { panic!("no record") };
        assert!(copy.ends_with(&fresh) && copy.len() == terms().len());
        assert_ne!(other_fresh, fresh);
    }

    #[test]
    fn ids_are_in_the_order_of_time_and_of_version_7() {
        let own = Own { bytes: vec![0; 16], hex: false, dated: true };
        let (first, second) = (own.fresh(1, 0, FIRST_MS), own.fresh(2, 0, FIRST_MS + APART_MS));
        assert!(first < second);
        assert_eq!((first[6] >> 4, first[8] >> 6, first.len()), (7, 2, 16));
    }

    #[test]
    fn copies_of_a_settled_payment_are_payments_to_the_stores_own_check() {
        use super::common::*;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books.db");
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let store = SqliteStore::open(&path).unwrap();
            let names = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
            let paid = walk(&store, &Like { key: 77, ..like(1) }, &names).await;
            let commit = farthing_engine::Commit {
                slots: vec![(None, slot(1, 0, &[1]))],
                ..commit_of(&paid, "included_deep", 1, at(5))
            };
            store.commit(commit).await.unwrap();
        });
        assert_eq!(grow(&path, 25, true).unwrap().payments, 25);
    }

    #[test]
    fn books_with_nothing_settled_cannot_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books.db");
        assert!(matches!(grow(&path, 10, true), Err(HistoryError::Unfit(_))));
    }
}
