// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "../../src/IAllowanceVault.sol";
import {FalseToken, FeeToken, HookToken, PlainToken, SilentToken} from "../support/Tokens.sol";
import {OverchargingToken, ShortAnswerToken, SpeechlessToken} from "./VaultTokens.sol";
import {VaultWorld} from "./VaultWorld.sol";

/// Refills twice in one transaction, as a keeper of many vaults and tokens would.
contract Keeper {
    function refill(IAllowanceVault vault, address first, address second) external {
        vault.refill(first);
        vault.refill(second);
    }
}

/// spec/vault/refill.tree, spec/vault/withdraw.tree
contract VaultRefillTest is VaultWorld {
    function test_vault_refill() public {
        vm.expectEmit(address(vault));
        emit IAllowanceVault.Refilled(address(usdc), hot, stranger, TARGET);
        assertEq(_refill(), TARGET, "what it says that it moved");
        assertEq(_balance(hot), TARGET, "balance of the hot wallet");
        assertEq(_balance(address(vault)), FLOAT - TARGET, "balance of the vault");
        (uint256 hour, uint256 day) = vault.used(address(usdc));
        assertEq(hour, TARGET, "counts for the hour");
        assertEq(day, TARGET, "counts for the day");
    }

    function test_vault_refill_toTheTargetOnly() public {
        vm.prank(issuer);
        usdc.mint(hot, TARGET - 1);
        assertEq(_refill(), 1, "one atom was missing");
        _nothing();
    }

    function test_vault_refill_aboveTarget() public {
        vm.prank(issuer);
        usdc.mint(hot, TARGET + 1);
        _nothing();
    }

    function test_vault_refill_frozen() public {
        _freeze();
        vm.expectRevert(IAllowanceVault.IsFrozen.selector);
        vault.refill(address(usdc));
    }

    function test_vault_refill_tokenWithoutLimits() public {
        PlainToken other = new PlainToken();
        other.mint(address(vault), FLOAT);
        vm.expectRevert(IAllowanceVault.NothingToRefill.selector);
        vault.refill(address(other));
        vm.expectRevert(IAllowanceVault.NothingToRefill.selector);
        vault.refill(address(0xDEAD));
    }

    function test_vault_refill_emptyVault() public {
        vm.prank(boss);
        vault.withdraw(address(usdc), boss, FLOAT);
        _nothing();
        _fundVault(7);
        assertEq(_refill(), 7, "what there is");
    }

    // ---- The hour ----

    function test_vault_refill_hourlyCap() public {
        assertEq(_drain() + _drain(), 2 * TARGET, "within the cap");
        assertEq(_drain(), PER_HOUR - 2 * TARGET, "the rest of the cap");
        _spend();
        _nothing();
    }

    function test_vault_refill_hourOverTheEdge() public {
        vm.warp(START + 1 hours - 1);
        _drain();
        _drain();
        _drain();
        _spend();
        vm.warp(START + 1 hours);
        _nothing();
    }

    /// What is moved as a bucket begins counts longest: 3,900 seconds. As it ends, shortest: 3,601.
    function test_vault_refill_hourIsOver() public {
        vault = _deploy(TARGET, PER_DAY, TARGET);
        _fundVault(FLOAT);
        uint256[3] memory seconds_ = [uint256(0), 150, 299];
        for (uint256 i; i < seconds_.length; ++i) {
            uint256 begins = START + (i + 1) * 6 hours;
            vm.warp(begins + seconds_[i]);
            assertEq(_drain(), TARGET, "the whole cap");
            _spend();
            vm.warp(begins + seconds_[i] + 1 hours);
            _nothing();
            vm.warp(begins + HOUR_AT_MOST - 1);
            _nothing();
            vm.warp(begins + HOUR_AT_MOST);
            assertEq(_refill(), TARGET, "the whole cap again");
            _spend();
        }
    }

    /// What was moved at different times comes free at different times.
    function test_vault_refill_hourRolls() public {
        assertEq(_drain(), TARGET, "first");
        vm.warp(START + 20 minutes);
        assertEq(_drain(), TARGET, "second");
        vm.warp(START + 40 minutes);
        assertEq(_drain(), PER_HOUR - 2 * TARGET, "what was left");
        _spend();
        vm.warp(START + HOUR_AT_MOST);
        assertEq(_refill(), TARGET, "the first came free");
        _spend();
        vm.warp(START + 20 minutes + HOUR_AT_MOST - 1);
        _nothing();
        vm.warp(START + 20 minutes + HOUR_AT_MOST);
        assertEq(_refill(), TARGET, "the second came free");
        _spend();
        vm.warp(START + 40 minutes + HOUR_AT_MOST);
        assertEq(_refill(), PER_HOUR - 2 * TARGET, "the third came free");
    }

    // ---- The day ----

    function _deployForDay() private {
        // No hour stands in the way.
        vault = _deploy(1_000_000_000, TARGET, TARGET);
        _fundVault(FLOAT);
    }

    function test_vault_refill_dailyCap() public {
        uint256 moved;
        for (uint256 i; i < 12; ++i) {
            vm.warp(START + i * HOUR_AT_MOST);
            while (vault.refillable(address(usdc)) != 0) {
                moved += _refill();
                _spend();
            }
        }
        assertEq(moved, PER_DAY, "half a day and many hourly caps later");
    }

    function test_vault_refill_dayOverTheEdge() public {
        _deployForDay();
        vm.warp(START + 1 days - 1);
        assertEq(_drain(), TARGET, "the whole cap");
        _spend();
        vm.warp(START + 1 days);
        _nothing();
    }

    function test_vault_refill_dayIsOver() public {
        _deployForDay();
        uint256[3] memory seconds_ = [uint256(0), 1800, 3599];
        for (uint256 i; i < seconds_.length; ++i) {
            uint256 begins = START + (i + 1) * 4 days;
            vm.warp(begins + seconds_[i]);
            assertEq(_drain(), TARGET, "the whole cap");
            _spend();
            vm.warp(begins + seconds_[i] + 1 days);
            _nothing();
            vm.warp(begins + DAY_AT_MOST - 1);
            _nothing();
            vm.warp(begins + DAY_AT_MOST);
            assertEq(_refill(), TARGET, "the whole cap again");
            _spend();
        }
    }

    function test_vault_refill_dayRolls() public {
        vault = _deploy(1_000_000_000, PER_HOUR, TARGET);
        _fundVault(FLOAT);
        assertEq(_drain(), TARGET, "first");
        vm.warp(START + 10 hours);
        assertEq(_drain(), TARGET, "second");
        vm.warp(START + 20 hours);
        assertEq(_drain(), PER_HOUR - 2 * TARGET, "what was left");
        _spend();
        vm.warp(START + DAY_AT_MOST);
        assertEq(_refill(), TARGET, "the first came free");
        _spend();
        _nothing();
        vm.warp(START + 10 hours + DAY_AT_MOST);
        assertEq(_refill(), TARGET, "the second came free");
    }

    function test_vault_refill_afterLongRest() public {
        _drain();
        _spend();
        vm.warp(START + 400 days);
        (uint256 hour, uint256 day) = vault.used(address(usdc));
        assertEq(hour + day, 0, "nothing counts");
        assertEq(_refill(), TARGET, "as if new");
        (hour, day) = vault.used(address(usdc));
        assertEq(hour, TARGET, "and counts what it moved, once, for the hour");
        assertEq(day, TARGET, "and once for the day");
    }

    function test_vault_refill_largestLimits() public {
        PlainToken token = new PlainToken();
        uint128 most = type(uint128).max;
        IAllowanceVault made = IAllowanceVault(
            _create2(bytes32(0), _initCode(boss, guard, hot, DELAY, _only(address(token), _limits(most, most, most))))
        );
        token.mint(address(made), type(uint256).max);
        assertEq(made.refill(address(token)), most, "2^128 - 1 atoms");
        vm.expectRevert(IAllowanceVault.NothingToRefill.selector);
        made.refill(address(token));
    }

    function test_vault_refill_tokensApart() public {
        PlainToken other = new PlainToken();
        other.mint(address(vault), FLOAT);
        _loosen(_limitsChange(address(other), 10, 10, 10));
        _drain();
        _drain();
        _drain();
        assertEq(vault.refill(address(other)), 10, "its own caps");
        vm.prank(hot);
        other.transfer(shop, 10);
        vm.expectRevert(IAllowanceVault.NothingToRefill.selector);
        vault.refill(address(other));
    }

    // ---- Tokens ----

    function test_vault_refill_feeOnTransfer() public {
        FeeToken token = new FeeToken();
        vault = _deployFor(token);
        assertEq(vault.refill(address(token)), TARGET, "what left");
        assertEq(token.balanceOf(hot), TARGET - 1, "what arrived");
        (uint256 hour,) = vault.used(address(token));
        assertEq(hour, TARGET, "what counts is what left");
    }

    function test_vault_refill_feeOnTop() public {
        OverchargingToken token = new OverchargingToken();
        vault = _deployFor(token);
        vm.expectRevert(IAllowanceVault.InexactTransfer.selector);
        vault.refill(address(token));
    }

    function test_vault_refill_tokenWithoutAnswer() public {
        SilentToken token = new SilentToken();
        vault = _deployFor(PlainToken(address(token)));
        assertEq(vault.refill(address(token)), TARGET, "what left");
        assertEq(token.balanceOf(hot), TARGET, "what arrived");
    }

    function test_vault_refill_tokenSaysNo() public {
        FalseToken token = new FalseToken();
        vault = _deployFor(token);
        token.refuse(true);
        vm.expectRevert(IAllowanceVault.TransferFailed.selector);
        vault.refill(address(token));
        (uint256 hour,) = vault.used(address(token));
        assertEq(hour, 0, "nothing counts");
        token.refuse(false);
        assertEq(vault.refill(address(token)), TARGET, "later it works");
    }

    function test_vault_refill_tokenWithShortAnswer() public {
        ShortAnswerToken token = new ShortAnswerToken();
        vault = _deployFor(token);
        vm.expectRevert(IAllowanceVault.TransferFailed.selector);
        vault.refill(address(token));
    }

    function test_vault_refill_tokenRevertsWithoutReason() public {
        SpeechlessToken token = new SpeechlessToken();
        vault = _deployFor(token);
        vm.expectRevert(IAllowanceVault.TransferFailed.selector);
        vault.refill(address(token));
    }

    function test_vault_refill_tokenIsGone() public {
        vm.etch(address(usdc), "");
        vm.expectRevert(bytes(""));
        vault.refill(address(usdc));
    }

    function test_vault_refill_blockedHotWallet() public {
        vm.prank(issuer);
        usdc.blacklist(hot);
        vm.expectRevert("Blacklistable: account is blacklisted");
        vault.refill(address(usdc));
        (uint256 hour,) = vault.used(address(usdc));
        assertEq(hour, 0, "nothing counts");
        vm.prank(boss);
        vault.withdraw(address(usdc), boss, FLOAT);
        assertEq(_balance(boss), FLOAT, "the float is the owner's");
    }

    function test_vault_refill_reentered() public {
        HookToken token = new HookToken();
        vault = _deployFor(token);
        token.onTransfer(address(vault), abi.encodeCall(vault.refill, (address(token))));
        assertEq(vault.refill(address(token)), TARGET, "once");
        assertEq(bytes32(token.answers(0)), bytes32(IAllowanceVault.Reentered.selector), "the second was refused");
        token.onTransfer(address(0), "");
        vm.prank(hot);
        token.transfer(shop, TARGET);
        assertEq(vault.refill(address(token)), TARGET, "the guard is open again");
    }

    function test_vault_refill_twoInOneTransaction() public {
        PlainToken other = new PlainToken();
        other.mint(address(vault), FLOAT);
        _loosen(_limitsChange(address(other), 10, 10, 10));
        new Keeper().refill(vault, address(usdc), address(other));
        assertEq(_balance(hot), TARGET, "the one");
        assertEq(other.balanceOf(hot), 10, "and the other");
    }

    // ---- withdraw ----

    function test_vault_withdraw() public {
        vm.expectEmit(address(vault));
        emit IAllowanceVault.Withdrawn(address(usdc), shop, FLOAT - 1);
        vm.prank(boss);
        vault.withdraw(address(usdc), shop, FLOAT - 1);
        assertEq(_balance(shop), FLOAT - 1, "beyond every cap");
        assertEq(_balance(address(vault)), 1, "the rest");
        (uint256 hour,) = vault.used(address(usdc));
        assertEq(hour, 0, "no refill");
    }

    function test_vault_withdraw_frozen() public {
        _freeze();
        vm.prank(boss);
        vault.withdraw(address(usdc), boss, FLOAT);
        assertEq(_balance(boss), FLOAT, "all of it");
    }

    function test_vault_withdraw_unnamedToken() public {
        PlainToken other = new PlainToken();
        other.mint(address(vault), 5);
        vm.prank(boss);
        vault.withdraw(address(other), boss, 5);
        assertEq(other.balanceOf(boss), 5, "sent by mistake, and back");
    }

    function test_vault_withdraw_notOwner() public {
        _refusesAllButOwner(abi.encodeCall(vault.withdraw, (address(usdc), stranger, 1)));
    }

    function test_vault_withdraw_tokenSaysNo() public {
        FalseToken token = new FalseToken();
        vault = _deployFor(token);
        token.refuse(true);
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.TransferFailed.selector);
        vault.withdraw(address(token), boss, 1);
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.TransferFailed.selector);
        vault.withdraw(address(0xDEAD), boss, 1);
    }

    function test_vault_withdraw_tooMuch() public {
        vm.prank(boss);
        vm.expectRevert("ERC20: transfer amount exceeds balance");
        vault.withdraw(address(usdc), boss, FLOAT + 1);
    }

    function test_vault_withdraw_reentered() public {
        HookToken token = new HookToken();
        IAllowanceVault.TokenLimits[] memory limits =
            _only(address(token), _limits(PER_HOUR, PER_DAY, TARGET));
        // The token itself is the owner, which is as bad as it can get.
        vault = IAllowanceVault(_create2(bytes32(0), _initCode(address(token), guard, hot, DELAY, limits)));
        token.mint(address(vault), FLOAT);
        token.onTransfer(address(vault), abi.encodeCall(vault.withdraw, (address(token), shop, 1)));
        assertEq(vault.refill(address(token)), TARGET, "the refill is exact");
        assertEq(bytes32(token.answers(0)), bytes32(IAllowanceVault.Reentered.selector), "no withdrawal inside");
    }
}
