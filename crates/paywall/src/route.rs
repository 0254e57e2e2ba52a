//! Which route a request is for. Whatever is ambiguous is refused; nothing ambiguous passes unpaid.

use std::fmt::{self, Write};
use std::str::FromStr;

use http::Method;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::path::{PathError, RequestPath};

/// The most routes of one table.
pub const MAX_ROUTES: usize = 10_000;

/// What a route matches: methods and a path, e.g. `GET /weather/{city}`, `POST|PUT /files/*`, `/free`.
///
/// Without a method, any method matches. `{name}` stands for exactly one segment, a trailing `*` for any number of
/// them (none included). Case and a trailing slash do not matter, and neither does the spelling of an encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    methods: Methods,
    segments: Vec<Segment>,
    rest: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum Methods {
    Any,
    /// Sorted, without repetition and without HEAD, which is priced as its GET.
    Only(Vec<String>),
}

#[derive(Clone, PartialEq, Eq)]
enum Segment {
    /// Lower case.
    Literal(String),
    Any(String),
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("the pattern has no path (expected e.g. \"GET /weather\")")]
    NoPath,
    #[error("{0:?} is not a method (expected upper-case letters)")]
    BadMethod(String),
    #[error("HEAD cannot be priced apart from its GET: leave it out")]
    Head,
    #[error("OPTIONS cannot be priced: preflight is always free")]
    Options,
    #[error("\"*\" may stand only at the end, as a segment of its own")]
    StrayStar,
    #[error("{0:?} is not a placeholder (expected e.g. \"{{id}}\")")]
    BadPlaceholder(String),
    #[error(transparent)]
    Path(#[from] PathError),
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut words = text.split_ascii_whitespace();
        let (methods, path) = match (words.next(), words.next(), words.next()) {
            (Some(path), None, None) => (Methods::Any, path),
            (Some("*"), Some(path), None) => (Methods::Any, path),
            (Some(methods), Some(path), None) => (Methods::parse(methods)?, path),
            _ => return Err(PatternError::NoPath),
        };
        if !path.starts_with('/') {
            return Err(PatternError::NoPath);
        }
        let (path, rest) = match path.strip_suffix("/*") {
            Some("") => ("/", true),
            Some(path) => (path, true),
            None => (path, false),
        };
        let parsed = RequestPath::parse(path)?;
        let segments = parsed.segments().iter().map(|s| Segment::parse(s)).collect::<Result<_, _>>()?;
        Ok(Self { methods, segments, rest })
    }
}

impl Methods {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let mut methods = Vec::new();
        for method in text.split('|') {
            match method {
                "HEAD" => return Err(PatternError::Head),
                "OPTIONS" => return Err(PatternError::Options),
                _ if is_plain_method(method) => methods.push(method.to_owned()),
                _ => return Err(PatternError::BadMethod(method.chars().take(32).collect())),
            }
        }
        methods.sort_unstable();
        methods.dedup();
        Ok(Self::Only(methods))
    }

    fn contains(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(methods) => methods.iter().any(|m| m == method),
        }
    }
}

/// Whether every server reads this method as the same. Methods are case-sensitive, and not everybody knows.
fn is_plain_method(method: &str) -> bool {
    !method.is_empty() && method.len() <= 32 && method.bytes().all(|b| b.is_ascii_uppercase())
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains('*') {
            return Err(PatternError::StrayStar);
        }
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        match inner {
            Some(name)
                if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                Ok(Self::Any(name.to_owned()))
            }
            None if !text.contains(['{', '}']) => Ok(Self::Literal(text.to_lowercase())),
            _ => Err(PatternError::BadPlaceholder(text.chars().take(64).collect())),
        }
    }

    fn matches(&self, lower: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == lower,
            Self::Any(_) => true,
        }
    }
}

impl Pattern {
    fn matches_path(&self, lower: &[String]) -> bool {
        let long_enough =
            if self.rest { lower.len() >= self.segments.len() } else { lower.len() == self.segments.len() };
        long_enough && self.segments.iter().zip(lower).all(|(segment, text)| segment.matches(text))
    }

    /// What decides between two patterns that match one request: the first segment in which one is literal, then
    /// the absence of a trailing star, then a named method. Smaller is more specific.
    fn rank(&self) -> (Vec<u8>, bool) {
        let mut ranks: Vec<u8> =
            self.segments.iter().map(|s| if matches!(s, Segment::Literal(_)) { 0 } else { 1 }).collect();
        ranks.push(if self.rest { 3 } else { 0 });
        (ranks, self.methods == Methods::Any)
    }

    /// Two patterns of one shape match the same paths, whatever their placeholders are called.
    fn same_shape(&self, other: &Self) -> bool {
        let alike = |(a, b): (&Segment, &Segment)| match (a, b) {
            (Segment::Any(_), Segment::Any(_)) => true,
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            _ => false,
        };
        self.rest == other.rest
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(alike)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let methods = match (&self.methods, &other.methods) {
            (Methods::Any, Methods::Any) => true,
            (Methods::Only(a), Methods::Only(b)) => a.iter().any(|m| b.contains(m)),
            _ => false,
        };
        methods && self.same_shape(other)
    }
}

/// What a literal does not show as it is, so that the normal form of a pattern reads as that pattern.
const NOT_SHOWN: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'/').add(b'?').add(b'#').add(b'{').add(b'}');

/// The normal form, which is also the route's id: `GET /weather/{city}`.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.methods {
            Methods::Any => f.write_str("* ")?,
            Methods::Only(methods) => write!(f, "{} ", methods.join("|"))?,
        }
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => {
                    f.write_str("/")?;
                    // Letters beyond ASCII are shown as they are: only people and our own reader see this.
                    for c in text.chars() {
                        if c.is_ascii() {
                            write!(f, "{}", utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NOT_SHOWN))?;
                        } else {
                            f.write_char(c)?;
                        }
                    }
                }
                Segment::Any(name) => write!(f, "/{{{name}}}")?,
            }
        }
        match (self.rest, self.segments.is_empty()) {
            (true, _) => f.write_str("/*"),
            (false, true) => f.write_str("/"),
            (false, false) => Ok(()),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Routes, with something that each of them stands for.
#[derive(Debug, Clone)]
pub struct RouteTable<T> {
    /// The most specific first.
    routes: Vec<(Pattern, T)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("the routes \"{0}\" and \"{1}\" match the same requests")]
    Overlap(Pattern, Pattern),
    #[error("more than {MAX_ROUTES} routes")]
    TooMany,
}

/// Why a request is for no route, and how that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("the path can be read in different ways, which lead to different routes")]
    AmbiguousPath,
    #[error("the method is not in upper-case letters")]
    BadMethod,
}

impl RouteError {
    /// The stable code that a peer sees, always with 400.
    pub fn code(self) -> &'static str {
        match self {
            Self::Path(error) => error.code(),
            Self::AmbiguousPath => "ambiguous_path",
            Self::BadMethod => "invalid_method",
        }
    }
}

/// What a request matched.
#[derive(Debug)]
pub struct Match<'a, T> {
    /// `None`: no route.
    pub route: Option<(&'a Pattern, &'a T)>,
    /// The path as it was read, and as it goes upstream.
    pub path: RequestPath,
}

impl<T> RouteTable<T> {
    pub fn new(routes: Vec<(Pattern, T)>) -> Result<Self, TableError> {
        if routes.len() > MAX_ROUTES {
            return Err(TableError::TooMany);
        }
        let mut routes = routes;
        routes.sort_by_cached_key(|(pattern, _)| pattern.rank());
        for (at, (pattern, _)) in routes.iter().enumerate() {
            if let Some((other, _)) = routes[at + 1..].iter().find(|(other, _)| pattern.overlaps(other)) {
                return Err(TableError::Overlap(pattern.clone(), other.clone()));
            }
        }
        Ok(Self { routes })
    }

    /// The route for this method and raw path.
    ///
    /// # Errors
    /// [`RouteError`] where another server might read the request differently. It must be answered with 400.
    pub fn find(&self, method: &Method, raw_path: &str) -> Result<Match<'_, T>, RouteError> {
        if !is_plain_method(method.as_str()) {
            return Err(RouteError::BadMethod);
        }
        // HEAD is priced as its GET.
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        let path = RequestPath::parse(raw_path)?;
        let found = self.position(method, path.segments());
        for other in path.readings()? {
            if self.position(method, &other) != found {
                return Err(RouteError::AmbiguousPath);
            }
        }
        let route = found.and_then(|at| self.routes.get(at)).map(|(pattern, value)| (pattern, value));
        Ok(Match { route, path })
    }

    /// The routes that match this path under any method, most specific first.
    pub fn on_path<'a>(&'a self, path: &RequestPath) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let lower = lower(path.segments());
        self.routes.iter().filter(move |(pattern, _)| pattern.matches_path(&lower)).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Pattern, &T)> {
        self.routes.iter().map(|(pattern, value)| (pattern, value))
    }

    fn position(&self, method: &str, segments: &[String]) -> Option<usize> {
        let lower = lower(segments);
        self.routes.iter().position(|(p, _)| p.methods.contains(method) && p.matches_path(&lower))
    }
}

fn lower(segments: &[String]) -> Vec<String> {
    segments.iter().map(|segment| segment.to_lowercase()).collect()
}
