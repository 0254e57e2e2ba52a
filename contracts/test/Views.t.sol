// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IPaymentChannelEscrow} from "../src/IPaymentChannelEscrow.sol";
import {World} from "./support/World.sol";

/// spec/views.tree. The golden values were computed by viem, and the Rust side is held to the same ones.
contract ViewsTest is World {
    uint256 private constant CHANNELS = 12;
    uint256 private constant DIGESTS = 22;
    string private _vectors;

    function setUp() public override {
        super.setUp();
        _vectors = vm.readFile("../vectors/evm/voucher.json");
    }

    function _at(string memory list, uint256 i, string memory name) private pure returns (string memory) {
        return string.concat(".", list, "[", vm.toString(i), "].", name);
    }

    function _word(string memory list, uint256 i, string memory name) private view returns (bytes32) {
        return vm.parseJsonBytes32(_vectors, _at(list, i, name));
    }

    function _number(string memory list, uint256 i, string memory name) private view returns (uint256) {
        return vm.parseJsonUint(_vectors, _at(list, i, name));
    }

    function _address(string memory list, uint256 i, string memory name) private view returns (address) {
        return vm.parseJsonAddress(_vectors, _at(list, i, name));
    }

    /// The escrow at another address, on another chain.
    function _placed(address there, uint256 chain) private returns (IPaymentChannelEscrow) {
        vm.etch(there, address(escrow).code);
        vm.chainId(chain);
        return IPaymentChannelEscrow(there);
    }

    function test_views_goldenChannelIds() public {
        for (uint256 i; i < CHANNELS; ++i) {
            IPaymentChannelEscrow placed =
                _placed(_address("channels", i, "escrow"), _number("channels", i, "chainId"));
            address from = _address("channels", i, "payer");
            address to = _address("channels", i, "payee");
            address token = _address("channels", i, "token");
            bytes32 salt = _word("channels", i, "salt");
            address signer = _address("channels", i, "authorizedSigner");
            bytes32 channelId = _word("channels", i, "id");
            assertEq(placed.computeChannelId(from, to, token, salt, signer), channelId, "channel id");
            // What these tests sign deposits with is the same.
            assertEq(_openNonce(from, to, token, salt, signer), _word("channels", i, "openNonce"), "open nonce");
            // Each vector is for the salt of the channel itself.
            uint128 more = uint128(_number("channels", i, "additionalDeposit"));
            assertEq(_topUpNonce(channelId, more, from, salt), _word("channels", i, "topUpNonce"), "top-up nonce");
        }
    }

    function test_views_goldenDigests() public {
        uint256 checked;
        for (uint256 i; i < DIGESTS; ++i) {
            bytes32 kind = keccak256(bytes(vm.parseJsonString(_vectors, _at("digests", i, "kind"))));
            if (kind == keccak256("ChannelOpen") || kind == keccak256("ChannelTopUp")) continue;
            IPaymentChannelEscrow placed = _placed(
                _address("digests", i, "domain.verifyingContract"), _number("digests", i, "domain.chainId")
            );
            assertEq(placed.domainSeparator(), _word("digests", i, "separator"), "domain");
            assertEq(_digest(placed, i, kind), _word("digests", i, "digest"), "digest");
            ++checked;
        }
        assertEq(checked, 18, "vouchers, settle and close authorizations");
    }

    function _digest(IPaymentChannelEscrow placed, uint256 i, bytes32 kind) private view returns (bytes32) {
        bytes32 channelId = _word("digests", i, "message.channelId");
        uint128 amount = uint128(_number("digests", i, "message.cumulativeAmount"));
        if (kind == keccak256("Voucher")) return placed.getVoucherDigest(channelId, amount);
        uint256 nonce = _number("digests", i, "message.nonce");
        uint256 deadline = _number("digests", i, "message.deadline");
        if (kind == keccak256("SettleAuthorization")) {
            return placed.getSettleAuthorizationDigest(channelId, amount, nonce, deadline);
        }
        assertEq(kind, keccak256("CloseAuthorization"), "a kind of its own");
        return placed.getCloseAuthorizationDigest(channelId, amount, nonce, deadline);
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
        assertEq(
            escrow.CHANNEL_OPEN_WITNESS_TYPEHASH(),
            keccak256("ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)"),
            "open witness type"
        );
        assertEq(
            escrow.CHANNEL_TOP_UP_WITNESS_TYPEHASH(),
            keccak256("ChannelTopUpWitness(bytes32 channelId)"),
            "top-up witness type"
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
