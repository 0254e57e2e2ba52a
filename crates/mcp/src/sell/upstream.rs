//! The server whose tools are sold: asked over streamable HTTP, or started and asked over its standard input and output.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rmcp::model::{ClientCapabilities, ClientConfig, Implementation, ServerPeerInfo};
use rmcp::service::{Peer, RunningService, ServiceExt};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, RoleClient};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long a server may take to say who it is.
const HELLO: Duration = Duration::from_secs(30);
/// After a failure a server is left alone for so long: one that ends at once is not started over and over.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the tools are.
#[derive(Clone)]
pub enum Source {
    Http {
        url: String,
        /// Sent with each request.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// A program, which is started when it is first needed, and again when it has ended.
    Command { program: String, arguments: Vec<String> },
}

/// Arguments and headers may hold secrets.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { .. } => f.write_str("Http"),
            Self::Command { program, .. } => write!(f, "Command {program:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    #[error("the program cannot be started: {0}")]
    Start(String),
    #[error("the server does not answer: {0}")]
    Silent(String),
    #[error("the server failed a moment ago")]
    Paused,
}

/// Who we are to the server. We ask for nothing but tools, resources and prompts, so there is nothing that it may ask of
/// us: an agent's model, its user and its files are not ours to offer.
#[derive(Debug, Clone)]
struct Hello;

impl ClientHandler for Hello {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new("farthing-gateway", env!("CARGO_PKG_VERSION")),
        )
    }
}

/// A connection to the server, made when it is needed. Cheap to clone; all clones share one.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    source: Source,
    state: Mutex<State>,
    /// What it said of itself last.
    info: RwLock<Option<Arc<ServerPeerInfo>>>,
}

#[derive(Default)]
struct State {
    running: Option<RunningService<RoleClient, Hello>>,
    failed: Option<Instant>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstream at {:?}", self.0.source)
    }
}

impl Upstream {
    pub fn new(source: Source) -> Self {
        Self(Arc::new(Inner { source, state: Mutex::default(), info: RwLock::default() }))
    }

    /// The server, connected.
    ///
    /// # Errors
    /// [`UpstreamError`]; [`UpstreamError::Paused`] for a moment after each failure.
    pub(super) async fn peer(&self) -> Result<Peer<RoleClient>, UpstreamError> {
        let mut state = self.0.state.lock().await;
        if let Some(running) = &state.running
            && !running.is_closed()
            && !running.peer().is_transport_closed()
        {
            return Ok(running.peer().clone());
        }
        if state.failed.is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(UpstreamError::Paused);
        }
        // Dropping the old one ends its program.
        state.running = None;
        match timeout(HELLO, self.connect()).await {
            Ok(Ok(running)) => {
                let peer = running.peer().clone();
                *self.0.info.write().unwrap_or_else(PoisonError::into_inner) = peer.peer_info();
                state.failed = None;
                state.running = Some(running);
                Ok(peer)
            }
            failed => {
                state.failed = Some(Instant::now());
                Err(match failed {
                    Ok(Err(error)) => error,
                    _ => UpstreamError::Silent("it does not say who it is".to_owned()),
                })
            }
        }
    }

    async fn connect(&self) -> Result<RunningService<RoleClient, Hello>, UpstreamError> {
        let silent = |error: rmcp::service::ClientInitializeError| UpstreamError::Silent(error.to_string());
        match &self.0.source {
            Source::Http { url, headers } => {
                let headers: HashMap<HeaderName, HeaderValue> = headers.iter().cloned().collect();
                let config =
                    StreamableHttpClientTransportConfig::with_uri(url.as_str()).custom_headers(headers);
                Hello.serve(StreamableHttpClientTransport::from_config(config)).await.map_err(silent)
            }
            Source::Command { program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments).kill_on_drop(true);
                // What it has to say goes where our own log goes.
                let started = TokioChildProcess::builder(command).stderr(Stdio::inherit()).spawn();
                let (child, _) = started.map_err(|error| UpstreamError::Start(error.to_string()))?;
                Hello.serve(child).await.map_err(silent)
            }
        }
    }

    /// What the server said of itself when it was last connected to.
    pub(super) fn info(&self) -> Option<Arc<ServerPeerInfo>> {
        self.0.info.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the connection, and the program if we started one.
    pub async fn close(&self) {
        if let Some(running) = self.0.state.lock().await.running.take() {
            let _ = running.cancel().await;
        }
    }
}
