//! Creates, reads, patches and deletes one override.

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path, user_overrides_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    override_can_be_created_read_patched_and_deleted,
}

async fn override_can_be_created_read_patched_and_deleted(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("ui.dark_mode").await;
    let body = json!({"flag_name": "ui.dark_mode", "override_value": true, "reason": "beta", "expires_at": "2030-02-01T00:00:00Z"});
    let created = app.admin.post(&user_overrides_path(&ann_id), &body).await.expect(201);
    let path = override_path(&ann_id, "ui.dark_mode");
    assert_eq!(created.header("location"), path);
    let created_body = created.json();
    let epoch = created.header("flags-revision").split(':').next().unwrap().to_owned();
    assert_eq!(created.header("etag"), format!("\"{epoch}:{}\"", created_body["revision"]));
    assert_eq!(created.header("flags-revision"), format!("{epoch}:{}", created_body["revision"]));
    let mut fields: Vec<_> = created_body.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "created_at",
            "created_by",
            "enabled",
            "expires_at",
            "flag_name",
            "id",
            "override_value",
            "reason",
            "revision",
            "status",
            "updated_at",
            "user_email",
            "user_id",
            "user_label",
        ]
    );
    assert_eq!(created_body["status"], "active");
    assert_eq!(
        (&created_body["user_email"], &created_body["user_label"]),
        (&json!("ann@example.com"), &json!("ann@example.com"))
    );
    assert!(created_body["created_by"].as_str().unwrap().starts_with("token:"));
    assert_eq!(app.admin.get(&path).await.expect(200).json(), created_body);

    app.set_clock("01-01T00:01:00Z");
    let patched = app.admin.patch(&path, &json!({"reason": null, "enabled": false})).await.expect(200);
    let patched_body = patched.json();
    assert_eq!(
        (&patched_body["reason"], &patched_body["enabled"], &patched_body["status"]),
        (&Value::Null, &json!(false), &json!("disabled"))
    );
    assert_eq!((&patched_body["id"], &patched_body["created_at"]), (&created_body["id"], &created_body["created_at"]));
    assert_eq!(patched_body["updated_at"], "2030-01-01T00:01:00Z");
    assert_eq!(patched_body["expires_at"], "2030-02-01T00:00:00Z");
    assert!(patched_body["revision"].as_i64() > created_body["revision"].as_i64());

    let deleted = app.admin.delete(&path).await.expect(204);
    assert!(deleted.header("flags-revision").starts_with(&epoch));
    app.admin.delete(&path).await.expect_problem(404, "override_not_found");
    app.admin.get(&path).await.expect_problem(404, "override_not_found");
}
