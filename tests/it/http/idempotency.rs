//! `Idempotency-Key`: one effect and one answer, however often a request is sent.

use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, author, override_at, overrides_of},
    caller::Reply,
    database::Kind,
    on_both_databases, seed,
};
use reqwest::Method;
use serde_json::{Value, json};

on_both_databases! {
    a_retry_has_no_second_effect_and_gets_the_first_answer,
    another_request_with_the_same_key_is_refused,
    a_request_that_failed_leaves_the_key_free,
    of_many_at_once_one_is_carried_out,
    keys_last_a_day_and_are_purged_after,
    every_post_takes_a_key,
    a_bulk_change_by_many_at_once_is_carried_out_once,
    a_precondition_is_part_of_the_request,
}

async fn post(caller: &flags_tests::caller::Caller, path: &str, key: &str, body: &Value) -> Reply {
    caller.json(Method::POST, path, &[("Idempotency-Key", key)], body).await
}

fn whole(reply: &Reply) -> (u16, String, String, String, String) {
    let header = |name: &str| reply.header(name).to_owned();
    (reply.status.as_u16(), header("location"), header("etag"), header("flags-revision"), reply.text.clone())
}

async fn a_retry_has_no_second_effect_and_gets_the_first_answer(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let (id, _) = app.user("ann").await;
    let body = json!({"flag_name": "a", "override_value": true});
    let first = post(&app.admin, &overrides_of(&id), "k1", &body).await.expect(201);
    app.admin.patch(&override_at(&id, "a"), &json!({"enabled": false})).await.expect(200);
    let head = app.replica.revision();
    let again = post(&app.admin, &overrides_of(&id), "k1", &body).await;
    assert_eq!(whole(&again), whole(&first));
    assert_eq!(again.header("content-type"), "application/json");
    assert_eq!(app.replica.revision(), head, "nothing was written");
    assert_eq!(first.json()["revision"].as_i64().map(|r| r + 1), Some(head.number));
    // Keys belong to their callers.
    let (_, ada) = app.user_with("ada", "admin", json!({})).await;
    post(&ada, &overrides_of(&id), "k1", &body).await.expect_problem(409, "override_exists");
}

async fn another_request_with_the_same_key_is_refused(kind: Kind) {
    let app = TestApp::start(kind).await;
    let flag = |name: &str| json!({"name": name, "flag_type": "boolean"});
    post(&app.admin, "/api/admin/feature-flags", "k", &flag("a")).await.expect(201);
    let reused = post(&app.admin, "/api/admin/feature-flags", "k", &flag("b")).await;
    reused.expect_problem(422, "idempotency_key_reused");
    let elsewhere = post(&app.admin, "/api/admin/feature-flags/a/archive", "k", &json!({})).await;
    elsewhere.expect_problem(422, "idempotency_key_reused");
    app.admin.get("/api/admin/feature-flags/b").await.expect(404);
    for bad in ["", "a b", &"x".repeat(256)] {
        let refused = post(&app.admin, "/api/admin/feature-flags", bad, &flag("c")).await;
        refused.expect_violation("/Idempotency-Key", "invalid_header");
    }
    post(&app.admin, "/api/admin/feature-flags", &"x".repeat(255), &flag("c")).await.expect(201);
}

async fn a_request_that_failed_leaves_the_key_free(kind: Kind) {
    let app = TestApp::start(kind).await;
    let flag = json!({"name": "a", "flag_type": "boolean"});
    let archive = |key: &'static str| post(&app.admin, "/api/admin/feature-flags/a/archive", key, &Value::Null);
    archive("k").await.expect(404);
    app.admin.post("/api/admin/feature-flags", &flag).await.expect(201);
    let first = archive("k").await.expect(200);
    app.admin.post("/api/admin/feature-flags/a/restore", &json!({})).await.expect(200);
    assert_eq!(whole(&archive("k").await), whole(&first));
    assert_eq!(app.admin.get("/api/admin/feature-flags/a").await.json()["archived_at"], json!(null), "still restored");
}

async fn of_many_at_once_one_is_carried_out(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let (id, _) = app.user("ann").await;
    let before = app.replica.revision().number;
    let body = json!({"flag_name": "a", "override_value": true});
    let path = overrides_of(&id);
    let answers = futures_util::future::join_all((0..20).map(|_| post(&app.admin, &path, "k", &body))).await;
    for answer in &answers {
        assert_eq!(whole(answer), whole(&answers[0]));
    }
    assert_eq!(answers[0].status, 201);
    assert_eq!(app.replica.revision().number, before + 1);
}

async fn keys_last_a_day_and_are_purged_after(kind: Kind) {
    let app = TestApp::start(kind).await;
    let user = json!({"email": "x@example.com"});
    let create = || post(&app.admin, "/api/admin/users", "k", &user);
    let purge = || flags_service::maintenance::purge_idempotency_keys(&app.core);
    let first = create().await.expect(201);
    app.clock_to("01-01T23:59:59.999999Z");
    assert_eq!(purge().await.unwrap(), 0);
    assert_eq!(whole(&create().await), whole(&first));
    app.clock_to("01-02T00:00:00Z");
    create().await.expect_problem(409, "email_taken");
    assert_eq!(purge().await.unwrap(), 1);
    assert_eq!(purge().await.unwrap(), 0);
}

async fn every_post_takes_a_key(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (id, _) = app.user("ann").await;
    let flags = "/api/admin/feature-flags";
    let schedule = json!({"scheduled_at": "2030-01-02T00:00:00Z", "enabled": false});
    let twice = async |path: &str, body: &Value| {
        let first = post(&app.admin, path, path, body).await;
        assert!(first.status.is_success(), "{path}: {}", first.text);
        let head = app.replica.revision();
        assert_eq!(whole(&post(&app.admin, path, path, body).await), whole(&first), "{path}");
        assert_eq!(app.replica.revision(), head, "{path}");
        first.json()
    };
    twice("/api/admin/users", &json!({"email": "x@example.com"})).await;
    twice(flags, &json!({"name": "a", "flag_type": "boolean"})).await;
    twice(&overrides_of(&id), &json!({"flag_name": "a", "override_value": true})).await;
    let planned = twice(&format!("{flags}/a/scheduled-changes"), &schedule).await;
    let planned = planned["id"].as_str().unwrap();
    twice(&format!("{flags}/a/scheduled-changes/{planned}/cancel"), &json!({})).await;
    twice("/api/admin/flag-overrides/bulk", &json!({"action": "disable", "filter": {"flag_name": "a"}})).await;
    twice(&format!("{flags}/a/archive"), &json!({})).await;
    twice(&format!("{flags}/a/restore"), &json!({})).await;
    let document = app.nobody.get("/openapi.json").await.json();
    let posts = document["paths"].as_object().unwrap().values().filter(|path| !path["post"].is_null());
    let with_key = posts.filter(|path| path["post"]["parameters"].to_string().contains("Idempotency-Key")).count();
    assert_eq!(with_key, 8, "a new POST belongs into this test, or must refuse a key");
}

async fn a_bulk_change_by_many_at_once_is_carried_out_once(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let mut tx = app.core.store().begin(Instant::from_micros(1)).await.unwrap();
    for number in 0..2_100 {
        let user_id = seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        seed::insert_override(&mut tx, user_id, "f", None).await;
    }
    tx.commit(&author()).await.unwrap();
    let body = json!({"action": "disable", "filter": {"flag_name": "f", "status": "active"}});
    let bulk = || post(&app.admin, "/api/admin/flag-overrides/bulk", "k", &body);
    let other_body = json!({"email": "x@example.com"});
    let other = post(&app.admin, "/api/admin/users", "k2", &other_body);
    let (answers, other) = tokio::join!(futures_util::future::join_all((0..4).map(|_| bulk())), other);
    other.expect(201);
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.text, answers[0].text);
    }
    let answer = answers[0].json();
    assert_eq!((&answer["changed"], answer["revisions"].as_array().unwrap().len()), (&json!(2_100), 3));
    let updated = app.log().await.into_iter().filter(|(_, action, entity)| action == "updated" && entity == "override");
    assert_eq!(updated.count(), 2_100, "each once");
    // What matches now is none of the first request's.
    app.admin.post("/api/admin/flag-overrides/bulk", &json!({"action": "enable", "filter": {"flag_name": "f"}})).await;
    assert_eq!(bulk().await.text, answers[0].text);
    let active = app.admin.get("/api/admin/flag-overrides?status=active").await.json();
    assert_eq!(active["total"], 2_100, "nothing was switched off again");
    post(&app.admin, "/api/admin/users", "k", &other_body).await.expect_problem(422, "idempotency_key_reused");
}

async fn a_precondition_is_part_of_the_request(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let path = "/api/admin/feature-flags/a/archive";
    let with = async |tag: &str| {
        let headers = [("Idempotency-Key", "k"), ("If-Match", tag)];
        app.admin.json(Method::POST, path, &headers, &json!({})).await
    };
    with("*").await.expect(200);
    with("*").await.expect(200);
    with("\"x\"").await.expect_problem(422, "idempotency_key_reused");
}
