//! Effect of overrides on evaluation results.

use serde_json::json;

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

use super::own_value;

on_both_databases! {
    override_affects_its_user_only,
    disabled_override_has_no_effect_but_blocks_creation,
    override_of_archived_flag_has_no_effect_until_restore,
    override_takes_precedence_over_every_other_layer,
}

async fn override_affects_its_user_only(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let ((ann_id, ann), (_, ben)) = (app.create_user("ann").await, app.create_user("ben").await);
    app.create_boolean_flag("f").await;
    app.admin
        .post(&user_overrides_path(&ann_id), &json!({"flag_name": "f", "override_value": true, "reason": "secret"}))
        .await
        .expect(201);
    let ann_flags = ann.get("/api/flags/me").await.expect(200);
    assert_eq!(ann_flags.json()["flags"]["f"]["source"], "override");
    assert!(!ann_flags.text.contains("secret"), "the reason is hidden from the user");
    assert_eq!(own_value(&ben, "f").await, false);
    let ann_overrides = ann.get("/api/flags/me/overrides").await.expect(200);
    assert_eq!(ann_overrides.json()["overrides"][0]["flag_name"], "f");
    assert!(!ann_overrides.text.contains("secret"));
    assert_eq!(ben.get("/api/flags/me/overrides").await.expect(200).json()["overrides"], json!([]));
}

async fn disabled_override_has_no_effect_but_blocks_creation(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let body = json!({"flag_name": "f", "override_value": true, "enabled": false});
    app.admin.post(&user_overrides_path(&ann_id), &body).await.expect(201);
    assert_eq!(own_value(&ann, "f").await, false);
    app.admin.post(&user_overrides_path(&ann_id), &body).await.expect_problem(409, "override_exists");
    app.admin.patch(&override_path(&ann_id, "f"), &json!({"enabled": true})).await.expect(200);
    assert_eq!(own_value(&ann, "f").await, true);
}

async fn override_of_archived_flag_has_no_effect_until_restore(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let path = override_path(&ann_id, "f");
    app.admin.put(&path, &json!({"override_value": true})).await.expect(201);
    app.admin.post("/api/admin/feature-flags/f/archive", &json!({})).await.expect(200);
    ann.get("/api/flags/me/f").await.expect_problem(404, "flag_not_found");
    assert_eq!(ann.get("/api/flags/me").await.json()["flags"], json!({}));
    assert_eq!(app.admin.get("/api/admin/feature-flags/f/user-overrides").await.expect(200).json()["total"], 1);
    assert_eq!(app.admin.get("/api/admin/feature-flags/f").await.json()["override_count"], 0);
    assert_eq!(app.admin.get(&format!("/api/admin/users/{ann_id}")).await.json()["override_count"], 0);
    app.admin.patch(&path, &json!({"reason": "flag is archived"})).await.expect(200);
    app.admin.put(&path, &json!({"override_value": true})).await.expect_problem(404, "flag_not_found");
    let body = json!({"flag_name": "f", "override_value": true});
    app.admin.post(&user_overrides_path(&ann_id), &body).await.expect_problem(404, "flag_not_found");
    app.admin.post("/api/admin/feature-flags/f/restore", &json!({})).await.expect(200);
    assert_eq!(own_value(&ann, "f").await, true, "the override applies again after the flag is restored");
    app.admin.post("/api/admin/feature-flags/f/archive", &json!({})).await.expect(200);
    app.admin.delete(&path).await.expect(204);
}

async fn override_takes_precedence_over_every_other_layer(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user_with("ann", "user", json!({"plan": "pro"})).await;
    let variants: Vec<_> = ["default", "scheduled", "rule", "off"].map(|id| json!({"id": id, "value": id})).into();
    app.create_flag(json!({"name": "f", "flag_type": "string", "variants": variants, "default": {"variant": "default"}, "off_variant": "off"})).await;
    let flag = "/api/admin/feature-flags/f";
    let assert_result = async |value: &str, source: &str| {
        let result = ann.get("/api/flags/me/f").await.expect(200).json();
        assert_eq!((&result["value"], &result["source"]), (&json!(value), &json!(source)));
    };
    assert_result("default", "default").await;
    let change = json!({"scheduled_at": "2030-01-01T00:00:01Z", "serve": {"variant": "scheduled"}});
    app.admin.post(&format!("{flag}/scheduled-changes"), &change).await.expect(201);
    assert_result("default", "default").await;
    app.set_clock("01-01T00:00:01Z");
    assert_result("scheduled", "scheduled_change").await;
    let rules = json!({"targeting_rules": [{"id": "r", "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}], "serve": {"variant": "rule"}}]});
    app.admin.put(&format!("{flag}/targeting-rules"), &rules).await.expect(200);
    assert_result("rule", "targeting_rule").await;
    app.admin.patch(flag, &json!({"enabled": false})).await.expect(200);
    assert_result("off", "disabled").await;
    app.admin.put(&override_path(&ann_id, "f"), &json!({"override_value": "override"})).await.expect(201);
    assert_result("override", "override").await;
    app.admin.delete(&override_path(&ann_id, "f")).await.expect(204);
    assert_result("off", "disabled").await;
}
