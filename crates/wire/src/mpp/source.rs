use std::fmt;

use farthing_primitives::{Address, Network};

use super::MppError;
use crate::x402::WireError;

/// The longest `source`, in bytes.
const MAX_BYTES: usize = 512;
const PKH: &str = "did:pkh:eip155:";

/// Who says that it pays, as it was written. Nothing is credited to it before a signature or the chain says the same.
///
/// Spec: draft-httpauth-payment-00, "Credentials": a DID; draft-evm-charge-00: `did:pkh`.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    text: Box<str>,
    account: Option<(Network, Address)>,
}

impl Source {
    /// # Errors
    /// [`MppError`] for a `did:pkh` of an EVM chain whose chain or address cannot be read, and for anything too long.
    pub fn parse(text: &str) -> Result<Self, MppError> {
        let field = "source";
        if text.len() > MAX_BYTES {
            return Err(MppError::too_many(field, MAX_BYTES));
        }
        let account = text.strip_prefix(PKH).map(|rest| {
            let (chain, address) = rest.split_once(':').ok_or(MppError::BadForm { field })?;
            let plain = chain.bytes().all(|b| b.is_ascii_digit()) && !chain.starts_with('0');
            let chain = chain.parse().ok().filter(|_| plain).ok_or(MppError::BadForm { field })?;
            let address = Address::evm(address).map_err(|error| WireError::Address { field, error })?;
            Ok::<_, MppError>((Network::eip155(chain), address))
        });
        Ok(Self { text: text.into(), account: account.transpose()? })
    }

    /// The account on an EVM chain; `None` if either is not of one.
    pub fn evm(network: Network, address: Address) -> Option<Self> {
        let chain = network.evm_chain_id()?;
        address.evm_bytes()?;
        Some(Self {
            text: format!("{PKH}{chain}:{}", address.as_str()).into(),
            account: Some((network, address)),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The account on an EVM chain, if it is a `did:pkh` of one.
    pub fn account(&self) -> Option<(&Network, &Address)> {
        self.account.as_ref().map(|(network, address)| (network, address))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
