// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {ISignatureTransfer} from "../src/Permit2SignatureTransfer.sol";
import {PlainToken} from "./support/Tokens.sol";
import {World} from "./support/World.sol";

/// spec/topUp.tree, spec/topUpWithAuthorization.tree, spec/topUpWithPermit2.tree
contract TopUpTest is World {
    uint128 private constant MORE = 300;

    function _requestClose(bytes32 channelId) private {
        vm.prank(payer);
        escrow.requestClose(channelId);
    }

    function _expectTopUp(bytes32 channelId) private {
        vm.expectEmit(address(escrow));
        emit IPaymentChannelEscrow.TopUp(channelId, payer, payee, MORE, DEPOSIT + MORE);
    }

    function _expectCancelled(bytes32 channelId) private {
        vm.expectEmit(address(escrow));
        emit IPaymentChannelEscrow.CloseRequestCancelled(channelId, payer, payee);
    }

    function _assertToppedUp(bytes32 channelId) private view {
        assertEq(escrow.getChannel(channelId).deposit, DEPOSIT + MORE, "deposit");
        assertEq(_balance(address(escrow)), DEPOSIT + MORE, "balance of the escrow");
    }

    // ---- topUp ----

    function test_topUp() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        uint256 before = _balance(payer);
        _expectTopUp(channelId);
        vm.prank(payer);
        escrow.topUp(channelId, MORE);
        assertEq(escrow.getChannel(channelId).deposit, DEPOSIT + MORE, "deposit");
        assertEq(escrow.getChannel(channelId).settled, 1_000, "settled stays");
        assertEq(_balance(payer), before - MORE, "balance of the payer");
    }

    function test_topUp_cancelsClose() public {
        bytes32 channelId = _open();
        _requestClose(channelId);
        _expectCancelled(channelId);
        vm.prank(payer);
        escrow.topUp(channelId, MORE);
        assertEq(escrow.getChannel(channelId).closeRequestedAt, 0, "close requested at");
        vm.warp(block.timestamp + GRACE);
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.CloseNotReady.selector);
        escrow.withdraw(channelId);
    }

    function test_topUp_zeroDeposit() public {
        bytes32 channelId = _open();
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ZeroDeposit.selector);
        escrow.topUp(channelId, 0);
    }

    function test_topUp_notPayer() public {
        bytes32 channelId = _open(delegate);
        address[3] memory others = [payee, delegate, stranger];
        for (uint256 i; i < others.length; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(IPaymentChannelEscrow.NotPayer.selector);
            escrow.topUp(channelId, MORE);
        }
    }

    function test_topUp_unknownChannel() public {
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelNotFound.selector);
        escrow.topUp(keccak256("nothing"), MORE);
    }

    function test_topUp_finalized() public {
        bytes32 channelId = _finalized();
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelFinalized.selector);
        escrow.topUp(channelId, MORE);
    }

    function test_topUp_overflow() public {
        PlainToken token = new PlainToken();
        token.mint(payer, FOREVER);
        vm.startPrank(payer);
        token.approve(address(escrow), FOREVER);
        bytes32 channelId = escrow.open(payee, address(token), type(uint128).max - 1, SALT, address(0));
        vm.expectRevert(IPaymentChannelEscrow.DepositOverflow.selector);
        escrow.topUp(channelId, 2);
        escrow.topUp(channelId, 1);
        vm.stopPrank();
        assertEq(escrow.getChannel(channelId).deposit, type(uint128).max, "as much as there can be");
    }

    function test_topUp_withoutApproval() public {
        bytes32 channelId = _open();
        _requestClose(channelId);
        vm.prank(payer);
        usdc.approve(address(escrow), MORE - 1);
        vm.prank(payer);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("ERC20: transfer amount exceeds allowance")));
        escrow.topUp(channelId, MORE);
        assertTrue(escrow.getChannel(channelId).closeRequestedAt != 0, "the request stands");
    }

    // ---- topUpWithAuthorization ----

    function _by3009(bytes32 channelId, uint256 key) private {
        address from = vm.addr(key);
        bytes32 nonce = _topUpNonce(channelId, MORE, from, TOP_UP_SALT);
        bytes memory signature = _authorization(key, MORE, nonce);
        vm.prank(relayer);
        escrow.topUpWithAuthorization(channelId, MORE, from, TOP_UP_SALT, 0, FOREVER, nonce, signature);
    }

    function test_topUpWithAuthorization() public {
        bytes32 channelId = _open();
        _expectTopUp(channelId);
        _by3009(channelId, PAYER_KEY);
        _assertToppedUp(channelId);
    }

    function test_topUpWithAuthorization_cancelsClose() public {
        bytes32 channelId = _open();
        _requestClose(channelId);
        _expectCancelled(channelId);
        _by3009(channelId, PAYER_KEY);
        assertEq(escrow.getChannel(channelId).closeRequestedAt, 0, "close requested at");
    }

    function test_topUpWithAuthorization_ofThirdParty() public {
        bytes32 channelId = _open();
        _requestClose(channelId);
        uint64 requestedAt = escrow.getChannel(channelId).closeRequestedAt;
        uint256 before = _balance(payer);
        _expectTopUp(channelId);
        _by3009(channelId, STRANGER_KEY);
        _assertToppedUp(channelId);
        assertEq(escrow.getChannel(channelId).closeRequestedAt, requestedAt, "the request stands");
        vm.warp(block.timestamp + GRACE);
        vm.prank(payer);
        escrow.withdraw(channelId);
        assertEq(_balance(payer), before + DEPOSIT + MORE, "the refund is the payer's, also of what others paid in");
    }

    function test_topUpWithAuthorization_otherNonce() public {
        bytes32 channelId = _open();
        bytes32 nonce = _topUpNonce(channelId, MORE, payer, SALT);
        bytes memory signature = _authorization(PAYER_KEY, MORE, nonce);
        vm.expectRevert(IPaymentChannelEscrow.NonceMismatch.selector);
        escrow.topUpWithAuthorization(channelId, MORE, payer, TOP_UP_SALT, 0, FOREVER, nonce, signature);
    }

    function test_topUpWithAuthorization_zeroDeposit() public {
        bytes32 channelId = _open();
        bytes32 nonce = _topUpNonce(channelId, 0, payer, TOP_UP_SALT);
        bytes memory signature = _authorization(PAYER_KEY, 0, nonce);
        vm.expectRevert(IPaymentChannelEscrow.ZeroDeposit.selector);
        escrow.topUpWithAuthorization(channelId, 0, payer, TOP_UP_SALT, 0, FOREVER, nonce, signature);
    }

    function topUpBy3009(bytes32 channelId, uint256 key) external {
        _by3009(channelId, key);
    }

    function _refuses(bytes32 channelId, bytes4 reason) private {
        try this.topUpBy3009(channelId, PAYER_KEY) {
            revert("topped up");
        } catch (bytes memory answer) {
            assertEq(bytes32(bytes4(answer)), bytes32(reason), "the reason");
        }
    }

    function test_topUpWithAuthorization_unknownChannel() public {
        _refuses(keccak256("nothing"), IPaymentChannelEscrow.ChannelNotFound.selector);
    }

    function test_topUpWithAuthorization_finalized() public {
        _refuses(_finalized(), IPaymentChannelEscrow.ChannelFinalized.selector);
    }

    function test_topUpWithAuthorization_overflow() public {
        PlainToken token = new PlainToken();
        token.mint(payer, FOREVER);
        vm.startPrank(payer);
        token.approve(address(escrow), FOREVER);
        bytes32 channelId = escrow.open(payee, address(token), type(uint128).max, SALT, address(0));
        vm.stopPrank();
        _refuses(channelId, IPaymentChannelEscrow.DepositOverflow.selector);
    }

    function test_topUpWithAuthorization_twice() public {
        bytes32 channelId = _open();
        _by3009(channelId, PAYER_KEY);
        try this.topUpBy3009(channelId, PAYER_KEY) {
            revert("the same authorization counted twice");
        } catch (bytes memory answer) {
            bytes memory used =
                bytes.concat(bytes4(0x08c379a0), abi.encode("FiatTokenV2: authorization is used or canceled"));
            assertEq(keccak256(answer), keccak256(used), "the token's reason");
        }
        _assertToppedUp(channelId);
    }

    // ---- topUpWithPermit2 ----

    function _byPermit2(bytes32 channelId, uint256 key, uint256 nonce, bytes memory signature) private {
        vm.prank(relayer);
        escrow.topUpWithPermit2(channelId, MORE, vm.addr(key), nonce, block.timestamp, signature);
    }

    function _permitFor(uint256 key, bytes32 channelId, uint256 nonce) private view returns (bytes memory) {
        return _topUpPermit(key, address(usdc), MORE, nonce, block.timestamp, channelId);
    }

    function test_topUpWithPermit2() public {
        bytes32 channelId = _open();
        _expectTopUp(channelId);
        _byPermit2(channelId, PAYER_KEY, 1, _permitFor(PAYER_KEY, channelId, 1));
        _assertToppedUp(channelId);
    }

    function test_topUpWithPermit2_cancelsClose() public {
        bytes32 channelId = _open();
        _requestClose(channelId);
        _expectCancelled(channelId);
        _byPermit2(channelId, PAYER_KEY, 1, _permitFor(PAYER_KEY, channelId, 1));
        assertEq(escrow.getChannel(channelId).closeRequestedAt, 0, "close requested at");
    }

    function test_topUpWithPermit2_ofThirdParty() public {
        bytes32 channelId = _open();
        _requestClose(channelId);
        uint64 requestedAt = escrow.getChannel(channelId).closeRequestedAt;
        _byPermit2(channelId, STRANGER_KEY, 1, _permitFor(STRANGER_KEY, channelId, 1));
        _assertToppedUp(channelId);
        assertEq(escrow.getChannel(channelId).closeRequestedAt, requestedAt, "the request stands");
    }

    function test_topUpWithPermit2_zeroDeposit() public {
        bytes32 channelId = _open();
        bytes memory signature = _topUpPermit(PAYER_KEY, address(usdc), 0, 1, block.timestamp, channelId);
        vm.expectRevert(IPaymentChannelEscrow.ZeroDeposit.selector);
        escrow.topUpWithPermit2(channelId, 0, payer, 1, block.timestamp, signature);
    }

    function test_topUpWithPermit2_unknownChannel() public {
        bytes32 channelId = keccak256("nothing");
        bytes memory signature = _permitFor(PAYER_KEY, channelId, 1);
        vm.expectRevert(IPaymentChannelEscrow.ChannelNotFound.selector);
        _byPermit2(channelId, PAYER_KEY, 1, signature);
    }

    function test_topUpWithPermit2_finalized() public {
        bytes32 channelId = _finalized();
        bytes memory signature = _permitFor(PAYER_KEY, channelId, 1);
        vm.expectRevert(IPaymentChannelEscrow.ChannelFinalized.selector);
        _byPermit2(channelId, PAYER_KEY, 1, signature);
    }

    function test_topUpWithPermit2_overflow() public {
        PlainToken token = new PlainToken();
        token.mint(payer, FOREVER);
        vm.startPrank(payer);
        token.approve(address(escrow), FOREVER);
        token.approve(PERMIT2, FOREVER);
        bytes32 channelId = escrow.open(payee, address(token), type(uint128).max, SALT, address(0));
        vm.stopPrank();
        bytes memory signature = _topUpPermit(PAYER_KEY, address(token), MORE, 1, block.timestamp, channelId);
        vm.expectRevert(IPaymentChannelEscrow.DepositOverflow.selector);
        _byPermit2(channelId, PAYER_KEY, 1, signature);
    }

    function test_topUpWithPermit2_ofOtherToken() public {
        // The token is the channel's: a permit for another one is no permit.
        PlainToken token = new PlainToken();
        bytes32 channelId = _open();
        bytes memory signature = _topUpPermit(PAYER_KEY, address(token), MORE, 1, block.timestamp, channelId);
        vm.expectRevert(ISignatureTransfer.InvalidSigner.selector);
        _byPermit2(channelId, PAYER_KEY, 1, signature);
    }

    function test_topUpWithPermit2_twice() public {
        bytes32 channelId = _open();
        bytes memory signature = _permitFor(PAYER_KEY, channelId, 1);
        _byPermit2(channelId, PAYER_KEY, 1, signature);
        vm.expectRevert(ISignatureTransfer.InvalidNonce.selector);
        _byPermit2(channelId, PAYER_KEY, 1, signature);
        _assertToppedUp(channelId);
    }
}
