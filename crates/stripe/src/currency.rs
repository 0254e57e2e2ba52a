//! Currencies, their minor units, and the least and the most that Stripe charges in them.

use farthing_primitives::{Address, Asset, AssetId, Money, Network, PullMethod};

/// A currency that Stripe charges in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency {
    /// By ISO 4217, in lower case, as Stripe and MPP write it.
    pub code: &'static str,
    /// How many digits its minor unit is after the point, by Stripe's reckoning.
    pub decimals: u8,
    /// The least that is charged, in minor units.
    pub least: u128,
}

/// The most that one charge may be, in minor units: Stripe takes eight digits.
///
/// Source: Stripe API reference, "Create a PaymentIntent", `amount`.
pub const MAX_AMOUNT: u128 = 99_999_999;

const fn two(code: &'static str, least: u128) -> Currency {
    Currency { code, decimals: 2, least }
}

/// Those whose least charge Stripe publishes. What is not here is not offered: a charge that would be refused must not
/// be asked for.
///
/// Source: docs.stripe.com/currencies, "Minimum and maximum charge amounts" and "Zero-decimal currencies". Stripe
/// reckons by the currency that the account settles in, so that a charge in another may be refused all the same.
pub const CURRENCIES: &[Currency] = &[
    two("aed", 200),
    two("aud", 50),
    two("bgn", 100),
    two("brl", 50),
    two("cad", 50),
    two("chf", 50),
    two("czk", 1_500),
    two("dkk", 250),
    two("eur", 50),
    two("gbp", 30),
    two("hkd", 400),
    two("huf", 17_500),
    two("inr", 50),
    Currency { code: "jpy", decimals: 0, least: 50 },
    two("mxn", 1_000),
    two("myr", 200),
    two("nok", 300),
    two("nzd", 50),
    two("pln", 200),
    two("ron", 200),
    two("sek", 300),
    two("sgd", 50),
    two("thb", 1_000),
    two("usd", 50),
];

/// Why a text is not a price that Stripe could charge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    #[error("not a price (expected e.g. \"0.50 USD\")")]
    Malformed,
    #[error("{0} is no currency whose least charge is known")]
    Currency(String),
    #[error(transparent)]
    Amount(#[from] farthing_primitives::AmountError),
    #[error("Stripe charges no less than {least} {code}")]
    TooLittle { least: String, code: String },
    #[error("Stripe charges no more than eight digits")]
    TooMuch,
}

impl Currency {
    /// By its code, in any case.
    pub fn named(code: &str) -> Option<&'static Self> {
        CURRENCIES.iter().find(|known| known.code.eq_ignore_ascii_case(code))
    }

    /// The asset that money of this currency is, where Stripe holds it.
    pub fn asset(&self, network: &Network) -> Option<Asset> {
        let address = Address::parse(network, self.code).ok()?;
        Some(Asset {
            id: AssetId::new(network.clone(), address),
            symbol: self.code.to_ascii_uppercase(),
            decimals: self.decimals,
            // Nobody pulls it by a signature. The field says what a token could do, and is not read here.
            pull: PullMethod::Permit2,
            domain: None,
        })
    }

    /// Whether Stripe charges so much.
    pub fn takes(&self, atoms: u128) -> bool {
        (self.least..=MAX_AMOUNT).contains(&atoms)
    }

    /// Reads `"0.50 USD"`. Nothing is rounded.
    ///
    /// # Errors
    /// [`PriceError::TooLittle`] and [`PriceError::TooMuch`] for what Stripe does not charge.
    pub fn price(text: &str, network: &Network) -> Result<Money, PriceError> {
        let mut words = text.split_ascii_whitespace();
        let (Some(amount), Some(code), None) = (words.next(), words.next(), words.next()) else {
            return Err(PriceError::Malformed);
        };
        let unknown = || PriceError::Currency(code.chars().take(16).collect());
        let currency = Self::named(code).ok_or_else(unknown)?;
        let asset = currency.asset(network).ok_or_else(unknown)?;
        let money = asset.parse(amount)?;
        currency.check(&money, &asset)?;
        Ok(money)
    }

    fn check(&self, money: &Money, asset: &Asset) -> Result<(), PriceError> {
        if money.atoms() < self.least {
            let (least, code) = (asset.format(self.least), asset.symbol.clone());
            return Err(PriceError::TooLittle { least, code });
        }
        if money.atoms() > MAX_AMOUNT {
            return Err(PriceError::TooMuch);
        }
        Ok(())
    }

    /// The currency of money that Stripe holds.
    pub fn of(money: &Money) -> Option<&'static Self> {
        CURRENCIES.iter().find(|known| known.code == money.asset().address().as_str())
    }
}
