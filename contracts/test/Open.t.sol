// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {ISignatureTransfer} from "../src/Permit2SignatureTransfer.sol";
import {AgreeableToken, FalseToken, FeeToken, MuteToken, PlainToken, SilentToken} from "./support/Tokens.sol";
import {Wallet} from "./support/Wallets.sol";
import {World} from "./support/World.sol";

/// spec/open.tree, spec/openWithAuthorization.tree, spec/openWithPermit2.tree
contract OpenTest is World {
    function _id(address from, address token, address authorizedSigner) private view returns (bytes32) {
        return keccak256(abi.encode(from, payee, token, SALT, authorizedSigner, address(escrow), block.chainid));
    }

    function _assertOpened(bytes32 channelId, address token, address authorizedSigner) private view {
        IPaymentChannelEscrow.Channel memory channel = escrow.getChannel(channelId);
        assertEq(channel.payer, payer, "payer");
        assertEq(channel.payee, payee, "payee");
        assertEq(channel.token, token, "token");
        assertEq(channel.authorizedSigner, authorizedSigner, "authorized signer");
        assertEq(channel.deposit, DEPOSIT, "deposit");
        assertEq(channel.settled, 0, "settled");
        assertEq(channel.closeRequestedAt, 0, "close requested at");
        assertTrue(!channel.finalized, "not finalized");
        assertEq(PlainToken(token).balanceOf(address(escrow)), DEPOSIT, "balance of the escrow");
    }

    function _expectOpened(address token, address authorizedSigner) private {
        vm.expectEmit(address(escrow));
        emit IPaymentChannelEscrow.ChannelOpened(
            _id(payer, token, authorizedSigner), payer, payee, token, authorizedSigner, SALT, DEPOSIT
        );
    }

    // ---- open ----

    function test_open() public {
        uint256 before = _balance(payer);
        _expectOpened(address(usdc), address(0));
        bytes32 channelId = _open();
        assertEq(channelId, _id(payer, address(usdc), address(0)), "channel id");
        _assertOpened(channelId, address(usdc), address(0));
        assertEq(_balance(payer), before - DEPOSIT, "balance of the payer");
    }

    function test_open_withDelegate() public {
        _expectOpened(address(usdc), delegate);
        bytes32 channelId = _open(delegate);
        assertEq(channelId, _id(payer, address(usdc), delegate), "channel id");
        _assertOpened(channelId, address(usdc), delegate);
    }

    function test_open_zeroDeposit() public {
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ZeroDeposit.selector);
        escrow.open(payee, address(usdc), 0, SALT, address(0));
    }

    function test_open_zeroPayee() public {
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.InvalidPayee.selector);
        escrow.open(address(0), address(usdc), DEPOSIT, SALT, address(0));
    }

    function test_open_existing() public {
        _open();
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelAlreadyExists.selector);
        escrow.open(payee, address(usdc), 1, SALT, address(0));
    }

    function test_open_finalized() public {
        _finalized();
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelAlreadyExists.selector);
        escrow.open(payee, address(usdc), DEPOSIT, SALT, address(0));
    }

    function test_open_otherInputsOtherChannels() public {
        _open();
        vm.startPrank(payer);
        escrow.open(payee, address(usdc), DEPOSIT, keccak256("another salt"), address(0));
        escrow.open(stranger, address(usdc), DEPOSIT, SALT, address(0));
        escrow.open(payee, address(usdc), DEPOSIT, SALT, delegate);
        vm.stopPrank();
        assertEq(_balance(address(escrow)), 4 * uint256(DEPOSIT), "four deposits");
    }

    function test_open_withoutApproval() public {
        vm.prank(payer);
        usdc.approve(address(escrow), DEPOSIT - 1);
        vm.prank(payer);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("ERC20: transfer amount exceeds allowance")));
        escrow.open(payee, address(usdc), DEPOSIT, SALT, address(0));
        assertEq(escrow.getChannel(_id(payer, address(usdc), address(0))).payer, address(0), "nothing is left of it");
    }

    function _openOdd(PlainToken token) private {
        token.mint(payer, DEPOSIT);
        vm.prank(payer);
        token.approve(address(escrow), DEPOSIT);
        vm.prank(payer);
        escrow.open(payee, address(token), DEPOSIT, SALT, address(0));
    }

    function openOdd(PlainToken token) external {
        _openOdd(token);
    }

    function _refusesToken(PlainToken token, bytes4 reason) private {
        try this.openOdd(token) {
            revert("opened");
        } catch (bytes memory answer) {
            assertEq(bytes32(bytes4(answer)), bytes32(reason), "the reason");
        }
    }

    function test_open_feeOnTransfer() public {
        _refusesToken(new FeeToken(), IPaymentChannelEscrow.InexactDeposit.selector);
    }

    function test_open_tokenSaysNo() public {
        FalseToken token = new FalseToken();
        token.refuse(true);
        _refusesToken(token, IPaymentChannelEscrow.TransferFailed.selector);
    }

    function test_open_tokenRevertsWithoutReason() public {
        _refusesToken(new MuteToken(), IPaymentChannelEscrow.TransferFailed.selector);
    }

    function test_open_tokenWithoutCode() public {
        vm.prank(payer);
        vm.expectRevert(bytes(""));
        escrow.open(payee, address(0xC0DE1E55), DEPOSIT, SALT, address(0));
    }

    function test_open_tokenWithoutAnswer() public {
        SilentToken token = new SilentToken();
        token.mint(payer, DEPOSIT);
        vm.prank(payer);
        bytes32 channelId = escrow.open(payee, address(token), DEPOSIT, SALT, address(0));
        _assertOpened(channelId, address(token), address(0));
        vm.prank(payee);
        escrow.settle(channelId, 40, _voucher(PAYER_KEY, channelId, 40));
        assertEq(token.balanceOf(payee), 40, "what the payee got");
    }

    function test_open_largestDeposit() public {
        PlainToken token = new PlainToken();
        token.mint(payer, type(uint128).max);
        vm.startPrank(payer);
        token.approve(address(escrow), FOREVER);
        bytes32 channelId = escrow.open(payee, address(token), type(uint128).max, SALT, address(0));
        vm.stopPrank();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, type(uint128).max);
        vm.prank(payee);
        escrow.close(channelId, type(uint128).max, voucher);
        assertEq(token.balanceOf(payee), type(uint128).max, "all of it");
    }

    // ---- openWithAuthorization ----

    function _openBy3009(bytes32 nonce, bytes memory signature, uint256 after_, uint256 before_) private returns (bytes32) {
        vm.prank(relayer);
        return escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, SALT, delegate, payer, after_, before_, nonce, signature
        );
    }

    function test_openWithAuthorization() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        _expectOpened(address(usdc), delegate);
        bytes32 channelId = _openBy3009(nonce, signature, 0, FOREVER);
        assertEq(channelId, _id(payer, address(usdc), delegate), "the depositor is the payer, not the relayer");
        _assertOpened(channelId, address(usdc), delegate);
        assertTrue(usdc.authorizationState(payer, nonce), "the authorization is used");
    }

    function test_openWithAuthorization_byWalletPayer() public {
        Wallet wallet = new Wallet(delegate);
        _fund(address(wallet));
        bytes32 nonce = _openNonce(address(wallet), payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(DELEGATE_KEY, address(wallet), DEPOSIT, nonce);
        bytes32 channelId = escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, SALT, delegate, address(wallet), 0, FOREVER, nonce, signature
        );
        assertEq(escrow.getChannel(channelId).payer, address(wallet), "payer");
        assertEq(_balance(address(escrow)), DEPOSIT, "balance of the escrow");
    }

    function test_openWithAuthorization_otherNonce() public {
        // Signed as asked for, with a nonce that binds nothing.
        bytes32 nonce = keccak256("random");
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        vm.expectRevert(IPaymentChannelEscrow.NonceMismatch.selector);
        _openBy3009(nonce, signature, 0, FOREVER);
    }

    function test_openWithAuthorization_zeroDeposit() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, 0, nonce);
        vm.expectRevert(IPaymentChannelEscrow.ZeroDeposit.selector);
        escrow.openWithAuthorization(payee, address(usdc), 0, SALT, delegate, payer, 0, FOREVER, nonce, signature);
    }

    function test_openWithAuthorization_zeroPayee() public {
        bytes32 nonce = _openNonce(payer, address(0), address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        vm.expectRevert(IPaymentChannelEscrow.InvalidPayee.selector);
        escrow.openWithAuthorization(
            address(0), address(usdc), DEPOSIT, SALT, delegate, payer, 0, FOREVER, nonce, signature
        );
    }

    function test_openWithAuthorization_zeroPayer() public {
        AgreeableToken token = new AgreeableToken();
        bytes32 nonce = _openNonce(address(0), payee, address(token), SALT, delegate);
        vm.expectRevert(IPaymentChannelEscrow.InvalidPayer.selector);
        escrow.openWithAuthorization(
            payee, address(token), DEPOSIT, SALT, delegate, address(0), 0, FOREVER, nonce, ""
        );
    }

    function test_openWithAuthorization_existing() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        _openBy3009(nonce, signature, 0, FOREVER);
        vm.expectRevert(IPaymentChannelEscrow.ChannelAlreadyExists.selector);
        _openBy3009(nonce, signature, 0, FOREVER);
        assertEq(_balance(address(escrow)), DEPOSIT, "one deposit");
    }

    function test_openWithAuthorization_badSignature() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(STRANGER_KEY, DEPOSIT, nonce);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("FiatTokenV2: invalid signature")));
        _openBy3009(nonce, signature, 0, FOREVER);
    }

    function test_openWithAuthorization_otherDeposit() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT - 1, nonce);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("FiatTokenV2: invalid signature")));
        _openBy3009(nonce, signature, 0, FOREVER);
    }

    function test_openWithAuthorization_expired() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("FiatTokenV2: authorization is expired")));
        _openBy3009(nonce, signature, 0, block.timestamp);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("FiatTokenV2: authorization is not yet valid")));
        _openBy3009(nonce, signature, block.timestamp, FOREVER);
    }

    function test_openWithAuthorization_tokenMovesNothing() public {
        AgreeableToken token = new AgreeableToken();
        bytes32 nonce = _openNonce(payer, payee, address(token), SALT, delegate);
        vm.expectRevert(IPaymentChannelEscrow.InexactDeposit.selector);
        escrow.openWithAuthorization(payee, address(token), DEPOSIT, SALT, delegate, payer, 0, FOREVER, nonce, "");
    }

    // ---- openWithPermit2 ----

    function _openByPermit2(address token, uint128 deposit, uint256 nonce, uint256 deadline, bytes memory signature)
        private
        returns (bytes32)
    {
        vm.prank(relayer);
        return escrow.openWithPermit2(payee, token, deposit, SALT, delegate, payer, nonce, deadline, signature);
    }

    function test_openWithPermit2() public {
        bytes memory signature =
            _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 77, block.timestamp, payee, SALT, delegate);
        _expectOpened(address(usdc), delegate);
        bytes32 channelId = _openByPermit2(address(usdc), DEPOSIT, 77, block.timestamp, signature);
        assertEq(channelId, _id(payer, address(usdc), delegate), "the depositor is the payer, not the relayer");
        _assertOpened(channelId, address(usdc), delegate);
    }

    function test_openWithPermit2_anyToken() public {
        SilentToken token = new SilentToken();
        token.mint(payer, DEPOSIT);
        bytes memory signature =
            _openPermit(PAYER_KEY, address(token), DEPOSIT, 1, block.timestamp, payee, SALT, delegate);
        _assertOpened(_openByPermit2(address(token), DEPOSIT, 1, block.timestamp, signature), address(token), delegate);
    }

    function test_openWithPermit2_zeroDeposit() public {
        bytes memory signature = _openPermit(PAYER_KEY, address(usdc), 0, 77, block.timestamp, payee, SALT, delegate);
        vm.expectRevert(IPaymentChannelEscrow.ZeroDeposit.selector);
        _openByPermit2(address(usdc), 0, 77, block.timestamp, signature);
    }

    function test_openWithPermit2_zeroPayee() public {
        bytes memory signature =
            _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 77, block.timestamp, address(0), SALT, delegate);
        vm.expectRevert(IPaymentChannelEscrow.InvalidPayee.selector);
        escrow.openWithPermit2(
            address(0), address(usdc), DEPOSIT, SALT, delegate, payer, 77, block.timestamp, signature
        );
    }

    function test_openWithPermit2_zeroPayer() public {
        vm.expectRevert(IPaymentChannelEscrow.InvalidPayer.selector);
        escrow.openWithPermit2(
            payee, address(usdc), DEPOSIT, SALT, delegate, address(0), 77, block.timestamp, new bytes(65)
        );
    }

    function test_openWithPermit2_existing() public {
        bytes memory first = _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 77, block.timestamp, payee, SALT, delegate);
        bytes memory second = _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 78, block.timestamp, payee, SALT, delegate);
        _openByPermit2(address(usdc), DEPOSIT, 77, block.timestamp, first);
        vm.expectRevert(IPaymentChannelEscrow.ChannelAlreadyExists.selector);
        _openByPermit2(address(usdc), DEPOSIT, 78, block.timestamp, second);
    }

    function test_openWithPermit2_badSignature() public {
        bytes memory signature =
            _openPermit(STRANGER_KEY, address(usdc), DEPOSIT, 77, block.timestamp, payee, SALT, delegate);
        vm.expectRevert(ISignatureTransfer.InvalidSigner.selector);
        _openByPermit2(address(usdc), DEPOSIT, 77, block.timestamp, signature);
    }

    function test_openWithPermit2_expired() public {
        bytes memory signature =
            _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 77, block.timestamp - 1, payee, SALT, delegate);
        vm.expectRevert(abi.encodeWithSelector(ISignatureTransfer.SignatureExpired.selector, block.timestamp - 1));
        _openByPermit2(address(usdc), DEPOSIT, 77, block.timestamp - 1, signature);
    }

    function test_openWithPermit2_usedNonce() public {
        bytes memory signature =
            _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 77, block.timestamp, payee, SALT, delegate);
        _openByPermit2(address(usdc), DEPOSIT, 77, block.timestamp, signature);
        bytes memory other =
            _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 77, block.timestamp, payee, TOP_UP_SALT, delegate);
        vm.expectRevert(ISignatureTransfer.InvalidNonce.selector);
        escrow.openWithPermit2(
            payee, address(usdc), DEPOSIT, TOP_UP_SALT, delegate, payer, 77, block.timestamp, other
        );
    }

    function test_openWithPermit2_feeOnTransfer() public {
        FeeToken token = new FeeToken();
        token.mint(payer, DEPOSIT);
        vm.prank(payer);
        token.approve(PERMIT2, DEPOSIT);
        bytes memory signature =
            _openPermit(PAYER_KEY, address(token), DEPOSIT, 77, block.timestamp, payee, SALT, delegate);
        vm.expectRevert(IPaymentChannelEscrow.InexactDeposit.selector);
        _openByPermit2(address(token), DEPOSIT, 77, block.timestamp, signature);
    }
}
