// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {PlainToken} from "../support/Tokens.sol";

/// Takes its fee from the sender, on top of the amount.
contract OverchargingToken is PlainToken {
    function _move(address from, address to, uint256 amount) internal override {
        balanceOf[from] -= amount + 1;
        balanceOf[to] += amount;
    }
}

/// Answers with less than a word.
contract ShortAnswerToken is PlainToken {
    function transfer(address to, uint256 amount) external override returns (bool) {
        _move(msg.sender, to, amount);
        assembly {
            mstore(0, not(0))
            return(0, 31)
        }
    }
}

/// Refuses to pay, and does not say why.
contract SpeechlessToken is PlainToken {
    function transfer(address, uint256) external pure override returns (bool) {
        assembly {
            revert(0, 0)
        }
    }
}
