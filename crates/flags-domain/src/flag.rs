//! Flag definitions and their validation.

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    instant::Instant,
    limits::{check_counts, check_regex_size},
    name::FlagName,
    rule::TargetingRule,
    serve::Serve,
    value::FlagType,
    violation::{Violation, check_key, check_text},
};

/// Maximum length of a variant id, in characters.
pub const MAX_VARIANT_ID_LENGTH: usize = 128;
/// Maximum number of variants of one flag.
pub const MAX_VARIANTS: usize = 256;
/// Maximum number of targeting rules of one flag.
pub const MAX_RULES: usize = 1_000;
/// Maximum length of the description of a flag, in characters.
pub const MAX_DESCRIPTION_LENGTH: usize = 2_000;
/// Maximum number of tags of one flag.
pub const MAX_TAGS: usize = 50;

/// One of the possible values of a flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Id, unique within the flag, 1 to [`MAX_VARIANT_ID_LENGTH`] characters.
    pub id: String,
    /// Display name, at most 255 characters. Not used by evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Value, of the type of the flag.
    pub value: Value,
    /// Description, at most 2,000 characters. Not used by evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Definition of a flag.
///
/// The JSON form is that of the server's API; unknown fields are ignored. Deserialization checks
/// neither limits nor references between fields. Call [`check`](Self::check) for definitions from
/// an untrusted source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flag {
    /// Unique name. Immutable.
    pub name: FlagName,
    /// Type of all variant and override values. Immutable.
    pub flag_type: FlagType,
    /// Description, at most [`MAX_DESCRIPTION_LENGTH`] characters. Not used by evaluation.
    #[serde(default)]
    pub description: Option<String>,
    /// Person or team responsible for the flag, at most 255 characters. Not used by evaluation.
    #[serde(default)]
    pub owner: Option<String>,
    /// Tags, at most [`MAX_TAGS`] of 1 to 64 characters each. Not used by evaluation.
    #[serde(default)]
    pub tags: Vec<String>,
    /// On/off switch of the flag, as last set manually.
    pub enabled: bool,
    /// Possible values, 1 to [`MAX_VARIANTS`]. Their order determines the bucket ranges of percentage splits.
    pub variants: Vec<Variant>,
    /// Default, as last set manually. Applies while the flag is on and no higher layer decides.
    pub default: Serve,
    /// Id of the variant that a flag serves while it is off.
    pub off_variant: String,
    /// Targeting rules, at most [`MAX_RULES`]. The first enabled rule that matches decides.
    #[serde(default)]
    pub targeting_rules: Vec<TargetingRule>,
    /// Salt of the bucket hash, 1 to 255 characters. A new salt redistributes users among the
    /// variants.
    pub salt: String,
    /// Whether users may read their own value of the flag.
    pub client_visible: bool,
    /// Instant at which the flag was archived. If it is set, even to a future instant, the flag has no evaluation
    /// result.
    #[serde(default)]
    pub archived_at: Option<Instant>,
    /// Instant of the last manual change of `default`. Scheduled changes at or before it no longer affect `default`.
    pub default_set_at: Instant,
    /// Instant of the last manual change of `enabled`. Scheduled changes at or before it no longer affect `enabled`.
    pub enabled_set_at: Instant,
}

/// Variants of a boolean flag that is created without variants: `on` (true) and `off` (false).
pub fn default_boolean_variants() -> Vec<Variant> {
    let variant = |id: &str, value| Variant { id: id.to_owned(), name: None, value: json!(value), description: None };
    vec![variant("on", true), variant("off", false)]
}

impl Flag {
    /// Returns whether the flag has a variant with this id.
    pub fn has_variant(&self, id: &str) -> bool {
        self.variants.iter().any(|variant| variant.id == id)
    }

    /// Returns whether this is a number flag with at least one variant value that is written with a fraction or an
    /// exponent.
    pub fn is_floating_point(&self) -> bool {
        self.flag_type == FlagType::Number && self.variants.iter().any(|variant| variant.value.is_f64())
    }

    /// Returns all violations of a new definition, with pointers relative to it. A flag without violations compiles.
    pub fn check(&self) -> Vec<Violation> {
        self.check_with(None)
    }

    /// Returns all violations of a definition that replaces `stored`. Accepts more rules, conditions, values or regular
    /// expressions than a limit allows if `stored` has at least as many.
    pub fn check_edit(&self, stored: &Self) -> Vec<Violation> {
        self.check_with(Some(stored))
    }

    fn check_with(&self, stored: Option<&Self>) -> Vec<Violation> {
        let mut violations = self.check_texts();
        violations.extend(self.check_variants());
        let ids: FxHashSet<_> = self.variants.iter().map(|variant| variant.id.as_str()).collect();
        let has_variant = |id: &str| ids.contains(id);
        violations.extend(self.default.check("/default", has_variant));
        if !has_variant(&self.off_variant) {
            let detail = format!("the flag has no variant {:?}; use the id of one of its variants", self.off_variant);
            violations.push(Violation::new("/off_variant", "unknown_variant", detail));
        }
        violations.extend(self.check_rules(stored, has_variant));
        violations
    }

    fn check_texts(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        violations.extend(
            self.description.as_ref().and_then(|text| check_text("/description", text, MAX_DESCRIPTION_LENGTH)),
        );
        violations.extend(self.owner.as_ref().and_then(|text| check_text("/owner", text, 255)));
        violations.extend(check_key("/salt", &self.salt, 255));
        if self.tags.len() > MAX_TAGS {
            violations.push(Violation::new("/tags", "too_many", format!("a flag can have at most {MAX_TAGS} tags")));
        }
        for (index, tag) in self.tags.iter().enumerate() {
            let at = format!("/tags/{index}");
            violations.extend(check_key(&at, tag, 64));
            if tag.chars().any(char::is_control) {
                violations.push(Violation::new(at, "control_character", "must not contain control characters"));
            }
        }
        violations
    }

    fn check_variants(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        if self.variants.is_empty() {
            violations.push(Violation::new("/variants", "empty", "a flag needs at least one variant"));
        }
        if self.variants.len() > MAX_VARIANTS {
            let detail = format!("a flag can have at most {MAX_VARIANTS} variants");
            violations.push(Violation::new("/variants", "too_many", detail));
        }
        let mut ids = FxHashSet::default();
        for (index, variant) in self.variants.iter().enumerate() {
            let at = |field: &str| format!("/variants/{index}/{field}");
            violations.extend(check_key(&at("id"), &variant.id, MAX_VARIANT_ID_LENGTH));
            violations.extend(variant.name.as_ref().and_then(|text| check_text(&at("name"), text, 255)));
            violations
                .extend(variant.description.as_ref().and_then(|text| check_text(&at("description"), text, 2_000)));
            violations.extend(self.flag_type.check(&at("value"), &variant.value).err());
            if !ids.insert(variant.id.as_str()) {
                let detail = format!("the variant id {:?} occurs more than once", variant.id);
                violations.push(Violation::new(at("id"), "duplicate", detail));
            }
        }
        violations
    }

    fn check_rules(&self, stored: Option<&Self>, has_variant: impl Fn(&str) -> bool) -> Vec<Violation> {
        let mut violations = check_counts(self, stored);
        if !violations.is_empty() {
            // Checking the rules compiles their regular expressions, which is too expensive if there are too many.
            return violations;
        }
        let mut ids = FxHashSet::default();
        for (index, rule) in self.targeting_rules.iter().enumerate() {
            let at = format!("/targeting_rules/{index}");
            if !ids.insert(rule.id.as_str()) {
                let detail = format!("the rule id {:?} occurs more than once", rule.id);
                violations.push(Violation::new(format!("{at}/id"), "duplicate", detail));
            }
            violations.extend(rule.check(&has_variant).into_iter().map(|violation| violation.with_prefix(&at)));
        }
        violations.extend(check_regex_size(self, stored));
        violations
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns an enabled boolean flag `f` that serves `off`, set manually at 1970-01-01T00:00:00Z.
    pub(crate) fn boolean_flag() -> Flag {
        Flag {
            name: FlagName::new("f").unwrap(),
            flag_type: FlagType::Boolean,
            description: None,
            owner: None,
            tags: Vec::new(),
            enabled: true,
            variants: default_boolean_variants(),
            default: Serve::Variant("off".to_owned()),
            off_variant: "off".to_owned(),
            targeting_rules: Vec::new(),
            salt: "f".to_owned(),
            client_visible: true,
            archived_at: None,
            default_set_at: Instant::from_micros(0),
            enabled_set_at: Instant::from_micros(0),
        }
    }

    fn check(change: impl FnOnce(&mut Flag), expected: &[(&str, &str)]) {
        let mut flag = boolean_flag();
        change(&mut flag);
        let violations = flag.check();
        let violations: Vec<_> = violations.iter().map(|v| (v.pointer.as_str(), v.code)).collect();
        assert_eq!(violations, expected);
    }

    fn rule(value: Value) -> TargetingRule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn accepts_valid_flag() {
        check(|_| {}, &[]);
    }

    #[test]
    fn number_flag_is_floating_point_if_any_variant_has_fraction_or_exponent() {
        let is_floating_point = |flag_type, values: &str| {
            let values: Vec<Value> = serde_json::from_str(values).unwrap();
            let variant = |value| Variant { id: "v".to_owned(), name: None, value, description: None };
            Flag { flag_type, variants: values.into_iter().map(variant).collect(), ..boolean_flag() }
                .is_floating_point()
        };
        assert!(is_floating_point(FlagType::Number, "[1, 2.5]"));
        assert!(is_floating_point(FlagType::Number, "[1.0]") && is_floating_point(FlagType::Number, "[1e2]"));
        assert!(!is_floating_point(FlagType::Number, "[1, -3, 0]"));
        assert!(!is_floating_point(FlagType::Json, "[1.5]"), "JSON flags are never floating point");
    }

    #[test]
    fn rejects_invalid_texts_and_excessive_counts() {
        check(|f| f.description = Some("a".repeat(2_001)), &[("/description", "too_long")]);
        check(|f| f.owner = Some("a\0".into()), &[("/owner", "nul_character")]);
        check(|f| f.salt = String::new(), &[("/salt", "empty")]);
        check(|f| f.tags = vec![String::new()], &[("/tags/0", "empty")]);
        check(|f| f.tags = vec!["a\nb".into()], &[("/tags/0", "control_character")]);
        check(|f| f.tags = vec!["t".into(); 51], &[("/tags", "too_many")]);
        check(|f| f.targeting_rules = (0..1_001).map(numbered_rule).collect(), &[("/targeting_rules", "too_many")]);
    }

    fn numbered_rule(number: usize) -> TargetingRule {
        rule(json!({"id": number.to_string(), "conditions": [], "serve": {"variant": "on"}}))
    }

    #[test]
    fn rejects_duplicate_mistyped_and_missing_variants() {
        check(
            |f| f.variants[1].id = "on".into(),
            &[
                ("/variants/1/id", "duplicate"),
                ("/default/variant", "unknown_variant"),
                ("/off_variant", "unknown_variant"),
            ],
        );
        check(|f| f.variants[0].value = json!("yes"), &[("/variants/0/value", "value_type_mismatch")]);
        check(
            |f| f.variants.clear(),
            &[("/variants", "empty"), ("/default/variant", "unknown_variant"), ("/off_variant", "unknown_variant")],
        );
    }

    #[test]
    fn rule_violations_point_into_the_flag() {
        let invalid = json!({"id": "a", "conditions": [{"attribute": "x", "operator": "matches", "values": ["("]}],
                         "serve": {"variant": "nope"}});
        check(
            |f| f.targeting_rules = vec![rule(invalid)],
            &[
                ("/targeting_rules/0/conditions/0/values/0", "invalid_regex"),
                ("/targeting_rules/0/serve/variant", "unknown_variant"),
            ],
        );
        let pattern = |n: usize| {
            rule(json!({"id": n.to_string(), "serve": {"variant": "on"},
                "conditions": [{"attribute": "x", "operator": "matches", "values": ["a"]}]}))
        };
        check(|f| f.targeting_rules = (0..50).map(pattern).collect(), &[]);
        check(|f| f.targeting_rules = (0..51).map(pattern).collect(), &[("/targeting_rules", "too_many")]);
        check(
            |f| f.targeting_rules = vec![numbered_rule(1), numbered_rule(1)],
            &[("/targeting_rules/1/id", "duplicate")],
        );
    }
}
