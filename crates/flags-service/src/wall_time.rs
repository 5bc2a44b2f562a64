//! Instants as people write them: RFC 3339, or the time on a wall clock somewhere.

use flags_domain::{Instant, Violation};
use jiff::{
    civil::DateTime,
    tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase},
};

/// Reads an RFC 3339 instant, or a local time such as `2030-03-31T02:30:00` in an IANA zone such as `Europe/Berlin`.
///
/// A local time that a change of the clocks skips or doubles is refused with both instants that it might mean.
pub fn read_instant(text: &str, timezone: Option<&str>) -> Result<Instant, Violation> {
    let at_time = |code, detail: String| Violation::new("/scheduled_at", code, detail);
    match (Instant::parse(text), timezone) {
        (Ok(instant), None) => Ok(instant),
        (Ok(_), Some(_)) => {
            let detail = "an instant with an offset takes no zone: leave out `timezone`, or the offset";
            Err(Violation::new("/timezone", "not_allowed", detail))
        }
        (Err(_), None) if read_local(text).is_some() => {
            let detail =
                "a local time needs its zone in `timezone`, such as Europe/Berlin; or end it with Z or an offset";
            Err(at_time("timezone_required", detail.to_owned()))
        }
        (Err(_), zone) => {
            let local = read_local(text).ok_or_else(|| {
                let detail = "must be an RFC 3339 instant such as 2030-01-31T12:00:00Z, or a local time such as \
                              2030-01-31T12:00:00 with `timezone`";
                at_time("invalid_instant", detail.to_owned())
            })?;
            in_zone(local, zone.unwrap_or_default())
        }
    }
}

/// A date and a time of day as RFC 3339 writes them, seconds left out or not, and nothing else.
fn read_local(text: &str) -> Option<DateTime> {
    // jiff reads more of ISO 8601, passes over offsets and zones, and takes a leap second for the one before.
    let shape = |part: &str, shape: &str| {
        let fits = |(byte, wanted): (u8, u8)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
        part.len() == shape.len() && part.bytes().zip(shape.bytes()).all(fits)
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let long = shape(whole, "0000-00-00T00:00:00") && !whole.ends_with(":60");
    let short = shape(text, "0000-00-00T00:00");
    let fits = short || (long && !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit()));
    fits.then(|| text.parse().ok())?
}

/// Longest name of a zone, in bytes; those that exist have half of it.
const MAX_ZONE_LENGTH: usize = 64;

/// The zone of this name, with the rules of this system where it has any; but only if it is one of the database, and not a
/// name that means something else on each system.
fn zone_named(name: &str) -> Option<TimeZone> {
    let is_known = name.len() <= MAX_ZONE_LENGTH && TimeZoneDatabase::bundled().get(name).is_ok();
    let is_unknown = ["Etc/Unknown", "Factory"].iter().any(|none| name.eq_ignore_ascii_case(none));
    (is_known && !is_unknown).then(|| TimeZone::get(name).ok())?
}

fn in_zone(local: DateTime, zone: &str) -> Result<Instant, Violation> {
    let tz = zone_named(zone).ok_or_else(|| {
        let name: String = zone.chars().take(MAX_ZONE_LENGTH).collect();
        let detail = format!("{name:?} is no zone of the IANA database; write one such as Europe/Berlin or UTC");
        Violation::new("/timezone", "unknown_timezone", detail)
    })?;
    let reading = |offset: Offset| {
        let as_utc = Instant::parse(&format!("{local}Z")).map(Instant::as_micros);
        let micros = as_utc.unwrap_or(i64::MAX).saturating_sub(i64::from(offset.seconds()) * 1_000_000);
        let instant = Instant::from_micros(micros);
        // RFC 3339 knows no seconds in offsets, which only times long ago have.
        let minutes = offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        let text = format!("{local}{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
        let detail = "must lie within the years 0000 to 9999, in UTC as well";
        let is_exact = instant.as_micros() == micros;
        is_exact.then_some((instant, text)).ok_or_else(|| Violation::new("/scheduled_at", "out_of_range", detail))
    };
    let refuse = |code, what: &str, before: Offset, after: Offset| match (reading(before), reading(after)) {
        (Ok((_, one)), Ok((_, other))) => {
            let detail = format!("this local time {what} in {zone} as the clocks change; write {one} or {other}");
            Violation::new("/scheduled_at", code, detail)
        }
        (Err(violation), _) | (_, Err(violation)) => violation,
    };
    match tz.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => reading(offset).map(|(instant, _)| instant),
        AmbiguousOffset::Gap { before, after } => Err(refuse("skipped_local_time", "does not exist", before, after)),
        AmbiguousOffset::Fold { before, after } => Err(refuse("doubled_local_time", "comes twice", before, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, zone: Option<&str>, expected: Result<&str, (&str, &str)>) {
        let found = read_instant(text, zone);
        let found = found.as_ref().map(ToString::to_string).map_err(|v| (v.pointer.as_str(), v.code));
        assert_eq!(found.as_ref().map(String::as_str).map_err(|found| *found), expected, "{text} {zone:?}");
    }

    #[test]
    fn instants_and_local_times_are_read() {
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
    fn what_is_not_clear_is_refused() {
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
    fn times_skipped_or_doubled_are_refused_with_both_readings() {
        let detail = |text: &str| read_instant(text, Some("Europe/Berlin")).unwrap_err();
        let skipped = detail("2030-03-31T02:30:00");
        assert_eq!(skipped.code, "skipped_local_time");
        let readings = ["2030-03-31T02:30:00+01", "2030-03-31T02:30:00+02"];
        assert!(readings.iter().all(|reading| skipped.detail.contains(reading)), "{}", skipped.detail);
        let doubled = detail("2030-10-27T02:30:00");
        assert_eq!(doubled.code, "doubled_local_time");
        let readings = ["2030-10-27T02:30:00+02", "2030-10-27T02:30:00+01"];
        assert!(readings.iter().all(|reading| doubled.detail.contains(reading)), "{}", doubled.detail);
        check("2030-03-31T03:00:00", Some("Europe/Berlin"), Ok("2030-03-31T01:00:00Z"));
        check("2030-10-27T01:59:59", Some("Europe/Berlin"), Ok("2030-10-26T23:59:59Z"));
    }
}
