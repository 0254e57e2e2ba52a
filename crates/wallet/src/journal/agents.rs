//! Machines that spend through a guard: what they show to be known, whether they are frozen, and what is theirs.
//!
//! A journal of one agent sees that agent's purchases and channels alone: whatever else is asked for does not exist.
//! Whether the agent is still known and not frozen is asked in the very transaction that lets a signature count, so that
//! no other can come between.

use farthing_channel::ChannelId;
use farthing_policy::{AgentName, Clock, Rules};
use farthing_primitives::{AttemptId, PurchaseId, Timestamp};
use rusqlite::{OptionalExtension, params};
use subtle::ConstantTimeEq;

use super::{Journal, JournalError, Tx, audit, key, millis, run};
use crate::holder::Processes;

/// What names of fronts begin with, among the holders of purchases. No process has such a name.
const FRONT: &str = "front/";

/// How many agents a wallet may know.
pub const MAX_AGENTS: u32 = 10_000;

/// The SHA-256 of what an agent shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential(pub [u8; 32]);

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential")
    }
}

/// What kind of thing an agent shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    Token,
    /// A client's certificate, by its DER encoding.
    Certificate,
}

impl CredentialKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
        }
    }
}

/// Whom a journal is seen by.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    name: AgentName,
    /// By what it was admitted; nothing is signed once this is not its own any more.
    credential: Option<Credential>,
}

/// An agent as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAgent {
    pub name: AgentName,
    pub created: Timestamp,
    /// Since when it has nothing to show any more.
    pub revoked: Option<Timestamp>,
    /// Whether it, or what it is part of, is frozen.
    pub frozen: bool,
    pub tokens: u32,
    pub certificates: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("there is an agent {0} already")]
    Exists(AgentName),
    #[error("there is no agent {0}")]
    Unknown(AgentName),
    #[error("the wallet knows {MAX_AGENTS} agents already")]
    TooMany,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Journal {
    /// The same journal as one agent sees it. What is bought through it is that agent's.
    ///
    /// With a credential, nothing is signed any more from the moment in which it is revoked.
    #[must_use]
    pub fn for_agent(&self, name: AgentName, credential: Option<Credential>) -> Self {
        Self {
            db: self.db.clone(),
            processes: self.processes.clone(),
            agent: Some(Scope { name, credential }),
            policies: self.policies.clone(),
            meters: self.meters.clone(),
        }
    }

    /// The same journal as one front of a guard uses it: what it begins is held by that front. `is_alive` tells by their
    /// names whether fronts are still there; other processes are asked for as ever.
    #[must_use]
    pub fn as_front(&self, front: &str, is_alive: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let others = Processes::of_system().is_gone;
        let mut journal = self.as_process(&format!("{FRONT}{front}"), move |holder| {
            holder.strip_prefix(FRONT).map_or_else(|| others(holder), |front| !is_alive(front))
        });
        // It is one process still, which counts once.
        journal.meters = self.meters.clone();
        if front.is_empty() {
            // The guard itself holds nothing, and is a process like any other.
            journal.processes.this = Processes::of_system().this;
        }
        journal
    }

    /// Whose journal this is; `None` is the owner's.
    pub fn agent(&self) -> Option<&AgentName> {
        self.agent.as_ref().map(|scope| &scope.name)
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What the owner does.

    /// Makes an agent known. One that was revoked is known again, with its old purchases.
    pub fn add_agent(
        &self,
        name: &AgentName,
        kind: CredentialKind,
        credential: &Credential,
        clock: &Clock,
    ) -> Result<(), AgentError> {
        self.agents_within(|tx| {
            if !credentials(tx, name)?.is_empty() {
                return Err(AgentError::Exists(name.clone()));
            }
            let known: u32 = tx
                .query_row("SELECT count(*) FROM agent WHERE revoked_ms IS NULL", [], |row| row.get(0))
                .map_err(JournalError::from)?;
            if known >= MAX_AGENTS {
                return Err(AgentError::TooMany);
            }
            run(
                tx,
                "INSERT INTO agent (name, created_ms) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET revoked_ms = NULL",
                params![name.as_str(), millis(clock.wall)],
            )?;
            audit::setting_changed(tx, "agent_added", name.as_str())?;
            Ok(insert(tx, name, kind, credential, clock)?)
        })
    }

    /// Gives an agent something else to show; from now on the old is worth nothing.
    pub fn rotate_agent(
        &self,
        name: &AgentName,
        kind: CredentialKind,
        credential: &Credential,
        clock: &Clock,
    ) -> Result<(), AgentError> {
        self.agents_within(|tx| {
            if credentials(tx, name)?.is_empty() {
                return Err(AgentError::Unknown(name.clone()));
            }
            drop_credentials(tx, name)?;
            audit::setting_changed(tx, "agent_rotated", name.as_str())?;
            Ok(insert(tx, name, kind, credential, clock)?)
        })
    }

    /// From now on an agent has nothing to show, also on connections that are open. Its purchases stay.
    pub fn revoke_agent(&self, name: &AgentName, clock: &Clock) -> Result<(), AgentError> {
        self.agents_within(|tx| {
            if credentials(tx, name)?.is_empty() {
                return Err(AgentError::Unknown(name.clone()));
            }
            drop_credentials(tx, name)?;
            audit::setting_changed(tx, "agent_revoked", name.as_str())?;
            run(
                tx,
                "UPDATE agent SET revoked_ms = ?2 WHERE name = ?1",
                params![name.as_str(), millis(clock.wall)],
            )?;
            Ok(())
        })
    }

    /// All agents that ever were, by name.
    pub fn agents(&self) -> Result<Vec<KeptAgent>, JournalError> {
        self.within(|tx| {
            let mut found = tx.prepare_cached(
                "SELECT name, created_ms, revoked_ms,
                 (SELECT count(*) FROM agent_credential WHERE agent = name AND kind = 'token'),
                 (SELECT count(*) FROM agent_credential WHERE agent = name AND kind = 'certificate')
                 FROM agent ORDER BY name",
            )?;
            let mut rows = found.query([])?;
            let time = |ms: i64| Timestamp::from_millis(ms.cast_unsigned());
            let mut agents = Vec::new();
            while let Some(row) = rows.next()? {
                let name = parse(&row.get::<_, String>(0)?)?;
                agents.push(KeptAgent {
                    frozen: is_frozen(tx, &name)?,
                    name,
                    created: time(row.get(1)?),
                    revoked: row.get::<_, Option<i64>>(2)?.map(time),
                    tokens: row.get(3)?,
                    certificates: row.get(4)?,
                });
            }
            Ok(agents)
        })
    }

    /// From the moment in which this returns nothing new is signed for an agent, nor for any that is part of it.
    pub fn freeze_agent(&self, name: &AgentName, clock: &Clock) -> Result<(), JournalError> {
        self.within(|tx| {
            run(
                tx,
                "INSERT OR IGNORE INTO agent_frozen (name, since_ms) VALUES (?1, ?2)",
                params![name.as_str(), millis(clock.wall)],
            )?;
            tx.forget_kept();
            audit::agent_frozen(tx, name.as_str(), true)
        })
    }

    /// Returns whether it was frozen. What it is part of may be frozen still.
    pub fn unfreeze_agent(&self, name: &AgentName) -> Result<bool, JournalError> {
        self.within(|tx| {
            audit::agent_frozen(tx, name.as_str(), false)?;
            tx.forget_kept();
            Ok(run(tx, "DELETE FROM agent_frozen WHERE name = ?1", [name.as_str()])? > 0)
        })
    }

    /// The names that are frozen, as the owner gave them.
    pub fn frozen_agents(&self) -> Result<Vec<AgentName>, JournalError> {
        self.within(|tx| {
            let mut found = tx.prepare_cached("SELECT name FROM agent_frozen ORDER BY name")?;
            let rows = found.query_map([], |row| row.get::<_, String>(0))?;
            rows.map(|row| parse(&row?)).collect()
        })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What a guard asks.

    /// Whether this is what the agent shows.
    pub fn knows_agent(&self, name: &AgentName, credential: &Credential) -> Result<bool, JournalError> {
        self.within(|tx| knows(tx, name, credential))
    }

    /// The agent that shows this; what it shows has to be nothing that could be guessed, or that proves itself.
    pub fn agent_by(&self, credential: &Credential) -> Result<Option<AgentName>, JournalError> {
        self.within(|tx| {
            let mut found = tx.prepare_cached("SELECT agent FROM agent_credential WHERE hash = ?1")?;
            let name: Option<String> = found.query_row([&credential.0[..]], |row| row.get(0)).optional()?;
            name.as_deref().map(parse).transpose()
        })
    }

    /// Whether anything may be signed through here now.
    ///
    /// # Errors
    /// [`JournalError::Frozen`] and [`JournalError::Revoked`] if not.
    pub fn may_sign_now(&self) -> Result<(), JournalError> {
        self.within(|tx| self.may_sign(tx))
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What each transaction asks.

    /// The agent's name as rows have it.
    pub(super) fn agent_name(&self) -> Option<&str> {
        self.agent().map(AgentName::as_str)
    }

    /// The rules that hold for whoever uses this journal: those of a frozen agent are frozen.
    pub(super) fn rules_now(&self, tx: &Tx) -> Result<Rules, JournalError> {
        let mut rules = tx.rules()?;
        if let Some(scope) = &self.agent {
            if let Some(credential) = &scope.credential
                && !knows(tx, &scope.name, credential)?
            {
                return Err(JournalError::Revoked(scope.name.clone()));
            }
            rules.frozen |= is_frozen(tx, &scope.name)?;
        }
        Ok(rules)
    }

    /// Whether a signature may count from this transaction on.
    pub(super) fn may_sign(&self, tx: &Tx) -> Result<(), JournalError> {
        if self.rules_now(tx)?.frozen { Err(JournalError::Frozen) } else { Ok(()) }
    }

    /// Whether a purchase is there, for whoever uses this journal.
    pub(super) fn own(&self, tx: &Tx, id: &PurchaseId) -> Result<(), JournalError> {
        let is_there = self.is_own(tx, "SELECT agent FROM purchase WHERE id = ?1", &key(id))?;
        if is_there { Ok(()) } else { Err(JournalError::NotFound(*id)) }
    }

    pub(super) fn own_channel(&self, tx: &Tx, id: &ChannelId) -> Result<(), JournalError> {
        let is_there = self.is_own(tx, "SELECT agent FROM channel WHERE id = ?1", &id.0)?;
        if is_there { Ok(()) } else { Err(JournalError::NoChannel(*id)) }
    }

    pub(super) fn own_attempt(&self, tx: &Tx, id: &AttemptId) -> Result<(), JournalError> {
        let sql = "SELECT agent FROM channel JOIN channel_attempt ON channel_attempt.channel = channel.id
                   WHERE channel_attempt.id = ?1";
        let is_there = self.is_own(tx, sql, &id.to_bytes())?;
        if is_there { Ok(()) } else { Err(JournalError::Corrupt("attempt")) }
    }

    fn is_own(&self, tx: &Tx, sql: &str, id: &[u8]) -> Result<bool, JournalError> {
        let Some(name) = self.agent_name() else { return Ok(true) };
        let mut found = tx.prepare_cached(sql)?;
        let owner: Option<Option<String>> = found.query_row([id], |row| row.get(0)).optional()?;
        Ok(owner.flatten().as_deref() == Some(name))
    }

    /// What was just written down is the agent's.
    pub(super) fn assign_channel(&self, tx: &Tx, id: &ChannelId) -> Result<(), JournalError> {
        if let Some(name) = self.agent_name() {
            run(tx, "UPDATE channel SET agent = ?2 WHERE id = ?1", params![&id.0[..], name])?;
        }
        Ok(())
    }

    fn agents_within<T>(&self, work: impl FnOnce(&Tx) -> Result<T, AgentError>) -> Result<T, AgentError> {
        let mut refused = None;
        let done = self.within(|tx| {
            work(tx).map(Some).or_else(|error| match error {
                AgentError::Journal(error) => Err(error),
                other => {
                    refused = Some(other);
                    Ok(None)
                }
            })
        })?;
        match (done, refused) {
            (Some(done), _) => Ok(done),
            (None, Some(error)) => Err(error),
            (None, None) => Err(JournalError::Corrupt("agent").into()),
        }
    }
}

/// An agent as a row has it.
pub(super) fn read(name: Option<String>) -> Result<Option<AgentName>, JournalError> {
    name.as_deref().map(parse).transpose()
}

fn parse(name: &str) -> Result<AgentName, JournalError> {
    name.parse().map_err(|_| JournalError::Corrupt("agent"))
}

fn is_frozen(tx: &Tx, name: &AgentName) -> Result<bool, JournalError> {
    tx.is_any_frozen(name)
}

fn credentials(tx: &Tx, name: &AgentName) -> Result<Vec<Vec<u8>>, JournalError> {
    let mut found = tx.prepare_cached("SELECT hash FROM agent_credential WHERE agent = ?1")?;
    let rows = found.query_map([name.as_str()], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// In a time that does not tell how much of a guess is right.
fn knows(tx: &Tx, name: &AgentName, credential: &Credential) -> Result<bool, JournalError> {
    let mut known = false;
    for hash in credentials(tx, name)? {
        known |= bool::from(hash.ct_eq(&credential.0[..]));
    }
    Ok(known)
}

fn insert(
    tx: &Tx,
    name: &AgentName,
    kind: CredentialKind,
    credential: &Credential,
    clock: &Clock,
) -> Result<(), JournalError> {
    run(
        tx,
        "INSERT INTO agent_credential (hash, agent, kind, created_ms) VALUES (?1, ?2, ?3, ?4)",
        params![&credential.0[..], name.as_str(), kind.name(), millis(clock.wall)],
    )?;
    Ok(())
}

fn drop_credentials(tx: &Tx, name: &AgentName) -> Result<(), JournalError> {
    run(tx, "DELETE FROM agent_credential WHERE agent = ?1", [name.as_str()])?;
    Ok(())
}

#[cfg(test)]
mod tests;
