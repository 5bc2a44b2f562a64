//! The [`Store`]: connection pools for PostgreSQL or SQLite.

use std::{sync::Arc, time::Duration};

use diesel_async::{AsyncPgConnection, pooled_connection::deadpool::Pool};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    backend::{
        self,
        pool::{self, CONNECTION_TIMEOUT},
        sqlite::AsyncSqliteConnection,
    },
    conn::{Backend, Conn},
    error::{Result, StoreError},
    url::DatabaseUrl,
};

/// Runs `work` with a timeout. Returns [`StoreError::Unavailable`] when `limit` elapses first.
pub async fn with_timeout<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = timeout(limit, work).await;
    outcome.unwrap_or_else(|_| Err(StoreError::Unavailable("the database did not respond in time".to_owned())))
}

/// Handle to the database. Clones share the connection pools.
#[derive(Clone)]
pub struct Store {
    url: DatabaseUrl,
    pools: Pools,
    /// Pool of the change feed. It is separate because writers that exhaust the other pool must not delay the replica.
    feed_pools: Pools,
    /// Permits for write transactions. SQLite allows one writer. This semaphore queues writers
    /// fairly, whereas the file lock does not. On PostgreSQL, the limit keeps connections free for
    /// readers.
    write_permits: Arc<Semaphore>,
    /// Runtime that opens the connections. A connection must not depend on the runtime of the
    /// request that needs it, because that runtime may shut down first.
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
            DatabaseUrl::Postgres(url) => pool::build(url, size, backend::postgres::connect).map(Self::Postgres),
            DatabaseUrl::Sqlite(path) => {
                let path = path
                    .to_str()
                    .ok_or_else(|| StoreError::unavailable("the path of the database file is not valid UTF-8"))?;
                pool::build(path, size, backend::sqlite::connect).map(Self::Sqlite)
            }
        }
    }

    fn usage(&self, pool: &'static str) -> PoolUsage {
        let status = match self {
            Self::Postgres(pool) => pool.status(),
            Self::Sqlite(pool) => pool.status(),
        };
        let idle = status.available.min(status.size);
        PoolUsage { pool, idle, busy: status.size - idle }
    }

    async fn get(self) -> Result<Conn> {
        let backend = match self {
            Self::Postgres(pool) => pool.get().await.map(Backend::Postgres),
            Self::Sqlite(pool) => pool.get().await.map(Backend::Sqlite),
        };
        Ok(Conn(backend?))
    }
}

/// Connection counts of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// Name of the pool: `requests` or `feed`.
    pub pool: &'static str,
    /// Number of open connections that are not in use.
    pub idle: usize,
    /// Number of open connections that are in use.
    pub busy: usize,
}

impl Store {
    /// Opens the connection pools and checks that the database responds. On SQLite, also checks that the file is
    /// writable.
    ///
    /// Connections run on the Tokio runtime that calls this function, so that runtime must outlive the store.
    pub async fn open(url: &DatabaseUrl) -> Result<Self> {
        let (max_connections, max_writers) = match url {
            DatabaseUrl::Postgres(_) => (16, 12),
            DatabaseUrl::Sqlite(_) => (8, 1),
        };
        let store = Self {
            url: url.clone(),
            pools: Pools::open(url, max_connections)?,
            feed_pools: Pools::open(url, 2)?,
            write_permits: Arc::new(Semaphore::new(max_writers)),
            runtime: Handle::current(),
        };
        let mut conn = store.conn().await?;
        if let DatabaseUrl::Sqlite(_) = url {
            // Acquires and releases the write lock, so that a read-only file fails here and not at the first change.
            conn.begin_write().await?;
            conn.rollback().await?;
        }
        Ok(store)
    }

    /// Returns the database settings that may lose acknowledged writes in a crash, each as `name = value`.
    pub async fn unsafe_durability_settings(&self) -> Result<Vec<String>> {
        match &mut self.conn().await?.0 {
            Backend::Postgres(object) => Ok(backend::postgres::unsafe_durability_settings(object).await?),
            // Every connection sets `synchronous = FULL`.
            Backend::Sqlite(_) => Ok(Vec::new()),
        }
    }

    /// Returns the connection counts of the request pool and the change-feed pool.
    pub fn pool_usage(&self) -> [PoolUsage; 2] {
        [self.pools.usage("requests"), self.feed_pools.usage("feed")]
    }

    /// URL that the store was opened with.
    pub const fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// Returns a connection from the request pool.
    pub async fn conn(&self) -> Result<Conn> {
        self.acquire(&self.pools).await
    }

    /// Returns a connection from the pool that is reserved for the change feed.
    pub async fn feed_conn(&self) -> Result<Conn> {
        self.acquire(&self.feed_pools).await
    }

    async fn acquire(&self, pools: &Pools) -> Result<Conn> {
        let acquired = self.runtime.spawn(pools.clone().get()).await;
        acquired.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Acquires a permit to write, in first-come-first-served order. The caller holds it until the write is committed.
    pub(crate) async fn write_permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = timeout(CONNECTION_TIMEOUT, Arc::clone(&self.write_permits).acquire_owned()).await;
        let permit = permit.ok().and_then(std::result::Result::ok);
        permit.ok_or_else(|| StoreError::Unavailable("timed out waiting for other writes to finish".to_owned()))
    }
}
