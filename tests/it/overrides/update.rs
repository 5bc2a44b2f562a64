//! PUT, PATCH and DELETE of one override, with and without preconditions.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    put_creates_then_replaces_an_override,
    override_write_without_effect_takes_no_revision,
    preconditions_are_checked_before_validation,
}

async fn put_creates_then_replaces_an_override(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let path = override_path(&ann_id, "f");
    let if_absent = [("if-none-match", "*")];
    let body = json!({"override_value": true, "reason": "one"});
    let created = app.admin.send_json(Method::PUT, &path, &if_absent, &body).await.expect(201);
    assert_eq!(created.header("location"), path);
    app.admin.send_json(Method::PUT, &path, &if_absent, &body).await.expect_problem(412, "precondition_failed");
    let replaced = app.admin.put(&path, &json!({"override_value": false})).await.expect(200).json();
    assert_eq!(replaced["reason"], Value::Null, "PUT resets omitted fields");
    assert_eq!(replaced["id"], created.json()["id"]);
    app.admin.put(&override_path(&ann_id, "nope"), &body).await.expect_problem(404, "flag_not_found");
}

async fn override_write_without_effect_takes_no_revision(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let path = override_path(&ann_id, "f");
    let first = app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
    let change_log = app.change_log().await;
    app.set_clock("01-01T00:05:00Z");
    let put = app.admin.put(&path, &json!({"override_value": true})).await.expect(200);
    let patch = app.admin.patch(&path, &json!({"override_value": true, "enabled": true})).await.expect(200);
    app.admin.patch(&path, &json!({})).await.expect(200);
    assert_eq!(app.change_log().await, change_log);
    assert_eq!(put.json(), first.json());
    assert_eq!(patch.header("etag"), first.header("etag"));
}

async fn preconditions_are_checked_before_validation(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let path = override_path(&ann_id, "f");
    let body = json!({"enabled": false});
    app.admin
        .send_json(Method::PATCH, &path, &[("if-match", "*")], &body)
        .await
        .expect_problem(412, "precondition_failed");
    let first = app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
    let first_tag = first.header("etag").to_owned();
    let second = app.admin.send_json(Method::PATCH, &path, &[("if-match", &first_tag)], &body).await.expect(200);
    assert_ne!(second.header("etag"), first_tag);
    app.admin
        .send_json(Method::PATCH, &path, &[("if-match", &first_tag)], &body)
        .await
        .expect_problem(412, "precondition_failed");
    let invalid = json!({"override_value": "not a boolean"});
    let response = app.admin.send_json(Method::PATCH, &path, &[("if-match", &first_tag)], &invalid).await;
    response.expect_problem(412, "precondition_failed");
    let response = app.admin.send(Method::DELETE, &path, &[("if-match", &first_tag)], None).await;
    response.expect_problem(412, "precondition_failed");
    app.admin.send(Method::DELETE, &path, &[("if-match", second.header("etag"))], None).await.expect(204);
}
