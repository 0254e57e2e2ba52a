// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "../../src/IAllowanceVault.sol";
import {PlainToken} from "../support/Tokens.sol";
import {World} from "../support/World.sol";

/// A vault with USDC in it, deployed as committed and as anybody would deploy it, and those who have to do with it.
abstract contract VaultWorld is World {
    uint128 internal constant PER_HOUR = 100_000_000;
    uint128 internal constant PER_DAY = 500_000_000;
    uint128 internal constant TARGET = 40_000_000;
    uint128 internal constant FLOAT = 5_000_000_000;
    uint32 internal constant DELAY = 1 days;
    uint32 internal constant APPLY_WINDOW = 7 days;
    /// For how long what was moved counts at most: the window and one bucket.
    uint256 internal constant HOUR_AT_MOST = 1 hours + 5 minutes;
    uint256 internal constant DAY_AT_MOST = 1 days + 1 hours;
    /// Where the clock stands at first: a whole hour, and so the beginning of a bucket.
    uint256 internal constant START = 1_800_000_000;

    address internal boss = address(0xB055);
    address internal guard = address(0x6A2D);
    address internal hot = address(0x407);
    address internal shop = address(0x5407);

    IAllowanceVault internal vault;

    function setUp() public virtual override {
        super.setUp();
        vault = _deploy(PER_HOUR, PER_DAY, TARGET);
        _fundVault(FLOAT);
    }

    // ---- Deployment ----

    function _limits(uint128 perHour, uint128 perDay, uint128 target)
        internal
        pure
        returns (IAllowanceVault.Limits memory)
    {
        return IAllowanceVault.Limits(perHour, perDay, target);
    }

    function _only(address token, IAllowanceVault.Limits memory limits)
        internal
        pure
        returns (IAllowanceVault.TokenLimits[] memory all)
    {
        all = new IAllowanceVault.TokenLimits[](1);
        all[0] = IAllowanceVault.TokenLimits(token, limits);
    }

    function _initCode(
        address owner,
        address guardian,
        address hotWallet,
        uint32 delay,
        IAllowanceVault.TokenLimits[] memory limits
    ) internal view returns (bytes memory) {
        string memory artifact = vm.readFile("artifacts/AllowanceVault.json");
        return bytes.concat(
            vm.parseJsonBytes(artifact, ".bytecode"), abi.encode(owner, guardian, hotWallet, delay, limits)
        );
    }

    function _deploy(uint128 perHour, uint128 perDay, uint128 target) internal returns (IAllowanceVault) {
        IAllowanceVault.TokenLimits[] memory limits = _only(address(usdc), _limits(perHour, perDay, target));
        return IAllowanceVault(_create2(bytes32(0), _initCode(boss, guard, hot, DELAY, limits)));
    }

    /// A vault for a token of the tests', with a float of it.
    function _deployFor(PlainToken token) internal returns (IAllowanceVault made) {
        IAllowanceVault.TokenLimits[] memory limits =
            _only(address(token), _limits(PER_HOUR, PER_DAY, TARGET));
        made = IAllowanceVault(_create2(bytes32(0), _initCode(boss, guard, hot, DELAY, limits)));
        token.mint(address(made), FLOAT);
    }

    function _fundVault(uint256 amount) internal {
        vm.prank(issuer);
        usdc.mint(address(vault), amount);
    }

    // ---- What people do ----

    function _refill() internal returns (uint256) {
        vm.prank(stranger);
        return vault.refill(address(usdc));
    }

    /// Whoever has the hot key spends all there is, and refills again.
    function _drain() internal returns (uint256) {
        _spend();
        return _refill();
    }

    function _spend() internal {
        uint256 held = _balance(hot);
        if (held == 0) return;
        vm.prank(hot);
        usdc.transfer(shop, held);
    }

    function _nothing() internal {
        vm.expectRevert(IAllowanceVault.NothingToRefill.selector);
        vault.refill(address(usdc));
    }

    function _freeze() internal {
        vm.prank(boss);
        vault.freeze();
    }

    function _tighten(uint128 perHour, uint128 perDay, uint128 target) internal {
        vm.prank(boss);
        vault.tighten(address(usdc), _limits(perHour, perDay, target));
    }

    // ---- Changes ----

    function _change(IAllowanceVault.Kind kind, address subject)
        internal
        pure
        returns (IAllowanceVault.Change memory)
    {
        return IAllowanceVault.Change(kind, subject, _limits(0, 0, 0), 0);
    }

    function _limitsChange(address token, uint128 perHour, uint128 perDay, uint128 target)
        internal
        pure
        returns (IAllowanceVault.Change memory)
    {
        return
            IAllowanceVault.Change(IAllowanceVault.Kind.Limits, token, _limits(perHour, perDay, target), 0);
    }

    function _delayChange(uint32 delay) internal pure returns (IAllowanceVault.Change memory) {
        return IAllowanceVault.Change(IAllowanceVault.Kind.Delay, address(0), _limits(0, 0, 0), delay);
    }

    function _hotChange(address who) internal pure returns (IAllowanceVault.Change memory) {
        return _change(IAllowanceVault.Kind.HotWallet, who);
    }

    function _announce(IAllowanceVault.Change memory change) internal returns (uint256) {
        vm.prank(boss);
        return vault.announce(change);
    }

    function _apply(IAllowanceVault.Kind kind, address subject) internal {
        vm.prank(boss);
        vault.applyChange(kind, subject);
    }

    /// Announces, waits and applies.
    function _loosen(IAllowanceVault.Change memory change) internal {
        vm.warp(_announce(change));
        _apply(change.kind, change.subject);
    }

    /// Everybody but those named may not do this.
    function _refusesAllBut(address one, address other, bytes memory call, bytes4 reason) internal {
        address[6] memory all = [boss, guard, hot, stranger, issuer, address(vault)];
        for (uint256 i; i < all.length; ++i) {
            if (all[i] == one || all[i] == other) continue;
            vm.prank(all[i]);
            (bool done, bytes memory answer) = address(vault).call(call);
            assertTrue(!done, "somebody else was obeyed");
            assertEq(bytes32(answer), bytes32(reason), "the reason of a refusal");
        }
    }

    function _refusesAllButOwner(bytes memory call) internal {
        _refusesAllBut(boss, boss, call, IAllowanceVault.NotOwner.selector);
    }
}
