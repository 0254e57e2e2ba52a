//! A long history in little time, for measurements: payments that were really settled, many times over.
//!
//! Every copy has ids, a consumption key, a transaction and a relayer's slot of its own, its records are encoded, packed
//! and sealed like any other, and the balances grow by the same factor. So sizes, indexes and invariants are those of
//! true payments, and the check finds nothing wrong. Two things differ: signatures are those of the original, and the
//! slots belong to a relayer that nobody runs, so that the one that does run keeps its nonces.
//!
//! Nothing here is durable before it is done, so only books that can be made again may be made to grow. Not part of what
//! is shipped: the feature `bulk` has it.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use farthing_engine::{StoreError, StoredResponse};
use farthing_payment::{ConsumptionKey, Instruction, Payment, Proof, Slot, SlotState, State, TxRef};
use farthing_primitives::{Address, AttemptId, PaymentId, SlotId, Timestamp};
use rusqlite::{Connection, Statement, params};
use sha2::{Digest, Sha256};

use crate::apply::hash;
use crate::read::{self, CreditRow, TransferRow};
use crate::record::{
    AddressColumn, TxColumn, asset_column, encode_head, encode_slot, encode_state, encode_terms, int,
};
use crate::replay::HistoryRow;
use crate::schema::{self, OpenError};

/// Nobody's address.
const RELAYER: [u8; 20] = [0x4e; 20];
/// The first copy was made on 9 September 2025; each is a little younger than the one before.
const FIRST_MS: u64 = 1_757_400_000_000;
const APART_MS: u64 = 2;
/// How much memory pages may take meanwhile.
const CACHE_KIB: u32 = 2 << 20;
/// How many copies are handed over at a time, and how many times ahead.
const BATCH: u64 = 256;
const AHEAD: usize = 8;
/// The only index whose order is not that in which copies come.
const SORTED_LATER: &str = "payments_key";

#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Unfit(&'static str),
}

/// Makes the books at `path`, which hold settled payments and nothing else, hold at least `wanted`. How many they hold
/// then. `progress` is told now and then how many copies are made, and of how many.
///
/// # Errors
/// The books are to be thrown away after any.
pub fn multiply(path: &Path, wanted: u64, mut progress: impl FnMut(u64, u64)) -> Result<u64, BulkError> {
    let _lock = schema::lock(path)?;
    drop(schema::open_writer(path)?);
    let mut connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA temp_store = MEMORY; PRAGMA locking_mode = EXCLUSIVE; PRAGMA threads = 2;"
    ))?;
    let originals = originals(&connection)?;
    let count = originals.len() as u64;
    let times = wanted.saturating_sub(count).div_ceil(count);
    let copies = times * count;
    let transaction = connection.transaction()?;
    let index: String = transaction.query_row(
        "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1",
        [SORTED_LATER],
        |row| row.get(0),
    )?;
    transaction.execute_batch(&format!("DROP INDEX {SORTED_LATER}"))?;
    // One thread makes the rows, and this one stores them.
    let (give, take) = sync_channel(AHEAD);
    std::thread::scope(|scope| {
        let originals = &originals;
        scope.spawn(move || make(originals, copies, &give));
        let stored = Inserts::new(&transaction)
            .and_then(|mut inserts| store(&mut inserts, &take, |done| progress(done, copies), copies));
        // So that the other ends, if this one failed.
        drop(take);
        stored
    })?;
    multiply_balances(&transaction, u128::from(times) + 1)?;
    transaction.execute_batch(&index)?;
    transaction.commit()?;
    connection.execute_batch("PRAGMA locking_mode = NORMAL; PRAGMA journal_mode = WAL;")?;
    drop(connection);
    // What the system would write later would disturb what is measured then.
    File::open(path)?.sync_all()?;
    Ok(count + copies)
}

fn make(originals: &[Original], copies: u64, give: &SyncSender<Vec<Rows>>) {
    let count = originals.len() as u64;
    for first in (0..copies).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        let batch = (first..copies.min(first + BATCH))
            .filter_map(|number| {
                let original = originals.get(usize::try_from(number % count).ok()?)?;
                Some(original.copy(&Fresh::new(number, copies)))
            })
            .collect();
        if give.send(batch).is_err() {
            return;
        }
    }
}

fn store(
    inserts: &mut Inserts<'_>,
    take: &Receiver<Vec<Rows>>,
    mut progress: impl FnMut(u64),
    copies: u64,
) -> Result<(), BulkError> {
    let mut done = 0;
    while done < copies {
        let Ok(batch) = take.recv() else { return Err(BulkError::Unfit("the copies ended early")) };
        for rows in &batch {
            inserts.insert(rows)?;
        }
        done += batch.len() as u64;
        progress(done);
    }
    Ok(())
}

/// A settled payment with everything that belongs to it.
struct Original {
    payment: Payment,
    history: Vec<HistoryRow>,
    transfers: Vec<TransferRow>,
    credit: CreditRow,
    slot: Option<Slot>,
    response: Option<StoredResponse>,
    nonce: Vec<u8>,
}

fn originals(connection: &Connection) -> Result<Vec<Original>, BulkError> {
    let mut ids = connection.prepare("SELECT id, state FROM payments ORDER BY id")?;
    let ids: Vec<([u8; 16], String)> =
        ids.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    if ids.is_empty() {
        return Err(BulkError::Unfit("the books hold no payment to copy"));
    }
    if ids.iter().any(|(_, state)| state != "settled") {
        return Err(BulkError::Unfit("the books hold payments that are not settled"));
    }
    ids.into_iter().map(|(id, _)| original(connection, PaymentId::from_bytes(id))).collect()
}

fn original(connection: &Connection, id: PaymentId) -> Result<Original, BulkError> {
    let payment = read::payment(connection, id)?.ok_or(BulkError::Unfit("a payment that is gone"))?;
    let history = read::history_rows(connection, &payment)?;
    let credit = read::credits_of(connection, id)?.pop();
    let credit = credit.ok_or(BulkError::Unfit("a settled payment without its log"))?;
    let slot = read::slots_of(connection, id)?.pop().map(|stored| stored.slot);
    let key = payment.key.as_str();
    let nonce = key.rfind("0x").and_then(|at| hash_of(key.get(at..)?));
    let nonce = nonce.ok_or(BulkError::Unfit("a payment that is not keyed by a nonce"))?;
    Ok(Original {
        history,
        transfers: read::transfers_of(connection, id)?,
        credit,
        slot,
        response: read::response(connection, id)?,
        nonce: nonce.to_vec(),
        payment,
    })
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    match TxColumn::of(text) {
        TxColumn::Hash(bytes) => Some(bytes),
        TxColumn::Other(_) => None,
    }
}

/// What a copy has of its own.
struct Fresh {
    number: u64,
    at: Timestamp,
    id: PaymentId,
    attempt: AttemptId,
    slot: SlotId,
    nonce: [u8; 32],
    tx: [u8; 32],
}

impl Fresh {
    fn new(number: u64, copies: u64) -> Self {
        let at = Timestamp::from_millis(FIRST_MS + number * APART_MS);
        let nonce: [u8; 32] = Sha256::digest(number.to_be_bytes()).into();
        let mut tx: [u8; 32] = Sha256::digest(nonce).into();
        // Transactions are spread like any, and come in their own order, so that none is sought a place for.
        let spread = u64::MAX / copies.max(1) * number;
        for (byte, of) in tx.iter_mut().zip(spread.to_be_bytes()) {
            *byte = of;
        }
        let random = |which: usize| {
            let mut bytes = [0; 10];
            for (byte, of) in bytes.iter_mut().zip(nonce.iter().skip(which)) {
                *byte = *of;
            }
            bytes
        };
        let (id, attempt, slot) =
            (PaymentId::new(at, random(0)), AttemptId::new(at, random(10)), SlotId::new(at, random(20)));
        Self { number, at, id, attempt, slot, nonce, tx }
    }

    fn tx(&self) -> TxRef {
        TxRef::new(spelled(&self.tx))
    }

    fn proof(&self, proof: &Proof) -> Proof {
        Proof { tx: self.tx(), ..proof.clone() }
    }

    /// The same state of the copy. States beyond settlement do not come here.
    fn state(&self, state: &State) -> State {
        let (attempt, since) = (self.attempt, self.at);
        let own = |tx: &Option<TxRef>| tx.as_ref().map(|_| self.tx());
        match state {
            State::Settling { tx, .. } => State::Settling { attempt, since, tx: own(tx) },
            State::Unknown { tx, .. } => State::Unknown { attempt, since, tx: own(tx) },
            State::Confirming { proof, .. } => State::Confirming { attempt, proof: self.proof(proof) },
            State::Settled { proof, .. } => State::Settled { attempt, proof: self.proof(proof) },
            other => other.clone(),
        }
    }
}

fn spelled(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    ['0', 'x'].into_iter().chain(digits).collect()
}

/// `bytes` with `old`, wherever it stands, replaced.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut from = 0;
    while let Some(at) =
        bytes.get(from..).and_then(|rest| rest.windows(old.len()).position(|part| part == old))
    {
        for (byte, of) in bytes.iter_mut().skip(from + at).zip(new) {
            *byte = *of;
        }
        from += at + old.len();
    }
    bytes
}

/// The rows of a copy, as they are stored.
struct Rows {
    payment: Payment,
    key_hash: [u8; 32],
    detail: Vec<u8>,
    terms: Vec<u8>,
    history: Vec<(Payment, String, u64, Vec<u8>)>,
    transfers: Vec<TransferRow>,
    credit: CreditRow,
    slot: Option<(Slot, Vec<u8>)>,
    response: Option<(Vec<u8>, StoredResponse)>,
}

impl Original {
    fn copy(&self, fresh: &Fresh) -> Rows {
        let was = &self.payment;
        let key = was.key.as_str();
        let stem = key.get(..key.len().saturating_sub(66)).unwrap_or_default();
        let mut payment = Payment {
            id: fresh.id,
            key: ConsumptionKey::new(format!("{stem}{}", spelled(&fresh.nonce))),
            state: fresh.state(&was.state),
            created: fresh.at,
            updated: fresh.at,
            ..was.clone()
        };
        payment.terms.instruction =
            Instruction::new(replaced(was.terms.instruction.as_bytes(), &self.nonce, &fresh.nonce));
        let history = self.history.iter().filter_map(|row| {
            let after = row.after.as_ref()?;
            let then = Payment {
                version: row.version,
                round: after.round,
                state: fresh.state(&after.state),
                delivery: after.delivery,
                ..payment.clone()
            };
            let detail = encode_state(&then);
            Some((then, row.event.clone(), after.follows, detail))
        });
        let slot = self.slot.as_ref().map(|slot| {
            let mut slot = slot.clone();
            (slot.id, slot.attempt, slot.payments) = (fresh.slot, fresh.attempt, vec![fresh.id]);
            (slot.nonce, slot.updated, slot.relayer) =
                (fresh.number, fresh.at, Address::from_evm_bytes(RELAYER));
            // The slots of long ago are done with: nobody looks at them again.
            slot.state = SlotState::Final { tx: fresh.tx() };
            for variant in &mut slot.variants {
                variant.tx = fresh.tx();
                variant.signed = fresh.at;
                variant.raw = replaced(&variant.raw, &self.nonce, &fresh.nonce).into();
            }
            let body = encode_slot(0, &slot);
            (slot, body)
        });
        let transfers = self.transfers.iter().cloned().map(|mut row| {
            row.id.payment = fresh.id;
            row
        });
        Rows {
            key_hash: hash(payment.key.as_str()),
            detail: encode_state(&payment),
            terms: encode_terms(&payment),
            history: history.collect(),
            transfers: transfers.collect(),
            credit: CreditRow { tx: spelled(&fresh.tx), ..self.credit.clone() },
            slot,
            response: self.response.as_ref().map(|answer| (encode_head(fresh.id, answer), answer.clone())),
            payment,
        }
    }
}

struct Inserts<'a> {
    payments: Statement<'a>,
    history: Statement<'a>,
    transfers: Statement<'a>,
    credits: Statement<'a>,
    slots: Statement<'a>,
    slot_payments: Statement<'a>,
    responses: Statement<'a>,
}

impl<'a> Inserts<'a> {
    fn new(connection: &'a Connection) -> Result<Self, BulkError> {
        Ok(Self {
            payments: connection.prepare(
                "INSERT INTO payments (id, tenant, key_hash, version, round, state, delivery, created, updated, \
                 open, exposed, released, answered, payer, payee, asset, atoms, detail, terms) VALUES \
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, 0, 0, 0, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?,
            history: connection.prepare(
                "INSERT INTO history (payment, version, tenant, event, at, follows, round, state, delivery, \
                 detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?,
            transfers: connection.prepare(
                "INSERT INTO transfers (payment, round, purpose, tenant, phase, asset, atoms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            credits: connection.prepare(
                "INSERT INTO credits (network, tx, log_index, tenant, payment) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            slots: connection.prepare(
                "INSERT INTO slots (id, version, network, relayer, nonce, state, updated, body) \
                 VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            slot_payments: connection.prepare("INSERT INTO slot_payments (payment, slot) VALUES (?1, ?2)")?,
            responses: connection
                .prepare("INSERT INTO responses (payment, tenant, head, body) VALUES (?1, ?2, ?3, ?4)")?,
        })
    }

    fn insert(&mut self, rows: &Rows) -> Result<(), BulkError> {
        let Rows { payment, .. } = rows;
        let (id, tenant) = (payment.id.to_bytes(), payment.tenant.as_str());
        let at = int(payment.created.millis())?;
        let terms = &payment.terms;
        self.payments.execute(params![
            id,
            tenant,
            rows.key_hash,
            int(payment.version)?,
            payment.round,
            payment.state.name(),
            payment.delivery.name(),
            at,
            rows.response.is_some(),
            AddressColumn::of(&terms.payer),
            AddressColumn::of(&terms.payee),
            asset_column(terms.money.asset()),
            terms.money.atoms().to_be_bytes(),
            rows.detail,
            rows.terms,
        ])?;
        for (then, event, follows, detail) in &rows.history {
            let (state, delivery) = (then.state.name(), then.delivery.name());
            self.history.execute(params![
                id,
                int(then.version)?,
                tenant,
                event,
                at,
                int(*follows)?,
                then.round,
                state,
                delivery,
                detail
            ])?;
        }
        for row in &rows.transfers {
            let (purpose, phase) = (row.id.purpose.as_str(), read::phase_name(row.phase));
            let (asset, atoms) = (asset_column(row.money.asset()), row.money.atoms().to_be_bytes());
            self.transfers.execute(params![id, row.id.round, purpose, tenant, phase, asset, atoms])?;
        }
        let CreditRow { network, tx, log_index, tenant: of } = &rows.credit;
        self.credits.execute(params![network, TxColumn::of(tx), int(*log_index)?, of, id])?;
        if let Some((slot, body)) = &rows.slot {
            self.slots.execute(params![
                slot.id.to_bytes(),
                slot.network.as_str(),
                AddressColumn::of(&slot.relayer),
                int(slot.nonce)?,
                slot.state.name(),
                at,
                body,
            ])?;
            self.slot_payments.execute(params![id, slot.id.to_bytes()])?;
        }
        if let Some((head, answer)) = &rows.response {
            self.responses.execute(params![id, tenant, head, &answer.body[..]])?;
        }
        Ok(())
    }
}

fn multiply_balances(connection: &Connection, factor: u128) -> Result<(), BulkError> {
    const SUMS: [&str; 4] = ["debits_posted", "credits_posted", "debits_pending", "credits_pending"];
    for name in SUMS {
        let mut select = connection.prepare(&format!("SELECT tenant, kind, asset, {name} FROM balances"))?;
        let found: Vec<(String, String, String, [u8; 16])> = select
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<Result<_, _>>()?;
        for (tenant, kind, asset, sum) in found {
            let grown = u128::from_be_bytes(sum).checked_mul(factor);
            let grown = grown.ok_or(BulkError::Unfit("a sum beyond 128 bits"))?.to_be_bytes();
            connection.execute(
                &format!("UPDATE balances SET {name} = ?1 WHERE tenant = ?2 AND kind = ?3 AND asset = ?4"),
                params![grown, tenant, kind, asset],
            )?;
        }
    }
    Ok(())
}
