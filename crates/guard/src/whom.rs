//! Who is to be stopped, and how that is written.

use farthing_policy::AgentName;
use serde::{Deserialize, Serialize};

/// Who is to be stopped. Nothing here loosens anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// An agent, and all that are part of it.
    Agent(AgentName),
    /// The whole wallet.
    All,
}

/// The same, as it is written: one member of the two.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhomRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

impl WhomRecord {
    pub fn of(whom: &Whom) -> Self {
        match whom {
            Whom::Agent(name) => Self { agent: Some(name.to_string()), all: None },
            Whom::All => Self { agent: None, all: Some(true) },
        }
    }

    pub fn read(&self) -> Option<Whom> {
        match (&self.agent, self.all) {
            (Some(name), None) => name.parse().ok().map(Whom::Agent),
            (None, Some(true)) => Some(Whom::All),
            _ => None,
        }
    }
}
