//! What can go wrong with a database, without a word of SQL or HTTP.

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::{PoolError, deadpool};

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, does not answer in time or cannot write. Nothing is known to be wrong with the
    /// request; it may be tried again later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Another transaction was in the way; the whole transaction may be tried again at once.
    #[error("the transaction collided with another: {0}")]
    Collision(String),
    /// A rule of uniqueness was broken; holds the constraint's name or, on SQLite, its columns.
    #[error("a row with the same key is there already: {0}")]
    Duplicate(String),
    /// What the database holds cannot be read as what it should be.
    #[error("the database holds what it should not: {0}")]
    Corrupt(String),
    /// Anything else the database said.
    #[error("the database refused: {0}")]
    Refused(String),
}

/// Shorthand for results of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// A row, column or document that cannot be read.
    pub(crate) fn corrupt(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Corrupt(format!("{what}: {why}"))
    }
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        let DieselError::DatabaseError(kind, info) = &error else {
            return match error {
                DieselError::DeserializationError(why) => Self::Corrupt(why.to_string()),
                DieselError::BrokenTransactionManager => Self::Unavailable("the connection was lost".to_owned()),
                other => Self::Refused(other.to_string()),
            };
        };
        let message = info.message().to_owned();
        match kind {
            DatabaseErrorKind::UniqueViolation => {
                Self::Duplicate(info.constraint_name().map_or(message, ToOwned::to_owned))
            }
            DatabaseErrorKind::SerializationFailure => Self::Collision(message),
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ReadOnlyTransaction => Self::Unavailable(message),
            _ => Self::by_message(message),
        }
    }
}

impl StoreError {
    /// Diesel passes on no SQLSTATE, so these few are told by their text, which the server must not translate.
    fn by_message(message: String) -> Self {
        const COLLISIONS: [&str; 4] =
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
        let holds = |list: &[&str]| list.iter().any(|part| message.contains(part));
        if holds(&COLLISIONS) {
            Self::Collision(message)
        } else if holds(&OUTAGES) {
            Self::Unavailable(message)
        } else {
            Self::Refused(message)
        }
    }
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
    fn errors_are_told_apart_by_what_can_be_done_about_them() {
        let kind = |message: &str| StoreError::by_message(message.to_owned());
        assert!(matches!(kind("deadlock detected"), StoreError::Collision(_)));
        assert!(matches!(kind("canceling statement due to lock timeout"), StoreError::Collision(_)));
        assert!(matches!(kind("database is locked"), StoreError::Collision(_)));
        assert!(matches!(kind("canceling statement due to statement timeout"), StoreError::Unavailable(_)));
        assert!(matches!(kind("the database system is shutting down"), StoreError::Unavailable(_)));
        assert!(matches!(kind("syntax error at or near"), StoreError::Refused(_)));
    }
}
