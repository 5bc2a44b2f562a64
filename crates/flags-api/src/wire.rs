//! Shapes that several resources share.

use std::collections::BTreeMap;

use flags_domain::{self as domain, Violation, Weight};
use flags_store::{MAX_TOTAL, Page};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A part of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The items, in order.
    items: Vec<T>,
    /// How many there are in all; counted up to 10,000.
    #[schema(minimum = 0, maximum = 10000)]
    total: i64,
    /// Whether `total` was counted to the end.
    total_is_exact: bool,
    /// Give it as `cursor` to get the next part; `null` at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<T> List<T> {
    /// The list of `page`, each item shown by `show`; `cursor` gives the place of the last item.
    pub(crate) fn new<R>(page: Page<R>, cursor: impl Fn(&R) -> String, show: impl FnMut(R) -> T) -> Self {
        let next_cursor = page.items.last().filter(|_| page.has_more).map(cursor);
        Self {
            total: page.total.min(MAX_TOTAL),
            total_is_exact: page.total <= MAX_TOTAL,
            items: page.items.into_iter().map(show).collect(),
            next_cursor,
        }
    }
}

impl<T> List<T> {
    /// What a search of limited effort found; `is_whole` says that it is all there is.
    pub(crate) fn found(items: Vec<T>, is_whole: bool, next_cursor: Option<String>) -> Self {
        let total = i64::try_from(items.len()).unwrap_or(MAX_TOTAL);
        Self { total, total_is_exact: is_whole, items, next_cursor }
    }
}

/// An enumeration of the wire that mirrors one of the domain.
macro_rules! mirror {
    ($(#[$meta:meta])* $name:ident = $domain:ty { $($(#[$of_variant:meta])* $variant:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name { $($(#[$of_variant])* $variant),* }

        impl From<$name> for $domain {
            fn from(wire: $name) -> Self {
                match wire { $($name::$variant => <$domain>::$variant),* }
            }
        }

        impl From<$domain> for $name {
            fn from(domain: $domain) -> Self {
                match domain { $(<$domain>::$variant => Self::$variant),* }
            }
        }
    };
}
pub(crate) use mirror;

mirror! {
    /// What kind of value a flag has.
    FlagType = domain::FlagType { Boolean, String, Number, Json }
}

mirror! {
    /// How a condition compares an attribute with its values.
    Operator = domain::Operator {
        Equals, Contains, StartsWith, EndsWith, Matches, Lt, Lte, Gt, Gte, Before, After,
        SemverEq, SemverLt, SemverLte, SemverGt, SemverGte, Exists,
    }
}

mirror! {
    /// Where an override stands: `expired` before `disabled` before `active`.
    OverrideStatus = domain::OverrideStatus { Active, Disabled, Expired }
}

mirror! {
    /// Something worth knowing of an override.
    #[expect(clippy::enum_variant_names, reason = "the names of the wire; there may be findings of other things")]
    Finding = domain::FindingCode {
        OverrideRedundant, OverrideShadowsRule, OverrideShadowsSchedule, OverrideOnDisabledFlag, OverrideExpired,
        OverrideDisabled, OverrideTypeMismatch,
    }
}

mirror! {
    /// Where a scheduled change stands, derived from the clock.
    ScheduleStatus = domain::ScheduleStatus { Pending, Cancelled, Superseded, Applied }
}

/// What is served: either `variant`, or `weights` that add up to 100 (percent, at most three decimals), with the
/// attribute to bucket by (`user_id` if left out).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Serve {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, f64>>, nullable = false)]
    weights: Option<BTreeMap<String, Weight>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    bucket_by: Option<String>,
}

impl Serve {
    /// Reads it; `pointer` is where it stands in the body.
    pub(crate) fn read(self, pointer: &str) -> Result<domain::Serve, Violation> {
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

impl From<&domain::Serve> for Serve {
    fn from(serve: &domain::Serve) -> Self {
        match serve.clone() {
            domain::Serve::Variant(variant) => Self { variant: Some(variant), weights: None, bucket_by: None },
            domain::Serve::Split { weights, bucket_by } => Self { variant: None, weights: Some(weights), bucket_by },
        }
    }
}

/// One of the values a flag can have.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    /// Unique within the flag.
    #[schema(min_length = 1, max_length = 128)]
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    name: Option<String>,
    /// Of the flag's type.
    value: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2000)]
    description: Option<String>,
}

impl From<Variant> for domain::Variant {
    fn from(wire: Variant) -> Self {
        Self { id: wire.id, name: wire.name, value: wire.value, description: wire.description }
    }
}

impl From<&domain::Variant> for Variant {
    fn from(variant: &domain::Variant) -> Self {
        let domain::Variant { id, name, value, description } = variant.clone();
        Self { id, name, value, description }
    }
}

/// Serves something to whom all its conditions describe; the first matching rule decides.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetingRule {
    /// Unique within the flag.
    #[schema(min_length = 1, max_length = 128)]
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    name: Option<String>,
    /// A rule that is off is passed over.
    #[serde(default = "yes")]
    enabled: bool,
    /// All must hold; none means everybody.
    conditions: Vec<Condition>,
    serve: Serve,
}

pub(crate) const fn yes() -> bool {
    true
}

impl TargetingRule {
    fn read(self, pointer: &str) -> Result<domain::TargetingRule, Violation> {
        Ok(domain::TargetingRule {
            id: self.id,
            name: self.name,
            enabled: self.enabled,
            conditions: self.conditions.into_iter().map(Into::into).collect(),
            serve: self.serve.read(&format!("{pointer}/serve"))?,
        })
    }
}

/// Reads the rules of a body.
pub(crate) fn read_rules(rules: Vec<TargetingRule>) -> Result<Vec<domain::TargetingRule>, Violation> {
    let read = |(index, rule): (usize, TargetingRule)| rule.read(&format!("/targeting_rules/{index}"));
    rules.into_iter().enumerate().map(read).collect()
}

impl From<&domain::TargetingRule> for TargetingRule {
    fn from(rule: &domain::TargetingRule) -> Self {
        Self {
            id: rule.id.clone(),
            name: rule.name.clone(),
            enabled: rule.enabled,
            conditions: rule.conditions.iter().map(Into::into).collect(),
            serve: (&rule.serve).into(),
        }
    }
}

/// A test of one attribute: holds if any of `values` fits or, negated, if none does.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    /// `user_id`, `email`, `role`, `created_at`, or a key of the user's own attributes; dots walk into objects.
    #[schema(min_length = 1, max_length = 255)]
    attribute: String,
    operator: Operator,
    /// Left out or empty for `exists`, at least one otherwise.
    #[serde(default)]
    values: Vec<Value>,
    #[serde(default)]
    negate: bool,
}

impl From<Condition> for domain::Condition {
    fn from(wire: Condition) -> Self {
        Self { attribute: wire.attribute, operator: wire.operator.into(), values: wire.values, negate: wire.negate }
    }
}

impl From<&domain::Condition> for Condition {
    fn from(condition: &domain::Condition) -> Self {
        let domain::Condition { attribute, operator, values, negate } = condition.clone();
        Self { attribute, operator: operator.into(), values, negate }
    }
}
