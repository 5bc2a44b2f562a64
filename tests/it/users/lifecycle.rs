//! Creation, changes and deletion of users.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, author, override_path},
    database::DatabaseKind,
    on_both_databases, seed,
};

use super::USERS_PATH;

on_both_databases! {
    user_can_be_created_read_patched_and_deleted,
    email_is_unique_ignoring_case,
    attribute_change_affects_rule_evaluation,
    deactivated_or_deleted_user_loses_access_immediately,
    deleting_user_with_many_overrides_takes_several_revisions,
}

async fn user_can_be_created_read_patched_and_deleted(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let created = app.admin.post(USERS_PATH, &json!({"email": "Ann@Example.com"})).await.expect(201);
    let user = created.json();
    let path = format!("{USERS_PATH}/{}", user["id"].as_str().unwrap());
    assert_eq!(created.header("location"), path);
    assert_eq!(
        (&user["email"], &user["role"], &user["active"]),
        (&json!("Ann@Example.com"), &json!("user"), &json!(true))
    );
    assert_eq!(
        (&user["display_name"], &user["attributes"], &user["override_count"]),
        (&Value::Null, &json!({}), &json!(0))
    );
    let patch =
        json!({"display_name": "Ann", "attributes": {"plan": "pro", "deep": {"er": [1, 2.5, null]}}, "role": "viewer"});
    let patched = app.admin.patch(&path, &patch).await.expect(200).json();
    for (field, value) in patch.as_object().unwrap() {
        assert_eq!(&patched[field], value);
    }
    assert_eq!(app.admin.get(&path).await.expect(200).json(), patched);
    let log_before = app.change_log().await;
    app.admin.patch(&path, &patch).await.expect(200);
    assert_eq!(app.change_log().await, log_before, "a patch without effect writes no change-log entry");
    app.create_boolean_flag("f").await;
    app.admin
        .put(&override_path(user["id"].as_str().unwrap(), "f"), &json!({"override_value": true}))
        .await
        .expect(201);
    assert_eq!(app.admin.get(&path).await.json()["override_count"], 1);
    let entries_before = app.change_log().await.len();
    app.admin.delete(&path).await.expect(204);
    let actions: Vec<_> = app
        .change_log()
        .await
        .split_off(entries_before)
        .into_iter()
        .map(|(_, action, entity)| format!("{entity} {action}"))
        .collect();
    assert_eq!(actions, ["override deleted", "user deleted"]);
    app.admin.delete(&path).await.expect_problem(404, "user_not_found");
    app.admin.get(&path).await.expect_problem(404, "user_not_found");
    app.admin.patch(&path, &json!({})).await.expect_problem(404, "user_not_found");
    app.admin.get(&format!("{USERS_PATH}/rubbish")).await.expect_problem(404, "user_not_found");
}

async fn email_is_unique_ignoring_case(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    app.admin.post(USERS_PATH, &json!({"email": "ANN@example.com"})).await.expect_problem(409, "email_taken");
    let response = app.admin.patch(&format!("{USERS_PATH}/{ben_id}"), &json!({"email": "Ann@Example.Com"})).await;
    response.expect_problem(409, "email_taken");
    app.admin.patch(&format!("{USERS_PATH}/{ann_id}"), &json!({"email": "ANN@example.com"})).await.expect(200);
}

async fn attribute_change_affects_rule_evaluation(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user_with("ann", "user", json!({"plan": "free"})).await;
    app.create_boolean_flag("f").await;
    let rules = json!({"targeting_rules": [{"id": "pro", "serve": {"variant": "on"},
        "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}]}]});
    app.admin.put("/api/admin/feature-flags/f/targeting-rules", &rules).await.expect(200);
    for plan in ["pro", "free", "pro"] {
        app.admin.patch(&format!("{USERS_PATH}/{ann_id}"), &json!({"attributes": {"plan": plan}})).await.expect(200);
        assert_eq!(ann.get("/api/flags/me/f").await.json()["value"], plan == "pro");
    }
}

async fn deactivated_or_deleted_user_loses_access_immediately(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    ann.get("/api/flags/me").await.expect(200);
    let path = format!("{USERS_PATH}/{ann_id}");
    app.admin.patch(&path, &json!({"active": false})).await.expect(200);
    ann.get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.admin.patch(&path, &json!({"active": true})).await.expect(200);
    ann.get("/api/flags/me").await.expect(200);
    app.admin.delete(&path).await.expect(204);
    ann.get("/api/flags/me").await.expect_problem(401, "unauthorized");
}

async fn deleting_user_with_many_overrides_takes_several_revisions(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, _) = app.create_user("ann").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    for number in 0..1_001 {
        seed::insert_override(&mut tx, ann_id.parse().unwrap(), &format!("f{number}"), None).await;
    }
    tx.commit(&author()).await.unwrap();
    let log_before = app.change_log().await;
    app.admin.delete(&format!("{USERS_PATH}/{ann_id}")).await.expect(204);
    let deletion_entries = app.change_log().await.split_off(log_before.len());
    let revisions: BTreeSet<_> = deletion_entries.iter().map(|(revision, ..)| revision).collect();
    assert_eq!(revisions.len(), 2);
    assert_eq!(
        deletion_entries.iter().filter(|(_, action, entity)| action == "deleted" && entity == "override").count(),
        1_001
    );
    app.admin.get(&format!("{USERS_PATH}/{ann_id}")).await.expect_problem(404, "user_not_found");
}
