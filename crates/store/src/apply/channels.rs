//! Changes of channels, inside the group's transaction.

use farthing_channel::record::{encode_charge, encode_payee};
use farthing_channel::{Again, ChannelId, Charge, ChargeState, Payee};
use farthing_engine::{
    Begun, ChannelBegin, ChannelCommit, MAX_KEPT_ANSWERS, StoreError, StoredResponse, is_at_work,
};
use farthing_ledger::Entry;
use farthing_primitives::{PaymentId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Answer, Fail, Request, SlotRow, save_slots};
use crate::books::Books;
use crate::limits::ERASE_BATCH;
use crate::read;
use crate::record::{encode_head, int};

/// One channel with what changes beside it.
#[derive(Debug)]
pub(crate) struct ChannelRequest {
    /// `None`: it is new.
    expected: Option<i64>,
    payee: Payee,
    version: i64,
    updated: i64,
    record: Vec<u8>,
    entries: Vec<Entry>,
    charges: Vec<(Charge, Vec<u8>)>,
    answer: Option<(PaymentId, Vec<u8>, StoredResponse)>,
    slots: Vec<SlotRow>,
}

impl Request {
    pub(crate) fn begin_channel(begin: ChannelBegin) -> Result<Self, StoreError> {
        let ChannelBegin { payee, slots } = begin;
        ChannelRequest::new(None, payee, slots).map(|request| Self::Channel(Box::new(request)))
    }

    pub(crate) fn commit_channel(commit: ChannelCommit) -> Result<Self, StoreError> {
        let ChannelCommit { step, answer, slots } = commit;
        let channel = step.next.terms().id;
        let tenant = step.next.tenant().clone();
        let seal = |charge: Charge| {
            let record = read::channels::seal_charge(&tenant, channel, &charge, encode_charge(&charge));
            (charge, record)
        };
        Ok(Self::Channel(Box::new(ChannelRequest {
            entries: step.entries,
            charges: step.charges.into_iter().map(seal).collect(),
            answer: answer.map(|(charge, response)| (charge, encode_head(charge, &response), response)),
            ..ChannelRequest::new(Some(int(step.expected)?), step.next, slots)?
        })))
    }

    pub(crate) fn erase_charge_answers(before: Timestamp) -> Self {
        // A moment that no column can hold is after all that columns hold.
        Self::EraseCharges { before: i64::try_from(before.millis()).unwrap_or(i64::MAX) }
    }
}

impl ChannelRequest {
    fn new(
        expected: Option<i64>,
        payee: Payee,
        slots: Vec<(Option<u64>, farthing_payment::Slot)>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            expected,
            version: int(payee.version())?,
            updated: int(payee.updated().millis())?,
            record: read::channels::seal_payee(&payee, encode_payee(&payee)),
            payee,
            entries: Vec::new(),
            charges: Vec::new(),
            answer: None,
            slots: slots.into_iter().map(SlotRow::new).collect::<Result<_, _>>()?,
        })
    }

    /// About how many bytes this adds to the transaction.
    pub(crate) fn weight(&self) -> usize {
        self.record.len() + self.answer.as_ref().map_or(0, |(.., response)| response.body.len())
    }

    pub(crate) fn apply(&self, connection: &Connection, books: &mut Books) -> Result<Answer, Fail> {
        let answer = match self.expected {
            None => match self.insert(connection)? {
                Begun::New => Answer::Begun(Begun::New),
                known => return Ok(Answer::Begun(known)),
            },
            Some(expected) => {
                self.update(connection, expected)?;
                Answer::Done
            }
        };
        save_slots(connection, &self.slots)?;
        for (charge, record) in &self.charges {
            self.save_charge(connection, charge, record)?;
        }
        self.save_answer(connection)?;
        let touched = books.apply(connection, &self.entries)?;
        books.keep(touched);
        Ok(answer)
    }

    fn channel(&self) -> ChannelId {
        self.payee.terms().id
    }

    fn insert(&self, connection: &Connection) -> Result<Begun, Fail> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO channels (tenant, channel, book, version, state, work, updated, record) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        )?;
        let inserted = insert.execute(params![
            self.payee.tenant().as_str(),
            self.channel().0,
            self.payee.book().to_bytes(),
            self.version,
            self.payee.state().name(),
            is_at_work(&self.payee),
            self.updated,
            self.record,
        ])?;
        if inserted == 1 {
            return Ok(Begun::New);
        }
        match read::channels::channel(connection, self.channel())? {
            Some(known) => Ok(Begun::Known(Box::new(known))),
            // Its books have another channel's name.
            None => Err(StoreError::Conflict.into()),
        }
    }

    fn update(&self, connection: &Connection, expected: i64) -> Result<(), Fail> {
        let mut update = connection.prepare_cached(
            "UPDATE channels SET version = ?5, state = ?6, work = ?7, updated = ?8, record = ?9 \
             WHERE channel = ?1 AND version = ?2 AND tenant = ?3 AND book = ?4",
        )?;
        let updated = update.execute(params![
            self.channel().0,
            expected,
            self.payee.tenant().as_str(),
            self.payee.book().to_bytes(),
            self.version,
            self.payee.state().name(),
            is_at_work(&self.payee),
            self.updated,
            self.record,
        ])?;
        if updated == 1 { Ok(()) } else { Err(StoreError::Conflict.into()) }
    }

    fn save_charge(&self, connection: &Connection, charge: &Charge, record: &[u8]) -> Result<(), Fail> {
        let (id, channel, request) = (charge.id.to_bytes(), self.channel().0, charge.request.0);
        let known: Option<bool> = connection
            .prepare_cached("SELECT channel = ?2 AND request = ?3 FROM charges WHERE id = ?1")?
            .query_row(params![id, channel, request], |row| row.get(0))
            .optional()?;
        match known {
            Some(true) => {
                connection
                    .prepare_cached("UPDATE charges SET state = ?2, record = ?3 WHERE id = ?1")?
                    .execute(params![id, name(charge.state), record])?;
                return Ok(());
            }
            Some(false) => return Err(StoreError::Conflict.into()),
            None => {}
        }
        if let Some(former) = read::channels::charge(connection, self.channel(), charge.request)? {
            if former.again() != Again::Start {
                return Err(StoreError::Conflict.into());
            }
            connection
                .prepare_cached("UPDATE charges SET current = 0 WHERE id = ?1")?
                .execute([former.id.to_bytes()])?;
        }
        connection
            .prepare_cached(
                "INSERT INTO charges (id, tenant, channel, request, current, state, record) \
                 VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6)",
            )?
            .execute(params![
                id,
                self.payee.tenant().as_str(),
                channel,
                request,
                name(charge.state),
                record
            ])?;
        Ok(())
    }

    fn save_answer(&self, connection: &Connection) -> Result<(), Fail> {
        let Some((charge, head, response)) = &self.answer else { return Ok(()) };
        let channel = self.channel().0;
        let ours: Option<bool> = connection
            .prepare_cached("SELECT channel = ?2 FROM charges WHERE id = ?1")?
            .query_row(params![charge.to_bytes(), channel], |row| row.get(0))
            .optional()?;
        if ours != Some(true) {
            return Err(StoreError::Conflict.into());
        }
        // The newest has the highest number, also if it takes the place of another.
        connection
            .prepare_cached("DELETE FROM charge_answers WHERE charge = ?1")?
            .execute([charge.to_bytes()])?;
        connection
            .prepare_cached(
                "INSERT INTO charge_answers (charge, tenant, channel, stored, head, body) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                charge.to_bytes(),
                self.payee.tenant().as_str(),
                channel,
                self.updated,
                head,
                &response.body[..]
            ])?;
        connection
            .prepare_cached(
                "DELETE FROM charge_answers WHERE channel = ?1 AND seq <= \
                 (SELECT seq FROM charge_answers WHERE channel = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![channel, i64::try_from(MAX_KEPT_ANSWERS).unwrap_or(i64::MAX)])?;
        Ok(())
    }
}

pub(crate) fn erase(connection: &Connection, before: i64) -> Result<u64, Fail> {
    let gone = connection
        .prepare_cached(
            "DELETE FROM charge_answers WHERE seq IN \
             (SELECT seq FROM charge_answers WHERE stored < ?1 ORDER BY stored LIMIT ?2)",
        )?
        .execute(params![before, ERASE_BATCH])?;
    Ok(gone as u64)
}

/// The stable name that is stored and shown.
fn name(state: ChargeState) -> &'static str {
    match state {
        ChargeState::Running => "running",
        ChargeState::Served => "served",
        ChargeState::Lost => "lost",
        ChargeState::Ended => "ended",
    }
}
