//! SQLite: connections, transactions, change detection and search.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path};

use diesel::{
    ConnectionError, ConnectionResult, ExpressionMethods, QueryDsl, QueryResult, QueryableByName,
    connection::{AnsiTransactionManager, Connection as _, SimpleConnection as _},
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_query,
    sql_types::{BigInt, Integer, Text},
    sqlite::{Sqlite, SqliteConnection},
};
use diesel_async::{
    RunQueryDsl,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, deadpool::Pool},
};
use futures_util::FutureExt as _;

use crate::{
    commit::ChangeLogInsert,
    error::{Result, StoreError},
    page::BoundedCount,
    schema::{change_log, feature_flags, user_flag_overrides},
    sql_types::{DbInstant, DbUuid},
    store::{AsyncSqliteConnection, CONNECTION_TIMEOUT},
    users::SearchIndexCondition,
};

use super::{ExplainSyntax, GreatestFunction};

/// Settings of every connection.
///
/// - `synchronous = FULL`: a commit is on disk before it is acknowledged.
/// - `busy_timeout` (milliseconds): how long a write waits while another process writes to the same file.
/// - `case_sensitive_like`: `LIKE` is case-sensitive, as on PostgreSQL.
const PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA case_sensitive_like = ON;";

pub(crate) fn pool(path: &Path, size: usize) -> Result<Pool<AsyncSqliteConnection>> {
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|path| {
        let path = path.to_owned();
        connect(path).boxed()
    });
    let path = path
        .to_str()
        .ok_or_else(|| StoreError::Unavailable("the path of the database file is not valid UTF-8".to_owned()))?;
    let manager = AsyncDieselConnectionManager::new_with_config(path, config);
    Pool::builder(manager)
        .max_size(size)
        .runtime(deadpool::Runtime::Tokio1)
        .wait_timeout(Some(CONNECTION_TIMEOUT))
        .create_timeout(Some(CONNECTION_TIMEOUT))
        .recycle_timeout(Some(CONNECTION_TIMEOUT))
        .build()
        .map_err(|e| StoreError::Unavailable(e.to_string()))
}

/// Opens a connection and applies [`PRAGMAS`]. Creates the file if it does not exist.
pub(crate) fn establish(path: &str) -> ConnectionResult<SqliteConnection> {
    // The file contains e-mail addresses and password hashes, so a new file is readable by its owner only. The mode of
    // an existing file is not changed.
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute(PRAGMAS).map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

async fn connect(path: String) -> ConnectionResult<AsyncSqliteConnection> {
    let established = tokio::task::spawn_blocking(move || establish(&path)).await;
    let conn = established.map_err(|error| ConnectionError::BadConnection(error.to_string()))??;
    Ok(AsyncSqliteConnection::new(conn))
}

/// Appends rows one by one: diesel-async has no batch insert for SQLite, and there are no network round trips to save.
pub(crate) async fn append_change_log(conn: &mut AsyncSqliteConnection, rows: &[ChangeLogInsert]) -> QueryResult<()> {
    for row in rows {
        diesel::insert_into(change_log::table).values(row).execute(conn).await?;
    }
    Ok(())
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

/// Returns the ids of overrides that expired at or before `now`. The transaction holds the write lock of the whole
/// file, so no row locks are needed.
pub(crate) async fn find_expired_overrides(
    conn: &mut AsyncSqliteConnection,
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
        .load(conn)
        .await
}

/// Removes idempotency keys with a stored response that contains `text`.
pub(crate) async fn delete_responses_containing(conn: &mut AsyncSqliteConnection, text: &str) -> QueryResult<()> {
    let query = sql_query("DELETE FROM idempotency_keys WHERE instr(answer, CAST(? AS BLOB)) > 0");
    query.bind::<Text, _>(text.to_owned()).execute(conn).await?;
    Ok(())
}

/// Counts the users that the full-text query finds, up to [`MAX_TOTAL`](crate::page::MAX_TOTAL) + 1.
pub(crate) async fn count_matches(conn: &mut AsyncSqliteConnection, query: FullTextQuery) -> QueryResult<i64> {
    BoundedCount(query).get_result(conn).await
}

#[derive(QueryableByName)]
struct DataVersionRow {
    #[diesel(sql_type = BigInt)]
    data_version: i64,
}

/// Opens a connection outside the pool.
pub(crate) async fn open(path: &Path) -> Result<AsyncSqliteConnection> {
    let unavailable = |error: ConnectionError| StoreError::Unavailable(error.to_string());
    connect(path.to_string_lossy().into_owned()).await.map_err(unavailable)
}

/// Returns SQLite's `data_version`. The value changes whenever another connection has committed a write.
pub(crate) async fn data_version(conn: &mut AsyncSqliteConnection) -> QueryResult<i64> {
    let row: DataVersionRow = sql_query("PRAGMA data_version").get_result(conn).await?;
    Ok(row.data_version)
}

impl GreatestFunction for Sqlite {
    const GREATEST: &'static str = "max";
}

impl ExplainSyntax for Sqlite {
    const EXPLAIN: &'static str = "EXPLAIN QUERY PLAN ";
    type PlanColumns = (Integer, Integer, Integer, Text);
    type PlanRow = (i32, i32, i32, String);

    fn description((.., detail): Self::PlanRow) -> String {
        detail
    }
}

/// Quotes `text` as an FTS5 phrase, so that no character has a special meaning.
pub(crate) fn quote_phrase(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Query for the row ids that the full-text index (`users_search`) returns for a phrase.
#[derive(Clone, Debug, QueryId)]
pub(crate) struct FullTextQuery {
    /// Phrase in FTS5 syntax.
    pub(crate) phrase: String,
}

impl QueryFragment<Sqlite> for FullTextQuery {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("SELECT rowid FROM users_search WHERE users_search MATCH ");
        out.push_bind_param::<Text, _>(&self.phrase)
    }
}

impl QueryFragment<Sqlite> for SearchIndexCondition {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("(users.search_doc IN (SELECT rowid FROM users_search WHERE users_search MATCH ");
        out.push_bind_param::<Text, _>(&self.phrase)?;
        out.push_sql(")");
        // The full-text index matches phrases exactly, so checking each text again is not needed. It would take most of
        // the query's time.
        if self.is_name_only {
            out.push_sql(" AND users.search_text LIKE ");
            out.push_bind_param::<Text, _>(&self.pattern)?;
            out.push_sql(r" ESCAPE '\'");
        }
        out.push_sql(")");
        Ok(())
    }
}
