// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "../../src/IAllowanceVault.sol";
import {HookToken, PlainToken} from "../support/Tokens.sol";
import {VaultWorld} from "./VaultWorld.sol";

/// A hot wallet that is a contract, and asks for more as soon as it is paid.
contract Greedy {
    IAllowanceVault private immutable _vault;
    PlainToken private immutable _token;
    bytes public answer;

    constructor(IAllowanceVault vault, PlainToken token) {
        (_vault, _token) = (vault, token);
    }

    fallback() external {
        // Puts aside what it has, so that it looks poor again.
        _token.transfer(address(0xFE4CE), _token.balanceOf(address(this)));
        (bool done, bytes memory said) = address(_vault).call(abi.encodeCall(_vault.refill, (address(_token))));
        answer = done ? bytes("paid twice") : said;
    }
}

/// spec/vault/attacks.tree
contract VaultAttacksTest is VaultWorld {
    /// Takes as often as it can, each `step` seconds, until `end`; returns what it took.
    function _rob(uint256 step, uint256 end) private returns (uint256 stolen) {
        for (uint256 time = block.timestamp; time < end; time += step) {
            vm.warp(time);
            while (vault.refillable(address(usdc)) != 0) {
                stolen += _refill();
                _spend();
            }
        }
    }

    function test_vault_attack_stolenKeyUntilTheFreeze() public {
        vm.prank(issuer);
        usdc.mint(hot, TARGET);
        uint256 begins = START + 2 hours;
        vm.warp(begins);
        uint256 before = _balance(hot);
        _spend();
        uint256 refilled = _rob(1 minutes, begins + 3 hours);
        _freeze();
        vm.warp(begins + 100 days);
        vm.prank(hot);
        vm.expectRevert(IAllowanceVault.IsFrozen.selector);
        vault.refill(address(usdc));
        assertEq(_balance(shop), before + refilled, "the loss is the wallet and the refills before the freeze");
        assertTrue(refilled <= 3 * PER_HOUR, "three hours, three caps");
        assertEq(_balance(address(vault)), FLOAT - refilled, "the rest is the owner's");
    }

    function test_vault_attack_stolenKeyThatNobodyNotices() public {
        uint256 stolen = _rob(5 minutes, START + 3 days);
        assertTrue(stolen <= 3 * PER_DAY, "three days, three daily caps");
        assertTrue(stolen >= 2 * PER_DAY, "and the wallet is not starved either");
    }

    function test_vault_attack_burstAtEveryEdge() public {
        // A calendar would give twice the cap within two seconds.
        uint256[3] memory edges = [START + 1 hours, START + 1 days, START + 5 days];
        for (uint256 i; i < 3; ++i) {
            vm.warp(edges[i] - 1);
            uint256 stolen = _rob(1, edges[i] + 2);
            assertEq(stolen, PER_HOUR, "one cap");
        }
    }

    function test_vault_attack_dustRefills() public {
        // Many small ones neither wear the memory out nor hide a large one.
        uint256 moved;
        vm.startPrank(hot);
        for (uint256 i; i < 300; ++i) {
            vm.warp(START + i);
            moved += vault.refill(address(usdc));
            usdc.transfer(shop, i == 0 ? 1 : 7);
        }
        vm.stopPrank();
        (uint256 hour,) = vault.used(address(usdc));
        assertEq(hour, moved, "each counts");
        assertEq(_rob(1, START + 1 hours), PER_HOUR - moved, "the rest of the cap");
    }

    function test_vault_attack_donationPullsNothing() public {
        vm.prank(stranger);
        usdc.transfer(hot, TARGET);
        _nothing();
        vm.prank(stranger);
        usdc.transfer(address(vault), 1);
        _nothing();
        (uint256 hour,) = vault.used(address(usdc));
        assertEq(hour, 0, "the caps are untouched");
    }

    function test_vault_attack_hotKeyLoosens() public {
        _announce(_hotChange(address(0x408)));
        bytes[8] memory calls = [
            abi.encodeCall(vault.announce, (_limitsChange(address(usdc), FLOAT, FLOAT, FLOAT))),
            abi.encodeCall(vault.applyChange, (IAllowanceVault.Kind.HotWallet, address(0))),
            abi.encodeCall(vault.withdraw, (address(usdc), hot, 1)),
            abi.encodeCall(vault.tighten, (address(usdc), _limits(0, 0, 0))),
            abi.encodeCall(vault.lengthenDelay, (30 days)),
            abi.encodeCall(vault.offerOwnership, (hot)),
            abi.encodeCall(vault.acceptOwnership, ()),
            abi.encodeCall(vault.cancel, (IAllowanceVault.Kind.HotWallet, address(0)))
        ];
        vm.warp(START + DELAY);
        for (uint256 i; i < calls.length; ++i) {
            vm.prank(hot);
            (bool done,) = address(vault).call(calls[i]);
            assertTrue(!done, "the hot key was obeyed");
        }
    }

    /// The guardian's key is stolen too: it can stop, and not take.
    function test_vault_attack_guardianTakesNothing() public {
        vm.startPrank(guard);
        vault.tighten(address(usdc), _limits(0, 0, 0));
        vault.freeze();
        bytes[5] memory calls = [
            abi.encodeCall(vault.announce, (_hotChange(guard))),
            abi.encodeCall(vault.applyChange, (IAllowanceVault.Kind.Unfreeze, address(0))),
            abi.encodeCall(vault.withdraw, (address(usdc), guard, 1)),
            abi.encodeCall(vault.lengthenDelay, (30 days)),
            abi.encodeCall(vault.offerOwnership, (guard))
        ];
        for (uint256 i; i < calls.length; ++i) {
            (bool done, bytes memory why) = address(vault).call(calls[i]);
            assertTrue(!done && bytes4(why) == IAllowanceVault.NotOwner.selector, "the guardian was obeyed");
        }
        vm.stopPrank();
        vm.prank(boss);
        vault.withdraw(address(usdc), boss, FLOAT);
        assertEq(_balance(boss), FLOAT, "and cannot keep the owner from its money");
    }

    function test_vault_attack_unfreezeHeldReady() public {
        _freeze();
        _loosen(_change(IAllowanceVault.Kind.Unfreeze, address(0)));
        // Not while nothing is frozen, so that none lies ready for the next freeze.
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.NotFrozen.selector);
        vault.announce(_change(IAllowanceVault.Kind.Unfreeze, address(0)));
        _freeze();
        _announce(_change(IAllowanceVault.Kind.Unfreeze, address(0)));
        vm.warp(block.timestamp + DELAY);
        vm.prank(guard);
        vault.freeze();
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.NotAnnounced.selector);
        vault.applyChange(IAllowanceVault.Kind.Unfreeze, address(0));
    }

    function test_vault_attack_loosenedAtOnceByAShorterDelay() public {
        uint256 readyAt = _announce(_limitsChange(address(usdc), FLOAT, FLOAT, FLOAT));
        _announce(_delayChange(1 hours));
        vm.warp(readyAt);
        _apply(IAllowanceVault.Kind.Delay, address(0));
        // The short delay is for what is announced from now on.
        assertEq(_announce(_hotChange(address(0x408))), readyAt + 1 hours, "an hour from now");
        vm.warp(readyAt + 1 hours - 1);
        vm.prank(boss);
        vm.expectRevert(abi.encodeWithSelector(IAllowanceVault.TooEarly.selector, readyAt + 1 hours));
        vault.applyChange(IAllowanceVault.Kind.HotWallet, address(0));
    }

    function test_vault_attack_hotWalletChangedToStartAnew() public {
        _drain();
        _drain();
        _drain();
        vm.warp(_announce(_hotChange(address(0x408))) - 5 minutes);
        uint256 first = _rob(1, block.timestamp + 1);
        assertEq(first, PER_HOUR, "the cap of this hour");
        vm.warp(block.timestamp + 5 minutes);
        _apply(IAllowanceVault.Kind.HotWallet, address(0));
        // Another wallet is empty, and the caps are the token's all the same.
        _nothing();
    }

    function test_vault_attack_greedyHotWallet() public {
        HookToken token = new HookToken();
        vault = _deployFor(token);
        Greedy greedy = new Greedy(vault, token);
        token.mint(address(greedy), 1);
        vm.warp(_announce(_hotChange(address(greedy))));
        _apply(IAllowanceVault.Kind.HotWallet, address(0));
        // Called in the middle of the transfer, after the vault paid and before the money arrives.
        GreedyListener listener = new GreedyListener(address(greedy), address(token));
        token.onTransfer(address(listener), "");
        assertEq(vault.refill(address(token)), TARGET - 1, "once");
        assertEq(bytes32(greedy.answer()), bytes32(IAllowanceVault.Reentered.selector), "and not twice");
        assertEq(token.balanceOf(address(vault)), FLOAT - (TARGET - 1), "the float");
    }

    function test_vault_attack_blockedVault() public {
        vm.prank(issuer);
        usdc.blacklist(address(vault));
        vm.expectRevert("Blacklistable: account is blacklisted");
        vault.refill(address(usdc));
        PlainToken other = new PlainToken();
        other.mint(address(vault), FLOAT);
        _loosen(_limitsChange(address(other), 10, 10, 10));
        assertEq(vault.refill(address(other)), 10, "the other token is not touched");
    }

    function test_vault_attack_pausedToken() public {
        vm.prank(issuer);
        usdc.pause();
        vm.expectRevert("Pausable: paused");
        vault.refill(address(usdc));
        vm.prank(issuer);
        usdc.unpause();
        assertEq(_refill(), TARGET, "afterwards as before");
    }
}

/// Passes a token's call on once, since the hot wallet's own transfer calls the listener again.
contract GreedyListener {
    address private immutable _greedy;
    address private immutable _token;
    bool private _done;

    constructor(address greedy, address token) {
        (_greedy, _token) = (greedy, token);
    }

    fallback() external {
        if (_done || msg.sender != _token) return;
        _done = true;
        (bool done,) = _greedy.call("");
        require(done, "greedy failed");
    }
}
