// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title An owner's float of stablecoins, out of which a hot wallet is topped up: never faster than the caps allow.
/// @notice Whoever steals the hot wallet's key, or the software that holds it, gets what the wallet holds and what is
/// refilled before the freeze, and nothing else. Words: to tighten is to allow less, to loosen is to allow more.
/// Tightening is immediate. Loosening is announced by the owner, waits for the owner's delay, and is then applied by
/// the owner.
/// @dev One vault for each owner. No upgrade, no delegatecall, no fee, nobody but those named here has a say.
interface IAllowanceVault {
    /// What refills of one token may do. All zero, as for a token that was never named, allows nothing.
    struct Limits {
        /// At most this is moved within any 3,600 seconds, in atoms.
        uint128 perHour;
        /// At most this is moved within any 86,400 seconds, in atoms.
        uint128 perDay;
        /// A refill brings the hot wallet up to this balance and never above it, in atoms.
        uint128 target;
    }

    /// What a vault begins with, for one token.
    struct TokenLimits {
        address token;
        Limits limits;
    }

    /// What can be loosened.
    enum Kind {
        /// The limits of the token that is the subject, be they higher, lower or of a new token.
        Limits,
        /// The address that is refilled: the subject.
        HotWallet,
        /// Who else may freeze and tighten: the subject, or nobody if it is zero.
        Guardian,
        /// How long loosening waits.
        Delay,
        /// The end of a freeze.
        Unfreeze
    }

    /// One announced change. What its kind does not use is zero.
    struct Change {
        Kind kind;
        address subject;
        Limits limits;
        uint32 delay;
    }

    // ---- Events ----

    /// `by` called, as anybody may; `amount` left the vault for the hot wallet.
    event Refilled(address indexed token, address indexed hotWallet, address indexed by, uint256 amount);
    event Withdrawn(address indexed token, address indexed to, uint256 amount);
    /// Everything that was announced is taken back.
    event Frozen(address indexed by);
    event Unfrozen();
    event Announced(Kind indexed kind, address indexed subject, Limits limits, uint32 delay, uint256 readyAt);
    event Cancelled(Kind indexed kind, address indexed subject, address indexed by);
    event LimitsChanged(address indexed token, Limits limits, address indexed by);
    event HotWalletChanged(address indexed hotWallet);
    event GuardianChanged(address indexed guardian);
    event DelayChanged(uint32 delay);
    event OwnershipOffered(address indexed to);
    event OwnershipTransferred(address indexed from, address indexed to);

    // ---- Errors ----

    error NotOwner();
    error NotOwnerOrGuardian();
    error NotOfferedOwnership();
    /// Refills are frozen.
    error IsFrozen();
    /// There is no freeze to end.
    error NotFrozen();
    /// The caps are used up, the hot wallet is at its target, or the vault holds nothing.
    error NothingToRefill();
    /// A limit would rise: that has to be announced.
    error NotTighter();
    /// The delay would not grow: that has to be announced.
    error NotLonger();
    /// Nothing was announced, or it was cancelled, applied, or taken back by a freeze.
    error NotAnnounced();
    /// The delay is not over.
    error TooEarly(uint256 readyAt);
    /// It was ready for so long that it has to be announced again.
    error TooLate(uint256 endedAt);
    /// Zero, this vault, or somebody who already has another role.
    error InvalidOwner();
    error InvalidHotWallet();
    error InvalidGuardian();
    /// Shorter than `MIN_DELAY` or longer than `MAX_DELAY`.
    error InvalidDelay();
    /// No contract is there.
    error InvalidToken();
    error TooManyTokens();
    /// The token refused a transfer, or is no contract.
    error TransferFailed();
    /// What left the vault is not what was asked for.
    error InexactTransfer();
    error Reentered();

    // ---- Anybody ----

    /// Moves as much of `token` to the hot wallet as the caps, the target and the vault's balance allow now. Reverts
    /// rather than move nothing. The caller gives nothing but gas, and chooses nothing but the moment.
    function refill(address token) external returns (uint256 amount);

    // ---- Owner or guardian: to allow less, at once ----

    /// Stops refills, and takes back everything that was announced. Freezing what is frozen does the latter again.
    function freeze() external;

    /// Lowers limits of a token, and takes back an announcement about them. None may rise.
    function tighten(address token, Limits calldata limits) external;

    /// Takes back one announcement. `subject` is the token for `Limits`, and of no account for others.
    function cancel(Kind kind, address subject) external;

    // ---- Owner: to allow more, in two steps ----

    /// Announces a change, which can be applied once the delay that is in force now is over. Takes the place of an
    /// earlier announcement of the same kind (and token), and waits anew.
    function announce(Change calldata change) external returns (uint256 readyAt);

    /// Puts an announced change in force, within `APPLY_WINDOW` of when it became ready.
    function applyChange(Kind kind, address subject) external;

    // ---- Owner ----

    /// Makes loosening wait longer, at once. What is announced already waits as it was announced.
    function lengthenDelay(uint32 delay) external;

    /// Moves some of the float out, also while frozen. No cap holds for the owner.
    function withdraw(address token, address to, uint256 amount) external;

    /// Offers the vault to somebody else; zero takes the offer back. Nothing changes until it is accepted.
    function offerOwnership(address to) external;

    // ---- Whoever was offered the vault ----

    function acceptOwnership() external;

    // ---- Views ----

    function MIN_DELAY() external view returns (uint32);
    function MAX_DELAY() external view returns (uint32);
    function APPLY_WINDOW() external view returns (uint32);
    function MAX_TOKENS() external view returns (uint256);
    function owner() external view returns (address);
    function offeredTo() external view returns (address);
    function guardian() external view returns (address);
    function hotWallet() external view returns (address);
    function delay() external view returns (uint32);
    function frozen() external view returns (bool);
    /// Every token that ever had limits.
    function tokens() external view returns (address[] memory);
    function limitsOf(address token) external view returns (Limits memory);
    /// What counts against the caps now, in atoms. Never less than what was moved in the last hour and the last day, and
    /// not more than what was moved in the last 65 minutes and the last 25 hours.
    function used(address token) external view returns (uint256 hour, uint256 day);
    /// What a refill would move now, in atoms; zero if it would revert for one of our reasons.
    function refillable(address token) external view returns (uint256);
    /// What is announced. `readyAt` is zero if nothing is, or no longer.
    function announced(Kind kind, address subject) external view returns (Change memory change, uint256 readyAt);
}
