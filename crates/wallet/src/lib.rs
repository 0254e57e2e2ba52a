//! The buyer's side: keys, the journal with the owner's rules, the authorizer that signs, and the paying HTTP client.

mod authorizer;
mod chain_view;
pub mod client;
mod clock;
mod holder;
mod home;
pub mod journal;
pub mod keystore;
mod offer;
mod record;
mod world;

pub use authorizer::{Authorization, Authorizer, Denied, Intent, IsDevKey, LocalAuthorizer};
pub use chain_view::{ChainView, EngineView, Permit2State, REORG_MARGIN, Sight};
pub use clock::{ClockFault, MAX_CHAIN_LAG, system_clock};
pub use home::{Home, NoHome};
pub use offer::{EchoError, Offer, OfferMpp, OfferV2};
pub use world::TokioWorld;
