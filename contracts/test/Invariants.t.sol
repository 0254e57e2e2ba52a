// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {Handler} from "./support/Handler.sol";
import {Test} from "./support/Test.sol";
import {PlainToken} from "./support/Tokens.sol";

/// The numbered laws of spec/INVARIANTS.md, after each step of random sequences of everybody's actions.
contract InvariantsTest is Test {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Handler private _handler;
    IPaymentChannelEscrow private _escrow;

    function setUp() public {
        _handler = new Handler();
        _escrow = _handler.target();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// Only the actions; weight by repetition.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory selectors = new bytes4[](16);
        selectors[0] = Handler.open.selector;
        selectors[1] = Handler.withdraw.selector;
        selectors[2] = Handler.sign.selector;
        selectors[3] = Handler.sign.selector;
        selectors[4] = Handler.settle.selector;
        selectors[5] = Handler.settle.selector;
        selectors[6] = Handler.topUp.selector;
        selectors[7] = Handler.settleMany.selector;
        selectors[8] = Handler.close.selector;
        selectors[9] = Handler.requestClose.selector;
        selectors[10] = Handler.withdraw.selector;
        selectors[11] = Handler.waitToTheEdge.selector;
        selectors[12] = Handler.wait_.selector;
        selectors[13] = Handler.meddle.selector;
        selectors[14] = Handler.reopen.selector;
        selectors[15] = Handler.donate.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), selectors);
    }

    /// I1, I2, I3, I6, I7, I8, I9 after each step; one function, because each would have runs of its own.
    function invariant_theBooksAgree() public view {
        _channelsAgree();
        _balancesAgree();
        _noncesStayUsed();
    }

    function _channelsAgree() private view {
        uint256[2] memory owed;
        address[2] memory tokens = [_handler.tokens(0), _handler.tokens(1)];
        uint256 channels = _handler.channels();
        for (uint256 i; i < channels; ++i) {
            bytes32 channelId = _handler.ids(i);
            Handler.Model memory m = _handler.model(channelId);
            IPaymentChannelEscrow.Channel memory channel = _escrow.getChannel(channelId);
            // I3, I7, I8, I9: to the bit what the model says, so nobody's action changed another's channel.
            assertEq(keccak256(abi.encode(channel)), keccak256(abi.encode(m.channel)), "I9: a channel is as modelled");
            assertTrue(channel.settled <= m.signed, "I2: settled is at most what was signed");
            assertTrue(channel.settled <= channel.deposit, "I2: settled is at most the deposit");
            assertEq(m.paid, channel.settled, "I6: the payee got what was settled");
            uint256 rest = channel.deposit - channel.settled;
            assertEq(m.refunded, channel.finalized ? rest : 0, "I5, I6: the payer got the rest, once");
            if (!channel.finalized) owed[channel.token == tokens[0] ? 0 : 1] += rest;
        }
        for (uint256 t; t < 2; ++t) {
            uint256 held = PlainToken(tokens[t]).balanceOf(address(_escrow));
            assertEq(held, owed[t] + _handler.donated(tokens[t]), "I1: the escrow holds what it owes");
        }
    }

    /// I6 from the other side: everybody has what the model says.
    /// I8, of what payees authorize.
    function _noncesStayUsed() private view {
        (bytes32[] memory channelIds, uint256[] memory nonces) = _handler.used();
        for (uint256 i; i < nonces.length; ++i) {
            address payee = _handler.model(channelIds[i]).channel.payee;
            assertTrue(_escrow.isNonceUsed(payee, channelIds[i], nonces[i]), "I8: a nonce stays used");
        }
    }

    function _balancesAgree() private view {
        address[] memory accounts = _handler.accounts();
        for (uint256 t; t < 2; ++t) {
            PlainToken token = PlainToken(_handler.tokens(t));
            for (uint256 i; i < accounts.length; ++i) {
                assertEq(
                    token.balanceOf(accounts[i]), _handler.expected(address(token), accounts[i]), "I6: a balance"
                );
            }
        }
    }

    /// I4 and I5 at the end of each run: every payer asks for its money; one second before the grace period ends every
    /// payee still collects its highest good voucher; then every payer withdraws, and nothing but gifts remains.
    function afterInvariant() external {
        // A whole run in which nothing happened would prove nothing. Short ones are counterexamples, shown again.
        uint256 paid = _handler.count("settle") + _handler.count("settleMany") + _handler.count("close");
        bool busy = _handler.count("open") != 0 && paid != 0 && _handler.count("refused") != 0;
        assertTrue(busy || _handler.steps() < 128, "an idle run");
        uint256 channels = _handler.channels();
        vm.warp(_handler.now_());
        for (uint256 i; i < channels; ++i) {
            bytes32 channelId = _handler.ids(i);
            IPaymentChannelEscrow.Channel memory channel = _escrow.getChannel(channelId);
            if (channel.finalized) continue;
            vm.prank(channel.payer);
            _escrow.requestClose(channelId);
        }
        vm.warp(_handler.now_() + 15 minutes - 1);
        for (uint256 i; i < channels; ++i) {
            bytes32 channelId = _handler.ids(i);
            Handler.Model memory m = _handler.model(channelId);
            uint128 good = m.signed < m.channel.deposit ? m.signed : m.channel.deposit;
            if (m.channel.finalized || good <= m.channel.settled) continue;
            uint256 before = PlainToken(m.channel.token).balanceOf(m.channel.payee);
            bytes memory voucher = _handler.voucherFor(channelId, good);
            vm.prank(m.channel.payee);
            _escrow.settle(channelId, good, voucher);
            assertEq(
                PlainToken(m.channel.token).balanceOf(m.channel.payee),
                before + good - m.channel.settled,
                "I4: a payee collects until the last second"
            );
        }
        vm.warp(_handler.now_() + 15 minutes);
        for (uint256 i; i < channels; ++i) {
            bytes32 channelId = _handler.ids(i);
            IPaymentChannelEscrow.Channel memory channel = _escrow.getChannel(channelId);
            if (channel.finalized) continue;
            uint256 before = PlainToken(channel.token).balanceOf(channel.payer);
            vm.prank(channel.payer);
            _escrow.withdraw(channelId);
            assertEq(
                PlainToken(channel.token).balanceOf(channel.payer),
                before + channel.deposit - channel.settled,
                "I5: the payer gets everything else"
            );
        }
        for (uint256 t; t < 2; ++t) {
            address token = _handler.tokens(t);
            assertEq(
                PlainToken(token).balanceOf(address(_escrow)), _handler.donated(token), "I1: nothing but gifts is left"
            );
        }
    }
}
