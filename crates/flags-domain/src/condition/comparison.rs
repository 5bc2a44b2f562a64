//! Compares attributes with the values of a condition, and computes the cost of each comparison.
//!
//! Costs are upper bounds in units of the [`EvaluationBudget`](crate::EvaluationBudget). The most
//! expensive comparison of each operator takes about one nanosecond per unit.

use semver::Version;
use serde_json::Value;

use super::{Matcher, parse::parse_version, regexes::MAX_SEARCHED_TEXT_BYTES};
use crate::{
    budget::{BudgetExhausted, FlagBudget},
    context::Attribute,
};

/// Cost of one comparison, without the part that depends on the length of the texts.
pub(super) const COMPARISON: u64 = 10;
/// Cost of starting a substring search.
const TEXT_SEARCH: u64 = 25;
/// Cost of parsing a timestamp or a version, without the part that depends on its length.
const PARSING: u64 = 100;

/// Result of comparing an attribute with the values of a condition. The result for an array is the greatest result of
/// its elements, in the order of these variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Comparison {
    /// The operator does not accept the type of the attribute.
    TypeMismatch,
    /// The attribute matches none of the values.
    NotMatched,
    /// The attribute is too long to be compared.
    TooLong,
    /// The attribute matches one of the values.
    Matched,
}

impl From<bool> for Comparison {
    fn from(matched: bool) -> Self {
        if matched { Self::Matched } else { Self::NotMatched }
    }
}

impl Matcher {
    /// Compares an attribute with the values. An array matches if any element matches; elements of a type that the
    /// operator does not accept are ignored. Charges `budget` before each comparison.
    pub(super) fn compare(
        &self,
        attribute: Attribute<'_>,
        budget: &mut FlagBudget<'_>,
    ) -> Result<Comparison, BudgetExhausted> {
        let Attribute::Json(Value::Array(items)) = attribute else { return self.charge_and_compare(attribute, budget) };
        let mut result = if items.is_empty() { Comparison::NotMatched } else { Comparison::TypeMismatch };
        for item in items {
            result = result.max(self.charge_and_compare(Attribute::from(item), budget)?);
            if result == Comparison::Matched {
                break;
            }
        }
        Ok(result)
    }

    fn charge_and_compare(
        &self,
        attribute: Attribute<'_>,
        budget: &mut FlagBudget<'_>,
    ) -> Result<Comparison, BudgetExhausted> {
        budget.charge(self.cost(attribute))?;
        Ok(self.compare_scalar(attribute).unwrap_or(Comparison::TypeMismatch))
    }

    /// Upper bound on the work of comparing an attribute that is not an array.
    fn cost(&self, attribute: Attribute<'_>) -> u64 {
        let length = attribute.text().map_or(0, str::len);
        let is_searched = length <= MAX_SEARCHED_TEXT_BYTES;
        let length = length as u64;
        COMPARISON
            + match self {
                Self::Equals { texts, numbers, .. } => {
                    binary_search_steps(texts.len()) * (COMPARISON + length / 16) + binary_search_steps(numbers.len())
                }
                Self::Contains(needles) => {
                    let count = needles.texts.len() as u64;
                    // A needle that is longer than the attribute is rejected without a search.
                    count * (TEXT_SEARCH + length) + needles.bytes.min(count * length)
                }
                Self::StartsWith(affixes) | Self::EndsWith(affixes) => {
                    let count = affixes.texts.len() as u64;
                    count * COMPARISON + affixes.bytes.min(count * length) / 16
                }
                Self::Matches(regexes) => {
                    if is_searched {
                        regexes.cost(length)
                    } else {
                        0
                    }
                }
                Self::Before(_) | Self::After(_) => PARSING + length,
                Self::EqualVersion(versions) => {
                    version_parsing(length) + binary_search_steps(versions.len()) * version_comparison(length)
                }
                Self::Version(..) => version_parsing(length) + version_comparison(length),
                Self::Number(..) | Self::Exists => 0,
            }
    }

    /// Compares an attribute that is not an array. Returns `None` if the operator does not accept
    /// the type of the attribute.
    fn compare_scalar(&self, attribute: Attribute<'_>) -> Option<Comparison> {
        match self {
            Self::Equals { texts, numbers, includes_true, includes_false } => {
                if let Some(text) = attribute.text() {
                    return Some(texts.contains(text).into());
                }
                match attribute {
                    Attribute::Json(Value::Number(n)) => {
                        Some(n.as_f64().is_some_and(|n| contains_number(numbers, n)).into())
                    }
                    Attribute::Json(Value::Bool(true)) => Some((*includes_true).into()),
                    Attribute::Json(Value::Bool(false)) => Some((*includes_false).into()),
                    _ => None,
                }
            }
            Self::Contains(needles) => {
                attribute.text().map(|text| needles.texts.iter().any(|needle| text.contains(&**needle)).into())
            }
            Self::StartsWith(prefixes) => {
                attribute.text().map(|text| prefixes.texts.iter().any(|prefix| text.starts_with(&**prefix)).into())
            }
            Self::EndsWith(suffixes) => {
                attribute.text().map(|text| suffixes.texts.iter().any(|suffix| text.ends_with(&**suffix)).into())
            }
            Self::Matches(regexes) => attribute.text().map(|text| {
                if text.len() > MAX_SEARCHED_TEXT_BYTES { Comparison::TooLong } else { regexes.is_match(text).into() }
            }),
            Self::Number(compare, bound) => attribute.number().map(|number| compare(number, *bound).into()),
            Self::Before(bound) => attribute.instant().map(|at| (at < *bound).into()),
            Self::After(bound) => attribute.instant().map(|at| (at > *bound).into()),
            Self::EqualVersion(versions) => {
                let version = version(attribute)?;
                Some(versions.binary_search_by(|candidate| candidate.cmp_precedence(&version)).is_ok().into())
            }
            Self::Version(judge, bound) => Some(judge(version(attribute)?.cmp_precedence(bound)).into()),
            Self::Exists => Some(Comparison::Matched),
        }
    }
}

/// Cost of parsing a version of `length` bytes, which validates each identifier.
const fn version_parsing(length: u64) -> u64 {
    PARSING + 10 * length
}

/// Cost of comparing the precedence of a version of `length` bytes, identifier by identifier.
const fn version_comparison(length: u64) -> u64 {
    COMPARISON + 6 * length
}

fn version(attribute: Attribute<'_>) -> Option<Version> {
    attribute.text().and_then(parse_version)
}

/// Returns whether `numbers`, sorted by `total_cmp`, contain `number`. Adding 0.0 turns -0.0 into
/// 0.0, because `total_cmp` distinguishes them.
fn contains_number(numbers: &[f64], number: f64) -> bool {
    numbers.binary_search_by(|candidate| candidate.total_cmp(&(number + 0.0))).is_ok()
}

/// Maximum number of comparisons of a binary search.
pub(super) const fn binary_search_steps(count: usize) -> u64 {
    (usize::BITS - count.leading_zeros()) as u64
}
