use std::path::{Path, PathBuf};

use crate::audit_log::AuditLog;
use crate::journal::{Journal, JournalError};
use crate::keystore::{Keystore, create_private_dir};

/// The folder of a wallet: `keys/`, `session-keys/`, `wallet.db` and `audit/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no home for the wallet: set FARTHING_HOME")]
pub struct NoHome;

impl Home {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// `$FARTHING_HOME`, else `$XDG_DATA_HOME/farthing`, else `~/.local/share/farthing`.
    pub fn from_env() -> Result<Self, NoHome> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("FARTHING_HOME")
            // Spec: XDG base directories: a relative path is ignored.
            .or_else(|| set("XDG_DATA_HOME").filter(|dir| dir.is_absolute()).map(|dir| dir.join("farthing")))
            .or_else(|| set("HOME").map(|home| home.join(".local/share/farthing")));
        dir.map(Self).ok_or(NoHome)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make(&self) -> std::io::Result<()> {
        create_private_dir(&self.0)
    }

    pub fn keystore(&self) -> Keystore {
        Keystore::new(self.0.join("keys"))
    }

    /// The keys that are made for a while, apart from the others: no command opens one by its name alone.
    pub fn session_keys(&self) -> Keystore {
        Keystore::new(self.0.join("session-keys"))
    }

    pub fn audit(&self) -> AuditLog {
        AuditLog::new(self.0.join("audit"))
    }

    /// Whether there is a journal. [`Home::journal`] makes one.
    pub fn has_journal(&self) -> bool {
        self.0.join("wallet.db").is_file()
    }

    /// The journal, made with tight rules if there is none yet.
    pub fn journal(&self) -> Result<Journal, JournalError> {
        Journal::open(&self.0.join("wallet.db"))
    }
}
