//! JSON of the caller's own evaluation results: bodies of `/api/flags/me` and events of its stream.
//!
//! The functions append JSON fragments that were prepared when the flag was compiled, instead of using serde. This
//! avoids allocations per flag. The module `schema` contains the documented types.

mod schema;
#[cfg(test)]
mod tests;

use std::{fmt::Write as _, sync::LazyLock};

use flags_domain::{FlagName, Instant, Resolution, Revision, Source};
use flags_service::{evaluation::EvaluatedFlag, replica::OverrideRef, stream_position::StreamPosition};
use metrics::{Counter, counter};
use serde_json::Value;
use uuid::Uuid;

pub(crate) use self::schema::{OwnFlagResponse, OwnFlagsChange, OwnFlagsResponse};
use crate::{
    metrics::{EVALUATIONS, EVALUATIONS_TOO_EXPENSIVE},
    state::OverrideReasons,
};

/// User and replica state that a response is based on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EvaluatedState {
    pub(crate) user_id: Uuid,
    pub(crate) revision: Revision,
    pub(crate) evaluated_at: Instant,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    pub(crate) stale: bool,
}

/// Response body of `GET /api/flags/me` or `GET /api/flags/me/{flag_name}`.
pub(crate) struct EvaluationBody {
    pub(crate) body: String,
    /// Byte offset of the content that the entity tag covers: everything after the revision and the evaluation time.
    content_offset: usize,
    /// Next instant at which a result can change without a change to flags, overrides or the user.
    pub(crate) valid_until: Option<Instant>,
}

impl EvaluationBody {
    /// Returns the content that the entity tag covers.
    pub(crate) fn content(&self) -> &[u8] {
        &self.body.as_bytes()[self.content_offset..]
    }
}

/// Numbers of evaluations by source, for the evaluations metric.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EvaluationCounts([u64; 6]);

impl EvaluationCounts {
    const SOURCES: [&str; 6] =
        ["override", "disabled", "targeting_rule", "scheduled_change", "default", "evaluation_too_expensive"];
    const TOO_EXPENSIVE: usize = 5;

    pub(crate) fn record(&mut self, resolution: &Resolution<'_>) {
        let index = match resolution.source {
            Source::Override => 0,
            Source::Disabled => 1,
            Source::TargetingRule { .. } => 2,
            Source::ScheduledChange { .. } => 3,
            Source::Default => 4,
            Source::EvaluationTooExpensive => Self::TOO_EXPENSIVE,
        };
        self.0[index] += 1;
    }

    /// Adds the numbers to the metrics. The counters are looked up only once, which is safe because the server installs
    /// the metrics recorder before it accepts requests.
    pub(crate) fn publish(self) {
        static COUNTERS: LazyLock<[Counter; 6]> =
            LazyLock::new(|| EvaluationCounts::SOURCES.map(|source| counter!(EVALUATIONS, "source" => source)));
        for (counter, count) in COUNTERS.iter().zip(self.0).filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
        if self.0[Self::TOO_EXPENSIVE] > 0 {
            counter!(EVALUATIONS_TOO_EXPENSIVE).increment(self.0[Self::TOO_EXPENSIVE]);
        }
    }
}

/// Approximate size of one evaluation result, in bytes.
const RESULT_BYTES: usize = 128;

/// Builds the body with the results of all flags. `flag_count` is the approximate number of results.
pub(crate) fn build_own_flags_body<'v>(
    state: &EvaluatedState,
    results: impl Iterator<Item = EvaluatedFlag<'v>>,
    flag_count: usize,
    reasons: OverrideReasons,
) -> EvaluationBody {
    let mut body = String::with_capacity(RESULT_BYTES * flag_count + 512);
    write_start(&mut body, state);
    let content_offset = body.len();
    body.push_str(",\"flags\":");
    let valid_until = write_results(&mut body, results, reasons);
    write_end(&mut body, valid_until, state);
    body.push('}');
    EvaluationBody { body, content_offset, valid_until }
}

/// Builds the body with the result of one flag.
pub(crate) fn build_own_flag_body(
    state: &EvaluatedState,
    evaluated: &EvaluatedFlag<'_>,
    reasons: OverrideReasons,
) -> EvaluationBody {
    let mut body = String::with_capacity(512);
    write_start(&mut body, state);
    let content_offset = body.len();
    let valid_until = evaluated.resolution.valid_until;
    write_end(&mut body, valid_until, state);
    let _ = write!(body, ",\"name\":\"{}\",", evaluated.flag.name());
    write_result(&mut body, evaluated, reasons);
    body.push('}');
    let mut counts = EvaluationCounts::default();
    counts.record(&evaluated.resolution);
    counts.publish();
    EvaluationBody { body, content_offset, valid_until }
}

/// Builds the data of a `change` event. `unset` lists the flags that are no longer visible to the user.
pub(crate) fn build_change<'v>(
    position: &StreamPosition,
    set: impl Iterator<Item = EvaluatedFlag<'v>>,
    unset: &[&FlagName],
    valid_until: Option<Instant>,
    reasons: OverrideReasons,
) -> String {
    let mut data = String::with_capacity(256);
    let StreamPosition { revision, evaluated_at } = position;
    let _ = write!(data, "{{\"revision\":\"{revision}\",\"evaluated_at\":\"{evaluated_at}\",\"set\":");
    write_results(&mut data, set, reasons);
    data.push_str(",\"unset\":[");
    for (index, name) in unset.iter().enumerate() {
        let _ = write!(data, "{}\"{name}\"", if index > 0 { "," } else { "" });
    }
    data.push_str("],\"valid_until\":");
    write_instant(&mut data, valid_until);
    data.push('}');
    data
}

/// Writes an object that maps flag names to results, and counts the results. Returns the earliest `valid_until`.
fn write_results<'v>(
    out: &mut String,
    results: impl Iterator<Item = EvaluatedFlag<'v>>,
    reasons: OverrideReasons,
) -> Option<Instant> {
    let mut valid_until: Option<Instant> = None;
    let mut counts = EvaluationCounts::default();
    out.push('{');
    let empty = out.len();
    for evaluated in results {
        if out.len() > empty {
            out.push(',');
        }
        // Flag names contain no characters that JSON must escape.
        out.push('"');
        out.push_str(evaluated.flag.name());
        out.push_str("\":{");
        write_result(out, &evaluated, reasons);
        out.push('}');
        counts.record(&evaluated.resolution);
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
    }
    out.push('}');
    counts.publish();
    valid_until
}

/// Writes the members of one evaluation result, without the enclosing braces.
fn write_result(out: &mut String, evaluated: &EvaluatedFlag<'_>, reasons: OverrideReasons) {
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

fn write_override(out: &mut String, user_override: &OverrideRef<'_>, reasons: OverrideReasons) {
    // Writing to a `String` cannot fail.
    let _ = write!(
        out,
        "{{\"created_at\":\"{}\",\"updated_at\":\"{}\",\"expires_at\":",
        user_override.created_at, user_override.updated_at
    );
    write_instant(out, user_override.expires_at);
    if reasons == OverrideReasons::Shown {
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
fn write_start(out: &mut String, state: &EvaluatedState) {
    let EvaluatedState { user_id, revision, evaluated_at, .. } = state;
    let _ = write!(out, "{{\"user_id\":\"{user_id}\",\"revision\":\"{revision}\",\"evaluated_at\":\"{evaluated_at}\"");
}

/// Writes the members `valid_until` and `stale`. The object stays open.
fn write_end(out: &mut String, valid_until: Option<Instant>, state: &EvaluatedState) {
    out.push_str(",\"valid_until\":");
    write_instant(out, valid_until);
    let _ = write!(out, ",\"stale\":{}", state.stale);
}
