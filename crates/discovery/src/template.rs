//! Paths with places in them: our route patterns (`GET /films/{id}/*`) and OpenAPI's templates (`/films/{id}`).

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What RFC 3986 does not allow in a segment, and the signs that mean something in a template.
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

/// The methods that an OpenAPI document may speak of and that may have a price. OPTIONS is free, TRACE is not served.
pub(crate) const METHODS: [&str; 6] = ["get", "put", "post", "delete", "head", "patch"];
/// Those that are listed of a route that names none. HEAD costs what GET does.
const ANY_METHOD: [&str; 5] = ["get", "put", "post", "delete", "patch"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a route's pattern")]
pub struct TemplateError;

/// A route's pattern: methods, segments, and whether anything may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// In lower case; `None` is any.
    methods: Option<Vec<String>>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) rest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Decoded, as it was written, and in lower case.
    Literal { written: String, lower: String },
    /// A place for one segment.
    Place(String),
}

impl Segment {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Place(_), _) => true,
            (Self::Literal { lower: a, .. }, Self::Literal { lower: b, .. }) => a == b,
            (Self::Literal { .. }, Self::Place(_)) => false,
        }
    }
}

impl Template {
    /// Reads `GET|POST /films/{id}/*` as the router does, but for what the router refuses.
    ///
    /// # Errors
    /// [`TemplateError`] where there is no path.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (methods, path) = match words.as_slice() {
            [path] | ["*", path] => (None, *path),
            [methods, path] => (Some(*methods), *path),
            _ => return Err(TemplateError),
        };
        if !path.starts_with('/') {
            return Err(TemplateError);
        }
        let (path, rest) = path.strip_suffix("/*").map_or((path, false), |path| (path, true));
        let methods =
            methods.map(|methods| methods.split('|').map(str::to_ascii_lowercase).collect::<Vec<_>>());
        Ok(Self { methods, segments: segments(path), rest })
    }

    pub(crate) fn takes(&self, method: &str) -> bool {
        // HEAD is priced as its GET.
        let method = if method == "head" { "get" } else { method };
        self.methods.as_ref().is_none_or(|methods| methods.iter().any(|known| known == method))
    }

    /// Whether every request that `path` stands for is matched by this pattern's path.
    pub(crate) fn covers(&self, path: &[Segment]) -> bool {
        let long_enough =
            if self.rest { path.len() >= self.segments.len() } else { path.len() == self.segments.len() };
        long_enough && self.segments.iter().zip(path).all(|(own, other)| own.covers(other))
    }

    pub(crate) fn is_any_method(&self) -> bool {
        self.methods.is_none()
    }

    /// The methods that a document lists for it.
    pub(crate) fn listed(&self) -> Vec<&'static str> {
        let taken = |method: &&&'static str| self.methods.is_none() || self.takes(method);
        match &self.methods {
            None => ANY_METHOD.to_vec(),
            Some(_) => METHODS.iter().filter(|m| **m != "head").filter(taken).copied().collect(),
        }
    }

    /// The same as OpenAPI spells paths, which has no place for several segments: one stands for the rest.
    pub(crate) fn path(&self) -> Vec<Segment> {
        let mut all = self.segments.clone();
        if self.rest {
            let taken = |name: &str| all.iter().any(|s| matches!(s, Segment::Place(p) if p == name));
            let name = (1..).map(|n| if n == 1 { "rest".to_owned() } else { format!("rest{n}") });
            // INVARIANT: there are more names than segments.
            let name = name.take(all.len() + 1).find(|name| !taken(name)).unwrap_or_default();
            all.push(Segment::Place(name));
        }
        all
    }

    /// Whether it is this path alone, with nothing left open.
    pub fn is_exactly(&self, method: &str, path: &str) -> bool {
        let wanted = segments(path);
        let literal = self.segments.iter().all(|segment| matches!(segment, Segment::Literal { .. }));
        literal && !self.rest && self.takes(&method.to_ascii_lowercase()) && self.covers(&wanted)
    }
}

/// The segments of a template's path. A place that is only part of a segment makes a place of the whole.
pub(crate) fn segments(path: &str) -> Vec<Segment> {
    let one = |text: &str| {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match inner {
            Some(name) if !name.contains(['{', '}']) => Segment::Place(name.to_owned()),
            _ if text.contains('{') => Segment::Place(text.to_owned()),
            _ => {
                let written = percent_decode_str(text).decode_utf8_lossy().into_owned();
                Segment::Literal { lower: written.to_lowercase(), written }
            }
        }
    };
    path.split('/').filter(|text| !text.is_empty()).map(one).collect()
}

/// As OpenAPI writes it: `/films/{id}`.
pub(crate) fn spell(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        text.push('/');
        match segment {
            Segment::Literal { written, .. } => text.extend(utf8_percent_encode(written, NOT_PCHAR)),
            Segment::Place(name) if name.contains('{') => text.push_str(name),
            Segment::Place(name) => {
                text.push('{');
                text.push_str(name);
                text.push('}');
            }
        }
    }
    if text.is_empty() { "/".to_owned() } else { text }
}

/// What two templates share that match the same paths, however their places are called.
///
/// Spec: OpenAPI 3.1, "Path Templating": such templates must not exist beside each other.
pub(crate) fn shape(path: &[Segment]) -> String {
    let one = |segment: &Segment| match segment {
        Segment::Literal { lower, .. } => format!("/={lower}"),
        Segment::Place(_) => "/*".to_owned(),
    };
    path.iter().map(one).collect()
}
