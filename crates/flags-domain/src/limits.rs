//! Limits on the size of definitions and contexts. They bound memory use and the time for compiling
//! a flag. They also make it less likely that an evaluation exceeds the
//! [`EvaluationBudget`](crate::EvaluationBudget).
//!
//! An earlier version may have stored a definition that exceeds a limit. An edit of such a
//! definition is accepted if the amount does not grow.

use serde_json::{Map, Value};

use crate::{
    condition::{Condition, MAX_REGEXES, Operator, compiled_size, regex_patterns},
    flag::{Flag, MAX_RULES},
    rule::TargetingRule,
    violation::Violation,
};

/// Maximum number of flags of one deployment, including archived flags.
pub const MAX_FLAGS: usize = 5_000;
/// Maximum number of conditions of one targeting rule.
pub const MAX_CONDITIONS_PER_RULE: usize = 100;
/// Maximum number of conditions of one flag.
pub const MAX_CONDITIONS: usize = 2_000;
/// Maximum number of values of one condition.
pub const MAX_VALUES_PER_CONDITION: usize = 10_000;
/// Maximum number of values of all conditions of one flag.
pub const MAX_CONDITION_VALUES: usize = 50_000;
/// Maximum compiled size of all regular expressions of one flag together, in bytes.
pub const MAX_REGEXES_BYTES: usize = 1 << 20;
/// Maximum number of custom attributes of one context, including the members of nested objects.
pub const MAX_ATTRIBUTES: usize = 1_000;
/// Maximum number of elements of all arrays in the custom attributes of one context together.
pub const MAX_ATTRIBUTE_ITEMS: usize = 5_000;
/// Maximum length of a targeting key, in bytes.
pub const MAX_TARGETING_KEY_BYTES: usize = 4 * 1024;

/// A limit and the amount in the stored definition. Error messages name the limit by `subject` and `unit`.
struct Limit {
    limit: usize,
    stored: usize,
    subject: &'static str,
    unit: &'static str,
}

impl Limit {
    /// Returns a violation if `amount` exceeds both the limit and the stored amount.
    fn check(&self, pointer: &str, amount: usize) -> Option<Violation> {
        let Self { limit, stored, subject, unit } = self;
        (amount > *limit.max(stored)).then(|| {
            Violation::new(pointer, "too_many", format!("{subject} can have at most {limit} {unit} (got {amount})"))
        })
    }
}

/// Checks the number of rules, conditions, values and regular expressions. `stored` is the definition before an edit.
pub(crate) fn check_counts(flag: &Flag, stored: Option<&Flag>) -> Vec<Violation> {
    let stored_amount = |measure: fn(&Flag) -> usize| stored.map_or(0, measure);
    let limit = |limit, measure, subject, unit| Limit { limit, stored: stored_amount(measure), subject, unit };
    let at = "/targeting_rules";
    let mut violations = Vec::new();
    violations.extend(limit(MAX_RULES, count_rules, "a flag", "targeting rules").check(at, count_rules(flag)));
    let conditions = limit(MAX_CONDITIONS, count_conditions, "a flag", "conditions");
    violations.extend(conditions.check(at, count_conditions(flag)));
    let values = limit(MAX_CONDITION_VALUES, count_values, "a flag", "values in its conditions");
    violations.extend(values.check(at, count_values(flag)));
    let regexes = limit(MAX_REGEXES, count_regexes, "a flag", "regular expressions");
    violations.extend(
        regexes
            .check(at, count_regexes(flag))
            .map(|violation| Violation { detail: format!("{}; combine them with `|`", violation.detail), ..violation }),
    );
    let of_rule = limit(MAX_CONDITIONS_PER_RULE, most_conditions, "a rule", "conditions");
    let of_condition = limit(MAX_VALUES_PER_CONDITION, most_values, "a condition", "values");
    for (index, rule) in flag.targeting_rules.iter().enumerate() {
        let at = format!("{at}/{index}/conditions");
        violations.extend(of_rule.check(&at, rule.conditions.len()));
        for (index, condition) in rule.conditions.iter().enumerate() {
            violations.extend(of_condition.check(&format!("{at}/{index}/values"), condition.values.len()));
        }
    }
    violations
}

fn count_rules(flag: &Flag) -> usize {
    flag.targeting_rules.len()
}

fn count_conditions(flag: &Flag) -> usize {
    flag.targeting_rules.iter().map(|rule| rule.conditions.len()).sum()
}

fn most_conditions(flag: &Flag) -> usize {
    flag.targeting_rules.iter().map(|rule| rule.conditions.len()).max().unwrap_or(0)
}

fn count_values(flag: &Flag) -> usize {
    conditions(flag).map(|condition| condition.values.len()).sum()
}

fn most_values(flag: &Flag) -> usize {
    conditions(flag).map(|condition| condition.values.len()).max().unwrap_or(0)
}

fn count_regexes(flag: &Flag) -> usize {
    regex_conditions(flag).map(|condition| condition.values.len()).sum()
}

fn conditions(flag: &Flag) -> impl Iterator<Item = &Condition> {
    flag.targeting_rules.iter().flat_map(|rule: &TargetingRule| &rule.conditions)
}

fn regex_conditions(flag: &Flag) -> impl Iterator<Item = &Condition> {
    conditions(flag).filter(|condition| condition.operator == Operator::Matches)
}

/// Checks the compiled size of all regular expressions. Compiles them, so call it only for a flag
/// within the other limits.
pub(crate) fn check_regex_size(flag: &Flag, stored: Option<&Flag>) -> Option<Violation> {
    let size = regex_bytes(flag);
    // Compile the stored expressions only if the new ones exceed the limit.
    let allowed = if size > MAX_REGEXES_BYTES { stored.map_or(0, regex_bytes) } else { size };
    (size > allowed).then(|| {
        let detail = format!(
            "the compiled regular expressions of a flag can have at most {MAX_REGEXES_BYTES} bytes together (got \
             {size}); simplify them"
        );
        Violation::new("/targeting_rules", "too_large", detail)
    })
}

fn regex_bytes(flag: &Flag) -> usize {
    // Skip conditions whose expressions do not compile; `Flag::check` reports them separately.
    regex_conditions(flag).filter_map(|condition| compiled_size(&regex_patterns(condition))).sum()
}

/// Checks the number of attributes and array elements. `stored` contains the attributes before an edit. Accepts more
/// attributes or elements than a limit allows if `stored` has at least as many.
pub fn check_attribute_counts(
    pointer: &str,
    attributes: &Map<String, Value>,
    stored: Option<&Map<String, Value>>,
) -> Vec<Violation> {
    let amount = AttributeCounts::of(attributes);
    let stored = stored.map(AttributeCounts::of).unwrap_or_default();
    let subject = "a context";
    let members = Limit { limit: MAX_ATTRIBUTES, stored: stored.members, subject, unit: "attributes" };
    let items = Limit { limit: MAX_ATTRIBUTE_ITEMS, stored: stored.items, subject, unit: "array elements" };
    members.check(pointer, amount.members).into_iter().chain(items.check(pointer, amount.items)).collect()
}

#[derive(Clone, Copy, Debug, Default)]
struct AttributeCounts {
    members: usize,
    items: usize,
}

impl AttributeCounts {
    fn of(attributes: &Map<String, Value>) -> Self {
        let mut counts = Self::default();
        counts.add_members(attributes);
        counts
    }

    fn add_members(&mut self, object: &Map<String, Value>) {
        self.members += object.len();
        object.values().for_each(|value| self.add(value));
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::Array(items) => {
                self.items += items.len();
                items.iter().for_each(|item| self.add(item));
            }
            Value::Object(members) => self.add_members(members),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flag::tests::boolean_flag;

    fn flag_with_rules(rules: impl IntoIterator<Item = Vec<Value>>) -> Flag {
        let rules = rules.into_iter().enumerate().map(
            |(id, conditions)| json!({"id": id.to_string(), "conditions": conditions, "serve": {"variant": "on"}}),
        );
        let targeting_rules = rules.map(|rule| serde_json::from_value(rule).unwrap()).collect();
        Flag { targeting_rules, ..boolean_flag() }
    }

    fn condition(operator: &str, values: Vec<Value>) -> Value {
        json!({"attribute": "a", "operator": operator, "values": values})
    }

    fn equals(values: usize) -> Value {
        condition("equals", (0..values).map(Value::from).collect())
    }

    fn matches(pattern: &str) -> Value {
        condition("matches", vec![json!(pattern)])
    }

    fn check(flag: &Flag, stored: Option<&Flag>) -> Vec<(String, &'static str)> {
        let violations = stored.map_or_else(|| flag.check(), |stored| flag.check_edit(stored));
        violations.into_iter().map(|violation| (violation.pointer, violation.code)).collect()
    }

    /// Checks that `largest` is within the limit and `too_large` is not. Also checks that an edit above the limit is
    /// accepted only if the amount does not grow.
    fn check_limit(largest: &Flag, too_large: &Flag, larger: &Flag, pointer: &str, code: &'static str) {
        let violation = [(pointer.to_owned(), code)];
        assert_eq!(check(largest, None), []);
        assert_eq!(check(too_large, None), violation);
        assert_eq!(check(too_large, Some(largest)), violation, "grows");
        assert_eq!(check(too_large, Some(too_large)), [], "does not grow");
        assert_eq!(check(too_large, Some(larger)), [], "shrinks");
        assert_eq!(check(larger, Some(too_large)), violation, "grows above the limit");
    }

    #[test]
    fn limits_conditions_of_a_rule() {
        let flag = |count| flag_with_rules([vec![equals(1); count]]);
        check_limit(&flag(100), &flag(101), &flag(102), "/targeting_rules/0/conditions", "too_many");
    }

    #[test]
    fn limits_conditions_of_a_flag() {
        let flag = |rules, more| {
            let rules = std::iter::repeat_n(vec![equals(1); 100], rules);
            flag_with_rules(rules.chain([vec![equals(1); more]]))
        };
        check_limit(&flag(19, 100), &flag(20, 1), &flag(20, 2), "/targeting_rules", "too_many");
    }

    #[test]
    fn limits_values_of_a_condition() {
        let flag = |values| flag_with_rules([vec![equals(1), equals(values)]]);
        let pointer = "/targeting_rules/0/conditions/1/values";
        check_limit(&flag(10_000), &flag(10_001), &flag(10_002), pointer, "too_many");
    }

    #[test]
    fn limits_values_of_a_flag() {
        let flag = |more| flag_with_rules([vec![equals(10_000); 4], vec![equals(9_999), equals(more)]]);
        check_limit(&flag(1), &flag(2), &flag(3), "/targeting_rules", "too_many");
    }

    #[test]
    fn limits_regular_expressions_of_a_flag() {
        let flag = |count| flag_with_rules([vec![matches("a"); count]]);
        check_limit(&flag(50), &flag(51), &flag(52), "/targeting_rules", "too_many");
    }

    #[test]
    fn limits_compiled_size_of_all_regular_expressions_of_a_flag() {
        let flag = |count| flag_with_rules(std::iter::repeat_n(vec![matches("(?:[ab]*a){6000}[^a-z]")], count));
        check_limit(&flag(2), &flag(3), &flag(4), "/targeting_rules", "too_large");
    }

    #[test]
    fn limits_rules_of_a_flag() {
        let flag = |count| flag_with_rules(std::iter::repeat_n(vec![], count));
        check_limit(&flag(1_000), &flag(1_001), &flag(1_002), "/targeting_rules", "too_many");
    }

    #[test]
    fn limits_attributes_and_array_elements_at_any_depth() {
        let check = |attributes: &Value, stored: Option<&Value>| {
            let violations = check_attribute_counts(
                "/attributes",
                attributes.as_object().unwrap(),
                stored.map(|stored| stored.as_object().unwrap()),
            );
            violations.into_iter().map(|violation| violation.detail).collect::<Vec<_>>()
        };
        let members = |count: usize| {
            let inner: Map<_, _> = (0..count - 1).map(|n| (n.to_string(), json!(1))).collect();
            json!({"a": [inner]})
        };
        assert_eq!(check(&members(1_000), None), [""; 0]);
        assert_eq!(check(&members(1_001), None), ["a context can have at most 1000 attributes (got 1001)"]);
        assert_eq!(check(&members(1_001), Some(&members(1_001))), [""; 0]);
        assert_eq!(check(&members(1_002), Some(&members(1_001))).len(), 1);
        let items = |count: usize| json!({"a": [vec![0; count - 2], []]});
        assert_eq!(check(&items(5_000), None), [""; 0]);
        assert_eq!(check(&items(5_001), None), ["a context can have at most 5000 array elements (got 5001)"]);
    }
}
