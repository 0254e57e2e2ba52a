//! The escrows that deposits may go into. An address alone says nothing on a chain where somebody else could have put
//! code there: a deposit needs both.

use farthing_evm::to_alloy;
use farthing_primitives::Address;

/// `PaymentChannelEscrow`, on every chain where somebody deployed it as `contracts/` says.
pub const ESCROW: [u8; 20] = [
    0xe8, 0x69, 0x3a, 0x0b, 0x6b, 0x6b, 0xa2, 0x23, 0x8a, 0xce, 0xb8, 0xa0, 0x52, 0xa5, 0xd5, 0xde, 0x1b,
    0xdf, 0x8e, 0x29,
];

/// Keccak-256 of its code.
pub const ESCROW_CODE: [u8; 32] = [
    0xc3, 0xbe, 0xf4, 0xbb, 0x5a, 0xd7, 0x19, 0x0d, 0xc8, 0xae, 0x71, 0xcc, 0x0f, 0xa6, 0x21, 0x06, 0x94,
    0x1d, 0xed, 0x43, 0xd4, 0x95, 0x09, 0x6e, 0xa8, 0xba, 0x76, 0x23, 0xbb, 0x5c, 0x0d, 0x71,
];

/// The code that has to be at an address which is called an escrow; `None` for one that nobody knows.
pub fn known(escrow: &Address) -> Option<[u8; 32]> {
    let address = to_alloy(escrow)?;
    (address.0.0 == ESCROW).then_some(ESCROW_CODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escrow_that_is_trusted_is_the_one_that_is_built() {
        let artifact = include_str!("../../../contracts/artifacts/PaymentChannelEscrow.json");
        let artifact: serde_json::Value = serde_json::from_str(artifact).unwrap();
        let deployment = &artifact["deployment"];
        let hex = |field: &str| hex::decode(&deployment[field].as_str().unwrap()[2..]).unwrap();
        assert_eq!(hex("address"), ESCROW);
        assert_eq!(hex("runtimeCodeHash"), ESCROW_CODE);
        assert_eq!(known(&Address::from_evm_bytes(ESCROW)), Some(ESCROW_CODE));
        assert_eq!(known(&Address::from_evm_bytes([1; 20])), None);
    }
}
