//! A forward proxy that pays on the way, for programs that know nothing of payments.
//!
//! A program is told of it by `HTTP_PROXY` and `HTTPS_PROXY`, and asks as always. What is free passes as it is. What
//! has a price is paid by the wallet's client, within its owner's rules, and the program gets what was bought. TLS is
//! ended here for hosts that the owner names, and for nobody else: what is not named passes as an opaque tunnel.
//!
//! [`Proxy`] serves programs, a [`Desk`] knows them and their wallets, and an [`Authority`] makes certificates.

mod answer;
mod authority;
mod call;
mod desk;
mod headers;
mod left;
mod problem;
mod room;
mod serve;
mod target;
mod tunnel;
mod turns;

#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityError, Files};
pub use call::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES};
pub use desk::{Basic, Credentials, Customer, Desk, MakeClient, Refusal, Wallet};
pub use problem::Problem;
pub use serve::{Proxy, Settings};
