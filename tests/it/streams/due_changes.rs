//! Expiries and scheduled changes on the stream of a user's own flags.

use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    events::EventStream,
    on_both_databases,
};
use serde_json::json;

use super::{OWN_FLAGS_STREAM, changed_flags};

on_both_databases! {
    stream_sends_expiries_and_scheduled_changes_when_due,
    removal_after_expiry_notifies_streams_that_did_not_send_the_expiry,
    valid_until_of_change_events_equals_that_of_the_own_flags_response,
}

async fn stream_sends_expiries_and_scheduled_changes_when_due(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    app.create_boolean_flag("b").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    assert_eq!(events.expect("snapshot").await.data["valid_until"], json!(null));
    let expiring = json!({"override_value": true, "expires_at": "2030-01-01T00:00:05Z"});
    app.admin.put(&override_path(&ann_id, "a"), &expiring).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!(change.data["valid_until"], "2030-01-01T00:00:05Z");
    assert_eq!(change.data["set"]["a"]["then"]["value"], false);
    let change = json!({"scheduled_at": "2030-01-01T00:00:03Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/b/scheduled-changes", &change).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!((changed_flags(&change), &change.data["valid_until"]), (vec!["b"], &json!("2030-01-01T00:00:03Z")));
    let revision = change.revision();
    app.set_clock("01-01T00:00:03Z");
    let change = events.expect("change").await;
    assert_eq!((changed_flags(&change), &change.data["set"]["b"]["value"]), (vec!["b"], &json!(true)));
    assert_eq!((change.revision(), &change.data["valid_until"]), (revision, &json!("2030-01-01T00:00:05Z")));
    app.set_clock("01-01T00:00:05Z");
    let change = events.expect("change").await;
    assert_eq!((changed_flags(&change), &change.data["set"]["a"]["value"]), (vec!["a"], &json!(false)));
    assert_eq!((change.revision(), &change.data["valid_until"]), (revision, &json!(null)));
}

async fn removal_after_expiry_notifies_streams_that_did_not_send_the_expiry(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    let (ann_id, _) = app.create_user("ann").await;
    let expiring = json!({"override_value": true, "expires_at": "2030-01-01T00:00:05Z"});
    app.admin.put(&override_path(&ann_id, "a"), &expiring).await.expect(201);
    // This subscription models a stream whose client reads nothing while the override expires and is removed.
    let subscription = app.replica.notifier().subscribe(ann_id.parse().unwrap());
    let before = app.replica.revision().number;
    app.set_clock("01-01T00:00:06Z");
    app.admin.delete(&override_path(&ann_id, "a")).await.expect(204);
    assert_eq!(
        subscription.last_revision(),
        before + 1,
        "without the notification, the stream would consider itself up to date"
    );
}

async fn valid_until_of_change_events_equals_that_of_the_own_flags_response(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    for name in ["a", "b", "c"] {
        app.create_boolean_flag(name).await;
    }
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    events.expect("snapshot").await;
    let at = |second: u32| format!("2030-01-01T00:00:{second:02}Z");
    let schedule = async |flag: &str, second: u32, enabled: bool| {
        let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
        app.admin.post(&path, &json!({"scheduled_at": at(second), "enabled": enabled})).await.expect(201);
    };
    let expect_same_valid_until = async |events: &mut EventStream| {
        let change = events.expect("change").await;
        let own_flags = ann.get("/api/flags/me").await.expect(200).json();
        assert_eq!(change.data["valid_until"], own_flags["valid_until"], "{change:?}");
        own_flags["valid_until"].clone()
    };
    schedule("b", 30, false).await;
    assert_eq!(expect_same_valid_until(&mut events).await, at(30));
    schedule("hidden", 5, false).await;
    // The flag is already enabled, so this scheduled change has no effect.
    schedule("a", 10, true).await;
    assert_eq!(expect_same_valid_until(&mut events).await, at(30));
    app.admin
        .put(&override_path(&ann_id, "c"), &json!({"override_value": true, "expires_at": at(20)}))
        .await
        .expect(201);
    assert_eq!(expect_same_valid_until(&mut events).await, at(20));
    // An override without expiry takes precedence over the scheduled change of flag `b`.
    app.admin.put(&override_path(&ann_id, "b"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(expect_same_valid_until(&mut events).await, at(20));
    app.admin.delete(&override_path(&ann_id, "c")).await.expect(204);
    assert_eq!(expect_same_valid_until(&mut events).await, json!(null));
}
