//! Writes what users get as JSON, by hand: from fragments prepared when a flag is compiled, with no allocation per flag.

use std::{fmt::Write as _, sync::LazyLock};

use flags_domain::{FlagName, Instant, Resolution, Source};
use flags_service::{
    cursor::Cursor,
    evaluation::Evaluated,
    replica::{CachedUser, OverrideRef, View},
};
use flags_store::change_log::Revision;
use metrics::{Counter, counter};
use serde_json::Value;
use uuid::Uuid;

use crate::metrics::EVALUATIONS;

/// The whole answer of `/api/flags/me`, and where in it the part begins that is the same as long as nothing changes.
pub(crate) struct AllFlags {
    pub(crate) body: String,
    pub(crate) answer_at: usize,
    /// The next instant at which time alone may change it.
    pub(crate) valid_until: Option<Instant>,
}

/// How many results there were of each source.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally([u64; 5]);

impl Tally {
    const SOURCES: [&str; 5] = ["override", "disabled", "targeting_rule", "scheduled_change", "default"];

    pub(crate) fn count(&mut self, resolution: &Resolution<'_>) {
        let place = match resolution.source {
            Source::Override => 0,
            Source::Disabled => 1,
            Source::TargetingRule { .. } => 2,
            Source::ScheduledChange { .. } => 3,
            Source::Default => 4,
        };
        self.0[place] += 1;
    }

    /// Adds them to the metric. The counters are looked up once: the recorder stands before the first request.
    pub(crate) fn publish(self) {
        static COUNTERS: LazyLock<[Counter; 5]> =
            LazyLock::new(|| Tally::SOURCES.map(|source| counter!(EVALUATIONS, "source" => source)));
        for (counter, count) in COUNTERS.iter().zip(self.0).filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
    }
}

/// What the user gets of every flag they see.
pub(crate) fn all_flags(view: &View<'_>, user: &CachedUser, now: Instant, stale: bool, reasons: bool) -> AllFlags {
    let mut body = String::with_capacity(128 * view.flag_count() + 512);
    write_head(&mut body, user.id, view.revision(), now);
    let answer_at = body.len();
    body.push_str(",\"flags\":");
    let valid_until = write_flags(&mut body, view, user, now, reasons);
    write_end(&mut body, valid_until, stale);
    body.push('}');
    AllFlags { body, answer_at, valid_until }
}

/// An object of all visible flags; returns the earliest of their `valid_until`.
fn write_flags(out: &mut String, view: &View<'_>, user: &CachedUser, now: Instant, reasons: bool) -> Option<Instant> {
    let mut valid_until: Option<Instant> = None;
    let mut tally = Tally::default();
    out.push('{');
    let empty = out.len();
    for evaluated in view.evaluate_all(user, now).filter(|evaluated| evaluated.flag.client_visible()) {
        if out.len() > empty {
            out.push(',');
        }
        write_named_result(out, &evaluated, reasons);
        tally.count(&evaluated.resolution);
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
    }
    out.push('}');
    tally.publish();
    valid_until
}

/// The members of one result.
pub(crate) fn write_result(out: &mut String, evaluated: &Evaluated<'_>, reasons: bool) {
    write_value(out, &evaluated.resolution);
    out.push_str(",\"flag_type\":\"");
    out.push_str(evaluated.flag.flag_type().as_str());
    out.push('"');
    if let Some(user_override) = &evaluated.user_override {
        out.push_str(",\"override\":");
        write_override(out, user_override, reasons);
    }
    if let Some(then) = &evaluated.then {
        out.push_str(",\"then\":{");
        write_value(out, then);
        out.push('}');
    }
}

fn write_value(out: &mut String, resolution: &Resolution<'_>) {
    out.push_str("\"value\":");
    out.push_str(resolution.value.json());
    out.push_str(",\"variant\":");
    out.push_str(resolution.variant.map_or("null", |variant| variant.id_json()));
    out.push_str(",\"source\":\"");
    out.push_str(resolution.source.as_str());
    out.push('"');
}

fn write_override(out: &mut String, user_override: &OverrideRef<'_>, reasons: bool) {
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "{{\"created_at\":\"{}\",\"updated_at\":\"{}\",\"expires_at\":",
        user_override.created_at, user_override.updated_at
    );
    write_instant(out, user_override.expires_at);
    if reasons {
        out.push_str(",\"reason\":");
        out.push_str(&Value::from(user_override.reason).to_string());
    }
    out.push('}');
}

fn write_instant(out: &mut String, at: Option<Instant>) {
    match at {
        Some(at) => {
            let _ = write!(out, "\"{at}\"");
        }
        None => out.push_str("null"),
    }
}

pub(crate) fn write_head(body: &mut String, user_id: Uuid, revision: Revision, now: Instant) {
    let _ = write!(body, "{{\"user_id\":\"{user_id}\",\"revision\":\"{revision}\",\"evaluated_at\":\"{now}\"");
}

pub(crate) fn write_end(body: &mut String, valid_until: Option<Instant>, stale: bool) {
    body.push_str(",\"valid_until\":");
    write_instant(body, valid_until);
    let _ = write!(body, ",\"stale\":{stale}");
}

/// A member with the flag's name and result.
pub(crate) fn write_named_result(out: &mut String, evaluated: &Evaluated<'_>, reasons: bool) {
    // A flag's name needs no escaping.
    out.push('"');
    out.push_str(evaluated.flag.name());
    out.push_str("\":{");
    write_result(out, evaluated, reasons);
    out.push('}');
}

/// The beginning of a `change`, up to the first member of `set`.
pub(crate) fn write_head_of_change(out: &mut String, at: &Cursor) {
    let _ = write!(out, "{{\"revision\":\"{}\",\"evaluated_at\":\"{}\",\"set\":{{", at.revision, at.evaluated_at);
}

/// The rest of a `change`.
pub(crate) fn write_end_of_change(out: &mut String, unset: &[&FlagName], valid_until: Option<Instant>) {
    out.push_str("},\"unset\":[");
    for (place, name) in unset.iter().enumerate() {
        let _ = write!(out, "{}\"{name}\"", if place > 0 { "," } else { "" });
    }
    out.push_str("],\"valid_until\":");
    write_instant(out, valid_until);
    out.push('}');
}
