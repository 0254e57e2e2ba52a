//! What is said of an owner's books and of people who are asked.

use std::fmt;
use std::time::Duration;

use farthing_approval::{GrantAsk, Status, Uses};
use farthing_policy::{Host, MAX_NAMED_BY_CHARS, Names};
use farthing_primitives::{Address, Timestamp, parse_atoms};
use farthing_wallet::{Budget, Cap, Limits, Share, Ticket, Used};
use serde::{Deserialize, Serialize};

use super::records::{Read, no};
use super::{IntentRecord, MAX_NAMES_A_LINE, MAX_URL_BYTES, PurchaseRecord, Refusal};

/// A rule of the owner's that waits for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitsRecord {
    pub rule: String,
    pub quorum: u32,
    /// The request that they were asked with, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
}

/// What people were asked, and how far they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketRecord {
    pub id: String,
    /// `pending`, `approved`, `denied` or `expired`.
    pub status: String,
    /// How many said yes.
    pub voices: u32,
    pub quorum: u32,
    pub expires_ms: u64,
    pub used: bool,
    pub text: String,
    /// Of a grant: what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftRecord>,
}

/// What is left of a grant: payments, and atoms for all of them together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftRecord {
    pub payments: u32,
    pub atoms: String,
}

/// A payment, and the grant that is asked for with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithGrant {
    pub intent: IntentRecord,
    pub grant: GrantRecord,
}

/// The bounds of a grant; amounts in whole units of the asset that is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRecord {
    pub payments: u32,
    /// The most of each; what this payment costs if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// The most of all together; as much as so many can be if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<String>,
    pub lasts_s: u64,
    /// For everything below this URL, which ends in a slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
    #[serde(default)]
    pub any_body: bool,
}

/// The longest text of an amount.
const MAX_AMOUNT_BYTES: usize = 64;

impl GrantRecord {
    pub fn of(ask: &GrantAsk) -> Self {
        let GrantAsk { payments, each, total, lasts, below, any_body } = ask.clone();
        Self { payments, each, total, lasts_s: lasts.as_secs(), below, any_body }
    }

    pub fn read(self) -> Read<GrantAsk> {
        let Self { payments, each, total, lasts_s, below, any_body } = self;
        let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > MAX_AMOUNT_BYTES);
        if long(&each) || long(&total) || below.as_ref().is_some_and(|below| below.len() > MAX_URL_BYTES) {
            return Err(no("a grant"));
        }
        Ok(GrantAsk { payments, each, total, lasts: Duration::from_secs(lasts_s), below, any_body })
    }
}

impl TicketRecord {
    pub fn of(ticket: &Ticket) -> Self {
        let voices = match ticket.status {
            Status::Pending { voices, .. } | Status::Approved { voices } => voices,
            Status::Denied | Status::Expired => 0,
        };
        Self {
            id: ticket.id.to_string(),
            status: ticket.status.name().to_owned(),
            voices,
            quorum: ticket.quorum,
            expires_ms: ticket.expires.millis(),
            used: ticket.used,
            text: ticket.text.clone(),
            left: ticket
                .left
                .map(|left| LeftRecord { payments: left.payments, atoms: left.atoms.to_string() }),
        }
    }

    pub fn read(self) -> Read<Ticket> {
        let (voices, quorum) = (self.voices, self.quorum);
        Ok(Ticket {
            id: self.id.parse().map_err(|_| no("an approval's id"))?,
            status: match self.status.as_str() {
                "pending" => Status::Pending { voices, quorum },
                "approved" => Status::Approved { voices },
                "denied" => Status::Denied,
                "expired" => Status::Expired,
                _ => return Err(no("an approval's status")),
            },
            quorum,
            expires: Timestamp::from_millis(self.expires_ms),
            used: self.used,
            text: self.text,
            left: match self.left {
                None => None,
                Some(LeftRecord { payments, atoms }) => {
                    Some(Uses { payments, atoms: parse_atoms(&atoms).map_err(|_| no("an amount"))? })
                }
            },
        })
    }
}

/// What says no more than its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// As a policy writes them: `api.example`, `*.example`, `api.example:8443`.
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaybePurchase {
    pub purchase: Option<PurchaseRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithHistory {
    /// How many at most; one answer may have fewer.
    pub limit: u32,
    /// What comes before this one: the last of the list before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithHash {
    pub request_hash: String,
}

/// Hosts and payees that somebody else named, and who.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithNames {
    pub by: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payees: Vec<String>,
    /// There were more than are kept of one answer.
    #[serde(default)]
    pub more: bool,
}

impl WithNames {
    /// As many lines as it takes.
    pub fn of(names: &Names, by: &str) -> Vec<Self> {
        let line = || Self { by: by.to_owned(), hosts: Vec::new(), payees: Vec::new(), more: false };
        let mut lines = Vec::new();
        let hosts: Vec<String> = names.hosts.iter().map(ToString::to_string).collect();
        let payees: Vec<String> = names.payees.iter().map(ToString::to_string).collect();
        lines.extend(hosts.chunks(MAX_NAMES_A_LINE).map(|hosts| Self { hosts: hosts.to_vec(), ..line() }));
        lines
            .extend(payees.chunks(MAX_NAMES_A_LINE).map(|payees| Self { payees: payees.to_vec(), ..line() }));
        if names.is_cut() {
            lines.push(Self { more: true, ..line() });
        }
        lines
    }

    /// # Errors
    /// [`Refusal`] for what is no host, no address, or more than a line has.
    pub fn read(&self) -> Result<Names, Refusal> {
        let plain =
            self.by.len() <= MAX_NAMED_BY_CHARS && self.by.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if !plain || self.hosts.len().saturating_add(self.payees.len()) > MAX_NAMES_A_LINE {
            return Err(Refusal::malformed("what was named cannot be read"));
        }
        let mut names = Names::default();
        for host in &self.hosts {
            names.hosts.insert(host.parse::<Host>().map_err(Refusal::malformed)?);
        }
        for payee in &self.payees {
            names.payees.insert(Address::evm(payee).map_err(Refusal::malformed)?);
        }
        if self.more {
            names.cut();
        }
        Ok(names)
    }
}

/// A name of a caller's for a call, and the request that it is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithName {
    pub name: String,
    pub request_hash: String,
}

/// The request that a name is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    pub request_hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    pub secret: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What may be spent: by the policy's `shares`, or by `caps` that were set by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetRecord {
    pub frozen: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Vec<ShareRecord>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHandRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareRecord {
    pub budget: String,
    pub of: String,
    pub within: String,
    pub limit: String,
    pub spent: Option<String>,
    pub left: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByHandRecord {
    pub caps: Vec<CapRecord>,
    pub networks: Vec<String>,
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapRecord {
    pub of: String,
    pub per_payment: String,
    pub hour: UsedRecord,
    pub day: UsedRecord,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedRecord {
    pub limit: String,
    pub spent: String,
    pub left: String,
}

impl From<Used> for UsedRecord {
    fn from(Used { limit, spent, left }: Used) -> Self {
        Self { limit, spent, left }
    }
}

impl From<UsedRecord> for Used {
    fn from(UsedRecord { limit, spent, left }: UsedRecord) -> Self {
        Self { limit, spent, left }
    }
}

impl BudgetRecord {
    pub fn of(budget: Budget) -> Self {
        let (shares, by_hand) = match budget.limits {
            Limits::Policy(shares) => {
                let share = |Share { budget, of, within, limit, spent, left }| ShareRecord {
                    budget,
                    of,
                    within,
                    limit,
                    spent,
                    left,
                };
                (Some(shares.into_iter().map(share).collect()), None)
            }
            Limits::ByHand { caps, networks, hosts } => {
                let cap = |Cap { of, per_payment, hour, day }| CapRecord {
                    of,
                    per_payment,
                    hour: hour.into(),
                    day: day.into(),
                };
                let caps = caps.into_iter().map(cap).collect();
                (None, Some(ByHandRecord { caps, networks, hosts }))
            }
        };
        Self { frozen: budget.frozen, shares, by_hand }
    }

    pub fn read(self) -> Read<Budget> {
        let limits = match (self.shares, self.by_hand) {
            (Some(shares), None) => {
                let share = |ShareRecord { budget, of, within, limit, spent, left }| Share {
                    budget,
                    of,
                    within,
                    limit,
                    spent,
                    left,
                };
                Limits::Policy(shares.into_iter().map(share).collect())
            }
            (None, Some(ByHandRecord { caps, networks, hosts })) => {
                let cap = |CapRecord { of, per_payment, hour, day }| Cap {
                    of,
                    per_payment,
                    hour: hour.into(),
                    day: day.into(),
                };
                Limits::ByHand { caps: caps.into_iter().map(cap).collect(), networks, hosts }
            }
            _ => return Err(no("a budget")),
        };
        Ok(Budget { frozen: self.frozen, limits })
    }
}
