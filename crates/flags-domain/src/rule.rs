//! Targeting rules (definitions); `condition` holds what evaluates them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    condition::CompiledCondition,
    serve::Serve,
    violation::{Violation, check_key, check_text},
};

/// Longest id of a rule, in characters.
pub const MAX_RULE_ID_LENGTH: usize = 128;

/// Serves something to whom all its conditions describe; the first matching rule of a flag decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetingRule {
    /// Unique within the flag.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A rule that is off is passed over.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// All must hold; none means everybody.
    pub conditions: Vec<Condition>,
    /// What whoever matches gets.
    pub serve: Serve,
}

const fn yes() -> bool {
    true
}

impl TargetingRule {
    /// What is wrong with the rule, with pointers relative to it.
    pub fn check(&self, is_variant: impl Fn(&str) -> bool) -> Vec<Violation> {
        let mut found: Vec<_> = check_key("/id", &self.id, MAX_RULE_ID_LENGTH).into_iter().collect();
        found.extend(self.name.as_ref().and_then(|name| check_text("/name", name, 255)));
        for (index, condition) in self.conditions.iter().enumerate() {
            if let Err(violations) = CompiledCondition::compile(condition) {
                found.extend(violations.into_iter().map(|v| v.under(&format!("/conditions/{index}"))));
            }
        }
        found.extend(self.serve.check("/serve", is_variant));
        found
    }
}

/// A test of one attribute: holds if any of `values` fits, or, negated, if none does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// `user_id`, `email`, `role`, `created_at`, or a key of the user's own attributes (dots walk into objects).
    pub attribute: String,
    /// How the attribute is compared.
    pub operator: Operator,
    /// What it is compared with; empty for `exists`, at least one otherwise.
    #[serde(default)]
    pub values: Vec<Value>,
    /// Turns the outcome around; but an attribute that is missing or does not fit fails all the same.
    #[serde(default)]
    pub negate: bool,
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// The same text, number or boolean; like types only.
    Equals,
    /// Text that contains the value.
    Contains,
    /// Text that starts with the value.
    StartsWith,
    /// Text that ends with the value.
    EndsWith,
    /// Text in which the regular expression (syntax of the `regex` crate) is found.
    Matches,
    /// A number below the value.
    Lt,
    /// A number at or below the value.
    Lte,
    /// A number above the value.
    Gt,
    /// A number at or above the value.
    Gte,
    /// An RFC 3339 instant before the value.
    Before,
    /// An RFC 3339 instant after the value.
    After,
    /// The same precedence by Semantic Versioning 2.0.0.
    SemverEq,
    /// Lower precedence.
    SemverLt,
    /// Lower or the same precedence.
    SemverLte,
    /// Higher precedence.
    SemverGt,
    /// Higher or the same precedence.
    SemverGte,
    /// The attribute is there and not null.
    Exists,
}

impl fmt::Display for Operator {
    /// The name on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
