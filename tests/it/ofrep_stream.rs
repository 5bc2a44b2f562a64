//! The event stream of OpenFeature's protocol: what makes a provider ask again, who may listen, and for how long.

use std::time::Duration;

use flags_api::StreamLimits;
use flags_domain::Instant;
use flags_store::{api_tokens::Grant, users::Role};
use flags_tests::{
    app::{PASSWORD, TestApp, override_at},
    caller::{Caller, Reply},
    database::{Database, Kind},
    events::{Event, Events},
    eventually, on_both_databases,
    process::{Running, admin_token, output_of},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    jwt,
    ofrep::{BULK, application, context, failed},
    streams::lively,
};

on_both_databases! {
    a_stream_begins_with_word_to_ask_again,
    whatever_may_matter_to_a_user_is_told_and_nothing_else,
    time_is_told_at_its_instant,
    an_instant_wakes_a_stream_without_a_heartbeat,
    an_application_hears_of_hidden_flags_and_of_whom_it_asked_for,
    a_client_goes_on_where_it_was,
    a_stream_ends_at_once_with_its_credential_or_user,
    a_stream_ends_with_a_session_and_keeps_none_alive,
    a_ticket_ends_with_its_jwt,
    a_ticket_stays_the_same_for_an_hour_and_is_void_after_the_next,
    only_a_ticket_of_this_service_opens_a_stream_and_opens_nothing_else,
    servers_on_one_database_take_each_others_tickets,
    streams_are_counted_and_end_at_shutdown,
    everything_loaded_anew_is_told,
}

const STREAM: &str = "/ofrep/v1/stream";

/// The address of the event stream, as an answer says it.
fn address(all: &Reply) -> String {
    let streams = &all.json()["eventStreams"];
    let uri = streams[0]["endpoint"]["requestUri"].as_str().unwrap().to_owned();
    let expected = json!([{"type": "sse", "endpoint": {"requestUri": uri}, "inactivityDelaySec": 120}]);
    assert_eq!(*streams, expected);
    assert!(uri.starts_with("/ofrep/v1/stream?ticket="), "{uri}");
    uri
}

async fn address_for(caller: &Caller, key: &str) -> String {
    address(&caller.post(BULK, &context(key)).await.expect(200))
}

/// A stream as browsers open it: the address says it all.
async fn follow(app: &TestApp, caller: &Caller, key: &str) -> Events {
    app.nobody.stream(&address_for(caller, key).await, &[]).await
}

/// The next word to ask again.
async fn word(events: &mut Events) -> Event {
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
    assert_eq!(resume(&second).await.event, "message", "what time moved meanwhile");
}

/// One whose streams do not beat: what ends them is the end itself.
fn silent() -> StreamLimits {
    StreamLimits { heartbeat: Duration::from_secs(3_600), ..StreamLimits::default() }
}

async fn a_stream_ends_at_once_with_its_credential_or_user(kind: Kind) {
    let app = TestApp::start_limited(kind, false, silent()).await;
    let (ann, ann_calls) = app.user("ann").await;
    let end = Instant::parse("2030-01-01T00:00:10Z").unwrap();
    let expiring = app.caller(Grant::Role(Role::User), Some(ann.parse().unwrap()), Some(end)).await;
    let made =
        app.admin.post("/api/admin/api-tokens", &json!({"name": "x", "scope": "evaluate"})).await.expect(201).json();
    let revoked = app.bearer(made["token"].as_str().unwrap());
    let mut open = Vec::new();
    for caller in [&expiring, &revoked, &ann_calls] {
        let uri = address_for(caller, &ann).await;
        let mut events = app.nobody.stream(&uri, &[]).await;
        word(&mut events).await;
        open.push((uri, events));
    }
    app.clock_to("01-01T00:00:10Z");
    let ended = async |(uri, events): &mut (String, Events)| {
        assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
        events.expect_end().await;
        failed(app.nobody.get(uri).await, 401, "GENERAL", None);
    };
    ended(&mut open[0]).await;
    let path = format!("/api/admin/api-tokens/{}", made["id"].as_str().unwrap());
    app.admin.delete(&path).await.expect(204);
    ended(&mut open[1]).await;
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"active": false})).await.expect(200);
    ended(&mut open[2]).await;
    // It counts again with its credential.
    app.admin.patch(&format!("/api/admin/users/{ann}"), &json!({"active": true})).await.expect(200);
    word(&mut app.nobody.stream(&open[2].0, &[]).await).await;
}

async fn a_stream_ends_with_a_session_and_keeps_none_alive(kind: Kind) {
    let app = TestApp::start_limited(kind, false, silent()).await;
    let (ann, email) = app.account("ann", "user").await;
    let browser = app.nobody.sign_in(&email, PASSWORD).await;
    let mut events = follow(&app, &browser, &ann).await;
    word(&mut events).await;
    browser.post("/api/auth/logout", &json!({})).await.expect(204);
    assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
    // A session ends after eight hours without use: following, in whosever name, is none.
    let browser = app.nobody.sign_in(&email, PASSWORD).await;
    app.clock_to("01-01T07:00:00Z");
    let uri = address_for(&browser, &ann).await;
    app.clock_to("01-01T08:59:59Z");
    word(&mut app.nobody.stream(&uri, &[]).await).await;
    app.clock_to("01-01T15:00:00Z");
    browser.get("/api/flags/me").await.expect_problem(401, "unauthorized");
}

async fn a_ticket_ends_with_its_jwt(kind: Kind) {
    let (app, _kept) = jwt::start(kind, |config| config).await;
    let (ann, _) = app.user("ann").await;
    let caller = app.bearer(&jwt::rs256(&jwt::claims(&ann)));
    let uri = address_for(&caller, &ann).await;
    let mut events = app.nobody.stream(&uri, &[]).await;
    word(&mut events).await;
    app.clock_to("01-01T00:00:10Z");
    assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
    failed(app.nobody.get(&uri).await, 401, "GENERAL", None);
}

async fn a_ticket_stays_the_same_for_an_hour_and_is_void_after_the_next(kind: Kind) {
    let app = TestApp::start_limited(kind, false, silent()).await;
    app.boolean_flag("f").await;
    let (ann, ann_calls) = app.user("ann").await;
    let ask = async |known: &str| ann_calls.json(Method::POST, BULK, &[("if-none-match", known)], &context(&ann)).await;
    app.clock_to("01-01T10:00:00Z");
    let first = ask("").await.expect(200);
    let (uri, tag) = (address(&first), first.header("etag").to_owned());
    let mut events = app.nobody.stream(&uri, &[]).await;
    word(&mut events).await;
    app.clock_to("01-01T10:59:59.999999Z");
    ask(&tag).await.expect(304);
    app.admin.put(&override_at(&ann, "f"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(address(&ask(&tag).await.expect(200)), uri, "a provider stays connected");
    word(&mut events).await;
    let tag = ask("").await.header("etag").to_owned();
    app.clock_to("01-01T11:00:00Z");
    let next = address(&ask(&tag).await.expect(200));
    assert_ne!(next, uri, "the tag is another one, so that clients hear of the address of the next hour");
    app.clock_to("01-01T11:59:59.999999Z");
    word(&mut app.nobody.stream(&uri, &[]).await).await;
    app.clock_to("01-01T12:00:00Z");
    assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
    events.expect_end().await;
    failed(app.nobody.get(&uri).await, 401, "GENERAL", None);
    word(&mut app.nobody.stream(&next, &[]).await).await;
}

async fn only_a_ticket_of_this_service_opens_a_stream_and_opens_nothing_else(kind: Kind) {
    let app = TestApp::start(kind).await;
    let other = TestApp::start(kind).await;
    let (ann, ann_calls) = app.user("ann").await;
    let uri = address_for(&ann_calls, &ann).await;
    let ticket = uri.split_once('=').unwrap().1;
    let foreign = address_for(&application(&other).await, &ann).await;
    let mut forged = ticket.to_owned();
    let last = if forged.pop() == Some('A') { 'E' } else { 'A' };
    forged.push(last);
    for path in [
        STREAM.to_owned(),
        format!("{STREAM}?ticket="),
        format!("{STREAM}?ticket=%00"),
        format!("{STREAM}?cursor={ticket}"),
        format!("{STREAM}?ticket={forged}"),
        format!("{STREAM}?ticket={ticket}A"),
        foreign,
    ] {
        // Whatever else the caller shows.
        for caller in [&app.nobody, &ann_calls, &app.admin] {
            failed(caller.get(&path).await, 401, "GENERAL", None);
        }
    }
    app.bearer(ticket).get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.nobody.get(&format!("/api/flags/stream?ticket={ticket}")).await.expect_problem(401, "unauthorized");
    failed(app.nobody.post(&format!("{BULK}?ticket={ticket}"), &context(&ann)).await, 401, "GENERAL", None);
    failed(app.nobody.post(&uri, &json!({})).await, 405, "GENERAL", None);
    word(&mut app.nobody.stream(&uri, &[]).await).await;
    word(&mut app.bearer("flg_void").stream(&uri, &[]).await).await;
}

async fn servers_on_one_database_take_each_others_tickets(kind: Kind) {
    let database = Database::migrated(kind).await;
    let url = &database.url;
    let servers = [Running::server(url), Running::server(url)];
    let token = output_of("server", &["token", "create", "--database-url", url, "--name", "n", "--scope", "evaluate"]);
    let admin = servers[0].caller(&admin_token(url));
    eventually("the tokens are known", async || (admin.get("/api/admin/users").await.status == 200).then_some(()))
        .await;
    let mut open = Vec::new();
    for (here, there) in [(&servers[0], &servers[1]), (&servers[1], &servers[0])] {
        let asks = here.caller(&token);
        let all = eventually("the token is known", async || {
            let all = asks.post(BULK, &context("visitor-1")).await;
            (all.status == 200).then_some(all)
        });
        let mut events = Caller::new(&there.base, None).stream(&address(&all.await), &[]).await;
        word(&mut events).await;
        open.push(events);
    }
    let made = admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    let revision = made.json()["revision"].as_i64().unwrap();
    for events in &mut open {
        let told = loop {
            let told = word(events).await;
            if told.revision() >= revision {
                break told;
            }
        };
        // Whichever server is asked then answers from no older state.
        for server in &servers {
            let path = format!("{BULK}?flagConfigEtag={}", told.data["etag"].as_str().unwrap());
            let all = server.caller(&token).post(&path, &context("visitor-1")).await.expect(200).json();
            assert_eq!(all["flags"][0]["key"], "f");
        }
    }
    // The key outlives them.
    let uri = address_for(&servers[0].caller(&token), "visitor-1").await;
    for server in servers {
        assert_eq!(server.stop().code(), Some(0));
    }
    let server = Running::server(url);
    word(&mut Caller::new(&server.base, None).stream(&uri, &[]).await).await;
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
