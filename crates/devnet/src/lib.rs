//! The embedded chain for development: an EVM with a JSON-RPC face.
