//! The grammar of `WWW-Authenticate` and `Authorization`: schemes, their parameters and tokens, from raw bytes.
//!
//! Spec: RFC 9110 section 11. Looser in one place: values without quotes may hold any visible ASCII but a comma and a
//! quote, since dates and base64 are found there in practice.

use std::borrow::Cow;
use std::fmt::Write;

use super::MppError;

/// Parameters of one challenge. The protocol defines ten.
pub(super) const MAX_PARAMS: usize = 64;

/// One scheme with what belongs to it.
#[derive(Debug)]
pub(super) struct Scheme<'a> {
    pub name: &'a [u8],
    /// What follows the name as one token, e.g. a Bearer token.
    pub token: Option<&'a [u8]>,
    pub params: Vec<Param<'a>>,
}

#[derive(Debug)]
pub(super) struct Param<'a> {
    pub name: &'a [u8],
    pub value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Plain(&'a [u8]),
    /// What is between the quotes, escapes and all.
    Quoted(&'a [u8]),
}

/// The schemes of one line, as far as it could be read.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub schemes: Vec<Scheme<'a>>,
    /// Why it was not read to its end. The last of `schemes` is then not to be trusted.
    pub broken: Option<MppError>,
}

pub(super) fn read_line(line: &[u8]) -> Line<'_> {
    let mut reader = Reader { line, at: 0, schemes: Vec::new() };
    let broken = reader.run().err();
    Line { schemes: reader.schemes, broken }
}

struct Reader<'a> {
    line: &'a [u8],
    at: usize,
    schemes: Vec<Scheme<'a>>,
}

/// Whether there may be more on the line.
enum Next {
    Element,
    Nothing,
}

impl<'a> Reader<'a> {
    fn run(&mut self) -> Result<(), MppError> {
        loop {
            // Spec: RFC 9110 section 5.6.1.2: empty elements of a list are ignored.
            self.skip(|b| is_blank(b) || b == b',');
            if self.at == self.line.len() {
                return Ok(());
            }
            let token = self.token()?;
            let next = if self.after_blanks() == Some(b'=') {
                self.blanks();
                self.param(token)?
            } else {
                self.scheme(token)?
            };
            if matches!(next, Next::Nothing) {
                return Ok(());
            }
        }
    }

    fn scheme(&mut self, name: &'a [u8]) -> Result<Next, MppError> {
        self.schemes.push(Scheme { name, token: None, params: Vec::new() });
        match self.peek() {
            None | Some(b',') => return Ok(Next::Element),
            Some(b) if is_blank(b) => self.blanks(),
            Some(_) => return Err(self.unexpected()),
        }
        if matches!(self.peek(), None | Some(b',')) {
            return Ok(Next::Element);
        }
        if let Some(token) = self.token68() {
            if let Some(scheme) = self.schemes.last_mut() {
                scheme.token = Some(token);
            }
            return Ok(Next::Element);
        }
        let name = self.token()?;
        self.blanks();
        if self.peek() != Some(b'=') {
            return Err(self.unexpected());
        }
        self.param(name)
    }

    /// At the `=` of a parameter.
    fn param(&mut self, name: &'a [u8]) -> Result<Next, MppError> {
        let at = self.at;
        self.at += 1;
        self.blanks();
        let value = self.value()?;
        let scheme = self.schemes.last_mut().filter(|scheme| scheme.token.is_none());
        let scheme = scheme.ok_or(MppError::Syntax { at })?;
        if scheme.params.len() == MAX_PARAMS {
            return Err(MppError::TooManyParams { limit: MAX_PARAMS });
        }
        // Spec: RFC 9110 section 11.2: names are compared without case and occur once.
        if scheme.params.iter().any(|param| param.name.eq_ignore_ascii_case(name)) {
            return Err(MppError::DuplicateParam { at });
        }
        scheme.params.push(Param { name, value });
        let blanks = self.at;
        self.blanks();
        match (self.peek(), value) {
            (None | Some(b','), _) => Ok(Next::Element),
            // A quote inside a text was not escaped. The published packages keep what came before it, and what follows
            // cannot be told from other parameters: it is left alone.
            (Some(_), Value::Quoted(_)) if blanks == self.at => {
                self.at = self.line.len();
                Ok(Next::Nothing)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn value(&mut self) -> Result<Value<'a>, MppError> {
        if self.peek() != Some(b'"') {
            let start = self.at;
            self.skip(|b| (0x21..0x7f).contains(&b) && b != b',' && b != b'"');
            if start == self.at {
                return Err(self.unexpected());
            }
            return Ok(Value::Plain(&self.line[start..self.at]));
        }
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.line.get(at) {
                None => return Err(MppError::UnterminatedString),
                Some(b'\\') => at += 2,
                Some(b'"') => break,
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        Ok(Value::Quoted(&self.line[start..at]))
    }

    /// A token68, if that is what stands here up to the next comma.
    fn token68(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        self.skip(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        let some = self.at > start;
        self.skip(|b| b == b'=');
        let end = self.at;
        if some && matches!(self.after_blanks(), None | Some(b',')) {
            return Some(&self.line[start..end]);
        }
        self.at = start;
        None
    }

    fn token(&mut self) -> Result<&'a [u8], MppError> {
        let start = self.at;
        self.skip(is_token);
        if start == self.at { Err(self.unexpected()) } else { Ok(&self.line[start..self.at]) }
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn blanks(&mut self) {
        self.skip(is_blank);
    }

    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn after_blanks(&self) -> Option<u8> {
        self.line[self.at..].iter().copied().find(|b| !is_blank(*b))
    }

    fn unexpected(&self) -> MppError {
        MppError::Syntax { at: self.at }
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Spec: RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl<'a> Value<'a> {
    /// The value that is meant: escapes undone, `\uXXXX` read as the published package writes it.
    ///
    /// Bytes beyond ASCII are UTF-8 if they are well-formed so, else Latin-1, which is what the published package
    /// writes.
    pub fn text(self, field: &'static str) -> Result<Cow<'a, str>, MppError> {
        let bytes = match self {
            Self::Plain(bytes) | Self::Quoted(bytes) => bytes,
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
        };
        let text = match self {
            Self::Quoted(_) if text.contains('\\') => Cow::Owned(unescape(&text, field)?),
            _ => text,
        };
        // Spec: RFC 9110 section 5.6.4: of the controls only the tab.
        if text.chars().any(is_control) { Err(MppError::BadForm { field }) } else { Ok(text) }
    }
}

/// What no parameter of a header may hold, quoted or not.
pub(super) fn is_control(c: char) -> bool {
    (c < ' ' && c != '\t') || c == '\u{7f}'
}

fn unescape(text: &str, field: &'static str) -> Result<String, MppError> {
    let bad = || MppError::BadForm { field };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(unit) = unit(rest) {
            rest = &rest[5..];
            let code = match unit {
                0xd800..=0xdbff => {
                    let low = rest.strip_prefix('\\').and_then(self::unit).ok_or_else(bad)?;
                    if !(0xdc00..=0xdfff).contains(&low) {
                        return Err(bad());
                    }
                    rest = &rest[6..];
                    0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                }
                other => other,
            };
            out.push(char::from_u32(code).ok_or_else(bad)?);
            continue;
        }
        let mut chars = rest.chars();
        out.push(chars.next().ok_or_else(bad)?);
        rest = chars.as_str();
    }
    out.push_str(rest);
    Ok(out)
}

/// The code unit of `uXXXX` at the front.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('u')?.as_bytes().get(..4)?;
    digits.iter().try_fold(0, |sum, b| Some(sum << 4 | char::from(*b).to_digit(16)?))
}

/// Prints `name="value"`, in ASCII: everything else becomes `\uXXXX`, so that no proxy, no header type and no reader's
/// guess at the encoding can change a value.
///
/// # Errors
/// [`MppError::Unprintable`] for controls, which could end the header.
pub(super) fn push_param(out: &mut String, name: &'static str, value: &str) -> Result<(), MppError> {
    // What is as it would be printed is neither looked at by character nor escaped. Without an early end this is done for
    // many bytes at once.
    let is_plain =
        value.bytes().fold(true, |plain, b| plain & matches!(b, b' '..=b'~') & !matches!(b, b'"' | b'\\'));
    if !is_plain && value.chars().any(is_control) {
        return Err(MppError::Unprintable { field: name });
    }
    out.push_str(name);
    out.push_str("=\"");
    if is_plain {
        out.push_str(value);
    } else {
        for c in value.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c.is_ascii() => out.push(c),
                c => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // INVARIANT: writing to a String does not fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
            }
        }
    }
    out.push('"');
    Ok(())
}
