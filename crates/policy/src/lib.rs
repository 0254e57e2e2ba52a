//! Whether a machine may make a payment: `decide(rules, history, request, now)` gives a decision with its reasons.
//!
//! Pure: the rules, what was spent, the request and the time all arrive as arguments. Nothing is allowed that no rule
//! allows, and one denial outweighs every permission. All rules are always evaluated, so that a refused owner sees
//! everything that stands in the way, and a permitted one sees the numbers before and after.

mod agent;
pub mod cedar;
mod charge;
mod clock;
mod decide;
mod host;
mod law;
mod mention;
mod meter;
pub mod policy;
mod rules;
mod secrets;

#[cfg(test)]
mod tests;

pub use agent::{AgentName, AgentNameError, MAX_AGENT_LEVEL_LEN, MAX_AGENT_LEVELS};
pub use charge::{Bucket, Charge, ChargeError, DOLLAR_DECIMALS, Dollars};
pub use clock::{Clock, MAX_DRIFT, Mark, Steady};
pub use decide::{Approval, Caller, Decision, Finding, History, Movement, Request, Source, Verdict, decide};
pub use host::{Host, HostError, HostPattern, Origin, OriginError, is_public};
pub use law::Law;
pub use mention::{MAX_NAMED_BY_CHARS, MAX_NAMED_BYTES, MAX_NAMES, Mention, Named, Names, Taint, named_by};
pub use meter::{MAX_MOMENTS, Meters, Sums};
pub use policy::{Asks, Policy, PolicyError, Question, ScreenFault, Screened, Screener, Screening};
pub use rules::{Breaker, Caps, Fact, HostRule, Rules, Window};
pub use secrets::{Secret, secret_in};
