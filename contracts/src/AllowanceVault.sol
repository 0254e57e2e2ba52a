// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "./IAllowanceVault.sol";

interface IERC20Held {
    function balanceOf(address account) external view returns (uint256);
    function transfer(address to, uint256 value) external returns (bool);
}

/// @title The allowance vault. See the interface for what each function does.
/// @dev Every function that calls a token is guarded against reentrance and commits its effects before. `freeze` calls
/// nobody and is not guarded, so that nothing can stand in its way. No immutables: the runtime code of every vault is
/// the same, so that one hash names it.
contract AllowanceVault is IAllowanceVault {
    /// What was moved lately, by buckets of time: the last `count` of them, the newest in `last`. A ring that holds
    /// bucket `i` at `i % count`.
    struct Recent {
        uint64 last;
        uint128[25] moved;
    }

    struct Token {
        Limits limits;
        bool listed;
        Recent hour;
        Recent day;
    }

    struct Announcement {
        Change change;
        uint64 readyAt;
        /// How often the vault was frozen before.
        uint64 freezes;
    }

    uint32 public constant MIN_DELAY = 1 hours;
    uint32 public constant MAX_DELAY = 30 days;
    uint32 public constant APPLY_WINDOW = 7 days;
    uint256 public constant MAX_TOKENS = 16;

    /// A window is covered by its buckets and one more, the one that began before the window did. So what was moved
    /// counts for at least the window, and for at most one bucket longer: an error against the hot wallet, never for it.
    uint256 private constant HOUR_BUCKET = 5 minutes;
    uint256 private constant HOUR_BUCKETS = 1 hours / HOUR_BUCKET + 1;
    uint256 private constant DAY_BUCKET = 1 hours;
    uint256 private constant DAY_BUCKETS = 1 days / DAY_BUCKET + 1;

    // INVARIANT: owner, hot wallet and guardian are three, and none is this vault; only the guardian may be nobody.
    address public owner;
    address public offeredTo;
    address public guardian;
    address public hotWallet;
    uint32 public delay;
    bool public frozen;
    /// An announcement made before the last freeze is void.
    uint64 private _freezes;
    address[] private _tokens;
    mapping(address token => Token) private _state;
    mapping(Kind kind => mapping(address token => Announcement)) private _announcements;

    bool private transient _entered;

    modifier once() {
        if (_entered) revert Reentered();
        _entered = true;
        _;
        _entered = false;
    }

    modifier onlyOwner() {
        if (msg.sender != owner) revert NotOwner();
        _;
    }

    modifier onlyOwnerOrGuardian() {
        // Nobody calls as zero, so that a vault without a guardian obeys its owner alone.
        if (msg.sender != owner && msg.sender != guardian) revert NotOwnerOrGuardian();
        _;
    }

    constructor(
        address owner_,
        address guardian_,
        address hotWallet_,
        uint32 delay_,
        TokenLimits[] memory limits
    ) {
        _checkOwner(owner_);
        owner = owner_;
        emit OwnershipTransferred(address(0), owner_);
        _setHotWallet(hotWallet_);
        _setGuardian(guardian_);
        _setDelay(delay_);
        for (uint256 i; i < limits.length; ++i) _setLimits(limits[i].token, limits[i].limits);
    }

    // ---- Anybody ----

    function refill(address token) external once returns (uint256 amount) {
        // Check.
        if (frozen) revert IsFrozen();
        amount = _due(token);
        if (amount == 0) revert NothingToRefill();
        // Effect. No cast cuts anything off: no amount is above the caps.
        Token storage state = _state[token];
        _count(state.hour, HOUR_BUCKET, HOUR_BUCKETS, uint128(amount));
        _count(state.day, DAY_BUCKET, DAY_BUCKETS, uint128(amount));
        address to = hotWallet;
        emit Refilled(token, to, msg.sender, amount);
        // Interaction.
        uint256 before = _held(token, address(this));
        _push(token, to, amount);
        // What arrives is the token's affair; what leaves is what the caps are about.
        if (_held(token, address(this)) != before - amount) revert InexactTransfer();
    }

    // ---- Owner or guardian ----

    function freeze() external onlyOwnerOrGuardian {
        frozen = true;
        ++_freezes;
        emit Frozen(msg.sender);
    }

    function tighten(address token, Limits calldata limits) external onlyOwnerOrGuardian {
        Limits memory now_ = _state[token].limits;
        if (limits.perHour > now_.perHour || limits.perDay > now_.perDay || limits.target > now_.target) {
            revert NotTighter();
        }
        // What was announced before somebody saw a reason to tighten is not to come true behind its back.
        if (_readyAt(Kind.Limits, token) != 0) _cancel(Kind.Limits, token);
        _state[token].limits = limits;
        emit LimitsChanged(token, limits, msg.sender);
    }

    function cancel(Kind kind, address subject) external onlyOwnerOrGuardian {
        address slot = _slot(kind, subject);
        if (_readyAt(kind, slot) == 0) revert NotAnnounced();
        _cancel(kind, slot);
    }

    // ---- Owner, in two steps ----

    function announce(Change calldata change) external onlyOwner returns (uint256 readyAt) {
        _check(change);
        readyAt = block.timestamp + delay;
        _announcements[change.kind][_slot(change.kind, change.subject)] =
            Announcement(change, uint64(readyAt), _freezes);
        emit Announced(change.kind, change.subject, change.limits, change.delay, readyAt);
    }

    function applyChange(Kind kind, address subject) external onlyOwner {
        // Check.
        address slot = _slot(kind, subject);
        uint256 readyAt = _readyAt(kind, slot);
        if (readyAt == 0) revert NotAnnounced();
        if (block.timestamp < readyAt) revert TooEarly(readyAt);
        if (block.timestamp >= readyAt + APPLY_WINDOW) revert TooLate(readyAt + APPLY_WINDOW);
        // Effect. Others may have changed since, so that each change is checked again.
        Change memory change = _announcements[kind][slot].change;
        delete _announcements[kind][slot];
        if (kind == Kind.Limits) {
            _setLimits(change.subject, change.limits);
        } else if (kind == Kind.HotWallet) {
            _setHotWallet(change.subject);
        } else if (kind == Kind.Guardian) {
            _setGuardian(change.subject);
        } else if (kind == Kind.Delay) {
            _setDelay(change.delay);
        } else {
            frozen = false;
            emit Unfrozen();
        }
    }

    // ---- Owner ----

    function lengthenDelay(uint32 delay_) external onlyOwner {
        if (delay_ <= delay) revert NotLonger();
        _setDelay(delay_);
    }

    function withdraw(address token, address to, uint256 amount) external once onlyOwner {
        emit Withdrawn(token, to, amount);
        _push(token, to, amount);
    }

    function offerOwnership(address to) external onlyOwner {
        if (to != address(0)) _checkOwner(to);
        offeredTo = to;
        emit OwnershipOffered(to);
    }

    function acceptOwnership() external {
        if (msg.sender != offeredTo) revert NotOfferedOwnership();
        // It may have become the hot wallet or the guardian since.
        _checkOwner(msg.sender);
        emit OwnershipTransferred(owner, msg.sender);
        owner = msg.sender;
        offeredTo = address(0);
    }

    // ---- Views ----

    function tokens() external view returns (address[] memory) {
        return _tokens;
    }

    function limitsOf(address token) external view returns (Limits memory) {
        return _state[token].limits;
    }

    function used(address token) public view returns (uint256 hour, uint256 day) {
        Token storage state = _state[token];
        hour = _sum(state.hour, HOUR_BUCKET, HOUR_BUCKETS);
        day = _sum(state.day, DAY_BUCKET, DAY_BUCKETS);
    }

    function refillable(address token) external view returns (uint256) {
        return frozen ? 0 : _due(token);
    }

    function announced(Kind kind, address subject) external view returns (Change memory change, uint256 readyAt) {
        address slot = _slot(kind, subject);
        readyAt = _readyAt(kind, slot);
        if (readyAt != 0) change = _announcements[kind][slot].change;
    }

    // ---- Caps ----

    /// What may be moved now, apart from a freeze.
    function _due(address token) private view returns (uint256 amount) {
        Limits memory limits = _state[token].limits;
        // A token without limits may be anything: it is not even asked.
        if (limits.perHour == 0 || limits.perDay == 0) return 0;
        (uint256 hour, uint256 day) = used(token);
        amount = _least(_above(limits.perHour, hour), _above(limits.perDay, day));
        amount = _least(amount, _above(limits.target, _held(token, hotWallet)));
        amount = _least(amount, _held(token, address(this)));
    }

    /// All that was moved in the buckets that touch the window which ends now.
    function _sum(Recent storage recent, uint256 bucket, uint256 count) private view returns (uint256 sum) {
        uint256 last = recent.last;
        for (uint256 i = block.timestamp / bucket + 1 - count; i <= last; ++i) sum += recent.moved[i % count];
    }

    function _count(Recent storage recent, uint256 bucket, uint256 count, uint128 amount) private {
        uint256 current = block.timestamp / bucket;
        uint256 last = recent.last;
        // Buckets in which nothing was moved still hold what was there a round before.
        uint256 first = last + count > current ? last + 1 : current + 1 - count;
        for (uint256 i = first; i <= current; ++i) recent.moved[i % count] = 0;
        recent.last = uint64(current);
        recent.moved[current % count] += amount;
    }

    function _least(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }

    /// How far `limit` is above `value`; zero if it is not.
    function _above(uint256 limit, uint256 value) private pure returns (uint256) {
        return limit > value ? limit - value : 0;
    }

    // ---- Changes ----

    /// Only limits are kept for each token; of anything else there is one.
    function _slot(Kind kind, address subject) private pure returns (address) {
        return kind == Kind.Limits ? subject : address(0);
    }

    /// Zero if nothing is announced, or was before a freeze.
    function _readyAt(Kind kind, address slot) private view returns (uint256) {
        Announcement storage announcement = _announcements[kind][slot];
        return announcement.freezes == _freezes ? announcement.readyAt : 0;
    }

    function _cancel(Kind kind, address slot) private {
        emit Cancelled(kind, _announcements[kind][slot].change.subject, msg.sender);
        delete _announcements[kind][slot];
    }

    /// Refuses what could not be applied, so that it is known now and not after the delay.
    function _check(Change calldata change) private view {
        if (change.kind == Kind.Limits) _checkToken(change.subject);
        else if (change.kind == Kind.HotWallet) _checkHotWallet(change.subject);
        else if (change.kind == Kind.Guardian) _checkGuardian(change.subject);
        else if (change.kind == Kind.Delay) _checkDelay(change.delay);
        else if (!frozen) revert NotFrozen();
    }

    function _checkOwner(address who) private view {
        if (who == address(0) || who == address(this) || who == hotWallet || who == guardian) revert InvalidOwner();
    }

    function _checkHotWallet(address who) private view {
        if (who == address(0) || who == address(this) || who == owner || who == guardian) revert InvalidHotWallet();
    }

    function _checkGuardian(address who) private view {
        if (who == address(0)) return;
        if (who == address(this) || who == owner || who == hotWallet) revert InvalidGuardian();
    }

    function _checkDelay(uint32 delay_) private pure {
        if (delay_ < MIN_DELAY || delay_ > MAX_DELAY) revert InvalidDelay();
    }

    function _checkToken(address token) private view {
        if (token.code.length == 0) revert InvalidToken();
        if (!_state[token].listed && _tokens.length == MAX_TOKENS) revert TooManyTokens();
    }

    function _setLimits(address token, Limits memory limits) private {
        _checkToken(token);
        Token storage state = _state[token];
        if (!state.listed) {
            state.listed = true;
            _tokens.push(token);
        }
        state.limits = limits;
        emit LimitsChanged(token, limits, msg.sender);
    }

    function _setHotWallet(address who) private {
        _checkHotWallet(who);
        hotWallet = who;
        emit HotWalletChanged(who);
    }

    function _setGuardian(address who) private {
        _checkGuardian(who);
        guardian = who;
        emit GuardianChanged(who);
    }

    function _setDelay(uint32 delay_) private {
        _checkDelay(delay_);
        delay = delay_;
        emit DelayChanged(delay_);
    }

    // ---- Tokens ----

    function _held(address token, address account) private view returns (uint256) {
        return IERC20Held(token).balanceOf(account);
    }

    /// Some tokens answer nothing; an answer, when there is one, must be true. The token's own reason is passed on: the
    /// owner wants to know that the hot wallet is blocked.
    function _push(address token, address to, uint256 amount) private {
        (bool done, bytes memory answer) = token.call(abi.encodeCall(IERC20Held.transfer, (to, amount)));
        if (!done && answer.length != 0) {
            assembly ("memory-safe") {
                revert(add(answer, 32), mload(answer))
            }
        }
        bool accepted =
            answer.length == 0 ? token.code.length != 0 : answer.length >= 32 && abi.decode(answer, (uint256)) == 1;
        if (!done || !accepted) revert TransferFailed();
    }
}
