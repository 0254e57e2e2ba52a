//! Messages between bytes and types: the only code that reads or prints what peers say.
//!
//! Knows no chain, no clock and no socket. Everything that arrives is bounded before it is built: bytes, nesting,
//! members and values. Two keys of one name are refused, because two readers could see two payments in them.
//!
//! JSON is read by [`json`] rather than through a general-purpose library: what peers echo is compared with what
//! we sent, so the order of keys, the text of numbers and the refusal of duplicates must not depend on which
//! features some other crate of the build switches on.

pub mod json;
pub mod mpp;
mod uint256;
pub mod webhook;
pub mod x402;

pub use json::{Json, JsonError, Limits, Number, Object};
pub use uint256::{Uint256, Uint256Error};
