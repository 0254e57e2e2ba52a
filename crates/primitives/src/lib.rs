//! Money, assets, networks, ids and timestamps: the shared vocabulary of every farthing crate.
//!
//! Nothing here does I/O, asks for the time or for randomness, or uses a float.

mod asset;
mod id;
mod money;
mod network;
mod registry;
mod time;

#[cfg(test)]
mod tests;

pub use asset::{Address, AddressError, Asset, AssetId, AssetIdError, Eip712Domain, PullMethod};
pub use id::{AttemptId, IdError, PaymentId, PurchaseId, RefundId, RequestHash, SlotId, TenantId};
pub use money::{AmountError, Money, MoneyError, parse_atoms};
pub use network::{Network, NetworkError};
pub use registry::{DollarError, Registry, RegistryError};
pub use time::Timestamp;
