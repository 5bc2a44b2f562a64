//! Serialization of wire types.

use serde::Serialize;

/// Serializes a wire type to JSON text.
#[expect(clippy::expect_used, reason = "wire types have string keys and no serialization code that can fail")]
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("wire types can be serialized")
}
