//! What is signed about a channel on an EVM chain: vouchers, the payee's authorizations, and deposits by Permit2.
//!
//! Spec: draft-evm-session-00. A channel's amounts are `uint128`, as everywhere in this workspace.

use alloy_primitives::{Address, B256, U256, b256};

use crate::typed::{Domain, Words};
use crate::{SigError, Signature, TOKEN_PERMISSIONS_TYPEHASH};

/// Spec: draft-evm-session-00, "Domain Separator".
pub const DOMAIN_NAME: &str = "EVM Payment Channel";
/// Spec: as above.
pub const DOMAIN_VERSION: &str = "1";

/// `Voucher(bytes32 channelId,uint128 cumulativeAmount)`
///
/// Spec: draft-evm-session-00, "Voucher Signing Format".
pub const VOUCHER_TYPEHASH: B256 = b256!("e97c93f01d3ef8eaba1586553df13308f236815bf4ea49c7b696895d8f5ea68a");

/// `SettleAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)`
///
/// Spec: draft-evm-session-00, "Payee-initiated functions".
pub const SETTLE_AUTHORIZATION_TYPEHASH: B256 =
    b256!("e770f70d6fd56150ce37d91208e1671a83000c526586c0e72730729aafc7824b");

/// `CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)`
///
/// Spec: as above. Tempo's type of the same name has two fields and is another type.
pub const CLOSE_AUTHORIZATION_TYPEHASH: B256 =
    b256!("2927c9b6c7c7351a28bdb714bc3cad978db4e5644eb85cd68583d41353ae4474");

/// `ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)`
///
/// Spec: draft-evm-session-00, "Open Payload (feePayer: true)".
pub const OPEN_WITNESS_TYPEHASH: B256 =
    b256!("2d56d4bac580dcfbd851edfd7c93ebf41a18f42956732b215dcdfa1760be6014");

/// `ChannelTopUpWitness(bytes32 channelId)`
///
/// Spec: as above.
pub const TOP_UP_WITNESS_TYPEHASH: B256 =
    b256!("96eb8764419b2871ed49f3d5fa8666eb8d73b2eaf4c1b86839d654861f82d965");

/// Permit2's transfer with [`OPEN_WITNESS_TYPEHASH`], the types that it refers to in alphabetical order.
pub const PERMIT2_OPEN_TYPEHASH: B256 =
    b256!("445a0aa33e0e4d6ed58ccb8527730a216993d556b9bbe95723333073ec333418");

/// Permit2's transfer with [`TOP_UP_WITNESS_TYPEHASH`], the types that it refers to in alphabetical order.
pub const PERMIT2_TOP_UP_TYPEHASH: B256 =
    b256!("7379f21d95c03b311aefcb3b775be396dcb8bc466117e4d8e4f167fd69aa7cbd");

/// Where the vouchers of an escrow count.
pub fn escrow_domain(chain_id: u64, escrow: Address) -> Domain {
    Domain::new(DOMAIN_NAME, DOMAIN_VERSION, chain_id, escrow)
}

/// What a channel's id is made of. A finalized channel's id never comes again: another one needs another salt.
///
/// Spec: draft-evm-session-00, "Channel State".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelParts {
    pub payer: Address,
    pub payee: Address,
    pub token: Address,
    pub salt: B256,
    /// Who signs vouchers; the zero address stands for the payer.
    pub authorized_signer: Address,
    pub escrow: Address,
    pub chain_id: u64,
}

impl ChannelParts {
    /// `keccak256(abi.encode(payer, payee, token, salt, authorizedSigner, escrow, chainId))`
    pub fn id(&self) -> B256 {
        let mut words = Words::<7>::new(B256::ZERO);
        self.put(&mut words);
        words.address(5, self.escrow);
        words.number(6, U256::from(self.chain_id));
        words.keccak()
    }

    /// The nonce of the EIP-3009 authorization that opens this channel and no other.
    ///
    /// Spec: draft-evm-session-00, "Front-running protection".
    pub fn open_nonce(&self) -> B256 {
        let mut words = Words::<5>::new(B256::ZERO);
        self.put(&mut words);
        words.keccak()
    }

    /// Whose signature a voucher of this channel needs.
    pub fn voucher_signer(&self) -> Address {
        if self.authorized_signer.is_zero() { self.payer } else { self.authorized_signer }
    }

    fn put<const N: usize>(&self, words: &mut Words<N>) {
        words.address(0, self.payer);
        words.address(1, self.payee);
        words.address(2, self.token);
        words.hash(3, self.salt);
        words.address(4, self.authorized_signer);
    }
}

/// The nonce of the EIP-3009 authorization that adds `additional` to this channel and to no other.
///
/// Spec: draft-evm-session-00, "Front-running protection".
pub fn top_up_nonce(channel: B256, additional: u128, from: Address, salt: B256) -> B256 {
    let mut words = Words::<4>::new(channel);
    words.number(1, U256::from(additional));
    words.address(2, from);
    words.hash(3, salt);
    words.keccak()
}

/// What the payer promises: all in all, so much out of this channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Voucher {
    pub channel: B256,
    pub cumulative: u128,
}

impl Voucher {
    /// What the payer, or whom it authorized, signs; `domain` is [`escrow_domain`].
    pub fn digest(&self, domain: &Domain) -> B256 {
        let mut words = Words::<3>::new(VOUCHER_TYPEHASH);
        words.hash(1, self.channel);
        words.number(2, U256::from(self.cumulative));
        domain.digest(words.keccak())
    }

    /// Checks that `signature` is `signer`'s and in canonical form. An account with code has to be asked instead.
    ///
    /// # Errors
    /// [`VoucherError`], without a word about the channel.
    pub fn check(&self, domain: &Domain, signature: &[u8], signer: Address) -> Result<(), VoucherError> {
        // Spec: draft-evm-session-00, "Signature Verification" 1: canonical, which parsing sees to.
        let found = Signature::parse(signature)?.recover(self.digest(domain))?;
        // Spec: as above, 2: it is the authorized signer's.
        if found == signer { Ok(()) } else { Err(VoucherError::OtherSigner) }
    }
}

/// Why a signature does not make a voucher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    #[error(transparent)]
    Signature(#[from] SigError),
    #[error("the signature is not that of who may sign for this channel")]
    OtherSigner,
}

/// What the payee allows anybody to submit for it.
///
/// Spec: draft-evm-session-00, "Payee-initiated functions": settling and closing share one set of nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PayeeAuthorization {
    pub channel: B256,
    pub cumulative: u128,
    pub nonce: U256,
    /// The last second in which the escrow accepts it.
    pub deadline: U256,
}

impl PayeeAuthorization {
    /// What the payee signs for `settleWithAuthorization`; `domain` is [`escrow_domain`].
    pub fn settle_digest(&self, domain: &Domain) -> B256 {
        domain.digest(self.struct_hash(SETTLE_AUTHORIZATION_TYPEHASH))
    }

    /// What the payee signs for `closeWithAuthorization`; `domain` is [`escrow_domain`].
    pub fn close_digest(&self, domain: &Domain) -> B256 {
        domain.digest(self.struct_hash(CLOSE_AUTHORIZATION_TYPEHASH))
    }

    fn struct_hash(&self, typehash: B256) -> B256 {
        let mut words = Words::<5>::new(typehash);
        words.hash(1, self.channel);
        words.number(2, U256::from(self.cumulative));
        words.number(3, self.nonce);
        words.number(4, self.deadline);
        words.keccak()
    }
}

/// A deposit by Permit2: what it is for, the escrow reads from the witness.
///
/// Spec: draft-evm-session-00, "Open Payload (feePayer: true)", Permit2 shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PermitDeposit {
    pub token: Address,
    pub amount: U256,
    /// Permit2 takes it from whoever calls: the escrow.
    pub escrow: Address,
    pub nonce: U256,
    /// The last second in which Permit2 accepts it.
    pub deadline: U256,
    pub witness: DepositWitness,
}

/// What a deposit by Permit2 is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DepositWitness {
    Open { payee: Address, salt: B256, authorized_signer: Address },
    TopUp { channel: B256 },
}

impl PermitDeposit {
    /// What the payer signs; `domain` is Permit2's ([`Domain::permit2`], [`Domain::permit2_at`]).
    pub fn digest(&self, domain: &Domain) -> B256 {
        let mut permitted = Words::<3>::new(TOKEN_PERMISSIONS_TYPEHASH);
        permitted.address(1, self.token);
        permitted.number(2, self.amount);
        let (typehash, witness) = match self.witness {
            DepositWitness::Open { payee, salt, authorized_signer } => {
                let mut words = Words::<4>::new(OPEN_WITNESS_TYPEHASH);
                words.address(1, payee);
                words.hash(2, salt);
                words.address(3, authorized_signer);
                (PERMIT2_OPEN_TYPEHASH, words.keccak())
            }
            DepositWitness::TopUp { channel } => {
                let mut words = Words::<2>::new(TOP_UP_WITNESS_TYPEHASH);
                words.hash(1, channel);
                (PERMIT2_TOP_UP_TYPEHASH, words.keccak())
            }
        };
        let mut words = Words::<6>::new(typehash);
        words.hash(1, permitted.keccak());
        words.address(2, self.escrow);
        words.number(3, self.nonce);
        words.number(4, self.deadline);
        words.hash(5, witness);
        domain.digest(words.keccak())
    }
}

#[cfg(test)]
#[path = "voucher_tests.rs"]
mod tests;
