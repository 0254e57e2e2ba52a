// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {FalseToken, PlainToken} from "./support/Tokens.sol";
import {Wallet} from "./support/Wallets.sol";
import {Test} from "./support/Test.sol";
import {World} from "./support/World.sol";

/// spec/settle.tree, spec/settleWithAuthorization.tree, spec/settleMany.tree
contract SettleTest is World {
    uint256 private constant NONCE = 7;

    function _expectSettled(bytes32 channelId, uint256 cumulative, uint256 delta) private {
        vm.expectEmit(address(escrow));
        emit IPaymentChannelEscrow.Settled(channelId, payer, payee, cumulative, delta, cumulative);
    }

    function _assertSettled(bytes32 channelId, uint256 amount) private view {
        assertEq(escrow.getChannel(channelId).settled, amount, "settled");
        assertEq(_balance(payee), amount, "balance of the payee");
        assertEq(_balance(address(escrow)), DEPOSIT - amount, "balance of the escrow");
        assertTrue(!escrow.getChannel(channelId).finalized, "the channel stays open");
    }

    function _refuses(bytes32 channelId, uint128 amount, bytes memory signature, bytes4 reason) private {
        vm.prank(payee);
        vm.expectRevert(reason);
        escrow.settle(channelId, amount, signature);
    }

    // ---- settle ----

    function test_settle() public {
        bytes32 channelId = _open();
        _expectSettled(channelId, 1_000, 1_000);
        _settle(channelId, 1_000);
        _assertSettled(channelId, 1_000);
    }

    function test_settle_again() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        _expectSettled(channelId, 1_700, 700);
        _settle(channelId, 1_700);
        _assertSettled(channelId, 1_700);
    }

    function test_settle_wholeDeposit() public {
        bytes32 channelId = _open();
        _settle(channelId, DEPOSIT);
        _assertSettled(channelId, DEPOSIT);
    }

    function test_settle_signedByDelegate() public {
        bytes32 channelId = _open(delegate);
        bytes memory voucher = _voucher(DELEGATE_KEY, channelId, 1_000);
        vm.prank(payee);
        escrow.settle(channelId, 1_000, voucher);
        _assertSettled(channelId, 1_000);
    }

    function test_settle_delegateReplacesPayer() public {
        bytes32 channelId = _open(delegate);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        _refuses(channelId, 1_000, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    function test_settle_duringGrace() public {
        bytes32 channelId = _open();
        vm.prank(payer);
        escrow.requestClose(channelId);
        uint64 requestedAt = escrow.getChannel(channelId).closeRequestedAt;
        vm.warp(block.timestamp + GRACE - 1);
        _settle(channelId, 1_000);
        _assertSettled(channelId, 1_000);
        assertEq(escrow.getChannel(channelId).closeRequestedAt, requestedAt, "a settlement takes no request back");
    }

    function test_settle_afterGraceBeforeWithdrawal() public {
        bytes32 channelId = _open();
        vm.prank(payer);
        escrow.requestClose(channelId);
        vm.warp(block.timestamp + GRACE + 1 days);
        _settle(channelId, 1_000);
        _assertSettled(channelId, 1_000);
    }

    function test_settle_unknownChannel() public {
        bytes32 channelId = keccak256("nothing");
        _refuses(channelId, 1, _voucher(PAYER_KEY, channelId, 1), IPaymentChannelEscrow.ChannelNotFound.selector);
    }

    function test_settle_finalized() public {
        bytes32 channelId = _finalized();
        _refuses(channelId, 1, _voucher(PAYER_KEY, channelId, 1), IPaymentChannelEscrow.ChannelFinalized.selector);
    }

    function test_settle_notPayee() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1);
        address[3] memory others = [payer, delegate, stranger];
        for (uint256 i; i < others.length; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(IPaymentChannelEscrow.NotPayee.selector);
            escrow.settle(channelId, 1, voucher);
        }
    }

    function test_settle_notIncreasing() public {
        bytes32 channelId = _open();
        bytes4 reason = IPaymentChannelEscrow.AmountNotIncreasing.selector;
        _refuses(channelId, 0, _voucher(PAYER_KEY, channelId, 0), reason);
        _settle(channelId, 1_000);
        _refuses(channelId, 1_000, _voucher(PAYER_KEY, channelId, 1_000), reason);
        _refuses(channelId, 999, _voucher(PAYER_KEY, channelId, 999), reason);
        _assertSettled(channelId, 1_000);
    }

    function test_settle_exceedsDeposit() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, DEPOSIT + 1);
        _refuses(channelId, DEPOSIT + 1, voucher, IPaymentChannelEscrow.AmountExceedsDeposit.selector);
        // The same voucher is good once there is enough.
        vm.prank(payer);
        escrow.topUp(channelId, 1);
        vm.prank(payee);
        escrow.settle(channelId, DEPOSIT + 1, voucher);
        assertEq(_balance(payee), DEPOSIT + 1, "balance of the payee");
    }

    function test_settle_otherSigner() public {
        bytes32 channelId = _open();
        uint256[3] memory keys = [STRANGER_KEY, PAYEE_KEY, DELEGATE_KEY];
        for (uint256 i; i < keys.length; ++i) {
            bytes memory voucher = _voucher(keys[i], channelId, 1);
            _refuses(channelId, 1, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
        }
    }

    function test_settle_otherAmount() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        _refuses(channelId, 1_001, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
        _refuses(channelId, 999, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    function test_settle_malformedSignature() public {
        bytes32 channelId = _open();
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(PAYER_KEY, _typed(_domain(address(escrow)), _voucherHash(channelId, 1)));
        bytes[8] memory malformed = [
            bytes(""),
            abi.encodePacked(r, s), // no v
            abi.encodePacked(r, s, v, v), // one byte too many
            abi.encodePacked(r, s, v - 27), // v as parity
            abi.encodePacked(r, s, uint8(v ^ 7)), // the other parity, and another recovered account
            abi.encodePacked(r, bytes32(uint256(s) | uint256(v - 27) << 255)), // EIP-2098
            abi.encodePacked(bytes32(0), s, v),
            abi.encodePacked(r, bytes32(0), v)
        ];
        for (uint256 i; i < malformed.length; ++i) {
            _refuses(channelId, 1, malformed[i], IPaymentChannelEscrow.InvalidSignature.selector);
        }
    }

    function test_settle_byWalletSigner() public {
        Wallet wallet = new Wallet(delegate);
        bytes32 channelId = _open(address(wallet));
        _refuses(
            channelId, 1_000, _voucher(STRANGER_KEY, channelId, 1_000), IPaymentChannelEscrow.InvalidSignature.selector
        );
        bytes memory voucher = _voucher(DELEGATE_KEY, channelId, 1_000);
        vm.prank(payee);
        escrow.settle(channelId, 1_000, voucher);
        _assertSettled(channelId, 1_000);
    }

    function test_settle_byWalletPayer() public {
        Wallet wallet = new Wallet(delegate);
        _fund(address(wallet));
        bytes memory call = abi.encodeCall(escrow.open, (payee, address(usdc), DEPOSIT, SALT, address(0)));
        bytes32 channelId = abi.decode(wallet.execute(address(escrow), call), (bytes32));
        bytes memory voucher = _voucher(DELEGATE_KEY, channelId, 1_000);
        vm.prank(payee);
        escrow.settle(channelId, 1_000, voucher);
        _assertSettled(channelId, 1_000);
    }

    function test_settle_walletAnswersWrongly() public {
        Wallet wallet = new Wallet(delegate);
        bytes32 channelId = _open(address(wallet));
        bytes memory voucher = _voucher(DELEGATE_KEY, channelId, 1_000);
        Wallet.Mood[5] memory moods = [
            Wallet.Mood.Reverting,
            Wallet.Mood.RevertingWithYes,
            Wallet.Mood.ShortAnswer,
            Wallet.Mood.DirtyAnswer,
            Wallet.Mood.SaysNo
        ];
        for (uint256 i; i < moods.length; ++i) {
            wallet.setMood(moods[i]);
            _refuses(channelId, 1_000, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
        }
    }

    function test_settle_tokenSaysNo() public {
        FalseToken token = new FalseToken();
        token.mint(payer, DEPOSIT);
        vm.startPrank(payer);
        token.approve(address(escrow), DEPOSIT);
        bytes32 channelId = escrow.open(payee, address(token), DEPOSIT, SALT, address(0));
        vm.stopPrank();
        token.refuse(true);
        _refuses(
            channelId, 1_000, _voucher(PAYER_KEY, channelId, 1_000), IPaymentChannelEscrow.TransferFailed.selector
        );
        assertEq(escrow.getChannel(channelId).settled, 0, "nothing was booked");
    }

    function test_settle_tokenIsGone() public {
        PlainToken token = new PlainToken();
        token.mint(payer, DEPOSIT);
        vm.startPrank(payer);
        token.approve(address(escrow), DEPOSIT);
        bytes32 channelId = escrow.open(payee, address(token), DEPOSIT, SALT, address(0));
        vm.stopPrank();
        vm.etch(address(token), "");
        _refuses(
            channelId, 1_000, _voucher(PAYER_KEY, channelId, 1_000), IPaymentChannelEscrow.TransferFailed.selector
        );
        assertEq(escrow.getChannel(channelId).settled, 0, "nothing was booked");
    }

    function testFuzz_settle_paysTheDifference(uint128 first, uint128 second) public {
        first = uint128(bound(first, 1, DEPOSIT - 1));
        second = uint128(bound(second, first + 1, DEPOSIT));
        bytes32 channelId = _open();
        _settle(channelId, first);
        assertEq(_balance(payee), first, "the first");
        _settle(channelId, second);
        _assertSettled(channelId, second);
    }

    function testFuzz_settle_noForgery(uint256 key, uint128 amount, bytes32 salt) public {
        key = bound(key, 1, ORDER - 1);
        vm.assume(key != PAYER_KEY);
        amount = uint128(bound(amount, 1, DEPOSIT));
        vm.prank(payer);
        bytes32 channelId = escrow.open(payee, address(usdc), DEPOSIT, salt, address(0));
        _refuses(
            channelId, amount, _voucher(key, channelId, amount), IPaymentChannelEscrow.InvalidSignature.selector
        );
    }

    function testFuzz_settle_noJunk(bytes calldata junk, uint128 amount) public {
        amount = uint128(bound(amount, 1, DEPOSIT));
        _refuses(_open(), amount, junk, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    // ---- settleWithAuthorization ----

    function _relay(bytes32 channelId, uint128 amount, uint256 deadline, bytes memory payeeSignature, bytes memory voucher)
        private
    {
        vm.prank(relayer);
        escrow.settleWithAuthorization(channelId, amount, NONCE, deadline, payeeSignature, voucher);
    }

    function _refusesRelay(bytes32 channelId, uint128 amount, uint256 key, bytes4 reason) private {
        bytes memory payeeSignature = _settleAuthorization(key, channelId, amount, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, amount);
        vm.expectRevert(reason);
        _relay(channelId, amount, block.timestamp, payeeSignature, voucher);
        assertTrue(!escrow.isNonceUsed(payee, channelId, NONCE), "the nonce is not used up");
    }

    function test_settleWithAuthorization() public {
        bytes32 channelId = _open();
        bytes memory payeeSignature = _settleAuthorization(PAYEE_KEY, channelId, 1_000, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        _expectSettled(channelId, 1_000, 1_000);
        _relay(channelId, 1_000, block.timestamp, payeeSignature, voucher);
        _assertSettled(channelId, 1_000);
        assertTrue(escrow.isNonceUsed(payee, channelId, NONCE), "the nonce is used up");
        assertTrue(!escrow.isNonceUsed(payee, channelId, NONCE + 1), "no other nonce is");
    }

    function test_settleWithAuthorization_byWalletPayee() public {
        Wallet wallet = new Wallet(delegate);
        vm.prank(payer);
        bytes32 channelId = escrow.open(address(wallet), address(usdc), DEPOSIT, SALT, address(0));
        bytes memory payeeSignature = _settleAuthorization(DELEGATE_KEY, channelId, 1_000, NONCE, block.timestamp);
        _relay(channelId, 1_000, block.timestamp, payeeSignature, _voucher(PAYER_KEY, channelId, 1_000));
        assertEq(_balance(address(wallet)), 1_000, "balance of the wallet");
    }

    function test_settleWithAuthorization_unknownChannel() public {
        _refusesRelay(keccak256("nothing"), 1, PAYEE_KEY, IPaymentChannelEscrow.ChannelNotFound.selector);
    }

    function test_settleWithAuthorization_finalized() public {
        _refusesRelay(_finalized(), 1, PAYEE_KEY, IPaymentChannelEscrow.ChannelFinalized.selector);
    }

    function test_settleWithAuthorization_expired() public {
        bytes32 channelId = _open();
        bytes memory payeeSignature = _settleAuthorization(PAYEE_KEY, channelId, 1, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1);
        uint256 deadline = block.timestamp;
        vm.warp(deadline + 1);
        vm.expectRevert(IPaymentChannelEscrow.AuthorizationExpired.selector);
        _relay(channelId, 1, deadline, payeeSignature, voucher);
    }

    function test_settleWithAuthorization_usedNonce() public {
        bytes32 channelId = _open();
        uint256 later = block.timestamp + 60;
        _relay(
            channelId, 1, later, _settleAuthorization(PAYEE_KEY, channelId, 1, NONCE, later), _voucher(PAYER_KEY, channelId, 1)
        );
        bytes memory payeeSignature = _settleAuthorization(PAYEE_KEY, channelId, 2, NONCE, later);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 2);
        vm.expectRevert(IPaymentChannelEscrow.NonceAlreadyUsed.selector);
        _relay(channelId, 2, later, payeeSignature, voucher);
    }

    /// Nonces share words of storage: using one up must not free another.
    function test_settleWithAuthorization_everyNonceStaysUsed() public {
        bytes32 channelId = _open();
        uint256[4] memory nonces = [NONCE, NONCE + 1, NONCE + 256, type(uint256).max];
        for (uint128 i; i < nonces.length; ++i) {
            assertTrue(!escrow.isNonceUsed(payee, channelId, nonces[i]), "free before");
            bytes memory consent = _settleAuthorization(PAYEE_KEY, channelId, i + 1, nonces[i], FOREVER);
            bytes memory voucher = _voucher(PAYER_KEY, channelId, i + 1);
            escrow.settleWithAuthorization(channelId, i + 1, nonces[i], FOREVER, consent, voucher);
        }
        for (uint128 i; i < nonces.length; ++i) {
            assertTrue(escrow.isNonceUsed(payee, channelId, nonces[i]), "used after");
            bytes memory consent = _settleAuthorization(PAYEE_KEY, channelId, 100, nonces[i], FOREVER);
            bytes memory voucher = _voucher(PAYER_KEY, channelId, 100);
            vm.expectRevert(IPaymentChannelEscrow.NonceAlreadyUsed.selector);
            escrow.settleWithAuthorization(channelId, 100, nonces[i], FOREVER, consent, voucher);
        }
    }

    function test_settleWithAuthorization_notPayeesSignature() public {
        bytes32 channelId = _open();
        _refusesRelay(channelId, 1, PAYER_KEY, IPaymentChannelEscrow.InvalidSignature.selector);
        _refusesRelay(channelId, 1, STRANGER_KEY, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    function test_settleWithAuthorization_closeAuthorizationInstead() public {
        bytes32 channelId = _open();
        bytes memory payeeSignature = _closeAuthorization(PAYEE_KEY, channelId, 1, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1);
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        _relay(channelId, 1, block.timestamp, payeeSignature, voucher);
    }

    function test_settleWithAuthorization_notIncreasing() public {
        bytes32 channelId = _open();
        _settle(channelId, 10);
        _refusesRelay(channelId, 10, PAYEE_KEY, IPaymentChannelEscrow.AmountNotIncreasing.selector);
    }

    function test_settleWithAuthorization_exceedsDeposit() public {
        _refusesRelay(_open(), DEPOSIT + 1, PAYEE_KEY, IPaymentChannelEscrow.AmountExceedsDeposit.selector);
    }

    function test_settleWithAuthorization_badVoucher() public {
        bytes32 channelId = _open();
        bytes memory payeeSignature = _settleAuthorization(PAYEE_KEY, channelId, 2, NONCE, block.timestamp);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1);
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        _relay(channelId, 2, block.timestamp, payeeSignature, voucher);
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        _relay(channelId, 2, block.timestamp, payeeSignature, "");
    }

    // ---- settleMany ----

    function _openAs(uint256 key, bytes32 salt) private returns (bytes32) {
        vm.prank(vm.addr(key));
        return escrow.open(payee, address(usdc), DEPOSIT, salt, address(0));
    }

    function test_settleMany() public {
        bytes32 one = _openAs(PAYER_KEY, SALT);
        bytes32 two = _openAs(STRANGER_KEY, SALT);
        IPaymentChannelEscrow.Claim[] memory claims = new IPaymentChannelEscrow.Claim[](2);
        claims[0] = IPaymentChannelEscrow.Claim(one, 1_000, _voucher(PAYER_KEY, one, 1_000));
        claims[1] = IPaymentChannelEscrow.Claim(two, 300, _voucher(STRANGER_KEY, two, 300));
        _expectSettled(one, 1_000, 1_000);
        vm.prank(payee);
        assertEq(escrow.settleMany(address(usdc), claims), 1_300, "the answer");
        assertEq(_balance(payee), 1_300, "balance of the payee");
        assertEq(escrow.getChannel(one).settled, 1_000, "the first");
        assertEq(escrow.getChannel(two).settled, 300, "the second");
    }

    function test_settleMany_leavesOutWhatFails() public {
        IPaymentChannelEscrow.Claim[] memory claims = new IPaymentChannelEscrow.Claim[](8);
        bytes4[8] memory reasons;
        bytes32 finalized = _finalized();
        bytes32 good = _openAs(PAYER_KEY, keccak256("good"));
        bytes32 low = _openAs(STRANGER_KEY, keccak256("low"));
        bytes32 others;
        {
            PlainToken token = new PlainToken();
            token.mint(payer, DEPOSIT);
            vm.startPrank(payer);
            token.approve(address(escrow), DEPOSIT);
            bytes32 otherToken = escrow.open(payee, address(token), DEPOSIT, SALT, address(0));
            others = escrow.open(stranger, address(usdc), DEPOSIT, SALT, address(0));
            vm.stopPrank();
            claims[4] = IPaymentChannelEscrow.Claim(otherToken, 5, _voucher(PAYER_KEY, otherToken, 5));
            reasons[4] = IPaymentChannelEscrow.TokenMismatch.selector;
        }
        bytes memory voucher = _voucher(PAYER_KEY, good, 1_000);
        claims[0] = IPaymentChannelEscrow.Claim(keccak256("nothing"), 5, voucher);
        reasons[0] = IPaymentChannelEscrow.ChannelNotFound.selector;
        claims[1] = IPaymentChannelEscrow.Claim(finalized, 5, _voucher(PAYER_KEY, finalized, 5));
        reasons[1] = IPaymentChannelEscrow.ChannelFinalized.selector;
        claims[2] = IPaymentChannelEscrow.Claim(good, 1_000, voucher);
        // The same row again adds nothing.
        claims[3] = IPaymentChannelEscrow.Claim(good, 1_000, voucher);
        reasons[3] = IPaymentChannelEscrow.AmountNotIncreasing.selector;
        claims[5] = IPaymentChannelEscrow.Claim(others, 5, _voucher(PAYER_KEY, others, 5));
        reasons[5] = IPaymentChannelEscrow.NotPayee.selector;
        claims[6] = IPaymentChannelEscrow.Claim(low, DEPOSIT + 1, _voucher(STRANGER_KEY, low, DEPOSIT + 1));
        reasons[6] = IPaymentChannelEscrow.AmountExceedsDeposit.selector;
        claims[7] = IPaymentChannelEscrow.Claim(low, 5, _voucher(PAYER_KEY, low, 5));
        reasons[7] = IPaymentChannelEscrow.InvalidSignature.selector;
        for (uint256 i; i < claims.length; ++i) {
            if (reasons[i] == 0) continue;
            vm.expectEmit(address(escrow));
            emit IPaymentChannelEscrow.SettlementSkipped(claims[i].channelId, reasons[i]);
        }
        vm.prank(payee);
        assertEq(escrow.settleMany(address(usdc), claims), 1_000, "the answer");
        assertEq(_balance(payee), 1_000, "balance of the payee");
        assertEq(escrow.getChannel(low).settled, 0, "what failed is as before");
        assertEq(escrow.getChannel(others).settled, 0, "nobody collects for another");
    }

    function test_settleMany_nothing() public {
        IPaymentChannelEscrow.Claim[] memory claims = new IPaymentChannelEscrow.Claim[](0);
        vm.prank(payee);
        vm.expectRevert(IPaymentChannelEscrow.NothingToSettle.selector);
        escrow.settleMany(address(usdc), claims);
        claims = new IPaymentChannelEscrow.Claim[](1);
        claims[0] = IPaymentChannelEscrow.Claim(keccak256("nothing"), 5, "");
        vm.prank(payee);
        vm.expectRevert(IPaymentChannelEscrow.NothingToSettle.selector);
        escrow.settleMany(address(usdc), claims);
    }
}
