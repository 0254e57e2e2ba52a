// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "../../src/IAllowanceVault.sol";
import {PlainToken} from "../support/Tokens.sol";
import {VaultWorld} from "./VaultWorld.sol";

/// What the fuzzer drives: an owner, a guardian, a thief with the hot key, and strangers, who do what the vault allows
/// and now and then what it must refuse. Beside it stands a model that remembers every refill to the second, where the
/// vault remembers buckets.
contract VaultHandler is VaultWorld {
    struct Move {
        uint256 time;
        uint256 amount;
    }

    struct Announced {
        IAllowanceVault.Change change;
        uint256 readyAt;
    }

    uint256 private constant KINDS = 5;

    address[2] public assets;
    mapping(address token => Move[]) private _moves;
    mapping(address token => IAllowanceVault.Limits) private _limitsNow;
    mapping(address token => uint256) public float_;
    mapping(address token => uint256) public refilled;
    address[] private _hotWallets;

    address public owner_;
    address public guardian_;
    address public hot_;
    uint32 public delay_;
    bool public frozen_;
    /// By kind, and for limits by token: what can be applied, if it is time.
    mapping(uint256 kind => mapping(address slot => Announced)) private _announcements;

    uint256 public now_;
    uint256 public steps;
    uint256 private _people;
    mapping(string what => uint256) public count;

    constructor() {
        setUp();
        now_ = block.timestamp;
        PlainToken plain = new PlainToken();
        plain.mint(address(vault), FLOAT);
        plain.mint(stranger, FLOAT);
        assets = [address(usdc), address(plain)];
        float_[address(usdc)] = FLOAT;
        float_[address(plain)] = FLOAT;
        _limitsNow[address(usdc)] = _limits(PER_HOUR, PER_DAY, TARGET);
        (owner_, guardian_, hot_, delay_) = (boss, guard, hot, DELAY);
        _hotWallets.push(hot);
    }

    // ---- What the invariants read ----

    function target() external view returns (IAllowanceVault) {
        return vault;
    }

    function limitsNow(address token) external view returns (IAllowanceVault.Limits memory) {
        return _limitsNow[token];
    }

    function announcement(uint256 kind, address slot) external view returns (Announced memory) {
        return _announcements[kind][slot];
    }

    /// What was moved at `since` or later.
    function movedSince(address token, uint256 since) public view returns (uint256 sum) {
        Move[] storage moves = _moves[token];
        for (uint256 i = moves.length; i > 0 && moves[i - 1].time >= since; --i) sum += moves[i - 1].amount;
    }

    modifier inTime() {
        ++steps;
        vm.warp(now_);
        _;
    }

    function _asset(uint256 seed) private view returns (address) {
        return assets[seed % 4 == 0 ? 1 : 0];
    }

    function _lesser(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }

    function _rest(uint256 cap, uint256 gone) private pure returns (uint256) {
        return cap > gone ? cap - gone : 0;
    }

    // ---- Refills ----

    /// I1, I2, I3, I4, I9 at every refill, to the second.
    function refill(uint256 seed) public inTime {
        address token = _asset(seed);
        IAllowanceVault.Limits memory limits = _limitsNow[token];
        uint256 held = PlainToken(token).balanceOf(hot_);
        uint256 there = PlainToken(token).balanceOf(address(vault));
        // What must be possible: with everything counted that may still count.
        uint256 least = _lesser(
            _rest(limits.perHour, movedSince(token, now_ - HOUR_AT_MOST + 1)),
            _rest(limits.perDay, movedSince(token, now_ - DAY_AT_MOST + 1))
        );
        least = _lesser(_lesser(least, _rest(limits.target, held)), there);
        address by = seed % 3 == 0 ? hot_ : stranger;
        vm.prank(by);
        (bool done, bytes memory answer) = address(vault).call(abi.encodeCall(vault.refill, (token)));
        if (frozen_) {
            assertTrue(!done, "I4: refilled while frozen");
            return _refusedFor(answer, IAllowanceVault.IsFrozen.selector);
        }
        if (!done) {
            assertEq(least, 0, "I9: a refill was possible");
            return _refusedFor(answer, IAllowanceVault.NothingToRefill.selector);
        }
        uint256 amount = abi.decode(answer, (uint256));
        assertTrue(amount >= least && amount > 0, "I9: as much as must be possible");
        _moves[token].push(Move(now_, amount));
        assertTrue(movedSince(token, now_ - 1 hours) <= limits.perHour, "I1: more than the hourly cap in an hour");
        assertTrue(movedSince(token, now_ - 1 days) <= limits.perDay, "I2: more than the daily cap in a day");
        uint256 holds = PlainToken(token).balanceOf(hot_);
        assertTrue(holds <= limits.target, "I3: above the target");
        assertEq(holds, held + amount, "I5: to the hot wallet that is in force");
        float_[token] -= amount;
        refilled[token] += amount;
        ++count["refill"];
    }

    /// The thief: spends all there is, and asks for more.
    function rob(uint256 seed) external {
        spend(seed, type(uint128).max);
        refill(seed);
    }

    function spend(uint256 seed, uint128 amount) public inTime {
        address token = _asset(seed);
        uint256 held = PlainToken(token).balanceOf(hot_);
        if (held == 0) return;
        vm.prank(hot_);
        PlainToken(token).transfer(shop, amount > held ? held : amount);
    }

    // ---- The float ----

    function fund(uint256 seed, uint128 amount) external inTime {
        address token = _asset(seed);
        amount = uint128(bound(amount, 1, PER_HOUR));
        if (PlainToken(token).balanceOf(stranger) < amount) return;
        vm.prank(stranger);
        PlainToken(token).transfer(address(vault), amount);
        float_[token] += amount;
    }

    function donateToHot(uint256 seed, uint128 amount) external inTime {
        address token = _asset(seed);
        amount = uint128(bound(amount, 1, TARGET));
        if (PlainToken(token).balanceOf(stranger) < amount) return;
        vm.prank(stranger);
        PlainToken(token).transfer(hot_, amount);
    }

    /// I8: whatever the vault's state, for the owner and nobody else.
    function withdraw(uint256 seed, uint128 amount) external inTime {
        address token = _asset(seed);
        amount = uint128(bound(amount, 0, _lesser(float_[token], PER_HOUR)));
        vm.prank(owner_);
        vault.withdraw(token, owner_, amount);
        float_[token] -= amount;
        ++count["withdraw"];
    }

    // ---- To allow less ----

    function freeze(uint256 seed) external inTime {
        // Not at first and not too often, or nothing else is seen.
        if (seed % 6 != 0 || count["refill"] == 0) return;
        vm.prank(seed % 12 == 0 ? owner_ : guardian_);
        vault.freeze();
        frozen_ = true;
        for (uint256 kind = 1; kind < KINDS; ++kind) delete _announcements[kind][address(0)];
        for (uint256 i; i < 2; ++i) delete _announcements[0][assets[i]];
        ++count["freeze"];
    }

    function tighten(uint256 seed, uint128 perHour, uint128 perDay, uint128 target_) external inTime {
        if (seed % 3 != 0) return;
        address token = _asset(seed / 3);
        IAllowanceVault.Limits memory old = _limitsNow[token];
        // Now and then a little more than there was.
        IAllowanceVault.Limits memory wanted = _limits(
            uint128(bound(perHour, uint256(old.perHour) * 3 / 4, uint256(old.perHour) + 1)),
            uint128(bound(perDay, uint256(old.perDay) * 3 / 4, uint256(old.perDay) + 1)),
            uint128(bound(target_, uint256(old.target) * 3 / 4, uint256(old.target) + 1))
        );
        bool tighter =
            wanted.perHour <= old.perHour && wanted.perDay <= old.perDay && wanted.target <= old.target;
        vm.prank(seed % 2 == 0 ? owner_ : guardian_);
        (bool done, bytes memory why) = address(vault).call(abi.encodeCall(vault.tighten, (token, wanted)));
        assertTrue(done == tighter, "I7: tightening, and that alone, is immediate");
        if (!done) return _refusedFor(why, IAllowanceVault.NotTighter.selector);
        _limitsNow[token] = wanted;
        delete _announcements[0][token];
        ++count["tighten"];
    }

    function cancel(uint256 seed) external inTime {
        if (seed % 4 != 0) return;
        (uint256 kind, address slot) = _pickSlot(seed / 4);
        vm.prank(seed % 8 == 0 ? owner_ : guardian_);
        (bool done, bytes memory why) =
            address(vault).call(abi.encodeCall(vault.cancel, (IAllowanceVault.Kind(kind), slot)));
        assertTrue(done == (_announcements[kind][slot].readyAt != 0), "I7: what is announced can be cancelled");
        if (!done) return _refusedFor(why, IAllowanceVault.NotAnnounced.selector);
        delete _announcements[kind][slot];
    }

    // ---- To allow more ----

    function _pickSlot(uint256 seed) private view returns (uint256 kind, address slot) {
        kind = seed % KINDS;
        if (kind == 0) slot = _asset(seed / KINDS);
    }

    function announce(uint256 seed, uint128 size) external inTime {
        (uint256 kind, address slot) = _pickSlot(seed);
        // Else the limits of a run fall until nothing is possible.
        if (seed % 2 == 0) (kind, slot) = (0, _asset(seed / 2));
        if (frozen_ && seed % 3 == 0) (kind, slot) = (4, address(0));
        IAllowanceVault.Change memory change = _change(IAllowanceVault.Kind(kind), slot);
        if (kind == 0) {
            uint128 perHour = uint128(bound(size, 1, PER_HOUR * 2));
            change.limits = _limits(perHour, uint128(bound(size >> 7, perHour, PER_DAY)), TARGET);
        } else if (kind == 1 || kind == 2) {
            change.subject = address(uint160(0xABCD0000 + ++_people));
        } else if (kind == 3) {
            change.delay = uint32(bound(size, 1 hours, 2 days));
        }
        vm.prank(owner_);
        (bool done, bytes memory answer) = address(vault).call(abi.encodeCall(vault.announce, (change)));
        assertTrue(done == (kind != 4 || frozen_), "I6: everything can be announced, but to unfreeze what is not frozen");
        if (!done) return _refusedFor(answer, IAllowanceVault.NotFrozen.selector);
        assertEq(abi.decode(answer, (uint256)), now_ + delay_, "I6: the delay");
        _announcements[kind][slot] = Announced(change, now_ + delay_);
        ++count["announce"];
    }

    function applyChange(uint256 seed) external inTime {
        (uint256 kind, address slot) = _pickReady(seed);
        Announced memory a = _announcements[kind][slot];
        vm.prank(owner_);
        (bool done, bytes memory why) =
            address(vault).call(abi.encodeCall(vault.applyChange, (IAllowanceVault.Kind(kind), slot)));
        bool ready = a.readyAt != 0 && now_ >= a.readyAt && now_ < a.readyAt + APPLY_WINDOW;
        assertTrue(done == ready, "I6: after the delay, not before, and not for ever");
        if (!done) {
            bytes4 wanted = a.readyAt == 0
                ? IAllowanceVault.NotAnnounced.selector
                : now_ < a.readyAt ? IAllowanceVault.TooEarly.selector : IAllowanceVault.TooLate.selector;
            return _refusedFor(why, wanted);
        }
        delete _announcements[kind][slot];
        if (kind == 0) _limitsNow[slot] = a.change.limits;
        else if (kind == 1) hot_ = a.change.subject;
        else if (kind == 2) guardian_ = a.change.subject;
        else if (kind == 3) delay_ = a.change.delay;
        else frozen_ = false;
        ++count["apply"];
    }

    /// Mostly one that is announced, if there is one.
    function _pickReady(uint256 seed) private view returns (uint256 kind, address slot) {
        for (uint256 i; i < 8 && seed % 4 != 0; ++i) {
            (kind, slot) = _pickSlot(seed / 4 + i);
            if (_announcements[kind][slot].readyAt != 0) return (kind, slot);
        }
        return _pickSlot(seed / 4);
    }

    function lengthenDelay(uint256 seed) external inTime {
        uint32 wanted = uint32(bound(seed, delay_ - 1, uint256(delay_) + 1 hours));
        vm.prank(owner_);
        (bool done,) = address(vault).call(abi.encodeCall(vault.lengthenDelay, (wanted)));
        assertTrue(done == (wanted > delay_), "I7: a longer delay, and no other, is immediate");
        if (done) delay_ = wanted;
    }

    function handOver(uint256 seed) external inTime {
        address heir = address(uint160(0xABCD0000 + ++_people));
        vm.prank(owner_);
        vault.offerOwnership(heir);
        if (seed % 2 == 0) return;
        vm.prank(heir);
        vault.acceptOwnership();
        owner_ = heir;
    }

    // ---- Everybody else ----

    /// I10.
    function meddle(uint256 seed, uint128 amount) external inTime {
        (uint256 kind, address slot) = _pickSlot(seed);
        bytes[9] memory calls = [
            abi.encodeCall(vault.freeze, ()),
            abi.encodeCall(vault.tighten, (assets[0], _limits(0, 0, 0))),
            abi.encodeCall(vault.cancel, (IAllowanceVault.Kind(kind), slot)),
            abi.encodeCall(vault.announce, (_limitsChange(assets[0], amount, amount, amount))),
            abi.encodeCall(vault.applyChange, (IAllowanceVault.Kind(kind), slot)),
            abi.encodeCall(vault.lengthenDelay, (delay_ + 1)),
            abi.encodeCall(vault.withdraw, (assets[0], stranger, amount)),
            abi.encodeCall(vault.offerOwnership, (stranger)),
            abi.encodeCall(vault.acceptOwnership, ())
        ];
        // The guardian may do the first three.
        uint256 which = seed % calls.length;
        address by = which > 2 && amount % 3 == 0 ? guardian_ : amount % 2 == 0 ? hot_ : stranger;
        vm.prank(by);
        (bool done,) = address(vault).call(calls[which]);
        assertTrue(!done, "I10: somebody else was obeyed");
        ++count["meddle"];
    }

    function wait_(uint256 seconds_) external {
        now_ += bound(seconds_, 1, 20 minutes);
        vm.warp(now_);
    }

    function waitLong(uint256 seconds_) external {
        now_ += bound(seconds_, 1 hours, 1 days + 2 hours);
        vm.warp(now_);
    }

    /// To the second: around the end of a bucket, or of the time for which the last refill counts.
    function waitToTheEdge(uint256 seed) external {
        Move[] storage moves = _moves[assets[0]];
        uint256 bucket = seed % 2 == 0 ? 5 minutes : 1 hours;
        uint256 edge = (now_ / bucket + 1) * bucket;
        if (seed % 3 == 0 && moves.length != 0) edge = moves[moves.length - 1].time + (seed % 2 == 0 ? 1 hours : 1 days);
        edge -= seed / 6 % 2;
        if (edge > now_) now_ = edge;
        vm.warp(now_);
    }

    function _refusedFor(bytes memory reason, bytes4 wanted) private {
        assertEq(bytes32(bytes4(reason)), bytes32(wanted), "the reason of a refusal");
        ++count["refused"];
    }
}
