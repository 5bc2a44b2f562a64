//! A flag as it is shown.

use flags_domain::Instant;
use flags_service::flags::FlagDetail;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::wire::{FlagType, Serve, TargetingRule, Variant};

/// A flag.
#[derive(Serialize, ToSchema)]
pub(crate) struct FeatureFlag {
    name: String,
    flag_type: FlagType,
    #[schema(required)]
    description: Option<String>,
    #[schema(required)]
    owner: Option<String>,
    tags: Vec<String>,
    /// The switch, as last set by hand.
    enabled: bool,
    variants: Vec<Variant>,
    /// What is served when nothing above decides, as last set by hand.
    default: Serve,
    off_variant: String,
    targeting_rules: Vec<TargetingRule>,
    salt: String,
    client_visible: bool,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    archived_at: Option<Instant>,
    #[schema(value_type = String, format = DateTime)]
    default_set_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    enabled_set_at: Instant,
    effective: Effective,
    /// Its unexpired overrides; 0 while archived.
    override_count: i64,
    /// Its scheduled changes to come.
    pending_change_count: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// The revision of its last change.
    revision: i64,
}

/// Switch and default as they act now, scheduled changes included.
#[derive(Serialize, ToSchema)]
pub(crate) struct Effective {
    enabled: bool,
    default: Serve,
    /// The scheduled change that `default` comes from.
    #[schema(required)]
    scheduled_change_id: Option<Uuid>,
}

impl FeatureFlag {
    pub(super) fn show(detail: &FlagDetail, now: Instant) -> Self {
        let (record, flag) = (&detail.record, &detail.record.flag);
        let effective = detail.effective(now);
        Self {
            name: flag.name.to_string(),
            flag_type: flag.flag_type.into(),
            description: flag.description.clone(),
            owner: flag.owner.clone(),
            tags: flag.tags.clone(),
            enabled: flag.enabled,
            variants: flag.variants.iter().map(Into::into).collect(),
            default: (&flag.default).into(),
            off_variant: flag.off_variant.clone(),
            targeting_rules: flag.targeting_rules.iter().map(Into::into).collect(),
            salt: flag.salt.clone(),
            client_visible: flag.client_visible,
            archived_at: flag.archived_at,
            default_set_at: flag.default_set_at,
            enabled_set_at: flag.enabled_set_at,
            effective: Effective {
                enabled: effective.enabled,
                default: effective.default.into(),
                scheduled_change_id: effective.scheduled_change_id,
            },
            override_count: detail.override_count,
            pending_change_count: detail.pending_change_count,
            created_at: record.created_at,
            updated_at: record.updated_at,
            revision: record.revision,
        }
    }
}
