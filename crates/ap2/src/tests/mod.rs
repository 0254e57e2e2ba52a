//! What is accepted, and above all what is not.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod attacks;
mod chains;
mod constraints;
mod kit;
mod replays;
mod vectors;
