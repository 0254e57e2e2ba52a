use std::fmt::{self, Write};

use super::{Json, Object};

/// Prints without blanks, escaping exactly what JavaScript's `JSON.stringify` escapes, so that what the x402
/// packages wrote comes out as the bytes they wrote.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => f.write_str(if *value { "true" } else { "false" }),
            Self::Number(number) => f.write_str(number.as_str()),
            Self::String(text) => string(f, text),
            Self::Array(items) => {
                f.write_char('[')?;
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        f.write_char(',')?;
                    }
                    fmt::Display::fmt(item, f)?;
                }
                f.write_char(']')
            }
            Self::Object(object) => fmt::Display::fmt(object, f),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        for (at, (key, value)) in self.iter().enumerate() {
            if at > 0 {
                f.write_char(',')?;
            }
            string(f, key)?;
            f.write_char(':')?;
            fmt::Display::fmt(value, f)?;
        }
        f.write_char('}')
    }
}

/// A string with its quotes, in the escapes of `JSON.stringify`, which are also those of RFC 8785.
pub(crate) fn string<W: Write>(f: &mut W, text: &str) -> fmt::Result {
    f.write_char('"')?;
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // Only ASCII bytes are escaped, so both cuts are on character boundaries.
        f.write_str(&text[plain..at])?;
        plain = at + 1;
        match byte {
            b'"' => f.write_str("\\\"")?,
            b'\\' => f.write_str("\\\\")?,
            0x08 => f.write_str("\\b")?,
            0x09 => f.write_str("\\t")?,
            0x0a => f.write_str("\\n")?,
            0x0c => f.write_str("\\f")?,
            0x0d => f.write_str("\\r")?,
            other => write!(f, "\\u{other:04x}")?,
        }
    }
    f.write_str(&text[plain..])?;
    f.write_char('"')
}
