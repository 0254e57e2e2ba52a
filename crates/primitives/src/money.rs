use std::fmt;

use crate::AssetId;

/// A quantity of one asset, in atoms (USDC: 1 000 000 atoms = 1 USDC). Never negative.
///
/// There is no `+`, `-` or `*`: mixing assets, overflow and overdraft are errors that the caller must meet.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Money {
    asset: AssetId,
    atoms: u128,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("amounts are of different assets: {0} and {1}")]
    MixedAssets(AssetId, AssetId),
    #[error("the sum does not fit 128 bits")]
    Overflow,
    #[error("more would be taken than there is")]
    Overdraft,
    #[error("division by zero")]
    DivisionByZero,
}

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("the amount is empty")]
    Empty,
    #[error("the amount is not a plain decimal number")]
    NotDecimal,
    #[error("the amount has leading zeros")]
    LeadingZeros,
    #[error("the amount has more decimal digits than the asset's {decimals}")]
    TooPrecise { decimals: u8 },
    #[error("the amount does not fit 128 bits")]
    TooLarge,
}

impl Money {
    pub fn new(asset: AssetId, atoms: u128) -> Self {
        Self { asset, atoms }
    }

    pub fn asset(&self) -> &AssetId {
        &self.asset
    }

    pub fn atoms(&self) -> u128 {
        self.atoms
    }

    pub fn is_zero(&self) -> bool {
        self.atoms == 0
    }

    pub fn checked_add(&self, other: &Self) -> Result<Self, MoneyError> {
        self.same_asset(other)?;
        let atoms = self.atoms.checked_add(other.atoms).ok_or(MoneyError::Overflow)?;
        Ok(Self::new(self.asset.clone(), atoms))
    }

    pub fn checked_sub(&self, other: &Self) -> Result<Self, MoneyError> {
        self.same_asset(other)?;
        let atoms = self.atoms.checked_sub(other.atoms).ok_or(MoneyError::Overdraft)?;
        Ok(Self::new(self.asset.clone(), atoms))
    }

    /// The share `numerator / denominator`, rounded down, and the rest. The two always sum to the whole.
    ///
    /// # Errors
    /// [`MoneyError::DivisionByZero`]; [`MoneyError::Overdraft`] if the fraction is above one;
    /// [`MoneyError::Overflow`] if the product does not fit 128 bits.
    pub fn split(&self, numerator: u64, denominator: u64) -> Result<(Self, Self), MoneyError> {
        if denominator == 0 {
            return Err(MoneyError::DivisionByZero);
        }
        if numerator > denominator {
            return Err(MoneyError::Overdraft);
        }
        let product = self.atoms.checked_mul(u128::from(numerator)).ok_or(MoneyError::Overflow)?;
        let share = Self::new(self.asset.clone(), product / u128::from(denominator));
        let rest = self.checked_sub(&share)?;
        Ok((share, rest))
    }

    /// Whether `self` is more than `other`.
    pub fn exceeds(&self, other: &Self) -> Result<bool, MoneyError> {
        self.same_asset(other)?;
        Ok(self.atoms > other.atoms)
    }

    fn same_asset(&self, other: &Self) -> Result<(), MoneyError> {
        if self.asset == other.asset {
            Ok(())
        } else {
            Err(MoneyError::MixedAssets(self.asset.clone(), other.asset.clone()))
        }
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.atoms, self.asset)
    }
}

/// Reads a count of atoms as the wire writes it: decimal digits only.
///
/// Refuses signs, exponents, points, blanks, leading zeros and anything beyond 128 bits, so that one number has
/// one spelling.
pub fn parse_atoms(text: &str) -> Result<u128, AmountError> {
    if text.is_empty() {
        return Err(AmountError::Empty);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AmountError::NotDecimal);
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(AmountError::LeadingZeros);
    }
    text.parse().map_err(|_| AmountError::TooLarge)
}

pub(crate) fn parse_decimal(text: &str, decimals: u8) -> Result<u128, AmountError> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return Err(AmountError::NotDecimal),
        Some((whole, fraction)) => (whole, fraction),
        None => (text, ""),
    };
    let whole = parse_atoms(whole)?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AmountError::NotDecimal);
    }
    if fraction.len() > usize::from(decimals) {
        return Err(AmountError::TooPrecise { decimals });
    }
    let scale = 10u128.checked_pow(u32::from(decimals)).ok_or(AmountError::TooLarge)?;
    let digits = if fraction.is_empty() { "0" } else { fraction };
    let missing = usize::from(decimals) - fraction.len();
    let missing = u32::try_from(missing).map_err(|_| AmountError::TooLarge)?;
    let parsed: u128 = digits.parse().map_err(|_| AmountError::TooLarge)?;
    // An absent fraction is zero however far it is scaled.
    let scaled = if fraction.is_empty() {
        0
    } else {
        10u128.checked_pow(missing).and_then(|m| parsed.checked_mul(m)).ok_or(AmountError::TooLarge)?
    };
    whole.checked_mul(scale).and_then(|w| w.checked_add(scaled)).ok_or(AmountError::TooLarge)
}

pub(crate) fn format_decimal(atoms: u128, decimals: u8) -> String {
    let digits = format!("{atoms:0>width$}", width = usize::from(decimals) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}
