//! Pooled connections to either database, the `dispatch!` macro that runs a query on them, and raw transactions.

use diesel::QueryResult;
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager as _, pooled_connection::deadpool::Object};

use crate::{
    backend::{self, sqlite::AsyncSqliteConnection},
    error::Result,
};

/// Pooled connection. Dropping it returns it to the pool.
pub struct Conn(pub(crate) Backend);

#[expect(
    clippy::large_enum_variant,
    reason = "a connection is moved only twice, so boxing would cost an allocation per query for little gain"
)]
pub(crate) enum Backend {
    Postgres(Object<AsyncPgConnection>),
    Sqlite(Object<AsyncSqliteConnection>),
}

/// Runs a query on the database behind `$conn`. The body is compiled once per database. Inside it, the type alias `Db`
/// names the diesel backend.
macro_rules! dispatch {
    ($conn:expr, |$c:ident| $body:expr) => {{
        let outcome = match &mut $conn.0 {
            $crate::conn::Backend::Postgres(object) => {
                #[allow(dead_code, reason = "only boxed queries use the alias")]
                type Db = diesel::pg::Pg;
                let $c: &mut diesel_async::AsyncPgConnection = &mut *object;
                $body
            }
            $crate::conn::Backend::Sqlite(object) => {
                #[allow(dead_code, reason = "only boxed queries use the alias")]
                type Db = diesel::sqlite::Sqlite;
                let $c: &mut $crate::backend::sqlite::AsyncSqliteConnection = &mut *object;
                $body
            }
        };
        outcome.map_err($crate::error::StoreError::from)
    }};
}
pub(crate) use dispatch;

impl Conn {
    /// Begins a transaction that may write. On SQLite, waits for the write lock of the file.
    pub(crate) async fn begin_write(&mut self) -> Result<()> {
        match &mut self.0 {
            Backend::Postgres(object) => backend::postgres::begin_write(object).await?,
            Backend::Sqlite(object) => backend::sqlite::begin_write(object).await?,
        }
        Ok(())
    }

    /// Begins a read-only transaction whose statements all see the same state of the database.
    pub(crate) async fn begin_snapshot(&mut self) -> Result<()> {
        match &mut self.0 {
            Backend::Postgres(object) => backend::postgres::begin_snapshot(object).await?,
            Backend::Sqlite(object) => backend::sqlite::begin_snapshot(object).await?,
        }
        Ok(())
    }

    /// Commits the transaction.
    pub(crate) async fn commit(&mut self) -> Result<()> {
        dispatch!(self, |c| commit(c).await)
    }

    /// Discards the writes of the transaction.
    pub(crate) async fn rollback(&mut self) -> Result<()> {
        dispatch!(self, |c| rollback(c).await)
    }
}

async fn commit<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::commit_transaction(conn).await
}

async fn rollback<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::rollback_transaction(conn).await
}
