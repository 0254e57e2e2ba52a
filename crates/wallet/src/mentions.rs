//! Whoever is told what others named: an agent reads it, and may pay because of it.

use std::sync::Arc;

use async_trait::async_trait;
use farthing_policy::Names;

use crate::authorizer::{Denied, LocalAuthorizer};
use crate::journal::Journal;
use crate::system_clock;

/// Keeps what others named, so that a policy can tell it from what an agent knew.
#[async_trait]
pub trait Mentions: Send + Sync {
    /// Writes down what `by` named, before anybody reads it. See [`Journal::mention`].
    ///
    /// # Errors
    /// [`Denied`] if it is not written down. Then it is not to be shown, either.
    async fn mention(&self, names: &Names, by: &str) -> Result<(), Denied>;
}

#[async_trait]
impl Mentions for LocalAuthorizer {
    async fn mention(&self, names: &Names, by: &str) -> Result<(), Denied> {
        let (names, by) = (names.clone(), by.to_owned());
        self.on_disk(move |this| Ok(this.journal.mention(&names, &by, &(this.clock)())?)).await
    }
}

/// The books alone, for who reads and does not pay: no key is needed.
#[derive(Debug, Clone)]
pub struct KeptMentions(pub Arc<Journal>);

#[async_trait]
impl Mentions for KeptMentions {
    async fn mention(&self, names: &Names, by: &str) -> Result<(), Denied> {
        let (journal, names, by) = (self.0.clone(), names.clone(), by.to_owned());
        let work = move || journal.mention(&names, &by, &system_clock()).map_err(Denied::from);
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Denied::Unavailable))
    }
}
