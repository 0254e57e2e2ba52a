//! An owner's policy before an MCP server's tools.
//!
//! The agent talks to the proxy as to the server itself. A call goes on if the policy lets it, is paid for if the server
//! asks and wallet and policy permit, and is answered by the guard otherwise. Everything else is passed on as it is.

// Logs and subscriptions are of the protocol's first generation, and servers have them.
#![expect(deprecated)]

mod bill;
mod forward;
mod glass;
mod guard;
mod pay;
mod reply;
mod state;

pub use guard::{Approvals, Ask, Guard, LoadError, Loaded, NobodyToAsk, Reload};
pub use pay::{CALL_TIMEOUT, Payer};
pub use reply::{DENIED, PAYMENT};
pub use state::{Counters, State, StateError};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use farthing_toolguard::{
    Call, Decision, Effect, Listed, Policy, Reservation, is_hidden, is_tool_name, never_permits,
};
use farthing_wallet::system_clock;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, ErrorData,
    GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, Tool, UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, Peer, RequestContext, ServiceError};
use rmcp::{RoleClient, RoleServer, ServerHandler};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::sell::{Ear, Note, Source, Upstream, UpstreamError};
use crate::untrusted::legible;
use crate::{ApprovalPage, Witness};
use bill::shows_page;
use forward::{Forward, Lost, Progress};
use glass::Glass;
use pay::{Answered, pays};
use reply::{Denial, passed_on};

/// How many calls may be under way at once; more wait for their turn.
pub const MAX_AT_ONCE: usize = 128;
/// How many calls may wait; more are refused.
pub const MAX_WAITING: usize = 8192;
/// How many pages of tools a server may have, and how many tools.
const MAX_PAGES: usize = 64;
const MAX_LISTED: usize = 2048;
/// How long the server behind may take for what is no call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How often the policy's file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What begins the keys of `_meta` that belong to one connection.
const PROTOCOL_KEYS: &str = "io.modelcontextprotocol/";

/// What a proxy is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// What the owner calls the server.
    pub name: String,
    pub source: Source,
    /// Definitions of tools that are not those of before are accepted, once.
    pub accept_changes: bool,
    /// Who pays for calls; `None` pays for nothing.
    pub payer: Option<Payer>,
    pub approvals: Arc<dyn Approvals>,
    /// Where people answer who are asked about a payment, for agents whose programs can show it.
    pub approval_page: Option<ApprovalPage>,
    /// The wallet that is told which hosts and payees the server names.
    pub witness: Option<Witness>,
}

/// An MCP server behind a policy. Cheap to clone; all clones share one truth.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    name: String,
    guard: Arc<Guard>,
    upstream: Upstream,
    ears: Arc<Ears>,
    accept_changes: AtomicBool,
    payer: Option<Arc<Payer>>,
    approvals: Arc<dyn Approvals>,
    approval_page: Option<ApprovalPage>,
    /// What the server said of itself when it was warmed up, and the wallet was told of.
    introduced: std::sync::Mutex<Option<Value>>,
    listing: Mutex<Option<Arc<Listing>>>,
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy of {}", self.0.name)
    }
}

/// What the server behind has, as it was told last.
#[derive(Debug, Default)]
struct Listing {
    tools: Vec<Tool>,
    names: BTreeSet<String>,
    /// Tools whose definition is not the one that was accepted.
    changed: BTreeSet<String>,
}

/// Passes on to the agent what the server says unasked.
struct Ears {
    agent: RwLock<Option<Peer<RoleServer>>>,
    progress: Progress,
    glass: Glass,
    /// The server's tools may be others now.
    stale: AtomicBool,
}

impl Ears {
    fn new(glass: Glass) -> Arc<Self> {
        Arc::new(Self {
            agent: RwLock::default(),
            progress: Arc::new(Mutex::new(HashMap::new())),
            glass,
            stale: AtomicBool::new(false),
        })
    }

    fn agent(&self) -> Option<Peer<RoleServer>> {
        self.agent.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn meet(&self, peer: &Peer<RoleServer>) {
        let known = self.agent.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if !known {
            *self.agent.write().unwrap_or_else(PoisonError::into_inner) = Some(peer.clone());
        }
    }
}

impl Ear for Ears {
    fn heard(&self, note: Note) -> BoxFuture<'_, ()> {
        async move {
            if matches!(note, Note::ToolsChanged) {
                self.stale.store(true, Ordering::SeqCst);
            }
            let Some(agent) = self.agent() else { return };
            // An agent that has gone hears nothing.
            let _ = match note {
                Note::Progress(mut params) => {
                    let Some(token) = self.progress.lock().await.get(&params.progress_token).cloned() else {
                        return;
                    };
                    params.progress_token = token;
                    let Ok(params) = self.glass.through(Ok(params)).await else { return };
                    agent.notify_progress(params).await
                }
                Note::Log(params) => {
                    let Ok(params) = self.glass.through(Ok(params)).await else { return };
                    agent.notify_logging_message(params).await
                }
                Note::ResourceUpdated(params) => {
                    let Ok(params) = self.glass.through(Ok(params)).await else { return };
                    agent.notify_resource_updated(params).await
                }
                Note::ResourcesChanged => agent.notify_resource_list_changed().await,
                Note::ToolsChanged => agent.notify_tool_list_changed().await,
                Note::PromptsChanged => agent.notify_prompt_list_changed().await,
            };
        }
        .boxed()
    }
}

impl Proxy {
    pub fn new(settings: Settings, guard: Guard) -> Self {
        let ears = Ears::new(Glass::new(guard.state().clone(), settings.witness));
        let ear: Arc<dyn Ear> = ears.clone();
        Self(Arc::new(Inner {
            name: settings.name,
            guard: Arc::new(guard),
            upstream: Upstream::heard_by(settings.source, ear),
            ears,
            accept_changes: AtomicBool::new(settings.accept_changes),
            payer: settings.payer.map(Arc::new),
            approvals: settings.approvals,
            approval_page: settings.approval_page,
            introduced: std::sync::Mutex::default(),
            listing: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }))
    }

    /// Connects to the server behind, whose capabilities the agent is told of.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub async fn warm_up(&self) -> Result<(), UpstreamError> {
        self.0.upstream.peer().await?;
        let Some(info) = self.0.upstream.info() else { return Ok(()) };
        let said = (info.server_info.clone(), info.instructions.clone());
        if self.glass().told(&said, None).await.is_ok() {
            *self.0.introduced.lock().unwrap_or_else(PoisonError::into_inner) =
                serde_json::to_value(&said).ok();
        }
        Ok(())
    }

    pub async fn close(&self) {
        self.0.upstream.close().await;
    }

    /// Looks at the policy's file over and over, and says what came of it, until it is dropped.
    pub async fn watch_policy(&self, say: impl Fn(&Reload)) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let guard = self.0.guard.clone();
            let Ok(reload) = tokio::task::spawn_blocking(move || guard.reload()).await else { continue };
            if reload == Reload::Taken {
                self.0.ears.stale.store(true, Ordering::SeqCst);
                if let Some(agent) = self.0.ears.agent() {
                    let _ = agent.notify_tool_list_changed().await;
                }
            }
            if reload != Reload::Unchanged {
                say(&reload);
            }
        }
    }

    fn glass(&self) -> &Glass {
        &self.0.ears.glass
    }

    /// Whether a name can be written out and still be the same name.
    fn is_plain(&self, name: &str) -> bool {
        let unseen = legible(name).1;
        self.glass().count(unseen);
        unseen == 0
    }

    async fn peer(&self) -> Result<Peer<RoleClient>, ErrorData> {
        self.0.upstream.peer().await.map_err(|error| {
            tracing::warn!(%error, "the server behind cannot be reached");
            ErrorData::internal_error("the server cannot be reached", None)
        })
    }

    /// What the server has; asked for anew if it may have changed.
    async fn listing(&self, anew: bool) -> Result<Arc<Listing>, ErrorData> {
        let mut listing = self.0.listing.lock().await;
        let stale = self.0.ears.stale.swap(false, Ordering::SeqCst);
        if let Some(known) = listing.as_ref().filter(|_| !anew && !stale) {
            return Ok(known.clone());
        }
        let tools = match all_tools(&self.peer().await?).await {
            Ok(tools) => tools,
            Err(error) => {
                self.0.ears.stale.store(true, Ordering::SeqCst);
                return Err(self.glass().error(error, None).await);
            }
        };
        let seen: Vec<(String, [u8; 32])> =
            tools.iter().map(|tool| (tool.name.to_string(), definition(tool))).collect();
        let mut names = BTreeSet::new();
        let twice: BTreeSet<String> = seen
            .iter()
            .filter(|(name, _)| !names.insert(name.clone()))
            .map(|(name, _)| name.clone())
            .collect();
        let accept = self.0.accept_changes.swap(false, Ordering::SeqCst);
        let guard = self.0.guard.clone();
        let now = system_clock().wall;
        let changed = tokio::task::spawn_blocking(move || guard.changed(&seen, accept, now)).await;
        let mut changed = match changed {
            Ok(Ok(changed)) => changed,
            failed => {
                if let Ok(Err(error)) = failed {
                    tracing::error!(%error, "no tool is let through: what was seen of them cannot be read");
                }
                names.clone()
            }
        };
        // Of two definitions of one name nobody knows which is called.
        changed.extend(twice);
        for tool in &changed {
            tracing::warn!(tool, "the definition of a tool is not the one that was accepted: it is refused");
        }
        let known = Arc::new(Listing { tools, names, changed });
        *listing = Some(known.clone());
        Ok(known)
    }

    /// Decides on a call, and makes it.
    async fn guarded(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Ok(_waits) = self.0.waiting.clone().try_acquire_owned() else {
            return Ok(refuse(Denial::new("busy", "too many calls are waiting")));
        };
        let tool = request.name.to_string();
        let listing = self.listing(false).await?;
        if !listing.names.contains(&tool) {
            return Ok(refuse(Denial::new("tool_unknown", "no tool has this name")));
        }
        let policy = self.0.guard.policy();
        if listing.changed.contains(&tool) && !is_hidden(&policy, &tool) {
            let text = "the server's definition of this tool is not the one that was accepted; its owner can look at it \
                        and start the proxy with --accept-changes";
            return Ok(refuse(Denial::new("tool_changed", text)));
        }
        let mut meta = context.meta.0.0.clone();
        if pays(&meta) {
            let text = "payments are made by the wallet, within its owner's limits, and not by the agent";
            return Ok(refuse(Denial::new("payment_not_agents", text)));
        }
        let arguments = request.arguments.clone().unwrap_or_default();
        let reservation = match self.decide(&policy, &tool, &arguments).await {
            Ok(reservation) => reservation,
            Err(denial) => return Ok(refuse(denial)),
        };
        let token = context.meta.get_progress_token();
        meta.retain(|key, _| !key.starts_with(PROTOCOL_KEYS) && key != "progressToken");
        let mut params = request;
        params.meta = None;
        // What its user said to a URL of ours is nothing to the server, which has asked for no input.
        let again = params.input_responses.take().is_some();
        params.request_state = None;
        let (upstream, progress) = (self.0.upstream.clone(), self.0.ears.progress.clone());
        let forward = Forward { upstream, params, meta, token, progress };
        let paying = self.0.payer.clone().filter(|_| !policy.spend_keys(&tool).is_empty());
        let answered = match paying {
            None => self.unpaid(&policy, &tool, forward, &context).await,
            Some(payer) => {
                let (guard, places) = (self.0.guard.clone(), self.0.places.clone());
                // A purchase is its own task: an agent that hangs up or cancels ends nothing that may have been signed.
                let work = tokio::spawn(async move {
                    let _place = places.acquire_owned().await;
                    payer.call(&guard, &policy, forward).await
                });
                work.await.unwrap_or_else(|_| {
                    let text =
                        "the call ended by itself; a payment that was made is found by the same call again";
                    Answered::Denied(Box::new(Denial::new("failed", text)))
                })
            }
        };
        match answered {
            // Beside pages of ours a server's would look like one of them.
            Answered::Passed(Err(error)) if self.0.approval_page.is_some() && shows_page(&error) => {
                let text = "the server wants its user to open a page, and while this proxy shows the owner's page for approvals, it \
                            shows no other";
                Ok(refuse(Denial::new("page_not_passed_on", text)))
            }
            Answered::Passed(answer) => self.glass().answer(answer, &tool).await,
            Answered::Denied(denial) => {
                self.glass().told(&denial.words(), Some(&tool)).await?;
                let page = self.0.approval_page.as_ref();
                let pointed =
                    page.zip(denial.approval()).and_then(|(page, asked)| page.point(&context, again, asked));
                pointed.unwrap_or_else(|| Ok(refuse(*denial)))
            }
            Answered::NotSent(denial) => {
                // INVARIANT: only here is a count taken back. Whatever the server says gives nothing back.
                pay::give_back(&self.0.guard, reservation).await;
                self.glass().told(&denial.words(), Some(&tool)).await?;
                Ok(refuse(*denial))
            }
        }
    }

    /// Asks the policy, and whoever has to agree.
    async fn decide(
        &self,
        policy: &Arc<Policy>,
        tool: &str,
        arguments: &Map<String, Value>,
    ) -> Result<Reservation, Denial> {
        let this = self.clone();
        let (policy, tool, arguments) = (policy.clone(), tool.to_owned(), arguments.clone());
        let work = move || {
            let (guard, now) = (&this.0.guard, system_clock().wall);
            let call = Call { tool: &tool, arguments: &arguments };
            let (rule, text, wait) = match guard.decide(&policy, &call, false, now) {
                Decision::Allowed(reservation) => return Ok(reservation),
                Decision::Denied(reasons) => return Err(Denial::of(reasons)),
                Decision::NeedsApproval { rule, text, timeout } => (rule, text, timeout),
            };
            let ask =
                Ask { server: &this.0.name, tool: &tool, arguments: &arguments, rule: &rule, timeout: wait };
            if this.0.approvals.is_approved(&ask) {
                // The policy is asked again: what was agreed to is still bound by every other rule.
                return match guard.decide(&policy, &call, true, system_clock().wall) {
                    Decision::Allowed(reservation) => Ok(reservation),
                    Decision::Denied(reasons) => Err(Denial::of(reasons)),
                    Decision::NeedsApproval { .. } => Err(Denial::new("approval_required", "nobody agreed")),
                };
            }
            let text = text.unwrap_or_else(|| "somebody must agree to this call first".to_owned());
            let wait = wait.map(|wait| wait.as_secs());
            Err(Denial::new("approval_required", &text)
                .with("rule", rule.into())
                .with("approval_timeout_s", wait.into()))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(decided) => decided,
            Err(_) => Err(Denial::new("failed", "the policy could not be asked")),
        }
    }

    /// A call that pays for nothing, whatever the server asks.
    async fn unpaid(
        &self,
        policy: &Policy,
        tool: &str,
        forward: Forward,
        context: &RequestContext<RoleServer>,
    ) -> Answered {
        let _place = self.0.places.acquire().await;
        let cancelled = context.ct.clone();
        let done =
            forward.send(Map::new(), CALL_TIMEOUT, Box::pin(async move { cancelled.cancelled().await }));
        match done.await {
            Ok(said) if bill::Bill::of(&said).is_some() => {
                let denial = if policy.spend_keys(tool).is_empty() {
                    Denial::new(
                        "spend_not_allowed",
                        "the tool asks to be paid, and the policy has no spend for it",
                    )
                } else {
                    Denial::new(
                        "no_wallet",
                        "the tool asks to be paid, and the proxy was started without --pay",
                    )
                };
                Answered::Denied(Box::new(denial))
            }
            Ok(said) => Answered::Passed(passed_on(said)),
            Err(lost) => {
                let (code, text) = match &lost {
                    Lost::NotSent(_) => ("server_unreachable", "the server cannot be reached"),
                    Lost::Broken(_) => {
                        ("server_unreachable", "the server broke off; the call may have been made")
                    }
                    Lost::Timeout => {
                        ("timeout", "the server did not answer in time; the call may have been made")
                    }
                    Lost::Cancelled => ("cancelled", "the call was cancelled; it may have been made"),
                };
                tracing::warn!(error = %lost, tool, "a call came to nothing");
                let denial = Box::new(Denial::new(code, text));
                if matches!(lost, Lost::NotSent(_)) {
                    Answered::NotSent(denial)
                } else {
                    Answered::Denied(denial)
                }
            }
        }
    }
}

fn refuse(denial: Denial) -> CallToolResponse {
    tracing::info!(code = denial.code(), "a call was denied");
    denial.into_result().into()
}

/// SHA-256 of everything that a server says of a tool.
fn definition(tool: &Tool) -> [u8; 32] {
    // What cannot be written down is none that was seen before.
    serde_json::to_value(tool).map_or([0; 32], |tool| Listed::hash(&tool))
}

/// All tools of a server whose names every reader takes for the same.
async fn all_tools(peer: &Peer<RoleClient>) -> Result<Vec<Tool>, ErrorData> {
    let (mut tools, mut cursor) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = PaginatedRequestParams::default().with_cursor(cursor.take());
        let listed = answered(peer.list_tools(Some(page))).await?;
        tools.extend(listed.tools.into_iter().filter(|tool| is_tool_name(&tool.name)));
        if tools.len() > MAX_LISTED {
            break;
        }
        match listed.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(tools),
        }
    }
    Err(ErrorData::internal_error("the server has too many tools", None))
}

/// What the server behind answers to what is no call.
async fn answered<T>(asked: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ErrorData> {
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ServiceError::McpError(error))) => Err(error),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the server behind failed");
            Err(ErrorData::internal_error("the server cannot be reached", None))
        }
        Err(_) => Err(ErrorData::internal_error("the server does not answer", None)),
    }
}

impl ServerHandler for Proxy {
    fn get_info(&self) -> ServerConfig {
        let upstream = self.0.upstream.info();
        let theirs = upstream.as_ref().map(|info| info.capabilities.clone()).unwrap_or_default();
        let mut capabilities =
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        // Only what is passed on: no tasks, no skills, nothing experimental.
        capabilities.prompts = theirs.prompts;
        capabilities.resources = theirs.resources;
        capabilities.logging = theirs.logging;
        capabilities.completions = theirs.completions;
        let mut config = ServerConfig::new(capabilities);
        // What the wallet was not told of is not said. Nobody can be told here.
        let upstream = upstream.filter(|info| {
            if !self.glass().is_witnessed() {
                return true;
            }
            let said = serde_json::to_value((&info.server_info, &info.instructions)).ok();
            said == *self.0.introduced.lock().unwrap_or_else(PoisonError::into_inner)
        });
        let theirs = upstream.as_ref().and_then(|info| info.server_info.clone());
        config.server_info = theirs
            .and_then(|info| self.glass().clear(info).ok())
            .unwrap_or_else(|| Implementation::new("farthing-mcp-proxy", env!("CARGO_PKG_VERSION")));
        let instructions = upstream.and_then(|info| info.instructions.clone());
        config.instructions = instructions.and_then(|text| self.glass().clear(text).ok());
        config
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.0.ears.meet(&context.peer);
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.0.ears.meet(&context.peer);
        let listing = self.listing(true).await?;
        let policy = self.0.guard.policy();
        // What a server says of a tool is read by a model as soon as it is listed: of what can never be called, nothing is.
        let shown =
            |tool: &&Tool| !never_permits(&policy, &tool.name) && !listing.changed.contains(&*tool.name);
        // All at once: a page of the server's may hold nothing that is to be seen.
        // Pinned is what the server said, and not how it is shown.
        let tools = listing.tools.iter().filter(shown).cloned().collect();
        self.glass().through(Ok(ListToolsResult::with_all_items(tools))).await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.0.ears.meet(&context.peer);
        self.guarded(request, context).await
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let mut listed = answered(self.peer().await?.list_prompts(request)).await;
        if let Ok(listed) = &mut listed {
            listed.prompts.retain(|prompt| self.is_plain(&prompt.name));
        }
        self.glass().through(listed).await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        self.glass().prompt(answered(self.peer().await?.get_prompt_once(request)).await).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let mut listed = answered(self.peer().await?.list_resources(request)).await;
        if let Ok(listed) = &mut listed {
            listed.resources.retain(|resource| self.is_plain(&resource.uri));
        }
        self.glass().through(listed).await
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let mut listed = answered(self.peer().await?.list_resource_templates(request)).await;
        if let Ok(listed) = &mut listed {
            listed.resource_templates.retain(|template| self.is_plain(&template.uri_template));
        }
        self.glass().through(listed).await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        self.glass().resource(answered(self.peer().await?.read_resource_once(request)).await).await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        self.glass().through(answered(self.peer().await?.complete(request)).await).await
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.glass().through(answered(self.peer().await?.set_level(request)).await).await
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.glass().through(answered(self.peer().await?.subscribe(request)).await).await
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.glass().through(answered(self.peer().await?.unsubscribe(request)).await).await
    }
}

/// Serves one agent over standard input and output, until it closes them or `stop` resolves.
///
/// # Errors
/// What the agent did instead of beginning.
pub async fn serve_stdio(proxy: Proxy, stop: impl Future<Output = ()>) -> Result<(), String> {
    let places = u32::try_from(MAX_AT_ONCE).unwrap_or(u32::MAX);
    let ended = crate::tools::serve_on_stdio(proxy.clone(), stop).await;
    // What is being paid for is brought to its end, for a while.
    let _ = timeout(LAST_CALLS, proxy.0.places.acquire_many(places)).await;
    proxy.close().await;
    ended
}

/// How long calls that are being paid for may take to end when the agent has gone.
const LAST_CALLS: Duration = Duration::from_secs(60);

/// What a server has, for a first policy.
///
/// # Errors
/// Why it cannot be asked.
pub async fn scan(source: Source) -> Result<Vec<Listed>, String> {
    let upstream = Upstream::heard_by(source, Ears::new(Glass::default()));
    let peer = upstream.peer().await.map_err(|error| error.to_string())?;
    let tools = all_tools(&peer).await.map_err(|error| error.to_string());
    upstream.close().await;
    let listed = |tool: &Tool| {
        let hints = tool.annotations.as_ref();
        let effect = Effect::of(
            hints.and_then(|hints| hints.read_only_hint),
            hints.and_then(|hints| hints.destructive_hint),
        );
        let properties = tool.input_schema.get("properties").and_then(Value::as_object);
        let arguments = properties.map(|all| all.keys().cloned().collect()).unwrap_or_default();
        Listed { name: tool.name.to_string(), effect, hash: definition(tool), arguments }
    };
    // Two of one name become one: the proxy refuses both.
    let listed: BTreeMap<String, Listed> =
        tools?.iter().map(listed).map(|tool| (tool.name.clone(), tool)).collect();
    Ok(listed.into_values().collect())
}

#[cfg(test)]
mod tests;
