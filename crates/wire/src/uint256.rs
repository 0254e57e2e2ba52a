use std::fmt;
use std::str::FromStr;

/// A number of a contract's `uint256`, big-endian: exact, because signatures cover all of its bits.
///
/// It can be read, printed, compared and handed on; whoever wants to calculate converts it first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Uint256([u8; 32]);

/// Why a text is not a `uint256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Uint256Error {
    #[error("the number is empty")]
    Empty,
    #[error("the number is not plain decimal digits")]
    NotDecimal,
    #[error("the number has leading zeros")]
    LeadingZeros,
    #[error("the number does not fit 256 bits")]
    TooLarge,
}

/// How many decimal digits the largest `uint256` has.
const MAX_DIGITS: usize = 78;
/// Decimal digits that surely fit a limb, and their base.
const LIMB_DIGITS: usize = 19;
const LIMB_BASE: u128 = 10_000_000_000_000_000_000;

impl Uint256 {
    pub const ZERO: Self = Self([0; 32]);
    pub const MAX: Self = Self([0xff; 32]);

    pub const fn from_be_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn to_be_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The value, if it fits 128 bits.
    pub fn to_u128(self) -> Option<u128> {
        let (high, low) = self.halves();
        (high == 0).then_some(low)
    }

    /// The value as whole seconds; the largest 64-bit number stands for anything beyond it, which is a moment
    /// that no clock of ours reaches.
    pub fn saturating_secs(self) -> u64 {
        self.to_u128().and_then(|value| u64::try_from(value).ok()).unwrap_or(u64::MAX)
    }

    fn halves(self) -> (u128, u128) {
        let (mut high, mut low) = ([0; 16], [0; 16]);
        high.copy_from_slice(&self.0[..16]);
        low.copy_from_slice(&self.0[16..]);
        (u128::from_be_bytes(high), u128::from_be_bytes(low))
    }

    /// Little-endian limbs of 64 bits.
    fn limbs(self) -> [u64; 4] {
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(self.0.rchunks_exact(8)) {
            *limb = bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        }
        limbs
    }

    fn from_limbs(limbs: [u64; 4]) -> Self {
        let mut bytes = [0; 32];
        for (limb, out) in limbs.iter().zip(bytes.rchunks_exact_mut(8)) {
            out.copy_from_slice(&limb.to_be_bytes());
        }
        Self(bytes)
    }
}

impl From<u128> for Uint256 {
    fn from(value: u128) -> Self {
        let mut bytes = [0; 32];
        bytes[16..].copy_from_slice(&value.to_be_bytes());
        Self(bytes)
    }
}

impl From<u64> for Uint256 {
    fn from(value: u64) -> Self {
        Self::from(u128::from(value))
    }
}

impl FromStr for Uint256 {
    type Err = Uint256Error;

    /// Reads plain decimal digits without leading zeros, so that one number has one spelling.
    fn from_str(text: &str) -> Result<Self, Uint256Error> {
        if text.is_empty() {
            return Err(Uint256Error::Empty);
        }
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Uint256Error::NotDecimal);
        }
        if text.len() > 1 && text.starts_with('0') {
            return Err(Uint256Error::LeadingZeros);
        }
        if text.len() > MAX_DIGITS {
            return Err(Uint256Error::TooLarge);
        }
        if let Ok(small) = text.parse::<u128>() {
            return Ok(Self::from(small));
        }
        let mut limbs = [0u64; 4];
        for chunk in text.as_bytes().chunks(LIMB_DIGITS) {
            let digits = chunk.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            let base = (0..chunk.len()).fold(1u128, |base, _| base * 10);
            let mut carry = u128::from(digits);
            for limb in &mut limbs {
                let product = u128::from(*limb) * base + carry;
                *limb = low_64(product);
                carry = product >> 64;
            }
            if carry != 0 {
                return Err(Uint256Error::TooLarge);
            }
        }
        Ok(Self::from_limbs(limbs))
    }
}

impl fmt::Display for Uint256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(small) = self.to_u128() {
            return write!(f, "{small}");
        }
        // Least significant group first.
        let mut groups = Vec::with_capacity(5);
        let mut limbs = self.limbs();
        while limbs.iter().any(|limb| *limb != 0) {
            let mut rest = 0u128;
            for limb in limbs.iter_mut().rev() {
                let dividend = rest << 64 | u128::from(*limb);
                *limb = low_64(dividend / LIMB_BASE);
                rest = dividend % LIMB_BASE;
            }
            groups.push(rest);
        }
        let mut groups = groups.iter().rev();
        if let Some(first) = groups.next() {
            write!(f, "{first}")?;
        }
        groups.try_for_each(|group| write!(f, "{group:019}"))
    }
}

impl fmt::Debug for Uint256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn low_64(value: u128) -> u64 {
    // The mask makes the narrowing exact.
    #[allow(clippy::cast_possible_truncation)]
    let low = (value & u128::from(u64::MAX)) as u64;
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";

    #[test]
    fn numbers_have_one_spelling() {
        let check = |text: &str, expected: Result<Uint256, Uint256Error>| {
            assert_eq!(text.parse::<Uint256>(), expected, "{text:?}")
        };
        check("0", Ok(Uint256::ZERO));
        check("10000", Ok(Uint256::from(10_000u64)));
        check("340282366920938463463374607431768211455", Ok(Uint256::from(u128::MAX)));
        check(MAX, Ok(Uint256::MAX));
        check(
            "115792089237316195423570985008687907853269984665640564039457584007913129639936",
            Err(Uint256Error::TooLarge),
        );
        check(
            "999999999999999999999999999999999999999999999999999999999999999999999999999999",
            Err(Uint256Error::TooLarge),
        );
        check(&"9".repeat(79), Err(Uint256Error::TooLarge));
        check("", Err(Uint256Error::Empty));
        check("00", Err(Uint256Error::LeadingZeros));
        check("01", Err(Uint256Error::LeadingZeros));
        for text in ["-1", "+1", "1e6", "0x10", " 1", "1 ", "1.0", "1_000"] {
            check(text, Err(Uint256Error::NotDecimal));
        }
    }

    #[test]
    fn the_number_above_128_bits_is_exact() {
        let value: Uint256 = "340282366920938463463374607431768211456".parse().expect("2^128");
        let mut bytes = [0; 32];
        bytes[15] = 1;
        assert_eq!(value.to_be_bytes(), bytes);
        assert_eq!((value.to_u128(), value.saturating_secs()), (None, u64::MAX));
        assert_eq!(Uint256::from(7u64).saturating_secs(), 7);
        assert_eq!(Uint256::from(u128::from(u64::MAX) + 1).saturating_secs(), u64::MAX);
    }

    proptest! {
        #[test]
        fn parsing_undoes_printing(bytes: [u8; 32], zeros in 0usize..=32) {
            let mut bytes = bytes;
            bytes[..zeros].fill(0);
            let value = Uint256::from_be_bytes(bytes);
            prop_assert_eq!(value.to_string().parse(), Ok(value));
        }

        #[test]
        fn small_numbers_print_like_the_language_does(value: u128) {
            prop_assert_eq!(Uint256::from(value).to_string(), value.to_string());
            prop_assert_eq!(Uint256::from(value).to_u128(), Some(value));
        }
    }
}
