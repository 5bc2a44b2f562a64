//! Conditions of targeting rules, compiled and evaluated.

mod read;

use regex::RegexSet;
use semver::Version;
use serde_json::Value;

pub(crate) use self::read::MAX_PATTERNS;
use self::read::{Texts, parse_version};
use crate::{
    context::{Attribute, EvaluationContext},
    instant::Instant,
    rule::Condition,
    serve::MAX_ATTRIBUTE_LENGTH,
    value::{MAX_VALUE_BYTES, MAX_VALUE_DEPTH, check_json},
    violation::{Violation, check_key},
};

/// A condition prepared for evaluation: sets are hashed, versions and instants parsed, regexes compiled.
#[derive(Debug)]
pub(crate) struct CompiledCondition {
    attribute: Box<str>,
    test: Test,
    negate: bool,
}

/// Why a condition does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionFailure {
    /// The attribute is missing or null. Negated or not, only `exists` can hold then.
    Missing,
    /// Nothing of what was seen is of a type that the operator compares. Negated or not, the condition fails.
    TypeMismatch,
    /// None of the values fits.
    NoMatch,
    /// One of the values fits, and the condition is negated.
    Excluded,
}

#[derive(Debug)]
enum Test {
    Equals {
        texts: Texts,
        numbers: Vec<f64>,
        booleans: Vec<bool>,
    },
    Contains(Vec<Box<str>>),
    StartsWith(Vec<Box<str>>),
    EndsWith(Vec<Box<str>>),
    Matches(RegexSet),
    /// As any of the values may fit, the most generous one stands for all.
    Number(fn(f64, f64) -> bool, f64),
    Before(Instant),
    After(Instant),
    Version(fn(&Version, &Version) -> bool, Vec<Version>),
    Exists,
}

impl CompiledCondition {
    /// Prepares `condition`, or says all that is wrong with it, with pointers relative to it.
    pub(crate) fn compile(condition: &Condition) -> Result<Self, Vec<Violation>> {
        let mut found: Vec<_> =
            check_key("/attribute", &condition.attribute, MAX_ATTRIBUTE_LENGTH).into_iter().collect();
        let values = condition.values.iter().enumerate();
        found.extend(values.filter_map(|(index, value)| {
            check_json(&format!("/values/{index}"), value, MAX_VALUE_BYTES, MAX_VALUE_DEPTH).err()
        }));
        match Test::compile(condition.operator, &condition.values) {
            Ok(test) if found.is_empty() => {
                Ok(Self { attribute: condition.attribute.as_str().into(), test, negate: condition.negate })
            }
            Ok(_) => Err(found),
            Err(violations) => {
                found.extend(violations);
                Err(found)
            }
        }
    }

    /// Why the condition does not hold in `context`; `None` if it does.
    pub(crate) fn failure(&self, context: &EvaluationContext) -> Option<ConditionFailure> {
        let attribute = context.attribute(&self.attribute);
        let fits = match (&self.test, attribute) {
            (Test::Exists, seen) => Some(seen.is_some()),
            (_, None) => return Some(ConditionFailure::Missing),
            (test, Some(seen)) => test.fits(seen),
        };
        match (fits, self.negate) {
            (Some(true), false) | (Some(false), true) => None,
            (Some(true), true) => Some(ConditionFailure::Excluded),
            (Some(false), false) if attribute.is_none() => Some(ConditionFailure::Missing),
            (Some(false), false) => Some(ConditionFailure::NoMatch),
            (None, _) => Some(ConditionFailure::TypeMismatch),
        }
    }

    /// Whether it looks at more of the context than the targeting key.
    pub(crate) fn reads_attributes(&self) -> bool {
        &*self.attribute != "user_id"
    }
}

impl Test {
    /// Whether any value fits what was seen; `None` if nothing seen is of the operator's type.
    fn fits(&self, seen: Attribute<'_>) -> Option<bool> {
        let Attribute::Json(Value::Array(items)) = seen else { return self.fits_one(seen) };
        let mut outcome = items.is_empty().then_some(false);
        for item in items {
            match self.fits_one(Attribute::from(item)) {
                Some(true) => return Some(true),
                Some(false) => outcome = Some(false),
                None => {}
            }
        }
        outcome
    }

    fn fits_one(&self, seen: Attribute<'_>) -> Option<bool> {
        match self {
            Self::Equals { texts, numbers, booleans } => {
                if let Some(text) = seen.text() {
                    return Some(texts.contains(text));
                }
                match seen {
                    Attribute::Json(Value::Number(n)) => Some(
                        n.as_f64().is_some_and(|n| numbers.binary_search_by(|own| own.total_cmp(&(n + 0.0))).is_ok()),
                    ),
                    Attribute::Json(Value::Bool(b)) => Some(booleans.contains(b)),
                    _ => None,
                }
            }
            Self::Contains(parts) => seen.text().map(|text| parts.iter().any(|part| text.contains(&**part))),
            Self::StartsWith(parts) => seen.text().map(|text| parts.iter().any(|part| text.starts_with(&**part))),
            Self::EndsWith(parts) => seen.text().map(|text| parts.iter().any(|part| text.ends_with(&**part))),
            Self::Matches(set) => seen.text().map(|text| set.is_match(text)),
            Self::Number(compare, bound) => seen.number().map(|number| compare(number, *bound)),
            Self::Before(bound) => seen.instant().map(|at| at < *bound),
            Self::After(bound) => seen.instant().map(|at| at > *bound),
            Self::Version(compare, bounds) => {
                let version = seen.text().and_then(parse_version)?;
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
    use crate::rule::Operator;

    #[test]
    fn ten_thousand_values_are_one_set() {
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
