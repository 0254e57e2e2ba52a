use std::fmt;
use std::sync::Arc;

use farthing_primitives::Address;

use crate::{ChannelId, Terms};

/// The longest signature that is looked at, in bytes: an account with code may need more than the 65 of a key.
pub const MAX_SIGNATURE_LEN: usize = 4096;

/// What somebody shows as a voucher. Nothing of it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    pub channel: ChannelId,
    pub cumulative: u128,
    pub signature: &'a [u8],
    /// The least that it has to add, in atoms, by the challenge that it answers: routes that share a channel may ask for
    /// different steps.
    pub min_delta: u128,
}

/// Why a signature proves nothing. Says nothing about the channel: whoever gets this has shown no right to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    #[error("not a signature")]
    Malformed,
    #[error("the signature is not in canonical form")]
    NotCanonical,
    #[error("the signature is not that of who may sign for this channel")]
    OtherSigner,
    #[error("the voucher is for another channel")]
    OtherChannel,
}

/// Who knows how vouchers of a rail are signed. An account with code has to be asked on chain before.
pub trait Verifier {
    /// Returns the signature as the escrow accepts it, if it is one of `signer` for this channel and amount.
    ///
    /// # Errors
    /// [`BadSignature`]. A signature that the escrow would refuse has to be refused here.
    fn verify(&self, terms: &Terms, shown: &Shown<'_>) -> Result<Vec<u8>, BadSignature>;
}

/// A signed amount that was checked when it came, and is kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Voucher {
    pub(crate) cumulative: u128,
    pub(crate) signature: Arc<[u8]>,
}

impl Voucher {
    /// All that the payee may take with it, counted from the beginning of the channel, in atoms.
    pub fn cumulative(&self) -> u128 {
        self.cumulative
    }

    /// As the escrow accepts it.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

impl fmt::Debug for Voucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Voucher({})", self.cumulative)
    }
}

/// A voucher whose signature was checked. The channel accepts no other, and there is one way to come by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedVoucher {
    channel: ChannelId,
    signer: Address,
    voucher: Voucher,
    min_delta: u128,
}

impl VerifiedVoucher {
    /// Checks what was shown against the channel's terms.
    ///
    /// # Errors
    /// [`BadSignature`]; it holds no amount.
    ///
    /// Spec: draft-evm-session-00, "Voucher Verification" 3 to 5: before anything is compared or answered.
    pub fn check(shown: &Shown<'_>, terms: &Terms, verifier: &impl Verifier) -> Result<Self, BadSignature> {
        if shown.channel != terms.id {
            return Err(BadSignature::OtherChannel);
        }
        if shown.signature.len() > MAX_SIGNATURE_LEN {
            return Err(BadSignature::Malformed);
        }
        let signature = verifier.verify(terms, shown)?;
        let voucher = Voucher { cumulative: shown.cumulative, signature: signature.into() };
        Ok(Self { channel: terms.id, signer: terms.signer.clone(), voucher, min_delta: shown.min_delta })
    }

    /// That its bearer may know about the channel, and use it.
    pub fn proven(&self) -> Proven {
        Proven { channel: self.channel, signer: self.signer.clone() }
    }

    pub fn cumulative(&self) -> u128 {
        self.voucher.cumulative
    }

    pub(crate) fn min_delta(&self) -> u128 {
        self.min_delta
    }

    pub(crate) fn voucher(&self) -> &Voucher {
        &self.voucher
    }

    pub(crate) fn is_of(&self, terms: &Terms) -> bool {
        self.channel == terms.id && self.signer == terms.signer
    }
}

/// Proof that a request comes from who signs for the channel. No amount is told without it, and nothing is charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    channel: ChannelId,
    signer: Address,
}

impl Proven {
    /// For a rail that proves the key by something other than a voucher, e.g. by a signed challenge of no amount.
    pub fn check(
        terms: &Terms,
        check: impl FnOnce(&Address) -> Result<(), BadSignature>,
    ) -> Result<Self, BadSignature> {
        check(&terms.signer)?;
        Ok(Self { channel: terms.id, signer: terms.signer.clone() })
    }

    pub(crate) fn is_of(&self, terms: &Terms) -> bool {
        self.channel == terms.id && self.signer == terms.signer
    }
}
