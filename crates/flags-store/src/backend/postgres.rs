//! PostgreSQL-specific connections, transactions, notifications and statements.

use diesel::{
    ConnectionError, ConnectionResult, ExpressionMethods, QueryDsl, QueryResult, QueryableByName, sql_query,
    sql_types::Text,
};
use diesel_async::{AnsiTransactionManager, AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::{
    error::{Result, StoreError},
    schema::{feature_flags, scheduled_changes},
    sql_types::DbInstant,
};

/// Settings of every connection.
///
/// The database enforces the timeouts, which are shorter than the deadline of a request. Parallel
/// query is disabled because starting parallel workers takes longer than these queries do.
const SESSION_SETTINGS: &str = "SET lock_timeout = '2s'; SET statement_timeout = '8s'; \
     SET max_parallel_workers_per_gather = 0; \
     SET idle_in_transaction_session_timeout = '30s'; SET application_name = 'feature-flags';";

/// Opens a connection and applies [`SESSION_SETTINGS`].
pub(crate) fn connect(url: &str) -> BoxFuture<'_, ConnectionResult<AsyncPgConnection>> {
    async move {
        let mut conn = AsyncPgConnection::establish(url).await?;
        conn.batch_execute(SESSION_SETTINGS).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }
    .boxed()
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    setting: String,
}

/// Returns the settings that allow PostgreSQL to acknowledge a commit before it is on disk.
pub(crate) async fn unsafe_durability_settings(conn: &mut AsyncPgConnection) -> QueryResult<Vec<String>> {
    let query =
        "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') AND setting = 'off'";
    let off: Vec<Setting> = sql_query(query).load(conn).await?;
    Ok(off.into_iter().map(|Setting { name, setting }| format!("{name} = {setting}")).collect())
}

pub(crate) async fn begin_write(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN").await
}

pub(crate) async fn begin_snapshot(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    AnsiTransactionManager::begin_transaction_sql(conn, sql).await
}

#[derive(QueryableByName)]
struct CurrentTimeRow {
    #[diesel(sql_type = crate::sql_types::Instant)]
    now: DbInstant,
}

/// Returns the current time of the database server.
pub(crate) async fn current_time(conn: &mut AsyncPgConnection) -> QueryResult<DbInstant> {
    let row: CurrentTimeRow = sql_query("SELECT clock_timestamp() AS now").get_result(conn).await?;
    Ok(row.now)
}

/// Opens a connection outside the pool and subscribes it to `channels`.
pub(crate) async fn listen(url: &str, channels: &[&str]) -> Result<AsyncPgConnection> {
    let mut conn = connect(url).await.map_err(StoreError::unavailable)?;
    for channel in channels {
        conn.batch_execute(&format!("LISTEN {channel}")).await?;
    }
    Ok(conn)
}

/// Removes idempotency keys with a stored response that contains `text`.
pub(crate) async fn delete_responses_containing(conn: &mut AsyncPgConnection, text: &str) -> QueryResult<()> {
    let query = sql_query("DELETE FROM idempotency_keys WHERE position(convert_to($1, 'UTF8') IN answer) > 0");
    query.bind::<Text, _>(text).execute(conn).await?;
    Ok(())
}

/// Sends a notification on `channel`.
pub(crate) async fn notify(conn: &mut AsyncPgConnection, channel: &str) -> QueryResult<()> {
    conn.batch_execute(&format!("NOTIFY {channel}")).await
}

#[derive(QueryableByName)]
struct DatabaseIdentityRow {
    #[diesel(sql_type = Text)]
    identity: String,
}

/// Returns the system identifier of the cluster and the id of its current timeline, as `<system
/// identifier>/<timeline>`. `None` if the server does not allow reading them, as on some hosted databases.
pub(crate) async fn database_identity(conn: &mut AsyncPgConnection) -> Result<Option<String>> {
    let query = "SELECT system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS identity \
                 FROM pg_control_system()";
    match sql_query(query).get_result::<DatabaseIdentityRow>(conn).await.map_err(StoreError::from) {
        Ok(row) => Ok(Some(row.identity)),
        Err(StoreError::Database(error)) => {
            tracing::debug!(error, "cannot read the cluster and timeline ids; restored backups are not detected");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Disables the statement timeout until the end of the transaction.
pub(crate) async fn disable_statement_timeout(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    conn.batch_execute("SET LOCAL statement_timeout = 0").await
}

/// Locks up to `limit` flags with scheduled changes that are due but not yet recorded as applied.
/// Returns the names of the flags. Skips flags that another transaction has locked.
pub(crate) async fn lock_flags_with_due_changes(
    conn: &mut AsyncPgConnection,
    now: DbInstant,
    limit: i64,
) -> QueryResult<Vec<String>> {
    let due = scheduled_changes::table
        .filter(scheduled_changes::marked_at.is_null())
        .filter(scheduled_changes::cancelled_at.is_null())
        .filter(scheduled_changes::scheduled_at.le(now));
    feature_flags::table
        .filter(feature_flags::name.eq_any(due.select(scheduled_changes::flag_name)))
        .order(feature_flags::name)
        .limit(limit)
        .select(feature_flags::name)
        .for_update()
        .skip_locked()
        .load(conn)
        .await
}
