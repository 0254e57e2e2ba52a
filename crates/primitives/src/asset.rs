use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{AmountError, Money, Network, money};

/// An account or a contract on some network, in the one form that we compare and store.
///
/// EVM addresses are `0x` and 40 lower-case hex digits, whatever case they arrived in; addresses of other
/// chains are kept as they are, because there case carries meaning.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

/// The longest address of any network that we accept, in bytes.
const MAX_ADDRESS_LEN: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("not an EVM address: {0:?} (expected 0x and 40 hex digits)")]
    NotEvm(String),
    #[error("not an address: {0:?}")]
    Malformed(String),
}

impl Address {
    /// Reads an address as `network` writes them.
    pub fn parse(network: &Network, text: &str) -> Result<Self, AddressError> {
        if network.namespace() == "eip155" { Self::evm(text) } else { Self::other(text) }
    }

    /// Reads an EVM address in any case. A checksum in the case is not enforced: the wire does not promise one.
    pub fn evm(text: &str) -> Result<Self, AddressError> {
        let digits = text.strip_prefix("0x").unwrap_or("");
        if digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(AddressError::NotEvm(text.chars().take(64).collect()))
        }
    }

    pub fn from_evm_bytes(bytes: [u8; 20]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(42);
        text.push_str("0x");
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }

    /// The 20 bytes, if this is an EVM address.
    pub fn evm_bytes(&self) -> Option<[u8; 20]> {
        let digits = self.0.strip_prefix("0x")?.as_bytes();
        if digits.len() != 40 {
            return None;
        }
        let mut bytes = [0u8; 20];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |d: u8| char::from(d).to_digit(16).and_then(|n| u8::try_from(n).ok());
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(bytes)
    }

    fn other(text: &str) -> Result<Self, AddressError> {
        let fits = !text.is_empty() && text.len() <= MAX_ADDRESS_LEN;
        if fits && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(AddressError::Malformed(text.chars().take(64).collect()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What assets of a network are called. Money that Stripe holds is of a currency, by its code in ISO 4217; CAIP-19 knows
/// of no such thing, so these two words are ours.
fn kind_on(network: &Network) -> &'static str {
    match network.namespace() {
        "eip155" => "erc20",
        "stripe" => "iso4217",
        _ => "token",
    }
}

/// A token: the contract and its network. Prints as `eip155:8453/erc20:0x…` (CAIP-19) and parses from that.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssetId {
    network: Network,
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssetIdError {
    #[error("not an asset: {0:?} (expected e.g. \"eip155:8453/erc20:0x…\")")]
    Malformed(String),
    #[error(transparent)]
    Network(#[from] crate::NetworkError),
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl AssetId {
    pub fn new(network: Network, address: Address) -> Self {
        Self { network, address }
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The token contract.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl FromStr for AssetId {
    type Err = AssetIdError;

    fn from_str(text: &str) -> Result<Self, AssetIdError> {
        let refuse = || AssetIdError::Malformed(text.chars().take(160).collect());
        let (network, rest) = text.split_once('/').ok_or_else(refuse)?;
        let network: Network = network.parse()?;
        let (kind, reference) = rest.split_once(':').ok_or_else(refuse)?;
        if !matches!(network.namespace(), "eip155" | "solana" | "stripe") || kind != kind_on(&network) {
            return Err(refuse());
        }
        let address = Address::parse(&network, reference)?;
        Ok(Self { network, address })
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.network, kind_on(&self.network), self.address)
    }
}

impl fmt::Debug for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a payee may pull this token with nothing but the payer's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullMethod {
    /// `transferWithAuthorization` on the token itself.
    Eip3009,
    /// The Permit2 contract, after one approval by the payer.
    Permit2,
}

/// The token's own EIP-712 domain. It differs from chain to chain even for one issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Eip712Domain {
    pub name: String,
    pub version: String,
}

/// What we know about a token, from our own list or the operator's: never from what a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    pub id: AssetId,
    /// For people, e.g. `USDC`. Decides nothing.
    pub symbol: String,
    /// How many decimal digits one unit has: 6 means 1 unit = 1 000 000 atoms.
    pub decimals: u8,
    pub pull: PullMethod,
    /// `None` where the token signs nothing itself.
    pub domain: Option<Eip712Domain>,
}

impl Asset {
    /// Reads an amount in whole units, e.g. `"0.015"`.
    ///
    /// # Errors
    /// [`AmountError`] if the text is not a plain decimal, has more digits after the point than the asset, or
    /// does not fit 128 bits. Nothing is rounded.
    pub fn parse(&self, text: &str) -> Result<Money, AmountError> {
        money::parse_decimal(text, self.decimals).map(|atoms| self.atoms(atoms))
    }

    pub fn atoms(&self, atoms: u128) -> Money {
        Money::new(self.id.clone(), atoms)
    }

    /// Prints `atoms` in whole units without loss: `15000` atoms of a 6-decimal asset are `"0.015"`.
    pub fn format(&self, atoms: u128) -> String {
        money::format_decimal(atoms, self.decimals)
    }
}
