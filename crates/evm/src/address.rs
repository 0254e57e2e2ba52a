use alloy_primitives::Address;
use farthing_primitives::Address as Account;

/// The 20 bytes of one of our addresses, if it is an EVM address.
pub fn to_alloy(address: &Account) -> Option<Address> {
    address.evm_bytes().map(Address::from)
}

/// Our canonical form of an EVM address.
pub fn from_alloy(address: Address) -> Account {
    Account::from_evm_bytes(address.into_array())
}

/// Prints an address with the checksum in the case of its letters.
///
/// Spec: EIP-55.
pub fn eip55(address: Address) -> String {
    address.to_checksum(None)
}
