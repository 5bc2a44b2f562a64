//! Request bodies of the flag endpoints.

use flags_domain::{self as domain, FlagName, Violation};
use flags_service::flags::{FlagPatch, NewFlag};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    extract::{RequestBody, deserialize_present},
    wire::{WireFlagType, WireServe, WireTargetingRule, WireVariant, default_true, rules_into_domain},
};

/// A flag to create.
///
/// A boolean flag needs only `name` and `flag_type`: it gets the variants `on` and `off`, with `off` as `default` and
/// `off_variant`. In all other cases `variants`, `default` and `off_variant` are required.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateFlagRequest {
    /// Unique name. It cannot be changed later.
    #[schema(pattern = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", max_length = 255)]
    name: String,
    /// Type of all variants and overrides. It cannot be changed later.
    flag_type: WireFlagType,
    /// Human-readable description.
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// Person or team that is responsible for the flag.
    #[schema(max_length = 255)]
    owner: Option<String>,
    /// Tags for filtering the list of flags.
    #[serde(default)]
    #[schema(max_items = 50)]
    tags: Vec<String>,
    /// Whether the flag is on. A flag that is off serves `off_variant`, except to users with an override. Default:
    /// `true`.
    #[serde(default = "default_true")]
    enabled: bool,
    /// Values that the flag can serve. Their order determines the bucket ranges of percentage splits.
    variants: Option<Vec<WireVariant>>,
    /// Variant or split to serve when no override, targeting rule or scheduled change decides.
    default: Option<WireServe>,
    /// Id of the variant to serve while the flag is off.
    off_variant: Option<String>,
    /// Rules in order of evaluation. The first matching rule decides.
    #[serde(default)]
    #[schema(max_items = 1000)]
    targeting_rules: Vec<WireTargetingRule>,
    /// Hash input for percentage splits. Default: the flag's name.
    salt: Option<String>,
    /// Whether users can read the flag with their own credentials. Default: `true`.
    #[serde(default = "default_true")]
    client_visible: bool,
}

/// Fields to change. A field that is present replaces the whole stored value; omitted fields stay unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchFlagRequest {
    /// Human-readable description. `null` removes it.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Option<Option<String>>,
    /// Person or team that is responsible for the flag. `null` removes it.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(value_type = Option<String>, max_length = 255)]
    owner: Option<Option<String>>,
    /// Tags for filtering the list of flags.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false, max_items = 50)]
    tags: Option<Vec<String>>,
    /// Whether the flag is on.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// Values that the flag can serve. Changing their order reassigns the users of percentage splits to variants.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    variants: Option<Vec<WireVariant>>,
    /// Variant or split to serve when no override, targeting rule or scheduled change decides.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    default: Option<WireServe>,
    /// Id of the variant to serve while the flag is off.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    off_variant: Option<String>,
    /// Rules in order of evaluation. The first matching rule decides.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false, max_items = 1000)]
    targeting_rules: Option<Vec<WireTargetingRule>>,
    /// Hash input for percentage splits. A new value reassigns the users of percentage splits to variants.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    salt: Option<String>,
    /// Whether users can read the flag with their own credentials.
    #[serde(default, deserialize_with = "deserialize_present")]
    #[schema(nullable = false)]
    client_visible: Option<bool>,
}

/// All targeting rules of a flag.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutTargetingRulesRequest {
    /// Rules in order of evaluation. The first matching rule decides.
    #[schema(max_items = 1000)]
    pub(super) targeting_rules: Vec<WireTargetingRule>,
}

/// Maximum size of a body that can contain targeting rules, in bytes.
const MAX_BODY_WITH_RULES: usize = 2 * 1024 * 1024;

impl RequestBody for CreateFlagRequest {
    const MAX_BYTES: usize = MAX_BODY_WITH_RULES;
}
impl RequestBody for PatchFlagRequest {
    const MAX_BYTES: usize = MAX_BODY_WITH_RULES;
}
impl RequestBody for PutTargetingRulesRequest {
    const MAX_BYTES: usize = MAX_BODY_WITH_RULES;
}

impl TryFrom<CreateFlagRequest> for NewFlag {
    type Error = Violation;

    fn try_from(body: CreateFlagRequest) -> Result<Self, Violation> {
        let name = FlagName::new(&body.name).map_err(|e| Violation::new("/name", "invalid_name", e.to_string()))?;
        if name.as_str() == "overrides" {
            let detail = "the name `overrides` is reserved for the path /api/flags/me/overrides; choose another name";
            return Err(Violation::new("/name", "reserved_name", detail));
        }
        Ok(Self {
            name,
            flag_type: body.flag_type.into(),
            description: body.description,
            owner: body.owner,
            tags: body.tags,
            enabled: body.enabled,
            variants: body.variants.map(variants_into_domain),
            default: body.default.map(|serve| serve.into_domain("/default")).transpose()?,
            off_variant: body.off_variant,
            targeting_rules: rules_into_domain(body.targeting_rules)?,
            salt: body.salt,
            client_visible: body.client_visible,
        })
    }
}

impl TryFrom<PatchFlagRequest> for FlagPatch {
    type Error = Violation;

    fn try_from(body: PatchFlagRequest) -> Result<Self, Violation> {
        Ok(Self {
            description: body.description,
            owner: body.owner,
            tags: body.tags,
            enabled: body.enabled,
            variants: body.variants.map(variants_into_domain),
            default: body.default.map(|serve| serve.into_domain("/default")).transpose()?,
            off_variant: body.off_variant,
            targeting_rules: body.targeting_rules.map(rules_into_domain).transpose()?,
            salt: body.salt,
            client_visible: body.client_visible,
        })
    }
}

fn variants_into_domain(variants: Vec<WireVariant>) -> Vec<domain::Variant> {
    variants.into_iter().map(Into::into).collect()
}
