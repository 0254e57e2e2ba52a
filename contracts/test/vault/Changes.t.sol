// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "../../src/IAllowanceVault.sol";
import {PlainToken} from "../support/Tokens.sol";
import {VaultWorld} from "./VaultWorld.sol";

/// spec/vault/freeze.tree, tighten.tree, lengthenDelay.tree, announce.tree, applyChange.tree, cancel.tree
contract VaultChangesTest is VaultWorld {
    function _limitsAre(uint128 perHour, uint128 perDay, uint128 target) private view {
        IAllowanceVault.Limits memory limits = vault.limitsOf(address(usdc));
        assertEq(limits.perHour, perHour, "per hour");
        assertEq(limits.perDay, perDay, "per day");
        assertEq(limits.target, target, "target");
    }

    function _readyAt(IAllowanceVault.Kind kind, address subject) private view returns (uint256 readyAt) {
        (, readyAt) = vault.announced(kind, subject);
    }

    function _notAnnounced(IAllowanceVault.Kind kind, address subject) private {
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.NotAnnounced.selector);
        vault.applyChange(kind, subject);
    }

    /// One of each kind, which can be announced now.
    function _oneOfEach() private view returns (IAllowanceVault.Change[5] memory all) {
        all[0] = _limitsChange(address(usdc), PER_HOUR * 2, PER_DAY * 2, TARGET * 2);
        all[1] = _hotChange(address(0x408));
        all[2] = _change(IAllowanceVault.Kind.Guardian, address(0x6A2E));
        all[3] = _delayChange(1 hours);
        all[4] = _change(IAllowanceVault.Kind.Unfreeze, address(0));
    }

    // ---- freeze ----

    function test_vault_freeze_byOwner() public {
        vm.expectEmit(address(vault));
        emit IAllowanceVault.Frozen(boss);
        _freeze();
        assertTrue(vault.frozen(), "frozen");
    }

    function test_vault_freeze_byGuardian() public {
        vm.expectEmit(address(vault));
        emit IAllowanceVault.Frozen(guard);
        vm.prank(guard);
        vault.freeze();
        assertTrue(vault.frozen(), "frozen");
    }

    function test_vault_freeze_others() public {
        _refusesAllBut(boss, guard, abi.encodeCall(vault.freeze, ()), IAllowanceVault.NotOwnerOrGuardian.selector);
        assertTrue(!vault.frozen(), "not frozen");
    }

    function test_vault_freeze_takesBackAnnouncements() public {
        _freeze();
        IAllowanceVault.Change[5] memory all = _oneOfEach();
        for (uint256 i; i < all.length; ++i) _announce(all[i]);
        vm.warp(START + DELAY);
        _freeze();
        for (uint256 i; i < all.length; ++i) {
            assertEq(_readyAt(all[i].kind, all[i].subject), 0, "taken back");
            _notAnnounced(all[i].kind, all[i].subject);
        }
        assertTrue(vault.frozen(), "still frozen");
    }

    // ---- tighten ----

    function test_vault_tighten_byOwner() public {
        vm.expectEmit(address(vault));
        emit IAllowanceVault.LimitsChanged(address(usdc), _limits(3, 2, 1), boss);
        _tighten(3, 2, 1);
        _limitsAre(3, 2, 1);
        assertEq(_refill(), 1, "at once");
    }

    function test_vault_tighten_byGuardian() public {
        vm.prank(guard);
        vault.tighten(address(usdc), _limits(0, 0, 0));
        _limitsAre(0, 0, 0);
        _nothing();
    }

    function test_vault_tighten_same() public {
        _tighten(PER_HOUR, PER_DAY, TARGET);
        _limitsAre(PER_HOUR, PER_DAY, TARGET);
    }

    function test_vault_tighten_others() public {
        bytes memory call = abi.encodeCall(vault.tighten, (address(usdc), _limits(0, 0, 0)));
        _refusesAllBut(boss, guard, call, IAllowanceVault.NotOwnerOrGuardian.selector);
    }

    function test_vault_tighten_looser() public {
        IAllowanceVault.Limits[3] memory looser = [
            _limits(PER_HOUR + 1, 0, 0), _limits(0, PER_DAY + 1, 0), _limits(0, 0, TARGET + 1)
        ];
        for (uint256 i; i < looser.length; ++i) {
            vm.prank(boss);
            vm.expectRevert(IAllowanceVault.NotTighter.selector);
            vault.tighten(address(usdc), looser[i]);
        }
        _limitsAre(PER_HOUR, PER_DAY, TARGET);
    }

    function test_vault_tighten_belowWhatWasMoved() public {
        _drain();
        _drain();
        _tighten(TARGET, PER_DAY, TARGET);
        _spend();
        _nothing();
        vm.warp(START + HOUR_AT_MOST);
        assertEq(_refill(), TARGET, "the new cap, once the old refills are over");
    }

    function test_vault_tighten_takesBackAnnouncement() public {
        _announce(_limitsChange(address(usdc), PER_HOUR * 2, PER_DAY, TARGET));
        _announce(_hotChange(address(0x408)));
        vm.expectEmit(address(vault));
        emit IAllowanceVault.Cancelled(IAllowanceVault.Kind.Limits, address(usdc), guard);
        vm.prank(guard);
        vault.tighten(address(usdc), _limits(1, 1, 1));
        vm.warp(START + DELAY);
        _notAnnounced(IAllowanceVault.Kind.Limits, address(usdc));
        assertTrue(_readyAt(IAllowanceVault.Kind.HotWallet, address(0)) != 0, "others stay");
    }

    // ---- lengthenDelay ----

    function test_vault_lengthenDelay() public {
        vm.expectEmit(address(vault));
        emit IAllowanceVault.DelayChanged(DELAY + 1);
        vm.prank(boss);
        vault.lengthenDelay(DELAY + 1);
        assertEq(vault.delay(), DELAY + 1, "the delay");
        assertEq(_announce(_hotChange(address(0x408))), START + DELAY + 1, "holds at once");
    }

    function test_vault_lengthenDelay_notLonger() public {
        uint32[2] memory short_ = [DELAY, DELAY - 1];
        for (uint256 i; i < 2; ++i) {
            vm.prank(boss);
            vm.expectRevert(IAllowanceVault.NotLonger.selector);
            vault.lengthenDelay(short_[i]);
        }
    }

    function test_vault_lengthenDelay_tooLong() public {
        vm.prank(boss);
        vault.lengthenDelay(30 days);
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.InvalidDelay.selector);
        vault.lengthenDelay(30 days + 1);
    }

    function test_vault_lengthenDelay_others() public {
        _refusesAllButOwner(abi.encodeCall(vault.lengthenDelay, (DELAY + 1)));
    }

    // ---- announce ----

    function test_vault_announce() public {
        _freeze();
        IAllowanceVault.Change[5] memory all = _oneOfEach();
        for (uint256 i; i < all.length; ++i) {
            IAllowanceVault.Change memory c = all[i];
            vm.expectEmit(address(vault));
            emit IAllowanceVault.Announced(c.kind, c.subject, c.limits, c.delay, START + DELAY);
            assertEq(_announce(c), START + DELAY, "when it is ready");
            (IAllowanceVault.Change memory told, uint256 readyAt) = vault.announced(c.kind, c.subject);
            assertEq(keccak256(abi.encode(told)), keccak256(abi.encode(c)), "what is announced");
            assertEq(readyAt, START + DELAY, "as the view says");
        }
        _limitsAre(PER_HOUR, PER_DAY, TARGET);
        assertEq(vault.hotWallet(), hot, "nothing is in force yet: the hot wallet");
        assertEq(vault.guardian(), guard, "the guardian");
        assertEq(vault.delay(), DELAY, "the delay");
        assertTrue(vault.frozen(), "the freeze");
    }

    function test_vault_announce_others() public {
        _refusesAllButOwner(abi.encodeCall(vault.announce, (_hotChange(address(0x408)))));
    }

    function test_vault_announce_again() public {
        _announce(_hotChange(address(0x408)));
        vm.warp(START + DELAY - 1);
        assertEq(_announce(_hotChange(address(0x409))), START + 2 * DELAY - 1, "waits anew");
        vm.warp(START + DELAY);
        vm.prank(boss);
        vm.expectRevert(abi.encodeWithSelector(IAllowanceVault.TooEarly.selector, START + 2 * DELAY - 1));
        vault.applyChange(IAllowanceVault.Kind.HotWallet, address(0));
        vm.warp(START + 2 * DELAY - 1);
        _apply(IAllowanceVault.Kind.HotWallet, address(0));
        assertEq(vault.hotWallet(), address(0x409), "the later one");
    }

    function _refused(IAllowanceVault.Change memory change, bytes4 reason) private {
        vm.prank(boss);
        vm.expectRevert(reason);
        vault.announce(change);
    }

    function test_vault_announce_noToken() public {
        _refused(_limitsChange(address(0xDEAD), 1, 1, 1), IAllowanceVault.InvalidToken.selector);
    }

    function test_vault_announce_tooManyTokens() public {
        for (uint256 i = 1; i < 16; ++i) _loosen(_limitsChange(address(new PlainToken()), 1, 1, 1));
        assertEq(vault.tokens().length, 16, "as many as there may be");
        _refused(_limitsChange(address(new PlainToken()), 1, 1, 1), IAllowanceVault.TooManyTokens.selector);
        _loosen(_limitsChange(address(usdc), 1, 2, 3));
        _limitsAre(1, 2, 3);
    }

    function test_vault_announce_badHotWallet() public {
        address[4] memory bad = [address(0), address(vault), boss, guard];
        for (uint256 i; i < 4; ++i) _refused(_hotChange(bad[i]), IAllowanceVault.InvalidHotWallet.selector);
    }

    function test_vault_announce_badGuardian() public {
        address[3] memory bad = [address(vault), boss, hot];
        for (uint256 i; i < 3; ++i) {
            _refused(_change(IAllowanceVault.Kind.Guardian, bad[i]), IAllowanceVault.InvalidGuardian.selector);
        }
    }

    function test_vault_announce_badDelay() public {
        _refused(_delayChange(1 hours - 1), IAllowanceVault.InvalidDelay.selector);
        _refused(_delayChange(30 days + 1), IAllowanceVault.InvalidDelay.selector);
    }

    function test_vault_announce_unfreezeUnfrozen() public {
        _refused(_change(IAllowanceVault.Kind.Unfreeze, address(0)), IAllowanceVault.NotFrozen.selector);
    }

    // ---- applyChange ----

    function test_vault_apply_limits() public {
        IAllowanceVault.Change memory change = _limitsChange(address(usdc), PER_HOUR * 2, 1, TARGET * 2);
        vm.warp(_announce(change));
        vm.expectEmit(address(vault));
        emit IAllowanceVault.LimitsChanged(address(usdc), change.limits, boss);
        _apply(IAllowanceVault.Kind.Limits, address(usdc));
        _limitsAre(PER_HOUR * 2, 1, TARGET * 2);
        assertEq(vault.tokens().length, 1, "no second entry");
    }

    function test_vault_apply_newToken() public {
        PlainToken other = new PlainToken();
        other.mint(address(vault), FLOAT);
        _loosen(_limitsChange(address(other), 5, 6, 7));
        assertEq(vault.tokens().length, 2, "two tokens");
        assertEq(vault.tokens()[1], address(other), "the second");
        assertEq(vault.refill(address(other)), 5, "can be refilled");
        _limitsAre(PER_HOUR, PER_DAY, TARGET);
    }

    function test_vault_apply_hotWallet() public {
        vm.warp(_announce(_hotChange(address(0x408))));
        vm.expectEmit(address(vault));
        emit IAllowanceVault.HotWalletChanged(address(0x408));
        _apply(IAllowanceVault.Kind.HotWallet, address(0));
        _refill();
        assertEq(_balance(address(0x408)), TARGET, "the new one is refilled");
        assertEq(_balance(hot), 0, "the old one isn't");
    }

    function test_vault_apply_guardian() public {
        vm.warp(_announce(_change(IAllowanceVault.Kind.Guardian, address(0x6A2E))));
        vm.expectEmit(address(vault));
        emit IAllowanceVault.GuardianChanged(address(0x6A2E));
        _apply(IAllowanceVault.Kind.Guardian, address(0));
        vm.prank(guard);
        vm.expectRevert(IAllowanceVault.NotOwnerOrGuardian.selector);
        vault.freeze();
        vm.prank(address(0x6A2E));
        vault.freeze();
    }

    function test_vault_apply_noGuardian() public {
        _loosen(_change(IAllowanceVault.Kind.Guardian, address(0)));
        assertEq(vault.guardian(), address(0), "nobody");
    }

    function test_vault_apply_delay() public {
        vm.warp(_announce(_delayChange(1 hours)));
        vm.expectEmit(address(vault));
        emit IAllowanceVault.DelayChanged(1 hours);
        _apply(IAllowanceVault.Kind.Delay, address(0));
        assertEq(_announce(_hotChange(address(0x408))), START + DELAY + 1 hours, "holds for what comes");
    }

    function test_vault_apply_unfreeze() public {
        _freeze();
        vm.warp(_announce(_change(IAllowanceVault.Kind.Unfreeze, address(0))));
        vm.expectEmit(address(vault));
        emit IAllowanceVault.Unfrozen();
        _apply(IAllowanceVault.Kind.Unfreeze, address(0));
        assertTrue(!vault.frozen(), "not frozen");
        assertEq(_refill(), TARGET, "refills again");
    }

    function test_vault_apply_others() public {
        vm.warp(_announce(_hotChange(address(0x408))));
        _refusesAllButOwner(abi.encodeCall(vault.applyChange, (IAllowanceVault.Kind.HotWallet, address(0))));
    }

    function test_vault_apply_tooEarly() public {
        uint256 readyAt = _announce(_hotChange(address(0x408)));
        vm.warp(readyAt - 1);
        vm.prank(boss);
        vm.expectRevert(abi.encodeWithSelector(IAllowanceVault.TooEarly.selector, readyAt));
        vault.applyChange(IAllowanceVault.Kind.HotWallet, address(0));
    }

    function test_vault_apply_lastSecond() public {
        vm.warp(_announce(_hotChange(address(0x408))) + APPLY_WINDOW - 1);
        _apply(IAllowanceVault.Kind.HotWallet, address(0));
        assertEq(vault.hotWallet(), address(0x408), "in time");
    }

    function test_vault_apply_tooLate() public {
        uint256 endedAt = _announce(_hotChange(address(0x408))) + APPLY_WINDOW;
        vm.warp(endedAt);
        vm.prank(boss);
        vm.expectRevert(abi.encodeWithSelector(IAllowanceVault.TooLate.selector, endedAt));
        vault.applyChange(IAllowanceVault.Kind.HotWallet, address(0));
    }

    function test_vault_apply_notAnnounced() public {
        for (uint8 i; i < 5; ++i) _notAnnounced(IAllowanceVault.Kind(i), address(usdc));
        // Another token's announcement is not this one's.
        _announce(_limitsChange(address(new PlainToken()), 1, 1, 1));
        vm.warp(START + DELAY);
        _notAnnounced(IAllowanceVault.Kind.Limits, address(usdc));
    }

    function test_vault_apply_twice() public {
        _loosen(_hotChange(address(0x408)));
        _notAnnounced(IAllowanceVault.Kind.HotWallet, address(0));
    }

    function test_vault_apply_rolesChangedSince() public {
        _announce(_hotChange(address(0x408)));
        _announce(_change(IAllowanceVault.Kind.Guardian, address(0x408)));
        vm.warp(START + DELAY);
        _apply(IAllowanceVault.Kind.HotWallet, address(0));
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.InvalidGuardian.selector);
        vault.applyChange(IAllowanceVault.Kind.Guardian, address(0));
    }

    // ---- cancel ----

    function test_vault_cancel() public {
        _freeze();
        IAllowanceVault.Change[5] memory all = _oneOfEach();
        for (uint256 i; i < all.length; ++i) _announce(all[i]);
        for (uint256 i; i < all.length; ++i) {
            address by = i % 2 == 0 ? boss : guard;
            vm.expectEmit(address(vault));
            emit IAllowanceVault.Cancelled(all[i].kind, all[i].subject, by);
            vm.prank(by);
            vault.cancel(all[i].kind, all[i].subject);
            assertEq(_readyAt(all[i].kind, all[i].subject), 0, "taken back");
            if (i + 1 < all.length) {
                assertTrue(_readyAt(all[i + 1].kind, all[i + 1].subject) != 0, "others stay");
            }
        }
        vm.warp(START + DELAY);
        for (uint256 i; i < all.length; ++i) _notAnnounced(all[i].kind, all[i].subject);
    }

    function test_vault_cancel_others() public {
        _announce(_hotChange(address(0x408)));
        bytes memory call = abi.encodeCall(vault.cancel, (IAllowanceVault.Kind.HotWallet, address(0)));
        _refusesAllBut(boss, guard, call, IAllowanceVault.NotOwnerOrGuardian.selector);
    }

    function test_vault_cancel_nothing() public {
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.NotAnnounced.selector);
        vault.cancel(IAllowanceVault.Kind.HotWallet, address(0));
    }
}
