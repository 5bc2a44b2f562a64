//! SQL types that the two databases represent differently, and their Rust equivalents.
//!
//! | SQL type | Rust type | PostgreSQL | SQLite |
//! |---|---|---|---|
//! | [`Instant`] | [`DbInstant`] | `timestamptz` | `INTEGER`, microseconds since 1970-01-01T00:00:00Z |
//! | [`Id`] | [`DbUuid`] | `uuid` | `BLOB`, 16 bytes |
//! | [`Doc`] | [`DbJson`] | `jsonb` | `TEXT` |

use std::io::Write as _;

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    query_builder::QueryId,
    serialize::{self, IsNull, Output, ToSql},
    sql_types::{BigInt, Binary, SqlType, Text},
    sqlite::{Sqlite, SqliteValue},
};
use flags_domain as domain;
use serde_json::{Number, Value};

/// SQL type for points in time, with microsecond precision.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Long"))]
pub struct Instant;

/// SQL type for UUIDs.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 2950, array_oid = 2951))]
#[diesel(sqlite_type(name = "Binary"))]
pub struct Id;

/// SQL type for JSON values.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 3802, array_oid = 3807))]
#[diesel(sqlite_type(name = "Text"))]
pub struct Doc;

/// Database representation of [`domain::Instant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Instant)]
pub struct DbInstant(pub domain::Instant);

/// Database representation of [`uuid::Uuid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Id)]
pub struct DbUuid(pub uuid::Uuid);

/// Database representation of [`serde_json::Value`].
#[derive(Clone, Debug, PartialEq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Doc)]
pub struct DbJson(pub Value);

/// PostgreSQL's epoch, 2000-01-01T00:00:00Z, in microseconds since 1970-01-01T00:00:00Z.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl ToSql<Instant, Pg> for DbInstant {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = self.0.as_micros() - POSTGRES_EPOCH_MICROS;
        out.write_all(&micros.to_be_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Pg> for DbInstant {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let micros = i64::from_be_bytes(value.as_bytes().try_into()?);
        Ok(Self(domain::Instant::from_micros(micros.saturating_add(POSTGRES_EPOCH_MICROS))))
    }
}

impl ToSql<Instant, Sqlite> for DbInstant {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.as_micros());
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Sqlite> for DbInstant {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let micros = <i64 as FromSql<BigInt, Sqlite>>::from_sql(value)?;
        Ok(Self(domain::Instant::from_micros(micros)))
    }
}

impl ToSql<Id, Pg> for DbUuid {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Id, Pg> for DbUuid {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(uuid::Uuid::from_slice(value.as_bytes())?))
    }
}

impl ToSql<Id, Sqlite> for DbUuid {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.as_bytes().as_slice());
        Ok(IsNull::No)
    }
}

impl FromSql<Id, Sqlite> for DbUuid {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(value)?;
        Ok(Self(uuid::Uuid::from_slice(&bytes)?))
    }
}

/// Version byte that precedes the text in PostgreSQL's binary format of `jsonb`.
const JSONB_VERSION: u8 = 1;

impl ToSql<Doc, Pg> for DbJson {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[JSONB_VERSION])?;
        serde_json::to_writer(out, &self.0)?;
        Ok(IsNull::No)
    }
}

impl FromSql<Doc, Pg> for DbJson {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes().split_first() {
            Some((&JSONB_VERSION, text)) => read_json(text),
            _ => Err("unknown jsonb version".into()),
        }
    }
}

impl ToSql<Doc, Sqlite> for DbJson {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.to_string());
        Ok(IsNull::No)
    }
}

impl FromSql<Doc, Sqlite> for DbJson {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
        read_json(text.as_bytes())
    }
}

fn read_json(text: &[u8]) -> deserialize::Result<DbJson> {
    let mut value = serde_json::from_slice(text)?;
    restore_floats(&mut value);
    Ok(DbJson(value))
}

/// JSON value that may be invalid because another program wrote it. An invalid value decodes to an
/// error message, so that the other rows of the query can still be read.
#[derive(Clone, Debug, PartialEq, FromSqlRow, AsExpression)]
#[diesel(sql_type = Doc)]
pub(crate) struct LenientJson(std::result::Result<DbJson, String>);

impl LenientJson {
    /// Returns the value, or the message of the decoding error.
    pub(crate) fn into_result(self) -> std::result::Result<Value, String> {
        self.0.map(|json| json.0)
    }
}

impl From<Value> for LenientJson {
    fn from(value: Value) -> Self {
        Self(Ok(DbJson(value)))
    }
}

impl<DB: diesel::backend::Backend> FromSql<Doc, DB> for LenientJson
where
    DbJson: FromSql<Doc, DB>,
{
    fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(DbJson::from_sql(value).map_err(|error| error.to_string())))
    }
}

impl<DB: diesel::backend::Backend> ToSql<Doc, DB> for LenientJson
where
    DbJson: ToSql<Doc, DB>,
{
    /// Fails for a value that could not be decoded.
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        match &self.0 {
            Ok(json) => json.to_sql(out),
            Err(error) => Err(error.as_str().into()),
        }
    }
}

/// Converts integers beyond ±2^53 back to doubles.
///
/// `jsonb` stores the double `1e17` as an integer. Input validation rejects integers beyond ±2^53, so a larger integer
/// in the database must have been a double.
fn restore_floats(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let oversized = number.as_i64().map_or(number.is_u64(), |n| n.unsigned_abs() > domain::MAX_INTEGER);
            if let Some(float) = number.as_f64().filter(|_| oversized).and_then(Number::from_f64) {
                *number = float;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(restore_floats),
        Value::Object(fields) => fields.values_mut().for_each(restore_floats),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_doubles_are_read_back_as_doubles() {
        let DbJson(value) =
            read_json(b"[100000000000000000, 9007199254740992, -3, {\"a\": 18000000000000000000}]").unwrap();
        assert_eq!(value.to_string(), r#"[1e+17,9007199254740992,-3,{"a":1.8e+19}]"#);
    }
}
