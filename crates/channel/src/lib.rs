//! Voucher channels as pure state machines: the payer's side and the payee's.
//!
//! A payer locks a deposit in an escrow and signs vouchers, each for all that it owes so far. The payee takes what the
//! newest allows, whenever it likes. Nothing in this crate does I/O, knows a chain or a curve, or asks for the time.
//!
//! [`Payee`] and [`Payer`] are moved by `step(event, now)`, which returns what one atomic store call has to make
//! durable: the next state, and for a payee also entries of its books and rows of its charges. What anybody else can
//! see of a step happens after that. `next(now)` says what is to be done in a state: the same answer for a process
//! that came there by itself and for one that was restarted there.
//!
//! # The payee
//!
//! ```text
//!              seen_deep                  close_asked, close_decided,
//!  ┌─────────┐ (deposit)  ┌──────┐  seen(close requested | finalized)  ┌─────────┐  seen_deep   ┌───────────┐
//!  │ opening ├───────────▶│ open ├────────────────────────────────────▶│ closing ├─────────────▶│ finalized │
//!  └─┬─────▲─┘            └─┬──▲─┘                                     └─┬──┬────┘ (finalized)  └───────────┘
//!    │     └────────────────┘  └── seen(taken back by top-up or reorg) ──┘  │
//!    │      seen(no channel)  ◀───────────────────────────────────────────┘
//!    └ open_failed ─▶ void ─ seen_deep ─▶ open
//! ```
//!
//! - The chain is believed by value: a [`View`] is all that the escrow says, so deposits, top-ups, settlements, forced
//!   closes and withdrawals need no events of their own, may be seen twice, late or not at all, and by whomever they
//!   were made. Only a *deep* view gives something (a deposit, a settlement); a view of the newest block can take
//!   something away (no service while a forced close is in sight).
//! - A request is served between [`PayeeEvent::Started`], which sets aside what it may cost, and
//!   [`PayeeEvent::Served`], which charges it in the commit that stores its answer. A stream is charged unit by unit
//!   ([`PayeeEvent::Metered`]), before each leaves. What is set aside or charged is set aside or charged once: no two
//!   requests share an increment.
//! - A [`Charge`] is a row of the store, unique by channel and request, so that the same request finds what became of
//!   it ([`Charge::again`]) and is not charged twice. Only running ones are part of the channel's own record.
//! - A forced close is answered: [`PayeeNext::Close`] says with what and by when. It is noticed by looking at the escrow
//!   every [`Limits::look_every`], and once after a start.
//! - Amounts are told to the bearer of a [`Proven`] only, and vouchers are taken as [`VerifiedVoucher`] only.
//!
//! # The payer
//!
//! ```text
//!  opening ──seen_deep──▶ open ──leave_decided──▶ leaving ──close_asked──▶ (patience) ──requestClose──▶ requested
//!     │                                              │                                                     │ (grace)
//!     └──open_failed──▶ void                         └────────── the payee closes ─────────▶ over ◀──withdraw┘
//!                                                                                            └─seen_deep─▶ finalized
//! ```
//!
//! Whatever it signs or sends is durable before: the intent to open, the high-water mark ([`PayerEvent::Raised`]), a
//! top-up, a forced close. [`Payer::most_taken`] and [`Payer::most_lost`] say what it can come to.
//!
//! # The books (payee)
//!
//! | step | purpose | debit ← credit |
//! |---|---|---|
//! | deposit or top-up, deep | `deposit` | escrow ← deposits |
//! | a call begins | `sale`, pending | receivable ← revenue |
//! | a call or a stream ends | `sale` | receivable ← revenue |
//! | settlement or close, deep | `settlement`, `claim` | treasury ← receivable, deposits ← escrow |
//! | finalized | `release` | deposits ← escrow |
//! | finalized, served more than was signed | `write-off` | loss ← receivable |
//! | a transaction of ours | `gas` | gas ← relayer |
//!
//! What is pending in receivable is what running calls may cost; what is posted there is owed, or, if it is negative,
//! paid ahead. What a running stream has been charged is in the channel's record and goes into the books when it ends.
//!
//! Spec: draft-evm-session-00 (an MPP method). The core knows nothing that x402 batch settlement or Tempo sessions do
//! differently, except [`Capture`].

mod codec;
pub mod meter;
mod payee;
mod payee_step;
mod payer;
pub mod record;
mod refusal;
mod terms;
mod voucher;

#[cfg(test)]
mod tests;

pub use meter::{Exact, Meter, MeterError, Price, Unit};
pub use payee::{
    Again, BeginError, Charge, ChargeState, Claim, Funding, Limits, NewCharge, NewPayee, Payee, PayeeAction,
    PayeeError, PayeeEvent, PayeeNext, PayeeState, Receipt, Taking, Why,
};
pub use payee_step::PayeeStep;
pub use payer::{
    Budget, Overclaim, Payer, PayerAction, PayerError, PayerEvent, PayerNext, PayerState, PayerStep,
};
pub use refusal::{Need, Problem, Refusal};
pub use terms::{Attempt, Capture, ChannelId, NotAChannelId, Terms, View};
pub use voucher::{BadSignature, MAX_SIGNATURE_LEN, Proven, Shown, VerifiedVoucher, Verifier, Voucher};
