//! Roles on PostgreSQL: the server's cannot change what was logged. `scripts/postgres-roles.sql` as operators run it.

use std::process::{Command, Output};

use serde_json::json;

use flags_tests::{
    app::{override_at, overrides_of},
    cluster::bin,
    database::{Database, Kind, query, tamper, try_tamper},
    eventually,
    process::{Running, admin_token, fails_with, output_of},
    seed,
};

/// Names that no other test has: roles belong to the whole cluster.
struct Roles {
    owner: String,
    app: String,
    worker: String,
}

impl Roles {
    fn new() -> Self {
        let unique = uuid::Uuid::now_v7().simple();
        // One of them needs quotes.
        Self { owner: format!("Own-er{unique}"), app: format!("app{unique}"), worker: format!("worker{unique}") }
    }

    fn set_up(&self, database: &Database) -> Output {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres-roles.sql");
        let mut psql = Command::new(bin("psql"));
        for (variable, name) in [("owner", &self.owner), ("app", &self.app), ("worker", &self.worker)] {
            psql.args(["-v", &format!("{variable}={name}")]);
        }
        psql.args(["-X", "-f", script, &database.url]).output().expect("psql runs")
    }
}

fn url_of(database: &Database, role: &str) -> String {
    database.url.replace("postgres://postgres@", &format!("postgres://{role}@"))
}

/// A database with its roles.
async fn scene() -> (Database, Roles) {
    let (database, roles) = (Database::migrated(Kind::Postgres).await, Roles::new());
    for _ in 0..2 {
        let done = roles.set_up(&database);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    (database, roles)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_works_by_a_role_that_cannot_change_the_log() {
    let (database, roles) = scene().await;
    let app = url_of(&database, &roles.app);
    let server = Running::start("server", &["--database-url", &app, "--no-migrate"]);
    let admin = server.caller(&admin_token(&app));
    eventually("the token is known", async || (admin.get("/api/admin/users").await.status == 200).then_some(())).await;
    for name in ["a", "b"] {
        admin.post("/api/admin/feature-flags", &json!({"name": name, "flag_type": "boolean"})).await.expect(201);
    }
    let key = [("Idempotency-Key", "k")];
    let new = json!({"email": "ann@example.com"});
    let made = admin.json(reqwest::Method::POST, "/api/admin/users", &key, &new).await.expect(201).json();
    let ann = made["id"].as_str().unwrap();
    let new = json!({"flag_name": "a", "override_value": true});
    admin.post(&overrides_of(ann), &new).await.expect(201);
    admin.patch(&override_at(ann, "a"), &json!({"enabled": false})).await.expect(200);
    let bulk = json!({"action": "enable", "filter": {"flag_name": "a"}});
    admin.post("/api/admin/flag-overrides/bulk", &bulk).await.expect(200);
    let change = json!({"scheduled_at": "2040-01-01T00:00:00Z", "enabled": false});
    admin.post("/api/admin/feature-flags/a/scheduled-changes", &change).await.expect(201);
    admin.post("/api/admin/feature-flags/a/archive", &json!({})).await.expect(200);
    admin.delete("/api/admin/feature-flags/a").await.expect(204);
    admin.delete(&format!("/api/admin/users/{ann}?erase=true")).await.expect(204);
    let log = admin.get("/api/admin/audit-log").await.expect(200).json();
    assert_eq!(log["items"][0]["action"], "erased");
    output_of("server", &["new-epoch", "--database-url", &app]);
    for attempt in [
        "UPDATE change_log SET actor = 'x'",
        "UPDATE change_log SET reason = NULL WHERE revision = 1",
        "DELETE FROM change_log WHERE revision = 1",
        "TRUNCATE change_log",
        "UPDATE log_head SET lowest_revision = 5",
        "DELETE FROM log_head",
        "DELETE FROM __diesel_schema_migrations",
        "CREATE TABLE mine (id int)",
        "CREATE TRIGGER t BEFORE INSERT ON change_log EXECUTE FUNCTION notify_change_log()",
    ] {
        let refused = try_tamper(&app, attempt).await.expect_err(attempt);
        assert!(refused.contains("permission denied"), "{attempt}: {refused}");
    }
    for attempt in ["DROP TABLE change_log", "ALTER TABLE change_log OWNER TO CURRENT_USER"] {
        let refused = try_tamper(&app, attempt).await.expect_err(attempt);
        assert!(refused.contains("must be owner"), "{attempt}: {refused}");
    }
    let refused = try_tamper(&app, &format!("SET ROLE \"{}\"", roles.owner)).await.unwrap_err();
    assert!(refused.contains("permission denied"), "{refused}");
    let rows = query(&database.url, "SELECT count(*) FROM change_log").await;
    assert_eq!(rows[0].as_deref(), Some(log["total"].to_string().as_str()), "all are still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_removes_old_rows_by_a_role_of_its_own() {
    let (database, roles) = scene().await;
    let (app, worker) = (url_of(&database, &roles.app), url_of(&database, &roles.worker));
    let store = flags_store::Store::open(&app.parse().unwrap()).await.unwrap();
    // All in one revision of the year 2020.
    seed::expired_overrides(&store, 3).await;
    let server = Running::start("server", &["--database-url", &app, "--no-migrate"]);
    let admin = server.caller(&admin_token(&app));
    eventually("the token is known", async || (admin.get("/api/admin/users").await.status == 200).then_some(())).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    let once = |url: &str| output_of("cleanup-worker", &["--once", "--database-url", url]);
    let purging = |url: &str| output_of("cleanup-worker", &["--once", "--keep-log", "1d", "--database-url", url]);
    let report = |expired: i32, revisions: i32| {
        format!(
            "removed {expired} expired overrides, marked 0 scheduled changes, purged 0 idempotency keys, 0 sessions, 0 failed sign-ins and {revisions} log revisions"
        )
    };
    fails_with("cleanup-worker", &["--once", "--keep-log", "1d", "--database-url", &app], "permission denied");
    assert_eq!(
        query(&database.url, "SELECT count(*) FROM change_log WHERE revision = 1").await[0].as_deref(),
        Some("6")
    );
    assert_eq!(once(&app), report(0, 0), "without --keep-log the server's role will do; its overrides went before");
    assert_eq!(purging(&worker), report(0, 1));
    let made = admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201).json();
    admin.put(&override_at(made["id"].as_str().unwrap(), "f"), &json!({"override_value": true})).await.expect(201);
    tamper(&app, "UPDATE user_flag_overrides SET expires_at = '2020-01-01'").await;
    assert_eq!(purging(&worker), report(1, 0));
    for attempt in ["UPDATE change_log SET actor = 'x'", "TRUNCATE change_log"] {
        let refused = try_tamper(&worker, attempt).await.expect_err(attempt);
        assert!(refused.contains("permission denied"), "{attempt}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_migrates_and_what_it_adds_is_open_to_the_others() {
    let (database, roles) = scene().await;
    let (owner, app) = (url_of(&database, &roles.owner), url_of(&database, &roles.app));
    assert_eq!(output_of("server", &["migrate", "--database-url", &owner]), "nothing to do");
    flags_store::migrate_down(&owner.parse().unwrap()).await.unwrap();
    assert!(output_of("server", &["migrate", "--database-url", &owner]).starts_with("applied"));
    tamper(&owner, "CREATE TABLE later (id int)").await;
    tamper(&app, "INSERT INTO later VALUES (1); UPDATE later SET id = 2; DELETE FROM later").await;
    let done = roles.set_up(&database);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    try_tamper(&app, "DELETE FROM change_log").await.unwrap_err();
    tamper(&app, "DELETE FROM later").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_does_nothing_where_it_could_not_keep_its_promise() {
    let fails = |roles: &Roles, database: &Database, why: &str| {
        let done = roles.set_up(database);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && text.contains(why), "{text}");
    };
    let (empty, roles) = (Database::empty(Kind::Postgres).await, Roles::new());
    fails(&roles, &empty, "run `server migrate` first");
    let there = format!("SELECT rolname FROM pg_roles WHERE rolname = '{}'", roles.app);
    assert!(query(&empty.url, &there).await.is_empty(), "no role is left behind");
    let (database, mut roles) = scene().await;
    let name = database.url.rsplit('/').next().unwrap();
    let Roles { owner, app, worker } = &roles;
    for (power, loss) in [
        (format!("GRANT \"{owner}\" TO \"{app}\""), format!("REVOKE \"{owner}\" FROM \"{app}\"")),
        (
            format!("ALTER ROLE \"{worker}\" NOINHERIT; GRANT \"{owner}\" TO \"{worker}\""),
            format!("REVOKE \"{owner}\" FROM \"{worker}\""),
        ),
        (format!("GRANT \"{worker}\" TO \"{app}\""), format!("REVOKE \"{worker}\" FROM \"{app}\"")),
        (format!("ALTER ROLE \"{app}\" CREATEROLE"), format!("ALTER ROLE \"{app}\" NOCREATEROLE")),
        (
            format!("ALTER DATABASE \"{name}\" OWNER TO \"{app}\""),
            format!("ALTER DATABASE \"{name}\" OWNER TO \"{owner}\""),
        ),
    ] {
        tamper(&database.url, &power).await;
        fails(&roles, &database, "may change the log all the same");
        tamper(&database.url, &loss).await;
        let done = roles.set_up(&database);
        assert!(done.status.success(), "{loss}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let app = url_of(&database, app);
    for attempt in ["DROP TABLE change_log", "DROP SCHEMA public CASCADE", "CREATE TABLE mine (id int)"] {
        try_tamper(&app, attempt).await.expect_err(attempt);
    }
    roles.app = "postgres".to_owned();
    fails(&roles, &database, "must be no superusers");
}
