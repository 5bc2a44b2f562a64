//! SQLite: connections and transactions.

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
    page::CountUpTo,
    schema::{change_log, feature_flags, user_flag_overrides},
    sql_types::{DbInstant, DbUuid},
    store::{AsyncSqliteConnection, CONNECTION_TIMEOUT},
    users::Indexed,
};

use super::{Computing, Explaining};

/// `synchronous = FULL`: a commit is on disk before it is acknowledged. The busy timeout (milliseconds) is for writers of
/// other processes on the same file. LIKE minds case, as in PostgreSQL.
const PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA case_sensitive_like = ON;";

pub(crate) fn pool(path: &Path, size: usize) -> Result<Pool<AsyncSqliteConnection>> {
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|path| {
        let path = path.to_owned();
        connect(path).boxed()
    });
    let path = path.to_str().ok_or_else(|| StoreError::Unavailable("the file's path is not UTF-8".to_owned()))?;
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

/// A connection as this program wants it.
pub(crate) fn establish(path: &str) -> ConnectionResult<SqliteConnection> {
    // The file holds e-mails and hashes of passwords. If it is there already, its owner has said who may read it.
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut conn = SqliteConnection::establish(path)?;
    conn.batch_execute(PRAGMAS).map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

async fn connect(path: String) -> ConnectionResult<AsyncSqliteConnection> {
    let made = tokio::task::spawn_blocking(move || establish(&path)).await;
    let conn = made.map_err(|error| ConnectionError::BadConnection(error.to_string()))??;
    Ok(AsyncSqliteConnection::new(conn))
}

/// Row by row: diesel-async has no batch insert for SQLite, and there are no round trips to save.
pub(crate) async fn append_log(conn: &mut AsyncSqliteConnection, rows: &[ChangeLogInsert]) -> QueryResult<()> {
    for row in rows {
        diesel::insert_into(change_log::table).values(row).execute(conn).await?;
    }
    Ok(())
}

/// Takes the file's write lock at once: a transaction that began by reading could not take it later.
pub(crate) async fn begin_write(conn: &mut AsyncSqliteConnection) -> QueryResult<()> {
    begin(conn, "BEGIN IMMEDIATE").await
}

pub(crate) async fn begin_snapshot(conn: &mut AsyncSqliteConnection) -> QueryResult<()> {
    begin(conn, "BEGIN").await
}

async fn begin(conn: &mut AsyncSqliteConnection, sql: &'static str) -> QueryResult<()> {
    conn.spawn_blocking(move |conn| AnsiTransactionManager::begin_transaction_sql(conn, sql)).await
}

/// Overrides whose end has passed. The transaction holds the whole file, so nobody else can be at them.
pub(crate) async fn expired_overrides(
    conn: &mut AsyncSqliteConnection,
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
        .load(conn)
        .await
}

/// Removes idempotency keys whose answer has this text in it.
pub(crate) async fn remove_answers_with(conn: &mut AsyncSqliteConnection, text: &str) -> QueryResult<()> {
    let query = sql_query("DELETE FROM idempotency_keys WHERE instr(answer, CAST(? AS BLOB)) > 0");
    query.bind::<Text, _>(text.to_owned()).execute(conn).await?;
    Ok(())
}

/// How many users the search index finds, up to one more than [`MAX_TOTAL`](crate::page::MAX_TOTAL).
pub(crate) async fn count_up_to(conn: &mut AsyncSqliteConnection, found: Found) -> QueryResult<i64> {
    CountUpTo(found).get_result(conn).await
}

#[derive(QueryableByName)]
struct DataVersion {
    #[diesel(sql_type = BigInt)]
    data_version: i64,
}

/// A connection of its own.
pub(crate) async fn open(path: &Path) -> Result<AsyncSqliteConnection> {
    let unavailable = |error: ConnectionError| StoreError::Unavailable(error.to_string());
    connect(path.to_string_lossy().into_owned()).await.map_err(unavailable)
}

/// A number that differs from the last one seen by this connection if another connection has written since.
pub(crate) async fn data_version(conn: &mut AsyncSqliteConnection) -> QueryResult<i64> {
    let version: DataVersion = sql_query("PRAGMA data_version").get_result(conn).await?;
    Ok(version.data_version)
}

impl Computing for Sqlite {
    const GREATER: &'static str = "max";
}

impl Explaining for Sqlite {
    const EXPLAIN: &'static str = "EXPLAIN QUERY PLAN ";
    type Columns = (Integer, Integer, Integer, Text);
    type Line = (i32, i32, i32, String);

    fn text((.., detail): Self::Line) -> String {
        detail
    }
}

/// A text as the search index is asked for it: letter by letter.
pub(crate) fn phrase(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// What the search index finds.
#[derive(Clone, Debug, QueryId)]
pub(crate) struct Found {
    pub(crate) phrase: String,
}

impl QueryFragment<Sqlite> for Found {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("SELECT rowid FROM users_search WHERE users_search MATCH ");
        out.push_bind_param::<Text, _>(&self.phrase)
    }
}

impl QueryFragment<Sqlite> for Indexed {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("(users.search_doc IN (SELECT rowid FROM users_search WHERE users_search MATCH ");
        out.push_bind_param::<Text, _>(&self.phrase)?;
        out.push_sql(")");
        // A phrase is found exactly; to read each text once more would take longer than all the rest.
        if self.within_name {
            out.push_sql(" AND users.search_text LIKE ");
            out.push_bind_param::<Text, _>(&self.pattern)?;
            out.push_sql(r" ESCAPE '\'");
        }
        out.push_sql(")");
        Ok(())
    }
}
