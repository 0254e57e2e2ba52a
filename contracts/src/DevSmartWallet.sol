// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {SignatureCheck} from "./SignatureCheck.sol";

/// @title A wallet with one owner key, for tests of ERC-1271, ERC-6492 and EIP-7702 payments.
/// @dev The owner lies in storage, not in an immutable. Under EIP-7702 the storage is empty and the account is
/// its own owner.
contract DevSmartWallet {
    address private _owner;

    error NotOwner();

    constructor(address initialOwner) {
        _owner = initialOwner;
    }

    receive() external payable {}

    function owner() public view returns (address) {
        return _owner == address(0) ? address(this) : _owner;
    }

    /// ERC-1271. Malformed signatures are answered with the refusal, not with a revert.
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        try this.recoverSigner(digest, signature) returns (address signer) {
            return signer == owner() ? this.isValidSignature.selector : bytes4(0xffffffff);
        } catch {
            return 0xffffffff;
        }
    }

    function recoverSigner(bytes32 digest, bytes calldata signature) external pure returns (address) {
        return SignatureCheck.recover(digest, signature);
    }

    function execute(address target, uint256 value, bytes calldata data) external payable returns (bytes memory) {
        if (msg.sender != owner() && msg.sender != address(this)) revert NotOwner();
        (bool success, bytes memory answer) = target.call{value: value}(data);
        if (!success) {
            assembly ("memory-safe") {
                revert(add(answer, 32), mload(answer))
            }
        }
        return answer;
    }
}
