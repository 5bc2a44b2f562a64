//! Migrations, compiled into the program, one folder a database with the same numbers and names.

use diesel::migration::MigrationSource as _;
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::{
    backend,
    error::{Result, StoreError},
    url::DatabaseUrl,
};

const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// Any number will do that nobody else uses for an advisory lock on this database.
const LOCK: &str = "SELECT pg_advisory_lock(7224013390231)";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn failed(error: impl Into<BoxError>) -> StoreError {
    let error = error.into();
    StoreError::Refused(format!("a migration failed: {error}"))
}

/// Opens a connection of its own, as a migration may take longer than the limits of a pooled one.
async fn postgres(url: &str) -> Result<AsyncPgConnection> {
    AsyncPgConnection::establish(url).await.map_err(|e| StoreError::Unavailable(e.to_string()))
}

/// Runs `$body` with a migration harness and the migrations of the database at `$url`. Programs that start together
/// migrate one after the other.
macro_rules! with_harness {
    ($url:expr, |$harness:ident, $source:ident| $body:expr) => {
        match $url {
            DatabaseUrl::Postgres(url) => {
                let mut conn = postgres(url).await?;
                conn.batch_execute(LOCK).await?;
                let mut $harness = AsyncMigrationHarness::new(conn);
                let $source = POSTGRES;
                $body
            }
            DatabaseUrl::Sqlite(path) => {
                let path = path.to_string_lossy();
                let conn = backend::sqlite::connect(&path).await;
                let conn = conn.map_err(|e| StoreError::Unavailable(e.to_string()))?;
                let mut $harness = AsyncMigrationHarness::new(conn);
                let $source = SQLITE;
                $body
            }
        }
    };
}

/// Applies all that are missing and returns their versions.
pub(crate) async fn up(url: &DatabaseUrl) -> Result<Vec<String>> {
    with_harness!(url, |harness, source| {
        let versions = harness.run_pending_migrations(source).map_err(failed)?;
        Ok(versions.into_iter().map(|version| version.to_string()).collect())
    })
}

/// Takes all back, newest first, and returns their versions. Everything that is stored is lost.
pub async fn down(url: &DatabaseUrl) -> Result<Vec<String>> {
    with_harness!(url, |harness, source| {
        let versions = harness.revert_all_migrations(source).map_err(failed)?;
        Ok(versions.into_iter().map(|version| version.to_string()).collect())
    })
}

/// Whether all migrations of this program, and no later ones, are applied.
pub(crate) async fn is_current(url: &DatabaseUrl) -> Result<bool> {
    with_harness!(url, |harness, source| {
        let applied = harness.applied_migrations().map_err(failed)?.len();
        Ok(applied == count(&source)?)
    })
}

fn count(source: &EmbeddedMigrations) -> Result<usize> {
    let migrations = source.migrations();
    let migrations: Vec<Box<dyn diesel::migration::Migration<diesel::pg::Pg>>> = migrations.map_err(failed)?;
    Ok(migrations.len())
}
