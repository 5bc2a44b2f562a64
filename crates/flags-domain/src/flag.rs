//! Flags as they are defined, and what must be true of a definition.

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    condition::MAX_PATTERNS,
    instant::Instant,
    name::FlagName,
    rule::{Operator, TargetingRule},
    serve::Serve,
    value::FlagType,
    violation::{Violation, check_key, check_text},
};

/// Longest id of a variant, in characters.
pub const MAX_VARIANT_ID_LENGTH: usize = 128;
/// Most variants of one flag.
pub const MAX_VARIANTS: usize = 256;
/// Most targeting rules of one flag.
pub const MAX_RULES: usize = 1_000;
/// Longest description, in characters.
pub const MAX_DESCRIPTION_LENGTH: usize = 2_000;
/// Most tags of one flag.
pub const MAX_TAGS: usize = 50;

/// One of the values a flag can have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Unique within the flag.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of the flag's type.
    pub value: Value,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A flag's definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flag {
    /// Its key; fixed at creation.
    pub name: FlagName,
    /// Fixed at creation.
    pub flag_type: FlagType,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// For people: who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// For people.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The switch of the whole flag, as last set by hand.
    pub enabled: bool,
    /// The values it can have, in order; the order also orders the ranges of splits.
    pub variants: Vec<Variant>,
    /// What an enabled flag serves when nothing else decides, as last set by hand.
    pub default: Serve,
    /// The variant a disabled flag serves.
    pub off_variant: String,
    /// The first that matches decides.
    #[serde(default)]
    pub targeting_rules: Vec<TargetingRule>,
    /// Bucketing salt.
    pub salt: String,
    /// Whether users themselves get it.
    pub client_visible: bool,
    /// Set: no result for anybody.
    #[serde(default)]
    pub archived_at: Option<Instant>,
    /// When `default` was last set by hand.
    pub default_set_at: Instant,
    /// When `enabled` was last set by hand.
    pub enabled_set_at: Instant,
}

/// What a boolean flag gets that is made without variants: `on` = true and `off` = false.
pub fn boolean_variants() -> Vec<Variant> {
    let variant = |id: &str, value| Variant { id: id.to_owned(), name: None, value: json!(value), description: None };
    vec![variant("on", true), variant("off", false)]
}

impl Flag {
    /// Whether it has a variant of this id.
    pub fn has_variant(&self, id: &str) -> bool {
        self.variants.iter().any(|variant| variant.id == id)
    }

    /// Whether it is a number flag any variant of which was written with a fraction or an exponent.
    pub fn is_floating(&self) -> bool {
        self.flag_type == FlagType::Number && self.variants.iter().any(|variant| variant.value.is_f64())
    }

    /// All that is wrong with the definition, with pointers relative to it. Empty means: it compiles.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = self.check_texts();
        found.extend(self.check_variants());
        let ids: FxHashSet<_> = self.variants.iter().map(|variant| variant.id.as_str()).collect();
        let is_variant = |id: &str| ids.contains(id);
        found.extend(self.default.check("/default", is_variant));
        if !is_variant(&self.off_variant) {
            let detail = format!("the flag has no variant {:?}; name one of its variants", self.off_variant);
            found.push(Violation::new("/off_variant", "unknown_variant", detail));
        }
        found.extend(self.check_rules(is_variant));
        found
    }

    fn check_texts(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        found.extend(
            self.description.as_ref().and_then(|text| check_text("/description", text, MAX_DESCRIPTION_LENGTH)),
        );
        found.extend(self.owner.as_ref().and_then(|text| check_text("/owner", text, 255)));
        found.extend(check_key("/salt", &self.salt, 255));
        if self.tags.len() > MAX_TAGS {
            found.push(Violation::new("/tags", "too_many", format!("a flag can have at most {MAX_TAGS} tags")));
        }
        for (index, tag) in self.tags.iter().enumerate() {
            let at = format!("/tags/{index}");
            found.extend(check_key(&at, tag, 64));
            if tag.chars().any(char::is_control) {
                found.push(Violation::new(at, "control_character", "must not contain control characters"));
            }
        }
        found
    }

    fn check_variants(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        if self.variants.is_empty() {
            found.push(Violation::new("/variants", "empty", "a flag needs at least one variant"));
        }
        if self.variants.len() > MAX_VARIANTS {
            let detail = format!("a flag can have at most {MAX_VARIANTS} variants");
            found.push(Violation::new("/variants", "too_many", detail));
        }
        let mut seen = FxHashSet::default();
        for (index, variant) in self.variants.iter().enumerate() {
            let at = |field: &str| format!("/variants/{index}/{field}");
            found.extend(check_key(&at("id"), &variant.id, MAX_VARIANT_ID_LENGTH));
            found.extend(variant.name.as_ref().and_then(|text| check_text(&at("name"), text, 255)));
            found.extend(variant.description.as_ref().and_then(|text| check_text(&at("description"), text, 2_000)));
            found.extend(self.flag_type.check(&at("value"), &variant.value).err());
            if !seen.insert(variant.id.as_str()) {
                found.push(Violation::new(
                    at("id"),
                    "duplicate",
                    format!("the variant id {:?} stands twice", variant.id),
                ));
            }
        }
        found
    }

    fn check_rules(&self, is_variant: impl Fn(&str) -> bool) -> Vec<Violation> {
        let mut found = Vec::new();
        if self.targeting_rules.len() > MAX_RULES {
            let detail = format!("a flag can have at most {MAX_RULES} targeting rules");
            found.push(Violation::new("/targeting_rules", "too_many", detail));
        }
        let conditions = self.targeting_rules.iter().flat_map(|rule| &rule.conditions);
        let patterns = conditions.filter(|c| c.operator == Operator::Matches).map(|c| c.values.len());
        if patterns.sum::<usize>() > MAX_PATTERNS {
            let detail = format!("a flag can have at most {MAX_PATTERNS} regular expressions; join them by `|`");
            found.push(Violation::new("/targeting_rules", "too_many", detail));
            // They are not even compiled to see what else is wrong.
            return found;
        }
        let mut seen = FxHashSet::default();
        for (index, rule) in self.targeting_rules.iter().enumerate() {
            let at = format!("/targeting_rules/{index}");
            if !seen.insert(rule.id.as_str()) {
                let detail = format!("the rule id {:?} stands twice", rule.id);
                found.push(Violation::new(format!("{at}/id"), "duplicate", detail));
            }
            found.extend(rule.check(&is_variant).into_iter().map(|violation| violation.under(&at)));
        }
        found
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An enabled boolean flag `f` that serves `off`, set by hand at the beginning of 1970.
    pub(crate) fn boolean_flag() -> Flag {
        Flag {
            name: FlagName::new("f").unwrap(),
            flag_type: FlagType::Boolean,
            description: None,
            owner: None,
            tags: Vec::new(),
            enabled: true,
            variants: boolean_variants(),
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
        let found = flag.check();
        let found: Vec<_> = found.iter().map(|v| (v.pointer.as_str(), v.code)).collect();
        assert_eq!(found, expected);
    }

    fn rule(value: Value) -> TargetingRule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_sound_flag_has_no_violations() {
        check(|_| {}, &[]);
    }

    #[test]
    fn a_number_flag_is_floating_if_any_variant_was_written_so() {
        let floating = |flag_type, values: &str| {
            let values: Vec<Value> = serde_json::from_str(values).unwrap();
            let variant = |value| Variant { id: "v".to_owned(), name: None, value, description: None };
            Flag { flag_type, variants: values.into_iter().map(variant).collect(), ..boolean_flag() }.is_floating()
        };
        assert!(floating(FlagType::Number, "[1, 2.5]"));
        assert!(floating(FlagType::Number, "[1.0]") && floating(FlagType::Number, "[1e2]"));
        assert!(!floating(FlagType::Number, "[1, -3, 0]"));
        assert!(!floating(FlagType::Json, "[1.5]"), "JSON is what it is");
    }

    #[test]
    fn texts_and_counts_are_bounded() {
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
    fn variants_must_be_unique_and_of_the_type() {
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
    fn rules_are_checked_in_place() {
        let bad = json!({"id": "a", "conditions": [{"attribute": "x", "operator": "matches", "values": ["("]}],
                         "serve": {"variant": "nope"}});
        check(
            |f| f.targeting_rules = vec![rule(bad)],
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
