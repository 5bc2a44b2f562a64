//! PostgreSQL outages: evaluation continues, writes fail with 503, and the server recovers without a restart.

use serde_json::json;

use flags_tests::{
    app::{PASSWORD, override_path},
    caller::Caller,
    cluster::Cluster,
    database::create_database,
    eventually,
    process::{
        RunningProcess, create_admin_token, create_user_token, create_user_with_token, send_signal, stdout_of,
        stdout_with_input,
    },
};

use super::wait_until_token_is_known;

#[tokio::test(flavor = "multi_thread")]
async fn evaluation_continues_while_postgres_is_paused_or_stopped() {
    let mut cluster = Cluster::start(&[]);
    let url = create_database(&cluster, "template0").await;
    stdout_of("server", &["migrate", "--database-url", &url]);
    let (ann_id, ann_token) = create_user_with_token(&url, "ann@example.com");
    let server = RunningProcess::server(&url);
    let (admin, ann) = (server.caller(&create_admin_token(&url)), server.caller(&ann_token));
    wait_until_token_is_known(&admin).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    admin.put(&override_path(&ann_id, "f"), &json!({"override_value": true})).await.expect(201);
    let arguments = ["user", "set-password", "--database-url", &url, "--email", "ann@example.com", "--password-stdin"];
    stdout_with_input("server", &arguments, PASSWORD);
    let browser = Caller::new(&server.base_url, None).sign_in("ann@example.com", PASSWORD).await;
    let expect_outage = async |state: &str| {
        let session_flags = browser.get("/api/flags/me").await.expect(200).json();
        assert_eq!(session_flags["flags"]["f"]["value"], true, "{state}: the session stays valid");
        let own_flags = ann.get("/api/flags/me").await.expect(200).json();
        assert_eq!(own_flags["flags"]["f"]["value"], true, "{state}");
        let write = admin.put(&override_path(&ann_id, "f"), &json!({"override_value": false})).await;
        assert!(!write.header("retry-after").is_empty());
        write.expect_problem(503, "database_unavailable");
        admin.get("/api/admin/users").await.expect_problem(503, "database_unavailable");
        eventually("responses are marked as stale", async || {
            let own_flags = ann.get("/api/flags/me").await.expect(200).json();
            (own_flags["stale"] == true).then_some(())
        })
        .await;
        let ready = ann.get("/readyz").await.expect(200).json();
        assert_eq!((&ready["status"], &ready["stale"]), (&json!("ready"), &json!(true)), "{state}");
    };
    let expect_recovery = async |value: bool| {
        eventually("writes succeed again", async || {
            let response = admin.put(&override_path(&ann_id, "f"), &json!({"override_value": value})).await;
            response.status.is_success().then_some(())
        })
        .await;
        eventually("responses are no longer stale", async || {
            let own_flags = ann.get("/api/flags/me").await.expect(200).json();
            (own_flags["stale"] == false && own_flags["flags"]["f"]["value"] == value).then_some(())
        })
        .await;
    };
    let pids = cluster.pids();
    pids.iter().for_each(|pid| send_signal("STOP", *pid));
    expect_outage("paused").await;
    pids.iter().for_each(|pid| send_signal("CONT", *pid));
    expect_recovery(true).await;
    cluster.shut_down();
    expect_outage("stopped").await;
    cluster.launch(&[]);
    expect_recovery(false).await;
    browser.get("/api/auth/me").await.expect(200);
    assert_eq!(server.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_uncached_users_yield_503_during_an_outage() {
    let mut cluster = Cluster::start(&[]);
    let url = create_database(&cluster, "template0").await;
    stdout_of("server", &["migrate", "--database-url", &url]);
    let server = RunningProcess::server(&url);
    let admin = server.caller(&create_admin_token(&url));
    wait_until_token_is_known(&admin).await;
    let ann_id = admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201).json();
    let ann_id = ann_id["id"].as_str().unwrap().to_owned();
    let arguments = ["token", "create", "--database-url", &url, "--name", "app", "--scope", "evaluate"];
    let backend = server.caller(&stdout_of("server", &arguments));
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    // The targeting key of an anonymous context may be a UUID. The server caches that no user has this id.
    let anonymous_id = uuid::Uuid::now_v7().to_string();
    eventually("the server has read the token with scope `evaluate`", async || {
        let all = backend.post("/ofrep/v1/evaluate/flags", &json!({"context": {"targetingKey": anonymous_id}})).await;
        (all.status == 200).then_some(())
    })
    .await;
    let token = create_user_token(&url, "ann@example.com");
    // The server reads the new token with its next poll. It looks up the user only at the first request.
    let revision = eventually("the server has read the user's token", async || {
        let revision = admin.get("/readyz").await.json()["revision"].as_str().unwrap().to_owned();
        (revision.split(':').nth(1) == Some("5")).then_some(revision)
    });
    revision.await;
    cluster.shut_down();
    for path in ["/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/f"] {
        let evaluate = async |key: &str| backend.post(path, &json!({"context": {"targetingKey": key}})).await;
        for key in ["anonymous-1", &anonymous_id] {
            evaluate(key).await.expect(200);
        }
        let refused = evaluate(&ann_id).await.expect(503);
        assert!(refused.header("retry-after").parse::<u32>().is_ok());
        assert_eq!(refused.json()["errorCode"], "GENERAL");
    }
    let refused = server.caller(&token).get("/api/flags/me").await;
    assert!(!refused.header("retry-after").is_empty());
    refused.expect_problem(503, "context_unavailable");
    cluster.launch(&[]);
    eventually("the user can be looked up again", async || {
        let context = json!({"context": {"targetingKey": ann_id}});
        let evaluated = backend.post("/ofrep/v1/evaluate/flags", &context).await.status == 200;
        (evaluated && server.caller(&token).get("/api/flags/me").await.status == 200).then_some(())
    })
    .await;
}
