//! The pure rules of feature flags: definitions and their checks, targeting, schedules, user overrides, and
//! [`resolve()`], the one function that decides what somebody gets.
//!
//! This crate knows no runtime, database, network, clock or randomness: time comes in as an argument. Any Rust service
//! can link it to evaluate flags on its own:
//!
//! ```
//! use flags_domain::{EvaluationContext, Flag, Instant, OverrideView, PreparedValue, Snapshot, Source, resolve};
//! use serde_json::{Map, json};
//!
//! // A definition, as the service's API gives it.
//! let flag: Flag = serde_json::from_value(json!({
//!     "name": "checkout.flow", "flag_type": "string", "enabled": true,
//!     "variants": [{"id": "old", "value": "classic"}, {"id": "new", "value": "one-page"}],
//!     "default": {"variant": "old"}, "off_variant": "old",
//!     "targeting_rules": [{"id": "pro", "serve": {"variant": "new"},
//!         "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}]}],
//!     "salt": "checkout.flow", "client_visible": true,
//!     "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
//! }))?;
//! let snapshot = Snapshot::new([(flag, vec![])]);
//! let flag = snapshot.get("checkout.flow").ok_or("no such flag")?.compiled();
//!
//! // Whoever is on the plan `pro` gets the new flow, by the rule.
//! let mut attributes = Map::new();
//! attributes.insert("plan".into(), json!("pro"));
//! let context = EvaluationContext::anonymous("visitor-1", attributes);
//! let now = Instant::parse("2026-06-01T12:00:00Z")?;
//! let resolution = resolve(flag, &context, None, now).ok_or("archived")?;
//! assert_eq!(resolution.value.value(), &json!("one-page"));
//! assert_eq!(resolution.source, Source::TargetingRule { rule_id: "pro" });
//!
//! // An override of this one user wins, until the instant it ends.
//! let value = PreparedValue::new(json!("classic"));
//! let expires_at = Some(Instant::parse("2026-07-01T00:00:00Z")?);
//! let user_override = OverrideView { value: &value, enabled: true, expires_at };
//! let resolution = resolve(flag, &context, Some(user_override), now).ok_or("archived")?;
//! assert_eq!(resolution.source, Source::Override);
//! assert_eq!(resolution.valid_until, expires_at);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bucket;
mod change;
mod compiled;
mod condition;
mod context;
mod explain;
mod finding;
mod flag;
mod instant;
mod name;
mod resolve;
mod rule;
mod schedule;
mod serve;
mod snapshot;
mod user_override;
mod value;
mod violation;

pub use change::Change;
pub use compiled::{CompileFailure, CompiledFlag, CompiledVariant};
pub use condition::ConditionFailure;
pub use context::{EvaluationContext, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH, RESERVED_ATTRIBUTES};
pub use explain::{
    Explanation, Layer, LayerOutcome, LayerReport, LayerResult, NextChange, SkipReason, SplitReport, explain,
};
pub use finding::FindingCode;
pub use flag::{
    Flag, MAX_DESCRIPTION_LENGTH, MAX_RULES, MAX_TAGS, MAX_VARIANT_ID_LENGTH, MAX_VARIANTS, Variant, boolean_variants,
};
pub use instant::{Instant, InvalidInstant};
pub use name::{FlagName, InvalidFlagName};
pub use resolve::{OverrideOutcome, Resolution, Source, resolve};
pub use rule::{Condition, MAX_RULE_ID_LENGTH, Operator, TargetingRule};
pub use schedule::{Effective, SchedulePreview, ScheduleStatus, ScheduledChange};
pub use serve::{InvalidWeight, MAX_ATTRIBUTE_LENGTH, Serve, Weight};
pub use snapshot::{Edit, FlagState, Snapshot};
pub use user_override::{MAX_REASON_LENGTH, OverrideStatus, OverrideView, UserOverride};
pub use value::{
    FlagType, MAX_INTEGER, MAX_VALUE_BYTES, MAX_VALUE_DEPTH, PreparedValue, check_json, is_deeper_than, same_value,
};
pub use violation::{Violation, check_key, check_text};
