//! Schema migrations, compiled into the program. The migrations for PostgreSQL and SQLite have the
//! same versions and names.

use std::path::Path;

use diesel::{
    OptionalExtension as _, QueryDsl as _, QueryableByName, backend::Backend, migration::MigrationSource, pg::Pg,
    sql_query, sql_types::Text,
};
use diesel_async::{
    AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::{
    backend,
    change_log::{self, decode_head_column, missing_head},
    conn::{Conn, dispatch},
    decoded::Decoded,
    error::{Result, StoreError},
    schema::log_head,
    store::Store,
    url::DatabaseUrl,
    users::email_keys,
    version::check_writer,
};

const POSTGRES_MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
const SQLITE_MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// Takes an advisory lock. The key is arbitrary, but no other program may use it in the same
/// database.
const ADVISORY_LOCK: &str = "SELECT pg_advisory_lock(7224013390231)";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn migration_failed(error: impl Into<BoxError>) -> StoreError {
    StoreError::Database(format!("migration failed: {}", error.into()))
}

/// Direction of a migration run.
#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    fn run<DB: Backend>(
        self,
        harness: &mut impl MigrationHarness<DB>,
        source: impl MigrationSource<DB>,
    ) -> std::result::Result<Vec<String>, BoxError> {
        let versions = match self {
            Self::Up => harness.run_pending_migrations(source)?,
            Self::Down => {
                // A migration that this program does not contain was applied by a newer version.
                // Only that version can revert it.
                let known: Vec<_> =
                    source.migrations()?.iter().map(|known| known.name().version().to_string()).collect();
                let applied = harness.applied_migrations()?.into_iter().map(|version| version.to_string());
                let unknown: Vec<_> = applied.filter(|version| !known.contains(version)).collect();
                if !unknown.is_empty() {
                    let unknown = unknown.join(", ");
                    return Err(
                        format!("a newer version has applied migration {unknown}; revert with that version").into()
                    );
                }
                harness.revert_all_migrations(source)?
            }
        };
        Ok(versions.into_iter().map(|version| version.to_string()).collect())
    }
}

/// Runs migrations under an advisory lock, so that processes that start concurrently take turns.
///
/// Does not use a pooled connection, because a migration may take longer than its statement timeout.
async fn migrate_postgres(url: &str, direction: Direction) -> Result<Vec<String>> {
    let mut conn = AsyncPgConnection::establish(url).await.map_err(StoreError::unavailable)?;
    conn.batch_execute(ADVISORY_LOCK).await?;
    direction.run(&mut AsyncMigrationHarness::new(conn), POSTGRES_MIGRATIONS).map_err(migration_failed)
}

/// Runs all migrations in one transaction, whose file lock makes concurrent processes take turns.
async fn migrate_sqlite(path: &Path, direction: Direction) -> Result<Vec<String>> {
    let path = path.to_string_lossy().into_owned();
    let migration = tokio::task::spawn_blocking(move || migrate_sqlite_blocking(&path, direction));
    migration.await.map_err(|e| StoreError::Database(e.to_string()))?
}

fn migrate_sqlite_blocking(path: &str, direction: Direction) -> Result<Vec<String>> {
    let mut conn = backend::sqlite::establish(path).map_err(StoreError::unavailable)?;
    conn.immediate_transaction(|conn| {
        let outcome = direction.run(conn, SQLITE_MIGRATIONS);
        outcome.map_err(diesel::result::Error::QueryBuilderError)
    })
    .map_err(|error| match error {
        diesel::result::Error::QueryBuilderError(error) => migration_failed(error),
        other => other.into(),
    })
}

async fn run(url: &DatabaseUrl, direction: Direction) -> Result<Vec<String>> {
    match url {
        DatabaseUrl::Postgres(url) => migrate_postgres(url, direction).await,
        DatabaseUrl::Sqlite(path) => migrate_sqlite(path, direction).await,
    }
}

impl Store {
    /// Applies all pending migrations, completes the upgrades that they require, and returns the versions of the
    /// applied migrations. Fails like [`is_migrated`](Self::is_migrated).
    pub async fn migrate(&self) -> Result<Vec<String>> {
        self.is_migrated().await?;
        let applied = run(self.url(), Direction::Up).await?;
        email_keys::recompute(self).await?;
        Ok(applied)
    }

    /// Returns whether all migrations that are compiled into this program are applied, and no
    /// upgrade is pending. Needs only read access.
    ///
    /// A newer version may have applied further migrations. The minimum versions in `log_head`
    /// determine whether this program may then use the database.
    ///
    /// # Errors
    /// [`StoreError::Outdated`] if the database requires a newer version of this program.
    /// [`StoreError::ChangeLogUnreadable`] if `log_head` cannot be read. [`StoreError::Corrupt`] if
    /// the table of applied migrations is missing or incomplete.
    pub async fn is_migrated(&self) -> Result<bool> {
        let known = known_versions()?;
        let mut conn = self.conn().await?;
        let Some(applied) = find_applied_versions(&mut conn).await? else {
            return match table_exists(&mut conn, "SELECT 1 AS found FROM log_head").await? {
                true => Err(incomplete("the table does not exist, but other tables do")),
                false => Ok(false),
            };
        };
        let count = known.iter().take_while(|version| applied.contains(version)).count();
        if let Some(later) = known[count..].iter().find(|version| applied.contains(version)) {
            return Err(incomplete(&format!("migration {later} is applied, but {} is not", known[count])));
        }
        if applied.iter().any(|version| version == VERSIONS_MIGRATION) {
            check_versions(&mut conn).await?;
        }
        Ok(count == known.len() && !email_keys::is_pending(&mut conn).await?)
    }
}

/// Returns the versions of the migrations that are compiled into this program, in order.
fn known_versions() -> Result<Vec<String>> {
    let known = MigrationSource::<Pg>::migrations(&POSTGRES_MIGRATIONS).map_err(migration_failed)?;
    let mut known: Vec<_> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    known.sort();
    Ok(known)
}

/// Version of the migration that adds the minimum versions to `log_head`.
const VERSIONS_MIGRATION: &str = "00000000000007";

fn incomplete(detail: &str) -> StoreError {
    StoreError::corrupt("__diesel_schema_migrations", format!("{detail}; restore the table from a backup"))
}

/// Checks the versions of this program against the minimum versions in `log_head`.
async fn check_versions(conn: &mut Conn) -> Result<()> {
    change_log::head(conn).await?;
    let min_writer: Option<Decoded<i32>> =
        dispatch!(conn, |c| log_head::table.select(log_head::min_writer).first(c).await.optional())?;
    check_writer(decode_head_column(min_writer.ok_or_else(missing_head)?)?)
}

/// Reverts all migrations, newest first, and returns their versions. This deletes all stored data.
pub async fn down(url: &DatabaseUrl) -> Result<Vec<String>> {
    run(url, Direction::Down).await
}

/// Returns the versions of the applied migrations. `None` if their table does not exist.
async fn find_applied_versions(conn: &mut Conn) -> Result<Option<Vec<String>>> {
    let query = "SELECT version FROM __diesel_schema_migrations";
    match dispatch!(conn, |c| sql_query(query).load::<MigrationRow>(c).await) {
        Ok(rows) => Ok(Some(rows.into_iter().map(|row| row.version).collect())),
        Err(error) if is_missing_table(&error) => Ok(None),
        Err(StoreError::Corrupt(detail)) => Err(incomplete(&detail)),
        Err(error) => Err(error),
    }
}

/// Returns whether the table that `query` reads exists.
async fn table_exists(conn: &mut Conn, query: &str) -> Result<bool> {
    match dispatch!(conn, |c| sql_query(query).execute(c).await) {
        Ok(_) => Ok(true),
        Err(error) if is_missing_table(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Recognizes the messages of PostgreSQL and SQLite.
fn is_missing_table(error: &StoreError) -> bool {
    matches!(error, StoreError::Database(message)
        if message.contains("does not exist") || message.contains("no such table"))
}

#[derive(QueryableByName)]
struct MigrationRow {
    #[diesel(sql_type = Text)]
    version: String,
}
