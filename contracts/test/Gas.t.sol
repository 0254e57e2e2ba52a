// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {World} from "./support/World.sol";

/// What each function costs as a transaction of its own, with Circle's USDC: intrinsic gas, calldata and refunds
/// included. The figures are committed in `snapshots/`, and a difference fails the test.
contract GasTest is World {
    string private constant FILE = "PaymentChannelEscrow";

    function setUp() public override {
        super.setUp();
        // The usual case: whoever is paid has been paid before, and the escrow holds money of others.
        vm.startPrank(issuer);
        usdc.mint(payee, 1);
        usdc.mint(address(escrow), 1);
        vm.stopPrank();
    }

    function _snapshot(string memory name) private {
        vm.snapshotGasLastCall(FILE, name);
    }

    function test_gas_baseline() public {
        vm.prank(payer);
        usdc.transfer(payee, 1_000);
        _snapshot("USDC transfer");
        vm.prank(relayer);
        usdc.approve(address(escrow), FOREVER);
        _snapshot("USDC approve");
    }

    function test_gas_open() public {
        _open();
        _snapshot("open");
    }

    function test_gas_openWithDelegate() public {
        _open(delegate);
        _snapshot("open, delegated signer");
    }

    function test_gas_openWithAuthorization() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, address(0));
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        vm.prank(relayer);
        escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, SALT, address(0), payer, 0, FOREVER, nonce, signature
        );
        _snapshot("openWithAuthorization");
    }

    function test_gas_openWithPermit2() public {
        bytes memory signature =
            _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 77, block.timestamp, payee, SALT, address(0));
        vm.prank(relayer);
        escrow.openWithPermit2(
            payee, address(usdc), DEPOSIT, SALT, address(0), payer, 77, block.timestamp, signature
        );
        _snapshot("openWithPermit2");
    }

    function test_gas_topUp() public {
        bytes32 channelId = _open();
        vm.prank(payer);
        escrow.topUp(channelId, 1_000);
        _snapshot("topUp");
    }

    function test_gas_topUpWithAuthorization() public {
        bytes32 channelId = _open();
        bytes32 nonce = _topUpNonce(channelId, 1_000, payer, TOP_UP_SALT);
        bytes memory signature = _authorization(PAYER_KEY, 1_000, nonce);
        vm.prank(relayer);
        escrow.topUpWithAuthorization(channelId, 1_000, payer, TOP_UP_SALT, 0, FOREVER, nonce, signature);
        _snapshot("topUpWithAuthorization");
    }

    function test_gas_topUpWithPermit2() public {
        bytes32 channelId = _open();
        bytes memory signature = _topUpPermit(PAYER_KEY, address(usdc), 1_000, 77, block.timestamp, channelId);
        vm.prank(relayer);
        escrow.topUpWithPermit2(channelId, 1_000, payer, 77, block.timestamp, signature);
        _snapshot("topUpWithPermit2");
    }

    function test_gas_settle() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        _snapshot("settle");
        _settle(channelId, 2_000);
        _snapshot("settle, again");
    }

    function test_gas_settleByDelegate() public {
        bytes32 channelId = _open(delegate);
        bytes memory voucher = _voucher(DELEGATE_KEY, channelId, 1_000);
        vm.prank(payee);
        escrow.settle(channelId, 1_000, voucher);
        _snapshot("settle, delegated signer");
    }

    function test_gas_settleWithAuthorization() public {
        bytes32 channelId = _open();
        for (uint128 i = 1; i <= 2; ++i) {
            bytes memory consent = _settleAuthorization(PAYEE_KEY, channelId, i * 1_000, i, block.timestamp);
            bytes memory voucher = _voucher(PAYER_KEY, channelId, i * 1_000);
            vm.prank(relayer);
            escrow.settleWithAuthorization(channelId, i * 1_000, i, block.timestamp, consent, voucher);
            _snapshot(i == 1 ? "settleWithAuthorization" : "settleWithAuthorization, next nonce");
        }
    }

    function test_gas_close() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        vm.prank(payee);
        escrow.close(channelId, 1_000, voucher);
        _snapshot("close");
    }

    function test_gas_closeWholeDeposit() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, DEPOSIT);
        vm.prank(payee);
        escrow.close(channelId, DEPOSIT, voucher);
        _snapshot("close, nothing to refund");
    }

    function test_gas_closeWithoutVoucher() public {
        bytes32 channelId = _open();
        vm.prank(payee);
        escrow.close(channelId, 0, "");
        _snapshot("close, nothing to pay");
    }

    function test_gas_closeWithAuthorization() public {
        bytes32 channelId = _open();
        bytes memory consent = _closeAuthorization(PAYEE_KEY, channelId, 1_000, 1, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        vm.prank(relayer);
        escrow.closeWithAuthorization(channelId, 1_000, 1, block.timestamp, consent, voucher);
        _snapshot("closeWithAuthorization");
    }

    function test_gas_forcedClose() public {
        bytes32 channelId = _open();
        vm.prank(payer);
        escrow.requestClose(channelId);
        _snapshot("requestClose");
        vm.warp(block.timestamp + GRACE);
        vm.prank(payer);
        escrow.withdraw(channelId);
        _snapshot("withdraw");
    }

    function _many(uint256 channels, string memory name) private {
        IPaymentChannelEscrow.Claim[] memory claims = new IPaymentChannelEscrow.Claim[](channels);
        for (uint256 i; i < channels; ++i) {
            vm.prank(payer);
            bytes32 channelId = escrow.open(payee, address(usdc), 10_000, bytes32(i), address(0));
            claims[i] = IPaymentChannelEscrow.Claim(channelId, 1_000, _voucher(PAYER_KEY, channelId, 1_000));
        }
        vm.prank(payee);
        escrow.settleMany(address(usdc), claims);
        _snapshot(name);
    }

    function test_gas_settleMany() public {
        _many(1, "settleMany of 1");
    }

    function test_gas_settleMany10() public {
        _many(10, "settleMany of 10");
    }

    function test_gas_settleMany100() public {
        _many(100, "settleMany of 100");
    }
}
