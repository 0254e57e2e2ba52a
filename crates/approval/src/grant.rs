use std::str::FromStr;
use std::time::Duration;

use farthing_policy::AgentName;
use farthing_policy::policy::length_of;
use farthing_primitives::{Address, Asset, AssetId, Timestamp, parse_atoms};
use serde::{Deserialize, Serialize};

use crate::request::{Bounds, Written, hash, malformed, print, read_body, read_number};
use crate::{ApprovalRequest, Digest, ReadError, Subject};

/// How many payments one grant may be for. All of them are looked at when it is used.
pub const MAX_GRANT_PAYMENTS: u32 = 1000;
/// How long the URL may be that a grant is for all below of, in bytes.
pub const MAX_BELOW_BYTES: usize = 2048;
/// How long a grant may last.
pub const LONGEST_GRANT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the digest begins with, so that no word on one payment is one on a grant.
const CONTEXT: &[u8] = b"farthing payment grant v1\n";
/// The same for what all payments of a grant have in common.
const SCOPE_CONTEXT: &[u8] = b"farthing payment grant scope v1\n";
const KIND: &str = "farthing.payment-grant.v1";
/// In place of a body's hash.
const ANY: &str = "any";

/// Which URLs a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Exactly(String),
    /// Everything whose path goes on from this one, which ends in a slash; whatever the query.
    Below(String),
}

impl Place {
    pub fn url(&self) -> &str {
        match self {
            Self::Exactly(url) | Self::Below(url) => url,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Exactly(_) => "exact",
            Self::Below(_) => "below",
        }
    }

    fn has(&self, url: &str) -> bool {
        match self {
            Self::Exactly(only) => only == url,
            // A path that can be read in two ways is below nothing: who serves it may read it as another.
            Self::Below(above) => {
                let path = |rest: &str| rest.split(['?', '#']).next().unwrap_or_default().to_owned();
                url.strip_prefix(above.as_str()).is_some_and(|rest| is_plain(&path(rest)))
            }
        }
    }

    /// Whether it says one thing to everybody: of what is below a URL, that it names a host, and a path to its slash.
    fn is_sound(&self) -> bool {
        let Self::Below(above) = self else { return true };
        if above.len() > MAX_BELOW_BYTES {
            return false;
        }
        let rest = above.strip_prefix("https://").or_else(|| above.strip_prefix("http://"));
        let Some((authority, path)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
        let host = |b: u8| {
            b.is_ascii_lowercase()
                || b.is_ascii_digit()
                || matches!(b, b'.' | b'-' | b':' | b'[' | b']' | b'_')
        };
        !authority.is_empty()
            && authority.bytes().all(host)
            && path.bytes().all(|b| b.is_ascii_graphic())
            && (path.is_empty() || path.ends_with('/'))
            && !path.contains(['?', '#'])
            && is_plain(path)
    }
}

/// Whether a path can be read in one way only: as in the paths of a policy's rules.
fn is_plain(path: &str) -> bool {
    !path.contains(['%', '\\', ';'])
        && !path.contains("//")
        && !path.starts_with('/')
        && !path.split('/').any(|part| part == ".." || part == ".")
}

/// Which bodies of requests a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The one with this SHA-256.
    Exactly([u8; 32]),
    Any,
}

/// A question to people: may this be paid, so often, each time at most so much and together at most so much, until then?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRequest {
    /// `None` is the wallet's owner.
    pub agent: Option<AgentName>,
    pub payer: Address,
    pub method: String,
    pub place: Place,
    pub body: Body,
    pub payee: Address,
    /// Names the network, too.
    pub asset: AssetId,
    /// How many payments at most.
    pub payments: u32,
    /// The most that each of them may be, in atoms of the asset.
    pub max: u128,
    /// The most that they may be together.
    pub total: u128,
    /// It is used before this, or not at all.
    pub expires: Timestamp,
}

/// The fields in the order that RFC 8785 gives them. All are ASCII, and there is no number among them.
///
/// Spec: RFC 8785 section 3.2.3: sorted by UTF-16 code units, which for ASCII is alphabetical.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    agent: Option<String>,
    asset: String,
    body_sha256: String,
    expires_ms: String,
    max_atoms: String,
    method: String,
    payee: String,
    payer: String,
    payments: String,
    total_atoms: String,
    #[serde(rename = "type")]
    kind: String,
    url: String,
    url_match: String,
}

#[derive(Serialize)]
struct ScopeRecord<'a> {
    agent: Option<&'a str>,
    asset: String,
    method: &'a str,
    payee: &'a str,
    payer: &'a str,
}

/// What of a grant is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uses {
    pub payments: u32,
    pub atoms: u128,
}

/// The bounds that somebody proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantTerms {
    pub payments: u32,
    /// The most of each, in atoms; `None` is what the payment costs that it is asked for with.
    pub each: Option<u128>,
    /// The most together, in atoms; `None` is as much as so many payments can be.
    pub total: Option<u128>,
    pub lasts: Duration,
    /// For everything below this URL, and not for one URL.
    pub below: Option<String>,
    pub any_body: bool,
}

/// Why there is no such grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    #[error("a grant is for 1 to {MAX_GRANT_PAYMENTS} payments")]
    Payments,
    #[error(
        "each payment may be no less than the one that is asked for, and all together no less than one and no more than that many"
    )]
    Amounts,
    #[error("a grant lasts no longer than 30 days, and until a time to come")]
    Length,
    #[error(
        "below is a URL that ends in a slash, without query or escapes, and what is asked for is below it"
    )]
    Place,
    #[error("{0:?} is not an amount of the asset that is asked for")]
    Amount(String),
    #[error(
        "a grant is written n=10,total=1.00,until=24h, and may have each=0.10, below=https://host/path/ and body=any: {0:?} is none of these"
    )]
    Words(String),
    #[error("the grant is not for what was asked")]
    Other,
}

impl GrantError {
    /// A stable name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Payments => "grant_payments",
            Self::Amounts => "grant_amounts",
            Self::Length => "grant_length",
            Self::Place => "grant_place",
            Self::Amount(_) => "grant_amount",
            Self::Words(_) => "grant_words",
            Self::Other => "grant_other",
        }
    }
}

impl GrantRequest {
    /// Asks for `terms` from what is asked for now: of this subject, and so many atoms.
    pub fn new(
        subject: &Subject,
        atoms: u128,
        terms: &GrantTerms,
        now: Timestamp,
    ) -> Result<Self, GrantError> {
        if terms.lasts > LONGEST_GRANT {
            return Err(GrantError::Length);
        }
        let max = terms.each.unwrap_or(atoms);
        // More than can be counted is more than any total.
        let most = max.saturating_mul(terms.payments.into());
        let grant = Self {
            agent: subject.agent.clone(),
            payer: subject.payer.clone(),
            method: subject.method.clone(),
            place: match &terms.below {
                None => Place::Exactly(subject.url.clone()),
                Some(above) => Place::Below(above.clone()),
            },
            body: if terms.any_body { Body::Any } else { Body::Exactly(subject.body) },
            payee: subject.payee.clone(),
            asset: subject.asset.clone(),
            payments: terms.payments,
            max,
            total: terms.total.unwrap_or(most),
            expires: now.plus(terms.lasts),
        };
        grant.check(now)?;
        if atoms > grant.max {
            return Err(GrantError::Amounts);
        }
        if grant.covers(subject, atoms, now) { Ok(grant) } else { Err(GrantError::Place) }
    }

    /// Whether people can be asked this at `now`.
    pub fn check(&self, now: Timestamp) -> Result<(), GrantError> {
        self.sound()?;
        if self.expires <= now || self.expires.since(now) > LONGEST_GRANT {
            return Err(GrantError::Length);
        }
        Ok(())
    }

    /// What it says is what it can come to: a total that so many payments cannot reach would only frighten.
    fn sound(&self) -> Result<(), GrantError> {
        if !(1..=MAX_GRANT_PAYMENTS).contains(&self.payments) {
            return Err(GrantError::Payments);
        }
        let most = self.max.saturating_mul(self.payments.into());
        if self.max == 0 || self.total < self.max || self.total > most {
            return Err(GrantError::Amounts);
        }
        if !self.place.is_sound() {
            return Err(GrantError::Place);
        }
        Ok(())
    }

    /// Whether it answers a request for one payment: it is wider, and about the same otherwise.
    pub fn answers(&self, request: &ApprovalRequest, now: Timestamp) -> bool {
        self.covers(&request.subject, request.max, now)
    }

    /// The text that people are shown and sign: one JSON object in its canonical form (RFC 8785).
    pub fn text(&self) -> String {
        print(&Record {
            agent: self.agent.as_ref().map(ToString::to_string),
            asset: self.asset.to_string(),
            body_sha256: match &self.body {
                Body::Exactly(hash) => hex::encode(hash),
                Body::Any => ANY.to_owned(),
            },
            expires_ms: self.expires.millis().to_string(),
            max_atoms: self.max.to_string(),
            method: self.method.clone(),
            payee: self.payee.to_string(),
            payer: self.payer.to_string(),
            payments: self.payments.to_string(),
            total_atoms: self.total.to_string(),
            kind: KIND.to_owned(),
            url: self.place.url().to_owned(),
            url_match: self.place.name().to_owned(),
        })
    }

    /// Reads what [`GrantRequest::text`] prints of a grant that can be, and nothing else.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        let record: Record =
            serde_json::from_str(text).map_err(|error| ReadError::Malformed(error.to_string()))?;
        if record.kind != KIND {
            return Err(ReadError::Kind(record.kind));
        }
        let body = match record.body_sha256.as_str() {
            ANY => Body::Any,
            hash => Body::Exactly(read_body(hash)?),
        };
        let Record { agent, asset, expires_ms, max_atoms, payee, payer, .. } = record;
        let Bounds { agent, payer, payee, asset, max, expires } =
            Bounds::read(&Written { agent, asset, expires_ms, max_atoms, payee, payer })?;
        let read = Self {
            agent,
            payer,
            method: record.method,
            place: match record.url_match.as_str() {
                "exact" => Place::Exactly(record.url),
                "below" => Place::Below(record.url),
                _ => return Err(malformed("url_match")),
            },
            body,
            payee,
            asset,
            payments: u32::try_from(read_number(&record.payments, "payments")?)
                .map_err(|_| malformed("payments"))?,
            max,
            total: read_number(&record.total_atoms, "total_atoms")?,
            expires,
        };
        read.sound().map_err(|error| ReadError::Malformed(error.to_string()))?;
        // What is signed is bytes: a second spelling of one request would have a second digest.
        if read.text() == text { Ok(read) } else { Err(ReadError::NotCanonical) }
    }

    /// What is signed. See [`Verdict::message_for_grant`](crate::Verdict::message_for_grant).
    pub fn digest(&self) -> Digest {
        Digest(hash(CONTEXT, &self.text()))
    }

    /// Finds the grants that may fit a payment, with [`scope`].
    pub fn scope(&self) -> Digest {
        scope_of(self.agent.as_ref(), &self.asset, &self.method, &self.payee, &self.payer)
    }

    /// Whether it lets `subject` be paid so much at `now`, if there is room.
    pub fn covers(&self, subject: &Subject, atoms: u128, now: Timestamp) -> bool {
        let Self { agent, payer, method, place, body, payee, asset, payments: _, max, total: _, expires } =
            self;
        let body = match body {
            Body::Exactly(hash) => subject.body == *hash,
            Body::Any => true,
        };
        subject.agent == *agent
            && subject.payer == *payer
            && subject.method == *method
            && subject.payee == *payee
            && subject.asset == *asset
            && place.has(&subject.url)
            && body
            && atoms <= *max
            && now < *expires
    }

    /// Whether there is room for a payment of so much beside what is used already.
    pub fn has_room(&self, used: &Uses, atoms: u128) -> bool {
        used.payments < self.payments && used.atoms.checked_add(atoms).is_some_and(|sum| sum <= self.total)
    }

    /// What is left of it.
    pub fn left(&self, used: &Uses) -> Uses {
        Uses {
            payments: self.payments.saturating_sub(used.payments),
            atoms: self.total.saturating_sub(used.atoms),
        }
    }
}

impl Subject {
    /// Finds the grants that may fit a payment of this.
    pub fn grant_scope(&self) -> Digest {
        scope_of(self.agent.as_ref(), &self.asset, &self.method, &self.payee, &self.payer)
    }
}

fn scope_of(
    agent: Option<&AgentName>,
    asset: &AssetId,
    method: &str,
    payee: &Address,
    payer: &Address,
) -> Digest {
    let record = ScopeRecord {
        agent: agent.map(AgentName::as_str),
        asset: asset.to_string(),
        method,
        payee: payee.as_str(),
        payer: payer.as_str(),
    };
    Digest(hash(SCOPE_CONTEXT, &print(&record)))
}

/// Whether a text says that it is a grant. What it is, says [`GrantRequest::read`].
pub(crate) fn claims(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_str::<Kind>(text).is_ok_and(|said| said.kind == KIND)
}

/// The bounds of a grant in somebody's words: amounts in whole units of whatever asset is asked for.
///
/// As one text: `n=10,total=1.00,until=24h`, and `each=0.10`, `below=https://host/path/`, `body=any` where they are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantAsk {
    pub payments: u32,
    pub each: Option<String>,
    pub total: Option<String>,
    pub lasts: Duration,
    pub below: Option<String>,
    pub any_body: bool,
}

impl GrantAsk {
    /// The same in atoms of `asset`.
    pub fn terms(&self, asset: &Asset) -> Result<GrantTerms, GrantError> {
        let atoms = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match asset.parse(text) {
                Ok(money) => Ok(Some(money.atoms())),
                Err(_) => Err(GrantError::Amount(text.chars().take(64).collect())),
            },
        };
        Ok(GrantTerms {
            payments: self.payments,
            each: atoms(&self.each)?,
            total: atoms(&self.total)?,
            lasts: self.lasts,
            below: self.below.clone(),
            any_body: self.any_body,
        })
    }
}

impl FromStr for GrantAsk {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let no = |word: &str| GrantError::Words(word.chars().take(64).collect());
        let (mut payments, mut lasts, mut any_body) = (None, None, false);
        let (mut each, mut total, mut below) = (None, None, None);
        for word in text.split(',') {
            let (key, value) = word.split_once('=').ok_or_else(|| no(word))?;
            // What is said twice would be read in two ways.
            let fresh = match key {
                "n" => {
                    let n = parse_atoms(value).ok().and_then(|n| u32::try_from(n).ok());
                    payments.replace(n.ok_or_else(|| no(word))?).is_none()
                }
                "until" => lasts.replace(length_of(value).ok_or_else(|| no(word))?).is_none(),
                "each" => each.replace(value.to_owned()).is_none(),
                "total" => total.replace(value.to_owned()).is_none(),
                "below" => below.replace(value.to_owned()).is_none(),
                "body" if value == ANY => !std::mem::replace(&mut any_body, true),
                _ => false,
            };
            if !fresh {
                return Err(no(word));
            }
        }
        Ok(Self {
            payments: payments.ok_or_else(|| no("n"))?,
            each,
            total,
            lasts: lasts.ok_or_else(|| no("until"))?,
            below,
            any_body,
        })
    }
}
