// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../../src/IPaymentChannelEscrow.sol";
import {PlainToken} from "./Tokens.sol";
import {Wallet} from "./Wallets.sol";
import {IUsdc, World} from "./World.sol";

/// What the fuzzer drives: payers, payees and strangers who do what the escrow allows, and now and then what it must
/// refuse. Beside it stands a model: what each channel must look like, who has paid in what, who got what.
///
/// An action that must succeed is called plainly, so that a revert fails the run; one that must not is tried.
contract Handler is World {
    /// What a channel must look like, and what the escrow cannot know: what was signed for it.
    struct Model {
        IPaymentChannelEscrow.Channel channel;
        bytes32 salt;
        /// The key that signs vouchers.
        uint256 key;
        /// The highest voucher that was signed, also beyond the deposit.
        uint128 signed;
        /// What the payee has received out of this channel, and the payer after its end.
        uint256 paid;
        uint256 refunded;
    }

    uint256 private constant PAYERS = 3;
    uint256 private constant PAYEES = 2;
    uint256 private constant CHANNELS_MAX = 12;
    uint256 private constant FIRST_PAYER_KEY = 0xF00D00;
    uint256 private constant FIRST_PAYEE_KEY = 0xBEEF00;
    uint256 private constant FIRST_DELEGATE_KEY = 0xDE1E00;

    bytes32[] public ids;
    mapping(bytes32 => Model) private _models;
    address[2] public tokens;
    Wallet public wallet;
    mapping(address token => uint256) public donated;
    mapping(address token => mapping(address account => uint256)) private _expected;
    address[] private _accounts;
    uint256 public now_;
    uint256 public steps;
    uint256 private _nonces;
    /// Payees' authorizations that went through.
    bytes32[] private _usedOn;
    uint256[] private _usedNonces;

    /// How often each thing happened, so that a run that does nothing is noticed.
    mapping(string what => uint256) public count;

    constructor() {
        setUp();
        now_ = block.timestamp;
        PlainToken plain = new PlainToken();
        tokens = [address(usdc), address(plain)];
        // A payer whose vouchers are signed by a contract.
        wallet = new Wallet(vm.addr(FIRST_DELEGATE_KEY));
        for (uint256 i; i < PAYERS; ++i) _enlist(vm.addr(FIRST_PAYER_KEY + i));
        for (uint256 i; i < PAYEES; ++i) _enlist(vm.addr(FIRST_PAYEE_KEY + i));
        _enlist(stranger);
    }

    function _enlist(address account) private {
        _fund(account);
        PlainToken plain = PlainToken(tokens[1]);
        plain.mint(account, 1_000_000_000);
        vm.startPrank(account);
        plain.approve(address(escrow), FOREVER);
        plain.approve(PERMIT2, FOREVER);
        vm.stopPrank();
        _accounts.push(account);
        for (uint256 i; i < 2; ++i) _expected[tokens[i]][account] = PlainToken(tokens[i]).balanceOf(account);
    }

    // ---- What the invariants read ----

    function target() external view returns (IPaymentChannelEscrow) {
        return escrow;
    }

    function channels() external view returns (uint256) {
        return ids.length;
    }

    function model(bytes32 channelId) external view returns (Model memory) {
        return _models[channelId];
    }

    function accounts() external view returns (address[] memory) {
        return _accounts;
    }

    function used() external view returns (bytes32[] memory, uint256[] memory) {
        return (_usedOn, _usedNonces);
    }

    function expected(address token, address account) external view returns (uint256) {
        return _expected[token][account];
    }

    function voucherFor(bytes32 channelId, uint128 amount) external view returns (bytes memory) {
        return _voucher(_models[channelId].key, channelId, amount);
    }

    // ---- Choices ----

    /// Time stands where the run has brought it: each call of the fuzzer would else begin where the set-up ended.
    modifier inTime() {
        ++steps;
        vm.warp(now_);
        _;
    }

    function _payerKey(uint256 seed) private pure returns (uint256) {
        return FIRST_PAYER_KEY + seed % PAYERS;
    }

    function _payeeKey(address who) private pure returns (uint256) {
        for (uint256 i; i < PAYEES; ++i) if (vm.addr(FIRST_PAYEE_KEY + i) == who) return FIRST_PAYEE_KEY + i;
        revert Untrue("an unknown payee");
    }

    function _keyOf(address who) private pure returns (uint256) {
        for (uint256 i; i < PAYERS; ++i) if (vm.addr(FIRST_PAYER_KEY + i) == who) return FIRST_PAYER_KEY + i;
        revert Untrue("an unknown payer");
    }

    /// Half the time one that lives, if there is one: else most of a long run would be spent on finished channels.
    function _pick(uint256 seed) private view returns (bytes32) {
        if (ids.length == 0) return bytes32(0);
        for (uint256 i; i < 8; ++i) {
            bytes32 channelId = ids[(seed >> i) % ids.length];
            if (seed % 2 == 1 || !_models[channelId].channel.finalized) return channelId;
        }
        return ids[seed % ids.length];
    }

    /// One that is on its way to a withdrawal, if there is one.
    function _pickRequested(uint256 seed) private view returns (bytes32) {
        for (uint256 i; i < ids.length; ++i) {
            bytes32 channelId = ids[(seed % ids.length + i) % ids.length];
            IPaymentChannelEscrow.Channel storage channel = _models[channelId].channel;
            if (channel.closeRequestedAt != 0 && !channel.finalized) return channelId;
        }
        return _pick(seed);
    }

    // ---- Opening ----

    function open(uint256 seed, uint256 how, uint128 deposit) external inTime {
        if (ids.length >= CHANNELS_MAX) return;
        Model memory m;
        uint256 payerKey = _payerKey(seed);
        m.salt = bytes32(ids.length);
        m.channel.payer = vm.addr(payerKey);
        m.channel.payee = vm.addr(FIRST_PAYEE_KEY + (seed >> 8) % PAYEES);
        m.channel.token = tokens[(seed >> 16) % 2];
        m.channel.deposit = uint128(bound(deposit, 1, 1_000_000));
        (m.channel.authorizedSigner, m.key) = _signerFor(seed >> 24, payerKey);
        bytes32 channelId = _openBy(how, payerKey, m);
        assertEq(
            channelId,
            keccak256(
                abi.encode(
                    m.channel.payer,
                    m.channel.payee,
                    m.channel.token,
                    m.salt,
                    m.channel.authorizedSigner,
                    address(escrow),
                    block.chainid
                )
            ),
            "channel id"
        );
        assertEq(_models[channelId].channel.payer, address(0), "an id of its own");
        _models[channelId] = m;
        ids.push(channelId);
        _expected[m.channel.token][m.channel.payer] -= m.channel.deposit;
        ++count["open"];
    }

    function _signerFor(uint256 seed, uint256 payerKey) private view returns (address, uint256) {
        if (seed % 3 == 0) return (address(0), payerKey);
        if (seed % 3 == 1) return (vm.addr(FIRST_DELEGATE_KEY + 1), FIRST_DELEGATE_KEY + 1);
        return (address(wallet), FIRST_DELEGATE_KEY);
    }

    function _openBy(uint256 how, uint256 payerKey, Model memory m) private returns (bytes32) {
        IPaymentChannelEscrow.Channel memory c = m.channel;
        if (how % 3 == 1 && c.token == address(usdc)) {
            bytes32 nonce = _openNonce(c.payer, c.payee, c.token, m.salt, c.authorizedSigner);
            bytes memory authorization = _authorization(payerKey, c.deposit, nonce);
            return escrow.openWithAuthorization(
                c.payee, c.token, c.deposit, m.salt, c.authorizedSigner, c.payer, 0, FOREVER, nonce, authorization
            );
        }
        if (how % 3 == 2) {
            bytes memory permit = _openPermit(
                payerKey, c.token, c.deposit, ++_nonces, block.timestamp, c.payee, m.salt, c.authorizedSigner
            );
            return escrow.openWithPermit2(
                c.payee, c.token, c.deposit, m.salt, c.authorizedSigner, c.payer, _nonces, block.timestamp, permit
            );
        }
        vm.prank(c.payer);
        return escrow.open(c.payee, c.token, c.deposit, m.salt, c.authorizedSigner);
    }

    /// I3: no id opens twice, whether its channel lives or has ended.
    function reopen(uint256 seed) external inTime {
        bytes32 channelId = _pick(seed);
        if (channelId == 0) return;
        Model storage m = _models[channelId];
        IPaymentChannelEscrow.Channel memory c = m.channel;
        vm.prank(c.payer);
        try escrow.open(c.payee, c.token, 1, m.salt, c.authorizedSigner) {
            revert Untrue("an id was opened twice");
        } catch (bytes memory reason) {
            _refusedFor(reason, IPaymentChannelEscrow.ChannelAlreadyExists.selector);
        }
    }

    // ---- Topping up ----

    function topUp(uint256 seed, uint256 how, uint128 amount) external inTime {
        bytes32 channelId = _pick(seed);
        if (channelId == 0) return;
        Model storage m = _models[channelId];
        amount = uint128(bound(amount, 1, 10_000));
        bool byPayer = how % 2 == 0;
        uint256 key = byPayer ? _keyOf(m.channel.payer) : STRANGER_KEY;
        try this.topUpBy(channelId, how >> 1, key, amount) {
            assertTrue(!m.channel.finalized, "a finished channel took money");
        } catch (bytes memory reason) {
            assertTrue(m.channel.finalized, "a live channel refused money");
            return _refusedFor(reason, IPaymentChannelEscrow.ChannelFinalized.selector);
        }
        m.channel.deposit += amount;
        // I7: only the payer's own top-up takes its request back.
        if (vm.addr(key) == m.channel.payer) m.channel.closeRequestedAt = 0;
        _expected[m.channel.token][vm.addr(key)] -= amount;
        ++count["topUp"];
    }

    /// Called by itself only, so that a refusal can be caught.
    function topUpBy(bytes32 channelId, uint256 how, uint256 key, uint128 amount) external {
        assertTrue(msg.sender == address(this), "for itself only");
        Model storage m = _models[channelId];
        address from = vm.addr(key);
        if (how % 3 == 0 && from == m.channel.payer) {
            vm.prank(from);
            escrow.topUp(channelId, amount);
        } else if (how % 3 == 1 && m.channel.token == address(usdc)) {
            bytes32 salt = bytes32(++_nonces);
            bytes32 nonce = _topUpNonce(channelId, amount, from, salt);
            bytes memory authorization = _authorization(key, amount, nonce);
            escrow.topUpWithAuthorization(channelId, amount, from, salt, 0, FOREVER, nonce, authorization);
        } else {
            bytes memory permit = _topUpPermit(key, m.channel.token, amount, ++_nonces, block.timestamp, channelId);
            escrow.topUpWithPermit2(channelId, amount, from, _nonces, block.timestamp, permit);
        }
    }

    // ---- Vouchers and settlements ----

    /// The payer signs for more. Nothing happens on chain.
    function sign(uint256 seed, uint128 more) external inTime {
        bytes32 channelId = _pick(seed);
        if (channelId == 0) return;
        Model storage m = _models[channelId];
        // Now and then beyond the deposit.
        m.signed += uint128(bound(more, 1, m.channel.deposit / 4 + 1));
        ++count["sign"];
    }

    function settle(uint256 seed, uint256 how, uint128 amount) external inTime {
        bytes32 channelId = _pick(seed);
        if (channelId == 0) return;
        Model storage m = _models[channelId];
        // Any voucher up to the highest that was signed, mostly one that is news; sometimes one that wasn't signed.
        bool forged = how % 8 == 0;
        uint256 least = how % 4 == 1 || m.signed <= m.channel.settled ? 0 : uint256(m.channel.settled) + 1;
        amount = uint128(bound(amount, least, uint256(m.signed) + 1));
        if (amount > m.signed) forged = true;
        bytes memory voucher = _voucher(forged ? STRANGER_KEY : m.key, channelId, amount);
        bytes4 refusal = _refusal(m, amount, forged);
        bool relayed = (how >> 8) % 2 == 0;
        (bool done, bytes memory reason) = relayed
            ? _relaySettlement(channelId, m, amount, voucher)
            : _call(m.channel.payee, abi.encodeCall(escrow.settle, (channelId, amount, voucher)));
        if (refusal != 0) {
            assertTrue(!done, "a settlement that had to be refused");
            return _refusedFor(reason, refusal);
        }
        assertTrue(done, "I4: the payee could not settle a signed voucher");
        if (relayed) _used(channelId);
        _pay(m, amount);
        ++count["settle"];
    }

    function _relaySettlement(bytes32 channelId, Model storage m, uint128 amount, bytes memory voucher)
        private
        returns (bool, bytes memory)
    {
        uint256 nonce = ++_nonces;
        bytes memory consent =
            _settleAuthorization(_payeeKey(m.channel.payee), channelId, amount, nonce, block.timestamp);
        return _call(
            relayer,
            abi.encodeCall(
                escrow.settleWithAuthorization, (channelId, amount, nonce, block.timestamp, consent, voucher)
            )
        );
    }

    /// Every channel of one payee in one token, each with its highest voucher: what can be paid is.
    function settleMany(uint256 seed) external inTime {
        if (ids.length == 0) return;
        address collecting = vm.addr(FIRST_PAYEE_KEY + seed % PAYEES);
        address token = tokens[(seed >> 8) % 2];
        IPaymentChannelEscrow.Claim[] memory claims = new IPaymentChannelEscrow.Claim[](ids.length);
        uint256 due;
        for (uint256 i; i < ids.length; ++i) {
            Model storage m = _models[ids[i]];
            claims[i] = IPaymentChannelEscrow.Claim(ids[i], m.signed, _voucher(m.key, ids[i], m.signed));
            if (m.channel.payee != collecting || m.channel.token != token) continue;
            if (_refusal(m, m.signed, false) == 0) due += m.signed - m.channel.settled;
        }
        (bool done, bytes memory answer) =
            _call(collecting, abi.encodeCall(escrow.settleMany, (token, claims)));
        if (due == 0) {
            assertTrue(!done, "a batch of nothing");
            return _refusedFor(answer, IPaymentChannelEscrow.NothingToSettle.selector);
        }
        assertTrue(done && abi.decode(answer, (uint256)) == due, "a batch pays what is due");
        for (uint256 i; i < ids.length; ++i) {
            Model storage m = _models[ids[i]];
            if (m.channel.payee != collecting || m.channel.token != token) continue;
            if (_refusal(m, m.signed, false) == 0) _pay(m, m.signed);
        }
        ++count["settleMany"];
    }

    // ---- The end of a channel ----

    function close(uint256 seed, uint256 how, uint128 amount) external inTime {
        // Not too often, or nothing lives long.
        if (how % 3 != 0) return;
        bytes32 channelId = _pick(seed);
        if (channelId == 0) return;
        Model storage m = _models[channelId];
        amount = uint128(bound(amount, 0, m.signed));
        bytes memory voucher = _voucher(m.key, channelId, amount);
        bool relayed = (how >> 8) % 2 == 0;
        (bool done, bytes memory reason) = relayed
            ? _relayClose(channelId, m, amount, voucher)
            : _call(m.channel.payee, abi.encodeCall(escrow.close, (channelId, amount, voucher)));
        bytes4 refusal = _refusal(m, amount, false);
        // An amount that was settled already is no mistake here: the payee forfeits the rest.
        if (refusal == IPaymentChannelEscrow.AmountNotIncreasing.selector) refusal = 0;
        if (refusal != 0) {
            assertTrue(!done, "a close that had to be refused");
            return _refusedFor(reason, refusal);
        }
        assertTrue(done, "I4: the payee could not close with a signed voucher");
        if (relayed) _used(channelId);
        if (amount > m.channel.settled) _pay(m, amount);
        _finish(m);
        ++count["close"];
    }

    function _relayClose(bytes32 channelId, Model storage m, uint128 amount, bytes memory voucher)
        private
        returns (bool, bytes memory)
    {
        uint256 nonce = ++_nonces;
        bytes memory consent =
            _closeAuthorization(_payeeKey(m.channel.payee), channelId, amount, nonce, block.timestamp);
        return _call(
            relayer,
            abi.encodeCall(
                escrow.closeWithAuthorization, (channelId, amount, nonce, block.timestamp, consent, voucher)
            )
        );
    }

    function requestClose(uint256 seed) external inTime {
        bytes32 channelId = _pick(seed);
        if (channelId == 0) return;
        Model storage m = _models[channelId];
        (bool done, bytes memory reason) =
            _call(m.channel.payer, abi.encodeCall(escrow.requestClose, (channelId)));
        assertTrue(done == !m.channel.finalized, "a request is possible while the channel lives");
        if (!done) return _refusedFor(reason, IPaymentChannelEscrow.ChannelFinalized.selector);
        if (m.channel.closeRequestedAt == 0) m.channel.closeRequestedAt = uint64(block.timestamp);
        ++count["requestClose"];
    }

    function withdraw(uint256 seed) external inTime {
        bytes32 channelId = seed % 4 == 0 ? _pick(seed) : _pickRequested(seed);
        if (channelId == 0) return;
        Model storage m = _models[channelId];
        (bool done, bytes memory reason) = _call(m.channel.payer, abi.encodeCall(escrow.withdraw, (channelId)));
        if (m.channel.finalized) {
            assertTrue(!done, "a second payout");
            return _refusedFor(reason, IPaymentChannelEscrow.ChannelFinalized.selector);
        }
        uint256 requestedAt = m.channel.closeRequestedAt;
        bool ready = requestedAt != 0 && block.timestamp >= requestedAt + GRACE;
        assertTrue(done == ready, "I4, I5: a withdrawal after the grace period, and not before");
        if (!done) return _refusedFor(reason, IPaymentChannelEscrow.CloseNotReady.selector);
        _finish(m);
        ++count["withdraw"];
    }

    // ---- Strangers, time, gifts ----

    /// Whoever is neither payer nor payee gets nothing done, whatever it calls.
    function meddle(uint256 seed, uint256 what, uint128 amount) external inTime {
        bytes32 channelId = _pick(seed);
        if (channelId == 0) return;
        bytes memory voucher = _voucher(_models[channelId].key, channelId, amount);
        bytes memory consent = _closeAuthorization(STRANGER_KEY, channelId, amount, 1 << 200, block.timestamp);
        bytes[7] memory calls = [
            abi.encodeCall(escrow.settle, (channelId, amount, voucher)),
            abi.encodeCall(escrow.close, (channelId, amount, voucher)),
            abi.encodeCall(escrow.requestClose, (channelId)),
            abi.encodeCall(escrow.withdraw, (channelId)),
            abi.encodeCall(escrow.topUp, (channelId, 1)),
            abi.encodeCall(
                escrow.settleWithAuthorization, (channelId, amount, 1 << 200, block.timestamp, consent, voucher)
            ),
            abi.encodeCall(
                escrow.closeWithAuthorization, (channelId, amount, 1 << 200, block.timestamp, consent, voucher)
            )
        ];
        (bool done,) = _call(stranger, calls[what % calls.length]);
        assertTrue(!done, "a stranger was obeyed");
        ++count["meddle"];
    }

    function donate(uint256 seed, uint128 amount) external inTime {
        address token = tokens[seed % 2];
        amount = uint128(bound(amount, 1, 1_000));
        vm.prank(stranger);
        PlainToken(token).transfer(address(escrow), amount);
        donated[token] += amount;
        _expected[token][stranger] -= amount;
    }

    function wait_(uint256 seconds_) external {
        now_ += bound(seconds_, 1, 600);
        vm.warp(now_);
    }

    /// To the second: the edge of some channel's grace period.
    function waitToTheEdge(uint256 seed, bool justBefore) external {
        if (ids.length == 0) return;
        uint64 requestedAt = _models[_pickRequested(seed)].channel.closeRequestedAt;
        uint256 edge = uint256(requestedAt) + GRACE - (justBefore ? 1 : 0);
        if (requestedAt == 0 || edge <= now_) return;
        now_ = edge;
        vm.warp(now_);
    }

    // ---- The model ----

    function _refusal(Model storage m, uint128 amount, bool forged) private view returns (bytes4) {
        if (m.channel.finalized) return IPaymentChannelEscrow.ChannelFinalized.selector;
        if (amount <= m.channel.settled) return IPaymentChannelEscrow.AmountNotIncreasing.selector;
        if (amount > m.channel.deposit) return IPaymentChannelEscrow.AmountExceedsDeposit.selector;
        return forged ? IPaymentChannelEscrow.InvalidSignature.selector : bytes4(0);
    }

    function _pay(Model storage m, uint128 cumulative) private {
        uint256 delta = cumulative - m.channel.settled;
        m.channel.settled = cumulative;
        m.paid += delta;
        _expected[m.channel.token][m.channel.payee] += delta;
    }

    /// The last nonce that was drawn went through.
    function _used(bytes32 channelId) private {
        _usedOn.push(channelId);
        _usedNonces.push(_nonces);
    }

    function _finish(Model storage m) private {
        m.channel.finalized = true;
        m.refunded = m.channel.deposit - m.channel.settled;
        _expected[m.channel.token][m.channel.payer] += m.refunded;
    }

    function _call(address who, bytes memory data) private returns (bool, bytes memory) {
        vm.prank(who);
        return address(escrow).call(data);
    }

    function _refusedFor(bytes memory reason, bytes4 wanted) private {
        assertEq(bytes32(bytes4(reason)), bytes32(wanted), "the reason of a refusal");
        ++count["refused"];
    }
}
