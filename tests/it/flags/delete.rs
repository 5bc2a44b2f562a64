//! Archiving and deletion of flags.

use serde_json::{Value, json};

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases, seed,
};

use super::FLAGS_PATH;

on_both_databases! {
    flag_must_be_archived_before_deletion,
    deleting_flag_with_many_overrides_takes_several_revisions,
}

async fn flag_must_be_archived_before_deletion(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let path = format!("{FLAGS_PATH}/f");
    app.admin.put(&override_path(&ann_id, "f"), &json!({"override_value": true})).await.expect(201);
    let change = json!({"scheduled_at": "2030-02-01T00:00:00Z", "enabled": false});
    let id = app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect(201).json()["id"].clone();
    assert_eq!(app.admin.get(&path).await.json()["pending_change_count"], 1);
    app.admin.delete(&path).await.expect_problem(409, "flag_not_archived");
    let archived = app.admin.post(&format!("{path}/archive"), &Value::Null).await.expect(200);
    assert_eq!(archived.json()["archived_at"], "2030-01-01T00:00:00Z");
    assert_eq!(archived.json()["pending_change_count"], 0);
    let cancelled =
        app.admin.get(&format!("{path}/scheduled-changes/{}", id.as_str().unwrap())).await.expect(200).json();
    assert_eq!(cancelled["status"], "cancelled");
    let archived_again = app.admin.post(&format!("{path}/archive"), &Value::Null).await.expect(200);
    assert_eq!(archived_again.header("etag"), archived.header("etag"), "archiving twice changes nothing");
    app.admin.post(&format!("{path}/scheduled-changes"), &change).await.expect_problem(409, "flag_archived");
    let log_before = app.change_log().await.len();
    app.admin.delete(&path).await.expect(204);
    let deletion_entries = app.change_log().await.split_off(log_before);
    let actions: Vec<_> = deletion_entries.iter().map(|(_, action, entity)| format!("{entity} {action}")).collect();
    assert_eq!(
        actions,
        ["override deleted", "scheduled_change deleted", "flag deleted"],
        "the change log records each deleted row"
    );
    assert_eq!(deletion_entries[0].0, deletion_entries[2].0, "all entries belong to one revision");
    app.admin.delete(&path).await.expect_problem(404, "flag_not_found");
    app.admin.get(&path).await.expect_problem(404, "flag_not_found");
    assert_eq!(ann.get("/api/flags/me/overrides").await.json()["overrides"], json!([]));
    app.create_boolean_flag("f").await;
    assert_eq!(
        ann.get("/api/flags/me/f").await.json()["source"],
        "default",
        "the new flag does not inherit overrides of the deleted one"
    );
}

async fn deleting_flag_with_many_overrides_takes_several_revisions(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    for number in 0..2_500 {
        let user_id = seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        seed::insert_override(&mut tx, user_id, "f", None).await;
    }
    let seeded_revision = tx.commit(&flags_tests::app::author()).await.unwrap().revision().number;
    let path = format!("{FLAGS_PATH}/f");
    assert_eq!(app.admin.get(&path).await.json()["override_count"], 2_500);
    app.admin.post(&format!("{path}/archive"), &Value::Null).await.expect(200);
    let deleted = app.admin.delete(&path).await.expect(204);
    let last_revision: i64 = deleted.header("flags-revision").split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!(
        last_revision,
        seeded_revision + 4,
        "revisions: archive, 1,000 overrides, 1,000 overrides, 500 overrides and the flag"
    );
    let change_log = app.change_log().await;
    assert_eq!(
        change_log.iter().filter(|(_, action, entity)| action == "deleted" && entity == "override").count(),
        2_500
    );
    app.admin.get(&path).await.expect_problem(404, "flag_not_found");
}
