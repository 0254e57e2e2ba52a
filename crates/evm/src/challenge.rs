use alloy_primitives::{B256, keccak256};

/// What ties a signature to one challenge of MPP: the nonce of an EIP-3009 authorization that answers it.
///
/// Spec: draft-evm-charge-00, "Challenge Binding": `keccak256(abi.encodePacked(id, realm))`.
pub fn challenge_hash(id: &str, realm: &str) -> B256 {
    keccak256([id.as_bytes(), realm.as_bytes()].concat())
}
