//! EIP-712 digests, hashed over fixed buffers: nothing is allocated per message.

use alloy_primitives::{Address, B256, U256, b256, keccak256};

use crate::known;

/// `TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)`
///
/// Spec: EIP-3009.
pub const AUTHORIZATION_TYPEHASH: B256 =
    b256!("7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267");

/// `ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)`
///
/// Spec: EIP-3009.
pub const RECEIVE_TYPEHASH: B256 = b256!("d099cc98ef71107a616c4f0f941f04c322d8e254fe26b3c6668db87aae413de8");

/// `CancelAuthorization(address authorizer,bytes32 nonce)`
///
/// Spec: EIP-3009.
pub const CANCEL_TYPEHASH: B256 = b256!("158b0a9edf7a828aad02f63cd515c68ef2f50ba807396f6d12842833a1597429");

/// `Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)`
///
/// Spec: EIP-2612.
pub const PERMIT_TYPEHASH: B256 = b256!("6e71edae12b1b97f4d1f60370fef10105fa2faae0126114a169c64845d6126c9");

/// `TokenPermissions(address token,uint256 amount)`
pub const TOKEN_PERMISSIONS_TYPEHASH: B256 =
    b256!("618358ac3db8dc274f0cd8829da7e234bd48cd73c4a740aede1adec9846d06a1");

/// `Witness(address to,uint256 validAfter)`
///
/// Spec: x402ExactPermit2Proxy, `WITNESS_TYPEHASH`.
pub const WITNESS_TYPEHASH: B256 = b256!("d97b3239a7f32295517bd14cb074edfdd188dfe5eb42f802bb26d4fd1eb12c37");

/// `PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness
/// witness)` followed by the two types that it refers to, in alphabetical order.
pub const PERMIT2_WITNESS_TYPEHASH: B256 =
    b256!("ebc156cd23678a74c94df13d772ef5478420637f0c94bd10d509e1dc98f521c7");

/// `EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)`
const DOMAIN_TYPEHASH: B256 = b256!("8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f");

/// `EIP712Domain(string name,uint256 chainId,address verifyingContract)`
const UNVERSIONED_DOMAIN_TYPEHASH: B256 =
    b256!("8cad95687ba82c2ce50e74f7b754645e5117c3a5bec8151c0726d5857980a866");

/// The place where a signature counts: one contract on one chain. Hashed once, then used for every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Domain {
    separator: B256,
    chain_id: u64,
    contract: Address,
}

impl Domain {
    /// The domain of a token, or of anything else that has a name and a version.
    pub fn new(name: &str, version: &str, chain_id: u64, contract: Address) -> Self {
        let mut words = Words::<5>::new(DOMAIN_TYPEHASH);
        words.hash(1, keccak256(name.as_bytes()));
        words.hash(2, keccak256(version.as_bytes()));
        words.number(3, U256::from(chain_id));
        words.address(4, contract);
        Self { separator: words.keccak(), chain_id, contract }
    }

    /// The domain of Permit2 on a chain. It has no version.
    pub fn permit2(chain_id: u64) -> Self {
        Self::permit2_at(chain_id, known::PERMIT2)
    }

    /// The same where Permit2 is not at its usual address.
    pub fn permit2_at(chain_id: u64, contract: Address) -> Self {
        let mut words = Words::<4>::new(UNVERSIONED_DOMAIN_TYPEHASH);
        words.hash(1, keccak256(b"Permit2"));
        words.number(2, U256::from(chain_id));
        words.address(3, contract);
        Self { separator: words.keccak(), chain_id, contract }
    }

    pub fn separator(&self) -> B256 {
        self.separator
    }

    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    pub fn contract(&self) -> Address {
        self.contract
    }

    /// What is signed: `keccak256(0x19 0x01 ‖ separator ‖ struct hash)`.
    pub(crate) fn digest(&self, struct_hash: B256) -> B256 {
        let mut bytes = [0u8; 66];
        bytes[0] = 0x19;
        bytes[1] = 0x01;
        bytes[2..34].copy_from_slice(self.separator.as_slice());
        bytes[34..].copy_from_slice(struct_hash.as_slice());
        keccak256(bytes)
    }
}

/// A transfer that whoever holds the signature may execute, once, inside a window.
///
/// Spec: EIP-3009. Both edges of the window are excluded: `validAfter < block.timestamp < validBefore`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransferAuthorization {
    pub from: Address,
    pub to: Address,
    pub value: U256,
    pub valid_after: U256,
    pub valid_before: U256,
    pub nonce: B256,
}

impl TransferAuthorization {
    /// What the payer signs so that anybody may execute the transfer.
    pub fn transfer_digest(&self, domain: &Domain) -> B256 {
        domain.digest(self.struct_hash(AUTHORIZATION_TYPEHASH))
    }

    /// What the payer signs so that only the payee may execute the transfer.
    pub fn receive_digest(&self, domain: &Domain) -> B256 {
        domain.digest(self.struct_hash(RECEIVE_TYPEHASH))
    }

    fn struct_hash(&self, typehash: B256) -> B256 {
        let mut words = Words::<7>::new(typehash);
        words.address(1, self.from);
        words.address(2, self.to);
        words.number(3, self.value);
        words.number(4, self.valid_after);
        words.number(5, self.valid_before);
        words.hash(6, self.nonce);
        words.keccak()
    }
}

/// Makes an unused authorization unusable.
///
/// Spec: EIP-3009, `cancelAuthorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CancelAuthorization {
    pub authorizer: Address,
    pub nonce: B256,
}

impl CancelAuthorization {
    pub fn digest(&self, domain: &Domain) -> B256 {
        let mut words = Words::<3>::new(CANCEL_TYPEHASH);
        words.address(1, self.authorizer);
        words.hash(2, self.nonce);
        domain.digest(words.keccak())
    }
}

/// An allowance given by signature.
///
/// Spec: EIP-2612.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permit {
    pub owner: Address,
    pub spender: Address,
    pub value: U256,
    pub nonce: U256,
    pub deadline: U256,
}

impl Permit {
    /// What the owner signs; `domain` is the token's.
    pub fn digest(&self, domain: &Domain) -> B256 {
        let mut words = Words::<6>::new(PERMIT_TYPEHASH);
        words.address(1, self.owner);
        words.address(2, self.spender);
        words.number(3, self.value);
        words.number(4, self.nonce);
        words.number(5, self.deadline);
        domain.digest(words.keccak())
    }
}

/// A Permit2 transfer whose recipient the payer fixed by the witness of the x402 exact proxy.
///
/// Spec: x402 exact on EVM, section 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WitnessTransfer {
    pub token: Address,
    pub amount: U256,
    pub spender: Address,
    pub nonce: U256,
    /// The last second in which Permit2 accepts it.
    pub deadline: U256,
    pub to: Address,
    /// The first second in which the proxy accepts it.
    pub valid_after: U256,
}

impl WitnessTransfer {
    /// What the payer signs; `domain` is [`Domain::permit2`].
    pub fn digest(&self, domain: &Domain) -> B256 {
        let mut permitted = Words::<3>::new(TOKEN_PERMISSIONS_TYPEHASH);
        permitted.address(1, self.token);
        permitted.number(2, self.amount);
        let mut witness = Words::<3>::new(WITNESS_TYPEHASH);
        witness.address(1, self.to);
        witness.number(2, self.valid_after);
        let mut words = Words::<6>::new(PERMIT2_WITNESS_TYPEHASH);
        words.hash(1, permitted.keccak());
        words.address(2, self.spender);
        words.number(3, self.nonce);
        words.number(4, self.deadline);
        words.hash(5, witness.keccak());
        domain.digest(words.keccak())
    }
}

/// `N` ABI words on the stack, the first of them a type hash.
pub(crate) struct Words<const N: usize>([[u8; 32]; N]);

impl<const N: usize> Words<N> {
    pub(crate) fn new(typehash: B256) -> Self {
        let mut words = [[0u8; 32]; N];
        words[0] = typehash.0;
        Self(words)
    }

    pub(crate) fn hash(&mut self, at: usize, hash: B256) {
        self.0[at] = hash.0;
    }

    pub(crate) fn number(&mut self, at: usize, number: U256) {
        self.0[at] = number.to_be_bytes();
    }

    pub(crate) fn address(&mut self, at: usize, address: Address) {
        self.0[at][12..].copy_from_slice(address.as_slice());
    }

    pub(crate) fn keccak(&self) -> B256 {
        keccak256(self.0.as_flattened())
    }
}
