// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {ISignatureTransfer} from "../src/Permit2SignatureTransfer.sol";
import {FeeToken, HookToken, LyingToken, PlainToken} from "./support/Tokens.sol";
import {Wallet} from "./support/Wallets.sol";
import {World} from "./support/World.sol";

/// How channels have been robbed, or could be: spec/attacks.tree.
contract AttacksTest is World {
    bytes private constant BLACKLISTED =
        hex"08c379a00000000000000000000000000000000000000000000000000000000000000020"
        hex"0000000000000000000000000000000000000000000000000000000000000025"
        hex"426c61636b6c69737461626c653a206163636f756e7420697320626c61636b6c6973746564000000000000000000000000000000000000000000000000000000";

    function _refusesSettle(bytes32 channelId, uint128 amount, bytes memory signature, bytes4 reason) private {
        vm.prank(payee);
        vm.expectRevert(reason);
        escrow.settle(channelId, amount, signature);
    }

    function _forceClosed(bytes32 channelId) private {
        vm.prank(payer);
        escrow.requestClose(channelId);
        vm.warp(block.timestamp + GRACE);
    }

    // ---- Replay ----

    /// An old voucher must not be good for a new deposit under the same id, however the channel was ended or reopened.
    function test_attack_replayAfterReopen() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, DEPOSIT);
        vm.prank(payee);
        escrow.close(channelId, DEPOSIT, voucher);
        bytes4 reason = IPaymentChannelEscrow.ChannelAlreadyExists.selector;

        vm.prank(payer);
        vm.expectRevert(reason);
        escrow.open(payee, address(usdc), DEPOSIT, SALT, address(0));

        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, address(0));
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        vm.expectRevert(reason);
        escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, SALT, address(0), payer, 0, FOREVER, nonce, signature
        );

        signature = _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 1, block.timestamp, payee, SALT, address(0));
        vm.expectRevert(reason);
        escrow.openWithPermit2(
            payee, address(usdc), DEPOSIT, SALT, address(0), payer, 1, block.timestamp, signature
        );

        _refusesSettle(channelId, DEPOSIT, voucher, IPaymentChannelEscrow.ChannelFinalized.selector);
        assertEq(_balance(address(escrow)), 0, "nothing came back");
    }

    function test_attack_replayAfterReopenFollowingWithdrawal() public {
        bytes32 channelId = _open();
        _forceClosed(channelId);
        vm.prank(payer);
        escrow.withdraw(channelId);
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelAlreadyExists.selector);
        escrow.open(payee, address(usdc), DEPOSIT, SALT, address(0));
    }

    function test_attack_voucherOfAnotherChannel() public {
        bytes32 one = _open();
        vm.prank(payer);
        bytes32 two = escrow.open(payee, address(usdc), DEPOSIT, TOP_UP_SALT, address(0));
        _refusesSettle(two, 1_000, _voucher(PAYER_KEY, one, 1_000), IPaymentChannelEscrow.InvalidSignature.selector);
    }

    function test_attack_voucherOfAnotherContract() public {
        bytes32 channelId = _open();
        bytes memory voucher = _sign(PAYER_KEY, _typed(_domain(address(0xE5C40)), _voucherHash(channelId, 1_000)));
        _refusesSettle(channelId, 1_000, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    function test_attack_voucherOfAnotherChain() public {
        bytes32 channelId = _open();
        uint256 here = block.chainid;
        vm.chainId(1);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        vm.chainId(here);
        _refusesSettle(channelId, 1_000, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    /// After a split, vouchers of one side are none on the other, though channels and deposits are on both.
    function test_attack_voucherAfterChainSplit() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        vm.chainId(9_999);
        _refusesSettle(channelId, 1_000, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    /// Tempo's escrow has the same voucher type under another name.
    function test_attack_voucherOfTempo() public {
        bytes32 channelId = _open();
        bytes32 separator = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Tempo Stream Channel"),
                keccak256("1"),
                block.chainid,
                address(escrow)
            )
        );
        bytes memory voucher = _sign(PAYER_KEY, _typed(separator, _voucherHash(channelId, 1_000)));
        _refusesSettle(channelId, 1_000, voucher, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    function test_attack_replayedSettlement() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        _refusesSettle(channelId, 1_000, voucher, IPaymentChannelEscrow.AmountNotIncreasing.selector);
        assertEq(_balance(payee), 1_000, "paid once");
    }

    function test_attack_payeeAuthorizationOnAnotherChannel() public {
        bytes32 one = _open();
        vm.prank(payer);
        bytes32 two = escrow.open(payee, address(usdc), DEPOSIT, TOP_UP_SALT, address(0));
        bytes memory ofOne = _closeAuthorization(PAYEE_KEY, one, 0, 1, block.timestamp);
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        escrow.closeWithAuthorization(two, 0, 1, block.timestamp, ofOne, "");
        // The same nonce is free on each channel.
        bytes memory ofTwo = _closeAuthorization(PAYEE_KEY, two, 0, 1, block.timestamp);
        escrow.closeWithAuthorization(one, 0, 1, block.timestamp, ofOne, "");
        escrow.closeWithAuthorization(two, 0, 1, block.timestamp, ofTwo, "");
    }

    // ---- Front-running ----

    /// The same parameters from another sender are another channel, and the first can still be opened.
    function test_attack_frontRunOpen() public {
        vm.prank(stranger);
        bytes32 theirs = escrow.open(payee, address(usdc), 1, SALT, address(0));
        bytes32 ours = _open();
        assertTrue(theirs != ours, "another channel");
        assertEq(escrow.getChannel(ours).deposit, DEPOSIT, "ours has our deposit");
    }

    /// Whoever shows the authorization first opens the very channel that was meant, and pays the gas for it.
    function test_attack_showAuthorizationFirst() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        vm.prank(stranger);
        bytes32 channelId = escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, SALT, delegate, payer, 0, FOREVER, nonce, signature
        );
        IPaymentChannelEscrow.Channel memory channel = escrow.getChannel(channelId);
        assertEq(channel.payer, payer, "payer");
        assertEq(channel.payee, payee, "payee");
        assertEq(channel.deposit, DEPOSIT, "deposit");
        vm.prank(relayer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelAlreadyExists.selector);
        escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, SALT, delegate, payer, 0, FOREVER, nonce, signature
        );
    }

    /// Every parameter that the authorization does not name is in its nonce.
    function test_attack_divertedAuthorization() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        bytes4 reason = IPaymentChannelEscrow.NonceMismatch.selector;
        vm.startPrank(stranger);
        vm.expectRevert(reason);
        escrow.openWithAuthorization(
            stranger, address(usdc), DEPOSIT, SALT, delegate, payer, 0, FOREVER, nonce, signature
        );
        vm.expectRevert(reason);
        escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, SALT, stranger, payer, 0, FOREVER, nonce, signature
        );
        vm.expectRevert(reason);
        escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, TOP_UP_SALT, delegate, payer, 0, FOREVER, nonce, signature
        );
        vm.expectRevert(reason);
        escrow.openWithAuthorization(
            payee, address(usdc), DEPOSIT, SALT, delegate, stranger, 0, FOREVER, nonce, signature
        );
        // With the nonce that fits the theft, the token doesn't know the signature.
        bytes32 theirs = _openNonce(payer, stranger, address(usdc), SALT, delegate);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("FiatTokenV2: invalid signature")));
        escrow.openWithAuthorization(
            stranger, address(usdc), DEPOSIT, SALT, delegate, payer, 0, FOREVER, theirs, signature
        );
        vm.stopPrank();
    }

    /// An authorization to the escrow can be executed by the escrow only: else the money would lie there unassigned.
    function test_attack_authorizationGivenToTheTokenItself() public {
        bytes32 nonce = _openNonce(payer, payee, address(usdc), SALT, delegate);
        bytes memory signature = _authorization(PAYER_KEY, DEPOSIT, nonce);
        vm.startPrank(stranger);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("FiatTokenV2: caller must be the payee")));
        usdc.receiveWithAuthorization(payer, address(escrow), DEPOSIT, 0, FOREVER, nonce, signature);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("FiatTokenV2: invalid signature")));
        usdc.transferWithAuthorization(payer, address(escrow), DEPOSIT, 0, FOREVER, nonce, signature);
        vm.stopPrank();
    }

    function test_attack_divertedPermit() public {
        bytes memory signature =
            _openPermit(PAYER_KEY, address(usdc), DEPOSIT, 1, block.timestamp, payee, SALT, delegate);
        bytes4 reason = ISignatureTransfer.InvalidSigner.selector;
        vm.startPrank(stranger);
        vm.expectRevert(reason);
        escrow.openWithPermit2(
            stranger, address(usdc), DEPOSIT, SALT, delegate, payer, 1, block.timestamp, signature
        );
        vm.expectRevert(reason);
        escrow.openWithPermit2(payee, address(usdc), DEPOSIT, SALT, stranger, payer, 1, block.timestamp, signature);
        vm.expectRevert(reason);
        escrow.openWithPermit2(
            payee, address(usdc), DEPOSIT, TOP_UP_SALT, delegate, payer, 1, block.timestamp, signature
        );
        // Neither through Permit2 itself: the spender who was signed for is the escrow.
        bytes32 witness = keccak256(
            abi.encode(
                keccak256("ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)"),
                payee,
                SALT,
                delegate
            )
        );
        vm.expectRevert(reason);
        ISignatureTransfer(PERMIT2).permitWitnessTransferFrom(
            ISignatureTransfer.PermitTransferFrom(
                ISignatureTransfer.TokenPermissions(address(usdc), DEPOSIT), 1, block.timestamp
            ),
            ISignatureTransfer.SignatureTransferDetails(stranger, DEPOSIT),
            payer,
            witness,
            "ChannelOpenWitness witness)ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)TokenPermissions(address token,uint256 amount)",
            signature
        );
        vm.stopPrank();
    }

    function test_attack_divertedTopUp() public {
        bytes32 one = _open();
        vm.prank(payer);
        bytes32 two = escrow.open(stranger, address(usdc), DEPOSIT, SALT, address(0));
        bytes32 nonce = _topUpNonce(one, 500, payer, TOP_UP_SALT);
        bytes memory signature = _authorization(PAYER_KEY, 500, nonce);
        vm.expectRevert(IPaymentChannelEscrow.NonceMismatch.selector);
        escrow.topUpWithAuthorization(two, 500, payer, TOP_UP_SALT, 0, FOREVER, nonce, signature);
        vm.expectRevert(IPaymentChannelEscrow.NonceMismatch.selector);
        escrow.topUpWithAuthorization(one, 499, payer, TOP_UP_SALT, 0, FOREVER, nonce, signature);
        signature = _topUpPermit(PAYER_KEY, address(usdc), 500, 1, block.timestamp, one);
        vm.expectRevert(ISignatureTransfer.InvalidSigner.selector);
        escrow.topUpWithPermit2(two, 500, payer, 1, block.timestamp, signature);
        // A permit for a top-up opens nothing.
        vm.expectRevert(ISignatureTransfer.InvalidSigner.selector);
        escrow.openWithPermit2(
            payee, address(usdc), 500, TOP_UP_SALT, address(0), payer, 1, block.timestamp, signature
        );
    }

    // ---- Stale closes ----

    /// A relayer that holds back an old close can use it until its deadline; the payee can use up its nonce before.
    function test_attack_staleCloseIsCancelledByItsNonce() public {
        bytes32 channelId = _open();
        uint256 deadline = block.timestamp + 60;
        bytes memory stale = _closeAuthorization(PAYEE_KEY, channelId, 1_000, 9, deadline);
        bytes memory old = _voucher(PAYER_KEY, channelId, 1_000);
        bytes memory fresh = _settleAuthorization(PAYEE_KEY, channelId, 4_000, 9, deadline);
        escrow.settleWithAuthorization(channelId, 4_000, 9, deadline, fresh, _voucher(PAYER_KEY, channelId, 4_000));
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.NonceAlreadyUsed.selector);
        escrow.closeWithAuthorization(channelId, 1_000, 9, deadline, stale, old);
    }

    /// What was settled stays the payee's, also where a stale close comes through.
    function test_attack_staleCloseTakesNothingBack() public {
        bytes32 channelId = _open();
        uint256 deadline = block.timestamp + 60;
        bytes memory stale = _closeAuthorization(PAYEE_KEY, channelId, 1_000, 9, deadline);
        bytes memory old = _voucher(PAYER_KEY, channelId, 1_000);
        _settle(channelId, 4_000);
        vm.prank(payer);
        escrow.closeWithAuthorization(channelId, 1_000, 9, deadline, stale, old);
        assertEq(_balance(payee), 4_000, "balance of the payee");
        assertEq(escrow.getChannel(channelId).settled, 4_000, "settled");
    }

    function test_attack_staleCloseAfterDeadline() public {
        bytes32 channelId = _open();
        uint256 deadline = block.timestamp + 60;
        bytes memory stale = _closeAuthorization(PAYEE_KEY, channelId, 0, 9, deadline);
        vm.warp(deadline + 1);
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.AuthorizationExpired.selector);
        escrow.closeWithAuthorization(channelId, 0, 9, deadline, stale, "");
    }

    /// A payer asks for its money back while the seller sleeps; until it withdraws the last voucher is good.
    function test_attack_forcedCloseOverUnsettledVouchers() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 4_000_000);
        _forceClosed(channelId);
        vm.prank(payee);
        escrow.close(channelId, 4_000_000, voucher);
        assertEq(_balance(payee), 4_000_000, "balance of the payee");
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelFinalized.selector);
        escrow.withdraw(channelId);
    }

    /// A close, then a request and a withdrawal, would pay the deposit twice, out of the others' deposits.
    function test_attack_secondPayoutFromThePool() public {
        bytes32 one = _open();
        vm.prank(stranger);
        escrow.open(payee, address(usdc), DEPOSIT, SALT, address(0));
        vm.prank(payee);
        escrow.close(one, 0, "");
        vm.startPrank(payer);
        vm.expectRevert(IPaymentChannelEscrow.ChannelFinalized.selector);
        escrow.requestClose(one);
        vm.expectRevert(IPaymentChannelEscrow.ChannelFinalized.selector);
        escrow.withdraw(one);
        vm.stopPrank();
        assertEq(_balance(address(escrow)), DEPOSIT, "the others' deposit is there");
    }

    // ---- Top-ups that harm ----

    /// A payee that tops up one atom each grace period would hold the deposit for ever, if that cancelled the request.
    function test_attack_griefByTopUp() public {
        vm.prank(issuer);
        usdc.mint(payee, 10);
        bytes32 channelId = _open();
        vm.prank(payer);
        escrow.requestClose(channelId);
        uint256 requestedAt = block.timestamp;
        for (uint256 i; i < 3; ++i) {
            vm.warp(block.timestamp + GRACE / 4);
            bytes32 salt = bytes32(i);
            bytes32 nonce = _topUpNonce(channelId, 1, payee, salt);
            bytes memory signature = _authorization(PAYEE_KEY, 1, nonce);
            escrow.topUpWithAuthorization(channelId, 1, payee, salt, 0, FOREVER, nonce, signature);
        }
        vm.warp(requestedAt + GRACE);
        uint256 before = _balance(payer);
        vm.prank(payer);
        escrow.withdraw(channelId);
        assertEq(_balance(payer), before + DEPOSIT + 3, "the payer gets its deposit, and what was given to it");
    }

    function test_attack_dustTopUps() public {
        bytes32 channelId = _open();
        vm.startPrank(payer);
        for (uint256 i; i < 20; ++i) escrow.topUp(channelId, 1);
        vm.stopPrank();
        _settle(channelId, DEPOSIT + 20);
        assertEq(_balance(payee), DEPOSIT + 20, "each atom counts once");
        assertEq(_balance(address(escrow)), 0, "and none is left");
    }

    /// Money sent without a call belongs to no channel, and pays for none.
    function test_attack_donation() public {
        bytes32 channelId = _open();
        vm.prank(stranger);
        usdc.transfer(address(escrow), 1_000_000);
        _refusesSettle(
            channelId,
            DEPOSIT + 1,
            _voucher(PAYER_KEY, channelId, DEPOSIT + 1),
            IPaymentChannelEscrow.AmountExceedsDeposit.selector
        );
        _settle(channelId, DEPOSIT);
        assertEq(_balance(address(escrow)), 1_000_000, "the gift stays where it is");
    }

    // ---- Signatures ----

    function test_attack_malleableVoucher() public {
        bytes32 channelId = _open();
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(PAYER_KEY, _typed(_domain(address(escrow)), _voucherHash(channelId, 1_000)));
        bytes memory high = abi.encodePacked(r, bytes32(ORDER - uint256(s)), uint8(55 - v));
        assertTrue(ORDER - uint256(s) > HALF_ORDER, "a high s");
        _refusesSettle(channelId, 1_000, high, IPaymentChannelEscrow.InvalidSignature.selector);
    }

    function test_attack_malleablePayeeAuthorization() public {
        bytes32 channelId = _open();
        bytes memory low = _closeAuthorization(PAYEE_KEY, channelId, 0, 1, block.timestamp);
        (bytes32 r, bytes32 s) = abi.decode(low, (bytes32, bytes32));
        bytes memory high = abi.encodePacked(r, bytes32(ORDER - uint256(s)), uint8(55 - uint8(low[64])));
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        escrow.closeWithAuthorization(channelId, 0, 1, block.timestamp, high, "");
    }

    /// `ecrecover` answers zero to junk. No signer may be taken for that, and no precompile for a signer.
    function test_attack_junkForZeroOrPrecompile() public {
        bytes32 channelId = _open(address(0));
        _refusesSettle(channelId, 1, new bytes(65), IPaymentChannelEscrow.InvalidSignature.selector);
        for (uint160 i = 1; i <= 10; ++i) {
            bytes32 odd = _open(address(i));
            _refusesSettle(odd, 1, new bytes(65), IPaymentChannelEscrow.InvalidSignature.selector);
            _refusesSettle(odd, 1, "", IPaymentChannelEscrow.InvalidSignature.selector);
        }
    }

    /// Signed by a wallet whose owner is changed before the payee settles: lost, as the draft warns. Nothing else is.
    function test_attack_walletChangesItsMind() public {
        Wallet wallet = new Wallet(delegate);
        bytes32 channelId = _open(address(wallet));
        bytes memory first = _voucher(DELEGATE_KEY, channelId, 1_000);
        bytes memory second = _voucher(DELEGATE_KEY, channelId, 2_000);
        vm.prank(payee);
        escrow.settle(channelId, 1_000, first);
        wallet.setOwner(stranger);
        _refusesSettle(channelId, 2_000, second, IPaymentChannelEscrow.InvalidSignature.selector);
        vm.prank(payee);
        escrow.close(channelId, 1_000, "");
        assertEq(_balance(payee), 1_000, "what was settled stays");
    }

    /// A payer's account that gets code after it signed (EIP-7702) cannot disown its key's vouchers.
    function test_attack_accountGetsCodeToDisownVouchers() public {
        bytes32 channelId = _open();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 1_000);
        Wallet naysayer = new Wallet(stranger);
        vm.etch(payer, address(naysayer).code);
        vm.prank(payee);
        escrow.settle(channelId, 1_000, voucher);
        assertEq(_balance(payee), 1_000, "balance of the payee");
    }

    /// A wallet that says yes to everything gives its own channel away, and nobody else's.
    function test_attack_walletThatSaysYes() public {
        Wallet wallet = new Wallet(delegate);
        wallet.setMood(Wallet.Mood.SaysYes);
        bytes32 theirs = _open(address(wallet));
        vm.prank(stranger);
        bytes32 ours = escrow.open(payee, address(usdc), DEPOSIT, SALT, address(0));
        vm.startPrank(payee);
        escrow.settle(theirs, DEPOSIT, "");
        vm.expectRevert(IPaymentChannelEscrow.InvalidSignature.selector);
        escrow.settle(ours, 1, "");
        vm.stopPrank();
        assertEq(_balance(address(escrow)), DEPOSIT, "ours is untouched");
    }

    // ---- Odd parties ----

    function test_attack_payeeIsPayer() public {
        uint256 before = _balance(payer);
        vm.prank(payer);
        bytes32 channelId = escrow.open(payer, address(usdc), DEPOSIT, SALT, address(0));
        vm.startPrank(payer);
        escrow.settle(channelId, 1_000, _voucher(PAYER_KEY, channelId, 1_000));
        escrow.requestClose(channelId);
        escrow.close(channelId, 2_000, _voucher(PAYER_KEY, channelId, 2_000));
        vm.stopPrank();
        assertEq(_balance(payer), before, "neither more nor less");
        assertEq(_balance(address(escrow)), 0, "and nothing is left");
    }

    function test_attack_payeeIsSigner() public {
        // Foolish, and the payer's own choice: the payee may write itself cheques, up to this deposit.
        bytes32 channelId = _open(payee);
        vm.prank(stranger);
        escrow.open(payee, address(usdc), DEPOSIT, SALT, address(0));
        bytes memory voucher = _voucher(PAYEE_KEY, channelId, DEPOSIT + 1);
        _refusesSettle(channelId, DEPOSIT + 1, voucher, IPaymentChannelEscrow.AmountExceedsDeposit.selector);
    }

    function test_attack_payeeIsTheEscrow() public {
        vm.prank(payer);
        bytes32 channelId = escrow.open(address(escrow), address(usdc), DEPOSIT, SALT, address(0));
        uint256 before = _balance(payer);
        _forceClosed(channelId);
        vm.prank(payer);
        escrow.withdraw(channelId);
        assertEq(_balance(payer), before + DEPOSIT, "the payer gets it back");
    }

    // ---- Tokens ----

    function _hookChannel(HookToken token, bytes32 salt) private returns (bytes32 channelId) {
        token.mint(payer, DEPOSIT);
        vm.startPrank(payer);
        token.approve(address(escrow), FOREVER);
        channelId = escrow.open(payee, address(token), DEPOSIT, salt, address(0));
        vm.stopPrank();
    }

    /// A token calls back in the middle of a payout, with what any stranger may call: a settlement, a close, a batch,
    /// an opening. Each is refused, and the books are as if nothing had been tried.
    function test_attack_reentrantToken() public {
        HookToken token = new HookToken();
        bytes32 one = _hookChannel(token, SALT);
        bytes32 two = _hookChannel(token, TOP_UP_SALT);
        bytes memory settles = _settleAuthorization(PAYEE_KEY, two, 900, 1, FOREVER);
        bytes memory closes = _closeAuthorization(PAYEE_KEY, two, 900, 2, FOREVER);
        bytes memory voucher = _voucher(PAYER_KEY, two, 900);
        IPaymentChannelEscrow.Claim[] memory claims = new IPaymentChannelEscrow.Claim[](0);
        bytes[6] memory calls = [
            abi.encodeCall(escrow.settleWithAuthorization, (two, 900, 1, FOREVER, settles, voucher)),
            abi.encodeCall(escrow.closeWithAuthorization, (two, 900, 2, FOREVER, closes, voucher)),
            abi.encodeCall(escrow.settleMany, (address(token), claims)),
            abi.encodeCall(escrow.open, (payee, address(token), 1, SALT, address(0))),
            abi.encodeCall(escrow.requestClose, (two)),
            abi.encodeCall(escrow.withdraw, (two))
        ];
        for (uint128 i; i < calls.length; ++i) {
            token.onTransfer(address(escrow), calls[i]);
            bytes memory next = _voucher(PAYER_KEY, one, i + 1);
            vm.prank(payee);
            escrow.settle(one, i + 1, next);
            assertEq(token.calls(), i + 1, "it called");
            assertTrue(!token.successes(i), "in vain");
            assertEq(
                bytes32(bytes4(token.answers(i))), bytes32(IPaymentChannelEscrow.Reentered.selector), "for this reason"
            );
        }
        assertEq(token.balanceOf(payee), calls.length, "one atom each");
        assertEq(escrow.getChannel(two).settled, 0, "the other channel is untouched");
        assertEq(token.balanceOf(address(escrow)), 2 * uint256(DEPOSIT) - calls.length, "balance of the escrow");
    }

    /// The guard opens again after each call, and a refused call leaves it open.
    function test_attack_guardStaysUsable() public {
        HookToken token = new HookToken();
        bytes32 channelId = _hookChannel(token, SALT);
        _refusesSettle(channelId, 0, "", IPaymentChannelEscrow.AmountNotIncreasing.selector);
        for (uint128 i = 1; i < 4; ++i) {
            bytes memory voucher = _voucher(PAYER_KEY, channelId, i);
            vm.prank(payee);
            escrow.settle(channelId, i, voucher);
        }
        assertEq(token.balanceOf(payee), 3, "three settlements");
        // Also within one transaction, as a payee's wallet would batch them.
        this.settleTwice(channelId);
        assertEq(token.balanceOf(payee), 5, "two more");
    }

    function settleTwice(bytes32 channelId) external {
        for (uint128 i = 4; i < 6; ++i) {
            bytes memory voucher = _voucher(PAYER_KEY, channelId, i);
            vm.prank(payee);
            escrow.settle(channelId, i, voucher);
        }
    }

    /// A token that opens a second channel inside the first one's deposit would have one deposit seen twice.
    function test_attack_depositCountedTwice() public {
        LyingToken token = new LyingToken();
        token.mint(payer, DEPOSIT);
        token.mint(address(token), DEPOSIT);
        vm.prank(payer);
        token.approve(address(escrow), FOREVER);
        vm.prank(address(token));
        token.approve(address(escrow), FOREVER);
        token.onTransfer(
            address(escrow), abi.encodeCall(escrow.open, (payee, address(token), DEPOSIT, SALT, address(0)))
        );
        vm.prank(payer);
        vm.expectRevert(IPaymentChannelEscrow.Reentered.selector);
        escrow.open(payee, address(token), DEPOSIT, SALT, address(0));
        assertEq(token.balanceOf(address(escrow)), 0, "nothing was taken");
    }

    /// A token that begins to take a fee when channels are open: no top-up is credited with more than came.
    function test_attack_feeBeginsLater() public {
        FeeToken token = new FeeToken();
        token.setFee(0);
        token.mint(payer, 2 * DEPOSIT);
        vm.startPrank(payer);
        token.approve(address(escrow), FOREVER);
        bytes32 channelId = escrow.open(payee, address(token), DEPOSIT, SALT, address(0));
        token.setFee(1);
        vm.expectRevert(IPaymentChannelEscrow.InexactDeposit.selector);
        escrow.topUp(channelId, DEPOSIT);
        vm.stopPrank();
        assertEq(escrow.getChannel(channelId).deposit, DEPOSIT, "deposit");
        assertEq(token.balanceOf(address(escrow)), DEPOSIT, "balance of the escrow");
    }

    // ---- USDC's blacklist ----

    function test_attack_blacklistedPayer() public {
        bytes32 channelId = _open();
        vm.prank(issuer);
        usdc.blacklist(payer);
        // The refund cannot be paid, so the channel cannot be closed; but the payee needs no close to get its money.
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 4_000);
        vm.prank(payee);
        vm.expectRevert(BLACKLISTED);
        escrow.close(channelId, 4_000, voucher);
        vm.prank(payee);
        escrow.settle(channelId, 4_000, voucher);
        assertEq(_balance(payee), 4_000, "balance of the payee");
        // And the payer's rest is kept for it.
        vm.prank(issuer);
        usdc.unBlacklist(payer);
        _forceClosed(channelId);
        uint256 before = _balance(payer);
        vm.prank(payer);
        escrow.withdraw(channelId);
        assertEq(_balance(payer), before + DEPOSIT - 4_000, "balance of the payer");
    }

    function test_attack_blacklistedPayee() public {
        bytes32 channelId = _open();
        _settle(channelId, 1_000);
        vm.prank(issuer);
        usdc.blacklist(payee);
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 4_000);
        vm.prank(payee);
        vm.expectRevert(BLACKLISTED);
        escrow.settle(channelId, 4_000, voucher);
        uint256 before = _balance(payer);
        // It may still let the payer go.
        uint256 fork = vm.snapshotState();
        vm.prank(payee);
        escrow.close(channelId, 0, "");
        assertEq(_balance(payer), before + DEPOSIT - 1_000, "by a close that asks for nothing");
        assertTrue(vm.revertToState(fork), "as before");
        // And if it doesn't, the payer goes by itself.
        _forceClosed(channelId);
        vm.prank(payer);
        escrow.withdraw(channelId);
        assertEq(_balance(payer), before + DEPOSIT - 1_000, "by a withdrawal");
    }

    function test_attack_pausedToken() public {
        bytes32 channelId = _open();
        vm.prank(issuer);
        usdc.pause();
        bytes memory voucher = _voucher(PAYER_KEY, channelId, 4_000);
        vm.prank(payee);
        vm.expectRevert(bytes.concat(bytes4(0x08c379a0), abi.encode("Pausable: paused")));
        escrow.settle(channelId, 4_000, voucher);
        assertEq(escrow.getChannel(channelId).settled, 0, "nothing was booked");
        vm.prank(issuer);
        usdc.unpause();
        vm.prank(payee);
        escrow.settle(channelId, 4_000, voucher);
        assertEq(_balance(payee), 4_000, "the same voucher is good afterwards");
    }
}
