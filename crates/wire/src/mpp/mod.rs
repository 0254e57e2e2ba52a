//! MPP, the HTTP `Payment` scheme: challenges, credentials, receipts and problems, and the same over JSON-RPC, MCP,
//! server-sent events and WebSocket.
//!
//! Spec: draft-httpauth-payment-00, draft-payment-intent-charge-00, draft-evm-charge-00, draft-evm-session-00,
//! draft-payment-transport-mcp-00. Where the published package mppx differs from a draft, we write what it writes and
//! read both. Whoever is no part of the wire (the chain, the clock, the store) is absent here: a challenge that is
//! bound to its id says nothing yet about the route it is shown on.

mod accept;
mod auth;
mod challenge;
mod coexist;
mod credential;
mod digest;
pub mod encoding;
mod error;
pub mod evm;
mod idempotency;
mod intent;
pub mod jcs;
mod name;
mod problem;
mod receipt;
pub mod rpc;
mod secret;
mod source;
pub mod sse;
pub mod status;
pub mod stripe;
pub mod tempo;
mod terms;
mod time;
pub mod ws;

#[cfg(test)]
mod tests;

pub use accept::{AcceptPayment, MAX_RANGES, Range};
pub use challenge::{Challenge, Challenges, EncodedRequest, MAX_CHALLENGES};
pub use coexist::PaymentRequiredBody;
pub use credential::Credential;
pub use digest::BodyDigest;
pub use error::MppError;
pub use idempotency::{IdempotencyKey, MAX_IDEMPOTENCY_KEY_BYTES};
pub use intent::{ChargeRequest, PeriodUnit, SessionRequest, SubscriptionRequest};
pub use name::{IntentName, MAX_NAME_BYTES, MethodName};
pub use problem::{Problem, ProblemType};
pub use receipt::{Receipt, SessionReceipt};
pub use secret::{
    ChallengeSecret, ChallengeSecrets, IssuedUnder, MAX_PREVIOUS_SECRETS, MIN_SECRET_BYTES, NotOurs,
    SecretError,
};
pub use source::Source;
pub use terms::{Payload, Terms};
pub use time::WireTime;

/// The names of the headers, in lower case.
pub mod header {
    /// Server to client, with 402: the challenges.
    pub const WWW_AUTHENTICATE: &str = "www-authenticate";
    /// Client to server: the credential, unless the challenge names another field.
    pub const AUTHORIZATION: &str = "authorization";
    /// Client to server: where a challenge sends the credential if `Authorization` is needed for something else.
    pub const PAYMENT_AUTHORIZATION: &str = "payment-authorization";
    /// Server to client, with 2xx alone: the receipt.
    pub const PAYMENT_RECEIPT: &str = "payment-receipt";
    /// Client to server: what it can pay.
    pub const ACCEPT_PAYMENT: &str = "accept-payment";
    /// Client to server: the channel of a running session (mppx).
    pub const PAYMENT_SESSION: &str = "payment-session";
    /// Server to client: the state of that channel (mppx).
    pub const PAYMENT_SESSION_SNAPSHOT: &str = "payment-session-snapshot";
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

    /// How a challenge writes [`PAYMENT_AUTHORIZATION`]. The spelling is bound by the id.
    pub const PAYMENT_AUTHORIZATION_FIELD: &str = "Payment-Authorization";
}

/// The name of the authentication scheme. Read in any case, written in this one.
pub const SCHEME: &str = "Payment";

use crate::json::Limits;

/// The longest `WWW-Authenticate` that we read, all lines together, in bytes.
pub const MAX_CHALLENGE_HEADER_BYTES: usize = 64 * 1024;
/// The longest `request` and `opaque` of a challenge, in bytes of base64url: the published package's limit.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// The longest header that carries a credential, in bytes: the limit of the published Rust package.
pub const MAX_CREDENTIAL_BYTES: usize = 64 * 1024;
/// The longest receipt header that we read, in bytes.
pub const MAX_RECEIPT_BYTES: usize = 16 * 1024;
/// The longest body of a problem or JSON-RPC error that we read, in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// What reading a `request` or `opaque` may cost.
pub const REQUEST_LIMITS: Limits = Limits { bytes: MAX_REQUEST_BYTES, values: 1024, members: 64 };
/// What reading a credential may cost.
pub const CREDENTIAL_LIMITS: Limits = Limits { bytes: MAX_CREDENTIAL_BYTES, values: 2048, members: 64 };
/// What reading a receipt may cost.
pub const RECEIPT_LIMITS: Limits = Limits { bytes: MAX_RECEIPT_BYTES, values: 1024, members: 64 };
/// What reading a body may cost.
pub const BODY_LIMITS: Limits = Limits { bytes: MAX_BODY_BYTES, values: 16_384, members: 256 };
