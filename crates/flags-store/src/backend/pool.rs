//! Connection pools. The databases differ only in how a connection is opened.

use std::time::Duration;

use deadpool::managed::Manager;
use diesel::ConnectionResult;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError, PoolableConnection, deadpool::Pool,
};
use futures_util::future::BoxFuture;

use crate::error::{Result, StoreError};

/// Timeout for each step of getting a pooled connection: waiting for a free slot, opening a new connection, and
/// checking an idle one.
pub(crate) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds a pool of up to `size` connections. `connect` opens a connection to `url`.
pub(crate) fn build<C>(
    url: &str,
    size: usize,
    connect: fn(&str) -> BoxFuture<'_, ConnectionResult<C>>,
) -> Result<Pool<C>>
where
    C: PoolableConnection + 'static,
    AsyncDieselConnectionManager<C>: Manager<Type = C, Error = PoolError>,
{
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(connect);
    Pool::builder(AsyncDieselConnectionManager::new_with_config(url, config))
        .max_size(size)
        .runtime(deadpool::Runtime::Tokio1)
        .wait_timeout(Some(CONNECTION_TIMEOUT))
        .create_timeout(Some(CONNECTION_TIMEOUT))
        .recycle_timeout(Some(CONNECTION_TIMEOUT))
        .build()
        .map_err(StoreError::unavailable)
}
