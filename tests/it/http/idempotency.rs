//! `Idempotency-Key`: a repeated request has one effect and one response.

use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, author, override_path, user_overrides_path},
    caller::{ApiResponse, Caller},
    database::DatabaseKind,
    on_both_databases, seed,
};
use reqwest::Method;
use serde_json::{Value, json};

on_both_databases! {
    retry_with_the_same_idempotency_key_replays_the_first_response,
    rejects_idempotency_key_reused_for_another_request,
    failed_request_does_not_consume_its_idempotency_key,
    concurrent_requests_with_one_idempotency_key_execute_once,
    idempotency_keys_expire_after_24_hours_and_are_purged,
    every_post_operation_accepts_an_idempotency_key,
    concurrent_bulk_requests_with_one_idempotency_key_execute_once,
    rejects_idempotency_key_reused_with_another_precondition,
}

async fn post_with_key(caller: &Caller, path: &str, key: &str, body: &Value) -> ApiResponse {
    caller.send_json(Method::POST, path, &[("Idempotency-Key", key)], body).await
}

/// Returns the fields of a response that a replay must repeat: status, location, entity tag, revision and body.
fn replayed_parts(response: &ApiResponse) -> (u16, String, String, String, String) {
    let header = |name: &str| response.header(name).to_owned();
    (response.status.as_u16(), header("location"), header("etag"), header("flags-revision"), response.text.clone())
}

async fn retry_with_the_same_idempotency_key_replays_the_first_response(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let (ann_id, _) = app.create_user("ann").await;
    let body = json!({"flag_name": "a", "override_value": true});
    let first = post_with_key(&app.admin, &user_overrides_path(&ann_id), "k1", &body).await.expect(201);
    app.admin.patch(&override_path(&ann_id, "a"), &json!({"enabled": false})).await.expect(200);
    let revision_before = app.replica.revision();
    let replayed = post_with_key(&app.admin, &user_overrides_path(&ann_id), "k1", &body).await;
    assert_eq!(replayed_parts(&replayed), replayed_parts(&first));
    assert_eq!(replayed.header("content-type"), "application/json");
    assert_eq!(app.replica.revision(), revision_before, "the replay writes nothing");
    assert_eq!(first.json()["revision"].as_i64().map(|r| r + 1), Some(revision_before.number));
    // Another caller can use the same key for a separate request.
    let (_, ada) = app.create_user_with("ada", "admin", json!({})).await;
    post_with_key(&ada, &user_overrides_path(&ann_id), "k1", &body).await.expect_problem(409, "override_exists");
}

async fn rejects_idempotency_key_reused_for_another_request(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let flag = |name: &str| json!({"name": name, "flag_type": "boolean"});
    post_with_key(&app.admin, "/api/admin/feature-flags", "k", &flag("a")).await.expect(201);
    let response = post_with_key(&app.admin, "/api/admin/feature-flags", "k", &flag("b")).await;
    response.expect_problem(422, "idempotency_key_reused");
    let response = post_with_key(&app.admin, "/api/admin/feature-flags/a/archive", "k", &json!({})).await;
    response.expect_problem(422, "idempotency_key_reused");
    app.admin.get("/api/admin/feature-flags/b").await.expect(404);
    for invalid_key in ["", "a b", &"x".repeat(256)] {
        let response = post_with_key(&app.admin, "/api/admin/feature-flags", invalid_key, &flag("c")).await;
        response.expect_violation("/Idempotency-Key", "invalid_header");
    }
    post_with_key(&app.admin, "/api/admin/feature-flags", &"x".repeat(255), &flag("c")).await.expect(201);
}

async fn failed_request_does_not_consume_its_idempotency_key(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let flag = json!({"name": "a", "flag_type": "boolean"});
    let archive =
        |key: &'static str| post_with_key(&app.admin, "/api/admin/feature-flags/a/archive", key, &Value::Null);
    archive("k").await.expect(404);
    app.admin.post("/api/admin/feature-flags", &flag).await.expect(201);
    let first = archive("k").await.expect(200);
    app.admin.post("/api/admin/feature-flags/a/restore", &json!({})).await.expect(200);
    assert_eq!(replayed_parts(&archive("k").await), replayed_parts(&first));
    assert_eq!(
        app.admin.get("/api/admin/feature-flags/a").await.json()["archived_at"],
        json!(null),
        "the replay must not archive the flag again"
    );
}

async fn concurrent_requests_with_one_idempotency_key_execute_once(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let (ann_id, _) = app.create_user("ann").await;
    let revision_before = app.replica.revision().number;
    let body = json!({"flag_name": "a", "override_value": true});
    let path = user_overrides_path(&ann_id);
    let responses = futures_util::future::join_all((0..20).map(|_| post_with_key(&app.admin, &path, "k", &body))).await;
    for response in &responses {
        assert_eq!(replayed_parts(response), replayed_parts(&responses[0]));
    }
    assert_eq!(responses[0].status, 201);
    assert_eq!(app.replica.revision().number, revision_before + 1);
}

async fn idempotency_keys_expire_after_24_hours_and_are_purged(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let user = json!({"email": "x@example.com"});
    let create = || post_with_key(&app.admin, "/api/admin/users", "k", &user);
    let purge = || flags_service::maintenance::purge_idempotency_keys(&app.core);
    let first = create().await.expect(201);
    app.set_clock("01-01T23:59:59.999999Z");
    assert_eq!(purge().await.unwrap(), 0);
    assert_eq!(replayed_parts(&create().await), replayed_parts(&first));
    app.set_clock("01-02T00:00:00Z");
    create().await.expect_problem(409, "email_taken");
    assert_eq!(purge().await.unwrap(), 1);
    assert_eq!(purge().await.unwrap(), 0);
}

async fn every_post_operation_accepts_an_idempotency_key(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let flags_path = "/api/admin/feature-flags";
    let new_change = json!({"scheduled_at": "2030-01-02T00:00:00Z", "enabled": false});
    let post_twice = async |path: &str, body: &Value| {
        let first = post_with_key(&app.admin, path, path, body).await;
        assert!(first.status.is_success(), "{path}: {}", first.text);
        let revision_after_first = app.replica.revision();
        assert_eq!(
            replayed_parts(&post_with_key(&app.admin, path, path, body).await),
            replayed_parts(&first),
            "{path}"
        );
        assert_eq!(app.replica.revision(), revision_after_first, "{path}");
        first.json()
    };
    post_twice("/api/admin/users", &json!({"email": "x@example.com"})).await;
    post_twice(flags_path, &json!({"name": "a", "flag_type": "boolean"})).await;
    post_twice(&user_overrides_path(&ann_id), &json!({"flag_name": "a", "override_value": true})).await;
    let change = post_twice(&format!("{flags_path}/a/scheduled-changes"), &new_change).await;
    let change = change["id"].as_str().unwrap();
    post_twice(&format!("{flags_path}/a/scheduled-changes/{change}/cancel"), &json!({})).await;
    post_twice("/api/admin/flag-overrides/bulk", &json!({"action": "disable", "filter": {"flag_name": "a"}})).await;
    post_twice(&format!("{flags_path}/a/archive"), &json!({})).await;
    post_twice(&format!("{flags_path}/a/restore"), &json!({})).await;
    let document = app.anonymous.get("/openapi.json").await.json();
    let post_operations = document["paths"].as_object().unwrap().values().filter(|path| !path["post"].is_null());
    let with_key =
        post_operations.filter(|path| path["post"]["parameters"].to_string().contains("Idempotency-Key")).count();
    assert_eq!(with_key, 8, "add each new POST operation with an idempotency key to this test");
}

async fn concurrent_bulk_requests_with_one_idempotency_key_execute_once(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let mut tx = app.core.store().begin(Instant::from_micros(1)).await.unwrap();
    for number in 0..2_100 {
        let user_id = seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        seed::insert_override(&mut tx, user_id, "f", None).await;
    }
    tx.commit(&author()).await.unwrap();
    let body = json!({"action": "disable", "filter": {"flag_name": "f", "status": "active"}});
    let post_bulk = || post_with_key(&app.admin, "/api/admin/flag-overrides/bulk", "k", &body);
    let other_body = json!({"email": "x@example.com"});
    let other_response = post_with_key(&app.admin, "/api/admin/users", "k2", &other_body);
    let (responses, other_response) =
        tokio::join!(futures_util::future::join_all((0..4).map(|_| post_bulk())), other_response);
    other_response.expect(201);
    for response in &responses {
        assert_eq!(response.status, 200, "{}", response.text);
        assert_eq!(response.text, responses[0].text);
    }
    let result = responses[0].json();
    assert_eq!((&result["changed"], result["revisions"].as_array().unwrap().len()), (&json!(2_100), 3));
    let updates =
        app.change_log().await.into_iter().filter(|(_, action, entity)| action == "updated" && entity == "override");
    assert_eq!(updates.count(), 2_100, "each override is updated once");
    // The filter now matches the overrides again, but the retry only replays the response.
    app.admin.post("/api/admin/flag-overrides/bulk", &json!({"action": "enable", "filter": {"flag_name": "f"}})).await;
    assert_eq!(post_bulk().await.text, responses[0].text);
    let active = app.admin.get("/api/admin/flag-overrides?status=active").await.json();
    assert_eq!(active["total"], 2_100, "the replay must not disable the overrides again");
    post_with_key(&app.admin, "/api/admin/users", "k", &other_body).await.expect_problem(422, "idempotency_key_reused");
}

async fn rejects_idempotency_key_reused_with_another_precondition(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let path = "/api/admin/feature-flags/a/archive";
    let archive_if_match = async |tag: &str| {
        let headers = [("Idempotency-Key", "k"), ("If-Match", tag)];
        app.admin.send_json(Method::POST, path, &headers, &json!({})).await
    };
    archive_if_match("*").await.expect(200);
    archive_if_match("*").await.expect(200);
    archive_if_match("\"x\"").await.expect_problem(422, "idempotency_key_reused");
}
