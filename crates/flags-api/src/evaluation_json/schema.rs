//! Types of the hand-written JSON for the OpenAPI document. Tests compare the JSON with these types.

use std::collections::BTreeMap;

use flags_domain::Instant;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::wire::{WireFlagType, WireSource};

/// Evaluation results of all flags that are visible to the caller.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct OwnFlagsResponse {
    /// User that the flags were evaluated for.
    user_id: Uuid,
    /// Revision that was evaluated, as `<epoch>:<number>`.
    revision: String,
    /// Time of evaluation.
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// Earliest time at which a result may change without a new revision, because an override expires or a scheduled
    /// change takes effect. `null` if there is none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    stale: bool,
    /// Results by flag name.
    flags: BTreeMap<String, OwnFlagResult>,
}

/// Evaluation result of one flag.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct OwnFlagResult {
    /// Value for the caller, of the flag's type.
    value: Value,
    /// Type of the flag's values.
    flag_type: WireFlagType,
    /// Id of the variant with this value. `null` if an override supplies a value that no variant has.
    #[schema(required)]
    variant: Option<String>,
    /// Layer that supplied the value.
    source: WireSource,
    /// Override that supplied the value. Present only if `source` is `override`.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    #[schema(required = false, nullable = false)]
    r#override: Option<AppliedOverride>,
    /// Result after the override expires. Present only if the override that supplied the value has an expiry.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    #[schema(required = false, nullable = false)]
    then: Option<ResultAfterExpiry>,
}

/// The override that supplied a value.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct AppliedOverride {
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// When the override stops applying. `null` if it does not expire.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Instant>,
    /// Reason entered with the override; `null` if none. Present only if the server runs with
    /// `--show-reasons-to-users`.
    #[cfg_attr(
        test,
        serde(
            default,
            deserialize_with = "crate::extract::deserialize_present",
            skip_serializing_if = "Option::is_none"
        )
    )]
    #[schema(required = false, value_type = Option<String>)]
    reason: Option<Option<String>>,
}

/// Evaluation result after an override has expired.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct ResultAfterExpiry {
    /// Value after the override expires.
    value: Value,
    /// Id of the variant with this value.
    #[schema(required)]
    variant: Option<String>,
    /// Layer that supplies the value after the override expires.
    source: WireSource,
}

/// Evaluation result of one flag, with the revision and the time of the evaluation.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct OwnFlagResponse {
    /// User that the flag was evaluated for.
    user_id: Uuid,
    /// Flag name.
    name: String,
    /// Revision that was evaluated, as `<epoch>:<number>`.
    revision: String,
    /// Time of evaluation.
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// Earliest time at which the result may change without a new revision. `null` if there is none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    stale: bool,
    #[schema(inline)]
    #[serde(flatten)]
    flag: OwnFlagResult,
}

/// Changes of the caller's flag values since the previous event.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "OpenAPI document only"))]
pub(crate) struct OwnFlagsChange {
    /// Revision that was evaluated, as `<epoch>:<number>`.
    revision: String,
    /// Time of evaluation.
    #[schema(value_type = String, format = DateTime)]
    evaluated_at: Instant,
    /// Flags with a new result, by name. Each result is complete and replaces the previous one.
    set: BTreeMap<String, OwnFlagResult>,
    /// Names of flags that are no longer visible to the caller.
    unset: Vec<String>,
    /// Earliest time at which a result may change without a new revision. `null` if there is none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    valid_until: Option<Instant>,
}
