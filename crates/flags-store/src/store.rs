//! The store: one of two databases, its connections, and the macro that writes each query once for both.

use std::{sync::Arc, time::Duration};

use diesel::sqlite::SqliteConnection;
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::deadpool::{Object, Pool},
    sync_connection_wrapper::SyncConnectionWrapper,
};
use tokio::{runtime::Handle, sync::Mutex, sync::OwnedMutexGuard, time::timeout};

use crate::{
    backend,
    error::{Result, StoreError},
    migrate,
    url::DatabaseUrl,
};

/// SQLite's connection, each call of which runs on a thread for blocking work.
pub(crate) type AsyncSqliteConnection = SyncConnectionWrapper<SqliteConnection>;

/// Longest wait for a connection: for a free place, for a new one, and for a sign of life of an old one, each.
pub(crate) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    url: DatabaseUrl,
    pools: Pools,
    /// Connections live on this runtime, whoever asks for them: a request's own may be gone before its connection.
    runtime: Handle,
}

#[derive(Clone)]
enum Pools {
    Postgres(Pool<AsyncPgConnection>),
    Sqlite {
        pool: Pool<AsyncSqliteConnection>,
        /// SQLite has one writer; waiting in line here is fair, waiting for the file's lock is not.
        writer: Arc<Mutex<()>>,
    },
}

/// A connection out of the pool.
pub struct Conn(pub(crate) Backend);

#[expect(clippy::large_enum_variant, reason = "a connection is moved twice; boxing it would allocate for every query")]
pub(crate) enum Backend {
    Postgres(Object<AsyncPgConnection>),
    Sqlite(Object<AsyncSqliteConnection>),
}

/// Runs a query on whichever database `$conn` leads to. The body is type-checked once for each; within it `Db` is
/// diesel's name of the backend.
macro_rules! on {
    ($conn:expr, |$c:ident| $body:expr) => {{
        let outcome = match &mut $conn.0 {
            $crate::store::Backend::Postgres(object) => {
                #[allow(dead_code, reason = "not every query names its backend")]
                type Db = diesel::pg::Pg;
                let $c: &mut diesel_async::AsyncPgConnection = &mut *object;
                $body
            }
            $crate::store::Backend::Sqlite(object) => {
                #[allow(dead_code, reason = "not every query names its backend")]
                type Db = diesel::sqlite::Sqlite;
                let $c: &mut $crate::store::AsyncSqliteConnection = &mut *object;
                $body
            }
        };
        outcome.map_err($crate::error::StoreError::from)
    }};
}
pub(crate) use on;

impl Store {
    /// Opens the database and sees whether it answers. Must be called on the runtime that is to carry the connections.
    pub async fn open(url: &DatabaseUrl) -> Result<Self> {
        let pools = match url {
            DatabaseUrl::Postgres(url) => Pools::Postgres(backend::postgres::pool(url)?),
            DatabaseUrl::Sqlite(path) => {
                Pools::Sqlite { pool: backend::sqlite::pool(path)?, writer: Arc::new(Mutex::new(())) }
            }
        };
        let store = Self { url: url.clone(), pools, runtime: Handle::current() };
        store.conn().await?;
        Ok(store)
    }

    /// Settings under which the database may lose acknowledged writes in a crash, as `name = value`.
    pub async fn durability_gaps(&self) -> Result<Vec<String>> {
        match &mut self.conn().await?.0 {
            Backend::Postgres(object) => Ok(backend::postgres::durability_gaps(object).await?),
            // Every connection asks SQLite for `synchronous = FULL`.
            Backend::Sqlite(_) => Ok(Vec::new()),
        }
    }

    /// Where the state is kept.
    pub const fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// Applies all migrations that are missing and returns their versions.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        migrate::up(&self.url).await
    }

    /// Whether the schema is the one this program was built for.
    pub async fn is_migrated(&self) -> Result<bool> {
        migrate::is_current(&self.url).await
    }

    /// A connection to read with.
    pub async fn conn(&self) -> Result<Conn> {
        let pools = self.pools.clone();
        let get = async move {
            match pools {
                Pools::Postgres(pool) => pool.get().await.map(Backend::Postgres),
                Pools::Sqlite { pool, .. } => pool.get().await.map(Backend::Sqlite),
            }
        };
        let backend = self.runtime.spawn(get).await.map_err(|e| StoreError::Unavailable(e.to_string()))??;
        Ok(Conn(backend))
    }

    /// The right to write on a database that has one writer.
    pub(crate) async fn writer(&self) -> Result<Option<OwnedMutexGuard<()>>> {
        let Pools::Sqlite { writer, .. } = &self.pools else { return Ok(None) };
        let guard = timeout(CONNECTION_TIMEOUT, Arc::clone(writer).lock_owned()).await;
        guard.map(Some).map_err(|_| StoreError::Unavailable("too many writes are waiting".to_owned()))
    }
}
