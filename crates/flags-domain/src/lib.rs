//! Feature-flag evaluation: flag definitions, targeting rules, scheduled changes, user overrides, and [`resolve()`],
//! which computes the value of a flag for one evaluation context.
//!
//! The crate performs no I/O, uses no async runtime, and reads neither a clock nor a random source. The caller passes
//! the current time. A Rust service that links this crate gets the same results as the server.
//!
//! # Getting started
//!
//! 1. Deserialize each flag from the JSON of the server's API into a [`Flag`], and its scheduled changes into
//!    [`ScheduledChange`]s. If the server may be newer than this crate, use [`FlagDefinition::from_json`] and
//!    [`ScheduledChangeDefinition::from_json`] with [`Snapshot::from_definitions`]. These functions
//!    accept flags that this version cannot read.
//! 2. Build a [`Snapshot`], which compiles all flags.
//! 3. For each evaluation, build an [`EvaluationContext`] and call [`resolve()`].
//!
//! ```
//! use flags_domain::{EvaluationContext, Flag, Instant, OverrideView, PreparedValue, Snapshot, Source, resolve};
//! use serde_json::{Map, json};
//!
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
//! // The context matches the rule `pro`.
//! let mut attributes = Map::new();
//! attributes.insert("plan".into(), json!("pro"));
//! let context = EvaluationContext::anonymous("visitor-1", attributes);
//! let now = Instant::parse("2026-06-01T12:00:00Z")?;
//! let resolution = resolve(flag, &context, None, now).ok_or("no result")?;
//! assert_eq!(resolution.value.value(), &json!("one-page"));
//! assert_eq!(resolution.source, Source::TargetingRule { rule_id: "pro" });
//!
//! // An active override has priority over every other layer until it expires.
//! let value = PreparedValue::new(json!("classic"));
//! let expires_at = Some(Instant::parse("2026-07-01T00:00:00Z")?);
//! let user_override = OverrideView { value: &value, enabled: true, expires_at };
//! let resolution = resolve(flag, &context, Some(user_override), now).ok_or("no result")?;
//! assert_eq!(resolution.source, Source::Override);
//! assert_eq!(resolution.valid_until, expires_at);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Evaluation order
//!
//! The first layer that supplies a value decides:
//!
//! 1. An archived flag has no result.
//! 2. An active override of the user ([`OverrideView`]), even if the flag is off.
//! 3. A flag that is off serves its off variant.
//! 4. The first enabled targeting rule whose conditions all hold ([`TargetingRule`]). If evaluating
//!    the rules exceeds the [`EvaluationBudget`], the off variant.
//! 5. The latest due scheduled change of the default ([`ScheduledChange`]), unless the default was
//!    set manually after it.
//! 6. The default ([`Flag::default`]).
//!
//! Time intervals are half-open: a scheduled change takes effect at exactly its `scheduled_at`, and an override is
//! expired at exactly its `expires_at`. [`Resolution::valid_until`] is the next instant at which time alone may change
//! the result; a cache must not keep the result beyond it.
//!
//! # Explaining a result
//!
//! [`explain()`] returns what [`resolve()`] returns, plus the result of every layer, the reason why each higher layer
//! was skipped, findings about the override, and the next change through time alone:
//!
//! ```
//! # use flags_domain::{EvaluationContext, Flag, Instant, Snapshot};
//! use flags_domain::{Layer, LayerOutcome, SkipReason, explain};
//! # use serde_json::{Map, json};
//! # let flag: Flag = serde_json::from_value(json!({
//! #     "name": "ui.dark_mode", "flag_type": "boolean", "enabled": true,
//! #     "variants": [{"id": "on", "value": true}, {"id": "off", "value": false}],
//! #     "default": {"variant": "on"}, "off_variant": "off", "salt": "ui.dark_mode", "client_visible": true,
//! #     "default_set_at": "2026-01-01T00:00:00Z", "enabled_set_at": "2026-01-01T00:00:00Z",
//! # }))?;
//! # let snapshot = Snapshot::new([(flag, vec![])]);
//! # let context = EvaluationContext::anonymous("visitor-1", Map::new());
//! # let now = Instant::parse("2026-06-01T12:00:00Z")?;
//! let state = snapshot.get("ui.dark_mode").ok_or("no such flag")?;
//! let explanation = explain(state, &context, None, now);
//! assert_eq!(explanation.layers[0].layer, Layer::Override);
//! assert_eq!(explanation.layers[0].skip_reason, Some(SkipReason::NoOverride));
//! let deciding = explanation.layers.iter().find(|report| report.outcome == LayerOutcome::Matched);
//! assert_eq!(deciding.map(|report| report.layer), Some(Layer::Default));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Keeping a snapshot current
//!
//! [`Snapshot::apply`] applies one [`Change`] and recompiles only the affected flag. With a snapshot behind a lock,
//! call [`Snapshot::prepare`] before locking it for writing and [`Snapshot::commit`] while holding the lock:
//!
//! ```
//! use flags_domain::{Change, FlagName, Snapshot};
//!
//! let mut snapshot = Snapshot::default();
//! let changes = [Change::FlagRemoved(FlagName::new("checkout.flow")?)];
//! let edit = snapshot.prepare(&changes);
//! snapshot.commit(edit);
//! assert!(snapshot.is_empty());
//! # Ok::<(), flags_domain::InvalidFlagName>(())
//! ```
//!
//! # Types for the server
//!
//! The server uses [`Revision`], [`ResourceKind`], [`Action`], [`Role`] and [`TokenGrant`] in its
//! change log, API and permissions. Evaluation does not use them.
//!
//! # Units, ranges and limits
//!
//! - [`Instant`]: whole microseconds since 1970-01-01T00:00:00Z, years 0000 to 9999.
//! - [`Weight`]: 0 to 100 percent in steps of 0.001.
//! - Buckets: `0..100_000`, one for each thousandth of a percent ([`bucket::BUCKETS`]).
//! - Numbers in flag values: finite doubles; integers within ±2^53 ([`MAX_INTEGER`]).
//! - Limits of definitions: the `MAX_*` constants. [`Flag::check`] enforces them. [`resolve()`] and [`Snapshot::new`]
//!   do not.
//!
//! # Errors and panics
//!
//! - [`resolve()`], [`explain()`] and all other functions of this crate do not panic for any input.
//! - [`resolve()`] returns `None` for an archived flag, and for a flag that does not compile unless an active override
//!   supplies the value. [`CompiledFlag::compile_error`] returns the reason.
//! - [`FlagDefinition::from_json`] and [`ScheduledChangeDefinition::from_json`] never skip a part of a definition. A
//!   flag with an unknown operator, or with an unknown field in a rule, condition, serve, variant or scheduled change,
//!   is an [`UnreadableFlag`], which serves active overrides of its type only. A newer server may send such flags.
//! - Deserialization into [`Flag`] and [`ScheduledChange`] rejects malformed definitions. [`Flag::check`] and
//!   [`ScheduledChange::check`] return every remaining problem as a [`Violation`] with a JSON pointer (RFC 6901). A
//!   flag without violations compiles.
//!
//! # Performance and thread safety
//!
//! [`resolve()`] hashes at most one text per evaluation. It allocates no memory, with two exceptions:
//!
//! - The operator `matches` allocates when its regular expressions are first used, and when several
//!   threads use them at once.
//! - The version operators allocate for abbreviated versions and long pre-release identifiers.
//!
//! An [`EvaluationBudget`] bounds the cost of an evaluation, for any definition and context. A flag
//! that exceeds its budget serves its off variant ([`Source::EvaluationTooExpensive`]).
//! [`resolve_within`] evaluates several flags within one budget.
//!
//! All public types are `Send` and `Sync`.
//!
//! # Standards
//!
//! | what | standard |
//! |---|---|
//! | buckets of percentage splits | MurmurHash3 x86 32-bit, seed 0 (Austin Appleby); see [`bucket`](mod@bucket) |
//! | timestamps | RFC 3339 |
//! | version operators | Semantic Versioning 2.0.0, precedence rules of clause 11 |
//! | operator `matches` | syntax of the [`regex`](https://docs.rs/regex) crate |
//! | pointers in violations | JSON Pointer, RFC 6901 |
//! | names (evaluation context, targeting key, variant) | OpenFeature |
//!
//! The test vectors in `tests/vectors` of the repository specify evaluation for implementations in other languages.

pub mod bucket;
mod budget;
mod change;
mod compiled;
mod condition;
mod context;
mod definition;
mod email;
mod explain;
mod external_id;
mod finding;
mod flag;
mod instant;
mod limits;
mod name;
mod resolve;
mod resource;
mod revision;
mod role;
mod rule;
mod schedule;
mod serve;
mod snapshot;
mod string_enum;
mod user_override;
mod value;
mod violation;

pub use budget::{EvaluationBudget, MAX_UNITS_PER_FLAG, MAX_UNITS_PER_REQUEST, RESERVED_UNITS_PER_FLAG};
pub use change::Change;
pub use compiled::{CompileError, CompiledFlag, CompiledVariant};
pub use condition::{Condition, ConditionFailure, MAX_REGEXES, MAX_SEARCHED_TEXT_BYTES, Operator};
pub use context::{EvaluationContext, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH, RESERVED_ATTRIBUTES, StoredUser};
pub use definition::{FlagDefinition, ScheduledChangeDefinition, UnreadableDefinition, UnreadableFlag, decode_field};
pub use email::{email_key, email_search_forms, search_form};
pub use explain::{
    Explanation, Layer, LayerOutcome, LayerReport, LayerResult, NextChange, SkipReason, SplitReport, explain,
};
pub use external_id::{MAX_EXTERNAL_ID_LENGTH, UserIdNamespace, canonical_uuid, check_external_id};
pub use finding::FindingCode;
pub use flag::{
    Flag, MAX_DESCRIPTION_LENGTH, MAX_RULES, MAX_TAGS, MAX_VARIANT_ID_LENGTH, MAX_VARIANTS, Variant,
    default_boolean_variants,
};
pub use instant::{Instant, InvalidInstant};
pub use limits::{
    MAX_ATTRIBUTE_ITEMS, MAX_ATTRIBUTES, MAX_CONDITION_VALUES, MAX_CONDITIONS, MAX_CONDITIONS_PER_RULE, MAX_FLAGS,
    MAX_REGEXES_BYTES, MAX_TARGETING_KEY_BYTES, MAX_VALUES_PER_CONDITION, check_attribute_counts,
};
pub use name::{FlagName, InvalidFlagName};
pub use resolve::{OverrideOutcome, Resolution, Source, resolve, resolve_within};
pub use resource::{Action, ResourceKind};
pub use revision::{InvalidRevision, Revision};
pub use role::{Role, TokenGrant};
pub use rule::{MAX_RULE_ID_LENGTH, TargetingRule};
pub use schedule::{EffectiveSettings, SchedulePreview, ScheduleStatus, ScheduledChange};
pub use serve::{InvalidWeight, MAX_ATTRIBUTE_LENGTH, Serve, Weight};
pub use snapshot::{FlagState, Snapshot, SnapshotEdit};
pub use user_override::{MAX_REASON_LENGTH, OverrideStatus, OverrideView, UserOverride};
pub use value::{
    FlagType, MAX_INTEGER, MAX_VALUE_BYTES, MAX_VALUE_DEPTH, PreparedValue, check_json, is_deeper_than, same_value,
};
pub use violation::{Violation, check_key, check_text};
