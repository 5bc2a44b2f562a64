//! PostgreSQL: connections, row locks, transactions, notifications and search.

use diesel::{
    ConnectionError, ConnectionResult, ExpressionMethods, OptionalExtension, QueryDsl, QueryResult, QueryableByName,
    pg::Pg,
    query_builder::{AstPass, QueryFragment},
    sql_query,
    sql_types::{Array, Double, Text},
};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, deadpool::Pool},
};
use futures_util::FutureExt as _;

use crate::{
    commit::ChangeLogInsert,
    error::{Result, StoreError},
    schema::{change_log, feature_flags, log_head, scheduled_changes, user_flag_overrides, users},
    sql_types::{DbInstant, DbUuid},
    store::CONNECTION_TIMEOUT,
    users::SearchIndexCondition,
};

use super::{ExplainSyntax, GreatestFunction};

/// Settings of every connection.
///
/// The timeouts are enforced by the database and are shorter than the deadline of a request. Parallel query is disabled
/// because starting parallel workers takes longer than these queries do.
const SESSION_SETTINGS: &str = "SET lock_timeout = '2s'; SET statement_timeout = '8s'; \
     SET max_parallel_workers_per_gather = 0; \
     SET idle_in_transaction_session_timeout = '30s'; SET application_name = 'feature-flags';";

pub(crate) fn pool(url: &str, size: usize) -> Result<Pool<AsyncPgConnection>> {
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|url| {
        let url = url.to_owned();
        async move { connect(&url).await }.boxed()
    });
    let manager = AsyncDieselConnectionManager::new_with_config(url, config);
    Pool::builder(manager)
        .max_size(size)
        .runtime(deadpool::Runtime::Tokio1)
        .wait_timeout(Some(CONNECTION_TIMEOUT))
        .create_timeout(Some(CONNECTION_TIMEOUT))
        .recycle_timeout(Some(CONNECTION_TIMEOUT))
        .build()
        .map_err(|e| StoreError::Unavailable(e.to_string()))
}

async fn connect(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    conn.batch_execute(SESSION_SETTINGS).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
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

/// Row lock that lasts until the end of the transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowLock {
    /// `FOR SHARE`: the row cannot be changed or deleted. For transactions that write rows referring to it.
    Share,
    /// `FOR UPDATE`: no other transaction can lock the row. For transactions that change or delete it.
    Update,
}

pub(crate) async fn lock_user_row(conn: &mut AsyncPgConnection, id: DbUuid, lock: RowLock) -> QueryResult<()> {
    let query = users::table.filter(users::id.eq(id)).select(users::id);
    let _: Option<DbUuid> = match lock {
        RowLock::Share => query.for_share().first(conn).await.optional()?,
        RowLock::Update => query.for_update().first(conn).await.optional()?,
    };
    Ok(())
}

pub(crate) async fn lock_flag_row(conn: &mut AsyncPgConnection, name: &str, lock: RowLock) -> QueryResult<()> {
    let query = feature_flags::table.filter(feature_flags::name.eq(name)).select(feature_flags::name);
    let _: Option<String> = match lock {
        RowLock::Share => query.for_share().first(conn).await.optional()?,
        RowLock::Update => query.for_update().first(conn).await.optional()?,
    };
    Ok(())
}

pub(crate) async fn lock_change_log_head(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    let _: i64 = log_head::table.select(log_head::revision).for_update().first(conn).await?;
    Ok(())
}

/// Appends rows in batches, because each round trip extends the time for which `log_head` is locked.
pub(crate) async fn append_change_log(conn: &mut AsyncPgConnection, rows: &[ChangeLogInsert]) -> QueryResult<()> {
    // Well below the limit of 65,535 parameters per statement.
    for batch in rows.chunks(1_000) {
        diesel::insert_into(change_log::table).values(batch).execute(conn).await?;
    }
    Ok(())
}

pub(crate) async fn begin_write(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    diesel_async::AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN").await
}

pub(crate) async fn begin_snapshot(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    diesel_async::AnsiTransactionManager::begin_transaction_sql(conn, sql).await
}

pub(crate) async fn lock_override(conn: &mut AsyncPgConnection, user_id: DbUuid, flag_name: &str) -> QueryResult<()> {
    let _: Option<DbUuid> = user_flag_overrides::table
        .filter(user_flag_overrides::user_id.eq(user_id))
        .filter(user_flag_overrides::flag_name.eq(flag_name))
        .select(user_flag_overrides::id)
        .for_update()
        .first(conn)
        .await
        .optional()?;
    Ok(())
}

/// Locks the given overrides in the order of their ids. Returns the ids of those that exist.
pub(crate) async fn lock_overrides(conn: &mut AsyncPgConnection, ids: &[DbUuid]) -> QueryResult<Vec<DbUuid>> {
    user_flag_overrides::table
        .filter(user_flag_overrides::id.eq_any(ids))
        .order(user_flag_overrides::id)
        .select(user_flag_overrides::id)
        .for_update()
        .load(conn)
        .await
}

/// Locks overrides that expired at or before `now` and returns their ids. Skips rows that another transaction has
/// locked.
///
/// PostgreSQL evaluates the condition again after it locks a row, so an override that was just extended is not
/// returned.
pub(crate) async fn lock_expired_overrides(
    conn: &mut AsyncPgConnection,
    now: DbInstant,
    limit: i64,
) -> QueryResult<Vec<DbUuid>> {
    user_flag_overrides::table
        .filter(user_flag_overrides::expires_at.le(now))
        // Other programs may insert overrides of unknown flags. The change log cannot refer to these.
        .filter(user_flag_overrides::flag_name.eq_any(feature_flags::table.select(feature_flags::name)))
        .order((user_flag_overrides::expires_at, user_flag_overrides::id))
        .limit(limit)
        .select(user_flag_overrides::id)
        .for_update()
        .skip_locked()
        .load(conn)
        .await
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
    let unavailable = |error: ConnectionError| StoreError::Unavailable(error.to_string());
    let mut conn = connect(url).await.map_err(unavailable)?;
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

/// Locks flags that have due scheduled changes that are not yet recorded as applied. Returns the flags' names. Skips
/// flags that another transaction has locked.
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

impl GreatestFunction for Pg {
    const GREATEST: &'static str = "GREATEST";
}

impl ExplainSyntax for Pg {
    const EXPLAIN: &'static str = "EXPLAIN ";
    type PlanColumns = Text;
    type PlanRow = String;

    fn description(row: String) -> String {
        row
    }
}

/// Estimates the fraction of users, from 0 to 1, whose search text matches the `LIKE` pattern. Samples about 1,000
/// rows.
pub(crate) async fn estimate_match_fraction(conn: &mut AsyncPgConnection, pattern: &str) -> QueryResult<f64> {
    let query = sql_query(
        r"SELECT count(*) FILTER (WHERE search_text LIKE $1 ESCAPE '\')::float8 / greatest(count(*), 1) AS fraction
          FROM users TABLESAMPLE SYSTEM (
              (SELECT least(100, 100000 / greatest(reltuples, 1)) FROM pg_class WHERE oid = 'users'::regclass)
          )",
    );
    let row: MatchFractionRow = query.bind::<Text, _>(pattern).get_result(conn).await?;
    Ok(row.fraction)
}

#[derive(QueryableByName)]
struct MatchFractionRow {
    #[diesel(sql_type = Double)]
    fraction: f64,
}

/// Returns every second trigram of `text`, and the last one. They cover all characters, and adding the others would
/// cost more index reads than it would save in candidates.
pub(crate) fn covering_trigrams(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let last_start = characters.len().saturating_sub(3);
    let starts = (0..last_start).step_by(2).chain([last_start]);
    starts.map(|start| characters.iter().skip(start).take(3).collect()).collect()
}

impl QueryFragment<Pg> for SearchIndexCondition {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // The best plan depends on how frequent the trigrams are, so the query must be planned for each value.
        out.unsafe_to_cache_prepared();
        out.push_sql("(text_trigrams(users.search_text) @> ");
        out.push_bind_param::<Array<Text>, _>(&self.trigrams)?;
        out.push_sql(" AND users.search_text LIKE ");
        out.push_bind_param::<Text, _>(&self.pattern)?;
        out.push_sql(r" ESCAPE '\')");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_trigrams_include_every_second_and_the_last() {
        assert_eq!(covering_trigrams("abc"), ["abc"]);
        assert_eq!(covering_trigrams("abcd"), ["abc", "bcd"]);
        assert_eq!(covering_trigrams("abcdef"), ["abc", "cde", "def"]);
        assert_eq!(covering_trigrams("müßig@"), ["müß", "ßig", "ig@"]);
    }
}
