//! The audit log of the journal: a leaf is written in the same transaction as what it is about, so that neither is there
//! without the other. What cannot be written down is not signed.
//!
//! Leaves have the books' time and no other, and their salts come from one seed by a ratchet: a simulation replays them,
//! and whoever takes the file learns nothing of salts that were erased before.

use std::collections::BTreeMap;

use farthing_approval::{Asked, Ballot, Body, Verdict};
use farthing_audit::{Kind, Leaf, LeafError, Leaves, LeavesError, SALT_BYTES, Secret, Value};
use farthing_channel::{ChannelId, Payer, PayerAction};
use farthing_policy::{AgentName, Clock, Decision, Fact, Request, Rules, Screening};
use farthing_primitives::{AttemptId, PurchaseId, Timestamp};
use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{
    Draft, GOODS_OWED, Journal, JournalError, Purchase, State, Tx, advance, believed, find, forget, get, key,
    millis, put, run,
};
use crate::record;

/// A text that is longer stands in a leaf as its hash.
const MAX_TEXT_BYTES: usize = 2048;
/// Identical denials are counted together for a second, and, as long as they go on, for twice as long each time.
const LEAST_DENIED_WINDOW_MS: u64 = 1_000;
/// A loop that does not end comes to a leaf each minute.
const MOST_DENIED_WINDOW_MS: u64 = 60_000;
/// How many leaves [`Journal::audit_leaves`] returns at most.
pub const MAX_AUDIT_PAGE: usize = 1_000;

/// Where the ratchet of salts stands, among the settings.
pub(super) const RATCHET: &str = "audit_ratchet";
/// What the names of the parties begin with, among the settings.
const PARTY: &str = "audit_party:";
pub(super) const PRINCIPAL: &str = "audit_party:principal";
pub(super) const OPERATOR: &str = "audit_party:operator";
pub(super) const JURISDICTION: &str = "audit_party:jurisdiction";

/// A leaf with what its commitments stand for, as far as that was not erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLeaf {
    pub index: u64,
    /// As it is in the log.
    pub bytes: Vec<u8>,
    pub leaf: Leaf,
    pub secrets: Vec<Secret>,
}

/// Whose money it is, who runs the machine, and under which law: named in every intent. The first two are committed to and
/// not shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parties {
    pub principal: Option<String>,
    pub operator: Option<String>,
    pub jurisdiction: Option<String>,
}

/// An attempt that was refused before the rules were asked, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// The stable name of the reason.
    pub code: &'a str,
    pub host: &'a str,
    pub url: &'a str,
}

/// Why the personal data of a purchase is still needed.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error("the purchase is {0}, and what it asked for is needed until it is over")]
    Open(State),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

// ---------------------------------------------------------------------------------------------------------------------
// What the journal says, in a line each.

/// A decision about a purchase: an intent if it is allowed, and otherwise a denial. `cumulative` is what its channel's
/// voucher would be worth.
pub(super) fn decided(
    tx: &Tx,
    decision: &Decision,
    request: &Request,
    draft: &Draft,
    channel: Option<(&ChannelId, Option<u128>)>,
) -> Result<(), JournalError> {
    let mut entry = weighed(tx, decision, request, Some(&draft.url))?
        .text("purchase", draft.id.to_string())
        .text("payer", draft.payer.as_str())
        .text("consumption", draft.consumption.as_str())
        .number("expires_ms", draft.expires.millis())
        .secret("request", format!("{} {}", draft.method, hex::encode(draft.request_hash.0)));
    if let Some(url) = &draft.said.url {
        entry = advertised(entry, url);
    }
    if let Some(challenge) = &draft.said.challenge {
        entry = entry.text("challenge", challenge);
    }
    if let Some((id, cumulative)) = channel {
        entry = entry.text("channel", id.to_string());
        if let Some(cumulative) = cumulative {
            entry = entry.number("cumulative", cumulative);
        }
    }
    write(tx, decision, request, entry, &key(&draft.id))?;
    let Some(approval) = approval_of(decision).filter(|_| decision.is_allowed()) else { return Ok(()) };
    let mut used =
        Entry::new(tx, Kind::ApprovalUsed)?.text("purchase", draft.id.to_string()).text("approval", approval);
    // What is used is what was signed: a grant is used again and again, and its name is only half of its digest.
    if let Some(digest) = super::approvals::digest(tx, approval)? {
        used = used.text("digest", signed_digest(&digest));
    }
    used.append(tx, Some(&key(&draft.id)))?;
    Ok(())
}

fn signed_digest(digest: &farthing_approval::Digest) -> String {
    format!("sha256:{}", hex::encode(digest.0))
}

fn approval_of(decision: &Decision) -> Option<&str> {
    decision.findings.iter().find_map(|fact| match fact {
        Fact::Approved { by, .. } => Some(by.as_str()),
        _ => None,
    })
}

/// A decision about a deposit: what opens a channel, or adds to it.
pub(super) fn deposit(
    tx: &Tx,
    decision: &Decision,
    request: &Request,
    (payer, attempt, url): (&Payer, Option<AttemptId>, Option<&str>),
) -> Result<(), JournalError> {
    let terms = payer.terms();
    let mut draft = weighed(tx, decision, request, url)?
        .text("channel", terms.id.to_string())
        .text("action", "deposit")
        .text("payer", terms.payer.as_str())
        .text("escrow", terms.escrow.as_str());
    if let Some(attempt) = attempt {
        draft = draft.text("attempt", attempt.to_string());
    }
    write(tx, decision, request, draft, &terms.id.0)
}

/// A transaction of our own for a channel, about to be sent.
pub(super) fn transaction(
    tx: &Tx,
    payer: &Payer,
    attempt: &AttemptId,
    action: &PayerAction,
) -> Result<(), JournalError> {
    let draft = Entry::new(tx, Kind::Intent)?
        .text("channel", payer.terms().id.to_string())
        .text("action", action_name(action))
        .text("attempt", attempt.to_string())
        .text("payer", payer.terms().payer.as_str())
        .text("policy", policy_hash(tx)?)
        .parties(tx)?;
    draft.append(tx, Some(&payer.terms().id.0))?;
    Ok(())
}

fn action_name(action: &PayerAction) -> &'static str {
    match action {
        PayerAction::Open { .. } => "open",
        PayerAction::TopUp { .. } => "top_up",
        PayerAction::RequestClose => "request_close",
        PayerAction::Withdraw => "withdraw",
    }
}

/// A channel that is in another state than it was. What vouchers raise is in the leaves of their purchases.
pub(super) fn channel_moved(tx: &Tx, before: &Payer, next: &Payer) -> Result<(), JournalError> {
    if before.state().name() == next.state().name() && before.settled() == next.settled() {
        return Ok(());
    }
    channel_is(tx, next)
}

/// A channel as it is now.
pub(super) fn channel_is(tx: &Tx, payer: &Payer) -> Result<(), JournalError> {
    let draft = Entry::new(tx, Kind::Outcome)?
        .text("channel", payer.terms().id.to_string())
        .text("state", payer.state().name())
        .text("asset", payer.terms().asset.to_string())
        .number("deposit", payer.deposit())
        .number("signed", payer.signed())
        .number("taken", payer.settled());
    draft.append(tx, Some(&payer.terms().id.0))?;
    Ok(())
}

/// What became of a purchase, unless the log says just that already.
pub(super) fn outcome(tx: &Tx, id: &PurchaseId) -> Result<(), JournalError> {
    let purchase = find(tx, id)?;
    let mut draft = Entry::new(tx, Kind::Outcome)?
        .text("purchase", id.to_string())
        .text("state", purchase.state.name())
        .text("asset", purchase.money.asset().to_string())
        .number("amount", purchase.money.atoms())
        .flag("confirmed", purchase.confirmed)
        .flag("final", purchase.finalized)
        .flag("delivered", purchase.delivered)
        .number("shown", purchase.shown);
    if let Some(hash) = &purchase.tx {
        draft = draft.text("tx", hash);
    }
    if let Some(header) = &purchase.header {
        draft = draft.text("credential", sha256(header.value.as_bytes()));
    }
    if let Some(cumulative) = purchase.cumulative {
        draft = draft.number("cumulative", cumulative);
    }
    for (name, value) in [("receipt", &purchase.receipt), ("note", &purchase.note)] {
        if let Some(value) = value {
            draft = draft.secret(name, value.clone());
        }
    }
    if is_known(tx, id, &draft)? {
        return Ok(());
    }
    draft.append(tx, Some(&key(id)))?;
    Ok(())
}

/// A purchase that moved no money, nor ever can.
pub(super) fn released(tx: &Tx, id: &PurchaseId, proof: &str) -> Result<(), JournalError> {
    let draft = Entry::new(tx, Kind::Released)?.text("purchase", id.to_string()).text("proof", proof);
    draft.append(tx, Some(&key(id)))?;
    Ok(())
}

/// The owner's rules are about to be `next`.
pub(super) fn rules_changed(tx: &Tx, next: &Rules) -> Result<(), JournalError> {
    let text = record::print_rules(next);
    let before = tx.rules()?;
    let thawed = Rules { frozen: before.frozen, ..next.clone() };
    if thawed != before {
        let draft = Entry::new(tx, Kind::RulesChanged)?
            .text("change", "rules")
            .text("before", policy_hash(tx)?)
            .text("after", sha256(text.as_bytes()))
            .secret("rules", text.clone())
            .parties(tx)?;
        draft.append(tx, None)?;
    }
    if next.frozen != before.frozen {
        let kind = if next.frozen { Kind::Frozen } else { Kind::Unfrozen };
        let draft = Entry::new(tx, kind)?.text("after", sha256(text.as_bytes())).parties(tx)?;
        draft.append(tx, None)?;
    }
    Ok(())
}

/// Another policy is about to be in force, or none.
pub(super) fn policy_changed(tx: &Tx, next: Option<&str>) -> Result<(), JournalError> {
    let mut entry = Entry::new(tx, Kind::RulesChanged)?
        .text("change", "policy")
        .text("before", policy_hash(tx)?)
        .parties(tx)?;
    entry = match next {
        Some(text) => entry.text("after", sha256(text.as_bytes())).secret("rules", text.to_owned()),
        None => entry.text("after", sha256(get(tx, "rules")?.unwrap_or_default().as_bytes())),
    };
    entry.append(tx, None)?;
    Ok(())
}

/// An agent, and what is part of it, may sign nothing more, or may again.
pub(super) fn agent_frozen(tx: &Tx, name: &str, frozen: bool) -> Result<(), JournalError> {
    let kind = if frozen { Kind::Frozen } else { Kind::Unfrozen };
    Entry::new(tx, kind)?.text("agent", name).parties(tx)?.append(tx, None)?;
    Ok(())
}

/// People are asked about a payment, or about several.
pub(super) fn asked_people(tx: &Tx, id: &str, asked: &Asked, quorum: u32) -> Result<(), JournalError> {
    let mut entry = Entry::new(tx, Kind::ApprovalRequested)?
        .text("approval", id)
        .text("digest", signed_digest(&asked.digest()))
        .text("payee", asked.payee().as_str())
        .text("asset", asked.asset().to_string())
        .number("max", asked.max())
        .number("expires_ms", asked.expires().millis())
        .number("quorum", quorum)
        .text("policy", policy_hash(tx)?)
        .secret("request", asked.text());
    if let Some(grant) = asked.grant() {
        entry = entry
            .number("payments", grant.payments)
            .number("total", grant.total)
            .flag("any_body", grant.body == Body::Any);
    }
    if let Some(agent) = asked.agent() {
        entry = entry.with("agents", lineage(agent));
    }
    entry.append(tx, None)?;
    Ok(())
}

/// The owner took it back, whatever people said.
pub(super) fn approval_revoked(tx: &Tx, id: &str, asked: &Asked) -> Result<(), JournalError> {
    let mut entry = Entry::new(tx, Kind::ApprovalRevoked)?
        .text("approval", id)
        .text("digest", signed_digest(&asked.digest()))
        .parties(tx)?;
    if let Some(agent) = asked.agent() {
        entry = entry.with("agents", lineage(agent));
    }
    entry.append(tx, None)?;
    Ok(())
}

/// Somebody's word on it. Who that is, is committed to; the signature is one over the digest.
pub(super) fn voted(
    tx: &Tx,
    id: &str,
    approver: &str,
    ballot: &Ballot,
    verdict: Verdict,
) -> Result<(), JournalError> {
    let kind = if verdict == Verdict::Approve { Kind::ApprovalGranted } else { Kind::ApprovalDenied };
    Entry::new(tx, kind)?
        .text("approval", id)
        .text("signature", sha256(ballot.proof.signature()))
        .secret("approver", approver.to_owned())
        .append(tx, None)?;
    Ok(())
}

/// Somebody's word counts no more.
pub(super) fn approver_removed(tx: &Tx, name: &str) -> Result<(), JournalError> {
    let entry = Entry::new(tx, Kind::RulesChanged)?.text("change", "approver_removed");
    entry.secret("approver", name.to_owned()).append(tx, None)?;
    Ok(())
}

fn lineage(agent: &AgentName) -> Value {
    Value::list(agent.lineage().map(|agent| agent.to_string()))
}

/// Another thing that the owner says, and that decides about payments.
pub(super) fn setting_changed(tx: &Tx, change: &str, value: &str) -> Result<(), JournalError> {
    let draft =
        Entry::new(tx, Kind::RulesChanged)?.text("change", change).text("value", value).parties(tx)?;
    draft.append(tx, None)?;
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// How leaves come to be.

/// A leaf that is not written yet, and what it commits to.
struct Entry {
    leaf: Leaf,
    secrets: Vec<(&'static str, String)>,
}

impl Entry {
    /// At the time that the books go by, which whoever calls has set.
    fn new(tx: &Tx, kind: Kind) -> Result<Self, JournalError> {
        let at = tx.mark()?.map_or(0, |mark| mark.time.millis());
        Ok(Self { leaf: Leaf::new(kind, at), secrets: Vec::new() })
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.leaf = self.leaf.with(name, value);
        self
    }

    fn text(self, name: &str, text: impl AsRef<str>) -> Self {
        self.with(name, short(text.as_ref()))
    }

    fn number(self, name: &str, number: impl Into<u128>) -> Self {
        self.with(name, Value::number(number))
    }

    fn flag(self, name: &str, flag: bool) -> Self {
        self.with(name, Value::Flag(flag))
    }

    /// What may have to be forgotten.
    fn secret(mut self, name: &'static str, value: String) -> Self {
        self.secrets.push((name, value));
        self
    }

    /// Who it is for, if the owner said so.
    fn parties(mut self, tx: &Tx) -> Result<Self, JournalError> {
        for (name, setting) in
            [("principal", PRINCIPAL), ("operator", OPERATOR), ("jurisdiction", JURISDICTION)]
        {
            if let Some(value) = get(tx, setting)? {
                self = self.text(name, value);
            }
        }
        Ok(self)
    }

    fn append(self, tx: &Tx, subject: Option<&[u8]>) -> Result<u64, JournalError> {
        let mut leaf = self.leaf;
        let mut secrets = Vec::with_capacity(self.secrets.len());
        for ((field, value), salt) in self.secrets.iter().zip(salts(tx, self.secrets.len())?) {
            let secret = Secret { field: (*field).to_owned(), salt, value: value.as_bytes().to_vec() };
            leaf = leaf.with(field, secret.commitment().value());
            secrets.push(secret);
        }
        let bytes = leaf.encode().map_err(unwritable)?;
        let index = tx.leaves()?;
        tx.prepare_cached("INSERT INTO audit_leaf (idx, kind, subject, leaf) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![index, leaf.kind.name(), subject, bytes])?;
        tx.leaf_added();
        let mut insert =
            tx.prepare_cached("INSERT INTO audit_secret (idx, field, salt, value) VALUES (?1, ?2, ?3, ?4)")?;
        for secret in secrets {
            insert.execute(params![index, secret.field, &secret.salt[..], secret.value])?;
        }
        Ok(index.cast_unsigned())
    }
}

fn unwritable(_: LeafError) -> JournalError {
    JournalError::Corrupt("audit leaf")
}

fn short(text: &str) -> Value {
    if text.len() > MAX_TEXT_BYTES { Value::text(sha256(text.as_bytes())) } else { Value::text(text) }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Salts that nobody can tell from another who does not have the ratchet of that time, of which nothing is kept.
fn salts(tx: &Tx, count: usize) -> Result<Vec<[u8; SALT_BYTES]>, JournalError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let hash = |domain: &str, state: &[u8]| -> [u8; 32] {
        Sha256::new().chain_update(domain).chain_update(state).finalize().into()
    };
    let mut state = match get(tx, RATCHET)? {
        Some(text) => hex::decode(text).map_err(|_| JournalError::Corrupt("audit ratchet"))?,
        // Of a journal in memory, which is gone with its process.
        None => Vec::new(),
    };
    let mut salts = Vec::with_capacity(count);
    for _ in 0..count {
        salts.push(hash("farthing audit salt v1\n", &state));
        state = hash("farthing audit ratchet v1\n", &state).to_vec();
    }
    put(tx, RATCHET, &hex::encode(state))?;
    Ok(salts)
}

/// The hash of what decides: the policy in force, else the rules as they are stored.
fn policy_hash(tx: &Tx) -> Result<String, JournalError> {
    if let Some(hash) = get(tx, super::law::POLICY_HASH)? {
        return Ok(hash);
    }
    // Applied by an earlier version.
    if let Some(text) = get(tx, super::law::POLICY)? {
        return Ok(sha256(text.as_bytes()));
    }
    Ok(sha256(get(tx, "rules")?.unwrap_or_default().as_bytes()))
}

/// What was asked for and what was found, of whatever is decided.
fn weighed(
    tx: &Tx,
    decision: &Decision,
    request: &Request,
    url: Option<&str>,
) -> Result<Entry, JournalError> {
    let kind = if decision.is_allowed() { Kind::Intent } else { Kind::Denied };
    let money = request.charge.money();
    let codes = |findings: &mut dyn Iterator<Item = &Fact>| Value::list(findings.map(|fact| fact.code()));
    let mut draft = Entry::new(tx, kind)?
        .text("scheme", &request.scheme)
        .text("host", request.origin.authority())
        .text("payee", request.payee.as_str())
        .text("asset", money.asset().to_string())
        .number("amount", money.atoms())
        .text("decision", if decision.is_allowed() { "allow" } else { "deny" })
        .with("found", codes(&mut decision.findings.iter()))
        .text("policy", policy_hash(tx)?)
        .with("budgets", budgets(decision))
        .parties(tx)?;
    if !decision.is_allowed() {
        draft = draft.with("denied", codes(&mut decision.denials()));
    }
    if let Some(dollars) = request.charge.dollars() {
        draft = draft.text("usd", dollars.plain());
    }
    if let Some(agent) = &request.caller.agent {
        draft = draft.with("agents", lineage(agent));
    }
    if let Some(tool) = &request.caller.tool {
        draft = draft.text("tool", tool);
    }
    if let Some(most) = request.max {
        draft = draft.number("max", most);
    }
    // Hosts, addresses and names of tools, as the leaf has them elsewhere, too; of who wrote it nothing moves a cursor.
    let named: Vec<String> = decision
        .findings
        .iter()
        .filter_map(|fact| match fact {
            Fact::NamedFirst { what, by, .. } => Some(format!("{what} by {by}")),
            _ => None,
        })
        .collect();
    if !named.is_empty() {
        draft = draft.with("named_first", Value::list(named));
    }
    if let Some(approval) = approval_of(decision) {
        draft = draft.text("approval", approval);
    }
    if let Some(screened) = &request.screened {
        let said = match screened.said {
            Screening::Allow => "allow",
            Screening::Deny => "deny",
            Screening::Hold => "hold",
            Screening::Failed(fault) => fault.code(),
        };
        draft = draft.text("screen", said).text("screener", screened.asks.to_string());
        if let Some(reason) = &screened.reason {
            draft = draft.secret("screen_reason", reason.clone());
        }
    }
    Ok(match url {
        Some(url) => asked(draft, url),
        None => draft,
    })
}

/// The URL that the seller names, if it is another than is really asked.
fn advertised(entry: Entry, url: &str) -> Entry {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    if entry.leaf.text("url") == Some(bare) { entry } else { entry.text("advertised", bare) }
}

/// The URL, without its query, which is only committed to, and without a name or password, which nobody needs.
fn asked(draft: Entry, url: &str) -> Entry {
    let Ok(mut parsed) = url::Url::parse(url) else { return draft.secret("query", url.to_owned()) };
    let query = parsed.query().map(ToOwned::to_owned);
    parsed.set_query(None);
    parsed.set_fragment(None);
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    let draft = draft.text("url", parsed.as_str());
    match query {
        Some(query) => draft.secret("query", query),
        None => draft,
    }
}

/// The sums that the rules looked at, before and after.
fn budgets(decision: &Decision) -> Value {
    let mut budgets = BTreeMap::new();
    let mut add = |name: String, limit: u128, before: u128, after: Option<u128>| {
        let mut sums = BTreeMap::from([
            ("before".to_owned(), Value::number(before)),
            ("limit".to_owned(), Value::number(limit)),
        ]);
        if let Some(after) = after {
            sums.insert("after".to_owned(), Value::number(after));
        }
        budgets.insert(name, Value::Object(sums));
    };
    for fact in &decision.findings {
        match fact {
            Fact::WithinWindow { window, bucket, limit, before, after } => {
                add(format!("{bucket} {window}"), *limit, *before, Some(*after));
            }
            Fact::OverWindow { window, bucket, limit, before, after } => {
                add(format!("{bucket} {window}"), *limit, *before, *after);
            }
            Fact::WithinBudget { budget, limit, before, after } => {
                add(format!("{budget} {limit} {}", limit.bucket), limit.most, *before, Some(*after));
            }
            Fact::OverBudget { budget, limit, before, after } => {
                add(format!("{budget} {limit} {}", limit.bucket), limit.most, *before, *after);
            }
            _ => {}
        }
    }
    Value::Object(budgets)
}

fn write(
    tx: &Tx,
    decision: &Decision,
    request: &Request,
    draft: Entry,
    subject: &[u8],
) -> Result<(), JournalError> {
    if decision.is_allowed() {
        draft.append(tx, Some(subject))?;
        return Ok(());
    }
    let codes: Vec<&str> = decision.denials().map(Fact::code).collect();
    let agent = request.caller.agent.as_ref().map(ToString::to_string).unwrap_or_default();
    denied(tx, &codes.join(" "), &agent, draft, Some(subject))
}

/// A denial, or one more of those that are counted into the next leaf of its reason and agent.
fn denied(
    tx: &Tx,
    codes: &str,
    agent: &str,
    draft: Entry,
    subject: Option<&[u8]>,
) -> Result<(), JournalError> {
    let reason = format!("{codes} {agent}");
    let now = draft.leaf.at_ms;
    let mut found =
        tx.prepare_cached("SELECT until_ms, window_ms, repeats FROM audit_denied WHERE reason = ?1")?;
    let known: Option<(i64, i64, i64)> =
        found.query_row([&reason], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let stored = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    if let Some((until, _, _)) = known
        && stored(now) < until
    {
        run(tx, "UPDATE audit_denied SET repeats = repeats + 1 WHERE reason = ?1", [&reason])?;
        return Ok(());
    }
    let repeats = known.map_or(0, |(_, _, repeats)| repeats.cast_unsigned());
    let window = match known {
        Some((_, window, 1..)) => (window.cast_unsigned().saturating_mul(2)).min(MOST_DENIED_WINDOW_MS),
        _ => LEAST_DENIED_WINDOW_MS,
    };
    let draft = if repeats > 0 { draft.number("repeats", repeats) } else { draft };
    run(
        tx,
        "INSERT INTO audit_denied (reason, until_ms, window_ms, repeats) VALUES (?1, ?2, ?3, 0)
         ON CONFLICT (reason) DO UPDATE SET until_ms = ?2, window_ms = ?3, repeats = 0",
        params![reason, stored(now.saturating_add(window)), stored(window)],
    )?;
    draft.append(tx, subject)?;
    Ok(())
}

/// Whether the last leaf about a purchase says the same: what is open, and what it committed to.
fn is_known(tx: &Tx, id: &PurchaseId, draft: &Entry) -> Result<bool, JournalError> {
    let mut found =
        tx.prepare_cached("SELECT idx, leaf FROM audit_leaf WHERE subject = ?1 ORDER BY idx DESC LIMIT 1")?;
    let last: Option<(i64, Vec<u8>)> =
        found.query_row([key(id)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((index, bytes)) = last else { return Ok(false) };
    let mut last = Leaf::read(&bytes).map_err(unwritable)?;
    // How often it was shown is no news alone.
    let mut open = draft.leaf.fields.clone();
    open.remove("shown");
    last.fields.remove("shown");
    let mut revealed = secrets(tx, index)?.into_iter().map(|secret| (secret.field, secret.value));
    let same_secrets = draft.secrets.len() == revealed.len()
        && revealed.all(|(field, value)| {
            draft.secrets.iter().any(|(name, text)| *name == field && text.as_bytes() == value)
        });
    for (name, _) in &draft.secrets {
        last.fields.remove(*name);
    }
    Ok(same_secrets && last.kind == draft.leaf.kind && last.fields == open)
}

fn secrets(tx: &Tx, index: i64) -> Result<Vec<Secret>, JournalError> {
    let mut found =
        tx.prepare_cached("SELECT field, salt, value FROM audit_secret WHERE idx = ?1 ORDER BY field")?;
    let rows = found.query_map([index], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?))
    })?;
    let mut secrets = Vec::new();
    for row in rows {
        let (field, salt, value) = row?;
        let salt = salt.try_into().map_err(|_| JournalError::Corrupt("audit salt"))?;
        secrets.push(Secret { field, salt, value });
    }
    Ok(secrets)
}

// ---------------------------------------------------------------------------------------------------------------------
// The log as others use it.

impl Journal {
    /// Gives a journal that has none the seed of its salts. It has to be random.
    pub fn seed_audit(&self, seed: [u8; 32]) -> Result<(), JournalError> {
        self.within(
            |tx| if get(tx, RATCHET)?.is_none() { put(tx, RATCHET, &hex::encode(seed)) } else { Ok(()) },
        )
    }

    /// Lets the books go by `clock` from now on, for what has no clock of its own.
    pub fn note_time(&self, clock: &Clock) -> Result<Timestamp, JournalError> {
        self.within(|tx| advance(tx, clock))
    }

    /// Writes down an attempt that was refused before the rules were asked.
    pub fn refused(&self, refused: &Refused<'_>, clock: &Clock) -> Result<(), JournalError> {
        self.within(|tx| {
            advance(tx, clock)?;
            let agent = self.agent_name();
            let mut draft = Entry::new(tx, Kind::Denied)?
                .text("decision", "deny")
                .with("denied", Value::list([refused.code]))
                .text("host", refused.host)
                .text("policy", policy_hash(tx)?)
                .parties(tx)?;
            if let Some(agent) = self.agent() {
                draft = draft.with("agents", lineage(agent));
            }
            let draft = asked(draft, refused.url);
            denied(tx, refused.code, agent.unwrap_or_default(), draft, None)
        })
    }

    /// Writes down denials that were counted and whose loop ended. Returns how many leaves that were.
    pub fn flush_denied(&self, clock: &Clock) -> Result<usize, JournalError> {
        self.within(|tx| {
            let now = millis(believed(tx, clock)?.time);
            let rows: Vec<(String, i64)> = {
                let mut found = tx.prepare_cached(
                    "SELECT reason, repeats FROM audit_denied WHERE until_ms <= ?1 ORDER BY reason",
                )?;
                let rows = found.query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect::<Result<_, _>>()?
            };
            let mut written = 0;
            for (reason, repeats) in rows {
                run(tx, "DELETE FROM audit_denied WHERE reason = ?1", [&reason])?;
                if repeats > 0 {
                    let (codes, agent) = reason.rsplit_once(' ').unwrap_or((&reason, ""));
                    let mut draft = Entry::new(tx, Kind::Denied)?
                        .text("decision", "deny")
                        .with("denied", Value::list(codes.split(' ')))
                        .number("repeats", repeats.cast_unsigned());
                    if !agent.is_empty() {
                        draft = draft.with("agents", Value::list([agent]));
                    }
                    draft.append(tx, None)?;
                    written += 1;
                }
            }
            Ok(written)
        })
    }

    /// Names the parties of whatever is bought from now on. Principal and operator are committed to once, so that leaves
    /// show that they are the same and not who they are.
    pub fn name_parties(&self, parties: &Parties, clock: &Clock) -> Result<(), JournalError> {
        self.within(|tx| {
            advance(tx, clock)?;
            let mut draft = Entry::new(tx, Kind::RulesChanged)?.text("change", "parties");
            for (name, value) in [("principal", &parties.principal), ("operator", &parties.operator)] {
                if let Some(value) = value {
                    draft = draft.secret(name, value.clone());
                }
            }
            if let Some(law) = &parties.jurisdiction {
                draft = draft.text("jurisdiction", law);
            }
            let index = draft.append(tx, None)?;
            for name in ["principal", "operator", "jurisdiction"] {
                forget(tx, &format!("{PARTY}{name}"))?;
            }
            for secret in secrets(tx, index.cast_signed())? {
                let commitment = secret.commitment().value();
                put(tx, &format!("{PARTY}{}", secret.field), commitment.as_text().unwrap_or_default())?;
            }
            match &parties.jurisdiction {
                Some(law) => put(tx, &format!("{PARTY}jurisdiction"), law),
                None => Ok(()),
            }
        })
    }

    /// The leaves from `from` on, at most `most` and [`MAX_AUDIT_PAGE`].
    pub fn audit_leaves(&self, from: u64, most: usize) -> Result<Vec<KeptLeaf>, JournalError> {
        self.within(|tx| {
            let most = most.min(MAX_AUDIT_PAGE) as u64;
            let mut found =
                tx.prepare_cached("SELECT idx, leaf FROM audit_leaf WHERE idx >= ?1 ORDER BY idx LIMIT ?2")?;
            let rows = found
                .query_map([from.cast_signed(), most.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.map(|row| kept(tx, row?)).collect()
        })
    }

    /// The leaves about a purchase, or a channel, oldest first, at most [`MAX_AUDIT_PAGE`] of the first.
    pub fn audit_leaves_of(&self, subject: &[u8]) -> Result<Vec<KeptLeaf>, JournalError> {
        self.within(|tx| {
            let mut found = tx.prepare_cached(
                "SELECT idx, leaf FROM audit_leaf WHERE subject = ?1 ORDER BY idx LIMIT ?2",
            )?;
            let rows = found
                .query_map(params![subject, MAX_AUDIT_PAGE as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.map(|row| kept(tx, row?)).collect()
        })
    }

    /// How many leaves there are.
    pub fn audit_count(&self) -> Result<u64, JournalError> {
        self.within(|tx| {
            let count: i64 =
                tx.query_row("SELECT coalesce(max(idx) + 1, 0) FROM audit_leaf", [], |row| row.get(0))?;
            Ok(count.cast_unsigned())
        })
    }

    /// Forgets what a purchase asked for: the query, what identifies the request, the receipt and whatever else its
    /// leaves committed to, and the signed payment. Its leaves stay as they are. Returns how many values were forgotten.
    ///
    /// # Errors
    /// [`EraseError::Open`] as long as its payment could still be shown, or its goods asked for.
    pub fn erase(&self, id: &PurchaseId, clock: &Clock) -> Result<usize, EraseError> {
        // What is erased is to be written over, and not only let go.
        self.db.alone(|db| db.pragma_update(None, "secure_delete", "ON"))?;
        let erased = self.within(|tx| {
            let now = believed(tx, clock)?.time;
            if let Some(purchase) = find(tx, id).map(Some).or_else(absent)? {
                if !is_over(&purchase, now) {
                    return Ok(Err(purchase.state));
                }
                forget_request(tx, &purchase, now)?;
            }
            let erased = run(
                tx,
                "DELETE FROM audit_secret WHERE idx IN (SELECT idx FROM audit_leaf WHERE subject = ?1)",
                [key(id)],
            )?;
            Ok(Ok(erased))
        })?;
        let erased = erased.map_err(EraseError::Open)?;
        // Nor is it to stay in the write-ahead log, which somebody who reads now keeps until he has read.
        self.db.alone(|db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))?;
        Ok(erased)
    }
}

/// Attempts that were denied have leaves, and are no purchases.
fn absent(error: JournalError) -> Result<Option<Purchase>, JournalError> {
    match error {
        JournalError::NotFound(_) => Ok(None),
        error => Err(error),
    }
}

/// Whether nobody shows a purchase's payment any more, or asks for its goods.
fn is_over(purchase: &Purchase, now: Timestamp) -> bool {
    match purchase.state {
        State::Released => true,
        State::Settled => purchase.delivered || now.since(purchase.updated) > GOODS_OWED,
        State::Intended | State::Signed | State::Presented | State::Unknown | State::Refused => false,
    }
}

fn forget_request(tx: &Tx, purchase: &Purchase, now: Timestamp) -> Result<(), JournalError> {
    let mut url = purchase.url.clone();
    url.truncate(url.find(['?', '#']).unwrap_or(url.len()));
    let hash = hex::encode(purchase.request_hash.0);
    run(
        tx,
        "UPDATE purchase SET url = ?2, method = '', request_hash = zeroblob(32), header_name = NULL,
         header_value = NULL, receipt = NULL, note = NULL WHERE id = ?1",
        params![key(&purchase.id), url],
    )?;
    // What people were asked about it, and said.
    run(
        tx,
        "DELETE FROM vote WHERE approval IN (SELECT id FROM approval WHERE used_by = ?1)",
        [key(&purchase.id)],
    )?;
    run(tx, "DELETE FROM approval WHERE used_by = ?1", [key(&purchase.id)])?;
    super::approvals::forget_grants(tx, &purchase.id, now)?;
    // The names that callers gave it.
    run(tx, "DELETE FROM setting WHERE key GLOB 'call:*' AND instr(value, ?1) > 0", [format!("\"{hash}\"")])?;
    Ok(())
}

fn kept(tx: &Tx, (index, bytes): (i64, Vec<u8>)) -> Result<KeptLeaf, JournalError> {
    let leaf = Leaf::read(&bytes).map_err(unwritable)?;
    Ok(KeptLeaf { index: index.cast_unsigned(), bytes, leaf, secrets: secrets(tx, index)? })
}

/// What [`farthing_audit::publish`] and [`farthing_audit::verify`] read. Everything here is durable.
impl Leaves for Journal {
    fn count(&self) -> Result<u64, LeavesError> {
        self.audit_count().map_err(|error| LeavesError(error.to_string()))
    }

    fn read(&self, from: u64, most: usize) -> Result<Vec<Vec<u8>>, LeavesError> {
        let read = self.within(|tx| {
            let mut found =
                tx.prepare_cached("SELECT idx, leaf FROM audit_leaf WHERE idx >= ?1 ORDER BY idx LIMIT ?2")?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = found.query_map([from.cast_signed(), most], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            })?;
            let mut leaves = Vec::new();
            for (row, expected) in rows.zip(from..) {
                let (index, leaf) = row?;
                if index.cast_unsigned() != expected {
                    return Err(JournalError::Corrupt("audit log with a gap"));
                }
                leaves.push(leaf);
            }
            Ok(leaves)
        });
        read.map_err(|error| LeavesError(error.to_string()))
    }
}
