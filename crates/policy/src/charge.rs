use std::fmt;

use farthing_primitives::{AmountError, AssetId, Money, Registry, parse_atoms};

/// A quantity of dollars, in units of 10^-18, so that dollar tokens of different decimals add up exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dollars(pub u128);

/// How many decimal digits [`Dollars`] counts.
pub const DOLLAR_DECIMALS: u8 = 18;

const DOLLAR: u128 = 1_000_000_000_000_000_000;

impl Dollars {
    /// Reads a plain decimal, with or without `$` in front.
    ///
    /// # Errors
    /// [`AmountError`]; nothing is rounded.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let text = text.strip_prefix('$').unwrap_or(text);
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(AmountError::NotDecimal),
            Some((whole, fraction)) => (whole, fraction),
            None => (text, "0"),
        };
        let whole = parse_atoms(whole)?.checked_mul(DOLLAR).ok_or(AmountError::TooLarge)?;
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AmountError::NotDecimal);
        }
        if fraction.len() > usize::from(DOLLAR_DECIMALS) {
            return Err(AmountError::TooPrecise { decimals: DOLLAR_DECIMALS });
        }
        let padded = format!("{fraction:0<width$}", width = usize::from(DOLLAR_DECIMALS));
        let fraction: u128 = padded.parse().map_err(|_| AmountError::TooLarge)?;
        whole.checked_add(fraction).map(Self).ok_or(AmountError::TooLarge)
    }

    /// As [`fmt::Display`] prints it, without the sign.
    pub fn plain(self) -> String {
        let fraction = format!("{:0>18}", self.0 % DOLLAR);
        let fraction = fraction.trim_end_matches('0');
        let whole = self.0 / DOLLAR;
        if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.plain())
    }
}

/// What a cap counts: one asset in atoms, or everything that is a dollar, in [`Dollars`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    Dollar,
    Asset(AssetId),
}

/// `dollar`, or the asset in its CAIP-19 form.
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dollar => f.write_str("dollar"),
            Self::Asset(id) => fmt::Display::fmt(id, f),
        }
    }
}

/// What a payment costs in every way that a cap may count it. Built from the token registry only, never from what a
/// peer says about decimals or names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    money: Money,
    symbol: String,
    decimals: u8,
    dollars: Option<Dollars>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChargeError {
    #[error("the token {0} is not in the registry, whatever it calls itself")]
    UnknownAsset(AssetId),
    #[error("{0:?} is more dollars than can be counted")]
    TooLarge(Money),
}

impl Charge {
    /// # Errors
    /// [`ChargeError::UnknownAsset`] if the registry does not list the asset.
    pub fn of(registry: &Registry, money: Money) -> Result<Self, ChargeError> {
        let Some(asset) = registry.get(money.asset()) else {
            return Err(ChargeError::UnknownAsset(money.asset().clone()));
        };
        let dollars = if registry.is_dollar(&asset.id) {
            let too_large = || ChargeError::TooLarge(money.clone());
            Some(to_dollars(money.atoms(), asset.decimals).ok_or_else(too_large)?)
        } else {
            None
        };
        Ok(Self { symbol: asset.symbol.clone(), decimals: asset.decimals, dollars, money })
    }

    pub fn money(&self) -> &Money {
        &self.money
    }

    /// `None` if the asset is not a dollar by the registry.
    pub fn dollars(&self) -> Option<Dollars> {
        self.dollars
    }

    pub fn symbol(&self) -> &str {
        &self.symbol
    }

    pub fn decimals(&self) -> u8 {
        self.decimals
    }

    /// So many dollars as atoms of this asset, at par; `None` if that is no whole number of them, or too many.
    pub fn atoms_of_dollars(&self, dollars: Dollars) -> Option<u128> {
        match DOLLAR_DECIMALS.checked_sub(self.decimals) {
            Some(down) => {
                let each = 10u128.checked_pow(down.into())?;
                dollars.0.is_multiple_of(each).then(|| dollars.0 / each)
            }
            None => dollars.0.checked_mul(10u128.checked_pow((self.decimals - DOLLAR_DECIMALS).into())?),
        }
    }

    /// How much of `bucket` this is; `None` if it does not count there.
    pub fn amount_in(&self, bucket: &Bucket) -> Option<u128> {
        match bucket {
            Bucket::Dollar => self.dollars.map(|dollars| dollars.0),
            Bucket::Asset(id) => (id == self.money.asset()).then(|| self.money.atoms()),
        }
    }
}

/// At par. A fraction of the smallest counted unit counts as a whole one, in favour of the cap.
fn to_dollars(atoms: u128, decimals: u8) -> Option<Dollars> {
    match DOLLAR_DECIMALS.checked_sub(decimals) {
        Some(up) => atoms.checked_mul(10u128.checked_pow(up.into())?).map(Dollars),
        None => Some(Dollars(atoms.div_ceil(10u128.checked_pow((decimals - DOLLAR_DECIMALS).into())?))),
    }
}
