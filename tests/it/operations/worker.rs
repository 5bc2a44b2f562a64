//! The cleanup worker: single rounds, the loop, concurrent workers and each maintenance task.

use std::{process::Command, time::Duration};

use serde_json::json;

use flags_service::{maintenance, replica::Replica};
use flags_tests::{
    app::{TestApp, override_path},
    caller::Caller,
    database::{Database, DatabaseKind},
    eventually, on_both_databases,
    process::{RunningProcess, assert_fails_with, binary_path, create_admin_token, run, stdout_of},
    seed,
};

use super::wait_until_token_is_known;

on_both_databases! {
    single_worker_round_removes_expired_overrides_and_prints_counts,
    concurrent_workers_record_each_expiry_once,
    worker_loop_removes_and_counts_expired_overrides_and_stops_cleanly,
    due_scheduled_changes_are_marked_as_applied_once,
    purge_removes_old_change_log_rows_and_keeps_revisions_contiguous,
}

/// Starts a server and creates the flag `f`; returns the server and a caller with role admin.
async fn start_server_with_flag(database: &Database) -> (RunningProcess, Caller) {
    let server = RunningProcess::server(&database.url);
    let admin = server.caller(&create_admin_token(&database.url));
    wait_until_token_is_known(&admin).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    (server, admin)
}

async fn create_user(admin: &Caller, name: &str) -> String {
    let body = json!({"email": format!("{name}@example.com")});
    admin.post("/api/admin/users", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// Ids of the overrides whose expiry the change log records.
async fn expired_overrides_in_the_change_log(database: &Database) -> Vec<uuid::Uuid> {
    let store = database.store().await;
    let mut conn = store.conn().await.unwrap();
    let (_, rows) = flags_store::change_log::read_after(&mut conn, 0, 1_000_000).await.unwrap();
    rows.into_iter()
        .filter(|row| row.summary.action.as_str() == "expired")
        .filter_map(|row| row.summary.resource_id)
        .collect()
}

async fn single_worker_round_removes_expired_overrides_and_prints_counts(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let (_server, admin) = start_server_with_flag(&database).await;
    seed::insert_expired_overrides(&database.store().await, 450).await;
    let ann_id = create_user(&admin, "ann").await;
    admin.put(&override_path(&ann_id, "f"), &json!({"override_value": true})).await.expect(201);
    let run_once = || stdout_of("cleanup-worker", &["--once", "--database-url", &database.url]);
    assert_eq!(
        run_once(),
        "removed 450 expired overrides, recorded 0 scheduled changes as applied, purged 0 idempotency keys, 0 sessions, 0 sign-in failure counters and 0 change-log revisions",
        "the round removes several batches"
    );
    assert_eq!(
        run_once(),
        "removed 0 expired overrides, recorded 0 scheduled changes as applied, purged 0 idempotency keys, 0 sessions, 0 sign-in failure counters and 0 change-log revisions"
    );
    assert_eq!(admin.get("/api/admin/flag-overrides").await.expect(200).json()["total"], 1);
    assert_eq!(expired_overrides_in_the_change_log(&database).await.len(), 450);
}

async fn concurrent_workers_record_each_expiry_once(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let (_server, _) = start_server_with_flag(&database).await;
    seed::insert_expired_overrides(&database.store().await, 900).await;
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let mut worker = Command::new(binary_path("cleanup-worker"));
            worker
                .args(["--once", "--database-url", &database.url])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut removed = 0;
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        removed += text.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    }
    assert_eq!(removed, 900);
    let mut recorded = expired_overrides_in_the_change_log(&database).await;
    assert_eq!(recorded.len(), 900);
    recorded.sort();
    recorded.dedup();
    assert_eq!(recorded.len(), 900, "no expiry is recorded twice");
}

async fn worker_loop_removes_and_counts_expired_overrides_and_stops_cleanly(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let (server, admin) = start_server_with_flag(&database).await;
    let worker = RunningProcess::start("cleanup-worker", &["--interval", "100ms", "--database-url", &database.url]);
    let worker_http = Caller::new(&worker.base_url, None);
    worker_http.get("/healthz").await.expect(200);
    worker_http.get("/nope").await.expect(404);
    let server_http = Caller::new(&server.base_url, None);
    let mut paths = Vec::new();
    for name in ["ann", "ben", "cleo"] {
        paths.push(override_path(&create_user(&admin, name).await, "f"));
    }
    for path in &paths {
        admin.put(path, &json!({"override_value": true})).await.expect(201);
    }
    eventually("the gauge has risen", async || {
        let metrics = server_http.get("/metrics").await.expect(200).text;
        metrics.contains(r#"voiceassist_user_flag_overrides_active{flag_name="f"} 3"#).then_some(())
    })
    .await;
    for path in &paths {
        let expires_at = flags_domain::Instant::from(time::OffsetDateTime::now_utc()).plus_micros(1_000_000);
        admin.patch(path, &json!({"expires_at": expires_at})).await.expect(200);
    }
    eventually("the worker has removed the overrides", async || {
        (admin.get("/api/admin/flag-overrides").await.json()["total"] == 0).then_some(())
    })
    .await;
    eventually("the worker has counted the removals", async || {
        let metrics = worker_http.get("/metrics").await.expect(200).text;
        metrics.contains(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="deleted"} 3"#).then_some(())
    })
    .await;
    let metrics = worker_http.get("/metrics").await.text;
    assert!(metrics.contains(r#"flags_user_overrides_expired_total{flag_name="f"} 3"#), "{metrics}");
    assert!(metrics.contains(r#"flags_worker_rounds_total{outcome="ok"}"#), "{metrics}");
    eventually("the gauge has fallen to 0", async || {
        let metrics = server_http.get("/metrics").await.expect(200).text;
        metrics.contains(r#"voiceassist_user_flag_overrides_active{flag_name="f"} 0"#).then_some(())
    })
    .await;
    let metrics = server_http.get("/metrics").await.text;
    assert!(
        metrics.contains(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="created"} 3"#),
        "{metrics}"
    );
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn worker_errors_are_a_single_line_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("new.db").display());
    assert_fails_with("cleanup-worker", &["--once", "--database-url", &url], "run `server migrate`");
    let unreachable = "postgres://unknown@127.0.0.1:1/none";
    assert_fails_with("cleanup-worker", &["--once", "--database-url", unreachable], "the database is not available");
    let invalid_url = run("cleanup-worker", &["--once", "--database-url", "mysql://x"]);
    assert!(!invalid_url.status.success());
    assert!(String::from_utf8_lossy(&invalid_url.stderr).contains("must start with postgres://"));
}

async fn due_scheduled_changes_are_marked_as_applied_once(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.set_clock_before_real_time();
    app.create_boolean_flag("a").await;
    let path = "/api/admin/feature-flags/a/scheduled-changes";
    let mut ids = Vec::new();
    for second in 1..=3 {
        let body = json!({"scheduled_at": format!("2020-01-01T00:00:0{second}Z"), "enabled": second % 2 == 0});
        ids.push(app.admin.post(path, &body).await.expect(201).json()["id"].as_str().unwrap().to_owned());
    }
    app.admin.post(&format!("{path}/{}/cancel", ids[1]), &json!({})).await.expect(200);
    let mark_due = || maintenance::mark_due_scheduled_changes(&app.core);
    assert_eq!(mark_due().await.unwrap(), 0, "nothing is due");
    app.clock.set(flags_domain::Instant::parse("2020-01-01T00:00:03Z").unwrap());
    let before = app.admin.get("/api/admin/feature-flags/a").await.json();
    assert_eq!(mark_due().await.unwrap(), 2);
    assert_eq!(mark_due().await.unwrap(), 0, "each change is marked once");
    let entries = app.change_log().await;
    let applied: Vec<_> = entries.iter().filter(|(_, action, _)| action == "applied").collect();
    assert_eq!(applied.len(), 2);
    assert!(applied.iter().all(|(.., resource_kind)| resource_kind == "scheduled_change"));
    let after = app.admin.get("/api/admin/feature-flags/a").await.json();
    assert_eq!(after, before, "marking does not change the flag");
    assert_eq!(app.admin.get(&format!("{path}/{}", ids[0])).await.json()["status"], "superseded");
    assert_eq!(app.admin.get(&format!("{path}/{}", ids[2])).await.json()["status"], "applied");
}

async fn purge_removes_old_change_log_rows_and_keeps_revisions_contiguous(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    for name in ["a", "b", "c"] {
        app.create_boolean_flag(name).await;
    }
    let day = Duration::from_secs(24 * 60 * 60);
    let purge = || maintenance::purge_change_log(&app.core, day);
    assert_eq!(purge().await.unwrap(), 0);
    let last_old_revision = app.replica.revision().number;
    app.set_clock("01-02T00:00:01Z");
    app.create_boolean_flag("d").await;
    assert_eq!(purge().await.unwrap(), u64::try_from(last_old_revision).unwrap());
    assert_eq!(purge().await.unwrap(), 0);
    assert_eq!(
        app.change_log().await.iter().map(|(revision, ..)| *revision).collect::<Vec<_>>(),
        [last_old_revision + 1]
    );
    // A newly loaded replica and the running server continue at the same revision.
    let loaded = Replica::new(flags_service::change_feed::load(app.core.store()).await.unwrap());
    assert_eq!(loaded.revision(), app.replica.revision());
    let commits_after = |after| loaded.read().commits_after(after).map(|commits| commits.len());
    assert_eq!(
        (
            commits_after(last_old_revision),
            commits_after(last_old_revision - 1),
            commits_after(last_old_revision + 1),
            commits_after(last_old_revision + 2)
        ),
        (Some(1), None, Some(0), None)
    );
    app.create_boolean_flag("e").await;
    assert_eq!(app.replica.snapshot(None).flag_count(), 5);
}

#[test]
fn rejects_change_log_retention_below_one_day() {
    let output = run("cleanup-worker", &["--once", "--change-log-retention", "23h"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("must be at least 1d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_removes_nothing_before_the_database_clock_reaches_the_expiry() {
    let app = TestApp::start(DatabaseKind::Postgres).await;
    app.create_boolean_flag("a").await;
    let (ann_id, _) = app.create_user("ann").await;
    let body = json!({"override_value": true, "expires_at": "2030-01-01T00:00:01Z"});
    app.admin.put(&override_path(&ann_id, "a"), &body).await.expect(201);
    app.set_clock("01-01T00:00:02Z");
    // By the application's clock (2030) the override has expired; the database clock shows the real time.
    assert_eq!(
        maintenance::run_round(&app.core, Default::default()).await.unwrap(),
        maintenance::MaintenanceReport::default()
    );
}
