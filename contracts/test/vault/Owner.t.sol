// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "../../src/IAllowanceVault.sol";
import {PlainToken} from "../support/Tokens.sol";
import {VaultWorld} from "./VaultWorld.sol";

/// spec/vault/constructor.tree, offerOwnership.tree, acceptOwnership.tree, views.tree
contract VaultOwnerTest is VaultWorld {
    address private _heir = address(0x4E12);

    // ---- constructor ----

    function test_vault_constructor() public view {
        assertEq(vault.owner(), boss, "owner");
        assertEq(vault.guardian(), guard, "guardian");
        assertEq(vault.hotWallet(), hot, "hot wallet");
        assertEq(vault.delay(), DELAY, "delay");
        assertTrue(!vault.frozen(), "not frozen");
        assertEq(vault.offeredTo(), address(0), "offered to nobody");
        assertEq(vault.tokens().length, 1, "one token");
        assertEq(vault.tokens()[0], address(usdc), "USDC");
        IAllowanceVault.Limits memory limits = vault.limitsOf(address(usdc));
        assertEq(
            keccak256(abi.encode(limits)), keccak256(abi.encode(_limits(PER_HOUR, PER_DAY, TARGET))), "its limits"
        );
    }

    function test_vault_constructor_whoeverDeploys() public {
        bytes memory code =
            _initCode(boss, guard, hot, DELAY, _only(address(usdc), _limits(PER_HOUR, PER_DAY, TARGET)));
        bytes32 hash = keccak256(abi.encodePacked(bytes1(0xff), CREATE2_DEPLOYER, bytes32(uint256(1)), keccak256(code)));
        vm.prank(stranger);
        address made = _create2(bytes32(uint256(1)), code);
        assertEq(made, address(uint160(uint256(hash))), "where it had to be");
        assertEq(IAllowanceVault(made).owner(), boss, "the owner is who the code names");
        assertEq(made.codehash, address(vault).codehash, "the same code");
        string memory artifact = vm.readFile("artifacts/AllowanceVault.json");
        assertEq(
            made.codehash, keccak256(vm.parseJsonBytes(artifact, ".deployedBytecode")), "which is the committed one"
        );
    }

    function _refused(address owner, address guardian, address hotWallet, uint32 delay) private {
        bytes memory code = _initCode(owner, guardian, hotWallet, delay, new IAllowanceVault.TokenLimits[](0));
        (bool done,) = CREATE2_DEPLOYER.call(bytes.concat(bytes32(0), code));
        assertTrue(!done, "a vault that must not be");
    }

    function test_vault_constructor_rolesMustDiffer() public {
        _refused(address(0), guard, hot, DELAY);
        _refused(boss, guard, address(0), DELAY);
        _refused(boss, guard, boss, DELAY);
        _refused(boss, boss, hot, DELAY);
        _refused(boss, hot, hot, DELAY);
    }

    function test_vault_constructor_delayMustBeSane() public {
        _refused(boss, guard, hot, 1 hours - 1);
        _refused(boss, guard, hot, 30 days + 1);
    }

    function test_vault_constructor_tokenMustBeThere() public {
        bytes memory code = _initCode(boss, guard, hot, DELAY, _only(address(0xDEAD), _limits(1, 1, 1)));
        (bool done,) = CREATE2_DEPLOYER.call(bytes.concat(bytes32(0), code));
        assertTrue(!done, "a token without code");
    }

    function test_vault_constructor_withoutGuardian() public {
        address made = _create2(
            bytes32(0), _initCode(boss, address(0), hot, 1 hours, new IAllowanceVault.TokenLimits[](0))
        );
        assertEq(IAllowanceVault(made).guardian(), address(0), "nobody");
        vm.prank(boss);
        IAllowanceVault(made).freeze();
        assertTrue(IAllowanceVault(made).frozen(), "the owner freezes alone");
    }

    // ---- offerOwnership, acceptOwnership ----

    function _offer(address to) private {
        vm.prank(boss);
        vault.offerOwnership(to);
    }

    function test_vault_offerOwnership() public {
        vm.expectEmit(address(vault));
        emit IAllowanceVault.OwnershipOffered(_heir);
        _offer(_heir);
        assertEq(vault.offeredTo(), _heir, "offered");
        assertEq(vault.owner(), boss, "not given yet");
        vm.prank(_heir);
        vm.expectRevert(IAllowanceVault.NotOwner.selector);
        vault.lengthenDelay(DELAY + 1);
    }

    function test_vault_offerOwnership_takenBack() public {
        _offer(_heir);
        _offer(address(0));
        vm.prank(_heir);
        vm.expectRevert(IAllowanceVault.NotOfferedOwnership.selector);
        vault.acceptOwnership();
        // Nobody is the zero address, and still.
        vm.prank(address(0));
        vm.expectRevert(IAllowanceVault.InvalidOwner.selector);
        vault.acceptOwnership();
    }

    function test_vault_offerOwnership_badOwner() public {
        address[3] memory bad = [address(vault), guard, hot];
        for (uint256 i; i < 3; ++i) {
            vm.prank(boss);
            vm.expectRevert(IAllowanceVault.InvalidOwner.selector);
            vault.offerOwnership(bad[i]);
        }
    }

    function test_vault_offerOwnership_others() public {
        _refusesAllButOwner(abi.encodeCall(vault.offerOwnership, (_heir)));
    }

    function test_vault_acceptOwnership() public {
        _offer(_heir);
        vm.expectEmit(address(vault));
        emit IAllowanceVault.OwnershipTransferred(boss, _heir);
        vm.prank(_heir);
        vault.acceptOwnership();
        assertEq(vault.owner(), _heir, "the new owner");
        assertEq(vault.offeredTo(), address(0), "the offer is over");
        vm.prank(boss);
        vm.expectRevert(IAllowanceVault.NotOwner.selector);
        vault.withdraw(address(usdc), boss, 1);
        vm.prank(_heir);
        vault.withdraw(address(usdc), _heir, 1);
    }

    function test_vault_acceptOwnership_others() public {
        _offer(_heir);
        bytes memory call = abi.encodeCall(vault.acceptOwnership, ());
        _refusesAllBut(_heir, _heir, call, IAllowanceVault.NotOfferedOwnership.selector);
    }

    function test_vault_acceptOwnership_hotWalletSince() public {
        _announce(_hotChange(_heir));
        _offer(_heir);
        vm.warp(START + DELAY);
        _apply(IAllowanceVault.Kind.HotWallet, address(0));
        vm.prank(_heir);
        vm.expectRevert(IAllowanceVault.InvalidOwner.selector);
        vault.acceptOwnership();
    }

    // ---- Views ----

    function test_vault_views_constants() public view {
        assertEq(vault.MIN_DELAY(), 1 hours, "MIN_DELAY");
        assertEq(vault.MAX_DELAY(), 30 days, "MAX_DELAY");
        assertEq(vault.APPLY_WINDOW(), APPLY_WINDOW, "APPLY_WINDOW");
        assertEq(vault.MAX_TOKENS(), 16, "MAX_TOKENS");
    }

    function test_vault_views_refillable() public {
        assertEq(vault.refillable(address(usdc)), TARGET, "up to the target");
        _refill();
        assertEq(vault.refillable(address(usdc)), 0, "at the target");
        _spend();
        assertEq(vault.refillable(address(usdc)), TARGET, "again");
        _drain();
        _spend();
        assertEq(vault.refillable(address(usdc)), PER_HOUR - 2 * TARGET, "the rest of the hour");
        _freeze();
        assertEq(vault.refillable(address(usdc)), 0, "frozen");
    }

    /// What the view promises is what a refill does, whatever is where.
    function test_vault_views_refillableIsTrue(uint128 float_, uint128 held, uint64 later, uint128 perHour) public {
        perHour = uint128(bound(perHour, 0, PER_DAY));
        // Another daily limit than the first vault's, or it might be that one again.
        vault = _deploy(perHour, PER_DAY - 1, TARGET);
        _fundVault(bound(float_, 1, PER_DAY * 2));
        if (vault.refillable(address(usdc)) != 0) _drain();
        vm.warp(START + bound(later, 0, 2 days));
        _spend();
        vm.prank(issuer);
        usdc.mint(hot, bound(held, 1, TARGET * 2));
        uint256 promised = vault.refillable(address(usdc));
        if (promised == 0) return _nothing();
        assertEq(_refill(), promised, "as promised");
    }

    function test_vault_views_used() public {
        _refill();
        vm.warp(START + HOUR_AT_MOST - 1);
        (uint256 hour, uint256 day) = vault.used(address(usdc));
        assertEq(hour, TARGET, "still of this hour");
        vm.warp(START + HOUR_AT_MOST);
        (hour, day) = vault.used(address(usdc));
        assertEq(hour, 0, "no longer of this hour");
        assertEq(day, TARGET, "still of this day");
        vm.warp(START + DAY_AT_MOST);
        (hour, day) = vault.used(address(usdc));
        assertEq(day, 0, "no longer of this day");
    }

    function test_vault_views_announcedNothing() public {
        (IAllowanceVault.Change memory change, uint256 readyAt) =
            vault.announced(IAllowanceVault.Kind.HotWallet, address(0));
        assertEq(readyAt, 0, "nothing");
        assertEq(change.subject, address(0), "of nobody");
        _announce(_hotChange(address(0x408)));
        _freeze();
        (change, readyAt) = vault.announced(IAllowanceVault.Kind.HotWallet, address(0));
        assertEq(readyAt, 0, "taken back");
        assertEq(change.subject, address(0), "and not shown");
    }

    function test_vault_views_takesNoCoin() public {
        (bool done,) = address(vault).call{value: 1}("");
        assertTrue(!done, "took the chain's coin");
        (done,) = address(vault).call(abi.encodeWithSignature("nothingOfTheKind()"));
        assertTrue(!done, "took any call");
    }

    function test_vault_views_unknownTokens() public {
        PlainToken other = new PlainToken();
        (uint256 hour, uint256 day) = vault.used(address(other));
        assertEq(hour + day, 0, "nothing was moved");
        assertEq(vault.limitsOf(address(other)).perHour, 0, "nothing may be");
        assertEq(vault.refillable(address(other)), 0, "so there is nothing to do");
    }
}
