//! One module per scheme: a dialect's payload into checks, a consumption key, attempts and proofs.
