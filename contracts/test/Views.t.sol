// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {World} from "./support/World.sol";

/// spec/views.tree. The golden values were computed by viem: `scripts/vectors.mjs`.
contract ViewsTest is World {
    string private _vectors;

    function setUp() public override {
        super.setUp();
        _vectors = vm.readFile("../vectors/evm/payment-channel.json");
    }

    function _word(string memory path, string memory name) private view returns (bytes32) {
        return vm.parseJsonBytes32(_vectors, string.concat(path, name));
    }

    function _number(string memory path, string memory name) private view returns (uint256) {
        return vm.parseJsonUint(_vectors, string.concat(path, name));
    }

    function _address(string memory path, string memory name) private view returns (address) {
        return vm.parseJsonAddress(_vectors, string.concat(path, name));
    }

    /// The escrow at the vectors' address on the vectors' chain.
    function _placed() private returns (IPaymentChannelEscrow placed) {
        address there = _address("", ".escrow");
        vm.etch(there, address(escrow).code);
        vm.chainId(_number("", ".chainId"));
        placed = IPaymentChannelEscrow(there);
    }

    function _checkHashes(string memory path) private {
        IPaymentChannelEscrow placed = _placed();
        bytes32 channelId = _word(path, ".channelId");
        uint128 amount = uint128(_number(path, ".cumulativeAmount"));
        uint256 nonce = _number(path, ".nonce");
        uint256 deadline = _number(path, ".deadline");
        assertEq(placed.domainSeparator(), _word(path, ".domainSeparator"), "domain");
        assertEq(
            placed.computeChannelId(
                _address("", ".payer"),
                _address("", ".payee"),
                _address("", ".token"),
                _word("", ".salt"),
                _address(path, ".authorizedSigner")
            ),
            channelId,
            "channel id"
        );
        assertEq(placed.getVoucherDigest(channelId, amount), _word(path, ".voucher.digest"), "voucher");
        assertEq(
            placed.getSettleAuthorizationDigest(channelId, amount, nonce, deadline),
            _word(path, ".settleAuthorization.digest"),
            "settle authorization"
        );
        assertEq(
            placed.getCloseAuthorizationDigest(channelId, amount, nonce, deadline),
            _word(path, ".closeAuthorization.digest"),
            "close authorization"
        );
        // What these tests sign with elsewhere are the same formulas.
        assertEq(
            _openNonce(
                _address("", ".payer"),
                _address("", ".payee"),
                _address("", ".token"),
                _word("", ".salt"),
                _address(path, ".authorizedSigner")
            ),
            _word(path, ".openNonce"),
            "open nonce"
        );
        assertEq(
            _topUpNonce(
                channelId,
                uint128(_number(path, ".additionalDeposit")),
                _address("", ".payer"),
                _word(path, ".topUpSalt")
            ),
            _word(path, ".topUpNonce"),
            "top-up nonce"
        );
        assertEq(
            keccak256(
                abi.encode(
                    placed.CHANNEL_OPEN_WITNESS_TYPEHASH(),
                    _address("", ".payee"),
                    _word("", ".salt"),
                    _address(path, ".authorizedSigner")
                )
            ),
            _word(path, ".openPermit.witnessHash"),
            "open witness"
        );
        assertEq(
            keccak256(abi.encode(placed.CHANNEL_TOP_UP_WITNESS_TYPEHASH(), channelId)),
            _word(path, ".topUpPermit.witnessHash"),
            "top-up witness"
        );
    }

    function test_views_goldenHashes() public {
        _checkHashes(".signedByPayer");
        _checkHashes(".signedByDelegate");
    }

    function test_views_constants() public view {
        assertEq(escrow.CLOSE_GRACE_PERIOD(), 900, "grace period");
        assertEq(escrow.PERMIT2(), PERMIT2, "Permit2");
        assertEq(
            escrow.VOUCHER_TYPEHASH(), keccak256("Voucher(bytes32 channelId,uint128 cumulativeAmount)"), "voucher type"
        );
        assertEq(
            escrow.SETTLE_AUTHORIZATION_TYPEHASH(),
            keccak256("SettleAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)"),
            "settle authorization type"
        );
        assertEq(
            escrow.CLOSE_AUTHORIZATION_TYPEHASH(),
            keccak256("CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)"),
            "close authorization type"
        );
    }

    function test_views_unknownChannel() public view {
        IPaymentChannelEscrow.Channel memory channel = escrow.getChannel(keccak256("nothing"));
        assertEq(
            keccak256(abi.encode(channel)),
            keccak256(
                abi.encode(
                    IPaymentChannelEscrow.Channel(
                        address(0), address(0), address(0), address(0), 0, 0, 0, false
                    )
                )
            ),
            "all zero"
        );
    }

    function test_views_batch() public {
        bytes32 one = _open();
        bytes32 two = _open(delegate);
        _settle(one, 5);
        bytes32[] memory ids = new bytes32[](3);
        (ids[0], ids[1], ids[2]) = (one, keccak256("nothing"), two);
        IPaymentChannelEscrow.Channel[] memory channels = escrow.getChannelsBatch(ids);
        assertEq(channels.length, 3, "as many as asked for");
        for (uint256 i; i < ids.length; ++i) {
            assertEq(
                keccak256(abi.encode(channels[i])), keccak256(abi.encode(escrow.getChannel(ids[i]))), "in the order asked"
            );
        }
    }

    function test_deployment_addressAndCode() public view {
        string memory artifact = vm.readFile("artifacts/PaymentChannelEscrow.json");
        assertEq(address(escrow), vm.parseJsonAddress(artifact, ".deployment.address"), "address");
        assertEq(address(escrow).codehash, vm.parseJsonBytes32(artifact, ".deployment.runtimeCodeHash"), "code hash");
        assertEq(
            keccak256(vm.parseJsonBytes(artifact, ".deployedBytecode")), address(escrow).codehash, "deployed bytecode"
        );
    }

    /// Whatever a stranger calls it with, there is no function that isn't in the interface: no owner, no upgrade, no pause.
    function test_deployment_noOtherFunctions() public {
        string[9] memory wanted = [
            "owner()", "transferOwnership(address)", "upgradeTo(address)", "upgradeToAndCall(address,bytes)", "pause()",
            "initialize()", "sweep(address)", "setPermit2(address)", "grantRole(bytes32,address)"
        ];
        for (uint256 i; i < wanted.length; ++i) {
            (bool done,) =
                address(escrow).call(bytes.concat(bytes4(keccak256(bytes(wanted[i]))), bytes32(uint256(1)), bytes32(0)));
            assertTrue(!done, wanted[i]);
        }
    }
}
