//! The AP2 mandates that were used: one small SQLite file, which several processes may use at once.
//!
//! Nothing is ever taken out. A closed mandate that is forgotten is one that counts again.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use farthing_ap2::{Amount, Family, History, MAX_USES, PastUse, Refusal, Reservation, Seen};
use farthing_primitives::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

/// How long a use waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS closed_mandate (
    id BLOB PRIMARY KEY CHECK (length(id) = 32),
    kind TEXT NOT NULL,
    tx_id TEXT NOT NULL,
    minor BLOB CHECK (minor IS NULL OR length(minor) = 8),
    currency TEXT,
    at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS open_mandate_use (
    open_id BLOB NOT NULL CHECK (length(open_id) = 32),
    closed_id BLOB NOT NULL REFERENCES closed_mandate (id),
    PRIMARY KEY (open_id, closed_id)
) STRICT, WITHOUT ROWID;
";

/// The book cannot be used, so no mandate counts.
#[derive(Debug, thiserror::Error)]
pub enum MandateBookError {
    #[error("the book of used mandates cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the book of used mandates cannot be used: {0}")]
    Io(#[from] std::io::Error),
    #[error("the book of used mandates holds what nobody wrote")]
    Corrupt,
}

/// Which mandates were used, and when.
pub struct MandateBook(Mutex<Connection>);

impl fmt::Debug for MandateBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MandateBook")
    }
}

impl MandateBook {
    /// The file, made for its owner alone if it is not there.
    pub fn open(path: &Path) -> Result<Self, MandateBookError> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        drop(options.open(path)?);
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A use that is lost by a loss of power is a mandate that counts twice.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Mutex::new(connection)))
    }
}

impl Seen for MandateBook {
    type Error = MandateBookError;

    fn reserve(
        &self,
        reservation: &Reservation,
        now: Timestamp,
    ) -> Result<Result<(), Refusal>, MandateBookError> {
        // A transaction that a panic ended was rolled back when it was dropped.
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Immediate: of two processes the second one reads after the first one has written.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Err(refusal) = reservation.decide(&history(&transaction, reservation)?, now) {
            return Ok(Err(refusal));
        }
        let (minor, currency) = match &reservation.amount {
            Some(amount) => (Some(amount.minor.to_be_bytes()), Some(amount.currency.as_str())),
            None => (None, None),
        };
        let kind = match reservation.family {
            Family::Checkout => "checkout",
            Family::Payment => "payment",
        };
        let at = i64::try_from(now.millis()).unwrap_or(i64::MAX);
        transaction.execute(
            "INSERT INTO closed_mandate (id, kind, tx_id, minor, currency, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![&reservation.closed.0[..], kind, reservation.transaction, minor.as_ref().map(|minor| &minor[..]), currency, at],
        )?;
        for open in &reservation.opens {
            transaction.execute(
                "INSERT INTO open_mandate_use (open_id, closed_id) VALUES (?1, ?2)",
                params![&open.id.0[..], &reservation.closed.0[..]],
            )?;
        }
        transaction.commit()?;
        Ok(Ok(()))
    }
}

fn history(transaction: &Transaction<'_>, reservation: &Reservation) -> Result<History, MandateBookError> {
    let mut history = History::default();
    let seen = transaction
        .query_row("SELECT 1 FROM closed_mandate WHERE id = ?1", params![&reservation.closed.0[..]], |_| {
            Ok(())
        })
        .optional()?;
    history.is_seen = seen.is_some();
    let mut uses = transaction.prepare(
        "SELECT tx_id, minor, currency, at_ms FROM open_mandate_use JOIN closed_mandate ON id = closed_id
         WHERE open_id = ?1 ORDER BY at_ms DESC LIMIT ?2",
    )?;
    // One more than may be: so many are too many, whichever they are.
    let most = i64::try_from(MAX_USES + 1).unwrap_or(i64::MAX);
    for open in &reservation.opens {
        let mut rows = uses.query(params![&open.id.0[..], most])?;
        let past = history.opens.entry(open.id).or_default();
        while let Some(row) = rows.next()? {
            past.push(past_use(row)?);
        }
    }
    Ok(history)
}

fn past_use(row: &Row<'_>) -> Result<PastUse, MandateBookError> {
    const CORRUPT: MandateBookError = MandateBookError::Corrupt;
    let (minor, currency): (Option<Vec<u8>>, Option<String>) = (row.get(1)?, row.get(2)?);
    let amount = match (minor, currency) {
        (Some(minor), Some(currency)) => {
            let minor = minor.try_into().map_err(|_| CORRUPT)?;
            Some(Amount { minor: u64::from_be_bytes(minor), currency })
        }
        (None, None) => None,
        _ => return Err(CORRUPT),
    };
    let at = u64::try_from(row.get::<_, i64>(3)?).map_err(|_| CORRUPT)?;
    Ok(PastUse { at: Timestamp::from_millis(at), transaction: row.get(0)?, amount })
}

// In a test a panic is the report.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use farthing_ap2::{Frequency, MandateId, OpenUse, Recurrence};

    use super::*;

    fn payment(closed: u8, transaction: &str, minor: u64, often: bool) -> Reservation {
        let recurrence = Recurrence { frequency: Frequency::OnDemand, max_occurrences: Some(3) };
        let usd = |minor| Amount { minor, currency: "USD".to_owned() };
        Reservation {
            family: Family::Payment,
            closed: MandateId([closed; 32]),
            transaction: transaction.to_owned(),
            amount: Some(usd(minor)),
            opens: vec![OpenUse {
                id: MandateId([99; 32]),
                recurrence: if often { vec![recurrence] } else { Vec::new() },
                budgets: vec![usd(u64::MAX)],
            }],
        }
    }

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn attack_63_a_replay_is_refused_after_a_restart_and_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ap2.db");
        let code =
            |book: &MandateBook, reservation: &Reservation| match book.reserve(reservation, NOW).unwrap() {
                Ok(()) => "accepted",
                Err(refusal) => refusal.code(),
            };
        let book = MandateBook::open(&path).unwrap();
        let first = payment(1, "a", 5, false);
        assert_eq!(code(&book, &first), "accepted");
        assert_eq!(code(&book, &first), "ap2_replayed");
        let beside = MandateBook::open(&path).unwrap();
        assert_eq!(code(&beside, &first), "ap2_replayed");
        drop((book, beside));
        let again = MandateBook::open(&path).unwrap();
        assert_eq!(code(&again, &first), "ap2_replayed");
        assert_eq!(code(&again, &payment(2, "b", 5, false)), "ap2_open_used");
        assert_eq!(code(&again, &payment(2, "a", 5, true)), "ap2_transaction_used");
        // Sums are exact beyond 64 bits.
        assert_eq!(code(&again, &payment(3, "b", u64::MAX, true)), "ap2_budget");
        assert_eq!(code(&again, &payment(3, "b", u64::MAX - 5, true)), "accepted");
        assert_eq!(code(&again, &payment(4, "c", 0, true)), "accepted");
        assert_eq!(code(&again, &payment(5, "d", 0, true)), "ap2_recurrence");
    }

    #[test]
    fn of_many_processes_that_show_one_mandate_one_is_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ap2.db");
        drop(MandateBook::open(&path).unwrap());
        let accepted = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let book = MandateBook::open(&path).unwrap();
                        book.reserve(&payment(1, "a", 5, false), NOW).unwrap().is_ok()
                    })
                })
                .collect();
            tries.into_iter().map(|one| one.join().unwrap()).filter(|first| *first).count()
        });
        assert_eq!(accepted, 1);
    }
}
