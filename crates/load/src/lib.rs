//! Load for whoever sells by x402: a facilitator's `/verify` and `/settle`, and paid resources behind a gateway.
//!
//! The arrivals follow a schedule and not the answers, and each latency counts from the moment its request was due. So a
//! server that stalls cannot hide it by slowing down who asks (coordinated omission).
//!
//! - [`payers`]: thousands of buyers with keys of their own, derived from a seed; each payment is signed once and used
//!   once.
//! - [`schedule`]: when requests are due, evenly or by chance.
//! - [`drive`]: sends them and judges the answers; only a plain yes counts.
//! - [`saturation`]: the highest rate that a server keeps up with.
//! - [`stats`]: what a run counted, in a histogram of bounded size.
//! - [`fund`]: balances for the buyers, on development chains.

// Rates and latencies of machines, never money.
#![allow(clippy::float_arithmetic, clippy::cast_precision_loss)]

pub mod drive;
pub mod fund;
pub mod http;
pub mod judge;
pub mod offer;
pub mod payers;
pub mod saturation;
pub mod schedule;
pub mod stats;
