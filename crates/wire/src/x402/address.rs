use std::fmt;

use farthing_primitives::{Address, AddressError, Network};

/// An address as a peer wrote it, beside the address that it means.
///
/// `==` compares the text, because an x402 server compares what it offered with what comes back byte for byte: an
/// address whose case changed on the way is another text. Use [`WireAddress::address`] to compare what is meant.
#[derive(Clone, PartialEq, Eq)]
pub struct WireAddress {
    text: Box<str>,
    address: Address,
}

impl WireAddress {
    pub fn parse(network: &Network, text: &str) -> Result<Self, AddressError> {
        Ok(Self { text: text.into(), address: Address::parse(network, text)? })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Writes the address in our own form: lower case on EVM chains.
impl From<Address> for WireAddress {
    fn from(address: Address) -> Self {
        Self { text: address.as_str().into(), address }
    }
}

impl fmt::Display for WireAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for WireAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
