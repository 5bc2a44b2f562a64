//! PATCH of flags.

use reqwest::Method;
use serde_json::{Value, json};

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::FLAGS_PATH;

on_both_databases! {
    flag_patch_replaces_only_the_named_fields,
    manual_change_supersedes_applied_scheduled_change,
    manual_change_is_timestamped_after_waiting_for_the_flag_lock,
    variants_in_use_cannot_be_removed,
}

async fn flag_patch_replaces_only_the_named_fields(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let path = format!("{FLAGS_PATH}/f");
    let body = json!({"description": "d", "owner": "o", "tags": ["t"], "client_visible": false, "salt": "s"});
    let tag = app.admin.patch(&path, &body).await.expect(200).header("etag").to_owned();
    let headers = [("content-type", "application/merge-patch+json"), ("if-match", tag.as_str())];
    let cleared =
        app.admin.send(Method::PATCH, &path, &headers, Some(br#"{"description": null}"#.to_vec())).await.expect(200);
    assert_eq!((&cleared.json()["description"], &cleared.json()["owner"]), (&Value::Null, &json!("o")));
    app.admin
        .send(Method::PATCH, &path, &headers, Some(b"{}".to_vec()))
        .await
        .expect_problem(412, "precondition_failed");
    let log_before = app.change_log().await;
    let unchanged = app.admin.patch(&path, &json!({"owner": "o", "enabled": true})).await.expect(200);
    assert_eq!(app.change_log().await, log_before);
    assert_eq!(unchanged.json(), cleared.json());
    app.admin.patch(&path, &json!({"name": "g"})).await.expect_violation("/name", "unknown_field");
    app.admin.patch(&path, &json!({"flag_type": "json"})).await.expect_violation("/flag_type", "unknown_field");
    app.admin.patch(&path, &json!({"enabled": null})).await.expect_violation("/enabled", "invalid_type");
    app.admin.patch(&format!("{FLAGS_PATH}/nope"), &json!({})).await.expect_problem(404, "flag_not_found");
}

async fn manual_change_supersedes_applied_scheduled_change(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (_, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let path = format!("{FLAGS_PATH}/f");
    let change = json!({"scheduled_at": "2030-01-01T00:00:01Z", "serve": {"variant": "on"}, "enabled": true});
    app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect(201);
    app.set_clock("01-01T00:00:02Z");
    let result = ann.get("/api/flags/me/f").await.json();
    assert_eq!((&result["value"], &result["source"]), (&json!(true), &json!("scheduled_change")));
    let flag = app.admin.get(&path).await.json();
    assert_eq!(
        (&flag["default"], &flag["effective"]["default"]),
        (&json!({"variant": "off"}), &json!({"variant": "on"}))
    );
    // The stored default is already `off`. Setting it is still a change, because the effective default is `on`.
    let patched = app.admin.patch(&path, &json!({"default": {"variant": "off"}})).await.expect(200).json();
    assert_eq!(patched["default_set_at"], "2030-01-01T00:00:02Z");
    assert_eq!(patched["effective"]["default"], json!({"variant": "off"}));
    assert_eq!(ann.get("/api/flags/me/f").await.json()["source"], "default");
    let log_before = app.change_log().await;
    app.admin.patch(&path, &json!({"default": {"variant": "off"}})).await.expect(200);
    assert_eq!(app.change_log().await, log_before);
}

async fn manual_change_is_timestamped_after_waiting_for_the_flag_lock(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let path = format!("{FLAGS_PATH}/f");
    let change = json!({"scheduled_at": "2030-01-01T00:00:05Z", "serve": {"variant": "on"}});
    app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect(201);
    let mut lock_holder = app.core.store().begin(app.core.now()).await.unwrap();
    flags_store::flags::lock(&mut lock_holder, "f").await.unwrap();
    let (admin, flag_path) = (app.admin.clone(), path.clone());
    let patch = tokio::spawn(async move { admin.patch(&flag_path, &json!({"default": {"variant": "off"}})).await });
    // The scheduled change becomes due while the PATCH waits for the lock, or before the PATCH arrives.
    // The result is the same in both cases.
    app.set_clock("01-01T00:00:06Z");
    lock_holder.rollback().await.unwrap();
    let patched = patch.await.unwrap().expect(200).json();
    assert_eq!(patched["default_set_at"], "2030-01-01T00:00:06Z");
    assert_eq!(
        patched["effective"],
        json!({"enabled": true, "default": {"variant": "off"}, "scheduled_change_id": null})
    );
    assert_eq!(app.admin.get(&path).await.json()["effective"], patched["effective"]);
}

async fn variants_in_use_cannot_be_removed(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let variants = |ids: &[&str]| ids.iter().map(|id| json!({"id": id, "value": id})).collect::<Vec<_>>();
    app.create_flag(json!({"name": "f", "flag_type": "string", "variants": variants(&["a", "b", "c", "d", "e"]),
        "default": {"variant": "a"}, "off_variant": "b",
        "targeting_rules": [{"id": "r", "conditions": [], "serve": {"weights": {"c": 100}}}]}))
        .await;
    let path = format!("{FLAGS_PATH}/f");
    let change = json!({"scheduled_at": "2030-01-01T00:00:01Z", "serve": {"variant": "d"}});
    app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect(201);
    let removal = json!({"variants": variants(&["e"])});
    let problem = app.admin.patch(&path, &removal).await.expect_problem(409, "variant_in_use");
    let detail = problem["detail"].as_str().unwrap();
    for usage in ["default", "off_variant", "targeting rule \"r\"", "scheduled change "] {
        assert!(detail.contains(usage), "{detail}");
    }
    app.set_clock("01-01T00:00:02Z");
    let without_d = json!({"variants": variants(&["a", "b", "c", "e"])});
    app.admin.patch(&path, &without_d).await.expect_problem(409, "variant_in_use");
    // A request may remove a variant together with the flag's own uses of it. Setting `default` also supersedes the
    // applied scheduled change, which is the only other use.
    let replace_all_uses =
        json!({"variants": variants(&["e"]), "default": {"variant": "e"}, "off_variant": "e", "targeting_rules": []});
    app.admin.patch(&path, &replace_all_uses).await.expect(200);
    let (_, ann) = app.create_user("ann").await;
    assert_eq!(ann.get("/api/flags/me/f").await.json()["value"], "e");
}
