// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title One-way payment channels for any ERC-20: a payer deposits, signs growing totals off chain, and a payee
/// collects them.
/// @notice The escrow of the `evm` method's `session` intent, draft-evm-session-00. Section names below are that
/// document's. Functions, parameter order, channel ids and EIP-712 types are the draft's. Where the draft names none,
/// events and views are those of its ancestor, the escrow in the appendix of draft-tempo-session-00.
/// @dev Nobody has power over it: no owner, no upgrade, no pause, no fee, no list of tokens.
interface IPaymentChannelEscrow {
    /// A channel as the draft describes it ("Channel State"). All zero where no channel was ever opened.
    struct Channel {
        address payer;
        address payee;
        address token;
        /// Who signs vouchers; zero stands for the payer.
        address authorizedSigner;
        /// All that was ever paid in, in atoms of the token. Only grows.
        uint128 deposit;
        /// All that was ever paid out to the payee. Only grows, and never beyond the deposit.
        uint128 settled;
        /// When the payer asked for its money back, in Unix seconds; zero if it did not.
        uint64 closeRequestedAt;
        /// Set once, by a close or a withdrawal, and never cleared: the id cannot come back.
        bool finalized;
    }

    /// One row of `settleMany`.
    struct Claim {
        bytes32 channelId;
        uint128 cumulativeAmount;
        bytes signature;
    }

    // ---- Events ----

    event ChannelOpened(
        bytes32 indexed channelId,
        address indexed payer,
        address indexed payee,
        address token,
        address authorizedSigner,
        bytes32 salt,
        uint256 deposit
    );
    event TopUp(
        bytes32 indexed channelId,
        address indexed payer,
        address indexed payee,
        uint256 additionalDeposit,
        uint256 newDeposit
    );
    event Settled(
        bytes32 indexed channelId,
        address indexed payer,
        address indexed payee,
        uint256 cumulativeAmount,
        uint256 deltaPaid,
        uint256 newSettled
    );
    event CloseRequested(
        bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 closeGraceEnd
    );
    event CloseRequestCancelled(bytes32 indexed channelId, address indexed payer, address indexed payee);
    /// The end of a channel, by `close*` or `withdraw`. `settledToPayee` is the total over the channel's life, and both
    /// amounts together are its deposit.
    event ChannelClosed(
        bytes32 indexed channelId,
        address indexed payer,
        address indexed payee,
        uint256 settledToPayee,
        uint256 refundedToPayer
    );
    /// `settleMany` left this row out; `reason` is the selector of the error with which `settle` would have reverted.
    event SettlementSkipped(bytes32 indexed channelId, bytes4 reason);

    // ---- Errors: "Contract Errors" of the draft ----

    error ChannelAlreadyExists();
    error ChannelNotFound();
    error ChannelFinalized();
    error NotPayee();
    error NotPayer();
    error AmountNotIncreasing();
    error AmountExceedsDeposit();
    error InvalidSignature();
    error NonceMismatch();
    error NonceAlreadyUsed();
    error AuthorizationExpired();
    error CloseNotReady();
    error ZeroDeposit();
    error DepositOverflow();

    // ---- Errors beyond the draft's table ----

    /// The payee is the zero address, so that nobody could ever collect.
    error InvalidPayee();
    /// The depositor is the zero address, which marks a channel that doesn't exist.
    error InvalidPayer();
    /// The token refused a transfer, or is no contract.
    error TransferFailed();
    /// The deposit that arrived isn't the one that was asked for: a fee on transfer, a rebase, or no transfer at all.
    error InexactDeposit();
    /// A row of `settleMany` belongs to a channel of another token.
    error TokenMismatch();
    /// `settleMany` found nothing to pay.
    error NothingToSettle();
    error Reentered();

    // ---- Mandatory core ----

    /// Opens a channel from the caller, who has approved this contract for `deposit`.
    function open(address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner)
        external
        returns (bytes32 channelId);

    /// Pays the payee what the voucher adds to what was settled. Only the payee may call.
    function settle(bytes32 channelId, uint128 cumulativeAmount, bytes calldata signature) external;

    /// Adds to the deposit and takes back a pending close request. Only the payer may call.
    function topUp(bytes32 channelId, uint128 additionalDeposit) external;

    /// Pays the payee the last voucher, refunds the rest to the payer, and ends the channel. Only the payee may call.
    /// With an amount not above what was settled, no voucher is needed: the payee asks for nothing more.
    function close(bytes32 channelId, uint128 cumulativeAmount, bytes calldata signature) external;

    /// Starts the grace period, after which the payer may withdraw. A second request changes nothing.
    function requestClose(bytes32 channelId) external;

    /// Refunds the payer what was not settled and ends the channel, once the grace period is over.
    function withdraw(bytes32 channelId) external;

    // ---- Relayed / gasless operations profile ----

    /// As `open`, for `from`, paid by an EIP-3009 authorization whose nonce commits to the channel.
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
    ) external returns (bytes32 channelId);

    /// As `open`, for `from`, paid through Permit2 with a `ChannelOpenWitness`.
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
    ) external returns (bytes32 channelId);

    /// Adds to the deposit by an EIP-3009 authorization of anybody. Only the payer's own takes back a close request.
    function topUpWithAuthorization(
        bytes32 channelId,
        uint128 additionalDeposit,
        address from,
        bytes32 topUpSalt,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;

    /// Adds to the deposit through Permit2, from anybody. Only the payer's own takes back a close request.
    function topUpWithPermit2(
        bytes32 channelId,
        uint128 additionalDeposit,
        address from,
        uint256 nonce,
        uint256 deadline,
        bytes calldata signature
    ) external;

    /// As `settle`, for anybody who brings the payee's `SettleAuthorization`.
    function settleWithAuthorization(
        bytes32 channelId,
        uint128 cumulativeAmount,
        uint256 nonce,
        uint256 deadline,
        bytes calldata payeeSignature,
        bytes calldata voucherSignature
    ) external;

    /// As `close`, for anybody who brings the payee's `CloseAuthorization`.
    function closeWithAuthorization(
        bytes32 channelId,
        uint128 cumulativeAmount,
        uint256 nonce,
        uint256 deadline,
        bytes calldata payeeSignature,
        bytes calldata voucherSignature
    ) external;

    // ---- Beyond the draft ----

    /// Settles many channels of the caller in one token with one transfer. A row that cannot be settled is left out and
    /// reported by `SettlementSkipped`; the others are paid. Reverts if no row could be paid.
    function settleMany(address token, Claim[] calldata claims) external returns (uint256 paid);

    // ---- Views ----

    function CLOSE_GRACE_PERIOD() external view returns (uint64);
    function PERMIT2() external view returns (address);
    function VOUCHER_TYPEHASH() external view returns (bytes32);
    function SETTLE_AUTHORIZATION_TYPEHASH() external view returns (bytes32);
    function CLOSE_AUTHORIZATION_TYPEHASH() external view returns (bytes32);
    function CHANNEL_OPEN_WITNESS_TYPEHASH() external view returns (bytes32);
    function CHANNEL_TOP_UP_WITNESS_TYPEHASH() external view returns (bytes32);
    function domainSeparator() external view returns (bytes32);
    function getChannel(bytes32 channelId) external view returns (Channel memory);
    function getChannelsBatch(bytes32[] calldata channelIds) external view returns (Channel[] memory);
    function computeChannelId(address payer, address payee, address token, bytes32 salt, address authorizedSigner)
        external
        view
        returns (bytes32);
    function getVoucherDigest(bytes32 channelId, uint128 cumulativeAmount) external view returns (bytes32);
    function getSettleAuthorizationDigest(bytes32 channelId, uint128 cumulativeAmount, uint256 nonce, uint256 deadline)
        external
        view
        returns (bytes32);
    function getCloseAuthorizationDigest(bytes32 channelId, uint128 cumulativeAmount, uint256 nonce, uint256 deadline)
        external
        view
        returns (bytes32);
    /// Whether a payee's authorization with this nonce was used on this channel.
    function isNonceUsed(address payee, bytes32 channelId, uint256 nonce) external view returns (bool);
}
