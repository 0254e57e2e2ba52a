//! RFC 8785 (JCS) for the part of JSON that leaves use: texts, booleans, lists and objects. There are no numbers, whose
//! printing is the difficult part of it: a number is a text of decimal digits.

use std::collections::BTreeMap;

/// How deep lists and objects may lie in one another.
pub const MAX_DEPTH: usize = 6;

/// A value of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Flag(bool),
    List(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

/// Why bytes are no canonical value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    #[error("it is no JSON")]
    Json,
    #[error("it holds a number or a null")]
    Kind,
    #[error("a name in it is not printable ASCII")]
    Name,
    #[error("it is deeper than {MAX_DEPTH}")]
    Depth,
    #[error("it is not in canonical form")]
    Form,
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number, as the text of its decimal digits.
    pub fn number(number: impl Into<u128>) -> Self {
        Self::Text(number.into().to_string())
    }

    pub fn list<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Flag(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The one way to write this value.
    pub fn print(&self) -> String {
        let mut out = String::new();
        write(self, &mut out);
        out
    }

    /// Reads a value that is written in the one way there is.
    ///
    /// # Errors
    /// [`NotCanonical`]; also where a name comes twice, which its one way of writing would not do.
    pub fn read(bytes: &[u8]) -> Result<Self, NotCanonical> {
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| NotCanonical::Json)?;
        let value = convert(json, MAX_DEPTH)?;
        // What prints as it was read has one meaning: the order of names, spaces, escapes and names that come twice
        // all show here.
        if value.print().as_bytes() == bytes { Ok(value) } else { Err(NotCanonical::Form) }
    }
}

fn convert(json: serde_json::Value, depth: usize) -> Result<Value, NotCanonical> {
    let inner = || depth.checked_sub(1).ok_or(NotCanonical::Depth);
    match json {
        serde_json::Value::String(text) => Ok(Value::Text(text)),
        serde_json::Value::Bool(flag) => Ok(Value::Flag(flag)),
        serde_json::Value::Array(items) => {
            let inner = inner()?;
            Ok(Value::List(items.into_iter().map(|item| convert(item, inner)).collect::<Result<_, _>>()?))
        }
        serde_json::Value::Object(fields) => {
            let inner = inner()?;
            let mut object = BTreeMap::new();
            for (name, value) in fields {
                if !is_name(&name) {
                    return Err(NotCanonical::Name);
                }
                object.insert(name, convert(value, inner)?);
            }
            Ok(Value::Object(object))
        }
        serde_json::Value::Null | serde_json::Value::Number(_) => Err(NotCanonical::Kind),
    }
}

/// Names are printable ASCII, so that their order by bytes is that by UTF-16 units, which the standard wants.
///
/// Spec: RFC 8785, section 3.2.3.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Text(text) => write_text(text, out),
        Value::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (i, (name, value)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

/// Spec: RFC 8785, section 3.2.2.2: two-character escapes where JSON has them, lower-case `\u00xx` for other controls,
/// and everything else as it is.
fn write_text(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if u32::from(c) < 0x20 => {
                let code = usize::try_from(u32::from(c)).unwrap_or_default();
                out.push_str("\\u00");
                out.push(char::from(HEX[code >> 4]));
                out.push(char::from(HEX[code & 15]));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(fields: &[(&str, Value)]) -> Value {
        Value::Object(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn values_are_written_as_the_standard_says() {
        // Spec: RFC 8785, section 3.2.2, the sample's string and literals.
        let text = "\u{20ac}$\u{f}\nA'B\"\\\\\"/";
        let value = object(&[("string", Value::text(text)), ("literals", Value::Flag(true))]);
        let expected = "{\"literals\":true,\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(value.print(), expected);
        assert_eq!(Value::read(expected.as_bytes()), Ok(value));
        assert_eq!(
            Value::text("\u{8}\u{c}\r\t\u{0}\u{1f}\u{7f}").print(),
            "\"\\b\\f\\r\\t\\u0000\\u001f\u{7f}\""
        );
        assert_eq!(Value::list(["a", "b"]).print(), r#"["a","b"]"#);
    }

    #[test]
    fn another_way_of_writing_is_refused() {
        let refused = |text: &str, why| assert_eq!(Value::read(text.as_bytes()), Err(why), "{text}");
        refused(r#"{"b":"1","a":"2"}"#, NotCanonical::Form);
        refused(r#"{"a":"1","a":"2"}"#, NotCanonical::Form);
        refused(r#"{"a": "1"}"#, NotCanonical::Form);
        refused(r#""\u0041""#, NotCanonical::Form);
        refused(r#""\/""#, NotCanonical::Form);
        refused(" \"a\"", NotCanonical::Form);
        refused("1", NotCanonical::Kind);
        refused("{\"a\":null}", NotCanonical::Kind);
        refused("{\"\u{e9}\":\"1\"}", NotCanonical::Name);
        refused("{\"a\":\"1\"}x", NotCanonical::Json);
        refused("\"\\ud800\"", NotCanonical::Json);
        refused(&format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1)), NotCanonical::Depth);
        assert!(Value::read(&b"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn every_text_reads_back(text in any::<String>()) {
            let value = object(&[("a", Value::text(&text)), ("b", Value::List(vec![Value::text(text)]))]);
            prop_assert_eq!(Value::read(value.print().as_bytes()), Ok(value.clone()));
            // Another implementation reads the same out of it.
            let json: serde_json::Value = serde_json::from_str(&value.print()).unwrap();
            prop_assert_eq!(json["a"].as_str(), match &value { Value::Object(o) => o["a"].as_text(), _ => None });
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Value::read(&bytes);
        }
    }
}
