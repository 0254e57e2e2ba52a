use std::fmt;
use std::sync::Arc;

use farthing_engine::Chain;
use farthing_primitives::{Address, AssetId, Network, Registry, TenantId};
use farthing_rails::exact_evm::Policy;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The longest body that is read. A payment with a wallet's deployment takes about 10 KiB, with its requirements.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// The shortest API key that is taken: shorter ones can be guessed.
pub const MIN_KEY_CHARS: usize = 16;

/// What a facilitator serves, to whom, and how much of it.
#[derive(Debug, Clone)]
pub struct FacilitatorConfig {
    /// Scheme `exact` is served on every network; these are the versions in which.
    pub versions: Versions,
    /// What is accepted of payers: factories of wallets (none by default), validity, gas caps.
    pub policy: Policy,
    /// Whoever has a key. Empty: everybody is the tenant `local`, which [`crate::serve`] allows on loopback only.
    pub tenants: Vec<Tenant>,
    /// What `local` may do while there are no keys.
    pub open: TenantLimits,
    /// What all tenants together may spend on gas.
    pub gas: GasBudget,
    /// How many verifications may wait for the chain at once; above it the answer is 503.
    pub reads: usize,
    /// How many of those may be for wallets that are contracts, which cost more and prove nothing before.
    pub contract_reads: usize,
    /// How many settlements may wait for the chain at once, of all tenants.
    pub settlements_in_flight: usize,
}

impl Default for FacilitatorConfig {
    fn default() -> Self {
        Self {
            versions: Versions::default(),
            policy: Policy::default(),
            tenants: Vec::new(),
            open: TenantLimits::default(),
            gas: GasBudget::default(),
            reads: 4096,
            contract_reads: 64,
            settlements_in_flight: 2048,
        }
    }
}

/// Which versions of x402 are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub v1: bool,
    pub v2: bool,
}

impl Default for Versions {
    fn default() -> Self {
        Self { v1: true, v2: true }
    }
}

/// A chain, and what of it is served.
#[derive(Clone)]
pub struct ServedNetwork {
    pub chain: Arc<dyn Chain>,
    /// Who submits settlements there, for `/supported` and `/health`.
    pub relayers: Vec<Address>,
    /// The tokens that may be paid with; `None`: all that the registry lists there. Any other is refused before a read.
    pub tokens: Option<Vec<AssetId>>,
}

impl fmt::Debug for ServedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServedNetwork({}, {:?})", self.chain.network(), self.relayers)
    }
}

/// A seller that uses this facilitator.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub id: TenantId,
    /// Any of these opens; two of them let one be changed without a gap.
    pub keys: Vec<KeyDigest>,
    pub limits: TenantLimits,
}

/// What one tenant may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantLimits {
    /// Requests to `/verify` and `/settle` in a second, after a burst of twice as many; `None`: no limit.
    pub requests_per_second: Option<u32>,
    /// Of those, how many for wallets that are contracts.
    pub contract_wallets_per_second: u32,
    /// How many settlements may wait for the chain at once.
    pub settlements_in_flight: usize,
    /// What its settlements may cost us in gas.
    pub gas: GasBudget,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            requests_per_second: None,
            contract_wallets_per_second: 20,
            settlements_in_flight: 1024,
            gas: GasBudget::default(),
        }
    }
}

/// The most wei that may be spent on gas; `None`: no limit of its own. The gas caps of the policy and the relayer's
/// highest fee hold in any case.
///
/// Counted over the last hour and the last 24 hours; after a restart, from the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GasBudget {
    /// What one settlement may cost at the most: its gas cap at the price of the moment.
    pub per_settlement: Option<u128>,
    pub per_hour: Option<u128>,
    pub per_day: Option<u128>,
}

impl GasBudget {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What is kept of an API key: enough to know it again, too little to use it.
#[derive(Clone)]
pub struct KeyDigest([u8; 32]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an API key has at least {MIN_KEY_CHARS} characters")]
pub struct KeyTooShort;

impl KeyDigest {
    /// # Errors
    /// [`KeyTooShort`].
    pub fn of(key: &str) -> Result<Self, KeyTooShort> {
        if key.chars().count() < MIN_KEY_CHARS { Err(KeyTooShort) } else { Ok(Self::digest(key.as_bytes())) }
    }

    pub(crate) fn digest(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Takes as long for any two.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest")
    }
}

/// Why a facilitator cannot be set up as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("no network is served")]
    NoNetwork,
    #[error("the network {0} is served twice")]
    TwiceServed(Network),
    #[error("nothing settles on {0}")]
    NoRail(Network),
    #[error("no token of {0} can be paid with")]
    NoToken(Network),
    #[error("the token {0} is not listed, or not on the network that it is allowed on")]
    UnknownToken(AssetId),
    #[error("no version of x402 is spoken")]
    NoVersion,
    #[error("the tenant {0} is there twice")]
    TwiceTenant(TenantId),
    #[error("the tenant {0} has no key")]
    NoKey(TenantId),
    #[error("the tenant {0} has the key of another")]
    SharedKey(TenantId),
}

/// The assets of `registry` that are served.
pub(crate) fn allowed(registry: &Registry, networks: &[ServedNetwork]) -> Result<Registry, SetupError> {
    let mut kept = Registry::empty();
    for served in networks {
        let network = served.chain.network();
        let here = |asset: &&farthing_primitives::Asset| asset.id.network() == network;
        let listed: Vec<_> = match &served.tokens {
            None => registry.iter().filter(here).collect(),
            Some(ids) => ids
                .iter()
                .map(|id| registry.get(id).filter(here).ok_or_else(|| SetupError::UnknownToken(id.clone())))
                .collect::<Result<_, _>>()?,
        };
        if listed.is_empty() {
            return Err(SetupError::NoToken(network.clone()));
        }
        for asset in listed {
            // What one registry lists, another takes.
            kept.insert(asset.clone()).map_err(|_| SetupError::UnknownToken(asset.id.clone()))?;
        }
    }
    Ok(kept)
}
