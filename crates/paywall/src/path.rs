//! Request paths: read once, in one way, and sent on as they were read.
//!
//! A gateway is bypassed wherever it reads a path differently from what stands behind it. So a path is taken
//! apart here, put together again in one canonical spelling, and only that spelling goes upstream. What different
//! servers are known to read differently is kept as a second reading ([`RequestPath::readings`]); the router
//! refuses a path whose readings lead to different routes.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The longest path that we read, in bytes.
pub const MAX_PATH_LEN: usize = 4096;
/// The most segments of a path.
pub const MAX_SEGMENTS: usize = 128;
/// The most readings of one path: three levels of encoding, with and without parameters, queries and split slashes.
const MAX_READINGS: usize = 16;

/// What RFC 3986 does not allow in a segment (`pchar`), and so is percent-encoded.
const NOT_PCHAR: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Why a path is refused, always with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path is longer than {MAX_PATH_LEN} bytes")]
    TooLong,
    #[error("the path has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    #[error("the path has a malformed percent-encoding")]
    BadEncoding,
    #[error("the path is not UTF-8")]
    NotUtf8,
    #[error("the path has a control character")]
    ControlCharacter,
    #[error("the path has a dot segment")]
    DotSegment,
    #[error("the path has a backslash")]
    Backslash,
    #[error("the path is encoded over and over")]
    OverEncoded,
}

impl PathError {
    /// The stable code that a peer sees.
    pub fn code(self) -> &'static str {
        "invalid_path"
    }
}

/// A path that was read. Segments are decoded; a slash inside one was written `%2F`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath {
    segments: Vec<String>,
    trailing_slash: bool,
}

impl RequestPath {
    /// Reads the path of a request target.
    ///
    /// Runs of slashes count as one. Dot segments, however encoded, are refused rather than resolved: no client
    /// sends them, and servers disagree about them.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if raw.len() > MAX_PATH_LEN {
            return Err(PathError::TooLong);
        }
        let rest = raw.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        let mut segments = Vec::new();
        for encoded in rest.split('/').filter(|segment| !segment.is_empty()) {
            if segments.len() == MAX_SEGMENTS {
                return Err(PathError::TooManySegments);
            }
            let segment = decode(encoded)?;
            check(&segment)?;
            segments.push(segment);
        }
        Ok(Self { trailing_slash: !segments.is_empty() && raw.ends_with('/'), segments })
    }

    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The one spelling of this path: what is hashed, bound and sent upstream. A trailing slash is kept, because
    /// it may mean something there; it means nothing to the router.
    pub fn canonical(&self) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            path.extend(utf8_percent_encode(segment, NOT_PCHAR));
        }
        if path.is_empty() || self.trailing_slash {
            path.push('/');
        }
        path
    }

    /// The other ways in which servers are known to read this path, apart from [`RequestPath::segments`]: with
    /// `%2F` as a separator, without `;parameters`, cut off at a `%3F` or `%23`, decoded once more, and combinations
    /// of these.
    ///
    /// # Errors
    /// If one of these readings is a path that we would have refused, so that nobody reaches `..` by detour.
    pub fn readings(&self) -> Result<Vec<Vec<String>>, PathError> {
        let odd = |segment: &String| segment.contains(['/', ';', '%', '?', '#']);
        if !self.segments.iter().any(odd) {
            return Ok(Vec::new());
        }
        let mut known = vec![self.segments.clone()];
        let mut next = 0;
        while let Some(reading) = known.get(next).cloned() {
            next += 1;
            let others = [
                split(&reading),
                without_parameters(&reading),
                without_query(&reading),
                decoded_again(&reading)?,
            ];
            for other in others {
                if !known.contains(&other) {
                    other.iter().try_for_each(|segment| check(segment))?;
                    known.push(other);
                }
            }
            // Each reading is shorter than the one it came from, so this ends; the bound keeps it cheap.
            if known.len() > MAX_READINGS {
                return Err(PathError::OverEncoded);
            }
        }
        known.remove(0);
        Ok(known)
    }
}

fn split(reading: &[String]) -> Vec<String> {
    reading.iter().flat_map(|s| s.split('/')).filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

fn without_parameters(reading: &[String]) -> Vec<String> {
    let bare = |segment: &String| segment.split(';').next().unwrap_or_default().to_owned();
    reading.iter().map(bare).filter(|s| !s.is_empty()).collect()
}

/// Rewriting servers look for the query in a path that they have decoded already.
fn without_query(reading: &[String]) -> Vec<String> {
    let mut kept = Vec::with_capacity(reading.len());
    for segment in reading {
        let bare = segment.split(['?', '#']).next().unwrap_or_default();
        if !bare.is_empty() {
            kept.push(bare.to_owned());
        }
        if bare.len() < segment.len() {
            break;
        }
    }
    kept
}

/// As the most lenient decoder reads it: a percent sign that begins no encoding is itself, and hides none behind it.
fn decoded_again(reading: &[String]) -> Result<Vec<String>, PathError> {
    let again = |segment: &String| percent_decode_str(segment).decode_utf8().map(|text| text.into_owned());
    reading.iter().map(again).collect::<Result<_, _>>().map_err(|_| PathError::NotUtf8)
}

fn decode(encoded: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut nibble = || {
            let digit = rest.next().and_then(|b| char::from(b).to_digit(16));
            digit.and_then(|d| u8::try_from(d).ok()).ok_or(PathError::BadEncoding)
        };
        bytes.push(nibble()? << 4 | nibble()?);
    }
    String::from_utf8(bytes).map_err(|_| PathError::NotUtf8)
}

fn check(segment: &str) -> Result<(), PathError> {
    if segment.chars().any(char::is_control) {
        return Err(PathError::ControlCharacter);
    }
    if segment.contains('\\') {
        return Err(PathError::Backslash);
    }
    // Matrix parameters after a dot segment hide it from us and not from everybody: `..;x`.
    let bare = segment.split(';').next().unwrap_or_default().trim();
    if bare == "." || bare == ".." || segment.split('/').any(|part| part == "." || part == "..") {
        return Err(PathError::DotSegment);
    }
    Ok(())
}
