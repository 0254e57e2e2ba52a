use std::fmt;

use farthing_primitives::{Address, Network};

use super::MppError;
use crate::x402::WireError;

/// The longest `source`, in bytes.
const MAX_BYTES: usize = 512;
const PKH: &str = "did:pkh:eip155:";

/// Who says that it pays. Nothing is credited to it before a signature or the chain says the same.
///
/// Spec: draft-httpauth-payment-00, "Credentials": a DID; draft-evm-charge-00: `did:pkh`.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// `did:pkh:eip155:<chain>:<address>`.
    Evm { network: Network, address: Address },
    /// Some other identifier, as it was written.
    Other(Box<str>),
}

impl Source {
    /// # Errors
    /// [`MppError`] for a `did:pkh` of an EVM chain whose chain or address cannot be read, and for anything too long.
    pub fn parse(text: &str) -> Result<Self, MppError> {
        let field = "source";
        if text.len() > MAX_BYTES {
            return Err(MppError::too_many(field, MAX_BYTES));
        }
        let Some(rest) = text.strip_prefix(PKH) else { return Ok(Self::Other(text.into())) };
        let (chain, address) = rest.split_once(':').ok_or(MppError::BadForm { field })?;
        let plain = !chain.is_empty() && chain.bytes().all(|b| b.is_ascii_digit()) && !chain.starts_with('0');
        let chain: u64 = chain.parse().ok().filter(|_| plain).ok_or(MppError::BadForm { field })?;
        let address = Address::evm(address).map_err(|error| WireError::Address { field, error })?;
        Ok(Self::Evm { network: Network::eip155(chain), address })
    }

    pub fn evm(network: Network, address: Address) -> Option<Self> {
        network.evm_chain_id()?;
        address.evm_bytes()?;
        Some(Self::Evm { network, address })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evm { network, address } => write!(f, "{PKH}{}:{}", network.reference(), address.as_str()),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
