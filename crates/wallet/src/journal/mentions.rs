//! What others named: hosts and payees in what an agent read, before it paid them. An agent can only ever add to it.
//!
//! Kept while a policy is in force that minds them. What a policy names itself is known by the policy, which decides; what
//! the books know is told here: who was paid before, and whom people agreed to.

use farthing_policy::{Clock, Decision, Fact, Host, Law, MAX_NAMED_BY_CHARS, Mention, Named, Names, Request};
use farthing_primitives::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{Journal, JournalError, Tx, audit, believed, millis, run};

/// How many names are kept of one agent, and how many of all. Beyond that whatever is not known counts as named.
pub const MAX_MENTIONS: u32 = 65_536;
pub const MAX_MENTIONS_IN_ALL: u32 = 4 * MAX_MENTIONS;
/// How many names [`Journal::mentions`] tells of at most.
pub const MAX_MENTIONS_SHOWN: u32 = 10_000;

const HOST: &str = "host";
const PAYEE: &str = "payee";

/// A name as the books have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMention {
    /// `None` if the owner read it.
    pub agent: Option<String>,
    /// `host` or `payee`; `more` says that there were more names than are kept.
    pub kind: String,
    pub name: String,
    pub since: Timestamp,
    pub by: String,
}

impl Journal {
    /// Writes down what somebody else named. What is there already stays as it was, and whoever names itself is not told.
    ///
    /// `by` is as [`farthing_policy::named_by`] makes it.
    pub fn mention(&self, names: &Names, by: &str, clock: &Clock) -> Result<(), JournalError> {
        // Most of what is read names nothing new, and whoever only looks keeps nobody from writing.
        if names.is_empty() || self.db.look(|tx| self.has_all(tx, names, by))? {
            return Ok(());
        }
        self.within(|tx| {
            if !self.law_now(tx)?.minds_mentions() {
                return Ok(());
            }
            let by: String = by.chars().take(MAX_NAMED_BY_CHARS).collect();
            let agent = self.agent_name().unwrap_or_default();
            let now = believed(tx, clock)?.time;
            let (mut kept, lost) = count(tx, agent)?;
            let before = kept;
            let mut sum = tx.prepare_cached("SELECT coalesce(sum(kept), 0) FROM mention_count")?;
            let all: u32 = sum.query_row([], |row| row.get(0))?;
            let most = MAX_MENTIONS.min(kept.saturating_add(MAX_MENTIONS_IN_ALL.saturating_sub(all)));
            let mut more = names.is_cut();
            for (kind, name) in kept_as(names, &by) {
                if is_kept(tx, agent, kind, &name)? {
                    continue;
                }
                if kept >= most {
                    more = true;
                    break;
                }
                run(
                    tx,
                    "INSERT INTO mention (agent, kind, name, since_ms, source) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![agent, kind, name, millis(now), by],
                )?;
                kept += 1;
            }
            let newly_lost = more && lost.is_none();
            if kept != before || newly_lost {
                run(
                    tx,
                    "INSERT INTO mention_count (agent, kept, lost_ms, lost_source) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (agent) DO UPDATE SET kept = ?2, lost_ms = coalesce(lost_ms, ?3),
                     lost_source = coalesce(lost_source, ?4)",
                    params![agent, kept, newly_lost.then(|| millis(now)), newly_lost.then_some(by)],
                )?;
            }
            Ok(())
        })
    }

    /// Whether nothing of it has to be written down.
    fn has_all(&self, tx: &Tx, names: &Names, by: &str) -> Result<bool, JournalError> {
        if !self.law_now(tx)?.minds_mentions() {
            return Ok(true);
        }
        let agent = self.agent_name().unwrap_or_default();
        let is_lost = count(tx, agent)?.1.is_some();
        if names.is_cut() && !is_lost {
            return Ok(false);
        }
        for (kind, name) in kept_as(names, by) {
            if !is_kept(tx, agent, kind, &name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What was named to whoever uses this journal, by name; to everybody, for the owner.
    pub fn mentions(&self) -> Result<Vec<KeptMention>, JournalError> {
        self.within(|tx| {
            let mut found = tx.prepare_cached(
                "SELECT agent, 'more', '', lost_ms, lost_source FROM mention_count
                 WHERE lost_ms IS NOT NULL AND (?1 IS NULL OR agent = ?1)
                 UNION ALL
                 SELECT agent, kind, name, since_ms, source FROM mention WHERE ?1 IS NULL OR agent = ?1
                 LIMIT ?2",
            )?;
            let rows = found.query_map(params![self.agent_name(), MAX_MENTIONS_SHOWN], |row| {
                let (agent, kind, name): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(KeptMention {
                    agent: Some(agent).filter(|agent| !agent.is_empty()),
                    name: if kind == HOST { backwards(&name) } else { name },
                    kind,
                    since: Timestamp::from_millis(row.get::<_, i64>(3)?.cast_unsigned()),
                    by: row.get(4)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Forgets that `host` was named, with all below it, or everything. For the owner: whom an agent reads of it cannot
    /// have forgotten. Returns how many names that were.
    pub fn forget_mentions(&self, host: Option<&Host>) -> Result<usize, JournalError> {
        self.within(|tx| {
            if self.agent().is_some() {
                return Err(JournalError::Rules("names are forgotten by the owner alone".to_owned()));
            }
            audit::setting_changed(tx, "names_forgotten", host.map_or("all", Host::as_str))?;
            let Some(host) = host else {
                run(tx, "DELETE FROM mention_count", [])?;
                return run(tx, "DELETE FROM mention", []);
            };
            let name = backwards(&key(host));
            let gone = run(
                tx,
                "DELETE FROM mention WHERE kind = 'host' AND (name = ?1 OR (name >= ?1 || '.' AND name < ?1 || '/'))",
                [&name],
            )?;
            run(
                tx,
                "UPDATE mention_count SET kept = (SELECT count(*) FROM mention WHERE mention.agent = mention_count.agent)",
                [],
            )?;
            Ok(gone)
        })
    }

    /// What `request` goes by that was named before it was known otherwise.
    pub(super) fn mentioned(
        &self,
        tx: &Tx,
        law: &Law,
        request: &Request,
    ) -> Result<Vec<Mention>, JournalError> {
        if !law.minds_mentions() {
            return Ok(Vec::new());
        }
        let agent = self.agent_name().unwrap_or_default();
        let (kept, lost) = count(tx, agent)?;
        if kept == 0 && lost.is_none() {
            return Ok(Vec::new());
        }
        let first = |found: Option<(i64, String)>| [found, lost.clone()].into_iter().flatten().min();
        let authority = request.origin.authority();
        let mut mentions = Vec::new();
        if let Some((since, by)) = first(host(tx, agent, &request.origin.host)?)
            && !is_vouched(tx, agent, &authority, None)?
            && !was_paid(tx, agent, &authority, None, since)?
        {
            mentions.push(Mention { what: Named::Host(request.origin.host.clone()), by });
        }
        let payee = request.payee.as_str();
        let named = at(tx, agent, PAYEE, payee)?;
        // Whom a seller names as its own payee it names in each price, too.
        let named = named.filter(|(_, by)| author(by) != authority);
        if let Some((since, by)) = first(named)
            && !is_vouched(tx, agent, &authority, Some(payee))?
            && !was_paid(tx, agent, &authority, Some(payee), since)?
        {
            mentions.push(Mention { what: Named::Payee(request.payee.clone()), by });
        }
        Ok(mentions)
    }

    /// Whom people let be paid although somebody else had named it is known from now on, to this agent.
    pub(super) fn vouch(&self, tx: &Tx, decision: &Decision, request: &Request) -> Result<(), JournalError> {
        if decision.findings.iter().any(|fact| matches!(fact, Fact::NamedFirst { .. })) {
            run(
                tx,
                "INSERT OR IGNORE INTO vouched (agent, authority, payee) VALUES (?1, ?2, ?3)",
                params![
                    self.agent_name().unwrap_or_default(),
                    request.origin.authority(),
                    request.payee.as_str()
                ],
            )?;
        }
        Ok(())
    }
}

/// The names as they are kept: of which kind, and how they are written.
fn kept_as<'a>(names: &'a Names, by: &str) -> impl Iterator<Item = (&'static str, String)> + use<'a> {
    // What a host says of itself nobody had to be told: it was asked by its name.
    let own = author(by).rsplit_once(':').map(|(host, _)| host.to_owned());
    let hosts = names.hosts.iter().filter(move |host| Some(host.as_str()) != own.as_deref());
    let hosts = hosts.map(|host| (HOST, backwards(&key(host))));
    hosts.chain(names.payees.iter().map(|payee| (PAYEE, payee.as_str().to_owned())))
}

/// `host:port` of who named something, without the tool.
fn author(by: &str) -> &str {
    by.split(' ').next().unwrap_or_default()
}

/// One spelling for each address, also where one of the fourth version is written as one of the sixth.
fn key(host: &Host) -> String {
    host.ip().map_or_else(|| host.to_string(), |ip| ip.to_canonical().to_string())
}

fn backwards(name: &str) -> String {
    name.chars().rev().collect()
}

/// How many names are kept, and since when, and by whom, more were named than that.
fn count(tx: &Tx, agent: &str) -> Result<(u32, Option<(i64, String)>), JournalError> {
    let mut found =
        tx.prepare_cached("SELECT kept, lost_ms, lost_source FROM mention_count WHERE agent = ?1")?;
    let row = found.query_row([agent], |row| {
        let lost: (Option<i64>, Option<String>) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, lost.0.zip(lost.1)))
    });
    Ok(row.optional()?.unwrap_or((0, None)))
}

fn is_kept(tx: &Tx, agent: &str, kind: &str, name: &str) -> Result<bool, JournalError> {
    Ok(at(tx, agent, kind, name)?.is_some())
}

/// When a name was first named, and by whom.
fn at(tx: &Tx, agent: &str, kind: &str, name: &str) -> Result<Option<(i64, String)>, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT since_ms, source FROM mention WHERE agent = ?1 AND kind = ?2 AND name = ?3",
    )?;
    Ok(found.query_row([agent, kind, name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// The same of a host: by its own name, by one that it is below, or by one below it. Whoever names a part of a tree may mean
/// all of it.
fn host(tx: &Tx, agent: &str, host: &Host) -> Result<Option<(i64, String)>, JournalError> {
    let name = key(host);
    let mut first = at(tx, agent, HOST, &backwards(&name))?;
    if host.ip().is_some() {
        return Ok(first);
    }
    let mut earlier =
        |found: Option<(i64, String)>| first = [first.take(), found].into_iter().flatten().min();
    for (dot, _) in name.match_indices('.') {
        let above = name.get(dot + 1..).filter(|above| above.contains('.'));
        if let Some(above) = above {
            earlier(at(tx, agent, HOST, &backwards(above))?);
        }
    }
    let mut below = tx.prepare_cached(
        "SELECT since_ms, source FROM mention
         WHERE agent = ?1 AND kind = 'host' AND name >= ?2 || '.' AND name < ?2 || '/'
         ORDER BY since_ms LIMIT 1",
    )?;
    let found = below.query_row([agent, &backwards(&name)], |row| Ok((row.get(0)?, row.get(1)?)));
    earlier(found.optional()?);
    Ok(first)
}

/// Whether this host was paid, by this agent or the owner, before `since`, and a chain said so: with a payment, or with a
/// channel that is open.
fn was_paid(
    tx: &Tx,
    agent: &str,
    authority: &str,
    payee: Option<&str>,
    since: i64,
) -> Result<bool, JournalError> {
    // By an index over what is proven, so that it costs the same however often somebody was paid.
    let mut found = tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM purchase WHERE authority = ?1 AND state = 'settled' AND confirmed > 0
             AND channel IS NULL AND agent IS NULL AND (?4 IS NULL OR payee = ?4) AND created_ms < ?2)
         OR EXISTS (SELECT 1 FROM purchase WHERE authority = ?1 AND state = 'settled' AND confirmed > 0
             AND channel IS NULL AND agent = ?3 AND (?4 IS NULL OR payee = ?4) AND created_ms < ?2)
         OR EXISTS (SELECT 1 FROM channel WHERE authority = ?1 AND state = 'open' AND created_ms < ?2
             AND (agent IS NULL OR agent = ?3) AND (?4 IS NULL OR instr(parties, ' ' || ?4 || ' ') > 0))",
    )?;
    Ok(found.query_row(params![authority, since, agent, payee], |row| row.get(0))?)
}

/// Whether people let this agent pay it once.
fn is_vouched(tx: &Tx, agent: &str, authority: &str, payee: Option<&str>) -> Result<bool, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM vouched
         WHERE agent = ?1 AND authority = ?2 AND (?3 IS NULL OR payee = ?3))",
    )?;
    Ok(found.query_row(params![agent, authority, payee], |row| row.get(0))?)
}

#[cfg(test)]
mod tests;
