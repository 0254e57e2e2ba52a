//! Keys that are made for a while: until when each of them signs, for whom, and where what is left on it goes.
//!
//! It is the process that signs which enforces this, in the transaction without which nothing is signed or shown. Whoever
//! has such a key elsewhere is bound by what is on it, and by nothing that is written here.

use std::time::Duration;

use farthing_evm::{B256, Key, from_alloy, keccak256, recover};
use farthing_policy::{AgentName, Clock};
use farthing_primitives::{Address, AssetId, PurchaseId, Timestamp};
use rusqlite::{OptionalExtension, Row, params};

use super::{Journal, JournalError, Tx, advance, agents, audit, believed, millis, run, wide};

/// For how long a key may be made.
pub const SHORTEST: Duration = Duration::from_secs(10);
pub const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many keys there may be, ended ones too.
pub const MAX_KEYS: u32 = 10_000;

/// For how long a transfer of what is left may be submitted.
const SWEEP_VALIDITY: Duration = Duration::from_secs(600);

/// Keeps what a key says of itself apart from whatever else it signs, all of which is EIP-712.
const CONTEXT: &str = "farthing session key v1";

/// What a key says of itself when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTerms {
    pub name: String,
    pub address: Address,
    /// The one agent that pays with it; `None` is whoever is given it.
    pub agent: Option<AgentName>,
    /// Where what is left on it goes.
    pub home: Address,
    /// By the books' time.
    pub made: Timestamp,
    pub ends: Timestamp,
}

impl SessionTerms {
    fn digest(&self) -> B256 {
        let agent = self.agent.as_ref().map_or("", AgentName::as_str);
        let text = format!(
            "{CONTEXT}\n{}\n{}\n{agent}\n{}\n{}\n{}",
            self.name,
            self.address,
            self.home,
            self.made.millis(),
            self.ends.millis()
        );
        keccak256(text.as_bytes())
    }
}

/// A key as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKey {
    pub terms: SessionTerms,
    /// When the owner ended it, if that was before it ended by itself.
    pub ended: Option<Timestamp>,
    /// Whether its agent pays with it, or may not pay: nobody let the agent go since.
    pub binds: bool,
}

impl SessionKey {
    /// From when on it signs nothing.
    pub fn ends(&self) -> Timestamp {
        self.ended.map_or(self.terms.ends, |ended| ended.min(self.terms.ends))
    }
}

/// A key, and how much longer it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub key: SessionKey,
    /// Zero once it has ended. By the books and by the wall, whichever is later: a clock that is set back lengthens
    /// nothing.
    pub left: Duration,
}

/// A transfer of what is left, to where the key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    pub nonce: [u8; 32],
    pub asset: AssetId,
    pub atoms: u128,
    pub expires: Timestamp,
}

/// Why a key is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionKeyFault {
    #[error("the session key {name} has ended: it signs nothing more")]
    Ended { name: String },
    #[error("what was to be signed would hold for longer than the session key {name}")]
    Outlives { name: String },
    #[error("the session key {name} is another agent's")]
    OfAnother { name: String },
    #[error("this agent pays with its session key {name} and no other: connect again, or name that key")]
    Needed { name: String },
}

impl SessionKeyFault {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended { .. } => "session_key_ended",
            Self::Outlives { .. } => "session_key_outlived",
            Self::OfAnother { .. } => "session_key_of_another",
            Self::Needed { .. } => "session_key_needed",
        }
    }
}

/// Why a key is not made, or not ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionKeyError {
    #[error("a session key is made for 10 seconds at least and for 30 days at most")]
    Length,
    #[error("there is a session key {0:?} already")]
    Exists(String),
    #[error("there is no session key {0:?}")]
    Unknown(String),
    #[error("{agent} pays with the session key {name:?}, which has not ended: end it first")]
    HasOne { agent: AgentName, name: String },
    #[error("the wallet knows {MAX_KEYS} session keys already")]
    TooMany,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Journal {
    // -----------------------------------------------------------------------------------------------------------------
    // What the owner does.

    /// Whether [`Self::add_session_key`] would make such a key known. Changes nothing.
    ///
    /// # Errors
    /// As it.
    pub fn may_add_session_key(
        &self,
        name: &str,
        agent: Option<&AgentName>,
        length: Duration,
        clock: &Clock,
    ) -> Result<(), SessionKeyError> {
        is_a_while(length)?;
        self.try_within(|tx| {
            let now = believed(tx, clock)?.time;
            is_free(tx, name, agent, now, clock)
        })
    }

    /// Makes a key known, which signs from now on for as long as is said. It says so itself, by a signature.
    ///
    /// # Errors
    /// [`SessionKeyError`].
    pub fn add_session_key(
        &self,
        key: &Key,
        name: &str,
        agent: Option<&AgentName>,
        home: &Address,
        length: Duration,
        clock: &Clock,
    ) -> Result<SessionKey, SessionKeyError> {
        is_a_while(length)?;
        self.try_within(|tx| {
            let made = advance(tx, clock)?;
            is_free(tx, name, agent, made, clock)?;
            let terms = SessionTerms {
                name: name.to_owned(),
                address: from_alloy(key.address()),
                agent: agent.cloned(),
                home: home.clone(),
                made,
                ends: made.plus(length),
            };
            let signature = key.sign(terms.digest()).to_bytes();
            run(
                tx,
                "INSERT INTO session_key (address, name, agent, home, made_ms, ends_ms, signature)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    terms.address.as_str(),
                    terms.name,
                    agent.map(AgentName::as_str),
                    terms.home.as_str(),
                    millis(terms.made),
                    millis(terms.ends),
                    &signature[..],
                ],
            )?;
            if let Some(agent) = agent {
                run(
                    tx,
                    "INSERT INTO session_agent (agent, address) VALUES (?1, ?2)
                     ON CONFLICT (agent) DO UPDATE SET address = ?2",
                    params![agent.as_str(), terms.address.as_str()],
                )?;
            }
            tx.forget_kept();
            let of = agent.map_or_else(String::new, |agent| format!(" for {agent}"));
            let said = format!("{name} {}{of} until {} home {}", terms.address, terms.ends, terms.home);
            audit::setting_changed(tx, "session_key_made", &said)?;
            Ok(SessionKey { terms, ended: None, binds: agent.is_some() })
        })
    }

    /// From now on a key signs nothing but the way home of what is on it. Once is enough. With `let_go`, its agent may
    /// pay with the wallet's own key again; otherwise it pays nothing until it is given another.
    ///
    /// # Errors
    /// [`SessionKeyError`].
    pub fn end_session_key(
        &self,
        name: &str,
        let_go: bool,
        clock: &Clock,
    ) -> Result<SessionKey, SessionKeyError> {
        self.try_within(|tx| {
            let now = advance(tx, clock)?;
            let unknown = || SessionKeyError::Unknown(name.to_owned());
            let mut key = by_name(tx, name)?.ok_or_else(unknown)?;
            // By the books alone: a wall that they do not believe may be put right.
            if key.ended.is_none() && now < key.terms.ends {
                let address = key.terms.address.as_str();
                run(
                    tx,
                    "UPDATE session_key SET ended_ms = ?2 WHERE address = ?1",
                    params![address, millis(now)],
                )?;
                audit::setting_changed(tx, "session_key_ended", &format!("{name} {address}"))?;
                key.ended = Some(now);
            }
            if let_go && key.binds {
                run(tx, "DELETE FROM session_agent WHERE address = ?1", [key.terms.address.as_str()])?;
                audit::setting_changed(tx, "session_key_unbound", name)?;
                key.binds = false;
            }
            Ok(key)
        })
    }

    /// All keys that ever were, by name, and how much longer each signs.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] if one of them does not say what is written of it.
    pub fn session_keys(&self, clock: &Clock) -> Result<Vec<Standing>, JournalError> {
        self.within(|tx| {
            let now = believed(tx, clock)?.time;
            let mut found = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM session_key ORDER BY name"))?;
            let rows = found.query_map([], |row| Ok(read(row)))?;
            rows.map(|row| {
                let key = row??;
                Ok(Standing { left: left_of(&key, now, clock), key })
            })
            .collect()
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// [`SessionKeyError::Unknown`].
    pub fn session_key(&self, name: &str) -> Result<SessionKey, SessionKeyError> {
        self.try_within(|tx| by_name(tx, name)?.ok_or_else(|| SessionKeyError::Unknown(name.to_owned())))
    }

    /// The key that is all that an agent pays with.
    ///
    /// # Errors
    /// If the books cannot be read.
    pub fn session_key_of(&self, agent: &AgentName) -> Result<Option<SessionKey>, JournalError> {
        self.within(|tx| bound_to(tx, agent))
    }

    // -----------------------------------------------------------------------------------------------------------------
    // The way home.

    /// What may still be taken from an account by payments that were shown and have not lapsed, in atoms, and until when.
    /// It is to stay for as long as it counts against the limits, too: a chain's clock may be behind.
    ///
    /// # Errors
    /// If the books cannot be read.
    pub fn may_still_move(
        &self,
        payer: &Address,
        asset: &AssetId,
        clock: &Clock,
    ) -> Result<(u128, Option<Timestamp>), JournalError> {
        self.within(|tx| {
            let mut found = tx.prepare_cached(
                "SELECT atoms, max(expires_ms, counts_until_ms) FROM purchase WHERE payer = ?1 AND asset = ?2 AND channel IS NULL
                 AND max(expires_ms, counts_until_ms) > ?3 AND (state IN ('presented', 'unknown', 'refused')
                 OR (state = 'settled' AND confirmed = 0))",
            )?;
            let mut rows = found.query(params![payer.as_str(), asset.to_string(), millis(clock.wall)])?;
            let (mut sum, mut until) = (0u128, None);
            while let Some(row) = rows.next()? {
                sum = sum.saturating_add(wide(row.get(0)?)?);
                until = until.max(Some(time(row.get(1)?)));
            }
            Ok((sum, until))
        })
    }

    /// The transfer that is on its way home, if there is one.
    ///
    /// # Errors
    /// If the books cannot be read.
    pub fn open_sweep(&self, key: &SessionKey, asset: &AssetId) -> Result<Option<Sweep>, JournalError> {
        self.within(|tx| under_way(tx, &key.terms.address, asset))
    }

    /// Writes down that what is left is about to be sent home. Only after this it is signed. While one is on its way there
    /// is no other: it is that one which is returned.
    ///
    /// # Errors
    /// If the books cannot be written.
    pub fn begin_sweep(
        &self,
        key: &SessionKey,
        asset: &AssetId,
        atoms: u128,
        nonce: [u8; 32],
        clock: &Clock,
    ) -> Result<Sweep, JournalError> {
        self.within(|tx| {
            if let Some(sweep) = under_way(tx, &key.terms.address, asset)? {
                return Ok(sweep);
            }
            let sweep =
                Sweep { nonce, asset: asset.clone(), atoms, expires: clock.wall.plus(SWEEP_VALIDITY) };
            run(
                tx,
                "INSERT INTO session_sweep (nonce, address, asset, atoms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    &nonce[..],
                    key.terms.address.as_str(),
                    asset.to_string(),
                    &atoms.to_be_bytes()[..],
                    millis(sweep.expires),
                ],
            )?;
            let said = format!("{} {atoms} of {asset} to {}", key.terms.name, key.terms.home);
            audit::setting_changed(tx, "session_key_swept", &said)?;
            Ok(sweep)
        })
    }

    /// Writes down what became of it: the transaction, or that it never comes.
    ///
    /// # Errors
    /// If the books cannot be written.
    pub fn end_sweep(&self, nonce: &[u8; 32], moved: bool, hash: Option<&str>) -> Result<(), JournalError> {
        let state = if moved { 1 } else { 2 };
        self.within(|tx| {
            run(
                tx,
                "UPDATE session_sweep SET state = ?2, tx = coalesce(?3, tx) WHERE nonce = ?1",
                params![&nonce[..], state, hash],
            )
            .map(drop)
        })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What each signature asks.

    /// Whether this account pays for whoever uses this journal, and how the key stands if it is one for a while.
    pub(super) fn key_now(
        &self,
        tx: &Tx,
        payer: &Address,
        now: Timestamp,
        clock: &Clock,
    ) -> Result<Option<Standing>, JournalError> {
        if !tx.has_session_keys()? {
            return Ok(None);
        }
        let key = by_address(tx, payer.as_str())?;
        if let Some(agent) = self.agent()
            && let Some(bound) = bound_to(tx, agent)?
            && bound.terms.address != *payer
        {
            return Err(SessionKeyFault::Needed { name: bound.terms.name }.into());
        }
        let Some(key) = key else { return Ok(None) };
        let name = || key.terms.name.clone();
        if key.terms.agent.is_some() && key.terms.agent.as_ref() != self.agent() {
            return Err(SessionKeyFault::OfAnother { name: name() }.into());
        }
        let left = left_of(&key, now, clock);
        if left.is_zero() {
            return Err(SessionKeyFault::Ended { name: name() }.into());
        }
        Ok(Some(Standing { key, left }))
    }

    /// Whether the key of a purchase has not ended, nor been taken from its agent, since it was reserved.
    pub(super) fn key_is_there(&self, tx: &Tx, id: &PurchaseId, clock: &Clock) -> Result<(), JournalError> {
        if !tx.has_session_keys()? {
            return Ok(());
        }
        let mut found = tx.prepare_cached("SELECT payer FROM purchase WHERE id = ?1")?;
        let payer: String = found.query_row([id.to_bytes().to_vec()], |row| row.get(0))?;
        let payer = address(&payer)?;
        let now = believed(tx, clock)?.time;
        self.key_now(tx, &payer, now, clock).map(drop)
    }

    /// Whether something may be signed that holds until then.
    pub(super) fn key_may_sign(
        &self,
        tx: &Tx,
        payer: &Address,
        until: Timestamp,
        now: Timestamp,
        clock: &Clock,
    ) -> Result<(), JournalError> {
        match self.key_now(tx, payer, now, clock)? {
            Some(Standing { key, left }) if until > clock.wall.plus(left) => {
                Err(SessionKeyFault::Outlives { name: key.terms.name }.into())
            }
            _ => Ok(()),
        }
    }
}

/// How much longer a key signs. The books' time goes on where the wall's is set back, and the wall's where the books do not
/// believe it: the key ends with the first of them.
fn left_of(key: &SessionKey, now: Timestamp, clock: &Clock) -> Duration {
    let latest = now.max(clock.wall);
    match key.ended {
        Some(_) => Duration::ZERO,
        None => key.terms.ends.since(latest),
    }
}

fn is_a_while(length: Duration) -> Result<(), SessionKeyError> {
    if (SHORTEST..=LONGEST).contains(&length) { Ok(()) } else { Err(SessionKeyError::Length) }
}

/// Whether one more key may have this name, and be this agent's.
fn is_free(
    tx: &Tx,
    name: &str,
    agent: Option<&AgentName>,
    now: Timestamp,
    clock: &Clock,
) -> Result<(), SessionKeyError> {
    if by_name(tx, name)?.is_some() {
        return Err(SessionKeyError::Exists(name.to_owned()));
    }
    let known: u32 =
        tx.query_row("SELECT count(*) FROM session_key", [], |row| row.get(0)).map_err(JournalError::from)?;
    if known >= MAX_KEYS {
        return Err(SessionKeyError::TooMany);
    }
    if let Some(agent) = agent
        && let Some(bound) = bound_to(tx, agent)?
        && left_of(&bound, now, clock) > Duration::ZERO
    {
        return Err(SessionKeyError::HasOne { agent: agent.clone(), name: bound.terms.name });
    }
    Ok(())
}

/// The transfer of what is left of one token that may still come.
fn under_way(tx: &Tx, address: &Address, asset: &AssetId) -> Result<Option<Sweep>, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT nonce, atoms, expires_ms FROM session_sweep
         WHERE address = ?1 AND asset = ?2 AND state = 0 ORDER BY expires_ms DESC LIMIT 1",
    )?;
    let row = found
        .query_row(params![address.as_str(), asset.to_string()], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((nonce, atoms, expires)) = row else { return Ok(None) };
    let nonce = nonce.try_into().map_err(|_| JournalError::Corrupt("nonce"))?;
    Ok(Some(Sweep { nonce, asset: asset.clone(), atoms: wide(atoms)?, expires: time(expires) }))
}

const COLUMNS: &str = "address, name, agent, home, made_ms, ends_ms, signature, ended_ms, \
     EXISTS (SELECT 1 FROM session_agent WHERE session_agent.address = session_key.address)";

fn by_name(tx: &Tx, name: &str) -> Result<Option<SessionKey>, JournalError> {
    one(tx, &format!("SELECT {COLUMNS} FROM session_key WHERE name = ?1"), name)
}

fn by_address(tx: &Tx, address: &str) -> Result<Option<SessionKey>, JournalError> {
    one(tx, &format!("SELECT {COLUMNS} FROM session_key WHERE address = ?1"), address)
}

fn bound_to(tx: &Tx, agent: &AgentName) -> Result<Option<SessionKey>, JournalError> {
    let mut found = tx.prepare_cached("SELECT address FROM session_agent WHERE agent = ?1")?;
    let address: Option<String> = found.query_row([agent.as_str()], |row| row.get(0)).optional()?;
    let Some(address) = address else { return Ok(None) };
    // A binding without its key is no binding to another.
    by_address(tx, &address)?.map(Some).ok_or(JournalError::Corrupt("session key"))
}

fn one(tx: &Tx, sql: &str, by: &str) -> Result<Option<SessionKey>, JournalError> {
    let mut found = tx.prepare_cached(sql)?;
    found.query_row([by], |row| Ok(read(row))).optional()?.transpose()
}

/// A row, if the key itself says what is in it.
fn read(row: &Row<'_>) -> Result<SessionKey, JournalError> {
    let corrupt = || JournalError::Corrupt("session key");
    let address = |text: String| address(&text);
    let terms = SessionTerms {
        address: address(row.get(0)?)?,
        name: row.get(1)?,
        agent: agents::read(row.get(2)?)?,
        home: address(row.get(3)?)?,
        made: time(row.get(4)?),
        ends: time(row.get(5)?),
    };
    let signature: Vec<u8> = row.get(6)?;
    // INVARIANT: nothing is believed of a key that it did not sign when it was made.
    if recover(terms.digest(), &signature).map(from_alloy).as_ref() != Ok(&terms.address) {
        return Err(corrupt());
    }
    Ok(SessionKey { terms, ended: row.get::<_, Option<i64>>(7)?.map(time), binds: row.get(8)? })
}

/// An EVM account's; keys sign on all such chains alike.
fn address(text: &str) -> Result<Address, JournalError> {
    Address::evm(text).map_err(|_| JournalError::Corrupt("address"))
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms.cast_unsigned())
}

#[cfg(test)]
mod tests;
