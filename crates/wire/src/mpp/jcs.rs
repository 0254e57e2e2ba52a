//! JSON in its canonical form, as ids are computed over it.
//!
//! Spec: RFC 8785. Numbers are whole and at most 2^53 - 1 in size, in any spelling (`1.0` prints as `1`); anything else
//! is refused, because readers differ on it and no message of the protocol needs it: amounts are strings.

use super::MppError;
use crate::json::print_string;
use crate::{Json, Object};

/// Prints in canonical form: no blanks, keys in the order of their UTF-16 code units, shortest escapes.
///
/// # Errors
/// [`MppError::UnsafeNumber`] for a fraction or a number beyond 2^53 - 1.
pub fn print(object: &Object) -> Result<String, MppError> {
    let mut out = String::with_capacity(256);
    print_object(&mut out, object)?;
    Ok(out)
}

fn print_object(out: &mut String, object: &Object) -> Result<(), MppError> {
    let mut members: Vec<(&str, &Json)> = object.iter().collect();
    // Spec: RFC 8785 section 3.2.3. In ASCII the order of bytes is the order of code units.
    if object.iter().all(|(key, _)| key.is_ascii()) {
        members.sort_unstable_by_key(|(key, _)| *key);
    } else {
        members.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    }
    out.push('{');
    for (at, (key, value)) in members.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, key);
        out.push(':');
        print_value(out, value)?;
    }
    out.push('}');
    Ok(())
}

fn print_value(out: &mut String, value: &Json) -> Result<(), MppError> {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Number(number) => {
            let whole = number.as_safe_integer().ok_or(MppError::UnsafeNumber)?;
            out.push_str(&whole.to_string());
        }
        Json::String(text) => push_string(out, text),
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                print_value(out, item)?;
            }
            out.push(']');
        }
        Json::Object(object) => print_object(out, object)?,
    }
    Ok(())
}

fn push_string(out: &mut String, text: &str) {
    // INVARIANT: writing to a String does not fail.
    let _ = print_string(out, text);
}
