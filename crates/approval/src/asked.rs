use farthing_policy::AgentName;
use farthing_primitives::{Address, AssetId, Timestamp};

use crate::{ApprovalId, ApprovalRequest, Digest, GrantRequest, ReadError, Verdict, grant};

/// Something that people give their word on.
pub trait Question {
    /// What is signed to say `verdict` of it, and what a passkey gets as its challenge.
    fn message(&self, verdict: Verdict) -> Vec<u8>;

    /// A word that comes at or after this does not count.
    fn expires(&self) -> Timestamp;
}

impl Question for ApprovalRequest {
    fn message(&self, verdict: Verdict) -> Vec<u8> {
        verdict.message(&self.digest())
    }

    fn expires(&self) -> Timestamp {
        self.expires
    }
}

impl Question for GrantRequest {
    fn message(&self, verdict: Verdict) -> Vec<u8> {
        verdict.message_for_grant(&self.digest())
    }

    fn expires(&self) -> Timestamp {
        self.expires
    }
}

/// What people are asked: one payment, or a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Payment(ApprovalRequest),
    Grant(GrantRequest),
}

impl From<ApprovalRequest> for Asked {
    fn from(request: ApprovalRequest) -> Self {
        Self::Payment(request)
    }
}

impl From<GrantRequest> for Asked {
    fn from(request: GrantRequest) -> Self {
        Self::Grant(request)
    }
}

impl Question for Asked {
    fn message(&self, verdict: Verdict) -> Vec<u8> {
        match self {
            Self::Payment(request) => request.message(verdict),
            Self::Grant(request) => request.message(verdict),
        }
    }

    fn expires(&self) -> Timestamp {
        match self {
            Self::Payment(request) => request.expires,
            Self::Grant(request) => request.expires,
        }
    }
}

impl Asked {
    /// The text that people are shown and sign.
    pub fn text(&self) -> String {
        match self {
            Self::Payment(request) => request.text(),
            Self::Grant(request) => request.text(),
        }
    }

    /// Reads what [`Asked::text`] prints, and nothing else.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        if grant::claims(text) {
            GrantRequest::read(text).map(Self::Grant)
        } else {
            ApprovalRequest::read(text).map(Self::Payment)
        }
    }

    pub fn digest(&self) -> Digest {
        match self {
            Self::Payment(request) => request.digest(),
            Self::Grant(request) => request.digest(),
        }
    }

    pub fn id(&self) -> ApprovalId {
        match self {
            Self::Payment(request) => ApprovalId::of(&request.digest()),
            Self::Grant(request) => ApprovalId::of_grant(&request.digest()),
        }
    }

    /// The grant, if it is one.
    pub fn grant(&self) -> Option<&GrantRequest> {
        match self {
            Self::Payment(_) => None,
            Self::Grant(request) => Some(request),
        }
    }

    /// The one payment, if it is for no more.
    pub fn payment(&self) -> Option<&ApprovalRequest> {
        match self {
            Self::Payment(request) => Some(request),
            Self::Grant(_) => None,
        }
    }

    /// Who asks; `None` is the wallet's owner.
    pub fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::Payment(request) => request.subject.agent.as_ref(),
            Self::Grant(request) => request.agent.as_ref(),
        }
    }

    pub fn payer(&self) -> &Address {
        match self {
            Self::Payment(request) => &request.subject.payer,
            Self::Grant(request) => &request.payer,
        }
    }

    pub fn payee(&self) -> &Address {
        match self {
            Self::Payment(request) => &request.subject.payee,
            Self::Grant(request) => &request.payee,
        }
    }

    pub fn asset(&self) -> &AssetId {
        match self {
            Self::Payment(request) => &request.subject.asset,
            Self::Grant(request) => &request.asset,
        }
    }

    pub fn method(&self) -> &str {
        match self {
            Self::Payment(request) => &request.subject.method,
            Self::Grant(request) => &request.method,
        }
    }

    /// What is asked for; of a grant for all that is below a URL, that one.
    pub fn url(&self) -> &str {
        match self {
            Self::Payment(request) => &request.subject.url,
            Self::Grant(request) => request.place.url(),
        }
    }

    /// The most that one payment may be, in atoms.
    pub fn max(&self) -> u128 {
        match self {
            Self::Payment(request) => request.max,
            Self::Grant(request) => request.max,
        }
    }

    pub fn expires(&self) -> Timestamp {
        Question::expires(self)
    }
}
