//! JSON serialization of evaluation results.
//!
//! The functions append JSON fragments that were prepared when the flag was compiled, instead of using serde. This
//! avoids allocations per flag.

use std::{fmt::Write as _, sync::LazyLock};

use flags_domain::{FlagName, Instant, Resolution, Source};
use flags_service::{
    evaluation::EvaluatedFlag,
    replica::{CachedUser, OverrideRef, View},
    stream_position::StreamPosition,
};
use flags_store::change_log::Revision;
use metrics::{Counter, counter};
use serde_json::Value;
use uuid::Uuid;

use crate::metrics::EVALUATIONS;

/// Response body of `GET /api/flags/me`.
pub(crate) struct OwnFlagsBody {
    pub(crate) body: String,
    /// Byte offset of the content that the entity tag covers: everything after the revision and the evaluation time.
    pub(crate) content_offset: usize,
    /// Next instant at which a result can change without a change to flags, overrides or the user.
    pub(crate) valid_until: Option<Instant>,
}

/// Numbers of evaluations by source, for the evaluations metric.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EvaluationCounts([u64; 5]);

impl EvaluationCounts {
    const SOURCES: [&str; 5] = ["override", "disabled", "targeting_rule", "scheduled_change", "default"];

    pub(crate) fn record(&mut self, resolution: &Resolution<'_>) {
        let index = match resolution.source {
            Source::Override => 0,
            Source::Disabled => 1,
            Source::TargetingRule { .. } => 2,
            Source::ScheduledChange { .. } => 3,
            Source::Default => 4,
        };
        self.0[index] += 1;
    }

    /// Adds the numbers to the metric. The counters are looked up only once, which is safe because the server installs
    /// the metrics recorder before it accepts requests.
    pub(crate) fn publish(self) {
        static COUNTERS: LazyLock<[Counter; 5]> =
            LazyLock::new(|| EvaluationCounts::SOURCES.map(|source| counter!(EVALUATIONS, "source" => source)));
        for (counter, count) in COUNTERS.iter().zip(self.0).filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
    }
}

/// Evaluates all client-visible flags for the user. `reasons` includes the reasons of overrides.
pub(crate) fn build_own_flags_body(
    view: &View<'_>,
    user: &CachedUser,
    now: Instant,
    stale: bool,
    reasons: bool,
) -> OwnFlagsBody {
    let mut body = String::with_capacity(128 * view.flag_count() + 512);
    write_response_start(&mut body, user.id, view.revision(), now);
    let content_offset = body.len();
    body.push_str(",\"flags\":");
    let valid_until = write_flags(&mut body, view, user, now, reasons);
    write_response_end(&mut body, valid_until, stale);
    body.push('}');
    OwnFlagsBody { body, content_offset, valid_until }
}

/// Writes an object with all client-visible flags. Returns the earliest `valid_until`.
fn write_flags(out: &mut String, view: &View<'_>, user: &CachedUser, now: Instant, reasons: bool) -> Option<Instant> {
    let mut valid_until: Option<Instant> = None;
    let mut counts = EvaluationCounts::default();
    out.push('{');
    let empty = out.len();
    for evaluated in view.evaluate_all(user, now).filter(|evaluated| evaluated.flag.client_visible()) {
        if out.len() > empty {
            out.push(',');
        }
        write_named_result(out, &evaluated, reasons);
        counts.record(&evaluated.resolution);
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
    }
    out.push('}');
    counts.publish();
    valid_until
}

/// Writes the members of one evaluation result, without the enclosing braces.
pub(crate) fn write_result(out: &mut String, evaluated: &EvaluatedFlag<'_>, reasons: bool) {
    write_value(out, &evaluated.resolution);
    out.push_str(",\"flag_type\":\"");
    out.push_str(evaluated.flag.flag_type().as_str());
    out.push('"');
    if let Some(user_override) = &evaluated.user_override {
        out.push_str(",\"override\":");
        write_override(out, user_override, reasons);
    }
    if let Some(then) = &evaluated.after_override {
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
    // Writing to a `String` cannot fail.
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

/// Writes the start of a response, up to the evaluation time. The object stays open.
pub(crate) fn write_response_start(body: &mut String, user_id: Uuid, revision: Revision, now: Instant) {
    let _ = write!(body, "{{\"user_id\":\"{user_id}\",\"revision\":\"{revision}\",\"evaluated_at\":\"{now}\"");
}

/// Writes the members that follow the results: `valid_until` and `stale`. The object stays open.
pub(crate) fn write_response_end(body: &mut String, valid_until: Option<Instant>, stale: bool) {
    body.push_str(",\"valid_until\":");
    write_instant(body, valid_until);
    let _ = write!(body, ",\"stale\":{stale}");
}

/// Writes an object member whose key is the flag name and whose value is the result.
pub(crate) fn write_named_result(out: &mut String, evaluated: &EvaluatedFlag<'_>, reasons: bool) {
    // Flag names contain no characters that JSON must escape.
    out.push('"');
    out.push_str(evaluated.flag.name());
    out.push_str("\":{");
    write_result(out, evaluated, reasons);
    out.push('}');
}

/// Writes the start of a `change` event, up to the opening brace of `set`.
pub(crate) fn write_change_start(out: &mut String, at: &StreamPosition) {
    let _ = write!(out, "{{\"revision\":\"{}\",\"evaluated_at\":\"{}\",\"set\":{{", at.revision, at.evaluated_at);
}

/// Writes the rest of a `change` event. `unset` are flags that are no longer visible to the user.
pub(crate) fn write_change_end(out: &mut String, unset: &[&FlagName], valid_until: Option<Instant>) {
    out.push_str("},\"unset\":[");
    for (index, name) in unset.iter().enumerate() {
        let _ = write!(out, "{}\"{name}\"", if index > 0 { "," } else { "" });
    }
    out.push_str("],\"valid_until\":");
    write_instant(out, valid_until);
    out.push('}');
}
