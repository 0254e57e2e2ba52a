// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "./IPaymentChannelEscrow.sol";
import {ISignatureTransfer} from "./Permit2SignatureTransfer.sol";
import {IERC1271} from "./SignatureCheck.sol";

interface IERC20Escrowed {
    function balanceOf(address account) external view returns (uint256);
    function transfer(address to, uint256 value) external returns (bool);
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

interface IERC3009 {
    /// The overload of USDC v2.2, with the signature in one piece ("openWithAuthorization").
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}

/// @title The escrow of `evm` payment sessions. See the interface for what each function does.
/// @dev Every function that writes is guarded against reentrance and besides commits its effects before it calls a
/// token, as "Reentrancy" asks. No constructor and no immutables: the runtime code is the same on every chain, so that
/// one hash names it.
contract PaymentChannelEscrow is IPaymentChannelEscrow {
    /// How a channel is stored: five words, of which the fourth is written only for a delegated signer.
    struct Record {
        address payer;
        uint64 closeRequestedAt;
        bool finalized;
        bool delegated;
        address payee;
        address token;
        address authorizedSigner;
        uint128 deposit;
        uint128 settled;
    }

    /// Who a deposit is for: the inputs of the channel's id that aren't the contract and the chain.
    struct Key {
        address payer;
        address payee;
        address token;
        bytes32 salt;
        address authorizedSigner;
    }

    /// "Forced Close": 15 minutes is the reference value, 10 the least.
    uint64 public constant CLOSE_GRACE_PERIOD = 15 minutes;
    /// The canonical deployment. On a chain that has it elsewhere the two functions with Permit2 revert.
    address public constant PERMIT2 = 0x000000000022D473030F116dDEE9F6B43aC78BA3;

    bytes32 public constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 cumulativeAmount)");
    bytes32 public constant SETTLE_AUTHORIZATION_TYPEHASH =
        keccak256("SettleAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)");
    bytes32 public constant CLOSE_AUTHORIZATION_TYPEHASH =
        keccak256("CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)");
    bytes32 public constant CHANNEL_OPEN_WITNESS_TYPEHASH =
        keccak256("ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)");
    bytes32 public constant CHANNEL_TOP_UP_WITNESS_TYPEHASH = keccak256("ChannelTopUpWitness(bytes32 channelId)");

    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant DOMAIN_NAME_HASH = keccak256("EVM Payment Channel");
    bytes32 private constant DOMAIN_VERSION_HASH = keccak256("1");

    /// Permit2 wants what follows its own part of the type: the witness, then the referenced types by name.
    string private constant OPEN_WITNESS_TYPE =
        "ChannelOpenWitness witness)ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)TokenPermissions(address token,uint256 amount)";
    string private constant TOP_UP_WITNESS_TYPE =
        "ChannelTopUpWitness witness)ChannelTopUpWitness(bytes32 channelId)TokenPermissions(address token,uint256 amount)";

    /// "Signature Verification", 1: a larger `s` is refused, so that one voucher has one signature.
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 private constant SIGNATURE_BYTES = 65;

    // INVARIANT: a record is never deleted, and `finalized` never cleared ("Channel Re-Use / Cross-Epoch Replay").
    mapping(bytes32 channelId => Record) private _records;
    /// "Payee-initiated functions", 3: one used-set for settlements and closes; a bit per nonce.
    mapping(address payee => mapping(bytes32 channelId => mapping(uint256 word => uint256 bits))) private _usedNonces;

    bool private transient _entered;

    modifier once() {
        if (_entered) revert Reentered();
        _entered = true;
        _;
        _entered = false;
    }

    // ---- Opening ----

    function open(address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner)
        external
        once
        returns (bytes32 channelId)
    {
        Key memory key = Key(msg.sender, payee, token, salt, authorizedSigner);
        channelId = _create(key, deposit);
        uint256 before = _held(token);
        _pull(token, msg.sender, deposit);
        _requireArrived(token, before, deposit);
    }

    function openWithAuthorization(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        address from,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external once returns (bytes32 channelId) {
        Key memory key = Key(from, payee, token, salt, authorizedSigner);
        // Check: "Front-Running Protection". The signature covers the nonce, and so everything that the nonce covers.
        if (nonce != keccak256(abi.encode(from, payee, token, salt, authorizedSigner))) revert NonceMismatch();
        channelId = _create(key, deposit);
        _receive(token, from, deposit, validAfter, validBefore, nonce, signature);
    }

    function openWithPermit2(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        address from,
        uint256 nonce,
        uint256 deadline,
        bytes calldata signature
    ) external once returns (bytes32 channelId) {
        Key memory key = Key(from, payee, token, salt, authorizedSigner);
        channelId = _create(key, deposit);
        // "openWithPermit2": the witness is made of our arguments, never taken from the caller.
        bytes32 witness = keccak256(abi.encode(CHANNEL_OPEN_WITNESS_TYPEHASH, payee, salt, authorizedSigner));
        _permit(_permitOf(token, deposit, nonce, deadline), from, witness, OPEN_WITNESS_TYPE, signature);
    }

    // ---- Adding to a deposit ----

    function topUp(bytes32 channelId, uint128 additionalDeposit) external once {
        Record storage channel = _live(channelId);
        // Check: "topUp", payer only.
        if (msg.sender != channel.payer) revert NotPayer();
        address token = _add(channelId, channel, additionalDeposit, msg.sender);
        uint256 before = _held(token);
        _pull(token, msg.sender, additionalDeposit);
        _requireArrived(token, before, additionalDeposit);
    }

    function topUpWithAuthorization(
        bytes32 channelId,
        uint128 additionalDeposit,
        address from,
        bytes32 topUpSalt,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external once {
        // Check: "Front-Running Protection", the second formula.
        if (nonce != keccak256(abi.encode(channelId, additionalDeposit, from, topUpSalt))) revert NonceMismatch();
        address token = _add(channelId, _live(channelId), additionalDeposit, from);
        _receive(token, from, additionalDeposit, validAfter, validBefore, nonce, signature);
    }

    function topUpWithPermit2(
        bytes32 channelId,
        uint128 additionalDeposit,
        address from,
        uint256 nonce,
        uint256 deadline,
        bytes calldata signature
    ) external once {
        // "topUpWithPermit2": the token is the channel's own.
        address token = _add(channelId, _live(channelId), additionalDeposit, from);
        bytes32 witness = keccak256(abi.encode(CHANNEL_TOP_UP_WITNESS_TYPEHASH, channelId));
        _permit(_permitOf(token, additionalDeposit, nonce, deadline), from, witness, TOP_UP_WITNESS_TYPE, signature);
    }

    // ---- Paying the payee ----

    function settle(bytes32 channelId, uint128 cumulativeAmount, bytes calldata signature) external once {
        Record storage channel = _live(channelId);
        // Check: "settle", payee only.
        if (msg.sender != channel.payee) revert NotPayee();
        _refuse(_voucherRefusal(channelId, channel, cumulativeAmount, signature));
        address token = channel.token;
        uint128 delta = _capture(channelId, channel, cumulativeAmount);
        _push(token, msg.sender, delta);
    }

    function settleWithAuthorization(
        bytes32 channelId,
        uint128 cumulativeAmount,
        uint256 nonce,
        uint256 deadline,
        bytes calldata payeeSignature,
        bytes calldata voucherSignature
    ) external once {
        Record storage channel = _live(channelId);
        address payee = channel.payee;
        bytes32 digest = getSettleAuthorizationDigest(channelId, cumulativeAmount, nonce, deadline);
        _authorize(payee, channelId, nonce, deadline, digest, payeeSignature);
        _refuse(_voucherRefusal(channelId, channel, cumulativeAmount, voucherSignature));
        uint128 delta = _capture(channelId, channel, cumulativeAmount);
        _push(channel.token, payee, delta);
    }

    function settleMany(address token, Claim[] calldata claims) external once returns (uint256 paid) {
        for (uint256 i; i < claims.length; ++i) {
            Claim calldata claim = claims[i];
            Record storage channel = _records[claim.channelId];
            bytes4 reason = _claimRefusal(token, channel, claim);
            if (reason == 0) paid += _capture(claim.channelId, channel, claim.cumulativeAmount);
            else emit SettlementSkipped(claim.channelId, reason);
        }
        // A batch that pays nothing is a mistake; a revert shows it before it is sent.
        if (paid == 0) revert NothingToSettle();
        _push(token, msg.sender, paid);
    }

    // ---- Ending a channel ----

    function close(bytes32 channelId, uint128 cumulativeAmount, bytes calldata signature) external once {
        Record storage channel = _live(channelId);
        // Check: "close", payee only.
        if (msg.sender != channel.payee) revert NotPayee();
        _close(channelId, channel, cumulativeAmount, signature);
    }

    function closeWithAuthorization(
        bytes32 channelId,
        uint128 cumulativeAmount,
        uint256 nonce,
        uint256 deadline,
        bytes calldata payeeSignature,
        bytes calldata voucherSignature
    ) external once {
        Record storage channel = _live(channelId);
        bytes32 digest = getCloseAuthorizationDigest(channelId, cumulativeAmount, nonce, deadline);
        _authorize(channel.payee, channelId, nonce, deadline, digest, payeeSignature);
        _close(channelId, channel, cumulativeAmount, voucherSignature);
    }

    function requestClose(bytes32 channelId) external once {
        Record storage channel = _live(channelId);
        // Check: "requestClose", payer only.
        if (msg.sender != channel.payer) revert NotPayer();
        // A second request doesn't start the time anew: it would only keep the payer's own money from it.
        if (channel.closeRequestedAt != 0) return;
        channel.closeRequestedAt = uint64(block.timestamp);
        emit CloseRequested(channelId, msg.sender, channel.payee, block.timestamp + CLOSE_GRACE_PERIOD);
    }

    function withdraw(bytes32 channelId) external once {
        Record storage channel = _live(channelId);
        // Checks: "withdraw", all four; `_live` made that for finalized channels.
        if (msg.sender != channel.payer) revert NotPayer();
        uint256 requestedAt = channel.closeRequestedAt;
        if (requestedAt == 0 || block.timestamp < requestedAt + CLOSE_GRACE_PERIOD) revert CloseNotReady();
        // Effect.
        channel.finalized = true;
        (uint128 deposit, uint128 settled) = (channel.deposit, channel.settled);
        uint128 refund = deposit - settled;
        emit ChannelClosed(channelId, msg.sender, channel.payee, settled, refund);
        // Interaction. Nothing is paid to the payee here, so no payee can stand in the way.
        if (refund != 0) _push(channel.token, msg.sender, refund);
    }

    // ---- Views ----

    function getChannel(bytes32 channelId) public view returns (Channel memory) {
        Record storage channel = _records[channelId];
        return Channel({
            payer: channel.payer,
            payee: channel.payee,
            token: channel.token,
            authorizedSigner: channel.authorizedSigner,
            deposit: channel.deposit,
            settled: channel.settled,
            closeRequestedAt: channel.closeRequestedAt,
            finalized: channel.finalized
        });
    }

    function getChannelsBatch(bytes32[] calldata channelIds) external view returns (Channel[] memory channels) {
        channels = new Channel[](channelIds.length);
        for (uint256 i; i < channelIds.length; ++i) channels[i] = getChannel(channelIds[i]);
    }

    function isNonceUsed(address payee, bytes32 channelId, uint256 nonce) external view returns (bool) {
        return _usedNonces[payee][channelId][nonce >> 8] & (1 << (nonce & 0xff)) != 0;
    }

    function computeChannelId(address payer, address payee, address token, bytes32 salt, address authorizedSigner)
        external
        view
        returns (bytes32)
    {
        return _idOf(Key(payer, payee, token, salt, authorizedSigner));
    }

    /// "Domain Separator": made anew each time, so that a chain that splits has two.
    function domainSeparator() public view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN_TYPEHASH, DOMAIN_NAME_HASH, DOMAIN_VERSION_HASH, block.chainid, address(this))
        );
    }

    function getVoucherDigest(bytes32 channelId, uint128 cumulativeAmount) public view returns (bytes32) {
        return _digest(keccak256(abi.encode(VOUCHER_TYPEHASH, channelId, cumulativeAmount)));
    }

    function getSettleAuthorizationDigest(bytes32 channelId, uint128 cumulativeAmount, uint256 nonce, uint256 deadline)
        public
        view
        returns (bytes32)
    {
        return _digest(
            keccak256(abi.encode(SETTLE_AUTHORIZATION_TYPEHASH, channelId, cumulativeAmount, nonce, deadline))
        );
    }

    function getCloseAuthorizationDigest(bytes32 channelId, uint128 cumulativeAmount, uint256 nonce, uint256 deadline)
        public
        view
        returns (bytes32)
    {
        return
            _digest(keccak256(abi.encode(CLOSE_AUTHORIZATION_TYPEHASH, channelId, cumulativeAmount, nonce, deadline)));
    }

    // ---- Channels ----

    /// Writes a new channel, before its deposit is taken: without the deposit all of it reverts.
    function _create(Key memory key, uint128 deposit) private returns (bytes32 channelId) {
        // Checks: "Contract Errors" for `open*`.
        if (deposit == 0) revert ZeroDeposit();
        if (key.payee == address(0)) revert InvalidPayee();
        if (key.payer == address(0)) revert InvalidPayer();
        channelId = _idOf(key);
        Record storage channel = _records[channelId];
        // Check: "open". A finalized record stays, so an id that was ever used is refused for good.
        if (channel.payer != address(0)) revert ChannelAlreadyExists();
        // Effect.
        bool delegated = key.authorizedSigner != address(0);
        (channel.payer, channel.delegated) = (key.payer, delegated);
        channel.payee = key.payee;
        channel.token = key.token;
        if (delegated) channel.authorizedSigner = key.authorizedSigner;
        channel.deposit = deposit;
        emit ChannelOpened(channelId, key.payer, key.payee, key.token, key.authorizedSigner, key.salt, deposit);
    }

    /// Adds to the deposit, before it is taken.
    function _add(bytes32 channelId, Record storage channel, uint128 amount, address from)
        private
        returns (address token)
    {
        // Checks: "Contract Errors" for `topUp*`.
        if (amount == 0) revert ZeroDeposit();
        uint128 deposit = channel.deposit;
        if (amount > type(uint128).max - deposit) revert DepositOverflow();
        // Effect.
        deposit += amount;
        channel.deposit = deposit;
        (address payer, address payee) = (channel.payer, channel.payee);
        // "topUp": a pending close is taken back. "Payer-funded functions": what a third party pays in can only add
        // funds. So only the payer's own money or signature takes back the payer's request; else a payee could hold
        // a deposit for ever, with one atom for each grace period.
        if (from == payer && channel.closeRequestedAt != 0) {
            channel.closeRequestedAt = 0;
            emit CloseRequestCancelled(channelId, payer, payee);
        }
        emit TopUp(channelId, payer, payee, amount, deposit);
        return channel.token;
    }

    /// Books a voucher that was checked, and returns what it adds.
    function _capture(bytes32 channelId, Record storage channel, uint128 cumulativeAmount)
        private
        returns (uint128 delta)
    {
        delta = cumulativeAmount - channel.settled;
        channel.settled = cumulativeAmount;
        emit Settled(channelId, channel.payer, channel.payee, cumulativeAmount, delta, cumulativeAmount);
    }

    function _close(bytes32 channelId, Record storage channel, uint128 cumulativeAmount, bytes calldata signature)
        private
    {
        (uint128 deposit, uint128 settled) = (channel.deposit, channel.settled);
        uint128 delta;
        // "close": an amount that was settled already asks for nothing, so it needs no voucher.
        if (cumulativeAmount > settled) {
            _refuse(_voucherRefusal(channelId, channel, cumulativeAmount, signature));
            delta = cumulativeAmount - settled;
            settled = cumulativeAmount;
            channel.settled = settled;
        }
        // Effect.
        channel.finalized = true;
        uint128 refund = deposit - settled;
        (address payer, address payee, address token) = (channel.payer, channel.payee, channel.token);
        emit ChannelClosed(channelId, payer, payee, settled, refund);
        // Interactions: "Escrow Guarantees", both or none. A payee whose payer cannot be paid uses `settle`.
        if (delta != 0) _push(token, payee, delta);
        if (refund != 0) _push(token, payer, refund);
    }

    function _live(bytes32 channelId) private view returns (Record storage channel) {
        channel = _records[channelId];
        if (channel.payer == address(0)) revert ChannelNotFound();
        if (channel.finalized) revert ChannelFinalized();
    }

    function _idOf(Key memory key) private view returns (bytes32) {
        // "Channel State": bound to this contract and this chain.
        return keccak256(
            abi.encode(
                key.payer, key.payee, key.token, key.salt, key.authorizedSigner, address(this), block.chainid
            )
        );
    }

    // ---- Signatures ----

    /// Returns the selector of what is wrong with a row of a batch, or zero.
    function _claimRefusal(address token, Record storage channel, Claim calldata claim) private view returns (bytes4) {
        if (channel.payer == address(0)) return ChannelNotFound.selector;
        if (channel.finalized) return ChannelFinalized.selector;
        if (msg.sender != channel.payee) return NotPayee.selector;
        if (token != channel.token) return TokenMismatch.selector;
        return _voucherRefusal(claim.channelId, channel, claim.cumulativeAmount, claim.signature);
    }

    /// Returns the selector of what is wrong with a voucher, or zero.
    function _voucherRefusal(
        bytes32 channelId,
        Record storage channel,
        uint128 cumulativeAmount,
        bytes calldata signature
    ) private view returns (bytes4) {
        // Checks: "settle", "Rollback Prevention", "Deposit Cap".
        if (cumulativeAmount <= channel.settled) return AmountNotIncreasing.selector;
        if (cumulativeAmount > channel.deposit) return AmountExceedsDeposit.selector;
        // Check: "Signature Verification", 2. Who may sign was fixed when the channel was opened.
        address signer = channel.delegated ? channel.authorizedSigner : channel.payer;
        if (!_signedBy(signer, getVoucherDigest(channelId, cumulativeAmount), signature)) {
            return InvalidSignature.selector;
        }
        return 0;
    }

    /// Checks a payee's authorization and uses up its nonce: "Payee-initiated functions", 1, 3 and 4.
    function _authorize(
        address payee,
        bytes32 channelId,
        uint256 nonce,
        uint256 deadline,
        bytes32 digest,
        bytes calldata signature
    ) private {
        if (block.timestamp > deadline) revert AuthorizationExpired();
        uint256 bit = 1 << (nonce & 0xff);
        uint256 bits = _usedNonces[payee][channelId][nonce >> 8];
        if (bits & bit != 0) revert NonceAlreadyUsed();
        if (!_signedBy(payee, digest, signature)) revert InvalidSignature();
        _usedNonces[payee][channelId][nonce >> 8] = bits | bit;
    }

    /// Whether `signer` signed: by its key, or, having code, by what it answers to ERC-1271.
    ///
    /// The key comes first, also where there is code. So an account that gets code later, as EIP-7702 allows, cannot
    /// take back what its key has signed ("Contract Wallet Signer Mutability": keys are not affected).
    function _signedBy(address signer, bytes32 digest, bytes calldata signature) private view returns (bool) {
        address recovered = _recover(digest, signature);
        if (recovered != address(0) && recovered == signer) return true;
        if (signer.code.length == 0) return false;
        (bool answered, bytes memory answer) =
            signer.staticcall(abi.encodeCall(IERC1271.isValidSignature, (digest, signature)));
        // The whole word must match: an answer of another shape is no consent.
        return answered && answer.length >= 32
            && abi.decode(answer, (bytes32)) == bytes32(IERC1271.isValidSignature.selector);
    }

    /// Returns the signing account, or zero if this is no canonical signature of 65 bytes.
    function _recover(bytes32 digest, bytes calldata signature) private pure returns (address) {
        // "Hexadecimal Values": 65 bytes, r, s, v. The compact form is optional and not taken.
        if (signature.length != SIGNATURE_BYTES) return address(0);
        bytes32 r = bytes32(signature[0:32]);
        bytes32 s = bytes32(signature[32:64]);
        // Check: "Signature Verification", 1.
        if (uint256(s) > HALF_ORDER) return address(0);
        // "Signing Procedure", 5: `v` is 27 or 28; for anything else the precompile answers nothing, that is zero.
        return ecrecover(digest, uint8(signature[64]), r, s);
    }

    function _digest(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked("\x19\x01", domainSeparator(), structHash));
    }

    /// Reverts with an error that has no arguments, named by its selector; zero is none.
    function _refuse(bytes4 reason) private pure {
        if (reason == 0) return;
        assembly ("memory-safe") {
            mstore(0, reason)
            revert(0, 4)
        }
    }

    // ---- Tokens ----

    function _held(address token) private view returns (uint256) {
        return IERC20Escrowed(token).balanceOf(address(this));
    }

    /// "Channel Escrow Contract": what isn't exactly what was asked for is refused. So are tokens that take a fee, and
    /// contracts that answer to any call and move nothing.
    function _requireArrived(address token, uint256 before, uint128 amount) private view {
        if (_held(token) != before + amount) revert InexactDeposit();
    }

    function _pull(address token, address from, uint128 amount) private {
        _call(token, abi.encodeCall(IERC20Escrowed.transferFrom, (from, address(this), amount)));
    }

    /// `receiveWithAuthorization`, never `transferWithAuthorization`: only this contract can execute it.
    function _receive(
        address token,
        address from,
        uint128 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) private {
        uint256 before = _held(token);
        IERC3009(token).receiveWithAuthorization(
            from, address(this), amount, validAfter, validBefore, nonce, signature
        );
        _requireArrived(token, before, amount);
    }

    function _permitOf(address token, uint128 amount, uint256 nonce, uint256 deadline)
        private
        pure
        returns (ISignatureTransfer.PermitTransferFrom memory)
    {
        return ISignatureTransfer.PermitTransferFrom(
            ISignatureTransfer.TokenPermissions(token, amount), nonce, deadline
        );
    }

    function _permit(
        ISignatureTransfer.PermitTransferFrom memory permit,
        address from,
        bytes32 witness,
        string memory witnessType,
        bytes calldata signature
    ) private {
        (address token, uint256 amount) = (permit.permitted.token, permit.permitted.amount);
        uint256 before = _held(token);
        ISignatureTransfer(PERMIT2).permitWitnessTransferFrom(
            permit,
            ISignatureTransfer.SignatureTransferDetails(address(this), amount),
            from,
            witness,
            witnessType,
            signature
        );
        _requireArrived(token, before, uint128(amount));
    }

    function _push(address token, address to, uint256 amount) private {
        _call(token, abi.encodeCall(IERC20Escrowed.transfer, (to, amount)));
    }

    /// Some tokens answer nothing; an answer, when there is one, must be true. The token's own reason is passed on: the
    /// seller wants to know that it is blacklisted.
    function _call(address token, bytes memory data) private {
        (bool done, bytes memory answer) = token.call(data);
        if (!done && answer.length != 0) {
            assembly ("memory-safe") {
                revert(add(answer, 32), mload(answer))
            }
        }
        bool accepted =
            answer.length == 0 ? token.code.length != 0 : answer.length >= 32 && abi.decode(answer, (uint256)) == 1;
        if (!done || !accepted) revert TransferFailed();
    }
}
