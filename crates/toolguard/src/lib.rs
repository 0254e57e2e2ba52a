//! Which calls of an MCP server's tools an owner's policy lets through.
//!
//! The policy is the YAML of PolicyLayer's Intercept, with the same meaning except where that lets through what nobody
//! allowed; `docs/reference/mcp-policy.md` has the differences one by one. This crate only decides: it takes the clock
//! and the counters as arguments, so that whoever keeps them makes one atomic step of reading, deciding and counting.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod compare;
mod decide;
mod decimal;
mod looser;
mod node;
mod policy;
mod read;
mod scaffold;
mod tally;

pub use decide::{
    Call, Decision, Reason, Reservation, Taken, decide, decide_spend, is_hidden, keys_of, never_permits,
};
pub use decimal::{Decimal, MAX_DIGITS};
pub use looser::{Loosening, loosened};
pub use policy::{
    Action, Condition, Count, Increment, Path, Pattern, Policy, Posture, Rule, Scalar, Spend, Test,
};
pub use read::{Finding, MAX_POLICY_BYTES, MAX_RULES, MAX_TOOLS, Read, read};
pub use scaffold::{Effect, Listed, scaffold};
pub use tally::{Key, MAX_ROLLING, MIN_ROLLING, Tally, Unit, Window};

/// The scope of counters of rules for all tools.
pub const GLOBAL: &str = "_global";
/// The longest name of a tool or a counter, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Whether every reader takes a tool's name for the same one.
///
/// Spec: MCP, "Tool Names": letters, digits, `_`, `-` and `.`.
pub fn is_tool_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(good) && name != GLOBAL
}

#[cfg(test)]
mod tests;
