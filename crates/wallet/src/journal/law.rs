//! What is in force, and how it comes into force: the rules that an owner sets by hand, or a policy from a file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farthing_policy::policy::{Limit, Loosening};
use farthing_policy::{AgentName, Bucket, Caller, Charge, Origin};
use farthing_policy::{Asks, Decision, Fact, History, Law, Movement, Policy, PolicyError, Question};
use farthing_policy::{Request, Screened, Screening, Source};
use farthing_primitives::{Address, Money, Network, PurchaseId, Registry, Timestamp};
use rusqlite::OptionalExtension;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Journal, JournalError, MAX_HISTORY, Purchase, State, Tx, audit, forget, get, put};

/// What names the policy in force, and its text, among the settings.
pub(super) const POLICY_ID: &str = "policy_id";
pub(super) const POLICY: &str = "policy";
/// The SHA-256 of the text, so that not every leaf has to read it.
pub(super) const POLICY_HASH: &str = "policy_hash";
/// What marks the books of a program that only decides.
const DECISIONS: &str = "decisions";

/// The policy that was read last, by its name: it is read anew only when another comes into force.
pub(super) type Read = Arc<Mutex<Option<(String, Arc<Policy>)>>>;

/// A policy that is in force, or could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPolicy {
    /// The SHA-256 of its text, in hexadecimal.
    pub id: String,
    pub text: String,
    pub policy: Arc<Policy>,
}

/// Why a policy did not come into force. The one before it still is.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the policy only observes: it is for \"farthing policy test\"")]
    Observes,
    #[error("the policy might allow what is not allowed now: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Looser(Vec<Loosening>),
    #[error("there is no policy to take away")]
    None,
    #[error("without its policy the wallet goes by the rules that were set by hand, which may allow more")]
    Unbound,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl ApplyError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy_invalid",
            Self::Observes => "policy_observes",
            Self::Looser(_) | Self::Unbound => "policy_looser",
            Self::None => "policy_none",
            Self::Journal(_) => "wallet_unavailable",
        }
    }
}

/// The name of a policy: what it says, to the byte.
pub fn policy_id(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

impl Journal {
    /// What is in force for whoever uses this journal.
    pub fn law(&self) -> Result<Law, JournalError> {
        self.within(|tx| self.law_now(tx))
    }

    /// The policy in force, if there is one.
    pub fn policy(&self) -> Result<Option<KeptPolicy>, JournalError> {
        self.within(|tx| self.kept_policy(tx))
    }

    /// Puts a policy into force for everybody who uses this wallet, from the next decision on.
    ///
    /// # Errors
    /// [`ApplyError::Looser`] if it might allow what the one before did not, unless that is `accepted`. Whatever the error,
    /// what was in force still is.
    pub fn apply_policy(&self, text: &str, accepted: bool) -> Result<KeptPolicy, ApplyError> {
        let policy = Arc::new(Policy::parse(text)?);
        if policy.mode == farthing_policy::policy::Mode::Observe {
            return Err(ApplyError::Observes);
        }
        let id = policy_id(text);
        let refused = self.within(|tx| {
            if let Some(before) = self.kept_policy(tx)?.filter(|_| !accepted) {
                let looser = policy.loosens(&before.policy);
                if !looser.is_empty() {
                    return Ok(Some(looser));
                }
            }
            audit::policy_changed(tx, Some(text))?;
            put(tx, POLICY, text)?;
            put(tx, POLICY_ID, &id)?;
            put(tx, POLICY_HASH, &super::audit::sha256(text.as_bytes()))?;
            Ok(None)
        })?;
        match refused {
            Some(looser) => Err(ApplyError::Looser(looser)),
            None => Ok(KeptPolicy { id, text: text.to_owned(), policy }),
        }
    }

    /// Goes back to the rules that were set by hand.
    pub fn clear_policy(&self, accepted: bool) -> Result<(), ApplyError> {
        let had = self.within(|tx| {
            let had = get(tx, POLICY_ID)?.is_some();
            if had && accepted {
                audit::policy_changed(tx, None)?;
                forget(tx, POLICY)?;
                forget(tx, POLICY_ID)?;
                forget(tx, POLICY_HASH)?;
            }
            Ok(had)
        })?;
        match (had, accepted) {
            (false, _) => Err(ApplyError::None),
            (true, false) => Err(ApplyError::Unbound),
            (true, true) => Ok(()),
        }
    }

    /// Makes the books of a program that only decides, of a file that is new or is such books already.
    ///
    /// # Errors
    /// [`JournalError::NotDecisions`] for a wallet's: its owner's rules are not to be replaced by the way.
    pub fn for_decisions(&self) -> Result<(), JournalError> {
        self.within(|tx| {
            if get(tx, DECISIONS)?.is_some() {
                return Ok(());
            }
            let used: bool = tx.query_row("SELECT EXISTS (SELECT 1 FROM purchase)", [], |row| row.get(0))?;
            if used || get(tx, "default_key")?.is_some() || get(tx, POLICY_ID)?.is_some() {
                return Err(JournalError::NotDecisions);
            }
            put(tx, DECISIONS, "1")
        })
    }

    fn kept_policy(&self, tx: &Tx) -> Result<Option<KeptPolicy>, JournalError> {
        let Some(id) = get(tx, POLICY_ID)? else { return Ok(None) };
        let text = get(tx, POLICY)?.filter(|text| policy_id(text) == id);
        let text = text.ok_or(JournalError::Corrupt("policy"))?;
        // INVARIANT: what cannot be read denies everything; it never falls back to anything else.
        let policy = Policy::parse(&text).map_err(|_| JournalError::Corrupt("policy"))?;
        Ok(Some(KeptPolicy { id, text, policy: Arc::new(policy) }))
    }

    pub(super) fn law_now(&self, tx: &Tx) -> Result<Law, JournalError> {
        let rules = self.rules_now(tx)?;
        let Some(id) = get(tx, POLICY_ID)? else { return Ok(Law::Rules(rules)) };
        let mut read = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, policy)) = read.as_ref()
            && *known == id
        {
            return Ok(Law::Policy { frozen: rules.frozen, policy: policy.clone() });
        }
        let kept = self.kept_policy(tx)?.ok_or(JournalError::Corrupt("policy"))?;
        *read = Some((kept.id, kept.policy.clone()));
        Ok(Law::Policy { frozen: rules.frozen, policy: kept.policy })
    }

    /// Decides by what is in force, for whoever uses this journal. `sums` is whether the windows of budgets count.
    pub(super) fn ruling(
        &self,
        tx: &Tx,
        request: &Request,
        now: Timestamp,
        sums: bool,
    ) -> Result<Decision, JournalError> {
        let law = self.law_now(tx)?;
        let request = self.as_own(request);
        let mut history = super::history(tx, &law, &request, now)?;
        if sums {
            self.spent_before(tx, &law, &request, now, &mut history)?;
        } else if matches!(&law, Law::Policy { policy, .. } if policy.follows_past()) {
            // The windows count a channel's deposit instead, and what a limit is follows the past all the same.
            history.past = Some(self.sums(tx, &law, &request, now)?.unwrap_or_default());
        }
        history.mentions = self.mentioned(tx, &law, &request)?;
        super::approvals::recall(tx, &law, &request, now, &mut history)?;
        Ok(law.decide(&history, &request, now))
    }

    /// Adds what was spent already.
    fn spent_before(
        &self,
        tx: &Tx,
        law: &Law,
        request: &Request,
        now: Timestamp,
        history: &mut History,
    ) -> Result<(), JournalError> {
        history.sums = Some(self.sums(tx, law, request, now)?.unwrap_or_default());
        let since = law.memory().map(|memory| now.minus(memory));
        super::channels::movements(tx, since, now, &mut history.movements)
    }

    /// Whose request it is says the journal that is asked, and not the request.
    pub(crate) fn as_own(&self, request: &Request) -> Request {
        let mut own = request.clone();
        own.caller.agent = self.agent().cloned();
        own
    }

    /// How many atoms one payment may be that is otherwise like `atom`, which is of one.
    ///
    /// `spent` is whether what was spent already counts.
    pub fn room(
        &self,
        atom: &Request,
        spent: bool,
        clock: &farthing_policy::Clock,
    ) -> Result<u128, JournalError> {
        self.within(|tx| {
            let now = super::believed(tx, clock)?.time;
            let law = self.law_now(tx)?;
            let atom = self.as_own(atom);
            let mut history = None;
            if spent {
                let history = history.insert(super::history(tx, &law, &atom, now)?);
                self.spent_before(tx, &law, &atom, now, history)?;
            }
            Ok(law.room(history.as_ref(), &atom, now))
        })
    }
}

/// How much of a budget's limit is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub budget: AgentName,
    pub limit: Limit,
    /// `None` if it cannot be counted.
    pub spent: Option<u128>,
}

impl Journal {
    /// Every limit that whoever uses this journal is held to, and what is used of it: of the owner, those of all budgets.
    /// Limits by payee, host and tool depend on what is asked for, and count nothing here. `None` if no policy is in
    /// force.
    pub fn standing(&self, clock: &farthing_policy::Clock) -> Result<Option<Vec<Standing>>, JournalError> {
        self.within(|tx| {
            let now = super::believed(tx, clock)?.time;
            let law = self.law_now(tx)?;
            let Law::Policy { policy, .. } = &law else { return Ok(None) };
            let history = History {
                movements: super::movements(tx, now, law.memory())?,
                indexes: super::indexes::known(tx, &law)?,
                ..History::default()
            };
            Ok(Some(policy.standing(self.agent(), &history, now).into_iter().map(Standing::from).collect()))
        })
    }
}

impl From<(AgentName, Limit, Option<u128>)> for Standing {
    fn from((budget, limit, spent): (AgentName, Limit, Option<u128>)) -> Self {
        Self { budget, limit, spent }
    }
}

/// What a policy would have decided about a purchase.
#[derive(Debug, Clone)]
pub struct Replayed {
    pub purchase: Purchase,
    pub decision: Decision,
    pub screening: Recalled,
}

/// Where the word of a policy's screener comes from when a payment is decided about again: nobody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// The policy has no screener.
    None,
    /// The same screener was asked at the time, and what it said counts.
    Recorded,
    /// It was not asked at the time. What it would have said is not known, and is taken for a yes.
    Unknown,
}

/// How long a signed payment is taken to have been valid when it is decided about again.
const REPLAYED_VALIDITY: Duration = Duration::from_secs(1);

impl Journal {
    /// Decides again about what was paid since `since`, by a policy that need not be in force, as if it had been then:
    /// what it would have denied does not count in its budgets.
    ///
    /// No screener is asked: see [`Recalled`]. Purchases by voucher are left out. How long payments stayed valid, and what people said of them, is not decided
    /// about again.
    pub fn replay(
        &self,
        policy: &Policy,
        registry: &Registry,
        since: Timestamp,
    ) -> Result<Vec<Replayed>, JournalError> {
        let past = self.history(MAX_HISTORY)?;
        let mut history = History::default();
        let mut pins: BTreeMap<(String, Network), Vec<Address>> = BTreeMap::new();
        let mut replayed = Vec::new();
        for purchase in past.into_iter().rev() {
            if purchase.created < since || purchase.channel.is_some() {
                continue;
            }
            let Ok(mut request) = request_of(&purchase, "exact", purchase.money.clone(), registry) else {
                continue;
            };
            request.validity = REPLAYED_VALIDITY;
            let screening = self.recall_screening(policy, &purchase.id, &mut request)?;
            let network = purchase.money.asset().network().clone();
            let pinned = pins.entry((purchase.authority.clone(), network)).or_default();
            history.pinned.clone_from(pinned);
            let decision = policy.decide(false, &history, &request, purchase.created);
            if decision.is_allowed() || decision.asks_for_approval().is_some() {
                if !pinned.contains(&purchase.payee) {
                    pinned.push(purchase.payee.clone());
                }
                if purchase.state != State::Released {
                    count(&mut history, &purchase, &request);
                }
            }
            replayed.push(Replayed { purchase, decision, screening });
        }
        Ok(replayed)
    }

    /// Adds to a request what a policy's screener said of the purchase that it was.
    fn recall_screening(
        &self,
        policy: &Policy,
        id: &PurchaseId,
        request: &mut Request,
    ) -> Result<Recalled, JournalError> {
        let Some(screener) = &policy.screen else { return Ok(Recalled::None) };
        let found = self.findings(id)?.unwrap_or_default();
        let said = found.iter().find_map(|finding| finding.screening(&screener.asks));
        request.screened = Some(Screened {
            asks: screener.asks.clone(),
            question: Question::of(request),
            said: said.unwrap_or(Screening::Allow),
            reason: None,
        });
        Ok(if said.is_some() { Recalled::Recorded } else { Recalled::Unknown })
    }

    /// What each rule found when a purchase was decided about; `None` if that was not kept.
    pub fn findings(&self, id: &PurchaseId) -> Result<Option<Vec<KeptFinding>>, JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            let mut found = tx.prepare_cached("SELECT decision FROM purchase WHERE id = ?1")?;
            let text: Option<Option<String>> =
                found.query_row([super::key(id)], |row| row.get(0)).optional()?;
            let text = text.ok_or(JournalError::NotFound(*id))?;
            text.map(|text| read_decision(&text).ok_or(JournalError::Corrupt("decision"))).transpose()
        })
    }
}

/// Adds what a purchase moved.
fn count(history: &mut History, purchase: &Purchase, request: &Request) {
    let of = Arc::new(Source {
        agent: purchase.agent.clone(),
        authority: purchase.authority.clone(),
        payee: Some(purchase.payee.clone()),
        tool: purchase.tool.clone(),
    });
    let asset = Bucket::Asset(purchase.money.asset().clone());
    for bucket in [asset, Bucket::Dollar] {
        if let Some(amount) = request.charge.amount_in(&bucket) {
            history.movements.push(Movement { bucket, amount, until: purchase.created, of: of.clone() });
        }
    }
}

/// The question that a purchase was, for so much money.
///
/// # Errors
/// [`JournalError::Corrupt`] if its address cannot be read, or its asset is not in the registry.
pub(crate) fn request_of(
    purchase: &Purchase,
    scheme: &str,
    money: Money,
    registry: &Registry,
) -> Result<Request, JournalError> {
    let url: url::Url = purchase.url.parse().map_err(|_| JournalError::Corrupt("address"))?;
    let origin = Origin::of(&url).map_err(|_| JournalError::Corrupt("address"))?;
    Ok(Request {
        scheme: scheme.to_owned(),
        charge: Charge::of(registry, money).map_err(|_| JournalError::Corrupt("asset"))?,
        price: None,
        payee: purchase.payee.clone(),
        private: origin.host.is_local(),
        origin,
        max: None,
        only: None,
        validity: purchase.expires.since(purchase.created),
        screened: None,
        caller: Caller {
            agent: purchase.agent.clone(),
            payer: Some(purchase.payer.clone()),
            tool: purchase.tool.clone(),
            method: purchase.method.clone(),
            path: url.path().to_owned(),
            url: purchase.url.clone(),
            body: None,
        },
    })
}

/// A decision as it is kept with its purchase: what each rule found, in order.
#[derive(Serialize, serde::Deserialize)]
struct FindingRecord {
    code: String,
    denies: bool,
    text: String,
    /// Who said it, of what a screener said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    screener: Option<String>,
}

/// What one rule found when a purchase was decided about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFinding {
    pub code: String,
    pub denies: bool,
    pub text: String,
    /// Who said it, of what a screener said.
    pub screener: Option<String>,
}

impl KeptFinding {
    /// What this screener said, if this is that. A purchase that was made was never denied.
    fn screening(&self, asks: &Asks) -> Option<Screening> {
        self.screener.as_ref().filter(|by| **by == asks.to_string())?;
        match self.code.as_str() {
            "screen_allowed" => Some(Screening::Allow),
            "screen_held" => Some(Screening::Hold),
            _ => None,
        }
    }
}

/// Why a purchase was allowed.
pub(super) fn print_decision(decision: &Decision) -> String {
    let record = |fact: &Fact| FindingRecord {
        code: fact.code().to_owned(),
        denies: fact.denies(),
        text: fact.to_string(),
        screener: match fact {
            Fact::ScreenAllowed { by, .. } | Fact::ScreenHeld { by, .. } => Some(by.clone()),
            _ => None,
        },
    };
    let records: Vec<FindingRecord> = decision.findings.iter().map(record).collect();
    // INVARIANT: texts always serialize.
    serde_json::to_string(&records).unwrap_or_default()
}

fn read_decision(text: &str) -> Option<Vec<KeptFinding>> {
    let records: Vec<FindingRecord> = serde_json::from_str(text).ok()?;
    let read =
        |r: FindingRecord| KeptFinding { code: r.code, denies: r.denies, text: r.text, screener: r.screener };
    Some(records.into_iter().map(read).collect())
}

#[cfg(test)]
mod tests;
