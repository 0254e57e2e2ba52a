//! Attempts that are refused before the rules are asked are in the audit log too.

use crate::authorizer::{Denied, Intent, LocalAuthorizer};
use crate::journal::JournalError;
use crate::journal::audit::Refused;

impl LocalAuthorizer {
    /// Hands on what came of an attempt, and writes down its refusal if the journal has not done that itself.
    pub(crate) fn noting<T>(&self, intent: &Intent, done: Result<T, Denied>) -> Result<T, Denied> {
        done.inspect_err(|denied| {
            let is_written = match denied {
                // The journal wrote down what it decided. One that cannot be used writes nothing down.
                Denied::Policy(_) | Denied::Unavailable => true,
                // It is not decided yet.
                Denied::Unscreened(_) => true,
                Denied::Journal(error) => !matches!(
                    error,
                    JournalError::Frozen
                        | JournalError::OverMax { .. }
                        | JournalError::Channel(_)
                        | JournalError::SessionKey(_)
                ),
                _ => false,
            };
            if is_written {
                return;
            }
            let host = intent.origin.authority();
            let refused = Refused { code: denied.code(), host: &host, url: &intent.url };
            if let Err(error) = self.journal.refused(&refused, &(self.clock)()) {
                tracing::warn!(%error, code = refused.code, "a refusal is not in the audit log");
            }
        })
    }
}
