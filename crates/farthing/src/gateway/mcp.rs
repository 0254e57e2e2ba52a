//! `[mcp]`: a till of its own for the tools of an MCP server, over the same books.

use std::sync::Arc;

use farthing_engine::World;
use farthing_listener::Inbound;
use farthing_mcp::sell::{Shop, Source, Stall, ToolService, Upstream};
use farthing_paywall::{Limits, Paywall, PaywallBody, PaywallLayer, Seller};
use farthing_rails::offer::BindingKey;
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::Layer;
use tower::util::BoxCloneSyncService;

use super::{GatewayError, terms};
use crate::config::{GatewayConfig, McpConfig, McpSource};

/// The tools of one server. Cheap to clone; all clones share one truth.
#[derive(Clone)]
pub struct McpTill {
    path: Arc<str>,
    source: Arc<McpSource>,
    shop: Shop,
    paywall: Paywall,
}

impl McpTill {
    pub fn build(
        config: &GatewayConfig,
        mcp: &McpConfig,
        seller: Arc<dyn Seller>,
        world: Arc<dyn World>,
        key: &BindingKey,
        limits: Limits,
    ) -> Result<Self, GatewayError> {
        let upstream = Upstream::new(source(&mcp.source)?);
        let terms = terms::tool_terms(config, mcp)?;
        // A key of its own: what was offered for a route opens no tool, whatever the two are called.
        let paywall = Paywall::new(terms, seller, world, key.for_till("mcp"), limits);
        let service = PaywallLayer::new(paywall.clone()).layer(ToolService::new(upstream.clone()));
        let shop = Shop::new(upstream, BoxCloneSyncService::new(service), stall(mcp));
        let source = Arc::new(mcp.source.clone());
        Ok(Self { path: mcp.path.as_str().into(), source, shop, paywall })
    }

    /// Goes on with other tools and prices.
    ///
    /// # Errors
    /// If the path or the server behind is another one: agents have a connection to these.
    pub fn reload(&self, config: &GatewayConfig, mcp: &McpConfig) -> Result<(), GatewayError> {
        if mcp.path != *self.path || mcp.source != *self.source {
            return Err(GatewayError::Mcp("another path, upstream or command needs a restart".to_owned()));
        }
        let terms = terms::tool_terms(config, mcp)?;
        self.shop.reload(stall(mcp));
        self.paywall.reload(terms);
        Ok(())
    }

    pub fn not_before(&self, mark: farthing_primitives::Timestamp) {
        self.paywall.not_before(mark);
    }

    pub fn is_at(&self, path: &str) -> bool {
        path == &*self.path
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Says why the server behind cannot be reached, if it cannot.
    pub async fn warm_up(&self) {
        if let Err(error) = self.shop.warm_up().await {
            tracing::warn!(%error, "the MCP server cannot be reached: its tools are not sold until it can");
        }
    }

    pub async fn close(&self) {
        self.shop.close().await;
    }

    pub async fn handle(&self, request: Request<Inbound>) -> Response<PaywallBody> {
        self.shop.handle(request).await.map(|body| body.map_err(|never| match never {}).boxed_unsync())
    }
}

fn stall(mcp: &McpConfig) -> Stall {
    Stall {
        tools: mcp.tools.iter().map(|tool| tool.name.clone()).collect(),
        others_free: mcp.others_free,
        unpaid: mcp.unpaid,
        base: mcp.path.clone(),
    }
}

fn source(source: &McpSource) -> Result<Source, GatewayError> {
    match source {
        McpSource::Command(words) => {
            let (program, arguments) =
                words.split_first().ok_or_else(|| GatewayError::Mcp("no program".to_owned()))?;
            Ok(Source::Command { program: program.clone(), arguments: arguments.to_vec() })
        }
        McpSource::Http { url, headers } => {
            let mut resolved = Vec::with_capacity(headers.len());
            for (name, reference) in headers {
                let fail = |why: String| GatewayError::Mcp(format!("header {name}: {why}"));
                let secret = reference.resolve().map_err(|error| fail(error.to_string()))?;
                let mut value = http::HeaderValue::from_str(secret.expose())
                    .map_err(|_| fail(format!("{reference} holds what no header can")))?;
                value.set_sensitive(true);
                resolved.push((name.clone(), value));
            }
            Ok(Source::Http { url: url.to_string(), headers: resolved })
        }
    }
}
