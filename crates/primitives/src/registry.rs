use std::collections::BTreeMap;

use crate::{Address, Asset, AssetId, Eip712Domain, Money, Network, PullMethod};

/// The tokens that we know, by contract. A token that is not here is unknown, whatever it calls itself.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    assets: BTreeMap<AssetId, Asset>,
    /// Which asset a price in dollars means, network by network, best first.
    dollars: Vec<AssetId>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("the asset {0} is listed twice with different facts")]
    Conflict(AssetId),
    #[error("the asset {0} is pulled by EIP-3009 but has no EIP-712 domain")]
    NoDomain(AssetId),
    #[error("the asset {0} has {1} decimals, more than the 36 that we support")]
    Decimals(AssetId, u8),
    #[error("the asset {0} cannot stand for dollars: it is not listed")]
    UnknownDollar(AssetId),
}

/// Why a price in dollars has no amount on a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DollarError {
    #[error(
        "no asset on {0} stands for dollars (list one in the configuration, or price the route in atoms)"
    )]
    NoDollar(Network),
    #[error("a price in dollars starts with \"$\": {0:?}")]
    NoSign(String),
    #[error(transparent)]
    Amount(#[from] crate::AmountError),
}

struct Row {
    chain: u64,
    symbol: &'static str,
    address: &'static str,
    pull: PullMethod,
    domain: Option<(&'static str, &'static str)>,
    dollar: bool,
}

const fn usdc(chain: u64, address: &'static str, name: &'static str) -> Row {
    Row { chain, symbol: "USDC", address, pull: PullMethod::Eip3009, domain: Some((name, "2")), dollar: true }
}

const fn eurc(chain: u64, address: &'static str, name: &'static str) -> Row {
    Row {
        chain,
        symbol: "EURC",
        address,
        pull: PullMethod::Eip3009,
        domain: Some((name, "2")),
        dollar: false,
    }
}

/// Tether signs nothing on most chains, and where it does the domain differs: Permit2 serves everywhere.
const fn usdt(chain: u64, address: &'static str) -> Row {
    Row { chain, symbol: "USDT", address, pull: PullMethod::Permit2, domain: None, dollar: false }
}

/// All of these have six decimals.
const BUILTIN: &[Row] = &[
    usdc(1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USD Coin"),
    usdc(10, "0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85", "USD Coin"),
    usdc(137, "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "USD Coin"),
    usdc(8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
    usdc(42161, "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", "USD Coin"),
    usdc(43114, "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", "USD Coin"),
    usdc(43113, "0x5425890298aed601595a70AB815c96711a31Bc65", "USD Coin"),
    usdc(84532, "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
    eurc(1, "0x1aBaEA1f7C830bD89Acc67eC4af516284b1bC33c", "Euro Coin"),
    eurc(8453, "0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42", "EURC"),
    eurc(43114, "0xC891EB4cbdEFf6e073e859e987815Ed1505c2ACD", "Euro Coin"),
    eurc(84532, "0x808456652fdb597867f38412077A9182bf77359F", "EURC"),
    usdt(1, "0xdAC17F958D2ee523a2206206994597C13D831ec7"),
    usdt(10, "0x94b008aA00579c1307B0EF2c499aD98a8ce58e58"),
    usdt(137, "0xc2132D05D31c914a87C6611C10748AEb04B58e8F"),
    usdt(8453, "0xfde4C96c8593536E31F229EA8f37b2ADa2699bb2"),
    usdt(42161, "0xFd086bC7CD5C481DCC9C85ebE478A1C0b69FCbb9"),
    usdt(43114, "0x9702230A8Ea53601f5cD2dc00fDBc13d4dF4A8c7"),
];

impl Registry {
    /// No asset at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// USDC, EURC and USDT on the networks that we know; `$` means USDC.
    pub fn builtin() -> Self {
        let mut registry = Self::empty();
        for row in BUILTIN {
            // INVARIANT: the table above is well formed; `builtin_assets_are_listed` loads every row.
            let Ok(address) = Address::evm(row.address) else { continue };
            let id = AssetId::new(Network::eip155(row.chain), address);
            if row.dollar {
                registry.dollars.push(id.clone());
            }
            let domain = row
                .domain
                .map(|(name, version)| Eip712Domain { name: name.to_owned(), version: version.to_owned() });
            let asset =
                Asset { id: id.clone(), symbol: row.symbol.to_owned(), decimals: 6, pull: row.pull, domain };
            registry.assets.insert(id, asset);
        }
        registry
    }

    /// Adds an asset of the operator's. The same facts may be given twice.
    pub fn insert(&mut self, asset: Asset) -> Result<(), RegistryError> {
        if asset.decimals > 36 {
            return Err(RegistryError::Decimals(asset.id, asset.decimals));
        }
        if asset.pull == PullMethod::Eip3009 && asset.domain.is_none() {
            return Err(RegistryError::NoDomain(asset.id));
        }
        match self.assets.get(&asset.id) {
            Some(known) if *known != asset => Err(RegistryError::Conflict(asset.id)),
            _ => {
                self.assets.insert(asset.id.clone(), asset);
                Ok(())
            }
        }
    }

    /// Lets `$` mean this asset on its network, ahead of what it meant before.
    pub fn set_dollar(&mut self, id: &AssetId) -> Result<(), RegistryError> {
        if !self.assets.contains_key(id) {
            return Err(RegistryError::UnknownDollar(id.clone()));
        }
        self.dollars.retain(|known| known != id);
        self.dollars.insert(0, id.clone());
        Ok(())
    }

    pub fn get(&self, id: &AssetId) -> Option<&Asset> {
        self.assets.get(id)
    }

    /// The asset that people call `symbol` on `network`. For configuration, never for what a peer says.
    pub fn by_symbol(&self, network: &Network, symbol: &str) -> Option<&Asset> {
        self.assets.values().find(|asset| asset.id.network() == network && asset.symbol == symbol)
    }

    /// The asset that `$` means on `network`.
    pub fn dollar(&self, network: &Network) -> Option<&Asset> {
        self.dollars.iter().find(|id| id.network() == network).and_then(|id| self.assets.get(id))
    }

    /// Whether a quantity of this asset counts at par as dollars.
    pub fn is_dollar(&self, id: &AssetId) -> bool {
        self.dollars.contains(id)
    }

    /// Reads a price such as `"$0.002"` as the dollar asset of `network`, at par.
    pub fn parse_dollars(&self, network: &Network, text: &str) -> Result<Money, DollarError> {
        let digits =
            text.strip_prefix('$').ok_or_else(|| DollarError::NoSign(text.chars().take(64).collect()))?;
        let asset = self.dollar(network).ok_or_else(|| DollarError::NoDollar(network.clone()))?;
        Ok(asset.parse(digits)?)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Asset> {
        self.assets.values()
    }
}
