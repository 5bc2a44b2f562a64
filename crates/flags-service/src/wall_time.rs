//! Parsing of instants, given in RFC 3339 format or as a local time with an IANA time zone.

use flags_domain::{Instant, Violation};
use jiff::{
    civil::DateTime,
    tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase},
};

/// Parses an RFC 3339 instant, or a local time such as `2030-03-31T02:30:00` in an IANA time zone
/// such as `Europe/Berlin`.
///
/// # Errors
/// A violation at `/scheduled_at` or `/timezone`. A local time is rejected if it is skipped or
/// occurs twice because of a clock change; the detail then contains both possible instants.
pub fn parse_instant(text: &str, timezone: Option<&str>) -> Result<Instant, Violation> {
    match (Instant::parse(text), timezone) {
        (Ok(instant), None) => Ok(instant),
        (Ok(_), Some(_)) => {
            let detail = "must be omitted if `scheduled_at` has a UTC offset; remove `timezone` or the offset";
            Err(Violation::new("/timezone", "not_allowed", detail))
        }
        (Err(_), None) if parse_local_time(text).is_some() => {
            let detail = "a local time requires `timezone`, such as Europe/Berlin; otherwise append Z or a UTC offset";
            Err(invalid("timezone_required", detail))
        }
        (Err(_), zone) => {
            let local = parse_local_time(text).ok_or_else(|| {
                let detail = "must be an RFC 3339 instant such as 2030-01-31T12:00:00Z, or a local time such as \
                              2030-01-31T12:00:00 with `timezone`";
                invalid("invalid_instant", detail)
            })?;
            resolve_local_time(local, zone.unwrap_or_default())
        }
    }
}

fn invalid(code: &'static str, detail: impl Into<String>) -> Violation {
    Violation::new("/scheduled_at", code, detail)
}

/// Parses a date and time in RFC 3339 format without offset. The seconds are optional.
fn parse_local_time(text: &str) -> Option<DateTime> {
    // jiff alone is too lenient: it accepts other ISO 8601 formats, ignores offsets and zones, and reads a leap second
    // as the second before it.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let has_seconds = has_format(whole, "0000-00-00T00:00:00") && !whole.ends_with(":60");
    let has_minutes_only = has_format(text, "0000-00-00T00:00");
    let is_valid_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    (has_minutes_only || (has_seconds && is_valid_fraction)).then(|| text.parse().ok())?
}

/// Whether `text` equals `format`, where each `0` of the format matches any ASCII digit.
fn has_format(text: &str, format: &str) -> bool {
    text.len() == format.len()
        && text.bytes().zip(format.bytes()).all(|(byte, expected)| match expected {
            b'0' => byte.is_ascii_digit(),
            _ => byte == expected,
        })
}

/// Maximum length of a time zone name in bytes. Existing names are at most half as long.
const MAX_ZONE_NAME_BYTES: usize = 64;

/// Returns the IANA time zone with this name. Prefers the rules of the system's time zone database
/// to the bundled rules.
///
/// Only names in the bundled database are valid. This excludes names with a system-specific
/// meaning, such as `localtime`. The placeholders `Etc/Unknown` and `Factory` are not valid either.
fn find_zone(name: &str) -> Option<TimeZone> {
    let is_bundled = name.len() <= MAX_ZONE_NAME_BYTES && TimeZoneDatabase::bundled().get(name).is_ok();
    let is_placeholder = ["Etc/Unknown", "Factory"].iter().any(|placeholder| name.eq_ignore_ascii_case(placeholder));
    (is_bundled && !is_placeholder).then(|| TimeZone::get(name).ok())?
}

fn resolve_local_time(local: DateTime, zone: &str) -> Result<Instant, Violation> {
    let tz = find_zone(zone).ok_or_else(|| {
        let name: String = zone.chars().take(MAX_ZONE_NAME_BYTES).collect();
        let detail = format!("unknown time zone {name:?}; use an IANA name such as Europe/Berlin or UTC");
        Violation::new("/timezone", "unknown_timezone", detail)
    })?;
    let at_offset = |offset: Offset| {
        let as_utc = Instant::parse(&format!("{local}Z")).map(Instant::as_micros);
        let micros = as_utc.unwrap_or(i64::MAX).saturating_sub(i64::from(offset.seconds()) * 1_000_000);
        let instant = Instant::from_micros(micros);
        // RFC 3339 offsets have no seconds. Offsets with seconds occur only in historical local mean time.
        let minutes = offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        let text = format!("{local}{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
        let detail = "must be between the years 0000 and 9999 in UTC";
        // `from_micros` clamps values outside the supported range.
        let is_in_range = instant.as_micros() == micros;
        is_in_range.then_some((instant, text)).ok_or_else(|| Violation::new("/scheduled_at", "out_of_range", detail))
    };
    let ambiguous = |code, problem: &str, before: Offset, after: Offset| match (at_offset(before), at_offset(after)) {
        (Ok((_, first)), Ok((_, second))) => {
            let detail = format!("this local time {problem} in {zone} due to a clock change; use {first} or {second}");
            Violation::new("/scheduled_at", code, detail)
        }
        (Err(violation), _) | (_, Err(violation)) => violation,
    };
    match tz.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => at_offset(offset).map(|(instant, _)| instant),
        AmbiguousOffset::Gap { before, after } => Err(ambiguous("skipped_local_time", "does not exist", before, after)),
        AmbiguousOffset::Fold { before, after } => Err(ambiguous("doubled_local_time", "occurs twice", before, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, zone: Option<&str>, expected: Result<&str, (&str, &str)>) {
        let parsed = parse_instant(text, zone);
        let actual = parsed.as_ref().map(ToString::to_string).map_err(|v| (v.pointer.as_str(), v.code));
        assert_eq!(actual.as_ref().map(String::as_str).map_err(|error| *error), expected, "{text} {zone:?}");
    }

    #[test]
    fn parses_instants_and_local_times() {
        check("2030-01-31T12:00:00Z", None, Ok("2030-01-31T12:00:00Z"));
        check("2030-01-31T12:00:00+05:30", None, Ok("2030-01-31T06:30:00Z"));
        check("2030-01-31T12:00:00", Some("Europe/Berlin"), Ok("2030-01-31T11:00:00Z"));
        check("2030-07-31T12:00:00.25", Some("Europe/Berlin"), Ok("2030-07-31T10:00:00.25Z"));
        check("2030-07-31T12:00", Some("UTC"), Ok("2030-07-31T12:00:00Z"));
        check("2030-01-31T12:00:00", Some("Asia/Kathmandu"), Ok("2030-01-31T06:15:00Z"));
        check("2030-01-31T12:00:00", Some("Australia/Sydney"), Ok("2030-01-31T01:00:00Z"));
        check("9999-12-31T12:00:00", Some("UTC"), Ok("9999-12-31T12:00:00Z"));
    }

    #[test]
    fn rejects_invalid_and_incomplete_input() {
        check("2030-01-31T12:00:00", None, Err(("/scheduled_at", "timezone_required")));
        check("2030-01-31T12:00:00Z", Some("Europe/Berlin"), Err(("/timezone", "not_allowed")));
        check("2030-01-31T12:00:00", Some("Europe/Atlantis"), Err(("/timezone", "unknown_timezone")));
        check("2030-01-31T12:00:00", Some(""), Err(("/timezone", "unknown_timezone")));
        check("2030-01-31T12:00:00", Some("../../etc/passwd"), Err(("/timezone", "unknown_timezone")));
        for zone in ["Etc/Unknown", "localtime", "posixrules", "Factory", &"x".repeat(100_000)] {
            check("2030-01-31T12:00:00", Some(zone), Err(("/timezone", "unknown_timezone")));
        }
        for text in [
            "tomorrow",
            "2030-02-30T12:00:00",
            "2030-01-31",
            "2030-01-31T12",
            "20300131T120000",
            "2030-01-31T24:00:00",
            "2030-12-31T23:59:60",
            "2030-01-31T12:00:00.",
            "-002030-01-31T12:00:00",
            "2030-01-31T12:00:00[Europe/Berlin]",
            "2030-01-31 12:00:00",
            "",
        ] {
            check(text, Some("Europe/Berlin"), Err(("/scheduled_at", "invalid_instant")));
        }
        check("0000-01-01T00:00:00", Some("Europe/Berlin"), Err(("/scheduled_at", "out_of_range")));
        check("9999-12-31T23:00:00", Some("America/New_York"), Err(("/scheduled_at", "out_of_range")));
    }

    #[test]
    fn rejects_local_times_in_gaps_and_overlaps_with_both_instants() {
        let violation = |text: &str| parse_instant(text, Some("Europe/Berlin")).unwrap_err();
        let skipped = violation("2030-03-31T02:30:00");
        assert_eq!(skipped.code, "skipped_local_time");
        let candidates = ["2030-03-31T02:30:00+01", "2030-03-31T02:30:00+02"];
        assert!(candidates.iter().all(|candidate| skipped.detail.contains(candidate)), "{}", skipped.detail);
        let doubled = violation("2030-10-27T02:30:00");
        assert_eq!(doubled.code, "doubled_local_time");
        let candidates = ["2030-10-27T02:30:00+02", "2030-10-27T02:30:00+01"];
        assert!(candidates.iter().all(|candidate| doubled.detail.contains(candidate)), "{}", doubled.detail);
        check("2030-03-31T03:00:00", Some("Europe/Berlin"), Ok("2030-03-31T01:00:00Z"));
        check("2030-10-27T01:59:59", Some("Europe/Berlin"), Ok("2030-10-26T23:59:59Z"));
    }
}
