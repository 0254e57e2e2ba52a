//! The buyer's side: keys, the journal with the owner's rules, the authorizer that signs, and the paying HTTP client.

mod agent_token;
mod audit_log;
mod authorizer;
mod books;
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
pub mod outbox;
mod purse;
mod record;
mod refusals;
mod screen;
pub mod signer;
pub mod transact;
mod unshown;
pub mod vault;
mod world;

pub use agent_token::{AgentToken, AgentTokenError};
pub use audit_log::{AuditError, AuditLog};
pub use authorizer::{Authorization, Authorizer, Denied, Intent, IsDevKey, LocalAuthorizer, Ticket};
pub use books::{Books, Budget, Cap, Limits, Share, Used, named_hosts};
pub use chain_view::{ChainView, ChannelSight, EngineView, EscrowFacts, Permit2State, REORG_MARGIN, Sight};
pub use clock::{ClockFault, MAX_CHAIN_LAG, system_clock};
pub use home::{Home, NoHome};
pub use offer::{EchoError, Offer, OfferMpp, OfferSession, OfferV2, SESSION, UnpayableError};
pub use purse::{Answered, Brought, Deposit, Purse, Quote, SessionDenied, Spent};
pub use screen::Ask;
pub use world::TokioWorld;
