//! x402 messages between bytes and types: the only peer-facing serde.
