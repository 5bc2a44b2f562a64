//! The three SQL types in which the databases differ, each native on both sides, and what they hold in Rust.
//!
//! | here | PostgreSQL | SQLite |
//! |---|---|---|
//! | [`Instant`] | `timestamptz` | `INTEGER`, microseconds since 1970 |
//! | [`Id`] | `uuid` | `BLOB`, 16 bytes |
//! | [`Doc`] | `jsonb` | `TEXT` |

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

/// SQL type of points in time.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Long"))]
pub struct Instant;

/// SQL type of UUIDs.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 2950, array_oid = 2951))]
#[diesel(sqlite_type(name = "Binary"))]
pub struct Id;

/// SQL type of JSON documents.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 3802, array_oid = 3807))]
#[diesel(sqlite_type(name = "Text"))]
pub struct Doc;

/// A point in time as it goes to and comes from a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Instant)]
pub struct DbInstant(pub domain::Instant);

/// A UUID as it goes to and comes from a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Id)]
pub struct DbUuid(pub uuid::Uuid);

/// A JSON document as it goes to and comes from a database.
#[derive(Clone, Debug, PartialEq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Doc)]
pub struct DbJson(pub Value);

/// Microseconds from 1970 to 2000, PostgreSQL's epoch.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl ToSql<Instant, Pg> for DbInstant {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = self.0.as_micros() - POSTGRES_EPOCH;
        out.write_all(&micros.to_be_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Pg> for DbInstant {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let micros = i64::from_be_bytes(value.as_bytes().try_into()?);
        Ok(Self(domain::Instant::from_micros(micros.saturating_add(POSTGRES_EPOCH))))
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

/// The version byte before the text of a `jsonb` on the wire.
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
            _ => Err("unknown version of jsonb".into()),
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

/// A document that others may have written: if it cannot be read, that is told with its row and takes no other down.
#[derive(Clone, Debug, PartialEq, FromSqlRow, AsExpression)]
#[diesel(sql_type = Doc)]
pub(crate) struct LenientJson(pub(crate) std::result::Result<Value, String>);

impl<DB: diesel::backend::Backend> FromSql<Doc, DB> for LenientJson
where
    DbJson: FromSql<Doc, DB>,
{
    fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(DbJson::from_sql(value).map(|json| json.0).map_err(|error| error.to_string())))
    }
}

/// `jsonb` writes the double 1e17 as an integer. Integers beyond ±2^53 are refused at the door, so one that comes out of
/// the database was a double.
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
    fn large_doubles_come_back_as_doubles() {
        let DbJson(value) =
            read_json(b"[100000000000000000, 9007199254740992, -3, {\"a\": 18000000000000000000}]").unwrap();
        assert_eq!(value.to_string(), r#"[1e+17,9007199254740992,-3,{"a":1.8e+19}]"#);
    }
}
