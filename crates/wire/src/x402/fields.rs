//! Reading the members of an object, each with an error that names it.

use farthing_primitives::{AmountError, Network, parse_atoms};

use super::{Extensions, WireAddress, WireError};
use crate::{Json, Object};

/// The members of a message, taken out one by one; what nobody took is carried along.
pub(crate) struct Fields(Object);

impl Fields {
    pub fn of(json: Json) -> Result<Self, WireError> {
        if let Json::Object(object) = json { Ok(Self(object)) } else { Err(WireError::NotAnObject) }
    }

    /// The members that no field of ours stands for.
    pub fn rest(self) -> Object {
        self.0
    }

    /// The member, or `None` if it is absent or null.
    pub fn take(&mut self, field: &'static str) -> Option<Json> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    pub fn require(&mut self, field: &'static str) -> Result<Json, WireError> {
        self.take(field).ok_or(WireError::Missing { field })
    }

    /// Takes `x402Version` and checks that it is `expected`.
    pub fn version(&mut self, expected: u64) -> Result<(), WireError> {
        match self.take_version() {
            Some(version) if version == expected => Ok(()),
            other => Err(WireError::Version(other)),
        }
    }

    pub fn take_version(&mut self) -> Option<u64> {
        self.take("x402Version").and_then(|version| version.as_u64())
    }

    pub fn string(&mut self, field: &'static str) -> Result<String, WireError> {
        self.optional_string(field)?.ok_or(WireError::Missing { field })
    }

    pub fn optional_string(&mut self, field: &'static str) -> Result<Option<String>, WireError> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(WireError::WrongType { field, expected: "a string" }),
        }
    }

    pub fn nonempty_string(&mut self, field: &'static str) -> Result<String, WireError> {
        let text = self.string(field)?;
        if text.is_empty() { Err(WireError::Empty { field }) } else { Ok(text) }
    }

    pub fn object(&mut self, field: &'static str) -> Result<Object, WireError> {
        self.optional_object(field)?.ok_or(WireError::Missing { field })
    }

    pub fn optional_object(&mut self, field: &'static str) -> Result<Option<Object>, WireError> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Object(object)) => Ok(Some(object)),
            Some(_) => Err(WireError::WrongType { field, expected: "an object" }),
        }
    }

    pub fn array(&mut self, field: &'static str, limit: usize) -> Result<Vec<Json>, WireError> {
        self.optional_array(field, limit)?.ok_or(WireError::Missing { field })
    }

    pub fn optional_array(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<Option<Vec<Json>>, WireError> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Array(items)) if items.len() > limit => Err(WireError::TooMany { field, limit }),
            Some(Json::Array(items)) => Ok(Some(items)),
            Some(_) => Err(WireError::WrongType { field, expected: "an array" }),
        }
    }

    pub fn boolean(&mut self, field: &'static str) -> Result<bool, WireError> {
        self.require(field)?.as_bool().ok_or(WireError::WrongType { field, expected: "true or false" })
    }

    /// A whole number above zero.
    pub fn positive(&mut self, field: &'static str) -> Result<u64, WireError> {
        match self.require(field)?.as_u64() {
            None | Some(0) => Err(WireError::WrongType { field, expected: "a whole number above zero" }),
            Some(value) => Ok(value),
        }
    }

    pub fn atoms(&mut self, field: &'static str) -> Result<u128, WireError> {
        atoms(&self.string(field)?, field)
    }

    pub fn caip2(&mut self, field: &'static str) -> Result<Network, WireError> {
        Ok(self.string(field)?.parse()?)
    }

    pub fn address(&mut self, network: &Network, field: &'static str) -> Result<WireAddress, WireError> {
        WireAddress::parse(network, &self.string(field)?).map_err(|error| WireError::Address { field, error })
    }

    pub fn extensions(&mut self) -> Result<Option<Extensions>, WireError> {
        self.optional_object("extensions")?.map(Extensions::from_object).transpose()
    }
}

/// Reads an amount, telling a number that is too large from a text that is none.
pub(crate) fn atoms(text: &str, field: &'static str) -> Result<u128, WireError> {
    parse_atoms(text).map_err(|error| match error {
        AmountError::TooLarge => WireError::BeyondU128 { field },
        error => WireError::Amount { field, error },
    })
}

/// A string member of an object that stays where it is.
pub(crate) fn text<'a>(object: &'a Object, field: &'static str) -> Result<&'a str, WireError> {
    match object.get(field) {
        None | Some(Json::Null) => Err(WireError::Missing { field }),
        Some(Json::String(text)) => Ok(text),
        Some(_) => Err(WireError::WrongType { field, expected: "a string" }),
    }
}

/// An object member of an object that stays where it is.
pub(crate) fn object<'a>(object: &'a Object, field: &'static str) -> Result<&'a Object, WireError> {
    match object.get(field) {
        None | Some(Json::Null) => Err(WireError::Missing { field }),
        Some(Json::Object(inner)) => Ok(inner),
        Some(_) => Err(WireError::WrongType { field, expected: "an object" }),
    }
}
