// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {DevSmartWallet} from "./DevSmartWallet.sol";

/// @title Deploys development wallets at addresses known beforehand, for tests of ERC-6492.
contract DevWalletFactory {
    event Deployed(address indexed wallet, address indexed owner, bytes32 salt);

    /// Does nothing the second time: whoever relays first must not make the second relay fail.
    function deploy(address owner, bytes32 salt) external returns (address wallet) {
        wallet = walletOf(owner, salt);
        if (wallet.code.length != 0) return wallet;
        wallet = address(new DevSmartWallet{salt: salt}(owner));
        emit Deployed(wallet, owner, salt);
    }

    function walletOf(address owner, bytes32 salt) public view returns (address) {
        bytes32 initCode = keccak256(abi.encodePacked(type(DevSmartWallet).creationCode, abi.encode(owner)));
        return address(uint160(uint256(keccak256(abi.encodePacked(bytes1(0xff), address(this), salt, initCode)))));
    }
}
