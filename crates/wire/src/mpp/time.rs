use std::fmt;
use std::str::FromStr;

use farthing_primitives::Timestamp;

use super::MppError;

/// The longest moment that we read: nanoseconds and an offset.
const MAX_BYTES: usize = 40;

/// A moment as a peer wrote it, since an id may bind its text, beside the moment that it means.
#[derive(Clone, PartialEq, Eq)]
pub struct WireTime {
    text: Box<str>,
    at: Timestamp,
}

impl WireTime {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// [`WireTime::from_str`], with the name of what it is read for.
    pub(super) fn read(text: &str, field: &'static str) -> Result<Self, MppError> {
        text.parse().map_err(|_| MppError::BadForm { field })
    }
}

/// Writes the moment as the published package does: UTC, with milliseconds.
impl From<Timestamp> for WireTime {
    fn from(at: Timestamp) -> Self {
        Self { text: at.to_string().into(), at }
    }
}

impl FromStr for WireTime {
    type Err = MppError;

    /// Reads an RFC 3339 date-time. Parts of a millisecond are cut off, so that nothing outlives its text. A
    /// leap second is read as the second after it; a moment before 1970 as 1970.
    fn from_str(text: &str) -> Result<Self, MppError> {
        let at = parse(text.as_bytes()).ok_or(MppError::BadForm { field: "a time" })?;
        Ok(Self { text: text.into(), at })
    }
}

/// Spec: RFC 3339 section 5.6, with capital `T` and `Z`, as the published package wants them.
fn parse(text: &[u8]) -> Option<Timestamp> {
    if text.len() > MAX_BYTES || text.len() < 20 {
        return None;
    }
    let (date, rest) = text.split_at(19);
    let shape = |at: usize, byte: u8| date[at] == byte;
    if !(shape(4, b'-') && shape(7, b'-') && shape(10, b'T') && shape(13, b':') && shape(16, b':')) {
        return None;
    }
    let two = |at: usize| number(&date[at..at + 2]);
    let (year, month, day) = (number(&date[..4])?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_of(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let (millis, zone) = fraction(rest)?;
    let offset = offset_minutes(zone)?;
    let days = days_from_civil(year, month, day);
    let secs = days * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
    let all = secs * 1000 + millis;
    Some(Timestamp::from_millis(u64::try_from(all).unwrap_or(0)))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

/// The milliseconds of `.123456Z`, and what follows them.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let millis =
        digits[..len].iter().chain(b"00").take(3).try_fold(0, |sum, b| Some(sum * 10 + i64::from(b - b'0')));
    Some((millis?, &digits[len..]))
}

fn offset_minutes(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let all = hours * 60 + minutes;
            Some(if *sign == b'+' { all } else { -all })
        }
        _ => None,
    }
}

fn days_of(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the Gregorian calendar, counted in years that begin with March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl fmt::Display for WireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for WireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
