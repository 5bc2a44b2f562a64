//! Conditions of targeting rules: their definitions and their compiled form.

mod definition;
mod parse;

use regex::RegexSet;
use semver::Version;
use serde_json::Value;

pub use self::definition::{Condition, Operator};
pub(crate) use self::parse::MAX_REGEXES;
use self::parse::{StringSet, parse_version};
use crate::{
    context::{Attribute, EvaluationContext},
    instant::Instant,
    serve::MAX_ATTRIBUTE_LENGTH,
    value::{MAX_VALUE_BYTES, MAX_VALUE_DEPTH, check_json},
    violation::{Violation, check_key},
};

/// A condition prepared for evaluation: sets are hashed, versions and instants parsed, regular expressions compiled.
#[derive(Debug)]
pub(crate) struct CompiledCondition {
    attribute: Box<str>,
    matcher: Matcher,
    negate: bool,
}

/// Reason why a condition does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionFailure {
    /// The attribute is missing or null. This fails every operator, negated or not, except negated `exists`.
    Missing,
    /// The attribute, or every element of an array, has a type that the operator does not accept. This fails the
    /// condition even if it is negated.
    TypeMismatch,
    /// The attribute matches none of the values.
    NoMatch,
    /// The condition is negated, and the attribute matches one of the values.
    Excluded,
}

/// Operator and parsed values of a condition.
#[derive(Debug)]
enum Matcher {
    Equals {
        texts: StringSet,
        /// Sorted by `f64::total_cmp`, without -0.
        numbers: Vec<f64>,
        booleans: Vec<bool>,
    },
    Contains(Vec<Box<str>>),
    StartsWith(Vec<Box<str>>),
    EndsWith(Vec<Box<str>>),
    Matches(RegexSet),
    /// Comparison with the least restrictive of the values. A number satisfies the condition if and only if it satisfies
    /// this comparison.
    Number(fn(f64, f64) -> bool, f64),
    Before(Instant),
    After(Instant),
    Version(fn(&Version, &Version) -> bool, Vec<Version>),
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
        match Matcher::parse(condition.operator, &condition.values) {
            Ok(matcher) if violations.is_empty() => {
                Ok(Self { attribute: condition.attribute.as_str().into(), matcher, negate: condition.negate })
            }
            Ok(_) => Err(violations),
            Err(value_violations) => {
                violations.extend(value_violations);
                Err(violations)
            }
        }
    }

    /// Returns why the condition does not hold for `context`; `None` if it holds.
    pub(crate) fn failure(&self, context: &EvaluationContext) -> Option<ConditionFailure> {
        let attribute = context.attribute(&self.attribute);
        let matched = match (&self.matcher, attribute) {
            (Matcher::Exists, attribute) => Some(attribute.is_some()),
            (_, None) => return Some(ConditionFailure::Missing),
            (matcher, Some(attribute)) => matcher.matches(attribute),
        };
        match (matched, self.negate) {
            (Some(true), false) | (Some(false), true) => None,
            (Some(true), true) => Some(ConditionFailure::Excluded),
            (Some(false), false) if attribute.is_none() => Some(ConditionFailure::Missing),
            (Some(false), false) => Some(ConditionFailure::NoMatch),
            (None, _) => Some(ConditionFailure::TypeMismatch),
        }
    }

    /// Whether the condition reads the context beyond its targeting key.
    pub(crate) fn reads_attributes(&self) -> bool {
        &*self.attribute != "user_id"
    }
}

impl Matcher {
    /// Returns whether the attribute, or any element of an array, matches any of the values. Returns `None` if the
    /// attribute, or every element of a non-empty array, has a type that the operator does not accept.
    fn matches(&self, attribute: Attribute<'_>) -> Option<bool> {
        let Attribute::Json(Value::Array(items)) = attribute else { return self.matches_scalar(attribute) };
        let mut matched = items.is_empty().then_some(false);
        for item in items {
            match self.matches_scalar(Attribute::from(item)) {
                Some(true) => return Some(true),
                Some(false) => matched = Some(false),
                None => {}
            }
        }
        matched
    }

    fn matches_scalar(&self, attribute: Attribute<'_>) -> Option<bool> {
        match self {
            Self::Equals { texts, numbers, booleans } => {
                if let Some(text) = attribute.text() {
                    return Some(texts.contains(text));
                }
                match attribute {
                    // Adding 0.0 turns -0.0 into 0.0.
                    Attribute::Json(Value::Number(n)) => Some(n.as_f64().is_some_and(|n| {
                        numbers.binary_search_by(|candidate| candidate.total_cmp(&(n + 0.0))).is_ok()
                    })),
                    Attribute::Json(Value::Bool(b)) => Some(booleans.contains(b)),
                    _ => None,
                }
            }
            Self::Contains(needles) => {
                attribute.text().map(|text| needles.iter().any(|needle| text.contains(&**needle)))
            }
            Self::StartsWith(prefixes) => {
                attribute.text().map(|text| prefixes.iter().any(|prefix| text.starts_with(&**prefix)))
            }
            Self::EndsWith(suffixes) => {
                attribute.text().map(|text| suffixes.iter().any(|suffix| text.ends_with(&**suffix)))
            }
            Self::Matches(set) => attribute.text().map(|text| set.is_match(text)),
            Self::Number(compare, bound) => attribute.number().map(|number| compare(number, *bound)),
            Self::Before(bound) => attribute.instant().map(|at| at < *bound),
            Self::After(bound) => attribute.instant().map(|at| at > *bound),
            Self::Version(compare, bounds) => {
                let version = attribute.text().and_then(parse_version)?;
                Some(bounds.iter().any(|bound| compare(&version, bound)))
            }
            Self::Exists => Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equals_supports_ten_thousand_values() {
        let values: Vec<_> = (0..10_000).map(|n| json!(format!("user-{n}"))).collect();
        let condition = Condition { attribute: "a".into(), operator: Operator::Equals, values, negate: false };
        let compiled = CompiledCondition::compile(&condition).unwrap();
        let context = |text: &str| {
            let Value::Object(attributes) = json!({ "a": text }) else { panic!() };
            EvaluationContext::anonymous("key", attributes)
        };
        assert_eq!(compiled.failure(&context("user-9999")), None);
        assert_eq!(compiled.failure(&context("user-10000")), Some(ConditionFailure::NoMatch));
    }
}
