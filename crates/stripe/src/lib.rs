//! `stripe/charge`: charges through Stripe, with shared payment tokens.
//!
//! A plug-in of two halves. [`StripeCharge`] is what is said: the request of a challenge, and what a credential
//! presents. [`StripeProcessor`] is what is done, over an [`Api`]: it looks at the token, makes the charge, and finds out
//! what became of it. Everything else, the states of a payment, its claim, its books and its recovery, is the engine's.
//!
//! Everything here was tested against a stand-in that behaves as Stripe's documentation says (`tests/support`), and
//! never against Stripe itself: `docs/selling/stripe.md`.
//!
//! Spec: draft-stripe-charge-00; Stripe's API reference on PaymentIntents, shared payment tokens, idempotent requests
//! and errors.

mod answer;
mod api;
mod currency;
mod instruction;
mod method;
mod processor;
mod witness;

pub use api::{API_VERSION, Answer, Api, Call, DEFAULT_API, HttpApi, Kind, MAX_ANSWER, NoAnswer};
pub use currency::{CURRENCIES, Currency, MAX_AMOUNT, PriceError};
pub use method::{MAX_TOKEN_BYTES, MethodError, StripeCharge, idempotency_key};
pub use processor::{LINGER, PAYMENT_KEY, POST_AGAIN_FOR, StripeProcessor};
