//! JSON as the protocols need it: ordered, exact, bounded, and without duplicate keys.

mod parse;
mod print;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

pub use parse::{JsonError, Limits, MAX_DEPTH, parse};
pub(crate) use print::string as print_string;

/// A JSON value that prints as it was read, blanks aside.
///
/// `==` compares as the x402 packages do: the order of an object's keys and the spelling of a number
/// (`1`, `1.0`, `1e0`) do not matter; the order of an array does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Object),
}

impl Json {
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Number(number) = self { number.as_u64() } else { None }
    }

    pub fn as_array(&self) -> Option<&[Json]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether everything in `self` is in `other`: objects may have more members there, at any level; all else is
    /// equal.
    ///
    /// This is how an x402 server compares what it offered with what the client echoes.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(mine), Self::Object(theirs)) => mine.is_subset_of(theirs),
            _ => self == other,
        }
    }
}

/// An object whose members keep the order they were read or inserted in. No key occurs twice.
#[derive(Clone, Debug, Default)]
pub struct Object(Vec<(String, Json)>);

impl Object {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The text under `key`, if there is one and it is a string.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Json::as_str)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Puts `value` under `key`: in the place of what was there, else last.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Json>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// [`Object::insert`], for building in one expression.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Json>) -> Self {
        self.insert(key, value);
        self
    }

    /// [`Object::with`] if there is a value; else no member at all.
    #[must_use]
    pub fn with_some(self, key: impl Into<String>, value: Option<impl Into<Json>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Takes the member out, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Json> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Whether each member is also in `other`, with at least what it has here.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.iter().all(|(key, mine)| other.get(key).is_some_and(|theirs| mine.is_subset_of(theirs)))
    }

    pub(crate) fn append(&mut self, other: &Self) {
        for (key, value) in other.iter() {
            if !self.contains_key(key) {
                self.0.push((key.to_owned(), value.clone()));
            }
        }
    }

    /// INVARIANT: the caller has seen to it that no key occurs twice.
    fn from_unique(members: Vec<(String, Json)>) -> Self {
        Self(members)
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        // Keys are unique, so equal sizes and one inclusion make two equal sets.
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl Eq for Object {}

/// A number in the text it arrived in. Equal by exact decimal value, never by a float.
#[derive(Clone)]
pub struct Number(Box<str>);

impl Number {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, if it is written as plain digits and fits. `1.0` and `1e3` are not plain digits.
    pub fn as_u64(&self) -> Option<u64> {
        if self.0.bytes().all(|b| b.is_ascii_digit()) { self.0.parse().ok() } else { None }
    }

    /// The value, if it is whole, in whatever spelling, and exact in every reader: at most 2^53 - 1 in size.
    pub fn as_safe_integer(&self) -> Option<i64> {
        const MAX_SAFE: i64 = (1 << 53) - 1;
        let (negative, digits, power) = self.canonical()?;
        let mut value: i64 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        for _ in 0..u8::try_from(power).ok()? {
            value = value.checked_mul(10)?;
        }
        (value <= MAX_SAFE).then_some(if negative { -value } else { value })
    }

    /// INVARIANT: `text` follows the grammar of a JSON number.
    fn from_checked(text: &str) -> Self {
        Self(text.into())
    }

    /// Sign, significant digits and the power of ten of the last digit; `None` if the exponent is absurd.
    fn canonical(&self) -> Option<(bool, String, i64)> {
        let (mantissa, exponent) = match self.0.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (&*self.0, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        if digits.is_empty() {
            return Some((false, String::new(), 0));
        }
        let trailing = all.len() - all.trim_end_matches('0').len();
        let shift = i64::try_from(trailing).ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some((negative, digits.to_owned(), exponent.checked_add(shift)?))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        if self.0 == other.0 {
            return true;
        }
        matches!((self.canonical(), other.canonical()), (Some(mine), Some(theirs)) if mine == theirs)
    }
}

impl Eq for Number {}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self(value.to_string().into())
    }
}

impl From<u64> for Json {
    fn from(value: u64) -> Self {
        Self::Number(value.into())
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for Json {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<Object> for Json {
    fn from(value: Object) -> Self {
        Self::Object(value)
    }
}

impl From<Vec<Json>> for Json {
    fn from(value: Vec<Json>) -> Self {
        Self::Array(value)
    }
}

impl<K: Into<String>, V: Into<Json>> FromIterator<(K, V)> for Object {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(members: T) -> Self {
        let mut object = Self::new();
        for (key, value) in members {
            object.insert(key, value);
        }
        object
    }
}
