//! What a layer serves: one variant, or a split by weights.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, Serializer, de::Error as _};

use crate::{
    bucket::BUCKETS,
    violation::{Violation, check_key},
};

/// Longest attribute name, in characters.
pub const MAX_ATTRIBUTE_LENGTH: usize = 255;

/// What a flag's default, a targeting rule or a scheduled change serves.
///
/// As JSON `{"variant": "on"}` or `{"weights": {"control": 80, "treatment": 20}, "bucket_by": "company"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawServe", into = "RawServe")]
pub enum Serve {
    /// One variant for everybody.
    Variant(String),
    /// A variant for each by weight.
    Split {
        /// Share of each variant; together 100 %. Variants that are not named have none.
        weights: BTreeMap<String, Weight>,
        /// The attribute whose value is hashed; the targeting key if `None`.
        bucket_by: Option<String>,
    },
}

/// A percentage in whole thousandths: `12.5` % is `Weight(12_500)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

/// The number is no percentage of 0 to 100 with at most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a weight must be a percentage from 0 to 100 with at most three decimals")]
pub struct InvalidWeight;

impl Weight {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(BUCKETS);

    /// A weight of so many thousandths of a percent, at most 100,000.
    pub const fn from_thousandths(thousandths: u32) -> Result<Self, InvalidWeight> {
        if thousandths <= BUCKETS { Ok(Self(thousandths)) } else { Err(InvalidWeight) }
    }

    /// Reads a percentage.
    pub fn from_percent(percent: f64) -> Result<Self, InvalidWeight> {
        let thousandths = (percent * 1_000.0).round();
        let exact = (percent * 1_000.0 - thousandths).abs() < 1e-6;
        let within = (0.0..=f64::from(BUCKETS)).contains(&thousandths);
        if exact && within { Ok(Self(thousandths as u32)) } else { Err(InvalidWeight) }
    }

    /// Thousandths of a percent.
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
    /// As a percentage; whole ones without a fraction.
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
    /// The variants it names.
    pub fn variants(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Self::Variant(variant) => (Some(variant.as_str()), None),
            Self::Split { weights, .. } => (None, Some(weights.keys().map(String::as_str))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// What is wrong with it for a flag that has the variants `is_variant` tells.
    pub fn check(&self, pointer: &str, is_variant: impl Fn(&str) -> bool) -> Vec<Violation> {
        let unknown = |at: String, id: &str| {
            Violation::new(at, "unknown_variant", format!("the flag has no variant {id:?}; name one of its variants"))
        };
        let mut found = Vec::new();
        match self {
            Self::Variant(id) => {
                if !is_variant(id) {
                    found.push(unknown(format!("{pointer}/variant"), id));
                }
            }
            Self::Split { weights, bucket_by } => {
                let at = format!("{pointer}/weights");
                found.extend(weights.keys().filter(|id| !is_variant(id)).map(|id| unknown(at.clone(), id)));
                let total: u64 = weights.values().map(|w| u64::from(w.thousandths())).sum();
                if total != u64::from(BUCKETS) {
                    let detail = format!("weights must add up to 100, not {}.{:03}", total / 1_000, total % 1_000);
                    found.push(Violation::new(at, "invalid_weights", detail));
                }
                if let Some(attribute) = bucket_by {
                    found.extend(check_key(&format!("{pointer}/bucket_by"), attribute, MAX_ATTRIBUTE_LENGTH));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Serve, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn weights_keep_three_decimals_exactly() {
        let serve = read(json!({"weights": {"a": 33.333, "b": 66.667}})).unwrap();
        assert_eq!(serve.check("", |_| true), []);
        assert_eq!(serde_json::to_value(&serve).unwrap(), json!({"weights": {"a": 33.333, "b": 66.667}}));
        let whole = read(json!({"weights": {"a": 100.0}, "bucket_by": "company"})).unwrap();
        assert_eq!(serde_json::to_value(&whole).unwrap(), json!({"weights": {"a": 100}, "bucket_by": "company"}));
    }

    #[test]
    fn a_serve_of_the_wrong_shape_is_refused() {
        for bad in [
            json!({}),
            json!({"variant": "a", "weights": {"a": 100}}),
            json!({"variant": "a", "bucket_by": "x"}),
            json!({"weights": {"a": 0.0001, "b": 99.9999}}),
            json!({"weights": {"a": -1, "b": 101}}),
            json!({"variant": "a", "extra": 1}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn violations_name_the_field() {
        let codes = |serve: Value| {
            let is_variant = |id: &str| id == "a" || id == "b";
            let found = read(serve).unwrap().check("/default", is_variant);
            found.into_iter().map(|v| (v.pointer, v.code)).collect::<Vec<_>>()
        };
        assert_eq!(codes(json!({"variant": "z"})), [("/default/variant".into(), "unknown_variant")]);
        assert_eq!(codes(json!({"weights": {"a": 50, "b": 49.999}})), [("/default/weights".into(), "invalid_weights")]);
        assert_eq!(codes(json!({"weights": {"a": 50, "z": 50}})), [("/default/weights".into(), "unknown_variant")]);
        assert_eq!(codes(json!({"weights": {"a": 100}, "bucket_by": ""})), [("/default/bucket_by".into(), "empty")]);
    }
}
