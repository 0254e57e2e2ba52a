//! Chain on an RPC node: reads, nonces, fees, inclusion, reorgs.
