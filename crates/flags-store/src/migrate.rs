//! Schema migrations, compiled into the program. Each database has its own folder, with the same versions and names.

use std::path::Path;

use diesel::{QueryableByName, backend::Backend, migration::MigrationSource, pg::Pg, sql_query, sql_types::Text};
use diesel_async::{
    AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::{
    backend,
    conn::dispatch,
    error::{Result, StoreError},
    store::Store,
    url::DatabaseUrl,
};

const POSTGRES_MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
const SQLITE_MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// Takes an advisory lock under an arbitrary key that must be unique to this program within the database.
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
            Self::Down => harness.revert_all_migrations(source)?,
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
    /// Applies all pending migrations and returns their versions.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        run(self.url(), Direction::Up).await
    }

    /// Returns whether the applied migrations are exactly the ones compiled into this program. Needs only read access.
    pub async fn is_migrated(&self) -> Result<bool> {
        let known = MigrationSource::<Pg>::migrations(&POSTGRES_MIGRATIONS).map_err(migration_failed)?;
        let mut known: Vec<_> = known.iter().map(|migration| migration.name().version().to_string()).collect();
        let mut applied = find_applied_versions(self).await?;
        known.sort();
        applied.sort();
        Ok(applied == known)
    }
}

/// Reverts all migrations, newest first, and returns their versions. This deletes all stored data.
pub async fn down(url: &DatabaseUrl) -> Result<Vec<String>> {
    run(url, Direction::Down).await
}

/// Returns the versions of the applied migrations.
async fn find_applied_versions(store: &Store) -> Result<Vec<String>> {
    let query = "SELECT version FROM __diesel_schema_migrations";
    match dispatch!(store.conn().await?, |c| sql_query(query).load::<MigrationRow>(c).await) {
        Ok(rows) => Ok(rows.into_iter().map(|row| row.version).collect()),
        // PostgreSQL and SQLite report with these messages that the migrations table does not exist yet.
        Err(StoreError::Database(message))
            if message.contains("does not exist") || message.contains("no such table") =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

#[derive(QueryableByName)]
struct MigrationRow {
    #[diesel(sql_type = Text)]
    version: String,
}
