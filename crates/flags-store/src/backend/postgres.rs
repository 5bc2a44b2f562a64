//! PostgreSQL: connections, row locks and transactions.

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
    users::Indexed,
};

use super::{Computing, Explaining};

/// Limits within the database, so that no statement waits for ever; a request's own deadline is longer than these. What
/// is asked here is answered sooner than several processes could be set to it.
const SESSION: &str = "SET lock_timeout = '2s'; SET statement_timeout = '8s'; SET max_parallel_workers_per_gather = 0; \
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
    conn.batch_execute(SESSION).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    setting: String,
}

/// An acknowledged write survives a crash only if the server waits for its disk.
pub(crate) async fn durability_gaps(conn: &mut AsyncPgConnection) -> QueryResult<Vec<String>> {
    let query =
        "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') AND setting = 'off'";
    let off: Vec<Setting> = sql_query(query).load(conn).await?;
    Ok(off.into_iter().map(|Setting { name, setting }| format!("{name} = {setting}")).collect())
}

/// How a row is held until the end of the transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowLock {
    /// Nobody may change or remove it: for what refers to it.
    Share,
    /// Nobody may even refer to it: for what changes it.
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

/// Appends all rows in one statement: round trips under the lock of `log_head` cost throughput.
pub(crate) async fn append_log(conn: &mut AsyncPgConnection, rows: &[ChangeLogInsert]) -> QueryResult<()> {
    // Far below the limit of 65,535 parameters a statement.
    for part in rows.chunks(1_000) {
        diesel::insert_into(change_log::table).values(part).execute(conn).await?;
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

/// Holds these overrides and returns those that are still there.
pub(crate) async fn lock_overrides(conn: &mut AsyncPgConnection, ids: &[DbUuid]) -> QueryResult<Vec<DbUuid>> {
    user_flag_overrides::table
        .filter(user_flag_overrides::id.eq_any(ids))
        .order(user_flag_overrides::id)
        .select(user_flag_overrides::id)
        .for_update()
        .load(conn)
        .await
}

/// Holds overrides whose end has passed. The row is checked again once it is held, since an admin may have extended it.
pub(crate) async fn claim_expired_overrides(
    conn: &mut AsyncPgConnection,
    now: DbInstant,
    limit: i64,
) -> QueryResult<Vec<DbUuid>> {
    user_flag_overrides::table
        .filter(user_flag_overrides::expires_at.le(now))
        // Others may have put in rows of flags that never were; the log could not name them.
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
struct Clock {
    #[diesel(sql_type = crate::sql_types::Instant)]
    now: DbInstant,
}

/// What the server's clock says.
pub(crate) async fn clock(conn: &mut AsyncPgConnection) -> QueryResult<DbInstant> {
    let clock: Clock = sql_query("SELECT clock_timestamp() AS now").get_result(conn).await?;
    Ok(clock.now)
}

/// A connection of its own that hears these channels.
pub(crate) async fn listen(url: &str, channels: &[&str]) -> Result<AsyncPgConnection> {
    let unavailable = |error: ConnectionError| StoreError::Unavailable(error.to_string());
    let mut conn = connect(url).await.map_err(unavailable)?;
    for channel in channels {
        conn.batch_execute(&format!("LISTEN {channel}")).await?;
    }
    Ok(conn)
}

/// Removes idempotency keys whose answer has this text in it.
pub(crate) async fn remove_answers_with(conn: &mut AsyncPgConnection, text: &str) -> QueryResult<()> {
    let query = sql_query("DELETE FROM idempotency_keys WHERE position(convert_to($1, 'UTF8') IN answer) > 0");
    query.bind::<Text, _>(text).execute(conn).await?;
    Ok(())
}

/// Rings a channel.
pub(crate) async fn notify(conn: &mut AsyncPgConnection, channel: &str) -> QueryResult<()> {
    conn.batch_execute(&format!("NOTIFY {channel}")).await
}

#[derive(QueryableByName)]
struct Lineage {
    #[diesel(sql_type = Text)]
    lineage: String,
}

/// Which cluster and timeline this is. `None` where the server does not say (some hosted ones do not).
pub(crate) async fn lineage(conn: &mut AsyncPgConnection) -> Result<Option<String>> {
    let query = "SELECT system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS lineage \
                 FROM pg_control_system()";
    match sql_query(query).get_result::<Lineage>(conn).await.map_err(StoreError::from) {
        Ok(found) => Ok(Some(found.lineage)),
        Err(StoreError::Refused(why)) => {
            tracing::debug!(why, "the server does not say which cluster and timeline it is");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Lets the queries of this transaction take as long as they need.
pub(crate) async fn lift_statement_timeout(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    conn.batch_execute("SET LOCAL statement_timeout = 0").await
}

/// Holds flags that have scheduled changes due at `now` which nobody has marked, and returns their names; those that another
/// transaction holds are passed over.
pub(crate) async fn claim_flags_with_due_changes(
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

impl Computing for Pg {
    const GREATER: &'static str = "GREATEST";
}

impl Explaining for Pg {
    const EXPLAIN: &'static str = "EXPLAIN ";
    type Columns = Text;
    type Line = String;

    fn text(line: String) -> String {
        line
    }
}

/// The share of users who have a text that is `LIKE` this, judged by about a thousand of them.
pub(crate) async fn estimated_share(conn: &mut AsyncPgConnection, pattern: &str) -> QueryResult<f64> {
    let query = sql_query(
        r"SELECT count(*) FILTER (WHERE search_text LIKE $1 ESCAPE '\')::float8 / greatest(count(*), 1) AS share
          FROM users TABLESAMPLE SYSTEM (
              (SELECT least(100, 100000 / greatest(reltuples, 1)) FROM pg_class WHERE oid = 'users'::regclass)
          )",
    );
    let row: Share = query.bind::<Text, _>(pattern).get_result(conn).await?;
    Ok(row.share)
}

#[derive(QueryableByName)]
struct Share {
    #[diesel(sql_type = Double)]
    share: f64,
}

/// Trigrams of a text that leave no two neighbours out. With all of them the index would have more to read and little
/// more to say.
pub(crate) fn trigrams(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let last = characters.len().saturating_sub(3);
    let starts = (0..last).step_by(2).chain([last]);
    starts.map(|start| characters.iter().skip(start).take(3).collect()).collect()
}

impl QueryFragment<Pg> for Indexed {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // How frequent the trigrams are decides on the plan.
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
    fn trigrams_leave_no_two_neighbours_out() {
        assert_eq!(trigrams("abc"), ["abc"]);
        assert_eq!(trigrams("abcd"), ["abc", "bcd"]);
        assert_eq!(trigrams("abcdef"), ["abc", "cde", "def"]);
        assert_eq!(trigrams("müßig@"), ["müß", "ßig", "ig@"]);
    }
}
