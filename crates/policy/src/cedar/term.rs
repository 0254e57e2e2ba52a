//! What is true of a payment, as a formula that is evaluated here and printed for Cedar. There is no arithmetic in it, so
//! nothing in it can fail.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// The name of an attribute of the context.
pub(super) type Key = String;

/// A payment, and all that is known of the past, as Cedar has it.
pub type Context = BTreeMap<String, Value>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Flag(bool),
    Number(i64),
    Text(String),
}

/// Of which type an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Flag,
    Number,
    Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cond {
    Is(bool),
    Flag(Key),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
    AtMost(Key, i64),
    /// The first is not more than the second.
    NotMore(Key, Key),
    Same(Key, String),
    Begins(Key, String),
    Ends(Key, String),
}

pub(super) fn flag(key: impl Into<Key>) -> Cond {
    Cond::Flag(key.into())
}

pub(super) fn at_most(key: impl Into<Key>, most: i64) -> Cond {
    Cond::AtMost(key.into(), most)
}

/// Numbers are whole: at least this is not at most one less.
pub(super) fn at_least(key: impl Into<Key>, least: i64) -> Cond {
    not(at_most(key, least.saturating_sub(1)))
}

pub(super) fn same(key: impl Into<Key>, text: impl Into<String>) -> Cond {
    Cond::Same(key.into(), text.into())
}

pub(super) fn one_of<T: ToString>(key: &str, texts: impl IntoIterator<Item = T>) -> Cond {
    any(texts.into_iter().map(|text| same(key, text.to_string())))
}

pub(super) fn not(inner: Cond) -> Cond {
    match inner {
        Cond::Is(value) => Cond::Is(!value),
        Cond::Not(inner) => *inner,
        other => Cond::Not(Box::new(other)),
    }
}

pub(super) fn all(parts: impl IntoIterator<Item = Cond>) -> Cond {
    let mut kept = Vec::new();
    for part in parts {
        match part {
            Cond::Is(true) => {}
            Cond::Is(false) => return Cond::Is(false),
            Cond::All(inner) => kept.extend(inner),
            other => kept.push(other),
        }
    }
    match (kept.pop(), kept.is_empty()) {
        (None, _) => Cond::Is(true),
        (Some(only), true) => only,
        (Some(last), false) => {
            kept.push(last);
            Cond::All(kept)
        }
    }
}

pub(super) fn any(parts: impl IntoIterator<Item = Cond>) -> Cond {
    let mut kept = Vec::new();
    for part in parts {
        match part {
            Cond::Is(false) => {}
            Cond::Is(true) => return Cond::Is(true),
            Cond::Any(inner) => kept.extend(inner),
            other => kept.push(other),
        }
    }
    match (kept.pop(), kept.is_empty()) {
        (None, _) => Cond::Is(false),
        (Some(only), true) => only,
        (Some(last), false) => {
            kept.push(last);
            Cond::Any(kept)
        }
    }
}

/// Where the first holds, so does the second.
pub(super) fn implies(first: Cond, second: Cond) -> Cond {
    any([not(first), second])
}

impl Cond {
    /// Calls `each` with every attribute that it looks at.
    pub(super) fn attributes(&self, each: &mut impl FnMut(&str, Kind)) {
        match self {
            Self::Is(_) => {}
            Self::Flag(key) => each(key, Kind::Flag),
            Self::Not(inner) => inner.attributes(each),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.attributes(each)),
            Self::AtMost(key, _) => each(key, Kind::Number),
            Self::NotMore(a, b) => {
                each(a, Kind::Number);
                each(b, Kind::Number);
            }
            Self::Same(key, _) | Self::Begins(key, _) | Self::Ends(key, _) => each(key, Kind::Text),
        }
    }

    /// Whether it is true there; `None` if an attribute is missing, or is of another type.
    #[cfg(test)]
    pub(super) fn holds(&self, context: &Context) -> Option<bool> {
        let number = |key: &str| match context.get(key)? {
            Value::Number(number) => Some(*number),
            _ => None,
        };
        let text = |key: &str| match context.get(key)? {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        };
        Some(match self {
            Self::Is(value) => *value,
            Self::Flag(key) => matches!(context.get(key)?, Value::Flag(true)),
            Self::Not(inner) => !inner.holds(context)?,
            Self::All(parts) => {
                parts.iter().try_fold(true, |so_far, part| Some(so_far & part.holds(context)?))?
            }
            Self::Any(parts) => {
                parts.iter().try_fold(false, |so_far, part| Some(so_far | part.holds(context)?))?
            }
            Self::AtMost(key, most) => number(key)? <= *most,
            Self::NotMore(a, b) => number(a)? <= number(b)?,
            Self::Same(key, other) => text(key)? == other,
            Self::Begins(key, start) => text(key)?.starts_with(start.as_str()),
            Self::Ends(key, end) => text(key)?.ends_with(end.as_str()),
        })
    }
}

/// As an expression of Cedar. Spec: Cedar's grammar, `docs.cedarpolicy.com/policies/syntax-grammar.html`.
impl fmt::Display for Cond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Self], between: &str| {
            f.write_char('(')?;
            for (n, part) in parts.iter().enumerate() {
                if n > 0 {
                    f.write_str(between)?;
                }
                fmt::Display::fmt(part, f)?;
            }
            f.write_char(')')
        };
        match self {
            Self::Is(value) => write!(f, "{value}"),
            Self::Flag(key) => attribute(f, key),
            Self::Not(inner) => write!(f, "!({inner})"),
            Self::All(parts) => list(f, parts, " && "),
            Self::Any(parts) => list(f, parts, " || "),
            Self::AtMost(key, most) => {
                attribute(f, key)?;
                write!(f, " <= {most}")
            }
            Self::NotMore(a, b) => {
                attribute(f, a)?;
                f.write_str(" <= ")?;
                attribute(f, b)
            }
            Self::Same(key, text) => {
                attribute(f, key)?;
                write!(f, " == {}", Quoted(text))
            }
            Self::Begins(key, start) => {
                attribute(f, key)?;
                write!(f, " like \"{}*\"", Pattern(start))
            }
            Self::Ends(key, end) => {
                attribute(f, key)?;
                write!(f, " like \"*{}\"", Pattern(end))
            }
        }
    }
}

fn attribute(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    write!(f, "context[{}]", Quoted(key))
}

/// A text as Cedar writes it.
pub(super) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped(self.0))
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                ' '..='~' => f.write_char(c)?,
                other => write!(f, "\\u{{{:x}}}", u32::from(other))?,
            }
        }
        Ok(())
    }
}

/// Text that stands for itself where a star stands for anything.
struct Pattern<'a>(&'a str);

impl fmt::Display for Pattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.split('*').enumerate() {
            if n > 0 {
                f.write_str("\\*")?;
            }
            write!(f, "{}", Escaped(part))?;
        }
        Ok(())
    }
}

/// Why what Cedar printed is no context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the counterexample cannot be read at {0:?}")]
pub struct ContextError(String);

/// Reads a record of texts, whole numbers and true or false as Cedar prints it: `{agent: "a", "any 1h": 3, plain: true}`.
///
/// # Errors
/// [`ContextError`]: it is anything else.
pub fn read_context(text: &str) -> Result<Context, ContextError> {
    let mut rest = text.trim();
    let mut context = Context::new();
    take(&mut rest, "{")?;
    while !rest.starts_with('}') {
        let key = if rest.starts_with('"') {
            quoted(&mut rest)?
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            if word.is_empty() {
                return Err(odd(rest));
            }
            word.to_owned()
        };
        take(&mut rest, ":")?;
        let value = if rest.starts_with('"') {
            Value::Text(quoted(&mut rest)?)
        } else {
            let end = rest.find([',', '}']).ok_or_else(|| odd(rest))?;
            let (word, after) = rest.split_at(end);
            let value = match word.trim().trim_matches(['(', ')']) {
                "true" => Value::Flag(true),
                "false" => Value::Flag(false),
                number => Value::Number(number.parse().map_err(|_| odd(rest))?),
            };
            rest = after;
            value
        };
        context.insert(key, value);
        if take(&mut rest, ",").is_err() && !rest.starts_with('}') {
            return Err(odd(rest));
        }
    }
    take(&mut rest, "}")?;
    if rest.is_empty() { Ok(context) } else { Err(odd(rest)) }
}

fn odd(rest: &str) -> ContextError {
    ContextError(rest.chars().take(32).collect())
}

fn take(rest: &mut &str, sign: &str) -> Result<(), ContextError> {
    *rest = rest.strip_prefix(sign).ok_or_else(|| odd(rest))?.trim_start();
    Ok(())
}

fn quoted(rest: &mut &str) -> Result<String, ContextError> {
    let all = *rest;
    let mut read = String::new();
    let mut chars = all.strip_prefix('"').ok_or_else(|| odd(all))?.chars();
    loop {
        match chars.next().ok_or_else(|| odd(all))? {
            '"' => break,
            '\\' => read.push(match chars.next().ok_or_else(|| odd(all))? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'u' => {
                    let after = chars.as_str().strip_prefix('{').ok_or_else(|| odd(all))?;
                    let (digits, after) = after.split_once('}').ok_or_else(|| odd(all))?;
                    chars = after.chars();
                    let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                    code.ok_or_else(|| odd(all))?
                }
                c @ ('"' | '\\' | '\'') => c,
                _ => return Err(odd(all)),
            }),
            c => read.push(c),
        }
    }
    *rest = chars.as_str().trim_start();
    Ok(read)
}
