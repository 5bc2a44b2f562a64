//! What a user gets, as admins see it.

use std::collections::BTreeMap;

use flags_domain::{self as domain, Instant};
use flags_service::{evaluation::Evaluated, replica::OverrideRef};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    routes::me::Source,
    wire::{FlagType, OverrideStatus},
};

/// What a user gets of all flags, those that clients do not see among them.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlagsOfUser<'v> {
    pub(super) user_id: Uuid,
    /// `<epoch>:<number>`: the revision of the log that was evaluated.
    pub(super) revision: String,
    #[schema(value_type = String, format = DateTime)]
    pub(super) evaluated_at: Instant,
    /// The next instant at which time alone may change an answer.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) valid_until: Option<Instant>,
    /// Whether the server has not been able to read its database for 5 s.
    pub(super) stale: bool,
    pub(super) flags: BTreeMap<&'v str, FlagOfUser<'v>>,
}

/// What a user gets of a flag, and where it comes from.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlagOfUser<'v> {
    #[serde(flatten)]
    pub(super) given: Resolved<'v>,
    pub(super) flag_type: FlagType,
    /// Whether users themselves get it.
    pub(super) client_visible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) r#override: Option<OverrideDetail<'v>>,
    /// Beside an override that expires: what comes then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) then: Option<Resolved<'v>>,
}

/// What is given, and by which layer.
#[derive(Serialize, ToSchema)]
pub(crate) struct Resolved<'v> {
    #[schema(value_type = Value)]
    pub(super) value: &'v Value,
    /// The variant with this value; `null` if an override gives a value that no variant has.
    #[schema(required)]
    pub(super) variant: Option<&'v str>,
    pub(super) source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) rule_id: Option<&'v str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) scheduled_change_id: Option<Uuid>,
}

impl<'v> Resolved<'v> {
    pub(super) fn show(resolution: &domain::Resolution<'v>) -> Self {
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

/// The user's override, whether it decides or not, with what is for admins.
#[derive(Serialize, ToSchema)]
pub(crate) struct OverrideDetail<'v> {
    pub(super) id: Uuid,
    #[schema(value_type = Value)]
    pub(super) override_value: &'v Value,
    pub(super) enabled: bool,
    pub(super) status: OverrideStatus,
    #[schema(required)]
    pub(super) reason: Option<&'v str>,
    /// Who made it: `user:<id>`, `token:<id>` or `system:<name>`.
    pub(super) created_by: &'v str,
    #[schema(value_type = String, format = DateTime)]
    pub(super) created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    pub(super) updated_at: Instant,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) expires_at: Option<Instant>,
}

impl<'v> OverrideDetail<'v> {
    pub(super) fn show(found: OverrideRef<'v>, at: Instant) -> Self {
        Self {
            id: found.id,
            override_value: found.value.value(),
            enabled: found.enabled,
            status: found.status(at).into(),
            reason: found.reason,
            created_by: found.created_by,
            created_at: found.created_at,
            updated_at: found.updated_at,
            expires_at: found.expires_at,
        }
    }
}

impl<'v> FlagOfUser<'v> {
    pub(super) fn show(evaluated: &Evaluated<'v>, at: Instant) -> Self {
        Self {
            given: Resolved::show(&evaluated.resolution),
            flag_type: evaluated.flag.flag_type().into(),
            client_visible: evaluated.flag.client_visible(),
            r#override: evaluated.user_override.map(|found| OverrideDetail::show(found, at)),
            then: evaluated.then.as_ref().map(Resolved::show),
        }
    }
}
