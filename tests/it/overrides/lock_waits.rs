//! Concurrent deletions on PostgreSQL. After a lock wait, a statement does not see rows inserted during the wait, so it
//! can return fewer rows than exist.

use serde_json::{Value, json};
use uuid::Uuid;

use flags_tests::{
    app::{TestApp, author, override_path, user_overrides_path},
    database::{DatabaseKind, query_postgres, table_rows},
    eventually, seed,
};

/// Waits until a session of the application's database waits for a lock.
async fn wait_until_blocked(app: &TestApp) {
    let sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let is_blocked = async || (!query_postgres(&app.database.url, sql).await.is_empty()).then_some(());
    eventually("a transaction waits for a lock", is_blocked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_removes_an_override_that_replaced_an_expired_one_during_the_lock_wait() {
    let app = TestApp::start(DatabaseKind::Postgres).await;
    let (ann_id, _) = app.create_user("ann").await;
    app.create_boolean_flag("f").await;
    let expiring = json!({"flag_name": "f", "override_value": true, "expires_at": "2030-01-01T00:00:01Z"});
    app.admin.post(&user_overrides_path(&ann_id), &expiring).await.expect(201);
    app.set_clock("01-01T00:00:01Z");
    let user_id: Uuid = ann_id.parse().unwrap();
    let mut replacement = app.core.store().begin(app.core.now()).await.unwrap();
    let expired = flags_store::overrides::lock(&mut replacement, user_id, "f").await.unwrap().unwrap();
    flags_store::overrides::delete(&mut replacement, &expired.user_override).await.unwrap();
    seed::insert_override(&mut replacement, user_id, "f", None).await;
    let (admin, path) = (app.admin.clone(), override_path(&ann_id, "f"));
    let deletion = tokio::spawn(async move { admin.delete(&path).await });
    wait_until_blocked(&app).await;
    replacement.commit(&author()).await.unwrap();
    deletion.await.unwrap().expect(204);
    assert_eq!(table_rows(&app.database.url, "user_flag_overrides").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flag_deletion_removes_all_overrides_even_if_a_batch_shrinks_during_the_lock_wait() {
    let app = TestApp::start(DatabaseKind::Postgres).await;
    app.create_boolean_flag("f").await;
    let mut tx = app.core.store().begin(app.core.now()).await.unwrap();
    let mut user_ids = Vec::new();
    for number in 0..1_001 {
        let user_id = seed::insert_user(&mut tx, &format!("u{number}@example.com")).await;
        seed::insert_override(&mut tx, user_id, "f", None).await;
        user_ids.push(user_id);
    }
    tx.commit(&author()).await.unwrap();
    app.admin.post("/api/admin/feature-flags/f/archive", &Value::Null).await.expect(200);
    let mut removal = app.core.store().begin(app.core.now()).await.unwrap();
    let removed = flags_store::overrides::lock(&mut removal, user_ids[0], "f").await.unwrap().unwrap();
    flags_store::overrides::delete(&mut removal, &removed.user_override).await.unwrap();
    let admin = app.admin.clone();
    let deletion = tokio::spawn(async move { admin.delete("/api/admin/feature-flags/f").await });
    wait_until_blocked(&app).await;
    removal.commit(&author()).await.unwrap();
    deletion.await.unwrap().expect(204);
    assert_eq!(table_rows(&app.database.url, "user_flag_overrides").await, [""; 0]);
}
