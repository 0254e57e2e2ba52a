//! Contracts that have one address on every chain where they are deployed.

use alloy_primitives::{Address, address};

/// Uniswap's Permit2.
pub const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");

/// The x402 proxy that moves exactly what was permitted to exactly whom the payer witnessed.
///
/// Spec: x402 exact on EVM, annex "reference implementation x402ExactPermit2Proxy".
pub const X402_EXACT_PROXY: Address = address!("402085c248EeA27D92E8b30b2C58ed07f9E20001");

/// Multicall3.
pub const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
