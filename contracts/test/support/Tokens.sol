// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// A plain token; the odd ones below change one thing each.
contract PlainToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        return true;
    }

    function transfer(address to, uint256 amount) external virtual returns (bool) {
        _move(msg.sender, to, amount);
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) external virtual returns (bool) {
        _spend(from, amount);
        _move(from, to, amount);
        return true;
    }

    function _spend(address from, uint256 amount) internal {
        if (allowance[from][msg.sender] != type(uint256).max) allowance[from][msg.sender] -= amount;
    }

    function _move(address from, address to, uint256 amount) internal virtual {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// Keeps a part of what arrives, and can be told to take none, as some stablecoins are ready to.
contract FeeToken is PlainToken {
    uint256 public fee = 1;

    function setFee(uint256 fee_) external {
        fee = fee_;
    }

    function _move(address from, address to, uint256 amount) internal override {
        balanceOf[from] -= amount;
        balanceOf[to] += amount - fee;
    }
}

/// Says no instead of reverting.
contract FalseToken is PlainToken {
    bool public refusing;

    function refuse(bool now_) external {
        refusing = now_;
    }

    function transfer(address to, uint256 amount) external override returns (bool) {
        if (refusing) return false;
        _move(msg.sender, to, amount);
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) external override returns (bool) {
        if (refusing) return false;
        _spend(from, amount);
        _move(from, to, amount);
        return true;
    }
}

/// Reverts without a word.
contract MuteToken is PlainToken {
    function transferFrom(address, address, uint256) external pure override returns (bool) {
        assembly {
            revert(0, 0)
        }
    }
}

/// Answers nothing, as the oldest stablecoins do.
contract SilentToken {
    mapping(address => uint256) public balanceOf;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function transfer(address to, uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
    }

    function transferFrom(address from, address to, uint256 amount) external {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// Takes any call for a greeting, as wrapped ether does: `receiveWithAuthorization` succeeds and moves nothing.
contract AgreeableToken is PlainToken {
    fallback() external {}
}

/// Calls somebody in the middle of each transfer, as tokens with hooks do.
contract HookToken is PlainToken {
    address public listener;
    bytes public message;
    /// What came of the calls made so far.
    bytes[] public answers;
    bool[] public successes;

    function onTransfer(address listener_, bytes calldata message_) external {
        (listener, message) = (listener_, message_);
    }

    function calls() external view returns (uint256) {
        return successes.length;
    }

    function _move(address from, address to, uint256 amount) internal override {
        balanceOf[from] -= amount;
        if (listener != address(0)) {
            (bool done, bytes memory answer) = listener.call(message);
            successes.push(done);
            answers.push(answer);
        }
        balanceOf[to] += amount;
    }
}

/// Lies: says yes and moves nothing, but calls the escrow again, in the hope that one deposit counts twice.
contract LyingToken is PlainToken {
    address public listener;
    bytes public message;

    function onTransfer(address listener_, bytes calldata message_) external {
        (listener, message) = (listener_, message_);
    }

    function transferFrom(address from, address to, uint256 amount) external override returns (bool) {
        if (listener == address(0)) {
            _move(from, to, amount);
            return true;
        }
        address inner = listener;
        listener = address(0);
        (bool done, bytes memory answer) = inner.call(message);
        if (!done) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
        return true;
    }
}
