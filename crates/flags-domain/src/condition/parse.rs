//! Parses the values of a condition into the form that its operator compares.

use std::cmp::Ordering;

use semver::Version;
use serde_json::Value;

use super::{Matcher, Operator, regexes::Regexes};
use crate::{instant::Instant, violation::Violation};

impl Matcher {
    /// Parses the values of a condition with this operator, or returns all of their violations.
    pub(super) fn parse(operator: Operator, values: &[Value]) -> Result<Self, Vec<Violation>> {
        if operator == Operator::Exists {
            return if values.is_empty() {
                Ok(Self::Exists)
            } else {
                Err(vec![Violation::new(
                    "/values",
                    "values_not_allowed",
                    "the operator `exists` takes no values; send an empty array",
                )])
            };
        }
        if values.is_empty() {
            let detail = format!("the operator {operator} requires at least one value");
            return Err(vec![Violation::new("/values", "empty", detail)]);
        }
        match operator {
            Operator::Equals => equals(values),
            Operator::Contains => text_list(values).map(Self::Contains),
            #[cfg(feature = "future-format")]
            Operator::Resembles => text_list(values).map(Self::Contains),
            Operator::StartsWith => text_list(values).map(Self::StartsWith),
            Operator::EndsWith => text_list(values).map(Self::EndsWith),
            Operator::Matches => Regexes::compile(&texts(values)?).map(Self::Matches),
            Operator::Lt => numbers(values).map(|n| Self::Number(|a, b| a < b, largest(&n))),
            Operator::Lte => numbers(values).map(|n| Self::Number(|a, b| a <= b, largest(&n))),
            Operator::Gt => numbers(values).map(|n| Self::Number(|a, b| a > b, smallest(&n))),
            Operator::Gte => numbers(values).map(|n| Self::Number(|a, b| a >= b, smallest(&n))),
            Operator::Before => instants(values).map(|(_, last)| Self::Before(last)),
            Operator::After => instants(values).map(|(first, _)| Self::After(first)),
            Operator::SemverEq => versions(values).map(|v| Self::EqualVersion(v.into())),
            Operator::SemverLt => version_bounds(values).map(|(_, newest)| Self::Version(Ordering::is_lt, newest)),
            Operator::SemverLte => version_bounds(values).map(|(_, newest)| Self::Version(Ordering::is_le, newest)),
            Operator::SemverGt => version_bounds(values).map(|(oldest, _)| Self::Version(Ordering::is_gt, oldest)),
            Operator::SemverGte => version_bounds(values).map(|(oldest, _)| Self::Version(Ordering::is_ge, oldest)),
            Operator::Exists => Ok(Self::Exists),
        }
    }
}

/// A sorted set of strings. A binary search has bounded time for any strings; a hash table with an
/// unkeyed hash does not.
#[derive(Debug)]
pub(super) struct StringSet(Box<[Box<str>]>);

impl StringSet {
    fn new(mut texts: Vec<Box<str>>) -> Self {
        texts.sort_unstable();
        texts.dedup();
        Self(texts.into())
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.0.binary_search_by(|candidate| (**candidate).cmp(text)).is_ok()
    }

    /// Number of strings.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

/// Texts that are compared one by one.
#[derive(Debug)]
pub(super) struct TextList {
    pub(super) texts: Box<[Box<str>]>,
    /// Total length of the texts, in bytes.
    pub(super) bytes: u64,
}

impl TextList {
    fn new(texts: Vec<Box<str>>) -> Self {
        let bytes = texts.iter().map(|text| text.len() as u64).sum();
        Self { texts: texts.into(), bytes }
    }
}

/// Parses every value with `parse`. Reports each value for which `parse` returns `None` as a violation with `code` and
/// `detail`.
fn parse_all<'v, T>(
    values: &'v [Value],
    code: &'static str,
    detail: &str,
    parse: impl Fn(&'v Value) -> Option<T>,
) -> Result<Vec<T>, Vec<Violation>> {
    let violation = |index| Violation::new(format!("/values/{index}"), code, detail);
    let invalid = values.iter().enumerate().filter(|(_, value)| parse(value).is_none());
    let violations: Vec<_> = invalid.map(|(index, _)| violation(index)).collect();
    if violations.is_empty() { Ok(values.iter().filter_map(parse).collect()) } else { Err(violations) }
}

const OPERATOR_MISMATCH: &str = "value_operator_mismatch";

fn equals(values: &[Value]) -> Result<Matcher, Vec<Violation>> {
    let detail = "the operator `equals` accepts only strings, numbers and booleans";
    parse_all(values, OPERATOR_MISMATCH, detail, |v| (v.is_string() || v.is_number() || v.is_boolean()).then_some(()))?;
    Ok(Matcher::Equals {
        texts: StringSet::new(values.iter().filter_map(Value::as_str).map(Into::into).collect()),
        numbers: sorted(values.iter().filter_map(Value::as_f64)),
        includes_true: values.iter().any(|value| value.as_bool() == Some(true)),
        includes_false: values.iter().any(|value| value.as_bool() == Some(false)),
    })
}

/// Sorts the numbers by `total_cmp` for binary search and removes duplicates. Adding 0.0 turns -0.0
/// into 0.0.
fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<_> = numbers.map(|number| number + 0.0).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    numbers
}

fn texts(values: &[Value]) -> Result<Vec<Box<str>>, Vec<Violation>> {
    parse_all(values, OPERATOR_MISMATCH, "this operator accepts only strings", |v| v.as_str().map(Into::into))
}

fn numbers(values: &[Value]) -> Result<Vec<f64>, Vec<Violation>> {
    parse_all(values, OPERATOR_MISMATCH, "this operator accepts only numbers", Value::as_f64)
}

fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn smallest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Parses the values as instants and returns the earliest and the latest.
fn instants(values: &[Value]) -> Result<(Instant, Instant), Vec<Violation>> {
    let detail = "this operator accepts only RFC 3339 timestamps such as 2030-01-31T12:00:00Z";
    let parsed =
        parse_all(values, OPERATOR_MISMATCH, detail, |v| v.as_str().and_then(|text| Instant::parse(text).ok()))?;
    let bounds = parsed.iter().min().copied().zip(parsed.iter().max().copied());
    bounds.ok_or_else(|| vec![Violation::new("/values", "empty", "must contain at least one value")])
}

fn text_list(values: &[Value]) -> Result<TextList, Vec<Violation>> {
    texts(values).map(TextList::new)
}

/// Parses the values as versions and returns those of lowest and highest precedence.
fn version_bounds(values: &[Value]) -> Result<(Version, Version), Vec<Violation>> {
    let versions = versions(values)?;
    let bounds = versions.first().cloned().zip(versions.last().cloned());
    bounds.ok_or_else(|| vec![Violation::new("/values", "empty", "must contain at least one value")])
}

/// Parses the values as versions, sorted by precedence, without duplicates.
fn versions(values: &[Value]) -> Result<Vec<Version>, Vec<Violation>> {
    let detail = "this operator accepts only semantic versions such as 1.4.0";
    let mut versions = parse_all(values, OPERATOR_MISMATCH, detail, |v| v.as_str().and_then(parse_version))?;
    versions.sort_by(Version::cmp_precedence);
    versions.dedup_by(|a, b| a.cmp_precedence(b).is_eq());
    Ok(versions)
}

/// Parses a semantic version. Missing components count as 0: `1` is `1.0.0`, and `1.2` is `1.2.0`.
pub(super) fn parse_version(text: &str) -> Option<Version> {
    if let Ok(version) = Version::parse(text) {
        return Some(version);
    }
    let core_end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(core_end);
    let padding = match core.split('.').count() {
        1 => ".0.0",
        2 => ".0",
        _ => return None,
    };
    Version::parse(&format!("{core}{padding}{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::condition::{CompiledCondition, Condition};

    fn condition(operator: Operator, values: Value, negate: bool) -> Condition {
        let Value::Array(values) = values else { panic!("values must be an array") };
        Condition { attribute: "a".into(), operator, values, negate }
    }

    fn violations_of(operator: Operator, values: Value) -> Vec<(String, &'static str)> {
        let compiled = CompiledCondition::compile(&condition(operator, values, false));
        compiled.err().unwrap_or_default().into_iter().map(|v| (v.pointer, v.code)).collect()
    }

    #[test]
    fn rejects_values_of_a_type_the_operator_does_not_accept() {
        let at = |index: usize| vec![(format!("/values/{index}"), OPERATOR_MISMATCH)];
        assert_eq!(violations_of(Operator::Equals, json!(["a", 1, true])), []);
        assert_eq!(violations_of(Operator::Equals, json!(["a", null])), at(1));
        assert_eq!(violations_of(Operator::Contains, json!([1])), at(0));
        assert_eq!(violations_of(Operator::Contains, json!(["a\0"])), [("/values/0".into(), "nul_character")]);
        assert_eq!(violations_of(Operator::Lt, json!(["1"])), at(0));
        assert_eq!(violations_of(Operator::Before, json!(["2026-01-01"])), at(0));
        assert_eq!(violations_of(Operator::SemverGt, json!(["1.0.0", "x"])), at(1));
        assert_eq!(violations_of(Operator::Exists, json!([1])), [("/values".into(), "values_not_allowed")]);
        assert_eq!(violations_of(Operator::Equals, json!([])), [("/values".into(), "empty")]);
    }

    #[test]
    fn rejects_invalid_regexes_with_the_cause() {
        let compiled = CompiledCondition::compile(&condition(Operator::Matches, json!(["ok", "("]), false));
        let violations = compiled.err().unwrap();
        assert_eq!((violations[0].pointer.as_str(), violations[0].code), ("/values/1", "invalid_regex"));
        assert!(violations[0].detail.contains("unclosed group"), "{}", violations[0].detail);
        assert_eq!(
            violations_of(Operator::Matches, json!([r"(\w{100}){100}"])),
            [("/values/0".into(), "invalid_regex")]
        );
    }

    #[test]
    fn string_sets_contain_exactly_their_strings() {
        for count in [1, 9, 100] {
            let texts = StringSet::new((0..count).map(|n| format!("text-{n}").into()).collect());
            assert!((0..count).all(|n| texts.contains(&format!("text-{n}"))), "{count}");
            assert!(!texts.contains(&format!("text-{count}")), "{count}");
        }
    }

    #[test]
    fn abbreviated_versions_are_padded_with_zeros() {
        let same = |a: &str, b: &str| parse_version(a).unwrap().cmp_precedence(&parse_version(b).unwrap()).is_eq();
        assert!(same("1", "1.0.0"));
        assert!(same("1.2", "1.2.0"));
        assert!(same("1.2-rc.1", "1.2.0-rc.1"));
        assert!(same("1.2.3+a", "1.2.3+b"));
        for invalid in ["", "x", "1.2.3.4", "1..2", "v1"] {
            assert_eq!(parse_version(invalid), None, "{invalid}");
        }
    }
}
