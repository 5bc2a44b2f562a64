//! Prometheus metrics of the server.

use serde_json::json;

use flags_tests::{
    app::override_path,
    caller::Caller,
    database::{Database, DatabaseKind, execute_raw},
    eventually, on_both_databases,
    process::{RunningProcess, create_admin_token},
};

use super::wait_until_token_is_known;

on_both_databases! {
    metrics_count_override_changes_and_active_overrides,
    unreadable_flags_are_counted_and_logged_once,
}

async fn metrics_count_override_changes_and_active_overrides(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let server = RunningProcess::server(&database.url);
    let (admin, anonymous) = (server.caller(&create_admin_token(&database.url)), Caller::new(&server.base_url, None));
    wait_until_token_is_known(&admin).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    let mut users = Vec::new();
    for name in ["ann", "ben"] {
        let body = json!({"email": format!("{name}@example.com")});
        users.push(admin.post("/api/admin/users", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned());
    }
    for user in &users {
        admin.put(&override_path(user, "f"), &json!({"override_value": true})).await.expect(201);
        admin.patch(&override_path(user, "f"), &json!({"reason": "x"})).await.expect(200);
        admin.patch(&override_path(user, "f"), &json!({"reason": "x"})).await.expect(200);
    }
    let wait_for_line = async |line: &str| {
        eventually(line, async || {
            anonymous.get("/metrics").await.expect(200).text.lines().any(|l| l == line).then_some(())
        })
        .await;
    };
    wait_for_line(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="created"} 2"#).await;
    wait_for_line(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="updated"} 2"#).await;
    wait_for_line(r#"voiceassist_user_flag_overrides_active{flag_name="f"} 2"#).await;
    admin.delete(&override_path(&users[0], "f")).await.expect(204);
    // Overrides that are deleted with their user are counted as well.
    admin.delete(&format!("/api/admin/users/{}", users[1])).await.expect(204);
    wait_for_line(r#"voiceassist_user_flag_overrides_total{flag_name="f",action="deleted"} 2"#).await;
    wait_for_line(r#"voiceassist_user_flag_overrides_active{flag_name="f"} 0"#).await;
    let unknown_method = reqwest::Method::from_bytes(b"UNKNOWN").unwrap();
    anonymous.send(unknown_method, "/healthz", &[], None).await.expect_problem(405, "method_not_allowed");
    let metrics = anonymous.get("/metrics").await.text;
    assert!(metrics.contains(r#"method="other""#) && !metrics.contains("UNKNOWN"), "{metrics}");
    let route = "/api/admin/users/{user_id}/flag-overrides/{flag_name}";
    assert!(
        metrics.contains(&format!(r#"flags_http_requests_total{{method="PUT",route="{route}",status="201"}} 2"#)),
        "{metrics}"
    );
    assert!(!metrics.contains(&users[0]) && !metrics.contains("example.com"), "{metrics}");
}

async fn unreadable_flags_are_counted_and_logged_once(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let token = create_admin_token(&database.url);
    let folder = tempfile::tempdir().unwrap();
    let log_file = folder.path().join("log");
    let server = RunningProcess::server_with_verbose_log(&database.url, "text", &log_file, &[]);
    let (admin, anonymous) = (server.caller(&token), Caller::new(&server.base_url, None));
    wait_until_token_is_known(&admin).await;
    for name in ["a", "b"] {
        admin.post("/api/admin/feature-flags", &json!({"name": name, "flag_type": "boolean"})).await.expect(201);
    }
    execute_raw(&database.url, "UPDATE feature_flags SET variants = '7' WHERE name = 'a'").await;
    let wait_for_count = async |count: usize| {
        eventually("the number of unreadable flags", async || {
            let line = format!("flags_unreadable_flags {count}");
            anonymous.get("/metrics").await.expect(200).text.lines().any(|l| l == line).then_some(())
        })
        .await;
    };
    for _ in 0..2 {
        // Two reloads.
        database.store().await.start_new_epoch().await.unwrap();
        wait_for_count(1).await;
        admin.patch("/api/admin/feature-flags/b", &json!({"description": "waits for the reload"})).await.expect(200);
    }
    let log = std::fs::read_to_string(&log_file).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("flag cannot be read or compiled")).collect();
    assert!(lines.len() == 1 && lines[0].contains("ERROR") && lines[0].contains("variants"), "{lines:?}");
    admin.post("/api/admin/feature-flags/a/archive", &json!({})).await.expect(200);
    execute_raw(&database.url, "DELETE FROM feature_flags WHERE name = 'a'").await;
    database.store().await.start_new_epoch().await.unwrap();
    wait_for_count(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_be_served_on_a_separate_address() {
    let database = Database::migrated(DatabaseKind::Sqlite).await;
    let metrics_address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = RunningProcess::start(
        "server",
        &["--database-url", &database.url, "--metrics-bind", &metrics_address.to_string()],
    );
    Caller::new(&server.base_url, None).get("/metrics").await.expect_problem(404, "not_found");
    Caller::new(&format!("http://{metrics_address}"), None).get("/metrics").await.expect(200);
}
