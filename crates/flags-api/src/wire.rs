//! Request and response shapes that several resources share.

use std::collections::BTreeMap;

use flags_domain::{self as domain, Violation, Weight};
use flags_store::{MAX_TOTAL, Page};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One page of a list.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub(crate) struct PageResponse<T> {
    /// Items of this page, in list order.
    items: Vec<T>,
    /// Number of matching items, counted up to 10,000. With the `finding` filter: number of items in this page.
    #[schema(minimum = 0, maximum = 10000)]
    total: i64,
    /// Whether `total` is the exact number of matching items.
    total_is_exact: bool,
    /// Value for the `cursor` parameter of the next request. `null` on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<T> PageResponse<T> {
    /// Converts a store page. `to_item` converts each record; `cursor` encodes the position of the last record.
    pub(crate) fn new<R>(page: Page<R>, cursor: impl Fn(&R) -> String, to_item: impl FnMut(R) -> T) -> Self {
        let next_cursor = page.items.last().filter(|_| page.has_more).map(cursor);
        Self {
            total: page.total.min(MAX_TOTAL),
            total_is_exact: page.total <= MAX_TOTAL,
            items: page.items.into_iter().map(to_item).collect(),
            next_cursor,
        }
    }

    /// Builds a page from a scan that may stop before it has seen every record. `is_complete` means that `items` holds
    /// all matches.
    pub(crate) fn from_scan(items: Vec<T>, is_complete: bool, next_cursor: Option<String>) -> Self {
        let total = i64::try_from(items.len()).unwrap_or(MAX_TOTAL);
        Self { total, total_is_exact: is_complete, items, next_cursor }
    }
}

/// Defines a serializable enum with the same variants as `$domain`, and conversions in both directions. `$schema` is
/// the enum's name in the OpenAPI document.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident as $schema:ident = $domain:ty { $($(#[$variant_meta:meta])* $variant:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        #[schema(as = $schema)]
        pub(crate) enum $name { $($(#[$variant_meta])* $variant),* }

        impl From<$name> for $domain {
            fn from(wire: $name) -> Self {
                match wire { $($(#[$variant_meta])* $name::$variant => <$domain>::$variant),* }
            }
        }

        impl From<$domain> for $name {
            fn from(domain: $domain) -> Self {
                match domain { $($(#[$variant_meta])* <$domain>::$variant => Self::$variant),* }
            }
        }
    };
}
pub(crate) use wire_enum;

wire_enum! {
    /// Type of a flag's values.
    WireFlagType as FlagType = domain::FlagType { Boolean, String, Number, Json }
}

wire_enum! {
    /// Comparison that a condition applies to an attribute.
    ///
    /// - `equals`: text, number or boolean; values of different types are never equal
    /// - `contains`, `starts_with`, `ends_with`: text
    /// - `matches`: text of at most 4,096 bytes; the value is a regular expression in Rust `regex` syntax
    /// - `lt`, `lte`, `gt`, `gte`: number
    /// - `before`, `after`: RFC 3339 timestamp
    /// - `semver_eq`, `semver_lt`, `semver_lte`, `semver_gt`, `semver_gte`: Semantic Versioning 2.0.0 precedence; `1.2`
    ///   counts as `1.2.0`
    /// - `exists`: the attribute is present and not null; takes no values
    ///
    /// Comparisons of text are case-sensitive, except for the built-in attribute `email`. `equals` on `user_id` also
    /// accepts the UUID of the user in any spelling.
    WireOperator as Operator = domain::Operator {
        Equals, Contains, StartsWith, EndsWith, Matches, Lt, Lte, Gt, Gte, Before, After,
        SemverEq, SemverLt, SemverLte, SemverGt, SemverGte, Exists,
        #[cfg(feature = "future-format")] Resembles,
    }
}

wire_enum! {
    /// Status of an override. An override that has expired is `expired` even if it is also disabled.
    WireOverrideStatus as OverrideStatus = domain::OverrideStatus { Active, Disabled, Expired }
}

wire_enum! {
    /// Diagnostic about an override, or about the evaluation of a flag for a user.
    ///
    /// - `override_redundant`: until the override expires, the user would get the same value without it
    /// - `override_shadows_rule`: without the override, a targeting rule would determine the value
    /// - `override_shadows_schedule`: without the override, a scheduled change would determine or change the value
    ///   before the override expires
    /// - `override_on_disabled_flag`: the flag is off, but the override still supplies the value
    /// - `override_expired`: the override has expired and has no effect
    /// - `override_disabled`: the override is disabled and has no effect
    /// - `override_type_mismatch`: the override's value does not have the flag's type, so the override has no effect
    /// - `evaluation_too_expensive`: evaluating the targeting rules for this user exceeds the budget, so the flag
    ///   serves its `off_variant` where no override applies
    WireFindingCode as FindingCode = domain::FindingCode {
        OverrideRedundant, OverrideShadowsRule, OverrideShadowsSchedule, OverrideOnDisabledFlag, OverrideExpired,
        OverrideDisabled, OverrideTypeMismatch, EvaluationTooExpensive,
    }
}

wire_enum! {
    /// Status of a scheduled change, derived from the current time.
    ///
    /// - `pending`: `scheduled_at` is in the future
    /// - `cancelled`: the change was cancelled before it took effect
    /// - `superseded`: everything the change set has since been set again, manually or by a later scheduled change
    /// - `applied`: the change has taken effect
    WireScheduleStatus as ScheduleStatus = domain::ScheduleStatus { Pending, Cancelled, Superseded, Applied }
}

/// Layer that supplied a value. The first of `override`, `disabled`, `targeting_rule`, `scheduled_change` and `default`
/// that applies decides; `disabled` means that the flag is off and serves its `off_variant`. `evaluation_too_expensive`
/// means that evaluating the targeting rules exceeds the budget, and that the flag serves its `off_variant`.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[cfg_attr(test, derive(Deserialize))]
#[serde(rename_all = "snake_case")]
#[schema(as = Source)]
pub(crate) enum WireSource {
    Override,
    TargetingRule,
    ScheduledChange,
    Default,
    Disabled,
    EvaluationTooExpensive,
}

impl From<domain::Source<'_>> for WireSource {
    fn from(source: domain::Source<'_>) -> Self {
        match source {
            domain::Source::Override => Self::Override,
            domain::Source::Disabled => Self::Disabled,
            domain::Source::TargetingRule { .. } => Self::TargetingRule,
            domain::Source::ScheduledChange { .. } => Self::ScheduledChange,
            domain::Source::Default => Self::Default,
            domain::Source::EvaluationTooExpensive => Self::EvaluationTooExpensive,
        }
    }
}

/// A single variant, or a percentage split between variants. Exactly one of `variant` and `weights` is required.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Serve)]
pub(crate) struct WireServe {
    /// Id of the variant to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    variant: Option<String>,
    /// Percentage for each variant id, with at most three decimals. The weights must sum to 100. Omitted variants get
    /// 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, f64>>, nullable = false)]
    weights: Option<BTreeMap<String, Weight>>,
    /// Attribute that is hashed to assign a context to a variant. Default: `user_id`. Only allowed with `weights`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    bucket_by: Option<String>,
}

impl WireServe {
    /// Converts to the domain type. `pointer` is the JSON pointer of this value in the request body.
    pub(crate) fn into_domain(self, pointer: &str) -> Result<domain::Serve, Violation> {
        match self {
            Self { variant: Some(variant), weights: None, bucket_by: None } => Ok(domain::Serve::Variant(variant)),
            Self { variant: None, weights: Some(weights), bucket_by } => {
                Ok(domain::Serve::Split { weights, bucket_by })
            }
            _ => {
                let detail = "must have either `variant` alone, or `weights` with an optional `bucket_by`";
                Err(Violation::new(pointer, "invalid_serve", detail))
            }
        }
    }
}

impl From<&domain::Serve> for WireServe {
    fn from(serve: &domain::Serve) -> Self {
        match serve.clone() {
            domain::Serve::Variant(variant) => Self { variant: Some(variant), weights: None, bucket_by: None },
            domain::Serve::Split { weights, bucket_by } => Self { variant: None, weights: Some(weights), bucket_by },
        }
    }
}

/// A named value of a flag.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Variant)]
pub(crate) struct WireVariant {
    /// Identifier, unique within the flag.
    #[schema(min_length = 1, max_length = 128)]
    id: String,
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    name: Option<String>,
    /// Value that is served. It must have the flag's type.
    value: Value,
    /// Human-readable description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2000)]
    description: Option<String>,
}

impl From<WireVariant> for domain::Variant {
    fn from(wire: WireVariant) -> Self {
        Self { id: wire.id, name: wire.name, value: wire.value, description: wire.description }
    }
}

impl From<&domain::Variant> for WireVariant {
    fn from(variant: &domain::Variant) -> Self {
        let domain::Variant { id, name, value, description } = variant.clone();
        Self { id, name, value, description }
    }
}

/// A rule that serves a variant or split to every context that matches all its conditions. The first matching rule of a
/// flag decides.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TargetingRule)]
pub(crate) struct WireTargetingRule {
    /// Identifier, unique within the flag.
    #[schema(min_length = 1, max_length = 128)]
    id: String,
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    name: Option<String>,
    /// Whether the rule is evaluated. Disabled rules are skipped.
    #[serde(default = "default_true")]
    enabled: bool,
    /// Conditions that must all hold. A rule without conditions matches every context. A flag can have at most 2,000
    /// conditions.
    #[schema(max_items = 100)]
    conditions: Vec<WireCondition>,
    /// Variant or split to serve when the rule matches.
    serve: WireServe,
    /// Field that only a later version has. For tests of upgrades.
    #[cfg(feature = "future-format")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

pub(crate) const fn default_true() -> bool {
    true
}

impl WireTargetingRule {
    fn into_domain(self, pointer: &str) -> Result<domain::TargetingRule, Violation> {
        Ok(domain::TargetingRule {
            id: self.id,
            name: self.name,
            enabled: self.enabled,
            conditions: self.conditions.into_iter().map(Into::into).collect(),
            serve: self.serve.into_domain(&format!("{pointer}/serve"))?,
            #[cfg(feature = "future-format")]
            note: self.note,
        })
    }
}

/// Converts the `targeting_rules` of a request body.
pub(crate) fn rules_into_domain(rules: Vec<WireTargetingRule>) -> Result<Vec<domain::TargetingRule>, Violation> {
    let rules = rules.into_iter().enumerate();
    rules.map(|(index, rule)| rule.into_domain(&format!("/targeting_rules/{index}"))).collect()
}

impl From<&domain::TargetingRule> for WireTargetingRule {
    fn from(rule: &domain::TargetingRule) -> Self {
        Self {
            id: rule.id.clone(),
            name: rule.name.clone(),
            enabled: rule.enabled,
            conditions: rule.conditions.iter().map(Into::into).collect(),
            serve: (&rule.serve).into(),
            #[cfg(feature = "future-format")]
            note: rule.note.clone(),
        }
    }
}

/// A test of one attribute. It holds if any of `values` matches or, with `negate`, if none matches. It never holds if
/// the attribute is missing or has an unsuitable type; only `exists` can test for absence. `matches` never holds for a
/// text longer than 4,096 bytes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Condition)]
pub(crate) struct WireCondition {
    /// `user_id`, `external_id`, `email`, `role`, `created_at`, or a key of the user's `attributes`. Dots descend into
    /// nested objects.
    #[schema(min_length = 1, max_length = 255)]
    attribute: String,
    /// Comparison to apply.
    operator: WireOperator,
    /// Values to compare with. Omitted or empty for `exists`; at least one for every other operator. A flag can have at
    /// most 50,000 values, and 50 regular expressions with at most 1 MiB together when compiled.
    #[serde(default)]
    #[schema(max_items = 10_000)]
    values: Vec<Value>,
    /// Whether to invert the comparison.
    #[serde(default)]
    negate: bool,
}

impl From<WireCondition> for domain::Condition {
    fn from(wire: WireCondition) -> Self {
        Self { attribute: wire.attribute, operator: wire.operator.into(), values: wire.values, negate: wire.negate }
    }
}

impl From<&domain::Condition> for WireCondition {
    fn from(condition: &domain::Condition) -> Self {
        let domain::Condition { attribute, operator, values, negate } = condition.clone();
        Self { attribute, operator: operator.into(), values, negate }
    }
}
