//! Definitions of conditions.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A condition on one attribute. Holds if the attribute matches any of `values` or, with `negate`, none of them.
///
/// An array attribute matches if any element matches; elements of a type that the operator does not accept are ignored.
/// An empty array matches nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Name of the attribute: `user_id`, `external_id`, `email`, `role`, `created_at`, or a custom attribute, 1 to 255
    /// characters. Dots descend into objects.
    pub attribute: String,
    /// Comparison of the attribute with the values.
    pub operator: Operator,
    /// Values to compare with: none for `exists`, at least one for every other operator.
    #[serde(default)]
    pub values: Vec<Value>,
    /// Whether the condition is negated. A negated condition still fails if the attribute is
    /// missing or has a type that the operator does not accept. Exception: negated `exists` holds
    /// for a missing attribute.
    #[serde(default)]
    pub negate: bool,
}

/// Comparison operator of a condition. Comparisons of text are exact and case-sensitive, except for the attribute
/// `email`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// The text, number or boolean equals the value. Values of different types are never equal.
    Equals,
    /// The text contains the value.
    Contains,
    /// The text starts with the value.
    StartsWith,
    /// The text ends with the value.
    EndsWith,
    /// The text contains a match of the regular expression, in the syntax of the `regex` crate.
    Matches,
    /// The number is less than the value.
    Lt,
    /// The number is less than or equal to the value.
    Lte,
    /// The number is greater than the value.
    Gt,
    /// The number is greater than or equal to the value.
    Gte,
    /// The RFC 3339 timestamp is earlier than the value.
    Before,
    /// The RFC 3339 timestamp is later than the value.
    After,
    /// The version has the same precedence as the value by Semantic Versioning 2.0.0. `1.2` counts as `1.2.0`.
    SemverEq,
    /// The version has lower precedence than the value.
    SemverLt,
    /// The version has lower precedence than the value, or the same.
    SemverLte,
    /// The version has higher precedence than the value.
    SemverGt,
    /// The version has higher precedence than the value, or the same.
    SemverGte,
    /// The attribute is present and not null.
    Exists,
    /// Operator that released versions do not know, for upgrade tests.
    #[cfg(feature = "future-format")]
    Resembles,
}

impl Operator {
    /// Whether the operator compares the attribute as text. Other operators parse the text or accept only other types.
    pub(crate) const fn compares_text(self) -> bool {
        match self {
            Self::Equals | Self::Contains | Self::StartsWith | Self::EndsWith | Self::Matches => true,
            #[cfg(feature = "future-format")]
            Self::Resembles => true,
            Self::Lt
            | Self::Lte
            | Self::Gt
            | Self::Gte
            | Self::Before
            | Self::After
            | Self::SemverEq
            | Self::SemverLt
            | Self::SemverLte
            | Self::SemverGt
            | Self::SemverGte
            | Self::Exists => false,
        }
    }
}

impl fmt::Display for Operator {
    /// Writes the JSON name of the operator, such as `starts_with`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
