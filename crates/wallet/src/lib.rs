//! The buyer's side: keys, the journal with the owner's rules, the authorizer that signs, and the paying HTTP client.

mod clock;
mod home;
pub mod journal;
pub mod keystore;
mod record;

pub use clock::system_clock;
pub use home::{Home, NoHome};
