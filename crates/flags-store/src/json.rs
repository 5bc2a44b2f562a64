//! Conversions between domain values and their JSON in the database.

use flags_domain::{FlagName, decode_field};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::{Result, StoreError};

/// Encodes a domain value as JSON for the database.
#[expect(
    clippy::expect_used,
    reason = "serialization cannot fail: the maps in domain types have string keys and the numbers are finite"
)]
pub(crate) fn to_json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("domain types can be represented as JSON")
}

/// Decodes a JSON value from the database. The error names the table and the location below `column`.
pub(crate) fn from_json<T: DeserializeOwned>(table: &str, column: &str, value: &Value) -> Result<T> {
    decode_field(column, value).map_err(|error| StoreError::corrupt(table, error))
}

/// Validates a flag name from the database.
pub(crate) fn parse_flag_name(text: &str) -> Result<FlagName> {
    FlagName::new(text).map_err(|_| StoreError::corrupt("invalid flag name", text))
}
