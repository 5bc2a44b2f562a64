//! Instants with microsecond precision.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A point in time: whole microseconds since 1970-01-01T00:00:00Z, within the years 0000 to 9999.
///
/// The range is that of RFC 3339. The precision is that of PostgreSQL timestamps, so an instant does not change when it
/// is stored or sent.
///
/// ```
/// use flags_domain::Instant;
///
/// let at = Instant::parse("2026-01-01T01:00:00.250+01:00")?;
/// assert_eq!(at.to_string(), "2026-01-01T00:00:00.25Z");
/// assert_eq!(at.plus_micros(750_000).to_string(), "2026-01-01T00:00:01Z");
/// # Ok::<(), flags_domain::InvalidInstant>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(i64);

/// Error for text that is not an RFC 3339 timestamp within the years 0000 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an RFC 3339 timestamp within the years 0000 to 9999, such as 2030-01-31T12:00:00Z \
     (in a URL, encode + as %2B)"
)]
pub struct InvalidInstant;

impl Instant {
    const MIN_MICROS: i64 = -62_167_219_200_000_000;
    const MAX_MICROS: i64 = 253_402_300_799_999_999;

    /// Creates an instant from microseconds since 1970-01-01T00:00:00Z. Clamps values outside the
    /// range.
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN_MICROS {
            Self(Self::MIN_MICROS)
        } else if micros > Self::MAX_MICROS {
            Self(Self::MAX_MICROS)
        } else {
            Self(micros)
        }
    }

    /// Microseconds since 1970-01-01T00:00:00Z; negative before it.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns this instant plus `delta` microseconds, clamped to the range.
    #[must_use]
    pub const fn plus_micros(self, delta: i64) -> Self {
        Self::from_micros(self.0.saturating_add(delta))
    }

    /// Parses an RFC 3339 timestamp with any offset. Fractional digits beyond microseconds are truncated.
    pub fn parse(text: &str) -> Result<Self, InvalidInstant> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidInstant)?;
        let micros = parsed.unix_timestamp_nanos().div_euclid(1_000);
        match i64::try_from(micros) {
            Ok(micros) if (Self::MIN_MICROS..=Self::MAX_MICROS).contains(&micros) => Ok(Self(micros)),
            _ => Err(InvalidInstant),
        }
    }
}

impl From<OffsetDateTime> for Instant {
    fn from(at: OffsetDateTime) -> Self {
        let micros = at.unix_timestamp_nanos().div_euclid(1_000);
        Self::from_micros(i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl From<Instant> for OffsetDateTime {
    fn from(at: Instant) -> Self {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Instant {
    /// Writes RFC 3339 text in UTC with `Z`. A fraction is written only if it is not 0, without trailing zeros. Does
    /// not allocate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from(*self);
        let (date, time) = (at.date(), at.time());
        write!(f, "{:04}-{:02}-{:02}T", date.year(), u8::from(date.month()), date.day())?;
        write!(f, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())?;
        let (mut fraction, mut digits) = (time.microsecond(), 6);
        while fraction != 0 && fraction.is_multiple_of(10) {
            (fraction, digits) = (fraction / 10, digits - 1);
        }
        if fraction != 0 {
            write!(f, ".{fraction:0digits$}")?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(Instant::parse(text).map(|at| at.to_string()), Ok(expected.to_owned()));
    }

    #[test]
    fn parses_any_offset_and_formats_in_utc() {
        check("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
        check("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z");
        check("2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.000001Z");
        check("2026-01-01T00:00:00.100Z", "2026-01-01T00:00:00.1Z");
        check("2026-01-01T00:00:00.010200Z", "2026-01-01T00:00:00.0102Z");
        check("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z");
        check("2026-01-01T00:00:00.1234569Z", "2026-01-01T00:00:00.123456Z");
        check("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z");
        check("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn rejects_invalid_and_out_of_range_timestamps() {
        for text in ["", "2026-01-01", "2026-01-01T00:00:00", "9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+01:00"]
        {
            assert_eq!(Instant::parse(text), Err(InvalidInstant), "{text}");
        }
    }

    #[test]
    fn arithmetic_clamps_to_the_range() {
        assert_eq!(Instant::from_micros(i64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Instant::from_micros(0).plus_micros(i64::MIN).to_string(), "0000-01-01T00:00:00Z");
    }
}
