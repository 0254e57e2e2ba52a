use std::fmt;
use std::time::Duration;

/// A moment of wall time, in milliseconds since 1970-01-01T00:00:00Z. For deadlines that another party signed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The start of this second. Seconds beyond 64 bits of milliseconds become the last moment there is.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds, rounded down: the unit of a block's timestamp.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// This moment and `duration` more; the last moment there is, if that does not fit.
    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// This moment less `duration`, not before the epoch.
    pub fn minus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// RFC 3339 in UTC with milliseconds, e.g. `2026-11-21T08:54:23.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second_of_day) = (self.secs() / 86_400, self.secs() % 86_400);
        let (year, month, day) = civil_from_days(days);
        if year <= 9999 {
            // It is in each challenge, and the formatter takes as long as half of the hash over all of it.
            let mut text = *b"0000-00-00T00:00:00.000Z";
            let fields = [
                (0..4, year),
                (5..7, month),
                (8..10, day),
                (11..13, second_of_day / 3600),
                (14..16, second_of_day / 60 % 60),
                (17..19, second_of_day % 60),
                (20..23, self.0 % 1000),
            ];
            for (place, mut value) in fields {
                for digit in text.get_mut(place).into_iter().flatten().rev() {
                    *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
                    value /= 10;
                }
            }
            return f.write_str(std::str::from_utf8(&text).unwrap_or_default());
        }
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            second_of_day / 3600,
            second_of_day / 60 % 60,
            second_of_day % 60,
            self.0 % 1000
        )
    }
}

/// The proleptic Gregorian date of a day counted from 1970-01-01, by 400-year eras that start on 1 March.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}
