//! The store: one of two databases, its connections, and the macro that writes each query once for both.

use std::{sync::Arc, time::Duration};

use diesel::sqlite::SqliteConnection;
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::deadpool::{Object, Pool},
    sync_connection_wrapper::SyncConnectionWrapper,
};
use flags_domain::Instant;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

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

/// Ends what the database does not answer in time: [`StoreError::Unavailable`].
pub async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = timeout(limit, work).await;
    outcome.unwrap_or_else(|_| Err(StoreError::Unavailable("the database did not answer in time".to_owned())))
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    url: DatabaseUrl,
    pools: Pools,
    /// For the feed alone: writers that wait must not make the replica stale.
    feed: Pools,
    /// Who may write at once. SQLite has one writer, and waiting in line here is fair, waiting for the file's lock is not;
    /// on PostgreSQL some connections must be left for readers.
    writers: Arc<Semaphore>,
    /// Connections live on this runtime, whoever asks for them: a request's own may be gone before its connection.
    runtime: Handle,
}

#[derive(Clone)]
enum Pools {
    Postgres(Pool<AsyncPgConnection>),
    Sqlite(Pool<AsyncSqliteConnection>),
}

impl Pools {
    fn open(url: &DatabaseUrl, size: usize) -> Result<Self> {
        match url {
            DatabaseUrl::Postgres(url) => backend::postgres::pool(url, size).map(Self::Postgres),
            DatabaseUrl::Sqlite(path) => backend::sqlite::pool(path, size).map(Self::Sqlite),
        }
    }

    fn usage(&self, pool: &'static str) -> PoolUse {
        let status = match self {
            Self::Postgres(pool) => pool.status(),
            Self::Sqlite(pool) => pool.status(),
        };
        let idle = status.available.min(status.size);
        PoolUse { pool, idle, busy: status.size - idle }
    }

    async fn get(self) -> Result<Conn> {
        let backend = match self {
            Self::Postgres(pool) => pool.get().await.map(Backend::Postgres),
            Self::Sqlite(pool) => pool.get().await.map(Backend::Sqlite),
        };
        Ok(Conn(backend?))
    }
}

/// How much of a pool is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool's name.
    pub pool: &'static str,
    /// Open connections that nobody has.
    pub idle: usize,
    /// Open connections that somebody has.
    pub busy: usize,
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
        let (connections, writers) = match url {
            DatabaseUrl::Postgres(_) => (16, 12),
            DatabaseUrl::Sqlite(_) => (8, 1),
        };
        let store = Self {
            url: url.clone(),
            pools: Pools::open(url, connections)?,
            feed: Pools::open(url, 2)?,
            writers: Arc::new(Semaphore::new(writers)),
            runtime: Handle::current(),
        };
        store.conn().await?;
        if let DatabaseUrl::Sqlite(_) = url {
            // Takes the file's write lock and gives it back: a file that cannot be written is told now, not at the first
            // change.
            store.begin(Instant::from_micros(0)).await?.rollback().await?;
        }
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

    /// How much of the pools is in use.
    pub fn pool_use(&self) -> [PoolUse; 2] {
        [self.pools.usage("requests"), self.feed.usage("feed")]
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
        migrate::is_current(self).await
    }

    /// A connection to read with.
    pub async fn conn(&self) -> Result<Conn> {
        self.take(&self.pools).await
    }

    /// A connection to follow the log with.
    pub async fn feed_conn(&self) -> Result<Conn> {
        self.take(&self.feed).await
    }

    async fn take(&self, pools: &Pools) -> Result<Conn> {
        let taken = self.runtime.spawn(pools.clone().get()).await;
        taken.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// The right to write, in turn.
    pub(crate) async fn writer(&self) -> Result<OwnedSemaphorePermit> {
        let turn = timeout(CONNECTION_TIMEOUT, Arc::clone(&self.writers).acquire_owned()).await;
        let turn = turn.ok().and_then(std::result::Result::ok);
        turn.ok_or_else(|| StoreError::Unavailable("too many writes are waiting".to_owned()))
    }
}
