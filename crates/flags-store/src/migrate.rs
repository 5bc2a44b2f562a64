//! Migrations, compiled into the program, one folder a database with the same numbers and names.

use std::path::Path;

use diesel::{QueryableByName, backend::Backend, migration::MigrationSource, pg::Pg, sql_query, sql_types::Text};
use diesel_async::{
    AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::{
    backend,
    error::{Result, StoreError},
    store::{Store, on},
    url::DatabaseUrl,
};

const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// Any number will do that nobody else uses for an advisory lock on this database.
const LOCK: &str = "SELECT pg_advisory_lock(7224013390231)";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn failed(error: impl Into<BoxError>) -> StoreError {
    StoreError::Refused(format!("a migration failed: {}", error.into()))
}

/// What to do with a database's migrations.
#[derive(Clone, Copy)]
enum Task {
    Up,
    Down,
}

impl Task {
    fn carry_out<DB: Backend>(
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

/// Programs that start together migrate one after the other, under a lock. The connection is one of its own, as a
/// migration may take longer than the limits of a pooled one.
async fn postgres(url: &str, task: Task) -> Result<Vec<String>> {
    let mut conn = AsyncPgConnection::establish(url).await.map_err(|e| StoreError::Unavailable(e.to_string()))?;
    conn.batch_execute(LOCK).await?;
    task.carry_out(&mut AsyncMigrationHarness::new(conn), POSTGRES).map_err(failed)
}

/// The same; here the lock is the transaction around all migrations.
async fn sqlite(path: &Path, task: Task) -> Result<Vec<String>> {
    let path = path.to_string_lossy().into_owned();
    let work = move || {
        let mut conn = backend::sqlite::establish(&path).map_err(|e| StoreError::Unavailable(e.to_string()))?;
        conn.immediate_transaction(|conn| {
            let outcome = task.carry_out(conn, SQLITE);
            outcome.map_err(diesel::result::Error::QueryBuilderError)
        })
        .map_err(|error| match error {
            diesel::result::Error::QueryBuilderError(error) => failed(error),
            other => other.into(),
        })
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Refused(e.to_string()))?
}

async fn carry_out(url: &DatabaseUrl, task: Task) -> Result<Vec<String>> {
    match url {
        DatabaseUrl::Postgres(url) => postgres(url, task).await,
        DatabaseUrl::Sqlite(path) => sqlite(path, task).await,
    }
}

/// Applies all that are missing and returns their versions.
pub(crate) async fn up(url: &DatabaseUrl) -> Result<Vec<String>> {
    carry_out(url, Task::Up).await
}

/// Takes all back, newest first, and returns their versions. Everything that is stored is lost.
pub async fn down(url: &DatabaseUrl) -> Result<Vec<String>> {
    carry_out(url, Task::Down).await
}

/// Whether all migrations of this program, and no later ones, are applied. Only looks: needs no right to change anything.
pub(crate) async fn is_current(store: &Store) -> Result<bool> {
    let known = MigrationSource::<Pg>::migrations(&POSTGRES).map_err(failed)?;
    let mut known: Vec<_> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    let query = "SELECT version FROM __diesel_schema_migrations";
    let applied = on!(store.conn().await?, |c| sql_query(query).load::<Applied>(c).await);
    let mut applied: Vec<_> = match applied {
        Ok(rows) => rows.into_iter().map(|row| row.version).collect(),
        // There is no such table yet, in the words of either database.
        Err(StoreError::Refused(why)) if why.contains("does not exist") || why.contains("no such table") => Vec::new(),
        Err(error) => return Err(error),
    };
    known.sort();
    applied.sort();
    Ok(applied == known)
}

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}
