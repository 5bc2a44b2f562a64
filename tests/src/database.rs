//! A database for one test, of either kind.

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _};
use flags_store::{DatabaseUrl, Store};
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};

use crate::cluster::{self, Cluster};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A database of one test's own, gone with it.
pub struct Database {
    pub url: String,
    _folder: Option<TempDir>,
}

impl Database {
    /// An empty one.
    pub async fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => {
                let folder = TempDir::with_prefix("flags-sqlite-").expect("a temporary folder");
                let url = format!("sqlite://{}", folder.path().join("flags.db").display());
                Self { url, _folder: Some(folder) }
            }
            Kind::Postgres => Self { url: create(cluster::shared(), "template0").await, _folder: None },
        }
    }

    /// One with the present schema.
    pub async fn migrated(kind: Kind) -> Self {
        if kind == Kind::Postgres {
            return Self { url: create(cluster::shared(), migrated_template().await).await, _folder: None };
        }
        let database = Self::empty(kind).await;
        database.store().await.migrate().await.expect("migrations apply");
        database
    }

    pub fn database_url(&self) -> DatabaseUrl {
        self.url.parse().expect("a database URL")
    }

    pub async fn store(&self) -> Store {
        Store::open(&self.database_url()).await.expect("the database opens")
    }
}

/// Migrating takes longer than copying what was migrated once.
async fn migrated_template() -> &'static str {
    static TEMPLATE: OnceCell<()> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let shared = cluster::shared();
            execute(&shared.url("postgres"), "CREATE DATABASE migrated").await;
            let url = shared.url("migrated").parse().expect("a database URL");
            let store = Store::open(&url).await.expect("the database opens");
            store.migrate().await.expect("migrations apply");
        })
        .await;
    "migrated"
}

/// Creates a database in `cluster` and returns its URL.
pub async fn create(cluster: &Cluster, template: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // A template cannot be copied while another copy is under way.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let _guard = ONE_AT_A_TIME.lock().await;
    execute(&cluster.url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    cluster.url(&name)
}

/// Runs a statement over a connection of its own.
pub async fn execute(url: &str, sql: &str) {
    let client = connect(url).await;
    client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Runs a statement past the application, on either database.
pub async fn tamper(url: &str, sql: &str) {
    match url.strip_prefix("sqlite://") {
        None => execute(url, sql).await,
        Some(path) => {
            let mut conn = SqliteConnection::establish(path).expect("the file opens");
            conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
    }
}

/// The same on rows of the log, which SQLite's triggers guard; they are gone after this.
pub async fn tamper_with_log(url: &str, sql: &str) {
    if url.starts_with("sqlite://") {
        let names = ["keeps_its_rows", "loses_no_row", "replaces_no_row"];
        let drops: String = names.map(|name| format!("DROP TRIGGER IF EXISTS change_log_{name};")).concat();
        tamper(url, &drops).await;
    }
    tamper(url, sql).await;
}

/// Runs a statement past the application that may be refused, on either database.
pub async fn try_tamper(url: &str, sql: &str) -> Result<(), String> {
    match url.strip_prefix("sqlite://") {
        None => {
            let outcome = connect(url).await.batch_execute(sql).await;
            outcome.map_err(|error| error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned()))
        }
        Some(path) => {
            let mut conn = SqliteConnection::establish(path).expect("the file opens");
            conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).map_err(|error| error.to_string())
        }
    }
}

/// All rows of a table, each as text; bytes as hexadecimal numbers.
pub async fn rows(url: &str, table: &str) -> Vec<String> {
    match url.strip_prefix("sqlite://") {
        None => query(url, &format!("SELECT t::text FROM {table} t ORDER BY 1")).await.into_iter().flatten().collect(),
        Some(path) => {
            let columns =
                texts(path, &format!("SELECT 'quote(' || name || ')' AS text FROM pragma_table_info('{table}')"));
            texts(path, &format!("SELECT {} AS text FROM {table} ORDER BY 1", columns.join(" || ',' || ")))
        }
    }
}

/// All tables.
pub async fn tables(url: &str) -> Vec<String> {
    match url.strip_prefix("sqlite://") {
        None => {
            let names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
            query(url, names).await.into_iter().flatten().collect()
        }
        Some(path) => texts(path, "SELECT name AS text FROM sqlite_master WHERE type = 'table'"),
    }
}

#[derive(diesel::QueryableByName)]
struct OneText {
    #[diesel(sql_type = diesel::sql_types::Text)]
    text: String,
}

fn texts(path: &str, sql: &str) -> Vec<String> {
    let mut conn = SqliteConnection::establish(path).expect("the file opens");
    let rows: Vec<OneText> = diesel::sql_query(sql).load(&mut conn).unwrap_or_else(|e| panic!("{sql}: {e}"));
    rows.into_iter().map(|row| row.text).collect()
}

/// The first column of what a query gives, as text.
pub async fn query(url: &str, sql: &str) -> Vec<Option<String>> {
    let client = connect(url).await;
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(ToOwned::to_owned)),
        _ => None,
    });
    rows.collect()
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the cluster answers");
    tokio::spawn(connection);
    client
}
