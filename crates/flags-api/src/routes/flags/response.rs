//! Flag representation in responses.

use flags_domain::Instant;
use flags_service::flags::{FlagDetail, FlagItem, UnreadableFlagDetail};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::wire::{WireFlagType, WireServe, WireTargetingRule, WireVariant};

/// A feature flag.
#[derive(Serialize, ToSchema)]
pub(crate) struct FeatureFlagResponse {
    /// Unique name.
    name: String,
    /// Type of all variants and overrides.
    flag_type: WireFlagType,
    /// Human-readable description.
    #[schema(required)]
    description: Option<String>,
    /// Person or team that is responsible for the flag.
    #[schema(required)]
    owner: Option<String>,
    /// Tags for filtering the list of flags.
    tags: Vec<String>,
    /// Whether the flag is on, as last set manually. See `effective` for the current state.
    enabled: bool,
    /// Values that the flag can serve. Their order determines the bucket ranges of percentage splits.
    variants: Vec<WireVariant>,
    /// Variant or split to serve when no higher layer decides, as last set manually. See `effective` for the current
    /// default.
    default: WireServe,
    /// Id of the variant that is served while the flag is off.
    off_variant: String,
    /// Rules in order of evaluation. The first matching rule decides.
    targeting_rules: Vec<WireTargetingRule>,
    /// Hash input for percentage splits.
    salt: String,
    /// Whether users can read the flag with their own credentials.
    client_visible: bool,
    /// When the flag was archived. `null` if it is not archived.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    archived_at: Option<Instant>,
    /// When `default` was last set manually.
    #[schema(value_type = String, format = DateTime)]
    default_set_at: Instant,
    /// When `enabled` was last set manually.
    #[schema(value_type = String, format = DateTime)]
    enabled_set_at: Instant,
    /// Current enabled state and default, including scheduled changes that have taken effect.
    effective: EffectiveState,
    /// Number of unexpired overrides; 0 while the flag is archived.
    override_count: i64,
    /// Number of pending scheduled changes.
    pending_change_count: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Instant,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Instant,
    /// Revision number of the last change.
    revision: i64,
}

/// A feature flag, or the readable parts of one whose definition this server cannot read.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum FlagItemResponse {
    /// Flag whose definition the server can read.
    Readable(Box<FeatureFlagResponse>),
    /// Flag whose definition cannot be read.
    Unreadable(Box<UnreadableFlagResponse>),
}

/// A feature flag whose definition this server cannot read, for example because a newer version wrote it. The flag
/// serves active overrides of its type and nothing else. It can be archived, but not changed in any other way.
#[derive(Serialize, ToSchema)]
#[schema(as = UnreadableFeatureFlagResponse)]
pub(crate) struct UnreadableFlagResponse {
    /// Unique name.
    name: String,
    /// Why the definition cannot be read.
    unreadable: String,
    /// Type of all overrides. `null` if the type cannot be read; overrides then do not apply.
    #[schema(required)]
    flag_type: Option<WireFlagType>,
    /// Whether users can read the flag with their own credentials. `false` if the stored value cannot be read.
    client_visible: bool,
    /// When the flag was archived. `null` if it is not archived.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    archived_at: Option<Instant>,
    /// Number of unexpired overrides; 0 while the flag is archived.
    override_count: i64,
    /// Time of creation. `null` if the stored value cannot be read.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    created_at: Option<Instant>,
    /// Time of the last change. `null` if the stored value cannot be read.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    updated_at: Option<Instant>,
    /// Revision number of the last change; 0 if the stored value cannot be read.
    revision: i64,
}

impl FlagItemResponse {
    pub(super) fn from_item(item: &FlagItem, now: Instant) -> Self {
        match item {
            FlagItem::Readable(detail) => Self::Readable(Box::new(FeatureFlagResponse::from_detail(detail, now))),
            FlagItem::Unreadable(detail) => Self::Unreadable(Box::new(UnreadableFlagResponse::from_detail(detail))),
        }
    }
}

impl UnreadableFlagResponse {
    fn from_detail(detail: &UnreadableFlagDetail) -> Self {
        let UnreadableFlagDetail { record, override_count } = detail;
        Self {
            name: record.flag.name.to_string(),
            unreadable: record.flag.reason.clone(),
            flag_type: record.flag.flag_type.map(Into::into),
            client_visible: record.flag.client_visible,
            archived_at: record.flag.archived_at,
            override_count: *override_count,
            created_at: record.created_at,
            updated_at: record.updated_at,
            revision: record.revision.unwrap_or(0),
        }
    }
}

/// Enabled state and default of a flag at the time of the response, including scheduled changes that have taken effect.
#[derive(Serialize, ToSchema)]
pub(crate) struct EffectiveState {
    /// Whether the flag is on.
    enabled: bool,
    /// Variant or split that is served when no higher layer decides.
    default: WireServe,
    /// Id of the scheduled change that set `default`. `null` if `default` was set manually.
    #[schema(required)]
    scheduled_change_id: Option<Uuid>,
}

impl FeatureFlagResponse {
    pub(super) fn from_detail(detail: &FlagDetail, now: Instant) -> Self {
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
            effective: EffectiveState {
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
