//! Errors of the storage layer, independent of the database and of HTTP.

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::{PoolError, deadpool};

/// Error of a storage operation. Each variant implies how the caller should react.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is unreachable, does not respond in time, or cannot write. The operation can be retried later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Conflict with a concurrent transaction, such as a deadlock or a lock timeout. The whole transaction can be
    /// retried immediately.
    #[error("the transaction conflicts with a concurrent transaction: {0}")]
    TransactionConflict(String),
    /// A uniqueness constraint was violated. Contains the constraint's name or, on SQLite, its columns.
    #[error("a row with the same unique key already exists: {0}")]
    UniqueViolation(String),
    /// The change log cannot be read or appended to. It must be repaired manually.
    #[error("the change log cannot be read: {0}")]
    ChangeLogUnreadable(String),
    /// The database requires a newer version of this program.
    #[error(
        "this program is too old for the database: its {kind} version is {version}, and the database requires \
         {required}; upgrade the program"
    )]
    Outdated {
        /// `reader` or `writer`.
        kind: &'static str,
        /// Version of this program.
        version: i32,
        /// Minimum version that the database requires.
        required: i32,
    },
    /// The definition of a flag, or one of its scheduled changes, cannot be read by this version.
    #[error("the flag {name} cannot be read by this version: {reason}")]
    UnreadableFlag {
        /// Name of the flag.
        name: String,
        /// Description of the first problem.
        reason: String,
    },
    /// A stored value cannot be decoded.
    #[error("the database contains invalid data: {0}")]
    Corrupt(String),
    /// Any other error from the database, with its message.
    #[error("database error: {0}")]
    Database(String),
}

/// Result of a storage operation.
pub type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// Returns an error for a table, column or value that cannot be decoded.
    pub(crate) fn corrupt(source: &str, detail: impl std::fmt::Display) -> Self {
        Self::Corrupt(format!("{source}: {detail}"))
    }

    /// Returns the error for a failure that prevents any access to the database.
    pub(crate) fn unavailable(cause: impl std::fmt::Display) -> Self {
        Self::Unavailable(cause.to_string())
    }
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        let DieselError::DatabaseError(kind, info) = &error else {
            return match error {
                DieselError::DeserializationError(error) => Self::Corrupt(error.to_string()),
                DieselError::BrokenTransactionManager => Self::Unavailable("the connection was lost".to_owned()),
                other => Self::Database(other.to_string()),
            };
        };
        let message = info.message().to_owned();
        match kind {
            DatabaseErrorKind::UniqueViolation => {
                Self::UniqueViolation(info.constraint_name().map_or(message, ToOwned::to_owned))
            }
            DatabaseErrorKind::SerializationFailure => Self::TransactionConflict(message),
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ReadOnlyTransaction => Self::Unavailable(message),
            _ => Self::classify(message),
        }
    }
}

impl StoreError {
    /// Classifies an error by its message, because diesel does not expose the SQLSTATE code. Recognizes English
    /// messages only.
    fn classify(message: String) -> Self {
        const CONFLICTS: [&str; 4] =
            ["deadlock detected", "due to lock timeout", "database is locked", "database table is locked"];
        const OUTAGES: [&str; 11] = [
            "due to statement timeout",
            "due to administrator command",
            "because of crash of another server process",
            "the database system is",
            "too many clients",
            "remaining connection slots",
            "No space left on device",
            "disk I/O error",
            "attempt to write a readonly database",
            "database or disk is full",
            "unable to open database file",
        ];
        if contains_any(&message, &CONFLICTS) {
            Self::TransactionConflict(message)
        } else if contains_any(&message, &OUTAGES) {
            Self::Unavailable(message)
        } else {
            Self::Database(message)
        }
    }
}

fn contains_any(message: &str, fragments: &[&str]) -> bool {
    fragments.iter().any(|fragment| message.contains(fragment))
}

impl From<deadpool::PoolError> for StoreError {
    fn from(error: deadpool::PoolError) -> Self {
        match error {
            deadpool::PoolError::Backend(PoolError::ConnectionError(error)) => Self::Unavailable(error.to_string()),
            deadpool::PoolError::Backend(PoolError::QueryError(error)) => Self::Unavailable(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_conflicts_outages_and_other_errors() {
        let classify = |message: &str| StoreError::classify(message.to_owned());
        assert!(matches!(classify("deadlock detected"), StoreError::TransactionConflict(_)));
        assert!(matches!(classify("canceling statement due to lock timeout"), StoreError::TransactionConflict(_)));
        assert!(matches!(classify("database is locked"), StoreError::TransactionConflict(_)));
        assert!(matches!(classify("canceling statement due to statement timeout"), StoreError::Unavailable(_)));
        assert!(matches!(classify("the database system is shutting down"), StoreError::Unavailable(_)));
        assert!(matches!(classify("syntax error at or near"), StoreError::Database(_)));
    }
}
