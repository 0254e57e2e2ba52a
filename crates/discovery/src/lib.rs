//! Discovery, both ways. A seller's documents are made from a plain description of its routes ([`Service`]), merged over
//! what the service behind says of itself; a buyer reads those of strangers within bounds ([`read`]) and ranks what it
//! finds ([`rank`]).
//!
//! All of it is advisory: what a request costs is said by its own 402, and by nothing else.
//!
//! Spec: draft-payment-discovery-00.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod describe;
mod documents;
pub mod rank;
pub mod read;
mod template;
mod text;

#[cfg(test)]
mod tests;

pub use describe::{Dialect, Docs, Route, Service, Tool, Tools, Way};
pub use documents::{
    Described, DescribedError, Documents, LLMS_PATH, MAX_DESCRIBED_BYTES, OPENAPI_PATH, WELL_KNOWN_PATH,
};
pub use template::{Template, TemplateError};
pub use text::{clean, words};
