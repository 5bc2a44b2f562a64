//! Flag values and their types.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::violation::Violation;

/// Maximum size of one value, in bytes of JSON text.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Maximum nesting depth of one value, in levels. A scalar has 1 level, `[1]` has 2.
pub const MAX_VALUE_DEPTH: usize = 32;
/// Maximum absolute value of an integer: 2^53. Doubles, and therefore JavaScript numbers, represent every integer up to
/// it exactly.
pub const MAX_INTEGER: u64 = 1 << 53;

/// Type of all variant and override values of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlagType {
    /// `true` or `false`.
    Boolean,
    /// A JSON string.
    String,
    /// A JSON number, read as a finite double.
    Number,
    /// Any JSON value, including `null`.
    Json,
}

impl FlagType {
    /// Name of the type in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Number => "number",
            Self::Json => "json",
        }
    }

    /// Returns the type with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Boolean, Self::String, Self::Number, Self::Json].into_iter().find(|t| t.as_str() == text)
    }

    /// Returns whether `value` has this type.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Json => true,
        }
    }

    /// Checks that `value` has this type and is within [`MAX_VALUE_BYTES`], [`MAX_VALUE_DEPTH`] and [`MAX_INTEGER`].
    pub fn check(self, pointer: &str, value: &Value) -> Result<(), Violation> {
        if !self.accepts(value) {
            let detail = format!("must be a {self} value because the flag has type {self}");
            return Err(Violation::new(pointer, "value_type_mismatch", detail));
        }
        check_json(pointer, value, MAX_VALUE_BYTES, MAX_VALUE_DEPTH)
    }
}

impl fmt::Display for FlagType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checks JSON before it is stored: no NUL character, integers within ±2^53, and at most `max_bytes` of JSON text and
/// `max_depth` levels of nesting. Returns the first violation.
pub fn check_json(pointer: &str, value: &Value, max_bytes: usize, max_depth: usize) -> Result<(), Violation> {
    if is_deeper_than(value, max_depth) {
        return Err(Violation::new(pointer, "too_deep", format!("must not exceed {max_depth} levels of nesting")));
    }
    check_content(pointer, value)?;
    if value.to_string().len() > max_bytes {
        return Err(Violation::new(pointer, "too_large", format!("must not exceed {max_bytes} bytes as JSON")));
    }
    Ok(())
}

/// Returns whether `value` has more than `levels` levels of nesting. A scalar has 1 level, `[1]` has 2.
pub fn is_deeper_than(value: &Value, levels: usize) -> bool {
    let Some(remaining) = levels.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper_than(item, remaining)),
        Value::Object(fields) => fields.values().any(|item| is_deeper_than(item, remaining)),
        _ => false,
    }
}

/// Rejects NUL characters in strings and keys, and integers beyond ±2^53, at any depth.
fn check_content(pointer: &str, value: &Value) -> Result<(), Violation> {
    let nul = || Violation::new(pointer, "nul_character", "must not contain the NUL character");
    match value {
        Value::String(text) if text.contains('\0') => Err(nul()),
        Value::Number(number) if is_oversized_integer(number) => {
            Err(Violation::new(pointer, "number_out_of_range", "integers must be within ±9007199254740992 (2^53)"))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_content(pointer, item)),
        Value::Object(fields) => fields
            .iter()
            .try_for_each(|(key, item)| if key.contains('\0') { Err(nul()) } else { check_content(pointer, item) }),
        _ => Ok(()),
    }
}

fn is_oversized_integer(number: &Number) -> bool {
    number.as_u64().is_some_and(|n| n > MAX_INTEGER) || number.as_i64().is_some_and(|n| n.unsigned_abs() > MAX_INTEGER)
}

/// Returns whether two JSON values are equal. Numbers are compared by value at any depth: `1` equals `1.0`. The order
/// of object keys is ignored.
pub fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_value(a, b)))
        }
        _ => a == b,
    }
}

/// A JSON value with its JSON text, which responses can include without serializing the value again.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedValue {
    value: Value,
    json: Box<str>,
}

impl PreparedValue {
    /// Serializes `value` once.
    pub fn new(value: Value) -> Self {
        let json = value.to_string().into_boxed_str();
        Self { value, json }
    }

    /// The JSON value.
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// Compact JSON text of the value.
    pub const fn json(&self) -> &str {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_type_accepts_only_its_values() {
        let values = [json!(true), json!("a"), json!(1), json!(1.5), json!(null), json!([1]), json!({"a": 1})];
        let accepted = |t: FlagType| values.iter().map(|v| t.accepts(v)).collect::<Vec<_>>();
        assert_eq!(accepted(FlagType::Boolean), [true, false, false, false, false, false, false]);
        assert_eq!(accepted(FlagType::String), [false, true, false, false, false, false, false]);
        assert_eq!(accepted(FlagType::Number), [false, false, true, true, false, false, false]);
        assert_eq!(accepted(FlagType::Json), [true; 7]);
    }

    #[test]
    fn check_enforces_value_limits() {
        let code = |value: Value| FlagType::Json.check("/v", &value).err().map(|v| v.code);
        let nested = |levels: usize| (1..levels).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(code(nested(32)), None);
        assert_eq!(code(nested(33)), Some("too_deep"));
        assert!(!is_deeper_than(&nested(32), 32) && is_deeper_than(&nested(33), 32));
        assert!(is_deeper_than(&json!({"a": {"b": [1]}}), 3) && !is_deeper_than(&json!({"a": {"b": [1]}}), 4));
        assert_eq!(code(json!("a".repeat(MAX_VALUE_BYTES - 2))), None);
        assert_eq!(code(json!("a".repeat(MAX_VALUE_BYTES - 1))), Some("too_large"));
        assert_eq!(code(json!({"a": ["x\0"]})), Some("nul_character"));
        assert_eq!(code(json!({"a\0": 1})), Some("nul_character"));
        assert_eq!(code(json!(9_007_199_254_740_992_i64)), None);
        assert_eq!(code(json!(-9_007_199_254_740_993_i64)), Some("number_out_of_range"));
        assert_eq!(code(json!([9_007_199_254_740_993_u64])), Some("number_out_of_range"));
        assert_eq!(code(json!(1e300)), None);
    }

    #[test]
    fn size_and_depth_errors_state_the_limits_passed_by_the_caller() {
        let detail = |value| check_json("/v", &value, 4, 2).unwrap_err().detail;
        assert_eq!(detail(json!([[1]])), "must not exceed 2 levels of nesting");
        assert_eq!(detail(json!("abc")), "must not exceed 4 bytes as JSON");
    }

    #[test]
    fn same_value_compares_numbers_by_value() {
        assert!(same_value(&json!(1), &json!(1.0)));
        assert!(same_value(&json!({"a": [1, 2]}), &json!({"a": [1.0, 2]})));
        assert!(!same_value(&json!(1), &json!(true)));
        assert!(!same_value(&json!([1]), &json!([1, 1])));
        assert!(!same_value(&json!({"a": 1}), &json!({"b": 1})));
    }
}
