//! Time, chance and tasks of a real process.

pub use farthing_wallet::TokioWorld;
