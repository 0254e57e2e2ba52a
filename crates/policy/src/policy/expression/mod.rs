//! What a rule asks where its lists are not enough: `when: amount > usd("0.05") && !(host in ["a.example"])`.
//!
//! The language is a part of CEL (the Common Expression Language, cel-spec `doc/langdef.md`) whose types are all known when a
//! file is read: what compares a name with a number is refused there, and so is whatever is not one of the facts below.
//! What is left to fail when a payment is decided about is arithmetic, and whatever fails denies. `docs/decisions/0012` says
//! why it is not a crate.
//!
//! Stricter than CEL in one thing: `&&` and `||` are read from the left, so that an error is not covered up by what stands
//! to the right of it.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use farthing_primitives::Timestamp;

use super::Weekday;
use super::rule::is_plain;
use crate::{Bucket, Request};

pub use parse::ExpressionError;

/// The longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 1024;
/// How deep brackets and signs may be nested.
pub const MAX_EXPRESSION_DEPTH: usize = 32;
/// How many parts an expression may have. There are no loops, so this bounds what a decision costs, too.
pub const MAX_EXPRESSION_PARTS: usize = 256;

/// An expression that was read and whose types fit.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    root: Arc<Bool>,
    names_amount: bool,
}

/// Two are the same if their texts are.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// Why an expression has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the amount is more atoms than 63 bits count")]
    AmountTooLarge,
    #[error("a sum is more than 64 bits count")]
    Overflow,
    #[error("it divides by zero")]
    DivisionByZero,
    #[error("the asset is no dollar, and usd() is of dollars")]
    NotDollars,
    #[error("the dollars of usd() are no whole number of the asset's atoms")]
    NotWhole,
    #[error("the path can be read in two ways")]
    PathInDisguise,
}

/// A part that is true or false.
#[derive(Debug)]
enum Bool {
    Is(bool),
    /// The asset is a dollar by our registry.
    Dollar,
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Same(Box<Self>, Box<Self>),
    Number(Box<Number>, Order, Box<Number>),
    NumberIn(Box<Number>, Vec<Number>),
    Text(Text, Match, Text),
    TextIn(Text, Vec<Text>),
}

/// A part that is a number of 64 bits.
#[derive(Debug)]
enum Number {
    Is(i64),
    Amount,
    Hour,
    Minute,
    Port,
    /// So many dollars, in units of 10^-18, as atoms of whatever asset is asked for.
    Usd(u128),
    Minus(Box<Self>),
    Arithmetic(Box<Self>, Operation, Box<Self>),
}

/// A part that is a text.
#[derive(Debug)]
enum Text {
    Is(String),
    Of(TextFact),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextFact {
    Host,
    Path,
    Method,
    Scheme,
    Network,
    Asset,
    Payee,
    Agent,
    Tool,
    Weekday,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Less,
    AtMost,
    Same,
    Other,
    AtLeast,
    More,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Plus,
    Minus,
    Times,
    Over,
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Same,
    Other,
    Begins,
    Ends,
    Contains,
}

/// What an expression is asked about.
#[derive(Clone, Copy)]
struct Facts<'a> {
    request: &'a Request,
    now: Timestamp,
}

impl Expression {
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether what it says depends on how much is paid.
    pub fn names_amount(&self) -> bool {
        self.names_amount
    }

    /// Whether it is true of a payment.
    ///
    /// # Errors
    /// [`Unfit`] if it has no value. Whoever asks has to deny then.
    pub fn holds(&self, request: &Request, now: Timestamp) -> Result<bool, Unfit> {
        self.root.value(Facts { request, now })
    }
}

impl Bool {
    fn value(&self, facts: Facts<'_>) -> Result<bool, Unfit> {
        Ok(match self {
            Self::Is(value) => *value,
            Self::Dollar => facts.request.charge.dollars().is_some(),
            Self::Not(inner) => !inner.value(facts)?,
            Self::And(a, b) => a.value(facts)? && b.value(facts)?,
            Self::Or(a, b) => a.value(facts)? || b.value(facts)?,
            Self::Same(a, b) => a.value(facts)? == b.value(facts)?,
            Self::Number(a, order, b) => order.fits(a.value(facts)?, b.value(facts)?),
            Self::NumberIn(one, all) => {
                let one = one.value(facts)?;
                // All of them, so that whether one has no value does not depend on their order.
                let all: Vec<i64> = all.iter().map(|each| each.value(facts)).collect::<Result<_, _>>()?;
                all.contains(&one)
            }
            Self::Text(a, how, b) => a.with(facts, |a| b.with(facts, |b| how.fits(a, b)))??,
            Self::TextIn(one, all) => one.with(facts, |one| {
                all.iter().try_fold(false, |found, each| Ok(found | each.with(facts, |each| each == one)?))
            })??,
        })
    }
}

impl Order {
    fn fits(self, a: i64, b: i64) -> bool {
        match self {
            Self::Less => a < b,
            Self::AtMost => a <= b,
            Self::Same => a == b,
            Self::Other => a != b,
            Self::AtLeast => a >= b,
            Self::More => a > b,
        }
    }
}

impl Match {
    fn fits(self, a: &str, b: &str) -> bool {
        match self {
            Self::Same => a == b,
            Self::Other => a != b,
            Self::Begins => a.starts_with(b),
            Self::Ends => a.ends_with(b),
            Self::Contains => a.contains(b),
        }
    }
}

impl Number {
    fn value(&self, facts: Facts<'_>) -> Result<i64, Unfit> {
        let charge = &facts.request.charge;
        let minutes = || facts.now.millis() / 60_000;
        let small = |n: u64| i64::try_from(n).map_err(|_| Unfit::Overflow);
        match self {
            Self::Is(value) => Ok(*value),
            Self::Amount => i64::try_from(charge.money().atoms()).map_err(|_| Unfit::AmountTooLarge),
            Self::Hour => small(minutes() / 60 % 24),
            Self::Minute => small(minutes() % 60),
            Self::Port => Ok(facts.request.origin.port.into()),
            Self::Usd(dollars) => {
                // Not every asset has dollars, and not every asset has atoms as small as what was written.
                charge.amount_in(&Bucket::Dollar).ok_or(Unfit::NotDollars)?;
                let atoms = charge.atoms_of_dollars(crate::Dollars(*dollars)).ok_or(Unfit::NotWhole)?;
                i64::try_from(atoms).map_err(|_| Unfit::Overflow)
            }
            Self::Minus(inner) => inner.value(facts)?.checked_neg().ok_or(Unfit::Overflow),
            Self::Arithmetic(a, operation, b) => {
                let (a, b) = (a.value(facts)?, b.value(facts)?);
                let done = match operation {
                    Operation::Plus => a.checked_add(b),
                    Operation::Minus => a.checked_sub(b),
                    Operation::Times => a.checked_mul(b),
                    Operation::Over | Operation::Rest if b == 0 => return Err(Unfit::DivisionByZero),
                    Operation::Over => a.checked_div(b),
                    Operation::Rest => a.checked_rem(b),
                };
                done.ok_or(Unfit::Overflow)
            }
        }
    }
}

impl Text {
    /// Calls `work` with the text, which is not copied where it lies there already.
    fn with<T>(&self, facts: Facts<'_>, work: impl FnOnce(&str) -> T) -> Result<T, Unfit> {
        let Request { charge, payee, origin, scheme, caller, .. } = facts.request;
        let asset = charge.money().asset();
        Ok(match self {
            Self::Is(text) => work(text),
            Self::Of(TextFact::Host) => work(origin.host.as_str()),
            // Who serves it may read it as another.
            Self::Of(TextFact::Path) if !is_plain(&caller.path) => return Err(Unfit::PathInDisguise),
            Self::Of(TextFact::Path) => work(&caller.path),
            Self::Of(TextFact::Method) => work(&caller.method),
            Self::Of(TextFact::Scheme) => work(scheme),
            Self::Of(TextFact::Network) => work(asset.network().as_str()),
            Self::Of(TextFact::Asset) => work(&asset.to_string()),
            Self::Of(TextFact::Payee) => work(payee.as_str()),
            Self::Of(TextFact::Agent) => work(caller.agent.as_ref().map_or("", |agent| agent.as_str())),
            Self::Of(TextFact::Tool) => work(caller.tool.as_deref().unwrap_or_default()),
            Self::Of(TextFact::Weekday) => work(Weekday::of(facts.now).name()),
        })
    }
}
