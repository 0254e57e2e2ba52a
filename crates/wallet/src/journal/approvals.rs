//! Payments that wait for people: what they are asked, who they are, and what they said.

use std::time::Duration;

use farthing_approval::{
    AnyKey, ApprovalId, ApprovalRequest, Asked, Ballot, Credential, CredentialId, Digest, GrantError,
    GrantRequest, GrantTerms, Passkey, Proof, PublicKey, Site, Status, Subject, Uses, Verdict, Vote,
    VoteError, tally,
};
use farthing_policy::{AgentName, Approval, Clock, Decision, Fact, History, Law, Request};
use farthing_primitives::{PurchaseId, Timestamp};
use rusqlite::{OptionalExtension, Row, params};

use super::{Journal, JournalError, Tx, advance, audit, believed, millis, run, wide};
use crate::offer::SESSION;

/// How long people have to answer, and the payment to be made.
pub const APPROVAL_LASTS: Duration = Duration::from_secs(15 * 60);
/// How many requests of one agent may wait for people at once.
pub const MAX_PENDING: u32 = 20;
/// How many grants of one agent may be open at once, agreed to or not.
pub const MAX_GRANTS: u32 = 100;
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
    pub request: Asked,
    /// The rule that asks, and how many people it wants.
    pub rule: String,
    pub quorum: u32,
    pub created: Timestamp,
    pub votes: Vec<Vote>,
    /// The payment was made; of a grant, there is no place or no money left.
    pub used: bool,
    /// What a grant was used for. What was released since does not count.
    pub uses: Uses,
    /// The owner took it back.
    pub revoked: bool,
    pub status: Status,
}

impl KeptApproval {
    /// What is left of a grant; `None` if it is for one payment.
    pub fn left(&self) -> Option<Uses> {
        self.request.grant().map(|grant| grant.left(&self.uses))
    }

    /// Where it stands, in one word for programs.
    pub const fn state(&self) -> &'static str {
        if self.revoked {
            "revoked"
        } else if self.used {
            "used"
        } else {
            self.status.name()
        }
    }
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
    #[error("{MAX_GRANTS} grants of this agent are open already")]
    TooManyGrants,
    #[error("a grant is for single payments: what goes through a channel is asked for by itself")]
    NoGrantForChannels,
    #[error(transparent)]
    Grant(#[from] GrantError),
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
            Self::TooManyGrants => "grants_too_many",
            Self::NoGrantForChannels => "grant_for_channel",
            Self::Grant(error) => error.code(),
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
            let needed = self.needed(tx, request, now)?;
            // A grant that nobody has answered does not keep one payment from being asked for.
            if let Some(pending) = needed.pending.filter(|id| !id.is_grant()) {
                return find(tx, &pending, now)?.ok_or(ApprovalError::NotFound(pending));
            }
            let asked = ApprovalRequest {
                subject: needed.subject.clone(),
                max: needed.atoms,
                expires: now.plus(APPROVAL_LASTS),
            };
            self.room_to_ask(tx, now)?;
            ask(tx, asked.subject.key().0, &asked.into(), (needed.rule.as_str(), needed.quorum), now)
        })
    }

    /// Asks people for a grant that `request` is the first use of, if they are all that stands in the way of it. As long
    /// as one waits that `request` would be within, it is that one.
    pub fn ask_for_grant(
        &self,
        request: &Request,
        terms: &GrantTerms,
        clock: &Clock,
    ) -> Result<KeptApproval, ApprovalError> {
        self.try_within(|tx| {
            let now = advance(tx, clock)?;
            if request.scheme == SESSION {
                return Err(ApprovalError::NoGrantForChannels);
            }
            let needed = self.needed(tx, request, now)?;
            let grant = GrantRequest::new(&needed.subject, needed.atoms, terms, now)?;
            for id in candidates(tx, &grant.scope().0, now)? {
                let Some(kept) = find(tx, &id, now)?.filter(|kept| !kept.revoked) else { continue };
                if let (Asked::Grant(open), Status::Pending { .. }) = (&kept.request, kept.status)
                    && open.covers(&needed.subject, needed.atoms, now)
                {
                    return Ok(kept);
                }
            }
            self.room_to_ask(tx, now)?;
            room_for_grant(tx, self.agent_name(), now)?;
            ask(tx, grant.scope().0, &grant.into(), (needed.rule.as_str(), needed.quorum), now)
        })
    }

    /// Asks people for a grant in the place of a request of one payment that it is wider than. Whoever puts that into
    /// words answers the agent that asked, and is not the one who asks: it is the same agent's, for the same rule.
    ///
    /// With somebody's word on it, it is asked for only if that counts.
    pub fn offer_grant(
        &self,
        answers: &ApprovalId,
        grant: &GrantRequest,
        word: Option<(&str, &Ballot)>,
        clock: &Clock,
    ) -> Result<KeptApproval, ApprovalError> {
        self.try_within(|tx| {
            let now = advance(tx, clock)?;
            let kept = find(tx, answers, now)?.ok_or(ApprovalError::NotFound(*answers))?;
            let Some(request) = kept.request.payment() else { return Err(GrantError::Other.into()) };
            let open = matches!(kept.status, Status::Pending { .. } | Status::Approved { .. });
            if kept.used || kept.revoked || !open {
                return Err(VoteError::Decided.into());
            }
            grant.check(now)?;
            if !grant.answers(request, now) {
                return Err(GrantError::Other.into());
            }
            let agent = grant.agent.as_ref().map(AgentName::as_str);
            room_for_grant(tx, agent, now)?;
            let rule = (kept.rule.as_str(), kept.quorum);
            let asked = ask(tx, grant.scope().0, &grant.clone().into(), rule, now)?;
            match word {
                Some((approver, ballot)) => hear(tx, asked, approver, ballot, now),
                None => Ok(asked),
            }
        })
    }

    /// What has to be asked about `request`, if people are all that stands in the way.
    fn needed(&self, tx: &Tx, request: &Request, now: Timestamp) -> Result<Needed, ApprovalError> {
        let decision = self.ruling(tx, request, now, true)?;
        let Some(quorum) = decision.asks_for_approval() else {
            return Err(ApprovalError::NotAsked(Box::new(decision)));
        };
        let own = self.as_own(request);
        let asks = decision.denials().find_map(|fact| match fact {
            Fact::ApprovalRequired { rule, pending, .. } => Some((rule.clone(), pending.clone())),
            _ => None,
        });
        let (rule, pending) = asks.unwrap_or_default();
        Ok(Needed {
            subject: subject(&own).ok_or(ApprovalError::Vague)?,
            atoms: own.charge.money().atoms(),
            rule,
            quorum,
            pending: pending.and_then(|id| id.parse().ok()),
        })
    }

    /// Whether people can be asked anything more.
    fn room_to_ask(&self, tx: &Tx, now: Timestamp) -> Result<(), ApprovalError> {
        let anybody: u32 = tx.query_row("SELECT count(*) FROM approver", [], |row| row.get(0))?;
        if anybody == 0 {
            return Err(ApprovalError::Nobody);
        }
        // A grant waits for people until they agree; it may be used for long after that.
        let waiting: u32 = tx.query_row(
            "SELECT count(*) FROM approval WHERE agent IS ?1 AND used_by IS NULL AND revoked_ms IS NULL AND expires_ms > ?2
             AND NOT EXISTS (SELECT 1 FROM vote WHERE vote.approval = approval.id AND verdict = 'deny')
             AND (id NOT GLOB 'grt_*' OR quorum >
                  (SELECT count(*) FROM vote WHERE vote.approval = approval.id AND verdict = 'approve'))",
            params![self.agent_name(), millis(now)],
            |row| row.get(0),
        )?;
        if waiting >= MAX_PENDING { Err(ApprovalError::TooMany) } else { Ok(()) }
    }

    /// Takes back what people may have agreed to. Nothing more is paid by it; what is reserved already stays so.
    ///
    /// It only tightens, and so is the owner's to do at once. An approver's no does the same, and is signed.
    pub fn revoke_approval(&self, id: &ApprovalId, clock: &Clock) -> Result<KeptApproval, ApprovalError> {
        self.try_within(|tx| {
            let now = advance(tx, clock)?;
            let kept = find(tx, id, now)?.ok_or(ApprovalError::NotFound(*id))?;
            // A place of a grant that is used up may come back; a payment that was made does not.
            let over = kept.used && kept.request.payment().is_some();
            if over || kept.revoked || matches!(kept.status, Status::Denied | Status::Expired) {
                return Err(VoteError::Decided.into());
            }
            run(
                tx,
                "UPDATE approval SET revoked_ms = ?2 WHERE id = ?1",
                params![id.to_string(), millis(now)],
            )?;
            audit::approval_revoked(tx, &id.to_string(), &kept.request)?;
            find(tx, id, now)?.ok_or(ApprovalError::NotFound(*id))
        })
    }

    /// A request, if it is one of whoever uses this journal.
    pub fn approval(&self, id: &ApprovalId, clock: &Clock) -> Result<KeptApproval, ApprovalError> {
        self.try_within(|tx| {
            let now = believed(tx, clock)?.time;
            let found = find(tx, id, now)?;
            let own =
                |kept: &KeptApproval| self.agent().is_none_or(|agent| kept.request.agent() == Some(agent));
            found.filter(own).ok_or(ApprovalError::NotFound(*id))
        })
    }

    /// Requests, latest first; those that still wait for people, or all.
    pub fn approvals(&self, waiting: bool, clock: &Clock) -> Result<Vec<KeptApproval>, JournalError> {
        self.listed(waiting, clock, |kept| {
            !waiting || (!kept.used && matches!(kept.status, Status::Pending { .. }))
        })
    }

    /// Grants that people agreed to and that are good for more, latest first.
    pub fn open_grants(&self, clock: &Clock) -> Result<Vec<KeptApproval>, JournalError> {
        self.listed(true, clock, |kept| {
            kept.id.is_grant() && !kept.used && matches!(kept.status, Status::Approved { .. })
        })
    }

    /// Requests, latest first; those that have not expired, or all.
    fn listed(
        &self,
        lasting: bool,
        clock: &Clock,
        wanted: impl Fn(&KeptApproval) -> bool,
    ) -> Result<Vec<KeptApproval>, JournalError> {
        self.within(|tx| {
            let now = believed(tx, clock)?.time;
            let since = if lasting { now } else { Timestamp::from_millis(0) };
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
                listed.extend(find(tx, &id, now)?.filter(&wanted));
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
            hear(tx, kept, approver, ballot, now)
        })
    }
}

/// What people have to be asked about a payment.
struct Needed {
    subject: Subject,
    atoms: u128,
    rule: String,
    quorum: u32,
    pending: Option<ApprovalId>,
}

fn ask(
    tx: &Tx,
    subject: [u8; 32],
    asked: &Asked,
    (rule, quorum): (&str, u32),
    now: Timestamp,
) -> Result<KeptApproval, ApprovalError> {
    let id = asked.id();
    let added = run(
        tx,
        "INSERT OR IGNORE INTO approval (id, subject, text, agent, rule, quorum, created_ms, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            id.to_string(),
            &subject[..],
            asked.text(),
            asked.agent().map(AgentName::as_str),
            rule,
            quorum,
            millis(now),
            millis(asked.expires()),
        ],
    )?;
    if added == 1 {
        audit::asked_people(tx, &id.to_string(), asked, quorum)?;
    }
    find(tx, &id, now)?.ok_or(ApprovalError::NotFound(id))
}

/// Takes somebody's word.
fn hear(
    tx: &Tx,
    kept: KeptApproval,
    approver: &str,
    ballot: &Ballot,
    now: Timestamp,
) -> Result<KeptApproval, ApprovalError> {
    let id = kept.id;
    let mut found = tx.prepare_cached(&format!("{APPROVER} WHERE name = ?1"))?;
    let known = found.query_row([approver], |row| Ok(read_approver(row))).optional()?;
    let known = known.transpose()?.ok_or(VoteError::UnknownApprover)?;
    let heard = ballot.check(&known.credential, &kept.request, now)?;
    let agent = kept.request.agent();
    if known.runs.as_ref().is_some_and(|runs| agent.is_some_and(|agent| agent.is_within(runs))) {
        return Err(VoteError::OwnRequest.into());
    }
    // A grant of which nothing is left may get a place back.
    let over = kept.used && kept.request.payment().is_some();
    if over || kept.revoked || kept.status == Status::Denied {
        return Err(VoteError::Decided.into());
    }
    // A yes may become a no as long as the payment is not made, or a grant lasts; a no stays.
    let (data, client) = match &ballot.proof {
        Proof::Signature(_) => (None, None),
        Proof::Passkey(said) => (Some(&said.authenticator_data), Some(&said.client_data)),
    };
    run(
        tx,
        "INSERT INTO vote (approval, approver, verdict, signature, at_ms, authenticator_data, client_data)
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
    find(tx, &id, now)?.ok_or(ApprovalError::NotFound(id))
}

fn room_for_grant(tx: &Tx, agent: Option<&str>, now: Timestamp) -> Result<(), ApprovalError> {
    let open: u32 = tx.query_row(
        "SELECT count(*) FROM approval WHERE agent IS ?1 AND id GLOB 'grt_*' AND revoked_ms IS NULL AND expires_ms > ?2
         AND NOT EXISTS (SELECT 1 FROM vote WHERE vote.approval = approval.id AND verdict = 'deny')",
        params![agent, millis(now)],
        |row| row.get(0),
    )?;
    if open >= MAX_GRANTS { Err(ApprovalError::TooManyGrants) } else { Ok(()) }
}

/// The requests that may fit, by what they have in common; the oldest first.
fn candidates(tx: &Tx, subject: &[u8; 32], now: Timestamp) -> Result<Vec<ApprovalId>, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT id FROM approval WHERE subject = ?1 AND used_by IS NULL AND revoked_ms IS NULL AND expires_ms > ?2
         ORDER BY created_ms, id",
    )?;
    let rows = found.query_map(params![&subject[..], millis(now)], |row| row.get::<_, String>(0))?;
    rows.map(|id| id?.parse().map_err(|_| JournalError::Corrupt("approval"))).collect()
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
    tx: &Tx,
    law: &Law,
    request: &Request,
    now: Timestamp,
    history: &mut History,
) -> Result<(), JournalError> {
    let named = !history.mentions.is_empty();
    let asks =
        |policy: &farthing_policy::Policy| !policy.approve.is_empty() || policy.screen.is_some() || named;
    if !matches!(law, Law::Policy { policy, .. } if asks(policy)) {
        return Ok(());
    }
    let Some(subject) = subject(request) else { return Ok(()) };
    let atoms = request.charge.money().atoms();
    let mut ids = candidates(tx, &subject.key().0, now)?;
    // Of equals the first is used: one payment's own approval before a grant.
    if request.scheme != SESSION {
        ids.extend(candidates(tx, &subject.grant_scope().0, now)?);
    }
    for id in ids {
        let Some(kept) = find(tx, &id, now)? else { continue };
        let covers = match &kept.request {
            Asked::Payment(asked) => asked.covers(&subject, atoms, now),
            Asked::Grant(grant) => grant.covers(&subject, atoms, now) && grant.has_room(&kept.uses, atoms),
        };
        if !covers {
            continue;
        }
        let voices = match kept.status {
            Status::Approved { voices } => voices,
            Status::Pending { voices, .. } => {
                // That of one payment is the nearer one.
                if !id.is_grant() || history.pending.is_none() {
                    history.pending = Some(id.to_string());
                }
                // A grant that not so many agreed to as were asked is none, whoever else is asked for less.
                if id.is_grant() {
                    continue;
                }
                voices
            }
            Status::Denied | Status::Expired => continue,
        };
        if history.approval.as_ref().is_none_or(|best| best.voices < voices) {
            history.approval = Some(Approval { id: id.to_string(), voices, grant: id.is_grant() });
        }
    }
    Ok(())
}

/// Uses up the approval by which `decision` allows, or one place of a grant, in the transaction that reserves what it is for.
pub(super) fn consume(
    tx: &Tx,
    decision: &Decision,
    request: &Request,
    purchase: &[u8],
    now: Timestamp,
) -> Result<(), JournalError> {
    const CORRUPT: JournalError = JournalError::Corrupt("approval");
    let used = decision.findings.iter().find_map(|fact| match fact {
        Fact::Approved { by, .. } => Some(by),
        _ => None,
    });
    let Some(used) = used else { return Ok(()) };
    let id: ApprovalId = used.parse().map_err(|_| CORRUPT)?;
    // INVARIANT: it was good for this when this transaction began, which nobody else writes in.
    if id.is_grant() {
        let kept = find(tx, &id, now)?.ok_or(CORRUPT)?;
        let atoms = request.charge.money().atoms();
        if !kept.request.grant().is_some_and(|grant| grant.has_room(&kept.uses, atoms)) {
            return Err(CORRUPT);
        }
        // Places that came back are no rows that every further decision would have to read.
        run(
            tx,
            "DELETE FROM grant_use WHERE approval = ?1
             AND EXISTS (SELECT 1 FROM purchase WHERE purchase.id = grant_use.purchase AND state = 'released')",
            [used],
        )?;
        run(
            tx,
            "INSERT INTO grant_use (approval, purchase, atoms, at_ms) VALUES (?1, ?2, ?3, ?4)",
            params![used, purchase, &atoms.to_be_bytes()[..], millis(now)],
        )?;
        return Ok(());
    }
    let changed = run(
        tx,
        "UPDATE approval SET used_by = ?2 WHERE id = ?1 AND used_by IS NULL",
        params![used, purchase],
    )?;
    if changed == 1 { Ok(()) } else { Err(CORRUPT) }
}

/// What was signed; `None` if that is forgotten.
pub(super) fn digest(tx: &Tx, id: &str) -> Result<Option<Digest>, JournalError> {
    let mut found = tx.prepare_cached("SELECT text FROM approval WHERE id = ?1")?;
    let text: Option<String> = found.query_row([id], |row| row.get(0)).optional()?;
    let read = |text: String| Asked::read(&text).map_err(|_| JournalError::Corrupt("approval"));
    Ok(text.map(read).transpose()?.map(|asked| asked.digest()))
}

/// Forgets the grants that a purchase used, what was asked for with it being forgotten: those that are over, and that no
/// other purchase used of which that is still known.
pub(super) fn forget_grants(tx: &Tx, purchase: &PurchaseId, now: Timestamp) -> Result<(), JournalError> {
    const OVER: &str = "SELECT id FROM approval
        WHERE id IN (SELECT approval FROM grant_use WHERE purchase = ?1)
        AND (expires_ms <= ?2 OR revoked_ms IS NOT NULL
             OR EXISTS (SELECT 1 FROM vote WHERE vote.approval = approval.id AND verdict = 'deny'))
        AND NOT EXISTS (SELECT 1 FROM grant_use JOIN purchase ON purchase.id = grant_use.purchase
                        WHERE grant_use.approval = approval.id AND purchase.method <> '')";
    let mut forget = tx.prepare_cached(&format!("DELETE FROM approval WHERE id IN ({OVER}) RETURNING id"))?;
    let rows = forget.query_map(params![super::key(purchase), millis(now)], |row| row.get::<_, String>(0))?;
    for id in rows.collect::<Result<Vec<_>, _>>()? {
        run(tx, "DELETE FROM vote WHERE approval = ?1", [id])?;
    }
    Ok(())
}

/// What a grant was used for. A use counts until the purchase is proven to have moved no money, and to be unable to.
fn uses(tx: &Tx, id: &ApprovalId) -> Result<Uses, JournalError> {
    const CORRUPT: JournalError = JournalError::Corrupt("grant's use");
    let mut found = tx.prepare_cached(
        "SELECT atoms FROM grant_use WHERE approval = ?1
         AND NOT EXISTS (SELECT 1 FROM purchase WHERE purchase.id = grant_use.purchase AND state = 'released')",
    )?;
    let rows = found.query_map([id.to_string()], |row| row.get::<_, Vec<u8>>(0))?;
    let mut uses = Uses::default();
    for atoms in rows {
        uses.payments = uses.payments.checked_add(1).ok_or(CORRUPT)?;
        uses.atoms = uses.atoms.checked_add(wide(atoms?)?).ok_or(CORRUPT)?;
    }
    Ok(uses)
}

fn find(tx: &Tx, id: &ApprovalId, now: Timestamp) -> Result<Option<KeptApproval>, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT text, rule, quorum, created_ms, used_by IS NOT NULL, revoked_ms IS NOT NULL FROM approval WHERE id = ?1",
    )?;
    let row = found
        .query_row([id.to_string()], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, u32>(2)?,
                row.get::<_, i64>(3)?,
                row.get::<_, bool>(4)?,
                row.get::<_, bool>(5)?,
            ))
        })
        .optional()?;
    let Some((text, rule, quorum, created, used, revoked)) = row else { return Ok(None) };
    let request = Asked::read(&text).map_err(|_| JournalError::Corrupt("approval"))?;
    // What people signed is what is kept, or nothing.
    if request.id() != *id {
        return Err(JournalError::Corrupt("approval"));
    }
    let votes = votes(tx, id)?;
    let status = match revoked {
        true => Status::Denied,
        false => tally(&votes, quorum, request.expires(), now),
    };
    let uses = if id.is_grant() { uses(tx, id)? } else { Uses::default() };
    let used = match &request {
        Asked::Payment(_) => used,
        Asked::Grant(grant) => !grant.has_room(&uses, 1),
    };
    let created = Timestamp::from_millis(created.cast_unsigned());
    Ok(Some(KeptApproval { id: *id, request, rule, quorum, created, votes, used, uses, revoked, status }))
}

fn votes(tx: &Tx, id: &ApprovalId) -> Result<Vec<Vote>, JournalError> {
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

fn room_for(tx: &Tx, name: &str) -> Result<(), ApprovalError> {
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
