//! The seller's side of voucher channels: [`Till`] drives [`farthing_channel::Payee`] as the engine drives payments.
//!
//! ```text
//!  open, top_up, close ─▶ the channel's place ─▶ ChannelStore (version, charges, books, slots: one commit)
//!  voucher, charges    ─▶          ▲
//!                                keeper ─▶ Payee::next ─▶ the escrow, by the relayer's slots
//! ```
//!
//! What is to be done for a channel is a function of its state, and the keeper asks the same question after a restart.

mod desk;
mod keeper;
mod open;
mod serve;
mod store;
mod till;
mod view;

pub use desk::Desk;
pub use open::{Closed, OpenBy, Opening, TopUp, TopUpBy, ToppedUp};
pub use serve::{Asked, Started, Ticket, Woken};
pub use store::{
    Begun, ChannelBegin, ChannelCommit, ChannelFilter, ChannelStore, MAX_KEPT_ANSWERS, is_at_work,
};
pub use till::{Seller, Till, TillConfig, TillError};
pub use view::channel_view;
