//! PostgreSQL roles created by `scripts/postgres-roles.sql`: the role of the server cannot modify the change log.

use std::process::{Command, Output};

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use flags_store::Store;
use flags_tests::{
    app::{override_path, user_overrides_path},
    cluster::program_path,
    database::{Database, DatabaseKind, execute_raw, query_postgres, try_execute_raw},
    eventually,
    process::{RunningProcess, assert_fails_with, create_admin_token, stdout_of},
    seed,
};

/// Unique role names. Roles belong to the whole cluster, which other tests share.
struct Roles {
    owner: String,
    app: String,
    worker: String,
}

impl Roles {
    fn new() -> Self {
        let unique = Uuid::now_v7().simple();
        // The owner's name requires quoting.
        Self { owner: format!("Own-er{unique}"), app: format!("app{unique}"), worker: format!("worker{unique}") }
    }

    /// Runs `scripts/postgres-roles.sql`.
    fn set_up(&self, database: &Database) -> Output {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres-roles.sql");
        let mut psql = Command::new(program_path("psql"));
        for (variable, name) in [("owner", &self.owner), ("app", &self.app), ("worker", &self.worker)] {
            psql.args(["-v", &format!("{variable}={name}")]);
        }
        psql.args(["-X", "-f", script, &database.url]).output().expect("psql must be installed")
    }
}

fn url_with_role(database: &Database, role: &str) -> String {
    database.url.replace("postgres://postgres@", &format!("postgres://{role}@"))
}

/// Creates a migrated database and its roles; the script runs twice to show that it is idempotent.
async fn database_with_roles() -> (Database, Roles) {
    let (database, roles) = (Database::migrated(DatabaseKind::Postgres).await, Roles::new());
    for _ in 0..2 {
        let output = roles.set_up(&database);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    (database, roles)
}

#[tokio::test(flavor = "multi_thread")]
async fn server_role_cannot_modify_the_change_log() {
    let (database, roles) = database_with_roles().await;
    let app_url = url_with_role(&database, &roles.app);
    let server = RunningProcess::start("server", &["--database-url", &app_url, "--no-migrate"]);
    let admin = server.caller(&create_admin_token(&app_url));
    eventually("the server accepts the new token", async || {
        (admin.get("/api/admin/users").await.status == 200).then_some(())
    })
    .await;
    for name in ["a", "b"] {
        admin.post("/api/admin/feature-flags", &json!({"name": name, "flag_type": "boolean"})).await.expect(201);
    }
    let key = [("Idempotency-Key", "k")];
    let body = json!({"email": "ann@example.com"});
    let created = admin.send_json(Method::POST, "/api/admin/users", &key, &body).await.expect(201).json();
    let user_id = created["id"].as_str().unwrap();
    let body = json!({"flag_name": "a", "override_value": true});
    admin.post(&user_overrides_path(user_id), &body).await.expect(201);
    admin.patch(&override_path(user_id, "a"), &json!({"enabled": false})).await.expect(200);
    let bulk = json!({"action": "enable", "filter": {"flag_name": "a"}});
    admin.post("/api/admin/flag-overrides/bulk", &bulk).await.expect(200);
    let change = json!({"scheduled_at": "2040-01-01T00:00:00Z", "enabled": false});
    admin.post("/api/admin/feature-flags/a/scheduled-changes", &change).await.expect(201);
    admin.post("/api/admin/feature-flags/a/archive", &json!({})).await.expect(200);
    admin.delete("/api/admin/feature-flags/a").await.expect(204);
    admin.delete(&format!("/api/admin/users/{user_id}?erase=true")).await.expect(204);
    let audit_log = admin.get("/api/admin/audit-log").await.expect(200).json();
    assert_eq!(audit_log["items"][0]["action"], "erased");
    stdout_of("server", &["new-epoch", "--database-url", &app_url]);
    for statement in [
        "UPDATE change_log SET actor = 'x'",
        "UPDATE change_log SET reason = NULL WHERE revision = 1",
        "DELETE FROM change_log WHERE revision = 1",
        "TRUNCATE change_log",
        "UPDATE log_head SET lowest_revision = 5",
        "DELETE FROM log_head",
        "DELETE FROM __diesel_schema_migrations",
        "CREATE TABLE extra (id int)",
        "CREATE TRIGGER t BEFORE INSERT ON change_log EXECUTE FUNCTION notify_change_log()",
    ] {
        let error = try_execute_raw(&app_url, statement).await.expect_err(statement);
        assert!(error.contains("permission denied"), "{statement}: {error}");
    }
    for statement in ["DROP TABLE change_log", "ALTER TABLE change_log OWNER TO CURRENT_USER"] {
        let error = try_execute_raw(&app_url, statement).await.expect_err(statement);
        assert!(error.contains("must be owner"), "{statement}: {error}");
    }
    let error = try_execute_raw(&app_url, &format!("SET ROLE \"{}\"", roles.owner)).await.unwrap_err();
    assert!(error.contains("permission denied"), "{error}");
    let count = query_postgres(&database.url, "SELECT count(*) FROM change_log").await;
    assert_eq!(count[0].as_deref(), Some(audit_log["total"].to_string().as_str()), "no change-log row was removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_role_can_purge_the_change_log() {
    let (database, roles) = database_with_roles().await;
    let (app_url, worker_url) = (url_with_role(&database, &roles.app), url_with_role(&database, &roles.worker));
    let store = Store::open(&app_url.parse().unwrap()).await.unwrap();
    // All rows belong to revision 1, which dates from 2020.
    seed::insert_expired_overrides(&store, 3).await;
    let server = RunningProcess::start("server", &["--database-url", &app_url, "--no-migrate"]);
    let admin = server.caller(&create_admin_token(&app_url));
    eventually("the server accepts the new token", async || {
        (admin.get("/api/admin/users").await.status == 200).then_some(())
    })
    .await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    let run_once = |url: &str| stdout_of("cleanup-worker", &["--once", "--database-url", url]);
    let run_once_with_purge =
        |url: &str| stdout_of("cleanup-worker", &["--once", "--change-log-retention", "1d", "--database-url", url]);
    let report = |expired: i32, revisions: i32| {
        format!(
            "removed {expired} expired overrides, recorded 0 scheduled changes as applied, purged 0 idempotency keys, 0 sessions, 0 sign-in failure counters and {revisions} change-log revisions"
        )
    };
    assert_fails_with(
        "cleanup-worker",
        &["--once", "--change-log-retention", "1d", "--database-url", &app_url],
        "permission denied",
    );
    assert_eq!(
        query_postgres(&database.url, "SELECT count(*) FROM change_log WHERE revision = 1").await[0].as_deref(),
        Some("6")
    );
    assert_eq!(
        run_once(&app_url),
        report(0, 0),
        "the failed run removed the overrides; without a purge, the role of the server suffices"
    );
    assert_eq!(run_once_with_purge(&worker_url), report(0, 1));
    let created = admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201).json();
    admin.put(&override_path(created["id"].as_str().unwrap(), "f"), &json!({"override_value": true})).await.expect(201);
    execute_raw(&app_url, "UPDATE user_flag_overrides SET expires_at = '2020-01-01'").await;
    assert_eq!(run_once_with_purge(&worker_url), report(1, 0));
    for statement in ["UPDATE change_log SET actor = 'x'", "TRUNCATE change_log"] {
        let error = try_execute_raw(&worker_url, statement).await.expect_err(statement);
        assert!(error.contains("permission denied"), "{statement}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_role_can_access_tables_that_the_owner_adds_later() {
    let (database, roles) = database_with_roles().await;
    let (owner_url, app_url) = (url_with_role(&database, &roles.owner), url_with_role(&database, &roles.app));
    assert_eq!(stdout_of("server", &["migrate", "--database-url", &owner_url]), "no pending migrations");
    flags_store::migrate_down(&owner_url.parse().unwrap()).await.unwrap();
    assert!(stdout_of("server", &["migrate", "--database-url", &owner_url]).starts_with("applied"));
    execute_raw(&owner_url, "CREATE TABLE later (id int)").await;
    execute_raw(&app_url, "INSERT INTO later VALUES (1); UPDATE later SET id = 2; DELETE FROM later").await;
    let output = roles.set_up(&database);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    try_execute_raw(&app_url, "DELETE FROM change_log").await.unwrap_err();
    execute_raw(&app_url, "DELETE FROM later").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_script_fails_if_the_server_role_could_still_modify_the_change_log() {
    let assert_fails = |roles: &Roles, database: &Database, message: &str| {
        let output = roles.set_up(database);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains(message), "{stderr}");
    };
    let (unmigrated, roles) = (Database::empty(DatabaseKind::Postgres).await, Roles::new());
    assert_fails(&roles, &unmigrated, "run `server migrate` first");
    let find_role = format!("SELECT rolname FROM pg_roles WHERE rolname = '{}'", roles.app);
    assert!(query_postgres(&unmigrated.url, &find_role).await.is_empty(), "the failed script must not create a role");
    let (database, mut roles) = database_with_roles().await;
    let database_name = database.url.rsplit('/').next().unwrap();
    let Roles { owner, app, worker } = &roles;
    for (grant, revoke) in [
        (format!("GRANT \"{owner}\" TO \"{app}\""), format!("REVOKE \"{owner}\" FROM \"{app}\"")),
        (
            format!("ALTER ROLE \"{worker}\" NOINHERIT; GRANT \"{owner}\" TO \"{worker}\""),
            format!("REVOKE \"{owner}\" FROM \"{worker}\""),
        ),
        (format!("GRANT \"{worker}\" TO \"{app}\""), format!("REVOKE \"{worker}\" FROM \"{app}\"")),
        (format!("ALTER ROLE \"{app}\" CREATEROLE"), format!("ALTER ROLE \"{app}\" NOCREATEROLE")),
        (
            format!("ALTER DATABASE \"{database_name}\" OWNER TO \"{app}\""),
            format!("ALTER DATABASE \"{database_name}\" OWNER TO \"{owner}\""),
        ),
    ] {
        execute_raw(&database.url, &grant).await;
        assert_fails(&roles, &database, "can still modify the change log");
        execute_raw(&database.url, &revoke).await;
        let output = roles.set_up(&database);
        assert!(output.status.success(), "{revoke}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let app_url = url_with_role(&database, app);
    for statement in ["DROP TABLE change_log", "DROP SCHEMA public CASCADE", "CREATE TABLE extra (id int)"] {
        try_execute_raw(&app_url, statement).await.expect_err(statement);
    }
    roles.app = "postgres".to_owned();
    assert_fails(&roles, &database, "must not be superusers");
}
