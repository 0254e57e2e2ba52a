use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use farthing_primitives::Timestamp;

use crate::{
    ApproverKey, Assertion, Digest, KeyError, Passkey, PasskeyError, PasskeyKey, PublicKey, Question,
};

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

    /// What is signed to say it of one payment, and what a passkey gets as its challenge. A yes for a request is no yes
    /// for any other, nor a no.
    pub fn message(self, digest: &Digest) -> Vec<u8> {
        self.on("farthing approval vote v1", digest)
    }

    /// The same of a grant. Whoever can be brought to sign for one payment has signed for no grant, whatever the digest.
    pub fn message_for_grant(self, digest: &Digest) -> Vec<u8> {
        self.on("farthing grant vote v1", digest)
    }

    fn on(self, context: &str, digest: &Digest) -> Vec<u8> {
        let mut message = format!("{context}\n{}\n", self.name()).into_bytes();
        message.extend_from_slice(&digest.0);
        message
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By what somebody's word is known for theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    Key(PublicKey),
    Passkey(Passkey),
}

impl Credential {
    /// The public key. Whoever has its private half has the voice.
    pub fn key(&self) -> AnyKey {
        match self {
            Self::Key(key) => AnyKey::Key(*key),
            Self::Passkey(passkey) => AnyKey::Passkey(passkey.key),
        }
    }
}

/// A public key of any kind, in the text that it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnyKey {
    Key(PublicKey),
    Passkey(PasskeyKey),
}

impl fmt::Display for AnyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Passkey(key) => key.fmt(f),
        }
    }
}

impl FromStr for AnyKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let passkey = text.parse().map(Self::Passkey);
        passkey.or_else(|_| text.parse().map(Self::Key))
    }
}

/// How somebody's word is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Ed25519, over the word itself.
    Signature(Vec<u8>),
    /// A passkey's, with the word as its challenge.
    Passkey(Assertion),
}

impl Proof {
    pub fn signature(&self) -> &[u8] {
        match self {
            Self::Signature(signature) => signature,
            Self::Passkey(assertion) => &assertion.signature,
        }
    }
}

/// Somebody's signed word on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ballot {
    pub verdict: Verdict,
    pub proof: Proof,
}

/// A word that is somebody's, and in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub verdict: Verdict,
    /// What their passkey counts now, if they have one.
    pub count: Option<u32>,
}

impl Ballot {
    pub fn cast(key: &ApproverKey, request: &impl Question, verdict: Verdict) -> Self {
        let signature = key.sign(&request.message(verdict));
        Self { verdict, proof: Proof::Signature(signature) }
    }

    /// The word of whoever has `credential`, if it is theirs and comes in time.
    pub fn check(
        &self,
        credential: &Credential,
        request: &impl Question,
        now: Timestamp,
    ) -> Result<Heard, VoteError> {
        if now >= request.expires() {
            return Err(VoteError::Expired);
        }
        let message = request.message(self.verdict);
        let count = match (credential, &self.proof) {
            (Credential::Key(key), Proof::Signature(signature)) if key.verifies(&message, signature) => None,
            (Credential::Key(_), Proof::Signature(_)) => return Err(VoteError::Signature),
            (Credential::Passkey(passkey), Proof::Passkey(assertion)) => {
                Some(assertion.check(passkey, &message)?)
            }
            (Credential::Key(_), Proof::Passkey(_)) | (Credential::Passkey(_), Proof::Signature(_)) => {
                return Err(PasskeyError::OtherKind.into());
            }
        };
        Ok(Heard { verdict: self.verdict, count })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoteError {
    #[error("the request has expired")]
    Expired,
    #[error("the signature is not the approver's for this request")]
    Signature,
    #[error(transparent)]
    Passkey(#[from] PasskeyError),
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
            Self::Passkey(error) => error.code(),
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
