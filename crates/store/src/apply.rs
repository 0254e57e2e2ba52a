//! One change inside the group's transaction.

use farthing_engine::{Begun, Claimed, Credit, ExposureLimit, StoreError, StoredResponse};
use farthing_ledger::Entry;
use farthing_payment::{Next, Payment, Slot};
use farthing_primitives::{PaymentId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use crate::books::{Books, Exposure};
use crate::limits::{ERASE_BATCH, forget_from, over_exposed};
use crate::record::{
    AddressColumn, TxColumn, asset_column, encode_head, encode_slot, encode_state, encode_terms, int,
};
use crate::{names, prune, read};

mod channels;

/// A change, encoded by its caller so that the one writer has less to do.
#[derive(Debug)]
pub(crate) enum Request {
    Channel(Box<channels::ChannelRequest>),
    EraseCharges { before: i64 },
    Claim(Box<ClaimRequest>),
    Commit(Box<CommitRequest>),
    Slots(Vec<SlotRow>, Vec<Entry>),
    Erase { before: i64 },
    Forget { before: i64 },
}

#[derive(Debug)]
pub(crate) struct ClaimRequest {
    payment: Payment,
    row: PaymentRow,
    key_hash: [u8; 32],
    payer: AddressColumn,
    payee: AddressColumn,
    asset: String,
    terms: Vec<u8>,
    entries: Vec<Entry>,
    exposure: Option<ExposureLimit>,
    named: Option<[u8; 32]>,
}

#[derive(Debug)]
pub(crate) struct CommitRequest {
    expected: i64,
    next: Payment,
    row: PaymentRow,
    entries: Vec<Entry>,
    event: &'static str,
    response: Option<(Vec<u8>, StoredResponse)>,
    slots: Vec<SlotRow>,
    credit: Option<Credit>,
    exposure: Option<ExposureLimit>,
}

/// The columns of a payment that changes move.
#[derive(Debug)]
struct PaymentRow {
    version: i64,
    updated: i64,
    detail: Vec<u8>,
    open: bool,
    exposed: bool,
    released: bool,
    forget: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct SlotRow {
    expected: Option<i64>,
    version: i64,
    slot: Slot,
    nonce: i64,
    updated: i64,
    body: Vec<u8>,
}

/// What the caller is told once the group is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Claimed(Claimed),
    Begun(Begun),
    Done,
    Erased(u64),
}

/// Why a change was not made.
#[derive(Debug)]
pub(crate) enum Fail {
    /// It does not fit what the store holds. The others of the group are not concerned.
    Refused(StoreError),
    /// SQLite could not do it.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl Request {
    pub(crate) fn claim(claim: farthing_engine::Claim) -> Result<Self, StoreError> {
        let farthing_engine::Claim { payment, entries, exposure, name } = claim;
        Ok(Self::Claim(Box::new(ClaimRequest {
            row: PaymentRow::new(&payment)?,
            key_hash: hash(payment.key.as_str()),
            payer: AddressColumn::of(&payment.terms.payer),
            payee: AddressColumn::of(&payment.terms.payee),
            asset: asset_column(payment.terms.money.asset()),
            terms: encode_terms(&payment),
            exposure: exposure.filter(|_| payment.is_exposed()),
            named: name.map(|name| names::hash(&payment.tenant, &payment.terms.payer, &name)),
            payment,
            entries,
        })))
    }

    pub(crate) fn commit(commit: farthing_engine::Commit) -> Result<Self, StoreError> {
        let farthing_engine::Commit { step, event, response, slots, credit, exposure } = commit;
        let id = step.next.id;
        Ok(Self::Commit(Box::new(CommitRequest {
            expected: int(step.expected)?,
            row: PaymentRow::new(&step.next)?,
            next: step.next,
            entries: step.entries,
            event,
            response: response.map(|response| (encode_head(id, &response), response)),
            slots: slots.into_iter().map(SlotRow::new).collect::<Result<_, _>>()?,
            credit,
            exposure,
        })))
    }

    pub(crate) fn slots(slots: Vec<(Option<u64>, Slot)>) -> Result<Self, StoreError> {
        Self::close_slots(slots, Vec::new())
    }

    pub(crate) fn close_slots(slots: Vec<(Option<u64>, Slot)>, gas: Vec<Entry>) -> Result<Self, StoreError> {
        Ok(Self::Slots(slots.into_iter().map(SlotRow::new).collect::<Result<_, _>>()?, gas))
    }

    pub(crate) fn erase(before: Timestamp) -> Self {
        // A moment that no column can hold is after all that columns hold.
        Self::Erase { before: i64::try_from(before.millis()).unwrap_or(i64::MAX) }
    }

    pub(crate) fn forget(before: Timestamp) -> Self {
        Self::Forget { before: i64::try_from(before.millis()).unwrap_or(i64::MAX) }
    }

    /// About how many bytes this adds to the transaction.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Claim(claim) => claim.terms.len(),
            Self::Commit(commit) => commit.response.as_ref().map_or(0, |(_, response)| response.body.len()),
            Self::Slots(slots, _) => slots.iter().map(|row| row.body.len()).sum(),
            Self::Channel(change) => change.weight(),
            Self::Erase { .. } | Self::EraseCharges { .. } | Self::Forget { .. } => 0,
        }
    }

    /// Makes the change. After a failure the caller undoes what was written of it.
    pub(crate) fn apply(
        &self,
        connection: &Connection,
        books: &mut Books,
        exposure: &mut Exposure,
    ) -> Result<Answer, Fail> {
        match self {
            Self::Claim(claim) => claim.apply(connection, books, exposure).map(Answer::Claimed),
            Self::Commit(commit) => commit.apply(connection, books, exposure).map(|()| Answer::Done),
            Self::Slots(slots, gas) => {
                save_slots(connection, slots)?;
                let touched = books.apply(connection, gas)?;
                books.keep(touched);
                Ok(Answer::Done)
            }
            Self::Channel(change) => change.apply(connection, books),
            Self::EraseCharges { before } => channels::erase(connection, *before).map(Answer::Erased),
            Self::Erase { before } => erase(connection, *before).map(Answer::Erased),
            Self::Forget { before } => prune::prune(connection, *before).map(Answer::Erased),
        }
    }
}

impl PaymentRow {
    fn new(payment: &Payment) -> Result<Self, StoreError> {
        Ok(Self {
            version: int(payment.version)?,
            updated: int(payment.updated.millis())?,
            detail: encode_state(payment),
            open: payment.next() != Next::Rest,
            exposed: payment.is_exposed(),
            released: payment.releases_claim(),
            // A moment that no column can hold is never reached.
            forget: forget_from(payment).map(|from| i64::try_from(from.millis()).unwrap_or(i64::MAX)),
        })
    }
}

impl SlotRow {
    fn new((expected, slot): (Option<u64>, Slot)) -> Result<Self, StoreError> {
        let version = expected.map_or(0, |version| version.saturating_add(1));
        Ok(Self {
            expected: expected.map(int).transpose()?,
            nonce: int(slot.nonce)?,
            updated: int(slot.updated.millis())?,
            body: encode_slot(version, &slot),
            version: int(version)?,
            slot,
        })
    }
}

pub(crate) fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

impl ClaimRequest {
    fn apply(
        &self,
        connection: &Connection,
        books: &mut Books,
        exposure: &mut Exposure,
    ) -> Result<Claimed, Fail> {
        let Self { payment, .. } = self;
        if payment.version != 0 {
            return self.not_new(connection);
        }
        if let Some(limit) = &self.exposure
            && exceeds(limit, connection, exposure, payment)?
        {
            return match self.not_new(connection) {
                Ok(taken) => Ok(taken),
                Err(Fail::Refused(StoreError::Conflict)) if !self.id_is_used(connection)? => {
                    Ok(Claimed::OverExposed)
                }
                Err(fail) => Err(fail),
            };
        }
        if read::is_held(connection, &self.key_hash)? || !self.insert(connection)? {
            return self.not_new(connection);
        }
        let touched = books.apply(connection, &self.entries)?;
        books.keep(touched);
        exposure.keep(payment, false, self.row.exposed);
        Ok(Claimed::New)
    }

    /// Whether it went in: the key was looked up before, and the unique indexes say so again of those that are live.
    fn insert(&self, connection: &Connection) -> Result<bool, Fail> {
        let Self { payment, row, .. } = self;
        let mut insert = connection.prepare_cached(
            "INSERT INTO payments (id, tenant, key_hash, version, round, state, delivery, created, updated, \
             open, exposed, released, answered, payer, payee, asset, atoms, detail, terms, named, forget) VALUES \
             (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20) \
             ON CONFLICT DO NOTHING",
        )?;
        let changed = insert.execute(params![
            payment.id.to_bytes(),
            payment.tenant.as_str(),
            self.key_hash,
            row.version,
            payment.round,
            payment.state.name(),
            payment.delivery.name(),
            int(payment.created.millis())?,
            row.updated,
            row.open,
            row.exposed,
            row.released,
            self.payer,
            self.payee,
            self.asset,
            payment.terms.money.atoms().to_be_bytes(),
            row.detail,
            self.terms,
            self.named,
            row.forget,
        ])?;
        Ok(changed == 1)
    }

    /// Who was here first: the key's holder, else the name's, else somebody who has the id.
    fn not_new(&self, connection: &Connection) -> Result<Claimed, Fail> {
        if let Some(holder) = read::holder(connection, &self.payment.key)? {
            return Ok(Claimed::Taken(Box::new(holder)));
        }
        let named = self.named.as_ref().map(|named| names::holder(connection, named)).transpose()?;
        match named.flatten() {
            Some(other) => Ok(Claimed::Named(Box::new(other))),
            None => Err(Fail::Refused(StoreError::Conflict)),
        }
    }

    fn id_is_used(&self, connection: &Connection) -> Result<bool, Fail> {
        Ok(read::payment(connection, self.payment.id)?.is_some())
    }
}

/// Whether this payment, which is not among them yet, would make too much of what is exposed.
fn exceeds(
    limit: &ExposureLimit,
    connection: &Connection,
    exposure: &mut Exposure,
    payment: &Payment,
) -> Result<bool, Fail> {
    let (of_payer, of_all) = exposure.of(connection, payment)?;
    let with_this = |sum: Option<u128>| sum?.checked_add(payment.terms.money.atoms());
    Ok(over_exposed(limit, with_this(of_payer), with_this(of_all)))
}

impl CommitRequest {
    fn apply(&self, connection: &Connection, books: &mut Books, exposure: &mut Exposure) -> Result<(), Fail> {
        let Self { next, row, .. } = self;
        let mut select = connection.prepare_cached(
            "SELECT seq, version, exposed, released, tenant, key_hash FROM payments WHERE id = ?1",
        )?;
        let stored = select
            .query_row([next.id.to_bytes()], |row| {
                Ok(Stored {
                    seq: row.get(0)?,
                    version: row.get(1)?,
                    exposed: row.get(2)?,
                    released: row.get(3)?,
                    tenant: row.get(4)?,
                    key_hash: row.get(5)?,
                })
            })
            .optional()?
            .ok_or(StoreError::Conflict)?;
        if stored.version != self.expected {
            return Err(StoreError::Conflict.into());
        }
        if stored.released && !row.released && read::is_held(connection, &stored.key_hash)? {
            return Err(StoreError::Conflict.into());
        }
        if let Some(limit) = self.exposure.as_ref().filter(|_| row.exposed && !stored.exposed)
            && exceeds(limit, connection, exposure, next)?
        {
            return Err(StoreError::OverExposed.into());
        }
        if let Some(credit) = &self.credit {
            apply_credit(connection, next.id, &stored.tenant, credit)?;
        }
        save_slots(connection, &self.slots)?;
        self.update(connection, stored.seq)?;
        self.write_history(connection, &stored.tenant)?;
        if let Some((head, response)) = &self.response {
            write_response(connection, next.id, &stored.tenant, head, response)?;
        }
        let touched = books.apply(connection, &self.entries)?;
        books.keep(touched);
        exposure.keep(next, stored.exposed, row.exposed);
        Ok(())
    }

    fn update(&self, connection: &Connection, seq: i64) -> Result<(), Fail> {
        let Self { next, row, .. } = self;
        let mut update = connection.prepare_cached(
            "UPDATE payments SET version = ?2, round = ?3, state = ?4, delivery = ?5, updated = ?6, open = ?7, \
             exposed = ?8, released = ?9, answered = answered OR ?10, detail = ?11, forget = ?12 WHERE seq = ?1",
        )?;
        update.execute(params![
            seq,
            row.version,
            next.round,
            next.state.name(),
            next.delivery.name(),
            row.updated,
            row.open,
            row.exposed,
            row.released,
            self.response.is_some(),
            row.detail,
            row.forget,
        ])?;
        Ok(())
    }

    fn write_history(&self, connection: &Connection, tenant: &str) -> Result<(), Fail> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO history (payment, version, tenant, event, at, follows, round, state, delivery, detail) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        let Self { next, row, event, expected, .. } = self;
        insert.execute(params![
            next.id.to_bytes(),
            row.version,
            tenant,
            event,
            row.updated,
            expected,
            next.round,
            next.state.name(),
            next.delivery.name(),
            row.detail,
        ])?;
        Ok(())
    }
}

/// What the store has of the payment that a change is for.
struct Stored {
    seq: i64,
    version: i64,
    exposed: bool,
    released: bool,
    tenant: String,
    key_hash: [u8; 32],
}

fn apply_credit(
    connection: &Connection,
    payment: PaymentId,
    tenant: &str,
    credit: &Credit,
) -> Result<(), Fail> {
    let (network, tx, log_index) = match credit {
        Credit::Take { network, tx, log_index } => (network.as_str(), TxColumn::of(tx), int(*log_index)?),
        Credit::Free => {
            connection
                .prepare_cached("DELETE FROM credits WHERE payment = ?1")?
                .execute([payment.to_bytes()])?;
            return Ok(());
        }
    };
    let mut insert = connection.prepare_cached(
        "INSERT INTO credits (network, tx, log_index, tenant, payment) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO NOTHING",
    )?;
    if insert.execute(params![network, tx, log_index, tenant, payment.to_bytes()])? == 1 {
        return Ok(());
    }
    let mut select = connection.prepare_cached(
        "SELECT payment = ?4 FROM credits WHERE network = ?1 AND tx = ?2 AND log_index = ?3",
    )?;
    let ours: bool =
        select.query_row(params![network, tx, log_index, payment.to_bytes()], |row| row.get(0))?;
    if ours { Ok(()) } else { Err(StoreError::AlreadyCredited.into()) }
}

fn save_slots(connection: &Connection, slots: &[SlotRow]) -> Result<(), Fail> {
    for row in slots {
        let id = row.slot.id.to_bytes();
        let stored: Option<i64> = connection
            .prepare_cached("SELECT version FROM slots WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        if stored != row.expected {
            return Err(StoreError::Conflict.into());
        }
        let mut write = connection.prepare_cached(
            "INSERT INTO slots (id, version, network, relayer, nonce, state, updated, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO UPDATE SET \
             version = ?2, network = ?3, relayer = ?4, nonce = ?5, state = ?6, updated = ?7, body = ?8",
        )?;
        write
            .execute(params![
                id,
                row.version,
                row.slot.network.as_str(),
                AddressColumn::of(&row.slot.relayer),
                row.nonce,
                row.slot.state.name(),
                row.updated,
                row.body,
            ])
            .map_err(same_nonce)?;
        connection.prepare_cached("DELETE FROM slot_payments WHERE slot = ?1")?.execute([id])?;
        let mut name = connection.prepare_cached(
            "INSERT INTO slot_payments (payment, slot) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?;
        for payment in &row.slot.payments {
            name.execute([payment.to_bytes(), id])?;
        }
    }
    Ok(())
}

/// The only unique index besides the id is that of the nonce.
fn same_nonce(error: rusqlite::Error) -> Fail {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => Fail::Refused(StoreError::Conflict),
        _ => Fail::Sqlite(error),
    }
}

fn write_response(
    connection: &Connection,
    payment: PaymentId,
    tenant: &str,
    head: &[u8],
    response: &StoredResponse,
) -> Result<(), Fail> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO responses (payment, tenant, head, body) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (payment) DO UPDATE SET head = ?3, body = ?4",
    )?;
    insert.execute(params![payment.to_bytes(), tenant, head, &response.body[..]])?;
    Ok(())
}

fn erase(connection: &Connection, before: i64) -> Result<u64, Fail> {
    let mut select = connection.prepare_cached(read::ERASABLE)?;
    let found: Vec<(i64, [u8; 16])> = select
        .query_map(params![before, ERASE_BATCH], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut erased = 0;
    for (seq, id) in found {
        connection.prepare_cached("UPDATE payments SET answered = 0 WHERE seq = ?1")?.execute([seq])?;
        let gone = connection.prepare_cached("DELETE FROM responses WHERE payment = ?1")?.execute([id])?;
        erased += gone as u64;
    }
    Ok(erased)
}
