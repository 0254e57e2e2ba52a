//! `farthing gateway`: a reverse proxy that asks for payment.
//!
//! Connections come in by [`farthing_listener`], requests by [`serve`], the paywall decides ([`farthing_paywall`]), and [`proxy`] calls what stands
//! behind. A configuration is replaced while it runs ([`reload`]); what is under way keeps the one that it began with.

mod admin;
mod body;
mod command;
mod discovery;
mod hook;
mod mcp;
mod offer_key;
mod proxy;
mod reload;
mod serve;
mod socket;
mod terms;
mod tls;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farthing_engine::{Engine, Till, World};
use farthing_listener::Server;
use farthing_paywall::{Paywall, PaywallLayer, Seller};
use farthing_rails::offer::BindingKey;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::Layer;

use crate::config::{Cidr, GatewayConfig, LimitsConfig};
use crate::wiring::Collectors;
use discovery::Discovery;
use mcp::McpTill;
use proxy::{Proxy, Table};
use tls::Certificate;

pub use command::{GatewayArgs, run_command};
pub use offer_key::offer_key;

/// How often the end of what is being settled is looked for while shutting down.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why there is no gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    #[error("upstream {url}: {why}")]
    Upstream { url: String, why: String },
    #[error("price hook {url}: {why}")]
    Hook { url: String, why: String },
    #[error("{file}: {why}")]
    Tls { file: PathBuf, why: String },
    #[error("{0}")]
    Routes(String),
    #[error("the MCP server: {0}")]
    Mcp(String),
    #[error("the offer key: {0}")]
    OfferKey(String),
    #[error("cannot listen on {address}: {why}")]
    Listen { address: std::net::SocketAddr, why: String },
}

/// A gateway that is ready to serve. Cheap to clone; all clones share one truth.
#[derive(Clone)]
pub struct Gateway {
    paywall: Paywall,
    proxy: Proxy,
    mcp: Option<McpTill>,
    discovery: Discovery,
    /// The documents where sessions are sold too.
    by_the_unit: Discovery,
    seller: Arc<dyn Seller>,
    certificate: Option<Arc<Certificate>>,
    limits: LimitsConfig,
    trusted: Arc<Vec<Cidr>>,
    /// Whom sessions may pay, if there is a till.
    collectors: Option<Arc<Collectors>>,
}

impl Gateway {
    /// Builds everything that needs no socket. `key` seals the offers: see [`offer_key`].
    pub fn build(
        config: &GatewayConfig,
        seller: Arc<dyn Seller>,
        world: Arc<dyn World>,
        key: BindingKey,
    ) -> Result<Self, GatewayError> {
        let proxy = Proxy::new(Table::new(config)?);
        let terms = terms::terms(config)?;
        let limits = config.limits.paywall;
        let till = |mcp| McpTill::build(config, mcp, seller.clone(), world.clone(), &key, limits);
        let mcp = config.mcp.as_ref().map(till).transpose()?;
        let (discovery, by_the_unit) = (Discovery::new(config, false)?, Discovery::new(config, true)?);
        let paywall = Paywall::new(terms, seller.clone(), world, key, limits);
        let certificate = config.tls.as_ref().map(Certificate::load).transpose()?;
        Ok(Self {
            paywall,
            proxy,
            mcp,
            discovery,
            by_the_unit,
            seller,
            certificate,
            limits: config.limits,
            trusted: Arc::new(config.trusted_proxies.clone()),
            collectors: None,
        })
    }

    /// Sells by the unit too: see [`Paywall::with_till`].
    #[must_use]
    pub fn with_till(self, till: Till, collectors: Collectors) -> Self {
        let (paywall, collectors) = (self.paywall.with_till(till), Some(Arc::new(collectors)));
        Self { paywall, collectors, discovery: self.by_the_unit.clone(), ..self }
    }

    /// Says that it is at least this late: see [`Paywall::not_before`].
    pub fn not_before(&self, mark: farthing_primitives::Timestamp) {
        self.paywall.not_before(mark);
        if let Some(mcp) = &self.mcp {
            mcp.not_before(mark);
        }
    }

    /// Goes on with other routes, prices and upstreams. Everything stays as it is if they are not good.
    ///
    /// Offers made before hold for the time that they were made for. Addresses, TLS on or off, limits and trusted
    /// proxies are as they were at the start.
    pub fn reload(&self, config: &GatewayConfig) -> Result<(), GatewayError> {
        if let Some(collectors) = &self.collectors {
            collectors.check(config).map_err(|error| GatewayError::Routes(error.to_string()))?;
        }
        let (table, terms) = (Table::new(config)?, terms::terms(config)?);
        let discovery = Discovery::new(config, self.collectors.is_some())?;
        // First what may fail still: all of it changes, or nothing.
        match (&self.mcp, &config.mcp) {
            (Some(till), Some(mcp)) => till.reload(config, mcp)?,
            (None, None) => {}
            _ => return Err(GatewayError::Mcp("[mcp] comes and goes with a restart".to_owned())),
        }
        self.proxy.reload(table);
        self.paywall.reload(terms);
        self.discovery.replace(&discovery);
        Ok(())
    }

    /// Serves on this listener until `shutdown` resolves, then lets what is under way end.
    pub async fn serve_on(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), GatewayError> {
        let tls = match &self.certificate {
            Some(certificate) => Some(TlsAcceptor::from(Arc::new(certificate.server_config()?))),
            None => None,
        };
        let service = PaywallLayer::new(self.paywall.clone()).layer(self.proxy.clone());
        let (trusted, proxies) = (self.trusted.clone(), self.trusted.clone());
        let front = serve::Front { mcp: self.mcp.clone(), discovery: self.discovery.clone() };
        let proxy = self.proxy.clone();
        let server = Server {
            handler: move |mut request, peer| {
                if let Some(socket) = socket::offered(&mut request, &proxy) {
                    request.extensions_mut().insert(socket);
                }
                serve::handle(service.clone(), front.clone(), trusted.clone(), request, peer)
            },
            limits: serve::limits(&self.limits),
            tls,
            stands_for_many: Arc::new(move |address| serve::is_trusted(&proxies, address)),
        };
        farthing_listener::serve(server, listener, shutdown).await;
        if let Some(mcp) = &self.mcp {
            mcp.close().await;
        }
        Ok(())
    }

    pub(crate) fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.certificate.as_ref()
    }

    pub(crate) fn mcp(&self) -> Option<&McpTill> {
        self.mcp.as_ref()
    }

    pub(crate) fn seller(&self) -> &Arc<dyn Seller> {
        &self.seller
    }
}

/// Binds the configured addresses.
pub async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address).await.map_err(|error| GatewayError::Listen { address, why: error.to_string() })
}

/// Waits until nothing is being settled any more. What takes longer goes on at the next start: it is durable.
pub(crate) async fn settle_down(engine: &Engine, within: Duration) {
    let settled = async {
        while engine.live() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if tokio::time::timeout(within, settled).await.is_err() {
        tracing::warn!(
            payments = engine.live(),
            "stopped with payments under way: they go on at the next start"
        );
    }
}
