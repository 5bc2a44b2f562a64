//! The cleanup worker as a process: alone, beside others, once and for ever.

use std::{process::Command, time::Duration};

use serde_json::json;

use flags_service::{maintenance, replica::Replica};
use flags_tests::{
    app::{TestApp, override_at},
    caller::Caller,
    database::{Database, Kind},
    eventually, on_both_databases,
    process::{Running, admin_token, binary, fails_with, output_of, run},
    seed,
};

on_both_databases! {
    one_round_removes_what_has_expired_and_says_so,
    several_workers_record_each_expiry_once,
    the_loop_removes_counts_and_stops_cleanly,
    due_scheduled_changes_are_marked_once,
    old_rows_of_the_log_go_and_the_rest_stays_dense,
}

/// A server with the flag `f` and its admin.
async fn scene(database: &Database) -> (Running, Caller) {
    let server = Running::server(&database.url);
    let admin = server.caller(&admin_token(&database.url));
    eventually("the token is known", async || (admin.get("/api/admin/users").await.status == 200).then_some(())).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    (server, admin)
}

async fn user(admin: &Caller, name: &str) -> String {
    let body = json!({"email": format!("{name}@example.com")});
    admin.post("/api/admin/users", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned()
}

async fn expiries_in_the_log(database: &Database) -> Vec<uuid::Uuid> {
    let store = database.store().await;
    let mut conn = store.conn().await.unwrap();
    let (_, rows) = flags_store::change_log::read_on(&mut conn, 0, 1_000_000).await.unwrap();
    rows.into_iter()
        .filter(|row| row.summary.action.as_str() == "expired")
        .filter_map(|row| row.summary.entity_id)
        .collect()
}

async fn one_round_removes_what_has_expired_and_says_so(kind: Kind) {
    let database = Database::migrated(kind).await;
    let (_server, admin) = scene(&database).await;
    seed::expired_overrides(&database.store().await, 450).await;
    let ann = user(&admin, "ann").await;
    admin.put(&override_at(&ann, "f"), &json!({"override_value": true})).await.expect(201);
    let once = || output_of("cleanup-worker", &["--once", "--database-url", &database.url]);
    assert_eq!(
        once(),
        "removed 450 expired overrides, marked 0 scheduled changes, purged 0 idempotency keys, 0 sessions, 0 failed sign-ins and 0 log revisions",
        "in several batches"
    );
    assert_eq!(
        once(),
        "removed 0 expired overrides, marked 0 scheduled changes, purged 0 idempotency keys, 0 sessions, 0 failed sign-ins and 0 log revisions"
    );
    assert_eq!(admin.get("/api/admin/flag-overrides").await.expect(200).json()["total"], 1);
    assert_eq!(expiries_in_the_log(&database).await.len(), 450);
}

async fn several_workers_record_each_expiry_once(kind: Kind) {
    let database = Database::migrated(kind).await;
    let (_server, _) = scene(&database).await;
    seed::expired_overrides(&database.store().await, 900).await;
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let mut worker = Command::new(binary("cleanup-worker"));
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
    let mut recorded = expiries_in_the_log(&database).await;
    assert_eq!(recorded.len(), 900);
    recorded.sort();
    recorded.dedup();
    assert_eq!(recorded.len(), 900, "each once");
}

async fn the_loop_removes_counts_and_stops_cleanly(kind: Kind) {
    let database = Database::migrated(kind).await;
    let (server, admin) = scene(&database).await;
    let worker = Running::start("cleanup-worker", &["--interval", "100ms", "--database-url", &database.url]);
    let beside = Caller::new(&worker.base, None);
    beside.get("/healthz").await.expect(200);
    beside.get("/nope").await.expect(404);
    let served = Caller::new(&server.base, None);
    let mut paths = Vec::new();
    for name in ["ann", "ben", "cleo"] {
        paths.push(override_at(&user(&admin, name).await, "f"));
    }
    for path in &paths {
        admin.put(path, &json!({"override_value": true})).await.expect(201);
    }
    eventually("the gauge has risen", async || {
        let metrics = served.get("/metrics").await.expect(200).text;
        metrics.contains(r#"voiceassist_user_flag_overrides_active{flag_name="f"} 3"#).then_some(())
    })
    .await;
    for path in &paths {
        let end = flags_domain::Instant::from(time::OffsetDateTime::now_utc()).plus_micros(1_000_000);
        admin.patch(path, &json!({"expires_at": end})).await.expect(200);
    }
    eventually("the worker has removed them", async || {
        (admin.get("/api/admin/flag-overrides").await.json()["total"] == 0).then_some(())
    })
    .await;
    eventually("the worker has counted them", async || {
        let metrics = beside.get("/metrics").await.expect(200).text;
        metrics.contains(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="deleted"} 3"#).then_some(())
    })
    .await;
    let metrics = beside.get("/metrics").await.text;
    assert!(metrics.contains(r#"voiceassist_user_flag_overrides_expired_total{flag_name="f"} 3"#), "{metrics}");
    assert!(metrics.contains(r#"voiceassist_worker_rounds_total{outcome="ok"}"#), "{metrics}");
    eventually("the gauge has fallen to 0", async || {
        let metrics = served.get("/metrics").await.expect(200).text;
        metrics.contains(r#"voiceassist_user_flag_overrides_active{flag_name="f"} 0"#).then_some(())
    })
    .await;
    let metrics = served.get("/metrics").await.text;
    assert!(
        metrics.contains(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="created"} 3"#),
        "{metrics}"
    );
    assert_eq!(worker.stop().code(), Some(0));
}

#[test]
fn a_worker_that_cannot_work_says_why_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("new.db").display());
    fails_with("cleanup-worker", &["--once", "--database-url", &url], "run `server migrate`");
    let nowhere = "postgres://nobody@127.0.0.1:1/none";
    fails_with("cleanup-worker", &["--once", "--database-url", nowhere], "the database is not available");
    let usage = run("cleanup-worker", &["--once", "--database-url", "mysql://x"]);
    assert!(!usage.status.success());
    assert!(String::from_utf8_lossy(&usage.stderr).contains("must start with postgres://"));
}

async fn due_scheduled_changes_are_marked_once(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.clock_to_the_past();
    app.boolean_flag("a").await;
    let path = "/api/admin/feature-flags/a/scheduled-changes";
    let mut ids = Vec::new();
    for second in 1..=3 {
        let body = json!({"scheduled_at": format!("2020-01-01T00:00:0{second}Z"), "enabled": second % 2 == 0});
        ids.push(app.admin.post(path, &body).await.expect(201).json()["id"].as_str().unwrap().to_owned());
    }
    app.admin.post(&format!("{path}/{}/cancel", ids[1]), &json!({})).await.expect(200);
    let due = || maintenance::mark_due_changes(&app.core);
    assert_eq!(due().await.unwrap(), 0, "nothing is due");
    app.clock.set(flags_domain::Instant::parse("2020-01-01T00:00:03Z").unwrap());
    let before = app.admin.get("/api/admin/feature-flags/a").await.json();
    assert_eq!(due().await.unwrap(), 2);
    assert_eq!(due().await.unwrap(), 0, "once");
    let log = app.log().await;
    let marks: Vec<_> = log.iter().filter(|(_, action, _)| action == "applied").collect();
    assert_eq!(marks.len(), 2);
    assert!(marks.iter().all(|(.., entity)| entity == "scheduled_change"));
    let after = app.admin.get("/api/admin/feature-flags/a").await.json();
    assert_eq!(after, before, "the flag's row is never written");
    assert_eq!(app.admin.get(&format!("{path}/{}", ids[0])).await.json()["status"], "superseded");
    assert_eq!(app.admin.get(&format!("{path}/{}", ids[2])).await.json()["status"], "applied");
}

async fn old_rows_of_the_log_go_and_the_rest_stays_dense(kind: Kind) {
    let app = TestApp::start(kind).await;
    for name in ["a", "b", "c"] {
        app.boolean_flag(name).await;
    }
    let day = Duration::from_secs(24 * 60 * 60);
    let purge = || maintenance::purge_log(&app.core, day);
    assert_eq!(purge().await.unwrap(), 0);
    let old = app.replica.revision().number;
    app.clock_to("01-02T00:00:01Z");
    app.boolean_flag("d").await;
    assert_eq!(purge().await.unwrap(), u64::try_from(old).unwrap());
    assert_eq!(purge().await.unwrap(), 0);
    assert_eq!(app.log().await.iter().map(|(revision, ..)| *revision).collect::<Vec<_>>(), [old + 1]);
    // Another server that begins now, and this one, go on as if nothing had happened.
    let loaded = Replica::new(flags_service::feed::load(app.core.store()).await.unwrap());
    assert_eq!(loaded.revision(), app.replica.revision());
    let held = |after| loaded.read().commits_after(after).map(Iterator::count);
    assert_eq!((held(old), held(old - 1), held(old + 1), held(old + 2)), (Some(1), None, Some(0), None));
    app.boolean_flag("e").await;
    assert_eq!(app.replica.read().flag_count(), 5);
}

#[test]
fn a_log_is_kept_for_a_day_at_least() {
    let output = run("cleanup-worker", &["--once", "--keep-log", "23h"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("must be at least 1d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_due_before_the_database_agrees() {
    let app = TestApp::start(Kind::Postgres).await;
    app.boolean_flag("a").await;
    let (id, _) = app.user("ann").await;
    let body = json!({"override_value": true, "expires_at": "2030-01-01T00:00:01Z"});
    app.admin.put(&override_at(&id, "a"), &body).await.expect(201);
    app.clock_to("01-01T00:00:02Z");
    // This process's clock says 2030, the database's does not.
    assert_eq!(maintenance::run_round(&app.core, Default::default()).await.unwrap(), maintenance::Round::default());
}
