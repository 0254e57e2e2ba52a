//! The server that agents see: the upstream's tools, with a price before those that have one.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farthing_wire::mpp::rpc::Capability;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, GetPromptRequestParams, GetPromptResponse, Implementation,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities,
    ServerConfig,
};
use rmcp::service::{Peer, RequestContext, ServiceError};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleClient, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::ServiceExt;

use super::exchange::{self, Unpaid};
use super::{BoxError, Paywalled, Upstream, is_tool_name};

/// The longest message of a client, in bytes: the longest arguments, a payment, and what goes with them.
pub const MAX_CALL_BYTES: usize = 2 * 1024 * 1024;
/// How many bytes of messages may be held at once, of all clients; more are 503.
pub const MAX_MESSAGE_MEMORY: usize = 256 * 1024 * 1024;
/// How long a message may take to arrive: whoever dribbles holds its bytes no longer.
pub const MESSAGE_WITHIN: Duration = Duration::from_secs(30);
/// What memory is counted in, in bytes. A message takes at least one.
const GRAIN: usize = 1024;
/// How long the server behind may take for what is not sold.
const FREE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is for sale, and how. A reload replaces it as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stall {
    /// The tools that have a price, or are said to be free.
    pub tools: BTreeSet<String>,
    /// Whether the server's other tools are there too, for nothing.
    pub others_free: bool,
    pub unpaid: Unpaid,
    /// Where the paywall's routes are: tool N is at `{base}/tools/N`.
    pub base: String,
}

impl Stall {
    fn offers(&self, tool: &str) -> bool {
        is_tool_name(tool) && (self.others_free || self.tools.contains(tool))
    }
}

/// An MCP server with prices. Cheap to clone; all clones share one truth.
#[derive(Clone)]
pub struct Shop(Arc<Inner>);

struct Inner {
    upstream: Upstream,
    paywall: Paywalled,
    stall: RwLock<Arc<Stall>>,
    /// Grains of memory that no message has.
    memory: Arc<Semaphore>,
}

impl std::fmt::Debug for Shop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shop before {:?}", self.0.upstream)
    }
}

impl Shop {
    /// `paywall` stands before a [`super::ToolService`] of the same upstream.
    pub fn new(upstream: Upstream, paywall: Paywalled, stall: Stall) -> Self {
        let memory = Arc::new(Semaphore::new(MAX_MESSAGE_MEMORY / GRAIN));
        Self(Arc::new(Inner { upstream, paywall, stall: RwLock::new(Arc::new(stall)), memory }))
    }

    /// Goes on with other tools for sale.
    pub fn reload(&self, stall: Stall) {
        *self.0.stall.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(stall);
    }

    fn stall(&self) -> Arc<Stall> {
        self.0.stall.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects to the server behind, so that the first client need not wait for it.
    ///
    /// # Errors
    /// Why it cannot be reached now. It is tried again when it is needed.
    pub async fn warm_up(&self) -> Result<(), super::UpstreamError> {
        self.0.upstream.peer().await.map(|_| ())
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> Arc<Semaphore> {
        self.0.memory.clone()
    }

    /// Ends the connection to the server behind.
    pub async fn close(&self) {
        self.0.upstream.close().await;
    }

    /// Answers one HTTP request of the streamable HTTP transport. The request's extensions go on to the paywall: it is
    /// told by them who the client is.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<UnsyncBoxBody<Bytes, Infallible>>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        // Spec: MCP, "Streamable HTTP", security warning: servers must validate `Origin`. No agent is a web page.
        if request.headers().contains_key(header::ORIGIN) {
            return refusal(StatusCode::FORBIDDEN, "origin_not_allowed");
        }
        if self.0.upstream.info().is_none() {
            // What cannot be reached is said where it is needed.
            let _ = self.warm_up().await;
        }
        let config = StreamableHttpServerConfig::default()
            // The gateway is a public service: it is reached by whatever name leads to it.
            .disable_allowed_hosts()
            // Nothing is kept between two calls, so that nothing grows with whoever calls.
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(MAX_CALL_BYTES);
        let each = self.clone();
        let service = StreamableHttpService::new(
            move || Ok(each.clone()),
            Arc::new(NeverSessionManager::default()),
            config,
        );
        let (mut parts, body) = request.into_parts();
        let (body, _held) = match timeout(MESSAGE_WITHIN, self.read(body)).await {
            Ok(Ok((body, held))) => (exchange::lowered(body), held),
            Ok(Err((status, code))) => return refusal(status, code),
            Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "request_timeout"),
        };
        parts.headers.remove(header::CONTENT_LENGTH);
        match service.oneshot(Request::from_parts(parts, Full::new(body))).await {
            Ok(answer) => answer.map(BodyExt::boxed_unsync),
            Err(never) => match never {},
        }
    }

    async fn sell(
        &self,
        asked: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let stall = self.stall();
        if !stall.offers(&asked.name) {
            return Err(ErrorData::invalid_params("no tool has this name", None));
        }
        let payment = exchange::payment(&context.meta.0.0)?;
        let body = exchange::canonical(&asked.arguments.unwrap_or_default())?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{}/tools/{}", stall.base, asked.name)
            .parse()
            .map_err(|_| ErrorData::invalid_params("no tool has this name", None))?;
        *request.headers_mut() = payment.headers;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(outer) = context.extensions.get::<http::request::Parts>() {
            if let Some(host) = outer.headers.get(header::HOST) {
                headers.insert(header::HOST, host.clone());
            }
            *request.extensions_mut() = outer.extensions.clone();
        }
        // Spec: draft-payment-transport-mcp-00, "MCP Capability Advertisement".
        let says_mpp = context.client_capabilities().is_some_and(|capabilities| {
            capabilities.experimental.is_some_and(|experimental| experimental.contains_key("payment"))
        });
        let unpaid = if says_mpp { Unpaid::Error } else { stall.unpaid };
        let Ok(answer) = self.0.paywall.clone().oneshot(request).await;
        let (parts, body) = answer.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                tracing::warn!(error = %BoxError::from(error), "a tool's answer broke off");
                return Err(ErrorData::internal_error("the tool's answer broke off", None));
            }
        };
        let answer = (parts.status, &parts.headers, &body);
        exchange::answer(answer, payment.shown, unpaid).map(Into::into)
    }

    /// Reads a whole message, and holds its memory for as long as it is worked on.
    async fn read<B>(&self, body: B) -> Result<(Bytes, OwnedSemaphorePermit), (StatusCode, &'static str)>
    where
        B: Body<Data = Bytes>,
    {
        let full = (StatusCode::SERVICE_UNAVAILABLE, "too_many_messages");
        let memory = &self.0.memory;
        let mut held = memory.clone().try_acquire_owned().map_err(|_| full)?;
        let mut body = std::pin::pin!(body);
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "incomplete_request"))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > MAX_CALL_BYTES - bytes.len() {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, "message_too_large"));
            }
            bytes.extend_from_slice(&data);
            let missing = (bytes.len() / GRAIN + 1).saturating_sub(held.num_permits());
            let missing = u32::try_from(missing).map_err(|_| full)?;
            held.merge(memory.clone().try_acquire_many_owned(missing).map_err(|_| full)?);
        }
        Ok((bytes.freeze(), held))
    }

    async fn peer(&self) -> Result<Peer<RoleClient>, ErrorData> {
        self.0.upstream.peer().await.map_err(|error| {
            tracing::warn!(%error, "the server behind cannot be reached");
            unreachable_server()
        })
    }
}

fn refusal(status: StatusCode, code: &str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut answer =
        Response::new(Full::new(Bytes::from(json!({ "error": code }).to_string())).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn unreachable_server() -> ErrorData {
    let data = json!({ "error": "upstream_unreachable" });
    ErrorData::internal_error("the server cannot be reached", Some(data))
}

/// What the server behind says of what is not sold.
async fn free<T>(asked: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ErrorData> {
    match timeout(FREE_TIMEOUT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ServiceError::McpError(error))) => Err(error),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the server behind failed");
            Err(unreachable_server())
        }
        Err(_) => Err(unreachable_server()),
    }
}

impl ServerHandler for Shop {
    fn get_info(&self) -> ServerConfig {
        let upstream = self.0.upstream.info();
        let theirs = upstream.as_ref().map(|info| info.capabilities.clone()).unwrap_or_default();
        let mut capabilities = ServerCapabilities::builder().enable_tools().build();
        // Only what is passed on: no subscriptions, no logs, no tasks.
        capabilities.prompts = theirs.prompts.map(|_| Default::default());
        capabilities.resources = theirs.resources.map(|_| Default::default());
        let method = "evm".parse().ok().zip("charge".parse().ok());
        let methods = method.map(|(method, intent)| (method, vec![intent])).into_iter().collect();
        if let Some(payment) = to_map(&Capability(methods).to_object().into()) {
            capabilities.experimental.get_or_insert_default().insert("payment".to_owned(), payment);
        }
        let mut config = ServerConfig::new(capabilities);
        config.server_info = upstream
            .as_ref()
            .and_then(|info| info.server_info.clone())
            .unwrap_or_else(|| Implementation::new("farthing-gateway", env!("CARGO_PKG_VERSION")));
        config.instructions = upstream.and_then(|info| info.instructions.clone());
        config
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let peer = self.peer().await?;
        let mut listed = free(peer.list_tools(request)).await?;
        let stall = self.stall();
        listed.tools.retain(|tool| stall.offers(&tool.name));
        Ok(listed)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.sell(request, &context).await
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let peer = self.peer().await?;
        free(peer.list_prompts(request)).await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let peer = self.peer().await?;
        free(peer.get_prompt_once(request)).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let peer = self.peer().await?;
        free(peer.list_resources(request)).await
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let peer = self.peer().await?;
        free(peer.list_resource_templates(request)).await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let peer = self.peer().await?;
        free(peer.read_resource_once(request)).await
    }
}

fn to_map(json: &farthing_wire::Json) -> Option<Map<String, Value>> {
    match serde_json::from_str(&json.to_string()) {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    }
}
