//! Instants as people write them: RFC 3339, or the time on a wall clock somewhere.

use flags_domain::{Instant, Violation};
use jiff::{
    civil::DateTime,
    tz::{AmbiguousOffset, Offset, TimeZone},
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

/// A date and a time of day, and nothing else.
fn read_local(text: &str) -> Option<DateTime> {
    let (date, time) = text.split_once('T')?;
    // jiff passes over offsets and zones in brackets.
    let plain = |part: &str, sign: char| part.bytes().all(|b| b.is_ascii_digit() || b == sign as u8 || b == b'.');
    if !plain(date, '-') || !plain(time, ':') {
        return None;
    }
    text.parse().ok()
}

fn in_zone(local: DateTime, zone: &str) -> Result<Instant, Violation> {
    let unknown = || {
        let detail = format!("{zone:?} is no zone of the IANA database; write one such as Europe/Berlin or UTC");
        Violation::new("/timezone", "unknown_timezone", detail)
    };
    let tz = TimeZone::get(zone).map_err(|_| unknown())?;
    let reading = |offset: Offset| {
        let instant = offset.to_timestamp(local).ok().map(|at| Instant::from_micros(at.as_microsecond()));
        // RFC 3339 knows no seconds in offsets, which only times long ago have.
        let minutes = offset.seconds() / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        let text = format!("{local}{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
        let detail = "must lie within the years 0000 to 9999";
        instant.map(|at| (at, text)).ok_or_else(|| Violation::new("/scheduled_at", "out_of_range", detail))
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
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        check("2030-01-31T12:00:00", None, Err(("/scheduled_at", "timezone_required")));
        check("2030-01-31T12:00:00Z", Some("Europe/Berlin"), Err(("/timezone", "not_allowed")));
        check("2030-01-31T12:00:00", Some("Europe/Atlantis"), Err(("/timezone", "unknown_timezone")));
        check("2030-01-31T12:00:00", Some(""), Err(("/timezone", "unknown_timezone")));
        check("2030-01-31T12:00:00", Some("../../etc/passwd"), Err(("/timezone", "unknown_timezone")));
        for text in ["tomorrow", "2030-02-30T12:00:00", "2030-01-31", "2030-01-31T12:00:00[Europe/Berlin]", ""] {
            check(text, Some("Europe/Berlin"), Err(("/scheduled_at", "invalid_instant")));
        }
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
