//! What the server says, as the agent gets it: with its unseen characters written out, and these counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rmcp::model::{CallToolResponse, ErrorData, GetPromptResponse, ReadResourceResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::state::State;
use crate::untrusted::legible_message;

/// Everything that a server says goes through here. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Glass {
    /// Where the count is kept, if it is.
    state: Option<Arc<State>>,
    /// What is counted and not yet kept.
    fresh: Arc<AtomicU64>,
}

impl Glass {
    pub fn new(state: Arc<State>) -> Self {
        Self { state: Some(state), fresh: Arc::default() }
    }

    /// A message as it is passed on.
    ///
    /// # Errors
    /// The server's own, as it is passed on, or ours if it cannot be.
    pub fn through<T: Serialize + DeserializeOwned>(
        &self,
        said: Result<T, ErrorData>,
    ) -> Result<T, ErrorData> {
        match said {
            Ok(said) => self.clear(said),
            Err(error) => Err(self.error(error)),
        }
    }

    /// An error of the server's as it is passed on.
    pub fn error(&self, error: ErrorData) -> ErrorData {
        match self.clear(error) {
            Ok(said) | Err(said) => said,
        }
    }

    fn clear<T: Serialize + DeserializeOwned>(&self, said: T) -> Result<T, ErrorData> {
        let Some((said, unseen)) = legible_message(said) else {
            tracing::warn!("what the server said cannot be passed on without its unseen characters");
            return Err(ErrorData::internal_error("what the server said cannot be passed on", None));
        };
        self.count(unseen);
        Ok(said)
    }

    pub fn answer(&self, said: Result<CallToolResponse, ErrorData>) -> Result<CallToolResponse, ErrorData> {
        match said {
            Ok(CallToolResponse::Complete(result)) => self.clear(result).map(CallToolResponse::Complete),
            Ok(CallToolResponse::InputRequired(more)) => {
                self.clear(more).map(CallToolResponse::InputRequired)
            }
            other => unknown(self.through(other.map(|_| ()))),
        }
    }

    pub fn prompt(&self, said: Result<GetPromptResponse, ErrorData>) -> Result<GetPromptResponse, ErrorData> {
        match said {
            Ok(GetPromptResponse::Complete(result)) => self.clear(result).map(GetPromptResponse::Complete),
            Ok(GetPromptResponse::InputRequired(more)) => {
                self.clear(more).map(GetPromptResponse::InputRequired)
            }
            other => unknown(self.through(other.map(|_| ()))),
        }
    }

    pub fn resource(
        &self,
        said: Result<ReadResourceResponse, ErrorData>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match said {
            Ok(ReadResourceResponse::Complete(result)) => {
                self.clear(result).map(ReadResourceResponse::Complete)
            }
            Ok(ReadResourceResponse::InputRequired(more)) => {
                self.clear(more).map(ReadResourceResponse::InputRequired)
            }
            other => unknown(self.through(other.map(|_| ()))),
        }
    }

    /// Counts, and has the count kept by one thread at a time: a server that never stops makes no queue.
    pub fn count(&self, unseen: u64) {
        if unseen == 0 {
            return;
        }
        tracing::warn!(unseen, "characters that nobody sees were written out in what the server said");
        let Some(state) = self.state.clone() else { return };
        if self.fresh.fetch_add(unseen, Ordering::SeqCst) > 0 {
            return;
        }
        let fresh = self.fresh.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = state.add_unseen(fresh.swap(0, Ordering::SeqCst)) {
                tracing::warn!(%error, "how many they are could not be kept");
            }
        });
    }
}

/// Tasks and what later revisions may bring are not passed on.
fn unknown<T>(said: Result<(), ErrorData>) -> Result<T, ErrorData> {
    said?;
    Err(ErrorData::internal_error("the server answers in a way that is not passed on", None))
}
