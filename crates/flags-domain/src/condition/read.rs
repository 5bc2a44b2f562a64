//! The values of a condition, read as its operator compares them.

use regex::{RegexBuilder, RegexSet, RegexSetBuilder};
use rustc_hash::FxHashSet;
use semver::Version;
use serde_json::Value;

use super::Test;
use crate::{instant::Instant, rule::Operator, violation::Violation};

/// Largest compiled form of one regular expression, in bytes.
const REGEX_LIMIT: usize = 1 << 18;
/// Largest compiled form of all regular expressions of one condition together, in bytes.
const REGEX_SET_LIMIT: usize = 1 << 20;

/// Most regular expressions of one flag: compiling them takes time and memory.
pub(crate) const MAX_PATTERNS: usize = 50;

impl Test {
    /// Reads the values of a condition with this operator, or says all that is wrong with them.
    pub(super) fn compile(operator: Operator, values: &[Value]) -> Result<Self, Vec<Violation>> {
        if operator == Operator::Exists {
            return if values.is_empty() {
                Ok(Self::Exists)
            } else {
                Err(vec![Violation::new("/values", "values_not_allowed", "the operator exists takes no values")])
            };
        }
        if values.is_empty() {
            let detail = format!("the operator {operator} needs at least one value");
            return Err(vec![Violation::new("/values", "empty", detail)]);
        }
        match operator {
            Operator::Equals => equals(values),
            Operator::Contains => texts(values).map(Self::Contains),
            Operator::StartsWith => texts(values).map(Self::StartsWith),
            Operator::EndsWith => texts(values).map(Self::EndsWith),
            Operator::Matches => regexes(values).map(Self::Matches),
            Operator::Lt => numbers(values).map(|n| Self::Number(|a, b| a < b, largest(&n))),
            Operator::Lte => numbers(values).map(|n| Self::Number(|a, b| a <= b, largest(&n))),
            Operator::Gt => numbers(values).map(|n| Self::Number(|a, b| a > b, smallest(&n))),
            Operator::Gte => numbers(values).map(|n| Self::Number(|a, b| a >= b, smallest(&n))),
            Operator::Before => instants(values).map(|(_, last)| Self::Before(last)),
            Operator::After => instants(values).map(|(first, _)| Self::After(first)),
            Operator::SemverEq => versions(values).map(|v| Self::Version(|a, b| a.cmp_precedence(b).is_eq(), v)),
            Operator::SemverLt => {
                versions(values).map(|v| Self::Version(|a, b| a.cmp_precedence(b).is_lt(), newest(v)))
            }
            Operator::SemverLte => {
                versions(values).map(|v| Self::Version(|a, b| a.cmp_precedence(b).is_le(), newest(v)))
            }
            Operator::SemverGt => {
                versions(values).map(|v| Self::Version(|a, b| a.cmp_precedence(b).is_gt(), oldest(v)))
            }
            Operator::SemverGte => {
                versions(values).map(|v| Self::Version(|a, b| a.cmp_precedence(b).is_ge(), oldest(v)))
            }
            Operator::Exists => Ok(Self::Exists),
        }
    }
}

/// A set of texts. A few are found faster one by one than by their hash.
#[derive(Debug)]
pub(super) enum Texts {
    Few(Box<[Box<str>]>),
    Many(FxHashSet<Box<str>>),
}

impl Texts {
    /// Up to how many are a few.
    const FEW: usize = 8;

    fn new(texts: FxHashSet<Box<str>>) -> Self {
        if texts.len() <= Self::FEW { Self::Few(texts.into_iter().collect()) } else { Self::Many(texts) }
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        match self {
            Self::Few(texts) => texts.iter().any(|one| **one == *text),
            Self::Many(texts) => texts.contains(text),
        }
    }
}

/// Reads every value by `read`; a value that cannot be read is a violation with `code` and `detail`.
fn read_all<'v, T>(
    values: &'v [Value],
    code: &'static str,
    detail: &str,
    read: impl Fn(&'v Value) -> Option<T>,
) -> Result<Vec<T>, Vec<Violation>> {
    let bad = |index| Violation::new(format!("/values/{index}"), code, detail);
    let found: Vec<_> =
        values.iter().enumerate().filter(|(_, value)| read(value).is_none()).map(|(index, _)| bad(index)).collect();
    if found.is_empty() { Ok(values.iter().filter_map(read).collect()) } else { Err(found) }
}

const OPERATOR_MISMATCH: &str = "value_operator_mismatch";

fn equals(values: &[Value]) -> Result<Test, Vec<Violation>> {
    let detail = "equals compares with texts, numbers and booleans only";
    read_all(values, OPERATOR_MISMATCH, detail, |v| (v.is_string() || v.is_number() || v.is_boolean()).then_some(()))?;
    Ok(Test::Equals {
        texts: Texts::new(values.iter().filter_map(Value::as_str).map(Into::into).collect()),
        numbers: sorted(values.iter().filter_map(Value::as_f64)),
        booleans: values.iter().filter_map(Value::as_bool).collect(),
    })
}

/// In order, to be searched; adding 0 makes -0 the same as 0.
fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<_> = numbers.map(|number| number + 0.0).collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn texts(values: &[Value]) -> Result<Vec<Box<str>>, Vec<Violation>> {
    read_all(values, OPERATOR_MISMATCH, "this operator compares with texts only", |v| v.as_str().map(Into::into))
}

fn numbers(values: &[Value]) -> Result<Vec<f64>, Vec<Violation>> {
    read_all(values, OPERATOR_MISMATCH, "this operator compares with numbers only", Value::as_f64)
}

fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn smallest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The first and the last of the instants.
fn instants(values: &[Value]) -> Result<(Instant, Instant), Vec<Violation>> {
    let detail = "this operator compares with RFC 3339 instants only, such as 2030-01-31T12:00:00Z";
    let read = read_all(values, OPERATOR_MISMATCH, detail, |v| v.as_str().and_then(|text| Instant::parse(text).ok()))?;
    let bounds = read.iter().min().copied().zip(read.iter().max().copied());
    bounds.ok_or_else(|| vec![Violation::new("/values", "empty", "needs at least one value")])
}

fn versions(values: &[Value]) -> Result<Vec<Version>, Vec<Violation>> {
    let detail = "this operator compares with semantic versions only, such as 1.4.0";
    read_all(values, OPERATOR_MISMATCH, detail, |v| v.as_str().and_then(parse_version))
}

fn newest(versions: Vec<Version>) -> Vec<Version> {
    versions.into_iter().max_by(Version::cmp_precedence).into_iter().collect()
}

fn oldest(versions: Vec<Version>) -> Vec<Version> {
    versions.into_iter().min_by(Version::cmp_precedence).into_iter().collect()
}

/// Reads a semantic version; `1` and `1.2` stand for `1.0.0` and `1.2.0`.
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

fn regexes(values: &[Value]) -> Result<RegexSet, Vec<Violation>> {
    let patterns = texts(values)?;
    if patterns.len() > MAX_PATTERNS {
        let detail = format!("a condition can have at most {MAX_PATTERNS} regular expressions; join them by `|`");
        return Err(vec![Violation::new("/values", "too_many", detail)]);
    }
    let explain = |error: &regex::Error| match error {
        regex::Error::CompiledTooBig(_) => {
            "the regular expression takes more than 256 KiB when compiled; simplify it".to_owned()
        }
        other => format!("not a valid regular expression: {}", last_line(&other.to_string())),
    };
    // Compiling is costly; each is compiled alone only to find out which is at fault.
    let whole = RegexSetBuilder::new(&patterns).size_limit(REGEX_SET_LIMIT).build();
    whole.map_err(|_| {
        let invalid = |(index, pattern): (usize, &str)| {
            let error = RegexBuilder::new(pattern).size_limit(REGEX_LIMIT).build().err()?;
            Some(Violation::new(format!("/values/{index}"), "invalid_regex", explain(&error)))
        };
        let found: Vec<_> = patterns.iter().map(|pattern| &**pattern).enumerate().filter_map(invalid).collect();
        let detail =
            "the regular expressions of this condition take more than 1 MiB together when compiled; simplify them";
        if found.is_empty() { vec![Violation::new("/values", "invalid_regex", detail)] } else { found }
    })
}

/// What is wrong: the last line, after the pattern and a pointer into it.
fn last_line(text: &str) -> &str {
    text.trim_end().rsplit('\n').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{condition::CompiledCondition, rule::Condition};

    fn condition(operator: Operator, values: Value, negate: bool) -> Condition {
        let Value::Array(values) = values else { panic!("values must be an array") };
        Condition { attribute: "a".into(), operator, values, negate }
    }

    fn codes(operator: Operator, values: Value) -> Vec<(String, &'static str)> {
        let compiled = CompiledCondition::compile(&condition(operator, values, false));
        compiled.err().unwrap_or_default().into_iter().map(|v| (v.pointer, v.code)).collect()
    }

    #[test]
    fn values_must_fit_the_operator() {
        let at = |index: usize| vec![(format!("/values/{index}"), OPERATOR_MISMATCH)];
        assert_eq!(codes(Operator::Equals, json!(["a", 1, true])), []);
        assert_eq!(codes(Operator::Equals, json!(["a", null])), at(1));
        assert_eq!(codes(Operator::Contains, json!([1])), at(0));
        assert_eq!(codes(Operator::Contains, json!(["a\0"])), [("/values/0".into(), "nul_character")]);
        assert_eq!(codes(Operator::Lt, json!(["1"])), at(0));
        assert_eq!(codes(Operator::Before, json!(["2026-01-01"])), at(0));
        assert_eq!(codes(Operator::SemverGt, json!(["1.0.0", "x"])), at(1));
        assert_eq!(codes(Operator::Exists, json!([1])), [("/values".into(), "values_not_allowed")]);
        assert_eq!(codes(Operator::Equals, json!([])), [("/values".into(), "empty")]);
    }

    #[test]
    fn a_bad_regex_is_refused_with_its_reason() {
        let compiled = CompiledCondition::compile(&condition(Operator::Matches, json!(["ok", "("]), false));
        let found = compiled.err().unwrap();
        assert_eq!((found[0].pointer.as_str(), found[0].code), ("/values/1", "invalid_regex"));
        assert!(found[0].detail.contains("unclosed group"), "{}", found[0].detail);
        assert_eq!(codes(Operator::Matches, json!([r"(\w{100}){100}"])), [("/values/0".into(), "invalid_regex")]);
    }

    #[test]
    fn sets_of_texts_of_any_size_hold_what_is_in_them() {
        for count in [1, Texts::FEW, Texts::FEW + 1, 100] {
            let texts = Texts::new((0..count).map(|n| format!("text-{n}").into()).collect());
            assert!((0..count).all(|n| texts.contains(&format!("text-{n}"))), "{count}");
            assert!(!texts.contains(&format!("text-{count}")), "{count}");
        }
    }

    #[test]
    fn short_versions_are_padded() {
        let same = |a: &str, b: &str| parse_version(a).unwrap().cmp_precedence(&parse_version(b).unwrap()).is_eq();
        assert!(same("1", "1.0.0"));
        assert!(same("1.2", "1.2.0"));
        assert!(same("1.2-rc.1", "1.2.0-rc.1"));
        assert!(same("1.2.3+a", "1.2.3+b"));
        for bad in ["", "x", "1.2.3.4", "1..2", "v1"] {
            assert_eq!(parse_version(bad), None, "{bad}");
        }
    }
}
