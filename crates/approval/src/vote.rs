use std::collections::BTreeSet;
use std::fmt;

use farthing_primitives::Timestamp;

use crate::{ApprovalRequest, ApproverKey, Digest, PublicKey};

/// What somebody says. There is no third word: silence is no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Approve,
    Deny,
}

impl Verdict {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Approve, Self::Deny].into_iter().find(|verdict| verdict.name() == text)
    }

    /// What is signed to say it. A yes for a request is no yes for any other, nor a no.
    fn message(self, digest: &Digest) -> Vec<u8> {
        let mut message = format!("farthing approval vote v1\n{}\n", self.name()).into_bytes();
        message.extend_from_slice(&digest.0);
        message
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Somebody's signed word on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ballot {
    pub verdict: Verdict,
    pub signature: Vec<u8>,
}

impl Ballot {
    pub fn cast(key: &ApproverKey, request: &ApprovalRequest, verdict: Verdict) -> Self {
        Self { verdict, signature: key.sign(&verdict.message(&request.digest())) }
    }

    /// The word of whoever has `key`, if it is theirs and comes in time.
    pub fn check(
        &self,
        key: &PublicKey,
        request: &ApprovalRequest,
        now: Timestamp,
    ) -> Result<Verdict, VoteError> {
        if now >= request.expires {
            return Err(VoteError::Expired);
        }
        if !key.verifies(&self.verdict.message(&request.digest()), &self.signature) {
            return Err(VoteError::Signature);
        }
        Ok(self.verdict)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoteError {
    #[error("the request has expired")]
    Expired,
    #[error("the signature is not the approver's for this request")]
    Signature,
    #[error("whoever asks does not approve")]
    OwnRequest,
    #[error("there is no approver of that name")]
    UnknownApprover,
    #[error("it is decided already")]
    Decided,
}

impl VoteError {
    /// A stable name for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Expired => "approval_expired",
            Self::Signature => "approval_bad_signature",
            Self::OwnRequest => "approval_by_proposer",
            Self::UnknownApprover => "approver_unknown",
            Self::Decided => "approval_decided",
        }
    }
}

/// A checked word, by the name of who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    pub approver: String,
    pub verdict: Verdict,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending { voices: u32, quorum: u32 },
    Approved { voices: u32 },
    Denied,
    Expired,
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Approved { .. } => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

/// One no is a no. Each approver counts once, however often they speak.
pub fn tally(votes: &[Vote], quorum: u32, expires: Timestamp, now: Timestamp) -> Status {
    if votes.iter().any(|vote| vote.verdict == Verdict::Deny) {
        return Status::Denied;
    }
    if now >= expires {
        return Status::Expired;
    }
    let names: BTreeSet<&str> = votes.iter().map(|vote| vote.approver.as_str()).collect();
    let voices = u32::try_from(names.len()).unwrap_or(u32::MAX);
    // Nobody at all is no quorum, whatever is asked for.
    if voices >= quorum.max(1) { Status::Approved { voices } } else { Status::Pending { voices, quorum } }
}
