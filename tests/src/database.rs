//! SQLite and PostgreSQL databases for single tests, and SQL statements that bypass the application.

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _};
use flags_store::{DatabaseUrl, Store};
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};

use crate::cluster::{self, Cluster};

/// Database system on which a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    Sqlite,
    Postgres,
}

/// A database for one test. A SQLite file is deleted on drop; a PostgreSQL database is deleted with its cluster.
pub struct Database {
    pub url: String,
    _folder: Option<TempDir>,
}

impl Database {
    /// Creates a database without a schema.
    pub async fn empty(kind: DatabaseKind) -> Self {
        match kind {
            DatabaseKind::Sqlite => {
                let folder = TempDir::with_prefix("flags-sqlite-").expect("temporary folder can be created");
                let url = format!("sqlite://{}", folder.path().join("flags.db").display());
                Self { url, _folder: Some(folder) }
            }
            DatabaseKind::Postgres => {
                Self { url: create_database(cluster::shared(), "template0").await, _folder: None }
            }
        }
    }

    /// Creates a database with the current schema.
    pub async fn migrated(kind: DatabaseKind) -> Self {
        if kind == DatabaseKind::Postgres {
            let url = create_database(cluster::shared(), migrated_template().await).await;
            return Self { url, _folder: None };
        }
        let database = Self::empty(kind).await;
        database.store().await.migrate().await.expect("migrations succeed");
        database
    }

    pub fn database_url(&self) -> DatabaseUrl {
        self.url.parse().expect("database URL is valid")
    }

    pub async fn store(&self) -> Store {
        Store::open(&self.database_url()).await.expect("database can be opened")
    }
}

/// Returns the name of a database with the current schema. Copying it is faster than migrating each database.
async fn migrated_template() -> &'static str {
    static TEMPLATE: OnceCell<()> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let shared = cluster::shared();
            execute_postgres(&shared.url("postgres"), "CREATE DATABASE migrated").await;
            let url = shared.url("migrated").parse().expect("database URL is valid");
            let store = Store::open(&url).await.expect("database can be opened");
            store.migrate().await.expect("migrations succeed");
        })
        .await;
    "migrated"
}

/// Creates a PostgreSQL database as a copy of `template` and returns its URL.
pub async fn create_database(cluster: &Cluster, template: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // PostgreSQL rejects concurrent copies of one template.
    static COPY_LOCK: Mutex<()> = Mutex::const_new(());
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let _guard = COPY_LOCK.lock().await;
    execute_postgres(&cluster.url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    cluster.url(&name)
}

/// Executes SQL statements on PostgreSQL over a new connection.
pub async fn execute_postgres(url: &str, sql: &str) {
    let client = connect(url).await;
    client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Executes SQL statements on either database without the application, so that they are not in the change log.
pub async fn execute_raw(url: &str, sql: &str) {
    match url.strip_prefix("sqlite://") {
        None => execute_postgres(url, sql).await,
        Some(path) => {
            let mut conn = SqliteConnection::establish(path).expect("database file can be opened");
            conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
    }
}

/// Like [`execute_raw`], for statements that modify rows of the change log. On SQLite, first drops the triggers that
/// reject such statements; they stay dropped.
pub async fn execute_raw_on_change_log(url: &str, sql: &str) {
    if url.starts_with("sqlite://") {
        let names = ["keeps_its_rows", "loses_no_row", "replaces_no_row"];
        let drops: String = names.map(|name| format!("DROP TRIGGER IF EXISTS change_log_{name};")).concat();
        execute_raw(url, &drops).await;
    }
    execute_raw(url, sql).await;
}

/// Like [`execute_raw`], but returns the error message of the database if a statement fails.
pub async fn try_execute_raw(url: &str, sql: &str) -> Result<(), String> {
    match url.strip_prefix("sqlite://") {
        None => {
            let result = connect(url).await.batch_execute(sql).await;
            result.map_err(|error| error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned()))
        }
        Some(path) => {
            let mut conn = SqliteConnection::establish(path).expect("database file can be opened");
            conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).map_err(|error| error.to_string())
        }
    }
}

/// Returns all rows of a table, sorted, each as text. Binary values are hexadecimal.
pub async fn table_rows(url: &str, table: &str) -> Vec<String> {
    match url.strip_prefix("sqlite://") {
        None => {
            let sql = format!("SELECT t::text FROM {table} t ORDER BY 1");
            query_postgres(url, &sql).await.into_iter().flatten().collect()
        }
        Some(path) => {
            let columns = query_sqlite(
                path,
                &format!("SELECT 'quote(' || name || ')' AS text FROM pragma_table_info('{table}')"),
            );
            query_sqlite(path, &format!("SELECT {} AS text FROM {table} ORDER BY 1", columns.join(" || ',' || ")))
        }
    }
}

/// Returns the names of all tables.
pub async fn table_names(url: &str) -> Vec<String> {
    match url.strip_prefix("sqlite://") {
        None => {
            let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
            query_postgres(url, sql).await.into_iter().flatten().collect()
        }
        Some(path) => query_sqlite(path, "SELECT name AS text FROM sqlite_master WHERE type = 'table'"),
    }
}

/// Returns the names and SQL types of the columns of a table, in order. Omits generated columns of PostgreSQL.
pub async fn table_columns(url: &str, table: &str) -> Vec<(String, String)> {
    let columns = match url.strip_prefix("sqlite://") {
        None => {
            let sql = format!(
                "SELECT column_name || ' ' || data_type FROM information_schema.columns
                 WHERE table_schema = 'public' AND table_name = '{table}' AND is_generated = 'NEVER'
                 ORDER BY ordinal_position"
            );
            query_postgres(url, &sql).await.into_iter().flatten().collect()
        }
        Some(path) => {
            query_sqlite(path, &format!("SELECT name || ' ' || type AS text FROM pragma_table_info('{table}')"))
        }
    };
    let split = |column: String| column.split_once(' ').map(|(name, kind)| (name.to_owned(), kind.to_owned()));
    columns.into_iter().filter_map(split).collect()
}

#[derive(diesel::QueryableByName)]
struct TextRow {
    #[diesel(sql_type = diesel::sql_types::Text)]
    text: String,
}

/// Runs a query that selects one column named `text`.
fn query_sqlite(path: &str, sql: &str) -> Vec<String> {
    let mut conn = SqliteConnection::establish(path).expect("database file can be opened");
    let rows: Vec<TextRow> = diesel::sql_query(sql).load(&mut conn).unwrap_or_else(|e| panic!("{sql}: {e}"));
    rows.into_iter().map(|row| row.text).collect()
}

/// Runs a query on PostgreSQL and returns the first column as text. `None` is SQL NULL.
pub async fn query_postgres(url: &str, sql: &str) -> Vec<Option<String>> {
    let client = connect(url).await;
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(ToOwned::to_owned)),
        _ => None,
    });
    rows.collect()
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("PostgreSQL accepts connections");
    tokio::spawn(connection);
    client
}
