//! Refused payments are forgotten, or strangers could fill the disk with them.

use rusqlite::{Connection, params};

use crate::apply::Fail;
use crate::limits::PRUNE_BATCH;

/// Refused payments that hold nothing: no money that moved or may, no credited log, no slot.
///
/// INVARIANT: what the books count stays. A voided transfer counts nothing, so that balances are the same without it.
pub(crate) const PRUNABLE: &str = "SELECT seq, id FROM payments AS refused \
     WHERE forget IS NOT NULL AND forget < ?1 AND state = 'refused' \
     AND NOT EXISTS (SELECT 1 FROM transfers WHERE payment = refused.id AND phase <> 'voided') \
     AND NOT EXISTS (SELECT 1 FROM credits WHERE payment = refused.id) \
     AND NOT EXISTS (SELECT 1 FROM slot_payments WHERE payment = refused.id) ORDER BY forget LIMIT ?2";

/// Forgets a few of them, and all that is written of them.
pub(crate) fn prune(connection: &Connection, before: i64) -> Result<u64, Fail> {
    let mut select = connection.prepare_cached(PRUNABLE)?;
    let found: Vec<(i64, [u8; 16])> = select
        .query_map(params![before, PRUNE_BATCH], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (seq, id) in &found {
        connection.prepare_cached("DELETE FROM payments WHERE seq = ?1")?.execute([seq])?;
        connection.prepare_cached("DELETE FROM history WHERE payment = ?1")?.execute([id])?;
        connection.prepare_cached("DELETE FROM transfers WHERE payment = ?1")?.execute([id])?;
        connection.prepare_cached("DELETE FROM responses WHERE payment = ?1")?.execute([id])?;
    }
    Ok(found.len() as u64)
}
