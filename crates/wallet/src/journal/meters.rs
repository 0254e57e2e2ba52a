//! What counts in the windows of the law, kept up by each process as the audit log grows: a payment costs the same
//! however many came before it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farthing_audit::Kind;
use farthing_policy::{Law, Meters, Movement, Request, Rules, Source, Sums};
use farthing_primitives::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Journal, JournalError, PURCHASE_MOVEMENT, Tx, movements_of};

/// Shared by everybody who uses the journal in one process.
pub(super) type Kept = Arc<Mutex<Option<Counted>>>;

/// What was counted, by which law, and up to where.
#[derive(Debug)]
pub(super) struct Counted {
    law: Law,
    meters: Meters,
    /// How many leaves of the audit log are in it.
    leaves: i64,
    now: Timestamp,
    /// How often something of it had been undone.
    undone: u64,
}

/// What a law's sums depend on.
fn is_counted_alike(one: &Law, other: &Law) -> bool {
    match (one, other) {
        (Law::Rules(Rules { caps, .. }), Law::Rules(other)) => *caps == other.caps,
        (Law::Policy { policy, .. }, Law::Policy { policy: other, .. }) => Arc::ptr_eq(policy, other),
        (Law::Rules(_), Law::Policy { .. }) | (Law::Policy { .. }, Law::Rules(_)) => false,
    }
}

impl Counted {
    /// Everything is looked at once.
    fn anew(tx: &Tx, law: &Law, now: Timestamp, undone: u64) -> Result<Self, JournalError> {
        let mut meters = Meters::default();
        for movement in super::purchase_movements(tx, law.memory().map(|memory| now.minus(memory)))? {
            meters.add(law, &movement);
        }
        Ok(Self { law: law.clone(), meters, leaves: tx.leaves()?, now, undone })
    }

    /// Counts what was written down since.
    fn follow(&mut self, tx: &Tx, now: Timestamp) -> Result<(), JournalError> {
        let mut since = tx.prepare_cached(
            "SELECT kind, subject FROM audit_leaf WHERE idx >= ?1 AND subject IS NOT NULL AND kind IN (?2, ?3) ORDER BY idx",
        )?;
        let names = params![self.leaves, Kind::Intent.name(), Kind::Released.name()];
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?));
        for said in since.query_map(names, read)? {
            let (kind, subject) = said?;
            for movement in movements_of_purchase(tx, &subject)? {
                match kind == Kind::Released.name() {
                    true => self.meters.take_back(&self.law, &movement),
                    false => self.meters.add(&self.law, &movement),
                }
            }
        }
        self.leaves = tx.leaves()?;
        self.now = now;
        Ok(())
    }
}

/// What a purchase counts, whatever became of it. Nothing if it is no purchase, or is paid by a channel, which counts
/// itself.
fn movements_of_purchase(tx: &Tx, id: &[u8]) -> Result<Vec<Movement>, JournalError> {
    let sql = format!("SELECT {PURCHASE_MOVEMENT} FROM purchase WHERE id = ?1 AND channel IS NULL");
    let mut found = tx.prepare_cached(&sql)?;
    found.query_row([id], |row| Ok(movements_of(row))).optional()?.transpose().map(Option::unwrap_or_default)
}

impl Journal {
    /// What counts in everything that `request` would be held to, but for channels. `None` if something of it cannot be
    /// counted.
    pub(super) fn sums(
        &self,
        tx: &Tx,
        law: &Law,
        request: &Request,
        now: Timestamp,
    ) -> Result<Option<Sums>, JournalError> {
        let mut kept = self.counted();
        let undone = self.db.undone();
        self.db.keep();
        // Taken out, so that whatever fails below leaves nothing that is half counted.
        let known = kept.take();
        let known = known
            .filter(|known| known.undone == undone && known.now <= now && is_counted_alike(&known.law, law));
        let mut counted = match known {
            Some(mut known) if known.leaves <= tx.leaves()? => {
                known.follow(tx, now)?;
                known
            }
            _ => Counted::anew(tx, law, now, undone)?,
        };
        let of = Source::of(request);
        let mut sums = counted.meters.read(law, &of, now);
        if sums.is_none() {
            // What was released may be older than what was counted: the books say what is true.
            counted = Counted::anew(tx, law, now, undone)?;
            sums = counted.meters.read(law, &of, now);
        }
        if sums.is_some() {
            *kept = Some(counted);
        }
        Ok(sums)
    }

    fn counted(&self) -> MutexGuard<'_, Option<Counted>> {
        match self.meters.lock() {
            Ok(kept) => kept,
            Err(poisoned) => {
                let mut kept = PoisonError::into_inner(poisoned);
                *kept = None;
                kept
            }
        }
    }
}
