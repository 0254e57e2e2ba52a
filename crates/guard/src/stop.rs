//! Freezing from outside of the books' own folder: what a guard does, whoever was found to have the right to ask for it.

use farthing_policy::AgentName;
use farthing_wallet::journal::JournalError;
use farthing_wallet::system_clock;
use serde::{Deserialize, Serialize};

use crate::guard::Guard;

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

impl Guard {
    /// From the moment in which this returns nothing new is signed for whom it is about.
    ///
    /// # Errors
    /// If the books cannot be written.
    pub async fn freeze(&self, whom: Whom) -> Result<(), JournalError> {
        let journal = self.owner().journal().clone();
        let frozen = tokio::task::spawn_blocking(move || match whom {
            Whom::Agent(name) => journal.freeze_agent(&name, &system_clock()),
            Whom::All => journal
                .change_rules(|rules| {
                    rules.frozen = true;
                    Ok(())
                })
                .map(drop),
        });
        frozen.await.unwrap_or(Err(JournalError::Corrupt("freeze that ended by itself")))
    }
}
