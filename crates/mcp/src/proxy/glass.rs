//! What the server says, as the agent gets it: with its unseen characters written out, and these counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rmcp::model::{CallToolResponse, ErrorData, GetPromptResponse, ReadResourceResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::reply::OURS;
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

    /// An error of the server's as it is passed on: all of it but what only we say.
    pub fn error(&self, mut error: ErrorData) -> ErrorData {
        if let Some(Value::Object(data)) = &mut error.data {
            data.retain(|key, _| !key.starts_with(OURS));
        }
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
            other => unknown(self.through(other.map(|_| ()))),
        }
    }

    pub fn prompt(&self, said: Result<GetPromptResponse, ErrorData>) -> Result<GetPromptResponse, ErrorData> {
        match said {
            Ok(GetPromptResponse::Complete(result)) => self.clear(result).map(GetPromptResponse::Complete),
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

/// What asks for input (of the agent's user, its model or its files), tasks, and what later revisions may bring are not
/// passed on.
fn unknown<T>(said: Result<(), ErrorData>) -> Result<T, ErrorData> {
    said?;
    Err(ErrorData::internal_error("the server answers in a way that is not passed on", None))
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ErrorCode, InputRequiredResult};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_reaches_neither_the_agents_user_nor_our_words() {
        let glass = Glass::default();
        let more = || InputRequiredResult::from_input_requests(Default::default());
        assert!(glass.answer(Ok(CallToolResponse::InputRequired(more()))).is_err());
        assert!(glass.prompt(Ok(GetPromptResponse::InputRequired(more()))).is_err());
        assert!(glass.resource(Ok(ReadResourceResponse::InputRequired(more()))).is_err());
        let data = json!({ "farthing/approval": { "id": "apr_1" }, "why": "no" });
        let error = ErrorData::new(ErrorCode(-32042), "no", Some(data));
        assert_eq!(glass.error(error).data, Some(json!({ "why": "no" })));
    }
}
