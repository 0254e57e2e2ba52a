//! Freezing from outside of the books' own folder: what a guard does, whoever was found to have the right to ask for it.

use farthing_policy::AgentName;
use farthing_wallet::journal::JournalError;
use farthing_wallet::journal::agents::AgentError;
use farthing_wallet::system_clock;

use crate::guard::Guard;
pub use crate::whom::Whom;
pub(crate) use crate::whom::WhomRecord;

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

    /// From the moment in which this returns an agent has nothing to show any more, also on connections that are open.
    ///
    /// # Errors
    /// [`AgentError::Unknown`] if it had nothing to show before; or if the books cannot be written.
    pub async fn revoke(&self, agent: AgentName) -> Result<(), AgentError> {
        let journal = self.owner().journal().clone();
        let revoked = tokio::task::spawn_blocking(move || journal.revoke_agent(&agent, &system_clock()));
        revoked.await.unwrap_or_else(|_| Err(JournalError::Corrupt("revocation that ended by itself").into()))
    }
}
