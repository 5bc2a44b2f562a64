//! SQLite-specific connections, transactions, change detection and statements.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path};

use diesel::{
    ConnectionError, ConnectionResult, QueryResult, QueryableByName,
    connection::{AnsiTransactionManager, Connection as _, SimpleConnection as _},
    sql_query,
    sql_types::{BigInt, Text},
    sqlite::SqliteConnection,
};
use diesel_async::{RunQueryDsl, sync_connection_wrapper::SyncConnectionWrapper};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::error::{Result, StoreError};

/// SQLite connection that runs each call on the blocking thread pool.
pub(crate) type AsyncSqliteConnection = SyncConnectionWrapper<SqliteConnection>;

/// Settings of every connection.
///
/// - `synchronous = FULL`: a commit is on disk before it is acknowledged.
/// - `busy_timeout` (milliseconds): how long a write waits while another process writes to the same file.
/// - `case_sensitive_like`: `LIKE` is case-sensitive, as on PostgreSQL.
const PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA case_sensitive_like = ON;";

/// Opens a connection and applies [`PRAGMAS`]. Creates the file if it does not exist.
pub(crate) fn establish(path: &str) -> ConnectionResult<SqliteConnection> {
    // The file contains e-mail addresses and password hashes, so a new file is readable by its owner only. The mode of
    // an existing file is not changed.
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute(PRAGMAS).map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// Opens a connection like [`establish`], on a blocking thread.
pub(crate) fn connect(path: &str) -> BoxFuture<'_, ConnectionResult<AsyncSqliteConnection>> {
    let path = path.to_owned();
    async move {
        let established = tokio::task::spawn_blocking(move || establish(&path)).await;
        let conn = established.map_err(|error| ConnectionError::BadConnection(error.to_string()))??;
        Ok(AsyncSqliteConnection::new(conn))
    }
    .boxed()
}

/// Begins a transaction that holds the write lock of the file from the start. A transaction that starts with a read may
/// fail to upgrade its lock later.
pub(crate) async fn begin_write(conn: &mut AsyncSqliteConnection) -> QueryResult<()> {
    begin(conn, "BEGIN IMMEDIATE").await
}

pub(crate) async fn begin_snapshot(conn: &mut AsyncSqliteConnection) -> QueryResult<()> {
    begin(conn, "BEGIN").await
}

async fn begin(conn: &mut AsyncSqliteConnection, sql: &'static str) -> QueryResult<()> {
    conn.spawn_blocking(move |conn| AnsiTransactionManager::begin_transaction_sql(conn, sql)).await
}

/// Removes idempotency keys with a stored response that contains `text`.
pub(crate) async fn delete_responses_containing(conn: &mut AsyncSqliteConnection, text: &str) -> QueryResult<()> {
    let query = sql_query("DELETE FROM idempotency_keys WHERE instr(answer, CAST(? AS BLOB)) > 0");
    query.bind::<Text, _>(text.to_owned()).execute(conn).await?;
    Ok(())
}

#[derive(QueryableByName)]
struct DataVersionRow {
    #[diesel(sql_type = BigInt)]
    data_version: i64,
}

/// Opens a connection outside the pool.
pub(crate) async fn open(path: &Path) -> Result<AsyncSqliteConnection> {
    connect(&path.to_string_lossy()).await.map_err(StoreError::unavailable)
}

/// Returns SQLite's `data_version`. The value changes whenever another connection has committed a write.
pub(crate) async fn data_version(conn: &mut AsyncSqliteConnection) -> QueryResult<i64> {
    let row: DataVersionRow = sql_query("PRAGMA data_version").get_result(conn).await?;
    Ok(row.data_version)
}
