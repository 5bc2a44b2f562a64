//! Event stream of changes for administrators.

use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};
use serde_json::json;

use super::{ADMIN_STREAM, moved_position};

on_both_databases! {
    change_events_name_resource_and_actor,
    admin_stream_resumes_at_the_last_event_id,
    resumed_admin_stream_sends_one_event_per_revision,
}

async fn change_events_name_resource_and_actor(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ada_id, ada) = app.create_user_with("ada", "admin", json!({})).await;
    let mut events = app.admin.open_stream(ADMIN_STREAM, &[]).await;
    let snapshot = events.expect("snapshot").await;
    assert_eq!(snapshot.data, json!({"revision": app.replica.revision().to_string(), "stale": false}));
    ada.post("/api/admin/feature-flags", &json!({"name": "a", "flag_type": "boolean"})).await.expect(201);
    let change = events.expect("change").await;
    let actor = format!("user:{ada_id}");
    assert_eq!(change.data["revision"], app.replica.revision().to_string());
    assert_eq!(
        change.data["changes"],
        json!([{"entity": "flag", "action": "created", "flag_name": "a", "actor": actor}])
    );
    let created =
        ada.put(&override_path(&ann_id, "a"), &json!({"override_value": true, "reason": "secret"})).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!(
        change.data["changes"],
        json!([{"entity": "override", "action": "created", "flag_name": "a", "user_id": ann_id,
            "id": created.json()["id"], "actor": actor}])
    );
    assert!(!change.data.to_string().contains("secret"));
    ann.get(ADMIN_STREAM).await.expect_problem(403, "forbidden");
}

async fn admin_stream_resumes_at_the_last_event_id(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let mut events = app.admin.open_stream(ADMIN_STREAM, &[]).await;
    let start = events.expect("snapshot").await;
    for name in ["a", "b", "c"] {
        app.create_boolean_flag(name).await;
    }
    let mut changes = Vec::new();
    let mut resumed = app.admin.open_stream(ADMIN_STREAM, &[("Last-Event-ID", start.id.as_deref().unwrap())]).await;
    for _ in 0..3 {
        let change = resumed.expect("change").await;
        assert_eq!(change, events.expect("change").await);
        changes.push((change.revision() - start.revision(), change.data["changes"][0]["flag_name"].clone()));
    }
    assert_eq!(changes, [(1, json!("a")), (2, json!("b")), (3, json!("c"))]);
    for position in [
        "malformed",
        &moved_position(start.id.as_deref().unwrap(), 4, 0),
        &moved_position(start.id.as_deref().unwrap(), -100, 0),
    ] {
        let mut restarted = app.admin.open_stream(&format!("{ADMIN_STREAM}?cursor={position}"), &[]).await;
        assert_eq!(restarted.next().await.event, "snapshot", "{position}");
    }
}

async fn resumed_admin_stream_sends_one_event_per_revision(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let start = app.admin.open_stream(ADMIN_STREAM, &[]).await.expect("snapshot").await;
    for number in 0..3 {
        let mut tx = app.core.store().begin(Instant::from_micros(1)).await.unwrap();
        for user in 0..400 {
            flags_tests::seed::insert_user(&mut tx, &format!("u{number}-{user}@example.com")).await;
        }
        tx.commit(&flags_tests::app::author()).await.unwrap();
    }
    let mut resumed = app.admin.open_stream(ADMIN_STREAM, &[("Last-Event-ID", start.id.as_deref().unwrap())]).await;
    for number in 1..=3 {
        let change = resumed.next().await;
        assert_eq!((&*change.event, change.revision()), ("change", start.revision() + number));
        assert_eq!(change.data["changes"].as_array().unwrap().len(), 400);
    }
}
