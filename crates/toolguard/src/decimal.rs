use std::cmp::Ordering;
use std::fmt;

/// The most digits of a number on either side of its point: an amount of 256 bits has 78.
pub const MAX_DIGITS: usize = 96;

/// An exact decimal of any size that somebody could mean. It is compared, and never rounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// Without padding; `0` for nothing.
    whole: String,
    /// Without zeros at its end.
    fraction: String,
}

impl Decimal {
    /// Reads the one spelling that all readers understand alike: digits without padding, a point with digits on both
    /// sides, a minus in front. No plus, no exponent, no blanks, no separators.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
        let plain = |text: &str| {
            (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !plain(whole) || (whole.len() > 1 && whole.starts_with('0')) || !fraction.is_none_or(plain) {
            return None;
        }
        let fraction = fraction.unwrap_or_default().trim_end_matches('0').to_owned();
        let zero = whole == "0" && fraction.is_empty();
        Some(Self { negative: negative && !zero, whole: whole.to_owned(), fraction })
    }

    /// How many units of 10^-`decimals` this is, if it is a whole number of them and none is owed.
    pub fn units(&self, decimals: u8) -> Option<u128> {
        let decimals = usize::from(decimals);
        if self.negative || self.fraction.len() > decimals {
            return None;
        }
        format!("{}{:0<decimals$}", self.whole, self.fraction).parse().ok()
    }

    fn size(&self, other: &Self) -> Ordering {
        let whole = self.whole.len().cmp(&other.whole.len()).then_with(|| self.whole.cmp(&other.whole));
        // Digits after the point compare as text does: a longer one with the same beginning is more.
        whole.then_with(|| self.fraction.cmp(&other.fraction))
    }
}

impl From<u128> for Decimal {
    fn from(value: u128) -> Self {
        Self { negative: false, whole: value.to_string(), fraction: String::new() }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.size(other),
            (true, true) => other.size(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        let point = if self.fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{}{point}{}", self.whole, self.fraction)
    }
}
