//! Metering in integers finer than an atom.
//!
//! A price is a fraction, so many atoms for so many units, and what was used is added up exactly. It is rounded only
//! where a voucher or a receipt asks for atoms, and then down: the payer never owes an atom that was not wholly used.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

/// What is counted. It decides nothing; it is what a price is shown for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Unit {
    Request,
    Token,
    Byte,
    Millisecond,
    WattHour,
    /// Any other, by its name.
    Other(Arc<str>),
}

impl Unit {
    /// The longest name of a unit, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The stable name that is stored and shown.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Request => "request",
            Self::Token => "token",
            Self::Byte => "byte",
            Self::Millisecond => "millisecond",
            Self::WattHour => "watt-hour",
            Self::Other(name) => name,
        }
    }

    /// The unit of this name; `None` if the name is empty, too long or not printable ASCII.
    pub fn named(name: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_LEN).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| match name {
            "request" => Self::Request,
            "token" => Self::Token,
            "byte" => Self::Byte,
            "millisecond" => Self::Millisecond,
            "watt-hour" => Self::WattHour,
            other => Self::Other(other.into()),
        })
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something cannot be metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    #[error("the amount does not fit 128 bits")]
    Overflow,
    #[error("a price has at most {max} decimal digits below an atom", max = Price::MOST_DIGITS)]
    TooFine,
}

/// So many atoms for so many units.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Price {
    atoms: u128,
    per: NonZeroU64,
    unit: Unit,
}

impl Price {
    /// The finest decimal price: 10^-18 of an atom for one unit.
    pub const MOST_DIGITS: u8 = 18;

    /// `atoms` for every `per` units: `Price::new(3, 1000, Unit::Token)` is three atoms for a thousand tokens.
    pub fn new(atoms: u128, per: NonZeroU64, unit: Unit) -> Self {
        Self { atoms, per, unit }
    }

    /// `atoms` for each unit.
    pub fn each(atoms: u128, unit: Unit) -> Self {
        Self { atoms, per: NonZeroU64::MIN, unit }
    }

    /// `number` times 10^-`digits` atoms for each unit: `Price::decimal(25, 4, …)` is 0.0025 atoms.
    pub fn decimal(number: u128, digits: u8, unit: Unit) -> Result<Self, MeterError> {
        if digits > Self::MOST_DIGITS {
            return Err(MeterError::TooFine);
        }
        let per = NonZeroU64::new(10u64.pow(u32::from(digits))).ok_or(MeterError::TooFine)?;
        Ok(Self { atoms: number, per, unit })
    }

    pub fn atoms(&self) -> u128 {
        self.atoms
    }

    pub fn per(&self) -> NonZeroU64 {
        self.per
    }

    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// What `units` cost at most, wherever the fractions of others end: rounded up.
    pub fn most(&self, units: u64) -> Result<u128, MeterError> {
        let exact = Exact::ZERO.plus(self, units)?;
        if exact.is_whole() {
            Ok(exact.floor())
        } else {
            exact.floor().checked_add(1).ok_or(MeterError::Overflow)
        }
    }

    /// Whether a unit at this price costs more than at `other`.
    pub fn exceeds(&self, other: &Self) -> bool {
        let (a, b) = (self.atoms, other.atoms);
        let (p, q) = (u128::from(self.per.get()), u128::from(other.per.get()));
        // Compared by whole parts first, so that no product of large numbers is needed for them.
        match (a / p).cmp(&(b / q)) {
            std::cmp::Ordering::Equal => (a % p) * q > (b % q) * p,
            order => order.is_gt(),
        }
    }
}

impl fmt::Debug for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} atoms for {} {:?}", self.atoms, self.per, self.unit)
    }
}

/// An amount finer than an atom: whole atoms, and a fraction of one in lowest terms.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exact {
    atoms: u128,
    // INVARIANT: numerator < denominator, without a common divisor; so equal amounts are equal values.
    numerator: u64,
    denominator: u64,
}

impl Exact {
    pub const ZERO: Self = Self { atoms: 0, numerator: 0, denominator: 1 };

    /// Whole atoms.
    pub const fn atoms(atoms: u128) -> Self {
        Self { atoms, numerator: 0, denominator: 1 }
    }

    /// From its parts; `None` unless the fraction is below one and in lowest terms.
    pub fn from_parts(atoms: u128, numerator: u64, denominator: u64) -> Option<Self> {
        let lowest = numerator < denominator && gcd(numerator, denominator) == 1;
        lowest.then_some(Self { atoms, numerator, denominator })
    }

    /// Whole atoms, and the numerator and the denominator of what is left.
    pub fn parts(&self) -> (u128, u64, u64) {
        (self.atoms, self.numerator, self.denominator)
    }

    /// The whole atoms in it: what a voucher has to cover.
    pub fn floor(&self) -> u128 {
        self.atoms
    }

    pub fn is_whole(&self) -> bool {
        self.numerator == 0
    }

    /// Adds `units` at `price`, with nothing lost.
    ///
    /// Fractions whose common denominator does not fit 64 bits cannot be added: then the new one, which is less than
    /// an atom, is left out, for the payer. Prices of one denominator, or of powers of ten, always can.
    pub fn plus(&self, price: &Price, units: u64) -> Result<Self, MeterError> {
        let total = price.atoms.checked_mul(u128::from(units)).ok_or(MeterError::Overflow)?;
        let per = u128::from(price.per.get());
        let atoms = self.atoms.checked_add(total / per).ok_or(MeterError::Overflow)?;
        // INVARIANT: a remainder is less than what it was divided by, which has 64 bits.
        let rest = u64::try_from(total % per).map_err(|_| MeterError::Overflow)?;
        Self { atoms, ..*self }.plus_fraction(rest, price.per.get())
    }

    fn plus_fraction(self, numerator: u64, denominator: u64) -> Result<Self, MeterError> {
        let Some(common) = (self.denominator / gcd(self.denominator, denominator)).checked_mul(denominator)
        else {
            return Ok(self);
        };
        let scaled = |n: u64, d: u64| u128::from(n) * u128::from(common / d);
        let sum = scaled(self.numerator, self.denominator) + scaled(numerator, denominator);
        let (carry, rest) = (sum / u128::from(common), sum % u128::from(common));
        let atoms = self.atoms.checked_add(carry).ok_or(MeterError::Overflow)?;
        let rest = u64::try_from(rest).map_err(|_| MeterError::Overflow)?;
        let divisor = gcd(rest, common);
        Ok(Self { atoms, numerator: rest / divisor, denominator: common / divisor })
    }
}

impl Default for Exact {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.atoms, self.numerator, self.denominator)
    }
}

/// Counts one stream at one price, for whoever has no channel at hand: the upstream's side, or the payer's own count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    price: Price,
    units: u128,
    exact: Exact,
}

impl Meter {
    pub fn new(price: Price) -> Self {
        Self { price, units: 0, exact: Exact::ZERO }
    }

    /// Counts `units` more, and returns by how many whole atoms that raised the sum.
    pub fn add(&mut self, units: u64) -> Result<u128, MeterError> {
        let exact = self.exact.plus(&self.price, units)?;
        let counted = self.units.checked_add(u128::from(units)).ok_or(MeterError::Overflow)?;
        let more = exact.floor() - self.exact.floor();
        self.exact = exact;
        self.units = counted;
        Ok(more)
    }

    pub fn price(&self) -> &Price {
        &self.price
    }

    pub fn units(&self) -> u128 {
        self.units
    }

    pub fn exact(&self) -> Exact {
        self.exact
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
