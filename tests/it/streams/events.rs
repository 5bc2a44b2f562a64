//! Streams: what a client sees of the changes that concern it, when time passes, after a cut, and when it must go.

use std::time::Duration;

use flags_api::StreamLimits;
use flags_domain::Instant;
use flags_store::{api_tokens::Grant, users::Role};
use flags_tests::{
    app::{TestApp, override_at},
    database::{Kind, tamper},
    events::{Event, Events},
    on_both_databases,
};
use serde_json::{Value, json};

on_both_databases! {
    a_stream_begins_with_what_the_request_would_answer,
    changes_arrive_whole_and_name_only_what_changed,
    what_changes_no_value_sends_nothing,
    time_is_pushed_at_its_instant,
    flags_that_a_user_never_saw_are_not_named,
    a_user_whose_attributes_change_gets_everything_anew,
    a_removal_is_noted_for_streams_that_have_not_seen_the_end,
    heartbeats_carry_the_position,
    streams_end_when_the_credential_does,
    a_change_of_the_caller_ends_a_stream_without_a_heartbeat,
    a_stream_whose_user_cannot_be_looked_up_lives_where_it_was,
    the_next_instant_is_that_of_the_request,
    streams_end_by_age_and_at_shutdown_and_are_counted,
    admins_see_what_was_changed_by_whom,
}

pub(crate) const MINE: &str = "/api/flags/stream";
pub(crate) const ALL: &str = "/api/admin/stream";

/// Fast enough that tests see heartbeats.
pub(crate) fn lively() -> StreamLimits {
    StreamLimits { heartbeat: Duration::from_millis(50), ..StreamLimits::default() }
}

/// Asserts that nothing but heartbeats comes before the change of `marker` that the test makes last.
pub(crate) async fn next_is_marker(events: &mut Events, marker: &str) {
    let change = events.expect("change").await;
    assert_eq!(names(&change), [marker], "{change:?}");
}

pub(crate) fn names(change: &Event) -> Vec<&str> {
    change.data["set"].as_object().unwrap().keys().map(String::as_str).collect()
}

fn body_without_position(mut body: Value) -> Value {
    let map = body.as_object_mut().unwrap();
    map.remove("evaluated_at");
    body
}

async fn a_stream_begins_with_what_the_request_would_answer(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    app.flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (id, ann) = app.user("ann").await;
    app.admin
        .put(&override_at(&id, "a"), &json!({"override_value": true, "expires_at": "2030-01-02T00:00:00Z"}))
        .await
        .expect(201);
    let mut events = ann.stream(MINE, &[]).await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert_eq!(events.headers["cache-control"], "no-cache");
    assert_eq!(events.headers["x-accel-buffering"], "no");
    assert_eq!(events.headers["flags-user"], *id);
    let snapshot = events.next().await;
    assert_eq!(snapshot.event, "snapshot");
    assert!(events.parser.retry.is_some_and(|millis| (500..=3_000).contains(&millis)));
    let mine = ann.get("/api/flags/me").await.expect(200).json();
    assert_eq!(body_without_position(snapshot.data.clone()), body_without_position(mine));
    let micros = Instant::parse(snapshot.data["evaluated_at"].as_str().unwrap()).unwrap().as_micros();
    let id = format!("{}:{micros}", snapshot.data["revision"].as_str().unwrap());
    assert_eq!(snapshot.id.as_deref(), Some(&*id));
    let head = ann.send(reqwest::Method::HEAD, MINE, &[], None).await.expect(200);
    assert_eq!((head.header("content-type"), &*head.text), ("text/event-stream", ""));
    ann.get("/api/flags/stream?nope=1").await.expect_violation("/nope", "unknown_parameter");
}

async fn changes_arrive_whole_and_name_only_what_changed(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    app.boolean_flag("b").await;
    let (id, ann) = app.user("ann").await;
    let mut events = ann.stream(MINE, &[]).await;
    let snapshot = events.expect("snapshot").await;
    let put = app.admin.put(&override_at(&id, "a"), &json!({"override_value": true})).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!(change.data["set"]["a"]["value"], true);
    assert_eq!(change.data["set"]["a"]["source"], "override");
    assert_eq!((names(&change), &change.data["unset"]), (vec!["a"], &json!([])));
    assert_eq!(change.data["revision"], put.header("flags-revision"));
    assert!(change.revision() > snapshot.revision());
    app.admin.post("/api/admin/feature-flags/b/archive", &json!({})).await.expect(200);
    let change = events.expect("change").await;
    assert_eq!((&change.data["set"], &change.data["unset"]), (&json!({}), &json!(["b"])));
    app.admin.post("/api/admin/feature-flags/b/restore", &json!({})).await.expect(200);
    let change = events.expect("change").await;
    assert_eq!((names(&change), &change.data["set"]["b"]["value"]), (vec!["b"], &json!(false)));
    app.admin.delete(&override_at(&id, "a")).await.expect(204);
    let change = events.expect("change").await;
    assert_eq!(
        change.data["set"]["a"],
        json!({"value": false, "variant": "off", "flag_type": "boolean", "source": "default"})
    );
}

async fn what_changes_no_value_sends_nothing(kind: Kind) {
    let app = TestApp::start_limited(kind, false, lively()).await;
    app.clock_to_the_past();
    app.boolean_flag("a").await;
    app.boolean_flag("marker").await;
    let (id, ann) = app.user("ann").await;
    let (other, _) = app.user("other").await;
    app.admin
        .put(&override_at(&id, "a"), &json!({"override_value": true, "expires_at": "2020-01-01T00:00:05Z"}))
        .await
        .expect(201);
    let change = json!({"scheduled_at": "2020-01-01T00:00:06Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/a/scheduled-changes", &change).await.expect(201);
    app.clock.set(Instant::parse("2020-01-01T00:00:07Z").unwrap());
    let mut events = ann.stream(MINE, &[]).await;
    let snapshot = events.expect("snapshot").await;
    assert_eq!(snapshot.data["flags"]["a"]["source"], "scheduled_change");
    // The worker's work, what is for people only, what concerns somebody else, and what changes nothing at all.
    let round = flags_service::maintenance::run_round(&app.core, Default::default()).await.unwrap();
    assert_eq!((round.overrides_expired, round.changes_marked), (1, 1));
    app.admin.patch("/api/admin/feature-flags/a", &json!({"description": "new", "tags": ["x"]})).await.expect(200);
    app.admin.put(&override_at(&other, "a"), &json!({"override_value": true})).await.expect(201);
    app.admin.patch(&format!("/api/admin/users/{id}"), &json!({"display_name": "Ann"})).await.expect(200);
    app.admin.patch("/api/admin/feature-flags/a", &json!({"enabled": true})).await.expect(200);
    let head = app.replica.revision().number;
    loop {
        let heartbeat = events.next().await;
        assert_eq!(heartbeat.event, "heartbeat", "{heartbeat:?}");
        if heartbeat.revision() >= head {
            break;
        }
    }
    app.admin.put(&override_at(&id, "marker"), &json!({"override_value": true})).await.expect(201);
    next_is_marker(&mut events, "marker").await;
}

async fn time_is_pushed_at_its_instant(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    app.boolean_flag("b").await;
    let (id, ann) = app.user("ann").await;
    let mut events = ann.stream(MINE, &[]).await;
    assert_eq!(events.expect("snapshot").await.data["valid_until"], json!(null));
    let ends = json!({"override_value": true, "expires_at": "2030-01-01T00:00:05Z"});
    app.admin.put(&override_at(&id, "a"), &ends).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!(change.data["valid_until"], "2030-01-01T00:00:05Z");
    assert_eq!(change.data["set"]["a"]["then"]["value"], false);
    let change = json!({"scheduled_at": "2030-01-01T00:00:03Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/b/scheduled-changes", &change).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!((names(&change), &change.data["valid_until"]), (vec!["b"], &json!("2030-01-01T00:00:03Z")));
    let revision = change.revision();
    app.clock_to("01-01T00:00:03Z");
    let change = events.expect("change").await;
    assert_eq!((names(&change), &change.data["set"]["b"]["value"]), (vec!["b"], &json!(true)));
    assert_eq!((change.revision(), &change.data["valid_until"]), (revision, &json!("2030-01-01T00:00:05Z")));
    app.clock_to("01-01T00:00:05Z");
    let change = events.expect("change").await;
    assert_eq!((names(&change), &change.data["set"]["a"]["value"]), (vec!["a"], &json!(false)));
    assert_eq!((change.revision(), &change.data["valid_until"]), (revision, &json!(null)));
}

async fn flags_that_a_user_never_saw_are_not_named(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("marker").await;
    let hidden = json!({"name": "hidden", "flag_type": "boolean", "client_visible": false});
    app.flag(hidden).await;
    let (id, ann) = app.user("ann").await;
    let mut events = ann.stream(MINE, &[]).await;
    events.expect("snapshot").await;
    app.admin.patch("/api/admin/feature-flags/hidden", &json!({"enabled": false})).await.expect(200);
    let ends = json!({"override_value": true, "expires_at": "2030-01-01T00:00:05Z"});
    app.admin.put(&override_at(&id, "hidden"), &ends).await.expect(201);
    app.clock_to("01-01T00:00:06Z");
    app.admin.delete(&override_at(&id, "hidden")).await.expect(204);
    app.flag(json!({"name": "second", "flag_type": "boolean", "client_visible": false})).await;
    app.admin.post("/api/admin/feature-flags/hidden/archive", &json!({})).await.expect(200);
    app.admin.put(&override_at(&id, "marker"), &json!({"override_value": true})).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!((names(&change), &change.data["unset"]), (vec!["marker"], &json!([])));
    // One that becomes visible is set; one that is hidden is unset, once.
    app.admin.patch("/api/admin/feature-flags/second", &json!({"client_visible": true})).await.expect(200);
    assert_eq!(names(&events.expect("change").await), ["second"]);
    app.admin.patch("/api/admin/feature-flags/second", &json!({"client_visible": false})).await.expect(200);
    assert_eq!(events.expect("change").await.data["unset"], json!(["second"]));
    app.admin.patch("/api/admin/feature-flags/second", &json!({"enabled": false})).await.expect(200);
    app.admin.delete(&override_at(&id, "marker")).await.expect(204);
    let change = events.expect("change").await;
    assert_eq!((names(&change), &change.data["unset"]), (vec!["marker"], &json!([])));
}

async fn a_user_whose_attributes_change_gets_everything_anew(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.flag(
        json!({"name": "a", "flag_type": "boolean", "targeting_rules": [{"id": "pro", "name": "Pro", "enabled": true,
        "conditions": [{"attribute": "plan", "operator": "equals", "values": ["pro"]}], "serve": {"variant": "on"}}]}),
    )
    .await;
    let (id, ann) = app.user("ann").await;
    let mut events = ann.stream(MINE, &[]).await;
    assert_eq!(events.expect("snapshot").await.data["flags"]["a"]["value"], false);
    app.admin.patch(&format!("/api/admin/users/{id}"), &json!({"attributes": {"plan": "pro"}})).await.expect(200);
    let snapshot = events.expect("snapshot").await;
    assert_eq!(snapshot.data["flags"]["a"]["value"], true);
    // Also one who was away when it happened.
    app.admin.patch(&format!("/api/admin/users/{id}"), &json!({"attributes": {}})).await.expect(200);
    let mut resumed = ann.stream(MINE, &[("Last-Event-ID", snapshot.id.as_deref().unwrap())]).await;
    assert_eq!(resumed.expect("snapshot").await.data["flags"]["a"]["value"], false);
}

async fn heartbeats_carry_the_position(kind: Kind) {
    let app = TestApp::start_limited(kind, false, lively()).await;
    app.boolean_flag("a").await;
    let (_, ann) = app.user("ann").await;
    let mut events = ann.stream(MINE, &[]).await;
    let snapshot = events.expect("snapshot").await;
    let first = events.expect("heartbeat").await;
    assert_eq!(first.data, json!({"revision": snapshot.data["revision"], "stale": false}));
    // What concerns others moves the position.
    app.user("other").await;
    let head = app.replica.revision();
    let moved = loop {
        let heartbeat = events.expect("heartbeat").await;
        if heartbeat.revision() > first.revision() {
            break heartbeat;
        }
    };
    assert!(moved.revision() <= head.number);
    assert!(moved.data["revision"].as_str().unwrap().starts_with(&head.epoch.simple().to_string()));
}

async fn streams_end_when_the_credential_does(kind: Kind) {
    let app = TestApp::start_limited(kind, false, lively()).await;
    let (id, ann) = app.user("ann").await;
    let (ben_id, ben) = app.user("ben").await;
    let (vera_id, vera) = app.user_with("vera", "viewer", json!({})).await;
    let end = Instant::parse("2030-01-01T00:00:10Z").unwrap();
    let expiring = app.caller(Grant::Role(Role::User), Some(id.parse().unwrap()), Some(end)).await;
    let mut deactivated = ann.stream(MINE, &[]).await;
    let mut deleted = ben.stream(MINE, &[]).await;
    let mut expired = expiring.stream(MINE, &[]).await;
    let mut demoted = vera.stream(ALL, &[]).await;
    for events in [&mut deactivated, &mut deleted, &mut expired, &mut demoted] {
        events.expect("snapshot").await;
    }
    app.clock_to("01-01T00:00:10Z");
    assert_eq!(expired.expect("bye").await.data, json!({"reason": "revoked"}));
    expired.expect_end().await;
    app.admin.patch(&format!("/api/admin/users/{id}"), &json!({"active": false})).await.expect(200);
    assert_eq!(deactivated.expect("bye").await.data, json!({"reason": "revoked"}));
    app.admin.delete(&format!("/api/admin/users/{ben_id}")).await.expect(204);
    assert_eq!(deleted.expect("bye").await.data, json!({"reason": "revoked"}));
    app.admin.patch(&format!("/api/admin/users/{vera_id}"), &json!({"role": "user"})).await.expect(200);
    let bye = loop {
        let event = demoted.next().await;
        if event.event == "bye" {
            break event;
        }
    };
    assert_eq!(bye.data, json!({"reason": "revoked"}));
}

async fn streams_end_by_age_and_at_shutdown_and_are_counted(kind: Kind) {
    let age = (Duration::from_millis(300), Duration::from_millis(400));
    let app = TestApp::start_limited(kind, false, StreamLimits { age, most: 1, ..StreamLimits::default() }).await;
    let (_, ann) = app.user("ann").await;
    let mut events = ann.stream(MINE, &[]).await;
    events.expect("snapshot").await;
    let refused = ann.get(MINE).await;
    assert_eq!(refused.header("retry-after"), "5");
    refused.expect_problem(503, "too_many_streams");
    assert_eq!(events.expect("bye").await.data, json!({"reason": "max_age"}));
    events.expect_end().await;
    drop(events);
    flags_tests::eventually("an ended stream gives its place to another", async || {
        ann.try_stream(MINE, &[]).await.is_ok().then_some(())
    })
    .await;
    let app = TestApp::start(kind).await;
    let (_, ann) = app.user("ann").await;
    let (mut mine, mut all) = (ann.stream(MINE, &[]).await, app.admin.stream(ALL, &[]).await);
    mine.expect("snapshot").await;
    all.expect("snapshot").await;
    app.app.begin_shutdown();
    for events in [&mut mine, &mut all] {
        assert_eq!(events.expect("bye").await.data, json!({"reason": "shutdown"}));
        events.expect_end().await;
    }
    ann.get(MINE).await.expect_problem(503, "shutting_down");
}

async fn admins_see_what_was_changed_by_whom(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (id, ann) = app.user("ann").await;
    let (ada_id, ada) = app.user_with("ada", "admin", json!({})).await;
    let mut events = app.admin.stream(ALL, &[]).await;
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
    let made = ada.put(&override_at(&id, "a"), &json!({"override_value": true, "reason": "secret"})).await.expect(201);
    let change = events.expect("change").await;
    assert_eq!(
        change.data["changes"],
        json!([{"entity": "override", "action": "created", "flag_name": "a", "user_id": id, "id": made.json()["id"], "actor": actor}])
    );
    assert!(!change.data.to_string().contains("secret"));
    ann.get(ALL).await.expect_problem(403, "forbidden");
}

async fn a_removal_is_noted_for_streams_that_have_not_seen_the_end(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("a").await;
    let (id, _) = app.user("ann").await;
    let ends = json!({"override_value": true, "expires_at": "2030-01-01T00:00:05Z"});
    app.admin.put(&override_at(&id, "a"), &ends).await.expect(201);
    // A stream whose client does not read: nobody pulls while the end passes and the row is removed.
    let signals = app.replica.notifier().subscribe(id.parse().unwrap());
    let before = app.replica.revision().number;
    app.clock_to("01-01T00:00:06Z");
    app.admin.delete(&override_at(&id, "a")).await.expect(204);
    assert_eq!(signals.touched_at(), before + 1, "or the stream would take itself for up to date");
}

async fn a_change_of_the_caller_ends_a_stream_without_a_heartbeat(kind: Kind) {
    let silent = StreamLimits { heartbeat: Duration::from_secs(3_600), ..StreamLimits::default() };
    let app = TestApp::start_limited(kind, false, silent).await;
    let (id, ann) = app.user("ann").await;
    let (vera_id, vera) = app.user_with("vera", "viewer", json!({})).await;
    let (mut mine, mut all) = (ann.stream(MINE, &[]).await, vera.stream(ALL, &[]).await);
    mine.expect("snapshot").await;
    all.expect("snapshot").await;
    app.admin.patch(&format!("/api/admin/users/{vera_id}"), &json!({"role": "user"})).await.expect(200);
    assert_eq!(all.next().await.event, "bye", "and not the change itself");
    app.admin.patch(&format!("/api/admin/users/{id}"), &json!({"active": false})).await.expect(200);
    assert_eq!(mine.next().await.event, "bye");
}

async fn the_next_instant_is_that_of_the_request(kind: Kind) {
    let app = TestApp::start(kind).await;
    let (id, ann) = app.user("ann").await;
    for name in ["a", "b", "c"] {
        app.boolean_flag(name).await;
    }
    app.flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let mut events = ann.stream(MINE, &[]).await;
    events.expect("snapshot").await;
    let at = |second: u32| format!("2030-01-01T00:00:{second:02}Z");
    let plan = async |flag: &str, second: u32, enabled: bool| {
        let path = format!("/api/admin/feature-flags/{flag}/scheduled-changes");
        app.admin.post(&path, &json!({"scheduled_at": at(second), "enabled": enabled})).await.expect(201);
    };
    let agree = async |events: &mut Events| {
        let change = events.expect("change").await;
        let mine = ann.get("/api/flags/me").await.expect(200).json();
        assert_eq!(change.data["valid_until"], mine["valid_until"], "{change:?}");
        mine["valid_until"].clone()
    };
    plan("b", 30, false).await;
    assert_eq!(agree(&mut events).await, at(30));
    plan("hidden", 5, false).await;
    // Switched on while it is on: nothing changes at that instant.
    plan("a", 10, true).await;
    assert_eq!(agree(&mut events).await, at(30));
    app.admin.put(&override_at(&id, "c"), &json!({"override_value": true, "expires_at": at(20)})).await.expect(201);
    assert_eq!(agree(&mut events).await, at(20));
    // An override without an end takes its flag out of the clock's hands.
    app.admin.put(&override_at(&id, "b"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(agree(&mut events).await, at(20));
    app.admin.delete(&override_at(&id, "c")).await.expect(204);
    assert_eq!(agree(&mut events).await, json!(null));
}

async fn a_stream_whose_user_cannot_be_looked_up_lives_where_it_was(kind: Kind) {
    let app = TestApp::start_limited(kind, false, lively()).await;
    app.boolean_flag("a").await;
    let (id, ann) = app.user("ann").await;
    let mut events = ann.stream(MINE, &[]).await;
    let before = events.expect("snapshot").await.revision();
    // The log names the user, and the database says no more of users.
    let (hex, fresh) = match kind {
        Kind::Postgres => (format!("'{id}'"), "gen_random_uuid()"),
        Kind::Sqlite => (format!("x'{}'", id.replace('-', "")), "randomblob(16)"),
    };
    let touch = format!(
        "ALTER TABLE users RENAME TO users_away;
         INSERT INTO change_log SELECT (SELECT max(revision) FROM change_log) + 1, 0, {fresh}, at, actor, 'updated', entity,
             entity_id, flag_name, user_id, before, after, reason, request_id
             FROM change_log WHERE entity = 'user' AND user_id = {hex};
         UPDATE log_head SET revision = revision + 1"
    );
    tamper(&app.database.url, &touch).await;
    flags_tests::eventually("the replica is further", async || (app.replica.revision().number > before).then_some(()))
        .await;
    let mut beats = 0;
    while beats < 5 {
        let event = events.next().await;
        assert_eq!(event.event, "heartbeat");
        beats += usize::from(event.revision() == before);
    }
    tamper(&app.database.url, "ALTER TABLE users_away RENAME TO users").await;
    loop {
        let event = events.next().await;
        assert_eq!(event.event, "heartbeat", "nothing about the user is different");
        if event.revision() > before {
            break;
        }
    }
}
