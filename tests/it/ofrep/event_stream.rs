//! The OFREP event stream: which changes send a `refetchEvaluation` event.

use flags_api::StreamLimits;
use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, override_path},
    database::DatabaseKind,
    on_both_databases,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    BULK_PATH, backend_caller, expect_error, expect_no_refetch, expect_refetch, fetch_stream_address,
    open_evaluation_stream, request_for,
};
use crate::{
    auth::jwt::START_SECONDS,
    streams::{fast_heartbeats, no_heartbeats},
};

on_both_databases! {
    first_stream_event_is_a_refetch,
    refetch_is_sent_for_relevant_changes_only,
    refetch_is_sent_when_expiries_and_scheduled_changes_are_due,
    expiries_and_scheduled_changes_send_a_refetch_without_waiting_for_a_heartbeat,
    backend_stream_covers_hidden_flags_and_only_its_own_targeting_key,
    stream_resumes_at_the_last_event_id,
    streams_are_limited_and_end_at_shutdown,
    replica_reload_sends_a_refetch,
}

async fn first_stream_event_is_a_refetch(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let uri = fetch_stream_address(&ann, &ann_id).await;
    let mut events = app.anonymous.open_stream(&uri, &[]).await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert_eq!(events.headers["cache-control"], "no-cache");
    assert_eq!(events.headers["x-accel-buffering"], "no");
    let first = expect_refetch(&mut events).await;
    assert_eq!(first.revision(), app.replica.revision().number);
    assert_eq!(first.data["lastModified"], START_SECONDS);
    assert!(events.parser.retry.is_some());
    let head = app.anonymous.send(Method::HEAD, &uri, &[], None).await.expect(200);
    assert_eq!((head.header("content-type"), &*head.text), ("text/event-stream", ""));
    // After this event, a provider evaluates again and sends the event's `etag` and `lastModified` as query parameters.
    let etag = first.data["etag"].as_str().unwrap();
    let entity_tag = ann.post(BULK_PATH, &request_for(&ann_id)).await.header("etag").to_owned();
    let path = format!("{BULK_PATH}?flagConfigEtag={etag}&flagConfigLastModified={}", first.data["lastModified"]);
    ann.send_json(Method::POST, &path, &[("if-none-match", &entity_tag)], &request_for(&ann_id)).await.expect(304);
}

async fn refetch_is_sent_for_relevant_changes_only(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, fast_heartbeats()).await;
    app.create_boolean_flag("f").await;
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let mut events = open_evaluation_stream(&app, &ann, &ann_id).await;
    expect_refetch(&mut events).await;
    // Changes of other users, of hidden flags and of descriptive fields are not relevant.
    app.admin.put(&override_path(&ben_id, "f"), &json!({"override_value": true})).await.expect(201);
    app.admin.patch(&format!("/api/admin/users/{ben_id}"), &json!({"attributes": {"plan": "pro"}})).await.expect(200);
    app.admin.put(&override_path(&ann_id, "hidden"), &json!({"override_value": true})).await.expect(201);
    app.admin.patch("/api/admin/feature-flags/hidden", &json!({"enabled": false})).await.expect(200);
    app.admin.patch("/api/admin/feature-flags/f", &json!({"description": "new"})).await.expect(200);
    app.create_flag(json!({"name": "hidden2", "flag_type": "boolean", "client_visible": false})).await;
    expect_no_refetch(&app, &mut events).await;
    let flag_path = "/api/admin/feature-flags/f";
    let hidden_path = "/api/admin/feature-flags/hidden";
    let (own_override, user_path) = (override_path(&ann_id, "f"), format!("/api/admin/users/{ann_id}"));
    for (case, method, path, body) in [
        ("flag changed", Method::PATCH, flag_path, json!({"default": {"variant": "on"}})),
        ("own override created", Method::PUT, &own_override, json!({"override_value": true})),
        ("own override disabled", Method::PATCH, &own_override, json!({"enabled": false})),
        ("own override removed", Method::DELETE, &own_override, json!({})),
        ("own attributes changed", Method::PATCH, &user_path, json!({"attributes": {"a": 1}})),
        ("own role changed", Method::PATCH, &user_path, json!({"role": "viewer"})),
        ("flag made visible", Method::PATCH, hidden_path, json!({"client_visible": true})),
        ("flag hidden", Method::PATCH, hidden_path, json!({"client_visible": false})),
        ("flag archived", Method::POST, &format!("{flag_path}/archive"), json!({})),
        ("flag restored", Method::POST, &format!("{flag_path}/restore"), json!({})),
    ] {
        let change = app.admin.send_json(method, path, &[], &body).await;
        assert!(change.status.is_success(), "{case}: {}", change.text);
        assert_eq!(expect_refetch(&mut events).await.revision(), app.replica.revision().number, "{case}");
    }
    expect_no_refetch(&app, &mut events).await;
}

async fn refetch_is_sent_when_expiries_and_scheduled_changes_are_due(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, fast_heartbeats()).await;
    for name in ["f", "g"] {
        app.create_boolean_flag(name).await;
    }
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let at = |second: u32| format!("2030-01-01T00:00:{second:02}Z");
    let schedule = async |flag: &str, second: u32| {
        let body = json!({"scheduled_at": at(second), "serve": {"variant": "on"}});
        app.admin.post(&format!("/api/admin/feature-flags/{flag}/scheduled-changes"), &body).await.expect(201);
    };
    for (user, flag, second) in [(&ann_id, "f", 10), (&ben_id, "f", 20), (&ann_id, "hidden", 30)] {
        let body = json!({"override_value": true, "expires_at": at(second)});
        app.admin.put(&override_path(user, flag), &body).await.expect(201);
    }
    schedule("g", 40).await;
    schedule("hidden", 50).await;
    let backend = backend_caller(&app).await;
    let mut own = open_evaluation_stream(&app, &ann, &ann_id).await;
    let mut backend_for_ann = open_evaluation_stream(&app, &backend, &ann_id).await;
    let mut backend_for_anonymous = open_evaluation_stream(&app, &backend, "anonymous-1").await;
    for events in [&mut own, &mut backend_for_ann, &mut backend_for_anonymous] {
        expect_refetch(events).await;
    }
    for (second, expected) in [
        (10, [true, true, false]),
        (20, [false, false, false]),
        (30, [false, true, false]),
        (40, [true, true, true]),
        (50, [false, true, true]),
    ] {
        app.set_clock(&format!("01-01T00:00:{second:02}Z"));
        for (events, expected) in [&mut own, &mut backend_for_ann, &mut backend_for_anonymous].into_iter().zip(expected)
        {
            if expected {
                let refetch = expect_refetch(events).await;
                assert_eq!(refetch.evaluated_at(), Instant::parse(&at(second)).unwrap().as_micros());
            } else {
                expect_no_refetch(&app, events).await;
            }
        }
    }
}

async fn expiries_and_scheduled_changes_send_a_refetch_without_waiting_for_a_heartbeat(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, no_heartbeats()).await;
    app.create_boolean_flag("f").await;
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let backend = backend_caller(&app).await;
    let mut own = open_evaluation_stream(&app, &ann, &ann_id).await;
    let mut anonymous = open_evaluation_stream(&app, &backend, "anonymous-1").await;
    expect_refetch(&mut own).await;
    expect_refetch(&mut anonymous).await;
    let expiring = json!({"override_value": true, "expires_at": "2030-01-01T00:00:10Z"});
    app.admin.put(&override_path(&ann_id, "f"), &expiring).await.expect(201);
    expect_refetch(&mut own).await;
    let scheduled = json!({"scheduled_at": "2030-01-01T00:00:20Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/hidden/scheduled-changes", &scheduled).await.expect(201);
    expect_refetch(&mut anonymous).await;
    app.set_clock("01-01T00:00:10Z");
    assert_eq!(expect_refetch(&mut own).await.data["lastModified"], START_SECONDS + 10);
    app.set_clock("01-01T00:00:20Z");
    assert_eq!(expect_refetch(&mut anonymous).await.data["lastModified"], START_SECONDS + 20);
}

async fn backend_stream_covers_hidden_flags_and_only_its_own_targeting_key(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, fast_heartbeats()).await;
    app.create_flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann_id, _) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let backend = backend_caller(&app).await;
    let mut for_ann = open_evaluation_stream(&app, &backend, &ann_id).await;
    let mut for_anonymous = open_evaluation_stream(&app, &backend, "anonymous-1").await;
    expect_refetch(&mut for_ann).await;
    expect_refetch(&mut for_anonymous).await;
    let path = "/api/admin/feature-flags/hidden";
    app.admin.patch(path, &json!({"enabled": false})).await.expect(200);
    for events in [&mut for_ann, &mut for_anonymous] {
        assert_eq!(expect_refetch(events).await.revision(), app.replica.revision().number);
    }
    app.admin.put(&override_path(&ben_id, "hidden"), &json!({"override_value": true})).await.expect(201);
    expect_no_refetch(&app, &mut for_ann).await;
    app.admin.put(&override_path(&ann_id, "hidden"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(expect_refetch(&mut for_ann).await.revision(), app.replica.revision().number);
    expect_no_refetch(&app, &mut for_anonymous).await;
    // Deactivating the user changes the result but does not end the stream: the credential of the backend stays valid.
    for active in [false, true] {
        app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"active": active})).await.expect(200);
        assert_eq!(expect_refetch(&mut for_ann).await.revision(), app.replica.revision().number);
        let all = backend.post(BULK_PATH, &request_for(&ann_id)).await.expect(200).json();
        assert_eq!(all["flags"][0]["value"], active);
    }
    // Even if the flag is deleted immediately after it was archived, the streams send a refetch.
    app.admin.patch(path, &json!({"client_visible": true})).await.expect(200);
    app.admin.post(&format!("{path}/archive"), &json!({})).await.expect(200);
    app.admin.delete(path).await.expect(204);
    let head = app.replica.revision().number;
    for events in [&mut for_ann, &mut for_anonymous] {
        while expect_refetch(events).await.revision() < head - 1 {}
    }
}

async fn stream_resumes_at_the_last_event_id(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    app.create_boolean_flag("f").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ben_id, _) = app.create_user("ben").await;
    let uri = fetch_stream_address(&ann, &ann_id).await;
    let first = expect_refetch(&mut app.anonymous.open_stream(&uri, &[]).await).await.id.unwrap();
    let resume = async |last_event_id: &str| {
        app.anonymous.open_stream(&uri, &[("last-event-id", last_event_id)]).await.next().await
    };
    app.admin.put(&override_path(&ben_id, "f"), &json!({"override_value": true})).await.expect(201);
    let unchanged = resume(&first).await;
    assert_eq!(unchanged.event, "heartbeat", "no relevant change since the last event");
    assert_eq!(unchanged.revision(), app.replica.revision().number);
    let by_query = app.anonymous.open_stream(&format!("{uri}&cursor={first}"), &[]).await.next().await;
    assert_eq!(by_query.event, "heartbeat");
    for invalid in ["", "malformed", &format!("{}:1:0", "0".repeat(32)), &first.replacen(':', ":999", 1)] {
        assert_eq!(resume(invalid).await.event, "message", "{invalid}");
    }
    app.admin
        .put(&override_path(&ann_id, "f"), &json!({"override_value": true, "expires_at": "2030-01-01T00:00:09Z"}))
        .await;
    let second = resume(&first).await;
    assert_eq!((&*second.event, second.revision()), ("message", app.replica.revision().number));
    let second = second.id.unwrap();
    assert_eq!(resume(&second).await.event, "heartbeat");
    app.set_clock("01-01T00:00:09Z");
    let third = resume(&second).await;
    assert_eq!(third.event, "message", "the override expired in the meantime");
    app.create_flag(json!({"name": "briefly_visible", "flag_type": "boolean", "client_visible": false})).await;
    let third = third.id.unwrap();
    assert_eq!(resume(&third).await.event, "heartbeat");
    for visible in [true, false] {
        app.admin
            .patch("/api/admin/feature-flags/briefly_visible", &json!({"client_visible": visible}))
            .await
            .expect(200);
    }
    assert_eq!(
        resume(&third).await.event,
        "message",
        "a response in between may contain the flag that is hidden again"
    );
}

async fn streams_are_limited_and_end_at_shutdown(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, StreamLimits { max_streams: 1, ..StreamLimits::default() }).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let uri = fetch_stream_address(&ann, &ann_id).await;
    let mut events = app.anonymous.open_stream(&uri, &[]).await;
    expect_refetch(&mut events).await;
    let refused = expect_error(app.anonymous.get(&uri).await, 503, "GENERAL", None);
    assert_eq!(refused.header("retry-after"), "5");
    ann.get("/api/flags/stream").await.expect_problem(503, "too_many_streams");
    app.app.begin_shutdown();
    assert_eq!(events.expect("bye").await.data, json!({"reason": "shutdown"}));
    events.expect_end().await;
}

async fn replica_reload_sends_a_refetch(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let backend = backend_caller(&app).await;
    let mut events = open_evaluation_stream(&app, &backend, "anonymous-1").await;
    let before: Value = expect_refetch(&mut events).await.data["etag"].clone();
    app.reload_replica().await;
    let after = expect_refetch(&mut events).await.data["etag"].clone();
    let epoch = |etag: &Value| etag.as_str().unwrap().split(':').next().unwrap().to_owned();
    assert_ne!(epoch(&before), epoch(&after));
}
