//! Conditions of targeting rules: their definitions and their compiled form.

mod comparison;
mod definition;
mod parse;
mod regexes;

use std::cmp::Ordering;

use semver::Version;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use self::regexes::compiled_size;
use self::{
    comparison::{COMPARISON, Comparison, binary_search_steps},
    parse::{StringSet, TextList},
    regexes::Regexes,
};
pub use self::{
    definition::{Condition, Operator},
    regexes::{MAX_REGEXES, MAX_SEARCHED_TEXT_BYTES},
};
use crate::{
    budget::{BudgetExhausted, FlagBudget},
    context::EvaluationContext,
    email::comparable_email,
    instant::Instant,
    serve::MAX_ATTRIBUTE_LENGTH,
    value::{MAX_VALUE_BYTES, MAX_VALUE_DEPTH, check_json},
    violation::{Violation, check_key},
};

/// A condition prepared for evaluation: sets are sorted, versions and instants parsed, regular expressions compiled.
#[derive(Debug)]
pub(crate) struct CompiledCondition {
    attribute: Box<str>,
    /// Upper bound on the work of looking up the attribute, in budget units.
    lookup_cost: u64,
    form: AttributeForm,
    matcher: Matcher,
    negate: bool,
}

/// Form in which a condition compares its attribute.
#[derive(Debug)]
enum AttributeForm {
    AsGiven,
    /// The e-mail address in the form of [`comparable_email`]. The texts of the matcher have the same form.
    Email,
    /// The evaluation key or the id of the user, which matches if it is one of these sorted ids.
    UserIdOrKey(Box<[Uuid]>),
}

/// Reason why a condition does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionFailure {
    /// The attribute is missing or null. Every condition then fails, negated or not, except negated
    /// `exists`.
    Missing,
    /// The operator does not accept the type of the attribute or, for an array, the type of any
    /// element. The condition fails even if it is negated.
    TypeMismatch,
    /// The attribute matches none of the values.
    NoMatch,
    /// The condition is negated, and the attribute matches one of the values.
    Excluded,
    /// The text is longer than [`MAX_SEARCHED_TEXT_BYTES`], so the operator `matches` does not
    /// search it. The condition fails even if it is negated. For an array: no element matches, and
    /// at least one element is too long.
    TooLong,
}

/// Operator and parsed values of a condition.
#[derive(Debug)]
enum Matcher {
    Equals {
        texts: StringSet,
        /// Sorted by `f64::total_cmp`, without -0.
        numbers: Vec<f64>,
        includes_true: bool,
        includes_false: bool,
    },
    Contains(TextList),
    StartsWith(TextList),
    EndsWith(TextList),
    Matches(Regexes),
    /// Comparison function and bound. The bound is the largest value for `lt` and `lte`, and the smallest for `gt` and
    /// `gte`. The other values cannot change the result.
    Number(fn(f64, f64) -> bool, f64),
    Before(Instant),
    After(Instant),
    /// Sorted by precedence, without duplicates.
    EqualVersion(Box<[Version]>),
    /// Test of the order between attribute and bound, and the bound. The bound is the newest version for `semver_lt`
    /// and `semver_lte`, and the oldest for `semver_gt` and `semver_gte`. The other versions cannot change the result.
    Version(fn(Ordering) -> bool, Version),
    Exists,
}

impl CompiledCondition {
    /// Compiles `condition`, or returns all of its violations, with pointers relative to the condition.
    pub(crate) fn compile(condition: &Condition) -> Result<Self, Vec<Violation>> {
        let mut violations: Vec<_> =
            check_key("/attribute", &condition.attribute, MAX_ATTRIBUTE_LENGTH).into_iter().collect();
        let values = condition.values.iter().enumerate();
        violations.extend(values.filter_map(|(index, value)| {
            check_json(&format!("/values/{index}"), value, MAX_VALUE_BYTES, MAX_VALUE_DEPTH).err()
        }));
        let form = AttributeForm::of(condition);
        let matcher = match form {
            AttributeForm::Email => Matcher::parse(condition.operator, &comparable_values(condition)),
            AttributeForm::AsGiven | AttributeForm::UserIdOrKey(_) => {
                Matcher::parse(condition.operator, &condition.values)
            }
        };
        match matcher {
            Ok(matcher) if violations.is_empty() => Ok(Self {
                attribute: condition.attribute.as_str().into(),
                lookup_cost: lookup_cost(&condition.attribute) + form.cost(),
                form,
                matcher,
                negate: condition.negate,
            }),
            Ok(_) => Err(violations),
            Err(value_violations) => {
                violations.extend(value_violations);
                Err(violations)
            }
        }
    }

    /// Returns why the condition does not hold for `context`; `None` if it holds. Charges `budget` before each
    /// comparison.
    pub(crate) fn failure(
        &self,
        context: &EvaluationContext,
        budget: &mut FlagBudget<'_>,
    ) -> Result<Option<ConditionFailure>, BudgetExhausted> {
        budget.charge(self.lookup_cost)?;
        let attribute = match &self.form {
            AttributeForm::Email => context.comparable_email(),
            AttributeForm::AsGiven | AttributeForm::UserIdOrKey(_) => context.attribute(&self.attribute),
        };
        let comparison = match (&self.matcher, attribute) {
            (_, Some(_)) if self.form.includes_user(context) => Comparison::Matched,
            (Matcher::Exists, Some(_)) => Comparison::Matched,
            (Matcher::Exists, None) if self.negate => return Ok(None),
            (_, None) => return Ok(Some(ConditionFailure::Missing)),
            (matcher, Some(attribute)) => matcher.compare(attribute, budget)?,
        };
        Ok(match (comparison, self.negate) {
            (Comparison::Matched, false) | (Comparison::NotMatched, true) => None,
            (Comparison::Matched, true) => Some(ConditionFailure::Excluded),
            (Comparison::NotMatched, false) => Some(ConditionFailure::NoMatch),
            (Comparison::TypeMismatch, _) => Some(ConditionFailure::TypeMismatch),
            (Comparison::TooLong, _) => Some(ConditionFailure::TooLong),
        })
    }

    /// Whether the condition reads an attribute other than the targeting key.
    pub(crate) fn reads_attributes(&self) -> bool {
        &*self.attribute != "user_id"
    }
}

impl AttributeForm {
    fn of(condition: &Condition) -> Self {
        match (condition.attribute.as_str(), condition.operator.compares_text()) {
            ("email", true) => Self::Email,
            ("user_id", _) if condition.operator == Operator::Equals => {
                let values = condition.values.iter().filter_map(|value| Uuid::try_parse(value.as_str()?).ok());
                let mut ids: Vec<_> = values.collect();
                ids.sort_unstable();
                Self::UserIdOrKey(ids.into())
            }
            _ => Self::AsGiven,
        }
    }

    /// Whether the condition names the user of the context by id.
    fn includes_user(&self, context: &EvaluationContext) -> bool {
        let Self::UserIdOrKey(ids) = self else { return false };
        context.user_id().is_some_and(|id| ids.binary_search(&id).is_ok())
    }

    /// Upper bound on the work of [`includes_user`](Self::includes_user).
    const fn cost(&self) -> u64 {
        match self {
            Self::AsGiven | Self::Email => 0,
            Self::UserIdOrKey(ids) => binary_search_steps(ids.len()) * COMPARISON,
        }
    }
}

/// Returns the values of a condition on `email` in the form of [`comparable_email`]. Regular expressions stay
/// unchanged, except that they ignore case.
fn comparable_values(condition: &Condition) -> Vec<Value> {
    let comparable_value = |value: &Value| {
        let Some(text) = value.as_str() else { return value.clone() };
        if condition.operator == Operator::Matches {
            return Value::from(format!("(?i){text}"));
        }
        comparable_email(text).map_or_else(|| value.clone(), Value::from)
    };
    condition.values.iter().map(comparable_value).collect()
}

/// Returns the regular expressions of a condition with the operator `matches`, in the form in which they are compiled.
/// Omits values that are not text.
pub(crate) fn regex_patterns(condition: &Condition) -> Vec<Box<str>> {
    let values = match AttributeForm::of(condition) {
        AttributeForm::Email => comparable_values(condition),
        AttributeForm::AsGiven | AttributeForm::UserIdOrKey(_) => condition.values.clone(),
    };
    values.iter().filter_map(Value::as_str).map(Box::from).collect()
}

/// Upper bound on the work of looking up an attribute, whose name may be a dotted path.
fn lookup_cost(attribute: &str) -> u64 {
    const OBJECT_SEARCH: u64 = 50;
    let dots = attribute.bytes().filter(|byte| *byte == b'.').count() as u64;
    // A name with dots is first looked up as an exact key, then segment by segment.
    OBJECT_SEARCH * if dots == 0 { 1 } else { 2 + dots }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::budget::EvaluationBudget;

    #[test]
    fn equals_supports_ten_thousand_values() {
        let values: Vec<_> = (0..10_000).map(|n| json!(format!("user-{n}"))).collect();
        let condition = Condition { attribute: "a".into(), operator: Operator::Equals, values, negate: false };
        let compiled = CompiledCondition::compile(&condition).unwrap();
        let context = |text: &str| {
            let Value::Object(attributes) = json!({ "a": text }) else { panic!() };
            EvaluationContext::anonymous("key", attributes)
        };
        let failure = |text: &str| compiled.failure(&context(text), &mut EvaluationBudget::default().for_flag());
        assert_eq!(failure("user-9999"), Ok(None));
        assert_eq!(failure("user-10000"), Ok(Some(ConditionFailure::NoMatch)));
    }
}
