//! A policy that was read. Nothing in here is undecided: every default is filled in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::GLOBAL;
use crate::decimal::Decimal;
use crate::tally::{Key, Unit, Window};

/// What becomes of a tool that no entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posture {
    Allow,
    Deny,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub description: Option<String>,
    pub default: Posture,
    /// Every tool is hidden: `hide: ["*"]`.
    pub hide_all: bool,
    pub hide: BTreeSet<String>,
    /// By the tool's name.
    pub tools: BTreeMap<String, Vec<Rule>>,
    /// The rules of `"*"`, for every tool.
    pub all: Vec<Rule>,
    /// The definitions that the owner accepted, by the tool's name: SHA-256.
    pub pins: BTreeMap<String, [u8; 32]>,
}

impl Policy {
    /// The rules for a tool with the scope of their counters: its own, then those for every tool.
    pub fn rules<'p>(&'p self, tool: &'p str) -> impl Iterator<Item = (&'p str, &'p Rule)> {
        let own = self.tools.get(tool).into_iter().flatten().map(move |rule| (tool, rule));
        own.chain(self.all.iter().map(|rule| (GLOBAL, rule)))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub name: String,
    pub action: Action,
    /// What the agent is told, in the owner's words.
    pub on_deny: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Deny,
    /// All conditions must hold.
    Evaluate {
        conditions: Vec<Condition>,
        count: Option<Box<Count>>,
        spend: Option<Box<Spend>>,
    },
    /// Where all conditions hold, or cannot be told, somebody must agree first.
    Approve {
        conditions: Vec<Condition>,
        timeout: Option<Duration>,
    },
}

impl Rule {
    pub fn conditions(&self) -> &[Condition] {
        match &self.action {
            Action::Deny => &[],
            Action::Evaluate { conditions, .. } | Action::Approve { conditions, .. } => conditions,
        }
    }

    pub fn count(&self) -> Option<&Count> {
        if let Action::Evaluate { count, .. } = &self.action { count.as_deref() } else { None }
    }

    pub fn spend(&self) -> Option<&Spend> {
        if let Action::Evaluate { spend, .. } = &self.action { spend.as_deref() } else { None }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub path: Path,
    pub test: Test,
}

/// Where the value is that a condition is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// In the arguments, one level after the other.
    Args(Vec<String>),
    State(Key),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    Eq(Scalar),
    Neq(Scalar),
    In(Vec<Scalar>),
    NotIn(Vec<Scalar>),
    Lt(Decimal),
    Lte(Decimal),
    Gt(Decimal),
    Gte(Decimal),
    Regex(Pattern),
    Contains(Scalar),
    Exists(bool),
}

/// A value that a policy compares with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Bool(bool),
    Number(Decimal),
    Text(String),
}

/// A regular expression. Matching takes time linear in the text.
#[derive(Debug, Clone)]
pub struct Pattern(pub(crate) regex::Regex);

impl Pattern {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// A counter that a rule adds to.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    pub key: Key,
    pub increment: Increment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Increment {
    Fixed(u128),
    /// What an argument says.
    From(Vec<String>),
}

/// What a tool may cost, in dollars of 10^18 units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    pub per_call: Option<u128>,
    pub daily: Option<u128>,
    /// Counts what was spent in the day, in the same units; one for all rules of a scope.
    pub key: Key,
}

impl Spend {
    /// How many decimal digits of a dollar are counted.
    pub const DECIMALS: u8 = 18;

    pub(crate) fn key(scope: &str) -> Key {
        Key { scope: scope.to_owned(), counter: "_spend".to_owned(), window: Window::Calendar(Unit::Day) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Args(path) => write!(f, "args.{}", path.join(".")),
            Self::State(key) => write!(f, "state.{}.{}", key.scope, key.counter),
        }
    }
}
