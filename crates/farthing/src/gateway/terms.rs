//! From the configuration to what the paywall and the proxy need.

use std::sync::Arc;

use farthing_paywall::{Paid, Pattern, Price, Route, RouteTable, Terms, Unmatched};

use super::GatewayError;
use super::hook::HttpHook;
use crate::config::{GatewayConfig, McpConfig, PriceConfig, SaleConfig};

pub fn terms(config: &GatewayConfig) -> Result<Terms, GatewayError> {
    let routes = config.routes.iter().map(|route| (&route.pattern, route.sale.as_ref()));
    terms_of(config, routes, config.unmatched_free)
}

/// The terms of the tools that an MCP server sells.
pub fn tool_terms(config: &GatewayConfig, mcp: &McpConfig) -> Result<Terms, GatewayError> {
    let tools = mcp.tools.iter().map(|tool| (&tool.pattern, tool.sale.as_ref()));
    terms_of(config, tools, mcp.others_free)
}

fn terms_of<'a>(
    config: &GatewayConfig,
    listed: impl Iterator<Item = (&'a Pattern, Option<&'a SaleConfig>)>,
    unmatched_free: bool,
) -> Result<Terms, GatewayError> {
    let mut routes = Vec::new();
    for (pattern, sale) in listed {
        let kind = match sale {
            None => Route::Free,
            Some(sale) => Route::paid(paid(sale)?),
        };
        routes.push((pattern.clone(), kind));
    }
    let routes = RouteTable::new(routes).map_err(|error| GatewayError::Routes(error.to_string()))?;
    Ok(Terms {
        routes,
        registry: config.registry.clone(),
        unmatched: if unmatched_free { Unmatched::Free } else { Unmatched::NotFound },
        cors: config.cors.clone(),
        mpp: config.mpp.clone(),
        v1_body: config.v1_body,
        public_url: config.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
    })
}

fn paid(sale: &SaleConfig) -> Result<Paid, GatewayError> {
    let price = match &sale.price {
        PriceConfig::Fixed(offers) => Price::Fixed(offers.clone()),
        PriceConfig::Hook { url, timeout, headers, ways } => Price::Quoted {
            hook: Arc::new(HttpHook::new(url.clone(), *timeout, headers)?),
            ways: ways.clone(),
        },
    };
    Ok(Paid {
        price,
        flow: sale.flow,
        exposure: sale.exposure.clone(),
        max_timeout: sale.max_timeout,
        upstream_timeout: sale.upstream_timeout,
        max_request: sale.max_request,
        max_response: sale.max_response,
        repeatable: sale.repeatable,
        digest: sale.digest,
        description: sale.description.clone(),
        mime_type: sale.mime_type.clone(),
        policy: sale.policy.clone(),
        session: sale.session.clone(),
        credential_types: sale.pay_by.clone(),
        methods: sale.methods.clone(),
    })
}
