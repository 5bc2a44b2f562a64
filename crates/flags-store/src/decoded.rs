//! Decodes rows one by one, so that one unreadable row does not fail the whole query.
//!
//! Other programs, newer versions of this program and damaged files may leave values in the
//! database that this version cannot read. On SQLite, a column of any type may contain a value of
//! any storage class, and diesel would silently convert the value.

use std::{collections::BTreeSet, fmt};

use diesel::{
    backend::Backend,
    deserialize::{self, FromSqlRow, StaticallySizedRow},
    expression::QueryMetadata,
    pg::Pg,
    result::UnexpectedNullError,
    row::{Field as _, Row},
    sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text},
    sqlite::{Sqlite, SqliteType},
};
use parking_lot::Mutex;

use crate::{
    error::{Result, StoreError},
    sql_types::{Doc, Id, Instant},
};

/// A decoded row or column, or the reason why it cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Decoded<T>(std::result::Result<T, UnreadableRow>);

/// Reason why a row or column cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableRow {
    /// First column of the row, which is the key of most rows.
    key: String,
    /// Description of the problem.
    reason: String,
}

impl fmt::Display for UnreadableRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl<T> Decoded<T> {
    /// Returns the value, or an error that names the table. Logs a value that cannot be read.
    pub(crate) fn into_result(self, table: &'static str) -> Result<T> {
        self.0.map_err(|error| {
            log_once(table, &error.key, &error.reason);
            StoreError::corrupt(table, error)
        })
    }

    /// Returns the value, or the reason why it cannot be read.
    pub(crate) fn into_value(self) -> std::result::Result<T, UnreadableRow> {
        self.0
    }

    /// Returns the value. Logs a value that cannot be read, and returns `None`.
    pub(crate) fn or_logged(self, table: &'static str) -> Option<T> {
        self.0.inspect_err(|error| log_once(table, &error.key, &error.reason)).ok()
    }
}

/// Returns the records of the rows that can be read. Logs the others.
pub(crate) fn readable<R, T>(table: &'static str, rows: Vec<Decoded<R>>) -> Vec<T>
where
    T: TryFrom<R, Error = StoreError>,
    R: RowKey,
{
    rows.into_iter().filter_map(|row| to_record(table, row.or_logged(table)?)).collect()
}

/// Converts a row. Logs a row that cannot be read, and returns `None`.
pub(crate) fn to_record<R, T>(table: &'static str, row: R) -> Option<T>
where
    T: TryFrom<R, Error = StoreError>,
    R: RowKey,
{
    let key = row.key();
    T::try_from(row).inspect_err(|error| log_once(table, &key, &error.to_string())).ok()
}

/// Row with a key that identifies it in the application log.
pub(crate) trait RowKey {
    /// Primary key, without personal data.
    fn key(&self) -> String;
}

/// Maximum number of unreadable rows that one process names in the application log.
const MAX_LOGGED_ROWS: usize = 1_000;

/// Writes an unreadable row to the application log, once per process.
pub(crate) fn log_once(table: &'static str, key: &str, reason: &str) {
    static LOGGED: Mutex<BTreeSet<(&str, String)>> = Mutex::new(BTreeSet::new());
    let mut logged = LOGGED.lock();
    if logged.len() < MAX_LOGGED_ROWS && logged.insert((table, format!("{key} {reason}"))) {
        tracing::error!(table, key, reason, "row cannot be read");
    }
}

/// Database-specific access to the raw values of a row.
pub(crate) trait RawRow: Backend {
    /// Returns the name of the first column whose value does not have the expected storage class.
    fn mistyped_column<'a, ST>(row: &impl Row<'a, Self>) -> Option<String>
    where
        Self: QueryMetadata<ST>;

    /// Returns the first column as text.
    fn key_text<'a>(row: &impl Row<'a, Self>) -> String;
}

impl RawRow for Pg {
    /// PostgreSQL checks the types itself.
    fn mistyped_column<'a, ST>(_: &impl Row<'a, Self>) -> Option<String> {
        None
    }

    fn key_text<'a>(row: &impl Row<'a, Self>) -> String {
        let field = row.get(0);
        let value = field.as_ref().and_then(|field| field.value());
        value.map_or_else(|| "NULL".to_owned(), |value| key_of_bytes(value.as_bytes()))
    }
}

impl RawRow for Sqlite {
    fn mistyped_column<'a, ST>(row: &impl Row<'a, Self>) -> Option<String>
    where
        Self: QueryMetadata<ST>,
    {
        let mut types = Vec::new();
        <Self as QueryMetadata<ST>>::row_metadata(&mut (), &mut types);
        types.iter().enumerate().find_map(|(index, expected)| {
            let field = row.get(index)?;
            let found = field.value()?.value_type()?;
            let is_expected = match expected.as_ref()? {
                SqliteType::Binary => matches!(found, SqliteType::Binary),
                SqliteType::Text => matches!(found, SqliteType::Text),
                SqliteType::Float | SqliteType::Double => matches!(found, SqliteType::Double),
                SqliteType::SmallInt | SqliteType::Integer | SqliteType::Long => matches!(found, SqliteType::Long),
            };
            (!is_expected).then(|| field.field_name().unwrap_or_default().to_owned())
        })
    }

    fn key_text<'a>(row: &impl Row<'a, Self>) -> String {
        let field = row.get(0);
        match field.as_ref().and_then(|field| field.value()) {
            None => "NULL".to_owned(),
            Some(mut value) => match value.value_type() {
                Some(SqliteType::Binary | SqliteType::Text) => key_of_bytes(value.read_blob()),
                _ => value.read_long().to_string(),
            },
        }
    }
}

/// Returns a key as text: a UUID, a number, or the text itself.
fn key_of_bytes(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control));
    match (text, uuid::Uuid::from_slice(bytes), <[u8; 8]>::try_from(bytes)) {
        (Some(text), ..) => text.to_owned(),
        (None, Ok(id), _) => id.to_string(),
        (None, Err(_), Ok(number)) => i64::from_be_bytes(number).to_string(),
        (None, Err(_), Err(_)) => "not readable".to_owned(),
    }
}

fn decode<'a, T, ST, DB>(row: &impl Row<'a, DB>) -> Decoded<T>
where
    DB: RawRow + QueryMetadata<ST>,
    T: FromSqlRow<ST, DB>,
{
    let value = match DB::mistyped_column::<ST>(row) {
        Some(column) => Err(format!("the value of column {column} has the wrong storage class")),
        None => T::build_from_row(row).map_err(|error| describe(row, &*error)),
    };
    Decoded(value.map_err(|reason| UnreadableRow { key: DB::key_text(row), reason }))
}

fn describe<'a, DB: Backend>(
    row: &impl Row<'a, DB>,
    error: &(dyn std::error::Error + Send + Sync + 'static),
) -> String {
    if !error.is::<UnexpectedNullError>() {
        return error.to_string();
    }
    let nulls = (0..row.field_count()).filter_map(|index| row.get(index)).filter(|field| field.is_null());
    let names: Vec<_> = nulls.filter_map(|field| field.field_name().map(ToOwned::to_owned)).collect();
    format!("a required column is NULL (NULL: {})", names.join(", "))
}

/// Selects the columns of a row type, to load them as `Decoded<$row>`. For queries within
/// [`dispatch!`](crate::conn::dispatch).
macro_rules! columns {
    ($row:ty) => {
        <$row as diesel::Selectable<Db>>::construct_selection()
    };
}
pub(crate) use columns;

/// Implements the traits of diesel for loading `Decoded` values of one SQL type.
macro_rules! decode_as {
    ($db:ty, $sql_type:ty $(, $parameter:ident)*) => {
        impl<R, $($parameter),*> FromSqlRow<$sql_type, $db> for Decoded<R>
        where
            R: FromSqlRow<$sql_type, $db>,
            $db: QueryMetadata<$sql_type>,
        {
            fn build_from_row<'a>(row: &impl Row<'a, $db>) -> deserialize::Result<Self> {
                Ok(decode::<R, $sql_type, $db>(row))
            }
        }

        impl<R, $($parameter),*> StaticallySizedRow<$sql_type, $db> for Decoded<R>
        where
            R: StaticallySizedRow<$sql_type, $db>,
            $db: QueryMetadata<$sql_type>,
        {
            const FIELD_COUNT: usize = R::FIELD_COUNT;
        }
    };
}

/// Makes columns of these SQL types, nullable or not, loadable as [`Decoded`].
macro_rules! decode_columns {
    ($($sql_type:ty),*) => {$(
        decode_as!(Pg, $sql_type);
        decode_as!(Pg, Nullable<$sql_type>);
        decode_as!(Sqlite, $sql_type);
        decode_as!(Sqlite, Nullable<$sql_type>);
    )*};
}

/// Makes rows with these numbers of columns loadable as [`Decoded`]. The traits of diesel allow no
/// implementation for all numbers at once.
macro_rules! decode_rows {
    ($(($($column:ident)+))+) => {$(
        decode_as!(Pg, ($($column,)+) $(, $column)+);
        decode_as!(Sqlite, ($($column,)+) $(, $column)+);
    )+};
}

decode_columns!(Text, BigInt, Integer, Bool, Binary, Instant, Id, Doc);
decode_rows! {
    (A B)
    (A B C)
    (A B C D)
    (A B C D E F)
    (A B C D E F G)
    (A B C D E F G H I)
    (A B C D E F G H I J K)
    (A B C D E F G H I J K L)
    (A B C D E F G H I J K L M N)
    (A B C D E F G H I J K L M N O P Q R1 S T U)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_text_is_a_uuid_number_or_text() {
        assert_eq!(key_of_bytes(b"ui.dark_mode"), "ui.dark_mode");
        assert_eq!(key_of_bytes(&[0x9f; 16]), "9f9f9f9f-9f9f-9f9f-9f9f-9f9f9f9f9f9f");
        assert_eq!(key_of_bytes(&7_i64.to_be_bytes()), "7");
        assert_eq!(key_of_bytes(&[0xff, 1]), "not readable");
    }
}
