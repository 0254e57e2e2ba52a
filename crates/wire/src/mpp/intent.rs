//! The requests of the intents, before a method's own details are read.

use std::fmt;

use super::{MppError, WireTime};
use crate::x402::fields::Fields;
use crate::{Json, Object};

/// The request of intent `charge`: one payment, now.
///
/// Spec: draft-payment-intent-charge-00, "Request Schema".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRequest {
    /// In the smallest unit of `currency`: atoms of a token, cents.
    pub amount: u128,
    /// A token's address, a currency code in lower case, or what the method defines.
    pub currency: String,
    pub recipient: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// The merchant's own reference.
    pub external_id: Option<String>,
    pub method_details: Option<Object>,
    pub other: Object,
}

/// The request of intent `session`: payment by the unit.
///
/// Spec: draft-evm-session-00, "Request Schema".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// The price of one unit, in atoms.
    pub amount: u128,
    pub unit_type: Option<String>,
    /// What the server suggests to deposit, in atoms.
    pub suggested_deposit: Option<u128>,
    pub currency: String,
    pub recipient: Option<String>,
    pub description: Option<String>,
    pub external_id: Option<String>,
    pub method_details: Option<Object>,
    pub other: Object,
}

/// The request of intent `subscription`: the amount in each period.
///
/// Spec: draft-payment-intent-subscription-00.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRequest {
    pub charge: ChargeRequest,
    pub period_unit: PeriodUnit,
    /// So many units make a period. Above zero.
    pub period_count: u64,
    pub expires: Option<WireTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeriodUnit {
    Day,
    Week,
    Month,
}

impl ChargeRequest {
    pub fn new(amount: u128, currency: impl Into<String>) -> Self {
        Self {
            amount,
            currency: currency.into(),
            recipient: None,
            description: None,
            external_id: None,
            method_details: None,
            other: Object::new(),
        }
    }

    pub fn from_object(object: &Object) -> Result<Self, MppError> {
        let mut fields = Fields::of(Json::Object(object.clone()))?;
        Ok(Self {
            amount: fields.atoms("amount")?,
            currency: fields.nonempty_string("currency")?,
            recipient: fields.optional_string("recipient")?,
            description: fields.optional_string("description")?,
            external_id: fields.optional_string("externalId")?,
            method_details: fields.optional_object("methodDetails")?,
            other: fields.rest(),
        })
    }

    pub fn to_object(&self) -> Object {
        let mut object = Object::new()
            .with("amount", self.amount.to_string())
            .with("currency", self.currency.as_str())
            .with_some("recipient", self.recipient.as_deref())
            .with_some("description", self.description.as_deref())
            .with_some("externalId", self.external_id.as_deref())
            .with_some("methodDetails", self.method_details.clone());
        object.append(&self.other);
        object
    }

    pub(super) fn details(&self) -> Result<&Object, MppError> {
        self.method_details.as_ref().ok_or(MppError::missing("methodDetails"))
    }
}

impl SessionRequest {
    pub fn from_object(object: &Object) -> Result<Self, MppError> {
        let mut fields = Fields::of(Json::Object(object.clone()))?;
        let deposit = fields.optional_string("suggestedDeposit")?;
        let deposit =
            deposit.map(|text| crate::x402::fields::atoms(&text, "suggestedDeposit")).transpose()?;
        Ok(Self {
            amount: fields.atoms("amount")?,
            unit_type: fields.optional_string("unitType")?,
            suggested_deposit: deposit,
            currency: fields.nonempty_string("currency")?,
            recipient: fields.optional_string("recipient")?,
            description: fields.optional_string("description")?,
            external_id: fields.optional_string("externalId")?,
            method_details: fields.optional_object("methodDetails")?,
            other: fields.rest(),
        })
    }

    pub fn to_object(&self) -> Object {
        let mut object = Object::new()
            .with("amount", self.amount.to_string())
            .with_some("unitType", self.unit_type.as_deref())
            .with_some("suggestedDeposit", self.suggested_deposit.map(|atoms| atoms.to_string()))
            .with("currency", self.currency.as_str())
            .with_some("recipient", self.recipient.as_deref())
            .with_some("description", self.description.as_deref())
            .with_some("externalId", self.external_id.as_deref())
            .with_some("methodDetails", self.method_details.clone());
        object.append(&self.other);
        object
    }
}

impl SubscriptionRequest {
    pub fn from_object(object: &Object) -> Result<Self, MppError> {
        let mut charge = ChargeRequest::from_object(object)?;
        let mut fields = Fields::of(Json::Object(std::mem::take(&mut charge.other)))?;
        let period_unit = match fields.string("periodUnit")?.as_str() {
            "day" => PeriodUnit::Day,
            "week" => PeriodUnit::Week,
            "month" => PeriodUnit::Month,
            _ => return Err(MppError::Unknown { field: "periodUnit" }),
        };
        let count = fields.atoms("periodCount")?;
        let bad = MppError::BadForm { field: "periodCount" };
        let period_count = u64::try_from(count).ok().filter(|count| *count > 0).ok_or(bad)?;
        let expires = fields.optional_string("subscriptionExpires")?;
        let expires = expires.map(|text| WireTime::read(&text, "subscriptionExpires")).transpose()?;
        charge.other = fields.rest();
        Ok(Self { charge, period_unit, period_count, expires })
    }

    pub fn to_object(&self) -> Object {
        self.charge
            .to_object()
            .with("periodUnit", self.period_unit.to_string())
            .with("periodCount", self.period_count.to_string())
            .with_some("subscriptionExpires", self.expires.as_ref().map(WireTime::as_str))
    }
}

impl fmt::Display for PeriodUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        })
    }
}
