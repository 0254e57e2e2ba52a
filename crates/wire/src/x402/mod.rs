//! x402, versions 1 and 2: challenges, payments, receipts and the facilitator's messages.
//!
//! Spec: x402 v1 and v2, their HTTP transports, and the `exact` scheme on EVM. Amounts and times are strings of plain
//! decimal digits on this wire, as every published package writes them; JSON numbers in their place are refused.

mod address;
mod error;
pub mod error_code;
pub mod exact_evm;
pub mod extensions;
pub mod extra;
pub mod facilitator;
pub(crate) mod fields;
pub mod header;
mod matching;
mod settlement;
pub mod v1;
pub mod v2;

#[cfg(test)]
mod tests;

pub use address::WireAddress;
pub use error::WireError;
pub use error_code::ErrorCode;
pub use extensions::Extensions;
pub use matching::{Mismatch, requirements_match};
pub use settlement::SettlementResponse;

use crate::json::{self, Json, Limits};

/// A message that peers exchange, in a header or in a body.
pub trait Message: Sized {
    /// What a header that carries this message may cost to read.
    const HEADER_LIMITS: Limits = header::ANSWER_LIMITS;

    /// Reads the message out of its JSON. Unknown members are tolerated, and `null` reads as absent.
    fn from_json(json: Json) -> Result<Self, WireError>;

    fn to_json(&self) -> Json;

    /// Reads a body.
    fn parse(body: &[u8]) -> Result<Self, WireError> {
        Self::from_json(json::parse(body, header::BODY_LIMITS)?)
    }

    /// Prints a body.
    fn print(&self) -> String {
        self.to_json().to_string()
    }

    /// Reads the value of a header: base64 of a JSON text.
    fn from_header(value: &[u8]) -> Result<Self, WireError> {
        Self::from_json(header::decode(value, Self::HEADER_LIMITS)?)
    }

    /// Prints the value of a header.
    fn to_header(&self) -> String {
        header::encode(&self.to_json())
    }
}
