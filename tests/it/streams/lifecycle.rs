//! Termination of event streams: revoked access, maximum age, connection limit and shutdown.

use std::time::Duration;

use flags_api::StreamLimits;
use flags_domain::Instant;
use flags_store::{api_tokens::TokenGrant, users::Role};
use flags_tests::{
    app::TestApp,
    database::{DatabaseKind, execute_raw},
    on_both_databases,
};
use serde_json::json;

use super::{ADMIN_STREAM, OWN_FLAGS_STREAM, fast_heartbeats, no_heartbeats};

on_both_databases! {
    streams_end_when_the_credential_or_user_becomes_invalid,
    revoked_access_ends_a_stream_without_waiting_for_a_heartbeat,
    streams_are_limited_and_end_at_maximum_age_and_shutdown,
    stream_keeps_its_position_while_the_user_lookup_fails,
}

async fn streams_end_when_the_credential_or_user_becomes_invalid(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, fast_heartbeats()).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (ben_id, ben) = app.create_user("ben").await;
    let (vera_id, vera) = app.create_user_with("vera", "viewer", json!({})).await;
    let expires_at = Instant::parse("2030-01-01T00:00:10Z").unwrap();
    let expiring =
        app.caller_with_token(TokenGrant::Role(Role::User), Some(ann_id.parse().unwrap()), Some(expires_at)).await;
    let mut deactivated = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    let mut deleted = ben.open_stream(OWN_FLAGS_STREAM, &[]).await;
    let mut expired = expiring.open_stream(OWN_FLAGS_STREAM, &[]).await;
    let mut demoted = vera.open_stream(ADMIN_STREAM, &[]).await;
    for events in [&mut deactivated, &mut deleted, &mut expired, &mut demoted] {
        events.expect("snapshot").await;
    }
    app.set_clock("01-01T00:00:10Z");
    assert_eq!(expired.expect("bye").await.data, json!({"reason": "revoked"}));
    expired.expect_end().await;
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"active": false})).await.expect(200);
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

async fn revoked_access_ends_a_stream_without_waiting_for_a_heartbeat(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, no_heartbeats()).await;
    let (ann_id, ann) = app.create_user("ann").await;
    let (vera_id, vera) = app.create_user_with("vera", "viewer", json!({})).await;
    let (mut own, mut admin) =
        (ann.open_stream(OWN_FLAGS_STREAM, &[]).await, vera.open_stream(ADMIN_STREAM, &[]).await);
    own.expect("snapshot").await;
    admin.expect("snapshot").await;
    app.admin.patch(&format!("/api/admin/users/{vera_id}"), &json!({"role": "user"})).await.expect(200);
    assert_eq!(admin.next().await.event, "bye", "the stream does not send the demotion itself");
    app.admin.patch(&format!("/api/admin/users/{ann_id}"), &json!({"active": false})).await.expect(200);
    assert_eq!(own.next().await.event, "bye");
}

async fn streams_are_limited_and_end_at_maximum_age_and_shutdown(kind: DatabaseKind) {
    let max_age = (Duration::from_millis(300), Duration::from_millis(400));
    let app =
        TestApp::start_with_stream_limits(kind, StreamLimits { max_age, max_streams: 1, ..StreamLimits::default() })
            .await;
    let (_, ann) = app.create_user("ann").await;
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    events.expect("snapshot").await;
    let refused = ann.get(OWN_FLAGS_STREAM).await;
    assert_eq!(refused.header("retry-after"), "5");
    refused.expect_problem(503, "too_many_streams");
    assert_eq!(events.expect("bye").await.data, json!({"reason": "max_age"}));
    events.expect_end().await;
    drop(events);
    flags_tests::eventually("an ended stream no longer counts towards the limit", async || {
        ann.try_open_stream(OWN_FLAGS_STREAM, &[]).await.is_ok().then_some(())
    })
    .await;
    let app = TestApp::start(kind).await;
    let (_, ann) = app.create_user("ann").await;
    let (mut own, mut admin) =
        (ann.open_stream(OWN_FLAGS_STREAM, &[]).await, app.admin.open_stream(ADMIN_STREAM, &[]).await);
    own.expect("snapshot").await;
    admin.expect("snapshot").await;
    app.app.begin_shutdown();
    for events in [&mut own, &mut admin] {
        assert_eq!(events.expect("bye").await.data, json!({"reason": "shutdown"}));
        events.expect_end().await;
    }
    ann.get(OWN_FLAGS_STREAM).await.expect_problem(503, "shutting_down");
}

async fn stream_keeps_its_position_while_the_user_lookup_fails(kind: DatabaseKind) {
    let app = TestApp::start_with_stream_limits(kind, fast_heartbeats()).await;
    app.create_boolean_flag("a").await;
    let (ann_id, ann) = app.create_user("ann").await;
    let mut events = ann.open_stream(OWN_FLAGS_STREAM, &[]).await;
    let before = events.expect("snapshot").await.revision();
    // Adds a change log row for the user and makes user lookups fail by renaming a column.
    let (id_literal, new_id) = match kind {
        DatabaseKind::Postgres => (format!("'{ann_id}'"), "gen_random_uuid()"),
        DatabaseKind::Sqlite => (format!("x'{}'", ann_id.replace('-', "")), "randomblob(16)"),
    };
    let sql = format!(
        "ALTER TABLE users RENAME COLUMN display_name TO hidden_name;
         INSERT INTO change_log SELECT (SELECT max(revision) FROM change_log) + 1, 0, {new_id}, at, actor, 'updated',
             entity, entity_id, flag_name, user_id, before, after, reason, request_id
             FROM change_log WHERE entity = 'user' AND user_id = {id_literal};
         UPDATE log_head SET revision = revision + 1"
    );
    execute_raw(&app.database.url, &sql).await;
    flags_tests::eventually("the replica has applied the change", async || {
        (app.replica.revision().number > before).then_some(())
    })
    .await;
    let mut heartbeats = 0;
    while heartbeats < 5 {
        let event = events.next().await;
        assert_eq!(event.event, "heartbeat");
        heartbeats += usize::from(event.revision() == before);
    }
    execute_raw(&app.database.url, "ALTER TABLE users RENAME COLUMN hidden_name TO display_name").await;
    loop {
        let event = events.next().await;
        assert_eq!(event.event, "heartbeat", "the user has not changed");
        if event.revision() > before {
            break;
        }
    }
}
