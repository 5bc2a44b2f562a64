//! Serializes evaluation results in the format of OFREP, from JSON fragments that are prepared when a flag is compiled.
//! The module `schema` contains the documented types.

use std::{borrow::Cow, fmt::Write as _};

use flags_domain::{CompiledFlag, Instant, PreparedValue, Revision, Source};
use flags_service::{evaluation::EvaluatedFlag, replica::OverrideRef};
use serde_json::Value;

use super::EVENT_STREAM_PATH;
use crate::{evaluation_json::EvaluationCounts, ofrep_failure::EvaluationFailure, state::OverrideReasons};

/// Variant name, as JSON, of an override value that no variant has. OpenFeature providers require a variant.
const OVERRIDE_VARIANT: &str = "\"override\"";

/// Number of seconds in the background after which a page should close its event stream.
const INACTIVITY_SECONDS: u32 = 120;

/// Contents of a bulk evaluation's body other than the results.
pub(super) struct BulkState<'s> {
    /// Encoded token of the event stream.
    pub(super) stream_token: &'s str,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    pub(super) stale: bool,
    /// Approximate number of results.
    pub(super) flag_count: usize,
    /// Names of attributes in the request that do not apply, separated by commas.
    pub(super) ignored_attributes: &'s str,
}

/// Builds the part of a bulk evaluation's body that the entity tag covers: everything before the revision. The JSON
/// object stays open.
pub(super) fn write_bulk_content<'v>(
    results: impl Iterator<Item = (&'v CompiledFlag, Option<EvaluatedFlag<'v>>)>,
    state: &BulkState<'_>,
    reasons: OverrideReasons,
) -> String {
    let BulkState { stream_token, stale, flag_count, ignored_attributes } = state;
    let mut out = String::with_capacity(256 * flag_count + 512);
    out.push_str("{\"flags\":[");
    let valid_until = write_results(&mut out, results, reasons);
    // Writing to a `String` cannot fail.
    let _ = write!(
        out,
        r#"],"eventStreams":[{{"type":"sse","endpoint":{{"requestUri":"{EVENT_STREAM_PATH}?ticket={stream_token}"}},"inactivityDelaySec":{INACTIVITY_SECONDS}}}],"metadata":{{"stale":{stale}"#
    );
    if let Some(at) = valid_until {
        let _ = write!(out, ",\"valid_until\":\"{at}\"");
    }
    write_ignored_attributes(&mut out, ignored_attributes);
    out
}

/// Completes a body that [`write_bulk_content`] began.
pub(super) fn finish_bulk_body(mut content: String, revision: Revision) -> String {
    let _ = write!(content, ",\"revision\":\"{revision}\"}}}}");
    content
}

/// Appends the results, separated by commas, and counts them. Returns the earliest `valid_until`.
fn write_results<'v>(
    out: &mut String,
    results: impl Iterator<Item = (&'v CompiledFlag, Option<EvaluatedFlag<'v>>)>,
    reasons: OverrideReasons,
) -> Option<Instant> {
    let mut valid_until: Option<Instant> = None;
    let mut counts = EvaluationCounts::default();
    let empty = out.len();
    for (flag, evaluated) in results {
        if out.len() > empty {
            out.push(',');
        }
        let Some(evaluated) = evaluated else {
            out.push_str(&EvaluationFailure::invalid_flag(flag.name()).json());
            continue;
        };
        if evaluated.resolution.source == Source::EvaluationTooExpensive {
            out.push_str(&EvaluationFailure::too_expensive(flag.name()).json());
        } else {
            write_evaluation(out, &evaluated, reasons, "");
        }
        counts.record(&evaluated.resolution);
        valid_until = [valid_until, evaluated.resolution.valid_until].into_iter().flatten().min();
    }
    counts.publish();
    valid_until
}

/// Appends the metadata `ignored_attributes`, unless it is empty. The names need no JSON escaping.
fn write_ignored_attributes(out: &mut String, names: &str) {
    if !names.is_empty() {
        let _ = write!(out, r#","ignored_attributes":"{names}""#);
    }
}

/// Appends the evaluation result of one flag. Do not call it for a flag that exceeded the evaluation budget: the
/// response then contains an [`EvaluationFailure`].
pub(super) fn write_evaluation(
    out: &mut String,
    evaluated: &EvaluatedFlag<'_>,
    reasons: OverrideReasons,
    ignored_attributes: &str,
) {
    let EvaluatedFlag { flag, resolution, user_override, .. } = evaluated;
    // Names of flags, layers and types need no JSON escaping. Writing to a `String` cannot fail.
    let _ = write!(
        out,
        r#"{{"key":"{}","value":{},"reason":"{}","variant":{},"metadata":{{"source":"{}","flag_type":"{}""#,
        flag.name(),
        value(flag, resolution.value),
        reason(flag, resolution.source),
        resolution.variant.map_or(OVERRIDE_VARIANT, |variant| variant.id_json()),
        resolution.source.as_str(),
        flag.flag_type().as_str(),
    );
    if let Some(user_override) = user_override {
        write_override(out, user_override, reasons);
    }
    write_ignored_attributes(out, ignored_attributes);
    out.push_str("}}");
}

/// OpenFeature reason. An override counts as targeting, because it applies to one user.
fn reason(flag: &CompiledFlag, source: Source<'_>) -> &'static str {
    match source {
        Source::Disabled => "DISABLED",
        Source::EvaluationTooExpensive => "ERROR",
        _ if flag.uses_split(source) => "SPLIT",
        Source::Override | Source::TargetingRule { .. } => "TARGETING_MATCH",
        Source::ScheduledChange { .. } | Source::Default => "STATIC",
    }
}

/// Value as JSON. Values of floating-point flags always have a fraction or exponent, because some languages would parse
/// `1` as an integer.
fn value<'v>(flag: &CompiledFlag, value: &'v PreparedValue) -> Cow<'v, str> {
    let json = value.json();
    if flag.is_floating_point() && !json.contains(['.', 'e', 'E']) { format!("{json}.0").into() } else { json.into() }
}

/// Appends the metadata of an override. OFREP metadata is flat and cannot contain null.
fn write_override(out: &mut String, user_override: &OverrideRef<'_>, reasons: OverrideReasons) {
    let OverrideRef { created_at, updated_at, expires_at, reason, .. } = user_override;
    let _ = write!(out, r#","override_created_at":"{created_at}","override_updated_at":"{updated_at}""#);
    if let Some(expires_at) = expires_at {
        let _ = write!(out, r#","override_expires_at":"{expires_at}""#);
    }
    if let Some(reason) = reason.filter(|_| reasons == OverrideReasons::Shown) {
        let _ = write!(out, r#","override_reason":{}"#, Value::from(reason));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{
        super::schema::{BulkEvaluationResponse, EvaluationSuccess},
        *,
    };
    use crate::generated::{any_reasons, any_scenario, check_type};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn json_of_a_bulk_evaluation_has_exactly_the_documented_fields(
            scenario in any_scenario(),
            stale in any::<bool>(),
            reasons in any_reasons(),
        ) {
            let results = scenario.results();
            let state = BulkState { stream_token: "token", stale, flag_count: results.len(), ignored_attributes: "email,role" };
            let content = write_bulk_content(results.iter().copied(), &state, reasons);
            let body = finish_bulk_body(content, Revision { epoch: Uuid::from_u128(7), number: 42 });
            let value = check_type::<BulkEvaluationResponse>(&body)?;
            let flags = value["flags"].as_array().unwrap();
            prop_assert_eq!(flags.len(), results.len());
            for (written, (flag, _)) in flags.iter().zip(&results) {
                prop_assert_eq!(&written["key"], flag.name().as_str());
            }
        }

        #[test]
        fn json_of_one_evaluation_has_exactly_the_documented_fields(
            scenario in any_scenario(),
            reasons in any_reasons(),
        ) {
            for evaluated in scenario.evaluated() {
                let mut body = String::new();
                write_evaluation(&mut body, &evaluated, reasons, "email");
                let value = check_type::<EvaluationSuccess>(&body)?;
                // A floating-point flag serializes `1` as `1.0`, which is a different JSON value.
                let expected = evaluated.resolution.value.value();
                prop_assert!(value["value"] == *expected || value["value"].as_f64() == expected.as_f64());
            }
        }
    }
}
