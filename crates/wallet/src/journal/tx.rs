//! The journal's database inside of a transaction, with what every payment reads of it kept in memory: as long as nobody
//! else writes, what was read or written here last is what is there.
//!
//! INVARIANT: what is kept is what the open transaction would read. It is forgotten when another connection committed, when
//! anything is undone, and by whoever writes to one of these tables and does not say what it wrote.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use farthing_policy::{AgentName, Mark, Rules};
use rusqlite::{Connection, OptionalExtension};

use super::{JournalError, run};
use crate::record;

pub(super) const RULES: &str = "rules";
pub(super) const MARK: &str = "mark";

/// The settings that every payment reads. No other is kept, so that what is kept has an end.
const OFTEN: &[&str] = &[
    RULES,
    MARK,
    "devnet",
    super::law::POLICY_ID,
    super::law::POLICY_HASH,
    super::audit::RATCHET,
    super::audit::PRINCIPAL,
    super::audit::OPERATOR,
    super::audit::JURISDICTION,
];

/// A connection with a transaction that is open. It reads and writes as the connection does.
#[derive(Debug)]
pub(super) struct Tx {
    db: Connection,
    kept: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// SQLite's word for whether another connection committed: <https://sqlite.org/pragma.html#pragma_data_version>.
    version: Option<i64>,
    settings: BTreeMap<&'static str, Option<String>>,
    rules: Option<Rules>,
    mark: Option<Option<Mark>>,
    /// How many leaves the audit log has.
    leaves: Option<i64>,
    /// All names that the owner froze.
    frozen: Option<BTreeSet<String>>,
    /// Whether there is any session key, or an agent that is bound to one.
    has_session_keys: Option<bool>,
}

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.db
    }
}

impl Tx {
    pub fn new(db: Connection) -> Self {
        Self { db, kept: RefCell::default() }
    }

    /// Begins a transaction; `statement` is one that does.
    pub fn begin(&self, statement: &str) -> Result<(), rusqlite::Error> {
        self.execute_kept(statement)?;
        // Read inside of it, so that what is read next is what this is the version of.
        let version = self.db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0));
        let version = version.inspect_err(|_| {
            let _ = self.db.execute_batch("ROLLBACK");
        })?;
        let mut kept = self.kept.borrow_mut();
        if kept.version != Some(version) {
            *kept = Kept { version: Some(version), ..Kept::default() };
        }
        Ok(())
    }

    /// Executes a statement without values that is read once.
    pub fn execute_kept(&self, statement: &str) -> Result<(), rusqlite::Error> {
        self.db.prepare_cached(statement)?.execute([]).map(drop)
    }

    /// What was kept may not be so any more.
    pub fn forget_kept(&self) {
        *self.kept.borrow_mut() = Kept::default();
    }

    pub fn setting(&self, name: &str) -> Result<Option<String>, JournalError> {
        let often = OFTEN.iter().find(|often| **often == name);
        if let Some(known) = often.and_then(|name| self.kept.borrow().settings.get(name).cloned()) {
            return Ok(known);
        }
        let mut found = self.db.prepare_cached("SELECT value FROM setting WHERE key = ?1")?;
        let value: Option<String> = found.query_row([name], |row| row.get(0)).optional()?;
        if let Some(name) = often {
            self.kept.borrow_mut().settings.insert(name, value.clone());
        }
        Ok(value)
    }

    /// Sets it, or takes it away.
    pub fn set(&self, name: &str, value: Option<&str>) -> Result<(), JournalError> {
        self.forget_setting(name);
        match value {
            Some(value) => run(
                self,
                "INSERT INTO setting (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
                [name, value],
            )?,
            None => run(self, "DELETE FROM setting WHERE key = ?1", [name])?,
        };
        if let Some(name) = OFTEN.iter().find(|often| **often == name) {
            self.kept.borrow_mut().settings.insert(name, value.map(ToOwned::to_owned));
        }
        Ok(())
    }

    fn forget_setting(&self, name: &str) {
        let mut kept = self.kept.borrow_mut();
        kept.settings.remove(name);
        match name {
            RULES => kept.rules = None,
            MARK => kept.mark = None,
            _ => {}
        }
    }

    /// The rules as they are stored.
    pub fn rules(&self) -> Result<Rules, JournalError> {
        if let Some(rules) = &self.kept.borrow().rules {
            return Ok(rules.clone());
        }
        let text = self.setting(RULES)?;
        let rules = text.as_deref().and_then(record::read_rules).ok_or(JournalError::Corrupt("rule set"))?;
        self.kept.borrow_mut().rules = Some(rules.clone());
        Ok(rules)
    }

    pub fn mark(&self) -> Result<Option<Mark>, JournalError> {
        if let Some(mark) = &self.kept.borrow().mark {
            return Ok(mark.clone());
        }
        let text = self.setting(MARK)?;
        let read = |text: String| record::read_mark(&text).ok_or(JournalError::Corrupt("mark of time"));
        let mark = text.map(read).transpose()?;
        self.kept.borrow_mut().mark = Some(mark.clone());
        Ok(mark)
    }

    pub fn set_mark(&self, mark: Mark) -> Result<(), JournalError> {
        self.set(MARK, Some(&record::print_mark(&mark)))?;
        self.kept.borrow_mut().mark = Some(Some(mark));
        Ok(())
    }

    /// How many leaves the audit log has.
    pub fn leaves(&self) -> Result<i64, JournalError> {
        if let Some(leaves) = self.kept.borrow().leaves {
            return Ok(leaves);
        }
        let mut found = self.db.prepare_cached("SELECT coalesce(max(idx) + 1, 0) FROM audit_leaf")?;
        let leaves = found.query_row([], |row| row.get(0))?;
        self.kept.borrow_mut().leaves = Some(leaves);
        Ok(leaves)
    }

    /// A leaf was added, with the index that was next.
    pub fn leaf_added(&self) {
        let mut kept = self.kept.borrow_mut();
        kept.leaves = kept.leaves.and_then(|leaves| leaves.checked_add(1));
    }

    /// Whether the owner froze an agent, or what it is part of.
    pub fn is_any_frozen(&self, agent: &AgentName) -> Result<bool, JournalError> {
        let known = self.kept.borrow().frozen.is_some();
        if !known {
            let mut found = self.db.prepare_cached("SELECT name FROM agent_frozen")?;
            let frozen = found.query_map([], |row| row.get(0))?.collect::<Result<BTreeSet<String>, _>>()?;
            self.kept.borrow_mut().frozen = Some(frozen);
        }
        let kept = self.kept.borrow();
        let Some(frozen) = &kept.frozen else { return Err(JournalError::Corrupt("agent")) };
        Ok(agent.lineage().any(|name| frozen.contains(name.as_str())))
    }

    /// Whether there is any session key, or an agent that is bound to one.
    pub fn has_session_keys(&self) -> Result<bool, JournalError> {
        if let Some(known) = self.kept.borrow().has_session_keys {
            return Ok(known);
        }
        let mut found = self.db.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM session_key) OR EXISTS (SELECT 1 FROM session_agent)",
        )?;
        let known = found.query_row([], |row| row.get(0))?;
        self.kept.borrow_mut().has_session_keys = Some(known);
        Ok(known)
    }
}
