//! The keys that pay: in this process, or with somebody who signs for it and never gives them out.

pub mod kms;
pub mod pkcs11;
mod sigv4;

use std::fmt;
use std::time::Duration;

use farthing_evm::voucher::Voucher;
use farthing_evm::{B256, Domain, Key, Signature, TransferAuthorization, from_alloy, keccak256};
use farthing_primitives::Address;
use farthing_rails::exact_evm::buy;

/// What of ours is to be signed.
///
/// It is made of a typed payment and in this crate only: who has a signer gets no hash of somebody else's signed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToSign {
    kind: Kind,
    digest: B256,
}

/// What kind of thing is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A transfer, by EIP-3009 or through Permit2.
    Payment,
    /// An allowance for Permit2, by EIP-2612.
    Allowance,
    /// A deposit into a payment channel, by EIP-3009.
    Deposit,
    /// A voucher of a payment channel.
    Voucher,
    /// What is left on a session key, on its way to where the key says, by EIP-3009.
    WayHome,
}

impl ToSign {
    pub(crate) fn payment(unsigned: &buy::Unsigned) -> Self {
        Self { kind: Kind::Payment, digest: unsigned.digest() }
    }

    pub(crate) fn allowance(unsigned: &buy::UnsignedApproval) -> Self {
        Self { kind: Kind::Allowance, digest: unsigned.digest() }
    }

    pub(crate) fn deposit(transfer: &TransferAuthorization, token: &Domain) -> Self {
        Self { kind: Kind::Deposit, digest: transfer.receive_digest(token) }
    }

    pub(crate) fn voucher(voucher: &Voucher, escrow: &Domain) -> Self {
        Self { kind: Kind::Voucher, digest: voucher.digest(escrow) }
    }

    pub(crate) fn way_home(transfer: &TransferAuthorization, token: &Domain) -> Self {
        Self { kind: Kind::WayHome, digest: transfer.transfer_digest(token) }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The typed data's digest.
    ///
    /// Spec: EIP-712.
    pub fn digest(&self) -> B256 {
        self.digest
    }
}

/// Why something was not signed. What a service says of itself is in our log: an agent needs none of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("{signer} has not answered within {} ms", .within.as_millis())]
    Late { signer: String, within: Duration },
    #[error("{signer} cannot be reached")]
    Unreachable { signer: String },
    #[error("{signer} refuses: {why}")]
    Refused { signer: String, why: String },
    #[error("what {signer} answered cannot be read: {why}")]
    Malformed { signer: String, why: &'static str },
    #[error("what {signer} answered is no signature by {address} over what it was asked to sign")]
    OfSomethingElse { signer: String, address: Address },
    #[error("{signer} has too much to sign already")]
    Busy { signer: String },
}

impl SignError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Late { .. } => "signer_timeout",
            Self::Unreachable { .. } => "signer_unreachable",
            Self::Refused { .. } => "signer_refused",
            Self::Malformed { .. } => "signer_malformed",
            Self::OfSomethingElse { .. } => "signer_mismatch",
            Self::Busy { .. } => "signer_busy",
        }
    }
}

/// A key that pays.
///
/// It is asked only for what is written down already. If it fails, nothing was presented: a signature that was made and
/// didn't arrive is known to nobody but the signer.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The account whose money it moves.
    fn address(&self) -> Address;

    /// Signs; the calling thread waits. It ends within a time that the signer is made with.
    ///
    /// # Errors
    /// [`SignError`]. A signature is given out only if it is the account's and over what was asked for.
    fn sign(&self, what: &ToSign) -> Result<Signature, SignError>;

    /// What only the holder of this key can know, for a purpose, and finds again without any memory. `None` if the key
    /// is where it gives no such thing, as where one message is signed in another way each time.
    fn secret(&self, purpose: &[u8]) -> Option<B256>;
}

impl Signer for Key {
    fn address(&self) -> Address {
        from_alloy(Self::address(self))
    }

    fn sign(&self, what: &ToSign) -> Result<Signature, SignError> {
        Ok(Self::sign(self, what.digest))
    }

    fn secret(&self, purpose: &[u8]) -> Option<B256> {
        Some(keccak256(Self::sign(self, keccak256(purpose)).to_bytes()))
    }
}
