//! A price before an MCP server's tools.
//!
//! A call of tool `N` becomes `POST …/tools/N` with its arguments as the body, and goes through the same paywall as any
//! other request: what pays and what is answered travels in headers there, and in `_meta` and errors towards agents.
//! Nothing of the payment's path is built twice.

pub(crate) mod exchange;
mod front;
mod service;
mod upstream;

pub use exchange::{IDEMPOTENCY_KEY_META, MAX_ARGUMENT_BYTES, Unpaid, X402_PAYMENT, X402_RESPONSE};
pub use front::{MAX_CALL_BYTES, MAX_MESSAGE_MEMORY, MESSAGE_WITHIN, Shop, Stall};
pub use service::ToolService;
pub(crate) use upstream::{Ear, Note};
pub use upstream::{Source, Upstream, UpstreamError};

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use tower::util::BoxCloneSyncService;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The paywall over a [`ToolService`]: what answers `POST …/tools/N`.
pub type Paywalled =
    BoxCloneSyncService<Request<Full<Bytes>>, Response<UnsyncBoxBody<Bytes, BoxError>>, Infallible>;

/// The longest name of a tool, in bytes.
pub const MAX_TOOL_NAME_BYTES: usize = 128;

/// Whether a tool's name can be a part of a path as it is: every reader takes it for the same one.
///
/// Spec: MCP, "Tool Names": letters, digits, `_`, `-` and `.`.
pub fn is_tool_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=MAX_TOOL_NAME_BYTES).contains(&name.len())
        && name.bytes().all(good)
        // Neither a step up nor one that stays.
        && name.bytes().any(|byte| byte != b'.')
}

#[cfg(test)]
pub(crate) mod tests;
