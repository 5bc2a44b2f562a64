//! Migration to normalized keys of e-mail addresses, with users whose addresses become equal.

use flags_tests::{
    app::{PASSWORD, TestApp},
    database::{Database, DatabaseKind, execute_raw, table_rows},
    on_both_databases,
    process::run,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::USERS_PATH;

on_both_databases! {
    migration_keeps_the_key_of_the_older_user_and_can_be_interrupted,
}

/// Number of users before those with conflicts: more than one batch of the recomputation.
const USERS_BEFORE: usize = 1_500;

/// Number of a user whose row cannot be read.
const UNREADABLE: usize = 20_000;

/// Pairs of addresses with the same normalized form. The address of the older user comes first.
const PAIRS: [[&str; 2]; 3] = [
    ["Zoe\u{308}@example.com", "zo\u{eb}@example.com"],
    ["ren\u{e9}@example.com", "rene\u{301}@example.com"],
    ["ann@m\u{fc}nchen.example", "ann@xn--mnchen-3ya.example"],
];

fn id_of(pair: usize, position: usize) -> Uuid {
    Uuid::from_u128(0xabcd_0000_0000_4000_8000_0000_0000_0000 + (pair * 2 + position) as u128)
}

/// Reverts the migration `external_users`, so that the database has the schema of the previous version.
async fn revert_migration(database: &Database, kind: DatabaseKind) {
    let folder = if kind == DatabaseKind::Postgres { "postgres" } else { "sqlite" };
    let path = format!("{}/../migrations/{folder}/00000000000008_external_users/down.sql", env!("CARGO_MANIFEST_DIR"));
    let sql = std::fs::read_to_string(path).unwrap();
    let version = "DELETE FROM __diesel_schema_migrations WHERE version = '00000000000008'";
    execute_raw(&database.url, &format!("{sql};{version}")).await;
}

/// Returns SQL that inserts a user in the format of the previous version.
fn insert_sql(kind: DatabaseKind, id: Uuid, email: &str, seconds: usize) -> String {
    let (id, at) = match kind {
        DatabaseKind::Postgres => (format!("'{id}'"), format!("to_timestamp({seconds})")),
        DatabaseKind::Sqlite => (format!("x'{}'", id.simple()), format!("{seconds}000000")),
    };
    let key = email.to_lowercase();
    format!(
        "INSERT INTO users (id, email, email_key, display_name, role, attributes, active, search_text, created_at, \
         updated_at) VALUES ({id}, '{email}', '{key}', 'name {seconds}', 'user', '{{}}', true, \
         '{key}' || {line_feed} || 'name {seconds}', {at}, {at});",
        line_feed = if kind == DatabaseKind::Postgres { "chr(10)" } else { "char(10)" },
    )
}

/// Returns SQL that makes each change of one user fail, to interrupt the migration there.
fn interrupt_sql(kind: DatabaseKind, name: &str) -> String {
    match kind {
        DatabaseKind::Postgres => format!(
            "CREATE FUNCTION interrupt() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'interrupted'; END $$;
             CREATE TRIGGER interrupt BEFORE UPDATE ON users FOR EACH ROW WHEN (OLD.display_name = '{name}')
             EXECUTE FUNCTION interrupt();"
        ),
        DatabaseKind::Sqlite => format!(
            "CREATE TRIGGER interrupt BEFORE UPDATE ON users WHEN OLD.display_name = '{name}'
             BEGIN SELECT RAISE(ABORT, 'interrupted'); END;"
        ),
    }
}

async fn count_users_with(database: &Database, text: &str) -> usize {
    table_rows(&database.url, "users").await.iter().filter(|row| row.contains(text)).count()
}

async fn migration_keeps_the_key_of_the_older_user_and_can_be_interrupted(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    revert_migration(&database, kind).await;
    let mut sql = String::from("BEGIN;");
    for number in 0..USERS_BEFORE {
        sql += &insert_sql(kind, Uuid::from_u128(number as u128 + 1), &format!("u\u{308}{number}@example.com"), number);
    }
    for (pair, addresses) in PAIRS.iter().enumerate() {
        for (position, email) in addresses.iter().enumerate() {
            sql += &insert_sql(kind, id_of(pair, position), email, 10_000 + pair * 2 + position);
        }
    }
    sql += &insert_sql(kind, Uuid::from_u128(u128::from(u32::MAX)), "br\u{f6}ken@example.com", UNREADABLE);
    execute_raw(&database.url, &(sql + "COMMIT")).await;
    let infinite = if kind == DatabaseKind::Postgres { "'infinity'" } else { "'never'" };
    let corrupt = format!("UPDATE users SET created_at = {infinite} WHERE display_name = 'name {UNREADABLE}'");
    execute_raw(&database.url, &corrupt).await;
    execute_raw(&database.url, &interrupt_sql(kind, "name 10003")).await;
    let migrate = ["migrate", "--database-url", &database.url];
    let interrupted = run("server", &migrate);
    assert!(!interrupted.status.success());
    let composed = count_users_with(&database, "\u{fc}").await;
    assert!((1_000..USERS_BEFORE).contains(&composed), "the first batch is done: {composed}");
    let stopped = run("server", &["--no-migrate", "--bind", "127.0.0.1:0", "--database-url", &database.url]);
    assert!(!stopped.status.success(), "a server does not start before the recomputation is complete");
    let drop = if kind == DatabaseKind::Postgres {
        "DROP TRIGGER interrupt ON users; DROP FUNCTION interrupt()"
    } else {
        "DROP TRIGGER interrupt"
    };
    execute_raw(&database.url, drop).await;
    let completed = run("server", &migrate);
    assert!(completed.status.success(), "{}", String::from_utf8_lossy(&completed.stderr));
    let log: String = [interrupted.stderr, completed.stderr].iter().map(|text| String::from_utf8_lossy(text)).collect();
    for pair in 0..PAIRS.len() {
        let line =
            log.lines().find(|line| line.contains(&id_of(pair, 1).to_string())).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains(&id_of(pair, 0).to_string()) && line.contains("exact spelling"), "{line}");
    }
    assert!(!log.contains("example") && !log.contains('@'), "{log}");
    check_users(&TestApp::start_on(database).await).await;
}

async fn list_ids(app: &TestApp, query: &str) -> Vec<Value> {
    let list = app.admin.get(&format!("{USERS_PATH}?sort=-created_at&{query}")).await.expect(200).json();
    list["items"].as_array().unwrap().iter().map(|user| user["id"].clone()).collect()
}

async fn check_users(app: &TestApp) {
    let newer: Vec<Value> = (0..PAIRS.len()).rev().map(|pair| json!(id_of(pair, 1))).collect();
    assert_eq!(list_ids(app, "email_conflict=true").await, newer);
    assert_eq!(list_ids(app, "email_conflict=true&search=zo%C3%AB").await, [json!(id_of(0, 1))]);
    let others = app.admin.get(&format!("{USERS_PATH}?email_conflict=false")).await.expect(200).json();
    assert_eq!(others["total"], USERS_BEFORE + PAIRS.len() + 1, "with the unreadable user");
    let path = |pair: usize, position: usize| format!("{USERS_PATH}/{}", id_of(pair, position));
    let signed_in = async |email: &str| {
        let session = app.anonymous.sign_in(email, PASSWORD).await;
        session.get("/api/auth/me").await.expect(200).json()["id"].clone()
    };
    for (pair, [older, newer]) in PAIRS.into_iter().enumerate() {
        for position in [0, 1] {
            let path = format!("{}/password", path(pair, position));
            app.admin.put(&path, &json!({"password": PASSWORD})).await.expect(204);
        }
        assert_eq!(signed_in(older).await, json!(id_of(pair, 0)));
        assert_eq!(signed_in(newer).await, json!(id_of(pair, 1)), "the exact spelling");
        assert_eq!(signed_in(&newer.to_uppercase()).await, json!(id_of(pair, 0)), "any other spelling");
    }
    // The conflict remains after changes to other fields of the newer user.
    app.admin.patch(&path(0, 1), &json!({"display_name": "Newer"})).await.expect(200);
    assert_eq!(signed_in(PAIRS[0][1]).await, json!(id_of(0, 1)));
    app.admin.patch(&path(1, 1), &json!({"email": PAIRS[1][0]})).await.expect_problem(409, "email_taken");
    app.admin.patch(&path(1, 1), &json!({"email": "other@example.com"})).await.expect(200);
    // The newer user gets the address when the older user is deleted or gets another address.
    app.admin.delete(&path(2, 0)).await.expect(204);
    let third_spelling = json!({"email": "ANN@M\u{dc}NCHEN.example"});
    app.admin.post(USERS_PATH, &third_spelling).await.expect_problem(409, "email_taken");
    assert_eq!(list_ids(app, "email_conflict=true").await, [json!(id_of(0, 1))]);
    assert_eq!(signed_in(PAIRS[2][0]).await, json!(id_of(2, 1)), "every spelling, without the older user");
    app.admin.patch(&path(0, 0), &json!({"email": "zoe@example.com"})).await.expect(200);
    assert_eq!(list_ids(app, "email_conflict=true").await, [Value::Null; 0]);
    assert_eq!(signed_in(PAIRS[0][0]).await, json!(id_of(0, 1)));
}
