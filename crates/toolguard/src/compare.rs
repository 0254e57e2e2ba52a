//! Whether a condition holds: yes, no, or it cannot be told. Who evaluates wants a yes, who asks for approval a no.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::decimal::Decimal;
use crate::policy::{Scalar, Test};

/// The longest text that a pattern is matched with, in bytes.
pub const MAX_MATCHED_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    Yes,
    No,
    /// The argument is not there.
    Missing,
    /// The argument is nothing that compares with what the policy says.
    Unlike,
}

impl Truth {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            unclear => unclear,
        }
    }
}

/// What stands at a path, one level of objects after the other.
pub fn at<'a>(arguments: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(arguments.get(first)?, |value, part| value.as_object()?.get(part))
}

pub fn test(test: &Test, value: Option<&Value>) -> Truth {
    let value = value.filter(|value| !value.is_null());
    if let Test::Exists(expected) = test {
        return Truth::of(value.is_some() == *expected);
    }
    let Some(value) = value else { return Truth::Missing };
    let compare = |limit: &Decimal, good: &[Ordering]| match number(value) {
        Some(number) => Truth::of(good.contains(&number.cmp(limit))),
        None => Truth::Unlike,
    };
    match test {
        Test::Exists(_) => Truth::Missing,
        Test::Eq(expected) => same(value, expected),
        Test::Neq(expected) => same(value, expected).not(),
        Test::In(list) => any(list.iter().map(|expected| same(value, expected))),
        Test::NotIn(list) => any(list.iter().map(|expected| same(value, expected))).not(),
        Test::Lt(limit) => compare(limit, &[Ordering::Less]),
        Test::Lte(limit) => compare(limit, &[Ordering::Less, Ordering::Equal]),
        Test::Gt(limit) => compare(limit, &[Ordering::Greater]),
        Test::Gte(limit) => compare(limit, &[Ordering::Greater, Ordering::Equal]),
        Test::Regex(pattern) => match value {
            Value::String(text) if text.len() <= MAX_MATCHED_BYTES => Truth::of(pattern.0.is_match(text)),
            _ => Truth::Unlike,
        },
        Test::Contains(expected) => match (value, expected) {
            (Value::String(text), Scalar::Text(part)) => Truth::of(text.contains(part)),
            (Value::Array(items), _) => any(items.iter().map(|item| same(item, expected))),
            _ => Truth::Unlike,
        },
    }
}

/// The same for a counter.
pub fn test_count(test: &Test, count: u128) -> Truth {
    // INVARIANT: a number of 128 bits is one of JSON by its digits.
    self::test(test, Some(&Value::String(count.to_string())))
}

/// Whether one of them is a yes; whether all are a clear no.
fn any(truths: impl Iterator<Item = Truth>) -> Truth {
    let mut all = Truth::No;
    for truth in truths {
        match truth {
            Truth::Yes => return Truth::Yes,
            Truth::No => {}
            unclear => all = unclear,
        }
    }
    all
}

/// The number that an argument is: one of JSON, or its digits as a text, which is how x402 and MPP write amounts.
///
/// What is decided on is what is sent on: a number that was read as a float is compared by the digits that it is
/// printed with, and one that is printed with an exponent is none.
pub fn number(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(number) => Decimal::parse(&number.to_string()),
        Value::String(text) => Decimal::parse(text),
        _ => None,
    }
}

/// Whether an argument is what the policy says. Numbers compare as numbers and everything else as text, as in Intercept;
/// what is alike in one way and different in the other cannot be told.
fn same(value: &Value, expected: &Scalar) -> Truth {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        // A list that holds a forbidden value is not another value than that.
        Value::Null | Value::Array(_) | Value::Object(_) => return Truth::Unlike,
    };
    let (expected_text, expected_number) = match expected {
        Scalar::Bool(value) => (value.to_string(), None),
        Scalar::Number(number) => (number.to_string(), Some(number.clone())),
        Scalar::Text(text) => (text.clone(), Decimal::parse(text)),
    };
    let equal_numbers = number(value).zip(expected_number).map(|(a, b)| a == b);
    let both_numbers = value.is_number() && matches!(expected, Scalar::Number(_));
    match (text == expected_text, equal_numbers) {
        (true, _) => Truth::Yes,
        (false, Some(true)) if both_numbers => Truth::Yes,
        (false, Some(true)) => Truth::Unlike,
        (false, Some(false) | None) => Truth::No,
    }
}

/// By how much a call counts: a whole number that is not negative, as digits of JSON or of a text.
pub fn increment(value: &Value) -> Option<u128> {
    match value {
        // A float is not one, whatever it is printed as.
        Value::Number(number) => number.as_u64().map(u128::from),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Decimal::parse(text)?.units(0)
        }
        _ => None,
    }
}
