//! The server cases of the known attacks, and the paywall's own promises. No network and no sleep: the seller behind
//! it is a small model of the engine, and time stands still unless a test moves it.

mod attacks;
mod edges;
mod flows;
mod headers;
mod limits;
mod mpp;
mod paths;
mod pricing;
mod pushed;
mod session;
mod support;
