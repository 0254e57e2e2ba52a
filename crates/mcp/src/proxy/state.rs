//! What the proxy must not forget: counters, the definitions of tools that were seen first, and which looser policy the
//! owner accepted. One small SQLite file, which several processes may use at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farthing_primitives::Timestamp;
use farthing_toolguard::{Key, Tally};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// How long a call waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS tally (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pin (tool TEXT PRIMARY KEY, hash BLOB NOT NULL, since_ms INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// The policy that the owner accepted although it is looser: the hash of its text.
const ACCEPTED: &str = "accepted_policy";

/// How many unseen characters were written out in what the server said, in eight bytes.
const UNSEEN: &str = "unseen_characters";

/// The counters cannot be used, so nothing that they bound may go on.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the counters cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the counters cannot be used: {0}")]
    Io(#[from] std::io::Error),
    #[error("the counter {0} holds what nobody wrote")]
    Corrupt(String),
}

/// Counters that survive.
pub trait Counters: Send + Sync + fmt::Debug {
    /// Runs `step` over some counters as one atomic step, and keeps what it changed; durable when it returns.
    ///
    /// # Errors
    /// [`StateError`]: nothing was kept then.
    fn change(
        &self,
        keys: &BTreeSet<Key>,
        step: &mut dyn FnMut(&mut BTreeMap<Key, Tally>),
    ) -> Result<(), StateError>;
}

pub struct State(Mutex<Connection>);

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl State {
    /// The file, made for its owner alone if it is not there.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        drop(options.open(path)?);
        Self::with(Connection::open(path)?)
    }

    pub fn in_memory() -> Result<Self, StateError> {
        Self::with(Connection::open_in_memory()?)
    }

    fn with(connection: Connection) -> Result<Self, StateError> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A count that is lost by a loss of power is a call too many.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Mutex::new(connection)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic ended was rolled back when it was dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What some counters hold.
    pub fn tallies(&self, keys: &BTreeSet<Key>) -> Result<BTreeMap<Key, Tally>, StateError> {
        load(&self.lock(), keys)
    }

    /// Compares definitions with those that were seen first, and keeps those that were not seen yet, or all of them if
    /// the owner accepts what changed. Returns the tools whose definition is another one.
    pub fn pin(
        &self,
        seen: &[(String, [u8; 32])],
        accept: bool,
        now: Timestamp,
    ) -> Result<BTreeSet<String>, StateError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changed = BTreeSet::new();
        for (tool, hash) in seen {
            let known: Option<Vec<u8>> = transaction
                .prepare_cached("SELECT hash FROM pin WHERE tool = ?1")?
                .query_row(params![tool], |row| row.get(0))
                .optional()?;
            match known {
                Some(known) if known == hash => {}
                Some(_) if !accept => {
                    changed.insert(tool.clone());
                }
                Some(_) | None => {
                    let since = i64::try_from(now.millis()).unwrap_or(i64::MAX);
                    transaction
                        .prepare_cached(
                            "INSERT OR REPLACE INTO pin (tool, hash, since_ms) VALUES (?1, ?2, ?3)",
                        )?
                        .execute(params![tool, &hash[..], since])?;
                }
            }
        }
        transaction.commit()?;
        Ok(changed)
    }

    /// Writes down that the owner accepts a policy, looser or not.
    pub fn accept(&self, policy: &[u8; 32]) -> Result<(), StateError> {
        let connection = self.lock();
        connection.execute(
            "INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)",
            params![ACCEPTED, &policy[..]],
        )?;
        Ok(())
    }

    /// Adds to the unseen characters that were written out in what the server said.
    ///
    /// # Errors
    /// [`StateError`]: the count is as it was.
    pub fn add_unseen(&self, more: u64) -> Result<(), StateError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let count = unseen(&transaction)?.saturating_add(more);
        transaction
            .prepare_cached("INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)")?
            .execute(params![UNSEEN, &count.to_be_bytes()[..]])?;
        transaction.commit()?;
        Ok(())
    }

    /// How many there were since the file was made.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn unseen(&self) -> Result<u64, StateError> {
        unseen(&self.lock())
    }

    pub fn is_accepted(&self, policy: &[u8; 32]) -> Result<bool, StateError> {
        let found: Option<Vec<u8>> = self
            .lock()
            .query_row("SELECT value FROM setting WHERE key = ?1", params![ACCEPTED], |row| row.get(0))
            .optional()?;
        Ok(found.is_some_and(|found| found == policy))
    }
}

fn unseen(connection: &Connection) -> Result<u64, StateError> {
    let kept: Option<Vec<u8>> = connection
        .prepare_cached("SELECT value FROM setting WHERE key = ?1")?
        .query_row(params![UNSEEN], |row| row.get(0))
        .optional()?;
    let Some(kept) = kept else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(kept).map_err(|_| StateError::Corrupt(UNSEEN.to_owned()))?;
    Ok(u64::from_be_bytes(bytes))
}

fn load(connection: &Connection, keys: &BTreeSet<Key>) -> Result<BTreeMap<Key, Tally>, StateError> {
    let mut tallies = BTreeMap::new();
    for key in keys {
        let text: Option<String> = connection
            .prepare_cached("SELECT value FROM tally WHERE key = ?1")?
            .query_row(params![key.to_string()], |row| row.get(0))
            .optional()?;
        let tally = match text {
            Some(text) => Tally::decode(&text).ok_or_else(|| StateError::Corrupt(key.to_string()))?,
            None => Tally::default(),
        };
        tallies.insert(key.clone(), tally);
    }
    Ok(tallies)
}

impl Counters for State {
    fn change(
        &self,
        keys: &BTreeSet<Key>,
        step: &mut dyn FnMut(&mut BTreeMap<Key, Tally>),
    ) -> Result<(), StateError> {
        let mut connection = self.lock();
        // INVARIANT: the lock is had before anything is read, so that two processes never decide on the same count.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = load(&transaction, keys)?;
        let mut after = before.clone();
        step(&mut after);
        for (key, tally) in after.iter().filter(|(key, tally)| before.get(key) != Some(tally)) {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO tally (key, value) VALUES (?1, ?2)")?
                .execute(params![key.to_string(), tally.encode()])?;
        }
        // What changed nothing costs no write.
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use farthing_toolguard::{Call, Decision, decide, keys_of, read};

    use super::*;

    #[test]
    fn of_a_thousand_calls_at_once_a_hundred_are_let_through_also_by_two_processes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let text =
            "version: \"1\"\ndefault: deny\ntools: { t: { rules: [{ name: r, rate_limit: 100/day }] } }";
        let policy = Arc::new(read(text).policy.unwrap());
        let now = Timestamp::from_secs(1_795_348_800);
        let mut threads = Vec::new();
        for _ in 0..4 {
            // Each opens the file for itself, as a process does.
            let (state, policy) = (State::open(&path).unwrap(), policy.clone());
            threads.push(std::thread::spawn(move || {
                let call = Call { tool: "t", arguments: &serde_json::Map::new() };
                let mut allowed = 0;
                for _ in 0..250 {
                    let mut decision = None;
                    let mut step = |tallies: &mut BTreeMap<Key, Tally>| {
                        decision = Some(decide(&policy, &call, tallies, now, false));
                    };
                    state.change(&keys_of(&policy, "t"), &mut step).unwrap();
                    allowed += u32::from(matches!(decision, Some(Decision::Allowed(_))));
                }
                allowed
            }));
        }
        let allowed: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(allowed, 100);
        // And who comes later finds them counted.
        let left = State::open(&path).unwrap().tallies(&keys_of(&policy, "t")).unwrap();
        let (key, tally) = left.first_key_value().unwrap();
        assert_eq!(tally.value(key.window, now), 100);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_counter_that_nobody_wrote_is_no_counter() {
        let state = State::in_memory().unwrap();
        let policy =
            read("version: \"1\"\ntools: { t: { rules: [{ name: r, rate_limit: 1/day }] } }").policy.unwrap();
        let keys = keys_of(&policy, "t");
        let key = keys.first().unwrap().to_string();
        state.lock().execute("INSERT INTO tally VALUES (?1, 'nine')", params![key]).unwrap();
        let mut ran = false;
        assert!(matches!(state.change(&keys, &mut |_| ran = true), Err(StateError::Corrupt(_))));
        assert!(!ran);
    }

    #[test]
    fn what_was_seen_first_stays_until_the_owner_accepts_another() {
        let state = State::in_memory().unwrap();
        let now = Timestamp::from_secs(1);
        let pin = |hash: u8, accept| state.pin(&[("t".to_owned(), [hash; 32])], accept, now).unwrap();
        assert!(pin(1, false).is_empty() && pin(1, false).is_empty());
        assert_eq!(pin(2, false), BTreeSet::from(["t".to_owned()]));
        assert!(pin(1, false).is_empty());
        assert!(pin(2, true).is_empty() && pin(2, false).is_empty());
        assert!(!pin(1, false).is_empty());
        state.accept(&[3; 32]).unwrap();
        assert!(state.is_accepted(&[3; 32]).unwrap() && !state.is_accepted(&[4; 32]).unwrap());
    }
}
