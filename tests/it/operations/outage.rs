//! PostgreSQL stopped and paused: evaluation goes on, writes say so, and all is well afterwards without a restart.

use serde_json::json;

use flags_tests::{
    app::{PASSWORD, override_at},
    caller::Caller,
    cluster::Cluster,
    database::create,
    eventually,
    process::{Running, admin_token, output_of, output_with_input, signal, user_token, user_with_token},
};

#[tokio::test(flavor = "multi_thread")]
async fn evaluation_goes_on_while_postgres_is_paused_or_gone() {
    let mut cluster = Cluster::start(&[]);
    let url = create(&cluster, "template0").await;
    output_of("server", &["migrate", "--database-url", &url]);
    let (id, ann_token) = user_with_token(&url, "ann@example.com");
    let server = Running::server(&url);
    let (admin, ann) = (server.caller(&admin_token(&url)), server.caller(&ann_token));
    eventually("the token is known", async || (admin.get("/api/admin/users").await.status == 200).then_some(())).await;
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    admin.put(&override_at(&id, "f"), &json!({"override_value": true})).await.expect(201);
    let words = ["user", "set-password", "--database-url", &url, "--email", "ann@example.com", "--password-stdin"];
    output_with_input("server", &words, PASSWORD);
    let browser = Caller::new(&server.base, None).sign_in("ann@example.com", PASSWORD).await;
    let outage = async |what: &str| {
        let signed_in = browser.get("/api/flags/me").await.expect(200).json();
        assert_eq!(signed_in["flags"]["f"]["value"], true, "{what}: who was signed in stays so");
        let mine = ann.get("/api/flags/me").await.expect(200).json();
        assert_eq!(mine["flags"]["f"]["value"], true, "{what}");
        let write = admin.put(&override_at(&id, "f"), &json!({"override_value": false})).await;
        assert!(!write.header("retry-after").is_empty());
        write.expect_problem(503, "database_unavailable");
        admin.get("/api/admin/users").await.expect_problem(503, "database_unavailable");
        eventually("answers say that they are stale", async || {
            let mine = ann.get("/api/flags/me").await.expect(200).json();
            (mine["stale"] == true).then_some(())
        })
        .await;
        let ready = ann.get("/readyz").await.expect(200).json();
        assert_eq!((&ready["status"], &ready["stale"]), (&json!("ready"), &json!(true)), "{what}");
    };
    let recovered = async |value: bool| {
        eventually("writes succeed again", async || {
            let answer = admin.put(&override_at(&id, "f"), &json!({"override_value": value})).await;
            answer.status.is_success().then_some(())
        })
        .await;
        eventually("answers are fresh again", async || {
            let mine = ann.get("/api/flags/me").await.expect(200).json();
            (mine["stale"] == false && mine["flags"]["f"]["value"] == value).then_some(())
        })
        .await;
    };
    let pids = cluster.pids();
    pids.iter().for_each(|pid| signal("STOP", *pid));
    outage("paused").await;
    pids.iter().for_each(|pid| signal("CONT", *pid));
    recovered(true).await;
    cluster.shut_down();
    outage("gone").await;
    cluster.launch(&[]);
    recovered(false).await;
    browser.get("/api/auth/me").await.expect(200);
    assert_eq!(server.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_not_at_hand_is_not_guessed() {
    let mut cluster = Cluster::start(&[]);
    let url = create(&cluster, "template0").await;
    output_of("server", &["migrate", "--database-url", &url]);
    let server = Running::server(&url);
    let admin = server.caller(&admin_token(&url));
    eventually("the token is known", async || (admin.get("/api/admin/users").await.status == 200).then_some(())).await;
    let ann = admin.post("/api/admin/users", &json!({"email": "ann@example.com"})).await.expect(201).json();
    let ann = ann["id"].as_str().unwrap().to_owned();
    let scope = ["token", "create", "--database-url", &url, "--name", "app", "--scope", "evaluate"];
    let app = server.caller(&output_of("server", &scope));
    admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    // Applications may know their visitors by UUIDs: that one is no user is remembered.
    let visitor = uuid::Uuid::now_v7().to_string();
    eventually("the application's token is known", async || {
        let all = app.post("/ofrep/v1/evaluate/flags", &json!({"context": {"targetingKey": visitor}})).await;
        (all.status == 200).then_some(())
    })
    .await;
    let token = user_token(&url, "ann@example.com");
    // Creating the token makes it known to the server at its next tick; the user is looked up at the first request.
    let revision = eventually("the token is known", async || {
        let revision = admin.get("/readyz").await.json()["revision"].as_str().unwrap().to_owned();
        (revision.split(':').nth(1) == Some("5")).then_some(revision)
    });
    revision.await;
    cluster.shut_down();
    for path in ["/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/f"] {
        let ask = async |key: &str| app.post(path, &json!({"context": {"targetingKey": key}})).await;
        for known in ["visitor-1", &visitor] {
            ask(known).await.expect(200);
        }
        let refused = ask(&ann).await.expect(503);
        assert!(refused.header("retry-after").parse::<u32>().is_ok());
        assert_eq!(refused.json()["errorCode"], "GENERAL");
    }
    let refused = server.caller(&token).get("/api/flags/me").await;
    assert!(!refused.header("retry-after").is_empty());
    refused.expect_problem(503, "context_unavailable");
    cluster.launch(&[]);
    eventually("the user can be looked up again", async || {
        let context = json!({"context": {"targetingKey": ann}});
        let evaluated = app.post("/ofrep/v1/evaluate/flags", &context).await.status == 200;
        (evaluated && server.caller(&token).get("/api/flags/me").await.status == 200).then_some(())
    })
    .await;
}
