use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A blockchain, named by its CAIP-2 identifier, e.g. `eip155:8453`.
///
/// Spec: CAIP-2: `namespace` is `[-a-z0-9]{3,8}`, `reference` is `[-_a-zA-Z0-9]{1,32}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(Arc<str>);

/// The names that x402 v1 gives to the networks it knows.
///
/// Spec: x402 v1 section 5 (network identifiers) and the published v1 packages.
const V1_NAMES: &[(&str, &str)] = &[
    ("ethereum", "eip155:1"),
    ("optimism", "eip155:10"),
    ("polygon", "eip155:137"),
    ("sei", "eip155:1329"),
    ("sei-testnet", "eip155:1328"),
    ("abstract", "eip155:2741"),
    ("abstract-testnet", "eip155:11124"),
    ("peaq", "eip155:3338"),
    ("story", "eip155:1514"),
    ("educhain", "eip155:41923"),
    ("skale-base-sepolia", "eip155:324705682"),
    ("iotex", "eip155:4689"),
    ("base", "eip155:8453"),
    ("arbitrum", "eip155:42161"),
    ("avalanche-fuji", "eip155:43113"),
    ("avalanche", "eip155:43114"),
    ("polygon-amoy", "eip155:80002"),
    ("base-sepolia", "eip155:84532"),
    ("sepolia", "eip155:11155111"),
    ("solana", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"),
    ("solana-devnet", "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"),
];

/// The test networks among those we know by name: money there is worth nothing.
const TESTNETS: &[&str] = &[
    "eip155:84532",
    "eip155:43113",
    "eip155:80002",
    "eip155:11155111",
    "eip155:1328",
    "eip155:11124",
    "eip155:324705682",
    "eip155:31337",
    "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1",
];

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("not a CAIP-2 network identifier: {0:?} (expected e.g. \"eip155:8453\")")]
    NotCaip2(String),
    #[error("unknown x402 v1 network name: {0:?}")]
    UnknownV1Name(String),
}

impl Network {
    /// The EVM chain with this chain id.
    pub fn eip155(chain_id: u64) -> Self {
        Self(format!("eip155:{chain_id}").into())
    }

    /// The network that x402 v1 calls by `name`; the matching is exact.
    pub fn from_v1_name(name: &str) -> Result<Self, NetworkError> {
        V1_NAMES
            .iter()
            .find(|(v1, _)| *v1 == name)
            .map(|(_, caip2)| Self((*caip2).into()))
            .ok_or_else(|| NetworkError::UnknownV1Name(name.chars().take(64).collect()))
    }

    /// A name as a person writes it: CAIP-2, or an x402 v1 name.
    pub fn from_name(name: &str) -> Result<Self, NetworkError> {
        if name.contains(':') { name.parse() } else { Self::from_v1_name(name) }
    }

    /// The name that x402 v1 gives to this network, where it has one.
    pub fn v1_name(&self) -> Option<&'static str> {
        V1_NAMES.iter().find(|(_, caip2)| *caip2 == &*self.0).map(|(v1, _)| *v1)
    }

    /// The names that x402 v1 gives to networks.
    pub fn v1_names() -> impl Iterator<Item = &'static str> {
        V1_NAMES.iter().map(|(v1, _)| *v1)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon, e.g. `eip155`.
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the colon, e.g. `8453`.
    pub fn reference(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, reference)| reference)
    }

    /// The chain id, if this is an EVM chain whose id fits 64 bits.
    pub fn evm_chain_id(&self) -> Option<u64> {
        if self.namespace() != "eip155" {
            return None;
        }
        let reference = self.reference();
        let canonical = reference == "0" || !reference.starts_with('0');
        if canonical && reference.bytes().all(|b| b.is_ascii_digit()) { reference.parse().ok() } else { None }
    }

    pub fn is_testnet(&self) -> bool {
        TESTNETS.contains(&&*self.0)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let refuse = || NetworkError::NotCaip2(text.chars().take(64).collect());
        let (namespace, reference) = text.split_once(':').ok_or_else(refuse)?;
        let namespace_ok = (3..=8).contains(&namespace.len())
            && namespace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let reference_ok = (1..=32).contains(&reference.len())
            && reference.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !namespace_ok || !reference_ok {
            return Err(refuse());
        }
        let network = Self(text.into());
        // One chain has one name: `eip155:08453` must not become a second 8453.
        if namespace == "eip155" && network.evm_chain_id().is_none() {
            return Err(refuse());
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
