use std::fmt;

use super::auth::is_token;
use super::{IntentName, MethodName, MppError};

/// The longest header, in bytes.
const MAX_BYTES: usize = 4096;
/// How many ranges a client may name.
pub const MAX_RANGES: usize = 64;
/// The weight that goes without saying, in thousandths.
const FULL: u16 = 1000;

/// What a client says that it can pay, and how gladly.
///
/// Spec: draft-httpauth-payment-00, "Client Payment Preferences".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcceptPayment(Vec<Range>);

/// Methods and intents of one weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// `None` for `*`.
    pub method: Option<MethodName>,
    /// `None` for `*`.
    pub intent: Option<IntentName>,
    /// 0 ("never") to 1000, in thousandths.
    pub weight: u16,
}

impl AcceptPayment {
    pub fn new(ranges: Vec<Range>) -> Self {
        Self(ranges)
    }

    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Reads the values of the header: `None` if it is not there, and then anything is accepted.
    ///
    /// # Errors
    /// [`MppError`]. A server may take a header that cannot be read for none.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, MppError> {
        let (mut ranges, mut bytes, mut seen) = (Vec::new(), 0usize, false);
        for line in lines {
            seen = true;
            bytes = bytes.saturating_add(line.len());
            if bytes > MAX_BYTES {
                return Err(MppError::TooLong { limit: MAX_BYTES });
            }
            for element in line.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                if element.is_empty() {
                    continue;
                }
                if ranges.len() == MAX_RANGES {
                    return Err(MppError::TooManyRanges { limit: MAX_RANGES });
                }
                ranges.push(range(element)?);
            }
        }
        match (seen, ranges.is_empty()) {
            (false, _) => Ok(None),
            (true, true) => Err(MppError::empty("accept-payment")),
            (true, false) => Ok(Some(Self(ranges))),
        }
    }

    /// The weight of an offer: that of the most specific range that it is in, and of several such the greatest.
    /// Zero if it is in none.
    pub fn weight(&self, method: &MethodName, intent: &IntentName) -> u16 {
        let fits = |range: &&Range| {
            range.method.as_ref().is_none_or(|name| name == method)
                && range.intent.as_ref().is_none_or(|name| name == intent)
        };
        let of = |range: &Range| {
            (u8::from(range.method.is_some()) + u8::from(range.intent.is_some()), range.weight)
        };
        self.0.iter().filter(fits).map(of).max().map_or(0, |(_, weight)| weight)
    }

    /// The places of those offers that the client takes, the gladliest taken first, and the server's order among
    /// equals. Empty if it takes none: the server may then answer as if it had not been told.
    pub fn rank<'a>(&self, offers: impl IntoIterator<Item = (&'a MethodName, &'a IntentName)>) -> Vec<usize> {
        let weigh = |(at, (method, intent))| (self.weight(method, intent), at);
        let mut taken: Vec<(u16, usize)> = offers.into_iter().enumerate().map(weigh).collect();
        taken.retain(|(weight, _)| *weight > 0);
        taken.sort_by_key(|(weight, at)| (std::cmp::Reverse(*weight), *at));
        taken.into_iter().map(|(_, at)| at).collect()
    }
}

fn range(element: &[u8]) -> Result<Range, MppError> {
    let bad = MppError::BadForm { field: "accept-payment" };
    let text = std::str::from_utf8(element).map_err(|_| bad.clone())?;
    let mut parts = text.split(';');
    let (method, intent) = parts.next().and_then(|token| token.split_once('/')).ok_or(bad.clone())?;
    let (method, intent) = (method.trim_ascii(), intent.trim_ascii());
    let method = if method == "*" { None } else { Some(method.parse()?) };
    let intent = if intent == "*" { None } else { Some(intent.parse()?) };
    let mut weight = None;
    for param in parts.map(str::trim_ascii).filter(|param| !param.is_empty()) {
        let (name, value) = param.split_once('=').ok_or(bad.clone())?;
        let (name, value) = (name.trim_ascii(), value.trim_ascii());
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(bad);
        }
        // Spec: RFC 9110 section 12.4.2; parameters that nobody defined are ignored.
        if name.eq_ignore_ascii_case("q") && weight.replace(qvalue(value).ok_or(bad.clone())?).is_some() {
            return Err(bad);
        }
    }
    Ok(Range { method, intent, weight: weight.unwrap_or(FULL) })
}

/// `0`, `0.`, `0.5`, `0.125`, `1`, `1.000`, and nothing else, in thousandths.
fn qvalue(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let padded = format!("{fraction:0<3}");
    match (whole, padded.parse().ok()?) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(FULL),
        _ => None,
    }
}

impl fmt::Display for AcceptPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            let method = range.method.as_ref().map_or("*", MethodName::as_str);
            let intent = range.intent.as_ref().map_or("*", IntentName::as_str);
            write!(f, "{method}/{intent}")?;
            match range.weight {
                0 => f.write_str(";q=0")?,
                weight if weight < FULL => {
                    let digits = format!("{weight:03}");
                    write!(f, ";q=0.{}", digits.trim_end_matches('0'))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
