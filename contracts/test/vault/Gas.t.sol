// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAllowanceVault} from "../../src/IAllowanceVault.sol";
import {VaultWorld} from "./VaultWorld.sol";

/// What each function costs as a transaction of its own, with Circle's USDC. As for the escrow.
contract VaultGasTest is VaultWorld {
    string private constant FILE = "AllowanceVault";

    function _snapshot(string memory name) private {
        vm.snapshotGasLastCall(FILE, name);
    }

    function test_vault_gas_deploy() public {
        bytes memory code =
            _initCode(boss, guard, hot, DELAY, _only(address(usdc), _limits(PER_HOUR, PER_DAY, TARGET)));
        (bool done,) = CREATE2_DEPLOYER.call(bytes.concat(bytes32(uint256(1)), code));
        assertTrue(done, "deployed");
        _snapshot("deploy, with one token");
    }

    function test_vault_gas_refill() public {
        _refill();
        _snapshot("refill, the first");
        _spend();
        _refill();
        _snapshot("refill, within the same five minutes");
        _spend();
        vm.warp(START + HOUR_AT_MOST);
        _refill();
        _snapshot("refill, an hour later");
        _spend();
        vm.warp(START + 3 days);
        _refill();
        _snapshot("refill, days later");
    }

    function test_vault_gas_tightening() public {
        _tighten(PER_HOUR / 2, PER_DAY / 2, TARGET / 2);
        _snapshot("tighten");
        _freeze();
        _snapshot("freeze");
    }

    function test_vault_gas_loosening() public {
        vm.warp(_announce(_limitsChange(address(usdc), PER_HOUR * 2, PER_DAY, TARGET)));
        _snapshot("announce limits");
        _apply(IAllowanceVault.Kind.Limits, address(usdc));
        _snapshot("apply limits");
    }

    function test_vault_gas_withdraw() public {
        vm.prank(boss);
        vault.withdraw(address(usdc), boss, FLOAT / 2);
        _snapshot("withdraw");
    }
}
