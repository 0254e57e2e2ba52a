//! EVM typed data, signatures, calldata and ABI: no network.
//!
//! Everything here is a pure function of its arguments. Whatever a stranger sent is bounded before it is decoded,
//! and a bad input is a small typed error.

pub mod abi;
mod address;
pub mod call;
mod challenge;
pub mod der;
mod erc6492;
pub mod escrow;
mod event;
pub mod known;
mod revert;
mod signature;
mod transaction;
mod typed;
pub mod vault;
pub mod voucher;

#[cfg(test)]
mod tests;

pub use address::{eip55, from_alloy, to_alloy};
pub use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
pub use call::{Read, ReadKind, ReadResult};
pub use challenge::challenge_hash;
pub use erc6492::{MAX_SIGNATURE_LEN, WrapError, Wrapped, delegation, unwrap_erc6492, wrap_erc6492};
pub use event::{AuthorizationCanceled, AuthorizationUsed, Log, Transfer};
pub use revert::Revert;
pub use signature::{Key, KeyError, SigError, Signature, recover};
pub use transaction::{SignedTransaction, TransactionError};
pub use typed::{
    AUTHORIZATION_TYPEHASH, CANCEL_TYPEHASH, CancelAuthorization, Domain, PERMIT_TYPEHASH,
    PERMIT2_WITNESS_TYPEHASH, Permit, RECEIVE_TYPEHASH, TOKEN_PERMISSIONS_TYPEHASH, TransferAuthorization,
    WITNESS_TYPEHASH, WitnessTransfer,
};
