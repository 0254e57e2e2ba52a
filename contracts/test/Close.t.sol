// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {Wallet} from "./support/Wallets.sol";
import {World} from "./support/World.sol";

/// spec/close.tree, spec/closeWithAuthorization.tree, spec/requestClose.tree, spec/withdraw.tree
contract CloseTest is World {
    uint256 private constant NONCE = 7;
    uint256 private _payerBefore;

    function setUp() public override {
        super.setUp();
        _payerBefore = _balance(payer);
    }

    function _expectClosed(bytes32 channelId, uint256 settled, uint256 refund) private {
        vm.expectEmit(address(escrow));
        emit IPaymentChannelEscrow.ChannelClosed(channelId, payer, payee, settled, refund);
    }

    function _assertClosed(bytes32 channelId, uint256 settled) private view {
        assertTrue(escrow.getChannel(channelId).finalized, "finalized");
        assertEq(escrow.getChannel(channelId).settled, settled, "settled");
        assertEq(_balance(payee), settled, "balance of the payee");
        assertEq(_balance(payer), _payerBefore - settled, "balance of the payer");
        assertEq(_balance(address(escrow)), 0, "balance of the escrow");
    }

    function _close(bytes32 channelId, uint128 amount, bytes memory signature) private {
        vm.prank(payee);
        escrow.close(channelId, amount, signature);
    }

    function _refuses(bytes32 channelId, uint128 amount, bytes memory signature, bytes4 reason) private {
        vm.prank(payee);
        vm.expectRevert(reason);
        escrow.close(channelId, amount, signature);
    }

    // ---- close ----

    function test_close() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 3_750_100);
        _expectClosed(channelId, 3_750_100, 1_249_900);
        _close(channelId, 3_750_100, voucher);
        _assertClosed(channelId, 3_750_100);
    }

    function test_close_afterSettlement() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        _expectClosed(channelId, 1_700, DEPOSIT - 1_700);
        _close(channelId, 1_700, _voucher(PAYER_KEY, channelId, 1_700));
        _assertClosed(channelId, 1_700);
    }

    function test_close_wholeDeposit() public {
        bytes32 channelId = _open();
        _close(channelId, DEPOSIT, _voucher(PAYER_KEY, channelId, DEPOSIT));
        _assertClosed(channelId, DEPOSIT);
    }

    function test_close_forfeit() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        _expectClosed(channelId, 1_000, DEPOSIT - 1_000);
        _close(channelId, 1_000, "");
        _assertClosed(channelId, 1_000);
    }

    function test_close_forfeitBelowSettled() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        _close(channelId, 0, "junk");
        _assertClosed(channelId, 1_000);
    }

    function test_close_unused() public {
        bytes32 channelId = _open();
        _expectClosed(channelId, 0, DEPOSIT);
        _close(channelId, 0, "");
        _assertClosed(channelId, 0);
    }

    function test_close_exhausted() public {
        bytes32 channelId = _open();
        _settle(channelId, DEPOSIT);
        _expectClosed(channelId, DEPOSIT, 0);
        _close(channelId, DEPOSIT, "");
        _assertClosed(channelId, DEPOSIT);
    }

    function test_close_duringGrace() public {
        bytes32 channelId = _open();
        vm.prank(payer);
        escrow.requestClose(channelId);
        vm.warp(block.timestamp + GRACE - 1);
        _close(channelId, 1_000, _voucher(PAYER_KEY, channelId, 1_000));
        _assertClosed(channelId, 1_000);
    }

    function test_close_unknownChannel() public {
        _refuses(keccak256("nothing"), 0, "", IPaymentChannelEscrow.ChannelNotFound.selector);
    }

    function test_close_finalized() public {
        _refuses(_finalized(), 0, "", IPaymentChannelEscrow.ChannelFinalized.selector);
    }

    function test_close_notPayee() public {
        bytes32 channelId = _open();
        address[3] memory others = [payer, delegate, stranger];
        for (uint256 i; i < others.length; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(IPaymentChannelEscrow.NotPayee.selector);
            escrow.close(channelId, 0, "");
        }
    }

    function test_close_exceedsDeposit() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, DEPOSIT + 1);
        _refuses(channelId, DEPOSIT + 1, voucher, IPaymentChannelEscrow.AmountExceedsDeposit.selector);
    }

    function test_close_badVoucher() public {
        bytes32 channelId = _open();
        bytes4 reason = IPaymentChannelEscrow.InvalidSignature.selector;
        _refuses(channelId, 1_000, "", reason);
        _refuses(channelId, 1_000, _voucher(STRANGER_KEY, channelId, 1_000), reason);
        _refuses(channelId, 1_000, _voucher(PAYER_KEY, channelId, 999), reason);
    }

    // ---- closeWithAuthorization ----

    function _relay(bytes32 channelId, uint128 amount, uint256 deadline, bytes memory payeeSignature, bytes memory voucher)
        private
    {
        vm.prank(relayer);
        escrow.closeWithAuthorization(channelId, amount, NONCE, deadline, payeeSignature, voucher);
    }

    function _refusesRelay(bytes32 channelId, uint128 amount, uint256 key, bytes4 reason) private {
        bytes memory payeeSignature = _closeAuthorization(key, channelId, amount, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, amount);
        vm.expectRevert(reason);
        _relay(channelId, amount, block.timestamp, payeeSignature, voucher);
        assertTrue(!escrow.isNonceUsed(payee, channelId, NONCE), "the nonce is not used up");
    }

    function test_closeWithAuthorization() public {
        bytes32 channelId = _open();
        bytes memory payeeSignature = _closeAuthorization(PAYEE_KEY, channelId, 1_000, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        _expectClosed(channelId, 1_000, DEPOSIT - 1_000);
        _relay(channelId, 1_000, block.timestamp, payeeSignature, voucher);
        _assertClosed(channelId, 1_000);
        assertTrue(escrow.isNonceUsed(payee, channelId, NONCE), "the nonce is used up");
    }

    function test_closeWithAuthorization_forfeit() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        bytes memory payeeSignature = _closeAuthorization(PAYEE_KEY, channelId, 1_000, NONCE, block.timestamp);
        _relay(channelId, 1_000, block.timestamp, payeeSignature, "");
        _assertClosed(channelId, 1_000);
    }

    function test_closeWithAuthorization_byWalletPayee() public {
        Wallet wallet = new Wallet(delegate);
        vm.prank(payer);
        bytes32 channelId = escrow.open(address(wallet), address(usdc), DEPOSIT, SALT, address(0));
        bytes memory payeeSignature = _closeAuthorization(DELEGATE_KEY, channelId, 1_000, NONCE, block.timestamp);
        _relay(channelId, 1_000, block.timestamp, payeeSignature, _voucher(PAYER_KEY, channelId, 1_000));
        assertEq(_balance(address(wallet)), 1_000, "balance of the wallet");
        assertEq(_balance(payer), _payerBefore - 1_000, "balance of the payer");
    }

    function test_closeWithAuthorization_unknownChannel() public {
        _refusesRelay(keccak256("nothing"), 1, PAYEE_KEY, IPaymentChannelEscrow.ChannelNotFound.selector);
    }

    function test_closeWithAuthorization_finalized() public {
        _refusesRelay(_finalized(), 1, PAYEE_KEY, IPaymentChannelEscrow.ChannelFinalized.selector);
    }

    function test_closeWithAuthorization_expired() public {
        bytes32 channelId = _open();
        uint256 deadline = block.timestamp;
        bytes memory payeeSignature = _closeAuthorization(PAYEE_KEY, channelId, 0, NONCE, deadline);
        vm.warp(deadline + 1);
        vm.expectRevert(IPaymentChannelEscrow.AuthorizationExpired.selector);
        _relay(channelId, 0, deadline, payeeSignature, "");
    }

    function test_closeWithAuthorization_nonceOfSettlement() public {
        bytes32 channelId = _open();
        bytes memory settles = _settleAuthorization(PAYEE_KEY, channelId, 1, NONCE, block.timestamp);
        escrow.settleWithAuthorization(
            channelId, 1, NONCE, block.timestamp, settles, _voucher(PAYER_KEY, channelId, 1)
        );
        bytes memory payeeSignature = _closeAuthorization(PAYEE_KEY, channelId, 2, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 2);
        vm.expectRevert(IPaymentChannelEscrow.NonceAlreadyUsed.selector);
        _relay(channelId, 2, block.timestamp, payeeSignature, voucher);
    }

    function test_closeWithAuthorization_notPayeesSignature() public {
        bytes32 channelId = _open();
        _refusesRelay(channelId, 1, PAYER_KEY, IPaymentChannelEscrow.InvalidSignature.selector);
        _refusesRelay(channelId, 1, STRANGER_KEY, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    function test_closeWithAuthorization_settleAuthorizationInstead() public {
        bytes32 channelId = _open();
        bytes memory payeeSignature = _settleAuthorization(PAYEE_KEY, channelId, 1, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1);
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        _relay(channelId, 1, block.timestamp, payeeSignature, voucher);
    }

    function test_closeWithAuthorization_exceedsDeposit() public {
        _refusesRelay(_open(), DEPOSIT + 1, PAYEE_KEY, IPaymentChannelEscrow.AmountExceedsDeposit.selector);
    }

    function test_closeWithAuthorization_badVoucher() public {
        bytes32 channelId = _open();
        bytes memory payeeSignature = _closeAuthorization(PAYEE_KEY, channelId, 2, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1);
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        _relay(channelId, 2, block.timestamp, payeeSignature, voucher);
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        _relay(channelId, 2, block.timestamp, payeeSignature, "");
    }

    // ---- requestClose ----

    function test_requestClose() public {
        bytes32 channelId = _open();
        vm.expectEmit(address(escrow));
        emit IPaymentChannelEscrow.CloseRequested(channelId, payer, payee, block.timestamp + GRACE);
        vm.prank(payer);
        escrow.requestClose(channelId);
        assertEq(escrow.getChannel(channelId).closeRequestedAt, block.timestamp, "close requested at");
        assertEq(_balance(address(escrow)), DEPOSIT, "nothing moves yet");
    }

    function test_requestClose_again() public {
        bytes32 channelId = _open();
        vm.prank(payer);
        escrow.requestClose(channelId);
        uint256 requestedAt = block.timestamp;
        vm.warp(requestedAt + 60);
        vm.recordLogs();
        vm.prank(payer);
        escrow.requestClose(channelId);
        assertEq(vm.getRecordedLogs().length, 0, "says nothing");
        assertEq(escrow.getChannel(channelId).closeRequestedAt, requestedAt, "the first request counts");
    }

    function test_requestClose_unknownChannel() public {
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelNotFound.selector);
        escrow.requestClose(keccak256("nothing"));
    }

    function test_requestClose_finalized() public {
        bytes32 channelId = _finalized();
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelFinalized.selector);
        escrow.requestClose(channelId);
    }

    function test_requestClose_notPayer() public {
        bytes32 channelId = _open(delegate);
        address[3] memory others = [payee, delegate, stranger];
        for (uint256 i; i < others.length; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(IPaymentChannelEscrow.NotPayer.selector);
            escrow.requestClose(channelId);
        }
    }

    // ---- withdraw ----

    function _requested() private returns (bytes32 channelId) {
        channelId = _open();
        vm.prank(payer);
        escrow.requestClose(channelId);
    }

    function _notReady(bytes32 channelId) private {
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.CloseNotReady.selector);
        escrow.withdraw(channelId);
    }

    function test_withdraw() public {
        bytes32 channelId = _requested();
        _settle(channelId, 1_000);
        vm.warp(block.timestamp + GRACE);
        _expectClosed(channelId, 1_000, DEPOSIT - 1_000);
        vm.prank(payer);
        escrow.withdraw(channelId);
        _assertClosed(channelId, 1_000);
    }

    function test_withdraw_nothingLeft() public {
        bytes32 channelId = _requested();
        _settle(channelId, DEPOSIT);
        vm.warp(block.timestamp + GRACE);
        vm.prank(payer);
        escrow.withdraw(channelId);
        _assertClosed(channelId, DEPOSIT);
    }

    function test_withdraw_unknownChannel() public {
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelNotFound.selector);
        escrow.withdraw(keccak256("nothing"));
    }

    function test_withdraw_finalized() public {
        bytes32 channelId = _requested();
        vm.warp(block.timestamp + GRACE);
        vm.prank(payer);
        escrow.withdraw(channelId);
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelFinalized.selector);
        escrow.withdraw(channelId);
    }

    function test_withdraw_notPayer() public {
        bytes32 channelId = _requested();
        vm.warp(block.timestamp + GRACE);
        address[3] memory others = [payee, delegate, stranger];
        for (uint256 i; i < others.length; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(IPaymentChannelEscrow.NotPayer.selector);
            escrow.withdraw(channelId);
        }
    }

    function test_withdraw_notRequested() public {
        bytes32 channelId = _open();
        vm.warp(block.timestamp + 365 days);
        _notReady(channelId);
    }

    function test_withdraw_tooEarly() public {
        bytes32 channelId = _requested();
        _notReady(channelId);
        vm.warp(block.timestamp + GRACE - 1);
        _notReady(channelId);
    }
}
