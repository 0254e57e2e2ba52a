//! One module per scheme: what a dialect's payload means, what it consumes once, what to ask the chain about it, how to
//! settle it, and what proves that it was settled. And one module per dialect that maps its messages to that.
//!
//! Nothing here does I/O or asks for the time. A scheme is written once, whatever dialects carry it.

pub mod exact_evm;
pub mod method;
pub mod mpp;
pub mod offer;
mod packed;
pub mod pushed_evm;
pub mod x402;
