//! What a flag serves: one variant, or a percentage split.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, Serializer, de::Error as _};

use crate::{
    bucket::BUCKETS,
    violation::{Violation, check_key},
};

/// Maximum length of an attribute name, in characters.
pub const MAX_ATTRIBUTE_LENGTH: usize = 255;

/// What a flag's default, a targeting rule or a scheduled change serves: one variant, or a
/// percentage split.
///
/// In JSON, `{"variant": "on"}` or `{"weights": {"control": 80, "treatment": 20}, "bucket_by":
/// "company"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawServe", into = "RawServe")]
pub enum Serve {
    /// The variant with this id for every context.
    Variant(String),
    /// Percentage split: the bucket of the context selects the variant. See [`bucket`](mod@crate::bucket).
    Split {
        /// Share of each variant, by variant id. The shares sum to 100 %. Variants that are not listed have 0 %.
        weights: BTreeMap<String, Weight>,
        /// Name of the attribute whose value is hashed; the targeting key if `None`. Text and integers can be hashed. A
        /// context without a value to hash gets the first variant with a weight above 0.
        bucket_by: Option<String>,
    },
}

/// A percentage from 0 to 100 in steps of 0.001.
///
/// The JSON form is a number in percent, such as `12.5`.
///
/// ```
/// use flags_domain::Weight;
///
/// assert_eq!(Weight::from_percent(12.5)?.thousandths(), 12_500);
/// assert!(Weight::from_percent(0.0001).is_err());
/// # Ok::<(), flags_domain::InvalidWeight>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

/// Error for a number that is not a percentage from 0 to 100 with at most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a weight must be a percentage from 0 to 100 with at most three decimals")]
pub struct InvalidWeight;

impl Weight {
    /// 0 %.
    pub const ZERO: Self = Self(0);
    /// 100 %.
    pub const FULL: Self = Self(BUCKETS);

    /// Creates a weight from thousandths of a percent, `0..=100_000`.
    pub const fn from_thousandths(thousandths: u32) -> Result<Self, InvalidWeight> {
        if thousandths <= BUCKETS { Ok(Self(thousandths)) } else { Err(InvalidWeight) }
    }

    /// Creates a weight from a percentage, 0 to 100 with at most three decimals.
    pub fn from_percent(percent: f64) -> Result<Self, InvalidWeight> {
        let thousandths = (percent * 1_000.0).round();
        let is_whole = (percent * 1_000.0 - thousandths).abs() < 1e-6;
        let is_in_range = (0.0..=f64::from(BUCKETS)).contains(&thousandths);
        if is_whole && is_in_range { Ok(Self(thousandths as u32)) } else { Err(InvalidWeight) }
    }

    /// Weight in thousandths of a percent, `0..=100_000`.
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 1_000.0)
    }
}

impl Serialize for Weight {
    /// Writes a percentage, as a JSON integer if it has no fraction.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1_000) {
            serializer.serialize_u32(self.0 / 1_000)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 1_000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_percent(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServe {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<BTreeMap<String, Weight>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bucket_by: Option<String>,
}

impl TryFrom<RawServe> for Serve {
    type Error = &'static str;

    fn try_from(raw: RawServe) -> Result<Self, Self::Error> {
        match raw {
            RawServe { variant: Some(variant), weights: None, bucket_by: None } => Ok(Self::Variant(variant)),
            RawServe { variant: None, weights: Some(weights), bucket_by } => Ok(Self::Split { weights, bucket_by }),
            _ => Err("must have either `variant` alone, or `weights` with an optional `bucket_by`"),
        }
    }
}

impl From<Serve> for RawServe {
    fn from(serve: Serve) -> Self {
        match serve {
            Serve::Variant(variant) => Self { variant: Some(variant), weights: None, bucket_by: None },
            Serve::Split { weights, bucket_by } => Self { variant: None, weights: Some(weights), bucket_by },
        }
    }
}

impl Serve {
    /// Ids of the referenced variants.
    pub fn variant_ids(&self) -> impl Iterator<Item = &str> {
        let (single, weighted) = match self {
            Self::Variant(variant) => (Some(variant.as_str()), None),
            Self::Split { weights, .. } => (None, Some(weights.keys().map(String::as_str))),
        };
        single.into_iter().chain(weighted.into_iter().flatten())
    }

    /// Returns all violations, with pointers that start with `pointer`. `has_variant` returns whether the flag has a
    /// variant with the given id.
    pub fn check(&self, pointer: &str, has_variant: impl Fn(&str) -> bool) -> Vec<Violation> {
        let unknown = |at: String, id: &str| {
            let detail = format!("the flag has no variant {id:?}; use the id of one of its variants");
            Violation::new(at, "unknown_variant", detail)
        };
        let mut violations = Vec::new();
        match self {
            Self::Variant(id) => {
                if !has_variant(id) {
                    violations.push(unknown(format!("{pointer}/variant"), id));
                }
            }
            Self::Split { weights, bucket_by } => {
                let at = format!("{pointer}/weights");
                violations.extend(weights.keys().filter(|id| !has_variant(id)).map(|id| unknown(at.clone(), id)));
                let total: u64 = weights.values().map(|w| u64::from(w.thousandths())).sum();
                if total != u64::from(BUCKETS) {
                    let detail = format!("weights must sum to 100 (got {})", total as f64 / 1_000.0);
                    violations.push(Violation::new(at, "invalid_weights", detail));
                }
                if let Some(attribute) = bucket_by {
                    violations.extend(check_key(&format!("{pointer}/bucket_by"), attribute, MAX_ATTRIBUTE_LENGTH));
                }
            }
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(value: Value) -> Result<Serve, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn weights_preserve_three_decimals_exactly() {
        let serve = parse(json!({"weights": {"a": 33.333, "b": 66.667}})).unwrap();
        assert_eq!(serve.check("", |_| true), []);
        assert_eq!(serde_json::to_value(&serve).unwrap(), json!({"weights": {"a": 33.333, "b": 66.667}}));
        let whole = parse(json!({"weights": {"a": 100.0}, "bucket_by": "company"})).unwrap();
        assert_eq!(serde_json::to_value(&whole).unwrap(), json!({"weights": {"a": 100}, "bucket_by": "company"}));
    }

    #[test]
    fn rejects_malformed_serve_json() {
        for invalid in [
            json!({}),
            json!({"variant": "a", "weights": {"a": 100}}),
            json!({"variant": "a", "bucket_by": "x"}),
            json!({"weights": {"a": 0.0001, "b": 99.9999}}),
            json!({"weights": {"a": -1, "b": 101}}),
            json!({"variant": "a", "extra": 1}),
        ] {
            assert!(parse(invalid.clone()).is_err(), "{invalid}");
        }
    }

    #[test]
    fn violations_point_to_the_invalid_field() {
        let codes = |serve: Value| {
            let has_variant = |id: &str| id == "a" || id == "b";
            let violations = parse(serve).unwrap().check("/default", has_variant);
            violations.into_iter().map(|v| (v.pointer, v.code)).collect::<Vec<_>>()
        };
        assert_eq!(codes(json!({"variant": "z"})), [("/default/variant".into(), "unknown_variant")]);
        assert_eq!(codes(json!({"weights": {"a": 50, "b": 49.999}})), [("/default/weights".into(), "invalid_weights")]);
        assert_eq!(codes(json!({"weights": {"a": 50, "z": 50}})), [("/default/weights".into(), "unknown_variant")]);
        assert_eq!(codes(json!({"weights": {"a": 100}, "bucket_by": ""})), [("/default/bucket_by".into(), "empty")]);
    }
}
