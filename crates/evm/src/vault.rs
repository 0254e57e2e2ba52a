//! Calls of an allowance vault, what it returns and says, why it reverts, and the code that makes one.
//!
//! Spec: `contracts/src/IAllowanceVault.sol`; docs/reference/vault.md.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, Bytes, U256, address, b256};
use alloy_sol_types::{SolCall, SolEvent, SolValue, sol};

use crate::{Log, Revert};

/// The ABI's own names.
mod abi {
    #![allow(non_snake_case)]
    use super::sol;
    sol! {
        interface AllowanceVault {
            struct Limits { uint128 perHour; uint128 perDay; uint128 target; }
            struct TokenLimits { address token; Limits limits; }
            enum Kind { Limits, HotWallet, Guardian, Delay, Unfreeze }
            struct Change { Kind kind; address subject; Limits limits; uint32 delay; }

            event Refilled(address indexed token, address indexed hotWallet, address indexed by, uint256 amount);
            event Announced(
                Kind indexed kind, address indexed subject, Limits limits, uint32 delay, uint256 readyAt
            );

            error NotOwner();
            error NotOwnerOrGuardian();
            error NotOfferedOwnership();
            error IsFrozen();
            error NotFrozen();
            error NothingToRefill();
            error NotTighter();
            error NotLonger();
            error NotAnnounced();
            error TooEarly(uint256 readyAt);
            error TooLate(uint256 endedAt);
            error InvalidOwner();
            error InvalidHotWallet();
            error InvalidGuardian();
            error InvalidDelay();
            error InvalidToken();
            error TooManyTokens();
            error TransferFailed();
            error InexactTransfer();
            error Reentered();

            function refill(address token) external returns (uint256 amount);
            function freeze() external;
            function tighten(address token, Limits limits) external;
            function cancel(Kind kind, address subject) external;
            function announce(Change change) external returns (uint256 readyAt);
            function applyChange(Kind kind, address subject) external;
            function lengthenDelay(uint32 delay) external;
            function withdraw(address token, address to, uint256 amount) external;
            function offerOwnership(address to) external;
            function acceptOwnership() external;

            function owner() external view returns (address);
            function offeredTo() external view returns (address);
            function guardian() external view returns (address);
            function hotWallet() external view returns (address);
            function delay() external view returns (uint32);
            function frozen() external view returns (bool);
            function tokens() external view returns (address[] memory);
            function limitsOf(address token) external view returns (Limits memory);
            function used(address token) external view returns (uint256 hour, uint256 day);
            function refillable(address token) external view returns (uint256);
            function announced(Kind kind, address subject)
                external view returns (Change memory change, uint256 readyAt);
        }
    }
}

use abi::AllowanceVault::{self as vault, Kind};

/// The usual CREATE2 deployer, which takes a salt and the code. It is at this address on nearly every chain.
pub const CREATE2_DEPLOYER: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");

/// Keccak-256 of every vault's code: nothing of its arguments is in it.
pub const CODE_HASH: B256 = b256!("d67746006e7f078dce5c44ddc6b6ecb192a6f678de0bef278299f99b4cff4722");

/// The shortest and the longest delay that a vault takes, in seconds.
pub const DELAY_BOUNDS: std::ops::RangeInclusive<u32> = 3_600..=30 * 86_400;

/// For how long an announced change can be applied once it is ready, in seconds.
pub const APPLY_WINDOW: u64 = 7 * 86_400;

/// How many tokens a vault lists at most.
pub const MAX_TOKENS: usize = 16;

const ARTIFACT: &str = include_str!("../../../contracts/artifacts/AllowanceVault.json");

/// The code that makes a vault, before its arguments.
static CREATION_CODE: LazyLock<Bytes> = LazyLock::new(|| {
    // INVARIANT: the artifact is committed, and a test reads it.
    #[allow(clippy::expect_used)]
    let artifact: serde_json::Value = serde_json::from_str(ARTIFACT).expect("the artifact is JSON");
    #[allow(clippy::expect_used)]
    let code = artifact["bytecode"].as_str().and_then(|code| code.parse().ok());
    #[allow(clippy::expect_used)]
    code.expect("the artifact has the code in hex")
});

/// What refills of one token may do, in its atoms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Within any 3,600 seconds.
    pub per_hour: u128,
    /// Within any 86,400 seconds.
    pub per_day: u128,
    /// A refill never brings the hot wallet above this.
    pub target: u128,
}

impl Limits {
    /// Whether none of these is above the other's: what needs no delay.
    pub fn are_within(&self, other: &Self) -> bool {
        self.per_hour <= other.per_hour && self.per_day <= other.per_day && self.target <= other.target
    }

    fn to_abi(self) -> vault::Limits {
        vault::Limits { perHour: self.per_hour, perDay: self.per_day, target: self.target }
    }
}

impl From<vault::Limits> for Limits {
    fn from(limits: vault::Limits) -> Self {
        Self { per_hour: limits.perHour, per_day: limits.perDay, target: limits.target }
    }
}

/// What a vault is made with. The same parts make the same vault, at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    pub owner: Address,
    /// Zero is nobody.
    pub guardian: Address,
    pub hot_wallet: Address,
    /// How long loosening waits, in seconds; within [`DELAY_BOUNDS`].
    pub delay: u32,
    pub limits: Vec<(Address, Limits)>,
}

impl Parts {
    fn init_code(&self) -> Vec<u8> {
        let limits: Vec<vault::TokenLimits> = self
            .limits
            .iter()
            .map(|(token, limits)| vault::TokenLimits { token: *token, limits: limits.to_abi() })
            .collect();
        let arguments = (self.owner, self.guardian, self.hot_wallet, self.delay, limits);
        let mut code = CREATION_CODE.to_vec();
        code.extend(arguments.abi_encode_params());
        code
    }

    /// What the [`CREATE2_DEPLOYER`] is sent: a salt of zeros, and the code.
    pub fn deployment(&self) -> Bytes {
        let mut data = vec![0; 32];
        data.extend(self.init_code());
        data.into()
    }

    /// Where the vault comes to be.
    ///
    /// Spec: EIP-1014.
    pub fn address(&self) -> Address {
        CREATE2_DEPLOYER.create2_from_code(B256::ZERO, self.init_code())
    }
}

/// What an announcement is about. There is one of each, and one of limits for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Limits(Address),
    HotWallet,
    Guardian,
    Delay,
    Unfreeze,
}

impl Topic {
    fn to_abi(self) -> (Kind, Address) {
        match self {
            Self::Limits(token) => (Kind::Limits, token),
            Self::HotWallet => (Kind::HotWallet, Address::ZERO),
            Self::Guardian => (Kind::Guardian, Address::ZERO),
            Self::Delay => (Kind::Delay, Address::ZERO),
            Self::Unfreeze => (Kind::Unfreeze, Address::ZERO),
        }
    }
}

/// What an owner may announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Limits {
        token: Address,
        limits: Limits,
    },
    HotWallet(Address),
    /// Zero is nobody.
    Guardian(Address),
    /// In seconds; within [`DELAY_BOUNDS`].
    Delay(u32),
    Unfreeze,
}

impl Change {
    pub fn topic(&self) -> Topic {
        match self {
            Self::Limits { token, .. } => Topic::Limits(*token),
            Self::HotWallet(_) => Topic::HotWallet,
            Self::Guardian(_) => Topic::Guardian,
            Self::Delay(_) => Topic::Delay,
            Self::Unfreeze => Topic::Unfreeze,
        }
    }

    fn to_abi(self) -> vault::Change {
        let (kind, slot) = self.topic().to_abi();
        let mut change = vault::Change { kind, subject: slot, limits: Limits::default().to_abi(), delay: 0 };
        match self {
            Self::Limits { limits, .. } => change.limits = limits.to_abi(),
            Self::HotWallet(who) | Self::Guardian(who) => change.subject = who,
            Self::Delay(delay) => change.delay = delay,
            Self::Unfreeze => {}
        }
        change
    }

    fn of_abi(change: &vault::Change) -> Option<Self> {
        Some(match change.kind {
            Kind::Limits => Self::Limits { token: change.subject, limits: change.limits.clone().into() },
            Kind::HotWallet => Self::HotWallet(change.subject),
            Kind::Guardian => Self::Guardian(change.subject),
            Kind::Delay => Self::Delay(change.delay),
            Kind::Unfreeze => Self::Unfreeze,
            // A later contract's.
            _ => return None,
        })
    }
}

/// A change that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    pub change: Change,
    /// In seconds; from then on, for [`APPLY_WINDOW`], it can be applied.
    pub ready_at: u64,
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls.

/// `refill`, by anybody.
pub fn refill(token: Address) -> Bytes {
    vault::refillCall { token }.abi_encode().into()
}

/// `freeze`, by the owner or the guardian.
pub fn freeze() -> Bytes {
    vault::freezeCall {}.abi_encode().into()
}

/// `tighten`, by the owner or the guardian.
pub fn tighten(token: Address, limits: Limits) -> Bytes {
    vault::tightenCall { token, limits: limits.to_abi() }.abi_encode().into()
}

/// `cancel`, by the owner or the guardian.
pub fn cancel(topic: Topic) -> Bytes {
    let (kind, subject) = topic.to_abi();
    vault::cancelCall { kind, subject }.abi_encode().into()
}

/// `announce`, by the owner.
pub fn announce(change: Change) -> Bytes {
    vault::announceCall { change: change.to_abi() }.abi_encode().into()
}

/// `applyChange`, by the owner.
pub fn apply(topic: Topic) -> Bytes {
    let (kind, subject) = topic.to_abi();
    vault::applyChangeCall { kind, subject }.abi_encode().into()
}

/// `lengthenDelay`, by the owner.
pub fn lengthen_delay(delay: u32) -> Bytes {
    vault::lengthenDelayCall { delay }.abi_encode().into()
}

/// `withdraw`, by the owner.
pub fn withdraw(token: Address, to: Address, amount: u128) -> Bytes {
    vault::withdrawCall { token, to, amount: U256::from(amount) }.abi_encode().into()
}

/// `offerOwnership`, by the owner.
pub fn offer_ownership(to: Address) -> Bytes {
    vault::offerOwnershipCall { to }.abi_encode().into()
}

/// `acceptOwnership`, by whoever was offered it.
pub fn accept_ownership() -> Bytes {
    vault::acceptOwnershipCall {}.abi_encode().into()
}

// ---------------------------------------------------------------------------------------------------------------------
// Views.

/// Who has to do with a vault, and what waits there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub owner: Address,
    /// Who may accept the vault; zero is nobody.
    pub offered_to: Address,
    /// Zero is nobody.
    pub guardian: Address,
    pub hot_wallet: Address,
    /// In seconds.
    pub delay: u32,
    pub frozen: bool,
    pub tokens: Vec<Address>,
    /// All but limits, which are a token's.
    pub announced: Vec<Announcement>,
}

/// What is announced once for a vault.
const TOPICS: [Topic; 4] = [Topic::HotWallet, Topic::Guardian, Topic::Delay, Topic::Unfreeze];

/// The reads that [`as_state`] understands.
pub fn state_reads() -> Vec<Bytes> {
    let mut reads: Vec<Bytes> = vec![
        vault::ownerCall {}.abi_encode().into(),
        vault::offeredToCall {}.abi_encode().into(),
        vault::guardianCall {}.abi_encode().into(),
        vault::hotWalletCall {}.abi_encode().into(),
        vault::delayCall {}.abi_encode().into(),
        vault::frozenCall {}.abi_encode().into(),
        vault::tokensCall {}.abi_encode().into(),
    ];
    reads.extend(TOPICS.map(announced));
    reads
}

/// What a vault answered to [`state_reads`], in their order.
pub fn as_state(answers: &[Bytes]) -> Option<State> {
    let [owner, offered_to, guardian, hot_wallet, delay, frozen, tokens, announced @ ..] = answers else {
        return None;
    };
    // A list of more tokens is none of a vault's; a longer answer isn't decoded.
    if tokens.len() > (2 + MAX_TOKENS) * 32 || announced.len() != TOPICS.len() {
        return None;
    }
    let announced: Option<Vec<Option<Announcement>>> =
        announced.iter().map(|answer| as_announced(answer)).collect();
    Some(State {
        owner: returned::<vault::ownerCall>(owner)?,
        offered_to: returned::<vault::offeredToCall>(offered_to)?,
        guardian: returned::<vault::guardianCall>(guardian)?,
        hot_wallet: returned::<vault::hotWalletCall>(hot_wallet)?,
        delay: returned::<vault::delayCall>(delay)?,
        frozen: returned::<vault::frozenCall>(frozen)?,
        tokens: returned::<vault::tokensCall>(tokens)?,
        announced: announced?.into_iter().flatten().collect(),
    })
}

/// What a vault says of one token, in its atoms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenState {
    pub limits: Limits,
    /// What counts against the hourly limit now, and against the daily one.
    pub used_hour: u128,
    pub used_day: u128,
    /// What a refill would move now.
    pub refillable: u128,
    pub announced: Option<Announcement>,
}

/// The reads that [`as_token_state`] understands.
pub fn token_reads(token: Address) -> Vec<Bytes> {
    vec![
        vault::limitsOfCall { token }.abi_encode().into(),
        vault::usedCall { token }.abi_encode().into(),
        vault::refillableCall { token }.abi_encode().into(),
        announced(Topic::Limits(token)),
    ]
}

/// What a vault answered to [`token_reads`], in their order.
pub fn as_token_state(answers: &[Bytes]) -> Option<TokenState> {
    let [limits, used, refillable, announced] = answers else { return None };
    let used = returned::<vault::usedCall>(used)?;
    Some(TokenState {
        limits: returned::<vault::limitsOfCall>(limits)?.into(),
        used_hour: u128::try_from(used.hour).ok()?,
        used_day: u128::try_from(used.day).ok()?,
        refillable: u128::try_from(returned::<vault::refillableCall>(refillable)?).ok()?,
        announced: as_announced(announced)?,
    })
}

fn announced(topic: Topic) -> Bytes {
    let (kind, subject) = topic.to_abi();
    vault::announcedCall { kind, subject }.abi_encode().into()
}

/// What `announced` returned: `Some(None)` if nothing is.
fn as_announced(data: &[u8]) -> Option<Option<Announcement>> {
    let vault::announcedReturn { change, readyAt } = returned::<vault::announcedCall>(data)?;
    if readyAt.is_zero() {
        return Some(None);
    }
    let ready_at = u64::try_from(readyAt).ok()?;
    Some(Some(Announcement { change: Change::of_abi(&change)?, ready_at }))
}

/// A returned value, if the bytes are exactly that: a call to an address without code returns none.
fn returned<C: SolCall>(data: &[u8]) -> Option<C::Return> {
    C::abi_decode_returns_validate(data).ok()
}

// ---------------------------------------------------------------------------------------------------------------------
// What it says.

/// `Refilled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refilled {
    pub token: Address,
    pub hot_wallet: Address,
    /// Who called.
    pub by: Address,
    pub amount: u128,
}

impl Refilled {
    /// Reads a log, whoever emitted it: compare the emitter with the vault.
    pub fn decode(log: &Log) -> Option<Self> {
        let said = vault::Refilled::decode_raw_log_validate(&log.topics, &log.data).ok()?;
        let amount = u128::try_from(said.amount).ok()?;
        Some(Self { token: said.token, hot_wallet: said.hotWallet, by: said.by, amount })
    }
}

impl Announcement {
    /// Reads the log `Announced`, whoever emitted it: compare the emitter with the vault.
    pub fn decode(log: &Log) -> Option<Self> {
        let said = vault::Announced::decode_raw_log_validate(&log.topics, &log.data).ok()?;
        let change =
            vault::Change { kind: said.kind, subject: said.subject, limits: said.limits, delay: said.delay };
        Some(Self { change: Change::of_abi(&change)?, ready_at: u64::try_from(said.readyAt).ok()? })
    }
}

/// Why a vault said no.
pub fn revert(data: &[u8]) -> Revert {
    data.first_chunk::<4>()
        .and_then(|selector| vault::AllowanceVaultErrors::name_by_selector(*selector))
        .map_or_else(|| Revert::decode(data), Revert::Named)
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
