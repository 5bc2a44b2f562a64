//! Corrupts every column of every table with values that its type allows. Each step corrupts one column of each table
//! in many rows, with a different value in each row.

use std::fmt::Write as _;

use flags_service::{Runtime, maintenance};
use serde_json::{Value, json};

use flags_tests::{
    app::{PASSWORD, TestApp, override_path},
    caller::Caller,
    database::{Database, DatabaseKind, execute_raw, query_postgres, table_columns, table_names, try_execute_raw},
    on_both_databases,
};

on_both_databases! {
    unreadable_rows_do_not_affect_other_rows,
}

/// A targeting rule with an operator that this version does not know.
const UNKNOWN_OPERATOR: &str = r#"'[{"id": "r", "conditions": [{"attribute": "plan", "operator": "resembles", "values": ["x"]}],
    "serve": {"variant": "on"}}]'"#;
/// A targeting rule with a field that this version does not know.
const UNKNOWN_FIELD: &str = r#"'[{"id": "r", "conditions": [], "serve": {"variant": "on"}, "future": 1}]'"#;

/// Corrupt values for all SQLite columns. SQLite stores any value in any column.
const SQLITE_VALUES: [&str; 15] = [
    "NULL",
    "''",
    "'not json'",
    "'[7]'",
    r#"'{"x": 1}'"#,
    r#"'"text"'"#,
    "x'00ff'",
    "CAST(x'ff' AS TEXT)",
    "-1",
    "9223372036854775807",
    "1.5",
    "'1e999'",
    r#"'{"variant": "on", "future": 1}'"#,
    UNKNOWN_OPERATOR,
    UNKNOWN_FIELD,
];

/// Number of corrupted rows in each table.
const VICTIMS: usize = SQLITE_VALUES.len();

/// Returns corrupt values for a PostgreSQL column of this data type.
fn postgres_values(data_type: &str) -> &'static [&'static str] {
    match data_type {
        "jsonb" => &[
            "NULL",
            r#"'"text"'"#,
            "'7'",
            "'[7]'",
            r#"'{"x": 1}'"#,
            "'null'",
            "'1e999'",
            r#"'{"variant": "on", "future": 1}'"#,
            UNKNOWN_OPERATOR,
            UNKNOWN_FIELD,
        ],
        "boolean" => &["NULL"],
        "timestamp with time zone" => &["NULL", "'infinity'", "'-infinity'", "'4000-01-01 BC'"],
        "bigint" => &["NULL", "-1", "9223372036854775807"],
        "integer" | "smallint" => &["NULL", "-1"],
        "uuid" => &["NULL", "'00000000-0000-0000-0000-000000000000'"],
        "bytea" => &["NULL", "''", "'\\x00ff'"],
        _ => &["NULL", "''", "'Not Known'"],
    }
}

/// Tables that the module `single_rows` tests.
const SINGLE_ROW_TABLES: [&str; 3] = ["log_head", "service_keys", "__diesel_schema_migrations"];

/// A table with rows to corrupt.
#[derive(Clone)]
struct Table {
    name: String,
    /// All columns except `victim`.
    columns: Vec<Column>,
}

#[derive(Clone)]
struct Column {
    name: String,
    data_type: String,
}

/// A running application with rows to corrupt in every table. These rows have a number in the column `victim`, which
/// the application does not know.
struct Fixture {
    kind: DatabaseKind,
    app: TestApp,
    /// User whose rows are never corrupted, except for overrides.
    ann: Caller,
    ann_id: String,
    browser: Caller,
    tables: Vec<Table>,
    is_healthy_on: bool,
    failures: Vec<String>,
}

impl Fixture {
    async fn new(kind: DatabaseKind) -> Self {
        let database = Database::migrated(kind).await;
        drop_constraints(kind, &database.url).await;
        let app = TestApp::start_on(database).await;
        let (ann_id, ann) = app.create_user_with("ann", "user", json!({"plan": "pro"})).await;
        let (_, email) = app.create_account("ben", "admin").await;
        let browser = app.anonymous.sign_in(&email, PASSWORD).await;
        app.create_boolean_flag("healthy").await;
        for number in 0..VICTIMS {
            app.create_boolean_flag(&format!("victim{number}")).await;
            let flag = format!("changing{number}");
            app.create_boolean_flag(&flag).await;
            let change = json!({"scheduled_at": "2031-01-01T00:00:00Z", "enabled": false});
            let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
            app.admin.post(&path, &change).await.expect(201);
            app.admin.put(&override_path(&ann_id, &flag), &json!({"override_value": true})).await.expect(201);
            app.create_user(&format!("victim{number}")).await;
            app.admin.post("/api/admin/api-tokens", &json!({"name": "victim", "role": "admin"})).await.expect(201);
        }
        execute_raw(&app.database.url, &victims_sql(kind)).await;
        let mut tables = Vec::new();
        for table in table_names(&app.database.url).await {
            let is_index = table.starts_with("users_search") || table.starts_with("sqlite_");
            if !is_index && !SINGLE_ROW_TABLES.contains(&table.as_str()) {
                let columns = table_columns(&app.database.url, &table).await.into_iter();
                let columns = columns.filter(|(name, _)| name != "victim");
                let columns = columns.map(|(name, data_type)| Column { name, data_type }).collect();
                tables.push(Table { name: table, columns });
            }
        }
        let save = |Table { name, .. }: &Table| {
            format!("CREATE TABLE saved_{name} AS SELECT * FROM {name} WHERE victim IS NOT NULL;")
        };
        execute_raw(&app.database.url, &tables.iter().map(save).collect::<String>()).await;
        assert_eq!(tables.len(), 13, "a new table needs victims in `victims_sql`");
        Self { kind, app, ann, ann_id, browser, tables, is_healthy_on: true, failures: Vec::new() }
    }

    fn fail(&mut self, label: &str, failure: &str) {
        self.failures.push(format!("{label}: {failure}"));
    }

    async fn corrupt(&self, Table { name: table, .. }: &Table, Column { name: column, data_type }: &Column) {
        let values = match self.kind {
            DatabaseKind::Sqlite => &SQLITE_VALUES,
            DatabaseKind::Postgres => postgres_values(data_type),
        };
        let mut results = Vec::new();
        for (number, value) in values.iter().enumerate() {
            // Some updates fail, because primary keys reject NULL.
            let sql = format!("UPDATE {table} SET {column} = {value} WHERE victim = {number}");
            results.push(try_execute_raw(&self.app.database.url, &self.without_foreign_keys(&sql)).await);
        }
        assert!(results.iter().any(Result::is_ok), "{table}.{column}: {results:?}");
    }

    /// Returns the statement with the setting that makes SQLite ignore foreign keys.
    fn without_foreign_keys(&self, sql: &str) -> String {
        match self.kind {
            DatabaseKind::Sqlite => format!("PRAGMA foreign_keys = OFF; {sql}"),
            DatabaseKind::Postgres => sql.to_owned(),
        }
    }

    async fn restore(&self, Table { name: table, columns }: &Table) {
        let columns = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let delete = format!("DELETE FROM {table} WHERE victim IS NOT NULL");
        let insert = format!("INSERT INTO {table} ({columns}, victim) SELECT {columns}, victim FROM saved_{table}");
        let sql = self.without_foreign_keys(&format!("BEGIN; {delete}; {insert}; COMMIT;"));
        execute_raw(&self.app.database.url, &sql).await;
    }

    /// Records a failure for each operation that fails although the corrupted rows must not affect it.
    async fn check(&mut self, label: &str) {
        self.is_healthy_on = !self.is_healthy_on;
        let patch = json!({"default": {"variant": if self.is_healthy_on { "on" } else { "off" }}});
        let response = self.app.admin.patch("/api/admin/feature-flags/healthy", &patch).await;
        if response.status != 200 {
            self.fail(label, &format!("change of a healthy flag: {}", response.text));
        }
        let own_flags = self.ann.get("/api/flags/me").await;
        if own_flags.json()["flags"]["healthy"]["value"] != self.is_healthy_on {
            self.fail(label, &format!("own flags: {}", own_flags.text));
        }
        let paths = [
            "/api/admin/feature-flags?limit=100".to_owned(),
            "/api/admin/feature-flags?limit=100&sort=-updated_at".to_owned(),
            "/api/admin/feature-flags/healthy".to_owned(),
            "/api/admin/feature-flags/healthy/user-overrides".to_owned(),
            "/api/admin/users?limit=100".to_owned(),
            "/api/admin/users?limit=100&sort=-created_at".to_owned(),
            "/api/admin/users?limit=100&search=an".to_owned(),
            "/api/admin/users?limit=100&search=ann@".to_owned(),
            "/api/admin/users?limit=100&has_overrides=true".to_owned(),
            "/api/admin/api-tokens?limit=100".to_owned(),
            "/api/admin/api-tokens?limit=100&active_only=true".to_owned(),
            "/api/admin/scheduled-changes?limit=100".to_owned(),
            "/api/admin/flag-overrides?limit=100".to_owned(),
            "/api/admin/flag-overrides?limit=100&sort=-updated_at".to_owned(),
            "/api/admin/flag-overrides?limit=100&sort=expires_at".to_owned(),
            "/api/admin/flag-overrides?limit=100&finding=override_redundant".to_owned(),
            "/api/admin/audit-log?limit=100".to_owned(),
            "/api/admin/audit-log?since=2020-01-01T00:00:00Z&until=2040-01-01T00:00:00Z".to_owned(),
            "/api/admin/audit-log/export".to_owned(),
            format!("/api/admin/users/{}", self.ann_id),
            format!("/api/admin/users/{}/flags", self.ann_id),
            format!("/api/admin/users/{}/flag-overrides", self.ann_id),
            format!("/api/admin/users/{}/flags/healthy/explanation", self.ann_id),
            "/readyz".to_owned(),
        ];
        for path in paths {
            let response = self.app.admin.get(&path).await;
            if response.status != 200 {
                self.fail(label, &format!("{path}: {} {}", response.status, response.text));
            }
        }
        for (caller, path) in [(&self.ann, "/api/flags/me/overrides"), (&self.browser, "/api/auth/me")] {
            let response = caller.get(path).await;
            if response.status != 200 {
                self.failures.push(format!("{label}: {path}: {}", response.text));
            }
        }
        let evaluation =
            self.ann.post("/ofrep/v1/evaluate/flags", &json!({"context": {"targetingKey": self.ann_id}})).await;
        let flags = evaluation.json();
        let is_healthy = |flag: &&Value| flag["key"] == "healthy" && flag["value"] == self.is_healthy_on;
        if flags["flags"].as_array().and_then(|flags| flags.iter().find(is_healthy)).is_none() {
            self.fail(label, &format!("OFREP: {}", evaluation.text));
        }
        if let Err(error) = maintenance::run_round(&self.app.core, Default::default()).await {
            self.fail(label, &format!("maintenance round: {error}"));
        }
        match Runtime::start(self.app.core.store().clone(), self.app.clock.clone()).await {
            Ok(runtime) => {
                let user_id = self.ann_id.parse().unwrap();
                match runtime.evaluation.value_for_user("healthy", user_id).await {
                    Ok(value) if value == self.is_healthy_on => {}
                    result => self.fail(label, &format!("evaluation after a restart: {result:?}")),
                }
            }
            Err(error) => self.fail(label, &format!("restart: {error}")),
        }
    }
}

/// Removes constraints and triggers that reject corrupt values. Adds the column `victim` to every table.
async fn drop_constraints(kind: DatabaseKind, url: &str) {
    let mut sql = String::new();
    if kind == DatabaseKind::Sqlite {
        for trigger in ["change_log_keeps_its_rows", "change_log_loses_no_row", "change_log_replaces_no_row"] {
            writeln!(sql, "DROP TRIGGER {trigger};").unwrap();
        }
        for trigger in ["users_search_insert", "users_search_update", "users_search_delete"] {
            writeln!(sql, "DROP TRIGGER {trigger};").unwrap();
        }
        sql.push_str(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_master SET sql = replace(replace(replace(sql, 'NOT NULL', ''),
                 'CHECK ((role IS NULL) <> (scope IS NULL))', 'CHECK (1)'), 'CHECK (id = 1)', '')
             WHERE type = 'table' AND name NOT LIKE 'users_search%';
             PRAGMA writable_schema = RESET;",
        );
    } else {
        let drops = "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('f', 'c')
             UNION ALL
             SELECT format('ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL', c.table_name, c.column_name)
             FROM information_schema.columns c WHERE c.table_schema = 'public' AND c.is_nullable = 'NO'
             AND NOT EXISTS (SELECT 1 FROM information_schema.key_column_usage k JOIN information_schema.table_constraints
                 t USING (constraint_name) WHERE t.constraint_type = 'PRIMARY KEY' AND k.table_name = c.table_name
                 AND k.column_name = c.column_name)";
        for statement in query_postgres(url, drops).await.into_iter().flatten() {
            writeln!(sql, "{statement};").unwrap();
        }
    }
    for table in table_names(url).await {
        if !table.starts_with("users_search") && !table.starts_with("sqlite_") {
            writeln!(sql, "ALTER TABLE {table} ADD COLUMN victim INTEGER;").unwrap();
        }
    }
    execute_raw(url, &sql).await;
}

/// Returns SQL that numbers the rows to corrupt, and inserts rows into the tables in which requests created too few.
fn victims_sql(kind: DatabaseKind) -> String {
    let is_postgres = kind == DatabaseKind::Postgres;
    let (id, hash, past) = if is_postgres {
        ("gen_random_uuid()", "sha256(gen_random_uuid()::text::bytea)", "'2020-01-01T00:00:00Z'")
    } else {
        ("randomblob(16)", "randomblob(32)", "1577836800000000")
    };
    let mut sql = String::new();
    for number in 0..VICTIMS {
        writeln!(
            sql,
            "UPDATE users SET victim = {number} WHERE handle = 'victim{number}@example.com';
             UPDATE feature_flags SET victim = {number} WHERE name = 'victim{number}';
             UPDATE scheduled_changes SET victim = {number}, scheduled_at = {past} WHERE flag_name = 'changing{number}';
             UPDATE user_flag_overrides SET victim = {number} WHERE flag_name = 'changing{number}';
             UPDATE user_flag_overrides SET expires_at = {past} WHERE victim = {number} AND {number} % 2 = 1;
             UPDATE change_log SET victim = {number} WHERE revision = {number} + 10 AND ord = 0;
             INSERT INTO user_passwords (user_id, hash, set_at, victim)
                 SELECT (SELECT id FROM users WHERE victim = {number}), hash, set_at, {number} FROM user_passwords
                 LIMIT 1;
             INSERT INTO sessions (id, token_hash, user_id, created_at, last_seen_at, ends_at, victim)
                 SELECT {id}, {hash}, user_id, {past}, {past}, {past}, {number} FROM sessions LIMIT 1;
             INSERT INTO pending_upgrades (name, victim) VALUES ('victim{number}', {number});
             INSERT INTO sign_in_attempts (subject, failures, last_at, victim) VALUES ({hash}, 1, {past}, {number});
             INSERT INTO sign_in_places (user_id, place, last_at, victim)
                 SELECT user_id, {hash}, {past}, {number} FROM sessions LIMIT 1;
             INSERT INTO idempotency_keys (caller, key, fingerprint, answer, revision, created_at, victim)
                 VALUES ('user:x', 'k{number}', {hash}, {hash}, 1, {past}, {number});"
        )
        .unwrap();
    }
    let numbered = |table: &str, key: &str, condition: &str| {
        format!(
            "UPDATE {table} SET victim = (SELECT count(*) FROM {table} o WHERE o.{key} < {table}.{key} AND {})
             WHERE {condition};
             UPDATE {table} SET victim = NULL WHERE victim >= {VICTIMS};",
            condition.replace("name", "o.name").replace("actor", "o.actor")
        )
    };
    sql.push_str(&numbered("api_tokens", "id", "name = 'victim'"));
    sql.push_str(&numbered("actor_labels", "actor", "actor LIKE 'token:%'"));
    sql
}

async fn unreadable_rows_do_not_affect_other_rows(kind: DatabaseKind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.check("nothing corrupted").await;
    assert_eq!(fixture.failures, [""; 0]);
    let tables = fixture.tables.clone();
    let most_columns = tables.iter().map(|table| table.columns.len()).max().unwrap();
    for index in 0..most_columns {
        // Corrupts one column of all tables together, because the corrupted rows of the tables are unrelated.
        let corrupted: Vec<_> = tables.iter().filter_map(|table| Some((table, table.columns.get(index)?))).collect();
        for (table, column) in &corrupted {
            fixture.corrupt(table, column).await;
        }
        fixture.check(&format!("column {index} of each table")).await;
        for (table, _) in &corrupted {
            fixture.restore(table).await;
        }
        if fixture.failures.is_empty() {
            continue;
        }
        for (table, column) in corrupted {
            fixture.corrupt(table, column).await;
            fixture.check(&format!("{}.{}", table.name, column.name)).await;
            fixture.restore(table).await;
        }
        break;
    }
    assert!(fixture.failures.is_empty(), "{} failures:\n{}", fixture.failures.len(), fixture.failures.join("\n"));
}
