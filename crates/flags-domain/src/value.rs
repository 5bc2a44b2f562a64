//! Values of flags and their types.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::violation::Violation;

/// Largest JSON text of one value, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Deepest nesting of one value: a scalar has depth 1, `[1]` depth 2.
pub const MAX_VALUE_DEPTH: usize = 32;
/// Largest magnitude of an integer: 2^53, up to which doubles, and so JavaScript, hold every integer exactly.
pub const MAX_INTEGER: u64 = 1 << 53;

/// What kind of value a flag has. Every variant value and every override value must be of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlagType {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A finite double.
    Number,
    /// Any JSON, `null` included.
    Json,
}

impl FlagType {
    /// The type's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Number => "number",
            Self::Json => "json",
        }
    }

    /// Reads the type's name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Boolean, Self::String, Self::Number, Self::Json].into_iter().find(|t| t.as_str() == text)
    }

    /// Whether `value` is of this type.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Json => true,
        }
    }

    /// Checks that `value` is of this type and within the limits of a value.
    pub fn check(self, pointer: &str, value: &Value) -> Result<(), Violation> {
        if !self.accepts(value) {
            let detail = format!("must be a {self} value, as the flag is of type {self}");
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

/// Checks any JSON that is to be stored: no NUL, no integer beyond ±2^53, not too deep and not too large.
pub fn check_json(pointer: &str, value: &Value, max_bytes: usize, max_depth: usize) -> Result<(), Violation> {
    check_parts(pointer, value, max_depth)?;
    if value.to_string().len() > max_bytes {
        return Err(Violation::new(pointer, "too_large", format!("must have at most {max_bytes} bytes as JSON text")));
    }
    Ok(())
}

/// Whether a value is nested more levels deep than this; a scalar has one level.
pub fn is_deeper_than(value: &Value, levels: usize) -> bool {
    let Some(left) = levels.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper_than(item, left)),
        Value::Object(fields) => fields.values().any(|item| is_deeper_than(item, left)),
        _ => false,
    }
}

fn check_parts(pointer: &str, value: &Value, depth_left: usize) -> Result<(), Violation> {
    let nul = || Violation::new(pointer, "nul_character", "must not contain the NUL character");
    if depth_left == 0 {
        return Err(Violation::new(
            pointer,
            "too_deep",
            format!("must be nested at most {MAX_VALUE_DEPTH} levels deep"),
        ));
    }
    match value {
        Value::String(text) if text.contains('\0') => Err(nul()),
        Value::Number(number) if is_oversized_integer(number) => {
            Err(Violation::new(pointer, "number_out_of_range", "integers must lie within ±9007199254740992 (2^53)"))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_parts(pointer, item, depth_left - 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, item)| {
            if key.contains('\0') { Err(nul()) } else { check_parts(pointer, item, depth_left - 1) }
        }),
        _ => Ok(()),
    }
}

fn is_oversized_integer(number: &Number) -> bool {
    number.as_u64().is_some_and(|n| n > MAX_INTEGER) || number.as_i64().is_some_and(|n| n.unsigned_abs() > MAX_INTEGER)
}

/// Whether two values are the same, where 1 equals 1.0 (at any depth).
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

/// A value together with its JSON text, so that answers need not serialise it again.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedValue {
    value: Value,
    json: Box<str>,
}

impl PreparedValue {
    /// Prepares the JSON text.
    pub fn new(value: Value) -> Self {
        let json = value.to_string().into_boxed_str();
        Self { value, json }
    }

    /// The value.
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// The value as JSON text.
    pub const fn json(&self) -> &str {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_type_accepts_its_own_values_only() {
        let values = [json!(true), json!("a"), json!(1), json!(1.5), json!(null), json!([1]), json!({"a": 1})];
        let accepted = |t: FlagType| values.iter().map(|v| t.accepts(v)).collect::<Vec<_>>();
        assert_eq!(accepted(FlagType::Boolean), [true, false, false, false, false, false, false]);
        assert_eq!(accepted(FlagType::String), [false, true, false, false, false, false, false]);
        assert_eq!(accepted(FlagType::Number), [false, false, true, true, false, false, false]);
        assert_eq!(accepted(FlagType::Json), [true; 7]);
    }

    #[test]
    fn limits_of_a_value() {
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
    fn numbers_are_the_same_however_written() {
        assert!(same_value(&json!(1), &json!(1.0)));
        assert!(same_value(&json!({"a": [1, 2]}), &json!({"a": [1.0, 2]})));
        assert!(!same_value(&json!(1), &json!(true)));
        assert!(!same_value(&json!([1]), &json!([1, 1])));
        assert!(!same_value(&json!({"a": 1}), &json!({"b": 1})));
    }
}
