//! Event stream of a user's own flags: snapshots, changes and heartbeats.

use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};
use serde_json::{Value, json};

use super::{OWN_FLAGS_STREAM, changed_flags, expect_change_of, fast_heartbeats};

on_both_databases! {
    first_stream_event_is_a_snapshot_equal_to_the_own_flags_response,
    change_events_contain_complete_values_of_changed_flags_only,
    stream_sends_no_change_event_when_no_value_changes,
    events_never_mention_hidden_flags,
    attribute_change_sends_a_new_snapshot,
    heartbeats_carry_the_current_position,
}

fn without_evaluation_time(mut body: Value) -> Value {
    let fields = body.as_object_mut().unwrap();
    fields.remove("evaluated_at");
    body
}

async fn first_stream_event_is_a_snapshot_equal_to_the_own_flags_response(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann_id, ann) = app.create_user("ann").await;
    app.admin
        .put(&override_path(&ann_id, "a"), &json!({"override_value": true, "expires_at": "2030-01-02T00:00:00Z"}))
        .await
        .expect(201);
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert_eq!(events.headers["cache-control"], "no-cache");
    assert_eq!(events.headers["x-accel-buffering"], "no");
    assert_eq!(events.headers["flags-user"], *ann_id);
    let snapshot = events.next().await;
    assert_eq!(snapshot.event, "snapshot");
    assert!(events.parser.retry.is_some_and(|millis| (500..=3_000).contains(&millis)));
    let own_flags = ann.get("/api/flags/me").await.expect(200).json();
    assert_eq!(without_evaluation_time(snapshot.data.clone()), without_evaluation_time(own_flags));
    let micros = Instant::parse(snapshot.data["evaluated_at"].as_str().unwrap()).unwrap().as_micros();
    let position = format!("{}:{micros}", snapshot.data["revision"].as_str().unwrap());
    assert_eq!(snapshot.id.as_deref(), Some(&*position));
    let head = ann.send(reqwest::Method::HEAD, OWN_FLAGS_STREAM, &[], None).await.expect(200);
    assert_eq!((head.header("content-type"), &*head.text), ("text/event-stream", ""));
    ann.get("/api/flags/stream?nope=1").await.expect_violation("/nope", "unknown_parameter");
}

async fn change_events_contain_complete_values_of_changed_flags_only(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("a").await;
    app.create_boolean_flag("b").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    let snapshot = events.expect("snapshot").await;
    let created = app.admin.put(&override_path(&ann_id, "a"), &json!({"override_value": true})).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!(change.data["set"]["a"]["value"], true);
    assert_eq!(change.data["set"]["a"]["source"], "override");
    assert_eq!((changed_flags(&change), &change.data["unset"]), (vec!["a"], &json!([])));
    assert_eq!(change.data["revision"], created.header("flags-revision"));
    assert!(change.revision() > snapshot.revision());
    app.admin.post("/api/admin/feature-flags/b/archive", &json!({})).await.expect(200);
    let change = events.expect("change").await;
    assert_eq!((&change.data["set"], &change.data["unset"]), (&json!({}), &json!(["b"])));
    app.admin.post("/api/admin/feature-flags/b/restore", &json!({})).await.expect(200);
    let change = events.expect("change").await;
    assert_eq!((changed_flags(&change), &change.data["set"]["b"]["value"]), (vec!["b"], &json!(false)));
    app.admin.delete(&override_path(&ann_id, "a")).await.expect(204);
    let change = events.expect("change").await;
    assert_eq!(
        change.data["set"]["a"],
        json!({"value": false, "variant": "off", "flag_type": "boolean", "source": "default"})
    );
}

async fn stream_sends_no_change_event_when_no_value_changes(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, fast_heartbeats()).await;
    app.set_clock_before_real_time();
    app.create_boolean_flag("a").await;
    app.create_boolean_flag("marker").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (other_id, _) = app.create_user("other").await;
    app.admin
        .put(&override_path(&ann_id, "a"), &json!({"override_value": true, "expires_at": "2020-01-01T00:00:05Z"}))
        .await
        .expect(201);
    let change = json!({"scheduled_at": "2020-01-01T00:00:06Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/a/scheduled-changes", &change).await.expect(201);
    app.clock.set(Instant::parse("2020-01-01T00:00:07Z").unwrap());
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    let snapshot = events.expect("snapshot").await;
    assert_eq!(snapshot.data["flags"]["a"]["source"], "scheduled_change");
    // None of these changes sends an event: maintenance, descriptive fields, an override of another user, and a patch
    // that keeps the value.
    let round = flags_service::maintenance::run_round(&app.core, Default::default()).await.unwrap();
    assert_eq!((round.overrides_expired, round.scheduled_changes_applied), (1, 1));
    app.admin.patch("/api/admin/feature-flags/a", &json!({"description": "new", "tags": ["x"]})).await.expect(200);
    app.admin.put(&override_path(&other_id, "a"), &json!({"override_value": true})).await.expect(201);
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"display_name": "Ann"})).await.expect(200);
    app.admin.patch("/api/admin/feature-flags/a", &json!({"enabled": true})).await.expect(200);
    let head = app.replica.revision().number;
    loop {
        let heartbeat = events.next().await;
        assert_eq!(heartbeat.event, "heartbeat", "{heartbeat:?}");
        if heartbeat.revision() >= head {
            break;
        }
    }
    app.admin.put(&override_path(&ann_id, "marker"), &json!({"override_value": true})).await.expect(201);
    expect_change_of(&mut events, "marker").await;
}

async fn events_never_mention_hidden_flags(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("marker").await;
    let hidden = json!({"name": "hidden", "flag_type": "boolean", "client_visible": false});
    app.create_flag(hidden).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    events.expect("snapshot").await;
    app.admin.patch("/api/admin/feature-flags/hidden", &json!({"enabled": false})).await.expect(200);
    let expiring = json!({"override_value": true, "expires_at": "2030-01-01T00:00:05Z"});
    app.admin.put(&override_path(&ann_id, "hidden"), &expiring).await.expect(201);
    app.set_clock("01-01T00:00:06Z");
    app.admin.delete(&override_path(&ann_id, "hidden")).await.expect(204);
    app.create_flag(json!({"name": "second", "flag_type": "boolean", "client_visible": false})).await;
    app.admin.post("/api/admin/feature-flags/hidden/archive", &json!({})).await.expect(200);
    app.admin.put(&override_path(&ann_id, "marker"), &json!({"override_value": true})).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!((changed_flags(&change), &change.data["unset"]), (vec!["marker"], &json!([])));
    // A flag that becomes visible is set. A flag that becomes hidden is unset, once.
    app.admin.patch("/api/admin/feature-flags/second", &json!({"client_visible": true})).await.expect(200);
    assert_eq!(changed_flags(&events.expect("change").await), ["second"]);
    app.admin.patch("/api/admin/feature-flags/second", &json!({"client_visible": false})).await.expect(200);
    assert_eq!(events.expect("change").await.data["unset"], json!(["second"]));
    app.admin.patch("/api/admin/feature-flags/second", &json!({"enabled": false})).await.expect(200);
    app.admin.delete(&override_path(&ann_id, "marker")).await.expect(204);
    let change = events.expect("change").await;
    assert_eq!((changed_flags(&change), &change.data["unset"]), (vec!["marker"], &json!([])));
}

async fn attribute_change_sends_a_new_snapshot(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_flag(
        json!({"name": "a", "flag_type": "boolean", "targeting_rules": [{"id": "pro", "name": "Pro", "enabled": true,
        "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}], "serve": {"variant": "on"}}]}),
    )
    .await;
    let (ann_id, ann) = app.create_user("ann").await;
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    assert_eq!(events.expect("snapshot").await.data["flags"]["a"]["value"], false);
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"attributes": {"plan": "pro"}})).await.expect(200);
    let snapshot = events.expect("snapshot").await;
    assert_eq!(snapshot.data["flags"]["a"]["value"], true);
    // A client that was disconnected during the change also receives a snapshot.
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"attributes": {}})).await.expect(200);
    let mut resumed = ann.open_stream(OWN_FLAGS_STREAM, &[("Last-Event-ID", snapshot.id.as_deref().unwrap())]).await;
    assert_eq!(resumed.expect("snapshot").await.data["flags"]["a"]["value"], false);
}

async fn heartbeats_carry_the_current_position(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, fast_heartbeats()).await;
    app.create_boolean_flag("a").await;
    let (_, ann) = app.create_user("ann").await;
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    let snapshot = events.expect("snapshot").await;
    let first = events.expect("heartbeat").await;
    assert_eq!(first.data, json!({"revision": snapshot.data["revision"], "stale": false}));
    // Changes that concern only other users advance the position.
    app.create_user("other").await;
    let head = app.replica.revision();
    let later = loop {
        let heartbeat = events.expect("heartbeat").await;
        if heartbeat.revision() > first.revision() {
            break heartbeat;
        }
    };
    assert!(later.revision() <= head.number);
    assert!(later.data["revision"].as_str().unwrap().starts_with(&head.epoch.simple().to_string()));
}
