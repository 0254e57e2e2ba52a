//! AP2 v0.2 mandates, checked strictly: who was authorized to buy what, from whom, for how much, and by which chain of
//! signatures; and that it is used once.
//!
//! Nothing here does I/O or asks for the time. Where the documents of AP2 disagree with each other, the tighter reading is
//! taken; `docs/reference/ap2.md` has each of these choices.
//!
//! Spec: AP2 v0.2 (`specification.md`, `agent_authorization.md`, `checkout_mandate.md`, `payment_mandate.md` and the schemas
//! beside them), draft-gco-oauth-delegate-sd-jwt-00 ("the draft"), RFC 9901 (SD-JWT), RFC 7515 (JWS), RFC 7517 (JWK).

mod chain;
mod checkout;
mod constraint;
mod disclose;
mod flow;
mod jose;
mod mandate;
mod payment;
mod refusal;
mod replay;

#[cfg(test)]
mod tests;

pub use chain::{Expect, Family, MandateId, Root, Trust, family_of};
pub use checkout::{CheckoutMandate, Line, MerchantKey, verify_checkout};
pub use constraint::Used;
pub use jose::{KeyError, PublicKey};
pub use mandate::{Amount, Instrument, Merchant, Pisp};
pub use payment::{Link, PaymentMandate, verify_payment};
pub use refusal::{Refusal, Refused};
pub use replay::{
    Authorized, Frequency, History, Memory, OpenUse, PastUse, Recurrence, Reservation, ReserveError, Seen,
    Unreserved,
};

use std::time::Duration;

/// The longest chain, with its disclosures, in bytes. A checkout's merchant-signed JWT is in it, in base64 twice.
pub const MAX_CHAIN_BYTES: usize = 256 * 1024;
/// The most signatures in a chain: a credential, and what it delegates to, step by step.
pub const MAX_HOPS: usize = 8;
/// The most disclosures of one hop.
pub const MAX_DISCLOSURES: usize = 256;
/// How deep a mandate may nest with its disclosures in place.
pub const MAX_DEPTH: usize = 16;
/// The most elements of one `delegate_payload`; one of them is shown.
pub const MAX_DELEGATES: usize = 8;
/// The most constraints of one open mandate.
pub const MAX_CONSTRAINTS: usize = 32;
/// The most requirements of one `checkout.line_items`.
pub const MAX_REQUIREMENTS: usize = 64;
/// The most lines of a checkout.
pub const MAX_LINES: usize = 256;
/// The longest text of a member that we read, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;
/// The most times that one open mandate is used. What came before is added up each time.
pub const MAX_USES: usize = 4096;

/// How far a signer's clock may be from ours. AP2 names no tolerance; its own code allows five minutes, and a mandate that
/// counts five minutes after its end is a mandate too many.
pub const SKEW: Duration = Duration::from_secs(60);
/// How old the signature of a closed mandate may be, if the caller says nothing else. It answers a nonce, so it is young.
pub const MAX_AGE: Duration = Duration::from_secs(3600);
