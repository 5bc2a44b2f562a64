//! Creation of flags.

use serde_json::json;

use flags_tests::{app::TestApp, database::DatabaseKind, on_both_databases};

use super::FLAGS_PATH;

on_both_databases! {
    boolean_flag_requires_only_name_and_type,
    non_boolean_flags_require_variants_default_and_off_variant,
    created_flag_reads_back_as_submitted,
}

async fn boolean_flag_requires_only_name_and_type(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let created =
        app.admin.post(FLAGS_PATH, &json!({"name": "ui.dark_mode", "flag_type": "boolean"})).await.expect(201);
    assert_eq!(created.header("location"), "/api/admin/feature-flags/ui.dark_mode");
    let flag = created.json();
    assert_eq!(flag["variants"], json!([{"id": "on", "value": true}, {"id": "off", "value": false}]));
    assert_eq!((&flag["default"], &flag["off_variant"]), (&json!({"variant": "off"}), &json!("off")));
    assert_eq!((&flag["enabled"], &flag["client_visible"]), (&json!(true), &json!(true)));
    assert_eq!(flag["salt"], "ui.dark_mode");
    assert_eq!(flag["effective"], json!({"enabled": true, "default": {"variant": "off"}, "scheduled_change_id": null}));
    assert_eq!(flag["default_set_at"], "2030-01-01T00:00:00Z");
    app.admin
        .post(FLAGS_PATH, &json!({"name": "ui.dark_mode", "flag_type": "json"}))
        .await
        .expect_problem(422, "validation_failed");
    app.admin
        .post(FLAGS_PATH, &json!({"name": "ui.dark_mode", "flag_type": "boolean"}))
        .await
        .expect_problem(409, "flag_exists");
    let only_default = json!({"name": "b", "flag_type": "boolean", "default": {"variant": "on"}});
    assert_eq!(app.create_flag(only_default).await["default"], json!({"variant": "on"}));
}

async fn non_boolean_flags_require_variants_default_and_off_variant(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let problem = app.admin.post(FLAGS_PATH, &json!({"name": "s", "flag_type": "string"})).await.expect(422).json();
    let pointers: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(pointers, ["/variants", "/default", "/off_variant"]);
    app.admin.get(&format!("{FLAGS_PATH}/s")).await.expect_problem(404, "flag_not_found");
}

async fn created_flag_reads_back_as_submitted(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let definition = json!({
        "name": "checkout.flow", "description": "…", "flag_type": "string", "enabled": true,
        "variants": [{"id": "old", "value": "classic"}, {"id": "new", "name": "New", "value": "one-page", "description": "d"}],
        "default": {"weights": {"old": 90.5, "new": 9.5}, "bucket_by": "company"}, "off_variant": "old",
        "targeting_rules": [{"id": "pro", "name": "Paying users", "enabled": true,
            "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro", 1, true], "negate": false}],
            "serve": {"variant": "new"}}],
        "owner": null, "tags": ["a", "b"], "client_visible": false, "salt": "x",
    });
    let created = app.create_flag(definition.clone()).await;
    let read = app.admin.get(&format!("{FLAGS_PATH}/checkout.flow")).await.expect(200);
    assert_eq!(read.json(), created);
    for (field, value) in definition.as_object().unwrap() {
        assert_eq!(&created[field], value, "{field}");
    }
    let (_, ann) = app.create_user("ann").await;
    ann.get("/api/flags/me/checkout.flow").await.expect_problem(404, "flag_not_found");
    assert_eq!(
        ann.get("/api/flags/me").await.json()["flags"],
        json!({}),
        "a flag with `client_visible: false` is hidden from clients"
    );
}
