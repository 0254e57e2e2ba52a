//! Chance from a seed. Each part of the world has a stream of its own, so that taking one fault away leaves the dice of
//! the others as they fell.

/// SplitMix64: small, quick, and the same on every machine. Nothing here is secret.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// An independent stream, named.
    pub fn stream(seed: u64, name: &str) -> Self {
        let mut rng = Self(seed ^ 0x6a09_e667_f3bc_c908);
        for byte in name.bytes() {
            rng.0 = rng.0.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
            rng.next();
        }
        rng
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, and without, `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }

    pub fn fill(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
