//! The event stream of OpenFeature's protocol: what makes a provider ask again.

use std::time::Duration;

use flags_api::StreamLimits;
use flags_domain::Instant;
use flags_tests::{
    app::{TestApp, override_at},
    caller::{Caller, Reply},
    database::Kind,
    events::{Event, Events},
    on_both_databases,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    auth::jwt,
    ofrep::evaluate::{BULK, application, context, failed},
    streams::events::lively,
};

on_both_databases! {
    a_stream_begins_with_word_to_ask_again,
    whatever_may_matter_to_a_user_is_told_and_nothing_else,
    time_is_told_at_its_instant,
    an_instant_wakes_a_stream_without_a_heartbeat,
    an_application_hears_of_hidden_flags_and_of_whom_it_asked_for,
    a_client_goes_on_where_it_was,
    streams_are_counted_and_end_at_shutdown,
    everything_loaded_anew_is_told,
}

/// The address of the event stream, as an answer says it.
pub(crate) fn address(all: &Reply) -> String {
    let streams = &all.json()["eventStreams"];
    let uri = streams[0]["endpoint"]["requestUri"].as_str().unwrap().to_owned();
    let expected = json!([{"type": "sse", "endpoint": {"requestUri": uri}, "inactivityDelaySec": 120}]);
    assert_eq!(*streams, expected);
    assert!(uri.starts_with("/ofrep/v1/stream?ticket="), "{uri}");
    uri
}

pub(crate) async fn address_for(caller: &Caller, key: &str) -> String {
    address(&caller.post(BULK, &context(key)).await.expect(200))
}

/// A stream as browsers open it: the address says it all.
pub(crate) async fn follow(app: &TestApp, caller: &Caller, key: &str) -> Events {
    app.nobody.stream(&address_for(caller, key).await, &[]).await
}

/// The next word to ask again.
pub(crate) async fn word(events: &mut Events) -> Event {
    let event = events.expect("message").await;
    let seconds = event.evaluated_at().div_euclid(1_000_000);
    let data = json!({"type": "refetchEvaluation", "etag": event.id, "lastModified": seconds});
    assert_eq!(event.data, data, "it says nothing else");
    event
}

/// Asserts that nothing is told up to what the replica has now.
async fn quiet(app: &TestApp, events: &mut Events) {
    let (head, now) = (app.replica.revision().number, app.core.now().as_micros());
    loop {
        let event = events.next().await;
        assert_eq!(event.event, "heartbeat", "{event:?}");
        if event.revision() >= head && event.evaluated_at() >= now {
            return;
        }
    }
}

async fn a_stream_begins_with_word_to_ask_again(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let (ann, ann_calls) = app.user("ann").await;
    let uri = address_for(&ann_calls, &ann).await;
    let mut events = app.nobody.stream(&uri, &[]).await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert_eq!(events.headers["cache-control"], "no-cache");
    assert_eq!(events.headers["x-accel-buffering"], "no");
    let first = word(&mut events).await;
    assert_eq!(first.revision(), app.replica.revision().number);
    assert_eq!(first.data["lastModified"], jwt::BEGIN);
    assert!(events.parser.retry.is_some());
    let head = app.nobody.send(Method::HEAD, &uri, &[], None).await.expect(200);
    assert_eq!((head.header("content-type"), &*head.text), ("text/event-stream", ""));
    // What a provider does then.
    let etag = first.data["etag"].as_str().unwrap();
    let known = ann_calls.post(BULK, &context(&ann)).await.header("etag").to_owned();
    let path = format!("{BULK}?flagConfigEtag={etag}&flagConfigLastModified={}", first.data["lastModified"]);
    ann_calls.json(Method::POST, &path, &[("if-none-match", &known)], &context(&ann)).await.expect(304);
}

async fn whatever_may_matter_to_a_user_is_told_and_nothing_else(kind: Kind) {
    let app = TestApp::start_limited(kind, false, lively()).await;
    app.boolean_flag("f").await;
    app.flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann, ann_calls) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let mut events = follow(&app, &ann_calls, &ann).await;
    word(&mut events).await;
    // Other users, hidden flags and what is for people alone.
    app.admin.put(&override_at(&ben, "f"), &json!({"override_value": true})).await.expect(201);
    app.admin.patch(&format!("/api/admin/users/{ben}"), &json!({"attributes": {"plan": "pro"}})).await.expect(200);
    app.admin.put(&override_at(&ann, "hidden"), &json!({"override_value": true})).await.expect(201);
    app.admin.patch("/api/admin/feature-flags/hidden", &json!({"enabled": false})).await.expect(200);
    app.admin.patch("/api/admin/feature-flags/f", &json!({"description": "new"})).await.expect(200);
    app.flag(json!({"name": "hidden2", "flag_type": "boolean", "client_visible": false})).await;
    quiet(&app, &mut events).await;
    let flag = "/api/admin/feature-flags/f";
    let hidden = "/api/admin/feature-flags/hidden";
    let (own, user) = (override_at(&ann, "f"), format!("/api/admin/users/{ann}"));
    for (what, method, path, body) in [
        ("a flag", Method::PATCH, flag, json!({"default": {"variant": "on"}})),
        ("an own override", Method::PUT, &own, json!({"override_value": true})),
        ("its switch", Method::PATCH, &own, json!({"enabled": false})),
        ("its removal", Method::DELETE, &own, json!({})),
        ("attributes", Method::PATCH, &user, json!({"attributes": {"a": 1}})),
        ("the role", Method::PATCH, &user, json!({"role": "viewer"})),
        ("a flag that is shown", Method::PATCH, hidden, json!({"client_visible": true})),
        ("one that is hidden", Method::PATCH, hidden, json!({"client_visible": false})),
        ("one that is archived", Method::POST, &format!("{flag}/archive"), json!({})),
        ("one that is restored", Method::POST, &format!("{flag}/restore"), json!({})),
    ] {
        let change = app.admin.json(method, path, &[], &body).await;
        assert!(change.status.is_success(), "{what}: {}", change.text);
        assert_eq!(word(&mut events).await.revision(), app.replica.revision().number, "{what}");
    }
    quiet(&app, &mut events).await;
}

async fn time_is_told_at_its_instant(kind: Kind) {
    let app = TestApp::start_limited(kind, false, lively()).await;
    for name in ["f", "g"] {
        app.boolean_flag(name).await;
    }
    app.flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann, ann_calls) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let at = |second: u32| format!("2030-01-01T00:00:{second:02}Z");
    let plan = async |flag: &str, second: u32| {
        let body = json!({"scheduled_at": at(second), "serve": {"variant": "on"}});
        app.admin.post(&format!("/api/admin/feature-flags/{flag}/scheduled-changes"), &body).await.expect(201);
    };
    for (user, flag, second) in [(&ann, "f", 10), (&ben, "f", 20), (&ann, "hidden", 30)] {
        let body = json!({"override_value": true, "expires_at": at(second)});
        app.admin.put(&override_at(user, flag), &body).await.expect(201);
    }
    plan("g", 40).await;
    plan("hidden", 50).await;
    let server = application(&app).await;
    let mut own = follow(&app, &ann_calls, &ann).await;
    let mut anns = follow(&app, &server, &ann).await;
    let mut visitors = follow(&app, &server, "visitor-1").await;
    for events in [&mut own, &mut anns, &mut visitors] {
        word(events).await;
    }
    for (second, tells) in [
        (10, [true, true, false]),
        (20, [false, false, false]),
        (30, [false, true, false]),
        (40, [true, true, true]),
        (50, [false, true, true]),
    ] {
        app.clock_to(&format!("01-01T00:00:{second:02}Z"));
        for (events, tells) in [&mut own, &mut anns, &mut visitors].into_iter().zip(tells) {
            if tells {
                let told = word(events).await;
                assert_eq!(told.evaluated_at(), Instant::parse(&at(second)).unwrap().as_micros());
            } else {
                quiet(&app, events).await;
            }
        }
    }
}

async fn an_instant_wakes_a_stream_without_a_heartbeat(kind: Kind) {
    let app = TestApp::start_limited(kind, false, silent()).await;
    app.boolean_flag("f").await;
    app.flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann, ann_calls) = app.user("ann").await;
    let server = application(&app).await;
    let mut own = follow(&app, &ann_calls, &ann).await;
    let mut visitors = follow(&app, &server, "visitor-1").await;
    word(&mut own).await;
    word(&mut visitors).await;
    let end = json!({"override_value": true, "expires_at": "2030-01-01T00:00:10Z"});
    app.admin.put(&override_at(&ann, "f"), &end).await.expect(201);
    word(&mut own).await;
    let plan = json!({"scheduled_at": "2030-01-01T00:00:20Z", "serve": {"variant": "on"}});
    app.admin.post("/api/admin/feature-flags/hidden/scheduled-changes", &plan).await.expect(201);
    word(&mut visitors).await;
    app.clock_to("01-01T00:00:10Z");
    assert_eq!(word(&mut own).await.data["lastModified"], jwt::BEGIN + 10);
    app.clock_to("01-01T00:00:20Z");
    assert_eq!(word(&mut visitors).await.data["lastModified"], jwt::BEGIN + 20);
}

async fn an_application_hears_of_hidden_flags_and_of_whom_it_asked_for(kind: Kind) {
    let app = TestApp::start_limited(kind, false, lively()).await;
    app.flag(json!({"name": "hidden", "flag_type": "boolean", "client_visible": false})).await;
    let (ann, _) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let server = application(&app).await;
    let mut anns = follow(&app, &server, &ann).await;
    let mut visitors = follow(&app, &server, "visitor-1").await;
    word(&mut anns).await;
    word(&mut visitors).await;
    let path = "/api/admin/feature-flags/hidden";
    app.admin.patch(path, &json!({"enabled": false})).await.expect(200);
    for events in [&mut anns, &mut visitors] {
        assert_eq!(word(events).await.revision(), app.replica.revision().number);
    }
    app.admin.put(&override_at(&ben, "hidden"), &json!({"override_value": true})).await.expect(201);
    quiet(&app, &mut anns).await;
    app.admin.put(&override_at(&ann, "hidden"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(word(&mut anns).await.revision(), app.replica.revision().number);
    quiet(&app, &mut visitors).await;
    // Whether somebody counts as a user matters as well, and ends nothing: the application is still what it was.
    for active in [false, true] {
        app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"active": active})).await.expect(200);
        assert_eq!(word(&mut anns).await.revision(), app.replica.revision().number);
        let all = server.post(BULK, &context(&ann)).await.expect(200).json();
        assert_eq!(all["flags"][0]["value"], active);
    }
    // A flag that is gone before the client looks is gone for it as well.
    app.admin.patch(path, &json!({"client_visible": true})).await.expect(200);
    app.admin.post(&format!("{path}/archive"), &json!({})).await.expect(200);
    app.admin.delete(path).await.expect(204);
    let head = app.replica.revision().number;
    for events in [&mut anns, &mut visitors] {
        while word(events).await.revision() < head - 1 {}
    }
}

async fn a_client_goes_on_where_it_was(kind: Kind) {
    let app = TestApp::start(kind).await;
    app.boolean_flag("f").await;
    let (ann, ann_calls) = app.user("ann").await;
    let (ben, _) = app.user("ben").await;
    let uri = address_for(&ann_calls, &ann).await;
    let first = word(&mut app.nobody.stream(&uri, &[]).await).await.id.unwrap();
    let resume = async |last: &str| app.nobody.stream(&uri, &[("last-event-id", last)]).await.next().await;
    app.admin.put(&override_at(&ben, "f"), &json!({"override_value": true})).await.expect(201);
    let nothing = resume(&first).await;
    assert_eq!(nothing.event, "heartbeat", "nothing that concerns this client has happened");
    assert_eq!(nothing.revision(), app.replica.revision().number);
    let by_query = app.nobody.stream(&format!("{uri}&cursor={first}"), &[]).await.next().await;
    assert_eq!(by_query.event, "heartbeat");
    for unusable in ["", "rubbish", &format!("{}:1:0", "0".repeat(32)), &first.replacen(':', ":999", 1)] {
        assert_eq!(resume(unusable).await.event, "message", "{unusable}");
    }
    app.admin
        .put(&override_at(&ann, "f"), &json!({"override_value": true, "expires_at": "2030-01-01T00:00:09Z"}))
        .await;
    let second = resume(&first).await;
    assert_eq!((&*second.event, second.revision()), ("message", app.replica.revision().number));
    let second = second.id.unwrap();
    assert_eq!(resume(&second).await.event, "heartbeat");
    app.clock_to("01-01T00:00:09Z");
    let third = resume(&second).await;
    assert_eq!(third.event, "message", "what time moved meanwhile");
    app.flag(json!({"name": "shy", "flag_type": "boolean", "client_visible": false})).await;
    let third = third.id.unwrap();
    assert_eq!(resume(&third).await.event, "heartbeat");
    for visible in [true, false] {
        app.admin.patch("/api/admin/feature-flags/shy", &json!({"client_visible": visible})).await.expect(200);
    }
    assert_eq!(resume(&third).await.event, "message", "an answer in between had a flag that is hidden again");
}

/// One whose streams do not beat: what ends them is the end itself.
pub(crate) fn silent() -> StreamLimits {
    StreamLimits { heartbeat: Duration::from_secs(3_600), ..StreamLimits::default() }
}

async fn streams_are_counted_and_end_at_shutdown(kind: Kind) {
    let app = TestApp::start_limited(kind, false, StreamLimits { most: 1, ..StreamLimits::default() }).await;
    let (ann, ann_calls) = app.user("ann").await;
    let uri = address_for(&ann_calls, &ann).await;
    let mut events = app.nobody.stream(&uri, &[]).await;
    word(&mut events).await;
    let refused = failed(app.nobody.get(&uri).await, 503, "GENERAL", None);
    assert_eq!(refused.header("retry-after"), "5");
    ann_calls.get("/api/flags/stream").await.expect_problem(503, "too_many_streams");
    app.app.begin_shutdown();
    assert_eq!(events.expect("bye").await.data, json!({"reason": "shutdown"}));
    events.expect_end().await;
}

async fn everything_loaded_anew_is_told(kind: Kind) {
    let app = TestApp::start(kind).await;
    let server = application(&app).await;
    let mut events = follow(&app, &server, "visitor-1").await;
    let before: Value = word(&mut events).await.data["etag"].clone();
    app.reload().await;
    let after = word(&mut events).await.data["etag"].clone();
    let epoch = |etag: &Value| etag.as_str().unwrap().split(':').next().unwrap().to_owned();
    assert_ne!(epoch(&before), epoch(&after));
}
