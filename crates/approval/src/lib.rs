//! Payment approval requests: what people are asked, exactly, and whether what came back is their word.
//!
//! A request names who would pay whom for what, and at most how much until when; its digest is what people sign. A grant is
//! such a request for several payments, with a digest of its own kind. Nothing here decides: whether a payment waits for people is a rule of the policy, which is asked again when the approval is used.
//! The format is written down in `docs/reference/approvals.md`.
//!
//! Pure: time and randomness arrive as arguments.

mod asked;
mod grant;
mod keys;
pub mod passkey;
mod request;
mod vote;

#[cfg(test)]
mod grant_tests;
#[cfg(test)]
mod tests;

pub use asked::{Asked, Question};
pub use grant::{
    Body, GrantAsk, GrantError, GrantRequest, GrantTerms, LONGEST_GRANT, MAX_GRANT_PAYMENTS, Place, Uses,
};
pub use keys::{ApproverKey, KeyError, MAX_NAME_LEN, PublicKey, is_name};
pub use passkey::{Assertion, CredentialId, Passkey, PasskeyError, PasskeyKey, Registration, Site};
pub use request::{ApprovalId, ApprovalRequest, Digest, IdError, ReadError, Subject};
pub use vote::{AnyKey, Ballot, Credential, Heard, Proof, Status, Verdict, Vote, VoteError, tally};
