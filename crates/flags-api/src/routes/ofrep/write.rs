//! Serializes evaluation results in the format of OFREP, from JSON fragments that are prepared when a flag is compiled.

use std::{borrow::Cow, fmt::Write as _};

use flags_domain::{CompiledFlag, PreparedValue, Source};
use flags_service::{evaluation::EvaluatedFlag, replica::OverrideRef};
use serde_json::Value;

/// Variant name, as JSON, of an override value that no variant has. OpenFeature providers require a variant.
const OVERRIDE_VARIANT: &str = "\"override\"";

/// Appends the evaluation result of one flag.
pub(super) fn write_evaluation(out: &mut String, evaluated: &EvaluatedFlag<'_>, include_reasons: bool) {
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
        write_override(out, user_override, include_reasons);
    }
    out.push_str("}}");
}

/// OpenFeature reason. An override counts as targeting, because it applies to one user.
fn reason(flag: &CompiledFlag, source: Source<'_>) -> &'static str {
    match source {
        Source::Disabled => "DISABLED",
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
fn write_override(out: &mut String, user_override: &OverrideRef<'_>, include_reasons: bool) {
    let OverrideRef { created_at, updated_at, expires_at, reason, .. } = user_override;
    let _ = write!(out, r#","override_created_at":"{created_at}","override_updated_at":"{updated_at}""#);
    if let Some(expires_at) = expires_at {
        let _ = write!(out, r#","override_expires_at":"{expires_at}""#);
    }
    if let Some(reason) = reason.filter(|_| include_reasons) {
        let _ = write!(out, r#","override_reason":{}"#, Value::from(reason));
    }
}
