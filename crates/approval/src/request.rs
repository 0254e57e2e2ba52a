use std::fmt;
use std::str::FromStr;

use farthing_policy::AgentName;
use farthing_primitives::{Address, AssetId, Timestamp, parse_atoms};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What the digest begins with, so that no signature for anything else is one of these.
const CONTEXT: &[u8] = b"farthing payment approval v1\n";
/// The same for what is to be paid, without how much and until when.
const SUBJECT_CONTEXT: &[u8] = b"farthing payment approval subject v1\n";

/// What is to be paid for, and to whom. Two payments of one subject differ in amount and time alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `None` is the wallet's owner.
    pub agent: Option<AgentName>,
    pub payer: Address,
    pub method: String,
    /// What is really asked, not what the seller calls it; in its canonical form, which is ASCII.
    pub url: String,
    /// The SHA-256 of the request's body.
    pub body: [u8; 32],
    pub payee: Address,
    /// Names the network, too.
    pub asset: AssetId,
}

/// A question to people: may this be paid, at most so much, until then?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRequest {
    pub subject: Subject,
    /// In atoms of the asset.
    pub max: u128,
    /// An approval is used before this, or not at all.
    pub expires: Timestamp,
}

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
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
    #[serde(rename = "type")]
    kind: String,
    url: String,
}

#[derive(Serialize)]
struct SubjectRecord<'a> {
    agent: Option<&'a str>,
    asset: String,
    body_sha256: String,
    method: &'a str,
    payee: &'a str,
    payer: &'a str,
    url: &'a str,
}

const KIND: &str = "farthing.payment-approval.v1";

/// Why a text is no approval request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("not a payment approval request: {0}")]
    Malformed(String),
    #[error("a payment approval request of another kind: {0:?}")]
    Kind(String),
    #[error("not the canonical form of a payment approval request")]
    NotCanonical,
}

impl Subject {
    /// Finds the approvals that may fit a payment.
    pub fn key(&self) -> Digest {
        let record = SubjectRecord {
            agent: self.agent.as_ref().map(AgentName::as_str),
            asset: self.asset.to_string(),
            body_sha256: hex::encode(self.body),
            method: &self.method,
            payee: self.payee.as_str(),
            payer: self.payer.as_str(),
            url: &self.url,
        };
        Digest(hash(SUBJECT_CONTEXT, &print(&record)))
    }
}

impl ApprovalRequest {
    /// The text that people are shown and sign: one JSON object in its canonical form (RFC 8785).
    pub fn text(&self) -> String {
        let Subject { agent, payer, method, url, body, payee, asset } = &self.subject;
        print(&Record {
            agent: agent.as_ref().map(ToString::to_string),
            asset: asset.to_string(),
            body_sha256: hex::encode(body),
            expires_ms: self.expires.millis().to_string(),
            max_atoms: self.max.to_string(),
            method: method.clone(),
            payee: payee.to_string(),
            payer: payer.to_string(),
            kind: KIND.to_owned(),
            url: url.clone(),
        })
    }

    /// Reads what [`ApprovalRequest::text`] prints, and nothing else.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        let record: Record =
            serde_json::from_str(text).map_err(|error| ReadError::Malformed(error.to_string()))?;
        if record.kind != KIND {
            return Err(ReadError::Kind(record.kind));
        }
        let body = read_body(&record.body_sha256)?;
        let Record { agent, asset, expires_ms, max_atoms, payee, payer, method, url, .. } = record;
        let Bounds { agent, payer, payee, asset, max, expires } =
            Bounds::read(&Written { agent, asset, expires_ms, max_atoms, payee, payer })?;
        let read = Self { subject: Subject { agent, payer, method, url, body, payee, asset }, max, expires };
        // What is signed is bytes: a second spelling of one request would have a second digest.
        if read.text() == text { Ok(read) } else { Err(ReadError::NotCanonical) }
    }

    /// What is signed, and what a passkey gets as its challenge.
    pub fn digest(&self) -> Digest {
        Digest(hash(CONTEXT, &self.text()))
    }

    /// Whether an approval of this lets `subject` be paid so much at `now`.
    pub fn covers(&self, subject: &Subject, atoms: u128, now: Timestamp) -> bool {
        self.subject == *subject && atoms <= self.max && now < self.expires
    }
}

/// What a request and a grant both say, as both write it.
pub(crate) struct Written {
    pub agent: Option<String>,
    pub asset: String,
    pub expires_ms: String,
    pub max_atoms: String,
    pub payee: String,
    pub payer: String,
}

/// The same, as it is meant.
pub(crate) struct Bounds {
    pub agent: Option<AgentName>,
    pub payer: Address,
    pub payee: Address,
    pub asset: AssetId,
    pub max: u128,
    pub expires: Timestamp,
}

impl Bounds {
    pub fn read(written: &Written) -> Result<Self, ReadError> {
        let asset: AssetId = written.asset.parse().map_err(|_| malformed("asset"))?;
        let address = |text: &str, what| Address::parse(asset.network(), text).map_err(|_| malformed(what));
        let agent = written.agent.as_ref().map(|name| name.parse()).transpose();
        let expires = u64::try_from(read_number(&written.expires_ms, "expires_ms")?);
        Ok(Self {
            agent: agent.map_err(|_| malformed("agent"))?,
            payer: address(&written.payer, "payer")?,
            payee: address(&written.payee, "payee")?,
            max: read_number(&written.max_atoms, "max_atoms")?,
            expires: Timestamp::from_millis(expires.map_err(|_| malformed("expires_ms"))?),
            asset,
        })
    }
}

pub(crate) fn malformed(what: &str) -> ReadError {
    ReadError::Malformed(what.to_owned())
}

pub(crate) fn read_number(text: &str, what: &str) -> Result<u128, ReadError> {
    parse_atoms(text).map_err(|_| malformed(what))
}

pub(crate) fn read_body(text: &str) -> Result<[u8; 32], ReadError> {
    let mut body = [0; 32];
    hex::decode_to_slice(text, &mut body).map_err(|_| malformed("body_sha256"))?;
    Ok(body)
}

pub(crate) fn print<T: Serialize>(record: &T) -> String {
    // INVARIANT: a struct of texts always serializes; were it not so, the digest would be that of nothing, which nobody
    // signs.
    serde_json::to_string(record).unwrap_or_default()
}

pub(crate) fn hash(context: &[u8], text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(context);
    hash.update(text.as_bytes());
    hash.finalize().into()
}

/// Names a request among those of one wallet: `apr_`, or `grt_` if it is for a grant, and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApprovalId {
    grant: bool,
    id: [u8; 16],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an approval is named \"apr_\", or \"grt_\" if it is a grant, and 32 hexadecimal digits")]
pub struct IdError;

const PAYMENT: &str = "apr_";
const GRANT: &str = "grt_";

impl ApprovalId {
    /// The first 16 bytes of the digest: one request has one name, wherever it is shown.
    pub fn of(digest: &Digest) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        Self { grant: false, id }
    }

    /// The same for a grant's digest. Whoever reads the name sees which of the two it is.
    pub fn of_grant(digest: &Digest) -> Self {
        Self { grant: true, ..Self::of(digest) }
    }

    /// Whether it names a grant.
    pub const fn is_grant(&self) -> bool {
        self.grant
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.grant { GRANT } else { PAYMENT };
        write!(f, "{prefix}{}", hex::encode(self.id))
    }
}

impl FromStr for ApprovalId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let grant = text.starts_with(GRANT);
        let digits = text.strip_prefix(if grant { GRANT } else { PAYMENT }).ok_or(IdError)?;
        let mut id = [0; 16];
        hex::decode_to_slice(digits, &mut id).map_err(|_| IdError)?;
        let id = Self { grant, id };
        if id.to_string() == text { Ok(id) } else { Err(IdError) }
    }
}
