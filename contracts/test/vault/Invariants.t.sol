// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "../../src/IAllowanceVault.sol";
import {Test} from "../support/Test.sol";
import {PlainToken} from "../support/Tokens.sol";
import {VaultHandler} from "./VaultHandler.sol";

/// The numbered laws of spec/vault/INVARIANTS.md, after each step of random sequences of everybody's actions.
contract VaultInvariantsTest is Test {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    VaultHandler private _handler;
    IAllowanceVault private _vault;

    function setUp() public {
        _handler = new VaultHandler();
        _vault = _handler.target();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// Only the actions; weight by repetition.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory selectors = new bytes4[](22);
        selectors[0] = VaultHandler.refill.selector;
        selectors[1] = VaultHandler.rob.selector;
        selectors[2] = VaultHandler.rob.selector;
        selectors[3] = VaultHandler.rob.selector;
        selectors[4] = VaultHandler.rob.selector;
        selectors[5] = VaultHandler.spend.selector;
        selectors[6] = VaultHandler.fund.selector;
        selectors[7] = VaultHandler.donateToHot.selector;
        selectors[8] = VaultHandler.withdraw.selector;
        selectors[9] = VaultHandler.freeze.selector;
        selectors[10] = VaultHandler.tighten.selector;
        selectors[11] = VaultHandler.cancel.selector;
        selectors[12] = VaultHandler.announce.selector;
        selectors[13] = VaultHandler.announce.selector;
        selectors[14] = VaultHandler.applyChange.selector;
        selectors[15] = VaultHandler.applyChange.selector;
        selectors[16] = VaultHandler.lengthenDelay.selector;
        selectors[17] = VaultHandler.handOver.selector;
        selectors[18] = VaultHandler.meddle.selector;
        selectors[19] = VaultHandler.wait_.selector;
        selectors[20] = VaultHandler.waitLong.selector;
        selectors[21] = VaultHandler.waitToTheEdge.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), selectors);
    }

    /// I1 to I4, I9 and I10 are asserted by the handler at each refill; here is what holds at every moment.
    /// forge-config: default.invariant.runs = 12
    function invariant_theVaultIsAsModelled() public {
        vm.warp(_handler.now_());
        assertEq(_vault.owner(), _handler.owner_(), "I10: the owner");
        assertEq(_vault.guardian(), _handler.guardian_(), "I6: the guardian");
        assertEq(_vault.hotWallet(), _handler.hot_(), "I6: the hot wallet");
        assertEq(_vault.delay(), _handler.delay_(), "I6: the delay");
        assertTrue(_vault.frozen() == _handler.frozen_(), "I6: the freeze");
        for (uint256 kind = 1; kind < 5; ++kind) _announcementAgrees(kind, address(0));
        for (uint256 i; i < 2; ++i) {
            address token = _handler.assets(i);
            _announcementAgrees(0, token);
            assertEq(
                keccak256(abi.encode(_vault.limitsOf(token))),
                keccak256(abi.encode(_handler.limitsNow(token))),
                "I6: the limits"
            );
            uint256 held = PlainToken(token).balanceOf(address(_vault));
            assertEq(held, _handler.float_(token), "I11: the float");
            _memoryAgrees(token);
        }
    }

    function _announcementAgrees(uint256 kind, address slot) private view {
        VaultHandler.Announced memory wanted = _handler.announcement(kind, slot);
        (IAllowanceVault.Change memory change, uint256 readyAt) =
            _vault.announced(IAllowanceVault.Kind(kind), slot);
        assertEq(readyAt, wanted.readyAt, "I6: when a change is ready");
        if (readyAt != 0) {
            assertEq(keccak256(abi.encode(change)), keccak256(abi.encode(wanted.change)), "I6: what is announced");
        }
    }

    /// I1, I2, I9: what counts is between what was moved in the window and what was in the window and one bucket.
    function _memoryAgrees(address token) private view {
        uint256 now_ = _handler.now_();
        (uint256 hour, uint256 day) = _vault.used(token);
        assertTrue(hour >= _handler.movedSince(token, now_ - 1 hours), "I1: the hour is not forgotten");
        assertTrue(day >= _handler.movedSince(token, now_ - 1 days), "I2: the day is not forgotten");
        assertTrue(hour <= _handler.movedSince(token, now_ - 65 minutes + 1), "I9: the hour is over in time");
        assertTrue(day <= _handler.movedSince(token, now_ - 25 hours + 1), "I9: the day is over in time");
    }

    /// I7, I8 at the end of each run: a freeze is always possible, nothing is refilled after it, and all that is left
    /// is the owner's.
    function afterInvariant() external {
        // A whole run in which nothing happened would prove nothing. Short ones are counterexamples, shown again.
        bool busy = _handler.count("refill") != 0 && _handler.count("announce") != 0 && _handler.count("refused") != 0;
        assertTrue(busy || _handler.steps() < 128, "an idle run");
        vm.warp(_handler.now_());
        vm.prank(_handler.guardian_());
        _vault.freeze();
        vm.warp(_handler.now_() + 365 days);
        for (uint256 i; i < 2; ++i) {
            address token = _handler.assets(i);
            try _vault.refill(token) {
                revert Untrue("I4: refilled after the freeze");
            } catch (bytes memory why) {
                assertEq(bytes32(why), bytes32(IAllowanceVault.IsFrozen.selector), "I4: frozen");
            }
            uint256 rest = _handler.float_(token);
            address owner = _handler.owner_();
            uint256 before = PlainToken(token).balanceOf(owner);
            vm.prank(owner);
            _vault.withdraw(token, owner, rest);
            assertEq(PlainToken(token).balanceOf(owner), before + rest, "I8: the rest is the owner's");
            assertEq(PlainToken(token).balanceOf(address(_vault)), 0, "I11: and there is no more");
        }
    }
}
