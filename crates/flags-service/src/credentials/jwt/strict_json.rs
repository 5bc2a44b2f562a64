//! JSON parsing that rejects duplicate names. Parsers disagree on which of the duplicates counts,
//! and an attacker could exploit the difference.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, map::Entry};

/// Parses a JSON object. Returns `None` for invalid JSON, other types, and duplicate names at any depth.
pub(super) fn parse_object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(json) {
        Ok(StrictValue(Value::Object(fields))) => Some(fields),
        Ok(_) | Err(_) => None,
    }
}

struct StrictValue(Value);

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, StrictValue(value))) = access.next_entry()? {
            match fields.entry::<String>(name) {
                Entry::Vacant(entry) => _ = entry.insert(value),
                Entry::Occupied(_) => return Err(A::Error::custom("duplicate name")),
            }
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(StrictValue(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parses_objects_like_serde_json() {
        let text = r#" {"a": [1, -2, 2.5, true, null, "x", {"b": {}}], "c": 18446744073709551615} "#;
        assert_eq!(parse_object(text.as_bytes()).map(Value::Object), serde_json::from_str(text).ok());
        assert_eq!(parse_object(b"{}").map(Value::Object), Some(json!({})));
    }

    #[test]
    fn rejects_non_objects_and_duplicate_names() {
        for text in [
            "",
            "[]",
            "null",
            "1",
            "{",
            r#"{"a": 1} x"#,
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"{"a": [{"b": 1, "b": 2}]}"#,
            r#"{"a": 1e999}"#,
            r#"{"a": NaN}"#,
        ] {
            assert!(parse_object(text.as_bytes()).is_none(), "{text}");
        }
        assert!(parse_object(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}']).is_none());
        assert!(parse_object("[".repeat(100_000).as_bytes()).is_none());
    }
}
