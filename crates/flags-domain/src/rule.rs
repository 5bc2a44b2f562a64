//! Definitions of targeting rules.

use serde::{Deserialize, Serialize};

use crate::{
    condition::{CompiledCondition, Condition},
    serve::Serve,
    violation::{Violation, check_key, check_text},
};

/// Maximum length of a rule id, in characters.
pub const MAX_RULE_ID_LENGTH: usize = 128;

/// A targeting rule: serves a variant or a percentage split to every context for which all
/// conditions hold. The first matching rule of a flag decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetingRule {
    /// Id, unique within the flag, 1 to [`MAX_RULE_ID_LENGTH`] characters.
    pub id: String,
    /// Display name, at most 255 characters. Not used by evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether evaluation considers the rule; default `true`.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
    /// Conditions that must all hold. A rule without conditions matches every context.
    pub conditions: Vec<Condition>,
    /// What the rule serves to matching contexts.
    pub serve: Serve,
    /// Field that released versions do not know, for upgrade tests.
    #[cfg(feature = "future-format")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

const fn default_enabled() -> bool {
    true
}

impl TargetingRule {
    /// Returns all violations of the rule, with pointers relative to it. `has_variant` returns whether the flag has a
    /// variant with the given id.
    pub fn check(&self, has_variant: impl Fn(&str) -> bool) -> Vec<Violation> {
        let mut violations: Vec<_> = check_key("/id", &self.id, MAX_RULE_ID_LENGTH).into_iter().collect();
        violations.extend(self.name.as_ref().and_then(|name| check_text("/name", name, 255)));
        for (index, condition) in self.conditions.iter().enumerate() {
            if let Err(condition_violations) = CompiledCondition::compile(condition) {
                violations
                    .extend(condition_violations.into_iter().map(|v| v.with_prefix(&format!("/conditions/{index}"))));
            }
        }
        violations.extend(self.serve.check("/serve", has_variant));
        violations
    }
}
