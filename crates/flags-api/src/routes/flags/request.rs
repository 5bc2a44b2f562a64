//! What a flag is to be, as somebody asks for it.

use flags_domain::{self as domain, FlagName, Violation};
use flags_service::flags::{FlagInput, FlagPatch};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    extract::{Body, present},
    wire::{FlagType, Serve, TargetingRule, Variant, read_rules, yes},
};

/// A new flag. A boolean flag needs only name and type: it gets the variants `on` and `off` and serves `off`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateFlag {
    #[schema(pattern = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", max_length = 255)]
    name: String,
    flag_type: FlagType,
    #[schema(max_length = 2000)]
    description: Option<String>,
    #[schema(max_length = 255)]
    owner: Option<String>,
    #[serde(default)]
    #[schema(max_items = 50)]
    tags: Vec<String>,
    #[serde(default = "yes")]
    enabled: bool,
    variants: Option<Vec<Variant>>,
    default: Option<Serve>,
    off_variant: Option<String>,
    #[serde(default)]
    #[schema(max_items = 1000)]
    targeting_rules: Vec<TargetingRule>,
    /// Bucketing salt; the name if left out.
    salt: Option<String>,
    #[serde(default = "yes")]
    client_visible: bool,
}

/// The fields of a flag that are to change. Each named field is replaced whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchFlag {
    /// `null` clears it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Option<Option<String>>,
    /// `null` clears it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 255)]
    owner: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, max_items = 50)]
    tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// Reordering them moves users of splits between variants.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    variants: Option<Vec<Variant>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    default: Option<Serve>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    off_variant: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, max_items = 1000)]
    targeting_rules: Option<Vec<TargetingRule>>,
    /// Changing it moves users of splits between variants.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    salt: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    client_visible: Option<bool>,
}

/// All targeting rules of a flag, first match first.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutTargetingRules {
    #[schema(max_items = 1000)]
    pub(super) targeting_rules: Vec<TargetingRule>,
}

/// Largest body with rules in it, in bytes.
const RULES_LIMIT: usize = 2 * 1024 * 1024;

impl Body for CreateFlag {
    const LIMIT: usize = RULES_LIMIT;
}
impl Body for PatchFlag {
    const LIMIT: usize = RULES_LIMIT;
}
impl Body for PutTargetingRules {
    const LIMIT: usize = RULES_LIMIT;
}

impl TryFrom<CreateFlag> for FlagInput {
    type Error = Violation;

    fn try_from(body: CreateFlag) -> Result<Self, Violation> {
        let name = FlagName::new(&body.name).map_err(|e| Violation::new("/name", "invalid_name", e.to_string()))?;
        if name.as_str() == "overrides" {
            let detail = "this name is taken by /api/flags/me/overrides";
            return Err(Violation::new("/name", "reserved_name", detail));
        }
        Ok(Self {
            name,
            flag_type: body.flag_type.into(),
            description: body.description,
            owner: body.owner,
            tags: body.tags,
            enabled: body.enabled,
            variants: body.variants.map(read_variants),
            default: body.default.map(|serve| serve.read("/default")).transpose()?,
            off_variant: body.off_variant,
            targeting_rules: read_rules(body.targeting_rules)?,
            salt: body.salt,
            client_visible: body.client_visible,
        })
    }
}

impl TryFrom<PatchFlag> for FlagPatch {
    type Error = Violation;

    fn try_from(body: PatchFlag) -> Result<Self, Violation> {
        Ok(Self {
            description: body.description,
            owner: body.owner,
            tags: body.tags,
            enabled: body.enabled,
            variants: body.variants.map(read_variants),
            default: body.default.map(|serve| serve.read("/default")).transpose()?,
            off_variant: body.off_variant,
            targeting_rules: body.targeting_rules.map(read_rules).transpose()?,
            salt: body.salt,
            client_visible: body.client_visible,
        })
    }
}

fn read_variants(variants: Vec<Variant>) -> Vec<domain::Variant> {
    variants.into_iter().map(Into::into).collect()
}
