//! EVM typed data, signatures, calldata and ABI: no network.
