// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../../src/IPaymentChannelEscrow.sol";
import {ISignatureTransfer} from "../../src/Permit2SignatureTransfer.sol";
import {Test} from "./Test.sol";

/// Circle's token, as far as the tests go.
interface IUsdc {
    function initialize(
        string calldata name,
        string calldata symbol,
        string calldata currency,
        uint8 decimals,
        address masterMinter,
        address pauser,
        address blacklister,
        address owner
    ) external;
    function initializeV2(string calldata name) external;
    function initializeV2_1(address lostAndFound) external;
    function initializeV2_2(address[] calldata blacklisted, string calldata symbol) external;
    function configureMinter(address minter, uint256 allowance) external returns (bool);
    function mint(address to, uint256 amount) external returns (bool);
    function blacklist(address account) external;
    function unBlacklist(address account) external;
    function pause() external;
    function unpause() external;
    function balanceOf(address account) external view returns (uint256);
    function approve(address spender, uint256 value) external returns (bool);
    function transfer(address to, uint256 value) external returns (bool);
    function DOMAIN_SEPARATOR() external view returns (bytes32);
    function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
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

/// A chain with what a payment meets: the escrow as committed, USDC and Permit2 as published, and funded accounts.
abstract contract World is Test {
    address internal constant CREATE2_DEPLOYER = 0x4e59b44847b379578588920cA78FbF26c0B4956C;
    bytes internal constant CREATE2_DEPLOYER_CODE =
        hex"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3";
    address internal constant PERMIT2 = 0x000000000022D473030F116dDEE9F6B43aC78BA3;
    /// Published with Permit2's deployment.
    bytes32 internal constant PERMIT2_SALT = 0x0000000000000000000000000000000000000000d3af2663da51c10215000000;
    IUsdc internal constant usdc = IUsdc(0x036CbD53842c5426634e7929541eC2318f3dCF7e);
    address internal constant USDC_IMPLEMENTATION = 0x5160000000000000000000000000000000000002;
    bytes32 private constant PROXY_IMPLEMENTATION_SLOT =
        0x7050c9e0f4ca769c69bd3a8ef740bc37934f8e2c036e5a723fd8ee048ed3f8c3;
    bytes32 private constant PROXY_ADMIN_SLOT = 0x10d6a54a4754c8869d6886b5f5d7fbfa5b4522237ea5c60d11bc4e7a1ff9390b;

    uint256 internal constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 internal constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    uint64 internal constant GRACE = 15 minutes;
    uint128 internal constant DEPOSIT = 5_000_000;
    bytes32 internal constant SALT = keccak256("a channel");
    bytes32 internal constant TOP_UP_SALT = keccak256("a top-up");
    uint256 internal constant FOREVER = type(uint256).max;

    uint256 internal constant PAYER_KEY = 0xA11CE;
    uint256 internal constant PAYEE_KEY = 0xB0B;
    uint256 internal constant DELEGATE_KEY = 0xDE1E;
    uint256 internal constant STRANGER_KEY = 0x5BAD;
    address internal payer = vm.addr(PAYER_KEY);
    address internal payee = vm.addr(PAYEE_KEY);
    address internal delegate = vm.addr(DELEGATE_KEY);
    address internal stranger = vm.addr(STRANGER_KEY);
    address internal relayer = address(0x4e1a7e4);
    /// Whoever may mint, block and pause USDC.
    address internal issuer = address(0x1550e4);

    IPaymentChannelEscrow internal escrow;

    function setUp() public virtual {
        escrow = IPaymentChannelEscrow(_deployEscrow());
        _placePermit2();
        _placeUsdc();
        _fund(payer);
        _fund(stranger);
        vm.label(address(escrow), "escrow");
        vm.label(address(usdc), "usdc");
    }

    // ---- The contracts ----

    /// The committed bytecode, through the deployer that everybody uses, at the address that the artifact states.
    function _deployEscrow() internal returns (address) {
        if (CREATE2_DEPLOYER.code.length == 0) vm.etch(CREATE2_DEPLOYER, CREATE2_DEPLOYER_CODE);
        string memory artifact = vm.readFile("artifacts/PaymentChannelEscrow.json");
        bytes memory code = vm.parseJsonBytes(artifact, ".bytecode");
        return _create2(vm.parseJsonBytes32(artifact, ".deployment.salt"), code);
    }

    function _create2(bytes32 salt, bytes memory code) internal returns (address deployed) {
        (bool done, bytes memory answer) = CREATE2_DEPLOYER.call(bytes.concat(salt, code));
        assertTrue(done && answer.length == 20, "CREATE2 deployment");
        deployed = address(bytes20(answer));
    }

    function _placePermit2() private {
        string memory fixtures = vm.readFile(".forge/fixtures.json");
        address permit2 = _create2(PERMIT2_SALT, vm.parseJsonBytes(fixtures, ".permit2InitCode"));
        assertEq(permit2, PERMIT2, "the address of Permit2");
    }

    function _placeUsdc() private {
        string memory fixtures = vm.readFile(".forge/fixtures.json");
        vm.etch(
            vm.parseJsonAddress(fixtures, ".signatureChecker"), vm.parseJsonBytes(fixtures, ".signatureCheckerRuntime")
        );
        vm.etch(USDC_IMPLEMENTATION, vm.parseJsonBytes(fixtures, ".usdcImplementationRuntime"));
        vm.etch(address(usdc), vm.parseJsonBytes(fixtures, ".usdcProxyRuntime"));
        vm.store(address(usdc), PROXY_IMPLEMENTATION_SLOT, bytes32(uint256(uint160(USDC_IMPLEMENTATION))));
        vm.store(address(usdc), PROXY_ADMIN_SLOT, bytes32(uint256(1)));
        usdc.initialize("USDC", "USDC", "USD", 6, issuer, issuer, issuer, issuer);
        usdc.initializeV2("USDC");
        usdc.initializeV2_1(address(0x10057));
        usdc.initializeV2_2(new address[](0), "USDC");
        vm.prank(issuer);
        usdc.configureMinter(issuer, FOREVER);
    }

    function _fund(address account) internal {
        vm.prank(issuer);
        usdc.mint(account, 1_000_000_000);
        vm.startPrank(account);
        usdc.approve(address(escrow), FOREVER);
        usdc.approve(PERMIT2, FOREVER);
        vm.stopPrank();
    }

    // ---- Channels ----

    function _open(address authorizedSigner) internal returns (bytes32) {
        vm.prank(payer);
        return escrow.open(payee, address(usdc), DEPOSIT, SALT, authorizedSigner);
    }

    function _open() internal returns (bytes32) {
        return _open(address(0));
    }

    function _settle(bytes32 channelId, uint128 amount) internal {
        bytes memory voucher = _voucher(PAYER_KEY, channelId, amount);
        vm.prank(payee);
        escrow.settle(channelId, amount, voucher);
    }

    function _finalized() internal returns (bytes32 channelId) {
        channelId = _open();
        vm.prank(payee);
        escrow.close(channelId, 0, "");
    }

    function _balance(address account) internal view returns (uint256) {
        return usdc.balanceOf(account);
    }

    // ---- Signatures, made from the draft's formulas and not by asking the escrow ----

    function _sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function _typed(bytes32 separator, bytes32 structHash) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked("\x19\x01", separator, structHash));
    }

    function _domain(address verifyingContract) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("EVM Payment Channel"),
                keccak256("1"),
                block.chainid,
                verifyingContract
            )
        );
    }

    function _voucherHash(bytes32 channelId, uint128 amount) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(keccak256("Voucher(bytes32 channelId,uint128 cumulativeAmount)"), channelId, amount)
        );
    }

    function _voucher(uint256 key, bytes32 channelId, uint128 amount) internal view returns (bytes memory) {
        return _sign(key, _typed(_domain(address(escrow)), _voucherHash(channelId, amount)));
    }

    function _settleAuthorization(uint256 key, bytes32 channelId, uint128 amount, uint256 nonce, uint256 deadline)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typehash =
            keccak256("SettleAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)");
        return _sign(
            key,
            _typed(_domain(address(escrow)), keccak256(abi.encode(typehash, channelId, amount, nonce, deadline)))
        );
    }

    function _closeAuthorization(uint256 key, bytes32 channelId, uint128 amount, uint256 nonce, uint256 deadline)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typehash =
            keccak256("CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)");
        return _sign(
            key,
            _typed(_domain(address(escrow)), keccak256(abi.encode(typehash, channelId, amount, nonce, deadline)))
        );
    }

    function _openNonce(address from, address to, address token, bytes32 salt, address authorizedSigner)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(from, to, token, salt, authorizedSigner));
    }

    function _topUpNonce(bytes32 channelId, uint128 amount, address from, bytes32 salt)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(channelId, amount, from, salt));
    }

    /// EIP-3009's `ReceiveWithAuthorization` to the escrow, valid at once and for ever.
    function _authorization(uint256 key, uint256 value, bytes32 nonce) internal view returns (bytes memory) {
        return _authorization(key, vm.addr(key), value, nonce);
    }

    function _authorization(uint256 key, address from, uint256 value, bytes32 nonce)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typehash = keccak256(
            "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        bytes32 content = keccak256(
            abi.encode(typehash, from, address(escrow), value, uint256(0), FOREVER, nonce)
        );
        return _sign(key, _typed(usdc.DOMAIN_SEPARATOR(), content));
    }

    function _permit(uint256 key, address token, uint256 amount, uint256 nonce, uint256 deadline, string memory witness, bytes32 witnessHash)
        private
        view
        returns (bytes memory)
    {
        bytes32 typehash = keccak256(
            abi.encodePacked(
                "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,",
                witness,
                "TokenPermissions(address token,uint256 amount)"
            )
        );
        bytes32 permitted =
            keccak256(abi.encode(keccak256("TokenPermissions(address token,uint256 amount)"), token, amount));
        bytes32 separator = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)"),
                keccak256("Permit2"),
                block.chainid,
                PERMIT2
            )
        );
        bytes32 content = keccak256(abi.encode(typehash, permitted, address(escrow), nonce, deadline, witnessHash));
        return _sign(key, _typed(separator, content));
    }

    function _openPermit(uint256 key, address token, uint256 amount, uint256 nonce, uint256 deadline, address to, bytes32 salt, address authorizedSigner)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typehash = keccak256("ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)");
        return _permit(
            key,
            token,
            amount,
            nonce,
            deadline,
            "ChannelOpenWitness witness)ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)",
            keccak256(abi.encode(typehash, to, salt, authorizedSigner))
        );
    }

    function _topUpPermit(uint256 key, address token, uint256 amount, uint256 nonce, uint256 deadline, bytes32 channelId)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typehash = keccak256("ChannelTopUpWitness(bytes32 channelId)");
        return _permit(
            key,
            token,
            amount,
            nonce,
            deadline,
            "ChannelTopUpWitness witness)ChannelTopUpWitness(bytes32 channelId)",
            keccak256(abi.encode(typehash, channelId))
        );
    }
}
