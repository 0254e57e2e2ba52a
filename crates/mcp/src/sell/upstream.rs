//! The server whose tools are sold: asked over streamable HTTP, or started and asked over its standard input and output.

// Logs are of the protocol's first generation, and servers have them.
#![expect(deprecated)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue};
use rmcp::model::{
    ClientCapabilities, ClientConfig, Implementation, JsonRpcMessage, LoggingMessageNotificationParam,
    ProgressNotificationParam, ResourceUpdatedNotificationParam, ServerNotification, ServerPeerInfo,
};
use rmcp::service::{
    NotificationContext, Peer, RunningService, RxJsonRpcMessage, ServiceExt, TxJsonRpcMessage,
};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess, Transport};
use rmcp::{ClientHandler, RoleClient};
use tokio::process::Command;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// How long a server may take to say who it is.
const HELLO: Duration = Duration::from_secs(30);
/// After a failure a server is left alone for so long: one that ends at once is not started over and over.
const PAUSE: Duration = Duration::from_secs(1);
/// How many words about progress wait for whoever listens; then the server waits.
const MAX_UNHEARD: usize = 64;
/// How long an answer waits for what was said before it.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

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

/// What a server says unasked.
#[derive(Debug)]
pub(crate) enum Note {
    Progress(ProgressNotificationParam),
    Log(LoggingMessageNotificationParam),
    ResourceUpdated(ResourceUpdatedNotificationParam),
    ResourcesChanged,
    ToolsChanged,
    PromptsChanged,
}

/// Who listens to what a server says unasked.
pub(crate) trait Ear: Send + Sync {
    fn heard(&self, note: Note) -> BoxFuture<'_, ()>;
}

/// Who we are to the server. We ask for nothing but tools, resources and prompts, so there is nothing that it may ask of
/// us: an agent's model, its user and its files are not ours to offer.
#[derive(Clone)]
struct Hello {
    name: &'static str,
    ear: Option<Arc<dyn Ear>>,
}

impl Hello {
    async fn hear(&self, note: Note) {
        if let Some(ear) = &self.ear {
            ear.heard(note).await;
        }
    }
}

impl ClientHandler for Hello {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new(self.name, env!("CARGO_PKG_VERSION")),
        )
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.hear(Note::Log(params)).await;
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.hear(Note::ResourceUpdated(params)).await;
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.hear(Note::ResourcesChanged).await;
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.hear(Note::ToolsChanged).await;
    }

    async fn on_prompt_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.hear(Note::PromptsChanged).await;
    }
}

/// What goes to whoever listens, in the order in which the server said it.
enum Spoken {
    Progress(ProgressNotificationParam),
    /// Everything before this was heard.
    Mark(oneshot::Sender<()>),
}

/// A transport that takes progress out in the order in which it comes: the service that reads from it handles every
/// notification in a task of its own, so that the last word about a call may come after its answer, or before the first.
struct InOrder<T> {
    inner: T,
    spoken: Option<mpsc::Sender<Spoken>>,
    /// Read, and not passed on yet: whoever reads may give up at any time.
    held: Option<RxJsonRpcMessage<RoleClient>>,
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for InOrder<T> {
    type Error = T::Error;

    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        if self.held.is_none() {
            self.held = Some(self.inner.receive().await?);
        }
        if let (Some(JsonRpcMessage::Notification(said)), Some(spoken)) = (&self.held, &self.spoken)
            && let ServerNotification::ProgressNotification(progress) = &said.notification
            && let Ok(place) = spoken.reserve().await
        {
            place.send(Spoken::Progress(progress.params.clone()));
        }
        self.held.take()
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}

/// Passes on what is spoken, one after the other, until nobody speaks any more.
async fn pass_on(mut spoken: mpsc::Receiver<Spoken>, ear: Arc<dyn Ear>) {
    while let Some(spoken) = spoken.recv().await {
        match spoken {
            Spoken::Progress(params) => ear.heard(Note::Progress(params)).await,
            // Who no longer waits for it has its answer.
            Spoken::Mark(reached) => drop(reached.send(())),
        }
    }
}

/// A connection to the server, made when it is needed. Cheap to clone; all clones share one.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    source: Source,
    hello: Hello,
    state: Mutex<State>,
    /// What it said of itself last.
    info: RwLock<Option<Arc<ServerPeerInfo>>>,
    /// To whoever listens to the connection of now.
    spoken: RwLock<Option<mpsc::Sender<Spoken>>>,
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
        Self::with(source, Hello { name: "farthing-gateway", ear: None })
    }

    /// The same for a proxy, which passes on what the server says unasked.
    pub(crate) fn heard_by(source: Source, ear: Arc<dyn Ear>) -> Self {
        Self::with(source, Hello { name: "farthing-mcp-proxy", ear: Some(ear) })
    }

    fn with(source: Source, hello: Hello) -> Self {
        Self(Arc::new(Inner {
            source,
            hello,
            state: Mutex::default(),
            info: RwLock::default(),
            spoken: RwLock::default(),
        }))
    }

    /// The server, connected.
    ///
    /// # Errors
    /// [`UpstreamError`]; [`UpstreamError::Paused`] for a moment after each failure.
    pub(crate) async fn peer(&self) -> Result<Peer<RoleClient>, UpstreamError> {
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
                let inner = StreamableHttpClientTransport::from_config(config);
                self.0.hello.clone().serve(self.in_order(inner)).await.map_err(silent)
            }
            Source::Command { program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments).kill_on_drop(true);
                // What it has to say goes where our own log goes.
                let started = TokioChildProcess::builder(command).stderr(Stdio::inherit()).spawn();
                let (child, _) = started.map_err(|error| UpstreamError::Start(error.to_string()))?;
                self.0.hello.clone().serve(self.in_order(child)).await.map_err(silent)
            }
        }
    }

    fn in_order<T>(&self, inner: T) -> InOrder<T> {
        let spoken = self.0.hello.ear.clone().map(|ear| {
            let (spoken, hears) = mpsc::channel(MAX_UNHEARD);
            tokio::spawn(pass_on(hears, ear));
            spoken
        });
        self.0.spoken.write().unwrap_or_else(PoisonError::into_inner).clone_from(&spoken);
        InOrder { inner, spoken, held: None }
    }

    /// Waits, for a moment at most, until what the server said of progress so far was heard.
    pub(crate) async fn heard(&self) {
        let spoken = self.0.spoken.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(spoken) = spoken else { return };
        let (mark, reached) = oneshot::channel();
        let heard = async {
            if spoken.send(Spoken::Mark(mark)).await.is_ok() {
                let _ = reached.await;
            }
        };
        // An agent that does not read holds nobody up for longer.
        let _ = timeout(HEARD_WITHIN, heard).await;
    }

    /// What the server said of itself when it was last connected to.
    pub(crate) fn info(&self) -> Option<Arc<ServerPeerInfo>> {
        self.0.info.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the connection, and the program if we started one.
    pub async fn close(&self) {
        if let Some(running) = self.0.state.lock().await.running.take() {
            let _ = running.cancel().await;
        }
    }
}
