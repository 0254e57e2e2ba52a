//! The buyer's side: keys, the journal with the owner's rules, the authorizer that signs, and the paying HTTP client.

mod audit_log;
mod authorizer;
mod chain_view;
pub mod client;
mod clock;
pub mod decisions;
pub mod escrows;
pub mod force;
mod holder;
mod home;
pub mod journal;
pub mod keystore;
mod offer;
mod purse;
mod record;
mod refusals;
mod world;

pub use audit_log::{AuditError, AuditLog};
pub use authorizer::{Authorization, Authorizer, Denied, Intent, IsDevKey, LocalAuthorizer, Ticket};
pub use chain_view::{ChainView, ChannelSight, EngineView, EscrowFacts, Permit2State, REORG_MARGIN, Sight};
pub use clock::{ClockFault, MAX_CHAIN_LAG, system_clock};
pub use home::{Home, NoHome};
pub use offer::{EchoError, Offer, OfferMpp, OfferSession, OfferV2, SESSION, UnpayableError};
pub use purse::{Answered, Brought, Deposit, Purse, Quote, SessionDenied, Spent};
pub use world::TokioWorld;
