//! One call on its way to the server behind, and what the server answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResponse, ClientRequest, ErrorData, ProgressToken,
    RequestMetaObject, ServerResult,
};
use rmcp::service::{PeerRequestOptions, ServiceError};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::sell::{Upstream, UpstreamError};

/// The agent's tokens of progress, by those that the server was given instead.
pub type Progress = Arc<Mutex<HashMap<ProgressToken, ProgressToken>>>;

/// What a server answered.
#[derive(Debug, Clone)]
pub enum Said {
    Result(CallToolResponse),
    Error(ErrorData),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Nothing left this process.
    #[error(transparent)]
    NotSent(#[from] UpstreamError),
    #[error("the server broke off: {0}")]
    Broken(String),
    #[error("there was no answer in time")]
    Timeout,
    /// The agent wants it no more, and the server was told.
    #[error("the call was cancelled")]
    Cancelled,
}

/// A call as it is sent on.
#[derive(Clone)]
pub struct Forward {
    pub upstream: Upstream,
    pub params: CallToolRequestParams,
    /// What goes along of the agent's `_meta`.
    pub meta: Map<String, Value>,
    /// By what the agent wants to hear of progress.
    pub token: Option<ProgressToken>,
    pub progress: Progress,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Forward of {}", self.params.name)
    }
}

impl Forward {
    /// Sends the call, with `more` in its `_meta`, and waits until it is answered, cancelled or `within` is over.
    ///
    /// # Errors
    /// [`Lost`]; only [`Lost::NotSent`] says that the server did not get it.
    pub async fn send(
        &self,
        more: Map<String, Value>,
        within: Duration,
        cancelled: BoxFuture<'_, ()>,
    ) -> Result<Said, Lost> {
        let peer = self.upstream.peer().await?;
        let mut meta = RequestMetaObject::default();
        meta.0.0.extend(self.meta.clone());
        meta.0.0.extend(more);
        let request = CallToolRequest::new(self.params.clone());
        let options = PeerRequestOptions::no_options().with_meta(meta);
        let broken = |error: ServiceError| Lost::Broken(error.to_string());
        let mut handle = {
            // Held until the token is known: the server may speak of its progress at once.
            let mut progress = self.progress.lock().await;
            let handle =
                peer.send_cancellable_request(ClientRequest::CallToolRequest(request), options).await;
            let handle = handle.map_err(broken)?;
            if let Some(token) = &self.token {
                progress.insert(handle.progress_token.clone(), token.clone());
            }
            handle
        };
        let token = handle.progress_token.clone();
        let done = tokio::select! {
            answered = &mut handle.rx => Ok(answered),
            () = tokio::time::sleep(within) => Err(Lost::Timeout),
            () = cancelled => Err(Lost::Cancelled),
        };
        if self.token.is_some() {
            // What was said before the answer is heard before it.
            self.upstream.heard().await;
            self.progress.lock().await.remove(&token);
        }
        let answered = match done {
            Ok(answered) => answered,
            Err(lost) => {
                // Who cannot be told has ended.
                let _ = handle.cancel(Some(lost.to_string())).await;
                return Err(lost);
            }
        };
        match answered {
            Ok(Ok(ServerResult::CallToolResult(result))) => {
                Ok(Said::Result(CallToolResponse::Complete(result)))
            }
            Ok(Ok(ServerResult::InputRequiredResult(more))) => {
                Ok(Said::Result(CallToolResponse::InputRequired(more)))
            }
            Ok(Ok(ServerResult::CreateTaskResult(task))) => Ok(Said::Result(CallToolResponse::Task(task))),
            Ok(Ok(_)) => Err(Lost::Broken("it is no answer to a call".to_owned())),
            Ok(Err(ServiceError::McpError(error))) => Ok(Said::Error(error)),
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(Lost::Broken("the connection ended".to_owned())),
        }
    }
}
