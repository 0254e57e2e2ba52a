use super::{Json, Number, Object};

/// How deep arrays and objects may nest. The deepest x402 message in use has 9 levels (a bazaar schema).
pub const MAX_DEPTH: usize = 32;

/// What a text may cost us before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The length of the text, in bytes.
    pub bytes: usize,
    /// Values of any kind, the outermost included.
    pub values: usize,
    /// Members of any one object.
    pub members: usize,
}

/// Why a text is not JSON that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("the text is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error("the text ends too early")]
    UnexpectedEnd,
    #[error("unexpected character at byte {at}")]
    Unexpected { at: usize },
    #[error("control character in a string at byte {at}")]
    ControlCharacter { at: usize },
    #[error("invalid escape at byte {at}")]
    InvalidEscape { at: usize },
    #[error("half of a surrogate pair at byte {at}")]
    LoneSurrogate { at: usize },
    #[error("something follows the value at byte {at}")]
    Trailing { at: usize },
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("more than {limit} values")]
    TooManyValues { limit: usize },
    #[error("an object with more than {limit} members")]
    TooManyMembers { limit: usize },
    #[error("a key occurs twice in one object that ends at byte {at}")]
    DuplicateKey { at: usize },
}

/// Reads one JSON value, with blanks around it and nothing else.
///
/// Stricter than RFC 8259 where the RFC leaves room for two readers to differ: duplicate keys and unpaired
/// surrogates are refused.
///
/// # Errors
/// [`JsonError`]; no text makes this panic, recurse beyond [`MAX_DEPTH`] or allocate more than a small multiple of
/// its own length.
pub fn parse(text: &[u8], limits: Limits) -> Result<Json, JsonError> {
    if text.len() > limits.bytes {
        return Err(JsonError::TooLong { limit: limits.bytes });
    }
    let text = std::str::from_utf8(text).map_err(|_| JsonError::NotUtf8)?;
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0, limits, values: 0 };
    let value = parser.value(0)?;
    parser.blanks();
    if parser.at < parser.bytes.len() {
        return Err(JsonError::Trailing { at: parser.at });
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    limits: Limits,
    values: usize,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(JsonError::TooManyValues { limit: self.limits.values });
        }
        self.blanks();
        match self.peek()? {
            b'{' => self.object(depth).map(Json::Object),
            b'[' => self.array(depth).map(Json::Array),
            b'"' => self.string().map(Json::String),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            b'-' | b'0'..=b'9' => self.number().map(Json::Number),
            _ => Err(self.unexpected()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Object, JsonError> {
        let depth = deeper(depth)?;
        self.at += 1;
        let mut members = Vec::new();
        self.blanks();
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Object::new());
        }
        loop {
            self.blanks();
            if members.len() == self.limits.members {
                return Err(JsonError::TooManyMembers { limit: self.limits.members });
            }
            if self.peek()? != b'"' {
                return Err(self.unexpected());
            }
            let key = self.string()?;
            self.blanks();
            if self.peek()? != b':' {
                return Err(self.unexpected());
            }
            self.at += 1;
            let value = self.value(depth)?;
            if members.is_empty() {
                // Most objects of the protocol have up to eight members.
                members.reserve(8);
            }
            members.push((key, value));
            self.blanks();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return Err(self.unexpected()),
            }
        }
        self.at += 1;
        if has_duplicate(&members) {
            return Err(JsonError::DuplicateKey { at: self.at });
        }
        Ok(Object::from_unique(members))
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Json>, JsonError> {
        let depth = deeper(depth)?;
        self.at += 1;
        let mut items = Vec::new();
        self.blanks();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(items);
        }
        loop {
            items.push(self.value(depth)?);
            self.blanks();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(self.unexpected()),
            }
        }
        self.at += 1;
        Ok(items)
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => {
                    // Both ends are beside ASCII bytes, hence on character boundaries.
                    let plain = self.text[start..self.at].to_owned();
                    self.at += 1;
                    return Ok(plain);
                }
                b'\\' => return self.escaped_string(start),
                0..=0x1f => return Err(JsonError::ControlCharacter { at: self.at }),
                _ => self.at += 1,
            }
        }
    }

    /// The rest of a string that has an escape at the present place.
    fn escaped_string(&mut self, start: usize) -> Result<String, JsonError> {
        let mut out = self.text[start..self.at].to_owned();
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' => out.push(self.escape()?),
                0..=0x1f => return Err(JsonError::ControlCharacter { at: self.at }),
                _ => {
                    let from = self.at;
                    while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1f) {
                        self.at += 1;
                    }
                    out.push_str(&self.text[from..self.at]);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let at = self.at;
        self.at += 1;
        let kind = self.peek()?;
        self.at += 1;
        Ok(match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4(at)?;
                let code = match high {
                    0xd800..=0xdbff => {
                        if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                            return Err(JsonError::LoneSurrogate { at });
                        }
                        self.at += 2;
                        let low = self.hex4(at)?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(JsonError::LoneSurrogate { at });
                        }
                        0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                    }
                    other => other,
                };
                char::from_u32(code).ok_or(JsonError::LoneSurrogate { at })?
            }
            _ => return Err(JsonError::InvalidEscape { at }),
        })
    }

    fn hex4(&mut self, at: usize) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = char::from(self.peek()?).to_digit(16).ok_or(JsonError::InvalidEscape { at })?;
            code = code << 4 | digit;
            self.at += 1;
        }
        Ok(code)
    }

    /// `-? (0 | [1-9][0-9]*) ('.' [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn number(&mut self) -> Result<Number, JsonError> {
        let start = self.at;
        self.skip(b'-');
        if !self.skip(b'0') {
            self.digits()?;
        }
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            if !self.skip(b'-') {
                self.skip(b'+');
            }
            self.digits()?;
        }
        Ok(Number::from_checked(&self.text[start..self.at]))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.unexpected());
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, JsonError> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.unexpected())
        }
    }

    fn skip(&mut self, byte: u8) -> bool {
        let there = self.bytes.get(self.at) == Some(&byte);
        if there {
            self.at += 1;
        }
        there
    }

    fn blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, JsonError> {
        self.bytes.get(self.at).copied().ok_or(JsonError::UnexpectedEnd)
    }

    fn unexpected(&self) -> JsonError {
        JsonError::Unexpected { at: self.at }
    }
}

fn deeper(depth: usize) -> Result<usize, JsonError> {
    if depth == MAX_DEPTH { Err(JsonError::TooDeep) } else { Ok(depth + 1) }
}

fn has_duplicate(members: &[(String, Json)]) -> bool {
    // Above this many members, sorting beats comparing each with each.
    const FEW: usize = 12;
    if members.len() <= FEW {
        return members
            .iter()
            .enumerate()
            .any(|(at, (key, _))| members[..at].iter().any(|(other, _)| other == key));
    }
    let mut keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
