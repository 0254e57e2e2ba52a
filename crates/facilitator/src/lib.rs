//! `/verify`, `/settle`, `/supported` and `/health` over the engine: a facilitator of x402 payments, v1 and v2.
//!
//! [`Facilitator`] decides, [`router`] and [`serve`] carry it over HTTP. Verifying stores nothing and settling trusts no
//! verdict: the engine claims the payment and reads the chain itself. The requirements in a request are the seller's,
//! who is the tenant; what the payment says that it accepted decides nothing.
//!
//! Spec: x402 v1 section 7, v2 section 7.

mod answer;
mod config;
mod health;
mod http;
mod limit;
mod mirror;
mod read;
mod recall;
mod service;
mod settle;
mod supported;
mod tenant;

pub use config::{
    FacilitatorConfig, GasBudget, KeyDigest, KeyTooShort, MAX_REQUEST_BYTES, MIN_KEY_CHARS, ServedNetwork,
    SetupError, Tenant, TenantLimits, Versions,
};
pub use http::{ServeError, router, serve};
pub use service::Facilitator;
