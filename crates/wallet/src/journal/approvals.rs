//! Payments that wait for people: what they are asked, who they are, and what they said.

use std::time::Duration;

use farthing_approval::{
    AnyKey, ApprovalId, ApprovalRequest, Ballot, Credential, CredentialId, Passkey, Proof, PublicKey, Site,
    Status, Subject, Verdict, Vote, VoteError, tally,
};
use farthing_policy::{AgentName, Approval, Clock, Decision, Fact, History, Law, Request};
use farthing_primitives::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Journal, JournalError, advance, audit, believed, millis, run};

/// How long people have to answer, and the payment to be made.
pub const APPROVAL_LASTS: Duration = Duration::from_secs(15 * 60);
/// How many requests of one agent may wait for people at once.
pub const MAX_PENDING: u32 = 20;
/// How many people may be approvers.
pub const MAX_APPROVERS: u32 = 1000;
/// How many requests are listed at most.
const MAX_LISTED: u32 = 1000;

/// Somebody whose word counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    pub name: String,
    pub credential: Credential,
    /// They run this agent and what is part of it, and do not approve what it asks for.
    pub runs: Option<AgentName>,
    pub created: Timestamp,
}

/// A request to people, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptApproval {
    pub id: ApprovalId,
    pub request: ApprovalRequest,
    /// The rule that asks, and how many people it wants.
    pub rule: String,
    pub quorum: u32,
    pub created: Timestamp,
    pub votes: Vec<Vote>,
    /// The payment was made.
    pub used: bool,
    pub status: Status,
}

#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    #[error("there is no approval request {0}")]
    NotFound(ApprovalId),
    #[error("there is an approver {0} already")]
    Exists(String),
    #[error("there is no approver {0}")]
    Unknown(String),
    #[error("{0:?} is no name for an approver: lower-case letters, digits, \".\", \"_\", \"-\", \"@\"")]
    Name(String),
    #[error("the wallet knows {MAX_APPROVERS} approvers already")]
    TooManyApprovers,
    #[error("{MAX_PENDING} requests of this agent wait for people already")]
    TooMany,
    #[error("nobody can approve anything yet: the owner names approvers with \"farthing approver add\"")]
    Nobody,
    #[error("what is asked for does not say what it is about")]
    Vague,
    #[error("people are not what stands in the way: {0}")]
    NotAsked(Box<Decision>),
    #[error(transparent)]
    Vote(#[from] VoteError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl ApprovalError {
    /// A stable name for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::NotFound(_) => "approval_unknown",
            Self::Exists(_) => "approver_exists",
            Self::Unknown(_) => "approver_unknown",
            Self::Name(_) => "approver_name",
            Self::TooManyApprovers => "approvers_too_many",
            Self::TooMany => "approvals_too_many",
            Self::Nobody => "approvers_none",
            Self::Vague => "approval_vague",
            Self::NotAsked(decision) => decision.denials().next().map_or("approval_not_needed", Fact::code),
            Self::Vote(error) => error.code(),
            Self::Journal(_) => "wallet_unavailable",
        }
    }
}

impl From<rusqlite::Error> for ApprovalError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Journal(error.into())
    }
}

impl Journal {
    // -----------------------------------------------------------------------------------------------------------------
    // People.

    pub fn add_approver(
        &self,
        name: &str,
        key: &PublicKey,
        runs: Option<&AgentName>,
        clock: &Clock,
    ) -> Result<(), ApprovalError> {
        self.add(name, &Credential::Key(*key), runs, clock)
    }

    /// The same for somebody who answers with a passkey.
    pub fn add_passkey(
        &self,
        name: &str,
        passkey: &Passkey,
        runs: Option<&AgentName>,
        clock: &Clock,
    ) -> Result<(), ApprovalError> {
        self.add(name, &Credential::Passkey(passkey.clone()), runs, clock)
    }

    /// Whether somebody of that name could be added.
    pub fn has_room_for(&self, name: &str) -> Result<(), ApprovalError> {
        self.try_within(|tx| room_for(tx, name))
    }

    fn add(
        &self,
        name: &str,
        credential: &Credential,
        runs: Option<&AgentName>,
        clock: &Clock,
    ) -> Result<(), ApprovalError> {
        self.try_within(|tx| {
            let now = advance(tx, clock)?;
            room_for(tx, name)?;
            let key = credential.key().to_string();
            // One key has one voice.
            let mut added = run(
                tx,
                "INSERT OR IGNORE INTO approver (name, key, runs, created_ms) VALUES (?1, ?2, ?3, ?4)",
                params![name, key, runs.map(AgentName::as_str), millis(now)],
            )?;
            if let Credential::Passkey(passkey) = credential {
                // Spec: WebAuthn Level 3 section 7.1 step 25: a credential is registered for one person.
                added &= run(
                    tx,
                    "INSERT OR IGNORE INTO passkey (approver, credential, origin, sign_count)
                     VALUES (?1, ?2, ?3, ?4)",
                    params![name, passkey.id.as_bytes(), passkey.site.origin(), passkey.count],
                )?;
            }
            audit::setting_changed(tx, "approver_added", &key)?;
            if added == 1 { Ok(()) } else { Err(ApprovalError::Exists(name.to_owned())) }
        })
    }

    /// Whoever is no approver any more has not said yes to what is open, either. A no stays.
    pub fn remove_approver(&self, name: &str) -> Result<(), ApprovalError> {
        self.try_within(|tx| {
            run(
                tx,
                "DELETE FROM vote WHERE approver = ?1 AND verdict = 'approve'
                 AND approval IN (SELECT id FROM approval WHERE used_by IS NULL)",
                [name],
            )?;
            audit::approver_removed(tx, name)?;
            run(tx, "DELETE FROM passkey WHERE approver = ?1", [name])?;
            let removed = run(tx, "DELETE FROM approver WHERE name = ?1", [name])?;
            if removed == 1 { Ok(()) } else { Err(ApprovalError::Unknown(name.to_owned())) }
        })
    }

    pub fn approvers(&self) -> Result<Vec<Approver>, JournalError> {
        self.within(|tx| {
            let mut found = tx.prepare_cached(&format!("{APPROVER} ORDER BY name"))?;
            let rows = found.query_map([], |row| Ok(read_approver(row)))?;
            rows.map(|row| row?).collect()
        })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // Requests.

    /// Asks people whether `request` may be paid, if they are all that stands in the way. Whoever asks for the same
    /// again gets the same request.
    pub fn ask_people(&self, request: &Request, clock: &Clock) -> Result<KeptApproval, ApprovalError> {
        self.try_within(|tx| {
            let now = advance(tx, clock)?;
            let decision = self.ruling(tx, request, now, true)?;
            let Some(quorum) = decision.asks_for_approval() else {
                return Err(ApprovalError::NotAsked(Box::new(decision)));
            };
            let pending = decision.denials().find_map(|fact| match fact {
                Fact::ApprovalRequired { pending: Some(id), .. } => id.parse().ok(),
                _ => None,
            });
            if let Some(pending) = pending {
                return find(tx, &pending, now)?.ok_or(ApprovalError::NotFound(pending));
            }
            let anybody: u32 = tx.query_row("SELECT count(*) FROM approver", [], |row| row.get(0))?;
            if anybody == 0 {
                return Err(ApprovalError::Nobody);
            }
            let own = self.as_own(request);
            let subject = subject(&own).ok_or(ApprovalError::Vague)?;
            let waiting: u32 = tx.query_row(
                "SELECT count(*) FROM approval WHERE agent IS ?1 AND used_by IS NULL AND expires_ms > ?2
                 AND NOT EXISTS (SELECT 1 FROM vote WHERE vote.approval = approval.id AND verdict = 'deny')",
                params![self.agent_name(), millis(now)],
                |row| row.get(0),
            )?;
            if waiting >= MAX_PENDING {
                return Err(ApprovalError::TooMany);
            }
            let rule = decision.denials().find_map(|fact| match fact {
                Fact::ApprovalRequired { rule, .. } => Some(rule.clone()),
                _ => None,
            });
            let asked = ApprovalRequest {
                subject,
                max: own.charge.money().atoms(),
                expires: now.plus(APPROVAL_LASTS),
            };
            let id = ApprovalId::of(&asked.digest());
            run(tx, "INSERT OR IGNORE INTO approval (id, subject, text, agent, rule, quorum, created_ms, expires_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    id.to_string(),
                    &asked.subject.key().0[..],
                    asked.text(),
                    self.agent_name(),
                    rule.unwrap_or_default(),
                    quorum,
                    millis(now),
                    millis(asked.expires),
                ],
            )?;
            audit::asked_people(tx, &id.to_string(), &asked, quorum)?;
            find(tx, &id, now)?.ok_or(ApprovalError::NotFound(id))
        })
    }

    /// A request, if it is one of whoever uses this journal.
    pub fn approval(&self, id: &ApprovalId, clock: &Clock) -> Result<KeptApproval, ApprovalError> {
        self.try_within(|tx| {
            let now = believed(tx, clock)?.time;
            let found = find(tx, id, now)?;
            let own = |kept: &KeptApproval| {
                self.agent().is_none_or(|agent| kept.request.subject.agent.as_ref() == Some(agent))
            };
            found.filter(own).ok_or(ApprovalError::NotFound(*id))
        })
    }

    /// Requests, latest first; those that still wait for people, or all.
    pub fn approvals(&self, waiting: bool, clock: &Clock) -> Result<Vec<KeptApproval>, JournalError> {
        self.within(|tx| {
            let now = believed(tx, clock)?.time;
            let since = if waiting { now } else { Timestamp::from_millis(0) };
            let mut found = tx.prepare_cached(
                "SELECT id FROM approval WHERE (?1 IS NULL OR agent = ?1) AND expires_ms > ?2
                 ORDER BY created_ms DESC, id LIMIT ?3",
            )?;
            let rows = found.query_map(params![self.agent_name(), millis(since), MAX_LISTED], |row| {
                row.get::<_, String>(0)
            })?;
            let mut listed = Vec::new();
            for id in rows {
                let id = id?.parse().map_err(|_| JournalError::Corrupt("approval"))?;
                listed.extend(find(tx, &id, now)?);
            }
            if waiting {
                listed.retain(|kept| !kept.used && matches!(kept.status, Status::Pending { .. }));
            }
            Ok(listed)
        })
    }

    /// Takes somebody's word on a request, if it is theirs and may count. Whoever spoke has spoken.
    pub fn vote(
        &self,
        id: &ApprovalId,
        approver: &str,
        ballot: &Ballot,
        clock: &Clock,
    ) -> Result<KeptApproval, ApprovalError> {
        self.try_within(|tx| {
            let now = advance(tx, clock)?;
            let kept = find(tx, id, now)?.ok_or(ApprovalError::NotFound(*id))?;
            let mut found = tx.prepare_cached(&format!("{APPROVER} WHERE name = ?1"))?;
            let known = found.query_row([approver], |row| Ok(read_approver(row))).optional()?;
            let known = known.transpose()?.ok_or(VoteError::UnknownApprover)?;
            let heard = ballot.check(&known.credential, &kept.request, now)?;
            let agent = kept.request.subject.agent.as_ref();
            if known.runs.as_ref().is_some_and(|runs| agent.is_some_and(|agent| agent.is_within(runs))) {
                return Err(VoteError::OwnRequest.into());
            }
            if kept.used || kept.status == Status::Denied {
                return Err(VoteError::Decided.into());
            }
            // A yes may become a no as long as the payment is not made; a no stays.
            let (data, client) = match &ballot.proof {
                Proof::Signature(_) => (None, None),
                Proof::Passkey(said) => (Some(&said.authenticator_data), Some(&said.client_data)),
            };
            run(tx, "INSERT INTO vote (approval, approver, verdict, signature, at_ms, authenticator_data, client_data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (approval, approver) DO UPDATE SET verdict = ?3, signature = ?4, at_ms = ?5,
                 authenticator_data = ?6, client_data = ?7",
                params![
                    id.to_string(),
                    approver,
                    heard.verdict.name(),
                    ballot.proof.signature(),
                    millis(now),
                    data,
                    client
                ],
            )?;
            if let Some(count) = heard.count {
                // Spec: WebAuthn Level 3 section 7.2 step 24, after all else that a word must be.
                run(tx, "UPDATE passkey SET sign_count = ?2 WHERE approver = ?1", params![approver, count])?;
            }
            audit::voted(tx, &id.to_string(), approver, ballot, heard.verdict)?;
            find(tx, id, now)?.ok_or(ApprovalError::NotFound(*id))
        })
    }
}

/// What is asked of people about a payment; `None` if the request does not say whose money it is, and for what.
fn subject(request: &Request) -> Option<Subject> {
    let caller = &request.caller;
    Some(Subject {
        agent: caller.agent.clone(),
        payer: caller.payer.clone()?,
        method: caller.method.clone(),
        url: caller.url.clone(),
        body: caller.body?,
        payee: request.payee.clone(),
        asset: request.charge.money().asset().clone(),
    })
}

/// Puts into the history what people said of exactly this payment, or that they are asked.
pub(super) fn recall(
    tx: &Connection,
    law: &Law,
    request: &Request,
    now: Timestamp,
    history: &mut History,
) -> Result<(), JournalError> {
    if !matches!(law, Law::Policy { policy, .. } if !policy.approve.is_empty()) {
        return Ok(());
    }
    let Some(subject) = subject(request) else { return Ok(()) };
    let mut found = tx.prepare_cached(
        "SELECT id FROM approval WHERE subject = ?1 AND used_by IS NULL AND expires_ms > ?2 ORDER BY created_ms",
    )?;
    let rows = found.query_map(params![&subject.key().0[..], millis(now)], |row| row.get::<_, String>(0))?;
    for id in rows {
        let id = id?.parse().map_err(|_| JournalError::Corrupt("approval"))?;
        let Some(kept) = find(tx, &id, now)? else { continue };
        if !kept.request.covers(&subject, request.charge.money().atoms(), now) {
            continue;
        }
        let voices = match kept.status {
            Status::Approved { voices } => voices,
            Status::Pending { voices, .. } => {
                history.pending = Some(id.to_string());
                voices
            }
            Status::Denied | Status::Expired => continue,
        };
        if history.approval.as_ref().is_none_or(|best| best.voices < voices) {
            history.approval = Some(Approval { id: id.to_string(), voices });
        }
    }
    Ok(())
}

/// Uses up the approval by which `decision` allows, in the transaction that reserves what it is for.
pub(super) fn consume(tx: &Connection, decision: &Decision, purchase: &[u8]) -> Result<(), JournalError> {
    let used = decision.findings.iter().find_map(|fact| match fact {
        Fact::Approved { by, .. } => Some(by),
        _ => None,
    });
    if let Some(id) = used {
        let changed = run(
            tx,
            "UPDATE approval SET used_by = ?2 WHERE id = ?1 AND used_by IS NULL",
            params![id, purchase],
        )?;
        // INVARIANT: it was unused when this transaction began, which nobody else writes in.
        if changed != 1 {
            return Err(JournalError::Corrupt("approval"));
        }
    }
    Ok(())
}

fn find(tx: &Connection, id: &ApprovalId, now: Timestamp) -> Result<Option<KeptApproval>, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT text, rule, quorum, created_ms, used_by IS NOT NULL FROM approval WHERE id = ?1",
    )?;
    let row = found
        .query_row([id.to_string()], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, u32>(2)?,
                row.get::<_, i64>(3)?,
                row.get::<_, bool>(4)?,
            ))
        })
        .optional()?;
    let Some((text, rule, quorum, created, used)) = row else { return Ok(None) };
    let request = ApprovalRequest::read(&text).map_err(|_| JournalError::Corrupt("approval"))?;
    // What people signed is what is kept, or nothing.
    if ApprovalId::of(&request.digest()) != *id {
        return Err(JournalError::Corrupt("approval"));
    }
    let votes = votes(tx, id)?;
    let status = tally(&votes, quorum, request.expires, now);
    let created = Timestamp::from_millis(created.cast_unsigned());
    Ok(Some(KeptApproval { id: *id, request, rule, quorum, created, votes, used, status }))
}

fn votes(tx: &Connection, id: &ApprovalId) -> Result<Vec<Vote>, JournalError> {
    let mut found =
        tx.prepare_cached("SELECT approver, verdict FROM vote WHERE approval = ?1 ORDER BY at_ms")?;
    let rows =
        found.query_map([id.to_string()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (approver, verdict) = row?;
        let verdict = Verdict::parse(&verdict).ok_or(JournalError::Corrupt("vote"))?;
        Ok(Vote { approver, verdict })
    })
    .collect()
}

fn room_for(tx: &Connection, name: &str) -> Result<(), ApprovalError> {
    if !farthing_approval::is_name(name) {
        return Err(ApprovalError::Name(name.chars().take(64).collect()));
    }
    let known: u32 = tx.query_row("SELECT count(*) FROM approver", [], |row| row.get(0))?;
    if known >= MAX_APPROVERS {
        return Err(ApprovalError::TooManyApprovers);
    }
    let mut found = tx.prepare_cached("SELECT 1 FROM approver WHERE name = ?1")?;
    if found.exists([name])? { Err(ApprovalError::Exists(name.to_owned())) } else { Ok(()) }
}

/// What [`read_approver`] reads.
const APPROVER: &str = "SELECT name, key, runs, created_ms, credential, origin, sign_count
    FROM approver LEFT JOIN passkey ON passkey.approver = approver.name";

fn read_approver(row: &Row<'_>) -> Result<Approver, JournalError> {
    const CORRUPT: JournalError = JournalError::Corrupt("approver");
    let key = row.get::<_, String>(1)?.parse().map_err(|_| CORRUPT)?;
    let credential = match (key, row.get::<_, Option<Vec<u8>>>(4)?) {
        (AnyKey::Key(key), None) => Credential::Key(key),
        (AnyKey::Passkey(key), Some(id)) => Credential::Passkey(Passkey {
            id: CredentialId::new(&id).ok_or(CORRUPT)?,
            key,
            site: Site::of(&row.get::<_, String>(5)?).map_err(|_| CORRUPT)?,
            count: row.get(6)?,
        }),
        (AnyKey::Key(_), Some(_)) | (AnyKey::Passkey(_), None) => return Err(CORRUPT),
    };
    let runs = row.get::<_, Option<String>>(2)?;
    Ok(Approver {
        name: row.get(0)?,
        credential,
        runs: runs.map(|name| name.parse().map_err(|_| CORRUPT)).transpose()?,
        created: Timestamp::from_millis(row.get::<_, i64>(3)?.cast_unsigned()),
    })
}
