//! Tickets of OpenFeature's event stream: whom they let in, for how long, and that they do nothing else.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Instant;
use flags_store::{api_tokens::Grant, users::Role};
use flags_tests::{
    app::{PASSWORD, TestApp, override_at},
    caller::Caller,
    database::{Database, Kind},
    events::Events,
    eventually, on_both_databases,
    process::{Running, admin_token, output_of},
};
use reqwest::Method;
use serde_json::json;

use crate::{
    auth::jwt,
    ofrep::evaluate::{BULK, application, context, failed},
    ofrep::event_stream::{address, address_for, follow, silent, word},
};

const STREAM: &str = "/ofrep/v1/stream";

on_both_databases! {
    a_stream_ends_at_once_with_its_credential_or_user,
    a_stream_ends_with_a_session_and_keeps_none_alive,
    a_ticket_ends_with_its_jwt,
    a_ticket_stays_the_same_for_an_hour_and_is_void_after_the_next,
    only_a_ticket_of_this_service_opens_a_stream_and_opens_nothing_else,
    servers_on_one_database_take_each_others_tickets,
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
    app.clock_to("01-01T07:59:59Z");
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

/// An hour, in microseconds.
const HOUR: i64 = 60 * 60 * 1_000_000;

/// The end that stands in the ticket of an API token.
fn ends_at(uri: &str) -> Instant {
    let ticket = uri.split_once("ticket=").expect("a ticket").1;
    let bytes = URL_SAFE_NO_PAD.decode(ticket).expect("base64url");
    Instant::from_micros(i64::from_be_bytes(bytes[34..42].try_into().expect("eight bytes")))
}

async fn a_ticket_stays_the_same_for_an_hour_and_is_void_after_the_next(kind: Kind) {
    let app = TestApp::start_limited(kind, false, silent()).await;
    app.boolean_flag("f").await;
    let (ann, ann_calls) = app.user("ann").await;
    let ask = async |known: &str| ann_calls.json(Method::POST, BULK, &[("if-none-match", known)], &context(&ann)).await;
    app.clock_to("01-01T10:00:00Z");
    // Windows of different credentials and users begin at different instants.
    let turn = ends_at(&address(&ask("").await.expect(200))).as_micros() - HOUR;
    let clock_to = |micros: i64| app.clock.set(Instant::from_micros(turn + micros));
    clock_to(0);
    let first = ask("").await.expect(200);
    let (uri, tag) = (address(&first), first.header("etag").to_owned());
    let mut events = app.nobody.stream(&uri, &[]).await;
    word(&mut events).await;
    clock_to(HOUR - 1);
    ask(&tag).await.expect(304);
    app.admin.put(&override_at(&ann, "f"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(address(&ask(&tag).await.expect(200)), uri, "a provider stays connected");
    word(&mut events).await;
    let tag = ask("").await.header("etag").to_owned();
    clock_to(HOUR);
    let next = address(&ask(&tag).await.expect(200));
    assert_ne!(next, uri, "the tag is another one, so that clients hear of the address of the next hour");
    clock_to(2 * HOUR - 1);
    word(&mut app.nobody.stream(&uri, &[]).await).await;
    clock_to(2 * HOUR);
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
