//! The replica, the in-memory copy that each server keeps of the database.

use flags_service::{change_feed, replica::Replica};
use serde_json::json;

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};

on_both_databases! {
    incrementally_updated_replica_equals_a_reloaded_one,
}

async fn incrementally_updated_replica_equals_a_reloaded_one(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user_with("ann", "user", json!({"plan": "pro"})).await;
    for name in ["a", "b", "c", "d"] {
        app.create_boolean_flag(name).await;
        app.admin
            .put(&override_path(&ann_id, name), &json!({"override_value": true, "reason": name}))
            .await
            .expect(201);
    }
    let change = json!({"scheduled_at": "2030-01-01T00:00:01Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/a/scheduled-changes", &change).await.expect(201);
    app.admin.delete(&override_path(&ann_id, "a")).await.expect(204);
    app.admin.patch(&override_path(&ann_id, "b"), &json!({"enabled": false})).await.expect(200);
    app.admin.post("/api/admin/feature-flags/c/archive", &json!({})).await.expect(200);
    app.admin.post("/api/admin/feature-flags/d/archive", &json!({})).await.expect(200);
    app.admin.delete("/api/admin/feature-flags/d").await.expect(204);
    let reloaded = Replica::new(change_feed::load(app.core.store()).await.unwrap());
    let content = |replica: &Replica| {
        let snapshot = replica.snapshot(Some(ann_id.parse().unwrap()));
        let flags: Vec<_> = snapshot.flags().map(|flag| format!("{:?} {:?}", flag.flag(), flag.schedule())).collect();
        let overrides: Vec<_> = snapshot.overrides().map(|o| format!("{o:?}")).collect();
        (snapshot.revision(), flags, overrides)
    };
    assert_eq!(content(&app.replica), content(&reloaded));
    app.set_clock("01-01T00:00:01Z");
    assert_eq!(ann.get("/api/flags/me/a").await.json()["source"], "scheduled_change");
}
