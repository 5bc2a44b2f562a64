//! Stream tokens of the event stream: authorization, expiry and scope.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flags_domain::Instant;
use flags_store::{api_tokens::TokenGrant, users::Role};
use flags_tests::{
    app::{PASSWORD, TestApp, override_path},
    caller::Caller,
    database::{Database, DatabaseKind},
    events::EventStream,
    eventually, on_both_databases,
    process::{RunningProcess, create_admin_token, stdout_of},
};
use reqwest::Method;
use serde_json::json;

use super::{
    BULK_PATH, backend_caller, expect_error, expect_refetch, fetch_stream_address, open_evaluation_stream, request_for,
    stream_address,
};
use crate::{auth::jwt, streams::no_heartbeats};

on_both_databases! {
    stream_ends_when_the_credential_or_user_becomes_invalid,
    stream_ends_with_its_session_and_does_not_extend_it,
    stream_token_expires_with_its_jwt,
    stream_token_is_stable_for_one_hour_and_expires_after_two,
    event_stream_requires_a_stream_token_that_permits_nothing_else,
    servers_on_one_database_accept_each_others_stream_tokens,
}

const STREAM_PATH: &str = "/ofrep/v1/stream";

/// One hour, in microseconds.
const HOUR: i64 = 60 * 60 * 1_000_000;

/// Reads the expiry from a stream token that was issued to an API token.
fn stream_token_expiry(uri: &str) -> Instant {
    let token = uri.split_once("ticket=").expect("a stream token").1;
    let bytes = URL_SAFE_NO_PAD.decode(token).expect("base64url");
    Instant::from_micros(i64::from_be_bytes(bytes[34..42].try_into().expect("eight bytes")))
}

async fn stream_ends_when_the_credential_or_user_becomes_invalid(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, no_heartbeats()).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let expires_at = Instant::parse("2030-01-01T00:00:10Z").unwrap();
    let expiring =
        app.caller_with_token(TokenGrant::Role(Role::User), Some(ann_id.parse().unwrap()), Some(expires_at)).await;
    let created =
        app.admin.post("/api/admin/api-tokens", &json!({"name": "x", "scope": "evaluate"})).await.expect(201).json();
    let revoked = app.caller_with_bearer(created["token"].as_str().unwrap());
    let mut streams = Vec::new();
    for caller in [&expiring, &revoked, &ann] {
        let uri = fetch_stream_address(caller, &ann_id).await;
        let mut events = app.anonymous.open_stream(&uri, &[]).await;
        expect_refetch(&mut events).await;
        streams.push((uri, events));
    }
    app.set_clock("01-01T00:00:10Z");
    let expect_revoked = async |(uri, events): &mut (String, EventStream)| {
        assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
        events.expect_end().await;
        expect_error(app.anonymous.get(uri).await, 401, "GENERAL", None);
    };
    expect_revoked(&mut streams[0]).await;
    let path = format!("/api/admin/api-tokens/{}", created["id"].as_str().unwrap());
    app.admin.delete(&path).await.expect(204);
    expect_revoked(&mut streams[1]).await;
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"active": false})).await.expect(200);
    expect_revoked(&mut streams[2]).await;
    // The stream token is valid again once its user is active.
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"active": true})).await.expect(200);
    expect_refetch(&mut app.anonymous.open_stream(&streams[2].0, &[]).await).await;
}

async fn stream_ends_with_its_session_and_does_not_extend_it(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, no_heartbeats()).await;
    let (ann_id, email) = app.create_account("ann", "user").await;
    let browser = app.anonymous.sign_in(&email, PASSWORD).await;
    let mut events = open_evaluation_stream(&app, &browser, &ann_id).await;
    expect_refetch(&mut events).await;
    browser.post("/api/auth/logout", &json!({})).await.expect(204);
    assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
    // The session idle timeout is eight hours; opening an event stream does not count as use of the session.
    let browser = app.anonymous.sign_in(&email, PASSWORD).await;
    app.set_clock("01-01T07:00:00Z");
    let uri = fetch_stream_address(&browser, &ann_id).await;
    app.set_clock("01-01T07:59:59Z");
    expect_refetch(&mut app.anonymous.open_stream(&uri, &[]).await).await;
    app.set_clock("01-01T15:00:00Z");
    browser.get("/api/flags/me").await.expect_problem(401, "unauthorized");
}

async fn stream_token_expires_with_its_jwt(kind: DatabaseKind) {
    let (app, _key_file) = jwt::start_app(kind, |config| config).await;
    let (ann_id, _) = app.create_user("ann").await;
    let caller = app.caller_with_bearer(&jwt::sign_rs256(&jwt::claims(&ann_id)));
    let uri = fetch_stream_address(&caller, &ann_id).await;
    let mut events = app.anonymous.open_stream(&uri, &[]).await;
    expect_refetch(&mut events).await;
    app.set_clock("01-01T00:00:10Z");
    assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
    expect_error(app.anonymous.get(&uri).await, 401, "GENERAL", None);
}

async fn stream_token_is_stable_for_one_hour_and_expires_after_two(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, no_heartbeats()).await;
    app.create_boolean_flag("f").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let evaluate = async |if_none_match: &str| {
        ann.send_json(Method::POST, BULK_PATH, &[("if-none-match", if_none_match)], &request_for(&ann_id)).await
    };
    app.set_clock("01-01T10:00:00Z");
    // The one-hour window starts at an instant that depends on the credential and the user.
    let window_start = stream_token_expiry(&stream_address(&evaluate("").await.expect(200))).as_micros() - HOUR;
    let set_clock = |micros: i64| app.clock.set(Instant::from_micros(window_start + micros));
    set_clock(0);
    let first = evaluate("").await.expect(200);
    let (uri, entity_tag) = (stream_address(&first), first.header("etag").to_owned());
    let mut events = app.anonymous.open_stream(&uri, &[]).await;
    expect_refetch(&mut events).await;
    set_clock(HOUR - 1);
    evaluate(&entity_tag).await.expect(304);
    app.admin.put(&override_path(&ann_id, "f"), &json!({"override_value": true})).await.expect(201);
    assert_eq!(
        stream_address(&evaluate(&entity_tag).await.expect(200)),
        uri,
        "the address does not change within the window"
    );
    expect_refetch(&mut events).await;
    let entity_tag = evaluate("").await.header("etag").to_owned();
    set_clock(HOUR);
    let next_uri = stream_address(&evaluate(&entity_tag).await.expect(200));
    assert_ne!(next_uri, uri, "the entity tag changes with the address, so that clients receive the new address");
    set_clock(2 * HOUR - 1);
    expect_refetch(&mut app.anonymous.open_stream(&uri, &[]).await).await;
    set_clock(2 * HOUR);
    assert_eq!(events.expect("bye").await.data, json!({"reason": "revoked"}));
    events.expect_end().await;
    expect_error(app.anonymous.get(&uri).await, 401, "GENERAL", None);
    expect_refetch(&mut app.anonymous.open_stream(&next_uri, &[]).await).await;
}

async fn event_stream_requires_a_stream_token_that_permits_nothing_else(kind: DatabaseKind) {
    let app = TestApp::start(kind).await;
    let other_app = TestApp::start(kind).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let uri = fetch_stream_address(&ann, &ann_id).await;
    let token = uri.split_once('=').unwrap().1;
    let foreign_uri = fetch_stream_address(&backend_caller(&other_app).await, &ann_id).await;
    let mut forged = token.to_owned();
    let last = if forged.pop() == Some('A') { 'E' } else { 'A' };
    forged.push(last);
    for path in [
        STREAM_PATH.to_owned(),
        format!("{STREAM_PATH}?ticket="),
        format!("{STREAM_PATH}?ticket=%00"),
        format!("{STREAM_PATH}?cursor={token}"),
        format!("{STREAM_PATH}?ticket={forged}"),
        format!("{STREAM_PATH}?ticket={token}A"),
        foreign_uri,
    ] {
        // Other credentials do not replace the stream token.
        for caller in [&app.anonymous, &ann, &app.admin] {
            expect_error(caller.get(&path).await, 401, "GENERAL", None);
        }
    }
    app.caller_with_bearer(token).get("/api/flags/me").await.expect_problem(401, "unauthorized");
    app.anonymous.get(&format!("/api/flags/stream?ticket={token}")).await.expect_problem(401, "unauthorized");
    expect_error(
        app.anonymous.post(&format!("{BULK_PATH}?ticket={token}"), &request_for(&ann_id)).await,
        401,
        "GENERAL",
        None,
    );
    expect_error(app.anonymous.post(&uri, &json!({})).await, 405, "GENERAL", None);
    expect_refetch(&mut app.anonymous.open_stream(&uri, &[]).await).await;
    expect_refetch(&mut app.caller_with_bearer("flg_invalid").open_stream(&uri, &[]).await).await;
}

async fn servers_on_one_database_accept_each_others_stream_tokens(kind: DatabaseKind) {
    let database = Database::migrated(kind).await;
    let url = &database.url;
    let servers = [RunningProcess::server(url), RunningProcess::server(url)];
    let token = stdout_of("server", &["token", "create", "--database-url", url, "--name", "n", "--scope", "evaluate"]);
    let admin = servers[0].caller(&create_admin_token(url));
    eventually("the tokens are known", async || (admin.get("/api/admin/users").await.status == 200).then_some(()))
        .await;
    let mut streams = Vec::new();
    for (issuer, other) in [(&servers[0], &servers[1]), (&servers[1], &servers[0])] {
        let backend = issuer.caller(&token);
        let all = eventually("the token is known", async || {
            let all = backend.post(BULK_PATH, &request_for("anonymous-1")).await;
            (all.status == 200).then_some(all)
        });
        let mut events = Caller::new(&other.base_url, None).open_stream(&stream_address(&all.await), &[]).await;
        expect_refetch(&mut events).await;
        streams.push(events);
    }
    let created =
        admin.post("/api/admin/feature-flags", &json!({"name": "f", "flag_type": "boolean"})).await.expect(201);
    let revision = created.json()["revision"].as_i64().unwrap();
    for events in &mut streams {
        let refetch = loop {
            let refetch = expect_refetch(events).await;
            if refetch.revision() >= revision {
                break refetch;
            }
        };
        // Every server then evaluates at this revision or a later one.
        for server in &servers {
            let path = format!("{BULK_PATH}?flagConfigEtag={}", refetch.data["etag"].as_str().unwrap());
            let all = server.caller(&token).post(&path, &request_for("anonymous-1")).await.expect(200).json();
            assert_eq!(all["flags"][0]["key"], "f");
        }
    }
    // The signing key is stored in the database, so stream tokens remain valid after a restart.
    let uri = fetch_stream_address(&servers[0].caller(&token), "anonymous-1").await;
    for server in servers {
        assert_eq!(server.stop().code(), Some(0));
    }
    let server = RunningProcess::server(url);
    expect_refetch(&mut Caller::new(&server.base_url, None).open_stream(&uri, &[]).await).await;
}
