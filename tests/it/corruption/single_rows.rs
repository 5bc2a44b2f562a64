//! Corrupt rows of `log_head`, `service_keys` and the table of applied migrations, on which the whole program depends.
//! A running server serves its last state. A starting server fails with a clear error. Nothing is repaired
//! automatically.

use flags_service::Runtime;
use flags_store::{READER_VERSION, WRITER_VERSION, migrate_down};
use flags_tests::{
    app::TestApp,
    database::{Database, DatabaseKind, execute_raw, table_rows, try_execute_raw},
    eventually, on_both_databases,
    process::{assert_fails_with, run, stdout_of},
};
use serde_json::json;

on_both_databases! {
    unreadable_log_head_stops_changes_but_not_evaluation,
    running_server_serves_stale_values_while_a_newer_reader_version_is_required,
    running_server_rejects_changes_while_a_newer_writer_version_is_required,
    programs_refuse_to_start_if_the_database_requires_a_newer_version,
    unknown_migrations_of_a_newer_version_are_accepted_but_not_reverted,
    missing_or_invalid_service_key_prevents_a_server_start,
    incomplete_migration_table_prevents_every_program_from_starting,
}

/// Removes the constraints of `log_head` that reject corrupt values.
async fn drop_constraints(kind: DatabaseKind, url: &str) {
    let sql = match kind {
        DatabaseKind::Sqlite => {
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'log_head';
             PRAGMA writable_schema = RESET"
        }
        DatabaseKind::Postgres => {
            "ALTER TABLE log_head ALTER epoch DROP NOT NULL, ALTER revision DROP NOT NULL,
                 ALTER min_reader DROP NOT NULL, ALTER min_writer DROP NOT NULL"
        }
    };
    execute_raw(url, sql).await;
}

async fn unreadable_log_head_stops_changes_but_not_evaluation(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    drop_constraints(kind, &database.url).await;
    let app = TestApp::start_on(database).await;
    app.create_boolean_flag("a").await;
    let (_, ann) = app.create_user("ann").await;
    let url = &app.database.url;
    execute_raw(url, "CREATE TABLE saved_head AS SELECT * FROM log_head").await;
    let mut corruptions = vec![
        "DELETE FROM log_head",
        "UPDATE log_head SET revision = NULL",
        "UPDATE log_head SET revision = -1",
        "UPDATE log_head SET revision = 9223372036854775807",
        "UPDATE log_head SET epoch = NULL",
        "UPDATE log_head SET min_writer = NULL",
    ];
    if kind == DatabaseKind::Sqlite {
        corruptions.extend([
            "UPDATE log_head SET revision = 'text'",
            "UPDATE log_head SET revision = x'00'",
            "UPDATE log_head SET epoch = 'text'",
            "UPDATE log_head SET epoch = x'00'",
            "UPDATE log_head SET min_writer = 'text'",
        ]);
    }
    let path = "/api/admin/feature-flags/a";
    for corruption in corruptions {
        execute_raw(url, corruption).await;
        let head = table_rows(url, "log_head").await;
        let change = app.admin.patch(path, &json!({"description": corruption})).await;
        change.expect_problem(503, "change_log_unreadable");
        ann.get("/api/flags/me").await.expect(200);
        app.admin.get("/api/admin/feature-flags").await.expect(200);
        assert_eq!(table_rows(url, "log_head").await, head, "{corruption}");
        let is_readable = corruption.contains("min_writer") || corruption.contains("revision = ");
        match Runtime::start(app.core.store().clone(), app.clock.clone()).await {
            Err(error) => assert!(error.to_string().contains("log_head"), "{corruption}: {error}"),
            Ok(_) => assert!(is_readable, "{corruption}"),
        }
        execute_raw(url, "DELETE FROM log_head; INSERT INTO log_head SELECT * FROM saved_head").await;
        eventually("changes are possible again", async || {
            let status = app.admin.patch(path, &json!({"description": format!("after {corruption}")})).await.status;
            (status == 200).then_some(())
        })
        .await;
        execute_raw(url, "DELETE FROM saved_head; INSERT INTO saved_head SELECT * FROM log_head").await;
    }
    // After five seconds without a readable head, responses are marked as stale.
    execute_raw(url, "DELETE FROM log_head").await;
    eventually("responses are stale", async || {
        let own_flags = ann.get("/api/flags/me").await.expect(200).json();
        assert_eq!(own_flags["flags"]["a"]["value"], false);
        own_flags["stale"].as_bool().filter(|stale| *stale)
    })
    .await;
    assert!(table_rows(url, "log_head").await.is_empty(), "nothing repairs the head");
}

async fn running_server_serves_stale_values_while_a_newer_reader_version_is_required(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let (_, ann) = app.create_user("ann").await;
    execute_raw(&app.database.url, "UPDATE log_head SET min_reader = 1000").await;
    let is_stale = async |expected: bool| {
        let own_flags = ann.get("/api/flags/me").await.expect(200).json();
        assert_eq!(own_flags["flags"]["a"]["value"], false);
        (own_flags["stale"] == expected).then_some(())
    };
    eventually("the server serves its last state as stale", async || is_stale(true).await).await;
    execute_raw(&app.database.url, "UPDATE log_head SET min_reader = 1").await;
    eventually("the server follows the change log again", async || is_stale(false).await).await;
}

async fn running_server_rejects_changes_while_a_newer_writer_version_is_required(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let number = app.replica.revision().number;
    let newer = format!("UPDATE log_head SET min_writer = {}", WRITER_VERSION + 1);
    execute_raw(&app.database.url, &newer).await;
    let path = "/api/admin/feature-flags/a";
    app.admin.patch(path, &json!({"enabled": false})).await.expect_problem(503, "server_outdated");
    let flag = app.admin.get(path).await.expect(200).json();
    assert_eq!(flag["enabled"], true);
    assert_eq!(app.replica.revision().number, number);
    let current = format!("UPDATE log_head SET min_writer = {WRITER_VERSION}");
    execute_raw(&app.database.url, &current).await;
    app.admin.patch(path, &json!({"enabled": false})).await.expect(200);
}

/// Asserts that no program starts on the database, and that the error contains `message`.
fn assert_no_program_starts(url: &str, message: &str) {
    assert_fails_with("server", &["run", "--bind", "127.0.0.1:0", "--database-url", url], message);
    assert_fails_with("server", &["run", "--no-migrate", "--bind", "127.0.0.1:0", "--database-url", url], message);
    assert_fails_with("server", &["migrate", "--database-url", url], message);
    assert_fails_with("server", &["token", "create", "--name", "n", "--role", "admin", "--database-url", url], message);
    assert_fails_with("cleanup-worker", &["--once", "--database-url", url], message);
}

async fn programs_refuse_to_start_if_the_database_requires_a_newer_version(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    execute_raw(&database.url, "UPDATE log_head SET min_writer = 7").await;
    let message = format!("its writer version is {WRITER_VERSION}, and the database requires 7; upgrade the program");
    assert_no_program_starts(&database.url, &message);
    let raise_reader = format!("UPDATE log_head SET min_writer = {WRITER_VERSION}, min_reader = 8");
    execute_raw(&database.url, &raise_reader).await;
    let message = format!("its reader version is {READER_VERSION}, and the database requires 8; upgrade the program");
    assert_no_program_starts(&database.url, &message);
    execute_raw(&database.url, "DELETE FROM log_head").await;
    assert_no_program_starts(&database.url, "the table log_head is empty");
}

async fn unknown_migrations_of_a_newer_version_are_accepted_but_not_reverted(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('00000000009999');
                 CREATE TABLE future (id INTEGER)";
    execute_raw(&database.url, newer).await;
    assert!(database.store().await.is_migrated().await.unwrap());
    stdout_of("server", &["migrate", "--database-url", &database.url]);
    stdout_of("cleanup-worker", &["--once", "--database-url", &database.url]);
    let error = migrate_down(&database.database_url()).await.unwrap_err().to_string();
    assert!(error.contains("00000000009999") && error.contains("newer version"), "{error}");
    assert!(database.store().await.is_migrated().await.unwrap(), "nothing was reverted");
    assert!(try_execute_raw(&database.url, "SELECT * FROM future").await.is_ok());
}

async fn missing_or_invalid_service_key_prevents_a_server_start(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let url = &app.database.url;
    let (_, ann) = app.create_user("ann").await;
    let invalid = if kind == DatabaseKind::Sqlite { "x'00'" } else { "'\\x00'" };
    for (corruption, message) in [
        (format!("UPDATE service_keys SET secret = {invalid}"), "secret must have 32 bytes"),
        ("DELETE FROM service_keys".to_owned(), "the row event_streams is missing"),
    ] {
        execute_raw(url, &corruption).await;
        let rows = table_rows(url, "service_keys").await;
        let error = Runtime::start(app.core.store().clone(), app.clock.clone()).await.err().expect("start fails");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(table_rows(url, "service_keys").await, rows, "nothing repairs the key");
        ann.get("/api/flags/me").await.expect(200);
        app.admin.patch("/api/admin/feature-flags/a", &json!({"description": corruption})).await.expect(200);
    }
}

async fn incomplete_migration_table_prevents_every_program_from_starting(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    execute_raw(&database.url, "DELETE FROM __diesel_schema_migrations WHERE version = '00000000000003'").await;
    assert_no_program_starts(&database.url, "is applied, but 00000000000003 is not");
    execute_raw(&database.url, "DROP TABLE __diesel_schema_migrations").await;
    assert_no_program_starts(&database.url, "the table does not exist, but other tables do");
    let output = run("server", &["migrate", "--database-url", &database.url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(try_execute_raw(&database.url, "SELECT version FROM __diesel_schema_migrations").await.is_err());
}
