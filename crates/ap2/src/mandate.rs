//! The things that mandates name.

use farthing_primitives::Timestamp;
use farthing_wire::mpp::WireTime;
use farthing_wire::{Json, Object};

use crate::MAX_TEXT_BYTES;
use crate::refusal::Refusal;

/// Minor units of a currency (199.00 USD is 19900), and never a negative number of them.
///
/// Spec: AP2 `types/amount.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    pub minor: u64,
    /// Three capital letters. Spec: ISO 4217.
    pub currency: String,
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without a table of exponents nobody can say where the point is.
        write!(f, "{} {} (minor units)", self.minor, self.currency)
    }
}

impl Amount {
    pub(crate) fn read(value: &Json, name: &'static str) -> Result<Self, Refusal> {
        let object = value.as_object().ok_or(Refusal::Amount(name))?;
        if object.len() != 2 {
            return Err(Refusal::Amount(name));
        }
        let minor = object.get("amount").and_then(minor_units).ok_or(Refusal::Amount(name))?;
        let currency = object.get("currency").and_then(currency).ok_or(Refusal::Amount(name))?;
        Ok(Self { minor, currency })
    }
}

/// Plain digits only: `1.0`, `1e3`, `"1"` and `-0` are none.
pub(crate) fn minor_units(value: &Json) -> Option<u64> {
    value.as_u64()
}

pub(crate) fn currency(value: &Json) -> Option<String> {
    let text = value.as_str()?;
    (text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())).then(|| text.to_owned())
}

/// Spec: AP2 `types/merchant.json`. The prose has an example without `id`, so an allowed one may lack it; a payee may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merchant {
    pub id: Option<String>,
    pub name: String,
    pub website: Option<String>,
}

impl Merchant {
    pub(crate) fn read(value: &Json) -> Option<Self> {
        let object = value.as_object()?;
        Some(Self {
            id: optional(object, "id")?,
            name: text(object, "name")?,
            website: optional(object, "website")?,
        })
    }

    /// Whether `self`, which is allowed, is `other`: its id is, and where both say more, they say the same. Whoever is
    /// allowed without an id is nobody: a name and a website are what the agent says of a payee, who is paid by the id.
    pub(crate) fn allows(&self, other: &Self) -> bool {
        let agree = |mine: &Option<String>, theirs: &Option<String>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => true,
        };
        self.id.is_some()
            && self.id == other.id
            && self.name == other.name
            && agree(&self.website, &other.website)
    }
}

/// Spec: AP2 `types/payment_instrument.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instrument {
    pub id: String,
    pub kind: String,
    pub description: Option<String>,
}

impl Instrument {
    pub(crate) fn read(value: &Json) -> Option<Self> {
        let object = value.as_object()?;
        Some(Self {
            id: text(object, "id")?,
            kind: text(object, "type")?,
            description: optional(object, "description")?,
        })
    }

    /// The description is for people, and identifies nothing.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.kind == other.kind
    }
}

/// A payment initiation service provider. Spec: AP2 `types/pisp.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pisp {
    pub legal_name: String,
    pub brand_name: String,
    pub domain_name: String,
}

impl Pisp {
    pub(crate) fn read(value: &Json) -> Option<Self> {
        let object = value.as_object()?;
        let member = |name| text(object, name);
        Some(Self {
            legal_name: member("legal_name")?,
            brand_name: member("brand_name")?,
            domain_name: member("domain_name")?,
        })
    }
}

/// Text that is there, not empty, and short enough.
pub(crate) fn text(object: &Object, name: &str) -> Option<String> {
    let text = object.get_str(name)?;
    (!text.is_empty() && text.len() <= MAX_TEXT_BYTES).then(|| text.to_owned())
}

/// `None` if it is there and is no such text.
fn optional(object: &Object, name: &str) -> Option<Option<String>> {
    match object.get(name) {
        None => Some(None),
        Some(_) => text(object, name).map(Some),
    }
}

/// A moment, never its text: `09:00+02:00` is before `08:00Z`, and does not look like it.
///
/// A date without a time is refused: it ends at another moment in each time zone.
///
/// Spec: AP2 says "ISO8601 date"; its examples are RFC 3339.
pub(crate) fn moment(value: &Json, name: &'static str) -> Result<Timestamp, Refusal> {
    let text = value.as_str().ok_or(Refusal::Date(name))?;
    // What is finer than a millisecond would be cut off, and might have decided.
    if text.split_once('.').is_some_and(|(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count() > 3) {
        return Err(Refusal::Date(name));
    }
    text.parse::<WireTime>().map(|time| time.at()).map_err(|_| Refusal::Date(name))
}
