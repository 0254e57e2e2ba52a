// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

interface IERC1271 {
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4);
}

/// @title Whether an account has signed a digest, for USDC-like tokens and the development wallet.
/// @notice An account without code signs with its key; an account with code (also an EIP-7702 one) is asked
/// through ERC-1271. The error strings are those of Circle's token, because peers match on them.
library SignatureCheck {
    /// The upper half of the curve order is refused, so that one authorization has one signature.
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    function signedBy(address account, bytes32 digest, bytes memory signature) internal view returns (bool) {
        if (account.code.length == 0) return recover(digest, signature) == account;
        return acceptedBy(account, digest, signature);
    }

    function acceptedBy(address account, bytes32 digest, bytes memory signature) internal view returns (bool) {
        (bool answered, bytes memory answer) =
            account.staticcall(abi.encodeCall(IERC1271.isValidSignature, (digest, signature)));
        // The whole word must match: an answer of another shape is no consent.
        return answered && answer.length >= 32
            && abi.decode(answer, (bytes32)) == bytes32(IERC1271.isValidSignature.selector);
    }

    function recover(bytes32 digest, bytes memory signature) internal pure returns (address signer) {
        require(signature.length == 65, "ECRecover: invalid signature length");
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
            v := byte(0, mload(add(signature, 96)))
        }
        require(uint256(s) <= HALF_ORDER, "ECRecover: invalid signature 's' value");
        require(v == 27 || v == 28, "ECRecover: invalid signature 'v' value");
        signer = ecrecover(digest, v, r, s);
        require(signer != address(0), "ECRecover: invalid signature");
    }
}
