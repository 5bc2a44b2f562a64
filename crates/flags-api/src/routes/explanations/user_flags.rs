//! Evaluation results of one user, with details for admins.

use std::collections::BTreeMap;

use flags_domain::{self as domain, Instant};
use flags_service::{evaluation::EvaluatedFlag, replica::OverrideRef};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::wire::{WireFlagType, WireOverrideStatus, WireSource};

/// Evaluation results of all flags for one user, including flags that are not visible to clients.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserFlagsResponse<'v> {
    /// User that the flags were evaluated for.
    pub(super) user_id: Uuid,
    /// Revision that was evaluated, as `<epoch>:<number>`.
    pub(super) revision: String,
    /// Time of evaluation.
    #[schema(value_type = String, format = DateTime)]
    pub(super) evaluated_at: Instant,
    /// Earliest time at which a result may change without a new revision. `null` if there is none.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) valid_until: Option<Instant>,
    /// Whether the server has been unable to read its database for at least 5 seconds.
    pub(super) stale: bool,
    /// Results by flag name.
    pub(super) flags: BTreeMap<&'v str, UserFlagResult<'v>>,
}

/// Evaluation result of one flag.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserFlagResult<'v> {
    #[serde(flatten)]
    pub(super) result: DetailedResult<'v>,
    /// Type of the flag's values.
    pub(super) flag_type: WireFlagType,
    /// Whether the user can read the flag with their own credentials.
    pub(super) client_visible: bool,
    /// The user's override of this flag. Present only if it supplied the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) r#override: Option<OverrideDetail<'v>>,
    /// Result after the override expires. Present only if the override that supplied the value has an expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) then: Option<DetailedResult<'v>>,
}

/// Evaluation result with the layer that supplied it.
#[derive(Serialize, ToSchema)]
pub(crate) struct DetailedResult<'v> {
    /// Value for the user, of the flag's type.
    #[schema(value_type = Value)]
    pub(super) value: &'v Value,
    /// Id of the variant with this value. `null` if an override supplies a value that no variant has.
    #[schema(required)]
    pub(super) variant: Option<&'v str>,
    /// Layer that supplied the value.
    pub(super) source: WireSource,
    /// Id of the rule. Present only if `source` is `targeting_rule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) rule_id: Option<&'v str>,
    /// Id of the scheduled change. Present only if `source` is `scheduled_change`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) scheduled_change_id: Option<Uuid>,
}

impl<'v> DetailedResult<'v> {
    pub(super) fn from_resolution(resolution: &domain::Resolution<'v>) -> Self {
        let (rule_id, scheduled_change_id) = match resolution.source {
            domain::Source::TargetingRule { rule_id } => (Some(rule_id), None),
            domain::Source::ScheduledChange { id } => (None, Some(id)),
            _ => (None, None),
        };
        Self {
            value: resolution.value.value(),
            variant: resolution.variant.map(domain::CompiledVariant::id),
            source: resolution.source.into(),
            rule_id,
            scheduled_change_id,
        }
    }
}

/// The user's override of a flag.
#[derive(Serialize, ToSchema)]
pub(crate) struct OverrideDetail<'v> {
    pub(super) id: Uuid,
    /// Value that the override supplies.
    #[schema(value_type = Value)]
    pub(super) override_value: &'v Value,
    /// Whether the override is enabled. A disabled override has no effect.
    pub(super) enabled: bool,
    /// Status at the time of evaluation.
    pub(super) status: WireOverrideStatus,
    /// Why the override exists. `null` if no reason was entered.
    #[schema(required)]
    pub(super) reason: Option<&'v str>,
    /// Creator, as `user:<id>`, `token:<id>` or `system:<name>`.
    pub(super) created_by: &'v str,
    #[schema(value_type = String, format = DateTime)]
    pub(super) created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    pub(super) updated_at: Instant,
    /// When the override stops applying. `null` if it does not expire.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) expires_at: Option<Instant>,
}

impl<'v> OverrideDetail<'v> {
    pub(super) fn from_override(user_override: OverrideRef<'v>, at: Instant) -> Self {
        Self {
            id: user_override.id,
            override_value: user_override.value.value(),
            enabled: user_override.enabled,
            status: user_override.status(at).into(),
            reason: user_override.reason,
            created_by: user_override.created_by,
            created_at: user_override.created_at,
            updated_at: user_override.updated_at,
            expires_at: user_override.expires_at,
        }
    }
}

impl<'v> UserFlagResult<'v> {
    pub(super) fn from_evaluated(evaluated: &EvaluatedFlag<'v>, at: Instant) -> Self {
        Self {
            result: DetailedResult::from_resolution(&evaluated.resolution),
            flag_type: evaluated.flag.flag_type().into(),
            client_visible: evaluated.flag.client_visible(),
            r#override: evaluated.user_override.map(|user_override| OverrideDetail::from_override(user_override, at)),
            then: evaluated.after_override.as_ref().map(DetailedResult::from_resolution),
        }
    }
}
