//! `create_users=true`: an override for an unknown external id creates the user.

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    caller::{ApiResponse, Caller},
    database::{DatabaseKind, table_rows},
    on_both_databases,
};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

on_both_databases! {
    override_creates_its_user_in_a_separate_revision,
    error_for_an_unknown_user_suggests_create_users,
    failing_requests_create_no_user,
    concurrent_requests_create_one_user,
    retry_continues_after_the_user_was_created,
    replay_does_not_create_a_deleted_user_again,
}

const USERS_PATH: &str = "/api/admin/users";

fn post_path(external_id: &str) -> String {
    format!("{}?create_users=true", user_overrides_path(&format!("ext:{external_id}")))
}

fn put_path(external_id: &str) -> String {
    format!("{}?create_users=true", override_path(&format!("ext:{external_id}"), "f"))
}

fn new_override() -> Value {
    json!({"flag_name": "f", "override_value": true})
}

async fn post_with_key(caller: &Caller, external_id: &str, key: &str, body: &Value) -> ApiResponse {
    caller.send_json(Method::POST, &post_path(external_id), &[("Idempotency-Key", key)], body).await
}

async fn user_count(app: &TestApp) -> Value {
    app.admin.get(USERS_PATH).await.expect(200).json()["total"].clone()
}

async fn override_creates_its_user_in_a_separate_revision(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (sam_id, support) = app.create_user_with("sam", "support", json!({})).await;
    for (number, caller) in [&app.admin, &support].into_iter().enumerate() {
        let before = app.replica.revision().number;
        let by_post = caller.post(&post_path(&format!("post-{number}")), &new_override()).await.expect(201).json();
        assert_eq!((&by_post["user_label"], &by_post["user_email"]), (&json!(format!("post-{number}")), &Value::Null));
        let path = put_path(&format!("put-{number}"));
        let by_put = caller.put(&path, &json!({"override_value": true})).await.expect(201).json();
        let log = app.change_log().await;
        let logged: Vec<_> = log
            .iter()
            .filter(|(revision, ..)| *revision > before)
            .map(|(revision, action, kind)| (revision - before, action.as_str(), kind.as_str()))
            .collect();
        assert_eq!(
            logged,
            [(1, "created", "user"), (2, "created", "override"), (3, "created", "user"), (4, "created", "override")]
        );
        assert_eq!(by_put["revision"], before + 4);
        caller.put(&path, &json!({"override_value": false})).await.expect(200);
        let user = app.admin.get(&format!("{USERS_PATH}/ext:put-{number}")).await.expect(200).json();
        assert_eq!((&user["role"], &user["active"], &user["id"]), (&json!("user"), &json!(true), &by_put["user_id"]));
    }
    let encoded = override_path("ext64:Y3JtLzQy", "f");
    let item = support.put(&format!("{encoded}?create_users=true"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(item.json()["user_label"], "crm/42");
    let entries = app.admin.get("/api/admin/audit-log?action=created&limit=2").await.expect(200).json();
    assert_eq!(entries["items"][1]["actor"]["id"], format!("user:{sam_id}"));
    assert_eq!(entries["items"][1]["user_label"], "crm/42");
    let log = table_rows(&app.database.url, "change_log").await.join("\n");
    assert!(!log.contains("crm/42") && !log.contains("put-1"), "the change log holds the id alone");
    // A user with an e-mail address is found by external id too, so no user is created.
    let ben = app.admin.post(USERS_PATH, &json!({"email": "ben@example.com", "external_id": "ben"})).await.expect(201);
    let item = support.put(&put_path("ben"), &json!({"override_value": true})).await.expect(201).json();
    assert_eq!(item["user_id"], ben.json()["id"]);
    let vera = app.admin.post(USERS_PATH, &json!({"external_id": "vera", "role": "viewer"})).await.expect(201).json();
    support.put(&put_path("vera"), &json!({"override_value": true})).await.expect_problem(403, "user_not_permitted");
    app.admin.put(&put_path("vera"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(vera["role"], "viewer");
}

async fn error_for_an_unknown_user_suggests_create_users(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let value = json!({"override_value": true});
    for query in ["", "?create_users=false"] {
        for problem in [
            app.admin.post(&format!("{}{query}", user_overrides_path("ext:new")), &new_override()).await,
            app.admin.put(&format!("{}{query}", override_path("ext:new", "f")), &value).await,
        ] {
            let problem = problem.expect_problem(404, "user_not_found");
            assert!(problem["detail"].as_str().unwrap().contains("create_users=true"), "{problem}");
        }
    }
    // In a path, a UUID without `ext:` is not an external id, so no user can be created.
    let path = override_path("5d41402a-bc4b-2a76-b971-9d911017c592", "f");
    for query in ["", "?create_users=true"] {
        let problem = app.admin.put(&format!("{path}{query}"), &value).await.expect_problem(404, "user_not_found");
        assert_eq!(problem["detail"], "no such user");
    }
    for query in ["create_users=yes", "create_users=true&create_users=true"] {
        let response = app.admin.put(&format!("{}?{query}", override_path("ext:new", "f")), &value).await;
        response.expect_violation("/create_users", "invalid_parameter");
    }
    app.admin.delete(&put_path("new")).await.expect_violation("/create_users", "unknown_parameter");
    assert_eq!(user_count(&app).await, 0);
}

async fn failing_requests_create_no_user(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    app.create_boolean_flag("archived").await;
    app.admin.post("/api/admin/feature-flags/archived/archive", &json!({})).await.expect(200);
    let (_, viewer) = app.create_user_with("vera", "viewer", json!({})).await;
    let before = app.change_log().await;
    let post = async |external_id: &str, body: Value| app.admin.post(&post_path(external_id), &body).await;
    let flag = |name: &str| json!({"flag_name": name, "override_value": true});
    post("new", flag("nope")).await.expect_problem(404, "flag_not_found");
    post("new", flag("archived")).await.expect_problem(404, "flag_not_found");
    post("new", json!({"flag_name": "f", "override_value": 1}))
        .await
        .expect_violation("/override_value", "value_type_mismatch");
    let past = json!({"flag_name": "f", "override_value": true, "expires_at": "2029-01-01T00:00:00Z"});
    post("new", past).await.expect_violation("/expires_at", "not_in_future");
    post("a%40b", flag("f")).await.expect_violation("/user_id", "looks_like_email");
    post(&"x".repeat(256), flag("f")).await.expect_violation("/user_id", "too_long");
    post("", flag("f")).await.expect_violation("/user_id", "empty");
    viewer.post(&post_path("new"), &flag("f")).await.expect_problem(403, "forbidden");
    for header in [("if-match", "*"), ("if-match", "\"x:1\"")] {
        let response =
            app.admin.send_json(Method::PUT, &put_path("new"), &[header], &json!({"override_value": true})).await;
        response.expect_problem(412, "precondition_failed");
    }
    assert_eq!(app.change_log().await, before);
    let absent = [("if-none-match", "*")];
    let put =
        async || app.admin.send_json(Method::PUT, &put_path("new"), &absent, &json!({"override_value": true})).await;
    put().await.expect(201);
    put().await.expect_problem(412, "precondition_failed");
}

async fn concurrent_requests_create_one_user(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let flags: Vec<_> = (0..8).map(|number| format!("f{number}")).collect();
    for flag in &flags {
        app.create_boolean_flag(flag).await;
    }
    let put = async |flag: &String| {
        let path = format!("{}?create_users=true", override_path("ext:new", flag));
        app.admin.put(&path, &json!({"override_value": true})).await.expect(201).json()
    };
    let created = join_all(flags.iter().map(put)).await;
    assert!(created.iter().all(|item| item["user_id"] == created[0]["user_id"]));
    assert_eq!(user_count(&app).await, 1);
    let users = app.change_log().await.iter().filter(|(_, action, kind)| action == "created" && kind == "user").count();
    assert_eq!(users, 1);
}

async fn retry_continues_after_the_user_was_created(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    // Simulates an interruption between the two revisions.
    let user = app.admin.post(USERS_PATH, &json!({"external_id": "new"})).await.expect(201).json();
    let first = post_with_key(&app.admin, "new", "k", &new_override()).await.expect(201);
    assert_eq!(first.json()["user_id"], user["id"]);
    let before = app.replica.revision();
    assert_eq!(post_with_key(&app.admin, "new", "k", &new_override()).await.text, first.text);
    assert_eq!(app.replica.revision(), before);
    let send = || async { post_with_key(&app.admin, "other", "k2", &new_override()).await.expect(201).text };
    let responses = join_all((0..6).map(|_| send())).await;
    assert!(responses.iter().all(|response| *response == responses[0]));
    assert_eq!(app.replica.revision().number, before.number + 2, "one user and one override");
}

async fn replay_does_not_create_a_deleted_user_again(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let first = post_with_key(&app.admin, "new", "k", &new_override()).await.expect(201);
    app.admin.delete(&format!("{USERS_PATH}/ext:new")).await.expect(204);
    let before = app.change_log().await;
    let replayed = post_with_key(&app.admin, "new", "k", &new_override()).await.expect(201);
    assert_eq!((&replayed.text, replayed.header("location")), (&first.text, first.header("location")));
    let other = json!({"flag_name": "f", "override_value": false});
    post_with_key(&app.admin, "new", "k", &other).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(app.change_log().await, before);
    // After an erasure, the key counts as unused.
    post_with_key(&app.admin, "gone", "k2", &new_override()).await.expect(201);
    app.admin.delete(&format!("{USERS_PATH}/ext:gone?erase=true")).await.expect(204);
    post_with_key(&app.admin, "gone", "k2", &new_override()).await.expect(201);
    app.admin.get(&format!("{USERS_PATH}/ext:gone")).await.expect(200);
}
