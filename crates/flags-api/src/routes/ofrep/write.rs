//! Writes evaluations in the protocol's words, by hand: from fragments prepared when a flag is compiled.

use std::{borrow::Cow, fmt::Write as _};

use flags_domain::{CompiledFlag, PreparedValue, Source};
use flags_service::{evaluation::Evaluated, replica::OverrideRef};
use serde_json::Value;

/// The variant of an override's value that no variant has: providers count on there being one.
const NO_VARIANT: &str = "\"override\"";

/// One evaluation.
pub(super) fn write_evaluation(out: &mut String, evaluated: &Evaluated<'_>, reasons: bool) {
    let Evaluated { flag, resolution, user_override, .. } = evaluated;
    // Neither a flag's name nor the names of layers and types need escaping. Writing to a string cannot fail.
    let _ = write!(
        out,
        r#"{{"key":"{}","value":{},"reason":"{}","variant":{},"metadata":{{"source":"{}","flag_type":"{}""#,
        flag.name(),
        value(flag, resolution.value),
        reason(flag, resolution.source),
        resolution.variant.map_or(NO_VARIANT, |variant| variant.id_json()),
        resolution.source.as_str(),
        flag.flag_type().as_str(),
    );
    if let Some(user_override) = user_override {
        write_override(out, user_override, reasons);
    }
    out.push_str("}}");
}

/// Why, as OpenFeature has it. An override targets one user.
fn reason(flag: &CompiledFlag, source: Source<'_>) -> &'static str {
    match source {
        Source::Disabled => "DISABLED",
        _ if flag.splits(source) => "SPLIT",
        Source::Override | Source::TargetingRule { .. } => "TARGETING_MATCH",
        Source::ScheduledChange { .. } | Source::Default => "STATIC",
    }
}

/// The value as JSON. Some languages take `1` for no floating number.
fn value<'v>(flag: &CompiledFlag, value: &'v PreparedValue) -> Cow<'v, str> {
    let json = value.json();
    if flag.is_floating() && !json.contains(['.', 'e', 'E']) { format!("{json}.0").into() } else { json.into() }
}

/// Metadata are flat, and hold no null.
fn write_override(out: &mut String, user_override: &OverrideRef<'_>, reasons: bool) {
    let OverrideRef { created_at, updated_at, expires_at, reason, .. } = user_override;
    let _ = write!(out, r#","override_created_at":"{created_at}","override_updated_at":"{updated_at}""#);
    if let Some(expires_at) = expires_at {
        let _ = write!(out, r#","override_expires_at":"{expires_at}""#);
    }
    if let Some(reason) = reason.filter(|_| reasons) {
        let _ = write!(out, r#","override_reason":{}"#, Value::from(reason));
    }
}
