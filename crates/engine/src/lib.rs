//! The only driver of payments: it runs effects, timers, waiters and the reconciler for paywall and facilitator.
//!
//! The engine owns the traits of everything it touches ([`Store`], [`Chain`], [`Rail`], [`Upstream`], [`World`])
//! and names no runtime, no database and no HTTP library.

mod chain;
mod channels;
mod clock;
mod drive;
mod engine;
mod evidence;
mod evm_rail;
mod facilitator;
mod finality;
mod live;
mod processor;
mod rail;
mod reasons;
mod recover;
mod refund;
mod relayer;
mod remote_rail;
mod response;
mod sale;
mod slot_call;
mod store;
mod world;

pub use chain::{
    Broadcast, Chain, ChainError, Fees, Head, KnownTx, LogFilter, Receipt, RelayerKey, SignedTx, Standing,
    Tag, TxHash, UnsignedTx,
};
pub use channels::{
    Asked, Begun, ChannelBegin, ChannelCommit, ChannelFilter, ChannelStore, Closed, Desk, MAX_KEPT_ANSWERS,
    OpenBy, Opening, Seller, Started, Ticket, Till, TillConfig, TillError, TopUp, TopUpBy, ToppedUp, Woken,
    channel_view, is_at_work,
};
pub use engine::{Engine, EngineConfig};
pub use evm_rail::{EvmRail, native_asset};
pub use facilitator::{
    Ask, Facilitator, FacilitatorAnswer, FacilitatorCall, MAX_FACILITATOR_ANSWER, NoAnswer,
};
pub use finality::{Depths, Finality};
pub use processor::{Fate, Processor, ProcessorRail};
pub use rail::{Funds, NotPrepared, Prepared, Progress, Rail};
pub use recover::Recovered;
pub use refund::{RefundError, Refunded};
pub use relayer::{Relayer, RelayerConfig};
pub use remote_rail::{RemoteRail, RemoteRailConfig, RemoteRailError};
pub use response::StoredResponse;
pub use sale::{ConflictKind, Permit, Sale, SaleOutcome, Upstream, UpstreamAnswer};
pub use slot_call::SlotCall;
pub use store::{
    BookCheck, Claim, Claimed, Commit, Credit, ExposureLimit, PaymentFilter, Store, StoreError, StoredSlot,
};
pub use world::{BoxFuture, World};
