use std::fmt;

use super::MppError;

/// The longest key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// What a client calls a request, so that the same request sent again gets the same answer and is paid once.
///
/// Written bare or as a quoted string; `abc` and `"abc"` are one key.
///
/// Spec: draft-httpauth-payment-00, "Idempotency and Side Effects".
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Reads the values of the header: `None` if there are none.
    ///
    /// # Errors
    /// [`MppError`] for an empty key, one that is too long, characters beyond printable ASCII, and several keys.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, MppError> {
        let field = "idempotency-key";
        let mut lines = lines.into_iter();
        let Some(line) = lines.next() else { return Ok(None) };
        if lines.next().is_some() {
            return Err(MppError::DuplicateParam { at: 0 });
        }
        // Two quotes and the blanks that a proxy may leave.
        if line.len() > 2 * MAX_IDEMPOTENCY_KEY_BYTES {
            return Err(MppError::TooLong { limit: MAX_IDEMPOTENCY_KEY_BYTES });
        }
        let line = line.trim_ascii();
        let text = match line {
            [b'"', inner @ .., b'"'] => unquote(inner)?,
            plain if plain.contains(&b'"') => return Err(MppError::BadForm { field }),
            plain => plain.to_vec(),
        };
        if text.is_empty() {
            return Err(MppError::empty(field));
        }
        if text.len() > MAX_IDEMPOTENCY_KEY_BYTES {
            return Err(MppError::TooLong { limit: MAX_IDEMPOTENCY_KEY_BYTES });
        }
        if !text.iter().all(|b| (0x20..0x7f).contains(b)) {
            return Err(MppError::BadForm { field });
        }
        // INVARIANT: printable ASCII is UTF-8.
        Ok(Some(Self(String::from_utf8_lossy(&text).into())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Spec: RFC 9651 section 4.2.5: a string's only escapes are `\"` and `\\`.
fn unquote(inner: &[u8]) -> Result<Vec<u8>, MppError> {
    let bad = MppError::BadForm { field: "idempotency-key" };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(&next @ (b'"' | b'\\')) => out.push(next),
                _ => return Err(bad),
            },
            b'"' => return Err(bad),
            other => out.push(other),
        }
    }
    Ok(out)
}

/// A quoted string, which every reader of the header accepts.
impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
