//! How many units an answer took.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farthing_engine::StoredResponse;
use farthing_wire::{Json, Limits, json};
use http::{HeaderMap, HeaderName};

/// The most names in a path into a JSON answer.
pub const MAX_JSON_PATH: usize = 8;
/// What reading a JSON answer for its units may cost; its length is bounded by the route.
const JSON_VALUES: usize = 100_000;
const JSON_MEMBERS: usize = 10_000;

/// What is counted, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Count {
    /// One unit for each request.
    Request,
    /// One unit for each event of a stream that has data.
    Events,
    /// The bytes of the body.
    Bytes,
    /// The milliseconds that the answer took. In a stream they go on while it is silent, and stand while it is paused.
    Elapsed,
    /// A header of the upstream's says how many units the answer took; of a stream, how many each event is worth.
    Header(HeaderName),
    /// A whole number in the JSON body says it; in a stream, in the data of each event, which is worth nothing without.
    Json(Arc<[Box<str>]>),
}

/// Why a text names no way to count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    #[error(
        "must be \"request\", \"event\", \"bytes\", \"elapsed\", \"header:NAME\" or \"json:FIELD\" (also \"json:usage.tokens\")"
    )]
    Unknown,
    #[error("not a header's name")]
    HeaderName,
    #[error("a path into JSON has 1 to {MAX_JSON_PATH} names with dots between them")]
    JsonPath,
}

impl std::str::FromStr for Count {
    type Err = CountError;

    fn from_str(text: &str) -> Result<Self, CountError> {
        match text {
            "request" => Ok(Self::Request),
            "event" => Ok(Self::Events),
            "bytes" => Ok(Self::Bytes),
            "elapsed" => Ok(Self::Elapsed),
            _ => match text.split_once(':') {
                Some(("header", name)) => Ok(Self::Header(name.parse().map_err(|_| CountError::HeaderName)?)),
                Some(("json", path)) => {
                    let names: Arc<[Box<str>]> = path.split('.').map(Box::from).collect();
                    if names.len() > MAX_JSON_PATH || names.iter().any(|name| name.is_empty()) {
                        return Err(CountError::JsonPath);
                    }
                    Ok(Self::Json(names))
                }
                _ => Err(CountError::Unknown),
            },
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("request"),
            Self::Events => f.write_str("event"),
            Self::Bytes => f.write_str("bytes"),
            Self::Elapsed => f.write_str("elapsed"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Json(names) => write!(f, "json:{}", names.join(".")),
        }
    }
}

impl Count {
    /// The units of a whole answer; `None` if the upstream does not say, or not so that it can be read.
    pub(crate) fn of_answer(&self, answer: &StoredResponse, took: Duration) -> Option<u64> {
        match self {
            Self::Request | Self::Events => Some(1),
            Self::Bytes => Some(answer.body.len() as u64),
            Self::Elapsed => Some(millis(took)),
            Self::Header(name) => {
                let mut values = answer.headers.iter().filter(|(known, _)| known == name.as_str());
                let (_, value) = values.next()?;
                // Two would be two answers to one question.
                if values.next().is_some() { None } else { whole(value) }
            }
            Self::Json(path) => in_json(path, &answer.body),
        }
    }

    /// What the head of a stream says that each event is worth; `None` if it must say and does not.
    pub(crate) fn of_head(&self, head: &HeaderMap) -> Option<u64> {
        let Self::Header(name) = self else { return Some(1) };
        let mut values = head.get_all(name).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { whole(value.as_bytes()) }
    }
}

/// The number at this path, if the text is JSON that has one there.
pub(crate) fn in_json(path: &[Box<str>], text: &[u8]) -> Option<u64> {
    let limits = Limits { bytes: text.len(), values: JSON_VALUES, members: JSON_MEMBERS };
    let json = json::parse(text, limits).ok()?;
    let found = path.iter().try_fold(&json, |json, name| json.as_object()?.get(name));
    found.and_then(Json::as_u64)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Digits alone, so that one number has one spelling.
fn whole(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}
